r"""Which rows of the domains belong together, and the turn of their Gaussian transport that this says.

Equal means and covariances leave a rotation open: with :math:`A_u` the map of domain u to the common N(0, C), the map
:math:`C^{1/2} Q_u C^{-1/2} A_u` serves as well for every orthogonal Q_u. Transport takes the map of least squared
distance, which is the right one where domains differ by little. Where they differ by more, their higher moments decide:
rows that are each other's nearest in two domains are taken for partners, Q_u is turned to bring partners together
(Schönemann 1966), and both steps are repeated (iterated closest points, Besl and McKay 1992). Nearness is corrected for
rows that are near to everything (Conneau et al. 2018, arXiv:1710.04087, section 2.3).

A turn is learnt from four fifths of the rows first, and taken only if it brings the others nearer to other domains.
Whether partners mean anything is told by halves of the rows: turns learnt from each find the same partners, or not.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmix.models.transport import GaussianTransport

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

_ROUNDS, _NEIGHBOURS, _HELD_OUT = 8, 10, 5
_STEADY = 0.03
_LEAST = 1e-8


def turn(transport: GaussianTransport, views: Sequence[Tensor], groups: Tensor) -> bool:
    """Turn ``transport`` in place; False where no turn brings held-out rows of the domains nearer to each other.

    ``views`` are the rows (n, n_features) of the domains ``groups`` (n,) and altered copies of them, altered so that
    partners stay partners. Partners are looked for in the first.
    """
    white, sds, vectors = _whitened(transport, views, groups)
    places = _places(groups, len(transport.means))
    learnt = [rows[np.arange(len(rows)) % _HELD_OUT != 0] for rows in places]
    before = [white[0][rows] * sds for rows in places]
    after = [white[0][rows] @ turned * sds for rows, turned in zip(places, _turns(white, learnt, sds), strict=True)]
    if _apart(after) >= _apart(before):
        return False
    for u, turned in enumerate(_turns(white, places, sds)):
        inward = (vectors * sds) @ turned.T @ (vectors / sds).T @ transport.inward[u].cpu().double().numpy()
        transport.inward[u] = torch.from_numpy(inward).float()
        transport.outward[u] = torch.from_numpy(np.linalg.inv(inward)).float()
    return True


def repeated(transport: GaussianTransport, views: Sequence[Tensor], groups: Tensor, seed: int) -> float:
    """Share of partners that are found again, among all rows, by turns learnt from the other half of the rows.

    Arguments as of ``turn``; ``seed`` draws the halves.
    """
    white, sds, _ = _whitened(transport, views, groups)
    rng, places = np.random.default_rng(seed), _places(groups, len(transport.means))
    mixed = [rng.permutation(rows) for rows in places]
    found: list[set[tuple[int, int]]] = []
    for half in (0, 1):
        common = np.empty_like(white[0])
        for rows, turned in zip(places, _turns(white, [own[half::2] for own in mixed], sds), strict=True):
            common[rows] = white[0][rows] @ turned * sds
        first, second = all_partners(common, groups.cpu().numpy(), len(places))
        found.append({*zip(first.tolist(), second.tolist(), strict=True)})
    return len(found[0] & found[1]) / max(1, min(map(len, found)))


def _whitened(
    transport: GaussianTransport, views: Sequence[Tensor], groups: Tensor
) -> tuple[list[Floats], Floats, Floats]:
    """Rows of each view in the common Gaussian, whitened (n, k); what they had: spreads (k,), directions (k, k)."""
    own = groups.cpu().numpy()
    scores = [transport.common(view, groups) @ transport.basis.T for view in views]
    common = [rows.detach().cpu().double().numpy() for rows in scores]
    every, stacked = np.tile(own, len(common)), np.concatenate(common)
    covariance = np.mean([np.cov(stacked[every == u].T) for u in range(len(transport.means))], axis=0)
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    sds = np.sqrt(values.clip(max(_LEAST * values.max(), 1e-300)))
    return [rows @ vectors / sds for rows in common], sds, vectors


def _places(groups: Tensor, n_domains: int) -> list[Places]:
    own = groups.cpu().numpy()
    return [np.flatnonzero(own == u) for u in range(n_domains)]


def _turns(white: Sequence[Floats], places: Sequence[Places], sds: Floats) -> list[Floats]:
    """Q_u of every domain, from its rows ``places`` of each view (n, k), whitened; ``sds`` (k,) are what they had."""
    views = [[view[rows] for rows in places] for view in white]
    size, domains = len(sds), [*range(len(places))]
    signs = _signs([rows * sds for rows in views[0]])
    turns = [sign * np.eye(size) for sign in signs]
    turned = [[sign * rows for sign, rows in zip(signs, view, strict=True)] for view in views]
    for _ in range(_ROUNDS):
        # One domain after the other: two that turn to each other at once change places.
        for u in domains:
            cross, count = np.zeros((size, size)), 0
            for other in domains[:u] + domains[u + 1 :]:
                first, second = partners(turned[0][u] * sds, turned[0][other] * sds)
                count += len(first) * len(views)
                for view, there in zip(views, turned, strict=True):
                    cross += (view[u][first] * sds).T @ (there[other][second] * sds)
            # Directions that partners say little of stay as they are.
            left, _, right = np.linalg.svd(cross + _STEADY * count * signs[u] * np.diag(sds**2))
            turns[u] = left @ right
            for view, there in zip(views, turned, strict=True):
                there[u] = view[u] @ turns[u]
    return turns


def _signs(rows: Sequence[Floats]) -> list[float]:
    """1, or -1 for a domain that comes nearer to those before it when its contrast is inverted."""
    signs = [1.0]
    for u in range(1, len(rows)):
        near = {sign: sum(gap(sign * rows[u], signs[a] * rows[a]) for a in range(u)) for sign in (1.0, -1.0)}
        signs.append(min(near, key=lambda sign: near[sign]))
    return signs


def gap(a: Floats, b: Floats) -> float:
    """Mean squared distance of rows of each to the nearest of the other."""
    distance = squared_distances(a, b)
    return float(distance.min(0).mean() + distance.min(1).mean())


def partners(a: Floats, b: Floats) -> tuple[Places, Places]:
    """Places in ``a`` (n, k) and ``b`` (m, k) of rows that are each other's nearest, nearness corrected for hubs."""
    distance = squared_distances(a, b)
    count = min(_NEIGHBOURS, *distance.shape)
    around_a = np.partition(distance, count - 1, axis=1)[:, :count].mean(1, keepdims=True)
    around_b = np.partition(distance, count - 1, axis=0)[:count].mean(0, keepdims=True)
    corrected = 2 * distance - around_a - around_b
    nearest, back = corrected.argmin(1), corrected.argmin(0)
    first = np.flatnonzero(back[nearest] == np.arange(len(a)))
    return first, nearest[first]


def all_partners(rows: Floats, groups: Places, n_domains: int) -> tuple[Places, Places]:
    """Places of rows (n, k), and of their partners in other domains; every pair is there in both orders."""
    places = [np.flatnonzero(groups == u) for u in range(n_domains)]
    found: list[tuple[Places, Places]] = []
    for a, b in itertools.combinations(range(n_domains), 2):
        first, second = partners(rows[places[a]], rows[places[b]])
        one, other = places[a][first], places[b][second]
        found += [(one, other), (other, one)]
    first, second = (np.concatenate(own) for own in zip(*found, strict=True))
    return first, second


def squared_distances(a: Floats, b: Floats) -> Floats:
    distance: Floats = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
    return distance


def _apart(rows: Sequence[Floats]) -> float:
    """Mean squared distance of held-out rows to the nearest of every other domain, of what is left."""
    nearest = [
        squared_distances(a[::_HELD_OUT], b[np.arange(len(b)) % _HELD_OUT != 0]).min(1).mean()
        for a, b in itertools.permutations(rows, 2)
    ]
    return float(np.mean(nearest))
