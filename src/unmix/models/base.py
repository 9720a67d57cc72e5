"""Latent-variable models: networks with a leading start axis, and named terms of an objective.

``LatentModel`` states networks and terms; the training loop works with any model. After
training, ``FittedModel`` is one start of it in a fixed frame: latents in order of their effect, centred, with
standard deviation 1 and a sign convention, because the objective fixes none of these.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from unmix.data.batches import Rows
from unmix.distributions.likelihood import Likelihood
from unmix.distributions.prior import LocationScale, PriorDistribution
from unmix.models.frame import Framed, FramedPrior
from unmix.nets.decoder import Decoder
from unmix.nets.encoder import Encoder, GaussianPosterior
from unmix.objectives.elbo import gaussian_negentropy


class LatentModel(nn.Module, ABC):
    """Encoder, decoder and prior with a leading start axis on every tensor of the state.

    Arguments: ``config`` is a frozen dataclass with at least ``n_starts``, ``n_latents`` and ``n_features``.

    Where the model is to be a linear one (``simplify``): ``doubted``: there are too few latents, unless it loses far
    less variance than that. ``compared``: it keeps less variance than that. ``must_repeat``: other starts find other
    latents, again unless it loses far less.
    """

    penalties: ClassVar[tuple[str, ...]] = ()
    # Whether noise leaves latents uncertain, so that posterior means are shrunk.
    shrinks: ClassVar[bool] = True
    doubted: bool = False
    compared: bool = False
    must_repeat: bool = False

    def __init__(self, config: Any, encoder: Encoder, decoder: Decoder, likelihood: Likelihood) -> None:
        super().__init__()
        self.config = config
        self.n_starts: int = config.n_starts
        self.n_latents: int = config.n_latents
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood

    def _load_from_state_dict(self, state_dict: dict[str, object], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Models saved before there was a likelihood have its noise themselves.
        if (own := f"{prefix}log_noise") in state_dict:
            state_dict[f"{prefix}likelihood.noise.log"] = state_dict.pop(own)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @property
    def n_noise(self) -> int:
        """Columns of the ``noise`` that ``terms`` takes."""
        return self.n_latents

    def encode(self, x: Tensor, observed: Tensor | None, design: Tensor | None = None) -> GaussianPosterior:
        """q(z | x), or q(z | x, u) in a model that needs the design matrix of u, of every row and start."""
        posterior: GaussianPosterior = self.encoder(x, observed, design)
        return posterior

    def decode(self, z: Tensor) -> Tensor:
        """η (starts, batch, features) of the likelihood: standardised features, where it is Gaussian."""
        output: Tensor = self.decoder(z)
        return output

    def decode_with_jacobian(self, z: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
        """η, and its derivatives (starts, n_rows, latents, features) for the first rows."""
        return self.decoder.with_jacobian(z, n_rows)

    def prior(self, design: Tensor) -> PriorDistribution:
        """p(z | u) for the design matrix (batch, n_design) of u; N(0, I) unless a model says otherwise."""
        zero = design.new_zeros(self.n_starts, 1, self.n_latents)
        return LocationScale(zero, zero)

    def log_density(self, rows: Rows) -> Tensor | None:
        """log p(x | u) (starts, batch) in nats of standardised features, where it is known; else there is a bound."""
        return None

    def reconstruction(self, rows: Rows, z: Tensor) -> Tensor:
        """``-E log p(x | z)`` (starts,), mean over the rows, for draws ``z`` (starts, batch, latents)."""
        return -self.likelihood.log_prob(rows, self.decode(z)).mean(1)

    def kl(self, rows: Rows, posterior: GaussianPosterior, z: Tensor, counted: Tensor | float = 1.0) -> Tensor:
        """KL(q(z | x) ‖ p(z | u)), mean over the rows (starts,): closed where p has such a form, else from the draw z.

        Latents for which ``counted`` is 0 are left out.
        """
        lost = self.prior(rows.design).kl(posterior.mean, posterior.log_diagonal, posterior.lower, z)
        return (lost * counted).sum(-1).mean(1)

    @abstractmethod
    def terms(self, rows: Rows, noise: Tensor, n_train: int, penalty_rows: int, progress: float) -> dict[str, Tensor]:
        """Terms of the objective (starts,), each a mean over the rows in nats; ``noise`` (starts, batch, n_noise).

        A penalty on derivatives looks at the first ``penalty_rows`` rows; where these are 0 the ``penalties`` are left
        out. At ``progress`` 1 the terms are the final ones.
        """

    @abstractmethod
    def weights(self, progress: float) -> Mapping[str, float | Tensor]:
        """Weight of every term, or one for each start, at ``progress`` (0 … 1) of training."""

    def begin(self, train: Rows, some: Rows) -> bool:
        """Called once before training, with all training rows and with some of them.

        Whether there are starts that begin at a solution, which are to be scored before the first step.
        """
        return False

    def go_on(self) -> None:
        """Called before a training that continues a fitted model, which the state is of."""

    @property
    def most_patience(self) -> float:
        """Epochs without a gain after which training may end however long it was planned."""
        return math.inf

    def rates(self) -> Mapping[str, float]:
        """Share of the learning rate for parameters by name; 1 for those it leaves out."""
        return {}

    def rearrange(self, rows: Rows, n_train: int, before: float, after: float) -> None:
        """Called after every epoch, with some training rows and the progress before and after it.

        Drop spare latents and turn the others, when it is time.
        """

    def conclude(self, train: Rows) -> None:
        """Called once after training, when every start holds its best state, with all training rows.

        Turn latents for which gradient descent does not care.
        """

    def settled(self, progress: float, start: int | None = None) -> bool:
        """Whether one start, or all of them, has reached its final form; from then on its states can be compared."""
        return True

    def simplify(self, start: int, train: Rows) -> None:
        """Called after the training of a model that is ``doubted``, or falls short where it is ``compared``.

        Make that start a linear model.
        """

    def seedless(self, start: int) -> bool:
        """Whether a start begins in the same place for every seed."""
        return False

    @property
    def chosen(self) -> Mapping[str, object]:
        """Settings that the rows of the fit decided, by name: without them a saved model cannot be built again."""
        return {}

    def settle(self, latent_std: Tensor) -> None:
        """Called once after training with sd(z) (starts, latents), to make exact what training leaves nearly so."""

    def single(self, start: int) -> Self:
        """A model of one start with a copy of this start's state, without the latents it has dropped."""
        device = next(self.parameters()).device
        model = type(self)(replace(self.config, n_starts=1)).to(device)  # type: ignore[call-arg]
        model.load_state_dict({name: value[start : start + 1] for name, value in self.state_dict().items()})
        return model


class FittedModel(Framed):
    """One start of a ``LatentModel`` in a fixed frame; latents here have no start axis: (batch, latents).

    Posterior means are shrunk toward the mean by what the noise leaves open, as regression scores of a factor model
    are. ``expansion`` E undoes the shrinkage, z E, as Bartlett's scores do: ``reconstruct`` decodes that.
    """

    expansion: Tensor

    def __init__(self, inner: LatentModel) -> None:
        super().__init__(inner.n_latents)
        self.inner = inner
        self.register_buffer("expansion", torch.eye(inner.n_latents))

    def _load_from_state_dict(self, state_dict: dict[str, object], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Models saved before there was an expansion decode the means as they are.
        state_dict.setdefault(f"{prefix}expansion", torch.eye(self.n_latents))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @property
    def masked(self) -> bool:
        """Whether the encoder is told which entries were observed."""
        return bool(self.inner.config.masked)

    def encode(self, x: Tensor, observed: Tensor | None = None, design: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), or of q(z | x, u) in a model that needs u."""
        posterior = self.inner.encode(x, observed, design)
        return self.outward(posterior.mean[0]), posterior.std[0][:, self.order] / self.scale.abs()

    def posterior(
        self, x: Tensor, observed: Tensor | None = None, design: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean (batch, latents) of q(z | x) and a factor L (batch, latents, latents) of its covariance L Lᵀ."""
        posterior = self.inner.encode(x, observed, design)
        return self.outward(posterior.mean[0]), posterior.factor[0][:, self.order] / self.scale[:, None]

    def mean(self, x: Tensor, observed: Tensor | None = None, design: Tensor | None = None) -> Tensor:
        """Mean of q(z | x), or of q(z | x, u) in a model that needs u."""
        return self.outward(self.inner.encode(x, observed, design).mean[0])

    def sample_posterior(
        self, x: Tensor, observed: Tensor | None, noise: Tensor, design: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """A draw from q(z | x) for ``noise`` (batch, latents), and ``E_q log q`` of every row (batch,)."""
        posterior = self.inner.encode(x, observed, design)
        negentropy = gaussian_negentropy(posterior.log_diagonal[0]).sum(-1) + self.scale.abs().log().sum()
        return self.outward(posterior.sample(noise[None])[0]), negentropy

    @property
    def likelihood(self) -> Likelihood:
        return self.inner.likelihood

    def bound(self, rows: Rows, generator: torch.Generator, n_draws: int) -> Tensor:
        """log p(x | u) (batch,) of every row, in nats of standardised features, or where it is not known its bound.

        The evidence lower bound is the mean of ``n_draws`` draws.
        """
        if (exact := self.inner.log_density(rows)) is not None:
            return exact[0]
        prior = self.prior(rows.design)
        total = torch.zeros(len(rows), device=rows.x.device)
        for _ in range(n_draws):
            noise = torch.randn(len(rows), self.n_latents, generator=generator).to(rows.x.device)
            z, negentropy = self.sample_posterior(rows.x, rows.observed, noise, rows.design)
            total += self.likelihood.log_prob(rows, self.decode(z)[None])[0] - negentropy
            total += prior.log_prob(z).sum(-1)
        return total / n_draws

    def decode(self, z: Tensor) -> Tensor:
        """The likelihood's η (batch, features): standardised features, where it is Gaussian."""
        return self.inner.decode(self.inward(z)[None])[0]

    def reconstruct(self, z: Tensor) -> Tensor:
        """η (batch, features) of rows whose posterior means are ``z``."""
        return self.decode(z @ self.expansion)

    def counterfactual(
        self,
        rows: Rows,
        target: Tensor,
        generator: torch.Generator,
        residual: bool = True,
        offset: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        """Features (batch, features) of rows that are translated to ``target`` (batch, n_design).

        z' = F⁻¹(F(z; u); target), with the prior's maps F. What z leaves of a row is kept
        (``Likelihood.carry``), or with ``residual`` False it is the mean for z' alone. ``offset`` as there; ``shift``
        (batch, features) is added to η.
        """
        z = self.mean(rows.x, rows.observed, rows.design) @ self.expansion
        noise, _ = self.prior(rows.design).to_noise(z)
        moved = self.decode(self.prior(target).from_noise(noise))
        if shift is not None:
            moved = moved + shift
        if not residual:
            return self.likelihood.mean(moved, rows.offset if offset is None else offset)
        return self.likelihood.within(target).carry(rows, self.decode(z), moved, generator, offset)

    def jacobian(self, z: Tensor) -> Tensor:
        """Exact ∂η/∂z (batch, features, latents), in the likelihood's ``unit`` for one unit of z."""
        _, inner = self.inner.decode_with_jacobian(self.inward(z)[None], len(z))
        return inner[0][:, self.order].mul(self.scale[:, None]).transpose(1, 2)

    def prior(self, design: Tensor) -> PriorDistribution:
        return FramedPrior(self, self.inner.prior(design))
