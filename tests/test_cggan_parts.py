"""The pieces of CG-GAN against oracles: flow, mask, losses, exact derivatives, image networks, the loop, resume."""

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian as autograd_jacobian
from torch.nn.functional import conv2d

from unmix.data.batches import Rows
from unmix.errors import StorageError, TrainingError
from unmix.models.cggan import CGGANConfig, CGGANNetwork, as_floats, as_images
from unmix.models.fitted_gan import FittedGAN
from unmix.nets.augment import MOST, adapted, augment
from unmix.nets.gan import VectorDiscriminator
from unmix.nets.gan_images import ImageGenerator, ModulatedConvolution
from unmix.nets.layers import generators
from unmix.objectives.adversarial import discriminator_loss, generator_loss, gradient_penalty, mask_penalty
from unmix.train.adversarial import AdversarialSettings, fit_adversarial


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def config(**settings):
    return CGGANConfig(**{"n_latents": 3, "n_style": 2, "shape": (4,), "n_design": 2, "hidden": (6, 5), **settings})


@pytest.fixture
def rows():
    return Rows(noise(64, 4), None, torch.arange(64).remainder(2)[:, None], torch.zeros(64, 0), 2)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)


def perturb(module, seed=3):
    with torch.no_grad():
        for k, value in enumerate(module.parameters()):
            value.add_(0.3 * noise(*value.shape, seed=seed + k))
    return module


# Flow and mask


@pytest.mark.slow
@pytest.mark.parametrize("flow", ["gaussian", "spline"])
def test_the_flow_is_monotone_inverts_and_leaves_content_alone(flow):
    synthesis = perturb(CGGANNetwork(config(flow=flow)).synthesis)
    design = torch.eye(2)[torch.arange(50) % 2]
    eps = noise(50, 3)
    with torch.no_grad():
        z = synthesis.from_noise(eps, design)
        torch.testing.assert_close(z[:, 0], eps[:, 0])
        assert (z[:, 1:] - eps[:, 1:]).abs().max() > 0.1
        torch.testing.assert_close(synthesis.to_noise(z, design), eps, atol=1e-4, rtol=1e-4)
        line = torch.linspace(-3, 3, 50)[:, None].expand(-1, 3)
        assert (synthesis.from_noise(line, design[:1].expand(50, -1)).diff(dim=0) > 0).all()


def test_the_gaussian_flow_is_location_and_scale_times_the_mask():
    synthesis = CGGANNetwork(config()).synthesis
    with torch.no_grad():
        synthesis.flow.effects.copy_(torch.tensor([[[0.5, -1.0, 0.2, 0.4], [0.1, 2.0, -0.3, 0.0]]]))
        synthesis.flow.mean_domain.zero_()
        synthesis.mask.copy_(torch.tensor([0.5, 0.0]))
        z = synthesis.from_noise(torch.tensor([[0.0, 2.0, 2.0]] * 2), torch.eye(2))
    bounded = [5 * np.tanh(0.5 * value / 5) for value in (0.2, -0.3)]
    expected = [0.25 + 2 * np.exp(bounded[0]), 0.05 + 2 * np.exp(bounded[1])]
    np.testing.assert_allclose(z[:, 1], expected, rtol=1e-5)
    np.testing.assert_allclose(z[:, 2], 2.0, rtol=1e-6)


def test_the_mask_term_is_an_l1_norm_over_latents_of_what_domains_change(rows):
    effects = noise(4, 3, 2).requires_grad_()
    size = np.sqrt((effects.detach().numpy() ** 2).sum(1).mean(0))
    assert mask_penalty(effects).item() == pytest.approx(size.sum(), rel=1e-5)
    (gradient,) = torch.autograd.grad(mask_penalty(effects), effects)
    torch.testing.assert_close(gradient * 4 * torch.from_numpy(size), effects.detach())
    network = CGGANNetwork(config())
    value = network.terms("generator", rows, torch.Generator(), 0)["mask"].item()
    own = network.synthesis.flow.effects[0].detach().reshape(2, 2, 2)
    assert value == pytest.approx(own.square().sum(1).mean(0).sqrt().sum().item(), rel=1e-5)


@pytest.mark.parametrize("flow", ["gaussian", "spline"])
def test_effects_are_the_parameters_that_differ_between_domains(flow):
    synthesis = perturb(CGGANNetwork(config(flow=flow)).synthesis)
    effects = synthesis.effects(torch.eye(2))
    mean = synthesis.flow.mean_domain.detach()
    assert effects.shape == (2, synthesis.flow.n_parameters, 2)
    expected = (synthesis.flow.effects + mean).detach().reshape(2, synthesis.flow.n_parameters, 2)
    torch.testing.assert_close(effects.detach(), expected)


def test_a_mask_without_use_closes_and_the_latent_becomes_content(rows):
    network = CGGANNetwork(config(n_style=3))
    with torch.no_grad():
        for synthesis in (network.synthesis, network.averaged):
            synthesis.flow.effects.zero_()
            synthesis.flow.effects[0, :, 0] = torch.tensor([-2.0, 2.0])
            synthesis.flow.effects[0, :, 1] = torch.tensor([-0.01, 0.01])
    fitted = FittedGAN.of(network, rows)
    assert fitted.n_content == 2
    assert fitted.order[2] == 0
    assert fitted.synthesis.mask.tolist() == [1.0, 0.0, 0.0]
    assert fitted.importance[2].item() == pytest.approx(2 / np.sqrt(5), abs=0.15)
    one, other = (fitted.from_noise(noise(9, 3), design.expand(9, -1)) for design in torch.eye(2))
    assert torch.equal(one[:, :2], other[:, :2])
    torch.testing.assert_close((one - other)[:, 2].abs() * fitted.scale[2].abs(), torch.full((9,), 4.0))


@pytest.mark.parametrize("n_style", [1, 3])
def test_without_a_mask_every_candidate_is_style(rows, n_style):
    network = CGGANNetwork(config(n_style=n_style, mask=False))
    with torch.no_grad():
        for synthesis in (network.synthesis, network.averaged):
            synthesis.flow.effects.mul_(0.01)
    fitted = FittedGAN.of(network, rows)
    assert fitted.n_content == 3 - n_style
    assert set(fitted.order[3 - n_style :].tolist()) == set(range(3 - n_style, 3))
    assert bool((fitted.importance < 0.1).all())
    assert FittedGAN.of(CGGANNetwork(config(mask=False, flow=None)), rows).n_content == 3


def test_content_is_turned_to_the_sparsest_mixing_and_nothing_else_changes(rows):
    """z0 moves features 0 and 1, z1 feature 2, z2 (style) feature 3; a rotation of the content hides that."""
    network = CGGANNetwork(config(n_style=1, hidden=(6,)))
    with torch.no_grad():
        network.averaged.flow.effects[0, :, 0] = torch.tensor([-2.0, 2.0])
        first, last = network.averaged.generator.network.layers
        latent = torch.tensor([0, 0, 0, 1, 1, 2])
        first.weight.mul_(torch.arange(3)[:, None] == latent)
        last.weight.mul_(latent[:, None] == torch.tensor([0, 0, 1, 2]))
    turned = torch.linalg.qr(noise(2, 2, seed=4).double())[0]
    content, truth = torch.tensor([0, 1]), network.averaged.generator(noise(5, 3), torch.eye(2)[[0] * 5])
    before = network.encoder(rows.x)
    network.averaged.generator.turn(content, turned)
    network.encoder.turn(content, turned)
    # What turns the latents turns generator and encoder along.
    z = torch.cat([noise(5, 3)[:, :2] @ turned.T.float(), noise(5, 3)[:, 2:]], 1)
    torch.testing.assert_close(network.averaged.generator(z, torch.eye(2)[[0] * 5]), truth)
    torch.testing.assert_close(network.encoder(rows.x)[:, :2], before[:, :2] @ turned.T.float())
    fitted = FittedGAN.of(network, rows)
    absolute, _ = fitted.mixing(noise(50, 3), rows.design[:50])
    assert fitted.n_content == 2
    assert sorted((absolute > 0.01).sum(1)[:2].tolist()) == [1, 2]
    assert (absolute > 0.01)[2].tolist() == [False, False, False, True]
    torch.testing.assert_close(
        fitted.decode(fitted.encode(rows.x), rows.design), network.averaged(network.encoder(rows.x), rows.design)
    )


# Losses


def test_logistic_losses():
    real, generated = noise(9), noise(9, seed=1)

    def cross_entropy(score, label):
        return torch.nn.functional.binary_cross_entropy_with_logits(score, torch.full_like(score, label))

    torch.testing.assert_close(
        discriminator_loss(real, generated), cross_entropy(real, 1.0) + cross_entropy(generated, 0.0)
    )
    torch.testing.assert_close(generator_loss(generated), cross_entropy(generated, 1.0))


def test_r1_equals_finite_differences_and_so_does_its_gradient():
    network = VectorDiscriminator(generators(0, 1), 3, 2, (5, 4)).double()
    x, design = noise(6, 3, dtype=torch.float64), torch.eye(2, dtype=torch.float64)[torch.arange(6) % 2]

    def by_hand():
        slopes = [
            (network(x + 1e-4 * e, design) - network(x - 1e-4 * e, design)) / 2e-4
            for e in torch.eye(3, dtype=torch.float64)
        ]
        return torch.stack(slopes, 1).square().sum(1).mean()

    own = x.clone().requires_grad_()
    penalty = gradient_penalty(network(own, design), own)
    torch.testing.assert_close(penalty, by_hand(), rtol=1e-6, atol=1e-9)
    weight = network.trunk.layers[0].weight
    (ours,) = torch.autograd.grad(penalty, weight)
    (theirs,) = torch.autograd.grad(by_hand(), weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_r1_is_due_in_every_fourth_step_and_weighs_four_times(rows):
    network = CGGANNetwork(config(gradient_weight=0.6))
    source = torch.Generator().manual_seed(0)
    due = ["gradient" in network.terms("discriminator", rows, source, step) for step in range(9)]
    assert due == [True, False, False, False, True, False, False, False, True]
    assert network.weights("discriminator", 0)["gradient"] == pytest.approx(0.3 * 4)


def test_the_gradient_penalty_falls_by_the_same_factor_in_every_step_of_the_second_half():
    network = CGGANNetwork(config(gradient_weight=0.6, sharpened=0.01, steps=100))
    weights = [network.weights("discriminator", step)["gradient"] for step in (0, 50, 75, 100)]
    assert weights == pytest.approx([1.2, 1.2, 0.12, 0.012])


def test_the_l1_terms_fall_once_the_mask_is_closed(rows):
    network = CGGANNetwork(config(sparsity=0.3, mask_weight=0.2, steps=100, sparsity_left=0.1))
    weights = [network.weights("generator", step) for step in (0, 15, 30, 50, 75, 99)]
    assert [at["sparsity"] for at in weights] == pytest.approx([0.0, 0.15, 0.3, 0.3, 0.15, 0.03])
    assert [at["mask"] for at in weights] == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.1, 0.004])
    kept = CGGANNetwork(config(sparsity=0.3, steps=100))
    assert [kept.weights("generator", step)["sparsity"] for step in (15, 30, 99)] == pytest.approx([0.15, 0.3, 0.3])


def test_a_model_is_as_complex_as_it_has_latents_that_domains_move():
    """More than all, where domains move none."""
    assert CGGANNetwork(config(flow=None)).complexity() == 3
    assert CGGANNetwork(config(mask=False)).complexity() == 0
    network = CGGANNetwork(config())
    flow = network.averaged.flow
    with torch.no_grad():
        flow.effects.zero_()
        assert network.complexity() == 3
        flow.effects[..., 0] = 1.0
        flow.effects[0, 0, 0] = -1.0
        assert network.complexity() == 1
        network.averaged.mask[0] = 0.0
        assert network.complexity() == 3


# Exact derivatives


def _image_generator():
    return perturb(ImageGenerator(generators(0, 1), 1, 2, 0, (6,), (8, 8, 1), 2)).double()


@pytest.mark.parametrize("form", ["vector", "image"])
def test_directional_jacobian_and_its_gradient_equal_autograd(form):
    generator = CGGANNetwork(config()).double().synthesis.generator if form == "vector" else _image_generator()
    n_rows = 2 if form == "vector" else 1
    z, nothing = noise(n_rows, 3, dtype=torch.float64), torch.zeros(n_rows, 0, dtype=torch.float64)
    ours = generator.derivatives(z, nothing, torch.tensor([2, 0]))
    theirs = torch.stack(
        [autograd_jacobian(lambda own: generator(own[None], nothing)[0], row, create_graph=True) for row in z]
    )
    torch.testing.assert_close(ours, theirs.movedim(-1, 0)[[2, 0]])
    parameters = list(generator.parameters())
    mine = torch.autograd.grad(ours.abs().sum(), parameters, allow_unused=True)
    other = torch.autograd.grad(theirs[..., [2, 0]].abs().sum(), parameters, allow_unused=True)
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(torch.zeros(1) if a is None else a, torch.zeros(1) if b is None else b)


def test_the_sparsity_term_is_the_norm_of_the_whole_mixing(rows):
    networks = {penalty: CGGANNetwork(config(penalty=penalty, penalty_rows=64)) for penalty in ("l1", "log")}
    synthesis = networks["l1"].synthesis
    z = synthesis.from_noise(torch.randn(64, 3, generator=torch.Generator().manual_seed(4)), rows.design)
    full = torch.stack([autograd_jacobian(lambda own: synthesis(own[None], None)[0], row) for row in z])
    entries = full.abs().mean(0) * z.std(0, correction=0)
    for penalty, expected in (("l1", entries), ("log", 0.05 * torch.log1p(entries / 0.05))):
        terms = networks[penalty].terms("generator", rows, torch.Generator().manual_seed(4), 0)
        assert terms["sparsity"].item() == pytest.approx(expected.sum().item(), rel=1e-4)


def test_one_direction_a_step_is_right_on_average():
    settings = {"shape": (16, 16, 3), "channels": 2, "penalty": "l1"}
    one, both = (CGGANNetwork(config(directions=k, **settings)) for k in (1, 2))
    design = torch.eye(2).repeat(4, 1)
    z = one.synthesis.from_noise(noise(8, 3), design).detach()
    draws = {round(one._sparsity(z, design, torch.Generator().manual_seed(s)).item(), 6) for s in range(20)}
    full = both._sparsity(z, design, torch.Generator().manual_seed(0)).item()
    assert len(draws) == 2
    assert sum(draws) / 2 == pytest.approx(full, rel=1e-3)


# Images


def test_modulated_convolution_equals_weights_made_for_each_sample():
    layer = perturb(ModulatedConvolution(generators(0, 1), 4, 3, 5).double())
    x, style = noise(6, 3, 8, 8, dtype=torch.float64), noise(6, 4, dtype=torch.float64)
    weight, bias = layer.convolution.weight, layer.convolution.bias
    for output, one, own in zip(layer(x, style), x, style, strict=True):
        scale = 1 + own @ layer.scales.layers[0].weight[0] + layer.scales.layers[0].bias[0, 0]
        modulated = weight * scale[None, :, None, None]
        modulated = modulated / modulated.flatten(1).norm(dim=1)[:, None, None, None]
        torch.testing.assert_close(output, conv2d(one[None], modulated, bias, padding=1)[0])


def test_style_acts_on_colours_first_and_with_colours_alone_on_nothing_else():
    z, design = noise(6, 5), torch.zeros(6, 0)
    z[:, :3] = z[0, :3]
    for alone in (False, True):
        generator = ImageGenerator(generators(0, 1), 3, 2, 0, (6,), (16, 16, 3), 4, colours_alone=alone)
        seen = []
        generator.second[-1].register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output))
        images = generator(z, design)
        assert (images[1:] - images[0]).abs().flatten(1).amax(1).min() > 0.01
        torch.testing.assert_close(seen[0], seen[0][:1].expand(6, -1, -1, -1))
        generator(noise(6, 5, seed=1), design)
        assert (seen[1] - seen[0]).abs().max() > 0.01
        perturb(generator)
        generator(z, design)
        assert bool((seen[2] - seen[2][:1]).abs().max() > 1e-4) is not alone


@pytest.mark.parametrize(("n_content", "n_style"), [(0, 3), (3, 0)])
def test_images_of_content_alone_and_of_style_alone(n_content, n_style):
    generator = ImageGenerator(generators(0, 1), n_content, n_style, 0, (6,), (16, 16, 3), 2)
    images = perturb(generator)(noise(4, 3), torch.zeros(4, 0))
    assert images.shape == (4, 3, 16, 16)
    assert images.std(0).max() > 0.01


def test_real_images_join_late_and_some_of_what_is_generated_are_translations_of_them(images):
    x = Rows(torch.from_numpy(images), None, torch.arange(24).remainder(2)[:, None], torch.zeros(24, 0), 2)
    network = CGGANNetwork(
        config(shape=(16, 16, 3), channels=2, steps=100, joining=0.2, translated=0.5, reconstruction_weight=7.0)
    )
    weights = [network.weights("generator", step)["reconstruction"] for step in (0, 20, 30, 40, 99)]
    assert weights == pytest.approx([0.0, 0.0, 3.5, 7.0, 7.0])
    due = ["reconstruction" in network.terms("generator", x, torch.Generator(), step) for step in (0, 20, 21, 99)]
    assert due == [False, False, True, True]
    drawn = noise(24, 3)
    z, target = network._proposed(x, drawn, 29)
    torch.testing.assert_close(z, network.synthesis.from_noise(drawn, x.design))
    assert target is z
    z, target = network._proposed(x, drawn, 30)
    own = network.encoder(as_floats(x.x[:12]))
    moved = network.synthesis.from_noise(network.synthesis.to_noise(own, x.design[:12]), x.design[12:])
    torch.testing.assert_close(z[12:], moved)
    torch.testing.assert_close(z[:12], network.synthesis.from_noise(drawn, x.design)[:12])
    assert torch.equal(z, target)
    # The encoder is not drawn to what it finds in its own translations.
    assert torch.autograd.grad(target.sum(), [*network.encoder.parameters()], allow_unused=True)[0] is None


def test_the_pace_multiplies_what_domains_do():
    slow, fast = (CGGANNetwork(config(pace=pace)).synthesis for pace in (1.0, 5.0))
    design = torch.eye(slow.flow.effects.shape[1])
    torch.testing.assert_close(fast.effects(design), 5 * slow.effects(design))
    shift = fast.from_noise(torch.zeros(len(design), 3), design)
    torch.testing.assert_close(shift[:, 1:], fast.effects(design)[:, 0])


def test_images_go_to_floats_and_back(images):
    x = torch.from_numpy(images)
    floats = as_floats(x)
    assert floats.shape == (24, 3, 16, 16)
    assert (floats.min().item(), floats.max().item()) == (-1.0, 1.0)
    assert torch.equal(as_images(floats), x)
    assert as_images(torch.full((1, 1, 2, 2), 9.0)).max().item() == 255


def test_augmentation_moves_darkens_and_cuts_some_images():
    x = noise(200, 2, 16, 16)
    assert augment(x, 0.0, torch.Generator()) is x
    changed = augment(x, 0.5, torch.Generator().manual_seed(0))
    assert changed.shape == x.shape
    same = (changed == x).flatten(1).all(1).float().mean().item()
    assert same == pytest.approx(0.5**3, abs=0.08)
    cut = ((changed == 0).all(1).flatten(1).sum(1) > 9).float().mean().item()
    assert cut == pytest.approx(0.5, abs=0.1)
    own = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(augment(own, 0.5, torch.Generator().manual_seed(0)).sum(), own)
    assert gradient.abs().sum() > 0
    assert adapted(0.0, 0.9, 1000) == pytest.approx(0.01)
    assert adapted(0.005, 0.1, 1000) == 0.0
    assert adapted(MOST, 0.9, 1000) == MOST


def test_the_hole_and_the_shift_of_an_image_are_independent():
    ramp = 100.0 + torch.arange(16.0)
    for axis, x in ((0, ramp[:, None].expand(16, 16)), (1, ramp.expand(16, 16))):
        seen = augment(x.expand(400, 1, 16, 16), 1.0, torch.Generator().manual_seed(0))[:, 0]
        shifts, centres = [], []
        for image in seen:
            left = image != 0
            left[:3] = left[-3:] = left[:, :3] = left[:, -3:] = False
            shifts.append((image - x)[left].median().round().item())
            centres.append((image == 0).nonzero()[:, axis].float().mean().item())
        assert set(shifts) == {-2.0, -1.0, 0.0, 1.0, 2.0}
        assert abs(np.corrcoef(shifts, centres)[0, 1]) < 0.15


def test_the_augmentation_adapts_while_training_and_is_part_of_the_state(images):
    x = Rows(torch.from_numpy(images), None, torch.arange(24).remainder(2)[:, None], torch.zeros(24, 0), 2)
    found = []
    for sign in (1.0, -1.0):
        network = CGGANNetwork(config(shape=(16, 16, 3), channels=2, steps=3, encoder_steps=1))
        with torch.no_grad():
            network.augmentation.fill_(0.4)
            network.discriminator.projection.linear.layers[-1].bias.fill_(9.0 * sign)
        fit_adversarial(network, x, AdversarialSettings(batch_size=40))
        found.append(network.state_dict()["augmentation"].item())
    assert found == pytest.approx([0.4 + 3 * 0.0004, 0.4 - 3 * 0.0004], abs=1e-6)


# Running average and loop


def test_the_running_average(rows):
    network = CGGANNetwork(config(averaging=0.1))
    states = []
    expected = None
    for step in range(12):
        perturb(network.synthesis, seed=step)
        network.after("generator", step, 8)
        states.append(network.synthesis.generator.network.layers[0].weight.detach().clone())
        share = max(0.1, 1 / (step + 1))
        expected = states[-1] if expected is None else (1 - share) * expected + share * states[-1]
    torch.testing.assert_close(network.averaged.generator.network.layers[0].weight, expected)
    assert not any(value.requires_grad for value in network.averaged.parameters())


class Interrupt:
    def __init__(self, step):
        self.step = step

    def __call__(self, step, row):
        if step == self.step:
            raise KeyboardInterrupt


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(rows, tmp_path):
    settings = AdversarialSettings(batch_size=16, block=5)
    whole, parts, fresh = (CGGANNetwork(config(steps=16, encoder_steps=9)) for _ in range(3))
    expected = fit_adversarial(whole, rows, settings)
    with pytest.raises(KeyboardInterrupt):
        fit_adversarial(parts, rows, settings, checkpoint=tmp_path / "c", on_block=Interrupt(10))
    result = fit_adversarial(fresh, rows, settings, checkpoint=tmp_path / "c", resume=True)
    assert result.history == expected.history
    assert [row["step"] for row in result.history] == [5, 10, 15, 20, 25]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name
    with pytest.raises(StorageError, match="other settings or data"):
        fit_adversarial(CGGANNetwork(config(n_latents=2)), rows, settings, checkpoint=tmp_path / "c", resume=True)


def test_each_phase_moves_its_own_parameters_in_its_own_steps(rows):
    network = CGGANNetwork(config(steps=4, encoder_steps=4))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    moved = []

    def look(step, row):
        nonlocal before
        now = {name: value.clone() for name, value in network.state_dict().items()}
        moved.append({name.split(".")[0] for name, value in now.items() if not torch.equal(value, before[name])})
        before = now

    result = fit_adversarial(network, rows, AdversarialSettings(batch_size=16, block=4), on_block=look)
    assert moved == [{"discriminator", "synthesis", "averaged", "encoder"}, {"encoder"}]
    assert set(result.history[0]) == {
        "step",
        "discriminator_logistic",
        "discriminator_gradient",
        "generator_logistic",
        "generator_latents",
        "generator_reconstruction",
        "generator_mask",
        "generator_sparsity",
    }
    assert set(result.history[1]) == {"step", "encoder_latents", "encoder_reconstruction", "encoder_real"}


class Sick(CGGANNetwork):
    until, calls = 10**9, 0

    def terms(self, phase, *arguments):
        terms = super().terms(phase, *arguments)
        self.calls += 1
        if phase == "generator" and 5 < self.calls < self.until:
            terms["mask"] = terms["mask"] * float("nan")
        return terms


def test_a_sick_run_goes_back_and_ends_with_the_name_of_the_term(rows):
    passing, lasting = Sick(config(steps=8, encoder_steps=2)), Sick(config(steps=8, encoder_steps=2))
    passing.until = 7
    settings = AdversarialSettings(batch_size=16, block=2, max_rewinds=2)
    result = fit_adversarial(passing, rows, settings)
    assert len(result.history) == 5
    assert all(np.isfinite(list(row.values())).all() for row in result.history)
    with pytest.raises(TrainingError, match=r"after step 2 in the terms generator_mask, after 3 rewinds") as caught:
        fit_adversarial(lasting, rows, settings)
    assert len(caught.value.history) == 1
    assert all(torch.isfinite(value).all() for value in lasting.state_dict().values())
