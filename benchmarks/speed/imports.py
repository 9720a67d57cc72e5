"""CPU seconds of ``import torch`` alone, with ``import unmix`` after it, and with the first use of an estimator.

    python benchmarks/speed/imports.py

Each in a new interpreter, in turn; ``seconds`` is the CPU time of the whole interpreter, ``ratio`` is over torch alone,
``extra_seconds`` the median of the differences within a repeat.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Any

import numpy as np
from measure import Options, ratio, run

PROGRAMS = {
    "import torch": "import torch",
    "import torch, unmix": "import torch, unmix",
    "import torch, unmix; unmix.CGVAE": "import torch, unmix; unmix.CGVAE",
}


def rows_of(options: Options) -> list[dict[str, Any]]:
    repeats = 2 if options.quick else 15
    seconds = {name: np.empty(repeats) for name in PROGRAMS}
    for code in PROGRAMS.values():
        _cpu_seconds(code)
    for repeat in range(repeats):
        for name, code in PROGRAMS.items():
            seconds[name][repeat] = _cpu_seconds(code)
    base = seconds["import torch"]
    return [
        {"program": name, **ratio(own, base), "extra_seconds": float(np.median(own - base)), "threads": 1}
        for name, own in seconds.items()
    ]


def _cpu_seconds(code: str) -> float:
    """User and system time of a new interpreter."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    assert __doc__
    run("imports", __doc__, rows_of)
