"""Intervals of the translation benchmark: of what resampling cannot change nothing varies, and pairs are compared.

Two fits from one training are those of two trainings.
"""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from unmix import ImageTranslator, datasets

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def path():
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def terms(path):
    return importlib.import_module("translator_terms")


@pytest.fixture(scope="module")
def translators(path):
    return importlib.import_module("translators")


def sums(method, seed, content, error):
    rows = pd.DataFrame({"shown": list("abcdef"), "unseen": False, "error": error, "content": content, "style": 8.0})
    return rows.assign(n=10, data="faces", method=method, seed=seed, steps=9, channels=8, judges="a/b")


def test_a_method_is_compared_with_the_default_of_its_seed(terms):
    easy = np.array([1.0, 3, 5, 7, 9, 9])
    rows = pd.concat([sums("not sharpened", seed, easy, 40.0) for seed in (1, 2)] + [sums("worse", 2, easy - 1, 90.0)])
    found = terms.compared(rows).set_index(["method", "seed"])
    own = found.loc[("worse", 2)]
    assert own["rmse_difference"] == "1.000 (1.000 to 1.000)"
    assert own["content_difference"] == "-0.100 (-0.100 to -0.100)"
    assert own["style"] == "0.800 (0.800 to 0.800)"
    mean, low, high = (float(word.strip("()")) for word in own["content"].split() if word != "to")
    assert low < mean < high
    assert mean == pytest.approx((easy - 1).mean() / 10, abs=1e-3)
    assert [seed for method, seed in found.index if method == "not sharpened"] == [1, 2, "mean"]
    assert found.loc[("not sharpened", 1)].dropna().tolist() == (found.loc[("not sharpened", "mean")].dropna().tolist())
    elsewhere = rows.assign(judges=rows["method"].map({"worse": "c/d"}).fillna("a/b"))
    assert set(terms.compared(elsewhere)["method"]) == {"not sharpened"}


def test_what_training_lacks_is_compared_by_itself(terms):
    rows = pd.concat([sums("not sharpened", 1, 5.0, 40.0), sums("not sharpened", 1, 2.0, 90.0).assign(unseen=True)])
    assert terms.compared(rows)["content"].tolist() == ["0.500 (0.500 to 0.500)"]
    assert terms.compared(rows, unseen=True)["rmse"].tolist() == ["3.000 (3.000 to 3.000)"]


@pytest.mark.slow
def test_one_training_gives_the_default_and_the_sharpened_fit(translators, monkeypatch):
    monkeypatch.setitem(translators.TERMS, "ImageTranslator", {"sharpen_steps": 8})
    faces = datasets.make_typefaces(4, characters="abcdefgh")
    once = translators.fitted_twice(SimpleNamespace(images=faces.images, domains=faces.domains), 3, 100, 4)
    shown = faces.images[:6], faces.domains[:6]
    made = {name: model.translate(*shown, to="italic") for name, (model, _) in once.items()}
    for name, (_, seconds) in once.items():
        words = translators.TERMS[name]
        alone = ImageTranslator(max_steps=100, channels=4, random_state=3, verbose=0, **words)
        np.testing.assert_array_equal(alone.fit(faces.images, faces.domains).translate(*shown, to="italic"), made[name])
        assert seconds > 0
    assert (made["ImageTranslator"] != made["not sharpened"]).any()
