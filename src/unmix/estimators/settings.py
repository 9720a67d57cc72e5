"""Constructor words that estimators share: what they may be, and the length of the training that follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unmix.data.domains import DomainSchema
from unmix.data.kinds import KINDS
from unmix.data.schema import FeatureSchema
from unmix.errors import SettingError
from unmix.models.cggan import FLOWS, MODULATIONS
from unmix.nets.layers import ACTIVATIONS
from unmix.numbers import is_number, is_whole
from unmix.objectives.sparsity import PENALTIES
from unmix.train.fit import TrainingSettings

_LEAST_EPOCHS = 20
_MOST_EPOCHS = 1_000
_PATIENCE_SHARE = 0.2


def are_numbers(value: Any) -> bool:
    """Whether ``value`` is a sequence of one or more finite numbers."""
    listed = isinstance(value, Sequence | np.ndarray) and getattr(value, "ndim", 1) == 1
    return listed and len(value) > 0 and all(is_number(own) for own in value)


def are_widths(value: Any) -> bool:
    """Whether ``value`` is a sequence of one or more whole numbers ≥ 1."""
    return are_numbers(value) and all(is_whole(own, 1) for own in value)


def _needs(estimator: Any) -> Callable[[Any, str, str], None]:
    def need(holds: Any, name: str, expected: str) -> None:
        if not holds:
            raise SettingError(f"{name} must be {expected}; got {getattr(estimator, name)!r}.")

    return need


def _check_auxiliary(estimator: Any) -> None:
    known = estimator.auxiliary is None or isinstance(estimator.auxiliary, Mapping)
    _needs(estimator)(known, "auxiliary", "None, or a mapping of columns to their kind")


def check_common(estimator: Any) -> None:
    """Raise ``SettingError`` for a shared word that cannot be."""
    need = _needs(estimator)
    auto = estimator.chooses_latents and isinstance(estimator.n_latents, str) and estimator.n_latents == "auto"
    expected = 'a whole number ≥ 1, or "auto"' if estimator.chooses_latents else "a whole number ≥ 1"
    need(auto or is_whole(estimator.n_latents, 1), "n_latents", expected)
    for name in ("n_restarts", "batch_size", "min_domain_rows"):
        need(is_whole(getattr(estimator, name), 1), name, "a whole number ≥ 1")
    epochs, rate, fraction = estimator.max_epochs, estimator.learning_rate, estimator.validation_fraction
    need(epochs is None or is_whole(epochs, 1), "max_epochs", "None or ≥ 1 and whole")
    need(is_number(rate) and rate > 0, "learning_rate", "> 0 and finite")
    need(are_widths(estimator.hidden), "hidden", "one or more widths ≥ 1, such as (64, 64)")
    need(is_number(fraction) and 0 <= fraction < 1, "validation_fraction", "in [0, 1)")
    need(estimator.missing in ("error", "mask"), "missing", '"error" or "mask"')
    need(isinstance(estimator.early_stopping, bool | np.bool_), "early_stopping", "True or False")
    _check_auxiliary(estimator)


def check_gan(estimator: Any) -> None:
    """Raise ``SettingError`` for a word of CG-GAN that cannot be."""
    need, style = _needs(estimator), estimator.n_style
    counts = ("n_latents", "channels", "max_steps", "n_restarts", "encoder_steps", "batch_size", "min_domain_rows")
    for name in counts:
        need(is_whole(getattr(estimator, name), 1), name, "a whole number ≥ 1")
    in_range = style is None or (is_whole(style, 0) and style <= estimator.n_latents)
    need(in_range, "n_style", "None or from 0 to n_latents")
    need(style != 0 or estimator.flow is False, "n_style", "≥ 1, or domains change nothing (0 takes flow=False)")
    _check_auxiliary(estimator)
    need(is_whole(estimator.verbose, 0) or isinstance(estimator.verbose, bool), "verbose", "0, 1 or 2")
    need(are_widths(estimator.hidden), "hidden", "one or more widths ≥ 1, such as (128, 128)")
    need(estimator.flow is False or estimator.flow in [*FLOWS], "flow", f"one of {[*FLOWS]} or False")
    need(estimator.penalty in [None, *PENALTIES], "penalty", f"one of {[*PENALTIES]}, or None")
    need(estimator.modulation in MODULATIONS, "modulation", f"one of {[*MODULATIONS]}")
    for name in ("mask", "augment", "mixed_precision"):
        need(isinstance(getattr(estimator, name), bool | np.bool), name, "True or False")
    for name in ("mask_weight", "sparsity", "gradient_weight"):
        value = getattr(estimator, name)
        absent = name == "sparsity" and value is None
        need(absent or (is_number(value) and value >= 0), name, "≥ 0 and finite")
    need(is_number(estimator.learning_rate) and estimator.learning_rate > 0, "learning_rate", "> 0")


def check_translator(estimator: Any) -> None:
    """Raise ``SettingError`` for a word of the image translator that cannot be."""
    need = _needs(estimator)
    for name in ("n_style", "n_content", "channels", "max_steps", "batch_size", "min_domain_rows"):
        need(is_whole(getattr(estimator, name), 1), name, "a whole number ≥ 1")
    need(estimator.channels > 3, "channels", "4 or more")
    need(estimator.flow is False or estimator.flow in [*FLOWS], "flow", f"one of {[*FLOWS]} or False")
    for name in ("mask_weight", "sparsity", "back_translation"):
        value = getattr(estimator, name)
        need(is_number(value) and value >= 0, name, "≥ 0 and finite")
    need(is_number(estimator.learning_rate) and estimator.learning_rate > 0, "learning_rate", "> 0")
    need(isinstance(estimator.mixed_precision, bool | np.bool), "mixed_precision", "True or False")
    need(is_whole(estimator.verbose, 0) or isinstance(estimator.verbose, bool), "verbose", "0, 1 or 2")


def planned_epochs(estimator: Any, n_samples: int) -> tuple[int, float]:
    """Epochs and the part of the rows that each takes: ``max_epochs`` whole ones, or the default number of steps.

    These are ``steps_per_latent`` for each latent, and ``least_steps`` at least. Where 20 passes over the rows are
    more steps than that, an epoch is a twentieth of the steps.
    """
    if estimator.max_epochs is not None:
        return int(estimator.max_epochs), 1.0
    n_batches = max(1, round(n_samples * (1 - estimator.validation_fraction) / estimator.batch_size))
    steps = max(estimator.steps_per_latent * estimator.n_latents, estimator.least_steps)
    batches = min(n_batches, math.ceil(steps / _LEAST_EPOCHS))
    return min(math.ceil(steps / batches), _MOST_EPOCHS), batches / n_batches


def training_settings(estimator: Any, n_samples: int, seed: int, has_held_out: bool) -> TrainingSettings:
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
    )


def vae_words(
    estimator: Any, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int
) -> dict[str, Any]:
    """Fields of ``VAEConfig``, which all baselines share."""
    return {
        "n_latents": int(estimator.n_latents),
        "n_features": len(features.names),
        "n_design": domains.n_design if estimator.uses_domains else 0,
        "interactions": len(domains.columns) > 1 or domains.n_continuous > 0,
        "masked": estimator.missing == "mask",
        "hidden": tuple(int(width) for width in estimator.hidden),
        "activation": estimator.activation,
        "noise_std": None if estimator.noise_std is None else float(estimator.noise_std),
        "n_starts": n_starts,
        "seed": seed,
    }


def check_vae(estimator: Any, *weights: str) -> None:
    """Raise ``SettingError`` for a word of all baselines that cannot be, or a weight below 0."""
    estimator._need_one_of("activation", ACTIVATIONS)
    noise = estimator.noise_std
    if noise is not None and not (is_number(noise) and noise > 0):
        raise SettingError(f"noise_std must be None or > 0; got {noise!r}.")
    estimator._need_at_least_zero(*weights)


def check_likelihood(likelihood: Any, size_factors: Any, nuisance: Any) -> None:
    """Raise ``SettingError`` for likelihoods, size factors or a nuisance that cannot be."""
    given = [*likelihood.values()] if isinstance(likelihood, Mapping) else [likelihood]
    known = KINDS if isinstance(likelihood, Mapping) else ("auto", *KINDS)
    if not all(isinstance(own, str) and own in known for own in given):
        raise SettingError(
            f"likelihood must be one of {['auto', *KINDS]}, or a mapping of features to {[*KINDS]}; got {likelihood!r}."
        )
    if not (size_factors is None or (isinstance(size_factors, str) and size_factors)):
        raise SettingError(
            f'size_factors must be "total", the name of a column, or None; got {size_factors!r}. Put sizes of your own '
            "into a column of the table."
        )
    if not (nuisance is None or (isinstance(nuisance, str) and nuisance)):
        raise SettingError(f"nuisance must be None or the name of a column of batches; got {nuisance!r}.")
