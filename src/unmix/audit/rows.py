r"""Are there enough rows? The number that was audited, and the number per domain that the tests need.

Two tests need rows. The test of changes (C3) should detect a change of 8 % of a latent's variance beyond chance: the
share between U domains of n rows is :math:`\chi^2_{U-1} / (U n)` by chance. The test of dependence (C2) should detect a
correlation of 0.28 with one sign, which is :math:`N(0, 1 / (U n))` by chance. Both limits are at 5 % over all latents
and tests, and no domain is tested with fewer than 20 rows.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import chi2, norm

from unmix.audit.check import Check, CheckResult, Context
from unmix.audit.finding import Finding
from unmix.audit.input import LEAST_ROWS, AuditInput
from unmix.numbers import counted

CONDITION = "rows"
_LEVEL = 0.05 / 3
_VISIBLE = 0.08
_CORRELATION = 0.28


def rows_needed(n_domains: int, n_latents: int) -> int:
    """Rows per domain that the tests of changes and of dependence need."""
    pairs = max(1, n_latents * (n_latents - 1) // 2)
    dependence = (norm.isf(_LEVEL / (4 * pairs)) / _CORRELATION) ** 2 / n_domains
    changes = 0.0
    if n_domains > 1:
        free = n_domains - 1
        changes = (chi2.isf(_LEVEL / n_latents, free) - free) / (_VISIBLE * n_domains)
    return max(LEAST_ROWS, math.ceil(dependence), math.ceil(changes))


def check_rows(subject: AuditInput, context: Context) -> CheckResult[None]:
    """Whether there are enough rows for the tests of C2 and C3; "fails": too few to tell."""
    counts = subject.counts
    present = counts[counts > 0]
    needed = rows_needed(max(1, len(present)), subject.n_latents)
    typical = int(np.median(present)) if len(present) else 0
    enough = int((present >= needed).sum())
    evidence = {
        "rows": int(present.sum()),
        "domains": len(present),
        "median_rows_of_a_domain": typical,
        "rows_of_a_domain_needed": needed,
        "domains_with_enough": enough,
    }
    rows = f"{counted(int(present.sum()), 'row')} in {counted(len(present), 'domain')}"
    if typical < needed:
        sentence = (
            f"Too few rows to tell: {rows}, {typical} per domain (median); detecting changes between domains and "
            f"dependence within them takes about {needed} per domain."
        )
        return CheckResult(Finding(CONDITION, "fails", True, sentence, evidence), None)
    sentence = f"{rows}, {typical} per domain (median); the tests need about {needed}."
    return CheckResult(Finding(CONDITION, "holds", True, sentence, evidence), None)


CHECK = Check(CONDITION, check_rows)
