"""Dispersions of counts by domain."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import optimize, stats

import unmix
from unmix import CGVAE
from unmix.data.batches import Rows
from unmix.distributions.discrete import Counts, negative_binomial
from unmix.distributions.kinds import likelihood_of
from unmix.distributions.likelihood import NoiseCourse
from unmix.errors import SettingError

SHORT = {"n_latents": 2, "n_restarts": 1, "max_epochs": 3, "batch_size": 64, "verbose": 0, "device": "cpu"}
COUNTS = {"likelihood": "negative_binomial", "size_factors": None, "dispersion": "domain"}
PHI = np.array([0.1, 1.0])
DESIGN = torch.eye(2)


def count_table(n, seed, n_features=12):
    """Counts of two latents, of dispersion .1 in domain 0 and 1 in domain 1."""
    rng, u = np.random.default_rng(seed), np.arange(n) % 2
    weights = np.kron(np.eye(2), np.ones(n_features // 2)) * np.random.default_rng(99).uniform(0.4, 0.8, n_features)
    z = rng.standard_normal((n, 2)) * np.where(u[:, None] == 1, [0.5, 1.2], [1.2, 0.5])
    phi, rate = PHI[u][:, None], np.exp(2 + z @ weights)
    return rng.poisson(rng.gamma(1 / phi, phi * rate)).astype(float), u


def rows_of(x, codes, n_design, observed=None):
    x = torch.as_tensor(x, dtype=torch.float32)
    return Rows(x.log1p(), observed, torch.as_tensor(codes), torch.zeros(len(x), 0), n_design, x)


def with_effects(levels, effects, n_features=2):
    likelihood = Counts(1, n_features, levels=levels)
    with torch.no_grad():
        likelihood.effects.copy_(torch.as_tensor(effects)[None, :, None].expand_as(likelihood.effects))
    return likelihood


def test_the_gradient_by_the_dispersions_of_rows_is_that_of_differences():
    generator = torch.Generator().manual_seed(0)
    x = torch.poisson(3 * torch.rand(5, 4, generator=generator).double(), generator=generator)
    eta, log = (torch.randn(2, 5, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    observed = (torch.rand(5, 4, generator=generator) > 0.3).double()
    for mask in (None, observed):
        assert torch.autograd.gradcheck(lambda eta, log, mask=mask: negative_binomial(x, eta, log, mask), (eta, log))


def test_counts_of_a_domain_have_the_log_likelihood_that_scipy_gives():
    rng, likelihood = np.random.default_rng(0), with_effects((2,), [-0.5, 0.5])
    x, eta, u = rng.poisson(3.0, (6, 2)), rng.standard_normal((1, 6, 2)), np.arange(6) % 2
    phi = 0.09 * np.exp(2 * np.where(u == 1, 0.5, -0.5))[:, None]
    expected = stats.nbinom(1 / phi, 1 / (1 + phi * np.exp(eta[0]))).logpmf(x).sum(1)
    found = likelihood.log_prob(rows_of(x, u[:, None], 2), torch.as_tensor(eta, dtype=torch.float32))
    np.testing.assert_allclose(found.detach()[0], expected, rtol=1e-4)


def test_effects_of_columns_add_up_and_rows_without_a_domain_have_their_mean():
    # Two columns, of two and of three levels, and a continuous one.
    likelihood = with_effects((2, 3, 1), [0.1, 0.5, -0.6, 0.0, 0.3, 7.0])
    design = torch.tensor([[1.0, 0, 0, 0, 1, 2], [0, 1, 1, 0, 0, -3]])
    with torch.no_grad():
        found = 0.5 * (likelihood.dispersion(design) / 0.09).log()[:, 0]
        np.testing.assert_allclose(found, [-0.2 + 0.4, 0.2 - 0.5], atol=1e-5)
        for absent in (None, torch.zeros(3, 0)):
            np.testing.assert_allclose(likelihood.dispersion(absent), 0.09, rtol=1e-5)


def test_the_refit_finds_the_dispersions_of_domains():
    rng, u = np.random.default_rng(0), np.arange(6000) % 2
    phi, eta = PHI[u][:, None], 0.5 * rng.standard_normal((6000, 3)) + 2
    x = rng.poisson(rng.gamma(1 / phi, phi * np.exp(eta)))
    observed = torch.as_tensor(rng.random((6000, 3)) > 0.2).float()
    likelihood = likelihood_of(("negative_binomial",), 1, 3, 0.2, NoiseCourse(), (2,))
    likelihood.refit([(rows_of(x, u[:, None], 2, observed), torch.as_tensor(eta, dtype=torch.float32))])
    with torch.no_grad():
        np.testing.assert_allclose(likelihood.dispersion(DESIGN), PHI[:, None].repeat(3, 1), rtol=0.1)
        np.testing.assert_allclose(likelihood.dispersion(), np.sqrt(0.1), rtol=0.1)
        np.testing.assert_allclose(likelihood.effects.sum(1), 0.0, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_the_refit_is_the_maximum_of_the_likelihood(masked):
    rng, d = np.random.default_rng(0), 12
    phi, eta = np.geomspace(0.1, 3.0, d), (0.7 * rng.standard_normal((2000, d)) + rng.normal(0, 2, d)).astype("f4")
    x = rng.poisson(rng.gamma(1 / phi, phi * np.exp(eta)))
    observed = rng.random((2000, d)) > 0.3 * masked
    likelihood = likelihood_of(("negative_binomial",), 1, d, 0.2, NoiseCourse())
    rows = rows_of(x, np.zeros((2000, 1), int), 1, torch.as_tensor(observed).float() if masked else None)
    likelihood.refit([(rows.take(part), torch.as_tensor(eta)[part]) for part in (slice(0, 900), slice(900, None))])
    found = np.log(likelihood.dispersion().detach().numpy()[0])

    def loss(log, k):
        own = observed[:, k]
        return -stats.nbinom(np.exp(-log), 1 / (1 + np.exp(log + eta[own, k].astype(float)))).logpmf(x[own, k]).sum()

    best = [optimize.minimize_scalar(loss, bounds=(-9.2, 4.6), args=(k,), method="bounded").x for k in range(d)]
    # The last interval that is halved is 0.0034 wide.
    np.testing.assert_allclose(found, best, atol=0.0025)


def test_effects_of_few_rows_are_those_of_the_posterior_with_a_normal_distribution_beforehand():
    # Of three rows with a count far from its mean, and of forty others, in two domains.
    x = np.array([30.0, 0.0, 25.0, *([3.0, 4.0, 2.0, 5.0] * 10)])[:, None]
    u, eta = np.r_[np.zeros(3, int), np.ones(40, int)], torch.full((43, 1), np.log(4.0))
    likelihood = likelihood_of(("negative_binomial",), 1, 1, 0.2, NoiseCourse(), (2,))
    likelihood.refit([(rows_of(x, u[:, None], 2), eta)])
    common = Counts(1, 1)
    common.refit([(rows_of(x, u[:, None], 2), eta)])
    log = float(common.noise.log.detach())

    def loss(effects):
        own = 2 * np.clip(log + effects[u], np.log(1e-2), np.log(10))
        counts = stats.nbinom(np.exp(-own), 1 / (1 + 4.0 * np.exp(own)))
        return (np.asarray(effects) ** 2).sum() / 2 - counts.logpmf(x[:, 0]).sum()

    best = optimize.minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}).x
    found = 0.5 * np.log(likelihood.dispersion(DESIGN).detach().numpy()[:, 0])
    np.testing.assert_allclose(found, log + best, atol=0.005)


def test_a_row_that_goes_to_a_domain_has_its_dispersion():
    generator, n = torch.Generator().manual_seed(1), 4000
    mixed = likelihood_of(("negative_binomial", "gaussian"), 1, 2, 0.2, NoiseCourse(), (2,))
    with torch.no_grad():
        mixed.parts["negative_binomial"].effects.copy_(torch.tensor([-1.0, 1.0])[None, :, None])
    here, there = (DESIGN[[k]].expand(n, -1) for k in (0, 1))
    for likelihood in (with_effects((2,), [-1.0, 1.0]), mixed):
        eta = torch.full((n, 2), 2.0)
        with torch.no_grad():
            x, real = (likelihood.within(own).sample(eta, generator) for own in (here, there))
            assert real[:, 0].std() > 1.5 * x[:, 0].std()
            rows = rows_of(x, np.zeros((n, 1), int), 2)
            same, moved = (likelihood.within(own).carry(rows, eta, eta, generator) for own in (here, there))
            residual = likelihood.pivot(rows, eta, generator)[:, 0]
        torch.testing.assert_close(same, x)
        assert stats.ks_2samp(moved[:, 0], real[:, 0]).pvalue > 0.01
        assert stats.kstest(residual, "norm").pvalue > 0.01


@pytest.mark.slow
def test_dispersions_of_domains_are_found_and_describe_other_rows_better(tmp_path):
    (x, u), (other, v) = count_table(1000, 0), count_table(1000, 1)
    words = SHORT | {"max_epochs": 15}
    model, one = (CGVAE(**words, **COUNTS | {"dispersion": own}).fit(x, u) for own in ("domain", "feature"))
    found = model.model_.likelihood.dispersion(DESIGN).detach().numpy()
    np.testing.assert_allclose(found.mean(1), PHI, rtol=0.2)
    assert model.score(other, v) > one.score(other, v) + 0.5
    # Rows that are drawn, and rows that go to a domain, vary as those of the domain do.
    spread = [np.log1p(own).std(0).mean() for own in (model.sample(1000, domain=1), other[v == 1])]
    assert spread[0] == pytest.approx(spread[1], rel=0.1)
    moved = model.translate(x, u, to=1)
    np.testing.assert_array_equal(moved[u == 1], x[u == 1])
    assert np.log1p(moved[u == 0]).std(0).mean() == pytest.approx(spread[1], rel=0.1)
    loaded = unmix.load(model.save(tmp_path / "model"), device="cpu")
    np.testing.assert_array_equal(loaded.sample(20, domain=1), model.sample(20, domain=1))
    assert loaded.score(other, v) == pytest.approx(model.score(other, v), rel=1e-5)
    assert str(loaded.audit()) == str(model.audit())
    for domain in (0, 1):
        assert not model.novelty(other[v == domain]).new_mixing
    wider = model.adapt(other[v == 1][:60], domain=2)
    with torch.no_grad():
        dispersion = wider.model_.likelihood.dispersion(torch.eye(3))
        np.testing.assert_allclose(dispersion[:2], found, rtol=1e-5)
        np.testing.assert_allclose(dispersion[2:], np.sqrt(found[:1] * found[1:]), rtol=1e-4)
    np.testing.assert_array_equal(wider.transform(x), model.transform(x))


@pytest.mark.slow
def test_several_domain_columns_some_features_and_missing_counts():
    x, u = count_table(300, 0)
    x[0, 0] = np.nan
    labels = pd.DataFrame({"site": u, "day": np.arange(300) % 3, "dose": np.linspace(0.0, 1.0, 300) ** 2})
    table = pd.DataFrame(x, columns=[f"g{k}" for k in range(12)])
    table["g11"] = np.sin(np.arange(300.0))
    counts = dict.fromkeys(table.columns[:11], "negative_binomial")
    words = COUNTS | {"likelihood": counts, "auxiliary": {"dose": "continuous"}, "missing": "mask"}
    model = CGVAE(**SHORT, **words).fit(table, labels)
    part = model.model_.likelihood.parts["negative_binomial"]
    assert part.effects.shape == (1, 6, 11)
    assert (part.effects[:, 5] == 0).all()
    assert np.isfinite(model.score(table, labels))
    assert np.isfinite(model.translate(table, labels, to={"site": 1, "day": 0, "dose": 0.5})).all()


@pytest.mark.filterwarnings("ignore:The features look like counts")
@pytest.mark.parametrize("likelihood", ["gaussian", "poisson", {"x0": "bernoulli"}, Counts])
def test_a_likelihood_without_a_dispersion_is_refused_before_training(likelihood):
    x, u = count_table(60, 0)
    x[:, 0] = x[:, 0] > 5
    model = CGVAE(**SHORT, **COUNTS | {"likelihood": likelihood})
    with pytest.raises(SettingError, match='"negative_binomial", which alone has a dispersion'):
        model.fit(x, u)


def test_a_dispersion_that_is_none_is_refused():
    with pytest.raises(SettingError, match="dispersion"):
        CGVAE(**SHORT, dispersion="batch").fit(*count_table(60, 0))
