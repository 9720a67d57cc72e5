"""How far rows lie outside what a ``LatentEstimator`` was fitted on."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from sklearn.base import BaseEstimator

from unmix.audit.novelty import LEVEL, HeldOutResiduals, Novelty, novelty
from unmix.data.batches import Rows
from unmix.data.columns import listed
from unmix.data.images import of_images
from unmix.data.tables import as_table
from unmix.errors import DataError, DomainError, warn
from unmix.forms import DataLike, LabelsLike
from unmix.labels import label_text, labels_frame

_ALL = "these rows"


def novelty_of(estimator: BaseEstimator, X: DataLike, y: LabelsLike) -> Novelty:
    """The comparison of new rows with those held out at fit; ``y`` says which rows are of one domain."""
    if "y" in inspect.signature(estimator.transform).parameters:
        raise DomainError(
            f"The encoder of {type(estimator).__name__} needs the domain, so rows of a new one cannot be encoded. Use "
            "CGVAE or IMSDA."
        )
    kept = estimator.fit_.summary.residuals
    if kept is None:
        raise DataError(
            "Novelty is measured against rows held out at fit, and the model has kept none: it held none out, or was "
            "saved by an earlier version. Fit again, with validation_fraction above 0."
        )
    rows = estimator._new_rows(X if of_images(estimator.schema_) else as_table(X, estimator._layer()))
    labels: Sequence[str] = [_ALL] * len(rows)
    if y is not None:
        frame = labels_frame(y, len(rows))
        labels = [" · ".join(map(label_text, row)) for row in frame.itertuples(index=False)]
    return _compared(estimator, kept, rows, labels)


def warn_of_new_mixing(estimator: BaseEstimator, rows: Rows, labels: Sequence[str]) -> None:
    """Warn of the domains ``labels`` whose rows do not follow the mixing of the fit, where that can be told."""
    kept = estimator.fit_.summary.residuals
    if kept is None or not len(rows):
        return
    found = _compared(estimator, kept, rows, labels).domains
    changed = found.loc[found["mixing_p"] < LEVEL, "domain"].tolist()
    beyond = found.loc[(found["outside_p"] < LEVEL) & (found["mixing_p"] >= LEVEL), "domain"].tolist()
    if changed:
        warn(
            f"The features of {listed(changed)} do not follow the mixing of the fit, so the latents of these rows mean "
            "little, and so does a prior learnt from them. model.novelty(X) says which feature differs most."
        )
    if beyond:
        warn(
            f"Rows of {listed(beyond)} lie outside the range of the fit, and the model does not describe their "
            "features there, so its prior may be wrong. model.novelty(X) says which rows, and which feature differs "
            "most."
        )


def _compared(estimator: BaseEstimator, kept: HeldOutResiduals, rows: Rows, labels: Sequence[str]) -> Novelty:
    return novelty(
        estimator.model_,
        estimator.description_,
        kept,
        rows,
        labels,
        [str(name) for name in estimator.get_feature_names_out()],
        estimator.schema_.names,
    )
