r"""VAEs that ignore the domains: one prior N(0, I), diagonal posteriors, and what each adds to the ELBO.

With ``R`` the reconstruction, -E_q log p(x | z), and the parts of the KL of ``objectives/dependence.py``:

- β-VAE (Higgins et al. 2017): :math:`R + \beta\,\mathrm{KL}`.
- β-TCVAE (Chen et al. 2018, arXiv:1802.04942): :math:`R + I + \beta\,TC + \sum_i \mathrm{KL}_i`.
- HFVAE (Esmaeili et al. 2019, arXiv:1804.02086): :math:`R + I + \beta\,TC_{between} + \gamma\,TC_{within} + \sum_i
  \mathrm{KL}_i`, for groups of latents; one group for each latent gives β-TCVAE.
- FactorVAE (Kim & Mnih 2018, arXiv:1802.05983): :math:`R + \mathrm{KL} + \gamma\,TC`, TC from a classifier. The
  classifier learns from detached codes and the encoder from a detached classifier, so both are terms of one sum.
- Sparse VAE (Moran et al. 2022, arXiv:2110.10804): :math:`R + \mathrm{KL} - \log p(m) / B`, features computed from
  :math:`m_k \odot z`, spike-and-slab lasso on m, B the rows of a batch, as in the published code. m starts at 1.5
  times the size at which spike and slab are equally likely, and the penalty rises over the first half of the training:
  from larger weights no entry finds the spike, and at full strength entries find it before the decoder has learnt what
  they are for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unmix.data.batches import Rows
from unmix.distributions.likelihood import gaussian_of
from unmix.models.base import LatentModel
from unmix.nets.decoder import DenseDecoder, MaskedDecoder
from unmix.nets.encoder import Encoder
from unmix.nets.layers import Generators, StackedMLP, generators
from unmix.objectives.dependence import decompose_kl, density_ratio_loss, permute_latents
from unmix.objectives.sparsity import slab_probability, spike_and_slab

_MOST_ROWS_IN_PAIRS = 512
_COMPARABLE = 0.8
_RAMP = 0.5
_START = 1.5


@dataclass(frozen=True)
class VAEConfig:
    """Everything that fixes the networks; ``noise_std`` None: learnt, one for each feature."""

    n_latents: int
    n_features: int
    n_design: int = 0
    interactions: float = 0.0
    masked: bool = False
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "silu"
    noise_std: float | None = None
    n_starts: int = 1
    seed: int = 0


def diagonal_encoder(sources: Generators, config: VAEConfig, n_design: int = 0) -> Encoder:
    return Encoder(
        sources,
        config.n_features,
        config.hidden,
        config.n_latents,
        config.masked,
        full=False,
        n_design=n_design,
        activation=config.activation,
    )


def dense_decoder(sources: Generators, config: VAEConfig) -> DenseDecoder:
    return DenseDecoder(sources, config.n_latents, config.hidden, config.n_features, config.activation)


@dataclass(frozen=True)
class BetaVAEConfig(VAEConfig):
    """``kl_weight`` is β."""

    kl_weight: float = 4.0


class BetaVAENetwork(LatentModel):
    """R + β KL."""

    def __init__(self, config: BetaVAEConfig) -> None:
        sources = generators(config.seed, config.n_starts)
        super().__init__(config, diagonal_encoder(sources, config), dense_decoder(sources, config), gaussian_of(config))

    def terms(self, rows: Rows, noise: Tensor, n_train: int, penalty_rows: int, progress: float) -> dict[str, Tensor]:
        posterior = self.encode(rows.x, rows.observed)
        z = posterior.sample(noise)
        return {
            "reconstruction": self.reconstruction(rows, z),
            "kl": self.kl(rows, posterior, z),
        }

    def weights(self, progress: float) -> Mapping[str, float]:
        return {"reconstruction": 1.0, "kl": self.config.kl_weight}


@dataclass(frozen=True)
class TCVAEConfig(VAEConfig):
    """``groups``: sizes of the groups of latents; ``between`` and ``within`` weigh their total correlations."""

    groups: tuple[int, ...] = ()
    mi_weight: float = 1.0
    between: float = 6.0
    within: float = 1.0


class TCVAENetwork(LatentModel):
    """R + α I + β TC between groups + γ TC within groups + Σ KL of the latents."""

    def __init__(self, config: TCVAEConfig) -> None:
        sources = generators(config.seed, config.n_starts)
        super().__init__(config, diagonal_encoder(sources, config), dense_decoder(sources, config), gaussian_of(config))

    def terms(self, rows: Rows, noise: Tensor, n_train: int, penalty_rows: int, progress: float) -> dict[str, Tensor]:
        posterior = self.encode(rows.x, rows.observed)
        z = posterior.sample(noise)
        step = -(-z.shape[1] // _MOST_ROWS_IN_PAIRS)
        parts = decompose_kl(
            z[:, ::step], posterior.mean[:, ::step], posterior.std[:, ::step], n_train, self.config.groups
        )
        return {
            "reconstruction": self.reconstruction(rows, z),
            "mutual_information": parts.mutual_information,
            "tc_between": parts.between_groups,
            "tc_within": parts.within_groups,
            "kl_dimensions": parts.dimensions,
        }

    def weights(self, progress: float) -> Mapping[str, float]:
        return {
            "reconstruction": 1.0,
            "mutual_information": self.config.mi_weight,
            "tc_between": self.config.between,
            "tc_within": self.config.within,
            "kl_dimensions": 1.0,
        }


@dataclass(frozen=True)
class FactorVAEConfig(VAEConfig):
    """``tc_weight`` is γ; ``discriminator`` gives the widths of the classifier, with leaky ReLU between them."""

    tc_weight: float = 10.0
    discriminator: tuple[int, ...] = (64, 64)


class FactorVAENetwork(LatentModel):
    """R + KL + γ TC, with a classifier that tells q(z) from ∏ q(z_i)."""

    def __init__(self, config: FactorVAEConfig) -> None:
        sources = generators(config.seed, config.n_starts)
        super().__init__(config, diagonal_encoder(sources, config), dense_decoder(sources, config), gaussian_of(config))
        self.discriminator = StackedMLP(
            sources, config.n_latents, config.discriminator, 1, last_gain=0.1, activation="leaky_relu"
        )

    @property
    def n_noise(self) -> int:
        """Half of the columns draw from q(z | x), half permute the latents."""
        return 2 * self.n_latents

    def terms(self, rows: Rows, noise: Tensor, n_train: int, penalty_rows: int, progress: float) -> dict[str, Tensor]:
        for_draw, for_order = noise.chunk(2, dim=-1)
        posterior = self.encode(rows.x, rows.observed)
        z = posterior.sample(for_draw)
        codes = z.detach()
        permuted = permute_latents(codes, for_order.expand_as(codes))
        frozen = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        ratio = torch.func.functional_call(self.discriminator, frozen, (z,))
        return {
            "reconstruction": self.reconstruction(rows, z),
            "kl": self.kl(rows, posterior, z),
            "tc": ratio.squeeze(-1).mean(1),
            "discriminator": density_ratio_loss(
                self.discriminator(codes).squeeze(-1), self.discriminator(permuted).squeeze(-1)
            ),
        }

    def weights(self, progress: float) -> Mapping[str, float]:
        """The classifier's own loss trains it and is no part of the final objective, by which states are compared."""
        training = 1.0 if progress < 1.0 else 0.0
        return {"reconstruction": 1.0, "kl": 1.0, "tc": self.config.tc_weight, "discriminator": training}

    def settled(self, progress: float, start: int | None = None) -> bool:
        """A classifier that has not learnt yet reports no total correlation."""
        return progress >= _COMPARABLE


@dataclass(frozen=True)
class SparseVAEConfig(VAEConfig):
    """``spike`` λ0 and ``slab`` λ1: rates of the two Laplace densities; ``batch_size``: rows that share the penalty."""

    spike: float = 10.0
    slab: float = 1.0
    batch_size: int = 256


class SparseVAENetwork(LatentModel):
    """R + KL + spike-and-slab lasso on the weights that mask the decoder."""

    decoder: MaskedDecoder

    def __init__(self, config: SparseVAEConfig) -> None:
        sources = generators(config.seed, config.n_starts)
        encoder = diagonal_encoder(sources, config)
        start = _START * math.log(config.spike / config.slab) / (config.spike - config.slab)
        decoder = MaskedDecoder(sources, config.n_latents, config.hidden, config.n_features, config.activation, start)
        super().__init__(config, encoder, decoder, gaussian_of(config))
        self.slab_logit = nn.Parameter(torch.zeros(config.n_starts, 1, config.n_latents))

    def terms(self, rows: Rows, noise: Tensor, n_train: int, penalty_rows: int, progress: float) -> dict[str, Tensor]:
        posterior = self.encode(rows.x, rows.observed)
        z = posterior.sample(noise)
        penalty = spike_and_slab(self.decoder.mask, self.slab_logit, self.config.spike, self.config.slab)
        return {
            "reconstruction": self.reconstruction(rows, z),
            "kl": self.kl(rows, posterior, z),
            "sparsity": penalty / min(self.config.batch_size, n_train),
        }

    def weights(self, progress: float) -> Mapping[str, float]:
        return {"reconstruction": 1.0, "kl": 1.0, "sparsity": min(1.0, progress / _RAMP)}

    def settled(self, progress: float, start: int | None = None) -> bool:
        return progress >= _RAMP

    @torch.no_grad()
    def settle(self, latent_std: Tensor) -> None:
        """Entries that more likely come from the spike become exactly 0."""
        probability = slab_probability(self.decoder.mask, self.slab_logit, self.config.spike, self.config.slab)
        self.decoder.mask.masked_fill_(probability < 0.5, 0.0)
