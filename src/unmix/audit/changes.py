r"""C3: do the domains differ enough to separate the latents that the structure does not separate?

For the latents S = N_a ∩ N_b that a pair still shares, with :math:`\Delta` the difference from the mean over domains:

*Route "changes"* (T1). The vectors :math:`(\Delta\eta''_i, \Delta\eta'_i)_{i \in S}` must span all 2|S| directions,
which takes 2|S| + 1 domains. They are computed from the fitted prior at many z, and their weakest direction
must exceed a minimum size at nine tenths of these.

*Route "scales"* (exponential family with statistics z and z²). If the latents of S keep their location :math:`m_i` and
change their scale, :math:`\Delta\eta'_i = (z_i - m_i) \Delta\eta''_i`: the vectors above have rank |S| at most, but
:math:`\Delta\eta''` spanning |S| directions is enough, with |S| + 1 domains, if it does so for every pair that shares
one of these latents (``docs/theory.md``).

Latents are identified only up to a monotone transformation, so changes are measured on *normal scores*: the ranks of a
latent over all domains, as quantiles of a normal distribution. "scales" requires a coordinate in which the location
does not change: for each latent, the latent itself or its normal scores, whichever moves less. If no prior knows the
domains, the rank of "changes" is the smaller of those in both.

A rank counts only beyond sampling noise. With locations m and scales s of every domain by moments of the
normal scores, :math:`(1/s^2, m/s^2)` is a linear image of :math:`(\eta'', \eta')` for Gaussian domains. With a median
of fewer than 40 rows per domain 1/s² is hardly informative, and :math:`(\log s, m)` is used. If its matrix W
over domains had rank r, the part of W beyond its r largest singular directions, on either side, would be sampling
noise; so the next singular value must exceed the largest one that resampled rows give in that complement (Robin and
Smith 2000, Econometric Theory 16), at the 5 % level, for r = 0, 1, … until it does not. And a latent *changes* only if
it changes by more than with shuffled domain labels. So shuffled labels never give a rank, whatever the prior learnt. An
encoder q(z | x, u) can also move a latent because of the label alone, even a wrong one: rows are decoded and
encoded again with shuffled labels, and a latent must change by twice as much. With few rows only large changes are
seen. If no change is seen, the condition fails if a change of 8 % of a latent's variance, beyond that with shuffled
labels, would have been seen; otherwise the verdict is "cannot tell".

Both routes rest on independence within domains (C2). If a latent of S depends on any other one, or one of N_a on one
of N_b, they do not apply, and no number of domains makes up for it (``tied``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from unmix.audit import independence, sparsity
from unmix.audit.check import Check, CheckResult, Context
from unmix.audit.finding import Finding, Verdict, counted, listed
from unmix.audit.input import LEAST_ROWS, AuditInput
from unmix.audit.sparsity import SURE, Sets, Support

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Shared = frozenset[int]

CONDITION = "C3 changes"
ROUTES = ("none", "structure", "changes", "scales")
STRUCTURE, CHANGES, SCALES = 1, 2, 3
_SHUFFLES = 200
_RESAMPLES = 200
_LEVEL = 0.05
_WEAKEST = 0.1
_SAME = 0.02
_BEYOND_LABELS = 2.0
_VISIBLE = 0.08
_LEAST_SD = 1e-3
_FEW_ROWS = 40


@dataclass(frozen=True)
class Moments:
    """Natural parameters of every domain by moments.

    ``natural`` (domains, 2 n_latents): (1/s², m/s²), centred, in units of its sampling noise; ``noise`` (resamples,
    domains, 2 n_latents): its change when rows are resampled.
    """

    natural: Floats
    noise: Floats

    def rank(self, columns: list[int]) -> int:
        """Directions of these columns beyond noise."""
        return _above(self.natural[:, columns], self.noise[:, :, columns])


@dataclass(frozen=True)
class Changes:
    """Changes between domains, and the sets of latents for which they are sufficient.

    Attributes
    ----------
    present : int, domains with enough rows
    visible : smallest share of a latent's variance, beyond that with shuffled labels, at which a change is seen
    location, scale, shape : (n_latents,) bool, whether it changes by more than with shuffled labels
    share : (n_latents,), share of the variance that lies between domains
    stays : (n_latents,) bool, whether location and shape are constant in one of the two coordinates
    moments : natural parameters of the normal scores and, if no prior knows the domains, of the latents too
    scales : the same for each latent's coordinate that moves less
    fitted : (points, domains, 2 n_latents), (η'', η') of the fitted prior, centred; None if it knows no domains
    """

    present: int
    visible: float
    location: Bools
    scale: Bools
    shape: Bools
    share: Floats
    stays: Bools
    moments: tuple[Moments, ...]
    scales: Moments
    fitted: Floats | None
    _ranks: dict[Shared, tuple[int, int]] = field(default_factory=dict, repr=False)

    @property
    def n_latents(self) -> int:
        return len(self.location)

    @property
    def changing(self) -> Bools:
        """Latents that change in any way."""
        return np.asarray(self.location | self.scale | self.shape)

    @property
    def blind(self) -> bool:
        """Whether there are too few rows to see even sizeable changes."""
        return self.visible > _VISIBLE

    @cached_property
    def bent(self) -> bool:
        """Whether η'' of the fitted prior depends on z: then domains are not Gaussian, and moments do not suffice."""
        if self.fitted is None:
            return False
        return bool(np.ptp(self.fitted[:, :, : self.n_latents], axis=0).max(initial=0.0) > 1e-3)

    def ranks(self, shared: Shared) -> tuple[int, int]:
        """Directions in which the latents ``shared`` reliably change: of 2|S| in all, and of |S| in their scales."""
        if not shared:
            return 0, 0
        if shared not in self._ranks:
            own = sorted(shared)
            both, scales = own + [i + self.n_latents for i in own], own
            self._ranks[shared] = (self._rank(own, both, self.moments), self._rank(own, scales, (self.scales,)))
        return self._ranks[shared]

    def condition(self, shared: Shared) -> float | None:
        """Condition number of the fitted difference vectors of these latents, median over z; None if there are too few.

        Without a prior that knows domains, the condition number of their moments.
        """
        if not shared or 2 * len(shared) >= self.present:
            return None
        columns = sorted(shared) + [i + self.n_latents for i in sorted(shared)]
        vectors = self.moments[-1].natural[None, :, columns] if self.fitted is None else self.fitted[:, :, columns]
        singular = np.linalg.svd(vectors, compute_uv=False)
        return float(np.median(singular[:, 0] / np.maximum(singular[:, -1], 1e-12)))

    def separates(self, shared: Shared) -> bool:
        """Whether the route "changes" separates a pair that shares these latents."""
        return 2 * len(shared) < self.present and self.lacking(shared) == 0

    def by_scales(self, shared: Shared) -> bool:
        """Whether the scales of these latents span every direction while their locations and shapes are constant."""
        own = sorted(shared)
        return bool(self.stays[own].all()) and len(own) < self.present and self.ranks(shared)[1] == len(own)

    def lacking(self, shared: Shared) -> int:
        """Number of further domains, each differing in a new direction, that the route "changes" needs."""
        return 2 * len(shared) - self.ranks(shared)[0]

    def _rank(self, latents: list[int], columns: list[int], measured: tuple[Moments, ...]) -> int:
        most = min(self.present - 1, len(columns))
        if most < 1 or not self.changing[latents].any():
            return 0
        moments = min(own.rank(columns) for own in measured)
        if self.fitted is None:
            return min(most, moments)
        singular = np.linalg.svd(self.fitted[:, :, columns], compute_uv=False) / np.sqrt(self.present)
        fitted = int((np.quantile(singular, 0.1, axis=0) >= _WEAKEST).sum())
        if self.bent and self.changing[latents].all():
            return min(most, fitted)
        return min(most, fitted, moments)


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


def _above(signal: Floats, noise: Floats) -> int:
    """Rank of ``signal`` (domains, columns) that ``noise`` (draws, domains, columns) does not explain, step by step."""
    left, singular, right = np.linalg.svd(signal)
    turned, limit = left.T @ noise @ right.T, np.inf
    for rank, size in enumerate(singular):
        # With this rank, the part beyond the directions found is noise (Robin and Smith 2000). Fewer dimensions have
        # less noise, so a value above the last limit is above this one.
        if size <= limit:
            limit = np.quantile(np.linalg.norm(turned[:, rank:, rank:], ord=2, axis=(1, 2)), 1 - _LEVEL)
        if size <= limit:
            return rank
    return len(singular)


def measure_changes(subject: AuditInput) -> Changes:
    """Moments of every domain, their noise, the shuffled labels and the fitted prior."""
    z, labels = subject.tested
    n_domains, n_latents = len(subject.large), subject.n_latents
    if n_domains < 2:
        never = np.zeros(n_latents, dtype=bool)
        nothing = Moments(np.zeros((1, 2 * n_latents)), np.zeros((1, 1, 2 * n_latents)))
        few, none = max(n_domains, 1), np.zeros(n_latents)
        return Changes(few, np.inf, never, never, never, none, never, (nothing,), nothing, None)
    rng = np.random.default_rng(0)
    spread = np.maximum(z.std(axis=0), _LEAST_SD)
    order = np.argsort(labels, kind="stable")
    z = (z - z.mean(axis=0)) / spread
    order = np.argsort(labels, kind="stable")
    z, labels = z[order], labels[order]
    scores = _normal_scores(z)
    weights = (labels == np.arange(n_domains)[:, None]).astype(float)
    weights /= weights.sum(axis=1, keepdims=True)
    parts = [
        _measure(values, labels, weights, rng, by_labels)
        for values, by_labels in zip((z, scores), _by_labels_alone(subject), strict=True)
    ]
    fitted = None
    if subject.slopes is not None and subject.curvatures is not None:
        both = np.concatenate([subject.curvatures * spread**2, subject.slopes * spread], axis=2)[:, subject.large]
        fitted = both - both.mean(axis=1, keepdims=True)
    own, ranked = parts
    few = bool(np.median(np.bincount(labels)) < _FEW_ROWS)
    moments = [_moments(values, labels, weights, rng, few) for values in (z, scores)]
    moved = np.stack([part.share[0] + part.share[2] for part in parts])
    curved = moved[1] < moved[0]
    both_columns = np.tile(curved, 2)
    scales = Moments(
        np.where(both_columns, moments[1].natural, moments[0].natural),
        np.where(both_columns, moments[1].noise, moments[0].noise),
    )
    return Changes(
        n_domains,
        ranked.visible,
        location=np.asarray(ranked.seen[0]),
        scale=np.asarray(ranked.seen[1]),
        shape=np.asarray(ranked.seen[2]),
        share=ranked.share[0],
        stays=np.asarray(own.stays | ranked.stays),
        moments=tuple(moments[1:] if fitted is not None else moments),
        scales=scales,
        fitted=fitted,
    )


@dataclass(frozen=True)
class _Measured:
    """``share``, ``seen`` (3, n_latents): how much location, scale, shape differ, and if beyond shuffled labels."""

    share: Floats
    seen: Bools
    visible: float

    @property
    def stays(self) -> Bools:
        """Latents whose location and shape do not change."""
        moves = self.seen & (self.share >= _SAME)
        return np.asarray(~(moves[0] | moves[2]))


def _measure(z: Floats, labels: Ints, weights: Floats, rng: np.random.Generator, by_labels: Floats) -> _Measured:
    actual = _differences(z, labels, weights)
    # Shuffling the rows is equivalent to shuffling the labels.
    shuffled = np.stack([_differences(rng.permutation(z), labels, weights) for _ in range(_SHUFFLES)])
    # The limit is the largest value over all latents of a shuffle, and the three kinds of change share the level. So
    # false changes do not become more likely with many latents and tests.
    limit = np.quantile(shuffled.max(axis=2), 1 - _LEVEL / len(actual), axis=0)
    visible = float((limit - shuffled.mean(axis=(0, 2))).max())
    return _Measured(actual, actual > np.maximum(limit[:, None], _BEYOND_LABELS * by_labels), visible)


def _normal_scores(z: Floats) -> Floats:
    """Ranks of every column as quantiles of a normal distribution, with variance 1."""
    scores = norm.ppf((rankdata(z, axis=0) - 0.5) / len(z))
    result: Floats = scores / np.maximum(scores.std(axis=0), _LEAST_SD)
    return result


def _by_labels_alone(subject: AuditInput) -> Floats:
    """``_differences`` (2, 3, n_latents) that the encoder produces from shuffled labels, largest of some shuffles.

    For the latents and for their normal scores.
    """
    found = np.zeros((2, 3, subject.n_latents))
    if subject.relabelled is None or subject.relabelled_strata is None:
        return found
    for z, strata in zip(subject.relabelled, subject.relabelled_strata, strict=True):
        rows = np.isin(strata, subject.large)
        labels = np.searchsorted(subject.large, strata[rows])
        weights = (labels == np.arange(len(subject.large))[:, None]).astype(float)
        weights /= weights.sum(axis=1, keepdims=True)
        both = [_differences(values, labels, weights) for values in (z[rows], _normal_scores(z[rows]))]
        found = np.maximum(found, both)
    return found


def _moments(z: Floats, labels: Ints, weights: Floats, rng: np.random.Generator, few: bool) -> Moments:
    """Centred natural parameters and their resampling noise, in units of the latter; rows in order of ``labels``."""
    first, size = np.searchsorted(labels, labels), np.bincount(labels)[labels]
    natural = _natural(z, weights, few)
    chosen = first + (rng.random((_RESAMPLES, len(z))) * size).astype(np.int64)
    noise = np.stack([_natural(z[rows], weights, few) - natural for rows in chosen])
    unit = np.maximum(np.sqrt((noise**2).mean(axis=(0, 1))), 1e-12)
    return Moments(natural / unit, noise / unit)


def _natural(z: Floats, weights: Floats, few: bool) -> Floats:
    """(1/s², m/s²) of every domain, or with ``few`` rows (log s, m), centred.

    ``weights`` (domains, rows) take means over the rows of each domain.
    """
    mean = weights @ z
    variance = np.maximum(weights @ z**2 - mean**2, _LEAST_SD**2)
    both = np.hstack([0.5 * np.log(variance), mean] if few else [1.0 / variance, mean / variance])
    result: Floats = both - both.mean(axis=0)
    return result


def _differences(z: Floats, labels: Ints, weights: Floats) -> Floats:
    """Share of the variance between domains of z, of |z - m| and of a measure of skewness (3, n_latents)."""
    share = np.bincount(labels)[:, None] / len(labels)
    distance = z - (weights @ z)[labels]
    size = np.abs(distance)
    scaled = distance / np.maximum(weights @ size, _LEAST_SD)[labels]
    shares = []
    for part in (z, size, np.abs(scaled) * scaled):
        means, middle = weights @ part, part.mean(axis=0)
        total = np.maximum((part**2).mean(axis=0) - middle**2, 1e-12)
        shares.append((share * (means - middle) ** 2).sum(axis=0) / total)
    return np.stack(shares)


def check_changes(subject: AuditInput, context: Context) -> CheckResult[Changes]:
    """C3 for the pairs that the structure does not reliably separate."""
    support, dependent = context.result(sparsity.CHECK).evidence, context.result(independence.CHECK).evidence
    changes = measure_changes(subject)
    names = subject.names
    shares = route_shares(support, changes, dependent)
    left = np.triu(shares[STRUCTURE] < SURE, 1)
    met = left & (1.0 - shares[0] >= SURE)
    changing = [names[i] for i in np.flatnonzero(changes.changing)]
    evidence = {
        "domains_compared": changes.present if len(subject.large) else 0,
        "changing": changing,
        "changing_location": [names[i] for i in np.flatnonzero(changes.location)],
        "changing_scale": [names[i] for i in np.flatnonzero(changes.scale)],
        "changing_shape": [names[i] for i in np.flatnonzero(changes.shape)],
        "share_between_domains": dict(zip(names, changes.share.tolist(), strict=True)),
        "encoder_knows_domains": subject.relabelled is not None,
        "prior_knows_domains": changes.fitted is not None,
        "weakest_direction_of_all": _weakest(changes),
        "directions_of_all": changes.ranks(frozenset(range(subject.n_latents)))[0],
        "directions_of_a_dense_mixing": 2 * subject.n_latents,
        "least_visible_share": changes.visible if len(subject.large) > 1 else None,
        "pairs_that_need_changes": int(left.sum()),
        "pairs_with_enough": int(met.sum()),
    }
    sets = support.likely()
    barred = np.zeros_like(left)
    for a, b in np.argwhere(left & ~met):
        barred[a, b] = bool(tied(sets, a, b, dependent))
    evidence["pairs_that_dependence_bars"] = int(barred.sum())
    verdict, could_fail, sentence = _judge(subject, changes, left, met, barred)
    return CheckResult(Finding(CONDITION, verdict, could_fail, sentence, evidence), changes)


CHECK = Check(CONDITION, check_changes)


def _weakest(changes: Changes) -> dict[str, float] | None:
    """Smallest singular value and condition number of the fitted difference vectors over all latents, median over z."""
    if changes.fitted is None:
        return None
    singular = np.linalg.svd(changes.fitted, compute_uv=False)[:, : min(changes.present - 1, 2 * changes.n_latents)]
    return {
        "size": float(np.median(singular[:, -1]) / np.sqrt(changes.present)),
        "condition": float(np.median(singular[:, 0] / np.maximum(singular[:, -1], 1e-12))),
    }


def _judge(subject: AuditInput, changes: Changes, left: Bools, met: Bools, barred: Bools) -> tuple[Verdict, bool, str]:
    """Verdict, whether it could have failed, sentence.

    ``left``: pairs that need changes; ``met``: those with enough; ``barred``: those that dependence rules out.
    """
    n, names = subject.n_latents, subject.names
    needed = int(left.sum())
    costs = (
        f"{counted(needed, 'pair')} of latents {'is' if needed == 1 else 'are'} not reliably separated by the "
        f"structure and {'needs' if needed == 1 else 'need'} changes."
        if needed
        else "That does not matter here: the structure separates all pairs."
    )
    if len(subject.large) < 2:
        if subject.untested_domains:
            few = f"Fewer than two domains have {LEAST_ROWS} rows"
            if len(subject.domains) == 1:
                few = f"All rows are from {subject.domains[0]}, one of {1 + len(subject.absent)} domains"
            return "cannot tell", False, f"{few}, so changes are not tested."
        return "fails", True, f"There is one domain, so nothing changes. {costs}"
    if not changes.changing.any() and changes.blind:
        rows = subject.counts[subject.large]
        each = f"{rows.min()}" if rows.min() == rows.max() else f"{rows.min()} to {rows.max()}"
        sentence = (
            f"No latent is seen to differ between domains, but there are too few rows to tell: {each} per domain "
            f"reveal only changes of {changes.visible:.0%} of a latent's variance or more."
        )
        return "cannot tell", False, sentence
    if not changes.changing.any():
        sentence = "No latent differs between domains by more than with shuffled domain labels."
        return "fails", True, f"{sentence} {costs}"
    changing = [names[i] for i in np.flatnonzero(changes.changing)]
    which = f"{len(changing)} of {n}" if len(changing) < n else "Both" if n == 2 else f"All {n}"
    differ = "differs" if len(changing) == 1 else "differ"
    said = f"{which} latents ({listed(changing)}) {differ} between domains by more than with shuffled labels."
    more = " There are few rows; more rows may reveal more changes." if changes.blind else ""
    if n == 1:
        said = f"{names[0]} differs between domains by more than with shuffled labels."
    if not needed:
        if len(changing) == n:
            return "holds", True, f"{said} No pair needs it: the structure separates all pairs."
        return "fails", True, f"{said} {costs}{more}"
    if met.sum() == needed:
        sentence = f"{said} {costs} The domains differ in enough directions for all of them."
        return "holds", True, sentence
    lacking, bars = (
        [f"{names[a]} from {names[b]}" for a, b in np.argwhere(left & ~met & part)] for part in (~barred, barred)
    )
    sentence = f"{said} {costs}"
    if lacking:
        sentence += f" The domains do not reliably differ in enough directions to separate {listed(lacking)}."
    if bars:
        sentence += f" For {listed(bars)} changes do not count, because latents depend on each other within domains."
    if lacking and changes.blind and not bars:
        return "cannot tell", False, f"{sentence}{more}"
    return "fails", True, f"{sentence}{more}"
