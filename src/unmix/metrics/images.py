r"""Are generated images like real ones, and do translations keep their content? Arrays of features, never images.

The caller extracts the features and names the extractor, because the numbers mean nothing without it: only features of
one Inception network give what the literature prints as "FID". Rows are images.

- Fréchet distance of Gaussian fits: :math:`\|\mu_1 - \mu_2\|^2
  + \mathrm{tr}\big(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2})^{1/2}\big)`. Biased upwards, by
  more for fewer images and more features: compare at equal numbers only.
- Kernel Inception Distance (KID): with :math:`k(x, y) = (x^\top y / F + 1)^3` for F features, the unbiased squared
  maximum mean discrepancy, mean over blocks of images. Unbiased, so it may be below 0.
- Domain-invariant perceptual distance (DIPD): mean over pairs of
  :math:`\|f(x_n^{(1)}) - f(x_n^{(2)})\|_2`, images that share the noise and differ in domain.

With domain labels, of both sets for ``fid`` and ``kid``, of the pairs for ``dipd``, each compares domain by domain, and
its value is the mean over domains. Resamples are then drawn within domains.

All three: smaller is better. DIPD with features that were trained to tell domains apart measures the domain
itself, and calls a perfect translation bad: take features of a judge of content, or of a network that drops style by
instance normalisation of its feature maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unmix.errors import DataError, DomainError, SettingError
from unmix.labels import natural_order
from unmix.metrics.inputs import Floats, at_least, centred, generator, labels, matrix, warn
from unmix.metrics.score import Score, domain_details, interval

_LARGEST = 1e24
_LEAST_SPREAD = 1e-6


def fid(
    features_real: ArrayLike,
    features_generated: ArrayLike,
    *,
    extractor: str,
    domains_real: ArrayLike | None = None,
    domains_generated: ArrayLike | None = None,
    n_bootstrap: int = 20,
    random_state: int = 0,
) -> Score:
    """Fréchet distance between Gaussian fits of two sets of features.

    Parameters
    ----------
    features_real, features_generated : arrays (n_images, n_features), at least two rows each
    extractor : str
        Name of what made the features; kept in ``settings`` and to be printed with the value.
    domains_real, domains_generated : labels (n_images,), optional
        The domain of each row, of both sets or of none; the same domains in both.
    n_bootstrap : int, default 20
        Resamples of both sets behind ``interval``; each takes two eigendecompositions of n_features × n_features.
    random_state : int, default 0

    Returns
    -------
    Score
        ``per_factor`` has one value for each domain, or the one value. ``chance`` is the distance after the images
        were shuffled between the two sets, within domains: the bias at these numbers of images, to which equal
        distributions come down. ``details`` holds the two summands, ``mean_part`` and ``covariance_part``, and with
        domains their names and intervals, ``domain``, ``low``, ``high``, and ``n``, the generated images of each.

    Raises
    ------
    DataError
        The sets do not have the same features, or fewer than two rows (of a domain).
    DomainError
        The two sets do not have the same domains, or one has labels and the other none.
    SettingError
        ``extractor`` is not a name.

    References
    ----------
    Heusel et al. 2017, arXiv:1706.08500, equation 6.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((500, 3))
    >>> round(fid(x, x + 2.0, extractor="pixels"), 6)
    12.0
    """
    rng = generator(random_state, n_bootstrap)
    real, made = _sets(features_real, features_generated, extractor)
    # The distance does not change with a common shift; small numbers keep their digits.
    centre = real.mean(axis=0)
    names, parts = _by_domain(real - centre, made - centre, domains_real, domains_generated)
    summands = np.array([_frechet(*part) for part in parts])
    boots = np.array(
        [
            [sum(_frechet(*(x[rng.integers(len(x), size=len(x))] for x in part))) for part in parts]
            for _ in range(n_bootstrap)
        ]
    ).reshape(n_bootstrap, len(parts))
    chance = float(np.mean([sum(_frechet(*_shuffled(*part, rng))) for part in parts]))
    settings = {
        "extractor": extractor,
        "n_real": len(real),
        "n_generated": len(made),
        "n_features": real.shape[1],
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    mean_part, covariance_part = (list(map(float, part)) if names else float(part[0]) for part in summands.T)
    details = {"mean_part": mean_part, "covariance_part": covariance_part}
    return _mean_score(summands.sum(axis=1), boots, chance, names, parts, details, settings, low=0.0)


def kid(
    features_real: ArrayLike,
    features_generated: ArrayLike,
    *,
    extractor: str,
    domains_real: ArrayLike | None = None,
    domains_generated: ArrayLike | None = None,
    n_blocks: int = 20,
    n_bootstrap: int = 200,
    random_state: int = 0,
) -> Score:
    """Kernel Inception Distance: unbiased squared maximum mean discrepancy, cubic kernel, mean over disjoint blocks.

    Parameters
    ----------
    features_real, features_generated : arrays (n_images, n_features)
    extractor : str
        Name of what made the features; kept in ``settings`` and to be printed with the value.
    domains_real, domains_generated : labels (n_images,), optional
        The domain of each row, of both sets or of none; the same domains in both.
    n_blocks : int, default 20
        Both sets, or their parts in each domain, are shuffled and cut into so many blocks, of at least two images.
    n_bootstrap : int, default 200
        Resamples of the blocks behind ``interval``.
    random_state : int, default 0

    Returns
    -------
    Score
        ``per_factor`` has one value for each domain, or the one value; ``details["blocks"]`` (n_blocks,) or
        (n_domains, n_blocks), with domains also ``domain``, ``low``, ``high``, ``n`` as of ``fid``. ``chance`` is the
        value after the images were shuffled between the two sets, within domains, 0 on average.

    Raises
    ------
    DataError
        The sets do not have the same features, or fewer than two images a block.
    DomainError
        The two sets do not have the same domains, or one has labels and the other none.
    SettingError
        ``extractor`` is not a name, or ``n_blocks`` is below 1.

    References
    ----------
    Bińkowski et al. 2018, arXiv:1801.01401.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((800, 4))
    >>> same, moved = kid(x[:400], x[400:], extractor="pixels"), kid(x[:400], x[400:] + 1.0, extractor="pixels")
    >>> abs(same) < 0.1 < moved
    True
    """
    rng = generator(random_state, n_bootstrap)
    real, made = _sets(features_real, features_generated, extractor)
    at_least("n_blocks", n_blocks, 1)
    both = np.concatenate([real, made])
    if 0 < centred(both).std() < _LEAST_SPREAD * np.abs(both).max():
        warn(
            "The features vary by less than a millionth of their size, and the kernel loses digits: centre them first."
        )
    names, parts = _by_domain(real, made, domains_real, domains_generated)
    few = min(parts, key=lambda part: min(map(len, part)))
    if min(map(len, few)) < 2 * n_blocks:
        where = " of each domain" if names else ""
        raise DataError(
            f"Each of {n_blocks} blocks needs two images of both sets{where}; got {len(few[0])} and {len(few[1])} "
            "images. Pass more, or lower n_blocks."
        )

    def blocks(a: Floats, b: Floats) -> Floats:
        cut = (np.array_split(rng.permutation(len(x)), n_blocks) for x in (a, b))
        return np.array([squared_discrepancy(a[i], b[j]) for i, j in zip(*cut, strict=True)])

    values = np.array([blocks(*part) for part in parts])
    drawn = rng.integers(n_blocks, size=(n_bootstrap, len(parts), n_blocks))
    boots = np.take_along_axis(values[None], drawn, axis=2).mean(axis=2)
    chance = float(np.mean([blocks(*_shuffled(*part, rng)).mean() for part in parts]))
    settings = {
        "extractor": extractor,
        "n_real": len(real),
        "n_generated": len(made),
        "n_features": real.shape[1],
        "n_blocks": n_blocks,
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    # The spread of one block says nothing.
    spread = boots if n_blocks > 1 else boots[:0]
    details = {"blocks": values if names else values[0]}
    return _mean_score(values.mean(axis=1), spread, chance, names, parts, details, settings)


def dipd(
    features_first: ArrayLike,
    features_second: ArrayLike,
    *,
    extractor: str,
    domains: ArrayLike | None = None,
    n_bootstrap: int = 200,
    random_state: int = 0,
) -> Score:
    """Domain-invariant perceptual distance: how far apart are images that share the noise and differ in domain?

    Parameters
    ----------
    features_first, features_second : arrays (n_pairs, n_features)
        Row n of both comes from the same noise, in two domains. Never features that were trained to tell domains
        apart: they differ the more, the better the translation. Take those of a classifier of content, such as
        ``ImageClassifier(instance_norm=True)`` fitted on content labels.
    extractor : str
        Name of what made the features; kept in ``settings`` and to be printed with the value.
    domains : labels (n_pairs,), optional
        The domain of each pair, such as the one that its image was translated to.
    n_bootstrap : int, default 200
        Resamples of the pairs behind ``interval``.
    random_state : int, default 0

    Returns
    -------
    Score
        ``per_factor`` has one value for each domain, or the one value. ``chance`` is the distance of pairs shuffled
        within domains, which share no noise: ``details["relative"]`` is the value as a share of it.
        ``details["distances"]`` (n_pairs,); with domains also ``domain``, ``low``, ``high``, ``n`` as of ``fid``.

    Raises
    ------
    DataError
        The two arrays do not have the same shape, or fewer than two rows (of a domain).
    SettingError
        ``extractor`` is not a name.

    References
    ----------
    Huang et al. 2018, arXiv:1804.04732 (domain-invariant perceptual loss).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((500, 3))
    >>> float(dipd(x, x, extractor="pixels")), dipd(x, x, extractor="pixels").chance > 1
    (0.0, True)
    """
    rng = generator(random_state, n_bootstrap)
    first, second = _sets(features_first, features_second, extractor)
    if len(first) != len(second):
        raise DataError(f"Row n of both arrays must be one pair; got {len(first)} and {len(second)} rows.")
    distances = np.linalg.norm(first - second, axis=1)
    names, places = _pairs_by_domain(len(first), domains)
    parts = [(first[own], second[own]) for own in places]
    values = np.array([distances[own].mean() for own in places])
    drawn = (distances[own][rng.integers(len(own), size=(n_bootstrap, len(own)))] for own in places)
    boots = np.stack([own.mean(axis=1) for own in drawn], axis=1)
    chance = float(np.mean([np.linalg.norm(a - b[rng.permutation(len(b))], axis=1).mean() for a, b in parts]))
    settings = {
        "extractor": extractor,
        "n_pairs": len(first),
        "n_features": first.shape[1],
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    relative = float(values.mean()) / chance if chance > 0 else float("nan")
    details = {"distances": distances, "relative": relative}
    return _mean_score(values, boots, chance, names, parts, details, settings, low=0.0)


def squared_discrepancy(a: Floats, b: Floats) -> float:
    """Unbiased squared maximum mean discrepancy with the cubic kernel; two or more rows each."""
    within = [_cubic(x, x) for x in (a, b)]
    same = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in within]
    return float(same[0] + same[1] - 2.0 * _cubic(a, b).mean())


def _cubic(a: Floats, b: Floats) -> Floats:
    result: Floats = (a @ b.T / a.shape[1] + 1.0) ** 3
    return result


def _frechet(a: Floats, b: Floats) -> tuple[float, float]:
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    # Symmetric, so its eigenvalues are real; those of the plain product Σ₁Σ₂ come back complex from rounding.
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0.0)).sum()
    mean_part = float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum())
    return mean_part, max(float(np.trace(first) + np.trace(second) - 2.0 * cross), 0.0)


def _by_domain(
    real: Floats, made: Floats, domains_real: ArrayLike | None, domains_generated: ArrayLike | None
) -> tuple[tuple[str, ...], list[tuple[Floats, Floats]]]:
    """Names of the domains and both sets in each; without labels no name and the sets as they are."""
    if domains_real is None and domains_generated is None:
        return (), [(real, made)]
    if domains_real is None or domains_generated is None:
        raise DomainError("Domains of one set only: pass domains_real and domains_generated, or neither.")
    first = np.array(labels("domains_real", domains_real, len(real)))
    second = np.array(labels("domains_generated", domains_generated, len(made)))
    names = natural_order([*first.tolist(), *second.tolist()])
    for name in names:
        counts = [int((words == name).sum()) for words in (first, second)]
        if 0 in counts:
            raise DomainError(
                f"Domain {name!r} has {counts[0]} real and {counts[1]} generated images. Pass images of the same "
                "domains in both sets."
            )
        if min(counts) < 2:
            raise DataError(f"Domain {name!r} has {counts[0]} real and {counts[1]} generated images; pass two or more.")
    return names, [(real[first == name], made[second == name]) for name in names]


def _pairs_by_domain(n_pairs: int, domains: ArrayLike | None) -> tuple[tuple[str, ...], list[NDArray[np.int64]]]:
    """Names of the domains and the places of the pairs of each; without labels no name and all places."""
    if domains is None:
        return (), [np.arange(n_pairs)]
    words = np.array(labels("domains", domains, n_pairs))
    names = natural_order(words.tolist())
    places = [np.flatnonzero(words == name) for name in names]
    for name, own in zip(names, places, strict=True):
        if len(own) < 2:
            raise DataError(f"Domain {name!r} has 1 pair; pass two or more.")
    return names, places


def _mean_score(
    values: Floats,
    boots: Floats,
    chance: float,
    names: tuple[str, ...],
    parts: Sequence[tuple[Floats, Floats]],
    details: dict[str, Any],
    settings: Mapping[str, object],
    low: float = -np.inf,
) -> Score:
    """The mean over domains; ``boots`` (n_bootstrap, n_domains)."""
    value = float(values.mean())
    if names:
        ends = [interval(float(own), boots[:, k], low) for k, own in enumerate(values)]
        details = details | domain_details(names, ends, [len(made) for _, made in parts])
    return Score(value, values, interval(value, boots.mean(axis=1), low), chance, details, settings)


def _shuffled(a: Floats, b: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    together = np.concatenate([a, b])[rng.permutation(len(a) + len(b))]
    return together[: len(a)], together[len(a) :]


def _sets(first: ArrayLike, second: ArrayLike, extractor: str) -> tuple[Floats, Floats]:
    if not isinstance(extractor, str) or not extractor.strip():
        raise SettingError(f'extractor must name what made the features, such as "inception-v3"; got {extractor!r}.')
    a, b = matrix("The first array of features", first), matrix("The second array of features", second)
    largest = max(np.abs(a).max(), np.abs(b).max())
    if largest > 0 and not 1 / _LARGEST <= largest <= _LARGEST:
        raise DataError(
            f"The largest feature must lie between {1 / _LARGEST:g} and {_LARGEST:g}, where its powers do not overflow "
            f"or vanish; got {largest:g}. Multiply both arrays by one number."
        )
    if a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise DataError(
            f"Both arrays must have the same features and at least two rows; got shapes {a.shape} and {b.shape}."
        )
    return a, b
