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
from unmix.estimators.cgvae import CGVAE
from unmix.estimators.storage import load
from unmix.version import __version__

__all__ = [
    "CGVAE",
    "DataError",
    "DomainError",
    "MetricWarning",
    "SchemaError",
    "SettingError",
    "StorageError",
    "TrainingError",
    "UnmixError",
    "__version__",
    "datasets",
    "load",
    "metrics",
]
