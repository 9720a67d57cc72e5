r"""Suspicious input: codes for missing values, extreme entries, columns that count rows or repeat others, counts.

All of it is reported in a ``DataWarning``. In the fit an extreme entry is replaced by the nearest other value of its
column; nothing else is changed. Of column k let m be its median over entries that are no
code, and :math:`d_{(1)} \ge d_{(2)} \ge \dots` the different distances from it. The j furthest are extreme where

.. math:: d_{(j)} / d_{(j+1)} > \max(10, e^{15 \hat\gamma}), \qquad
          \hat\gamma = \frac{1}{K} \sum_{i=j+1}^{j+K} \log \frac{d_{(i)}}{d_{(j+K)}},

that is, where the gap is far too wide for the tail below it: :math:`\hat\gamma` estimates the index of that tail (Hill
1975), which is heavy for a t distribution with few degrees of freedom or a log-normal one and light for a normal one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmix.data.cells import Cells, Floats
from unmix.data.columns import SAVED_INDEX, listed
from unmix.data.schema import STRANGE, FeatureSchema
from unmix.errors import warn

_SHOWN = 5
_HEAD = 64
# Numbers that stand for a missing value: repeated 7, 8 or 9, with up to two decimals, and the ends of number types.
_REPEATED = [int(str(digit) * length) for digit in (7, 8, 9) for length in range(2, 11)]
_ENDS = (
    *(999.25, 1e10, 1e20, 1e30, 1e35, 1e36, 1e37, 9.969209968386869e36, float(np.finfo(np.float32).max)),
    *(2.0**bits - 1 for bits in (15, 16, 31, 32, 63)),
    *(2.0**bits for bits in (15, 31, 63)),
)
_CODES = frozenset(
    sign * value
    for value in (*_ENDS, *(value / part for value in _REPEATED for part in (1, 10, 100) if value / part > 70))
    for sign in (-1, 1)
)
CODE_FROM = 10.0
_LEAST_ROWS = 20
_SAMPLE, _SAMPLED_NUMBERS = 4096, 2**22
_TAIL = 50
_GAP, _GAP_IN_TAILS = 10.0, 15.0
_MOST_WILD = 3
_OFTEN = 3
_MOST_COMPARED, _SAME, _SAME_WITHIN = 1_000, 1.0 - 1e-9, 1e-6


@dataclass(frozen=True)
class _Wild:
    """One value in one column that lies far from all others."""

    column: int
    value: float
    rows: NDArray[np.int64]


def without_suspects(cells: Cells, features: FeatureSchema) -> Cells:
    """``cells`` with extreme entries moved to the nearest other value of their column; the same object without any.

    One ``DataWarning`` for every kind of thing that is there; ``cells`` are what ``features`` was learnt from. Columns
    whose likelihood is not Gaussian are as they should be.
    """
    names = features.names
    ids, wild = [], []
    for k, column in cells.each_column():
        if features.kind(k) != "gaussian":
            continue
        if SAVED_INDEX.fullmatch(names[k]) or _counts_rows(column):
            ids.append(k)
        else:
            wild += [_Wild(k, value, np.flatnonzero(column == value)) for value in _wild_values(column, k, features)]
    if ids:
        warn(
            f"Columns {listed([names[k] for k in ids])} look like ids, times or a saved index: whole numbers, each "
            "once. If they are, leave them out; they are not features."
        )
    thin = max(len(cells) // _SAMPLE, min(len(cells) * cells.shape[1] // _SAMPLED_NUMBERS, len(cells) // _LEAST_ROWS))
    sample = cells.rows(slice(None, None, max(1, thin)))
    declared = [k for k in range(len(names)) if features.kind(k) != "gaussian"]
    if look_like_counts(np.delete(sample, [*ids, *declared], axis=1)):
        warn(
            f"The features look like counts: whole numbers ≥ 0, up to {np.nanmax(sample):g}. The model takes noise as "
            'Gaussian, of one size for all values of a feature. If they are counts, pass CGVAE(likelihood="negative_'
            'binomial"); for other models divide each row by its total and take logarithms first, such as '
            "np.log1p(1e4 * X / X.sum(axis=1, keepdims=True))."
        )
    same = _copies(sample, [k for k in range(len(names)) if features.kind(k) == "gaussian"])
    if same:
        shown = "; ".join(listed([names[k] for k in pair]) for pair in same[:_SHOWN])
        more = f"; and {len(same) - _SHOWN} more pairs" if len(same) > _SHOWN else ""
        warn(
            f"Columns that are the same but for unit and offset: {shown}{more}. Together they look "
            "like a factor of their own, without noise. Leave one of each pair out."
        )
    if wild:
        shown = "; ".join(
            f"row {found.rows[0]} column {names[found.column]!r}: {found.value:.10g}"
            + (f" (in {len(found.rows)} rows)" if len(found.rows) > 1 else "")
            for found in wild[:_SHOWN]
        )
        more = f"; and {len(wild) - _SHOWN} more" if len(wild) > _SHOWN else ""
        warn(
            f"Values far from all others in their column: {shown}{more}. If they are codes for missing values or "
            'errors, make them NaN (and fit with missing="mask"), correct them, or drop the rows. In this fit each '
            "counts as the nearest of the other values in its column."
        )
    return _bounded(cells, wild) if wild else cells


def note_codes(cells: Cells, features: FeatureSchema) -> None:
    """One ``DataWarning`` where new rows hold codes for missing values, ten standard deviations from the fit or more.

    Nearer to it a code is a number like others; far beyond (``FeatureSchema.standardise``) any number is reported.
    """
    center, scale, found = np.array(features.center), np.array(features.scale), 0
    first = ""
    for place, rows in cells.row_blocks():
        with np.errstate(over="ignore", invalid="ignore"):
            distance = np.abs(rows - center) / scale
        far = (distance > CODE_FROM) & (distance <= STRANGE) & features.continuous
        if not far.any():
            continue
        at = np.argwhere(far)[np.isin(rows[far], [*_CODES])]
        if len(at) and not found:
            row, column = at[0]
            first = f"row {place.start + row} column {features.names[column]!r}: {rows[row, column]:.10g}"
        found += len(at)
    if found:
        more = f", and {found - 1} more" if found > 1 else ""
        warn(
            f"Numbers that often stand for missing values, far from all values of the fit: {first}{more}. If they do, "
            'make them NaN (in a fit with missing="mask") or drop the rows.'
        )


def note_empty(cells: Cells) -> None:
    """One ``DataWarning`` where rows have no value at all."""
    empty = [place.start + row for place, rows in cells.row_blocks() for row in np.flatnonzero(np.isnan(rows).all(1))]
    if empty:
        shown = ", ".join(map(str, empty[:_SHOWN])) + (f" and {len(empty) - _SHOWN} more" if empty[_SHOWN:] else "")
        warn(f"Rows without any value: {shown}. The latents there are what the model expects, not a measurement.")


def _copies(sample: Floats, columns: list[int]) -> list[tuple[int, int]]:
    """Pairs of ``columns`` that are linear functions of each other, in most rows with other values than the median."""
    if len(columns) > _MOST_COMPARED or len(sample) < _LEAST_ROWS:
        return []
    values = sample[:, columns]
    centred = values - values.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = centred / np.sqrt((centred**2).sum(axis=0))
        found = np.argwhere(np.triu(np.abs(unit.T @ unit) > _SAME, 1))
    pairs = []
    for one, other in found:
        x, y = centred[:, one], centred[:, other]
        usual = np.median(np.abs(y - np.median(y)))
        # One row far out makes any two columns correlate.
        if np.abs(y - x * (x @ y) / (x @ x)).max() < _SAME_WITHIN * usual:
            pairs.append((columns[one], columns[other]))
    return pairs


def _bounded(cells: Cells, wild: list[_Wild]) -> Cells:
    moved = {}
    for k in {found.column for found in wild}:
        rows = np.concatenate([found.rows for found in wild if found.column == k])
        column = cells.columns(slice(k, k + 1))[:, 0]
        others = np.delete(column, rows)
        moved[k] = rows, np.clip(column[rows], np.nanmin(others), np.nanmax(others))
    return cells.moving(moved)


def _counts_rows(column: Floats) -> bool:
    """Whether whole numbers are all different though chance would repeat some: consecutive ones, or a draw of such."""
    n_rows = len(column)
    head = column[:_HEAD]
    if n_rows < 10 or (head != np.floor(head)).any() or len(np.unique(head)) < len(head):
        return False
    values = np.sort(column)
    steps = np.diff(values)
    if not (steps > 0).all() or (values != np.floor(values)).any():
        return False
    room = values[-1] - values[0]
    return bool(room == n_rows - 1 or n_rows * (n_rows - 1.0) > 20 * room)


def look_like_counts(matrix: Floats) -> bool:
    """Whether nearly all columns are whole numbers ≥ 0, most spread as counts do, and none have an end in common."""
    if matrix.shape[1] < 3 or len(matrix) < _LEAST_ROWS or _is_whole(matrix[:_HEAD]).mean() < 0.9:
        return False
    whole = _is_whole(matrix)
    high = np.nanmax(matrix, axis=0)
    counts = matrix[:, whole & (high > 1)]
    if whole.mean() < 0.9 or counts.shape[1] < max(3, 0.2 * matrix.shape[1]):
        return False
    low, high, mean = np.nanmin(counts, axis=0), np.nanmax(counts, axis=0), np.nanmean(counts, axis=0)
    if (high == high.max()).mean() > 0.3:
        return False
    variance = np.nanvar(counts, axis=0)
    skewed = np.nanmean((counts - mean) ** 3, axis=0) > 0.5 * variance**1.5
    spread = variance / mean
    rising = (spread > 0.8) & skewed & (low <= 0.1 * high)
    poisson = (spread > 0.8) & (spread < 1.25)
    alike = rising | poisson
    return bool(alike.mean() > 0.6 and (alike & (high >= 8)).sum() >= max(3, 0.1 * len(high)))


def _is_whole(matrix: Floats) -> NDArray[np.bool_]:
    """Columns of whole numbers ≥ 0, missing ones aside."""
    whole: NDArray[np.bool_] = (np.isnan(matrix) | ((matrix >= 0) & (matrix == np.floor(matrix)))).all(axis=0)
    return whole


def _wild_values(column: Floats, place: int, features: FeatureSchema) -> list[float]:
    present = column[~np.isnan(column)]
    if len(present) < _LEAST_ROWS:
        return []
    low, high = float(present.min()), float(present.max())
    codes = _codes(present) if _CODES.intersection((low, high)) else []
    furthest = max(high - features.center[place], features.center[place] - low) / features.scale[place]
    if furthest < min(5.0, 0.8 * np.sqrt(len(present))):
        return codes
    return codes + _beyond_the_tail(present[~np.isin(present, codes)] if codes else present)


def _codes(column: Floats) -> list[float]:
    """Codes for missing values at the ends of a column, further from its other values than these from their middle."""
    others = column
    found: list[float] = []
    while len(others) and (taken := [*_CODES.intersection((float(others.min()), float(others.max())))]):
        found += taken
        others = others[~np.isin(others, taken)]
    if len(np.unique(others)) < 3:
        return []
    low, middle, high = others.min(), np.median(others), others.max()

    def is_far(code: float) -> bool:
        gap, spread = (low - code, middle - low) if code < low else (code - high, high - middle)
        often = (column == code).sum() >= _OFTEN
        return bool(gap > (2 if often else 10) * spread and (often or abs(code) > 100))

    return [code for code in found if is_far(code)]


def _beyond_the_tail(column: Floats) -> list[float]:
    """See the module; a value that is far and occurs in more than a hundredth of the rows is a group of its own."""
    middle, ends = len(column) // 2, _MOST_WILD + 1
    ordered = np.partition(column, [ends - 1, middle, len(column) - ends])
    furthest = np.unique(np.abs(np.concatenate([ordered[:ends], ordered[-ends:]]) - ordered[middle]))[::-1]
    if len(furthest) > _MOST_WILD and (furthest[:_MOST_WILD] < _GAP * furthest[1 : _MOST_WILD + 1]).all():
        return []
    distance = np.abs(column - ordered[middle])
    n_kept = min(len(distance), 8 * _TAIL + len(column) // 50)
    nearest = np.partition(distance, len(distance) - n_kept)[len(distance) - n_kept :]
    steps = np.unique(nearest)[::-1]
    steps = steps[steps > 0]
    for j in range(1, min(_MOST_WILD, len(steps) - 11) + 1):
        tail = steps[j : j + _TAIL]
        index = np.log(tail / tail[-1]).mean()
        if steps[j - 1] / tail[0] > max(_GAP, np.exp(_GAP_IN_TAILS * index)):
            far = column[distance >= steps[j - 1]]
            return [float(value) for value in np.unique(far) if (far == value).sum() <= max(3, len(column) / 100)]
    return []
