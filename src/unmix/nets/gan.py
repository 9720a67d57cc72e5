r"""Generator, discriminator and encoder of CG-GAN on rows of features.

The discriminator projects (Miyato & Koyama 2018, arXiv:1802.05637): with features φ(x) of a network and an embedding of
the design matrix of u,

.. math:: D(x, u) = w^\top φ(x) + b + (V u)^\top φ(x),

so that it judges whether x is a likely row *of domain u*. A plain conditional generator, G(z, u), takes the design
matrix beside the latents; in CG-GAN u reaches x through the style latents alone.

Every network here has one start: inputs are (rows, ...), and the layers' start axis is added and removed inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unmix.nets.jacobian import mlp_with_jacobian
from unmix.nets.layers import Generators, StackedLinear, StackedMLP, normal_parameter


class VectorGenerator(nn.Module):
    """``x = G(z)`` or ``G(z, u)``: latents (rows, n_latents) and, where ``n_design`` > 0, the design matrix of u."""

    def __init__(
        self, sources: Generators, n_latents: int, n_design: int, hidden: Sequence[int], n_features: int
    ) -> None:
        super().__init__()
        self.conditional = n_design > 0
        self.network = StackedMLP(sources, n_latents + n_design, hidden, n_features)

    def forward(self, z: Tensor, design: Tensor) -> Tensor:
        output: Tensor = self.network(self._inputs(z, design)[None])[0]
        return output

    def derivatives(self, z: Tensor, design: Tensor, latents: Tensor) -> Tensor:
        """Exact ∂x/∂z_i (len(latents), rows, n_features) for every i of ``latents``."""
        _, jacobian = mlp_with_jacobian(self.network, self._inputs(z, design)[None], len(z))
        return jacobian[0, :, latents].transpose(0, 1)

    @torch.no_grad()
    def turn(self, latents: Tensor, rotation: Tensor) -> None:
        """Be, for ``latents`` that ``rotation`` has turned, what it was for them before."""
        first = self.network.layers[0]
        assert isinstance(first, StackedLinear)
        first.weight[:, latents] = rotation.to(first.weight) @ first.weight[:, latents]

    def _inputs(self, z: Tensor, design: Tensor) -> Tensor:
        return torch.cat([z, design], dim=1) if self.conditional else z


class VectorDiscriminator(nn.Module):
    """Score (rows,) of rows ``x`` (rows, n_features) of the domains with design matrix ``design``."""

    def __init__(self, sources: Generators, n_features: int, n_design: int, hidden: Sequence[int]) -> None:
        super().__init__()
        width = hidden[-1]
        self.trunk = StackedMLP(sources, n_features, hidden[:-1], width)
        self.projection = Projection(sources, width, n_design)

    def forward(self, x: Tensor, design: Tensor) -> Tensor:
        features = nn.functional.silu(self.trunk(x[None])[0])
        score: Tensor = self.projection(features, design)
        return score


class Projection(nn.Module):
    """``w·φ + b + (V u)·φ`` (rows,) for features φ (rows, width)."""

    def __init__(self, sources: Generators, width: int, n_design: int) -> None:
        super().__init__()
        self.linear = StackedMLP(sources, width, (), 1)
        self.embedding = normal_parameter(sources, (n_design, width), 1.0 / math.sqrt(width))

    def forward(self, features: Tensor, design: Tensor) -> Tensor:
        return self.linear(features[None])[0, :, 0] + (design @ self.embedding[0] * features).sum(1)


class VectorEncoder(nn.Module):
    """Latents (rows, n_latents) of rows ``x``, from x alone."""

    def __init__(self, sources: Generators, n_features: int, hidden: Sequence[int], n_latents: int) -> None:
        super().__init__()
        self.network = StackedMLP(sources, n_features, hidden, n_latents)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.network(x[None])[0]
        return output

    @torch.no_grad()
    def turn(self, latents: Tensor, rotation: Tensor) -> None:
        """Give ``latents`` as ``rotation`` turns them."""
        last = self.network.layers[-1]
        assert isinstance(last, StackedLinear)
        for part in (last.weight, last.bias):
            part[:, :, latents] = part[:, :, latents] @ rotation.to(part).T
