r"""CG-VAE: a variational autoencoder with a domain-encoding prior and a sparse mixing.

.. math:: \min\; -E_q \log p(x \mid z) + \beta\,[E_q \log q(z \mid x) - E_q \log p(z \mid u)] + \alpha\, S(\hat g, z)

Li et al., ICLR 2025, arXiv:2503.00639: ``L_r + α L_s − β L_KL`` with a learned observation noise and with ``S`` made
free of the scale of z (``objectives/sparsity.py``).

**Weight of the penalty.** α rises from 0, since at full strength while the noise is still being learnt it collapses all
latents, and falls again until four fifths of training: strong sparsity leads to the right latents, and weak sparsity
does not bend them. Where it is chosen by evidence it ends at what the Bayesian information criterion charges for two
parameters, log(N) nats in N training rows (slope and bend of an entry), or for one where rows are fewer than five times
the features and the mixing stays nearly linear; otherwise at a fifth of α.

**Noise.** Until ``released`` all features share one noise variance. With a noise of its own for every feature from the
start the model behaves like factor analysis: two features that share a small disturbance buy a latent, and a factor
that drives one feature is declared noise. Later a part of its variance is each feature's own: half, in one start nine
tenths. Where the number of latents is enough, as a short fit tells (``CGVAE``), that danger is small, and it is so from
the start: a common noise asks of all features that they fit alike, and mixes latents for that.
After training each is set to that of its residuals. Until ``narrowed`` a floor under the noise falls to 0: with small
noise the reconstruction outweighs everything else so early that encoder and decoder settle on latents that are mixed
with each other. It begins at half a standard deviation, or at half of that of the weakest principal component that the
latents are to describe: factors below the floor would be taken for noise, and are hardly ever found again.

**Starts.** They take turns (``beginnings``, ``SCHEDULES``). One begins at probabilistic PCA (``models/linear.py``),
rotated to fit domains and sparsity, and keeps its best state from before the first step on: on held-out rows
the result is not worse than that linear model. One begins there with spare latents, the others at random weights. All
networks have a linear path beside them. Where rows are fewer than five times the features all begin at the linear
model: from random weights the optimum is out of reach there.

**Turning.** Turning latents that have settled is uphill for the networks, but it can be searched as a whole: at
``turned`` each start applies the linear map of its latents that fits domains and sparsity best
(``objectives/rotation.py``). There each entry of the mixing is worth 12 α log(N) / 2N nats; by evidence, at the last
turn, 2 log(N) / 2N. After the training, latents that the domains leave free are turned to be least Gaussian
(``objectives/shapes.py``).

**Spare latents.** A feature that rises and falls again along a latent looks like a factor of its own. With exactly as
many latents as asked it takes the place of one and never gives it back; with a spare one the true latent is learnt
beside it and makes it superfluous. At ``narrowed`` superfluous latents are dropped. Which latent is superfluous cannot
be seen from its effect alone: two latents may share the range of one factor between them. So starts drop the weakest,
and one of them the second weakest of those that are left, unless the weakest has hardly an effect; the objective
decides.

**Too few latents.** Then a network bends the latents that there are through several factors each: it keeps more
variance than PCA, but other rows lead to other latents, and known factors are found worse than by linear methods. So if
residuals depend on each other after a short fit and after the training too, the kept start gives way to the linear
model, rotated to a small L1 norm of the mixing: an entry of one standard deviation costs one nat, which outweighs the
changes, as these are of mixtures of factors. A count of the entries has several optima that are nearly equal in dense
tables, and halves of the rows choose different ones; so has the L1 norm, where small entries count. Entries below
5 / √N, five standard errors of an entry in N rows, hardly do.

**Too few rows.** The kept start gives way too where networks keep less of the held-out variance than principal
components, and where the other starts do not find its latents again: they hardly would in other rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from unmix.data.batches import Rows
from unmix.distributions.kinds import likelihood_of
from unmix.distributions.likelihood import Likelihood, NoiseCourse
from unmix.distributions.prior import DomainPrior, GaussianPrior, PriorDistribution, SplinePrior, StudentPrior
from unmix.models.base import LatentModel
from unmix.models.linear import principal_factors, weakest_component
from unmix.models.rotation import rotate_by_shape, rotate_latents
from unmix.nets.decoder import Decoder, DenseDecoder, FeatureDecoder
from unmix.nets.encoder import Encoder, GaussianPosterior
from unmix.nets.jacobian import rows_at_once
from unmix.nets.layers import Generators, generators
from unmix.nets.own_decoder import MakeDecoder, OwnDecoder
from unmix.objectives.rotation import SmoothL1
from unmix.objectives.sparsity import PENALTIES, group_weights, jacobian_weights

PRIORS: dict[str, type[DomainPrior]] = {"gaussian": GaussianPrior, "student": StudentPrior, "spline": SplinePrior}
DECODERS = ("dense", "feature", "invertible")
MakePrior = Callable[[Generators, int, int, float], DomainPrior]
MakeLikelihood = Callable[[int, int], Likelihood]
_FITTED = ("fitted",)
_NEGLIGIBLE = 0.01
_NEGLIGIBLE_EFFECT = 0.05
_ENTRY_COST = 6.0
_NARROWING_ROWS = 256
_LEAST_VARIANCE = 1e-12
_START_SEED = 0
_FLOOR_SHARE = 0.5
_FINAL_SHARE = 0.2
_FEATURES_AT_FULL_RATE = 16
_LEAST_ROWS_A_FEATURE = 5
_PATIENCE_OF_LINEAR = 20
_SHAPE_ROWS = 10_000
_SIMPLE_COST = 1.0
_SIMPLE_ERRORS = 5.0
_SIMPLE_ROWS = 4096
_SIMPLE_PART = 0.1


def _by_evidence(n_rows: int, wide: bool) -> float:
    """Nats per row for an entry by the Bayesian information criterion: two parameters, or one in wide tables."""
    return (1 if wide else 2) * math.log(n_rows) / (2 * n_rows)


@dataclass(frozen=True)
class Schedule:
    """The weight of the penalty over the training, linear between knots (progress, share of α; None: its final weight).

    ``drop``: which surplus latent is dropped (0: the weakest).
    """

    knots: tuple[tuple[float, float | None], ...]
    drop: int = 0

    def strength(self, progress: float, alpha: float, final: float) -> float:
        knots = [(at, final if share is None else share * alpha) for at, share in self.knots]
        weight = knots[0][1]
        for (start, low), (end, high) in pairwise(knots):
            if progress > start:
                weight = high if progress >= end else low + (high - low) * (progress - start) / (end - start)
        return weight


_STRONG = Schedule(((0.0, 0.0), (0.5, 1.0), (0.8, None)))
_HALF = Schedule(((0.0, 0.0), (0.5, 0.5), (0.8, None)))
_GENTLE = ((0.0, 0.0), (0.2, 0.2), (0.5, 0.2), (0.65, 1.0), (0.8, None))
FINAL = Schedule(((0.0, None),))
SCHEDULES = (_STRONG, _HALF, _HALF, Schedule(_GENTLE, drop=1))


@dataclass(frozen=True)
class CGVAEConfig:
    """Everything that fixes the networks and the objective; ``hidden`` are the widths of encoder and dense decoder.

    ``decoder``: "dense" (one network, L1 of its Jacobian), "feature" (one small network per feature, group penalty) or
    "invertible" (``models/invertible.py``).
    ``sparsity`` and ``kl_weight`` are α and β; the starts take the ``schedules`` in turn. ``noise_floor``, in standard
    deviations of the features (at most half of that of the weakest principal component to be described), falls to 0 at
    ``narrowed``; until then ``spare`` latents more than ``n_latents`` train. At each share of the training in
    ``turned`` the latents are rotated to fit domains and sparsity; with ``shapes``, those that domains leave free once
    more after training, to be less Gaussian.

    The starts take the ``beginnings`` in turn: "linear" at probabilistic PCA, "spare" there with spare latents, "" at
    random weights; with none there are no linear paths; "fitted": one start, at a fitted model. Until ``released`` the
    features share all of the noise's variance, then a share that the starts take in turn from ``pooled`` (a single
    start: the last). ``by_evidence``: the final weight of the penalty is that of ``_by_evidence``.
    ``kinds`` are the likelihoods of the features, one for each or one for all. ``levels``, where the dispersion of
    counts depends on the domain, are those of ``Counts``.

    ``decoder``, ``prior`` and ``likelihood`` may be classes of the user's own (``models/contracts.py``), the likelihood
    in place of ``kinds``. An own decoder takes ``inputs`` latents (0: all, with the spare ones), and starts with it
    begin at random weights.
    """

    n_latents: int
    n_features: int
    n_design: int = 0
    interactions: float = 0.0
    masked: bool = False
    hidden: tuple[int, ...] = (64, 64)
    decoder: str | MakeDecoder = "dense"
    prior: str | MakePrior = "gaussian"
    sparsity: float = 0.5
    penalty: str = "log"
    kl_weight: float = 1.0
    n_starts: int = 1
    seed: int = 0
    feature_width: int = 16
    initial_noise: float = 0.1
    noise_floor: float = 0.5
    beginnings: tuple[str, ...] = ("spare", "", "linear", "")
    released: float = 0.5
    pooled: tuple[float, ...] = (0.1, 0.5, 0.5, 0.5)
    schedules: tuple[Schedule, ...] = SCHEDULES
    spare: int = 2
    narrowed: float = 0.35
    turned: tuple[float, ...] = (0.4, 0.8)
    shapes: bool = True
    by_evidence: bool = False
    kinds: tuple[str, ...] = ("gaussian",)
    likelihood: MakeLikelihood | None = None
    inputs: int = 0
    levels: tuple[int, ...] = ()

    @property
    def n_inputs(self) -> int:
        """Latents that an own decoder takes."""
        return self.inputs or self.n_latents + self.spare


class CGVAENetwork(LatentModel):
    """Encoder, decoder with learned noise, and prior p(z | u), for ``config.n_starts`` starts at once.

    ``n_latents`` counts the spare ones; ``alive`` (starts, 1, latents) is 0 for those that have been dropped.
    """

    penalties: ClassVar[tuple[str, ...]] = ("sparsity",)
    alive: Tensor

    def __init__(self, config: CGVAEConfig) -> None:
        sources = generators(config.seed, config.n_starts)
        n_latents = config.n_latents + config.spare
        encoder, decoder = self._networks(sources, n_latents, config)
        super().__init__(config, encoder, decoder, self._likelihood(config))
        prior = PRIORS[config.prior] if isinstance(config.prior, str) else config.prior
        self.domain_prior: DomainPrior = prior(sources, n_latents, config.n_design, config.interactions)
        self.n_latents = n_latents
        self._wide, self.final_sparsity = False, _FINAL_SHARE * config.sparsity
        self.register_buffer("alive", torch.ones(config.n_starts, 1, n_latents))

    def _likelihood(self, config: Any) -> Likelihood:
        if config.likelihood is not None:
            own: Likelihood = config.likelihood(config.n_starts, config.n_features)
            return own
        pooled = config.pooled if config.n_starts > 1 else config.pooled[-1:]
        course = NoiseCourse(config.noise_floor, config.narrowed, config.released, pooled)
        sizes = config.n_starts, config.n_features
        return likelihood_of(config.kinds, *sizes, config.initial_noise, course, config.levels)

    def _networks(self, sources: Generators, n_latents: int, config: Any) -> tuple[Encoder, Decoder]:
        linear = bool(config.beginnings)
        encoder = Encoder(sources, config.n_features, config.hidden, n_latents, config.masked, linear=linear)
        if isinstance(config.decoder, str):
            return encoder, _DECODERS[config.decoder](sources, config)
        return encoder, OwnDecoder(sources, config.decoder, n_latents, config.n_inputs, config.n_features)

    def rates(self) -> Mapping[str, float]:
        """Rates fall with the number of features, most for what takes them all (Yang et al. 2021, arXiv:2203.03466)."""
        if not self.config.beginnings:
            return {}
        share = min(1.0, _FEATURES_AT_FULL_RATE / self.config.n_features)
        rates = {name: share**0.5 for name, _ in self.named_parameters()}
        return rates | {"encoder.network.layers.0.weight": share, "encoder.path.weight": share}

    @torch.no_grad()
    def begin(self, train: Rows, some: Rows) -> bool:
        config, fitted = self.config, self.config.beginnings == _FITTED
        if not fitted:
            self.likelihood.begin(train)
        self._wide = len(train) < _LEAST_ROWS_A_FEATURE * config.n_features
        if config.by_evidence:
            one = float(PENALTIES[config.penalty](torch.ones(1, 1, 1)))
            self.final_sparsity = min(_by_evidence(len(train), self._wide) / one, _FINAL_SHARE * config.sparsity)
        if fitted:
            return True
        kinds = {start: self._kind(start) for start in range(self.n_starts) if self._kind(start)}
        if kinds:
            weakest = weakest_component(train.x, config.n_latents, _START_SEED)
            self.likelihood.lower_floor(_FLOOR_SHARE * weakest)
        for kind in dict.fromkeys(kinds.values()):
            own = [start for start, other in kinds.items() if other == kind]
            self._begin_linear(kind, own, train, weakest)
            rotate_latents(self, some, self.alive[:, 0], self._entry_cost(len(train)), _START_SEED, linear=own)
        return any(kind == "linear" for kind in kinds.values())

    def _begin_linear(self, kind: str, starts: list[int], train: Rows, weakest: float) -> None:
        """Starts at probabilistic PCA, whose rotation is left open."""
        config = self.config
        n = min(self.n_latents if kind == "spare" else config.n_latents, config.n_features, len(train))
        found = principal_factors(train.x, n, _START_SEED, weakest)
        encoding = found.encoding.new_zeros(config.n_features, self.n_latents)
        weight = found.weight.new_zeros(self.n_latents, config.n_features)
        factor = torch.eye(self.n_latents, device=weight.device)
        encoding[:, :n], weight[:n], factor[:n, :n] = found.encoding, found.weight, found.factor
        decoder: Any = self.decoder
        for start in starts:
            self.encoder.set_linear(start, encoding, factor)
            own = self.likelihood.begin_linear(start, train, train.x @ found.encoding, found.weight, found.noise)
            weight[:n] = own
            decoder.set_linear(start, weight)
            self.alive[start, 0] = (torch.arange(self.n_latents, device=weight.device) < n).to(weight)

    @property
    def most_patience(self) -> float:
        """Where all starts begin at the linear solution there may be nothing to gain, and much to overfit."""
        return _PATIENCE_OF_LINEAR if self.settled(0.0) else math.inf

    def go_on(self) -> None:
        """The final objective from the start: no spare latents, no rotation, no floor under the noise."""
        self.config = replace(self.config, beginnings=_FITTED, schedules=(FINAL,), turned=(), released=0.0)
        self.likelihood.release()
        self.likelihood.lower_floor(0.0)

    def free_shapes(self) -> None:
        """Put splines in the place of a Gaussian prior, equal to it as yet."""
        config, gaussian = self.config, self.domain_prior
        if not isinstance(gaussian, GaussianPrior):
            return
        sources = generators(config.seed, self.n_starts)
        prior = SplinePrior(sources, self.n_latents, config.n_design, config.interactions)
        prior.begin_at(gaussian)
        self.domain_prior, self.config = prior.to(self.alive), replace(config, prior="spline")

    def release_noise(self) -> None:
        """The number of latents is enough: let each feature have its part of the noise from the start."""
        self.config = replace(self.config, released=0.0)
        self.likelihood.release()

    @property
    def can_be_linear(self) -> bool:
        """Whether there is a linear model of such features, settings and parts: what ``simplify`` asks for."""
        config = self.config
        plain = config.by_evidence and config.kinds == ("gaussian",) and not config.masked
        return plain and config.likelihood is None and not isinstance(self.decoder, OwnDecoder)

    def doubt_number(self) -> None:
        """Two fits found that the number of latents is not enough for anything but a linear model."""
        self.doubted = True

    def compare_with_linear(self, must_repeat: bool) -> None:
        """The training is long enough to be compared with a linear model, which loses something itself."""
        self.compared = self.can_be_linear and self.config.n_latents < self.config.n_features
        self.must_repeat = self.compared and must_repeat

    @torch.no_grad()
    def simplify(self, start: int, train: Rows) -> None:
        config = self.config
        self._begin_linear("linear", [start], train, weakest_component(train.x, config.n_latents, _START_SEED))
        some = train.take(slice(None, None, -(-len(train) // _SIMPLE_ROWS)))
        penalty = SmoothL1(_SIMPLE_ERRORS / len(train) ** 0.5)
        words: dict[str, Any] = {"linear": [start], "penalty": penalty, "largest_part": _SIMPLE_PART}
        rotate_latents(self, some, self.alive[:, 0], _SIMPLE_COST, _START_SEED, **words)

    @property
    def chosen(self) -> Mapping[str, object]:
        prior = self.config.prior
        return {"prior": prior} if prior in ("student", "spline") else {}

    def seedless(self, start: int) -> bool:
        return self._kind(start) in ("linear", *_FITTED)

    def _kind(self, start: int) -> str:
        kinds = self.config.beginnings
        if kinds == _FITTED:
            return kinds[0]
        if not kinds or isinstance(self.decoder, OwnDecoder):
            return ""
        return "linear" if self._wide else kinds[start % len(kinds)]

    def _entry_cost(self, n_train: int) -> float:
        cost: float = self.config.sparsity * _ENTRY_COST * math.log(n_train) / n_train
        return cost

    def encode(self, x: Tensor, observed: Tensor | None, design: Tensor | None = None) -> GaussianPosterior:
        """q(z | x); a dropped latent has mean 0 and is uncorrelated with the others."""
        posterior = super().encode(x, observed, design)
        if not self.config.spare:
            return posterior
        return replace(posterior, mean=posterior.mean * self.alive, counted=self.alive)

    def prior(self, design: Tensor) -> PriorDistribution:
        distribution: PriorDistribution = self.domain_prior(design)
        return distribution

    def terms(self, rows: Rows, noise: Tensor, n_train: int, penalty_rows: int, progress: float) -> dict[str, Tensor]:
        posterior = self.encode(rows.x, rows.observed)
        z = posterior.sample(noise * self.alive)
        output, penalties = self._decode_and_penalise(z, penalty_rows)
        return {
            "reconstruction": -self.likelihood.log_prob(rows, output, progress).mean(1),
            "kl": self.kl(rows, posterior, z, self.alive),
            **penalties,
            "shrinkage": self.domain_prior.shrinkage() / n_train,
        }

    def weights(self, progress: float) -> Mapping[str, float | Tensor]:
        return {
            "reconstruction": 1.0,
            "kl": self.config.kl_weight,
            "sparsity": self._strength(progress),
            "shrinkage": 1.0,
        }

    def settled(self, progress: float, start: int | None = None) -> bool:
        if start is not None and self.seedless(start):
            return True
        if start is None and all(self.seedless(own) for own in range(self.n_starts)):
            return True
        ends = [schedule.knots[-1][0] for schedule in self._schedules]
        return progress >= max(*ends, *self.config.turned, self.config.narrowed if self.config.spare else 0.0)

    @property
    def _schedules(self) -> list[Schedule]:
        return [self.config.schedules[start % len(self.config.schedules)] for start in range(self.n_starts)]

    def _strength(self, progress: float) -> Tensor:
        """Weight of the penalty in each start (starts,)."""
        alpha, final = self.config.sparsity, self.final_sparsity
        return self.alive.new_tensor([own.strength(progress, alpha, final) for own in self._schedules])

    @torch.no_grad()
    def settle(self, latent_std: Tensor) -> None:
        """A feature decoder's entries below 1 % of a standard deviation become exactly 0."""
        if isinstance(self.decoder, FeatureDecoder):
            self.decoder.drop(self.decoder.group_norms() * latent_std.unsqueeze(-1) < _NEGLIGIBLE)

    def rearrange(self, rows: Rows, n_train: int, before: float, after: float) -> None:
        # A rewind after the scoring that follows brings spare latents back: then they go after the next epoch.
        wide = self.alive.sum((1, 2)) > self.config.n_latents
        if self.config.narrowed <= after and bool(wide.any()):
            self._narrow(rows, wide)
        due = [turned for turned in self.config.turned if before < turned <= after]
        if due:
            last = self.config.by_evidence and due[-1] == self.config.turned[-1]
            cost = _by_evidence(n_train, self._wide) if last else self._entry_cost(n_train)
            rotate_latents(self, rows, self.alive[:, 0], cost, self.config.seed)

    def conclude(self, train: Rows) -> None:
        """Domains leave latents free that they change alike, or not at all: there the shape of the latents decides.

        Not where domains are not told: rows of several would make latents less Gaussian the more they are mixed.
        """
        possible = self.config.n_design > 0 and not isinstance(self.decoder, FeatureDecoder)
        if possible and self.config.turned and self.config.shapes:
            some = train.take(slice(None, None, -(-len(train) // _SHAPE_ROWS)))
            rotate_by_shape(self, some, self.alive[:, 0], self.config.seed)

    @torch.no_grad()
    def _narrow(self, rows: Rows, wide: Tensor) -> None:
        """Each ``wide`` start drops its spare latents: the weakest, and last the one its schedule says."""
        n_kept = self.config.n_latents
        z = self.encode(rows.x, rows.observed).mean
        effect = self._weights_of(z[:, :_NARROWING_ROWS], _NARROWING_ROWS, z.std(1, correction=0))[1].sum(-1)
        order = effect.argsort(dim=1, descending=True)
        for start in torch.nonzero(wide).flatten().tolist():
            schedule, kept = self._schedules[start], order[start, : n_kept + 1].tolist()
            surplus = float(effect[start, kept[-1]]) >= _NEGLIGIBLE_EFFECT
            del kept[max(n_kept - schedule.drop, 0) if surplus else n_kept]
            self.alive[start] = 0.0
            self.alive[start, 0, kept] = 1.0

    def single(self, start: int) -> CGVAENetwork:
        config = replace(self.config, n_starts=1, spare=0, pooled=(), inputs=self.config.n_inputs)
        network = type(self)(config).to(self.alive)
        kept = torch.nonzero(self.alive[start, 0]).flatten()[: self.config.n_latents]
        own = {name: value[start : start + 1] for name, value in self.state_dict().items()}
        parts: dict[str, Any] = {"encoder": self.encoder, "decoder": self.decoder, "domain_prior": self.domain_prior}
        for name, module in parts.items():
            for key, (dim, index) in module.latent_entries(kept).items():
                own[f"{name}.{key}"] = own[f"{name}.{key}"].index_select(dim, index)
        own |= {f"likelihood.{name}": value for name, value in self.likelihood.of_start(start).items()}
        network.load_state_dict(own | {"alive": own["alive"][..., kept]})
        return network

    def _decode_and_penalise(self, z: Tensor, penalty_rows: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Features of every row, and the penalties unless ``penalty_rows`` is 0."""
        if penalty_rows == 0:
            return self.decode(z), {}
        if self.config.sparsity == 0:
            return self.decode(z), {"sparsity": z.new_zeros(self.n_starts)}
        latent_std = (z.var(1, correction=0) + _LEAST_VARIANCE).sqrt() * self.alive[:, 0]
        penalty = PENALTIES[self.config.penalty]
        if isinstance(self.decoder, FeatureDecoder):
            return self.decode(z), {"sparsity": penalty(group_weights(self.decoder.group_norms(), latent_std))}
        output, weights = self._weights_of(z, penalty_rows, latent_std)
        return output, {"sparsity": penalty(weights)}

    def _weights_of(self, z: Tensor, n_rows: int, latent_std: Tensor) -> tuple[Tensor, Tensor]:
        """Features of every row, and w (starts, latents, features) of the first ``n_rows``, within the budget."""
        n_rows = min(n_rows, z.shape[1])
        at_once = rows_at_once(self.n_starts, self.n_latents, self.config.n_features)
        if torch.is_grad_enabled() or n_rows <= at_once:
            output, jacobian = self.decode_with_jacobian(z, n_rows)
            return output, jacobian_weights(jacobian, latent_std)
        total = z.new_zeros(())
        for part in z[:, :n_rows].split(at_once, dim=1):
            _, jacobian = self.decode_with_jacobian(part, part.shape[1])
            total = total + jacobian_weights(jacobian, latent_std * (part.shape[1] / n_rows))
        return self.decode(z), total


def _feature_decoder(sources: Generators, config: CGVAEConfig) -> FeatureDecoder:
    n_latents, linear = config.n_latents + config.spare, bool(config.beginnings)
    return FeatureDecoder(sources, n_latents, config.feature_width, config.n_features, linear=linear)


def _dense_decoder(sources: Generators, config: CGVAEConfig) -> DenseDecoder:
    n_latents, linear = config.n_latents + config.spare, bool(config.beginnings)
    return DenseDecoder(sources, n_latents, config.hidden, config.n_features, linear=linear)


_DECODERS: dict[str, Callable[[Generators, CGVAEConfig], FeatureDecoder | DenseDecoder]] = {
    "feature": _feature_decoder,
    "dense": _dense_decoder,
}
