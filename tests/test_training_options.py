"""Callbacks, warm starts, and optimisers and schedules of torch."""

from dataclasses import FrozenInstanceError
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK
from own_parts import Wide
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, ReduceLROnPlateau

import unmix
from unmix import CGGAN, CGVAE, ImageTranslator
from unmix.baselines import FactorVAE, SparseVAE
from unmix.errors import SettingError

ADAMW = partial(torch.optim.AdamW, weight_decay=1e-2)
SGD = partial(torch.optim.SGD, momentum=0.9)
DECAY = partial(ExponentialLR, gamma=0.8)


def test_callbacks_get_a_record_of_every_epoch(frame, labels):
    records = []
    model = CGVAE(**QUICK).fit(frame, labels, callbacks=[records.append])
    assert [record.epoch for record in records] == [1, 2, 3, 4]
    assert {record.n_epochs for record in records} == {4}
    history = model.history_.pivot(index="epoch", columns="start")
    np.testing.assert_allclose([record.objective for record in records], history["train_objective"])
    np.testing.assert_allclose([record.held_out_objective for record in records], history["held_out_objective"])
    assert np.all(np.diff([record.seconds for record in records]) > 0)
    with pytest.raises(FrozenInstanceError):
        records[0].epoch = 0


def test_callbacks_change_nothing(frame, labels):
    plain, told = CGVAE(**QUICK).fit(frame, labels), CGVAE(**QUICK).fit(frame, labels, callbacks=[lambda epoch: None])
    np.testing.assert_array_equal(told.transform(frame), plain.transform(frame))


@pytest.mark.parametrize(
    "model",
    [
        CGVAE(**{**QUICK, "max_epochs": 20}),
        FactorVAE(**{**QUICK, "max_epochs": 9}),
        SparseVAE(**{**QUICK, "max_epochs": 9}),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_callback_stops_the_training_at_a_model_that_can_be_used(model, frame, labels):
    seen = []
    model.fit(frame, labels, callbacks=[lambda epoch: epoch.epoch == 2, seen.append])
    assert len(seen) == model.n_epochs_ == 2
    assert model.stop_reason_ == f"a callback stopped the training at epoch 2 of at most {model.max_epochs}"
    assert model.transform(frame).shape == (600, 2)
    assert np.isfinite(model.restarts_["held_out_objective"]).all()


def test_a_callback_that_fails_leaves_the_estimator_as_it_was(frame, labels):
    model = CGVAE(**QUICK).fit(frame, labels)
    before = model.fit_

    def fail(epoch):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        model.fit(frame, labels, callbacks=[fail])
    assert model.fit_ is before


@pytest.mark.parametrize("callbacks", [print, ["print"], 3])
def test_what_is_no_list_of_callbacks_is_refused(callbacks, frame, labels):
    with pytest.raises(SettingError, match="callbacks must be a list of callables, each called with the record"):
        CGVAE(**QUICK).fit(frame, labels, callbacks=callbacks)


# Callbacks of models that are trained in steps

STEPS = {"n_latents": 2, "hidden": (6,), "max_steps": 350, "encoder_steps": 250, "batch_size": 16, "verbose": 0}


def test_callbacks_get_a_record_of_every_block_of_every_start(frame, labels):
    records = []
    model = CGGAN(**STEPS, n_restarts=2).fit(frame, labels, callbacks=[records.append])
    assert [(record.start, record.step) for record in records] == [(k, s) for k in (0, 1) for s in range(100, 601, 100)]
    assert {record.n_steps for record in records} == {600}
    own = [record for record in records if record.start == model.best_restart_]
    history = model.history_.set_index("step")
    for record in own:
        expected = history.loc[record.step].dropna()
        assert set(record.terms) == set(expected.index)
        np.testing.assert_allclose([record.terms[name] for name in expected.index], expected)
    assert np.all(np.diff([record.seconds for record in own]) > 0)
    with pytest.raises(FrozenInstanceError):
        own[0].step = 0
    with pytest.raises(TypeError):
        own[0].terms["encoder_real"] = 0.0
    plain = CGGAN(**STEPS, n_restarts=2).fit(frame, labels)
    np.testing.assert_array_equal(model.transform(frame), plain.transform(frame))


@pytest.mark.parametrize(
    ("stops", "seen"),
    [({100}, [100, 400, 500, 600]), ({100, 400}, [100, 400]), ({500}, [100, 200, 300, 400, 500]), ({600}, None)],
)
def test_a_callback_ends_the_adversarial_steps_and_then_those_of_the_encoder(stops, seen, frame, labels):
    steps, taken = [], {100: 350, 500: 500, 600: 600}
    ask = [lambda block: block.step in stops, lambda block: steps.append(block.step)]
    model = CGGAN(**STEPS).fit(frame, labels, callbacks=ask)
    assert steps == (seen or [100, 200, 300, 400, 500, 600])
    assert model.n_steps_ == (150 if len(stops) == 2 else taken[min(stops)])
    assert np.isfinite(model.transform(frame)).all()
    assert np.isfinite(model.start_errors_).all()
    assert np.isfinite(model.translate(frame, labels, to="a")).all()


def test_a_resumed_fit_of_steps_remembers_what_a_callback_ended(frame, labels, tmp_path):
    whole = CGGAN(**STEPS).fit(frame, labels, callbacks=[lambda block: block.step == 200])

    def interrupt(block):
        if block.step == 500:
            raise KeyboardInterrupt
        return block.step == 200

    model = CGGAN(**STEPS)
    with pytest.raises(KeyboardInterrupt):
        model.fit(frame, labels, callbacks=[interrupt], checkpoint=tmp_path / "state")
    model.fit(frame, labels, checkpoint=tmp_path / "state", resume=True)
    assert model.n_steps_ == whole.n_steps_ == 450
    np.testing.assert_array_equal(model.transform(frame), whole.transform(frame))


@pytest.mark.slow
def test_a_callback_stops_the_translator():
    data = unmix.datasets.make_typefaces(2, characters="abcdefgh")
    seen = []
    words = {"channels": 4, "n_content": 2, "batch_size": 2, "max_steps": 300, "sharpen_steps": 0, "verbose": 0}
    ask = [seen.append, lambda block: block.step == 200]
    model = ImageTranslator(**words).fit(data.images, data.domains, callbacks=ask)
    assert [(block.step, block.n_steps, block.start) for block in seen] == [(100, 300, 0), (200, 300, 0)]
    assert "translator_reconstruction" in seen[0].terms
    assert model.n_steps_ == 200
    assert model.translate(data.images[:2], data.domains[:2], to="italic").shape == (2, 16, 16, 1)


@pytest.mark.parametrize("model", [CGGAN(), ImageTranslator()], ids=lambda model: type(model).__name__)
def test_models_in_steps_refuse_what_is_no_list_of_callbacks(model):
    with pytest.raises(SettingError, match=r"callbacks must be a list of callables.*or of a block of steps; got 3"):
        model.fit(np.zeros((4, 16, 16, 1), np.uint8), list("abab"), callbacks=3)


# Warm starts


@pytest.fixture(scope="module")
def drawn():
    data = unmix.datasets.make_sparse_mixing(n_latents=2, n_features=6, n_domains=4, n_samples=400, random_state=5)
    return data.x, np.array(["a", "b", "c", "d"])[data.domains]


@pytest.fixture(scope="module")
def model(drawn):
    return CGVAE(**{**QUICK, "max_epochs": 8}, warm_start=True).fit(*drawn)


def objective_of(model):
    return float(model.restarts_["held_out_objective"][model.best_restart_])


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [{}, {"decoder": "feature"}, {"prior": "spline"}, {"decoder": Wide}, {"likelihood": "student"}], ids=str
)
def test_a_warm_start_continues_the_model_and_is_not_worse(words, drawn):
    model = CGVAE(**{**QUICK, "max_epochs": 6}, warm_start=True, **words).fit(*drawn)
    before, z = objective_of(model), model.transform(drawn[0])
    model.set_params(max_epochs=3).fit(*drawn)
    assert len(model.restarts_) == 1
    assert objective_of(model) < before + 0.02
    correlation = np.abs(np.corrcoef(z.T, model.transform(drawn[0]).T)[:2, 2:])
    assert correlation.max(axis=1).min() > 0.9


@pytest.mark.slow
def test_without_a_gain_a_warm_start_is_the_model_it_began_from(model, drawn):
    before = model.transform(drawn[0])
    again = CGVAE(**{**model.get_params(), "learning_rate": 1e-9, "max_epochs": 1})
    again.fit_ = model.fit_
    again.fit(*drawn)
    np.testing.assert_allclose(np.abs(again.transform(drawn[0])), np.abs(before), atol=1e-3)


@pytest.mark.slow
def test_a_warm_start_of_counts_keeps_what_was_learnt_of_them():
    data = unmix.datasets.make_sparse_mixing(
        n_latents=2, n_features=8, n_domains=3, n_samples=600, likelihood="negative_binomial", random_state=1
    )
    words = {**QUICK, "likelihood": "negative_binomial", "warm_start": True}
    model = CGVAE(**words).fit(data.x, data.domains)
    base = model.model_.likelihood.base.clone()
    score = model.score(data.x, data.domains)
    model.set_params(max_epochs=2).fit(data.x[:500], data.domains[:500])
    torch.testing.assert_close(model.model_.likelihood.base, base)
    assert model.score(data.x, data.domains) > score - 0.5


@pytest.mark.slow
def test_a_warm_start_of_a_chosen_number_of_latents_keeps_it(drawn):
    model = CGVAE(**{**QUICK, "n_latents": "auto"}, warm_start=True).fit(*drawn)
    n_latents, table = model.n_latents_, model.selection_
    model.fit(*drawn)
    assert model.n_latents_ == n_latents
    assert model.n_latents == "auto"
    pd.testing.assert_frame_equal(model.selection_, table)


@pytest.mark.slow
def test_without_warm_start_a_fit_begins_anew(drawn):
    first = CGVAE(**QUICK).fit(*drawn)
    z = first.transform(drawn[0])
    np.testing.assert_array_equal(first.fit(*drawn).transform(drawn[0]), z)


@pytest.mark.slow
def test_a_loaded_model_can_be_continued(model, drawn, tmp_path):
    again = unmix.load(model.save(tmp_path / "m"))
    assert again.warm_start
    again.set_params(max_epochs=1).fit(*drawn)
    assert len(again.restarts_) == 1


@pytest.mark.parametrize(
    ("words", "change", "message"),
    [
        ({"hidden": (5,)}, lambda x, y: (x, y), "n_latents, hidden or another setting of the networks has changed"),
        ({"n_latents": 3}, lambda x, y: (x, y), "n_latents, hidden or another setting"),
        ({}, lambda x, y: (x[:, :5], y), r"has other features than these rows\. Pass rows with the same"),
        (
            {},
            lambda x, y: (x, np.where(y == "d", "e", y)),
            r"has other domains than these rows.*model\.adapt adds domains",
        ),
    ],
)
def test_what_a_warm_start_cannot_continue(words, change, message, model, drawn):
    other = CGVAE(**{**model.get_params(), **words})
    other.fit_ = model.fit_
    with pytest.raises(SettingError, match=message):
        other.fit(*change(*drawn))
    assert other.fit_ is model.fit_


def test_images_have_no_warm_start():
    with pytest.raises(SettingError, match="warm_start must be False: images are fitted in two stages"):
        unmix.CGVAEImages(warm_start=True).fit(np.zeros((4, 8, 8, 1), np.uint8), list("abab"))


# Optimisers and schedules


def test_adam_as_an_object_is_the_default(frame, labels):
    plain = CGVAE(**QUICK).fit(frame, labels)
    own = CGVAE(**QUICK, optimizer=partial(torch.optim.Adam, fused=True)).fit(frame, labels)
    np.testing.assert_array_equal(own.transform(frame), plain.transform(frame))


@pytest.mark.parametrize(
    "words", [{"optimizer": ADAMW}, {"optimizer": SGD, "learning_rate": 1e-3}, {"scheduler": DECAY}], ids=str
)
def test_an_optimiser_or_schedule_of_ones_own_trains_and_is_saved(words, frame, labels, tmp_path):
    plain = CGVAE(**QUICK).fit(frame, labels)
    model = CGVAE(**{**QUICK, **words}).fit(frame, labels)
    assert not np.array_equal(model.transform(frame), plain.transform(frame))
    again = unmix.load(model.save(tmp_path / "m"))
    np.testing.assert_array_equal(again.transform(frame), model.transform(frame))
    name = next(iter(words))
    found, given = again.get_params()[name], words[name]
    assert (found.func, found.keywords) == (given.func, given.keywords)


rates = []


class Watched(torch.optim.Adam):
    """Adam that says at which rates it steps."""

    def step(self, closure=None):
        rates.append(self.param_groups[0]["lr"])
        return super().step(closure)


def test_a_schedule_takes_a_step_after_every_epoch(frame, labels):
    rates.clear()
    CGVAE(**QUICK, optimizer=Watched, scheduler=partial(ExponentialLR, gamma=0.5)).fit(frame, labels)
    # Before them are those of the check before training.
    per_epoch = np.reshape(rates[-16:], (4, 4))
    assert (per_epoch == per_epoch[:, :1]).all()
    np.testing.assert_allclose(per_epoch[:, 0] / per_epoch[0, 0], [1, 0.5, 0.25, 0.125])


@pytest.mark.parametrize(
    "words", [{"optimizer": ADAMW}, {"optimizer": SGD, "scheduler": DECAY}, {"scheduler": DECAY}], ids=str
)
def test_a_resumed_fit_is_the_uninterrupted_one(words, frame, labels, tmp_path):
    model = CGVAE(**QUICK, **words).set_params(learning_rate=1e-3)
    whole = model.fit(frame, labels).transform(frame)

    def interrupt(epoch):
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(frame, labels, callbacks=[interrupt], checkpoint=tmp_path / "state")
    model.fit(frame, labels, checkpoint=tmp_path / "state", resume=True)
    np.testing.assert_array_equal(model.transform(frame), whole)
    other = CGVAE(**QUICK, optimizer=partial(torch.optim.AdamW, weight_decay=0.5), learning_rate=1e-3)
    with pytest.raises(unmix.errors.StorageError, match="belongs to a run with other settings"):
        other.fit(frame, labels, checkpoint=tmp_path / "state", resume=True)


def test_starts_that_diverge_are_reset_with_an_optimiser_of_ones_own(frame, labels):
    model = CGVAE(**QUICK, optimizer=SGD, learning_rate=1e30, scheduler=DECAY)
    with pytest.raises(unmix.errors.TrainingError, match=r"not finite|non-finite"):
        model.fit(frame, labels)


def nothing(value):
    return None


def fails(value):
    raise ZeroDivisionError("of mine")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"optimizer": "adam"}, "optimizer must be None, or a class or function"),
        (
            {"optimizer": nothing},
            "optimizer must return a torch.optim.Optimizer of the parameter groups; got a NoneType",
        ),
        ({"optimizer": fails}, "optimizer is called with parameter groups.*it raised ZeroDivisionError: of mine"),
        ({"optimizer": torch.optim.LBFGS}, r"optimizer"),
        ({"scheduler": nothing}, r"scheduler must return a torch\.optim\.lr_scheduler\.LRScheduler; got a NoneType"),
        ({"scheduler": LambdaLR}, "scheduler is called with the optimiser.*it raised TypeError"),
        ({"scheduler": ReduceLROnPlateau}, r"scheduler: step\(\) must take no argument; it raised TypeError"),
        ({"optimizer": lambda groups: torch.optim.SGD(groups)}, "a class or function that a module defines by name"),
        ({"warm_start": 1}, "warm_start must be True or False"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_optimiser_or_schedule_is_refused(words, message, frame, labels):
    with pytest.raises(SettingError, match=message):
        CGVAE(**QUICK, **words).fit(frame, labels)
