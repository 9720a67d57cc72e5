"""Domain labels in any form (array, pandas, polars, Arrow, mapping, list) as one frame, and the text of a label."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from unmix.errors import DomainError

UNNAMED = "domain"
"""Name of a column of labels that came without one."""


def labels_frame(y: Any, n_rows: int, rows_of: str = "X") -> pd.DataFrame:
    """Any form of y as a frame with text column names and ``n_rows`` rows, as many as ``rows_of`` has.

    Raises
    ------
    DomainError
        Another number of rows, missing labels, or nothing that labels rows.
    """
    if y is None:
        return pd.DataFrame(index=range(n_rows))
    if isinstance(y, np.ma.MaskedArray):
        y = np.ma.filled(y.astype(object), np.nan) if np.ma.is_masked(y) else y.data
    if isinstance(y, Mapping):
        frame = pd.DataFrame(dict(y))
    elif nw.dependencies.is_into_dataframe(y):
        native = nw.from_native(y, eager_only=True)
        frame = pd.DataFrame({str(name): native[name].to_list() for name in native.columns})
    elif nw.dependencies.is_into_series(y):
        series = nw.from_native(y, series_only=True)
        frame = pd.DataFrame({str(series.name or UNNAMED): series.to_list()})
    else:
        try:
            array = np.asarray(y)
        except ValueError as error:
            raise DomainError(f"The domains are neither labels nor a table: {error}. Pass one label a row.") from error
        if array.ndim == 2 and array.shape[1] > 1:
            frame = pd.DataFrame({f"u{k}": array[:, k] for k in range(array.shape[1])}).infer_objects()
        else:
            frame = pd.DataFrame({UNNAMED: array.reshape(-1)})
    if len(frame) != n_rows:
        raise DomainError(
            f"{rows_of} has {n_rows} rows, the domains have {len(frame)} (inconsistent numbers of samples). "
            "Pass one domain for each row."
        )
    missing = frame.isna()
    if missing.to_numpy().any():
        name = frame.columns[missing.any(axis=0)][0]
        rows = np.flatnonzero(missing[name].to_numpy())[:5].tolist()
        raise DomainError(
            f"Domain column {name!r} has missing values (NaN), first in rows {rows}. Label those rows or drop them."
        )
    return frame


def label_text(value: Any) -> str:
    """Text of a label; 1, 1.0 and numpy's 1 are one label."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value)


def natural_order(labels: Iterable[str]) -> tuple[str, ...]:
    """The different labels, numbers by value, words by alphabet."""
    levels = set(labels)
    numeric = all(re.fullmatch("-?[0-9]+", level) for level in levels)
    return tuple(sorted(levels, key=(lambda level: (int(level), level)) if numeric else (lambda level: (0, level))))
