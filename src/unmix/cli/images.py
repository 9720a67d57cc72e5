"""The commands fit, transform and translate for images. New images are read in the size of the run's images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer
from sklearn.base import BaseEstimator

from unmix.cli.runs import claim, train, transform_table, write_results
from unmix.data.image_files import holds_images
from unmix.data.images import ImageTable, of_images, read_images
from unmix.data.pictures import Images
from unmix.data.tables import with_latents, write_table
from unmix.errors import DataError, SchemaError, SettingError, StorageError
from unmix.estimators.cggan import CGGAN
from unmix.estimators.images import CGVAEImages
from unmix.estimators.loading import load
from unmix.estimators.translator import ImageTranslator
from unmix.files import check_replaceable, folder_beside
from unmix.report.images import png

METHODS: dict[str, type[CGGAN | CGVAEImages | ImageTranslator]] = {
    "CGGAN": CGGAN,
    "CGVAEImages": CGVAEImages,
    "ImageTranslator": ImageTranslator,
}
_LATENTS = 16
_ENCODER_SHARE = 8


def fit_images(
    source: Path,
    out: Path,
    method: str,
    reading: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    overwrite: bool,
    resume: bool,
) -> None:
    """Fit on a folder, .zip or list of images and write the run folder; ``reading``: arguments of ``read_images``."""
    if method not in METHODS:
        raise SettingError(f"--method must be one of {list(METHODS)} for images; got {method!r}.")
    words = dict(settings)
    if method == "CGGAN":
        words.setdefault("n_latents", _LATENTS)
        if "max_steps" in words:
            words["encoder_steps"] = max(1, words["max_steps"] // _ENCODER_SHARE)
    estimator = METHODS[method]
    known = estimator().get_params()
    others = [word for word in words if word not in known]
    if others:
        raise SettingError(f"{method} has no setting {', '.join(others)}. Leave that option out.")
    _refuse_inside(source, out)
    claim(out, overwrite=overwrite, resume=resume)
    table = read_images(source, **reading)
    model = estimator(**words)
    train(model, table, None, out, resume=resume)
    write_results(model, table, out, write_report=lambda path: model.report(path, table), beside=_places(table))


def transform_file(
    run: Path,
    source: Path,
    out: Path,
    *,
    device: str,
    overwrite: bool,
    on_error: str | None = None,
    novelty: bool = False,
) -> None:
    """Write the latents of new rows or images, whichever is at ``source``."""
    if out.exists() and not overwrite:
        raise StorageError(f"{out} exists. Choose another name, or add --overwrite.")
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise DataError(f"--out must end in .csv or .parquet; got {out.name}.")
    check_replaceable(out)
    model = load(run, device=device)
    if holds_images(source):
        if not of_images(model.schema_):
            raise SchemaError(f"{run} was fitted on a table, not on images. Pass a file with its feature columns.")
        if novelty:
            raise SettingError(f"--novelty cannot be used here: {source} holds images. Leave the option out.")
        return _transform_images(model, source, out, on_error)
    if on_error is not None:
        raise SettingError(f"--on-error cannot be used here: {source} does not hold images. Leave the option out.")
    return transform_table(model, run, source, out, novelty=novelty)


def _transform_images(model: BaseEstimator, source: Path, out: Path, on_error: str | None) -> None:
    """Write the latents of images beside their paths and domains."""
    table = _read_as(model, source, on_error)
    latents = model.transform(_labelled_as(model, table))
    write_table(with_latents(_places(table), latents, [str(name) for name in model.get_feature_names_out()]), out)
    typer.echo(f"{len(table)} images × {latents.shape[1]} latents → {out}")


def translate_images(
    run: Path, source: Path, target: str, out: Path, *, device: str, on_error: str | None = None
) -> None:
    """Write every image as it would be in another domain, as PNG under its own path in a new folder."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise StorageError(f"{out} exists. Choose another --out: nothing is overwritten.")
    _refuse_inside(source, out)
    check_replaceable(out / "image.png")
    model = load(run, device=device)
    if not of_images(model.schema_):
        raise SchemaError(f"{run} was not fitted on images. Translate rows in Python, or pass a run of images.")
    if not holds_images(source):
        raise DataError(f"There are no images at {source}. Pass a folder, a .zip, or a list of paths and domains.")
    table = _read_as(model, source, on_error)
    names = _names(table)
    made = model.translate(_labelled_as(model, table), to=target)
    with folder_beside(out) as beside:
        for name, image in zip(names, made, strict=True):
            place = beside / "images" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(png(image))
        os.replace(beside / "images", out)
    typer.echo(f"{len(table)} images → {out}")


def _labelled_as(model: BaseEstimator, table: ImageTable) -> ImageTable | Images:
    """``table``; its images alone if they are in no domain of a translator, which can infer their domains."""
    if not isinstance(model, ImageTranslator) or set(model.domains_) & set(table.domains.tolist()):
        return table
    typer.echo(f"The images are in none of the domains {', '.join(model.domains_)}, so the model infers their domains.")
    return table.images


def _refuse_inside(source: Path, out: Path) -> None:
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise StorageError(f"{out} is inside {source}, so its files would be read as images. Choose another --out.")


def _names(table: ImageTable) -> list[str]:
    """A path inside the new folder for every image: its original path, ending in .png."""
    names = [os.path.normpath(path) for path in table.paths]
    names = [name if name.lower().endswith(".png") else f"{name}.png" for name in names]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"Several images would become {twice[0]!r}. Rename them, or list each only once.")
    outside = [name for name in names if os.path.isabs(name) or name.split(os.sep)[0] == os.pardir]
    if outside:
        raise DataError(f"{outside[0]!r} is outside the folder of the list. Use paths relative to that folder.")
    return names


def _read_as(model: BaseEstimator, source: Path, on_error: str | None) -> ImageTable:
    """Images in the size and mode of those that the model was fitted on; a folder's own name may be their domain."""
    height, width, channels = model.schema_.shape
    mode = "L" if channels == 1 else "RGB"
    table = read_images(source, size=(height, width), mode=mode, on_error=on_error or "raise")
    own, known = source.resolve().stem if source.is_file() else source.resolve().name, model.domains_
    if own in known and not set(known) & set(table.domains.tolist()):
        # The folder of one domain.
        return replace(table, domains=np.full(len(table), own))
    return table


def _places(table: ImageTable) -> pd.DataFrame:
    return pd.DataFrame({"path": list(table.paths), "domain": table.domains})
