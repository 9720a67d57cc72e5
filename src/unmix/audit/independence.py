r"""C2: are the latents independent within each domain?

For latents i and j and domain u with :math:`n_u` rows, with the rank correlation of the values and of their distances
from the domain's median, :math:`r_{u,ij}` and :math:`s_{u,ij}`,

.. math:: Q_{ij} = \sum_u n_u\, \max(r_{u,ij}^2, s_{u,ij}^2)

is compared with its distribution when the rows of every latent are shuffled within every domain: no dependence is left
then. The largest :math:`Q` over all pairs of a shuffle gives the limit for every pair (multiplicity). A dependence must
also be strong enough to matter: by its *size* :math:`\sqrt{\max(0, (Q_{ij} - \bar Q) / \sum_u n_u)}`, with
:math:`\bar Q` the mean of the shuffles.

Posterior means shrink toward their mean, and what they share of the observation noise correlates them a little; so
small sizes are no failure, and a true dependence comes out somewhat weakened.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from unmix.audit.finding import Finding, listed
from unmix.audit.subject import LEAST_ROWS, Subject

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CONDITION = "C2 independence"
_SIZE = 0.2
_LEVEL = 0.05
_SHUFFLES = 100
_FEW_SHUFFLES = 40
_MANY_PAIRS = 300


def check_independence(subject: Subject) -> tuple[Finding, Bools]:
    """C2, and the pairs (n_latents, n_latents) that depend on each other within domains."""
    n = subject.n_latents
    nothing = np.zeros((n, n), dtype=bool)
    z, labels = subject.tested
    if n < 2:
        return Finding(CONDITION, "cannot tell", False, "There is one latent: nothing to depend on."), nothing
    if not len(z):
        sentence = f"No domain has the {LEAST_ROWS} rows that a test of dependence within it takes."
        return Finding(CONDITION, "cannot tell", False, sentence), nothing
    scores = [_scores(z[labels == domain]) for domain in range(len(subject.large))]
    statistic = _statistic(scores)
    rng, n_shuffles = np.random.default_rng(0), _SHUFFLES if n * (n - 1) // 2 <= _MANY_PAIRS else _FEW_SHUFFLES
    shuffled = np.stack([_statistic([_shuffle(score, rng) for score in scores]) for _ in range(n_shuffles)])
    limit = float(np.quantile(shuffled.max(axis=(1, 2)), 1 - _LEVEL))
    size = np.sqrt(np.maximum(statistic - shuffled.mean(axis=0), 0.0) / len(z))
    dependent = (statistic > limit) & (size >= _SIZE)
    could_fail = limit < len(z) * (2 * _SIZE) ** 2
    pairs = [
        [subject.names[a], subject.names[b], float(size[a, b])]
        for a, b in zip(*np.nonzero(np.triu(dependent)), strict=True)
    ]
    evidence = {
        "dependent_pairs": pairs,
        "largest_size": float(size.max()),
        "least_size_that_counts": _SIZE,
        "rows": len(z),
        "domains": len(scores),
    }
    if pairs:
        words = listed([f"{a} and {b} ({strength:.2f})" for a, b, strength in pairs])
        sentence = f"Within domains {words} depend on each other; the model takes latents to be independent there."
        return Finding(CONDITION, "fails", True, sentence, evidence), dependent
    if not could_fail:
        sentence = f"{len(z)} rows in {len(scores)} domains are too few to see even a dependence of {2 * _SIZE}."
        return Finding(CONDITION, "cannot tell", False, sentence, evidence), dependent
    sentence = f"Within domains no pair depends on each other by {_SIZE} or more (largest {size.max():.2f})."
    return Finding(CONDITION, "holds", True, sentence, evidence), dependent


def _scores(z: Floats) -> Floats:
    """Standardised ranks of the values and of their distances from the median (2, rows, n_latents)."""
    both = np.stack([z, np.abs(z - np.median(z, axis=0))])
    ranks = rankdata(both, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    result: Floats = ranks / np.maximum(ranks.std(axis=1, keepdims=True), 1e-12)
    return result


def _shuffle(scores: Floats, rng: np.random.Generator) -> Floats:
    """Every latent's rows in an order of their own; values and distances stay together."""
    order = rng.permuted(np.tile(np.arange(scores.shape[1])[:, None], scores.shape[2]), axis=0)
    return np.take_along_axis(scores, order[None], axis=1)


def _statistic(scores: list[Floats]) -> Floats:
    total: Floats = np.zeros((scores[0].shape[2],) * 2)
    for own in scores:
        n_rows = own.shape[1]
        r = np.einsum("tri,trj->tij", own, own, optimize=True) / n_rows
        total += n_rows * (r**2).max(axis=0)
    np.fill_diagonal(total, 0.0)
    return total
