r"""Do several runs find the same latents? No ground truth is needed.

For runs r and s, :math:`R_{ab} = |\mathrm{corr}(\hat z^r_a, \hat z^s_b)|` over their informative latents, and a
one-to-one assignment :math:`\pi` that maximises :math:`\sum_a R_{a \pi(a)}`, found on one half of the rows and scored
on the other. Unsupervised disentanglement ranking (UDR) rewards a strong partner and punishes further ones:

.. math:: \mathrm{UDR}_{rs} = \frac{1}{d_r + d_s} \Big[ \sum_a \frac{R_{a\pi(a)}^2}{\sum_b R_{ab}}
          + \sum_b \frac{R_{\pi^{-1}(b) b}^2}{\sum_a R_{ab}} \Big],

with :math:`d_r` informative latents in run r. It differs from the paper in that a latent's strongest partner may not
serve two latents, and in that partners are chosen on other rows than scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from unmix.errors import DataError, SettingError
from unmix.metrics.inputs import (
    Bools,
    Floats,
    Ints,
    alive,
    as_array,
    centred,
    generator,
    in_range,
    matrix,
    one_of,
    warn,
)
from unmix.metrics.recovery import correlation, match
from unmix.metrics.score import Score, interval


def udr(
    runs: Sequence[ArrayLike] | Floats,
    *,
    kl: Sequence[ArrayLike] | Floats | None = None,
    threshold: float = 0.01,
    method: Literal["pearson", "spearman"] = "spearman",
    n_bootstrap: int = 200,
    random_state: int = 0,
) -> Score:
    """Agreement of several runs on the same rows, over their informative latents.

    Runs that agree may agree on something wrong; runs that disagree cannot be trusted.

    Parameters
    ----------
    runs : two or more arrays (n_samples, n_latents)
        Latents of the same rows, from rows that trained no run; the numbers of latents may differ.
    kl : arrays (n_latents,), one a run, optional
        Mean KL divergence of each latent's posterior from its prior, nats. With domains the prior is p(z given u), not
        N(0, I): against the latter, latents that only follow the domain look informative.
    threshold : float, default 0.01
        A latent is informative with more than so many nats; without ``kl``, with more than this share of the largest
        variance in its run.
    method : {"spearman", "pearson"}, default "spearman"
    n_bootstrap : int, default 200
        Resamples of the scored rows behind ``interval``.
    random_state : int, default 0

    Returns
    -------
    Score
        In [0, 1], the mean of ``per_factor``, which here has one entry a run: the median over the other runs.
        ``details`` holds, pair by pair, ``pairs`` (n_runs, n_runs), ``consistency`` (n_runs, n_runs), the mean
        correlation of partners where an informative latent without one counts 0, and ``informative``, a list of masks.
        A run without an informative latent scores 0 with a ``MetricWarning``. For ``chance`` the rows of every run are
        shuffled.

    Raises
    ------
    DataError
        Fewer than two runs, runs with different rows or values that are not finite, or ``kl`` of another shape.
    SettingError
        ``method`` is unknown, or ``threshold`` below 0.

    References
    ----------
    Duan et al. 2020, arXiv:1905.12614.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).standard_normal((2000, 2))
    >>> turn = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
    >>> udr([z, -z[:, [1, 0]]]) > 0.9, udr([z, z @ turn]) < 0.4
    (True, True)
    """
    one_of("method", method, ("pearson", "spearman"))
    rng = generator(random_state, n_bootstrap)
    if not isinstance(threshold, int | float) or not threshold >= 0:
        raise SettingError(f"threshold must be a number, 0 or more; got {threshold!r}.")
    if not isinstance(runs, Iterable):
        raise DataError(f"runs must be two or more arrays with the same rows; got {type(runs).__name__}.")
    latents = [in_range(matrix(f"runs[{r}]", run), axis=None) for r, run in enumerate(runs)]
    if len(latents) < 2 or len({len(run) for run in latents}) > 1 or len(latents[0]) < 4:
        raise DataError(
            "runs must be two or more arrays with the same rows, at least 4; got shapes "
            f"{[run.shape for run in latents]}."
        )
    informative = _informative(latents, kl, threshold)
    empty = [r for r, mask in enumerate(informative) if not mask.any()]
    if empty:
        warn(f"Runs {empty} have no informative latent; they score 0.")
    used = [run[:, mask] for run, mask in zip(latents, informative, strict=True)]
    value, per_run, pairs, consistency, boots = _agree(used, rng, method, n_bootstrap)
    shuffled = [run[rng.permutation(len(run))] for run in used]
    chance = _agree(shuffled, rng, method, 0)[0]
    details = {"pairs": pairs, "consistency": consistency, "informative": informative}
    settings = {
        "method": method,
        "informative": "variance" if kl is None else "kl",
        "threshold": threshold,
        "n_samples": len(latents[0]),
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    return Score(value, per_run, interval(value, boots, 0.0, 1.0), chance, details, settings)


def _informative(latents: list[Floats], kl: Sequence[ArrayLike] | Floats | None, threshold: float) -> list[Bools]:
    if kl is None:
        spreads = [_spread(run) for run in latents]
        return [alive(run) & (own > threshold**0.5 * own.max()) for run, own in zip(latents, spreads, strict=True)]
    said, expected = "one number per latent for every run", [run.shape[1:] for run in latents]
    divergences = [as_array("kl", run, said, float) for run in kl] if isinstance(kl, Iterable) else []
    if [run.shape for run in divergences] != expected:
        raise DataError(f"kl must hold {said}, shapes {expected}; got {[run.shape for run in divergences]}.")
    if not all(np.isfinite(run).all() for run in divergences):
        raise DataError(f"kl must hold {said}; some are not finite.")
    return [alive(run) & (divergence > threshold) for run, divergence in zip(latents, divergences, strict=True)]


def _spread(run: Floats) -> Floats:
    """Standard deviation of every column, as a share of the run's largest entry."""
    largest = np.abs(run).max()
    result: Floats = np.sqrt((centred(run / largest if largest > 0 else run) ** 2).mean(axis=0))
    return result


def _agree(
    runs: list[Floats], rng: np.random.Generator, method: Literal["pearson", "spearman"], n_bootstrap: int
) -> tuple[float, Floats, Floats, Floats, list[float]]:
    """Value, per run, UDR and consistency of every pair, bootstrap values."""
    stacked, columns = np.concatenate(runs, axis=1), np.cumsum([0] + [run.shape[1] for run in runs])
    chosen, scored = np.split(stacked[rng.permutation(len(stacked))], [len(stacked) // 2])
    if method == "spearman":
        # Ranked once: ranks taken again in every resample cost most of the time and move the interval by nothing.
        chosen, scored = rankdata(chosen, axis=0), rankdata(scored, axis=0)
    number = len(runs)
    blocks = {
        (r, s): np.s_[columns[r] : columns[r + 1], columns[s] : columns[s + 1]]
        for r in range(number)
        for s in range(r + 1, number)
    }
    choice = correlation(chosen, chosen)
    partners = {duo: _partners(choice[block]) for duo, block in blocks.items()}

    def compare(rows: Floats) -> tuple[Floats, Floats]:
        strength = np.abs(correlation(rows, rows))
        pairs, consistency = np.eye(number), np.eye(number)
        for (r, s), block in blocks.items():
            pairs[r, s], consistency[r, s] = _pair_value(strength[block], *partners[r, s])
            pairs[s, r], consistency[s, r] = pairs[r, s], consistency[r, s]
        return pairs, consistency

    def per_run(pairs: Floats) -> Floats:
        return np.array([np.median(np.delete(pairs[r], r)) for r in range(number)])

    pairs, consistency = compare(scored)
    boots = [
        float(per_run(compare(scored[rng.integers(len(scored), size=len(scored))])[0]).mean())
        for _ in range(n_bootstrap)
    ]
    return float(per_run(pairs).mean()), per_run(pairs), pairs, consistency, boots


def _partners(signed: Floats) -> tuple[Ints, Ints]:
    assignment = match(np.abs(signed))
    rows = np.flatnonzero(assignment >= 0)
    return rows, assignment[rows]


def _pair_value(strength: Floats, rows: Ints, columns: Ints) -> tuple[float, float]:
    if not strength.size:
        return 0.0, 0.0
    paired = strength[rows, columns]
    sums = np.stack([strength.sum(axis=1)[rows], strength.sum(axis=0)[columns]])
    terms = np.where(sums > 0, paired**2 / np.where(sums > 0, sums, 1.0), 0.0)
    return float(terms.sum() / sum(strength.shape)), float(paired.sum() / max(strength.shape))
