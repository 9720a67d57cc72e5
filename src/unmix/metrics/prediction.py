r"""How well does one latent predict a factor (SAP), how well do simple classifiers predict it from all (explicitness)?

- Separated attribute predictability: with :math:`S_{ij}` the held-out score of predicting factor i from latent j alone,
  :math:`\mathrm{SAP}_i = S_{i(1)} - S_{i(2)}`, largest minus second largest. Score of a straight line:
  :math:`\max(0, R^2)`; of thresholds on a latent, for classes: balanced accuracy A rescaled to
  :math:`(A - 1/B)/(1 - 1/B)` with B classes, so that both run from 0 (chance) to 1.
- Explicitness: a multinomial logistic regression predicts the factor's class from all latents; the area under the ROC
  curve of each class against the rest, averaged and rescaled to :math:`2 (\mathrm{AUC} - 1/2)`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from unmix.metrics.information import bins
from unmix.metrics.inputs import Bools, Discrete, Floats, Ints, factor_pair, generator, halves, standardise, warn
from unmix.metrics.regression import line_fit, quiet_fits, r2_of
from unmix.metrics.score import Score, interval, mean_defined, row_counts


def sap(
    z_true: ArrayLike,
    z_hat: ArrayLike,
    *,
    discrete: Discrete = False,
    n_bootstrap: int = 200,
    random_state: int = 0,
) -> Score:
    """Separated attribute predictability: does one latent predict each factor, and no second one?

    Parameters
    ----------
    z_true : array (n_samples, n_factors)
    z_hat : array (n_samples, n_latents)
    discrete : bool, column numbers or mask, default False
        Factors that are classes, predicted by thresholds; the others by a straight line.
    n_bootstrap : int, default 200
        Resamples of the scored rows behind ``interval``.
    random_state : int, default 0

    Returns
    -------
    Score
        In [0, 1]; half of the rows fits, half is scored. A constant factor is NaN in ``per_factor`` and left out with
        a ``MetricWarning``. With a single latent the second-best score is 0. ``details["matrix"]`` holds the scores,
        (n_factors, n_latents).

    References
    ----------
    Kumar et al. 2018, arXiv:1711.00848; the rescaling of classes is ours.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).standard_normal((1000, 2))
    >>> round(sap(z, z), 2), round(sap(z, z[:, [0, 0, 1]]), 2)
    (1.0, 0.5)
    """
    rng = generator(random_state, n_bootstrap)
    z, w, classes, varies = factor_pair(z_true, z_hat, discrete, rng)
    w, lines = standardise(w), varies & ~classes
    z = np.where(classes, z, standardise(z))
    fitted, scored = halves(rng, len(z))
    once = np.ones((1, len(scored)))

    def scores(latents: Floats, counts: Floats) -> Floats:
        matrix = np.zeros((len(counts), z.shape[1], w.shape[1]))
        predicted = line_fit(latents[fitted], z[fitted][:, lines])(latents[scored])
        matrix[:, lines] = np.nan_to_num(r2_of(z[scored][:, lines][:, :, None], predicted, counts))
        for i in np.flatnonzero(varies & classes):
            codes = np.unique(z[:, i], return_inverse=True)[1]
            matrix[:, i] = threshold_scores(latents, codes, fitted, scored, counts)
        return np.clip(matrix, 0.0, 1.0)

    def gaps(matrix: Floats) -> Floats:
        ordered = np.sort(np.concatenate([np.zeros((*matrix.shape[:2], 1)), matrix], axis=2), axis=2)
        return np.where(varies, ordered[:, :, -1] - ordered[:, :, -2], np.nan)

    matrix = scores(w, once)
    per_factor = gaps(matrix)[0]
    value = mean_defined(per_factor)
    boots = [mean_defined(row) for row in gaps(scores(w, row_counts(rng, n_bootstrap, len(scored))))]
    chance = mean_defined(gaps(scores(w[rng.permutation(len(w))], once))[0])
    settings = {
        "n_samples": len(z),
        "discrete": np.flatnonzero(classes).tolist(),
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    return Score(value, per_factor, interval(value, boots, 0.0, 1.0), chance, {"matrix": matrix[0]}, settings)


def explicitness(
    z_true: ArrayLike,
    z_hat: ArrayLike,
    *,
    discrete: Discrete = False,
    n_bins: int = 10,
    max_samples: int = 4000,
    n_bootstrap: int = 200,
    random_state: int = 0,
) -> Score:
    """Can a linear classifier read each factor from all latents?

    Parameters
    ----------
    z_true : array (n_samples, n_factors)
    z_hat : array (n_samples, n_latents)
    discrete : bool, column numbers or mask, default False
        Factors that are classes; the others are put in quantile bins, whose bin is then the class.
    n_bins : int, default 10
    max_samples : int, default 4000
        Rows used, drawn at random; half fits, half is scored.
    n_bootstrap : int, default 200
        Resamples of the scored rows behind ``interval``.
    random_state : int, default 0

    Returns
    -------
    Score
        1 is perfect, 0 chance. A constant factor is NaN in ``per_factor``. Constant factors, and classes that the
        fitted or the scored half lacks, are left out with a ``MetricWarning``. ``details["auc"]`` holds the mean area
        per factor, not rescaled.

    References
    ----------
    Ridgeway and Mozer 2018, arXiv:1802.05312.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).standard_normal((1000, 2))
    >>> explicitness(z, z) > 0.9, explicitness(z**2, z) < 0.2
    (True, True)
    """
    rng = generator(random_state, n_bootstrap)
    z, w, classes, varies = factor_pair(z_true, z_hat, discrete, rng, max_samples)
    codes, w = bins(z, n_bins, classes), standardise(w)
    fitted, scored = halves(rng, len(z))
    usable = [np.intersect1d(codes[fitted, i], codes[scored, i]) for i in range(z.shape[1])]
    lacking = [i for i in np.flatnonzero(varies) if len(usable[i]) < codes[:, i].max() + 1]
    if lacking:
        warn(
            f"One half of the rows lacks classes of factors {[int(i) for i in lacking]}; they are left out. "
            "Pass more rows, or fewer bins (n_bins)."
        )

    def areas(latents: Floats, counts: Floats) -> Floats:
        result = np.full((len(counts), z.shape[1]), np.nan)
        for i in np.flatnonzero(varies):
            if len(usable[i]) > 1:
                result[:, i] = _mean_area(latents, codes[:, i], usable[i], fitted, scored, counts)
        return result

    once = np.ones((1, len(scored)))
    area = areas(w, once)[0]
    value = mean_defined(2.0 * area - 1.0)
    boots = [mean_defined(2.0 * row - 1.0) for row in areas(w, row_counts(rng, n_bootstrap, len(scored)))]
    chance = mean_defined(2.0 * areas(w[rng.permutation(len(w))], once)[0] - 1.0)
    settings = {
        "n_samples": len(z),
        "discrete": np.flatnonzero(classes).tolist(),
        "n_bins": n_bins,
        "max_samples": max_samples,
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    return Score(value, 2.0 * area - 1.0, interval(value, boots, -1.0, 1.0), chance, {"auc": area}, settings)


def area_under_curve(score: Floats, positive: Bools, counts: Floats) -> Floats:
    """ROC area of every resample, ties counted half; NaN where a resample lacks a side."""
    order = np.argsort(score, kind="stable")
    _, starts = np.unique(score[order], return_index=True)
    ups = np.add.reduceat((counts * positive)[:, order], starts, axis=1)
    downs = np.add.reduceat((counts * ~positive)[:, order], starts, axis=1)
    pairs = ups.sum(axis=1) * downs.sum(axis=1)
    wins = (ups * (np.cumsum(downs, axis=1) - downs / 2)).sum(axis=1)
    result: Floats = np.where(pairs > 0, wins / np.where(pairs > 0, pairs, 1.0), np.nan)
    return result


def _mean_area(w: Floats, codes: Ints, usable: Ints, fitted: Ints, scored: Ints, counts: Floats) -> Floats:
    # Only classes that both halves hold take part, in the fit and in the scored rows.
    fit, held = fitted[np.isin(codes[fitted], usable)], np.isin(codes[scored], usable)
    with quiet_fits():
        model = LogisticRegression(max_iter=200).fit(w[fit], codes[fit])
    chances = model.predict_proba(w[scored[held]])
    columns = [
        area_under_curve(chances[:, c], codes[scored[held]] == label, counts[:, held])
        for c, label in enumerate(model.classes_)
    ]
    return _mean_over(np.stack(columns, axis=1))


def threshold_scores(w: Floats, codes: Ints, fitted: Ints, scored: Ints, counts: Floats) -> Floats:
    """Rescaled balanced accuracy of thresholds on each latent: (resamples, latents)."""
    present = np.unique(codes[scored])
    n_classes = int(codes.max()) + 1
    members = (codes[scored][:, None] == present).astype(float)
    size = counts @ members
    result = np.empty((len(counts), w.shape[1]))
    for j in range(w.shape[1]):
        tree = DecisionTreeClassifier(max_leaf_nodes=max(2, 2 * n_classes), class_weight="balanced", random_state=0)
        with quiet_fits():
            hit = tree.fit(w[fitted, j : j + 1], codes[fitted]).predict(w[scored, j : j + 1]) == codes[scored]
        recall = np.where(size > 0, counts @ (members * hit[:, None]) / np.where(size > 0, size, 1.0), np.nan)
        result[:, j] = (_mean_over(recall) - 1.0 / n_classes) / (1.0 - 1.0 / n_classes)
    return result


def _mean_over(values: Floats) -> Floats:
    """Mean of every row over its defined entries; NaN for a row without one."""
    defined = ~np.isnan(values)
    number = defined.sum(axis=1)
    result: Floats = np.where(number > 0, np.where(defined, values, 0.0).sum(axis=1) / np.maximum(number, 1), np.nan)
    return result
