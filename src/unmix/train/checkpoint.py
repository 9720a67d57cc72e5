"""Training states on disk: one safetensors file with a JSON header, replaced as a whole, never half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unmix.errors import StorageError
from unmix.files import replacing

FORMAT = 1


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
    except (SafetensorError, json.JSONDecodeError) as error:
        raise StorageError(f"{path} is damaged or not a safetensors file: {error}.") from error
    if header is None or header.get("format") != FORMAT:
        found = None if header is None else header.get("format")
        raise StorageError(
            f"{path} has format {found!r}; this version of unmix reads {FORMAT}. Was it written by unmix?"
        )
    return tensors, header
