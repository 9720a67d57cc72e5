r"""Data with a known answer: latents whose distribution changes with the domain, mixed sparsely.

.. math:: z_i \mid u \text{ independent (or dependent, on request)}, \qquad x_k = g_k(z_{\mathrm{Pa}(k)}) + \text{noise}

The latents come from ``unmix.datasets.sources``, the parents Pa from ``unmix.datasets.supports``, the functions g from
``unmix.datasets.mixings``. Every noiseless feature has mean 0 and standard deviation 1 over the sample, so ``noise`` is
in units of each feature's standard deviation. Features can also be counts or binary
(``unmix.datasets.observations``). Options draw from generators of their own: with and without
them, one ``random_state`` gives the same problem in all that the option does not touch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from unmix.datasets.injectivity import Injectivity, injectivity
from unmix.datasets.mixings import (
    FORMS,
    DenseMixing,
    Form,
    RedundantMixing,
    SparseMixing,
    draw_dense,
    draw_redundant,
    draw_sparse,
)
from unmix.datasets.observations import OBSERVED, Observed, observe
from unmix.datasets.sources import (
    AUXILIARY,
    CHANGES,
    SOURCES,
    Auxiliary,
    Change,
    Source,
    draw_domains,
    draw_sources,
)
from unmix.datasets.supports import (
    STRUCTURES,
    Plan,
    Structure,
    accept_support,
    draw_support,
    draw_weak_edges,
    read_order,
)
from unmix.errors import SettingError
from unmix.theory import domains_needed
from unmix.validation import FLAG, NUMBER, RandomLike, random_seed, whole

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MixingData:
    """A generated data set and the truth behind it.

    Attributes
    ----------
    x : float array (n_samples, n_features)
    domains : int array (n_samples,), or DataFrame (columns region and site, or u)
        The auxiliary variables, as ``y`` of a model.
    z : float array (n_samples, n_latents), the true latents
    support : bool array (n_features, n_latents), as intended: without the weak edges of ``violation``
    mixing : the true ``g``, callable on latents, with its own ``jacobian``
    domains_needed : int, what ``full_support`` asks for (``unmix.theory``, T5)
        Redundant features do not count: their derivatives are combinations of others'.
    full_support : bool array (n_features, n_latents), where the Jacobian is not zero
    unchanging : bool array (n_latents,), latents with one distribution in all domains
    redundant : bool array (n_features,), features that repeat others
    auxiliary : dict, the kinds of ``domains`` as ``CGVAE(auxiliary=...)`` takes them
    sizes : float array (n_samples,), the true size factor of each row, where features are counts
    batches : int array (n_samples,), the batch of each row, where features are not Gaussian
    """

    x: Floats
    domains: NDArray[np.int64] | pd.DataFrame
    z: Floats
    support: Bools
    mixing: SparseMixing | DenseMixing | RedundantMixing = field(repr=False)
    domains_needed: int
    full_support: Bools
    unchanging: Bools
    redundant: Bools
    auxiliary: dict[str, str]
    sizes: Floats | None = None
    batches: NDArray[np.int64] | None = None

    @property
    def feature_names(self) -> list[str]:
        return [f"x{k}" for k in range(self.x.shape[1])]

    @cached_property
    def jacobian(self) -> Floats:
        """Exact derivatives of ``mixing`` at ``z`` (n_samples, n_features, n_latents)."""
        return self.mixing.jacobian(self.z)

    def check_injective(self, **settings: Any) -> Injectivity:
        """Whether ``mixing`` is injective on ``z``: ``injectivity(mixing, z, **settings)``."""
        return injectivity(self.mixing, self.z, **settings)


def make_sparse_mixing(
    n_latents: int = 4,
    n_features: int = 8,
    n_domains: int = 4,
    n_samples: int = 8000,
    density: float = 0.5,
    change: Change = "both",
    noise: float = 0.05,
    nonlinearity: float = 1.0,
    guaranteed: bool = False,
    random_state: RandomLike = 0,
    *,
    source: Source = "gaussian",
    n_unchanging: int = 0,
    dependence: float = 0.0,
    auxiliary: Auxiliary = "categorical",
    n_regions: int = 2,
    mixing: Form = "features",
    structure: Structure = "random",
    block_size: int = 2,
    support: ArrayLike | None = None,
    violation: float = 0.0,
    weak: float = 0.2,
    n_redundant: int = 0,
    likelihood: Observed = "gaussian",
    mean_count: float = 10.0,
    dispersion: float = 0.1,
    size_spread: float = 0.3,
    n_batches: int = 1,
    batch_effect: float = 0.0,
) -> MixingData:
    """Latents that change between domains, seen through a sparse nonlinear mixing.

    Parameters
    ----------
    n_latents, n_features, n_domains, n_samples : int
        Sizes; ``n_samples`` counts all domains together, ``n_features >= n_latents``.
    density : float in (0, 1]
        Share of (feature, latent) pairs in which the feature depends on the latent. Every feature has at
        least one parent, every latent at least one child. For the structures random and columns.
    change : {"mean", "scale", "both", "shape", "all"}
        What differs between domains: means in ±1.5, scales in 0.3 … 2 (log-uniform), both, the shape, or all three.
    noise : float, default 0.05
        Standard deviation of Gaussian noise on each feature, in units of the feature's own.
    nonlinearity : float, default 1.0
        Factor on the tanh part. 0: linear; from about 1.5 on, features rise and fall again along a latent, and the
        mixing becomes hard to undo.
    guaranteed : bool, default False
        Draw supports until one (before ``violation``) needs no more domains than there are (``unmix.theory``, T5).
    random_state : int, RandomState or None, default 0
    source : {"gaussian", "laplace", "skewed", "bimodal"}
        The latents before they change, with mean 0 and variance 1.
    n_unchanging : int, default 0
        Latents, drawn at random, that have the same distribution in every domain.
    dependence : float in [0, 1), default 0
        Correlation between the Gaussian scores of every two latents within a domain: 0 is independence.
    auxiliary : {"categorical", "nested", "continuous"}
        Domains as labels; as sites (``n_domains`` in all) within ``n_regions`` regions; or a number u in [0, 1] along
        which the parameters pass smoothly from one of ``n_domains`` drawn values to the next.
    n_regions : int, default 2
        Regions of the nested domains.
    mixing : {"features", "flow", "dense"}
        One network per feature; the same, injective by a triangular support and monotone functions; or an injective
        network in which every feature depends on every latent (``density``, ``structure`` do not apply).
    structure : {"random", "columns", "blocks", "overlapping"}
        Pairs drawn one by one; exactly ``round(density * n_features)`` features for each latent; disjoint groups of
        ``block_size`` latents with features of their own; such groups, each with the first latent of the next.
        A flow drops entries that stand in its way, and where the structure counts features draws others.
    block_size : int, default 2
    support : bool array (n_features, n_latents), optional
        The support itself, instead of a structure.
    violation : float in [0, 1], default 0
        Share of the zeros of the support that get an edge of ``weak`` times the ordinary weights.
    weak : float in (0, 1), default 0.2
    n_redundant : int, default 0
        Features beyond ``n_features`` that repeat one feature, or combine two, with noise of their own.
    likelihood : {"gaussian", "student", "poisson", "negative_binomial", "bernoulli"}
        What is observed of the noiseless features g (mean 0, standard deviation 1), each at a level b of its own: noise
        that is normal or t with 3 degrees of freedom; counts of mean s exp(b + g), for the row's size s; or yes and
        no with log-odds b + 2 g. So an entry of the mixing of counts is a log fold change.
    mean_count : float, default 10.0
        Median over features of exp(b); levels are log-normal around it, with a standard deviation of 1.
    dispersion : float, default 0.1
        φ of the negative binomial, whose variance is μ + φ μ².
    size_spread : float, default 0.3
        Standard deviation of the log of the rows' sizes, whose median is 1.
    n_batches, batch_effect : int, default 1, and float, default 0.0
        Rows are drawn into batches at random; b changes by a normal variable of this standard deviation in each.

    Raises
    ------
    SettingError
        A setting is impossible, or no support of the wanted kind was found.

    Examples
    --------
    >>> data = make_sparse_mixing(n_latents=3, n_features=6, n_domains=3, n_samples=600, guaranteed=True)
    >>> data.x.shape, data.z.shape, data.jacobian.shape
    ((600, 6), (600, 3), (600, 6, 3))
    >>> data.domains_needed <= 3
    True
    >>> flow = make_sparse_mixing(n_samples=600, mixing="flow", structure="columns", n_unchanging=1, violation=0.1)
    >>> flow.check_injective().injective, int(flow.unchanging.sum()), int((flow.full_support ^ flow.support).sum())
    (True, 1, 2)
    """
    settings = dict(locals())
    _check(settings)
    rng = np.random.default_rng(random_seed(random_state))
    for_domains, for_common, for_unchanging, for_violation, for_copies, for_rows = rng.spawn(6)
    plan = Plan(n_latents, n_features, structure, density, block_size, triangular=mixing == "flow")
    limit = n_domains if guaranteed else None
    if mixing == "dense":
        support = np.ones((n_features, n_latents), dtype=bool)
    if support is None:
        strong, needed = draw_support(rng, plan, limit)
    else:
        strong, needed = accept_support(rng, support, plan, limit)
    domains = draw_domains(for_domains, auxiliary, n_samples, n_domains, n_regions)
    unchanging = for_unchanging.permutation(n_latents) < n_unchanging
    z = draw_sources(rng, for_common, domains, unchanging, source, change, dependence)

    own, allowed, full = None, np.ones_like(strong), strong
    if mixing == "flow":
        order = read_order(strong)
        own, allowed = order.own, order.allowed
    if violation:
        full = strong | draw_weak_edges(for_violation, strong, violation, allowed)
        needed = domains_needed(full).needed
    true: SparseMixing | DenseMixing | RedundantMixing
    if mixing == "dense":
        true, clean = draw_dense(rng, n_features, z, nonlinearity)
    else:
        true, clean = draw_sparse(rng, np.where(strong, 1.0, weak * full), z, nonlinearity, own)
    x = clean + noise * rng.standard_normal((n_samples, n_features))
    redundant = np.arange(n_features + n_redundant) >= n_features
    if n_redundant:
        true, clean = draw_redundant(for_copies, true, clean, n_redundant)
        x = np.hstack([x, clean[:, redundant] + noise * for_copies.standard_normal((n_samples, n_redundant))])
        strong, full = (np.vstack([part, (true.weights != 0) @ part]) for part in (strong, full))
    sizes = batches = None
    if likelihood != "gaussian":
        drawn = observe(
            for_rows, clean, likelihood, noise, mean_count, dispersion, size_spread, n_batches, batch_effect
        )
        x, sizes, batches = drawn
    rows = rng.permutation(n_samples)
    return MixingData(
        x[rows],
        domains.take(rows),
        z[rows],
        strong,
        true,
        needed,
        full,
        unchanging,
        redundant,
        domains.kinds,
        None if sizes is None else sizes[rows],
        None if batches is None else batches[rows],
    )


_WHOLE = (
    *("n_latents", "n_features", "n_domains", "n_samples"),
    *("n_unchanging", "n_regions", "block_size", "n_redundant", "n_batches"),
)
_NUMBERS = (
    *("density", "noise", "nonlinearity", "dependence", "violation", "weak"),
    *("mean_count", "dispersion", "size_spread", "batch_effect"),
)
_WORDS = {
    "change": tuple(sorted(CHANGES)),
    "source": SOURCES,
    "auxiliary": AUXILIARY,
    "mixing": FORMS,
    "structure": STRUCTURES,
    "likelihood": OBSERVED,
}


def _check(settings: Mapping[str, Any]) -> None:
    """Every setting by itself, and those that exclude each other."""
    checks = dict.fromkeys(_WHOLE, whole(0)) | dict.fromkeys(_NUMBERS, NUMBER) | {"guaranteed": FLAG}
    for name, check in checks.items():
        check.need(name, settings[name])
    n_latents, n_features, n_domains, n_samples = (
        settings[name] for name in ("n_latents", "n_features", "n_domains", "n_samples")
    )
    if min(n_latents, n_domains) < 1 or n_features < n_latents or n_samples < n_domains:
        raise SettingError(
            "make_sparse_mixing needs n_latents ≥ 1, n_domains ≥ 1, n_features ≥ n_latents and n_samples ≥ n_domains; "
            f"got n_latents={n_latents}, n_features={n_features}, n_domains={n_domains}, n_samples={n_samples}."
        )
    density, noise, nonlinearity = (settings[name] for name in ("density", "noise", "nonlinearity"))
    if not 0 < density <= 1 or noise < 0 or nonlinearity < 0:
        raise SettingError(
            f"Expected 0 < density ≤ 1, noise ≥ 0 and nonlinearity ≥ 0; got {density}, {noise} and {nonlinearity}."
        )
    for name, known in _WORDS.items():
        if settings[name] not in known:
            raise SettingError(f"{name} must be one of {list(known)}; got {settings[name]!r}.")
    _check_ranges(settings)
    if settings["auxiliary"] == "continuous" and n_domains < 2:
        raise SettingError(f"auxiliary='continuous' needs n_domains ≥ 2, the values that u passes; got {n_domains}.")
    if settings["auxiliary"] == "nested" and not 1 <= settings["n_regions"] <= n_domains:
        raise SettingError(
            f"auxiliary='nested' needs 1 ≤ n_regions ≤ n_domains, the number of sites; got "
            f"n_regions={settings['n_regions']} and n_domains={n_domains}."
        )
    sparse = settings["support"] is not None or settings["violation"] > 0 or settings["structure"] != "random"
    if settings["mixing"] == "dense" and sparse:
        raise SettingError(
            "mixing='dense' has the full support: support, structure and violation do not apply. "
            "Leave them out, or use mixing='features' or 'flow'."
        )


def _check_ranges(settings: Mapping[str, Any]) -> None:
    n_latents = settings["n_latents"]
    ranges = [
        ("n_unchanging", settings["n_unchanging"] <= n_latents, f"between 0 and n_latents = {n_latents}"),
        ("dependence", 0 <= settings["dependence"] < 1, "in [0, 1), a correlation"),
        ("block_size", settings["block_size"] >= 1, "at least 1"),
        ("violation", 0 <= settings["violation"] <= 1, "in [0, 1], a share of the zeros"),
        ("weak", 0 < settings["weak"] < 1, "in (0, 1), a fraction of ordinary weights"),
        ("mean_count", settings["mean_count"] > 0, "> 0"),
        ("dispersion", settings["dispersion"] > 0, "> 0"),
        ("size_spread", settings["size_spread"] >= 0, "≥ 0"),
        ("n_batches", settings["n_batches"] >= 1, "at least 1"),
        ("batch_effect", settings["batch_effect"] >= 0, "≥ 0"),
    ]
    for name, good, expected in ranges:
        if not good:
            raise SettingError(f"{name} must be {expected}; got {settings[name]!r}.")
