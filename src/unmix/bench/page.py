"""The page of a study: phase diagrams, margins, MCC along each axis, time, tables; one file that opens offline."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from unmix.bench import figures, summary
from unmix.bench.study import Row, Study
from unmix.files import as_path
from unmix.report.parts import Picture, csv_address, fill, picture, table_html, write_html
from unmix.version import __version__

_MOST_FAILURES = 20


def write_page(study: Study, rows: list[Row], path: Path) -> dict[str, pd.DataFrame]:
    """Write the page of the finished ``rows`` of ``study`` to ``path``, and return its tables."""
    frame = pd.DataFrame(rows)
    axes, methods = study.axes, list(dict.fromkeys(frame["method"]))
    settings = summary.by_setting(frame, axes, study.metrics)
    margins = summary.margins(frame, axes)
    good, failed = summary.finished(frame), frame[frame["error"].notna()]
    text = fill(
        "unmix.bench",
        "page.html",
        version=__version__,
        name=study.name,
        n_runs=len(study.runs()),
        n_done=len(frame),
        n_failed=len(failed),
        methods=methods,
        verdict=_verdict(margins, good),
        phases=_phases(study, settings, methods),
        margins=table_html(margins) if len(margins) else None,
        lines=[
            picture(
                figures.along(summary.by_setting(frame[frame["key"].isin(keys)], axes), axis, methods),
                f"MCC of every method along {axis}",
                axis.replace("_", " "),
            )
            for axis in axes
            if len(good) and (keys := study.along(axis))
        ],
        time=picture(figures.time_and_score(good, methods), "MCC of every run against its seconds")
        if len(good)
        else None,
        level=summary.REACHED,
        reaching=table_html(summary.time_to_reach(frame)),
        table=table_html(settings),
        failures=[
            f"{row['method']}, seed {row['seed']}: {row['error']}"
            for row in failed.head(_MOST_FAILURES).to_dict("records")
        ],
        downloads={"rows": csv_address(frame), "settings": csv_address(settings), "margins": csv_address(margins)},
    )
    write_html(text, as_path(path))
    return {"rows": frame, "settings": settings, "margins": margins}


def _phases(study: Study, settings: pd.DataFrame, methods: list[str]) -> list[Picture]:
    """A diagram for each method that was run on more than one value of domains and of density, nothing else varying."""
    across, down = "n_domains", "density"
    if set(study.axes) != {across, down}:
        return []
    found = []
    for method in methods:
        own = settings[(settings["method"] == method) & settings["mcc"].notna()]
        if own[across].nunique() > 1 and own[down].nunique() > 1:
            drawn = figures.phase_diagram(settings, method, across, down)
            found.append(picture(drawn, f"MCC of {method} by number of domains and density", method))
    return found


def _verdict(margins: pd.DataFrame, rows: pd.DataFrame) -> str:
    if rows.empty:
        return "every run failed; see the failures."
    means = rows.groupby("method")["mcc"].agg(["mean", "size"])
    shown = summary.FULL if summary.FULL in means.index else str(means["mean"].idxmax())
    mean, size = means.loc[shown]
    words = [f"“{shown}” reaches a mean MCC of {mean:.3f} over {size:.0f} runs."]
    known = margins[margins["problems"] == "all"] if len(margins) else margins
    for row in known.to_dict("records"):
        sign = "better" if row["low"] > 0 else "worse" if row["high"] < 0 else "not told apart"
        bounds = f"[{row['low']:.3f}, {row['high']:.3f}]"
        words.append(f"Against {row['against']}: {row['margin']:+.3f} {bounds}, {sign}.")
    return " ".join(words)
