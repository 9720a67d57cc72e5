"""Terms of the objective against closed forms."""

import math

import pytest
import torch
from scipy.stats import multivariate_normal

from unmix.data.batches import Rows
from unmix.models.cgvae import CGVAEConfig, CGVAENetwork
from unmix.objectives.elbo import gaussian_kl, gaussian_negentropy, gaussian_nll
from unmix.objectives.sparsity import LOG_SCALE, PENALTIES, group_weights, jacobian_weights


@pytest.mark.slow
def test_gaussian_terms_equal_torch_distributions():
    source = torch.Generator().manual_seed(0)
    x, mean, log_noise = (
        torch.randn(5, 3, generator=source),
        torch.randn(2, 5, 3, generator=source),
        torch.zeros(2, 1, 3) - 0.3,
    )
    normal = torch.distributions.Normal(mean, log_noise.exp())
    torch.testing.assert_close(gaussian_nll(x, mean, log_noise), -normal.log_prob(x).sum(-1))
    observed = torch.tensor([[1.0, 0.0, 1.0]]).expand(5, -1)
    torch.testing.assert_close(gaussian_nll(x, mean, log_noise, observed), -(normal.log_prob(x) * observed).sum(-1))
    shared = torch.full((2, 1, 1), -0.3)
    torch.testing.assert_close(gaussian_nll(x, mean, shared), -normal.log_prob(x).sum(-1))
    torch.testing.assert_close(gaussian_nll(x, mean, shared, observed), -(normal.log_prob(x) * observed).sum(-1))
    std = torch.rand(4, 3, generator=source) + 0.1
    torch.testing.assert_close(gaussian_negentropy(std.log()), -torch.distributions.Normal(0, std).entropy())


def _doubles(source, *shape):
    return torch.randn(shape, generator=source, dtype=torch.float64).requires_grad_()


def test_derivatives_of_the_likelihood_are_those_of_finite_differences():
    source = torch.Generator().manual_seed(1)
    x, mean, log_noise = _doubles(source, 5, 3).detach(), _doubles(source, 2, 5, 3), _doubles(source, 2, 1, 3)
    assert torch.autograd.gradcheck(lambda m, s: gaussian_nll(x, m, s), (mean, log_noise))
    assert torch.autograd.gradcheck(lambda m, s: gaussian_nll(x, m, s), (mean, _doubles(source, 2, 1, 1)))
    observed = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64).repeat(3, 1)[:5]
    assert torch.autograd.gradcheck(lambda m, s: gaussian_nll(x, m, s, observed), (mean, log_noise))


@pytest.mark.parametrize("of_location", [(2, 5, 3), (2, 1, 3), ()])
@pytest.mark.parametrize("of_scale", [(2, 5, 3), (2, 1, 3)])
def test_the_kl_of_full_gaussians_and_its_derivatives(of_location, of_scale):
    source = torch.Generator().manual_seed(2)
    mean, log_diagonal, entries = (_doubles(source, 2, 5, 3), _doubles(source, 2, 5, 3), _doubles(source, 2, 5, 3, 3))
    location, log_scale = _doubles(source, *of_location), _doubles(source, *of_scale)
    lower = entries.tril(-1)
    factor = log_diagonal.exp().diag_embed() @ (torch.eye(3) + lower)
    posterior = torch.distributions.MultivariateNormal(mean, scale_tril=factor)
    prior = torch.distributions.MultivariateNormal(
        location.expand_as(mean), scale_tril=log_scale.exp().expand_as(mean).diag_embed()
    )
    expected = torch.distributions.kl_divergence(posterior, prior)
    torch.testing.assert_close(gaussian_kl(mean, log_diagonal, lower, location, log_scale).sum(-1), expected)
    assert torch.autograd.gradcheck(
        lambda m, d, c, *prior: gaussian_kl(m, d, c.tril(-1), *prior),
        (mean, log_diagonal, entries, location, log_scale),
    )


def test_penalties_do_not_see_the_scale_of_a_latent():
    source = torch.Generator().manual_seed(0)
    jacobian, norms = torch.randn(1, 6, 2, 4, generator=source), torch.rand(1, 2, 4, generator=source)
    std = torch.tensor([[0.5, 2.0]])
    stretch = torch.tensor([10.0, 0.1])
    wide = std * stretch
    weights = jacobian_weights(jacobian, std)
    torch.testing.assert_close(weights, jacobian_weights(jacobian / stretch[:, None], wide))
    torch.testing.assert_close(group_weights(norms, std), group_weights(norms / stretch[:, None], wide))
    assert float(weights[0, 1, 3]) == pytest.approx(float(jacobian[0, :, 1, 3].abs().mean() * 2.0))


def test_the_log_penalty_is_l1_for_small_entries_and_presses_less_on_large_ones():
    def slope(name, at):
        weight = torch.full((1, 1, 1), at, requires_grad=True)
        PENALTIES[name](weight).sum().backward()
        return float(weight.grad)

    assert [slope("l1", at) for at in (1e-4, 0.3, 1.2)] == [1.0, 1.0, 1.0]
    assert [slope("log", LOG_SCALE * at) for at in (1e-4, 1.0, 4.0)] == pytest.approx([1.0, 0.5, 0.2], abs=1e-3)
    assert [slope("l2", at) for at in (1e-4, 0.3, 1.2)] == pytest.approx([2e-4, 0.6, 2.4])


def test_linear_gaussian_model_reaches_the_exact_log_likelihood():
    """With a linear decoder and the exact posterior in the encoder the bound is the marginal likelihood."""
    config = CGVAEConfig(n_latents=1, n_features=2, hidden=(), sparsity=0.0, decoder="dense", spare=0)
    network = CGVAENetwork(config).double()
    loading, noise = torch.tensor([1.3, -0.7], dtype=torch.float64), 0.5
    precision = 1 + (loading**2).sum() / noise**2
    with torch.no_grad():
        decoder, encoder = network.decoder.network.layers[0], network.encoder.network.layers[0]
        decoder.weight.copy_(loading[None, None]), decoder.bias.zero_()
        encoder.weight.zero_(), encoder.bias.zero_()
        encoder.weight[0, :, 0] = loading / noise**2 / precision
        encoder.bias[..., 1] = -0.5 * torch.log(precision)
        network.likelihood.noise.log.fill_(math.log(noise))
    x = torch.tensor([[0.4, -1.0], [2.0, 0.1], [0.0, 0.0]], dtype=torch.float64)
    empty = torch.zeros(3, 0)
    rows = Rows(x, None, empty.long(), empty.double(), 0)
    nodes = torch.tensor([-1.0, 1.0], dtype=torch.float64)  # two points integrate a quadratic in z exactly
    bounds = []
    network.requires_grad_(False)
    for node in nodes:
        terms = network.terms(rows, node.expand(1, 3, 1), 3, 3, 1.0)
        bounds.append(-(terms["reconstruction"] + terms["kl"]))
    covariance = torch.outer(loading, loading) + noise**2 * torch.eye(2)
    expected = multivariate_normal([0, 0], covariance.numpy()).logpdf(x.numpy()).mean()
    assert float(sum(bounds) / 2) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("prior", ["gaussian", "spline"])
@pytest.mark.parametrize("decoder", ["dense", "feature"])
def test_a_start_without_its_dropped_latents_is_the_same_model(prior, decoder):
    network = CGVAENetwork(CGVAEConfig(3, 5, 2, n_starts=2, spare=2, prior=prior, decoder=decoder, seed=4)).double()
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=source)
    rows = Rows(
        torch.randn(40, 5, generator=source).double(),
        None,
        torch.arange(40)[:, None] % 2,
        torch.zeros(40, 0).double(),
        n_design=2,
    )
    network.rearrange(rows, 40, 0.2, 0.3)
    assert bool((network.alive == 1).all())
    network.rearrange(rows, 40, 0.3, 0.36)
    assert network.alive.sum(2).flatten().tolist() == [3, 3]
    for start in range(2):
        kept = torch.nonzero(network.alive[start, 0]).flatten()
        single = network.single(start)
        wide, slim = network.encode(rows.x, None), single.encode(rows.x, None)
        torch.testing.assert_close(wide.mean[start][:, kept], slim.mean[0])
        torch.testing.assert_close(wide.std[start][:, kept], slim.std[0])
        noise = torch.randn(2, 40, 5, generator=source).double()
        one = noise[start : start + 1, :, kept]
        before = {name: value[start] for name, value in network.terms(rows, noise, 40, 16, 1.0).items()}
        after = {name: value[0] for name, value in single.terms(rows, one, 40, 16, 1.0).items()}
        for name in ("reconstruction", "kl", "sparsity"):
            torch.testing.assert_close(before[name], after[name])
        z = torch.zeros(1, 40, 5).double()
        z[..., kept] = torch.randn(1, 40, 3, generator=source).double()
        torch.testing.assert_close(
            network.prior(rows.design).log_prob(z.expand(2, -1, -1))[start][:, kept],
            single.prior(rows.design).log_prob(z[..., kept])[0],
        )
