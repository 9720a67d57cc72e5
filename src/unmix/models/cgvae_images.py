r"""CG-VAE for images: the objective of ``cgvae.py`` with convolutional networks and one noise for all pixels.

The observation noise is one learned number, not one a pixel: a pixel that never changes would otherwise draw its noise
to 0 and outweigh all others (a shared variance, as in Rybkin et al. 2021, arXiv:2006.13202). The sparsity penalty is
the sum over pixels and channels of the same w = E |∂x/∂z| sd(z), from the exact Jacobian on some rows of each
batch; ``nets/convolution.py`` states its cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unmix.distributions.likelihood import Gaussian, Likelihood, NoiseCourse
from unmix.models.cgvae import CGVAEConfig, CGVAENetwork
from unmix.nets.convolution import ConvolutionalDecoder, ConvolutionalEncoder
from unmix.nets.decoder import Decoder
from unmix.nets.encoder import Encoder
from unmix.nets.layers import Generators


@dataclass(frozen=True)
class CGVAEImageConfig(CGVAEConfig):
    """``shape`` (height, width, channels); ``hidden`` are the channels after each halving of the image."""

    shape: tuple[int, int, int] = (32, 32, 3)
    initial_noise: float = 0.3
    beginnings: tuple[str, ...] = ()
    released: float = 0.0
    pooled: float = 0.0


class CGVAEImageNetwork(CGVAENetwork):
    """CG-VAE whose features are the pixels of an image, flattened (height · width · channels)."""

    def _likelihood(self, config: Any) -> Likelihood:
        return Gaussian(
            config.n_starts, 1, config.initial_noise, course=NoiseCourse(config.noise_floor, config.narrowed)
        )

    def _networks(self, sources: Generators, n_latents: int, config: Any) -> tuple[Encoder, Decoder]:
        return (
            ConvolutionalEncoder(sources, config.shape, config.hidden, n_latents),
            ConvolutionalDecoder(sources, n_latents, config.shape, config.hidden),
        )
