"""Seconds until the chosen start has found the latents: MCC 0.97 on problems of 4 latents, 8 features, 4 domains.

    python benchmarks/speed/convergence.py

``make_sparse_mixing`` with its defaults and ``guaranteed=True``, 8,000 rows, seeds that nothing was chosen on. Each
method runs once a seed, all starts included. ``reached``: seconds of the training when the start that is kept at the
end first has the MCC, on fresh rows; empty where it never has. ``seconds``: the whole fit, which a user waits for.
CEBRA has no start and no history: its ``reached`` is its ``seconds``, where it gets so far.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from measure import Options, run

from unmix import metrics
from unmix.bench.methods import METHODS
from unmix.data.batches import Rows
from unmix.datasets import make_sparse_mixing
from unmix.models.base import LatentModel

LEVEL = 0.97
ROWS, FRESH = 8_000, 2_000
SEEDS = range(300, 305)
NAMES = ("both", "IVAE", "CEBRA")
States = list[tuple[float, dict[str, torch.Tensor]]]


@contextmanager
def remembered(model: Any) -> Iterator[tuple[list[LatentModel], States]]:
    """The network that ``model`` trains, and seconds and state after each of its epochs."""
    networks: list[LatentModel] = []
    states: States = []
    build: Callable[..., LatentModel] = model._network

    def watched(*arguments: Any) -> LatentModel:
        network = build(*arguments)
        rearrange, started = network.rearrange, time.perf_counter()

        def after_epoch(*words: Any) -> None:
            rearrange(*words)
            state = {name: value.clone() for name, value in network.state_dict().items()}
            states.append((time.perf_counter() - started, state))

        network.rearrange = after_epoch  # type: ignore[method-assign]
        networks.append(network)
        return network

    model._network = watched
    try:
        yield networks, states
    finally:
        del model._network


@torch.no_grad()
def first_reached(network: LatentModel, states: States, start: int, rows: Rows, z: np.ndarray) -> float | None:
    """Seconds at the first epoch whose latents of ``start`` have the MCC."""
    for seconds, state in states:
        network.load_state_dict(state)
        latents = network.encode(rows.x, rows.observed, rows.design).mean[start]
        latents = latents[:, latents.std(0) > 0].numpy().astype(float)
        if latents.shape[1] >= z.shape[1] and metrics.mcc(z, latents, n_bootstrap=0) >= LEVEL:
            return seconds
    return None


def one(name: str, seed: int, n_rows: int, settings: dict[str, Any]) -> dict[str, Any]:
    data = make_sparse_mixing(
        n_latents=4, n_features=8, n_domains=4, guaranteed=True, n_samples=n_rows + FRESH, random_state=seed
    )
    model = METHODS[name].build(4, seed).set_params(**settings)
    x, u, fresh = data.x[:-FRESH], data.domains[:-FRESH], slice(-FRESH, None)
    started = time.perf_counter()
    if name == "CEBRA":
        model.fit(x, u)
        seconds = time.perf_counter() - started
        score = float(metrics.mcc(data.z[fresh], model.transform(data.x[fresh]), n_bootstrap=0))
        return {"seconds": seconds, "mcc": score, "reached": seconds if score >= LEVEL else None}
    with remembered(model) as (networks, states):
        model.fit(x, u)
    seconds = time.perf_counter() - started
    rows = model._labelled_rows(data.x[fresh], data.domains[fresh])
    latents = model.transform(data.x[fresh], data.domains[fresh]) if name == "IVAE" else model.transform(data.x[fresh])
    reached = first_reached(networks[0], states, model.best_restart_, rows, data.z[fresh])
    score = float(metrics.mcc(data.z[fresh], latents, n_bootstrap=0))
    return {"seconds": seconds, "mcc": score, "reached": reached}


def rows_of(options: Options) -> list[dict[str, Any]]:
    names = [name for name in NAMES if name != "CEBRA" or importlib.util.find_spec("cebra")]
    n_rows, seeds = (600, [300]) if options.quick else (ROWS, list(SEEDS))
    rows = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        for seed in seeds:
            for name in names:
                settings = {"max_iterations" if name == "CEBRA" else "max_epochs": 3} if options.quick else {}
                if name != "CEBRA":
                    settings["verbose"] = 0
                found = one(name, seed, n_rows, settings)
                rows.append({"method": name, "seed": seed, "threads": threads, **found})
                print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    assert __doc__
    run("convergence", __doc__, rows_of)
