"""Differentiable augmentation of what the discriminator sees (Zhao et al. 2020, arXiv:2006.10738), real or generated.

Each change is applied to each image with the same probability, which adapts to how certain the discriminator is of the
training images (Karras et al. 2020, arXiv:2006.06676): the sign of its scores is the measure, 0.6 the target. Below
probability 0.8 the changes do not leak into what is generated. Hues are left alone: they may be what a domain is.
"""

from __future__ import annotations

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
    """Images (rows, channels, side, side) with brightness, position and a square hole changed at random."""
    if probability <= 0:
        return x
    rows, side = len(x), x.shape[2]
    draws = torch.rand(8, rows, generator=source)
    chosen = (draws[:3] < probability).float()
    bright = (chosen[0] * (2 * draws[3] - 1) * _BRIGHTNESS).to(x.device)
    x = x + bright[:, None, None, None]
    reach = max(1, round(_SHIFT * side))
    shifts = ((2 * draws[4:6] - 1) * (reach + 0.5)).round().clamp(-reach, reach) * chosen[1]
    x = _moved(x, shifts.long().to(x.device), reach)
    corners = (draws[6:8] * side).to(x.device)
    return x * _mask(corners, chosen[2].to(x.device), side)


def adapted(probability: float, mean_sign: float, batch_size: int) -> float:
    """The next probability: up where scores of real images are positive more often than the target, else down."""
    step = batch_size / IMAGES_TO_FULL
    return min(max(probability + (step if mean_sign > TARGET else -step), 0.0), MOST)


def _moved(x: Tensor, shifts: Tensor, reach: int) -> Tensor:
    """Every image moved by whole pixels (2, rows), at most ``reach``; the edge is repeated."""
    side = x.shape[2]
    padded = functional.pad(x, (reach,) * 4, mode="replicate")
    line = torch.arange(side, device=x.device) + reach
    down, right = (line + shift[:, None] for shift in shifts)
    rows = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[rows, :, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)


def _mask(corners: Tensor, chosen: Tensor, side: int) -> Tensor:
    """0 in a square of half the side around a random centre of the chosen images, else 1 (rows, 1, side, side)."""
    line = torch.arange(side, device=corners.device)
    near = [(line - corner[:, None]).abs() < _HOLE * side / 2 for corner in corners]
    hole = near[0][:, :, None] & near[1][:, None, :]
    return 1.0 - (hole.float() * chosen[:, None, None])[:, None]
