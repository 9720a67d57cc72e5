"""Published methods for programmes in counts, each where its package is installed.

scvi-tools (scVI: Lopez et al. 2018, doi:10.1038/s41592-018-0229-2; LDVAE: Svensson et al. 2020,
doi:10.1093/bioinformatics/btaa169), mofapy2 (MOFA+: Argelaguet et al. 2020, doi:10.1186/s13059-020-02015-1), cnmf
(Kotliar et al. 2019, doi:10.7554/eLife.43803), harmonypy (Korsunsky et al. 2019, doi:10.1038/s41592-019-0619-0). All
with the number of programmes as number of factors and settings of their packages otherwise. Each function takes the
data and a seed, and gives the latents (cells, programmes) and the size of what they do to each gene (genes,
programmes), or None where a method has no such thing.

    pip install torch==2.13.0 scvi-tools mofapy2 cnmf harmonypy
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from counts_data import Programmes, log_counts
from numpy.typing import NDArray
from sklearn.decomposition import PCA

Floats = NDArray[np.float64]
Found = tuple[Floats, Floats | None]


def _annotated(data: Programmes) -> Any:
    import anndata

    adata = anndata.AnnData(data.counts.astype(np.float32), obs=pd.DataFrame({"batch": data.batch.astype(str)}))
    adata.obs_names, adata.var_names = (
        [f"{word}{k}" for k in range(n)] for word, n in zip(("c", "g"), data.counts.shape, strict=True)
    )
    return adata


def _scvi(name: str) -> Callable[[Programmes, int], Found]:
    def fit(data: Programmes, seed: int) -> Found:
        import scvi

        scvi.settings.seed = seed
        kind, adata = getattr(scvi.model, name), _annotated(data)
        kind.setup_anndata(adata, batch_key="batch")
        model = kind(adata, n_latent=data.usage.shape[1])
        model.train(accelerator="cpu", enable_progress_bar=False, logger=False, enable_checkpointing=False)
        loadings = model.get_loadings().to_numpy() if name == "LinearSCVI" else None
        return np.asarray(model.get_latent_representation(), dtype=float), loadings

    return fit


def mofa(data: Programmes, seed: int) -> Found:
    from mofapy2.run.entry_point import entry_point

    x = log_counts(data)
    model = entry_point()
    model.set_data_options(scale_views=False)
    model.set_data_matrix([[(x - x.mean(axis=0)) / x.std(axis=0)]])
    model.set_model_options(factors=data.usage.shape[1])
    model.set_train_options(seed=seed + 1, verbose=False, quiet=True)
    model.build()
    model.run()
    means = model.model.getExpectations()
    return np.asarray(means["Z"]["E"], dtype=float), np.asarray(means["W"][0]["E"], dtype=float)


def cnmf(data: Programmes, seed: int) -> Found:
    from cnmf import cNMF

    k, adata = data.usage.shape[1], _annotated(data)
    with tempfile.TemporaryDirectory() as folder:
        adata.write_h5ad(f"{folder}/counts.h5ad")
        model = cNMF(output_dir=folder, name="run")
        words = {"n_iter": 20, "seed": seed, "num_highvar_genes": adata.n_vars}
        model.prepare(counts_fn=f"{folder}/counts.h5ad", components=[k], **words)
        model.factorize(worker_i=0, total_workers=1)
        model.combine()
        model.consensus(k=k, density_threshold=0.5, show_clustering=False)
        usage, scores, _, _ = model.load_results(K=k, density_threshold=0.5)
    loadings = scores.reindex(adata.var_names).fillna(0.0).to_numpy(dtype=float)
    return usage.reindex(adata.obs_names).fillna(0.0).to_numpy(dtype=float), loadings


def harmony(data: Programmes, seed: int) -> Found:
    import harmonypy

    x = log_counts(data)
    z = PCA(data.usage.shape[1], random_state=seed).fit_transform((x - x.mean(axis=0)) / x.std(axis=0))
    batches = pd.DataFrame({"batch": data.batch.astype(str)})
    found = np.asarray(harmonypy.run_harmony(z, batches, "batch", random_state=seed).Z_corr, dtype=float)
    return (found if len(found) == len(z) else found.T), None


PEERS: dict[str, tuple[str, Callable[[Programmes, int], Found]]] = {
    "LDVAE": ("scvi", _scvi("LinearSCVI")),
    "scVI": ("scvi", _scvi("SCVI")),
    "MOFA, log counts": ("mofapy2", mofa),
    "cNMF": ("cnmf", cnmf),
    "Harmony of PCA, log counts": ("harmonypy", harmony),
}


def installed(name: str) -> bool:
    """Whether the package of a peer is there."""
    return importlib.util.find_spec(PEERS[name][0]) is not None
