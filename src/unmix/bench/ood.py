"""``unmix bench ood``: a label predicted in a domain that was not there, on generated problems.

In each problem four latents make ten features in six domains; one latent has the same law in all of them and makes the
label, the other three are causes that change and do not matter. The last domain is left out: its rows are seen without
label by the methods that adapt to it, and not at all by the others. Kinds of shift:

- ``inside``: a further domain, as the theory has it
- ``mixing``: the same, and one of ten features is another function of the latents there
- ``label``: the same as inside, and rows with a large label are more frequent there
- ``few``: inside, with 60 rows of each training domain in place of 300
- ``far``: inside, and the means of the causes that do not matter lie two standard deviations of the training rows off
  their mean, each to a random side
- ``few domains`` and ``few domains, far``: three training domains in place of five

All methods have the same head, that of ``DomainRegressor``. ``oracle`` is CGVAE fitted with rows of the target domain
too, and a head that has seen labels of them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import bootstrap, t
from sklearn.base import clone
from sklearn.decomposition import PCA, FastICA
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from unmix.bench.alignments import alignments
from unmix.bench.run import holding, read_rows, rows_of
from unmix.bench.study import Row
from unmix.datasets import make_sparse_mixing
from unmix.estimators.cgvae import CGVAE
from unmix.estimators.domain_baselines import IMSDA
from unmix.estimators.heads import DomainRegressor
from unmix.files import as_path
from unmix.version import __version__

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

OOD = "ood.jsonl"
KINDS = ("inside", "mixing", "label", "few", "far", "few domains", "few domains, far")
OWN, ORACLE = "DomainRegressor", "oracle"
_FIRST_SEED = 920
LATENTS, FEATURES, _DOMAINS, _FEW_DOMAINS = 4, 10, 6, 4
ROWS, _FEW_ROWS, TARGET_ROWS = 300, 60, 1000
_NOISE_OF_LABEL, _NOISE = 0.3, 0.05
_FAR = 2.0
_STARTS = 2
_LEAST_RESAMPLED = 10


def run_ood(
    folder: str | Path,
    n_seeds: int = 20,
    *,
    n_jobs: int = -1,
    kinds: Sequence[str] = KINDS,
    retry_failed: bool = False,
    on_row: Callable[[Row], None] | None = None,
) -> pd.DataFrame:
    """Run what is missing in ``folder`` and return one row per kind, problem and method: ``score`` is R² in the target.

    A problem on which a method fails is left out, and computed again with ``retry_failed``.

    Raises
    ------
    StorageError
        The rows cannot be read or written, or another study is running in the folder.
    """
    path = as_path(folder) / OOD
    sizes = [size for size in ((ROWS,), (_FEW_ROWS,), (ROWS, _FEW_DOMAINS)) if set(_kinds(*size)) & set(kinds)]
    keys = {
        " ".join(map(str, (__version__, seed, *size))): (seed, *size)
        for size in sizes
        for seed in range(_FIRST_SEED, _FIRST_SEED + n_seeds)
    }
    with holding(path):
        done = read_rows(path)
        tasks = (
            joblib.delayed(measure_ood)(key, *own)
            for key, own in keys.items()
            if key not in done or (retry_failed and done[key]["error"])
        )
        for row in rows_of(tasks, n_jobs, path):
            done[row["key"]] = row
            if on_row is not None:
                on_row(row)
        found = [
            {"seed": done[key]["seed"], **own} for key in keys for own in done[key]["results"] if own["kind"] in kinds
        ]
    return pd.DataFrame(found, columns=["kind", "seed", "method", "score", "note"])


def measure_ood(key: str, seed: int, n_rows: int, n_domains: int | None = None) -> Row:
    """All methods on one problem with ``n_rows`` of each training domain, of which there are one less than domains."""
    before, started = torch.get_num_threads(), time.process_time()
    row: Row = {
        "key": key,
        "seed": seed,
        "rows": n_rows,
        "results": [],
        "error": None,
        "unmix": __version__,
    }
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row["results"] = _results(seed, n_rows, n_domains or _DOMAINS)
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {error}"
    finally:
        torch.set_num_threads(before)
    return row | {"cpu_seconds": round(time.process_time() - started, 1)}


def _kinds(n_rows: int, n_domains: int = _DOMAINS) -> tuple[str, ...]:
    """The kinds of shift of problems of one size."""
    if n_domains != _DOMAINS:
        return "few domains", "few domains, far"
    return ("inside", "mixing", "label", "far") if n_rows == ROWS else ("few",)


@dataclass(frozen=True)
class _Problem:
    """Training rows, and of each kind of shift rows of the target domain: labelled ones, for the oracle, and others."""

    x: Floats
    y: Floats
    domains: Ints
    labelled: dict[str, tuple[Floats, Floats]]
    target: dict[str, tuple[Floats, Floats]]


def _problem(seed: int, n_rows: int, n_domains: int) -> _Problem:
    rng = np.random.default_rng(seed)
    data = make_sparse_mixing(
        n_latents=LATENTS,
        n_features=FEATURES,
        n_domains=n_domains,
        n_samples=n_domains * 3 * TARGET_ROWS,
        density=0.4,
        noise=_NOISE,
        n_unchanging=1,
        guaranteed=True,
        random_state=seed,
    )
    x, z, domains = data.x, data.z, np.asarray(data.domains)
    cause = z[:, int(np.flatnonzero(data.unchanging)[0])]
    y = cause / cause.std() + _NOISE_OF_LABEL * rng.standard_normal(len(cause))
    of = [np.flatnonzero(domains == domain) for domain in range(n_domains)]
    train = np.concatenate([rows[:n_rows] for rows in of[:-1]])
    labelled, test = of[-1][:n_rows], of[-1][n_rows : n_rows + TARGET_ROWS]
    changed = x[test].copy()
    feature, weights = rng.integers(FEATURES), rng.standard_normal(LATENTS)
    other = np.tanh(z @ weights)
    changed[:, feature] = ((other - other.mean()) / other.std())[test] + _NOISE * rng.standard_normal(len(test))
    frequent = rng.random(len(test)) < 1.0 / (1.0 + np.exp(-2.0 * y[test]))
    moved = z[of[-1]]
    there = z[train].mean(axis=0) + _FAR * rng.choice([-1.0, 1.0], LATENTS) * z[train].std(axis=0)
    moved = np.where(data.unchanging, moved, moved + there - moved.mean(axis=0))
    far = data.mixing(moved) + _NOISE * rng.standard_normal((len(moved), FEATURES))
    target = dict.fromkeys(_kinds(n_rows, n_domains), (x[test], y[test]))
    seen = dict.fromkeys(target, (x[labelled], y[labelled]))
    for kind in target:
        if kind == "mixing":
            target[kind] = changed, y[test]
        elif kind == "label":
            target[kind] = x[test][frequent], y[test][frequent]
        elif kind.endswith("far"):
            target[kind] = far[n_rows : n_rows + TARGET_ROWS], y[test]
            seen[kind] = far[:n_rows], y[labelled]
    return _Problem(x[train], y[train], domains[train], seen, target)


def _results(seed: int, n_rows: int, n_domains: int) -> list[Row]:
    problem = _problem(seed, n_rows, n_domains)
    new = n_domains - 1
    model = CGVAE(n_latents=LATENTS, n_restarts=_STARTS, random_state=seed, verbose=0)
    head = DomainRegressor(clone(model)).fit(problem.x, problem.y, domains=problem.domains)
    oracles: dict[bool, DomainRegressor] = {}
    baselines = _Baselines(problem.x, problem.domains, problem.y, seed)
    found = []
    for kind, (x, label) in problem.target.items():
        predicted: dict[str, NDArray[np.generic]] = {**baselines.predict(x)}
        own = head if head.representation_ != "noise" else head.adapt(x, domain=new)
        predicted[OWN] = own.predict(x, np.full(len(x), new))
        predicted["CGVAE latents"] = _apply(problem.y, head.model_.transform(problem.x), head.model_.transform(x))
        far = kind.endswith("far")
        if far not in oracles:
            seen, known = problem.labelled[kind]
            oracles[far] = DomainRegressor(clone(model), representation="latents").fit(
                np.concatenate([problem.x, seen]),
                np.concatenate([problem.y, known]),
                domains=np.concatenate([problem.domains, np.full(len(seen), new)]),
            )
        predicted[ORACLE] = oracles[far].predict(x)
        novel = head.model_.novelty(x).domains["verdict"].item()
        for method, values in predicted.items():
            note = {OWN: f"{head.representation_}; {novel}"}.get(method, "")
            score = round(float(max(r2_score(label, values), -1.0)), 4)
            found.append({"kind": kind, "method": method, "score": score, "note": note})
    return found


class _Baselines:
    """Representations that are learnt on the training rows once, or aligned to each target; the head on all of them."""

    def __init__(self, x: Floats, domains: Ints, y: Floats, seed: int) -> None:
        self.y, self.scaler = y, StandardScaler().fit(x)
        self.scaled = self.scaler.transform(x)
        self.within = np.empty_like(x)
        for domain in np.unique(domains):
            own = domains == domain
            self.within[own] = StandardScaler().fit_transform(x[own])
        self.linear = {
            "PCA": PCA(LATENTS, random_state=seed).fit(self.scaled),
            "FastICA": FastICA(LATENTS, whiten="unit-variance", max_iter=1000, random_state=seed).fit(self.scaled),
        }
        imsda = IMSDA(n_latents=LATENTS, n_style=LATENTS - 1, n_restarts=1, random_state=seed, verbose=0)
        self.imsda, self.x = imsda.fit(x, domains), x

    def predict(self, target: Floats) -> dict[str, Floats]:
        """Predictions (rows,) for ``target`` by the name of the method."""
        a, b = self.scaled, self.scaler.transform(target)
        pairs = {
            "raw features": (a, b),
            "standardised by domain": (self.within, StandardScaler().fit_transform(target)),
        }
        pairs |= {name: (own.transform(a), own.transform(b)) for name, own in self.linear.items()}
        pairs |= {name: align(a, b) for name, align in alignments().items()}
        pairs["IMSDA"] = self.imsda.transform(self.x), self.imsda.transform(target)
        return {name: _apply(self.y, first, second) for name, (first, second) in pairs.items()}


def _apply(y: Floats, known: Floats, new: Floats) -> Floats:
    head = DomainRegressor()._default_head().fit(known, y)
    predicted: Floats = head.predict(new)
    return predicted


def table_of(found: pd.DataFrame, units: str = "seed") -> pd.DataFrame:
    """Mean score of each kind and method over ``units``, and what ``DomainRegressor`` is better by, each with interval.

    Intervals are Student's, over problems or left-out domains. Gains are skewed where a method fails on some problems;
    so there is also an interval from resampled problems (``boot_low``, ``boot_high``; from ten on), and in how many
    ``DomainRegressor`` is better (``won``).
    """
    rows = []
    for kind, own in found.groupby("kind", sort=False):
        scores = own.pivot_table(index=units, columns="method", values="score", sort=False)
        for method in scores:
            mean, low, high = _interval(scores[method].dropna())
            row = {"kind": kind, "method": method, "problems": int(scores[method].notna().sum())}
            row |= {"score": mean, "low": low, "high": high}
            if OWN in scores:
                gain = (scores[OWN] - scores[method]).dropna()
                row |= dict(zip(("better_by", "better_low", "better_high"), _interval(gain), strict=True))
                row |= dict(zip(("boot_low", "boot_high"), _resampled(gain), strict=True))
                row["won"] = int((gain > 0).sum())
            rows.append(row)
    return pd.DataFrame(rows)


def _resampled(gain: Iterable[float]) -> tuple[float, float]:
    own = np.asarray(list(gain), dtype=float)
    if len(own) < _LEAST_RESAMPLED:
        return float("nan"), float("nan")
    found = bootstrap((own,), np.mean, method="percentile", rng=0).confidence_interval
    return float(found.low), float(found.high)


def _interval(values: Iterable[float]) -> tuple[float, float, float]:
    own = np.asarray(list(values), dtype=float)
    mean = float(own.mean()) if len(own) else float("nan")
    if len(own) < 2:
        return mean, float("nan"), float("nan")
    half = float(t.isf(0.025, len(own) - 1) * own.std(ddof=1) / np.sqrt(len(own)))
    return mean, mean - half, mean + half
