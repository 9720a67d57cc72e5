"""What CG-GAN takes: tables, as every estimator does, or square images, in both cases of at least two domains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unmix.data.batches import Rows
from unmix.data.domains import DomainSchema, Encoded
from unmix.data.image_files import holds_images
from unmix.data.images import ImageSchema, check_images
from unmix.data.schema import FeatureSchema
from unmix.errors import DataError, DomainError, SchemaError
from unmix.estimators.prepare import as_images, prepare
from unmix.files import as_path
from unmix.forms import DataLike, LabelsLike
from unmix.nets.gan_images import SIDES


def prepare_gan(
    X: DataLike,
    y: LabelsLike,
    *,
    n_latents: int,
    auxiliary: Mapping[str, str] | None,
    min_domain_rows: int,
    seed: int,
) -> tuple[FeatureSchema | ImageSchema, DomainSchema, Rows]:
    """Schemas of the features and of the domains, and all rows."""
    if not _is_images(X):
        data = prepare(
            X,
            y,
            n_latents=n_latents,
            missing="refuse",
            auxiliary=auxiliary,
            min_domain_rows=min_domain_rows,
            validation_fraction=0.0,
        )
        _need_domains(data.domains)
        return data.features, data.domains, data.rows
    found, y = as_images(X, y)
    images = gan_images(found)
    check_images(images)
    domains, encoded, _ = DomainSchema.learn(y, len(images), auxiliary, min_domain_rows)
    _need_domains(domains)
    return ImageSchema.of_range(images.shape[1:]), domains, gan_image_rows(images, domains, encoded)


def _is_images(X: DataLike) -> bool:
    """Whether ``X`` is meant as images: by its ``images``, its dimensions, arrays in a list, or a path to some."""
    if hasattr(X, "images"):
        return True
    if isinstance(X, str | Path):
        return holds_images(as_path(X))
    return getattr(X, "ndim", 2) > 2 or (isinstance(X, list) and len(X) > 0 and getattr(X[0], "ndim", 1) > 1)


def gan_images(X: DataLike, fitted: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
    """The images of ``X``, in any form that ``read_images`` knows, with sides that the networks take.

    For a model that was ``fitted`` on images of that shape: of the same.
    """
    images = as_images(X)[0].images
    if fitted is not None and images.shape[1:] != fitted:
        raise SchemaError(
            f"The model was fitted on images of shape {fitted}; got {images.shape[1:]}. "
            "Read them with the same size= and mode=."
        )
    _, height, width, _ = images.shape
    if height != width or height not in SIDES:
        raise DataError(
            f"Images must be square with sides of {list(SIDES)} pixels; got {height} by {width}. Scale them: "
            "unmix.read_images(..., size=64)."
        )
    return images


def gan_image_rows(images: NDArray[np.uint8], domains: DomainSchema, encoded: Encoded | None) -> Rows:
    """Images as they are, uint8, with their domains; without ``encoded`` they carry none."""
    schema = domains if encoded is not None else DomainSchema()
    own = encoded if encoded is not None else schema.encode(None, len(images))
    rows = Rows.build(np.zeros((len(images), 0)), own, schema.sizes, False)
    pixels = torch.from_numpy(np.require(images, requirements=["C", "W"]))
    return Rows(pixels, None, rows.codes, rows.values, rows.n_design)


def _need_domains(domains: DomainSchema) -> None:
    if not domains.columns or (len(domains.domains) < 2 and not domains.n_continuous):
        raise DomainError(
            f"CGGAN needs rows of at least two domains; got {len(domains.domains)}. Pass their labels as y."
        )
