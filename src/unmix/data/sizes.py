"""Size factors: how much of everything a row has, so that counts are compared as shares of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unmix.data.cells import Cells, Floats
from unmix.errors import DataError

TOTAL = "total"
COUNTS = ("poisson", "negative_binomial")
# Every other kind of feature is continuous.
DISCRETE = (*COUNTS, "bernoulli")


@dataclass(frozen=True)
class SizeFactors:
    """A row's size is its total count, or its entry in a column, over the ``typical`` (median) one of the fit.

    ``source`` is "total" or the name of the column. ``shares`` of the features of the fit in the total count of all
    rows: a total from which entries are missing is divided by what it lacks.
    """

    source: str
    typical: float
    shares: tuple[float, ...] = ()

    @classmethod
    def learn(
        cls, source: str | None, matrix: Floats | Cells, kinds: Sequence[str], column: Floats | None
    ) -> tuple[SizeFactors | None, Floats | None]:
        """What the fit's rows say, and the log size (rows,) of each of them; None where nothing is counted."""
        if source is None or not any(kind in COUNTS for kind in kinds):
            return None, None
        if source == TOTAL:
            counted = np.array([kind in COUNTS for kind in kinds])
            totals = [np.nansum(part, axis=0) for _, part in Cells.of(matrix).column_blocks()]
            sums = np.where(counted, np.concatenate(totals), 0.0)
            own = cls(source, 1.0, tuple((sums / max(sums.sum(), 1.0)).tolist()))
        else:
            own = cls(source, 1.0)
        raw = own.log_sizes(matrix, column)
        middle = float(np.median(raw))
        return cls(own.source, float(np.exp(middle)), own.shares), raw - middle

    def log_sizes(self, matrix: Floats | Cells, column: Floats | None) -> Floats:
        """Log size (rows,) of each row; ``column`` are its entries where they are not the totals.

        Raises
        ------
        DataError
            A row has no counts, or its entry in the column is not a finite number > 0.
        """
        if self.source == TOTAL:
            sizes = np.concatenate([self._totals(rows) for _, rows in Cells.of(matrix).row_blocks()])
            wrong, said = sizes <= 0, "has no counts, so its size is 0. Drop such rows"
        else:
            assert column is not None
            sizes = column
            wrong = ~(np.isfinite(sizes) & (sizes > 0))
            said = f"has no finite size > 0 in the column {self.source!r}. Correct it, or drop such rows"
        if wrong.any():
            raise DataError(
                f"Row {int(np.argmax(wrong))} {said}, or pass size_factors=None ({int(wrong.sum())} in all)."
            )
        result: Floats = np.log(sizes) - np.log(self.typical)
        return result

    def _totals(self, rows: Floats) -> Floats:
        """Total counts (rows,); what is missing in a row is taken to be as in all rows."""
        shares = np.array(self.shares)
        counted = shares > 0
        part = rows[:, counted] if not counted.all() else rows
        seen = (~np.isnan(part)) @ shares[counted] if np.isnan(part).any() else 1.0
        result: Floats = np.nansum(part, axis=1) / np.maximum(seen, 1e-12)
        return result

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> SizeFactors:
        return cls(raw["source"], float(raw["typical"]), tuple(raw["shares"]))
