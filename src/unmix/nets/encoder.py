r"""The encoder q(z | x): a Gaussian whose mean and Cholesky factor a network computes from x, and from u where asked.

.. math:: z = \mu(x) + L(x)\,\epsilon, \qquad L = \mathrm{diag}(d)\,(I + C), \quad C \text{ strictly lower triangular}

A diagonal posterior pays for every correlation of the true posterior, so the bound prefers decoders with orthogonal
Jacobian columns (Reizinger et al. 2022, arXiv:2206.02416). That preference is as strong as what the domains say about
the latents, and can outweigh it; with a full covariance it is gone. ``full=False`` leaves C = 0, as in published VAEs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from unmix.nets.layers import Generators, LinearPath, StackedMLP

_LOG_RANGE = (-7.0, 3.0)
_RIDGE = 1e-3


@dataclass(frozen=True)
class GaussianPosterior:
    """``mean`` μ and ``diagonal`` d (starts, batch, latents), ``lower`` C (starts, batch, latents, latents).

    d and C are computed when they are asked for, from ``log_diagonal`` and from the ``entries`` of C, which
    ``placement`` puts in their places; with ``counted`` (starts, 1, latents) 0, a latent's row and column in C are 0.
    """

    mean: Tensor
    log_diagonal: Tensor
    entries: Tensor
    placement: Tensor
    counted: Tensor | None = None

    @cached_property
    def diagonal(self) -> Tensor:
        return self.log_diagonal.exp()

    @cached_property
    def lower(self) -> Tensor:
        n = self.mean.shape[-1]
        lower = (self.entries @ self.placement).unflatten(-1, (n, n))
        return lower if self.counted is None else lower * (self.counted.unsqueeze(-1) * self.counted.unsqueeze(-2))

    @property
    def std(self) -> Tensor:
        """Standard deviation of each latent."""
        return self.diagonal * (1.0 + self.lower.square().sum(-1)).sqrt()

    @property
    def factor(self) -> Tensor:
        """L (starts, batch, latents, latents)."""
        return self.diagonal.unsqueeze(-1) * (self.lower + torch.eye(self.mean.shape[-1], device=self.mean.device))

    def sample(self, noise: Tensor) -> Tensor:
        """``μ + L ε`` for ``noise`` ε (starts, batch, latents)."""
        return self.mean + self.diagonal * (noise + (self.lower * noise.unsqueeze(-2)).sum(-1))


def placement_below(n: int) -> Tensor:
    """Where the entries below a diagonal stand in a flat matrix: (n (n - 1) / 2, n²), a single 1 in each row."""
    rows, columns = torch.tril_indices(n, n, -1)
    return torch.nn.functional.one_hot(rows * n + columns, n * n).float()


class Encoder(nn.Module):
    """``x`` (batch, n_features) to ``q(z | x)``, or with ``n_design`` columns of a design matrix to ``q(z | x, u)``.

    ``masked``: the network also sees which entries were observed (missing ones are 0 in ``x``). ``std``: at the start.
    ``full``: whether the covariance is full or diagonal. ``linear``: a linear path from x to the
    mean beside the network.
    """

    placement: Tensor

    def __init__(
        self,
        sources: Generators,
        n_features: int,
        hidden: Sequence[int],
        n_latents: int,
        masked: bool,
        std: float = 0.1,
        *,
        full: bool = True,
        n_design: int = 0,
        activation: str = "silu",
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.masked, self.n_latents, self.n_design = masked, n_latents, n_design
        self.path = LinearPath(len(sources), n_features, n_latents, linear)
        self.register_buffer("placement", placement_below(n_latents)[: None if full else 0], persistent=False)
        n_inputs, n_outputs = n_features * (2 if masked else 1) + n_design, 2 * n_latents + len(self.placement)
        self.network = StackedMLP(sources, n_inputs, hidden, n_outputs, activation=activation)
        with torch.no_grad():
            for name, parameter in self.network.layers[-1].named_parameters():
                if name == "weight":
                    parameter[..., n_latents:] *= 0.1
                else:
                    parameter[..., n_latents : 2 * n_latents] = math.log(std)

    def latent_entries(self, kept: Tensor) -> dict[str, tuple[int, Tensor]]:
        """Dimension and index of the parameters that belong to the latents ``kept`` (ascending) alone."""
        n = self.n_latents
        rows, columns = torch.tril_indices(n, n, -1, device=kept.device)
        inside = torch.nonzero(torch.isin(rows, kept) & torch.isin(columns, kept)).flatten()
        index = torch.cat([kept, n + kept, 2 * n + inside])
        last = f"network.layers.{len(self.network.layers) - 1}"
        own = {f"{last}.weight": (2, index), f"{last}.bias": (2, index)}
        return own if self.path.weight is None else own | {"path.weight": (2, kept)}

    def forward(self, x: Tensor, observed: Tensor | None, design: Tensor | None = None) -> GaussianPosterior:
        n = self.n_latents
        output = self.network.layers[-1](self.below_last(x, observed, design))
        mean, log_diagonal, entries = output.split([n, n, len(self.placement)], dim=-1)
        mean = self.path(mean, x)
        # That of a clamp, with a backward pass of one operation.
        log_diagonal = nn.functional.hardtanh(log_diagonal, *_LOG_RANGE)
        return GaussianPosterior(mean, log_diagonal, entries, self.placement)

    @torch.no_grad()
    def set_linear(self, start: int, weight: Tensor, factor: Tensor) -> None:
        """Make the posterior of one start N(x A, L Lᵀ) for every row.

        ``weight`` A (features, latents) and ``factor`` L, lower triangular (latents, latents).
        """
        assert self.path.weight is not None
        diagonal = factor.diagonal()
        entries = (factor / diagonal.unsqueeze(-1)).flatten() @ self.placement.T
        last: Any = self.network.layers[-1]
        last.weight[start] = 0.0
        last.bias[start] = torch.cat([torch.zeros_like(diagonal), diagonal.log(), entries])
        self.path.weight[start] = weight

    @torch.no_grad()
    def turn(self, start: int, turn: Tensor, below: Tensor, factor: Tensor) -> None:
        """Make the posterior of one start that of ``z' = B z``: exact in the mean, by least squares in the covariance.

        ``turn`` B (latents, latents), ``below`` (batch, width) and ``factor`` L (batch, latents, latents) on some rows.
        """
        n = self.n_latents
        last: Any = self.network.layers[-1]
        weight, bias = last.weight[start], last.bias[start]
        weight[:, :n], bias[:, :n] = weight[:, :n] @ turn.T, bias[:, :n] @ turn.T
        if self.path.weight is not None:
            self.path.weight[start] = self.path.weight[start] @ turn.T
        turned, failed = torch.linalg.cholesky_ex(turn @ factor @ factor.transpose(1, 2) @ turn.T)
        # In float32 the covariance of a row can be singular: such rows say nothing about it.
        below, turned = below[failed == 0], turned[failed == 0]
        if not len(turned):
            return
        diagonal = turned.diagonal(dim1=1, dim2=2)
        entries = (turned / diagonal.unsqueeze(-1)).flatten(1) @ self.placement.T
        wanted = torch.cat([diagonal.log(), entries], dim=1)
        center, level = below.mean(0), wanted.mean(0)
        gram = (below - center).T @ (below - center)
        ridge = _RIDGE * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), device=gram.device)
        slope = torch.linalg.solve(gram + ridge, (below - center).T @ (wanted - level))
        weight[:, n:], bias[:, n:] = slope, level - center @ slope

    def below_last(self, x: Tensor, observed: Tensor | None, design: Tensor | None = None) -> Tensor:
        """What the last layer takes (starts, batch, width)."""
        if self.masked:
            if observed is None:
                observed = torch.ones_like(x)
            x = torch.cat([x, observed], dim=-1)
        if self.n_design:
            assert design is not None
            x = torch.cat([x, design], dim=-1)
        return self.network.below_last(x)
