r"""The linear map of the latents that fits domains and sparsity best.

Gradient descent on encoder and decoder often ends with latents that are the true ones up to an invertible linear map
``z' = B z``: turning a pair of latents is uphill for networks that have settled. Along such maps the reconstruction
does not change, and what is left of the objective is cheap enough to be searched as a whole:

.. math:: F(B) = \tfrac12 \sum_u \pi_u \sum_i \log (B C_u B^\top)_{ii} - \log |\det B|
          + \lambda \sum_{ik} \rho(w_{ik}), \qquad
          w_{ik} = E\,\Big| \frac{\partial \hat x_k}{\partial z'_i} \Big| \mathrm{sd}(z'_i)

The first two terms are the divergence from the best Gaussian prior with a mean and a variance for each latent and
domain: approximate joint diagonalisation of the domains' covariances C_u (Pham 2001). The last is nearly a count of the
entries of the mixing, each worth λ nats (``Count``), or nearly their L1 norm (``SmoothL1``). F does not see scale, sign
or order of the latents.

Latents that are N(0, I) in every domain keep their distribution under rotations alone; there sparsity decides, and a
small λ leaves the first two terms to hold B to a rotation, to whose nearest it is then set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

CANDIDATES = 16
_STEPS = 150
_RATE = 0.05
_LEAST_GAIN = 1e-3
_ROTATION_COST = 0.01


class Penalty(Protocol):
    """λ Σ ρ(w) of entries w (candidates, latents, features), for λ = ``cost``, and its derivative by w."""

    def value(self, w: Tensor, cost: float) -> Tensor: ...

    def slope(self, w: Tensor, cost: float) -> Tensor: ...


@dataclass(frozen=True)
class Count:
    """ρ = log(1 + w / c) / log(1 + 1 / c): entries above c count nearly alike, those below by their size."""

    c: float = 0.02

    def value(self, w: Tensor, cost: float) -> Tensor:
        return cost / math.log1p(1 / self.c) * (w / self.c).log1p().sum((1, 2))

    def slope(self, w: Tensor, cost: float) -> Tensor:
        return cost / math.log1p(1 / self.c) / (self.c + w)


@dataclass(frozen=True)
class SmoothL1:
    """ρ = √(w² + ε²) − ε: the sum of the entries, where those below ε hardly matter.

    |w| has a kink where an entry is 0, and F an optimum wherever a few small entries are: there are many, nearly equal,
    and which of them is best depends on chance.
    """

    epsilon: float

    def value(self, w: Tensor, cost: float) -> Tensor:
        return cost * ((w.square() + self.epsilon**2).sqrt() - self.epsilon).sum((1, 2))

    def slope(self, w: Tensor, cost: float) -> Tensor:
        return cost * w / (w.square() + self.epsilon**2).sqrt()


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


COUNT = Count()


def rotation_objective(turns: Tensor, moments: Moments, cost: float, penalty: Penalty = COUNT) -> tuple[Tensor, Tensor]:
    r"""``F`` (candidates,) in nats per row of maps B (candidates, latents, latents), and its gradient, shaped like B.

    ``cost`` λ weighs the ``penalty``. With ``w_{ik} = m_{ik} \sqrt{t_i}``, t the variances under ``total``, A the
    inverse of Bᵀ and G the derivative by A,

    .. math:: \frac{\partial F}{\partial B_i} = \sum_u \pi_u \frac{(B C_u)_i}{(B C_u B^\top)_{ii}} - A_i
              + (B T)_i \sum_k \frac{\partial F}{\partial w_{ik}} \frac{m_{ik}}{\sqrt{t_i}} - (A G^\top A)_i .
    """
    # A candidate that has become singular is no reason to lose the others.
    back = torch.linalg.inv_ex(turns)[0].transpose(1, 2)
    turned = torch.matmul(turns, moments.within[:, None])
    variance = (turned * turns).sum(-1)
    value = 0.5 * (moments.shares @ variance.log().sum(-1)) - torch.linalg.slogdet(turns)[1]
    gradient = torch.tensordot(moments.shares, turned / variance.unsqueeze(-1), dims=1) - back
    if cost == 0:
        return value, gradient
    turned = turns @ moments.total
    spread = (turned * turns).sum(-1, keepdim=True).sqrt()
    sizes, signs = _mean_sizes(back, moments)
    weights = sizes * spread
    by_weight = penalty.slope(weights, cost)
    by_back = _through_sizes(by_weight * spread, signs, moments)
    gradient += turned * ((by_weight * sizes).sum(-1, keepdim=True) / spread)
    gradient -= back @ by_back.transpose(1, 2) @ back
    return value + penalty.value(weights, cost), gradient


def _mean_sizes(back: Tensor, moments: Moments) -> tuple[Tensor, Tensor]:
    """``E |B^-T J|`` (candidates, latents, features) of maps ``B^-T``, and all derivatives, sampled row by row.

    One matrix product for all candidates, since so many small ones take several times as long, into memory that every
    step uses again, since asking for it anew takes longer than to compute what it holds.
    """
    n_rows, n_latents, n_features = moments.jacobian.shape
    room = moments.room[: len(back) * n_latents]
    torch.mm(back.flatten(0, 1), moments.columns, out=room)
    turned = room.view(-1, n_latents, n_rows, n_features)
    return torch.linalg.vector_norm(turned, 1, dim=2) / n_rows, turned


def _through_sizes(by_sizes: Tensor, turned: Tensor, moments: Moments) -> Tensor:
    """The derivative by ``B^-T`` (candidates, latents, latents); overwrites ``turned`` of ``_mean_sizes``."""
    by_turned = turned.sign_().mul_((by_sizes / turned.shape[2]).unsqueeze(2))
    result: Tensor = by_turned.flatten(2).flatten(0, 1) @ moments.columns.T
    return result.view(by_sizes.shape[0], by_sizes.shape[1], -1)


@torch.no_grad()
def best_map(moments: Moments, cost: float, seed: int, penalty: Penalty = COUNT) -> Tensor | None:
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
    turns = torch.cat([identity, torch.linalg.qr(noise)[0] @ whiten])
    optimizer = torch.optim.Adam([turns], lr=_RATE, fused=True)
    for step in range(_STEPS):
        optimizer.param_groups[0]["lr"] = _RATE * min(1.0, 2.0 * (1.0 - step / _STEPS))
        # Adam in one kernel asks for the strides of ``turns``.
        turns.grad = rotation_objective(turns, moments, cost, penalty)[1].contiguous()
        optimizer.step()
    found = rotation_objective(turns, moments, cost, penalty)[0]
    found = torch.where(torch.isfinite(found), found, math.inf)
    best = int(found.argmin())
    if not found[best] < rotation_objective(identity, moments, cost, penalty)[0][0] - _LEAST_GAIN:
        return None
    turn = turns[best] / (turns[best] @ total * turns[best]).sum(-1, keepdim=True).sqrt()
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


def _in_order(turn: Tensor, total: Tensor) -> Tensor:
    """Rows of ``turn`` (new latents) in the order and with the signs of the old latents they resemble most."""
    resemblance = turn @ total / total.diagonal().sqrt()
    left, order, signs = resemblance.abs().clone(), [0] * len(turn), [1.0] * len(turn)
    for _ in range(len(turn)):
        new, old = divmod(int(left.argmax()), len(turn))
        order[old], signs[old] = new, 1.0 if resemblance[new, old] >= 0 else -1.0
        left[new], left[:, old] = -1.0, -1.0
    return turn[order] * turn.new_tensor(signs).unsqueeze(-1)
