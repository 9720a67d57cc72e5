"""Rows as tensors, taken by index: batch t of a run is a function of the seed and t alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmix.data.domains import Encoded


@dataclass(frozen=True)
class Rows:
    """Standardised features and encoded domains of the same rows; nothing writes into them.

    Attributes
    ----------
    x : (rows, features) float32, 0 where missing
    observed : (rows, features) float32 0/1, or None where nothing is missing
    codes : (rows, categorical columns) int64, offsets added: columns of the design matrix
    values : (rows, continuous columns) float32
    n_design : columns of the design matrix
    given : (rows, features) float32, the features as they were given, 0 where missing; None where all are continuous
    offset : (rows, 1) or (rows, features) float32, what stands beside a likelihood's η: the log of each row's size, and
        what its batch adds; or None
    """

    x: Tensor
    observed: Tensor | None
    codes: Tensor
    values: Tensor
    n_design: int
    given: Tensor | None = None
    offset: Tensor | None = None

    @classmethod
    def build(cls, standardised: NDArray[np.floating], encoded: Encoded, sizes: tuple[int, ...], masked: bool) -> Rows:
        values = torch.from_numpy(standardised.astype(np.float32, copy=False))
        observed = (~torch.isnan(values)).float() if masked else None
        offsets = np.concatenate([[0], np.cumsum(sizes)])[: len(sizes)].astype(np.int64)
        return cls(
            torch.nan_to_num(values) if masked else values,
            observed,
            torch.from_numpy(encoded.codes + offsets),
            torch.from_numpy(encoded.values.astype(np.float32)),
            sum(sizes) + encoded.values.shape[1],
        )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def features(self) -> Tensor:
        """What a likelihood of features that are not continuous is of."""
        return self.x if self.given is None else self.given

    @property
    def exposure(self) -> Tensor:
        """Size factors (rows, 1) or (rows, features), 1 where there are none."""
        return self.x.new_ones(len(self), 1) if self.offset is None else self.offset.exp()

    def take(self, index: Tensor | slice) -> Rows:
        return self._each(lambda part: part[index])

    def columns(self, index: Tensor) -> Rows:
        """Some of the features, with the offset of all."""
        cut = (None if part is None else part[:, index] for part in (self.x, self.observed, self.given))
        x, observed, given = cut
        assert x is not None
        return replace(self, x=x, observed=observed, given=given)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Rows:
        x, observed, codes, values, given, offset = (
            None if part is None else change(part)
            for part in (self.x, self.observed, self.codes, self.values, self.given, self.offset)
        )
        assert x is not None
        assert codes is not None
        assert values is not None
        return Rows(x, observed, codes, values, self.n_design, given, offset)

    def to(self, device: torch.device) -> Rows:
        return self._each(lambda part: part.to(device))

    @property
    def design(self) -> Tensor:
        """Indicators of every level, then the continuous columns (rows, n_design)."""
        indicators = self.values.new_zeros(len(self), self.n_design - self.values.shape[1])
        indicators.scatter_(1, self.codes, 1.0)
        return torch.cat([indicators, self.values], dim=1) if self.values.shape[1] else indicators


class ImageRows(Rows):
    """Rows whose features are 8-bit pixels, which stay where they lie until ``x`` is asked for.

    ``pixels`` (all images, features) uint8, in memory or mapped; ``index`` picks the rows; ``x`` is
    (pixels / 255 - mean) / std on the device of ``codes``.
    """

    pixels: Tensor
    index: Tensor
    mean: float
    std: float

    def __init__(self, pixels: Tensor, index: Tensor, others: Rows, mean: float, std: float) -> None:
        own = {"pixels": pixels, "index": index, "mean": mean, "std": std}
        own |= dict.fromkeys(("observed", "given", "offset"))
        shared = {name: getattr(others, name) for name in ("codes", "values", "n_design")}
        for name, value in {**own, **shared}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_images(cls, images: NDArray[np.uint8], mean: float, std: float, others: Rows) -> ImageRows:
        """``images`` (n, height, width, channels); ``others`` has the domains of the same rows."""
        writable = np.require(images, requirements=["C", "W"])
        pixels = torch.from_numpy(writable.reshape(len(images), -1))
        return cls(pixels, torch.arange(len(images)), others, mean, std)

    @cached_property
    def x(self) -> Tensor:
        levels = self.pixels[self.index].to(self.codes.device)
        return (levels.float() / 255 - self.mean) / self.std

    def __len__(self) -> int:
        return len(self.index)

    def take(self, index: Tensor | slice) -> ImageRows:
        others = Rows(self.index, None, self.codes[index], self.values[index], self.n_design)
        own = self.index[index if isinstance(index, slice) else index.cpu()]
        return ImageRows(self.pixels, own, others, self.mean, self.std)

    def to(self, device: torch.device) -> ImageRows:
        others = Rows(self.index, None, self.codes, self.values, self.n_design).to(device)
        return ImageRows(self.pixels, self.index, others, self.mean, self.std)


def split_rows(groups: NDArray[np.int64], fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training rows and held-out rows, the share ``fraction`` of every domain (rounded down), in file order."""
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(groups), dtype=bool)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        held_out[rng.permutation(rows)[: int(len(rows) * fraction)]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
