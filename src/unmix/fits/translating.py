"""What a fit of an ``ImageTranslator`` says of its images, and what its folder holds of that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmix.fits.adversarial import errors_table
from unmix.fits.fit import Fit, Parts, Saved, Summary
from unmix.models.fitted_translator import FittedTranslator

_FILES = """model.safetensors  averaged encoders and decoder, flow of style, transports, prior of content, the mixing
history.jsonl      terms of the objective, one line a block of steps"""


@dataclass(frozen=True, eq=False)
class TranslatorSummary(Summary):
    """``effects`` are the mean of |∂x/∂ε| of style (height, width, colours, n_style), in grey levels."""

    effects: NDArray[np.float64]
    n_steps: int

    @property
    def mixing(self) -> NDArray[np.float64]:
        return self.effects

    def write(self, fit: Fit[Any, Any], folder: Path) -> Parts:
        scalars = {"n_steps": self.n_steps, "sizes": {name: list(own) for name, own in fit.model.sizes.items()}}
        return Parts({"mixing": self.effects}, scalars, _FILES)

    @classmethod
    def read(cls, saved: Saved) -> tuple[Self, pd.DataFrame, int]:
        return cls(saved.arrays["mixing"], saved.scalars["n_steps"]), errors_table([np.nan], 0), 0


TranslatorFit = Fit[FittedTranslator, TranslatorSummary]
