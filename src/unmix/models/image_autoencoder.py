r"""The first stage for images: a convolutional VAE that ignores the domains, and the codes that it makes of images.

.. math:: \min\; -E_q \log N(x; \hat x(c), σ^2 I) + \mathrm{KL}(q(c \mid x) \,\|\, N(0, I))

The noise σ is one learned number, not one a pixel: a pixel that never changes would otherwise draw its noise to 0 and
outweigh all others (a shared variance, as in Rybkin et al. 2021, arXiv:2006.13202).

There are more codes than factors, and they lie on a curved surface. The second stage sees their principal components,
each with a noise of its own: those that are mostly curvature can then count as noise. On the codes themselves every
feature has some curvature, and latents that do not belong to any factor take the place of those that do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unmix.data.batches import Rows
from unmix.data.images import ImageSchema
from unmix.data.pictures import Images
from unmix.distributions.likelihood import Gaussian
from unmix.models.base import LatentModel
from unmix.nets.convolution import ConvolutionalDecoder, ConvolutionalEncoder
from unmix.nets.layers import generators

Floats = NDArray[np.float64]

_AT_ONCE = 256
_LEAST_SPREAD = 0.05
_COARSEST, _WIDEST = 4, 64


class Autoencoder(Protocol):
    """Images (n, height, width, channels) uint8 to codes (n, n_codes), and back."""

    def encode(self, images: Images) -> Floats: ...

    def decode(self, codes: Floats) -> Images: ...


@dataclass(frozen=True)
class ImageAutoencoderConfig:
    """``n_latents`` codes of images of ``shape`` (height, width, channels).

    ``widths`` are the channels after each halving, ``dense`` the width of the layers between codes and grid.
    """

    n_latents: int
    shape: tuple[int, int, int]
    widths: tuple[int, ...]
    dense: int = 128
    seed: int = 0
    initial_noise: float = 0.3
    n_starts: int = 1
    masked: bool = False

    @property
    def n_features(self) -> int:
        return math.prod(self.shape)


class ImageAutoencoder(LatentModel):
    """A convolutional VAE with the prior N(0, I)."""

    def __init__(self, config: ImageAutoencoderConfig) -> None:
        sources = generators(config.seed, config.n_starts)
        # Of what a ``Decoder`` gives it is never asked for the Jacobian.
        decoder: Any = ConvolutionalDecoder(sources, config.n_latents, config.shape, config.widths, config.dense)
        super().__init__(
            config,
            ConvolutionalEncoder(sources, config.shape, config.widths, config.dense, config.n_latents),
            decoder,
            Gaussian(config.n_starts, 1, config.initial_noise),
        )

    def terms(self, rows: Rows, noise: Tensor, n_train: int, penalty_rows: int, progress: float) -> dict[str, Tensor]:
        posterior = self.encode(rows.x, None)
        z = posterior.mean + posterior.diagonal * noise
        return {
            "reconstruction": self.reconstruction(rows, z),
            "kl": self.kl(rows, posterior, z),
        }

    def weights(self, progress: float) -> Mapping[str, float | Tensor]:
        return {"reconstruction": 1.0, "kl": 1.0}


def default_widths(shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Channels after each halving, down to a grid of at most 4 × 4: 64 there, half of them at twice the side."""
    n_halvings = max(1, math.ceil(math.log2(max(shape[:2]) / _COARSEST)))
    return tuple(max(16, _WIDEST >> k) for k in reversed(range(n_halvings)))


class TrainedAutoencoder:
    """``Autoencoder`` of a trained network; ``schema`` says how pixels are standardised."""

    def __init__(self, network: ImageAutoencoder, schema: ImageSchema) -> None:
        self.network, self.schema = network, schema

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.no_grad()
    def encode(self, images: Images) -> Floats:
        parts = []
        for begin in range(0, len(images), _AT_ONCE):
            flat = images[begin : begin + _AT_ONCE].reshape(len(images[begin : begin + _AT_ONCE]), -1)
            levels = torch.from_numpy(np.ascontiguousarray(flat)).to(self._device)
            x = (levels.float() / 255 - self.schema.mean) / self.schema.std
            parts.append(self.network.encode(x, None).mean[0].cpu().double().numpy())
        return np.concatenate(parts)

    @torch.no_grad()
    def decode(self, codes: Floats) -> Images:
        z = torch.from_numpy(np.asarray(codes, np.float32)).to(self._device)
        parts = [self.network.decode(part[None])[0].cpu().double().numpy() for part in z.split(_AT_ONCE)]
        return np.concatenate([self.schema.restore(part) for part in parts])


class CodeFrame(nn.Module):
    """Principal components of codes: (codes - center) @ axes and back; what has no component stays at its mean.

    ``center`` (n_codes,), ``axes`` (n_codes, n_components). ``network`` is that of the autoencoder; None where it is
    the user's own.
    """

    center: Tensor
    axes: Tensor

    def __init__(self, n_codes: int, n_components: int, network: ImageAutoencoder | None) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(n_codes))
        self.register_buffer("axes", torch.zeros(n_codes, n_components))
        self.network = network

    @classmethod
    def of(cls, codes: Floats, least: int, network: ImageAutoencoder | None) -> CodeFrame:
        """Components of ``codes`` (n, n_codes) with at least a twentieth of the largest spread; ``least`` if there are.

        Signs are such that the largest entry of each axis is positive.
        """
        center = codes.mean(0)
        _, spreads, axes = np.linalg.svd(codes - center, full_matrices=False)
        there = int((spreads > 1e-6 * max(spreads[0], 1e-12)).sum())
        kept = min(max(int((spreads >= _LEAST_SPREAD * spreads[0]).sum()), least), there)
        axes = axes[:kept]
        axes *= np.sign(axes[np.arange(kept), np.abs(axes).argmax(1)])[:, None]
        frame = cls(codes.shape[1], kept, network)
        frame.center.copy_(torch.from_numpy(center))
        frame.axes.copy_(torch.from_numpy(axes.T.copy()))
        return frame

    def components(self, codes: Floats) -> Floats:
        result: Floats = (codes - self.center.cpu().numpy()) @ self.axes.cpu().numpy()
        return result

    def codes(self, components: Floats) -> Floats:
        result: Floats = components @ self.axes.cpu().numpy().T + self.center.cpu().numpy()
        return result
