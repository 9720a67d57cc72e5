"""Metrics against known answers, independent computations (scikit-learn, scipy, plain loops), traps and messages."""

import warnings

import numpy as np
import pytest
from metric_calls import QUICK, TAKES_CLASSES, quick
from scipy.stats import entropy, spearmanr
from sklearn.linear_model import LinearRegression
from sklearn.metrics import balanced_accuracy_score, mutual_info_score, r2_score, roc_auc_score

from unmix import metrics
from unmix.errors import MetricWarning
from unmix.metrics.importance import disentanglement
from unmix.metrics.information import bins, information
from unmix.metrics.prediction import area_under_curve, threshold_scores
from unmix.metrics.regression import line_fit, r2_of, spline_fit

TURN = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)


# The table of known answers


@pytest.mark.slow
def test_signed_permutation_is_perfect(normal):
    w = normal[:, [2, 0, 1]] * [-3.0, 0.1, 1.0]
    assert metrics.mcc(normal, w) == pytest.approx(1.0)
    assert quick("nonlinear_mcc", normal, w) > 0.999
    assert quick("r2", normal, w) == pytest.approx(1.0)
    assert quick("r2", normal, w, kind="nonlinear") > 0.99
    for name in ("forest", "boosting", "lasso"):
        score = quick("dci", normal, w, regressor=name, n_bootstrap=0)
        assert score > 0.99
        assert score.details["completeness"] > 0.99
        assert score.details["informativeness"] > 0.97
    assert quick("mig", normal, w) > 0.99
    assert quick("sap", normal, w) > 0.99
    assert quick("modularity", normal, w) > 0.999
    assert quick("factor_vae_score", normal, w) == 1.0
    assert quick("beta_vae_score", normal, w) > 0.99
    assert quick("irs", normal, w) > 0.85


@pytest.mark.slow
def test_rotation_is_recovered_as_a_block(normal):
    z = normal[:, :2]
    w = z @ TURN
    assert metrics.mcc(z, w) == pytest.approx(0.7071, abs=0.02)
    assert quick("nonlinear_mcc", z, w) == pytest.approx(0.7071, abs=0.03)
    assert quick("r2", z, w) == pytest.approx(1.0)
    assert quick("r2", z, w, kind="nonlinear") > 0.97
    scores = quick("dci", z, w, regressor=("forest", "lasso")).details["by_regressor"]
    assert set(scores) == {"forest", "lasso"}
    assert all(score["disentanglement"] < 0.03 for score in scores.values())
    assert quick("mig", z, w) < 0.02
    assert quick("sap", z, w) < 0.03
    assert quick("modularity", z, w) < 0.2
    assert quick("irs", z, w) < 0.45


def test_exponential(normal):
    w = np.exp(normal)
    assert metrics.mcc(normal, w, method="spearman") == pytest.approx(1.0)
    assert metrics.mcc(normal, w) == pytest.approx(0.7629, abs=0.04)
    assert quick("nonlinear_mcc", normal, w) > 0.999
    assert quick("nonlinear_mcc", normal, w) == pytest.approx(float(quick("nonlinear_mcc", normal, normal)))


def test_square_goes_one_way(normal):
    w = normal**2
    assert metrics.mcc(normal, w, method="spearman") < 0.06
    for kind in ("linear", "nonlinear"):
        assert quick("r2", normal, w, kind=kind) == pytest.approx(0.0, abs=0.05)
    assert quick("r2", w, normal, kind="nonlinear") > 0.93
    assert quick("nonlinear_mcc", normal, w) < 0.1
    assert quick("nonlinear_mcc", w, normal) > 0.99


def test_shared_domain_means_inflate_the_pooled_value():
    rng = np.random.default_rng(2)
    domain = rng.integers(2, size=8000)
    z, w = (4.0 * domain - 2.0 + rng.standard_normal(8000) for _ in range(2))
    score = metrics.mcc(z, w, domains=domain)
    assert score == pytest.approx(0.8, abs=0.02)
    assert score.details["within_domain"][0] < 0.05


@pytest.mark.parametrize("name", ["mig", "sap"])
def test_a_copy_closes_the_gap(name, normal, classes):
    for z, discrete in ((normal, False), (classes, True)):
        score = quick(name, z, z[:, [0, 0, 1, 2]], discrete=discrete)
        assert score.per_factor[0] == 0.0
        assert (score.per_factor[1:] > 0.98).all()


@pytest.mark.slow
def test_a_dead_latent_changes_nothing(normal):
    dead = np.column_stack([normal[:, :1], np.full(len(normal), 0.3), normal[:, 1:]])
    for name in QUICK:
        with_dead, without = (quick(name, normal, w, n_bootstrap=0) for w in (dead, normal))
        assert with_dead == pytest.approx(float(without), abs=2e-3), name
        assert np.isfinite(with_dead.per_factor).all()
    score = quick("dci", normal, dead, n_bootstrap=0)
    assert np.isnan(score.details["per_latent"][1])
    assert (score.details["importances"][1] == 0).all()
    assert (quick("factor_vae_score", normal, dead).details["votes"][:, 1] == 0).all()
    assert np.isnan(quick("irs", normal, dead).details["per_latent"][1])


# Cases without an answer: a finite value or a typed warning


def absent_class():
    z = np.zeros((40, 2))
    z[:, 0], z[7, 1] = np.arange(40) % 3, 1.0
    return z


EDGES = {
    "constant factor": (lambda r: np.column_stack([r.standard_normal(60), np.ones(60)]), 2),
    "only constant factors": (lambda r: np.ones((60, 2)), 2),
    "one factor": (lambda r: r.standard_normal((60, 1)), 3),
    "one latent": (lambda r: r.standard_normal((60, 3)), 1),
    "one of each": (lambda r: r.standard_normal((60, 1)), 1),
    "fewer latents": (lambda r: r.standard_normal((60, 3)), 2),
    "fewer rows than bins": (lambda r: r.standard_normal((12, 2)), 2),
    "four rows": (lambda r: r.standard_normal((4, 2)), 2),
    "absent class": (lambda r: absent_class(), 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize(("discrete", "dead"), [(False, False), (True, False), (True, True)])
def test_edges_give_a_finite_value_or_a_typed_warning(name, edge, discrete, dead):
    discrete = discrete and name in TAKES_CLASSES
    make, n_latents = EDGES[edge]
    rng = np.random.default_rng(3)
    z = make(rng)
    w = np.zeros((len(z), n_latents)) if dead else rng.standard_normal((len(z), n_latents)) + z[:, :1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        score = quick(name, z, w, n_bootstrap=2 * (name != "dci"), **({"discrete": True} if discrete else {}))
    assert {warning.category for warning in caught} <= {MetricWarning}
    assert all(warning.filename == quick.__code__.co_filename for warning in caught)
    assert np.isfinite(score) or caught
    assert len(score.per_factor) == z.shape[1]
    assert len(score.to_frame()) == z.shape[1]


@pytest.mark.slow
def test_warnings_say_what_was_left_out(normal):
    z = np.column_stack([normal, np.ones(len(normal))])
    for name in set(QUICK) - {"mcc", "nonlinear_mcc"}:
        with pytest.warns(MetricWarning, match=r"Constant factors \[3\] are left out"):
            score = quick(name, z, normal, n_bootstrap=0)
        assert np.isnan(score.per_factor[3])
        assert score == pytest.approx(float(quick(name, normal, normal, n_bootstrap=0)), abs=0.02)
    for name in ("mcc", "nonlinear_mcc"):
        assert quick(name, z, normal) == pytest.approx(0.75, abs=0.01)
    with pytest.warns(MetricWarning, match="With one varying factor every latent counts as disentangled"):
        assert quick("dci", normal[:, :1], normal) == pytest.approx(1.0)
    with pytest.warns(MetricWarning, match="With one latent every factor counts as complete"):
        quick("dci", normal, normal[:, :1])
    with pytest.warns(MetricWarning, match="with one factor it is 1 for every latent"):
        assert quick("modularity", normal[:, :1], normal) == 1.0
    with pytest.warns(MetricWarning, match="Every latent is constant: modularity is 0"):
        quick("modularity", normal, 0 * normal)
    with pytest.warns(MetricWarning, match="Every latent is constant: the score is 0"):
        quick("irs", normal, 0 * normal)
    with pytest.warns(MetricWarning, match=r"100 rows for 400 pairs of bins.*Use fewer bins"):
        quick("mig", normal[:100], normal[:100])
    with pytest.warns(MetricWarning, match=r"lacks classes of factors \[1\].*Pass more rows"):
        quick("explicitness", absent_class(), absent_class(), discrete=True)
    with pytest.warns(MetricWarning, match=r"1 usable factor\(s\) and 3 latent\(s\) that vary"):
        assert quick("factor_vae_score", normal[:, :1], normal) == 1.0
    with pytest.warns(MetricWarning, match=r"Discrete factors \[0, 2\] have more classes than half the rows \(60\)"):
        quick("sap", normal[:60], normal[:60], discrete=[0, 2])
    unique = np.column_stack([np.arange(4000.0), normal[:, 0], normal[:, 1]])
    with (
        pytest.warns(MetricWarning, match=r"Factors \[0\] never repeat a value"),
        pytest.warns(MetricWarning, match="more classes than half the rows"),
    ):
        quick("factor_vae_score", unique, normal, discrete=[0])


# Oracles


def test_r2_equals_scikit_learn(normal):
    rng = np.random.default_rng(4)
    w = normal @ rng.standard_normal((3, 2)) + 5.0
    predicted = LinearRegression().fit(w, normal).predict(w)
    counts = rng.integers(4, size=(2, len(normal))).astype(float)
    ours = r2_of(normal, predicted, counts)
    for row, weights in enumerate(counts):
        theirs = r2_score(normal, predicted, sample_weight=weights, multioutput="raw_values")
        np.testing.assert_allclose(ours[row], theirs, atol=1e-12)
    lines = line_fit(w, normal)(w)
    for j in range(2):
        expected = LinearRegression().fit(w[:, j : j + 1], normal).predict(w[:, j : j + 1])
        np.testing.assert_allclose(lines[:, :, j], expected, atol=1e-12)


def test_r2_is_held_out_and_not_clipped():
    rng = np.random.default_rng(5)
    z, w = rng.standard_normal((200, 1)), rng.standard_normal((200, 64))
    assert LinearRegression().fit(w, z).score(w, z) == pytest.approx(0.31, abs=0.1)
    assert metrics.r2(z, w) < -0.2


def test_splines_ignore_increasing_maps(normal):
    fit, new = normal[:2000], normal[2000:]
    targets = np.sin(2 * fit)
    plain, curved = spline_fit(fit, targets)(new), spline_fit(fit**3 + fit, targets)(new**3 + new)
    assert np.abs(plain - curved).mean() < 1e-3
    assert r2_of(np.sin(2 * new), np.stack([plain[:, k, k] for k in range(3)], axis=1)).min() > 0.98


def test_information_equals_scikit_learn(normal, classes):
    w = normal + classes
    codes, latents = classes.astype(int), bins(w, 10)
    assert all(np.bincount(column).tolist() == [400] * 10 for column in latents.T)
    ours, entropies = information(codes, latents)
    theirs = [[mutual_info_score(a, b) for b in latents.T] for a in codes.T]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    np.testing.assert_allclose(entropies, [entropy(np.bincount(a)) for a in codes.T])
    plain = metrics.mig(classes, w, discrete=True, n_bins=10, n_permutations=0, n_bootstrap=0)
    ordered = np.sort(theirs, axis=1)
    np.testing.assert_allclose(plain.per_factor, (ordered[:, -1] - ordered[:, -2]) / entropies, atol=1e-9)
    best = np.max(theirs, axis=0)
    rest = (np.array(theirs) ** 2).sum(axis=0) - best**2
    score = metrics.modularity(classes, w, discrete=True, n_bins=10, n_bootstrap=0)
    assert score == pytest.approx((1 - rest / (2 * best**2)).mean())


def test_information_of_noise_is_corrected(normal):
    noise = np.random.default_rng(6).standard_normal((4000, 3))
    plain, corrected = (metrics.mig(normal, noise, n_permutations=n, n_bootstrap=0) for n in (0, 20))
    expected = 19 * 19 / (2 * 4000)
    assert plain.details["information"].mean() == pytest.approx(expected, rel=0.1)
    assert corrected.details["information"].mean() < expected / 10


def test_area_equals_scikit_learn():
    rng = np.random.default_rng(7)
    score, positive = rng.integers(9, size=300).astype(float), rng.random(300) < 0.3
    counts = rng.integers(3, size=(3, 300)).astype(float)
    theirs = [roc_auc_score(positive, score, sample_weight=row) for row in counts]
    np.testing.assert_allclose(area_under_curve(score, positive, counts), theirs)
    assert np.isnan(area_under_curve(score, np.zeros(300, dtype=bool), counts)).all()


def test_threshold_score_is_rescaled_balanced_accuracy(classes):
    rng = np.random.default_rng(8)
    codes = (classes[:, 0] > 2).astype(int)
    w = (codes + 0.7 * rng.standard_normal(4000))[:, None]
    fitted, scored = np.arange(2000), np.arange(2000, 4000)
    ours = threshold_scores(w, codes, fitted, scored, np.ones((1, 2000)))[0, 0]
    by_hand = max(balanced_accuracy_score(codes[scored], w[scored, 0] > t) for t in np.linspace(-1, 2, 61))
    assert ours == pytest.approx(2 * by_hand - 1, abs=0.03)


def test_disentanglement_equals_entropies():
    importances = np.random.default_rng(9).random((5, 3)) ** 3
    importances[2] = 0.0
    values, weights = disentanglement(importances)
    for j in (0, 1, 3, 4):
        assert values[j] == pytest.approx(1 - entropy(importances[j]) / np.log(3))
    assert np.isnan(values[2])
    assert weights[2] == 0.0
    assert weights.sum() == pytest.approx(1.0)


def test_dci_parts_add_up(normal, classes):
    z = np.column_stack([normal[:, :2], classes[:, 0]])
    w = np.column_stack([z[:, 0] + 0.5 * z[:, 1], z[:, 1], z[:, 2] + 0.1 * normal[:, 2], normal[:, 2]])
    score = quick("dci", z, w, discrete=[2], regressor=("lasso", "forest"))
    values, weights = disentanglement(score.details["importances"])
    assert score == pytest.approx((values * weights).sum())
    totals = score.details["importances"].sum(axis=0)
    assert score == pytest.approx((score.per_factor * totals).sum() / totals.sum())
    completeness = disentanglement(score.details["importances"].T)[0]
    np.testing.assert_allclose(score.details["completeness_per_factor"], completeness)
    assert score.per_factor.argmax() == 2
    assert score.details["informativeness_per_factor"][2] > 0.95
    assert float(score) == score.details["by_regressor"]["lasso"]["disentanglement"]
    assert quick("dci", z, w, discrete=[2], regressor="boosting", n_bootstrap=0).per_factor.argmax() == 2


def test_irs_equals_a_loop(classes):
    w = classes + 0.3 * np.random.default_rng(10).standard_normal(classes.shape)
    w = (w - w.mean(axis=0)) / w.std(axis=0)
    expected = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            column = w[:, j]
            parts = [column[classes[:, i] == v] for v in range(4)]
            worst = [np.quantile(abs(part - part.mean()), 0.99) for part in parts]
            expected[i, j] = 1 - np.mean(worst) / np.quantile(abs(column - column.mean()), 0.99)
    score = metrics.irs(classes, w, discrete=True, n_bootstrap=0)
    np.testing.assert_allclose(score.details["matrix"], expected.clip(0, 1))
    assert score.details["factor"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_the_chance_of_mcc_is_what_it_gives_for_unrelated_latents(method):
    z, w = np.random.default_rng(5).standard_normal((2, 60, 4))
    many = [metrics.mcc(z, w, method=method, n_bootstrap=0, random_state=seed) for seed in range(60)]
    error = 4 * np.std([score.chance for score in many]) / 60**0.5
    unrelated = [
        metrics.mcc(np.random.default_rng(seed).permutation(z), w, method=method, n_bootstrap=0) for seed in range(60)
    ]
    assert np.mean([score.chance for score in many]) == pytest.approx(np.mean(unrelated), abs=2 * error)


@pytest.mark.parametrize("name", ["factor_vae_score", "beta_vae_score"])
def test_group_scores_fall_as_latents_mix(name, classes):
    noise = np.random.default_rng(11).standard_normal(classes.shape)
    values = [quick(name, classes, classes + level * noise, discrete=True) for level in (0.1, 4.0, 1000.0)]
    assert values[0] == pytest.approx(1.0, abs=0.01)
    assert values[0] > values[1] > values[2]
    assert values[2] == pytest.approx(1 / 3, abs=0.12)
    assert values[0].chance == pytest.approx(1 / 3, abs=0.12)


def test_udr_equals_a_loop(normal):
    rng = np.random.default_rng(12)
    second = np.column_stack(
        [normal[:, 1] + 0.5 * normal[:, 0], -normal[:, 0], rng.standard_normal(4000), normal[:, 2]]
    )
    score = metrics.udr([normal, second], n_bootstrap=20, random_state=1)
    scored = np.random.default_rng(1).permutation(4000)[2000:]
    strength = abs(spearmanr(normal[scored], second[scored]).statistic[:3, 3:])
    pairs = [(0, 1), (1, 0), (2, 3)]
    total = sum(strength[a, b] ** 2 * (1 / strength[a].sum() + 1 / strength[:, b].sum()) for a, b in pairs)
    assert score == pytest.approx(total / 7)
    assert score.details["consistency"][0, 1] == pytest.approx(sum(strength[pair] for pair in pairs) / 4)
    assert score.interval[0] < score < score.interval[1]
    assert score.chance < 0.03


def test_udr_looks_at_informative_latents_only(normal):
    rng = np.random.default_rng(13)
    runs = [np.column_stack([normal, 1e-3 * rng.standard_normal(4000)]) for _ in range(3)]
    settings = {"n_bootstrap": 5, "method": "pearson"}
    assert metrics.udr(runs, **settings).details["informative"][0].tolist() == [True, True, True, False]
    assert metrics.udr(runs, **settings) == pytest.approx(float(metrics.udr([normal] * 3, **settings)), abs=1e-9)
    assert metrics.udr(runs, threshold=0.0, **settings) < metrics.udr(runs, **settings) - 0.1
    divergence = [[1.0, 0.5, 0.005, 0.001]] * 3
    assert metrics.udr(runs, kl=divergence, **settings).details["informative"][2].tolist() == [True, True, False, False]
    with pytest.warns(MetricWarning, match=r"Runs \[1\] have no informative latent; they score 0"):
        score = metrics.udr([normal, 0 * normal, normal], **settings)
    assert score.per_factor[1] == 0.0
    assert score.details["pairs"][0, 2] > 0.9


def test_udr_of_rotations_is_low(normal):
    z = normal[:, :2]
    turned = metrics.udr([z, z @ TURN], n_bootstrap=0)
    assert turned.details["consistency"][0, 1] == pytest.approx(0.7, abs=0.03)
    assert turned == pytest.approx(0.35, abs=0.03)


def test_support_recovery_of_known_cases():
    rng = np.random.default_rng(14)
    support = rng.random((30, 4)) < 0.4
    mixing = support * rng.uniform(0.5, 1.5, support.shape)
    perfect = metrics.support_recovery(support, (mixing * [1e-3, -2.0, 50.0, 1.0])[:, [3, 1, 0, 2]])
    assert perfect == 1.0
    assert perfect.details["assignment"].tolist() == [2, 1, 3, 0]
    assert perfect.details["auroc"] == 1.0
    assert perfect.details["hamming"] == 0
    assert perfect.chance < 0.8
    noisy = mixing + 0.5 * rng.standard_normal(mixing.shape)
    score = metrics.support_recovery(support, noisy, assignment=[0, 1, 2, 3])
    strength = abs(noisy) / abs(noisy).max(axis=0)
    found = strength > 0.1
    assert score.details["auroc"] == pytest.approx(roc_auc_score(support.ravel(), strength.ravel()))
    assert score.details["hamming"] == (support ^ found).sum()
    assert score == pytest.approx(2 * (support & found).sum() / (support.sum() + found.sum()))
    assert score.interval[0] < score < score.interval[1]
    missing = metrics.support_recovery(support, mixing[:, :3])
    assert missing.per_factor.tolist() == [1.0, 1.0, 1.0, 0.0]
    assert missing.details["assignment"].tolist() == [0, 1, 2, -1]
    assert missing.details["hamming"] == support[:, 3].sum()


def test_support_recovery_takes_the_assignment_of_mcc(normal):
    w = normal[:, [2, 0]]
    score = metrics.support_recovery(
        np.eye(3), np.eye(3)[:, [2, 0]], assignment=metrics.mcc(normal, w).details["assignment"]
    )
    assert score.per_factor.tolist() == [1.0, 0.0, 1.0]
    with pytest.warns(MetricWarning, match="AUROC needs entries inside and outside"):
        assert np.isnan(metrics.support_recovery(np.ones((4, 2)), np.ones((4, 2))).details["auroc"])
