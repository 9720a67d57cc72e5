"""Rows as tensors, taken by index: batch t of a run is a function of the seed and t alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmix.data.domains import Encoded


@dataclass(frozen=True)
class Rows:
    """Standardised features and encoded domains of the same rows.

    Attributes
    ----------
    x : (rows, features) float32, 0 where missing
    observed : (rows, features) float32 0/1, or None where nothing is missing
    codes : (rows, categorical columns) int64, offsets added: columns of the design matrix
    values : (rows, continuous columns) float32
    n_design : columns of the design matrix
    """

    x: Tensor
    observed: Tensor | None
    codes: Tensor
    values: Tensor
    n_design: int

    @classmethod
    def build(cls, standardised: NDArray[np.float64], encoded: Encoded, sizes: tuple[int, ...], masked: bool) -> Rows:
        values = torch.from_numpy(standardised.astype(np.float32))
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

    def take(self, index: Tensor | slice) -> Rows:
        observed = None if self.observed is None else self.observed[index]
        return Rows(self.x[index], observed, self.codes[index], self.values[index], self.n_design)

    def to(self, device: torch.device) -> Rows:
        observed = None if self.observed is None else self.observed.to(device)
        return Rows(self.x.to(device), observed, self.codes.to(device), self.values.to(device), self.n_design)

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
