"""Differentiable augmentation of what the discriminator sees (Zhao et al. 2020, arXiv:2006.10738), real or generated.

Each change is applied to each image with the same probability, which adapts to how certain the discriminator is of the
training images (Karras et al. 2020, arXiv:2006.06676): the sign of its scores is the measure, 0.6 the target. Below
probability 0.8 the changes do not leak into what is generated. Hues are left alone: they may be what a domain is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

MOST = 0.8
TARGET = 0.6
IMAGES_TO_FULL = 100_000
_SHIFT = 0.125
_BRIGHTNESS = 0.3
_HOLE = 0.5


def augment(x: Tensor, probability: float, source: torch.Generator) -> Tensor:
    """Images (rows, channels, height, width) with brightness, position and a square hole changed at random."""
    if probability <= 0:
        return x
    rows, sides = len(x), x.shape[2:]
    draws = torch.rand(8, rows, generator=source)
    chosen = (draws[:3] < probability).float()
    bright = (chosen[0] * (2 * draws[3] - 1) * _BRIGHTNESS).to(x.device)
    x = x + bright[:, None, None, None]
    reach = max(1, round(_SHIFT * min(sides)))
    shifts = ((2 * draws[4:6] - 1) * (reach + 0.5)).round().clamp(-reach, reach) * chosen[1]
    x = _moved(x, shifts.long().to(x.device), reach)
    centres = [(draw * side).to(x.device) for draw, side in zip(draws[6:8], sides, strict=True)]
    return x * _mask(centres, chosen[2].to(x.device), sides)


def adapted(probability: float, mean_sign: float, batch_size: int) -> float:
    """The next probability: up where scores of real images are positive more often than the target, else down."""
    step = batch_size / IMAGES_TO_FULL
    return min(max(probability + (step if mean_sign > TARGET else -step), 0.0), MOST)


def _moved(x: Tensor, shifts: Tensor, reach: int) -> Tensor:
    """Every image moved by whole pixels (2, rows), at most ``reach``; the edge is repeated."""
    padded = functional.pad(x, (reach,) * 4, mode="replicate")
    lines = [torch.arange(side, device=x.device) + reach for side in x.shape[2:]]
    down, right = (line + shift[:, None] for line, shift in zip(lines, shifts, strict=True))
    rows = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[rows, :, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)


def _mask(centres: Sequence[Tensor], chosen: Tensor, sides: Sequence[int]) -> Tensor:
    """0 in a hole of half the sides around a random centre of the chosen images, else 1 (rows, 1, height, width)."""
    near = [
        (torch.arange(side, device=centre.device) - centre[:, None]).abs() < _HOLE * side / 2
        for centre, side in zip(centres, sides, strict=True)
    ]
    hole = near[0][:, :, None] & near[1][:, None, :]
    return 1.0 - (hole.float() * chosen[:, None, None])[:, None]
