"""Do the defaults find the truth? MCC on generated problems, beside "changes only" and "sparsity only".

    python benchmarks/recovery.py --seeds 0 1 2 3 4 --out benchmarks/results/recovery.csv

One row a fit: data seed, method, MCC (all rows, assignment chosen on one half and scored on the other) with its
bootstrap interval, MCC within domains, agreement of the starts, F1 of the support, seconds. The problem is
``make_sparse_mixing`` (defaults: 4 latents, 8 features, 4 domains, 8,000 rows, density 0.5, changes of mean and scale,
supports that need no more domains than there are). All methods use the same defaults; "changes only" sets
``sparsity=0``, "sparsity only" leaves the domains out. Rows already in the file are not computed again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from unmix import CGVAE, datasets, metrics
from unmix.datasets import MixingData

METHODS: dict[str, tuple[dict[str, Any], bool]] = {
    "both": ({}, True),
    "changes only": ({"sparsity": 0.0}, True),
    "sparsity only": ({}, False),
    "both, feature decoder": ({"decoder": "feature"}, True),
    "both, L1": ({"penalty": "l1", "sparsity": 0.2}, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=list(METHODS)[:3], choices=list(METHODS))
    parser.add_argument("--latents", type=int, default=4)
    parser.add_argument("--features", type=int, default=8)
    parser.add_argument("--domains", type=int, default=4)
    parser.add_argument("--density", type=float, default=0.5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/recovery.csv"))
    arguments = parser.parse_args()
    done = pd.read_csv(arguments.out) if arguments.out.exists() else pd.DataFrame()
    for seed in arguments.seeds:
        problem = {
            "n_latents": arguments.latents,
            "n_features": arguments.features,
            "n_domains": arguments.domains,
            "density": arguments.density,
        }
        data = datasets.make_sparse_mixing(**problem, guaranteed=True, random_state=seed)
        for method in arguments.methods:
            key = {**problem, "seed": seed, "method": method}
            if len(done) and (done[list(key)] == pd.Series(key)).all(axis=1).any():
                continue
            done = pd.concat([done, pd.DataFrame([{**key, **measure(data, method)}])], ignore_index=True)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            done.to_csv(arguments.out, index=False)
            print(done.tail(1).to_string(header=len(done) == 1, index=False), flush=True)
    groups = done.groupby(["n_latents", "n_features", "n_domains", "density", "method"])
    print(groups[["mcc", "mcc_within_domains", "support_f1", "agreement", "seconds"]].mean().round(4).to_string())


def measure(data: MixingData, method: str) -> dict[str, Any]:
    settings, with_domains = METHODS[method]
    model = CGVAE(n_latents=data.z.shape[1], random_state=0, verbose=0, **settings)
    started = time.monotonic()
    model.fit(data.x, data.domains if with_domains else None)
    seconds = time.monotonic() - started
    score = metrics.mcc(data.z, model.transform(data.x), domains=data.domains)
    assignment = score.details["assignment"]
    return {
        "domains_needed": data.domains_needed,
        "mcc": round(float(score), 4),
        "low": round(score.interval[0], 4),
        "high": round(score.interval[1], 4),
        "mcc_within_domains": round(float(np.mean(score.details["within_domain"])), 4),
        "worst_latent": round(float(score.per_factor.min()), 4),
        "agreement": round(model.agreement_, 4),
        "support_f1": round(f1(data.support, model.support_[:, assignment]), 4),
        "epochs": model.n_epochs_,
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
    }


def f1(truth: np.ndarray, found: np.ndarray) -> float:
    return float(2 * (truth & found).sum() / (truth.sum() + found.sum()))


if __name__ == "__main__":
    main()
