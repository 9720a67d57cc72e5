"""What the latents of a fitted model do to its features, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmix.audit.describe import Description
from unmix.errors import SettingError
from unmix.numbers import is_whole


def mixing_frame(found: Description, features: Sequence[str], latents: Iterable[str], *, signed: bool) -> pd.DataFrame:
    """Features × latents: the mean of |∂x/∂z| over rows, or of ∂x/∂z."""
    if not isinstance(signed, bool | np.bool):
        raise SettingError(f"signed must be True or False; got {signed!r}.")
    return pd.DataFrame(found.mixing_signed if signed else found.mixing, index=[*features], columns=[*latents])


def top_features(found: Description, features: Sequence[str], latents: Iterable[str], n: int) -> pd.DataFrame:
    """The ``n`` features that each latent drives most, one row per latent and feature."""
    if not is_whole(n, 1):
        raise SettingError(f"n must be a whole number ≥ 1; got {n!r}.")
    named = [*latents]
    order = np.argsort(-found.mixing, axis=0, kind="stable")[:n].T
    n_shown = order.shape[1]
    places = order.ravel(), np.repeat(np.arange(len(named)), n_shown)
    return pd.DataFrame(
        {
            "latent": np.repeat(named, n_shown),
            "rank": np.tile(np.arange(1, n_shown + 1), len(named)),
            "feature": np.array([*features], dtype=object)[order.ravel()],
            "mixing": found.mixing[places],
            "loading": found.mixing_signed[places],
        }
    )


def explained_variance_frame(
    found: Description, explained: NDArray[np.float64], domains: Sequence[str], latents: Iterable[str]
) -> pd.DataFrame:
    """Share of the features' variance that each latent accounts for within each domain, and between domains.

    ``explained`` (n_latents,) is the share over all rows, in which latents have standard deviation 1.
    """
    index = pd.MultiIndex.from_product([domains, [*latents]], names=["domain", "latent"])
    parts = {"within": found.spread**2, "shift": found.location**2}
    return pd.DataFrame({name: (explained * part).ravel() for name, part in parts.items()}, index=index).reset_index()
