"""Data of other groups' published generators whose latents depend on each other: causal graphs and interventions.

Each function restates one generator, as in ``generators.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np
from generator_parts import (
    Bools,
    Floats,
    Ints,
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

Mechanism = Callable[[Floats, Floats], Floats]


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
    noise = standardised(rng.standard_normal((len(labels), n_latents)))
    noise = noise * rng.uniform(0.1, 2.0, (n_domains, n_latents))[labels]
    noise += rng.uniform(-2.0, 2.0, (n_domains, n_latents))[labels]
    graph = _draw_graph(rng, n_latents, 2.0 / (n_latents - 1))
    z = np.empty_like(noise)
    for domain in range(n_domains):
        weights = graph * signed(rng, (0.2, 1.0), graph.shape)
        z[labels == domain] = noise[labels == domain] @ np.linalg.inv(np.eye(n_latents) - weights)
    mixing = orthogonal_flow(rng, n_latents, 2, 0.2)
    notes = "Liu et al. 2026 (yuhangliu01/SuaVE). Causal latents; weights, means and scales change in every domain."
    return Problem(mixing(z), labels, z, "weight-variant", notes, all_but_first(n_domains, n_latents), mixing)


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
        cause = dense_network(z[here, :2], weights, leaky_relu(0.2), last=False)[:, 0] / np.sqrt(2.0)
        z[here, 2] = (z[here, 2] + cause) / 4.0
    mixing = orthogonal_flow(rng, n_latents, 1, 0.2, linear_first=True)
    notes = "Ng et al. 2025 (ignavierng/crl-general-environments). Causal latents; all mechanisms change."
    return Problem(mixing(z), labels, z, "general-environments", notes, all_but_first(n_domains, n_latents), mixing)


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
    mixing = partial(dense_network, weights=weights, activation=leaky_tanh(0.1), last=True)
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
    weights = _draw_graph(rng, n_latents, 4.0 / (n_latents - 1)) * signed(rng, (0.25, 1.0), (n_latents, n_latents))
    order = rng.permutation(n_latents)
    weights = weights[order][:, order]
    variances, changed = rng.uniform(1.0, 2.0, (2, n_latents))
    means = signed(rng, (1.0, 2.0), n_latents)
    noise = rng.standard_normal((len(labels), n_latents)) * np.sqrt(variances)
    z = noise @ np.linalg.inv(np.eye(n_latents) - weights)
    for i in range(n_latents):
        here, cut = labels == i + 1, weights.copy()
        noise[here, i] = means[i] + noise[here, i] * np.sqrt(changed[i] / variances[i])
        cut[:, i] = 0.0
        z[here] = noise[here] @ np.linalg.inv(np.eye(n_latents) - cut)
    mixing = torch_network(rng, [n_latents, 512, 512, 512, 512, n_features], leaky_relu(0.2))
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
            effect = torch_network(rng, [len(parents), 32, 1], leaky_relu(0.0))(z[:, parents])[:, 0]
        less, more = labels == i + 1, labels == n_latents + i + 1
        z[:, i] = noise[:, i] * np.where(less, 0.5, np.where(more, 2.0, 1.0)) + np.where(less | more, 0.0, effect)
    sizes = [n_latents, n_latents, n_latents, n_features]
    weights = [_decoder(rng, n_in, n_out) for n_in, n_out in pairwise(sizes)]
    mixing = partial(dense_network, weights=weights, activation=np.tanh, last=True)
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
    mixing = linear_map(_decoder(rng, n_latents, n_features))
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
    weights = _draw_graph(rng, n_latents, 0.75) * signed(rng, (0.25, 1.0), (n_latents, n_latents))
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
    mixing = linear_map(np.linalg.pinv(inverse).T)
    notes = (
        "Squires et al. 2023. Causal Gaussian latents; domain i: intervention on z_i, which leaves it little variance."
    )
    return Problem(mixing(z), labels, z, "interventions-linear", notes, _one_each(n_latents), mixing)


def _draw_graph(rng: np.random.Generator, size: int, probability: float) -> Bools:
    """Parents (row) of children (column), above the diagonal."""
    return np.triu(rng.random((size, size)) < probability, k=1)


def _linear(rng: np.random.Generator, parents: Ints, sizes: Range) -> Mechanism:
    """Σ a z_parent + noise, a of size uniform between ``sizes``, with random signs."""
    weights = signed(rng, sizes, len(parents))
    return lambda z, noise: z[:, parents] @ weights + noise


def _location_scale(rng: np.random.Generator, parents: Ints, _: Range) -> Mechanism:
    """10 loc(z_parents) + scale(z_parents) noise; the noise itself without parents."""
    if not len(parents):
        return lambda z, noise: noise
    n_parents, activate = len(parents), leaky_tanh(0.1)
    shapes = [(n_parents, n_parents), (n_parents, n_parents), (n_parents, 1)]
    location, scale = ([rng.standard_normal(shape) for shape in shapes] for _ in range(2))

    def draw(z: Floats, noise: Floats) -> Floats:
        centre, spread = (dense_network(z[:, parents], weights, activate, True)[:, 0] for weights in (location, scale))
        return 10.0 * centre + spread * noise

    return draw


_MECHANISMS = {"linear": _linear, "location-scale": _location_scale}


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


def _one_each(n_latents: int) -> Bools:
    """A first domain without intervention, then one domain for each latent."""
    return np.eye(n_latents + 1, n_latents, k=-1, dtype=bool)
