"""Which route of ``docs/theory.md`` separates a pair of latents: structure, changes, or scales."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unmix.audit.sparsity import Sets, Support

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Shared = frozenset[int]

ROUTES = ("none", "structure", "changes", "scales")
STRUCTURE, CHANGES, SCALES = 1, 2, 3


class Routes(Protocol):
    """Decides whether latents that share a set are separated, from measured or from planned changes."""

    def separates(self, shared: Shared) -> bool: ...

    def by_scales(self, shared: Shared) -> bool: ...

    def lacking(self, shared: Shared) -> int: ...


def tied(sets: Sets, a: int, b: int, dependent: Bools) -> set[int]:
    """Latents whose dependence within domains keeps changes from separating a and b, for free sets ``sets``."""
    found = {i for i in sets[a] & sets[b] if dependent[i].any()}
    for i in sets[a]:
        found |= {k for j in sets[b] if dependent[i, j] for k in (i, j)}
    return found


def pair_routes(sets: Sets, routes: Routes, dependent: Bools) -> Ints:
    """Index into ``ROUTES`` of the route that separates every pair (n_latents, n_latents), for free sets ``sets``.

    ``dependent`` (n_latents, n_latents): pairs that depend on each other within domains.
    """
    n = len(sets)
    shared = {(a, b): sets[a] & sets[b] for a in range(n) for b in range(a + 1, n)}
    some = bool(dependent.any())
    barred = {pair: some and bool(tied(sets, *pair, dependent)) for pair, s in shared.items() if s}
    scales = {pair: not barred[pair] and routes.by_scales(s) for pair, s in shared.items() if s}
    # A latent whose square has no mixed derivative for any pair that shares it depends on one estimated latent alone.
    spoilt = {i for pair, good in scales.items() if not good for i in shared[pair]}
    result = np.zeros((n, n), dtype=np.int64)
    for (a, b), s in shared.items():
        if not s:
            route = STRUCTURE
        elif barred[a, b]:
            route = 0
        else:
            route = CHANGES if routes.separates(s) else 0 if s & spoilt else SCALES
        result[a, b] = result[b, a] = route
    return result


def route_shares(support: Support, routes: Routes, dependent: Bools) -> Floats:
    """Share of the draws of the support in which each of ``ROUTES`` separates each pair (4, n_latents, n_latents)."""
    total = np.zeros((len(ROUTES), support.n_latents, support.n_latents))
    for sets, share in support.distinct():
        found = pair_routes(sets, routes, dependent)
        for route in range(len(ROUTES)):
            total[route] += share * (found == route)
    # Sums of shares: without rounding, nine tenths in ten parts could be less than nine tenths.
    return total.round(9)
