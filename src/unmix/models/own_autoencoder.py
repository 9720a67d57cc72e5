"""An encoder and a decoder of the user's own as the first stage: functions of arrays, or torch modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from unmix.data.pictures import Images
from unmix.errors import SettingError
from unmix.numbers import is_whole

Floats = NDArray[np.float64]
Part = Callable[[Any], ArrayLike] | nn.Module

Found = TypeVar("Found")

_AT_ONCE = 256
_TRIED = 4


class OwnAutoencoder:
    """``Autoencoder`` of two functions: ``encode`` of images (n, height, width, channels) uint8, ``decode`` of codes.

    A module takes, or gives, images (n, channels, height, width) float32 from 0 to 1 on its own device instead.
    """

    def __init__(self, encode: Part, decode: Part) -> None:
        self._encode, self._decode = encode, decode

    def encode(self, images: Images) -> Floats:
        parts = [self._codes(images[begin : begin + _AT_ONCE]) for begin in range(0, len(images), _AT_ONCE)]
        return np.concatenate(parts)

    def decode(self, codes: Floats) -> Images:
        return np.concatenate(
            [self._images(codes[begin : begin + _AT_ONCE]) for begin in range(0, len(codes), _AT_ONCE)]
        )

    def check(self, images: Images) -> None:
        """Raise ``SettingError`` where it does not give codes of ``images``, the same twice, and images of codes."""
        some = images[:_TRIED]
        codes, again = (self._tried("encode", self.encode, some) for _ in range(2))
        shape = np.shape(codes)
        if len(shape) != 2 or shape[0] != len(some) or not is_whole(shape[1], 1) or not np.isfinite(codes).all():
            raise SettingError(
                f"The encoder of autoencoder= must give finite codes ({len(some)}, n_codes) of {len(some)} images; got "
                f"shape {shape}."
            )
        if not np.allclose(codes, again, rtol=1e-4, atol=1e-4 * float(np.abs(codes).max())):
            raise SettingError(
                "The encoder of autoencoder= must give the same codes of the same images; they differ from call to "
                "call. Return the mean of a code instead of a draw."
            )
        back = self._tried("decode", self.decode, codes)
        if np.shape(back) != some.shape:
            raise SettingError(
                f"The decoder of autoencoder= must give images {some.shape} of their codes; got shape {np.shape(back)}."
            )

    def _tried(self, word: str, call: Callable[[Any], Found], values: Any) -> Found:
        try:
            return call(values)
        except SettingError:
            raise
        except Exception as error:
            raise SettingError(
                f"The {word}r of autoencoder= failed on an array of shape {np.shape(values)}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _codes(self, images: Images) -> Floats:
        if not isinstance(self._encode, nn.Module):
            return np.asarray(self._encode(images), dtype=np.float64)
        x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
        return _run(self._encode, x)

    def _images(self, codes: Floats) -> Images:
        if isinstance(self._decode, nn.Module):
            levels = 255 * _run(self._decode, torch.from_numpy(codes).float()).transpose(0, 2, 3, 1)
        else:
            levels = np.asarray(self._decode(codes))
            if levels.dtype == np.uint8:
                return np.asarray(levels, np.uint8)
            if levels.dtype.kind != "f" or not np.isfinite(levels).all():
                raise SettingError(
                    f"The decoder of autoencoder= must give images as numbers from 0 to 255; got {levels.dtype}."
                )
        return np.rint(levels).clip(0, 255).astype(np.uint8)


@torch.no_grad()
def _run(module: nn.Module, x: torch.Tensor) -> Floats:
    """What a module makes of ``x``, on its own device and as in use, not as in training."""
    place = next((own.device for own in module.parameters()), torch.device("cpu"))
    training = module.training
    module.eval()
    try:
        found: Floats = module(x.to(place)).detach().cpu().double().numpy()
    finally:
        module.train(training)
    return found
