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

import numpy as np
from numpy.typing import NDArray

from unmix.audit import independence, sparsity
from unmix.audit.check import Check, CheckResult, Context
from unmix.audit.finding import Finding, Verdict, listed
from unmix.audit.input import LEAST_ROWS, AuditInput
from unmix.audit.moments import LEAST_SD, Moments, averages, by_labels_alone, measure, moments_of, normal_scores
from unmix.audit.routes import STRUCTURE, Shared, route_shares, tied
from unmix.audit.sparsity import SURE
from unmix.numbers import counted

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

CONDITION = "C3 changes"
_WEAKEST = 0.1
_VISIBLE = 0.08
_FEW_ROWS = 40


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
    spread = np.maximum(z.std(axis=0), LEAST_SD)
    z = (z - z.mean(axis=0)) / spread
    order = np.argsort(labels, kind="stable")
    z, labels = z[order], labels[order]
    scores = normal_scores(z)
    weights = averages(labels, n_domains)
    parts = [
        measure(values, labels, weights, rng, by_labels)
        for values, by_labels in zip((z, scores), by_labels_alone(subject), strict=True)
    ]
    fitted = None
    if subject.slopes is not None and subject.curvatures is not None:
        both = np.concatenate([subject.curvatures * spread**2, subject.slopes * spread], axis=2)[:, subject.large]
        fitted = both - both.mean(axis=1, keepdims=True)
    own, ranked = parts
    few = bool(np.median(np.bincount(labels)) < _FEW_ROWS)
    moments = [moments_of(values, labels, weights, rng, few) for values in (z, scores)]
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
        sentence += f" For {listed(bars)}, changes do not count, because latents depend on each other within domains."
    if lacking and changes.blind and not bars:
        return "cannot tell", False, f"{sentence}{more}"
    return "fails", True, f"{sentence}{more}"
