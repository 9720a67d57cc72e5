"""A label predicted in left-out domains of real tables.

    python benchmarks/ood.py --data FOLDER [FOLDER …] --out benchmarks/results/ood_real
    python benchmarks/ood.py --data FOLDER --tables light_tunnel --label light_tunnel=red --most 4

FOLDER holds tables with cards (``benchmarks/real_tables.py``). The label is what ``--label TABLE=COLUMN`` names, or the
card's ``target``, or its first numeric factor. Each domain is left out in turn (at most ``--most`` of them, evenly
spaced; of a table with ``left_out`` those, unless ``--every-domain``; with ``--folds`` the domains are left out in so
many groups): nothing of it is seen in the fit but by the methods that align to its features (standardised by domain,
CORAL, transport; two of skada where it is installed) and by the oracle, a head on the features that was fitted on half
of its labelled rows beside the others. All are scored on its other half: R², or accuracy. The head is that of
``DomainRegressor`` or ``DomainClassifier``; of more than 200 features it is linear. Where one domain is left to train
on, ``DomainRegressor`` takes all latents. The generated problems are ``unmix bench ood``.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from real_tables import Card, Table, load, read_cards
from sklearn.decomposition import PCA, FastICA
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import accuracy_score, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import unmix
from unmix.bench.alignments import alignments
from unmix.bench.ood import table_of
from unmix.data.tables import read_table
from unmix.errors import UnmixError
from unmix.labels import natural_order

Floats = np.ndarray[Any, np.dtype[np.float64]]
WIDE = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of tables")
    parser.add_argument("--tables", nargs="+", default=[], help="names of cards; default: all with a label")
    parser.add_argument("--label", nargs="+", default=[], metavar="TABLE=COLUMN")
    parser.add_argument("--most", type=int, default=6, help="domains that are left out, at most")
    parser.add_argument("--folds", type=int, help="groups of domains that are left out in turn")
    parser.add_argument("--every-domain", action="store_true", help="of tables with left_out too")
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
        for domains in left_out(table, asked):
            started, domain = time.process_time(), " ".join(domains)
            own = scores(table, label, domains, asked)
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


def left_out(table: Table, asked: argparse.Namespace) -> list[tuple[str, ...]]:
    """Domains that are left out together."""
    domains = natural_order(table.domains)
    if asked.folds is not None:
        order = np.random.default_rng(0).permutation(len(domains))
        return [tuple(domains[k] for k in sorted(own)) for own in np.array_split(order, asked.folds)]
    if table.card.left_out and not asked.every_domain:
        return [(domain,) for domain in table.card.left_out]
    chosen = np.unique(np.linspace(0, len(domains) - 1, min(asked.most, len(domains))).round().astype(int))
    return [(domains[k],) for k in chosen]


@dataclass(frozen=True)
class Split:
    """Rows of training domains, and of those left out: ``seen`` by the oracle alone, and others for the scores."""

    x: Floats
    y: Any
    domains: Any
    seen: Floats
    seen_y: Any
    new: Floats
    new_y: Any
    new_domains: Any

    @property
    def is_class(self) -> bool:
        return self.y.dtype.kind == "U"


def split_of(table: Table, label: Any, domains: tuple[str, ...], most_rows: int) -> Split:
    is_class = not pd.api.types.is_numeric_dtype(np.asarray(label))
    known = ~pd.isna(label)
    label = np.asarray(label).astype(str) if is_class else np.asarray(label, dtype=float)
    # A label among the features is no longer one of them.
    same = [] if is_class else [k for k in range(table.x.shape[1]) if np.array_equal(table.x[:, k], label)]
    x, rng = np.delete(table.x, same, axis=1), np.random.default_rng(0)
    there = np.isin(table.domains, domains)
    train, target = (rng.permutation(np.flatnonzero(known & own))[:most_rows] for own in (~there, there))
    train, seen, new = np.sort(train), target[: len(target) // 2], target[len(target) // 2 :]
    varies = x[train].std(axis=0) > 0
    x = x[:, varies]
    return Split(
        x[train], label[train], table.domains[train], x[seen], label[seen], x[new], label[new], table.domains[new]
    )


def representations(split: Split, model: Any, n_latents: int, imsda: bool) -> dict[str, tuple[Floats, Floats]]:
    """Rows of the training and of the target as each method sees them."""
    scaler = StandardScaler().fit(split.x)
    a, b = scaler.transform(split.x), scaler.transform(split.new)
    pairs = {
        "raw features": (a, b),
        "standardised by domain": (within(a, split.domains), within(b, split.new_domains)),
        "PCA": _both(PCA(n_latents, random_state=0), a, b),
        "FastICA": _both(FastICA(n_latents, whiten="unit-variance", max_iter=1000, random_state=0), a, b),
        "CGVAE latents": (model.transform(split.x), model.transform(split.new)),
    }
    if a.shape[1] <= WIDE:
        pairs |= {name: align(a, b) for name, align in alignments().items()}
    if imsda:
        other = unmix.baselines.IMSDA(n_latents=n_latents, n_restarts=1, min_domain_rows=1, verbose=0)
        other.fit(split.x, split.domains)
        pairs["IMSDA"] = other.transform(split.x), other.transform(split.new)
    return pairs


def within(x: Floats, domains: Any) -> Floats:
    found = np.empty_like(x)
    for own in np.unique(domains):
        found[domains == own] = StandardScaler().fit_transform(x[domains == own])
    return found


def scores(table: Table, label: Any, domains: tuple[str, ...], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a method for the domains that are left out."""
    split = split_of(table, label, domains, asked.most_rows)
    n_latents, n_training = min(table.card.n_latents[0], split.x.shape[1]), len(np.unique(split.domains))
    model = unmix.CGVAE(
        n_latents=n_latents, n_restarts=asked.restarts, min_domain_rows=1, auxiliary=None, verbose=0
    ).fit(split.x, split.domains)  # fmt: skip
    pairs = representations(split, model, n_latents, asked.imsda and n_training > 1)
    predicted = {name: head_for(split, a.shape[1]).fit(a, split.y).predict(b) for name, (a, b) in pairs.items()}
    kind = unmix.DomainClassifier if split.is_class else unmix.DomainRegressor
    try:
        head = kind(model, representation="auto" if n_training > 1 else "latents")
        head.fit(split.x, split.y, domains=split.domains)
        head = head.adapt(split.new, domain=split.new_domains) if head.representation_ == "noise" else head
        predicted["DomainRegressor"] = head.predict(split.new, split.new_domains)
        note = head.representation_
    except UnmixError as error:
        note = str(error)
    oracle = make_pipeline(StandardScaler(), head_for(split, split.x.shape[1]))
    oracle.fit(np.concatenate([split.x, split.seen]), np.concatenate([split.y, split.seen_y]))
    predicted["oracle"] = oracle.predict(split.new)
    verdict = ", ".join(sorted(set(model.novelty(split.new, split.new_domains).domains["verdict"])))
    found = []
    for name, values in predicted.items():
        truth = split.new_y
        score = accuracy_score(truth, values) if split.is_class else max(r2_score(truth, values), -1.0)
        said = f"{note}; {verdict}" if name == "DomainRegressor" else ""
        found.append({"method": name, "score": round(float(score), 4), "rows": len(truth), "note": said})
    return found


def head_for(split: Split, n_columns: int) -> Any:
    kind = unmix.DomainClassifier if split.is_class else unmix.DomainRegressor
    if n_columns <= WIDE:
        return kind()._default_head()
    return LogisticRegression(max_iter=1_000) if split.is_class else RidgeCV(np.logspace(-3, 3, 13))


def _both(method: Any, a: Floats, b: Floats) -> tuple[Floats, Floats]:
    return method.fit_transform(a), method.transform(b)


if __name__ == "__main__":
    sys.exit(main())
