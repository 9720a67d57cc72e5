"""Encoding a million rows in one call, against the plain forward pass of the encoder's network.

    python benchmarks/speed/transform.py

``transform`` takes float64 rows in the user's units and checks, standardises and encodes them; the plain pass runs the
network on float32 rows that lie ready, 8,192 at a time. ``ratio`` is the rate of ``transform`` over that of the pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from measure import Options, interleaved, ratio, run

from unmix import CGVAE

ROWS, FEATURES, LATENTS = 1_000_000, 50, 10
CHUNK = 8192


def rows_of(options: Options) -> list[dict[str, Any]]:
    n_rows, repeats = (20_000, 2) if options.quick else (ROWS, 7)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_rows, FEATURES))
    domains = np.arange(1000) % 3
    model = CGVAE(n_latents=LATENTS, n_restarts=1, max_epochs=1, verbose=0).fit(x[:1000], domains)
    network = model.model_.inner.encoder.network
    ready = torch.from_numpy(model.schema_.standardise(x).astype(np.float32))

    @torch.no_grad()
    def plain() -> None:
        for chunk in ready.split(CHUNK):
            network(chunk)

    rows = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        seconds = interleaved({"transform": lambda: model.transform(x), "plain pass": plain}, repeats)
        rate = ratio(seconds["plain pass"], seconds["transform"]) | {"seconds": float(np.median(seconds["transform"]))}
        rows.append({"rows": n_rows, "features": FEATURES, "latents": LATENTS, "threads": threads, **rate})
    return rows


if __name__ == "__main__":
    assert __doc__
    run("transform", __doc__, rows_of)
