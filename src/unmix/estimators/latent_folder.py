"""What a folder holds of a ``LatentEstimator``, and how one is read from it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from unmix.audit.counterfactuals import CounterfactualCheck
from unmix.audit.describe import Description
from unmix.audit.subject import ResidualDependence
from unmix.data.domains import DomainSchema
from unmix.data.tables import write_table
from unmix.estimators.storage import SELECTION, Parts
from unmix.models.base import FittedModel

_FILES = """model.safetensors  the kept start's parameters, and the arrays behind the report
history.jsonl      held-out objective and its terms, one line an epoch and start
restarts.csv       one line a start
mixing.csv         features x latents: |dx/dz|, in standard deviations
effects.csv        how each domain moves each latent, with 95 % intervals"""


def stored(estimator: Any, folder: Path) -> Parts:
    """Arrays, scalars and the list of files; the tables are written at once."""
    write_table(estimator.restarts_, folder / "restarts.csv")
    write_table(estimator.mixing_frame().rename_axis("feature").reset_index(), folder / "mixing.csv")
    write_table(estimator.effects_frame(), folder / "effects.csv")
    fitted = {
        "best_restart": estimator.best_restart_,
        "agreement": estimator.agreement_,
        "seed": estimator.seed_,
        "stop_reason": estimator.stop_reason_,
        "n_epochs": estimator.n_epochs_,
        "fit_seconds": estimator.fit_seconds_,
        "sizes": estimator.settings_,
        "n_latents": estimator.n_latents_,
    }
    if hasattr(estimator, "residual_dependence_"):
        fitted["residual_dependence"] = asdict(estimator.residual_dependence_)
        fitted["residual_audited"] = asdict(estimator.residual_audited_)
    if hasattr(estimator, "selection_"):
        write_table(estimator.selection_, folder / SELECTION)
    arrays = {f"description/{key}": value for key, value in estimator.description_.arrays().items()}
    arrays["training_rows"] = estimator.training_rows_
    if estimator.counterfactuals_ is not None:
        arrays |= {f"counterfactuals/{key}": value for key, value in estimator.counterfactuals_.arrays().items()}
    return Parts(arrays, fitted, _FILES)


def restore(
    estimator: Any, folder: Path, fitted: dict[str, Any], schema: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """The inverse of ``stored``."""
    features, domains = estimator.schema_type.from_dict(schema["features"]), DomainSchema.from_dict(schema["domains"])
    estimator.n_latents_ = fitted["n_latents"]
    model = FittedModel(estimator._network(features, domains, fitted["seed"], 1).single(0))
    model.load_state_dict({key.removeprefix("model/"): t for key, t in tensors.items() if key.startswith("model/")})
    arrays, carried = (_under(part, tensors) for part in ("description/", "counterfactuals/"))
    estimator.model_, estimator.schema_, estimator.domain_schema_ = model, features, domains
    # Folders of old have no variances, and an R² without a lower limit where there was next to none.
    arrays.setdefault("r2_variance", (arrays["r2"] > -1).astype(float))
    estimator.description_ = Description(**arrays)
    estimator.n_features_in_ = len(features.names)
    if features.named:
        estimator.feature_names_in_ = np.array(features.names, dtype=object)
    estimator.domains_ = domains.domains
    estimator.training_rows_ = (
        tensors["training_rows"].numpy() if "training_rows" in tensors else np.empty(0, dtype=np.int64)
    )
    names = domains.domains, tuple(features.names)
    estimator.counterfactuals_ = CounterfactualCheck(*names, **carried) if carried else None
    estimator.seed_, estimator.stop_reason_ = fitted["seed"], fitted["stop_reason"]
    estimator.n_epochs_, estimator.fit_seconds_ = fitted["n_epochs"], fitted["fit_seconds"]
    estimator.settings_, estimator.best_restart_ = fitted["sizes"], fitted["best_restart"]
    estimator.agreement_ = float("nan") if fitted["agreement"] is None else fitted["agreement"]
    if "residual_dependence" in fitted:
        estimator.residual_dependence_ = ResidualDependence.from_dict(fitted["residual_dependence"])
        # Folders from before the audit took its own have the fit's alone.
        audited = fitted.get("residual_audited", fitted["residual_dependence"])
        estimator.residual_audited_ = ResidualDependence.from_dict(audited)
    estimator._set_mixing()
    estimator.restarts_ = pd.read_csv(folder / "restarts.csv")
    if (folder / SELECTION).exists():
        estimator.selection_ = pd.read_csv(folder / SELECTION)


def _under(part: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {key.removeprefix(part): value.numpy() for key, value in tensors.items() if key.startswith(part)}
