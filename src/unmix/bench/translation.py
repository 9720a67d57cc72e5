r"""Do translated images keep their content and reach their domain? Classifiers trained on real images are the judges.

Every held-out image is translated to every other domain. Content accuracy is the share whose content (a digit, a role)
a classifier still reads; style accuracy the share that another classifier assigns to the target domain. Both are to be
read beside what the same judges reach on real held-out images. Intervals resample held-out images, each with all its
translations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmix.estimators.features import ImageClassifier

_RESAMPLES = 500

DIGIT_SETTINGS: dict[str, Any] = {
    "n_latents": 16,
    "hidden": (64, 64),
    "channels": 16,
    "batch_size": 64,
    "max_steps": 2500,
    "encoder_steps": 500,
}
"""Settings of ``CGGAN`` for images of 16 × 16 pixels, in minutes on two cores."""


@dataclass(frozen=True)
class Judges:
    """Classifiers of the content and of the domain, with their accuracies on real images that they did not see."""

    content: ImageClassifier
    style: ImageClassifier
    real_content: float
    real_style: float


def train_judges(
    images: NDArray[np.uint8],
    content: NDArray[Any],
    domains: NDArray[Any],
    held_out: NDArray[np.bool_],
    *,
    width: int = 32,
    max_epochs: int = 20,
) -> Judges:
    """Judges trained on the images that are not ``held_out``."""
    real = ~held_out
    reads, places = (
        ImageClassifier(width=width, max_epochs=max_epochs).fit(images[real], labels[real])
        for labels in (content, domains)
    )
    return Judges(
        reads,
        places,
        float(np.mean(reads.predict(images[held_out]) == content[held_out])),
        float(np.mean(places.predict(images[held_out]) == domains[held_out])),
    )


def judge_translations(
    model: Any, judges: Judges, images: NDArray[np.uint8], content: NDArray[Any], domains: NDArray[Any]
) -> pd.DataFrame:
    """One row a target domain and one for all: shares with 95 % intervals; ``images`` are those held out.

    Columns: ``to``, ``n`` (translated images), ``content``, ``content_low``, ``content_high``, as of ``style``.
    """
    kept, reached = (np.full((len(images), len(model.domains_)), np.nan) for _ in range(2))
    for column, target in enumerate(model.domains_):
        moved = np.flatnonzero(domains != target)
        made = model.translate(images[moved], domains[moved], to=target)
        kept[moved, column] = judges.content.predict(made) == content[moved]
        reached[moved, column] = judges.style.predict(made) == target
    drawn = np.random.default_rng(0).integers(len(images), size=(_RESAMPLES, len(images)))
    columns = {name: [column] for column, name in enumerate(model.domains_)} | {"all": list(range(len(model.domains_)))}
    rows = []
    for name, chosen in columns.items():
        row: dict[str, Any] = {"to": name, "n": int(np.isfinite(kept[:, chosen]).sum())}
        for word, table in (("content", kept[:, chosen]), ("style", reached[:, chosen])):
            low, high = np.quantile([np.nanmean(table[draw]) for draw in drawn], [0.025, 0.975])
            row |= {word: float(np.nanmean(table)), f"{word}_low": float(low), f"{word}_high": float(high)}
        rows.append(row)
    return pd.DataFrame(rows)
