r"""Exact Jacobian of a stacked network by carrying tangents forward through the layers.

With ``h_0 = z`` and ``a_l = h_{l-1} W_l + b_l``, ``h_l = φ(a_l)``, the tangents (one for each latent) follow

.. math:: T_1 = W_1 \odot φ'(a_1), \qquad T_l = (T_{l-1} W_l) \odot φ'(a_l), \qquad J = T_{L-1} W_L,

so the first layer costs nothing and the rest is one batched matrix product a layer. The result takes part in
automatic differentiation like any other tensor. For any other network, single columns of J come from forward-mode
automatic differentiation (``jacobian_columns``).

A Jacobian of R starts has R · rows · n · d numbers, and its gradient needs a few times as many. In training the rows
are ``penalty_rows``; where no gradient is asked for, rows are taken so few at a time that ``BUDGET`` numbers hold them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unmix.nets.layers import LEAK, StackedMLP, leaky_relu


def silu_with_slope(a: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """``silu`` of all rows of ``a`` (starts, rows, ...), and its derivative at the first ``n_rows``."""
    value, slope = _SiluWithSlope.apply(a, n_rows)
    return value, slope


def leaky_relu_with_slope(a: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """``leaky_relu`` of all rows of ``a`` (starts, rows, ...), and its derivative at the first ``n_rows``."""
    return leaky_relu(a), LEAK + (1.0 - LEAK) * (a[:, :n_rows] > 0)


class _SiluWithSlope(torch.autograd.Function):
    """With the gate g = σ(a) and h = a g: slope s = g + h (1 - g), and its derivative (1 - g) (s + g (1 - h))."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
        gate = torch.sigmoid(a)
        value = a * gate
        gate, first = gate[:, :n_rows], value[:, :n_rows]
        slope = torch.addcmul(gate, first, 1.0 - gate)
        ctx.save_for_backward(a, gate, first, slope)
        return value, slope

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_value: Tensor, by_slope: Tensor) -> tuple[Tensor, None]:
        a, gate, first, slope = ctx.saved_tensors
        bend = torch.addcmul(slope, gate, 1.0 - first).mul_(1.0 - gate)
        by_a = torch.ops.aten.silu_backward(by_value, a)
        by_a[:, : gate.shape[1]].addcmul_(by_slope, bend)
        return by_a, None


# Numbers in one Jacobian where no gradient is asked for: 16 MB.
BUDGET = 2**22


def rows_at_once(n_starts: int, n_latents: int, n_features: int, budget: int = BUDGET) -> int:
    """Rows whose Jacobians are within the budget, at least one."""
    return max(1, budget // max(1, n_starts * n_latents * n_features))


WITH_SLOPES: dict[str, Callable[[Tensor, int], tuple[Tensor, Tensor]]] = {
    "silu": silu_with_slope,
    "leaky_relu": leaky_relu_with_slope,
}


def mlp_with_jacobian(network: StackedMLP, z: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """Output of ``network`` on every row and its Jacobian on the first ``n_rows``.

    Parameters
    ----------
    network : StackedMLP
    z : (starts, batch, n_latents)
    n_rows : rows on which the Jacobian is wanted

    Returns
    -------
    output : (starts, batch, n_features)
    jacobian : (starts, n_rows, n_latents, n_features)
    """
    tangent: Tensor | None = None
    activate = WITH_SLOPES[network.activation]
    *hidden, last = network.layers
    for layer in hidden:
        z, slope = activate(layer(z), n_rows)
        tangent = _push(layer, tangent, n_rows) * slope.unsqueeze(2)
    output: Tensor = last(z)
    jacobian = _push(last, tangent, n_rows)
    return output, jacobian.expand(-1, n_rows, -1, -1)


def jacobian_columns(function: Callable[[Tensor], Tensor], z: Tensor, columns: Tensor) -> Tensor:
    """Exact ``∂ function(z) / ∂ z_i`` (len(columns), rows, ...) for every i of ``columns``; ``z`` (rows, latents)."""
    tangent = torch.zeros(len(columns), *z.shape, dtype=z.dtype, device=z.device)
    tangent[torch.arange(len(columns)), :, columns] = 1.0
    with warnings.catch_warnings():
        # The first use of forward mode loads parts of torch that warn of torch's own future.
        warnings.simplefilter("ignore", DeprecationWarning)
        derivative = torch.func.jvp(function, (z.repeat(len(columns), 1),), (tangent.flatten(0, 1),))[1]
    result: Tensor = derivative.unflatten(0, (len(columns), len(z)))
    return result


def _push(layer: Any, tangent: Tensor | None, n_rows: int) -> Tensor:
    """Tangents after the linear part of a layer; the first layer's are its weights, the same for every row."""
    if tangent is None:
        return layer.weight.unsqueeze(1)
    starts, _, n_latents, _ = tangent.shape
    return torch.bmm(tangent.flatten(1, 2), layer.weight).view(starts, n_rows, n_latents, -1)
