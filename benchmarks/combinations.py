"""The distribution of a combination of two domain columns that no row was of, from those that were.

    python benchmarks/combinations.py --out benchmarks/results/combinations.csv
    python benchmarks/combinations.py --problems kang --kang kang_pbmc.h5ad --tables FOLDER

Generated problems (seeds from 720 on; nothing was chosen on them): four columns times three, latents whose means and
log-spreads are sums of an effect of each factor, a sparse nonlinear mixing to ten features, 300 rows of every
combination, one of which is left out of the fit. Real tables: weather (airport times quarter of the year), personality
items (gender times education), simulated gas sensors (batch times gas), Kang's cells (condition times cell type, the
stimulated cells of one type left out). Every method says what rows of the combination look like; they are compared
with the real ones on features that are standardised by the rows of the fit: energy distance, maximum mean discrepancy
(Gaussian kernel, median distance), mean error of a feature's mean (standard deviations) and of its log-spread, and
slope of the shift of the means from the nearest combination on the true one.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import cdist
from scipy.stats import t

import unmix

FIRST_SEED, MOST_ROWS = 720, 1000
_LEAST_SPREAD = 0.1
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Problem:
    """Rows ``x`` of the ``domains`` a and b (columns), of which ``left_out`` are those of the ``target``."""

    name: str
    case: str
    x: Floats
    domains: pd.DataFrame
    target: dict[str, str]
    n_latents: int

    @property
    def left_out(self) -> np.ndarray:
        return (self.domains == pd.Series(self.target)).all(axis=1).to_numpy()


def generated(seed: int, n_rows: int = 300) -> Problem:
    data = unmix.datasets.make_sparse_mixing(
        n_latents=4, n_features=10, n_domains=12, n_samples=6000, density=0.4, guaranteed=True, random_state=seed
    )
    rng = np.random.default_rng(seed)
    sizes = {(i, j): MOST_ROWS if (i, j) == (0, 0) else n_rows for i in range(4) for j in range(3)}
    a, b = (np.repeat([pair[k] for pair in sizes], list(sizes.values())) for k in (0, 1))
    mean = rng.uniform(-0.9, 0.9, (4, 4))[a] + rng.uniform(-0.9, 0.9, (3, 4))[b]
    low, high = np.log(0.3) / 2, np.log(2.0) / 2
    log_scale = rng.uniform(low, high, (4, 4))[a] + rng.uniform(low, high, (3, 4))[b]
    z = mean + np.exp(log_scale) * rng.standard_normal((len(a), 4))
    x = data.mixing(z) + 0.05 * rng.standard_normal((len(a), 10))
    domains = pd.DataFrame({"drug": [f"d{i}" for i in a], "line": [f"l{j}" for j in b]})
    return Problem("generated", str(seed), x, domains, {"drug": "d0", "line": "l0"}, 4)


def real(name: str, tables: Path, kang: Path) -> Iterator[Problem]:
    """One problem for every combination that has 40 rows, of Kang every stimulated one."""
    if name == "kang":
        import anndata

        data = anndata.read_h5ad(kang)
        x = np.asarray(data.X.todense() if hasattr(data.X, "todense") else data.X, dtype=float)
        domains = pd.DataFrame({"condition": data.obs["batch"], "cell": data.obs["cell_type"]}).astype(str)
        kept = (~domains["cell"].isin(["Mk", "DC"])).to_numpy()
        n_latents = 10
    else:
        frame = pd.read_parquet(
            tables / f"{ {'weather': 'weather', 'items': 'bfi', 'sensors': 'sensors_128'}[name] }.parquet"
        )
        if name == "weather":
            features = ["temp", "dewp", "humid", "wind_speed", "wind_north", "wind_east", "pressure", "visib"]
            frame = frame.dropna(subset=features).sample(6000, random_state=0)
            quarter = "q" + ((frame["month"] - 1) // 3 + 1).astype(str)
            domains, n_latents = pd.DataFrame({"airport": frame["origin"].astype(str), "quarter": quarter}), 3
        elif name == "items":
            features = [f"{scale}{k}" for scale in "ACENO" for k in range(1, 6)]
            frame = frame.dropna(subset=[*features, "gender", "education"])
            domains, n_latents = frame[["gender", "education"]].astype(str), 5
        else:
            features = [column for column in frame if column.startswith("device")]
            domains, n_latents = frame[["batch", "gas"]].astype(str), 6
        x, kept = frame[features].to_numpy(dtype=float), np.ones(len(frame), bool)
    x, domains = x[kept], domains[kept].reset_index(drop=True)
    counts = domains.value_counts()
    combinations = [dict(zip(domains, pair, strict=True)) for pair in counts[counts >= 40].index]
    if name == "kang":
        combinations = [pair for pair in combinations if pair["condition"] == "stim"]
    combinations = sorted(combinations, key=str)
    if len(combinations) > 10:
        chosen = np.random.default_rng(0).permutation(len(combinations))[:10]
        combinations = [combinations[k] for k in sorted(chosen)]
    for target in combinations:
        yield Problem(name, " ".join(target.values()), x, domains, target, n_latents)


def additive(problem: Problem, x: Floats, labels: pd.DataFrame) -> dict[str, Any]:
    """Means and spreads of rows' own combinations, and what effects that add up make of those of the target.

    With it, which rows share one level with the target (``near``), and which are of the combination among those whose
    means are nearest to the target's (``nearest``).
    """
    own = pd.MultiIndex.from_frame(labels)
    grouped = pd.DataFrame(x).groupby([labels[name].to_numpy() for name in labels])
    mean, spread = grouped.mean(), np.log(np.maximum(grouped.std(ddof=0), _LEAST_SPREAD))
    indicators = [pd.get_dummies(mean.index.get_level_values(k)).astype(float) for k in (0, 1)]
    wanted = np.hstack([part.columns == problem.target[name] for part, name in zip(indicators, labels, strict=True)])
    solve = wanted.astype(float) @ np.linalg.pinv(np.hstack(indicators))
    there = solve @ mean.to_numpy()
    shared = np.array([sum(a == b for a, b in zip(pair, problem.target.values(), strict=True)) for pair in mean.index])
    distance = np.where(shared == 1, np.square(mean.to_numpy() - there).sum(axis=1), np.inf)
    return {
        "mean": mean.loc[own].to_numpy(),
        "spread": np.exp(spread.loc[own].to_numpy()),
        "target mean": there,
        "target spread": np.exp(solve @ spread.to_numpy()),
        "nearest": own == mean.index[distance.argmin()],
        "near": (labels == pd.Series(problem.target)).sum(axis=1).to_numpy() == 1,
    }


def baselines(problem: Problem, x: Floats, labels: pd.DataFrame, found: dict[str, Any], seed: int) -> dict[str, Floats]:
    """Rows as methods that see features alone make them; ``x`` are the standardised rows of the fit."""
    first, second = (labels[name].to_numpy() == problem.target[name] for name in labels)
    shifted = x + found["target mean"] - found["mean"]
    scaled = found["target mean"] + (x - found["mean"]) / found["spread"] * found["target spread"]
    drawn, carried = cvae(problem, x, labels, seed)
    made = {"no change of the first": x[second], "no change of the second": x[first], "conditional VAE, drawn": drawn}
    for name, rows in (("nearest", found["nearest"]), ("all near", found["near"])):
        made |= {
            f"no change, {name}": x[rows],
            f"shift of means, {name}": shifted[rows],
            f"shift of means and spreads, {name}": scaled[rows],
            f"conditional VAE, {name}": carried[rows],
        }
    return made


def cvae(problem: Problem, x: Floats, labels: pd.DataFrame, seed: int) -> tuple[Floats, Floats]:
    """A conditional VAE (Sohn, Lee, Yan 2015): both networks take the domains; rows drawn, and all carried."""
    torch.manual_seed(seed)
    indicators = [pd.get_dummies(labels[name]) for name in labels]
    c = torch.tensor(np.hstack(indicators), dtype=torch.float32)
    target = np.hstack([own.columns == problem.target[name] for own, name in zip(indicators, labels, strict=True)])
    goal = torch.tensor(target, dtype=torch.float32)
    data = torch.tensor(x, dtype=torch.float32)
    d, k = x.shape[1], problem.n_latents

    def network(n_in: int, n_out: int) -> torch.nn.Sequential:
        parts = [torch.nn.Linear(n_in, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU()]
        return torch.nn.Sequential(*parts, torch.nn.Linear(64, n_out))

    encoder, decoder = network(d + c.shape[1], 2 * k), network(k + c.shape[1], d)
    log_noise = torch.nn.Parameter(torch.full((d,), -1.0))
    parameters = [*encoder.parameters(), *decoder.parameters(), log_noise]
    steps = 4000
    optimiser = torch.optim.Adam(parameters, lr=2e-3)
    course = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(len(data), (128,))
        mean, log_std = encoder(torch.cat([data[rows], c[rows]], 1)).chunk(2, 1)
        log_std = log_std.clamp(-6, 3)
        z = mean + log_std.exp() * torch.randn_like(mean)
        out = decoder(torch.cat([z, c[rows]], 1))
        noise = log_noise.clamp(-4, 2)
        nll = (0.5 * ((data[rows] - out) / noise.exp()) ** 2 + noise).sum(1)
        kl = (0.5 * (mean**2 + (2 * log_std).exp() - 1) - log_std).sum(1)
        loss = (nll + min(1.0, step / (0.3 * steps)) * kl).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        course.step()
    with torch.no_grad():
        z = torch.randn(MOST_ROWS, k)
        drawn = decoder(torch.cat([z, goal.expand(len(z), -1)], 1)) + log_noise.exp() * torch.randn(MOST_ROWS, d)
        z = encoder(torch.cat([data, c], 1)).chunk(2, 1)[0]
        left = data - decoder(torch.cat([z, c], 1))
        carried = decoder(torch.cat([z, goal.expand(len(z), -1)], 1)) + left
    return drawn.double().numpy(), carried.double().numpy()


def ours(problem: Problem, known: np.ndarray, found: dict[str, Any], seed: int, asked: Any) -> dict[str, Floats]:
    """Rows as CGVAE makes them, in the data's units: drawn, and rows of other combinations carried."""
    x, labels = problem.x[known], problem.domains[known].reset_index(drop=True)
    path = None if asked.fits is None else asked.fits / f"{problem.name} {problem.case}"
    if path is None or not path.exists():
        model = unmix.CGVAE(problem.n_latents, random_state=seed, n_restarts=asked.starts, verbose=0).fit(x, labels)
        if path is not None:
            model.save(path)
    else:
        model = unmix.load(path)
    made = {"CGVAE, drawn": model.sample(MOST_ROWS, domain=problem.target)}
    for name, rows in (("nearest", found["nearest"]), ("all near", found["near"])):
        made[f"CGVAE, {name}"] = model.translate(x[rows], labels[rows], to=problem.target)
        moved = model.translate(x[rows], labels[rows], to=problem.target, residual="domain")
        made[f"CGVAE, residual moved, {name}"] = moved
    return made


def scores(real: Floats, made: Floats, start: Floats | None = None) -> dict[str, float]:
    """Distances of made rows from real ones, both standardised."""
    rng = np.random.default_rng(0)
    mean = np.abs(made.mean(axis=0) - real.mean(axis=0)).mean()
    varies = real.std(axis=0) > 0.05
    spread = np.abs(np.log((made.std(axis=0) + 1e-2) / (real.std(axis=0) + 1e-2)))[varies].mean()
    slope = np.nan
    if start is not None:
        true, own = real.mean(axis=0) - start.mean(axis=0), made.mean(axis=0) - start.mean(axis=0)
        slope = float(true @ own / (true @ true))
    real, made = (rows[rng.permutation(len(rows))[:MOST_ROWS]] for rows in (real, made))
    within, across, own = cdist(real, real), cdist(real, made), cdist(made, made)
    n, m = len(real), len(made)
    energy = 2 * across.mean() - within.sum() / (n * (n - 1)) - own.sum() / (m * (m - 1))
    width = 2 * np.median(within[np.triu_indices(n, 1)]) ** 2
    kernel = [np.exp(-(part**2) / width) for part in (within, across, own)]
    mmd = (kernel[0].sum() - n) / (n * (n - 1)) - 2 * kernel[1].mean() + (kernel[2].sum() - m) / (m * (m - 1))
    return {"energy": float(energy), "mmd": float(mmd), "mean": float(mean), "spread": float(spread), "slope": slope}


def measured(problem: Problem, seed: int, asked: Any) -> list[dict[str, Any]]:
    """One row a method."""
    known = ~problem.left_out
    varies = ((problem.x[known] != np.median(problem.x[known], axis=0)).sum(axis=0) >= 20).nonzero()[0]
    problem = replace(problem, x=problem.x[:, varies])
    labels = problem.domains[known].reset_index(drop=True)
    center, scale = problem.x[known].mean(axis=0), problem.x[known].std(axis=0)
    x, there = (problem.x[known] - center) / scale, (problem.x[~known] - center) / scale
    found = additive(problem, x, labels)
    begun = time.process_time()
    made = {name: (rows - center) / scale for name, rows in ours(problem, known, found, seed, asked).items()}
    seconds = time.process_time() - begun
    made |= baselines(problem, x, labels, found, seed)
    half = np.random.default_rng(1).permutation(len(there))
    made["real rows, one half against the other"] = there[half[: len(half) // 2]]
    rows = []
    for method, own in made.items():
        reference = there[half[len(half) // 2 :]] if method.startswith("real") else there
        measures = {name: round(value, 4) for name, value in scores(reference, own, x[found["nearest"]]).items()}
        key = {"problem": problem.name, "case": problem.case, "method": method}
        rows.append(key | measures | {"cpu_seconds": round(seconds, 1) if method.startswith("CGVAE") else np.nan})
    return rows


def interval(values: pd.Series) -> str:
    own = values.dropna().to_numpy()
    half = t.isf(0.025, len(own) - 1) * own.std(ddof=1) / np.sqrt(len(own)) if len(own) > 1 else np.nan
    return f"{own.mean():.3f} [{own.mean() - half:.3f}, {own.mean() + half:.3f}]"


def summary(rows: pd.DataFrame, own: str = "CGVAE, residual moved, nearest") -> str:
    """Means as markdown, with by how much ``own`` is nearer in energy distance."""
    lines = []
    for problem, found in rows.groupby("problem", sort=False):
        energy = found.pivot_table(index="case", columns="method", values="energy", sort=False)
        lines += [
            f"{problem} ({len(energy)} left out)",
            "| method | energy | MMD | mean | log spread | slope | nearer by |",
        ]
        for method, part in found.groupby("method", sort=False):
            gain = interval(energy[method] - energy[own]) if own in energy else ""
            mean = part[["energy", "mmd", "mean", "spread", "slope"]].mean()
            numbers = f"{mean.energy:.3f} | {mean.mmd:.4f} | {mean['mean']:.3f} | {mean.spread:.3f} | {mean.slope:.2f}"
            lines.append(f"| {method} | {numbers} | {gain} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=["generated", "weather", "items", "sensors", "kang"])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(FIRST_SEED, FIRST_SEED + 20)))
    parser.add_argument("--tables", type=Path, default=Path("real-tables"))
    parser.add_argument("--kang", type=Path, default=Path("kang_pbmc.h5ad"))
    parser.add_argument("--most", type=int, default=10, help="combinations of each real table")
    parser.add_argument("--fits", type=Path, help="folder that keeps fits")
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    done = pd.read_csv(asked.out, dtype={"case": str}) if asked.out.exists() else pd.DataFrame()
    for name in asked.problems:
        if name == "generated":
            problems: Any = ((seed, generated(seed)) for seed in asked.seeds)
        else:
            problems = ((0, own) for own in list(real(name, asked.tables, asked.kang))[: asked.most])
        for seed, problem in problems:
            if len(done) and ((done["problem"] == name) & (done["case"] == problem.case)).any():
                continue
            rows = pd.DataFrame(measured(problem, seed, asked))
            done = pd.concat([done, rows], ignore_index=True)
            done.to_csv(asked.out, index=False)
            print(name, problem.case, rows.set_index("method")["energy"].to_dict(), flush=True)
    print(summary(done))


if __name__ == "__main__":
    main()
