"""Characters drawn in several typefaces: what a character is stays, what a typeface makes of it changes.

Every character is drawn in every typeface with the same jitters, so that the truth of a translation is there.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from unmix.datasets.images import ImageData
from unmix.errors import DataError, SettingError
from unmix.validation import RandomLike, random_seed, whole

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
# Those that come with matplotlib: a sans, a bold serif, an italic, a typewriter face and one of books.
_SHIPPED = {
    "sans": "DejaVuSans.ttf",
    "serif bold": "DejaVuSerif-Bold.ttf",
    "italic": "STIXGeneralItalic.ttf",
    "typewriter": "cmtt10.ttf",
    "roman": "cmr10.ttf",
    "oblique mono": "DejaVuSansMono-BoldOblique.ttf",
}
_CAPITALS, _BASELINE = 0.5, 0.68
_ZOOM, _SHIFT = 0.05, 0.04
_FINER = 4


def make_typefaces(
    n_jitters: int = 8,
    side: int = 16,
    *,
    fonts: Mapping[str, str | Path] | None = None,
    characters: str = CHARACTERS,
    random_state: RandomLike = 0,
) -> ImageData:
    """Draw characters, white on black, in several typefaces; the typeface is the domain.

    Capitals are as high in every typeface. A jitter scales by up to ±5 % and moves by up to ±4 % of the side; the
    j-th of a character is the same in every typeface, so images that share ``character`` and ``jitter`` are one
    another's true translations.

    Parameters
    ----------
    n_jitters : int, default 8
        Images of a character in a typeface.
    side : int, default 16
        Pixels, 16 or more.
    fonts : mapping of name to font file, optional
        Two or more. Default: six that come with matplotlib.
    characters : str, default digits and letters, 62
    random_state : int, RandomState or None, default 0

    Returns
    -------
    ImageData
        ``images`` (n_fonts · n_characters · n_jitters, side, side, 1), ordered by typeface, character, jitter;
        ``factors`` has ``character`` and ``jitter``.

    Raises
    ------
    SettingError
        A number is impossible, a character repeats, or there are fewer than two fonts.
    DataError
        A font file is not there or cannot be read.

    Examples
    --------
    >>> data = make_typefaces(2, characters="abc")
    >>> data.images.shape, str(data.domains[0]), data.factors.iloc[0].to_dict()
    ((36, 16, 16, 1), 'sans', {'character': 'a', 'jitter': 0})
    """
    whole(1).need("n_jitters", n_jitters)
    whole(16).need("side", side)
    chosen = _shipped() if fonts is None else {str(name): Path(path) for name, path in fonts.items()}
    if len(chosen) < 2 or not characters or len(set(characters)) < len(characters):
        raise SettingError(f"Expected two or more fonts and different characters; got {[*chosen]} and {characters!r}.")
    rng = np.random.default_rng(random_seed(random_state))
    jitters = rng.uniform(-1.0, 1.0, (len(characters), n_jitters, 3))
    drawn = [
        _drawn(path, character, side, jitter)
        for path in chosen.values()
        for character, own in zip(characters, jitters, strict=True)
        for jitter in own
    ]
    each = len(characters) * n_jitters
    factors = pd.DataFrame(
        {
            "character": pd.Categorical(
                np.tile(np.repeat([*characters], n_jitters), len(chosen)), categories=[*characters]
            ),
            "jitter": pd.Categorical(np.tile(np.arange(n_jitters), len(chosen) * len(characters))),
        }
    )
    kinds = {"character": "discrete", "jitter": "discrete"}
    return ImageData(np.stack(drawn)[..., None], np.repeat([*chosen], each), factors, kinds, ())  # type: ignore[arg-type]


def _shipped() -> dict[str, Path]:
    home = find_spec("matplotlib")
    assert home is not None
    folder = Path(str(home.origin)).parent / "mpl-data/fonts/ttf"
    return {name: folder / file for name, file in _SHIPPED.items()}


def _drawn(path: Path, character: str, side: int, jitter: NDArray[np.float64]) -> NDArray[np.uint8]:
    """One image (side, side): baseline at a fixed height, the middle of the ink in the middle."""
    zoom, *shift = jitter
    fine = side * _FINER
    font = _font(path, round(fine * _CAPITALS * (1 + _ZOOM * zoom) * _size_of_capitals(path)))
    left, _, right, _ = font.getbbox(character, anchor="ls")
    at = (0.5 * (fine - left - right) + _SHIFT * fine * shift[0], _BASELINE * fine + _SHIFT * fine * shift[1])
    picture = Image.new("L", (fine, fine))
    ImageDraw.Draw(picture).text(at, character, fill=255, font=font, anchor="ls")
    return np.asarray(picture.resize((side, side), Image.Resampling.BOX))


@cache
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(path, size)
    except OSError as error:
        raise DataError(f"The font {path} cannot be read: {error}. Pass files ending in .ttf or .otf.") from error


@cache
def _size_of_capitals(path: Path) -> float:
    """Size of the font at which capitals are one pixel high."""
    _, top, _, bottom = _font(path, 1000).getbbox("H", anchor="ls")
    return 1000 / max(1, bottom - top)
