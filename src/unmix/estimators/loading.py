"""``unmix.load``, and the estimators that a folder may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmix.estimators.base import LatentEstimator
from unmix.estimators.baselines import HFVAE, BetaTCVAE, BetaVAE, FactorVAE, SparseVAE
from unmix.estimators.cggan import CGGAN
from unmix.estimators.cgvae import CGVAE
from unmix.estimators.domain_baselines import IMSDA, IVAE
from unmix.estimators.images import CGVAEImages
from unmix.estimators.storage import Stored, read_model
from unmix.nets.state import in_own_state

ESTIMATORS: dict[str, type[LatentEstimator]] = {
    estimator.__name__: estimator
    for estimator in (CGVAE, CGVAEImages, IVAE, IMSDA, BetaVAE, BetaTCVAE, HFVAE, FactorVAE, SparseVAE)
}
_READABLE: dict[str, type[Stored]] = {**ESTIMATORS, CGGAN.__name__: CGGAN}


@in_own_state
def load(path: str | Path, *, device: Any = "auto") -> Any:
    """Read an estimator back from a folder that ``save`` wrote; it need not be trained on the same device.

    Raises
    ------
    StorageError
        There is no complete model there, it is damaged, or it was written by a version with another format.

    Examples
    --------
    >>> unmix.load("model/").transform(table)     # doctest: +SKIP
    """
    return read_model(path, _READABLE, device)
