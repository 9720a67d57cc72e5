r"""iVAE: encoder q(z | x, u), and a Gaussian prior p(z | u) that a network computes from u; no sparsity.

.. math:: \min\; -E_q \log p(x \mid z) + \mathrm{KL}(q(z \mid x, u) \| p(z \mid u)), \qquad
          p(z \mid u) = \prod_i N(z_i; m_i(u), s_i(u)^2)

Khemakhem, Kingma, Monti, Hyvärinen 2020, arXiv:1907.04809. The published code has m = 0 and a network for log s; with
``prior_mean="learned"`` the same network gives m too. Encoder mean and spread are two outputs of one network here, of
two networks there; both posteriors are diagonal. Without u the model is a VAE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from unmix.data.batches import Rows
from unmix.distributions.likelihood import gaussian_of
from unmix.distributions.prior import LocationScale, PriorDistribution, bounded
from unmix.models.base import LatentModel
from unmix.models.vaes import VAEConfig, dense_decoder, diagonal_encoder
from unmix.nets.layers import StackedMLP, generators

PRIOR_MEANS = ("zero", "learned")


@dataclass(frozen=True)
class IVAEConfig(VAEConfig):
    """``prior_mean``: "zero", u changes the variances alone; or "learned", u changes means and variances."""

    prior_mean: str = "zero"


class IVAENetwork(LatentModel):
    """R + KL(q(z | x, u) ‖ p(z | u))."""

    def __init__(self, config: IVAEConfig) -> None:
        sources = generators(config.seed, config.n_starts)
        encoder = diagonal_encoder(sources, config, config.n_design)
        super().__init__(config, encoder, dense_decoder(sources, config), gaussian_of(config))
        self.prior_network: StackedMLP | None = None
        if config.n_design:
            n_outputs = config.n_latents * (2 if config.prior_mean == "learned" else 1)
            self.prior_network = StackedMLP(
                sources, config.n_design, config.hidden, n_outputs, activation=config.activation
            )

    def prior(self, design: Tensor) -> PriorDistribution:
        if self.prior_network is None:
            return super().prior(design)
        log_scale, *location = self.prior_network(design).split(self.n_latents, dim=-1)
        return LocationScale(location[0] if location else log_scale.new_zeros(()), bounded(log_scale))

    def terms(self, rows: Rows, noise: Tensor, n_train: int, penalty_rows: int, progress: float) -> dict[str, Tensor]:
        posterior = self.encode(rows.x, rows.observed, rows.design)
        z = posterior.sample(noise)
        return {
            "reconstruction": self.reconstruction(rows, z),
            "kl": self.kl(rows, posterior, z),
        }

    def weights(self, progress: float) -> Mapping[str, float]:
        return {"reconstruction": 1.0, "kl": 1.0}
