"""A training step of CGGAN: what R1, the Jacobian term and the mask add to the same networks without them.

    python benchmarks/speed/gan.py

Rows of 8 features with 4 latents and 6 domains in batches of 256, the two-colour digits with the settings of their
benchmark, and images of 32 and 64 pixels with the default settings, in batches of 32. Measured are steps of
discriminator, generator and encoder at six tenths of the adversarial training, where real rows have joined; four in a
row, because penalties are due in every fourth. ``ratio``: seconds with all terms over seconds without the three;
``rows_a_second``: with all terms.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from measure import Options, interleaved, ratio, run

from unmix import CGGAN
from unmix.bench.translation import DIGIT_SETTINGS
from unmix.data.batches import Rows
from unmix.models.cggan import CGGANConfig, CGGANNetwork
from unmix.train.adversarial import AdversarialRun, AdversarialSettings

PROBLEMS: dict[str, tuple[tuple[int, ...], int, dict[str, Any]]] = {
    "rows": ((8,), 6, {"n_latents": 4}),
    "digits 16": ((16, 16, 3), 4, DIGIT_SETTINGS),
    "images 32": ((32, 32, 3), 4, {"n_latents": 16, "batch_size": 32}),
    "images 64": ((64, 64, 3), 4, {"n_latents": 16, "batch_size": 32}),
}
STEPS = 10**6
ROWS = 512


def stepper(config: CGGANConfig, rows: Rows, batch_size: int) -> Callable[[], object]:
    """Four steps a call."""
    loop = AdversarialRun(CGGANNetwork(config), rows, AdversarialSettings(batch_size=batch_size), None)
    loop.progress.step = 6 * STEPS // 10

    def call() -> None:
        for _ in range(4):
            loop.step()

    return call


def steppers(name: str) -> tuple[dict[str, Callable[[], object]], int]:
    """With the penalties and without, on random rows, and rows a batch."""
    shape, n_domains, settings = PROBLEMS[name]
    x = torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(0))
    if len(shape) > 1:
        x = (x * 40 + 128).clamp(0, 255).to(torch.uint8)
    codes = torch.arange(ROWS).remainder(n_domains)
    short = {"max_steps": 1, "encoder_steps": 1, "device": "cpu", "verbose": 0}
    model = CGGAN(**{**settings, **short}).fit(x.numpy(), codes.numpy())
    whole = replace(model.model_.config, steps=STEPS)
    plain = replace(whole, sparsity=0.0, mask=False, gradient_every=STEPS + 1)
    rows = Rows(x, None, codes[:, None], torch.zeros(ROWS, 0), n_domains)
    ways = {"with": whole, "without": plain}
    return {way: stepper(config, rows, model.batch_size) for way, config in ways.items()}, int(model.batch_size)


def rows_of(options: Options) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    names = list(PROBLEMS)[:2] if options.quick else list(PROBLEMS)
    for threads, name in itertools.product(options.threads, names):
        torch.set_num_threads(threads)
        ways, batch_size = steppers(name)
        seconds = interleaved(ways, 2 if options.quick else 7)
        own = ratio(seconds["with"], seconds["without"])
        found.append({"problem": name, "threads": threads, "rows_a_second": 4 * batch_size / own["seconds"], **own})
    return found


if __name__ == "__main__":
    assert __doc__
    run("gan", __doc__, rows_of)
