"""Models on disk: a folder that explains itself. safetensors, JSON and CSV; no pickle anywhere.

The folder is written beside its place and moved there file by file, ``done.json`` last: a folder with that file is
complete. It lists every file that unmix wrote there, with its hash; another file, or one that was changed since, is
not replaced.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from unmix.audit.counterfactuals import CounterfactualCheck
from unmix.audit.describe import Description
from unmix.audit.subject import ResidualDependence
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
from unmix.estimators.settings import check_common, check_gan, plain_settings, restored
from unmix.files import as_path, folder_beside, json_ready, names_in
from unmix.models.base import FittedModel
from unmix.models.fitted_gan import FittedGAN
from unmix.report.html import ReportContent, render
from unmix.report.parts import write_html
from unmix.train.checkpoint import read_state, write_state
from unmix.train.devices import pick_device
from unmix.version import __version__

FORMAT = 3
_UNSUMMED = 2
DONE = "done.json"
# What stands in for ``done.json`` while files are replaced: they are still known as those of unmix after a crash.
_PENDING = "pending.json"
MODEL = "model.safetensors"
ESTIMATORS: dict[str, type[LatentEstimator]] = {
    estimator.__name__: estimator
    for estimator in (CGVAE, CGVAEImages, IVAE, IMSDA, BetaVAE, BetaTCVAE, HFVAE, FactorVAE, SparseVAE)
}
_READABLE: dict[str, type[LatentEstimator | CGGAN]] = {**ESTIMATORS, CGGAN.__name__: CGGAN}

SELECTION = "selection.csv"
_READ_BACK = (MODEL, "config.json", "schema.json", "history.jsonl", "restarts.csv", SELECTION)
_AGAIN = "Fit and save the model again."
_DAMAGE = (OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError)

_README = """This folder holds a model fitted by unmix {version}.

config.json        what was asked: estimator, settings, seed, versions
{schema}
{files}
done.json          written last: the folder is complete; the SHA-256 of every file that unmix wrote

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
# Whatever is written into the folder of a model or a run; folders of old do not list it.
FILES = (
    *("README.txt", "config.json", "schema.json", MODEL, "history.jsonl", "restarts.csv", "mixing.csv", "effects.csv"),
    *(SELECTION, "latents.csv", "report.html", "targets.csv", "translations.csv"),
    *("judge-content.safetensors", "judge-style.safetensors"),
)
_GAN_FILES = """model.safetensors  averaged generator, encoder, frame of the latents, and the mixing
history.jsonl      terms of discriminator, generator and encoder, one line a block of steps"""


def save(estimator: LatentEstimator | CGGAN, path: str | Path, *, overwrite: bool) -> Path:
    """Write ``estimator`` into the folder ``path``: a new one, an empty one, or with ``overwrite`` that of a model."""
    path = as_path(path)
    if type(estimator).__name__ not in _READABLE:
        raise StorageError(
            f"{type(estimator).__name__} is no estimator of unmix, so unmix.load could not read it. Save one of "
            f"{', '.join(_READABLE)}."
        )
    there = names_in(path, "a model")
    if there and not overwrite:
        raise StorageError(f"The folder {path} is not empty. Choose another folder, or pass overwrite=True.")
    if there and not holds_model(path):
        raise StorageError(f"{path} holds files but no model of unmix, so it is not replaced. Choose another folder.")
    return write_model(estimator, path)


def write_model(estimator: LatentEstimator | CGGAN, path: Path) -> Path:
    """``save`` into any folder; other files in it stay, and are refused where they are in the way."""
    with folder_beside(path) as beside:
        _write_files(estimator, beside, path.absolute().name)
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        _take_place(path, beside, {"finished": finished, "files": {}, "written": {}})
    return path


def add_files(path: Path, writers: Mapping[str, Callable[[Path], Any]]) -> None:
    """Write further files into the folder of a model, such as its report, by functions that take a path."""
    with folder_beside(path / DONE) as beside:
        for name, write in writers.items():
            write(beside / name)
        done = json.loads((path / DONE).read_text(encoding="utf-8"))
        _take_place(path, beside, {"files": {}, "written": {}, **done})


def holds_model(path: Path) -> bool:
    """Whether unmix has written a model into the folder ``path``, be it a damaged one."""
    return bool(_written(path))


def refuse_foreign(path: Path, names: Iterable[str]) -> None:
    """Raise ``StorageError`` where a file of one of ``names`` in ``path`` is not one that unmix wrote there."""
    known, there = _written(path), names_in(path, "a model")
    foreign = [name for name in names if name in there and not _is_own(path / name, known)]
    if foreign:
        raise StorageError(
            f"{', '.join(foreign)} in {path} would be replaced, but unmix did not write it, or it was changed since. "
            "Move it away, or choose another folder."
        )


def _take_place(path: Path, beside: Path, done: dict[str, Any]) -> None:
    """Move what is in ``beside`` into ``path``, then ``done`` with its hashes; remove what an earlier model left."""
    new = {file.name: _sha256(file) for file in beside.iterdir()}
    refuse_foreign(path, [*new, DONE, _PENDING])
    for name, own in new.items():
        done["files" if name in _READ_BACK else "written"][name] = own
    before, after = _written(path), {**done["files"], **done["written"]}
    path.mkdir(exist_ok=True)
    pending = {name: set(sums) for name, sums in before.items()}
    for name, own in after.items():
        if pending.get(name) != set():
            pending.setdefault(name, set()).add(own)
    _write_json(beside / _PENDING, {"files": pending, "written": {}})
    shutil.move(beside / _PENDING, path / _PENDING)
    if MODEL in new:
        (path / DONE).unlink(missing_ok=True)
    for name in new:
        shutil.move(beside / name, path / name)
    for name, known in before.items():
        if name not in after and known and (path / name).is_file() and _sha256(path / name) in known:
            (path / name).unlink()
    _write_json(beside / DONE, {**done, "sha256": _sum_of(done)})
    shutil.move(beside / DONE, path / DONE)
    (path / _PENDING).unlink()


def _written(path: Path) -> dict[str, set[str]]:
    """Files that unmix wrote into the folder ``path``, with the hashes that each had; older folders keep none."""
    known: dict[str, set[str]] = {}
    for own in (DONE, _PENDING):
        try:
            content = json.loads((path / own).read_text(encoding="utf-8"))
            files = {**content.get("files", {}), **content.get("written", {})}
            if "written" not in content:
                if not ("finished" in content and (path / "config.json").is_file()):
                    continue
                files = {**{file: [] for file in FILES}, **files}
            for name, sums in files.items():
                if Path(name).name == name:
                    known.setdefault(name, set()).update([sums] if isinstance(sums, str) else sums)
            known[own] = set()
        except _DAMAGE:
            continue
    return known


def _is_own(path: Path, known: Mapping[str, set[str]]) -> bool:
    sums = known.get(path.name)
    return sums is not None and path.is_file() and (not sums or _sha256(path) in sums)


def load(path: str | Path, *, device: Any = "auto") -> Any:
    """Read an estimator back from a folder that ``save`` wrote; it need not be trained on the same device.

    Raises
    ------
    StorageError
        There is no complete model there, it is damaged, or it was written by a version with another format.

    Examples
    --------
    >>> unmix.load("model/").transform(table)     # doctest: +SKIP
    """
    folder = as_path(path)
    if not (folder / DONE).is_file():
        what = "is not there" if not folder.exists() else f"holds no {DONE}: no complete model"
        raise StorageError(f"{folder} {what}. Pass a folder written by model.save or `unmix fit`.")
    place = pick_device(device)
    try:
        estimator = _read(folder)
    except StorageError:
        raise
    except _DAMAGE as error:
        raise _unreadable(folder, f"{type(error).__name__}: {' '.join(str(error).split())}") from error
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
        counterfactuals=estimator.counterfactuals_,
        history=estimator.history_,
        restarts=estimator.restarts_,
        best_restart=estimator.best_restart_,
        support=estimator.support_,
        stop_reason=estimator.stop_reason_,
        sizes=dict(estimator.settings_),
        settings=estimator.fitted_params_,
        versions=_versions(),
        tables={
            "mixing": estimator.mixing_frame().rename_axis("feature").reset_index(),
            "effects": estimator.effects_frame(),
            "restarts": estimator.restarts_,
            "history": estimator.history_,
            **(
                {} if estimator.counterfactuals_ is None else {"counterfactuals": estimator.counterfactuals_.to_frame()}
            ),
        },
        fit_seconds=estimator.fit_seconds_,
    )
    write_html(render(content), path)
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
            "settings": estimator.fitted_params_,
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
    (folder / "README.txt").write_text(text, encoding="utf-8", errors="surrogateescape")


def _read(folder: Path) -> LatentEstimator | CGGAN:
    """The estimator on the CPU; what is wrong with a file of another shape shows as one of ``_DAMAGE``."""
    done, config, schema = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in (DONE, "config.json", "schema.json")
    )
    # Of a newer format the sums may be others too.
    newer = isinstance(config.get("format"), int) and config["format"] > FORMAT
    if not newer:
        _check_sums(folder, done, config.get("format"))
    if config.get("format") not in (FORMAT, _UNSUMMED) or config.get("estimator") not in _READABLE:
        raise StorageError(
            f"{folder} has format {config.get('format')!r}, estimator {config.get('estimator')!r}; this version of "
            f"unmix ({__version__}) reads format {FORMAT} and {sorted(_READABLE)}. Use the version that wrote it: "
            f"{config.get('versions', {}).get('unmix')}."
        )
    tensors, _ = read_state(folder / MODEL, _AGAIN)
    estimator = restored(_READABLE[config["estimator"]], dict(config["settings"]), _check, folder)
    estimator.fitted_params_ = plain_settings(estimator, config["settings"]["random_state"])
    with (folder / "history.jsonl").open(encoding="utf-8") as stream:
        estimator.history_ = pd.read_json(stream, orient="records", lines=True)
    if isinstance(estimator, CGGAN):
        _restore_gan(estimator, config["fitted"], schema, tensors)
    else:
        _restore(estimator, config["fitted"], schema, tensors)
        estimator.restarts_ = pd.read_csv(folder / "restarts.csv")
        if (folder / SELECTION).exists():
            estimator.selection_ = pd.read_csv(folder / SELECTION)
    return estimator


def _check_sums(folder: Path, done: dict[str, Any], written_as: Any) -> None:
    """Whether the files are those that were saved; folders of format 2 have the sum of the tensors, or none."""
    if written_as == _UNSUMMED and "files" not in done:
        sums = {MODEL: done["sha256"]} if "sha256" in done else {}
    elif done["sha256"] != _sum_of(done):
        raise _unreadable(folder, f"{DONE} is not the file that was saved")
    else:
        sums = done["files"]
    for name, expected in sums.items():
        if _sha256(folder / name) != expected:
            raise _unreadable(folder, f"{name} is not the file that was saved")


def _check(estimator: LatentEstimator | CGGAN) -> None:
    if isinstance(estimator, CGGAN):
        return check_gan(estimator)
    check_common(estimator)
    return estimator._check_settings()


def _unreadable(folder: Path, what: str) -> StorageError:
    """The error for a folder that cannot be read: damaged, unless a newer version wrote it."""
    try:
        wrote = str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["versions"]["unmix"])
    except _DAMAGE:
        wrote = ""
    if _numbers(wrote) > _numbers(__version__):
        return StorageError(
            f"{folder} was written by unmix {wrote}, and unmix {__version__} cannot read it: {what}. Install the newer "
            "version."
        )
    return StorageError(f"{folder} is damaged: {what}. {_AGAIN}")


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version, to compare: (0, 12, 1) of "0.12.1rc2"."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sum_of(done: dict[str, Any]) -> str:
    """The sum of ``done.json``, but for its own."""
    content = {name: value for name, value in done.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
    if isinstance(estimator, CGVAE):
        fitted["residual_dependence"] = asdict(estimator.residual_dependence_)
        fitted["residual_audited"] = asdict(estimator.residual_audited_)
    if hasattr(estimator, "selection_"):
        write_table(estimator.selection_, folder / SELECTION)
    arrays = {f"description/{key}": value for key, value in estimator.description_.arrays().items()}
    arrays["training_rows"] = estimator.training_rows_
    if estimator.counterfactuals_ is not None:
        arrays |= {f"counterfactuals/{key}": value for key, value in estimator.counterfactuals_.arrays().items()}
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
    estimator.n_latents_ = fitted["n_latents"]
    model = FittedModel(estimator._network(features, domains, fitted["seed"], 1).single(0))
    model.load_state_dict({key.removeprefix("model/"): t for key, t in tensors.items() if key.startswith("model/")})
    arrays, carried = (
        {key.removeprefix(part): t.numpy() for key, t in tensors.items() if key.startswith(part)}
        for part in ("description/", "counterfactuals/")
    )
    estimator.model_, estimator.schema_, estimator.domain_schema_ = model, features, domains
    # Folders of old have no variances, and an R² without a lower limit where there was next to none.
    arrays.setdefault("r2_variance", (arrays["r2"] > -1).astype(float))
    estimator.description_ = Description(**arrays)
    estimator.n_features_in_ = len(features.names)
    if features.named:
        estimator.feature_names_in_ = np.array(features.names, dtype=object)
    estimator.domains_ = domains.domains
    estimator.training_rows_ = (
        tensors["training_rows"].numpy() if "training_rows" in tensors else np.empty(0, dtype=np.int64)
    )
    names = domains.domains, tuple(features.names)
    estimator.counterfactuals_ = CounterfactualCheck(*names, **carried) if carried else None
    estimator.seed_, estimator.stop_reason_ = fitted["seed"], fitted["stop_reason"]
    estimator.n_epochs_, estimator.fit_seconds_ = fitted["n_epochs"], fitted["fit_seconds"]
    estimator.settings_, estimator.best_restart_ = fitted["sizes"], fitted["best_restart"]
    estimator.agreement_ = float("nan") if fitted["agreement"] is None else fitted["agreement"]
    if "residual_dependence" in fitted:
        estimator.residual_dependence_ = ResidualDependence.from_dict(fitted["residual_dependence"])
        # Folders from before the audit took its own have the fit's alone.
        audited = fitted.get("residual_audited", fitted["residual_dependence"])
        estimator.residual_audited_ = ResidualDependence.from_dict(audited)
    estimator._set_mixing()


def _versions() -> dict[str, str]:
    packages = ("torch", "numpy", "scikit-learn", "pandas")
    return {"unmix": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}


def _write_json(path: Path, content: Any) -> None:
    """Strict JSON: a number that is not finite becomes null."""
    path.write_text(json.dumps(json_ready(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")
