r"""Losses of generator and discriminator, and what the generator pays for its latents.

Non-saturating logistic losses (Goodfellow et al. 2014) with a gradient penalty on real rows (R1, Mescheder, Geiger,
Nowozin 2018, arXiv:1801.04406), which is computed in one step of several and weighs accordingly more:

.. math:: L_D = E\,\zeta(D(\tilde x, u)) + E\,\zeta(-D(x, u)) + \tfrac{\gamma}{2} E\,\|\nabla_x D(x, u)\|^2, \qquad
          L_G = E\,\zeta(-D(\tilde x, u)), \qquad \zeta(t) = \log(1 + e^t)

The generator also pays for every latent that domains move, and for every feature that a latent moves, of images that a
style latent moves:

.. math:: M = \sum_i \big(E_u \|e_{iu}\|^2\big)^{1/2}, \qquad
          S = \sum_{i,k} \rho\big(E\,|\partial \tilde x_k / \partial z_i| \, \mathrm{sd}(z_i)\big)

with the effects e of each domain on the parameters of a latent's distribution, domains in their shares of the batch,
and ρ of ``sparsity.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

_LEAST = 1e-12


def discriminator_loss(real: Tensor, generated: Tensor) -> Tensor:
    """Logistic loss of the discriminator, a mean over the scores (rows,) of real and generated rows."""
    return softplus(generated).mean() + softplus(-real).mean()


def generator_loss(generated: Tensor) -> Tensor:
    """Non-saturating logistic loss of the generator, a mean over the scores (rows,) of generated rows."""
    return softplus(-generated).mean()


def relativistic_loss(better: Tensor, worse: Tensor) -> Tensor:
    """Logistic loss of pairs of scores (rows,): ``better`` is to exceed ``worse`` (Jolicoeur-Martineau 2018)."""
    return softplus(worse - better).mean()


def gradient_penalty(score: Tensor, x: Tensor) -> Tensor:
    """``E ‖∇_x D‖²`` for the scores (rows,) of the rows ``x`` (rows, ...); it takes part in differentiation."""
    (gradient,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def mask_penalty(effects: Tensor) -> Tensor:
    """``Σ_i rms(e_i)``, an L1 norm over latents, for ``effects`` (domains, parameters, latents)."""
    return (effects.square().sum(1).mean(0) + _LEAST).sqrt().sum()
