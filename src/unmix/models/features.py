r"""Features of images: a small classifier whose last hidden layer is the named extractor of an image metric.

Three convolutions, each halving the image, the mean over what is left, and a linear layer:

.. math:: f(x) = \mathrm{mean}_{hw}\, h_3(x), \qquad p(c \mid x) = \mathrm{softmax}(A f(x) + a)_c.

With instance normalisation every map of the first two layers is shifted and scaled to mean 0 and variance 1 over its
pixels, image by image, which takes out much of colour and contrast.

An extractor has a name that tells apart what is not the same: its kind and the first 8 digits of the SHA-256 of its
parameters. Any other ``nn.Module`` from images (batch, channels, height, width) in 0 … 1 to features serves as well.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unmix.errors import DataError

_CHUNK = 256
_LEAST = 1e-5


class FeatureNetwork(nn.Module):
    """Images (batch, channels, height, width) in 0 … 1 to class logits (batch, n_classes); seeded."""

    def __init__(
        self, channels: int, n_classes: int, width: int = 32, seed: int = 0, instance_norm: bool = False
    ) -> None:
        super().__init__()
        self.instance_norm = instance_norm
        widths = [channels, width, 2 * width, 2 * width]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.last = nn.Linear(widths[-1], n_classes)
        source = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                scale = (2 / parameter[0].numel()) ** 0.5 if parameter.dim() > 1 else 0.0
                parameter.copy_(scale * torch.randn(parameter.shape, generator=source))

    def features(self, x: Tensor) -> Tensor:
        """(batch, 2 · width)"""
        x = 2 * x - 1
        for place, layer in enumerate(self.convolutions):
            x = layer(x)
            if self.instance_norm and place < 2:
                # By hand: torch's own refuses maps of one pixel.
                variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
                x = (x - mean) * (variance + _LEAST).rsqrt()
            x = nn.functional.silu(x)
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.features(x))
        return logits


def as_input(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (n, height, width, channels) to float (n, channels, height, width) in 0 … 1."""
    return torch.from_numpy(images.astype(np.float32) / 255).permute(0, 3, 1, 2)


def extract(module: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What ``module`` makes of images (n, height, width, channels), flattened: (n, n_features).

    Raises
    ------
    DataError
        The module fails on the images, or gives something else than one tensor with a row for each.
    """
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    training = module.training
    module.eval()
    parts = []
    try:
        with torch.no_grad():
            for begin in range(0, len(images), _CHUNK):
                part = _features(module, as_input(images[begin : begin + _CHUNK]).to(device))
                parts.append(part.reshape(len(part), -1).cpu().double().numpy())
    finally:
        module.train(training)
    return np.concatenate(parts)


def _features(module: nn.Module, x: Tensor) -> Tensor:
    name = type(module).__name__
    try:
        found = module(x)
    except Exception as error:
        raise DataError(
            f"The extractor {name} failed on images (batch, channels, height, width) of shape {tuple(x.shape)}: "
            f"{type(error).__name__}: {error}. Pass a module that takes such images, or convert them."
        ) from error
    if not isinstance(found, Tensor) or found.shape[:1] != x.shape[:1]:
        came = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise DataError(
            f"The extractor {name} must make one tensor ({len(x)}, n_features) of {len(x)} images; got {came}. "
            "Wrap it in a module that returns the features alone."
        )
    return found


def fingerprint(module: nn.Module) -> str:
    """First 8 hexadecimal digits of the SHA-256 of names and values of the state; of its text where it has none."""
    state = module.state_dict()
    digest = hashlib.sha256(b"" if state else repr(module).encode())
    for name, value in state.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]
