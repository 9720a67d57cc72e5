r"""C1: is every latent present, not a duplicate, continuous, and positive in every domain?

A latent has *collapsed* if its posterior for a single row is nearly as wide as its distribution over all rows, or if no
feature depends on it. It is *unclear* if that width is as large as its spread over rows, *discrete* if it takes few
values, *duplicated* if within domains it is a monotone function of another one, by correlation of values or ranks.
Positivity needs domains that overlap: for latent i and domain u, the share of the rows of u that lie between the 1 %
and the 99 % quantile of another domain. If a domain has nearly none, p(z_i | u) looks like zero where other domains
have their mass.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmix.audit.check import Check, CheckResult, Context
from unmix.audit.finding import Finding, Said, Verdict, floored, listed, there
from unmix.audit.input import LEAST_ROWS, AuditInput
from unmix.audit.sparsity import SUPPORT_THRESHOLD
from unmix.metrics.recovery import correlation

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CONDITION = "C1 positivity"
_COLLAPSED = 0.9
_UNCLEAR = 0.9
_DUPLICATED = 0.95
_DISJOINT = 0.05
_FEW_VALUES = 20
_LEAST_SD = 1e-3


def relative_width(width: Floats) -> Floats:
    """Width of a latent's posterior for a row, relative to all rows together; 1 if the rows carry no information on it.

    ``width``: posterior standard deviation, in units of the spread of the posterior means over rows.
    """
    result: Floats = width / np.sqrt(1.0 + np.square(width))
    return result


def collapsed(width: Floats) -> Bools:
    """Whether a posterior of ``width``, as in ``relative_width``, carries next to no information on the latent."""
    return np.asarray(relative_width(width) > _COLLAPSED)


def check_positivity(subject: AuditInput, context: Context) -> CheckResult[frozenset[int]]:
    """C1, and the superfluous latents: those that have collapsed or duplicate one that is kept."""
    names = subject.names
    if len(subject.latents) < LEAST_ROWS:
        sentence = f"There {there(len(subject.latents), 'row')}; the tests of the latents need at least {LEAST_ROWS}."
        return CheckResult(Finding(CONDITION, "cannot tell", False, sentence), frozenset())
    gone = _collapsed(subject)
    faults = gone | {i: words for i, words in _others(subject).items() if i not in gone}
    overlap = _overlap(subject)
    apart: dict[str, list[str]] = {}
    if overlap is not None:
        for domain, i in np.argwhere(overlap < _DISJOINT):
            apart.setdefault(subject.domains[subject.large[domain]], []).append(names[i])
    small = [name for name, count in zip(subject.domains, subject.counts, strict=True) if count < LEAST_ROWS]
    evidence = {
        "rows": dict(zip(subject.domains, subject.counts.tolist(), strict=True)),
        "absent_domains": list(subject.absent),
        "small_domains": small,
        "faults": {names[i]: str(words) for i, words in faults.items()},
        "fault_codes": {names[i]: words.code for i, words in faults.items()},
        "least_overlap": None if overlap is None else dict(zip(names, overlap.min(axis=0).tolist(), strict=True)),
        "domains_apart": apart,
    }
    verdict, sentence = _judge(subject, faults, apart, small)
    return CheckResult(Finding(CONDITION, verdict, True, sentence, evidence), _superfluous(subject, gone), faults)


CHECK = Check(CONDITION, check_positivity, of_all=True)


def _judge(
    subject: AuditInput, faults: dict[int, Said], apart: dict[str, list[str]], small: list[str]
) -> tuple[Verdict, str]:
    if faults:
        return "fails", " ".join(f"{subject.names[i]} {words}." for i, words in faults.items())
    if apart:
        where = listed([f"{domain} (in {listed(latents)})" for domain, latents in apart.items()])
        return "fails", (
            f"Domains do not overlap: hardly any row of {where} lies in the range of the other domains. There the "
            "difference between the fitted densities is an extrapolation."
        )
    if subject.absent or small:
        what = f"no rows of {listed(list(subject.absent))}" if subject.absent else ""
        domains = f"domain{'' if len(small) == 1 else 's'} {listed(small)}"
        few = f"fewer than {LEAST_ROWS} rows of the {domains}" if small else ""
        return "cannot tell", f"There are {' and '.join(filter(None, (what, few)))}, so nothing is known about them."
    if len(subject.domains) == 1:
        return "holds", "Every latent varies and none is a duplicate; there is one domain, so no overlap is needed."
    return "holds", "Every latent varies, none is a duplicate, and every domain overlaps with the others."


def _collapsed(subject: AuditInput) -> dict[int, Said]:
    spread, effect = subject.latents.std(axis=0), subject.starts[0].max(axis=0)
    found: dict[int, Said] = {}
    for i in range(subject.n_latents):
        if spread[i] < _LEAST_SD:
            found[i] = Said("constant", "is constant on these rows")
        elif subject.width is not None and collapsed(subject.width[i]):
            found[i] = Said("collapsed", f"has collapsed: {_width_in_words(subject, i)}")
        elif effect[i] < SUPPORT_THRESHOLD:
            said = f"has collapsed: no feature depends on it by {SUPPORT_THRESHOLD} standard deviations or more"
            found[i] = Said("drives_nothing", said)
    return found


def _width_in_words(subject: AuditInput, latent: int) -> str:
    assert subject.width is not None
    share = floored(float(relative_width(subject.width[latent])))
    return f"its posterior for a single row is {share} times as wide as its distribution over all rows"


def _superfluous(subject: AuditInput, gone: dict[int, Said]) -> frozenset[int]:
    """Collapsed latents, and of every two duplicates the one with less effect."""
    effect = subject.starts[0].sum(axis=0)
    pairs = _twins(subject).items()
    return frozenset(gone) | {i if (effect[i], -i) < (effect[twin], -twin) else twin for i, twin in pairs}


def _others(subject: AuditInput) -> dict[int, Said]:
    found = {
        i: Said(
            "duplicate",
            f"is a duplicate of {subject.names[twin]}: within domains their correlation, of values or ranks, is "
            f"{_DUPLICATED} or more",
        )
        for i, twin in _twins(subject).items()
    }
    for i in range(subject.n_latents):
        if subject.width is not None and subject.width[i] > _UNCLEAR:
            found[i] = Said("unclear", f"is estimated too imprecisely: {_width_in_words(subject, i)}")
        n_values = len(np.unique(subject.latents[:, i].round(6)))
        if n_values <= min(_FEW_VALUES, len(subject.latents) // 10):
            found[i] = Said("discrete", f"is discrete: it takes {n_values} values on these rows")
    return found


def _twins(subject: AuditInput) -> dict[int, int]:
    """For every latent that duplicates another within domains, that other one."""
    residual = subject.latents.copy()
    for stratum in np.unique(subject.strata):
        own = subject.strata == stratum
        residual[own] -= residual[own].mean(axis=0)
    # Ranks find a nonlinear copy, values a copy with a few outlying rows.
    by_values, by_ranks = (np.abs(correlation(residual, residual, kind)) for kind in ("pearson", "spearman"))
    strength = np.maximum(by_values, by_ranks) * ~np.eye(subject.n_latents, dtype=bool)
    return {i: int(strength[i].argmax()) for i in range(subject.n_latents) if strength[i].max() >= _DUPLICATED}


def _overlap(subject: AuditInput) -> Floats | None:
    """Share of each large domain's rows that lies in the range of other domains (domains, n_latents)."""
    z, labels = subject.tested
    n_domains = len(subject.large)
    if n_domains < 2:
        return None
    parts = [z[labels == domain] for domain in range(n_domains)]
    low, high = np.stack([np.quantile(part, [0.01, 0.99], axis=0) for part in parts], axis=1)
    shares = []
    for domain, own in enumerate(parts):
        others = np.arange(n_domains) != domain
        inside = (own[:, None] >= low[others]) & (own[:, None] <= high[others])
        shares.append(inside.any(axis=1).mean(axis=0))
    return np.stack(shares)
