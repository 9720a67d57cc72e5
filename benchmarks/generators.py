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
from functools import partial
from typing import Literal

import numpy as np
from causal_generators import (
    general_environments,
    interventions,
    linear_interventions,
    paired_interventions,
    soft_interventions,
    weight_variant,
    wide_interventions,
)
from generator_parts import (
    Floats,
    Function,
    Problem,
    Range,
    all_but_first,
    dense_network,
    leaky_relu,
    leaky_tanh,
    linear_map,
    orthogonal_flow,
    signed,
    standardised,
    torch_network,
)
from scipy import stats


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
    mixing = partial(dense_network, weights=weights, activation=_ACTIVATIONS[activation](slope), last=False)
    notes = f"Khemakhem et al. 2020 (ilkhem/iVAE). {remark or 'All latents change, in scale only.'}"
    return Problem(mixing(z), labels, z, name, notes, all_but_first(n_domains, n_latents), mixing)


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
        z = standardised(z) * scales[labels]
    mixing = orthogonal_flow(rng, n_latents, n_layers - 1, 0.2)
    within = "dependent within a domain" if dependent else "independent within a domain"
    notes = f"Khemakhem et al. 2020 (ilkhem/icebeem). All latents change, in scale only; {within}."
    return Problem(mixing(z), labels, z, name, notes, all_but_first(n_domains, n_latents), mixing)


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
    z = standardised(rng.standard_normal((len(labels), n_latents)))
    scale, mean = rng.uniform(*scales, (n_domains, n_style)), rng.uniform(*means, (n_domains, n_style))
    z[:, n_content:] = z[:, n_content:] * scale[labels] + mean[labels]
    mixing = orthogonal_flow(rng, n_latents, n_layers - 1, 0.2, linear_first)
    changing = all_but_first(n_domains, n_latents) & (np.arange(n_latents) >= n_content)
    notes = "Kong et al. 2022, iMSDA. Content (the first latents) is N(0, I) everywhere: found up to a rotation only."
    return Problem(mixing(z), labels, z, name, notes, changing, mixing)


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
        mixing = linear_map(rng.uniform(0.0, 1.0, (n_latents, n_features)))
    changing = all_but_first(n_domains, n_latents) & (np.arange(n_latents) >= 2)
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
    blocks = [[torch_network(rng, [half, 10, 10, 2 * half], leaky_relu(0.0)) for _ in range(2)] for _ in range(8)]
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
    return Problem(x, labels, z, "clusters", notes, all_but_first(n_domains, n_latents), mixing, noiseless=False)


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
    z = standardised(rng.standard_normal((8000, 3)))
    weights = signed(rng, (0.2, 0.8), (3, 3)) * np.array([[0, 1, 1], [0, 1, 0], [1, 1, 0]])
    mixing = linear_map(weights.T)
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


_ACTIVATIONS: dict[str, Callable[[float], Function]] = {
    "lrelu": leaky_relu,
    "xtanh": leaky_tanh,
    "none": lambda slope: lambda x: x,
}


# Each with mean 0 and variance 1.
_SOURCES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "gaussian": lambda rng, shape: rng.standard_normal(shape),
    "t": lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3.0),
}


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
