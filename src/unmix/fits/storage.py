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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unmix.errors import SettingError, StorageError
from unmix.files import folder_beside, json_ready, names_in
from unmix.version import __version__

FORMAT = 3
_UNSUMMED = 2
DONE = "done.json"
# What stands in for ``done.json`` while files are replaced: they are still known as those of unmix after a crash.
_PENDING = "pending.json"
MODEL = "model.safetensors"
SELECTION = "selection.csv"
READ_BACK = (MODEL, "config.json", "schema.json", "history.jsonl", "restarts.csv", SELECTION)
AGAIN = "Fit and save the model again."
_DAMAGE = (OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError)

# Whatever is written into the folder of a model or a run; folders of old do not list it.
FILES = (
    *("README.txt", "config.json", "schema.json", MODEL, "history.jsonl", "restarts.csv", "mixing.csv", "effects.csv"),
    *(SELECTION, "latents.csv", "report.html", "targets.csv", "translations.csv"),
    *("judge-content.safetensors", "judge-style.safetensors"),
)


def write_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Write the folder of a model, by a function that takes a path; other files stay unless they are in the way."""
    with folder_beside(path) as beside:
        write(beside)
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        _take_place(path, beside, {"finished": finished, "files": {}, "written": {}})


def add_files(path: Path, writers: Mapping[str, Callable[[Path], object]]) -> None:
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
    new = {file.name: file_sha256(file) for file in beside.iterdir()}
    refuse_foreign(path, [*new, DONE, _PENDING])
    for name, own in new.items():
        done["files" if name in READ_BACK else "written"][name] = own
    before, after = _written(path), {**done["files"], **done["written"]}
    path.mkdir(exist_ok=True)
    pending = {name: set(sums) for name, sums in before.items()}
    for name, own in after.items():
        if pending.get(name) != set():
            pending.setdefault(name, set()).add(own)
    write_json(beside / _PENDING, {"files": pending, "written": {}})
    shutil.move(beside / _PENDING, path / _PENDING)
    if MODEL in new:
        (path / DONE).unlink(missing_ok=True)
    for name in new:
        shutil.move(beside / name, path / name)
    for name, known in before.items():
        if name not in after and known and (path / name).is_file() and file_sha256(path / name) in known:
            (path / name).unlink()
    write_json(beside / DONE, {**done, "sha256": sum_of(done)})
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
    return sums is not None and path.is_file() and (not sums or file_sha256(path) in sums)


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Whatever goes wrong while the folder of a model is read is one ``StorageError`` that names it."""
    try:
        yield
    except StorageError as error:
        if isinstance(error.__cause__, SettingError):
            raise _unreadable(folder, str(error.__cause__).rstrip("."), error) from error
        raise
    except _DAMAGE as error:
        raise _unreadable(folder, f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def need_model(folder: Path) -> None:
    """Raise ``StorageError`` where the folder holds no complete model."""
    if not (folder / DONE).is_file():
        what = "is not there" if not folder.exists() else f"holds no {DONE}: no complete model"
        raise StorageError(f"{folder} {what}. Pass a folder written by model.save or `unmix fit`.")


def read_config(folder: Path, kinds: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``config.json`` and ``schema.json`` of a model; the files are those that were saved.

    It is of one of ``kinds``, or of an estimator with a module in its name.
    """
    done, config, schema = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in (DONE, "config.json", "schema.json")
    )
    # Of a newer format the sums may be others too.
    newer = isinstance(config.get("format"), int) and config["format"] > FORMAT
    if not newer:
        _check_sums(folder, done, config.get("format"))
    own = ":" in str(config.get("estimator"))
    if config.get("format") not in (FORMAT, _UNSUMMED) or not (own or config.get("estimator") in kinds):
        raise StorageError(
            f"{folder} has format {config.get('format')!r}, estimator {config.get('estimator')!r}; this version of "
            f"unmix ({__version__}) reads format {FORMAT} and {sorted(kinds)}. Use the version that wrote it: "
            f"{config.get('versions', {}).get('unmix')}."
        )
    return config, schema


def _check_sums(folder: Path, done: dict[str, Any], written_as: object) -> None:
    """Whether the files are those that were saved; folders of format 2 have the sum of the tensors, or none."""
    if written_as == _UNSUMMED and "files" not in done:
        sums = {MODEL: done["sha256"]} if "sha256" in done else {}
    elif done["sha256"] != sum_of(done):
        raise _unreadable(folder, f"{DONE} is not the file that was saved")
    else:
        sums = done["files"]
    for name, expected in sums.items():
        if file_sha256(folder / name) != expected:
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
    return otherwise or StorageError(f"{folder} is damaged: {what}. {AGAIN}")


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version, to compare: (0, 12, 1) of "0.12.1rc2"."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sum_of(done: dict[str, object]) -> str:
    """The sum of ``done.json``, but for its own."""
    content = {name: value for name, value in done.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, content: object) -> None:
    """Strict JSON: a number that is not finite becomes null."""
    path.write_text(json.dumps(json_ready(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")
