"""Methods of ``real.py`` by name; one line of ``METHODS`` adds one.

A method is any class with ``fit(X, y)`` and ``transform(X)``, better with ``inverse_transform(Z)`` too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA

from unmix.bench import methods as study_methods
from unmix.bench.methods import Method

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TableMethod(Method):
    """``positive``: given features that are scaled and not centred, and only tables without a number below 0.

    ``reference``: it learns nothing that could be other with another seed or other rows, so agreement is not measured.
    """

    positive: bool = False
    reference: bool = False


class RawFeatures(TransformerMixin, BaseEstimator):
    """The features themselves in place of latents."""

    def fit(self, X: Any, y: Any = None) -> Self:
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: Any) -> Any:
        return X

    def inverse_transform(self, X: Any) -> Any:
        return X


class VarimaxPCA(TransformerMixin, BaseEstimator):
    """Scores of principal components with variance 1, rotated to simple loadings (varimax, Kaiser 1958)."""

    def __init__(self, n_components: int = 2, random_state: int = 0) -> None:
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        pca = PCA(self.n_components, svd_solver="full").fit(X)
        spread = np.sqrt(np.maximum(pca.explained_variance_, 1e-12))
        rotation = varimax(pca.components_.T * spread, self.random_state)
        self.mean_ = pca.mean_
        self.encoder_ = (pca.components_.T / spread) @ rotation
        self.components_ = ((pca.components_.T * spread) @ rotation).T
        return self

    def transform(self, X: Any) -> Any:
        return (X - self.mean_) @ self.encoder_

    def inverse_transform(self, X: Any) -> Any:
        return X @ self.components_ + self.mean_


def varimax(loadings: Floats, random_state: int = 0, n_starts: int = 8) -> Floats:
    """The rotation R (latents, latents) of ``loadings`` (features, latents) of most varied squared loadings ``L R``.

    The best of several random starts: principal components of equal variance can be a stationary point.
    """
    rng, n = np.random.default_rng(random_state), loadings.shape[1]
    starts = [np.eye(n), *(np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(n_starts - 1))]
    found = [_turned_from(start, loadings) for start in starts]
    return max(found, key=lambda rotation: float(((loadings @ rotation) ** 2).var(axis=0).sum()))


def _turned_from(rotation: Floats, loadings: Floats, max_iter: int = 1_000, tol: float = 1e-12) -> Floats:
    reached = 0.0
    for _ in range(max_iter):
        turned = loadings @ rotation
        left, values, right = np.linalg.svd(loadings.T @ (turned**3 - turned * (turned**2).mean(axis=0)))
        rotation, before, reached = left @ right, reached, float(values.sum())
        if reached < before * (1 + tol):
            break
    return rotation


_FA = "sklearn.decomposition:FactorAnalysis"
_NMF: dict[str, Any] = {"init": "nndsvda", "max_iter": 2_000}

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        TableMethod("raw features", "real_methods:RawFeatures", domains=False, reference=True),
        TableMethod("PCA", "PCA", domains=False),
        TableMethod("PCA + varimax", "real_methods:VarimaxPCA", domains=False),
        TableMethod("FactorAnalysis", _FA, {"max_iter": 5_000}, domains=False),
        TableMethod("FactorAnalysis + varimax", _FA, {"max_iter": 5_000, "rotation": "varimax"}, domains=False),
        # With sklearn's tolerance and the looser one of the studies it can stop at a saddle, after one step.
        TableMethod("FastICA", "FastICA", {"max_iter": 5_000, "tol": 1e-6}, domains=False),
        TableMethod("joint diagonalization", "JointDiagonalization"),
        TableMethod("NMF", "sklearn.decomposition:NMF", _NMF, domains=False, positive=True),
        study_methods.METHODS["CEBRA"],
        study_methods.METHODS["IVAE"],
        TableMethod("CGVAE", "CGVAE"),
    )
}


def find_method(name: str) -> Method:
    """A method of ``METHODS``, or a class of one's own as "package.module:Class"."""
    return METHODS.get(name) or TableMethod(name, name)


def shortened(method: Method, max_epochs: int) -> Method:
    """The method with so many epochs, under another name; itself where it takes no ``max_epochs``."""
    if "max_epochs" not in method.fixed_by["settings"]:
        return method
    return replace(
        method, name=f"{method.name}, {max_epochs} epochs", settings={**method.settings, "max_epochs": max_epochs}
    )
