r"""Sparse mixing as a penalty that does not see the scale of z.

.. math:: S(\hat g, z) = \sum_k \sum_i E\,\left| \frac{\partial \hat x_k}{\partial z_i} \right| \mathrm{sd}(z_i)

Features are in units of their standard deviation. Without ``sd(z_i)`` the penalty could be driven to 0 by
inflating z while nothing becomes sparse: the prior is learnt, so the scale of z is free.
"""

from __future__ import annotations

from torch import Tensor


def jacobian_l1(jacobian: Tensor, latent_std: Tensor) -> Tensor:
    """``S`` from a Jacobian (starts, rows, latents, features) and ``sd(z)`` (starts, latents); returns (starts,)."""
    return (jacobian.abs().mean(1) * latent_std.unsqueeze(-1)).sum((1, 2))


def jacobian_l2(jacobian: Tensor, latent_std: Tensor) -> Tensor:
    """The squared form, for comparison: it shrinks entries and does not zero them."""
    return (jacobian.square().mean(1) * latent_std.square().unsqueeze(-1)).sum((1, 2))


def group_l1(norms: Tensor, latent_std: Tensor) -> Tensor:
    """Group form from path norms (starts, latents, features) and ``sd(z)`` (starts, latents); returns (starts,)."""
    return (norms * latent_std.unsqueeze(-1)).sum((1, 2))
