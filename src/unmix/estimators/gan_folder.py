"""What a folder holds of a ``CGGAN``, and how one is read from it."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from unmix.data.domains import DomainSchema
from unmix.data.schema import FeatureSchema
from unmix.estimators.storage import Parts
from unmix.models.fitted_gan import FittedGAN

_FILES = """model.safetensors  averaged generator, encoder, frame of the latents, and the mixing
history.jsonl      terms of discriminator, generator and encoder, one line a block of steps"""


def stored(estimator: Any) -> Parts:
    """Arrays and scalars."""
    fitted = {
        "seed": estimator.seed_,
        "n_steps": estimator.n_steps_,
        "fit_seconds": estimator.fit_seconds_,
        "start_errors": estimator.start_errors_.tolist(),
        "best_restart": estimator.best_restart_,
    }
    return Parts({"mixing": estimator.mixing_}, fitted, _FILES)


def restore(estimator: Any, fitted: dict[str, Any], schema: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """The inverse of ``stored``."""
    domains, features = DomainSchema.from_dict(schema["domains"]), schema["features"]
    images = "image_shape" in features
    estimator.schema_ = None if images else FeatureSchema.from_dict(features)
    shape = tuple(features["image_shape"]) if images else (len(features["names"]),)
    model = FittedGAN(estimator._config(shape, domains, fitted["seed"]))
    model.load_state_dict({key.removeprefix("model/"): t for key, t in tensors.items() if key.startswith("model/")})
    estimator.model_, estimator.domain_schema_ = model, domains
    estimator.seed_, estimator.n_steps_, estimator.fit_seconds_ = (
        fitted[name] for name in ("seed", "n_steps", "fit_seconds")
    )
    # Folders from before the errors were kept have none; JSON knows no infinity.
    errors = fitted.get("start_errors", [np.nan] * int(estimator.n_restarts))
    estimator.start_errors_ = np.array([np.inf if error is None else error for error in errors], dtype=float)
    least = 0 if np.isnan(estimator.start_errors_).all() else int(np.nanargmin(estimator.start_errors_))
    estimator.best_restart_ = fitted.get("best_restart", least)
    estimator._set_shapes(shape, tuple(features["names"]) if not images and features["named"] else None)
    estimator._set_mixing(tensors["mixing"].numpy())
