"""Arrays and tables of any library as numpy, pandas or an eager table: the first step of whatever is read.

Features, labels, latents and the arguments of metrics all pass through ``familiar``, so that each form is known
everywhere or nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import narwhals as nw
import numpy as np
import pandas as pd
from narwhals.typing import IntoFrame, IntoSeries
from numpy.typing import ArrayLike, NDArray

_BFLOAT16 = "torch.bfloat16"


class AnnDataLike(Protocol):
    """AnnData, or what was read of it: a matrix, with a table of its rows."""

    @property
    def obs(self) -> pd.DataFrame: ...


class ImagesLike(Protocol):
    """What ``unmix.read_images`` and the image datasets return: images, and their domains where these are known."""

    @property
    def images(self) -> NDArray[np.uint8]: ...


class SparseLike(Protocol):
    """A sparse matrix or array of scipy."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def tocsr(self) -> object: ...


DataLike: TypeAlias = ArrayLike | IntoFrame | SparseLike | AnnDataLike | ImagesLike | Path | Sequence[object]
"""Rows (``X``): an array, a table of any library, AnnData, the path of a file, or images if a model takes them."""

LabelsLike: TypeAlias = ArrayLike | IntoFrame | IntoSeries | pd.Index | Mapping[str, object] | Sequence[object] | None
"""Domains (``y``, ``to``): one label, or one per row, as list, array, column or table; a mapping column → labels; None
where there are none."""


def familiar(values: Any) -> Any:
    """``values`` without what only its own library knows; anything else as it came.

    A lazy table is collected, a tensor leaves its device and its graph (bfloat16 becomes float32), np.matrix becomes
    an array, a structured array a frame with its fields as columns. Tensors in a list or tuple too.
    """
    if type(values).__module__.partition(".")[0] == "torch" and hasattr(values, "detach"):
        return _from_tensor(values)
    if isinstance(values, np.matrix):
        return np.asarray(values)
    if isinstance(values, np.ndarray) and values.dtype.names and values.ndim == 1:
        return pd.DataFrame({name: list(values[name]) for name in values.dtype.names})
    if isinstance(values, list | tuple) and any(type(value).__module__ == "torch" for value in values[:1]):
        return [familiar(value) for value in values]
    if is_lazy(values):
        return nw.from_native(values).collect().to_native()
    return values


def is_lazy(table: object) -> bool:
    """Whether a table holds a query and no rows yet: polars, DuckDB, Dask, Ibis, PySpark."""
    try:
        return isinstance(nw.from_native(table, pass_through=True), nw.LazyFrame)
    except nw.exceptions.DuplicateError:
        return False


def _from_tensor(tensor: Any) -> Any:
    found = tensor.detach().cpu()
    if found.is_sparse or str(found.layout) != "torch.strided":
        found = found.to_dense()
    found = found.resolve_conj().resolve_neg()
    return (found.float() if str(found.dtype) == _BFLOAT16 else found).numpy()
