"""What the adversarial loop trains: phases with their own parameters and terms; it is independent of the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unmix.data.batches import Rows


@dataclass(frozen=True)
class Phase:
    """A phase: it takes a step on the parameters of ``modules`` in every step from ``begin`` up to ``end``.

    ``rate``: its learning rate, in that of the settings; ``betas`` of Adam, if not those of the settings.
    """

    name: str
    modules: tuple[str, ...]
    begin: int
    end: int
    rate: float = 1.0
    betas: tuple[float, float] | None = None


class AdversarialModel(nn.Module, ABC):
    """Networks that are updated in turn within every step; ``config`` fixes networks and objective."""

    config: Any
    phases: Sequence[Phase]

    @abstractmethod
    def terms(self, phase: str, rows: Rows, source: torch.Generator, step: int) -> dict[str, Tensor]:
        """Terms of what ``phase`` minimises; random numbers come from ``source``, a generator on the CPU."""

    @abstractmethod
    def weights(self, phase: str, step: int) -> Mapping[str, float]:
        """Weight of every term of ``phase`` in this step."""

    def complexity(self) -> int:
        """Of two trained models with about the same reconstruction error, the one with less of this is kept."""
        return 0

    def after(self, phase: str, step: int, batch_size: int) -> None:
        """Called after the step of ``phase``: running averages and the like."""
