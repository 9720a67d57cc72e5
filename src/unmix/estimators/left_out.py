"""Fits of the same kind without each domain in turn, for the audit."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone

from unmix.audit.finding import Finding
from unmix.audit.left_out import check_left_out
from unmix.data.domains import DomainSchema
from unmix.errors import DataError, DomainError, UnmixError
from unmix.estimators.prepare import separate
from unmix.forms import DataLike, LabelsLike
from unmix.labels import labels_frame


def left_out_finding(estimator: BaseEstimator, X: DataLike, y: LabelsLike) -> Finding:
    """Whether latents of ``X`` are found again by fits without each of its domains."""
    table, y = separate(X, y)
    rows = estimator._new_rows(table)
    schema: DomainSchema = estimator.domain_schema_
    if y is None or not schema.categorical:
        raise DomainError("Leaving domains out needs a label for each row. Pass X and y, as in fit.")
    frame, groups = labels_frame(y, len(rows)), schema.groups(y, len(rows))
    latents = _encoded(estimator, table, frame)
    without, failed = {}, {}
    for group in np.unique(groups[groups >= 0]):
        kept = np.flatnonzero(groups != group)
        name = schema.domains[int(group)]
        smaller = clone(estimator).set_params(n_latents=estimator.n_latents_, verbose=0, random_state=estimator.seed_)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                smaller.fit(_taken(table, kept), frame.iloc[kept].reset_index(drop=True))
                without[name] = _encoded(smaller, table, None)
        except UnmixError as error:
            failed[name] = str(error)
    return check_left_out(latents, without, [str(own) for own in estimator.get_feature_names_out()], failed)


def _encoded(estimator: BaseEstimator, table: DataLike, frame: pd.DataFrame | None) -> NDArray[np.float64]:
    try:
        return np.asarray(estimator.transform(table), dtype=float)
    except DomainError as error:
        raise DataError(
            f"The encoder of {type(estimator).__name__} needs the domain, so rows of a left-out one cannot be encoded. "
            "Use CGVAE or IMSDA."
        ) from error


def _taken(table: Any, kept: NDArray[np.int64]) -> DataLike:
    return table[kept] if isinstance(table, np.ndarray) else table.iloc[kept] if hasattr(table, "iloc") else table[kept]
