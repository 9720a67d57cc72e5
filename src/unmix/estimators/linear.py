r"""Linear factors from changing variances: joint diagonalisation of the domains' covariances.

With C_u the covariance of the whitened principal components in domain u, the map B minimises

.. math:: \tfrac12 \sum_u \pi_u \sum_i \log (B C_u B^\top)_{ii} - \log |\det B|

(Pham 2001; Pham & Cardoso 2001 for sources whose variances change). It finds the factors of a linear mixing where their
variances change differently between domains, and is what a nonlinear model has to beat.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from unmix.errors import DataError
from unmix.forms import LabelsLike
from unmix.labels import label_texts
from unmix.nets.state import methods_in_own_state
from unmix.objectives.rotation import Moments, best_map
from unmix.validation import RandomLike, random_seed

_LEAST_ROWS = 20


@methods_in_own_state
class JointDiagonalization(TransformerMixin, BaseEstimator):
    """Linear latents whose covariance is diagonal in every domain.

    Parameters
    ----------
    n_components : int, optional
        Number of latents. Default: as many as features.
    random_state : int, RandomState or None, default 0
        Seed of the maps from which the search starts.

    Attributes
    ----------
    components_ : float array (n_components, n_features)
        ``transform`` is ``(X - mean_) @ components_.T``.
    mixing_ : float array (n_features, n_components)
    mean_ : float array (n_features,)

    Domains of less than 20 rows are left out, unless none is larger.

    Examples
    --------
    >>> import numpy as np
    >>> from unmix.baselines import JointDiagonalization
    >>> rng, domains = np.random.default_rng(0), np.arange(3000) % 2
    >>> z = rng.standard_normal((3000, 2)) * np.array([[2.0, 0.5], [0.5, 2.0]])[domains]
    >>> found = JointDiagonalization().fit_transform(z @ [[1.0, 1.0], [1.0, -0.5]], domains)
    >>> bool(np.abs(np.corrcoef(found.T, z.T)[:2, 2:]).max(axis=0).min() > 0.99)
    True
    """

    def __init__(self, n_components: int | None = None, *, random_state: RandomLike = 0) -> None:
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: LabelsLike = None) -> Self:
        """Learn from rows ``X`` (n_samples, n_features) and their domains ``y`` (n_samples,); None: one domain."""
        rows: NDArray[np.float64] = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        labels = np.zeros(len(rows), np.int64)
        if y is not None:
            labels = np.unique(np.array(label_texts(y, "y", len(rows))), return_inverse=True)[1]
        seed = random_seed(self.random_state)
        pca = PCA(self.n_components, whiten=True, random_state=seed).fit(rows)
        white = pca.transform(rows)
        if not np.isfinite(white).all():
            raise DataError("Some principal components have no variance. Use fewer n_components.")
        counts = np.bincount(labels)
        large = np.flatnonzero(counts >= min(_LEAST_ROWS, counts.max()))
        within = torch.stack([_covariance(white[labels == own]) for own in large])
        shares, total = torch.from_numpy(counts[large] / counts[large].sum()), _covariance(white)
        moments = Moments(within, shares, total, total.new_zeros(1, len(total), 1))
        found = best_map(moments, 0.0, seed)
        turn = np.eye(len(total)) if found is None else found.numpy()
        scale = np.sqrt(pca.explained_variance_)[:, None]
        self.components_ = turn @ (pca.components_ / scale)
        self.mixing_ = (pca.components_ * scale).T @ np.linalg.inv(turn)
        self.mean_ = pca.mean_
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Latents (n_samples, n_components)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        result: NDArray[np.float64] = (X - self.mean_) @ self.components_.T
        return result

    def inverse_transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Features (n_samples, n_features) of latents ``X`` (n_samples, n_components)."""
        check_is_fitted(self)
        result: NDArray[np.float64] = np.asarray(X, dtype=np.float64) @ self.mixing_.T + self.mean_
        return result

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags


def _covariance(rows: NDArray[np.float64]) -> torch.Tensor:
    centred = torch.from_numpy(rows - rows.mean(axis=0))
    return centred.T @ centred / len(rows)
