"""unmix: the latent factors behind data from several domains, and whether to believe them.

>>> import unmix
>>> data = unmix.datasets.load_sachs()
>>> data.x.shape
(7466, 11)
"""

from unmix import datasets, metrics
from unmix.errors import (
    DataError,
    DomainError,
    MetricWarning,
    SchemaError,
    SettingError,
    StorageError,
    TrainingError,
    UnmixError,
)
from unmix.estimators.baselines import HFVAE, IMSDA, IVAE, BetaTCVAE, BetaVAE, FactorVAE, SparseVAE
from unmix.estimators.cggan import CGGAN
from unmix.estimators.cgvae import CGVAE
from unmix.estimators.external import CEBRA
from unmix.estimators.storage import load
from unmix.version import __version__

__all__ = [
    "CEBRA",
    "CGGAN",
    "CGVAE",
    "HFVAE",
    "IMSDA",
    "IVAE",
    "BetaTCVAE",
    "BetaVAE",
    "DataError",
    "DomainError",
    "FactorVAE",
    "MetricWarning",
    "SchemaError",
    "SettingError",
    "SparseVAE",
    "StorageError",
    "TrainingError",
    "UnmixError",
    "__version__",
    "datasets",
    "load",
    "metrics",
]
