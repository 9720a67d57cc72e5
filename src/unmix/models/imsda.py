r"""iMSDA: content latents whose distribution no domain changes, and style latents that every domain changes.

.. math:: z = (z_c, z_s), \qquad z_c \sim N(0, I), \qquad F_u(z_s) \sim N(0, I),

    \min\; -E_q \log p(x \mid z) + \beta\,[E_q \log q(z \mid x) - E_q \log p(z_c) - E_q \log p(z_s \mid u)]

Kong, Xie, Yao, Zheng, Chen, Stojanov, Akinwande, Zhang: Partial Identifiability for Domain Adaptation, ICML 2022.
F_u is a monotone map of each style latent by itself: location-scale and a rational-quadratic spline. The
paper's classifier of labelled source rows is no part of it: no labels of rows are used here. The effects of domains
carry the Gaussian penalty of ``distributions/prior.py``. Encoder q(z | x) with a diagonal covariance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unmix.data.batches import Rows
from unmix.distributions.likelihood import gaussian_of
from unmix.distributions.prior import PriorDistribution, SplinePrior
from unmix.models.base import LatentModel
from unmix.models.vaes import VAEConfig, dense_decoder, diagonal_encoder
from unmix.nets.layers import generators


@dataclass(frozen=True)
class IMSDAConfig(VAEConfig):
    """The last ``n_style`` latents are style; ``kl_weight`` is β."""

    n_style: int = 2
    kl_weight: float = 1.0


class ContentStyle(PriorDistribution):
    """N(0, I) for the first latents, ``style`` for the last ``n_style``."""

    def __init__(self, style: PriorDistribution, n_style: int) -> None:
        self.style, self.n_style = style, n_style

    def to_noise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        content, style = self._split(z)
        noise, log_slope = self.style.to_noise(style)
        return torch.cat([content, noise], dim=-1), torch.cat([torch.zeros_like(content), log_slope], dim=-1)

    def from_noise(self, noise: Tensor) -> Tensor:
        content, style = self._split(noise)
        return torch.cat([content, self.style.from_noise(style)], dim=-1)

    def _split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z[..., : -self.n_style], z[..., -self.n_style :]


class IMSDANetwork(LatentModel):
    """R + β KL with a prior that only the style latents share with the domain."""

    def __init__(self, config: IMSDAConfig) -> None:
        sources = generators(config.seed, config.n_starts)
        super().__init__(config, diagonal_encoder(sources, config), dense_decoder(sources, config), gaussian_of(config))
        self.style_prior = SplinePrior(sources, config.n_style, config.n_design, config.interactions)

    def prior(self, design: Tensor) -> PriorDistribution:
        return ContentStyle(self.style_prior(design), self.config.n_style)

    def terms(self, rows: Rows, noise: Tensor, n_train: int, penalty_rows: int, progress: float) -> dict[str, Tensor]:
        posterior = self.encode(rows.x, rows.observed)
        z = posterior.sample(noise)
        return {
            "reconstruction": self.reconstruction(rows, z),
            "kl": self.kl(rows, posterior, z),
            "shrinkage": self.style_prior.shrinkage() / n_train,
        }

    def weights(self, progress: float) -> Mapping[str, float]:
        return {"reconstruction": 1.0, "kl": self.config.kl_weight, "shrinkage": 1.0}
