r"""Would other combinations of two latents make the mixing sparser? Then sparsity contradicts independence.

For latents a and b, in units of their spread within domains, feature k has the *direction* :math:`\varphi` if its
gradient is along :math:`(\cos\varphi, \sin\varphi)` at all rows: then it depends on the single combination
:math:`y = z_a \cos\varphi + z_b \sin\varphi`. With :math:`J_{k\cdot}` the scale-free gradient and

.. math:: S_k(\varphi) = E\,|J_{kb} \cos\varphi - J_{ka} \sin\varphi| ,

that is the :math:`\varphi` where S is smallest, give or take 2°, if S is less than a tenth of its maximum there.

Zeros of the mixing are the directions 0° and 90°. If the true mixing is sparse and the true latents depend on each
other within domains, a model that makes its latents independent mixes the two, and many features have two other
directions in common. Nothing else shows it: Gaussian latents with covariances [[1, ρ], [ρ, 1]] have the same
distribution as independent ones, mixed.

Two directions count if three features or more have each of them, and together they are three quarters or more of those
that depend on the pair, twice as many as have a direction within 10° of 0° or 90° and three more, and more than the
99 % quantile when each feature's direction is moved at random by up to 26°: entries of similar size have similar
directions by chance. The pair is contested if one of its latents has a correlation below 0.95 with both combinations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmix.audit.input import AuditInput, evenly

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_STEP = 2
_ANGLES = np.deg2rad(np.arange(0, 180, _STEP))
_ZERO = 0.1
_NEAR = 1
_DEPENDS = 0.2
_MORE = 3
_TIMES = 2
_SHARE = 0.75
_OWN = 10
_MOVED = 26
_SAME = np.rad2deg(np.arccos(0.95))
_DRAWS = 400
_LEVEL = 0.01
_POINTS = 64


def contested_pairs(subject: AuditInput) -> dict[tuple[int, int], tuple[int, int]]:
    """Pairs of latents that two other combinations make sparser, with the zeros that these and the latents give."""
    z, labels = subject.tested
    if not len(z):
        return {}
    spread = np.sqrt(np.mean([z[labels == domain].var(axis=0) for domain in range(len(subject.large))], axis=0))
    slopes = subject.jacobian[evenly(len(subject.jacobian), _POINTS)] * spread
    rng, found = np.random.default_rng(0), {}
    for a in range(subject.n_latents):
        for b in range(a + 1, subject.n_latents):
            zeros = _sparser(slopes[:, :, [a, b]], rng)
            if zeros is not None:
                found[a, b] = zeros
    return found


def _sparser(slopes: Floats, rng: np.random.Generator) -> tuple[int, int] | None:
    """Zeros of the best two directions and those of the latents, if the former are to count."""
    across = np.stack([-np.sin(_ANGLES), np.cos(_ANGLES)], axis=1)
    left = np.abs(np.einsum("pki,ai->apk", slopes, across)).mean(axis=1)
    left = left[:, left.max(axis=0) >= _DEPENDS]
    apart = np.abs(np.arange(len(_ANGLES))[:, None] - left.argmin(axis=0))
    near_own = np.minimum(apart, len(_ANGLES) - apart) <= _NEAR
    has = near_own & (left.min(axis=0) < _ZERO * left.max(axis=0))
    zeros, n_features = _zeros_of_two(has), has.shape[1]
    first, second = divmod(int(zeros.argmax()), len(_ANGLES))
    most, near = int(zeros[first, second]), np.arange(-_OWN // _STEP, _OWN // _STEP + 1)
    single = has.sum(axis=1)
    own = int(single[near].max() + single[near + len(_ANGLES) // 2].max())
    least = max(own + _MORE, _TIMES * own, _SHARE * n_features)
    if most < least or not _changes_a_latent(_STEP * first, _STEP * second):
        return None
    angle, features, most_moved = np.arange(len(_ANGLES))[:, None], np.arange(n_features), _MOVED // _STEP
    drawn = []
    for _ in range(_DRAWS):
        moved = angle + rng.integers(-most_moved, most_moved + 1, size=n_features)
        drawn.append(_zeros_of_two(has[moved % len(_ANGLES), features]).max())
    chance = np.quantile(drawn, 1 - _LEVEL)
    return (most, own) if most > chance else None


def _zeros_of_two(has: Bools) -> Floats:
    """Features that have one of two directions (angles, angles), ``has`` (angles, features); 0 if one has too few."""
    each = has.astype(float)
    count = each.sum(axis=1)
    many = count >= _MORE
    result: Floats = (count[:, None] + count - each @ each.T) * (many[:, None] & many)
    return result


def _changes_a_latent(first: float, second: float) -> bool:
    """Whether a latent (0° or 90°) is not within a correlation of 0.95 of one of two directions."""
    return any(min(_apart(own, first), _apart(own, second)) > _SAME for own in (0, 90))


def _apart(first: float, second: float) -> float:
    """Angle between two directions, at most 90."""
    between = abs(first - second) % 180
    return min(between, 180 - between)
