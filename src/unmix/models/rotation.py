"""Apply a linear map to the latents of a trained network without changing its reconstruction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unmix.data.batches import Rows
from unmix.nets.jacobian import rows_at_once
from unmix.objectives.rotation import CANDIDATES, COUNT, Moments, Penalty, best_map
from unmix.objectives.shapes import shape_rotation

_LEAST_ROWS = 20
_LEAST_JACOBIANS, _MOST_JACOBIANS = 32, 256
# Derivatives of all candidates: the search takes as long as they are many.
NUMBERS = 2**20
_PARTS = 4
_SCATTER_STEPS, _LEAST_VARIANCE = 30, 1e-9


@torch.no_grad()
def rotate_latents(
    model: Any,
    rows: Rows,
    alive: Tensor,
    cost: float,
    seed: int,
    *,
    linear: Sequence[int] | None = None,
    penalty: Penalty = COUNT,
    largest_part: float = math.inf,
) -> None:
    """Turn the latents that are ``alive`` (starts, latents) in every start that gains by it.

    The decoder's first layer and the mean of q(z | x) become exactly those of ``z' = B z``; the covariance of q and
    the prior's parameters are fitted to it. ``cost``: nats per row for an entry of the mixing, weighed by the
    ``penalty``. ``linear``: only these starts, whose decoders are linear and whose priors are not yet set.
    ``largest_part``: about the largest part that one row has in the covariances, of its domain and of all rows, by
    which latents are turned.
    """
    latents = _Latents(model, rows)
    for start in range(model.n_starts) if linear is None else linear:
        kept = torch.nonzero(alive[start]).flatten()
        mean, factor = latents.of(start)
        within, shares = latents.within(start, kept), latents.counts.cpu().double() / latents.counts.sum().cpu()
        total = _covariance(mean, factor, kept)
        jacobian = _jacobian(model, start, mean if linear is None else mean[:1], kept, seed)
        moments = Moments(within, shares, total, jacobian)
        if largest_part < 1:
            parts = [_scatter(mean[own > 0], factor[own > 0], kept, largest_part) for own in latents.membership]
            moments = Moments(torch.stack(parts), shares, _scatter(mean, factor, kept, largest_part), jacobian)
        found = best_map(moments, cost * model.config.n_features / jacobian.shape[2], seed, penalty)
        if found is not None or linear is not None:
            latents.turn(start, kept, found, within)


@torch.no_grad()
def fit_priors(model: Any, rows: Rows) -> None:
    """Give the prior of every start the moments of its latents in the domains."""
    latents = _Latents(model, rows)
    for start in range(model.n_starts):
        kept = torch.arange(model.n_latents, device=rows.x.device)
        latents.turn(start, kept, None, latents.within(start, kept))


@torch.no_grad()
def rotate_by_shape(model: Any, rows: Rows, alive: Tensor, seed: int) -> None:
    """Rotate latents that the domains leave free in the starts where they are less Gaussian then (``shape_rotation``).

    Decoder and posterior become those of ``z' = B z`` as in ``rotate_latents``.
    """
    latents = _Latents(model, rows)
    member = (latents.membership.T > 0).cpu().double().numpy()
    known = member.any(axis=1)
    for start in range(model.n_starts):
        kept = torch.nonzero(alive[start]).flatten()
        mean = latents.of(start)[0][:, kept].cpu().double().numpy()
        found = shape_rotation(mean[known], member[known], seed)
        if found is not None:
            latents.turn(start, kept, torch.from_numpy(found), latents.within(start, kept))


class _Latents:
    """Latents of some rows in every start, by groups of like domains, and the maps that are applied to them."""

    def __init__(self, model: Any, rows: Rows) -> None:
        posterior = model.encode(rows.x, rows.observed)
        self.model, self.mean, self.factors = model, posterior.mean, posterior.factor
        self.below = model.encoder.below_last(rows.x, rows.observed)
        self.membership, self.design, self.counts = strata(rows)

    def of(self, start: int) -> tuple[Tensor, Tensor]:
        """Posterior means (rows, latents), and the Cholesky factors of the covariances."""
        return self.mean[start], self.factors[start]

    def within(self, start: int, kept: Tensor) -> Tensor:
        """Covariances (groups, kept latents, kept latents)."""
        mean, factor = self.of(start)
        return torch.stack([_covariance(mean[own > 0], factor[own > 0], kept) for own in self.membership])

    def turn(self, start: int, kept: Tensor, found: Tensor | None, within: Tensor) -> None:
        """Apply the map ``found`` of the ``kept`` latents, if any, and set the prior's moments."""
        model, averages = self.model, self.membership @ self.mean[start]
        turn = torch.eye(model.n_latents, device=averages.device)
        if found is not None:
            turn[kept[:, None], kept] = found.to(turn)
            model.encoder.turn(start, turn, self.below[start], self.factors[start])
            decoder = dict(model.decoder.named_parameters())
            for name in model.decoder.latent_entries(kept):
                decoder[name][start] = torch.linalg.solve(turn.T, decoder[name][start])
        spread = torch.ones_like(averages)
        part = turn[kept[:, None], kept].to(within)
        spread[:, kept] = (part @ within @ part.T).diagonal(dim1=1, dim2=2).sqrt().to(spread)
        model.domain_prior.set_moments(start, self.design, self.counts, averages @ turn.T, spread)


def strata(rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of like domains: weights that average over each group (groups, rows), mean design matrices and counts.

    Continuous columns are cut into quarters; groups of less than 20 rows are left out, unless none is larger.
    """
    keys = [rows.codes]
    if rows.values.shape[1]:
        cuts = torch.linspace(0, 1, _PARTS + 1, device=rows.values.device)[1:-1]
        bounds = torch.quantile(rows.values, cuts, dim=0).T.contiguous()
        keys.append(torch.searchsorted(bounds, rows.values.T.contiguous()).T)
    key = torch.cat([rows.codes.new_zeros(len(rows), 1), *keys], dim=1)
    # Not on every Apple GPU can torch look for unique rows.
    group = torch.unique(key.cpu(), dim=0, return_inverse=True)[1].to(key.device)
    member = torch.nn.functional.one_hot(group).T.to(rows.x)
    counts = member.sum(1)
    large = counts >= min(_LEAST_ROWS, float(counts.max()))
    member, counts = member[large], counts[large]
    weights = member / counts.unsqueeze(1)
    return weights, weights @ rows.design, counts


def _covariance(mean: Tensor, factor: Tensor, kept: Tensor) -> Tensor:
    """Covariance of draws from q(z | x) over some rows, in float64."""
    # Apple GPUs know no float64.
    mean, factor = mean[:, kept].cpu().double(), factor[:, kept].cpu().double()
    centred = mean - mean.mean(0)
    return (centred.T @ centred + torch.einsum("bij,bkj->ik", factor, factor)) / len(mean)


def _scatter(mean: Tensor, factor: Tensor, kept: Tensor, largest_part: float) -> Tensor:
    """``_covariance``, but the posterior means' part is the scatter of Student's t, which a row far out hardly moves.

    Its degrees of freedom are ``largest_part`` times the rows, and at least 1: a row weighs (ν + p) / (ν + d²), with d
    its Mahalanobis distance in p latents, and so makes at most about (ν + p) of the n parts of the scatter. With many
    rows that is the covariance. Maximum likelihood by EM (Lange, Little and Taylor 1989).
    """
    whole, mean = _covariance(mean, factor, kept), mean[:, kept].cpu().double()
    centred = mean - mean.mean(0)
    scatter = centred.T @ centred / len(mean)
    rest, degrees, n_latents = whole - scatter, max(1.0, largest_part * len(mean)), len(kept)
    # A latent that does not vary in a domain has no distance there.
    least = _LEAST_VARIANCE * whole.diagonal().diag()
    for _ in range(_SCATTER_STEPS):
        distance = (torch.linalg.solve(scatter + least, centred.T).T * centred).sum(1)
        weight = ((degrees + n_latents) / (degrees + distance)).unsqueeze(1)
        centred = mean - (weight * mean).sum(0) / weight.sum()
        scatter = (weight * centred).T @ centred / len(mean)
    return scatter + rest


def _jacobian(model: Any, start: int, mean: Tensor, kept: Tensor, seed: int) -> Tensor:
    """Derivatives (rows, kept latents, features) of one start, in float64, as many as the search can take.

    Of 256 rows; of fewer where features are many, and where 32 rows are still too much, by as many features as it can
    take, drawn at random: the rest of the mixing is taken to be like them.
    """
    n_features = model.config.n_features
    n_rows = rows_at_once(CANDIDATES, len(kept), n_features, NUMBERS)
    n_rows = min(max(n_rows, _LEAST_JACOBIANS), _MOST_JACOBIANS)
    z = mean[:: -(-len(mean) // n_rows)]
    jacobian = model.decode_with_jacobian(z.expand(model.n_starts, -1, -1), len(z))[1][start][:, kept].cpu().double()
    n_taken = max(1, NUMBERS // (CANDIDATES * len(kept) * len(z)))
    if n_taken >= n_features:
        return jacobian
    taken = torch.randperm(n_features, generator=torch.Generator().manual_seed(seed))[:n_taken]
    return jacobian[..., taken.sort()[0]]
