"""Factors with heavy tails: Student's t as a prior, its bound without draws, and when ``prior="auto"`` takes it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import unmix
from unmix.distributions.prior import LocationScale, StudentPrior, StudentScale
from unmix.estimators.selection import HEAVY, heavy_tails
from unmix.nets.layers import generators
from unmix.objectives.elbo import gaussian_kl, student_kl, student_slope

DEGREES = (2.5, 3.0, 5.0, 10.0, 100.0)


def _standard(degrees: float) -> StudentScale:
    zero = torch.zeros(1, 1, 1, dtype=torch.float64)
    return StudentScale(LocationScale(zero, zero), torch.full_like(zero, 1.0 / degrees))


@pytest.mark.parametrize("degrees", DEGREES)
def test_the_map_to_a_normal_is_that_of_student(degrees: float) -> None:
    t = torch.linspace(-5.0, 5.0, 101, dtype=torch.float64)
    noise, _ = _standard(degrees).to_noise(t.reshape(1, -1, 1))
    exact = stats.norm.isf(stats.t.sf(t.numpy(), degrees))
    assert np.abs(noise.flatten().numpy() - exact).max() < (0.03 if degrees >= 3 else 0.04)


@pytest.mark.parametrize("degrees", DEGREES)
def test_the_density_is_that_of_student(degrees: float) -> None:
    t = torch.linspace(-20.0, 20.0, 401, dtype=torch.float64)
    log_prob = _standard(degrees).log_prob(t.reshape(1, -1, 1)).flatten().numpy()
    assert np.abs(log_prob - stats.t.logpdf(t.numpy(), degrees)).max() < 0.3
    middle = np.abs(t.numpy()) < 3
    assert np.abs(log_prob - stats.t.logpdf(t.numpy(), degrees))[middle].max() < 0.06


def test_maps_are_inverses_at_zero_and_far_out() -> None:
    t = torch.tensor([0.0, 1e-9, -1e-4, 0.02, -3.0, 40.0, -1e4], dtype=torch.float64).reshape(1, -1, 1)
    for degrees in DEGREES:
        own = _standard(degrees)
        torch.testing.assert_close(own.from_noise(own.to_noise(t)[0]), t)


def _q(seed: int) -> tuple[torch.Tensor, ...]:
    source = torch.Generator().manual_seed(seed)
    mean, log_diagonal = torch.randn(2, 2, 5, 3, generator=source, dtype=torch.float64)
    lower = torch.randn(2, 5, 3, 3, generator=source, dtype=torch.float64).tril(-1)
    location, log_scale = torch.randn(2, 2, 5, 3, generator=source, dtype=torch.float64) * 0.5
    return 3.0 * mean, log_diagonal - 0.5, lower, location, log_scale


def test_without_tails_the_divergence_is_that_of_a_normal() -> None:
    words = _q(0)
    close = student_kl(*words, torch.tensor(1e-9, dtype=torch.float64))
    torch.testing.assert_close(close, gaussian_kl(*words), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("degrees", DEGREES)
def test_the_divergence_without_draws_is_never_below_that_of_draws(degrees: float) -> None:
    """Jensen's inequality keeps the bound a bound; where q is narrow it is nearly the divergence itself."""
    mean, log_diagonal, lower, location, log_scale = _q(1)
    inverse = torch.tensor(1.0 / degrees, dtype=torch.float64)
    for narrow in (0.0, 4.0):
        d, c = log_diagonal - narrow, lower
        prior = StudentScale(LocationScale(location, log_scale), inverse)
        factor = d.exp()[..., None] * (torch.eye(3) + c)
        noise = torch.randn(5_000, 2, 5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        z = mean + torch.einsum("sbij,nsbj->nsbi", factor, noise)
        drawn = prior.kl(mean, d, c, mean), torch.stack([super(StudentScale, prior).kl(mean, d, c, own) for own in z])
        error = drawn[1].std(0) / len(z) ** 0.5
        assert (drawn[0] >= drawn[1].mean(0) - 4.0 * error).all()
        if narrow:
            assert (drawn[0] <= drawn[1].mean(0) + 4.0 * error + 0.02).all()


@pytest.mark.parametrize("degrees", DEGREES)
def test_the_negative_density_is_concave_in_the_square(degrees: float) -> None:
    squares = torch.linspace(0.0, 500.0, 20_001, dtype=torch.float64)
    ratio, log_slope = student_slope(squares, torch.tensor(1.0 / degrees, dtype=torch.float64))
    values = 0.5 * squares * ratio.square() - log_slope
    assert (values.diff() > 0).all()
    assert (values.diff(n=2) < 1e-12).all()


def test_derivatives_of_the_divergence_are_those_of_finite_differences() -> None:
    mean, log_diagonal, lower, location, log_scale = (value.detach().requires_grad_() for value in _q(3))
    inverse = torch.tensor([0.3, 0.1, 0.01], dtype=torch.float64, requires_grad=True)
    words = mean, log_diagonal, lower, location, log_scale, inverse
    assert torch.autograd.gradcheck(lambda m, d, c, *prior: student_kl(m, d, c.tril(-1), *prior), words)


def test_the_prior_has_the_variance_that_it_is_given() -> None:
    prior = StudentPrior(generators(0, 2), 2, 3, 0.0).double()
    with torch.no_grad():
        prior.log_degrees.fill_(np.log(5.0))
    mean = torch.tensor([[1.0, -2.0], [0.0, 3.0], [0.5, 0.5]], dtype=torch.float64)
    std = torch.tensor([[0.2, 1.0], [3.0, 0.5], [1.0, 1.0]], dtype=torch.float64)
    prior.set_moments(0, torch.eye(3, dtype=torch.float64), torch.full((3,), 1e5, dtype=torch.float64), mean, std)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((200_000, 1, 1, 1)))
    drawn = prior(torch.eye(3, dtype=torch.float64)).from_noise(noise)[:, 0]
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.std(0) / std, torch.ones_like(std), atol=0.03, rtol=0)


def _table(degrees: float | None, n_rows: int = 3_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    domains = np.arange(n_rows) % 3
    z = rng.standard_normal((n_rows, 3)) if degrees is None else rng.standard_t(degrees, (n_rows, 3))
    z = z * np.array([[1.0, 2.0, 0.5], [2.0, 0.5, 1.0], [0.5, 1.0, 2.0]])[domains]
    weights = rng.standard_normal((3, 6)) * (rng.random((3, 6)) < 0.7)
    return z @ weights + 0.1 * rng.standard_normal((n_rows, 6)), z, domains


def test_tails_are_those_within_domains() -> None:
    z, domains = _table(None)[1:]
    # Scales that change between domains make heavy tails of the whole column, but none within a domain.
    assert stats.kurtosis(z, axis=0).min() > 1.0
    assert heavy_tails(z, domains) < 0.005
    heavy = _table(3.0)[1]
    assert heavy_tails(heavy, domains) > HEAVY
    assert heavy_tails(heavy * np.array([1.0, 1e-6, 1e6]) + 7.0, domains) == pytest.approx(heavy_tails(heavy, domains))
    assert heavy_tails(heavy[:150], domains[:150]) == 0.0
    assert heavy_tails(heavy, np.arange(len(heavy)) // 9) == 0.0
    assert heavy_tails(np.zeros((300, 2)), np.zeros(300, dtype=int)) == pytest.approx(0.0, abs=0.1)


@pytest.fixture(scope="module")
def heavy() -> tuple[unmix.CGVAE, np.ndarray, np.ndarray]:
    x, _, domains = _table(3.0, n_rows=1_200)
    return unmix.CGVAE(3, max_epochs=90, n_restarts=1, verbose=0).fit(x, domains), x, domains


@pytest.mark.slow
def test_auto_takes_student_where_tails_are_heavy_and_only_there(heavy) -> None:
    x, _, domains = _table(None, n_rows=1_200)
    words = {"max_epochs": 90, "n_restarts": 1, "verbose": 0}
    assert heavy[0].prior_ == "student"
    assert unmix.CGVAE(3, **words).fit(x, domains).prior_ == "gaussian"
    assert unmix.CGVAE(3, prior="gaussian", **words).fit(heavy[1], heavy[2]).prior_ == "gaussian"


@pytest.mark.slow
def test_the_choice_survives_storage_continuation_and_a_new_domain(heavy, tmp_path) -> None:
    model, x, domains = heavy
    again = unmix.load(model.save(tmp_path / "model"))
    assert again.prior_ == "student"
    assert again.get_params()["prior"] == "auto"
    np.testing.assert_array_equal(again.transform(x), model.transform(x))
    np.testing.assert_array_equal(again.sample(5, domain=1), model.sample(5, domain=1))
    assert "The prior of the latents is Student's t" in (again.report(tmp_path / "page.html")).read_text()
    own = x[domains == 1][:9]
    np.testing.assert_allclose(again.translate(own, [1] * 9, to=[1] * 9), own, atol=1e-4)
    added = model.adapt(x[domains == 0][:60], domain="new")
    assert added.prior_ == "student"
    again.set_params(warm_start=True, max_epochs=2)
    assert again.fit(x, domains).prior_ == "student"


@pytest.mark.slow
def test_a_square_mixing_of_heavy_tails_is_found_with_their_own_prior() -> None:
    rng, domains = np.random.default_rng(2), np.arange(4_000) % 6
    z = rng.standard_t(3, (4_000, 4)) * rng.uniform(0.4, 2.5, (6, 4))[domains]
    x = z @ rng.standard_normal((4, 4))
    found = unmix.CGVAE(4, verbose=0).fit(x, domains)
    assert found.prior_ == "student"
    assert unmix.metrics.mcc(z, found.transform(x)) > 0.99
    degrees = 1.0 / found.model_.inner.domain_prior.inverse_degrees.detach().numpy()
    assert ((degrees > 2.5) & (degrees < 8.0)).all()
