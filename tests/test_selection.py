"""How many latents: the residual statistic, the rule, ``n_latents="auto"``, ``unmix.select`` and the command line."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

import unmix
from unmix import CGVAE, DataWarning
from unmix.audit.input import ResidualDependence
from unmix.audit.residuals import strongest_pairs
from unmix.bench.selection import SELECTED
from unmix.cli import app
from unmix.errors import SettingError
from unmix.estimators.selection import Candidate, decide, prepared, principal_components
from unmix.fits.latent import LatentSummary

SHORT = {"n_restarts": 1, "max_epochs": 2, "verbose": 0}


@pytest.fixture(scope="module")
def linear():
    """Three latents, six features, three domains; linear, so that a short training is enough."""
    rng = np.random.default_rng(0)
    domains = np.arange(600) % 3
    z = rng.standard_normal((600, 3)) * np.array([[0.5, 1, 2], [2, 1, 0.5], [1, 2, 1]])[domains]
    weight = np.array([[1, 1, 0, 0, 0, 1], [0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, -1]])
    x = z @ weight + 0.1 * rng.standard_normal((600, 6))
    return pd.DataFrame(x, columns=[f"f{k}" for k in range(6)]), domains


# --- the statistic ---


def strongest_pair(residuals, strata):
    (found,) = strongest_pairs(residuals, strata)
    return found


def test_independent_residuals_stay_below_the_limit_in_99_of_100_draws():
    strata = np.repeat([0, 1, 2], [200, 30, 70])
    found = [strongest_pair(np.random.default_rng(s).standard_t(3, (300, 8)), strata) for s in range(100)]
    assert sum(own.correlation > own.limit for own in found) <= 4


def test_a_shared_residual_is_found_with_its_pair_and_one_between_domains_is_not():
    rng = np.random.default_rng(0)
    strata = np.arange(600) % 3
    r = rng.standard_normal((600, 6))
    moved = r.copy()
    moved[:, [0, 1]] += 5.0 * strata[:, None]
    assert strongest_pair(moved, strata).correlation < 0.2
    r[:, 4] = 0.8 * r[:, 2] + 0.6 * r[:, 4]
    found = strongest_pair(r, strata)
    assert found.features == (2, 4)
    assert found.correlation == pytest.approx(0.78, abs=0.05)
    assert found.exceeds(0.3)
    assert strongest_pair(np.exp(r), strata).correlation == pytest.approx(found.correlation)


def test_pairs_for_several_shares_are_those_for_each_alone():
    r = np.random.default_rng(0).standard_normal((500, 6))
    r[:, 1] = 0.9 * r[:, 0] + 0.4 * r[:, 1]
    r[:, 3] = 0.6 * r[:, 2] + 0.8 * r[:, 3]
    r[:, :2] *= 0.05
    strata = np.zeros(500, dtype=int)
    both = strongest_pairs(r, strata, [0.01, 0.001])
    assert both == [strongest_pairs(r, strata, [share])[0] for share in (0.01, 0.001)]
    assert [own.features for own in both] == [(2, 3), (0, 1)]


def test_copies_of_a_feature_share_too_little_to_matter_and_others_come_first():
    rng = np.random.default_rng(0)
    r = 0.05 * rng.standard_normal((500, 5))
    r[:, 1] = r[:, 0]
    alone = strongest_pair(r, np.zeros(500, dtype=int))
    assert alone.correlation == pytest.approx(1.0)
    assert not alone.exceeds(0.3)
    r[:, 3:] = rng.standard_normal((500, 1)) + rng.standard_normal((500, 2))
    assert strongest_pair(r, np.zeros(500, dtype=int)).features == (3, 4)


@pytest.mark.parametrize(
    ("residuals", "strata"),
    [
        (np.ones((5, 1)), np.zeros(5, dtype=int)),
        (np.ones((5, 3)), np.arange(5)),
        (np.ones((5, 3)), np.full(5, -1)),
        (np.full((5, 3), np.nan), np.zeros(5, dtype=int)),
    ],
)
def test_where_there_is_nothing_to_correlate_nothing_is_dependent(residuals, strata):
    found = strongest_pair(residuals, strata)
    assert found.correlation == 0.0
    assert not found.exceeds(0.0)


def test_missing_entries_are_left_out_and_constant_columns_do_no_harm():
    rng = np.random.default_rng(0)
    r = rng.standard_normal((800, 4))
    r[:, 1] = 0.9 * r[:, 0] + 0.4 * r[:, 1]
    r[:, 3] = 2.0
    whole = strongest_pair(r, np.zeros(800, dtype=int))
    r[rng.random((800, 4)) < 0.3] = np.nan
    found = strongest_pair(r, np.zeros(800, dtype=int))
    assert found.features == whole.features == (0, 1)
    assert found.correlation == pytest.approx(whole.correlation, abs=0.05)
    assert found.limit > whole.limit


# --- the rule ---


def candidate(number, bound, residual, share=0.05, r2=0.5, n_rows=100):
    noise = np.random.default_rng(number).standard_normal(n_rows)
    return Candidate(number, bound + 0.1 * noise, ResidualDependence(residual, 0.1, share, ("a", "b")), r2, 0, 1.0)


def test_the_smallest_number_with_independent_residuals_that_one_more_does_not_improve():
    fits = [candidate(2, -9.0, 0.8), candidate(3, -5.0, 0.12), candidate(4, -4.9, 0.05)]
    assert decide(fits[::-1]).n_latents == 3
    assert "4 latents do not raise" in decide(fits).reason
    better = [*fits[:2], candidate(4, -3.0, 0.05)]
    assert decide(better).n_latents == 4
    copies = [candidate(2, -5.0, 0.9, share=0.005), candidate(3, -4.9, 0.9, share=0.005)]
    assert decide(copies).n_latents == 2


def test_what_cannot_be_decided_says_so_and_takes_the_smallest_that_is_as_good_as_the_best():
    choice = decide([candidate(1, -9.0, 0.8), candidate(2, -5.0, 0.7), candidate(3, -5.0, 0.7)])
    assert (choice.n_latents, choice.decided) == (2, False)
    assert "undecided" in choice.reason
    assert choice.table["n_latents"].tolist() == [1, 2, 3]
    kept = decide([candidate(1, -9.0, 0.8, r2=0.96), candidate(2, -5.0, 0.7)])
    assert (kept.n_latents, kept.decided) == (1, False)
    nothing_held_out = decide([candidate(1, 0.0, 0.8, n_rows=0), candidate(2, 0.0, 0.1, n_rows=0)])
    assert (nothing_held_out.n_latents, nothing_held_out.decided) == (2, True)


def test_principal_components_are_counted_against_shuffled_columns():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 3)) @ np.repeat(np.eye(3), 4, axis=1) + 0.3 * rng.standard_normal((400, 12))
    assert principal_components(x) == 3
    assert principal_components(rng.standard_normal((300, 40))) <= 1
    wide = rng.standard_normal((60, 2)) @ rng.standard_normal((2, 300)) + rng.standard_normal((60, 300))
    assert principal_components(wide) == 2


# --- the warning of a fit ---


@pytest.mark.slow
def test_a_fit_with_too_few_latents_says_so_and_one_with_enough_does_not(linear):
    x, y = linear
    settings = {"n_restarts": 1, "n_spare": 0, "sparsity": 0.0, "early_stopping": False, "hidden": (8,), "verbose": 0}
    settings |= {"batch_size": 600, "max_epochs": 340}
    with pytest.warns(DataWarning, match=r"'f\d' and 'f\d' still depend.*given 2 latents.*n_latents=3 or more.*auto"):
        model = CGVAE(2, **settings).fit(x, y)
    assert model.residual_dependence_.correlation > 0.5
    assert set(model.residual_dependence_.features) < set(x.columns)
    assert CGVAE(3, **settings).fit(x, y).residual_dependence_.correlation < 0.3


@pytest.mark.slow
def test_features_share_their_noise_longer_where_latents_are_too_few(linear):
    x, y = linear
    released = {}
    for number in (2, 3):
        model = CGVAE(number, n_restarts=1, hidden=(8,), batch_size=600, verbose=0)
        released[number] = model._network_for(prepared(model, x, y), 0).config.released
    assert released == {2: 0.5, 3: 0.0}
    short = CGVAE(3, **SHORT)
    assert short._network_for(prepared(short, x, y), 0).config.released == 0.5


def test_a_short_training_does_not_warn(linear):
    x, y = linear
    assert CGVAE(1, **SHORT).fit(x, y).residual_dependence_.correlation > 0.5


# --- auto ---


@pytest.fixture(scope="module")
def auto(linear):
    settings = {"n_restarts": 2, "max_epochs": 6, "hidden": (8,), "verbose": 0}
    return CGVAE("auto", **settings).fit(*linear)


def test_auto_finds_the_number_and_keeps_the_table(auto, linear):
    assert auto.n_latents == "auto"
    assert auto.n_latents_ == 3
    assert auto.transform(linear[0]).shape == (600, 3)
    assert list(auto.selection_["n_latents"]) == [2, 3, 4]
    assert auto.selection_["residual"].iloc[0] > 0.5
    assert auto.planned_epochs(600) == 6


@pytest.mark.slow
def test_auto_survives_clone_storage_and_pipelines(auto, linear, tmp_path):
    assert clone(auto).get_params() == auto.get_params()
    again = unmix.load(auto.save(tmp_path / "m"))
    assert (again.n_latents, again.n_latents_) == ("auto", 3)
    assert again.residual_dependence_ == auto.residual_dependence_
    pd.testing.assert_frame_equal(again.selection_, auto.selection_)
    assert "selection.csv " in (tmp_path / "m" / "README.txt").read_text()
    np.testing.assert_array_equal(again.transform(linear[0]), auto.transform(linear[0]))
    auto.report(tmp_path / "r.html")
    pipeline = make_pipeline(StandardScaler(), clone(auto).set_params(n_restarts=1, max_epochs=1)).fit(*linear)
    assert len(pipeline[-1].selection_)
    pipeline.set_params(cgvae__n_latents=2).fit(*linear)
    assert not hasattr(pipeline[-1], "selection_")


@pytest.mark.slow
def test_wide_tables_take_the_number_of_components(linear):
    rng = np.random.default_rng(0)
    x = linear[0].to_numpy()[:90] @ rng.standard_normal((6, 300)) + rng.standard_normal((90, 300))
    model = CGVAE("auto", **SHORT, hidden=(4,)).fit(x, linear[1][:90])
    assert model.n_latents_ == principal_components(x) == 3
    assert len(model.selection_) == 1


@pytest.mark.slow
@pytest.mark.parametrize("why", [None, "some reason"])
def test_auto_that_cannot_decide_warns_with_its_table(why, monkeypatch):
    monkeypatch.setattr(LatentSummary, "why_linear", why)
    rng = np.random.default_rng(0)
    pairs = np.repeat(rng.standard_normal((600, 6)), 2, axis=1) + 0.7 * rng.standard_normal((600, 12))
    undecided = r"(?s)n_latents='auto' is undecided.*n_latents .*residual.*set n_latents to a number\."
    ending = "$" if why is None else r" The model is the linear model .*: some reason\.$"
    with pytest.warns(DataWarning, match=undecided + ending):
        model = CGVAE("auto", **SHORT).fit(pairs)
    assert 1 <= model.n_latents_ <= 12


@pytest.mark.parametrize("value", ["many", "Auto", 0, 1.5, True, None])
def test_other_words_are_refused(value, linear):
    with pytest.raises(SettingError, match="n_latents must be a whole number ≥ 1"):
        CGVAE(value, **SHORT).fit(*linear)


def test_auto_checks_its_other_settings_first(linear):
    with pytest.raises(SettingError, match="n_restarts"):
        CGVAE("auto", **{**SHORT, "n_restarts": 0}).fit(*linear)
    with pytest.raises(SettingError, match="prior"):
        CGVAE("auto", **SHORT, prior="x").fit(*linear)


# --- select ---


@pytest.mark.slow
def test_select_compares_fits_and_goes_on_where_it_was_stopped(linear, tmp_path):
    base = CGVAE(**SHORT, hidden=(4,))
    seen = []
    first = unmix.select(*linear, n_latents=2, estimator=base, folder=tmp_path, on_row=seen.append)
    found = unmix.select(*linear, n_latents=range(2, 4), estimator=base, folder=tmp_path, on_row=seen.append)
    assert [row["n_latents"] for row in seen] == [2, 3]
    assert len((tmp_path / SELECTED).read_text().splitlines()) == 2
    assert (first.best, first.decided) == (2, False)
    assert found.best == 3
    assert found.decided
    table = found.to_frame()
    assert table["n_latents"].tolist() == [2, 3]
    assert table["halves"].between(0, 1).all()
    assert "3 latents: the smallest" in str(found)
    page = found.report(tmp_path / "page.html").read_text()
    assert "3 latents: the smallest" in page
    assert "Bound, residuals and agreement by the number of latents" in page
    assert "<th>sparsity</th>" not in page
    unmix.select(linear[0] ** 3, linear[1], n_latents=1, estimator=base, folder=tmp_path)
    assert len((tmp_path / SELECTED).read_text().splitlines()) == 3


@pytest.mark.slow
def test_select_compares_strengths_too(linear, tmp_path):
    found = unmix.select(*linear, n_latents=1, sparsity=[0.0, "auto"], estimator=CGVAE(**SHORT))
    assert found.to_frame()["sparsity"].tolist() == [0.0, "auto"]
    assert found.sparsity in (0.0, "auto")
    assert "sparsity=" in str(found)
    assert "<th>sparsity</th>" in found.report(tmp_path / "page.html").read_text()


@pytest.mark.parametrize("numbers", [[], range(0), 0, [1, 0], range(5, 12), [2.5], ["2"], "auto", [True]])
def test_a_range_without_a_valid_number_is_refused(numbers, linear):
    with pytest.raises(SettingError, match="whole numbers from 1 to 6, the number of features; got"):
        unmix.select(*linear, n_latents=numbers, estimator=CGVAE(**SHORT))


def test_select_refuses_other_settings_before_any_fit(linear):
    for words in ({"sparsity": []}, {"sparsity": -1.0}, {"estimator": CGVAE(n_restarts=0)}):
        with pytest.raises(SettingError):
            unmix.select(*linear, n_latents=2, **words)


# --- the command line ---


@pytest.fixture
def file(linear, tmp_path):
    linear[0].assign(d=linear[1]).to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.slow
def test_the_command_line_selects(file, tmp_path):
    words = ("select", file, "--domain", "d", "--latents", "3", "--restarts", "1", "--epochs", "2")
    done = run(*words, "--out", tmp_path / "s")
    assert done.exit_code == 0, done.output
    assert "3 latents: the smallest" in done.output
    assert len(pd.read_csv(tmp_path / "s/selection.csv")) == 1
    assert (tmp_path / "s/select.html").exists()


@pytest.mark.parametrize(
    ("text", "said"), [("8-2", "no number at all"), ("2-99", "got 7"), ("two", "such as 2-8"), ("0", "got 0")]
)
def test_the_command_line_refuses_what_is_no_range(text, said, file):
    found = run("select", file, "--domain", "d", "--latents", text)
    assert isinstance(found.exception, SettingError)
    assert said in str(found.exception)


@pytest.mark.slow
def test_a_fit_of_the_command_line_takes_auto(file, tmp_path):
    done = run(
        "fit", file, "--domain", "d", "--restarts", "1", "--epochs", "12", "--verbose", "0", "--out", tmp_path / "r"
    )
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "r/config.json").read_text())
    assert config["settings"]["n_latents"] == "auto"
    assert config["fitted"]["n_latents"] == len(pd.read_csv(tmp_path / "r/mixing.csv").columns) - 1
    found = run("fit", file, "--domain", "d", "--latents", "x", "--out", tmp_path / "q")
    assert "whole number ≥ 1, or auto" in str(found.exception)


@pytest.mark.slow
def test_a_selection_leaves_the_rows_of_a_study_alone(tmp_path):
    data = unmix.datasets.make_sparse_mixing(n_latents=1, n_features=3, n_domains=2, n_samples=60)
    (tmp_path / "rows.jsonl").write_text('{"key": "of a study"}\n')
    unmix.select(data.x, data.domains, n_latents=[1], estimator=CGVAE(n_restarts=1, max_epochs=1), folder=tmp_path)
    assert (tmp_path / "rows.jsonl").read_text() == '{"key": "of a study"}\n'
