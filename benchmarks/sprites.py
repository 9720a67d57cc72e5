"""Does CG-VAE find the factors of images? Known truth: drawn shapes that domains move, grow and colour.

    python benchmarks/sprites.py --problems squares --seeds 600 601 602

The images are those of ``make_sprites`` in ten domains. "squares": squares alone, 16 pixels wide; x, y, scale and hue
are distributed otherwise in each domain, the angle as in all. "shapes": squares and hearts, 32 pixels wide; which of
them is the fifth factor that changes. "grey": squares, ellipses and hearts without colour, 64 pixels wide, in the
manner of dSprites; x, y and scale change.

5,000 images are fitted, another 2,000 scored. Methods: ``CGVAEImages`` with as many latents as there are factors, with
the penalty that evidence chooses; without it, as by default; with a Gaussian prior, which cannot tell latents by their
shape; and each with labels that were shuffled over the images, so that they tell nothing. All take the autoencoder of
the first, which knows no labels. One row a fit in ``results/sprites.csv``: the mean correlation of the factors that
change, one to one, with the interval of the MCC of all; the correlation of each; R² of the factors from the latents by
boosted trees; error of the images that come back (of 255); agreement of the starts; seconds. Rows already in the file
are not computed again.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from unmix import CGVAEImages, datasets, metrics
from unmix.datasets import ImageData

METHODS: dict[str, tuple[dict[str, Any], bool]] = {
    "both": ({"sparsity": "auto"}, False),
    "changes only": ({}, False),
    "shuffled domains": ({"sparsity": "auto"}, True),
    "shuffled, changes only": ({}, True),
    "Gaussian prior": ({"prior": "gaussian"}, False),
    "shuffled, Gaussian prior": ({"prior": "gaussian"}, True),
}
N_FITTED, N_SCORED = 5_000, 2_000


@dataclass(frozen=True)
class Problem:
    """Words of ``make_sprites``; the factors that ``change`` and the one that does not are scored."""

    size: int
    change: tuple[str, ...]
    shapes: tuple[str, ...]
    channels: int = 3

    def draw(self, seed: int) -> ImageData:
        words = {"size": self.size, "change": self.change, "shapes": self.shapes, "channels": self.channels}
        return datasets.make_sprites(N_FITTED + N_SCORED, n_domains=10, random_state=seed, **words)

    @property
    def factors(self) -> list[str]:
        others = ("angle",) if "shape" in self.change or len(self.shapes) == 1 else ("angle", "shape")
        return [*self.change, *others]


PROBLEMS = {
    "squares": Problem(16, ("x", "y", "scale", "hue"), ("square",)),
    "shapes": Problem(32, ("x", "y", "scale", "hue", "shape"), ("square", "heart")),
    "grey": Problem(64, ("x", "y", "scale"), ("square", "ellipse", "heart"), channels=1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=["squares"], choices=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[600, 601, 602])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/sprites.csv"))
    parser.add_argument("--pages", type=Path, help="folder for the page of each fit")
    arguments = parser.parse_args()
    done = pd.read_csv(arguments.out) if arguments.out.exists() else pd.DataFrame()
    first: dict[tuple[str, int], Any] = {}
    for problem, method, seed in product(arguments.problems, arguments.methods, arguments.seeds):
        place = {"problem": problem, "seed": seed, "method": method}
        if len(done) and (done[list(place)] == pd.Series(place)).all(axis=1).any():
            continue
        page = arguments.pages and arguments.pages / f"{problem}-{method.replace(' ', '_')}-{seed}.html"
        found, first[problem, seed] = measure(PROBLEMS[problem], seed, method, first.get((problem, seed)), page)
        done = pd.concat([done, pd.DataFrame([{**place, **found}])], ignore_index=True)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        done.to_csv(arguments.out, index=False)
        print(pd.DataFrame([{**place, **found}]).T.to_string(header=False), flush=True)
    means = done.groupby(["problem", "method"], sort=False)[["changing", "r2", "rmse", "seconds"]].mean()
    print(means.round(3).to_string())


def measure(problem: Problem, seed: int, method: str, first: Any, page: Path | None) -> tuple[dict[str, Any], Any]:
    """A row of the table, and the autoencoder of the fit."""
    settings, shuffled = METHODS[method]
    data = problem.draw(seed)
    domains = data.domains[:N_FITTED]
    if shuffled:
        domains = np.random.default_rng(0).permutation(domains)
    names = problem.factors
    model = CGVAEImages(n_latents=len(names), random_state=0, verbose=0, autoencoder=first, **settings)
    started, cpu = time.monotonic(), time.process_time()
    model.fit(data.images[:N_FITTED], domains)
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    images, factors = data.images[N_FITTED:], data.factors[names][N_FITTED:]
    truth = factors.assign(**{n: factors[n].cat.codes for n in names if n == "shape"}).to_numpy(float)
    z = model.transform(images)
    score = metrics.mcc(truth, z)
    own = dict(zip(names, score.per_factor, strict=True))
    back = model.inverse_transform(z).astype(float)
    encode, decode = model.autoencoder_
    codes = decode(encode(images)).astype(float)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        model.report(page, *(() if shuffled else (images, data.domains[N_FITTED:])))
    found = {
        "changing": round(float(np.mean([own[name] for name in problem.change])), 4),
        "low": round(score.interval[0], 4),
        "high": round(score.interval[1], 4),
        **{name: round(float(own[name]), 4) if name in own else "" for name in _ORDER},
        "r2": round(float(metrics.r2(truth, z, kind="nonlinear")), 4),
        "rmse": round(float(np.sqrt(np.mean((back - images) ** 2))), 2),
        "rmse_codes": round(float(np.sqrt(np.mean((codes - images) ** 2))), 2),
        "agreement": round(float(model.agreement_), 4),
        "seconds": round(seconds, 1),
        "cpu": round(cpu, 1),
        "threads": torch.get_num_threads(),
    }
    return found, (encode, decode)


_ORDER = ("x", "y", "scale", "hue", "shape", "angle")

if __name__ == "__main__":
    main()
