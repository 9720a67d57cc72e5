"""What the scripts of this folder share: interleaved repeats, ratios with quartiles, tables that say their origin.

Times on a shared machine drift. So everything that is compared runs in turn inside one process, again and again; each
repeat gives one ratio, and a table holds the median of the ratios with its quartiles. No table is written when the
machine was busy before the script began.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

RESULTS = Path(__file__).parent.parent / "results/speed"
BUSY = 1.5


@dataclass(frozen=True)
class Options:
    """``quick``: tiny sizes, printed and not written."""

    quick: bool
    threads: tuple[int, ...]


def run(
    name: str,
    description: str,
    rows_of: Callable[[Options], Sequence[Mapping[str, Any]]],
    *,
    needs_quiet: bool = True,
) -> None:
    """Read the command line, measure, print the rows, and write ``<name>.csv`` unless quick or the machine is busy.

    ``needs_quiet=False``: write it on a busy machine too, if CPU time is measured.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; nothing is written")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.csv")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    table = pd.DataFrame(rows_of(Options(arguments.quick, tuple(arguments.threads)))).assign(**surroundings(load))
    print(table.to_string(index=False))
    if arguments.quick:
        return
    if needs_quiet and load > BUSY:
        sys.exit(f"The load was {load:.1f} when this began, more than {BUSY}: nothing written. Use a quiet machine.")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.out, index=False, float_format="%.4g")


def surroundings(load: float) -> dict[str, Any]:
    """Columns that say on what a row was measured."""
    import torch

    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": round(load, 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    repeats: int,
    least_seconds: float = 0.02,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Seconds a call (repeats,) of every candidate, all of them once in each repeat, in an order that rotates.

    A candidate is called so often in a row that it takes at least ``least_seconds``. ``clock``: wall time, or
    ``time.process_time`` for CPU time.
    """
    names, counts = list(candidates), {}
    for name in names:
        candidates[name]()
        once = max(_seconds(candidates[name], 1, clock), 1e-7)
        counts[name] = max(1, round(least_seconds / once))
    found = {name: np.empty(repeats) for name in names}
    for repeat in range(repeats):
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            found[name][repeat] = _seconds(candidates[name], counts[name], clock) / counts[name]
    return found


def ratio(seconds: np.ndarray, base: np.ndarray) -> dict[str, float]:
    """Median and quartiles of ``seconds / base``, repeat by repeat, and the median of ``seconds``."""
    low, middle, high = np.quantile(seconds / base, [0.25, 0.5, 0.75])
    return {"ratio": middle, "low": low, "high": high, "seconds": float(np.median(seconds)), "repeats": len(seconds)}


def fresh(code: str, threads: int, *arguments: str) -> dict[str, Any]:
    """The JSON object that ``code`` prints as its last line, in a new interpreter with ``threads`` threads."""
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=os.environ | counts, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _seconds(function: Callable[[], object], times: int, clock: Callable[[], float]) -> float:
    started = clock()
    for _ in range(times):
        function()
    return clock() - started
