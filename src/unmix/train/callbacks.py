"""What a training says of itself after every epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Epoch:
    """The state of a training after an epoch.

    Attributes
    ----------
    epoch : from 1
    n_epochs : at most so many will be run
    objective : (n_starts,), on the training rows, mean over the batches of the epoch with the weights in force, in nats
        per row; infinite where the epoch took no step
    held_out_objective : (n_starts,), on the held-out rows with the final weights, in nats per row
    seconds : since the training began
    """

    epoch: int
    n_epochs: int
    objective: tuple[float, ...]
    held_out_objective: tuple[float, ...]
    seconds: float


Callback: TypeAlias = Callable[[Epoch], bool | None]
"""Called after every epoch; if it returns True the training stops."""
