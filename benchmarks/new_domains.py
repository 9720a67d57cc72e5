"""Truth about new domains: ``model.adapt`` and ``model.novelty`` on generated problems.

    python benchmarks/new_domains.py --problems 20 --fits /tmp/fits --out benchmarks/results/new_domains

Four latents, ten features, six domains with 1,000 rows each; the last is left out of the fit (default settings) and
then met with 10, 50 or 200 rows. Seeds from 700 on; nothing was chosen on them (that was done on 0 to 11). Fits are
kept in the folder ``--fits`` and taken from there.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import unmix

FIRST_SEED, NEW, ROWS = 700, 5, (10, 50, 200)
CHANGES = ("none", "redrawn", "sign", "gain 1.25", "offset 0.5 sd")


def problem(seed: int, noise: float) -> Any:
    return unmix.datasets.make_sparse_mixing(
        n_latents=4, n_features=10, n_domains=6, n_samples=6000, density=0.4, guaranteed=True, noise=noise,
        random_state=seed,
    )  # fmt: skip


def fitted(seed: int, data: Any, folder: Path) -> Any:
    path = folder / f"fit_{seed}"
    if not (path / "done.json").exists():
        seen = data.domains != NEW
        unmix.CGVAE(n_latents=4, verbose=0).fit(data.x[seen], data.domains[seen]).save(path)
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


def mcc(data: Any, z: np.ndarray, rows: np.ndarray) -> float:
    return float(unmix.metrics.mcc(data.z[rows], z[rows], n_bootstrap=0))


def rmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(((a - b) ** 2).mean()))


def novel(seed: int, data: Any, model: Any, draws: int = 5) -> list[dict[str, Any]]:
    """Verdicts on 200 rows of the new domain, with one of ten features as it was or changed."""
    rng, out, found = np.random.default_rng(seed), data.domains == NEW, []
    for draw in range(draws):
        for change in CHANGES:
            x, feature = data.x[out].copy(), rng.integers(10)
            rows = rng.permutation(len(x))[:200]
            if change == "redrawn":
                weights = rng.standard_normal(4) * (rng.random(4) < 0.5)
                weights[rng.integers(4)] += 1.0
                other = np.tanh(data.z @ weights)
                x[:, feature] = ((other - other.mean()) / other.std())[out] + 0.05 * rng.standard_normal(len(x))
            elif change == "sign":
                x[:, feature] *= -1.0
            elif change == "gain 1.25":
                x[:, feature] *= 1.25
            elif change != "none":
                x[:, feature] += 0.5
            own = model.novelty(x[rows])
            verdict = own.domains.iloc[0]
            found.append(
                {
                    "seed": seed,
                    "draw": draw,
                    "change": change,
                    "new_mixing": own.new_mixing,
                    "cannot_tell": bool(np.isnan(verdict["mixing_p"])),
                    "right_feature": verdict["feature"] == f"x{feature}" if change != "none" else np.nan,
                    "new_latents": own.new_latents,
                    "inside": verdict["inside"],
                    "ratio": verdict["ratio"],
                }
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--noise", type=float, default=0.05)
    parser.add_argument("--fits", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    adapt, novelty = [], []
    for seed in range(FIRST_SEED, FIRST_SEED + asked.problems):
        data = problem(seed, asked.noise)
        model = fitted(seed, data, asked.fits)
        adapt += adapted(seed, data, model)
        novelty += novel(seed, data, model)
    asked.out.mkdir(parents=True, exist_ok=True)
    adapt, novelty = pd.DataFrame(adapt), pd.DataFrame(novelty)
    adapt.round(4).to_csv(asked.out / "adapt.csv", index=False)
    novelty.round(4).to_csv(asked.out / "novelty.csv", index=False)
    print(adapt.drop(columns="seed").groupby("rows").mean().round(3).T.to_string())
    print(novelty.drop(columns=["seed", "draw"]).groupby("change", sort=False).mean().round(3).to_string())


if __name__ == "__main__":
    main()
