r"""A fitted model and its data as arrays: effects of domains, mixing, reconstruction.

All numbers are of held-out rows if there are any, except the mixing, which is that of the training rows. Latents
have standard deviation 1 over the training rows, so effects are in units of a latent's own spread.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from unmix.audit.agreement import Agreement
from unmix.audit.input import LEAST_TRAINING_ROWS, Reconstruction, evenly, strata_of, stratify
from unmix.data.batches import Rows
from unmix.models.base import FittedModel

Floats = NDArray[np.float64]

_CHUNK = 8192
_MIXING_ROWS = 2048
_WIDE = 512
_BOOTSTRAPS = 200
_SHUFFLES = 50
_MOST_AUDITED = 20_000


@dataclass(frozen=True)
class DomainEffects:
    """How each domain moves each latent.

    Attributes
    ----------
    location, location_low, location_high : (n_domains, n_latents), mean of each latent with a 95 % bootstrap interval
    spread, spread_low, spread_high : (n_domains, n_latents), standard deviation likewise
    change, change_low, change_high : (n_latents,), share of a latent's variance that lies between domains
    change_shuffled : (n_latents,), 95th percentile of that share with the domain labels permuted
    """

    location: Floats
    location_low: Floats
    location_high: Floats
    spread: Floats
    spread_low: Floats
    spread_high: Floats
    change: Floats
    change_low: Floats
    change_high: Floats
    change_shuffled: Floats


@dataclass(frozen=True)
class Description(DomainEffects):
    """Arrays behind the report; every field is an array, so all of it can be saved beside the model.

    In addition to the fields of ``DomainEffects``:

    Attributes
    ----------
    latents, latents_std : (rows, n_latents), posterior mean and spread on the described rows
    groups : (rows,) int, domain of each row
    mixing, mixing_signed : (n_features, n_latents), mean of |∂x/∂z| and of ∂x/∂z over rows, both scale-free
    mixing_starts : (starts, n_features, n_latents), |∂x/∂z| of every start, its latents matched to the chosen one's
    strata, strata_group, strata_design : (rows,) int, (strata,) int and (strata, n_design), as in ``audit.subject``
    best : (1,) int, the chosen start
    location_starts_low, location_starts_high : (n_domains, n_latents), range of the mean over all starts, matched
    r2, r2_train : (n_features,), share of each feature's variance that encode-decode reproduces, on held-out and on
        training rows; NaN if the feature does not vary there
    r2_variance : (n_features,), variance of each feature on the held-out rows, in units of that in the fit
    posterior_width : (n_latents,), mean posterior standard deviation, in units of the latent's spread over rows
    agreement, agreement_latents : (starts, starts) and (starts, n_latents) of the chosen start with every other
    held_out : (1,) 1 if the described rows are held-out rows, 0 if there were too few to hold any out
    explained_variance : (n_latents,), share of the features' variance that each latent accounts for in ``train``
    audited_latents, audited_strata, audited_group, audited_design : as ``latents`` and ``strata``, of the rows that are
        audited by default (``with_training_rows``); empty in models saved by versions that did not keep them
    left_over : (n_design, n_features), differences between domains that the latents do not explain, on η; empty in such
        models and in those that ignore domains
    """

    latents: Floats
    latents_std: Floats
    groups: NDArray[np.int64]
    mixing: Floats
    mixing_signed: Floats
    mixing_starts: Floats
    strata: NDArray[np.int64]
    strata_group: NDArray[np.int64]
    strata_design: Floats
    best: NDArray[np.int64]
    location_starts_low: Floats
    location_starts_high: Floats
    r2: Floats
    r2_train: Floats
    r2_variance: Floats
    posterior_width: Floats
    agreement: Floats
    agreement_latents: Floats
    held_out: Floats
    explained_variance: Floats = field(default_factory=lambda: np.empty(0))
    audited_latents: Floats = field(default_factory=lambda: np.empty((0, 0)))
    audited_strata: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    audited_group: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    audited_design: Floats = field(default_factory=lambda: np.empty((0, 0)))
    left_over: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))

    def arrays(self) -> dict[str, NDArray[np.float64] | NDArray[np.int64] | NDArray[np.float32]]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def describe(
    candidates: Sequence[FittedModel],
    train: Rows,
    held_out: Rows,
    groups: NDArray[np.int64],
    latents: Floats,
    agreed: Agreement,
    best: int,
    n_domains: int,
    has_held_out: bool,
) -> Description:
    """All arrays of ``Description`` for the start ``best``; ``latents`` (starts, rows, n_latents) on ``held_out``."""
    model = candidates[best]
    means, stds = encode_rows(model, held_out)
    effects = domain_effects(means, groups, n_domains)
    matched = []
    for start, own in enumerate(latents):
        aligned = own[:, agreed.partners[best, start]] * agreed.signs[best, start]
        matched.append(_domain_means(aligned, groups, n_domains))
    absolute, signed = mean_jacobian(model, train)
    mixings = [
        absolute if start == best else mean_jacobian(own, train)[0][:, agreed.partners[best, start]]
        for start, own in enumerate(candidates)
    ]
    strata = stratify(held_out, groups)
    kept = explained(model, held_out)
    return Description(
        latents=means,
        latents_std=stds,
        groups=groups,
        mixing=absolute,
        mixing_signed=signed,
        mixing_starts=np.stack(mixings),
        strata=strata.labels,
        strata_group=strata.group,
        strata_design=strata.design,
        best=np.array([best]),
        **vars(effects),
        location_starts_low=np.min(matched, axis=0),
        location_starts_high=np.max(matched, axis=0),
        r2=kept.r2,
        r2_train=explained(model, train).r2,
        r2_variance=kept.variance,
        posterior_width=stds.mean(axis=0),
        agreement=agreed.pairs,
        agreement_latents=agreed.latents[best],
        held_out=np.array([float(has_held_out)]),
        explained_variance=explained_variance(model, train),
    )


def with_training_rows(
    found: Description,
    model: FittedModel,
    train: Rows,
    held_out: Rows,
    train_groups: NDArray[np.int64],
    held_out_groups: NDArray[np.int64],
) -> Description:
    """``found`` with the rows for an audit: those held out, and the training rows of strata that have many.

    An encoder fits its training rows slightly better than others. With 90 or more rows per stratum this does not affect
    means, scales and correlations within strata; of smaller strata only held-out rows are used.
    """
    place = evenly(len(train), _MOST_AUDITED)
    train = train.take(torch.from_numpy(place).to(train.x.device))
    design, values = (
        np.concatenate([getattr(rows, name).cpu().double().numpy() for rows in (train, held_out)])
        for name in ("design", "values")
    )
    strata = strata_of(design, values, np.concatenate([train_groups[place], held_out_groups]))
    labels, trained = strata.labels.copy(), np.arange(len(design)) < len(train)
    counts = np.bincount(labels[trained & (labels >= 0)], minlength=len(strata.group))
    few = np.append(counts < LEAST_TRAINING_ROWS, True)
    kept = ~(trained & few[labels])
    return replace(
        found,
        audited_latents=np.concatenate([mean_latents(model, train), found.latents])[kept],
        audited_strata=labels[kept],
        audited_group=strata.group,
        audited_design=strata.design,
    )


def _domain_means(latents: Floats, groups: NDArray[np.int64], n_domains: int) -> Floats:
    return np.stack(
        [
            latents[groups == domain].mean(axis=0) if (groups == domain).any() else np.full(latents.shape[1], np.nan)
            for domain in range(n_domains)
        ]
    )


def encode_rows(model: FittedModel, rows: Rows) -> tuple[Floats, Floats]:
    """Posterior means and standard deviations (rows, n_latents), in chunks."""
    means, stds = np.empty((2, len(rows), model.n_latents))
    done = 0
    with torch.no_grad():
        for chunk in chunks(rows):
            mean, std = model.encode(chunk.x, chunk.observed, chunk.design)
            place = slice(done, done := done + len(chunk))
            means[place], stds[place] = mean.cpu().numpy(), std.cpu().numpy()
    return means, stds


def mean_latents(model: FittedModel, rows: Rows) -> Floats:
    """Posterior means (rows, n_latents), in chunks."""
    means = np.empty((len(rows), model.n_latents))
    done = 0
    with torch.no_grad():
        for chunk in chunks(rows):
            place = slice(done, done := done + len(chunk))
            means[place] = model.mean(chunk.x, chunk.observed, chunk.design).cpu().numpy()
    return means


def chunks(rows: Rows, size: int = _CHUNK) -> Iterator[Rows]:
    """Up to ``size`` rows at a time; fewer if there are many features."""
    for place in blocks(len(rows), _n_features(rows), size):
        yield rows.take(place)


def blocks(n_rows: int, n_features: int, size: int = _CHUNK) -> Iterator[slice]:
    """The slices of rows in ``chunks``."""
    size = max(1, min(size, size * _WIDE // n_features))
    for begin in range(0, n_rows, size):
        yield slice(begin, begin + size)


def _n_features(rows: Rows) -> int:
    return max(1, rows.take(slice(0, 1)).x.shape[1])


def mean_jacobian(model: FittedModel, rows: Rows, n_rows: int = _MIXING_ROWS) -> tuple[Floats, Floats]:
    """Mean of |∂x/∂z| and of ∂x/∂z (n_features, n_latents) over evenly spaced rows, at the posterior means."""
    step = max(1, len(rows) // max(64, min(n_rows, n_rows * _WIDE // _n_features(rows))))
    size, absolute, signed = 0, 0.0, 0.0
    with torch.no_grad():
        for chunk in chunks(rows.take(slice(None, None, step)), 512):
            jacobian = model.jacobian(model.mean(chunk.x, chunk.observed, chunk.design)).cpu().double().numpy()
            size += len(jacobian)
            absolute, signed = absolute + np.abs(jacobian).sum(axis=0), signed + jacobian.sum(axis=0)
    return np.asarray(absolute) / size, np.asarray(signed) / size


def explained_variance(model: FittedModel, rows: Rows) -> Floats:
    """Share of the features' variance that each latent accounts for (n_latents,): mean of E (∂x̂/∂z)² var(z).

    In a linear model with orthogonal loadings that is PCA's ``explained_variance_ratio_``.
    """
    step = max(1, len(rows) // max(64, min(_MIXING_ROWS, _MIXING_ROWS * _WIDE // _n_features(rows))))
    size, squares = 0, 0.0
    with torch.no_grad():
        for chunk in chunks(rows.take(slice(None, None, step)), 512):
            z = model.mean(chunk.x, chunk.observed, chunk.design)
            z = z @ model.expansion
            slope = model.likelihood.slope(model.decode(z)).unsqueeze(-1)
            jacobian = (model.jacobian(z) @ model.expansion.T * slope).cpu().double().numpy()
            size += len(jacobian)
            squares = squares + (jacobian**2).sum(axis=0)
    result: Floats = np.asarray(squares).mean(axis=0) / size
    return result


def explained(model: FittedModel, rows: Rows) -> Reconstruction:
    """Share of each feature that encode-decode reproduces, without missing entries; ``rows`` in the units of the fit.

    The share is of the variance of continuous features, of the deviance of others.
    """
    likelihood = model.likelihood
    errors, squares, sums, counts = 0.0, 0.0, 0.0, 0.0
    # Values are centred at the first observed one, so a constant feature has a variance of exactly 0.
    first = rows.take(slice(0, 1)).x
    if rows.observed is not None:
        first = rows.x.gather(0, rows.observed.argmax(0, keepdim=True))
    origin = first.cpu().double().numpy()
    with torch.no_grad():
        for chunk in chunks(rows, _CHUNK // 8):
            output = model.reconstruct(model.mean(chunk.x, chunk.observed, chunk.design))
            output = likelihood.inputs(likelihood.mean(output, chunk.offset), chunk.offset)
            seen = torch.ones_like(chunk.x) if chunk.observed is None else chunk.observed
            for_numpy = [t.cpu().double().numpy() for t in (chunk.x, output, seen)]
            x, fit, weight = for_numpy
            x, fit = x - origin, fit - origin
            errors, squares = errors + (weight * (x - fit) ** 2).sum(0), squares + (weight * x**2).sum(0)
            sums, counts = sums + (weight * x).sum(0), counts + weight.sum(0)
    counts = np.maximum(counts, 1.0)
    variance = np.maximum(np.asarray(squares) / counts - (np.asarray(sums) / counts) ** 2, 0.0)
    varies = variance > 0
    r2 = np.where(varies, 1.0 - np.asarray(errors) / counts / np.where(varies, variance, 1.0), np.nan)
    with torch.no_grad():
        found = likelihood.deviance_explained(rows, _reconstructed(model, rows))
    if found is not None:
        deviance = found.numpy()
        r2 = np.where(np.isnan(deviance) | ~varies, r2, deviance)
    return Reconstruction(r2, variance)


def _reconstructed(model: FittedModel, rows: Rows) -> Iterator[tuple[Rows, torch.Tensor]]:
    for chunk in chunks(rows, _CHUNK // 8):
        yield chunk, model.reconstruct(model.mean(chunk.x, chunk.observed, chunk.design))


def domain_effects(latents: Floats, groups: NDArray[np.int64], n_domains: int, seed: int = 0) -> DomainEffects:
    """Means, spreads and shares of variance between domains, with bootstrap intervals within domains."""
    rng = np.random.default_rng(seed)
    location, spread, change = _effects(latents, groups, n_domains)
    draws = [
        _effects(latents[rows], groups[rows], n_domains)
        for rows in (_resample(groups, n_domains, rng) for _ in range(_BOOTSTRAPS))
    ]
    with warnings.catch_warnings():
        # A domain without held-out rows has no values.
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        intervals = [np.nanquantile(np.stack(values), [0.025, 0.975], axis=0) for values in zip(*draws, strict=True)]
    shuffled = [_effects(latents, rng.permutation(groups), n_domains)[2] for _ in range(_SHUFFLES)]
    return DomainEffects(
        location=location,
        location_low=intervals[0][0],
        location_high=intervals[0][1],
        spread=spread,
        spread_low=intervals[1][0],
        spread_high=intervals[1][1],
        change=change,
        change_low=intervals[2][0],
        change_high=intervals[2][1],
        change_shuffled=np.quantile(shuffled, 0.95, axis=0),
    )


def _effects(latents: Floats, groups: NDArray[np.int64], n_domains: int) -> tuple[Floats, Floats, Floats]:
    known = groups >= 0
    latents, groups = latents[known], groups[known]
    counts = np.bincount(groups, minlength=n_domains)[:, None].astype(float)
    indicator = np.zeros((n_domains, len(groups)))
    indicator[groups, np.arange(len(groups))] = 1.0
    safe = np.maximum(counts, 1.0)
    location = indicator @ latents / safe
    variance = np.maximum(indicator @ latents**2 / safe - location**2, 0.0)
    total = np.maximum(latents.var(axis=0), 1e-12)
    between = (counts * (location - latents.mean(axis=0)) ** 2).sum(axis=0) / max(len(groups), 1)
    empty = counts[:, 0] == 0
    location[empty], variance[empty] = np.nan, np.nan
    return location, np.sqrt(variance), between / total


def _resample(groups: NDArray[np.int64], n_domains: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows drawn with replacement inside each domain."""
    rows = [np.flatnonzero(groups == domain) for domain in range(n_domains)]
    return np.concatenate([own[rng.integers(len(own), size=len(own))] for own in rows if len(own)])
