"""The command line: fit, transform, audit, plan, report, demo, bench."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from unmix import datasets
from unmix.audit.planning import plan as plan_design
from unmix.audit.planning import plan_typical
from unmix.audit.targets import intervention_targets
from unmix.bench.page import write_page
from unmix.bench.presets import PRESETS
from unmix.bench.run import ROWS, estimate_seconds, missing_runs, read_rows, run_study
from unmix.bench.study import Study, read_study
from unmix.bench.translation import DIGIT_SETTINGS, judge_translations, train_judges
from unmix.data.schema import FeatureSchema
from unmix.data.tables import read_support, read_table, split_columns
from unmix.errors import DataError, SchemaError, SettingError, StorageError, UnmixError
from unmix.estimators.base import LatentEstimator
from unmix.estimators.cggan import CGGAN
from unmix.estimators.cgvae import CGVAE
from unmix.estimators.progress import run_bar
from unmix.estimators.storage import DONE, load
from unmix.files import replacing
from unmix.version import __version__

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="unmix: latent factors behind data from several domains, and whether to believe them.",
)

CHECKPOINT = "checkpoint.safetensors"
INTERRUPTED = "interrupted.txt"
_REPORT = "report.html"
_LATENTS = "latents.csv"
_PAGE = "study.html"

_FIT_EXAMPLES = """Examples:

  unmix fit cells.csv --domain condition --latents 6 --out runs/cells

  unmix fit sensors.parquet --domain region --within site:region --continuous age --drop id --latents 8 --out runs/a

  unmix fit cells.csv --domain condition --latents 6 --out runs/cells --resume
"""

_BENCH_EXAMPLES = """Examples:

  unmix bench quick --out runs/quick

  unmix bench claim --seeds 5 --jobs 8 --out runs/claim

  unmix bench my_study.toml --out runs/mine
"""


_AUDIT_EXAMPLES = """Examples:

  unmix audit runs/cells

  unmix audit runs/cells new_cells.csv --json
"""

_PLAN_EXAMPLES = """Examples:

  unmix plan support.csv --domains 3

  unmix plan --density 0.3 --latents 6 --features 20 --domains 4 --json
"""


@app.command(epilog=_FIT_EXAMPLES)
def fit(
    table: Annotated[Path, typer.Argument(help="A .csv, .tsv, .parquet or .h5ad file.")],
    out: Annotated[Path, typer.Option(help="Run folder for model, tables and report.")],
    domain: Annotated[list[str] | None, typer.Option(help="Categorical domain column; may be repeated.")] = None,
    within: Annotated[list[str] | None, typer.Option(help="Nested domain column, as COLUMN:PARENT.")] = None,
    continuous: Annotated[list[str] | None, typer.Option(help="Continuous auxiliary column; may be repeated.")] = None,
    feature: Annotated[list[str] | None, typer.Option(help="Feature column. Default: all that are left.")] = None,
    drop: Annotated[list[str] | None, typer.Option(help="Column to leave out; may be repeated.")] = None,
    latents: Annotated[int, typer.Option(help="Number of latent factors.")] = 4,
    sparsity: Annotated[float, typer.Option(help="Weight of the sparse-mixing penalty.")] = 0.5,
    prior: Annotated[str, typer.Option(help="gaussian or spline.")] = "gaussian",
    decoder: Annotated[str, typer.Option(help="dense or feature.")] = "dense",
    restarts: Annotated[int, typer.Option(help="Starts trained together.")] = 6,
    epochs: Annotated[int | None, typer.Option(help="Most epochs. Default: 700 steps a latent, 5,600 or more.")] = None,
    missing: Annotated[
        str, typer.Option(help="error, or mask: leave missing entries out of the likelihood.")
    ] = "error",
    min_domain_rows: Annotated[int, typer.Option(help="Smallest domain that is accepted.")] = 10,
    seed: Annotated[int, typer.Option(help="Same seed, same result.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    verbose: Annotated[int, typer.Option(help="0, 1 or 2.")] = 1,
) -> None:
    """Learn latent factors from a table and write model, tables and report into a run folder."""
    nested = dict(_nested(item) for item in within or [])
    kinds = {
        **dict.fromkeys(domain or [], "categorical"),
        **{column: f"within {parent}" for column, parent in nested.items()},
        **dict.fromkeys(continuous or [], "continuous"),
    }
    _claim(out, overwrite=overwrite, resume=resume)
    x, y = split_columns(read_table(table), list(kinds), feature, drop or [])
    model = CGVAE(
        n_latents=latents,
        sparsity=sparsity,
        prior=prior,
        decoder=decoder,
        n_restarts=restarts,
        max_epochs=epochs,
        auxiliary=kinds or None,
        missing=missing,
        min_domain_rows=min_domain_rows,
        random_state=seed,
        device=device,
        verbose=verbose,
    )
    _train(model, x, y, out, resume=resume)
    _write_results(model, x, out)


@app.command(epilog="Example:\n\n  unmix transform runs/cells new_cells.csv --out latents.csv")
def transform(
    run: Annotated[Path, typer.Argument(help="Run folder of unmix fit, or of model.save.")],
    table: Annotated[Path, typer.Argument(help="A file with the model's feature columns; others come along.")],
    out: Annotated[Path, typer.Option(help="File to write: .csv or .parquet.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Latents of new rows; no domain is needed."""
    if out.exists() and not overwrite:
        raise StorageError(f"{out} exists. Choose another name, or add --overwrite.")
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise DataError(f"--out must end in .csv or .parquet; got {out.name}.")
    model = load(run, device=device)
    _needs_table(model, run)
    frame = read_table(table)
    features = _features(model, frame, table)
    others = frame.drop(columns=list(model.schema_.names)) if model.schema_.named else frame[[]]
    latents = pd.DataFrame(model.transform(features), columns=model.get_feature_names_out(), index=frame.index)
    _write_table(pd.concat([others, latents], axis=1), out)
    typer.echo(f"{len(frame)} rows × {latents.shape[1]} latents → {out}")


@app.command(epilog=_AUDIT_EXAMPLES)
def audit(
    run: Annotated[Path, typer.Argument(help="Run folder of unmix fit, or of model.save.")],
    table: Annotated[
        Path | None, typer.Argument(metavar="[DATA]", help="Rows to audit on. Default: those held out at fit.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Which latents the data identify, and why: a verdict for every latent and every condition of the theory."""
    model = load(run, device="cpu")
    if table is None:
        found = model.audit()
    else:
        _needs_table(model, run)
        frame = read_table(table)
        x, columns = _features(model, frame, table), [column.name for column in model.domain_schema_.columns]
        lacking = [name for name in columns if name not in frame.columns]
        if lacking:
            raise SchemaError(f"{table} lacks the domain columns {lacking}, with which the model was fitted. Add them.")
        if not model.schema_.named:
            x = frame.drop(columns=columns).to_numpy()
        found = model.audit(x, frame[columns] if columns else None)
    typer.echo(found.to_json() if as_json else str(found))


@app.command(epilog=_PLAN_EXAMPLES)
def plan(
    support: Annotated[
        Path | None, typer.Argument(help="Proposed support: .csv of 0 and 1, features × latents, header: latent names.")
    ] = None,
    domains: Annotated[int, typer.Option(help="Domains in which the latents change.")] = 1,
    density: Annotated[float | None, typer.Option(help="Instead of a file: share of entries that are 1.")] = None,
    latents: Annotated[int, typer.Option(help="With --density: number of latents.")] = 4,
    features: Annotated[int, typer.Option(help="With --density: number of features.")] = 8,
    seed: Annotated[int, typer.Option(help="With --density: seed of the drawn supports.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Before any data exist: which latents would a support and a number of domains identify?"""
    said = ""
    if (support is None) == (density is None):
        raise SettingError("Pass either the file of a support or --density, and not both.")
    if support is not None:
        found = plan_design(read_support(support), domains)
    else:
        found, needs = plan_typical(float(density or 0.0), latents, features, domains, random_state=seed)
        low, middle, high = (int(np.quantile(needs, q, method="inverted_cdf")) for q in (0.1, 0.5, 0.9))
        said = (
            f"{len(needs)} random supports of density {density}: they need {low} to {high} domains (median {middle}); "
            f"{(needs <= domains).mean():.0%} need no more than {domains}. A typical one:\n\n"
        )
    typer.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if as_json else f"{said}{found}")


@app.command(epilog="Example:\n\n  unmix report runs/cells --out cells.html")
def report(
    run: Annotated[Path, typer.Argument(help="Run folder of unmix fit, or of model.save.")],
    out: Annotated[Path | None, typer.Option(help="File to write. Default: report.html in the run folder.")] = None,
) -> None:
    """Write the report of a fitted model again."""
    model = load(run, device="cpu")
    target = model.report(out or run / _REPORT)
    typer.echo(f"report → {target}")


@app.command(epilog="Examples:\n\n  unmix demo --out unmix-demo\n\n  unmix demo --images --out unmix-demo-images")
def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("unmix-demo"),
    latents: Annotated[int, typer.Option(help="Number of latent factors.")] = 4,
    epochs: Annotated[int | None, typer.Option(help="Most epochs. Default: 700 steps a latent, 5,600 or more.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same result.")] = 0,
    images: Annotated[bool, typer.Option("--images", help="Handwritten digits in four pairs of colours.")] = False,
    steps: Annotated[int, typer.Option(help="With --images: adversarial steps.")] = DIGIT_SETTINGS["max_steps"],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
) -> None:
    """The whole way on protein signalling under nine conditions (Sachs et al. 2005), or on images, in minutes."""
    _claim(out, overwrite=overwrite, resume=resume)
    if images:
        _demo_images(out, steps, seed, resume=resume)
        return
    data = datasets.load_sachs()
    typer.echo(data.description)
    x = pd.DataFrame(data.x, columns=data.feature_names)
    model = CGVAE(n_latents=latents, max_epochs=epochs, random_state=seed)
    _train(model, x, pd.DataFrame({"condition": data.domains}), out, resume=resume)
    found = intervention_targets(
        model.description_, model.domains_, data.feature_names, data.targets, reference="cd3cd28"
    )
    _write_results(model, x, out, {"targets.csv": found})
    typer.echo("\nInterventions with a known target, against condition cd3cd28:")
    typer.echo(found.round(2).to_string(index=False))
    typer.echo(
        f"{int(found['agrees'].sum())} of {len(found)} move the latent that drives their target most "
        f"(chance: 1 in {latents})."
    )


@app.command(epilog=_BENCH_EXAMPLES)
def bench(
    study: Annotated[str, typer.Argument(help="quick, targets, claim, violation, scale, or a study file (.toml).")],
    out: Annotated[Path, typer.Option(help="Folder for rows, tables and page; finished runs in it are kept.")],
    seeds: Annotated[int | None, typer.Option(help="Data seeds of a study that comes with the package.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes. -1: one for each core.")] = -1,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run again what ended in an error.")] = False,
    estimate: Annotated[bool, typer.Option(help="Probe first how long it will take.")] = True,
) -> None:
    """Compare methods on generated problems with a known answer; goes on where it stopped when started again."""
    chosen = _study(study, seeds)
    path = out / ROWS
    total, missing = len(chosen.runs()), missing_runs(chosen, read_rows(path), retry_failed=retry_failed)
    typer.echo(f"study {chosen.name}: {total} runs, {len(missing)} to do", err=True)
    if missing and estimate:
        typer.echo(f"this will take about {_minutes(estimate_seconds(missing, jobs))}", err=True)
    try:
        with run_bar(total, total - len(missing)) as on_row:
            rows = run_study(chosen, out, n_jobs=jobs, retry_failed=retry_failed, on_row=on_row)
    except KeyboardInterrupt:
        typer.echo(f"\nStopped. Finished runs are in {path}; start the same command to go on.", err=True)
        raise typer.Exit(130) from None
    tables = write_page(chosen, rows, out / _PAGE)
    for name in ("settings", "margins"):
        _write_table(tables[name], out / f"{name}.csv")
    failed = sum(row["error"] is not None for row in rows)
    typer.echo(f"page    {out / _PAGE}\nrows    {path}\ntables  {out / 'settings.csv'}, {out / 'margins.csv'}")
    if failed:
        typer.echo(f"{failed} of {len(rows)} runs ended in an error: see the page, or add --retry-failed.", err=True)


@app.callback(invoke_without_command=True)
def about(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"unmix {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; what went wrong is one message and an exit code, never a traceback."""
    try:
        app(standalone_mode=True)
    except UnmixError as error:
        typer.echo(f"unmix: {error}", err=True)
        sys.exit(2)


def _train(model: LatentEstimator | CGGAN, x: Any, y: Any, out: Path, *, resume: bool) -> None:
    checkpoint = out / CHECKPOINT
    try:
        model.fit(x, y, checkpoint=checkpoint, resume=resume)
    except KeyboardInterrupt:
        if not checkpoint.exists():
            typer.echo("\nStopped before training began; nothing was written.", err=True)
            raise typer.Exit(130) from None
        words = [word for word in sys.argv[1:] if word not in ("--resume", "--overwrite")]
        command = shlex.join(["unmix", *words, "--resume"])
        _attempt(lambda: (out / INTERRUPTED).write_text(f"This run was interrupted. Go on with:\n\n{command}\n"))
        typer.echo(f"\nStopped. What is done so far is in {checkpoint}. Go on with:\n\n  {command}", err=True)
        raise typer.Exit(130) from None


def _demo_images(out: Path, steps: int, seed: int, *, resume: bool) -> None:
    data = datasets.load_digits_two_colours(16)
    images, domains = data.images, data.domains
    held_out = np.arange(len(images)) % 5 == 0
    typer.echo(f"scikit-learn's handwritten digits, {len(images)} images of 16 × 16 pixels in four pairs of colours")
    model = CGGAN(**{**DIGIT_SETTINGS, "max_steps": steps, "random_state": seed})
    _train(model, images[~held_out], domains[~held_out], out, resume=resume)
    content = data.factors["digit"].to_numpy()
    judges = train_judges(images, content, domains, held_out)
    found = judge_translations(model, judges, images[held_out], content[held_out], domains[held_out])
    _write_results(
        model,
        images,
        out,
        {"translations.csv": found},
        lambda path: model.report(path, images[held_out], domains[held_out]),
    )
    typer.echo("\nHeld-out images translated: share whose digit, and whose target colours, a classifier reads:")
    typer.echo(found.round(3).to_string(index=False))
    typer.echo(f"Real held-out images: digit {judges.real_content:.3f}, colours {judges.real_style:.3f}.")


def _write_results(
    model: Any,
    x: Any,
    out: Path,
    tables: dict[str, pd.DataFrame] | None = None,
    write_report: Callable[[Path], Any] | None = None,
) -> None:
    model.save(out, overwrite=True)
    latents = pd.DataFrame(model.transform(x), columns=model.get_feature_names_out())
    written = {_LATENTS: latents, **(tables or {})}
    for name, table in written.items():
        _write_table(table, out / name)
    (write_report or model.report)(out / _REPORT)
    for name in (CHECKPOINT, INTERRUPTED):
        (out / name).unlink(missing_ok=True)
    saved = ["mixing.csv", "effects.csv", "restarts.csv"] if isinstance(model, LatentEstimator) else []
    places = ", ".join(str(out / name) for name in [*saved, *written])
    typer.echo(f"\nreport  {out / _REPORT}\nmodel   {out}\ntables  {places}")


def _claim(out: Path, *, overwrite: bool, resume: bool) -> None:
    """Refuse a folder that holds something, unless told to replace it or to go on."""
    unfinished = (out / CHECKPOINT).is_file()
    if resume:
        if not unfinished:
            raise StorageError(f"There is no interrupted run in {out}. Start without --resume.")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not overwrite:
        what = "an interrupted run: add --resume to go on with it" if unfinished else "files"
        raise StorageError(f"{out} holds {what}. Choose another --out, or add --overwrite to replace it.")
    if overwrite and out.is_dir() and any(out.iterdir()) and not (unfinished or (out / DONE).is_file()):
        raise StorageError(f"{out} holds files but no run of unmix, so it is not replaced. Choose another --out.")
    if overwrite:
        for name in (CHECKPOINT, INTERRUPTED):
            (out / name).unlink(missing_ok=True)


def _needs_table(model: Any, run: Path) -> None:
    if not isinstance(model.schema_, FeatureSchema):
        raise SchemaError(f"{run} was fitted on images, not on a table. Load it in Python and pass it an array.")


def _features(model: LatentEstimator, frame: pd.DataFrame, path: Path) -> Any:
    """The columns that the model was fitted on."""
    if not model.schema_.named:
        return frame.to_numpy()
    lacking = [name for name in model.schema_.names if name not in frame.columns]
    if lacking:
        raise SchemaError(f"{path} lacks the feature columns {lacking}, on which the model was fitted. Add them.")
    return frame[list(model.schema_.names)]


def _study(name: str, n_seeds: int | None) -> Study:
    """A study of the package by name, or one from a file."""
    if name in PRESETS:
        return PRESETS[name]() if n_seeds is None else PRESETS[name](n_seeds)
    if not name.endswith(".toml"):
        raise SettingError(f"There is no study {name!r}. Take one of {sorted(PRESETS)}, or the path of a .toml file.")
    if n_seeds is not None:
        raise SettingError("A study file states its own seeds; leave --seeds out, or change the file.")
    return read_study(Path(name))


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def _nested(item: str) -> tuple[str, str]:
    column, separator, parent = item.partition(":")
    if not (column and separator and parent):
        raise DataError(f"--within takes COLUMN:PARENT, such as site:region; got {item!r}.")
    return column, parent


def _write_table(frame: pd.DataFrame, path: Path) -> None:
    write: Callable[..., Any] = frame.to_parquet if path.suffix.lower() == ".parquet" else frame.to_csv
    with replacing(path) as beside:
        write(beside, index=False)


def _attempt(write: Callable[[], Any]) -> None:
    """A note that may fail to be written without hiding what it is about."""
    try:
        write()
    except OSError as error:
        typer.echo(f"({error})", err=True)


if __name__ == "__main__":
    main()
