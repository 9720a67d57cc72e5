"""The audit of a fitted ``LatentEstimator``, and what has to be said of the rows that it is given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmix.audit.describe import encode_rows, explained
from unmix.audit.finding import listed
from unmix.audit.notes import TRAINING_ROWS, Note, note_constant, note_training, note_unlike, note_without_domain
from unmix.audit.residuals import AUDITED_SHARE, residual_dependence
from unmix.audit.result import Audit
from unmix.audit.sources import audit_model
from unmix.audit.subject import Reconstruction, stratify
from unmix.data.batches import Rows
from unmix.data.schema import FeatureSchema
from unmix.errors import DomainError, warn


def audit(estimator: Any, X: Any, y: Any) -> Audit:
    """The audit on rows and their domains, or on those of the fit."""
    rows, residual = None, getattr(estimator, "residual_audited_", None)
    if X is None:
        notes = _notes_of_fit(estimator)
    else:
        new, groups, kept, notes = noted(estimator, X, y)
        means, widths = encode_rows(estimator.model_, new)
        strata = stratify(new, groups)
        rows = means, widths, strata, kept
        if residual is not None:
            residual = residual_dependence(
                estimator.model_, new, strata.labels, estimator.schema_.names, least_share=AUDITED_SHARE
            )
    found = audit_model(
        estimator.model_,
        estimator.description_,
        domains=estimator.domains_,
        names=[str(name) for name in estimator.get_feature_names_out()],
        feature_names=estimator.schema_.names,
        objective=estimator.restarts_["held_out_objective"],
        rows=rows,
        residual=residual,
    )
    return replace(found, notes=tuple(notes))


def noted(estimator: Any, X: Any, y: Any) -> tuple[Rows, NDArray[np.int64], Reconstruction, list[Note]]:
    """New rows, the domain of each, what the model keeps of them, and what is to be said of them."""
    rows, y = estimator._audited(X, y)
    groups = estimator.domain_schema_.groups(y, len(rows))
    if (groups < 0).all():
        raise DomainError(
            "No row is of a combination of domain levels that was there at fit. Known: "
            f"{listed(estimator.domains_, 20)}. Pass rows of these, or fit again with the new ones."
        )
    notes = note_training(rows, estimator.training_rows_) + note_without_domain(groups)
    kept, found = explained(estimator.model_, rows), estimator.description_
    if isinstance(estimator.schema_, FeatureSchema):
        notes += note_unlike(rows, estimator.schema_.names, kept, Reconstruction(found.r2, found.r2_variance))
        notes += note_constant(kept.variance, estimator.schema_.names)
    return rows, groups, kept, notes


def say(notes: Iterable[Note]) -> None:
    """A warning for each note."""
    for note in notes:
        warn(note.sentence)


def _notes_of_fit(estimator: Any) -> list[Note]:
    """What is to be said of the rows that the fit was described on."""
    found, notes = estimator.description_, []
    if not found.held_out[0]:
        said = "No rows were held out: the audited ones are those that the fit was trained on, which flatters it."
        notes.append(Note(TRAINING_ROWS, said, {"rows": len(found.groups), "training_rows": len(found.groups)}))
    if isinstance(estimator.schema_, FeatureSchema):
        notes += note_constant(found.r2_variance, estimator.schema_.names)
    return notes
