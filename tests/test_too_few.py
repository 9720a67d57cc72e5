"""Fewer latents than factors, or fewer rows than networks need: the model is a linear one, and says so."""

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA

import unmix
from unmix.audit.finding import floored
from unmix.data.batches import Rows
from unmix.datasets import make_sparse_mixing
from unmix.distributions.likelihood import Noise, NoiseCourse
from unmix.estimators.selection import unfitted
from unmix.fits import choice
from unmix.fits.latent import LINEAR_MODEL
from unmix.models.cgvae import CGVAEConfig, CGVAENetwork
from unmix.objectives.rotation import Moments, SmoothL1, best_map, rotation_objective

# A bit more than a third of the default length, from which on a fit may say that latents are too few.
SETTINGS = {"n_restarts": 1, "n_spare": 0, "max_epochs": 75, "verbose": 0}
DATA = make_sparse_mixing(n_latents=3, n_features=6, n_domains=3, n_samples=1500, random_state=4)


def fitted(n_latents: int, **words: object) -> unmix.CGVAE:
    return unmix.CGVAE(n_latents, **{**SETTINGS, **words}).fit(DATA.x, DATA.domains)


@pytest.fixture(scope="module")
def too_few() -> unmix.CGVAE:
    with pytest.warns(unmix.errors.DataWarning, match="too few latents.*The model is the linear model"):
        return fitted(2)


def test_the_model_is_linear_and_keeps_the_variance_of_pca(too_few: unmix.CGVAE) -> None:
    z = too_few.transform(DATA.x)
    ones = np.column_stack([np.ones(len(DATA.x)), DATA.x])
    residual = z - ones @ np.linalg.lstsq(ones, z, rcond=None)[0]
    assert np.abs(residual).max() < 1e-4

    x = (DATA.x - DATA.x.mean(0)) / DATA.x.std(0)
    back = (too_few.inverse_transform(z) - DATA.x.mean(0)) / DATA.x.std(0)
    pca = PCA(2).fit(x)
    lost, lost_by_pca = (((x - own) ** 2).mean() for own in (back, pca.inverse_transform(pca.transform(x))))
    assert lost < lost_by_pca + 0.005


def test_it_does_not_depend_on_the_seed(too_few: unmix.CGVAE) -> None:
    with pytest.warns(unmix.errors.DataWarning, match="too few"):
        other = fitted(2, random_state=7)
    np.testing.assert_allclose(other.transform(DATA.x), too_few.transform(DATA.x), atol=1e-5)


def test_its_page_and_its_folder_say_so(too_few: unmix.CGVAE, tmp_path: Path) -> None:
    loaded = unmix.load(too_few.save(tmp_path / "run"))
    np.testing.assert_array_equal(loaded.transform(DATA.x), too_few.transform(DATA.x))
    for model in (too_few, loaded):
        page = Path(model.report(tmp_path / "page.html")).read_text()
        assert f"In place of the networks, the model is {LINEAR_MODEL}: {model.linear_reason_}." in page
        assert "It is fitted to all rows." in page
        assert model.linear_reason_ == "some features still depend on each other, given the latents"
        assert "no epoch lowered" not in page


@pytest.mark.filterwarnings("ignore::unmix.errors.DataWarning")
@pytest.mark.parametrize("words", [{"sparsity": 0.5}, {"max_epochs": 2}])
def test_only_where_default_settings_have_been_tried_in_earnest(
    words: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nor is a fit of full length trained that could not matter.
    monkeypatch.setattr("unmix.estimators.cgvae.falls_short", lambda *_: pytest.fail("tried in vain"))
    assert not fitted(2, **words).fit_.summary.simplified


@pytest.mark.filterwarnings("error")
def test_enough_latents_are_trained() -> None:
    model = fitted(3)
    assert not model.fit_.summary.simplified
    assert model.residual_dependence_.correlation < 0.2


def test_entries_cost_by_their_size_but_small_ones_hardly_anything() -> None:
    rng = np.random.default_rng(0)
    jacobian = torch.tensor(rng.standard_normal((1, 2, 5)))
    eye = torch.eye(2, dtype=torch.float64)
    moments = Moments(eye[None], torch.ones(1, dtype=torch.float64), eye, jacobian)
    turn = torch.tensor(rng.standard_normal((1, 2, 2)))
    weights = np.abs(np.linalg.inv(turn[0].numpy()).T @ jacobian[0].numpy())
    weights = weights * np.linalg.norm(turn[0].numpy(), axis=1)[:, None]
    expected = np.log(np.linalg.norm(turn[0].numpy(), axis=1)).sum() - np.linalg.slogdet(turn[0].numpy())[1]
    expected += 0.3 * (np.hypot(weights, 0.1) - 0.1).sum()
    assert float(rotation_objective(turn, moments, 0.3, SmoothL1(0.1))[0][0]) == pytest.approx(expected)


def test_loadings_that_are_hidden_by_a_rotation_are_found_by_size() -> None:
    simple = torch.tensor([[1.0, 0.9, 0.8, 0.1, 0.0, 0.1], [0.0, 0.1, 0.1, 0.9, 1.0, 0.8]], dtype=torch.float64)
    angle = 0.6
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    eye = torch.eye(2, dtype=torch.float64)
    found = best_map(Moments(eye[None], eye.new_ones(1), eye, (turn @ simple)[None]), 0.5, 0, SmoothL1(0.1))
    assert found is not None
    loadings = torch.linalg.solve(found.T, turn @ simple).abs().numpy()
    loadings = loadings[np.argsort(loadings[:, 0])[::-1]]
    np.testing.assert_allclose(loadings, simple.abs(), atol=0.12)


def test_networks_that_keep_less_than_principal_components_give_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rows of one factor, too few of them for networks: the model is PCA, and it says so wherever it is shown."""
    rng = np.random.default_rng(3)
    x = np.outer(rng.standard_normal(120), [1.0, 0.9, 1.1, 1.0, -0.8]) + 0.2 * rng.standard_normal((120, 5))
    domains = np.arange(120) % 2
    monkeypatch.setattr(choice, "_LESS", -1.0)
    with pytest.warns(unmix.errors.DataWarning, match=r"keep less of the held-out variance \(0\.\d+\) than as many"):
        model = fitted_to(x, domains)
    own, linear = model.fit_.summary.less_kept
    assert own != pytest.approx(linear, abs=1e-6)
    z = np.column_stack([np.ones(120), model.transform(x)])
    back = model.inverse_transform(model.transform(x))
    np.testing.assert_allclose(z @ np.linalg.lstsq(z, back, rcond=None)[0], back, atol=1e-4)
    page = Path(model.report(tmp_path / "page.html")).read_text()
    keep = "the networks keep less" if own < linear else "within one standard error, the networks may keep less"
    assert model.linear_reason_.startswith(f"{keep} of the held-out variance ({own:.3f}) than as many principal")
    assert f"{model.linear_reason_}." in page
    loaded = unmix.load(model.save(tmp_path / "run"))
    assert loaded.fit_.summary.less_kept == pytest.approx((own, linear))
    monkeypatch.setattr(choice, "_LESS", 0.005)
    assert fitted_to(x, domains).fit_.summary.less_kept is None
    for shares, keep in (((0.6, 0.7), "the networks keep less of"), ((0.7, 0.6), "the networks may keep less of")):
        assert keep in str(replace(model.fit_.summary, less_kept=shares).why_linear)


def test_starts_that_find_other_latents_give_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in tables of too few rows; the model is linear, and says so wherever it is shown."""
    words = {"n_latents": 3, "n_restarts": 2}
    x = DATA.x[:300]
    usual = fitted_to(x, DATA.domains[:300], **words)
    assert usual.fit_.summary.disagreed is None
    assert usual.linear_reason_ == ""
    repeated = usual.latents_agreement_.mean()
    monkeypatch.setattr(choice, "REPEATS", repeated + 0.01)
    said = f"(correlation {floored(repeated)})"
    with pytest.warns(unmix.errors.DataWarning, match=rf"linear model.*find other latents {re.escape(said)}"):
        model = fitted_to(x, DATA.domains[:300], **words)
    assert model.fit_.summary.disagreed == pytest.approx(repeated)
    z = np.column_stack([np.ones(300), model.transform(x)])
    back = model.inverse_transform(model.transform(x))
    np.testing.assert_allclose(z @ np.linalg.lstsq(z, back, rcond=None)[0], back, atol=1e-4)
    for own in (model, unmix.load(model.save(tmp_path / "run"))):
        assert own.fit_.summary.disagreed == pytest.approx(repeated)
        page = Path(own.report(tmp_path / "page.html")).read_text()
        assert f"networks that begin elsewhere find other latents {said}" in own.linear_reason_
        assert f"{own.linear_reason_}." in page
        assert "The linear model itself is the same for every random_state." in page
        assert "no epoch lowered" not in page
    codes = unmix.CGVAE(**model.get_params())
    codes.on_codes = True
    assert codes.fit(x, DATA.domains[:300]).fit_.summary.disagreed is None
    monkeypatch.setattr(choice, "loses_little", lambda shares: True)
    assert fitted_to(x, DATA.domains[:300], **words).fit_.summary.disagreed is None


def lost(fitted_on: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Squared errors (rows, features) of ``x`` in three principal components of other rows."""
    pca = PCA(3).fit(fitted_on)
    return (x - pca.inverse_transform(pca.transform(x))) ** 2


def test_the_linear_model_is_that_of_all_rows_and_measured_without_those_held_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With so few rows for so many features much more is kept of rows in the fit than of others."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 3)) @ rng.standard_normal((3, 20)) + 2.0 * rng.standard_normal((90, 20))
    x, domains = (x - x.mean(0)) / x.std(0), np.arange(90) % 2
    monkeypatch.setattr(choice, "_LESS", -1.0)
    with pytest.warns(unmix.errors.DataWarning, match="linear model"):
        model = fitted_to(x, domains, n_latents=3, validation_fraction=0.3)
    own = (x - model.inverse_transform(model.transform(x))) ** 2
    assert own.mean() == pytest.approx(lost(x, x).mean(), rel=0.01)
    data = model._prepare(x, domains, 0)
    train, held_out = np.split(x[data.order], [data.n_train])
    for found in (model, unmix.load(model.save(tmp_path / "run"))):
        r2 = found.fit_.summary.description.r2
        np.testing.assert_allclose(r2, 1 - lost(train, held_out).mean(0) / held_out.var(0), atol=0.06)
        assert np.mean(1 - lost(x, held_out).mean(0) / held_out.var(0)) > r2.mean() + 0.05


def starts_that(objectives: list[float], failed: list[bool]) -> pd.DataFrame:
    return pd.DataFrame({"held_out_objective": objectives, "difference_error": 0.01, "failed": failed})


@pytest.mark.parametrize(
    ("correlations", "objectives", "failed", "expected"),
    [
        ([1.0, 0.6, 0.99, 0.97], [0.0, 0.0, 9.0, 9.0], [False] * 4, 0.97),  # those that fit worse speak for it
        ([1.0, 0.99, 0.5, 0.4], [0.0, 0.0, 9.0, 9.0], [False] * 4, 0.99),  # but not against it
        ([1.0, 0.6, 0.99, 0.97], [0.0, 0.0, np.inf, np.inf], [False, False, True, True], 0.6),
        ([1.0, 0.9, 0.8, 0.7], [0.0] * 4, [False] * 4, 0.8),
    ],
)
def test_starts_that_fit_worse_speak_for_latents_alone(
    correlations: list[float], objectives: list[float], failed: list[bool], expected: float
) -> None:
    found = np.repeat(np.array(correlations)[:, None], 2, axis=1)
    assert choice._repeated(found, starts_that(objectives, failed), best=0) == pytest.approx(expected)


def test_the_second_stage_of_images_is_told_that_it_sees_codes() -> None:
    factors = unmix.CGVAEImages()._factors()
    assert factors.on_codes
    assert unfitted(factors, n_latents=2).on_codes


def test_latents_are_compared_with_the_starts_that_fit_as_well() -> None:
    """Of three other starts one fits clearly worse, and one that fits worse may do so by chance."""
    found = np.array([[1.0, 1.0], [0.9, 0.5], [0.7, 0.7], [0.1, 0.1]])
    starts = pd.DataFrame({"held_out_objective": [1.0, 1.01, 1.2, 3.0], "difference_error": [0.0, 0.1, 0.2, 0.1]})
    np.testing.assert_allclose(choice.latents_agreement(found, starts, 0), [0.8, 0.6])
    assert np.isnan(choice.latents_agreement(found[:1], starts[:1], 0)).all()


def fitted_to(x: np.ndarray, domains: np.ndarray, **words: object) -> unmix.CGVAE:
    given = {"n_latents": 1, "n_restarts": 1, "n_spare": 0, "max_epochs": 400, "verbose": 0, **words}
    return unmix.CGVAE(**given).fit(x, domains)


def test_a_start_falls_short_where_it_keeps_less_within_one_standard_error() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((400, 2)).astype(np.float32))
    rows = Rows(x, None, torch.zeros(400, 0, dtype=torch.long), torch.zeros(400, 0), 0)
    whole = float(((x - x.mean(0)) ** 2).sum())

    def short(*lost: float) -> tuple[float, float] | None:
        """Of a model that loses these squared errors, in turn over the rows; the linear one loses 0.2 of each."""
        error = torch.tensor(np.resize(lost, 400), dtype=torch.float32).div(2).sqrt()[:, None]
        model: Any = SimpleNamespace(mean=lambda x, observed, design: x, reconstruct=lambda z: z + error)
        return choice.less_than_linear(choice.shares_kept(model, rows, np.full(400, 0.2)))

    assert short(0.2) is None
    assert short(0.2 + 0.9 * 0.005 * whole / 400) is None
    own, linear = short(0.2 + 1.1 * 0.005 * whole / 400)
    assert linear == pytest.approx(1 - 0.2 * 400 / whole)
    assert linear - own == pytest.approx(0.0055, rel=0.01)
    # No less in the mean, but it may be less.
    assert short(0.0, 0.4) is not None
    assert short(0.0, 0.1) is None


@pytest.mark.filterwarnings("ignore::unmix.errors.DataWarning")
def test_starts_that_fall_short_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = fitted(3, n_restarts=2)
    barred, turns = [usual.best_restart_], itertools.count()

    def falls_short(*_: object) -> tuple[float, float] | None:
        return (0.1, 0.2) if next(turns) % 2 in barred else None

    # The probe's single start comes first, and is not compared.
    monkeypatch.setattr(choice, "less_than_linear", falls_short)
    model = fitted(3, n_restarts=2)
    assert model.best_restart_ != usual.best_restart_
    assert model.fit_.summary.less_kept is None
    barred.append(1 - usual.best_restart_)
    model = fitted(3, n_restarts=2)
    assert model.best_restart_ == usual.best_restart_
    assert model.fit_.summary.less_kept == (0.1, 0.2)


@pytest.mark.filterwarnings("ignore::unmix.errors.DataWarning")
def test_as_many_latents_as_features_are_not_compared_with_components_that_lose_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "_LESS", -1.0)
    x = np.random.default_rng(0).standard_normal((300, 2))
    assert fitted_to(x, np.arange(300) % 2, n_latents=2).fit_.summary.less_kept is None


def test_the_first_start_shares_less_of_the_noise() -> None:
    noise = Noise(3, 2, 1.0, NoiseCourse(pooled=(0.1, 0.5)))
    with torch.no_grad():
        noise.log.copy_(torch.tensor([1.0, 3.0]).log().mul(0.5))
    torch.testing.assert_close(noise.std().square()[:, 0], torch.tensor([[1.1, 2.9], [1.5, 2.5], [1.1, 2.9]]))
    shares = [CGVAENetwork(CGVAEConfig(2, 4, n_starts=n)).likelihood.noise.shares.flatten().tolist() for n in (1, 4)]
    assert shares == [[0.5], pytest.approx([0.1, 0.5, 0.5, 0.5])]


@pytest.mark.parametrize(
    ("shares", "little"),
    [((0.9, 0.35, 0.02), True), ((0.9, 0.35, 0.07), False), ((0.84, 0.35, 0.0), True), ((0.83, 0.35, 0.0), False)],
)
def test_networks_lose_little_if_they_do_so_by_more_than_chance(
    shares: tuple[float, float, float], little: bool
) -> None:
    assert choice.loses_little(shares) == little


@pytest.mark.slow
def test_no_linear_model_stands_in_for_a_curved_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where networks keep far more than components, doubts of the number of latents do not make the model linear."""
    rng = np.random.default_rng(0)
    domains = np.arange(1500) % 3
    z = rng.uniform(-1, 1, 1500) * np.array([1.2, 1.8, 2.4])[domains]
    x = np.stack([np.cos(z), np.sin(z), np.cos(2 * z), np.sin(2 * z)], axis=1) + 0.05 * rng.standard_normal((1500, 4))
    monkeypatch.setattr("unmix.estimators.cgvae.falls_short", lambda *_: True)
    words = {"n_latents": 1, "n_restarts": 2, "verbose": 0}
    curved = unmix.CGVAE(**words).fit(x, domains)
    assert not curved.fit_.summary.simplified
    assert abs(np.corrcoef(curved.transform(x)[:, 0], z)[0, 1]) > 0.9
    straight = z[:, None] * [1.0, -1.0, 0.5, 2.0] + 0.3 * rng.standard_normal((1500, 4))
    with pytest.warns(unmix.DataWarning, match="The model is the linear model"):
        assert unmix.CGVAE(**words).fit(straight, domains).fit_.summary.simplified


@pytest.mark.parametrize("n_latents", [2, 3])
def test_as_many_latents_as_features_are_never_too_few(monkeypatch: pytest.MonkeyPatch, n_latents: int) -> None:
    """There residuals say nothing of the number: heavy tails and curves of the mixing leave them dependent."""
    monkeypatch.setattr("unmix.estimators.cgvae.probed", lambda *given: SimpleNamespace(independent=False, tails=0.0))
    monkeypatch.setattr("unmix.estimators.cgvae.falls_short", lambda *given: True)
    model = unmix.CGVAE(n_latents, **SETTINGS)
    data = model._prepare(DATA.x[:, :3], DATA.domains, 0)
    assert model._network_for(data, 0).doubted == (n_latents < 3)
