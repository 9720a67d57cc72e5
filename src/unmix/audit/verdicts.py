r"""All checks of one model, joined into a verdict for every latent.

A pair of latents is *separated* if some route of ``docs/theory.md`` separates it in nine tenths of the draws of the
support, or in half of them where the starts agree on both latents at 0.98 or more, and the two do not depend on each
other within domains. Pairs that are not separated form a graph over the latents; its components are the blocks.

- unsupported: the latent has collapsed, is discrete or a duplicate, cannot be read off the features, differs from start
  to start (median correlation below 0.95), or stands in a block without changing between domains;
- block: it is separated from everything but the others of its block;
- identified: it is separated from every other latent.

The conditions are sufficient, not necessary: what is not called identified may be right all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmix.audit.agreement import REPEATS, check_agreement
from unmix.audit.changes import ROUTES, Changes, check_changes, route_shares
from unmix.audit.finding import Finding, listed
from unmix.audit.independence import check_independence
from unmix.audit.invertibility import check_invertibility
from unmix.audit.positivity import check_positivity
from unmix.audit.remedies import Remedy, blocks, find_remedies
from unmix.audit.result import Audit
from unmix.audit.sparsity import SURE, Support, check_sparsity
from unmix.audit.subject import LEAST_ROWS, Subject

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_STRONG = 0.98
_LIKELY = 0.5


@dataclass(frozen=True)
class _Evidence:
    """What the verdicts are made from; everything is about the latents that have not collapsed."""

    subject: Subject
    support: Support
    changes: Changes
    faults: dict[int, str]
    repeats: Floats | None
    separated: Bools
    probability: Floats
    route: Ints
    dependent: Bools


def audit_subject(subject: Subject) -> Audit:
    """Every check and every verdict."""
    positivity, faults = check_positivity(subject)
    active = [i for i in range(subject.n_latents) if i not in faults.collapsed]
    if not active or len(subject.latents) < LEAST_ROWS:
        return _nothing(subject, positivity, faults.by_latent)
    part = subject.only(active)
    sparsity, support = check_sparsity(part)
    changes_found, changes = check_changes(part, support)
    independence, dependent = check_independence(part)
    invertibility, no_inverse = check_invertibility(part)
    agreement, repeats = check_agreement(part)
    own = {place: faults.by_latent[i] for place, i in enumerate(active) if i in faults.by_latent}
    shares = route_shares(support, changes)
    route = np.where(shares[0] >= 1.0, 0, shares[1:].argmax(axis=0) + 1)
    probability = 1.0 - shares[0]
    separated = (probability >= _asked(repeats, len(active))) & ~dependent
    evidence = _Evidence(
        part, support, changes, no_inverse | own, repeats, separated, probability, route, dependent
    )
    mended = find_remedies(support.edges, changes, list(part.names)) if support.credible else []
    rows: list[dict[str, Any]] = [_collapsed_row(subject, faults.by_latent.get(i, "")) | {"name": subject.names[i]}
                                  for i in range(subject.n_latents)]
    for row in _verdicts(evidence, mended):
        rows[active[row.pop("place")]] = row
    edges = np.zeros((len(subject.feature_names), subject.n_latents))
    edges[:, active] = support.probability
    return Audit(
        latents=pd.DataFrame(rows).astype({"domains_needed": "Int64"}),
        findings=[positivity, independence, changes_found, sparsity, invertibility, agreement],
        pairs=_pairs(evidence),
        remedies=_with_fewer(subject, faults.collapsed) + mended,
        domains_present=int(changes.present),
        domains_needed=_needed(support).max(initial=1),
        domains_needed_without_sparsity=2 * len(active) + 1,
        edge_probability=edges,
        feature_names=subject.feature_names,
    )
