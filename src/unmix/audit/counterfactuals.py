r"""Do rows that are translated to a domain look like rows of that domain?

If the model holds, rows of any domain that are translated to domain u are distributed as rows of u: all latents then
have the prior of u, and the noise is the same everywhere. So for every domain u and feature, rows of all other domains
are translated to u and compared with the real rows of u by the two-sample Kolmogorov-Smirnov distance

.. math:: D = \max_t |F_{translated}(t) - F_{real}(t)| .

The tests of all domains and features share a level of 5 % (Holm): if the model is right, nothing is
rejected in 95 of 100 such tables. With many rows, irrelevant differences are significant, too; so the distances are
reported as well, beside those of the same rows before translation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import kolmogorov

from unmix.audit.finding import listed
from unmix.audit.input import LEAST_ROWS, evenly
from unmix.data.batches import Rows
from unmix.models.base import FittedModel
from unmix.numbers import counted

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL = 0.05
_MOST_ROWS = 2_000
_MOST_NUMBERS = 8_000_000


@dataclass(frozen=True, repr=False)
class CounterfactualCheck:
    """Rows translated to each domain, compared with its real rows, feature by feature.

    Attributes
    ----------
    domains, features : tuple of str
    rows, carried : int array (n_domains,)
        Real rows of each domain, and rows of other domains that were translated to it. A domain without 20 of both is
        not tested; its entries are NaN.
    distance, before : float array (n_domains, n_features)
        Kolmogorov-Smirnov distance from the real rows, 0 to 1: of the translated rows, and of the same rows before.
    p_value : float array (n_domains, n_features), of ``distance``, uncorrected
    shift : float array (n_domains, n_features)
        Mean of the translated rows minus that of the real ones, in units of the feature's standard deviation at fit.
    spread : float array (n_domains, n_features)
        Standard deviation of the translated rows divided by that of the real ones; NaN if these do not vary.
    """

    domains: tuple[str, ...]
    features: tuple[str, ...]
    rows: Ints
    carried: Ints
    distance: Floats
    before: Floats
    p_value: Floats
    shift: Floats
    spread: Floats

    def arrays(self) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
        """All fields but the names."""
        return {name: value for name, value in vars(self).items() if name not in ("domains", "features")}

    @property
    def n_tests(self) -> int:
        return int(np.isfinite(self.p_value).sum())

    @property
    def adjusted(self) -> Floats:
        """``p_value`` corrected for all tests (Holm 1979)."""
        result = np.full(self.p_value.shape, np.nan)
        tested = np.isfinite(self.p_value)
        values = self.p_value[tested]
        order = np.argsort(values, kind="stable")
        raised = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
        values[order] = np.minimum(raised, 1.0)
        result[tested] = values
        return result

    @property
    def rejected(self) -> NDArray[np.bool_]:
        """Tests rejected at a level of 5 % for all of them together."""
        return np.asarray(self.adjusted < LEVEL)

    @property
    def visible(self) -> Floats:
        """Smallest distance (n_domains,) that can be rejected with a domain's rows, with all tests corrected for."""
        if not self.n_tests:
            return np.full(len(self.domains), np.nan)
        size = np.sqrt(-0.5 * np.log(LEVEL / (2 * self.n_tests)))
        tested = np.asarray(np.isfinite(self.p_value).any(axis=1))
        either = 1.0 / np.maximum(self.rows, 1) + 1.0 / np.maximum(self.carried, 1)
        return np.where(tested, size * np.sqrt(either), np.nan)

    def to_frame(self) -> pd.DataFrame:
        """One row per tested domain and feature, largest distance first.

        Columns: domain, feature, distance, before, shift, spread, p_value, p_adjusted, rejected, rows, carried.
        """
        n_domains, n_features = self.distance.shape
        table = pd.DataFrame(
            {
                "domain": np.repeat(self.domains, n_features),
                "feature": np.tile(self.features, n_domains),
                **{name: getattr(self, name).ravel() for name in ("distance", "before", "shift", "spread", "p_value")},
                "p_adjusted": self.adjusted.ravel(),
                "rejected": self.rejected.ravel(),
                "rows": np.repeat(self.rows, n_features),
                "carried": np.repeat(self.carried, n_features),
            }
        )
        table = table[table["p_value"].notna()]
        return table.sort_values("distance", ascending=False, kind="stable").reset_index(drop=True)

    def summary(self) -> str:
        """Result of the tests, in a few sentences."""
        tested = np.asarray(np.isfinite(self.p_value).any(axis=1))
        if not tested.any():
            return (
                f"Not tested: a test needs {LEAST_ROWS} rows of a domain and {LEAST_ROWS} of others; the largest "
                f"domain has {int(self.rows.max(initial=0))}."
            )
        bad = self.rejected
        carried, before = (float(np.nanmedian(part)) for part in (self.distance, self.before))
        left = [name for name, own in zip(self.domains, tested.tolist(), strict=True) if not own]
        features = [name for name, own in zip(self.features, np.asarray(bad.any(axis=0)).tolist(), strict=True) if own]
        found = f"reject {int(bad.sum())}, of {listed(features)}" if bad.any() else "reject none"
        said = (
            f"{counted(self.n_tests, 'test')} ({counted(int(tested.sum()), 'domain')}) at {LEVEL:.0%} for all together "
            f"{found}. Median distance {carried:.2f}, before translation {before:.2f}; largest "
            f"{np.nanmax(self.distance):.2f}. The smallest distance that so many rows can reject is "
            f"{np.nanmin(self.visible):.2f}."
        )
        return f"{said} Too few rows to test {listed(left)}." if left else said

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return f"Rows translated to a domain, compared with its own rows: {self.summary()}"


@torch.no_grad()
def check_counterfactuals(
    model: FittedModel, rows: Rows, groups: Ints, domains: Sequence[str], features: Sequence[str]
) -> CounterfactualCheck:
    """The check on ``rows`` whose domains are ``groups`` (rows,), -1 for none of ``domains``.

    At most 2,000 rows are translated to a domain, fewer of wide tables, evenly spaced. Where domains have continuous
    columns, each row is translated to the values of a real row of the target, drawn at random, and rows of counts to
    the size of one.
    """
    shape, rng = (len(domains), len(features)), np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    most = int(np.clip(_MOST_NUMBERS // len(features), 5 * LEAST_ROWS, _MOST_ROWS))
    counts = np.zeros((2, len(domains)), dtype=np.int64)
    distance, before, p_value, shift, spread = np.full((5, *shape), np.nan)
    for target in range(len(domains)):
        own, others = np.flatnonzero(groups == target), np.flatnonzero((groups >= 0) & (groups != target))
        own, others = own[evenly(len(own), most)], others[evenly(len(others), most)]
        counts[:, target] = len(own), len(others)
        if counts[:, target].min() < LEAST_ROWS:
            continue
        real, source = rows.take(torch.from_numpy(own)), rows.take(torch.from_numpy(others))
        drawn = torch.from_numpy(rng.integers(len(own), size=len(others)))
        sizes = None if real.offset is None else real.offset[drawn]
        moved = model.counterfactual(source, real.design[drawn], generator, offset=sizes)
        moved = model.likelihood.inputs(moved, sizes)
        here, there, carried = (
            _seen(x, part.observed) for x, part in ((real.x, real), (source.x, source), (moved, source))
        )
        enough = np.minimum(np.isfinite(here).sum(axis=0), np.isfinite(carried).sum(axis=0)) >= LEAST_ROWS
        here, there, carried = (part[:, enough] for part in (here, there, carried))
        distance[target, enough], p_value[target, enough] = kolmogorov_smirnov(carried, here)
        before[target, enough] = kolmogorov_smirnov(there, here)[0]
        shift[target, enough] = np.nanmean(carried, axis=0) - np.nanmean(here, axis=0)
        own_spread, varies = np.nanstd(here, axis=0), np.nanmax(here, axis=0) > np.nanmin(here, axis=0)
        ratio = np.nanstd(carried, axis=0) / np.where(varies, own_spread, 1.0)
        spread[target, enough] = np.where(varies, ratio, np.nan)
    names = tuple(domains), tuple(features)
    return CounterfactualCheck(*names, counts[0], counts[1], distance, before, p_value, shift, spread)


def _seen(x: torch.Tensor, observed: torch.Tensor | None) -> Floats:
    """Features (rows, features); NaN where not observed."""
    values: Floats = x.cpu().double().numpy()
    return values if observed is None else np.where(observed.cpu().numpy() > 0, values, np.nan)


def kolmogorov_smirnov(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Two-sample distance and asymptotic p-value (n_features,) of every column; NaN entries are left out."""
    both = np.concatenate([a, b])
    order = np.argsort(both, axis=0, kind="stable")
    ranked = np.take_along_axis(both, order, axis=0)
    n, m = ((~np.isnan(part)).sum(axis=0) for part in (a, b))
    steps = np.where(order < len(a), 1.0 / n, -1.0 / m)
    steps[np.isnan(ranked)] = 0.0
    gaps = np.abs(steps.cumsum(axis=0))
    # Of tied values only the last counts them all.
    gaps[:-1][ranked[1:] == ranked[:-1]] = 0.0
    distance: Floats = gaps.max(axis=0)
    return distance, np.asarray(kolmogorov(distance * np.sqrt(n * m / (n + m))))
