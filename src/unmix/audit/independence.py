r"""C2: are the latents independent within each domain?

For latents i and j and domain u with :math:`n_u` rows, with the rank correlation of the values and of their distances
from the domain's median, :math:`r_{u,ij}` and :math:`s_{u,ij}`, each minus what it is in rows that the fitted model
makes itself (prior, decoder, noise, encoder: what posterior means share of the noise is no dependence), there are three
statistics

.. math:: \bar r_{ij} = \max\Big(\Big|\sum_u \tfrac{n_u}{N} r_{u,ij}\Big|,
          \Big|\sum_u \tfrac{n_u}{N} s_{u,ij}\Big|\Big), \quad Q_{ij} = \sum_u Q_{u,ij},
.. math:: \max_u Q_{u,ij}, \quad\text{with}\quad Q_{u,ij} = n_u\, \max(r_{u,ij}^2, s_{u,ij}^2):

a dependence of one sign in all domains, which adds up over many small ones, one whose sign changes, and one in a single
domain. Each is compared with its distribution when the rows of every latent are shuffled within every domain, where no
dependence is left; the largest over all pairs (and domains) of a shuffle gives the limit for every pair (multiplicity),
and the three share the level.

A dependence must also be strong enough to matter. A latent that has correlation 0.95 with a true one may hold a little
of another, and where that one's scale is much larger the two are correlated by up to :math:`\sin 2θ = 0.6`,
:math:`\cos θ = 0.95`; that much counts in a single domain. Of one sign 0.1 counts. The *excess* is what is left of Q
when the mean :math:`\bar Q` of the shuffles is taken off, :math:`\sqrt{\max(0, Q_{ij} - \bar Q) / \sum_u n_u}`, near
:math:`|r|` where all domains have the same size: 0.25 counts. An excess of 0 means that the correlations are no larger
than those of shuffled rows, not that they are 0. The test could have failed if a limit of one of the first two lies
below 0.28.

**What independence rules out.** Latents :math:`z_i, z_j` that are turned into each other are dependent wherever their
scales are not the same up to one factor: in units c of their ratio, a turn by an angle θ correlates them by
:math:`\sin 2θ\; t_u` in domain u, :math:`t_u = \tanh(\log(s_{u,i}/s_{u,j}) - \log c)`. Half of all angles would show,
being correlated by 0.25, where the root mean square of :math:`t_u` over domains, beyond sampling and for the least
telling c, is :math:`0.25 \sqrt 2`. Such a pair cannot have been turned; one that is independent but changes alike could
have been, by a rotation; and one that is dependent, or not tested, by any map.

Posterior means shrink toward their mean, so that a true dependence comes out somewhat weakened.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from unmix.audit.check import Check, CheckResult, Context
from unmix.audit.finding import Finding, counted, listed
from unmix.audit.input import LEAST_ROWS, AuditInput

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

CONDITION = "C2 independence"
_SIZE = 0.25
_SIZE_OF_ONE_SIGN = 0.1
_SIZE_IN_ONE = 0.6
_LARGE = 0.28
_SHOWN = _SIZE * np.sqrt(2.0)
_UNITS = 41
_LEVEL = 0.05
_SHUFFLES = 200
_FEW_SHUFFLES = 60
_MANY_PAIRS = 300


@dataclass(frozen=True)
class _Test:
    """One statistic (rows of ``excess`` are what it is taken over), the limit, and what a dependence at it measures."""

    excess: Floats
    beyond: Bools
    visible: float


def check_independence(subject: AuditInput, context: Context) -> CheckResult[Bools]:
    """C2, and the pairs (n_latents, n_latents) that depend on each other within domains."""
    n = subject.n_latents
    nothing = np.zeros((n, n), dtype=bool)
    z, labels = subject.tested
    if n < 2:
        sentence = "There is one latent to test: nothing that it could depend on."
        return CheckResult(Finding(CONDITION, "cannot tell", False, sentence), nothing)
    if not len(z):
        sentence = f"No domain has the {LEAST_ROWS} rows that a test of dependence within it takes."
        return CheckResult(Finding(CONDITION, "cannot tell", False, sentence), nothing)
    scores = [_scores(z[labels == domain]) for domain in range(len(subject.large))]
    sizes = np.array([score.shape[1] for score in scores])
    rng, n_shuffles = np.random.default_rng(0), _SHUFFLES if n * (n - 1) // 2 <= _MANY_PAIRS else _FEW_SHUFFLES
    expected, spread = _expected(subject)
    actual = _correlations(scores) - expected
    draws = (_correlations([_shuffle(score, rng) for score in scores]) for _ in range(n_shuffles))
    shuffled = np.stack([draw + spread * rng.standard_normal(draw.shape) for draw in draws])
    one_sign = _compare_means(actual, shuffled, sizes)
    actual, shuffled = (sizes[:, None, None] * (part**2).max(axis=-3) for part in (actual, shuffled))
    pooled = _compare(actual.sum(axis=0)[None], shuffled.sum(axis=1)[:, None], sizes.sum(keepdims=True))
    single = _compare(actual, shuffled, sizes)
    same, anyhow = (
        (one_sign.beyond & (one_sign.excess >= _SIZE_OF_ONE_SIGN))[0],
        (pooled.beyond & (pooled.excess >= _SIZE))[0],
    )
    alone = (single.beyond & (single.excess >= _SIZE_IN_ONE)).any(axis=0)
    dependent = same | anyhow | alone
    size = np.where(anyhow, pooled.excess[0], np.where(same, one_sign.excess[0], single.excess.max(axis=0)))
    pairs = [
        [subject.names[a], subject.names[b], float(size[a, b])]
        for a, b in zip(*np.nonzero(np.triu(dependent)), strict=True)
    ]
    # Root mean square over the domains, and the same of shuffled rows: what the excess is the difference of.
    seen, chance = (np.sqrt(part / sizes.sum()) for part in (actual.sum(axis=0), shuffled.sum(axis=1).mean(axis=0)))
    first, second = np.unravel_index(int(seen.argmax()), seen.shape)
    evidence = {
        "dependent_pairs": pairs,
        "largest_correlation": float(seen.max()),
        "the_same_shuffled": float(chance[first, second]),
        "largest_of_one_sign": float(one_sign.excess.max()),
        "largest_excess": float(pooled.excess.max()),
        "largest_excess_in_one_domain": float(single.excess.max()),
        "least_of_one_sign_that_counts": _SIZE_OF_ONE_SIGN,
        "least_excess_that_counts": _SIZE,
        "least_excess_in_one_domain_that_counts": _SIZE_IN_ONE,
        "least_visible_of_one_sign": one_sign.visible,
        "least_visible_excess": pooled.visible,
        "rows": len(z),
        "domains": len(scores),
    }
    if pairs:
        words = listed([f"{a} and {b} ({strength:.2f})" for a, b, strength in pairs])
        sentence = (
            f"Within domains {words} depend on each other; the model takes latents to be independent there. In "
            f"brackets: the rank correlation beyond that of rows that the model makes and of shuffled ones "
            f"({_SIZE_OF_ONE_SIGN} counts where its sign is the same in all domains, {_SIZE} where it is not, "
            f"{_SIZE_IN_ONE} in one domain)."
        )
        return CheckResult(Finding(CONDITION, "fails", True, sentence, evidence), dependent)
    rows = f"{len(z)} rows in {counted(len(scores), 'domain')}"
    if min(one_sign.visible, pooled.visible) >= _LARGE:
        sentence = f"{rows} are too few to see even a dependence of {_LARGE} in all of them."
        return CheckResult(Finding(CONDITION, "cannot tell", False, sentence, evidence), dependent)
    sentence = (
        f"No two latents are seen to depend on each other within domains by a correlation of "
        f"{max(_SIZE_OF_ONE_SIGN, one_sign.visible):.2f} or more with one sign"
    )
    if len(scores) > 1:
        sentence += f", or {max(_SIZE, pooled.visible):.2f} with changing signs"
    sentence += (
        f" ({rows}). The largest is {one_sign.excess.max():.2f} in the mean over domains; the root mean square is "
        f"{seen.max():.2f} at most ({subject.names[first]} and {subject.names[second]}), with shuffled rows "
        f"{chance[first, second]:.2f}."
    )
    return CheckResult(Finding(CONDITION, "holds", True, sentence, evidence), dependent)


CHECK = Check(CONDITION, check_independence)


def zeros_by_turning(subject: AuditInput, finding: Finding, dependent: Bools) -> Ints:
    """Zeros that turning each pair (n_latents, n_latents) by itself could make without a trace within domains.

    ``finding`` and ``dependent`` are what the check of independence says.
    """
    n, (z, labels) = subject.n_latents, subject.tested
    free = np.where(dependent | (not finding.could_fail), 2, 1)
    np.fill_diagonal(free, 0)
    if n < 2 or len(subject.large) < 2:
        return free
    rows = np.bincount(labels).astype(float)
    spread = np.stack([z[labels == domain].std(axis=0) for domain in range(len(rows))])
    ratio = np.log(np.maximum(spread, 1e-12))[:, :, None] - np.log(np.maximum(spread, 1e-12))[:, None, :]
    # A model chooses the scales of its latents; those that hide the turn best count.
    low, high = ratio.min(axis=0), ratio.max(axis=0)
    units = low + (high - low) * np.linspace(0.0, 1.0, _UNITS)[:, None, None, None]
    hidden = (rows[:, None, None] * np.tanh(ratio - units) ** 2).sum(axis=1).min(axis=0) / rows.sum()
    # Sampling alone gives log s_i / s_j a variance of 1 / n_u.
    shown = np.sqrt(np.maximum(hidden - len(rows) / rows.sum(), 0.0))
    return np.where((free == 1) & (shown >= _SHOWN), 0, free)


def _compare(actual: Floats, shuffled: Floats, sizes: Ints) -> _Test:
    """``actual`` (parts, n, n) against ``shuffled`` (draws, parts, n, n), ``sizes`` rows of each part."""
    # n_u r² has the same null distribution in every domain, so that one limit serves them all.
    limit = float(np.quantile(shuffled.max(axis=(1, 2, 3)), 1 - _LEVEL / 3))
    mean, rows = shuffled.mean(axis=0), sizes[:, None, None]
    excess = np.sqrt(np.maximum(actual - mean, 0.0) / rows)
    off = ~np.eye(actual.shape[-1], dtype=bool)
    visible = float(np.sqrt(max(limit - mean[:, off].mean(), 0.0) / sizes.min()))
    return _Test(excess, actual > limit, visible)


def _compare_means(actual: Floats, shuffled: Floats, sizes: Ints) -> _Test:
    """Means over domains of ``actual`` (domains, 2, n, n) against those of ``shuffled`` (draws, domains, 2, n, n)."""
    share = sizes / sizes.sum()
    mean, draws = (np.abs(np.einsum("u,...utij->...tij", share, part)).max(axis=-3) for part in (actual, shuffled))
    limit = float(np.quantile(draws.max(axis=(1, 2)), 1 - _LEVEL / 3))
    return _Test(mean[None], (mean > limit)[None], limit)


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


def _correlations(scores: list[Floats]) -> Floats:
    """Correlations of values and of distances of every domain and pair (domains, 2, n_latents, n_latents)."""
    found = np.stack([np.einsum("tri,trj->tij", own, own, optimize=True) / own.shape[1] for own in scores])
    found[..., np.eye(found.shape[-1], dtype=bool)] = 0.0
    return found


def _expected(subject: AuditInput) -> tuple[Floats, float]:
    """``_correlations`` of the rows that the model makes, and their standard error; 0 where there is no model."""
    made = subject.simulated
    if made is None:
        return np.zeros((len(subject.large), 1, 1, 1)), 0.0
    parts = [made.read[made.strata == stratum] for stratum in subject.large]
    return _correlations([_scores(part) for part in parts]), float(1.0 / np.sqrt(len(parts[0])))
