"""What a training says of itself after every epoch, or after every block of adversarial steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


@dataclass(frozen=True)
class Block:
    """The state of a training in steps after a block of them.

    Attributes
    ----------
    step : steps done, of those that are planned for this start
    n_steps : at most so many will be run
    start : number of the start, from 0
    terms : mapping of name to the mean over the block of every term, as in a row of ``history_``
    seconds : since the training of this start began
    """

    step: int
    n_steps: int
    start: int
    terms: Mapping[str, float]
    seconds: float


Callback: TypeAlias = Callable[[Epoch], bool | None]
"""Called after every epoch; if it returns True the training stops."""

BlockCallback: TypeAlias = Callable[[Block], bool | None]
"""Called after every block of steps; if it returns True the part of the training in which it was called ends."""
