"""Intervals of the translation benchmark: of what resampling cannot change nothing varies, and pairs are compared."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def terms():
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("translator_terms")
    sys.path.remove(str(BENCHMARKS))


def sums(method, seed, content, error):
    rows = pd.DataFrame({"shown": list("abcdef"), "unseen": False, "error": error, "content": content, "style": 8.0})
    return rows.assign(n=10, data="faces", method=method, seed=seed, steps=9, channels=8)


def test_a_method_is_compared_with_the_default_of_its_seed(terms):
    easy = np.array([1.0, 3, 5, 7, 9, 9])
    rows = pd.concat(
        [sums("ImageTranslator", seed, easy, 40.0) for seed in (1, 2)] + [sums("worse", 2, easy - 1, 90.0)]
    )
    found = terms.compared(rows).set_index(["method", "seed"])
    own = found.loc[("worse", 2)]
    assert own["rmse_difference"] == "1.000 (1.000 to 1.000)"
    assert own["content_difference"] == "-0.100 (-0.100 to -0.100)"
    assert own["style"] == "0.800 (0.800 to 0.800)"
    mean, low, high = (float(word.strip("()")) for word in own["content"].split() if word != "to")
    assert low < mean < high
    assert mean == pytest.approx((easy - 1).mean() / 10, abs=1e-3)
    assert [seed for method, seed in found.index if method == "ImageTranslator"] == [1, 2, "mean"]
    assert found.loc[("ImageTranslator", 1)].drop("data").dropna().tolist() == (
        found.loc[("ImageTranslator", "mean")].drop("data").dropna().tolist()
    )


def test_what_training_lacks_is_compared_by_itself(terms):
    rows = pd.concat([sums("ImageTranslator", 1, 5.0, 40.0), sums("ImageTranslator", 1, 2.0, 90.0).assign(unseen=True)])
    assert terms.compared(rows)["content"].tolist() == ["0.500 (0.500 to 0.500)"]
    assert terms.compared(rows, unseen=True)["rmse"].tolist() == ["3.000 (3.000 to 3.000)"]
