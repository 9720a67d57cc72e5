"""Is the audit right on default fits? ``CGVAE(n).fit(x, domains).audit()`` against the known truth.

    python benchmarks/audit_fits.py --seeds 104 105 --out benchmarks/results/audit_fits.jsonl

Nine kinds of problem of ``make_sparse_mixing``, two of these also with one or two latents fewer asked of the model, and
18 kinds of ``generators.py``. Problem and fit have the same seed. One line a fit, written as soon as it is done; lines
that are there are not computed again. For every latent: its verdict, its largest absolute correlation with a true one
(own generator: on 6,000 rows that the model has not seen; others: on the rows of the fit), and whether the conditions
of that true latent hold: counted from the true support and changes, or where another generator made the data by
``audit_decoder`` of the true latents and mixing.

``summarise`` counts the lines.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from audit_calibration import RIGHT, conditions_hold
from generators import PROBLEMS

import unmix
from unmix.bench.run import append_row, read_rows
from unmix.datasets import make_sparse_mixing
from unmix.metrics.recovery import correlation

_FRESH = 6000
_BASE: dict[str, Any] = {"n_latents": 4, "n_features": 8, "n_domains": 4}
_SMALL: dict[str, Any] = {"n_latents": 3, "n_features": 9}
_MANY: dict[str, Any] = {**_BASE, "n_domains": 42, "n_samples": 4200}
# Words of make_sparse_mixing, and the latents asked for.
OWN: dict[str, tuple[dict[str, Any], int]] = {
    "base": (_BASE, 4),
    "two": (_BASE, 2),
    "three": (_BASE, 3),
    "many": ({**_BASE, "n_domains": 20, "n_samples": 4000}, 4),
    "small42": (_MANY, 4),
    "three42": (_MANY, 3),
    "scale": ({**_BASE, "n_domains": 8, "change": "scale"}, 4),
    "dense20": ({**_BASE, "n_domains": 20, "mixing": "dense"}, 4),
    "noise3": ({**_BASE, "noise": 0.3}, 4),
    "mean": ({**_SMALL, "n_domains": 4, "change": "mean"}, 3),
    "dep42": ({**_MANY, "dependence": 0.4}, 4),
    "few10": ({**_SMALL, "n_domains": 10, "n_samples": 450}, 3),
}
OTHERS = ("tcl-lrelu", "interventions-scale", "content-style", "tcl-orthogonal-shallow", "sparse-vae", "imca")
OTHERS += ("heavy-tails", "interventions", "invariant-linear", "sparse-gaussian", "tcl-xtanh", "weight-variant")
OTHERS += ("heavy-tails-mild", "sparse-vae-correlated", "interventions-linear", "tcl-orthogonal")
OTHERS += ("invariant-polynomial", "interventions-soft")

# Numbers of each latent that are kept beside its verdict: condition and key of its evidence.
EVIDENCE = {
    "ceiling": ("invertibility", "noise_ceiling"),
    "round_trip": ("invertibility", "round_trip_r2"),
    "agreement_median": ("agreement", "median"),
    "agreement_least": ("agreement", "least"),
    "agreement_rival": ("agreement", "least_of_starts_that_fit_as_well"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[104, 105])
    parser.add_argument("--kinds", nargs="+", choices=[*OWN, *OTHERS], default=[*OWN, *OTHERS])
    parser.add_argument("--models", type=Path, help="folder that keeps the fits: audits without fitting again")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/audit_fits.jsonl"))
    arguments = parser.parse_args()
    done = read_rows(arguments.out)
    for kind, seed in ((kind, seed) for seed in arguments.seeds for kind in arguments.kinds):
        if f"{kind}-{seed}" not in done:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                row = fit_and_audit(kind, seed, arguments.models)
            append_row(arguments.out, row)
            said = ", ".join(f"{own['verdict']} {own['correlation']:.2f}" for own in row["latents"])
            print(f"{row['key']}, {row['seconds']:.0f} s: {said}", flush=True)
    print(summarise(arguments.out).to_string(index=False))


def fit_and_audit(kind: str, seed: int, models: Path | None = None) -> dict[str, Any]:
    """One default fit, its findings and its latents; a fit that is in the folder ``models`` is taken from there."""
    started = time.monotonic()
    if kind in OWN:
        words, n_latents = OWN[kind]
        given = {name: value for name, value in words.items() if name != "n_samples"}
        if given.get("mixing") != "dense":
            given["guaranteed"] = given.get("change") != "mean" and "dependence" not in given
        n = words.get("n_samples", 8000)
        data = make_sparse_mixing(**given, n_samples=n + _FRESH, random_state=seed)
        x, domains, true, rows = data.x[:n], data.domains[:n], data.z[n:], data.x[n:]
        holds = conditions_hold(data, {"source": "gaussian", "change": "both", "dependence": 0.0} | given)
    else:
        other = PROBLEMS[kind](seed)
        x, domains, true, rows, n_latents = other.x, other.domains, other.z, other.x, other.z.shape[1]
        known = unmix.audit_decoder(other.mixing, other.z, other.domains)
        holds = (known.latents["verdict"] == "identified").to_numpy()
    kept = None if models is None else models / f"{kind}-{seed}"
    if kept is not None and kept.exists():
        model = unmix.load(kept)
    else:
        model = unmix.CGVAE(n_latents=n_latents, random_state=seed, verbose=0).fit(x, domains)
        if kept is not None:
            model.save(kept)
    audit = model.audit()
    strength = np.nan_to_num(np.abs(correlation(true, model.transform(rows))))
    partner = strength.argmax(axis=0)
    by_condition = {finding.condition: finding.evidence for finding in audit.findings}
    evidence = {name: by_condition[condition].get(key) or {} for name, (condition, key) in EVIDENCE.items()}
    return {
        "key": f"{kind}-{seed}",
        "fits": "others" if kind in OTHERS else "too few latents" if n_latents < true.shape[1] else "own",
        "kind": kind,
        "seed": seed,
        "findings": {finding.condition: finding.verdict for finding in audit.findings},
        "latents": [
            {
                **{name: latent[name] for name in ("name", "verdict", "code")},
                "correlation": float(strength[partner[i], i]),
                "conditions_hold": bool(holds[partner[i]]),
                "evidence": {name: values.get(latent["name"]) for name, values in evidence.items()},
            }
            for i, latent in enumerate(audit.latents.to_dict("records"))
        ],
        "seconds": round(time.monotonic() - started, 1),
    }


def summarise(path: Path) -> pd.DataFrame:
    """Counts for the own generator, others, and fits with too few latents."""
    rows = pd.DataFrame(
        [
            {"key": row["key"], "fits": row["fits"], "number": row["findings"]["number of latents"], **latent}
            for row in read_rows(path).values()
            for latent in row["latents"]
        ]
    )
    rows["named"], right = rows["verdict"] == "identified", rows["correlation"] >= RIGHT
    rows["named_right"], rows["right_and_hold"] = rows["named"] & right, right & rows["conditions_hold"]
    rows["of_these_named"] = rows["named"] & rows["right_and_hold"]
    rows["number_fails"] = (rows["number"] == "fails") & ~rows["key"].duplicated()
    own = rows.groupby("fits", sort=False)
    counts = own[["named", "named_right", "right_and_hold", "of_these_named", "number_fails"]].sum()
    counts.insert(0, "latents", own.size())
    counts.insert(0, "problems", own["key"].nunique())
    return counts.reset_index()


if __name__ == "__main__":
    main()
