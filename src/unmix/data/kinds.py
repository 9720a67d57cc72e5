"""The kind of each feature column: continuous, a count, or binary. See ``docs/likelihoods.md``.

Rules of "auto", in this order, on the entries that are not missing:

1. if the table looks like counts (``look_like_counts``: nearly all columns are whole numbers ≥ 0, most of them spread
   as counts do, no end in common), a column of whole numbers ≥ 0 with 0 or 1 among them is ``negative_binomial``;
2. otherwise a column of 0 and 1 alone, with both of them, is ``bernoulli``;
3. everything else is ``gaussian``.

A single column is never taken for counts: ages, ratings and codes are whole numbers too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from unmix.data.cells import Cells, Floats
from unmix.data.columns import listed
from unmix.data.sizes import DISCRETE
from unmix.data.suspects import look_like_counts
from unmix.errors import DataError

_SAMPLE = 4096


def kinds_of(matrix: Floats | Cells, names: Sequence[str], likelihood: str | Mapping[str, str]) -> tuple[str, ...]:
    """The kind of every column of ``matrix``; a mapping leaves columns that it does not name "gaussian".

    Raises
    ------
    DataError
        A column that is there has entries that its kind cannot have, or a mapping names one that is not there.
    """
    if isinstance(likelihood, Mapping):
        unknown = [name for name in likelihood if name not in set(names)]
        if unknown:
            raise DataError(
                f"likelihood names the features {listed(unknown)}, which the table does not have. It has "
                f"{listed(list(names))}."
            )
        found = tuple(likelihood.get(name, "gaussian") for name in names)
    elif likelihood == "auto":
        found = _auto(Cells.of(matrix))
    else:
        found = (likelihood,) * len(names)
    check_kinds(matrix, names, found)
    return found


def check_kinds(matrix: Floats | Cells, names: Sequence[str], kinds: Sequence[str]) -> None:
    """Raise ``DataError`` where a column has entries that its kind cannot have."""
    if set(DISCRETE).isdisjoint(kinds):
        return
    for k, column in Cells.of(matrix).each_column():
        kind = kinds[k]
        if kind in DISCRETE:
            good = np.isnan(column) | ((column >= 0) & (column == np.floor(column)))
            if kind == "bernoulli":
                good &= ~(column > 1)
            if not good.all():
                row = int(np.argmin(good))
                expected = "0 and 1" if kind == "bernoulli" else "whole numbers ≥ 0"
                raise DataError(
                    f"The likelihood {kind!r} takes {expected}; row {row} column {names[k]!r} has {column[row]:g}. "
                    f"Correct the entry, or pass likelihood='gaussian' for this feature."
                )


def announced(kinds: Sequence[str], names: Sequence[str]) -> list[str]:
    """What is printed before training: every kind that is there, with its features."""
    parts = []
    for kind in dict.fromkeys(kinds):
        own = [name for name, other in zip(names, kinds, strict=True) if other == kind]
        parts.append(f"{kind} (all features)" if len(own) == len(names) else f"{kind} ({listed(own)})")
    return [f"likelihood {part}" for part in parts]


def _auto(cells: Cells) -> tuple[str, ...]:
    counts = look_like_counts(cells.rows(slice(None, None, max(1, len(cells) // _SAMPLE))))
    return tuple(_kind(column, counts) for _, column in cells.each_column())


def _kind(column: Floats, counts: bool) -> str:
    present = column[~np.isnan(column)]
    low, high = (present.min(), present.max()) if len(present) else (np.nan, np.nan)
    whole = low >= 0 and bool((present == np.floor(present)).all())
    if whole and low == 0 and high == 1 and not counts:
        return "bernoulli"
    return "negative_binomial" if whole and counts and low <= 1 else "gaussian"
