r"""What the features are, given the decoder's output: p(x | z) = p(x | η), η = ĝ(z).

A likelihood states what η is of the mean (its link), draws rows, says what η leaves of a row, and has the parameters
that features have beside the decoder (a noise, a dispersion), with a leading start axis on every tensor of its state.

Three forms of a row occur. *Features* are what the likelihood is of: standardised where it is of a continuous feature,
else as they were given. *Inputs* are what the encoder takes, standardised always. η is the decoder's output (starts,
batch, features). Beside η stands an ``offset``: the log of a row's size (batch, 1), where features
count something, and what a batch adds to each feature (batch, features).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unmix.data.batches import Rows
from unmix.objectives.elbo import gaussian_nll

_LEAST_NOISE = 1e-3
_MOST_SHIFT, _HALVINGS = 8.0, 24


class Likelihood(nn.Module, ABC):
    """p(x | η), independent between features.

    ``link`` says what η is of the mean, ``unit`` what an entry of the mixing is therefore measured in and ``entry``
    what it means. ``kept`` is what the latents keep of a feature, ``n_parameters`` how many parameters each has beside
    η. Where it is ``sized``, the size of a row matters. One of a user's own ``reads`` its features as those of a
    likelihood of unmix: "gaussian" (standardised), "negative_binomial" (counts as given, with the sizes of the rows in
    ``offset``) or "bernoulli" (0 and 1).

    A subclass defines ``log_prob``, ``mean`` and ``sample``; every parameter and buffer has an axis of starts first.
    Other methods have defaults, which fit a continuous feature whose noise is added to its mean.
    """

    n_parameters: int = 0
    reads: ClassVar[str] = "gaussian"
    link: ClassVar[str] = "identity"
    unit: ClassVar[str] = "standard deviations"
    kept: ClassVar[str] = "variance"
    sized: ClassVar[bool] = False
    entry: ClassVar[str] = (
        "Mean size of ∂x/∂z: by how many of its standard deviations a feature moves when the latent moves by one of "
        "its own."
    )

    @abstractmethod
    def log_prob(self, rows: Rows, output: Tensor, progress: float = 1.0) -> Tensor:
        """``log p(x | η)`` (starts, batch), summed over the entries that were observed, at ``progress`` of training."""

    @abstractmethod
    def mean(self, output: Tensor, offset: Tensor | None = None) -> Tensor:
        """``E[x | η]``, of the shape of ``output``."""

    @abstractmethod
    def sample(self, output: Tensor, generator: torch.Generator, offset: Tensor | None = None) -> Tensor:
        """A draw of x (batch, features), for the one start of a fitted model."""

    def within(self, design: Tensor) -> Likelihood:
        """This likelihood, of which ``sample`` and ``carry`` give rows of the domains ``design`` (batch, n_design).

        By default the same, since p(x | η) is that of every domain.
        """
        return self

    def carry(
        self, rows: Rows, output: Tensor, moved: Tensor, generator: torch.Generator, offset: Tensor | None = None
    ) -> Tensor:
        """Rows of ``output`` η (batch, features) as they would be with ``moved`` η': what η left of them is kept.

        ``offset`` is that of the moved rows; default: their own. An entry that was not observed left nothing: it is
        the mean. By default x - E[x | η] is added to the new mean.
        """
        after = self.mean(moved, rows.offset if offset is None else offset)
        kept = after + (rows.features - self.mean(output, rows.offset))
        return kept if rows.observed is None else torch.where(rows.observed > 0, kept, after)

    def residual(self, rows: Rows, output: Tensor, generator: torch.Generator) -> Tensor:
        """What η leaves of the rows (batch, features): independent of η and between features if the model holds.

        In units of the inputs. By default what the mean leaves of them.
        """
        return rows.x - self.inputs(self.mean(output, rows.offset), rows.offset)

    def shift(self, rows: Rows, output: Tensor) -> Tensor:
        """δ (features,) for which ``E[x | η + δ]`` has the mean of the rows; 0 of a feature that no row has.

        By default the interval from -8 to 8 is halved; the mean must rise with η.
        """
        seen = torch.ones_like(rows.x) if rows.observed is None else rows.observed
        low, high = (torch.full_like(output[0], edge) for edge in (-_MOST_SHIFT, _MOST_SHIFT))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            below = (seen * (rows.features - self.mean(output + middle, rows.offset))).sum(0) > 0
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return torch.where(seen.sum(0) > 0, (low + high) / 2, 0.0)

    def pivot(self, rows: Rows, output: Tensor, generator: torch.Generator) -> Tensor:
        """As ``residual``, with the same law for every η: of discrete features standard normal, if the model holds."""
        return self.residual(rows, output, generator)

    def inputs(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        """What the encoder takes of features ``x`` (..., batch, features)."""
        return x

    def slope(self, output: Tensor) -> Tensor:
        """Derivative of ``inputs(mean(η))`` by η, of the shape of ``output``."""
        return torch.ones_like(output)

    def deviance_explained(self, rows: Rows, parts: Iterator[tuple[Rows, Tensor]]) -> Tensor | None:
        """Share of the deviance of the rows from their own means that η explains (features,), in float64.

        ``parts`` are some of the rows at a time, and η (batch, features) of them. NaN for a feature for which it is
        1 - (x - η)² / var(x); None where it is so for all.
        """
        return None

    def sizes(self, n_rows: int, generator: torch.Generator) -> Tensor | None:
        """Log sizes (n_rows, 1) drawn from those of the fit; None where rows have none."""
        return None

    def learn_inputs(self, center: Tensor, scale: Tensor) -> None:
        """Take what ``inputs`` standardises by, (features,) each."""

    def begin(self, train: Rows) -> None:
        """Take from the training rows what training does not change."""

    def begin_linear(self, start: int, train: Rows, z: Tensor, weight: Tensor, noise: float) -> Tensor:
        """Begin one start at a linear model: what a unit of the latents makes of η (latents, features).

        ``z`` (rows, latents) are those of the training rows, ``weight`` what they make of the inputs, and ``noise`` the
        standard deviation that all inputs have beside that.
        """
        return weight

    def release(self) -> None:
        """Before the training: the number of latents is enough, so that features need not share parameters first."""

    def lower_floor(self, most: float) -> None:
        """Before the training: let no floor under a noise be above ``most``, in units of η."""

    def refit(self, drawn: Iterable[tuple[Rows, Tensor]]) -> None:
        """Set own parameters to the best for rows and outputs (batch, features) of draws from q(z | x)."""

    def of_start(self, start: int) -> dict[str, Tensor]:
        """State of one start, with its start axis, as it is at the end of the training."""
        return {name: value[start : start + 1] for name, value in self.state_dict().items()}


@dataclass(frozen=True)
class NoiseCourse:
    """Course of a noise over the training: what is shared by all features, and a floor under it.

    Until ``released`` the features share all of the noise's variance, then a share of it that the starts take in turn
    from ``pooled`` (empty: none). ``floor``, in units of η, falls to 0 at ``narrowed``.
    """

    floor: float = 0.0
    narrowed: float = 0.0
    released: float = 0.0
    pooled: tuple[float, ...] = ()

    def at(self, progress: float) -> float:
        """The floor at ``progress`` of the training."""
        if progress >= self.narrowed or self.floor == 0:
            return 0.0
        return self.floor * (1.0 - progress / self.narrowed)

    def lowered(self, most: float) -> NoiseCourse:
        """The course with a floor of at most ``most``."""
        return replace(self, floor=min(self.floor, most))


class Noise(nn.Module):
    """A standard deviation σ for each feature in units of η, or one for all if ``n_features`` is 1; learnt or not."""

    log: Tensor
    shares: Tensor

    def __init__(
        self, n_starts: int, n_features: int, std: float, course: NoiseCourse | None = None, *, learnt: bool = True
    ) -> None:
        super().__init__()
        self.course = course or NoiseCourse()
        shares = [
            self.course.pooled[start % len(self.course.pooled)] for start in range(n_starts) if self.course.pooled
        ]
        self.register_buffer("shares", torch.tensor(shares).reshape(-1, 1, 1), persistent=False)
        log = torch.full((n_starts, 1, n_features), math.log(std))
        if learnt:
            self.log = nn.Parameter(log)
        else:
            self.register_buffer("log", log)

    def std(self) -> Tensor:
        """σ (starts, 1, features) at the end of the training."""
        return self.log_std(1.0).exp()

    def log_std(self, progress: float) -> Tensor:
        """log σ (starts, 1, features), with the floor that is in force in its variance.

        Until ``released`` all features share one variance, their mean; later each has its own for the rest of it.
        """
        log, wholly = self.log, progress < self.course.released
        if wholly or len(self.shares):
            pooled = log.mul(2.0).logsumexp(-1, keepdim=True).sub(math.log(log.shape[-1])).mul(0.5)
            pooled = pooled.expand_as(log)
            if not wholly:
                parts = pooled.mul(2.0).add(self.shares.log()), log.mul(2.0).add((-self.shares).log1p())
                pooled = torch.logaddexp(*parts).mul(0.5)
            log = pooled
        if floor := self.course.at(progress):
            return 0.5 * torch.logaddexp(2.0 * log, log.new_tensor(2.0 * math.log(floor)))
        return log

    def release(self) -> None:
        """Let each feature have its own part from the start."""
        self.course = replace(self.course, released=0.0)

    def lower_floor(self, most: float) -> None:
        self.course = self.course.lowered(most)

    def of_start(self, start: int) -> dict[str, Tensor]:
        return {"noise.log": self.std()[start : start + 1].log().detach()}


class Gaussian(Likelihood):
    """``x ~ N(η, σ²)`` of standardised features.

    Arguments: ``n_features`` have a noise each, or share one where it is 1. σ is learnt from ``std`` on, or stays there
    unless ``learnt``; after training it is set to that of the residuals where it ``refits``.
    """

    n_parameters = 1

    def __init__(
        self,
        n_starts: int,
        n_features: int,
        std: float = 0.1,
        course: NoiseCourse | None = None,
        *,
        learnt: bool = True,
        refits: bool = False,
    ) -> None:
        super().__init__()
        self.refits = refits
        self.noise = Noise(n_starts, n_features, std, course, learnt=learnt)

    def log_prob(self, rows: Rows, output: Tensor, progress: float = 1.0) -> Tensor:
        return -gaussian_nll(rows.x, output, self.noise.log_std(progress), rows.observed)

    def mean(self, output: Tensor, offset: Tensor | None = None) -> Tensor:
        return output

    def sample(self, output: Tensor, generator: torch.Generator, offset: Tensor | None = None) -> Tensor:
        return output + self.noise.std()[0, 0] * torch.randn(output.shape, generator=generator).to(output)

    def shift(self, rows: Rows, output: Tensor) -> Tensor:
        seen = torch.ones_like(rows.x) if rows.observed is None else rows.observed
        return (seen * (rows.x - output)).sum(0) / seen.sum(0).clamp_min(1.0)

    def begin_linear(self, start: int, train: Rows, z: Tensor, weight: Tensor, noise: float) -> Tensor:
        self.noise.log[start] = math.log(noise)
        return weight

    def release(self) -> None:
        self.noise.release()

    def lower_floor(self, most: float) -> None:
        self.noise.lower_floor(most)

    @torch.no_grad()
    def refit(self, drawn: Iterable[tuple[Rows, Tensor]]) -> None:
        """The noise at which the bound is largest: the standard deviation of x - ĝ(z), z drawn from q(z | x)."""
        if not self.refits:
            return
        squares = counts = torch.zeros_like(self.noise.log[0, 0])
        for rows, output in drawn:
            seen = torch.ones_like(rows.x) if rows.observed is None else rows.observed
            squares = squares + (seen * (rows.x - output).square()).sum(0)
            counts = counts + seen.sum(0)
        self.noise.log.copy_((squares / counts.clamp_min(1.0)).sqrt().clamp_min(_LEAST_NOISE).log())

    def of_start(self, start: int) -> dict[str, Tensor]:
        return self.noise.of_start(start)


def gaussian_of(config: Any) -> Gaussian:
    """The likelihood of a model whose ``config`` has ``noise_std``: learnt where that is None."""
    std, learnt = config.noise_std or 0.1, config.noise_std is None
    return Gaussian(config.n_starts, config.n_features, std, learnt=learnt)
