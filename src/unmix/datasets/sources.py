r"""Latents given the auxiliary variables: what they are before they change, and how u changes them.

.. math:: z_i \mid u = m_i(u) + s_i(u)\, \varphi_{i,u}\big(Q(\epsilon_i)\big), \qquad \epsilon_i \sim N(0, 1)

``Q`` makes the source: the identity (Gaussian), or the quantile function, at :math:`\Phi(\epsilon)`, of a Laplace, a
Gumbel (skewed) or a two-component Gaussian mixture (bimodal); each has mean 0 and variance 1. ``change`` says what
depends on u: the means ``m``, the scales ``s``, or the shape ``\varphi``, a sinh-arcsinh map (skewness and tail
weight; after Jones and Pewsey 2009, Biometrika 96) that keeps mean 0 and variance 1 (by quadrature, within 0.5 %).

Every parameter is a weighted mean of drawn values, so it keeps their range: a domain has its own (categorical), a
site has two thirds of its region's and one third of its own (nested), or u in [0, 1] passes smoothly from one of
``n_domains`` values to the next (continuous).

The :math:`\epsilon_i` are independent within a domain unless ``dependence`` :math:`= \rho > 0`: then every pair is
correlated by :math:`\rho` through a common cause, a Gaussian copula of the latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr, ndtri

Auxiliary = Literal["categorical", "nested", "continuous"]
Change = Literal["mean", "scale", "both", "shape", "all"]
Source = Literal["gaussian", "laplace", "skewed", "bimodal"]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

AUXILIARY = ("categorical", "nested", "continuous")
CHANGES = {
    "mean": ("mean",),
    "scale": ("scale",),
    "both": ("mean", "scale"),
    "shape": ("shape",),
    "all": ("mean", "scale", "shape"),
}
_MODE = 0.9
_LEVELS_AT_ONCE = 1024


@dataclass(frozen=True)
class Domains:
    """The auxiliary variables of all rows.

    ``observed`` is what a model gets as y and ``kinds`` what it must be told about it. Row r has the parameters of
    level ``level[r]``; level l has ``weights[l]`` times the drawn values (None: the values themselves).
    """

    observed: Ints | pd.DataFrame
    level: Ints
    n_values: int
    weights: Floats | None = None
    kinds: dict[str, str] = field(default_factory=dict)

    def take(self, rows: Ints) -> Ints | pd.DataFrame:
        if isinstance(self.observed, pd.DataFrame):
            return self.observed.iloc[rows].reset_index(drop=True)
        return self.observed[rows]


def draw_domains(
    rng: np.random.Generator, auxiliary: Auxiliary, n_samples: int, n_domains: int, n_regions: int
) -> Domains:
    codes = np.repeat(np.arange(n_domains), -(-n_samples // n_domains))[:n_samples]
    if auxiliary == "nested":
        return _nested(codes, n_domains, n_regions)
    if auxiliary == "continuous":
        u = rng.random(n_samples)
        distance = (u[:, None] - np.linspace(0.0, 1.0, n_domains)) * (n_domains - 1)
        weights = np.exp(-2.0 * distance**2)
        weights /= weights.sum(axis=1, keepdims=True)
        return Domains(pd.DataFrame({"u": u}), np.arange(n_samples), n_domains, weights, {"u": "continuous"})
    return Domains(codes, codes, n_domains)


def _nested(site: Ints, n_sites: int, n_regions: int) -> Domains:
    """Sites are numbered anew in every region, as they often are in practice."""
    region = np.arange(n_sites) * n_regions // n_sites
    within = np.arange(n_sites) - np.searchsorted(region, region)
    names = pd.DataFrame({"region": [f"region {r}" for r in region], "site": [f"site {s}" for s in within]})
    weights = np.hstack([2 / 3 * np.eye(n_regions)[region], 1 / 3 * np.eye(n_sites)])
    observed = names.iloc[site].reset_index(drop=True)
    return Domains(observed, site, n_regions + n_sites, weights, {"site": "within region"})


def draw_sources(
    rng: np.random.Generator,
    common: np.random.Generator,
    domains: Domains,
    unchanging: NDArray[np.bool_],
    source: Source,
    change: Change,
    dependence: float,
) -> Floats:
    """Latents (n_samples, n_latents); ``common`` draws the common cause, so that ``rng`` goes on as without it."""
    n_samples, n_latents = len(domains.level), len(unchanging)
    epsilon = rng.standard_normal((n_samples, n_latents))
    if dependence:
        shared = common.standard_normal((n_samples, 1))
        epsilon = np.sqrt(1.0 - dependence) * epsilon + np.sqrt(dependence) * shared
    quantile = _QUANTILES[source]
    base = quantile(epsilon)
    values: dict[str, Floats] = {}
    for name in CHANGES[change]:
        for parameter, low, high in _RANGES[name]:
            drawn = rng.uniform(low, high, (domains.n_values, n_latents))
            values[parameter] = drawn if domains.weights is None else domains.weights @ drawn
    z = base
    if "skew" in values:
        z = _reshaped(base, domains.level, values["skew"], np.exp(values["log tail"]), quantile)
    if "log scale" in values:
        z = z * np.exp(values["log scale"])[domains.level]
    if "mean" in values:
        z = z + values["mean"][domains.level]
    return np.where(unchanging, base, z)


_RANGES = {
    "mean": [("mean", -1.5, 1.5)],
    "scale": [("log scale", np.log(0.3), np.log(2.0))],
    "shape": [("skew", -1.0, 1.0), ("log tail", np.log(0.7), np.log(1.6))],
}


def _reshaped(base: Floats, level: Ints, skew: Floats, tail: Floats, quantile: Callable[[Floats], Floats]) -> Floats:
    """The standardised sinh-arcsinh map; its mean and variance by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    nodes = np.arcsinh(quantile(nodes))[:, None, None]
    center, scale = np.empty_like(skew), np.empty_like(skew)
    for start in range(0, len(skew), _LEVELS_AT_ONCE):
        part = slice(start, start + _LEVELS_AT_ONCE)
        grid = np.sinh((nodes + skew[part]) / tail[part])
        center[part] = np.einsum("g,gui->ui", weights, grid)
        scale[part] = np.sqrt(np.einsum("g,gui->ui", weights, (grid - center[part]) ** 2))
    raw = np.sinh((np.arcsinh(base) + skew[level]) / tail[level])
    return (raw - center[level]) / scale[level]


def _gaussian(epsilon: Floats) -> Floats:
    return epsilon


def _laplace(epsilon: Floats) -> Floats:
    return -np.sign(epsilon) * (np.log(2.0) + log_ndtr(-np.abs(epsilon))) / np.sqrt(2.0)


def _skewed(epsilon: Floats) -> Floats:
    return (-np.log(-log_ndtr(epsilon)) - np.euler_gamma) * np.sqrt(6.0) / np.pi


def _bimodal(epsilon: Floats) -> Floats:
    """Half N(0.9, 1 - 0.81), half its mirror image; the quantile function interpolates its exact inverse."""
    width = np.sqrt(1.0 - _MODE**2)
    grid = np.linspace(0.0, _MODE + 8.0 * width, 4001)
    above = (ndtr((_MODE - grid) / width) + ndtr((-_MODE - grid) / width)) / 2.0
    return np.sign(epsilon) * np.interp(np.abs(epsilon), -ndtri(above), grid)


_QUANTILES: dict[str, Callable[[Floats], Floats]] = {
    "gaussian": _gaussian,
    "laplace": _laplace,
    "skewed": _skewed,
    "bimodal": _bimodal,
}
SOURCES = tuple(_QUANTILES)
