r"""What every metric returns, and what all of them share: checked inputs, splits, resampling.

A score :math:`s` comes with

- the value on rows shuffled against each other (chance): what the metric gives when nothing was recovered;
- an interval. ``mcc`` reports percentiles of the bootstrap. The others report
  :math:`s \pm 1.96\, \mathrm{sd}(s^*)` over bootstrap resamples :math:`s^*` of the rows, cut to the range of the
  metric: a resample holds rows twice, which shifts plug-in information and refitted models, but hardly changes
  their spread.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from unmix.errors import DataError, MetricWarning, SettingError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Table = TypeVar("Table", Floats, Ints)
Discrete = bool | Sequence[int] | Sequence[bool] | Bools | Ints


class Score(float):
    """A metric's value, usable as a number, with what stands behind it.

    Attributes
    ----------
    per_factor : float array (n_factors,)
        NaN for a factor that the metric is not defined for. ``udr`` has one entry a run.
    interval : (low, high), bootstrap over rows, 95 %
    chance : value on rows shuffled against each other (permutation baseline)
    details : dict of further arrays and numbers, such as ``assignment``, ``signs``, ``matrix``, ``within_domain``
    settings : dict of what was asked
    """

    per_factor: Floats
    interval: tuple[float, float]
    chance: float
    details: dict[str, Any]
    settings: dict[str, Any]

    def __new__(
        cls,
        value: float,
        per_factor: Floats,
        interval: tuple[float, float],
        chance: float,
        details: dict[str, Any],
        settings: dict[str, Any],
    ) -> Score:
        score = super().__new__(cls, value)
        score.per_factor, score.interval, score.chance = per_factor, interval, chance
        score.details, score.settings = details, settings
        return score

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (
            float(self),
            self.per_factor,
            self.interval,
            self.chance,
            self.details,
            self.settings,
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a factor."""
        frame = pd.DataFrame({"factor": np.arange(len(self.per_factor)), "score": self.per_factor})
        for name in ("assignment", "signs", "within_domain"):
            if name in self.details:
                frame[name] = self.details[name]
        return frame


def matrix(name: str, values: ArrayLike) -> Floats:
    """A finite float matrix; a vector becomes one column."""
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must hold numbers only; give classes as numbers. ({error})") from error
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"{name} must be a matrix (n_samples, n_latents); got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds values that are not finite. Remove those rows first.")
    return array


def pair(z_true: ArrayLike, z_hat: ArrayLike) -> tuple[Floats, Floats]:
    """Both matrices, checked, with the same rows."""
    z, w = matrix("z_true", z_true), matrix("z_hat", z_hat)
    if len(z) != len(w) or len(z) < 4:
        raise DataError(f"z_true and z_hat must have the same rows, at least 4; got {len(z)} and {len(w)}.")
    return z, w


def discrete_factors(discrete: Discrete, z: Floats) -> Bools:
    """Which factors are classes: True for all, or column numbers, or a mask."""
    mask = _asked_factors(discrete, z.shape[1])
    many = [int(i) for i in np.flatnonzero(mask) if len(np.unique(z[:, i])) > len(z) / 2]
    if many:
        warn(f"Discrete factors {many} have more classes than half the rows ({len(z)}). Are they continuous?")
    return mask


def _asked_factors(discrete: Discrete, n_factors: int) -> Bools:
    if isinstance(discrete, bool | np.bool_):
        return np.full(n_factors, bool(discrete))
    asked = np.asarray(discrete)
    if asked.dtype == bool and asked.shape == (n_factors,):
        return asked
    mask = np.zeros(n_factors, dtype=bool)
    if asked.size:
        if asked.dtype.kind not in "iu" or asked.ndim != 1 or asked.min() < 0 or asked.max() >= n_factors:
            raise SettingError(
                f"discrete must be True, False, column numbers from 0 to {n_factors - 1}, or a mask of length "
                f"{n_factors}; got {discrete!r}."
            )
        mask[asked] = True
    return mask


def at_least(name: str, value: int, least: int) -> None:
    """Refuse a count below its least sensible value."""
    if value < least:
        raise SettingError(f"{name} must be {least} or more; got {value}.")


def subsample(rng: np.random.Generator, max_samples: int, *arrays: Floats) -> list[Floats]:
    """The same ``max_samples`` random rows of every array, or all of them."""
    at_least("max_samples", max_samples, 4)
    if len(arrays[0]) <= max_samples:
        return list(arrays)
    rows = rng.choice(len(arrays[0]), max_samples, replace=False)
    return [array[rows] for array in arrays]


def standardise(a: Floats) -> Floats:
    """Columns of mean 0 and variance 1; a constant column becomes 0."""
    usable = alive(a)
    a = a - a.mean(axis=0)
    result: Floats = np.where(usable, a / np.where(usable, a.std(axis=0), 1.0), 0.0)
    return result


def alive(a: Floats) -> Bools:
    """Columns that vary by more than rounding."""
    largest = np.abs(a).max(axis=0, initial=0.0)
    result: Bools = (a - a.mean(axis=0)).std(axis=0) > 1e-12 * largest
    return result


def warn(message: str) -> None:
    """Warn at the line outside this package that called the metric."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("unmix.metrics."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, MetricWarning, stacklevel=level)


def varying_factors(z: Floats) -> Bools:
    """Factors that are not constant; a warning names the others."""
    varies = alive(z)
    if not varies.all():
        warn(f"Constant factors {np.flatnonzero(~varies).tolist()} are left out: nothing in them can be recovered.")
    return varies


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
