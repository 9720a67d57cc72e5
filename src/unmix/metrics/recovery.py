r"""Did the estimated latents recover the true ones? One-to-one, held out, against chance.

Mean correlation coefficient (MCC): with :math:`C_{ij} = |\mathrm{corr}(z_i, \hat z_j)|` and the one-to-one
assignment :math:`\pi` that maximises :math:`\sum_i C_{i\pi(i)}`,

.. math:: \mathrm{MCC} = \frac{1}{K} \sum_i C_{i \pi(i)}, \qquad K = \text{number of true factors.}

The assignment is found on one half of the rows and scored on the other: an assignment scored on the rows
that chose it is biased upwards. Factors without a partner (fewer estimated latents than true ones) score 0.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from unmix.errors import DataError, SettingError

Floats = NDArray[np.float64]


class Score(float):
    """A metric's value, usable as a number, with what stands behind it.

    Attributes
    ----------
    per_factor : float array (n_factors,)
    interval : (low, high), bootstrap over rows, 95 %
    chance : value on rows shuffled against each other (permutation baseline)
    details : dict of further arrays and numbers, such as ``assignment``, ``signs``, ``matrix``, ``within_domain``
    settings : dict of what was asked
    """

    per_factor: Floats
    interval: tuple[float, float]
    chance: float
    details: dict[str, Any]
    settings: dict[str, Any]

    def __new__(
        cls,
        value: float,
        per_factor: Floats,
        interval: tuple[float, float],
        chance: float,
        details: dict[str, Any],
        settings: dict[str, Any],
    ) -> Score:
        score = super().__new__(cls, value)
        score.per_factor, score.interval, score.chance = per_factor, interval, chance
        score.details, score.settings = details, settings
        return score

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (
            float(self),
            self.per_factor,
            self.interval,
            self.chance,
            self.details,
            self.settings,
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a factor."""
        frame = pd.DataFrame({"factor": np.arange(len(self.per_factor)), "score": self.per_factor})
        for name in ("assignment", "signs", "within_domain"):
            if name in self.details:
                frame[name] = self.details[name]
        return frame


def correlation(a: Floats, b: Floats, method: Literal["pearson", "spearman"] = "pearson") -> Floats:
    """Signed correlation of every column of ``a`` with every column of ``b``; 0 where a column is constant."""
    if method == "spearman":
        a, b = rankdata(a, axis=0), rankdata(b, axis=0)
    a, b = _standardise(a), _standardise(b)
    result: Floats = a.T @ b / len(a)
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
    domains: ArrayLike | None = None,
    n_bootstrap: int = 200,
    random_state: int = 0,
) -> Score:
    """Mean correlation coefficient between true and estimated latents.

    Parameters
    ----------
    z_true : array (n_samples, n_factors)
    z_hat : array (n_samples, n_latents)
    method : {"pearson", "spearman"}, default "pearson"
    domains : array (n_samples,), optional
        Adds ``details["within_domain"]``: the same correlations with every domain's mean removed. Shared domain
        means alone can make the pooled value high.
    n_bootstrap : int, default 200
        Resamples of the scored rows behind ``interval``.
    random_state : int, default 0
        Seed of the split, the bootstrap and the permutation.

    Returns
    -------
    Score
        A float; ``details`` holds ``assignment`` (latent for each factor, -1 for none), ``signs``, ``matrix``.

    Raises
    ------
    DataError
        The two matrices do not have the same, at least four, finite rows.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).standard_normal((1000, 3))
    >>> score = mcc(z, -2.0 * z[:, [2, 0, 1]])
    >>> round(score, 3), score.details["assignment"].tolist()
    (1.0, [1, 2, 0])
    """
    z, w = _pair(z_true, z_hat)
    if method not in ("pearson", "spearman"):
        raise SettingError(f'method must be "pearson" or "spearman"; got {method!r}.')
    rng = np.random.default_rng(random_state)
    order = rng.permutation(len(z))
    chosen, scored = order[: len(z) // 2], order[len(z) // 2 :]
    assignment = match(np.abs(correlation(z[chosen], w[chosen], method)))
    matrix = correlation(z[scored], w[scored], method)
    per_factor, signs = _paired(matrix, assignment)
    details: dict[str, Any] = {"assignment": assignment, "signs": signs, "matrix": matrix}
    if domains is not None:
        labels = np.asarray(domains)[scored]
        within = correlation(_without_domain_means(z[scored], labels), _without_domain_means(w[scored], labels), method)
        details["within_domain"] = _paired(within, assignment)[0]
    boots = [
        _paired(correlation(z[rows], w[rows], method), assignment)[0].mean()
        for rows in (scored[rng.integers(len(scored), size=len(scored))] for _ in range(n_bootstrap))
    ]
    low, high = np.quantile(boots, [0.025, 0.975]) if boots else (np.nan, np.nan)
    shuffled = correlation(z[rng.permutation(len(z))], w, method)
    chance = float(_paired(shuffled, match(np.abs(shuffled)))[0].mean())
    settings = {
        "method": method,
        "n_samples": len(z),
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    return Score(float(per_factor.mean()), per_factor, (float(low), float(high)), chance, details, settings)


def _pair(z_true: ArrayLike, z_hat: ArrayLike) -> tuple[Floats, Floats]:
    pair = []
    for name, values in (("z_true", z_true), ("z_hat", z_hat)):
        array = np.asarray(values, dtype=float)
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2 or 0 in array.shape:
            raise DataError(f"{name} must be a matrix (n_samples, n_latents); got shape {array.shape}.")
        if not np.isfinite(array).all():
            raise DataError(f"{name} holds values that are not finite. Remove those rows first.")
        pair.append(array)
    if len(pair[0]) != len(pair[1]) or len(pair[0]) < 4:
        raise DataError(f"z_true and z_hat must have the same rows, at least 4; got {len(pair[0])} and {len(pair[1])}.")
    return pair[0], pair[1]


def _paired(matrix: Floats, assignment: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Absolute value and sign of each factor's correlation with its partner; 0 without one."""
    paired = np.where(assignment >= 0, matrix[np.arange(len(assignment)), assignment], 0.0)
    return np.abs(paired), np.sign(paired)


def _standardise(a: Floats) -> Floats:
    largest = np.abs(a).max(axis=0, initial=0.0)
    a = a - a.mean(axis=0)
    scale = a.std(axis=0)
    usable = scale > 1e-12 * largest
    result: Floats = np.where(usable, a / np.where(usable, scale, 1.0), 0.0)
    return result


def _without_domain_means(a: Floats, labels: NDArray[Any]) -> Floats:
    _, codes = np.unique(labels, return_inverse=True)
    sums = np.zeros((codes.max() + 1, a.shape[1]))
    np.add.at(sums, codes, a)
    result: Floats = a - (sums / np.bincount(codes)[:, None])[codes]
    return result
