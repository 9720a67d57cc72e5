r"""True mixings g: latents to noiseless features, with exact derivatives.

Features (and the sparse flow), one small network per feature, of its parents only:

.. math:: g_k(z) = \Big(\sum_i a_{ki} z_i + \sum_h c_{kh} \tanh\big(\sum_i b_{khi} z_i + b_{kh}\big)
          - \mu_k\Big) / \sigma_k

In the flow, n features add one latent each (``unmix.datasets.supports``). For the latent i that such a feature k adds,
:math:`c_{kh} b_{khi}` has the sign of :math:`a_{ki}`: the derivative by it is never smaller than
:math:`|a_{ki}| / \sigma_k`, so the latents can be read off one after the other, and g is injective on the whole space.

Dense: invertible layers :math:`h \mapsto f(Q h + b)`, Q orthogonal, :math:`f(t) = t + \nu \tanh 2t`, then a matrix with
orthonormal columns. Injective on the whole space, and every feature depends on every latent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Form = Literal["features", "flow", "dense"]

FORMS = ("features", "flow", "dense")
_HIDDEN = 6
_LAYERS = 2
UNITS_AT_ONCE = 8_000_000


class Mixing(Protocol):
    """A map of latents (n_samples, n_latents) to noiseless features (n_samples, n_features).

    ``jacobian(z)`` has shape (n_samples, n_features, n_latents).
    """

    def __call__(self, z: ArrayLike, /) -> Floats: ...

    def jacobian(self, z: ArrayLike, /) -> Floats: ...


@dataclass(frozen=True)
class SparseMixing:
    """The mixing g: latents (n_samples, n_latents) to noiseless features (n_samples, n_features).

    Calling it gives the features; ``jacobian(z)`` the exact derivatives (n_samples, n_features, n_latents).
    """

    support: Bools
    linear: Floats = field(repr=False)
    inner: Floats = field(repr=False)
    bias: Floats = field(repr=False)
    outer: Floats = field(repr=False)
    center: Floats = field(repr=False)
    scale: Floats = field(repr=False)

    def __call__(self, z: ArrayLike) -> Floats:
        z = np.asarray(z, dtype=float)
        raw = z @ self.linear.T + self._in_parts(self._curved, z)
        return np.asarray((raw - self.center) / self.scale)

    def jacobian(self, z: ArrayLike) -> Floats:
        raw = self.linear + self._in_parts(self._slopes, np.asarray(z, dtype=float))
        return np.asarray(raw / self.scale[:, None])

    def _curved(self, z: Floats) -> Floats:
        return np.asarray(np.einsum("skh,kh->sk", self._hidden(z), self.outer))

    def _slopes(self, z: Floats) -> Floats:
        return np.asarray(np.einsum("skh,khi->ski", (1.0 - self._hidden(z) ** 2) * self.outer, self.inner))

    def _hidden(self, z: Floats) -> Floats:
        return np.asarray(np.tanh(np.einsum("si,khi->skh", z, self.inner) + self.bias))

    def _in_parts(self, function: Callable[[Floats], Floats], z: Floats) -> Floats:
        """The function, some rows at a time: the hidden units of all rows at once can fill the memory."""
        rows = max(1, UNITS_AT_ONCE // self.bias.size)
        if len(z) <= rows:
            return function(z)
        return np.concatenate([function(z[start : start + rows]) for start in range(0, len(z), rows)])


@dataclass(frozen=True)
class DenseMixing:
    """An injective network in which every feature depends on every latent; called as ``SparseMixing``."""

    layers: list[tuple[Floats, Floats]] = field(repr=False)
    readout: Floats = field(repr=False)
    nonlinearity: float
    center: Floats = field(repr=False)
    scale: Floats = field(repr=False)

    def __call__(self, z: ArrayLike) -> Floats:
        hidden = np.asarray(z, dtype=float)
        for weight, bias in self.layers:
            hidden = hidden @ weight.T + bias
            hidden = hidden + self.nonlinearity * np.tanh(2.0 * hidden)
        return np.asarray((hidden @ self.readout.T - self.center) / self.scale)

    def jacobian(self, z: ArrayLike) -> Floats:
        hidden = np.asarray(z, dtype=float)
        tangent = np.broadcast_to(np.eye(hidden.shape[1]), (len(hidden), hidden.shape[1], hidden.shape[1]))
        for weight, bias in self.layers:
            hidden = hidden @ weight.T + bias
            squashed = np.tanh(2.0 * hidden)
            tangent = (1.0 + 2.0 * self.nonlinearity * (1.0 - squashed**2))[:, :, None] * (weight @ tangent)
            hidden = hidden + self.nonlinearity * squashed
        return np.asarray(self.readout @ tangent / self.scale[:, None])


@dataclass(frozen=True)
class RedundantMixing:
    """``base``, and after its features linear combinations of them."""

    base: SparseMixing | DenseMixing
    weights: Floats = field(repr=False)
    center: Floats = field(repr=False)
    scale: Floats = field(repr=False)

    def __call__(self, z: ArrayLike) -> Floats:
        features = self.base(z)
        return np.hstack([features, (features @ self.weights.T - self.center) / self.scale])

    def jacobian(self, z: ArrayLike) -> Floats:
        slopes = self.base.jacobian(z)
        return np.concatenate([slopes, self.weights @ slopes / self.scale[:, None]], axis=1)


def draw_sparse(
    rng: np.random.Generator, strength: Floats, z: Floats, nonlinearity: float, own: NDArray[np.int64] | None = None
) -> tuple[SparseMixing, Floats]:
    """A mixing with ``strength`` (n_features, n_latents) times ordinary weights, and its features of ``z``.

    ``own`` makes it a flow: the latent that each feature is monotone in, -1 for none.
    """
    n_features, n_latents = strength.shape
    support = strength > 0
    linear = rng.uniform(0.5, 1.5, support.shape) * rng.choice([-1.0, 1.0], support.shape) * strength
    # Weak edges leave the strong ones as they would be without them.
    parents = (strength == 1).sum(axis=1)[:, None, None]
    inner = rng.standard_normal((n_features, _HIDDEN, n_latents)) * strength[:, None, :] / np.sqrt(parents)
    bias = rng.standard_normal((n_features, _HIDDEN))
    outer = rng.standard_normal((n_features, _HIDDEN)) * nonlinearity / np.sqrt(_HIDDEN)
    if own is not None:
        feature = np.flatnonzero(own >= 0)
        latent = own[feature]
        sign = np.sign(linear[feature, latent])[:, None] * np.where(outer[feature] < 0, -1.0, 1.0)
        inner[feature, :, latent] = np.abs(inner[feature, :, latent]) * sign
    raw = SparseMixing(support, linear, inner, bias, outer, np.zeros(n_features), np.ones(n_features))
    clean = raw(z)
    center, scale = clean.mean(axis=0), clean.std(axis=0)
    return SparseMixing(support, linear, inner, bias, outer, center, scale), (clean - center) / scale


def draw_dense(rng: np.random.Generator, n_features: int, z: Floats, nonlinearity: float) -> tuple[DenseMixing, Floats]:
    n_latents = z.shape[1]
    layers: list[tuple[Floats, Floats]] = []
    for _ in range(_LAYERS):
        orthogonal = np.linalg.qr(rng.standard_normal((n_latents, n_latents)))[0]
        layers.append((orthogonal, rng.standard_normal((n_latents,))))
    readout = np.linalg.qr(rng.standard_normal((n_features, n_latents)))[0]
    clean = DenseMixing(layers, readout, nonlinearity, np.zeros(n_features), np.ones(n_features))(z)
    center, scale = clean.mean(axis=0), clean.std(axis=0)
    return DenseMixing(layers, readout, nonlinearity, center, scale), (clean - center) / scale


def draw_redundant(
    rng: np.random.Generator, base: SparseMixing | DenseMixing, clean: Floats, n_redundant: int
) -> tuple[RedundantMixing, Floats]:
    """``n_redundant`` more features, each one feature again or a combination of two, and all features of the sample."""
    n_features = clean.shape[1]
    weights = np.zeros((n_redundant, n_features))
    for row in weights:
        chosen = rng.choice(n_features, min(n_features, int(rng.integers(1, 3))), replace=False)
        row[chosen] = rng.uniform(0.5, 1.5, len(chosen)) * rng.choice([-1.0, 1.0], len(chosen))
    copies = clean @ weights.T
    center, scale = copies.mean(axis=0), copies.std(axis=0)
    return RedundantMixing(base, weights, center, scale), np.hstack([clean, (copies - center) / scale])
