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
class Pixels:
    """Images as features, which stay 8 bits where they lie until they are asked for.

    Attributes
    ----------
    levels : (all images, pixels and colours) uint8, in memory or mapped
    index : (rows,) int64, which of the images
    mean, std : x is (levels / 255 - mean) / std
    device : where x is computed
    """

    levels: Tensor
    index: Tensor
    mean: float
    std: float
    device: torch.device | str = "cpu"

    @classmethod
    def of(cls, images: NDArray[np.uint8], mean: float, std: float) -> Pixels:
        """All of ``images`` (n, height, width, channels)."""
        writable = np.require(images, requirements=["C", "W"])
        return cls(torch.from_numpy(writable.reshape(len(images), -1)), torch.arange(len(images)), mean, std)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Tensor | slice) -> Pixels:
        return replace(self, index=self.index[index if isinstance(index, slice) else index.cpu()])

    def to(self, device: torch.device) -> Pixels:
        return replace(self, device=device)

    def standardised(self) -> Tensor:
        """x (rows, pixels and colours) float32."""
        return (self.levels[self.index].to(self.device).float() / 255 - self.mean) / self.std


@dataclass(frozen=True)
class Rows:
    """Standardised features and encoded domains of the same rows; nothing writes into them.

    Attributes
    ----------
    source : (rows, features) float32, 0 where missing; or the pixels of images
    observed : (rows, features) float32 0/1, or None where nothing is missing
    codes : (rows, categorical columns) int64, offsets added: columns of the design matrix
    values : (rows, continuous columns) float32
    n_design : columns of the design matrix
    given : (rows, features) float32, the features as they were given, 0 where missing; None where all are continuous
    offset : (rows, 1) or (rows, features) float32, what stands beside a likelihood's η: the log of each row's size, and
        what its batch adds; or None
    """

    source: Tensor | Pixels
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
        return len(self.source)

    @cached_property
    def x(self) -> Tensor:
        """Standardised features (rows, features), 0 where missing."""
        return self.source.standardised() if isinstance(self.source, Pixels) else self.source

    @property
    def features(self) -> Tensor:
        """What a likelihood of features that are not continuous is of."""
        return self.x if self.given is None else self.given

    @property
    def exposure(self) -> Tensor:
        """Size factors (rows, 1) or (rows, features), 1 where there are none."""
        return self.x.new_ones(len(self), 1) if self.offset is None else self.offset.exp()

    def take(self, index: Tensor | slice) -> Rows:
        return self._each(self.source[index], lambda part: part[index])

    def columns(self, index: Tensor) -> Rows:
        """Some of the features, with the offset of all."""
        observed, given = (None if part is None else part[:, index] for part in (self.observed, self.given))
        return replace(self, source=self.x[:, index], observed=observed, given=given)

    def without_domain(self) -> Rows:
        """The same rows as if their domains were not known."""
        none = self.values.new_zeros(len(self), 0)
        return replace(self, codes=none.long(), values=none, n_design=0)

    def _each(self, source: Tensor | Pixels, change: Callable[[Tensor], Tensor]) -> Rows:
        observed, given, offset = (
            None if part is None else change(part) for part in (self.observed, self.given, self.offset)
        )
        return Rows(source, observed, change(self.codes), change(self.values), self.n_design, given, offset)

    def to(self, device: torch.device) -> Rows:
        return self._each(self.source.to(device), lambda part: part.to(device))

    @property
    def design(self) -> Tensor:
        """Indicators of every level, then the continuous columns (rows, n_design)."""
        indicators = self.values.new_zeros(len(self), self.n_design - self.values.shape[1])
        indicators.scatter_(1, self.codes, 1.0)
        return torch.cat([indicators, self.values], dim=1) if self.values.shape[1] else indicators


def split_rows(groups: NDArray[np.int64], fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training rows and held-out rows, the share ``fraction`` of every domain (rounded down), in file order."""
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(groups), dtype=bool)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        held_out[rng.permutation(rows)[: int(len(rows) * fraction)]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
