r"""CG-VAE: a variational autoencoder with a domain-encoding prior and a sparse mixing.

.. math:: \min\; -E_q \log p(x \mid z) + \beta\,[E_q \log q(z \mid x) - E_q \log p(z \mid u)] + \alpha\, S(\hat g, z)

Li et al., ICLR 2025, arXiv:2503.00639: ``L_r + α L_s − β L_KL`` with a learned observation noise and with ``S`` made
free of the scale of z (``objectives/sparsity.py``).

α rises from 0 over the first half of training, since at full strength while the noise is still being learnt it
collapses all latents, and falls to a fifth until four fifths: strong sparsity leads to the right latents, and weak
sparsity does not bend them. Over the first half a floor under the observation noise falls to 0: with small noise the
reconstruction outweighs everything else so early that encoder and decoder settle on latents that are mixed with each
other, and turning them later is uphill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unmix.data.batches import Rows
from unmix.models.base import LatentModel
from unmix.nets.decoder import DenseDecoder, FeatureDecoder
from unmix.nets.encoder import Encoder
from unmix.nets.layers import Generators, generators
from unmix.nets.prior import DomainPrior, GaussianPrior, PriorDistribution, SplinePrior
from unmix.objectives.elbo import gaussian_nll
from unmix.objectives.sparsity import PENALTIES, group_weights, jacobian_weights

PRIORS: dict[str, type[DomainPrior]] = {"gaussian": GaussianPrior, "spline": SplinePrior}
DECODERS = ("dense", "feature")
_NEGLIGIBLE = 0.01


@dataclass(frozen=True)
class CGVAEConfig:
    """Everything that fixes the networks and the objective; ``hidden`` are the widths of encoder and dense decoder.

    ``decoder``: "dense" (one network, L1 of its Jacobian) or "feature" (one small network a feature, group penalty).
    ``sparsity`` and ``kl_weight`` are α and β; ``ramp`` is the share of training over which α rises and the noise
    floor, in standard deviations of the features, falls to 0; until ``relaxed`` α falls to ``final_strength`` of it.
    """

    n_latents: int
    n_features: int
    n_design: int = 0
    interactions: bool = False
    masked: bool = False
    hidden: tuple[int, ...] = (64, 64)
    decoder: str = "dense"
    prior: str = "gaussian"
    sparsity: float = 0.5
    penalty: str = "log"
    kl_weight: float = 1.0
    n_starts: int = 1
    seed: int = 0
    feature_width: int = 16
    initial_noise: float = 0.1
    noise_floor: float = 0.5
    ramp: float = 0.5
    relaxed: float = 0.8
    final_strength: float = 0.2


class CGVAENetwork(LatentModel):
    """Encoder, decoder with learned noise, and prior p(z | u), for ``config.n_starts`` starts at once."""

    def __init__(self, config: CGVAEConfig) -> None:
        sources = generators(config.seed, config.n_starts)
        encoder = Encoder(sources, config.n_features, config.hidden, config.n_latents, config.masked)
        super().__init__(config, encoder, _DECODERS[config.decoder](sources, config), None, config.initial_noise)
        self.domain_prior = PRIORS[config.prior](sources, config.n_latents, config.n_design, config.interactions)

    def prior(self, design: Tensor) -> PriorDistribution:
        distribution: PriorDistribution = self.domain_prior(design)
        return distribution

    def terms(self, rows: Rows, noise: Tensor, n_train: int, penalty_rows: int, progress: float) -> dict[str, Tensor]:
        posterior = self.encode(rows.x, rows.observed)
        z = posterior.sample(noise)
        output, sparsity = self._decode_and_penalise(z, penalty_rows)
        return {
            "reconstruction": gaussian_nll(rows.x, output, self._log_noise_at(progress), rows.observed).mean(1),
            "kl": self.kl(rows, posterior, z),
            "sparsity": sparsity,
            "shrinkage": self.domain_prior.shrinkage() / n_train,
        }

    def _log_noise_at(self, progress: float) -> Tensor:
        """Log of the noise, with the floor that is still in force added to its variance."""
        floor = self.config.noise_floor * (1.0 - progress / self.config.ramp) if self.config.ramp > 0 else 0.0
        if floor <= 0:
            return self.log_noise
        return 0.5 * torch.logaddexp(2.0 * self.log_noise, self.log_noise.new_tensor(2.0 * math.log(floor)))

    def weights(self, progress: float) -> Mapping[str, float]:
        return {
            "reconstruction": 1.0,
            "kl": self.config.kl_weight,
            "sparsity": self.config.sparsity * self._strength(progress),
            "shrinkage": 1.0,
        }

    def settled(self, progress: float) -> bool:
        return progress >= self.config.relaxed

    def _strength(self, progress: float) -> float:
        """Share of α: up to 1 at ``ramp``, down to ``final_strength`` at ``relaxed``."""
        ramp, relaxed, final = self.config.ramp, self.config.relaxed, self.config.final_strength
        if progress >= relaxed:
            return final
        if progress < ramp:
            return progress / ramp
        return 1.0 + (final - 1.0) * (progress - ramp) / (relaxed - ramp)

    @torch.no_grad()
    def settle(self, latent_std: Tensor) -> None:
        """A feature decoder's entries below 1 % of a standard deviation become exactly 0."""
        if isinstance(self.decoder, FeatureDecoder):
            self.decoder.drop(self.decoder.group_norms() * latent_std.unsqueeze(-1) < _NEGLIGIBLE)

    def _decode_and_penalise(self, z: Tensor, penalty_rows: int) -> tuple[Tensor, Tensor]:
        latent_std = z.std(1, correction=0)
        if self.config.sparsity == 0:
            return self.decode(z), z.new_zeros(self.n_starts)
        penalty = PENALTIES[self.config.penalty]
        if isinstance(self.decoder, FeatureDecoder):
            return self.decode(z), penalty(group_weights(self.decoder.group_norms(), latent_std))
        output, jacobian = self.decode_with_jacobian(z, min(penalty_rows, z.shape[1]))
        return output, penalty(jacobian_weights(jacobian, latent_std))


def _feature_decoder(sources: Generators, config: CGVAEConfig) -> FeatureDecoder:
    return FeatureDecoder(sources, config.n_latents, config.feature_width, config.n_features)


def _dense_decoder(sources: Generators, config: CGVAEConfig) -> DenseDecoder:
    return DenseDecoder(sources, config.n_latents, config.hidden, config.n_features)


_DECODERS: dict[str, Callable[[Generators, CGVAEConfig], FeatureDecoder | DenseDecoder]] = {
    "feature": _feature_decoder,
    "dense": _dense_decoder,
}
