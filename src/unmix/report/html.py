"""The report: words, figures and tables of one fit in one HTML file that opens without a network."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from unmix.audit.agreement import REPEATS, mean_of_pairs
from unmix.audit.counterfactuals import CounterfactualCheck
from unmix.audit.describe import Description
from unmix.audit.finding import floored, listed
from unmix.audit.positivity import collapsed
from unmix.audit.result import Audit
from unmix.audit.subject import Reconstruction
from unmix.report import figures
from unmix.report.parts import csv_address, fill, picture, search

_MOST_NAMED = 4
_MOST_DISTANCES = 8
_MOST_DOWNLOADED = 5_000


@dataclass(frozen=True)
class ReportContent:
    """Everything a report is made from; arrays as in ``Description``."""

    method: str
    assumption: str
    uses_domains: bool
    feature_names: list[str]
    latent_names: list[str]
    domain_names: list[str]
    domain_columns: list[str]
    description: Description
    audit: Audit
    counterfactuals: CounterfactualCheck | None
    history: pd.DataFrame
    restarts: pd.DataFrame
    best_restart: int
    support: NDArray[np.bool_]
    stop_reason: str
    sizes: dict[str, int]
    settings: dict[str, Any]
    versions: dict[str, str]
    tables: dict[str, pd.DataFrame]
    fit_seconds: float


@dataclass(frozen=True)
class LatentWords:
    """What was found about one latent, in words."""

    name: str
    drives: str
    moves: str
    repeats: str
    warning: str


def render(content: ReportContent) -> str:
    """The whole page as text."""
    found, latents, domains = content.description, content.latent_names, content.domain_names
    several, starts = len(domains) > 1, len(content.restarts)
    pairs = figures.pair_map(content.audit)
    return fill(
        "unmix.report",
        "template.html",
        content=content,
        held_out=bool(found.held_out[0]),
        n_described=len(found.groups),
        several=several,
        n_starts=starts,
        verdict=_verdict(content),
        audit=content.audit,
        audited=[audited_words(row) for row in content.audit.latents.to_dict("records")],
        verdicts=picture(
            figures.verdict_map(content.audit, found.mixing),
            "Features in rows and latents in columns, coloured by the verdict on the latent",
        )
        if content.audit.edge_probability.any()
        else None,
        pairs=None if pairs is None else picture(pairs, "Latents in rows and columns; pairs not separated are dark"),
        latents=[latent_words(content, i) for i in range(len(latents))],
        mixing=picture(
            figures.mixing_map(found.mixing, found.mixing_signed, content.feature_names, latents),
            "Heat map of the mixing: features in rows, latents in columns",
        ),
        effects=[
            picture(figures.domain_effects(found, i, domains), f"Mean and spread of {name} in each domain", name)
            for i, name in enumerate(latents)
        ]
        if several
        else [],
        distributions=[
            picture(figures.latent_distributions(found, i, domains), f"Distribution of {name} by domain", name)
            for i, name in enumerate(latents)
        ],
        reconstruction=picture(
            figures.reconstruction(found, content.feature_names), "R² of encode-decode for each feature"
        ),
        carried=content.counterfactuals,
        distances=_distances(content.tables),
        starts=picture(
            figures.starts_agreement(found, content.best_restart, latents), "Agreement of the starts, pair by pair"
        )
        if starts > 1
        else None,
        curves=picture(
            figures.training_curves(
                content.history, content.best_restart, int(content.restarts["best_epoch"][content.best_restart])
            ),
            "Held-out objective by epoch, one line a start",
        ),
        n_features_shown=min(len(content.feature_names), figures.MOST_LABELLED),
        n_domains_shown=min(len(domains), figures.MOST_DOMAINS),
        find_feature=_find_feature(content),
        find_domain=_find_domain(content),
        downloads={name: csv_address(table.head(_MOST_DOWNLOADED)) for name, table in content.tables.items()},
        cut={name: len(table) for name, table in content.tables.items() if len(table) > _MOST_DOWNLOADED},
        most_downloaded=_MOST_DOWNLOADED,
        restarts=content.restarts.to_dict("records"),
        terms=_terms(content.restarts),
        caveats=caveats(content),
    )


def _find_feature(content: ReportContent) -> Markup | None:
    """A search of all features, where the maps show some of them."""
    found, names = content.description, content.feature_names
    if len(names) <= figures.MOST_LABELLED:
        return None
    order = np.argsort(-found.mixing.max(axis=1), kind="stable")
    signed = np.where(found.mixing_signed < 0, -found.mixing, found.mixing)
    columns, values = ["feature", *content.latent_names, "R²"], np.column_stack([signed, found.r2])
    return search("find-feature", "Find a feature:", columns, [names[k] for k in order], values[order])


def _find_domain(content: ReportContent) -> Markup | None:
    """A search of all domains, where the figures show some of them."""
    found, names = content.description, content.domain_names
    if len(names) <= figures.MOST_DOMAINS:
        return None
    latents = content.latent_names
    columns = ["domain", *(f"{name} mean" for name in latents), *(f"{name} sd" for name in latents)]
    return search("find-domain", "Find a domain:", columns, names, np.column_stack([found.location, found.spread]))


def _distances(tables: Mapping[str, pd.DataFrame]) -> list[dict[Hashable, Any]]:
    """The rows of the table of distances that the page shows."""
    return tables["counterfactuals"].head(_MOST_DISTANCES).to_dict("records") if "counterfactuals" in tables else []


def audited_words(row: Mapping[Hashable, Any]) -> str:
    """The verdict on one latent, in plain words."""
    if row["verdict"] == "identified":
        return "identified: one factor, up to a one-to-one change of its scale."
    if row["verdict"] == "unsupported":
        return "not supported by these data."
    others = listed([name for name in row["block"] if name != row["name"]])
    return f"identified only together with {others}: what belongs to which of them is open."


def _terms(restarts: pd.DataFrame) -> dict[str, str]:
    """Columns of the restarts table that hold terms of the objective, with a word for each."""
    columns = [name for name in restarts.columns if name.startswith("held_out_") and name != "held_out_objective"]
    words = {name: name.removeprefix("held_out_").replace("_", " ") for name in columns}
    return {name: word.replace("kl", "KL").replace("tc", "TC") for name, word in words.items()}


def latent_words(content: ReportContent, latent: int) -> LatentWords:
    """Sentences on one latent: what it drives, what moves it, whether it repeats."""
    found = content.description
    column, signed = found.mixing[:, latent], found.mixing_signed[:, latent]
    ranked = [k for k in np.argsort(-column) if content.support[k, latent]]
    named = [
        f"{content.feature_names[k]} ({column[k]:.2f}{_direction(column[k], signed[k])})" for k in ranked[:_MOST_NAMED]
    ]
    more = f" and {len(ranked) - _MOST_NAMED} more" if len(ranked) > _MOST_NAMED else ""
    drives = f"Drives {', '.join(named)}{more}." if named else "Drives no feature by 0.1 or more."
    vanished = bool(collapsed(found.posterior_width[latent])) or not named
    others = found.agreement_latents[_other_starts(content), latent]
    repeats = (
        f"Found again by the other starts with correlations of {floored(others.min())} to {floored(others.max())}, "
        f"median {floored(float(np.median(others)))}."
        if len(others)
        else ""
    )
    warning = "The data say next to nothing about this latent: ask for fewer." if vanished else ""
    return LatentWords(content.latent_names[latent], drives, _moves(content, latent), repeats, warning)


def caveats(content: ReportContent) -> list[str]:
    """What the numbers do not show."""
    found = content.description
    lines = [
        "Agreement of the starts shows that the method repeats itself on these data. It does not show that the latents "
        "are the true ones: starts can agree on a mixture of factors that the data cannot tell apart.",
        "A latent is known up to its order, its sign and its scale. Nothing here says what it is called in nature.",
        "Intervals come from resampling the described rows with the model kept as it is; they leave out what another "
        "training run would change. The pale bars, the range over all starts, show that part.",
        "That a domain moves a latent is a difference between groups of rows. It is a causal effect only as far as the "
        "domains were assigned like an experiment.",
        "The verdicts hold for these data and this form of model. Their conditions are sufficient, not necessary: a "
        "latent that is not called identified may be right all the same. A test can miss what these rows show weakly.",
        "How often a latent that is called identified is a true one was measured on generated problems with known "
        "truth (docs/results.md of unmix), not on data like these.",
    ]
    if len(content.domain_names) == 1:
        lines.insert(
            0, "There is one domain, so nothing changes: only the sparsity of the mixing can identify latents."
        )
    elif not content.uses_domains:
        lines.insert(
            0,
            f"{content.method} ignores the domains: what is said about them here describes latents found without them.",
        )
    if not found.held_out[0]:
        lines.insert(0, "There were too few rows to hold any out: every number here is measured on training rows.")
    if not len(_other_starts(content)):
        why = "There was a single start" if len(content.restarts) == 1 else "Every other start failed"
        lines.insert(0, f"{why}, so nothing is known about whether it repeats.")
    return lines


def _verdict(content: ReportContent) -> str:
    found = content.description
    changing = [name for i, name in enumerate(content.latent_names) if found.change_low[i] > found.change_shuffled[i]]
    parts, others = [], _other_starts(content)
    if len(others):
        mean, medians = (
            float(found.agreement_latents[others].mean()),
            np.median(found.agreement_latents[others], axis=0),
        )
        low = [name for name, median in zip(content.latent_names, medians, strict=True) if median < REPEATS]
        word = "repeat well" + (f", but for {listed(low)}" if low else "")
        if len(low) == len(medians):
            word = "do not repeat well: read them with care"
        compared = found.agreement[np.ix_(*[[content.best_restart, *others]] * 2)]
        parts.append(
            f"The kept latents {word} (mean correlation with their partners in the other starts {mean:.2f}; over all "
            f"pairs of starts {mean_of_pairs(compared):.2f})."
        )
    if len(content.domain_names) > 1:
        parts.append(
            f"The whole interval of the share of variance between domains lies above that of shuffled labels for "
            f"{len(changing)} of {len(content.latent_names)} latents{': ' + ', '.join(changing) if changing else ''}."
        )
    density, kept = float(content.support.mean()), Reconstruction(found.r2, found.r2_variance)
    rows = f"{'held-out' if found.held_out[0] else 'training'} rows"
    apart = f", the {kept.still} that do not vary there aside" if kept.still else ""
    keeps = f"encode-decode keeps {kept.kept:.0%} of the features' variance on {rows}{apart}"
    if np.isnan(kept.kept):
        keeps = f"no feature varies on {rows}, so that what encode-decode keeps is not known"
    parts.append(f"{density:.0%} of the mixing's entries are 0.1 or more; {keeps}.")
    return " ".join(parts)


def _other_starts(content: ReportContent) -> NDArray[np.int64]:
    """Starts but the kept one that reached anything: one that failed says nothing about the latents."""
    reached = np.isfinite(content.restarts["held_out_objective"].to_numpy(dtype=float))
    return np.array([s for s in np.flatnonzero(reached) if s != content.best_restart], dtype=np.int64)


def _moves(content: ReportContent, latent: int) -> str:
    found = content.description
    if len(content.domain_names) == 1:
        return ""
    interval = f"[{found.change_low[latent]:.0%}, {found.change_high[latent]:.0%}]"
    share = f"{found.change[latent]:.0%} {interval} of its variance lies between domains"
    share += f" (shuffled labels: in 95 of 100 at most {found.change_shuffled[latent]:.1%})."
    location = found.location[:, latent]
    if np.isnan(location).all():
        return share
    far = int(np.nanargmax(np.abs(location)))
    return (
        f"{share} Farthest in {content.domain_names[far]}: mean {location[far]:+.2f} sd "
        f"[{found.location_low[far, latent]:+.2f}, {found.location_high[far, latent]:+.2f}]."
    )


def _direction(size: float, signed: float) -> str:
    if abs(signed) < 0.5 * size:
        return ""
    return " ↑" if signed > 0 else " ↓"
