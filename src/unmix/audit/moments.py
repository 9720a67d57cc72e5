"""How domains move and stretch each latent: moments, shuffled labels, and the rank of the changes beyond noise.

``unmix.audit.changes`` explains the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from unmix.audit.input import AuditInput

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

LEAST_SD = 1e-3
_SHUFFLES = 200
_RESAMPLES = 200
_LEVEL = 0.05
_SAME = 0.02
_BEYOND_LABELS = 2.0


@dataclass(frozen=True)
class Moments:
    """Natural parameters of every domain by moments.

    ``natural`` (domains, 2 n_latents): (1/s², m/s²), centred, in units of its sampling noise; ``noise`` (resamples,
    domains, 2 n_latents): its change when rows are resampled.
    """

    natural: Floats
    noise: Floats

    def rank(self, columns: list[int]) -> int:
        """Directions of these columns beyond noise."""
        return _above(self.natural[:, columns], self.noise[:, :, columns])


def _above(signal: Floats, noise: Floats) -> int:
    """Rank of ``signal`` (domains, columns) that ``noise`` (draws, domains, columns) does not explain, step by step."""
    left, singular, right = np.linalg.svd(signal)
    turned, limit = left.T @ noise @ right.T, np.inf
    for rank, size in enumerate(singular):
        # With this rank, the part beyond the directions found is noise (Robin and Smith 2000). Fewer dimensions have
        # less noise, so a value above the last limit is above this one.
        if size <= limit:
            limit = np.quantile(np.linalg.norm(turned[:, rank:, rank:], ord=2, axis=(1, 2)), 1 - _LEVEL)
        if size <= limit:
            return rank
    return len(singular)


@dataclass(frozen=True)
class Measured:
    """``share``, ``seen`` (3, n_latents): how much location, scale, shape differ, and if beyond shuffled labels."""

    share: Floats
    seen: Bools
    visible: float

    @property
    def stays(self) -> Bools:
        """Latents whose location and shape do not change."""
        moves = self.seen & (self.share >= _SAME)
        return np.asarray(~(moves[0] | moves[2]))


def measure(z: Floats, labels: Ints, weights: Floats, rng: np.random.Generator, by_labels: Floats) -> Measured:
    actual = _differences(z, labels, weights)
    # Shuffling the rows is equivalent to shuffling the labels.
    shuffled = np.stack([_differences(rng.permutation(z), labels, weights) for _ in range(_SHUFFLES)])
    # The limit is the largest value over all latents of a shuffle, and the three kinds of change share the level. So
    # false changes do not become more likely with many latents and tests.
    limit = np.quantile(shuffled.max(axis=2), 1 - _LEVEL / len(actual), axis=0)
    visible = float((limit - shuffled.mean(axis=(0, 2))).max())
    return Measured(actual, actual > np.maximum(limit[:, None], _BEYOND_LABELS * by_labels), visible)


def averages(labels: Ints, n_domains: int) -> Floats:
    """Weights (domains, rows) that take the mean over the rows of each domain."""
    own = (labels == np.arange(n_domains)[:, None]).astype(float)
    weights: Floats = own / own.sum(axis=1, keepdims=True)
    return weights


def normal_scores(z: Floats) -> Floats:
    """Ranks of every column as quantiles of a normal distribution, with variance 1."""
    scores = norm.ppf((rankdata(z, axis=0) - 0.5) / len(z))
    result: Floats = scores / np.maximum(scores.std(axis=0), LEAST_SD)
    return result


def by_labels_alone(subject: AuditInput) -> Floats:
    """``_differences`` (2, 3, n_latents) that the encoder produces from shuffled labels, largest of some shuffles.

    For the latents and for their normal scores.
    """
    found = np.zeros((2, 3, subject.n_latents))
    if subject.relabelled is None or subject.relabelled_strata is None:
        return found
    for z, strata in zip(subject.relabelled, subject.relabelled_strata, strict=True):
        rows = np.isin(strata, subject.large)
        labels = np.searchsorted(subject.large, strata[rows])
        weights = averages(labels, len(subject.large))
        both = [_differences(values, labels, weights) for values in (z[rows], normal_scores(z[rows]))]
        found = np.maximum(found, both)
    return found


def moments_of(z: Floats, labels: Ints, weights: Floats, rng: np.random.Generator, few: bool) -> Moments:
    """Centred natural parameters and their resampling noise, in units of the latter; rows in order of ``labels``."""
    first, size = np.searchsorted(labels, labels), np.bincount(labels)[labels]
    natural = _natural(z, weights, few)
    chosen = first + (rng.random((_RESAMPLES, len(z))) * size).astype(np.int64)
    noise = np.stack([_natural(z[rows], weights, few) - natural for rows in chosen])
    unit = np.maximum(np.sqrt((noise**2).mean(axis=(0, 1))), 1e-12)
    return Moments(natural / unit, noise / unit)


def _natural(z: Floats, weights: Floats, few: bool) -> Floats:
    """(1/s², m/s²) of every domain, or with ``few`` rows (log s, m), centred.

    ``weights`` (domains, rows) are those of ``averages``.
    """
    mean = weights @ z
    variance = np.maximum(weights @ z**2 - mean**2, LEAST_SD**2)
    both = np.hstack([0.5 * np.log(variance), mean] if few else [1.0 / variance, mean / variance])
    result: Floats = both - both.mean(axis=0)
    return result


def _differences(z: Floats, labels: Ints, weights: Floats) -> Floats:
    """Share of the variance between domains of z, of |z - m| and of a measure of skewness (3, n_latents)."""
    share = np.bincount(labels)[:, None] / len(labels)
    distance = z - (weights @ z)[labels]
    size = np.abs(distance)
    scaled = distance / np.maximum(weights @ size, LEAST_SD)[labels]
    shares = []
    for part in (z, size, np.abs(scaled) * scaled):
        means, middle = weights @ part, part.mean(axis=0)
        total = np.maximum((part**2).mean(axis=0) - middle**2, 1e-12)
        shares.append((share * (means - middle) ** 2).sum(axis=0) / total)
    return np.stack(shares)
