"""Tables in: numpy, scipy, pandas, polars, Arrow, AnnData, .csv, .tsv, .parquet, .h5ad, .zarr. Out: .csv, .parquet.

Rows are paired by their position, never by an index: row k of what goes out is row k of what came in.

A cell of .csv and .tsv is text. It becomes a number only in a column that may be a feature and holds nothing but
numbers; every other column keeps what was written, so that 001 stays 001 and NA is a word. Nothing is learnt here: what
a model must remember of its columns is in ``schema.py``, how they become a matrix in ``matrix.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
from narwhals.typing import IntoDataFrame
from numpy.typing import NDArray
from pyarrow import dataset, parquet

from unmix.data.annotated import FILE, FOLDER, annotated, is_annotated, is_store, read_store
from unmix.data.columns import SAVED_INDEX, listed, refuse_duplicates, row_names, text_names
from unmix.data.delimited import SEPARATORS, read_delimited
from unmix.errors import DataError, warn
from unmix.files import as_path, replacing
from unmix.forms import AnnDataLike, DataLike, familiar
from unmix.labels import name_text
from unmix.numbers import reads_as_number

# Notes of ``read_table`` on a frame, for ``candidates``: which columns may be features, and what was left out why.
_CANDIDATES, _LEFT_OUT = "unmix candidates", "unmix left out"
_Read = tuple[pd.DataFrame, list[str], str]
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_table(source: DataLike, layer: str | None = None) -> Any:
    """A path becomes a pandas frame, AnnData (a .h5ad or .zarr too) ``Annotated``; else see ``familiar``.

    Columns of a frame get text names; one whose columns are called 0, 1, … in this order has no names, as an array has
    none. ``layer`` is the one that is read of AnnData.
    """
    if isinstance(source, str | Path):
        if is_store(as_path(source)):
            return annotated(read_annotated(source), layer)
        return split_columns(read_table(source), [], None, [])[0]
    if is_annotated(source):
        return annotated(source, layer)
    source = familiar(source)
    return text_names(source) if isinstance(source, pd.DataFrame) else source


def read_annotated(path: str | Path) -> AnnDataLike:
    """AnnData in a .h5ad or .zarr; see ``read_table`` for what is raised."""
    path = as_path(path)
    if not path.exists():
        raise DataError(f"There is no {path.suffix} at {path}. Check the path.")
    try:
        return read_store(path)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path} could not be read as {path.suffix}: {error}. Is it complete?") from error


def holds_parquet(path: Path) -> bool:
    """Whether a path is a folder of .parquet files, in folders called column=value or not."""
    return path.is_dir() and any(_parts(path))


def read_table(
    path: str | Path,
    features: Collection[str] | None = None,
    text: Collection[str] = (),
    others: Collection[str] = (),
) -> pd.DataFrame:
    """Read .csv, .tsv, either with .gz behind it, .parquet, .h5ad or .zarr into one frame with rows numbered from 0.

    It has all columns of the file; an index that pandas saved comes first, as columns. A folder of .parquet files is
    one table, and folders in it that are called column=value are a column of text. Of .h5ad and .zarr: names and
    columns of the observations, then the variables. See ``candidates``.

    Parameters
    ----------
    path : file to read
    features : names, optional
        Columns that are to be numbers. By default all that hold nothing but numbers and are not in ``others``.
    text : names
        Columns that stay text as written, such as those of domains; an empty cell is None.
    others : names
        Columns that will come along: text as written too, or numbers where that says the same.

    The last three matter for .csv and .tsv alone; the other formats state the types of their columns.

    Raises
    ------
    DataError
        No such file, another format, a damaged one, lines of unequal length, columns without a name or with the same.
    """
    path = as_path(path)
    if not path.is_file() and not holds_parquet(path) and not (is_store(path) and path.exists()):
        raise DataError(f"There is no file at {path}. Check the path; expected .csv, .tsv, .parquet, .h5ad or .zarr.")

    def delimited(path: Path) -> _Read:
        return read_delimited(path, features, set(text), set(others))

    readers: dict[str, Callable[[Path], _Read]] = {
        **dict.fromkeys(SEPARATORS, delimited),
        ".parquet": _read_parquet,
        FILE: _read_annotated,
        FOLDER: _read_annotated,
    }
    ending = next((own for own in readers if path.name.lower().endswith(own)), None)
    ending = ".parquet" if path.is_dir() and ending != FOLDER else ending
    if ending is None:
        raise DataError(
            f"{path.name} has the ending {path.suffix!r}; unmix reads {', '.join(readers)}. Convert the file first."
        )
    try:
        frame, may_be, left_out = readers[ending](path)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path} could not be read as {ending}: {error}. Is the file complete?") from error
    refuse_duplicates([str(name) for name in frame.columns])
    if len(frame) == 0:
        raise DataError(f"{path} has a header but no rows. unmix needs rows to learn from.")
    frame.attrs.update({_CANDIDATES: may_be, _LEFT_OUT: left_out})
    return frame


def read_columns(
    path: str | Path, domain: Sequence[str], features: Sequence[str] | None = None, drop: Sequence[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame | None, pd.DataFrame]:
    """Features, domain columns (None without any) and all columns but the features, of a file.

    See ``read_table`` and ``split_columns``.
    """
    frame = read_table(path, features=features or None, text=domain, others=drop)
    x, y = split_columns(frame, domain, features, drop)
    return x, y, frame.drop(columns=list(x.columns))


def candidates(table: IntoDataFrame) -> list[str]:
    """Columns of a table that may be features: all, but of one from ``read_table`` not those that name the rows.

    These are a nameless first column and a saved index; of .h5ad the observations' columns.
    """
    notes = getattr(table, "attrs", {})
    if notes.get(_LEFT_OUT):
        warn(notes[_LEFT_OUT])
    names = notes.get(_CANDIDATES)
    return [str(name) for name in nw.from_native(table).columns] if names is None else names


def split_columns(
    table: IntoDataFrame, domain: Sequence[str], features: Sequence[str] | None, drop: Sequence[str]
) -> tuple[Any, Any]:
    """Features and domain columns of one table. Without ``features``: every other one of the ``candidates``."""
    refuse_duplicates([str(name) for name in getattr(table, "column_names", table.columns)])
    frame = nw.from_native(table, eager_only=True)
    own = {str(name): name for name in frame.columns}
    for column in [*domain, *(features or []), *drop]:
        if column not in own:
            raise DataError(f"There is no column {column!r}. The table has: {listed([*own], 20)}.")
    chosen = list(features) if features else [name for name in candidates(table) if name not in {*domain, *drop}]
    if not chosen:
        raise DataError(f"No feature column is left. The table has: {listed([*own], 20)}.")
    x, y = (frame.select([own[name] for name in names]).to_native() for names in (chosen, domain))
    for part in (x, y):
        if isinstance(part, pd.DataFrame):
            # pandas copies them with every column that is taken.
            part.attrs = {}
    return x, y if domain else None


def read_support(path: str | Path) -> pd.DataFrame:
    """A support from a file: 0 and 1, features × latents; a first column of text holds the names of the features."""
    frame = read_table(path)
    first = frame.columns[0]
    if first not in frame.attrs[_CANDIDATES] or not pd.api.types.is_numeric_dtype(frame[first]):
        frame = frame.set_index(first)
    names = [str(name) for name in frame.columns]
    if all(name in ("0", "1") for name in names):
        raise DataError(f"{path} has no header: its first line is {', '.join(names)}. Put the latents' names there.")
    values = frame.apply(pd.to_numeric, errors="coerce")
    if not values.shape[1] or not values.isin([0, 1]).to_numpy().all():
        raise DataError(
            f"{path} must hold 0 and 1, one row for each feature and one column for each latent, with the latents' "
            "names as header (a first column may name the features); got other values. Correct the file."
        )
    return values.astype(int)


def with_latents(others: pd.DataFrame, latents: NDArray[np.floating], names: Sequence[str]) -> pd.DataFrame:
    """A table's own columns, then the latents of the same rows, paired by position.

    A column that is called like a latent gets another name.
    """
    result = others.reset_index(drop=True)
    renamed = {name: f"{name} of the table" for name in result.columns if name in names}
    if renamed:
        said = f"The table has columns that are called like latents; they are written as {list(renamed.values())}."
        warn(said)
    assert len(result) == len(latents)
    return pd.concat([result.rename(columns=renamed), pd.DataFrame(latents, columns=list(names))], axis=1)


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write .parquet, or .csv for every other ending; the index is left out. See ``csv_text``."""
    with replacing(path) as beside:
        if path.suffix.lower() == ".parquet":
            frame.to_parquet(beside, index=False)
        else:
            beside.write_text(csv_text(frame), encoding="utf-8", newline="")


def csv_text(frame: pd.DataFrame) -> str:
    """The table as .csv without its index.

    A text, in a cell or in the header, that a spreadsheet would run as a formula (it begins with =, +, -, @, tab or
    carriage return and is no number) gets ' before it; numbers stay as they are.
    """
    safe = frame.reset_index(drop=True)
    typed = (pd.api.types.is_numeric_dtype, pd.api.types.is_datetime64_any_dtype)
    columns = [safe.iloc[:, k] for k in range(safe.shape[1])]
    columns = [column if any(kind(column) for kind in typed) else column.map(_harmless) for column in columns]
    safe = pd.concat(columns, axis=1) if columns else safe
    safe.columns = pd.Index([_harmless(name) for name in frame.columns])
    text = safe.to_csv(index=False, lineterminator="\n")
    # A carriage return in a cell ends a line too, unless the cell is quoted, which it is where lines end in one.
    return safe.to_csv(index=False, lineterminator="\r\n") if "\r" in text else text


def _harmless(cell: object) -> object:
    if isinstance(cell, int | float | np.number) or not str(cell).startswith(_FORMULA):
        return cell
    text = str(cell)
    return text if text[0] in "+-" and reads_as_number(text) else f"'{text}"


def _parts(path: Path) -> Iterator[Path]:
    """The .parquet files in a folder, without those that hold no rows of the table (_metadata, .crc)."""
    for part in sorted(path.rglob("*.parquet")):
        if part.is_file() and not any(name.startswith((".", "_")) for name in part.relative_to(path).parts):
            yield part


def _read_parquet(path: Path) -> _Read:
    frame = _read_parts(path, [*_parts(path)]) if path.is_dir() else pd.read_parquet(path)
    names = [name_text(name) for name in frame.columns]
    own = _index_columns(frame.index, names)
    frame = frame.reset_index(drop=True).set_axis(names, axis=1)
    saved = [name for name in names if SAVED_INDEX.fullmatch(name)]
    if not saved or len(saved) == len(names):
        return pd.concat([own, frame], axis=1), names, ""
    said = f"Column {saved[0]!r} of {path.name} is a saved index: it is used as row names."
    return pd.concat([own, frame], axis=1), [name for name in names if name not in saved], said


def _read_parts(path: Path, parts: Sequence[Path]) -> pd.DataFrame:
    """The files of a folder as one table; a folder's ``column=value`` is text as written, so that 001 stays 001."""
    folders = [name for name in parts[0].relative_to(path).parts[:-1] if "=" in name]
    columns = pa.schema([(name.partition("=")[0], pa.string()) for name in folders])
    schemas = [parquet.read_schema(part) for part in parts]
    own = pa.unify_schemas(schemas, promote_options="permissive").with_metadata(schemas[0].metadata)
    twice = sorted(set(columns.names) & set(own.names))
    if twice:
        raise DataError(f"{listed(twice)} of {path} is a column of its files and a folder too. Rename one of them.")
    whole = pa.schema([*own, *columns], metadata=own.metadata)
    found = dataset.dataset(
        [str(part) for part in parts],
        schema=whole,
        format="parquet",
        partitioning=dataset.HivePartitioning(columns),
        partition_base_dir=str(path),
    )
    return found.to_table().to_pandas()


def _index_columns(index: pd.Index, names: Sequence[str]) -> pd.DataFrame:
    """An index as columns; none where it only counts the rows from 0."""
    if index.nlevels == 1 and index.name is None and index.equals(pd.RangeIndex(len(index))):
        return pd.DataFrame(index=pd.RangeIndex(len(index)))
    made_up = row_names(index.nlevels, names)
    own = [other if name is None else name_text(name) for name, other in zip(index.names, made_up, strict=True)]
    levels = [pd.Series(index.get_level_values(level)) for level in range(index.nlevels)]
    return pd.concat(levels, axis=1).set_axis(own, axis=1)


def _read_annotated(path: Path) -> _Read:
    found = annotated(read_annotated(path))
    values = found.values.toarray() if hasattr(found.values, "toarray") else found.values
    features, own = pd.DataFrame(values, columns=list(found.names)), found.obs.copy()
    own.insert(0, str(own.index.name or "obs_names"), own.index.astype(str), allow_duplicates=True)
    return pd.concat([own.reset_index(drop=True), features], axis=1), list(features.columns), ""
