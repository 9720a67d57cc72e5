"""Networks against oracles: automatic differentiation, numerical integration, another library's spline."""

import weakref

import pytest
import torch
import zuko

from unmix.distributions.prior import GaussianPrior, SplinePrior, StudentPrior, rational_quadratic
from unmix.nets import jacobian as tangents
from unmix.nets.decoder import DenseDecoder, FeatureDecoder, MaskedDecoder
from unmix.nets.encoder import Encoder
from unmix.nets.layers import StackedMLP, generators
from unmix.objectives.elbo import gaussian_negentropy

DECODERS = {
    "dense": lambda sources: DenseDecoder(sources, 3, (7, 6), 5),
    "one layer": lambda sources: DenseDecoder(sources, 3, (), 5),
    "leaky": lambda sources: DenseDecoder(sources, 3, (7, 6), 5, "leaky_relu"),
    "feature": lambda sources: FeatureDecoder(sources, 3, 4, 5),
    "masked": lambda sources: _masked(MaskedDecoder(sources, 3, (7, 6), 5)),
    "masked, one layer, leaky": lambda sources: _masked(MaskedDecoder(sources, 3, (7,), 5, "leaky_relu")),
}
PRIORS = {"gaussian": GaussianPrior, "student": StudentPrior, "spline": SplinePrior}


def _masked(decoder):
    """Weights that are not all 1."""
    with torch.no_grad():
        decoder.mask.copy_(torch.randn(decoder.mask.shape, generator=torch.Generator().manual_seed(2)))
    return decoder


@pytest.mark.slow
@pytest.mark.parametrize("form", DECODERS)
def test_jacobian_and_its_gradient_equal_autograd(form):
    decoder = DECODERS[form](generators(0, 2)).double()
    z = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    output, jacobian = decoder.with_jacobian(z, 4)
    torch.testing.assert_close(output, decoder(z))
    expected = torch.stack(
        [
            torch.stack(
                [
                    torch.autograd.functional.jacobian(
                        lambda row, s=s, b=b: decoder(_put(z, s, b, row))[s, b], z[s, b], create_graph=True
                    ).T
                    for b in range(4)
                ]
            )
            for s in range(2)
        ]
    )
    torch.testing.assert_close(jacobian, expected)
    parameters = list(decoder.parameters())
    for share in (0.0, 1.0):
        ours, theirs = (
            torch.autograd.grad(
                j.abs().sum() + share * x.square().sum(), parameters, retain_graph=True, materialize_grads=True
            )
            for x, j in ((output, jacobian), (decoder(z), expected))
        )
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("activation", ["silu", "leaky_relu"])
def test_passes_that_share_memory_do_not_disturb_each_other(activation):
    decoder = DenseDecoder(generators(0, 1), 3, (7, 6), 5, activation)
    parameters = [value for name, value in decoder.named_parameters() if name != "network.layers.2.bias"]
    first, second = torch.randn(2, 1, 6, 3, generator=torch.Generator().manual_seed(1))

    def gradient(of):
        return torch.autograd.grad(of.square().sum(), parameters, retain_graph=True)

    alone = [gradient(decoder.with_jacobian(z, 4)[1]) for z in (first, second)]
    jacobians = [decoder.with_jacobian(z, 4)[1] for z in (first, second)]
    for order in ((0, 1), (1, 0)):
        for which in order:
            for mine, expected in zip(gradient(jacobians[which]), alone[which], strict=True):
                assert torch.equal(mine, expected)


def test_passes_one_after_another_use_the_same_memory():
    decoder = DenseDecoder(generators(0, 1), 3, (7, 6), 5)
    addresses = []
    for _ in range(3):
        torch.autograd.grad(decoder.with_jacobian(torch.randn(1, 6, 3), 4)[1].sum(), decoder.network.layers[0].weight)
        ((memory,),) = tangents._FREE[decoder.network].values()
        addresses.append({name: tensor.data_ptr() for name, tensor in memory.items()})
    assert len(addresses[0]) == 2 * 4 - 1
    assert addresses[0] == addresses[1] == addresses[2]


def test_jacobian_differentiates_by_z_where_the_weights_are_fixed():
    decoder = DenseDecoder(generators(0, 1), 3, (7, 6), 5).double().requires_grad_(False)
    z = torch.randn(1, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda own: decoder.with_jacobian(own, 4), (z,))
    assert not decoder.with_jacobian(z.detach(), 4)[1].requires_grad


def test_jacobian_in_mixed_precision_is_that_of_full_precision():
    decoder = DenseDecoder(generators(0, 1), 3, (7, 6), 5)
    z = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = decoder.with_jacobian(z, 4)
    for ours, expected in zip(mixed, decoder.with_jacobian(z, 4), strict=True):
        assert torch.equal(ours, expected)


def _put(z, start, row, value):
    z = z.clone()
    z[start, row] = value
    return z


def test_a_start_does_not_depend_on_its_neighbours():
    alone, together = StackedMLP(generators(5, 1), 3, (4,), 2), StackedMLP(generators(5, 3), 3, (4,), 2)
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(alone(x)[0], together(x)[0])
    assert not torch.allclose(together(x)[0], together(x)[1])


def test_group_norm_is_zero_exactly_where_a_feature_ignores_a_latent():
    decoder = FeatureDecoder(generators(0, 1), 2, 4, 3)
    with torch.no_grad():
        decoder.inner[0, 1, 4:8] = 0.0
    norms = decoder.group_norms()[0].detach()
    _, jacobian = decoder.with_jacobian(torch.randn(1, 9, 2), 9)
    assert norms[1, 1].item() == pytest.approx(1e-6)
    assert torch.equal(jacobian[0, :, 1, 1], torch.zeros(9))
    assert norms.flatten().sort().values[1] > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("form", PRIORS)
@pytest.mark.parametrize("interactions", [False, True])
def test_prior_integrates_to_one_and_inverts(form, interactions):
    prior = _random_prior(form, interactions)
    design = torch.tensor([[1.0, 0.0, 0.3], [0.0, 1.0, -1.2]], dtype=torch.float64)
    grid = torch.linspace(-60, 60, 60_001, dtype=torch.float64)
    for row in design:
        distribution = prior(row.expand(len(grid), -1))
        density = distribution.log_prob(grid[None, :, None].expand(2, -1, 3)).exp()
        total = torch.trapezoid(density, grid, dim=1)
        torch.testing.assert_close(total, torch.ones_like(total), atol=2e-4, rtol=0)
    distribution = prior(design)
    z = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    noise, _ = distribution.to_noise(z)
    torch.testing.assert_close(distribution.from_noise(noise), z)


@pytest.mark.parametrize("form", PRIORS)
def test_log_slope_is_the_logarithm_of_the_derivative(form):
    distribution = _random_prior(form, False)(torch.tensor([[0.0, 1.0, 0.5]], dtype=torch.float64))
    z = torch.randn(2, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    noise, log_slope = distribution.to_noise(z)
    (slope,) = torch.autograd.grad(noise.sum(), z)
    torch.testing.assert_close(slope.log(), log_slope)


def test_spline_equals_zukos():
    source = torch.Generator().manual_seed(4)
    widths, heights = (torch.randn(20, 8, dtype=torch.float64, generator=source) for _ in range(2))
    slopes = torch.randn(20, 7, dtype=torch.float64, generator=source)
    theirs = zuko.transforms.MonotonicRQSTransform(widths, heights, slopes, bound=4.0)
    x, y, d = theirs.horizontal, theirs.vertical, theirs.derivatives
    value = torch.linspace(-5, 5, 20, dtype=torch.float64)
    expected, expected_slope = theirs.call_and_ladj(value)
    result, log_slope = rational_quadratic(value, x, y, d, inverse=False)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(log_slope, expected_slope)
    back, back_slope = rational_quadratic(expected, x, y, d, inverse=True)
    torch.testing.assert_close(back, value)
    torch.testing.assert_close(back_slope, -expected_slope)


def _random_prior(form, interactions):
    prior = PRIORS[form](generators(1, 2), 3, 3, interactions).double()
    source = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += 0.25 * torch.randn(parameter.shape, generator=source, dtype=torch.float64)
    return prior


def test_posterior_samples_have_the_covariance_of_the_cholesky_factor():
    encoder = Encoder(generators(0, 2), 4, (5,), 3, masked=False).double()
    with torch.no_grad():
        encoder.network.layers[-1].bias[..., 6:] = torch.tensor([0.8, -0.5, 1.5])
    x = torch.randn(1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    posterior = encoder(x, None)
    factor = posterior.diagonal[1, 0].diag() @ (torch.eye(3) + posterior.lower[1, 0])
    assert torch.equal(factor, factor.tril())
    noise = torch.randn(2, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = posterior.mean[1] + noise[1] @ factor.T
    torch.testing.assert_close(posterior.sample(noise)[1], expected)
    covariance = factor @ factor.T
    torch.testing.assert_close(posterior.std[1, 0], covariance.diagonal().sqrt())
    exact = torch.distributions.MultivariateNormal(posterior.mean[1, 0], covariance)
    torch.testing.assert_close(gaussian_negentropy(posterior.log_diagonal)[1, 0].sum(), -exact.entropy())


@pytest.mark.parametrize("activation", ["silu", "leaky_relu"])
def test_a_pass_with_its_jacobian_is_given_back_when_it_is_over(activation):
    """A function that holds its own outputs is never free, and each step of a training would add to the memory."""
    network = StackedMLP(generators(0, 2), 3, (8, 8), 4, activation=activation)
    z = torch.randn(2, 5, 3, requires_grad=True)
    passes = (
        lambda: tangents.with_slope(activation, 1.0 * z, 2),
        lambda: tangents.mlp_with_jacobian(network, z, 2),
    )
    for outputs_of in passes:
        outputs = outputs_of()
        node = weakref.ref(outputs[0].grad_fn)
        sum(own.square().sum() for own in outputs).backward()
        del outputs
        assert node() is None
