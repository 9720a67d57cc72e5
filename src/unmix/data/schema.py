"""What a model remembers of its feature columns: names, order, types, centre and scale. Saved with the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NUMBERS_CACHED = 2**15
_NUMBERS_AT_ONCE = 2**22


@dataclass(frozen=True)
class FeatureSchema:
    """Feature columns in their order; ``center`` and ``scale`` standardise them (missing values left out).

    ``named`` is False where the names were made up because the data had none.
    """

    names: tuple[str, ...]
    named: bool
    dtype: str
    center: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def learn(cls, matrix: Floats, names: tuple[str, ...] | None, dtype: str) -> FeatureSchema:
        columns = max(1, _NUMBERS_AT_ONCE // len(matrix))
        parts = [matrix[:, k : k + columns] for k in range(0, matrix.shape[1], columns)]
        center = np.concatenate([np.nanmean(part, axis=0) for part in parts])
        scale = np.concatenate([np.nanstd(part, axis=0) for part in parts])
        made_up = tuple(f"x{k}" for k in range(matrix.shape[1]))
        return cls(names or made_up, names is not None, dtype, tuple(center.tolist()), tuple(scale.tolist()))

    def standardise(self, matrix: Floats) -> NDArray[np.float32]:
        """Computed in float64, so few rows at a time that they stay in the processor's cache."""
        center, scale = np.array(self.center), np.array(self.scale)
        result = np.empty(matrix.shape, dtype=np.float32)
        for begin in range(0, len(matrix), rows := max(1, _NUMBERS_CACHED // max(1, matrix.shape[1]))):
            place = slice(begin, begin + rows)
            result[place] = (matrix[place] - center) / scale
        return result

    def restore(self, standardised: Floats) -> Floats:
        result: Floats = standardised * np.array(self.scale) + np.array(self.center)
        return result

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> FeatureSchema:
        return cls(tuple(raw["names"]), bool(raw["named"]), raw["dtype"], tuple(raw["center"]), tuple(raw["scale"]))
