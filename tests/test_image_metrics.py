"""Distances between sets of images against closed forms and plain loops."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from unmix import metrics
from unmix.metrics.images import squared_discrepancy


def exactly(rng, n, mean, covariance):
    """Rows whose sample mean and covariance are exactly these."""
    x = rng.standard_normal((n, len(mean)))
    x = x - x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return x @ np.linalg.cholesky(covariance).T + mean


def test_fid_of_gaussians_in_closed_form():
    rng = np.random.default_rng(15)
    a = exactly(rng, 300, np.zeros(3), np.diag([1.0, 4.0, 9.0]))
    b = exactly(rng, 400, np.array([1.0, 0.0, 2.0]), np.diag([4.0, 4.0, 1.0]))
    score = metrics.fid(a, b, extractor="pixels", n_bootstrap=30)
    assert score == pytest.approx(5.0 + 1.0 + 0.0 + 4.0)
    assert score.details["mean_part"] == pytest.approx(5.0)
    assert score.interval[0] < score < score.interval[1]
    assert score.chance < 0.3
    assert score.settings["extractor"] == "pixels"
    roots = rng.standard_normal((2, 5, 5))
    first, second = (root @ root.T + np.eye(5) for root in roots)
    x, y = exactly(rng, 100, np.zeros(5), first), exactly(rng, 100, np.zeros(5), second)
    expected = np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert metrics.fid(x, y, extractor="pixels", n_bootstrap=0) == pytest.approx(expected)
    few = rng.standard_normal((4, 10))
    assert metrics.fid(few, few, extractor="pixels", n_bootstrap=0) == pytest.approx(0.0, abs=1e-6)
    assert metrics.fid(few[:, 0], few[:, 0] + 1, extractor="pixels", n_bootstrap=0) == pytest.approx(1.0)


def test_kid_is_unbiased_and_equals_a_loop():
    rng = np.random.default_rng(16)
    a, b = rng.standard_normal((7, 3)), rng.standard_normal((5, 3)) + 1.0

    def kernel(x, y):
        return (x @ y / 3 + 1) ** 3

    def off_diagonal(x):
        return np.mean([kernel(p, q) for i, p in enumerate(x) for j, q in enumerate(x) if i != j])

    cross = np.mean([kernel(p, q) for p in a for q in b])
    assert squared_discrepancy(a, b) == pytest.approx(off_diagonal(a) + off_diagonal(b) - 2 * cross)
    same = [metrics.kid(*rng.standard_normal((2, 100, 3)), extractor="pixels", n_blocks=5) for _ in range(40)]
    assert np.mean(same) == pytest.approx(0.0, abs=4 * np.std(same) / np.sqrt(40))
    moved = metrics.kid(rng.standard_normal((400, 3)), rng.standard_normal((400, 3)) + 1.0, extractor="pixels")
    assert moved == pytest.approx(moved.details["blocks"].mean())
    assert moved.interval[0] > abs(moved.chance)


def test_dipd_of_pairs():
    rng = np.random.default_rng(17)
    a = rng.standard_normal((500, 4))
    step = rng.standard_normal((500, 4))
    score = metrics.dipd(a, a + 0.1 * step, extractor="pixels")
    assert score == pytest.approx(0.1 * np.linalg.norm(step, axis=1).mean())
    assert score.details["relative"] == pytest.approx(score / score.chance)
    assert score.interval[0] < score < score.interval[1] < score.chance


def test_the_extractor_must_be_named(normal):
    for metric in (metrics.fid, metrics.kid, metrics.dipd):
        with pytest.raises(TypeError, match="extractor"):
            metric(normal, normal)
