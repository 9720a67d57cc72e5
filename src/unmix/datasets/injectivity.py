r"""Is a mixing injective on a sample? A check that can say no, and never proves yes.

*Locally*: g is an immersion where the smallest singular value of its Jacobian is positive. With as many features as
latents, a determinant of both signs also settles it: somewhere between it is zero, and g folds.

*Globally*: start from pairs of rows whose features lie close together for how far apart their latents are. The second
latent moves so as to lower :math:`\lVert g(z') - g(z) \rVert`, by Levenberg-Marquardt steps within the range of the
sample. Where that ends near zero with :math:`z'` still far from :math:`z`, two latents give the same features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from unmix.datasets.mixings import Mixing
from unmix.errors import SettingError
from unmix.validation import RandomLike, random_seed

Floats = NDArray[np.float64]

_PAIRS = 64
_STEPS = 30
_ROWS_AT_ONCE = 50


@dataclass(frozen=True)
class Injectivity:
    """What ``injectivity`` found.

    Attributes
    ----------
    injective : bool
        No sign of two latents with the same features: ``smallest`` and ``closest`` are above their tolerances.
    smallest : float
        Smallest singular value of the Jacobian over the rows, latents in units of their standard deviation and
        features of theirs. 0 where a square Jacobian's determinant changes sign.
    condition : float
        Largest condition number of that Jacobian over the rows.
    closest : float
        Smallest root mean square difference of the features, in their standard deviations, that was found between
        latents further apart than ``far``; infinite if no pair was.
    pair : float array (2, n_latents)
        Those two latents; NaN if there is none.
    """

    injective: bool
    smallest: float
    condition: float
    closest: float
    pair: Floats


def injectivity(
    mixing: Mixing,
    z: ArrayLike,
    *,
    far: float = 0.5,
    tolerance: float = 1e-3,
    max_rows: int = 1000,
    random_state: RandomLike = 0,
) -> Injectivity:
    """Whether ``mixing`` is injective on the latents ``z``, as far as their rows can tell.

    Parameters
    ----------
    mixing : callable with a method ``jacobian``
        Latents (n_samples, n_latents) to noiseless features; ``jacobian(z)`` (n_samples, n_features, n_latents).
    z : float array (n_samples, n_latents)
    far : float, default 0.5
        Distance from which on two latents count as different, in standard deviations of the latents.
    tolerance : float, default 1e-3
        Differences of features, and singular values, below it count as zero.
    max_rows : int, default 1000
        Rows that are looked at, drawn without replacement.
    random_state : int, RandomState or None, default 0

    Raises
    ------
    SettingError
        ``mixing`` has no ``jacobian``, or ``z`` is not a matrix of two rows or more that vary.

    Examples
    --------
    >>> import numpy as np
    >>> class Fold:
    ...     def __call__(self, z):
    ...         return np.column_stack([z[:, 0] ** 2, z[:, 1]])
    ...     def jacobian(self, z):
    ...         return np.stack([np.diag([2 * row[0], 1.0]) for row in z])
    >>> injectivity(Fold(), np.random.default_rng(0).standard_normal((500, 2))).injective
    False
    """
    z = np.asarray(z, dtype=float)
    if not callable(mixing) or not hasattr(mixing, "jacobian"):
        raise SettingError(
            "mixing must be callable on latents and have a method jacobian(z) of shape (n_samples, n_features, "
            f"n_latents); got {type(mixing).__name__}. Pass the mixing of a MixingData, or write a class with both."
        )
    if z.ndim != 2 or len(z) < 2 or not np.ptp(z, axis=0).all():
        raise SettingError(
            f"z must be latents (n_samples ≥ 2, n_latents ≥ 1), none of them constant; got shape {z.shape}. "
            "Pass a sample of the latents."
        )
    chosen = np.random.default_rng(random_seed(random_state)).permutation(len(z))[:max_rows]
    scaled = _Scaled(mixing, z[chosen])
    smallest, condition = _local(scaled)
    closest, pair = _closest(scaled, far)
    good = smallest > tolerance and closest > tolerance
    return Injectivity(good, smallest, condition, closest, pair * scaled.spread + scaled.middle)


class _Scaled:
    """The mixing between standardised latents ``z`` and standardised features ``x``."""

    def __init__(self, mixing: Mixing, z: Floats) -> None:
        self.mixing = mixing
        self.middle, self.spread = z.mean(axis=0), z.std(axis=0)
        self.z = (z - self.middle) / self.spread
        raw = np.asarray(mixing(z), dtype=float)
        # A constant feature has no unit of its own: it stays as it is.
        self.unit = np.where(raw.std(axis=0) > 0, raw.std(axis=0), 1.0)
        self.x = raw / self.unit

    def features(self, z: Floats) -> Floats:
        return np.asarray(self.mixing(z * self.spread + self.middle), dtype=float) / self.unit

    def jacobian(self, z: Floats) -> Floats:
        raw = np.asarray(self.mixing.jacobian(z * self.spread + self.middle), dtype=float)
        return raw * (self.spread / self.unit[:, None])


def _local(scaled: _Scaled) -> tuple[float, float]:
    smallest, condition, signs = np.inf, 0.0, set()
    for start in range(0, len(scaled.z), _ROWS_AT_ONCE):
        jacobian = scaled.jacobian(scaled.z[start : start + _ROWS_AT_ONCE])
        n_features, n_latents = jacobian.shape[1:]
        if n_features < n_latents:
            return 0.0, np.inf
        if n_features == n_latents:
            signs |= set(np.linalg.slogdet(jacobian)[0].tolist())
        singular = np.linalg.svd(np.linalg.qr(jacobian, mode="r"), compute_uv=False)
        smallest = min(smallest, float(singular[:, -1].min()))
        with np.errstate(divide="ignore", invalid="ignore"):
            condition = max(condition, float(np.nan_to_num(singular[:, 0] / singular[:, -1], nan=np.inf).max()))
    return (0.0 if len(signs) > 1 else smallest), condition


def _closest(scaled: _Scaled, far: float) -> tuple[float, Floats]:
    """The smallest difference of features between latents ``far`` apart, and those latents."""
    between_z, between_x = cdist(scaled.z, scaled.z), cdist(scaled.x, scaled.x)
    first, second = np.nonzero(np.triu(between_z > far))
    if not len(first):
        return np.inf, np.full((2, scaled.z.shape[1]), np.nan)
    worst = np.argsort(between_x[first, second] / between_z[first, second])[:_PAIRS]
    fixed, start = scaled.z[first[worst]], scaled.z[second[worst]]
    moved = _approach(scaled, scaled.x[first[worst]], start)
    # A pair that ran together says nothing: it counts as it was.
    moved = np.where((np.linalg.norm(moved - fixed, axis=1) > far)[:, None], moved, start)
    difference = np.sqrt(((scaled.features(moved) - scaled.x[first[worst]]) ** 2).mean(axis=1))
    best = int(difference.argmin())
    return float(difference[best]), np.stack([fixed[best], moved[best]])


def _approach(scaled: _Scaled, target: Floats, z: Floats) -> Floats:
    """Levenberg-Marquardt steps of every row of ``z`` toward ``g(z) = target``, inside the range of the sample."""
    low, high = scaled.z.min(axis=0), scaled.z.max(axis=0)
    damping = np.full(len(z), 1e-2)
    rest = target - scaled.features(z)
    for _ in range(_STEPS):
        jacobian = scaled.jacobian(z)
        gram = jacobian.transpose(0, 2, 1) @ jacobian
        ridge = (damping * np.trace(gram, axis1=1, axis2=2) + 1e-12)[:, None, None] * np.eye(z.shape[1])
        slope = np.einsum("skn,sk->sn", jacobian, rest)
        trial = np.clip(z + np.linalg.solve(gram + ridge, slope[:, :, None])[:, :, 0], low, high)
        after = target - scaled.features(trial)
        better = (after**2).sum(axis=1) < (rest**2).sum(axis=1)
        z = np.where(better[:, None], trial, z)
        rest = np.where(better[:, None], after, rest)
        damping = np.clip(np.where(better, damping / 4.0, damping * 4.0), 1e-9, 1e3)
    return z
