"""Distances between sets of images against closed forms and plain loops."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from unmix import metrics
from unmix.errors import DataError, DomainError
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


@pytest.fixture
def three_domains():
    """Two sets of three domains, of which the last is far off in the second."""
    rng = np.random.default_rng(18)
    real, made = rng.standard_normal((2, 300, 3))
    first, second = np.arange(300) % 3, np.repeat([10, 9, 2], 100)
    made[second == 10] += 2.0
    return real, made, np.array([2, 9, 10])[first], second.astype(str)


@pytest.mark.parametrize("metric", [metrics.fid, metrics.kid])
def test_by_domain_each_value_is_that_of_the_domain_alone(metric, three_domains):
    real, made, of_real, of_made = three_domains
    words = {"extractor": "pixels", **({"n_blocks": 1} if metric is metrics.kid else {})}
    score = metric(real, made, domains_real=of_real, domains_generated=of_made, **words)
    alone = [metric(real[of_real == u], made[of_made == str(u)], **words) for u in (2, 9, 10)]
    np.testing.assert_allclose(score.per_factor, alone)
    assert score == pytest.approx(np.mean(alone))
    assert score.to_frame()["domain"].tolist() == ["2", "9", "10"]
    assert score.details["n"] == [100, 100, 100]
    assert score.per_factor.argmax() == 2


def test_intervals_by_domain_are_drawn_within_domains(three_domains):
    real, made, of_real, of_made = three_domains
    words = {"domains_real": of_real, "domains_generated": of_made, "extractor": "pixels"}
    for score in (metrics.fid(real, made, n_bootstrap=60, **words), metrics.kid(real, made, n_blocks=10, **words)):
        frame = score.to_frame()
        assert (frame["low"] < frame["score"]).all()
        assert (frame["score"] < frame["high"]).all()
        assert score.interval[0] < score < score.interval[1]
        # The mean of independent domains varies less than the domain that varies most.
        assert np.diff(score.interval)[0] < (frame["high"] - frame["low"]).max()
        # Shuffled within domains, the first two keep nothing of the third's distance: the mean is below the value.
        assert score.chance < score


def test_dipd_by_domain():
    rng = np.random.default_rng(19)
    first, step, domains = rng.standard_normal((90, 3)), rng.standard_normal((90, 3)), np.arange(90) % 3 + 8
    second = first + step * np.array([0.1, 0.3, 0.9])[np.arange(90) % 3, None]
    score = metrics.dipd(first, second, extractor="pixels", domains=domains)
    alone = [metrics.dipd(first[domains == u], second[domains == u], extractor="pixels") for u in (8, 9, 10)]
    np.testing.assert_allclose(score.per_factor, alone)
    assert score == pytest.approx(np.mean(alone))
    assert score.details["relative"] == pytest.approx(score / score.chance)
    np.testing.assert_allclose(score.details["distances"], np.linalg.norm(first - second, axis=1))
    frame = score.to_frame()
    assert frame["domain"].tolist() == ["8", "9", "10"]
    assert frame["n"].tolist() == [30, 30, 30]
    assert ((frame["low"] < frame["score"]) & (frame["score"] < frame["high"])).all()
    # Drawn over all pairs together, the mean would vary with the numbers of each domain that a resample has.
    assert np.diff(score.interval)[0] < np.diff(metrics.dipd(first, second, extractor="pixels").interval)[0]
    with pytest.raises(DataError, match=r"domains must hold one label for each of 90 rows"):
        metrics.dipd(first, second, extractor="x", domains=[1])
    with pytest.raises(DataError, match=r"Domain 'a' has 1 pair; pass two or more"):
        metrics.dipd(first, second, extractor="x", domains=["a", *["b"] * 89])


def test_domains_of_both_sets_must_be_the_same(three_domains):
    real, made, of_real, of_made = three_domains
    for metric in (metrics.fid, metrics.kid):
        with pytest.raises(DomainError, match="Domains of one set only: pass domains_real and domains_generated"):
            metric(real, made, extractor="pixels", domains_real=of_real)
        with pytest.raises(DomainError, match=r"Domain '9' has 100 real and 0 generated images. Pass images of the"):
            metric(
                real,
                made,
                extractor="x",
                domains_real=of_real,
                domains_generated=np.where(of_made == "9", "2", of_made),
            )
        with pytest.raises(DataError, match=r"domains_real must hold one label for each of 300 rows"):
            metric(real, made, extractor="x", domains_real=[1], domains_generated=of_made)
        lone = np.array(["a", *["b"] * 299])
        with pytest.raises(DataError, match=r"Domain 'a' has 1 real and 1 generated images; pass two or more"):
            metric(real, made, extractor="x", domains_real=lone, domains_generated=lone)
    with pytest.raises(DataError, match=r"60 blocks needs two images of both sets of each domain; got 100 and 100"):
        metrics.kid(real, made, extractor="x", n_blocks=60, domains_real=of_real, domains_generated=of_made)
