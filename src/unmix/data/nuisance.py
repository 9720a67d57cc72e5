r"""What a technical batch does to every feature, apart from what latents do.

With :math:`r_{bk}` the difference of feature k in batch b from its mean over batches, in units of the likelihood's η
(standard deviations, log-rates, log-odds), and W the principal axes of the rows within their batches, the effect of the
batch is the part of it that no latents could make:

.. math:: B_b = r_b - m_b W, \qquad m_b = \arg\min_m \lVert r_b - m W \rVert^2,

in the metric of the standardised features. Gene-wise effects are nearly all outside of W, which has few dimensions;
what lies in W may be a difference of the latents and is left to them. B is held from there on: rows are encoded without
it, and the likelihood adds it to η.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from unmix.data.cells import Cells, Floats
from unmix.data.sizes import COUNTS
from unmix.errors import DataError
from unmix.forms import LabelsLike
from unmix.labels import label_texts

_PSEUDO = 1.0
_MOST_EFFECT = 4.0
_LEAST_ROWS = 10


@dataclass(frozen=True)
class Nuisance:
    """Batches by their ``levels`` in the column ``source``, and their ``effects`` (levels, features) on η."""

    source: str
    levels: tuple[str, ...]
    effects: tuple[tuple[float, ...], ...]

    @classmethod
    def learn(
        cls,
        source: str,
        labels: LabelsLike,
        cells: Cells,
        inputs: NDArray[np.float32],
        kinds: Sequence[str],
        scale: Floats,
        log_size: Floats | None,
        n_axes: int,
    ) -> Nuisance:
        """From features as given (``cells``) and standardised (``inputs``; NaN where missing), and their ``scale``.

        Raises
        ------
        DataError
            There is one batch alone, or one of less than ten rows.
        """
        levels, codes = np.unique(np.array(label_texts(labels, source, len(cells))), return_inverse=True)
        counts = np.bincount(codes)
        if len(levels) < 2 or counts.min() < _LEAST_ROWS:
            raise DataError(
                f"nuisance={source!r} takes two batches or more of {_LEAST_ROWS} rows or more; got "
                f"{dict(zip(levels.tolist(), counts.tolist(), strict=True))}. Join small batches, or leave it out."
            )
        indicator = (np.arange(len(levels))[:, None] == codes).astype(float)
        seen = (~np.isnan(inputs)).astype(np.float32)
        filled = np.nan_to_num(inputs)
        means = indicator @ filled / np.maximum(indicator @ seen, 1.0)
        difference, slope = _on_eta(cells, kinds, scale, log_size, indicator, means)
        within = filled - means[codes].astype(np.float32) * seen
        axes = PCA(min(n_axes, *within.shape), random_state=0).fit(within).components_.astype(float)
        inside = (difference * slope) @ axes.T @ axes
        effects = np.clip(difference - inside / slope, -_MOST_EFFECT, _MOST_EFFECT)
        return cls(source, tuple(levels.tolist()), tuple(map(tuple, effects.tolist())))

    def offsets(self, labels: LabelsLike, n_rows: int) -> Floats:
        """Effect (rows, features) on η of the batch of every row.

        Raises
        ------
        DataError
            A batch that the fit did not have.
        """
        texts = label_texts(labels, self.source, n_rows)
        place = {level: k for k, level in enumerate(self.levels)}
        unknown = [text for text in dict.fromkeys(texts) if text not in place]
        if unknown:
            raise DataError(
                f"The batch {unknown[0]!r} in the column {self.source!r} was not there at fit; known are "
                f"{list(self.levels[:20])}. Fit again with rows of it."
            )
        return np.array(self.effects)[[place[text] for text in texts]]

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Nuisance:
        return cls(raw["source"], tuple(raw["levels"]), tuple(map(tuple, raw["effects"])))


def _on_eta(
    cells: Cells, kinds: Sequence[str], scale: Floats, log_size: Floats | None, indicator: Floats, means: Floats
) -> tuple[Floats, Floats]:
    """Differences (levels, features) of the batches on η, and what a unit of η makes of each standardised feature."""
    difference, slope = means - means.mean(axis=0), np.ones(cells.shape[1])
    counts, yes = (np.array([kind in own for kind in kinds], bool) for own in (COUNTS, ("bernoulli",)))
    if not (counts | yes).any():
        return difference, slope
    size = np.ones(len(cells)) if log_size is None else np.exp(log_size)
    total, seen, exposure = np.zeros((3, *means.shape))
    for place, part in cells.column_blocks():
        known = (~np.isnan(part)).astype(float)
        # Of continuous features there are no rates or shares; theirs would be of any sign.
        total[:, place] = indicator @ np.where((counts | yes)[place], np.nan_to_num(part), 0.0)
        seen[:, place] = indicator @ known
        exposure[:, place] = (indicator * size) @ known
    rate = total.sum(axis=0) / np.maximum(exposure.sum(axis=0), 1e-12)
    ratio = np.log((total + _PSEUDO) / (exposure * rate + _PSEUDO))
    share = np.clip((total + _PSEUDO) / (seen + 2 * _PSEUDO), None, 1.0 - 1e-9)
    odds, middle = np.log(share / (1.0 - share)), share.mean(axis=0)
    slope = np.where(counts, np.maximum(rate / (1.0 + rate), 1e-3) / scale, slope)
    slope = np.where(yes, middle * (1.0 - middle) / scale, slope)
    on_eta = np.where(counts, ratio, odds)
    return np.where(counts | yes, on_eta - on_eta.mean(axis=0), difference), slope
