"""Starts at the linear solution, the noise that features share, and what is taken off posterior means."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from unmix import CGVAE, datasets
from unmix.baselines import BetaVAE
from unmix.data.batches import Rows
from unmix.metrics import mcc
from unmix.models.cgvae import CGVAEConfig, CGVAENetwork
from unmix.models.linear import principal_factors, weakest_component

# Loadings of equal length that overlap: principal components are their sum and their difference.
MIXING = np.array([[1.0, 1.0, 1.0, 1.0, 0.3, 0.0], [0.0, 0.3, 1.0, 1.0, 1.0, 1.0]])
QUICK = {"max_epochs": 1, "learning_rate": 1e-9, "verbose": 0}


def linear_data(n=1500, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    domains = np.arange(n) % 3
    z = rng.standard_normal((n, 2)) * np.array([[0.3, 1.5], [1.0, 1.0], [1.6, 0.4]])[domains]
    x = z @ MIXING + noise * rng.standard_normal((n, 6))
    return (x - x.mean(0)) / x.std(0), domains, z


def as_rows(x, domains):
    codes = torch.from_numpy(domains)[:, None].long()
    return Rows(torch.from_numpy(x).float(), None, codes, torch.zeros(len(x), 0), 3)


def test_principal_factors_are_those_of_probabilistic_pca():
    x, _, _ = linear_data()
    found = principal_factors(torch.from_numpy(x), 2, 0)
    pca = PCA(2).fit(x)
    variance = (x.var(axis=0).sum() - pca.explained_variance_.sum()) / x.shape[1]
    assert found.noise == pytest.approx(variance**0.5, rel=1e-6)
    covariance = found.weight.T @ found.weight + variance * torch.eye(6, dtype=torch.float64)
    top = np.linalg.eigvalsh(covariance)[-2:]
    np.testing.assert_allclose(top, pca.explained_variance_[::-1], rtol=1e-6)
    # Bayes' rule for a Gaussian: the regression of z on x, and what it leaves open.
    w = found.weight.numpy()
    np.testing.assert_allclose(found.encoding, np.linalg.solve(covariance, w.T), atol=1e-8)
    left = np.eye(2) - w @ np.linalg.solve(covariance, w.T)
    np.testing.assert_allclose(found.factor @ found.factor.T, left, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["dense", "feature"])
@pytest.mark.parametrize("n_restarts", [1, 4])
def test_an_untrained_fit_keeps_what_pca_keeps(decoder, n_restarts):
    x, domains, _ = linear_data()
    model = CGVAE(n_latents=2, decoder=decoder, n_restarts=n_restarts, n_spare=0, **QUICK).fit(x, domains)
    kept = 1 - (x - model.inverse_transform(model.transform(x))).var() / x.var()
    pca = PCA(2).fit(x)
    assert kept == pytest.approx(pca.explained_variance_ratio_.sum(), abs=2e-3)
    assert model.explained_variance_ratio_.sum() == pytest.approx(kept, abs=0.05)
    assert (np.diff(model.explained_variance_ratio_) <= 1e-6).all()


@pytest.mark.slow
def test_the_linear_start_is_turned_to_what_the_domains_ask_for():
    x, domains, z = linear_data(n=6000, noise=0.2)
    model = CGVAE(n_latents=2, n_restarts=1, n_spare=0, **QUICK).fit(x, domains)
    found = np.abs(np.corrcoef(model.transform(x).T, z.T)[:2, 2:])
    assert found.max(axis=0).min() > 0.97
    assert np.abs(np.corrcoef(PCA(2).fit_transform(x).T, z.T)[:2, 2:]).max(axis=0).min() < 0.9


@pytest.mark.slow
def test_training_never_ends_below_the_linear_start():
    x, domains, _ = linear_data()
    begun = CGVAE(n_latents=2, n_restarts=4, **QUICK).fit(x, domains)
    wrecked = CGVAE(n_latents=2, n_restarts=4, max_epochs=3, learning_rate=1.0, verbose=0).fit(x, domains)
    assert wrecked.restarts_["held_out_objective"].min() <= begun.restarts_["held_out_objective"][2] + 0.02


@pytest.mark.slow
def test_where_features_are_many_every_start_is_linear_and_its_score_is_that_of_the_linear_model():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 2)) @ rng.standard_normal((2, 60)) + rng.standard_normal((90, 60))
    model = CGVAE(n_latents=2, n_restarts=3, max_epochs=3, verbose=0).fit(x, np.arange(90) % 2)
    assert model.agreement_ > 0.99
    assert (model.restarts_["held_out_objective"] < 100).all()


def test_all_features_share_one_noise_until_it_is_released_and_half_of_it_later():
    network = CGVAENetwork(CGVAEConfig(2, 4, 3, n_starts=1, narrowed=0.0))
    with torch.no_grad():
        network.likelihood.noise.log[:] = torch.tensor([0.1, 0.2, 0.4, 0.8]).log()
    own = torch.tensor([0.1, 0.2, 0.4, 0.8]).square()
    torch.testing.assert_close(network.likelihood.noise.log_std(0.2).exp().square()[0, 0], own.mean().expand(4))
    torch.testing.assert_close(network.likelihood.noise.std().square()[0, 0], 0.5 * own + 0.5 * own.mean())


@pytest.mark.slow
def test_the_fitted_noise_is_that_of_the_residuals():
    data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=1500, noise=0.3)
    x = data.x * [1.0, 10.0, 0.1, 1.0]
    model = CGVAE(n_latents=2, n_restarts=1, max_epochs=15, verbose=0).fit(x, data.domains)
    spread = model.sample(20_000, domain=0).std(axis=0)
    np.testing.assert_allclose(spread, x[data.domains == 0].std(axis=0), rtol=0.25)


@pytest.mark.parametrize("kind", [CGVAE, BetaVAE])
def test_a_saved_model_reconstructs_as_before(kind, tmp_path):
    import unmix

    x, domains, _ = linear_data(n=300)
    model = kind(n_latents=2, n_restarts=1, max_epochs=2, verbose=0).fit(x, domains)
    again = unmix.load(model.save(tmp_path / "m"))
    z = model.transform(x)
    np.testing.assert_array_equal(model.inverse_transform(z), again.inverse_transform(z))
    np.testing.assert_array_equal(model.explained_variance_ratio_, again.explained_variance_ratio_)


def test_old_state_without_a_linear_path_or_an_expansion_is_read_as_none():
    network = CGVAENetwork(CGVAEConfig(2, 4, 3, n_starts=2))
    state = {name: value for name, value in network.state_dict().items() if ".path." not in name}
    with torch.no_grad():
        network.decoder.path.weight.fill_(1.0)
    network.load_state_dict(state)
    assert not network.decoder.path.weight.any()


def test_the_same_rows_are_held_out_for_every_random_state():
    x, domains, _ = linear_data(n=300)
    fits = [CGVAE(n_latents=2, n_restarts=1, random_state=seed, **QUICK).fit(x, domains) for seed in (0, 1)]
    np.testing.assert_array_equal(fits[0].description_.groups, fits[1].description_.groups)
    np.testing.assert_allclose(fits[0].description_.latents, fits[1].description_.latents, atol=1e-3)


@pytest.mark.slow
def test_a_start_that_failed_says_nothing_of_whether_latents_repeat():
    x, domains, _ = linear_data(n=300)
    model = CGVAE(n_latents=2, n_restarts=3, **QUICK).fit(x, domains)
    found = model.description_.agreement_latents
    others = [start for start in range(3) if start != model.best_restart_]
    model.restarts_["held_out_objective"] = 1.0
    np.testing.assert_allclose(model.latents_agreement_, np.median(found[others], axis=0))
    model.restarts_.loc[others[0], "held_out_objective"] = np.inf
    np.testing.assert_array_equal(model.latents_agreement_, found[others[1]])
    model.restarts_.loc[others[1], "held_out_objective"] = np.inf
    assert np.isnan(model.latents_agreement_).all()


def test_the_noise_begins_below_the_weakest_component_that_is_to_be_described():
    x, domains, _ = linear_data()
    x = np.column_stack([x[:, 0], x[:, 0] + 0.1 * x[:, 5]])
    x = (x - x.mean(0)) / x.std(0)
    rows = as_rows(x, domains)
    weakest = np.linalg.eigvalsh(np.cov(x.T))[0] ** 0.5
    assert weakest_component(rows.x, 2, 0) == pytest.approx(weakest, rel=1e-4)
    assert weakest_component(rows.x, 5, 0) == pytest.approx(weakest, rel=1e-4)
    assert weakest_component(rows.x[:, [0, 0]], 2, 0) == 0.005
    network = CGVAENetwork(CGVAEConfig(n_latents=2, n_features=2, n_design=3, spare=0, n_starts=4))
    network.begin(rows, rows)
    likelihood = network.likelihood
    assert likelihood.noise.course.at(0.0) == pytest.approx(weakest / 2, rel=1e-4)
    begun = likelihood.noise.log[2].exp()
    torch.testing.assert_close(begun, torch.full_like(begun, weakest / 5), rtol=1e-4, atol=0)
    strong = as_rows(linear_data()[0], domains)
    network = CGVAENetwork(CGVAEConfig(n_latents=2, n_features=6, n_design=3))
    network.begin(strong, strong)
    assert network.likelihood.noise.course.at(0.0) == 0.5


def test_factors_beside_a_much_stronger_one_are_found():
    """Three readings of nearly the same thing, without noise: two of three factors make 1 % of the variance."""
    rng = np.random.default_rng(0)
    domains = np.repeat(np.arange(6), 200)
    z = rng.laplace(size=(1200, 3)) * rng.uniform(0.3, 2.0, (6, 3))[domains]
    x = z @ np.array([[1.0, 1.0, 1.0], [1.0, 1.15, 0.9], [1.0, 0.9, 1.2]]).T
    model = CGVAE(n_latents=3, n_restarts=1, max_epochs=40, verbose=0).fit(x, domains)
    assert mcc(z, model.transform(x)) > 0.98
