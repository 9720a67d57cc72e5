"""A new domain for a fitted model: what is learnt, what stays, and what is refused."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK
from typer.testing import CliRunner

import unmix
from unmix import CGVAE, DataWarning
from unmix.baselines import IMSDA, IVAE, BetaVAE
from unmix.cli import app
from unmix.errors import DataError, DomainError
from unmix.models import adapting
from unmix.models.adapting import domain_prior, learn_effects


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    """Ends of intervals from fewer draws: what they are is measured in ``benchmarks/new_domains.py``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapting, "SAMPLES", 40)
        yield


@pytest.fixture(scope="module")
def rows():
    """Rows of a fourth domain of the session's problem, as a frame."""
    data = unmix.datasets.make_sparse_mixing(n_latents=2, n_features=5, n_domains=3, n_samples=600, random_state=1)
    return pd.DataFrame(data.x[:60] * 1.3 + 0.4, columns=data.feature_names)


@pytest.fixture(scope="module")
def wider(fitted, rows):
    return fitted.adapt(rows, domain="K")


def state(model):
    return {name: value.clone() for name, value in model.model_.state_dict().items()}


def test_only_the_new_domain_is_learnt_and_the_model_stays_as_it_was(fitted, frame, labels, rows):
    before, domains, described = state(fitted), fitted.domains_, fitted.description_
    wider = fitted.adapt(rows, domain="K")
    assert fitted.domains_ == domains
    assert fitted.description_ is described
    assert not hasattr(fitted, "adapted_")
    for name, value in fitted.model_.state_dict().items():
        assert torch.equal(value, before[name])
    assert (wider.domains_, wider.adapted_) == ((*domains, "K"), ("K",))
    for name, value in wider.model_.state_dict().items():
        if name.endswith("domain_prior.effects"):
            assert torch.equal(value[:, :3], before[name])
            assert value.shape[1] == 4
        else:
            assert torch.equal(value, before[name])
    np.testing.assert_array_equal(wider.transform(frame), fitted.transform(frame))
    assert wider.score(frame, labels) == fitted.score(frame, labels)


@pytest.mark.slow
def test_the_wider_model_does_all_that_a_fitted_one_does(wider, rows, frame, labels, tmp_path):
    assert wider.sample(5, domain="K").shape == (5, 5)
    there = wider.counterfactual(frame, labels, to="K")
    back = wider.counterfactual(pd.DataFrame(there, columns=frame.columns), ["K"] * len(there), to="a")
    assert back.shape == there.shape
    assert np.isfinite(wider.score(rows, ["K"] * 60))
    own = wider.effects_frame().query("domain == 'K'")
    assert ((own["location_low"] < own["location"]) & (own["location"] < own["location_high"])).all()
    assert ((own["spread_low"] < own["spread"]) & (own["spread"] < own["spread_high"])).all()
    assert wider.audit().effects.query("domain == 'K'").shape[0] == 2
    assert "Too few rows to test K" in wider.check_counterfactuals().summary()
    fresh = frame[:300] + 1e-3
    checked = wider.check_counterfactuals(pd.concat([fresh, rows + 1e-3]), [*labels[:300], *["K"] * 60])
    assert np.isfinite(checked.p_value[3]).all()
    loaded = unmix.load(wider.save(tmp_path / "wider"))
    assert (loaded.adapted_, loaded.domains_) == (wider.adapted_, wider.domains_)
    np.testing.assert_array_equal(loaded.sample(5, domain="K"), wider.sample(5, domain="K"))
    assert "K" in loaded.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert loaded.adapt(rows * 0.9, domain="L").adapted_ == ("K", "L")


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["gaussian", "spline"])
def test_moments_of_many_rows_are_found_and_few_rows_stay_near_the_mean_domain(prior):
    """Draws of the model itself with effects that are known."""
    data = unmix.datasets.make_sparse_mixing(n_latents=2, n_features=5, n_domains=4, n_samples=400, random_state=3)
    model = CGVAE(**QUICK | {"max_epochs": 8}, prior=prior).fit(data.x, data.domains)
    source = np.random.default_rng(0)
    z = source.standard_normal((300, 2)) * [0.5, 1.6] + [1.0, -0.7]
    x = model.inverse_transform(z)
    seen = model.transform(x)
    for n, exact in ((300, True), (10, False)):
        own = model.adapt(x[:n], domain="new").effects_frame().query("domain == 'new'")
        target = seen.mean(axis=0)
        if exact:
            np.testing.assert_allclose(own["location"], target, atol=0.03)
            assert (np.abs(np.log(own["spread"] / seen.std(axis=0))) < 0.25).all()
        else:
            middle = model.description_.location.mean(axis=0)
            raw = seen[:n].mean(axis=0)
            # Between the rows' mean and the mean domain, or as good as there.
            assert (np.abs(own["location"] - middle) < np.abs(raw - middle) + 0.25).all()
            wide = own["location_high"] - own["location_low"]
            assert (wide > 0.2).all()


def test_a_rare_domain_is_shrunk_where_known_domains_are_alike(fitted, frame):
    x = frame[:10] + 1.0
    wide = fitted.adapt(x, domain="new")
    prior = domain_prior(wide.model_)
    rows = fitted._new_rows(x, ["a"] * 10, with_domain=True)
    found = []
    for size in (0.05, 1.0):
        with torch.no_grad():
            prior.effects[0, :3] *= size / prior.effects[0, :3].std()
        design = torch.cat([torch.zeros(10, 3), torch.ones(10, 1)], dim=1)
        own = type(rows)(rows.x, None, torch.full((10, 1), 3), rows.values, 4)
        assert torch.equal(own.design, design)
        learnt = learn_effects(wide.model_, own, np.array([3]), [np.arange(3)])
        found.append(float((learnt.effects[0, :2] - prior.effects.detach()[0, :3, :2].double().mean(0)).abs().max()))
        assert torch.linalg.eigvalsh(learnt.covariance).min() > 0
    assert found[0] < 0.6 * found[1]


@pytest.fixture(scope="module")
def crossed():
    """Two categorical columns of which one combination is missing, and a third nested in the first."""
    data = unmix.datasets.make_sparse_mixing(n_latents=2, n_features=5, n_domains=3, n_samples=600, random_state=1)
    x = data.x
    y = pd.DataFrame({"drug": np.tile(["d0", "d1"], 300), "line": np.repeat(["l0", "l1", "l2"], 200)})
    return x, y


@pytest.mark.slow
def test_a_new_combination_of_known_levels_takes_no_rows(crossed):
    x, y = crossed
    seen = ~((y["drug"] == "d1") & (y["line"] == "l2"))
    model = CGVAE(**QUICK).fit(x[seen], y[seen])
    target = {"drug": "d1", "line": "l2"}
    wider = model.adapt(domain=target)
    assert wider.domains_[-1] == "d1 · l2"
    assert wider.adapted_ == ("d1 · l2",)
    np.testing.assert_array_equal(wider.sample(4, domain=target), model.sample(4, domain=target))
    own = wider.effects_frame().query("domain == 'd1 · l2'")
    assert own["location"].notna().all()
    assert own["location_low"].isna().all()
    rows = model.adapt(x[~seen], domain=y[~seen])
    assert len(rows.description_.latents) == len(model.description_.latents) + 100
    np.testing.assert_array_equal(rows.sample(4, domain=target), model.sample(4, domain=target))
    with pytest.raises(DomainError, match="Pass rows of these, or use adapt"):
        model.audit(x[~seen], y[~seen])
    assert "d1 · l2" in set(rows.audit(x[~seen], y[~seen]).effects["domain"])
    both = model.adapt(x[:20], domain={"drug": "d9", "line": "l1"})
    assert both.domain_schema_.columns[0].levels == ("d0", "d1", "d9")
    # Other columns of the design keep their effects though they have moved.
    old, new = domain_prior(model.model_).effects, domain_prior(both.model_).effects
    assert torch.equal(old, new[:, [0, 1, 3, 4, 5]])
    assert not domain_prior(both.model_).inner[:, 2].any()


@pytest.mark.slow
def test_nested_columns_take_a_new_site_of_a_known_region_and_of_a_new_one(crossed):
    x, y = crossed
    y = pd.DataFrame({"region": np.where(y["line"] == "l0", "north", "south"), "site": y["line"] + y["drug"]})
    model = CGVAE(**QUICK, auxiliary={"site": "within region"}).fit(x, y)
    known = model.adapt(x[:30], domain={"region": "north", "site": "K"})
    assert known.adapted_ == ("north / K",)
    fresh = model.adapt(x[:30], domain={"region": "west", "site": "K"})
    assert fresh.adapted_ == ("west / K",)
    assert fresh.domain_schema_.columns[0].levels == ("north", "south", "west")
    with pytest.raises(DomainError, match="are missing"):
        model.adapt(x[:30], domain={"site": "K"})


@pytest.mark.slow
def test_a_continuous_column_reaches_further_with_a_warning():
    data = unmix.datasets.make_sparse_mixing(
        n_latents=2, n_features=5, n_domains=3, n_samples=600, auxiliary="continuous"
    )
    model = CGVAE(**QUICK, auxiliary=data.auxiliary).fit(data.x, data.domains)
    with pytest.warns(DataWarning, match="extrapolation"):
        wider = model.adapt(data.x[:20], domain={"u": 1.6})
    assert wider.domain_schema_.columns[0].high == 1.6
    assert wider.adapted_ == ()
    for name, value in state(model).items():
        assert torch.equal(value, wider.model_.state_dict()[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wider.sample(3, domain=1.5)
    with pytest.raises(DomainError, match="nothing to adapt"):
        model.adapt(data.x[:20], domain={"u": 0.5})


def test_labels_of_several_new_domains_and_a_column_of_the_table(fitted, rows):
    several = fitted.adapt(rows, domain=np.repeat(["K", "L"], 30))
    assert several.adapted_ == ("K", "L")
    with_column = rows.assign(domain=np.repeat(["K", "L"], 30))
    named = fitted.adapt(with_column, domain="domain")
    assert named.adapted_ == ("K", "L")
    np.testing.assert_array_equal(named.sample(3, domain="L"), several.sample(3, domain="L"))


def test_imsda_is_adapted_and_others_say_why_not(rows, frame, labels):
    words = QUICK | {"max_epochs": 2}
    style = IMSDA(**QUICK | {"max_epochs": 8}, n_style=1).fit(frame, labels)
    wider = style.adapt(rows, domain="K")
    old = style.model_.inner.encoder.state_dict()
    assert all(torch.equal(value, old[name]) for name, value in wider.model_.inner.encoder.state_dict().items())
    content = wider.effects_frame().query("domain == 'K'").iloc[style.content_[0]]
    assert content["location_low"] == content["location_high"]
    for model in (IVAE(**words), BetaVAE(**words)):
        with pytest.raises(DomainError, match="Use CGVAE or IMSDA"):
            model.fit(frame, labels).adapt(rows, domain="K")


@pytest.mark.parametrize(
    ("n", "domain", "error", "said"),
    [
        (9, "K", DataError, "'K' of 'domain' has 9"),
        (30, "a", DomainError, "30 of 30 rows are of domains that the model knows, such as 'a'"),
        (30, ["K"] * 29 + ["a"], DomainError, "1 of 30 rows"),
        (30, ["K"] * 29, DomainError, "X has 30 rows, the domains have 29"),
        (30, None, DomainError, "missing label|missing|none"),
    ],
)
def test_what_cannot_be_adapted_to(fitted, rows, n, domain, error, said):
    with pytest.raises(error, match=said):
        fitted.adapt(rows[:n], domain=domain)


def test_rows_of_an_unknown_domain_are_sent_to_adapt(fitted, rows):
    for call in (fitted.score, fitted.audit, fitted.check_counterfactuals):
        with pytest.raises(DomainError, match="use adapt"):
            call(rows, ["K"] * 60)
    with pytest.raises(DomainError, match="use adapt"):
        fitted.counterfactual(rows, ["a"] * 60, to="K")
    with pytest.raises(DomainError, match="use adapt"):
        fitted.sample(3, domain="K")
    with pytest.raises(DataError, match="takes 10 rows or more"):
        fitted.adapt(domain="K")


def test_rows_of_a_new_mixing_are_adapted_to_with_a_warning(fitted, frame, rows):
    other = frame[frame.columns[::-1]].set_axis(frame.columns, axis=1)[:100]
    both = pd.concat([rows, other])
    with pytest.warns(DataWarning, match="'L' do not follow the mixing of the fit"):
        wider = fitted.adapt(both, domain=["K"] * len(rows) + ["L"] * 100)
    assert wider.adapted_ == ("K", "L")
    assert fitted.novelty(other).new_mixing


@pytest.mark.slow
def test_unmix_adapt_writes_a_run(fitted, rows, tmp_path):
    run, out, file = tmp_path / "run", tmp_path / "wider", tmp_path / "new.csv"
    fitted.save(run)
    rows.assign(domain="K", note="n").to_csv(file, index=False)
    words = ["adapt", str(run), str(file), "--domain", "domain", "--out", str(out)]
    found = CliRunner().invoke(app, words, catch_exceptions=False)
    assert found.exit_code == 0
    assert "new     K" in found.output
    assert (out / "report.html").exists()
    assert list(pd.read_csv(out / "latents.csv").columns[:2]) == ["domain", "note"]
    assert unmix.load(out).adapted_ == ("K",)
    stated = CliRunner().invoke(app, [*words[:3], "--domain", "domain=L", "--out", str(tmp_path / "other")])
    assert stated.exit_code == 0
    assert unmix.load(tmp_path / "other").adapted_ == ("L",)
    with pytest.raises(unmix.errors.StorageError, match="holds the run to adapt"):
        CliRunner().invoke(app, [*words[:-1], str(run)], catch_exceptions=False)
    with pytest.raises(unmix.errors.SchemaError, match="site=VALUE"):
        CliRunner().invoke(app, [*words[:3], "--domain", "site", "--out", str(tmp_path / "x")], catch_exceptions=False)
