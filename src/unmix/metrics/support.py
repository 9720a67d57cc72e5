r"""Was the support of the mixing recovered: which latents drive which features?

The estimate's columns are put in the order of the true latents and divided by their largest absolute entry, because a
latent's scale means nothing: :math:`\hat M_{ki} \leftarrow |\hat M_{k\pi(i)}| / \max_l |\hat M_{l\pi(i)}|`. Against the
true support M:

- :math:`F_1 = 2\,TP / (2\,TP + FP + FN)` of the entries above a threshold;
- AUROC: the chance that an entry in the support is larger than one outside it, no threshold needed;
- Hamming distance: FP + FN, entries to change.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from unmix.errors import DataError, SettingError
from unmix.metrics.inputs import Bools, Floats, Ints, as_array, generator, matrix, warn
from unmix.metrics.prediction import area_under_curve
from unmix.metrics.recovery import match
from unmix.metrics.score import Score, interval


def support_recovery(
    support_true: ArrayLike,
    mixing_hat: ArrayLike,
    *,
    assignment: ArrayLike | None = None,
    threshold: float = 0.1,
    n_bootstrap: int = 200,
    random_state: int = 0,
) -> Score:
    """F1 of the mixing's support (the value), AUROC and Hamming distance.

    Parameters
    ----------
    support_true : 0/1 array (n_features, n_factors)
    mixing_hat : array (n_features, n_latents)
        How strongly each latent drives each feature, such as ``model.mixing_``. Signs are ignored. Features must be
        comparable, such as in units of their standard deviation.
    assignment : int array (n_factors,), optional
        Latent of each factor, -1 for none, as in ``mcc(...).details["assignment"]``. Without it, columns are matched by
        how well they fit the true support, which flatters the estimate; ``chance`` is flattered as much.
    threshold : float, default 0.1
        An entry is in the estimated support when it exceeds this share of its column's largest.
    n_bootstrap : int, default 200
        Resamples of the features behind ``interval``, and shuffles of the features behind ``chance``.
    random_state : int, default 0

    Returns
    -------
    Score
        F1 in [0, 1]; ``per_factor`` F1 column by column. ``details`` holds ``auroc`` (NaN with a ``MetricWarning`` when
        the true support is full or empty), ``hamming``, ``assignment`` and ``support`` (n_features, n_factors), the
        estimate in the order of the factors. Latents without a factor are ignored.

    Raises
    ------
    DataError
        The matrices do not have the same features, ``support_true`` holds more than 0 and 1, or ``assignment`` does not
        name columns of ``mixing_hat``, each at most once.
    SettingError
        ``threshold`` is not between 0 and 1.

    Examples
    --------
    >>> score = support_recovery([[1, 0], [1, 1], [0, 1]], [[0.0, -8.0], [0.3, 5.0], [0.2, 0.1]])
    >>> float(score), score.details["hamming"], score.details["assignment"].tolist()
    (1.0, 0, [1, 0])
    """
    rng = generator(random_state, n_bootstrap)
    truth, found = matrix("support_true", support_true), np.abs(matrix("mixing_hat", mixing_hat))
    if not np.isin(truth, (0, 1)).all():
        raise DataError("support_true must hold 0 and 1 only. Threshold it first.")
    if len(truth) != len(found):
        raise DataError(
            f"support_true and mixing_hat must have the same features as rows; got {len(truth)} and {len(found)}."
        )
    if not isinstance(threshold, int | float) or not 0 <= threshold < 1:
        raise SettingError(f"threshold must be a share of the largest entry, 0 ≤ threshold < 1; got {threshold}.")
    support = truth.astype(bool)
    largest = found.max(axis=0)
    found = np.where(largest > 0, found / np.where(largest > 0, largest, 1.0), 0.0)
    given = None if assignment is None else _checked(assignment, support.shape[1], found.shape[1])
    chosen = _matched(support, found) if given is None else given
    ordered = _in_order(found, chosen)
    estimate = ordered > threshold
    value = float(_f1(support, estimate))
    per_factor = np.array([_f1(support[:, i], estimate[:, i]) for i in range(support.shape[1])])
    draws = [rng.integers(len(support), size=len(support)) for _ in range(n_bootstrap)]
    boots = [_f1(support[rows], estimate[rows]) for rows in draws]

    def shuffled() -> float:
        other = found[rng.permutation(len(found))]
        return _f1(support, _in_order(other, _matched(support, other) if given is None else given) > threshold)

    chance = float(np.mean([shuffled() for _ in range(max(n_bootstrap, 20))]))
    if support.all() or not support.any():
        warn("The true support is full or empty: AUROC needs entries inside and outside, and is NaN.")
    area = area_under_curve(ordered.ravel(), support.ravel(), np.ones((1, support.size)))[0]
    details = {
        "auroc": float(area),
        "hamming": int((support != estimate).sum()),
        "assignment": chosen,
        "support": estimate,
    }
    settings = {
        "threshold": threshold,
        "matched_by": "support" if given is None else "assignment",
        "n_features": len(support),
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    return Score(value, per_factor, interval(value, boots, 0.0, 1.0), chance, details, settings)


def _checked(assignment: ArrayLike, n_factors: int, n_latents: int) -> Ints:
    asked = as_array("assignment", assignment, f"a column number of mixing_hat for each of {n_factors} factors")
    partners = asked[asked >= 0] if asked.dtype.kind in "iu" else asked
    whole = asked.dtype.kind in "iu" and asked.shape == (n_factors,) and asked.min() >= -1 and asked.max() < n_latents
    if not whole or len(set(partners.tolist())) < len(partners):
        raise DataError(
            f"assignment must name, for each of {n_factors} factors, a different column of mixing_hat from 0 to "
            f"{n_latents - 1}, or -1; got {asked.tolist()}."
        )
    return asked.astype(np.int64)


def _matched(support: Bools, found: Floats) -> Ints:
    """Pair columns by cosine, which needs no threshold."""
    lengths = np.sqrt(support.sum(axis=0))[:, None] * np.sqrt((found**2).sum(axis=0))
    products = support.T.astype(float) @ found
    return match(np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1.0), 0.0))


def _in_order(found: Floats, assignment: Ints) -> Floats:
    result: Floats = np.where(assignment >= 0, found[:, assignment], 0.0)
    return result


def _f1(truth: Bools, estimate: Bools) -> float:
    """F1; 1 when there is nothing to find and nothing was found."""
    either = truth.sum() + estimate.sum()
    return float(2.0 * (truth & estimate).sum() / either) if either else 1.0
