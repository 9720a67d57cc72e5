r"""Convolutional encoder and decoder with a start axis.

A flattened image is (height · width · channels), row by row. The encoder halves the grid level by level and ends in a
dense layer; the decoder goes from z through two dense layers to the small grid, and doubles it level by level:

.. math:: h_0 = φ(\mathrm{MLP}(z)), \qquad h_l = φ(U_l * h_{l-1} + b_l), \qquad \hat x = U_L * h_{L-1} + b_L,

with U a 3 × 3 convolution to four times the channels, which are then laid out as 2 × 2 pixels: linear, like a
convolution, and without the checkerboard of a strided one. The dense layers matter: where something is must become a
pattern on the small grid, which is no linear map; without them squares come back with one and a half times the error.

Sides that the halvings do not divide are padded with their last pixels and cut off again.

Starts are a loop: convolutions of a few starts take as long one by one as in one grouped call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unmix.nets.encoder import Encoder
from unmix.nets.layers import Generators, StackedMLP, normal_parameter


class StackedConv(nn.Module):
    """One convolution for each start: (starts, batch, inputs, height, width) to (starts, batch, outputs, …)."""

    def __init__(
        self, sources: Generators, n_inputs: int, n_outputs: int, kernel: int, stride: int = 1, gain: float = 1.4
    ) -> None:
        super().__init__()
        scale = gain / math.sqrt(n_inputs * kernel**2)
        self.stride = stride
        self.weight = normal_parameter(sources, (n_outputs, n_inputs, kernel, kernel), scale)
        self.bias = nn.Parameter(torch.zeros(len(sources), n_outputs))

    def forward(self, x: Tensor) -> Tensor:
        """A batch (batch, inputs, height, width) without a start axis serves every start."""
        if x.dim() == 4:
            x = x.expand(len(self.weight), -1, -1, -1, -1)
        return torch.stack(
            [
                nn.functional.conv2d(own, weight, bias, stride=self.stride, padding=1)
                for own, weight, bias in zip(x, self.weight, self.bias, strict=True)
            ]
        )


def small_grid(shape: tuple[int, int, int], n_halvings: int) -> tuple[int, int]:
    """Height and width of an image (height, width, channels) after so many halvings, padded where they do not fit."""
    height, width = (math.ceil(side / 2**n_halvings) for side in shape[:2])
    return height, width


class ConvolutionalEncoder(Encoder):
    """Flattened images (batch, n_features) to a diagonal q(z | x).

    ``shape`` (height, width, channels) of an image; ``widths`` are the channels after each halving; ``dense`` is the
    width of the layer below the last.
    """

    def __init__(
        self, sources: Generators, shape: tuple[int, int, int], widths: Sequence[int], dense: int, n_latents: int
    ) -> None:
        grid = small_grid(shape, len(widths))
        super().__init__(sources, widths[-1] * math.prod(grid), (dense,), n_latents, False, full=False)
        self.shape = shape
        self.surplus = tuple(own * 2 ** len(widths) - side for own, side in zip(grid, shape, strict=False))
        self.convolutions = nn.ModuleList(
            StackedConv(sources, a, b, 4, stride=2) for a, b in zip([shape[2], *widths], widths, strict=False)
        )

    def below_last(self, x: Tensor, observed: Tensor | None, design: Tensor | None = None) -> Tensor:
        x = x.view(-1, *self.shape).permute(0, 3, 1, 2)
        if any(self.surplus):
            below, right = self.surplus
            x = nn.functional.pad(x, (0, right, 0, below), mode="replicate")
        for layer in self.convolutions:
            x = nn.functional.silu(layer(x))
        return super().below_last(x.flatten(2), observed, design)


class ConvolutionalDecoder(nn.Module):
    """z (starts, batch, n_latents) to flattened images (starts, batch, n_features).

    ``shape`` (height, width, channels) of an image; ``widths`` are those of the encoder, gone through backwards;
    ``dense`` is the width of the two layers before the first convolution.
    """

    def __init__(
        self, sources: Generators, n_latents: int, shape: tuple[int, int, int], widths: Sequence[int], dense: int
    ) -> None:
        super().__init__()
        self.shape, self.grid = shape, small_grid(shape, len(widths))
        self.network = StackedMLP(sources, n_latents, (dense, dense), widths[-1] * math.prod(self.grid), last_gain=1.4)
        steps = [*widths[::-1], shape[2]]
        gains = [1.4] * (len(widths) - 1) + [1.0]
        self.convolutions = nn.ModuleList(
            StackedConv(sources, a, 4 * b, 3, gain=gain) for a, b, gain in zip(steps, steps[1:], gains, strict=False)
        )

    def forward(self, z: Tensor) -> Tensor:
        height, width, _ = self.shape
        h = self.network(z).unflatten(2, (-1, *self.grid))
        for layer in self.convolutions:
            h = nn.functional.pixel_shuffle(layer(nn.functional.silu(h)), 2)
        return h[..., :height, :width].permute(0, 1, 3, 4, 2).flatten(2)
