"""``unmix.select``: whole fits over numbers of latents and strengths of the penalty, compared without any truth.

Fits run in parallel; with a folder each is one line of ``selection.jsonl`` there, on the disk before the next is taken
up, under a key of the data and all settings: what is there is not computed again.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from sklearn.base import clone

from unmix.audit.agreement import agreement
from unmix.audit.input import ResidualDependence
from unmix.bench.figures import numbers
from unmix.bench.run import holding, read_rows, rows_of
from unmix.bench.study import Row
from unmix.data.batches import split_rows
from unmix.errors import SettingError
from unmix.estimators.cgvae import CGVAE
from unmix.estimators.prepare import Prepared, in_layer
from unmix.estimators.progress import OnRow
from unmix.estimators.selection import Candidate, Choice, components_of, decide, fit_rows, gain, prepared
from unmix.files import as_path
from unmix.forms import DataLike, LabelsLike
from unmix.nets.state import in_own_state
from unmix.numbers import is_whole
from unmix.report.parts import csv_address, fill, picture, table_html, write_html
from unmix.validation import random_seed
from unmix.version import __version__

# Not that of a study: each may stand in a folder of the other.
SELECTED = "selection.jsonl"
_BELOW, _ABOVE = 1, 3


@dataclass(frozen=True)
class Selection:
    """What ``select`` found; printed, it is the table and the choice.

    Attributes
    ----------
    best : int, the number of latents
    sparsity : float or "auto", the strength of the penalty
    reason : str
    decided : bool, whether the data decided: at ``best`` no two features depend on each other given the latents
    table : DataFrame, one row per fit

    The columns of ``table`` are those of ``CGVAE.selection_`` and ``sparsity``, ``halves`` (agreement of two fits, each
    on one half of the training rows) and ``seconds``.
    """

    best: int
    sparsity: float | str
    reason: str
    decided: bool
    table: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """``table``."""
        return self.table.copy()

    def report(self, path: str | Path) -> Path:
        """Write the page of this selection, one self-contained HTML file, and return its path."""
        # What is the same in all rows is not repeated on the page.
        shown = self.table if self.table["sparsity"].nunique() > 1 else self.table.drop(columns="sparsity")
        text = fill(
            "unmix.bench",
            "select.html",
            version=__version__,
            verdict=str(self).rsplit("\n", 1)[-1],
            figure=picture(numbers(self.table, self.best), "Bound, residuals and agreement by the number of latents"),
            table=table_html(shown),
            download=csv_address(self.table),
        )
        target = as_path(path)
        write_html(text, target)
        return target

    def __str__(self) -> str:
        some = f", sparsity={self.sparsity!r}" if self.table["sparsity"].nunique() > 1 else ""
        return f"{self.table.round(3).to_string(index=False)}\n\n{self.best} latents{some}: {self.reason}."


@in_own_state
def select(
    X: DataLike,
    y: LabelsLike = None,
    *,
    layer: str | None = None,
    n_latents: int | Iterable[int] | None = None,
    sparsity: float | str | Iterable[float | str] = "auto",
    estimator: CGVAE | None = None,
    n_jobs: int = 1,
    folder: str | Path | None = None,
    on_row: OnRow | None = None,
) -> Selection:
    """Compare numbers of latents, and strengths of the penalty, by whole fits.

    Parameters
    ----------
    X, y, layer : rows and their domains, as ``CGVAE.fit`` takes them
    n_latents : whole number or several, optional
        Default: from one less to three more than there are principal components that stand out of shuffled data.
    sparsity : number, "auto", or several, default "auto"
    estimator : CGVAE, optional
        All other settings. Default: ``CGVAE()``.
    n_jobs : int, default 1
        Processes; joblib's active back end decides where they run (``joblib.parallel_config``).
    folder : path, optional
        Where finished fits are kept; the same call resumes where it was stopped.
    on_row : callable, optional
        Called with the row of each fit as it is finished.

    Returns
    -------
    Selection

    Raises
    ------
    SettingError
        ``n_latents`` holds no number, or one that is below 1 or above the number of features.
    DataError, DomainError
        As ``CGVAE.fit``.
    StorageError
        ``folder`` cannot be written or read, or another selection runs in it.

    Examples
    --------
    >>> import unmix
    >>> data = unmix.datasets.make_sparse_mixing(n_latents=2, n_features=5, n_domains=3, n_samples=600)
    >>> short = unmix.CGVAE(n_restarts=2, max_epochs=3)            # far too short a training: nothing to believe
    >>> found = unmix.select(data.x, data.domains, n_latents=[1, 2], estimator=short)
    >>> found.to_frame()["n_latents"].tolist()
    [1, 2]
    """
    base = clone(CGVAE() if estimator is None else estimator).set_params(n_latents=1, verbose=0)
    seed = random_seed(base.random_state)
    base.set_params(random_state=seed)
    base._check_words()
    data = prepared(base, in_layer(X, layer), y)
    numbers = _numbers(n_latents, data)
    several = [sparsity] if isinstance(sparsity, str) or not isinstance(sparsity, Iterable) else list(sparsity)
    if not several:
        raise SettingError('sparsity must hold at least one number, or be "auto"; got none.')
    cells = [clone(base).set_params(n_latents=n, sparsity=own) for own in dict.fromkeys(several) for n in numbers]
    for cell in cells:
        cell._check_words()
    digest = _digest(data)
    keys = [_key(cell, digest) for cell in cells]
    path = None if folder is None else as_path(folder) / SELECTED
    lean = replace(data, table=None)
    with holding(path) if path is not None else nullcontext():
        done = {} if path is None else read_rows(path)
        tasks = [
            joblib.delayed(_measure)(cell, lean, seed, key)
            for cell, key in zip(cells, keys, strict=True)
            if key not in done
        ]
        for row in rows_of(tasks, n_jobs, path):
            done[row["key"]] = row
            if on_row is not None:
                on_row(row)
    return _chosen([done[key] for key in keys])


def _numbers(asked: int | Iterable[int] | None, data: Prepared) -> list[int]:
    """The numbers of latents, ascending and each once."""
    n_features = len(data.features.names)
    if asked is None:
        first = max(components_of(data), 1)
        return list(range(max(1, first - _BELOW), min(n_features, first + _ABOVE) + 1))
    found = list(asked) if isinstance(asked, Iterable) and not isinstance(asked, str) else [asked]
    wrong = [own for own in found if not (is_whole(own, 1) and own <= n_features)]
    if wrong or not found:
        what = repr(wrong[0]) if wrong else "no number at all"
        raise SettingError(
            f"n_latents must be whole numbers from 1 to {n_features}, the number of features; got {what}. Pass for "
            f"example range(1, {min(n_features, 8) + 1})."
        )
    return sorted({int(own) for own in found})


def _measure(estimator: CGVAE, data: Prepared, seed: int, key: str) -> Row:
    """One row: a fit on the training rows, and one on each half of them."""
    started = time.perf_counter()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = fit_rows(estimator, data, seed).candidate
            parts = [data.train[own] for own in split_rows(data.groups[data.train], 0.5, 0)]
            halves = float("nan")
            if len(data.held_out) and all(map(len, parts)):
                latents = [fit_rows(estimator, data, seed, part=part).latents for part in parts]
                halves = float(agreement(np.stack(latents)).pairs[0, 1])
    finally:
        torch.set_num_threads(before)
    return {
        "key": key,
        "n_latents": found.n_latents,
        "sparsity": estimator.sparsity,
        "bounds": found.bounds.round(5).tolist(),
        "residual": asdict(found.residual),
        "r2": found.r2,
        "vanished": found.vanished,
        "agreement": found.agreement,
        "halves": halves,
        "seconds": round(time.perf_counter() - started, 1),
    }


def _candidate(row: Row) -> Candidate:
    residual = ResidualDependence.from_dict(row["residual"])
    repeated = float("nan") if row["agreement"] is None else row["agreement"]
    return Candidate(row["n_latents"], np.array(row["bounds"]), residual, row["r2"], row["vanished"], repeated)


def _chosen(rows: list[Row]) -> Selection:
    """The number by ``decide`` for each strength; of strengths as good as the best the one whose halves agree most."""
    choices: dict[float | str, tuple[Choice, Row]] = {}
    tables = []
    for strength in dict.fromkeys(row["sparsity"] for row in rows):
        own = [row for row in rows if row["sparsity"] == strength]
        choice = decide([_candidate(row) for row in own])
        choices[strength] = choice, next(row for row in own if row["n_latents"] == choice.n_latents)
        beside = pd.DataFrame(own)[["n_latents", "sparsity", "halves", "seconds"]]
        tables.append(choice.table.merge(beside, on="n_latents"))
    best = max((row for _, row in choices.values()), key=lambda row: np.mean(row["bounds"]) if row["bounds"] else 0.0)
    as_good = [row for _, row in choices.values() if row is best or _within(row, best)]
    kept = max(as_good, key=lambda row: -1.0 if row["halves"] is None else np.nan_to_num(row["halves"], nan=-1.0))
    choice = choices[kept["sparsity"]][0]
    table = pd.concat(tables, ignore_index=True)
    return Selection(choice.n_latents, kept["sparsity"], choice.reason, choice.decided, table)


def _within(row: Row, best: Row) -> bool:
    """The rule of one standard error, with that of the paired difference."""
    mean, error = gain(_candidate(row), _candidate(best))
    return mean <= error


def _digest(data: Prepared) -> str:
    """Of the rows, their domains and the split."""
    found = hashlib.sha256()
    for values in (data.rows.x, data.rows.observed, data.rows.codes, data.rows.values):
        if values is not None:
            found.update(np.ascontiguousarray(values.numpy()).tobytes())
    for index in (data.groups, data.order, data.train):
        found.update(index.tobytes())
    return found.hexdigest()


def _key(cell: CGVAE, digest: str) -> str:
    settings = {name: value for name, value in cell.get_params().items() if name not in ("verbose", "device")}
    told = json.dumps([__version__, digest, settings], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:16]
