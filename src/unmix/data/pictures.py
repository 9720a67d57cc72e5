"""One image file by Pillow: what its header says of size and depth, and its pixels as they are meant to be seen."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from unmix.data.image_files import UnreadableError

Images = NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
_ORIENTATION = 0x0112
_METADATA = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")


@contextmanager
def opened(stream: IO[bytes]) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        # Pillow warns above its limit and refuses only at twice that.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        with Image.open(stream, formats=FORMATS) as picture:
            yield picture


def reason_of(error: Exception) -> str:
    if isinstance(error, UnreadableError):
        return str(error)
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return f"declares more than {Image.MAX_IMAGE_PIXELS} pixels (PIL.Image.MAX_IMAGE_PIXELS)"
    if isinstance(error, UnidentifiedImageError):
        return f"is not an image ({', '.join(FORMATS)})"
    return f"is damaged or truncated ({error})"


def header_of(picture: Image.Image) -> tuple[tuple[int, int], str]:
    """(height, width) as the picture is meant to be seen, and its mode, with the bits of a channel if more than 8."""
    width, height = picture.size
    return ((width, height) if _orientation(picture) >= 5 else (height, width)), picture.mode + _deep(picture)


def _orientation(picture: Image.Image) -> int:
    """1 to 8, as in EXIF, from metadata in front of the pixels; 5 and more exchange height and width."""
    # Without this question Pillow decodes the whole of a PNG in search of metadata.
    stated = any(place in picture.info for place in _METADATA)
    orientation = picture.getexif().get(_ORIENTATION, 1) if stated else 1
    return orientation if orientation in range(1, 9) else 1


def _deep(picture: Image.Image) -> str:
    """Pillow gives colours of 16 bits the name of the mode with 8, and cuts them off: only the decoder's words tell."""
    for decoder, _, _, words in getattr(picture, "tile", ()):
        parts = words if isinstance(words, tuple) else (words,)
        above = decoder.startswith("ppm") and any(isinstance(part, int) and part > 255 for part in parts)
        # "BGR;16" is a BMP with 5 or 6 bits per channel.
        if above or any(isinstance(part, str) and ";16" in part and part[0] != "B" for part in parts):
            return "" if ";16" in picture.mode else ";16"
    return ""


def as_array(picture: Image.Image, shape: tuple[int, int] | None, mode: str | None) -> Images:
    """One image (height, width, channels)."""
    if _orientation(picture) > 1:
        picture = ImageOps.exif_transpose(picture)
    mode = mode or picture.mode
    if picture.has_transparency_data:
        clear = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    if picture.mode != mode:
        picture = picture.convert(mode)
    if shape is not None and picture.size != shape[::-1]:
        picture = ImageOps.fit(picture, shape[::-1], Image.Resampling.LANCZOS)
    array = np.asarray(picture, np.uint8)
    return array[..., None] if array.ndim == 2 else array
