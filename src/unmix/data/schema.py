"""What a model remembers of its feature columns: names, order, types, centre and scale. Saved with the model."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmix.errors import DataWarning, SchemaError

Floats = NDArray[np.float64]

_NUMBERS_CACHED = 2**15
_NUMBERS_AT_ONCE = 2**22
_FAR_FROM_ZERO = 1e8
# In standard deviations at fit: what is named, and what is refused because its squares overflow.
_STRANGE, BEYOND = 1e4, 1e12


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
        for k in np.flatnonzero(np.abs(center) > _FAR_FROM_ZERO * scale):
            # Next to its mean a column's spread would be lost in the rounding of the sum.
            own = matrix[:, k]
            middle = np.nanmedian(own)
            center[k], scale[k] = middle + np.nanmean(own - middle), np.nanstd(own - middle)
        made_up = tuple(f"x{k}" for k in range(matrix.shape[1]))
        return cls(names or made_up, names is not None, dtype, tuple(center.tolist()), tuple(scale.tolist()))

    @property
    def n_features(self) -> int:
        return len(self.names)

    def standardise(self, matrix: Floats, order: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """The rows of ``matrix``, or all of them in another ``order``, in standard deviations from the mean.

        Computed in float64, so few rows at a time that they stay in the processor's cache.

        Raises
        ------
        SchemaError
            A number is so far from those of the fit that no model could compute with it.
        """
        center, scale = np.array(self.center), np.array(self.scale)
        result = np.empty(matrix.shape, dtype=np.float32)
        furthest = 0.0
        for begin in range(0, len(matrix), rows := max(1, _NUMBERS_CACHED // max(1, matrix.shape[1]))):
            place = slice(begin, begin + rows)
            with np.errstate(over="ignore"):
                own = matrix[place if order is None else order[place]]
                result[place] = part = (own - center) / scale
            furthest = np.fmax(furthest, np.fmax.reduce(np.abs(part), axis=None, initial=0.0))
        if furthest > _STRANGE:
            self.refuse_beyond(matrix)
            said = f"{self._strangest(matrix)} What follows is an extrapolation. Is it a code for a missing value, or "
            warnings.warn(f"{said}another unit?", DataWarning, stacklevel=3)
        return result

    def refuse_beyond(self, matrix: Floats) -> None:
        """Raise the ``SchemaError`` of ``standardise``."""
        if np.nanmax(self._distance(matrix)) > BEYOND:
            said = f"{self._strangest(matrix)} No model can compute with that. Is the unit the same? "
            raise SchemaError(f"{said}Correct the number or drop the row.")

    def _distance(self, matrix: Floats) -> Floats:
        with np.errstate(over="ignore"):
            result: Floats = np.abs(matrix - np.array(self.center)) / np.array(self.scale)
        return result

    def _strangest(self, matrix: Floats) -> str:
        distance = self._distance(matrix)
        row, column = np.unravel_index(np.nanargmax(distance), distance.shape)
        others = int((distance > _STRANGE).sum()) - 1
        return (
            f"Row {row} has {matrix[row, column]:g} in column {self.names[column]!r}"
            + (f", and there are {others} more such entries" if others else "")
            + f": at the fit that column had the mean {self.center[column]:.4g} and the standard deviation "
            f"{self.scale[column]:.4g}."
        )

    def restore(self, standardised: Floats) -> Floats:
        result: Floats = standardised * np.array(self.scale) + np.array(self.center)
        return result

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> FeatureSchema:
        return cls(tuple(raw["names"]), bool(raw["named"]), raw["dtype"], tuple(raw["center"]), tuple(raw["scale"]))
