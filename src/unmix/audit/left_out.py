"""Does the finding hold when each domain in turn is left out of the fit?

A model is fitted without one domain, and its latents of all rows, including those of the left-out domain, are matched
one to one with those of the whole fit. A latent that rests on one domain alone is not found again without it. As
between starts, a correlation of 0.95 counts as the same latent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unmix.audit.agreement import REPEATS, agreement
from unmix.audit.finding import Finding, listed
from unmix.numbers import counted

Floats = NDArray[np.float64]

CONDITION = "left-out domains"
_LEAST_DOMAINS = 3


def check_left_out(
    latents: Floats, without: Mapping[str, Floats], names: Sequence[str], failed: Mapping[str, str]
) -> Finding:
    """The finding from ``latents`` (rows, n_latents) of the fit, and those of the same rows ``without`` each domain.

    ``failed``: for each domain without which no model could be fitted, the reason.
    """
    found = {domain: agreement(np.stack([latents, own])).latents[0, 1] for domain, own in without.items()}
    evidence = {
        "left_out": list(found),
        "agreement": {domain: values.tolist() for domain, values in found.items()},
        "not_fitted": dict(failed),
        "least_correlation": REPEATS,
    }
    lost = f" Without {listed(list(failed))} no model could be fitted." if failed else ""
    if len(found) + len(failed) < _LEAST_DOMAINS or not found:
        sentence = (
            f"Leaving a domain out takes {_LEAST_DOMAINS} domains: with fewer, no change between domains remains.{lost}"
        )
        return Finding(CONDITION, "cannot tell", False, sentence, evidence)
    each = np.stack(list(found.values()))
    mean = f"mean agreement of the latents {each.mean():.3f}"
    moved = []
    for k, name in enumerate(names):
        away = [domain for domain, values in found.items() if values[k] < REPEATS]
        if away:
            moved.append(f"{name} without {listed(away)} ({each[:, k].min():.2f} at least)")
    times = counted(len(found), "domain")
    if moved:
        sentence = f"With each of {times} left out in turn, {mean}; not found again: {listed(moved)}.{lost}"
        return Finding(CONDITION, "fails", True, sentence, evidence)
    least = f"{each.min():.2f} at least"
    return Finding(
        CONDITION,
        "holds",
        True,
        f"With each of {times} left out in turn every latent is found again ({mean}, {least}).{lost}",
        evidence,
    )
