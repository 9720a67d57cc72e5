r"""Regressions behind the metrics, and :math:`R^2` on held-out rows with its bootstrap.

With counts :math:`c_n` of a bootstrap resample,

.. math:: R^2 = 1 - \frac{\sum_n c_n (z_n - f(\hat z_n))^2}{\sum_n c_n z_n^2 - (\sum_n c_n z_n)^2 / \sum_n c_n},

so that all resamples are two matrix products, and no regression is fitted twice.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from scipy.special import ndtri
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.preprocessing import SplineTransformer

from unmix.metrics.inputs import Floats, alive

Predictor = Callable[[Floats], Floats]

_KNOTS = np.linspace(-3.5, 3.5, 14)[:, None]


@contextmanager
def quiet_fits() -> Iterator[None]:
    """Silence scikit-learn where its hint does not matter or the caller has been warned already.

    Separable classes and duplicated latents never converge, and no metric needs the last digit of a coefficient.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="The number of unique classes")
        warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
        yield


def linear_fit(inputs: Floats, targets: Floats) -> Predictor:
    """Least squares of all targets on all inputs."""
    return LinearRegression().fit(inputs, targets).predict


def boosting_fit(inputs: Floats, targets: Floats, random_state: int) -> Predictor:
    """Gradient-boosted trees, one model a target, stopped early so that noise is not fitted."""
    model = HistGradientBoostingRegressor(
        early_stopping=len(inputs) >= 50, validation_fraction=0.2, max_iter=300, random_state=random_state
    )
    models = [clone(model).fit(inputs, target) for target in targets.T]
    return lambda new: np.column_stack([model.predict(new) for model in models])


def line_fit(inputs: Floats, targets: Floats) -> Predictor:
    """A straight line from every input to every target; predicts (rows, targets, inputs)."""
    centre, mean = inputs.mean(axis=0), targets.mean(axis=0)
    spread = inputs - centre
    variance = (spread**2).sum(axis=0)
    usable = alive(inputs)
    slopes = np.where(usable, (targets - mean).T @ spread / np.where(usable, variance, 1.0), 0.0)
    return lambda new: mean[:, None] + (new - centre)[:, None, :] * slopes


def spline_fit(inputs: Floats, targets: Floats) -> Predictor:
    """A curve from every input to every target; predicts (rows, targets, inputs)."""
    # Uniform knots on the normal scores: as dense as the input itself, whatever its distribution.
    basis = SplineTransformer(knots=_KNOTS, extrapolation="constant").fit(np.zeros((2, 1)))
    scores = [_normal_scores(column) for column in inputs.T]
    curves = [
        Ridge(alpha=1e-2).fit(basis.transform(score(column)), targets)
        for score, column in zip(scores, inputs.T, strict=True)
    ]

    def predict(new: Floats) -> Floats:
        predictions = [
            curve.predict(basis.transform(score(column))).reshape(len(new), -1)
            for curve, score, column in zip(curves, scores, new.T, strict=True)
        ]
        return np.stack(predictions, axis=2)

    return predict


def r2_of(target: Floats, predicted: Floats, counts: Floats | None = None) -> Floats:
    """R² along the first axis, (resamples, …); NaN where the target does not vary.

    ``counts`` (resamples, rows), by default every row once.
    """
    rows = len(target)
    counts = np.ones((1, rows)) if counts is None else counts
    # Centred first: the difference of two large sums would lose all digits of a factor with a large mean.
    centred = target - target.mean(axis=0)
    total = counts.sum(axis=1).reshape(-1, *(1 for _ in target.shape[1:]))
    squares = np.tensordot(counts, centred**2, axes=1) - np.tensordot(counts, centred, axes=1) ** 2 / total
    errors = np.tensordot(counts, (target - predicted) ** 2, axes=1)
    smallest = 1e-24 * total * np.abs(target).max(axis=0, initial=0.0) ** 2
    usable = squares > smallest
    result: Floats = np.where(usable, 1.0 - errors / np.where(usable, squares, 1.0), np.nan)
    return result


def _normal_scores(column: Floats) -> Callable[[Floats], Floats]:
    """Ranks among the fitted values, mapped to a standard normal; ties share the middle rank."""
    values, counts = np.unique(column, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / len(column)
    return lambda new: ndtri(np.interp(new, values, middle))[:, None]
