"""What a study draws and measures beside its methods: generators and metrics, those of a user's own among them.

A generator is a function with ``n_samples`` and ``random_state`` among its options. It returns an object with ``x``
(n_samples, n_features), ``z`` (n_samples, n_latents) and ``domains``, labels or a table of columns; where they have
any, also ``auxiliary`` (kinds of the columns) and ``support`` (n_features, n_latents). A metric is a function
``metric(z, latents)`` of true and found latents of fresh rows, higher or lower as it likes, which returns a number; it
is given ``domains`` of these rows, the drawn ``data`` and the fitted ``model`` where it has arguments of these names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmix.datasets import MixingData, make_sparse_mixing
from unmix.errors import DataError, SettingError
from unmix.numbers import is_number
from unmix.own import found, import_name

Function: TypeAlias = str | Callable[..., object]
"""A function, or where it is: ``"package.module:name"``."""

_NEEDED = ("n_samples", "random_state")


@dataclass(frozen=True)
class Drawn:
    """A problem: rows, their true latents and domains, and what else the generator knows of it."""

    x: NDArray[np.floating]
    z: NDArray[np.floating]
    domains: Any
    auxiliary: Mapping[str, str] = field(default_factory=dict)
    support: NDArray[np.bool_] | None = None
    domains_needed: float = float("nan")
    source: object = None

    @property
    def injective(self) -> bool | None:
        """Whether the mixing is one to one on these rows; None where the generator cannot say."""
        return bool(self.source.check_injective().injective) if isinstance(self.source, MixingData) else None


def name_of(function: Function) -> str:
    """The import name of a function."""
    if isinstance(function, str):
        return function
    try:
        return import_name(function)
    except TypeError as error:
        raise SettingError(
            f"A generator or metric must be a function that a module defines by name; got {function!r}."
        ) from error


def function_of(function: Function, what: str) -> Callable[..., Any]:
    """The function itself, imported where only its name is given."""
    own = found(function, what) if isinstance(function, str) else function
    if not callable(own):
        raise SettingError(f"The {what} {function!r} is a {type(own).__name__}. Name a function.")
    return own


def options_of(generator: Function | None) -> dict[str, object]:
    """Options of a generator with their defaults, without ``random_state``; None: ``make_sparse_mixing``.

    Raises
    ------
    SettingError
        It is no function with ``n_samples`` and ``random_state``.
    """
    own = make_sparse_mixing if generator is None else function_of(generator, "generator")
    words = inspect.signature(own).parameters
    lacking = [name for name in _NEEDED if name not in words]
    if lacking:
        raise SettingError(
            f"The generator {name_of(own)!r} must take n_samples and random_state; it takes {[*words]}. Add "
            f"{' and '.join(lacking)}."
        )
    return {name: word.default for name, word in words.items() if name != "random_state"}


def draw(generator: Function | None, problem: Mapping[str, Any], n_samples: int, seed: int) -> Drawn:
    """A problem of ``n_samples`` rows.

    Raises
    ------
    DataError
        The generator of a user's own returns something else.
    """
    own = make_sparse_mixing if generator is None else function_of(generator, "generator")
    data = own(**{**problem, "n_samples": n_samples, "random_state": seed})
    if isinstance(data, MixingData):
        return Drawn(data.x, data.z, data.domains, data.auxiliary, data.support, data.domains_needed, data)
    said = f"The generator {name_of(own)!r} must return an object with x, z and domains"
    lacking = [name for name in ("x", "z", "domains") if not hasattr(data, name)]
    if lacking:
        raise DataError(f"{said}; a {type(data).__name__} without {' and '.join(lacking)} came.")
    x, z = np.asarray(data.x), np.asarray(data.z)
    if x.ndim != 2 or z.ndim != 2 or len(x) != n_samples or len(z) != n_samples or len(data.domains) != n_samples:
        raise DataError(
            f"{said} of n_samples = {n_samples} rows each, x and z as matrices; got x {x.shape}, z {z.shape} and "
            f"{len(data.domains)} domains."
        )
    domains = data.domains if isinstance(data.domains, pd.DataFrame) else np.asarray(data.domains)
    support = getattr(data, "support", None)
    if support is not None and np.shape(support) != (x.shape[1], z.shape[1]):
        raise DataError(f"{said}; its support has shape {np.shape(support)}, not {(x.shape[1], z.shape[1])}.")
    return Drawn(x, z, domains, getattr(data, "auxiliary", None) or {}, support, source=data)


def measured(metric: Function, name: str, z: object, latents: object, beside: Mapping[str, object]) -> float:
    """The value of a metric; it gets those of ``beside`` that it has arguments for.

    Raises
    ------
    DataError
        It returns no number.
    """
    own = function_of(metric, "metric")
    words = inspect.signature(own).parameters
    value = own(z, latents, **{key: given for key, given in beside.items() if key in words})
    if not is_number(value):
        raise DataError(f"The metric {name!r} must return a finite number; got {value!r}.")
    return float(value)
