r"""Gaussian optimal transport between domains, in closed form.

Each domain is taken for a Gaussian :math:`N(m_u, \Sigma_u)` on the leading principal components of all rows. The
map that carries N(m, Σ) to N(m', Σ') at the least mean squared distance is (Dowson and Landau 1982)

.. math:: T(x) = m' + A (x - m), \qquad
          A = \Sigma^{-1/2} (\Sigma^{1/2} \Sigma' \Sigma^{1/2})^{1/2} \Sigma^{-1/2},

and the common Gaussian is the barycentre of the domains (Álvarez-Esteban et al. 2016, arXiv:1511.05355, fixed point of
equation 4). Domains are carried to it and from it: of rows that were, means and covariances are the same in all
domains, so no linear reader tells the domains apart.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd
from torch import Tensor, nn

Floats = NDArray[np.float64]
_ROUNDS, _CLOSE = 100, 1e-7
_LEAST = 1e-10
_FEW = 0.25


class GaussianTransport(nn.Module):
    """Carries rows (n, n_features) of a domain to the common Gaussian, and from it to a domain.

    ``shrink``: share of the pooled covariance in that of a domain, which steadies it where a domain has few rows.
    What the components leave of a row is kept as it is, or dropped with ``keep_rest=False``.
    """

    center: Tensor
    basis: Tensor
    means: Tensor
    inward: Tensor
    outward: Tensor

    def __init__(self, n_domains: int, n_features: int, n_components: int, *, keep_rest: bool = True) -> None:
        super().__init__()
        self.keep_rest = keep_rest
        self.register_buffer("center", torch.zeros(n_features))
        self.register_buffer("basis", torch.zeros(n_components, n_features))
        self.register_buffer("means", torch.zeros(n_domains, n_components))
        for name in ("inward", "outward"):
            self.register_buffer(name, torch.eye(n_components).repeat(n_domains, 1, 1))

    @classmethod
    def fit(
        cls,
        rows: Tensor,
        groups: Tensor,
        n_domains: int,
        *,
        n_components: int,
        shrink: float = 0.1,
        keep_rest: bool = True,
    ) -> Self:
        """Learn from ``rows`` (n, n_features) with their domains ``groups`` (n,), each of which occurs."""
        x, own = rows.detach().cpu().double().numpy(), groups.cpu().numpy()
        center = np.stack([x[own == u].mean(0) for u in range(n_domains)]).mean(0)
        n_components = min(n_components, len(x) - 1, x.shape[1])
        basis = _directions(x - center, n_components)
        scores = (x - center) @ basis.T
        means = np.stack([scores[own == u].mean(0) for u in range(n_domains)])
        within = scores - means[own]
        pooled = within.T @ within / len(within)
        pooled += np.eye(n_components) * _LEAST * max(np.trace(pooled), _LEAST)
        covariances = [
            (1 - shrink) * within[own == u].T @ within[own == u] / np.sum(own == u) + shrink * pooled
            for u in range(n_domains)
        ]
        common = barycentre(covariances)
        fitted = cls(n_domains, x.shape[1], n_components, keep_rest=keep_rest)
        inward = np.stack([optimal_map(own, common) for own in covariances])
        found = {"center": center, "basis": basis, "means": means, "inward": inward, "outward": np.linalg.inv(inward)}
        fitted.load_state_dict({name: torch.from_numpy(value).float() for name, value in found.items()})
        return fitted.to(rows.device)

    @classmethod
    def plain(cls, rows: Tensor, n_domains: int, n_components: int) -> GaussianTransport:
        """Rows centred, whatever their domain, and nothing else done to them."""
        x = rows.detach().cpu().double().numpy()
        center = x.mean(0)
        basis = _directions(x - center, min(n_components, len(x) - 1, x.shape[1]))
        fitted = GaussianTransport(n_domains, x.shape[1], len(basis))
        fitted.center.copy_(torch.from_numpy(center))
        fitted.basis.copy_(torch.from_numpy(basis))
        return fitted.to(rows.device)

    def common(self, x: Tensor, groups: Tensor) -> Tensor:
        """Rows ``x`` of the domains ``groups`` (n,) as they are in the common Gaussian, centred."""
        centred = x - self.center
        scores = centred @ self.basis.T
        moved = torch.bmm(self.inward[groups], (scores - self.means[groups])[:, :, None])[:, :, 0]
        return moved @ self.basis + (centred - scores @ self.basis if self.keep_rest else 0.0)

    def back(self, common: Tensor, groups: Tensor) -> Tensor:
        """The inverse of ``common`` for the domains ``groups``, on what the components hold."""
        scores = common @ self.basis.T
        return self.of_scores(scores, groups) + (common - scores @ self.basis if self.keep_rest else 0.0)

    def of_scores(self, scores: Tensor, groups: Tensor) -> Tensor:
        """Rows (n, n_features) of the domains ``groups`` from components (n, n_components) in the common Gaussian."""
        moved = torch.bmm(self.outward[groups], scores[:, :, None])[:, :, 0] + self.means[groups]
        return self.center + moved @ self.basis


def _directions(centred: Floats, count: int) -> Floats:
    """The first ``count`` principal directions (count, n_features)."""
    if count < _FEW * min(centred.shape):
        found: Floats = randomized_svd(centred, count, random_state=0)[2]
        return found
    if len(centred) < centred.shape[1]:
        return np.linalg.svd(centred, full_matrices=False)[2][:count]
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return np.ascontiguousarray(vectors.T[::-1][:count])


def optimal_map(source: Floats, target: Floats) -> Floats:
    """A, symmetric, with A Σ A = Σ' for covariances (k, k)."""
    root, inverse = _roots(source)
    return inverse @ _roots(root @ target @ root)[0] @ inverse


def barycentre(covariances: list[Floats]) -> Floats:
    """Covariance of the Gaussian with the least mean squared transport distance to N(0, Σ_u) of every domain."""
    common: Floats = np.mean(covariances, axis=0)
    for _ in range(_ROUNDS):
        root, inverse = _roots(common)
        middle = np.mean([_roots(root @ own @ root)[0] for own in covariances], axis=0)
        before, common = common, inverse @ middle @ middle @ inverse
        common = 0.5 * (common + common.T)
        if np.abs(common - before).max() <= _CLOSE * np.abs(common).max():
            break
    return common


def _roots(matrix: Floats) -> tuple[Floats, Floats]:
    """Square root of a symmetric matrix, and its inverse."""
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    roots = np.sqrt(values.clip(max(_LEAST * values.max(), 1e-300)))
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T
