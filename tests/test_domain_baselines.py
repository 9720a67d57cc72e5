"""IVAE and IMSDA: the property that its paper defines each by."""

import numpy as np
import pytest
import torch
from conftest import QUICK, one_hot_rows
from torch.distributions import Normal, kl_divergence

from unmix.baselines import IMSDA, IVAE
from unmix.errors import DomainError, SettingError
from unmix.models.imsda import IMSDAConfig, IMSDANetwork
from unmix.models.ivae import IVAEConfig, IVAENetwork


@pytest.mark.slow
@pytest.mark.parametrize("prior_mean", ["zero", "learned"])
def test_ivae_prior_depends_on_u_and_its_term_is_the_closed_kl(prior_mean):
    network = IVAENetwork(
        IVAEConfig(2, 4, 3, n_starts=2, prior_mean=prior_mean, activation="leaky_relu", hidden=(8, 8))
    )
    rows = one_hot_rows()
    prior = network.prior(rows.design)
    scale = prior.log_scale.exp()
    location = prior.location.expand_as(scale)
    assert (scale[:, 0] - scale[:, 1]).abs().min() > 1e-4
    assert bool((location == 0).all()) is (prior_mean == "zero")
    torch.testing.assert_close(scale[:, 0], scale[:, 3])
    posterior = network.encode(rows.x, None, rows.design)
    assert bool((posterior.lower == 0).all())
    moved = network.encode(rows.x, None, rows.design.roll(1, 1))
    assert (posterior.mean - moved.mean).abs().max() > 1e-3
    terms = network.terms(rows, torch.zeros(2, 60, 2), 60, 8, 1.0)
    expected = kl_divergence(Normal(posterior.mean, posterior.diagonal), Normal(location, scale)).sum(-1).mean(1)
    torch.testing.assert_close(terms["kl"], expected)


@pytest.mark.slow
def test_ivae_transform_takes_the_domains(frame, labels):
    model = IVAE(prior_mean="learned", batch_size=128, **QUICK).fit(frame, labels)
    with pytest.raises(DomainError, match=r"fitted with domain columns \['domain'\]; pass them as y"):
        model.transform(frame)
    with_domain = frame.assign(domain=labels)
    np.testing.assert_array_equal(model.transform(with_domain, "domain"), model.transform(frame, labels))
    other = np.where(labels == "a", "b", "a")
    assert np.abs(model.transform(frame, other) - model.transform(frame, labels)).max() > 1e-3
    assert IVAE(prior_mean="learned", batch_size=128, **QUICK).fit(frame).transform(frame).shape == (600, 2)


# IMSDA: content has one prior in every domain, style has not, and latents that do not change are content.


def test_imsda_content_prior_is_standard_normal_in_every_domain_and_style_prior_is_not():
    network = IMSDANetwork(IMSDAConfig(3, 4, 3, n_style=1))
    rows = one_hot_rows(3)
    with torch.no_grad():
        network.style_prior.effects.normal_(generator=torch.Generator().manual_seed(0))
        z = torch.linspace(-1, 1, 9).reshape(1, 3, 3)[:, :1].expand(1, 3, 3)
        log_prob = network.prior(rows.design).log_prob(z)[0]
        noise, _ = network.prior(rows.design).to_noise(z)
        torch.testing.assert_close(network.prior(rows.design).from_noise(noise), z)
    torch.testing.assert_close(log_prob[:, :2], Normal(0.0, 1.0).log_prob(z[0, :, :2]))
    assert (log_prob[0, 2] - log_prob[1:, 2]).abs().min() > 1e-3


@pytest.mark.slow
def test_imsda_puts_the_latent_that_does_not_change_into_content():
    rng = np.random.default_rng(0)
    domains = np.repeat([0, 1, 2], 500)
    z = rng.standard_normal((1500, 2))
    z[:, 1] = np.array([0.4, 1.0, 0.6])[domains] * z[:, 1] + np.array([-2.0, 0.0, 2.0])[domains]
    loading = np.array([[1.0, 0.5, 0.0, -0.8, 0.3], [0.0, 0.5, 1.0, 0.4, -0.9]])
    x = np.tanh(z @ loading) + 0.5 * z @ loading + 0.1 * rng.standard_normal((1500, 5))
    words = {"n_restarts": 2, "max_epochs": 40, "hidden": (32,), "batch_size": 128, "verbose": 0}
    model = IMSDA(2, n_style=1, **words).fit(x, domains)
    found = model.transform(x)
    (content,), (style,) = model.content_, model.style_
    assert {content, style} == {0, 1}
    assert abs(np.corrcoef(found[:, content], z[:, 0])[0, 1]) > 0.9
    assert abs(np.corrcoef(found[:, style], z[:, 1])[0, 1]) > 0.9
    assert model.description_.change[style] > 0.5 > 0.1 > model.description_.change[content]
    assert model.set_params(n_style=2).style_.tolist() == [style]


def test_imsda_takes_a_whole_number_of_style_latents():
    with pytest.raises(SettingError, match=r"n_style must be a whole number ≥ 1; got 2\.5"):
        IMSDA(3, n_style=2.5).fit(np.zeros((30, 4)), np.arange(30) % 3)


# β-TCVAE and HFVAE: the parts of the KL.
