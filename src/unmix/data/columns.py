"""Names of columns: text, each once; whether those of new data are those of the fit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmix.data.cells import Cells
from unmix.data.schema import FeatureSchema
from unmix.errors import DataError, SchemaError
from unmix.forms import DataLike
from unmix.labels import name_text
from unmix.numbers import reads_as_number

# What pandas calls a column without a name, and an index in a file; and what such names of rows are called here.
SAVED_INDEX = re.compile(r"Unnamed: 0(\.\d+)*(_level_\d+)?|__index_level_\d+__")
NAMELESS, ROW = "Unnamed: 0", "row"
_SHOWN = 5


def text_names(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with text as names of its columns; as it is where they are called 0, 1, … in this order.

    Such a frame has no names, as an array has none.
    """
    names = list(frame.columns)
    text = [isinstance(name, str) for name in names]
    if all(text) or frame.columns.equals(pd.RangeIndex(len(names))):
        return frame
    if any(text):
        other = next(name for name in names if not isinstance(name, str))
        raise DataError(
            f"Column names must be all text or all numbers; {other!r} stands beside {names[text.index(True)]!r}. "
            "Rename them, for example with frame.columns.astype(str)."
        )
    renamed = frame.copy(deep=False)
    renamed.columns = pd.Index([name_text(name) for name in names])
    refuse_duplicates(list(renamed.columns))
    return renamed


def row_names(n_levels: int, taken: Collection[str]) -> list[str]:
    """What columns are called that name the rows and have no name."""
    free = ROW if ROW not in taken else NAMELESS
    return [free] if n_levels == 1 else [f"{free}{level}" for level in range(n_levels)]


def column_names(table: DataLike) -> tuple[str, ...] | None:
    """Names of a frame's columns; None of an array and of a frame without names."""
    if hasattr(table, "obs") and hasattr(table, "names"):
        return tuple(table.names)
    if not nw.dependencies.is_into_dataframe(table):
        return None
    names = [*table.columns] if isinstance(table, pd.DataFrame) else nw.from_native(table).columns
    return tuple(names) if names and all(isinstance(name, str) for name in names) else None


def check_columns(matrix: Cells | NDArray[np.float64], table: DataLike, schema: FeatureSchema) -> None:
    """Refuse the columns of the fit in another order, others in their place, and another number of them.

    ``matrix``, or ``Cells``, are the numbers of ``table``.
    """
    came = unlike(matrix, table, schema.names if schema.named else None, len(schema.names))
    if came:
        raise SchemaError(
            f"The model was fitted on the columns [{listed(schema.names)}], in this order; got {came}. Select them "
            "from the table first."
        )


def unlike(matrix: Cells | NDArray[np.float64], table: DataLike, names: Sequence[str] | None, n_columns: int) -> str:
    """What the columns of a table are where they are not ``names``, in this order; "" where they are.

    Where columns have no names, they are 0, 1, … by their places; an array may stand for any names.
    """
    own, places = column_names(table), [str(k) for k in range(matrix.shape[1])]
    here = places if own is None and isinstance(table, pd.DataFrame) else own
    expected = [str(k) for k in range(n_columns)] if names is None else list(names)
    moved = here is not None and list(here) != expected and sorted(here) == sorted(expected)
    if len(places) != n_columns:
        return f"{len(places)} columns" if own is None else f"{len(places)} columns, {listed(own)}"
    if moved or (names is not None and own is not None and list(own) != expected):
        return listed(here or ())
    return ""


def no_header(names: Sequence[str]) -> DataError:
    return DataError(
        f"There is no header: the first line is {listed(names)}. Put the columns' names into a line above it."
    )


def refuse_duplicates(names: Sequence[str]) -> None:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated and all(map(reads_as_number, names)):
        raise no_header(names)
    if repeated:
        raise DataError(f"Column names must be unique, and these are not: {listed(repeated)}. Rename them.")


def listed(names: Sequence[str], most: int = _SHOWN) -> str:
    """The first names, quoted, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
