"""Layers whose parameters carry a leading start axis, so that several starts train as one program.

Shapes: activations (starts, batch, width), weights (starts, inputs, outputs), biases (starts, 1, outputs).
Start r is drawn from its own generator: its values do not depend on how many starts stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Generators = Sequence[torch.Generator]


def generators(seed: int, n_starts: int) -> list[torch.Generator]:
    """One generator for each start: seed = f(seed, start)."""
    return [torch.Generator().manual_seed((seed * 1_000_003 + start) % 2**63) for start in range(n_starts)]


def normal_parameter(sources: Generators, shape: Sequence[int], scale: float) -> nn.Parameter:
    """A parameter (starts, *shape), normal with standard deviation ``scale``."""
    draws = [torch.randn(*shape, generator=source) for source in sources]
    return nn.Parameter(torch.stack(draws) * scale)


class LinearPath(nn.Module):
    """``y + x W`` beside a network, W = 0 at the start; absent (``y``) where it is off.

    State that was saved without the path is read as W = 0.
    """

    def __init__(self, n_starts: int, n_inputs: int, n_outputs: int, on: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_starts, n_inputs, n_outputs)) if on else None

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        if self.weight is None:
            return y
        if x.dim() == 2:
            x = x.expand(len(self.weight), -1, -1)
        return torch.baddbmm(y, x, self.weight)

    def _load_from_state_dict(self, state_dict: dict[str, object], prefix: str, *args: Any, **kwargs: Any) -> None:
        if self.weight is not None:
            state_dict.setdefault(f"{prefix}weight", torch.zeros_like(self.weight))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class StackedLinear(nn.Module):
    """``y = x W + b`` for every start at once."""

    def __init__(self, sources: Generators, n_inputs: int, n_outputs: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = normal_parameter(sources, (n_inputs, n_outputs), gain / math.sqrt(n_inputs))
        self.bias = nn.Parameter(torch.zeros(len(sources), 1, n_outputs))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            x = x.expand(self.weight.shape[0], -1, -1)
        return torch.baddbmm(self.bias, x, self.weight)


LEAK = 0.1


def leaky_relu(a: Tensor) -> Tensor:
    """``a`` where positive, a tenth of it elsewhere."""
    return nn.functional.leaky_relu(a, LEAK)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": nn.functional.silu, "leaky_relu": leaky_relu}


class StackedMLP(nn.Module):
    """Linear layers with ``activation`` (of ``ACTIVATIONS``) between them; ``hidden`` gives the widths in between."""

    def __init__(
        self,
        sources: Generators,
        n_inputs: int,
        hidden: Sequence[int],
        n_outputs: int,
        last_gain: float = 1.0,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        self.activation = activation
        widths = [n_inputs, *hidden, n_outputs]
        gains = [1.4] * len(hidden) + [last_gain]
        self.layers = nn.ModuleList(
            StackedLinear(sources, a, b, gain) for a, b, gain in zip(widths, widths[1:], gains, strict=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers[-1](self.below_last(x))
        return result

    def below_last(self, x: Tensor) -> Tensor:
        """What the last layer takes."""
        activate = ACTIVATIONS[self.activation]
        for layer in self.layers[:-1]:
            x = activate(layer(x))
        return x
