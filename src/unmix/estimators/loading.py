"""``unmix.load``, and the estimators that a folder may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from unmix.estimators import baselines, cggan, cgvae, domain_baselines, images, translator
from unmix.estimators.base import LatentEstimator
from unmix.estimators.cggan import CGGAN
from unmix.estimators.translator import ImageTranslator
from unmix.fits.fit import Fit, kinds
from unmix.fits.words import live_settings
from unmix.nets.state import in_own_state

# An estimator makes itself known when its module is imported.
_IMPORTED = (baselines, cggan, cgvae, domain_baselines, images, translator)
ESTIMATORS: dict[str, type[LatentEstimator]] = {
    name: kind for name, kind in kinds().items() if issubclass(kind, LatentEstimator)
}


@in_own_state
def load(path: str | Path, *, device: str | torch.device = "auto") -> LatentEstimator | CGGAN | ImageTranslator:
    """Read an estimator back from a folder that ``save`` wrote; it need not be trained on the same device.

    Raises
    ------
    StorageError
        There is no complete model there, it is damaged, or it was written by a version with another format; or it uses
        a class of your own whose module has not been imported. Nothing that a folder names is imported by reading it.

    Examples
    --------
    >>> unmix.load("model/").transform(table)     # doctest: +SKIP
    """
    fit = Fit.from_folder(path, device)
    kind: Any = fit.kind
    estimator = kind(**live_settings(fit.parameters))
    estimator.fit_ = fit
    return estimator
