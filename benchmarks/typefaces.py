"""The typefaces of the translation benchmark: eight free fonts of Debian packages, 62 characters, paired truth.

    apt-get install fonts-dejavu-core fonts-liberation fonts-courier-prime fonts-lobster fonts-comic-neue \\
        fonts-ebgaramond

Font files are looked for by name below ``FONT_FOLDERS``, a list of folders as in PATH, default /usr/share/fonts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unmix.datasets import ImageData, make_typefaces

FONTS = {
    "DejaVu Sans": "DejaVuSans.ttf",
    "DejaVu Serif Bold": "DejaVuSerif-Bold.ttf",
    "Liberation Sans Bold": "LiberationSans-Bold.ttf",
    "Liberation Serif Italic": "LiberationSerif-Italic.ttf",
    "Courier Prime": "Courier Prime.otf",
    "Lobster": "lobster.otf",
    "Comic Neue Bold": "ComicNeue-Bold.otf",
    "EB Garamond": "EBGaramond12-Regular.otf",
}
UNSEEN = 8
TRAINED, HELD_OUT, JUDGED = 8, 2, 40


@dataclass(frozen=True)
class Typefaces:
    """``train`` lacks eight characters of each font, listed in ``unseen``; ``test`` and ``judged`` have all."""

    train: ImageData
    test: ImageData
    judged: ImageData
    unseen: dict[str, str]


def typefaces(side: int, data_seed: int = 0) -> Typefaces:
    files = fonts()
    whole, test, judged = (
        make_typefaces(count, side, fonts=files, random_state=3 * data_seed + place)
        for place, count in enumerate((TRAINED, HELD_OUT, JUDGED))
    )
    rng = np.random.default_rng(data_seed)
    characters = whole.factors["character"].to_numpy().astype(str)
    unseen = {name: "".join(sorted(rng.choice(np.unique(characters), UNSEEN, replace=False))) for name in files}
    kept = np.array([c not in unseen[d] for c, d in zip(characters, whole.domains, strict=True)])
    train = ImageData(whole.images[kept], whole.domains[kept], whole.factors[kept].reset_index(drop=True), {}, ())
    return Typefaces(train, test, judged, unseen)


def fonts() -> dict[str, Path]:
    return {name: _found(file) for name, file in FONTS.items()}


def _found(file: str) -> Path:
    for folder in os.environ.get("FONT_FOLDERS", "/usr/share/fonts").split(os.pathsep):
        for path in sorted(Path(folder).rglob(file)):
            return path
    raise SystemExit(f"There is no {file}. {__doc__}")
