r"""What every metric returns, and how all of them are resampled.

A score :math:`s` comes with

- the value on rows shuffled against each other (chance): what the metric gives when nothing was recovered;
- an interval. ``mcc`` reports percentiles of the bootstrap. The others report
  :math:`s \pm 1.96\, \mathrm{sd}(s^*)` over bootstrap resamples :math:`s^*` of the rows, cut to the range of the
  metric: a resample holds rows twice, which shifts plug-in information and refitted models, but hardly changes
  their spread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from unmix.metrics.inputs import Floats, Ints

Table = TypeVar("Table", Floats, Ints)


class Score(float):
    """A metric's value, usable as a number, with what stands behind it.

    Attributes
    ----------
    per_factor : float array (n_factors,)
        NaN for a factor that the metric is not defined for. ``udr`` has one entry a run; metrics of images have one a
        domain, with ``domain``, ``low``, ``high`` and ``n`` in ``details``.
    interval : (low, high), bootstrap over rows, 95 %
    chance : value on rows shuffled against each other (permutation baseline)
    details : dict of further arrays and numbers, such as ``assignment``, ``signs``, ``matrix``, ``within_domain``
    settings : dict of what was asked
    """

    per_factor: Floats
    interval: tuple[float, float]
    chance: float
    details: dict[str, Any]
    settings: Mapping[str, object]

    def __new__(
        cls,
        value: float,
        per_factor: Floats,
        interval: tuple[float, float],
        chance: float,
        details: dict[str, Any],
        settings: Mapping[str, object],
    ) -> Score:
        score = super().__new__(cls, value)
        score.per_factor, score.interval, score.chance = per_factor, interval, chance
        score.details, score.settings = details, settings
        return score

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (
            float(self),
            self.per_factor,
            self.interval,
            self.chance,
            self.details,
            self.settings,
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per factor, or a domain where the score has one value for each."""
        first = {"domain": self.details["domain"]} if "domain" in self.details else {}
        frame = pd.DataFrame((first or {"factor": np.arange(len(self.per_factor))}) | {"score": self.per_factor})
        for name in ("assignment", "signs", "within_domain", "low", "high", "n"):
            if name in self.details:
                frame[name] = self.details[name]
        return frame


def domain_details(
    names: Sequence[str], intervals: Sequence[tuple[float, float]], rows: ArrayLike
) -> dict[str, NDArray[np.generic]]:
    """What ``details`` say of values by domain: names, ends of the intervals, numbers of rows."""
    low, high = ([float(ends[side]) for ends in intervals] for side in (0, 1))
    return {"domain": list(names), "low": low, "high": high, "n": np.asarray(rows).astype(int).tolist()}


def mean_defined(per_factor: Floats) -> float:
    """Mean over the factors that have a value; NaN when none has."""
    defined = ~np.isnan(per_factor)
    return float(per_factor[defined].mean()) if defined.any() else float("nan")


def row_counts(rng: np.random.Generator, n_bootstrap: int, n_rows: int) -> Floats:
    """How often each row occurs in each bootstrap resample: (n_bootstrap, n_rows)."""
    return rng.multinomial(n_rows, np.full(n_rows, 1.0 / n_rows), size=n_bootstrap).astype(float)


def interval(value: float, replicates: ArrayLike, low: float = -np.inf, high: float = np.inf) -> tuple[float, float]:
    """95 % from the spread of the replicates around the value, within [low, high]; NaN with fewer than two."""
    usable = np.asarray(replicates, dtype=float)
    usable = usable[~np.isnan(usable)]
    if len(usable) < 2:
        return float("nan"), float("nan")
    reach = 1.96 * float(usable.std(ddof=1))
    return float(max(value - reach, low)), float(min(value + reach, high))


def by_rows(
    metric: Callable[[Table, Floats], float], z: Table, w: Floats, rng: np.random.Generator, n_bootstrap: int
) -> tuple[list[float], float]:
    """The metric computed anew on bootstrap resamples of the rows, and once on shuffled rows."""
    draws = [rng.integers(len(z), size=len(z)) for _ in range(n_bootstrap)]
    return [metric(z[rows], w[rows]) for rows in draws], metric(z, w[rng.permutation(len(w))])
