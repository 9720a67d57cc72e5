"""The encoder q(z | x): a diagonal Gaussian whose mean and spread a network computes from the features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unmix.nets.layers import Generators, StackedMLP

_LOG_STD_RANGE = (-7.0, 3.0)


class Encoder(nn.Module):
    """``x`` (batch, n_features) to mean and standard deviation (starts, batch, n_latents) of ``q(z | x)``.

    ``masked``: the network also sees which entries were observed (missing ones are 0 in ``x``).
    """

    def __init__(
        self,
        sources: Generators,
        n_features: int,
        hidden: Sequence[int],
        n_latents: int,
        masked: bool,
        std: float = 0.1,
    ) -> None:
        super().__init__()
        self.masked = masked
        self.network = StackedMLP(sources, n_features * (2 if masked else 1), hidden, 2 * n_latents)
        with torch.no_grad():
            for name, parameter in self.network.layers[-1].named_parameters():
                if name == "weight":
                    parameter[..., n_latents:] *= 0.1
                else:
                    parameter[..., n_latents:] = math.log(std)

    def forward(self, x: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.masked:
            if observed is None:
                observed = torch.ones_like(x)
            x = torch.cat([x, observed], dim=-1)
        mean, log_std = self.network(x).chunk(2, dim=-1)
        return mean, log_std.clamp(*_LOG_STD_RANGE).exp()
