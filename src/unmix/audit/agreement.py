r"""Do several starts find the same latents? Measured on held-out rows, matched one to one, without ground truth.

For starts r and s with latents on the same held-out rows, the agreement is

.. math:: A_{rs} = \frac{1}{n} \sum_i |\mathrm{corr}(z^r_i, z^s_{\pi(i)})|,

with π the best one-to-one assignment.

Latents that differ from start to start are not trustworthy, whatever their likelihood; starts that agree may still
agree on something wrong, so agreement is evidence, not proof.

Every latent must meet two conditions, because a start can differ for two reasons. *Most starts* must find it again: the
median of its correlations is 0.95 or more, so the optimum is no accident. Starts in a clearly worse optimum do not
count here (``comparable``): a held-out objective higher by more than 0.05 nats per row and 2.6 standard errors of the
difference (the 1 % level). If no other start is left, the one that fits best counts. And *no start that fits as well*
(a held-out objective at most 0.05 nats per row above the audited one's) may contradict it, not even a single one: the
data then prefer neither. Correlations are cosines of angles, so two estimates that both have correlation c with one
true latent have at least :math:`2c^2 - 1` with each other; below 0.805, for c = 0.95, they do not estimate the same
one. Either one of them is wrong, or each is a true latent and the model has too few latents. A start that fits worse is
a worse optimum: it is reported, but does not contradict the latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unmix.audit.check import Check, CheckResult, Context
from unmix.audit.finding import Finding, Said, floored, listed
from unmix.audit.input import AuditInput
from unmix.metrics.recovery import correlation, match

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CONDITION = "agreement"
REPEATS = 0.95
SAME_LATENTS = 0.9
_CONTRADICTED = 2 * REPEATS**2 - 1
_FITS_AS_WELL = 0.05
_CLEARLY = 2.6
_SAME_OBJECTIVE = 0.01


@dataclass(frozen=True)
class Agreement:
    """Agreement between starts.

    Attributes
    ----------
    pairs : (starts, starts), the diagonal is 1
    latents : (starts, starts, n_latents), correlation of every latent of the first start with its partner in the second
    partners : (starts, starts, n_latents) int, that partner
    signs : (starts, starts, n_latents), sign of that correlation
    """

    pairs: Floats
    latents: Floats
    partners: NDArray[np.int64]
    signs: Floats

    @property
    def mean(self) -> float:
        """Mean over all pairs of different starts; NaN with a single start."""
        return mean_of_pairs(self.pairs)

    def of_start(self, start: int) -> float:
        """Mean agreement of one start with the others; NaN with a single start."""
        others = np.arange(len(self.pairs)) != start
        return float(self.pairs[start, others].mean()) if others.any() else float("nan")


def agreement(latents: Floats) -> Agreement:
    """Compare every pair of starts; ``latents`` (starts, rows, n_latents) on held-out rows."""
    starts, _, n_latents = latents.shape
    strength = np.ones((starts, starts, n_latents))
    partners = np.broadcast_to(np.arange(n_latents), strength.shape).copy()
    signs = np.ones_like(strength)
    for a in range(starts):
        for b in range(starts):
            if a == b:
                continue
            signed = correlation(latents[a], latents[b])
            partners[a, b] = match(np.abs(signed))
            paired = signed[np.arange(n_latents), partners[a, b]]
            strength[a, b], signs[a, b] = np.abs(paired), np.where(paired < 0, -1.0, 1.0)
    return Agreement(strength.mean(axis=2), strength, partners, signs)


def choose_start(
    objective: list[float],
    failed: list[bool],
    agreed: Agreement,
    blocks: Floats | None = None,
    seedless: Sequence[bool] = (),
) -> int:
    """The start to keep: of those that fit the held-out rows as well as the best, the most reproducible one.

    As well means within 0.01 nats, or within one standard error of the difference, by ``blocks`` (blocks, starts) of
    the held-out rows. Of these, a start whose initial values do not depend on the seed (``seedless``) comes first,
    then the one with the highest agreement. Either criterion alone misleads: the objective does not show which of two
    equal fits is reproducible, and agreement does not show that several starts share a bad optimum. Ties in agreement,
    which are certain with two starts, are broken by the objective.
    """
    values = np.where(np.array(failed), np.inf, np.array(objective))
    best = int(values.argmin())
    margin = np.full(len(values), _SAME_OBJECTIVE)
    if blocks is not None and len(blocks) > 1:
        differences = blocks - blocks[:, [best]]
        margin = np.maximum(margin, differences.std(axis=0, ddof=1) / np.sqrt(len(blocks)))
    candidates = np.flatnonzero(values <= values[best] + margin)
    usable, first = ~np.array(failed), [*seedless] or [False] * len(values)

    def order(start: int) -> tuple[bool, float, float]:
        return first[start], agreed.pairs[start, usable].mean(), -values[start]

    return max(candidates.tolist(), key=order)


def comparable(objective: ArrayLike, error: ArrayLike, best: int) -> Bools:
    """Whether each start (starts,) is one with which the latents of the start ``best`` are compared.

    These are the other starts that did not fail and do not fit clearly worse; if there are none, the one of those that
    did not fail which fits best. ``objective`` (starts,) is infinite for failed ones; ``error`` (starts,) is the
    standard error of its difference from that of ``best``, NaN if unknown.
    """
    reached = np.asarray(objective, dtype=float)
    others = np.isfinite(reached) & (np.arange(len(reached)) != best)
    if all_worse(objective, error, best):
        return np.asarray(others & (reached == reached[others].min()))
    return others & ~_clearly_worse(objective, error, best)


def all_worse(objective: ArrayLike, error: ArrayLike, best: int) -> bool:
    """Whether there are other starts that did not fail, and all of them fit clearly worse than the start ``best``."""
    others = np.isfinite(np.asarray(objective, dtype=float))
    others[best] = False
    return bool(others.any() and _clearly_worse(objective, error, best)[others].all())


def _clearly_worse(objective: ArrayLike, error: ArrayLike, best: int) -> Bools:
    reached, unsure = np.asarray(objective, dtype=float), np.asarray(error, dtype=float)
    worse_by = reached - reached[best]
    return np.asarray((worse_by > _FITS_AS_WELL) & (worse_by > _CLEARLY * unsure))


@dataclass(frozen=True)
class Repeats:
    """How well the other starts reproduce every latent (n_latents,).

    Attributes
    ----------
    median : over the other starts that count
    least : over all other starts
    rival : least over the other starts that fit as well as the audited one; 1 if there are none
    below : int, other starts in which the correlation is below ``REPEATS``
    worse : (n_latents,) bool, whether all of those fit worse than the audited one
    others, counted : int, number of other starts, and of those that count
    all_worse : bool, whether all other starts fit clearly worse, so that the best of them counts
    """

    median: Floats
    least: Floats
    rival: Floats
    below: NDArray[np.int64]
    worse: NDArray[np.bool_]
    others: int
    counted: int
    all_worse: bool

    @property
    def over(self) -> str:
        """The starts over which the median is taken."""
        if self.all_worse:
            return f"the best of {self.others} other starts, which all fit clearly worse,"
        if self.counted < self.others:
            worse = self.others - self.counted
            return f"{self.counted} of {self.others} other starts (the rest {_fit(worse)} clearly worse)"
        return f"{self.others} other starts"

    def fault(self, latent: int) -> Said:
        """Why the latent is not reproducible, or empty."""
        if self.median[latent] < REPEATS:
            value = floored(self.median[latent])
            said = f"correlation {value} with the other start" if self.others == 1 else self._median(latent)
            mend = "More starts or longer training may help."
            return Said("starts_disagree", f"The starts do not agree on it: {said} (required: {REPEATS}). {mend}")
        if self.rival[latent] < _CONTRADICTED:
            return Said(
                "rival_start",
                f"A start that fits as well found another latent in its place (correlation "
                f"{floored(self.rival[latent])}): they do not estimate the same factor, and the data prefer neither. "
                "One of them is wrong, or each is a factor and there are more factors than latents.",
            )
        return Said("", "")

    def said(self, latent: int) -> str:
        """The agreement on a latent: the statistic, and the number of starts that differ."""
        if self.others == 1:
            return f"The other start finds it again with correlation {floored(self.median[latent])}."
        text = f"Over the other starts: {self._median(latent)}"
        if not self.below[latent]:
            return f"{text}, {floored(self.least[latent])} at least."
        one = self.below[latent] == 1
        worse = f", which {_fit(int(self.below[latent]))} worse," if self.worse[latent] else ""
        differ = f"{self.below[latent]} of {self.others}{worse} {'finds' if one else 'find'} it less well"
        return f"{text}; {differ} (down to {floored(self.least[latent])})."

    def _median(self, latent: int) -> str:
        value = floored(self.median[latent])
        if self.all_worse:
            return f"correlation {value} with the best of {self.others}, which all fit clearly worse"
        if self.counted == 1:
            return f"correlation {value} with the one of {self.others} that does not fit clearly worse"
        if self.counted < self.others:
            return f"median correlation {value} of the {self.counted} of {self.others} that do not fit clearly worse"
        return f"median correlation {value} of {self.others}"


def measure_repeats(subject: AuditInput) -> Repeats | None:
    """The agreement on every latent; None with a single start."""
    found, worse = subject.agreement, subject.worse_by
    if not len(found):
        return None
    as_well = np.ones(len(found), dtype=bool) if worse is None else worse <= _FITS_AS_WELL
    low = found < REPEATS
    counts = np.ones(len(found), dtype=bool) if subject.comparable is None else subject.comparable
    return Repeats(
        median=np.median(found[counts], axis=0),
        least=found.min(axis=0),
        rival=found[as_well].min(axis=0, initial=1.0),
        below=low.sum(axis=0),
        worse=np.asarray(~(low & as_well[:, None]).any(axis=0)),
        others=len(found),
        counted=int(counts.sum()),
        all_worse=subject.all_worse,
    )


def check_agreement(subject: AuditInput, context: Context) -> CheckResult[Repeats | None]:
    """Whether other starts find every latent again."""
    repeats = measure_repeats(subject)
    if repeats is None:
        sentence = "There is no other start to compare with, so it is not known whether one finds the same latents."
        return CheckResult(Finding(CONDITION, "cannot tell", False, sentence), None)
    names = subject.names
    evidence = {
        "median": dict(zip(names, repeats.median.tolist(), strict=True)),
        "least": dict(zip(names, repeats.least.tolist(), strict=True)),
        "least_of_starts_that_fit_as_well": dict(zip(names, repeats.rival.tolist(), strict=True)),
        "starts_that_differ": dict(zip(names, repeats.below.tolist(), strict=True)),
        "worse_by_nats": None if subject.worse_by is None else subject.worse_by.round(4).tolist(),
        "other_starts": repeats.others,
        "starts_that_count": repeats.counted,
        "all_other_starts_fit_clearly_worse": repeats.all_worse,
    }
    low = [name for name, value in zip(names, repeats.median, strict=True) if value < REPEATS]
    if low:
        sentence = f"The other start does not find {listed(low)} again (correlation below {REPEATS})."
        if repeats.others > 1:
            sentence = f"Over {repeats.over} the median correlation with {listed(low)} is below {REPEATS}."
        return CheckResult(Finding(CONDITION, "fails", True, sentence, evidence), repeats)
    rivals = [name for name, value in zip(names, repeats.rival, strict=True) if value < _CONTRADICTED]
    if rivals:
        sentence = f"A start that fits as well as the audited one found another latent in place of {listed(rivals)}."
        return CheckResult(Finding(CONDITION, "fails", True, sentence, evidence), repeats)
    least_median = floored(repeats.median.min())
    sentence = f"The other start finds every latent again (correlations {least_median} or more)"
    if repeats.others > 1:
        sentence = f"Over {repeats.over} the median correlation with every latent is {least_median} or more"
    differ = [
        f"{name} in {count} (down to {floored(least)})"
        for name, count, least in zip(names, repeats.below, repeats.least, strict=True)
        if count
    ]
    worse = ", all in starts that fit worse" if repeats.worse.all() else ""
    all_do = f", and none of them is below {REPEATS}." if repeats.others > 1 else "."
    sentence += f"; below {REPEATS} are {listed(differ)}{worse}." if differ else all_do
    return CheckResult(Finding(CONDITION, "holds", True, sentence, evidence), repeats)


CHECK = Check(CONDITION, check_agreement)


def _fit(starts: int) -> str:
    return "fits" if starts == 1 else "fit"


def mean_of_pairs(pairs: Floats) -> float:
    """Mean of a matrix (starts, starts) over pairs of different starts; NaN with a single one."""
    count = len(pairs)
    return float((pairs.sum() - count) / (count * (count - 1))) if count > 1 else float("nan")
