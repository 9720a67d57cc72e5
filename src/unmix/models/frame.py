"""The frame of the latents of a fitted model: their order, centre, scale and sign, which no objective fixes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmix.distributions.prior import PriorDistribution


class Framed(nn.Module):
    """A fitted model whose latents (..., n_latents) are seen in a frame of their own.

    z (public) = (z (inner)[order] - center) / scale, where ``scale`` carries the sign. Until ``set_frame`` the two are
    the same.
    """

    order: Tensor
    center: Tensor
    scale: Tensor

    def __init__(self, n_latents: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.arange(n_latents))
        self.register_buffer("center", torch.zeros(n_latents))
        self.register_buffer("scale", torch.ones(n_latents))

    @property
    def n_latents(self) -> int:
        return len(self.order)

    def set_frame(self, center: Tensor, scale: Tensor, effect: Tensor, absolute: Tensor, signed: Tensor) -> None:
        """Latents by their effect, largest first; the feature that each drives most rises with it.

        ``center``, ``scale`` and ``effect`` (n_latents,) are given in the inner order, as are the means of |∂x/∂z|,
        ``absolute``, and of ∂x/∂z, ``signed`` (n_latents, n_features).
        """
        order = torch.argsort(-effect, stable=True)
        strongest = signed.gather(1, absolute.argmax(1, keepdim=True))[:, 0]
        signs = torch.where(strongest < 0, -1.0, 1.0)
        center, scale = center[order], (scale * signs)[order]
        for own, new in ((self.order, order), (self.center, center), (self.scale, scale)):
            own.copy_(new.to(own.dtype))

    def outward(self, z: Tensor) -> Tensor:
        """Latents of the network in this frame."""
        return (z[..., self.order] - self.center) / self.scale

    def inward(self, z: Tensor) -> Tensor:
        """Latents of this frame as the network takes them."""
        return (z * self.scale + self.center)[..., self.order.argsort()]


class FramedPrior(PriorDistribution):
    """The prior of a network seen from a frame; tensors are (batch, n_latents)."""

    def __init__(self, frame: Framed, inner: PriorDistribution) -> None:
        self.frame, self.inner = frame, inner

    def to_noise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        noise, log_slope = self.inner.to_noise(self.frame.inward(z)[None])
        order = self.frame.order
        return noise[0][:, order], log_slope[0][:, order] + self.frame.scale.abs().log()

    def from_noise(self, noise: Tensor) -> Tensor:
        return self.frame.outward(self.inner.from_noise(noise[:, self.frame.order.argsort()][None])[0])

    @property
    def untailed(self) -> PriorDistribution:
        return FramedPrior(self.frame, self.inner.untailed)
