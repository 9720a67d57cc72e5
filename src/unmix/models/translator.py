r"""Image translation through spatial content and a small style vector.

.. math:: x = G(c, z_s), \qquad z_s = f_u(\epsilon_s; m), \qquad c \sim q(c \mid T_u(x)), \quad
          \epsilon_s \sim q(\epsilon_s \mid x)

T_u carries an image of domain u to the common Gaussian of all domains in closed form (``models/transport.py``), so that
means and covariances of what the encoder of the content sees are the same in every domain; the rotation that is still
open follows rows that are each other's nearest (``models/matching.py``). Content starts at what is linear in the image,
and G at the inverse of T_u on its leading components; the networks learn the rest. G and both encoders maximise the
evidence bound of a Gaussian with a fixed noise, of images and of their partners; f_u is the flow of CG-GAN (Li et al.,
ICLR 2025, arXiv:2503.00639) with its mask m, and its Jacobian term presses on ∂x/∂z_s. Another term asks that content
and style change an image in orthogonal directions (Timilsina et al., ICML 2026, arXiv:2605.17827). With
back-translation, an image that averaged weights have carried to another domain has to come back (Zhu et al. 2017,
arXiv:1703.10593, with the outward half held fixed).

Squared error leaves images soft. At the end the decoder alone may therefore take adversarial steps, with all else
fixed: what it draws of carried content is told from real images of the target domain by a critic. Both learn from pairs
of scores, of a drawn image and its real partner or any real image of the domain (relativistic pairing; Huang et al.
2024, arXiv:2501.05441, with its penalties on the gradient at real and at drawn rows).

To translate, content too is carried from domain to domain by Gaussian transport.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from unmix.data.batches import Rows
from unmix.distributions.prior import DomainPrior, PriorDistribution
from unmix.models.adversarial import AdversarialModel, Phase
from unmix.models.alignment import ALIGNED_ROWS, Alignment, Pairs, Reader, as_padded, find_pairs, jittered
from unmix.models.cggan import FLOWS
from unmix.models.transport import GaussianTransport
from unmix.nets.augment import augment
from unmix.nets.jacobian import directional, jacobian_columns
from unmix.nets.layers import generators
from unmix.nets.translator import (
    ContentDecoder,
    ContentEncoder,
    Critic,
    LinearContent,
    StyleEncoder,
    halvings,
    start,
    widths,
)
from unmix.objectives.adversarial import gradient_penalty, mask_penalty, relativistic_loss

_APART, _EFFECTS = 4.0, 0.1
_SHARP_BETAS, _SHARP_RATE, _SHARP_AVERAGING = (0.0, 0.99), 0.5, 0.01
_ALONE, _AUGMENTED = 0.25, 0.2
_ADVERSARIAL, _GRADIENT = 4.0, 0.03 / 256
_SMALL = 0.1


@dataclass(frozen=True)
class TranslatorConfig:
    """Everything that fixes networks and objective; ``shape`` (height, width, channels) of an image."""

    shape: tuple[int, int, int]
    n_domains: int
    n_content: int = 8
    n_style: int = 8
    channels: int = 48
    flow: str | None = "gaussian"
    mask_weight: float = 0.0
    sparsity: float = 0.0
    orthogonality: float = 0.0
    noise: float = 0.075
    kl_weight: float = 0.5
    style_weight: float = 10.0
    risen: float = 0.3
    back_weight: float = 0.0
    back_from: float = 0.15
    pair_weight: float = 2.0
    coarse: int = 24
    linear: int = 0
    colours: bool = False
    keep_rest: bool = False
    n_components: int = 60
    shrink: float = 0.1
    content_shrink: float = 0.5
    averaging: float = 0.005
    steps: int = 4000
    sharpening: int = 0
    seed: int = 0
    directions: int = 2
    penalty_rows: int = 8
    sparsity_every: int = 4

    @property
    def padded(self) -> tuple[int, int]:
        """Sides that the grid of the content divides."""
        height, width = (self.step * math.ceil(side / self.step) for side in self.shape[:2])
        return height, width

    @property
    def step(self) -> int:
        """Side of what one place of the content sees, in pixels."""
        return int(2 ** halvings(*self.shape[:2]))

    @property
    def grid(self) -> tuple[int, int]:
        return self.padded[0] // self.step, self.padded[1] // self.step

    @property
    def n_pixels(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]


@dataclass(frozen=True)
class Scene:
    """Images ``x`` of the domains ``groups`` with their content, the same ``carried`` to ``target``, and real ones.

    The first ``n_pairs`` of ``real`` are partners of ``x``.
    """

    x: Tensor
    groups: Tensor
    content: Tensor
    carried: Tensor
    real: Tensor
    target: Tensor
    n_pairs: int


class Style(nn.Module):
    """p(z_s | u): the flow, with the mask (n_style,); without a flow N(0, I), and the decoder is told the domain."""

    mask: Tensor

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        self.flow: DomainPrior | None = None
        if config.flow is not None:
            self.flow = FLOWS[config.flow](generators(config.seed, 1), config.n_style, config.n_domains, False)
            self.flow.mean_domain.requires_grad_(False)
            with torch.no_grad():
                # Domains start far apart in units of the noise, or the decoder would look for them in the content.
                self.flow.effects[..., : config.n_style] *= _APART / _EFFECTS
        self.register_buffer("mask", torch.ones(config.n_style))

    def distribution(self, design: Tensor) -> PriorDistribution | None:
        return None if self.flow is None else self.flow(design, self.mask[None, None])

    def from_noise(self, noise: Tensor, design: Tensor) -> Tensor:
        own = self.distribution(design)
        return noise if own is None else own.from_noise(noise[None])[0]


class Networks(nn.Module):
    """Both encoders, the flow of style and the decoder."""

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        height, width, colours = config.shape
        sizes = widths(halvings(height, width), config.channels)
        told = 0 if config.flow is not None else config.n_domains
        # torch's own layers draw from its global generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.content = ContentEncoder(colours, sizes, config.n_content)
            self.style = StyleEncoder(colours, [size // 2 for size in sizes], config.n_style)
            self.decoder = ContentDecoder(
                colours, sizes, config.n_content, config.n_style + told, config.grid, 2 * config.channels
            )
            start(self)
            if config.linear:
                # The networks start from what is linear, and correct it.
                with torch.no_grad():
                    self.decoder.last.weight *= _SMALL
                    self.content.last.weight[: config.n_content] *= _SMALL
        self.prior = Style(config)
        self.linear: LinearContent | None = None
        if config.linear:
            cells = config.grid[0] * config.grid[1]
            self.linear = LinearContent(colours, config.step, config.n_content, cells, config.linear)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the content (rows, n_content, *grid) of aligned images."""
        mean, log_sd = self.content(x)
        return (mean if self.linear is None else mean + self.linear.content(x)), log_sd

    def decode(
        self, content: Tensor, style: Tensor, design: Tensor, align: Alignment, decoder: nn.Module | None = None
    ) -> Tensor:
        """Images: what the closed form makes of the leading components of the content, and what the decoder adds."""
        told = style / _APART if self.prior.flow is not None else torch.cat([style, design], dim=1)
        image: Tensor = (self.decoder if decoder is None else decoder)(content, told)
        if self.linear is None:
            return image
        return align.drawn(image, self.linear.components(content), design.argmax(1))


class TranslatorNetwork(AdversarialModel):
    """What is trained, and its running average."""

    def __init__(self, config: TranslatorConfig, align: Alignment, pairs: Pairs | None = None) -> None:
        super().__init__()
        self.config, self.pairs = config, pairs
        self.networks = Networks(config)
        self.averaged = copy.deepcopy(self.networks).requires_grad_(False)
        self.align = align
        self.phases = (Phase("translator", ("networks",), 0, config.steps),)
        if config.sharpening > 0 and pairs is not None and not config.colours:
            self.sharp = copy.deepcopy(self.networks.decoder)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                self.critic = Critic(config.shape[2], config.n_domains, config.channels, config.padded)
            begin, end = config.steps, config.steps + config.sharpening
            self.phases += (
                Phase("critic", ("critic",), begin, end, betas=_SHARP_BETAS),
                Phase("sharpening", ("sharp",), begin + int(_ALONE * (end - begin)), end, _SHARP_RATE, _SHARP_BETAS),
            )

    @cached_property
    def spread(self) -> GaussianTransport:
        """Transport of content between domains, once the encoder does not change any more."""
        assert self.pairs is not None
        x, groups = self.pairs.x, self.pairs.groups
        chosen = slice(None, None, -(-len(x) // ALIGNED_ROWS))
        return content_spread(self.averaged, self.align, x[chosen], groups[chosen], self.config)

    def terms(self, phase: str, rows: Rows, source: torch.Generator, step: int) -> dict[str, Tensor]:
        if phase == "critic":
            if step == self.config.steps:
                # Where these steps begin, even if a callback has cut short those before them.
                self.sharp.load_state_dict(self.averaged.decoder.state_dict())
            return self._critic_terms(len(rows), source)
        if phase == "sharpening":
            return self._sharpening_terms(len(rows), source)
        config, design = self.config, rows.design
        x = as_padded(rows.x, config.padded)
        x = jittered(x, source)
        groups = design.argmax(1)
        mean, log_sd = self.networks.encode(self.align.common_of(x, groups))
        own_mean, own_log_sd = self.networks.style(x)
        content = _drawn(mean, log_sd, source)
        noise = _drawn(own_mean, own_log_sd, source)
        style = self.networks.prior.from_noise(noise, design)
        image = self.networks.decode(content, style, design, self.align)
        terms = {
            "reconstruction": self._misfit(image, x),
            "content": _kl(mean, log_sd).sum((1, 2, 3)).mean() / config.n_pixels,
            "style": _kl(own_mean, own_log_sd).sum(1).mean() / config.n_pixels,
        }
        if config.back_weight > 0 and step >= config.back_from * config.steps:
            terms["back"] = self._back(x, design, groups, style, source)
        if config.pair_weight > 0 and self.pairs is not None:
            terms["pairs"] = self._paired(-(-len(x) // 2), self.pairs, source)
        if config.mask_weight > 0 and self.networks.prior.flow is not None:
            terms["mask"] = mask_penalty(torch.cat(self.networks.prior.flow.parameters_of(design)).transpose(0, 1))
        if step % config.sparsity_every == 0:
            if config.sparsity > 0:
                terms["sparsity"] = self._sparsity(content, style, design, source)
            if config.orthogonality > 0:
                terms["orthogonality"] = self._orthogonality(content, style, design, source)
        return terms

    def weights(self, phase: str, step: int) -> Mapping[str, float]:
        config = self.config
        if phase == "critic":
            return {"logistic": 1.0, "gradient": 0.5 * _GRADIENT * config.n_pixels}
        if phase == "sharpening":
            return {"reconstruction": 1.0, "pairs": 1.0, "logistic": _ADVERSARIAL}
        risen = min(1.0, step / (config.risen * config.steps))
        return {
            "reconstruction": 1.0,
            "content": config.kl_weight * risen,
            "style": config.style_weight,
            "back": config.back_weight,
            "pairs": config.pair_weight,
            "mask": config.mask_weight,
            "sparsity": config.sparsity * config.sparsity_every,
            "orthogonality": config.orthogonality * config.sparsity_every,
        }

    @torch.no_grad()
    def after(self, phase: str, step: int, batch_size: int) -> None:
        if phase == "sharpening":
            for average, value in zip(self.averaged.decoder.parameters(), self.sharp.parameters(), strict=True):
                average.lerp_(value, _SHARP_AVERAGING)
        if phase != "translator":
            return
        share = max(self.config.averaging, 1.0 / (step + 1))
        for average, value in zip(self.averaged.parameters(), self.networks.parameters(), strict=True):
            average.lerp_(value, share)

    def _misfit(self, image: Tensor, x: Tensor) -> Tensor:
        """Mean over pixels of half the squared error, in units of the noise."""
        return 0.5 * (image - x).square().mean() / (2 * self.config.noise) ** 2

    def _back(self, x: Tensor, design: Tensor, groups: Tensor, style: Tensor, source: torch.Generator) -> Tensor:
        half = slice(0, -(-len(x) // 2))
        x, design, groups, style = x[half], design[half], groups[half], style[half]
        shift = torch.randint(1, self.config.n_domains, (len(x),), generator=source).to(x.device)
        others = (groups + shift) % self.config.n_domains
        there = functional.one_hot(others, self.config.n_domains).to(design)
        noise = torch.randn(style.shape, generator=source).to(x.device)
        with torch.no_grad():
            content, _ = self.averaged.encode(self.align.common_of(x, groups))
            moved = self.averaged.decode(content, self.averaged.prior.from_noise(noise, there), there, self.align)
            moved = moved.clamp(-1.0, 1.0)
        mean, log_sd = self.networks.encode(self.align.common_of(moved, others))
        again = self.networks.decode(_drawn(mean, log_sd, source), style, design, self.align)
        return self._misfit(again, x)

    def _paired(self, count: int, pairs: Pairs, source: torch.Generator) -> Tensor:
        """Misfit of an image, drawn in the domain and style of its partner, to the partner."""
        chosen = torch.randint(len(pairs.first), (count,), generator=source).to(pairs.first.device)
        first, second = pairs.first[chosen], pairs.second[chosen]
        both = torch.cat([as_padded(pairs.x[own], self.config.padded) for own in (first, second)], dim=1)
        x, partner = jittered(both, source).chunk(2, dim=1)
        design = functional.one_hot(pairs.groups[second], self.config.n_domains).float()
        mean, log_sd = self.networks.encode(self.align.common_of(x, pairs.groups[first]))
        own_mean, own_log_sd = self.networks.style(partner)
        style = self.networks.prior.from_noise(_drawn(own_mean, own_log_sd, source), design)
        return self._misfit(self.networks.decode(_drawn(mean, log_sd, source), style, design, self.align), partner)

    def _critic_terms(self, count: int, source: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            scene = self._scene(count, source)
            drawn = self._redrawn(scene)
        real, drawn = (own.detach().requires_grad_() for own in self._shown(source, scene.real, drawn))
        better, worse = self.critic(real, scene.target), self.critic(drawn, scene.target)
        return {
            "logistic": relativistic_loss(better, worse),
            "gradient": gradient_penalty(better, real) + gradient_penalty(worse, drawn),
        }

    def _sharpening_terms(self, count: int, source: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            scene = self._scene(count, source)
            noise, _ = self.averaged.style(scene.x)
            own = functional.one_hot(scene.groups, self.config.n_domains).float()
            style = self.averaged.prior.from_noise(noise, own)
        drawn, half = self._redrawn(scene), scene.n_pairs
        image = self.averaged.decode(scene.content, style, own, self.align, self.sharp)
        real, shown = self._shown(source, scene.real, drawn)
        with torch.no_grad():
            better = self.critic(real, scene.target)
        return {
            "reconstruction": self._misfit(image, scene.x),
            "pairs": self._misfit(drawn[:half], scene.real[:half]),
            "logistic": relativistic_loss(self.critic(shown, scene.target), better),
        }

    def _scene(self, count: int, source: torch.Generator) -> Scene:
        """Images to be carried to the domains of real ones: of half of them, partners."""
        pairs, half = self.pairs, -(-count // 2)
        assert pairs is not None
        device = pairs.first.device
        chosen = torch.randint(len(pairs.first), (half,), generator=source).to(device)
        others = torch.randint(len(pairs.x), (2, count - half), generator=source).to(device)
        rows = [torch.cat([own[chosen], other]) for own, other in zip((pairs.first, pairs.second), others, strict=True)]
        both = torch.cat([as_padded(pairs.x[own], self.config.padded) for own in rows], dim=1)
        x, real = jittered(both, source).chunk(2, dim=1)
        groups, target = (pairs.groups[own] for own in rows)
        content, _ = self.averaged.encode(self.align.common_of(x, groups))
        carried = self.spread.back(self.spread.common(content.flatten(1), groups), target)
        return Scene(x, groups, content, carried.view_as(content), real, target, half)

    def _redrawn(self, scene: Scene) -> Tensor:
        """Images of the scene in the middle style of their target."""
        design = functional.one_hot(scene.target, self.config.n_domains).float()
        style = self.averaged.prior.from_noise(scene.x.new_zeros(len(design), self.config.n_style), design)
        return self.averaged.decode(scene.carried, style, design, self.align, self.sharp)

    def _shown(self, source: torch.Generator, *images: Tensor) -> list[Tensor]:
        """What the critic sees: the images, each time changed alike."""
        seed = int(torch.randint(2**31, (1,), generator=source))
        return [augment(own, _AUGMENTED, torch.Generator().manual_seed(seed)) for own in images]

    def _sparsity(self, content: Tensor, style: Tensor, design: Tensor, source: torch.Generator) -> Tensor:
        """Mean over pixels of |∂x/∂z_s| · sd(z_s), summed over style latents; exact, by forward differentiation."""
        config = self.config
        n_rows, count = min(config.penalty_rows, len(style)), min(config.directions, config.n_style)
        content, own, design = content[:n_rows], style[:n_rows], design[:n_rows]
        columns = torch.randperm(config.n_style, generator=source)[:count]
        spread = style.std(0, correction=0)
        content, design = content.repeat(count, 1, 1, 1), design.repeat(count, 1)
        slopes = jacobian_columns(
            lambda z: self.networks.decode(content, z, design, self.align), own, columns.to(own.device)
        )
        return (slopes.abs().flatten(1).mean(1) * spread[columns]).sum() * (config.n_style / count)

    def _orthogonality(self, content: Tensor, style: Tensor, design: Tensor, source: torch.Generator) -> Tensor:
        """Mean over rows of the squared cosine between the changes of an image along content and along style.

        The directions are drawn from N(0, I), those of style in units of its spread; the derivatives are exact.
        """
        n_rows = min(self.config.penalty_rows, len(style))
        spread, content, style = style.std(0, correction=0), content[:n_rows], style[:n_rows]
        to_content, to_style = (torch.randn(own.shape, generator=source).to(own.device) for own in (content, style))
        along = (
            torch.cat([to_content, torch.zeros_like(to_content)]),
            torch.cat([torch.zeros_like(to_style), to_style * spread]),
        )
        content, style, design = (torch.cat([own, own]) for own in (content, style, design[:n_rows]))
        changes = directional(lambda c, z: self.networks.decode(c, z, design, self.align), (content, style), along)
        by_content, by_style = changes.flatten(1).chunk(2)
        return functional.cosine_similarity(by_content, by_style, eps=1e-6).square().mean()


def network_of(x: Tensor, groups: Tensor, config: TranslatorConfig, reader: Reader | None = None) -> TranslatorNetwork:
    """What is trained on uint8 images (rows, height, width, channels), with all that is closed form in place."""
    chosen = slice(None, None, -(-len(x) // ALIGNED_ROWS))
    some, own = as_padded(x[chosen], config.padded), groups[chosen]
    align = Alignment.learn(
        some,
        own,
        config.n_domains,
        n_components=config.n_components,
        shrink=config.shrink,
        seed=config.seed,
        reader=reader,
    )
    network = _assembled(x, groups, config, align)
    common, components = align.common_of(some, own), align.components_of(some, own)
    for networks in (network.networks, network.averaged):
        assert networks.linear is not None
        networks.linear.learn(common, components, config.coarse)
    return network


def continued(
    x: Tensor, groups: Tensor, config: TranslatorConfig, align: Alignment, networks: Networks
) -> TranslatorNetwork:
    """What goes on from trained ``networks`` and their alignment, on images as of ``network_of``."""
    network = _assembled(x, groups, config, copy.deepcopy(align).to(x.device))
    for own in (network.networks, network.averaged):
        own.load_state_dict(networks.state_dict())
        # Of a fitted model it says which latents are left.
        own.prior.mask.fill_(1.0)
    return network


def _assembled(x: Tensor, groups: Tensor, config: TranslatorConfig, align: Alignment) -> TranslatorNetwork:
    config = replace(config, linear=len(align.basis), colours=align.colours is not None, keep_rest=align.keep_rest)
    # A map of colours is known without pairs, and images that are only alike would blur what is drawn.
    paired = config.pair_weight > 0 and not config.keep_rest
    pairs = find_pairs(x, groups, align, config.padded) if paired else None
    network = TranslatorNetwork(config, align, pairs).to(x.device)
    if x.device.type != "mps":
        # The layout in which kernels for convolutions work.
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch lacks this form
    return network


@torch.no_grad()
def content_spread(
    networks: Networks, align: Alignment, x: Tensor, groups: Tensor, config: TranslatorConfig
) -> GaussianTransport:
    """Transport between domains of the content of uint8 images (rows, height, width, channels)."""
    raw = torch.cat(
        [
            networks.encode(align.common_of(as_padded(part, config.padded), own))[0].flatten(1)
            for part, own in zip(x.split(256), groups.split(256), strict=True)
        ]
    )
    return GaussianTransport.fit(raw, groups, config.n_domains, n_components=raw.shape[1], shrink=config.content_shrink)


def _drawn(mean: Tensor, log_sd: Tensor, source: torch.Generator) -> Tensor:
    return mean + log_sd.exp() * torch.randn(mean.shape, generator=source).to(mean.device)


def _kl(mean: Tensor, log_sd: Tensor) -> Tensor:
    """KL(N(mean, sd²) ‖ N(0, 1)), entry by entry."""
    return 0.5 * (mean.square() + (2 * log_sd).exp() - 1.0) - log_sd
