r"""How many latents share the information about one factor, how many factors share one latent?

Mutual information :math:`I_{ij} = I(z_i; \hat z_j)` from counts, continuous columns in quantile bins. Counts of
independent columns give about :math:`(B_z - 1)(B_{\hat z} - 1) / 2N > 0`; this bias :math:`b_{ij}` is estimated by the
mean over shuffled rows.

- Mutual information gap: with :math:`A_{ij} = \max(0, I_{ij} - b_{ij}) / (H(z_i) - b_{ij})`, which is 0 for independent
  columns and 1 for a latent that determines the factor,
  :math:`\mathrm{MIG}_i = A_{i(1)} - A_{i(2)}`, largest minus second largest over the latents.
  Without the correction (b = 0) this is the published :math:`(I_{i(1)} - I_{i(2)}) / H(z_i)`.
- Modularity: with :math:`\theta_j = \max_i I_{ij}`,
  :math:`1 - \sum_{i \ne i^*} I_{ij}^2 / (\theta_j^2 (K - 1))`, mean over the latents.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

from unmix.metrics.inputs import Bools, Discrete, Floats, Ints, alive, at_least, factor_pair, generator, warn
from unmix.metrics.score import Score, interval, mean_defined


def bins(a: Floats, n_bins: int, discrete: Bools | None = None) -> Ints:
    """Codes 0, 1, … of every column: the classes themselves where discrete or few, else quantile bins."""
    at_least("n_bins", n_bins, 2)
    codes = np.empty(a.shape, dtype=np.int64)
    for j, column in enumerate(a.T):
        values, codes[:, j] = np.unique(column, return_inverse=True)
        if len(values) > n_bins and not (discrete is not None and discrete[j]):
            edges = np.quantile(column, np.linspace(0, 1, n_bins + 1)[1:-1])
            codes[:, j] = np.searchsorted(np.unique(edges), column, side="right")
    return codes


def information(factors: Ints, latents: Ints) -> tuple[Floats, Floats]:
    """Plug-in mutual information of every factor with every latent, and the factors' entropies; nats."""
    joint, shape = _joint(factors, latents)
    return _information(joint, shape)


def mig(
    z_true: ArrayLike,
    z_hat: ArrayLike,
    *,
    discrete: Discrete = False,
    n_bins: int = 20,
    n_permutations: int = 20,
    n_bootstrap: int = 200,
    random_state: int = 0,
) -> Score:
    """Mutual information gap: is each factor held by one latent and no second one?

    Parameters
    ----------
    z_true : array (n_samples, n_factors)
    z_hat : array (n_samples, n_latents)
    discrete : bool, column numbers or mask, default False
        Factors that are classes; the others are put in quantile bins.
    n_bins : int, default 20
        Bins of continuous columns.
    n_permutations : int, default 20
        Shuffles behind the bias correction; 0 gives the published plug-in value.
    n_bootstrap : int, default 200
        Resamples of the rows behind ``interval``.
    random_state : int, default 0

    Returns
    -------
    Score
        In [0, 1]. A constant factor is NaN in ``per_factor`` and left out with a ``MetricWarning``. ``details`` holds
        ``matrix`` (n_factors, n_latents), the share of each factor's entropy; ``information``, corrected, and
        ``entropy`` in nats.

    References
    ----------
    Chen et al. 2018, arXiv:1802.04942, equation 6.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).standard_normal((2000, 2))
    >>> round(mig(z, z), 2), round(mig(z, z[:, [0, 0, 1]]), 2)    # a copy closes the gap of its factor
    (1.0, 0.5)
    """
    rng = generator(random_state, n_bootstrap)
    at_least("n_permutations", n_permutations, 0)
    z, w, classes, varies = factor_pair(z_true, z_hat, discrete, rng)
    factors, latents = bins(z, n_bins, classes), bins(w, n_bins)
    _warn_of_few_rows(factors, latents)
    shuffles = [_information(*_joint(factors, latents[rng.permutation(len(z))]))[0] for _ in range(n_permutations)]
    bias = np.mean(shuffles, axis=0) if shuffles else np.zeros((z.shape[1], w.shape[1]))
    joint, shape = _joint(factors, latents)

    def gaps(table: Ints) -> tuple[Floats, Floats, Floats, Floats]:
        raw, entropy = _information(table, shape)
        # Entropy that chance explains entirely (a bin for every row) leaves nothing to recover.
        room = np.maximum(entropy[:, None] - bias, 0.0)
        usable = room > 1e-9
        share = np.where(usable, np.clip((raw - bias) / np.where(usable, room, 1.0), 0.0, 1.0), 0.0)
        ordered = np.sort(np.column_stack([np.zeros(len(share)), share]), axis=1)
        return np.where(varies, ordered[:, -1] - ordered[:, -2], np.nan), share, raw, entropy

    per_factor, share, raw, entropy = gaps(joint)
    value = mean_defined(per_factor)
    boots = [mean_defined(gaps(joint[rng.integers(len(z), size=len(z))])[0]) for _ in range(n_bootstrap)]
    chance = mean_defined(gaps(_joint(factors, latents[rng.permutation(len(z))])[0])[0])
    details = {"matrix": share, "information": np.maximum(raw - bias, 0.0), "entropy": entropy}
    settings = {
        "n_samples": len(z),
        "discrete": np.flatnonzero(classes).tolist(),
        "n_bins": n_bins,
        "n_permutations": n_permutations,
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    return Score(value, per_factor, interval(value, boots, 0.0, 1.0), chance, details, settings)


def modularity(
    z_true: ArrayLike,
    z_hat: ArrayLike,
    *,
    discrete: Discrete = False,
    n_bins: int = 20,
    n_bootstrap: int = 200,
    random_state: int = 0,
) -> Score:
    """Does each latent hold information about one factor only?

    A latent that holds two halves of nothing scores low too: prune latents that the model does not use first. Constant
    ones are left out here (where all are, the value is 0 with a ``MetricWarning``), as are constant factors, with a
    ``MetricWarning``. With one factor every latent is modular: the value is 1 and a ``MetricWarning`` says so.

    Parameters
    ----------
    z_true : array (n_samples, n_factors)
    z_hat : array (n_samples, n_latents)
    discrete : bool, column numbers or mask, default False
        Factors that are classes; the others are put in quantile bins.
    n_bins : int, default 20
    n_bootstrap : int, default 200
        Resamples of the rows behind ``interval``.
    random_state : int, default 0

    Returns
    -------
    Score
        In [0, 1]. ``per_factor`` is the mean over the latents that say most about the factor (NaN without one);
        ``details`` holds ``per_latent`` (NaN for a constant one), ``factor`` of each latent (-1 for none) and
        ``matrix`` (n_factors, n_latents), the plug-in information in nats.

    References
    ----------
    Ridgeway and Mozer 2018, arXiv:1802.05312.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).standard_normal((4000, 2))
    >>> turn = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
    >>> round(modularity(z, z), 2), modularity(z, z @ turn) < 0.1
    (1.0, True)
    """
    rng = generator(random_state, n_bootstrap)
    z, w, classes, varies = factor_pair(z_true, z_hat, discrete, rng)
    live = alive(w)
    factors, latents = bins(z, n_bins, classes), bins(w, n_bins)
    _warn_of_few_rows(factors, latents)
    if not live.any():
        warn("Every latent is constant: modularity is 0.")
    if varies.sum() == 1:
        warn("Modularity compares factors; with one factor it is 1 for every latent.")
    joint, shape = _joint(factors, latents)

    def per_latent(table: Ints) -> tuple[Floats, Floats]:
        raw = _information(table, shape)[0]
        best = raw.max(axis=0)
        informative = live & (best > 1e-12)
        # A live latent without any information about a factor is as unmodular as can be.
        excess = (raw**2).sum(axis=0) - best**2
        others = max(int(varies.sum()) - 1, 1)
        share = np.where(informative, excess / np.where(informative, best**2, 1.0) / others, varies.sum() > 1)
        return np.where(live & varies.any(), np.clip(1.0 - share, 0.0, 1.0), np.nan), raw

    def mean(table: Ints) -> float:
        return mean_defined(per_latent(table)[0]) if live.any() or not varies.any() else 0.0

    values, raw = per_latent(joint)
    factor = np.where(live, raw.argmax(axis=0), -1)
    per_factor = np.array([mean_defined(values[factor == i]) for i in range(z.shape[1])])
    value = mean(joint)
    boots = [mean(joint[rng.integers(len(z), size=len(z))]) for _ in range(n_bootstrap)]
    chance = mean(_joint(factors, latents[rng.permutation(len(z))])[0])
    details = {"per_latent": values, "factor": factor, "matrix": raw}
    settings = {
        "n_samples": len(z),
        "discrete": np.flatnonzero(classes).tolist(),
        "n_bins": n_bins,
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    return Score(value, per_factor, interval(value, boots, 0.0, 1.0), chance, details, settings)


def _joint(factors: Ints, latents: Ints) -> tuple[Ints, tuple[int, int, int, int]]:
    """Cell of each row in the flattened tables (factor, latent, factor code, latent code), and that shape."""
    rows, n_factors = factors.shape
    shape = (n_factors, latents.shape[1], int(factors.max()) + 1, int(latents.max()) + 1)
    cell = factors[:, :, None] * shape[3] + latents[:, None, :]
    table = np.arange(shape[0] * shape[1]).reshape(shape[:2]) * (shape[2] * shape[3])
    return (cell + table).reshape(rows, -1), shape


def _information(cells: Ints, shape: tuple[int, int, int, int]) -> tuple[Floats, Floats]:
    counts = np.bincount(cells.ravel(), minlength=int(np.prod(shape))).reshape(shape) / len(cells)
    factor_entropy, latent_entropy = (entr(counts.sum(axis=axis)).sum(axis=-1) for axis in (3, 2))
    joint_entropy = entr(counts).sum(axis=(2, 3))
    return np.maximum(factor_entropy + latent_entropy - joint_entropy, 0.0), factor_entropy[:, 0]


def _warn_of_few_rows(factors: Ints, latents: Ints) -> None:
    cells = (int(factors.max()) + 1) * (int(latents.max()) + 1)
    if len(factors) < cells:
        warn(f"{len(factors)} rows for {cells} pairs of bins: the information is mostly bias. Use fewer bins (n_bins).")
