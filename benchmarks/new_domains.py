"""Truth about new domains: ``model.adapt`` and ``model.novelty`` on generated problems.

    python benchmarks/new_domains.py --problems 20 --fits /tmp/fits --out benchmarks/results/new_domains
    python benchmarks/new_domains.py --likelihood negative_binomial --starts 2 --fits /tmp/fits --out …

Four latents, six domains with 1,000 rows each; the last is left out of the fit and then met with 10, 50 or 200 rows
(adapt) and with 200 rows in which features are changed (novelty). Gaussian: ten features, one of them changed, seeds
from 700 on; nothing was chosen on them (that was done on 0 to 11). Other likelihoods: novelty alone, 20 features that
are counts of rows with sizes, or binary, two of them changed on the log of the rate, seeds from 750 on; nothing was
chosen on them (that was done on 0 to 5). Fits have default settings but for ``--starts``; they are kept in the folder
``--fits`` and taken from there.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

import unmix

NEW, ROWS, NOVEL_ROWS = 5, (10, 50, 200), 200
LIKELIHOODS = ("gaussian", "negative_binomial", "poisson", "bernoulli")
Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


class Problem:
    """Rows ``x`` of six ``domains``, and rows of the last with some features changed."""

    first_seed: ClassVar[int] = 700
    n_features: ClassVar[int] = 10
    changes: ClassVar[tuple[str, ...]] = ("none", "redrawn", "sign", "gain 1.25", "offset 0.5 sd")

    def __init__(self, seed: int, likelihood: str, noise: float) -> None:
        self.data = unmix.datasets.make_sparse_mixing(
            n_latents=4, n_features=self.n_features, n_domains=6, n_samples=6000, density=0.4, guaranteed=True,
            noise=noise, random_state=seed,
        )  # fmt: skip
        self.likelihood, self.x, self.domains = likelihood, self.data.x, self.data.domains
        self.out = np.flatnonzero(self.domains == NEW)

    def redrawn(self, rng: np.random.Generator) -> Floats:
        """Another function of the latents (rows,)."""
        weights = rng.standard_normal(4) * (rng.random(4) < 0.5)
        weights[rng.integers(4)] += 1.0
        other = np.tanh(self.data.z @ weights)
        found: Floats = (other - other.mean()) / other.std()
        return found

    def changed(self, change: str, rng: np.random.Generator) -> tuple[Floats, Ints]:
        """Rows of the new domain, and which features are changed."""
        x, feature = self.x[self.out].copy(), rng.integers(self.n_features)
        rows = rng.permutation(len(x))[:NOVEL_ROWS]
        if change == "redrawn":
            x[:, feature] = self.redrawn(rng)[self.out] + 0.05 * rng.standard_normal(len(x))
        elif change == "sign":
            x[:, feature] *= -1.0
        elif change == "gain 1.25":
            x[:, feature] *= 1.25
        elif change != "none":
            x[:, feature] += 0.5
        return x[rows], np.array([feature])


class Discrete(Problem):
    """Counts, or binary features, whose rates follow the latents."""

    first_seed = 750
    n_features = 20
    changes = ("none", "redrawn", "shuffled", "sign", "gain 1.5", "level + 0.5")

    def __init__(self, seed: int, likelihood: str, noise: float) -> None:
        super().__init__(seed, likelihood, noise)
        rng = np.random.default_rng(seed)
        self.clean = self.data.mixing(self.data.z)
        self.level = np.log(10) + rng.standard_normal(self.n_features)
        self.size = np.exp(0.3 * rng.standard_normal((6000, 1)))
        self.x = self.observed(self.clean, rng, self.size)

    def observed(self, clean: Floats, rng: np.random.Generator, size: Floats) -> Floats:
        if self.likelihood == "bernoulli":
            return (rng.random(clean.shape) < 1 / (1 + np.exp(-2 * clean))).astype(float)
        rate = size * np.exp(self.level + clean)
        if self.likelihood == "negative_binomial":
            rate = rate * rng.gamma(10.0, 0.1, rate.shape)
        return rng.poisson(rate).astype(float)

    def changed(self, change: str, rng: np.random.Generator) -> tuple[Floats, Ints]:
        rows = rng.permutation(self.out)[:NOVEL_ROWS]
        features = rng.permutation(self.n_features)[:2]
        clean = self.clean[rows].copy()
        if change == "redrawn":
            for feature in features:
                clean[:, feature] = self.redrawn(rng)[rows]
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


def fitted(seed: int, problem: Problem, starts: int, folder: Path) -> Any:
    path = folder / f"{problem.likelihood}_{seed}"
    if not (path / "done.json").exists():
        seen = problem.domains != NEW
        model = unmix.CGVAE(n_latents=4, likelihood=problem.likelihood, n_restarts=starts, verbose=0)
        model.fit(problem.x[seen], problem.domains[seen]).save(path)
    return unmix.load(path, device="cpu")


def adapted(seed: int, data: Any, model: Any) -> list[dict[str, Any]]:
    """One row a number of rows."""
    out, old = np.flatnonzero(data.domains == NEW), data.domains != NEW
    order = np.random.default_rng(seed).permutation(out)
    z = model.transform(data.x)
    widths = model.model_.encode(model._new_rows(data.x[out]).x)[1].detach().numpy()
    mean, spread = z[out].mean(axis=0), np.sqrt(z[out].var(axis=0) + (widths**2).mean(axis=0))
    inside = [mcc(data, z, data.domains == domain) for domain in range(NEW)]
    source = np.flatnonzero(data.domains == 0)
    moments = [(data.z[data.domains == u].mean(axis=0), data.z[data.domains == u].std(axis=0)) for u in (0, NEW)]
    carried = (data.z[source] - moments[0][0]) / moments[0][1] * moments[1][1] + moments[1][0]
    truth = data.mixing(carried) + data.x[source] - data.mixing(data.z[source])
    found = []
    for n in ROWS:
        rows, rest = order[:n], order[200:]
        wider = model.adapt(data.x[rows], domain=NEW)
        own = wider.effects_frame().query(f"domain == '{NEW}'")
        moved = wider.counterfactual(data.x[source], data.domains[source], to=NEW)
        shift = data.x[rows].mean(axis=0) - data.x[source].mean(axis=0)
        raw = z[rows]
        known = max(model.score(data.x[rest], np.full(len(rest), domain)) for domain in range(NEW))
        found.append(
            {
                "seed": seed,
                "rows": n,
                "mean_error": float(np.abs(own["location"] - mean).mean()),
                "mean_error_of_rows": float(np.abs(raw.mean(axis=0) - mean).mean()),
                "mean_error_of_mean_domain": float(np.abs(model.description_.location.mean(axis=0) - mean).mean()),
                "log_spread_error": float(np.abs(np.log(own["spread"].to_numpy() / spread)).mean()),
                "mean_covered": float(((own["location_low"] <= mean) & (mean <= own["location_high"])).mean()),
                "spread_covered": float(((own["spread_low"] <= spread) & (spread <= own["spread_high"])).mean()),
                "bound": wider.score(data.x[rest], data.domains[rest]),
                "bound_of_best_known_domain": known,
                "translation_rmse": rmse(moved, truth),
                "rmse_of_no_change": rmse(data.x[source], truth),
                "rmse_of_shift": rmse(data.x[source] + shift, truth),
                "mcc_in_new_domain": mcc(data, wider.transform(data.x), ~old),
                "mcc_in_known_domains": float(np.mean(inside)),
            }
        )
    return found


def mcc(data: Any, z: Floats, rows: Any = slice(None)) -> float:
    return float(unmix.metrics.mcc(data.z[rows], z[rows], n_bootstrap=0))


def rmse(a: Floats, b: Floats) -> float:
    return float(np.sqrt(((a - b) ** 2).mean()))


def novel(seed: int, problem: Problem, model: Any, draws: int) -> list[dict[str, Any]]:
    """Verdicts on 200 rows of the new domain, with features as they were or changed."""
    rng, found = np.random.default_rng(seed), []
    quality = mcc(problem.data, model.transform(problem.x))
    for draw in range(draws):
        for change in problem.changes:
            x, features = problem.changed(change, rng)
            own = model.novelty(x)
            row = own.domains.iloc[0]
            right = row["feature"] in {f"x{feature}" for feature in features} if change != "none" else np.nan
            found.append(
                {
                    "likelihood": problem.likelihood,
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
                    "wrong_outside": own.wrong_outside,
                    "mcc": quality,
                }
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--first", type=int, help="first seed; default 700, or 750")
    parser.add_argument("--likelihood", default="gaussian", choices=LIKELIHOODS)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--noise", type=float, default=0.05)
    parser.add_argument("--fits", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    kind = Problem if asked.likelihood == "gaussian" else Discrete
    first = kind.first_seed if asked.first is None else asked.first
    adapt: list[dict[str, Any]] = []
    novelty: list[dict[str, Any]] = []
    for seed in range(first, first + asked.problems):
        begun, problem = time.process_time(), kind(seed, asked.likelihood, asked.noise)
        model = fitted(seed, problem, asked.starts, asked.fits)
        adapt += adapted(seed, problem.data, model) if kind is Problem else []
        novelty += novel(seed, problem, model, asked.draws)
        print(seed, round(time.process_time() - begun, 1), "CPU s", flush=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    verdicts = pd.DataFrame(novelty)
    verdicts.round(4).to_csv(asked.out / f"novelty_{asked.likelihood}.csv", index=False)
    told = verdicts.drop(columns=["likelihood", "seed", "draw"]).groupby("change", sort=False).mean()
    print(told.round(3).to_string())
    if adapt:
        frame = pd.DataFrame(adapt)
        frame.round(4).to_csv(asked.out / "adapt.csv", index=False)
        print(frame.drop(columns="seed").groupby("rows").mean().round(3).T.to_string())


if __name__ == "__main__":
    main()
