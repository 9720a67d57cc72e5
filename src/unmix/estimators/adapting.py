"""A fitted ``LatentEstimator`` with further domains, from rows of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from unmix.audit.counterfactuals import CounterfactualCheck
from unmix.audit.describe import Description, encode_rows
from unmix.audit.input import stratify
from unmix.audit.notes import training_fingerprints
from unmix.data.batches import Rows
from unmix.data.columns import listed
from unmix.data.domains import DomainSchema
from unmix.data.images import of_images
from unmix.data.tables import as_table
from unmix.errors import DataError, DomainError
from unmix.estimators.novel_rows import warn_of_new_mixing
from unmix.fits.latent import LatentFit
from unmix.forms import DataLike, LabelsLike
from unmix.models.adapting import LearntEffects, domain_prior, learn_effects, moments, set_effects, widened
from unmix.models.base import FittedModel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST_ROWS = 10


def adapted(estimator: BaseEstimator, X: DataLike | None, domain: LabelsLike) -> BaseEstimator:
    """A copy of ``estimator`` that knows the domain, or domains, of the rows ``X``."""
    old: DomainSchema = estimator.domain_schema_
    if not estimator.uses_domains or domain_prior(estimator.model_) is None:
        raise DomainError(
            f"{type(estimator).__name__} has no prior of single domains, so there is nothing to adapt; its transform "
            "takes rows of any domain unless it needs y. Use CGVAE or IMSDA."
        )
    table = X if X is None or of_images(estimator.schema_) else as_table(X, estimator._layer())
    given = None if table is None else estimator._new_rows(table)
    n_rows = 1 if given is None else len(given)
    frame = _frame_of(old, table, domain, n_rows)
    schema, places = old.extended(frame)
    encoded = schema.encode(frame, n_rows)
    groups = schema.groups(frame, n_rows)
    new = np.setdiff1d(np.arange(schema.n_design), places)
    if not len(new) and schema.domains == old.domains and schema == old:
        raise DomainError(f"The model knows these domains: {listed(old.domains, 20)}. There is nothing to adapt to.")
    model = widened(estimator.model_, _fresh(estimator, schema), places)
    if model is None:
        raise DomainError(
            f"The encoder of {type(estimator).__name__} depends on the domain, so learning the prior is not enough. "
            "Use CGVAE or IMSDA, or fit again with rows of the new domain."
        )
    rows = None
    if given is not None:
        bare = given.to(torch.device("cpu"))
        own = Rows.build(np.zeros((n_rows, 0)), encoded, schema.sizes, False)
        rows = replace(bare, codes=own.codes, values=own.values, n_design=own.n_design)
    design = Rows.build(np.zeros((n_rows, 0)), encoded, schema.sizes, False).design
    learnt = None
    if len(new):
        _check_rows(schema, new, rows, design)
        assert rows is not None
        assert given is not None
        unknown = groups >= len(old.domains)
        labels = [schema.domains[group] for group in groups[unknown]]
        warn_of_new_mixing(estimator, given.take(torch.from_numpy(unknown).to(given.x.device)), labels)
        learnt = learn_effects(model, rows, new, _known_levels(old, schema, new))
        set_effects(model, new, learnt.effects)
    return _copied(
        estimator, model.to(estimator.model_.scale.device), schema, places, rows, design, groups, new, learnt
    )


def _frame_of(schema: DomainSchema, table: DataLike | None, domain: LabelsLike, n_rows: int) -> pd.DataFrame:
    """The domain columns of every row; a text that names a domain column of the table stands for that column."""
    names = [column.name for column in schema.columns]
    if table is not None and nw.dependencies.is_into_dataframe(table):
        frame = nw.from_native(table, eager_only=True)
        asked = [domain] if isinstance(domain, str) else domain if isinstance(domain, list) else []
        if asked and set(asked) <= set(names) and set(asked) <= set(frame.columns):
            domain = frame.select(names if set(asked) == set(names) else asked).to_pandas()
    if isinstance(domain, Mapping):
        lacking = [name for name in names if name not in domain]
        if lacking:
            raise DomainError(
                f"Domain columns {lacking} are missing; the model was fitted with {names}. Name them all."
            )
    return schema.rows_of(domain, n_rows)


def _fresh(estimator: BaseEstimator, schema: DomainSchema) -> FittedModel:
    """A model of the size that the domains of ``schema`` ask for."""
    model: FittedModel = estimator._untrained(
        estimator.schema_,
        schema,
        {"seed": estimator.seed_, "n_latents": estimator.n_latents_, **estimator.model_.inner.chosen},
    )
    return model


def _check_rows(schema: DomainSchema, new: Ints, rows: Rows | None, design: torch.Tensor) -> None:
    names = [f"{level!r} of {column.name!r}" for column in schema.categorical for level in column.levels]
    counts = design[:, new].sum(0).int().tolist() if rows is not None else [0] * len(new)
    few = [
        f"{names[place]} has {count}" for place, count in zip(new.tolist(), counts, strict=True) if count < LEAST_ROWS
    ]
    if few:
        raise DataError(
            f"A new level takes {LEAST_ROWS} rows or more to adapt to: {', '.join(few)}. Pass more rows; a new "
            "combination of known levels takes none."
        )


def _known_levels(old: DomainSchema, schema: DomainSchema, new: Ints) -> list[Ints]:
    """For every new design column those of the known levels of the same domain column."""
    known: dict[int, Ints] = {}
    begin = 0
    for before, now in zip(old.sizes, schema.sizes, strict=True):
        known |= dict.fromkeys(range(begin + before, begin + now), begin + np.arange(before))
        begin += now
    return [known[int(place)] for place in new]


def _copied(
    estimator: BaseEstimator,
    model: FittedModel,
    schema: DomainSchema,
    places: Ints,
    rows: Rows | None,
    design: torch.Tensor,
    groups: Ints,
    new: Ints,
    learnt: LearntEffects | None,
) -> BaseEstimator:
    fit: LatentFit = estimator.fit_
    old, first = fit.summary, len(fit.domains.domains)
    found = [moments(model, design[groups == group], new, learnt) for group in range(first, len(schema.domains))]
    carried, trained = old.counterfactuals, old.training_rows
    if rows is not None and len(new):
        trained = np.union1d(trained, training_fingerprints(rows, None))
    summary = replace(
        old,
        description=_described(old.description, model, rows, groups, places, schema.n_design, found),
        adapted=(*(old.adapted or ()), *schema.domains[first:]),
        counterfactuals=None if carried is None else _untested(carried, schema.domains),
        training_rows=trained,
    )
    result = copy.copy(estimator)
    result.fit_ = replace(fit, model=model, domains=schema, summary=summary)
    return result


def _described(
    old: Description,
    model: FittedModel,
    rows: Rows | None,
    groups: Ints,
    places: Ints,
    n_design: int,
    found: list[Floats],
) -> Description:
    """``old`` with the effects of new domains and with rows of them beside those that it describes."""
    words = ("location", "location_low", "location_high", "spread", "spread_low", "spread_high")
    n_latents = old.location.shape[1]
    added = np.stack(found) if found else np.empty((0, 6, n_latents))
    unknown = np.full((len(added), n_latents), np.nan)
    parts: dict[str, Any] = {word: np.concatenate([getattr(old, word), added[:, k]]) for k, word in enumerate(words)}
    if len(old.left_over):
        parts["left_over"] = np.zeros((n_design, old.left_over.shape[1]), np.float32)
        parts["left_over"][places] = old.left_over
    for name in ("location_starts_low", "location_starts_high"):
        parts[name] = np.concatenate([getattr(old, name), unknown])
    kinds = [("strata", "latents")] + ([("audited", "audited_latents")] if len(old.audited_latents) else [])
    labels = {"strata": ("strata", "strata_group", "strata_design")}
    labels["audited"] = ("audited_strata", "audited_group", "audited_design")
    own = None if rows is None else (*encode_rows(model, rows), stratify(rows, groups))
    for kind, latents in kinds:
        label, group, design = labels[kind]
        wide = np.zeros((len(getattr(old, group)), n_design))
        if getattr(old, design).shape[1]:
            wide[:, places] = getattr(old, design)
        parts[design] = wide
        if own is not None:
            means, _, strata = own
            number = np.where(strata.labels >= 0, strata.labels + len(wide), -1)
            parts[latents] = np.concatenate([getattr(old, latents), means])
            parts[label] = np.concatenate([getattr(old, label), number])
            parts[group] = np.concatenate([getattr(old, group), strata.group])
            parts[design] = np.concatenate([wide, strata.design])
    if own is not None:
        parts["latents_std"] = np.concatenate([old.latents_std, own[1]])
        parts["groups"] = np.concatenate([old.groups, groups])
    return replace(old, **parts)


def _untested(old: CounterfactualCheck, domains: tuple[str, ...]) -> CounterfactualCheck:
    """``old`` with new domains, of which no rows were compared."""
    more = len(domains) - len(old.domains)
    parts: dict[str, Any] = {}
    for name, value in old.arrays().items():
        empty = np.zeros(more, np.int64) if value.ndim == 1 else np.full((more, value.shape[1]), np.nan)
        parts[name] = np.concatenate([value, empty])
    return replace(old, domains=domains, **parts)
