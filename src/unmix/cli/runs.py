"""The commands on run folders: fit, transform, audit, plan, report, demo."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from unmix import datasets
from unmix.audit.planning import plan, plan_typical
from unmix.audit.targets import intervention_targets
from unmix.bench.simple_translators import SIMPLE
from unmix.bench.translation import compare_translations, train_judges
from unmix.data.annotated import Annotated, annotated, is_store
from unmix.data.columns import listed
from unmix.data.images import ImageTable, of_images
from unmix.data.tables import (
    candidates,
    read_annotated,
    read_columns,
    read_support,
    read_table,
    with_latents,
    write_table,
)
from unmix.errors import DataError, SchemaError, SettingError, StorageError
from unmix.estimators.base import LatentEstimator
from unmix.estimators.cggan import CGGAN
from unmix.estimators.cgvae import CGVAE
from unmix.estimators.features import ImageClassifier
from unmix.estimators.loading import load
from unmix.estimators.translator import ImageTranslator
from unmix.files import check_replaceable, names_in
from unmix.fits.storage import DONE, FILES, SELECTION, add_files, holds_model, refuse_foreign
from unmix.forms import AnnDataLike, DataLike, LabelsLike
from unmix.scverse import add_latents, check_store
from unmix.scverse import write as write_store
from unmix.train.checkpoint import is_checkpoint

CHECKPOINT = "checkpoint.safetensors"
INTERRUPTED = "interrupted.txt"
_INTERRUPTED = "This run was interrupted. Continue with"
_REPORT = "report.html"
_LATENTS = "latents.csv"
_DEMO_LATENTS = 4
_DEMO_JITTERS, _DEMO_HELD_OUT, _DEMO_STEPS = 6, 2, 1200
_JUDGED_JITTERS, _JUDGE_EPOCHS = 12, 15


def fit_table(
    table: Path,
    out: Path,
    domain: Sequence[str],
    feature: Sequence[str] | None,
    drop: Sequence[str],
    settings: Mapping[str, Any],
    *,
    layer: str | None,
    write: Path | None,
    overwrite: bool,
    resume: bool,
) -> None:
    """Fit on the columns of a file and write the run folder, and with ``write`` the file again with its latents."""
    source = _store(table, layer, write, overwrite=overwrite)
    claim(out, overwrite=overwrite, resume=resume)
    x: pd.DataFrame | Annotated
    if source is None:
        x, y, others = read_columns(table, domain, feature, drop)
    else:
        x, y, others = annotated_columns(source, layer, domain, feature, drop)
    model = CGVAE(**{"n_latents": "auto", **settings})
    train(model, x, y, out, resume=resume)
    write_results(model, x, out, beside=others)
    if write is not None:
        add_latents(source, model)
        typer.echo(f"store   {write_store(source, write)}")


def _store(table: Path, layer: str | None, write: Path | None, *, overwrite: bool) -> AnnDataLike | None:
    """AnnData of a file, after a check of the output path; None for any other table."""
    if write is not None and check_store(write).exists() and not overwrite:
        raise StorageError(f"{write} exists. Choose another --write, or add --overwrite to replace it.")
    source = read_source(table, layer)
    if source is None and write is not None:
        raise SettingError(f"--write is for .h5ad and .zarr; {table.name} is neither. Leave it out.")
    return source


def read_source(table: Path, layer: str | None) -> AnnDataLike | None:
    """AnnData of a file; None for any other table, which has no ``layer``."""
    if is_store(table):
        return read_annotated(table)
    if layer is not None:
        raise SettingError(f"--layer is for .h5ad and .zarr; {table.name} is neither. Leave it out.")
    return None


def annotated_columns(
    source: AnnDataLike, layer: str | None, domain: Sequence[str], feature: Sequence[str] | None, drop: Sequence[str]
) -> tuple[Annotated, pd.DataFrame | None, pd.DataFrame]:
    """``read_columns`` for AnnData: the variables stay one matrix, sparse if it is sparse."""
    x = annotated(source, layer)
    obs = _observations(x)
    for name in domain:
        if name not in x.obs:
            raise DataError(
                f"There is no column {name!r} in .obs; it has {listed([*source.obs.columns], 20) or 'none'}."
            )
    known = {*x.names, *obs}
    lost = [name for name in drop if name not in known]
    if lost:
        raise DataError(f"There is no column {lost[0]!r}, neither in .obs nor in .var_names.")
    if feature or set(drop) & set(x.names):
        x = x.aligned([name for name in feature or x.names if name not in {*drop}])
    return x, x.obs[[*domain]] if domain else None, obs


def _observations(x: Annotated) -> pd.DataFrame:
    """``.obs`` with the names of the rows as first column."""
    obs = x.obs.copy()
    name = str(obs.index.name or "obs_names")
    obs.insert(0, name if name not in obs else f"{name} of the rows", obs.index.astype(str))
    return obs.reset_index(drop=True)


def beside_features(frame: pd.DataFrame, x: pd.DataFrame | Annotated) -> pd.DataFrame:
    """The columns of a file that are not features ``x``; for AnnData all columns of ``.obs``."""
    return frame if isinstance(x, Annotated) else frame.drop(columns=list(x.columns))


def transform_table(model: BaseEstimator, run: Path, table: Path, out: Path, *, novelty: bool = False) -> None:
    """Write the latents of a file's rows beside its other columns, on request with how novel each row is."""
    _needs_table(model, run)
    frame, x = _read_for(model, table)
    latents, names = _latents(model, x)
    others = beside_features(frame, x)
    written = with_latents(others, latents, names)
    found = None
    if novelty:
        domains = [column.name for column in model.domain_schema_.columns if column.name in frame.columns]
        found = model.novelty(_as_fitted(model, x), frame[domains] if domains else None)
        beside = found.rows[["latents_p", "inside", "mixing_p", "feature"]].rename(
            columns={"feature": "mixing_feature"}
        )
        if twice := sorted(set(beside) & set(written)):
            raise SchemaError(f"{table} has columns {twice}, which --novelty writes. Rename them.")
        written = pd.concat([written, beside], axis=1)
    write_table(written, out)
    typer.echo(f"{len(frame)} rows × {len(names)} latents → {out}")
    if found is not None:
        typer.echo(str(found))


def audit_run(run: Path, table: Path | None, *, as_json: bool, leave_one_out: bool = False) -> None:
    """Print the audit of a run, on its own rows or on those of a file."""
    model = load(run, device="cpu")
    if table is None:
        if not isinstance(model, LatentEstimator):
            raise SettingError(
                f"{run} holds a {type(model).__name__}, which keeps no rows. Pass a file of rows to audit on."
            )
        if leave_one_out:
            raise SettingError("--leave-one-out fits again without domains: pass the file that the run was fitted on.")
        found = model.audit()
    else:
        _needs_table(model, run)
        frame, x = _read_for(model, table)
        columns = [column.name for column in model.domain_schema_.columns]
        lacking = [name for name in columns if name not in frame.columns]
        if lacking:
            raise SchemaError(f"{table} lacks the domain columns {lacking}, with which the model was fitted. Add them.")
        y = frame[columns].set_axis(x.obs.index if isinstance(x, Annotated) else frame.index) if columns else None
        if leave_one_out and not isinstance(model, LatentEstimator):
            raise SettingError(f"{run} holds a {type(model).__name__}, which --leave-one-out cannot fit again.")
        words = {"leave_one_out": True} if leave_one_out else {}
        found = model.audit(_as_fitted(model, x), y, **words)
    # Pure ASCII, since a console may escape other characters in a way that is not valid JSON.
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else str(found))


def plan_support(
    support: Path | None,
    domains: int,
    density: float | None,
    latents: int,
    features: int,
    seed: int,
    experiment: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """Print which latents a support, read or drawn at random, identifies."""
    said = ""
    if (support is None) == (density is None):
        raise SettingError("Pass either the file of a support or --density, and not both.")
    if support is not None:
        found = plan(read_support(support), domains, **experiment)
    else:
        sizes = float(density or 0.0), latents, features, domains
        found, needs = plan_typical(*sizes, random_state=seed, **experiment)
        low, middle, high = (int(np.quantile(needs, q, method="inverted_cdf")) for q in (0.1, 0.5, 0.9))
        said = (
            f"{len(needs)} random supports, each entry 1 with probability {density}, at least one in each row: "
            f"they need {low} to {high} domains (median {middle}); {(needs <= domains).mean():.0%} need no more than "
            f"{domains}. A typical one:\n\n"
        )
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else f"{said}{found}")


def report_run(run: Path, out: Path | None) -> None:
    """Write a run's report again."""
    model = load(run, device="cpu")
    own = run / _REPORT
    if out is None and own.exists() and of_images(model.schema_):
        raise StorageError(
            f"{own} exists, and may show images and results on them. A run keeps no images, so a new report would lack "
            "these. Pass --out with another name."
        )
    if out is None or out.resolve() == own.resolve():
        refuse_foreign(run, [_REPORT])
        add_files(run, {_REPORT: model.report})
    else:
        model.report(out)
    typer.echo(f"report → {out or own}")


def demo_run(out: Path, latents: int | None, epochs: int | None, seed: int, *, overwrite: bool, resume: bool) -> None:
    """Fit the demo's data and say which interventions move the latent of their target."""
    claim(out, overwrite=overwrite, resume=resume)
    data = datasets.load_sachs()
    typer.echo(data.description)
    x = pd.DataFrame(data.x, columns=data.feature_names)
    latents = _DEMO_LATENTS if latents is None else latents
    model = CGVAE(n_latents=latents, max_epochs=epochs, random_state=seed)
    train(model, x, pd.DataFrame({"condition": data.domains}), out, resume=resume)
    found = intervention_targets(
        model.description_, model.domains_, data.feature_names, data.targets, reference="cd3cd28"
    )
    write_results(model, x, out, {"targets.csv": found})
    typer.echo("\nInterventions with a known target, against condition cd3cd28:")
    typer.echo(found.round(2).to_string(index=False))
    typer.echo(
        f"{int(found['agrees'].sum())} of {len(found)} move the latent that drives their target most "
        f"(chance: 1 in {latents})."
    )


def demo_images_run(out: Path, steps: int | None, seed: int, *, overwrite: bool, resume: bool) -> None:
    """Fit the image demo's data, translate held-out images, and judge them beside what takes no training."""
    claim(out, overwrite=overwrite, resume=resume)
    data = datasets.make_typefaces(_DEMO_JITTERS + _DEMO_HELD_OUT)
    held_out = data.factors["jitter"].astype(int).to_numpy() >= _DEMO_JITTERS
    images, domains = data.images[~held_out], data.domains[~held_out]
    typer.echo(
        f"{data.factors['character'].nunique()} characters in {len(set(domains.tolist()))} typefaces that come with "
        f"matplotlib, {len(images)} images of 16 × 16 pixels. No image is told which other shows the same character."
    )
    model = ImageTranslator(max_steps=steps or _DEMO_STEPS, random_state=seed)
    train(model, images, domains, out, resume=resume)
    typer.echo("Two judges learn to read characters and typefaces from other images …")
    fresh = datasets.make_typefaces(_JUDGED_JITTERS, random_state=1)
    all_images = np.concatenate([fresh.images, data.images[held_out]])
    content, labels = (
        np.concatenate([first, second[held_out]])
        for first, second in (
            (fresh.factors["character"].to_numpy(), data.factors["character"].to_numpy()),
            (fresh.domains, data.domains),
        )
    )
    seen_by_judges = np.arange(len(all_images)) < len(fresh.images)
    judges = train_judges(all_images, content, labels, ~seen_by_judges, max_epochs=_JUDGE_EPOCHS)
    images_held, own = data.images[held_out], data.domains[held_out]
    truth = {name: np.tile(images_held[own == name], (len(model.domains_), 1, 1, 1)) for name in model.domains_}
    methods = {name: kind().fit(images, domains) for name, kind in SIMPLE.items()} | {"ImageTranslator": model}
    found = compare_translations(methods, judges, images_held, content[~seen_by_judges], own, truth)
    write_results(
        model,
        ImageTable(images, domains.astype(str), tuple(map(str, range(len(images))))),
        out,
        {"translations.csv": found},
        lambda path: model.report(path, images_held, own, judged=found[found["to"] == "all"]),
        judges={"judge-content.safetensors": judges.content, "judge-style.safetensors": judges.style},
    )
    typer.echo(
        "\nHeld-out images translated to every other typeface: error in grey levels, and accuracy of the judges:"
    )
    shown = found.loc[found["to"] == "all", ["method", "rmse", "content", "style"]]
    typer.echo(shown.round(3).to_string(index=False))
    typer.echo(f"Real held-out images: character {judges.real_content:.3f}, typeface {judges.real_style:.3f}.")


def train(
    model: LatentEstimator | CGGAN | ImageTranslator, x: DataLike, y: LabelsLike, out: Path, *, resume: bool
) -> None:
    """Fit with a checkpoint in the run folder; ctrl-C keeps it and prints how to continue."""
    checkpoint = out / CHECKPOINT
    try:
        model.fit(x, y, checkpoint=checkpoint, resume=resume)
    except KeyboardInterrupt:
        if not checkpoint.exists():
            typer.echo("\nStopped before training began; nothing was written.", err=True)
            raise typer.Exit(130) from None
        words = [word for word in sys.argv[1:] if word not in ("--resume", "--overwrite")]
        command = shlex.join(["unmix", *words, "--resume"])
        _attempt(lambda: (out / INTERRUPTED).write_bytes(os.fsencode(f"{_INTERRUPTED}:\n\n{command}\n")))
        typer.echo(f"\nStopped. The progress so far is in {checkpoint}. Continue with:\n\n  {command}", err=True)
        raise typer.Exit(130) from None


def write_results(
    model: BaseEstimator,
    x: DataLike,
    out: Path,
    tables: Mapping[str, pd.DataFrame] | None = None,
    write_report: Callable[[Path], object] | None = None,
    beside: pd.DataFrame | None = None,
    judges: Mapping[str, ImageClassifier] | None = None,
) -> None:
    """Model, tables, judges and report into the run folder; ``beside``: columns to write before the latents."""
    try:
        written = _write(model, x, out, tables or {}, write_report or model.report, beside, judges or {})
    except BaseException:
        typer.echo(f"The fit so far is kept in {out / CHECKPOINT}; --resume continues from there.", err=True)
        raise
    for name in (CHECKPOINT, INTERRUPTED):
        (out / name).unlink(missing_ok=True)
    saved = ["mixing.csv", "effects.csv", "restarts.csv"] if isinstance(model, LatentEstimator) else []
    saved += [SELECTION] if (out / SELECTION).exists() else []
    places = ", ".join(str(out / name) for name in [*saved, *written])
    typer.echo(f"\nreport  {out / _REPORT}\nmodel   {out}\ntables  {places}")
    if judges:
        typer.echo("judges  " + ", ".join(f"{out / name} ({judge.name_})" for name, judge in judges.items()))


def _write(
    model: BaseEstimator,
    x: DataLike,
    out: Path,
    tables: Mapping[str, pd.DataFrame],
    write_report: Callable[[Path], object],
    beside: pd.DataFrame | None,
    judges: Mapping[str, ImageClassifier],
) -> list[str]:
    """``write_results`` without its output; returns the names of the tables."""
    model.fit_.to_folder(out)
    latents, names = _latents(model, x)
    others = pd.DataFrame(index=range(len(latents))) if beside is None else beside
    written = {_LATENTS: with_latents(others, latents, names), **tables}
    add_files(out, {name: partial(write_table, table) for name, table in written.items()})
    add_files(out, {**{name: judge.save for name, judge in judges.items()}, _REPORT: write_report})
    return list(written)


def claim(out: Path, *, overwrite: bool, resume: bool) -> None:
    """Refuse a folder that is not empty, unless it is to be replaced or resumed, and one that cannot be written.

    Files that unmix did not write are never replaced.
    """
    there, unfinished = names_in(out, "a run"), is_checkpoint(out / CHECKPOINT)
    if resume and CHECKPOINT not in there:
        raise StorageError(f"There is no interrupted run in {out}. Start without --resume.")
    if there and not (overwrite or resume):
        what = "an interrupted run: add --resume to continue it" if unfinished else "files"
        raise StorageError(f"{out} holds {what}. Choose another --out, or add --overwrite to replace it.")
    if there and not (resume or unfinished or holds_model(out)):
        raise StorageError(f"{out} holds files but no run of unmix, so it is not replaced. Choose another --out.")
    for name, own in ((CHECKPOINT, unfinished or resume), (INTERRUPTED, _is_note(out / INTERRUPTED))):
        if name in there and not own:
            raise StorageError(
                f"{out / name} would be replaced, but unmix did not write it, or it is damaged. Move it away, or "
                "choose another --out."
            )
    refuse_foreign(out, [*FILES, DONE])
    check_replaceable(out / _REPORT)
    if overwrite and not resume:
        for name in (CHECKPOINT, INTERRUPTED):
            (out / name).unlink(missing_ok=True)


def _is_note(path: Path) -> bool:
    return path.is_file() and path.read_bytes().startswith(_INTERRUPTED.encode())


def read_for_model(model: LatentEstimator, run: Path, path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A file as a frame, and the columns that the model of ``run`` takes."""
    _needs_table(model, run)
    return _read_for(model, path)


def _needs_table(model: BaseEstimator, run: Path) -> None:
    if of_images(model.schema_):
        raise SchemaError(
            f"{run} was fitted on images, not on a table. Pass a folder or .zip of images to unmix transform or "
            "translate, or load it in Python and pass it an array."
        )


def _latents(model: BaseEstimator, x: DataLike) -> tuple[NDArray[np.floating], list[str]]:
    """Latents of ``x`` and their names."""
    return model.transform(_as_fitted(model, x)), [str(name) for name in model.get_feature_names_out()]


def _as_fitted(model: BaseEstimator, x: DataLike) -> DataLike:
    """A frame in the form of the fit: without names if it had none."""
    return x.to_numpy() if isinstance(x, pd.DataFrame) and not model.schema_.named else x


def _read_for(model: LatentEstimator, path: Path) -> tuple[pd.DataFrame, Any]:
    """A file as a frame, and the columns that the model was fitted on; its numeric columns if these had no names.

    For AnnData, the columns of ``.obs``, and the matrix of the fit's variables.
    """
    named, names = model.schema_.named, model.schema_.names
    if named and is_store(path):
        x = annotated(read_annotated(path), model.schema_.layer).aligned(names)
        return _observations(x), x
    domains = [column.name for column in model.domain_schema_.columns]
    beside = model.schema_.beside
    batches = () if model.schema_.nuisance is None else (model.schema_.nuisance.source,)
    text = [name for name in (*domains, *batches) if name not in names]
    frame = read_table(path, features=(*names, *beside) if named else None, text=text)
    if named:
        names = (*names, *dict.fromkeys(beside))
        lacking = [name for name in names if name not in frame.columns]
        if lacking:
            said = f"{path} lacks {len(lacking)} feature column(s) on which the model was fitted: {listed(lacking)}"
            raise SchemaError(f"{said}. Add them.")
        return frame, frame[list(names)]
    numeric = frame.select_dtypes(["number", "bool"]).columns
    found = [name for name in candidates(frame) if name in numeric and name not in domains]
    if len(found) != len(names):
        raise SchemaError(
            f"{path} has {len(found)} numeric columns beside the domains; the model was fitted on an array of "
            f"{len(names)} features without names. Keep only these in the file."
        )
    return frame, frame[found]


def _attempt(write: Callable[[], object]) -> None:
    """Write a note; if that fails, print the error without raising it."""
    try:
        write()
    except OSError as error:
        typer.echo(f"({error})", err=True)
