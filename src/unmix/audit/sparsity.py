r"""C4: which features depend on which latents, how certain is that, and which pairs does it not separate?

An edge is present if the mean of :math:`|\partial x_k / \partial z_i|` exceeds a threshold. Instead of a single
estimate, supports are drawn: a *draw* takes one of the starts that found the same latents, resamples the rows behind
the mean (for the audited start), and takes a threshold between 0.07 and 0.14. The share of draws that have an edge is
its probability, 0 for an exact zero. Every draw is a whole support with its own free sets :math:`N_a` (T3 of
``docs/theory.md``): those of generic values on it and, in draws of the audited start, also those of the decoder's
Jacobian at one row.

**Could it have failed?** Rotating the latents of a dense mixing makes zeros: one for every pair that stays independent
when rotated, two if the pair need not be independent (``independence.zeros_by_turning``, ``docs/theory.md``). And if
entries of all sizes occur, some are small by chance. With :math:`m_0` entries below a
threshold :math:`\tau` and :math:`m_1` from there to :math:`4\tau`, a dense mixing with Gaussian entries of spread s has

.. math:: E\, m_0 = q\, E\, m_1, \quad q = P(|e| < \tau) / P(\tau \le |e| < 4\tau), \; e \sim N(0, s^2),

with s the maximum-likelihood value of the entries above :math:`\tau`; given :math:`m_1`, :math:`m_0` is negative
binomial (both counts Poisson, Jeffreys' prior), and its 95 % quantile is attributed to chance. The mixing
counts as sparse only if there are more entries below :math:`\tau` than rotation and chance explain. Two thresholds are
tried, 0.05 and 0.1: zeros of a good fit are below the first, with weak edges not far above; those of a poorer fit are
below the second. Counts are whole numbers, so each test has a level below 5 %, and both together of about 5 %.

**Is the support unique?** Two latents that can be rotated may have another support with as many zeros; then the zeros
favour neither. For every such pair all rotations are tried that change both latents to a correlation below 0.95, in
units of their spread within domains. If a rotation has as many entries below 0.05, 0.1 and 0.2, the two latents count
as freely mixed, and only changes separate them. Rotations of three latents at once are not tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import nbinom, norm

from unmix.audit import independence
from unmix.audit.check import Check, CheckResult, Context
from unmix.audit.directions import contested_pairs
from unmix.audit.finding import Finding, listed
from unmix.audit.input import AuditInput, evenly
from unmix.numbers import counted
from unmix.theory import DomainCount, domains_needed, free_sets

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Sets = list[frozenset[int]]

CONDITION = "C4 sparsity"
SUPPORT_THRESHOLD = 0.1
ZEROS = (0.05, 0.1)
_NEAR = 4.0
SURE = 0.9
_THRESHOLDS = (0.07, 0.14)
_DRAWS = 60
_FEW_DRAWS = 12
_ENTRIES = 3_000_000
_LEVEL = 0.05
_POINTS = 64
_TIE_THRESHOLDS = (0.05, 0.1, 0.2)
# Between these a rotation leaves neither latent at a correlation of 0.95; both directions.
_ANGLES = np.deg2rad([*range(19, 72), *range(109, 162)])


@dataclass(frozen=True)
class Support:
    """The support as draws.

    Attributes
    ----------
    probability : (n_features, n_latents), share of the draws that have the edge
    draws : free sets of every draw
    credible : whether there are more zeros than rotation and chance give a dense mixing
    ties : (n_latents, n_latents) bool, pairs that can be rotated to another support with as many zeros
    contested : pairs that two other combinations make sparser, with the zeros that these and the latents give
    at_rows : (n_latents, n_latents), share of the drawn rows at which latent i is free for latent a by the decoder's
        Jacobian, with the support of the same draw
    """

    probability: Floats
    draws: list[Sets]
    credible: bool
    ties: Bools
    contested: dict[tuple[int, int], tuple[int, int]]
    at_rows: Floats

    @property
    def edges(self) -> Bools:
        """Edges with a probability of 0.5 or more."""
        return self.probability >= 0.5

    @cached_property
    def count(self) -> DomainCount:
        """Free sets and counts of ``edges``, for generic values."""
        return domains_needed(self.edges)

    @property
    def n_latents(self) -> int:
        return self.probability.shape[1]

    def likely(self) -> Sets:
        """Free sets of ``edges``; all latents are free if the zeros are not credible."""
        if self.credible:
            return joined(self.count.free_sets, self.ties)
        return [frozenset(range(self.n_latents))] * self.n_latents

    def needed(self) -> Ints:
        """Domains that separate each pair (n_latents, n_latents); 2n + 1 for all if the zeros are not credible."""
        dense = np.full((self.n_latents,) * 2, 2 * self.n_latents + 1, dtype=np.int64)
        if not self.ties.any():
            return self.count.pairs if self.credible else dense
        sets = self.likely()
        mixed = np.array([[2 * len(a & b) + 1 for b in sets] for a in sets])
        return np.where(np.eye(self.n_latents, dtype=bool), self.count.pairs, mixed) if self.credible else dense

    def distinct(self) -> list[tuple[Sets, float]]:
        """Distinct free sets with their share of the draws; all latents are free if the zeros are not credible."""
        if not self.credible:
            return [(self.likely(), 1.0)]
        return [(list(sets), times / len(self.draws)) for sets, times in Counter(map(tuple, self.draws)).items()]

    def share_below(self, size: int) -> Floats:
        """Share of the draws in which the overlap of each pair (n_latents, n_latents) has fewer than ``size``."""
        total = np.zeros((self.n_latents, self.n_latents))
        for sets, share in self.distinct():
            total += share * np.array([[len(a & b) < size for b in sets] for a in sets])
        return total.round(9)


def check_sparsity(subject: AuditInput, context: Context) -> CheckResult[Support]:
    """C4, and the support with its uncertainty."""
    n, independent = subject.n_latents, context.result(independence.CHECK)
    turning = independence.zeros_by_turning(subject, independent.finding, independent.evidence)
    masks, points = _draw_supports(subject)
    known: dict[bytes, Sets] = {}
    draws, seen, ties = [], [], turned_alike(subject, turning)
    for mask, point in zip(masks, points, strict=True):
        key = mask.tobytes()
        if key not in known:
            known[key] = free_sets(mask)
        sets = known[key]
        if point >= 0:
            at_row = free_sets(mask, jacobian=subject.jacobian[point])
            seen.append([[i in free for i in range(n)] for free in at_row])
            sets = [generic | own for generic, own in zip(sets, at_row, strict=True)]
        draws.append(joined(sets, ties))
    probability = masks.mean(axis=0)
    sizes, free = np.median(subject.starts, axis=0), int(np.triu(turning, 1).sum())
    looks = [(int((sizes < zero).sum()), small_by_chance(sizes, zero)) for zero in ZEROS]
    zeros, chance = max(looks, key=lambda look: look[0] - look[1])
    credible, at_rows = n == 1 or zeros > free + chance, np.mean(seen, axis=0)
    support = Support(probability, draws, credible, ties, contested_pairs(subject), at_rows)
    tested = independent.finding.could_fail
    return CheckResult(_finding(subject, support, zeros, free, chance, tested), support)


CHECK = Check(CONDITION, check_sparsity)


def joined(sets: Sequence[frozenset[int]], ties: Bools) -> Sets:
    """Free sets if the latents of every pair in ``ties`` are freely mixed."""
    return [
        frozenset().union(own, *(sets[b] | {b} for b in np.flatnonzero(ties[a]).tolist())) for a, own in enumerate(sets)
    ]


def turned_alike(subject: AuditInput, turning: Ints) -> Bools:
    """Pairs of latents (n_latents, n_latents) that a rotation takes to another support with as many zeros.

    ``turning`` (n_latents, n_latents): zeros that rotating each pair can make; 0 if a rotation would show.
    """
    n, (z, labels) = subject.n_latents, subject.tested
    ties = np.zeros((n, n), dtype=bool)
    if not len(z):
        z, labels = subject.latents, np.zeros(len(subject.latents), dtype=np.int64)
    within = z - np.stack([z[labels == k].mean(axis=0) for k in range(labels.max() + 1)])[labels]
    spread = np.maximum(within.std(axis=0), 1e-6)
    total, slopes = np.cov((z / spread).T).reshape(n, n), subject.jacobian[evenly(len(subject.jacobian), _POINTS)]
    for a, b in zip(*np.nonzero(np.triu(turning, 1)), strict=True):
        own = [a, b]
        zeros = _near_zero(subject.starts[0][:, own])
        if not zeros[-1]:
            continue
        for cosine, sine in zip(np.cos(_ANGLES), np.sin(_ANGLES), strict=True):
            turn = np.array([[cosine, sine], [-sine, cosine]])
            unit = np.sqrt(np.einsum("ij,jk,ik->i", turn, total[np.ix_(own, own)], turn))
            turned = np.abs((slopes[:, :, own] * spread[own]) @ turn.T * unit).mean(axis=0)
            if (_near_zero(turned) >= zeros).all():
                ties[a, b] = ties[b, a] = True
                break
    return ties


def _near_zero(sizes: Floats) -> Ints:
    """Entries below each of three thresholds, so that no entry near one of them decides alone."""
    return np.array([(sizes < threshold).sum() for threshold in _TIE_THRESHOLDS])


def small_by_chance(sizes: Floats, threshold: float) -> int:
    """Entries below the threshold that a dense mixing with as many just above it would have, 95 % limit."""
    above, near = sizes[sizes >= threshold], int(((sizes >= threshold) & (sizes < _NEAR * threshold)).sum())
    if not len(above):
        return 0
    square = float((above**2).mean())

    def excess(spread: float) -> float:
        cut = threshold / spread
        # norm.sf underflows far out; the ratio of logarithms does not.
        hazard = np.exp(norm.logpdf(cut) - norm.logsf(cut))
        return float(spread**2 * (1.0 + cut * hazard) - square)

    largest = max(1.0, np.sqrt(square))
    spread = brentq(excess, threshold / 20, largest) if excess(threshold / 20) < 0 else threshold / 20
    below, just_above = norm.cdf(np.array([1.0, _NEAR]) * threshold / spread) - 0.5
    ratio = below / max(just_above - below, 1e-12)
    # Both counts are Poisson; with Jeffreys' prior the one below, given the one just above, is negative binomial.
    return int(nbinom.ppf(1 - _LEVEL, near + 0.5, 1.0 / (1.0 + ratio)))


def _finding(subject: AuditInput, support: Support, zeros: int, free: int, chance: int, tested: bool) -> Finding:
    """``tested``: whether dependence within domains could be tested; if not, rotation can explain twice the zeros."""
    n = subject.n_latents
    above = np.triu_indices(n, 1)
    smaller, empty = support.share_below(n)[above], support.share_below(1)[above]
    pairs = support.needed() if support.credible else support.count.pairs
    separated = int((pairs[above] == 1).sum())
    needed, dense = int(pairs.max()), 2 * n + 1
    evidence: dict[str, object] = {
        "density": float(support.edges.mean()),
        "uncertain_edges": int(((support.probability > 0.1) & (support.probability < SURE)).sum()),
        "zeros": zeros,
        "zeros_of_a_turned_dense_mixing": free,
        "zeros_of_a_dense_mixing_by_chance": chance,
        "free_sets": _named(support.count.free_sets, subject),
        "free_sets_at_rows": _named([set(np.flatnonzero(share >= 0.5)) for share in support.at_rows], subject),
        "domains_needed": needed,
        "domains_needed_without_sparsity": dense,
        "pairs_separated_by_structure": separated,
        "pairs_surely_separated_by_structure": int((empty >= SURE).sum()),
        "pairs": len(smaller),
        "pairs_with_another_support": [
            [subject.names[a], subject.names[b]] for a, b in np.argwhere(np.triu(support.ties))
        ],
        "pairs_that_others_make_sparser": [
            [subject.names[a], subject.names[b], *zeros] for (a, b), zeros in support.contested.items()
        ],
        "starts": len(subject.starts),
        "draws": len(support.draws),
    }
    if n == 1:
        return Finding(
            CONDITION,
            "cannot tell",
            False,
            "There is one latent to test, so there is none to separate it from.",
            evidence,
        )
    sparser = [
        f"of {subject.names[a]} and {subject.names[b]} {most} zeros instead of {own}"
        for (a, b), (most, own) in support.contested.items()
    ]
    other = (
        f" Other combinations would make the mixing sparser, {listed(sparser)}: sparsity and independence within "
        "domains contradict each other."
        if sparser
        else ""
    )
    if not support.credible:
        by_chance = f", and {chance} are small by chance, given how many are just above the threshold" if chance else ""
        sentence = (
            f"{zeros} of {support.edges.size} entries of the mixing are near zero. Rotating the latents of a dense "
            f"mixing can make {free}{by_chance}"
        )
        if not tested and zeros > chance:
            sentence += ". Fewer, if the latents are independent within domains, which these rows cannot test."
            return Finding(CONDITION, "cannot tell", False, f"{sentence}{other}", evidence)
        sentence += ": there is no sign of sparsity."
        if support.edges.size - free - chance <= support.edges.shape[0]:
            sentence += f" With only {counted(support.edges.shape[0], 'feature')} no sign is possible; add features."
        return Finding(CONDITION, "fails", True, f"{sentence}{other}", evidence)
    said = (
        f"{zeros} of {support.edges.size} entries of the mixing are near zero. The most likely support needs "
        f"{counted(needed, 'domain')} instead of {dense}; {separated} of {len(smaller)} pairs need no change at all "
        f"({int((empty >= SURE).sum())} in at least {SURE:.0%} of the drawn supports)"
    )
    if support.ties.any():
        tied = [f"{subject.names[a]} and {subject.names[b]}" for a, b in np.argwhere(np.triu(support.ties))]
        said += f"; rotated, {listed(tied)} have another support with as many zeros, so zeros do not separate them"
    if other:
        return Finding(CONDITION, "fails", True, f"{said}.{other}", evidence)
    if smaller.min() >= SURE:
        return Finding(CONDITION, "holds", True, f"{said}.", evidence)
    if smaller.max() < 1 - SURE:
        return Finding(
            CONDITION, "fails", True, f"{said}. The zeros are in places where they separate nothing.", evidence
        )
    unsure = int((smaller < SURE).sum())
    return Finding(
        CONDITION, "cannot tell", True, f"{said}; for {unsure} pairs it is uncertain whether the zeros help.", evidence
    )


def _named(sets: Sequence[Set[int]], subject: AuditInput) -> dict[str, list[str]]:
    """Sets of latents by their names."""
    return {subject.names[a]: [subject.names[i] for i in sorted(free)] for a, free in enumerate(sets)}


def _draw_supports(subject: AuditInput) -> tuple[Bools, Ints]:
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
