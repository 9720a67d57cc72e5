"""Image files before they are opened: found in a folder, a list or an archive, each with its domain.

No path may leave its folder or archive, be it by ``..``, an absolute path, a drive or a link; members of an archive are
read into memory and never unpacked to disk.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from unmix.data.annotated import is_store
from unmix.data.tables import holds_parquet, read_table
from unmix.errors import DataError

_ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".webp"),
)
_MEMBER_BYTES = 256 * 2**20
ARCHIVE_BYTES = 2**30
_ARCHIVE_RATIO = 100


class UnreadableError(Exception):
    """Why a file could not be opened, as the end of a sentence about it."""


@dataclass(frozen=True)
class ImageFile:
    """A file before it is opened: ``read`` gives its bytes as a seekable stream."""

    path: str
    domain: str
    read: Callable[[], IO[bytes]]


def _leaves(path: str, source: Path) -> DataError:
    return DataError(f"{path!r} leaves {source}, which no file of an image set may. Remove it or copy the file there.")


def holds_images(path: Path) -> bool:
    """Whether a path is read as images: a folder, a .zip, or a list of the two columns path and domain."""
    if is_store(path) or holds_parquet(path):
        return False
    ending = path.suffix.lower()
    if ending not in (".csv", ".tsv") or not path.is_file():
        return path.is_dir() or ending == ".zip"
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        names = file.readline().strip().split("," if ending == ".csv" else "\t")
    return {"path", "domain"} == {name.strip('"') for name in names}


def _inside(path: Path, folder: Path) -> bool:
    """Whether a path stays in a resolved folder; unlike ``Path.resolve``, a link to itself is no error here."""
    try:
        return Path(os.path.realpath(path)).is_relative_to(folder)
    except ValueError:
        return True


def folder_files(root: Path) -> list[ImageFile]:
    inside = root.resolve()
    found = []
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        for name in [*folders, *sorted(name for name in names if not _hidden(name))]:
            path = Path(place, name)
            if path.is_symlink() and (name in folders or not _inside(path, inside)):
                raise _leaves(path.relative_to(root).as_posix(), root)
            if name not in folders:
                found.append((path.relative_to(root).parts, path))
    return _with_domain([(parts, _reader(path)) for parts, path in found])


def listed_files(path: Path) -> list[ImageFile]:
    frame = read_table(path, features=(), text=("path", "domain"))
    lacking = [name for name in ("path", "domain") if name not in frame.columns]
    if lacking:
        raise DataError(f"{path} has no column {lacking[0]!r}; it has {[*frame.columns]}. Expected path and domain.")
    if bool(frame[["path", "domain"]].isna().to_numpy().any()):
        raise DataError(f"{path} has rows without a path or a domain. Fill them or drop them.")
    inside = path.parent.resolve()
    files = []
    for name, domain in zip(frame["path"].astype(str), frame["domain"].astype(str), strict=True):
        if not _inside(inside / name, inside):
            raise _leaves(name, path.parent)
        files.append(ImageFile(name, domain, _reader(inside / name)))
    return files


def _reader(path: Path) -> Callable[[], IO[bytes]]:
    def read() -> IO[bytes]:
        try:
            # Opening a pipe would wait for whoever writes to it.
            if path.exists() and not path.is_file():
                raise UnreadableError("is no regular file")
            return path.open("rb")
        except OSError as error:
            raise UnreadableError(f"could not be opened ({error.strerror})") from error
        except ValueError as error:
            raise UnreadableError(f"has a name that no file can have ({error})") from error

    return read


def _refusal(reason: str) -> Callable[[], IO[bytes]]:
    def read() -> IO[bytes]:
        raise UnreadableError(reason)

    return read


@contextmanager
def opened_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path} is damaged or not a .zip: {error}.") from error
    with archive:
        yield archive


def archive_files(archive: zipfile.ZipFile, path: Path) -> list[ImageFile]:
    """Members in memory; what an archive declares is checked here, and no member yields more than it declares."""
    found = []
    for member in archive.infolist():
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        if is_link or ".." in parts or parts[:1] == ("/",) or PureWindowsPath(member.filename).drive:
            raise _leaves(member.filename, path)
        if member.flag_bits & 1:
            raise DataError(f"{path} is encrypted ({member.filename}). Pass an archive without a password.")
        if not member.is_dir() and not any(map(_hidden, parts)):
            found.append((parts, member))
    total, packed = sum(member.file_size for _, member in found), path.stat().st_size
    largest = max((member.file_size for _, member in found), default=0)
    if largest > _MEMBER_BYTES or total > max(ARCHIVE_BYTES, _ARCHIVE_RATIO * packed):
        raise DataError(
            f"{path} of {packed} bytes would unpack to {total} bytes, its largest file to {largest}: more than images "
            "need. If that is right, unpack it yourself and pass the folder."
        )

    def reader(member: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
        return lambda: io.BytesIO(archive.read(member))

    return _with_domain([(parts, reader(member)) for parts, member in found])


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _with_domain(found: Sequence[tuple[tuple[str, ...], Callable[[], IO[bytes]]]]) -> list[ImageFile]:
    """The first folder is the domain; a single folder around all the others is not.

    Where no image lies in a folder, all are of one domain. Otherwise a file in no folder of a domain is refused when it
    is read, and so is one with a name that is not UTF-8.
    """
    shown = [tuple(_text(part) for part in parts) for parts, _ in found]
    # A README beside the domains, in the folder around them, makes that folder no domain.
    likely = [parts for parts in shown if PurePosixPath(parts[-1]).suffix.lower() in ("", *_ENDINGS)] or shown
    flat = all(len(parts) == 1 for parts in likely)
    depth = 0
    while likely and all(len(parts) > depth + 2 for parts in likely) and len({parts[depth] for parts in likely}) == 1:
        depth += 1
    files = []
    for (parts, read), names in zip(found, shown, strict=True):
        if names != parts:
            read = _refusal("has a name that is not UTF-8 (rename it)")
        elif len(parts) < depth + 2 and not flat:
            read = _refusal("lies in no folder of a domain (move it into one)")
        domain = "all" if flat else names[min(depth, len(names) - 1)]
        files.append(ImageFile("/".join(names), domain, read))
    return files


def _text(name: str) -> str:
    """A name that can be written: bytes that are not UTF-8 become escapes."""
    return name.encode(errors="backslashreplace").decode()
