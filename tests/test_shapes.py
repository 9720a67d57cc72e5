"""Latents that the domains leave free: the rotation by which they are least Gaussian, and when there is none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

import unmix
from unmix.data.batches import Rows
from unmix.metrics import mcc
from unmix.models.cgvae import CGVAEConfig, CGVAENetwork
from unmix.models.rotation import rotate_by_shape
from unmix.objectives import shapes
from unmix.objectives.shapes import negentropy, shape_rotation

Rng = np.random.Generator
Draw = Callable[[Rng, tuple[int, int]], np.ndarray]
SHAPES: dict[str, Draw] = {
    "uniform": lambda rng, size: rng.uniform(-1.7, 1.7, size),
    "Laplace": lambda rng, size: rng.laplace(0, 0.7, size),
    "skewed": lambda rng, size: rng.exponential(1, size),
    "two modes": lambda rng, size: rng.choice([-1.0, 1.0], size) + 0.3 * rng.standard_normal(size),
}
N_ROWS = 4_000


def some_domains(n_domains: int, n_rows: int = N_ROWS) -> np.ndarray:
    return np.eye(n_domains)[np.arange(n_rows) % n_domains]


def turned(z: np.ndarray, seed: int) -> np.ndarray:
    """By a rotation that mixes all latents: a random one after 45 degrees of every pair of neighbours."""
    n = z.shape[1]
    pairs = np.eye(n)
    for first in range(n - 1):
        own = np.eye(n)
        own[first : first + 2, first : first + 2] = np.array([[1, 1], [-1, 1]]) / 2**0.5
        pairs = pairs @ own
    return z @ pairs if n == 2 else z @ pairs @ stats.ortho_group(n, seed=seed).rvs()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (stats.norm, 0.0),
        (stats.uniform, 0.5 * np.log(2 * np.pi * np.e) - np.log(12**0.5)),
        (stats.laplace, 0.5 * np.log(2 * np.pi * np.e) - 1 - np.log(2**0.5)),
        (stats.expon, 0.5 * np.log(2 * np.pi * np.e) - 1),
    ],
)
def test_negentropy_is_that_of_the_formula(shape: stats.rv_continuous, expected: float) -> None:
    drawn = shape.rvs(size=(20, 10_000), random_state=0)
    values = (drawn - shape.mean()) / shape.std()
    assert negentropy(values).mean() == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("n_latents", "n_domains"), [(2, 1), (3, 2), (5, 4)])
def test_latents_that_change_alike_are_found_by_their_shape(shape: str, n_latents: int, n_domains: int) -> None:
    rng = np.random.default_rng(n_latents)
    member = some_domains(n_domains)
    z = SHAPES[shape](rng, (N_ROWS, n_latents))
    z = (z - z.mean(0)) * (member @ rng.uniform(0.5, 2.0, n_domains))[:, None]
    found = turned(z, n_latents)
    found = found + member @ rng.standard_normal((n_domains, n_latents))
    turn = shape_rotation(found, member, seed=0)
    assert turn is not None
    within = found - member @ (member.T @ found / member.sum(0)[:, None])
    assert mcc(z, within @ turn.T) > 0.99


@pytest.mark.parametrize("seed", range(5))
def test_normal_latents_stay(seed: int) -> None:
    z = np.random.default_rng(seed).standard_normal((N_ROWS, 4))
    assert shape_rotation(z, some_domains(3), seed) is None


@pytest.mark.parametrize("seed", range(3))
def test_what_domains_tell_goes_first(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents that depend on each other, less Gaussian if they are mixed, which domains change differently."""
    uniform = np.random.default_rng(seed).uniform(-1.7, 1.7, (N_ROWS, 2))
    member = some_domains(2)
    z = turned(uniform, seed) * (member @ np.exp([[0.15, -0.15], [-0.15, 0.15]]))
    assert shape_rotation(z, member, seed) is None
    monkeypatch.setattr(shapes, "_DOMAINS_FIRST", 1.0)
    turn = shape_rotation(z, member, seed)
    assert turn is not None
    assert mcc(z, z @ turn.T) < 0.8


def test_only_what_domains_leave_free_is_rotated() -> None:
    rng = np.random.default_rng(0)
    member = some_domains(4)
    z = rng.uniform(-1.7, 1.7, (N_ROWS, 4))
    z[:, 2:] *= member @ np.array([[0.3, 2.0], [1.0, 0.4], [2.0, 1.0], [0.6, 0.7]])
    found = np.column_stack([turned(z[:, :2], 1), z[:, 2:]])
    turn = shape_rotation(found, member, seed=0)
    assert turn is not None
    assert mcc(z, found @ turn.T) > 0.99
    assert np.abs(turn[2:, :2]).max() == np.abs(turn[:2, 2:]).max() == 0


@pytest.mark.parametrize("spoil", ["few rows", "not finite"])
def test_without_rows_enough_nothing_is_rotated(spoil: str) -> None:
    z = turned(np.random.default_rng(0).uniform(-1, 1, (N_ROWS, 2)), 0)
    if spoil == "few rows":
        z = z[:900]
    else:
        z[3, 1] = np.nan
    assert shape_rotation(z, some_domains(1, len(z)), 0) is None


def test_a_domain_without_rows_changes_nothing() -> None:
    z, member = turned(np.random.default_rng(0).uniform(-1, 1, (N_ROWS, 2)), 0), some_domains(2)
    turn = shape_rotation(z, np.column_stack([member, np.zeros(N_ROWS)]), 0)
    np.testing.assert_array_equal(turn, shape_rotation(z, member, 0))


def test_values_that_are_the_same_do_not_count_without_bound() -> None:
    """A density counts as 10 at most, where a standardised normal value has the entropy log √(2πe)."""
    bound = np.log(10 * (2 * np.pi * np.e) ** 0.5)
    assert negentropy(np.zeros(N_ROWS)) == pytest.approx(bound, abs=0.05)
    rng = np.random.default_rng(0)
    assert 1 < negentropy(rng.choice([-1.0, 1.0], N_ROWS)) < bound + 0.05
    assert shape_rotation(rng.uniform(-1.7, 1.7, (N_ROWS, 2)) * some_domains(2), some_domains(2), 0) is None


def test_a_rotation_by_shape_leaves_the_reconstruction_and_dropped_latents() -> None:
    rng = np.random.default_rng(0)
    z = rng.uniform(-1.7, 1.7, (N_ROWS, 2))
    codes = torch.arange(N_ROWS)[:, None] % 2
    mixing = np.array([[1.0, 0.6], [-0.8, 1.0], [0.5, 0.9]])
    rows = Rows(torch.from_numpy(z @ mixing.T).float(), None, codes, torch.zeros(N_ROWS, 0), 2)
    network = CGVAENetwork(
        CGVAEConfig(n_latents=2, n_features=3, n_design=2, n_starts=2, beginnings=("linear", "spare"), spare=1)
    )
    network.begin(rows, rows)
    with torch.no_grad():
        network.alive[:, 0, 2] = 0.0
        before, output = network.encode(rows.x, None).mean, network.decode(network.encode(rows.x, None).mean)
        rotate_by_shape(network, rows, network.alive[:, 0], seed=0)
        after = network.encode(rows.x, None).mean
        torch.testing.assert_close(network.decode(after), output, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(after[..., 2], before[..., 2])
        for start in range(2):
            assert mcc(z, after[start, :, :2].numpy()) > max(0.98, mcc(z, before[start, :, :2].numpy()))
            prior = network.prior(rows.design)
            spread = prior.from_noise(torch.ones(2, N_ROWS, 3)) - prior.from_noise(torch.zeros(2, N_ROWS, 3))
            own = after[start, :, :2].std(0)
            torch.testing.assert_close(spread[start, 0, :2], own, atol=0.05, rtol=0.1)


def test_a_fit_finds_latents_that_never_change_by_their_shape() -> None:
    rng = np.random.default_rng(0)
    z, domains = rng.uniform(-1, 1, (3_000, 3)), np.arange(3_000) % 3
    z[:, 2] = z[:, 2] * np.array([0.3, 1.0, 2.0])[domains] + np.array([-1.0, 0.0, 2.0])[domains]
    x = z @ rng.standard_normal((3, 6)) + 0.02 * rng.standard_normal((3_000, 6))
    model = unmix.CGVAE(n_latents=3, max_epochs=20, n_restarts=2, random_state=0, verbose=0).fit(x, domains)
    found = mcc(z, model.transform(x))
    assert found > 0.97, found
