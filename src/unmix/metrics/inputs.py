"""What all metrics check and do first: matrices, classes, counts, the random generator, halves of the rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unmix import errors
from unmix.errors import DataError, DomainError, MetricWarning, SettingError
from unmix.forms import LabelsLike, familiar
from unmix.labels import label_text, label_texts, labels_frame
from unmix.validation import whole

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Discrete = bool | Sequence[int] | Sequence[bool] | Bools | Ints


def as_array(name: str, values: object, expected: str, dtype: type | None = None) -> NDArray[Any]:
    """``np.asarray``; a DataError where that fails, and for a masked entry, whose value numpy would take for one."""
    values = familiar(values)
    if _masked(values):
        raise DataError(f"{name} has masked entries. Leave their rows out, or fill them in.")
    try:
        with np.errstate(over="ignore"):
            return np.asarray(values, dtype)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise DataError(f"{name} must hold {expected}. ({error})") from error


def _masked(values: object) -> bool:
    if isinstance(values, np.ma.MaskedArray):
        return bool(np.ma.is_masked(values))
    return isinstance(values, list | tuple) and any(map(_masked, values))


def matrix(name: str, values: ArrayLike) -> Floats:
    """A finite float matrix; a vector becomes one column."""
    expected = "numbers only; give classes as numbers"
    array = as_array(name, values, expected)
    if array.dtype.kind in "cmM":
        raise DataError(f"{name} must hold {expected}. (dtype {array.dtype})")
    array = as_array(name, array, expected, float)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"{name} must be a matrix (n_samples, n_latents); got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds values that are not finite. Remove those rows first.")
    return array


def pair(z_true: ArrayLike, z_hat: ArrayLike) -> tuple[Floats, Floats]:
    """Both matrices, checked, with the same rows, and such that no column overflows or varies by rounding alone."""
    z, w = (in_range(matrix(name, values)) for name, values in (("z_true", z_true), ("z_hat", z_hat)))
    z, w = (np.where(alive(a), a, a[:1]) for a in (z, w))
    if len(z) != len(w) or len(z) < 4:
        raise DataError(f"z_true and z_hat must have the same rows, at least 4; got {len(z)} and {len(w)}.")
    return z, w


def factor_pair(
    z_true: ArrayLike, z_hat: ArrayLike, discrete: Discrete, rng: np.random.Generator, max_samples: int = sys.maxsize
) -> tuple[Floats, Floats, Bools, Bools]:
    """``pair``, thinned to ``max_samples``; which factors are classes, and which of them vary."""
    z, w = pair(z_true, z_hat)
    classes = discrete_factors(discrete, z)
    z, w = subsample(rng, max_samples, z, w)
    return z, w, classes, varying_factors(z)


def domain_codes(domains: LabelsLike, n_rows: int) -> Ints:
    """A number 0, 1, … for the domain of each row: labels in any form that ``fit`` takes, or a table of them."""
    if _masked(domains):
        raise DomainError("domains has masked entries. Leave their rows out, or label them.")
    frame = labels_frame(domains, n_rows, "z_true")
    labels = [tuple(label_text(value) for value in row) for row in frame.itertuples(index=False, name=None)]
    numbers = {label: code for code, label in enumerate(sorted(set(labels)))}
    if len(numbers) > n_rows / 2:
        raise DomainError(
            f"domains has {len(numbers)} different values in {n_rows} rows, so most domains would be a single row. "
            "Pass labels, not a quantity."
        )
    return np.array([numbers[label] for label in labels], dtype=np.int64)


def labels(name: str, values: LabelsLike, n_rows: int | None = None) -> list[str]:
    """One label per row, as text, so that 1, 1.0 and "1" are one label."""
    return label_texts(values, name, n_rows)


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
    try:
        asked = as_array("discrete", discrete, "column numbers or a mask")
    except DataError:
        asked = np.array([None])
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
    """Refuse what is no whole number, and a count below its least sensible value."""
    whole(least).need(name, value)


def one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    """Refuse a word that is not known."""
    if not isinstance(value, str) or value not in known:
        raise SettingError(f"{name} must be {' or '.join(map(repr, known))}; got {value!r}.")


def generator(random_state: int, n_bootstrap: int) -> np.random.Generator:
    """The generator behind a score; both settings are checked here, before anything is computed."""
    at_least("n_bootstrap", n_bootstrap, 0)
    at_least("random_state", random_state, 0)
    return np.random.default_rng(random_state)


def halves(rng: np.random.Generator, n_rows: int) -> tuple[Ints, Ints]:
    """Rows in random order, cut in two: one half chooses or fits, the other is scored."""
    order = rng.permutation(n_rows)
    return order[: n_rows // 2], order[n_rows // 2 :]


def subsample(rng: np.random.Generator, max_samples: int, *arrays: Floats) -> list[Floats]:
    """The same ``max_samples`` random rows of every array, or all of them."""
    at_least("max_samples", max_samples, 4)
    if len(arrays[0]) <= max_samples:
        return list(arrays)
    rows = rng.choice(len(arrays[0]), max_samples, replace=False)
    return [array[rows] for array in arrays]


def in_range(a: Floats, axis: int | None = 0) -> Floats:
    """Columns (``axis=None``: all of them) at the edge of float64 times a power of two, which is exact.

    No metric knows the unit of a column. Order is kept, and no difference of entries overflows or vanishes.
    """
    largest = np.abs(a).max(axis=axis, initial=0.0)
    power = np.where(largest > 2.0**1000, -40, np.where((largest > 0) & (largest < 2.0**-900), 100, 0))
    return np.ldexp(a, power) if power.any() else a


def standardise(a: Floats) -> Floats:
    """Columns of mean 0 and variance 1, to the digits that they have; one that is constant becomes 0."""
    usable = alive(a)
    largest = np.abs(a).max(axis=0, initial=0.0)
    if ((largest > 1e100) | (largest < 1e-100)).any():
        # Squares would overflow or vanish.
        a = np.ldexp(a, -np.frexp(largest)[1])
    a = centred(a)
    spread = np.sqrt((a**2).mean(axis=0))
    result: Floats = np.where(usable, a / np.where(usable, spread, 1.0), 0.0)
    return result


def centred(a: Floats) -> Floats:
    """Columns less their mean, twice: the mean of large numbers is known to fewer digits than they are."""
    a = a - a.mean(axis=0)
    result: Floats = a - a.mean(axis=0)
    return result


def alive(a: Floats) -> Bools:
    """Columns that vary by more than rounding: two steps from one number to the next, where they are largest."""
    if not len(a):
        return np.zeros(a.shape[1:], dtype=bool)
    low, high = a.min(axis=0), a.max(axis=0)
    result: Bools = high / 2 - low / 2 > np.spacing(np.maximum(-low, high))
    return result


def warn(message: str) -> None:
    """A ``MetricWarning`` at the line that called the metric."""
    errors.warn(message, MetricWarning)


def varying_factors(z: Floats) -> Bools:
    """Factors that are not constant; a warning names the others."""
    varies = alive(z)
    if not varies.all():
        warn(f"Constant factors {np.flatnonzero(~varies).tolist()} are left out: nothing in them can be recovered.")
    return varies
