"""The command line: fit, select, transform, adapt, translate, audit, plan, report, demo, bench.

This module defines commands and options; the code of a command is imported when it runs, so that ``--help`` is fast.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from unmix.cli.options import (
    Continuous,
    Device,
    Domain,
    Drop,
    Feature,
    Jobs,
    Json,
    Missing,
    OnError,
    Overwrite,
    Resume,
    Run,
    Seed,
    Within,
    given,
    in_options,
    kinds_of,
    number_of_latents,
    numbers_of_latents,
    path_argument,
    path_option,
    refuse,
)
from unmix.errors import DataError, UnmixError
from unmix.terminal import printable, printable_output
from unmix.version import __version__

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    # Keep escape sequences: one that looks like a colour is part of a name, and is shown as such.
    context_settings={"color": True},
    help="unmix: latent factors behind data from several domains, and whether they are identifiable.",
)

_FIT_EXAMPLES = """Examples:

  unmix fit cells.csv --domain condition --latents 6 --out runs/cells

  unmix fit sensors.parquet --domain region --within site:region --continuous age --drop id --latents 8 --out runs/a

  unmix fit cells.csv --domain condition --latents 6 --out runs/cells --resume

  unmix fit cells.h5ad --domain batch --layer counts --write cells_out.h5ad --latents 8 --out runs/h5ad

  unmix fit photos --size 64 --mode RGB --out runs/photos
"""

_SELECT_EXAMPLES = """Examples:

  unmix select cells.csv --domain condition --latents 2-8 --out runs/numbers --jobs -1
"""

_TRANSFORM_EXAMPLES = """Examples:

  unmix transform runs/cells new_cells.csv --out latents.csv

  unmix transform runs/cells new_cells.csv --out latents.csv --novelty

  unmix transform runs/photos new_photos --out latents.csv
"""

_ADAPT_EXAMPLES = """Examples:

  unmix adapt runs/cells new_cells.csv --domain condition --out runs/cells-and-new

  unmix adapt runs/a new_site.csv --domain region=north --domain site=K --out runs/a-and-K
"""

_BENCH_EXAMPLES = """Examples:

  unmix bench quick --out runs/quick

  unmix bench claim --seeds 5 --jobs 8 --out runs/claim

  unmix bench ood --jobs 8 --out runs/ood

  unmix bench my_study.toml --out runs/mine --allow-import
"""


_AUDIT_EXAMPLES = """Examples:

  unmix audit runs/cells

  unmix audit runs/cells new_cells.csv --json
"""

_PLAN_EXAMPLES = """Examples:

  unmix plan support.csv --domains 3

  unmix plan support.csv --domains 11 --rows 45 --noise 0.3 --shift 0.3 --scale 0.15

  unmix plan --density 0.3 --latents 6 --features 20 --domains 4 --json
"""


@app.command(epilog=_FIT_EXAMPLES)
def fit(
    table: Annotated[
        Path,
        path_argument(help="A .csv, .tsv, .parquet, .h5ad or .zarr; for images a folder, .zip or list."),
    ],
    out: Annotated[Path, path_option(help="Run folder for model, tables and report.")],
    domain: Domain = None,
    within: Within = None,
    continuous: Continuous = None,
    feature: Feature = None,
    drop: Drop = None,
    latents: Annotated[
        str | None,
        typer.Option(metavar="NUMBER", help="Number of latent factors, or auto (default). CGVAEImages: 8, CGGAN: 16."),
    ] = None,
    sparsity: Annotated[float | None, typer.Option(help="Weight of the sparse-mixing penalty.")] = None,
    prior: Annotated[str | None, typer.Option(help="auto, gaussian, student or spline.")] = None,
    decoder: Annotated[str | None, typer.Option(help="auto, dense, feature or invertible.")] = None,
    likelihood: Annotated[
        str | None,
        typer.Option(help="gaussian (default), student, negative_binomial, poisson, bernoulli, or auto."),
    ] = None,
    size_factors: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Sizes of rows of counts. Default: their totals."),
    ] = None,
    nuisance: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Technical batches, whose effects are not latents.")
    ] = None,
    dispersion: Annotated[
        str | None, typer.Option(help="Of negative_binomial: one for each feature (default), or by domain: domain.")
    ] = None,
    restarts: Annotated[int | None, typer.Option(help="Number of starts.")] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Maximum epochs. Default: 330 steps per latent (CGVAEImages: 1,400)."),
    ] = None,
    missing: Missing = None,
    layer: Annotated[str | None, typer.Option(help="Of .h5ad and .zarr: the layer to read. Default: X.")] = None,
    write: Annotated[
        Path | None, path_option(help="Of .h5ad and .zarr: write the data with latents here, .h5ad or .zarr.")
    ] = None,
    min_domain_rows: Annotated[int, typer.Option(help="Minimum number of rows per domain.")] = 10,
    method: Annotated[str | None, typer.Option(help="Images: ImageTranslator (default), CGVAEImages or CGGAN.")] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Images: scale to this side, from 16 to 256. CGGAN: 16, 32, 64, 128.")
    ] = None,
    mode: Annotated[str | None, typer.Option(help="Images: convert to L (grey) or RGB.")] = None,
    on_error: OnError = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="ImageTranslator and CGGAN: training steps."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    resume: Resume = False,
    verbose: Annotated[int, typer.Option(help="0, 1 or 2.")] = 1,
) -> None:
    """Learn latent factors from a table, or from images, and write model, tables and report into a run folder."""
    from unmix.cli.runs import fit_table
    from unmix.data.image_files import holds_images

    kinds = kinds_of(domain, within, continuous)
    settings = given(
        n_latents=None if latents is None else number_of_latents(latents),
        sparsity=sparsity,
        prior=prior,
        decoder=decoder,
        likelihood=likelihood,
        size_factors=size_factors,
        nuisance=nuisance,
        dispersion=dispersion,
        n_restarts=restarts,
        max_epochs=epochs,
        max_steps=steps,
        auxiliary=kinds or None,
        missing=missing,
        min_domain_rows=min_domain_rows,
        random_state=seed,
        device=device,
        verbose=verbose,
    )
    reading = given(size=size, mode=mode, on_error=on_error)
    if not table.exists():
        raise DataError(f"There is no file at {table}, and no folder of images. Check the path.")
    if holds_images(table):
        refuse("images take their domains from their folders", domain=kinds, feature=feature, drop=drop)
        refuse("it is for tables", layer=layer, write=write)
        refuse(
            "pixels are continuous and on one scale",
            likelihood=likelihood,
            size_factors=size_factors,
            nuisance=nuisance,
            dispersion=dispersion,
        )
        from unmix.cli.images import fit_images

        fit_images(table, out, method or "ImageTranslator", reading, settings, overwrite=overwrite, resume=resume)
    else:
        refuse(f"{table} does not hold images", method=method, steps=steps, **reading)
        columns = list(kinds), feature, drop or []
        fit_table(table, out, *columns, settings, layer=layer, write=write, overwrite=overwrite, resume=resume)


@app.command(epilog=_SELECT_EXAMPLES)
def select(
    table: Annotated[Path, path_argument(metavar="DATA", help="A .csv, .tsv, .parquet or .h5ad file.")],
    domain: Domain = None,
    within: Within = None,
    continuous: Continuous = None,
    feature: Feature = None,
    drop: Drop = None,
    layer: Annotated[str | None, typer.Option(help="Of .h5ad and .zarr: the layer to read. Default: X.")] = None,
    latents: Annotated[
        str | None, typer.Option(help="Numbers to compare: 2-8, or 2,3,5. Default: around the number of components.")
    ] = None,
    sparsity: Annotated[
        list[float] | None, typer.Option(help="Weight of the sparse-mixing penalty; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, path_option(help="Folder for rows, table and report; finished fits in it are kept.")
    ] = None,
    jobs: Jobs = 1,
    restarts: Annotated[int | None, typer.Option(help="Starts of each fit.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Maximum epochs of each fit.")] = None,
    missing: Missing = None,
    seed: Seed = 0,
) -> None:
    """Choose the number of latents: full fits, compared without known true factors."""
    from unmix.cli.studies import run_select

    kinds = kinds_of(domain, within, continuous)
    settings = given(
        n_restarts=restarts,
        max_epochs=epochs,
        auxiliary=kinds or None,
        missing=missing,
        random_state=seed,
    )
    numbers = None if latents is None else numbers_of_latents(latents)
    run_select(table, list(kinds), feature, drop or [], numbers, sparsity or ["auto"], settings, out, jobs, layer=layer)


@app.command(epilog=_TRANSFORM_EXAMPLES)
def transform(
    run: Run,
    table: Annotated[
        Path,
        path_argument(help="A file with the model's feature columns, or a folder of images."),
    ],
    out: Annotated[Path, path_option(help="File to write: .csv or .parquet.")],
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    on_error: OnError = None,
    novelty: Annotated[
        bool,
        typer.Option("--novelty", help="Tables: also write how far rows lie outside the data of the fit."),
    ] = False,
) -> None:
    """Write the latents of new rows; their domains are not needed."""
    from unmix.cli.images import transform_file

    transform_file(run, table, out, device=device, overwrite=overwrite, on_error=on_error, novelty=novelty)


@app.command(epilog=_ADAPT_EXAMPLES)
def adapt(
    run: Annotated[Path, path_argument(help="Run folder of a table. It is not changed.")],
    table: Annotated[Path, path_argument(help="Rows of the new domains only, at least 10 of each.")],
    out: Annotated[Path, path_option(help="Folder for the run that knows the new domains too.")],
    domain: Annotated[
        list[str] | None,
        typer.Option(help="Column of the file that holds the domain, or COLUMN=VALUE; may be repeated."),
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Add a new domain to a fitted model: learns only its prior, from few rows."""
    from unmix.cli.new_domains import adapt_run

    adapt_run(run, table, domain or [], out, overwrite=overwrite, device=device)


@app.command(epilog="Example:\n\n  unmix translate runs/photos summer_photos --to winter --out as_winter")
def translate(
    run: Annotated[Path, path_argument(help="Run folder of unmix fit on images, or of model.save.")],
    images: Annotated[Path, path_argument(help="Images in one folder per domain, a .zip of them, or a list.")],
    to: Annotated[str, typer.Option(help="The target domain.")],
    out: Annotated[Path, path_option(help="New folder for the PNG files, each under the path of its image.")],
    device: Device = "auto",
    on_error: OnError = None,
) -> None:
    """Write images as they would be in another domain."""
    from unmix.cli.images import translate_images

    translate_images(run, images, to, out, device=device, on_error=on_error)


@app.command(epilog=_AUDIT_EXAMPLES)
def audit(
    run: Run,
    table: Annotated[
        Path | None,
        path_argument(
            metavar="[DATA]",
            help="Rows to audit on. Default: those held out at fit, and training rows of large domains.",
        ),
    ] = None,
    as_json: Json = False,
    leave_one_out: Annotated[
        bool,
        typer.Option("--leave-one-out", help="Also fit again without each domain in turn; needs the rows of the fit."),
    ] = False,
) -> None:
    """Print which latents the data identify, with a verdict for every latent and every condition of the theory."""
    from unmix.cli.runs import audit_run

    audit_run(run, table, as_json=as_json, leave_one_out=leave_one_out)


@app.command(epilog=_PLAN_EXAMPLES)
def plan(
    support: Annotated[
        Path | None, path_argument(help="Proposed support: .csv of 0 and 1, features × latents, header: latent names.")
    ] = None,
    domains: Annotated[int, typer.Option(help="Domains in which the latents change.")] = 1,
    density: Annotated[float | None, typer.Option(help="Instead of a file: share of entries that are 1.")] = None,
    latents: Annotated[int, typer.Option(help="With --density: number of latents.")] = 4,
    features: Annotated[int, typer.Option(help="With --density: number of features.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="With --density: seed of the drawn supports.")] = 0,
    rows: Annotated[int | None, typer.Option(help="Rows per domain. Assumed: 100.")] = None,
    noise: Annotated[
        float | None, typer.Option(help="Noise relative to the variation by latents. Assumed: 0.3.")
    ] = None,
    shift: Annotated[
        float | None, typer.Option(help="Variation of means, in spreads of a latent. Assumed: 0.5.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="Variation of log spreads between domains. Assumed: 0.25.")
    ] = None,
    simulations: Annotated[int, typer.Option(help="Experiments to simulate; 0: the count alone.")] = 20,
    as_json: Json = False,
) -> None:
    """Print which latents a planned support and number of domains would identify, before any data exist."""
    from unmix.cli.runs import plan_support

    experiment = {"rows": rows, "noise": noise, "shift": shift, "scale": scale, "simulations": simulations}
    plan_support(support, domains, density, latents, features, seed, experiment, as_json=as_json)


@app.command(epilog="Example:\n\n  unmix report runs/cells --out cells.html")
def report(
    run: Run,
    out: Annotated[Path | None, path_option(help="File to write. Default: report.html in the run folder.")] = None,
) -> None:
    """Write the report of a fitted model again; without images for image models, since a run does not keep them."""
    from unmix.cli.runs import report_run

    report_run(run, out)


@app.command(epilog="Examples:\n\n  unmix demo --out unmix-demo\n\n  unmix demo --images --out unmix-demo-images")
def demo(
    out: Annotated[Path, path_option(help="Run folder.")] = Path("unmix-demo"),
    latents: Annotated[int | None, typer.Option(help="Number of latent factors. Default: 4.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Maximum epochs. Default: 330 steps per latent.")] = None,
    seed: Seed = 0,
    images: Annotated[bool, typer.Option("--images", help="Characters in six typefaces.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="With --images: training steps.")] = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
) -> None:
    """Fit and report on protein signalling under nine conditions (Sachs et al. 2005), or on images, in minutes."""
    from unmix.cli.runs import demo_images_run, demo_run

    if images:
        refuse("only the demo without --images uses them", latents=latents, epochs=epochs)
        demo_images_run(out, steps, seed, overwrite=overwrite, resume=resume)
    else:
        refuse("only the demo with --images uses it", steps=steps)
        demo_run(out, latents, epochs, seed, overwrite=overwrite, resume=resume)


@app.command(epilog=_BENCH_EXAMPLES)
def bench(
    study: Annotated[
        str, typer.Argument(help="quick, targets, claim, violation, penalty, scale, ood, or a study file (.toml).")
    ],
    out: Annotated[Path, path_option(help="Folder for rows, tables and report; finished runs in it are kept.")],
    seeds: Annotated[int | None, typer.Option(min=1, help="Data seeds of a study that comes with the package.")] = None,
    jobs: Jobs = -1,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed fits again.")] = False,
    estimate: Annotated[bool, typer.Option(help="First estimate how long it will take.")] = True,
    allow_import: Annotated[
        bool,
        typer.Option("--allow-import", help="Import estimators that a study file names; this runs their code."),
    ] = False,
) -> None:
    """Compare methods on generated problems with known latents; resumes when started again."""
    from unmix.cli.studies import run_bench

    run_bench(study, out, seeds, jobs, retry_failed=retry_failed, estimate=estimate, allow_import=allow_import)


@app.callback(invoke_without_command=True)
def about(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    context.with_resource(printable_output())
    if version:
        typer.echo(f"unmix {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; an error is one message and an exit code, never a traceback."""
    warnings.showwarning = _show_warning
    with printable_output():
        try:
            app(standalone_mode=True)
        except UnmixError as error:
            typer.echo(printable(f"unmix: {in_options(str(error))}"), err=True)
            sys.exit(2)


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    # While a progress bar is drawn, rich handles the output and would interpret control sequences.
    typer.echo(printable(f"{category.__name__}: {message}"), err=True)
