r"""CG-GAN: a conditional generative adversarial network in which domains act through few latents, sparsely mixed.

.. math:: z_c = \epsilon_c, \quad z_s = f_u(\epsilon_s; m), \quad \tilde x = G(z_c, z_s) + \sigma \odot \eta, \qquad
          \epsilon, \eta \sim N(0, I)

Li et al., ICLR 2025, arXiv:2503.00639. The domain-conditional map f is that of the prior (``distributions/prior.py``),
monotone in every style latent. Moving a row to another domain keeps (ε_c, ε_s) and changes u. Observation noise σ is
learnt for rows of features, because a generator without it never matches them; images have none.

Generator and encoder E together minimise, with the terms of ``objectives/adversarial.py``,

.. math:: L_G + \lambda_t M + \alpha_t S + E\,\|E(\tilde x) - z\|^2 + E\,\|G(E(x)) - x\|^2

The last two make every latent visible in x, and every row of the data one that the generator makes. S takes the exact
derivatives, of rows of features by every latent: where content has several dimensions it keeps its distribution under a
rotation that depends on style, and the sparsest mixing alone says which is right. Of images S takes the derivatives by
some random style latents a step.

Style latents are candidates: M is an L1 term on the size of what domains change in each of them, so it becomes 0 for
all but as many as the domains need. Half-way the mask m is closed for those: they are as in the mean domain in every
domain, that is content. From there on λ falls to 0, because L1 terms also press on what is truly there, and so does α
of images, to a tenth. α has risen from 0 over the first steps, or latents could die before they are of use. On rows of
features the gradient penalty of the discriminator falls as well: a sharp discriminator sees the small differences by
which content still depends on style, but one that is sharp from the start can lead into a local optimum.

After the adversarial steps the encoder learns to read the averaged generator, whose weights follow the generator's
exponentially. What is kept of it all is in ``fitted_gan.py``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unmix.data.batches import Rows
from unmix.distributions.prior import DomainPrior, GaussianPrior, PriorDistribution, SplinePrior
from unmix.models.adversarial import AdversarialModel, Phase
from unmix.nets.augment import adapted, augment
from unmix.nets.gan import VectorDiscriminator, VectorEncoder, VectorGenerator
from unmix.nets.gan_images import ImageDiscriminator, ImageEncoder, ImageGenerator
from unmix.nets.jacobian import rows_at_once
from unmix.nets.layers import Generators, generators
from unmix.objectives.adversarial import discriminator_loss, generator_loss, gradient_penalty, mask_penalty
from unmix.objectives.sparsity import PENALTIES, jacobian_weights

FLOWS: dict[str, type[DomainPrior]] = {"gaussian": GaussianPrior, "spline": SplinePrior}
MODULATIONS = ("all", "colours")

MASK_THRESHOLD = 0.1
_INITIAL_NOISE = 0.1
_RAMP = 0.3
_CLOSING = 0.5
# Numbers of one layer where no gradient is asked for: 16 MB, of which forward mode keeps a good dozen.
LAYER = 2**22


@dataclass(frozen=True)
class CGGANConfig:
    """Everything that fixes networks and objective; the last ``n_style`` of the ``n_latents`` may be style.

    ``shape``: (n_features,), or (side, side, colours) of images. ``hidden``: widths of dense networks; for images the
    last is the width of the modulation and of the discriminator's features, and ``channels`` those at the full side.
    ``flow``: "gaussian", "spline" or None, a plain conditional generator. The exact derivatives, of images by
    ``directions`` style latents, are taken at the first ``penalty_rows`` rows in every ``sparsity_every``-th step, the
    R1 term in every ``gradient_every``-th; both weigh accordingly more. ``joining``: share of the steps before real
    rows are encoded at all; as many more later they have their full weight, and from half-way between on the share
    ``translated`` of what the generator makes are rows of the data, moved to another domain. ``pace``: how many times
    as fast as other parameters the effects of domains may grow. ``sharpened`` and ``sparsity_left``: shares of the
    gradient penalty and of the Jacobian term that are left at the end.
    """

    n_latents: int
    n_style: int
    shape: tuple[int, ...]
    n_design: int
    interactions: float = 0.0
    hidden: tuple[int, ...] = (128, 128)
    channels: int = 32
    modulation: str = "all"
    flow: str | None = "gaussian"
    mask: bool = True
    mask_weight: float = 0.04
    sparsity: float = 0.03
    penalty: str = "log"
    gradient_weight: float = 0.2
    augment: bool = True
    steps: int = 8000
    encoder_steps: int = 1000
    seed: int = 0
    directions: int = 2
    penalty_rows: int = 64
    gradient_every: int = 4
    sparsity_every: int = 1
    averaging: float = 0.002
    latent_weight: float = 1.0
    reconstruction_weight: float = 1.0
    joining: float = 0.0
    translated: float = 0.0
    pace: float = 1.0
    sharpened: float = 0.03
    sparsity_left: float = 1.0

    @property
    def images(self) -> bool:
        return len(self.shape) > 1

    @property
    def n_penalised(self) -> int:
        """How many latents, the last ones, have their derivatives penalised."""
        return self.n_style if self.images else self.n_latents

    @property
    def all_style(self) -> bool:
        """Whether every candidate is style, however little domains change it."""
        return self.flow is not None and not self.mask

    def rows_at_once(self, n_columns: int = 1) -> int:
        """Rows that go through the networks together, with derivatives by ``n_columns`` latents if these are taken."""
        widths = (*self.shape, *self.hidden)
        if self.images:
            widths = (self.shape[0] * self.shape[1] * max(self.channels, self.shape[2]),)
        return rows_at_once(1, n_columns, max(widths), LAYER)


def _generator(sources: Generators, config: CGGANConfig) -> VectorGenerator | ImageGenerator:
    n_design = config.n_design if config.flow is None else 0
    if config.images:
        n_content = config.n_latents - config.n_style
        return ImageGenerator(
            sources,
            n_content,
            config.n_style,
            n_design,
            config.hidden,
            config.shape,
            config.channels,
            colours_alone=config.modulation == "colours",
        )
    return VectorGenerator(sources, config.n_latents, n_design, config.hidden, config.shape[0])


def _discriminator(sources: Generators, config: CGGANConfig) -> nn.Module:
    if config.images:
        return ImageDiscriminator(sources, config.shape, config.channels, config.n_design, config.hidden[-1])
    return VectorDiscriminator(sources, config.shape[0], config.n_design, config.hidden)


def new_encoder(sources: Generators, config: CGGANConfig) -> nn.Module:
    """Reads latents (rows, n_latents) from rows of features or from images, without their domain."""
    if config.images:
        return ImageEncoder(sources, config.shape, config.channels, config.hidden[-1], config.n_latents)
    return VectorEncoder(sources, config.shape[0], config.hidden, config.n_latents)


def as_floats(x: Tensor) -> Tensor:
    """What the networks see: uint8 images (rows, side, side, colours) as -1 … 1 with colours first, rows unchanged."""
    return x.permute(0, 3, 1, 2).float() / 127.5 - 1.0 if x.dtype == torch.uint8 else x


def as_images(x: Tensor) -> Tensor:
    """The inverse of ``as_floats`` for images, clipped and rounded."""
    return ((x + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


class Synthesis(nn.Module):
    """From noise and domain to latents, and from latents to rows; ``mask`` (n_style,) is 0 for content."""

    mask: Tensor

    def __init__(self, config: CGGANConfig) -> None:
        super().__init__()
        sources = generators(config.seed, 1)
        self.n_content, self.pace = config.n_latents - config.n_style, config.pace
        self.flow: DomainPrior | None = None
        if config.flow is not None:
            self.flow = FLOWS[config.flow](sources, config.n_style, config.n_design, config.interactions)
            self.flow.mean_domain.requires_grad_(False)
        self.register_buffer("mask", torch.ones(config.n_style))
        self.generator = _generator(sources, config)
        self.log_noise: nn.Parameter | None = None
        if not config.images:
            self.log_noise = nn.Parameter(torch.full((config.shape[0],), math.log(_INITIAL_NOISE)))

    def forward(self, z: Tensor, design: Tensor) -> Tensor:
        x: Tensor = self.generator(z, design)
        return x

    def observed(self, x: Tensor, source: torch.Generator) -> Tensor:
        """``x`` with observation noise; images have none."""
        if self.log_noise is None:
            return x
        return x + self.log_noise.exp() * torch.randn(x.shape, generator=source).to(x)

    def style(self, design: Tensor) -> PriorDistribution | None:
        """Distribution of the style latents of every row; None without a flow."""
        return None if self.flow is None else self.flow(self.pace * design, self.mask[None, None])

    def from_noise(self, noise: Tensor, design: Tensor) -> Tensor:
        """``z`` (rows, n_latents) of ``noise`` ε in the domains of ``design``."""
        distribution = self.style(design)
        if distribution is None:
            return noise
        content, style = noise[:, : self.n_content], noise[:, self.n_content :]
        return torch.cat([content, distribution.from_noise(style[None])[0]], dim=1)

    def to_noise(self, z: Tensor, design: Tensor) -> Tensor:
        """``ε`` (rows, n_latents) of the latents ``z``."""
        distribution = self.style(design)
        if distribution is None:
            return z
        content, style = z[:, : self.n_content], z[:, self.n_content :]
        return torch.cat([content, distribution.to_noise(style[None])[0][0]], dim=1)

    def effects(self, design: Tensor) -> Tensor:
        """What each row's domain changes in the parameters of the flow (rows, parameters, n_style)."""
        assert self.flow is not None
        return torch.cat(self.flow.parameters_of(self.pace * design)).transpose(0, 1)


class CGGANNetwork(AdversarialModel):
    """Generator, its running average, discriminator and encoder; ``augmentation`` is the adaptive probability."""

    augmentation: Tensor

    def __init__(self, config: CGGANConfig) -> None:
        super().__init__()
        self.config = config
        self.synthesis = Synthesis(config)
        self.averaged = copy.deepcopy(self.synthesis).requires_grad_(False)
        (source,) = generators(config.seed + 1, 1)
        self.discriminator = _discriminator([source], config)
        self.encoder = new_encoder([source], config)
        self.register_buffer("augmentation", torch.zeros(()))
        self._certainty = 0.0
        self.phases = (
            Phase("discriminator", ("discriminator",), 0, config.steps),
            Phase("generator", ("synthesis", "encoder"), 0, config.steps),
            Phase("encoder", ("encoder",), config.steps, config.steps + config.encoder_steps),
        )

    def terms(self, phase: str, rows: Rows, source: torch.Generator, step: int) -> dict[str, Tensor]:
        noise = torch.randn(len(rows), self.config.n_latents, generator=source).to(rows.x.device)
        if phase == "discriminator":
            return self._discriminator_terms(rows, noise, source, step)
        if phase == "generator":
            return self._generator_terms(rows, noise, source, step)
        return self._encoder_terms(rows, noise, source)

    def weights(self, phase: str, step: int) -> Mapping[str, float]:
        config = self.config
        progress = step / config.steps
        risen = min(1.0, progress / _RAMP)
        fallen = min(1.0, (1.0 - progress) / (1.0 - _CLOSING))
        gradient = 0.5 * config.gradient_weight * config.gradient_every * config.sharpened ** (1.0 - fallen)
        return {
            "discriminator": {"logistic": 1.0, "gradient": gradient},
            "generator": {
                "logistic": 1.0,
                "mask": config.mask_weight * fallen,
                "sparsity": config.sparsity * config.sparsity_every * risen * max(fallen, config.sparsity_left),
                "latents": config.latent_weight,
                "reconstruction": config.reconstruction_weight * self._joined(step),
            },
            "encoder": {"latents": 1.0, "reconstruction": 1.0, "real": 1.0},
        }[phase]

    @torch.no_grad()
    def after(self, phase: str, step: int, batch_size: int) -> None:
        if phase == "discriminator" and self._augmenting:
            self.augmentation.fill_(adapted(float(self.augmentation), self._certainty, batch_size))
        if phase == "generator":
            share = max(self.config.averaging, 1.0 / (step + 1))
            for average, value in zip(self.averaged.parameters(), self.synthesis.parameters(), strict=True):
                average.lerp_(value, share)
            if self.config.mask and step == int(_CLOSING * self.config.steps):
                self._close()

    @torch.no_grad()
    def complexity(self) -> int:
        """Style latents that domains move, fewest being best; a model in which they move none has missed them.

        Where all candidates are style, their number says nothing.
        """
        if self.config.all_style:
            return 0
        return int(self._moved().sum()) or self.config.n_style + 1

    def _moved(self) -> Tensor:
        """Whether domains move each style latent (n_style,), by the size of what they change in its flow."""
        averaged = self.averaged
        if averaged.flow is None:
            return averaged.mask.new_zeros(0, dtype=torch.bool)
        effects = averaged.effects(torch.eye(self.config.n_design, device=averaged.mask.device))
        return (effects.square().sum(1).mean(0).sqrt() >= MASK_THRESHOLD) & (averaged.mask > 0)

    def _close(self) -> None:
        """Style latents that domains hardly move become content for good, and the mask term may fade."""
        if self.averaged.flow is not None:
            moved = self._moved()
            for synthesis in (self.synthesis, self.averaged):
                synthesis.mask[~moved] = 0.0

    @property
    def _augmenting(self) -> bool:
        return self.config.augment and self.config.images

    def _seen(self, x: Tensor, source: torch.Generator) -> Tensor:
        """What the discriminator gets to see of ``x``."""
        return augment(x, float(self.augmentation), source) if self._augmenting else x

    def _discriminator_terms(self, rows: Rows, noise: Tensor, source: torch.Generator, step: int) -> dict[str, Tensor]:
        design, real = rows.design, as_floats(rows.x)
        with torch.no_grad():
            z, _ = self._proposed(rows, noise, step)
            generated = self.synthesis.observed(self.synthesis(z, design), source)
        penalised = step % self.config.gradient_every == 0
        real = self._seen(real, source).detach().requires_grad_(penalised)
        score = self.discriminator(real, design)
        terms = {"logistic": discriminator_loss(score, self.discriminator(self._seen(generated, source), design))}
        if penalised:
            terms["gradient"] = gradient_penalty(score, real)
        if self._augmenting:
            self._certainty = float(score.detach().sign().mean())
        return terms

    def _generator_terms(self, rows: Rows, noise: Tensor, source: torch.Generator, step: int) -> dict[str, Tensor]:
        config, design = self.config, rows.design
        z, target = self._proposed(rows, noise, step)
        generated, real = self.synthesis.observed(self.synthesis(z, design), source), as_floats(rows.x)
        terms = {"logistic": generator_loss(self.discriminator(self._seen(generated, source), design))}
        joined = self._joined(step) > 0
        found = self.encoder(torch.cat([generated, real]) if joined else generated)
        terms["latents"] = (found[: len(z)] - target).square().mean()
        if joined:
            terms["reconstruction"] = (self.synthesis(found[len(z) :], design) - real).square().mean()
        if config.mask and config.flow is not None:
            terms["mask"] = mask_penalty(self.synthesis.effects(design))
        if config.sparsity > 0 and config.n_penalised > 0 and step % config.sparsity_every == 0:
            terms["sparsity"] = self._sparsity(z, design, source)
        return terms

    def _joined(self, step: int) -> float:
        """How far real rows take part: 0 before ``joining``, 1 at twice of it."""
        begin = self.config.joining * self.config.steps
        return min(1.0, max(0.0, step - begin) / begin) if begin > 0 else 1.0

    def _proposed(self, rows: Rows, noise: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Latents of what is generated, and what the encoder should find in it.

        The last of them are latents of the first real rows, moved to the domains of the last rows.
        """
        design = rows.design
        z = self.synthesis.from_noise(noise, design)
        moving = int(self.config.translated * len(z)) if 2 * self._joined(step) >= 1 else 0
        if not moving:
            return z, z
        own = self.synthesis.to_noise(self.encoder(as_floats(rows.x[:moving])), design[:moving])
        moved = self.synthesis.from_noise(own, design[-moving:])
        return torch.cat([z[:-moving], moved]), torch.cat([z[:-moving], moved.detach()])

    def _sparsity(self, z: Tensor, design: Tensor, source: torch.Generator) -> Tensor:
        config = self.config
        first = config.n_latents - config.n_penalised
        count = min(config.directions, config.n_style) if config.images else config.n_latents
        columns = first + torch.randperm(config.n_penalised, generator=source)[:count].to(z.device)
        n_rows = min(config.penalty_rows, len(z))
        jacobian = self.synthesis.generator.derivatives(z[:n_rows], design[:n_rows], columns)
        spread = z[:, columns].std(0, correction=0)
        weights = jacobian_weights(jacobian.flatten(2).transpose(0, 1)[None], spread[None])
        per_entry = 1.0 / math.prod(config.shape) if config.images else 1.0
        return PENALTIES[config.penalty](weights)[0] * (config.n_penalised / count * per_entry)

    def _encoder_terms(self, rows: Rows, noise: Tensor, source: torch.Generator) -> dict[str, Tensor]:
        """Latents of generated rows, and what becomes of generated and of real rows on the way there and back."""
        design, real = rows.design, as_floats(rows.x)
        with torch.no_grad():
            z = self.averaged.from_noise(noise, design)
            generated = self.averaged(z, design)
            seen = self.averaged.observed(generated, source)
        found = self.encoder(torch.cat([seen, real]))
        errors = (self.averaged(found, design.repeat(2, 1)) - torch.cat([generated, real])).square()
        return {
            "latents": (found[: len(z)] - z).square().mean(),
            "reconstruction": errors[: len(z)].mean(),
            "real": errors[len(z) :].mean(),
        }
