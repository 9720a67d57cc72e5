"""Residuals whose variance differs between domains: other starts are trained, and the better fit is kept."""

from dataclasses import replace

import numpy as np
import pytest

import unmix
from unmix.audit.input import ResidualDependence
from unmix.datasets import make_sparse_mixing
from unmix.estimators import base
from unmix.fits.latent import finish_fit as finish

pytestmark = pytest.mark.filterwarnings("ignore:The noise of the feature:unmix.errors.DataWarning")
DATA = make_sparse_mixing(n_latents=3, n_features=6, n_domains=3, n_samples=600, random_state=4)


def fitted(random_state: int, **words: object) -> unmix.CGVAE:
    settings = {"n_latents": 3, "n_restarts": 1, "max_epochs": 4, "verbose": 0, "random_state": random_state}
    return unmix.CGVAE(**{**settings, **words}).fit(DATA.x, DATA.domains)


def objective(model: unmix.CGVAE) -> float:
    return float(model.fit_.starts["held_out_objective"][model.fit_.best])


@pytest.fixture
def differing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ResidualDependence, "noise_differs", property(lambda _: True))
    monkeypatch.setattr("unmix.estimators.cgvae.long_enough", lambda _: True)


def test_the_better_of_two_trainings_is_kept(request: pytest.FixtureRequest) -> None:
    seeds = (6, 7)
    others = [int(np.random.SeedSequence(seed).generate_state(1)[0]) for seed in seeds]
    alone = [(fitted(seed), fitted(other)) for seed, other in zip(seeds, others, strict=True)]
    request.getfixturevalue("differing")
    for seed, pair in zip(seeds, alone, strict=True):
        model = fitted(seed)
        best = min(pair, key=objective)
        np.testing.assert_array_equal(model.transform(DATA.x), best.transform(DATA.x))
        assert objective(model) == objective(best)
        assert model.fit_.parameters["random_state"] == model.fit_.seed == seed
    assert len({objective(first) < objective(second) for first, second in alone}) == 2, "both kinds should occur"


def test_it_says_so_and_counts_both_trainings(
    differing: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lasting = iter((3.0, 4.0))
    monkeypatch.setattr(base, "finish_fit", lambda *own, **words: replace(finish(*own, **words), seconds=next(lasting)))
    epochs = []
    settings = {"n_latents": 3, "n_restarts": 1, "max_epochs": 4, "verbose": 1}
    model = unmix.CGVAE(**settings).fit(DATA.x, DATA.domains, callbacks=[lambda own: epochs.append(own.epoch)])
    assert epochs == [1, 2, 3, 4] * 2
    said = capsys.readouterr()
    assert "training again, from other random weights" in said.out + said.err
    assert model.fit_seconds_ == 7.0


def test_a_model_that_goes_on_is_not_trained_anew(differing: None) -> None:
    epochs: list[int] = []
    model = fitted(0, warm_start=True)
    model.fit(DATA.x, DATA.domains, callbacks=[lambda own: epochs.append(own.epoch)])
    assert len(epochs) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::unmix.errors.DataWarning")
def test_components_of_codes_are_trained_once(differing: None) -> None:
    """Their noise is mostly curvature, which differs between domains anyway."""
    data = unmix.datasets.make_sprites(n_samples=120, size=16, n_domains=2, random_state=0)
    epochs: list[int] = []
    model = unmix.CGVAEImages(n_latents=2, n_codes=4, widths=(4, 4), max_epochs=2, n_restarts=1, verbose=0)
    model.fit(data.images, data.domains, callbacks=[lambda own: epochs.append(own.epoch)])
    assert epochs == [1, 2]
