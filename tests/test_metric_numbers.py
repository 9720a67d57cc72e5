"""Numbers that metrics meet: masks, tiny, huge and shifted columns, copies, columns that do not vary."""

import warnings

import numpy as np
import pytest
from metric_calls import LONE, QUICK, arguments, quick

from unmix import metrics
from unmix.errors import DataError, DomainError, MetricWarning, SettingError

PUBLIC = sorted(set(metrics.__all__) - {"Score"})
BRIEF = {"dci": {"regressor": "lasso", "n_bootstrap": 2}}
LEAST = {"r2": -np.inf, "explicitness": -1.0}

MAPS = {
    "shifted by 1e14": lambda a: a + 1e14,
    "times 1e-300": lambda a: a * 1e-300,
    "subnormal": lambda a: a * 1e-318,
    "near the end of float64": lambda a: a * (-1.79e308 / np.abs(a).max()),
    "each column otherwise": lambda a: a * [1e-300, 1.0, 1e300] + [0.0, 1e12, 0.0],
}


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((500, 3))
    return z, z @ [[1.0, 0.3, 0.0], [0.0, 1.0, 0.2], [0.1, 0.0, 1.0]] + 0.3 * rng.standard_normal(z.shape)


def test_every_metric_is_tried():
    assert set(PUBLIC) == set(QUICK) | set(LONE)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("change", MAPS)
def test_neither_scale_nor_shift_changes_a_score(name, change, pair):
    z, w = pair
    # A shift by 1e14 leaves steps of 1/64, which reorder what a tree or a quantile sees.
    reach = 0.02 if change == "shifted by 1e14" else 1e-3
    settings = {"n_bootstrap": 2, **BRIEF.get(name, {})}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = quick(name, z, w, **settings)
        for first, second in ((MAPS[change](z), w), (z, MAPS[change](w))):
            score = quick(name, first, second, **settings)
            assert score == pytest.approx(float(expected), abs=reach)
            assert LEAST.get(name, 0.0) <= score.interval[0] <= score.interval[1] <= 1.0
            assert score <= 1.0
            assert np.isfinite(score.chance)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("change", [*MAPS, "none"])
def test_latents_that_are_the_factors_correlate_fully_and_never_more(change, method, pair):
    z = pair[0]
    for seed in range(5):
        score = metrics.mcc(
            z, MAPS[change](z) if change in MAPS else z, method=method, random_state=seed, n_bootstrap=5
        )
        assert 1.0 - 1e-4 < score <= 1.0
        assert score.per_factor.max() <= 1.0
        assert np.abs(score.details["matrix"]).max() <= 1.0
        assert score.interval[1] <= 1.0


def test_a_correlation_loses_only_the_digits_that_the_numbers_lost(pair):
    z = pair[0]
    for shift in (1e10, 1e12, 1e13, 1e15):
        # The same numbers, shifted back: exact, as all of them are near one another.
        kept = (z + shift) - shift
        assert metrics.mcc(z, z + shift, n_bootstrap=0) == pytest.approx(float(metrics.mcc(z, kept, n_bootstrap=0)))
    assert metrics.mcc(z, z + 1e18, n_bootstrap=0) == 0.0


@pytest.mark.parametrize("name", ["nonlinear_mcc", "mig", "modularity", "mcc"])
def test_ranks_survive_any_increasing_curve(name, pair):
    z, w = pair
    settings = {"n_bootstrap": 2, **({"method": "spearman"} if name == "mcc" else {})}
    for curve in (lambda a: np.exp(150 * a), lambda a: np.sinh(100 * a)):
        assert quick(name, z, curve(w), **settings) == pytest.approx(float(quick(name, z, w, **settings)), abs=5e-3)


def test_udr_compares_the_latents_of_a_run_in_one_unit(pair):
    z, w = pair
    expected = metrics.udr([z, w], n_bootstrap=2)
    for change in set(MAPS) - {"each column otherwise"}:
        assert metrics.udr([z, MAPS[change](w)], n_bootstrap=2) == pytest.approx(float(expected), abs=1e-3)
    faint = w * [1.0, 1e-3, 1.0]
    for scale in (1.0, 1e-300, 1e300):
        assert metrics.udr([z, faint * scale], n_bootstrap=0).details["informative"][1].tolist() == [True, False, True]


def test_distances_of_features_do_not_change_with_a_common_shift(pair):
    x, y = pair
    for metric in (metrics.fid, metrics.dipd):
        plain, moved = (metric(x + far, y + far, extractor="pixels", n_bootstrap=2) for far in (0.0, 1e12))
        assert moved == pytest.approx(float(plain), rel=1e-3)
    with pytest.warns(MetricWarning, match="less than a millionth of their size.*centre them first"):
        metrics.kid(x + 1e9, y + 1e9, extractor="pixels", n_bootstrap=2)
    for metric in (metrics.fid, metrics.kid, metrics.dipd):
        for scale in (1e-30, 1e30, 1e300):
            with pytest.raises(DataError, match=r"largest feature must lie between 1e-24 and 1e\+24.*Multiply both"):
                metric(scale * x, scale * y, extractor="pixels")
        assert metric(0 * x, 0 * x, extractor="pixels") == 0.0


def test_a_mixing_of_any_size_has_its_support(pair):
    support = pair[0][:40] > 0.3
    for scale in (5e-324, 1e-300, 1e300, [1e-310, 1.0, 1e308]):
        score = metrics.support_recovery(support, np.where(support, -1.0, 0.0) * scale, n_bootstrap=2)
        assert score == score.details["auroc"] == 1.0


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("kind", ["continuous", "classes"])
def test_constant_latents_score_what_nothing_scores(name, kind, pair, classes):
    z = pair[0] if kind == "continuous" else classes[:500]
    settings = {"n_bootstrap": 2, **BRIEF.get(name, {})}
    if kind == "classes" and name in ("dci", "mig", "sap", "modularity", "explicitness", "factor_vae_score", "irs"):
        settings["discrete"] = True
    for value in (0.0, 0.1, -1e300):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MetricWarning)
            score = quick(name, z, np.full(z.shape, value), **settings)
        assert -0.05 < score <= 0.0, value
        assert np.isfinite(score.interval).all()
        assert -0.05 < score.chance <= 0.0


@pytest.mark.parametrize("name", QUICK)
def test_columns_that_vary_by_rounding_are_constant(name, pair):
    z, w = pair
    steps = np.random.default_rng(1).integers(0, 2, len(z))
    almost = np.where(steps, 0.3, np.nextafter(0.3, 1.0))
    settings = {**BRIEF.get(name, {}), "n_bootstrap": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MetricWarning)
        columns = (np.full(len(z), 0.3), almost)
        dead, rounded = (quick(name, np.column_stack([z, a]), w, **settings) for a in columns)
        idle, noisy = (quick(name, z, np.column_stack([w, a]), **settings) for a in columns)
    np.testing.assert_allclose(rounded.per_factor, dead.per_factor)
    np.testing.assert_allclose(noisy.per_factor, idle.per_factor, atol=0.01)


def test_a_latent_that_only_names_the_domain_says_nothing_within(pair):
    z = pair[0]
    domain = np.arange(len(z)) % 7
    score = metrics.mcc(z, np.column_stack([0.1 * domain, z[:, 1:]]), domains=domain, n_bootstrap=0)
    found = score.details["within_domain"][score.details["assignment"] == 0]
    assert found.max() == 0.0


@pytest.mark.parametrize("seed", [2, 4])
def test_importances_are_never_negative(seed):
    """With these seeds a forest rounds the importance of a copy to -1e-18."""
    z = np.random.default_rng(seed).integers(1, 6, (300, 4)).astype(float)
    score = metrics.dci(z, np.hstack([z, z, z]), regressor="forest", n_bootstrap=2)
    assert (score.details["importances"] >= 0).all()
    assert 0.9 < score <= 1.0
    assert 0.0 <= score.details["completeness"] <= 1.0
    assert np.isfinite(score.interval).all()


# Masks


def masked(values):
    return np.ma.masked_array(values, mask=np.arange(np.size(values)).reshape(np.shape(values)) % 5 == 0)


ARRAYS = sorted(
    {
        (name, word)
        for name in PUBLIC
        for word, value in arguments(name, np.zeros((4, 3))).items()
        if not isinstance(value, str | int)
    }
)


@pytest.mark.parametrize(("name", "word"), ARRAYS)
@pytest.mark.filterwarnings("ignore::unmix.errors.MetricWarning")
def test_a_masked_entry_is_never_taken_for_a_value(name, word, pair):
    known = arguments(name, pair[0][:40])
    value = known[word]
    several = isinstance(value, list)
    hidden = (
        [[value[0], masked(value[1])], masked(np.array(value))] if several else [masked(value), list(masked(value))]
    )
    for given in hidden:
        with pytest.raises((DataError, DomainError, SettingError), match=r"mask|missing"):
            getattr(metrics, name)(**{**known, word: given})
    bare = [np.ma.masked_array(own) for own in value] if several else np.ma.masked_array(value)
    expected, found = (getattr(metrics, name)(**{**known, word: given}) for given in (value, bare))
    assert float(found) == float(expected)


def test_labels_in_a_list_keep_what_they_are():
    with pytest.raises(DataError, match=r"predicted has missing values .*first in rows \[3\]"):
        metrics.content_accuracy(["a", "b", "a", float("nan")], ["a", "b", "a", "a"])
    assert metrics.content_accuracy([1.0, "a", 2], ["1", "a", 2.0], n_bootstrap=0) == 1.0


def test_whole_numbers_are_numbers_and_what_overflows_is_refused(pair):
    z = np.random.default_rng(3).integers(-9, 9, (200, 2))
    for w in (z.astype(np.int8), z.astype(np.uint64), z.astype(object), (z > 0)):
        assert 0.0 <= metrics.mcc(z, w, n_bootstrap=0) <= 1.0
    with pytest.raises(DataError, match=r"z_hat must hold numbers only.*too large"):
        metrics.mcc(z, [[10**400, 1]] * 200)
    with pytest.raises(DataError, match="z_hat holds values that are not finite"):
        metrics.mcc(z, np.full(z.shape, np.longdouble("1e4000")))
    with pytest.raises(DataError, match="kl must hold one number per latent for every run; some are not finite"):
        metrics.udr([pair[0]] * 2, kl=[[1.0, np.nan, 1.0]] * 2)
