"""The exact L1 penalty on a decoder's Jacobian and its gradient: against other ways, and against the arithmetic limit.

    python benchmarks/speed/penalty.py

A decoder with two hidden layers, 256 rows. Every way computes the sum over entries of the mean over rows of |∂x/∂z| and
its gradient in all weights. The limit counts the multiply-adds that n tangents need, forward and backward, and divides
them by the rate at which the matrix products of the same shapes run beside them; what a tangent costs elementwise is
not in it. ``ratio`` is time over limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from measure import Options, interleaved, ratio, run
from torch import Tensor
from torch.func import jacfwd, jacrev, vmap
from torch.nn.functional import silu

from unmix.nets.decoder import DenseDecoder
from unmix.nets.layers import generators
from unmix.objectives.sparsity import jacobian_weights, l1_penalty

SIZES = ((4, 8, 64), (10, 50, 128), (20, 200, 256))
BATCH = 256


def products(n: int, d: int, width: int, batch: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Shapes of the matrix products of n tangents through width → width → d, forward and backward.

    The first layer has none: its tangents are its weights.
    """
    rows, shapes = batch * n, []
    for inputs, outputs in ((width, width), (width, d)):
        shapes.append(((rows, inputs), (inputs, outputs)))
        shapes.append(((rows, outputs), (outputs, inputs)))
        shapes.append(((inputs, rows), (rows, outputs)))
    return shapes


def multiply_adds(n: int, d: int, width: int, batch: int) -> int:
    """Of all ``products``."""
    return sum(a * b * c for (a, b), (_, c) in products(n, d, width, batch))


def ways(n: int, d: int, width: int, batch: int) -> dict[str, Callable[[], object]]:
    """Every way to the penalty and its gradient; a plain pass of the decoder; the matrix products alone."""
    decoder = DenseDecoder(generators(0, 1), n, (width, width), d)
    weights = [parameter for name, parameter in decoder.named_parameters() if not name.endswith("layers.2.bias")]
    z = torch.randn(1, batch, n, generator=torch.Generator().manual_seed(0))

    def row(z: Tensor) -> Tensor:
        """The decoder on one row, in products that vmap turns into one product for all rows."""
        *hidden, last = decoder.network.layers
        for layer in hidden:
            z = silu(z @ layer.weight[0] + layer.bias[0, 0])
        return z @ last.weight[0] + last.bias[0, 0]

    def one_by_one() -> Tensor:
        inputs = z.clone().requires_grad_()
        output = decoder(inputs)
        columns = [torch.autograd.grad(output[..., k].sum(), inputs, create_graph=True)[0] for k in range(d)]
        return torch.stack(columns, dim=-1)

    jacobians: dict[str, Callable[[], Tensor]] = {
        "unmix": lambda: decoder.with_jacobian(z, batch)[1],
        "vmap(jacfwd)": lambda: vmap(jacfwd(row))(z[0]).transpose(1, 2)[None],
        "vmap(jacrev)": lambda: vmap(jacrev(row))(z[0]).transpose(1, 2)[None],
        "loop over autograd.grad": one_by_one,
    }
    found = {name: _penalised(jacobian, weights, n) for name, jacobian in jacobians.items()}
    return found | {"plain pass": _plain(decoder, z), "limit": _products(products(n, d, width, batch))}


def _penalised(jacobian: Callable[[], Tensor], weights: list[Tensor], n: int) -> Callable[[], list[Tensor]]:
    """The penalty and its gradient: one gradient a weight; the bias of the last layer is no part of the Jacobian."""

    def call() -> list[Tensor]:
        penalty = l1_penalty(jacobian_weights(jacobian(), torch.ones(1, n))).sum()
        return [penalty, *torch.autograd.grad(penalty, weights)]

    return call


def _plain(decoder: DenseDecoder, z: Tensor) -> Callable[[], object]:
    parameters = list(decoder.parameters())
    return lambda: torch.autograd.grad(decoder(z).sum(), parameters)


def _products(shapes: list[tuple[tuple[int, int], tuple[int, int]]]) -> Callable[[], object]:
    """All products on numbers that lie ready, into memory that lies ready."""
    source = torch.Generator().manual_seed(1)
    ready = [
        (torch.randn(left, generator=source), torch.randn(right, generator=source), torch.empty(left[0], right[1]))
        for left, right in shapes
    ]

    def call() -> None:
        for left, right, out in ready:
            torch.mm(left, right, out=out)

    return call


def rows_of(options: Options) -> list[dict[str, Any]]:
    sizes, batch, repeats = (SIZES[:1], 16, 3) if options.quick else (SIZES, BATCH, 15)
    rows = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        for n, d, width in sizes:
            seconds = interleaved(ways(n, d, width, batch), repeats)
            work = multiply_adds(n, d, width, batch)
            rate = work / float(sorted(seconds["limit"])[repeats // 2]) / 1e9
            case = {"latents": n, "features": d, "width": width, "batch": batch, "threads": threads}
            for name, own in seconds.items():
                rows.append({**case, "way": name, **ratio(own, seconds["limit"]), "giga_multiply_adds": rate})
    return rows


if __name__ == "__main__":
    assert __doc__
    run("penalty", __doc__, rows_of)
