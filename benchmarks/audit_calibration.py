"""Is the audit right? Its verdicts against the known truth, on generated problems over the whole range.

    python benchmarks/audit_calibration.py --first-seed 2000 --problems 200 --out benchmarks/results/audit.jsonl

Every seed is a problem: 2 to 5 latents, dense to sparse mixings of three forms, 1 to 12 domains, changes of all kinds,
latents that do not change, dependence within domains, weak extra edges, and one latent too many asked of the model.
Seeds from 1000 on are for tuning, from 2000 on for the claim. One line a latent of the fitted model: its verdict, its
largest absolute correlation with a true latent on rows that the model has not seen, and whether the conditions of
``docs/theory.md`` truly hold for that latent, counted from the true support and the true changes. Lines already in the
file are not computed again.

The reliability table (beside the file, as .csv) has for all problems and for each kind of them: latents called
identified, the share of those that are right (correlation ≥ 0.95), latents that are right and whose conditions hold,
and the share of those that were called identified. It is written as it is, also where it is bad.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from unmix import CGVAE, datasets
from unmix.datasets import MixingData
from unmix.metrics.recovery import correlation
from unmix.theory import free_sets

RIGHT = 0.95
_TEST_ROWS = 2000
_CURVED = ("both", "shape", "all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--samples", type=int, default=8000, help="rows to fit")
    parser.add_argument("--restarts", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/audit_tuning.jsonl"))
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.problems)
    rows = _read(arguments.out)
    done = {row["seed"] for row in rows}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    work = (
        delayed(audit_problem)(seed, arguments.samples, arguments.restarts, arguments.epochs)
        for seed in seeds
        if seed not in done
    )
    for found in Parallel(n_jobs=arguments.jobs, return_as="generator_unordered")(work):
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in found))
        rows += found
        print(f"seed {found[0]['seed']}: {found[0].get('error') or len(found)}", flush=True)
    table = reliability(pd.DataFrame([row for row in rows if row["seed"] in seeds]))
    table.to_csv(arguments.out.with_suffix(".csv"), index=False)
    print(table.to_string(index=False))


def draw_problem(seed: int) -> dict[str, Any]:
    """Words of ``make_sparse_mixing`` for one seed."""
    rng = np.random.default_rng([seed, 1])
    n_latents = int(rng.integers(2, 6))
    mixing = str(rng.choice(["features", "flow", "dense"], p=[0.5, 0.35, 0.15]))
    words: dict[str, Any] = {
        "n_latents": n_latents,
        "n_features": n_latents * int(rng.integers(2, 4)),
        "n_domains": int(rng.choice([1, 2, 3, 4, 6, 8, 12])),
        "change": str(rng.choice(["both", "scale", "mean", "shape", "all"], p=[0.5, 0.2, 0.1, 0.1, 0.1])),
        "source": str(rng.choice(["gaussian", "laplace", "skewed"], p=[0.7, 0.15, 0.15])),
        "n_unchanging": int(rng.choice([0, 0, 0, 1, 2])),
        "dependence": float(rng.choice([0.0, 0.0, 0.0, 0.0, 0.3, 0.6])),
        "mixing": mixing,
        "random_state": seed,
    }
    if mixing != "dense":
        words["density"] = float(rng.uniform(0.25, 1.0))
        words["violation"] = float(rng.choice([0.0, 0.0, 0.0, 0.3]))
    return words


def audit_problem(seed: int, n_samples: int, n_restarts: int, max_epochs: int | None) -> list[dict[str, Any]]:
    """One line a latent of the fitted model; a single line with the error where there is one."""
    started, words = time.monotonic(), draw_problem(seed)
    extra = int(np.random.default_rng([seed, 2]).random() < 0.15)
    base = {"seed": seed, **words, "extra_latents": extra}
    try:
        data = datasets.make_sparse_mixing(**words, n_samples=n_samples + _TEST_ROWS)
        model = CGVAE(
            words["n_latents"] + extra, n_restarts=n_restarts, max_epochs=max_epochs, random_state=seed, verbose=0
        )
        model.fit(data.x[:n_samples], data.domains[:n_samples])
        audit = model.audit()
    except Exception as error:  # one problem that cannot be drawn or fitted must not end the study
        return [{**base, "error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc(limit=3)}]
    strength = np.abs(correlation(data.z[n_samples:], model.transform(data.x[n_samples:])))
    holds = conditions_hold(data, words)
    base |= {
        "error": None,
        "seconds": round(time.monotonic() - started, 1),
        "agreement": model.agreement_,
        "findings": {finding.condition: finding.verdict for finding in audit.findings},
    }
    return [
        {
            **base,
            "latent": row["name"],
            "verdict": row["verdict"],
            "reason": row["reason"],
            "correlation": float(strength[:, i].max()),
            "partner": int(strength[:, i].argmax()),
            "conditions_hold": bool(holds[strength[:, i].argmax()]),
        }
        for i, row in enumerate(audit.latents.to_dict("records"))
    ]


def conditions_hold(data: MixingData, words: dict[str, Any]) -> np.ndarray:
    """For every true latent, whether the theory identifies it: from the truth alone, by a count of its own."""
    n, n_domains = data.z.shape[1], words["n_domains"]
    if words["dependence"] > 0 or not data.check_injective().injective:
        return np.zeros(n, dtype=bool)
    sets = free_sets(data.full_support)
    changing = {i for i in range(n) if not data.unchanging[i]}
    holds = np.ones(n, dtype=bool)
    for a in range(n):
        for b in range(a + 1, n):
            shared = sets[a] & sets[b]
            curved = words["change"] in _CURVED and n_domains >= 2 * len(shared) + 1
            scaled = words["change"] == "scale" and n_domains >= len(shared) + 1
            if shared and not ((curved or scaled) and shared <= changing):
                holds[[a, b]] = False
    return holds


def reliability(rows: pd.DataFrame) -> pd.DataFrame:
    """Precision and sensitivity of "identified", for all problems and for each kind."""
    rows = rows[rows["error"].isna()] if len(rows) else rows
    if not len(rows):
        return pd.DataFrame(columns=["kind", "value", "latents"])
    rows = rows.assign(
        density=pd.cut(rows.get("density", pd.Series(1.0, rows.index)).fillna(1.0), [0, 0.4, 0.6, 0.8, 1.0]),
        agreement=pd.cut(rows["agreement"], [0, 0.8, 0.9, 0.95, 0.98, 1.001]),
    )
    parts = [_reliability("all", "all", rows)]
    for kind in ("n_latents", "n_domains", "density", "mixing", "change", "source", "n_unchanging", "dependence"):
        parts += [_reliability(kind, value, own) for value, own in rows.groupby(kind, observed=True)]
    for kind in ("violation", "extra_latents", "agreement", "verdict"):
        if kind in rows:
            parts += [_reliability(kind, value, own) for value, own in rows.groupby(kind, observed=True)]
    return pd.DataFrame(parts)


def _reliability(kind: str, value: Any, rows: pd.DataFrame) -> dict[str, Any]:
    called, right = rows["verdict"] == "identified", rows["correlation"] >= RIGHT
    wanted = right & rows["conditions_hold"]
    return {
        "kind": kind,
        "value": str(value),
        "problems": rows["seed"].nunique(),
        "latents": len(rows),
        "right": round(float(right.mean()), 3),
        "called_identified": int(called.sum()),
        "of_these_right": round(float(right[called].mean()), 3) if called.any() else None,
        "right_and_conditions_hold": int(wanted.sum()),
        "of_these_called": round(float(called[wanted].mean()), 3) if wanted.any() else None,
    }


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
