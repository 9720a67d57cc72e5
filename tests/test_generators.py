"""Generated data against their own truth: each option is measured, and the defaults never move."""

import hashlib

import numpy as np
import pytest
from scipy import stats

from unmix import CGVAE
from unmix.datasets import injectivity, make_sparse_mixing
from unmix.errors import SettingError
from unmix.theory import domains_needed, needs_at_most

# Published tables rest on these draws: `digest` of what version 0.1 gave for the settings.
GOLDEN = [
    ({"random_state": 0}, "30c55ae39a5e0b20"),
    ({"change": "mean", "random_state": 1, "n_latents": 3, "n_features": 5, "n_domains": 2}, "d5ce733aa9c755bb"),
    ({"change": "scale", "random_state": 2, "noise": 0.3, "density": 0.3, "n_features": 12}, "d2751e77b39c8d87"),
    ({"change": "shape", "random_state": 3, "nonlinearity": 1.7, "n_samples": 1001}, "d7b910e852846125"),
    ({"random_state": 4, "guaranteed": True, "n_domains": 3}, "ab6041d0e53831bc"),
    (
        {"random_state": 5, "n_latents": 10, "n_features": 30, "n_domains": 5, "density": 0.3, "guaranteed": True},
        "8bd0e5c5b7aee6d8",
    ),
]


def digest(data):
    """Hash of everything drawn, to eight digits: other processors may round the last bits differently."""
    parts = [data.support, data.domains, *(np.round(values, 8) + 0.0 for values in (data.z, data.x))]
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()[:16]


@pytest.mark.parametrize(("settings", "expected"), GOLDEN, ids=range(len(GOLDEN)))
def test_the_defaults_draw_what_they_always_drew(settings, expected):
    assert digest(make_sparse_mixing(**{"n_samples": 1000, **settings})) == expected


MIXINGS = [
    {"mixing": "features"},
    {"mixing": "flow"},
    {"mixing": "flow", "structure": "columns", "violation": 0.2, "n_redundant": 3},
    {"mixing": "features", "structure": "overlapping", "violation": 0.3, "n_redundant": 2},
    {"mixing": "dense", "n_redundant": 2},
    {"mixing": "dense", "nonlinearity": 2.0, "n_features": 4},
]


@pytest.mark.parametrize("settings", MIXINGS, ids=range(len(MIXINGS)))
def test_jacobian_is_exact_and_has_the_full_support(settings):
    data = make_sparse_mixing(n_samples=600, random_state=3, noise=0.0, **settings)
    np.testing.assert_allclose(data.mixing(data.z), data.x, atol=1e-12)
    np.testing.assert_allclose(data.x.std(axis=0), 1.0)
    step = 1e-6
    numeric = np.stack(
        [(data.mixing(data.z[:5] + e) - data.mixing(data.z[:5] - e)) / (2 * step) for e in step * np.eye(4)], axis=2
    )
    np.testing.assert_allclose(data.jacobian[:5], numeric, atol=1e-7)
    assert ((np.abs(data.jacobian).max(axis=0) > 0) == data.full_support).all()
    assert not (data.support & ~data.full_support).any()
    assert data.domains_needed == domains_needed(data.full_support[~data.redundant]).needed
    assert len(data.feature_names) == data.x.shape[1] == len(data.redundant)


def test_rows_in_parts_change_nothing(monkeypatch):
    data = make_sparse_mixing(n_samples=600)
    whole = data.mixing(data.z), data.mixing.jacobian(data.z)
    monkeypatch.setattr("unmix.datasets.mixings.UNITS_AT_ONCE", 7 * 48)
    np.testing.assert_allclose(data.mixing(data.z), whole[0], rtol=1e-12)
    np.testing.assert_allclose(data.mixing.jacobian(data.z), whole[1], rtol=1e-12)


# Skewness and excess kurtosis in closed form.
SOURCES = {
    "gaussian": (0.0, 0.0, stats.norm()),
    "laplace": (0.0, 3.0, stats.laplace(scale=np.sqrt(0.5))),
    "skewed": (1.1395, 2.4, stats.gumbel_r(-np.euler_gamma * np.sqrt(6) / np.pi, np.sqrt(6) / np.pi)),
    "bimodal": (0.0, -2 * 0.9**4, None),
}


@pytest.mark.parametrize("source", SOURCES)
def test_sources_have_their_distribution(source):
    data = make_sparse_mixing(n_latents=2, n_unchanging=2, n_samples=40_000, source=source, random_state=1)
    z = data.z[:, 0]
    skewness, kurtosis, distribution = SOURCES[source]
    assert z.mean() == pytest.approx(0.0, abs=0.02)
    assert z.var() == pytest.approx(1.0, abs=0.04)
    assert stats.skew(z) == pytest.approx(skewness, abs=0.15)
    assert stats.kurtosis(z) == pytest.approx(kurtosis, abs=0.5 if source != "bimodal" else 0.05)
    if distribution is not None:
        assert stats.kstest(z, distribution.cdf).pvalue > 1e-3
    else:
        width = np.sqrt(1 - 0.81)

        def cdf(value):
            return (stats.norm.cdf(value, 0.9, width) + stats.norm.cdf(value, -0.9, width)) / 2

        assert stats.kstest(z, cdf).pvalue > 1e-3


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("change", ["mean", "scale", "shape", "all"])
def test_changes_move_the_moments_they_name(source, change):
    data = make_sparse_mixing(n_latents=3, n_samples=40_000, source=source, change=change, random_state=2)
    groups = [data.z[data.domains == u] for u in range(4)]
    means, stds = np.stack([g.mean(axis=0) for g in groups]), np.stack([g.std(axis=0) for g in groups])
    skewness = np.stack([stats.skew(g) for g in groups])
    if change in ("mean", "all"):
        assert np.ptp(means, axis=0).min() > 0.3
        assert np.abs(means).max() < 1.6
    else:
        np.testing.assert_allclose(means, 0.0, atol=0.08)
    if change in ("scale", "all"):
        assert np.ptp(stds, axis=0).min() > 0.2
        assert stds.min() > 0.25
        assert stds.max() < 2.2
    else:
        np.testing.assert_allclose(stds, 1.0, atol=0.12)
    assert (np.ptp(skewness, axis=0).max() > 0.5) == (change in ("shape", "all"))


def test_unchanging_latents_have_one_distribution():
    data = make_sparse_mixing(n_latents=5, n_unchanging=2, n_samples=12_000, change="all", random_state=6)
    assert data.unchanging.sum() == 2
    for latent in range(5):
        first, *others = [data.z[data.domains == u, latent] for u in range(4)]
        smallest = min(stats.ks_2samp(first, other).pvalue for other in others)
        assert smallest > 1e-3 if data.unchanging[latent] else smallest < 1e-6
    plain = make_sparse_mixing(n_latents=5, n_samples=12_000, change="all", random_state=6)
    np.testing.assert_array_equal(plain.z[:, ~data.unchanging], data.z[:, ~data.unchanging])


@pytest.mark.parametrize("source", ["gaussian", "laplace"])
def test_dependence_has_its_strength_in_every_domain(source):
    data = make_sparse_mixing(n_samples=20_000, dependence=0.6, source=source, random_state=1)
    for u in range(4):
        # Spearman's rank correlation of a Gaussian copula: 6/π arcsin(ρ/2).
        ranks = stats.spearmanr(data.z[data.domains == u]).statistic
        np.testing.assert_allclose(ranks[np.triu_indices(4, 1)], 6 / np.pi * np.arcsin(0.3), atol=0.035)
    free = make_sparse_mixing(n_samples=20_000, source=source, random_state=1)
    assert np.abs(stats.spearmanr(free.z[free.domains == 0]).statistic[np.triu_indices(4, 1)]).max() < 0.05
    np.testing.assert_array_equal(free.support, data.support)


def test_structures_are_what_they_say():
    columns = make_sparse_mixing(n_latents=6, n_features=20, n_samples=100, structure="columns", density=0.2).support
    assert columns.sum(axis=0).tolist() == [4] * 6
    assert columns.any(axis=1).all()
    flow = make_sparse_mixing(
        n_latents=6, n_features=20, n_samples=100, structure="columns", mixing="flow", density=0.4, random_state=5
    )
    assert flow.support.sum(axis=0).tolist() == [8] * 6
    blocks = make_sparse_mixing(n_latents=5, n_features=9, n_samples=100, structure="blocks")
    together = blocks.support.T.astype(int) @ blocks.support > 0
    assert (together == np.kron(np.eye(3), np.ones((2, 2)))[:5, :5]).all()
    assert blocks.domains_needed == 5
    overlapping = make_sparse_mixing(n_latents=6, n_features=12, n_samples=100, structure="overlapping").support
    assert np.unique(overlapping, axis=0).tolist() == [
        [False, False, False, False, True, True],
        [False, False, True, True, True, False],
        [True, True, True, False, False, False],
    ]
    given = make_sparse_mixing(n_samples=100, support=np.eye(8, 4, dtype=int) + np.eye(8, 4, -4, dtype=int))
    assert given.support.sum() == 8
    assert given.domains_needed == 1


def test_violation_adds_its_share_of_weak_edges():
    plain = make_sparse_mixing(n_latents=5, n_features=40, n_samples=2000, density=0.3, random_state=1)
    data = make_sparse_mixing(
        n_latents=5, n_features=40, n_samples=2000, density=0.3, random_state=1, violation=0.5, weak=0.1
    )
    np.testing.assert_array_equal(plain.support, data.support)
    np.testing.assert_array_equal(plain.z, data.z)
    weak = data.full_support & ~data.support
    assert weak.sum() == round(0.5 * (~data.support).sum())
    np.testing.assert_array_equal(data.mixing.linear[data.support], plain.mixing.linear[data.support])
    strong = np.repeat(data.support[:, None], data.mixing.inner.shape[1], axis=1)
    np.testing.assert_array_equal(data.mixing.inner[strong], plain.mixing.inner[strong])
    # In raw units: each feature is divided by a standard deviation of its own.
    effect = np.abs(data.jacobian).mean(axis=0) * data.mixing.scale[:, None]
    assert effect[weak].mean() / effect[data.support].mean() == pytest.approx(0.1, abs=0.02)
    assert data.domains_needed >= plain.domains_needed
    full = make_sparse_mixing(n_samples=100, violation=1.0)
    assert full.full_support.all()
    assert full.domains_needed == 9


def test_redundant_features_add_no_direction():
    data = make_sparse_mixing(n_samples=2000, n_redundant=6, noise=0.2, random_state=2)
    plain = make_sparse_mixing(n_samples=2000, noise=0.2, random_state=2)
    assert data.redundant.tolist() == [False] * 8 + [True] * 6
    np.testing.assert_array_equal(data.x[:, :8], plain.x)
    clean = data.mixing(data.z)
    combined, residual, *_ = np.linalg.lstsq(np.column_stack([clean[:, :8], np.ones(2000)]), clean[:, 8:], rcond=None)
    assert residual.max() < 1e-15
    sources = np.abs(combined[:8]) > 1e-8
    assert set(sources.sum(axis=0).tolist()) == {1, 2}
    np.testing.assert_array_equal(sources.T @ data.support[:8], data.support[8:])
    np.testing.assert_allclose((data.x - clean).std(axis=0), 0.2, atol=0.015)
    assert np.abs(np.corrcoef((data.x - clean).T) - np.eye(14)).max() < 0.1


@pytest.mark.slow
def test_nested_domains():
    data = make_sparse_mixing(n_samples=9000, n_domains=9, auxiliary="nested", n_regions=3, random_state=1)
    assert list(data.domains.columns) == ["region", "site"]
    sites = data.domains.groupby(["region", "site"])
    assert len(sites) == 9
    assert data.domains["site"].nunique() == 3
    means = sites.apply(lambda rows: data.z[rows.index].mean(axis=0), include_groups=False)
    overall = np.stack(means.to_numpy())
    within = overall - np.stack(means.groupby("region").transform("mean").to_numpy())
    assert 0.01 < within.var(axis=0).mean() < overall.var(axis=0).mean() / 3
    model = CGVAE(n_latents=4, n_restarts=1, max_epochs=1, verbose=0, auxiliary=data.auxiliary)
    model.fit(data.x, data.domains)
    assert len(model.domains_) == 9


def test_continuous_auxiliary():
    data = make_sparse_mixing(n_samples=20_000, auxiliary="continuous", change="all", n_unchanging=1, random_state=3)
    u = data.domains["u"].to_numpy()
    assert list(data.domains.columns) == ["u"]
    assert ((u >= 0) & (u <= 1)).all()
    bins = np.digitize(u, np.linspace(0, 1, 41)[1:-1])
    means = np.stack([data.z[bins == b].mean(axis=0) for b in range(40)])
    moving = means[:, ~data.unchanging]
    assert np.ptp(moving, axis=0).min() > 0.5
    assert np.abs(np.diff(moving, axis=0)).max() < 0.5
    assert np.abs(means[:, data.unchanging]).max() < 0.2
    model = CGVAE(n_latents=4, n_restarts=1, max_epochs=1, verbose=0, auxiliary=data.auxiliary)
    model.fit(data.x[:1000], data.domains[:1000])
    assert model.transform(data.x[:5]).shape == (5, 4)


@pytest.mark.parametrize("mixing", ["flow", "dense"])
@pytest.mark.parametrize("n_features", [4, 8])
def test_flow_and_dense_are_injective(mixing, n_features):
    for seed in range(3):
        data = make_sparse_mixing(
            n_features=n_features, n_samples=800, mixing=mixing, nonlinearity=2.0, random_state=seed
        )
        found = data.check_injective(max_rows=300)
        assert found.injective
        assert found.smallest > 0.02
        assert found.closest > 0.02
        assert found.condition > 1


class Hand:
    """A mixing given by formulas, features and derivatives stacked along the last axes."""

    def __init__(self, features, slopes):
        self.features, self.slopes = features, slopes

    def __call__(self, z):
        return np.stack(self.features(*z.T), axis=1)

    def jacobian(self, z):
        rows = [[np.broadcast_to(entry, len(z)) for entry in row] for row in self.slopes(*z.T)]
        return np.stack([np.stack(row, axis=1) for row in rows], axis=1)


def test_injectivity_says_no():
    z = np.random.default_rng(0).standard_normal((1000, 2)) * [1.0, 3.0]
    fold = Hand(lambda a, b: [a**2, b], lambda a, b: [[2 * a, 0], [0, 1]])
    found = injectivity(fold, z)
    assert (found.injective, found.smallest) == (False, 0.0)
    assert found.closest < 1e-6
    np.testing.assert_allclose(fold(found.pair[:1]), fold(found.pair[1:]), atol=1e-6)
    # A spiral staircase without its height: an immersion everywhere, and yet many to one.
    turn = Hand(
        lambda a, b: [np.exp(a) * np.cos(b), np.exp(a) * np.sin(b)],
        lambda a, b: [
            [np.exp(a) * np.cos(b), -np.exp(a) * np.sin(b)],
            [np.exp(a) * np.sin(b), np.exp(a) * np.cos(b)],
        ],
    )
    found = injectivity(turn, z)
    assert found.smallest > 0.01
    assert not found.injective
    assert np.abs(found.pair[0] - found.pair[1])[1] / (2 * np.pi) == pytest.approx(1.0, abs=1e-3)
    stairs = Hand(
        lambda a, b: [*turn.features(a, b), b],
        lambda a, b: [*turn.slopes(a, b), [0, 1]],
    )
    assert injectivity(stairs, z).injective
    lost = Hand(lambda a, b: [a + b, 2 * (a + b)], lambda a, b: [[1, 1], [2, 2]])
    found = injectivity(lost, z)
    assert not found.injective
    assert found.smallest < 1e-12
    narrow = Hand(lambda a, b: [a + b], lambda a, b: [[1, 1]])
    found = injectivity(narrow, z)
    assert (found.injective, found.smallest, found.condition) == (False, 0.0, np.inf)


def test_injectivity_of_a_linear_map_is_its_singular_values():
    z = np.random.default_rng(0).standard_normal((500, 3))
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    matrix = np.random.default_rng(1).standard_normal((5, 3))
    scaled = matrix / (z @ matrix.T).std(axis=0)[:, None]
    singular = np.linalg.svd(scaled, compute_uv=False)

    class Linear:
        def __call__(self, z):
            return z @ matrix.T

        def jacobian(self, z):
            return np.broadcast_to(matrix, (len(z), 5, 3))

    found = injectivity(Linear(), z)
    assert found.injective
    assert found.smallest == pytest.approx(singular[-1])
    assert found.condition == pytest.approx(singular[0] / singular[-1])
    alone = injectivity(Linear(), z, far=100.0)
    assert alone.closest == np.inf
    assert np.isnan(alone.pair).all()


def test_the_features_mixing_can_fold():
    """Not every mixing that the defaults draw is one to one; the check finds those that are not."""
    found = make_sparse_mixing(n_features=4, nonlinearity=1.7, n_samples=1000).check_injective()
    assert not found.injective
    assert found.closest < 1e-6


@pytest.mark.parametrize("seed", range(20))
def test_the_bounded_count_agrees_with_the_count(seed):
    rng = np.random.default_rng(seed)
    support = rng.random((rng.integers(3, 15), rng.integers(2, 8))) < rng.uniform(0.2, 0.9)
    needed = domains_needed(support).needed
    assert [needs_at_most(support, limit) for limit in range(20)] == [needed <= limit for limit in range(20)]


def test_large_problems(monkeypatch):
    data = make_sparse_mixing(
        n_latents=50, n_features=1000, n_samples=500, density=0.1, mixing="flow", guaranteed=True, violation=0.01
    )
    assert data.x.shape == (500, 1000)
    assert data.domains_needed == 1
    monkeypatch.setattr("unmix.datasets.supports.ENTRIES", 250_000)
    with pytest.raises(SettingError, match=r"n_latents=50, n_features=50.* at most 4 domains in 100 draws"):
        make_sparse_mixing(n_latents=50, n_features=50, n_samples=500, structure="columns", guaranteed=True)


EYE = np.eye(8, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"source": "cauchy"}, r"source must be one of \['gaussian', 'laplace', 'skewed', 'bimodal'\]; got 'cauchy'"),
        ({"auxiliary": "time"}, "auxiliary must be one of"),
        ({"mixing": "images"}, "mixing must be one of"),
        ({"structure": "tree"}, "structure must be one of"),
        ({"n_unchanging": 5}, "n_unchanging must be between 0 and n_latents = 4; got 5"),
        ({"n_unchanging": 1.5}, "n_unchanging must be a whole number ≥ 0; got 1.5"),
        ({"n_latents": 2.0}, "n_latents must be a whole number ≥ 0; got 2.0"),
        ({"random_state": -1}, "random_state must be a whole number from 0"),
        ({"random_state": "0"}, "random_state must be a whole number"),
        ({"noise": float("nan")}, "noise must be a finite number; got nan"),
        ({"nonlinearity": float("inf")}, "nonlinearity must be a finite number; got inf"),
        ({"density": "a"}, "density must be a finite number; got 'a'"),
        ({"guaranteed": "no"}, "guaranteed must be True or False; got 'no'"),
        ({"dependence": 1.0}, r"dependence must be in \[0, 1\), a correlation; got 1.0"),
        ({"block_size": 0}, "block_size must be at least 1"),
        ({"violation": 1.5}, r"violation must be in \[0, 1\]"),
        ({"weak": 1.0}, r"weak must be in \(0, 1\)"),
        ({"n_redundant": -1}, "n_redundant must be a whole number ≥ 0; got -1"),
        ({"auxiliary": "continuous", "n_domains": 1}, "needs n_domains ≥ 2"),
        ({"auxiliary": "nested", "n_regions": 5}, "1 ≤ n_regions ≤ n_domains.*n_regions=5 and n_domains=4"),
        ({"mixing": "dense", "violation": 0.1}, "mixing='dense' has the full support"),
        ({"mixing": "dense", "support": EYE}, "mixing='dense' has the full support"),
        ({"mixing": "dense", "structure": "blocks"}, "mixing='dense' has the full support"),
        ({"mixing": "dense", "guaranteed": True}, "support needs 9 domains, but there are 4 and guaranteed=True"),
        ({"support": np.ones((9, 4))}, r"has shape \(9, 4\).*= \(8, 4\).*Pass n_features=9, n_latents=4"),
        ({"support": EYE}, r"Features \[4, 5, 6, 7\] of the support depend on no latent"),
        ({"support": np.ones((8, 4)) * [1, 1, 1, 0]}, "does not map the latents one to one"),
        ({"support": np.ones((8, 4)), "mixing": "flow"}, "triangular support: after 0 latents"),
        ({"structure": "columns", "density": 0.1}, "drives 1 features.*density ≥ 1 / n_latents = 0.25"),
        ({"structure": "columns", "density": 1.0, "mixing": "flow"}, "no room for 8 features.*at most 0.625"),
        ({"structure": "overlapping", "block_size": 4}, "at least two groups of latents"),
        ({"structure": "blocks", "guaranteed": True}, "block_size=2 that needs at most 4 domains in 1 draws"),
        ({"mixing": "flow", "violation": 1.0}, "extra edges, but mixing='flow' has room for"),
    ],
)
def test_settings_that_cannot_be(wrong, message):
    with pytest.raises(SettingError, match=message):
        make_sparse_mixing(**{"n_samples": 100, **wrong})


def test_injectivity_refuses():
    z = np.random.default_rng(0).standard_normal((10, 2))
    with pytest.raises(SettingError, match=r"method jacobian\(z\).*got function"):
        injectivity(lambda z: z, z)
    fold = Hand(lambda a, b: [a, b], lambda a, b: [[1, 0], [0, 1]])
    with pytest.raises(SettingError, match=r"none of them constant; got shape \(10, 2\)"):
        injectivity(fold, z * [1, 0])
    with pytest.raises(SettingError, match="n_samples ≥ 2"):
        injectivity(fold, z[0])
