"""Is the audit right? Its verdicts against the known truth, on generated problems over the whole range.

    python benchmarks/audit_calibration.py --first-seed 2600 --problems 200 --out benchmarks/results/audit.jsonl

Every seed is a problem: 2 to 5 latents, dense to sparse mixings of three forms, 1 to 12 domains, changes of all kinds,
latents that do not change, dependence within domains, weak extra edges, and one latent too many asked of the model.
A model is fitted on 8,000 rows. Audited are 8,000 rows that it has not seen, or with ``--audited own`` those of the fit
itself, as ``model.audit()`` takes them.

Seeds below 2600 are for tuning, from 2600 on for the claim; a run takes one kind. One line a problem, written as soon
as it is done; a problem that fails is a line with its error. Lines that are there are not computed again, so the same
command goes on where it stopped; it refuses to go on with other settings. ``--models`` keeps the fitted models, so that
another version of the audit can be held against the same fits.

For every latent of the fitted model: its verdict, its largest absolute correlation with a true latent on rows that the
model has not seen, and whether the theory identifies that true latent, counted from the true support and the true
changes (``conditions_hold``).

The reliability table (beside the file, as .csv) has for all problems and for each kind of them: latents called
identified, the share of those that are right (correlation ≥ 0.95) with a 95 % interval from resampling problems,
latents that are right and whose conditions hold, and the share of those that were called identified. It is written as
it is, also where it is bad; problems that failed are counted in it.
"""

from __future__ import annotations

import argparse
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from scipy.stats import rankdata

import unmix
from unmix import CGVAE, datasets
from unmix.bench.run import append_row, read_rows
from unmix.datasets import MixingData
from unmix.errors import SettingError
from unmix.metrics.recovery import correlation
from unmix.theory import free_sets

RIGHT = 0.95
FIRST_OF_CLAIM = 2600
_TEST_ROWS = 2000
_FRESH_ROWS = 8000
_RESAMPLES = 1000
_KINDS = ("n_latents", "n_domains", "density", "mixing", "change", "source", "n_unchanging", "dependence", "violation")
_KINDS += ("extra_latents", "agreement", "conditions_hold")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--samples", type=int, default=8000, help="rows to fit")
    parser.add_argument("--audited", choices=["fresh", "own"], default="fresh", help="rows that are audited")
    parser.add_argument("--restarts", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--models", type=Path, help="folder that keeps the fitted models: audits without fitting again")
    parser.add_argument("--retry-failed", action="store_true", help="compute again what ended in an error")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/audit_tuning.jsonl"))
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.problems)
    if seeds[0] < FIRST_OF_CLAIM <= seeds[-1]:
        parser.error(f"seeds below {FIRST_OF_CLAIM} are for tuning, the others for the claim: take one kind")
    settings = {name: getattr(arguments, name) for name in ("samples", "audited", "restarts", "epochs")}
    done = read_rows(arguments.out)
    if any(row["settings"] != settings for row in done.values()):
        parser.error(f"{arguments.out} has problems with other settings than {settings}: take another --out")
    missing = [
        seed
        for seed in seeds
        if str(seed) not in done or (arguments.retry_failed and done[str(seed)]["error"] is not None)
    ]
    print(f"{len(seeds)} problems, {len(missing)} to do", flush=True)
    parallel = Parallel(n_jobs=arguments.jobs, return_as="generator_unordered", pre_dispatch="2*n_jobs", batch_size=1)
    for row in parallel(delayed(audit_problem)(seed, settings, arguments.models) for seed in missing):
        append_row(arguments.out, row)
        done[row["key"]] = row
        found = row["error"] or ", ".join(f"{own['verdict']} {own['correlation']:.2f}" for own in row["latents"])
        print(f"seed {row['key']}, {row['seconds']:.0f} s: {found}", flush=True)
    table = reliability([done[str(seed)] for seed in seeds])
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


def draw_data(words: dict[str, Any], n_samples: int) -> tuple[dict[str, Any], MixingData]:
    """The problem as it could be drawn, and its data: a sparse flow without room for extra edges goes without them."""
    try:
        return words, datasets.make_sparse_mixing(**words, n_samples=n_samples)
    except SettingError:
        if words["mixing"] != "flow" or not words["violation"]:
            raise
    words = words | {"violation": 0.0}
    return words, datasets.make_sparse_mixing(**words, n_samples=n_samples)


def audit_problem(seed: int, settings: dict[str, Any], models: Path | None = None) -> dict[str, Any]:
    """Problem, findings and latents of the fitted model; or the problem and its error."""
    torch.set_num_threads(1)
    started, words = time.monotonic(), draw_problem(seed)
    extra = int(np.random.default_rng([seed, 2]).random() < 0.15)
    row = {"key": str(seed), "settings": settings, **words, "extra_latents": extra, "error": None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row |= _fit_and_audit(seed, words, extra, settings, models)
    except Exception as error:  # one problem that cannot be drawn or fitted must not end the study
        row |= {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc(limit=-3)}
    return row | {"seconds": round(time.monotonic() - started, 1)}


def _fit_and_audit(
    seed: int, words: dict[str, Any], extra: int, settings: dict[str, Any], models: Path | None
) -> dict[str, Any]:
    n_samples = settings["samples"]
    first = n_samples + _TEST_ROWS
    words, data = draw_data(words, first + _FRESH_ROWS)
    kept = None if models is None else models / str(seed)
    if kept is not None and kept.exists():
        model = unmix.load(kept)
    else:
        model = CGVAE(
            words["n_latents"] + extra,
            n_restarts=settings["restarts"],
            max_epochs=settings["epochs"],
            random_state=seed,
            verbose=0,
        )
        model.fit(data.x[:n_samples], data.domains[:n_samples])
        if kept is not None:
            model.save(kept)
    fresh = settings["audited"] == "fresh"
    audit = model.audit(data.x[first:], data.domains[first:]) if fresh else model.audit()
    true, found = data.z[n_samples:first], model.transform(data.x[n_samples:first])
    strength = np.abs(correlation(true, found))
    ranked = np.abs(correlation(rankdata(true, axis=0), rankdata(found, axis=0)))
    holds = conditions_hold(data, words)
    latents = []
    for i, verdict in enumerate(audit.latents.to_dict("records")):
        partner = int(strength[:, i].argmax())
        latents.append(
            {
                **{name: verdict[name] for name in ("name", "verdict", "block", "reason")},
                "correlation": float(strength[partner, i]),
                "rank_correlation": float(ranked[partner, i]),
                "partner": partner,
                "conditions_hold": bool(holds[partner]),
            }
        )
    return {
        **words,
        "agreement": model.agreement_,
        "findings": {finding.condition: finding.verdict for finding in audit.findings},
        "latents": latents,
    }


def conditions_hold(data: MixingData, words: dict[str, Any]) -> np.ndarray:
    """For every true latent, whether ``docs/theory.md`` identifies it: from the truth alone, by a count of its own.

    With weak extra edges the support is that of all edges. Changes are generic by their kind: locations and scales, or
    shapes, give two directions a latent; Gaussian scales give one, which is enough by the route of scales; locations
    alone identify nothing. A Laplace density is not smooth, so that its changes count for nothing here.
    """
    n, n_domains = data.z.shape[1], words["n_domains"]
    if words["dependence"] > 0 or not data.check_injective().injective:
        return np.zeros(n, dtype=bool)
    sets = free_sets(data.full_support)
    changing = {i for i in range(n) if not data.unchanging[i]}
    shared = {(a, b): sets[a] & sets[b] for a in range(n) for b in range(a + 1, n)}
    smooth = words["source"] != "laplace"
    by_changes = smooth and (words["change"] in ("both", "shape", "all") or _two_directions_by_scale(words))
    by_scales = words["change"] == "scale" and words["source"] == "gaussian"

    def enough(overlap: frozenset[int], directions: int) -> bool:
        return overlap <= changing and n_domains >= directions * len(overlap) + 1

    # By scales a latent is separated only if every pair that shares it has scales enough.
    spoilt = {i for overlap in shared.values() if not (by_scales and enough(overlap, 1)) for i in overlap}
    holds = np.ones(n, dtype=bool)
    for (a, b), overlap in shared.items():
        if overlap and not (by_changes and enough(overlap, 2)) and overlap & spoilt:
            holds[[a, b]] = False
    return holds


def _two_directions_by_scale(words: dict[str, Any]) -> bool:
    """η'(z/s)/s and η''(z/s)/s² of a skewed density are no multiples of each other; of a Gaussian one they are."""
    return words["change"] == "scale" and words["source"] == "skewed"


def reliability(problems: list[dict[str, Any]]) -> pd.DataFrame:
    """Precision and sensitivity of "identified", for all problems and for each kind."""
    failed = sum(row["error"] is not None for row in problems)
    rows = pd.DataFrame(
        [
            {**{name: row.get(name) for name in ("key", *_KINDS)}, **latent}
            for row in problems
            if row["error"] is None
            for latent in row["latents"]
        ]
    )
    if not len(rows):
        return pd.DataFrame([{"kind": "all", "value": "all", "problems": 0, "failed": failed}])
    rows["density"] = pd.cut(rows["density"].astype(float).fillna(1.0), [0, 0.4, 0.6, 0.8, 1.0])
    rows["agreement"] = pd.cut(rows["agreement"].astype(float), [0, 0.8, 0.9, 0.95, 0.98, 1.001])
    parts = [{**_reliability("all", "all", rows), "failed": failed}]
    for kind in (*_KINDS, "verdict"):
        parts += [_reliability(kind, value, own) for value, own in rows.groupby(kind, observed=True)]
    return pd.DataFrame(parts)


def _reliability(kind: str, value: Any, rows: pd.DataFrame) -> dict[str, Any]:
    called, right = rows["verdict"] == "identified", rows["correlation"] >= RIGHT
    wanted = right & rows["conditions_hold"]
    low, high = _interval(rows["key"], called & right, called)
    least, most = _interval(rows["key"], called & wanted, wanted)
    return {
        "kind": kind,
        "value": str(value),
        "problems": rows["key"].nunique(),
        "latents": len(rows),
        "right": round(float(right.mean()), 3),
        "called_identified": int(called.sum()),
        "of_these_right": round(float(right[called].mean()), 3) if called.any() else None,
        "of_these_right_low": low,
        "of_these_right_high": high,
        "right_and_conditions_hold": int(wanted.sum()),
        "of_these_called": round(float(called[wanted].mean()), 3) if wanted.any() else None,
        "of_these_called_low": least,
        "of_these_called_high": most,
    }


def _interval(problem: pd.Series, hits: pd.Series, cases: pd.Series) -> tuple[float | None, float | None]:
    """95 % interval of Σ hits / Σ cases when whole problems are resampled: latents of one problem are not independent.

    Where every case is a hit resampling shows no spread; there the exact bound for as many problems as have a case.
    """
    sums = pd.DataFrame({"hits": hits, "cases": cases}).groupby(problem).sum()
    sums = sums[sums["cases"] > 0].to_numpy(dtype=float)
    if not len(sums):
        return None, None
    if (sums[:, 0] == sums[:, 1]).all():
        return round(0.025 ** (1 / len(sums)), 3), 1.0
    drawn = sums[np.random.default_rng(0).integers(len(sums), size=(_RESAMPLES, len(sums)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return round(float(low), 3), round(float(high), 3)


if __name__ == "__main__":
    main()
