"""The linear map that domains and sparsity ask for: its objective, its search, and what it leaves as it was."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from unmix.data.batches import Rows
from unmix.distributions.prior import GaussianPrior, SplinePrior
from unmix.models import rotation
from unmix.models.cgvae import CGVAEConfig, CGVAENetwork
from unmix.models.rotation import rotate_latents, strata
from unmix.nets.layers import generators
from unmix.objectives.rotation import Count, Moments, SmoothL1, best_map, rotation_objective

COUNT_SCALE = 0.02


def moments(mixing, scales, *, shares=None, seed=0):
    """Latents with standard deviations ``scales`` (domains, latents), seen through the linear ``mixing`` of them.

    What the network holds is ``z = M s`` for true latents s; ``features`` depend on s through a sparse matrix.
    """
    rng = np.random.default_rng(seed)
    within = np.stack([mixing @ np.diag(scale**2) @ mixing.T for scale in np.asarray(scales)])
    shares = np.full(len(within), 1 / len(within)) if shares is None else np.asarray(shares)
    sparse = np.array([[1.0, 0, 0], [0, 0.8, 0], [0, 0, 1.2], [0.7, 0.5, 0], [0, 0.6, 0.9], [0.4, 0, 0.8]])
    gains = 1 + 0.3 * rng.random((40, 1, 1))
    jacobian = np.swapaxes(gains * sparse @ np.linalg.inv(mixing), 1, 2)
    total = np.einsum("u,uij->ij", shares, within)
    return Moments(*(torch.from_numpy(np.ascontiguousarray(part)) for part in (within, shares, total, jacobian)))


def by_hand(turn, given, cost):
    """F from its definition, entry by entry, in numpy."""
    turn = np.asarray(turn)
    within, shares, total, jacobian = (
        np.asarray(part) for part in (given.within, given.shares, given.total, given.jacobian)
    )
    divergence = -math.log(abs(np.linalg.det(turn)))
    for share, covariance in zip(shares, within, strict=True):
        for row in turn:
            divergence += 0.5 * share * math.log(row @ covariance @ row)
    back = np.linalg.inv(turn)
    count = 0.0
    for new, feature in itertools.product(range(len(turn)), range(jacobian.shape[2])):
        slopes = [abs(back[:, new] @ one[:, feature]) for one in jacobian]
        entry = np.mean(slopes) * math.sqrt(turn[new] @ total @ turn[new])
        count += math.log(1 + entry / COUNT_SCALE) / math.log(1 + 1 / COUNT_SCALE)
    return divergence + cost * count


MIXING = np.array([[1.0, 0.7, -0.4], [-0.5, 1.0, 0.6], [0.3, -0.8, 1.0]])
EQUAL = np.ones((1, 3))
CHANGING = np.array([[1.0, 0.5, 2.0], [0.4, 1.5, 1.0], [2.0, 1.0, 0.5]])


@pytest.mark.parametrize("cost", [0.0, 0.3])
def test_the_objective_is_what_its_formula_says(cost):
    given = moments(MIXING, CHANGING, shares=[0.5, 0.3, 0.2])
    turns = np.random.default_rng(1).normal(size=(4, 3, 3))
    found, _ = rotation_objective(torch.from_numpy(turns), given, cost)
    np.testing.assert_allclose(found, [by_hand(turn, given, cost) for turn in turns], rtol=1e-10)


@pytest.mark.parametrize("cost", [0.0, 0.3])
@pytest.mark.parametrize("penalty", [Count(), SmoothL1(0.1)])
def test_the_derivative_of_the_objective_is_that_of_finite_differences(cost, penalty):
    given = moments(MIXING, CHANGING, shares=[0.5, 0.3, 0.2])
    turns = torch.from_numpy(np.random.default_rng(1).normal(size=(4, 3, 3)))
    step = 1e-6 * torch.eye(9, dtype=torch.float64).view(9, 1, 3, 3)
    ahead, behind = (
        torch.stack([rotation_objective(turns + sign * own, given, cost, penalty)[0] for own in step], dim=1)
        for sign in (1, -1)
    )
    found = rotation_objective(turns, given, cost, penalty)[1]
    torch.testing.assert_close(found, ((ahead - behind) / 2e-6).view(4, 3, 3), rtol=1e-6, atol=1e-7)


def test_the_objective_sees_neither_scale_nor_sign_nor_order():
    given = moments(MIXING, CHANGING)
    turn = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 3, 3)))
    other = torch.tensor([3.0, -0.2, 1.0], dtype=torch.float64)[:, None] * turn[:, [2, 0, 1]]
    torch.testing.assert_close(rotation_objective(turn, given, 0.3)[0], rotation_objective(other, given, 0.3)[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scales", "cost", "found"),
    [(CHANGING, 0.0, True), (CHANGING, 0.01, True), (EQUAL, 0.01, True), (EQUAL, 0.0, False)],
    ids=["changes only", "both", "sparsity only", "neither"],
)
def test_the_true_latents_are_found_where_changes_or_sparsity_determine_them(scales, cost, found):
    turn = best_map(moments(MIXING, scales), cost, seed=0)
    if not found:
        assert turn is None or not _one_to_one(turn.numpy() @ MIXING)
        return
    assert turn is not None
    assert _one_to_one(turn.numpy() @ MIXING)


def _one_to_one(product):
    size = np.abs(product) / np.abs(product).max(axis=1, keepdims=True)
    return bool(((size > 0.05).sum(axis=1) == 1).all())


def test_latents_that_are_right_already_stay():
    assert best_map(moments(np.eye(3), CHANGING), 0.01, seed=0) is None


def test_the_new_latents_keep_the_places_and_signs_of_those_they_resemble():
    slightly = np.eye(3) + 0.2 * MIXING
    turn = best_map(moments(slightly, CHANGING), 0.01, seed=0)
    assert turn is not None
    resemblance = turn.numpy() @ slightly
    assert (np.abs(resemblance).argmax(axis=1) == range(3)).all()
    assert (resemblance.diagonal() > 0).all()


def some_rows(n_domains=3, n=600, seed=0):
    source = torch.Generator().manual_seed(seed)
    codes = torch.arange(n)[:, None] % 3
    z = torch.randn(n, 3, generator=source) * torch.from_numpy(CHANGING).float()[codes[:, 0]]
    x = torch.tanh(z @ torch.randn(3, 6, generator=source))
    x = (x - x.mean(0)) / x.std(0)
    return Rows(x, None, codes if n_domains else codes[:, :0], torch.zeros(n, 0), n_domains)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decoder", "prior", "n_domains"),
    [("dense", "gaussian", 3), ("feature", "gaussian", 3), ("dense", "spline", 3), ("dense", "gaussian", 0)],
)
def test_turning_changes_no_reconstruction_and_no_dropped_latent(decoder, prior, n_domains):
    network = CGVAENetwork(CGVAEConfig(3, 6, n_domains, n_starts=2, spare=1, decoder=decoder, prior=prior, seed=4))
    rows = some_rows(n_domains)
    with torch.no_grad():
        network.alive[0, 0, 1] = 0.0
        network.alive[1, 0, 3] = 0.0
        before = network.encode(rows.x, None)
        decoded = network.decode(before.mean)
        rotate_latents(network, rows, network.alive[:, 0], 0.001, seed=0)
        after = network.encode(rows.x, None)
        torch.testing.assert_close(network.decode(after.mean), decoded, rtol=1e-3, atol=1e-4)
        assert (after.mean[0, :, 1] == 0).all()
        for start in range(2):
            kept = torch.nonzero(network.alive[start, 0]).flatten()
            old, new = before.mean[start][:, kept].double(), after.mean[start][:, kept].double()
            assert not torch.allclose(old, new, atol=1e-2)
            turn = torch.linalg.lstsq(old - old.mean(0), new - new.mean(0)).solution.T
            wanted = turn @ before.factor[start][:, kept][..., kept].double()
            wanted = wanted @ wanted.transpose(1, 2)
            found = after.factor[start][:, kept][..., kept].double()
            found = found @ found.transpose(1, 2)
            assert ((found - wanted).norm() / wanted.norm()) < 0.05


def test_the_prior_after_a_turn_has_the_moments_of_the_latents():
    network = CGVAENetwork(CGVAEConfig(3, 6, 3, n_starts=1, spare=0, seed=4))
    rows = some_rows()
    with torch.no_grad():
        rotate_latents(network, rows, network.alive[:, 0], 0.001, seed=0)
        posterior = network.encode(rows.x, None)
        prior = network.prior(rows.design)
        for domain in range(3):
            own = rows.codes[:, 0] == domain
            variance = posterior.mean[0, own].var(0, correction=0) + posterior.std[0, own].square().mean(0)
            torch.testing.assert_close(
                prior.from_noise(torch.zeros(1, 600, 3))[0, own][0],
                posterior.mean[0, own].mean(0),
                atol=0.02,
                rtol=0.02,
            )
            spread = (prior.from_noise(torch.ones(1, 600, 3)) - prior.from_noise(torch.zeros(1, 600, 3)))[0, own][0]
            torch.testing.assert_close(spread, variance.sqrt(), atol=0.02, rtol=0.05)


@pytest.mark.parametrize("kind", [GaussianPrior, SplinePrior])
def test_moments_given_to_a_prior_are_the_moments_it_has(kind):
    prior = kind(generators(0, 2), 2, 3, True)
    with torch.no_grad():
        prior.effects.normal_(generator=torch.Generator().manual_seed(0))
    untouched = [value[1].clone() for value in prior.state_dict().values()]
    mean = torch.tensor([[1.0, -2.0], [0.0, 3.0], [0.5, 0.5]])
    std = torch.tensor([[0.2, 1.0], [3.0, 0.5], [1.0, 1.0]])
    prior.set_moments(0, torch.eye(3), torch.full((3,), 1e5), mean, std)
    given = prior(torch.eye(3))
    torch.testing.assert_close(given.from_noise(torch.zeros(2, 3, 2))[0], mean, atol=1e-3, rtol=1e-3)
    high = given.from_noise(torch.ones(2, 3, 2))[0]
    torch.testing.assert_close(high - mean, std, atol=1e-3, rtol=1e-3)
    assert all(torch.equal(a, b[1]) for a, b in zip(untouched, prior.state_dict().values(), strict=True))


def test_strata_cut_continuous_columns_and_leave_out_small_groups():
    codes = torch.tensor([0] * 100 + [1] * 100 + [2] * 5)[:, None]
    rows = Rows(torch.zeros(205, 2), None, codes, torch.zeros(205, 0), 3)
    weights, design, counts = strata(rows)
    assert counts.tolist() == [100, 100]
    torch.testing.assert_close(design, torch.eye(3)[:2])
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    values = torch.linspace(-1, 1, 200)[:, None]
    rows = Rows(torch.zeros(200, 2), None, torch.zeros(200, 0, dtype=torch.long), values, 1)
    _, design, counts = strata(rows)
    assert counts.tolist() == [50, 50, 50, 50]
    assert (design[:, 0].diff() > 0).all()
    rows = Rows(torch.zeros(30, 2), None, torch.zeros(30, 0, dtype=torch.long), torch.zeros(30, 0), 0)
    _, design, counts = strata(rows)
    assert counts.tolist() == [30]
    assert design.shape == (1, 0)


def spread_of(values: np.ndarray, largest_part: float, width: float = 0.0) -> np.ndarray:
    """Scatter of posterior means ``values`` (rows, latents), whose posteriors are ``width`` wide."""
    n_rows, n_latents = values.shape
    factor = width * torch.eye(n_latents).expand(n_rows, -1, -1)
    return rotation._scatter(torch.from_numpy(values).float(), factor, torch.arange(n_latents), largest_part).numpy()


@pytest.mark.parametrize("seed", range(3))
def test_the_scatter_of_one_latent_is_the_likeliest_of_students_t(seed: int) -> None:
    values = np.random.default_rng(seed).standard_t(3, 60) * 2 + 1
    scale = stats.t.fit(values, fdf=6)[2]
    np.testing.assert_allclose(spread_of(values[:, None], 0.1), [[scale**2]], rtol=1e-3)


def test_the_scatter_of_many_normal_rows_is_their_covariance() -> None:
    values = np.random.default_rng(0).normal(size=(20_000, 3)) @ MIXING.T
    covariance = np.cov(values.T, bias=True)
    np.testing.assert_allclose(spread_of(values, 0.1), covariance, atol=0.01 * covariance.max())


def test_a_row_far_out_hardly_moves_the_scatter() -> None:
    values = np.random.default_rng(0).normal(size=(40, 2))
    before = spread_of(values, 0.1)
    values[0] = 1_000.0, 1_000.0
    after = spread_of(values, 0.1)
    assert np.abs(after - before).max() < 0.6
    assert np.abs(np.cov(values.T, bias=True) - before).max() > 1e4


def test_the_scatter_adds_the_posteriors_part() -> None:
    values = np.random.default_rng(0).normal(size=(40, 2))
    found = spread_of(values, 0.1, width=0.3)
    np.testing.assert_allclose(found - spread_of(values, 0.1), 0.09 * np.eye(2), atol=1e-6)


def test_the_scatter_takes_a_latent_that_does_not_vary() -> None:
    values = np.random.default_rng(0).normal(size=(40, 2))
    values[:, 1] = 0.5
    found = spread_of(values, 0.1, width=0.3)
    np.testing.assert_allclose(found[:, 1], [0.0, 0.09], atol=1e-6)
    assert 0.5 < (found[0, 0] - 0.09) / values[:, 0].var() < 1.5


def turned_by_a_wild_row(largest_part: float, wild: bool) -> np.ndarray:
    """Loadings of a linear network of two latents after the turn, each column of length 1."""
    rng = np.random.default_rng(0)
    scales = np.array([[1.0, 0.3], [0.3, 1.0], [1.0, 1.0]])
    codes = np.repeat(np.arange(3), 40)
    x = rng.normal(size=(120, 2)) * scales[codes] @ rng.normal(size=(2, 6)) + 0.05 * rng.normal(size=(120, 6))
    x = (x - x.mean(0)) / x.std(0)
    _, _, basis = np.linalg.svd(x)
    if wild:
        x[0] += 12.0 * basis[:2].sum(0)
    rows = Rows(torch.from_numpy(x).float(), None, torch.from_numpy(codes)[:, None], torch.zeros(120, 0), 3)
    network = CGVAENetwork(CGVAEConfig(2, 6, 3, n_starts=1, spare=0, seed=4))
    path = torch.from_numpy(basis[:2]).float()
    with torch.no_grad():
        network.encoder.set_linear(0, path.T, torch.eye(2) * 0.05)
        network.decoder.set_linear(0, path)
        words = {"linear": [0], "penalty": SmoothL1(0.1), "largest_part": largest_part}
        rotate_latents(network, rows, network.alive[:, 0], 0.01, 0, **words)
        loadings = network.decode_with_jacobian(torch.zeros(1, 1, 2), 1)[1][0, 0].double().numpy()
    return loadings / np.linalg.norm(loadings, axis=1, keepdims=True)


def test_one_wild_row_does_not_turn_a_linear_model() -> None:
    def moved(largest_part: float) -> float:
        before, after = (turned_by_a_wild_row(largest_part, wild) for wild in (False, True))
        return float(1 - np.abs(before @ after.T).max(1).min())

    assert moved(0.1) < 0.001
    assert moved(math.inf) > 0.02


def test_rows_with_a_singular_covariance_are_left_out():
    network = CGVAENetwork(CGVAEConfig(3, 6, 3, n_starts=1, spare=0, seed=4))
    rows, turn = some_rows(), torch.from_numpy(MIXING).float()
    with torch.no_grad():
        posterior = network.encode(rows.x, None)
        below, factor = network.encoder.below_last(rows.x, None)[0], posterior.factor[0].clone()
        factor[:300, 0] = factor[:300, 1]
        network.encoder.turn(0, turn, below, factor)
        turned = network.encode(rows.x, None)
        assert bool(torch.isfinite(turned.factor).all())
        torch.testing.assert_close(turned.mean[0], posterior.mean[0] @ turn.T, rtol=1e-3, atol=1e-4)
        before = turned.factor.clone()
        network.encoder.turn(0, torch.eye(3), below, torch.zeros_like(factor))
        torch.testing.assert_close(network.encode(rows.x, None).factor, before)


def test_a_singular_candidate_does_not_end_the_search():
    turns = torch.stack([torch.eye(3), torch.zeros(3, 3)]).double()
    found, _ = rotation_objective(turns, moments(MIXING, CHANGING), 0.01)
    assert torch.isfinite(found).tolist() == [True, False]


def test_of_many_features_the_search_sees_some_and_counts_for_all(monkeypatch):
    monkeypatch.setattr(rotation, "NUMBERS", 16 * 3 * 32 * 2)
    seen = []
    monkeypatch.setattr(rotation, "best_map", lambda moments, cost, *_: seen.append((moments.jacobian, cost)))
    network, rows = CGVAENetwork(CGVAEConfig(3, 6, 3, n_starts=1, spare=0, seed=4)), some_rows()
    with torch.no_grad():
        rotate_latents(network, rows, network.alive[:, 0], 0.5, seed=0)
        z = network.encode(rows.x, None).mean[:, ::19]
        whole = network.decode_with_jacobian(z, 32)[1][0].double()
    ((jacobian, cost),) = seen
    taken = torch.randperm(6, generator=torch.Generator().manual_seed(0))[:2].sort()[0]
    torch.testing.assert_close(jacobian, whole[..., taken])
    assert cost == 0.5 * 6 / 2
