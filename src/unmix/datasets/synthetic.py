r"""Data with a known answer: latents whose distribution changes with the domain, mixed sparsely.

.. math:: z_i \mid u = m_i(u) + s_i(u)\, \varphi_{i,u}(\epsilon_i), \quad \epsilon_i \sim N(0, 1) \text{ independent},
          \qquad x_k = g_k(z_{\mathrm{Pa}(k)}) + \text{noise}

``change`` says what depends on the domain: the means ``m``, the scales ``s``, both, or the shape ``\varphi``
(a standardised sinh-arcsinh map: skewness and tail weight; mean 0 and variance 1 in every domain).
Every ``g_k`` is a linear part plus a one-hidden-layer tanh network of the parents of feature k, with
standard deviation 1 over the sample, so ``noise`` is in units of each feature's standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unmix.errors import SettingError
from unmix.theory import check_support, domains_needed

Change = Literal["mean", "scale", "both", "shape"]
Floats = NDArray[np.float64]

_HIDDEN = 6
_DRAWS = 20_000


@dataclass(frozen=True)
class SparseMixing:
    """The mixing g: latents (n_samples, n_latents) to noiseless features (n_samples, n_features).

    Calling it gives the features; ``jacobian(z)`` the exact derivatives (n_samples, n_features, n_latents).
    """

    support: NDArray[np.bool_]
    linear: Floats = field(repr=False)
    inner: Floats = field(repr=False)
    bias: Floats = field(repr=False)
    outer: Floats = field(repr=False)
    center: Floats = field(repr=False)
    scale: Floats = field(repr=False)

    def __call__(self, z: ArrayLike) -> Floats:
        z = np.asarray(z, dtype=float)
        hidden = np.tanh(np.einsum("si,khi->skh", z, self.inner) + self.bias)
        raw = z @ self.linear.T + np.einsum("skh,kh->sk", hidden, self.outer)
        return (raw - self.center) / self.scale

    def jacobian(self, z: ArrayLike) -> Floats:
        z = np.asarray(z, dtype=float)
        hidden = np.tanh(np.einsum("si,khi->skh", z, self.inner) + self.bias)
        slope = (1.0 - hidden**2) * self.outer
        raw = self.linear + np.einsum("skh,khi->ski", slope, self.inner)
        return raw / self.scale[:, None]


@dataclass(frozen=True)
class MixingData:
    """A generated data set and the truth behind it.

    Attributes
    ----------
    x : float array (n_samples, n_features)
    domains : int array (n_samples,)
    z : float array (n_samples, n_latents), the true latents
    support : bool array (n_features, n_latents)
    mixing : SparseMixing, the true ``g``
    domains_needed : int, what the support asks for (``unmix.theory``, T5)
    """

    x: Floats
    domains: NDArray[np.int64]
    z: Floats
    support: NDArray[np.bool_]
    mixing: SparseMixing
    domains_needed: int

    @property
    def feature_names(self) -> list[str]:
        return [f"x{k}" for k in range(self.x.shape[1])]

    @cached_property
    def jacobian(self) -> Floats:
        """Exact derivatives of ``mixing`` at ``z`` (n_samples, n_features, n_latents)."""
        return self.mixing.jacobian(self.z)


def make_sparse_mixing(
    n_latents: int = 4,
    n_features: int = 8,
    n_domains: int = 4,
    n_samples: int = 8000,
    density: float = 0.5,
    change: Change = "both",
    noise: float = 0.05,
    nonlinearity: float = 1.0,
    guaranteed: bool = False,
    random_state: int = 0,
) -> MixingData:
    """Latents that change between domains, seen through a sparse nonlinear mixing.

    Parameters
    ----------
    n_latents, n_features, n_domains, n_samples : int
        Sizes; ``n_samples`` counts all domains together, ``n_features >= n_latents``.
    density : float in (0, 1]
        Share of (feature, latent) pairs in which the feature depends on the latent. Every feature has at
        least one parent, every latent at least one child.
    change : {"mean", "scale", "both", "shape"}
        What differs between domains: means in ±1.5, scales in 0.3 … 2 (log-uniform), both, or the shape.
    noise : float, default 0.05
        Standard deviation of Gaussian noise on each feature, in units of the feature's own.
    nonlinearity : float, default 1.0
        Factor on the tanh part. 0: linear; from about 1.5 on, features rise and fall again along a latent, and the
        mixing becomes hard to undo.
    guaranteed : bool, default False
        Draw supports until one needs no more domains than there are (``unmix.theory``, T5).
    random_state : int, default 0

    Raises
    ------
    SettingError
        A size or density is impossible, or no guaranteed support was found.

    Examples
    --------
    >>> data = make_sparse_mixing(n_latents=3, n_features=6, n_domains=3, n_samples=600, guaranteed=True)
    >>> data.x.shape, data.z.shape, data.jacobian.shape
    ((600, 6), (600, 3), (600, 6, 3))
    >>> data.domains_needed <= 3
    True
    """
    if min(n_latents, n_domains) < 1 or n_features < n_latents or n_samples < n_domains:
        raise SettingError(
            "make_sparse_mixing needs n_latents ≥ 1, n_domains ≥ 1, n_features ≥ n_latents and n_samples ≥ n_domains; "
            f"got n_latents={n_latents}, n_features={n_features}, n_domains={n_domains}, n_samples={n_samples}."
        )
    if not 0 < density <= 1 or noise < 0 or nonlinearity < 0:
        raise SettingError(
            f"Expected 0 < density ≤ 1, noise ≥ 0 and nonlinearity ≥ 0; got {density}, {noise} and {nonlinearity}."
        )
    if change not in _CHANGES:
        raise SettingError(f"change must be one of {sorted(_CHANGES)}; got {change!r}.")
    rng = np.random.default_rng(random_state)
    support, needed = _draw_support(rng, n_latents, n_features, density, n_domains if guaranteed else None)
    domains = np.repeat(np.arange(n_domains), -(-n_samples // n_domains))[:n_samples]
    z = _draw_sources(rng, domains, n_domains, n_latents, change)
    mixing = _draw_mixing(rng, support, z, nonlinearity)
    x = mixing(z) + noise * rng.standard_normal((n_samples, n_features))
    order = rng.permutation(n_samples)
    return MixingData(x[order], domains[order], z[order], support, mixing, needed)


def _draw_support(
    rng: np.random.Generator, n_latents: int, n_features: int, density: float, limit: int | None
) -> tuple[NDArray[np.bool_], int]:
    for _ in range(_DRAWS):
        support = rng.random((n_features, n_latents)) < density
        support[np.arange(n_features), rng.integers(n_latents, size=n_features)] |= ~support.any(axis=1)
        if not support.any(axis=0).all() or not _injective(rng, support):
            continue
        needed = domains_needed(support).needed
        if limit is None or needed <= limit:
            return support, needed
    raise SettingError(
        f"No support with n_latents={n_latents}, n_features={n_features}, density={density} "
        + ("maps the latents one to one" if limit is None else f"that needs at most {limit} domains")
        + f" in {_DRAWS} draws. Lower the density, add features or add domains."
    )


def _injective(rng: np.random.Generator, support: NDArray[np.bool_]) -> bool:
    """Whether generic values on the support have full column rank."""
    values = rng.uniform(0.5, 1.5, support.shape) * check_support(support)
    return int(np.linalg.matrix_rank(values)) == support.shape[1]


def _draw_sources(
    rng: np.random.Generator, domains: NDArray[np.int64], n_domains: int, n_latents: int, change: Change
) -> Floats:
    epsilon = rng.standard_normal((len(domains), n_latents))
    return _CHANGES[change](rng, epsilon, domains, n_domains)


def _change_mean(rng: np.random.Generator, epsilon: Floats, domains: NDArray[np.int64], n_domains: int) -> Floats:
    return epsilon + rng.uniform(-1.5, 1.5, (n_domains, epsilon.shape[1]))[domains]


def _change_scale(rng: np.random.Generator, epsilon: Floats, domains: NDArray[np.int64], n_domains: int) -> Floats:
    return epsilon * np.exp(rng.uniform(np.log(0.3), np.log(2.0), (n_domains, epsilon.shape[1])))[domains]


def _change_both(rng: np.random.Generator, epsilon: Floats, domains: NDArray[np.int64], n_domains: int) -> Floats:
    means = rng.uniform(-1.5, 1.5, (n_domains, epsilon.shape[1]))
    return _change_scale(rng, epsilon, domains, n_domains) + means[domains]


def _change_shape(rng: np.random.Generator, epsilon: Floats, domains: NDArray[np.int64], n_domains: int) -> Floats:
    skew = rng.uniform(-1.0, 1.0, (n_domains, epsilon.shape[1]))
    tail = np.exp(rng.uniform(np.log(0.7), np.log(1.6), skew.shape))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    grid = np.sinh((np.arcsinh(nodes)[:, None, None] + skew) / tail)
    center = np.einsum("g,gui->ui", weights, grid)
    scale = np.sqrt(np.einsum("g,gui->ui", weights, (grid - center) ** 2))
    raw = np.sinh((np.arcsinh(epsilon) + skew[domains]) / tail[domains])
    return (raw - center[domains]) / scale[domains]


_CHANGES: dict[str, Callable[[np.random.Generator, Floats, NDArray[np.int64], int], Floats]] = {
    "mean": _change_mean,
    "scale": _change_scale,
    "both": _change_both,
    "shape": _change_shape,
}


def _draw_mixing(rng: np.random.Generator, support: NDArray[np.bool_], z: Floats, nonlinearity: float) -> SparseMixing:
    n_features, n_latents = support.shape
    linear = rng.uniform(0.5, 1.5, support.shape) * rng.choice([-1.0, 1.0], support.shape) * support
    parents = support.sum(axis=1)[:, None, None]
    inner = rng.standard_normal((n_features, _HIDDEN, n_latents)) * support[:, None, :] / np.sqrt(parents)
    bias = rng.standard_normal((n_features, _HIDDEN))
    outer = rng.standard_normal((n_features, _HIDDEN)) * nonlinearity / np.sqrt(_HIDDEN)
    raw = SparseMixing(support, linear, inner, bias, outer, np.zeros(n_features), np.ones(n_features))
    clean = raw(z)
    return SparseMixing(support, linear, inner, bias, outer, clean.mean(axis=0), clean.std(axis=0))
