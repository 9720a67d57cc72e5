"""Evaluation of the states of a model: the objective with its final weights on held-out rows.

After an epoch it is scored by one draw of the latents, the same in every epoch, and at the end by many: one draw blurs
by more than good starts differ.
"""

from __future__ import annotations

import operator
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmix.data.batches import Rows
from unmix.models.base import LatentModel
from unmix.train.run import source_of

_FINAL_DRAWS = 16
_BLOCKS, _BLOCK_DRAWS = 16, 4


class Scoring:
    """Scores every start of ``model`` on ``rows``; a penalty looks at the first ``penalty_rows`` of them."""

    def __init__(self, model: LatentModel, rows: Rows, n_train: int, penalty_rows: int, seed: int) -> None:
        self.model, self.rows, self.n_train, self.penalty_rows, self.seed = model, rows, n_train, penalty_rows, seed
        self.noise = self._same(source_of(seed, 0), len(rows))

    def now(self) -> dict[str, Tensor]:
        """Terms (starts,) of the current state, by the one draw."""
        return self._terms(self.noise)

    def final(self, reached: list[float]) -> tuple[list[float], list[dict[str, float]]]:
        """Objective and terms of every start, by many draws; infinite where what a start has ``reached`` is."""
        source = source_of(self.seed, -1)
        sums: dict[str, Tensor] = {}
        for _ in range(_FINAL_DRAWS):
            terms = self._terms(self._same(source, len(self.rows)))
            sums = {name: value + sums.get(name, torch.zeros_like(value)) for name, value in terms.items()}
        means = {name: value / _FINAL_DRAWS for name, value in sums.items()}
        limits = torch.tensor(reached, device=self.noise.device)
        objective = torch.where(torch.isfinite(limits), weighted(self.model, means, 1.0), limits)
        objective = torch.where(torch.isfinite(objective), objective, torch.inf)
        named = [{name: float(value[start]) for name, value in means.items()} for start in range(self.model.n_starts)]
        return objective.tolist(), named

    def by_blocks(self) -> NDArray[np.float64]:
        """Objective without its penalties (blocks, starts); the rows of a block are evenly spaced."""
        source, n_blocks = source_of(self.seed, -2), min(_BLOCKS, len(self.rows))
        weights = dict(self.model.weights(1.0))
        found = []
        for block in range(n_blocks):
            rows = self.rows.take(slice(block, None, n_blocks))
            values = torch.zeros(self.model.n_starts, device=self.noise.device)
            for _ in range(_BLOCK_DRAWS):
                terms = self.model.terms(rows, self._same(source, len(rows)), self.n_train, 0, 1.0)
                values = values + sum(times(weights[name], value) for name, value in terms.items()) / _BLOCK_DRAWS
            found.append(values.cpu().double().numpy())
        return np.stack(found)

    def _terms(self, noise: Tensor) -> dict[str, Tensor]:
        return self.model.terms(self.rows, noise, self.n_train, self.penalty_rows, 1.0)

    def _same(self, source: torch.Generator, n_rows: int) -> Tensor:
        """The same noise for every start."""
        noise = torch.randn(1, n_rows, self.model.n_noise, generator=source)
        return noise.to(self.rows.codes.device).expand(self.model.n_starts, -1, -1)


def weighted(model: LatentModel, terms: dict[str, Tensor], done: float, penalties: int = 1) -> Tensor:
    """Sum of the weighted terms (starts,), in which the model's penalties count ``penalties`` times."""
    weights = dict(model.weights(done))
    if penalties > 1:
        weights |= {name: weights[name] * penalties for name in model.penalties}
    return reduce(operator.add, [times(weights[name], value) for name, value in terms.items()])


def times(weight: float | Tensor, value: Tensor) -> Tensor:
    """Their product, without an operation where the weight is 1."""
    return value if isinstance(weight, float) and weight == 1.0 else weight * value
