r"""What the features are, given the decoder's output: p(x | z) = p(x | η), η = ĝ(z).

A likelihood has the parameters that features have beside the decoder (a noise, a dispersion), with a leading start axis
on every tensor of its state. Shapes: η ``output`` (starts, batch, features).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unmix.data.batches import Rows
from unmix.objectives.elbo import gaussian_nll

_LEAST_NOISE = 1e-3


class Likelihood(nn.Module, ABC):
    """p(x | η), independent between features.

    ``link`` says what η is of the mean, ``unit`` what the mixing is therefore measured in, and ``n_parameters`` how
    many parameters each feature has beside η.
    """

    n_parameters: ClassVar[int]
    link: ClassVar[str]
    unit: ClassVar[str]

    @abstractmethod
    def log_prob(self, rows: Rows, output: Tensor, progress: float = 1.0) -> Tensor:
        """``log p(x | η)`` (starts, batch), summed over the entries that were observed, at ``progress`` of training."""

    @abstractmethod
    def mean(self, output: Tensor) -> Tensor:
        """``E[x | η]``, of the shape of ``output``."""

    @abstractmethod
    def sample(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """A draw of x, of the shape of ``output``, for the one start of a fitted model."""

    @abstractmethod
    def carry(self, rows: Rows, output: Tensor, moved: Tensor) -> Tensor:
        """Rows of ``output`` η (batch, features) as they would be with ``moved`` η': what η left of them is kept.

        An entry that was not observed left nothing: it is ``mean(moved)``.
        """

    @abstractmethod
    def residual(self, rows: Rows, output: Tensor) -> Tensor:
        """What η leaves of the rows (batch, features): independent of η and between features if the model holds."""

    def settle_at(self, start: int, noise: float) -> None:
        """Begin one start at a linear model whose features all have a noise of ``noise`` standard deviations."""

    def refit(self, drawn: Iterable[tuple[Rows, Tensor]]) -> None:
        """Set own parameters to the best for rows and outputs (batch, features) of draws from q(z | x)."""

    def release(self) -> None:
        """Before the training: the number of latents is enough, so that features need not share parameters first."""

    def of_start(self, start: int) -> dict[str, Tensor]:
        """State of one start, with its start axis, as it is at the end of the training."""
        return {name: value[start : start + 1] for name, value in self.state_dict().items()}


@dataclass(frozen=True)
class NoiseCourse:
    """Course of a noise over the training: what is shared by all features, and a floor under it.

    Until ``released`` the features share all of the noise's variance, then the share ``pooled``. ``floor``, in standard
    deviations of the features, falls to 0 at ``narrowed``.
    """

    floor: float = 0.0
    narrowed: float = 0.0
    released: float = 0.0
    pooled: float = 0.0


class Gaussian(Likelihood):
    """``x ~ N(η, σ²)`` of standardised features.

    Arguments: ``n_features`` have a noise each, or share one where it is 1. σ is learnt from ``std`` on, or stays there
    unless ``learnt``; after training it is set to that of the residuals where it ``refits``.
    """

    n_parameters = 1
    link, unit = "identity", "standard deviations"
    log_noise: Tensor

    def __init__(
        self,
        n_starts: int,
        n_features: int,
        std: float = 0.1,
        *,
        learnt: bool = True,
        course: NoiseCourse | None = None,
        refits: bool = False,
    ) -> None:
        super().__init__()
        self.course, self.refits = course or NoiseCourse(), refits
        log_noise = torch.full((n_starts, 1, n_features), math.log(std))
        if learnt:
            self.log_noise = nn.Parameter(log_noise)
        else:
            self.register_buffer("log_noise", log_noise)

    def log_prob(self, rows: Rows, output: Tensor, progress: float = 1.0) -> Tensor:
        return -gaussian_nll(rows.x, output, self.log_std(progress), rows.observed)

    def mean(self, output: Tensor) -> Tensor:
        return output

    def sample(self, output: Tensor, generator: torch.Generator) -> Tensor:
        return output + self.std()[0, 0] * torch.randn(output.shape, generator=generator).to(output)

    def carry(self, rows: Rows, output: Tensor, moved: Tensor) -> Tensor:
        kept = moved + (rows.x - output)
        return kept if rows.observed is None else torch.where(rows.observed > 0, kept, moved)

    def residual(self, rows: Rows, output: Tensor) -> Tensor:
        return rows.x - output

    def std(self) -> Tensor:
        """σ (starts, 1, features) at the end of the training."""
        return self.log_std(1.0).exp()

    def log_std(self, progress: float) -> Tensor:
        """log σ (starts, 1, features), with the floor that is in force in its variance.

        Until ``released`` all features share one variance, their mean; later each has its own for the rest of it.
        """
        log_noise, shared = self.log_noise, 1.0 if progress < self.course.released else self.course.pooled
        if shared:
            pooled = log_noise.mul(2.0).logsumexp(-1, keepdim=True).sub(math.log(log_noise.shape[-1])).mul(0.5)
            pooled = pooled.expand_as(log_noise)
            if shared < 1.0:
                parts = pooled.mul(2.0).add(math.log(shared)), log_noise.mul(2.0).add(math.log(1.0 - shared))
                pooled = torch.logaddexp(*parts).mul(0.5)
            log_noise = pooled
        if progress >= self.course.narrowed or self.course.floor == 0:
            return log_noise
        floor = self.course.floor * (1.0 - progress / self.course.narrowed)
        return 0.5 * torch.logaddexp(2.0 * log_noise, log_noise.new_tensor(2.0 * math.log(floor)))

    def settle_at(self, start: int, noise: float) -> None:
        self.log_noise[start] = math.log(noise)

    @torch.no_grad()
    def refit(self, drawn: Iterable[tuple[Rows, Tensor]]) -> None:
        """The noise at which the bound is largest: the standard deviation of x - ĝ(z), z drawn from q(z | x)."""
        if not self.refits:
            return
        squares = counts = torch.zeros_like(self.log_noise[0, 0])
        for rows, output in drawn:
            seen = torch.ones_like(rows.x) if rows.observed is None else rows.observed
            squares = squares + (seen * (rows.x - output).square()).sum(0)
            counts = counts + seen.sum(0)
        self.log_noise.copy_((squares / counts.clamp_min(1.0)).sqrt().clamp_min(_LEAST_NOISE).log())

    def of_start(self, start: int) -> dict[str, Tensor]:
        return {"log_noise": self.std()[start : start + 1].log().detach()}

    def release(self) -> None:
        self.course = replace(self.course, released=0.0)


def gaussian_of(config: Any) -> Gaussian:
    """The likelihood of a model whose ``config`` has ``noise_std``: learnt where that is None."""
    std, learnt = config.noise_std or 0.1, config.noise_std is None
    return Gaussian(config.n_starts, config.n_features, std, learnt=learnt)
