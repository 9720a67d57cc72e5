r"""Likelihoods of counts and of yes and no.

.. math:: x \sim \mathrm{NB}(\mu, \varphi),\ \mathrm{var}(x) = \mu + \varphi \mu^2 \quad\text{or}\quad
          x \sim \mathrm{Poisson}(\mu), \qquad \log \mu = \log s + b + \hat g(z); \qquad
          x \sim \mathrm{Bernoulli}(\sigma(b + \hat g(z)))

s is the size of the row, b the level of the feature. An entry of the mixing is ∂ log μ / ∂z, the log fold change of the
expected count, or ∂ log-odds / ∂z. √φ is the noise of log μ (a gamma variable times μ), so that it takes the course
that the noise of a Gaussian feature takes: first common, then its own, with a floor under it that falls to 0. Where φ
differs between domains, :math:`\log\sqrt{φ_u} = \log\sqrt{φ} + d_u^\top e` for the design d of domain u: effects e of
levels, with mean 0 over the levels of a column.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from unmix.data.batches import Rows
from unmix.distributions.likelihood import Likelihood, Noise, NoiseCourse
from unmix.distributions.quantiles import Frozen, carried, normal_residuals

Floats = NDArray[np.float64]

_FIRST_NOISE = 0.3
_LOG_NOISE = (math.log(1e-2), math.log(10.0))
_MOST_LOG_RATE = 30.0
_LEAST_MEAN = 0.5
_QUANTILES = 101
_MOST_ROWS = 4096
_NEWTON_STEPS, _MOST_WEIGHT = 8, 3.0
_HALVINGS = 12
_SHIFT_STEPS = 6
_MOST_EFFECT, _EFFECT_SPREAD = 4.0, 1.0


class _Discrete(Likelihood):
    """A likelihood of whole numbers: what those of counts and of yes and no share.

    ``base`` b (starts, 1, features) is the level of each feature; ``center`` and ``scale`` standardise the inputs.
    """

    base: Tensor
    center: Tensor
    scale: Tensor
    domains: Tensor | None = None

    def __init__(self, n_starts: int, n_features: int) -> None:
        super().__init__()
        for name, value in (("base", 0.0), ("center", 0.0), ("scale", 1.0)):
            self.register_buffer(name, torch.full((n_starts, 1, n_features), value))

    def predictor(self, output: Tensor, offset: Tensor | None, start: int = 0) -> Tensor:
        """log μ, or the log-odds; of ``start`` where the output has no start axis."""
        predictor = output + (self.base if output.dim() == 3 else self.base[start])
        return predictor if offset is None else predictor + offset

    def _standardised(self, inputs: Tensor) -> Tensor:
        result: Tensor = (inputs - self.center[0]) / self.scale[0]
        return result

    @abstractmethod
    def distribution(self, predictor: Floats, design: Tensor | None = None) -> Frozen:
        """The frozen scipy distribution of the one start of a fitted model, in the domains ``design``."""

    def _beside_mean(self, design: Tensor | None) -> Floats | float:
        """What ``distribution`` depends on beside the predictor, on the scale of its logarithm."""
        return 0.0

    @abstractmethod
    def moments(self, predictor: Tensor) -> tuple[Tensor, Tensor]:
        """Derivative of the log-likelihood by the predictor is (x - first) · second."""

    @abstractmethod
    def deviance(self, rows: Rows, mean: Tensor) -> Tensor:
        """Twice the log-likelihood ratio of the features and of their ``mean``, entry by entry in float64."""

    def learn_inputs(self, center: Tensor, scale: Tensor) -> None:
        self.center.copy_(center)
        self.scale.copy_(scale)

    def carry(
        self, rows: Rows, output: Tensor, moved: Tensor, generator: torch.Generator, offset: Tensor | None = None
    ) -> Tensor:
        after = rows.offset if offset is None else offset
        own, new = (_numbers(self.predictor(*part)) for part in ((output, rows.offset), (moved, after)))
        x = _numbers(rows.features)
        before, there = (self._beside_mean(design) for design in (rows.design, self.domains))
        laws = self.distribution(own, rows.design), self.distribution(new, self.domains)
        found = carried(x, *laws, np.abs(new - own) + np.abs(there - before), _rng(generator))
        kept = torch.from_numpy(found).to(output)
        return kept if rows.observed is None else torch.where(rows.observed > 0, kept, self.mean(moved, after))

    def residual(self, rows: Rows, output: Tensor, generator: torch.Generator) -> Tensor:
        left = rows.x - self.inputs(self.mean(output, rows.offset), rows.offset)
        return self.pivot(rows, output, generator) * left.square().mean(0).sqrt()

    def shift(self, rows: Rows, output: Tensor) -> Tensor:
        seen = torch.ones_like(rows.x) if rows.observed is None else rows.observed
        delta = torch.zeros_like(output[0])
        for _ in range(_SHIFT_STEPS):
            mean = self.mean(output + delta, rows.offset)
            slope = (seen * self._curvature(mean, torch.ones_like(mean))).sum(0)
            step = (seen * (rows.features - mean)).sum(0) / (slope + _LEAST_MEAN)
            delta = (delta + step.clamp(-1.0, 1.0)).clamp(-_MOST_WEIGHT, _MOST_WEIGHT)
        return delta

    def pivot(self, rows: Rows, output: Tensor, generator: torch.Generator) -> Tensor:
        own = self.distribution(_numbers(self.predictor(output, rows.offset)), rows.design)
        return torch.from_numpy(normal_residuals(_numbers(rows.features), own, _rng(generator))).to(output)

    def deviance_explained(self, rows: Rows, parts: Iterator[tuple[Rows, Tensor]]) -> Tensor | None:
        seen = 1.0 if rows.observed is None else rows.observed
        wide = _wide(rows.features)
        total = (rows.features if rows.observed is None else rows.features * seen).sum(0, dtype=wide)
        rate = total / (rows.exposure * seen).sum(0, dtype=wide).clamp_min(1e-12)
        fitted = null = torch.zeros_like(total)
        for some, output in parts:
            known = 1.0 if some.observed is None else some.observed
            mean = self.mean(output, some.offset).to(wide)
            fitted = fitted + (known * self.deviance(some, mean)).sum(0)
            null = null + (known * self.deviance(some, rate * some.exposure.to(wide))).sum(0)
        return torch.where(null > 0, 1.0 - fitted / null.clamp_min(1e-12), torch.nan).cpu().double()

    def begin_linear(self, start: int, train: Rows, z: Tensor, weight: Tensor, noise: float) -> Tensor:
        """Regression of the features on the latents: Newton's method with a penalty that is worth one row."""
        step = -(-len(z) // _MOST_ROWS)
        rows, z = train.take(slice(None, None, step)), z[::step]
        design = torch.cat([torch.ones_like(z[:, :1]), z], dim=1)
        outer = (design.unsqueeze(2) * design.unsqueeze(1)).flatten(1)
        seen = torch.ones_like(rows.x) if rows.observed is None else rows.observed
        found = design.new_zeros(design.shape[1], weight.shape[1])
        ridge = torch.eye(len(found), device=z.device)
        ridge[0, 0] = 1e-3
        for _ in range(_NEWTON_STEPS):
            predictor = self.predictor(design @ found, rows.offset, start)
            first, second = self.moments(predictor)
            gradient = design.T @ (seen * (rows.features - first) * second) - ridge @ found
            curvature = (seen * self._curvature(first, second)).T @ outer
            hessian = curvature.unflatten(1, ridge.shape) + ridge
            move = torch.linalg.solve(hessian, gradient.T.unsqueeze(2))[..., 0].T
            found = (found + move.clamp(-1.0, 1.0)).clamp(-_MOST_WEIGHT, _MOST_WEIGHT)
        mean = self.moments(self.predictor(design @ found, rows.offset, start))[0]
        self._begin_noise(start, rows.features, seen, mean)
        self.base[start] += found[0]
        return found[1:]

    @abstractmethod
    def _curvature(self, first: Tensor, second: Tensor) -> Tensor:
        """Expected curvature of the log-likelihood by the predictor."""

    def _begin_noise(self, start: int, x: Tensor, seen: Tensor, mean: Tensor) -> None:
        """Begin one start with the dispersion that rows have around ``mean``."""


class Counts(_Discrete):
    """Counts with the log link: negative binomial, or without a dispersion Poisson.

    ``course`` is that of √φ; where there is no dispersion, its floor alone is in force. With ``levels``, the numbers of
    levels whose columns follow each other in the design matrix, there are ``effects`` (starts, n_design, features) of
    them on log √φ. A single level has none, so that a continuous column is one of a single level. Rows without a domain
    have the dispersion of the mean over levels.
    """

    link, unit, kept, sized = "log", "log fold changes", "deviance", True
    entry = (
        "Mean size of ∂ log-rate / ∂z: the log fold change of a feature's expected count by one standard deviation of "
        "the latent."
    )
    quantiles: Tensor

    def __init__(
        self,
        n_starts: int,
        n_features: int,
        course: NoiseCourse | None = None,
        *,
        dispersed: bool = True,
        levels: tuple[int, ...] = (),
    ) -> None:
        super().__init__(n_starts, n_features)
        self.n_parameters = int(dispersed)
        self.register_buffer("quantiles", torch.zeros(n_starts, 1, _QUANTILES))
        self.noise = Noise(n_starts, n_features, _FIRST_NOISE, course) if dispersed else None
        self.course, self.levels = course or NoiseCourse(), levels
        self.effects = nn.Parameter(torch.zeros(n_starts, sum(levels), n_features)) if levels else None

    def within(self, design: Tensor) -> Self:
        result = copy.copy(self)
        result.domains = design
        return result

    def begin(self, train: Rows) -> None:
        seen = torch.ones_like(train.x) if train.observed is None else train.observed
        total = (train.features * seen).sum(0).clamp_min(_LEAST_MEAN)
        self.base.copy_((total / (train.exposure * seen).sum(0).clamp_min(1e-12)).log())
        if train.offset is not None:
            at = torch.linspace(0, 1, _QUANTILES, device=train.x.device)
            self.quantiles.copy_(torch.quantile(train.offset.mean(1), at))

    def predictor(self, output: Tensor, offset: Tensor | None, start: int = 0) -> Tensor:
        return super().predictor(output, offset, start).clamp_max(_MOST_LOG_RATE)

    def log_prob(self, rows: Rows, output: Tensor, progress: float = 1.0) -> Tensor:
        design = None if self.effects is None else rows.design
        rate, log_dispersion = self.predictor(output, rows.offset), self._log_dispersion(progress, design)
        if log_dispersion is not None:
            return negative_binomial(rows.features, rate, log_dispersion, rows.observed)
        found = rows.features * rate - rate.exp() - torch.lgamma(rows.features + 1.0)
        return (found if rows.observed is None else found * rows.observed).sum(-1)

    def _log_dispersion(self, progress: float, design: Tensor | None = None) -> Tensor | None:
        """log φ (starts, rows of ``design`` or 1, features); None where it is that of Poisson."""
        if self.noise is not None:
            log = self.noise.log_std(progress)
            if self.effects is not None and design is not None and design.shape[1]:
                log = log + design.to(log) @ _centred(self.effects, self.levels)
            return 2.0 * log.clamp(*_LOG_NOISE)
        floor = self.course.at(progress)
        return torch.full_like(self.base, 2.0 * math.log(floor)) if floor else None

    def mean(self, output: Tensor, offset: Tensor | None = None) -> Tensor:
        return self.predictor(output, offset).exp()

    def sample(self, output: Tensor, generator: torch.Generator, offset: Tensor | None = None) -> Tensor:
        own = self.distribution(_numbers(self.predictor(output, offset)), self.domains)
        return torch.from_numpy(own.rvs(size=output.shape, random_state=_rng(generator))).to(output)

    def inputs(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        """Standardised log(1 + x / s)."""
        return self._standardised((x if offset is None else x * (-offset).exp()).log1p())

    def slope(self, output: Tensor) -> Tensor:
        return torch.sigmoid(self.predictor(output, None)) / self.scale[0]

    def sizes(self, n_rows: int, generator: torch.Generator) -> Tensor | None:
        drawn = torch.randint(_QUANTILES, (n_rows, 1), generator=generator)
        return self.quantiles[0, 0][drawn.to(self.quantiles.device)]

    def distribution(self, predictor: Floats, design: Tensor | None = None) -> Frozen:
        mean = np.exp(predictor)
        if self.noise is None:
            return stats.poisson(mean)
        dispersion = np.broadcast_to(_numbers(self.dispersion(design)), mean.shape)
        return stats.nbinom(1.0 / dispersion, 1.0 / (1.0 + dispersion * mean))

    def _beside_mean(self, design: Tensor | None) -> Floats | float:
        return 0.0 if self.effects is None else np.log(_numbers(self.dispersion(design)))

    def dispersion(self, design: Tensor | None = None) -> Tensor:
        """φ (rows of ``design`` or 1, features) of the one start of a fitted model; 0 for Poisson."""
        found = self._log_dispersion(1.0, design)
        return torch.zeros_like(self.base[0]) if found is None else found[0].exp()

    def moments(self, predictor: Tensor) -> tuple[Tensor, Tensor]:
        mean = predictor.exp()
        return mean, 1.0 / (1.0 + _FIRST_NOISE**2 * mean)

    def _curvature(self, first: Tensor, second: Tensor) -> Tensor:
        return first * second

    def deviance(self, rows: Rows, mean: Tensor) -> Tensor:
        x = rows.features.to(_wide(rows.features))
        ratio = torch.xlogy(x, x) - torch.xlogy(x, mean)
        if self.noise is None:
            return 2.0 * (ratio - (x - mean))
        theta = 1.0 / self.dispersion(rows.design).to(x)
        return 2.0 * (ratio - (x + theta) * ((x + theta) / (mean + theta)).log())

    def release(self) -> None:
        if self.noise is not None:
            self.noise.release()

    def lower_floor(self, most: float) -> None:
        self.course = self.course.lowered(most)
        if self.noise is not None:
            self.noise.lower_floor(most)

    def _begin_noise(self, start: int, x: Tensor, seen: Tensor, mean: Tensor) -> None:
        if self.noise is not None:
            beyond = (seen * ((x - mean).square() - mean)).sum(0) / (seen * mean.square()).sum(0).clamp_min(1e-6)
            self.noise.log[start] = 0.5 * beyond.clamp(1e-2, 10.0).log()

    def refit(self, drawn: Iterable[tuple[Rows, Tensor]]) -> None:
        """The dispersion of the best bound, by halving the interval in which its derivative changes sign.

        Effects of levels come after it, a column at a time, with a normal distribution beforehand.
        """
        if self.noise is None:
            return
        parts = list(drawn)
        step = max(1, sum(len(rows) for rows, _ in parts) // _MOST_ROWS)
        with torch.no_grad():
            some = ((rows.take(slice(None, None, step)), output[::step]) for rows, output in parts)
            counted = [own for part in some for own in self._counted(*part)]
            self.noise.log.copy_(self._halved(counted, *_LOG_NOISE))
            if self.effects is None:
                return
            self.effects.zero_()
            columns = self._columns()
            for place in columns * min(len(columns), 2):
                self.effects[:, place] = 0.0
                self.effects[:, place] = self._halved(counted, -_MOST_EFFECT, _MOST_EFFECT, place)
            centred = _centred(self.effects, self.levels)
            self.noise.log += sum((self.effects - centred)[:, own[:1]] for own in columns)
            self.effects.copy_(centred)

    def _columns(self) -> list[Tensor]:
        """Places in the design matrix of each column that has effects."""
        return [own for own in torch.arange(sum(self.levels)).split(self.levels) if len(own) > 1]

    def _counted(self, rows: Rows, output: Tensor) -> Iterator[_Counted]:
        """``rows`` and their η (batch, features), by the dispersions that they have."""
        rate = self.predictor(output, rows.offset)
        if self.effects is None or not self._columns():
            yield _Counted(rows.features, rate, rows.observed)
            return
        place = torch.cat(self._columns())
        # Not on every Apple GPU can torch look for unique rows.
        levels, group = torch.unique(rows.design[:, place].cpu(), dim=0, return_inverse=True)
        for number, own in enumerate(levels):
            at = torch.nonzero(group == number).flatten().to(rate.device)
            design = rate.new_zeros(sum(self.levels))
            design[place] = own.to(rate)
            yield _Counted(rows.features[at], rate[at], None if rows.observed is None else rows.observed[at], design)

    def _halved(self, parts: list[_Counted], least: float, most: float, place: Tensor | None = None) -> Tensor:
        """log √φ (1, 1, features) of the best bound, or the effects (1, levels, features) of the levels ``place``."""
        assert self.noise is not None
        shape = (1 if place is None else len(place), self.base.shape[-1])
        low, high = (self.base.new_full(shape, edge) for edge in (least, most))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            slope = torch.zeros_like(middle) if place is None else -middle / _EFFECT_SPREAD**2
            for own in parts:
                if place is None or self.effects is None or own.design is None:
                    slope += own.slope(2.0 * middle[0])
                else:
                    log = self.noise.log[0, 0] + own.design @ self.effects[0] + own.design[place] @ middle
                    slope += 2.0 * own.design[place].unsqueeze(1) * own.slope(2.0 * log)
            low, high = torch.where(slope > 0, middle, low), torch.where(slope > 0, high, middle)
        return ((low + high) / 2)[None]

    def of_start(self, start: int) -> dict[str, Tensor]:
        own = super().of_start(start)
        return own if self.noise is None else own | self.noise.of_start(start)


class Bernoulli(_Discrete):
    """Yes (1) or no (0), with the logit link."""

    n_parameters = 0
    link, unit, kept = "logit", "log-odds", "deviance"
    entry = "Mean size of ∂ log-odds / ∂z: the change of a feature's log-odds by one standard deviation of the latent."

    def begin(self, train: Rows) -> None:
        seen = torch.ones_like(train.x) if train.observed is None else train.observed
        yes, both = (train.features * seen).sum(0), seen.sum(0)
        self.base.copy_(((yes + _LEAST_MEAN) / (both - yes + _LEAST_MEAN)).log())

    def log_prob(self, rows: Rows, output: Tensor, progress: float = 1.0) -> Tensor:
        odds = self.predictor(output, rows.offset)
        found = rows.features * odds - functional.softplus(odds)
        return (found if rows.observed is None else found * rows.observed).sum(-1)

    def mean(self, output: Tensor, offset: Tensor | None = None) -> Tensor:
        return torch.sigmoid(self.predictor(output, offset))

    def sample(self, output: Tensor, generator: torch.Generator, offset: Tensor | None = None) -> Tensor:
        return (torch.rand(output.shape, generator=generator).to(output) < self.mean(output, offset)).to(output)

    def inputs(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        return self._standardised(x)

    def slope(self, output: Tensor) -> Tensor:
        yes = self.mean(output)
        return yes * (1.0 - yes) / self.scale[0]

    def distribution(self, predictor: Floats, design: Tensor | None = None) -> Frozen:
        return stats.bernoulli(1.0 / (1.0 + np.exp(-predictor)))

    def moments(self, predictor: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(predictor), torch.ones_like(predictor)

    def deviance(self, rows: Rows, mean: Tensor) -> Tensor:
        x = rows.features.to(_wide(rows.features))
        least = max(1e-9, torch.finfo(mean.dtype).eps)
        mean = mean.clamp(least, 1 - least)
        return -2.0 * (x * mean.log() + (1.0 - x) * (-mean).log1p())

    def _curvature(self, first: Tensor, second: Tensor) -> Tensor:
        return first * (1.0 - first)


class _Counted:
    r"""Counts (rows, features) with given log rates, of rows that share a dispersion, of the domain ``design`` if any.

    The digammas are taken of each feature's different counts, which are few beside the entries.
    """

    def __init__(self, x: Tensor, log_mean: Tensor, observed: Tensor | None, design: Tensor | None = None) -> None:
        self.x, self.log_mean, self.observed, self.design = x, log_mean, observed, design
        counted = x if observed is None else x * observed
        row, column = torch.nonzero(counted, as_tuple=True)
        own = counted[row, column].long()
        most = int(own.max()) + 1 if len(own) else 1
        different, times = torch.unique((column * most + own).cpu(), return_counts=True)
        self.times = times.to(x.device, _wide(x))
        self.column, self.count = (part.to(x.device) for part in (different // most, different % most))

    def slope(self, log_dispersion: Tensor) -> Tensor:
        """Derivative (features,) of the log-likelihood by log φ (features,)."""
        theta, odds = (-log_dispersion).exp(), self.log_mean + log_dispersion
        entries = self.x - (self.x + theta) * torch.sigmoid(odds) + theta * functional.softplus(odds)
        if self.observed is not None:
            entries = entries * self.observed
        wide = theta.to(self.times)
        own = wide[self.column]
        rises = torch.digamma(own + self.count) - torch.digamma(wide)[self.column]
        total = entries.sum(0, dtype=wide.dtype).index_add_(0, self.column, own * rises * self.times, alpha=-1.0)
        return total.to(entries.dtype)


def _wide(x: Tensor) -> torch.dtype:
    """float64, which gamma functions need, where the device knows it."""
    return torch.float64 if x.device.type != "mps" else x.dtype


def _centred(effects: Tensor, levels: tuple[int, ...]) -> Tensor:
    """``effects`` (starts, n_design, features) minus their mean over the levels of each column."""
    return torch.cat([own - own.mean(1, keepdim=True) for own in effects.split(levels, dim=1)], dim=1)


def _rng(generator: torch.Generator) -> np.random.Generator:
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))


def _numbers(values: Tensor) -> Floats:
    result: Floats = values.detach().cpu().double().numpy()
    return result


def negative_binomial(x: Tensor, log_mean: Tensor, log_dispersion: Tensor, observed: Tensor | None) -> Tensor:
    """``log NB(x; μ, φ)`` summed over features (starts, batch); ``log_dispersion`` (starts, batch or 1, features)."""
    result: Tensor = _NegativeBinomial.apply(x, log_mean, log_dispersion, observed)
    return result


class _NegativeBinomial(torch.autograd.Function):
    r"""With θ = 1/φ, a = log μ + log φ and :math:`L = \log Γ(x+θ) - \log Γ(θ) - \log Γ(x+1)`, which is 0 where x is,

    .. math:: \log p = L + x a - (x + θ) \log(1 + e^a), \qquad
              \partial_{\log μ} = x - (x + θ) σ(a), \qquad
              \partial_{\log φ} = \partial_{\log μ} + θ \log(1 + e^a) - θ [ψ(x + θ) - ψ(θ)] .

    Gamma functions are taken where x > 0 alone: most counts of wide tables are 0.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, log_mean: Tensor, log_dispersion: Tensor, observed: Tensor | None) -> Tensor:
        theta, odds = (-log_dispersion).exp(), log_mean + log_dispersion
        softplus, counted = functional.softplus(odds), x if observed is None else x * observed
        row, column = torch.nonzero(counted, as_tuple=True)
        own = x[row, column]
        wide = _wide(x)
        of_nonzero = _at(theta, row, column).to(wide)
        above = own.to(wide) + of_nonzero
        gammas = torch.lgamma(above) - torch.lgamma(of_nonzero) - torch.lgamma(own.to(wide) + 1.0)
        entries = x * odds - (x + theta) * softplus
        if observed is not None:
            entries = entries * observed
        found = entries.sum(-1)
        found.index_add_(1, row, gammas.to(found.dtype))
        ctx.save_for_backward(x, theta, odds, softplus, observed, column, row, above)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, Tensor | None, None]:
        x, theta, odds, softplus, observed, column, row, above = ctx.saved_tensors
        weight = gradient.unsqueeze(-1)
        by_mean = (x - (x + theta) * torch.sigmoid(odds)) * weight
        if observed is not None:
            by_mean = by_mean * observed
        by_dispersion = None
        if ctx.needs_input_grad[2]:
            loss = softplus if observed is None else softplus * observed
            own = _at(theta, row, column)
            if theta.shape[1] == 1:
                total = by_mean.sum(1) + theta[:, 0] * (loss * weight).sum(1)
                rises = torch.digamma(above) - torch.digamma(theta[:, 0].to(above.dtype))[:, column]
                digammas = rises.to(total.dtype) * own * gradient[:, row]
                by_dispersion = total.index_add(1, column, digammas, alpha=-1.0).unsqueeze(1)
            else:
                by_dispersion = by_mean + theta * loss * weight
                rises = torch.digamma(above) - torch.digamma(own.to(above.dtype))
                by_dispersion[:, row, column] -= rises.to(own.dtype) * own * gradient[:, row]
        return None, by_mean, by_dispersion, None


def _at(theta: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Entries (starts, entries) of θ (starts, batch or 1, features)."""
    return theta[:, 0][:, column] if theta.shape[1] == 1 else theta[:, row, column]
