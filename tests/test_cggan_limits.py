"""CG-GAN at the limits of a machine: memory after the fit, devices without float64, half precision."""

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian as autograd_jacobian

from unmix import CGGAN, ImageTranslator
from unmix.data.batches import Rows
from unmix.datasets import make_typefaces
from unmix.models import cggan
from unmix.models.cggan import CGGANConfig, CGGANNetwork
from unmix.models.fitted_gan import FittedGAN
from unmix.train.adversarial import AdversarialSettings, fit_adversarial


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def table_rows(n=64):
    return Rows(noise(n, 4), None, torch.arange(n).remainder(2)[:, None], torch.zeros(n, 0), 2)


def image_rows(n):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 16, 16, 1), dtype=np.uint8)
    return Rows(torch.from_numpy(pixels), None, torch.arange(n).remainder(2)[:, None], torch.zeros(n, 0), 2)


def config(**settings):
    return CGGANConfig(**{"n_latents": 3, "n_style": 2, "shape": (4,), "n_design": 2, "hidden": (6, 5), **settings})


def image_config(**settings):
    return config(shape=(16, 16, 1), channels=2, **settings)


# Memory


@pytest.mark.slow
@pytest.mark.parametrize("form", ["table", "images"])
def test_the_mixing_is_the_mean_over_rows_however_few_are_taken_at_a_time(form, monkeypatch):
    rows, own = (table_rows(12), config()) if form == "table" else (image_rows(12), image_config())
    fitted = FittedGAN.of(CGGANNetwork(own), rows)
    z, design = noise(5, 3), rows.design[:5]
    whole = fitted.mixing(z, design)
    full = torch.stack([autograd_jacobian(lambda one: fitted.decode(one[None], None)[0], row) for row in z])
    for found, expected in zip(whole, (full.abs().mean(0), full.mean(0)), strict=True):
        torch.testing.assert_close(found, expected.movedim(-1, 0), atol=1e-6, rtol=1e-4)
    monkeypatch.setattr(cggan, "LAYER", 3 * 2 * 16 * 16 * 2)
    assert own.rows_at_once(3) == (2 if form == "images" else 170)
    for found, expected in zip(fitted.mixing(z, design), whole, strict=True):
        torch.testing.assert_close(found, expected)


def test_what_follows_the_fit_takes_few_images_at_a_time(monkeypatch):
    monkeypatch.setattr(cggan, "LAYER", 40 * 2 * 16 * 16)
    rows, taken, decoded = image_rows(300), [], []
    network = CGGANNetwork(image_config())
    generator = type(network.synthesis.generator)
    derivatives, forward = generator.derivatives, generator.forward

    def watched(self, z, design, latents):
        taken.append((len(z), len(latents)))
        return derivatives(self, z, design, latents)

    monkeypatch.setattr(generator, "derivatives", watched)
    fitted = FittedGAN.of(network, rows)
    settled = len(taken)
    fitted.mean_effects(rows)
    assert sum(n_rows for n_rows, _ in taken[:settled]) == sum(n_rows for n_rows, _ in taken[settled:]) == 100
    assert max(n_rows * n_latents for n_rows, n_latents in taken) <= 40

    def counted(self, z, design):
        decoded.append(len(z))
        return forward(self, z, design)

    monkeypatch.setattr(generator, "forward", counted)
    assert fitted.generated(noise(90, 3), rows.design[:90]).shape == (90, 16, 16, 1)
    assert decoded == [40, 40, 10]


# Half precision, and devices without float64


@pytest.mark.parametrize("flow", ["gaussian", "spline", None])
@pytest.mark.parametrize("form", ["table", "images"])
def test_every_term_can_be_computed_in_half_precision(form, flow):
    own, rows = (config(flow=flow), table_rows()) if form == "table" else (image_config(flow=flow), image_rows(30))
    network = CGGANNetwork(own)
    for phase in network.phases:

        def terms(name=phase.name):
            return network.terms(name, rows, torch.Generator().manual_seed(1), 0)

        expected = terms()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = terms()
        assert {"discriminator": {"gradient"}, "generator": {"sparsity"}}.get(phase.name, set()) <= set(found)
        for name, value in found.items():
            assert value.item() == pytest.approx(expected[name].item(), rel=0.03), name
        parameters = [own for name, own in network.named_parameters() if name.split(".")[0] in phase.modules]
        total = torch.stack([value.float() for value in found.values()]).sum()
        gradients = torch.autograd.grad(total, [own for own in parameters if own.requires_grad], allow_unused=True)
        assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


def test_the_loop_runs_in_half_precision(monkeypatch):
    monkeypatch.setattr(
        "unmix.train.adversarial.precision", lambda settings, device: torch.autocast("cpu", dtype=torch.bfloat16)
    )
    network = CGGANNetwork(image_config(steps=4, encoder_steps=2))
    result = fit_adversarial(network, image_rows(30), AdversarialSettings(batch_size=8, block=2))
    assert all(np.isfinite(list(row.values())).all() for row in result.history)
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}


def test_a_precision_that_the_device_has_not_is_said_once(frame, labels, capsys):
    words = {"n_latents": 2, "hidden": (5,), "max_steps": 2, "encoder_steps": 1, "device": "cpu"}
    CGGAN(**words, mixed_precision=True).fit(frame, labels)
    assert capsys.readouterr().err.count("mixed_precision needs CUDA; on cpu everything is computed in float32") == 1
    CGGAN(**words).fit(frame, labels)
    assert "mixed_precision" not in capsys.readouterr().err
    faces = make_typefaces(2, characters="abcdefgh")
    ImageTranslator(channels=4, max_steps=2, mixed_precision=True, device="cpu").fit(faces.images, faces.domains)
    assert capsys.readouterr().err.count("mixed_precision needs CUDA; on cpu everything is computed in float32") == 1


def test_no_tensor_of_the_state_needs_float64():
    for own, rows in ((config(), table_rows()), (image_config(), image_rows(30))):
        network = CGGANNetwork(own)
        for module in (network, FittedGAN.of(network, rows)):
            for name, value in module.state_dict().items():
                assert value.dtype in (torch.float32, torch.int64), name


@pytest.mark.parametrize("form", ["table", "images"])
def test_steps_are_those_of_adam_in_whatever_order_gradients_lie(form, monkeypatch):
    """Convolutions and double backward give gradients that lie otherwise than their parameters."""
    table, pixels = (
        (table_rows(12), config(steps=4, encoder_steps=2)),
        (image_rows(12), image_config(steps=4, encoder_steps=2)),
    )
    rows, own = table if form == "table" else pixels

    def trained():
        network = CGGANNetwork(own)
        fit_adversarial(network, rows, AdversarialSettings(batch_size=8, block=2))
        return network.state_dict()

    found, adam = trained(), torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda *words, **more: adam(*words, **{**more, "fused": False}))
    for name, value in trained().items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-3, msg=name)
