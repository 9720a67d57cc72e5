"""How well methods find known programmes in simulated counts (``counts_data.py``), and what that takes.

    python benchmarks/counts.py --out benchmarks/results/counts
    python benchmarks/counts.py --problems batch_effects --methods "unmix, negative binomial" PCA --seeds 0

One line of ``rows.jsonl`` a fit: mean absolute correlation of matched latents with the true usages (``mcc``), area
under the ROC curve of the size of the mixing for the true genes of each programme (``auroc``), how mixed the batches
are among the 30 nearest neighbours of a cell in the latents (``mixing``, 1 as expected by chance), CPU seconds and peak
memory of the process. Published methods take part where their packages are installed (``counts_peers.py``). Each fit
runs in a process of its own. A run that was stopped goes on with the same command; ``summary.md`` has means over seeds.
Nothing was chosen on these problems' seeds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from counts_data import Programmes, log_counts, splatter_programmes
from counts_peers import PEERS, installed
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import NMF, PCA, FactorAnalysis, FastICA
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from unmix import CGVAE

Floats = NDArray[np.float64]

N_PROGRAMMES = 6
PROBLEMS: dict[str, dict[str, Any]] = {
    "plain": {"n_cells": 2000},
    "batch_effects": {"n_cells": 2000, "batch_scale": 0.3},
}
_NEIGHBOURS = 30


def _cgvae(data: Programmes, x: Floats, seed: int, words: dict[str, Any]) -> tuple[Floats, Floats]:
    words = {"n_restarts": 2, **words}
    frame = pd.DataFrame(x, columns=[f"g{k}" for k in range(x.shape[1])]).assign(batch=data.batch.astype(str))
    model = CGVAE(N_PROGRAMMES, random_state=seed, verbose=0, **words).fit(frame, "batch")
    return model.transform(frame), model.mixing_


def _sklearn(kind: Any, **words: Any) -> Callable[[Programmes, int], tuple[Floats, Floats]]:
    def fit(data: Programmes, seed: int) -> tuple[Floats, Floats]:
        x = log_counts(data)
        if kind is not NMF:
            x = (x - x.mean(axis=0)) / x.std(axis=0)
        model = kind(N_PROGRAMMES, random_state=seed, **words)
        z = model.fit_transform(x)
        return z, (model.mixing_ if kind is FastICA else model.components_.T)

    return fit


METHODS: dict[str, Callable[[Programmes, int], tuple[Floats, Floats | None]]] = {
    "unmix, negative binomial": lambda data, seed: _cgvae(
        data, data.counts.astype(float), seed, {"likelihood": "negative_binomial"}
    ),
    "unmix, negative binomial, nuisance": lambda data, seed: _cgvae(
        data, data.counts.astype(float), seed, {"likelihood": "negative_binomial", "nuisance": "batch"}
    ),
    "unmix, Gaussian, log counts": lambda data, seed: _cgvae(data, log_counts(data), seed, {}),
    "unmix, Gaussian, raw counts": lambda data, seed: _cgvae(data, data.counts.astype(float), seed, {}),
    "PCA, log counts": _sklearn(PCA),
    "FactorAnalysis, log counts": _sklearn(FactorAnalysis),
    "FastICA, log counts": _sklearn(FastICA, max_iter=500, whiten="unit-variance"),
    "NMF, log counts": _sklearn(NMF, init="nndsvda", max_iter=500),
} | {name: fit for name, (_, fit) in PEERS.items()}
ONLY = {"unmix, negative binomial, nuisance": ("batch_effects",), "unmix, Gaussian, raw counts": ("plain",)}


def measured(problem: str, method: str, seed: int) -> dict[str, Any]:
    """One fit as a row."""
    data = splatter_programmes(n_programmes=N_PROGRAMMES, seed=seed, **PROBLEMS[problem])
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        z, mixing = METHODS[method](data, seed)
    seconds = time.process_time() - begun
    strength = np.abs(np.corrcoef(z.T, data.usage.T)[: z.shape[1], z.shape[1] :])
    own, true = linear_sum_assignment(-strength)
    pairs = [] if mixing is None else list(zip(own, true, strict=True))
    auroc = [roc_auc_score(data.support[:, j], np.abs(mixing[:, i])) for i, j in pairs]
    return {
        "problem": problem,
        "method": method,
        "seed": seed,
        "cells": data.counts.shape[0],
        "genes": data.counts.shape[1],
        "mcc": float(strength[own, true].mean()),
        "mcc_least": float(strength[own, true].min()),
        "auroc": float(np.mean(auroc)) if auroc else None,
        "mixing": batch_mixing(z, data.batch),
        "cpu_seconds": seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def batch_mixing(z: Floats, batch: NDArray[np.int64]) -> float:
    """Share of a cell's neighbours that are of other batches, over what chance gives."""
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    found = NearestNeighbors(n_neighbors=_NEIGHBOURS + 1).fit(z).kneighbors(z, return_distance=False)[:, 1:]
    chance = 1.0 - np.square(np.bincount(batch) / len(batch)).sum()
    return float((batch[found] != batch[:, None]).mean() / chance)


def summary(rows: pd.DataFrame) -> str:
    """Means over seeds as markdown, one table a problem."""
    parts = []
    for problem, own in rows.groupby("problem", sort=False):
        found = own.groupby("method", sort=False)
        table = found[["mcc", "mcc_least", "auroc", "mixing", "cpu_seconds", "peak_mib"]].mean()
        table["worst seed"], table["seeds"] = found["mcc"].min(), found.size()
        order = [name for name in METHODS if name in table.index]
        lines = [
            f"| {name} | {row.mcc:.3f} | {row['worst seed']:.3f} | {row.mcc_least:.2f} | {_number(row.auroc)} | "
            f"{row.mixing:.2f} | {row.cpu_seconds:.0f} | {row.peak_mib:.0f} | {row.seeds:.0f} |"
            for name, row in table.loc[order].iterrows()
        ]
        head = "| method | MCC | worst seed | worst programme | AUROC of genes | batches mixed | CPU s | MiB | seeds |"
        sizes = f"{own.cells.iloc[0]} cells, about {own.genes.mean():.0f} genes, {N_PROGRAMMES} programmes, 3 batches"
        parts.append("\n".join([f"## {problem} ({sizes})", "", head, "|---|" + "---|" * 8, *lines, ""]))
    return "\n".join(parts)


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/counts"))
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    words = parser.parse_args()
    absent = [name for name in words.methods if name in PEERS and not installed(name)]
    if absent:
        print(f"not installed, left out: {', '.join(absent)}", flush=True)
    words.out.mkdir(parents=True, exist_ok=True)
    path = words.out / "rows.jsonl"
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {(row["problem"], row["method"], row["seed"]) for row in done}
    context = multiprocessing.get_context("spawn")
    for seed in words.seeds:
        for problem in words.problems:
            for method in words.methods:
                if method in absent or (problem, method, seed) in known or problem not in ONLY.get(method, (problem,)):
                    continue
                with context.Pool(1) as pool:
                    row = pool.apply(measured, (problem, method, seed))
                with path.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
                done.append(row)
    if done:
        (words.out / "summary.md").write_text(summary(pd.DataFrame(done)))


if __name__ == "__main__":
    main()
