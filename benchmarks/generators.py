"""Data with known latents in several domains, as other groups' published code draws it.

Each function restates one generator after its paper and its public repository: the distributions, sizes, layers and
activations are theirs, the number of rows is smaller (3,000 to 8,000 in all). Nothing is copied, and the random
numbers differ, so a seed gives another draw here than there. ``PROBLEMS`` maps a name to a callable of the seed:

    >>> from generators import PROBLEMS
    >>> data = PROBLEMS["interventions"](0)
    >>> data.x.shape, data.z.shape, len(set(data.domains))
    ((8000, 4), (8000, 4), 5)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Function = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Problem:
    """A data set and its truth; rows are in the order of the domains.

    Attributes
    ----------
    x : float array (n_samples, n_features)
    domains : int array (n_samples,)
    z : float array (n_samples, n_latents), the true latents
    name : str
    notes : str, whose generator this is, and what of z can be found at all
    changing : bool array (n_domains, n_latents)
        Whether the mechanism of the latent is another in this domain than in the first.
    mixing : callable, (n, n_latents) to (n, n_features), without noise
    """

    x: Floats
    domains: Ints
    z: Floats
    name: str
    notes: str
    changing: NDArray[np.bool_]
    mixing: Function = field(repr=False)


def segments(
    seed: int = 0,
    *,
    name: str = "tcl-lrelu",
    n_domains: int = 40,
    rows: int = 200,
    n_latents: int = 5,
    n_features: int = 5,
    n_layers: int = 3,
    source: str = "gaussian",
    activation: str = "lrelu",
    slope: float = 0.1,
    remark: str = "",
) -> Problem:
    """Sources whose scale changes from segment to segment, mixed by a dense network: the data of TCL and iVAE.

    Khemakhem, Kingma, Monti, Hyvärinen: Variational autoencoders and nonlinear ICA, AISTATS 2020, after Hyvärinen and
    Morioka: Unsupervised feature extraction by time-contrastive learning, 2016. Repository ilkhem/iVAE: ``lib/data.py``
    (``generate_data``) with ``configs/ivae.yaml``: 40 segments, 5 latents, 5 features, 3 layers, Gaussian sources of
    mean 0, whose standard deviation in each segment is uniform in 0.5 … 3; no noise. 200 rows a segment, there 1,000.

    Layers are x A without bias, the last without activation: leaky ReLU of slope 0.1 (the default of
    ``generate_data``) or tanh(x) + 0.1 x (``xtanh``, of the configuration). A has entries uniform in −1 … 1, columns
    of length 1, and a condition number below the lower quartile of 10,000 such matrices. Where there are as many
    features as latents, every layer has the same A, as there.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_domains), rows)
    scales = rng.uniform(0.5, 3.0, (n_domains, n_latents))
    z = _SOURCES[source](rng, (len(labels), n_latents)) * scales[labels]
    first = _well_conditioned(rng, n_latents, n_features)
    later = first if n_features == n_latents else _well_conditioned(rng, n_features, n_features)
    weights = [first] + [later] * (n_layers - 1)
    mixing = partial(_network, weights=weights, activation=_ACTIVATIONS[activation](slope), last=False)
    notes = f"Khemakhem et al. 2020 (ilkhem/iVAE). {remark or 'All latents change, in scale only.'}"
    return Problem(mixing(z), labels, z, name, notes, _changing(n_domains, np.ones(n_latents, bool)), mixing)


def heavy_tails(seed: int = 0, *, name: str = "heavy-tails", **settings: Any) -> Problem:
    """Student-t sources with 3 degrees of freedom (variance 1), through the iVAE generator.

    No group's default: the generator of ``segments``, with the settings of ``compare_to_tcl.py`` of ilkhem/iVAE
    (10 segments, 500 rows each, 5 latents, 5 features), its ``activation="none"`` for a linear mixing or two layers of
    leaky ReLU with slope 0.2 for a mild one, and t(3) in place of its Laplace sources. scikit-learn's comparison of
    FastICA and PCA draws t(1.5) sources, which have no variance.
    """
    own = {"n_domains": 10, "rows": 500, "n_layers": 2, "source": "t", "slope": 0.2, **settings}
    remark = "Sources t(3), changing in scale: no group's default."
    return segments(seed, name=name, remark=remark, **own)


def content_and_style(
    seed: int = 0,
    *,
    name: str = "content-style",
    n_domains: int = 9,
    rows: int = 880,
    n_content: int = 2,
    n_style: int = 2,
    n_layers: int = 2,
    means: tuple[float, float] = (-4.0, 4.0),
    scales: tuple[float, float] = (0.01, 1.0),
    linear_first: bool = True,
) -> Problem:
    """Content that no domain changes and style that all do, mixed by a leaky-ReLU flow.

    Kong, Xie, Yao, Zheng, Chen, Stojanov, Akinwande, Zhang: Partial identifiability for domain adaptation (iMSDA),
    ICML 2022. Their synthetic code: ``gen_da_data_ortho`` of ``gen_dataset.py`` (first in weirayao/leap) with the
    configuration for 9 domains: 4 latents, of which 2 are style, 4 features, ``N_LAYERS`` 2,
    ``LINEAR_MIXING_FIRST``, means of style uniform in −4 … 4, standard deviations uniform in 0.01 … 1 (there called
    variances), no noise. 880 rows a domain, there 10,000.

    All latents are drawn from N(0, 1) and standardised over all rows; style is then scaled and shifted by domain.
    Mixing: a random orthogonal matrix (if ``linear_first``), then ``n_layers − 1`` times leaky ReLU of slope 0.2 and
    another orthogonal matrix. Problem content-style-deep has the defaults of the function itself: 3 layers, no
    matrix first, means 0 … 3, standard deviations 0.01 … 3.

    Content is N(0, I) in every domain, so a rotation of it cannot be seen: only style has single latents to find.
    """
    rng = np.random.default_rng(seed)
    n_latents = n_content + n_style
    labels = np.repeat(np.arange(n_domains), rows)
    z = rng.standard_normal((len(labels), n_latents))
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    scale, mean = rng.uniform(*scales, (n_domains, n_style)), rng.uniform(*means, (n_domains, n_style))
    z[:, n_content:] = z[:, n_content:] * scale[labels] + mean[labels]
    turns = [_orthogonal(rng, n_latents) for _ in range(n_layers - 1 + linear_first)]
    start = turns.pop(0) if linear_first else np.eye(n_latents)
    activate = _leaky_relu(0.2)

    def mixing(latents: Floats) -> Floats:
        values = latents @ start
        for turn in turns:
            values = activate(values) @ turn
        return values

    changing = _changing(n_domains, np.arange(n_latents) >= n_content)
    notes = "Kong et al. 2022, iMSDA. Content (the first latents) is N(0, I) everywhere: found up to a rotation only."
    return Problem(mixing(z), labels, z, name, notes, changing, mixing)


def interventions(
    seed: int = 0,
    *,
    name: str = "interventions",
    n_latents: int = 4,
    rows: int = 1600,
    edge_probability: float = 0.0,
    coefficients: tuple[float, float] = (0.0, 1.0),
    mechanism: str = "linear",
    n_nonlinearities: int = 3,
) -> Problem:
    """One domain without and one with a perfect intervention on each latent, dense invertible mixing.

    Liang, Kekić, von Kügelgen, Buchholz, Besserve, Gresele, Schölkopf: Causal component analysis, NeurIPS 2023, and
    von Kügelgen et al.: Nonparametric identifiability of causal representations from unknown interventions, NeurIPS
    2023. Repository akekic/causal-component-analysis: ``config.py``, ``data_generator`` and the commands in the
    README files of its experiments. Settings followed:

    - interventions: ``graph-4-8`` (4 independent latents), 3 nonlinearities (``3_nonlin_ica``).
    - interventions-graph: ``graph-4-random-1``, edges with probability 0.5 (at least one), linear Gaussian mechanisms
      with coefficients uniform in −1 … 1 (``3_nonlin_cauca``).
    - interventions-two: ``graph-2-1``, z₁ → z₂ with a coefficient of size 2 … 10 (``3_nonlin_cauca_2vars_10scm_min2``).
    - interventions-scale: ``graph-3-random-1`` with location-scale mechanisms 10 loc(pa) + scale(pa) u, each a
      network of three layers of N(0, 1) weights and leaky tanh (``3var_snr10``).

    Noise is N(0, 1); an intervention cuts the parents and moves the mean of the noise to 2 (the published code draws
    a sign but moves up either way). Mixing: n_nonlinearities times x M followed by tanh(x) + 0.1 x, M uniform in
    0 … 1, redrawn from N(0, 1) until |det M| ≥ 0.1. No noise on x. 1,600 rows a domain, there 200,000.
    """
    rng = np.random.default_rng(seed)
    n_domains = n_latents + 1
    labels = np.repeat(np.arange(n_domains), rows)
    parents = _draw_graph(rng, n_latents, edge_probability)
    mechanisms = [_MECHANISMS[mechanism](rng, np.flatnonzero(parents[:, i]), coefficients) for i in range(n_latents)]
    noise = rng.standard_normal((len(labels), n_latents))
    z = np.empty_like(noise)
    for i, draw in enumerate(mechanisms):
        hit = labels == i + 1
        z[:, i] = np.where(hit, noise[:, i] + 2.0, draw(z, noise[:, i]))
    weights = [_invertible(rng, n_latents) for _ in range(n_nonlinearities)]
    mixing = partial(_network, weights=weights, activation=_leaky_tanh(0.1), last=True)
    changing = np.eye(n_domains, n_latents, k=-1, dtype=bool)
    notes = "Liang et al., von Kügelgen et al. 2023 (akekic/causal-component-analysis). Domain i: intervention on z_i."
    return Problem(mixing(z), labels, z, name, notes, changing, mixing)


PROBLEMS: Mapping[str, Callable[[int], Problem]] = {
    "tcl-lrelu": segments,
    "tcl-xtanh": partial(segments, name="tcl-xtanh", activation="xtanh"),
    "content-style": content_and_style,
    "content-style-deep": partial(
        content_and_style,
        name="content-style-deep",
        n_layers=3,
        means=(0.0, 3.0),
        scales=(0.01, 3.0),
        linear_first=False,
    ),
    "interventions": interventions,
    "interventions-graph": partial(interventions, name="interventions-graph", edge_probability=0.5),
    "interventions-two": partial(
        interventions, name="interventions-two", n_latents=2, edge_probability=1.0, coefficients=(2.0, 10.0), rows=2500
    ),
    "interventions-scale": partial(
        interventions,
        name="interventions-scale",
        n_latents=3,
        edge_probability=0.5,
        mechanism="location-scale",
        rows=2000,
    ),
    "heavy-tails": partial(heavy_tails, activation="none"),
    "heavy-tails-mild": partial(heavy_tails, name="heavy-tails-mild", activation="lrelu"),
}


def _changing(n_domains: int, latents: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """These latents in every domain but the first."""
    return (np.arange(n_domains) > 0)[:, None] & latents


def _leaky_relu(slope: float) -> Function:
    return lambda x: np.where(x > 0, x, slope * x)


def _leaky_tanh(slope: float) -> Function:
    return lambda x: np.tanh(x) + slope * x


_ACTIVATIONS: dict[str, Callable[[float], Function]] = {
    "lrelu": _leaky_relu,
    "xtanh": _leaky_tanh,
    "none": lambda slope: lambda x: x,
}
# Each with mean 0 and variance 1.
_SOURCES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "gaussian": lambda rng, shape: rng.standard_normal(shape),
    "laplace": lambda rng, shape: rng.laplace(0.0, np.sqrt(0.5), shape),
    "t": lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3.0),
}


def _network(x: Floats, weights: list[Floats], activation: Function, last: bool) -> Floats:
    """Layers x W without bias, each followed by the activation, the last one only if ``last``."""
    for layer, weight in enumerate(weights):
        x = x @ weight
        if last or layer < len(weights) - 1:
            x = activation(x)
    return x


def _well_conditioned(rng: np.random.Generator, n_in: int, n_out: int) -> Floats:
    """Entries uniform in −1 … 1, columns of length 1, condition number below the lower quartile of 10,000 draws."""
    drawn = rng.uniform(-1.0, 1.0, (10_000, n_in, n_out))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    conditions = np.linalg.cond(drawn)
    good = drawn[conditions <= np.percentile(conditions, 25)]
    matrix: Floats = good[rng.integers(len(good))]
    return matrix


def _orthogonal(rng: np.random.Generator, size: int) -> Floats:
    matrix: Floats = stats.ortho_group.rvs(size, random_state=rng)
    return matrix


def _invertible(rng: np.random.Generator, size: int) -> Floats:
    matrix = rng.uniform(0.0, 1.0, (size, size))
    while abs(np.linalg.det(matrix)) < 0.1:
        matrix = rng.standard_normal((size, size))
    return matrix


def _draw_graph(rng: np.random.Generator, size: int, probability: float) -> NDArray[np.bool_]:
    """Parents (row) of children (column), upper triangular; at least one edge unless the probability is 0."""
    while True:
        graph = np.triu(rng.random((size, size)) < probability, k=1)
        if graph.any() or probability == 0:
            return graph


def _linear(rng: np.random.Generator, parents: Ints, sizes: tuple[float, float]) -> Callable[[Floats, Floats], Floats]:
    """Σ a z_parent + noise, |a| uniform between ``sizes``, with random signs."""
    weights = rng.uniform(*sizes, len(parents)) * rng.choice([-1.0, 1.0], len(parents))
    return lambda z, noise: z[:, parents] @ weights + noise


def _location_scale(rng: np.random.Generator, parents: Ints, _: Any) -> Callable[[Floats, Floats], Floats]:
    """10 loc(z_parents) + scale(z_parents) noise; the noise itself without parents."""
    if not len(parents):
        return lambda z, noise: noise
    n_parents, activate = len(parents), _leaky_tanh(0.1)
    shapes = [(n_parents, n_parents), (n_parents, n_parents), (n_parents, 1)]
    location, scale = ([rng.standard_normal(shape) for shape in shapes] for _ in range(2))

    def draw(z: Floats, noise: Floats) -> Floats:
        centre, spread = (_network(z[:, parents], weights, activate, True)[:, 0] for weights in (location, scale))
        return 10.0 * centre + spread * noise

    return draw


_MECHANISMS = {"linear": _linear, "location-scale": _location_scale}
