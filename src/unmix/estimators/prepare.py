"""From what the user passes to what a model takes. Every check runs here, before training starts."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unmix.data.batches import ImageRows, Rows, split_rows
from unmix.data.columns import column_names, unlike
from unmix.data.domains import DomainSchema, Encoded
from unmix.data.images import ImageSchema, ImageTable, check_images, read_images
from unmix.data.matrix import check_trainable, check_values, numeric_matrix
from unmix.data.schema import BEYOND, FeatureSchema
from unmix.data.suspects import without_suspects
from unmix.data.tables import as_table, read_table, split_columns
from unmix.errors import DataError, DataWarning, DomainError, SchemaError

# The same rows are held out for every random_state, so that fits differ by their starts alone.
_SPLIT_SEED = 0


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
    table: Any

    @property
    def train(self) -> NDArray[np.int64]:
        """Which of ``rows`` are trained on."""
        return np.arange(self.n_train)

    @property
    def held_out(self) -> NDArray[np.int64]:
        """Which of ``rows`` are held out."""
        return np.arange(self.n_train, len(self.groups))


def separate(X: Any, y: Any) -> tuple[Any, Any]:
    """Features and domains. A text ``y`` names a column of the table (or of ``.obs`` of AnnData), a list several."""
    has_obs = hasattr(X, "obs") and hasattr(X, "var_names")
    names = [y] if isinstance(y, str) else _texts(y)
    table = X if has_obs else read_table(X, text=names) if names and isinstance(X, str | Path) else as_table(X)
    if not isinstance(y, str) and not _are_columns(names, X.obs if has_obs else table):
        _warn_of_indices(X, y)
        if has_obs:
            return as_table(X), y
        if names and isinstance(X, str | Path):
            # A label that is called like a column has kept that column from becoming numbers.
            table = split_columns(table, [], None, [])[0] if set(names).isdisjoint(table.columns) else as_table(X)
        return table, y
    if has_obs:
        lacking = [name for name in names if name not in X.obs]
        if lacking:
            raise DataError(f"There is no column {lacking[0]!r} in .obs; it has {list(X.obs.columns)}.")
        return as_table(X), X.obs[names]
    if not nw.dependencies.is_into_dataframe(table):
        raise DataError(f"y={y!r} names a column, but X is an array without column names. Pass one label a row as y.")
    return split_columns(table, names, None, [])


def _texts(y: Any) -> list[str]:
    """The texts of a list that holds nothing else: labels, or names of columns."""
    return list(y) if isinstance(y, list | tuple) and all(isinstance(name, str) for name in y) else []


def _are_columns(names: list[str], table: Any) -> bool:
    """Whether ``names`` are those of columns and not labels, one a row."""
    frame = _frame(table) if names else None
    return frame is not None and len(names) != len(frame) and not set(names).isdisjoint(frame.columns)


def _frame(table: Any) -> Any:
    """A table as narwhals sees it; None for an array, and where names repeat."""
    if not nw.dependencies.is_into_dataframe(table):
        return None
    try:
        return nw.from_native(table, eager_only=True)
    except nw.exceptions.DuplicateError:
        return None


def _warn_of_indices(X: Any, y: Any) -> None:
    if not (isinstance(X, pd.DataFrame) and isinstance(y, pd.Series | pd.DataFrame)) or len(X) != len(y):
        return
    if not X.index.equals(y.index):
        said = "X and y have different indices; rows are paired by position. To pair them by index pass y.loc[X.index]."
        warnings.warn(said, DataWarning, stacklevel=4)


def without_columns(table: Any, names: Collection[str]) -> Any:
    """The table without those of ``names`` that it has; arrays pass unchanged."""
    frame = _frame(table)
    extra = [] if frame is None else [name for name in frame.columns if name in names]
    return frame.drop(extra).to_native() if extra else table


def prepare(
    X: Any,
    y: Any,
    *,
    n_latents: int,
    missing: str,
    auxiliary: Mapping[str, str] | None,
    min_domain_rows: int,
    validation_fraction: float,
) -> Prepared:
    """Check everything, learn the schemas, encode the rows and split them."""
    table, y = separate(X, y)
    matrix = numeric_matrix(table)
    names = column_names(table)
    shown = names or tuple(f"x{k}" for k in range(matrix.shape[1]))
    check_values(matrix, shown, missing)
    check_trainable(matrix, shown)
    if n_latents > matrix.shape[1]:
        raise DataError(
            f"n_latents = {n_latents} is more than n_features = {matrix.shape[1]}: the latents could not be "
            "told apart. Ask for at most as many latents as features."
        )
    domains, encoded, groups = DomainSchema.learn(y, len(matrix), auxiliary, min_domain_rows)
    features = FeatureSchema.learn(matrix, names, output_dtype(table))
    bounded = without_suspects(matrix, features)
    if bounded is not matrix:
        features = FeatureSchema.learn(bounded, names, output_dtype(table))
        # Latents of these rows will be asked for.
        features.refuse_beyond(matrix)
        matrix = bounded
    train, held_out = split_rows(groups, validation_fraction, _SPLIT_SEED)
    order = np.concatenate([train, held_out])
    # Standardised in the order of the split, so that neither part is copied again.
    rows = Rows.build(features.standardise(matrix, order), encoded.take(order), domains.sizes, missing == "mask")
    return Prepared(features, domains, rows, groups[order], order, len(train), table)


def as_images(X: Any, y: Any = None) -> tuple[ImageTable, Any]:
    """Images and domains from an array and ``y``, a path, or an object with ``images`` and ``domains``.

    Where ``y`` is None: the domains that a path or an object brings along, and None for an array.
    """
    carries = isinstance(X, str | Path) or (hasattr(X, "images") and hasattr(X, "domains"))
    table = X if isinstance(X, ImageTable) else read_images(X)
    return table, (table.domains if y is None and carries else y)


def labelled_images(X: Any, y: Any = None) -> tuple[ImageTable, Any]:
    """``as_images`` where the domains are needed."""
    table, y = as_images(X, y)
    if y is None:
        raise DomainError(
            f"Expected the domain of each of {len(table)} images; got none. Pass them as second argument, or what "
            "unmix.read_images returns, which brings them along."
        )
    return table, y


def prepare_images(
    X: Any, y: Any, *, auxiliary: Mapping[str, str] | None, min_domain_rows: int, validation_fraction: float, seed: int
) -> Prepared:
    """``prepare`` for images: they stay 8 bits, and all pixels have one centre and one scale."""
    table, y = as_images(X, y)
    check_images(table.images)
    domains, encoded, groups = DomainSchema.learn(y, len(table), auxiliary, min_domain_rows)
    if not domains.n_continuous and len(domains.domains) < 2:
        raise DomainError(
            f"All {len(table)} images belong to one domain; what changes between domains is what identifies the "
            "latents. Pass images of at least two."
        )
    features = ImageSchema.learn(table.images)
    train, held_out = split_rows(groups, validation_fraction, seed)
    order = np.concatenate([train, held_out])
    rows = image_rows(table.images, features, domains, encoded).take(torch.from_numpy(order))
    return Prepared(features, domains, rows, groups[order], order, len(train), None)


def image_rows(
    images: NDArray[np.uint8], features: ImageSchema, domains: DomainSchema, encoded: Encoded | None
) -> ImageRows:
    """``rows_for`` of images."""
    empty = np.zeros((len(images), 0))
    if encoded is None:
        others = Rows.build(empty, Encoded(empty.astype(np.int64), empty), (), False)
    else:
        others = Rows.build(empty, encoded, domains.sizes, False)
    return ImageRows.from_images(images, features.mean, features.std, others)


def latent_matrix(X: Any, names: Sequence[str]) -> NDArray[np.float64]:
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


def output_dtype(table: Any) -> str:
    """float32 in, float32 out; everything else comes back as float64."""
    return "float32" if str(getattr(table, "dtype", "")) == "float32" else "float64"


def rows_for(
    matrix: NDArray[np.float64], features: FeatureSchema, domains: DomainSchema, encoded: Encoded | None, masked: bool
) -> Rows:
    """New rows for a fitted model; without ``encoded`` they carry no domain (the encoder needs none)."""
    if encoded is None:
        empty = np.zeros((len(matrix), 0))
        return Rows.build(features.standardise(matrix), Encoded(empty.astype(np.int64), empty), (), masked)
    return Rows.build(features.standardise(matrix), encoded, domains.sizes, masked)
