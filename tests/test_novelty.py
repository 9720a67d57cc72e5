"""New latents and a new mixing, told apart."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import QUICK
from typer.testing import CliRunner

import unmix
from unmix import CGVAE, DataWarning
from unmix.audit import novelty
from unmix.baselines import IVAE, BetaVAE
from unmix.cli import app
from unmix.errors import DataError, DomainError

PROBLEM = {"n_latents": 2, "n_features": 6, "n_domains": 4, "n_samples": 1600, "random_state": 2}


@pytest.fixture(scope="module")
def rows():
    data = unmix.datasets.make_sparse_mixing(**PROBLEM)
    return pd.DataFrame(data.x, columns=data.feature_names), data.domains


@pytest.fixture(scope="module")
def model(rows):
    x, domains = rows
    seen = domains < 3
    return CGVAE(**QUICK | {"max_epochs": 8}).fit(x[seen][:900], domains[seen][:900])


def test_known_domains_are_as_known_and_a_changed_feature_is_a_new_mixing(model, rows):
    x, domains = rows
    seen = domains < 3
    fresh, labels = x[seen][900:], domains[seen][900:]
    found = model.novelty(fresh, labels)
    assert not found.new_mixing
    assert found.domains["domain"].tolist() == [str(label) for label in dict.fromkeys(labels.tolist())]
    assert found.domains["rows"].sum() == len(fresh) == len(found.rows)
    assert 0.85 < found.rows["inside"].mean() <= 1
    inside = found.rows["inside"]
    assert found.rows.loc[~inside, "mixing_p"].isna().all()
    # Conformal: of rows like those held out a twentieth is below a twentieth.
    assert (found.rows.loc[inside, "mixing_p"] < 0.05).mean() < 0.12
    changed = fresh.assign(x2=-fresh["x2"])
    other = model.novelty(changed)
    assert other.new_mixing
    assert other.domains["verdict"].tolist() == ["new mixing"]
    assert other.domains["ratio"].item() > 2
    assert "a new mixing" in str(other)
    assert "these rows (" in str(other)


def test_rows_of_the_model_in_a_new_domain_are_no_new_mixing(model):
    """What the model itself makes of latents far from the known domains."""
    z = np.random.default_rng(0).standard_normal((400, 2)) * 0.3 + model.description_.location[:, [0, 1]].mean(axis=0)
    noise = model.model_.likelihood.noise.std().detach().numpy()[0, 0] * np.array(model.schema_.scale)
    x = model.inverse_transform(z) + noise * np.random.default_rng(1).standard_normal((400, 6))
    x = pd.DataFrame(x, columns=model.schema_.names)
    found = model.novelty(x)
    assert not found.new_mixing
    far = model.novelty(pd.DataFrame(model.inverse_transform(np.full((40, 2), 30.0)), columns=x.columns))
    assert far.rows["latents_p"].max() < 0.05
    assert far.domains["inside"].item() == 0.0


def test_rows_outside_the_range_say_nothing_about_the_mixing(model, rows):
    x, domains = rows
    known = x[domains < 3][900:1000]
    far = 8.0 * known[known.columns[::-1]].set_axis(known.columns, axis=1)
    far = far[~model.novelty(far).rows["inside"].to_numpy()]
    found = model.novelty(pd.concat([known, far]))
    inside = found.rows["inside"].to_numpy()
    assert inside[:100].mean() > 0.8
    assert not inside[100:].any()
    assert found.wrong_outside
    assert not found.new_mixing
    assert found.domains["verdict"].tolist() == ["wrong outside the range"]
    assert "Trust the latents of the rows inside alone" in str(found)
    alone = model.novelty(far)
    assert alone.new_mixing
    assert alone.domains["mixing_p"].item() == alone.domains["outside_p"].item()
    with pytest.warns(DataWarning, match="'new' lie outside the range of the fit"):
        model.adapt(pd.concat([known, far]), domain="new")


def test_what_cannot_be_told_is_not_told(model, rows):
    few = model.novelty(rows[0][:10])
    assert few.domains["verdict"].tolist() == ["cannot tell"]
    assert not few.new_mixing
    said = "too few rows to tell whether the mixing is that of the fit: 20 rows inside that range are needed"
    assert f"{said}, among these and among those held out at fit" in str(few)


def test_a_test_that_was_made_is_said_where_the_range_cannot_be_told():
    row = {"inside": np.nan, "mixing_p": 0.001, "outside_p": 0.001, "feature": "a", "ratio": 3.0}
    assert "a new mixing" in novelty._of_mixing(row)
    assert "at fit at least 20 must be held out" in novelty._of_mixing(row | {"mixing_p": np.nan})


def test_what_calibrates_is_saved_and_old_folders_say_so(model, rows, tmp_path):
    x, domains = rows
    loaded = unmix.load(model.save(tmp_path / "model"))
    pd.testing.assert_frame_equal(loaded.novelty(x, domains).domains, model.novelty(x, domains).domains)
    assert (
        model.adapt(x[domains == 3], domain=3).novelty(x[domains == 3]).domains["rows"].item() == (domains == 3).sum()
    )
    loaded.fit_ = replace(loaded.fit_, summary=replace(loaded.fit_.summary, residuals=None))
    old = unmix.load(loaded.save(tmp_path / "old"))
    np.testing.assert_array_equal(old.transform(x), model.transform(x))
    with pytest.raises(DataError, match="Fit again, with validation_fraction above 0"):
        old.novelty(x)


def test_models_without_a_prior_of_domains_and_those_whose_encoder_takes_it(rows):
    x, domains = rows
    words = QUICK | {"max_epochs": 1}
    assert len(BetaVAE(**words).fit(x, domains).novelty(x[:50]).rows) == 50
    with pytest.raises(DomainError, match="The encoder of IVAE needs the domain"):
        IVAE(**words).fit(x, domains).novelty(x)


@pytest.mark.slow
def test_missing_entries_are_left_out(rows):
    x, domains = rows
    gaps = x.mask(np.random.default_rng(0).random(x.shape) < 0.1)
    model = CGVAE(**QUICK, missing="mask").fit(gaps[:1000], domains[:1000])
    found = model.novelty(gaps[1000:])
    assert found.domains["mixing_p"].notna().all()
    assert not found.new_mixing
    assert model.novelty(gaps[1000:].assign(x0=5 - gaps["x0"][1000:])).new_mixing


def test_transform_writes_it(model, rows, tmp_path):
    x, domains = rows
    run, file, out = model.save(tmp_path / "run"), tmp_path / "new.csv", tmp_path / "out.csv"
    x.assign(domain=domains).to_csv(file, index=False)
    words = ["transform", str(run), str(file), "--out", str(out), "--novelty"]
    said = CliRunner().invoke(app, words, catch_exceptions=False)
    assert said.exit_code == 0
    assert said.output.count("inside the range of the fit") == 4
    assert {"z0", "latents_p", "inside", "mixing_p", "mixing_feature"} <= set(pd.read_csv(out).columns)
    x.assign(inside=1).to_csv(file, index=False)
    with pytest.raises(unmix.errors.SchemaError, match="which --novelty writes"):
        CliRunner().invoke(app, [*words, "--overwrite"], catch_exceptions=False)


@pytest.mark.parametrize("kind", ["negative_binomial", "bernoulli"])
def test_counts_of_other_sizes_are_no_new_mixing_and_features_that_follow_no_latent_are(kind):
    """What is left of a count has one law however large it is expected to be; its logarithm has not."""
    rng = np.random.default_rng(0)
    domains, many = np.repeat(np.arange(4), 400), 1.0 if kind == "bernoulli" else 6.0
    z = rng.standard_normal((1600, 2)) * np.array([0.5, 1.0, 1.5, 0.7])[domains, None]
    z += np.array([[-1.0, 0.0], [0.0, 1.0], [1.0, -1.0], [0.8, 0.8]])[domains]
    eta = z @ np.kron(np.eye(2), np.ones(4)) * np.tile([0.8, -0.8], 4)
    eta *= 3.0 if kind == "bernoulli" else 1.0

    def observed(eta):
        if kind == "bernoulli":
            return (rng.random(eta.shape) < 1 / (1 + np.exp(-eta))).astype(float)
        return rng.poisson(many * np.exp(eta) * rng.gamma(5.0, 0.2, eta.shape)).astype(float)

    x, seen = observed(eta), domains < 3
    model = CGVAE(2, likelihood=kind, n_restarts=1, max_epochs=20, size_factors=None, verbose=0)
    model.fit(x[seen], domains[seen])
    assert not model.novelty(x[~seen]).new_mixing
    other = eta[~seen].copy()
    other[:, 3] = rng.permutation(other[:, 3])
    found = model.novelty(observed(other))
    assert found.new_mixing
    assert found.domains["feature"].tolist() == ["x3"]
