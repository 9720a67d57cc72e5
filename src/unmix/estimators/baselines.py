"""Published models beside CG-VAE, each an estimator with the same face.

``IVAE`` and ``IMSDA`` use the domains; the others ignore them. The constructor words that are not explained at a class
are those of ``unmix.CGVAE``, with the same meaning and, unless stated, the same default. All have diagonal posteriors,
a dense decoder (``SparseVAE``: a masked one) and these two words:

activation : {"silu", "leaky_relu"}
    Between the layers; the leaky one has slope 0.1.
noise_std : float or None
    Standard deviation of the observation noise, in standard deviations of each feature; None: learnt, one a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from unmix.data.domains import DomainSchema
from unmix.data.schema import FeatureSchema
from unmix.errors import SettingError
from unmix.estimators.base import LatentEstimator
from unmix.estimators.prepare import separate
from unmix.models.base import LatentModel
from unmix.models.imsda import IMSDAConfig, IMSDANetwork
from unmix.models.ivae import PRIOR_MEANS, IVAEConfig, IVAENetwork
from unmix.models.vaes import (
    BetaVAEConfig,
    BetaVAENetwork,
    FactorVAEConfig,
    FactorVAENetwork,
    SparseVAEConfig,
    SparseVAENetwork,
    TCVAEConfig,
    TCVAENetwork,
)
from unmix.nets.layers import ACTIVATIONS

Words = dict[str, Any]
_INDEPENDENT = "the factors are independent of each other"


@dataclass(eq=False, repr=False)
class IVAE(LatentEstimator):
    r"""Identifiable VAE: encoder q(z | x, u), prior p(z | u), no sparsity.

    .. math:: \min\; -E_q \log p(x \mid z) + \mathrm{KL}(q(z \mid x, u) \| p(z \mid u))

    Khemakhem, Kingma, Monti, Hyvärinen: Variational Autoencoders and Nonlinear ICA, AISTATS 2020, arXiv:1907.04809.
    The defaults are those of the published code: networks of three layers, 50 wide, with leaky ReLU; a prior with mean
    0 whose variances a network computes from u; noise fixed at 0.1; batches of 64, Adam at 0.01. The learning rate
    follows this package's warm-up and cosine instead of falling on plateaus, and features are standardised.

    The encoder needs u: pass the domains to ``transform(X, y)`` too. Without domains at ``fit`` it is a VAE.

    Parameters
    ----------
    prior_mean : {"zero", "learned"}, default "zero"
        Whether u changes the variances of the latents alone, or their means as well. Where domains differ in their
        means, "zero" cannot fit them.
    hidden : default (50, 50)
    activation : default "leaky_relu"
    noise_std : default 0.1
    batch_size : default 64

    Examples
    --------
    >>> from unmix import IVAE, datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=600)
    >>> model = IVAE(n_latents=2, n_restarts=2, max_epochs=2, verbose=0).fit(data.x, data.domains)
    >>> model.transform(data.x, data.domains).shape
    (600, 2)
    """

    hidden: Sequence[int] = (50, 50)
    batch_size: int = 64
    activation: str = "leaky_relu"
    noise_std: float | None = 0.1
    prior_mean: str = "zero"

    def transform(self, X: Any, y: Any = None) -> NDArray[Any]:
        """Means of q(z | x, u), (n_samples, n_latents).

        Parameters
        ----------
        X, y : rows and their domains, as in ``fit``

        Raises
        ------
        DomainError
            The model was fitted with domains and ``y`` is missing.
        """
        check_is_fitted(self)
        table, y = separate(X, y)
        return self._encode(table, self._new_rows(table, y, with_domain=True))

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> NDArray[Any]:
        """``fit(X, y)``, then ``transform(X, y)``."""
        return self.fit(X, y, **fit_params).transform(X, y)

    def _network(self, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        words = _words(self, features, domains, seed, n_starts)
        return IVAENetwork(IVAEConfig(**words, prior_mean=self.prior_mean))

    def _check_settings(self) -> None:
        _check(self)
        self._need_one_of("prior_mean", PRIOR_MEANS)


@dataclass(eq=False, repr=False)
class IMSDA(LatentEstimator):
    r"""Content latents that no domain changes and style latents that every domain bends.

    .. math:: \min\; -E_q \log p(x \mid z) + \beta\,[E_q \log q(z \mid x) - E_q \log p(z_c) - E_q \log p(z_s \mid u)]

    Kong et al.: Partial Identifiability for Domain Adaptation, ICML 2022. Content has the prior N(0, I) in all
    domains; a monotone map of each style latent by itself, which depends on the domain, leads to N(0, I). The paper's
    classifier is left out: no labels of rows are used.

    Parameters
    ----------
    n_style : int, default 2
        How many of the latents are style, 1 to ``n_latents``.
    kl_weight : float, default 1.0
        β.

    Attributes
    ----------
    content_, style_ : int array
        Which latents, columns of ``transform(X)``, are content and which are style.

    Examples
    --------
    >>> from unmix import IMSDA, datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=600)
    >>> model = IMSDA(n_latents=2, n_style=1, n_restarts=2, max_epochs=2, verbose=0).fit(data.x, data.domains)
    >>> len(model.content_), len(model.style_)
    (1, 1)
    """

    assumption: ClassVar[str] = "some of the factors change between domains and the others do not"

    activation: str = "silu"
    noise_std: float | None = None
    n_style: int = 2
    kl_weight: float = 1.0

    @property
    def content_(self) -> NDArray[np.int64]:
        return np.flatnonzero(self._order() < self.n_latents_ - self.n_style)

    @property
    def style_(self) -> NDArray[np.int64]:
        return np.flatnonzero(self._order() >= self.n_latents_ - self.n_style)

    def _order(self) -> NDArray[np.int64]:
        """Index inside the network of each latent."""
        return self.model_.order.cpu().numpy()

    def _network(self, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        words = _words(self, features, domains, seed, n_starts)
        return IMSDANetwork(IMSDAConfig(**words, n_style=int(self.n_style), kl_weight=float(self.kl_weight)))

    def _check_settings(self) -> None:
        _check(self)
        self._need_at_least_zero("kl_weight")
        if not 1 <= self.n_style <= self.n_latents:
            raise SettingError(
                f"n_style must be from 1 to n_latents = {self.n_latents}; got {self.n_style!r}. For no style at all "
                "use BetaVAE(kl_weight=1)."
            )


@dataclass(eq=False, repr=False)
class BetaVAE(LatentEstimator):
    r"""β-VAE: :math:`-E_q \log p(x \mid z) + \beta\,\mathrm{KL}(q(z \mid x) \| N(0, I))`; domains are ignored.

    Higgins et al.: beta-VAE, Learning Basic Visual Concepts with a Constrained Variational Framework, ICLR 2017.

    Parameters
    ----------
    kl_weight : float, default 4.0
        β; 1 is the VAE.

    Examples
    --------
    >>> from unmix import BetaVAE, datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=600)
    >>> BetaVAE(n_latents=2, n_restarts=2, max_epochs=2, verbose=0).fit_transform(data.x).shape
    (600, 2)
    """

    uses_domains: ClassVar[bool] = False
    assumption: ClassVar[str] = _INDEPENDENT

    activation: str = "silu"
    noise_std: float | None = None
    kl_weight: float = 4.0

    def _network(self, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        words = _words(self, features, domains, seed, n_starts)
        return BetaVAENetwork(BetaVAEConfig(**words, kl_weight=float(self.kl_weight)))

    def _check_settings(self) -> None:
        _check(self)
        self._need_at_least_zero("kl_weight")


@dataclass(eq=False, repr=False)
class BetaTCVAE(LatentEstimator):
    r"""β-TCVAE: the total correlation of the latents weighs β; domains are ignored.

    .. math:: \min\; -E_q \log p(x \mid z) + I_q(x; z) + \beta\,\mathrm{KL}\Big(q(z) \Big\| \prod_i q(z_i)\Big)
              + \sum_i \mathrm{KL}(q(z_i) \| N(0, 1))

    Chen, Li, Grosse, Duvenaud: Isolating Sources of Disentanglement in VAEs, NeurIPS 2018, arXiv:1802.04942. q(z) is
    estimated by stratified sampling in each batch.

    Parameters
    ----------
    tc_weight : float, default 6.0
        β; 1 is the VAE.

    Examples
    --------
    >>> from unmix import BetaTCVAE, datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=600)
    >>> BetaTCVAE(n_latents=2, n_restarts=2, max_epochs=2, verbose=0).fit_transform(data.x).shape
    (600, 2)
    """

    uses_domains: ClassVar[bool] = False
    assumption: ClassVar[str] = _INDEPENDENT

    activation: str = "silu"
    noise_std: float | None = None
    tc_weight: float = 6.0

    def _network(self, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        words = _words(self, features, domains, seed, n_starts)
        return TCVAENetwork(TCVAEConfig(**words, groups=(1,) * int(self.n_latents), between=float(self.tc_weight)))

    def _check_settings(self) -> None:
        _check(self)
        self._need_at_least_zero("tc_weight")


@dataclass(eq=False, repr=False)
class HFVAE(LatentEstimator):
    r"""HFVAE: total correlation between groups of latents weighs β, that inside groups γ; domains are ignored.

    .. math:: \min\; -E_q \log p(x \mid z) + \alpha\, I_q(x; z) + \beta\,TC_{between} + \gamma\,TC_{within}
              + \sum_i \mathrm{KL}(q(z_i) \| N(0, 1))

    Esmaeili et al.: Structured Disentangled Representations, AISTATS 2019, arXiv:1804.02086. The densities are
    estimated as in ``BetaTCVAE``, which it equals with groups of one latent each.

    Parameters
    ----------
    group_sizes : sequence of int, default (2, 2)
        Sizes of the groups; they add up to ``n_latents``.
    mi_weight, tc_weight, within_weight : float, default 1.0, 6.0 and 1.0
        α, β and γ.

    Attributes
    ----------
    groups_ : tuple of int arrays
        Which latents, columns of ``transform(X)``, are in each group.

    Examples
    --------
    >>> from unmix import HFVAE, datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=600)
    >>> model = HFVAE(n_latents=3, group_sizes=(2, 1), n_restarts=2, max_epochs=2, verbose=0).fit(data.x)
    >>> [len(group) for group in model.groups_]
    [2, 1]
    """

    uses_domains: ClassVar[bool] = False
    assumption: ClassVar[str] = "groups of factors are independent of each other"

    activation: str = "silu"
    noise_std: float | None = None
    group_sizes: Sequence[int] = (2, 2)
    mi_weight: float = 1.0
    tc_weight: float = 6.0
    within_weight: float = 1.0

    @property
    def groups_(self) -> tuple[NDArray[np.int64], ...]:
        group_of = np.repeat(np.arange(len(self.group_sizes)), self.group_sizes)[self.model_.order.cpu().numpy()]
        return tuple(np.flatnonzero(group_of == group) for group in range(len(self.group_sizes)))

    def _network(self, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        weights: Words = {
            "mi_weight": float(self.mi_weight),
            "between": float(self.tc_weight),
            "within": float(self.within_weight),
        }
        groups = tuple(int(size) for size in self.group_sizes)
        return TCVAENetwork(TCVAEConfig(**_words(self, features, domains, seed, n_starts), groups=groups, **weights))

    def _check_settings(self) -> None:
        _check(self)
        self._need_at_least_zero("mi_weight", "tc_weight", "within_weight")
        if not len(self.group_sizes) or min(self.group_sizes) < 1 or sum(self.group_sizes) != self.n_latents:
            raise SettingError(
                f"group_sizes must be sizes ≥ 1 that add up to n_latents = {self.n_latents}; got {self.group_sizes!r}."
            )


@dataclass(eq=False, repr=False)
class FactorVAE(LatentEstimator):
    r"""FactorVAE: a classifier estimates the total correlation of the latents, which weighs γ; domains are ignored.

    .. math:: \min\; -E_q \log p(x \mid z) + \mathrm{KL}(q(z \mid x) \| N(0, I))
              + \gamma\,E_{q(z)}\Big[\log \frac{D(z)}{1 - D(z)}\Big]

    Kim & Mnih: Disentangling by Factorising, ICML 2018, arXiv:1802.05983. D tells codes from codes with each latent
    permuted over the batch; it shares the optimiser and the learning rate of the VAE. States of the training are
    compared from four fifths of it on, when D has learnt.

    Parameters
    ----------
    tc_weight : float, default 10.0
        γ.
    discriminator : sequence of int, default (64, 64)
        Widths of D, with leaky ReLU between the layers.

    Examples
    --------
    >>> from unmix import FactorVAE, datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=600)
    >>> FactorVAE(n_latents=2, n_restarts=2, max_epochs=2, verbose=0).fit_transform(data.x).shape
    (600, 2)
    """

    uses_domains: ClassVar[bool] = False
    assumption: ClassVar[str] = _INDEPENDENT

    activation: str = "silu"
    noise_std: float | None = None
    tc_weight: float = 10.0
    discriminator: Sequence[int] = (64, 64)

    def _network(self, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        words = _words(self, features, domains, seed, n_starts)
        widths = tuple(int(width) for width in self.discriminator)
        return FactorVAENetwork(FactorVAEConfig(**words, tc_weight=float(self.tc_weight), discriminator=widths))

    def _check_settings(self) -> None:
        _check(self)
        self._need_at_least_zero("tc_weight")
        if len(self.discriminator) and min(self.discriminator) < 1:
            raise SettingError(f"discriminator must be widths ≥ 1, such as (64, 64); got {self.discriminator!r}.")


@dataclass(eq=False, repr=False)
class SparseVAE(LatentEstimator):
    r"""Sparse VAE: each feature sees the latents through weights of its own, which are sparse; domains are ignored.

    .. math:: \hat x_k = f(m_k \odot z)_k, \qquad
              p(m_{ki}) = \eta_i\, \mathrm{Laplace}(\lambda_1) + (1 - \eta_i)\, \mathrm{Laplace}(\lambda_0)

    Moran, Sridhar, Wang, Blei: Identifiable Deep Generative Models via Sparse Decoding, TMLR 2022, arXiv:2110.10804.
    Weights and η maximise the posterior, with the choice of spike or slab summed out instead of EM. As in the published
    code the penalty counts once a batch, which is stronger than once for all rows; here it rises over the first half of
    the training, and the weights start a little above the size at which spike and slab are equally likely. Entries that
    more likely come from the spike end as exact zeros.

    Parameters
    ----------
    spike, slab : float, default 10.0 and 1.0
        λ0 and λ1, with λ0 > λ1.

    Examples
    --------
    >>> from unmix import SparseVAE, datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=600)
    >>> SparseVAE(n_latents=2, n_restarts=2, max_epochs=2, verbose=0).fit_transform(data.x).shape
    (600, 2)
    """

    uses_domains: ClassVar[bool] = False
    assumption: ClassVar[str] = "each feature depends on few of the factors"

    activation: str = "silu"
    noise_std: float | None = None
    spike: float = 10.0
    slab: float = 1.0

    def _network(self, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        rates: Words = {"spike": float(self.spike), "slab": float(self.slab), "batch_size": int(self.batch_size)}
        return SparseVAENetwork(SparseVAEConfig(**_words(self, features, domains, seed, n_starts), **rates))

    def _check_settings(self) -> None:
        _check(self)
        if not self.spike > self.slab > 0:
            raise SettingError(
                f"spike and slab must be rates with spike > slab > 0; got {self.spike!r}, {self.slab!r}."
            )


def _words(estimator: Any, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> Words:
    """Fields of ``VAEConfig``."""
    return {
        "n_latents": int(estimator.n_latents),
        "n_features": len(features.names),
        "n_design": domains.n_design if estimator.uses_domains else 0,
        "interactions": len(domains.columns) > 1 or domains.n_continuous > 0,
        "masked": estimator.missing == "mask",
        "hidden": tuple(int(width) for width in estimator.hidden),
        "activation": estimator.activation,
        "noise_std": None if estimator.noise_std is None else float(estimator.noise_std),
        "n_starts": n_starts,
        "seed": seed,
    }


def _check(estimator: Any) -> None:
    """The two words that all baselines share."""
    estimator._need_one_of("activation", ACTIVATIONS)
    if estimator.noise_std is not None and not estimator.noise_std > 0:
        raise SettingError(f"noise_std must be None or > 0; got {estimator.noise_std!r}.")
