"""Combinations of two domain columns that no row was of: drawn, carried to, and refused where they mean nothing."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK

import unmix
from unmix import CGVAE
from unmix.errors import DataError, DomainError
from unmix.models.adapting import domain_prior

TARGET = {"drug": "d1", "line": "l2"}


@pytest.fixture(scope="module")
def rows():
    """Latents with effects of two columns that add up; the second of the mixing's three features follows both."""
    rng = np.random.default_rng(0)
    drug, line = np.repeat([0, 1], 600), np.tile(np.arange(3), 400)
    z = np.stack([1.5 * drug, 1.0 * line], axis=1) + rng.standard_normal((1200, 2)) * np.exp(
        np.stack([0.5 * drug, -0.4 * line], axis=1)
    )
    x = np.stack([z[:, 0], z[:, 0] + np.tanh(z[:, 1]), z[:, 1]], axis=1) + 0.05 * rng.standard_normal((1200, 3))
    y = pd.DataFrame({"drug": [f"d{i}" for i in drug], "line": [f"l{j}" for j in line]})
    return pd.DataFrame(x, columns=["a", "b", "c"]), y, (y == pd.Series(TARGET)).all(axis=1).to_numpy()


@pytest.fixture(scope="module")
def model(rows):
    x, y, new = rows
    return CGVAE(**QUICK | {"max_epochs": 25}).fit(x[~new], y[~new])


def test_rows_of_it_are_nearer_than_those_of_any_known_combination(model, rows):
    x, y, new = rows
    real, source = x[new], ((y["drug"] == "d0") & (y["line"] == "l2")).to_numpy()
    drawn = model.sample(2000, domain=TARGET)
    carried = model.translate(x[source], y[source], to=TARGET)
    for made in (drawn, carried):
        assert np.abs(made.mean(axis=0) - real.mean(axis=0)).max() < 0.45
        np.testing.assert_allclose(np.log(made.std(axis=0) / real.std(axis=0)), 0.0, atol=0.35)
    assert np.abs(x[source].mean(axis=0) - real.mean(axis=0)).max() > 1.0
    # The feature that the drug leaves alone stays about as it was.
    assert np.abs(carried[:, 2] - x["c"][source]).mean() < 0.3


def test_it_is_the_same_said_in_any_way_and_after_adapt(model, rows):
    x, y, new = rows
    some, labels = x[~new][:30], y[~new][:30]
    carried = model.translate(some, labels, to=TARGET)
    table = pd.DataFrame([TARGET] * 30)[["line", "drug"]]
    np.testing.assert_array_equal(model.translate(some, labels, to=table), carried)
    np.testing.assert_array_equal(model.adapt(domain=TARGET).translate(some, labels, to=TARGET), carried)
    # From the new combination to a known one.
    assert np.isfinite(model.translate(x[new], y[new], to={"drug": "d0", "line": "l0"})).all()
    assert np.isfinite(model.score(x[new], y[new]))


def test_effects_add_up(model, rows):
    """Without interactions the prior of a combination is what its two levels say."""
    prior = domain_prior(model.model_)
    design = torch.zeros(3, 5)
    for row, (drug, line) in enumerate([(1, 2), (1, 0), (0, 2)]):
        design[row, drug] = design[row, 2 + line] = 1.0
    outer = prior.outer.detach().clone()
    try:
        prior.outer.data.zero_()
        new, first, second = prior.parameters_of(design)[1][0].detach()
        base = torch.zeros(1, 5)
        base[0, 0] = base[0, 2] = 1.0
        torch.testing.assert_close(new, first + second - prior.parameters_of(base)[1][0, 0].detach())
    finally:
        prior.outer.data.copy_(outer)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"drug": "d1"}, r"Domain columns \['line'\] are missing; the model was fitted with \['drug', 'line'\]"),
        ({"drug": "d9", "line": "l2"}, r"Labels \['d9'\] of 'drug' were not seen at fit.*use adapt"),
        ({"drug": "d1", "line": "l2", "dose": 3}, r"no domain column 'dose'; the model was fitted with"),
        ("d1 · l2", r"has 2 domain columns; pass a mapping such as \{'drug': 'd0', 'line': 'l0'\}"),
    ],
)
def test_what_is_no_combination_is_refused(model, rows, target, said):
    x, y, new = rows
    with pytest.raises(DomainError, match=said):
        model.translate(x[~new], y[~new], to=target)
    with pytest.raises(DomainError, match=said):
        model.sample(3, domain=target)


@pytest.mark.parametrize("kind", ["gaussian", "poisson", "bernoulli"])
def test_a_residual_moves_with_its_domain_where_latents_are_fewer_than_causes(kind):
    """One latent, and a feature beside it that differs between domains all by itself."""
    rng = np.random.default_rng(0)
    first, second = np.repeat([0, 1], 600), np.tile([0, 1], 600)
    z = rng.standard_normal(1200) * (0.6 + 0.5 * first) + 0.8 * second
    eta = np.stack([z, -z, 0.9 * z, 1.2 * first + 0.8 * second - 1.0], axis=1)
    if kind == "gaussian":
        x = eta + 0.3 * rng.standard_normal(eta.shape)
    elif kind == "poisson":
        x = rng.poisson(4.0 * np.exp(0.7 * eta)).astype(float)
    else:
        x = (rng.random(eta.shape) < 1 / (1 + np.exp(-2.0 * eta))).astype(float)
    y = pd.DataFrame({"a": first, "b": second}).astype(str)
    new = ((first == 1) & (second == 1)).astype(bool)
    words = {"n_latents": 1, "n_restarts": 1, "max_epochs": 12, "n_spare": 0, "likelihood": kind, "size_factors": None}
    model = CGVAE(**words, verbose=0).fit(x[~new], y[~new])
    source = (first == 0) & (second == 1)
    kept, moved = (
        model.translate(x[source], y[source], to={"a": "1", "b": "1"}, residual=word)[:, 3].mean()
        for word in (True, "domain")
    )
    real, before = x[new, 3].mean(), x[source, 3].mean()
    assert abs(moved - real) < 0.35 * abs(before - real)
    assert abs(moved - real) < abs(kept - real)
    # A row that is carried to its own domain stays as it is, whatever was left.
    own = model.translate(x[source], y[source], to={"a": "0", "b": "1"}, residual="domain")
    np.testing.assert_allclose(own, x[source], atol=1e-5)


def test_what_is_left_is_saved_and_models_without_it_say_so(model, rows, tmp_path):
    x, y, new = rows
    some, labels = x[~new][:20], y[~new][:20]
    moved = model.translate(some, labels, to=TARGET, residual="domain")
    assert np.isfinite(moved).all()
    loaded = unmix.load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.translate(some, labels, to=TARGET, residual="domain"), moved)
    wider = model.adapt(x[new], domain={"drug": "d2", "line": "l2"})
    np.testing.assert_allclose(wider.translate(some, labels, to=TARGET, residual="domain"), moved, atol=1e-5)
    loaded.fit_ = replace(
        loaded.fit_,
        summary=replace(
            loaded.fit_.summary, description=replace(loaded.description_, left_over=np.empty((0, 0), np.float32))
        ),
    )
    with pytest.raises(DataError, match="Fit again, or leave residual out"):
        loaded.translate(some, labels, to=TARGET, residual="domain")
