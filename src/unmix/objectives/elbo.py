r"""The evidence lower bound (ELBO) of the VAE, term by term, in nats per row.

.. math:: -\mathrm{ELBO} = -E_q \log p(x \mid z) + \beta\,[E_q \log q(z \mid x) - E_q \log p(z \mid u)]

Networks here are so small that a step takes as long as its operations are many. Likelihood and KL therefore state their
derivatives in closed form, in fewer operations than automatic differentiation would need.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOG_TWO_PI = math.log(2 * math.pi)
SMALL = 1e-3


def gaussian_nll(x: Tensor, mean: Tensor, log_noise: Tensor, observed: Tensor | None = None) -> Tensor:
    """``-log N(x; mean, exp(log_noise)²)`` summed over features; missing entries (``observed`` = 0) leave the sum.

    Shapes: ``x`` (batch, features), ``mean`` (starts, batch, features), ``log_noise`` (starts, 1, features), or
    (starts, 1, 1) where all features share it; returns (starts, batch). No derivatives by ``x``.
    """
    result: Tensor = _NLL.apply(x, mean, log_noise, observed)
    return result


def gaussian_negentropy(log_diagonal: Tensor) -> Tensor:
    """Each latent's ``E_q log q`` of a Gaussian, from the log-diagonal of its Cholesky factor, (..., latents)."""
    return -(log_diagonal + 0.5 * (1 + LOG_TWO_PI))


def gaussian_kl(mean: Tensor, log_diagonal: Tensor, lower: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
    r"""Each latent's part of KL(N(μ, L Lᵀ) ‖ N(m, diag(s)²)), L = diag(d) (I + C), C strictly lower triangular.

    .. math:: \tfrac{1}{2 s_i^2} \left[ (\mu_i - m_i)^2 + d_i^2 \left( 1 + \sum_j C_{ij}^2 \right) \right]
              + \log s_i - \log d_i - \tfrac12

    Shapes: ``mean`` μ and ``log_diagonal`` log d (starts, batch, latents), ``lower`` C (starts, batch, latents,
    latents); ``location`` m and ``log_scale`` log s of any shapes that broadcast to it. Returns that of ``mean``.
    """
    result: Tensor = _KL.apply(mean, log_diagonal, lower, location, log_scale)
    return result


def wallace(inverse_degrees: Tensor) -> Tensor:
    """c = (8 ν + 1) / (8 ν + 3), from 1/ν."""
    return (8.0 + inverse_degrees) / (8.0 + 3.0 * inverse_degrees)


def student_slope(squares: Tensor, inverse_degrees: Tensor) -> tuple[Tensor, Tensor]:
    """ε / t and log dε/dt of Wallace's map of Student's t to a normal distribution, from t² and 1/ν."""
    grown = squares * inverse_degrees
    logged = grown.log1p()
    ratio = _shrunk(grown, logged)
    c = wallace(inverse_degrees)
    return c * ratio.sqrt(), c.log() - logged - 0.5 * ratio.log()


def student_kl(
    mean: Tensor, log_diagonal: Tensor, lower: Tensor, location: Tensor, log_scale: Tensor, inverse_degrees: Tensor
) -> Tensor:
    r"""Each latent's part of KL(N(μ, L Lᵀ) ‖ p), p of location m and scale s with tails of Student's t, or a bit more.

    With :math:`h(t^2) = -\log p + \log s`, which is concave in t²,

    .. math:: -E_q \log p(z_i) \le \log s_i + h(E_q t_i^2), \qquad
              E_q t_i^2 = \left[ (\mu_i - m_i)^2 + d_i^2 (1 + \textstyle\sum_j C_{ij}^2) \right] / s_i^2

    by Jensen's inequality: the evidence bound stays one, and needs no draw. It is exact for ν → ∞, and close where the
    posterior is narrow. Arguments as for ``gaussian_kl``, with 1/ν.
    """
    gaussian = gaussian_kl(mean, log_diagonal, lower, location, log_scale)
    rest = log_scale - log_diagonal
    squares = 2.0 * (gaussian - rest) + 1.0
    ratio, log_slope = student_slope(squares, inverse_degrees)
    return rest + 0.5 * (squares * ratio.square() - 1.0) - log_slope


def _shrunk(grown: Tensor, logged: Tensor) -> Tensor:
    """log(1 + y) / y, also at y = 0."""
    return torch.where(grown > SMALL, logged / grown.clamp_min(SMALL), 1.0 - grown / 2.0 + grown.square() / 3.0)


class _NLL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, log_noise: Tensor, observed: Tensor | None) -> Tensor:
        precision = (-log_noise).exp()
        residual = (x - mean).mul_(precision)
        constants = (log_noise + 0.5 * LOG_TWO_PI).expand(*log_noise.shape[:-1], x.shape[-1])
        if observed is not None:
            residual, constants = residual.mul_(observed), constants * observed
        ctx.save_for_backward(residual, precision, observed)
        return torch.add(constants.sum(-1), residual.square().sum(-1), alpha=0.5)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor, None]:
        residual, precision, observed = ctx.saved_tensors
        gradient = gradient.unsqueeze(-1)
        weighted = gradient * residual
        counted = gradient if observed is None else gradient * observed
        by_log_noise = counted.sum(1, keepdim=True) - (weighted * residual).sum(1, keepdim=True)
        return None, weighted.mul_(-precision), by_log_noise, None


class _KL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, mean: Tensor, log_diagonal: Tensor, lower: Tensor, location: Tensor, log_scale: Tensor
    ) -> Tensor:
        ctx.shapes = location.shape, log_scale.shape
        precision, variance = (-2.0 * log_scale).exp_(), (2.0 * log_diagonal).exp_()
        spread = lower.square().sum(-1).add_(1.0).mul_(variance)
        residual = mean - location
        ctx.save_for_backward(residual, precision, variance, spread, lower)
        squares = torch.addcmul(spread, residual, residual).mul_(precision)
        return squares.sub_(1.0).mul_(0.5).add_(log_scale).sub_(log_diagonal)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        residual, precision, variance, spread, lower = ctx.saved_tensors
        weight = gradient * precision
        by_mean = weight * residual
        by_log_diagonal = torch.addcmul(-gradient, weight, spread)
        by_log_scale = torch.addcmul(by_log_diagonal, by_mean, residual).neg_()
        by_lower = weight.mul_(variance).unsqueeze(-1) * lower
        return (
            by_mean,
            by_log_diagonal,
            by_lower,
            (-by_mean).sum_to_size(ctx.shapes[0]),
            by_log_scale.sum_to_size(ctx.shapes[1]),
        )
