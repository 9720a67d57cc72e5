"""Features as a matrix of numbers, and what no model can learn from.

A cell is a number, True or False, or missing: None, NaN, NA, a masked entry. Text, dates, durations and complex numbers
are none, in whatever table or array they come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from numbers import Real
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import check_array

from unmix.data.annotated import Annotated
from unmix.data.cells import Cells, Floats
from unmix.data.columns import listed, refuse_duplicates
from unmix.errors import DataError
from unmix.forms import DataLike, familiar
from unmix.numbers import counted, reads_as_number

_SHOWN = 5
_LARGEST = 1e100
_ROUNDING = 8
_EXPECTED = "Pass a matrix (n_samples, n_features), a table, AnnData, or the path of a file."
_DATES = (np.datetime64, np.timedelta64, date, timedelta, pd.Period, type(pd.NaT))


class _NumberError(DataError, TypeError):
    """A cell of a kind that is no number at all; scikit-learn's estimators raise TypeError for it."""


def numeric_matrix(table: DataLike) -> Floats:
    """``read_cells`` as one float64 matrix (n_samples, n_features)."""
    return read_cells(table).rows(slice(None))


def read_cells(table: DataLike) -> Cells:
    """The numbers of a table, in the type that they came in; missing ones are NaN.

    Raises
    ------
    DataError
        A column is not numeric, the table is empty, names repeat, or the array is not two-dimensional.
    """
    return _cells_of(familiar(table))


def _cells_of(table: Any) -> Cells:
    if isinstance(table, Annotated):
        refuse_duplicates(table.names)
        table = table.values
    if sparse.issparse(table) or (isinstance(table, np.ndarray) and table.dtype.kind in "cmM"):
        _refuse_kind(table.dtype)
    if isinstance(table, pd.DataFrame):
        table = _from_pandas(table)
    elif nw.dependencies.is_into_dataframe(table):
        table = _from_frame(table)
    elif isinstance(table, np.ma.MaskedArray):
        objects = table.dtype == object
        table = np.ma.filled(table, np.nan) if objects else np.ma.filled(table.astype(np.float64), np.nan)
    elif isinstance(table, list | tuple):
        table = _from_rows(table)
    elif not (isinstance(table, np.ndarray) or sparse.issparse(table) or hasattr(table, "__array__")):
        raise DataError(f"X is a {type(table).__name__}, which is not a table of numbers. {_EXPECTED}")
    try:
        if isinstance(table, np.ndarray) and table.dtype.kind in "OUST" and table.ndim == 2:
            table = _from_objects(table.astype(object))
        matrix = check_array(
            table,
            accept_sparse="csr",
            dtype="numeric",
            ensure_all_finite=False,
            ensure_min_samples=0,
            ensure_min_features=0,
        )
    except DataError:
        raise
    except (ValueError, RuntimeError, TypeError) as error:
        raise DataError(f"X cannot be read as a table of numbers: {error} {_EXPECTED}") from error
    _refuse_kind(matrix.dtype)
    _refuse_empty(matrix)
    return Cells(matrix)


def check_values(matrix: Floats | Cells, names: Sequence[str], missing: str) -> None:
    """Refuse infinite values always, and NaN unless ``missing`` is "mask"; the message names rows and columns.

    ``missing``: "mask", "error", or "refuse" for models that cannot be fitted with "mask", whose name it leaves out.
    """
    cells = Cells.of(matrix)
    if cells.all_finite():
        return
    _refuse_where(cells.where(np.isinf), names, "infinite value", "inf", "Replace them or drop those rows.")
    if missing != "mask":
        mend = "Fill them, or drop those rows."
        if missing == "error":
            mend = (
                'Fill them, drop those rows, or fit with missing="mask" (command line: --missing mask) to leave them '
                "out of the likelihood."
            )
        _refuse_where(cells.where(np.isnan), names, "missing value", "NaN", mend)


def check_trainable(matrix: Floats | Cells, names: Sequence[str]) -> None:
    """Refuse what cannot be learnt from: one row, constant columns, columns without a value."""
    if len(matrix) < 2:
        raise DataError(
            f"There is 1 sample (n_samples = {len(matrix)}); a model needs many rows to learn from. "
            "Pass the whole table, one row for each observation."
        )
    parts = [
        (np.fmin.reduce(part, axis=0), np.fmax.reduce(part, axis=0)) for _, part in Cells.of(matrix).column_blocks()
    ]
    low, high = (np.concatenate(ends) for ends in zip(*parts, strict=True))
    empty = np.isnan(low)
    if empty.any():
        raise DataError(f"Columns {_named(names, empty)} hold no value at all. Drop them.")
    size, room = np.maximum(np.abs(low), np.abs(high)), high - low
    extreme = (size > _LARGEST) | ((room > 0) & (room < 1 / _LARGEST))
    if extreme.any():
        raise DataError(
            f"Columns {_named(names, extreme)} hold numbers beyond {_LARGEST:g}, or less than {1 / _LARGEST:g} apart, "
            "outside the supported range. Choose another unit."
        )
    if (room == 0).any():
        raise DataError(
            f"Columns {_named(names, room == 0)} are constant: they contain no information about factors and cannot be "
            "standardised. Drop them."
        )
    rounded = room <= _ROUNDING * np.spacing(size)
    if rounded.any():
        first = int(np.flatnonzero(rounded)[0])
        raise DataError(
            f"Columns {_named(names, rounded)} vary by no more than rounding: numbers of the size of {size[first]:g} "
            f"are kept in steps of {np.spacing(size[first]):.2g}. Subtract their common offset, or drop "
            "them."
        )


def _refuse_where(
    bad: tuple[NDArray[np.int64], NDArray[np.int64]], names: Sequence[str], what: str, sign: str, remedy: str
) -> None:
    rows, columns = bad
    if not len(rows):
        return
    places = ", ".join(
        f"row {row} column {names[k]!r}" for row, k in zip(rows[:_SHOWN].tolist(), columns.tolist(), strict=False)
    )
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    raise DataError(
        f"Input X contains {counted(len(rows), what)} ({sign}) in {counted(len(set(columns.tolist())), 'column')}: "
        f"{places}{more}. {remedy}"
    )


def _from_rows(rows: Sequence[object]) -> NDArray[np.generic]:
    """A list of rows as an array; text in it stays beside the numbers, to be named."""
    try:
        found = np.asarray(rows)
        return np.asarray(rows, dtype=object) if found.dtype.kind in "US" else found
    except (ValueError, TypeError, RuntimeError) as error:
        lengths = [len(row) if hasattr(row, "__len__") else 0 for row in rows]
        other = next((k for k, length in enumerate(lengths) if length != lengths[0]), None)
        if other is None:
            raise DataError(f"X cannot be read as a table of numbers: {error}. {_EXPECTED}") from error
        raise DataError(
            f"Rows differ in length: row 0 has {lengths[0]} cells, row {other} has {lengths[other]}. Correct that row."
        ) from error


def _from_pandas(frame: pd.DataFrame) -> object:
    refuse_duplicates([str(name) for name in frame.columns])
    kinds = set(frame.dtypes)
    if all(isinstance(dtype, np.dtype) and dtype.kind in "biuf" for dtype in kinds):
        return frame.to_numpy() if kinds == {np.dtype(np.float32)} else frame.to_numpy(dtype=np.float64)
    if kinds and all(isinstance(dtype, pd.SparseDtype) and dtype.fill_value == 0 for dtype in kinds):
        return frame.sparse.to_coo()  # type: ignore[attr-defined]
    columns: dict[str, Floats] = {}
    refused: dict[str, str] = {}
    for name, own in frame.items():
        column = own.astype(own.dtype.subtype) if isinstance(own.dtype, pd.SparseDtype) else own
        kind = getattr(column.dtype, "kind", "")
        if pd.api.types.is_numeric_dtype(column.dtype) and kind != "c":
            columns[str(name)] = column.to_numpy(dtype=np.float64, na_value=np.nan)
        elif kind in "cmM" or isinstance(column.dtype, pd.CategoricalDtype):
            refused[str(name)] = str(column.dtype)
        else:
            _take(str(name), column.to_numpy(dtype=object), columns, refused)
    return _stacked(columns, refused, len(frame))


def _from_frame(table: IntoDataFrame) -> Floats:
    try:
        frame = nw.from_native(table, eager_only=True)
    except nw.exceptions.DuplicateError:
        refuse_duplicates([str(name) for name in getattr(table, "column_names", table.columns)])
        raise
    except TypeError as error:
        raise DataError(f"A {type(table).__name__} holds no rows yet. Collect it first. ({error})") from error
    refuse_duplicates([str(name) for name in frame.columns])
    columns: dict[str, Floats] = {}
    refused: dict[str, str] = {}
    for name in frame.columns:
        series = frame[name]
        if series.dtype.is_numeric() or series.dtype == nw.Boolean:
            columns[name] = np.asarray(series.cast(nw.Float64).to_numpy(), dtype=np.float64)
        else:
            cells = np.empty(len(series), dtype=object)
            cells[:] = series.to_list()
            _take(name, cells, columns, refused)
    return _stacked(columns, refused, len(frame))


def _from_objects(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """An array of objects as numbers; of what is none, scikit-learn gets all that it would not take for a number."""
    numbers, other = _numbers(array.ravel())
    if not other.any():
        return numbers.reshape(array.shape)
    place = _first(array.ravel(), other)
    row, column = divmod(place, array.shape[1])
    cell = array[row, column]
    known = isinstance(cell, (str, bytes, complex, np.complexfloating, *_DATES))
    why = "" if known else " (float() argument must be a string or a real number)"
    said = f"Input X holds {_what(cell)} in row {row}, column {column}{why}. Make it a number, or drop the column."
    raise DataError(said) if known else _NumberError(said)


def _take(name: str, cells: NDArray[np.generic], columns: dict[str, Floats], refused: dict[str, str]) -> None:
    numbers, other = _numbers(cells)
    columns[name] = numbers
    if other.any():
        row = _first(cells, other)
        refused[name] = f"{_what(cells[row])} in row {row}"


def _stacked(columns: Mapping[str, Floats], refused: Mapping[str, str], n_rows: int) -> Floats:
    if refused:
        first = next(iter(refused))
        raise DataError(
            f"Columns {listed([*refused])} are not numeric: {first!r} holds {refused[first]}. Convert them to "
            "numbers or drop them, unless one is the domain: pass that one as such."
        )
    return np.column_stack([*columns.values()]) if columns else np.empty((n_rows, 0))


def _numbers(cells: NDArray[np.generic]) -> tuple[Floats, NDArray[np.bool_]]:
    """Objects as numbers, NaN where one is missing, and where there are others."""
    missing = np.array([cell is None or cell is pd.NA for cell in cells], dtype=bool)
    # numpy counts its timedelta64 among the whole numbers.
    number = [isinstance(cell, Real | np.bool | Decimal) and not isinstance(cell, np.timedelta64) for cell in cells]
    known = np.array(number, dtype=bool)
    found = np.full(len(cells), np.nan)
    found[known] = [float(cell) for cell in cells[known]]
    return found, ~missing & ~known


def _first(cells: NDArray[np.generic], other: NDArray[np.bool_]) -> int:
    """The first place in ``other``, rather one that does not even read as a number."""
    places = np.flatnonzero(other).tolist()
    return next((k for k in places if not (isinstance(cells[k], str) and reads_as_number(cells[k]))), places[0])


def _what(cell: object) -> str:
    kind = "text" if isinstance(cell, str) else "a date or time" if isinstance(cell, _DATES) else type(cell).__name__
    return f"{kind} ({str(cell)[:40]!r})"


def _refuse_kind(dtype: np.dtype[np.generic]) -> None:
    if dtype.kind not in "biuf":
        what = "Complex data not supported" if dtype.kind == "c" else "Dates, durations and objects are not numbers"
        raise DataError(f"{what}: Input X is an array of {dtype}. Convert it to numbers first.")


def _refuse_empty(matrix: NDArray[np.generic]) -> None:
    for axis, what in ((0, "sample(s)"), (1, "feature(s)")):
        if matrix.shape[axis] == 0:
            raise DataError(
                f"The table is empty: 0 {what} (shape={matrix.shape}) while a minimum of 1 is required. "
                "Check the file, the filter or the selected columns."
            )


def _named(names: Sequence[str], chosen: NDArray[np.bool_]) -> str:
    return listed([names[k] for k in np.flatnonzero(chosen).tolist()])
