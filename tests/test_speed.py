"""Quicker and smaller paths give the numbers of the plain ones; the arithmetic of the speed benchmarks is right."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import one_hot_rows
from torch.utils.flop_counter import FlopCounterMode

import unmix.audit.describe
import unmix.audit.input
import unmix.data.batches
import unmix.data.schema
import unmix.models.cgvae
from unmix.data.matrix import check_values
from unmix.data.schema import FeatureSchema
from unmix.models.cgvae import CGVAEConfig, CGVAENetwork
from unmix.nets.decoder import DenseDecoder
from unmix.nets.jacobian import rows_at_once
from unmix.nets.layers import generators
from unmix.objectives.sparsity import jacobian_weights

SPEED = Path(__file__).parent.parent / "benchmarks/speed"


@pytest.fixture
def speed(monkeypatch):
    """The folder of the speed scripts on the path, for scripts that are run from it."""
    monkeypatch.syspath_prepend(str(SPEED))
    yield
    for path in SPEED.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_rows_at_once_are_within_the_budget():
    assert rows_at_once(6, 34, 5_000) * 6 * 34 * 5_000 <= 2**22 < (rows_at_once(6, 34, 5_000) + 1) * 6 * 34 * 5_000
    assert rows_at_once(6, 34, 10**9) == 1


@pytest.mark.slow
def test_weights_of_a_few_rows_at_a_time_are_those_of_all_rows(monkeypatch):
    model = CGVAENetwork(CGVAEConfig(2, 4, 3, n_starts=2))
    rows = one_hot_rows()
    noise = torch.randn(2, len(rows), model.n_latents, generator=torch.Generator().manual_seed(0))
    plain = model.terms(rows, noise, 60, 50, 1.0)
    asked = []

    def few(n_starts, n_latents, n_features):
        asked.append((n_starts, n_latents, n_features))
        return 7

    monkeypatch.setattr(unmix.models.cgvae, "rows_at_once", few)
    with torch.no_grad():
        chunked = model.terms(rows, noise, 60, 50, 1.0)
    assert asked == [(2, 4, 4)]
    for name, value in plain.items():
        torch.testing.assert_close(chunked[name], value.detach())
    assert model.terms(rows, noise, 60, 50, 1.0)["sparsity"].requires_grad


def test_the_mean_of_absolute_entries_and_its_gradient_are_the_plain_ones():
    source = torch.Generator().manual_seed(0)
    jacobian = torch.randn(2, 9, 3, 5, dtype=torch.float64, generator=source, requires_grad=True)
    std = torch.rand(2, 3, dtype=torch.float64, generator=source, requires_grad=True)
    ours, plain = jacobian_weights(jacobian, std), jacobian.abs().mean(1) * std.unsqueeze(-1)
    torch.testing.assert_close(ours, plain)
    weights = torch.randn(ours.shape, dtype=torch.float64, generator=source)
    for mine, other in zip(
        torch.autograd.grad((ours * weights).sum(), (jacobian, std)),
        torch.autograd.grad((plain * weights).sum(), (jacobian, std)),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)


def test_standardising_and_learning_a_few_numbers_at_a_time_change_no_bit(monkeypatch):
    matrix = np.random.default_rng(0).lognormal(size=(301, 7))
    matrix[::11, 2] = np.nan
    plain = FeatureSchema.learn(matrix, None, "float64")
    expected = ((matrix - np.nanmean(matrix, axis=0)) / np.nanstd(matrix, axis=0)).astype(np.float32)
    monkeypatch.setattr(unmix.data.schema, "NUMBERS_CACHED", 50)
    np.testing.assert_array_equal(plain.standardise(matrix), expected)
    order = np.random.default_rng(1).permutation(301)
    np.testing.assert_array_equal(plain.standardise(matrix, order=order), expected[order])
    monkeypatch.setattr(unmix.data.cells, "NUMBERS_AT_ONCE", 700)
    small = FeatureSchema.learn(matrix, None, "float64")
    np.testing.assert_allclose(small.center, plain.center, rtol=1e-14)
    np.testing.assert_allclose(small.scale, plain.scale, rtol=1e-14)


def test_values_whose_sum_overflows_are_finite():
    check_values(np.full((4, 2), 1e308), ("a", "b"), "error")


def test_latents_and_features_in_batches_are_those_of_all_rows(fitted, frame, monkeypatch):
    z = fitted.transform(frame)
    matrix = torch.from_numpy(fitted.schema_.standardise(frame.to_numpy()))
    np.testing.assert_allclose(z, fitted.model_.mean(matrix).detach().numpy(), atol=5e-6)
    np.testing.assert_allclose(z, fitted.model_.encode(matrix)[0].detach().numpy(), atol=5e-6)
    whole = fitted.inverse_transform(z)
    monkeypatch.setattr(unmix.audit.describe.blocks, "__defaults__", (7,))
    monkeypatch.setattr(unmix.audit.describe.chunks, "__defaults__", (7,))
    np.testing.assert_allclose(fitted.transform(frame), z, atol=5e-6)
    np.testing.assert_allclose(fitted.inverse_transform(z), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("at_once", "points"), [(40, 40), (1, 32), (10**6, 256)])
def test_an_audit_looks_at_fewer_points_of_a_very_wide_model(fitted, monkeypatch, at_once, points):
    shapes = []

    def watched(model, spread, plain=unmix.audit.input.jacobian_of):
        shapes.append(plain(model, spread).shape)
        return plain(model, spread)

    monkeypatch.setattr(unmix.audit.input, "rows_at_once", lambda *sizes: at_once)
    monkeypatch.setattr(unmix.audit.input, "jacobian_of", watched)
    fitted.audit()
    assert shapes == [(points, 5, 2)]


def test_multiply_adds_of_the_limit_are_those_that_torch_counts(speed):
    import penalty

    n, d, width, batch = 3, 5, 7, 11
    decoder = DenseDecoder(generators(0, 1), n, (width, width), d)
    z = torch.randn(1, batch, n)
    weights = [decoder.network.layers[place].weight for place in range(3)]
    with FlopCounterMode(display=False) as counter:
        _, jacobian = decoder.with_jacobian(z, batch)
        torch.autograd.grad(jacobian.abs().sum(), weights)
    layers = batch * n * width, batch * width * width, batch * width * d
    primal_forward, primal_backward = sum(layers), layers[0] + 2 * layers[1]
    counted = counter.get_total_flops() // 2 - primal_forward - primal_backward
    assert penalty.multiply_adds(n, d, width, batch) == counted


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_every_way_to_the_penalty_gives_the_same_gradient(speed):
    import penalty

    ways = penalty.ways(3, 5, 8, 10)
    names = [name for name in ways if name not in ("plain pass", "limit")]
    assert len(names) == 4
    for name in names[1:]:
        for mine, other in zip(ways[names[0]](), ways[name](), strict=True):
            torch.testing.assert_close(mine, other)


def test_ratios_are_taken_within_a_repeat(speed):
    import measure

    drift = np.array([1.0, 10.0, 100.0, 1000.0])
    found = measure.ratio(drift * np.array([2.0, 2.0, 2.0, 4.0]), drift)
    assert (found["low"], found["ratio"], found["high"]) == (2.0, 2.0, 2.5)
    order = []
    measure.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, least_seconds=0.0)
    assert order == ["a", "a", "b", "b", "a", "b", "b", "a"]


def test_the_speed_page_gets_its_tables_from_the_results(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SPEED.parent))
    from summarise import speed_page

    page = "a\n\n<!-- step -->\nold\n<!-- end -->\n\nb <!-- growth -->\nold\n<!-- end -->\nc\n"
    (tmp_path / "step.csv").write_text("starts,ratio,cores\n1,1.0,2\n6,1.23456,2\n")
    filled = speed_page(page, tmp_path)
    assert "| starts | ratio |\n|---|---|\n| 1 | 1 |\n| 6 | 1.235 |" in filled
    assert "Measured with cores 2." in filled
    assert "run `python benchmarks/speed/growth.py` on a quiet machine" in filled
    assert "old" not in filled
    assert filled.startswith("a\n")
    assert filled.endswith("c\n")
    assert speed_page(filled, tmp_path) == filled


def test_the_time_to_an_answer_is_summed_up_by_method(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SPEED.parent))
    from summarise import speed_page

    rows = ["both,1,1,3.0,0.99,1.0", "b,1,1,9.0,0.5,", "both,2,1,5.0,0.98,2.0", "b,2,1,7.0,0.6,", "both,3,1,4.0,0.8,"]
    (tmp_path / "convergence.csv").write_text("\n".join(["method,seed,threads,seconds,mcc,reached", *rows]))
    filled = speed_page("<!-- convergence -->\n<!-- end -->", tmp_path)
    names = [
        "threads",
        "method",
        "fits",
        "median_seconds",
        "worst_mcc",
        "fits_that_reached",
        "seconds_to_reach",
        "longest",
    ]
    head = f"| {' | '.join(names)} | both, takes |"
    first = "| 1 | both | 3 | 4 | 0.8 | 2 | 1.5 | 2 | 1.00 [1.00, 1.00] |"
    second = "| 1 | b | 2 | 8 | 0.5 | 0 |  |  | 0.52 [0.33, 0.71] |"
    assert "\n".join([head, "|---" * 9 + "|", first, second, ""]) in filled


@pytest.mark.slow
def test_the_time_to_an_answer_is_taken_after_every_epoch(speed, frame, labels):
    import convergence

    model = unmix.CGVAE(n_latents=2, n_restarts=1, max_epochs=3, hidden=(4,), verbose=0)
    with convergence.remembered(model) as (networks, states):
        model.fit(frame, labels)
    assert [seconds for seconds, _ in states] == sorted(seconds for seconds, _ in states)
    assert (len(networks), len(states)) == (1, 3)
    first, last = states[0][1], states[-1][1]
    assert set(first) == set(networks[0].state_dict())
    assert not torch.equal(first["decoder.network.layers.0.weight"], last["decoder.network.layers.0.weight"])
