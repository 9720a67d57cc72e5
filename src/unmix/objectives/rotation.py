r"""The linear map of the latents that fits domains and sparsity best.

Gradient descent on encoder and decoder often ends with latents that are the true ones up to an invertible linear map
``z' = B z``: turning a pair of latents is uphill for networks that have settled. Along such maps the reconstruction
does not change, and what is left of the objective is cheap enough to be searched as a whole:

.. math:: F(B) = \tfrac12 \sum_u \pi_u \sum_i \log (B C_u B^\top)_{ii} - \log |\det B|
          + \lambda \sum_{ki} \frac{\log(1 + w_{ki} / c)}{\log(1 + 1 / c)}, \qquad
          w_{ki} = E\,\Big| \frac{\partial \hat x_k}{\partial z'_i} \Big| \mathrm{sd}(z'_i)

The first two terms are the divergence from the best Gaussian prior with a mean and a variance for each latent and
domain: approximate joint diagonalisation of the domains' covariances C_u (Pham 2001). The last is nearly a count of the
entries of the mixing, each worth λ nats, since c = 0.02 is small; with c = 1 it is nearly the sum of the entries, their
L1 norm. F does not see scale, sign or order of the latents.

Latents that are N(0, I) in every domain keep their distribution under rotations alone; there sparsity decides, and a
small λ leaves the first two terms to hold B to a rotation, to whose nearest it is then set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

COUNT_SCALE = 0.02
CANDIDATES = 16
_STEPS = 150
_RATE = 0.05
_LEAST_GAIN = 1e-3
_ROTATION_COST = 0.01


class _MeanSize(torch.autograd.Function):
    """``E |B^-T J|`` (candidates, latents, features) of maps ``B^-T`` (candidates, latents, latents).

    One matrix product for all candidates, since so many small ones take several times as long, into memory that every
    step uses again, since asking for it anew takes longer than to compute what it holds.
    """

    @staticmethod
    def forward(ctx: Any, back: Tensor, moments: Moments) -> Tensor:
        n_rows, n_latents, n_features = moments.jacobian.shape
        room = moments.room[: len(back) * n_latents]
        torch.mm(back.flatten(0, 1), moments.columns, out=room)
        ctx.turned, ctx.moments, ctx.shape = room.view(-1, n_latents, n_rows, n_features), moments, back.shape
        return torch.linalg.vector_norm(ctx.turned, 1, dim=2) / n_rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        by_turned = ctx.turned.sign_().mul_((gradient / ctx.turned.shape[2]).unsqueeze(2))
        return (by_turned.flatten(2).flatten(0, 1) @ ctx.moments.columns.T).view(ctx.shape), None


@dataclass(frozen=True)
class Moments:
    """What F depends on, in float64.

    ``within`` C_u (domains, latents, latents) around each domain's mean, with ``shares`` (domains,) summing to 1;
    ``total`` (latents, latents) around the mean of all; ``jacobian`` (rows, latents, features).
    """

    within: Tensor
    shares: Tensor
    total: Tensor
    jacobian: Tensor

    @cached_property
    def columns(self) -> Tensor:
        """``jacobian`` (latents, rows · features)."""
        return self.jacobian.transpose(0, 1).flatten(1)

    @cached_property
    def room(self) -> Tensor:
        """For the derivatives after all candidates' maps, overwritten by each evaluation of F and by its gradient."""
        n_latents, n_numbers = self.columns.shape
        return self.jacobian.new_empty(CANDIDATES * n_latents, n_numbers)


def rotation_objective(turns: Tensor, moments: Moments, cost: float, scale: float = COUNT_SCALE) -> Tensor:
    """``F`` (candidates,) in nats per row of maps B (candidates, latents, latents), each entry worth ``cost`` λ.

    ``scale`` c: entries above it count nearly alike, those below by their size.
    """
    variance = _variances(turns, moments.within[:, None])
    divergence = 0.5 * (moments.shares @ variance.log().sum(-1)) - torch.linalg.slogdet(turns)[1]
    if cost == 0:
        return divergence
    count = (_weights(turns, moments) / scale).log1p().sum((1, 2)) / math.log1p(1 / scale)
    return divergence + cost * count


def best_map(moments: Moments, cost: float, seed: int, scale: float = COUNT_SCALE) -> Tensor | None:
    """The best map B (latents, latents) found, scaled to latents of variance 1; None where none is better than none.

    Descent from no map at all and from random rotations of the whitened latents.
    """
    total = moments.total
    n = len(total)
    if n == 1:
        return None
    generator = torch.Generator().manual_seed(seed)
    values, vectors = torch.linalg.eigh(total)
    whiten = vectors @ torch.diag(values.clamp_min(1e-12).rsqrt()) @ vectors.T
    noise = torch.randn(CANDIDATES - 1, n, n, generator=generator, dtype=total.dtype)
    identity = torch.diag(total.diagonal().clamp_min(1e-12).rsqrt())[None]
    turns = torch.cat([identity, torch.linalg.qr(noise)[0] @ whiten]).requires_grad_()
    optimizer = torch.optim.Adam([turns], lr=_RATE)
    for step in range(_STEPS):
        optimizer.param_groups[0]["lr"] = _RATE * min(1.0, 2.0 * (1.0 - step / _STEPS))
        optimizer.zero_grad()
        rotation_objective(turns, moments, cost, scale).sum().backward()
        optimizer.step()
    with torch.no_grad():
        found = rotation_objective(turns, moments, cost, scale)
        found = torch.where(torch.isfinite(found), found, math.inf)
        best = int(found.argmin())
        if not found[best] < rotation_objective(identity, moments, cost, scale)[0] - _LEAST_GAIN:
            return None
        turn = turns[best] / _variances(turns[best : best + 1], total)[0].sqrt().unsqueeze(-1)
    return _in_order(turn, total)


def best_rotation(jacobian: Tensor, seed: int) -> Tensor | None:
    """The rotation (latents, latents) of N(0, I) that leaves fewest entries; None where none is better than none.

    ``jacobian`` (rows, latents, features), in float64.
    """
    identity = torch.eye(jacobian.shape[1], dtype=jacobian.dtype)
    turn = best_map(Moments(identity[None], identity.new_ones(1), identity, jacobian), _ROTATION_COST, seed)
    if turn is None:
        return None
    left, _, right = torch.linalg.svd(turn)
    return left @ right


def _weights(turns: Tensor, moments: Moments) -> Tensor:
    """``w`` (candidates, latents, features)."""
    # A candidate that has become singular is no reason to lose the others.
    back = torch.linalg.inv_ex(turns)[0].transpose(1, 2)
    result: Tensor = _MeanSize.apply(back, moments) * _variances(turns, moments.total).sqrt().unsqueeze(-1)
    return result


def _variances(turns: Tensor, covariance: Tensor) -> Tensor:
    """Diagonals (..., candidates, latents) of ``B C Bᵀ``."""
    return (torch.matmul(turns, covariance) * turns).sum(-1)


def _in_order(turn: Tensor, total: Tensor) -> Tensor:
    """Rows of ``turn`` (new latents) in the order and with the signs of the old latents they resemble most."""
    resemblance = turn @ total / total.diagonal().sqrt()
    left, order, signs = resemblance.abs().clone(), [0] * len(turn), [1.0] * len(turn)
    for _ in range(len(turn)):
        new, old = divmod(int(left.argmax()), len(turn))
        order[old], signs[old] = new, 1.0 if resemblance[new, old] >= 0 else -1.0
        left[new], left[:, old] = -1.0, -1.0
    return turn[order] * turn.new_tensor(signs).unsqueeze(-1)
