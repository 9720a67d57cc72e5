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
from collections.abc import Callable
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
        # The outputs must not be kept here: with them the pass would hold itself, and its memory would never be free.
        ctx.save_for_backward(a)
        ctx.activation, ctx.n_rows = activation, n_rows
        value, slope, _ = _ACTIVATIONS[activation].forward(a, n_rows)
        return value, slope

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_value: Tensor, by_slope: Tensor) -> tuple[None, Tensor, None]:
        (a,), activation = ctx.saved_tensors, _ACTIVATIONS[ctx.activation]
        return None, activation.backward(activation.forward(a, ctx.n_rows)[2], by_value, by_slope), None


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
    lease = _Lease(network, z, (len(z), n_rows, z.shape[2]))
    output, jacobian = _MLPWithJacobian.apply(network.activation, n_rows, lease, z, *parameters)
    return output, jacobian


def jacobian_columns(function: Callable[[Tensor], Tensor], z: Tensor, columns: Tensor) -> Tensor:
    """Exact ``∂ function(z) / ∂ z_i`` (len(columns), rows, ...) for every i of ``columns``; ``z`` (rows, latents)."""
    tangent = torch.zeros(len(columns), *z.shape, dtype=z.dtype, device=z.device)
    tangent[torch.arange(len(columns)), :, columns] = 1.0
    derivative = directional(function, (z.repeat(len(columns), 1),), (tangent.flatten(0, 1),))
    result: Tensor = derivative.unflatten(0, (len(columns), len(z)))
    return result


def directional(function: Callable[..., Tensor], at: tuple[Tensor, ...], along: tuple[Tensor, ...]) -> Tensor:
    """Exact derivative of ``function(*at)`` along ``along``, by forward differentiation."""
    with warnings.catch_warnings():
        # The first use of forward mode loads parts of torch that warn of torch's own future.
        warnings.simplefilter("ignore", DeprecationWarning)
        result: Tensor = torch.func.jvp(function, at, along)[1]
    return result


def _padded(first: Tensor, n_rows: int) -> Tensor:
    """``first`` with rows of zeros behind it, ``n_rows`` in all."""
    if first.shape[1] == n_rows:
        return first
    return torch.cat([first, first.new_zeros(first.shape[0], n_rows - first.shape[1], *first.shape[2:])], dim=1)


class _Lease:
    """Memory for what a pass and its gradient hold of the tangents, used again once nothing can ask for that gradient.

    Asking for megabytes anew takes longer than to compute what they hold. Devices other than the CPU keep memory
    themselves; without a gradient rows are many, and each tensor is given back as soon as it has been used.
    """

    def __init__(self, network: StackedMLP, like: Tensor, shape: tuple[int, int, int]) -> None:
        self._like, self._shape, self.differentiable = like, shape, torch.is_grad_enabled()
        self._free: list[dict[Any, Tensor]] | None = None
        if self.differentiable and like.device.type == "cpu":
            self._free = _FREE.setdefault(network, {}).setdefault((like.dtype, shape), [])
            self._own = self._free.pop() if self._free else {}

    def whole(self, what: str, layer: int, width: int) -> Tensor | None:
        """Room for (starts, rows, latents, width); None where it is to be made anew."""
        if self._free is None:
            return None
        if (what, layer) not in self._own:
            self._own[what, layer] = self._like.new_empty(*self._shape, width)
        return self._own[what, layer]

    def flat(self, what: str, layer: int, width: int) -> Tensor | None:
        """The same, with rows and latents as one axis."""
        whole = self.whole(what, layer, width)
        return None if whole is None else whole.flatten(1, 2)

    def __del__(self) -> None:
        if self._free is not None:
            self._free.append(self._own)


_FREE: WeakKeyDictionary[StackedMLP, dict[Any, list[dict[Any, Tensor]]]] = WeakKeyDictionary()


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
        shape, last = (len(z), n_rows, z.shape[2], -1), len(weights) - 1
        value, pushed, kept = z, weights[0].unsqueeze(1), []
        for layer in range(last):
            inputs, width, after = value, weights[layer].shape[2], weights[layer + 1]
            value, slope, of_backward = activate.forward(torch.baddbmm(biases[layer], inputs, weights[layer]), n_rows)
            slope = slope.unsqueeze(2)
            tangents = torch.mul(pushed, slope, out=lease.whole("tangents", layer, width)).flatten(1, 2)
            if lease.differentiable:
                kept.append((inputs, pushed, tangents, slope, of_backward))
            # The Jacobian outlives this pass, so it lies in memory of its own.
            out = lease.flat("pushed", layer, after.shape[2]) if layer + 1 < last else None
            pushed = torch.bmm(tangents, after, out=out).view(shape)
        ctx.save_for_backward(*weights)
        ctx.kept, ctx.value, ctx.activate, ctx.lease = kept, value, activate, lease
        ctx.set_materialize_grads(False)
        return torch.baddbmm(biases[last], value, weights[last]), pushed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_output: Tensor | None, by_jacobian: Tensor | None) -> tuple[Tensor | None, ...]:
        weights, lease, by_a, value = ctx.saved_tensors, ctx.lease, by_output, ctx.value
        if by_jacobian is None:
            slope = ctx.kept[-1][3]
            by_jacobian = slope.new_zeros(*slope.shape[:2], weights[0].shape[1], weights[-1].shape[2])
        by_pushed = by_jacobian.flatten(1, 2)
        found: list[Tensor | None] = []
        for layer in reversed(range(len(weights) - 1)):
            inputs, pushed, tangents, slope, of_backward = ctx.kept[layer]
            after, width = weights[layer + 1].transpose(1, 2), weights[layer].shape[2]
            found[:0] = _with_rows(torch.bmm(tangents.transpose(1, 2), by_pushed), value, by_a)
            by_value = None if by_a is None else torch.bmm(by_a, after)
            by_tangents = torch.bmm(by_pushed, after, out=lease.flat("by tangents", layer, width))
            by_tangents = by_tangents.unflatten(1, (slope.shape[1], -1))
            product = lease.whole("product", layer, width)
            by_slope = torch.mul(by_tangents, pushed, out=product).sum(2)
            if layer:
                by_pushed = by_tangents.mul_(slope).flatten(1, 2)
            else:
                by_first = torch.mul(by_tangents, slope, out=product).sum(1)
            by_a, value = ctx.activate.backward(of_backward, by_value, by_slope), inputs
        assert by_a is not None
        found[:0] = _with_rows(by_first, value, by_a)
        by_z = torch.bmm(by_a, weights[0].transpose(1, 2)) if ctx.needs_input_grad[3] else None
        return None, None, None, by_z, *found


def _with_rows(by_weight: Tensor, inputs: Tensor, by_a: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Gradients of a layer's weights and biases, with what the rows themselves add to that of the tangents."""
    if by_a is None:
        return by_weight, None
    return by_weight + torch.bmm(inputs.transpose(1, 2), by_a), by_a.sum(1, keepdim=True)
