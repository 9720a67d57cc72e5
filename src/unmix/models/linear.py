r"""The linear factor model at which a start can begin: probabilistic PCA (Tipping & Bishop 1999).

With features of mean 0, the ``n`` largest eigenvalues λ of their covariance and its eigenvectors V,

.. math:: \hat x = z W, \qquad W = \mathrm{diag}(\lambda - \sigma^2)^{1/2} V^\top, \qquad
          \sigma^2 = \tfrac{1}{d} \Big( \sum_k \mathrm{var}(x_k) - \sum_i \lambda_i \Big), \qquad
          z \mid x \sim N(x W^\top M^{-1},\, \sigma^2 M^{-1}), \quad M = W W^\top + \sigma^2 I .

Its latents are free up to a rotation, which ``models/rotation.py`` chooses. A network that begins there has the
objective of that model before its first step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

_LEAST_NOISE = 0.05
_LEAST_SHARE = 0.2
_WEAKEST = 0.005


@dataclass(frozen=True)
class LinearFactors:
    """``weight`` W (latents, features), ``encoding`` (features, latents), ``factor`` L with L Lᵀ the covariance of
    z given x (latents, latents), and the standard deviation ``noise`` that all features share."""

    weight: Tensor
    encoding: Tensor
    factor: Tensor
    noise: float


def weakest_component(x: Tensor, n_latents: int, seed: int) -> float:
    """Standard deviation of the last of ``n_latents`` principal components of ``x`` (rows, features), or 0.005."""
    found = PCA(min(n_latents, *x.shape), random_state=seed % 2**32).fit(x.detach().cpu().numpy())
    return max(float(found.explained_variance_[-1]) ** 0.5, _WEAKEST)


def principal_factors(x: Tensor, n_latents: int, seed: int, weakest: float = math.inf) -> LinearFactors:
    """Probabilistic PCA of standardised features ``x`` (rows, features), missing entries 0.

    The noise is at least 0.05, or a fifth of the standard deviation of the ``weakest`` component to be described.
    """
    rows = x.detach().cpu().numpy()
    found = PCA(n_latents, random_state=seed % 2**32).fit(rows)
    values = torch.from_numpy(np.asarray(found.explained_variance_, dtype=np.float64))
    total = float(rows.var(axis=0, dtype=np.float64).sum())
    variance = max((total - float(values.sum())) / rows.shape[1], min(_LEAST_NOISE, _LEAST_SHARE * weakest) ** 2)
    axes = torch.from_numpy(np.asarray(found.components_, dtype=np.float64))
    weight = (values - variance).clamp_min(0.05 * variance).sqrt().unsqueeze(-1) * axes
    covariance = torch.linalg.inv(torch.eye(n_latents, dtype=torch.float64) + weight @ weight.T / variance)
    encoding = weight.T @ covariance / variance
    factor = torch.linalg.cholesky(covariance)
    weight, encoding, factor = (part.to(x) for part in (weight, encoding, factor))
    return LinearFactors(weight, encoding, factor, variance**0.5)
