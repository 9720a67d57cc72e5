"""The commands ``unmix bench`` and ``unmix select``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from unmix.bench.ood import OOD, run_ood, table_of
from unmix.bench.page import write_page
from unmix.bench.presets import PRESETS
from unmix.bench.run import ROWS, claim_rows, estimate_seconds, missing_runs, read_rows, run_study
from unmix.bench.selection import SELECTED, select
from unmix.bench.study import Row, Study, read_study
from unmix.cli.runs import annotated_columns, read_source
from unmix.data.tables import read_columns, write_table
from unmix.errors import SettingError, StorageError
from unmix.estimators.cgvae import CGVAE
from unmix.estimators.progress import run_bar
from unmix.files import check_replaceable, names_in
from unmix.forms import DataLike
from unmix.terminal import duration

_PAGE = "study.html"
_SELECT_PAGE, _TABLE = "select.html", "selection.csv"
_SCORES, _OOD_TABLE, _OOD_SEEDS = "scores.csv", "ood.csv", 20


def run_bench(
    study: str,
    out: Path,
    seeds: int | None,
    jobs: int,
    *,
    retry_failed: bool,
    estimate: bool,
    allow_import: bool = False,
) -> None:
    """Run the missing runs of a study and write its page and tables."""
    if study == "ood":
        _bench_ood(out, seeds, jobs, retry_failed=retry_failed)
        return
    chosen = _study(study, seeds, allow_import)
    _check_jobs(jobs)
    path = out / ROWS
    total, missing = len(chosen.runs()), missing_runs(chosen, read_rows(path), retry_failed=retry_failed)
    typer.echo(f"study {chosen.name}: {total} runs, {len(missing)} to do", err=True)
    _claim(out, ROWS, _PAGE, "settings.csv", "margins.csv")
    claim_rows(path)
    try:
        if missing and estimate:
            typer.echo(f"this will take about {duration(estimate_seconds(missing, jobs))}", err=True)
        with run_bar(total, total - len(missing)) as on_row:
            rows = run_study(chosen, out, n_jobs=jobs, retry_failed=retry_failed, on_row=on_row)
    except (KeyboardInterrupt, SystemExit) as stop:
        typer.echo(
            f"\nStopped. Finished runs are in {path}. Continue with:\n\n  {shlex.join(['unmix', *sys.argv[1:]])}",
            err=True,
        )
        raise typer.Exit(143 if isinstance(stop, SystemExit) else 130) from None
    tables = write_page(chosen, rows, out / _PAGE)
    for name in ("settings", "margins"):
        write_table(tables[name], out / f"{name}.csv")
    failed = [row["error"] for row in rows if row["error"] is not None]
    typer.echo(f"page    {out / _PAGE}\nrows    {path}\ntables  {out / 'settings.csv'}, {out / 'margins.csv'}")
    if failed:
        typer.echo(
            f"{len(failed)} of {len(rows)} runs ended in an error: see the page, or add --retry-failed. The first: "
            f"{failed[0]}",
            err=True,
        )


def _bench_ood(out: Path, seeds: int | None, jobs: int, *, retry_failed: bool) -> None:
    """The study of labels in new domains, which has tables of its own."""
    _check_jobs(jobs)
    _claim(out, OOD, _SCORES, _OOD_TABLE)
    n_seeds = _OOD_SEEDS if seeds is None else seeds
    try:
        found = run_ood(out, n_seeds, n_jobs=jobs, retry_failed=retry_failed, on_row=_say_ood)
    except (KeyboardInterrupt, SystemExit) as stop:
        typer.echo(
            f"\nStopped. Finished problems are in {out / OOD}. Continue with:\n\n"
            f"  {shlex.join(['unmix', *sys.argv[1:]])}",
            err=True,
        )
        raise typer.Exit(143 if isinstance(stop, SystemExit) else 130) from None
    table = table_of(found)
    write_table(found, out / _SCORES)
    write_table(table, out / _OOD_TABLE)
    typer.echo(table.round(3).to_string(index=False))
    typer.echo(f"\nrows    {out / OOD}\ntables  {out / _SCORES}, {out / _OOD_TABLE}")


def _say_ood(row: Row) -> None:
    what = row["error"] or f"{row['cpu_seconds']:.0f} s"
    typer.echo(f"problem {row['seed']}, {row['rows']} rows per domain: {what}", err=True)


def run_select(
    table: Path,
    domain: Sequence[str],
    feature: Sequence[str] | None,
    drop: Sequence[str],
    n_latents: Sequence[int] | None,
    sparsity: Sequence[float | str],
    settings: Mapping[str, Any],
    out: Path | None,
    jobs: int,
    *,
    layer: str | None = None,
) -> None:
    """Compare numbers of latents on the columns of a file; print the table, and write it with its page."""
    _check_jobs(jobs)
    if out is not None:
        _claim(out, SELECTED, _SELECT_PAGE, _TABLE)
    x: DataLike
    source = read_source(table, layer)
    if source is None:
        x, y, _ = read_columns(table, domain, feature, drop)
    else:
        x, y, _ = annotated_columns(source, layer, domain, feature, drop)
    try:
        found = select(
            x, y, n_latents=n_latents, sparsity=sparsity, estimator=CGVAE(**settings), n_jobs=jobs, folder=out
        )
    except (KeyboardInterrupt, SystemExit) as stop:
        kept = "nothing is kept without --out" if out is None else f"finished fits are in {out / SELECTED}"
        typer.echo(f"\nStopped; {kept}. Continue with:\n\n  {shlex.join(['unmix', *sys.argv[1:]])}", err=True)
        raise typer.Exit(143 if isinstance(stop, SystemExit) else 130) from None
    typer.echo(str(found))
    if out is not None:
        write_table(found.to_frame(), out / _TABLE)
        typer.echo(f"\npage    {found.report(out / _SELECT_PAGE)}\ntable   {out / _TABLE}\nrows    {out / SELECTED}")


def _claim(out: Path, rows: str, *names: str) -> None:
    """Refuse files of these names in ``out`` that cannot be replaced, or that no earlier run with ``rows`` wrote."""
    there = names_in(out, "a study")
    pages = [out / name for name in names]
    if rows not in there and (foreign := [page for page in pages if page.name in there]):
        raise StorageError(f"{foreign[0]} would be replaced, but there is no study in {out}. Choose another --out.")
    for page in pages:
        check_replaceable(page)


def _check_jobs(jobs: int) -> None:
    if not jobs:
        raise SettingError("--jobs must be a number of processes, or -1 for one on each core; got 0.")


def _study(name: str, n_seeds: int | None, allow_import: bool) -> Study:
    """A study of the package by name, or a study from a file."""
    if name in PRESETS:
        return PRESETS[name]() if n_seeds is None else PRESETS[name](n_seeds)
    if not name.endswith(".toml"):
        raise SettingError(
            f"There is no study {name!r}. Take one of {sorted([*PRESETS, 'ood'])}, or the path of a .toml file."
        )
    if n_seeds is not None:
        raise SettingError("A study file states its own seeds; leave --seeds out, or change the file.")
    return read_study(name, allow_import=allow_import)
