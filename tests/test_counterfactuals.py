"""Rows carried to another domain: what they keep, and whether they look like rows of it."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK
from scipy.stats import ks_2samp

import unmix
from unmix import CGVAE
from unmix.audit.counterfactuals import LEVEL, check_counterfactuals, kolmogorov_smirnov
from unmix.data.batches import Rows
from unmix.distributions.likelihood import Gaussian
from unmix.distributions.prior import LocationScale
from unmix.errors import DataError, DomainError, SettingError
from unmix.models.base import FittedModel, LatentModel


class Linear(LatentModel):
    """A model that is right about the rows of ``linear_rows``: x = 2 z1 | z2 | noise, z1 with its domain's location."""

    def __init__(self, spread, noise):
        torch.nn.Module.__init__(self)
        self.register_buffer("spread", torch.tensor(spread))
        self.config = type("Config", (), {"masked": False})()
        self.n_latents, self.n_starts = 2, 1
        self.likelihood = Gaussian(1, 3, noise)
        self.register_buffer("weight", torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))

    def encode(self, x, observed, design=None):
        mean = x[None] @ torch.linalg.pinv(self.weight)
        return type("Posterior", (), {"mean": mean})()

    def decode(self, z):
        return z @ self.weight

    def prior(self, design):
        level = design.argmax(dim=1).float()[None, :, None]
        location = torch.cat([level, torch.zeros_like(level)], dim=-1)
        scale = torch.cat([1.0 + self.spread * level, torch.ones_like(level)], dim=-1)
        return LocationScale(location, scale.log())

    def terms(self, *_):
        raise NotImplementedError

    weights = terms


def linear_rows(seed, n=180, n_domains=3, noise=0.1, spread=0.5):
    rng = np.random.default_rng(seed)
    u = np.arange(n) % n_domains
    z = np.stack([u + (1 + spread * u) * rng.standard_normal(n), rng.standard_normal(n)], axis=1)
    x = np.stack([2 * z[:, 0], z[:, 1], np.zeros(n)], axis=1) + noise * rng.standard_normal((n, 3))
    x = torch.from_numpy(x.astype(np.float32))
    return Rows(x, None, torch.from_numpy(u)[:, None], torch.zeros(n, 0), n_domains), u


def checked(seed, model_spread=0.5, **words):
    rows, u = linear_rows(seed, **words)
    return check_counterfactuals(FittedModel(Linear(model_spread, 0.1)), rows, u, ["a", "b", "c"], ["x0", "x1", "x2"])


def test_where_the_model_is_right_the_tests_keep_their_level_and_where_it_is_wrong_they_see_it():
    rejected = sum(checked(seed).rejected.any() for seed in range(60))
    assert rejected <= 7  # 60 times at 5 %: more than 7 in 1 of 100 such tests
    wrong = checked(0, model_spread=-0.3, n=1200)
    # To the middle domain too narrow and too wide rows come together.
    assert wrong.rejected[[0, 2], 0].all()
    assert not wrong.rejected[:, 1:].any()
    assert f"reject {wrong.rejected.sum()}, of x0" in wrong.summary()
    table = wrong.to_frame()
    assert table["feature"][:2].tolist() == ["x0"] * 2
    assert table["distance"].is_monotonic_decreasing
    assert (table["rejected"] == (table["p_adjusted"] < LEVEL)).all()
    assert (table["p_adjusted"] >= table["p_value"]).all()


def test_carried_rows_are_nearer_than_the_same_rows_before():
    found = checked(1, n=600)
    assert (found.distance[:, 0] < found.before[:, 0] - 0.05).all()
    np.testing.assert_allclose(found.spread[:, 1:], 1.0, atol=0.2)
    np.testing.assert_array_equal(found.rows, 200)
    np.testing.assert_array_equal(found.carried, 400)
    least = float(np.nanmin(found.visible))
    assert f"so many rows can reject is {least:.2f}" in found.summary()
    n, m, tests = 200, 400, 9
    assert ks_p(least, n, m) == pytest.approx(LEVEL / tests, rel=1e-3)


def ks_p(distance, n, m):
    from scipy.special import kolmogorov

    return kolmogorov(distance * np.sqrt(n * m / (n + m)))


@pytest.mark.parametrize("kind", ["numbers", "ties", "missing"])
def test_distances_equal_those_of_scipy(kind):
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((70, 6)), 0.3 + rng.standard_normal((40, 6))
    if kind == "ties":
        a, b = a.round(), b.round()
    if kind == "missing":
        a[rng.random(a.shape) < 0.2] = np.nan
    distance, p_value = kolmogorov_smirnov(a, b)
    for k in range(6):
        theirs = ks_2samp(a[~np.isnan(a[:, k]), k], b[:, k], method="exact")
        assert distance[k] == pytest.approx(theirs.statistic, abs=1e-12)
        # The limit for many rows: never smaller than the exact one, and not much larger.
        assert theirs.pvalue < p_value[k] < 1.5 * theirs.pvalue + 0.01


def test_small_domains_and_domains_without_rows_are_named():
    rows, u = linear_rows(0, n=180)
    few = np.flatnonzero((u != 1) | (np.arange(180) < 40))
    part = rows.take(torch.from_numpy(few))
    model = FittedModel(Linear(0.5, 0.1))
    found = check_counterfactuals(model, part, u[few], ["a", "b", "c", "d"], ["x0", "x1", "x2"])
    assert found.n_tests == 6
    assert found.summary().endswith("Too few rows to test b and d.")
    assert set(found.to_frame()["domain"]) == {"a", "c"}
    none = check_counterfactuals(model, part.take(slice(0, 30)), u[few][:30], ["a", "b", "c"], ["x0", "x1", "x2"])
    assert none.n_tests == 0
    assert none.summary().startswith("Not tested: a test needs 20 rows of a domain and 20 of others")
    assert len(none.to_frame()) == 0


@pytest.mark.slow
def test_a_feature_that_no_changing_latent_drives_keeps_its_spread():
    rows, _ = linear_rows(0)
    model, target = FittedModel(Linear(0.5, 0.1)), torch.eye(3)[[2]].expand(180, 3)
    kept, mean = (model.counterfactual(rows, target, torch.Generator(), residual) for residual in (True, False))
    torch.testing.assert_close(kept[:, 1:], rows.x[:, 1:])
    assert mean[:, 2].std() < 1e-6
    torch.testing.assert_close(kept[:, 0].std(), rows.x[rows.codes[:, 0] == 2, 0].std(), rtol=0.15, atol=0)


def test_the_residual_is_what_the_latents_do_not_say(fitted, frame, labels):
    kept, mean = (fitted.counterfactual(frame, labels, to="b", residual=residual) for residual in (True, False))
    here = fitted.inverse_transform(fitted.transform(frame))
    np.testing.assert_allclose(kept - mean, frame.to_numpy() - here, atol=1e-5)
    with pytest.raises(SettingError, match=r'residual must be True or False, or "domain"; got .no.'):
        fitted.counterfactual(frame, labels, to="b", residual="no")


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_row_carried_to_its_own_domain_is_itself(frame, labels, scale):
    table = scale * (frame + 3.0)
    model = CGVAE(**{**QUICK, "max_epochs": 1}).fit(table, labels)
    own = model.counterfactual(table, labels, to=pd.DataFrame({"domain": labels}))
    np.testing.assert_allclose(own / scale, table / scale, atol=1e-4)
    assert own.dtype == np.float64
    assert model.counterfactual(table.iloc[:1], labels[:1], to=labels[0]).shape == (1, 5)


@pytest.mark.slow
def test_missing_entries_come_back_as_what_the_latents_say(frame, labels):
    table = frame.mask(np.random.default_rng(0).random(frame.shape) < 0.2)
    model = CGVAE(**{**QUICK, "max_epochs": 1}, missing="mask").fit(table, labels)
    kept, mean = (model.counterfactual(table, labels, to="b", residual=residual) for residual in (True, False))
    missing = table.isna().to_numpy()
    np.testing.assert_array_equal(kept[missing], mean[missing])
    assert np.isfinite(kept).all()
    assert np.abs(kept - mean)[~missing].max() > 0.1
    found = model.check_counterfactuals(table + 0.01, labels)
    np.testing.assert_array_equal(found.rows, 200)
    assert found.n_tests == 15


@pytest.mark.slow
def test_the_check_is_kept_with_the_fit(fitted, frame, labels, tmp_path):
    found = fitted.check_counterfactuals()
    np.testing.assert_array_equal(found.rows, 20)
    again = unmix.load(fitted.save(tmp_path / "m")).check_counterfactuals()
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())
    assert str(again) == str(found)
    shown = fitted.report(tmp_path / "r.html").read_text()
    assert found.summary() in shown
    more = [fitted.check_counterfactuals(frame + 1e-2, labels) for _ in range(2)]
    np.testing.assert_array_equal(more[0].carried, 400)
    np.testing.assert_array_equal(more[0].p_value, more[1].p_value)
    with pytest.raises(DataError, match="passed without X"):
        fitted.check_counterfactuals(y=labels)
    with pytest.raises(DomainError, match="has one prior for all domains"):
        unmix.baselines.BetaVAE(**{**QUICK, "max_epochs": 1}).fit(frame).check_counterfactuals()
    alone = CGVAE(**{**QUICK, "max_epochs": 1, "validation_fraction": 0.0}).fit(frame, labels)
    with pytest.raises(DataError, match="held no rows out"):
        alone.check_counterfactuals()


@pytest.mark.slow
def test_continuous_domains_are_carried_to_values_of_the_target(frame, labels):
    u = pd.DataFrame({"site": labels, "dose": np.random.default_rng(0).uniform(0, 5, 600)})
    model = CGVAE(**{**QUICK, "max_epochs": 1}, auxiliary={"dose": "continuous"}).fit(frame, u)
    assert model.check_counterfactuals().n_tests == 15
    only = CGVAE(**{**QUICK, "max_epochs": 1}, auxiliary={"dose": "continuous"}).fit(frame, u[["dose"]])
    assert only.check_counterfactuals().n_tests == 0
