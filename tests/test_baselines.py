"""The baselines: one contract over all of them, and for each the property that its paper defines it by."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, one_hot_rows
from scipy.special import logsumexp
from scipy.stats import beta, laplace, multivariate_normal, norm
from sklearn.base import clone

import unmix
from unmix.baselines import HFVAE, IMSDA, IVAE, BetaTCVAE, BetaVAE, FactorVAE, SparseVAE
from unmix.data.batches import Rows
from unmix.errors import DataError, DomainError, SettingError
from unmix.models.vaes import BetaVAEConfig, BetaVAENetwork, FactorVAEConfig, FactorVAENetwork
from unmix.nets.layers import StackedMLP, generators
from unmix.objectives.dependence import decompose_kl, density_ratio_loss, log_weights, permute_latents
from unmix.objectives.sparsity import slab_probability, spike_and_slab

WITH_PRIOR = {"IVAE": IVAE(prior_mean="learned"), "IMSDA": IMSDA(n_style=1)}
WITHOUT = {
    "BetaVAE": BetaVAE(),
    "BetaTCVAE": BetaTCVAE(),
    "HFVAE": HFVAE(group_sizes=(1, 1)),
    "FactorVAE": FactorVAE(),
    "SparseVAE": SparseVAE(),
}
ALL = {**WITH_PRIOR, **WITHOUT}


def make(name, **words):
    return clone(ALL[name]).set_params(**{**QUICK, "batch_size": 128, **words})


def transform(model, x, y):
    return model.transform(x, y) if isinstance(model, IVAE) else model.transform(x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_contract(name, frame, labels, tmp_path):
    model = make(name, max_epochs=2).fit(frame, labels)
    z = transform(model, frame, labels)
    assert z.shape == (600, 2)
    np.testing.assert_allclose(z.std(axis=0), 1.0, atol=0.15)
    np.testing.assert_array_equal(make(name, max_epochs=2).fit_transform(frame, labels), z)
    assert model.mixing_.shape == (5, 2)
    assert model.domains_ == ("a", "b", "c")
    assert np.isfinite(model.score(frame, labels))
    assert set(model.history_["start"]) == {0, 1}
    again = unmix.load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(transform(again, frame, labels), z)
    assert again.score(frame, labels) == model.score(frame, labels)
    assert type(again) is type(model)
    pd.testing.assert_frame_equal(again.restarts_, model.restarts_, check_dtype=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "terms"), [("IMSDA", ["KL", "shrinkage"]), ("HFVAE", ["TC between", "KL dimensions"])]
)
def test_the_report_states_what_each_model_assumes(name, terms, frame, labels, tmp_path):
    model = make(name, max_epochs=1).fit(frame, labels)
    text = model.report(tmp_path / "r.html").read_text()
    assert f"assuming that {model.assumption}." in text
    assert ("ignores the domains" in text) is (name in WITHOUT)
    assert all(f"<th>{word}</th>" in text for word in ["reconstruction", *terms])


@pytest.mark.parametrize("name", WITH_PRIOR)
def test_models_with_a_domain_prior_know_counterfactuals(name, frame, labels):
    model = make(name).fit(frame, labels)
    z = transform(model, frame, labels)
    stay = model.counterfactual(frame, labels, to=pd.DataFrame({"domain": labels}))
    np.testing.assert_allclose(stay, frame, atol=2e-3)
    means = model.counterfactual(frame, labels, to=pd.DataFrame({"domain": labels}), residual=False)
    np.testing.assert_allclose(means, model.inverse_transform(z), atol=2e-3)
    assert np.abs(model.counterfactual(frame, labels, to="c") - stay)[labels != "c"].max() > 1e-3
    assert model.sample(7, domain="b").shape == (7, 5)
    with pytest.raises(DataError, match="Say which domain"):
        model.sample(7)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT)
def test_models_without_one_ignore_domains_and_say_so(name, frame, labels):
    words = {"max_epochs": 1, "validation_fraction": 0.0}
    model = make(name, **words).fit(frame, labels)
    np.testing.assert_array_equal(model.transform(frame), make(name, **words).fit(frame).transform(frame))
    assert model.score(frame) == model.score(frame, labels)
    assert model.sample(7).shape == (7, 5)
    with pytest.raises(DomainError, match=r"one prior for all domains; leave domain='a' out"):
        model.sample(7, domain="a")
    with pytest.raises(DomainError, match=r"has no counterfactuals\. Use CGVAE, IVAE or IMSDA"):
        model.counterfactual(frame, labels, to="a")


@pytest.mark.parametrize("name", ["IVAE", "SparseVAE"])
def test_missing_entries(name, frame, labels):
    holes = frame.to_numpy().copy()
    holes[::7, 1] = np.nan
    model = make(name, missing="mask").fit(holes, labels)
    assert np.isfinite(transform(model, holes, labels)).all()
    assert np.isfinite(model.score(holes, labels))


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("IVAE", {"prior_mean": "one"}, r"prior_mean must be one of \['zero', 'learned'\]"),
        ("IVAE", {"activation": "relu"}, r"activation must be one of \['silu', 'leaky_relu'\]; got 'relu'"),
        ("BetaVAE", {"noise_std": 0.0}, r"noise_std must be None, or > 0 and finite; got 0\.0"),
        ("BetaVAE", {"kl_weight": -1.0}, "kl_weight must be ≥ 0"),
        ("BetaVAE", {"hidden": ()}, "hidden must be one or more widths ≥ 1"),
        ("IMSDA", {"n_style": 3}, r"n_style must be a whole number from 1 to n_latents = 2; got 3\. For no style"),
        ("HFVAE", {"group_sizes": (2, 1)}, r"sizes ≥ 1 that add up to n_latents = 2; got \(2, 1\)"),
        ("FactorVAE", {"discriminator": (0,)}, "discriminator must be one or more widths ≥ 1"),
        ("FactorVAE", {"tc_weight": -1}, "tc_weight must be ≥ 0"),
        ("SparseVAE", {"slab": 20.0}, r"spike must be above slab; got 10\.0 and 20\.0"),
    ],
)
def test_settings_that_cannot_be(name, words, message, frame, labels):
    with pytest.raises(SettingError, match=message):
        make(name, **words).fit(frame, labels)


# IVAE: the prior and the encoder depend on u, and the term is the KL between Gaussians.


def mixture(n_copies=1):
    """Rows whose posteriors form a mixture of three correlated clusters: means and standard deviations."""
    mean = np.array([[-1.0, -0.8], [0.2, 0.1], [1.2, 0.9]]).repeat(n_copies, axis=0)
    std = np.array([[0.5, 0.4], [0.3, 0.6], [0.4, 0.5]]).repeat(n_copies, axis=0)
    return mean, std


def parts_of(z, mean, std, n_data, groups):
    tensors = (torch.from_numpy(value)[None] for value in (z, mean, std))
    parts = decompose_kl(*tensors, n_data, groups)
    return {name: float(value) for name, value in vars(parts).items()}


def test_the_parts_of_the_kl_are_exact_with_the_whole_data_as_batch():
    mean, std = mixture(40)
    z = mean + std * np.random.default_rng(0).standard_normal(mean.shape)
    own = norm.logpdf(z, mean, std)
    pairs = norm.logpdf(z[:, None], mean[None], std[None])
    joint = logsumexp(pairs.sum(-1), axis=1) - math.log(len(z))
    marginal = logsumexp(pairs, axis=1) - math.log(len(z))
    found = parts_of(z, mean, std, len(z), (1, 1))
    assert found["mutual_information"] == pytest.approx((own.sum(1) - joint).mean(), abs=1e-6)
    assert found["between_groups"] == pytest.approx((joint - marginal.sum(1)).mean(), abs=1e-6)
    assert found["within_groups"] == pytest.approx(0.0, abs=1e-9)
    assert found["dimensions"] == pytest.approx((marginal - norm.logpdf(z)).sum(1).mean(), abs=1e-6)
    together = parts_of(z, mean, std, len(z), (2,))
    assert together["within_groups"] == pytest.approx(found["between_groups"], abs=1e-9)
    assert together["between_groups"] == pytest.approx(0.0, abs=1e-9)


def test_the_parts_add_up_to_the_kl_and_hold_the_total_correlation():
    mean, std = mixture(500)
    z = mean + std * np.random.default_rng(1).standard_normal(mean.shape)
    found = parts_of(z, mean, std, len(z), (1, 1))
    kl = (0.5 * (mean**2 + std**2 - 1) - np.log(std)).sum(1).mean()
    assert sum(found.values()) == pytest.approx(kl, abs=0.06)
    grid = np.linspace(-4, 4, 161)
    densities = norm.pdf(grid[:, None, None], *(value[None] for value in mixture()))
    joint = np.einsum("am,bm->ab", densities[..., 0], densities[..., 1]) / 3
    marginals = densities.mean(1)
    ratio = np.log(joint / (marginals[:, None, 0] * marginals[None, :, 1]))
    exact = (joint * ratio).sum() * (grid[1] - grid[0]) ** 2
    assert exact > 0.2
    assert found["between_groups"] == pytest.approx(exact, abs=0.04)


def test_batches_estimate_the_aggregate_posterior_without_bias():
    densities = np.random.default_rng(0).uniform(0.1, 1.0, 6)
    weights = log_weights(3, 6, torch.device("cpu")).exp().numpy()
    batches = [(0, *others) for others in itertools.permutations(range(1, 6), 2)]
    estimates = [weights[0] @ densities[list(batch)] for batch in batches]
    assert np.mean(estimates) == pytest.approx(densities.mean(), rel=1e-6)
    assert log_weights(1, 6, torch.device("cpu")).tolist() == [[0.0]]


@pytest.mark.slow
def test_hfvae_with_single_latents_is_beta_tcvae_and_groups_follow_the_order(frame):
    words = {**QUICK, "batch_size": 128, "n_latents": 3}
    grouped = HFVAE(**words, group_sizes=(1, 1, 1)).fit(frame)
    np.testing.assert_array_equal(grouped.transform(frame), BetaTCVAE(**words).fit_transform(frame))
    model = HFVAE(**words, group_sizes=(1, 2)).fit(frame)
    order = model.model_.order.numpy()
    assert [set(order[group]) for group in model.groups_] == [{0}, {1, 2}]


# FactorVAE: the classifier's logit is the density ratio, and each player has its own gradient.


@pytest.mark.slow
def test_the_classifier_estimates_the_total_correlation_of_correlated_gaussians():
    correlations = torch.tensor([0.8, 0.0])
    source = torch.Generator().manual_seed(0)
    network = StackedMLP(generators(0, 2), 2, (32, 32), 1, activation="leaky_relu")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)

    def draw(n_rows):
        noise = torch.randn(2, n_rows, 2, generator=source)
        second = correlations[:, None] * noise[..., 0] + (1 - correlations[:, None] ** 2).sqrt() * noise[..., 1]
        return torch.stack([noise[..., 0], second], dim=-1)

    for step in range(400):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / 400)
        z = draw(1000)
        permuted = permute_latents(z, torch.randn(z.shape, generator=source))
        loss = density_ratio_loss(network(z).squeeze(-1), network(permuted).squeeze(-1)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        estimate = network(draw(20_000)).squeeze(-1).mean(1)
    torch.testing.assert_close(estimate, -0.5 * (1 - correlations**2).log(), atol=0.05, rtol=0)


def test_permuted_latents_keep_their_values_and_lose_their_dependence():
    source = torch.Generator().manual_seed(0)
    z = torch.randn(1, 2000, 1, generator=source).expand(-1, -1, 2)
    permuted = permute_latents(z, torch.randn(1, 2000, 2, generator=source))
    torch.testing.assert_close(permuted.sort(dim=1).values, z.sort(dim=1).values)
    assert abs(float(torch.corrcoef(permuted[0].T)[0, 1])) < 0.06


def test_the_players_of_factorvae_learn_from_their_own_terms():
    network = FactorVAENetwork(FactorVAEConfig(2, 4, n_starts=2))
    rows = one_hot_rows()
    noise = torch.randn(2, 60, network.n_noise, generator=torch.Generator().manual_seed(0))
    terms = network.terms(rows, noise, 60, 8, 0.5)
    assert network.n_noise == 4
    theirs, own = list(network.discriminator.parameters()), list(network.encoder.parameters())
    for name, moved, unmoved in (("tc", own, theirs), ("discriminator", theirs, own)):
        gradients = torch.autograd.grad(terms[name].sum(), [*moved, *unmoved], retain_graph=True, allow_unused=True)
        assert all(gradient is not None for gradient in gradients[: len(moved)]), name
        assert all(gradient is None for gradient in gradients[len(moved) :]), name
    assert network.weights(0.99)["discriminator"] == 1.0
    assert network.weights(1.0)["discriminator"] == 0.0
    assert not network.settled(0.7)
    assert network.settled(0.8)


# β-VAE: the bound of a linear Gaussian model, and a KL that falls with β.


def test_beta_vae_at_one_is_the_exact_log_likelihood_of_a_linear_gaussian_model():
    network = BetaVAENetwork(BetaVAEConfig(2, 3, hidden=(), noise_std=0.5, kl_weight=1.0)).double()
    loading = torch.tensor([[1.2, -0.5, 0.0], [0.3, 0.72, 0.9]], dtype=torch.float64)
    variance = 1 / (1 + loading.square().sum(1) / 0.25)
    with torch.no_grad():
        decoder, encoder = network.decoder.network.layers[0], network.encoder.network.layers[0]
        decoder.weight.copy_(loading[None])
        encoder.weight.zero_()
        encoder.weight[0, :, :2] = loading.T * variance / 0.25
        encoder.bias[0, 0, 2:4] = 0.5 * variance.log()
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = Rows(x, None, torch.zeros(40, 0, dtype=torch.int64), torch.zeros(40, 0), 0)
    # Four points with the mean and covariance of N(0, I): exact for the quadratic that the bound is in z.
    points = math.sqrt(2) * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    with torch.no_grad():
        terms = [network.terms(rows, point.expand(1, 40, 2), 40, 8, 1.0) for point in points]
    bound = -np.mean([float(term["reconstruction"] + term["kl"]) for term in terms])
    covariance = (loading.T @ loading + 0.25 * torch.eye(3, dtype=torch.float64)).numpy()
    exact = multivariate_normal(np.zeros(3), covariance).logpdf(x.numpy()).mean()
    assert bound == pytest.approx(exact, abs=1e-5)


@pytest.mark.slow
def test_the_kl_falls_as_beta_grows(frame):
    words = {**QUICK, "n_restarts": 1, "max_epochs": 8, "batch_size": 64, "noise_std": 0.5}
    kl = [BetaVAE(**words, kl_weight=b).fit(frame).restarts_["held_out_kl"][0] for b in (0.25, 1.0, 4.0, 40.0)]
    assert np.all(np.diff(kl) < -0.1)
    assert kl[-1] < kl[0] / 4


# Sparse VAE: the penalty is the density, its slope is that of EM, and entries end at 0.


def test_the_spike_and_slab_penalty_is_its_density():
    source = torch.Generator().manual_seed(0)
    mask = torch.randn(2, 5, 3, generator=source, dtype=torch.float64).requires_grad_()
    logit = torch.randn(2, 1, 3, generator=source, dtype=torch.float64)
    found = spike_and_slab(mask, logit, 10.0, 1.0)
    m, share = mask.detach().numpy(), logit.sigmoid().numpy()
    slab, spike = share * laplace.pdf(m, scale=1.0), (1 - share) * laplace.pdf(m, scale=0.1)
    expected = -np.log(slab + spike).sum((1, 2)) - (beta.logpdf(share, 1, 5) - math.log(5)).sum((1, 2))
    np.testing.assert_allclose(found.detach().numpy(), expected)
    probability = slab_probability(mask, logit, 10.0, 1.0)
    np.testing.assert_allclose(probability.detach().numpy(), slab / (slab + spike))
    (gradient,) = torch.autograd.grad(found.sum(), mask)
    rates = (1.0 * probability + 10.0 * (1 - probability)).detach()
    torch.testing.assert_close(gradient, rates * mask.detach().sign())


@pytest.mark.slow
def test_sparse_vae_finds_the_support_and_drives_the_column_too_many_to_zero():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1000, 2))
    x = np.repeat(z, 3, axis=1) * np.array([1.0, -0.8, 1.2, 0.9, 1.1, -1.0])
    x = x + 0.3 * np.tanh(x) + 0.1 * rng.standard_normal(x.shape)
    model = SparseVAE(3, n_restarts=3, max_epochs=60, hidden=(16,), batch_size=128, verbose=0).fit(x)
    mask = model.model_.inner.decoder.mask[0].detach().numpy()[:, model.model_.order.numpy()]
    assert (mask[:, 2] == 0).all()
    assert (mask == 0).sum() == 12
    np.testing.assert_array_equal(model.support_, mask != 0)
    np.testing.assert_array_equal(model.mixing_[mask == 0], 0.0)
    assert len(np.unique(model.support_[:3], axis=0)) == len(np.unique(model.support_[3:], axis=0)) == 1
    assert unmix.metrics.mcc(z, model.transform(x)[:, :2]) > 0.98
