"""Latents that hide a dependence by mixing: how often are they found, and how often falsely? ``audit/directions.py``.

    python benchmarks/audit_directions.py

Linear mixings of two latents, 200 draws a case, with errors of 10 % and 0.02 at each of 64 rows.
"hidden": Gaussian latents with covariances [[1, r], [r, 1]], r from 0 to 0.8 over domains, of which each feature sees
one (two fifths each) or both, given as the independent latents with the same distribution, their sum and difference.
"Gaussian", "similar": dense mixings of independent latents, with Gaussian entries or entries of 0.5 to 1.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmix.audit.directions import contested_pairs
from unmix.audit.input import AuditInput

_ROWS, _FEATURES = 64, (7, 10, 14, 20)
# The thresholds were chosen on seeds 0 to 199.
_SEEDS = range(1000, 1200)
_SPREAD = np.sqrt([1.4, 0.6])


def mixing(case: str, n_features: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Entries (n_features, 2), in units of the latents' spread."""
    if case == "Gaussian":
        return rng.standard_normal((n_features, 2))
    entries = rng.uniform(0.5, 1.0, (n_features, 2)) * rng.choice([-1, 1], (n_features, 2))
    if case == "similar":
        return entries
    seen = rng.choice(3, n_features, p=[0.4, 0.4, 0.2])
    sparse = entries * np.stack([seen != 1, seen != 0], axis=1)
    return sparse @ np.array([[1, 1], [1, -1]]) / np.sqrt(2) * _SPREAD


def contested(case: str, n_features: int, seed: int) -> bool:
    """Whether the two latents of one draw are contested."""
    rng = np.random.default_rng(seed)
    own = mixing(case, n_features, rng)
    own = own / np.linalg.norm(own, axis=1, keepdims=True)
    shape = (_ROWS, n_features, 2)
    slopes = own * (1 + 0.1 * rng.standard_normal(shape)) + 0.02 * rng.standard_normal(shape)
    subject = AuditInput(
        latents=rng.standard_normal((1000, 2)),
        strata=np.zeros(1000, dtype=np.int64),
        domains=("all",),
        absent=(),
        names=("z0", "z1"),
        feature_names=tuple(f"x{k}" for k in range(n_features)),
        jacobian=slopes,
        starts=np.abs(slopes).mean(axis=0)[None],
        agreement=np.empty((0, 2)),
    )
    return bool(contested_pairs(subject))


def main() -> None:
    cases = ("hidden", "Gaussian", "similar")
    counts = {case: [sum(contested(case, n, seed) for seed in _SEEDS) for n in _FEATURES] for case in cases}
    print(pd.DataFrame(counts, index=pd.Index(_FEATURES, name="features")).to_string())


if __name__ == "__main__":
    main()
