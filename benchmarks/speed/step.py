"""A training step of CGVAE: what the Jacobian penalty adds, what more starts cost, where the time goes.

    python benchmarks/speed/step.py

The default model on 4 latents, 8 features, 4 domains and on 8, 24, 5, batches of 128 rows, the penalty on 32 of them.
``penalty``: a step over one without, where it is due in every step, every second, with 32 rows or with 8, or every
fourth (of four in a row).
``starts``: a step of so many starts over a step of one. ``part``: the share of a step that goes into each part, from
times inside the steps; ``ratio`` is over the whole step.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measure import Options, interleaved, ratio, run

from unmix.data.batches import Rows
from unmix.models.cgvae import CGVAEConfig, CGVAENetwork
from unmix.train.fit import Training, TrainingSettings

PROBLEMS = ((4, 8, 4), (8, 24, 5))
PENALTIES: dict[str, dict[str, Any]] = {
    "every step": {"sparsity": 0.5},
    "every 2nd step": {"sparsity": 0.5, "penalty_every": 2},
    "every 2nd step, 8 rows": {"sparsity": 0.5, "penalty_every": 2, "penalty_rows": 8},
    "every 4th step": {"sparsity": 0.5, "penalty_every": 4},
    "none": {"sparsity": 0.0},
}
STARTS = (1, 2, 4, 6, 8)
BATCH = 128
ROWS = 7_200


def training(
    n_latents: int, n_features: int, n_domains: int, penalty_every: int = 1, penalty_rows: int = 32, **settings: Any
) -> Training:
    """A run of the loop on random rows, before its first step."""
    x = torch.randn(ROWS, n_features, generator=torch.Generator().manual_seed(0))
    codes = torch.arange(ROWS).remainder(n_domains)[:, None]
    rows = Rows(x, None, codes, torch.zeros(ROWS, 0), n_domains)
    model = CGVAENetwork(CGVAEConfig(n_latents, n_features, n_domains, **settings))
    plan = TrainingSettings(max_epochs=100, batch_size=BATCH, penalty_every=penalty_every, penalty_rows=penalty_rows)
    return Training(model, rows, rows.take(slice(0, 800)), plan, None)


def stepper(loop: Training) -> Callable[[], object]:
    """One step a call, in the first third of the training, where spare latents and the floor under the noise are in."""
    generator = torch.Generator().manual_seed(1)
    index = torch.randperm(ROWS, generator=generator)[:BATCH]
    return lambda: loop.step(index, generator, 0.3)


def four(loop: Training) -> Callable[[], object]:
    """Four steps a call."""
    step = stepper(loop)
    return lambda: [step() for _ in range(4)]


def parts(loop: Training, n_steps: int) -> dict[str, np.ndarray]:
    """Seconds a step inside each part, and of the whole ``step``."""
    inside: dict[str, float] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **words: Any) -> Any:
            started = time.perf_counter()
            result = function(*arguments, **words)
            inside[name] = inside.get(name, 0.0) + time.perf_counter() - started
            return result

        return call

    model: Any = loop.model
    for name, owner, method in (
        ("encoder", model, "encode"),
        ("prior and KL", model, "kl"),
        ("decoder and penalty", model, "_decode_and_penalise"),
        ("all terms", model, "terms"),
        ("backward", torch.Tensor, "backward"),
        ("optimiser", loop.optimizer, "step"),
    ):
        setattr(owner, method, timed(name, getattr(owner, method)))
    whole, step = [], stepper(loop)
    found: dict[str, list[float]] = {}
    for _ in range(n_steps):
        inside.clear()
        started = time.perf_counter()
        step()
        whole.append(time.perf_counter() - started)
        for name, seconds in inside.items():
            found.setdefault(name, []).append(seconds)
    arrays = {name: np.array(seconds) for name, seconds in found.items()}
    forward = arrays.pop("all terms")
    arrays["other terms"] = forward - arrays["encoder"] - arrays["prior and KL"] - arrays["decoder and penalty"]
    arrays["rows, noise, checks"] = np.array(whole) - forward - arrays["backward"] - arrays["optimiser"]
    return arrays | {"whole": np.array(whole)}


def rows_of(options: Options) -> list[dict[str, Any]]:
    repeats, n_steps = (2, 5) if options.quick else (25, 500)
    rows: list[dict[str, Any]] = []
    for threads, (n, d, u) in itertools.product(options.threads, PROBLEMS):
        torch.set_num_threads(threads)
        case = {"latents": n, "features": d, "domains": u, "threads": threads}
        for starts in (1, 6):
            seconds = interleaved(
                {part: four(training(n, d, u, n_starts=starts, **words)) for part, words in PENALTIES.items()}, repeats
            )
            for part, own in seconds.items():
                added = ratio(own / 4, seconds["none"] / 4)
                rows.append({**case, "what": "penalty", "part": part, "starts": starts, **added})
        together = {str(count): stepper(training(n, d, u, n_starts=count)) for count in STARTS}
        seconds = interleaved(together, repeats)
        for count in STARTS:
            own = ratio(seconds[str(count)], seconds["1"])
            rows.append({**case, "what": "starts", "part": "whole", "starts": count, **own})
    backward = torch.Tensor.backward
    for threads, starts in itertools.product(options.threads, (1, 6)):
        torch.set_num_threads(threads)
        n, d, u = PROBLEMS[0]
        case = {"latents": n, "features": d, "domains": u, "threads": threads, "what": "part", "starts": starts}
        found = parts(training(n, d, u, n_starts=starts), n_steps)
        torch.Tensor.backward = backward  # type: ignore[method-assign]
        rows += [{**case, "part": name, **ratio(own, found["whole"])} for name, own in found.items()]
    return rows


if __name__ == "__main__":
    assert __doc__
    run("step", __doc__, rows_of)
