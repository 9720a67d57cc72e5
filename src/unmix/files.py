"""Files are replaced as a whole: a crash leaves the old one or the new one, never half of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unmix.errors import StorageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes the place of ``path`` when the block ends without an error.

    Raises
    ------
    StorageError
        In place of any ``OSError``, such as a full disk.
    """
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error}. Is there space and permission?") from error
    finally:
        with suppress(OSError):
            beside.unlink()
