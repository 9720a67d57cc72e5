"""How time and memory of a fit grow with rows and with features.

    python benchmarks/speed/growth.py

Each fit runs in a new interpreter, with the default starts and a tenth of the default length, which counts steps, not
passes; an epoch is as long as by default. ``seconds``: a step, that is the training without the turning of the latents
over its steps. ``turn_seconds``: one of the two turnings. ``around_seconds``: everything before and after the training,
for each row.
``peak_over_data``: the largest memory that was in use after the data were there, the data included, less what the
interpreter held after a tiny fit before, over the size of the data (float64); left out below 64 MB of data. Repeats go
through all sizes in turn; ``ratio`` is the step's time over that of the smallest size.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import numpy as np
from measure import Options, fresh, ratio, run

ROWS = (1_000, 10_000, 100_000, 1_000_000)
FEATURES = (8, 50, 500, 5_000)
FIXED_FEATURES, FIXED_ROWS = 50, 2_000
LARGEST = (20_000, 5_000)
LEAST_MEGABYTES = 64
CODE = "import sys; sys.path.insert(0, sys.argv[1]); import growth; growth.measure_one()"


def problem(n_rows: int, n_features: int, n_domains: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Rows that four latents make, whose means the domains move; filled in place, a few rows at a time."""
    rng = np.random.default_rng(0)
    mixing, means = rng.standard_normal((4, n_features)), rng.uniform(-1.5, 1.5, (n_domains, 4))
    domains = np.arange(n_rows) % n_domains
    x = np.empty((n_rows, n_features))
    for begin in range(0, n_rows, 1_000):
        own = domains[begin : begin + 1_000]
        z = means[own] + rng.standard_normal((len(own), 4))
        x[begin : begin + 1_000] = np.tanh(z @ mixing) + 0.1 * rng.standard_normal((len(own), n_features))
    return x, domains


def measure_one() -> None:
    """In the new interpreter: sizes from the command line, one JSON object out."""
    n_rows, n_features, threads, epochs = (int(word) for word in sys.argv[2:])
    import torch

    from unmix import CGVAE
    from unmix.estimators import settings as planned
    from unmix.models import cgvae

    torch.set_num_threads(threads)
    CGVAE.steps_per_latent, CGVAE.least_steps = CGVAE.steps_per_latent // 10, CGVAE.least_steps // 10
    planned._LEAST_EPOCHS //= 10
    turn, turned = cgvae.rotate_latents, []

    def timed(*words: Any) -> None:
        started = time.perf_counter()
        turn(*words)
        turned.append(time.perf_counter() - started)

    cgvae.rotate_latents = timed
    settings: dict[str, Any] = {"n_latents": 4, "verbose": 0, "max_epochs": epochs or None}
    CGVAE(**{**settings, "max_epochs": 1}).fit(*problem(400, 8))
    turned.clear()
    before = _peak_bytes()
    x, domains = problem(n_rows, n_features)
    model, started = CGVAE(**settings, early_stopping=False), time.perf_counter()
    model.fit(x, domains)
    seconds = time.perf_counter() - started
    plan = model._training_settings(n_rows, 0, True)
    batches = max(1, round(model.settings_["n_train"] / plan.batch_size))
    steps = plan.max_epochs * max(1, round(plan.epoch_part * batches))
    turning = sum(turned)
    large = x.nbytes >= LEAST_MEGABYTES * 2**20
    found = {
        "steps": steps,
        "step_seconds": (model.fit_seconds_ - turning) / steps,
        "turn_seconds": turning / len(turned),
        "around_seconds": (seconds - model.fit_seconds_) / n_rows,
        "peak_over_data": (_peak_bytes() - before) / x.nbytes if large else None,
    }
    print(json.dumps(found))


def _peak_bytes() -> int:
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def rows_of(options: Options) -> list[dict[str, Any]]:
    repeats, epochs = (1, 1) if options.quick else (3, 0)
    sweeps = {
        "rows": [(n, FIXED_FEATURES) for n in ((500, 1_000) if options.quick else ROWS)],
        "features": [(FIXED_ROWS, d) for d in ((8, 50) if options.quick else FEATURES)],
    }
    if not options.quick:
        sweeps["rows and features"] = [LARGEST]
    rows = []
    for threads in options.threads:
        for what, sizes in sweeps.items():
            found: dict[tuple[int, int], list[dict[str, Any]]] = {size: [] for size in sizes}
            for _ in range(repeats):
                for size in sizes:
                    words = [sys.path[0], *map(str, (*size, threads, epochs))]
                    found[size].append(fresh(CODE, threads, *words))
            base = np.array([own["step_seconds"] for own in found[sizes[0]]])
            for (n_rows, n_features), runs in found.items():
                case = {"what": what, "rows": n_rows, "features": n_features, "threads": threads}
                names = [name for name in runs[0] if name != "step_seconds"]
                middle = {name: _median([own[name] for own in runs]) for name in names}
                seconds = np.array([own["step_seconds"] for own in runs])
                rows.append({**case, **ratio(seconds, base), **middle})
    return rows


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


if __name__ == "__main__":
    assert __doc__
    run("growth", __doc__, rows_of)
