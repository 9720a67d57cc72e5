r"""The mixing ``x̂ = ĝ(z)``, in three forms with one interface.

- ``DenseDecoder``: one network for all features. Sparsity comes from the L1 norm of its Jacobian.
- ``FeatureDecoder``: one small network for each feature,
  :math:`\hat x_k = b_k + \sum_h v_{kh} φ(\sum_i W_{ikh} z_i + c_{kh})`. A latent that feature k does not use has
  :math:`W_{i k \cdot} = 0` exactly, so a group penalty on these weights is a sparsity constraint without a Jacobian.
- ``MaskedDecoder``: one network for all features, :math:`\hat x_k = f(m_k \odot z)_k`, with a vector of weights m_k on
  the latents for each feature (Moran et al. 2022, arXiv:2110.10804).

All return outputs (starts, batch, n_features) and Jacobians (starts, rows, n_latents, n_features).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unmix.nets.jacobian import mlp_with_jacobian, with_slope
from unmix.nets.layers import ACTIVATIONS, Generators, LinearPath, StackedMLP, normal_parameter


class DenseDecoder(nn.Module):
    """One network from all latents to all features, and a linear path beside it where ``linear``."""

    def __init__(
        self,
        sources: Generators,
        n_latents: int,
        hidden: Sequence[int],
        n_features: int,
        activation: str = "silu",
        *,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.network = StackedMLP(sources, n_latents, hidden, n_features, activation=activation)
        self.path = LinearPath(len(sources), n_latents, n_features, linear)

    def forward(self, z: Tensor) -> Tensor:
        output: Tensor = self.path(self.network(z), z)
        return output

    def latent_entries(self, kept: Tensor) -> dict[str, tuple[int, Tensor]]:
        """Dimension and index of the parameters that belong to the latents ``kept`` alone."""
        own = {"network.layers.0.weight": (1, kept)}
        return own if self.path.weight is None else own | {"path.weight": (1, kept)}

    def with_jacobian(self, z: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
        output, jacobian = mlp_with_jacobian(self.network, z, n_rows)
        if self.path.weight is None:
            return output, jacobian
        return self.path(output, z), jacobian + self.path.weight.unsqueeze(1)

    @torch.no_grad()
    def set_linear(self, start: int, weight: Tensor) -> None:
        """Make one start the linear map ``z @ weight``, for ``weight`` (n_latents, n_features)."""
        assert self.path.weight is not None
        self.path.weight[start] = weight
        last: Any = self.network.layers[-1]
        last.weight[start], last.bias[start] = 0.0, 0.0


class FeatureDecoder(nn.Module):
    """One network of one hidden layer (``width`` units) for each feature; ``linear``: and a linear path beside them."""

    def __init__(
        self, sources: Generators, n_latents: int, width: int, n_features: int, *, linear: bool = False
    ) -> None:
        super().__init__()
        self.n_features, self.width = n_features, width
        self.inner = normal_parameter(sources, (n_latents, n_features * width), 1.4 / math.sqrt(n_latents))
        self.inner_bias = nn.Parameter(torch.zeros(len(sources), 1, n_features * width))
        self.outer = normal_parameter(sources, (1, n_features * width), 1.0 / math.sqrt(width))
        self.outer_bias = nn.Parameter(torch.zeros(len(sources), 1, n_features))
        self.path = LinearPath(len(sources), n_latents, n_features, linear)

    def forward(self, z: Tensor) -> Tensor:
        hidden = nn.functional.silu(torch.baddbmm(self.inner_bias, z, self.inner))
        output: Tensor = self.path(self._sum(hidden * self.outer) + self.outer_bias, z)
        return output

    def with_jacobian(self, z: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
        below = torch.baddbmm(self.inner_bias, z, self.inner)
        hidden, slope = with_slope("silu", below, n_rows)
        output, slope = self._sum(hidden * self.outer) + self.outer_bias, slope * self.outer
        starts, n_latents = self.inner.shape[:2]
        gates = slope.unflatten(2, (self.n_features, self.width)).transpose(1, 2).flatten(0, 1)
        weights = self.inner.unflatten(2, (self.n_features, self.width)).permute(0, 2, 3, 1).flatten(0, 1)
        jacobian = torch.bmm(gates, weights).view(starts, self.n_features, n_rows, n_latents)
        jacobian = jacobian.permute(0, 2, 3, 1)
        if self.path.weight is None:
            return output, jacobian
        return self.path(output, z), jacobian + self.path.weight.unsqueeze(1)

    def latent_entries(self, kept: Tensor) -> dict[str, tuple[int, Tensor]]:
        """Dimension and index of the parameters that belong to the latents ``kept`` alone."""
        own = {"inner": (1, kept)}
        return own if self.path.weight is None else own | {"path.weight": (1, kept)}

    @torch.no_grad()
    def set_linear(self, start: int, weight: Tensor) -> None:
        """Make one start the linear map ``z @ weight``, for ``weight`` (n_latents, n_features)."""
        assert self.path.weight is not None
        self.path.weight[start], self.outer[start], self.outer_bias[start] = weight, 0.0, 0.0

    def group_norms(self) -> Tensor:
        """Norm of the path weights from latent i to feature k (starts, n_latents, n_features).

        ``‖ W_{ik·} v_{k·} ‖``: unchanged when a hidden unit's input weights grow and its output weight shrinks.
        """
        paths = (self.inner * self.outer).unflatten(2, (self.n_features, self.width)).square().sum(-1)
        if self.path.weight is not None:
            paths = paths + self.path.weight.square()
        return (paths + 1e-12).sqrt()

    @torch.no_grad()
    def drop(self, entries: Tensor) -> None:
        """Set the input weights of ``entries``, bool (starts, n_latents, n_features), to exactly 0."""
        self.inner.masked_fill_(entries.repeat_interleave(self.width, dim=2), 0.0)
        if self.path.weight is not None:
            self.path.weight.masked_fill_(entries, 0.0)

    def _sum(self, hidden: Tensor) -> Tensor:
        return hidden.unflatten(2, (self.n_features, self.width)).sum(-1)


class MaskedDecoder(nn.Module):
    """One network that gets feature k from ``mask[k] * z``; ``mask`` (starts, features, latents) from ``start`` on."""

    def __init__(
        self,
        sources: Generators,
        n_latents: int,
        hidden: Sequence[int],
        n_features: int,
        activation: str = "silu",
        start: float = 1.0,
    ) -> None:
        super().__init__()
        *below, width = hidden
        self.activation, self.n_features = activation, n_features
        self.mask = nn.Parameter(torch.full((len(sources), n_features, n_latents), start))
        self.trunk = StackedMLP(sources, n_latents, below, width, last_gain=1.4, activation=activation)
        self.head = normal_parameter(sources, (n_features, width), 1.0 / math.sqrt(width))
        self.bias = nn.Parameter(torch.zeros(len(sources), 1, n_features))

    def forward(self, z: Tensor) -> Tensor:
        return self._sum(ACTIVATIONS[self.activation](self.trunk(self._masked(z))))

    def with_jacobian(self, z: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
        n_first = n_rows * self.n_features
        below, tangent = mlp_with_jacobian(self.trunk, self._masked(z), n_first)
        hidden, slope = with_slope(self.activation, below, n_first)
        tangent = (tangent * slope.unsqueeze(2)).unflatten(1, (n_rows, self.n_features))
        jacobian = (tangent * self.head[:, None, :, None]).sum(-1) * self.mask.unsqueeze(1)
        return self._sum(hidden), jacobian.transpose(2, 3)

    def _masked(self, z: Tensor) -> Tensor:
        """Inputs of the network (starts, batch · features, latents)."""
        return (z.unsqueeze(2) * self.mask.unsqueeze(1)).flatten(1, 2)

    def _sum(self, hidden: Tensor) -> Tensor:
        return (hidden.unflatten(1, (-1, self.n_features)) * self.head.unsqueeze(1)).sum(-1) + self.bias


class Decoder(Protocol):
    """What a model needs of a mixing."""

    def __call__(self, z: Tensor) -> Tensor: ...

    def with_jacobian(self, z: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
        """Outputs of all rows, and the Jacobian of the first ``n_rows``."""
        ...
