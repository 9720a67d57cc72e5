"""Values that published code of the metrics is tested with: its inputs drawn anew, its bounds.

Factors, latents and bounds are those of the tests of disentanglement_lib (Locatello et al. 2019, github.com/
google-research/disentanglement_lib): ten independent factors with ten values; latents are the factors, the factors
twice, the factors permuted anew in every row, or nothing.
"""

import numpy as np
import pytest

from unmix import metrics
from unmix.errors import MetricWarning
from unmix.metrics.importance import summary_of
from unmix.metrics.information import information

LATENTS = {
    "factors": lambda f: f,
    "twice": lambda f: np.hstack([f, f]),
    "permuted": lambda f: np.random.default_rng(1).permuted(f, axis=1),
    "nothing": np.zeros_like,
}
DISCRETE = {"discrete": True}
PUBLISHED = [
    ("beta_vae_score", "factors", 2000, {**DISCRETE, "group_size": 5, "n_votes": 2000}, 0.9, 1.0),
    ("factor_vae_score", "factors", 2500, {**DISCRETE, "group_size": 5, "n_votes": 3000}, 0.9, 1.0),
    ("factor_vae_score", "nothing", 2500, {**DISCRETE, "group_size": 5, "n_votes": 3000}, 0.0, 0.2),
    ("mig", "factors", 3000, DISCRETE, 0.9, 1.0),
    ("mig", "nothing", 3000, DISCRETE, 0.0, 0.2),
    ("mig", "twice", 3000, DISCRETE, 0.0, 0.1),
    ("sap", "factors", 3000, {}, 0.9, 1.0),
    ("sap", "nothing", 3000, {}, 0.0, 0.2),
    ("sap", "twice", 3000, {}, 0.0, 0.2),
    ("modularity", "factors", 3000, DISCRETE, 0.9, 1.0),
    ("modularity", "permuted", 20000, DISCRETE, 0.0, 0.2),
    ("modularity", "twice", 3000, DISCRETE, 0.9, 1.0),
    ("irs", "factors", 3000, DISCRETE, 0.9, 1.0),
    ("irs", "nothing", 3000, DISCRETE, 0.0, 0.1),
]
TWO_OF_TEN = 1.0 - np.log(2) / np.log(10)


def factors(n, seed=0):
    return np.random.default_rng(seed).integers(1, 11, size=(n, 10)).astype(float)


@pytest.mark.parametrize(("name", "latents", "n", "settings", "low", "high"), PUBLISHED)
@pytest.mark.filterwarnings("ignore::unmix.errors.MetricWarning")
def test_a_score_lies_where_it_was_published(name, latents, n, settings, low, high):
    z = factors(n)
    assert low <= getattr(metrics, name)(z, LATENTS[latents](z), n_bootstrap=0, **settings) <= high


COPIES = (0.9, 1.0), (TWO_OF_TEN - 0.1, TWO_OF_TEN + 0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("regressor", "latents", "n", "bounds"),
    [
        ("forest", "factors", 1000, ((0.9, 1.0), (0.9, 1.0))),
        ("forest", "permuted", 1000, ((0.0, 0.2), (0.0, 0.2))),
        ("forest", "twice", 2000, COPIES),
        ("boosting", "twice", 1000, COPIES),
    ],
)
def test_dci_of_all_factors(regressor, latents, n, bounds):
    z = factors(n)
    score = metrics.dci(z, LATENTS[latents](z), regressor=regressor, n_bootstrap=0)
    for value, (low, high) in zip((float(score), score.details["completeness"]), bounds, strict=True):
        assert low <= value <= high


DIAGONAL = np.diag(5.0 * np.ones(5))


@pytest.mark.parametrize(
    ("importances", "disentangled", "complete"),
    [
        (DIAGONAL, 1.0, 1.0),
        (np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), 1.0, 1.0),
        (np.zeros((10, 10)), 0.0, 0.0),
        (np.vstack([DIAGONAL, DIAGONAL]), 1.0, TWO_OF_TEN),
        (np.hstack([DIAGONAL, DIAGONAL]), TWO_OF_TEN, 1.0),
        # The library weighs factors by importance, which gives 1; after the paper a factor that nothing predicts is 0.
        (DIAGONAL[:2], 1.0, 0.4),
    ],
)
def test_dci_of_importances(importances, disentangled, complete):
    n_factors = importances.shape[1]
    found = summary_of(importances, np.ones(n_factors, dtype=bool), np.zeros(n_factors))
    assert found["disentanglement"] == pytest.approx(disentangled)
    assert found["completeness"] == pytest.approx(complete)


@pytest.mark.parametrize(
    ("true", "found", "expected"),
    [
        (range(5), range(5), 1.0),
        (range(5), [*range(5), *range(5)], 1.0),
        (range(5), range(2), 1.0),
        ([*range(5), *range(5)], range(5), 1.0 - 1.0 / 9.0),
    ],
)
def test_modularity_of_copies(true, found, expected):
    z = factors(20000)
    score = metrics.modularity(z[:, list(true)], z[:, list(found)], discrete=True, n_bootstrap=0)
    assert score == pytest.approx(expected, abs=1e-4)


def test_information_of_four_rows():
    first, second = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]), np.array([[0, 1], [1, 1], [0, 0], [1, 0]])
    shared, entropies = information(first, second)
    np.testing.assert_allclose(shared, [[np.log(2), 0.0], [0.0, np.log(2)]], atol=1e-12)
    np.testing.assert_allclose(entropies, np.log([2, 2]))


# Runs without factors: the tests of udr_test.py in the same library


def test_udr_ignores_order_and_sign():
    rng = np.random.default_rng(0)
    # Half of the rows are scored: 1,000, as there.
    z = rng.random((2000, 10))
    other = z[:, rng.permutation(10)] * rng.choice([-1.0, 1.0], 10)
    score = metrics.udr([z, other], kl=np.ones((2, 10)), n_bootstrap=0)
    assert 0.8 <= score.per_factor.min() <= score.per_factor.max() <= 1.0


def test_udr_looks_at_latents_with_divergence():
    rng = np.random.default_rng(0)
    shared = rng.random((1000, 1))
    runs = [np.hstack([shared, rng.random((1000, 9))]) for _ in range(2)]
    divergences = np.array([[1.0] + [0.0] * 9] * 2)
    assert 0.0 <= metrics.udr(runs, kl=np.ones((2, 10)), n_bootstrap=0) <= 0.2
    assert 0.8 <= metrics.udr(runs, kl=divergences, n_bootstrap=0) <= 1.0


@pytest.mark.parametrize(
    ("columns", "low", "high"), [([0, 1, 2], 0.9, 1.0), ([0, 0, 2], 0.6, 0.7), ([0] * 3, 0.3, 0.4)]
)
def test_udr_of_runs_with_copies(columns, low, high):
    z = np.random.default_rng(0).standard_normal((5000, 3))[:, columns]
    assert low <= metrics.udr([z, z], n_bootstrap=0) <= high


def test_udr_of_nothing():
    with pytest.warns(MetricWarning, match="no informative latent"):
        assert metrics.udr([np.zeros((100, 3))] * 2, n_bootstrap=0) == 0.0


# Correlations: the tests of mean_correlation_coefficient in SAELens (github.com/decoderesearch/SAELens)


def test_mcc_ignores_order_sign_and_scale_and_is_low_for_noise():
    z, noise = np.random.default_rng(42).standard_normal((2, 512, 10))
    for w in (z, -z, z[:, ::-1], z * np.arange(1, 11)):
        assert metrics.mcc(z, w, n_bootstrap=0) == pytest.approx(1.0, abs=1e-5)
    assert metrics.mcc(z, noise, n_bootstrap=0) < 0.3


# Distances of features: closed forms, and constant codes as in the tests of torch_mimicry


def test_frechet_distances_with_a_closed_form():
    x = np.random.default_rng(0).standard_normal((500, 8))
    white = (x - x.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    assert metrics.fid(white, white, extractor="pixels", n_bootstrap=0) == pytest.approx(0.0, abs=1e-10)
    # N(0, I) against N(1, I) in d dimensions: d. Against N(0, s² I): d (s - 1)².
    assert metrics.fid(white, white + 1.0, extractor="pixels", n_bootstrap=0) == pytest.approx(8.0)
    assert metrics.fid(white, 3.0 * white, extractor="pixels", n_bootstrap=0) == pytest.approx(32.0)


def test_kernel_distance_of_constant_codes():
    ones = np.ones((4, 16))
    assert abs(metrics.kid(ones, ones, extractor="pixels", n_blocks=2, n_bootstrap=0)) < 1e-5
