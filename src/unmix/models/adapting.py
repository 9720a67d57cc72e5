r"""A fitted model that knows further domains: the effects of new levels are learnt, and nothing else.

The design matrix of u gets a column for each new level and the prior a row of effects e for it. All else, encoder,
decoder, noise and the effects of known levels, is copied. From rows x of the new domains

.. math:: \hat e = \arg\max_e \sum_n E_{q(z \mid x_n)} \log p(z \mid u_n; e) - \tfrac12 \sum_j (e_j - m_j)^2 / t_j^2

which is the evidence lower bound, of which this is the only part that depends on e, with an empirical-Bayes prior:
:math:`m_j` and :math:`t_j^2` are mean and variance of the effects of the known levels of that column on the same
parameter, so that few rows leave a new domain near the mean domain, and near it most where domains differ least. The
variance is taken together with that of the other latents, as two more levels would count, since levels are few; and
times :math:`1 + 1/L` for L levels, of which the mean is known only so well. Intervals are Laplace's: normal draws of e
with the inverse of the objective's curvature as covariance.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor

from unmix.data.batches import Rows
from unmix.distributions.prior import DomainPrior
from unmix.models.base import FittedModel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_DRAWS, _ENOUGH = 16, 2_000
_SHARED_LEVELS = 2.0
_LEAST_SPREAD = 0.1
_STEPS = 200
SAMPLES = 400
_GRID = 201


@dataclass(frozen=True)
class LearntEffects:
    """Effects (levels, n_parameters) of new levels, and their covariance, rows of all levels after each other."""

    effects: Tensor
    covariance: Tensor


def domain_prior(model: FittedModel) -> DomainPrior | None:
    """The part of a model that holds the effects of domains; None where there is none."""
    found = [module for module in model.inner.modules() if isinstance(module, DomainPrior)]
    return found[0] if len(found) == 1 else None


def widened(model: FittedModel, fresh: FittedModel, places: Ints) -> FittedModel | None:
    """``fresh``, a model of more levels, with the state of ``model``; ``places`` of the known ones in its design.

    Effects of new levels are 0, those on dispersions too: the mean over the known levels. None if the encoder or the
    decoder depends on the levels.
    """
    state, wide = model.state_dict(), fresh.state_dict()
    index = torch.from_numpy(places)
    for name, value in state.items():
        if wide[name].shape == value.shape:
            wide[name] = value
        elif name.endswith((".effects", ".inner")) and wide[name].ndim == 3:
            wide[name] = torch.zeros_like(wide[name]).index_copy(1, index, value.cpu())
        else:
            return None
    fresh.load_state_dict(wide)
    return fresh


def learn_effects(model: FittedModel, rows: Rows, new: Ints, known: list[Ints], seed: int = 0) -> LearntEffects:
    """Effects of the design columns ``new`` from ``rows`` of new domains; ``known`` are the other levels of each.

    ``model`` is that of ``widened``; it is not changed.
    """
    model = copy.deepcopy(model).cpu().double()
    prior = domain_prior(model)
    if prior is None:
        raise TypeError("the model has no prior that depends on domains")
    places = torch.from_numpy(new)
    old = prior.effects.detach().clone()
    mean, spread = zip(*(_of_levels(old[0, torch.from_numpy(own)], prior.n_latents) for own in known), strict=True)
    center, width = torch.stack(mean), torch.stack(spread)
    z, design = _draws(model, rows, seed)
    share = len(rows) / len(z)
    # Any tensor may stand where the parameter was.
    del prior.effects

    def objective(effects: Tensor) -> Tensor:
        prior.effects = old.index_copy(1, places, effects[None])  # type: ignore[assignment]
        inside = model.prior(design).log_prob(z).sum() * share
        return 0.5 * ((effects - center) / width).square().sum() - inside

    effects = center.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([effects], max_iter=_STEPS, tolerance_grad=1e-8, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = objective(effects)
        loss.backward()
        return loss

    optimiser.step(closure)
    found = effects.detach()
    n = found.numel()
    curvature: Tensor = torch.autograd.functional.hessian(objective, found).reshape(n, n)
    values, vectors = torch.linalg.eigh(0.5 * (curvature + curvature.T))
    # A prior of its own makes the curvature at least that of the broadest effect.
    covariance = (vectors / values.clamp_min(float(width.max()) ** -2)) @ vectors.T
    return LearntEffects(found, covariance)


def set_effects(model: FittedModel, new: Ints, effects: Tensor) -> None:
    """Give ``model`` the effects (levels, n_parameters) of the design columns ``new``."""
    prior = domain_prior(model)
    if prior is not None and len(new):
        with torch.no_grad():
            prior.effects[0, torch.from_numpy(new).to(prior.effects.device)] = effects.to(prior.effects)


def moments(model: FittedModel, design: Tensor, new: Ints, learnt: LearntEffects | None) -> Floats:
    """Mean and spread of every latent in the domain of ``design`` (rows, n_design), each with a 95 % interval.

    (6, n_latents): mean, lower and upper end, spread, lower and upper end. The ends are NaN where nothing was learnt.
    Where rows of the domain differ in their design it is their mixture.
    """
    noise = norm.ppf((np.arange(_GRID) + 0.5) / _GRID)
    noise = torch.from_numpy(noise / noise.std())[:, None].expand(-1, model.n_latents)
    model = copy.deepcopy(model).cpu().double()
    own, counts = torch.unique(design.cpu().double(), dim=0, return_counts=True)
    if len(own) > 20:
        own, counts = own[:: len(own) // 20], counts[:: len(own) // 20]
    weights = (counts / counts.sum())[:, None]

    def of(effects: Tensor | None) -> Tensor:
        if effects is not None:
            set_effects(model, new, effects)
        z = torch.stack([model.prior(row.expand(_GRID, -1)).from_noise(noise) for row in own])
        means, squares = z.mean(1), z.square().mean(1)
        mean = (weights * means).sum(0)
        return torch.stack([mean, ((weights * squares).sum(0) - mean.square()).clamp_min(0).sqrt()])

    with torch.no_grad():
        best = of(None if learnt is None else learnt.effects)
        if learnt is None:
            low = high = torch.full_like(best, torch.nan)
        else:
            source = torch.Generator().manual_seed(0)
            factor = torch.linalg.cholesky(learnt.covariance + 1e-12 * torch.eye(len(learnt.covariance)))
            steps = torch.randn(SAMPLES, len(factor), generator=source, dtype=torch.float64) @ factor.T
            drawn = torch.stack([of(learnt.effects + step.reshape(learnt.effects.shape)) for step in steps])
            low, high = drawn.quantile(0.025, dim=0), drawn.quantile(0.975, dim=0)
    return torch.stack([best[0], low[0], high[0], best[1], low[1], high[1]]).numpy()


def _of_levels(effects: Tensor, n_latents: int) -> tuple[Tensor, Tensor]:
    """Mean and spread (n_parameters,) of the effects (levels, n_parameters) of a column's known levels."""
    levels = len(effects)
    if levels < 2:
        return effects.mean(0), torch.ones_like(effects[0])
    variance = effects.var(0).unflatten(0, (-1, n_latents))
    common = variance.mean(1, keepdim=True).clamp_min(_LEAST_SPREAD**2)
    shared = ((levels - 1) * variance + _SHARED_LEVELS * common) / (levels - 1 + _SHARED_LEVELS)
    return effects.mean(0), (shared.flatten() * (1.0 + 1.0 / levels)).sqrt()


@torch.no_grad()
def _draws(model: FittedModel, rows: Rows, seed: int) -> tuple[Tensor, Tensor]:
    """Draws of q(z | x), several of each row where rows are few, and their designs."""
    source = torch.Generator().manual_seed(seed)
    n_draws = int(np.clip(_ENOUGH // len(rows), 2, _MOST_DRAWS))
    x, design = rows.x.cpu().double(), rows.design.cpu().double()
    observed = None if rows.observed is None else rows.observed.cpu().double()
    mean, factor = model.posterior(x, observed, design)
    noise = torch.randn((n_draws + 1) // 2, *mean.shape, generator=source, dtype=torch.float64)
    noise = torch.cat([noise, -noise])[:n_draws]
    z = mean + torch.einsum("bij,sbj->sbi", factor, noise)
    return z.flatten(0, 1), design.repeat(n_draws, 1)
