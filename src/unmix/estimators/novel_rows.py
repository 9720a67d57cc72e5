"""How far rows lie outside what a ``LatentEstimator`` was fitted on."""

from __future__ import annotations

import inspect

from sklearn.base import BaseEstimator

from unmix.audit.novelty import Novelty, novelty
from unmix.data.images import of_images
from unmix.data.tables import as_table
from unmix.errors import DataError, DomainError
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
    labels = [_ALL] * len(rows)
    if y is not None:
        frame = labels_frame(y, len(rows))
        labels = [" · ".join(map(label_text, row)) for row in frame.itertuples(index=False)]
    return novelty(
        estimator.model_,
        estimator.description_,
        kept,
        rows,
        labels,
        [str(name) for name in estimator.get_feature_names_out()],
        estimator.schema_.names,
    )
