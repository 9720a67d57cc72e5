"""``unmix.CGVAE``: the estimator."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from unmix.audit.residuals import STRONG
from unmix.data.batches import Rows
from unmix.data.domains import DomainSchema
from unmix.data.schema import FeatureSchema
from unmix.distributions.prior import DomainPrior
from unmix.errors import DataWarning, SettingError, warn
from unmix.estimators.atomic import atomic
from unmix.estimators.base import LatentEstimator
from unmix.estimators.face import Learnt
from unmix.estimators.prepare import KindWords, Prepared, in_layer
from unmix.estimators.progress import say
from unmix.estimators.selection import (
    HEAVY,
    choose_latents,
    falls_short,
    long_enough,
    long_training,
    probed,
    unfitted,
)
from unmix.estimators.settings import DISPERSION, LIKELIHOOD, NUISANCE, SIZE_FACTORS, or_own
from unmix.fits.choice import curvature
from unmix.fits.further import Further, train_further
from unmix.fits.latent import LINEAR_MODEL
from unmix.fits.words import plain_settings
from unmix.forms import DataLike, LabelsLike
from unmix.models.base import LatentModel
from unmix.models.cgvae import DECODERS, PRIORS, CGVAEConfig, CGVAENetwork, MakeLikelihood, MakePrior
from unmix.models.contracts import check_decoder, check_likelihood, check_prior
from unmix.models.invertible import LEAST_FEATURES, InvertibleNetwork
from unmix.nets.own_decoder import MakeDecoder
from unmix.objectives.sparsity import PENALTIES
from unmix.train.callbacks import Callback
from unmix.train.fit import TrainingResult, TrainingSettings
from unmix.validation import AT_LEAST_ZERO, Check, one_of, random_seed, whole

# Where an invertible network is tried as well; by how many nats a feature it must then be better, and how far its
# starts must agree.
_MOST_FEATURES, _LEAST_NOISE, _ALIKE, _CURVED, _DISTINCT = 16, 1e-3, 0.995, 0.01, 0.9
_LEAST_GAIN, _LEAST_AGREEMENT = 0.1, 0.7
_PASSES, _BATCH, _MOST_EPOCHS = 3, 2, 1_000


@dataclass(eq=False, repr=False)
class CGVAE(LatentEstimator):
    r"""Latent factors of data from several domains, by priors that change and a sparse mixing (CG-VAE).

    .. math:: \min\; -E_q \log p(x \mid z) + \beta\,[E_q \log q(z \mid x) - E_q \log p(z \mid u)]
              + \alpha \sum_{ki} \rho(w_{ki}), \quad w_{ki} = E\,|\partial \hat x_k / \partial z_i|\, \mathrm{sd}(z_i)

    Li, Fan, Zheng, Ng, Xie, Chen, Dong, Cai, Zhang: Synergy Between Sufficient Changes and Sparse Mixing Procedure
    for Disentangled Representation Learning, ICLR 2025, arXiv:2503.00639. Features are standardised internally.

    Parameters
    ----------
    n_latents : int or "auto", default 4
        Number of latent factors, at most the number of features; "auto" chooses it from the data (``docs/select.md``).
        If it is clearly too small, a ``DataWarning`` is issued, and with Gaussian features, none missing, and
        ``sparsity="auto"`` the model is linear: principal components, rotated to few large entries of the mixing. So it
        is, with a warning, if rows are too few for networks: they keep less variance than principal components, or
        other starts find other latents (``docs/select.md``).
    hidden : sequence of int, default (64, 64)
        Widths of the encoder, and of the dense decoder.
    decoder : {"auto", "dense", "feature", "invertible"} or subclass of torch.nn.Module, default "auto"
        "dense": one network for all features with the L1 norm of its exact Jacobian as penalty; "feature": one small
        network for each feature with a group penalty on the weights of each latent; "invertible": an invertible
        network, without noise and penalty, trained by its exact likelihood (2 or more continuous features, none
        missing). "auto": "dense", and where a curved mixing may have no noise and starts disagree also "invertible",
        which is kept if its held-out objective is better by 0.1 nats per feature and its starts agree at 0.7 or more
        (``docs/method.md``); with at most 16 features, whose values hardly repeat, several domains, and
        ``sparsity="auto"`` or 0. A class of your own (``docs/extending.md``) is called as ``decoder(n_latents,
        n_features)``; the starts then begin at random weights.
    prior : {"auto", "gaussian", "student", "spline"} or subclass of DomainPrior, default "auto"
        p(z | u): a normal distribution of each latent in each domain; Student's t, its degrees of freedom learnt for
        each latent (heavy tails); or location-scale and a monotone spline (any shape). "auto": Student's t if it fits
        the latents of a short fit within domains better than a normal distribution by 0.07 nats per row and latent,
        else "gaussian"; always "gaussian" in tables of more than 256 features or with another likelihood, and in short
        trainings.
    sparsity : "auto" or float, default "auto"
        α, in nats per row for an entry of one standard deviation under L1. It rises during the training to this value
        (in some starts to half of it, or later) and ends at a fifth, where starts are compared. "auto": it rises to 0.5
        and ends where an entry costs as much as two parameters in the Bayesian information criterion (one parameter
        if there are fewer rows than five times the features). 0: only changes identify the latents.
    penalty : {"log", "l1", "l2"}, default "log"
        Form of the penalty on the entries w of the mixing: 0.05 log(1 + w / 0.05), nearly a count of the entries; L1,
        as in the paper; or squared, for comparison.
    penalty_rows : int, default 32
        Rows of each batch at which the Jacobian of the dense decoder is computed: an unbiased estimate of its mean.
    penalty_every : int, default 2
        The penalty is computed only in every ``penalty_every``-th step, with ``penalty_every`` times the weight.
    kl_weight : float, default 1.0
        β. 1 keeps the evidence lower bound (ELBO).
    n_restarts : int, default 4
        Number of starts, trained together; the best is chosen by held-out objective and agreement. The first and the
        third begin at probabilistic PCA, rotated to fit domains and sparsity; all do if there are fewer rows than five
        times the features. If the noise of a feature then differs between domains, as many are trained again from other
        random weights, and the better fit is kept.
    max_epochs : int, optional
        Passes over the training rows. Default: 330 steps per latent and at least 2,000, in at most 1,000 passes; if
        20 passes are more steps than that, an epoch is a twentieth of the steps instead of a pass.
    n_spare : int, default 2
        Additional latents that are trained for a third of the training, in all starts except the linear one, and are
        then dropped. Without them a feature that rises and falls along a latent can take the place of another latent.
    batch_size : int, default 128
    learning_rate : float, default 0.01
        Peak of a warm-up and cosine schedule (Adam). With d > 16 features it is multiplied by (16 / d)^½.
    optimizer : callable, optional
        Called with parameter groups and their learning rates, returns a torch optimiser to use instead of Adam, such as
        ``functools.partial(torch.optim.AdamW, weight_decay=1e-4)``. It should treat entries of the parameters one by
        one, since their first axis is that of the starts.
    scheduler : callable, optional
        Called with the optimiser, returns a torch ``LRScheduler`` to use instead of warm-up and cosine. It starts from
        ``learning_rate`` and takes a step after every epoch.
    warm_start : bool, default False
        Whether ``fit`` of a fitted model continues it instead of starting anew: one start, at the fitted parameters,
        with the final objective throughout. The rows may be others, features and domains must be the same. The result
        is not worse on the held-out rows than the model it started from.
    validation_fraction : float, default 0.1
        Share of every domain that is held out, the same rows for every ``random_state``; early stopping, choice of
        start and all reported numbers except the mixing use it.
    early_stopping : bool, default True
        Stop when no start has improved on held-out rows for a fifth of ``max_epochs``, counted from the end of the
        schedules. Schedules of starts at random weights take four fifths of the training, so that training stops early
        only if all starts are linear.
    auxiliary : mapping of column name to {"categorical", "continuous", "within <column>"}, optional
        Kinds of the domain columns. Undeclared: text, booleans and whole numbers of at most 50 values are
        categorical, and this is printed; other numbers must be declared.
    likelihood : {"gaussian", "auto", "student", "poisson", "negative_binomial", "bernoulli"}, mapping, or subclass of \
Likelihood
        Distribution of the features: continuous; continuous with outliers (Student t, degrees of freedom learnt);
        counts without or with a dispersion per feature; binary (0 or 1). In a mapping from feature names to these,
        features that are not named are Gaussian. "auto": columns of 0 and 1 are binary, and whole numbers are counts if
        the whole table looks like counts; the choice is printed before training. ``docs/likelihoods.md`` has the rules
        and the meaning of the mixing.
    size_factors : {"total"}, column name or None, default "total"
        Sizes of rows of counts: their total divided by its median; a column of the table (of ``.obs`` of AnnData),
        which is then not a feature; or None, the same for all.
    nuisance : column name, optional
        Technical batches, whose effects are added to each feature, so that no latent has to explain them. It may be the
        column of domains. New rows need the column as well.
    dispersion : {"feature", "domain"}, default "feature"
        Whether the dispersion of each feature with a negative binomial distribution is the same in all domains, or has
        effects of the levels of each domain column, which add up on the log scale; continuous columns have none. A
        domain that ``adapt`` adds has the mean over the levels of the fit.
    missing : {"error", "mask"}, default "error"
        What to do with NaN: raise an error, or leave those entries out of the likelihood.
    min_domain_rows : int, default 10
        Minimum number of rows per domain.
    device : {"auto", "cpu", "cuda", "mps"} or torch.device, default "auto"
    random_state : int, RandomState or None, default 0
        An integer gives bitwise identical results on the same CPU.
    verbose : {0, 1, 2}, default 1
        Silent; a summary and a progress bar; also a line every tenth of the training.

    Attributes
    ----------
    mixing_ : float array (n_features, n_latents)
        Mean over rows of |∂x/∂z|, in standard deviations of the feature per standard deviation of the latent; for
        counts the log fold change of their expectation, for binary features the change of the log-odds.
    support_ : bool array (n_features, n_latents)
        ``mixing_ >= 0.1``.
    explained_variance_ratio_ : float array (n_latents,)
        Share of the features' variance that each latent accounts for: mean over features of E (∂x/∂z)² var(z).
    agreement_ : float
        Mean one-to-one correlation between the latents of different starts on held-out rows.
    latents_agreement_ : float array (n_latents,)
        For each latent the median correlation with its partner in the other starts; NaN with one start.
    restarts_, history_ : DataFrame
        One row per start; one row per epoch and start.
    best_restart_ : int
    n_latents_ : int
    prior_, decoder_ : str or class
        The prior and the decoder; what "auto" chose.
    residual_dependence_ : ResidualDependence
        The two features that depend on each other most, given the latents: ``correlation``, ``limit``, ``features``. A
        ``DataWarning`` is issued if it shows that ``n_latents`` is too small.
    residual_audited_ : ResidualDependence
        The same as used by the audit, which also counts dependences of smaller shared variance.
    selection_ : DataFrame, where ``n_latents="auto"``
        One row for each number of latents that was tried.
    domains_ : tuple of str
    n_features_in_ : int
    feature_names_in_ : array of str, where the data had names
    stop_reason_ : str
    linear_reason_ : str
        Why the model is a linear one, in words; empty where it is not (``docs/select.md``).
    description_ : Description
        The arrays behind the report.

    Latents are sorted by the variance they explain and have mean 0 and standard deviation 1 over the training rows. The
    sign of each is such that the feature it drives most increases with it.

    Examples
    --------
    >>> from unmix import CGVAE, datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=600)
    >>> model = CGVAE(n_latents=2, n_restarts=2, max_epochs=5, verbose=0).fit(data.x, data.domains)
    >>> model.transform(data.x).shape, model.mixing_.shape
    ((600, 2), (4, 2))
    """

    checks: ClassVar[Mapping[str, Check]] = {
        "n_latents": whole(1).or_else("auto", '"auto"'),
        "decoder": or_own(one_of(("auto", *DECODERS)), nn.Module),
        "prior": or_own(one_of(("auto", *PRIORS)), DomainPrior),
        "sparsity": AT_LEAST_ZERO.or_else("auto", '"auto"'),
        "penalty": one_of(PENALTIES),
        "penalty_rows": whole(1),
        "penalty_every": whole(1),
        "kl_weight": AT_LEAST_ZERO,
        "n_spare": whole(0),
        "likelihood": LIKELIHOOD,
        "size_factors": SIZE_FACTORS,
        "nuisance": NUISANCE,
        "dispersion": DISPERSION,
    }
    examines_residuals: ClassVar[bool] = True
    assumption: ClassVar[str] = "the factors change between domains and each feature depends on few of them"
    steps_per_latent = 330
    least_steps = 2_000

    prior_ = Learnt[Any](lambda fit: fit.model.inner.config.prior)
    decoder_ = Learnt[Any](lambda fit: fit.model.inner.config.decoder)

    n_latents: int | str = 4
    decoder: str | MakeDecoder = "auto"
    prior: str | MakePrior = "auto"
    sparsity: float | str = "auto"
    penalty: str = "log"
    penalty_rows: int = 32
    penalty_every: int = 2
    kl_weight: float = 1.0
    n_spare: int = 2
    likelihood: str | Mapping[str, str] | MakeLikelihood = "gaussian"
    size_factors: str | None = "total"
    nuisance: str | None = None
    dispersion: str = "feature"

    @atomic
    def fit(
        self,
        X: DataLike,
        y: LabelsLike = None,
        *,
        layer: str | None = None,
        callbacks: Sequence[Callback] = (),
        checkpoint: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        X = in_layer(X, layer)
        given: dict[str, Any] = {"callbacks": callbacks, "checkpoint": checkpoint, "resume": resume}
        self._check_words()
        if self.n_latents != "auto":
            anew = getattr(self, "fit_", None) is None
            super().fit(X, y, **given)
            if anew and not self.on_codes:
                self._try_others(X, y, callbacks)
            return self._warned()
        seed = random_seed(self.random_state)
        words = plain_settings(self, seed)
        numbered = unfitted(self, n_latents=1, random_state=seed)
        if (before := getattr(self, "fit_", None)) is not None:
            numbered.set_params(n_latents=before.model.n_latents)
            numbered.fit_ = before
            super(CGVAE, numbered).fit(X, y, **given)
            kept = replace(numbered.fit_.summary, selection=before.summary.selection)
            self.fit_ = replace(numbered.fit_, parameters=words, summary=kept)
            return self._warned()
        choice = choose_latents(numbered, X, y, seed)
        say(self.verbose, f"{choice.n_latents} latents: {choice.reason}")
        numbered.set_params(n_latents=choice.n_latents)
        super(CGVAE, numbered).fit(X, y, **given)
        if not self.on_codes:
            numbered._try_others(X, y, callbacks)
        fit = numbered.fit_
        self.fit_ = replace(fit, parameters=words, summary=replace(fit.summary, selection=choice.table))
        if choice.decided:
            return self._warned()
        table = choice.table.round(3).to_string(index=False)
        said = f"n_latents='auto' is {choice.reason}.\n{table}\nTo decide yourself, set n_latents to a number."
        why = fit.summary.why_linear
        warn(said if why is None else f"{said} The model is {LINEAR_MODEL}: {why}.")
        return self

    def _try_others(self, X: DataLike, y: LabelsLike, callbacks: Sequence[Callback]) -> None:
        """Fit again where the fit may have missed, and keep the better one.

        That is where noise differs between domains, when all starts may have, and where the mixing may be invertible.
        """
        fit = self.fit_
        if not fit.summary.linear and self.residual_dependence_.noise_differs and self._informative:
            again = "the noise of a feature differs between domains: training again, from other random weights"
            say(self.verbose, again)
            self._try(X, y, callbacks, random_state=int(np.random.SeedSequence(fit.seed).generate_state(1)[0]))
        if self.decoder == "auto" and self._may_be_invertible and self._has_density(X, y):
            say(self.verbose, "perhaps a mixing without noise: training an invertible network as well")
            least = _LEAST_GAIN * self.n_features_in_
            words: dict[str, Any] = {"decoder": "invertible", "prior": self.prior_, "random_state": fit.seed}
            self._try(X, y, callbacks, least, _LEAST_AGREEMENT, **words)

    def _try(
        self,
        X: DataLike,
        y: LabelsLike,
        callbacks: Sequence[Callback],
        least_gain: float = 0.0,
        least_agreement: float | None = None,
        **words: object,
    ) -> None:
        """Fit with other settings, and keep that if its held-out objective is better by more than ``least_gain``.

        With ``least_agreement`` its starts must agree that far, too.
        """
        fit, other = self.fit_, unfitted(self, n_latents=self.n_latents_, **words)
        with warnings.catch_warnings():
            # The first fit has read the same data and said the same.
            warnings.simplefilter("ignore", DataWarning)
            super(CGVAE, other).fit(X, y, callbacks=callbacks)
        reached = [own.starts["held_out_objective"][own.best] for own in (fit, other.fit_)]
        agreed = least_agreement is None or other.agreement_ >= least_agreement
        better = other.fit_ if agreed and reached[1] < reached[0] - least_gain else fit
        kept = f"the {'first' if better is fit else 'second'} model is kept"
        why = "" if agreed else ", whose starts disagree"
        said = f"{kept}: held-out objective {reached[0]:.3f} of the first, {reached[1]:.3f} of the second{why}"
        say(self.verbose, said)
        seconds = fit.seconds + other.fit_.seconds
        self.fit_ = replace(better, parameters=fit.parameters, seed=fit.seed, seconds=seconds)

    @property
    def _may_be_invertible(self) -> bool:
        """Whether the mixing may be a curved one without noise, starts disagree, and the network is small enough.

        Where the mixing is linear, an invertible network bends it to make latents normal that are not.
        """
        fit, n_features = self.fit_, self.n_features_in_
        possible = fit.model.inner.config.n_design > 0 and n_features <= _MOST_FEATURES
        possible = possible and isinstance(fit.schema, FeatureSchema) and not self._not_invertible(fit.schema)
        exact = self.n_latents_ == n_features or float(1.0 - self.description_.r2.mean()) < _LEAST_NOISE
        open_ = exact and not fit.summary.linear and self.agreement_ < _ALIKE
        return possible and open_ and long_enough(self) and curvature(fit.model) > _CURVED

    def _has_density(self, X: DataLike, y: LabelsLike) -> bool:
        """Whether hardly a value of a feature occurs twice: that of repeated values has no bound."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            x = self._prepare(X, y, self.fit_.seed).rows.x
        return all(len(column.unique()) >= _DISTINCT * len(column) for column in x.T)

    def _warned(self) -> Self:
        """Warn if the model is a linear one, or a training of sufficient length leaves signs of too few latents."""
        summary, found = self.fit_.summary, self.residual_dependence_
        if summary.linear and not summary.simplified:
            warn(f"The model is {LINEAR_MODEL}: {summary.why_linear}.")
            return self
        simplified = summary.simplified
        could = self._informative
        tried = "" if self.n_latents == "auto" else ', or n_latents="auto"'
        if not simplified and could and found.uneven is not None and found.noise_differs:
            warn(
                f"The noise of the feature {found.uneven[0]!r} differs between domains given {self.n_latents_} "
                "latents: too few latents, or a mixing or noise unlike the model's. Try "
                f"n_latents={self.n_latents_ + 1} or more{tried}."
            )
        elif simplified or (could and found.exceeds(STRONG)):
            first, second = found.features
            warn(
                f"The features {first!r} and {second!r} still depend on each other given {self.n_latents_} latents "
                f"(rank correlation of residuals {found.correlation:.2f}): too few latents, or a mixing or noise "
                f"unlike the model's. {f'The model is {LINEAR_MODEL}. ' if simplified else ''}Try "
                f"n_latents={self.n_latents_ + 1} or more{tried}."
            )
        return self

    @property
    def _informative(self) -> bool:
        """Whether residuals say something of the number of latents."""
        return self.n_latents_ < self.n_features_in_ and long_enough(self)

    def _kinds(self) -> KindWords:
        own = self._own_likelihood
        likelihood: Any = self.likelihood if own is None else own.reads
        return {"likelihood": likelihood, "size_factors": self.size_factors, "nuisance": self.nuisance}

    @property
    def _own_likelihood(self) -> Any:
        """The class of a likelihood of the user's own; None where it is one of unmix."""
        kind = self.likelihood.func if isinstance(self.likelihood, partial) else self.likelihood
        return kind if isinstance(kind, type) else None

    def _check_own(self, features: FeatureSchema, domains: DomainSchema) -> None:
        """Try decoder, likelihood and prior of the user's own."""
        n_latents, n_features = int(self.n_latents), len(features.names)
        if self.dispersion == "domain":
            self._check_dispersed(features)
        if self.decoder == "invertible" and (found := self._not_invertible(features)):
            raise SettingError(
                f'decoder="invertible" takes at least {LEAST_FEATURES} features, continuous, none missing and without '
                f'nuisance, kl_weight=1 and sparsity="auto" or 0; here: {", ".join(found)}. Use decoder="dense".'
            )
        if not isinstance(self.decoder, str):
            check_decoder(self.decoder, n_latents, n_features)
        if (own := self._own_likelihood) is not None:
            make: Any = self.likelihood
            check_likelihood(make, own.reads, n_features)
        if not isinstance(self.prior, str):
            check_prior(self.prior, n_latents, domains.n_design, domains.interactions)

    def _not_invertible(self, features: FeatureSchema) -> list[str]:
        """What an invertible network cannot take: its likelihood is that of complete continuous features."""
        own, continuous = self._own_likelihood, set(features.kinds or ("gaussian",)) == {"gaussian"}
        other = {
            "missing": "mask" if self.missing == "mask" else None,
            "nuisance": self.nuisance,
            "likelihood": (None if continuous else self.likelihood) if own is None else own.__name__,
            "kl_weight": None if self.kl_weight == 1 else self.kl_weight,
            "sparsity": None if self.sparsity in ("auto", 0) else self.sparsity,
        }
        few = [f"{len(features.names)} feature"] if len(features.names) < LEAST_FEATURES else []
        return [f"{name}={value!r}" for name, value in other.items() if value is not None] + few

    def _check_dispersed(self, features: FeatureSchema) -> None:
        if self._own_likelihood is not None or "negative_binomial" not in features.kinds:
            found = [*dict.fromkeys(features.kinds or ("gaussian",))] if self._own_likelihood is None else "your own"
            raise SettingError(
                'dispersion="domain" takes features with likelihood "negative_binomial", which alone has a dispersion; '
                f'the likelihood is {found}. Set likelihood="negative_binomial", or leave dispersion out.'
            )

    def _network(self, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        self._check_own(features, domains)
        likelihood: Any = None if self._own_likelihood is None else self.likelihood
        kind = InvertibleNetwork if self.decoder == "invertible" else CGVAENetwork
        network = kind(
            CGVAEConfig(
                n_latents=int(self.n_latents),
                n_features=len(features.names),
                n_design=domains.n_design,
                interactions=domains.interactions,
                masked=self.missing == "mask",
                hidden=tuple(int(width) for width in self.hidden),
                decoder="dense" if self.decoder == "auto" else self.decoder,
                prior="gaussian" if self.prior == "auto" else self.prior,
                sparsity=0.5 if self.sparsity == "auto" else float(self.sparsity),
                by_evidence=self.sparsity == "auto",
                penalty=self.penalty,
                kl_weight=float(self.kl_weight),
                n_starts=n_starts,
                spare=int(self.n_spare),
                seed=seed,
                shapes=not self.on_codes,
                kinds=features.kinds or ("gaussian",),
                likelihood=likelihood,
                levels=(*domains.sizes, *(1,) * domains.n_continuous) if self.dispersion == "domain" else (),
            )
        )
        if features.kinds:
            network.likelihood.learn_inputs(torch.tensor(features.center), torch.tensor(features.scale))
        return network

    def _network_for(self, data: Prepared, seed: int) -> LatentModel:
        probe = probed(unfitted(self, decoder="dense") if self.decoder == "invertible" else self, data)
        enough = int(self.n_latents) == len(data.features.names)
        if probe is None:
            return super()._network_for(data, seed)
        own, continuous = self, set(data.features.kinds or ("gaussian",)) == {"gaussian"} and not self._own_likelihood
        if self.prior == "auto" and continuous and probe.tails > HEAVY and not self.on_codes:
            own = unfitted(self, prior="student")
            say(self.verbose, f"heavy tails ({probe.tails:.2f} nats per row and latent): the prior is Student's t")
        network: Any = super(CGVAE, own)._network_for(data, seed)
        network.compare_with_linear(must_repeat=not self.on_codes)
        if probe.independent:
            network.release_noise()
        elif network.can_be_linear and not enough and falls_short(self, data, probe):
            network.doubt_number()
        return network

    def _trained_further(
        self, data: Prepared, network: LatentModel, result: TrainingResult, train: Rows, held_out: Rows, fit: Further
    ) -> TrainingResult:
        n_rows, seed = len(data.rows), network.config.seed
        possible = self.on_codes and len(data.held_out) and long_training(self, n_rows, self.planned_epochs(n_rows))
        if not possible or result.stopped or not isinstance(network, CGVAENetwork):
            return result

        def trained(other: LatentModel) -> TrainingResult:
            say(self.verbose, "starts find different latents: training them further, from what the domains tell")
            return fit(other)

        groups = data.groups[data.train]
        return train_further(network, result, train, held_out, groups, seed, trained, splines=self.prior == "auto")

    def _training_settings(self, n_samples: int, seed: int, has_held_out: bool) -> TrainingSettings:
        settings = super()._training_settings(n_samples, seed, has_held_out)
        settings = replace(settings, penalty_rows=int(self.penalty_rows), penalty_every=int(self.penalty_every))
        if self.decoder != "invertible":
            return settings
        factor = 1 if self.max_epochs is not None else min(_PASSES, max(1, _MOST_EPOCHS // settings.max_epochs))
        return replace(
            settings,
            max_epochs=factor * settings.max_epochs,
            patience=settings.patience and factor * settings.patience,
            batch_size=_BATCH * settings.batch_size,
        )
