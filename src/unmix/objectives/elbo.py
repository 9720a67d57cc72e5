r"""The evidence bound of the VAE, term by term, in nats a row.

.. math:: -\mathrm{ELBO} = -E_q \log p(x \mid z) + \beta\,[E_q \log q(z \mid x) - E_q \log p(z \mid u)]
"""

from __future__ import annotations

import math

from torch import Tensor

LOG_TWO_PI = math.log(2 * math.pi)


def gaussian_nll(x: Tensor, mean: Tensor, log_noise: Tensor, observed: Tensor | None = None) -> Tensor:
    """``-log N(x; mean, exp(log_noise)²)`` summed over features; missing entries (``observed`` = 0) leave the sum.

    Shapes: ``x`` (batch, features), ``mean`` (starts, batch, features), ``log_noise`` (starts, 1, features);
    returns (starts, batch).
    """
    residual, constants = (x - mean) * (-log_noise).exp(), log_noise + 0.5 * LOG_TWO_PI
    if observed is not None:
        residual, constants = residual * observed, constants * observed
    return 0.5 * residual.square().sum(-1) + constants.sum(-1)


def gaussian_negentropy(diagonal: Tensor) -> Tensor:
    """Each latent's part (..., latents) of ``E_q log q`` of a Gaussian, from the diagonal of its Cholesky factor."""
    return -(diagonal.log() + 0.5 * (1 + LOG_TWO_PI))
