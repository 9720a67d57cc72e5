"""unmix: the latent factors behind data from several domains, and whether to believe them.

>>> import unmix
>>> data = unmix.datasets.load_sachs()
>>> data.x.shape
(7466, 11)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
from unmix.version import __version__

if TYPE_CHECKING:
    from unmix import datasets, metrics, scverse, theory
    from unmix.audit.planning import plan
    from unmix.audit.sources import audit_decoder
    from unmix.bench.selection import Selection, select
    from unmix.bench.translation import judge_translations, train_judges
    from unmix.data.images import ImageTable, read_images
    from unmix.estimators.baselines import HFVAE, BetaTCVAE, BetaVAE, FactorVAE, SparseVAE
    from unmix.estimators.cggan import CGGAN
    from unmix.estimators.cgvae import CGVAE
    from unmix.estimators.domain_baselines import IMSDA, IVAE
    from unmix.estimators.external import CEBRA
    from unmix.estimators.features import ImageClassifier, image_features
    from unmix.estimators.heads import DomainClassifier, DomainRegressor
    from unmix.estimators.images import CGVAEImages
    from unmix.estimators.linear import JointDiagonalization
    from unmix.estimators.loading import load
    from unmix.estimators.translator import ImageTranslator
    from unmix.report.images import image_grid

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
    "DomainClassifier",
    "DomainError",
    "DomainRegressor",
    "FactorVAE",
    "ImageClassifier",
    "ImageTable",
    "ImageTranslator",
    "JointDiagonalization",
    "MetricWarning",
    "SchemaError",
    "Selection",
    "SettingError",
    "SparseVAE",
    "StorageError",
    "TrainingError",
    "UnmixError",
    "__version__",
    "audit_decoder",
    "datasets",
    "image_features",
    "image_grid",
    "judge_translations",
    "load",
    "metrics",
    "plan",
    "read_images",
    "scverse",
    "select",
    "theory",
    "train_judges",
]

# What is imported on first use, by its module; the block above says the same to type checkers.
_HOMES = {
    "unmix.audit.planning": ("plan",),
    "unmix.audit.sources": ("audit_decoder",),
    "unmix.bench.selection": ("Selection", "select"),
    "unmix.bench.translation": ("judge_translations", "train_judges"),
    "unmix.data.images": ("ImageTable", "read_images"),
    "unmix.estimators.baselines": ("HFVAE", "BetaTCVAE", "BetaVAE", "FactorVAE", "SparseVAE"),
    "unmix.estimators.cggan": ("CGGAN",),
    "unmix.estimators.cgvae": ("CGVAE",),
    "unmix.estimators.domain_baselines": ("IMSDA", "IVAE"),
    "unmix.estimators.external": ("CEBRA",),
    "unmix.estimators.features": ("ImageClassifier", "image_features"),
    "unmix.estimators.heads": ("DomainClassifier", "DomainRegressor"),
    "unmix.estimators.images": ("CGVAEImages",),
    "unmix.estimators.linear": ("JointDiagonalization",),
    "unmix.estimators.loading": ("load",),
    "unmix.estimators.translator": ("ImageTranslator",),
    "unmix.report.images": ("image_grid",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_SUBMODULES = ("audit", "datasets", "metrics", "scverse", "theory")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: ``import unmix`` alone loads no other library."""
    if name in _SUBMODULES:
        return import_module(f"unmix.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'unmix' has no attribute {name!r}")
    found = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF, *_SUBMODULES})
