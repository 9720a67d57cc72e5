"""Do interventions with a known target move the latent that drives the target?

For a condition c with target features T, compared with a reference condition: the *moved* latent is the one whose
held-out mean differs most from the reference, in units of its spread; the *target's* latent is the one with the
largest mixing entry among T. They agree by chance in one of n_latents cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from unmix.audit.describe import Description


def intervention_targets(
    found: Description,
    domains: Sequence[str],
    features: Sequence[str],
    targets: Mapping[str, Sequence[str]],
    reference: str,
) -> pd.DataFrame:
    """One row per condition: target, the latent that moved most and by how much, the latent that drives the target.

    ``target_rank`` is the rank of the target among the features, sorted by their dependence on the moved latent.
    """
    names, columns = list(domains), list(features)
    shift = found.location - found.location[names.index(reference)]
    rows = []
    for domain, wanted in targets.items():
        moved = int(np.abs(shift[names.index(domain)]).argmax())
        entries = [columns.index(name) for name in wanted]
        drives = int(found.mixing[entries].max(axis=0).argmax())
        ranks = np.argsort(np.argsort(-found.mixing[:, moved]))
        rows.append(
            {
                "condition": domain,
                "target": ", ".join(wanted),
                "moved_latent": f"z{moved}",
                "shift": float(shift[names.index(domain), moved]),
                "target_latent": f"z{drives}",
                "target_rank": int(min(ranks[entries])) + 1,
                "agrees": moved == drives,
            }
        )
    return pd.DataFrame(rows)
