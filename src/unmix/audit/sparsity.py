r"""C4: which features depend on which latents, how sure is that, and what does it leave to the changes?

An edge is there where the mean of :math:`|\partial x_k / \partial z_i|` exceeds a threshold. No single estimate of it
is believed: a *draw* takes one start of those that fit equally well, resamples the rows behind the mean (the audited
start), and takes a threshold between 0.07 and 0.14. The share of draws that have an edge is its probability; an exact
zero is in none. Every draw is a whole support with free sets :math:`N_a` of its own (T3 of ``docs/theory.md``): those
of generic values on it, joined, in draws of the audited start, with those of the decoder's Jacobian at one row.

**Could it have failed?** Turning the latents of *any* linear mixing makes n - 1 entries of every column zero, n (n - 1)
in all. Only a support with more zeros than that tells a sparse mixing from a dense one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmix.audit.finding import Finding, counted
from unmix.audit.subject import Subject
from unmix.theory import DomainCount, domains_needed, free_sets

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Sets = list[frozenset[int]]

CONDITION = "C4 sparsity"
SUPPORT_THRESHOLD = 0.1
SURE = 0.9
_THRESHOLDS = (0.07, 0.14)
_DRAWS = 60
_FEW_DRAWS = 12
_ENTRIES = 3_000_000


@dataclass(frozen=True)
class Support:
    """The support as draws.

    Attributes
    ----------
    probability : (n_features, n_latents), share of the draws that have the edge
    draws : free sets of every draw
    credible : whether there are more zeros than any mixing could be given by turning its latents
    """

    probability: Floats
    draws: list[Sets]
    credible: bool

    @property
    def edges(self) -> Bools:
        """Edges that are more likely there than not."""
        return self.probability >= 0.5

    @cached_property
    def count(self) -> DomainCount:
        """Free sets and counts of ``edges``, for generic values."""
        return domains_needed(self.edges)

    @property
    def n_latents(self) -> int:
        return self.probability.shape[1]

    def likely(self) -> Sets:
        """Free sets of ``edges``; everything is free where the zeros are not credible."""
        return self.count.free_sets if self.credible else [frozenset(range(self.n_latents))] * self.n_latents

    def needed(self) -> Ints:
        """Domains that separate each pair (n_latents, n_latents); 2n + 1 for all where the zeros are not credible."""
        dense = np.full((self.n_latents,) * 2, 2 * self.n_latents + 1, dtype=np.int64)
        return self.count.pairs if self.credible else dense

    def distinct(self) -> list[tuple[Sets, float]]:
        """Different free sets with their share of the draws; everything is free where the zeros are not credible."""
        if not self.credible:
            return [(self.likely(), 1.0)]
        return [(list(sets), times / len(self.draws)) for sets, times in Counter(map(tuple, self.draws)).items()]

    def share_below(self, size: int) -> Floats:
        """Share of the draws in which the overlap of each pair (n_latents, n_latents) is of less than ``size``."""
        total = np.zeros((self.n_latents, self.n_latents))
        for sets, share in self.distinct():
            total += share * np.array([[len(a & b) < size for b in sets] for a in sets])
        return total.round(9)


def check_sparsity(subject: Subject) -> tuple[Finding, Support]:
    """C4, and the support with its uncertainty."""
    n = subject.n_latents
    masks, points = _draw_supports(subject)
    known: dict[bytes, Sets] = {}
    draws = []
    for mask, point in zip(masks, points, strict=True):
        key = mask.tobytes()
        if key not in known:
            known[key] = free_sets(mask)
        sets = known[key]
        if point >= 0:
            at_row = free_sets(mask, jacobian=subject.jacobian[point])
            sets = [generic | own for generic, own in zip(sets, at_row, strict=True)]
        draws.append(sets)
    probability = masks.mean(axis=0)
    zeros, free = int((probability < 0.5).sum()), n * (n - 1)
    support = Support(probability, draws, n == 1 or zeros > free)
    return _finding(subject, support, zeros, free), support


def _finding(subject: Subject, support: Support, zeros: int, free: int) -> Finding:
    n = subject.n_latents
    above = np.triu_indices(n, 1)
    smaller, empty = support.share_below(n)[above], support.share_below(1)[above]
    separated = int((support.count.pairs[above] == 1).sum())
    needed, dense = support.count.needed, 2 * n + 1
    evidence: dict[str, Any] = {
        "density": float(support.edges.mean()),
        "uncertain_edges": int(((support.probability > 0.1) & (support.probability < SURE)).sum()),
        "zeros": zeros,
        "zeros_of_any_turned_mixing": free,
        "free_sets": {
            subject.names[a]: [subject.names[i] for i in sorted(s)] for a, s in enumerate(support.count.free_sets)
        },
        "domains_needed": needed,
        "domains_needed_without_sparsity": dense,
        "pairs_separated_by_structure": separated,
        "pairs_surely_separated_by_structure": int((empty >= SURE).sum()),
        "pairs": len(smaller),
        "starts": len(subject.starts),
        "draws": len(support.draws),
    }
    if n == 1:
        return Finding(CONDITION, "cannot tell", False, "There is one latent: nothing to separate it from.", evidence)
    if zeros <= free:
        sentence = (
            f"{zeros} of {support.edges.size} entries of the mixing are zero. Turning the latents of a dense mixing "
            f"makes as many as {free}: there is no sign of sparsity."
        )
        if support.edges.size - free <= support.edges.shape[0]:
            sentence += (
                f" With {counted(support.edges.shape[0], 'feature')} there could be none; more features would tell."
            )
        return Finding(CONDITION, "fails", True, sentence, evidence)
    said = (
        f"{zeros} of {support.edges.size} entries of the mixing are zero. On the most likely support it needs "
        f"{counted(needed, 'domain')} instead of {dense}, and {separated} of {len(smaller)} pairs no change at all "
        f"({int((empty >= SURE).sum())} of them in {SURE:.0%} of the drawn supports or more)"
    )
    if smaller.min() >= SURE:
        return Finding(CONDITION, "holds", True, f"{said}.", evidence)
    if smaller.max() < 1 - SURE:
        return Finding(CONDITION, "fails", True, f"{said}: the zeros are where they separate nothing.", evidence)
    unsure = int((smaller < SURE).sum())
    return Finding(CONDITION, "cannot tell", True, f"{said}; for {unsure} pairs it is not sure to help.", evidence)


def _draw_supports(subject: Subject) -> tuple[Bools, Ints]:
    """Supports (draws, n_features, n_latents), and for each a row of the Jacobian or -1."""
    n_starts, n_features, n_latents = subject.starts.shape
    n_draws = int(np.clip(_ENTRIES // (n_features * n_latents**2), _FEW_DRAWS, _DRAWS))
    rng = np.random.default_rng(0)
    low, high = np.log(_THRESHOLDS)
    thresholds = np.exp(low + (high - low) * (rng.permutation(n_draws) + 0.5) / n_draws)
    start = np.arange(n_draws) % n_starts
    n_points = len(subject.jacobian)
    points = np.where(start == 0, rng.integers(n_points, size=n_draws), -1)
    sizes, flat = subject.starts[start].copy(), np.abs(subject.jacobian).reshape(n_points, -1)
    own = np.flatnonzero(points >= 0)
    weights = rng.multinomial(n_points, np.full(n_points, 1.0 / n_points), size=len(own)) / n_points
    sizes[own] = (weights @ flat).reshape(len(own), n_features, n_latents)
    return sizes > thresholds[:, None, None], points
