r"""Images with known factors: what they carry, and how factors are distributed in each domain.

Let :math:`t \in [0, 1]` be the position of a continuous factor in its range. Given the domain u the factors are
independent. A factor that changes has

.. math:: t \mid u \sim N(m_u, s_u^2) \text{ truncated to } [0, 1], \qquad
          P(c \mid u) = \tfrac12 [c = c_u] + \tfrac12 \pi_u(c), \quad \pi_u \sim \mathrm{Dirichlet}(1, \dots, 1)

(continuous; classes). The means m_u are spread evenly over 0.2 … 0.8 in random order, the standard deviations s_u are
log-uniform in 0.1 … 0.3, and neighbouring domains favour different classes c_u. A factor that stays is uniform in
every domain. Where the images are generated, positions are drawn from these densities; where they are a published
grid, the same densities are the weights with which its rows are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import truncnorm

from unmix.errors import SettingError
from unmix.validation import whole

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Kind = Literal["continuous", "discrete"]


@dataclass(frozen=True)
class ImageData:
    """Images from several domains and the factors that made them.

    Attributes
    ----------
    images : uint8 array (n_samples, height, width, channels)
    domains : int or str array (n_samples,)
    factors : DataFrame (n_samples, n_factors)
        True factors; the function that made the data states their units. Discrete factors are categorical.
    factor_kinds : dict of factor → "continuous" or "discrete"
    changing : tuple of str, the factors whose distribution depends on the domain
    """

    images: NDArray[np.uint8]
    domains: Ints | NDArray[np.str_]
    factors: pd.DataFrame
    factor_kinds: dict[str, Kind]
    changing: tuple[str, ...]


@dataclass(frozen=True)
class Position:
    """Position in [0, 1] of a continuous factor; ``means`` and ``scales`` (n_domains,), or None: uniform everywhere."""

    means: Floats | None = None
    scales: Floats | None = None

    def draw(self, rng: np.random.Generator, domains: Ints) -> Floats:
        uniform = rng.random(len(domains))
        if self.means is None or self.scales is None:
            return uniform
        mean, scale = self.means[domains], self.scales[domains]
        drawn: Floats = truncnorm.ppf(uniform, -mean / scale, (1 - mean) / scale, loc=mean, scale=scale)
        return drawn

    def weight(self, domain: int, position: Floats) -> Floats:
        """Density at ``position`` in one domain, up to a constant."""
        if self.means is None or self.scales is None:
            return np.ones(len(position))
        density: Floats = np.exp(-0.5 * ((position - self.means[domain]) / self.scales[domain]) ** 2)
        return density


@dataclass(frozen=True)
class Classes:
    """A discrete factor; ``probabilities`` (n_domains, n_classes)."""

    probabilities: Floats

    def draw(self, rng: np.random.Generator, domains: Ints) -> Ints:
        cumulative = self.probabilities.cumsum(axis=1)[domains, :-1]
        drawn: Ints = (rng.random((len(domains), 1)) >= cumulative).sum(axis=1)
        return drawn

    def weight(self, domain: int, code: Ints) -> Floats:
        weights: Floats = self.probabilities[domain, code]
        return weights


def draw_positions(rng: np.random.Generator, n_domains: int) -> Position:
    """A continuous factor that changes: its means and standard deviations in each domain."""
    means = rng.permutation(np.linspace(0.2, 0.8, n_domains))
    return Position(means, np.exp(rng.uniform(np.log(0.1), np.log(0.3), n_domains)))


def draw_classes(rng: np.random.Generator, n_domains: int, n_classes: int) -> Classes:
    """A discrete factor that changes: its class probabilities in each domain."""
    favourite = rng.permutation(n_classes)[np.arange(n_domains) % n_classes]
    return Classes(0.5 * np.eye(n_classes)[favourite] + 0.5 * rng.dirichlet(np.ones(n_classes), n_domains))


def draw_factors(
    rng: np.random.Generator, n_classes: dict[str, int], changing: tuple[str, ...], n_domains: int
) -> dict[str, Position | Classes]:
    """The distribution of every factor; ``n_classes`` maps each name to its number of classes, 0 for continuous."""
    factors: dict[str, Position | Classes] = {}
    for name, count in n_classes.items():
        if name in changing:
            factors[name] = draw_classes(rng, n_domains, count) if count else draw_positions(rng, n_domains)
        else:
            factors[name] = Classes(np.full((n_domains, count), 1 / count)) if count else Position()
    return factors


def draw_domains(rng: np.random.Generator, n_samples: int, n_domains: int) -> Ints:
    """Domains of equal size (± 1 row) in random order."""
    return rng.permutation(np.arange(n_samples, dtype=np.int64) % n_domains)


def check_request(
    n_classes: dict[str, int], change: str | Sequence[str], n_samples: int, n_domains: int
) -> tuple[str, ...]:
    """The names in ``change`` in the order of the factors, once everything asked for is possible."""
    whole(0).need("n_samples", n_samples)
    whole(0).need("n_domains", n_domains)
    if n_domains < 1 or n_samples < n_domains:
        raise SettingError(
            f"Expected n_domains ≥ 1 and n_samples ≥ n_domains; got n_domains={n_domains}, n_samples={n_samples}."
        )
    wanted = (change,) if isinstance(change, str) else tuple(change)
    unknown = [name for name in wanted if name not in n_classes]
    if unknown:
        raise SettingError(f"change names {unknown}, which are no factors of these images. Choose from {[*n_classes]}.")
    if wanted and n_domains < 2:
        raise SettingError(f"change={wanted} needs at least 2 domains; got n_domains=1. Add domains or pass change=().")
    single = [name for name in wanted if n_classes[name] == 1]
    if single:
        raise SettingError(f"change names {single}, but there is only one class to draw. Leave it out or allow more.")
    return tuple(name for name in n_classes if name in wanted)


def factor_kinds(n_classes: dict[str, int]) -> dict[str, Kind]:
    return {name: "discrete" if count else "continuous" for name, count in n_classes.items()}
