"""Does CG-GAN find content, style and the mixing? Known truth: generated problems with latents that no domain changes.

    python benchmarks/cggan_vectors.py --seeds 580 581 582 583 584
    python benchmarks/cggan_vectors.py --problem few-domains --seeds 585 586 587

One row a fit: data seed, method, R² of the unchanging true latents from the content latents (linear and nonlinear, held
out), accuracy of a classifier that reads the domain from the content latents (rows it did not learn from) beside
chance, number of style latents found, MCC with its interval, area under the ROC curve of the support, share of the
entries of the mixing below 0.1 beside that of true zeros, seconds. The problem is ``make_sparse_mixing`` with 4 latents
of which 2 never change, 8 features, 6 domains and 12,000 rows; ``few-domains``: of which 1 never changes, 2 domains and
a support that the theory guarantees with so few, so that changes alone leave the style open. Latents are those of rows
that no model has seen, a tenth of all. Methods: CG-GAN; without the Jacobian term; without that and the mask; a plain
conditional generator; CG-VAE; iMSDA, which is told how many latents are style. "Style told": CG-GAN is told so as well,
in place of the mask, which would have the last word in few domains; with and without the Jacobian term, by default the
only methods there. CG-GAN takes the best of three starts, by how well rows come back; CG-VAE and iMSDA of four, by
their objectives. Rows already in the file are not computed again.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import cross_val_score

from unmix import CGGAN, CGVAE, datasets, metrics
from unmix.baselines import IMSDA
from unmix.datasets import MixingData
from unmix.models.cggan import MASK_THRESHOLD

STARTS = 3
METHODS: dict[str, Any] = {
    "CG-GAN": partial(CGGAN, n_restarts=STARTS),
    "CG-GAN, no Jacobian term": partial(CGGAN, n_restarts=STARTS, sparsity=0.0),
    "CG-GAN, no mask": partial(CGGAN, n_restarts=STARTS, mask=False, sparsity=0.0),
    "CG-GAN, no flow": partial(CGGAN, n_restarts=STARTS, flow=False, sparsity=0.0),
    "CG-GAN, style told": partial(CGGAN, n_restarts=STARTS, mask=False),
    "CG-GAN, style told, no Jacobian term": partial(CGGAN, n_restarts=STARTS, mask=False, sparsity=0.0),
    "CG-VAE": CGVAE,
    "iMSDA": IMSDA,
}
TOLD = ("CG-GAN, style told", "CG-GAN, style told, no Jacobian term", "iMSDA")
_STANDARD = {"n_latents": 4, "n_unchanging": 2, "n_features": 8, "n_domains": 6, "n_samples": 12000}
PROBLEMS: dict[str, dict[str, Any]] = {
    "unchanging": _STANDARD,
    "few-domains": {**_STANDARD, "n_unchanging": 1, "n_domains": 2, "guaranteed": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[580, 581, 582, 583, 584])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), help="default: all, or those for few-domains")
    parser.add_argument("--problem", default="unchanging", choices=list(PROBLEMS))
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/cggan_vectors.csv, or cggan_few_domains")
    arguments = parser.parse_args()
    name = "cggan_vectors" if arguments.problem == "unchanging" else "cggan_few_domains"
    arguments.out = arguments.out or Path(f"benchmarks/results/{name}.csv")
    methods = arguments.methods or (list(METHODS) if arguments.problem == "unchanging" else list(TOLD[:2]))
    done = pd.read_csv(arguments.out) if arguments.out.exists() else pd.DataFrame()
    for seed in arguments.seeds:
        data = datasets.make_sparse_mixing(**PROBLEMS[arguments.problem], random_state=seed)
        for method in methods:
            if len(done) and ((done["seed"] == seed) & (done["method"] == method)).any():
                continue
            row = {"seed": seed, "method": method, **measure(data, method)}
            done = pd.concat([done, pd.DataFrame([row])], ignore_index=True)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            done.to_csv(arguments.out, index=False)
            print(done.tail(1).to_string(header=len(done) == 1, index=False), flush=True)
    columns = ["content_r2", "content_r2_nonlinear", "domain_accuracy", "n_style", "mcc", "support_auroc", "seconds"]
    print(done.groupby("method")[columns].mean().round(4).to_string())


def measure(data: MixingData, method: str) -> dict[str, Any]:
    fitted = np.arange(len(data.x)) % 10 > 0
    held_out = ~fitted
    told = {"n_style": int((~data.unchanging).sum())} if method in TOLD else {}
    model = METHODS[method](n_latents=data.z.shape[1], random_state=0, verbose=0, **told)
    started = time.monotonic()
    model.fit(data.x[fitted], data.domains[fitted])
    seconds = time.monotonic() - started
    z, truth, domains = model.transform(data.x[held_out]), data.z[held_out], data.domains[held_out]
    style = moved_by_domains(model, data.x[fitted], data.domains[fitted])
    content = z[:, ~style]
    score = metrics.mcc(truth, z, domains=domains)
    support = metrics.support_recovery(data.support, model.mixing_, assignment=score.details["assignment"])
    r2 = [r2_of(truth[:, data.unchanging], content, kind) for kind in ("linear", "nonlinear")]
    return {
        "content_r2": r2[0],
        "content_r2_nonlinear": r2[1],
        "domain_accuracy": round(domain_accuracy(content, domains), 4),
        "chance": round(float(np.bincount(domains).max() / len(domains)), 4),
        "n_style": int(style.sum()),
        "true_n_style": int((~data.unchanging).sum()),
        "mcc": round(float(score), 4),
        "low": round(score.interval[0], 4),
        "high": round(score.interval[1], 4),
        "support_auroc": round(support.details["auroc"], 4),
        "entries_below_0.1": round(float((model.mixing_ < 0.1).mean()), 4),
        "true_zeros": round(float((~data.support).mean()), 4),
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
    }


def moved_by_domains(model: Any, x: np.ndarray, domains: np.ndarray) -> np.ndarray:
    """Which latents are style: what CG-GAN says; of others, those whose domain means make a tenth of the spread."""
    if isinstance(model, CGGAN):
        return np.isin(np.arange(model.n_latents), model.style_)
    z = model.transform(x)
    means = np.stack([z[domains == domain].mean(axis=0) for domain in np.unique(domains)])
    return means.std(axis=0) >= MASK_THRESHOLD * z.std(axis=0)


def r2_of(truth: np.ndarray, content: np.ndarray, kind: str) -> float:
    """Mean over the true unchanging latents; NaN without content."""
    return round(float(metrics.r2(truth, content, kind=kind)), 4) if content.shape[1] else float("nan")


def domain_accuracy(content: np.ndarray, domains: np.ndarray) -> float:
    """Accuracy, over five folds, of boosted trees that read the domain from content; chance without content."""
    if content.shape[1] == 0:
        return float(np.bincount(domains).max() / len(domains))
    classifier = HistGradientBoostingClassifier(max_iter=50, learning_rate=0.05, random_state=0)
    return float(cross_val_score(classifier, content, domains, cv=5).mean())


if __name__ == "__main__":
    main()
