"""What a model remembers of its feature columns: names, order, types, centre and scale. Saved with the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmix.data.cells import Cells, Floats
from unmix.errors import SchemaError, warn

_NUMBERS_CACHED = 2**15
_FAR_FROM_ZERO = 1e8
# In standard deviations at fit: what is named, and what is refused because its squares overflow.
_STRANGE, BEYOND = 1e4, 1e12


@dataclass(frozen=True)
class FeatureSchema:
    """Feature columns in their order; ``center`` and ``scale`` standardise them (missing values left out).

    ``named`` is False where the names were made up because the data had none; ``layer`` is the one of AnnData that they
    were read from, None for its ``X`` and for any other table.
    """

    names: tuple[str, ...]
    named: bool
    dtype: str
    center: tuple[float, ...]
    scale: tuple[float, ...]
    layer: str | None = None

    @classmethod
    def learn(
        cls, matrix: Floats | Cells, names: tuple[str, ...] | None, dtype: str, layer: str | None = None
    ) -> FeatureSchema:
        cells = Cells.of(matrix)
        moments = [(np.nanmean(part, axis=0), np.nanstd(part, axis=0)) for _, part in cells.column_blocks()]
        center, scale = (np.concatenate(parts) for parts in zip(*moments, strict=True))
        for k in np.flatnonzero(np.abs(center) > _FAR_FROM_ZERO * scale):
            # Next to its mean a column's spread would be lost in the rounding of the sum.
            own = cells.columns(slice(k, k + 1))[:, 0]
            middle = np.nanmedian(own)
            center[k], scale[k] = middle + np.nanmean(own - middle), np.nanstd(own - middle)
        made_up = tuple(f"x{k}" for k in range(cells.shape[1]))
        return cls(names or made_up, names is not None, dtype, tuple(center.tolist()), tuple(scale.tolist()), layer)

    def standardise(self, matrix: Floats | Cells) -> NDArray[np.float32]:
        """Computed in float64, so few rows at a time that they stay in the processor's cache.

        Raises
        ------
        SchemaError
            A number is so far from those of the fit that no model could compute with it.
        """
        center, scale, cells = np.array(self.center), np.array(self.scale), Cells.of(matrix)
        result = np.empty(cells.shape, dtype=np.float32)
        furthest = 0.0
        for place, rows in cells.row_blocks(_NUMBERS_CACHED):
            with np.errstate(over="ignore"):
                result[place] = part = (rows - center) / scale
            furthest = np.fmax(furthest, np.fmax.reduce(np.abs(part), axis=None, initial=0.0))
        if furthest > _STRANGE:
            self.refuse_beyond(cells)
            said = f"{self._strangest(cells)} What follows is an extrapolation. Is it a code for a missing value, or "
            warn(f"{said}another unit?")
        return result

    def refuse_beyond(self, matrix: Floats | Cells) -> None:
        """Raise the ``SchemaError`` of ``standardise``."""
        cells = Cells.of(matrix)
        if max(np.fmax.reduce(self._distance(rows), axis=None, initial=0.0) for _, rows in cells.row_blocks()) > BEYOND:
            said = f"{self._strangest(cells)} No model can compute with that. Is the unit the same? "
            raise SchemaError(f"{said}Correct the number or drop the row.")

    def _distance(self, rows: Floats) -> Floats:
        with np.errstate(over="ignore"):
            result: Floats = np.abs(rows - np.array(self.center)) / np.array(self.scale)
        return result

    def _strangest(self, cells: Cells) -> str:
        others, furthest, row, column, value = -1, -1.0, 0, 0, 0.0
        for place, rows in cells.row_blocks():
            distance = np.nan_to_num(self._distance(rows), nan=-1.0, posinf=np.inf)
            others += int((distance > _STRANGE).sum())
            here, k = np.unravel_index(np.argmax(distance), distance.shape)
            if distance[here, k] > furthest:
                furthest, row, column = float(distance[here, k]), place.start + int(here), int(k)
                value = float(rows[here, k])
        return (
            f"Row {row} has {value:g} in column {self.names[column]!r}"
            + (f", and there are {others} more such entries" if others else "")
            + f": at the fit that column had the mean {self.center[column]:.4g} and the standard deviation "
            f"{self.scale[column]:.4g}."
        )

    def restore(self, standardised: Floats) -> Floats:
        result: Floats = standardised * np.array(self.scale) + np.array(self.center)
        return result

    def to_dict(self) -> dict[str, Any]:
        raw = asdict(self)
        return raw if self.layer is not None else {name: own for name, own in raw.items() if name != "layer"}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> FeatureSchema:
        known = tuple(raw["names"]), bool(raw["named"]), raw["dtype"], tuple(raw["center"]), tuple(raw["scale"])
        return cls(*known, raw.get("layer"))
