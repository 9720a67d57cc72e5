"""Constructor parameters as JSON holds them, and an estimator made of saved ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.base import BaseEstimator

from unmix.errors import SettingError, StorageError
from unmix.own import imported_from, plain_import
from unmix.version import __version__

Own = TypeVar("Own")


def plain_settings(estimator: BaseEstimator, seed: int) -> dict[str, object]:
    """Constructor parameters as JSON holds them, with the seed that the random state gave.

    Raises
    ------
    SettingError
        For a word that could not be saved with the model: called before training, for afterwards is too late.
    """
    found: dict[str, object] = {}
    for name, value in {**estimator.get_params(deep=False), "random_state": seed}.items():
        try:
            found[name] = _plain(value)
        except TypeError as error:
            raise SettingError(
                f"{name} must be made of numbers, text, True, False and None, or be a class or function that a module "
                "defines by name, or a functools.partial of one: else it could not be saved with the model; got "
                f"{value!r}."
            ) from error
    return found


def live_settings(plain: Mapping[str, object]) -> dict[str, Any]:
    """Constructor parameters of those of ``plain_settings``: classes and functions again in place of their names.

    Raises
    ------
    StorageError
        One of them has not been imported.
    """
    return {name: imported_from(value) for name, value in plain.items()}


def _plain(value: object) -> object:
    if isinstance(value, torch.device | str):
        return str(value)
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(own) for own in value]
    named = plain_import(value)
    return {key: own if isinstance(own, str) else _plain(own) for key, own in named.items()}


def restored(
    kind: Callable[..., Own], words: Mapping[str, object], check: Callable[[Own], None], where: str | Path
) -> Own:
    """An estimator with saved words, after ``check``; ``where`` they are saved is what an error names.

    Raises
    ------
    StorageError
        A word, or its value, is none that this version takes.
    """
    words = live_settings(words)
    unknown = sorted(set(words) - set(inspect.signature(kind).parameters))
    try:
        if unknown:
            raise SettingError(f"there is no {', '.join(unknown)}.")
        estimator = kind(**words)
        check(estimator)
    except SettingError as error:
        raise StorageError(
            f"{where} has a setting that {kind.__name__} of unmix {__version__} does not take: {error} Another version "
            "wrote it, or it was changed. Install the newest version, or fit and save the model again."
        ) from error
    return estimator
