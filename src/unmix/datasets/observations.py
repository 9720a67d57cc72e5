"""What is observed of noiseless features: counts, binary features, and heavy tails."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Observed = Literal["gaussian", "student", "poisson", "negative_binomial", "bernoulli"]
OBSERVED: tuple[str, ...] = get_args(Observed)

_DEGREES = 3.0
_LOG_ODDS = 2.0


def observe(
    rng: np.random.Generator,
    clean: Floats,
    kind: str,
    noise: float,
    mean_count: float,
    dispersion: float,
    size_spread: float,
    n_batches: int,
    batch_effect: float,
) -> tuple[Floats, Floats | None, NDArray[np.int64]]:
    """Features of noiseless ones, the size of every row (where they are counts) and its batch.

    The arguments are those of ``make_sparse_mixing``.
    """
    n_rows, n_features = clean.shape
    level, sizes = rng.standard_normal(n_features), np.exp(size_spread * rng.standard_normal(n_rows))
    batches = np.asarray(rng.integers(n_batches, size=n_rows), dtype=np.int64)
    eta = clean + (batch_effect * rng.standard_normal((n_batches, n_features)))[batches]
    if kind == "student":
        return eta + noise * rng.standard_t(_DEGREES, eta.shape), None, batches
    if kind == "bernoulli":
        yes = rng.random(eta.shape) < 1.0 / (1.0 + np.exp(-(level + _LOG_ODDS * eta)))
        return yes.astype(float), None, batches
    rate = mean_count * np.exp(level + eta) * sizes[:, None]
    if kind == "negative_binomial":
        rate = rate * rng.gamma(1.0 / dispersion, dispersion, rate.shape)
    return rng.poisson(rate).astype(float), sizes, batches
