"""Models on disk: a folder that explains itself. safetensors, JSON and CSV; no pickle anywhere.

The folder is written beside its place and moved there file by file, ``done.json`` last: a folder with that file is
complete.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from unmix.audit.describe import Description
from unmix.data.domains import DomainSchema
from unmix.data.schema import FeatureSchema
from unmix.data.tables import write_table
from unmix.errors import StorageError
from unmix.estimators.base import LatentEstimator
from unmix.estimators.baselines import HFVAE, BetaTCVAE, BetaVAE, FactorVAE, SparseVAE
from unmix.estimators.cggan import CGGAN
from unmix.estimators.cgvae import CGVAE
from unmix.estimators.domain_baselines import IMSDA, IVAE
from unmix.estimators.images import CGVAEImages
from unmix.files import json_ready, replacing
from unmix.models.base import FittedModel
from unmix.models.fitted_gan import FittedGAN
from unmix.report.html import ReportContent, render
from unmix.train.checkpoint import read_state, write_state
from unmix.train.devices import pick_device
from unmix.version import __version__

FORMAT = 2
DONE = "done.json"
MODEL = "model.safetensors"
ESTIMATORS: dict[str, type[LatentEstimator]] = {
    estimator.__name__: estimator
    for estimator in (CGVAE, CGVAEImages, IVAE, IMSDA, BetaVAE, BetaTCVAE, HFVAE, FactorVAE, SparseVAE)
}
_READABLE: dict[str, type[LatentEstimator | CGGAN]] = {**ESTIMATORS, CGGAN.__name__: CGGAN}

_DAMAGE = (OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError)

_README = """This folder holds a model fitted by unmix {version}.

config.json        what was asked: estimator, settings, seed, versions
{schema}
{files}
done.json          written last: the folder is complete; the SHA-256 of model.safetensors

{use}
"""
_OF_TABLES = {
    "schema": "schema.json        feature columns (names, order, scaling) and domain columns (kinds, levels)",
    "use": """Python:        model = unmix.load("{name}"); model.transform(table)
Command line:  unmix transform {name} table.csv --out latents.csv""",
}
_OF_IMAGES = {
    "schema": "schema.json        size and channels of the images, and domain columns (kinds, levels)",
    "use": """Python:        model = unmix.load("{name}"); model.transform(images)
Command line:  unmix transform {name} photos --out latents.csv
               unmix translate {name} photos --to DOMAIN --out translated
               where photos is a folder with one folder for each domain, a .zip of it, or a list""",
}
_LATENT_FILES = """model.safetensors  the kept start's parameters, and the arrays behind the report
history.jsonl      held-out objective and its terms, one line an epoch and start
restarts.csv       one line a start
mixing.csv         features x latents: |dx/dz|, in standard deviations
effects.csv        how each domain moves each latent, with 95 % intervals"""
_GAN_FILES = """model.safetensors  averaged generator, encoder, frame of the latents, and the mixing
history.jsonl      terms of discriminator, generator and encoder, one line a block of steps"""


def save(estimator: LatentEstimator | CGGAN, path: Path, *, overwrite: bool) -> Path:
    """Write ``estimator`` into the folder ``path``."""
    if path.exists() and not path.is_dir():
        raise StorageError(f"{path} is a file; a model is saved as a folder. Choose another name.")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise StorageError(f"The folder {path} is not empty. Choose another folder, or pass overwrite=True.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as beside:
            _write_files(estimator, Path(beside), path.name)
            path.mkdir(exist_ok=True)
            (path / DONE).unlink(missing_ok=True)
            for file in sorted(Path(beside).iterdir(), key=lambda file: file.name == DONE):
                shutil.move(file, path / file.name)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error}. Is there space and permission?") from error
    return path


def load(path: str | Path, *, device: str = "auto") -> Any:
    """Read an estimator back from a folder that ``save`` wrote; it need not be trained on the same device.

    Raises
    ------
    StorageError
        There is no complete model there, it is damaged, or it was written by a version with another format.

    Examples
    --------
    >>> unmix.load("model/").transform(table)     # doctest: +SKIP
    """
    folder = Path(path)
    if not (folder / DONE).is_file():
        what = "is not there" if not folder.exists() else f"holds no {DONE}: no complete model"
        raise StorageError(f"{folder} {what}. Pass a folder written by model.save or `unmix fit`.")
    place = pick_device(device)
    try:
        estimator = _read(folder)
    except StorageError:
        raise
    except _DAMAGE as error:
        raise _damaged(folder, f"{type(error).__name__}: {' '.join(str(error).split())}") from error
    estimator.model_.to(place)
    return estimator


def write_report(estimator: LatentEstimator, path: Path) -> Path:
    """The report of a fitted estimator, as one HTML file."""
    content = ReportContent(
        method=type(estimator).__name__,
        assumption=estimator.assumption,
        uses_domains=estimator.uses_domains,
        feature_names=list(estimator.schema_.names),
        latent_names=[str(name) for name in estimator.get_feature_names_out()],
        domain_names=list(estimator.domains_),
        domain_columns=[column.describe() for column in estimator.domain_schema_.columns],
        description=estimator.description_,
        audit=estimator.audit(),
        history=estimator.history_,
        restarts=estimator.restarts_,
        best_restart=estimator.best_restart_,
        agreement=estimator.agreement_,
        support=estimator.support_,
        stop_reason=estimator.stop_reason_,
        sizes=dict(estimator.settings_),
        settings=_settings(estimator),
        versions=_versions(),
        tables={
            "mixing": estimator.mixing_frame().rename_axis("feature").reset_index(),
            "effects": estimator.effects_frame(),
            "restarts": estimator.restarts_,
            "history": estimator.history_,
        },
        fit_seconds=estimator.fit_seconds_,
    )
    text = render(content)
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return path


def _write_files(estimator: LatentEstimator | CGGAN, folder: Path, name: str) -> None:
    if isinstance(estimator, CGGAN):
        arrays, fitted, files = _gan_parts(estimator)
    else:
        arrays, fitted, files = _latent_parts(estimator, folder)
    state = {f"model/{key}": value for key, value in estimator.model_.state_dict().items()}
    tensors = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in arrays.items()}
    write_state(folder / MODEL, {**state, **tensors}, {})
    _write_json(
        folder / "config.json",
        {
            "format": FORMAT,
            "estimator": type(estimator).__name__,
            "settings": _settings(estimator),
            "fitted": fitted,
            "versions": _versions(),
        },
    )
    columns = estimator.schema_
    features = {"image_shape": list(estimator.image_shape_)} if columns is None else columns.to_dict()
    _write_json(folder / "schema.json", {"features": features, "domains": estimator.domain_schema_.to_dict()})
    estimator.history_.to_json(folder / "history.jsonl", orient="records", lines=True, double_precision=15)
    words = _OF_TABLES if isinstance(columns, FeatureSchema) else _OF_IMAGES
    text = _README.format(version=__version__, schema=words["schema"], files=files, use=words["use"].format(name=name))
    (folder / "README.txt").write_text(text, encoding="utf-8")
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    _write_json(folder / DONE, {"finished": finished, "sha256": _sha256(folder / MODEL)})


def _read(folder: Path) -> LatentEstimator | CGGAN:
    """The estimator on the CPU; what is wrong with a file of another shape shows as one of ``_DAMAGE``."""
    done, config, schema = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in (DONE, "config.json", "schema.json")
    )
    if config.get("format") != FORMAT or config.get("estimator") not in _READABLE:
        raise StorageError(
            f"{folder} has format {config.get('format')!r}, estimator {config.get('estimator')!r}; this version of "
            f"unmix ({__version__}) reads format {FORMAT} and {sorted(_READABLE)}. Use the version that wrote it: "
            f"{config.get('versions', {}).get('unmix')}."
        )
    # Folders from before the sum was kept have none.
    if done.get("sha256", expected := _sha256(folder / MODEL)) != expected:
        raise _damaged(folder, f"{MODEL} is not the file that was saved")
    tensors, _ = read_state(folder / MODEL)
    estimator = _READABLE[config["estimator"]](**config["settings"])
    estimator.fitted_params_ = estimator.get_params()
    with (folder / "history.jsonl").open(encoding="utf-8") as stream:
        estimator.history_ = pd.read_json(stream, orient="records", lines=True)
    if isinstance(estimator, CGGAN):
        _restore_gan(estimator, config["fitted"], schema, tensors)
    else:
        _restore(estimator, config["fitted"], schema, tensors)
        estimator.restarts_ = pd.read_csv(folder / "restarts.csv")
    return estimator


def _damaged(folder: Path, what: str) -> StorageError:
    return StorageError(f"{folder} is damaged: {what}. Fit and save the model again.")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _latent_parts(estimator: LatentEstimator, folder: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Arrays, scalars and the list of files; the tables are written at once."""
    write_table(estimator.restarts_, folder / "restarts.csv")
    write_table(estimator.mixing_frame().rename_axis("feature").reset_index(), folder / "mixing.csv")
    write_table(estimator.effects_frame(), folder / "effects.csv")
    fitted = {
        "best_restart": estimator.best_restart_,
        "agreement": estimator.agreement_,
        "seed": estimator.seed_,
        "stop_reason": estimator.stop_reason_,
        "n_epochs": estimator.n_epochs_,
        "fit_seconds": estimator.fit_seconds_,
        "sizes": estimator.settings_,
        "n_latents": estimator.n_latents_,
    }
    arrays = {f"description/{key}": value for key, value in estimator.description_.arrays().items()}
    return arrays, fitted, _LATENT_FILES


def _gan_parts(estimator: CGGAN) -> tuple[dict[str, Any], dict[str, Any], str]:
    fitted = {
        "seed": estimator.seed_,
        "n_steps": estimator.n_steps_,
        "fit_seconds": estimator.fit_seconds_,
        "start_errors": estimator.start_errors_.tolist(),
        "best_restart": estimator.best_restart_,
    }
    return {"mixing": estimator.mixing_}, fitted, _GAN_FILES


def _restore_gan(estimator: CGGAN, fitted: dict[str, Any], schema: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    domains, features = DomainSchema.from_dict(schema["domains"]), schema["features"]
    images = "image_shape" in features
    estimator.schema_ = None if images else FeatureSchema.from_dict(features)
    shape = tuple(features["image_shape"]) if images else (len(features["names"]),)
    model = FittedGAN(estimator._config(shape, domains, fitted["seed"]))
    model.load_state_dict({key.removeprefix("model/"): t for key, t in tensors.items() if key.startswith("model/")})
    estimator.model_, estimator.domain_schema_ = model, domains
    estimator.seed_, estimator.n_steps_, estimator.fit_seconds_ = (
        fitted[name] for name in ("seed", "n_steps", "fit_seconds")
    )
    # Folders from before the errors were kept have none; JSON knows no infinity.
    errors = fitted.get("start_errors", [np.nan] * int(estimator.n_restarts))
    estimator.start_errors_ = np.array([np.inf if error is None else error for error in errors], dtype=float)
    least = 0 if np.isnan(estimator.start_errors_).all() else int(np.nanargmin(estimator.start_errors_))
    estimator.best_restart_ = fitted.get("best_restart", least)
    estimator._set_shapes(shape, tuple(features["names"]) if not images and features["named"] else None)
    estimator._set_mixing(tensors["mixing"].numpy())


def _restore(
    estimator: LatentEstimator, fitted: dict[str, Any], schema: dict[str, Any], tensors: dict[str, Any]
) -> None:
    features, domains = estimator.schema_type.from_dict(schema["features"]), DomainSchema.from_dict(schema["domains"])
    model = FittedModel(estimator._network(features, domains, fitted["seed"], 1).single(0))
    model.load_state_dict({key.removeprefix("model/"): t for key, t in tensors.items() if key.startswith("model/")})
    arrays = {key.removeprefix("description/"): t.numpy() for key, t in tensors.items() if "description/" in key}
    estimator.model_, estimator.schema_, estimator.domain_schema_ = model, features, domains
    estimator.description_ = Description(**arrays)
    estimator.n_features_in_ = len(features.names)
    if features.named:
        estimator.feature_names_in_ = np.array(features.names, dtype=object)
    estimator.domains_, estimator.n_latents_ = domains.domains, fitted["n_latents"]
    estimator.seed_, estimator.stop_reason_ = fitted["seed"], fitted["stop_reason"]
    estimator.n_epochs_, estimator.fit_seconds_ = fitted["n_epochs"], fitted["fit_seconds"]
    estimator.settings_, estimator.best_restart_ = fitted["sizes"], fitted["best_restart"]
    estimator.agreement_ = float("nan") if fitted["agreement"] is None else fitted["agreement"]
    estimator._set_mixing()


def _settings(estimator: LatentEstimator | CGGAN) -> dict[str, Any]:
    """Constructor words of the fit as JSON can hold them; a random state becomes the seed that it gave."""
    settings = dict(estimator.fitted_params_)
    settings["random_state"] = estimator.seed_
    settings["auxiliary"] = None if settings["auxiliary"] is None else dict(settings["auxiliary"])
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


def _versions() -> dict[str, str]:
    packages = ("torch", "numpy", "scikit-learn", "pandas")
    return {"unmix": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}


def _write_json(path: Path, content: Any) -> None:
    """Strict JSON: a number that is not finite becomes null."""
    path.write_text(json.dumps(json_ready(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")
