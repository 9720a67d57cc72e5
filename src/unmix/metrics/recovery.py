r"""Did the estimated latents recover the true ones? One-to-one or as a block, held out, against chance.

Mean correlation coefficient (MCC): with :math:`C_{ij} = |\mathrm{corr}(z_i, \hat z_j)|` and the one-to-one
assignment :math:`\pi` that maximises :math:`\sum_i C_{i\pi(i)}`,

.. math:: \mathrm{MCC} = \frac{1}{K} \sum_i C_{i \pi(i)}, \qquad K = \text{number of true factors.}

The assignment is found on one half of the rows and scored on the other: an assignment scored on the rows
that chose it is biased upwards. Factors without a partner (fewer estimated latents than true ones) score 0.

Non-linear MCC replaces C by :math:`\sqrt{\max(0, R^2(\hat z_j \to z_i))}`, with :math:`R^2` of a
one-dimensional spline regression, so that one-to-one recovery up to any invertible curve scores 1.

:math:`R^2(\hat z \to z_i) = 1 - \sum_n (z_{ni} - f_i(\hat z_n))^2 / \sum_n (z_{ni} - \bar z_i)^2` on rows that
did not fit f uses all latents at once: high :math:`R^2` with low MCC means recovery only as a block.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from unmix.errors import SettingError
from unmix.forms import LabelsLike
from unmix.metrics.inputs import (
    Floats,
    Ints,
    domain_codes,
    generator,
    halves,
    one_of,
    pair,
    standardise,
    subsample,
    varying_factors,
)
from unmix.metrics.regression import boosting_fit, linear_fit, r2_of, spline_fit
from unmix.metrics.score import Score, interval, mean_defined, row_counts


def correlation(a: Floats, b: Floats, method: Literal["pearson", "spearman"] = "pearson") -> Floats:
    """Signed correlation of every column of ``a`` with every column of ``b``; 0 where a column is constant."""
    if method == "spearman":
        a, b = rankdata(a, axis=0), rankdata(b, axis=0)
    a, b = standardise(a), standardise(b)
    result: Floats = np.clip(a.T @ b / len(a), -1.0, 1.0)
    return result


def match(strength: Floats) -> NDArray[np.int64]:
    """For every row the column it is paired with, one to one, maximising the sum; -1 for a row left over."""
    rows, columns = linear_sum_assignment(strength, maximize=True)
    assignment = np.full(strength.shape[0], -1, dtype=np.int64)
    assignment[rows] = columns
    return assignment


def mcc(
    z_true: ArrayLike,
    z_hat: ArrayLike,
    *,
    method: Literal["pearson", "spearman"] = "pearson",
    domains: LabelsLike = None,
    split: bool = True,
    n_bootstrap: int = 200,
    random_state: int = 0,
) -> Score:
    """Mean correlation coefficient between true and estimated latents.

    Factors and latents are matched on a random half of the rows; the correlations are those of the other half. Papers
    and their code mostly match and score on the same rows, which is biased upwards: ``split=False`` gives their number.

    Parameters
    ----------
    z_true : array (n_samples, n_factors)
    z_hat : array (n_samples, n_latents)
    method : {"pearson", "spearman"}, default "pearson"
    domains : labels (n_samples,) or table (n_samples, n_columns), optional
        In any form that ``fit`` takes; rows of a table that agree in all columns are one domain. Adds
        ``details["within_domain"]``: the same correlations with every domain's mean removed. Shared domain means alone
        can make the pooled value high.
    split : bool, default True
        False: match and score on all rows.
    n_bootstrap : int, default 200
        Resamples of the scored rows behind ``interval``.
    random_state : int, default 0
        Seed of the split, the bootstrap and the permutation.

    Returns
    -------
    Score
        A float; ``details`` holds ``assignment`` (latent for each factor, -1 for none), ``signs``, ``matrix``.

    References
    ----------
    Hyvärinen and Morioka 2016, arXiv:1605.06336; Khemakhem et al. 2020, arXiv:1907.04809.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).standard_normal((1000, 3))
    >>> score = mcc(z, -2.0 * z[:, [2, 0, 1]])
    >>> round(score, 3), score.details["assignment"].tolist()
    (1.0, [1, 2, 0])
    """
    rng = generator(random_state, n_bootstrap)
    z, w = pair(z_true, z_hat)
    one_of("method", method, ("pearson", "spearman"))
    if not isinstance(split, bool | np.bool):
        raise SettingError(f"split must be True or False; got {split!r}.")
    codes = None if domains is None else domain_codes(domains, len(z))
    chosen, scored = halves(rng, len(z)) if split else (np.arange(len(z)), np.arange(len(z)))
    if method == "pearson":
        z, w = standardise(z), standardise(w)
    assignment = match(np.abs(correlation(z[chosen], w[chosen], method)))
    matrix = correlation(z[scored], w[scored], method)
    per_factor, signs = _paired(matrix, assignment)
    details: dict[str, Any] = {"assignment": assignment, "signs": signs, "matrix": matrix}
    if codes is not None:
        within = correlation(
            _without_domain_means(z[scored], codes[scored]), _without_domain_means(w[scored], codes[scored]), method
        )
        details["within_domain"] = _paired(within, assignment)[0]
    boots = [
        _paired(correlation(z[rows], w[rows], method), assignment)[0].mean()
        for rows in (scored[rng.integers(len(scored), size=len(scored))] for _ in range(n_bootstrap))
    ]
    low, high = np.quantile(boots, [0.025, 0.975]) if boots else (np.nan, np.nan)
    shuffled = z[rng.permutation(len(z))]
    by_chance = match(np.abs(correlation(shuffled[chosen], w[chosen], method)))
    chance = float(_paired(correlation(shuffled[scored], w[scored], method), by_chance)[0].mean())
    settings = {
        "method": method,
        "n_samples": len(z),
        "split": bool(split),
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    return Score(float(per_factor.mean()), per_factor, (float(low), float(high)), chance, details, settings)


def nonlinear_mcc(
    z_true: ArrayLike,
    z_hat: ArrayLike,
    *,
    max_samples: int = 10_000,
    n_bootstrap: int = 200,
    random_state: int = 0,
) -> Score:
    """MCC in which one latent may explain one factor through any curve.

    The curve is a cubic spline of the latent's normal scores (its ranks, mapped to a standard normal), so the value
    does not change when a latent is passed through an increasing function. Half of the rows fit the curves, a quarter
    chooses the assignment, a quarter is scored.

    Parameters
    ----------
    z_true : array (n_samples, n_factors)
    z_hat : array (n_samples, n_latents)
    max_samples : int, default 10_000
        Rows used, drawn at random.
    n_bootstrap : int, default 200
        Resamples of the scored rows behind ``interval``.
    random_state : int, default 0

    Returns
    -------
    Score
        ``details`` holds ``assignment`` and ``matrix`` (n_factors, n_latents), the square roots of the held-out R².
        A constant factor scores 0, as in ``mcc``.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).standard_normal((2000, 2))
    >>> score = nonlinear_mcc(z, np.exp(z[:, [1, 0]]))
    >>> score > 0.99, score.details["assignment"].tolist()
    (True, [1, 0])
    """
    rng = generator(random_state, n_bootstrap)
    z, w = pair(z_true, z_hat)
    z, w = subsample(rng, max_samples, z, w)
    z = standardise(z)
    order = rng.permutation(len(z))
    fitted, chosen, scored = np.split(order, [len(z) // 2, len(z) // 2 + max(1, len(z) // 4)])

    def strength(latents: Floats) -> tuple[NDArray[np.int64], Floats]:
        predict = spline_fit(latents[fitted], z[fitted])
        choice = r2_of(z[chosen][:, :, None], predict(latents[chosen]))[0]
        return match(_root(choice)), predict(latents[scored])

    assignment, predicted = strength(w)
    values = _root(r2_of(z[scored][:, :, None], predicted)[0])
    per_factor = _paired(values, assignment)[0]
    partner = np.where((assignment >= 0)[None, :], predicted[:, np.arange(z.shape[1]), assignment], z[scored].mean(0))
    boots = _root(r2_of(z[scored], partner, row_counts(rng, n_bootstrap, len(scored)))).mean(axis=1)
    shuffled = w[rng.permutation(len(w))]
    other, predicted = strength(shuffled)
    chance = _paired(_root(r2_of(z[scored][:, :, None], predicted)[0]), other)[0].mean()
    value = float(per_factor.mean())
    details = {"assignment": assignment, "matrix": values}
    settings = {
        "regressor": "cubic spline of normal scores",
        "n_samples": len(z),
        "max_samples": max_samples,
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    return Score(value, per_factor, interval(value, boots, 0.0, 1.0), float(chance), details, settings)


def r2(
    z_true: ArrayLike,
    z_hat: ArrayLike,
    *,
    kind: Literal["linear", "nonlinear"] = "linear",
    max_samples: int = 10_000,
    n_bootstrap: int = 200,
    random_state: int = 0,
) -> Score:
    """Share of each true factor's variance that all latents together explain, on rows that did not fit.

    Not clipped: below 0 means worse than the mean. Swap the two arguments to ask whether the factors determine the
    latents.

    Parameters
    ----------
    z_true : array (n_samples, n_factors)
    z_hat : array (n_samples, n_latents)
    kind : {"linear", "nonlinear"}, default "linear"
        Least squares, or gradient-boosted trees (``sklearn.ensemble.HistGradientBoostingRegressor``).
    max_samples : int, default 10_000
        Rows used, drawn at random; half fits, half is scored.
    n_bootstrap : int, default 200
        Resamples of the scored rows behind ``interval``.
    random_state : int, default 0

    Returns
    -------
    Score
        Mean over the factors; a constant factor is NaN in ``per_factor`` and left out with a ``MetricWarning``.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).standard_normal((1000, 2))
    >>> turn = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
    >>> round(r2(z, z @ turn), 3), round(mcc(z, z @ turn), 1)    # recovered as a block, not one by one
    (1.0, 0.7)
    """
    rng = generator(random_state, n_bootstrap)
    z, w = pair(z_true, z_hat)
    one_of("kind", kind, ("linear", "nonlinear"))
    z, w = subsample(rng, max_samples, z, w)
    varies = varying_factors(z)
    z, w = standardise(z), standardise(w) if kind == "linear" else w
    fitted, scored = halves(rng, len(z))

    def predicted(latents: Floats) -> Floats:
        if kind == "linear":
            return linear_fit(latents[fitted], z[fitted])(latents[scored])
        return boosting_fit(latents[fitted], z[fitted], random_state)(latents[scored])

    estimate = predicted(w)
    per_factor = np.where(varies, r2_of(z[scored], estimate)[0], np.nan)
    value = mean_defined(per_factor)
    boots = r2_of(z[scored][:, varies], estimate[:, varies], row_counts(rng, n_bootstrap, len(scored)))
    replicates = [mean_defined(row) for row in boots]
    chance = mean_defined(np.where(varies, r2_of(z[scored], predicted(w[rng.permutation(len(w))]))[0], np.nan))
    settings = {
        "kind": kind,
        "n_samples": len(z),
        "max_samples": max_samples,
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    return Score(value, per_factor, interval(value, replicates, high=1.0), chance, {}, settings)


def _root(r_squared: Floats) -> Floats:
    """Square root of R², 0 where it is negative or undefined."""
    result: Floats = np.sqrt(np.clip(np.nan_to_num(r_squared, nan=0.0, neginf=0.0), 0.0, 1.0))
    return result


def _paired(matrix: Floats, assignment: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Absolute value and sign of each factor's correlation with its partner; 0 without one."""
    paired = np.where(assignment >= 0, matrix[np.arange(len(assignment)), assignment], 0.0)
    return np.abs(paired), np.sign(paired)


def _without_domain_means(a: Floats, domains: Ints) -> Floats:
    _, codes = np.unique(domains, return_inverse=True)
    a = standardise(a)
    sums = np.zeros((codes.max() + 1, a.shape[1]))
    np.add.at(sums, codes, a)
    rest = a - (sums / np.bincount(codes)[:, None])[codes]
    # A column that is constant in every domain leaves rounding, which would correlate with something.
    result: Floats = np.where(np.abs(rest).max(axis=0) > 1e-12, rest, 0.0)
    return result
