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
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Function = Callable[[Floats], Floats]
Mechanism = Callable[[Floats, Floats], Floats]
Range = tuple[float, float]


@dataclass(frozen=True)
class Problem:
    """A data set and its truth; rows are in the order of the domains.

    Attributes
    ----------
    x : float array (n_samples, n_features)
    domains : int array (n_samples,); a single label where the generator knows no domains
    z : float array (n_samples, n_latents), the true latents
    name : str
    notes : str, whose generator this is, and what of z can be found at all
    changing : bool array (n_domains, n_latents)
        Whether the mechanism of the latent is another in this domain than in the first.
    mixing : callable, (n, n_latents) to (n, n_features), without noise
    noiseless : bool, whether x is mixing(z) and nothing else
    """

    x: Floats
    domains: Ints
    z: Floats
    name: str
    notes: str
    changing: Bools
    mixing: Function = field(repr=False)
    noiseless: bool = True


def segments(
    seed: int = 0,
    *,
    name: str = "tcl-lrelu",
    n_domains: int = 40,
    rows: int = 200,
    n_layers: int = 3,
    source: Literal["gaussian", "t"] = "gaussian",
    activation: Literal["lrelu", "xtanh", "none"] = "lrelu",
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
    of length 1, and a condition number below the lower quartile of 10,000 such matrices. Every layer has the same A,
    as there.
    """
    rng = np.random.default_rng(seed)
    n_latents = 5
    labels = np.repeat(np.arange(n_domains), rows)
    scales = rng.uniform(0.5, 3.0, (n_domains, n_latents))
    z = _SOURCES[source](rng, (len(labels), n_latents)) * scales[labels]
    weights = [_well_conditioned(rng, n_latents)] * n_layers
    mixing = partial(_network, weights=weights, activation=_ACTIVATIONS[activation](slope), last=False)
    notes = f"Khemakhem et al. 2020 (ilkhem/iVAE). {remark or 'All latents change, in scale only.'}"
    return Problem(mixing(z), labels, z, name, notes, _all_but_first(n_domains, n_latents), mixing)


def heavy_tails(seed: int = 0, *, name: str = "heavy-tails", activation: Literal["lrelu", "none"] = "none") -> Problem:
    """Student-t sources with 3 degrees of freedom (variance 1), through the iVAE generator.

    No group's default: the generator of ``segments``, with the settings of ``compare_to_tcl.py`` of ilkhem/iVAE
    (10 segments, 500 rows each, 5 latents, 5 features), its ``activation="none"`` for a linear mixing or two layers of
    leaky ReLU with slope 0.2 for a mild one, and t(3) in place of its Laplace sources. scikit-learn's comparison of
    FastICA and PCA draws t(1.5) sources, which have no variance.
    """
    remark = "Sources t(3), changing in scale: no group's default."
    return segments(
        seed, name=name, n_domains=10, rows=500, n_layers=2, source="t", activation=activation, slope=0.2, remark=remark
    )


def orthogonal_segments(
    seed: int = 0, *, name: str = "tcl-orthogonal", n_layers: int = 4, dependent: bool = False
) -> Problem:
    """Sources whose scale changes, independent or not, mixed by leaky ReLU and orthogonal matrices: ICE-BeeM's data.

    Khemakhem, Monti, Kingma, Hyvärinen: ICE-BeeM, NeurIPS 2020. Repository ilkhem/icebeem: ``data/imca.py``
    (``generate_synthetic_data``) with ``configs/imca.yaml``: 20 segments of 100 to 2,000 rows (here 400), 5 latents, 5
    features, ``n_layers`` 2 or 4. Mixing: ``n_layers − 1`` times leaky ReLU of slope 0.2, then a random orthogonal
    matrix; no noise.

    TCL (``gen_TCL_data_ortho``): N(0, 1) standardised over all rows, times a standard deviation uniform in 0.01 … 3.
    IMCA (``gen_IMCA_data``, ``dependent``): in each segment Gaussian of mean 0 with precision
    C⁻¹ / 10 + diag(1 / s²), s uniform in 0.01 … 3, and C one random correlation matrix with eigenvalues uniform in
    0 … 1, divided by their mean.
    """
    rng = np.random.default_rng(seed)
    n_domains, rows, n_latents = 20, 400, 5
    labels = np.repeat(np.arange(n_domains), rows)
    scales = rng.uniform(0.01, 3.0, (n_domains, n_latents))
    z = rng.standard_normal((len(labels), n_latents))
    if dependent:
        sizes = rng.uniform(0.0, 1.0, n_latents)
        base = np.linalg.inv(stats.random_correlation.rvs(sizes / sizes.mean(), random_state=rng))
        for domain, scale in enumerate(scales):
            covariance = np.linalg.inv(base * 0.5 / n_latents + np.diag(scale**-2.0))
            z[labels == domain] @= np.linalg.cholesky(covariance).T
    else:
        z = _standardised(z) * scales[labels]
    mixing = _orthogonal_flow(rng, n_latents, n_layers - 1, 0.2)
    within = "dependent within a domain" if dependent else "independent within a domain"
    notes = f"Khemakhem et al. 2020 (ilkhem/icebeem). All latents change, in scale only; {within}."
    return Problem(mixing(z), labels, z, name, notes, _all_but_first(n_domains, n_latents), mixing)


def content_and_style(
    seed: int = 0,
    *,
    name: str = "content-style",
    n_layers: int = 2,
    means: Range = (-4.0, 4.0),
    scales: Range = (0.01, 1.0),
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
    n_domains, rows, n_content, n_style = 9, 880, 2, 2
    n_latents = n_content + n_style
    labels = np.repeat(np.arange(n_domains), rows)
    z = _standardised(rng.standard_normal((len(labels), n_latents)))
    scale, mean = rng.uniform(*scales, (n_domains, n_style)), rng.uniform(*means, (n_domains, n_style))
    z[:, n_content:] = z[:, n_content:] * scale[labels] + mean[labels]
    mixing = _orthogonal_flow(rng, n_latents, n_layers - 1, 0.2, linear_first)
    changing = _all_but_first(n_domains, n_latents) & (np.arange(n_latents) >= n_content)
    notes = "Kong et al. 2022, iMSDA. Content (the first latents) is N(0, I) everywhere: found up to a rotation only."
    return Problem(mixing(z), labels, z, name, notes, changing, mixing)


def weight_variant(seed: int = 0) -> Problem:
    """A linear causal graph whose weights, means and scales are others in every segment.

    Liu, Zhang, Gong, Gong, Huang, van den Hengel, Zhang, Shi: Identifying weight-variant latent causal models, JMLR
    2026. Repository yuhangliu01/SuaVE: ``gen_TCL_data_ortho`` of ``lib/data.py`` with the settings in the name of the
    default file of ``main.py``: 40 segments (200 rows, there 1,000), 5 latents, 5 features, 3 layers, Gaussian noise,
    random graph of mean degree 2. Noise: N(0, 1) standardised over all rows, times a standard deviation uniform in
    0.1 … 2, plus a mean uniform in −2 … 2. Every edge has a weight of its own in each segment, of size uniform in
    0.2 … 1 and random sign. Mixing: twice leaky ReLU of slope 0.2 and a random orthogonal matrix.
    """
    rng = np.random.default_rng(seed)
    n_domains, rows, n_latents = 40, 200, 5
    labels = np.repeat(np.arange(n_domains), rows)
    noise = _standardised(rng.standard_normal((len(labels), n_latents)))
    noise = noise * rng.uniform(0.1, 2.0, (n_domains, n_latents))[labels]
    noise += rng.uniform(-2.0, 2.0, (n_domains, n_latents))[labels]
    graph = _draw_graph(rng, n_latents, 2.0 / (n_latents - 1))
    z = np.empty_like(noise)
    for domain in range(n_domains):
        weights = graph * _signed(rng, (0.2, 1.0), graph.shape)
        z[labels == domain] = noise[labels == domain] @ np.linalg.inv(np.eye(n_latents) - weights)
    mixing = _orthogonal_flow(rng, n_latents, 2, 0.2)
    notes = "Liu et al. 2026 (yuhangliu01/SuaVE). Causal latents; weights, means and scales change in every domain."
    return Problem(mixing(z), labels, z, "weight-variant", notes, _all_but_first(n_domains, n_latents), mixing)


def general_environments(seed: int = 0) -> Problem:
    """z₁ → z₃ ← z₂, every mechanism another one in every domain.

    Ng, Xie, Dong, Spirtes, Zhang: Causal representation learning from general environments under nonparametric mixing,
    AISTATS 2025. Repository ignavierng/crl-general-environments: ``generate_data_fork`` of ``data.py`` with the
    defaults of ``main.py``: 50 domains (160 rows, there 10,000 with the same noise in every domain), 3 latents, 3
    features. z₁ = s₁ ε₁, z₂ = s₂ ε₂, z₃ = (s₃ ε₃ + h(z₁, z₂)) / 4, ε from N(0, 1), s uniform in 0.1 … 5 by domain. h
    has 4 hidden units, leaky ReLU of slope 0.2, weights uniform in −2 … 2 drawn anew in each domain, and is divided
    by √2. Mixing: a random orthogonal matrix, leaky ReLU of slope 0.2, another orthogonal matrix.
    """
    rng = np.random.default_rng(seed)
    n_domains, rows, n_latents = 50, 160, 3
    labels = np.repeat(np.arange(n_domains), rows)
    z = rng.standard_normal((len(labels), n_latents)) * rng.uniform(0.1, 5.0, (n_domains, n_latents))[labels]
    for domain in range(n_domains):
        here = labels == domain
        weights = [rng.uniform(-2.0, 2.0, shape) for shape in ((2, 4), (4, 1))]
        cause = _network(z[here, :2], weights, _leaky_relu(0.2), last=False)[:, 0] / np.sqrt(2.0)
        z[here, 2] = (z[here, 2] + cause) / 4.0
    mixing = _orthogonal_flow(rng, n_latents, 1, 0.2, linear_first=True)
    notes = "Ng et al. 2025 (ignavierng/crl-general-environments). Causal latents; all mechanisms change."
    return Problem(mixing(z), labels, z, "general-environments", notes, _all_but_first(n_domains, n_latents), mixing)


def interventions(
    seed: int = 0,
    *,
    name: str = "interventions",
    n_latents: int = 4,
    rows: int = 1600,
    edge_probability: float = 0.0,
    coefficients: Range = (0.0, 1.0),
    mechanism: Literal["linear", "location-scale"] = "linear",
) -> Problem:
    """One domain without and one with a perfect intervention on each latent, dense invertible mixing.

    Liang, Kekić, von Kügelgen, Buchholz, Besserve, Gresele, Schölkopf: Causal component analysis, NeurIPS 2023, and
    von Kügelgen et al.: Nonparametric identifiability of causal representations from unknown interventions, NeurIPS
    2023. Repository akekic/causal-component-analysis: ``config.py``, ``data_generator``, the commands in the README
    of ``experiments/cauca``, and for the last two the names of the result files. Settings followed:

    - interventions: ``graph-4-8`` (4 independent latents), 3 nonlinearities (``3_nonlin_ica``).
    - interventions-graph: ``graph-4-random-1``, edges with probability 0.5 (at least one), linear Gaussian mechanisms
      with coefficients uniform in −1 … 1 (``3_nonlin_cauca``).
    - interventions-two: ``graph-2-1``, z₁ → z₂ with a coefficient of size 2 … 10 (``3_nonlin_cauca_2vars_10scm_min2``).
    - interventions-scale: ``graph-3-random-1`` with location-scale mechanisms 10 loc(pa) + scale(pa) u, each a
      network of three layers of N(0, 1) weights and leaky tanh (``3var_snr10``).

    Noise is N(0, 1); an intervention cuts the parents and moves the mean of the noise to 2 (the published code draws
    a sign but moves up either way). Mixing: three times x M followed by tanh(x) + 0.1 x, M uniform in 0 … 1, redrawn
    from N(0, 1) until |det M| ≥ 0.1. No noise on x. 1,600 rows a domain (2,500 of two latents, 2,000 of three), there
    200,000.
    """
    rng = np.random.default_rng(seed)
    n_domains = n_latents + 1
    labels = np.repeat(np.arange(n_domains), rows)
    parents = _draw_graph(rng, n_latents, edge_probability)
    while edge_probability > 0 and not parents.any():
        parents = _draw_graph(rng, n_latents, edge_probability)
    mechanisms = [_MECHANISMS[mechanism](rng, np.flatnonzero(parents[:, i]), coefficients) for i in range(n_latents)]
    noise = rng.standard_normal((len(labels), n_latents))
    z = np.empty_like(noise)
    for i, draw in enumerate(mechanisms):
        z[:, i] = np.where(labels == i + 1, noise[:, i] + 2.0, draw(z, noise[:, i]))
    weights = [_invertible(rng, n_latents) for _ in range(3)]
    mixing = partial(_network, weights=weights, activation=_leaky_tanh(0.1), last=True)
    notes = "Liang et al., von Kügelgen et al. 2023 (akekic/causal-component-analysis). Domain i: intervention on z_i."
    return Problem(mixing(z), labels, z, name, notes, _one_each(n_latents), mixing)


def wide_interventions(seed: int = 0) -> Problem:
    """Interventions on ten causal latents seen through a hundred features.

    Buchholz, Rajendran, Rosenfeld, Aragam, Schölkopf, Ravikumar: Learning linear causal representations from
    interventions under general nonlinear mixing, NeurIPS 2023: their ``DataBag`` and its ``settings.yaml``: 10
    latents, 100 features, mean degree 4, weights of size uniform in 0.25 … 1 with random signs, variances of the noise
    uniform in 1 … 2. An intervention cuts the parents, draws another variance uniform in 1 … 2 and a mean of size
    uniform in 1 … 2 with random sign. As many rows without intervention as with one: 3,500 and 10 times 350, there
    100,000 and 10 times 10,000. Mixing: a network with 512 units in each of four hidden layers, leaky ReLU of slope
    0.2, with PyTorch's initial weights and biases; no noise.
    """
    rng = np.random.default_rng(seed)
    n_latents, n_features, rows = 10, 100, 350
    labels = np.repeat(np.arange(n_latents + 1), [n_latents * rows] + [rows] * n_latents)
    weights = _draw_graph(rng, n_latents, 4.0 / (n_latents - 1)) * _signed(rng, (0.25, 1.0), (n_latents, n_latents))
    order = rng.permutation(n_latents)
    weights = weights[order][:, order]
    variances, changed = rng.uniform(1.0, 2.0, (2, n_latents))
    means = _signed(rng, (1.0, 2.0), n_latents)
    noise = rng.standard_normal((len(labels), n_latents)) * np.sqrt(variances)
    z = noise @ np.linalg.inv(np.eye(n_latents) - weights)
    for i in range(n_latents):
        here, cut = labels == i + 1, weights.copy()
        noise[here, i] = means[i] + noise[here, i] * np.sqrt(changed[i] / variances[i])
        cut[:, i] = 0.0
        z[here] = noise[here] @ np.linalg.inv(np.eye(n_latents) - cut)
    mixing = _torch_network(rng, [n_latents, 512, 512, 512, 512, n_features], _leaky_relu(0.2))
    notes = "Buchholz et al. 2023. Causal Gaussian latents; domain i: intervention on z_i."
    return Problem(mixing(z), labels, z, "interventions-wide", notes, _one_each(n_latents), mixing)


def paired_interventions(seed: int = 0) -> Problem:
    """Two perfect interventions on the scale of each latent of a nonlinear causal graph, tanh network.

    Varıcı, Acartürk, Shanmugam, Kumar, Tajer: Score-based causal representation learning: linear and general
    transformations, JMLR 2025. Repository acarturk-e/score-based-crl: ``GSCALE-I-MLP/generate_data.py``: 5 latents, 10
    features, every edge with probability 0.5, 11 domains (700 rows, there 10,000): none, then each latent with its
    variance times 0.25, then times 4, its parents cut. Noise has variances uniform in 0.5 … 1.5. Mechanisms have 32
    hidden ReLU units with PyTorch's initial weights. Mixing (``utils.InvertibleMlp``): three times a matrix (5 → 5 → 5
    → 10) and tanh; a matrix has entries uniform in −0.5 … 0.5 and a condition number of at most 10, and is followed by
    random orthonormal directions in as many dimensions as it has outputs.
    """
    rng = np.random.default_rng(seed)
    n_latents, n_features, rows = 5, 10, 700
    labels = np.repeat(np.arange(2 * n_latents + 1), rows)
    graph = _draw_graph(rng, n_latents, 0.5)
    noise = rng.standard_normal((len(labels), n_latents)) * np.sqrt(rng.uniform(0.5, 1.5, n_latents))
    z = np.empty_like(noise)
    for i in range(n_latents):
        parents = np.flatnonzero(graph[:, i])
        effect = np.zeros(len(labels))
        if len(parents):
            effect = _torch_network(rng, [len(parents), 32, 1], _leaky_relu(0.0))(z[:, parents])[:, 0]
        less, more = labels == i + 1, labels == n_latents + i + 1
        z[:, i] = noise[:, i] * np.where(less, 0.5, np.where(more, 2.0, 1.0)) + np.where(less | more, 0.0, effect)
    sizes = [n_latents, n_latents, n_latents, n_features]
    weights = [_decoder(rng, n_in, n_out) for n_in, n_out in pairwise(sizes)]
    mixing = partial(_network, weights=weights, activation=np.tanh, last=True)
    changing = np.vstack([_one_each(n_latents), np.eye(n_latents, dtype=bool)])
    notes = "Varıcı et al. 2025 (acarturk-e/score-based-crl). Causal latents; two interventions on the scale of each."
    return Problem(mixing(z), labels, z, "interventions-paired", notes, changing, mixing)


def soft_interventions(seed: int = 0) -> Problem:
    """One soft intervention on each latent of a causal graph with quadratic mechanisms, linear mixing.

    Varıcı et al., as in ``paired_interventions``: ``LSCALE-I/l_scale_i_test.py`` with ``hard_intervention = False``: 5
    latents, 100 features, every edge with probability 0.5, 6 domains (1,300 rows, there 50,000). A mechanism is
    √(pᵀ Q p) of the parents p plus noise of variance uniform in 0.5 … 1.5, Q = LᵀL with entries of L uniform in
    −1 … 1 and singular values of at least 0.1. An intervention halves the effect of the parents and multiplies the
    variance by 5. Mixing: a matrix as in ``paired_interventions``, no noise: the features are collinear. Graphs with
    weak edges are drawn anew there, not here.
    """
    rng = np.random.default_rng(seed)
    n_latents, n_features, rows = 5, 100, 1300
    labels = np.repeat(np.arange(n_latents + 1), rows)
    graph = _draw_graph(rng, n_latents, 0.5)
    noise = rng.standard_normal((len(labels), n_latents)) * np.sqrt(rng.uniform(0.5, 1.5, n_latents))
    z = np.empty_like(noise)
    for i in range(n_latents):
        parents, here = np.flatnonzero(graph[:, i]), labels == i + 1
        root = rng.uniform(-1.0, 1.0, (len(parents), len(parents)))
        while len(parents) and np.linalg.svd(root, compute_uv=False)[-1] < 0.1:
            root = rng.uniform(-1.0, 1.0, root.shape)
        effect = np.linalg.norm(z[:, parents] @ root.T, axis=1)
        z[:, i] = noise[:, i] * np.where(here, np.sqrt(5.0), 1.0) + effect * np.where(here, 0.5, 1.0)
    mixing = _matrix(_decoder(rng, n_latents, n_features))
    notes = "Varıcı et al. 2025 (acarturk-e/score-based-crl). Causal latents; domain i: soft intervention on z_i."
    return Problem(mixing(z), labels, z, "interventions-soft", notes, _one_each(n_latents), mixing)


def linear_interventions(seed: int = 0) -> Problem:
    """A linear Gaussian causal graph with one perfect intervention on each latent, linear mixing.

    Squires, Seigal, Bhate, Uhler: Linear causal disentanglement via interventions, ICML 2023. Repository
    csquires/linear-causal-disentanglement-via-interventions: ``src/rand.py`` with the command of the README
    (``--nnodes 5 --nnodes_obs 10``, density 0.75): B z = ε with ε from N(0, I), B = D (I − A), D uniform in 2 … 4,
    weights A above the diagonal of size uniform in 0.25 … 1 with random signs. An intervention on z_i replaces row i
    of B by one entry, uniform in 6 … 8, on the diagonal: no parents, little variance. z = H x with H uniform in
    −2 … 2, each row divided by its entry of largest size; so x = H⁺ z, without noise. 1,300 rows a domain (there
    covariances of 2,500 to 100,000).
    """
    rng = np.random.default_rng(seed)
    n_latents, n_features, rows = 5, 10, 1300
    labels = np.repeat(np.arange(n_latents + 1), rows)
    weights = _draw_graph(rng, n_latents, 0.75) * _signed(rng, (0.25, 1.0), (n_latents, n_latents))
    observed = np.diag(rng.uniform(2.0, 4.0, n_latents)) @ (np.eye(n_latents) - weights)
    noise = rng.standard_normal((len(labels), n_latents))
    z = noise @ np.linalg.inv(observed).T
    for i in range(n_latents):
        changed = observed.copy()
        changed[i] = rng.uniform(6.0, 8.0) * (np.arange(n_latents) == i)
        z[labels == i + 1] = noise[labels == i + 1] @ np.linalg.inv(changed).T
    inverse = rng.uniform(-2.0, 2.0, (n_latents, n_features))
    largest = np.abs(inverse).argmax(axis=1)
    inverse /= inverse[np.arange(n_latents), largest][:, None]
    mixing = _matrix(np.linalg.pinv(inverse).T)
    notes = (
        "Squires et al. 2023. Causal Gaussian latents; domain i: intervention on z_i, which leaves it little variance."
    )
    return Problem(mixing(z), labels, z, "interventions-linear", notes, _one_each(n_latents), mixing)


def invariant(seed: int = 0, *, name: str = "invariant-linear", polynomial: bool = False) -> Problem:
    """Uniform latents: half with one range in all domains, half with a range of its own in each.

    Ahuja, Mansouri, Wang: Multi-domain causal representation learning via weak distributional invariances, AISTATS
    2024. Repository facebookresearch/MD-CRL: ``datamodule/mixing_dataset.py`` with
    ``configs/datamodule/dataset/synthetic_mixing.yaml``: 4 domains (2,000 rows), 4 latents, 8 features. The first two
    latents are uniform in 0 … 1; the others uniform between two ends, which are drawn uniformly in −5 … 5 for each
    domain. Mixing, without noise: a matrix with entries uniform in 0 … 1, or a polynomial of degree 2 in all products
    of latents with N(0, 1) coefficients, whose quadratic part is scaled so that its largest value is twice that of the
    linear part.
    """
    rng = np.random.default_rng(seed)
    n_domains, rows, n_latents, n_features = 4, 2000, 4, 8
    labels = np.repeat(np.arange(n_domains), rows)
    z = rng.uniform(0.0, 1.0, (len(labels), n_latents))
    low, high = np.sort(rng.uniform(-5.0, 5.0, (2, n_domains, 2)), axis=0)
    z[:, 2:] = low[labels] + (high - low)[labels] * z[:, 2:]
    if polynomial:
        straight = rng.standard_normal((1 + n_latents, n_features))
        bent = rng.standard_normal((n_latents**2, n_features))
        largest = [np.abs(part).max() for part in (straight[0] + z @ straight[1:], _products(z) @ bent)]
        bent *= 2.0 * largest[0] / largest[1]
        mixing: Function = lambda latents: straight[0] + latents @ straight[1:] + _products(latents) @ bent  # noqa: E731
    else:
        mixing = _matrix(rng.uniform(0.0, 1.0, (n_latents, n_features)))
    changing = _all_but_first(n_domains, n_latents) & (np.arange(n_latents) >= 2)
    notes = "Ahuja et al. 2024 (facebookresearch/MD-CRL). The first two latents never change."
    return Problem(mixing(z), labels, z, name, notes, changing, mixing)


def clusters(seed: int = 0) -> Problem:
    """Two latents in five clusters, hidden in ten features by a random flow: the artificial data of GIN.

    Sorrenson, Rother, Köthe: Disentanglement by nonlinear ICA with general incompressible-flow networks, ICLR 2020.
    Their repository GIN: ``generate_artificial_data_10d``: 5 clusters, means uniform in −5 … 5, standard deviations
    uniform in 0.5 … 3; eight further latents from N(0, 0.01²), which are noise. 8,000 rows, there 10,000. Mixing: eight
    GLOW coupling blocks (clamp 2, 0.636 atan), each with two networks of 10-10 hidden ReLU units with PyTorch's
    initial weights, and a random permutation after each block. ``mixing`` has the noise at 0.
    """
    rng = np.random.default_rng(seed)
    n_domains, n_latents, n_features = 5, 2, 10
    labels = np.sort(rng.integers(n_domains, size=8000))
    means, scales = rng.uniform(-5.0, 5.0, (n_domains, n_latents)), rng.uniform(0.5, 3.0, (n_domains, n_latents))
    z = means[labels] + rng.standard_normal((len(labels), n_latents)) * scales[labels]
    half = n_features // 2
    blocks = [[_torch_network(rng, [half, 10, 10, 2 * half], _leaky_relu(0.0)) for _ in range(2)] for _ in range(8)]
    orders = [rng.permutation(n_features) for _ in blocks]

    def couple(changed: Floats, given: Floats, network: Function) -> Floats:
        scale, shift = np.split(network(given), 2, axis=1)
        coupled: Floats = np.exp(2.0 * 0.636 * np.arctan(scale)) * changed + shift
        return coupled

    def flow(values: Floats) -> Floats:
        for (second, first), order in zip(blocks, orders, strict=True):
            left, right = values[:, :half], values[:, half:]
            left = couple(left, right, first)
            right = couple(right, left, second)
            values = np.hstack([left, right])[:, order]
        return values

    def mixing(latents: Floats) -> Floats:
        return flow(np.hstack([latents, np.zeros((len(latents), n_features - n_latents))]))

    x = flow(np.hstack([z, 0.01 * rng.standard_normal((len(labels), n_features - n_latents))]))
    notes = "Sorrenson et al. 2020, GIN. All latents change in mean and scale; clusters are of random size."
    return Problem(x, labels, z, "clusters", notes, _all_but_first(n_domains, n_latents), mixing, noiseless=False)


def sparse_decoding(
    seed: int = 0, *, name: str = "sparse-vae", correlations: tuple[float, ...] = (0.0,), rows: int = 4000
) -> Problem:
    """Seven features of two latents, each of one latent but for a product; one is a sine.

    Moran, Sridhar, Wang, Blei: Identifiable deep generative models via sparse decoding, TMLR 2022. Repository
    gemoran/sparse-vae-code: ``load_simulated_data`` of ``data/process_data.py``: z from N(0, [[1, ρ], [ρ, 1]]),
    x = (z₁, 2 z₁, 3 z₁², 4 z₂, 5 z₂, 6 sin z₂, 7 z₁ z₂) plus noise of standard deviation 0.5; 4,000 rows, there 1,000.
    No domains: all rows have one label, and ρ = 0. Problem sparse-vae-correlated has a domain of 1,600 rows for each
    ρ of the paper, 0, 0.2, 0.4, 0.6 and 0.8: the domains are this module's, the latents are dependent, and the
    distribution of each alone never changes.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(correlations)), rows)
    rho = np.asarray(correlations)[labels]
    z = rng.standard_normal((len(labels), 2))
    z[:, 1] = rho * z[:, 0] + np.sqrt(1.0 - rho**2) * z[:, 1]

    def mixing(latents: Floats) -> Floats:
        a, b = latents.T
        return np.column_stack([a, 2 * a, 3 * a**2, 4 * b, 5 * b, 6 * np.sin(b), 7 * a * b])

    x = mixing(z) + 0.5 * rng.standard_normal((len(labels), 7))
    notes = "Moran et al. 2022 (gemoran/sparse-vae-code). No latent changes by itself: sparsity alone identifies."
    return Problem(x, labels, z, name, notes, np.zeros((len(correlations), 2), bool), mixing, noiseless=False)


def sparse_gaussian(seed: int = 0) -> Problem:
    """Three Gaussian sources with a sparse linear mixing, no domains: structural sparsity alone identifies.

    Ng, Zheng, Dong, Zhang: On the identifiability of sparse ICA without assuming non-Gaussianity, NeurIPS 2023, the
    linear case of the structural sparsity of Zheng, Ng, Zhang: On the identifiability of nonlinear ICA: sparsity and
    beyond, NeurIPS 2022, whose own data are not public. Repository ignavierng/sparse-ica: ``main.py`` and
    ``simulate_data``: sources N(0, 1) standardised, x = A z, A with the support 011, 010, 110 and entries of size
    uniform in 0.2 … 0.8 with random signs; no noise. 8,000 rows, there 100,000. All rows have one label.
    """
    rng = np.random.default_rng(seed)
    z = _standardised(rng.standard_normal((8000, 3)))
    weights = _signed(rng, (0.2, 0.8), (3, 3)) * np.array([[0, 1, 1], [0, 1, 0], [1, 1, 0]])
    mixing = _matrix(weights.T)
    notes = "Ng et al. 2023 (ignavierng/sparse-ica). Gaussian and without domains: sparsity alone identifies."
    return Problem(mixing(z), np.zeros(len(z), np.int64), z, "sparse-gaussian", notes, np.zeros((1, 3), bool), mixing)


PROBLEMS: Mapping[str, Callable[[int], Problem]] = {
    "tcl-lrelu": segments,
    "tcl-xtanh": partial(segments, name="tcl-xtanh", activation="xtanh"),
    "tcl-orthogonal": orthogonal_segments,
    "tcl-orthogonal-shallow": partial(orthogonal_segments, name="tcl-orthogonal-shallow", n_layers=2),
    "imca": partial(orthogonal_segments, name="imca", dependent=True),
    "heavy-tails": heavy_tails,
    "heavy-tails-mild": partial(heavy_tails, name="heavy-tails-mild", activation="lrelu"),
    "content-style": content_and_style,
    "content-style-deep": partial(
        content_and_style,
        name="content-style-deep",
        n_layers=3,
        means=(0.0, 3.0),
        scales=(0.01, 3.0),
        linear_first=False,
    ),
    "invariant-linear": invariant,
    "invariant-polynomial": partial(invariant, name="invariant-polynomial", polynomial=True),
    "clusters": clusters,
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
    "interventions-wide": wide_interventions,
    "interventions-paired": paired_interventions,
    "interventions-soft": soft_interventions,
    "interventions-linear": linear_interventions,
    "weight-variant": weight_variant,
    "general-environments": general_environments,
    "sparse-vae": sparse_decoding,
    "sparse-vae-correlated": partial(
        sparse_decoding, name="sparse-vae-correlated", correlations=(0.0, 0.2, 0.4, 0.6, 0.8), rows=1600
    ),
    "sparse-gaussian": sparse_gaussian,
}


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
    "t": lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3.0),
}


def _matrix(weights: Any) -> Function:
    return lambda z: z @ weights


def _network(x: Floats, weights: list[Floats], activation: Function, last: bool) -> Floats:
    """Layers x W without bias, each followed by the activation, the last one only if ``last``."""
    for layer, weight in enumerate(weights):
        x = x @ weight
        if last or layer < len(weights) - 1:
            x = activation(x)
    return x


def _orthogonal_flow(
    rng: np.random.Generator, size: int, n_nonlinear: int, slope: float, linear_first: bool = False
) -> Function:
    """``n_nonlinear`` times leaky ReLU and a random orthogonal matrix, after one such matrix if ``linear_first``."""
    turns: list[Floats] = [stats.ortho_group.rvs(size, random_state=rng) for _ in range(n_nonlinear + linear_first)]
    start = turns.pop(0) if linear_first else np.eye(size)
    return partial(_network, weights=[start, *turns], activation=_leaky_relu(slope), last=False)


def _torch_network(rng: np.random.Generator, sizes: list[int], activation: Function) -> Function:
    """A network with biases, linear at its end, with the initial weights of ``torch.nn.Linear``."""
    layers = []
    for n_in, n_out in pairwise(sizes):
        bound = 1.0 / np.sqrt(n_in)
        layers.append((rng.uniform(-bound, bound, (n_in, n_out)), rng.uniform(-bound, bound, n_out)))

    def network(x: Floats) -> Floats:
        for layer, (weight, bias) in enumerate(layers):
            x = (activation(x) if layer else x) @ weight + bias
        return x

    return network


def _standardised(z: Floats) -> Floats:
    scaled: Floats = (z - z.mean(axis=0)) / z.std(axis=0)
    return scaled


def _signed(rng: np.random.Generator, sizes: Range, shape: Any) -> Floats:
    """Of size uniform between ``sizes``, with random signs."""
    return rng.uniform(*sizes, shape) * rng.choice([-1.0, 1.0], shape)


def _products(z: Floats) -> Floats:
    """All products of two columns."""
    return np.einsum("ni,nj->nij", z, z).reshape(len(z), -1)


def _well_conditioned(rng: np.random.Generator, size: int) -> Floats:
    """Entries uniform in −1 … 1, columns of length 1, condition number below the lower quartile of 10,000 draws."""
    drawn = rng.uniform(-1.0, 1.0, (10_000, size, size))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    conditions = np.linalg.cond(drawn)
    good = drawn[conditions <= np.percentile(conditions, 25)]
    matrix: Floats = good[rng.integers(len(good))]
    return matrix


def _invertible(rng: np.random.Generator, size: int) -> Floats:
    matrix = rng.uniform(0.0, 1.0, (size, size))
    while abs(np.linalg.det(matrix)) < 0.1:
        matrix = rng.standard_normal((size, size))
    return matrix


def _decoder(rng: np.random.Generator, n_in: int, n_out: int) -> Floats:
    """n_in orthogonal directions in n_out dimensions, mixed by a matrix whose condition number is at most 10."""
    directions: Floats = stats.ortho_group.rvs(n_out, random_state=rng)[:n_in]
    inner = rng.uniform(-0.5, 0.5, (n_in, n_in))
    while np.linalg.cond(inner) > 10.0:
        inner = rng.uniform(-0.5, 0.5, (n_in, n_in))
    return inner @ directions


def _draw_graph(rng: np.random.Generator, size: int, probability: float) -> Bools:
    """Parents (row) of children (column), above the diagonal."""
    return np.triu(rng.random((size, size)) < probability, k=1)


def _linear(rng: np.random.Generator, parents: Ints, sizes: Range) -> Mechanism:
    """Σ a z_parent + noise, a of size uniform between ``sizes``, with random signs."""
    weights = _signed(rng, sizes, len(parents))
    return lambda z, noise: z[:, parents] @ weights + noise


def _location_scale(rng: np.random.Generator, parents: Ints, _: Range) -> Mechanism:
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


def _all_but_first(n_domains: int, n_latents: int) -> Bools:
    """Every latent changes in every domain but the first, with which the others are compared."""
    return np.repeat(np.arange(n_domains) > 0, n_latents).reshape(n_domains, n_latents)


def _one_each(n_latents: int) -> Bools:
    """A first domain without intervention, then one domain for each latent."""
    return np.eye(n_latents + 1, n_latents, k=-1, dtype=bool)
