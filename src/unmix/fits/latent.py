"""What a fit of a model with a posterior says of its rows, and what its folder holds of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmix.audit.counterfactuals import CounterfactualCheck, check_counterfactuals
from unmix.audit.describe import Description, with_training_rows
from unmix.audit.finding import floored
from unmix.audit.input import LEAST_SHARED, ResidualDependence, stratify
from unmix.audit.left_over import left_over
from unmix.audit.notes import training_fingerprints
from unmix.audit.novelty import HeldOutResiduals, held_out_residuals
from unmix.audit.residuals import AUDITED_SHARE, residual_dependence
from unmix.audit.sparsity import SUPPORT_THRESHOLD
from unmix.data.batches import Rows
from unmix.data.domains import DomainSchema
from unmix.data.images import ImageSchema
from unmix.data.schema import FeatureSchema
from unmix.data.tables import write_table
from unmix.fits.choice import Finished, finish_starts, latents_agreement, restarts_table
from unmix.fits.fit import Fit, Kind, Parts, Saved, Summary
from unmix.fits.storage import SELECTION
from unmix.models.base import FittedModel, LatentModel
from unmix.train.fit import TrainingResult, rescored

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LINEAR_MODEL = "the linear model (principal components, rotated to few large entries of the mixing)"
_FILES = """model.safetensors  the kept start's parameters, and the arrays behind the report
history.jsonl      held-out objective and its terms, one line per epoch and start
restarts.csv       one line per start
mixing.csv         features x latents: |dx/dz|, in {unit}
effects.csv        how each domain moves each latent, with 95 % intervals"""
_OF_SELECTION = "\nselection.csv      one line for each number of latents that was tried"


@dataclass(frozen=True, eq=False)
class LatentSummary(Summary):
    """What was found on the rows of a fit, mostly on those held out.

    Attributes
    ----------
    description : Description, the arrays behind the report
    training_rows : (rows,) int, hashes by which the rows of the training are known again
    agreement : float, mean over all pairs of starts
    stop_reason, n_epochs : why and when the training ended
    sizes : numbers of rows, "n_train" and "n_held_out"
    counterfactuals : CounterfactualCheck, or None where the domains are ignored or no row was held out, and of images
    residual, residual_audited : ResidualDependence as the fit and as the audit takes it, or None where not asked
    simplified : whether the model is a linear one because features depend on each other, given the latents
    less_kept : shares of the held-out variance that networks and principal components keep, where the model is a linear
        one because the former is less, or perhaps so within one standard error
    disagreed : mean over the latents of their median correlation in other starts, where the model is a linear one
        because it is low
    selection : DataFrame, one row for each number of latents that was tried, or None
    residuals : HeldOutResiduals, by which new rows are told from those of the fit; None where no row was held out
    adapted : names of the domains that were added to those of the fit, or None where it was not adapted
    """

    description: Description
    training_rows: Ints
    agreement: float
    stop_reason: str
    n_epochs: int
    sizes: dict[str, int]
    counterfactuals: CounterfactualCheck | None = None
    residual: ResidualDependence | None = None
    residual_audited: ResidualDependence | None = None
    simplified: bool = False
    less_kept: tuple[float, float] | None = None
    disagreed: float | None = None
    selection: pd.DataFrame | None = None
    residuals: HeldOutResiduals | None = None
    adapted: tuple[str, ...] | None = None

    @property
    def mixing(self) -> Floats:
        return self.description.mixing

    @property
    def linear(self) -> bool:
        """Whether the kept start was replaced by a linear model."""
        return self.why_linear is not None

    @property
    def why_linear(self) -> str | None:
        """Why a linear model took the place of the kept start, in words; None where none did."""
        if self.simplified:
            return "some features still depend on each other, given the latents"
        if self.less_kept is not None:
            own, linear = self.less_kept
            keep = "the networks keep" if own < linear else "within one standard error, the networks may keep"
            return (
                f"{keep} less of the held-out variance ({own:.3f}) than as many principal components ({linear:.3f}), "
                "perhaps for lack of rows"
            )
        if self.disagreed is not None:
            alike = floored(self.disagreed)
            return f"networks that begin elsewhere find other latents (correlation {alike}), perhaps for lack of rows"
        return None

    @property
    def support(self) -> NDArray[np.bool_]:
        """Entries of the mixing that count, (n_features, n_latents)."""
        return np.asarray(self.mixing >= SUPPORT_THRESHOLD)

    @property
    def explained_variance_ratio(self) -> Floats:
        """(n_latents,); NaN in models from before it was kept."""
        shares = self.description.explained_variance
        return shares if len(shares) else np.full(self.mixing.shape[1], np.nan)

    def latents_agreement(self, starts: pd.DataFrame, best: int) -> Floats:
        """Median correlation of each latent (n_latents,) with its partner in the other starts that count."""
        return latents_agreement(self.description.agreement_latents, starts, best)

    def effects_frame(self, domains: Sequence[str], latents: Sequence[str]) -> pd.DataFrame:
        """How each domain moves each latent, one row per pair, with 95 % intervals; in units of the latent's spread."""
        found = self.description
        index = pd.MultiIndex.from_product([domains, latents], names=["domain", "latent"])
        names = [name for name in found.arrays() if name.startswith(("location", "spread"))]
        return pd.DataFrame({name: getattr(found, name).ravel() for name in names}, index=index).reset_index()

    def write(self, fit: Fit[Any, Any], folder: Path) -> Parts:
        for name, table in tables(fit).items():
            write_table(table, folder / f"{name}.csv")
        scalars = {
            "agreement": self.agreement,
            "stop_reason": self.stop_reason,
            "n_epochs": self.n_epochs,
            "sizes": self.sizes,
            "n_latents": fit.model.n_latents,
            **fit.model.inner.chosen,
        }
        if self.residual is not None and self.residual_audited is not None:
            scalars["residual_dependence"] = self.residual.to_dict()
            scalars["residual_audited"] = self.residual_audited.to_dict()
        if self.simplified:
            scalars["simplified"] = True
        if self.less_kept is not None:
            scalars["less_kept"] = list(self.less_kept)
        if self.disagreed is not None:
            scalars["disagreed"] = self.disagreed
        if self.adapted is not None:
            scalars["adapted"] = list(self.adapted)
        if self.selection is not None:
            write_table(self.selection, folder / SELECTION)
        arrays: dict[str, NDArray[Any]] = {
            f"description/{key}": value for key, value in self.description.arrays().items()
        }
        arrays["training_rows"] = self.training_rows
        if self.residuals is not None:
            arrays |= {f"residuals/{key}": value for key, value in self.residuals.arrays().items()}
        if self.counterfactuals is not None:
            arrays |= {f"counterfactuals/{key}": value for key, value in self.counterfactuals.arrays().items()}
        chosen = "" if self.selection is None else _OF_SELECTION
        return Parts(arrays, scalars, _FILES.format(unit=fit.model.likelihood.unit) + chosen)

    @classmethod
    def read(cls, saved: Saved) -> tuple[Self, pd.DataFrame, int]:
        fitted, arrays = saved.scalars, _under("description/", saved.arrays)
        carried, folder = _under("counterfactuals/", saved.arrays), saved.folder
        left = _under("residuals/", saved.arrays)
        # Folders of old have no variances, and an R² without a lower limit where there was next to none.
        arrays.setdefault("r2_variance", (arrays["r2"] > -1).astype(float))
        residual = fitted.get("residual_dependence")
        # Folders from before the audit took its own have the fit's alone.
        audited = fitted.get("residual_audited", residual)
        found = cls(
            description=Description(**arrays),
            training_rows=saved.arrays.get("training_rows", np.empty(0, dtype=np.int64)),
            agreement=float("nan") if fitted["agreement"] is None else fitted["agreement"],
            stop_reason=fitted["stop_reason"],
            n_epochs=fitted["n_epochs"],
            sizes=fitted["sizes"],
            counterfactuals=CounterfactualCheck(saved.domains, saved.features, **carried) if carried else None,
            residual=None if residual is None else ResidualDependence.from_dict(residual),
            residual_audited=None if audited is None else ResidualDependence.from_dict(audited),
            selection=pd.read_csv(folder / SELECTION) if (folder / SELECTION).exists() else None,
            residuals=HeldOutResiduals(**left) if left else None,
            simplified=fitted.get("simplified", False),
            less_kept=tuple(fitted["less_kept"]) if "less_kept" in fitted else None,
            disagreed=fitted.get("disagreed"),
            adapted=tuple(fitted["adapted"]) if "adapted" in fitted else None,
        )
        return found, pd.read_csv(folder / "restarts.csv"), fitted["best_restart"]


LatentFit = Fit[FittedModel, LatentSummary]


def finish_fit(
    kind: type[Kind],
    parameters: Mapping[str, Any],
    network: LatentModel,
    result: TrainingResult,
    *,
    schema: FeatureSchema | ImageSchema,
    domains: DomainSchema,
    rows: Rows,
    train: Rows,
    held_out: Rows | None,
    groups: tuple[Ints, Ints],
    residuals: bool,
) -> LatentFit:
    """The fit of a trained ``network``; ``groups`` are the domains of ``train`` and of ``held_out``.

    With ``residuals`` the features that still depend on each other are looked for. If the data are not curved and the
    ``network`` doubts its number of latents or its starts find different ones, or if it keeps less variance than
    principal components, the kept start is replaced by a linear model (``LatentModel.simplify``). That of ``train``
    says what it keeps of held-out rows; the model itself is then that of all ``rows``, since nothing was stopped or
    chosen on those held out.
    """
    described, own_groups = (train, groups[0]) if held_out is None else (held_out, groups[1])
    n_domains, strata = len(domains.domains), stratify(train, groups[0])

    def finished(kept: int | None = None) -> tuple[Finished, ResidualDependence | None, ResidualDependence | None]:
        found = finish_starts(network, train, described, result, own_groups, n_domains, held_out is not None, kept)
        if not residuals:
            return found, None, None
        shares = LEAST_SHARED, AUDITED_SHARE
        fitted, audited = residual_dependence(found.model, train, strata.labels, schema.names, least_shares=shares)
        return found, fitted, audited

    found, residual, audited = finished()
    simplified = network.doubted and not found.curved
    less = None if simplified else found.less_kept
    disagreed = None if simplified or less is not None else found.disagreed
    linear = simplified or less is not None or disagreed is not None
    if linear:
        network.simplify(found.best, train)
        result = rescored(result, network, found.best, len(train), described, parameters["random_state"])
        found, residual, audited = finished(found.best)
    description, model, measured = found.description, found.model, found.model
    if linear and held_out is not None:
        network.simplify(found.best, rows)
        found, residual, audited = finished(found.best)
        description = replace(found.description, r2=description.r2, r2_variance=description.r2_variance)
        model = found.model
    carried = None
    if kind.uses_domains and isinstance(schema, FeatureSchema):
        description = replace(description, left_over=left_over(model, train, strata))
    if held_out is not None:
        description = with_training_rows(description, model, train, held_out, *groups)
        if kind.uses_domains and isinstance(schema, FeatureSchema):
            carried = check_counterfactuals(measured, held_out, groups[1], domains.domains, schema.names)
    summary = LatentSummary(
        description=description,
        training_rows=training_fingerprints(train, held_out),
        agreement=found.agreed.mean,
        stop_reason=result.stop_reason,
        n_epochs=result.n_epochs,
        sizes={"n_train": len(train), "n_held_out": 0 if held_out is None else len(held_out)},
        counterfactuals=carried,
        residual=residual,
        residual_audited=audited,
        simplified=simplified,
        less_kept=less,
        disagreed=disagreed,
        residuals=None if held_out is None else held_out_residuals(measured, held_out),
    )
    return Fit(
        kind=kind,
        parameters=parameters,
        model=model,
        schema=schema,
        domains=domains,
        history=pd.DataFrame(result.history).astype({"epoch": int, "start": int}),
        starts=restarts_table(result, found.agreed, found.best),
        best=found.best,
        summary=summary,
        seed=parameters["random_state"],
        seconds=result.seconds,
    )


def tables(fit: LatentFit) -> dict[str, pd.DataFrame]:
    """The tables of a fit that stand in its folder and on its page."""
    return {
        "restarts": fit.starts,
        "mixing": fit.mixing_frame().rename_axis("feature").reset_index(),
        "effects": fit.summary.effects_frame(fit.domains.domains, fit.latent_names),
    }


def kept_as_begun(fit: LatentFit) -> bool:
    """Whether no epoch of training lowered the held-out objective of the kept start."""
    begun = fit.summary.n_epochs > 0 and int(fit.starts["best_epoch"][fit.best]) == 0
    return begun and not fit.summary.linear


def _under(part: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {key.removeprefix(part): value for key, value in arrays.items() if key.startswith(part)}
