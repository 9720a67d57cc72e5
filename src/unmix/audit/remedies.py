"""Changes that would help: the count is repeated with one change, to see which latents it makes identified.

Changes tried: more domains (each one a new direction in which the latents concerned differ), one more feature
that depends on a single latent, one latent fewer. The count is for the most likely support with generic values, or for
a dense one if the zeros are not credible; latents that depend on each other within domains stay together.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from unmix.audit.finding import listed
from unmix.audit.routes import Routes, Shared, pair_routes
from unmix.numbers import counted
from unmix.theory import free_sets, undetermined

Bools = NDArray[np.bool_]
_MOST_TRIED = 20


@dataclass(frozen=True)
class Remedy:
    """A change in words, the latents that it makes identified, and how many domains, features or latents it concerns.

    ``effect``: its benefit in words, if that is not to make ``mends`` identified. ``code``: more_domains,
    more_features, fewer_latents, more_latents or more_rows.
    """

    code: str
    change: str
    mends: tuple[str, ...]
    cost: int
    effect: str = ""

    def without(self, names: Collection[str]) -> Remedy:
        """The same remedy without the latents ``names``, whose faults it does not mend."""
        return replace(self, mends=tuple(name for name in self.mends if name not in names))

    @property
    def sentence(self) -> str:
        what = f"separate {listed(list(self.mends))} from all others" if self.mends else self.effect
        return f"{self.change} would {what}."


@dataclass(frozen=True)
class _MoreDomains:
    """The routes with ``extra`` more domains, each differing in a new direction."""

    routes: Routes
    extra: int

    def separates(self, shared: Shared) -> bool:
        return self.routes.lacking(shared) <= self.extra

    def by_scales(self, shared: Shared) -> bool:
        return self.routes.by_scales(shared)

    def lacking(self, shared: Shared) -> int:
        return max(0, self.routes.lacking(shared) - self.extra)


@dataclass(frozen=True)
class _Renumbered:
    """The routes for renumbered latents; ``old`` are their previous numbers."""

    routes: Routes
    old: tuple[int, ...]

    def _outward(self, shared: Shared) -> Shared:
        return frozenset(self.old[i] for i in shared)

    def separates(self, shared: Shared) -> bool:
        return self.routes.separates(self._outward(shared))

    def by_scales(self, shared: Shared) -> bool:
        return self.routes.by_scales(self._outward(shared))

    def lacking(self, shared: Shared) -> int:
        return self.routes.lacking(self._outward(shared))


def blocks(separated: Bools) -> list[list[int]]:
    """Connected components of the pairs that are not separated, (n_latents, n_latents)."""
    n_blocks, label = connected_components(csr_array(~separated), directed=False)
    return [np.flatnonzero(label == block).tolist() for block in range(n_blocks)]


def alone(separated: Bools) -> set[int]:
    """Latents that are separated from every other one."""
    return {own[0] for own in blocks(separated) if len(own) == 1}


def find_remedies(
    support: Bools,
    routes: Routes,
    names: list[str],
    dependent: Bools,
    *,
    domains_tested: bool = True,
    drops_latents: bool = True,
) -> list[Remedy]:
    """Changes that would make further latents identified, cheapest first and those that give up a latent last.

    ``dependent`` (n_latents, n_latents): pairs that depend on each other within domains. Without
    ``domains_tested`` further domains are not considered, as the present ones could not be tested; without
    ``drops_latents`` no latent is given up.
    """
    single, n = _identified(support, routes, dependent), len(names)
    stuck = [i for i in range(n) if i not in single]
    if not stuck:
        return []
    found = _more_domains(support, routes, names, single, dependent) if domains_tested else []
    features, fewer = [], []
    for i in stuck[:_MOST_TRIED]:
        with_feature = np.vstack([support, np.arange(n) == i])
        mended = _identified(with_feature, routes, dependent) - single
        features.append((len(mended), f"One more feature that depends on {names[i]} alone", mended))
        if not drops_latents:
            continue
        old = tuple(j for j in range(n) if j != i)
        own = np.ix_(old, old)
        rest = _identified(support[:, list(old)], _Renumbered(routes, old), dependent[own]) if old else set()
        mended = {old[j] for j in rest} - single
        fewer.append((len(mended), f"A model without {names[i]}, one latent fewer,", mended))
    with_features, with_fewer = (
        [Remedy(code, change, tuple(names[i] for i in sorted(mended)), 1)] if size else []
        for code, (size, change, mended) in (
            (code, max(tried, key=lambda item: item[0], default=(0, "", set())))
            for code, tried in (("more_features", features), ("fewer_latents", fewer))
        )
    )
    # One latent fewer comes last: it satisfies the count, but the factor behind the latent is still in the data.
    return sorted(with_features + found, key=lambda remedy: remedy.cost) + with_fewer


def _identified(support: Bools, routes: Routes, dependent: Bools) -> set[int]:
    """Latents that are separated from every other one and determined by the features."""
    separated = (pair_routes(free_sets(support), routes, dependent) > 0) & ~dependent
    return alone(separated) - undetermined(support)


def _more_domains(support: Bools, routes: Routes, names: list[str], single: set[int], dependent: Bools) -> list[Remedy]:
    """The fewest domains that mend something, and the fewest that mend most."""
    n, sets, lost = len(names), free_sets(support), undetermined(support)
    lacking = sorted({routes.lacking(sets[a] & sets[b]) for a in range(n) for b in range(a + 1, n)} - {0})
    found: list[Remedy] = []
    best: set[int] = set()
    for extra in lacking:
        separated = (pair_routes(sets, _MoreDomains(routes, extra), dependent) > 0) & ~dependent
        mended = alone(separated) - lost - single
        if len(mended) > len(best):
            shared = frozenset().union(*(sets[a] & sets[b] for a in mended for b in range(n) if b != a))
            must = listed([names[i] for i in sorted(shared)])
            change = f"{counted(extra, 'more domain')} in which {must} change in new ways"
            found.append(Remedy("more_domains", change, tuple(names[i] for i in sorted(mended)), extra))
            best = mended
    return found if len(found) < 2 else [found[0], found[-1]]
