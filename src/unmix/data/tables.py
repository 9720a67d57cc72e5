"""Tables in: numpy, pandas, polars, Arrow, AnnData, CSV, Parquet, .h5ad. Out: a float matrix with names.

Nothing here is learnt: what a model must remember of its columns is in ``schema.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import check_array

from unmix.errors import DataError, DataWarning
from unmix.files import as_path, replacing

Floats = NDArray[np.float64]

_SHOWN = 5
_LARGEST = 1e150
# Notes of ``read_table`` on a frame, for ``candidates``: which columns may be features, and what was left out why.
_CANDIDATES, _LEFT_OUT = "unmix candidates", "unmix left out"
# What pandas calls a first column without a name, and what it is called from then on.
_NAMELESS, _ROW = "Unnamed: 0", "row"


def as_table(source: Any) -> Any:
    """A path or an AnnData object becomes a pandas frame; everything else passes unchanged."""
    if isinstance(source, str | Path):
        frame = read_table(source)
        return frame[candidates(frame)]
    if _is_anndata(source):
        return _anndata_features(source)
    return source


def read_table(path: str | Path) -> pd.DataFrame:
    """Read .csv, .tsv, either with .gz behind it, .parquet or .h5ad into one frame, with all columns that a file has.

    See ``candidates``. Of .h5ad: names and columns of the observations, then the variables.
    """
    path = as_path(path)
    if not path.is_file():
        raise DataError(f"There is no file at {path}. Check the path; expected .csv, .tsv, .parquet or .h5ad.")
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": pd.read_csv,
        ".csv.gz": pd.read_csv,
        ".tsv": _read_tsv,
        ".tsv.gz": _read_tsv,
        ".parquet": pd.read_parquet,
        ".h5ad": _read_h5ad,
    }
    ending = next((own for own in readers if path.name.lower().endswith(own)), None)
    if ending is None:
        raise DataError(
            f"{path.name} has the ending {path.suffix!r}; unmix reads {', '.join(readers)}. Convert the file first."
        )
    try:
        frame: pd.DataFrame = readers[ending](path)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path} could not be read as {ending}: {error}. Is the file complete?") from error
    if frame.shape[0] == 0:
        raise DataError(f"{path} has a header but no rows. unmix needs rows to learn from.")
    if ending not in (".parquet", ".h5ad"):
        # pandas gives names that repeat another form.
        header = pd.read_csv(path, sep="\t" if "tsv" in ending else ",", header=None, nrows=1, dtype=str)
        _refuse_duplicates([name for name in header.iloc[0] if isinstance(name, str)])
    names = [str(name) for name in frame.columns]
    separator = next((mark for mark in (";", "\t", "|") if len(names) == 1 and mark in names[0]), None)
    if separator is not None:
        raise DataError(
            f"{path} has one column, {names[0]!r}: it looks separated by {separator!r}, unlike {ending}. "
            "Save it with commas (decimals with points), or with tabs as .tsv."
        )
    _refuse_duplicates(names)
    if ending not in (".parquet", ".h5ad") and names[0] == _NAMELESS and len(names) > 1:
        frame = frame if _ROW in names else frame.rename(columns={_NAMELESS: _ROW})
        frame.attrs[_CANDIDATES] = names[1:]
        frame.attrs[_LEFT_OUT] = f"The first column of {path.name} has no name: it is taken for names of the rows."
    return frame


def candidates(frame: pd.DataFrame) -> list[str]:
    """Columns of a frame from ``read_table`` that may be features.

    Those of an .h5ad file's variables; of .csv and .tsv all but a nameless first one, which holds names of the rows.
    """
    if _LEFT_OUT in frame.attrs:
        warnings.warn(frame.attrs[_LEFT_OUT], DataWarning, stacklevel=3)
    names: list[str] = frame.attrs.get(_CANDIDATES, [str(name) for name in frame.columns])
    return names


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write .parquet, or .csv for every other ending; the index is left out."""
    write: Callable[..., Any] = frame.to_parquet if path.suffix.lower() == ".parquet" else frame.to_csv
    with replacing(path) as beside:
        write(beside, index=False)


def split_columns(
    frame: pd.DataFrame, domain: Sequence[str], features: Sequence[str] | None, drop: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Features and domain columns of one frame. Without ``features``: every other one of the ``candidates``."""
    names = [str(name) for name in frame.columns]
    for column in [*domain, *(features or []), *drop]:
        if column not in names:
            raise DataError(f"There is no column {column!r}. The table has: {_listed(names, 20)}.")
    chosen = list(features) if features else [name for name in candidates(frame) if name not in {*domain, *drop}]
    if not chosen:
        raise DataError(f"No feature column is left. The table has: {_listed(names, 20)}.")
    return frame[chosen], frame[list(domain)] if domain else None


def read_support(path: str | Path) -> pd.DataFrame:
    """A support from a file: 0 and 1, one row a feature, one column a latent; a first column of text names features."""
    frame = read_table(path)
    first = frame.columns[0]
    if _LEFT_OUT in frame.attrs or not pd.api.types.is_numeric_dtype(frame[first]):
        frame = frame.set_index(first)
    names = [str(name) for name in frame.columns]
    if all(name in ("0", "1") for name in names):
        raise DataError(f"{path} has no header: its first line is {', '.join(names)}. Put the latents' names there.")
    values = frame.apply(pd.to_numeric, errors="coerce")
    if not values.shape[1] or not values.isin([0, 1]).to_numpy().all():
        raise DataError(
            f"{path} must hold 0 and 1, one row for each feature and one column for each latent, with the latents' "
            "names as header (a first column may name the features); other values came. Correct the file."
        )
    return values.astype(int)


def numeric_matrix(table: Any) -> Floats:
    """A float64 matrix (n_samples, n_features); missing entries are NaN.

    Raises
    ------
    DataError
        A column is not numeric, the table is empty, names repeat, or the array is not two-dimensional.
    TypeError
        A sparse or complex array, as scikit-learn raises it.
    """
    if nw.dependencies.is_into_dataframe(table):
        try:
            frame = nw.from_native(table, eager_only=True)
        except nw.exceptions.DuplicateError:
            _refuse_duplicates([str(name) for name in getattr(table, "column_names", table.columns)])
            raise
        names = [str(name) for name in frame.columns]
        _refuse_duplicates(names)
        text = [name for name, dtype in zip(names, frame.schema.dtypes(), strict=True) if not _is_number(dtype)]
        if text:
            raise DataError(
                f"Columns {_listed(text)} are not numeric. Pass one of them as the domain, convert it to numbers, "
                "or drop it."
            )
        columns = [np.asarray(series.cast(nw.Float64).to_numpy(), dtype=np.float64) for series in frame.iter_columns()]
        table = np.column_stack(columns) if columns else np.empty((len(frame), 0))
    if isinstance(table, np.ma.MaskedArray):
        table = np.ma.filled(table.astype(np.float64), np.nan)
    try:
        matrix = check_array(
            table, dtype="numeric", ensure_all_finite=False, ensure_min_samples=0, ensure_min_features=0
        )
    except ValueError as error:
        raise DataError(str(error)) from error
    _refuse_empty(matrix)
    return np.asarray(matrix, dtype=np.float64)


def check_values(matrix: Floats, names: Sequence[str], missing: str) -> None:
    """Refuse infinite values always, and NaN unless ``missing`` is "mask"; the message names rows and columns.

    ``missing``: "mask", "error", or "refuse" for models that cannot be fitted with "mask", whose name it leaves out.
    """
    with np.errstate(all="ignore"):
        # A finite sum has finite summands: one pass and no array beside the data.
        if np.isfinite(matrix.sum()):
            return
    _refuse_where(np.isinf(matrix), names, "infinite values (inf)", "Replace them or drop those rows before fitting.")
    if missing != "mask":
        mend = "Fill them, or drop those rows."
        if missing == "error":
            mend = (
                'Fill them, drop those rows, or fit with missing="mask" (command line: --missing mask) to leave them '
                "out of the likelihood."
            )
        _refuse_where(np.isnan(matrix), names, "missing values (NaN)", mend)


def check_trainable(matrix: Floats, names: Sequence[str]) -> None:
    """Refuse what cannot be learnt from: one row, constant columns, columns without a value."""
    if len(matrix) < 2:
        raise DataError(
            f"There is 1 sample (n_samples = {len(matrix)}); a model needs many rows to learn from. "
            "Pass the whole table, one row for each observation."
        )
    empty = np.asarray(np.isnan(matrix).all(axis=0))
    if empty.any():
        raise DataError(f"Columns {_named(names, empty)} hold no value at all. Drop them.")
    low, high = np.nanmin(matrix, axis=0), np.nanmax(matrix, axis=0)
    size, room = np.maximum(np.abs(low), np.abs(high)), high - low
    extreme = (size > _LARGEST) | ((room > 0) & (room < 1 / _LARGEST))
    if extreme.any():
        raise DataError(
            f"Columns {_named(names, extreme)} hold numbers whose squares are none any more: beyond {_LARGEST:g}, or "
            f"less than {1 / _LARGEST:g} apart. Choose another unit."
        )
    constant = high - low <= 1e-12 * np.maximum(np.abs(low), np.abs(high))
    if constant.any():
        raise DataError(
            f"Columns {_named(names, constant)} are constant: they say nothing about any factor and cannot be "
            "standardised. Drop them."
        )


def _refuse_where(bad: NDArray[np.bool_], names: Sequence[str], what: str, remedy: str) -> None:
    if not bad.any():
        return
    rows, columns = np.nonzero(bad)
    places = ", ".join(
        f"row {row} column {names[k]!r}" for row, k in zip(rows[:_SHOWN].tolist(), columns.tolist(), strict=False)
    )
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    raise DataError(
        f"Input X contains {len(rows)} {what}, in {len(set(columns.tolist()))} column(s): {places}{more}. {remedy}"
    )


def _refuse_duplicates(names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated and all(_is_text_of_number(name) for name in names):
        raise DataError(
            f"There is no header: the first line is {_listed(names)}. Put the columns' names into a line above it."
        )
    if repeated:
        raise DataError(f"Column names must be unique; {_listed(repeated)} occur more than once. Rename them.")


def _is_text_of_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _refuse_empty(matrix: NDArray[Any]) -> None:
    for axis, what in ((0, "sample(s)"), (1, "feature(s)")):
        if matrix.shape[axis] == 0:
            raise DataError(
                f"The table is empty: 0 {what} (shape={matrix.shape}) while a minimum of 1 is required. "
                "Check the file, the filter or the selected columns."
            )


def _is_number(dtype: Any) -> bool:
    return bool(dtype.is_numeric()) or dtype == nw.Boolean


def _named(names: Sequence[str], chosen: NDArray[np.bool_]) -> str:
    return _listed([names[k] for k in np.flatnonzero(chosen).tolist()])


def _listed(names: Sequence[str], most: int = _SHOWN) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _read_tsv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t")


def _is_anndata(source: Any) -> bool:
    return type(source).__module__.split(".")[0] == "anndata" and hasattr(source, "var_names")


def _anndata_features(source: Any) -> pd.DataFrame:
    if getattr(source, "isbacked", False):
        source = source.to_memory()
    if source.X is None:
        raise DataError("The AnnData object has no X, and X holds the features. Put them there.")
    values = source.X.toarray() if hasattr(source.X, "toarray") else np.asarray(source.X)
    return pd.DataFrame(values, columns=[str(name) for name in source.var_names])


def _read_h5ad(path: Path) -> pd.DataFrame:
    try:
        import anndata
    except ImportError as error:
        raise DataError('Reading .h5ad needs anndata. Install it with: pip install "unmix[anndata]"') from error
    source = anndata.read_h5ad(path)
    features, own = _anndata_features(source), source.obs.copy()
    own.insert(0, str(own.index.name or "obs_names"), own.index.astype(str), allow_duplicates=True)
    frame = pd.concat([own.reset_index(drop=True), features], axis=1)
    frame.attrs[_CANDIDATES] = list(features.columns)
    return frame
