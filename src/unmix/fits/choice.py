"""What happens to the starts after training: their frames, the choice of one, a table of what each reached."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

from unmix.audit.agreement import REPEATS, Agreement, agreement, choose_start, comparable
from unmix.audit.describe import Description, chunks, describe, mean_jacobian, mean_latents
from unmix.data.batches import Rows
from unmix.models.base import FittedModel, LatentModel
from unmix.train.fit import TrainingResult

_MOST_EXPANSION = 5.0
_LESS, _LOST = 0.005, 0.25
_DRAWS = 512

Shares = tuple[float, float, float]


@dataclass(frozen=True)
class Finished:
    """The start that is kept, its number, how far the starts agree, and the description of the fit.

    ``less_kept``: shares of the held-out variance that it and principal components keep, where it falls short of them.
    ``curved``: it loses less than a quarter of what they lose, even if it lost one standard error of the difference
    more, so that no linear model can stand in for it. ``disagreed``: where that is not so and starts must repeat, the
    mean over the latents of their median correlation in other starts (of those that count or of all that did not fail,
    whichever is higher), if it is below 0.95.
    """

    model: FittedModel
    best: int
    agreed: Agreement
    description: Description
    less_kept: tuple[float, float] | None
    curved: bool
    disagreed: float | None


def finish_starts(
    network: LatentModel,
    train: Rows,
    held_out: Rows,
    result: TrainingResult,
    groups: NDArray[np.int64],
    n_domains: int,
    has_held_out: bool,
    kept: int | None = None,
) -> Finished:
    """Fix the frame of every start, choose one (or take ``kept``), set its likelihood's parameters and describe it.

    ``groups`` are the domains of ``held_out``. Where ``network`` is ``compared``, starts that keep less than principal
    components, by more than 0.005 or, within one standard error, perhaps so, are not chosen, unless all do.
    """
    candidates = [FittedModel(network.single(start)) for start in range(network.n_starts)]
    for candidate in candidates:
        finish_start(candidate, train)
    latents = np.stack([mean_latents(candidate, held_out) for candidate in candidates])
    agreed = agreement(latents)
    seedless = [network.seedless(start) for start in range(network.n_starts)]
    less: list[tuple[float, float] | None] = [None] * network.n_starts
    shares: list[Shares] = []
    if network.compared and kept is None:
        lost = lost_by_linear(train, held_out, candidates[0].n_latents)
        shares = [shares_kept(candidate, held_out, lost) for candidate in candidates]
        less = [less_than_linear(own) for own in shares]
    barred = [failed or own is not None for failed, own in zip(result.failed, less, strict=True)]
    if all(barred):
        barred = result.failed
    best = choose_start(result.objective, barred, agreed, result.blocks, seedless) if kept is None else kept
    with torch.no_grad():
        candidates[best].likelihood.refit(_drawn(candidates[best], train))
    found = describe(candidates, train, held_out, groups, latents, agreed, best, n_domains, has_held_out)
    curved = bool(shares) and loses_little(shares[best])
    disagreed = None
    if network.must_repeat and shares and not curved:
        repeated = _repeated(found.agreement_latents, restarts_table(result, agreed, best), best)
        disagreed = repeated if repeated < REPEATS else None
    return Finished(candidates[best], best, agreed, found, less[best], curved, disagreed)


@torch.no_grad()
def finish_start(model: FittedModel, train: Rows) -> None:
    """Settle zeros; order latents by explained variance, centre and scale them, let the strongest feature rise."""
    latents = mean_latents(model, train)
    device = model.scale.device
    model.inner.settle(torch.from_numpy(latents.std(axis=0)).float().to(device)[None])
    center, scale = latents.mean(axis=0), np.maximum(latents.std(axis=0), 1e-6)
    absolute, signed = mean_jacobian(model, train)
    effect = ((absolute * _slope(model, center)[:, None] * scale) ** 2).sum(axis=0)
    model.set_frame(*map(torch.from_numpy, (center, scale, effect, absolute.T, signed.T)))
    if model.inner.shrinks:
        model.expansion.copy_(_expansion(model, train))


def lost_by_linear(train: Rows, held_out: Rows, n_latents: int) -> NDArray[np.float64]:
    """Squared errors (rows,) of ``held_out`` in the principal components of ``train``."""
    x = held_out.x.cpu().double().numpy()
    pca = PCA(min(n_latents, *train.x.shape), random_state=0).fit(train.x.cpu().double().numpy())
    lost: NDArray[np.float64] = ((x - pca.inverse_transform(pca.transform(x))) ** 2).sum(axis=1)
    return lost


@torch.no_grad()
def shares_kept(model: FittedModel, held_out: Rows, by_linear: NDArray[np.float64]) -> Shares:
    """Shares of the variance of ``held_out`` that the model and principal components keep, which lose ``by_linear``.

    The third number is the standard error of their difference, over the rows.
    """
    parts = []
    for chunk in chunks(held_out):
        back = model.reconstruct(model.mean(chunk.x, chunk.observed, chunk.design))
        parts.append((chunk.x - back).square().sum(1).cpu().double().numpy())
    lost, x = np.concatenate(parts), held_out.x.cpu().double().numpy()
    whole = float(((x - x.mean(axis=0)) ** 2).sum())
    own, linear = 1.0 - float(lost.sum()) / whole, 1.0 - float(by_linear.sum()) / whole
    error = float((lost - by_linear).std(ddof=1)) * math.sqrt(len(x)) / whole if len(x) > 1 else 0.0
    return own, linear, error


def less_than_linear(shares: Shares) -> tuple[float, float] | None:
    """The first two of ``shares_kept``, if the model keeps less by more than 0.005 or, within one error, may do so."""
    own, linear, error = shares
    return (own, linear) if own < linear - _LESS + error else None


def loses_little(shares: Shares) -> bool:
    """Whether the model loses less than a quarter of what components lose, even if it lost one standard error more.

    In tables with a few rows far out, the shares are mostly of these rows, and the error is large.
    """
    own, linear, error = shares
    return 1.0 - own + error < _LOST * (1.0 - linear)


@torch.no_grad()
def curvature(model: FittedModel) -> float:
    """Share of the squares of ∂η/∂z that varies with z, for z drawn from N(0, I); 0 of a linear mixing."""
    z = torch.randn(_DRAWS, model.n_latents, generator=torch.Generator().manual_seed(0)).to(model.scale)
    jacobian = model.jacobian(z)
    return float((jacobian - jacobian.mean(0)).square().sum() / jacobian.square().sum())


@torch.no_grad()
def _slope(model: FittedModel, center: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a unit of η makes of each input (n_features,), at the latents ``center``."""
    output = model.decode(torch.from_numpy(center).to(model.scale)[None])
    slope: NDArray[np.float64] = model.likelihood.slope(output)[0].cpu().double().numpy()
    return slope


def _drawn(model: FittedModel, rows: Rows) -> Iterator[tuple[Rows, Tensor]]:
    """Some rows at a time, with the output (batch, features) of a draw from q(z | x)."""
    generator = torch.Generator().manual_seed(0)
    for chunk in chunks(rows, 1024):
        noise = torch.randn(len(chunk), model.n_latents, generator=generator).to(chunk.x)
        z, _ = model.sample_posterior(chunk.x, chunk.observed, noise, chunk.design)
        yield chunk, model.decode(z)


def _expansion(model: FittedModel, rows: Rows) -> Tensor:
    """(C + S) C⁻¹, transposed, for C the covariance of the posterior means and S the mean posterior covariance.

    In no direction more than five times: what the data hardly see is not blown up.
    """
    outer = torch.zeros(model.n_latents, model.n_latents, dtype=torch.float64)
    size, within = 0, torch.zeros_like(outer)
    for chunk in chunks(rows):
        mean, factor = model.posterior(chunk.x, chunk.observed, chunk.design)
        mean, factor = mean.cpu().double(), factor.cpu().double()
        size += len(mean)
        outer, within = outer + mean.T @ mean, within + torch.einsum("bij,bkj->ik", factor, factor)
    values, vectors = torch.linalg.eigh(outer / size)
    root = vectors * values.clamp_min(1e-8).sqrt()
    # In units in which the means have covariance I, S is symmetric, and the expansion is 1 + its eigenvalues.
    inverse = vectors / values.clamp_min(1e-8).sqrt()
    left_open, axes = torch.linalg.eigh(inverse.T @ (within / size) @ inverse)
    factors = 1.0 + left_open.clamp(0.0, _MOST_EXPANSION - 1.0)
    return (inverse @ axes @ torch.diag(factors) @ axes.T @ root.T).float()


def latents_agreement(found: NDArray[np.float64], starts: pd.DataFrame, best: int) -> NDArray[np.float64]:
    """Median over the other ``starts`` that count of ``found`` (starts, n_latents), correlations with ``best``."""
    others = comparable(starts["held_out_objective"], difference_error(starts), best)
    return np.median(found[others], axis=0) if others.any() else np.full(found.shape[1], np.nan)


def _repeated(found: NDArray[np.float64], starts: pd.DataFrame, best: int) -> float:
    """Mean over the latents of ``latents_agreement``, or of the same with all starts that did not fail, if higher.

    A start that fits clearly worse and ends at the same latents speaks for them, one that ends elsewhere not against.
    """
    others = ~starts["failed"].to_numpy(dtype=bool) & (np.arange(len(starts)) != best)
    of_all = np.median(found[others], axis=0).mean() if others.any() else -np.inf
    return float(max(latents_agreement(found, starts, best).mean(), of_all))


def difference_error(starts: pd.DataFrame) -> NDArray[np.float64]:
    """That column of ``restarts_table``; NaN in fits from before it was kept."""
    known = "difference_error" in starts
    return starts["difference_error"].to_numpy(dtype=float) if known else np.full(len(starts), np.nan)


def restarts_table(result: TrainingResult, agreed: Agreement, best: int) -> pd.DataFrame:
    """One row per start: what it reached, and whether it was kept.

    ``difference_error``: standard error of the difference of ``held_out_objective`` from that of the kept start.
    """
    rows, error = [], np.full(len(result.objective), np.nan)
    if len(result.blocks) > 1:
        error = (result.blocks - result.blocks[:, [best]]).std(axis=0, ddof=1) / np.sqrt(len(result.blocks))
    for start, objective in enumerate(result.objective):
        terms = {f"held_out_{name}": value for name, value in result.terms[start].items()}
        rows.append(
            {
                "start": start,
                "held_out_objective": objective,
                "difference_error": float(error[start]),
                **terms,
                "agreement": agreed.of_start(start),
                "best_epoch": result.best_epoch[start],
                "failed": result.failed[start],
                "kept": start == best,
            }
        )
    return pd.DataFrame(rows)
