r"""CG-GAN: a conditional generative adversarial network in which domains act through few latents, sparsely mixed.

.. math:: z_c = \epsilon_c, \qquad z_s = f_u(\epsilon_s; m), \qquad \tilde x = G(z_c, z_s), \qquad \epsilon \sim N(0, I)

Li et al., ICLR 2025, arXiv:2503.00639. The domain-conditional map f is that of the prior (``nets/prior.py``), monotone
in every style latent, and the mask m in [0, 1] multiplies what the domain changes in it: at m_i = 0 the latent is as in
the mean domain, that is content. Style latents are candidates; how many are used is found, by an L1 term on the mask.
Moving a row to another domain keeps (ε_c, ε_s) and changes u.

The generator minimises, with the terms of ``objectives/adversarial.py``,

.. math:: L_G + \lambda M + \alpha S

S takes the exact derivatives by some random style latents a step. After the adversarial steps an encoder learns to
read the latents of rows from the averaged generator, whose weights follow the generator's exponentially.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unmix.data.batches import Rows
from unmix.models.players import AdversarialModel, Phase
from unmix.nets.gan import VectorDiscriminator, VectorEncoder, VectorGenerator
from unmix.nets.jacobian import jacobian_columns
from unmix.nets.layers import generators
from unmix.nets.prior import DomainPrior, GaussianPrior, PriorDistribution, SplinePrior
from unmix.objectives.adversarial import discriminator_loss, generator_loss, gradient_penalty, mask_penalty
from unmix.objectives.sparsity import PENALTIES, jacobian_weights

FLOWS: dict[str, type[DomainPrior]] = {"gaussian": GaussianPrior, "spline": SplinePrior}


@dataclass(frozen=True)
class CGGANConfig:
    """Everything that fixes networks and objective; the last ``n_style`` of the ``n_latents`` may be style."""

    n_latents: int
    n_style: int
    n_features: int
    n_design: int
    interactions: bool = False
    hidden: tuple[int, ...] = (128, 128)
    flow: str | None = "gaussian"
    mask: bool = True
    mask_weight: float = 0.02
    sparsity: float = 0.02
    penalty: str = "l1"
    directions: int = 2
    penalty_rows: int = 64
    gradient_weight: float = 0.2
    gradient_every: int = 4
    averaging: float = 0.002
    steps: int = 8000
    encoder_steps: int = 3000
    seed: int = 0


class Synthesis(nn.Module):
    """From noise and domain to latents, and from latents to rows."""

    def __init__(self, config: CGGANConfig) -> None:
        super().__init__()
        sources = generators(config.seed, 1)
        self.n_content = config.n_latents - config.n_style
        self.flow: DomainPrior | None = None
        if config.flow is not None:
            self.flow = FLOWS[config.flow](sources, config.n_style, config.n_design, config.interactions)
            self.flow.mean_domain.requires_grad_(False)
        self.mask = nn.Parameter(torch.ones(config.n_style), requires_grad=config.mask and self.flow is not None)
        conditional = 0 if self.flow is not None else config.n_design
        self.generator = VectorGenerator(sources, config.n_latents, conditional, config.hidden, config.n_features)

    def forward(self, z: Tensor, design: Tensor) -> Tensor:
        x: Tensor = self.generator(z, design)
        return x

    def style(self, design: Tensor) -> PriorDistribution | None:
        """Distribution of the style latents of every row; None without a flow."""
        return None if self.flow is None else self.flow(design, self.mask.clamp(0.0, 1.0)[None, None])

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
        """What each row's domain changes in the parameters of the flow (rows, parameters, n_style), unmasked."""
        assert self.flow is not None
        values = torch.cat([value.flatten(3) if value.dim() > 3 else value for value in self.flow.parameters_of(design)])
        return values.transpose(0, 1)


class CGGANNetwork(AdversarialModel):
    """Generator, its running average, discriminator and encoder."""

    def __init__(self, config: CGGANConfig) -> None:
        super().__init__()
        self.config = config
        self.synthesis = Synthesis(config)
        self.averaged = copy.deepcopy(self.synthesis).requires_grad_(False)
        (source,) = generators(config.seed + 1, 1)
        self.discriminator = VectorDiscriminator([source], config.n_features, config.n_design, config.hidden)
        self.encoder = VectorEncoder([source], config.n_features, config.hidden, config.n_latents)
        self.phases = (
            Phase("discriminator", ("discriminator",), 0, config.steps),
            Phase("generator", ("synthesis",), 0, config.steps),
            Phase("encoder", ("encoder",), config.steps, config.steps + config.encoder_steps),
        )

    def terms(self, phase: str, rows: Rows, source: torch.Generator, step: int) -> dict[str, Tensor]:
        noise = torch.randn(len(rows), self.config.n_latents, generator=source).to(rows.x.device)
        if phase == "discriminator":
            return self._discriminator_terms(rows, noise, step)
        if phase == "generator":
            return self._generator_terms(rows, noise, source)
        return self._encoder_terms(rows, noise)

    def weights(self, phase: str) -> Mapping[str, float]:
        config = self.config
        return {
            "discriminator": {"logistic": 1.0, "gradient": 0.5 * config.gradient_weight * config.gradient_every},
            "generator": {"logistic": 1.0, "mask": config.mask_weight, "sparsity": config.sparsity},
            "encoder": {"latents": 1.0, "reconstruction": 1.0},
        }[phase]

    @torch.no_grad()
    def after(self, phase: str, step: int) -> None:
        if phase != "generator":
            return
        share = max(self.config.averaging, 1.0 / (step + 1))
        for average, value in zip(self.averaged.parameters(), self.synthesis.parameters(), strict=True):
            average.lerp_(value, share)

    def _discriminator_terms(self, rows: Rows, noise: Tensor, step: int) -> dict[str, Tensor]:
        design = rows.design
        with torch.no_grad():
            generated = self.synthesis(self.synthesis.from_noise(noise, design), design)
        penalised = step % self.config.gradient_every == 0
        real = rows.x.requires_grad_() if penalised else rows.x
        score = self.discriminator(real, design)
        terms = {"logistic": discriminator_loss(score, self.discriminator(generated, design))}
        if penalised:
            terms["gradient"] = gradient_penalty(score, real)
        return terms

    def _generator_terms(self, rows: Rows, noise: Tensor, source: torch.Generator) -> dict[str, Tensor]:
        config, design = self.config, rows.design
        z = self.synthesis.from_noise(noise, design)
        generated = self.synthesis(z, design)
        terms = {"logistic": generator_loss(self.discriminator(generated, design))}
        if config.mask and config.flow is not None:
            terms["mask"] = mask_penalty(self.synthesis.mask.clamp(0.0, 1.0), self.synthesis.effects(design))
        if config.sparsity > 0 and config.n_style > 0:
            terms["sparsity"] = self._sparsity(z, design, source)
        return terms

    def _sparsity(self, z: Tensor, design: Tensor, source: torch.Generator) -> Tensor:
        config = self.config
        first = config.n_latents - config.n_style
        count = min(config.directions, config.n_style)
        columns = first + torch.randperm(config.n_style, generator=source)[:count].to(z.device)
        n_rows = min(config.penalty_rows, len(z))
        repeated = design[:n_rows].repeat(count, 1)
        jacobian = jacobian_columns(lambda latents: self.synthesis(latents, repeated), z[:n_rows], columns)
        spread = z[:, columns].std(0, correction=0)
        weights = jacobian_weights(jacobian.flatten(2).transpose(0, 1)[None], spread[None])
        return PENALTIES[config.penalty](weights)[0] * (config.n_style / count)

    def _encoder_terms(self, rows: Rows, noise: Tensor) -> dict[str, Tensor]:
        design = rows.design
        with torch.no_grad():
            z = self.averaged.from_noise(noise, design)
            generated = self.averaged(z, design)
        found = self.encoder(generated)
        return {
            "latents": (found - z).square().mean(),
            "reconstruction": (self.averaged(found, design) - generated).square().mean(),
        }
