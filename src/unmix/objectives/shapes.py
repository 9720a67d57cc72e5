r"""The rotation of latents that the domains leave free by which they are least Gaussian.

Latents whose variances change alike from domain to domain, or not at all, may be rotated at no cost: F of
``objectives/rotation.py`` does not see it. There their shape decides, as in independent component analysis: mixtures of
independent latents are closer to Gaussian than the latents themselves (Comon 1994, Signal Processing 36). So pairs of
latents are rotated in turn to minimise

.. math:: \kappa\, G(B) - \sum_i J_i(B), \qquad
          G(B) = \tfrac12 \sum_u \pi_u \sum_i \log \mathrm{var}_u (B z)_i - \log |\det B|

with J the negentropy of a latent that is standardised in each domain: that of a normal distribution less its entropy,
by m-spacings (Vasicek 1976, JRSS B 38; Learned-Miller and Fisher 2003, JMLR 4). What domains tell, G, goes first: a
nonlinear mixing that is not quite undone also makes latents less Gaussian, and there shapes mislead.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_DOMAINS_FIRST = 20.0
_LEAST_GAIN, _LEAST_REPEATED, _LEAST_CHANGE = 0.05, 0.95, 1e-3
_STEP = math.pi / 32
_ANGLES: Floats = np.arange(-8.0, 8.0) * _STEP
_BETWEEN: Floats = np.arange(-7.0, 8.0) * _STEP / 8
_MOST_SWEEPS, _LEAST_ROWS = 6, 1_000
# Rows of all pairs of latents: the search takes as long as they are many.
_NUMBERS, _ENOUGH_ROWS = 450_000, 2_000
_MOST_NEGENTROPY = 0.5
_HIGHEST_DENSITY = 10.0
_LEAST_VARIANCE = 1e-12


def shape_rotation(latents: Floats, membership: Floats, seed: int) -> Floats | None:
    """The map B (latents, latents) of ``z' = B z`` for latents z (rows, latents); None unless the rows say it helps.

    ``membership`` (rows, domains) is 1 where a row is of a domain. Each half of the rows must find a B by which the
    latents of the other half have 0.05 nats more negentropy, while G stays what it was; and both halves must find the
    same latents.
    """
    if len(latents) < _LEAST_ROWS or not np.isfinite(latents).all():
        return None
    n = latents.shape[1]
    n_rows = max(_ENOUGH_ROWS, 2 * _NUMBERS // max(1, n * (n - 1)))
    order = np.random.default_rng(seed).permutation(len(latents))[:n_rows]
    halves, found = (order[::2], order[1::2]), []
    for own, other in (halves, halves[::-1]):
        turn = _search(latents[own], membership[own])
        if turn is None:
            return None
        before, after = (_values(latents[other] @ b.T, membership[other]) for b in (np.eye(len(turn)), turn))
        changes, shapes = after[0] - before[0] - np.linalg.slogdet(turn)[1], after[1] - before[1]
        if not shapes > max(_LEAST_GAIN, _DOMAINS_FIRST * abs(changes)):
            return None
        found.append(latents @ turn.T)
    repeated = np.abs(np.corrcoef(found[0], found[1], rowvar=False)[:n, n:]).max(axis=1)
    if not repeated.min() >= _LEAST_REPEATED:
        return None
    return _search(latents[order], membership[order])


def _search(latents: Floats, membership: Floats) -> Floats | None:
    """B by rotations of one pair after another until none gains; None where the first round finds none."""
    z, shares = _centred(latents, membership)
    n, scale = z.shape[1], 1 / np.sqrt(np.maximum((z**2).mean(axis=0), _LEAST_VARIANCE))
    z, turn = z * scale, np.diag(scale)
    changed = np.zeros((n, n), dtype=bool)
    for sweep in range(_MOST_SWEEPS):
        before, changed = changed, np.zeros((n, n), dtype=bool)
        for pair in map(list, combinations(range(n), 2)):
            if sweep and not before[pair].any():
                continue
            angle = _best_angle(z[:, pair], membership, shares)
            if angle:
                part = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
                z[:, pair], turn[pair] = z[:, pair] @ part.T, part @ turn[pair]
                changed[pair] = True
        if not changed.any():
            break
    return None if np.array_equal(turn, np.diag(scale)) else turn


def _best_angle(pair: Floats, membership: Floats, shares: Floats) -> float:
    """By which a ``pair`` of latents (rows, 2), centred in each domain, is to be rotated; 0 where nothing gains."""
    counts = np.maximum(membership.sum(axis=0), 1.0)
    squares = membership.T @ np.column_stack([pair**2, pair.prod(axis=1)]) / counts[:, None]
    none = 0.5 * float(shares @ np.log(np.maximum(squares[:, :2], _LEAST_VARIANCE)).sum(axis=1))

    def values(angles: Floats) -> Floats:
        """What is minimised, for each angle; infinite where no shape could make up for what it costs the changes."""
        cosine, sine = np.cos(angles), np.sin(angles)
        of_both = np.stack([cosine**2, sine**2, 2 * cosine * sine]), np.stack([sine**2, cosine**2, -2 * cosine * sine])
        variance = np.maximum(np.stack([squares @ own for own in of_both]), _LEAST_VARIANCE)
        changes = 0.5 * np.einsum("u,kua->a", shares, np.log(variance)) - none
        possible = _DOMAINS_FIRST * changes < 2 * _MOST_NEGENTROPY
        cosine, sine, variance = cosine[possible, None], sine[possible, None], variance[..., possible]
        turned = np.stack([cosine * pair[:, 0] + sine * pair[:, 1], cosine * pair[:, 1] - sine * pair[:, 0]])
        spread = np.sqrt(variance.transpose(0, 2, 1) @ membership.T)
        result = np.full(len(angles), np.inf)
        result[possible] = _DOMAINS_FIRST * changes[possible] + _entropy(turned / spread).sum(axis=0)
        return result

    found = values(_ANGLES)
    best, stay = int(found.argmin()), len(_ANGLES) // 2
    if not found[best] < found[stay] - _LEAST_CHANGE:
        return 0.0
    near = _ANGLES[best] + _BETWEEN
    return float(near[values(near).argmin()])


def _values(latents: Floats, membership: Floats) -> tuple[float, float]:
    """G, but for the determinant, and the sum of the negentropies."""
    z, shares = _centred(latents, membership)
    counts = np.maximum(membership.sum(axis=0), 1.0)
    variance = np.maximum(membership.T @ z**2 / counts[:, None], _LEAST_VARIANCE)
    changes, within = 0.5 * float(shares @ np.log(variance).sum(axis=1)), z / np.sqrt(membership @ variance)
    return changes, float(negentropy(within.T).sum())


def _centred(latents: Floats, membership: Floats) -> tuple[Floats, Floats]:
    """Latents without the means of domains, and the domains' shares of the rows."""
    counts = membership.sum(axis=0)
    means = membership.T @ latents / np.maximum(counts, 1.0)[:, None]
    return latents - membership @ means, counts / counts.sum()


def negentropy(values: Floats) -> Floats:
    """Of the last axis, in nats; ``values`` are standardised. What is seen in as many normal values is subtracted."""
    normal = np.random.default_rng(0).standard_normal((16, values.shape[-1]))
    difference: Floats = _entropy(normal).mean() - _entropy(values)
    return difference


def _entropy(values: Floats) -> Floats:
    """By m-spacings, m = n^0.4, up to a constant; densities above 10 count as 10, as of values that are the same."""
    n = values.shape[-1]
    m, ordered = round(n**0.4), np.sort(values, axis=-1)
    spacings = np.maximum(ordered[..., m:] - ordered[..., :-m], m / n / _HIGHEST_DENSITY)
    entropy: Floats = np.log(spacings).mean(axis=-1)
    return entropy
