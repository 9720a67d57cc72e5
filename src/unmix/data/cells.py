"""The numbers of a table, read a few rows or columns at a time: no copy of the whole is made, and none is dense."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from unmix.forms import SparseLike

Floats = NDArray[np.float64]

NUMBERS_AT_ONCE = 2**22


class Cells:
    """A matrix (n_samples, n_features) in the type that it came in; what is read of it is float64, NaN where missing.

    ``values`` is a numpy array of numbers, or a sparse matrix of scipy whose absent entries are 0. ``moved`` replaces
    some of them: for a column the rows and their new numbers.
    """

    def __init__(self, values: Any, moved: Mapping[int, tuple[NDArray[np.int64], Floats]] | None = None) -> None:
        self._values = values.tocsr() if sparse.issparse(values) else values
        self._moved = dict(moved or {})

    @classmethod
    def of(cls, matrix: Cells | ArrayLike | SparseLike) -> Cells:
        """``matrix`` itself where it is ``Cells`` already."""
        return matrix if isinstance(matrix, cls) else cls(matrix)

    @property
    def shape(self) -> tuple[int, int]:
        n_rows, n_columns = self._values.shape
        return int(n_rows), int(n_columns)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """That of the numbers as they came."""
        found: np.dtype[np.generic] = self._values.dtype
        return found

    @property
    def is_sparse(self) -> bool:
        return bool(sparse.issparse(self._values))

    def rows(self, place: slice | NDArray[np.int64]) -> Floats:
        """Rows of all columns; not to be written to."""
        part = _dense(self._values[place])
        if not self._moved:
            return part
        part, kept = part.copy(), np.arange(len(self))[place]
        for k, (rows, numbers) in self._moved.items():
            _, here, there = np.intersect1d(kept, rows, assume_unique=True, return_indices=True)
            part[here, k] = numbers[there]
        return part

    def columns(self, place: slice) -> Floats:
        """Columns of all rows; not to be written to."""
        part = _dense((self._by_column if self.is_sparse else self._values)[:, place])
        kept = range(self.shape[1])[place]
        moved = [k for k in self._moved if k in kept]
        if moved:
            part = part.copy()
            for k in moved:
                rows, numbers = self._moved[k]
                part[rows, kept.index(k)] = numbers
        return part

    def column_blocks(self) -> Iterator[tuple[slice, Floats]]:
        """All columns, so many at a time that they take some 30 MB."""
        width = max(1, NUMBERS_AT_ONCE // max(1, len(self)))
        for begin in range(0, self.shape[1], width):
            place = slice(begin, min(begin + width, self.shape[1]))
            yield place, self.columns(place)

    def each_column(self) -> Iterator[tuple[int, Floats]]:
        """Columns one after the other, each in one piece of memory."""
        for place, part in self.column_blocks():
            yield from enumerate(np.ascontiguousarray(part.T), place.start)

    def row_blocks(self, numbers: int = NUMBERS_AT_ONCE) -> Iterator[tuple[slice, Floats]]:
        """All rows, so many at a time that they are no more than so many ``numbers``."""
        height = max(1, numbers // max(1, self.shape[1]))
        for begin in range(0, len(self), height):
            place = slice(begin, min(begin + height, len(self)))
            yield place, self.rows(place)

    def ordered(
        self, order: NDArray[np.int64] | None, numbers: int = NUMBERS_AT_ONCE
    ) -> Iterator[tuple[slice, slice | NDArray[np.int64], Floats]]:
        """``row_blocks`` of all rows in another order: where they go, where they are, and their numbers."""
        if order is None:
            yield from ((place, place, rows) for place, rows in self.row_blocks(numbers))
            return
        height = max(1, numbers // max(1, self.shape[1]))
        for begin in range(0, len(order), height):
            taken = order[begin : begin + height]
            yield slice(begin, begin + len(taken)), taken, self.rows(taken)

    def all_finite(self) -> bool:
        stored = self._values.data if self.is_sparse else self._values
        with np.errstate(all="ignore"):
            # A finite sum has finite summands: one pass and no array beside the data.
            return bool(np.isfinite(stored.sum()) or np.isfinite(stored).all())

    def where(
        self, holds: Callable[[NDArray[np.generic]], NDArray[np.bool_]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns, row by row, of entries for which ``holds``; absent entries of a sparse matrix are none."""
        if not self.is_sparse:
            rows, columns = np.nonzero(holds(self._values))
            return rows, columns
        found = self._values.tocoo()
        kept = holds(found.data)
        rows, columns = found.coords[0][kept], found.coords[1][kept]
        order = np.lexsort((columns, rows))
        return rows[order].astype(np.int64), columns[order].astype(np.int64)

    def moving(self, moved: Mapping[int, tuple[NDArray[np.int64], Floats]]) -> Cells:
        """The same with some entries replaced."""
        return Cells(self._values, {**self._moved, **moved})

    @cached_property
    def _by_column(self) -> Any:
        return self._values.tocsc()


def _dense(part: Any) -> Floats:
    dense = part.toarray() if sparse.issparse(part) else part
    return np.asarray(dense, dtype=np.float64)
