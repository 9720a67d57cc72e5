"""How well methods find the latents in data that other groups' published generators draw (``generators.py``).

    python benchmarks/others.py --out benchmarks/results/others
    python benchmarks/others.py --methods FastICA PCA --problems clusters imca --seeds 3

One line of ``rows.jsonl`` a fit: mean correlation of matched latents with the true ones (``unmix.metrics.mcc``), by
Pearson and by Spearman, over all rows, the match chosen on one half of them and scored on the other; Pearson's with
the means of domains removed; and its mean over the latents that change between domains. Where a generator knows no
domains, no method is given any. A seed is that of the data and of the method. ``summary.md`` has the mean over seeds
and the worst seed. A run that was stopped goes on with the same command; a fit that fails is a row with its error,
and ``--retry-failed`` runs it again.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import time
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from generator_parts import Problem
from generators import PROBLEMS

from unmix import __version__, metrics
from unmix.bench.methods import METHODS, Method
from unmix.bench.run import ROWS, append_row, claim_rows, read_rows
from unmix.errors import SettingError
from unmix.files import json_ready, replacing

# What is compared unless --methods says otherwise; a further method is one more entry.
COMPARED: tuple[Method, ...] = tuple(
    METHODS[name] for name in ("both", "changes only", "sparsity only", "joint diagonalization", "FastICA", "PCA")
)
TABLES = {
    "mcc": "MCC, Pearson",
    "spearman": "MCC, Spearman",
    "mcc_changing": "MCC, Pearson, of the latents that change between domains, where others never do",
}
_PROBLEM = ["problem", "rows", "latents", "features", "domains"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/others"))
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="names of unmix bench, or package.module:Class")
    parser.add_argument("--problems", nargs="+", metavar="NAME", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on (default 3)")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--max-epochs", type=int, help="a trial: stop the training of every method after so many")
    parser.add_argument("--retry-failed", action="store_true")
    words = parser.parse_args()
    try:
        methods = [find_method(name) for name in words.methods] if words.methods else list(COMPARED)
        methods = [shortened(method, words.max_epochs) for method in methods]
    except SettingError as error:
        parser.error(str(error))
    path = words.out / ROWS
    claim_rows(path)
    done, rows = read_rows(path), []
    cells = [(name, method, seed) for seed in range(words.seeds) for name in words.problems for method in methods]
    parallel = joblib.Parallel(n_jobs=words.jobs, return_as="generator", batch_size=1)
    for row in parallel(joblib.delayed(measure)(*cell, done, words.retry_failed) for cell in cells):
        rows.append(row)
        if row != done.get(row["key"]):
            append_row(path, row)
            print(_in_words(row), flush=True)
    text = summary(pd.DataFrame(rows))
    with replacing(words.out / "summary.md") as beside:
        beside.write_text(text, encoding="utf-8")
    print(text)


def find_method(name: str) -> Method:
    """A method of ``COMPARED`` or of ``unmix bench`` by its name, or the class ``package.module:Class``.

    Raises
    ------
    SettingError
        There is none of that name.
    """
    known = METHODS | {method.name: method for method in COMPARED}
    if name in known:
        return known[name]
    if ":" not in name:
        raise SettingError(f"There is no method {name!r}. Known: {sorted(known)}; or name a package.module:Class.")
    method = Method(name, name)
    method.build(2, 0)
    return method


def shortened(method: Method, max_epochs: int | None) -> Method:
    """``method`` with ``max_epochs``, if it has such a setting and one is given."""
    if max_epochs is None or not hasattr(method.build(2, 0), "max_epochs"):
        return method
    return replace(method, settings={**method.settings, "max_epochs": max_epochs})


def measure(
    name: str, method: Method, seed: int, done: dict[str, dict[str, Any]], retry_failed: bool = False
) -> dict[str, Any]:
    """The row of ``done``, or a new one: draw the problem, fit, score. A failure is a row with ``error``."""
    row: dict[str, Any] = {"key": f"{name}, {method.name}, seed {seed}", "problem": name, "method": method.name}
    row |= {"seed": seed, "unmix": __version__, "error": None}
    torch.set_num_threads(1)
    try:
        data = PROBLEMS[name](seed)
        row["key"] = _key(data, method, seed)
        known = done.get(row["key"])
        if known and not (retry_failed and known["error"]):
            return known
        row |= {"rows": len(data.x), "latents": data.z.shape[1], "features": data.x.shape[1]}
        row["domains"] = len(np.unique(data.domains))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row |= _fit_and_score(data, method, seed)
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {error}"
    return row


def _key(data: Problem, method: Method, seed: int) -> str:
    """The same for the same data, method with all its settings, seed and version."""
    drawn = [float(f"{np.abs(values).sum():.8g}") for values in (data.x, data.z)]
    content = {
        "unmix": __version__,
        "data": [data.name, *data.x.shape, *drawn],
        "method": method.fixed_by,
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(json_ready(content), sort_keys=True).encode()).hexdigest()[:16]


def _fit_and_score(data: Problem, method: Method, seed: int) -> dict[str, Any]:
    domains = data.domains if method.domains and len(np.unique(data.domains)) > 1 else None
    model = method.build(data.z.shape[1], seed)
    started = time.perf_counter()
    model.fit(data.x, domains)
    seconds = time.perf_counter() - started
    given = {"y": domains} if "y" in inspect.signature(model.transform).parameters else {}
    latents = np.asarray(model.transform(data.x, **given))
    found = metrics.mcc(data.z, latents, domains=data.domains)
    changing = data.changing.any(axis=0)
    row = {
        "mcc": float(found),
        "low": found.interval[0],
        "high": found.interval[1],
        "worst_latent": float(found.per_factor.min()),
        "spearman": float(metrics.mcc(data.z, latents, method="spearman", n_bootstrap=0)),
        "mcc_within_domains": float(found.details["within_domain"].mean()),
        "mcc_changing": float(found.per_factor[changing].mean()) if changing.any() and not changing.all() else None,
        "agreement": getattr(model, "agreement_", None),
    }
    rounded = {name: None if value is None else round(float(value), 4) for name, value in row.items()}
    return rounded | {"seconds": round(seconds, 1)}


def _in_words(row: dict[str, Any]) -> str:
    score = row["error"] or f"MCC {row['mcc']:.3f}, Spearman {row['spearman']:.3f}, {row['seconds']} s"
    return f"{row['problem']}, {row['method']}, seed {row['seed']}: {score}"


def summary(rows: pd.DataFrame) -> str:
    """Markdown: for each score a table of problems and methods, mean over seeds and the worst seed, then failures."""
    good, failed = rows[rows["error"].isna()], rows[rows["error"].notna()]
    parts = []
    for column, words in TABLES.items():
        scored = good[good[column].notna()] if column in good else good[:0]
        if len(scored):
            parts.append(f"## {words}\n\nMean over seeds (worst seed).\n\n{_table(scored, column, rows)}\n")
    if len(failed):
        lines = [f"- {row.problem}, {row.method}, seed {row.seed}: {row.error}" for row in failed.itertuples()]
        parts.append("## Failed\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _table(scored: pd.DataFrame, column: str, rows: pd.DataFrame) -> str:
    methods = [name for name in rows["method"].unique() if name in set(scored["method"])]
    lines = [[*_PROBLEM, *methods], ["---"] * (len(_PROBLEM) + len(methods))]
    for name in (name for name in PROBLEMS if name in set(scored["problem"])):
        own = scored[scored["problem"] == name]
        sizes = [str(int(own[size].iloc[0])) for size in _PROBLEM[1:]]
        lines.append([name, *sizes, *(_cell(own.loc[own["method"] == method, column]) for method in methods)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(values: Iterable[float]) -> str:
    array = np.asarray(list(values), dtype=float)
    return f"{array.mean():.3f} ({array.min():.3f})" if len(array) else "-"


if __name__ == "__main__":
    main()
