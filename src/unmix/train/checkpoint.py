"""Training states on disk: one safetensors file with a JSON header, replaced as a whole, never half-written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unmix.data.batches import Rows
from unmix.errors import SettingError, StorageError
from unmix.files import check_replaceable, replacing

FORMAT = 1
# Numbers of x that tell data apart: 64 MB, read in a fraction of a second.
_NUMBERS_HASHED = 2**24


def write_state(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write beside ``path``, then replace it: a crash leaves the old file or the new one."""
    content = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as beside:
        beside.write_bytes(save(content, metadata={"unmix": json.dumps({"format": FORMAT, **header})}))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of ``write_state``."""
    if not path.is_file():
        raise StorageError(f"There is no file at {path}. Check the path.")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("unmix", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise StorageError(f"{path} is damaged or not a safetensors file: {error}.") from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT:
        raise StorageError(
            f"{path} has format {found!r}; this version of unmix reads {FORMAT}. Was it written by unmix?"
        )
    return tensors, header


@dataclass(frozen=True)
class Checkpoint:
    """The file of a run, and a digest of all that a run must share with the one that it goes on with."""

    path: Path
    digest: str

    def write(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        write_state(self.path, tensors, {"run": self.digest, "progress": progress})

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and progress, of the same run only."""
        tensors, header = read_state(self.path)
        if header.get("run") != self.digest:
            raise StorageError(
                f"{self.path} belongs to a run with other settings or data; it can be resumed only with "
                "the same. Start anew without resuming."
            )
        return tensors, header["progress"]


def checkpoint_of(
    path: Path | None, model: Any, settings: Any, schema: Any, rows: tuple[Rows, ...], *, resume: bool
) -> Checkpoint | None:
    """The checkpoint of a run that is about to start; None without a ``path``.

    Parameters
    ----------
    path : where it is to be
    model, settings, rows : what is trained, by what loop, on what
    schema : what names columns and domains; told apart by its ``repr``
    resume : whether the run goes on from it

    Raises
    ------
    SettingError
        ``resume`` without a ``path``.
    StorageError
        A file cannot be written there.
    """
    if path is None:
        if resume:
            raise SettingError("resume=True goes on from a file; pass its path as checkpoint=.")
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
    return Checkpoint(path, digest.hexdigest())
