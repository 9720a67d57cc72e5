r"""Generator, discriminator and encoder of CG-GAN on square images of 16 to 128 pixels.

Content makes the smallest image that the generator starts from; style modulates its convolutions and the colours that
come out of them (Karras et al. 2020, arXiv:1912.04958). With scales s(z) of
the input channels, the weights of a sample are :math:`w'_{oi} = s_i w_{oi}`, divided by their norm over inputs and
taps. As convolution is linear, scaling the input by s and the output by that norm gives the same image without
weights for each sample:

.. math:: y_o = d_o \sum_i w_{oi} * (s_i x_i), \qquad d_o = \Big(\sum_{i} s_i^2 \|w_{oi}\|^2\Big)^{-1/2}

There is no noise beside z: the same latents give the same image. Images are (rows, channels, side, side), about
-1 to 1. Discriminator and encoder are residual blocks that halve the side.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from unmix.nets.gan import Projection
from unmix.nets.jacobian import jacobian_columns
from unmix.nets.layers import Generators, StackedMLP, normal_parameter

SIDES = (16, 32, 64, 128)
_SMALLEST = 4
_LEAK = 0.2
_LEAST = 1e-8
_OFFSET_GAIN = 0.3


def widths(side: int, channels: int) -> list[int]:
    """Channels at sides 4, 8, … ``side``: ``channels`` at the full side, twice as many below it."""
    levels = int(math.log2(side // _SMALLEST))
    return [2 * channels] * levels + [channels]


class Convolution(nn.Module):
    """A convolution that keeps the side, with weights of norm about 1 for each output channel."""

    def __init__(self, sources: Generators, n_inputs: int, n_outputs: int, kernel: int) -> None:
        super().__init__()
        scale = 1.0 / math.sqrt(n_inputs * kernel * kernel)
        drawn = normal_parameter(sources, (n_outputs, n_inputs, kernel, kernel), scale)
        self.weight = nn.Parameter(drawn.detach()[0])
        self.bias = nn.Parameter(torch.zeros(n_outputs))

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, self.bias, padding="same")


class ModulatedConvolution(nn.Module):
    """A convolution whose weights each sample scales: ``x`` (rows, inputs, side, side), ``style`` (rows, n_style).

    The scales start at 1 for every style, and stay there with ``n_style`` 0.
    """

    def __init__(self, sources: Generators, n_style: int, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.convolution = Convolution(sources, n_inputs, n_outputs, 3)
        self.scales = StackedMLP(sources, n_style, (), n_inputs, last_gain=0.0) if n_style else None

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale = x.new_ones(x.shape[:2]) if self.scales is None else 1.0 + self.scales(style[None])[0]
        weight, bias = self.convolution.weight, self.convolution.bias
        output = functional.conv2d(x * scale[:, :, None, None], weight, padding="same")
        norm = (scale.square() @ weight.square().sum((2, 3)).T + _LEAST).rsqrt()
        return output * norm[:, :, None, None] + bias[:, None, None]


class Colouring(nn.Module):
    """An affine map from ``n_inputs`` values of every pixel to its colours, one for each style.

    Of any sign, so that dark may become light.
    """

    def __init__(self, sources: Generators, n_style: int, n_inputs: int, n_colours: int) -> None:
        super().__init__()
        self.shape = (n_colours, n_inputs)
        self.map = StackedMLP(sources, n_style, (), n_colours * n_inputs)
        self.offsets = StackedMLP(sources, n_style, (), n_colours, last_gain=_OFFSET_GAIN)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        colours = self.map(style[None])[0].unflatten(1, self.shape)
        return torch.einsum("boi,bihw->bohw", colours, x) + self.offsets(style[None])[0][:, :, None, None]


class ImageGenerator(nn.Module):
    """``x = G(z)`` or ``G(z, u)``: content lays out a 4x4 image, doubled and convolved under the modulation of style.

    ``colours_alone``: content draws one grey picture, and style gives its colours and does nothing else.
    """

    def __init__(
        self,
        sources: Generators,
        n_content: int,
        n_style: int,
        n_design: int,
        hidden: Sequence[int],
        shape: Sequence[int],
        channels: int,
        *,
        colours_alone: bool = False,
    ) -> None:
        super().__init__()
        side, _, n_colours = shape
        sizes, width = widths(side, channels), hidden[-1]
        modulating, n_drawn = (0, 1) if colours_alone else (width, n_colours)
        self.n_content, self.conditional = n_content, n_design > 0
        self.mapping = StackedMLP(sources, max(n_style + n_design, 1), hidden[:-1], width)
        self.constant = nn.Parameter(normal_parameter(sources, (sizes[0], _SMALLEST, _SMALLEST), 1.0).detach()[0])
        self.layout = StackedMLP(sources, max(n_content, 1), (), self.constant.numel())
        before = [sizes[0], *sizes[:-1]]
        self.first = nn.ModuleList(
            ModulatedConvolution(sources, modulating, a, b) for a, b in zip(before, sizes, strict=True)
        )
        self.second = nn.ModuleList(ModulatedConvolution(sources, modulating, b, b) for b in sizes)
        self.drawn = nn.ModuleList(Convolution(sources, b, n_drawn, 1) for b in sizes)
        self.colouring = Colouring(sources, width, n_drawn, n_colours)

    def forward(self, z: Tensor, design: Tensor) -> Tensor:
        content, style = z[:, : self.n_content], z[:, self.n_content :]
        inputs = torch.cat([style, design], dim=1) if self.conditional else style
        style = functional.silu(self.mapping(_at_least_one(inputs)[None])[0])
        layout = self.layout(_at_least_one(content)[None])[0].unflatten(1, self.constant.shape)
        # Convolutions of few channels are up to twice as fast with channels last.
        hidden = (self.constant + layout).contiguous(memory_format=torch.channels_last)
        image: Tensor | None = None
        for first, second, drawn in zip(self.first, self.second, self.drawn, strict=True):
            hidden = functional.silu(first(hidden, style))
            if image is not None:
                hidden, image = _doubled(hidden), _doubled(image)
            hidden = functional.silu(second(hidden, style))
            own = drawn(hidden)
            image = own if image is None else image + own
        assert image is not None
        coloured: Tensor = self.colouring(image, style)
        return coloured

    def derivatives(self, z: Tensor, design: Tensor, latents: Tensor) -> Tensor:
        """Exact ∂x/∂z_i (len(latents), rows, colours, side, side) for every i of ``latents``."""
        repeated = design.repeat(len(latents), 1)
        return jacobian_columns(lambda own: self(own, repeated), z, latents)


class _Halving(nn.Module):
    """A residual block that halves the side."""

    def __init__(self, sources: Generators, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.first = Convolution(sources, n_inputs, n_inputs, 3)
        self.second = Convolution(sources, n_inputs, n_outputs, 3)
        self.skip = Convolution(sources, n_inputs, n_outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.avg_pool2d(functional.leaky_relu(self.first(x), _LEAK), 2)
        inner = functional.leaky_relu(self.second(inner), _LEAK)
        skip: Tensor = self.skip(functional.avg_pool2d(x, 2))
        return (inner + skip) * math.sqrt(0.5)


class ImageTrunk(nn.Module):
    """Images to ``width`` features; ``minibatch`` appends the spread within the batch, so that a lack of it shows."""

    def __init__(
        self, sources: Generators, shape: Sequence[int], channels: int, width: int, *, minibatch: bool
    ) -> None:
        super().__init__()
        side, _, n_colours = shape
        sizes = widths(side, channels)[::-1]
        self.minibatch = minibatch
        self.start = Convolution(sources, n_colours, sizes[0], 1)
        self.blocks = nn.ModuleList(_Halving(sources, a, b) for a, b in itertools.pairwise(sizes))
        self.last = StackedMLP(sources, (sizes[-1] + minibatch) * _SMALLEST**2, (), width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.leaky_relu(self.start(x.contiguous(memory_format=torch.channels_last)), _LEAK)
        for block in self.blocks:
            hidden = block(hidden)
        if self.minibatch:
            spread = (hidden.var(0, correction=0) + _LEAST).sqrt().mean()
            hidden = torch.cat([hidden, spread.expand(len(hidden), 1, *hidden.shape[2:])], dim=1)
        return functional.leaky_relu(self.last(hidden.flatten(1)[None])[0], _LEAK)


class ImageDiscriminator(nn.Module):
    """Score (rows,) of images of the domains with design matrix ``design``."""

    def __init__(self, sources: Generators, shape: Sequence[int], channels: int, n_design: int, width: int) -> None:
        super().__init__()
        self.trunk = ImageTrunk(sources, shape, channels, width, minibatch=True)
        self.projection = Projection(sources, width, n_design)

    def forward(self, x: Tensor, design: Tensor) -> Tensor:
        score: Tensor = self.projection(self.trunk(x), design)
        return score


class ImageEncoder(nn.Module):
    """Latents (rows, n_latents) of images, from the images alone."""

    def __init__(self, sources: Generators, shape: Sequence[int], channels: int, width: int, n_latents: int) -> None:
        super().__init__()
        self.trunk = ImageTrunk(sources, shape, channels, width, minibatch=False)
        self.last = StackedMLP(sources, width, (), n_latents)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(self.trunk(x)[None])[0]
        return output


def _doubled(x: Tensor) -> Tensor:
    """Twice the side, interpolated."""
    return functional.interpolate(x, scale_factor=2, mode="bilinear")


def _at_least_one(latents: Tensor) -> Tensor:
    """``latents`` (rows, n), or a column of zeros where there are none."""
    return latents if latents.shape[1] else latents.new_zeros(len(latents), 1)
