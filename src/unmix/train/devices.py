"""Which device computes: named, or the best available."""

from __future__ import annotations

import torch

from unmix.errors import SettingError


def pick_device(name: str | torch.device) -> torch.device:
    """``"auto"``: CUDA, else Apple's MPS, else CPU. Everything runs in float32, so every device can serve.

    Raises
    ------
    SettingError
        The device does not exist or cannot be used.
    """
    if isinstance(name, str) and name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise SettingError(
            f'device={name!r} cannot be used here: {error}. Pass "auto", "cpu", "cuda" or "mps".'
        ) from error
    return device


def wait_for(device: torch.device) -> None:
    """Until all work on ``device`` is done, before the clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
