"""Constructor parameters that estimators share: what they may be, and the length of the training that follows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol, TypedDict

from unmix.data.domains import DomainSchema
from unmix.data.schema import FeatureSchema
from unmix.distributions.kinds import LIKELIHOODS
from unmix.distributions.likelihood import Likelihood
from unmix.nets.layers import ACTIVATIONS
from unmix.train.fit import TrainingSettings
from unmix.train.optimizers import MakeOptimizer, MakeScheduler
from unmix.validation import AUXILIARY, FLAG, POSITIVE, SHARE, VERBOSE, WIDTHS, Check, one_of, whole

_LEAST_EPOCHS = 20
_MOST_EPOCHS = 1_000
_PATIENCE_SHARE = 0.2


CALLABLE = Check(
    "None, or a class or function, or a functools.partial of one", lambda value: value is None or callable(value)
)
CALLBACKS = Check(
    "a list of callables, each called with the record of an epoch, or of a block of steps",
    lambda value: isinstance(value, list | tuple) and all(map(callable, value)),
)
COMMON: dict[str, Check] = {
    "n_latents": whole(1),
    "hidden": WIDTHS,
    "n_restarts": whole(1),
    "max_epochs": whole(1).or_else(None),
    "batch_size": whole(1),
    "learning_rate": POSITIVE,
    "optimizer": CALLABLE,
    "scheduler": CALLABLE,
    "warm_start": FLAG,
    "validation_fraction": SHARE,
    "early_stopping": FLAG,
    "auxiliary": AUXILIARY,
    "missing": one_of(("error", "mask")),
    "min_domain_rows": whole(1),
    "verbose": VERBOSE,
}


def or_own(check: Check, base: type) -> Check:
    """The same, or a subclass of ``base`` of the user's own, or a ``functools.partial`` of one."""

    def holds(value: object) -> bool:
        kind = value.func if isinstance(value, partial) else value
        return check.holds(value) or (isinstance(kind, type) and issubclass(kind, base))

    return Check(f"{check.expected}, or a subclass of {base.__module__}.{base.__name__} (the class itself)", holds)


LIKELIHOOD = or_own(
    Check(
        f"one of {['auto', *LIKELIHOODS]}, or a mapping of features to {[*LIKELIHOODS]}",
        lambda value: (
            all(map(one_of(LIKELIHOODS).holds, value.values()))
            if isinstance(value, Mapping)
            else one_of(("auto", *LIKELIHOODS)).holds(value)
        ),
    ),
    Likelihood,
)


def _column_or_none(expected: str) -> Check:
    return Check(expected, lambda value: value is None or (isinstance(value, str) and value != ""))


SIZE_FACTORS = _column_or_none('"total", the name of a column (put sizes of your own into one), or None')
DISPERSION = one_of(("feature", "domain"))
NUISANCE = _column_or_none("None, or the name of a column of batches")
OF_VAE: dict[str, Check] = {"activation": one_of(ACTIVATIONS), "noise_std": POSITIVE.or_else(None)}


class Trained(Protocol):
    """What the length of a training is read off."""

    n_latents: int | str
    max_epochs: int | None
    batch_size: int
    learning_rate: float
    optimizer: MakeOptimizer | None
    scheduler: MakeScheduler | None
    validation_fraction: float
    early_stopping: bool
    steps_per_latent: int
    least_steps: int


def planned_epochs(estimator: Trained, n_samples: int) -> tuple[int, float]:
    """Epochs and the part of the rows that each takes: ``max_epochs`` whole ones, or the default number of steps.

    These are ``steps_per_latent`` for each latent, and ``least_steps`` at least. Where 20 passes over the rows are
    more steps than that, an epoch is a twentieth of the steps.
    """
    if estimator.max_epochs is not None:
        return int(estimator.max_epochs), 1.0
    n_batches = max(1, round(n_samples * (1 - estimator.validation_fraction) / estimator.batch_size))
    n_latents = getattr(estimator, "n_latents_", 1) if estimator.n_latents == "auto" else estimator.n_latents
    steps = max(estimator.steps_per_latent * int(n_latents), estimator.least_steps)
    batches = min(n_batches, math.ceil(steps / _LEAST_EPOCHS))
    return min(math.ceil(steps / batches), _MOST_EPOCHS), batches / n_batches


def training_settings(estimator: Trained, n_samples: int, seed: int, has_held_out: bool) -> TrainingSettings:
    """What the training loop is told."""
    epochs, part = planned_epochs(estimator, n_samples)
    patience = max(10, round(_PATIENCE_SHARE * epochs)) if estimator.early_stopping and has_held_out else None
    return TrainingSettings(
        max_epochs=epochs,
        epoch_part=part,
        batch_size=int(estimator.batch_size),
        learning_rate=float(estimator.learning_rate),
        patience=patience,
        seed=seed,
        optimizer=estimator.optimizer,
        scheduler=estimator.scheduler,
    )


class VAEWords(TypedDict):
    """Fields of ``VAEConfig``, which all baselines share."""

    n_latents: int
    n_features: int
    n_design: int
    interactions: float
    masked: bool
    hidden: tuple[int, ...]
    activation: str
    noise_std: float | None
    n_starts: int
    seed: int


def vae_words(estimator: Any, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> VAEWords:
    """Fields of ``VAEConfig``, which all baselines share."""
    return {
        "n_latents": int(estimator.n_latents),
        "n_features": len(features.names),
        "n_design": domains.n_design if estimator.uses_domains else 0,
        "interactions": domains.interactions,
        "masked": estimator.missing == "mask",
        "hidden": tuple(int(width) for width in estimator.hidden),
        "activation": estimator.activation,
        "noise_std": None if estimator.noise_std is None else float(estimator.noise_std),
        "n_starts": n_starts,
        "seed": seed,
    }
