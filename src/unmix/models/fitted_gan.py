"""A trained CG-GAN as it is kept: averaged generator and encoder, with latents in a fixed frame.

Content is N(0, I), whatever its rotation; of rows of features, the sparsest mixing chooses the one that is kept
(``objectives/rotation.py``), which changes neither what is generated nor how rows are read.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmix.data.batches import Rows
from unmix.models.cggan import MASK_THRESHOLD, CGGANConfig, CGGANNetwork, Synthesis, as_floats, as_images, new_encoder
from unmix.models.frame import Framed
from unmix.nets.gan import VectorEncoder, VectorGenerator
from unmix.nets.layers import generators
from unmix.objectives.rotation import best_rotation

_FRAME_ROWS = 2048
_JACOBIAN_ROWS, _IMAGE_JACOBIAN_ROWS = 512, 128
_MIXING_ROWS, _IMAGE_MIXING_ROWS = 1024, 128
_CHUNK = 1024
_OTHER_DOMAINS = 16


class FittedGAN(Framed):
    """Averaged generator and encoder in a fixed frame: content before style, each by effect, mean 0, deviation 1.

    ``importance`` (n_latents,), in the public order, is the share of a latent's spread, as a standard deviation, that
    domains make.
    """

    importance: Tensor

    def __init__(self, config: CGGANConfig) -> None:
        super().__init__(config.n_latents)
        self.config = config
        self.synthesis = Synthesis(config).requires_grad_(False)
        self.encoder = new_encoder(generators(config.seed, 1), config).requires_grad_(False)
        self.register_buffer("importance", torch.zeros(config.n_latents))

    @classmethod
    def of(cls, network: CGGANNetwork, rows: Rows) -> FittedGAN:
        """The trained model; style latents that domains hardly move become content, exactly."""
        fitted = cls(network.config).to(rows.x.device)
        fitted.synthesis.load_state_dict(network.averaged.state_dict())
        fitted.encoder.load_state_dict(network.encoder.state_dict())
        design = rows.take(slice(None, None, max(1, len(rows) // _FRAME_ROWS))).design
        fitted._settle(design)
        return fitted

    @property
    def n_content(self) -> int:
        if self.config.all_style:
            return self.config.n_latents - self.config.n_style
        return int((self.importance < MASK_THRESHOLD).sum())

    def encode(self, x: Tensor) -> Tensor:
        """Latents (rows, n_latents) of standardised rows or uint8 images."""
        return self.outward(self.encoder(as_floats(x)))

    def decode(self, z: Tensor, design: Tensor) -> Tensor:
        """Standardised rows, or images with colours first; ``design`` matters only to a plain conditional generator."""
        x: Tensor = self.synthesis(self.inward(z), design)
        return x

    @torch.no_grad()
    def read(self, rows: Rows) -> Tensor:
        """``encode`` of many rows, few at a time."""
        step = self._at_once
        places = [slice(begin, begin + step) for begin in range(0, len(rows), step)]
        return torch.cat([self.encode(rows.take(place).x) for place in places])

    @torch.no_grad()
    def generated(self, z: Tensor, design: Tensor) -> Tensor:
        """``decode`` of many latents, few at a time, on the CPU: standardised rows, or uint8 images, colours last."""
        step, pixels = self._at_once, self.config.images
        parts = [self.decode(*own) for own in zip(z.split(step), design.split(step), strict=True)]
        return torch.cat([(as_images(part) if pixels else part).cpu() for part in parts])

    @property
    def _at_once(self) -> int:
        """Rows that go through the networks together: an image is wide."""
        return min(_CHUNK, self.config.rows_at_once())

    @torch.no_grad()
    def mean_effects(self, rows: Rows) -> NDArray[np.float64]:
        """Mean of |∂x/∂z|, (n_features, n_latents), or of images (side, side, colours, n_latents) in grey levels."""
        images = self.config.images
        step = -(-len(rows) // _IMAGE_MIXING_ROWS) if images else max(1, len(rows) // _MIXING_ROWS)
        chosen = rows.take(slice(None, None, step))
        absolute = self.mixing(self.encode(chosen.x), chosen.design)[0].cpu().double()
        return (absolute.permute(2, 3, 1, 0) * 127.5 if images else absolute.T).numpy()

    def from_noise(self, noise: Tensor, design: Tensor) -> Tensor:
        """``z`` of ``noise`` ε; the columns of ε are those of the inner latents."""
        return self.outward(self.synthesis.from_noise(noise, design))

    def to_noise(self, z: Tensor, design: Tensor) -> Tensor:
        return self.synthesis.to_noise(self.inward(z), design)

    def mixing(self, z: Tensor, design: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of |∂x/∂z| and of ∂x/∂z (n_latents, features of a row ...) over the rows ``z``, few at a time."""
        inner, absolute, signed = self.inward(z), torch.zeros_like(z[0, 0]), torch.zeros_like(z[0, 0])
        at_once = self.config.rows_at_once(self.config.n_latents)
        for own, domains in zip(inner.split(at_once), design.split(at_once), strict=True):
            part = self.synthesis.generator.derivatives(own, domains, self.order)
            part = part * self.scale.view(-1, *[1] * (part.dim() - 1))
            absolute, signed = absolute + part.abs().sum(1), signed + part.sum(1)
        return absolute / len(z), signed / len(z)

    def jacobian(self, z: Tensor, design: Tensor) -> Tensor:
        """∂x/∂z (rows, n_features, n_latents) of a generator of rows, features in units of their standard deviation."""
        inner = self.synthesis.generator.derivatives(self.inward(z), design, self.order)
        return inner.permute(1, 2, 0) * self.scale

    @torch.no_grad()
    def _settle(self, design: Tensor) -> None:
        source = torch.Generator().manual_seed(self.config.seed)
        noise = torch.randn(len(design), self.config.n_latents, generator=source).to(design.device)
        importance = self._importance(noise, design, source)
        first = self.config.n_latents - self.config.n_style
        if self.config.mask:
            self.synthesis.mask[importance[first:] < MASK_THRESHOLD] = 0.0
        style = importance >= MASK_THRESHOLD
        if self.config.all_style:
            style = torch.arange(len(importance), device=importance.device) >= first
        # The mask has just closed for what is content.
        importance = torch.where(style, importance, torch.zeros_like(importance))
        z = self.synthesis.from_noise(noise, design)
        rows = slice(None, None, -(-len(z) // (_IMAGE_JACOBIAN_ROWS if self.config.images else _JACOBIAN_ROWS)))
        self._turn_content((~style).nonzero()[:, 0], z[rows], design[rows])
        self.center.copy_(z.mean(0))
        self.scale.copy_(z.std(0, correction=0))
        absolute, signed = (part.flatten(1) for part in self.mixing(self.outward(z)[rows], design[rows]))
        effect = absolute.sum(1) - style * (absolute.sum() + 1.0)
        self.set_frame(self.center, self.scale, effect, absolute, signed)
        self.importance.copy_(importance[self.order])

    def _turn_content(self, content: Tensor, z: Tensor, design: Tensor) -> None:
        generator, encoder = self.synthesis.generator, self.encoder
        if not isinstance(generator, VectorGenerator) or not isinstance(encoder, VectorEncoder) or len(content) < 2:
            return
        jacobian = generator.derivatives(z, design, content).transpose(0, 1).cpu().double()
        with torch.enable_grad():
            rotation = best_rotation(jacobian, self.config.seed)
        if rotation is not None:
            generator.turn(content, rotation)
            encoder.turn(content, rotation)

    def _importance(self, noise: Tensor, design: Tensor, source: torch.Generator) -> Tensor:
        """sd over domains of what the same ε becomes, by the sd of the latent: (n_latents,)."""
        z = self.synthesis.from_noise(noise, design)
        others = [torch.randperm(len(design), generator=source).to(design.device) for _ in range(_OTHER_DOMAINS)]
        moved = torch.stack([self.synthesis.from_noise(noise, design[order]) for order in others])
        return moved.var(0).mean(0).sqrt() / z.std(0, correction=0)
