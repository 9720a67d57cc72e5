r"""Do several starts find the same latents? Held out, one to one, without any ground truth.

For starts r and s with latents on the same held-out rows, the agreement is

.. math:: A_{rs} = \frac{1}{n} \sum_i |\mathrm{corr}(z^r_i, z^s_{\pi(i)})|,

with π the best one-to-one assignment.

Latents that differ from start to start are not to be believed, whatever their likelihood; starts that agree
may still agree on something wrong, so this is evidence, not proof.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmix.audit.finding import Finding, counted, listed
from unmix.audit.subject import Subject
from unmix.metrics.recovery import correlation, match

Floats = NDArray[np.float64]

CONDITION = "agreement"
REPEATS = 0.95
SAME_LATENTS = 0.9
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
        return _off_diagonal_mean(self.pairs)

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


def choose_start(objective: list[float], failed: list[bool], agreed: Agreement) -> int:
    """The start to keep: among those whose held-out objective is within 0.01 nats of the best, the most agreed-on.

    Either alone misleads: the objective does not see which of two equal fits repeats, agreement does not see that
    several starts share a bad optimum.
    """
    values = np.where(np.array(failed), np.inf, np.array(objective))
    candidates = np.flatnonzero(values <= values.min() + _SAME_OBJECTIVE)
    usable = ~np.array(failed)
    means = [agreed.pairs[start, usable].mean() for start in candidates]
    return int(candidates[int(np.argmax(means))])


def check_agreement(subject: Subject) -> tuple[Finding, Floats | None]:
    """Whether most other starts find every latent again; with the median correlation of each (n_latents,)."""
    n_others = len(subject.agreement)
    if not n_others:
        sentence = "There is a single start: whether another one finds the same latents is not known."
        return Finding(CONDITION, "cannot tell", False, sentence), None
    middle = np.median(subject.agreement, axis=0)
    low = [name for name, value in zip(subject.names, middle, strict=True) if value < REPEATS]
    evidence = {
        "median": dict(zip(subject.names, middle.tolist(), strict=True)),
        "least": dict(zip(subject.names, subject.agreement.min(axis=0).tolist(), strict=True)),
        "other_starts": n_others,
    }
    if low:
        sentence = (
            f"Most of {counted(n_others, 'other start')} do not find {listed(low)} again (correlation below {REPEATS})."
        )
        return Finding(CONDITION, "fails", True, sentence, evidence), middle
    least = f"least median correlation {middle.min():.2f}"
    sentence = f"Most of {counted(n_others, 'other start')} find every latent again ({least})."
    return Finding(CONDITION, "holds", True, sentence, evidence), middle


def _off_diagonal_mean(pairs: Floats) -> float:
    count = len(pairs)
    return float((pairs.sum() - count) / (count * (count - 1))) if count > 1 else float("nan")
