"""Published baselines that ignore the domains, with the interface of ``unmix.CGVAE``.

Parameters that are not explained at a class are those of ``unmix.CGVAE``, with the same meaning and, unless stated, the
same default; by default ``max_epochs`` corresponds to 350 steps per latent and at least 2,800. All have diagonal
posteriors, a dense decoder (``SparseVAE``: a masked one) and these two parameters:

activation : {"silu", "leaky_relu"}
    Between the layers; the leaky one has slope 0.1.
noise_std : float or None
    Standard deviation of the observation noise, in standard deviations of each feature; None: learnt, one a feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unmix.data.domains import DomainSchema
from unmix.data.schema import FeatureSchema
from unmix.errors import SettingError
from unmix.estimators.base import LatentEstimator
from unmix.estimators.settings import OF_VAE, vae_words
from unmix.models.base import LatentModel
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
from unmix.validation import AT_LEAST_ZERO, POSITIVE, WIDTHS, Check

_INDEPENDENT = "the factors are independent of each other"


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
    >>> from unmix.baselines import BetaVAE
    >>> from unmix import datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=600)
    >>> BetaVAE(n_latents=2, n_restarts=2, max_epochs=2, verbose=0).fit_transform(data.x).shape
    (600, 2)
    """

    uses_domains: ClassVar[bool] = False
    checks: ClassVar[Mapping[str, Check]] = {**OF_VAE, "kl_weight": AT_LEAST_ZERO}
    assumption: ClassVar[str] = _INDEPENDENT

    activation: str = "silu"
    noise_std: float | None = None
    kl_weight: float = 4.0

    def _network(self, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        words = vae_words(self, features, domains, seed, n_starts)
        return BetaVAENetwork(BetaVAEConfig(**words, kl_weight=float(self.kl_weight)))


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
    >>> from unmix.baselines import BetaTCVAE
    >>> from unmix import datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=600)
    >>> BetaTCVAE(n_latents=2, n_restarts=2, max_epochs=2, verbose=0).fit_transform(data.x).shape
    (600, 2)
    """

    uses_domains: ClassVar[bool] = False
    checks: ClassVar[Mapping[str, Check]] = {**OF_VAE, "tc_weight": AT_LEAST_ZERO}
    assumption: ClassVar[str] = _INDEPENDENT

    activation: str = "silu"
    noise_std: float | None = None
    tc_weight: float = 6.0

    def _network(self, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        words = vae_words(self, features, domains, seed, n_starts)
        return TCVAENetwork(TCVAEConfig(**words, groups=(1,) * int(self.n_latents), between=float(self.tc_weight)))


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
    >>> from unmix.baselines import HFVAE
    >>> from unmix import datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=600)
    >>> model = HFVAE(n_latents=3, group_sizes=(2, 1), n_restarts=2, max_epochs=2, verbose=0).fit(data.x)
    >>> [len(group) for group in model.groups_]
    [2, 1]
    """

    uses_domains: ClassVar[bool] = False
    checks: ClassVar[Mapping[str, Check]] = {
        **OF_VAE,
        "mi_weight": AT_LEAST_ZERO,
        "tc_weight": AT_LEAST_ZERO,
        "within_weight": AT_LEAST_ZERO,
    }
    assumption: ClassVar[str] = "groups of factors are independent of each other"

    activation: str = "silu"
    noise_std: float | None = None
    group_sizes: Sequence[int] = (2, 2)
    mi_weight: float = 1.0
    tc_weight: float = 6.0
    within_weight: float = 1.0

    @property
    def groups_(self) -> tuple[NDArray[np.int64], ...]:
        config: Any = self.model_.inner.config
        sizes = config.groups
        group_of = np.repeat(np.arange(len(sizes)), sizes)[self.model_.order.cpu().numpy()]
        return tuple(np.flatnonzero(group_of == group) for group in range(len(sizes)))

    def _network(self, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        weights: dict[str, Any] = {
            "mi_weight": float(self.mi_weight),
            "between": float(self.tc_weight),
            "within": float(self.within_weight),
        }
        groups = tuple(int(size) for size in self.group_sizes)
        return TCVAENetwork(TCVAEConfig(**vae_words(self, features, domains, seed, n_starts), groups=groups, **weights))

    def _check_settings(self) -> None:
        if not WIDTHS.holds(self.group_sizes) or sum(self.group_sizes) != self.n_latents:
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
    >>> from unmix.baselines import FactorVAE
    >>> from unmix import datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=600)
    >>> FactorVAE(n_latents=2, n_restarts=2, max_epochs=2, verbose=0).fit_transform(data.x).shape
    (600, 2)
    """

    uses_domains: ClassVar[bool] = False
    checks: ClassVar[Mapping[str, Check]] = {
        **OF_VAE,
        "tc_weight": AT_LEAST_ZERO,
        "discriminator": WIDTHS.or_else((), "()"),
    }
    assumption: ClassVar[str] = _INDEPENDENT

    activation: str = "silu"
    noise_std: float | None = None
    tc_weight: float = 10.0
    discriminator: Sequence[int] = (64, 64)

    def _network(self, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        words = vae_words(self, features, domains, seed, n_starts)
        widths = tuple(int(width) for width in self.discriminator)
        return FactorVAENetwork(FactorVAEConfig(**words, tc_weight=float(self.tc_weight), discriminator=widths))


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
    >>> from unmix.baselines import SparseVAE
    >>> from unmix import datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=600)
    >>> SparseVAE(n_latents=2, n_restarts=2, max_epochs=2, verbose=0).fit_transform(data.x).shape
    (600, 2)
    """

    uses_domains: ClassVar[bool] = False
    checks: ClassVar[Mapping[str, Check]] = {**OF_VAE, "spike": POSITIVE, "slab": POSITIVE}
    assumption: ClassVar[str] = "each feature depends on few of the factors"

    activation: str = "silu"
    noise_std: float | None = None
    spike: float = 10.0
    slab: float = 1.0

    def _network(self, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        rates: dict[str, Any] = {
            "spike": float(self.spike),
            "slab": float(self.slab),
            "batch_size": int(self.batch_size),
        }
        return SparseVAENetwork(SparseVAEConfig(**vae_words(self, features, domains, seed, n_starts), **rates))

    def _check_settings(self) -> None:
        if self.spike <= self.slab:
            raise SettingError(f"spike must be above slab; got {self.spike!r} and {self.slab!r}.")
