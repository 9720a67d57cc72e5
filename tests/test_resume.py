"""Checkpoints: written by the clock, resumed to the bit, and only by the run that they belong to."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK
from safetensors.torch import save_file

from unmix import CGGAN, CGVAE, load
from unmix.data.batches import Rows
from unmix.errors import SettingError, StorageError, TrainingError
from unmix.models.adversarial import Phase
from unmix.models.cggan import CGGANConfig, CGGANNetwork
from unmix.train import adversarial, starts
from unmix.train.adversarial import AdversarialSettings, fit_adversarial
from unmix.train.checkpoint import Checkpoint

TINY = {"n_latents": 3, "hidden": (6,), "max_steps": 4, "encoder_steps": 2, "batch_size": 8, "verbose": 0}
IMAGES = {**TINY, "channels": 2}


@pytest.fixture
def always(monkeypatch):
    """A checkpoint after every step."""
    monkeypatch.setattr("unmix.train.run.SECONDS_BETWEEN_CHECKPOINTS", -1.0)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8), np.repeat(["a", "b"], 12)


def rows_of(x):
    n = len(x)
    return Rows(torch.as_tensor(x), None, torch.arange(n).remainder(2)[:, None], torch.zeros(n, 0), 2)


class Stopped(CGGANNetwork):
    """Interrupted within a step, after the discriminator's turn; ``sick``: a step whose first try is not finite."""

    stop, sick = None, None

    def terms(self, phase, rows, source, step):
        terms = super().terms(phase, rows, source, step)
        if phase == "generator" and step == self.stop:
            raise KeyboardInterrupt
        if phase == "generator" and step == self.sick:
            self.sick = None
            terms["logistic"] = terms["logistic"] * float("nan")
        return terms


def interrupted_and_whole(x, tmp_path, *, stop, sick=None, **settings):
    """Networks and results of an uninterrupted run, and of one that was stopped in step ``stop`` and resumed."""

    def network(at=None):
        model = Stopped(CGGANConfig(**{"n_latents": 3, "n_style": 2, "n_design": 2, "hidden": (6,), **settings}))
        model.stop, model.sick = at, sick
        return model

    loop, rows = AdversarialSettings(batch_size=8, block=4), rows_of(x)
    whole, fresh = network(), network()
    expected = fit_adversarial(whole, rows, loop)
    with pytest.raises(KeyboardInterrupt):
        fit_adversarial(network(stop), rows, loop, checkpoint=tmp_path / "c")
    steps = []
    model_terms = fresh.terms
    fresh.terms = lambda phase, rows, source, step: steps.append(step) or model_terms(phase, rows, source, step)
    found = fit_adversarial(fresh, rows, loop, checkpoint=tmp_path / "c", resume=True)
    return whole, fresh, expected, found, steps


def assert_same(one, other):
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("sick", [None, 7])
def test_a_run_stopped_within_a_block_loses_no_finished_step(tmp_path, always, sick):
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    whole, fresh, expected, found, steps = interrupted_and_whole(
        x, tmp_path, stop=6, sick=sick, shape=(4,), steps=10, encoder_steps=3
    )
    assert steps[0] == 6
    assert found.history == expected.history
    assert [row["step"] for row in found.history] == [4, 8, 12, 13]
    assert (steps.count(4) > 0) == (sick is not None)
    assert_same(whole, fresh)


def test_without_the_clock_a_stopped_run_goes_back_to_the_end_of_a_block(tmp_path):
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    whole, fresh, expected, found, steps = interrupted_and_whole(
        x, tmp_path, stop=6, shape=(4,), steps=10, encoder_steps=3
    )
    assert steps[0] == 4
    assert found.history == expected.history
    assert_same(whole, fresh)


@pytest.mark.slow
def test_the_state_of_the_augmentation_is_resumed_too(tmp_path, always, images, monkeypatch):
    monkeypatch.setattr("unmix.nets.augment.IMAGES_TO_FULL", 40)
    monkeypatch.setattr("unmix.nets.augment.TARGET", -1.0)
    whole, fresh, expected, found, steps = interrupted_and_whole(
        images[0], tmp_path, stop=3, shape=(16, 16, 3), channels=2, steps=6, encoder_steps=1
    )
    assert steps[0] == 3
    assert whole.augmentation.item() > 0.1
    assert found.history == expected.history
    assert_same(whole, fresh)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["table", "images"])
def test_the_estimator_resumes_to_the_bit(kind, tmp_path, always, frame, labels, images, monkeypatch):
    data, settings = ((frame, labels), TINY) if kind == "table" else (images, IMAGES)
    expected = CGGAN(**settings).fit(*data)
    step = adversarial.AdversarialRun.step

    def stopping(run):
        if run.progress.step == 3:
            raise KeyboardInterrupt
        return step(run)

    with monkeypatch.context() as patch:
        patch.setattr(adversarial.AdversarialRun, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            CGGAN(**settings).fit(*data, checkpoint=tmp_path / "c")
    again = CGGAN(**settings).fit(*data, checkpoint=tmp_path / "c", resume=True)
    pd.testing.assert_frame_equal(again.history_, expected.history_)
    np.testing.assert_array_equal(again.transform(data[0]), expected.transform(data[0]))
    np.testing.assert_array_equal(again.mixing_, expected.mixing_)
    np.testing.assert_array_equal(again.sample(3, domain="b"), expected.sample(3, domain="b"))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 8])
def test_several_starts_keep_the_best_and_resume_to_the_bit(stop, tmp_path, always, frame, labels, monkeypatch):
    """TINY takes six steps per start."""
    ones = [CGGAN(**{**TINY, "random_state": seed}).fit(frame, labels) for seed in (0, 1000)]
    errors = [one.history_["encoder_real"].iloc[-1] for one in ones]
    best = ones[int(np.argmin(errors))]
    expected = CGGAN(**{**TINY, "random_state": 0, "n_restarts": 2}).fit(frame, labels)
    np.testing.assert_array_equal(expected.start_errors_, errors)
    pd.testing.assert_frame_equal(expected.history_, best.history_)
    np.testing.assert_array_equal(expected.transform(frame), best.transform(frame))
    step, taken = adversarial.AdversarialRun.step, []

    def stopping(run):
        if len(taken) == stop:
            raise KeyboardInterrupt
        taken.append(run)
        return step(run)

    path, settings = tmp_path / "c.safetensors", {**TINY, "random_state": 0, "n_restarts": 2}
    with monkeypatch.context() as patch:
        patch.setattr(adversarial.AdversarialRun, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            CGGAN(**settings).fit(frame, labels, checkpoint=path)
    taken.clear()
    stop = 100
    with monkeypatch.context() as patch:
        patch.setattr(adversarial.AdversarialRun, "step", stopping)
        again = CGGAN(**settings).fit(frame, labels, checkpoint=path, resume=True)
    assert 0 < len(taken) < 2 * expected.n_steps_
    np.testing.assert_array_equal(again.start_errors_, errors)
    np.testing.assert_array_equal(again.transform(frame), expected.transform(frame))
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.safetensors"]
    loaded = load(again.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.start_errors_, errors)
    assert loaded.best_restart_ == expected.best_restart_


@pytest.mark.parametrize(
    ("errors", "complexities", "kept"),
    [
        ((1.0, 1.09, 1.05), (3, 2, 2), 2),
        ((1.0, 1.11), (3, 2), 0),
        ((1.05, 1.0), (2, 2), 1),
        ((1.05, 1.0), (2, 3), 0),
        ((np.inf, 2.0), (1, 3), 1),
    ],
)
def test_of_starts_that_are_as_good_the_simplest_is_kept(monkeypatch, errors, complexities, kept):
    def fit(model, rows, settings, **words):
        if not np.isfinite(model.error):
            raise TrainingError("sick", [])
        return adversarial.AdversarialResult([{"error": model.error}], 1, 2.0)

    def model_of(seed):
        start = seed // 1000
        return SimpleNamespace(
            error=errors[start], complexity=lambda: complexities[start], phases=[Phase("a", (), 0, 1)]
        )

    monkeypatch.setattr(starts, "fit_adversarial", fit)
    settings = adversarial.AdversarialSettings()
    model, result, start, found = starts.fit_starts(model_of, len(errors), None, settings, judged_by="error")
    assert (model.error, start, found) == (errors[kept], kept, [*errors])
    assert result.history == [{"error": errors[kept]}]
    assert result.seconds == 2.0 * np.isfinite(errors).sum()


def test_files_that_only_look_like_those_of_starts_stay(tmp_path, frame, labels):
    """Names of the user's own beside a checkpoint, one of them a checkpoint of another run of unmix."""
    settings, path = {**TINY, "max_steps": 2, "encoder_steps": 1}, tmp_path / "run.st"
    CGGAN(**settings).fit(frame, labels, checkpoint=tmp_path / "run-start2.st")
    names = [
        "run-start2020.st",
        "run-start.st",
        "run-start1.st.bak",
        "Run-start1.st",
        "run-start03.st",
        "run-start2.st",
    ]
    for name in names[:-1]:
        (tmp_path / name).write_text("mine")
    before = {name: (tmp_path / name).read_bytes() for name in names}
    CGGAN(**settings, n_restarts=2).fit(frame, labels, checkpoint=path)
    assert {name: (tmp_path / name).read_bytes() for name in names} == before
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*names, "run.st"])
    path.unlink()
    with pytest.raises(
        StorageError, match=r"run-start2\.st is where the checkpoint of a further start belongs.*Move it"
    ):
        CGGAN(**settings, n_restarts=3).fit(frame, labels, checkpoint=path)
    assert not path.exists()


def test_one_start_may_fail_and_what_an_earlier_run_left_is_removed(tmp_path, frame, labels, monkeypatch):
    fit = starts.fit_adversarial

    def failing(model, *arguments, **words):
        if model.config.seed in seeds:
            raise TrainingError("sick", [])
        return fit(model, *arguments, **words)

    monkeypatch.setattr(starts, "fit_adversarial", failing)
    stale = tmp_path / "c-start1.safetensors"
    Checkpoint(stale, "of another run", "c.safetensors").write({}, {})
    settings, seeds = {**TINY, "random_state": 0, "n_restarts": 2}, [0]
    model = CGGAN(**settings).fit(frame, labels, checkpoint=tmp_path / "c.safetensors")
    again = load(model.save(tmp_path / "model"))
    for one in (model, again):
        assert np.isinf(one.start_errors_).tolist() == [True, False]
        assert one.best_restart_ == 1
    assert not stale.exists()
    seeds.append(1000)
    with pytest.raises(TrainingError, match=r"All 2 starts failed\. Start 0: sick Start 1: sick"):
        CGGAN(**settings).fit(frame, labels)


# Other settings, other data


def refused(model, *data, checkpoint):
    with pytest.raises(StorageError, match=r"belongs to a run with other settings or data.*Start anew"):
        model.fit(*data, checkpoint=checkpoint, resume=True)


def test_cggan_goes_on_with_the_same_settings_and_images_only(images, tmp_path, always):
    x, y = images
    path = tmp_path / "c"
    CGGAN(**IMAGES).fit(x, y, checkpoint=path)
    for other in (
        {"sparsity": 0.5},
        {"mask_weight": 0.5},
        {"max_steps": 5},
        {"encoder_steps": 3},
        {"random_state": 1},
        {"learning_rate": 0.1},
    ):
        refused(CGGAN(**{**IMAGES, **other}), x, y, checkpoint=path)
    changed = x.copy()
    changed[5, 0, 0, 0] += 1
    refused(CGGAN(**IMAGES), changed, y, checkpoint=path)
    refused(CGGAN(**IMAGES), x, np.repeat(["a", "c"], 12), checkpoint=path)
    refused(CGGAN(**IMAGES), x, y[::-1], checkpoint=path)
    CGGAN(**IMAGES).fit(x, y, checkpoint=path, resume=True)


@pytest.mark.slow
def test_a_vae_goes_on_with_the_same_settings_and_table_only(frame, labels, tmp_path, monkeypatch):
    monkeypatch.setattr("unmix.train.run.SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    path = tmp_path / "c"
    CGVAE(**QUICK).fit(frame, labels, checkpoint=path)
    for other in ({"sparsity": 0.1}, {"kl_weight": 0.5}, {"max_epochs": 5}, {"random_state": 1}):
        refused(CGVAE(**{**QUICK, **other}), frame, labels, checkpoint=path)
    changed = frame.copy()
    changed.iloc[7, 2] += 0.5
    refused(CGVAE(**QUICK), changed, labels, checkpoint=path)
    refused(CGVAE(**QUICK), frame.rename(columns={"x0": "y0"}), labels, checkpoint=path)
    refused(CGVAE(**QUICK), 2 * frame, labels, checkpoint=path)
    refused(CGVAE(**QUICK), frame, np.where(labels == "a", "A", labels), checkpoint=path)
    CGVAE(**QUICK).fit(frame, labels, checkpoint=path, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("model", [CGGAN(**TINY), CGVAE(**QUICK)], ids=["CGGAN", "CGVAE"])
def test_a_checkpoint_that_cannot_be_is_refused_before_training(model, frame, labels, tmp_path, monkeypatch):
    def trained(*_):
        raise AssertionError("training has started")

    monkeypatch.setattr("unmix.train.fit.Training.epoch", trained)
    monkeypatch.setattr(adversarial.AdversarialRun, "step", trained)
    (tmp_path / "file").write_text("")
    save_file({"x": torch.zeros(2)}, tmp_path / "foreign")
    save_file({"x": torch.zeros(2)}, tmp_path / "list", metadata={"unmix": "[1]"})
    for error, message, words in (
        (SettingError, r"resume=True continues from a file; pass its path as checkpoint=", {"resume": True}),
        (StorageError, r"is a folder, so it is not replaced", {"checkpoint": tmp_path}),
        (StorageError, r"could not be written.*space and permission", {"checkpoint": tmp_path / "file" / "c"}),
        (StorageError, r"no file at", {"checkpoint": tmp_path / "nothing", "resume": True}),
        (StorageError, r"has format None.*written by unmix\?", {"checkpoint": tmp_path / "foreign", "resume": True}),
        (StorageError, r"has format None.*written by unmix\?", {"checkpoint": tmp_path / "list", "resume": True}),
    ):
        with pytest.raises(error, match=message):
            model.fit(frame, labels, **words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "foreign", "list"]
