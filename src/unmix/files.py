"""Paths that a user names, and files that are replaced as a whole: a crash leaves the old one or the new one.

JSON stays strict.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from unmix.errors import SettingError, StorageError

_BESIDE = ".unmix-"


def as_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user writes it: ``~`` and ``~user`` at its beginning are their home folders, as in a shell.

    Raises
    ------
    SettingError
        It is neither text nor a path.
    StorageError
        It holds a null character, or begins with the home folder of a user who is not known here.
    """
    try:
        text = os.fsdecode(path)
    except TypeError as error:
        raise SettingError(f"Expected a path, as text or pathlib.Path; got {path!r}.") from error
    if "\0" in text:
        raise StorageError(f"{text!r} holds a null character, which no path can.")
    found = Path(os.path.expanduser(text))
    first = found.parts[0] if found.parts else ""
    # As in a shell a lone "~name" of nobody is the name of a file.
    if first == "~" or (first.startswith("~") and len(found.parts) > 1 and not os.path.exists(first)):
        raise StorageError(f"{text}: there is no home folder for {first} here. Write the folder in full.")
    return found


def names_in(folder: Path, what: str) -> list[str]:
    """Names of what is in a folder that need not be there yet; ``what`` is to be kept in it.

    Raises
    ------
    StorageError
        ``folder`` is a file, or cannot be read.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise StorageError(f"{folder} is a file; {what} needs a folder. Choose another name.")
    try:
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    except OSError as error:
        raise StorageError(f"{folder} cannot be read: {error}. Choose another folder.") from error


def file_to_write(path: str | os.PathLike[str]) -> Path:
    """``as_path``, after ``check_replaceable``: for a file that is made with effort and written at the end."""
    found = as_path(path)
    check_replaceable(found)
    return found


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, in a new folder beside ``path``; it takes the place of ``path`` when the block ends well.

    Raises
    ------
    StorageError
        In place of any ``OSError``, such as a full disk; or ``path`` is a folder or a device, which is left as it is.
    """
    _refuse_irregular(path)
    with folder_beside(path) as folder:
        beside = folder / path.name
        yield beside
        os.replace(beside, path)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A new folder beside ``path``, under a name of its own, that is removed when the block ends.

    Raises
    ------
    StorageError
        In place of any ``OSError`` in the block.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=_BESIDE, ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error}. Is there space and permission?") from error


def check_replaceable(path: Path) -> None:
    """Raise the ``StorageError`` that ``replacing`` would raise, before there is anything to write; leaves no trace."""
    _refuse_irregular(path)
    made = [folder for folder in path.parents if not os.path.exists(folder)]
    try:
        with folder_beside(path) as folder:
            # Makes sure of the name too: it may be too long, or have characters that the disk does not take.
            (folder / path.name).touch()
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _refuse_irregular(path: Path) -> None:
    if os.path.exists(path) and not os.path.isfile(path):
        what = "a folder" if os.path.isdir(path) else "no regular file"
        raise StorageError(f"{path} is {what}, so it is not replaced. Choose the name of a file.")


def json_ready(content: object) -> Any:
    """``content`` as strict JSON can hold it: arrays and sets as lists, a number that is not finite as null."""
    if isinstance(content, dict):
        return {str(key): json_ready(value) for key, value in content.items()}
    if isinstance(content, set | frozenset):
        content = sorted(content)
    if isinstance(content, np.ndarray | np.generic):
        content = content.tolist()
    if isinstance(content, list | tuple):
        return [json_ready(value) for value in content]
    if isinstance(content, float) and not np.isfinite(content):
        return None
    return content
