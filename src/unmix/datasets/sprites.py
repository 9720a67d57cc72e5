r"""Sprites: one coloured shape on black, drawn from six factors.

A shape is a signed distance d(p) to its outline, negative inside, for a shape of area 1 with its centroid at 0. Pixel
q (its centre, as a fraction of the image side) of an image of side S is covered to the extent

.. math:: \alpha(q) = \min(1, \max(0,\; \tfrac12 - S\, r\, d(R_\theta (q - c) / r))),

with centre c = (x, y), scale r (the square root of the sprite's area) and angle θ: outlines are anti-aliased over one
pixel. The pixel's colour is α times the fully saturated colour of the hue. So mass, centroid and colour of an image
give scale, x, y and hue at once; shape and angle lie in the outline.

**Angles.** A shape that looks the same after a turn by P (square 90°, triangle 120°, ellipse 180°, heart 360°) shows
its angle only modulo P. Angles are therefore drawn from ±0.4 P, with the smallest P of the shapes in use: within that
range the image determines the angle, the two ends look different, and shape and angle stay independent. Likewise hue
covers 0 … 0.8 of the colour circle and does not close.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmix.datasets.images import Floats, ImageData, check_request, draw_domains, draw_factors, factor_kinds
from unmix.errors import DataError, SettingError
from unmix.validation import RandomLike, random_seed, whole

PERIODS = {"square": 90.0, "ellipse": 180.0, "heart": 360.0, "triangle": 120.0}
"""Turn in degrees after which a shape looks the same."""

_RANGES = {"x": (0.3, 0.7), "y": (0.3, 0.7), "scale": (0.18, 0.34), "hue": (0.0, 0.8)}
_ORDER = ("shape", "x", "y", "scale", "angle", "hue")
_ASPECT = 2.0
_PIXELS_AT_ONCE = 2**21


def make_sprites(
    n_samples: int = 6000,
    size: int = 32,
    n_domains: int = 3,
    change: str | Sequence[str] | None = None,
    channels: int = 3,
    shapes: Sequence[str] = ("square", "ellipse", "heart", "triangle"),
    random_state: RandomLike = 0,
) -> ImageData:
    """Images of one coloured shape, with factors whose distribution changes between domains.

    ======  ==========  ====================================================================================
    factor  range       unit
    ======  ==========  ====================================================================================
    shape   ``shapes``  class
    x, y    0.3 … 0.7   centroid, as a fraction of the image side; x to the right, y downwards, from the top left
    scale   0.18 … 0.34 square root of the sprite's area, as a fraction of the image side
    angle   ±0.4 P      degrees counter-clockwise; P is the smallest symmetry period of ``shapes`` (square 90°,
                        triangle 120°, ellipse 180°, heart 360°), so that the image determines the angle
    hue     0 … 0.8     fraction of the colour circle: 0 red, 1/3 green, 2/3 blue; absent with ``channels=1``
    ======  ==========  ====================================================================================

    Given the domain the factors are independent. Those in ``change`` follow a truncated normal whose mean and standard
    deviation depend on the domain (shape: class probabilities that do); the others are uniform in every domain.

    Parameters
    ----------
    n_samples : int, default 6000
        Images in all domains together; domains have equal size.
    size : int, default 32
        Side of an image in pixels, at least 16.
    n_domains : int, default 3
    change : str or sequence of str, optional
        Factors whose distribution depends on the domain; ``()`` for none. Default: hue and scale; of grey images scale.
    channels : {3, 1}
        Colour, or grey without hue.
    shapes : sequence of str, default all four
    random_state : int, RandomState or None, default 0

    Raises
    ------
    SettingError
        A size, factor or shape is impossible.

    Examples
    --------
    >>> data = make_sprites(n_samples=90, n_domains=3, change=("hue", "shape"))
    >>> data.images.shape, str(data.images.dtype), data.changing
    ((90, 32, 32, 3), 'uint8', ('shape', 'hue'))
    >>> list(data.factors)
    ['shape', 'x', 'y', 'scale', 'angle', 'hue']
    >>> bool((data.factors["angle"].abs() <= 36).all())         # squares are in use: ±0.4 · 90°
    True
    """
    shapes = tuple(shapes)
    unknown = [shape for shape in shapes if shape not in PERIODS]
    if unknown or not shapes or len(set(shapes)) < len(shapes):
        raise SettingError(f"shapes must be distinct names out of {[*PERIODS]}; got {shapes}.")
    _check_format(size, channels)
    n_classes = {name: len(shapes) if name == "shape" else 0 for name in _ORDER if channels == 3 or name != "hue"}
    if change is None:
        change = tuple(name for name in ("hue", "scale") if name in n_classes)
    changing = check_request(n_classes, change, n_samples, n_domains)
    rng = np.random.default_rng(random_seed(random_state))
    domains = draw_domains(rng, n_samples, n_domains)
    limit = 0.4 * min(PERIODS[shape] for shape in shapes)
    ranges = {**_RANGES, "angle": (-limit, limit)}
    factors: dict[str, object] = {}
    for name, distribution in draw_factors(rng, n_classes, changing, n_domains).items():
        drawn = distribution.draw(rng, domains)
        if name == "shape":
            factors[name] = pd.Categorical.from_codes(drawn.astype(int), dtype=pd.CategoricalDtype([*shapes]))
        else:
            low, high = ranges[name]
            factors[name] = low + (high - low) * drawn
    table = pd.DataFrame(factors)
    return ImageData(draw_sprites(table, size, channels), domains, table, factor_kinds(n_classes), changing)


def draw_sprites(factors: pd.DataFrame, size: int = 32, channels: int = 3) -> NDArray[np.uint8]:
    """The images that given factors make, for example a traversal or the true counterfactual of ``make_sprites``.

    Parameters
    ----------
    factors : DataFrame with the columns shape, x, y, scale, angle and, with ``channels=3``, hue
        In the units of `make_sprites`; values outside its ranges are drawn as well, and cut off at the image's edge.
    size : int, default 32
        Side of an image in pixels, at least 16.
    channels : {3, 1}

    Returns
    -------
    uint8 array (n_samples, size, size, channels)

    Raises
    ------
    DataError
        A column is missing, a shape unknown, a number not finite or a scale not positive.
    SettingError
        ``size`` or ``channels`` is impossible.

    Examples
    --------
    >>> data = make_sprites(n_samples=30)
    >>> green = draw_sprites(data.factors.assign(hue=1 / 3))
    >>> green[..., 1].max(), green[..., [0, 2]].max()
    (np.uint8(255), np.uint8(0))
    """
    _check_format(size, channels)
    shapes, numbers = _check_factors(factors, channels)
    images = np.empty((len(factors), size, size, channels), dtype=np.uint8)
    step = max(1, _PIXELS_AT_ONCE // size**2)
    for shape in np.unique(shapes):
        rows = np.flatnonzero(shapes == shape)
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            part = {name: column[block] for name, column in numbers.items()}
            cover = _coverage(_OUTLINES[shape], part, size)[..., None]
            colour = _colours(part["hue"])[:, None, None, :] if channels == 3 else 1.0
            images[block] = np.rint(255 * cover * colour)
    return images


def _check_format(size: int, channels: int) -> None:
    whole(0).need("size", size)
    whole(0).need("channels", channels)
    if size < 16 or channels not in (1, 3):
        raise SettingError(f"Expected size ≥ 16 pixels and channels 1 or 3; got size={size}, channels={channels}.")


def _check_factors(factors: pd.DataFrame, channels: int) -> tuple[NDArray[np.object_], dict[str, Floats]]:
    needed = [name for name in _ORDER if channels == 3 or name != "hue"]
    absent = [name for name in needed if name not in factors]
    if absent:
        raise DataError(f"Sprites with {channels} channel(s) need the factors {needed}; {absent} are missing.")
    shapes = factors["shape"].to_numpy(dtype=object)
    unknown = sorted({str(shape) for shape in shapes if shape not in PERIODS})
    if unknown:
        raise DataError(f"Unknown shapes {unknown}; expected names out of {[*PERIODS]}.")
    try:
        numbers = {name: factors[name].to_numpy(dtype=float) for name in needed if name != "shape"}
    except (TypeError, ValueError) as error:
        raise DataError(f"All factors but shape must be numbers: {error}.") from error
    wrong = [name for name, column in numbers.items() if not np.isfinite(column).all()]
    if wrong or (numbers["scale"] <= 0).any():
        raise DataError(f"Factors must be finite numbers and scale positive; look at {wrong or ['scale']}.")
    return shapes, numbers


def _coverage(outline: Callable[[Floats, Floats], Floats], factors: dict[str, Floats], size: int) -> Floats:
    """Share of each pixel that the shape covers (n_samples, size, size)."""
    pixels = (np.arange(size) + 0.5) / size
    right = (pixels[None, None, :] - factors["x"][:, None, None]) / factors["scale"][:, None, None]
    up = (factors["y"][:, None, None] - pixels[None, :, None]) / factors["scale"][:, None, None]
    turn = np.deg2rad(factors["angle"])[:, None, None]
    distance = outline(right * np.cos(turn) + up * np.sin(turn), up * np.cos(turn) - right * np.sin(turn))
    return np.clip(0.5 - distance * (size * factors["scale"][:, None, None]), 0.0, 1.0)


def _colours(hue: Floats) -> Floats:
    """Red, green and blue in [0, 1] of the saturated colour (n_samples, 3); its largest entry is 1."""
    sector = (6 * hue[:, None] + np.array([0.0, 4.0, 2.0])) % 6
    return np.clip(np.abs(sector - 3) - 1, 0, 1)


# Signed distances: area 1, centroid at 0, first coordinate to the right, second upwards.


def _square(right: Floats, up: Floats) -> Floats:
    distance: Floats = np.maximum(np.abs(right), np.abs(up)) - 0.5
    return distance


def _ellipse(right: Floats, up: Floats) -> Floats:
    """First-order distance (f - 1) f / |∇(f²)/2| of the level set f = 1; wider than high."""
    high = np.sqrt(1 / (np.pi * _ASPECT))
    wide = _ASPECT * high
    level = np.hypot(right / wide, up / high) + 1e-9
    return (level - 1) * level / (np.hypot(right / wide**2, up / high**2) + 1e-9)


def _triangle(right: Floats, up: Floats) -> Floats:
    """Equilateral, one corner up: the largest distance to a side's line."""
    inradius = np.sqrt(1 / (3 * np.sqrt(3)))
    distance: Floats = np.maximum(-up, np.abs(right) * np.sqrt(0.75) + up / 2) - inradius
    return distance


def _heart(right: Floats, up: Floats) -> Floats:
    """A square standing on a corner, with half a disc on each of its two upper sides."""
    side = 1 / np.sqrt(1 + np.pi / 4)
    # Centroid along either side of the unit square: half discs have theirs 2/(3π) beyond the side they stand on.
    centroid = (0.5 + np.pi / 8 * (1.5 + 2 / (3 * np.pi))) / (1 + np.pi / 4)
    along = (up + np.abs(right)) / (np.sqrt(2) * side) + centroid
    across = (up - np.abs(right)) / (np.sqrt(2) * side) + centroid
    square = np.maximum(np.abs(along - 0.5), np.abs(across - 0.5)) - 0.5
    disc = np.hypot(along - 1, across - 0.5) - 0.5
    distance: Floats = np.minimum(square, disc) * side
    return distance


_OUTLINES = {"square": _square, "ellipse": _ellipse, "heart": _heart, "triangle": _triangle}
