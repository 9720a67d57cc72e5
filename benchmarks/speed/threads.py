"""One thread or all cores: time of short fits on an idle machine, and beside as many busy processes as there are cores.

    python benchmarks/speed/threads.py

``ratio``: wall time over that of one thread in the same repeat, with the same number of busy processes. A fit by itself
takes one thread where that is sensible (``unmix/train/threads.py``); here it takes what it is told. Table: 8 or 1,000
features, four starts; images: ``ImageTranslator``, 16 or 32 pixels wide.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from measure import Options, ratio, run

import unmix
from unmix.datasets import make_sprites
from unmix.train import threads as limits


def table(n_features: int, n_rows: int) -> object:
    rng = np.random.default_rng(0)
    factors, loadings = rng.standard_normal((n_rows, 5)), rng.standard_normal((5, n_features))
    x = factors @ loadings + rng.standard_normal((n_rows, n_features))
    return unmix.CGVAE(5, max_epochs=1, verbose=0).fit(x, np.arange(n_rows) % 3)


def images(size: int, steps: int) -> object:
    data = make_sprites(n_samples=200, size=size, n_domains=2, random_state=0)
    return unmix.ImageTranslator(max_steps=steps, verbose=0).fit(data.images, data.domains)


FITS = {
    "table, 8 features": partial(table, 8, 2_000),
    "table, 1,000 features": partial(table, 1_000, 500),
    "images, 16 pixels": partial(images, 16, 8),
    "images, 32 pixels": partial(images, 32, 4),
}


@contextmanager
def busy(n_processes: int) -> Iterator[None]:
    """So many processes that compute and do not wait."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_processes)]
    try:
        yield
    finally:
        for own in others:
            own.kill()
            own.wait()


def seconds_with(count: int, fit: Any) -> float:
    torch.set_num_threads(count)
    began = time.perf_counter()
    fit()
    return time.perf_counter() - began


def rows_of(options: Options) -> list[dict[str, Any]]:
    # The fits are not to choose by themselves.
    limits._NUMBERS = limits._PIXELS = -1
    cores, rows = os.cpu_count() or 1, []
    for name in list(FITS)[:1] if options.quick else FITS:
        seconds_with(1, FITS[name])
        for others in (0, cores):
            with busy(others):
                repeats = range(1 if options.quick else 3)
                found = np.array([[seconds_with(count, FITS[name]) for count in (1, cores)] for _ in repeats])
            for count, own in zip((1, cores), found.T, strict=True):
                rows.append({"fit": name, "busy": others, "threads": count, **ratio(own, found[:, 0])})
                print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    assert __doc__
    run("threads", __doc__, rows_of)
