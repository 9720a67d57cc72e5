"""What the latents of a fitted model do to its features, as tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from unmix.errors import SettingError
from unmix.fits.latent import LatentFit
from unmix.numbers import is_whole


def mixing_frame(fit: LatentFit, *, signed: bool) -> pd.DataFrame:
    """Features × latents: the mean of |∂x/∂z| over rows, or of ∂x/∂z."""
    if not isinstance(signed, bool | np.bool):
        raise SettingError(f"signed must be True or False; got {signed!r}.")
    found = fit.summary.description
    mixing = found.mixing_signed if signed else found.mixing
    return pd.DataFrame(mixing, index=[*fit.schema.names], columns=fit.latent_names)


def top_features(fit: LatentFit, n: int) -> pd.DataFrame:
    """The ``n`` features that each latent drives most, one row per latent and feature."""
    if not is_whole(n, 1):
        raise SettingError(f"n must be a whole number ≥ 1; got {n!r}.")
    found, named = fit.summary.description, fit.latent_names
    order = np.argsort(-found.mixing, axis=0, kind="stable")[:n].T
    n_shown = order.shape[1]
    places = order.ravel(), np.repeat(np.arange(len(named)), n_shown)
    return pd.DataFrame(
        {
            "latent": np.repeat(named, n_shown),
            "rank": np.tile(np.arange(1, n_shown + 1), len(named)),
            "feature": np.array(fit.schema.names, dtype=object)[order.ravel()],
            "mixing": found.mixing[places],
            "loading": found.mixing_signed[places],
        }
    )


def explained_variance_frame(fit: LatentFit) -> pd.DataFrame:
    """Share of the features' variance that each latent accounts for within each domain, and between domains."""
    found, explained = fit.summary.description, fit.summary.explained_variance_ratio
    index = pd.MultiIndex.from_product([fit.domains.domains, fit.latent_names], names=["domain", "latent"])
    # Over all rows latents have standard deviation 1.
    parts = {"within": found.spread**2, "shift": found.location**2}
    return pd.DataFrame({name: (explained * part).ravel() for name, part in parts.items()}, index=index).reset_index()
