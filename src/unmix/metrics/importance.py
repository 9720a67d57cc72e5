r"""Disentanglement, completeness, informativeness (DCI) from the importances of a regression.

A regression of every factor on all latents gives importances :math:`R_{ji} \ge 0` (latent j, factor i). With
:math:`P_{ji} = R_{ji} / \sum_k R_{jk}`, :math:`Q_{ji} = R_{ji} / \sum_l R_{li}` and entropy :math:`H_n` to the base n,

.. math:: D_j = 1 - H_K(P_{j\cdot}), \qquad D = \sum_j \rho_j D_j, \quad \rho_j = \sum_i R_{ji} / \sum_{li} R_{li},
.. math:: C_i = 1 - H_D(Q_{\cdot i}), \qquad C = \frac{1}{K} \sum_i C_i,

and informativeness I is the held-out score of that regression. A latent without importance has weight 0. Regressions
can rank models differently, so a value is only comparable under the regression's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import entropy
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.metrics import balanced_accuracy_score, r2_score

from unmix.errors import SettingError
from unmix.metrics.inputs import (
    Bools,
    Discrete,
    Floats,
    Ints,
    factor_pair,
    generator,
    halves,
    standardise,
    warn,
)
from unmix.metrics.regression import quiet_fits
from unmix.metrics.score import Score, interval, mean_defined

Regressor = Literal["forest", "boosting", "lasso"]

_LASSO_PENALTY = 0.01

_MODELS: dict[str, Callable[[bool, int, int], Any]] = {
    "forest": lambda classes, rows, seed: (RandomForestClassifier if classes else RandomForestRegressor)(
        n_estimators=20, max_depth=8, min_samples_leaf=2, max_features=1.0, random_state=seed
    ),
    "boosting": lambda classes, rows, seed: (GradientBoostingClassifier if classes else GradientBoostingRegressor)(
        n_estimators=40, learning_rate=0.15, subsample=0.5, random_state=seed
    ),
    "lasso": lambda classes, rows, seed: (
        LogisticRegression(l1_ratio=1.0, C=1 / (_LASSO_PENALTY * rows), solver="saga", tol=1e-3, random_state=seed)
        if classes
        else Lasso(alpha=_LASSO_PENALTY)
    ),
}


def dci(
    z_true: ArrayLike,
    z_hat: ArrayLike,
    *,
    regressor: Regressor | Sequence[Regressor] = ("forest", "lasso"),
    discrete: Discrete = False,
    max_samples: int = 4000,
    n_bootstrap: int = 10,
    random_state: int = 0,
) -> Score:
    """Disentanglement (the value), completeness and informativeness.

    Parameters
    ----------
    z_true : array (n_samples, n_factors)
    z_hat : array (n_samples, n_latents)
    regressor : {"forest", "boosting", "lasso"} or several, default ("forest", "lasso")
        Random forest and gradient boosting with impurity importances, or L1-penalised linear (for classes: logistic)
        regression with absolute coefficients of standardised latents, penalty 0.01. The value is the first one's.
    discrete : bool, column numbers or mask, default False
        Factors that are classes: a classifier takes the regression's place.
    max_samples : int, default 4000
        Rows used, drawn at random; half fits, half is scored.
    n_bootstrap : int, default 10
        Resamples of the fitted rows behind ``interval``; the first regressor is fitted again on each.
    random_state : int, default 0

    Returns
    -------
    Score
        In [0, 1]. ``per_factor`` is the disentanglement of the latents that predict the factor, weighted by importance.
        ``details`` holds, for the first regressor, ``completeness``, ``informativeness`` and their
        ``completeness_per_factor`` and ``informativeness_per_factor`` (held-out R², not clipped; for classes balanced
        accuracy), ``per_latent`` (NaN without importance) and ``importances`` (n_latents, n_factors); and
        ``by_regressor``: disentanglement, completeness and informativeness under each name.
        A constant factor is NaN and left out with a ``MetricWarning``. With one factor (one latent), disentanglement
        (completeness) compares nothing: it is 1 and a ``MetricWarning`` says so.

    References
    ----------
    Eastwood and Williams 2018, A framework for the quantitative evaluation of disentangled representations, ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).standard_normal((1000, 2))
    >>> turn = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
    >>> dci(z, -z, n_bootstrap=0) > 0.95, dci(z, z @ turn, n_bootstrap=0) < 0.05
    (True, True)
    """
    rng = generator(random_state, n_bootstrap)
    names = _regressors(regressor)
    z, w, classes, varies = factor_pair(z_true, z_hat, discrete, rng, max_samples)
    if varies.sum() == 1:
        warn("With one varying factor every latent counts as disentangled: disentanglement is 1.")
    if w.shape[1] == 1:
        warn("With one latent every factor counts as complete: completeness is 1.")
    w, z = standardise(w), np.where(classes, z, standardise(z))
    fitted, scored = halves(rng, len(z))

    def fit(name: str, latents: Floats, rows: Ints) -> tuple[Floats, Floats]:
        return _fit(name, z, latents, rows, scored, classes, varies, random_state)

    results = {name: fit(name, w, fitted) for name in dict.fromkeys(names)}
    summaries = {name: summary_of(importances, varies, held) for name, (importances, held) in results.items()}
    details = dict(summaries[names[0]])
    per_factor = details.pop("per_factor")
    kept = ("disentanglement", "completeness", "informativeness")
    details["by_regressor"] = {name: {key: s[key] for key in kept} for name, s in summaries.items()}
    value = details.pop("disentanglement")

    def anew(latents: Floats, rows: Ints) -> float:
        importances, held = fit(names[0], latents, rows)
        return float(summary_of(importances, varies, held)["disentanglement"])

    boots = [anew(w, rng.choice(fitted, len(fitted))) for _ in range(n_bootstrap)]
    settings = {
        "regressor": names,
        "discrete": np.flatnonzero(classes).tolist(),
        "n_samples": len(z),
        "max_samples": max_samples,
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    chance = anew(w[rng.permutation(len(w))], fitted)
    return Score(value, per_factor, interval(value, boots, 0.0, 1.0), chance, details, settings)


def _regressors(regressor: object) -> list[str]:
    names = [regressor] if isinstance(regressor, str) else list(regressor) if isinstance(regressor, Iterable) else []
    if not names or not all(isinstance(name, str) and name in _MODELS for name in names):
        raise SettingError(f"regressor must be one or several of {sorted(_MODELS)}; got {regressor!r}.")
    return names


def disentanglement(importances: Floats) -> tuple[Floats, Floats]:
    """D of every row of ``importances`` and its weight; an empty row has D = NaN and weight 0."""
    total = importances.sum(axis=1)
    used = total > 0
    shares = importances[used] / total[used, None]
    values = np.full(len(importances), np.nan)
    # Entropy to the base 1 is undefined: a single column leaves nothing to be confused with.
    doubt = entropy(shares, base=shares.shape[1], axis=1) if shares.shape[1] > 1 else 0.0
    values[used] = np.clip(1.0 - doubt, 0.0, 1.0)
    return values, total / total.sum() if used.any() else total


def summary_of(importances: Floats, varies: Bools, held: Floats) -> dict[str, Any]:
    used = importances[:, varies]
    per_latent, weights = disentanglement(used)
    contributions = np.where(weights > 0, per_latent, 0.0)
    totals = used.sum(axis=0)
    per_factor, complete = np.full(len(varies), np.nan), np.full(len(varies), np.nan)
    per_factor[varies] = contributions @ used / np.where(totals > 0, totals, 1.0)
    complete[varies] = np.nan_to_num(disentanglement(used.T)[0], nan=0.0)
    return {
        "disentanglement": min(float(contributions @ weights), 1.0) if varies.any() else float("nan"),
        "completeness": mean_defined(complete),
        "informativeness": mean_defined(held),
        "per_factor": per_factor,
        "completeness_per_factor": complete,
        "informativeness_per_factor": held,
        "per_latent": per_latent,
        "importances": importances,
    }


def _fit(
    name: str, z: Floats, w: Floats, fitted: Ints, scored: Ints, classes: Bools, varies: Bools, seed: int
) -> tuple[Floats, Floats]:
    """Importances (latents, factors) and the held-out score of every factor."""
    importances = np.zeros((w.shape[1], z.shape[1]))
    held = np.full(z.shape[1], np.nan)
    for i in np.flatnonzero(varies):
        target = np.unique(z[:, i], return_inverse=True)[1] if classes[i] else z[:, i]
        if len(np.unique(target[fitted])) == 1:
            predicted = np.full(len(scored), target[fitted[0]])
        else:
            model = _MODELS[name](bool(classes[i]), len(fitted), seed)
            with quiet_fits():
                model.fit(w[fitted], target[fitted])
            importances[:, i] = _importance_of(model)
            predicted = model.predict(w[scored])
        held[i] = _held_out_score(target[scored], predicted, bool(classes[i]))
    return importances, held


def _importance_of(model: Any) -> Floats:
    if hasattr(model, "feature_importances_"):
        # Rounding can leave a latent that a copy has replaced with an importance below 0.
        result: Floats = np.maximum(model.feature_importances_, 0.0)
    else:
        result = np.abs(np.atleast_2d(model.coef_)).mean(axis=0)
    return result


def _held_out_score(target: Floats | Ints, predicted: Floats | Ints, classes: bool) -> float:
    if len(np.unique(target)) == 1:
        return float("nan")
    if not classes:
        return float(r2_score(target, predicted))
    with quiet_fits():
        return float(balanced_accuracy_score(target, predicted))
