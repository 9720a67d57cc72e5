"""Files of .csv and .tsv, either with .gz behind it: every cell is text until a column is known to hold numbers."""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from unmix.data.columns import ROW, SAVED_INDEX, no_header, refuse_duplicates, row_names
from unmix.errors import DataError
from unmix.numbers import reads_as_number

SEPARATORS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
# A line must fit in one block.
_BLOCK = 2**26
# Of UTF-32 and then of UTF-16, each with the last byte first and the other way round.
_MARKS = (b"\xff\xfe\0\0", b"\0\0\xfe\xff", b"\xff\xfe", b"\xfe\xff")
_BEGINNING = 2**12
# pandas' words for a missing number.
_MISSING = pa.array(
    [
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"),
        *("NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    ]
)


def read_delimited(
    path: Path, features: Collection[str] | None, text: set[str], others: set[str]
) -> tuple[pd.DataFrame, list[str], str]:
    """All columns of a file, those that may be features, and what was left out of these and why.

    See ``tables.read_table``.
    """
    separator = next(mark for ending, mark in SEPARATORS.items() if path.name.lower().endswith(ending))
    header = _header(path, separator)
    cells = _cells(path, separator, header)
    if cells.num_rows == 0:
        raise DataError(f"{path} has a header but no rows. unmix needs rows to learn from.")
    names, saved, empty = _names(path, header, cells, features or ())
    may_be = [name for k, name in enumerate(names) if k not in saved and k not in empty]
    numbers = (set(may_be) - others if features is None else set(features)) - text
    columns: dict[str, object] = {}
    for k, name in enumerate(names):
        if k not in empty:
            found = _numbers(cells.column(k)) if name in numbers else None
            columns[name] = _as_written(cells.column(k), typed=name not in text) if found is None else found
    frame = pd.DataFrame(columns)
    said = []
    if saved:
        what = f"Column {header[saved[0]]!r} of {path.name} is a saved index" if header[saved[0]].strip() else ""
        what = what or f"The first column of {path.name} has no name"
        said.append(f"{what}: it is used as row names.")
    if empty:
        said.append(f"{path.name} has columns without a name and without a value ({len(empty)}); they are left out.")
    return frame, may_be, " ".join(said)


def _names(
    path: Path, header: list[str], cells: pa.Table, features: Collection[str]
) -> tuple[list[str], list[int], list[int]]:
    """Names of all columns; places of those that hold names of the rows, and of those that hold nothing at all."""
    names = list(header)
    nameless = [k for k, name in enumerate(names) if not name.strip()]
    empty = [k for k in nameless if pc.all(pc.equal(pc.utf8_trim_whitespace(cells.column(k)), "")).as_py()]
    leading = next((k for k in range(len(names)) if k not in nameless or k in empty), len(names))
    saved = [k for k, name in enumerate(names) if SAVED_INDEX.fullmatch(name) and name not in features]
    saved = [*range(leading), *saved]
    saved = saved if len(names) > len(saved) + len(empty) else []
    lost = [k for k in nameless if k not in empty and k not in saved]
    if lost:
        raise DataError(f"Column {lost[0] + 1} of {path}, counted from 1, has no name. Name it, or remove the column.")
    if leading and saved:
        names[:leading] = row_names(leading, names)
    elif 0 in saved and ROW not in names:
        names[0] = ROW
    refuse_duplicates([name for k, name in enumerate(names) if k not in empty])
    return names, saved, empty


def _header(path: Path, separator: str) -> list[str]:
    start = _start(path)
    if b"\0" in start or start.startswith(_MARKS):
        raise _not_utf8(path)
    header = next((row for row in _lines(path, separator) if row), None)
    if header is None:
        raise DataError(f"{path} is empty. Expected a header and rows.")
    marks = [mark for mark in (",", ";", "\t", "|") if mark != separator]
    other = next((mark for mark in marks if len(header) == 1 and mark in header[0]), None)
    if other is not None:
        raise DataError(
            f"{path} has one column, {header[0]!r}: it looks separated by {other!r}, which {path.name} should not be. "
            "Save it with commas (decimals with points), or with tabs as .tsv."
        )
    refuse_duplicates([name for name in header if name.strip()])
    if len(header) > 1 and all(map(reads_as_number, header)):
        values = np.array([float(name) for name in header])
        counted = values[0].is_integer() and np.array_equal(np.sort(values), values.min() + np.arange(len(values)))
        steps = np.diff(values)
        if not counted and (len(values) < 4 or not (np.all(steps > 0) or np.all(steps < 0))):
            raise no_header(header)
    return header


def _lines(path: Path, separator: str) -> Iterator[list[str]]:
    """Cells of one line after the other, an empty list for an empty line."""
    opened: Callable[..., Any] = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as stream:
            yield from csv.reader(stream, delimiter=separator)
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error


def _start(path: Path) -> bytes:
    packed = path.name.lower().endswith(".gz")
    with gzip.open(path, "rb") if packed else path.open("rb") as stream:
        return bytes(stream.read(_BEGINNING))


def _not_utf8(path: Path) -> DataError:
    """The error for a file that is not UTF-8: which encoding it may be, by its mark, its zeros or its bytes."""
    start = _start(path)
    wide = start.startswith(_MARKS[:2]) or b"\0\0" in start
    what, name = "Latin-1 or Windows-1252", "cp1252"
    if b"\0" in start or start.startswith(_MARKS):
        what, name = ("UTF-32", "utf-32") if wide else ("UTF-16", "utf-16")
    return DataError(
        f"{path} is not UTF-8; it may be {what}. Save it as UTF-8, or pass the table that "
        f'pandas.read_csv(..., encoding="{name}") reads.'
    )


def _cells(path: Path, separator: str, header: list[str]) -> pa.Table:
    """Every cell below the header, as text."""
    places = [str(k) for k in range(len(header))]
    packed = "gzip" if path.name.lower().endswith(".gz") else None
    try:
        with pa.input_stream(str(path), compression=packed) as stream:
            cells = arrow_csv.read_csv(
                stream,
                read_options=arrow_csv.ReadOptions(column_names=places, block_size=_BLOCK),
                parse_options=arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(places, pa.string()), strings_can_be_null=False
                ),
            )
    except pa.ArrowInvalid as error:
        _refuse_ragged(path, separator, header)
        if "UTF8" in str(error):
            raise _not_utf8(path) from error
        raise
    return cells.slice(1)


def _refuse_ragged(path: Path, separator: str, header: list[str]) -> None:
    lines = ((number, row) for number, row in enumerate(_lines(path, separator), 1) if row)
    next(lines)
    lengths: Counter[int] = Counter()
    first, ends_empty = None, True
    for number, row in lines:
        lengths[len(row)] += 1
        ends_empty = ends_empty and not row[-1].strip()
        if len(row) != len(header) and first is None:
            first = number, len(row)
    if first is None:
        return
    said = f"Line {first[0]} of {path} has {first[1]} cells; the header has {len(header)} names."
    mend = "Correct these lines; a text with a separator in it needs quotes."
    if set(lengths) == {len(header) + 1}:
        mend = "Every line has one cell more than the header: name every column, names of the rows too."
        if ends_empty:
            mend = "Every line but the header ends in a separator: remove it, or end the header in one too."
    elif len(lengths) == 1:
        mend = "So has every line: a column lacks its values, or the header has a name too many."
    raise DataError(f"{said} {mend}")


def _numbers(column: pa.ChunkedArray) -> NDArray[np.generic] | None:
    """Numbers of a column of text, NaN where one of pandas' words for a missing value stands; None if others are."""
    trimmed = pc.utf8_trim_whitespace(column)
    present = pc.if_else(pc.is_in(trimmed, value_set=_MISSING), None, trimmed)
    try:
        return np.asarray(pc.cast(present, pa.float64()).to_numpy(), dtype=np.float64)
    except pa.ArrowInvalid:
        pass
    words = present.to_pylist()
    if all(word is None or reads_as_number(word) for word in words):
        return np.array([np.nan if word is None else float(word) for word in words])
    if all(word is not None and word.lower() in ("true", "false") for word in words):
        return np.array([word.lower() == "true" for word in words])
    return None


def _as_written(column: pa.ChunkedArray, *, typed: bool) -> object:
    """Text, None where a cell is empty; where ``typed``, numbers if they would be written just so."""
    words = [word or None for word in column.to_pylist()]
    present = [word for word in words if word is not None]
    if typed and present:
        if all(re.fullmatch(r"0|-?[1-9][0-9]{0,17}", word) for word in present):
            whole = [None if word is None else int(word) for word in words]
            return pd.array(whole, dtype="Int64" if None in words else "int64")
        if all(reads_as_number(word) and repr(float(word)) == word for word in present):
            return np.array([np.nan if word is None else float(word) for word in words])
    return np.array(words, dtype=object)
