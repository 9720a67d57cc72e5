r"""Published images with known factors, read from a local file and given domains.

dSprites and 3DShapes hold every combination of their factors once. Rows are drawn with replacement, in domain u with

.. math:: P(\text{row} \mid u) \propto \prod_f w_f(\text{factor } f \text{ of the row}, u),

where w_f is the density (``unmix.datasets.images``) of a factor that changes, and constant for one that stays. On the
complete grid the factors are therefore independent in every domain, as they are in `make_sprites`. Positions in a
factor's range are counted from its smallest to its largest value in the file.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmix.datasets.images import ImageData, Ints, check_request, draw_domains, draw_factors, factor_kinds
from unmix.datasets.sprites import PERIODS
from unmix.errors import DataError, SettingError
from unmix.files import as_path
from unmix.validation import RandomLike, random_seed

_DSPRITES = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz from https://github.com/google-deepmind/dsprites-dataset"
_SHAPES3D = "3dshapes.h5 from https://github.com/google-deepmind/3d-shapes"
_DSPRITES_SHAPES = ("square", "ellipse", "heart")
_SHAPES3D_SHAPES = ("cube", "cylinder", "sphere", "capsule")
BLOCK = 4096


def read_dsprites(
    path: str | PathLike[str],
    n_samples: int = 6000,
    n_domains: int = 3,
    change: str | Sequence[str] = ("scale", "x"),
    shapes: Sequence[str] = _DSPRITES_SHAPES,
    all_angles: bool = False,
    random_state: RandomLike = 0,
) -> ImageData:
    """dSprites from the published .npz file, with domains whose factor distributions differ.

    Factors: shape (square, ellipse, heart), scale (0.5 … 1, relative), angle (degrees), x and y (0 … 1, position in
    the range of movement), all on the published grid; the colour is always white. Images are 64×64×1, 0 or 255.

    A square looks the same after 90°, an ellipse after 180°, and every shape after 360°. By default only rows whose
    angle is below 0.8 of the smallest such period among ``shapes`` are drawn (squares in use: below 72°), so that the
    image determines the angle and shape and angle stay independent.

    The images lie in the file as one compressed stream (3 GB unpacked). It is unpacked from its start to the last row
    drawn, which takes seconds to tens of seconds, but only the rows drawn are kept in memory. Nothing is unpickled.

    Parameters
    ----------
    path : path
        Where ``dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz`` lies.
    n_samples : int, default 6000
        Images in all domains together; domains have equal size. Drawn with replacement.
    n_domains : int, default 3
    change : str or sequence of str, default ("scale", "x")
        Factors whose distribution depends on the domain; ``()`` for none.
    shapes : sequence of str, default all three
    all_angles : bool, default False
        Draw all angles; the image then leaves the angle of symmetric shapes open.
    random_state : int, RandomState or None, default 0

    Raises
    ------
    DataError
        There is no such file, it is damaged, or it is not dSprites.
    SettingError
        A size, factor or shape is impossible.

    Sources: L. Matthey, I. Higgins, D. Hassabis, A. Lerchner: dSprites, 2017.

    Examples
    --------
    >>> data = read_dsprites("dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz")    # doctest: +SKIP
    """
    shapes = tuple(shapes)
    if not shapes or not set(shapes) <= set(_DSPRITES_SHAPES) or len(set(shapes)) < len(shapes):
        raise SettingError(f"shapes must be distinct names out of {_DSPRITES_SHAPES}; got {shapes}.")
    n_classes = {"shape": len(shapes), "scale": 0, "angle": 0, "x": 0, "y": 0}
    changing = check_request(n_classes, change, n_samples, n_domains)
    path = _existing(path, _DSPRITES)
    values = _read_dsprites_values(path)
    published = pd.Categorical.from_codes(values[:, 1].astype(int) - 1, dtype=pd.CategoricalDtype([*_DSPRITES_SHAPES]))
    factors = pd.DataFrame(
        {
            "shape": published.set_categories(list(shapes)),
            "scale": values[:, 2],
            "angle": np.rad2deg(values[:, 3]),
            "x": values[:, 4],
            "y": values[:, 5],
        }
    )
    usable = factors["shape"].notna()
    if not all_angles:
        usable &= factors["angle"] < 0.8 * min(PERIODS[shape] for shape in shapes)
    rows, domains = _draw_rows(factors[usable], n_classes, changing, n_samples, n_domains, random_state, path)
    images = np.uint8(255) * (_read_npz_rows(path, rows, len(values)) > 0)[..., None]
    table = factors.iloc[rows].reset_index(drop=True)
    return ImageData(images, domains, table, factor_kinds(n_classes), changing)


def read_shapes3d(
    path: str | PathLike[str],
    n_samples: int = 6000,
    n_domains: int = 3,
    change: str | Sequence[str] = ("object_hue", "scale"),
    random_state: RandomLike = 0,
) -> ImageData:
    """3DShapes from the published .h5 file, with domains whose factor distributions differ.

    Factors: floor_hue, wall_hue and object_hue (0 … 0.9, fraction of the colour circle, red at 0), scale (0.75 … 1.25,
    relative), shape (cube, cylinder, sphere, capsule) and angle of view (−30 … 30 degrees), all on the published grid.
    Images are 64×64×3. The file is read block by block and only the rows drawn are kept in memory; a draw that
    reaches all of the file unpacks 6 GB. Needs h5py: ``pip install "unmix[images]"``.

    Parameters
    ----------
    path : path
        Where ``3dshapes.h5`` lies.
    n_samples : int, default 6000
        Images in all domains together; domains have equal size. Drawn with replacement.
    n_domains : int, default 3
    change : str or sequence of str, default ("object_hue", "scale")
        Factors whose distribution depends on the domain; ``()`` for none.
    random_state : int, RandomState or None, default 0

    Raises
    ------
    DataError
        There is no such file, it is damaged, it is not 3DShapes, or h5py is not installed.
    SettingError
        A size or factor is impossible.

    Sources: C. Burgess, H. Kim: 3D Shapes Dataset, 2018.

    Examples
    --------
    >>> data = read_shapes3d("3dshapes.h5")    # doctest: +SKIP
    """
    n_classes = {"floor_hue": 0, "wall_hue": 0, "object_hue": 0, "scale": 0, "shape": 4, "angle": 0}
    changing = check_request(n_classes, change, n_samples, n_domains)
    try:
        import h5py
    except ImportError as error:
        raise DataError('Reading 3dshapes.h5 needs h5py. Install it with: pip install "unmix[images]"') from error
    path = _existing(path, _SHAPES3D)
    try:
        with h5py.File(path, "r") as file:
            _check_keys(file, ("images", "labels"), path, _SHAPES3D)
            images, labels = file["images"], file["labels"]
            _check_arrays(images, (64, 64, 3), labels, 6, path, _SHAPES3D)
            factors = _shapes3d_factors(np.asarray(labels, dtype=float), path)
            rows, domains = _draw_rows(factors, n_classes, changing, n_samples, n_domains, random_state, path)
            drawn = _gather(lambda start, stop: images[start:stop], rows, images.shape)
    except OSError as error:
        raise _damaged(path, error, _SHAPES3D) from error
    table = factors.iloc[rows].reset_index(drop=True)
    return ImageData(drawn, domains, table, factor_kinds(n_classes), changing)


def _draw_rows(
    factors: pd.DataFrame,
    n_classes: dict[str, int],
    changing: tuple[str, ...],
    n_samples: int,
    n_domains: int,
    random_state: RandomLike,
    path: Path,
) -> tuple[Ints, Ints]:
    """Rows of the file (labels of ``factors``' index) and their domains."""
    rng = np.random.default_rng(random_seed(random_state))
    distributions = draw_factors(rng, n_classes, changing, n_domains)
    domains = draw_domains(rng, n_samples, n_domains)
    places: dict[str, Any] = {}
    for name in changing:
        column = factors[name]
        places[name] = column.cat.codes.to_numpy() if n_classes[name] else _position(column.to_numpy())
    rows = np.empty(n_samples, dtype=np.int64)
    for domain in range(n_domains):
        weights = np.ones(len(factors))
        for name, place in places.items():
            weights *= distributions[name].weight(domain, place)
        if not weights.sum() > 0:
            raise DataError(f"{path.name} has no rows to draw from in domain {domain}. Download the complete file.")
        here = domains == domain
        rows[here] = rng.choice(factors.index.to_numpy(), size=int(here.sum()), p=weights / weights.sum())
    return rows, domains


def _position(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = (values.min(), values.max()) if len(values) else (0.0, 0.0)
    positions: NDArray[np.float64] = (values - low) / max(high - low, np.finfo(float).tiny)
    return positions


def _read_dsprites_values(path: Path) -> NDArray[np.float64]:
    """Factor values (n_rows, 6): colour, shape 1 … 3, scale, orientation in radians, x, y."""
    if not zipfile.is_zipfile(path):
        raise _damaged(path, "it is no .npz archive, or its end is missing", _DSPRITES)
    try:
        with np.load(path, allow_pickle=False) as content:
            _check_keys(content, ("imgs", "latents_values"), path, _DSPRITES)
            values = content["latents_values"]
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error, _DSPRITES) from error
    if values.ndim != 2 or values.shape[1] != 6:
        raise DataError(f"{path.name}: latents_values has shape {values.shape}, not (n, 6). Expected {_DSPRITES}.")
    if not np.isin(values[:, 1], (1, 2, 3)).all() or not np.isfinite(values).all():
        raise DataError(f"{path.name}: the shape in latents_values is not 1, 2 or 3 everywhere. Expected {_DSPRITES}.")
    return values.astype(float)


def _read_npz_rows(path: Path, rows: Ints, n_rows: int) -> NDArray[np.uint8]:
    """Rows of ``imgs`` in the order asked for, unpacked block by block."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("imgs.npy") as stream:
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, fortran, dtype = read_header[np.lib.format.read_magic(stream)](stream)
            if shape != (n_rows, 64, 64) or fortran or dtype != np.uint8:
                raise DataError(
                    f"{path.name}: imgs is {dtype} of shape {shape}, not uint8 of ({n_rows}, 64, 64) in row order. "
                    f"Expected {_DSPRITES}."
                )
            first = stream.tell()

            def read(start: int, stop: int) -> NDArray[np.uint8]:
                stream.seek(first + start * 64 * 64)
                content = stream.read((stop - start) * 64 * 64)
                return np.frombuffer(content, dtype=np.uint8).reshape(stop - start, 64, 64)

            return _gather(read, rows, shape)
    except DataError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error, _DSPRITES) from error


def _gather(read: Callable[[int, int], NDArray[np.uint8]], rows: Ints, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Rows, in the order asked for, of an array that ``read(start, stop)`` gives block by block, in rising order.

    Single rows would be unpacked many times over where a file keeps many in one chunk; a block is unpacked once.
    """
    wanted, place = np.unique(rows, return_inverse=True)
    kept = np.empty((len(wanted), *shape[1:]), dtype=np.uint8)
    for start in range(0, shape[0], BLOCK):
        stop = min(start + BLOCK, shape[0])
        low, high = np.searchsorted(wanted, (start, stop))
        if low < high:
            kept[low:high] = read(start, stop)[wanted[low:high] - start]
    return kept[place]


def _shapes3d_factors(labels: NDArray[np.float64], path: Path) -> pd.DataFrame:
    if not np.isin(labels[:, 4], (0, 1, 2, 3)).all():
        raise DataError(f"{path.name}: the shape in labels is not 0, 1, 2 or 3 everywhere. Expected {_SHAPES3D}.")
    names = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "angle")
    factors: dict[str, object] = dict(zip(names, labels.T, strict=True))
    factors["shape"] = pd.Categorical.from_codes(
        labels[:, 4].astype(int), dtype=pd.CategoricalDtype([*_SHAPES3D_SHAPES])
    )
    return pd.DataFrame(factors)


def _existing(path: str | PathLike[str], source: str) -> Path:
    path = as_path(path)
    if not path.is_file():
        raise DataError(f"There is no file at {path}. Download {source} and pass its path.")
    return path


def _check_keys(content: Mapping[str, object], keys: tuple[str, ...], path: Path, source: str) -> None:
    absent = [key for key in keys if key not in content]
    if absent:
        raise DataError(f"{path.name} has no {absent}; it holds {sorted(content)}. Expected {source}.")


def _check_arrays(
    images: NDArray[np.generic],
    shape: tuple[int, ...],
    labels: NDArray[np.generic],
    n_factors: int,
    path: Path,
    source: str,
) -> None:
    right = labels.shape == (*images.shape[:1], n_factors) and images.shape == (*images.shape[:1], *shape)
    if not right or images.dtype != np.uint8:
        raise DataError(
            f"{path.name}: images are {images.dtype} of shape {images.shape} and labels have shape {labels.shape}; "
            f"not uint8 of (n, {', '.join(map(str, shape))}) and (n, {n_factors}). Expected {source}."
        )


def _damaged(path: Path, error: Exception | str, source: str) -> DataError:
    return DataError(f"{path} could not be read: {error}. Is the file complete? Download {source} again.")
