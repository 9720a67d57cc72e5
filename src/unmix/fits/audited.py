"""The audit of a fit, and what has to be said of the rows that it is given."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from unmix.audit.describe import encode_rows, explained
from unmix.audit.finding import listed
from unmix.audit.input import LEAST_ROWS, Reconstruction, evenly, stratify
from unmix.audit.notes import (
    FEW_HELD_OUT,
    TRAINING_ROWS,
    Note,
    note_constant,
    note_training,
    note_unlike,
    note_without_domain,
)
from unmix.audit.residuals import AUDITED_SHARE, residual_dependence
from unmix.audit.result import Audit
from unmix.audit.sources import N_POINTS, audit_latents, audit_model
from unmix.data.batches import Rows
from unmix.data.schema import FeatureSchema
from unmix.errors import DomainError
from unmix.fits.adversarial import GANFit
from unmix.fits.choice import difference_error
from unmix.fits.fit import AnyFit
from unmix.fits.latent import LatentFit
from unmix.numbers import counted


@dataclass(frozen=True)
class NewRows:
    """Rows that an audit is given: the domain of each, what the model keeps of them, and what is to be said of them."""

    rows: Rows
    groups: NDArray[np.int64]
    kept: Reconstruction
    notes: tuple[Note, ...]


def audit_fit(fit: LatentFit, new: NewRows | None = None) -> Audit:
    """The audit on new rows, or on those of the fit."""
    rows, residual = None, fit.summary.residual_audited
    if new is not None:
        means, widths = encode_rows(fit.model, new.rows)
        strata = stratify(new.rows, new.groups)
        rows = means, widths, strata, new.kept
        if residual is not None:
            (residual,) = residual_dependence(
                fit.model, new.rows, strata.labels, fit.schema.names, least_shares=[AUDITED_SHARE]
            )
    found = audit_model(
        fit.model,
        fit.summary.description,
        domains=fit.domains.domains,
        names=fit.latent_names,
        feature_names=fit.schema.names,
        objective=fit.starts["held_out_objective"],
        objective_error=difference_error(fit.starts),
        rows=rows,
        residual=residual,
        simplified=fit.summary.simplified,
    )
    return replace(found, notes=_notes_of(fit) if new is None else new.notes)


def audit_generator(fit: GANFit, rows: Rows, groups: NDArray[np.int64]) -> Audit:
    """The audit of an adversarial model on rows, ``groups`` the domain of each."""
    _need_known(fit, groups)
    z, strata, names = fit.model.read(rows), stratify(rows, groups), fit.domains.domains
    points = evenly(len(z), N_POINTS)
    with torch.no_grad():
        slopes = fit.model.jacobian(z[points], rows.design[points])
    x, latents, made = (own.cpu().double().numpy() for own in (rows.x, z, fit.model.generated(z, rows.design)))
    return audit_latents(
        latents,
        made,
        slopes.cpu().double().numpy(),
        strata=strata.labels,
        domains=strata.names(names),
        absent=[name for group, name in enumerate(names) if group not in strata.group],
        names=fit.latent_names,
        feature_names=fit.schema.names,
        x=x,
    )


def new_rows(fit: LatentFit, rows: Rows, groups: NDArray[np.int64]) -> NewRows:
    """New rows, ``groups`` the domain of each, and what is to be said of them."""
    _need_known(fit, groups)
    notes = note_training(rows, fit.summary.training_rows) + note_without_domain(groups)
    kept, found = explained(fit.model, rows), fit.summary.description
    if isinstance(fit.schema, FeatureSchema):
        notes += note_unlike(rows, fit.schema.names, kept, Reconstruction(found.r2, found.r2_variance))
        notes += note_constant(kept.variance, fit.schema.names)
    return NewRows(rows, groups, kept, tuple(notes))


def _need_known(fit: AnyFit, groups: NDArray[np.int64]) -> None:
    if (groups < 0).all():
        raise DomainError(
            "No row is of a combination of domain levels that was there at fit. Known: "
            f"{listed(list(fit.domains.domains), 20)}. Pass rows of these, or use adapt for the new ones."
        )


def _notes_of(fit: LatentFit) -> tuple[Note, ...]:
    """What is to be said of the rows that the fit was described on."""
    found, notes = fit.summary.description, []
    if not found.held_out[0]:
        said = "No rows were held out: the audited ones are those that the fit was trained on, which flatters it."
        notes.append(Note(TRAINING_ROWS, said, {"rows": len(found.groups), "training_rows": len(found.groups)}))
    audited = len(found.audited_latents) or len(found.groups)
    if audited < LEAST_ROWS:
        said = (
            f"Only {counted(audited, 'row')} of the fit can be audited: those held out, as no domain has enough "
            "training rows. For a first look pass the rows of the fit, which flatters it, or else new ones: "
            "audit(X, y); command line: unmix audit RUN TABLE."
        )
        notes.append(Note(FEW_HELD_OUT, said, {"rows": audited, "rows_needed": LEAST_ROWS}))
    if isinstance(fit.schema, FeatureSchema):
        notes += note_constant(found.r2_variance, fit.schema.names)
    return tuple(notes)
