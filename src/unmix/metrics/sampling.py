r"""Scores from groups of rows that share one factor: FactorVAE score, β-VAE score, interventional robustness (IRS).

Published for simulators, where a factor can be held fixed. Here the groups come from a table: continuous factors are
put in quantile bins, a value (bin) is drawn, then rows that have it. That equals the simulator when factors are
crossed, that is independent of each other. Where they are not, as for causal factors or under a shift between domains,
holding one fixed narrows others too, and all three scores blur.

- FactorVAE score: in a group, the latent of least variance (in units of its overall variance) votes for the fixed
  factor; accuracy of the majority vote on new groups.
- β-VAE score: the mean absolute difference :math:`|\hat z^{(1)} - \hat z^{(2)}|` over pairs of rows that share the
  factor; accuracy with which a linear classifier names the factor from it.
- IRS: with :math:`q_j(S)` the 0.99 quantile of :math:`|\hat z_j - \mathrm{E}_S \hat z_j|` over the rows S,
  :math:`\mathrm{IRS}_{ij} = 1 - \mathrm{mean}_v\, q_j(z_i = v) / q_j(\text{all})`: how little latent j moves, in the
  worst case, while factor i is fixed. The value is the mean over the latents of their best factor, weighted by
  :math:`q_j(\text{all})`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression

from unmix.metrics.information import bins
from unmix.metrics.inputs import (
    Bools,
    Discrete,
    Floats,
    Ints,
    alive,
    at_least,
    factor_pair,
    generator,
    standardise,
    warn,
)
from unmix.metrics.regression import quiet_fits
from unmix.metrics.score import Score, by_rows, interval, mean_defined


def factor_vae_score(
    z_true: ArrayLike,
    z_hat: ArrayLike,
    *,
    discrete: Discrete = False,
    n_bins: int = 20,
    n_votes: int = 800,
    group_size: int = 64,
    n_bootstrap: int = 50,
    random_state: int = 0,
) -> Score:
    """FactorVAE score: does the latent that stays still name the factor that was fixed?

    Constant latents are pruned: they stay still always and would take every vote. Where all are, the score is 0 with a
    ``MetricWarning``. Latents that a model has given up but that still vary a little are compared in units of their own
    variance and take none.

    Parameters
    ----------
    z_true : array (n_samples, n_factors)
    z_hat : array (n_samples, n_latents)
    discrete : bool, column numbers or mask, default False
        Factors that are classes; the others are put in quantile bins.
    n_bins : int, default 20
    n_votes : int, default 800
        Groups that fit the vote, and again as many that are scored; the same number for each factor.
    group_size : int, default 64
        Rows in a group, drawn with replacement.
    n_bootstrap : int, default 50
        Resamples of the rows behind ``interval``; everything is computed again on each.
    random_state : int, default 0

    Returns
    -------
    Score
        Accuracy; chance is about one over the number of factors. A constant factor is NaN in ``per_factor`` and left
        out with a ``MetricWarning``. ``details["votes"]`` (n_factors, n_latents), of the groups that fit.

    References
    ----------
    Kim and Mnih 2018, arXiv:1802.05983.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).standard_normal((2000, 3))
    >>> float(factor_vae_score(z, z[:, [2, 0, 1]]))
    1.0
    """

    def fit_and_score(latents: Floats, draws: list[list[Ints]]) -> tuple[Floats, dict[str, NDArray[Any]]]:
        still = [[latents[rows].var(axis=1).argmin(axis=1) for rows in factor] for factor in draws]
        votes = np.stack([np.bincount(fitted, minlength=latents.shape[1]) for fitted, _ in still])
        named = votes.argmax(axis=0)
        accuracy = np.array([(named[scored] == k).mean() for k, (_, scored) in enumerate(still)])
        return accuracy, {"votes": votes}

    return _from_groups(fit_and_score, z_true, z_hat, discrete, n_bins, n_votes, group_size, n_bootstrap, random_state)


def beta_vae_score(
    z_true: ArrayLike,
    z_hat: ArrayLike,
    *,
    discrete: Discrete = False,
    n_bins: int = 20,
    n_votes: int = 800,
    group_size: int = 64,
    n_bootstrap: int = 50,
    random_state: int = 0,
) -> Score:
    """β-VAE score: can a linear classifier name the factor that two rows share from the difference of their latents?

    The weakest of these scores: a rotation that keeps the factors apart in variance still scores high. Reported because
    others report it.

    Parameters
    ----------
    z_true : array (n_samples, n_factors)
    z_hat : array (n_samples, n_latents)
        Constant latents are pruned, the others brought to variance 1; where all are constant, the score is 0 with a
        ``MetricWarning``.
    discrete : bool, column numbers or mask, default False
        Factors that are classes; the others are put in quantile bins.
    n_bins : int, default 20
    n_votes : int, default 800
        Mean differences that fit the classifier, and again as many that are scored.
    group_size : int, default 64
        Pairs of rows behind a mean difference, drawn with replacement.
    n_bootstrap : int, default 50
        Resamples of the rows behind ``interval``; everything is computed again on each.
    random_state : int, default 0

    Returns
    -------
    Score
        Accuracy; chance is about one over the number of factors. A constant factor is NaN in ``per_factor`` and left
        out with a ``MetricWarning``.

    References
    ----------
    Higgins et al. 2017, β-VAE, ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).standard_normal((2000, 3))
    >>> beta_vae_score(z, z[:, [2, 0, 1]], n_bootstrap=0) > 0.99
    True
    """

    def fit_and_score(latents: Floats, draws: list[list[Ints]]) -> tuple[Floats, dict[str, NDArray[Any]]]:
        # Each pair lies within one group, so that its two rows share the value of the factor.
        half = group_size
        steps = [
            [np.abs(latents[rows[:, :half]] - latents[rows[:, half:]]).mean(axis=1) for rows in factor]
            for factor in draws
        ]
        labels = np.repeat(np.arange(len(draws)), [len(fitted) for fitted, _ in steps])
        inputs = np.concatenate([fitted for fitted, _ in steps])
        with quiet_fits():
            model = LogisticRegression(max_iter=200, C=100.0).fit(inputs, labels)
        return np.array([(model.predict(scored) == k).mean() for k, (_, scored) in enumerate(steps)]), {}

    return _from_groups(
        fit_and_score, z_true, z_hat, discrete, n_bins, n_votes, group_size, n_bootstrap, random_state, rows_each=2
    )


def irs(
    z_true: ArrayLike,
    z_hat: ArrayLike,
    *,
    discrete: Discrete = False,
    n_bins: int = 20,
    n_bootstrap: int = 50,
    random_state: int = 0,
) -> Score:
    """Interventional robustness score: does some factor, once fixed, hold each latent still in the worst case?

    Assumes crossed factors: every value of one factor occurs with every value of the others, independently. Under a
    shift between domains that is not so, and factors that move together count as holding each other's latents.

    Parameters
    ----------
    z_true : array (n_samples, n_factors)
    z_hat : array (n_samples, n_latents)
        Brought to variance 1 first, because a latent's scale means nothing; constant latents have weight 0, and where
        all are, the value is 0 with a ``MetricWarning``. Latents that the model has given up but that still vary count
        fully: leave them out.
    discrete : bool, column numbers or mask, default False
        Factors that are classes; the others are put in quantile bins.
    n_bins : int, default 20
    n_bootstrap : int, default 50
        Resamples of the rows behind ``interval``.
    random_state : int, default 0

    Returns
    -------
    Score
        In [0, 1]. A perfect continuous latent stays below 1, because it moves within a bin. ``per_factor`` is the
        robustness of the best latent for the factor (NaN for a constant factor); ``details`` holds ``matrix``
        (n_factors, n_latents), ``per_latent`` (NaN for a constant one) and ``factor`` of each latent (-1 for none).

    References
    ----------
    Suter et al. 2019, arXiv:1811.00007.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).integers(4, size=(2000, 2))
    >>> round(irs(z, z, discrete=True), 3)
    1.0
    """
    rng = generator(random_state, n_bootstrap)
    z, w, classes, varies = factor_pair(z_true, z_hat, discrete, rng)
    live = alive(w)
    codes, latents = bins(z, n_bins, classes), standardise(w)
    if not live.any():
        warn("Every latent is constant: the score is 0.")
    columns = np.flatnonzero(live)
    value, robust = _robustness(codes[:, varies], latents[:, columns])
    boots, chance = by_rows(lambda c, a: _robustness(c, a)[0], codes[:, varies], latents[:, columns], rng, n_bootstrap)
    matrix = np.full((z.shape[1], w.shape[1]), np.nan)
    matrix[np.ix_(varies, columns)] = robust
    per_factor, per_latent = np.full(z.shape[1], np.nan), np.full(w.shape[1], np.nan)
    factor = np.full(w.shape[1], -1)
    per_factor[varies] = robust.max(axis=1, initial=0.0)
    if robust.size:
        per_latent[columns] = robust.max(axis=0)
        factor[columns] = np.flatnonzero(varies)[robust.argmax(axis=0)]
    settings = {
        "n_samples": len(z),
        "discrete": np.flatnonzero(classes).tolist(),
        "n_bins": n_bins,
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    details = {"matrix": matrix, "per_latent": per_latent, "factor": factor}
    return Score(value, per_factor, interval(value, boots, 0.0, 1.0), chance, details, settings)


def _robustness(codes: Ints, latents: Floats) -> tuple[float, Floats]:
    overall = np.quantile(np.abs(latents - latents.mean(axis=0)), 0.99, axis=0) if latents.size else np.empty(0)
    usable = overall > 0
    matrix = np.zeros((codes.shape[1], latents.shape[1]))
    for i, column in enumerate(codes.T):
        order = np.argsort(column, kind="stable")
        groups = np.split(latents[order], np.flatnonzero(np.diff(column[order])) + 1)
        reach = np.mean([np.quantile(np.abs(g - g.mean(axis=0)), 0.99, axis=0) for g in groups], axis=0)
        matrix[i] = np.clip(1.0 - np.where(usable, reach / np.where(usable, overall, 1.0), 1.0), 0.0, 1.0)
    if not len(matrix):
        return float("nan"), matrix
    # Published for latents of which none moves: 0.
    total = overall.sum() or 1.0
    return float(np.clip(matrix.max(axis=0, initial=0.0) @ overall / total, 0.0, 1.0)), matrix


def _from_groups(
    fit_and_score: Callable[[Floats, list[list[Ints]]], tuple[Floats, dict[str, NDArray[Any]]]],
    z_true: ArrayLike,
    z_hat: ArrayLike,
    discrete: Discrete,
    n_bins: int,
    n_votes: int,
    group_size: int,
    n_bootstrap: int,
    random_state: int,
    rows_each: int = 1,
) -> Score:
    """Run a score on groups of rows of one value of each factor: two lists of groups, one fits, one is scored."""
    rng = generator(random_state, n_bootstrap)
    at_least("n_votes", n_votes, 2)
    at_least("group_size", group_size, 2)
    z, w, classes, varies = factor_pair(z_true, z_hat, discrete, rng)
    codes, latents = bins(z, n_bins, classes), standardise(w)[:, alive(w)]
    usable = varies & _repeats(codes)
    if (varies & ~usable).any():
        warn(f"Factors {np.flatnonzero(varies & ~usable).tolist()} never repeat a value: no group of rows shares one.")
    settings = {
        "n_samples": len(z),
        "discrete": np.flatnonzero(classes).tolist(),
        "n_bins": n_bins,
        "n_votes": n_votes,
        "group_size": group_size,
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    if usable.sum() < 2 or not latents.size:
        warn(
            f"{int(usable.sum())} usable factor(s) and {latents.shape[1]} latent(s) that vary: naming the factor takes "
            "two factors and one latent. The score is 0 without such a latent, 1 with one factor, NaN without a factor."
        )
        value = float("nan") if not usable.any() else 1.0 if latents.size else 0.0
        return Score(value, np.where(usable, value, np.nan), (value, value), value, {}, settings)

    def run(c: Ints, a: Floats) -> tuple[Floats, dict[str, NDArray[Any]]]:
        scale = a.std(axis=0)
        draws = [
            [_groups(rng, column, max(1, n_votes // c.shape[1]), group_size * rows_each) for _ in range(2)]
            for column in c.T
        ]
        return fit_and_score(a / np.where(scale > 0, scale, 1.0), draws)

    accuracy, details = run(codes[:, usable], latents)
    per_factor = np.full(z.shape[1], np.nan)
    per_factor[usable] = accuracy
    value = mean_defined(per_factor)
    boots, chance = by_rows(lambda c, a: float(run(c, a)[0].mean()), codes[:, usable], latents, rng, n_bootstrap)
    details = {name: _spread_out(table, usable, alive(w)) for name, table in details.items()}
    return Score(value, per_factor, interval(value, boots, 0.0, 1.0), chance, details, settings)


def _groups(rng: np.random.Generator, column: Ints, number: int, size: int) -> Ints:
    """Rows (number, size): a value of the column for each group, then rows that have it."""
    order, sizes = np.argsort(column, kind="stable"), np.bincount(column)
    starts = np.cumsum(sizes) - sizes
    # A value of one row would make every latent still; only when no value repeats (a resample) is it let in.
    values = np.flatnonzero(sizes >= min(2, sizes.max()))
    drawn = rng.choice(values, size=number)
    within = (rng.random((number, size)) * sizes[drawn][:, None]).astype(np.int64)
    result: Ints = order[starts[drawn][:, None] + within]
    return result


def _repeats(codes: Ints) -> Bools:
    return np.array([np.bincount(column).max() > 1 for column in codes.T])


def _spread_out(table: Floats, rows: Bools, columns: Bools) -> Floats:
    """The table of the usable factors and latents inside one of all of them, 0 elsewhere."""
    whole = np.zeros((len(rows), len(columns)), dtype=table.dtype)
    whole[np.ix_(rows, columns)] = table
    return whole
