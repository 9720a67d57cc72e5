import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from unmix import datasets, metrics
from unmix.baselines import JointDiagonalization


def problem(seed, n=6000, k=3, d=6):
    rng = np.random.default_rng(seed)
    domains = np.arange(n) % 4
    z = rng.standard_normal((n, k)) * rng.uniform(0.3, 2.0, (4, k))[domains]
    return z @ rng.standard_normal((k, d)), domains, z


@pytest.mark.slow
@parametrize_with_checks([JointDiagonalization()])
def test_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_linear_mixing_is_undone(seed):
    x, domains, z = problem(seed)
    model = JointDiagonalization(3).fit(x, domains.astype(str))
    found = model.transform(x)
    assert metrics.mcc(z, found) > 0.99
    np.testing.assert_allclose(model.inverse_transform(found), x, atol=1e-8)
    for own in range(4):
        covariance = np.cov(found[domains == own].T)
        scale = np.sqrt(np.outer(covariance.diagonal(), covariance.diagonal()))
        assert np.abs(covariance / scale - np.eye(3)).max() < 0.1


def test_without_domains_the_components_are_principal_ones_up_to_a_rotation():
    x, _, _ = problem(0)
    found = JointDiagonalization(2).fit_transform(x)
    np.testing.assert_allclose(np.cov(found.T), np.eye(2), atol=0.01)


def test_it_is_a_baseline_of_studies():
    from unmix.bench.methods import METHODS

    data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=600)
    model = METHODS["joint diagonalization"].build(2, 0).fit(data.x, data.domains)
    assert model.transform(data.x).shape == (600, 2)
