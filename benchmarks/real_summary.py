"""The tables of ``real.py`` in Markdown, from its rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from real_cells import CEILING, Cell
from real_methods import METHODS

_SPREAD = 0.005


def summary(rows: Sequence[dict[str, Any]], cells: Sequence[Cell]) -> str:
    """Tables in Markdown of ``rows``; where a method has rows of several settings or versions, those of ``cells``."""
    digests = {_group(row): _digest(row) for row in rows}
    digests |= {(cell.card.name, cell.n_latents, cell.name): cell.digest for cell in cells}
    own = [row for row in rows if _digest(row) == digests[_group(row)]]
    places = {name: place for place, name in enumerate(METHODS)}
    own.sort(key=lambda row: places.get(row["method"], len(places)))
    lines = ["# Real tables", "", "`python benchmarks/real.py`; its head says how each number is measured.", ""]
    for name in sorted({row["table"] for row in own}):
        here = [row for row in own if row["table"] == name]
        told = next((row["about"] for row in here if "about" in row), None)
        lines += [f"## {told['title'] if told else name}", ""]
        if told:
            lines += [_told(told), ""]
        top = next((row for row in here if row["part"] == "ceiling" and not row["error"]), None)
        for n_latents in sorted({row["n_latents"] for row in here} - {0}):
            at = [row for row in here if row["n_latents"] == n_latents]
            lines += [f"### {n_latents} latents", "", *_markdown(_quality(at)), ""]
            factors = _factors(at, top)
            if factors:
                lines += ["Known factors, best single latent (booleans: AUROC):", "", *_markdown(factors), ""]
        errors = sorted({(row["method"], row["part"], row["error"]) for row in here if row["error"]})
        if errors:
            lines += ["Failed:", "", *(f"- {method}, {part}: {error}" for method, part, error in errors), ""]
        warned = _warned(here)
        if warned:
            lines += ["Warned:", "", *warned, ""]
    return "\n".join(lines)


def _group(row: dict[str, Any]) -> tuple[str, int, str]:
    return row["table"], row["n_latents"], row["method"]


def _digest(row: dict[str, Any]) -> str:
    return str(row["key"]).rpartition("/")[2].partition(" ")[0]


def _warned(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What was warned of, with the number of rows; numbers in a text do not make it another one."""
    texts: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for text in row.get("warnings", []):
            texts.setdefault((row["method"], re.sub(r"[0-9][0-9.e+-]*", "…", text)), []).append(text)
    return [f"- {method}, {len(found)} times: {found[0]}" for (method, _), found in texts.items()]


def _told(told: dict[str, Any]) -> str:
    text = f"{told['rows']:,} rows ({told['held_out']:,} held out), {told['features']:,} features, "
    text += f"{told['domains']} domains. "
    if told["dropped"]:
        text += f"{told['dropped']:,} rows with missing numbers were dropped. "
    if told["left_out_features"]:
        text += f"{told['left_out_features']:,} features without variance in the training rows were left out. "
    if told["left_out"]:
        text += f"Left out: {', '.join(told['left_out'])}; target {told['target']}. "
    return text + " ".join(
        own for own in (told["source"], f"Licence: {told['licence']}." * bool(told["licence"])) if own
    )


def _quality(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    table = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = {part: [] for part in ("fit", "seeds", "halves", "left out")}
        for row in rows:
            if row["method"] == method:
                own[row["part"]].append(row)
        fits = [row for row in own["fit"] if not row["error"]]
        halves, left_out = ([row for row in own[part] if not row["error"]] for part in ("halves", "left out"))
        between = max(own["seeds"], key=lambda row: row["seed"], default=None)
        failed = sum(bool(row["error"]) for part in own.values() for row in part)
        entry = {
            "method": method,
            "seeds": str(len(fits)),
            "latents": _range([row["found_latents"] for row in fits]),
            "variance kept": _mean([row["variance"] for row in fits]),
            "variance, linear": _mean([row["variance_linear"] for row in fits]),
            "decoded by": fits[0]["decoded_by"] if fits else "–",
            "seeds agree": f"{between['agreement']:.3f}" if between else "–",
            "seeds, worst latent": f"{between['worst']:.2f}" if between else "–",
            "halves agree": _mean([row["agreement"] for row in halves]),
            "halves, worst latent": f"{min(row['worst'] for row in halves):.2f}" if halves else "–",
            "loadings < .1": _mean([row["small_loadings"] for row in fits], 2),
            "Hoyer": _mean([row["hoyer"] for row in fits], 2),
            "empty": _range([row["empty"] for row in fits]),
            "seconds": f"{np.median([row['seconds'] for row in fits]):.1f}" if fits else "–",
            "failed": str(failed),
        }
        if any(row["part"] == "left out" for row in rows):
            name = next((row["left_out_measure"] for row in rows if "left_out_measure" in row), "score")
            entry[f"left out, {name}"] = _mean([row["left_out"] for row in left_out])
        table.append(entry)
    return table


def _factors(rows: Sequence[dict[str, Any]], top: dict[str, Any] | None) -> list[dict[str, str]]:
    fits = [row for row in rows if row["part"] == "fit" and not row["error"] and row["factors"]]
    table = []
    if fits and top:
        values = [own["value"] for own in top["factors"].values()]
        table.append({"method": CEILING} | {name: f"{own['value']:.2f}" for name, own in top["factors"].items()})
        table[0]["mean"] = f"{np.mean(values):.3f}"
    for method in dict.fromkeys(row["method"] for row in fits):
        own = [row["factors"] for row in fits if row["method"] == method]
        entry = {name: _mean([row[name]["value"] for row in own], 2) for name in own[0]}
        means = [float(np.mean([one["value"] for one in row.values()])) for row in own]
        table.append({"method": method} | entry | {"mean": _mean(means)})
    return table


def _mean(values: Sequence[float], digits: int = 3) -> str:
    """The mean, and in brackets the range where it is not narrow."""
    if not values:
        return "–"
    low, high = min(values), max(values)
    text = f"{np.mean(values):.{digits}f}"
    return text if high - low <= 2 * max(_SPREAD, 0.5 * 10**-digits) else f"{text} ({low:.2f}–{high:.2f})"


def _range(values: Sequence[int]) -> str:
    if not values:
        return "–"
    return str(min(values)) if min(values) == max(values) else f"{min(values)}–{max(values)}"


def _markdown(table: Sequence[dict[str, str]]) -> list[str]:
    frame = pd.DataFrame(table).fillna("–")
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * frame.shape[1]]
    return lines + ["| " + " | ".join(row) + " |" for row in frame.to_numpy(dtype=str)]
