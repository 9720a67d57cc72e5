"""Seconds of ``import torch``, of ``import unmix`` after it, and of the first use of an estimator after both.

    python benchmarks/speed/imports.py

Each repeat is a new interpreter that times the three in a row; ``ratio`` is over torch in the same interpreter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from measure import Options, fresh, ratio, run

PROGRAMS = ("import torch", "import unmix", "unmix.CGVAE")
CODE = """
import json, time
times = [time.perf_counter()]
import torch
times.append(time.perf_counter())
import unmix
times.append(time.perf_counter())
unmix.CGVAE
times.append(time.perf_counter())
print(json.dumps({"seconds": [after - before for before, after in zip(times, times[1:])]}))
"""


def rows_of(options: Options) -> list[dict[str, Any]]:
    repeats = 2 if options.quick else 15
    fresh(CODE, 1)
    seconds = np.array([fresh(CODE, 1)["seconds"] for _ in range(repeats)])
    base = seconds[:, 0]
    return [{"program": name, **ratio(own, base), "threads": 1} for name, own in zip(PROGRAMS, seconds.T, strict=True)]


if __name__ == "__main__":
    assert __doc__
    run("imports", __doc__, rows_of)
