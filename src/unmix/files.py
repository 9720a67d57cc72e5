"""Files are replaced as a whole: a crash leaves the old one or the new one, never half of it. JSON stays strict."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from unmix.errors import StorageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes the place of ``path`` when the block ends without an error.

    Raises
    ------
    StorageError
        In place of any ``OSError``, such as a full disk; or ``path`` is a folder or a device, which is left as it is.
    """
    check_replaceable(path)
    beside = _beside(path)
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            beside.unlink()


def check_replaceable(path: Path) -> None:
    """Raise the ``StorageError`` that ``replacing`` would raise, before there is anything to write."""
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise StorageError(f"{path} is {what}, so it is not replaced. Choose the name of a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _beside(path).touch()
        _beside(path).unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path} could not be written: {error}. Is there space and permission?")


def json_ready(content: Any) -> Any:
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
