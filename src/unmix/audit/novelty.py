r"""How far rows lie outside what a fit saw, in two parts that mean different things.

**Latents.** A row's latents may lie where no known domain has any: its density :math:`\sum_u \pi_u p(z \mid u)` is
compared with those of rows held out at fit. A whole domain may have means and spreads unlike those of known domains:
for each latent both are compared with what the known domains predict for one more domain (Student's t with D - 1
degrees of freedom). That is expected of a new domain, and no problem.

**Mixing.** If the mixing is that of the fit, the residual :math:`r = x - \hat g(z)`, :math:`z \sim q(z \mid x)`,
has the law of the noise, in any domain. For each feature the mean square of r is compared with that of held-out rows
with similar latents (the ten nearest to each row). Where decoder and encoder extrapolate, this need not hold even if
the mixing is unchanged. So rows inside the range, with densities above the lowest twentieth of held-out rows, are
tested for a mean square 1.3 times as large, beyond the variation between known domains; rows outside it only for
residuals that, minus the noise, are a quarter of the feature's variance. Residuals of discrete features are normal
scores of their quantiles, since the residual of a count depends on its expected size, and so on the domain. They have
the mean dispersion of the domains, since that of a new domain is not known. Where
enough rows are inside the range, those outside say nothing about the mixing, only how far the model extrapolates. For
features that are mostly noise the mean square is uninformative; so inside the range x - E[x | z] is also regressed on
E[x | z]: a slope beyond ±0.3 means that the feature does not follow the latents as in the fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import norm, t

from unmix.audit.describe import Description, chunks
from unmix.audit.input import LEAST_ROWS, evenly
from unmix.data.batches import Rows
from unmix.models.base import FittedModel
from unmix.numbers import counted

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL = 0.05
TOLERANCE = 0.3
COARSE = 0.25
_NEAREST = 10
_MOST_ROWS, _MOST_NUMBERS = 2_000, 2_000_000
_GAUSSIAN = 2.0


@dataclass(frozen=True)
class HeldOutResiduals:
    """Residuals (rows, n_features), NaN where missing, of the rows ``place`` (rows,) of a ``Description``."""

    place: Ints
    residuals: NDArray[np.float32]

    def arrays(self) -> dict[str, NDArray[np.int64] | NDArray[np.float32]]:
        return dict(vars(self))


@dataclass(frozen=True, repr=False)
class Novelty:
    """Rows of a table compared with the data of a fit; printed, a few sentences on each domain.

    Attributes
    ----------
    rows : DataFrame, one row per row of the table
        ``domain`` as given; ``latents_p``: share of the rows held out at fit that lie at least as far out; ``inside``:
        whether that is more than 5 %; ``mixing_p``: share of them with a residual as large as the largest of this row,
        NaN for rows that are not inside, where the model extrapolates; ``feature``: the feature with that residual.
    domains : DataFrame, one row per domain
        ``domain``; ``rows``; ``inside``: share of rows inside the range, NaN if fewer than 20 rows were held out at
        fit; ``latents_p`` and ``latent``: p-value of means and spreads of the latents beyond those of known domains,
        and the most extreme latent; ``mixing_p``: p-value of features that do not follow the mixing of the fit, from
        rows inside the range, or from those outside it if fewer than 20 are inside; ``outside_p``: p-value of features
        outside the range that the model does not describe, where it extrapolates; ``feature`` and ``ratio``: the most
        extreme feature of these tests, and the factor by which its mean square residual is larger; ``verdict``: "new
        mixing", "wrong outside the range", "new domain", "as known" or "cannot tell". p-values are corrected for the
        number of latents or features; NaN if not testable.

    A p-value is the probability, at most, that a domain with the mixing of the fit (``mixing_p``), or one more domain
    like the known ones (``latents_p``), is as extreme or more. ``verdict`` reports p-values below 0.05; of 20 domains
    just like those of the fit, one is reported wrongly.
    """

    rows: pd.DataFrame
    domains: pd.DataFrame

    @property
    def new_mixing(self) -> bool:
        """Whether in some domain the features do not follow the mixing of the fit."""
        return bool((self.domains["mixing_p"] < LEVEL).any())

    @property
    def wrong_outside(self) -> bool:
        """Whether in some domain the model does not describe the rows outside the range of the fit."""
        return bool((self.domains["outside_p"] < LEVEL).any())

    @property
    def new_latents(self) -> bool:
        """Whether some domain has latents beyond those of the known domains."""
        return bool((self.domains["latents_p"] < LEVEL).any())

    def to_frame(self) -> pd.DataFrame:
        """``domains``."""
        return self.domains.copy()

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return "\n".join(_sentence(str(row["domain"]), int(row["rows"]), row) for _, row in self.domains.iterrows())


@dataclass(frozen=True)
class Residuals:
    """Posterior means (rows, n_latents) and residuals (rows, n_features) given one draw z of each row's posterior.

    ``left``: residuals whose law does not depend on z if the mixing is that of the fit (``Likelihood.pivot``);
    ``expected``: E[x | z] in units of the encoder's inputs; ``apart``: x minus that. NaN where missing.
    """

    means: Floats
    left: Floats
    apart: Floats
    expected: Floats

    def __getitem__(self, place: NDArray[np.bool_]) -> Residuals:
        return Residuals(self.means[place], self.left[place], self.apart[place], self.expected[place])


@torch.no_grad()
def residuals_of(model: FittedModel, rows: Rows, seed: int = 0) -> Residuals:
    """Posterior means and residuals of rows."""
    source = torch.Generator().manual_seed(seed)
    found: list[tuple[torch.Tensor, ...]] = []
    for chunk in chunks(rows):
        noise = torch.randn(len(chunk), model.n_latents, generator=source).to(chunk.x)
        output = model.decode(model.sample_posterior(chunk.x, chunk.observed, noise, chunk.design)[0])
        expected = model.likelihood.inputs(model.likelihood.mean(output, chunk.offset), chunk.offset)
        left, apart = model.likelihood.pivot(chunk.without_domain(), output, source), chunk.x - expected
        if chunk.observed is not None:
            left, apart = (own.masked_fill(chunk.observed == 0, torch.nan) for own in (left, apart))
        means = model.mean(chunk.x, chunk.observed, chunk.design)
        found.append((means.cpu(), left.cpu(), apart.cpu(), expected.cpu()))
    return Residuals(*(torch.cat(parts).double().numpy() for parts in zip(*found, strict=True)))


def held_out_residuals(model: FittedModel, held_out: Rows) -> HeldOutResiduals:
    """Residuals of at most 2,000 held-out rows, fewer if there are many features."""
    n_features = held_out.take(slice(0, 1)).x.shape[1]
    place = evenly(len(held_out), int(np.clip(_MOST_NUMBERS // n_features, 5 * LEAST_ROWS, _MOST_ROWS)))
    found = residuals_of(model, held_out.take(torch.from_numpy(place).to(held_out.codes.device)))
    return HeldOutResiduals(place.astype(np.int64), found.left.astype(np.float32))


def novelty(
    model: FittedModel,
    found: Description,
    kept: HeldOutResiduals,
    rows: Rows,
    labels: Sequence[str],
    latent_names: Sequence[str],
    feature_names: Sequence[str],
) -> Novelty:
    """Compare ``rows`` with the ``kept`` residuals of rows held out at fit."""
    known = _Known(model, found, kept)
    own_rows = residuals_of(model, rows)
    density = known.density(own_rows.means)
    row_p = _rank(known.densities, density)
    inside = row_p > LEVEL
    size, where = _largest(own_rows.left / known.scale)
    table = pd.DataFrame(
        {
            "domain": list(labels),
            "latents_p": row_p,
            "inside": inside,
            "mixing_p": np.where(inside, _rank(-known.sizes, -size), np.nan),
            "feature": np.array(feature_names, dtype=object)[where],
        }
    )
    said = []
    for label in dict.fromkeys(labels):
        own = (table["domain"] == label).to_numpy()
        latents_p, latent = known.beyond(own_rows.means[own])
        mixing, outside = known.unlike(own_rows[own], inside[own], rows.x.cpu().numpy()[own])
        shown = outside if outside.p < LEVEL <= mixing.p else mixing
        said.append(
            {
                "domain": label,
                "rows": int(own.sum()),
                "inside": float(inside[own].mean()) if len(known.latents) >= LEAST_ROWS else np.nan,
                "latents_p": latents_p,
                "latent": latent_names[latent],
                "mixing_p": mixing.p,
                "outside_p": outside.p,
                "feature": feature_names[shown.feature],
                "ratio": shown.ratio,
                "verdict": _verdict(latents_p, mixing.p, outside.p),
            }
        )
    return Novelty(table, pd.DataFrame(said))


class _Unlike(NamedTuple):
    """p-value of features unlike those of the fit, the most extreme one, and the ratio of its mean square residual."""

    p: float
    feature: int
    ratio: float


class _Known:
    """Held-out rows of known domains, as reference."""

    def __init__(self, model: FittedModel, found: Description, kept: HeldOutResiduals) -> None:
        self.model, self.found = model, found
        self.latents, self.groups = found.latents[kept.place], found.groups[kept.place]
        self.squares = kept.residuals.astype(float) ** 2
        counts = np.bincount(found.strata[found.strata >= 0], minlength=len(found.strata_group)).astype(float)
        self.design = torch.from_numpy(found.strata_design).float()
        self.weights = np.log(np.maximum(counts, 1.0) / np.maximum(counts, 1.0).sum())
        self.densities = self.density(self.latents)
        self.scale = np.sqrt(np.maximum(_mean(self.squares), 1e-12))
        self.sizes, _ = _largest(kept.residuals / self.scale)
        self.inside = _rank(self.densities, self.densities) > LEVEL

    @torch.no_grad()
    def density(self, latents: Floats) -> Floats:
        """Log-density (rows,) of latents under the mixture of the known domains."""
        device = self.model.scale.device
        z = torch.from_numpy(latents).float().to(device)
        total = torch.full((len(z),), -torch.inf, device=device)
        for design, weight in zip(self.design.to(device), self.weights, strict=True):
            own = self.model.prior(design.expand(len(z), -1)).log_prob(z).sum(-1)
            total = torch.logaddexp(total, own + float(weight))
        return total.cpu().double().numpy()

    def beyond(self, latents: Floats) -> tuple[float, int]:
        """p-value of the means and spreads of one more domain, and its most extreme latent."""
        location, spread = self.found.location, self.found.spread
        there = np.isfinite(location).all(axis=1) & (spread > 0).all(axis=1)
        n_domains, n = int(there.sum()), len(latents)
        if n_domains < 2 or n < 2:
            return np.nan, 0
        deviation = np.maximum(latents.std(axis=0, ddof=1), 1e-6)
        new = np.concatenate([latents.mean(axis=0), np.log(deviation)])
        chance = np.concatenate([deviation**2 / n, np.full(latents.shape[1], 0.5 / (n - 1))])
        old = np.concatenate([location[there], np.log(spread[there])], axis=1)
        error = np.sqrt(old.var(axis=0, ddof=1) * (1.0 + 1.0 / n_domains) + chance)
        p = 2.0 * t.sf(np.abs(new - old.mean(axis=0)) / error, n_domains - 1)
        return float(min(1.0, p.min() * len(p))), int(p.argmin() % latents.shape[1])

    def unlike(self, rows: Residuals, inside: NDArray[np.bool_], x: Floats) -> tuple[_Unlike, _Unlike]:
        """Whether the residuals of one domain speak against the mixing, and against the model outside the range."""
        outside = _most_extreme([self._coarse(rows[~inside], x[~inside])] if (~inside).sum() >= LEAST_ROWS else [])
        if inside.sum() < LEAST_ROWS or self.inside.sum() < LEAST_ROWS:
            return outside, outside
        p, ratio = self._fine(rows[inside])
        return _most_extreme([(p, ratio), (_turned(rows[inside]), ratio)]), outside

    def _fine(self, rows: Residuals) -> tuple[Floats, Floats]:
        """p-values and ratios (n_features,) of rows inside the range, against held-out rows with similar latents."""
        latents, left = rows.means, rows.left
        own, squares = self.latents[self.inside], self.squares[self.inside]
        nearest = cKDTree(own).query(latents, k=min(_NEAREST, len(own)))[1].reshape(len(latents), -1)
        weight = np.bincount(nearest.ravel(), minlength=len(own)) / nearest.size
        seen = np.isfinite(squares)
        weights = np.where(seen, weight[:, None], 0.0)
        weights = weights / np.maximum(weights.sum(axis=0), 1e-12)
        filled = np.where(seen, squares, 0.0)
        expected = np.maximum((weights * filled).sum(axis=0), 1e-12)
        relative = (weights * (filled - expected) ** 2).sum(axis=0) / expected**2
        either = 1.0 / np.maximum(np.isfinite(left).sum(axis=0), 1) + (weights**2).sum(axis=0)
        differs, n_domains = self._between()
        error = np.sqrt(np.maximum(relative, _GAUSSIAN) * either + differs * (1.0 + 1.0 / max(n_domains, 1)))
        ratio = _mean(left**2) / expected
        beyond = (np.log(np.maximum(ratio, 1e-12)) - np.log1p(TOLERANCE)) / error
        few = (np.isfinite(left).sum(axis=0) < LEAST_ROWS) | ~seen.any(axis=0)
        return np.where(few, np.nan, norm.sf(beyond)), ratio

    def _between(self) -> tuple[float, int]:
        """Variance of log mean squares between known domains beyond chance, pooled over features; their number."""
        logs, chances = [], []
        for group in np.unique(self.groups[self.groups >= 0]):
            squares = self.squares[self.inside & (self.groups == group)]
            counts = np.isfinite(squares).sum(axis=0)
            if len(squares) < LEAST_ROWS or counts.min() < LEAST_ROWS:
                continue
            mean = np.maximum(_mean(squares), 1e-12)
            logs.append(np.log(mean))
            chances.append(np.maximum(_mean((squares - mean) ** 2) / mean**2, _GAUSSIAN) / counts)
        if len(logs) < 2:
            return 0.0, len(logs)
        excess = np.var(logs, axis=0, ddof=1) - np.mean(chances, axis=0)
        return float(max(excess.mean(), 0.0)), len(logs)

    def _coarse(self, rows: Residuals, x: Floats) -> tuple[Floats, Floats]:
        """p-values and ratios (n_features,) of rows outside the range: residuals against the features' own variance.

        Only the share of the squares beyond the noise counts.
        """
        seen = np.isfinite(rows.apart)
        counts = np.maximum(seen.sum(axis=0), 2)
        variance: Floats = np.asarray(np.nanvar(np.where(seen, x, np.nan), axis=0), dtype=np.float64)
        ratio = _mean(rows.left**2) / np.maximum(_mean(self.squares), 1e-12)
        beyond = np.maximum(0.0, 1.0 - 1.0 / np.maximum(ratio, 1e-12))
        squares = beyond * rows.apart**2 / np.maximum(1.0, variance)
        mean = _mean(squares)
        error = np.sqrt(np.maximum(_mean((squares - mean) ** 2), 1e-12) / counts)
        few = seen.sum(axis=0) < LEAST_ROWS
        p = norm.sf((mean - COARSE) / np.maximum(error, COARSE * np.sqrt(_GAUSSIAN / counts)))
        return np.where(few, np.nan, p), ratio


def _most_extreme(tests: list[tuple[Floats, Floats]]) -> _Unlike:
    """The smallest of the p-values of some tests of each feature, corrected for their number."""
    if not tests:
        return _Unlike(np.nan, 0, np.nan)
    p, ratio = (np.stack(part) for part in zip(*tests, strict=True))
    tested = int(np.isfinite(p).sum())
    if not tested:
        return _Unlike(np.nan, 0, np.nan)
    test, feature = np.unravel_index(int(np.nanargmin(p)), p.shape)
    return _Unlike(float(min(1.0, p[test, feature] * tested)), int(feature), float(ratio[test, feature]))


def _turned(rows: Residuals) -> Floats:
    """p-values (n_features,) of the slope of the residuals on E[x | z], for rows inside the range.

    The slope is 0 if the mixing is that of the fit, and -1 for a feature that no longer follows any latent.
    """
    seen = np.isfinite(rows.apart)
    counts = np.maximum(seen.sum(axis=0), 1)
    there, left = (np.where(seen, part, 0.0) for part in (rows.expected, rows.apart))
    there, left = (np.where(seen, part - part.sum(axis=0) / counts, 0.0) for part in (there, left))
    total = np.maximum((there**2).sum(axis=0), 1e-9)
    slope = (there * left).sum(axis=0) / total
    rest = (left - slope * there) ** 2
    usual, robust = rest.sum(axis=0) / np.maximum(counts - 2, 1) / total, (there**2 * rest).sum(axis=0) / total**2
    beyond = (np.abs(slope) - TOLERANCE) / np.sqrt(np.maximum(np.maximum(usual, robust), 1e-12))
    return np.where(counts < LEAST_ROWS, np.nan, 2.0 * norm.sf(beyond))


def _mean(values: Floats) -> Floats:
    """Mean of every column over its observed entries; 0 if it has none."""
    result: Floats = np.nansum(values, axis=0) / np.maximum(np.isfinite(values).sum(axis=0), 1)
    return result


def _largest(left: Floats) -> tuple[Floats, Ints]:
    """Largest absolute value of every row, and its column."""
    size = np.nan_to_num(np.abs(left))
    where = size.argmax(axis=1)
    return size[np.arange(len(size)), where], where


def _rank(reference: Floats, values: Floats) -> Floats:
    """Share of ``reference``, the value itself among it, that is as low as each value: a conformal p-value."""
    below = np.searchsorted(np.sort(reference), values, side="right")
    result: Floats = np.minimum((1.0 + below) / (1.0 + len(reference)), 1.0)
    return result


def _verdict(latents_p: float, mixing_p: float, outside_p: float) -> str:
    if mixing_p < LEVEL:
        return "new mixing"
    if outside_p < LEVEL:
        return "wrong outside the range"
    if np.isnan(mixing_p):
        return "cannot tell"
    return "new domain" if latents_p < LEVEL else "as known"


def _sentence(domain: str, rows: int, row: Any) -> str:
    mixing_p, latents_p = float(row["mixing_p"]), float(row["latents_p"])
    share = "" if np.isnan(row["inside"]) else f", {row['inside']:.0%} inside the range of the fit"
    head = f"{domain} ({counted(rows, 'row')}{share}): "
    if np.isnan(latents_p):
        latents = "Telling whether its latents are unlike those of known domains takes two known domains."
    elif latents_p < LEVEL:
        latents = (
            f"Means or spreads of its latents are beyond those of the known domains ({_p(latents_p)}; {row['latent']} "
            "most)."
        )
        latents += "" if mixing_p < LEVEL else " That is a new domain: adapt learns it."
    else:
        latents = f"Its latents are not seen to differ from known domains in mean or spread ({_p(latents_p)})."
    return f"{head}{_of_mixing(row)} {latents}"


def _of_mixing(row: Any) -> str:
    mixing_p, outside_p = float(row["mixing_p"]), float(row["outside_p"])
    how = f"the mean square residual of {row['feature']} is {row['ratio']:.1f} times that in rows of the fit"
    if row["ratio"] < 1.0 + TOLERANCE:
        how = f"{row['feature']} does not follow the latents as in rows of the fit"
    if np.isnan(mixing_p) and np.isnan(row["inside"]):
        return (
            "too few rows to tell whether these lie in the range of the fit and follow its mixing: at fit at least "
            f"{LEAST_ROWS} must be held out (validation_fraction)."
        )
    if np.isnan(mixing_p):
        return (
            f"too few rows to tell whether the mixing is that of the fit: {LEAST_ROWS} rows inside that range are "
            f"needed, among these and among those held out at fit, or {LEAST_ROWS} of these outside it."
        )
    if mixing_p < LEVEL:
        return (
            f"the features do not follow the mixing of the fit ({_p(mixing_p)}; {how}): a new mixing. Do not trust the "
            "latents of these rows, and do not adapt to them."
        )
    if outside_p < LEVEL:
        return (
            f"inside that range the features follow the mixing of the fit ({_p(mixing_p)}); outside it the model does "
            f"not describe them ({_p(outside_p)}; {how}). Trust the latents of the rows inside alone, and prefer a fit "
            "with rows of this domain to adapt."
        )
    return f"the features follow the mixing of the fit ({_p(mixing_p)}): the latents can be trusted."


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
