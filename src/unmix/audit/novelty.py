r"""How far rows lie outside what a fit saw, in two parts that mean different things.

**Latents.** A row's latents may lie where no known domain has any: its density :math:`\sum_u \pi_u p(z \mid u)` is
compared with those of rows held out at fit. A whole domain may have means and spreads unlike those of known domains:
for each latent both are held against what the known domains predict of one more (Student's t with D - 1 degrees of
freedom, as though each known domain in turn were the new one). That is what new domains are: nothing is wrong with it.

**Mixing.** If the mixing is that of the fit, a draw :math:`z \sim q(z \mid x)` leaves :math:`r = x - \hat g(z)` with
the law of the noise, in any domain. For each feature the mean square of r is compared with that of held-out rows with
the same latents (the ten nearest of each row). Where decoder and encoder extrapolate that need not hold in the best of
worlds; so rows inside the range, with densities above the lowest twentieth of held-out rows, are tested for a mean
square 1.3 times as large, beyond what known domains differ by, and rows outside it only for residuals that are a
quarter of the feature's variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import norm, t

from unmix.audit.describe import Description, chunks
from unmix.audit.finding import counted
from unmix.audit.input import LEAST_ROWS, evenly
from unmix.data.batches import Rows
from unmix.models.base import FittedModel

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

    def arrays(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True, repr=False)
class Novelty:
    """Rows of a table against what a fit saw; printed, it is a few sentences on each domain.

    Attributes
    ----------
    rows : DataFrame, one row a row
        ``domain`` as given; ``latents_p``: how many of the rows held out at fit lie as far out; ``inside``: whether
        that is more than 5 %; ``mixing_p``: how many of them have a residual as large as the largest of this row,
        NaN for rows that are not inside, where the model extrapolates; ``feature``: which that is.
    domains : DataFrame, one row a domain
        ``domain``; ``rows``; ``inside``: share of rows inside the range; ``latents_p`` and ``latent``: whether means
        and spreads of the latents are beyond those of known domains, and the furthest latent; ``mixing_p``,
        ``feature`` and ``ratio``: whether features are what the mixing makes of the latents, the feature furthest from
        that, and how many times as large its mean square residual is; ``verdict``. p-values are those of all latents,
        or features, together; NaN where it cannot be told.

    A p-value says how often, at most, a domain with the mixing of the fit (``mixing_p``), or one more domain like the
    known ones (``latents_p``), comes out as far or further. Below 0.05 ``verdict`` names it; of 20 domains for which
    all is as in the fit one is named wrongly.
    """

    rows: pd.DataFrame
    domains: pd.DataFrame

    @property
    def new_mixing(self) -> bool:
        """Whether in some domain features are not what the mixing makes of the latents."""
        return bool((self.domains["mixing_p"] < LEVEL).any())

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


@torch.no_grad()
def residuals_of(model: FittedModel, rows: Rows, seed: int = 0) -> tuple[Floats, Floats]:
    """Posterior means (rows, n_latents), and what one draw z of each row's posterior leaves (rows, n_features).

    That is x - E[x | z], in units of the encoder's inputs, which of counts are standardised log(1 + x / s).
    """
    source = torch.Generator().manual_seed(seed)
    means, left = [], []
    for chunk in chunks(rows):
        noise = torch.randn(len(chunk), model.n_latents, generator=source).to(chunk.x)
        z, _ = model.sample_posterior(chunk.x, chunk.observed, noise, chunk.design)
        expected = model.likelihood.mean(model.decode(z), chunk.offset)
        own = chunk.x - model.likelihood.inputs(expected, chunk.offset)
        left.append((own if chunk.observed is None else own.masked_fill(chunk.observed == 0, torch.nan)).cpu())
        means.append(model.mean(chunk.x, chunk.observed, chunk.design).cpu())
    return torch.cat(means).double().numpy(), torch.cat(left).double().numpy()


def held_out_residuals(model: FittedModel, held_out: Rows) -> HeldOutResiduals:
    """Of at most 2,000 rows, fewer where they are wide."""
    n_features = held_out.take(slice(0, 1)).x.shape[1]
    place = evenly(len(held_out), int(np.clip(_MOST_NUMBERS // n_features, 5 * LEAST_ROWS, _MOST_ROWS)))
    _, left = residuals_of(model, held_out.take(torch.from_numpy(place).to(held_out.codes.device)))
    return HeldOutResiduals(place.astype(np.int64), left.astype(np.float32))


def novelty(
    model: FittedModel,
    found: Description,
    kept: HeldOutResiduals,
    rows: Rows,
    labels: Sequence[str],
    latent_names: Sequence[str],
    feature_names: Sequence[str],
) -> Novelty:
    """The comparison of ``rows`` with what was ``kept`` of those that were held out at fit."""
    known = _Known(model, found, kept)
    means, left = residuals_of(model, rows)
    density = known.density(means)
    row_p = _rank(known.densities, density)
    inside = row_p > LEVEL
    size, where = _largest(left / known.scale)
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
        latents_p, latent = known.beyond(means[own])
        mixing_p, feature, ratio = known.unlike(means[own], left[own], inside[own], rows.x.cpu().numpy()[own])
        said.append(
            {
                "domain": label,
                "rows": int(own.sum()),
                "inside": float(inside[own].mean()),
                "latents_p": latents_p,
                "latent": latent_names[latent],
                "mixing_p": mixing_p,
                "feature": feature_names[feature],
                "ratio": ratio,
                "verdict": _verdict(latents_p, mixing_p),
            }
        )
    return Novelty(table, pd.DataFrame(said))


class _Known:
    """What held-out rows of known domains look like."""

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
        self.left, self.predicted = kept.residuals.astype(float), self.expected(self.latents)

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

    @torch.no_grad()
    def expected(self, latents: Floats) -> Floats:
        """What the mixing makes of latents (rows, n_latents), of rows of median size, in units of the inputs."""
        z = torch.from_numpy(latents).float().to(self.model.scale.device)
        mean = self.model.likelihood.mean(self.model.reconstruct(z))
        return self.model.likelihood.inputs(mean).cpu().double().numpy()

    def beyond(self, latents: Floats) -> tuple[float, int]:
        """p-value of the means and spreads of one more domain, and its furthest latent."""
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

    def unlike(self, latents: Floats, left: Floats, inside: NDArray[np.bool_], x: Floats) -> tuple[float, int, float]:
        """p-value of the residuals of one domain, the feature that is furthest out, and by how much."""
        tests = []
        if inside.sum() >= LEAST_ROWS and self.inside.sum() >= LEAST_ROWS:
            tests.append(self._fine(latents[inside], left[inside]))
            tests.append((self._turned(latents[inside], left[inside]), tests[0][1]))
        if (~inside).sum() >= LEAST_ROWS:
            tests.append(self._coarse(left[~inside], x[~inside]))
        if not tests:
            return np.nan, 0, np.nan
        p, ratio = (np.stack(part) for part in zip(*tests, strict=True))
        test, feature = np.unravel_index(int(np.nanargmin(p)), p.shape)
        tested = int(np.isfinite(p).sum())
        return float(min(1.0, p[test, feature] * tested)), int(feature), float(ratio[test, feature])

    def _fine(self, latents: Floats, left: Floats) -> tuple[Floats, Floats]:
        """p-values and ratios (n_features,) of rows inside the range, against held-out rows with such latents."""
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

    def _turned(self, latents: Floats, left: Floats) -> Floats:
        """p-values (n_features,) of how residuals of rows inside the range go along with what the mixing makes of them.

        Where a feature follows its latents no longer, or turned round, this is seen in features that are mostly noise.
        """
        slope, chance = _slopes(left, self.expected(latents))
        known, known_chance = _slopes(self.left[self.inside], self.predicted[self.inside])
        differs, n_domains = self._slopes_between()
        error = np.sqrt(chance + known_chance + differs * (1.0 + 1.0 / max(n_domains, 1)))
        few = np.isfinite(left).sum(axis=0) < LEAST_ROWS
        return np.where(few, np.nan, 2.0 * norm.sf((np.abs(slope - known) - TOLERANCE) / error))

    def _slopes_between(self) -> tuple[float, int]:
        """Variance of slopes between known domains beyond chance, pooled over features; the number of domains."""
        found = []
        for group in np.unique(self.groups[self.groups >= 0]):
            own = self.inside & (self.groups == group)
            if own.sum() >= LEAST_ROWS and np.isfinite(self.left[own]).sum(axis=0).min() >= LEAST_ROWS:
                found.append(_slopes(self.left[own], self.predicted[own]))
        if len(found) < 2:
            return 0.0, len(found)
        slopes, chances = (np.stack(part) for part in zip(*found, strict=True))
        chance = chances.mean(axis=0)
        excess, weight = slopes.var(axis=0, ddof=1) - chance, 1.0 / np.maximum(chance, 1e-12) ** 2
        return float(max((weight * excess).sum() / weight.sum(), 0.0)), len(found)

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

    def _coarse(self, left: Floats, x: Floats) -> tuple[Floats, Floats]:
        """p-values and ratios (n_features,) of rows outside the range: residuals against the features' own variance."""
        counts = np.maximum(np.isfinite(left).sum(axis=0), 2)
        variance: Floats = np.asarray(np.nanvar(np.where(np.isfinite(left), x, np.nan), axis=0), dtype=np.float64)
        squares = left**2 / np.maximum(1.0, variance)
        mean = _mean(squares)
        error = np.sqrt(np.maximum(_mean((squares - mean) ** 2), 1e-12) / counts)
        few = np.isfinite(left).sum(axis=0) < LEAST_ROWS
        p = norm.sf((mean - COARSE) / np.maximum(error, COARSE * np.sqrt(_GAUSSIAN / counts)))
        return np.where(few, np.nan, p), _mean(left**2) / np.maximum(_mean(self.squares), 1e-12)


def _mean(values: Floats) -> Floats:
    """Mean of every column over what is not missing; 0 where all is."""
    result: Floats = np.nansum(values, axis=0) / np.maximum(np.isfinite(values).sum(axis=0), 1)
    return result


def _slopes(left: Floats, predicted: Floats) -> tuple[Floats, Floats]:
    """Slope of every column of ``left`` on that of ``predicted``, and its variance; NaN of ``left`` are left out."""
    seen = np.isfinite(left)
    counts = np.maximum(seen.sum(axis=0), 1)
    there = np.where(seen, predicted, 0.0)
    there = np.where(seen, there - there.sum(axis=0) / counts, 0.0)
    filled = np.nan_to_num(left)
    filled = np.where(seen, filled - filled.sum(axis=0) / counts, 0.0)
    total = np.maximum((there**2).sum(axis=0), 1e-6)
    slope = (there * filled).sum(axis=0) / total
    rest = np.where(seen, filled - slope * there, 0.0)
    usual = (rest**2).sum(axis=0) / np.maximum(counts - 2, 1) / total
    robust = (there**2 * rest**2).sum(axis=0) / total**2
    return slope, np.maximum(usual, robust)


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


def _verdict(latents_p: float, mixing_p: float) -> str:
    if mixing_p < LEVEL:
        return "new mixing"
    if np.isnan(mixing_p):
        return "cannot tell"
    return "new domain" if latents_p < LEVEL else "as known"


def _sentence(domain: str, rows: int, row: Any) -> str:
    mixing_p, latents_p = float(row["mixing_p"]), float(row["latents_p"])
    head = f"{domain} ({counted(rows, 'row')}, {row['inside']:.0%} inside the range of the fit): "
    if np.isnan(mixing_p):
        mixing = (
            f"fewer than {LEAST_ROWS} rows inside that range, or outside it: whether the mixing is that of the fit "
            "cannot be told."
        )
    elif mixing_p < LEVEL:
        mixing = (
            f"features are not what the mixing of the fit makes of the latents ({_p(mixing_p)}; what is left of "
            f"{row['feature']} is {row['ratio']:.1f} times as large in mean square as in rows of the fit): a new "
            "mixing. Do not believe latents of these rows, and do not adapt to them."
        )
    else:
        mixing = (
            f"features are what the mixing of the fit makes of the latents ({_p(mixing_p)}): latents can be read off."
        )
    if np.isnan(latents_p):
        latents = "Whether its latents are unlike those of known domains takes two known domains to tell."
    elif latents_p < LEVEL:
        latents = (
            f"Means or spreads of its latents are beyond those of the known domains ({_p(latents_p)}; {row['latent']} "
            "most)."
        )
        latents += "" if mixing_p < LEVEL else " That is a new domain: adapt learns it."
    else:
        latents = f"Means and spreads of its latents are like those of the known domains ({_p(latents_p)})."
    return f"{head}{mixing} {latents}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
