"""Shared by all loops: seeds, the optimiser's state, the last state known to be finite, and when it is written.

Randomness is a function of the seed and of the turn, an epoch or a step, and a checkpoint holds the state after some
turn: a resumed run takes the same steps as one that never stopped.
"""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from unmix.errors import TrainingError
from unmix.train.checkpoint import Checkpoint

SECONDS_BETWEEN_CHECKPOINTS = 10.0
REMEDY = "Look for extreme values in the data, or lower learning_rate."


@dataclass
class Progress:
    """Everything of a run that is not a tensor."""

    rewinds: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


OwnProgress = TypeVar("OwnProgress", bound=Progress)


class Run(ABC, Generic[OwnProgress]):
    """A run that takes turns; ``good`` and ``good_progress`` are what a rewind and an interrupted run go back to."""

    def __init__(self, progress: OwnProgress, checkpoint: Checkpoint | None) -> None:
        self.progress, self.checkpoint = progress, checkpoint
        self.good: dict[str, Tensor] = {}
        self._began = time.monotonic()
        self.remember()

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether there is no further turn to take."""

    @abstractmethod
    def advance(self) -> None:
        """Take a turn, remember a state that is known to be finite, and report it."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All that changes in training: of the model, and of its optimisers."""

    @abstractmethod
    def save(self) -> None:
        """Write the checkpoint, if there is to be one."""

    @abstractmethod
    def load(self) -> None:
        """Continue from the checkpoint."""

    def save_interrupted(self) -> None:
        """Write the checkpoint where a turn may be half taken."""
        self.save()

    def walk(self, *, resume: bool) -> None:
        """Take all turns; the checkpoint is written every few seconds, at the end, and when the run is interrupted."""
        if resume:
            self.load()
        self._began = time.monotonic() - self.progress.seconds
        written = time.monotonic()
        try:
            while not self.done:
                self.advance()
                if time.monotonic() - written > SECONDS_BETWEEN_CHECKPOINTS:
                    self.save()
                    written = time.monotonic()
            self.save()
        except KeyboardInterrupt:
            self.save_interrupted()
            raise

    def seconds(self) -> float:
        """Seconds of training, those before an interruption too."""
        return time.monotonic() - self._began

    @torch.no_grad()
    def remember(self) -> None:
        """The current state is known to be finite."""
        self.remembered = False
        for name, value in self.tensors().items():
            if name in self.good:
                self.good[name].copy_(value)
            else:
                self.good[name] = value.clone()
        self.good_progress = copied(self.progress)
        self.remembered = True

    def remember_whole(self) -> None:
        """Remember once more where that was interrupted."""
        if not self.remembered:
            self.remember()

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], start: int | None = None) -> None:
        """Put everything, or of one start, where the tensors have an axis of starts, back to ``tensors``.

        What an optimiser has begun to keep since then becomes 0.
        """
        for name, tensor in self.tensors().items():
            before = tensors[name] if name in tensors else torch.zeros_like(tensor)
            if start is None:
                tensor.copy_(before)
            elif tensor.dim():
                tensor[start] = before[start]

    def diverged(self, where: str, rate: float) -> TrainingError:
        """The error of a run that no lower learning rate, a share of ``rate`` at last, has helped."""
        return TrainingError(
            f"The objective became non-finite {where}, after {self.progress.rewinds} rewinds at a lower learning rate "
            f"({rate:.3g} of the asked). {REMEDY}",
            self.progress.history,
        )


def copied(progress: OwnProgress) -> OwnProgress:
    """An independent copy."""
    return replace(progress, **{own.name: copy.copy(getattr(progress, own.name)) for own in fields(progress)})


def source_of(seed: int, turn: int) -> torch.Generator:
    """The random numbers of a turn, drawn on the CPU so that every device sees the same."""
    return torch.Generator().manual_seed((seed * 1_000_003 + turn) % 2**63)


def moments(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """State of Adam for a parameter, made beforehand so that it can be kept and restored from the first step on."""
    state: dict[str, Tensor] = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    return state
