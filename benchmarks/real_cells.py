"""The cells of ``real.py``: one fit each, measured, as one row. Worker processes import this module."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import real_measures as measures
import torch
from real_methods import TableMethod
from real_tables import Card, Table, load
from threadpoolctl import threadpool_limits

from unmix.bench.methods import Method
from unmix.errors import DataError
from unmix.files import json_ready, replacing
from unmix.version import __version__

CEILING = "gradient boosting, all features"
_MEASURES = 1
"""Raised when a measure changes, so that rows are computed again."""
_MOST_WARNINGS = 5


@dataclass(frozen=True, eq=False)
class Cell:
    """One fit and what is measured of it. ``part``: "fit", "halves", "left out" or, without a method, "ceiling"."""

    card: Card
    n_latents: int
    method: Method | None
    seed: int
    part: str

    @property
    def name(self) -> str:
        return CEILING if self.method is None else self.method.name

    @property
    def digest(self) -> str:
        """Of all that fixes the numbers but the seed: the same for all rows of a table and method."""
        fixed = {"card": self.card.fixed_by, "unmix": __version__, "measures": _MEASURES}
        fixed |= {} if self.method is None else {"method": self.method.fixed_by}
        return hashlib.sha1(json.dumps(json_ready(fixed), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def key(self) -> str:
        return f"{self.card.name}/{self.n_latents}/{self.name}/{self.seed}/{self.part}/{self.digest}"

    def row(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "table": self.card.name,
            "n_latents": self.n_latents,
            "method": self.name,
            "seed": self.seed,
            "part": self.part,
            "unmix": __version__,
            "error": None,
        }


def plan(cards: Sequence[Card], chosen: Sequence[Method], n_seeds: int, n_refits: int) -> Iterator[Cell]:
    """All cells, table by table."""
    for card in cards:
        if card.factors:
            yield Cell(card, 0, None, 0, "ceiling")
        suited = _suited(card, chosen)
        for n_latents in card.n_latents:
            for method in suited:
                reference = _is_reference(method)
                for seed in range(1 if reference else n_seeds):
                    yield Cell(card, n_latents, method, seed, "fit")
                    if seed < n_refits and not reference:
                        yield Cell(card, n_latents, method, seed, "halves")
                    if seed < n_refits and card.left_out:
                        yield Cell(card, n_latents, method, seed, "left out")


def _suited(card: Card, chosen: Sequence[Method]) -> list[Method]:
    """The methods that take this table."""
    positive = [method for method in chosen if isinstance(method, TableMethod) and method.positive]
    if not positive or (_table(card).x >= 0).all():
        return list(chosen)
    print(f"{card.name} has numbers below 0: without {', '.join(method.name for method in positive)}", flush=True)
    return [method for method in chosen if method not in positive]


def _is_reference(method: Method) -> bool:
    return isinstance(method, TableMethod) and method.reference


def latents_path(folder: Path, key: str) -> Path:
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
    method = cell.method
    if cell.part == "left out":
        left_out = np.isin(table.domains, cell.card.left_out)
        rows = table.train & ~left_out
        fitted = measures.fit(method, cell.n_latents, cell.seed, table, rows)
        return measures.left_out_score(fitted, table, rows, left_out)
    if cell.part == "halves":
        fits = [measures.fit(method, cell.n_latents, cell.seed, table, rows) for rows in table.halves(cell.seed)]
        mean, worst = measures.agreement([fitted.encode(table, table.held_out) for fitted in fits])
        return {"agreement": mean, "worst": worst}
    fitted = measures.fit(method, cell.n_latents, cell.seed, table, table.train)
    encoded, target = fitted.encode(table, table.held_out), fitted.standardised(table.x[table.held_out])
    if not np.isfinite(encoded).all():
        raise DataError(f"{method.name} returned latents that are not finite.")
    path = latents_path(folder, cell.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside, beside.open("wb") as file:
        np.save(file, encoded.astype(np.float32))
    return {
        "found_latents": encoded.shape[1],
        "variance": measures.variance_kept(target, fitted.decode(encoded)),
        "variance_linear": measures.variance_kept(target, fitted.linear.predict(encoded)),
        "decoded_by": fitted.decoded_by,
        "told_domains": fitted.told_domains,
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
        mean, worst = measures.agreement([np.load(latents_path(folder, cell.key)).astype(float) for cell in own])
        row = own[0].row() | {"part": "seeds", "seed": len(own), "agreement": round(mean, 5), "worst": round(worst, 5)}
        yield row | {"key": f"{own[0].key} {len(own)} seeds"}
