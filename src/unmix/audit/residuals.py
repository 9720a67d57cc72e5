r"""Given the latents, do the residuals of two features still depend on each other?

If the model holds, :math:`z \sim q(z \mid x)` gives :math:`r = x - \hat g(z)` the law of the observation noise, which
is independent between features. With too few latents, features that depend on a missing one have correlated residuals.
With the posterior *mean* instead of a draw, residuals are correlated in every fit, because encoding projects.

With the standardised ranks :math:`s_{uk}` of the residuals of feature k in domain u, the statistic is the largest

.. math:: |R_{kl}|, \qquad R_{kl} = \frac{1}{n} \sum_u s_{uk}^\top s_{ul} .

Under permutation within domains :math:`R_{kl}` has mean 0 and variance :math:`\sum_u n_u^2 / (n_u - 1) / n^2`, nearly
normal, so the limit over all pairs has a closed form and no shuffling is needed.

A dependence indicates a missing latent only if it meets three conditions. It is beyond chance. It is strong, since a
likelihood that is not quite right (noise that is not Gaussian, an approximate posterior) causes small correlations that
are significant with many rows: from ``STRONG`` on a latent is missing; below ``WEAK`` none is looked for. And the
residuals share enough: :math:`|R_{kl}| \sigma_k \sigma_l`, with :math:`\sigma` their standard deviations, is at least
1 % of a feature's variance. Copies of a feature have nearly equal residuals, but tiny ones.

The audit requires a smaller share, 0.1 %, because a missing latent may have a small effect beside the others, and a
correlation that is 0.25 (``AUDITED``) or more with 95 % confidence; from ``STRONG`` on, with the same confidence, it
cannot tell. Features whose residuals are small and nearly equal repeat each other; they are named, and are no evidence
of a missing latent.

A missing latent may also leave no pair, if the latents that are there describe all features but one: then it looks like
noise of that feature. If domains change it, they change this noise. So with Gaussian noise, which has the same law in
each domain, the audit compares the variances :math:`v_u` of each residual between domains. Under the model their
weighted spread is that of sampling,

.. math:: \sum_u \frac{n_u (v_u - \bar v)^2}{(\kappa - 1) \bar v^2} \sim \chi^2_{U-1}, \qquad
          \kappa = E\,r^4 / (E\,r^2)^2 .

Beyond chance (1 % over all features) it counts if the standard deviation of the variance over domains, less that of
sampling, is 1 % or more of the feature's variance and a fifth or more of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import chi2, norm, rankdata

from unmix.audit.check import Check, CheckResult, Context
from unmix.audit.describe import chunks
from unmix.audit.finding import Finding, listed
from unmix.audit.input import LEAST_SHARED, UNEVEN_CHANGE, UNEVEN_SHARE, AuditInput, ResidualDependence, evenly
from unmix.data.batches import Rows
from unmix.distributions.likelihood import Gaussian
from unmix.models.base import FittedModel
from unmix.numbers import counted

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONDITION = "number of latents"
STRONG = 0.2
WEAK = 0.15
AUDITED = 0.25
AUDITED_SHARE = 0.001
_COPIES = 0.95
_MOST_COPIES = 5
_LEVEL = 0.01
_MOST_ROWS = 5_000
_MOST_FEATURES = 2_000
_LEAST_OF_STRATUM = 20


def check_number(subject: AuditInput, context: Context) -> CheckResult[None]:
    """Whether the latents are enough to make the features independent; "fails": there are too few of them."""
    found, n = subject.residual, subject.n_latents
    if found is None:
        sentence = "The residuals of the features are not known, so whether there are more factors cannot be tested."
        return CheckResult(Finding(CONDITION, "cannot tell", False, sentence), None)
    # Half of the limit for all pairs is 1.6 to 2.2 standard errors of one.
    least = AUDITED + found.limit / 2
    evidence: dict[str, object] = {
        "correlation": found.correlation,
        "limit": found.limit,
        "share": found.share,
        "features": list(found.features),
        "features_that_repeat_each_other": [list(pair) for pair in found.copies],
        "least_correlation_that_counts": least,
        "least_share_that_counts": AUDITED_SHARE,
        "linear_model": subject.simplified,
        "noise_that_differs_between_domains": None if found.uneven is None else list(found.uneven),
        "may_be_too_few": False,
    }
    could_fail = bool(np.isfinite(found.limit)) and n < len(subject.feature_names)
    if not could_fail:
        sentence = "There are too few rows: more factors would not show."
        if np.isfinite(found.limit):
            sentence = (
                "There are as many latents as features: more factors would not show, and noise of the features cannot "
                "be told from the latents."
            )
        return CheckResult(Finding(CONDITION, "cannot tell", False, sentence, evidence), None)
    pair = listed([str(name) for name in found.features])
    asked = "" if subject.simplified else f"; {least:.2f} with {AUDITED_SHARE:.1%} counts"
    alike = listed([f"{first} with {second}" for first, second in found.copies])
    repeated = f" Features that repeat each other: {alike}." if alike else ""
    if found.limit >= AUDITED and not subject.simplified:
        sentence = f"Too few rows to tell: by chance alone, residuals correlate by up to {found.limit:.2f}."
        return CheckResult(Finding(CONDITION, "cannot tell", False, sentence, evidence), None)
    size = f"rank correlation {found.correlation:.2f} of their residuals, {found.share:.1%} of a feature's"
    if found.exceeds(least, AUDITED_SHARE) or subject.simplified:
        sentence = (
            f"Given the {counted(n, 'latent')}, {pair} still depend on each other within domains ({size} variance"
            f"{asked}): there are more factors than latents, or a mixing or noise unlike the model's."
            f"{' The fit therefore returned a linear model.' if subject.simplified else ''}{repeated}"
        )
        return CheckResult(Finding(CONDITION, "fails", True, sentence, evidence), None)
    if found.uneven is not None and found.noise_differs:
        feature, spread, change = found.uneven
        sentence = (
            f"Given the {counted(n, 'latent')}, the noise of {feature} differs between domains (its variance by "
            f"{change:.0%}, {spread:.1%} of the feature's variance; {UNEVEN_CHANGE:.0%} and {UNEVEN_SHARE:.0%} "
            f"count): there are more factors than latents, or a mixing or noise unlike the model's.{repeated}"
        )
        return CheckResult(Finding(CONDITION, "fails", True, sentence, evidence | {"features": [feature]}), None)
    if found.exceeds(STRONG + found.limit / 2, AUDITED_SHARE):
        evidence["may_be_too_few"] = True
        sentence = (
            f"There may be more factors than latents: given the latents, {pair} still depend on each other within "
            f"domains ({size} variance{asked}). A fit with one more latent would show it.{repeated}"
        )
        return CheckResult(Finding(CONDITION, "cannot tell", True, sentence, evidence), None)
    sentence = (
        f"Given the latents, no two features are seen to depend on each other strongly enough to count; the strongest "
        f"pair is {pair} ({size} variance{asked}).{repeated}"
    )
    return CheckResult(Finding(CONDITION, "holds", True, sentence, evidence), None)


CHECK = Check(CONDITION, check_number)


@torch.no_grad()
def residual_dependence(
    model: FittedModel,
    rows: Rows,
    strata: Ints,
    names: Sequence[str],
    seed: int = 0,
    least_shares: Sequence[float] = (LEAST_SHARED,),
) -> list[ResidualDependence]:
    """``strongest_pairs`` of the residuals of at most 5,000 ``rows`` with one draw of the latents.

    ``strata`` (rows,) are the rows' domains, -1 for none; ``names`` those of the features. Of more than 2,000 features
    it takes 2,000 at random.
    """
    place = evenly(len(rows), _MOST_ROWS)
    some, generator = rows.take(torch.from_numpy(place).to(model.scale.device)), torch.Generator().manual_seed(seed)
    parts = []
    for chunk in chunks(some):
        noise = torch.randn(len(chunk), model.n_latents, generator=generator).to(chunk.x)
        z, _ = model.sample_posterior(chunk.x, chunk.observed, noise, chunk.design)
        left = model.likelihood.residual(chunk, model.decode(z), generator)
        parts.append((left if chunk.observed is None else left.masked_fill(chunk.observed == 0, np.nan)).cpu())
    residuals = torch.cat(parts).double().numpy()
    taken = np.arange(residuals.shape[1])
    if len(taken) > _MOST_FEATURES:
        taken = np.sort(np.random.default_rng(0).choice(len(taken), _MOST_FEATURES, replace=False))

    def named(found: ResidualDependence) -> ResidualDependence:
        copies = tuple((names[taken[a]], names[taken[b]]) for a, b in found.copies)
        return replace(found, features=tuple(names[taken[k]] for k in found.features), copies=copies)

    chosen, groups = residuals[:, taken], strata[place]
    uneven = uneven_noise(chosen, groups) if isinstance(model.likelihood, Gaussian) else None
    if uneven is not None:
        uneven = names[taken[uneven[0]]], *uneven[1:]
    return [replace(named(own), uneven=uneven) for own in strongest_pairs(chosen, groups, least_shares)]


def uneven_noise(residuals: Floats, strata: Ints) -> tuple[int, float, float] | None:
    """The column of ``residuals`` (rows, features) whose variance differs most between ``strata``, beyond chance.

    With it the standard deviation of the variance over strata, less that of sampling, and the same over the mean
    variance. Of columns in which it is a fifth of the mean or more the one in which it is largest; else of all.
    """
    present = [u for u in np.unique(strata[strata >= 0]) if (strata == u).sum() >= _LEAST_OF_STRATUM]
    if len(present) < 2:
        return None
    parts = [residuals[strata == u] - _mean(residuals[strata == u]) for u in present]
    counts = np.array([(~np.isnan(own)).sum(axis=0) for own in parts], dtype=float)
    variance = np.array([np.nansum(own**2, axis=0) for own in parts]) / np.maximum(counts - 1.0, 1.0)
    total = np.maximum(counts.sum(axis=0), 1.0)
    weights = counts / total
    mean = np.maximum((weights * variance).sum(axis=0), 1e-12)
    fourth = (weights * np.array([_mean(own**4) for own in parts])).sum(axis=0)
    sampling = np.maximum(fourth - mean**2, 1e-24)
    spread = (weights * (variance - mean) ** 2).sum(axis=0)
    beyond = spread * total > sampling * chi2.isf(_LEVEL / residuals.shape[1], len(present) - 1)
    if not beyond.any():
        return None
    size = np.sqrt(np.maximum(spread - sampling * (len(present) - 1) / total, 0.0))
    large = beyond & (size >= UNEVEN_CHANGE * mean)
    k = int(np.where(large if large.any() else beyond, size, -1.0).argmax())
    return k, float(size[k]), float(size[k] / mean[k])


def strongest_pairs(
    residuals: Floats, strata: Ints, least_shares: Sequence[float] = (LEAST_SHARED,)
) -> list[ResidualDependence]:
    """The pair of columns of ``residuals`` (rows, features) with the largest rank correlation within ``strata``.

    One for each of ``least_shares``: pairs that share so much of a feature's variance come first; if that is below the
    default, copies come last. NaN entries, rows of stratum -1 and rows that are alone in their stratum are left out.
    """
    n_features = residuals.shape[1]
    products, counts, variance = np.zeros((3, n_features, n_features))
    squares = np.zeros(n_features)
    for stratum in np.unique(strata[strata >= 0]):
        own = residuals[strata == stratum]
        if len(own) < 2:
            continue
        known = (~np.isnan(own)).astype(float)
        both, score = known.T @ known, _scores(own)
        products, squares = products + score.T @ score, squares + np.nansum((own - _mean(own)) ** 2, axis=0)
        counts, variance = counts + both, variance + both * len(own) / (len(own) - 1)
    if n_features < 2 or not counts.any():
        return [ResidualDependence(0.0, np.inf, 0.0, ())] * len(least_shares)
    spread = np.sqrt(squares / np.maximum(counts.diagonal(), 1.0))
    counts = np.maximum(counts, 1.0)
    beyond = norm.isf(-np.expm1(np.log1p(-_LEVEL) / (n_features * (n_features - 1) / 2)) / 2)
    size, limit = np.abs(products) / counts, beyond * np.sqrt(variance) / counts
    share = size * np.outer(spread, spread)
    copies = np.triu((size >= _COPIES) & (size > limit) & (share < LEAST_SHARED), 1)
    named = tuple((int(a), int(b)) for a, b in np.argwhere(copies)[:_MOST_COPIES])
    found = []
    for least in least_shares:
        order = size - limit + ((share >= least) & (size > limit)) - 2.0 * (copies & (least < LEAST_SHARED))
        order[np.tril_indices(n_features)] = -np.inf
        pair = np.unravel_index(int(order.argmax()), order.shape)
        features = tuple(int(k) for k in pair)
        found.append(ResidualDependence(float(size[pair]), float(limit[pair]), float(share[pair]), features, named))
    return found


def _scores(values: Floats) -> Floats:
    """Standardised ranks of every column, 0 where missing."""
    ranks = rankdata(values, axis=0, nan_policy="omit")
    ranks = ranks - _mean(ranks)
    result: Floats = np.nan_to_num(ranks / np.maximum(np.sqrt(_mean(ranks**2)), 1e-12))
    return result


def _mean(values: Floats) -> Floats:
    """Mean of every column over its observed entries; 0 if it has none."""
    result: Floats = np.nansum(values, axis=0) / np.maximum((~np.isnan(values)).sum(axis=0), 1)
    return result
