"""Networks of the image translator: content that keeps its place, and a decoder that a small style vector modulates.

Images are (rows, channels, height, width), about -1 to 1, with sides that the grid of the content divides. Content is a
Gaussian map at a quarter of the side, at an eighth and so on for larger images; the decoder sees it beside the
coordinates of each place and through a dense path, by which any place may act on all others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_LARGEST_GRID = 8
_LEAST_HALVINGS = 2
_LOG_SD = 4.0
_COORDINATES = 2
_START = -2.0
_GAIN = 1.4
_LEAST = 1e-3
_SMALL_BRANCH = 0.3


def halvings(height: int, width: int) -> int:
    """How often images are halved: twice, and more where the content would be larger than 8 × 8."""
    return max(_LEAST_HALVINGS, math.ceil(math.log2(max(height, width) / _LARGEST_GRID)))


def widths(n_halvings: int, channels: int) -> list[int]:
    """Channels at the full side, at its half, and so on: half of ``channels`` at the full side."""
    return [channels // 2] + [channels] * n_halvings


class Residual(nn.Module):
    """``x + conv(φ(γ(s) conv(φ(x)) + β(s)))``; γ = 1 and β = 0 without style, and at the start for every style."""

    def __init__(self, channels: int, n_style: int = 0) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(n_style, 2 * channels) if n_style else None

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        hidden = self.first(functional.silu(x))
        if self.modulation is not None and style is not None:
            scale, shift = self.modulation(style)[:, :, None, None].chunk(2, dim=1)
            hidden = hidden * (1.0 + scale) + shift
        output: Tensor = x + self.second(functional.silu(hidden))
        return output


class Trunk(nn.Module):
    """Images to maps (rows, channels, grid) by convolutions that halve the side, with a residual block at the end."""

    def __init__(self, n_colours: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.start = nn.Conv2d(n_colours, sizes[0], 3, padding=1)
        self.halving = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in itertools.pairwise(sizes))
        self.block = Residual(sizes[-1])

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.start(x)
        for layer in self.halving:
            hidden = layer(functional.silu(hidden))
        output: Tensor = self.block(hidden)
        return output


class ContentEncoder(nn.Module):
    """Mean and log standard deviation of the content, each (rows, n_content, *grid), of canonical images."""

    def __init__(self, n_colours: int, sizes: Sequence[int], n_content: int) -> None:
        super().__init__()
        self.trunk = Trunk(n_colours, sizes)
        self.last = nn.Conv2d(sizes[-1], 2 * n_content, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_sd = self.last(functional.silu(self.trunk(x))).chunk(2, dim=1)
        return mean, _bounded(log_sd + _START)


class StyleEncoder(nn.Module):
    """Mean and log standard deviation of the style's noise ε, each (rows, n_style), of images as they are."""

    def __init__(self, n_colours: int, sizes: Sequence[int], n_style: int) -> None:
        super().__init__()
        self.trunk = Trunk(n_colours, sizes)
        self.last = nn.Linear(sizes[-1], 2 * n_style)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_sd = self.last(functional.silu(self.trunk(x)).mean((2, 3))).chunk(2, dim=1)
        return mean, _bounded(log_sd)


class ContentDecoder(nn.Module):
    """Images from content (rows, n_content, *grid) and style (rows, n_style)."""

    coordinates: Tensor

    def __init__(
        self, n_colours: int, sizes: Sequence[int], n_content: int, n_style: int, grid: tuple[int, int], dense: int
    ) -> None:
        super().__init__()
        down = [*sizes[::-1]]
        cells, self.grid = grid[0] * grid[1], grid
        self.style = nn.Linear(n_style, dense)
        self.start = nn.Conv2d(n_content + _COORDINATES, down[0], 3, padding=1)
        self.inward = nn.Linear(n_content * cells, dense)
        self.modulation = nn.Linear(dense, 2 * dense)
        self.outward = nn.Linear(dense, down[0] * cells)
        self.first = Residual(down[0], dense)
        self.blocks = nn.ModuleList(Residual(width, dense) for width in down[:-1])
        self.finer = nn.ModuleList(nn.Conv2d(a, 4 * b, 3, padding=1) for a, b in itertools.pairwise(down))
        self.last_modulation = nn.Linear(dense, 2 * down[-1])
        self.last = nn.Conv2d(down[-1], n_colours, 3, padding=1)
        rows, columns = (torch.linspace(-1, 1, side) for side in grid)
        self.register_buffer("coordinates", torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None])

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        style = functional.silu(self.style(style))
        places = self.coordinates.expand(len(content), -1, -1, -1)
        hidden = self.start(torch.cat([content, places], dim=1))
        dense = self.inward(content.flatten(1))
        scale, shift = self.modulation(style).chunk(2, dim=1)
        dense = self.outward(functional.silu(dense * (1.0 + scale) + shift))
        hidden = self.first(hidden + dense.unflatten(1, (-1, *self.grid)), style)
        for block, finer in zip(self.blocks, self.finer, strict=True):
            hidden = functional.pixel_shuffle(finer(functional.silu(block(hidden, style))), 2)
        scale, shift = self.last_modulation(style)[:, :, None, None].chunk(2, dim=1)
        image: Tensor = self.last(functional.silu(hidden * (1.0 + scale) + shift))
        return image


class Critic(nn.Module):
    """How real images (rows, n_colours, height, width) look for their domains (rows,), as scores (rows,).

    Both a mean over places and a dense layer over all of them are read, in general and for the domain.
    """

    def __init__(self, n_colours: int, n_domains: int, channels: int, sides: tuple[int, int]) -> None:
        super().__init__()
        n_halvings = halvings(*sides)
        sizes = [channels // 2, channels] + [2 * channels] * (n_halvings - 1)
        cells, wide = math.prod(side // 2**n_halvings for side in sides), sizes[-1]
        self.start = nn.Conv2d(n_colours, sizes[0], 3, padding=1)
        self.halving = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in itertools.pairwise(sizes))
        blocks = [Residual(size) for size in sizes[1:]]
        self.blocks = nn.ModuleList(blocks)
        self.dense = nn.Linear(wide * cells, wide)
        self.general = nn.Linear(2 * wide, 1)
        self.own = nn.Embedding(n_domains, 2 * wide)
        with torch.no_grad():
            for block in blocks:
                block.second.weight *= _SMALL_BRANCH
            self.own.weight /= math.sqrt(wide)

    def forward(self, x: Tensor, groups: Tensor) -> Tensor:
        hidden = self.start(x)
        for layer, block in zip(self.halving, self.blocks, strict=True):
            hidden = block(layer(functional.silu(hidden)))
        hidden = functional.silu(hidden)
        read = torch.cat([hidden.mean((2, 3)), functional.silu(self.dense(hidden.flatten(1)))], dim=1)
        score: Tensor = self.general(read)[:, 0] + (self.own(groups) * read).sum(1)
        return score


class LinearContent(nn.Module):
    """What of the content is linear in the image, place by place, and what of the image is linear in content.

    ``inward`` (n_content, colours, step, step) are the leading principal components of patches, each of spread 1;
    ``readout`` (n_components, n_latents) predicts the leading components of the image. Neither is trained.
    """

    inward: Tensor
    readout: Tensor

    def __init__(self, n_colours: int, step: int, n_content: int, cells: int, n_components: int) -> None:
        super().__init__()
        self.step = step
        self.register_buffer("inward", torch.zeros(n_content, n_colours, step, step))
        self.register_buffer("readout", torch.zeros(n_components, n_content * cells))

    @torch.no_grad()
    def learn(self, x: Tensor, components: Tensor, rank: int) -> None:
        """From images (rows, channels, height, width) and their components, of which the first ``rank`` are read."""
        # In float64, which Apple GPUs do not know.
        patches = functional.unfold(x, self.step, stride=self.step).transpose(1, 2).flatten(0, 1).cpu().double()
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        values, vectors = values.flip(0)[: len(self.inward)], vectors.flip(1)[:, : len(self.inward)]
        sds = values.clamp_min(_LEAST * float(values[0])).sqrt()
        self.inward[: len(sds)] = (vectors / sds).T.unflatten(1, self.inward.shape[1:]).to(self.inward)
        content = self.content(x).flatten(1).cpu().double()
        square = content.T @ content + _LEAST * len(content) * torch.eye(content.shape[1]).to(content)
        read = torch.linalg.solve(square, content.T @ components.cpu().double()).T
        self.readout[:rank] = read[:rank].to(self.readout)

    def content(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.inward, stride=self.step)

    def components(self, content: Tensor) -> Tensor:
        return content.flatten(1) @ self.readout.T


def start(network: nn.Module) -> None:
    """Weights that neither shrink nor grow what passes through them, residual branches small, modulation by little."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            inner = name.split(".")[-1]
            gain = {"second": 0.3, "modulation": 0.3, "last_modulation": 0.3, "last": 1.0}.get(inner, _GAIN)
            nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _bounded(log_sd: Tensor) -> Tensor:
    return _LOG_SD * torch.tanh(log_sd / _LOG_SD)
