"""Figures of the report, as SVG text, each narrow enough to be read on a phone.

Every function takes arrays and names and touches no global state: figures are built on their own canvas with a
local style, whatever matplotlib is set to.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy.stats import gaussian_kde

from unmix.audit.describe import Description
from unmix.audit.result import Audit

Floats = NDArray[np.float64]

# The defaults of matplotlib, not those of the user, and independent of the display.
_STYLE: Any = {
    **{name: value for name, value in rcParamsDefault.items() if not name.startswith(("backend", "webagg", "tool"))},
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a94a0",
    "axes.labelcolor": "#333a42",
    "xtick.color": "#555e68",
    "ytick.color": "#333a42",
    "text.color": "#20262d",
    "svg.hashsalt": "unmix",
}
_WIDTH = 4.6
_VERDICTS = {"identified": "#2563a8", "block": "#c8641e", "unsupported": "#9aa4af", "not tested": "#d9c58b"}
BLUE, _ORANGE, _GREY = "#2563a8", "#c8641e", "#9aa4af"
MOST_LABELLED, MOST_DOMAINS = 80, 40
_MOST_SMOOTH = 12
_MOST_NUMBERED = 40
_LONGEST_LABEL = 22


def feature_order(mixing: Floats) -> NDArray[np.int64]:
    """Features grouped by the latent that drives them most, strongest first in each group."""
    strongest = mixing.argmax(axis=1)
    return np.lexsort((-mixing.max(axis=1), strongest))


def shown_features(mixing: Floats) -> NDArray[np.int64]:
    """Features of a map, in ``feature_order``: all, or if too many those that each latent drives most."""
    if len(mixing) <= MOST_LABELLED:
        return feature_order(mixing)
    each = max(1, MOST_LABELLED // mixing.shape[1])
    chosen = np.unique(np.argsort(-mixing, axis=0, kind="stable")[:each])
    return chosen[feature_order(mixing[chosen])]


def shown_domains(found: Description, latent: int) -> NDArray[np.int64]:
    """Domains of a figure on one latent: all, or if too many the most extreme ones, from high to low means."""
    location, spread = found.location[:, latent], found.spread[:, latent]
    if len(location) <= MOST_DOMAINS:
        return np.arange(len(location))
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.nan_to_num(np.abs(location) + np.abs(np.log(spread)), nan=-1.0, posinf=-1.0)
    chosen = np.argsort(-moved, kind="stable")[:MOST_DOMAINS]
    result: NDArray[np.int64] = chosen[np.argsort(-np.nan_to_num(location[chosen], nan=-np.inf), kind="stable")]
    return result


def mixing_map(mixing: Floats, signed: Floats, features: Sequence[str], latents: Sequence[str]) -> str:
    """Heat map features × latents of |∂x/∂z|; an arrow shows whether the feature rises or falls with the latent."""
    order = shown_features(mixing)
    values, direction = mixing[order], signed[order]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        top = max(1.0, float(values.max()))
        image = axes.imshow(values, aspect="auto", cmap="Blues", vmin=0.0, vmax=top, interpolation="nearest")
        axes.set_xticks(range(len(latents)), latents)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_yticks(range(len(order)), [_label(features[k]) for k in order])
        if len(order) <= _MOST_NUMBERED and len(latents) <= 10:
            for row, column in np.ndindex(values.shape):
                _number(axes, float(values[row, column]), float(direction[row, column]), row, column, top)
        figure.colorbar(image, ax=axes, shrink=0.6, pad=0.03, label="sd of feature per sd of latent")

    height = 1.0 + 0.26 * len(order)
    return draw_svg(draw, max(_WIDTH, 1.9 + 0.62 * len(latents)), height)


def verdict_map(audit: Audit, mixing: Floats) -> str:
    """Features × latents, coloured by the latent's verdict with the edge's probability as opacity.

    If there are too many features, those that each latent drives most, by ``mixing`` (features, latents).
    """
    names, features = list(audit.latents["name"]), audit.feature_names
    shown = np.sort(shown_features(mixing))
    order, verdicts = shown[feature_order(audit.edge_probability[shown])], list(audit.latents["verdict"])
    colours = np.array([to_rgb(_VERDICTS[verdict]) for verdict in verdicts])
    strength = audit.edge_probability[order][:, :, None]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.imshow(1.0 - strength * (1.0 - colours), aspect="auto", interpolation="nearest")
        axes.set_xticks(range(len(names)), names)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        # Lines between the cells keep neighbours of one colour apart.
        axes.set_xticks(np.arange(1, len(names)) - 0.5, minor=True)
        axes.grid(axis="x", which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="minor", length=0)
        axes.set_yticks(range(len(order)), [_label(features[k]) for k in order])
        handles = [Patch(color=colour, label=verdict) for verdict, colour in _VERDICTS.items() if verdict in verdicts]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)

    height = 1.0 + 0.22 * len(order)
    return draw_svg(draw, max(_WIDTH, 1.9 + 0.4 * len(names)), height)


def pair_map(audit: Audit) -> str | None:
    """Pairs of latents that are not separated, dark; None if all that were tested are separated."""
    every = list(audit.latents["name"])
    tested = [i for i, name in enumerate(every) if name in {*audit.pairs["a"], *audit.pairs["b"]}]
    names, separated = [every[i] for i in tested], audit.separated()[np.ix_(tested, tested)]
    if separated.all():
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.imshow(np.where(separated, 0.0, 1.0), cmap="Oranges", vmin=0, vmax=1.4, interpolation="nearest")
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_color("#dfe4e9")
        axes.spines[:].set_visible(True)

    size = max(2.4, 0.8 + 0.35 * len(names))
    return draw_svg(draw, size, size)


def domain_effects(found: Description, latent: int, domains: Sequence[str]) -> str:
    """Mean and spread of one latent in each domain, with 95 % intervals; the pale bar is the range over all starts."""
    shown = shown_domains(found, latent)
    place = np.arange(len(shown))[::-1]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
        low, high = found.location_starts_low[shown, latent], found.location_starts_high[shown, latent]
        left.barh(place, high - low, left=low, height=0.55, color="#dbe6f2", zorder=1)
        mean = np.stack([found.location, found.location_low, found.location_high])
        _interval(left, place, mean[:, shown, latent], BLUE)
        left.axvline(0, color=_GREY, linewidth=0.8, zorder=0)
        left.set_xlabel("mean")
        spread = np.stack([found.spread, found.spread_low, found.spread_high])
        _interval(right, place, spread[:, shown, latent], _ORANGE)
        right.axvline(1, color=_GREY, linewidth=0.8, zorder=0)
        right.set_xlim(left=0)
        right.set_xlabel("standard deviation")
        left.set_yticks(place, [_label(domains[k]) for k in shown])
        right.tick_params(left=False)

    return draw_svg(draw, _WIDTH, 0.9 + 0.24 * len(shown))


def latent_distributions(found: Description, latent: int, domains: Sequence[str]) -> str:
    """Density of one latent's posterior means in each domain, one line above the other."""
    values = found.latents[:, latent]
    low, high = np.quantile(values, [0.002, 0.998])
    shown = shown_domains(found, latent)
    grid = np.linspace(low - 0.4, high + 0.4, 160 if len(shown) <= _MOST_SMOOTH else 80)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        densities = [_density(values[found.groups == domain], grid) for domain in shown]
        tallest = max((float(density.max()) for density in densities), default=1.0) or 1.0
        for domain, density in enumerate(densities):
            base = len(shown) - 1 - domain
            axes.fill_between(grid, base, base + 1.5 * density / tallest, color=BLUE, alpha=0.35, linewidth=0)
            axes.plot(grid, base + 1.5 * density / tallest, color=BLUE, linewidth=1.0)
        axes.axvline(0, color=_GREY, linewidth=0.8, zorder=0)
        axes.set_yticks(range(len(shown)), [_label(domains[k]) for k in shown[::-1]])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("value (sd over all rows = 1)")

    return draw_svg(draw, _WIDTH, 0.9 + 0.28 * len(shown))


def reconstruction(found: Description, features: Sequence[str]) -> str:
    """R² of encode-decode for each feature: bar for held-out rows, tick for training rows."""
    order = np.argsort(found.r2)
    shown = order if len(order) <= MOST_LABELLED else order[:: -(-len(order) // MOST_LABELLED)]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        place = np.arange(len(shown))
        axes.barh(place, np.clip(found.r2[shown], 0, None), color=BLUE, alpha=0.75, height=0.7, label="held out")
        axes.plot(found.r2_train[shown], place, "|", color=_ORANGE, markersize=9, markeredgewidth=2, label="training")
        axes.set_yticks(place, [_label(features[k]) for k in shown])
        # A feature that hardly varies has an R² without a lower limit.
        axes.set_xlim(min(0.0, max(-1.0, float(np.nanmin(found.r2_train, initial=0.0)))), 1.0)
        axes.set_xlabel("R² (1: fully reproduced, 0: lost)")
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return draw_svg(draw, _WIDTH, 1.1 + 0.22 * len(shown))


def starts_agreement(found: Description, best: int, latents: Sequence[str]) -> str:
    """Agreement of every pair of starts, and of each latent of the kept start with its partners in the others."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.1])
        n_starts = len(found.agreement)
        left.imshow(found.agreement, vmin=0, vmax=1, cmap="Blues")
        left.set_xticks(range(n_starts))
        left.set_yticks(range(n_starts))
        left.tick_params(length=0)
        left.spines[:].set_visible(False)
        left.set_xlabel("start")
        for row, column in np.ndindex(found.agreement.shape):
            value = found.agreement[row, column]
            colour = "white" if value > 0.6 else "#20262d"
            left.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
        others = np.delete(found.agreement_latents, best, axis=0)
        place = np.arange(len(latents))[::-1]
        for values in others:
            right.plot(values, place, "o", color=BLUE, alpha=0.45, markersize=5)
        right.set_yticks(place, latents)
        right.set_xlim(0, 1.02)
        right.set_ylim(-0.6, len(latents) - 0.4)
        right.set_xlabel("correlation with partners")

    return draw_svg(draw, _WIDTH, max(2.4, 0.9 + 0.25 * len(latents)))


def training_curves(history: pd.DataFrame, starts: pd.DataFrame, best: int) -> str:
    """Held-out objective with the final weights, one line per start; the dot is the state that was kept.

    ``history`` begins after the first epoch, so that the height of a state before it is that of ``starts``.
    """
    best_epoch = int(starts["best_epoch"][best])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        settled = history["held_out_objective"].replace([np.inf, -np.inf], np.nan)
        for start, own in history.groupby("start"):
            kept = start == best
            axes.plot(
                own["epoch"],
                settled[own.index],
                color=BLUE if kept else _GREY,
                linewidth=1.6 if kept else 0.8,
                zorder=2 if kept else 1,
                label="kept start" if kept else None,
            )
        point = history.loc[(history["start"] == best) & (history["epoch"] == best_epoch), "held_out_objective"]
        height = float(point.iloc[0] if len(point) else starts["held_out_objective"][best])
        axes.plot([best_epoch], [height], "o", color=_ORANGE, zorder=3, label="kept state")
        late = settled[history["epoch"] > 0.15 * history["epoch"].max()]
        if late.notna().any():
            low, high = min(height, float(late.min())), float(late.quantile(0.98))
            margin = 0.05 * max(high - low, 1e-3)
            axes.set_ylim(low - margin, high + margin)
        axes.set_xlabel("epoch")
        axes.set_ylabel("objective (nats per row;\nlower is better)")
        axes.legend(frameon=False)

    return draw_svg(draw, _WIDTH, 2.8)


def importance_bars(importance: Floats, latents: Sequence[str], threshold: float) -> str:
    """Share of each latent's spread that is due to domains; latents below their line are content."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        place = np.arange(len(latents))[::-1]
        axes.barh(place, importance, color=[_ORANGE if value >= threshold else _GREY for value in importance])
        axes.axvline(threshold, color=_GREY, linewidth=0.8, linestyle="--")
        axes.set_yticks(place, latents)
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of the spread due to domains (orange: style)")

    return draw_svg(draw, _WIDTH, 0.9 + 0.2 * len(latents))


def term_curves(history: pd.DataFrame) -> str:
    """Every term of every phase by step, one panel each; ``history`` has the columns step and <phase>_<term>."""
    terms = [name for name in history.columns if name != "step"]

    def draw(figure: Figure) -> None:
        panels = np.atleast_1d(figure.subplots(-(-len(terms) // 2), 2, squeeze=False)).ravel()
        for axes, name in zip(panels, terms, strict=False):
            own = history[["step", name]].dropna()
            axes.plot(own["step"], own[name], "o-" if len(own) == 1 else "-", color=BLUE, linewidth=1.0, markersize=4)
            axes.set_title(name.replace("_", ": ", 1), fontsize=8)
            axes.tick_params(labelsize=7)
        for axes in panels[len(terms) :]:
            axes.set_visible(False)

    return draw_svg(draw, _WIDTH, 1.3 * -(-len(terms) // 2))


def draw_svg(draw: Callable[[Figure], None], width: float, height: float) -> str:
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return buffer.getvalue()


def _number(axes: Axes, value: float, signed: float, row: int, column: int, top: float) -> None:
    arrow = "" if abs(signed) < 0.5 * value or value < 0.1 else ("↑" if signed > 0 else "↓")
    colour = "white" if value > 0.55 * top else "#20262d"
    size = 7.5 if value >= 0.1 else 6.0
    axes.text(column, row, f"{value:.2f}{arrow}", ha="center", va="center", fontsize=size, color=colour)


def _interval(axes: Axes, place: NDArray[np.int64], values: Floats, colour: str) -> None:
    """A dot and a line for each place; ``values`` (3, places) are the middles and both ends."""
    middle, low, high = values
    axes.hlines(place, low, high, color=colour, linewidth=2, zorder=2)
    axes.plot(middle, place, "o", color=colour, markersize=4.5, zorder=3)


def _density(values: Floats, grid: Floats) -> Floats:
    if len(values) < 3 or values.std() < 1e-9:
        return np.zeros_like(grid)
    result: Floats = gaussian_kde(values)(grid)
    return result


def _label(name: str) -> str:
    """A label short enough for an axis, with mathematical notation escaped."""
    short = name if len(name) <= _LONGEST_LABEL else name[: _LONGEST_LABEL - 1] + "…"
    return short.replace("$", r"\$")
