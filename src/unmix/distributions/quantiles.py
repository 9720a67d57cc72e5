r"""Rows of discrete features by their quantiles: what η leaves of a count, and the count that leaves the same.

With u uniform between F(x - 1) and F(x), F the distribution function for η, u is uniform and independent of η if the
model holds, and so Φ⁻¹(u) is a standard normal residual (Dunn & Smyth 1996). A row that is carried to η' keeps its u:
x' = F'⁻¹(u) has the distribution of η', and x' = x where η' = η.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]


class Frozen(Protocol):
    """A frozen discrete distribution of scipy."""

    args: tuple[ArrayLike, ...]
    dist: Callable[..., Frozen]

    def rvs(self, *, size: tuple[int, ...], random_state: np.random.Generator) -> Floats: ...
    def mean(self) -> Floats: ...
    def pmf(self, k: Floats) -> Floats: ...
    def cdf(self, k: Floats) -> Floats: ...
    def sf(self, k: Floats) -> Floats: ...


_SAME = 1e-6
_LEAST = 1e-300


def carried(x: Floats, own: Frozen, moved: Frozen, change: Floats, rng: np.random.Generator) -> Floats:
    """``x`` of the frozen scipy distribution ``own``, carried to ``moved``; as it is where ``change`` is 0."""
    result = x.copy()
    tail, upper = _tail(x, own, rng.random(x.shape))
    for side, inverse in ((upper, "isf"), (~upper, "ppf")):
        place = side & (np.abs(change) > _SAME)
        if not place.any():
            continue
        found = getattr(_at(moved, place), inverse)(np.clip(tail[place], _LEAST, 1.0))
        result[place] = np.maximum(np.where(np.isfinite(found), found, x[place]), 0.0)
    return result


def normal_residuals(x: Floats, own: Frozen, rng: np.random.Generator) -> Floats:
    """Φ⁻¹(u) of every entry."""
    tail, upper = _tail(x, own, rng.random(x.shape))
    result: Floats = ndtri(np.maximum(tail, _LEAST))
    return np.where(upper, -result, result)


def _tail(x: Floats, own: Frozen, share: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """1 - u of the entries from the mean on (True), which may be small there, and u of those below it."""
    mass, upper = own.pmf(x), x >= own.mean()
    # Of 0, the smallest value, u is a share of its probability: no distribution function is asked for.
    above, below = upper & (x > 0), ~upper & (x > 0)
    tail = np.where(upper, 1.0 - mass, mass)
    tail[above], tail[below] = _at(own, above).sf(x[above]), _at(own, below).cdf(x[below])
    return tail + np.where(upper, share, -share) * mass, upper


def _at(distribution: Frozen, place: NDArray[np.bool_]) -> Frozen:
    """A frozen distribution of some entries of its parameters."""
    parameters = [np.broadcast_to(part, place.shape)[place] for part in distribution.args]
    return distribution.dist(*parameters)
