"""Novelty of counts: does ``model.novelty`` find a new mixing, and keep still where there is none?

    python benchmarks/novel_counts.py --problems 20 --fits /tmp/fits --out benchmarks/results/new_domains

Four latents, 20 features that are counts (negative binomial, sizes of rows), six domains with 1,000 rows each, of which
the last is left out of the fit. Of 200 rows of it two of 20 features are changed: another function of the latents;
the same features in another order of rows ("shuffled", so that they follow no latent); the sign turned; or the effects
of the latents times 1.5; the level plus 0.5. All of that is on the log of the rate. Seeds from 750 on; nothing was
chosen on them (that was done on 0 to 5).
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import unmix

FIRST_SEED, NEW = 750, 5
CHANGES = ("none", "redrawn", "shuffled", "sign", "gain 1.5", "level + 0.5")
KINDS = ("negative_binomial", "poisson", "bernoulli")


class Counts:
    """Counts of latents that ``make_sparse_mixing`` draws, and the same with some features changed."""

    def __init__(self, seed: int, kind: str) -> None:
        self.data = unmix.datasets.make_sparse_mixing(
            n_latents=4, n_features=20, n_domains=6, n_samples=6000, density=0.4, guaranteed=True, random_state=seed
        )
        rng = np.random.default_rng(seed)
        self.kind, self.domains = kind, self.data.domains
        self.clean = self.data.mixing(self.data.z)
        self.level = np.log(10) + rng.standard_normal(20)
        self.size = np.exp(0.3 * rng.standard_normal((6000, 1)))
        self.x = self.observed(self.clean, rng, self.size)

    def observed(self, clean: np.ndarray, rng: np.random.Generator, size: np.ndarray) -> np.ndarray:
        if self.kind == "bernoulli":
            return (rng.random(clean.shape) < 1 / (1 + np.exp(-2 * clean))).astype(float)
        rate = size * np.exp(self.level + clean)
        if self.kind == "negative_binomial":
            rate = rate * rng.gamma(10.0, 0.1, rate.shape)
        return rng.poisson(rate).astype(float)

    def changed(self, change: str, rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Rows observed anew, and which features are changed."""
        features = rng.permutation(20)[:2]
        clean = self.clean[rows].copy()
        if change == "redrawn":
            for feature in features:
                weights = rng.standard_normal(4) * (rng.random(4) < 0.5)
                weights[rng.integers(4)] += 1.0
                other = np.tanh(self.data.z @ weights)
                clean[:, feature] = ((other - other.mean()) / other.std())[rows]
        elif change == "shuffled":
            for feature in features:
                clean[:, feature] = rng.permutation(clean[:, feature])
        elif change == "sign":
            clean[:, features] *= -1
        elif change == "gain 1.5":
            clean[:, features] *= 1.5
        elif change != "none":
            clean[:, features] += 0.5
        return self.observed(clean, rng, self.size[rows]), features


def fitted(seed: int, counts: Counts, folder: Path, starts: int) -> Any:
    path = folder / f"{counts.kind}_{seed}"
    if not (path / "done.json").exists():
        seen = counts.domains != NEW
        model = unmix.CGVAE(n_latents=4, likelihood=counts.kind, n_restarts=starts, verbose=0)
        model.fit(counts.x[seen], counts.domains[seen]).save(path)
    return unmix.load(path, device="cpu")


def verdicts(seed: int, counts: Counts, model: Any, draws: int) -> list[dict[str, Any]]:
    rng, out, found = np.random.default_rng(seed), np.flatnonzero(counts.domains == NEW), []
    quality = unmix.metrics.mcc(counts.data.z, model.transform(counts.x), n_bootstrap=0)
    for draw in range(draws):
        for change in CHANGES:
            x, features = counts.changed(change, rng.permutation(out)[:200], rng)
            own = model.novelty(x)
            row = own.domains.iloc[0]
            right = row["feature"] in {f"x{feature}" for feature in features} if change != "none" else np.nan
            found.append(
                {
                    "kind": counts.kind,
                    "seed": seed,
                    "draw": draw,
                    "change": change,
                    "new_mixing": own.new_mixing,
                    "cannot_tell": bool(np.isnan(row["mixing_p"])),
                    "right_feature": right,
                    "new_latents": own.new_latents,
                    "inside": row["inside"],
                    "ratio": row["ratio"],
                    "p": row["mixing_p"],
                    "mcc": float(quality),
                }
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--first", type=int, default=FIRST_SEED)
    parser.add_argument("--kind", default="negative_binomial", choices=KINDS)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--fits", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for seed in range(asked.first, asked.first + asked.problems):
        begun, counts = time.process_time(), Counts(seed, asked.kind)
        rows += verdicts(seed, counts, fitted(seed, counts, asked.fits, asked.starts), asked.draws)
        print(seed, round(time.process_time() - begun, 1), "CPU s", flush=True)
    found = pd.DataFrame(rows)
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        found.round(4).to_csv(asked.out / f"novelty_{asked.kind}.csv", index=False)
    print(found.drop(columns=["kind", "seed", "draw"]).groupby("change", sort=False).mean().round(3).to_string())


if __name__ == "__main__":
    main()
