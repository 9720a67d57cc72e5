"""What CG-GAN takes: tables, as every estimator does, or square uint8 images, in both cases of at least two domains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unmix.data.batches import Rows
from unmix.data.domains import DomainSchema
from unmix.data.images import LEAST_IMAGES
from unmix.data.schema import FeatureSchema
from unmix.errors import DataError, DomainError
from unmix.estimators.prepare import column_names, prepare
from unmix.nets.gan_images import SIDES


def prepare_gan(
    X: Any, y: Any, *, n_latents: int, auxiliary: Mapping[str, str] | None, min_domain_rows: int, seed: int
) -> tuple[FeatureSchema | None, DomainSchema, Rows, tuple[str, ...] | None]:
    """Schema of the features (None for images), schema of the domains, all rows, names of the columns if it has any."""
    if hasattr(X, "images"):
        y = X.domains if y is None else y
    if not _is_images(X):
        data = prepare(
            X,
            y,
            n_latents=n_latents,
            missing="error",
            auxiliary=auxiliary,
            min_domain_rows=min_domain_rows,
            validation_fraction=0.0,
            seed=seed,
        )
        _need_domains(data.domains)
        return data.features, data.domains, data.rows, column_names(data.table)
    images = gan_images(X)
    if len(images) < LEAST_IMAGES:
        raise DataError(f"There are {len(images)} images; CGGAN needs at least {LEAST_IMAGES}, rather thousands.")
    domains = DomainSchema.learn(y, len(images), auxiliary, min_domain_rows)
    _need_domains(domains)
    return None, domains, gan_image_rows(images, domains, y), None


def _is_images(X: Any) -> bool:
    """Whether ``X`` is meant as images: what has ``images``, an array of more than two dimensions, a list of arrays."""
    if hasattr(X, "images"):
        return True
    return getattr(X, "ndim", 2) > 2 or (isinstance(X, list) and len(X) > 0 and getattr(X[0], "ndim", 1) > 1)


def gan_images(X: Any) -> NDArray[np.uint8]:
    """The checked array of ``X``: an array, a list of arrays, or what ``read_images`` and the data sets return."""
    X = getattr(X, "images", X)
    if isinstance(X, list):
        shapes = sorted({np.shape(image) for image in X})
        if len(shapes) > 1:
            raise DataError(f"All images must have one size and mode; got shapes {shapes[:5]}. Resize or convert them.")
        X = np.stack(X)
    images = np.asarray(X)
    if images.ndim != 4 or images.dtype != np.uint8:
        raise DataError(
            "Images must be a uint8 array (n_samples, side, side, colours); got "
            f"{images.dtype} of shape {images.shape}. Convert them."
        )
    _, height, width, _ = images.shape
    if height != width or height not in SIDES:
        raise DataError(
            f"Images must be square with sides of {list(SIDES)} pixels; got {height} by {width}. Resize them."
        )
    return images


def gan_image_rows(images: NDArray[np.uint8], domains: DomainSchema, y: Any) -> Rows:
    """Images as they are, uint8, with their encoded domains; without ``y`` they carry none."""
    schema = DomainSchema() if y is None else domains
    rows = Rows.build(np.zeros((len(images), 0)), schema.encode(y, len(images)), schema.sizes, False)
    return Rows(torch.from_numpy(np.ascontiguousarray(images)), None, rows.codes, rows.values, rows.n_design)


def _need_domains(domains: DomainSchema) -> None:
    if not domains.columns or (len(domains.domains) < 2 and not domains.n_continuous):
        raise DomainError(
            f"CGGAN needs rows of at least two domains; got {len(domains.domains)}. Pass their labels as y."
        )
