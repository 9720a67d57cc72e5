"""Residuals of discrete features by their quantiles."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtri

from unmix.distributions.quantiles import carried, normal_residuals

RNG = np.random.default_rng(0)
MU = np.exp(RNG.normal(0, 3, (400, 5)))
LAWS = {
    "poisson": lambda mu: stats.poisson(mu),
    "nbinom": lambda mu: stats.nbinom(2.0, 1 / (1 + 0.5 * mu)),
    "rare": lambda mu: stats.nbinom(1 / 50.0, 1 / (1 + 50.0 * mu)),
    "bernoulli": lambda mu: stats.bernoulli(mu / (1 + mu)),
}


@pytest.mark.parametrize("law", LAWS)
def test_residuals_and_carried_values_are_those_of_the_distribution_function(law):
    own, moved = LAWS[law](MU), LAWS[law](2 * MU)
    x = own.rvs(size=MU.shape, random_state=np.random.default_rng(1)).astype(float)
    share = np.random.default_rng(2).random(x.shape)
    u = own.cdf(x - 1) + (1 - share) * own.pmf(x)
    found = normal_residuals(x, own, np.random.default_rng(2))
    inside = (u > 1e-6) & (u < 1 - 1e-6)
    np.testing.assert_allclose(found[inside], ndtri(u[inside]), rtol=1e-6, atol=1e-8)
    assert np.isfinite(found).all()
    there = carried(x, own, moved, np.ones_like(x), np.random.default_rng(2))
    clear = inside & (moved.ppf(u - 1e-9) == moved.ppf(u + 1e-9))
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(there[clear], moved.ppf(u)[clear])


def test_a_count_far_above_its_mean_keeps_a_finite_residual_of_the_right_size():
    x, own = np.array([[40.0, 0.0]]), stats.poisson(np.array([[1.0, 40.0]]))
    found = normal_residuals(x, own, np.random.default_rng(0))
    assert -stats.norm.isf(own.cdf(0)[0, 1]) >= found[0, 1] > -10
    assert found[0, 0] > 12
