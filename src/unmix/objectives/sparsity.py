r"""Sparse mixing as a penalty that does not see the scale of z.

.. math:: w_{ki} = E\,\left| \frac{\partial \hat x_k}{\partial z_i} \right| \mathrm{sd}(z_i), \qquad
          S = \sum_{ki} w_{ki} \quad\text{(L1)}, \qquad S = \sum_{ki} c \log(1 + w_{ki} / c) \quad\text{(log)}

Features are in units of their standard deviation. Without ``sd(z_i)`` the penalty could be driven to 0 by
inflating z while nothing becomes sparse: the prior is learnt, so the scale of z is free.

The log form is the L1 norm with weights that fall where an entry is large (Candès, Wakin, Boyd 2008, reweighted L1).
Plain L1 also presses on entries that are truly there, and can prefer a denser mixing of smaller entries.

Spike-and-slab lasso (Ročková & George 2018), for weights m of a decoder, with the mixture indicator summed out:

.. math:: p(m_{ki}) = \eta_i\, \tfrac{\lambda_1}{2} e^{-\lambda_1 |m_{ki}|}
          + (1 - \eta_i)\, \tfrac{\lambda_0}{2} e^{-\lambda_0 |m_{ki}|}, \qquad \eta_i \sim \mathrm{Beta}(1, d)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

LOG_SCALE = 0.05


class _SumOfSizes(torch.autograd.Function):
    """``Σ |J|`` over rows (starts, latents, features).

    A product with ones takes less time than a norm along the rows.
    """

    @staticmethod
    def forward(ctx: Any, jacobian: Tensor) -> Tensor:
        ctx.save_for_backward(jacobian)
        starts, n_rows, *shape = jacobian.shape
        return torch.bmm(jacobian.new_ones(starts, 1, n_rows), jacobian.abs().flatten(2)).view(starts, *shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_sum: Tensor) -> Tensor:
        (jacobian,) = ctx.saved_tensors
        return torch.sgn(jacobian).mul_(by_sum.unsqueeze(1))


def jacobian_weights(jacobian: Tensor, latent_std: Tensor) -> Tensor:
    """``w`` (starts, latents, features) from a Jacobian (starts, rows, latents, features) and sd(z)."""
    sums: Tensor = _SumOfSizes.apply(jacobian)
    return sums * (latent_std / jacobian.shape[1]).unsqueeze(-1)


def group_weights(norms: Tensor, latent_std: Tensor) -> Tensor:
    """``w`` from path norms (starts, latents, features) and ``sd(z)`` (starts, latents)."""
    return norms * latent_std.unsqueeze(-1)


def l1_penalty(weights: Tensor) -> Tensor:
    """``Σ w`` (starts,)."""
    return weights.sum((1, 2))


def log_penalty(weights: Tensor) -> Tensor:
    """``Σ c log(1 + w / c)`` (starts,), c = 0.05: slope 1 at 0, a half at w = c."""
    return LOG_SCALE * (weights / LOG_SCALE).log1p().sum((1, 2))


def l2_penalty(weights: Tensor) -> Tensor:
    """``Σ w²`` (starts,), for comparison: it shrinks entries and does not zero them."""
    return weights.square().sum((1, 2))


PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {"log": log_penalty, "l1": l1_penalty, "l2": l2_penalty}


def spike_and_slab(mask: Tensor, logit: Tensor, spike: float, slab: float) -> Tensor:
    """``-log p(m | η) - log p(η)`` (starts,) without the constant of the Beta.

    Shapes: ``mask`` m (starts, features, latents), ``logit`` of η (starts, 1, latents); rates λ0 = ``spike`` and
    λ1 = ``slab``. Its derivative in |m| is λ1 p* + λ0 (1 - p*) with p* = ``slab_probability``.
    """
    in_slab, in_spike = _components(mask, logit, spike, slab)
    log_beta = -(mask.shape[1] - 1) * functional.softplus(logit)
    return -in_slab.logaddexp(in_spike).sum((1, 2)) - log_beta.sum((1, 2))


def slab_probability(mask: Tensor, logit: Tensor, spike: float, slab: float) -> Tensor:
    """Probability p* (starts, features, latents) that an entry comes from the slab."""
    in_slab, in_spike = _components(mask, logit, spike, slab)
    return (in_slab - in_spike).sigmoid()


def _components(mask: Tensor, logit: Tensor, spike: float, slab: float) -> tuple[Tensor, Tensor]:
    size = mask.abs()
    in_slab = functional.logsigmoid(logit) + math.log(slab / 2) - slab * size
    return in_slab, functional.logsigmoid(-logit) + math.log(spike / 2) - spike * size
