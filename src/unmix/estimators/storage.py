"""Models on disk: a folder that explains itself. safetensors, JSON and CSV; no pickle anywhere.

The folder is written beside its place and moved there file by file, ``done.json`` last: a folder with that file is
complete. It lists every file that unmix wrote there, with its hash; another file, or one that was changed since, is
not replaced.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from unmix.data.schema import FeatureSchema
from unmix.errors import StorageError
from unmix.estimators.settings import plain_settings, restored
from unmix.files import as_path, folder_beside, json_ready, names_in
from unmix.nets.state import OwnState
from unmix.train.checkpoint import read_state, write_state
from unmix.train.devices import pick_device
from unmix.version import __version__, versions

FORMAT = 3
_UNSUMMED = 2
DONE = "done.json"
# What stands in for ``done.json`` while files are replaced: they are still known as those of unmix after a crash.
_PENDING = "pending.json"
MODEL = "model.safetensors"
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
# Whatever is written into the folder of a model or a run; folders of old do not list it.
FILES = (
    *("README.txt", "config.json", "schema.json", MODEL, "history.jsonl", "restarts.csv", "mixing.csv", "effects.csv"),
    *(SELECTION, "latents.csv", "report.html", "targets.csv", "translations.csv"),
    *("judge-content.safetensors", "judge-style.safetensors"),
)


@dataclass(frozen=True)
class Parts:
    """What an estimator keeps in its folder beside its model: arrays, scalars, and a line on each of its files."""

    arrays: dict[str, Any]
    fitted: dict[str, Any]
    files: str


class Stored(OwnState, ABC):
    """An estimator that is kept in a folder."""

    @abstractmethod
    def _check_words(self) -> None:
        """Raise ``SettingError`` for a constructor word that cannot be."""

    @abstractmethod
    def _stored(self, folder: Path) -> Parts:
        """What was learnt; tables are written into ``folder`` at once."""

    @abstractmethod
    def _restore(
        self, folder: Path, fitted: dict[str, Any], schema: dict[str, Any], tensors: dict[str, Tensor]
    ) -> None:
        """Take what ``_stored`` gave: scalars, the schemas of features and domains, arrays and state of the model."""

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write model, schema, history and tables into the folder ``path`` and return it; ``unmix.load`` reads it.

        An existing folder that is not empty is refused unless ``overwrite=True`` and a model is in it. A file there
        that unmix did not write, or that was changed since, is never replaced.
        """
        check_is_fitted(self)
        path, kind = as_path(path), type(self)
        if kind.__module__.partition(".")[0] != __name__.partition(".")[0]:
            raise StorageError(
                f"{kind.__name__} is no estimator of unmix, so unmix.load could not read it. Fit and save one of "
                "unmix, such as CGVAE."
            )
        there = names_in(path, "a model")
        if there and not overwrite:
            raise StorageError(f"The folder {path} is not empty. Choose another folder, or pass overwrite=True.")
        if there and not holds_model(path):
            raise StorageError(
                f"{path} holds files but no model of unmix, so it is not replaced. Choose another folder."
            )
        return write_model(self, path)


def write_model(estimator: Any, path: Path) -> Path:
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


def read_model(path: str | Path, kinds: Mapping[str, type[Stored]], device: Any) -> Any:
    """The estimator in the folder ``path``, one of ``kinds`` by name."""
    folder = as_path(path)
    if not (folder / DONE).is_file():
        what = "is not there" if not folder.exists() else f"holds no {DONE}: no complete model"
        raise StorageError(f"{folder} {what}. Pass a folder written by model.save or `unmix fit`.")
    place = pick_device(device)
    try:
        estimator = _read(folder, kinds)
    except StorageError:
        raise
    except _DAMAGE as error:
        raise _unreadable(folder, f"{type(error).__name__}: {' '.join(str(error).split())}") from error
    estimator.model_.to(place)
    return estimator


def _write_files(estimator: Any, folder: Path, name: str) -> None:
    parts: Parts = estimator._stored(folder)
    state = {f"model/{key}": value for key, value in estimator.model_.state_dict().items()}
    tensors = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in parts.arrays.items()}
    write_state(folder / MODEL, {**state, **tensors}, {})
    _write_json(
        folder / "config.json",
        {
            "format": FORMAT,
            "estimator": type(estimator).__name__,
            "settings": estimator.fitted_params_,
            "fitted": parts.fitted,
            "versions": versions(),
        },
    )
    columns = estimator.schema_
    features = {"image_shape": list(estimator.image_shape_)} if columns is None else columns.to_dict()
    _write_json(folder / "schema.json", {"features": features, "domains": estimator.domain_schema_.to_dict()})
    estimator.history_.to_json(folder / "history.jsonl", orient="records", lines=True, double_precision=15)
    words = _OF_TABLES if isinstance(columns, FeatureSchema) else _OF_IMAGES
    text = _README.format(
        version=__version__, schema=words["schema"], files=parts.files, use=words["use"].format(name=name)
    )
    (folder / "README.txt").write_text(text, encoding="utf-8", errors="surrogateescape")


def _read(folder: Path, kinds: Mapping[str, type[Stored]]) -> Any:
    """The estimator on the CPU; what is wrong with a file of another shape shows as one of ``_DAMAGE``."""
    done, config, schema = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in (DONE, "config.json", "schema.json")
    )
    # Of a newer format the sums may be others too.
    newer = isinstance(config.get("format"), int) and config["format"] > FORMAT
    if not newer:
        _check_sums(folder, done, config.get("format"))
    if config.get("format") not in (FORMAT, _UNSUMMED) or config.get("estimator") not in kinds:
        raise StorageError(
            f"{folder} has format {config.get('format')!r}, estimator {config.get('estimator')!r}; this version of "
            f"unmix ({__version__}) reads format {FORMAT} and {sorted(kinds)}. Use the version that wrote it: "
            f"{config.get('versions', {}).get('unmix')}."
        )
    tensors, _ = read_state(folder / MODEL, _AGAIN)
    kind = kinds[config["estimator"]]
    try:
        estimator = restored(kind, dict(config["settings"]), kind._check_words, folder)
    except StorageError as error:
        raise _unreadable(folder, str(error.__cause__).rstrip("."), error) from error
    estimator.fitted_params_ = plain_settings(estimator, config["settings"]["random_state"])
    with (folder / "history.jsonl").open(encoding="utf-8") as stream:
        estimator.history_ = pd.read_json(stream, orient="records", lines=True)
    estimator._restore(folder, config["fitted"], schema, tensors)
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


def _unreadable(folder: Path, what: str, otherwise: StorageError | None = None) -> StorageError:
    """The error for a folder that cannot be read: a newer version wrote it, or ``otherwise``; without that, damaged."""
    try:
        wrote = str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["versions"]["unmix"])
    except _DAMAGE:
        wrote = ""
    if _numbers(wrote) > _numbers(__version__):
        return StorageError(
            f"{folder} was written by unmix {wrote}, and unmix {__version__} cannot read it: {what}. Install the newer "
            "version."
        )
    return otherwise or StorageError(f"{folder} is damaged: {what}. {_AGAIN}")


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


def _write_json(path: Path, content: Any) -> None:
    """Strict JSON: a number that is not finite becomes null."""
    path.write_text(json.dumps(json_ready(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")
