"""Figures of a study, in the style of the report: phase diagrams, MCC along an axis, MCC against seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from unmix.report.figures import draw_svg

_LINES = ("#2563a8", "#c8641e", "#3f8f5b", "#8a4fa3", "#b0892b", "#5b6b7a", "#c2456b", "#2b9aa0")


def phase_diagram(table: pd.DataFrame, method: str, across: str, down: str) -> str:
    """Mean MCC of one method over two axes; a frame where the support needs no more domains than there are.

    ``table``: as ``summary.by_setting`` returns it. The small number is the median count of domains needed.
    """
    own = table[table["method"] == method]
    columns, lines = sorted(own[across].unique()), sorted(own[down].unique())

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        grid, needed = (
            own.pivot_table(index=down, columns=across, values=name)
            .reindex(index=lines, columns=columns)
            .to_numpy(dtype=float)
            for name in ("mcc", "domains_needed")
        )
        image = axes.imshow(grid, cmap="Blues", vmin=0.4, vmax=1.0, aspect="auto", origin="lower")
        for row, column in np.ndindex(grid.shape):
            value, count = grid[row, column], needed[row, column]
            if not np.isfinite(value):
                continue
            colour = "white" if value > 0.78 else "#20262d"
            axes.text(column, row + 0.08, f"{value:.3f}", ha="center", va="bottom", fontsize=9, color=colour)
            axes.text(column, row - 0.08, f"needs {count:g}", ha="center", va="top", fontsize=7, color=colour)
            if across == "n_domains" and count <= columns[column]:
                corner = (column - 0.47, row - 0.47)
                axes.add_patch(Rectangle(corner, 0.94, 0.94, fill=False, edgecolor="#c8641e", linewidth=2))
        axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
        axes.set_yticks(range(len(lines)), [f"{value:g}" for value in lines])
        axes.set_xlabel(across.replace("n_", ""))
        axes.set_ylabel(down)
        for side in axes.spines.values():
            side.set_visible(False)
        figure.colorbar(image, ax=axes, shrink=0.8, label="MCC")

    return draw_svg(draw, 4.6, 1.1 + 0.62 * len(lines))


def numbers(table: pd.DataFrame, best: int) -> str:
    """What every number of latents reached: held-out bound with its standard error, and what it leaves and repeats.

    ``table``: as ``Selection.to_frame`` returns it; one line for each strength of the penalty. The chosen number
    ``best`` is marked.
    """
    strengths = list(dict.fromkeys(table["sparsity"]))

    def draw(figure: Figure) -> None:
        bound, left, agreed = figure.subplots(1, 3)
        for colour, strength in zip(_LINES * len(strengths), strengths, strict=False):
            own = table[table["sparsity"] == strength]
            at = own["n_latents"]
            label = f"sparsity {strength}" if len(strengths) > 1 else None
            bound.errorbar(at, own["bound"], own["bound_se"], color=colour, marker="o", capsize=3, label=label)
            left.plot(at, own["residual"], color=colour, marker="o")
            left.plot(at, own["limit"], color=colour, linestyle=":")
            agreed.plot(at, own["agreement"], color=colour, marker="o")
            agreed.plot(at, own["halves"], color=colour, marker="s", linestyle="--")
        titles = (
            "held-out bound, nats per row",
            "largest correlation left\n(dotted: chance)",
            "agreement of starts\n(dashed: of halves of the rows)",
        )
        for axes, title in zip((bound, left, agreed), titles, strict=True):
            axes.axvline(best, color="#c8cdd3", linewidth=6, zorder=0)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("latents")
            axes.set_xticks(sorted(set(table["n_latents"])))
        left.set_ylim(0, 1)
        agreed.set_ylim(0, 1.02)
        if len(strengths) > 1:
            bound.legend(fontsize=8)

    return draw_svg(draw, 8.6, 2.9)


def along(table: pd.DataFrame, axis: str, methods: Sequence[str]) -> str:
    """Mean MCC with intervals of every method along one axis, over whatever else varies."""
    own = table[table[axis].notna()]
    places = sorted(own[axis].unique(), key=lambda value: (isinstance(value, str), value))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for position, method in enumerate(methods):
            line = own[own["method"] == method].groupby(axis)[["mcc", "low", "high"]].mean().reindex(places)
            if line["mcc"].notna().sum() == 0:
                continue
            shift = 0.06 * (position - (len(methods) - 1) / 2)
            x = np.arange(len(places)) + shift
            colour = _LINES[position % len(_LINES)]
            axes.plot(x, line["mcc"], "o-", color=colour, markersize=4, linewidth=1.3, label=method)
            known = line["low"].notna().to_numpy()
            axes.vlines(x[known], line["low"][known], line["high"][known].clip(upper=1.0), color=colour, linewidth=1.5)
        axes.set_xticks(range(len(places)), [str(place) for place in places])
        axes.set_xlabel(axis.replace("n_", ""))
        axes.set_ylabel("MCC")
        axes.set_ylim(min(0.5, float(own["mcc"].min()) - 0.05), 1.01)
        axes.legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5))

    return draw_svg(draw, 5.6, 2.9)


def time_and_score(rows: pd.DataFrame, methods: Sequence[str]) -> str:
    """MCC against seconds, one dot per run."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for position, method in enumerate(methods):
            own = rows[rows["method"] == method]
            marker = "os^DvP*X"[position // len(_LINES) % 8]
            colour = _LINES[position % len(_LINES)]
            axes.plot(own["seconds"].clip(lower=0.05), own["mcc"], marker, color=colour, markersize=4, label=method)
        axes.set_xscale("log")
        axes.set_xlabel("seconds per fit")
        axes.set_ylabel("MCC")
        axes.legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5))

    return draw_svg(draw, 5.6, 3.4)
