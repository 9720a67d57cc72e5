"""The report: words, figures and tables of one fit in one HTML file that opens without a network."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from unmix.audit.agreement import REPEATS, all_worse, comparable, mean_of_pairs
from unmix.audit.finding import floored, listed
from unmix.audit.input import LEAST_ROWS, Reconstruction
from unmix.audit.positivity import collapsed
from unmix.audit.result import NOT_TESTED, Audit
from unmix.fits.choice import difference_error
from unmix.fits.latent import LINEAR_MODEL, LatentFit, kept_as_begun, tables
from unmix.report import figures
from unmix.report.parts import csv_address, fill, picture, search, write_html
from unmix.version import versions

_MOST_NAMED = 4
_MOST_DISTANCES = 8
_MOST_DOWNLOADED = 5_000


@dataclass(frozen=True)
class LatentWords:
    """Sentences on one latent, for the report."""

    name: str
    drives: str
    moves: str
    repeats: str
    warning: str


def write_report(fit: LatentFit, audit: Audit, path: Path) -> Path:
    """The page of a fit and its audit, as one HTML file."""
    write_html(render(fit, audit), path)
    return path


def render(fit: LatentFit, audit: Audit) -> str:
    """The whole page as text."""
    summary, latents, domains, features = fit.summary, fit.latent_names, fit.domains.domains, fit.schema.names
    found, starts = summary.description, len(fit.starts)
    carried, pairs = summary.counterfactuals, figures.pair_map(audit)
    downloads = tables(fit) | {"history": fit.history}
    downloads |= {} if carried is None else {"counterfactuals": carried.to_frame()}
    downloads |= {} if summary.selection is None else {"selection": summary.selection}
    return fill(
        "unmix.report",
        "template.html",
        fit=fit,
        likelihood=fit.model.likelihood,
        versions=versions(),
        held_out=bool(found.held_out[0]),
        n_described=len(found.groups),
        n_features=len(features),
        several=len(domains) > 1,
        n_fitted=len(domains) - len(summary.adapted or ()),
        adapted=listed([*(summary.adapted or ())]),
        n_starts=starts,
        verdict=_verdict(fit),
        audit=audit,
        audited=[audited_words(row) for row in audit.latents.to_dict("records")],
        verdicts=picture(
            figures.verdict_map(audit, found.mixing),
            "Features in rows and latents in columns, coloured by the verdict on the latent",
        )
        if audit.edge_probability.any()
        else None,
        pairs=None if pairs is None else picture(pairs, "Latents in rows and columns; pairs not separated are dark"),
        latents=[latent_words(fit, i) for i in range(len(latents))],
        mixing=picture(
            figures.mixing_map(found.mixing, found.mixing_signed, features, latents),
            "Heat map of the mixing: features in rows, latents in columns",
        ),
        effects=[
            picture(figures.domain_effects(found, i, domains), f"Mean and spread of {name} in each domain", name)
            for i, name in enumerate(latents)
        ]
        if len(domains) > 1
        else [],
        distributions=[
            picture(figures.latent_distributions(found, i, domains), f"Distribution of {name} by domain", name)
            for i, name in enumerate(latents)
        ],
        reconstruction=picture(figures.reconstruction(found, features), "R² of encode-decode for each feature"),
        carried=carried,
        distances=_distances(downloads),
        starts=picture(figures.starts_agreement(found, fit.best, latents), "Agreement of the starts, pair by pair")
        if starts > 1
        else None,
        curves=picture(
            figures.training_curves(fit.history, fit.starts, fit.best),
            "Held-out objective by epoch, one line per start",
        ),
        n_features_shown=min(len(features), figures.MOST_LABELLED),
        n_domains_shown=min(len(domains), figures.MOST_DOMAINS),
        find_feature=_find_feature(fit),
        find_domain=_find_domain(fit),
        downloads={name: csv_address(table.head(_MOST_DOWNLOADED)) for name, table in downloads.items()},
        cut={name: len(table) for name, table in downloads.items() if len(table) > _MOST_DOWNLOADED},
        most_downloaded=_MOST_DOWNLOADED,
        untrained=kept_as_begun(fit),
        linear_model=LINEAR_MODEL,
        why_linear=summary.why_linear,
        invertible=fit.model.inner.chosen.get("decoder") == "invertible",
        restarts=fit.starts.to_dict("records"),
        terms=_terms(fit.starts),
        caveats=caveats(fit),
    )


def _find_feature(fit: LatentFit) -> Markup | None:
    """A search of all features, if the maps show only some of them."""
    found, names = fit.summary.description, fit.schema.names
    if len(names) <= figures.MOST_LABELLED:
        return None
    order = np.argsort(-found.mixing.max(axis=1), kind="stable")
    signed = np.where(found.mixing_signed < 0, -found.mixing, found.mixing)
    columns, values = ["feature", *fit.latent_names, "R²"], np.column_stack([signed, found.r2])
    return search("find-feature", "Find a feature:", columns, [names[k] for k in order], values[order])


def _find_domain(fit: LatentFit) -> Markup | None:
    """A search of all domains, if the figures show only some of them."""
    found, names = fit.summary.description, fit.domains.domains
    if len(names) <= figures.MOST_DOMAINS:
        return None
    latents = fit.latent_names
    columns = ["domain", *(f"{name} mean" for name in latents), *(f"{name} sd" for name in latents)]
    return search("find-domain", "Find a domain:", columns, names, np.column_stack([found.location, found.spread]))


def _distances(downloads: Mapping[str, pd.DataFrame]) -> list[dict[Hashable, Any]]:
    """The rows of the table of distances that the page shows."""
    found = downloads.get("counterfactuals")
    return [] if found is None else found.head(_MOST_DISTANCES).to_dict("records")


def audited_words(row: Mapping[Hashable, Any]) -> str:
    """The verdict on one latent, in plain words."""
    if row["verdict"] == "identified":
        return "identified: a single factor, up to a one-to-one transformation."
    if row["verdict"] == "unsupported":
        return "not supported by these data."
    if row["verdict"] == NOT_TESTED:
        return "not tested by these rows."
    others = listed([name for name in row["block"] if name != row["name"]])
    return f"identified only together with {others}, as a block: the data do not separate its latents."


def _terms(restarts: pd.DataFrame) -> dict[str, str]:
    """Columns of the restarts table that hold terms of the objective, with a label for each."""
    columns = [name for name in restarts.columns if name.startswith("held_out_") and name != "held_out_objective"]
    words = {name: name.removeprefix("held_out_").replace("_", " ") for name in columns}
    return {name: word.replace("kl", "KL").replace("tc", "TC") for name, word in words.items()}


def latent_words(fit: LatentFit, latent: int) -> LatentWords:
    """Sentences on one latent: the features that depend on it, its changes between domains, its reproducibility."""
    found = fit.summary.description
    column, signed = found.mixing[:, latent], found.mixing_signed[:, latent]
    ranked = [k for k in np.argsort(-column) if fit.summary.support[k, latent]]
    named = [f"{fit.schema.names[k]} ({column[k]:.2f}{_direction(column[k], signed[k])})" for k in ranked[:_MOST_NAMED]]
    more = f" and {len(ranked) - _MOST_NAMED} more" if len(ranked) > _MOST_NAMED else ""
    drives = f"Drives {', '.join(named)}{more}." if named else "Drives no feature by 0.1 or more."
    vanished = bool(collapsed(found.posterior_width[latent])) or not named
    others = found.agreement_latents[_other_starts(fit), latent]
    median = fit.summary.latents_agreement(fit.starts, fit.best)[latent]
    repeats = (
        f"Found again by the other starts with correlations of {floored(others.min())} to {floored(others.max())}, "
        f"median {floored(float(median))}{' of those that count' if len(_comparable(fit)) < len(others) else ''}."
        if len(others)
        else ""
    )
    warning = "The data contain almost no information about this latent: use fewer latents." if vanished else ""
    return LatentWords(fit.latent_names[latent], drives, _moves(fit, latent), repeats, warning)


def caveats(fit: LatentFit) -> list[str]:
    """Limits of the numbers."""
    found = fit.summary.description
    lines = [
        "Agreement of the starts shows that the result is reproducible on these data, not that the latents are the "
        "true ones: starts can agree on a mixture of factors that the data do not separate.",
        "Latents are known up to order, sign and scale. The model does not say what they mean.",
        "Intervals come from resampling the described rows with the model fixed; they do not include the variation "
        "between training runs, which the pale bars show (range over all starts).",
        "An effect of a domain on a latent is a difference between groups of rows. It is causal only if the domains "
        "were assigned as in an experiment.",
        "The verdicts hold for these data and this form of model. Their conditions are sufficient, not necessary: a "
        "latent that is not called identified may still be right. A test can miss effects that are weak in these rows.",
        "How often a latent that is called identified is a true one was measured on generated problems with known "
        "truth (docs/results.md of unmix), not on data like these.",
    ]
    if len(fit.domains.domains) == 1:
        lines.insert(
            0, "There is one domain, so nothing changes: only the sparsity of the mixing can identify latents."
        )
    elif not fit.kind.uses_domains:
        lines.insert(
            0,
            f"{fit.kind.__name__} ignores the domains: effects here refer to latents estimated without them.",
        )
    if not found.held_out[0]:
        lines.insert(0, "There were too few rows to hold any out, so every number here is computed on training rows.")
    if not len(_other_starts(fit)):
        why = "There was a single start" if len(fit.starts) == 1 else "Every other start failed"
        lines.insert(0, f"{why}, so it is not known whether the result is reproducible.")
    return lines


def _verdict(fit: LatentFit) -> str:
    found = fit.summary.description
    changing = [name for i, name in enumerate(fit.latent_names) if found.change_low[i] > found.change_shuffled[i]]
    parts, others = [], _other_starts(fit)
    if len(others):
        mean, medians = (
            float(found.agreement_latents[others].mean()),
            fit.summary.latents_agreement(fit.starts, fit.best),
        )
        named = list(zip(fit.latent_names, medians, strict=True))
        low, high = [n for n, median in named if median < REPEATS], [n for n, median in named if median >= REPEATS]
        of = "linear model's" if fit.summary.linear else "kept"
        said = f"Other starts find the {of} latents again"
        if low:
            said = f"Other starts do not find the {of} latents again; interpret them with care"
        if low and high:
            said = f"Of the {of} latents, other starts find {listed(high)} again, but not {listed(low)}"
        compared = found.agreement[np.ix_(*[[fit.best, *others]] * 2)]
        parts.append(
            f"{said} (mean correlation with their partners in the other starts {mean:.2f}; over all pairs of starts "
            f"{mean_of_pairs(compared):.2f})."
        )
        worse = len(others) - len(_comparable(fit))
        if len(others) > 1 and all_worse(fit.starts["held_out_objective"], difference_error(fit.starts), fit.best):
            parts.append(f"All {len(others)} other starts fit clearly worse; the best of them counts.")
        elif worse:
            verb, fits = ("does", "it fits") if worse == 1 else ("do", "they fit")
            parts.append(f"{worse} of {len(others)} other starts {verb} not count, as {fits} clearly worse.")
        if fit.summary.linear:
            parts.append("The linear model itself is the same for every random_state.")
    audited = found.audited_strata if len(found.audited_latents) else found.strata
    if (np.bincount(audited[audited >= 0], minlength=2) >= LEAST_ROWS).sum() > 1:
        parts.append(
            f"The share of variance between domains, with its whole interval, exceeds that of shuffled labels for "
            f"{len(changing)} of {len(fit.latent_names)} latents{': ' + ', '.join(changing) if changing else ''}."
        )
    density, kept = float(fit.summary.support.mean()), Reconstruction(found.r2, found.r2_variance)
    rows = f"{'held-out' if found.held_out[0] else 'training'} rows"
    apart = f", without the {kept.still} features that do not vary there" if kept.still else ""
    keeps = f"encode-decode reproduces {kept.kept:.0%} of the features' {fit.model.likelihood.kept} on {rows}{apart}"
    if np.isnan(kept.kept):
        keeps = f"no feature varies on {rows}, so the quality of encode-decode is not known"
    parts.append(f"{density:.0%} of the mixing's entries are 0.1 or more; {keeps}.")
    return " ".join(parts)


def _other_starts(fit: LatentFit) -> NDArray[np.int64]:
    """Starts other than the kept one that did not fail; a failed start is no evidence on the latents."""
    reached = np.isfinite(fit.starts["held_out_objective"].to_numpy(dtype=float))
    return np.array([s for s in np.flatnonzero(reached) if s != fit.best], dtype=np.int64)


def _comparable(fit: LatentFit) -> NDArray[np.int64]:
    """Other starts that do not fit clearly worse; the medians are over these."""
    return np.flatnonzero(comparable(fit.starts["held_out_objective"], difference_error(fit.starts), fit.best))


def _moves(fit: LatentFit, latent: int) -> str:
    found = fit.summary.description
    if len(fit.domains.domains) == 1:
        return ""
    interval = f"[{found.change_low[latent]:.0%}, {found.change_high[latent]:.0%}]"
    share = f"{found.change[latent]:.0%} {interval} of its variance lies between domains"
    share += f" (with shuffled labels at most {found.change_shuffled[latent]:.1%}, in 95 of 100)."
    location = found.location[:, latent]
    if np.isnan(location).all():
        return share
    far = int(np.nanargmax(np.abs(location)))
    return (
        f"{share} The most extreme domain is {fit.domains.domains[far]}: mean {location[far]:+.2f} sd "
        f"[{found.location_low[far, latent]:+.2f}, {found.location_high[far, latent]:+.2f}]."
    )


def _direction(size: float, signed: float) -> str:
    if abs(signed) < 0.5 * size:
        return ""
    return " ↑" if signed > 0 else " ↓"
