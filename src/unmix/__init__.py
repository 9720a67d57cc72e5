"""unmix: the latent factors behind data from several domains, and whether to believe them.

>>> import unmix
>>> data = unmix.datasets.load_sachs()
>>> data.x.shape
(7466, 11)
"""

from unmix import datasets, metrics
from unmix.audit.planning import plan
from unmix.audit.sources import audit_decoder
from unmix.data.images import ImageTable, read_images
from unmix.errors import (
    DataError,
    DataWarning,
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
from unmix.estimators.features import ImageClassifier, image_features
from unmix.estimators.images import CGVAEImages
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
    "CGVAEImages",
    "DataError",
    "DataWarning",
    "DomainError",
    "FactorVAE",
    "ImageClassifier",
    "ImageTable",
    "MetricWarning",
    "SchemaError",
    "SettingError",
    "SparseVAE",
    "StorageError",
    "TrainingError",
    "UnmixError",
    "__version__",
    "audit_decoder",
    "datasets",
    "image_features",
    "load",
    "metrics",
    "plan",
    "read_images",
]
