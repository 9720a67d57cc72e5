"""Methods that map labelled rows to the features of a target domain, for a head that is then applied there.

Two are closed forms. Where the package ``skada`` is installed (``pip install skada``), its CORAL, whose covariances are
shrunk and whose target is centred as well, and its exact optimal transport of the rows are added.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Alignment = Callable[[Floats, Floats], tuple[Floats, Floats]]


def alignments() -> dict[str, Alignment]:
    """By name, what makes of source (rows, features) and target (rows, features) rows that can be compared."""
    found: dict[str, Alignment] = {
        "CORAL": lambda source, target: (coral(source, target), target),
        "Gaussian transport": lambda source, target: (gaussian_transport(source, target), target),
    }
    if find_spec("skada") is not None:
        found["CORAL (skada)"] = lambda source, target: _skada("CORALAdapter", source, target)
        found["optimal transport (skada)"] = lambda source, target: _skada("OTMappingAdapter", source, target)
    return found


def coral(source: Floats, target: Floats) -> Floats:
    """``source`` whitened and given the covariance of ``target`` (Sun, Feng, Saenko 2016, arXiv:1511.05547)."""
    own, other = (np.cov(part.T) + np.eye(part.shape[1]) for part in (source, target))
    mapped: Floats = source @ _power(own, -0.5) @ _power(other, 0.5)
    return mapped


def gaussian_transport(source: Floats, target: Floats, ridge: float = 0.1) -> Floats:
    """``source`` under the optimal transport map between the Gaussians that fit both (Knott and Smith 1984)."""
    own, other = (np.cov(part.T) + ridge * np.eye(part.shape[1]) for part in (source, target))
    root, back = _power(own, 0.5), _power(own, -0.5)
    mapped: Floats = target.mean(axis=0) + (source - source.mean(axis=0)) @ (
        back @ _power(root @ other @ root, 0.5) @ back
    )
    return mapped


def _power(matrix: Floats, power: float) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    result: Floats = (vectors * np.maximum(values, 1e-12) ** power) @ vectors.T
    return result


def _skada(adapter: str, source: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Both by an adapter of skada."""
    domain = np.repeat([1, -2], [len(source), len(target)])
    method = getattr(import_module("skada"), adapter)()
    moved = np.asarray(method.fit_transform(np.vstack([source, target]), None, sample_domain=domain), dtype=float)
    return moved[: len(source)], moved[len(source) :]
