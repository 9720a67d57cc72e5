"""The spline map of the prior, forward and backward, against the same map of zuko.

    python benchmarks/speed/spline.py

Both take raw widths, heights and slopes (starts, rows, latents, ...) of eight bins and values (starts, rows, latents),
and return the images with their log-derivatives; the loss is the sum of the negative log-density. 128 rows, and the two
spare latents with which a fit of 4 or 8 latents begins. CPU time of one thread; ``ratio`` is over that of unmix. Needs
``zuko``.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
from measure import Options, interleaved, ratio, run
from torch import Tensor
from zuko.transforms import MonotonicRQSTransform

from unmix.distributions.prior import LocationScale, LocationScaleSpline, SplinePrior

BATCH, BINS = 128, SplinePrior.n_bins


def ours(z: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    plain = LocationScale(z.new_zeros(()), z.new_zeros(()))
    return LocationScaleSpline(plain, widths, heights, slopes, SplinePrior.bound).to_noise(z)


def zukos(z: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    return MonotonicRQSTransform(widths, heights, slopes, bound=SplinePrior.bound).call_and_ladj(z)


def steps(starts: int, latents: int) -> dict[str, Callable[[], object]]:
    """One forward and backward pass a call."""
    source = torch.Generator().manual_seed(0)
    shape = starts, BATCH, latents
    tensors = [torch.randn(*shape, *rest, generator=source) for rest in ((), (BINS,), (BINS,), (BINS - 1,))]
    leaves = [tensor.requires_grad_() for tensor in tensors]

    def step(function: Callable[..., tuple[Tensor, Tensor]]) -> Callable[[], object]:
        def call() -> object:
            noise, log_slope = function(*leaves)
            return torch.autograd.grad((0.5 * noise.square() - log_slope).sum(), leaves)

        return call

    return {"unmix": step(ours), "zuko": step(zukos)}


def rows_of(options: Options) -> list[dict[str, Any]]:
    repeats = 2 if options.quick else 101
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for starts, latents in itertools.product((1, 4), (6, 10)):
        seconds = interleaved(steps(starts, latents), repeats, clock=time.process_time)
        case = {"rows": BATCH, "latents": latents, "starts": starts, "threads": 1}
        rows += [{**case, "way": name, **ratio(own, seconds["unmix"])} for name, own in seconds.items()]
    return rows


if __name__ == "__main__":
    assert __doc__
    run("spline", __doc__, rows_of, needs_quiet=False)
