"""What a fit of a ``CGGAN`` or an ``ImageTranslator`` says of its rows, and what its folder holds of that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from unmix.fits.fit import Fit, Parts, Saved, Summary
from unmix.models.fitted_gan import FittedGAN
from unmix.models.fitted_translator import FittedTranslator

_OF_GAN = """model.safetensors  averaged generator, encoder, frame of the latents, and the mixing
history.jsonl      terms of discriminator, generator and encoder, one line a block of steps"""
_OF_TRANSLATOR = """\
model.safetensors  averaged encoders and decoder, flow of style, transports, prior of content, the mixing
history.jsonl      terms of the objective, one line a block of steps"""


@dataclass(frozen=True, eq=False)
class AdversarialSummary(Summary):
    """``effects`` are the mixing: (n_features, n_latents), or of images (height, width, colours, n_latents)."""

    effects: NDArray[np.float64]
    n_steps: int

    @property
    def mixing(self) -> NDArray[np.float64]:
        return self.effects

    def write(self, fit: Fit[Any, Any], folder: Path) -> Parts:
        scalars: dict[str, object] = {"n_steps": self.n_steps}
        if isinstance(fit.model, FittedTranslator):
            scalars["sizes"], files = {name: list(own) for name, own in fit.model.sizes.items()}, _OF_TRANSLATOR
        else:
            scalars["start_errors"], files = fit.starts["error"].tolist(), _OF_GAN
        return Parts({"mixing": self.effects}, scalars, files)

    @classmethod
    def read(cls, saved: Saved) -> tuple[Self, pd.DataFrame, int]:
        # Folders from before the errors were kept have none; JSON knows no infinity.
        raw = saved.scalars.get("start_errors", [np.nan] * saved.n_starts)
        errors = np.array([np.inf if error is None else error for error in raw], dtype=float)
        best = saved.scalars.get("best_restart", 0 if np.isnan(errors).all() else int(np.nanargmin(errors)))
        return cls(saved.arrays["mixing"], saved.scalars["n_steps"]), errors_table(errors, best), best


GANFit = Fit[FittedGAN, AdversarialSummary]
TranslatorFit = Fit[FittedTranslator, AdversarialSummary]


def errors_table(errors: ArrayLike, best: int) -> pd.DataFrame:
    """One row per start: what it is compared by, and whether it was kept."""
    values = np.asarray(errors, dtype=float)
    starts = np.arange(len(values))
    return pd.DataFrame({"start": starts, "error": values, "kept": starts == best})
