"""unmix: the latent factors behind data from several domains, and whether they are identifiable.

>>> import unmix
>>> data = unmix.datasets.load_sachs()
>>> data.x.shape
(7466, 11)
"""

from importlib import import_module
from typing import TYPE_CHECKING

from unmix.errors import DataWarning, UnmixError
from unmix.version import __version__

if TYPE_CHECKING:
    from unmix import baselines, datasets, errors, images, metrics, scverse, theory
    from unmix.audit.planning import Plan, plan
    from unmix.audit.result import Audit
    from unmix.audit.sources import audit_decoder
    from unmix.bench.selection import Selection, select
    from unmix.data.images import read_images
    from unmix.estimators.cggan import CGGAN
    from unmix.estimators.cgvae import CGVAE
    from unmix.estimators.heads import DomainClassifier, DomainRegressor
    from unmix.estimators.images import CGVAEImages
    from unmix.estimators.loading import load
    from unmix.estimators.translator import ImageTranslator

__all__ = [
    "CGGAN",
    "CGVAE",
    "Audit",
    "CGVAEImages",
    "DataWarning",
    "DomainClassifier",
    "DomainRegressor",
    "ImageTranslator",
    "Plan",
    "Selection",
    "UnmixError",
    "__version__",
    "audit_decoder",
    "baselines",
    "datasets",
    "errors",
    "images",
    "load",
    "metrics",
    "plan",
    "read_images",
    "scverse",
    "select",
    "theory",
]

# What is imported on first use, by its module; the block above says the same to type checkers.
_HOMES = {
    "unmix.audit.planning": ("Plan", "plan"),
    "unmix.audit.result": ("Audit",),
    "unmix.audit.sources": ("audit_decoder",),
    "unmix.bench.selection": ("Selection", "select"),
    "unmix.data.images": ("read_images",),
    "unmix.estimators.cggan": ("CGGAN",),
    "unmix.estimators.cgvae": ("CGVAE",),
    "unmix.estimators.heads": ("DomainClassifier", "DomainRegressor"),
    "unmix.estimators.images": ("CGVAEImages",),
    "unmix.estimators.loading": ("load",),
    "unmix.estimators.translator": ("ImageTranslator",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_SUBMODULES = ("audit", "baselines", "datasets", "errors", "images", "metrics", "scverse", "theory")


def __getattr__(name: str) -> object:
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
