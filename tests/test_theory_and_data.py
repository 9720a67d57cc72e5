"""Domain counts against an oracle, generated data against their own truth, MCC against known numbers."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from unmix import datasets, metrics
from unmix.errors import DataError, SettingError
from unmix.theory import domains_needed

CASES = json.loads((Path(__file__).parent / "domain_counts.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_domain_counts_equal_the_oracle(case):
    support = np.zeros((len(case["parents"]), case["n_latents"]), dtype=int)
    for feature, parents in enumerate(case["parents"]):
        support[feature, parents] = 1
    count = domains_needed(support)
    assert [sorted(free) for free in count.free_sets] == case["free_sets"]
    assert all(count.pairs[a, b] == needed for a, b, needed in case["pairs"])
    assert count.needed == case["domains_needed"]


@pytest.mark.parametrize(("support", "message"), [([1, 0], "0/1 matrix of shape"), ([[0.5, 1]], "0 and 1 only")])
def test_a_support_that_is_none(support, message):
    with pytest.raises(SettingError, match=message):
        domains_needed(support)


@pytest.mark.parametrize("change", ["mean", "scale", "both", "shape"])
def test_generated_data_carry_their_own_truth(change):
    data = datasets.make_sparse_mixing(n_samples=6000, change=change, random_state=4)
    np.testing.assert_allclose(data.mixing(data.z).std(axis=0), 1.0)
    step = 1e-6
    numeric = np.stack(
        [(data.mixing(data.z[:5] + e) - data.mixing(data.z[:5] - e)) / (2 * step) for e in step * np.eye(4)],
        axis=2,
    )
    np.testing.assert_allclose(data.jacobian[:5], numeric, atol=1e-7)
    assert ((np.abs(data.jacobian).max(axis=0) > 0) == data.support).all()
    groups = [data.z[data.domains == u] for u in range(4)]
    means, stds = np.stack([g.mean(0) for g in groups]), np.stack([g.std(0) for g in groups])
    assert (np.ptp(means, axis=0).max() > 0.3) == (change in ("mean", "both"))
    assert (np.ptp(stds, axis=0).max() > 0.3) == (change in ("scale", "both"))
    if change == "shape":
        skewness = np.stack([((g - g.mean(0)) ** 3).mean(0) for g in groups])
        assert np.ptp(skewness, axis=0).max() > 0.5


def test_generator_repeats_and_guarantees():
    first, again = (datasets.make_sparse_mixing(guaranteed=True, n_domains=3, random_state=9) for _ in range(2))
    np.testing.assert_array_equal(first.x, again.x)
    assert first.domains_needed <= 3
    assert first.domains_needed == domains_needed(first.support).needed
    other = datasets.make_sparse_mixing(guaranteed=True, n_domains=3, random_state=10)
    assert not np.array_equal(first.x, other.x)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_features": 3}, "n_features ≥ n_latents"),
        ({"density": 0.0}, "0 < density ≤ 1"),
        ({"change": "colour"}, "change must be one of"),
        ({"density": 1.0, "guaranteed": True, "n_domains": 2}, "needs at most 2 domains"),
    ],
)
def test_generator_refuses(wrong, message):
    with pytest.raises(SettingError, match=message):
        datasets.make_sparse_mixing(**{"n_samples": 100, **wrong})


def test_sachs_is_what_it_says():
    data = datasets.load_sachs()
    assert data.x.shape == (7466, 11)
    assert np.isfinite(data.x).all()
    assert len(set(data.domains)) == 9
    assert set(data.targets) <= set(data.domains.tolist())
    assert {name for wanted in data.targets.values() for name in wanted} <= set(data.feature_names)
    np.testing.assert_allclose(np.expm1(data.x), datasets.load_sachs(log=False).x, rtol=1e-6)
    folder = Path(datasets.__file__).parent / "files"
    assert "Science 308" in (folder / "sachs.md").read_text()


@pytest.fixture(scope="module")
def normal():
    return np.random.default_rng(0).standard_normal((4000, 3))


@pytest.mark.slow
def test_mcc_of_known_cases(normal):
    permuted = metrics.mcc(normal, normal[:, [2, 0, 1]] * [-3.0, 0.1, 1.0])
    assert permuted == pytest.approx(1.0)
    assert permuted.details["assignment"].tolist() == [1, 2, 0]
    assert permuted.details["signs"].tolist() == [1.0, 1.0, -1.0]
    turn = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
    assert metrics.mcc(normal[:, :2], normal[:, :2] @ turn) == pytest.approx(0.7071, abs=0.02)
    curved = np.exp(normal)
    assert metrics.mcc(normal, curved, method="spearman") == pytest.approx(1.0)
    assert metrics.mcc(normal, curved) == pytest.approx(0.7629, abs=0.04)
    assert metrics.mcc(normal, normal**2, method="spearman") < 0.06


def test_mcc_traps(normal):
    half = metrics.mcc(normal, normal[:, :2])
    assert half == pytest.approx(2 / 3)
    assert half.per_factor.tolist().count(0.0) == 1
    dead = np.column_stack([normal, np.ones(len(normal))])
    assert metrics.mcc(normal, dead) == pytest.approx(1.0)
    assert metrics.mcc(normal[:, 0], normal[:, 0]) == pytest.approx(1.0)
    domain = np.random.default_rng(1).integers(2, size=4000)
    shared = 4.0 * domain - 2.0
    noise = np.random.default_rng(2).standard_normal((4000, 2))
    pooled = metrics.mcc(shared + noise[:, 0], shared + noise[:, 1], domains=domain)
    assert pooled == pytest.approx(0.8, abs=0.03)
    assert pooled.details["within_domain"][0] < 0.06


def test_mcc_reports_chance_and_an_interval(normal):
    noisy = normal + np.random.default_rng(3).standard_normal(normal.shape)
    score = metrics.mcc(normal, noisy)
    assert score.interval[0] < score < score.interval[1]
    assert score.chance < 0.06
    assert list(score.to_frame().columns) == ["factor", "score", "assignment", "signs"]
    copy = pickle.loads(pickle.dumps(score))
    assert copy == score
    assert copy.interval == score.interval


def test_mcc_refuses(normal):
    with pytest.raises(DataError, match="same rows, at least 4"):
        metrics.mcc(normal, normal[:10])
    with pytest.raises(DataError, match="not finite"):
        metrics.mcc(normal, normal * np.nan)
    with pytest.raises(DataError, match="must be a matrix"):
        metrics.mcc(normal[None], normal)
    with pytest.raises(SettingError, match="method must be"):
        metrics.mcc(normal, normal, method="kendall")
