"""Tables for ``real.py``: a card (TOML) says what the columns of a file are; the splits of the rows are fixed here.

A card::

    title = "Light tunnel"
    file = "light_tunnel.csv"          # beside the card, or in the folder that --data names
    source = "where it comes from"
    licence = "CC BY 4.0"
    domain = "experiment"              # one column
    n_latents = [5, 7]                 # a number, or several that are run in turn
    features = ["ir_1", "vis_1"]       # default: every numeric column that the card does not name
    drop = ["time"]                    # columns that are no features
    factors = ["red", "cell == 'B'"]   # known factors: numeric columns (not features), or column == 'value'
    target = "gas"                     # predicted in the domains left out, from a model fitted without them
    left_out = ["6"]
    layer = "counts"                   # .h5ad: a layer instead of X
    max_rows = 5000                    # a fixed random choice of rows, the same share of every domain

``file``, ``domain`` and ``n_latents`` must be there, the rest is optional. A factor column of text stands for one
boolean factor for each of its values; one of two numbers is boolean, the larger is true. Rows with a missing feature or
domain are dropped and counted; a missing factor leaves the row out for that factor alone.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmix.data.tables import candidates, read_table
from unmix.errors import DataError, SettingError
from unmix.labels import label_text, natural_order
from unmix.numbers import is_whole

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CARDS = Path(__file__).parent / "tables"
HELD_OUT = 0.2
_EQUALS = re.compile(r"^(?P<column>.+?) == '(?P<value>.*)'$")
_LISTS = ("features", "drop", "factors", "left_out")


@lru_cache
def _digest(path: Path, changed: int) -> str:
    """Of the content of a file, read once for each time of change."""
    return hashlib.sha1(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Card:
    """What a TOML card says; ``path`` is that of the table. See the head of this file."""

    name: str
    path: Path
    domain: str
    n_latents: tuple[int, ...]
    title: str = ""
    source: str = ""
    licence: str = ""
    features: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()
    target: str | None = None
    left_out: tuple[str, ...] = ()
    layer: str | None = None
    max_rows: int | None = None

    @property
    def fixed_by(self) -> dict[str, Any]:
        """All of the card that a result can depend on, the content of the table among it."""
        words = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("path", "title", "source", "licence", "n_latents"):
            words.pop(name)
        return words | {"content": _digest(self.path, self.path.stat().st_mtime_ns)}


@dataclass(frozen=True)
class Table:
    """Features (rows, features) in their own units, a label a row, and known factors (rows,), NaN where missing.

    ``held_out`` marks a fifth of the rows of each domain, the same for every method and seed. ``kinds`` says of each
    factor whether it is "boolean" or "numeric".
    """

    card: Card
    x: Floats
    names: tuple[str, ...]
    domains: NDArray[np.str_]
    factors: dict[str, Floats]
    kinds: dict[str, str]
    target: NDArray[Any] | None
    held_out: Bools
    n_dropped: int

    @property
    def train(self) -> Bools:
        return ~self.held_out

    def halves(self, seed: int) -> tuple[Bools, Bools]:
        """An even split of the training rows of each domain, the same for every method."""
        half = np.zeros(len(self.x), dtype=bool)
        half[self.train] = _share(self.domains[self.train], 0.5, np.random.default_rng(2 + seed))
        return half, self.train & ~half


def read_cards(folders: Iterable[Path], only: Sequence[str] = ()) -> list[Card]:
    """Cards of the tables in ``folders``: those beside the tables, then those of ``benchmarks/tables``.

    Raises
    ------
    SettingError
        There is no table with a card, a card is wrong, or ``only`` names a table that is not there.
    """
    found: dict[str, Card] = {}
    for folder in folders:
        if not folder.is_dir():
            raise SettingError(f"--data takes folders of tables; {folder} is none.")
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, read_card(path, folder))
        for path in sorted(CARDS.glob("*.toml")):
            if path.stem not in found and (folder / _content(path).get("file", "")).is_file():
                found[path.stem] = read_card(path, folder)
    if not found:
        raise SettingError(
            f"No table with a card in {', '.join(map(str, folders))}. Write a .toml beside each table: the head of "
            "benchmarks/real_tables.py says what is in it."
        )
    unknown = sorted(set(only) - set(found))
    if unknown:
        raise SettingError(f"No table {unknown}. There are: {sorted(found)}.")
    return [card for name, card in found.items() if not only or name in only]


def read_card(path: Path, folder: Path) -> Card:
    """One card, of a table in ``folder``.

    Raises
    ------
    SettingError
        A key is unknown, missing, or of another type; or there is no such table.
    """
    content = _content(path)
    known = {field.name: field for field in fields(Card) if field.name not in ("name", "path")}
    unknown = sorted(set(content) - {*known, "file"})
    if unknown:
        raise SettingError(f"{path} has unknown keys {unknown}. Known: {sorted([*known, 'file'])}.")
    lacking = sorted({"file", "domain", "n_latents"} - set(content))
    if lacking:
        raise SettingError(f"{path} lacks {lacking}.")
    words = dict(content)
    table = folder / _text(path, words, "file")
    if not table.is_file():
        raise SettingError(f"{path} is the card of {table}, which is not there.")
    counts = words["n_latents"] if isinstance(words["n_latents"], list) else [words["n_latents"]]
    if not counts or not all(is_whole(n, 1) for n in counts):
        raise SettingError(f"{path}: n_latents must be one or more whole numbers ≥ 1; got {words['n_latents']!r}.")
    words["n_latents"] = tuple(counts)
    for name in _LISTS:
        own = words.get(name, [])
        if not isinstance(own, list) or not all(isinstance(value, str) for value in own):
            raise SettingError(f"{path}: {name} must be a list of texts; got {own!r}.")
        words[name] = tuple(own)
    for name in ("domain", "title", "source", "licence", "target", "layer"):
        if name in words:
            _text(path, words, name)
    if "max_rows" in words and not is_whole(words["max_rows"], 1):
        raise SettingError(f"{path}: max_rows must be a whole number ≥ 1; got {words['max_rows']!r}.")
    if bool(words["left_out"]) != ("target" in words):
        raise SettingError(f"{path}: target and left_out belong together; only one of them is there.")
    words.pop("file")
    return Card(name=path.stem, path=table, **words)


def _content(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"The card {path} cannot be read: {error}.") from error


def _text(path: Path, words: dict[str, Any], name: str) -> str:
    if not isinstance(words[name], str):
        raise SettingError(f"{path}: {name} must be text; got {words[name]!r}.")
    return str(words[name])


def load(card: Card) -> Table:
    """The table of a card, with its splits.

    Raises
    ------
    DataError
        A column is not there or not numeric, or no row is left.
    """
    frame, numeric = _read(card)
    equals = {name: found for name in card.factors if (found := _EQUALS.match(name)) and name not in frame}
    sources = [equals[name]["column"] if name in equals else name for name in card.factors]
    named = [card.domain, *sources, *card.drop, *card.features, *([card.target] if card.target else [])]
    absent = sorted({name for name in named if name not in frame})
    if absent:
        raise DataError(f"The card of {card.path.name} names columns that are not there: {absent}.")
    other = {card.domain, *sources, *card.drop, card.target}
    names = list(card.features) or [name for name in numeric if name not in other]
    values = frame[names].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    whole = np.isfinite(values).all(axis=1) & frame[card.domain].notna().to_numpy()
    if not whole.any():
        raise DataError(f"{card.path.name}: every row lacks a number in one of the features {names[:5]} …")
    rows = np.flatnonzero(whole)
    domains = np.array([label_text(value) for value in frame[card.domain].iloc[rows]])
    if card.max_rows is not None and len(rows) > card.max_rows:
        chosen = _share(domains, card.max_rows / len(rows), np.random.default_rng(0))
        rows, domains = rows[chosen], domains[chosen]
    lacking = sorted(set(card.left_out) - set(domains))
    if lacking:
        raise DataError(f"left_out names domains that {card.path.name} does not have: {lacking}.")
    factors: dict[str, Floats] = {}
    kinds: dict[str, str] = {}
    for name, source in zip(card.factors, sources, strict=True):
        column = frame[source].iloc[rows]
        for own, kind, found in _factor(name, column, equals[name]["value"] if name in equals else None):
            factors[own], kinds[own] = found, kind
    held_out = _share(domains, HELD_OUT, np.random.default_rng(1))
    target = frame[card.target].iloc[rows].to_numpy() if card.target else None
    n_dropped = int((~whole).sum())
    return Table(card, values[rows], tuple(names), domains, factors, kinds, target, held_out, n_dropped)


def _read(card: Card) -> tuple[pd.DataFrame, list[str]]:
    """All columns, and which of them may be features."""
    if card.layer is None:
        frame = read_table(card.path)
        names = candidates(frame)
        return frame, [name for name in names if pd.api.types.is_numeric_dtype(frame[name])]
    import anndata

    source = anndata.read_h5ad(card.path)
    if card.layer not in source.layers:
        raise DataError(f"{card.path.name} has no layer {card.layer!r}; it has {sorted(source.layers)}.")
    values = source.layers[card.layer]
    dense = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    names = [str(name) for name in source.var_names]
    frame = pd.DataFrame(dense, columns=names, index=source.obs.index)
    return pd.concat([source.obs, frame], axis=1).reset_index(drop=True), names


def _factor(name: str, column: pd.Series, value: str | None) -> list[tuple[str, str, Floats]]:
    """Name, kind and numbers of what one entry of ``factors`` stands for."""
    missing = column.isna().to_numpy()
    if pd.api.types.is_bool_dtype(column):
        return [(name, "boolean", np.where(missing, np.nan, column.to_numpy(dtype=float)))]
    if value is None and pd.api.types.is_numeric_dtype(column):
        numbers = column.to_numpy(dtype=float)
        levels = np.unique(numbers[~missing])
        if len(levels) == 2:
            return [(name, "boolean", np.where(missing, np.nan, numbers == levels[1]))]
        return [(name, "numeric", numbers)]
    texts = np.array([label_text(own) for own in column])
    if value is not None:
        return [(name, "boolean", np.where(missing, np.nan, texts == value))]
    return [
        (f"{name} == '{level}'", "boolean", np.where(missing, np.nan, texts == level))
        for level in natural_order(texts[~missing])
    ]


def _share(domains: NDArray[np.str_], share: float, rng: np.random.Generator) -> Bools:
    """A mask over the rows: ``share`` of each domain, rounded, at random."""
    chosen = np.zeros(len(domains), dtype=bool)
    for label in natural_order(domains):
        rows = rng.permutation(np.flatnonzero(domains == label))
        chosen[rows[: round(share * len(rows))]] = True
    return chosen
