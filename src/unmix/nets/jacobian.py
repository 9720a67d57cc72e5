r"""Exact Jacobian of a stacked network by carrying tangents forward through the layers.

With ``h_0 = z`` and ``a_l = h_{l-1} W_l + b_l``, ``h_l = φ(a_l)``, the tangents (one for each latent) follow

.. math:: T_1 = W_1 \odot φ'(a_1), \qquad T_l = (T_{l-1} W_l) \odot φ'(a_l), \qquad J = T_{L-1} W_L,

so the first layer costs nothing and the rest is one batched matrix product a layer. The result can be differentiated
once; its gradient is in closed form, and tangents lie in memory that is used again. For any other network, single
columns of J come from forward-mode automatic differentiation (``jacobian_columns``).

A Jacobian of R starts has R · rows · n · d numbers, and its gradient needs a few times as many. In training the rows
are ``penalty_rows``; where no gradient is asked for, rows are taken so few at a time that ``BUDGET`` numbers hold them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unmix.nets.layers import LEAK, StackedMLP, leaky_relu


class _Silu:
    """With the gate g = σ(a) and h = a g: slope s = g + h (1 - g), and its derivative (1 - g) (s + g (1 - h))."""

    @staticmethod
    def forward(a: Tensor, n_rows: int) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        gate = torch.sigmoid(a)
        value = a * gate
        gate, first = gate[:, :n_rows], value[:, :n_rows]
        closed = 1.0 - gate
        slope = torch.addcmul(gate, first, closed)
        return value, slope, (a, gate, closed, first, slope)

    @staticmethod
    def backward(kept: tuple[Tensor, ...], by_value: Tensor | None, by_slope: Tensor) -> Tensor:
        a, gate, closed, first, slope = kept
        by_bend = torch.addcmul(slope, gate, 1.0 - first).mul_(closed)
        if by_value is None:
            return _padded(by_slope * by_bend, a.shape[1])
        by_a: Tensor = torch.ops.aten.silu_backward(by_value, a)
        by_a[:, : gate.shape[1]].addcmul_(by_slope, by_bend)
        return by_a


class _LeakyRelu:
    @staticmethod
    def forward(a: Tensor, n_rows: int) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        return leaky_relu(a), LEAK + (1.0 - LEAK) * (a[:, :n_rows] > 0), (a,)

    @staticmethod
    def backward(kept: tuple[Tensor, ...], by_value: Tensor | None, by_slope: Tensor) -> Tensor:
        (a,) = kept
        if by_value is None:
            return torch.zeros_like(a)
        by_a: Tensor = torch.ops.aten.leaky_relu_backward(by_value, a, LEAK, False)
        return by_a


_ACTIVATIONS: dict[str, type[_Silu] | type[_LeakyRelu]] = {"silu": _Silu, "leaky_relu": _LeakyRelu}


def with_slope(activation: str, a: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """``activation`` of all rows of ``a`` (starts, rows, ...), and its derivative at the first ``n_rows``."""
    value, slope = _WithSlope.apply(activation, a, n_rows)
    return value, slope


class _WithSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, activation: str, a: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
        value, slope, ctx.kept = _ACTIVATIONS[activation].forward(a, n_rows)
        ctx.activation = activation
        return value, slope

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_value: Tensor, by_slope: Tensor) -> tuple[None, Tensor, None]:
        return None, _ACTIVATIONS[ctx.activation].backward(ctx.kept, by_value, by_slope), None


# Numbers in one Jacobian where no gradient is asked for: 16 MB.
BUDGET = 2**22


def rows_at_once(n_starts: int, n_latents: int, n_features: int, budget: int = BUDGET) -> int:
    """Rows whose Jacobians are within the budget, at least one."""
    return max(1, budget // max(1, n_starts * n_latents * n_features))


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
    device = z.device.type
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return mlp_with_jacobian(network, z.float(), n_rows)
    layers: list[Any] = list(network.layers)
    if len(layers) == 1:
        return layers[0](z), layers[0].weight.unsqueeze(1).expand(-1, n_rows, -1, -1)
    parameters = [part for layer in layers for part in (layer.weight, layer.bias)]
    output, jacobian = _MLPWithJacobian.apply(network.activation, n_rows, _lease(network, n_rows), z, *parameters)
    return output, jacobian


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


def _padded(first: Tensor, n_rows: int) -> Tensor:
    """``first`` with rows of zeros behind it, ``n_rows`` in all."""
    if first.shape[1] == n_rows:
        return first
    return torch.cat([first, first.new_zeros(first.shape[0], n_rows - first.shape[1], *first.shape[2:])], dim=1)


class _Tangents:
    """Memory (starts, rows, latents, width), and the same with rows and latents as one axis."""

    def __init__(self, like: Tensor, n_rows: int, width: int) -> None:
        self.whole = like.new_empty(like.shape[0], n_rows, like.shape[1], width)
        self.flat = self.whole.flatten(1, 2)


class _Room:
    """Memory of one pass, for every hidden layer: its tangents before and after the slopes, and their gradients.

    Asking for megabytes anew takes longer than to compute what they hold.
    """

    def __init__(self, first: Tensor, n_rows: int, widths: Sequence[int]) -> None:
        self._of_layers = lambda: [_Tangents(first, n_rows, width) for width in widths]
        self.pushed, self.tangents = self._of_layers(), self._of_layers()

    @cached_property
    def by_tangents(self) -> list[_Tangents]:
        return self._of_layers()

    @cached_property
    def products(self) -> list[_Tangents]:
        return self._of_layers()


class _Lease:
    """A room that goes back to those of its network when nothing can ask for the gradient any more."""

    def __init__(self, free: list[_Room], first: Tensor, n_rows: int, widths: Sequence[int]) -> None:
        self._free = free
        self.room = free.pop() if free else _Room(first, n_rows, widths)

    def __del__(self) -> None:
        self._free.append(self.room)


_ROOMS: WeakKeyDictionary[StackedMLP, dict[Any, list[_Room]]] = WeakKeyDictionary()


def _lease(network: StackedMLP, n_rows: int) -> _Lease:
    """Other devices than the CPU keep memory themselves; without a gradient rows are many, and it is given back."""
    weights: list[Tensor] = [layer.weight for layer in network.layers]  # type: ignore[misc]
    first, widths = weights[0], [weight.shape[2] for weight in weights[:-1]]
    kept = torch.is_grad_enabled() and first.device.type == "cpu"
    free = _ROOMS.setdefault(network, {}).setdefault((first.dtype, n_rows), []) if kept else []
    return _Lease(free, first, n_rows, widths)


class _MLPWithJacobian(torch.autograd.Function):
    r"""The formulas of this module, and their gradient in closed form.

    With bars for gradients, from the last layer to the first,

    .. math:: \bar W_l = h_{l-1}^\top \bar a_l + T_{l-1}^\top \bar P_l, \qquad \bar T_{l-1} = \bar P_l W_l^\top,
              \qquad \bar P_l = \bar T_l \odot φ'(a_l), \qquad
              \bar a_l = \bar h_l \odot φ'(a_l) + φ''(a_l) \odot \sum_i \bar T_{l,i} \odot P_{l,i}

    where P are the tangents before the slopes, of which the first are the weights themselves.
    """

    @staticmethod
    def forward(
        ctx: Any, activation: str, n_rows: int, lease: _Lease, z: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        weights, biases, activate = parameters[::2], parameters[1::2], _ACTIVATIONS[activation]
        last = len(weights) - 1
        inputs, kept = [z], []
        pushed, jacobian = weights[0].unsqueeze(1), z.new_empty(0)
        for layer in range(last):
            value, slope, of_backward = activate.forward(
                torch.baddbmm(biases[layer], inputs[layer], weights[layer]), n_rows
            )
            inputs.append(value)
            kept.append((slope.unsqueeze(2), of_backward))
            tangents = lease.room.tangents[layer]
            torch.mul(pushed, kept[layer][0], out=tangents.whole)
            if layer + 1 < last:
                torch.bmm(tangents.flat, weights[layer + 1], out=lease.room.pushed[layer + 1].flat)
                pushed = lease.room.pushed[layer + 1].whole
            else:
                jacobian = torch.bmm(tangents.flat, weights[last])
        ctx.save_for_backward(z, *weights)
        ctx.inner, ctx.kept, ctx.activate, ctx.lease = inputs[1:], kept, activate, lease
        ctx.set_materialize_grads(False)
        output = torch.baddbmm(biases[last], inputs[last], weights[last])
        return output, jacobian.view(len(z), n_rows, z.shape[2], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_output: Tensor | None, by_jacobian: Tensor | None) -> tuple[Tensor | None, ...]:
        z, *weights = ctx.saved_tensors
        inputs, room, last = [z, *ctx.inner], ctx.lease.room, len(weights) - 1
        if by_jacobian is None:
            by_jacobian = z.new_zeros(len(z), room.tangents[0].whole.shape[1], z.shape[2], weights[last].shape[2])
        by_pushed, by_a = by_jacobian.reshape(len(z), -1, by_jacobian.shape[3]), by_output
        found: list[Tensor | None] = []
        for layer in range(last, 0, -1):
            weight, (slope, of_backward) = weights[layer], ctx.kept[layer - 1]
            own, by_own, product = room.tangents[layer - 1], room.by_tangents[layer - 1], room.products[layer - 1]
            by_weight = torch.bmm(own.flat.transpose(1, 2), by_pushed)
            found[:0] = _with_rows(by_weight, inputs[layer], by_a)
            by_value = None if by_a is None else torch.bmm(by_a, weight.transpose(1, 2))
            torch.bmm(by_pushed, weight.transpose(1, 2), out=by_own.flat)
            pushed = weights[0].unsqueeze(1) if layer == 1 else room.pushed[layer - 1].whole
            by_slope = torch.mul(by_own.whole, pushed, out=product.whole).sum(2)
            if layer == 1:
                by_weight = torch.mul(by_own.whole, slope, out=product.whole).sum(1)
            else:
                by_own.whole.mul_(slope)
                by_pushed = by_own.flat
            by_a = ctx.activate.backward(of_backward, by_value, by_slope)
        assert by_a is not None
        found[:0] = _with_rows(by_weight, z, by_a)
        by_z = torch.bmm(by_a, weights[0].transpose(1, 2)) if ctx.needs_input_grad[3] else None
        return None, None, None, by_z, *found


def _with_rows(by_weight: Tensor, inputs: Tensor, by_a: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Gradients of a layer's weights and biases, with what the rows themselves add to that of the tangents."""
    if by_a is None:
        return by_weight, None
    return by_weight + torch.bmm(inputs.transpose(1, 2), by_a), by_a.sum(1, keepdim=True)
