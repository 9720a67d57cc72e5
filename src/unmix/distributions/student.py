r"""Student's t around η: features with outliers.

.. math:: \frac{x - η}{σ} \sim t_ν

with a scale σ and degrees of freedom ν > 1 for each feature, both learnt: large ν is a normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from unmix.data.batches import Rows
from unmix.distributions.likelihood import Gaussian, NoiseCourse

_FIRST_DEGREES = 10.0
_MOST_LOG_DEGREES = 6.0
_STEPS, _RATE, _MOST_ROWS = 60, 0.1, 4096


class Student(Gaussian):
    """``x ~ η + σ t_ν`` of standardised features; ``course`` is that of σ."""

    n_parameters = 2

    def __init__(self, n_starts: int, n_features: int, std: float = 0.1, course: NoiseCourse | None = None) -> None:
        super().__init__(n_starts, n_features, std, course)
        self.log_degrees = nn.Parameter(torch.full((n_starts, 1, n_features), math.log(_FIRST_DEGREES - 1.0)))

    @property
    def degrees(self) -> Tensor:
        """ν (starts, 1, features)."""
        return 1.0 + self.log_degrees.clamp(-_MOST_LOG_DEGREES, _MOST_LOG_DEGREES).exp()

    def log_prob(self, rows: Rows, output: Tensor, progress: float = 1.0) -> Tensor:
        log_std, degrees = self.noise.log_std(progress), self.degrees
        squares = ((rows.x - output) * (-log_std).exp()).square()
        half = (degrees + 1.0) / 2.0
        constants = torch.lgamma(half) - torch.lgamma(degrees / 2.0) - 0.5 * (math.pi * degrees).log() - log_std
        entries = constants - half * (squares / degrees).log1p()
        return (entries if rows.observed is None else entries * rows.observed).sum(-1)

    def sample(self, output: Tensor, generator: torch.Generator, offset: Tensor | None = None) -> Tensor:
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        degrees = self.degrees[0, 0].detach()
        drawn = rng.standard_t(np.broadcast_to(degrees.cpu().double().numpy(), output.shape))
        return output + self.noise.std()[0, 0] * torch.from_numpy(drawn).to(output)

    def refit(self, drawn: Iterable[tuple[Rows, Tensor]]) -> None:
        """Scale and degrees of the best bound, by descent."""
        parts = list(drawn)
        step = max(1, sum(len(rows) for rows, _ in parts) // _MOST_ROWS)
        parts = [(rows.take(slice(None, None, step)), output[None, ::step].detach()) for rows, output in parts]
        optimizer = torch.optim.Adam([*self.parameters()], lr=_RATE)
        with torch.enable_grad():
            for turn in range(_STEPS):
                optimizer.param_groups[0]["lr"] = _RATE * (1.0 - turn / _STEPS)
                optimizer.zero_grad()
                torch.stack([-self.log_prob(rows, output).sum() for rows, output in parts]).sum().backward()
                optimizer.step()
        optimizer.zero_grad()

    def of_start(self, start: int) -> dict[str, Tensor]:
        return {**super().of_start(start), "log_degrees": self.log_degrees[start : start + 1].detach()}
