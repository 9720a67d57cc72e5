"""The loop: exact resume, restore-best, early stopping, the guard against non-finite values."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK

from unmix import CGVAE, CGVAEImages
from unmix.audit.agreement import agreement, choose_start
from unmix.baselines import BetaVAE
from unmix.data.batches import Rows, split_rows
from unmix.errors import StorageError, TrainingError
from unmix.files import replacing
from unmix.models.cgvae import CGVAEConfig, CGVAENetwork, Schedule
from unmix.train.checkpoint import read_state
from unmix.train.fit import Training, TrainingSettings, fit


@pytest.fixture
def rows():
    source = torch.Generator().manual_seed(0)
    x = torch.randn(200, 4, generator=source)
    codes = torch.arange(200).remainder(2)[:, None]
    return Rows(x, None, codes, torch.zeros(200, 0), 2)


def network(**settings):
    return CGVAENetwork(CGVAEConfig(**{"n_latents": 2, "n_features": 4, "n_design": 2, "n_starts": 3, **settings}))


class Interrupt:
    def __init__(self, epoch):
        self.epoch = epoch

    def __call__(self, epoch, objective):
        if epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("words", [{}, {"epoch_part": 1 / 3}, {"penalty_every": 2}])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(rows, tmp_path, words):
    settings = TrainingSettings(max_epochs=8, batch_size=64, patience=None, **words)
    whole, parts = network(), network()
    expected = fit(whole, rows, rows, settings)
    with pytest.raises(KeyboardInterrupt):
        fit(parts, rows, rows, settings, checkpoint=tmp_path / "c", on_epoch=Interrupt(5))
    fresh = network()
    result = fit(fresh, rows, rows, settings, checkpoint=tmp_path / "c", resume=True)
    assert result.history == expected.history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


def test_epochs_of_a_part_take_turns_until_every_row_has_had_its_own(rows):
    seen, epochs = [], []

    class Watched(CGVAENetwork):
        def terms(self, batch, noise, *arguments):
            if torch.is_grad_enabled():
                seen.append(batch.x)
            return super().terms(batch, noise, *arguments)

    model = Watched(CGVAEConfig(n_latents=2, n_features=4, n_design=2))
    settings = TrainingSettings(max_epochs=8, epoch_part=0.25, batch_size=25, patience=None)
    fit(model, rows, rows, settings, on_epoch=lambda epoch, _: epochs.append(len(seen)))
    assert epochs == [2, 4, 6, 8, 10, 12, 14, 16]
    passes = torch.cat(seen[:8]), torch.cat(seen[8:])
    assert not torch.equal(*passes)
    for taken in passes:
        assert torch.equal(taken.sort(dim=0).values, rows.x.sort(dim=0).values)


@pytest.mark.parametrize("decoder", ["dense", "feature"])
def test_a_penalty_that_is_due_in_every_third_step_weighs_three_times_as_much_there(rows, decoder):
    seen = []

    class Watched(CGVAENetwork):
        def terms(self, *arguments):
            seen.append(super().terms(*arguments))
            return seen[-1]

    model = Watched(CGVAEConfig(n_latents=2, n_features=4, n_design=2, n_starts=2, decoder=decoder))
    loop = Training(model, rows, rows, TrainingSettings(max_epochs=8, penalty_every=3), None)
    generator = torch.Generator().manual_seed(0)
    for step in range(5):
        losses = loop.step(torch.arange(50), generator, 0.4)
        terms, weights = seen[-1], model.weights(0.4)
        assert ("sparsity" in terms) == (step in (0, 3))
        expected = terms["reconstruction"] + terms["kl"] + terms["shrinkage"]
        if "sparsity" in terms:
            assert (terms["sparsity"] > 0).all()
            expected = expected + 3 * weights["sparsity"] * terms["sparsity"]
        torch.testing.assert_close(losses, expected.detach())
    loop._score(torch.zeros(2))
    whole = seen[-1]["reconstruction"] + seen[-1]["kl"] + seen[-1]["shrinkage"] + 0.5 * 0.2 * seen[-1]["sparsity"]
    torch.testing.assert_close(torch.tensor(loop.latest), whole.detach())


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CGVAE, CGVAEImages])
def test_where_the_penalty_is_taken_is_what_the_estimator_says(monkeypatch, kind):
    taken, scorings = [], []
    original = CGVAENetwork.terms

    def terms(self, rows, noise, n_train, penalty_rows, progress):
        (taken if torch.is_grad_enabled() else scorings).append(penalty_rows)
        return original(self, rows, noise, n_train, penalty_rows, progress)

    monkeypatch.setattr(CGVAENetwork, "terms", terms)
    source = np.random.default_rng(0)
    x = source.standard_normal((200, 4)) if kind is CGVAE else source.integers(0, 256, (200, 8, 8, 1), dtype=np.uint8)
    words = {**QUICK, "max_epochs": 2, "batch_size": 60, "hidden": (4, 4)}
    kind(penalty_rows=47, penalty_every=2, **words).fit(x, np.arange(200) % 2)
    assert taken == [47, 0, 47, 0, 47, 0]
    assert set(scorings) == {256, 0}


@pytest.mark.parametrize(
    ("kind", "n_samples", "settings", "epochs", "part"),
    [
        (CGVAE, 8_000, {}, 36, 1.0),
        (CGVAE, 8_000, {"n_latents": 10}, 59, 1.0),
        (CGVAE, 100, {}, 1_000, 1.0),
        (CGVAE, 1_000_000, {}, 20, 100 / 7_031),
        (CGVAE, 1_000_000, {"max_epochs": 3}, 3, 1.0),
        (BetaVAE, 8_000, {}, 50, 1.0),
        (BetaVAE, 1_000_000, {}, 20, 140 / 7_031),
    ],
)
def test_steps_decide_how_long_training_is_and_rows_do_not(kind, n_samples, settings, epochs, part):
    model = kind(**settings)
    planned = model._training_settings(n_samples, 0, True)
    assert (planned.max_epochs, planned.epoch_part) == (epochs, part)
    assert model.planned_epochs(n_samples) == epochs * part


@pytest.mark.slow
def test_a_checkpoint_of_another_run_is_refused(rows, tmp_path):
    settings = TrainingSettings(max_epochs=4, batch_size=64)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), rows, rows, settings, checkpoint=tmp_path / "c", on_epoch=Interrupt(1))
    with pytest.raises(StorageError, match="other settings or data"):
        fit(network(n_latents=1), rows, rows, settings, checkpoint=tmp_path / "c", resume=True)
    with pytest.raises(StorageError, match="no file at"):
        fit(network(), rows, rows, settings, checkpoint=tmp_path / "d", resume=True)
    (tmp_path / "c").write_bytes(b"junk")
    with pytest.raises(StorageError, match="damaged"):
        read_state(tmp_path / "c")


def test_every_start_ends_in_its_best_state(rows):
    settings = TrainingSettings(max_epochs=12, batch_size=64, learning_rate=0.05)
    model = network(schedules=(Schedule(((0.0, 0.2),)),), narrowed=0.0, turned=(), beginnings=())
    result = fit(model, rows, rows, settings)
    history = pd.DataFrame(result.history)
    for start in range(3):
        own = history[history["start"] == start]
        assert result.best_epoch[start] == own["epoch"].iloc[own["held_out_objective"].argmin()]
    noise = torch.randn(1, 200, model.n_latents, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1)
    terms = model.terms(rows, noise, 200, 200, 1.0)
    total = sum(model.weights(1.0)[name] * value for name, value in terms.items())
    best = history.groupby("start")["held_out_objective"].min()
    np.testing.assert_allclose(total.detach().numpy(), best, rtol=1e-4)


@pytest.mark.slow
def test_kept_states_are_scored_by_many_draws(rows):
    model = network()
    result = fit(model, rows, rows, TrainingSettings(max_epochs=12, batch_size=64))
    source = torch.Generator().manual_seed(5)
    with torch.no_grad():
        noises = [torch.randn(3, 200, model.n_latents, generator=source) for _ in range(400)]
        draws = [model.terms(rows, noise, 200, 200, 1.0) for noise in noises]
    for name in draws[0]:
        values = torch.stack([draw[name] for draw in draws])
        error = 4 * values.std(0) / 16**0.5 + 1e-6
        found = torch.tensor([terms[name] for terms in result.terms])
        assert bool(((found - values.mean(0)).abs() <= error).all())
    for start, terms in enumerate(result.terms):
        weights = {name: torch.as_tensor(value).expand(3)[start] for name, value in model.weights(1.0).items()}
        assert result.objective[start] == pytest.approx(sum(float(weights[n]) * terms[n] for n in terms), rel=1e-5)


@pytest.mark.slow
def test_it_stops_early_and_says_why(rows):
    held_out = rows.take(slice(0, 40))
    settings = TrainingSettings(max_epochs=400, batch_size=64, learning_rate=0.05, patience=10, warmup=0.01)
    model = network(schedules=(Schedule(((0.0, 0.2),)),), narrowed=0.0, turned=())
    result = fit(model, rows.take(slice(40, 80)), held_out, settings)
    assert result.n_epochs < 400
    assert "no start improved on held-out rows for 10 epochs" in result.stop_reason


class Sick(CGVAENetwork):
    """A model whose KL term becomes NaN in the chosen starts from call ``after`` on."""

    calls, after, starts, until = 0, 6, (1,), 10**9

    def terms(self, *arguments):
        terms = super().terms(*arguments)
        self.calls += 1
        if self.after <= self.calls < self.until:
            sick = torch.zeros(self.n_starts)
            sick[list(self.starts)] = float("nan")
            terms["kl"] = terms["kl"] + sick
        return terms


def sick(**attributes):
    model = Sick(CGVAEConfig(2, 4, 2, n_starts=3, beginnings=()))
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


@pytest.mark.slow
def test_a_sick_start_is_given_up_and_the_others_go_on(rows):
    settings = TrainingSettings(max_epochs=60, batch_size=64)
    result, healthy = fit(sick(), rows, rows, settings), fit(network(beginnings=()), rows, rows, settings)
    assert result.failed == [False, True, False]
    assert result.n_epochs == 60
    first = pd.DataFrame(healthy.history).query("epoch == 1")["held_out_objective"].to_numpy()
    for start in (0, 2):
        gained, possible = first[start] - result.objective[start], first[start] - healthy.objective[start]
        assert gained > 0.7 * possible > 2.0


def test_a_start_that_is_given_up_slows_no_other_one(rows):
    run = Training(sick(), rows, rows, TrainingSettings(max_epochs=60, batch_size=64), None)
    for _ in range(6):
        run.epoch()
    assert run.progress.rewinds == 6
    assert run._rate() == 1.0
    before = {name: value.detach().clone() for name, value in run.parameters.items()}
    run.epoch()
    for name, value in run.parameters.items():
        assert torch.equal(value[1], before[name][1])
        assert not torch.equal(value[0], before[name][0])
    # An epoch in which no start took a step has no mean of 0.
    objective = pd.DataFrame(run.progress.history).pivot(index="epoch", columns="start", values="train_objective")
    assert (objective > 0).all(axis=None)
    assert np.isfinite(objective.loc[4:, [0, 2]]).to_numpy().all()


class SickOnce(CGVAENetwork):
    """A model whose second start has no finite score right after it was narrowed."""

    narrowings = 0

    def _narrow(self, rows, wide):
        super()._narrow(rows, wide)
        self.narrowings, self.due = self.narrowings + 1, self.narrowings == 0

    due = False

    def terms(self, *arguments):
        terms = super().terms(*arguments)
        if self.due:
            terms["kl"] = terms["kl"] + torch.tensor([0.0, float("nan"), 0.0])
            self.due = False
        return terms


@pytest.mark.slow
def test_a_rewind_after_narrowing_leaves_no_spare_latents(rows):
    model = SickOnce(CGVAEConfig(2, 4, 2, n_starts=3))
    result = fit(model, rows, rows, TrainingSettings(max_epochs=20, batch_size=64))
    assert result.failed == [False, False, False]
    assert model.narrowings == 2
    assert model.alive.sum((1, 2)).tolist() == [2.0, 2.0, 2.0]


class InterruptedCopy(dict):
    """Good tensors of which the third copy is interrupted once."""

    copies = 0

    def __getitem__(self, name):
        self.copies += 1
        if self.copies == 3:
            raise KeyboardInterrupt
        return super().__getitem__(name)


@pytest.mark.slow
def test_an_interrupt_while_the_state_is_remembered_leaves_a_whole_checkpoint(rows, tmp_path):
    settings, path = TrainingSettings(max_epochs=12, batch_size=64), tmp_path / "state.safetensors"
    whole = network()
    expected = fit(whole, rows, rows, settings)
    runs, make = [], Training.__init__

    def noticed(self, *words, **settings):
        make(self, *words, **settings)
        runs.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "__init__", noticed)

        def on_epoch(epoch, objective):
            if epoch == 5:
                runs[0].good = InterruptedCopy(runs[0].good)

        with pytest.raises(KeyboardInterrupt):
            fit(network(), rows, rows, settings, checkpoint=path, on_epoch=on_epoch)
    again = network()
    result = fit(again, rows, rows, settings, checkpoint=path, resume=True)
    assert result.history == expected.history
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


@pytest.mark.slow
def test_a_run_that_stopped_early_goes_on_to_the_same_end(rows, tmp_path):
    held_out, path = rows.take(slice(0, 40)), tmp_path / "state.safetensors"
    settings = TrainingSettings(max_epochs=400, batch_size=64, learning_rate=0.05, patience=10, warmup=0.01)
    words = {"schedules": (Schedule(((0.0, 0.2),)),), "narrowed": 0.0, "turned": ()}
    ended = fit(network(**words), rows.take(slice(40, 80)), held_out, settings, checkpoint=path)
    again = fit(network(**words), rows.take(slice(40, 80)), held_out, settings, checkpoint=path, resume=True)
    assert ended.n_epochs == again.n_epochs < 400
    assert (ended.history, ended.objective, ended.stop_reason) == (again.history, again.objective, again.stop_reason)


@pytest.mark.slow
def test_a_passing_sickness_is_survived(rows):
    result = fit(sick(until=8), rows, rows, TrainingSettings(max_epochs=6, batch_size=64))
    assert result.failed == [False, False, False]
    assert np.isfinite(result.objective).all()


def test_a_sick_model_ends_with_the_name_of_the_term(rows):
    model = sick(starts=(0, 1, 2))
    with pytest.raises(TrainingError, match="non-finite in epoch 3 in the term kl") as caught:
        fit(model, rows, rows, TrainingSettings(max_epochs=20, batch_size=64))
    assert caught.value.history
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_rows_are_held_out_of_every_domain():
    groups = np.repeat([0, 1, 2], [100, 50, 5])
    train, held_out = split_rows(groups, 0.1, seed=0)
    assert np.bincount(groups[held_out], minlength=3).tolist() == [10, 5, 0]
    assert sorted([*train, *held_out]) == list(range(155))


@pytest.mark.slow
def test_a_rare_domain_shrinks_toward_the_mean_domain():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2000, 1))
    domains = np.repeat(["common", "other", "rare"], [1000, 990, 10])
    z[domains == "rare"] += 4.0
    x = z @ np.array([[1.0, -0.8, 0.6]]) + 0.3 * rng.standard_normal((2000, 3))

    def shift(rows):
        model = CGVAE(**{**QUICK, "n_latents": 1, "max_epochs": 40}).fit(x[rows], domains[rows])
        middle = model.inverse_transform(np.zeros((1, 1)))
        return np.abs(model.sample(4000, domain="rare").mean(0) - middle).mean()

    assert shift(np.arange(2000)) < 0.9 * 4.0 * 0.8


def test_agreement_matches_latents_one_to_one():
    z = np.random.default_rng(0).standard_normal((500, 3))
    found = agreement(np.stack([z, -z[:, [2, 0, 1]], np.random.default_rng(1).standard_normal((500, 3))]))
    assert found.pairs[0, 1] == pytest.approx(1.0)
    assert found.partners[0, 1].tolist() == [1, 2, 0]
    assert found.signs[0, 1].tolist() == [-1.0, -1.0, -1.0]
    assert found.pairs[0, 2] < 0.15
    assert choose_start([1.0, 1.01, 0.99], [False] * 3, found) in (0, 1)
    assert choose_start([1.0, 1.01, 0.5], [False] * 3, found) == 2
    assert choose_start([1.0, 1.01, 0.5], [False, False, True], found) in (0, 1)


def test_two_starts_that_fit_as_well_agree_alike_so_the_better_is_kept():
    source = np.random.default_rng(0)
    z = source.standard_normal((500, 2))
    found = agreement(np.stack([z, z + source.standard_normal((500, 2))]))
    blocks = source.standard_normal((16, 2))
    assert choose_start([1.01, 1.0], [False] * 2, found, blocks) == 1
    assert choose_start([1.0, 1.01], [False] * 2, found, blocks) == 0


def test_of_starts_that_fit_as_well_one_that_begins_alike_for_every_seed_is_kept():
    z = np.random.default_rng(0).standard_normal((500, 2))
    found = agreement(np.stack([z, z, np.random.default_rng(1).standard_normal((500, 2))]))
    assert choose_start([1.0, 1.0, 1.005], [False] * 3, found, seedless=[False, False, True]) == 2
    assert choose_start([1.0, 1.0, 1.5], [False] * 3, found, seedless=[False, False, True]) in (0, 1)
    assert choose_start([1.0, 1.0, 1.005], [False, False, True], found, seedless=[False, False, True]) in (0, 1)


def test_a_start_within_one_standard_error_is_as_good_and_agreement_decides():
    source = np.random.default_rng(0)
    z = source.standard_normal((500, 2))
    found = agreement(np.stack([z, z + 0.1 * source.standard_normal((500, 2)), source.standard_normal((500, 2))]))
    apart = np.array([[0.0, 0.0, -3.0], [0.0, 0.0, 2.5]] * 8)
    assert choose_start([1.0, 1.1, 0.75], [False] * 3, found, apart) in (0, 1)
    assert choose_start([1.0, 1.1, 0.75], [False] * 3, found, 0.01 * apart) == 2


def test_the_noise_floor_falls_to_zero_and_is_no_part_of_the_final_objective(rows):
    model = network()
    noise = torch.zeros(3, 200, model.n_latents)
    at = {done: model.terms(rows, noise, 200, 8, done)["reconstruction"] for done in (0.0, 0.175, 0.35, 1.0)}
    assert torch.equal(at[0.35], at[1.0])
    x, output = rows.x, model.decode(model.encode(rows.x, None).mean)
    for done, floor in ((0.0, 0.5), (0.175, 0.25)):
        spread = (0.1**2 + floor**2) ** 0.5
        expected = -torch.distributions.Normal(output, spread).log_prob(x).sum(-1).mean(1)
        torch.testing.assert_close(at[done], expected)


@pytest.mark.slow
@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_no_state_is_kept_before_the_objective_is_final(rows, sparsity):
    settings = TrainingSettings(max_epochs=20, batch_size=64, patience=2)
    result = fit(network(sparsity=sparsity), rows, rows, settings)
    assert all(epoch >= 16 or start == 2 for start, epoch in enumerate(result.best_epoch))


@pytest.mark.parametrize("n_epochs", [1, 2, 5, 20, 36])
def test_latents_are_turned_as_often_as_the_length_allows_and_twice_at_most(rows, monkeypatch, n_epochs):
    turned = []
    monkeypatch.setattr("unmix.models.cgvae.rotate_latents", lambda *words: turned.append(words))
    model = network()
    for epoch in range(n_epochs):
        model.rearrange(rows, 200, epoch / n_epochs, (epoch + 1) / n_epochs)
    assert len(turned) == min(n_epochs, 2)


def test_starts_take_their_schedules_in_turn():
    model = network(sparsity=0.5, n_starts=7)
    strong, half = [0.0, 0.25, 0.5, 0.3, 0.1, 0.1, 0.1], [0.0, 0.125, 0.25, 0.175, 0.1, 0.1, 0.1]
    gentle = [0.0, 0.1, 0.1, 0.5, 0.1, 0.1, 0.1]
    found = np.array([model.weights(done)["sparsity"].tolist() for done in (0.0, 0.25, 0.5, 0.65, 0.8, 0.99, 1.0)])
    np.testing.assert_allclose(found.T, [strong, half, half, gentle, strong, half, half], rtol=1e-5)


def with_effects(effects):
    """A network whose starts all have latents with these effects on the features, in this order."""
    model = network(n_latents=2, n_starts=6, hidden=(), spare=len(effects) - 2)
    layer = model.decoder.network.layers[0]
    with torch.no_grad():
        layer.weight.zero_()
        for latent, effect in enumerate(effects):
            layer.weight[:, latent, latent] = effect
        encoder = model.encoder.network.layers[0]
        encoder.weight.zero_()
        for latent in range(len(effects)):
            encoder.weight[:, latent, latent] = 1.0
    return model


@pytest.mark.parametrize(
    ("effects", "kept"),
    [
        ([3.0, 1.0, 2.0], [[0, 2], [0, 2], [0, 2], [0, 1], [0, 2], [0, 2]]),
        ([3.0, 0.001, 2.0], [[0, 2]] * 6),
        ([3.0, 1.0, 2.0, 0.5], [[0, 2], [0, 2], [0, 2], [0, 1], [0, 2], [0, 2]]),
    ],
)
def test_the_last_surplus_latent_is_the_one_that_the_schedule_says(effects, kept):
    source = torch.Generator().manual_seed(3)
    x = torch.randn(500, 4, generator=source)
    x = (x - x.mean(0)) / x.std(0)
    data = Rows(x, None, torch.zeros(500, 1, dtype=torch.long), torch.zeros(500, 0), 2)
    model = with_effects(effects)
    model.rearrange(data, 500, 0.3, 0.36)
    assert [torch.nonzero(alive[0]).flatten().tolist() for alive in model.alive] == kept


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with replacing(path) as beside:
        beside.write_text("old")

    def fail(error):
        with replacing(path) as beside:
            beside.write_text("half")
            raise error

    with pytest.raises(ZeroDivisionError):
        fail(ZeroDivisionError())
    with pytest.raises(StorageError, match=r"could not be written: .*space"):
        fail(OSError(28, "No space left on device"))
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"
