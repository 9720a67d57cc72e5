"""Before any data exist: which latents would a proposed support and a number of domains identify?

The count of ``unmix.theory``: a pair of latents is separated if :math:`2 |N_a \\cap N_b| + 1` domains are there, or if
the overlap is empty. It takes the latents to change generically: domains that differ in few latents, or only in their
means, do less. Pairs that are not separated form blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from unmix.audit.changes import Shared, pair_routes
from unmix.audit.finding import counted, listed
from unmix.audit.remedies import Remedy, blocks, find_remedies
from unmix.audit.result import verdict_line
from unmix.datasets.supports import Plan as Design
from unmix.datasets.supports import draw_support
from unmix.errors import SettingError
from unmix.files import json_ready
from unmix.theory import check_support, domains_needed, free_sets, undetermined

_TYPICAL_DRAWS = 100
_COLUMNS = ["name", "verdict", "block", "domains_needed"]


@dataclass(frozen=True)
class _Generic:
    """So many domains in which every latent changes, each in a new direction."""

    n_domains: int

    def separates(self, shared: Shared) -> bool:
        return 2 * len(shared) < self.n_domains

    def by_scales(self, shared: Shared) -> bool:
        return False

    def lacking(self, shared: Shared) -> int:
        return max(0, 2 * len(shared) + 1 - self.n_domains)


@dataclass(frozen=True, repr=False)
class Plan:
    """What a design would identify.

    Attributes
    ----------
    latents : DataFrame, one row a latent: name, verdict ("identified", "block", "unsupported"), block (names of the
        latents it cannot be told from, itself among them; None unless in a block), domains_needed, reason
    n_domains, domains_needed_without_sparsity : int
    domains_needed : int or None, domains that separate every latent which the features determine from all others; None
        where there is no such latent
    remedies : list of Remedy, what would identify more, cheapest first
    """

    latents: pd.DataFrame
    n_domains: int
    domains_needed: int | None
    domains_needed_without_sparsity: int
    remedies: list[Remedy]

    def to_dict(self) -> dict[str, Any]:
        """As the command line prints it with ``--json``."""
        result: dict[str, Any] = json_ready(
            {
                "domains_needed": self.domains_needed,
                "domains_needed_without_sparsity": self.domains_needed_without_sparsity,
                "latents": self.latents[_COLUMNS].to_dict("records"),
            }
        )
        return result

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        lines = [self._summary(), ""]
        lines += [verdict_line(row) for row in self.latents.to_dict("records")]
        return "\n".join(lines + [f"→ {remedy.sentence}" for remedy in self.remedies])

    def _summary(self) -> str:
        lost = self.latents["name"][self.latents["verdict"] == "unsupported"].tolist()
        if self.domains_needed is None:
            return "No number of domains separates any latent: the features determine none of them."
        which = "all latents"
        never = ""
        if lost:
            rest = [name for name in self.latents["name"] if name not in lost]
            which = f"{listed(rest)} from all others"
            never = f" No number of domains separates {listed(lost)}."
        return (
            f"{counted(self.domains_needed, 'domain')} would separate {which} (without sparsity "
            f"{self.domains_needed_without_sparsity}); there {'is' if self.n_domains == 1 else 'are'} "
            f"{self.n_domains}.{never}"
        )


def plan(support: ArrayLike, n_domains: int, names: Sequence[str] | None = None) -> Plan:
    """Which latents a support and a number of domains identify, by the count of ``docs/theory.md``.

    Parameters
    ----------
    support : 0/1 array or DataFrame (n_features, n_latents)
    n_domains : int
        Domains in which all latents change.
    names : sequence of str, optional
        Of the latents. Default: the columns of a DataFrame, else z0, z1, …

    Raises
    ------
    SettingError
        ``support`` is no 0/1 matrix, ``n_domains`` is below 1, or ``names`` do not fit.

    Examples
    --------
    >>> import unmix
    >>> design = unmix.plan([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 1, 1]], n_domains=1)
    >>> design.domains_needed, design.domains_needed_without_sparsity
    (1, 7)
    >>> unmix.plan([[1, 1, 0], [1, 1, 0], [0, 0, 1]], n_domains=2).latents["verdict"].tolist()
    ['block', 'block', 'identified']
    """
    if names is None and nw.dependencies.is_into_dataframe(support):
        names = [str(name) for name in nw.from_native(support).columns]
    mask = check_support(support)
    n = mask.shape[1]
    words = [f"z{i}" for i in range(n)] if names is None else [str(name) for name in names]
    if len(words) != n or len(set(words)) < n:
        raise SettingError(f"names must be {n} different names, one for each column of the support; got {words}.")
    if isinstance(n_domains, bool) or not isinstance(n_domains, int | np.integer) or n_domains < 1:
        raise SettingError(f"n_domains must be a whole number ≥ 1; got {n_domains!r}.")
    used = np.flatnonzero(mask.any(axis=0)).tolist()
    rows = [_unused(name) for name in words]
    remedies: list[Remedy] = []
    needed: int | None = None
    if used:
        part, own_names = mask[:, used], [words[i] for i in used]
        count, routes = domains_needed(part), _Generic(int(n_domains))
        lost = undetermined(part)
        needed = max((int(count.pairs[i].max()) for i in range(len(used)) if i not in lost), default=None)
        independent = np.zeros((len(used), len(used)), dtype=bool)
        for block in blocks(pair_routes(free_sets(part), routes, independent) > 0):
            for i in block:
                rows[used[i]] = _row(own_names, i, block, int(count.pairs[i].max()), i in lost, int(n_domains))
        remedies = find_remedies(part, routes, own_names, independent)
    return Plan(pd.DataFrame(rows), int(n_domains), needed, 2 * n + 1, remedies)


def plan_typical(
    density: float, n_latents: int, n_features: int, n_domains: int, *, random_state: int = 0
) -> tuple[Plan, NDArray[np.int64]]:
    """The plan of a typical random support, and the domains that 100 of them need (100,).

    Every entry is 1 with probability ``density``; every feature has a parent, and the latents are told apart by the
    features. Typical is the draw with the median need.

    Raises
    ------
    SettingError
        Sizes, density or seed cannot be, or no support of this density tells the latents apart.
    """
    if isinstance(random_state, bool) or not isinstance(random_state, int | np.integer) or random_state < 0:
        raise SettingError(
            f"random_state must be a whole number ≥ 0; got {random_state!r}. The same seed, the same draws."
        )
    sizes = (n_latents, n_features, n_domains)
    if min(sizes) < 1 or n_features < n_latents or not 0 < density <= 1:
        raise SettingError(
            "A plan needs 0 < density ≤ 1, n_latents ≥ 1, n_features ≥ n_latents and n_domains ≥ 1; got density="
            f"{density}, n_latents={n_latents}, n_features={n_features}, n_domains={n_domains}."
        )
    rng = np.random.default_rng(random_state)
    design = Design(n_latents, n_features, density=density)
    draws = [draw_support(rng, design, None) for _ in range(_TYPICAL_DRAWS)]
    needs = np.array([needed for _, needed in draws], dtype=np.int64)
    typical = int(np.argsort(needs, kind="stable")[(len(needs) - 1) // 2])
    return plan(draws[typical][0], n_domains), needs


def _unused(name: str) -> dict[str, Any]:
    reason = "No feature depends on it."
    return {"name": name, "verdict": "unsupported", "block": None, "domains_needed": None, "reason": reason}


def _row(names: list[str], latent: int, block: list[int], needed: int, lost: bool, n_domains: int) -> dict[str, Any]:
    others = [names[i] for i in block if i != latent]
    if lost:
        verdict, own, reason = "unsupported", None, "The features do not determine it, whatever the mixing's values."
    elif others:
        verdict, own = "block", [names[i] for i in block]
        reason = f"Not separated from {listed(others)} with {counted(n_domains, 'domain')}."
    else:
        verdict, own, reason = (
            "identified",
            None,
            f"Separated from every other latent; that takes {counted(needed, 'domain')}.",
        )
    return {"name": names[latent], "verdict": verdict, "block": own, "domains_needed": needed, "reason": reason}
