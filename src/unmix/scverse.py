"""Latents into AnnData, as scanpy and its relatives expect them.

``CGVAE.fit(adata, "batch", layer="counts")`` reads AnnData; here is the way back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unmix.data.annotated import FILE, FOLDER, is_annotated
from unmix.errors import DataError, SettingError, StorageError
from unmix.estimators.base import LatentEstimator
from unmix.files import as_path, folder_beside, replacing
from unmix.forms import LabelsLike
from unmix.version import __version__

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["add_latents", "write"]

_TOP = 20


def add_latents(adata: AnnData, model: LatentEstimator, *, y: LabelsLike = None, key: str = "unmix") -> None:
    """Write the latents of ``adata`` and what the fit says of them into it.

    Variables are found by their names: ``adata`` may have more of them than the fit, and in another order. Everything
    survives ``write_h5ad`` and ``write_zarr``.

    Parameters
    ----------
    adata : AnnData
        Changed in place. A key that is there already is replaced.
    model : fitted estimator, such as ``CGVAE``
    y : name of a column of ``.obs``, or labels (n_obs,), optional
        Domains of the rows, for a model whose ``transform`` takes them.
    key : str, default "unmix"

    Writes
    ------
    ``.obsm["X_unmix"]`` : float32 (n_obs, n_latents)
        Posterior means; ``sc.pp.neighbors(adata, use_rep="X_unmix")`` takes them.
    ``.varm["unmix"]`` : float32 (n_vars, n_latents)
        Signed loadings, as ``model.mixing_frame(signed=True)``; NaN for variables that were not in the fit.
    ``.uns["unmix"]`` : dict
        ``settings`` (JSON), ``version``, ``estimator``, ``layer``, ``domains``, ``latents``,
        ``explained_variance_ratio``, and the tables ``verdicts`` (the audit on the rows of the fit), ``top_features``
        and ``explained_variance``.

    Raises
    ------
    DataError, SchemaError, DomainError
        ``adata`` is no AnnData, or lacks variables, or the layer, of the fit.
    SettingError
        ``model`` is no estimator of tables.
    NotFittedError
        ``model`` is not fitted.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> from unmix import CGVAE, datasets, scverse
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=6, n_domains=3, n_samples=600)
    >>> adata = anndata.AnnData(data.x, obs={"batch": data.domains.astype(str)})
    >>> model = CGVAE(n_latents=2, n_restarts=2, max_epochs=2, verbose=0).fit(adata, "batch")
    >>> scverse.add_latents(adata, model)
    >>> adata.obsm["X_unmix"].shape, adata.varm["unmix"].shape
    ((600, 2), (6, 2))
    """
    if not is_annotated(adata) or not hasattr(adata, "obsm"):
        raise DataError(f"Expected an AnnData object; got a {type(adata).__name__}. Pass the one to write into.")
    if not isinstance(model, LatentEstimator):
        raise SettingError(f"Expected a fitted estimator of unmix, such as CGVAE; got a {type(model).__name__}.")
    latents = np.asarray(model.transform(adata) if y is None else model.transform(adata, y))  # type: ignore[call-arg]
    names = [str(name) for name in model.get_feature_names_out()]
    loadings = model.mixing_frame(signed=True)
    if not model.schema_.named:
        loadings.index = pd.Index([str(name) for name in adata.var_names])
    found: dict[str, Any] = {
        "estimator": type(model).__name__,
        "version": __version__,
        "settings": json.dumps(model.fitted_params_),
        "layer": model.schema_.layer or "X",
        "domains": np.array(model.domains_, dtype=object),
        "latents": np.array(names, dtype=object),
        "explained_variance_ratio": np.asarray(model.explained_variance_ratio_, dtype=float),
        "verdicts": _verdicts(model.audit().latents),
        "top_features": _writable(model.top_features(_TOP)),
        "explained_variance": _writable(model.explained_variance_frame()),
    }
    adata.obsm[f"X_{key}"] = latents.astype(np.float32)
    adata.varm[key] = loadings.reindex([str(name) for name in adata.var_names]).to_numpy(dtype=np.float32)
    adata.uns[key] = found


def write(adata: AnnData, path: str | Path) -> Path:
    """Write AnnData to ``path``, a .h5ad or a new .zarr, as a whole or not at all.

    Raises
    ------
    StorageError
        Another ending, or the path cannot be written; a .zarr that is there is not replaced.
    """
    path = check_store(path)
    if path.name.lower().endswith(FILE):
        with replacing(path) as beside:
            adata.write_h5ad(beside)
        return path
    with folder_beside(path) as folder:
        adata.write_zarr(folder / path.name)
        (folder / path.name).rename(path)
    return path


def check_store(path: str | Path) -> Path:
    """``path``, after the checks that ``write`` makes."""
    path = as_path(path)
    if not path.name.lower().endswith((FILE, FOLDER)):
        raise StorageError(f"{path.name} must end in {FILE} or {FOLDER}. Choose such a name.")
    if path.name.lower().endswith(FOLDER) and path.exists():
        raise StorageError(f"{path} is there already, and a {FOLDER} is not replaced. Choose another name.")
    return path


def _verdicts(latents: pd.DataFrame) -> pd.DataFrame:
    """One row per latent; names of a block put together, since a cell of a stored table is no list."""
    blocks = [" ".join(block) if isinstance(block, list | tuple) else "" for block in latents["block"]]
    needed = pd.to_numeric(latents["domains_needed"], errors="coerce").astype(float)
    return _writable(latents.assign(block=blocks, domains_needed=needed))


def _writable(table: pd.DataFrame) -> pd.DataFrame:
    """Text and numbers alone, with text as index, as stores of AnnData hold tables."""
    kept: dict[str, object] = {}
    for name, own in table.items():
        numbers = pd.api.types.is_numeric_dtype(own)
        kept[str(name)] = own.to_numpy(dtype=float) if numbers else own.fillna("").astype(str).to_numpy(dtype=object)
    return pd.DataFrame(kept, index=pd.Index([str(k) for k in range(len(table))]))
