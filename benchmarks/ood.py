"""A label predicted in left-out domains of real tables.

    python benchmarks/ood.py --data FOLDER [FOLDER …] --out benchmarks/results/ood_real
    python benchmarks/ood.py --data FOLDER --tables light_tunnel --label light_tunnel=red --most 4

FOLDER holds tables with cards (``benchmarks/real_tables.py``). The label is what ``--label TABLE=COLUMN`` names, or the
card's ``target``, or its first numeric factor. Each domain is left out in turn (at most ``--most`` of them, evenly
spaced; of a table with ``left_out`` those): nothing of it is seen in the fit but by the methods that align to its
features (standardised by domain, CORAL, Gaussian transport) and by the oracle, a head on the features that was
fitted on half of its labelled rows beside the others. All are scored on its other half: R², or accuracy. The head is
that of ``DomainRegressor`` or ``DomainClassifier``. The generated problems are ``unmix bench ood``.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from real_tables import Card, Table, load, read_cards
from sklearn.base import clone
from sklearn.decomposition import PCA, FastICA
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import StandardScaler

import unmix
from unmix.bench.ood import coral, gaussian_transport, table_of
from unmix.data.tables import read_table
from unmix.errors import UnmixError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of tables")
    parser.add_argument("--tables", nargs="+", default=[], help="names of cards; default: all with a label")
    parser.add_argument("--label", nargs="+", default=[], metavar="TABLE=COLUMN")
    parser.add_argument("--most", type=int, default=6, help="domains that are left out, at most")
    parser.add_argument("--most-rows", type=int, default=6000)
    parser.add_argument("--restarts", type=int, default=4)
    parser.add_argument("--imsda", action="store_true", help="fit iMSDA too")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    labels = dict(item.partition("=")[::2] for item in asked.label)
    try:
        cards = read_cards(asked.data, asked.tables)
    except UnmixError as error:
        print(error, file=sys.stderr)
        return 2
    found: list[dict[str, Any]] = []
    asked.out.mkdir(parents=True, exist_ok=True)
    for card in cards:
        table = load(card)
        label, name = label_of(card, table, labels.get(card.name))
        if label is None:
            print(f"{card.name}: no label; name one by --label", flush=True)
            continue
        for domain in left_out(table, asked.most):
            started = time.process_time()
            own = scores(table, label, domain, asked)
            found += [{"kind": f"{card.name}: {name}", "domain": domain, **row} for row in own]
            seconds = time.process_time() - started
            print(f"{card.name}, without {domain}, {seconds:.0f} s: ", end="")
            print(", ".join(f"{row['method']} {row['score']:.2f}" for row in own), flush=True)
            pd.DataFrame(found).to_csv(asked.out / "scores.csv", index=False)
    result = table_of(pd.DataFrame(found), units="domain").round(4)
    result.to_csv(asked.out / "ood.csv", index=False)
    print(result.round(3).to_string(index=False))
    return 0


def label_of(card: Card, table: Table, asked: str | None) -> tuple[Any, str]:
    """The label of every row, and its name."""
    numeric = [name for name in table.factors if table.kinds[name] == "numeric"]
    if asked is not None and asked in table.factors:
        return table.factors[asked], asked
    if asked is not None and asked in table.names:
        return table.x[:, table.names.index(asked)], asked
    if asked is not None:
        column = read_table(card.path)[asked]
        return (column.to_numpy(), asked) if len(column) == len(table.x) else (None, asked)
    if table.target is not None:
        return table.target, str(card.target)
    return (table.factors[numeric[0]], numeric[0]) if numeric else (None, "")


def left_out(table: Table, most: int) -> list[str]:
    if table.card.left_out:
        return list(table.card.left_out)
    domains = sorted(set(table.domains.tolist()))
    return [
        domains[k] for k in np.unique(np.linspace(0, len(domains) - 1, min(most, len(domains))).round().astype(int))
    ]


def scores(table: Table, label: Any, domain: str, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a method for one left-out domain."""
    is_class = not pd.api.types.is_numeric_dtype(np.asarray(label))
    label = np.asarray(label).astype(str) if is_class else np.asarray(label, dtype=float)
    # A label among the features is no longer one of them.
    same = [] if is_class else [k for k in range(table.x.shape[1]) if np.array_equal(table.x[:, k], label)]
    features, rng = np.delete(table.x, same, axis=1), np.random.default_rng(0)
    known = ~pd.isna(label)
    there = table.domains == domain
    train, target = (rng.permutation(np.flatnonzero(known & own)) for own in (~there, there))
    train, target = np.sort(train[: asked.most_rows]), target[: asked.most_rows]
    seen, test = target[: len(target) // 2], target[len(target) // 2 :]
    x, y, new, domains = features[train], label[train], features[test], table.domains[train]
    kind = unmix.DomainClassifier if is_class else unmix.DomainRegressor
    basic = kind()._default_head()
    n_latents = min(table.card.n_latents[0], x.shape[1])
    scaler = StandardScaler().fit(x)
    a, b = scaler.transform(x), scaler.transform(new)
    within = np.empty_like(a)
    for own in np.unique(domains):
        within[domains == own] = StandardScaler().fit_transform(x[domains == own])
    pairs = {
        "raw features": (a, b),
        "standardised by domain": (within, StandardScaler().fit_transform(new)),
        "PCA": _both(PCA(n_latents, random_state=0), a, b),
        "FastICA": _both(FastICA(n_latents, whiten="unit-variance", max_iter=1000, random_state=0), a, b),
    }
    if x.shape[1] <= 200:
        pairs |= {"CORAL": (coral(a, b), b), "Gaussian transport": (gaussian_transport(a, b), b)}
    model = unmix.CGVAE(
        n_latents=n_latents, n_restarts=asked.restarts, min_domain_rows=1, auxiliary=None, verbose=0
    ).fit(x, domains)  # fmt: skip
    pairs["CGVAE latents"] = model.transform(x), model.transform(new)
    if asked.imsda:
        other = unmix.baselines.IMSDA(n_latents=n_latents, n_restarts=1, min_domain_rows=1, verbose=0).fit(x, domains)
        pairs["IMSDA"] = other.transform(x), other.transform(new)
    predicted = {name: clone(basic).fit(first, y).predict(second) for name, (first, second) in pairs.items()}
    try:
        head = kind(model).fit(x, y, domains=domains)
        head = head.adapt(new, domain=domain) if head.representation_ == "noise" else head
        predicted["DomainRegressor"] = head.predict(new, np.full(len(new), domain))
        note = head.representation_
    except UnmixError as error:
        note = str(error)
    both = np.concatenate([train, seen])
    predicted["oracle"] = clone(basic).fit(scaler.transform(features[both]), label[both]).predict(b)
    verdict = model.novelty(new).domains["verdict"].item()
    found = []
    for name, values in predicted.items():
        truth = label[test]
        score = accuracy_score(truth, values) if is_class else max(r2_score(truth, values), -1.0)
        said = f"{note}; {verdict}" if name == "DomainRegressor" else ""
        found.append({"method": name, "score": round(float(score), 4), "rows": len(test), "note": said})
    return found


def _both(method: Any, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return method.fit_transform(a), method.transform(b)


if __name__ == "__main__":
    sys.exit(main())
