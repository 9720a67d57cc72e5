"""CEBRA: an adapter for a package that is installed or not."""

import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch

from unmix.baselines import CEBRA
from unmix.errors import DomainError, SchemaError, SettingError


@pytest.fixture
def stub(monkeypatch):
    module = types.ModuleType("cebra")

    class Method:
        def __init__(self, **words):
            self.words = words

        def fit(self, x, *labels):
            self.x, self.labels, self.draw = x, labels, torch.randn(2)

        def transform(self, x):
            return x[:, : self.words["output_dimension"]]

    module.CEBRA = Method
    monkeypatch.setitem(sys.modules, "cebra", module)


@pytest.mark.usefixtures("stub")
def test_cebra_gets_standardised_rows_and_labels(frame, labels):
    before = torch.random.get_rng_state()
    model = CEBRA(2, options={"temperature": 2.0}).fit(frame, labels)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.model_.words["temperature"] == 2.0
    assert model.model_.words["output_dimension"] == 2
    np.testing.assert_allclose(model.model_.x.std(axis=0), 1.0, atol=1e-5)
    (groups,) = model.model_.labels
    assert [model.domains_[group] for group in groups] == list(labels)
    assert model.transform(frame).shape == (600, 2)
    assert model.transform(frame.to_numpy().astype(np.float32)).dtype == np.float32
    assert torch.equal(CEBRA(2).fit(frame, labels).model_.draw, model.model_.draw)
    table = pd.DataFrame({"site": labels, "dose": np.linspace(0, 1, 600)})
    continuous, groups = CEBRA(2, auxiliary={"dose": "continuous"}).fit(frame, table).model_.labels
    assert continuous.shape == (600, 1)
    assert set(groups) == {0, 1, 2}
    with pytest.raises(DomainError, match="pass one label per row, or a table, as y"):
        CEBRA().fit(frame)
    with pytest.raises(SchemaError, match=r"fitted on the columns .*; got 3 columns"):
        model.transform(frame.iloc[:, :3])


def test_cebra_says_how_to_install_it(monkeypatch, frame, labels):
    monkeypatch.setitem(sys.modules, "cebra", None)
    with pytest.raises(SettingError, match=r"not installed here\. Install it with: pip install cebra"):
        CEBRA().fit(frame, labels)
