"""Labels of rows in any form as typed columns, and the text of a label.

A label is text, a number, True or False, or a date or time. Two labels are one where they read the same: a number by
its shortest form, so that 1, 1.0 and "1" are one label, text as it is, so that "1.0" and "01" are two others; a day as
2020-01-31. Rows count by their position, whatever index they carry. A missing label, or an empty text, is never a
label of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeAlias
from uuid import UUID

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmix.errors import DomainError
from unmix.forms import LabelsLike, familiar

UNNAMED = "domain"
"""Name of a column of labels that came without one."""

Plain: TypeAlias = bool | int | float | str | None
"""A label as Python has it; None where it is missing."""

_SHOWN = 5
# What numpy writes for a missing label when it makes an array of text.
_TEXT_OF_MISSING = ("nan", "NaT")
_INT64 = range(-(2**63), 2**63)


def labels_frame(y: LabelsLike, n_rows: int, rows_of: str = "X") -> pd.DataFrame:
    """Any form of y as a frame with text column names and ``n_rows`` rows, as many as ``rows_of`` has.

    A column is int64 or float64 where all its labels are numbers, bool where all are True or False, else text.

    Raises
    ------
    DomainError
        Another number of rows, missing labels, what is no label, names that repeat, or nothing that labels rows.
    """
    columns = [] if y is None else _columns(y)
    if y is not None and not columns:
        raise DomainError(f"{rows_of} has {n_rows} rows, the domains have 0 columns. Pass one domain for each row.")
    repeated = [name for name, count in Counter(name for name, _ in columns).items() if count > 1]
    if repeated:
        raise DomainError(f"Domain columns must have different names, and these have not: {repeated}. Rename them.")
    for _, cells in columns:
        if len(cells) != n_rows:
            raise DomainError(
                f"{rows_of} has {n_rows} rows, the domains have {len(cells)} (inconsistent numbers of samples). "
                "Pass one domain for each row."
            )
    typed = {name: _typed(cells, f"Domain column {name!r}") for name, cells in columns}
    return pd.DataFrame(typed, index=pd.RangeIndex(n_rows))


def label_column(
    values: LabelsLike, what: str, n_rows: int | None = None, *, of: str = "rows", mixed: bool = True
) -> NDArray[np.generic]:
    """One label for each of ``n_rows``, as a column of ``labels_frame``; ``what`` and ``of`` name both in errors.

    Raises
    ------
    DomainError
        As of ``labels_frame``; also several columns, no row, and text beside numbers where ``mixed`` is False.
    """
    columns = [] if values is None else _columns(values)
    shape = (len(columns[0][1]), *([len(columns)] if len(columns) > 1 else [])) if columns else ()
    if len(shape) != 1 or not shape[0] or n_rows not in (None, shape[0]):
        expected = "one label per row" if n_rows is None else f"one label for each of {n_rows} {of}"
        raise DomainError(f"{what} must hold {expected}; got {f'shape {shape}' if shape else 'none'}.")
    return _typed(columns[0][1], what, mixed=mixed)


def label_texts(values: LabelsLike, what: str, n_rows: int | None = None, *, of: str = "rows") -> list[str]:
    """Texts of a ``label_column``."""
    return [label_text(label) for label in label_column(values, what, n_rows, of=of).tolist()]


def label_text(value: object) -> str:
    """Text of a label; 1, 1.0 and numpy's 1 are one label."""
    plain = value if isinstance(value, str) else _plain(value)
    if isinstance(plain, float) and plain.is_integer():
        plain = int(plain)
    return str(plain)


def name_text(name: object) -> str:
    """Text of a column's name; those of several levels are put together by " / "."""
    return " / ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def natural_order(labels: Iterable[str]) -> tuple[str, ...]:
    """The different labels, numbers by value, words by alphabet."""
    levels = set(labels)
    numeric = all(re.fullmatch("-?[0-9]+", level) for level in levels)
    return tuple(sorted(levels, key=(lambda level: (int(level), level)) if numeric else (lambda level: (0, level))))


def _columns(y: LabelsLike) -> list[tuple[str, Any]]:
    """Names and cells of the columns of ``y``; cells by position."""
    y = familiar(y)
    if isinstance(y, pd.MultiIndex):
        y = y.to_frame(index=False)
    if not isinstance(y, Mapping) and not nw.dependencies.is_into_dataframe(y):
        to_dict = getattr(y, "to_pydict", None)
        y = to_dict() if to_dict else y
    if isinstance(y, Mapping):
        return [(name_text(name), _single(values, name)) for name, values in y.items()]
    if isinstance(y, pd.DataFrame):
        made_up = y.columns.equals(pd.RangeIndex(y.shape[1]))
        names = _made_up(y.shape[1]) if made_up else [name_text(name) for name in y.columns]
        return [(name, _pandas_cells(y.iloc[:, k])) for k, name in enumerate(names)]
    if nw.dependencies.is_into_dataframe(y):
        try:
            frame = nw.from_native(y, eager_only=True)
        except (nw.exceptions.DuplicateError, TypeError) as error:
            raise DomainError(f"The domains cannot be read as a table: {error}. Pass one label per row.") from error
        return [(str(name), frame[name].to_list()) for name in frame.columns]
    if nw.dependencies.is_into_series(y) or isinstance(y, pd.Index):
        y = pd.Series(y) if isinstance(y, pd.Index) else y
        name = nw.from_native(y, series_only=True).name
        cells = _pandas_cells(y) if isinstance(y, pd.Series) else nw.from_native(y, series_only=True).to_list()
        return [(name_text(name) if name else UNNAMED, cells)]
    read: Any = _cells(y)
    if isinstance(read, np.ndarray) and read.dtype.names:
        return [(name, read[name]) for name in read.dtype.names]
    if isinstance(read, np.ndarray) and read.ndim == 2:
        return [(name, read[:, k]) for k, name in enumerate(_made_up(read.shape[1]))]
    return [(UNNAMED, read)]


def _pandas_cells(series: pd.Series) -> NDArray[np.generic] | pd.api.extensions.ExtensionArray:
    return series.to_numpy() if isinstance(series.dtype, np.dtype) else series.array


def _made_up(n_columns: int) -> list[str]:
    return [UNNAMED] if n_columns == 1 else [f"u{k}" for k in range(n_columns)]


def _single(values: Any, name: object) -> object:
    columns = _columns(values)
    if len(columns) != 1:
        raise DomainError(f"Domain column {name_text(name)!r} holds {len(columns)} columns. Pass one label per row.")
    return columns[0][1]


def _cells(y: LabelsLike) -> Any:
    """Labels that are no table: a list, a numpy array of one or two dimensions, or a pandas array."""
    if isinstance(y, pd.api.extensions.ExtensionArray):
        return y
    to_list = getattr(y, "to_pylist", None)
    if to_list is not None:
        return to_list()
    if isinstance(y, Sequence) and not isinstance(y, str | bytes):
        cells = list(y)
        rows = (isinstance(cell, list | tuple) or getattr(cell, "ndim", 0) == 1 for cell in cells)
        inside = {len(cell) if row else 0 for cell, row in zip(cells, rows, strict=True)}
        if len(inside) > 1:
            raise DomainError(
                "The domains are neither labels nor a table: rows differ in length. Pass one label per row."
            )
        if inside in (set(), {0}):
            return cells
        # In an array of its own choice numpy makes text of numbers, and of NaN, beside text.
        return np.array([[*cell] for cell in cells], dtype=object)
    if isinstance(y, np.ma.MaskedArray):
        y = np.ma.filled(y.astype(object), np.nan) if np.ma.is_masked(y) else y.data
    try:
        array = np.asarray(y)
    except Exception as error:
        raise DomainError(f"The domains are neither labels nor a table: {error}. Pass one label per row.") from error
    if array.ndim not in (1, 2):
        came = f"an array of shape {array.shape}" if array.ndim else f"{type(y).__name__} {str(y)[:40]!r}"
        raise DomainError(f"Expected one domain per row, as a list, an array or a table; got {came}.")
    return array


def _typed(cells: Any, what: str, *, mixed: bool = True) -> NDArray[np.generic]:
    """One column of labels in the type of its values; see ``labels_frame`` and ``label_column``."""
    kind = cells.dtype.kind if isinstance(cells, np.ndarray) else ""
    if kind in ("b", "i", "u") or (cells.dtype == np.float64 if kind == "f" else False):
        missing = np.isnan(cells) if kind == "f" else np.zeros(len(cells), dtype=bool)
        plain: Any = np.asarray(cells)
        bad = np.isinf(cells) if kind == "f" else missing
        refused = {int(row): "an infinite number" for row in np.flatnonzero(bad)[:1]}
    else:
        plain, refused = _plain_cells(list(cells))
        if kind in ("U", "S"):
            plain = [None if cell in _TEXT_OF_MISSING else cell for cell in plain]
        missing = np.array([cell is None for cell in plain], dtype=bool)
    if missing.any():
        rows = np.flatnonzero(missing)[:_SHOWN].tolist()
        raise DomainError(f"{what} has missing values (NaN), first in rows {rows}. Label those rows or drop them.")
    if refused:
        row, found = next(iter(refused.items()))
        raise DomainError(
            f"{what} holds {found} in row {row}. A label is text, a finite number, True or False, or a date: "
            "make it one of these."
        )
    if isinstance(plain, np.ndarray):
        return plain
    kinds = set(map(type, plain))
    if kinds == {bool}:
        return np.array(plain, dtype=bool)
    if kinds == {int} and all(value in _INT64 for value in plain):
        return np.array(plain, dtype=np.int64)
    if float in kinds and kinds <= {int, float}:
        return np.array(plain, dtype=np.float64)
    if not mixed and kinds - {str}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise DomainError(f"{what} must be all text or all numbers; got {names}. Make all text.")
    return np.array([label_text(value) for value in plain], dtype=object)


def _plain_cells(cells: Iterable[object]) -> tuple[list[Plain], dict[int, str]]:
    """``_plain`` of every cell, each different one read once; and the first cell that is no label."""
    known: dict[tuple[type, object], Plain] = {}
    plain: list[Plain] = []
    for row, cell in enumerate(cells):
        try:
            key = (type(cell), cell)
            if key not in known:
                known[key] = _plain(cell)
            plain.append(known[key])
        except TypeError:
            try:
                plain.append(_plain(cell))
            except TypeError as error:
                return [*plain, False], {row: str(error)}
    return plain, {}


def _plain(cell: Any) -> Plain:
    """A label as Python's own bool, int, float or str; None where it is missing. TypeError: what it is instead."""
    if isinstance(cell, bytes):
        try:
            cell = cell.decode()
        except UnicodeDecodeError:
            raise TypeError(f"bytes that are not UTF-8 ({cell[:20]!r})") from None
    if isinstance(cell, str):
        return str(cell) if cell.strip() else None
    if cell is None or cell is pd.NA or cell is pd.NaT or cell is np.ma.masked:
        return None
    if isinstance(cell, bool | np.bool):
        return bool(cell)
    if isinstance(cell, np.datetime64 | np.timedelta64 | date | time | timedelta | pd.Period | pd.Interval | UUID):
        return _time_text(cell)
    if isinstance(cell, int | np.integer):
        return int(cell)
    if isinstance(cell, float | np.floating | Decimal | Fraction):
        return _plain_number(cell)
    if np.ndim(cell) == 0 and hasattr(cell, "item"):
        inner = cell.item()
        if type(inner) is not type(cell):
            return _plain(inner)
    raise TypeError(f"a {type(cell).__name__} ({str(cell)[:40]})")


def _plain_number(cell: Any) -> int | float | None:
    if cell.is_nan() if isinstance(cell, Decimal) else cell != cell:
        return None
    # 0.1 in single precision is the label 0.1 too.
    number = float(str(cell)) if isinstance(cell, np.floating) else float(cell)
    if not np.isfinite(number):
        raise TypeError("an infinite number")
    exact = isinstance(cell, Decimal | Fraction) and cell == int(cell)
    return int(cell) if exact else number


def _time_text(cell: object) -> str | None:
    if isinstance(cell, np.datetime64 | np.timedelta64):
        if np.isnat(cell):
            return None
        cell = pd.Timestamp(cell) if isinstance(cell, np.datetime64) else pd.Timedelta(cell)
    if isinstance(cell, timedelta):
        cell = pd.Timedelta(cell)
    if isinstance(cell, datetime):
        midnight = cell.tzinfo is None and cell == datetime(cell.year, cell.month, cell.day)
        return cell.date().isoformat() if midnight else cell.isoformat(sep=" ")
    return cell.isoformat() if isinstance(cell, date | time) else str(cell)
