"""AnnData, in memory or in a .h5ad or .zarr: one matrix of it, with names of its columns and rows, and ``.obs``.

The matrix stays sparse where it is, and in its own type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
from scipy import sparse

from unmix.data.columns import listed, refuse_duplicates
from unmix.errors import DataError, SchemaError
from unmix.forms import AnnDataLike

FOLDER, FILE = ".zarr", ".h5ad"


@dataclass(frozen=True, eq=False)
class Annotated:
    """``X``, or a layer, of an AnnData object.

    Attributes
    ----------
    values : (n_obs, n_vars) array, or sparse matrix of scipy
    names : names of the variables
    obs : one row for each observation, with their names as index
    layer : which one it is; None for ``X``
    """

    values: Any
    names: tuple[str, ...]
    obs: pd.DataFrame
    layer: str | None = None

    def __len__(self) -> int:
        return len(self.obs)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), len(self.names)

    def aligned(self, names: Sequence[str]) -> Annotated:
        """The variables ``names``, in this order.

        Raises
        ------
        SchemaError
            Some are not there.
        DataError
            One of them is there more than once.
        """
        if self.names == tuple(names):
            return self
        place = {name: k for k, name in enumerate(self.names)}
        lacking = [name for name in names if name not in place]
        if lacking:
            raise SchemaError(
                f"{len(lacking)} of the {len(names)} variables on which the model was fitted are not in var_names: "
                f"{listed(lacking)}. Are these names of the same kind? var_names begins with {listed(self.names)}."
            )
        if len(place) < len(self.names):
            wanted = set(names)
            refuse_duplicates([name for name in self.names if name in wanted])
        values = (self.values.tocsc() if sparse.issparse(self.values) else self.values)[:, [place[k] for k in names]]
        return Annotated(values, tuple(names), self.obs, self.layer)


def is_annotated(source: object) -> TypeGuard[Any]:
    """Whether ``source`` is AnnData, or was read from it.

    Raises
    ------
    DataError
        MuData or SpatialData, which hold several.
    """
    home = type(source).__module__.partition(".")[0]
    if home in ("mudata", "spatialdata"):
        parts = list(getattr(source, "mod", None) or getattr(source, "tables", None) or ())
        example = repr(parts[0]) if parts else '"rna"'
        raise DataError(
            f"X is a {type(source).__name__} of {len(parts)} tables ({listed(parts)}); unmix learns from one. Pass it, "
            f"such as X[{example}]."
        )
    return isinstance(source, Annotated) or (home == "anndata" and hasattr(source, "var_names"))


def is_store(path: Path) -> bool:
    """Whether a path is a .h5ad file or a .zarr folder, by its name."""
    return path.name.lower().endswith((FILE, FOLDER))


def annotated(source: AnnDataLike, layer: str | None = None) -> Annotated:
    """The matrix of AnnData that features are read from, ``X`` or a layer.

    Raises
    ------
    DataError
        There is no such layer, or no ``X``.
    """
    if isinstance(source, Annotated):
        return source
    whole: Any = source
    if layer is not None and layer not in whole.layers:
        raise DataError(f"There is no layer {layer!r}; the AnnData object has {listed([*whole.layers], 20) or 'none'}.")
    values = whole.X if layer is None else whole.layers[layer]
    if values is None:
        other = f', or name a layer: layer="{next(iter(whole.layers))}"' if len(whole.layers) else ""
        raise DataError(f"The AnnData object has no X, and X holds the features. Put them there{other}.")
    return Annotated(_in_memory(values), tuple(map(str, whole.var_names)), whole.obs, layer)


def read_store(path: Path) -> AnnDataLike:
    """AnnData in a .h5ad or .zarr.

    Raises
    ------
    DataError
        anndata, or for .zarr zarr, is not installed.
    """
    try:
        import anndata
    except ImportError as error:
        raise DataError(
            f'Reading {path.suffix} needs anndata. Install it with: pip install "unmix[anndata]"'
        ) from error
    if path.name.lower().endswith(FILE):
        return anndata.read_h5ad(path)
    try:
        import zarr  # noqa: F401
    except ImportError as error:
        raise DataError("Reading .zarr needs zarr. Install it with: pip install zarr") from error
    return anndata.read_zarr(path)


def _in_memory(values: Any) -> Any:
    """A matrix of AnnData as numpy or scipy hold it, whatever kind it is."""
    if isinstance(values, pd.DataFrame):
        return values.to_numpy()
    if sparse.issparse(values):
        return values
    if hasattr(values, "to_memory"):
        return values.to_memory()
    if hasattr(values, "compute"):
        return _in_memory(values.compute())
    return np.asarray(values[...] if hasattr(values, "file") else values)
