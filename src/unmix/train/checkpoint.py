"""Training states on disk: one safetensors file with a JSON header, replaced as a whole, never half-written.

The header holds the SHA-256 of the whole file, taken with zeros in its own place: a file that a disk or a copy has
changed is refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from unmix.data.batches import Rows
from unmix.errors import SettingError, StorageError
from unmix.files import check_replaceable, replacing

FORMAT = 2
_UNSUMMED = 1
_BLANK = "0" * 64
# With these quotes around it the sum has one place; in the text of the header they are escaped.
_SUM = '"sha256":"{}"'
# Of the format of safetensors.
_LONGEST_HEADER = 100_000_000
# Numbers of x that tell data apart: 64 MB, read in a fraction of a second.
_NUMBERS_HASHED = 2**24


def write_state(path: Path, tensors: dict[str, Tensor], header: dict[str, object]) -> None:
    """Write beside ``path``, then replace it: a crash leaves the old file or the new one."""
    values = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content = save(values, metadata={"unmix": json.dumps({"format": FORMAT, **header}), "sha256": _BLANK})
    blank, digest = _SUM.format(_BLANK), _SUM.format(hashlib.sha256(content).hexdigest())
    with replacing(path) as beside:
        beside.write_bytes(content.replace(blank.encode(), digest.encode(), 1))


def read_state(path: Path, remedy: str = "Write it anew.") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of ``write_state``.

    Raises
    ------
    StorageError
        The file is not there, is no such file, or not as it was written; ``remedy`` says what to do then.
    """
    if not path.is_file():
        raise StorageError(f"There is no file at {path}. Check the path.")
    try:
        content = path.read_bytes()
        words = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
        header = json.loads(words.get("unmix", "null"))
        tensors = load(content)
    except (SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise StorageError(f"{path} is damaged or not a safetensors file: {error}. {remedy}") from error
    if (found := header.get("format") if isinstance(header, dict) else None) not in (FORMAT, _UNSUMMED):
        raise StorageError(
            f"{path} has format {found!r}; this version of unmix reads {FORMAT}. Was it written by unmix?"
        )
    # Format 1 kept no sum.
    if found == FORMAT and not _as_written(content, str(words.get("sha256"))):
        raise StorageError(f"{path} is damaged: it is not as it was written. {remedy}")
    return tensors, header


def _as_written(content: bytes, digest: str) -> bool:
    place, view = content.find(_SUM.format(digest).encode()), memoryview(content)
    if place < 0:
        return False
    expected = hashlib.sha256(view[:place])
    expected.update(_SUM.format(_BLANK).encode())
    expected.update(view[place + len(_SUM.format(digest)) :])
    return expected.hexdigest() == digest


@dataclass(frozen=True)
class Checkpoint:
    """The file of a run, and a digest of all that a run must share with the one that it continues.

    ``beside``: of a further start the name of the checkpoint that the user asked for; the run may remove its own then.
    """

    path: Path
    digest: str
    beside: str | None = None

    def write(self, tensors: dict[str, Tensor], progress: dict[str, object]) -> None:
        write_state(self.path, tensors, {"run": self.digest, "beside": self.beside, "progress": progress})

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and progress, of the same run only."""
        tensors, header = read_state(self.path, "Start anew without resuming.")
        if header["format"] != FORMAT:
            raise StorageError(
                f"{self.path} was written by another version of unmix. Use that version, or start anew without "
                "resuming."
            )
        if header.get("run") != self.digest:
            raise StorageError(
                f"{self.path} belongs to a run with other settings or data; it can be resumed only with "
                "the same. Start anew without resuming."
            )
        return tensors, header["progress"]


def checkpoint_of(
    path: Path | None,
    model: nn.Module,
    settings: object,
    schema: object,
    rows: tuple[Rows, ...],
    *,
    resume: bool,
    beside: str | None = None,
) -> Checkpoint | None:
    """The checkpoint of a run that is about to start; None without a ``path``.

    Parameters
    ----------
    path : where it is to be
    model, settings, rows : what is trained, by what loop, on what
    schema : what names columns and domains; distinguished by its ``repr``
    resume : whether the run continues from it
    beside : as in ``Checkpoint``

    Raises
    ------
    SettingError
        ``resume`` without a ``path``.
    StorageError
        A file cannot be written there.
    """
    if path is None:
        if resume:
            raise SettingError("resume=True continues from a file; pass its path as checkpoint=.")
        return None
    check_replaceable(path)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    digest = hashlib.sha256(repr((settings, model.config, schema, shapes, [len(own) for own in rows])).encode())
    for own in rows:
        numbers = len(own) * own.take(slice(0, 1)).x.numel()
        some = own.take(slice(None, None, max(1, -(-numbers // _NUMBERS_HASHED))))
        for values in (some.x, some.observed, own.codes, own.values):
            if values is not None:
                digest.update(values.cpu().numpy().tobytes())
    return Checkpoint(path, digest.hexdigest(), beside)


def is_checkpoint(path: Path, beside: str | None = None) -> bool:
    """Whether a file is a checkpoint of unmix; with ``beside``, one that a run made beside that of this name."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            words = json.loads(file.read(min(size, _LONGEST_HEADER))).get("__metadata__", {})
        header = json.loads(words.get("unmix", "null"))
    except (OSError, ValueError, TypeError, AttributeError):
        return False
    return isinstance(header, dict) and "run" in header and (beside is None or header.get("beside") == beside)
