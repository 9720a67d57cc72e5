"""A problem with known latents, and the mixings and random numbers that several published generators share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Function = Callable[[Floats], Floats]
Range = tuple[float, float]


@dataclass(frozen=True)
class Problem:
    """A data set and its truth; rows are in the order of the domains.

    Attributes
    ----------
    x : float array (n_samples, n_features)
    domains : int array (n_samples,); a single label where the generator knows no domains
    z : float array (n_samples, n_latents), the true latents
    name : str
    notes : str, whose generator this is, and what of z can be found at all
    changing : bool array (n_domains, n_latents)
        Whether the mechanism of the latent is another in this domain than in the first.
    mixing : callable, (n, n_latents) to (n, n_features), without noise
    noiseless : bool, whether x is mixing(z) and nothing else
    """

    x: Floats
    domains: Ints
    z: Floats
    name: str
    notes: str
    changing: Bools
    mixing: Function = field(repr=False)
    noiseless: bool = True


def leaky_relu(slope: float) -> Function:
    return lambda x: np.where(x > 0, x, slope * x)


def leaky_tanh(slope: float) -> Function:
    return lambda x: np.tanh(x) + slope * x


def dense_network(x: Floats, weights: list[Floats], activation: Function, last: bool) -> Floats:
    """Layers x W without bias, each followed by the activation, the last one only if ``last``."""
    for layer, weight in enumerate(weights):
        x = x @ weight
        if last or layer < len(weights) - 1:
            x = activation(x)
    return x


def orthogonal_flow(
    rng: np.random.Generator, size: int, n_nonlinear: int, slope: float, linear_first: bool = False
) -> Function:
    """``n_nonlinear`` times leaky ReLU and a random orthogonal matrix, after one such matrix if ``linear_first``."""
    turns: list[Floats] = [stats.ortho_group.rvs(size, random_state=rng) for _ in range(n_nonlinear + linear_first)]
    start = turns.pop(0) if linear_first else np.eye(size)
    return partial(dense_network, weights=[start, *turns], activation=leaky_relu(slope), last=False)


def standardised(z: Floats) -> Floats:
    scaled: Floats = (z - z.mean(axis=0)) / z.std(axis=0)
    return scaled


def signed(rng: np.random.Generator, sizes: Range, shape: Any) -> Floats:
    """Of size uniform between ``sizes``, with random signs."""
    return rng.uniform(*sizes, shape) * rng.choice([-1.0, 1.0], shape)


def linear_map(weights: Any) -> Function:
    return lambda z: z @ weights


def torch_network(rng: np.random.Generator, sizes: list[int], activation: Function) -> Function:
    """A network with biases, linear at its end, with the initial weights of ``torch.nn.Linear``."""
    layers = []
    for n_in, n_out in pairwise(sizes):
        bound = 1.0 / np.sqrt(n_in)
        layers.append((rng.uniform(-bound, bound, (n_in, n_out)), rng.uniform(-bound, bound, n_out)))

    def network(x: Floats) -> Floats:
        for layer, (weight, bias) in enumerate(layers):
            x = (activation(x) if layer else x) @ weight + bias
        return x

    return network


def all_but_first(n_domains: int, n_latents: int) -> Bools:
    """Every latent changes in every domain but the first, with which the others are compared."""
    return np.repeat(np.arange(n_domains) > 0, n_latents).reshape(n_domains, n_latents)
