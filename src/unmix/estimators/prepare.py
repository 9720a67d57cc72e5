"""From the user's input to the input of a model. Every check runs here, before training starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import narwhals as nw
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from sklearn.utils._set_output import _get_output_config

from unmix.data.annotated import Annotated, is_annotated, is_store
from unmix.data.batches import Pixels, Rows, split_rows
from unmix.data.cells import Cells
from unmix.data.columns import column_names, listed, unlike
from unmix.data.domains import DomainSchema, Encoded
from unmix.data.images import ImageSchema, ImageTable, check_images, read_images
from unmix.data.kinds import check_kinds, kinds_of
from unmix.data.matrix import check_trainable, check_values, numeric_matrix, read_cells
from unmix.data.nuisance import Nuisance
from unmix.data.schema import BEYOND, FeatureSchema
from unmix.data.sizes import COUNTS, TOTAL, SizeFactors
from unmix.data.suspects import CODE_FROM, note_codes, note_empty, without_suspects
from unmix.data.tables import as_table, read_annotated, read_table, split_columns
from unmix.errors import DataError, DomainError, SchemaError, SettingError, warn
from unmix.files import as_path
from unmix.forms import AnnDataLike, DataLike, LabelsLike, familiar

# The same rows are held out for every random_state, so that fits differ by their starts alone.
_SPLIT_SEED = 0


class KindWords(TypedDict, total=False):
    """What ``prepare`` is told of the features' likelihoods."""

    likelihood: str | Mapping[str, str]
    size_factors: str | None
    nuisance: str | None


@dataclass(frozen=True)
class Prepared:
    """Checked data of one fit: schemas, and all rows, those of training before those held out.

    ``features`` is a ``FeatureSchema``, or an ``ImageSchema`` with the same face. ``order`` (rows,) are the places of
    the rows in the table, ``groups`` their domains.
    """

    features: Any
    domains: DomainSchema
    rows: Rows
    groups: NDArray[np.int64]
    order: NDArray[np.int64]
    n_train: int
    table: DataLike | None

    @property
    def train(self) -> NDArray[np.int64]:
        """Which of ``rows`` are trained on."""
        return np.arange(self.n_train)

    @property
    def held_out(self) -> NDArray[np.int64]:
        """Which of ``rows`` are held out."""
        return np.arange(self.n_train, len(self.groups))


def in_layer(X: DataLike, layer: str | None) -> DataLike:
    """``X`` with the layer read that ``fit`` is told to take; ``X`` itself without one.

    Raises
    ------
    SettingError
        ``X`` is no AnnData.
    """
    if layer is None:
        return X
    table = as_table(X, layer)
    if not isinstance(table, Annotated):
        raise SettingError(f"layer={layer!r} names a layer of AnnData; X is a {type(X).__name__}. Leave layer out.")
    return table


def separate(X: DataLike, y: LabelsLike, layer: str | None = None) -> tuple[DataLike, LabelsLike]:
    """Features and domains. A text ``y`` names a column of the table (or of ``.obs`` of AnnData), a list several.

    A name may also be one of a pandas index. ``layer`` is the one that is read of AnnData.
    """
    X = familiar(X)
    if isinstance(X, str | Path) and is_store(as_path(X)):
        X = read_annotated(X)
    names = [y] if isinstance(y, str) else _texts(y)
    if is_annotated(X):
        return _separate_annotated(X, y, names, layer)
    table = read_table(X, text=names) if names and isinstance(X, str | Path) else as_table(X)
    if isinstance(table, pd.DataFrame):
        levels = [name for name in names if name in table.index.names and name not in table.columns]
        table = table.reset_index(level=levels) if levels else table
    if not isinstance(y, str) and not _are_columns(names, table):
        _warn_of_indices(X, y)
        if names and isinstance(X, str | Path):
            # A label that is called like a column has kept that column from becoming numbers.
            table = split_columns(table, [], None, [])[0] if set(names).isdisjoint(table.columns) else as_table(X)
        return table, y
    if not nw.dependencies.is_into_dataframe(table):
        raise DataError(f"y={y!r} names a column, but X is an array without column names. Pass one label per row as y.")
    return split_columns(table, names, None, [])


def _separate_annotated(
    X: AnnDataLike, y: LabelsLike, names: Sequence[str], layer: str | None
) -> tuple[DataLike, LabelsLike]:
    obs = X.obs
    if not isinstance(y, str) and not _are_columns([*names], obs):
        _warn_of_indices(obs, y)
        return as_table(X, layer), y
    lacking = [name for name in names if name not in obs]
    if lacking:
        raise DataError(f"There is no column {lacking[0]!r} in .obs; it has {listed([*obs.columns], 20) or 'none'}.")
    return as_table(X, layer), obs[[*names]]


def _texts(y: LabelsLike) -> list[str]:
    """The texts of a list that holds nothing else: labels, or names of columns."""
    return list(y) if isinstance(y, list | tuple) and all(isinstance(name, str) for name in y) else []


def _are_columns(names: list[str], table: DataLike) -> bool:
    """Whether ``names`` are those of columns and not labels, one a row."""
    frame = _frame(table) if names else None
    return frame is not None and len(names) != len(frame) and not set(names).isdisjoint(frame.columns)


def _frame(table: DataLike) -> Any:
    """A table as narwhals sees it; None for an array, and where names repeat."""
    if not nw.dependencies.is_into_dataframe(table):
        return None
    try:
        return nw.from_native(table, eager_only=True)
    except nw.exceptions.DuplicateError:
        return None


def _warn_of_indices(X: DataLike, y: LabelsLike) -> None:
    if not (isinstance(X, pd.DataFrame) and isinstance(y, pd.Series | pd.DataFrame)) or len(X) != len(y):
        return
    if not X.index.equals(y.index):
        said = "X and y have different indices; rows are paired by position. To pair them by index pass y.loc[X.index]."
        warn(said)


def as_fitted(table: DataLike, features: FeatureSchema, domains: DomainSchema) -> DataLike:
    """A table of new rows with the variables of AnnData aligned by their names, and without a frame's domain columns.

    The model's own domain columns may stand among those of a frame; arrays pass unchanged.
    """
    if isinstance(table, Annotated):
        return table.aligned(features.names) if features.named else table
    frame = _frame(table)
    own = {column.name for column in domains.columns} - set(features.names)
    extra = [] if frame is None else [name for name in frame.columns if name in own]
    return frame.drop(extra).to_native() if extra else table


def prepare(
    X: DataLike,
    y: LabelsLike,
    *,
    n_latents: int,
    missing: str,
    auxiliary: Mapping[str, str] | None,
    min_domain_rows: int,
    validation_fraction: float,
    likelihood: str | Mapping[str, str] = "gaussian",
    size_factors: str | None = None,
    nuisance: str | None = None,
) -> Prepared:
    """Check everything, learn the schemas, encode the rows and split them."""
    table, y = separate(X, y)
    table, beside = beside_features(X, table, size_factors, nuisance)
    cells = read_cells(table)
    names = column_names(table)
    shown = names or tuple(f"x{k}" for k in range(cells.shape[1]))
    check_values(cells, shown, missing)
    check_trainable(cells, shown)
    if n_latents > cells.shape[1]:
        raise DataError(
            f"n_latents = {n_latents} is more than n_features = {cells.shape[1]}, so the latents are not identifiable. "
            "Use at most as many latents as features."
        )
    domains, encoded, groups = DomainSchema.learn(y, len(cells), auxiliary, min_domain_rows)
    kinds = kinds_of(cells, shown, likelihood)
    sizes, log_size = SizeFactors.learn(size_factors, cells, kinds, beside.sizes)
    layer = table.layer if isinstance(table, Annotated) else None
    words = names, output_dtype(table), kinds, sizes, log_size, layer
    features = FeatureSchema.learn(cells, *words)
    if missing == "mask":
        note_empty(cells)
    bounded = without_suspects(cells, features)
    if bounded is not cells:
        features = FeatureSchema.learn(bounded, *words)
        # Latents of these rows will be asked for.
        features.refuse_beyond(cells)
        cells = bounded
    train, held_out = split_rows(groups, validation_fraction, _SPLIT_SEED)
    order, offsets = np.concatenate([train, held_out]), None
    if nuisance is not None:
        inputs, units = features.standardise(cells, log_size), np.array(features.scale)
        own = Nuisance.learn(nuisance, beside.batches, cells, inputs, kinds, units, log_size, n_latents)
        features, offsets = replace(features, nuisance=own), own.offsets(beside.batches, len(cells))
    # Standardised in the order of the split, so that neither part is copied again.
    rows = _rows(cells, features, encoded.take(order), domains.sizes, missing == "mask", log_size, order, offsets)
    return Prepared(features, domains, rows, groups[order], order, len(train), header(table))


def header(table: DataLike) -> DataLike:
    """What scikit-learn reads names off: a frame without rows in place of ``Annotated``, else ``table``."""
    return pd.DataFrame(columns=list(table.names)) if isinstance(table, Annotated) else table


def as_images(X: DataLike, y: LabelsLike = None) -> tuple[ImageTable, LabelsLike]:
    """Images and domains from an array and ``y``, a path, or an object with ``images`` and ``domains``.

    Where ``y`` is None: the domains that come with a path or an object, and None for an array.
    """
    carries = isinstance(X, str | Path) or (hasattr(X, "images") and hasattr(X, "domains"))
    table = X if isinstance(X, ImageTable) else read_images(X)
    return table, (table.domains if y is None and carries else y)


def labelled_images(X: DataLike, y: LabelsLike = None) -> tuple[ImageTable, LabelsLike]:
    """``as_images`` where the domains are needed."""
    table, y = as_images(X, y)
    if y is None:
        raise DomainError(
            f"Expected the domain of each of {len(table)} images; got none. Pass them as second argument, or pass the "
            "result of unmix.read_images, which includes them."
        )
    return table, y


def prepare_images(
    X: DataLike,
    y: LabelsLike,
    *,
    auxiliary: Mapping[str, str] | None,
    min_domain_rows: int,
    validation_fraction: float,
    seed: int,
) -> Prepared:
    """``prepare`` for images: they stay 8 bits, and all pixels have one centre and one scale."""
    table, y = as_images(X, y)
    check_images(table.images)
    domains, encoded, groups = DomainSchema.learn(y, len(table), auxiliary, min_domain_rows)
    if not domains.n_continuous and len(domains.domains) < 2:
        raise DomainError(
            f"All {len(table)} images belong to one domain, but changes between domains identify the latents. Pass "
            "images of at least two domains."
        )
    features = ImageSchema.learn(table.images)
    train, held_out = split_rows(groups, validation_fraction, seed)
    order = np.concatenate([train, held_out])
    rows = image_rows(table.images, features, domains, encoded).take(torch.from_numpy(order))
    return Prepared(features, domains, rows, groups[order], order, len(train), None)


def image_rows(
    images: NDArray[np.uint8], features: ImageSchema, domains: DomainSchema, encoded: Encoded | None
) -> Rows:
    """``rows_for`` of images."""
    sizes = () if encoded is None else domains.sizes
    own = encoded or Encoded(np.zeros((len(images), 0), np.int64), np.zeros((len(images), 0)))
    rows = Rows.build(np.zeros((len(images), 0)), own, sizes, False)
    return replace(rows, source=Pixels.of(images, features.mean, features.std))


def latent_matrix(X: DataLike, names: Sequence[str]) -> NDArray[np.float64]:
    """Latents (n_samples, n_latents) from an array, or from a table with the columns ``names``, in this order."""
    table = as_table(X)
    expected = f"inverse_transform takes latents of shape (n_samples, {len(names)})"
    if not nw.dependencies.is_into_dataframe(table) and (np.ndim(table) != 2 or np.shape(table)[1] != len(names)):
        raise SchemaError(f"{expected}; got shape {np.shape(table)}.")
    matrix = numeric_matrix(table)
    if came := unlike(matrix, table, names, len(names)):
        raise SchemaError(f"{expected}, in a table the columns {list(names)} in this order; got {came}.")
    check_values(matrix, names, "refuse")
    if np.abs(matrix).max() > BEYOND:
        raise DataError(f"Latents beyond {BEYOND:g} cannot be decoded; got {np.abs(matrix).max():g}. Correct them.")
    return matrix


def with_row_names(estimator: TransformerMixin, latents: NDArray[np.floating], table: DataLike) -> Any:
    """``latents``, with the names of AnnData's rows where ``set_output`` asks for pandas."""
    if isinstance(table, Annotated) and _get_output_config("transform", estimator)["dense"] == "pandas":
        return pd.DataFrame(latents, index=table.obs.index, columns=estimator.get_feature_names_out())
    return latents


def output_dtype(table: DataLike) -> str:
    """float32 in, float32 out; everything else comes back as float64."""
    frame = _frame(table)
    if frame is None:
        kinds = {str(getattr(getattr(table, "values", table), "dtype", "")).lower()}
    else:
        kinds = {str(kind).lower() for kind in frame.schema.values()}
    return "float32" if kinds == {"float32"} else "float64"


def rows_for(
    matrix: Cells | NDArray[np.float64],
    features: FeatureSchema,
    domains: DomainSchema,
    encoded: Encoded | None,
    masked: bool,
    beside: Beside | None = None,
) -> Rows:
    """New rows for a fitted model; without ``encoded`` they carry no domain (the encoder needs none).

    Raises
    ------
    DataError
        A feature has entries that its likelihood cannot have, or a row of counts has no size.
    """
    cells, beside = Cells.of(matrix), beside or Beside()
    check_kinds(cells, features.names, features.kinds)
    if masked:
        note_empty(cells)
    log_size = None if features.sizes is None else features.sizes.log_sizes(cells, beside.sizes)
    offsets = None if features.nuisance is None else features.nuisance.offsets(beside.batches, len(cells))
    given, sizes = encoded, domains.sizes
    if given is None:
        empty = np.zeros((len(cells), 0))
        given, sizes = Encoded(empty.astype(np.int64), empty), ()
    rows = _rows(cells, features, given, sizes, masked, log_size, None, offsets)
    if len(rows) and float(rows.x.abs().amax()) > CODE_FROM:
        note_codes(cells, features)
    return rows


def _rows(
    cells: Cells,
    features: FeatureSchema,
    encoded: Encoded,
    sizes: tuple[int, ...],
    masked: bool,
    log_size: NDArray[np.float64] | None,
    order: NDArray[np.int64] | None = None,
    offsets: NDArray[np.float64] | None = None,
) -> Rows:
    """The rows of ``cells``, or all of them in another ``order``, which ``encoded`` has already."""
    rows = Rows.build(features.standardise(cells, log_size, order, offsets), encoded, sizes, masked)
    if features.continuous.all():
        return rows
    if order is not None:
        log_size, offsets = (None if own is None else own[order] for own in (log_size, offsets))
    numbers = np.empty(cells.shape, dtype=np.float32)
    for place, _, part in cells.ordered(order):
        numbers[place] = np.nan_to_num(part.astype(np.float32))
    given = torch.from_numpy(numbers)
    if features.continuous.any():
        given = torch.where(torch.from_numpy(features.continuous), rows.x, given)
    beside = None if log_size is None else log_size[:, None]
    if offsets is not None:
        sized = np.array([kind in COUNTS for kind in features.kinds])
        beside = offsets if beside is None else offsets + np.where(sized, beside, 0.0)
    offset = None if beside is None else torch.from_numpy(beside.astype(np.float32))
    return replace(rows, given=given, offset=offset)


@dataclass(frozen=True)
class Beside:
    """Columns beside the features: the ``sizes`` of rows (rows,) and the labels of their ``batches``."""

    sizes: NDArray[np.float64] | None = None
    batches: LabelsLike = None


def beside_features(
    X: DataLike | None, table: DataLike, sizes: str | None, nuisance: str | None
) -> tuple[DataLike, Beside]:
    """The table without the columns that ``sizes`` and ``nuisance`` name, and these; ``X`` may have them as well.

    ``X`` is what the user passed: a table with the column of domains, or AnnData, whose ``.obs`` they are in then.
    """
    sizes = None if sizes == TOTAL else sizes
    found = [_beside(X, table, name, what) for name, what in ((sizes, "size_factors"), (nuisance, "nuisance"))]
    frame, (own, batches) = _frame(table), found
    extra = [] if frame is None else [name for name in frame.columns if name in (sizes, nuisance)]
    table = frame.drop(extra).to_native() if extra else table
    return table, Beside(None if own is None else numeric_matrix(own)[:, 0], batches)


def _beside(X: DataLike | None, table: DataLike, name: str | None, what: str) -> Any:
    """The column ``name`` as a table of one column; None without a name."""
    if name is None:
        return None
    if isinstance(X, str | Path) and is_store(as_path(X)):
        X = table
    places: list[Any] = [X.obs] if is_annotated(X) else [table, X]
    frames = [frame for frame in map(_frame, places) if frame is not None]
    for frame in frames:
        if name in frame.columns:
            return frame.select([name]).to_native()
    has = f"the columns {listed(frames[0].columns)}" if frames else "no column names"
    raise DataError(
        f"{what}={name!r} names a column of the table (of .obs of AnnData), which has {has}. Add it to the table."
    )
