"""Which feature depends on which latent: supports of stated structure, all with full column rank for generic values.

- random: every (feature, latent) pair by itself, with probability ``density``;
- columns: every latent drives exactly ``round(density * n_features)`` features;
- blocks: latents in groups of ``block_size``; a feature depends on all latents of one group, and on no other;
- overlapping: as blocks, but a feature depends on the first latent of the next group as well.

A support is *triangular* when features can be read one after the other, each adding one latent to those that are known
already. That makes the sparse flow of ``unmix.datasets.mixings`` invertible by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from unmix.errors import SettingError
from unmix.theory import check_support, domains_needed, needs_at_most

Structure = Literal["random", "columns", "blocks", "overlapping"]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

STRUCTURES = ("random", "columns", "blocks", "overlapping")
_DRAWS = 20_000
# Entries that may be drawn in all: large supports get fewer draws, so that a hopeless search ends within seconds.
ENTRIES = 20_000_000


@dataclass(frozen=True)
class Plan:
    """What a support is to be: sizes, structure, and whether it must be triangular."""

    n_latents: int
    n_features: int
    structure: Structure = "random"
    density: float = 0.5
    block_size: int = 2
    triangular: bool = False

    def __str__(self) -> str:
        extent = (
            f"density={self.density}" if self.structure in ("random", "columns") else f"block_size={self.block_size}"
        )
        return f"structure={self.structure!r}, n_latents={self.n_latents}, n_features={self.n_features}, {extent}"


def draw_support(rng: np.random.Generator, plan: Plan, limit: int | None) -> tuple[Bools, int]:
    """A support that maps the latents one to one, and needs at most ``limit`` domains; with the domains it needs."""
    fixed = plan.structure in ("blocks", "overlapping") and not plan.triangular
    draws = 1 if fixed else min(_DRAWS, max(1, ENTRIES // (plan.n_latents * plan.n_features)))
    for _ in range(draws):
        support = _DRAW[plan.structure](rng, plan)
        if plan.triangular:
            support = _made_triangular(rng, support, plan)
        if not support.any(axis=0).all():
            continue
        values = rng.uniform(0.5, 1.5, support.shape) * support
        # The count comes first: on large supports it fails after two small decompositions.
        if limit is not None and not needs_at_most(support, limit):
            continue
        if _full_rank(values):
            return support, domains_needed(support).needed
    raise SettingError(
        f"No support with {plan} "
        + ("maps the latents one to one" if limit is None else f"that needs at most {limit} domains")
        + f" in {draws} draws. Lower the density or block_size, add features or add domains."
    )


def accept_support(rng: np.random.Generator, support: ArrayLike, plan: Plan, limit: int | None) -> tuple[Bools, int]:
    """A given support, held to the same conditions as a drawn one."""
    mask = check_support(support)
    if mask.shape != (plan.n_features, plan.n_latents):
        raise SettingError(
            f"support has shape {mask.shape}, not (n_features, n_latents) = {(plan.n_features, plan.n_latents)}. "
            f"Pass n_features={mask.shape[0]}, n_latents={mask.shape[1]} as well."
        )
    if not mask.any(axis=1).all():
        empty = np.flatnonzero(~mask.any(axis=1))[:5].tolist()
        raise SettingError(f"Features {empty} of the support depend on no latent. Give each one at least one parent.")
    if not _full_rank(rng.uniform(0.5, 1.5, mask.shape) * mask):
        raise SettingError(
            "The support does not map the latents one to one: no choice of one own feature for every latent exists. "
            "Add features or parents."
        )
    needed = domains_needed(mask).needed
    if limit is not None and needed > limit:
        raise SettingError(
            f"The support needs {needed} domains, but there are {limit} and guaranteed=True. "
            "Add domains, use a sparser support, or leave guaranteed out."
        )
    return mask, needed


def _full_rank(values: NDArray[np.float64]) -> bool:
    return int(np.linalg.matrix_rank(values)) == values.shape[1]


def _random(rng: np.random.Generator, plan: Plan) -> Bools:
    support = rng.random((plan.n_features, plan.n_latents)) < plan.density
    adopted = rng.integers(plan.n_latents, size=plan.n_features)
    support[np.arange(plan.n_features), adopted] |= ~support.any(axis=1)
    return support


def _columns(rng: np.random.Generator, plan: Plan) -> Bools:
    children = round(plan.density * plan.n_features)
    if children < 1 or children * plan.n_latents < plan.n_features:
        raise SettingError(
            f"With density={plan.density} a latent drives {children} features, which leaves some of {plan.n_features} "
            f"without a parent. structure='columns' needs density ≥ 1 / n_latents = {1 / plan.n_latents:.3g}."
        )
    first = np.arange(plan.n_features)[:, None] < np.full(plan.n_latents, children)
    support = rng.permuted(first, axis=0)
    # A feature without a parent takes one from a feature that has several: the columns keep their sums.
    for orphan in np.flatnonzero(~support.any(axis=1)):
        rich = rng.choice(np.flatnonzero(support.sum(axis=1) > 1))
        latent = rng.choice(np.flatnonzero(support[rich]))
        support[rich, latent], support[orphan, latent] = False, True
    return support


def _blocks(rng: np.random.Generator, plan: Plan) -> Bools:
    group = np.arange(plan.n_latents) // plan.block_size
    # Features go round the latents, so that every group has at least as many features as latents.
    owner = np.sort(np.arange(plan.n_features) % plan.n_latents)
    return np.asarray(group[owner][:, None] == group)


def _overlapping(rng: np.random.Generator, plan: Plan) -> Bools:
    if plan.n_latents <= plan.block_size:
        raise SettingError(
            f"structure='overlapping' needs at least two groups of latents; got n_latents={plan.n_latents} and "
            f"block_size={plan.block_size}. Make block_size smaller than n_latents."
        )
    support = _blocks(rng, plan)
    shared = np.arange(plan.block_size, plan.n_latents, plan.block_size)
    support[:, shared] |= support[:, shared - 1]
    return support


_DRAW = {"random": _random, "columns": _columns, "blocks": _blocks, "overlapping": _overlapping}


@dataclass(frozen=True)
class Order:
    """How a triangular support is read.

    ``position[i]``: when latent i is added. ``own[k]``: the latent that feature k adds; -1: none, it comes on top.
    """

    position: Ints
    own: Ints

    @property
    def allowed(self) -> Bools:
        """Entries that keep the support triangular: a feature that adds a latent does not depend on later ones."""
        later = self.position > self.position[self.own][:, None]
        return ~(later & (self.own >= 0)[:, None])


def read_order(support: Bools) -> Order:
    """The order in which a triangular support is read; a ``SettingError`` if it is not triangular."""
    n_features, n_latents = support.shape
    own, position = np.full(n_features, -1), np.full(n_latents, -1)
    unknown = support.copy()
    for step in range(n_latents):
        ready = np.flatnonzero(unknown.sum(axis=1) == 1)
        if not len(ready):
            raise SettingError(
                f"mixing='flow' needs a triangular support: after {step} latents every other feature depends on two or "
                "more that are not known yet. Remove parents, or use mixing='features'."
            )
        latent = int(np.flatnonzero(unknown[ready[0]])[0])
        own[ready[0]], position[latent] = latent, step
        unknown[:, latent] = False
    return Order(position, own)


def _made_triangular(rng: np.random.Generator, support: Bools, plan: Plan) -> Bools:
    """Each latent gets a feature of its own, which drops the latents that come later in a random order.

    Where the structure counts features (random, columns), a latent gets other features for those it lost.
    """
    n_features, n_latents = support.shape
    feature = maximum_bipartite_matching(csr_array(support), perm_type="row")
    if (feature < 0).any():
        return support
    own = np.full(n_features, -1)
    own[feature] = np.arange(n_latents)
    allowed = Order(rng.permutation(n_latents), own).allowed
    kept = support & allowed
    if plan.structure not in ("random", "columns"):
        return kept
    for latent in range(n_latents):
        lost = int(support[:, latent].sum() - kept[:, latent].sum())
        room = np.flatnonzero(allowed[:, latent] & ~kept[:, latent])
        if plan.structure == "columns" and lost > len(room):
            raise SettingError(
                f"mixing='flow' leaves no room for {round(plan.density * n_features)} features per latent. "
                f"Use a density of at most {(n_features - n_latents + 1) / n_features:.3g}, or more features."
            )
        kept[rng.choice(room, min(lost, len(room)), replace=False), latent] = True
    return kept


def draw_weak_edges(rng: np.random.Generator, support: Bools, violation: float, allowed: Bools) -> Bools:
    """A share ``violation`` of the zeros of ``support``, drawn among those that are ``allowed``."""
    count = round(violation * int((~support).sum()))
    room = np.flatnonzero(~support & allowed)
    if count > len(room):
        raise SettingError(
            f"violation={violation} asks for {count} extra edges, but mixing='flow' has room for {len(room)}. "
            "Lower violation, or use mixing='features'."
        )
    weak = np.zeros(support.size, dtype=bool)
    weak[rng.choice(room, count, replace=False)] = True
    return weak.reshape(support.shape)
