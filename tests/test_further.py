"""Starts that find different latents: what the domains tell beyond them, and copies that are trained further."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

import unmix
from unmix.datasets import make_sprites
from unmix.distributions.prior import GaussianPrior, SplinePrior
from unmix.errors import TrainingError
from unmix.estimators.cgvae import CGVAE
from unmix.fits import further
from unmix.fits.further import replaced, told_beyond, train_further
from unmix.nets.layers import generators
from unmix.train.fit import TrainingResult, TrainingSettings
from unmix.train.fit import fit as train_model

SOURCE = np.random.default_rng(0)
N, N_DOMAINS = 3_000, 6
DOMAINS = np.arange(N) % N_DOMAINS
MEANS, SHIFTS = SOURCE.normal(size=N_DOMAINS) * 1.5, SOURCE.normal(size=N_DOMAINS)
CHANGING = SOURCE.normal(size=N) + MEANS[DOMAINS]
CONSTANT = SOURCE.normal(size=N)
OTHER = SOURCE.normal(size=N) + SHIFTS[DOMAINS]
# Two latents that are mixtures, between one that is a factor.
LATENTS = np.column_stack([CHANGING + CONSTANT, OTHER, CHANGING - CONSTANT])
MISSED = np.array([2, 0])


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(abs(np.corrcoef(one, other)[0, 1]))


@pytest.fixture(scope="module")
def told() -> np.ndarray:
    return told_beyond(LATENTS, MISSED, DOMAINS, 0)


def log_posterior(*densities: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Log p(u | factors) (rows, domains) for normal factors of variance 1, by Bayes' rule; a fifth of chance added."""
    joint = sum(-0.5 * (values[:, None] - means) ** 2 for values, means in densities)
    return np.log(np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)) + 0.2 / N_DOMAINS)


def test_what_domains_tell_beyond_is_that_of_the_exact_probabilities(told: np.ndarray) -> None:
    exact = log_posterior((CHANGING, MEANS), (OTHER, SHIFTS)) - log_posterior((OTHER, SHIFTS))
    score = PCA(1).fit_transform(exact)[:, 0]
    assert correlation(told, np.tanh(score / score.std())) > 0.97
    assert correlation(told, CHANGING) > 0.92
    assert max(correlation(told, LATENTS[:, place]) for place in MISSED) < 0.9
    assert (told.mean(), told.std()) == pytest.approx((0, 1))


def test_of_rare_domains_nothing_is_learnt_and_all_rows_are_told() -> None:
    labels = DOMAINS.copy()
    labels[:7], labels[7:10] = N_DOMAINS, -1
    found = told_beyond(LATENTS, MISSED, labels, 0)
    assert np.isfinite(found).all()
    assert correlation(found, CHANGING) > 0.92


@pytest.mark.parametrize(("n_rows", "n_domains"), [(45, 2), (400, 20)])
@pytest.mark.filterwarnings("error")
def test_few_rows_are_enough_for_an_answer(n_rows: int, n_domains: int) -> None:
    found = told_beyond(LATENTS[:n_rows], MISSED, np.arange(n_rows) % n_domains, 0)
    assert found.std() == pytest.approx(1)


def test_missed_latents_give_way_to_what_is_told_and_what_is_left(told: np.ndarray) -> None:
    wanted = replaced(LATENTS, MISSED, told, 0)
    np.testing.assert_array_equal(wanted[:, 1], LATENTS[:, 1])
    np.testing.assert_array_equal(wanted[:, MISSED[0]], told)
    assert correlation(wanted[:, MISSED[1]], CONSTANT) > 0.95
    assert correlation(wanted[:, MISSED[1]], told) < 0.05


@pytest.mark.parametrize("interactions", [0.0, 0.1])
def test_splines_begin_at_the_gaussian_prior(interactions: float) -> None:
    sizes = (3, 4, interactions)
    gaussian, spline = (kind(generators(1, 2), *sizes) for kind in (GaussianPrior, SplinePrior))
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (*gaussian.parameters(), *spline.parameters()):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=source))
    spline.begin_at(gaussian)
    z, design = torch.randn(2, 50, 3, generator=source) * 3, torch.randn(50, 4, generator=source)
    torch.testing.assert_close(spline(design).log_prob(z), gaussian(design).log_prob(z))


class Trained:
    """A network of three starts that was trained for a few epochs, and its rows."""

    def __init__(self) -> None:
        data = unmix.datasets.make_sparse_mixing(n_latents=3, n_features=6, n_domains=3, n_samples=600, random_state=4)
        model = CGVAE(n_latents=3, n_restarts=3, max_epochs=2, verbose=0)
        prepared = model._prepare(data.x, data.domains, 0)
        self.groups, self.settings = prepared.groups[prepared.train], TrainingSettings(max_epochs=2)
        self.train = prepared.rows.take(slice(0, prepared.n_train))
        self.held_out = prepared.rows.take(slice(prepared.n_train, None))
        self.network = model._network(prepared.features, prepared.domains, 0, 3)
        self.result = self.fit(self.network)
        self.before = {name: value.clone() for name, value in self.network.state_dict().items()}

    def fit(self, network: torch.nn.Module) -> TrainingResult:
        return train_model(network, self.train, self.held_out, self.settings)

    def further(self, fit: object, *, splines: bool = True) -> TrainingResult:
        words = (self.network, self.result, self.train, self.held_out, self.groups, 0)
        return train_further(*words, fit, splines=splines)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    for name, value in {"_MOST_ROUNDS": 1, "_STEPS": 20, "_TAUGHT_STEPS": 20}.items():
        monkeypatch.setattr(further, name, value)
    return Trained()


def test_only_starts_whose_copies_are_better_give_way(trained: Trained) -> None:
    copies = []

    def fit(network: torch.nn.Module) -> TrainingResult:
        found = trained.fit(network)
        copies.append({name: value.clone() for name, value in network.state_dict().items()})
        found.objective[:] = [own + change for own, change in zip(trained.result.objective, (-1, 1, -1), strict=True)]
        found.blocks[:] = trained.result.blocks + np.array([-1, 1, -1])
        return found

    result = trained.further(fit, splines=False)
    state = trained.network.state_dict()
    for name, value in copies[0].items():
        torch.testing.assert_close(state[name][[0, 2]], value[[0, 2]], rtol=0, atol=0)
        torch.testing.assert_close(state[name][1], trained.before[name][1], rtol=0, atol=0)
    before = trained.result
    assert result.objective == [before.objective[0] - 1, before.objective[1], before.objective[2] - 1]
    np.testing.assert_allclose(result.blocks, before.blocks + np.array([-1, 0, -1]))
    assert [row["start"] for row in result.history[len(before.history) :]] == [0, 2] * 2
    assert [row["epoch"] for row in result.history[len(before.history) :]] == [3, 3, 4, 4]
    assert result.n_epochs == 4
    assert result.stop_reason == f"{before.stop_reason}; then 2 epochs more"


@pytest.mark.parametrize("fails", [False, True])
def test_where_no_copy_is_better_or_can_be_trained_all_stays(trained: Trained, fails: bool) -> None:
    def fit(network: torch.nn.Module) -> TrainingResult:
        found = trained.fit(network)
        found.objective[:] = trained.result.objective
        if fails:
            raise TrainingError("every start became non-finite")
        return found

    result = trained.further(fit)
    assert isinstance(trained.network.domain_prior, GaussianPrior)
    for name, value in trained.network.state_dict().items():
        torch.testing.assert_close(value, trained.before[name], rtol=0, atol=0)
    assert result.history == trained.result.history
    assert result.objective == trained.result.objective
    assert result.seconds > trained.result.seconds


@pytest.mark.parametrize(("stopped", "rounds"), [(False, 3), (True, 1)])
def test_a_callback_that_ends_a_round_ends_all(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, stopped: bool, rounds: int
) -> None:
    monkeypatch.setattr(further, "_MOST_ROUNDS", 3)
    calls = 0

    def fit(network: torch.nn.Module) -> TrainingResult:
        nonlocal calls
        calls += 1
        objective = [own - calls for own in trained.result.objective]
        return replace(trained.fit(network), objective=objective, stopped=stopped)

    assert trained.further(fit).objective == [own - rounds for own in trained.result.objective]
    assert calls == rounds


def test_nothing_is_trained_where_starts_agree_or_domains_tell_nothing(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: torch.nn.Module) -> TrainingResult:
        raise AssertionError("there is nothing to train")

    trained.groups = np.zeros_like(trained.groups)
    assert trained.further(never).history == trained.result.history
    trained = Trained()
    monkeypatch.setattr(further, "REPEATS", 0.0)
    assert trained.further(never).history == trained.result.history


@pytest.fixture(scope="module")
def sprites() -> unmix.datasets.ImageData:
    return make_sprites(400, size=16, n_domains=3, random_state=1)


def codes(images: np.ndarray) -> np.ndarray:
    """Eight blurred views of an image."""
    turn = np.random.default_rng(0).normal(size=(images[0].size, 8))
    return np.tanh(images.reshape(len(images), -1) / 255 @ turn / 10)


def from_codes(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.mean(1), 768).reshape(-1, 16, 16, 3) * 255


@pytest.mark.filterwarnings("ignore::unmix.errors.DataWarning")
def test_images_are_trained_further_and_their_models_load(
    sprites: unmix.datasets.ImageData,
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("unmix.estimators.cgvae.long_training", lambda *_: True)
    words = {"n_latents": 3, "n_restarts": 2, "max_epochs": 15, "autoencoder": (codes, from_codes), "verbose": 1}
    model = unmix.CGVAEImages(**words).fit(sprites.images, sprites.domains)
    assert "training them further" in capsys.readouterr().err
    assert model.stop_reason_.endswith("; then 15 epochs more")
    assert model.model_.inner.config.prior == "spline"
    model.save(tmp_path / "model")
    loaded = unmix.load(tmp_path / "model").set_params(autoencoder=(codes, from_codes))
    np.testing.assert_array_equal(loaded.transform(sprites.images), model.transform(sprites.images))
    gaussian = unmix.CGVAEImages(**words, prior="gaussian").fit(sprites.images, sprites.domains)
    assert gaussian.model_.inner.config.prior == "gaussian"
    monkeypatch.setattr(further, "_MOST_ROUNDS", 0)
    alone = unmix.CGVAEImages(**words).fit(sprites.images, sprites.domains)
    reached = [own.restarts_["held_out_objective"].min() for own in (model, alone)]
    assert reached[0] < reached[1]


def test_a_callback_that_ends_the_training_ends_it(
    sprites: unmix.datasets.ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmix.estimators.cgvae.long_training", lambda *_: True)
    seen: list[int] = []
    words = {"n_latents": 3, "n_restarts": 2, "max_epochs": 15, "autoencoder": (codes, from_codes), "verbose": 0}

    def stop(epoch: object) -> bool:
        seen.append(epoch.epoch)
        return epoch.epoch == 3

    unmix.CGVAEImages(**words).fit(sprites.images, sprites.domains, callbacks=[stop])
    assert seen == [1, 2, 3]
