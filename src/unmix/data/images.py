r"""Images in: a folder for each domain, a list of files, a .zip, arrays. Out: 8-bit images of one size, with domains.

Files are not trusted. Only raster formats that Pillow decodes itself are opened; an image that declares more pixels
than ``PIL.Image.MAX_IMAGE_PIXELS`` is refused from its header, before anything is decoded; a path that leaves its
folder or archive is refused; archives are decoded in memory, member by member, and nothing is ever unpacked to disk.

A model sees pixel p of an image as

.. math:: x_p = (p / 255 - m) / s,

with m and s the mean and standard deviation of all training pixels: one pair of numbers for all pixels, so that
contrast inside an image is kept and a pixel that never changes does no harm.
"""

from __future__ import annotations

import errno
import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from unmix.data.image_files import ImageFile, archive_files, folder_files, listed_files, opened_archive
from unmix.data.pictures import FORMATS, Images, as_array, header_of, opened, reason_of
from unmix.data.schema import FeatureSchema
from unmix.errors import DataError, DomainError, SettingError, warn
from unmix.files import as_path
from unmix.labels import label_texts

MODES = {"L": 1, "RGB": 3}
LEAST_IMAGES, LEAST_SIDE = 10, 8
_CONVERTIBLE = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_SHOWN = 3


@dataclass(frozen=True)
class ImageTable:
    """Images of one size from one or several domains.

    Attributes
    ----------
    images : uint8 array (n_images, height, width, channels); 1 channel is grey, 3 are red, green and blue
    domains : str array (n_images,)
    paths : tuple of str, where each image came from; for arrays their place
    skipped : dict of path → reason, the files that ``on_error="skip"`` left out
    """

    images: Images
    domains: NDArray[np.str_]
    paths: tuple[str, ...]
    skipped: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)


def read_images(
    source: object,
    domains: ArrayLike | None = None,
    *,
    size: int | tuple[int, int] | None = None,
    mode: str | None = None,
    on_error: str = "raise",
    max_memory: float = 2e9,
) -> ImageTable:
    """Read images and the domain of each.

    Parameters
    ----------
    source : path, array or ImageTable
        A folder or .zip with one folder for each domain (deeper folders belong to the domain; one folder around them
        all is skipped; without any folder all images are of one domain, "all"); a .csv or .tsv with the columns
        ``path``, from the list's own folder on, and ``domain``; a uint8 array (n_images, height, width) or (n_images,
        height, width, channels); a list of PIL images; or what this function returned before, or another object
        with ``images`` and ``domains``.
    domains : labels (n_images,), optional
        For an array or a list; without them all images belong to one domain. Files have their domain already.
    size : int or (height, width), optional
        Scale every image to this size; what exceeds its proportions is cut off evenly on both sides. Default: all
        images must have one size.
    mode : {"L", "RGB"}, optional
        Convert every image to grey or to colour; transparent parts become white. Default: all files must be grey,
        or all in colour.
    on_error : {"raise", "skip"}, default "raise"
        What to do with a file that is damaged or no image, lies beside the folders of the domains, or has a name that
        is not UTF-8: refuse it, or leave it out with a ``DataWarning`` that names it. A path that leaves its folder is
        always refused.
    max_memory : float, default 2e9
        Bytes of images above which they are kept in a temporary file, mapped into memory, which the system
        removes when the program ends.

    Raises
    ------
    DataError
        Files that cannot be used, with their names: nothing there, damaged, no image, too many pixels, mixed sizes or
        modes, a path that leaves its folder, an archive that unpacks to too much.
    DomainError
        ``domains`` do not fit the images.
    SettingError
        A setting is impossible.

    Examples
    --------
    >>> import numpy as np
    >>> table = read_images(np.zeros((12, 8, 8), np.uint8), ["a"] * 6 + ["b"] * 6)
    >>> table.images.shape, str(table.domains[0])
    ((12, 8, 8, 1), 'a')
    >>> read_images("photos", size=64, mode="RGB")                             # doctest: +SKIP
    """
    shape = _checked_settings(size, mode, on_error, max_memory)
    if hasattr(source, "images"):
        own = getattr(source, "domains", None) if domains is None else domains
        table = _from_array(source.images, own, shape, mode)
        return replace(source, images=table.images, domains=table.domains) if isinstance(source, ImageTable) else table
    if not isinstance(source, str | Path):
        return _from_array(source, domains, shape, mode)
    if domains is not None:
        raise DomainError("Files take their domain from their folder or list; pass domains only with an array.")
    path = as_path(source)
    if path.is_dir():
        return _decode(folder_files(path), path, shape, mode, on_error, max_memory)
    if not path.is_file():
        raise DataError(f"There is nothing at {path}. Pass a folder, a .zip, a .csv list of files, or an array.")
    if path.suffix.lower() == ".zip":
        with opened_archive(path) as archive:
            return _decode(archive_files(archive, path), path, shape, mode, on_error, max_memory)
    if path.suffix.lower() in (".csv", ".tsv"):
        return _decode(listed_files(path), path, shape, mode, on_error, max_memory)
    raise DataError(f"{path.name} is one file. Pass a folder, a .zip, a .csv list of files, or an array.")


def check_images(images: Images) -> None:
    """Refuse what no image model can learn from: fewer than 10 images, tiny ones, one image again and again."""
    if len(images) < LEAST_IMAGES:
        raise DataError(f"Expected at least {LEAST_IMAGES} images to learn from; got {len(images)}. Add more.")
    height, width = images.shape[1:3]
    if min(height, width) < LEAST_SIDE:
        raise DataError(
            f"Expected images of at least {LEAST_SIDE} × {LEAST_SIDE} pixels; got {height} × {width}. Scale them up: "
            f"read_images(…, size={LEAST_SIDE})."
        )
    # One by one: a comparison of all would take as much memory as the images, which may be mapped from a file.
    if all(np.array_equal(image, images[0]) for image in images[1:]):
        raise DataError("All images are the same. Check how they were read.")


@dataclass(frozen=True)
class ImageSchema:
    """What a model remembers of its images: ``shape`` (height, width, channels), mean and spread of a pixel / 255."""

    shape: tuple[int, int, int]
    mean: float
    std: float
    dtype: str = "uint8"
    named: bool = False

    @classmethod
    def learn(cls, images: Images) -> ImageSchema:
        """From at most about a thousand evenly spaced images."""
        pixels = images[:: max(1, len(images) // 1024)] / np.float32(255)
        height, width, channels = images.shape[1:]
        return cls((height, width, channels), float(pixels.mean()), float(pixels.std()))

    @classmethod
    def of_range(cls, shape: tuple[int, int, int]) -> ImageSchema:
        """Pixels from -1 for 0 to 1 for 255."""
        return cls(shape, 0.5, 0.5)

    @property
    def n_features(self) -> int:
        return math.prod(self.shape)

    @property
    def names(self) -> tuple[str, ...]:
        """row.column.channel of every pixel, in the order of the flattened image."""
        return tuple(".".join(map(str, place)) for place in np.ndindex(*self.shape))

    @property
    def scale(self) -> tuple[float, ...]:
        """Grey levels of one unit of x, for every pixel."""
        return (255 * self.std,) * math.prod(self.shape)

    @property
    def log_scale(self) -> NDArray[np.float64]:
        """As of a ``FeatureSchema``."""
        return np.log(np.array(self.scale))

    def restore(self, x: NDArray[np.float64]) -> Images:
        """Images (n, height, width, channels) from standardised pixels (n, n_features), cut to 0 … 255."""
        levels = np.rint(255 * (np.asarray(x) * self.std + self.mean)).clip(0, 255)
        return levels.astype(np.uint8).reshape(-1, *self.shape)

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> ImageSchema:
        return cls(**{**raw, "shape": tuple(raw["shape"])})


@dataclass(frozen=True, kw_only=True)
class CodeSchema(FeatureSchema):
    """Feature columns that an autoencoder makes of ``images``: the principal components of its ``n_codes`` codes."""

    images: ImageSchema
    n_codes: int

    @classmethod
    def of(cls, columns: FeatureSchema, images: ImageSchema, n_codes: int) -> CodeSchema:
        own = {column.name: getattr(columns, column.name) for column in fields(FeatureSchema)}
        return cls(**own, images=images, n_codes=n_codes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the images (height, width, channels)."""
        return self.images.shape

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> CodeSchema:
        return cls.of(FeatureSchema.from_dict(raw), ImageSchema.from_dict(raw["images"]), int(raw["n_codes"]))


def of_images(schema: FeatureSchema | ImageSchema) -> bool:
    """Whether a model with this schema takes images."""
    return isinstance(schema, ImageSchema | CodeSchema)


def _checked_settings(size: object, mode: str | None, on_error: str, limit: object) -> tuple[int, int] | None:
    if mode is not None and mode not in MODES:
        raise SettingError(f'mode must be "L" (grey), "RGB" (colour) or None; got {mode!r}.')
    if on_error not in ("raise", "skip"):
        raise SettingError(f'on_error must be "raise" or "skip"; got {on_error!r}.')
    if not isinstance(limit, int | float | np.number) or isinstance(limit, bool) or not limit >= 0:
        raise SettingError(f"max_memory must be a number of bytes, such as 2e9; got {limit!r}.")
    if size is None:
        return None
    sides = tuple(size) if isinstance(size, Sequence | np.ndarray) and not isinstance(size, str) else (size, size)
    whole = all(isinstance(side, int | np.integer) and not isinstance(side, bool) for side in sides)
    if len(sides) != 2 or not whole or not all(1 <= side <= 4096 for side in sides):
        raise SettingError(f"size must be one number of pixels or (height, width), from 1 to 4096; got {size!r}.")
    return int(sides[0]), int(sides[1])


def _from_array(source: Any, domains: ArrayLike | None, shape: tuple[int, int] | None, mode: str | None) -> ImageTable:
    if isinstance(source, list | tuple) and any(isinstance(own, Image.Image) for own in source):
        source = _from_pictures(source, shape, mode)
    try:
        images = np.asarray(source)
    except RuntimeError as error:
        raise DataError(f"These images cannot be read as an array: {error}") from error
    except ValueError as error:
        shapes = sorted({np.shape(image) for image in source})
        raise DataError(
            f"All images must have one size and mode; got shapes {shapes[:_SHOWN]}. Scale or convert them, or let "
            'read_images do it from files: read_images(folder, size=64, mode="RGB").'
        ) from error
    if images.dtype.kind not in "biuf":
        raise DataError(f"Expected images: a path, or an array of uint8, 0 to 255; got an array of {images.dtype}.")
    if images.dtype != np.uint8:
        raise DataError(
            f"Expected images as uint8, 0 to 255; got an array of {images.dtype}. Convert it: images.astype('uint8') "
            "where it runs from 0 to 255, (255 * images).round().astype('uint8') where from 0 to 1."
        )
    if images.ndim == 3 and images.shape[2] in MODES.values():
        raise DataError(
            f"Expected an array of several images; got shape {images.shape}, which looks like one image (height, "
            "width, channels). Pass image[None]; if these are many grey images, pass images[..., None]."
        )
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[3] not in MODES.values():
        raise DataError(
            "Expected an array (n_images, height, width), or (n_images, height, width, channels) with 1 or 3 "
            f"channels; got shape {np.shape(source)}. {_advice(np.shape(source))}"
        )
    if 0 in images.shape:
        raise DataError(f"The array of images is empty: shape {images.shape}.")
    labels = _domain_texts(domains, len(images))
    if shape not in (None, images.shape[1:3]) or (mode is not None and MODES[mode] != images.shape[3]):
        pictures = (Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image) for image in images)
        images = np.stack([as_array(picture, shape, mode) for picture in pictures])
    return ImageTable(images, labels, tuple(f"[{place}]" for place in range(len(images))))


def _from_pictures(pictures: Sequence[Image.Image], shape: tuple[int, int] | None, mode: str | None) -> Images:
    """Pictures of Pillow as one array (n_images, height, width, channels)."""
    others = sorted({type(own).__name__ for own in pictures if not isinstance(own, Image.Image)})
    if others:
        raise DataError(f"A list of PIL images must hold nothing else; got {', '.join(others)} among them.")
    headers = [(f"[{place}]", header_of(picture)) for place, picture in enumerate(pictures)]
    _refuse_mixed(headers, shape, mode)
    found = []
    for place, picture in enumerate(pictures):
        try:
            found.append(as_array(picture, shape, mode))
        except Exception as error:
            raise DataError(f"Image [{place}] {reason_of(error)}. Leave it out.") from error
    return np.stack(found)


def _advice(shape: tuple[int, ...]) -> str:
    if len(shape) == 4 and shape[1] in MODES.values():
        return "Move the channels to the end: images.transpose(0, 2, 3, 1)."
    if len(shape) == 4 and shape[3] == 4:
        return "Leave the transparency out: images[..., :3]."
    if len(shape) == 2:
        return "Pass one array of all images, or image[None] of a single one."
    return "Convert them to grey or to colour."


def _domain_texts(domains: ArrayLike | None, n_images: int) -> NDArray[np.str_]:
    return np.array(["0"] * n_images if domains is None else label_texts(domains, "domains", n_images, of="images"))


def _decode(
    files: Sequence[ImageFile],
    source: Path,
    shape: tuple[int, int] | None,
    mode: str | None,
    on_error: str,
    limit: float,
) -> ImageTable:
    """Read all headers, so that mixed sizes show before the first image is decoded; then the images."""
    skipped: dict[str, str] = {}
    kept: list[ImageFile] = []

    def attempt(file: ImageFile, action: Callable[[Image.Image], object]) -> Any:
        try:
            with file.read() as stream, opened(stream) as picture:
                return action(picture)
        except DataError:
            raise
        except Exception as error:
            reason = reason_of(error)
            if on_error == "raise":
                raise DataError(
                    f'{file.path} {reason}. Repair or remove it, or pass on_error="skip" to leave such files out.'
                ) from error
            skipped[file.path] = reason
            return None

    headers = [(file, header) for file in files if (header := attempt(file, header_of)) is not None]
    if headers:
        _refuse_mixed([(file.path, header) for file, header in headers], shape, mode)
        sides, own_mode = headers[0][1]
        height, width = shape or sides
        images = _storage((len(headers), height, width, MODES[mode or own_mode]), limit)

        def store(picture: Image.Image) -> bool:
            images[len(kept)] = as_array(picture, shape, mode)
            return True

        for file, _ in headers:
            if attempt(file, store):
                kept.append(file)
    if not kept:
        found = f"none of its {len(files)} files could be read" if files else "it holds no file"
        raise DataError(f"No image in {source}: {found}. Expected {', '.join(FORMATS)}, in one folder per domain.")
    if skipped:
        named = "; ".join(f"{path} {reason}" for path, reason in [*skipped.items()][: 2 * _SHOWN])
        more = "" if len(skipped) <= 2 * _SHOWN else f"; and {len(skipped) - 2 * _SHOWN} more"
        warn(f"{len(skipped)} of {len(files)} files left out: {named}{more}.")
    labels = np.array([file.domain for file in kept])
    return ImageTable(images[: len(kept)], labels, tuple(file.path for file in kept), skipped)


def _refuse_mixed(
    headers: Sequence[tuple[str, tuple[tuple[int, int], str]]], shape: tuple[int, int] | None, mode: str | None
) -> None:
    deep = [(path, own) for path, (_, own) in headers if own not in _CONVERTIBLE]
    if deep:
        raise DataError(f"{deep[0][0]} has mode {deep[0][1]}, more than 8 bits per channel. Convert it to 8 bits.")
    modes = {own: path for path, (_, own) in reversed(headers)}
    if mode is None and (len(modes) > 1 or not set(modes) <= set(MODES)):
        counts = Counter(own for _, (_, own) in headers)
        raise DataError(
            f"Expected images that are all grey (L) or all RGB; got the modes {_counted(counts, modes)}. "
            'Pass mode="RGB" or mode="L" to convert them.'
        )
    sizes = {f"{sides[0]}×{sides[1]}": path for path, (sides, _) in reversed(headers)}
    if shape is None and len(sizes) > 1:
        counts = Counter(f"{sides[0]}×{sides[1]}" for _, (sides, _) in headers)
        raise DataError(
            f"Expected images of one size; got, as height×width, {_counted(counts, sizes)}. "
            "Pass size=(height, width) to scale them."
        )


def _counted(counts: Counter[str], example: dict[str, str]) -> str:
    shown = [f"{name} ({count}, such as {example[name]})" for name, count in counts.most_common(_SHOWN)]
    return ", ".join(shown) + (f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")


def _storage(shape: tuple[int, ...], limit: float) -> Images:
    if math.prod(shape) <= limit:
        return np.empty(shape, np.uint8)
    try:
        # Without a name from the start, so nothing is left behind however the program ends.
        with tempfile.TemporaryFile() as file:
            _reserve(file.fileno(), math.prod(shape))
            return np.memmap(file, np.uint8, "w+", shape=shape)
    except OSError as error:
        raise DataError(
            f"{math.prod(shape)} bytes of images do not fit into {tempfile.gettempdir()}: {error}. Set TMPDIR to a "
            "larger disk, pass a smaller size=, or raise max_memory."
        ) from error


def _reserve(file: int, n_bytes: int) -> None:
    """Take the room now: writing to a mapped file that finds the disk full kills the program."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, n_bytes)
        except OSError as error:
            # Some file systems cannot.
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
