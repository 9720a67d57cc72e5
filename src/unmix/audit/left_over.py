r"""Differences between domains that the latents do not explain, as additive effects of levels.

If there are fewer latents than causes, a part of the domain means is unexplained: with :math:`\delta_{uk}` the shift
of η that gives feature k its mean in domain u, the effects b of the levels are

.. math:: \hat b = \arg\min_b \sum_u n_u (\delta_{uk} - b_{0k} - d_u^\top b_k)^2 + \lVert b_k \rVert^2

for the designs d of the domains and their numbers of rows. If the model holds they are near 0.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from unmix.audit.describe import chunks
from unmix.audit.input import Strata, evenly
from unmix.data.batches import Rows
from unmix.models.base import FittedModel

Floats = NDArray[np.float64]

_MOST_ROWS = 1_000


@torch.no_grad()
def left_over(model: FittedModel, rows: Rows, strata: Strata) -> NDArray[np.float32]:
    """Effects (n_design, n_features) on η, from at most 1,000 rows of each stratum."""
    deltas, counts = [], []
    for stratum in range(len(strata.group)):
        place = np.flatnonzero(strata.labels == stratum)
        place = place[evenly(len(place), _MOST_ROWS)]
        own = rows.take(torch.from_numpy(place).to(rows.codes.device))
        outputs = [model.reconstruct(model.mean(part.x, part.observed, part.design)) for part in chunks(own)]
        deltas.append(model.likelihood.shift(own, torch.cat(outputs)).cpu().double().numpy())
        counts.append(float((strata.labels == stratum).sum()))
    columns = np.column_stack([np.ones(len(counts)), strata.design])
    ridge = np.eye(columns.shape[1])
    ridge[0, 0] = 1e-9
    weighted = columns.T * np.array(counts)
    found = np.linalg.solve(weighted @ columns + ridge, weighted @ np.array(deltas))
    return np.asarray(found[1:], dtype=np.float32)
