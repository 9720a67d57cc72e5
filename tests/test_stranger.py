"""What a fit says of small tables from elsewhere: true, and without a contradiction."""

import copy
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_wine

import unmix
from unmix.errors import DataWarning, SchemaError


@pytest.fixture(scope="module")
def wine():
    table = load_wine(as_frame=True)
    return table.data, table.target.map({0: "barolo", 1: "grignolino", 2: "barbera"}).rename("cultivar")


@pytest.fixture(scope="module")
def model(wine):
    return unmix.CGVAE(n_latents=2, n_restarts=1, max_epochs=2, random_state=0, verbose=0).fit(*wine)


def test_a_model_that_no_epoch_improved_says_so(wine, capsys, tmp_path):
    # With a third of the rows and a large step every epoch is worse than the linear beginning.
    x, y = wine[0][::3], wine[1][::3]
    settings = {"n_latents": 2, "n_restarts": 1, "max_epochs": 12, "learning_rate": 1.0, "random_state": 0}
    model = unmix.CGVAE(**settings).fit(x, y)
    assert int(model.restarts_["best_epoch"][0]) == 0
    said = "as it was before the first epoch"
    assert said in " ".join(capsys.readouterr().err.split())
    page = model.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert said in page


def test_a_trained_model_does_not_say_so(model, tmp_path):
    assert int(model.restarts_["best_epoch"][0]) > 0
    assert "before the first epoch" not in model.report(tmp_path / "page.html").read_text(encoding="utf-8")


def test_novelty_with_few_rows_says_what_it_takes(wine, model):
    # 30 rows, but 16 held out at fit: nothing is said of too few new rows where the known ones are too few.
    found = model.novelty(wine[0][:30] * 2)
    assert "too few rows to tell whether these lie in the range of the fit" in str(found)
    assert "at fit at least 20 must be held out" in str(found)
    assert found.domains["inside"].isna().all()
    assert found.domains["verdict"].tolist() == ["cannot tell"]


def test_refused_columns_stand_on_lines_of_their_own(wine, model):
    with pytest.raises(SchemaError, match=re.compile(r"^- alcohol$\nThe model was fitted on", re.MULTILINE)):
        model.transform(wine[0].drop(columns="alcohol"))


@pytest.mark.parametrize("rows", [3, 5])
def test_levels_with_few_rows_are_named_plainly(wine, model, rows):
    with pytest.raises(unmix.errors.DataError, match=f"to adapt to: 'K' of 'cultivar' has {rows}. Pass more"):
        model.adapt(wine[0][:rows], domain="K")


def test_novelty_of_rows_with_hardly_a_value(wine):
    rng = np.random.default_rng(0)
    x, y = pd.concat([wine[0]] * 3, ignore_index=True), np.tile(wine[1], 3)
    x += 0.1 * rng.normal(size=x.shape) * x.std().to_numpy()
    x = x.mask(rng.random(x.shape) < 0.05)
    settings = {"n_latents": 2, "n_restarts": 1, "max_epochs": 2, "random_state": 0, "verbose": 0}
    model = unmix.CGVAE(missing="mask", **settings).fit(x, y)
    # 30 rows inside the range, but no feature with 20 values.
    found = model.novelty(x[:30].mask(rng.random((30, 13)) < 0.6))
    assert found.domains["verdict"].tolist() == ["cannot tell"]


def test_a_choice_by_auto_is_not_told_to_try_auto(monkeypatch, model):
    monkeypatch.setattr("unmix.estimators.cgvae.long_enough", lambda model: True)
    monkeypatch.setattr("unmix.estimators.cgvae.STRONG", -1.0)
    with pytest.warns(DataWarning, match=r'Try n_latents=3 or more, or n_latents="auto"\.$'):
        model._warned()
    chosen = copy.copy(model).set_params(n_latents="auto")
    with pytest.warns(DataWarning, match=r"Try n_latents=3 or more\.$"):
        chosen._warned()


def test_the_page_of_an_adapted_model_counts_the_domains_of_the_fit(wine, model, tmp_path):
    wider = model.adapt(wine[0][:20], domain="K")
    page = " ".join(wider.report(tmp_path / "page.html").read_text(encoding="utf-8").split())
    assert "178 rows × 13 features from 3 domains" in page
    assert "Added later by <code>adapt</code>: K" in page
