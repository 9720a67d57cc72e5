"""What a model remembers of its feature columns: names, order, types, centre and scale. Saved with the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmix.data.cells import Cells, Floats
from unmix.data.nuisance import Nuisance
from unmix.data.sizes import COUNTS, DISCRETE, TOTAL, SizeFactors
from unmix.errors import SchemaError, warn

NUMBERS_CACHED = 2**15
_FAR_FROM_ZERO = 1e8
# In standard deviations at fit: what is named, and what is refused because its squares overflow.
STRANGE, BEYOND = 1e4, 1e12


@dataclass(frozen=True)
class FeatureSchema:
    """Feature columns in their order; ``center`` and ``scale`` standardise them (missing values left out).

    ``named`` is False where the names were made up because the data had none. ``kinds`` are the likelihoods of the
    features, none where all are Gaussian. Counts are divided by the size of their row (``sizes``), and log(1 + x) of
    them is what is standardised. ``layer`` is the one of AnnData that they were read from, None for its ``X`` and for
    any other table. ``nuisance`` is what batches do to every feature.
    """

    names: tuple[str, ...]
    named: bool
    dtype: str
    center: tuple[float, ...]
    scale: tuple[float, ...]
    kinds: tuple[str, ...] = ()
    sizes: SizeFactors | None = None
    layer: str | None = None
    nuisance: Nuisance | None = None

    @classmethod
    def learn(
        cls,
        matrix: Floats | Cells,
        names: tuple[str, ...] | None,
        dtype: str,
        kinds: tuple[str, ...] = (),
        sizes: SizeFactors | None = None,
        log_size: Floats | None = None,
        layer: str | None = None,
    ) -> FeatureSchema:
        """``kinds``, ``sizes`` and the ``log_size`` of every row are those of counts, if there are any."""
        cells = Cells.of(matrix)
        counted = _counted(kinds or ("gaussian",) * cells.shape[1])
        parts = (_to_standardise(part, counted[place], log_size) for place, part in cells.column_blocks())
        moments = [(np.nanmean(part, axis=0), np.nanstd(part, axis=0)) for part in parts]
        center, scale = (np.concatenate(own) for own in zip(*moments, strict=True))
        for k in np.flatnonzero(np.abs(center) > _FAR_FROM_ZERO * scale):
            # Next to its mean a column's spread would be lost in the rounding of the sum.
            own = cells.columns(slice(k, k + 1))[:, 0]
            middle = np.nanmedian(own)
            center[k], scale[k] = middle + np.nanmean(own - middle), np.nanstd(own - middle)
        made_up = tuple(f"x{k}" for k in range(cells.shape[1]))
        plain = all(kind == "gaussian" for kind in kinds)
        named, units = names is not None, (tuple(center.tolist()), tuple(scale.tolist()))
        return cls(names or made_up, named, dtype, *units, () if plain else kinds, sizes, layer)

    @property
    def n_features(self) -> int:
        return len(self.names)

    def kind(self, feature: int) -> str:
        return self.kinds[feature] if self.kinds else "gaussian"

    @property
    def beside(self) -> tuple[str, ...]:
        """Columns that are no features, but have to be there: sizes of the rows, and their batches."""
        sizes = () if self.sizes is None or self.sizes.source == TOTAL else (self.sizes.source,)
        return sizes if self.nuisance is None else (*sizes, self.nuisance.source)

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """Features that are counts."""
        return _counted(self.kinds or ("gaussian",) * len(self.names))

    @cached_property
    def continuous(self) -> NDArray[np.bool_]:
        """Features whose likelihood is of standardised values."""
        return np.array([self.kind(k) not in DISCRETE for k in range(len(self.names))])

    @property
    def log_scale(self) -> Floats:
        """Log of the unit in which the likelihood takes each feature (n_features,)."""
        return np.where(self.continuous, np.log(np.array(self.scale)), 0.0)

    def standardise(
        self,
        matrix: Floats | Cells,
        log_size: Floats | None = None,
        order: NDArray[np.int64] | None = None,
        offsets: Floats | None = None,
    ) -> NDArray[np.float32]:
        """What an encoder takes of the rows, or of all of them in another ``order``.

        ``log_size`` (rows,) is that of every row of counts, in the order of ``matrix``.

        ``offsets`` (rows, features), what the rows' batches add to η, are taken off.

        Computed in float64, so few rows at a time that they stay in the processor's cache.

        Raises
        ------
        SchemaError
            A number is so far from those of the fit that no model could compute with it.
        """
        center, scale, cells = np.array(self.center), np.array(self.scale), Cells.of(matrix)
        result = np.empty(cells.shape, dtype=np.float32)
        furthest = 0.0
        for place, taken, rows in cells.ordered(order, NUMBERS_CACHED):
            with np.errstate(over="ignore"):
                of_rows, beside = (None if own is None else own[taken] for own in (log_size, offsets))
                part = (_to_standardise(rows, self.counted, of_rows, beside) - center) / scale
                result[place] = part if beside is None else part - np.where(self.continuous, beside, 0.0)
            furthest = np.fmax(furthest, np.fmax.reduce(np.abs(part), axis=None, initial=0.0))
        if furthest > STRANGE:
            self.refuse_beyond(cells)
            said = f"{self._strangest(cells)} Its latents are an extrapolation. Is it a code for a missing value, or "
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
            own = _to_standardise(rows, self.counted, None)
            result: Floats = np.abs(own - np.array(self.center)) / np.array(self.scale)
        return result

    def _strangest(self, cells: Cells) -> str:
        others, furthest, row, column, value = -1, -1.0, 0, 0, 0.0
        for place, rows in cells.row_blocks():
            distance = np.nan_to_num(self._distance(rows), nan=-1.0, posinf=np.inf)
            others += int((distance > STRANGE).sum())
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
        """Features in the data's units, from those that the likelihood takes."""
        result: Floats = standardised * np.array(self.scale) + np.array(self.center)
        return np.where(self.continuous, result, standardised) if self.kinds else result

    def to_dict(self) -> dict[str, object]:
        absent = {"kinds", "sizes"} if not self.kinds else set()
        absent |= {name for name in ("layer", "nuisance") if getattr(self, name) is None}
        return {name: value for name, value in asdict(self).items() if name not in absent}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> FeatureSchema:
        sizes, nuisance = raw.get("sizes"), raw.get("nuisance")
        return cls(
            tuple(raw["names"]),
            bool(raw["named"]),
            raw["dtype"],
            tuple(raw["center"]),
            tuple(raw["scale"]),
            tuple(raw.get("kinds", ())),
            None if sizes is None else SizeFactors.from_dict(sizes),
            raw.get("layer"),
            None if nuisance is None else Nuisance.from_dict(nuisance),
        )


def _counted(kinds: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([kind in COUNTS for kind in kinds], dtype=bool)


def _to_standardise(
    matrix: Floats, counts: NDArray[np.bool_], log_size: Floats | None, offsets: Floats | None = None
) -> Floats:
    """``matrix`` with log(1 + x / size) in the place of ``counts``, which are columns."""
    if not counts.any():
        return matrix
    sizes = np.ones((1, 1)) if log_size is None else np.exp(log_size)[:, None]
    if offsets is not None:
        sizes = sizes * np.exp(offsets[:, counts])
    if counts.all():
        return np.asarray(np.log1p(matrix / sizes))
    result = matrix.copy()
    result[:, counts] = np.log1p(matrix[:, counts] / sizes)
    return result
