"""Does CG-VAE find the factors of images? Known truth: drawn squares that domains move, grow and colour.

    python benchmarks/sprites.py --seeds 600 601 602

The images are ``make_sprites`` with squares alone, 16 pixels wide: x, y, scale and hue are distributed otherwise in
each of ten domains, the angle as in all. Methods: ``CGVAEImages`` with its default settings and five latents; without
the penalty; with the penalty and labels that were shuffled over the images, so that they tell nothing. 5,000 images are
fitted, another 2,000 scored. One row a fit in ``results/sprites.csv``: MCC of the five factors (with ranks instead of
values in ``spearman``), the correlation of each, R² of the factors from the latents by boosted trees, error of the
images that come back (of 255), agreement of the starts, share of the mixing's entries that are weak beside the largest
of their latent, seconds. Rows already in the file are not computed again.
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

from unmix import CGVAEImages, datasets, metrics
from unmix.datasets import ImageData

FACTORS = ["x", "y", "scale", "hue", "angle"]
METHODS: dict[str, tuple[dict[str, Any], bool]] = {
    "both": ({}, False),
    "changes only": ({"sparsity": 0.0}, False),
    "shuffled domains": ({}, True),
}
N_FITTED, N_SCORED = 5_000, 2_000
WEAK = 0.1
_draw = partial(
    datasets.make_sprites,
    n_samples=N_FITTED + N_SCORED,
    size=16,
    n_domains=10,
    change=FACTORS[:-1],
    shapes=("square",),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[600, 601, 602])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/sprites.csv"))
    parser.add_argument("--pages", type=Path, help="folder for the page of each fit")
    arguments = parser.parse_args()
    done = pd.read_csv(arguments.out) if arguments.out.exists() else pd.DataFrame()
    for seed in arguments.seeds:
        data = _draw(random_state=seed)
        for method in arguments.methods:
            if len(done) and ((done["seed"] == seed) & (done["method"] == method)).any():
                continue
            page = arguments.pages and arguments.pages / f"{method.replace(' ', '_')}-{seed}.html"
            row = {"seed": seed, "method": method, **measure(data, method, page)}
            done = pd.concat([done, pd.DataFrame([row])], ignore_index=True)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            done.to_csv(arguments.out, index=False)
            print(pd.DataFrame([row]).T.to_string(header=False), flush=True)
    print(done.groupby("method", sort=False)[["mcc", "spearman", "r2", "rmse", "seconds"]].mean().round(3).to_string())


def measure(data: ImageData, method: str, page: Path | None) -> dict[str, Any]:
    settings, shuffled = METHODS[method]
    domains = data.domains[:N_FITTED]
    if shuffled:
        domains = np.random.default_rng(0).permutation(domains)
    model = CGVAEImages(n_latents=len(FACTORS), random_state=0, verbose=0, **settings)
    started = time.monotonic()
    model.fit(data.images[:N_FITTED], domains)
    seconds = time.monotonic() - started
    images, truth = data.images[N_FITTED:], data.factors[FACTORS][N_FITTED:].to_numpy(float)
    z = model.transform(images)
    score, ranks = metrics.mcc(truth, z), metrics.mcc(truth, z, method="spearman")
    back = model.inverse_transform(z).astype(float)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        model.report(page, *(() if shuffled else (images, data.domains[N_FITTED:])))
    return {
        "mcc": round(float(score), 4),
        "low": round(score.interval[0], 4),
        "high": round(score.interval[1], 4),
        **{name: round(float(own), 4) for name, own in zip(FACTORS, score.per_factor, strict=True)},
        "spearman": round(float(ranks), 4),
        "r2": round(float(metrics.r2(truth, z, kind="nonlinear")), 4),
        "rmse": round(float(np.sqrt(np.mean((back - images) ** 2))), 2),
        "agreement": round(float(model.agreement_), 4),
        "weak_entries": round(float(np.mean(model.mixing_ < WEAK * model.mixing_.max(axis=0))), 4),
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main()
