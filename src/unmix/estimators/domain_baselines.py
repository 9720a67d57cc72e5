"""Published baselines that use the domains, with the interface of ``unmix.CGVAE``.

The parameters are explained in ``unmix.estimators.baselines`` and at the classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from unmix.data.domains import DomainSchema
from unmix.data.schema import FeatureSchema
from unmix.errors import SettingError
from unmix.estimators.base import LatentEstimator
from unmix.estimators.prepare import separate, with_row_names
from unmix.estimators.settings import OF_VAE, vae_words
from unmix.forms import DataLike, LabelsLike
from unmix.models.base import LatentModel
from unmix.models.imsda import IMSDAConfig, IMSDANetwork
from unmix.models.ivae import PRIOR_MEANS, IVAEConfig, IVAENetwork
from unmix.validation import AT_LEAST_ZERO, Check, one_of, whole


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
    >>> from unmix.baselines import IVAE
    >>> from unmix import datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=600)
    >>> model = IVAE(n_latents=2, n_restarts=2, max_epochs=2, verbose=0).fit(data.x, data.domains)
    >>> model.transform(data.x, data.domains).shape
    (600, 2)
    """

    checks: ClassVar[Mapping[str, Check]] = {**OF_VAE, "prior_mean": one_of(PRIOR_MEANS)}

    reads_domains: ClassVar[bool] = True

    hidden: Sequence[int] = (50, 50)
    batch_size: int = 64
    activation: str = "leaky_relu"
    noise_std: float | None = 0.1
    prior_mean: str = "zero"

    def transform(self, X: DataLike, y: LabelsLike = None) -> NDArray[np.floating]:
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
        table, y = separate(X, y, self._layer())
        return with_row_names(self, self._encode(table, self._new_rows(table, y, with_domain=True)), table)

    def fit_transform(self, X: DataLike, y: LabelsLike = None, **fit_params: Any) -> NDArray[np.floating]:
        """``fit(X, y)``, then ``transform(X, y)``."""
        return self.fit(X, y, **fit_params).transform(X, y)

    def _network(self, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        words = vae_words(self, features, domains, seed, n_starts)
        return IVAENetwork(IVAEConfig(**words, prior_mean=self.prior_mean))


@dataclass(eq=False, repr=False)
class IMSDA(LatentEstimator):
    r"""Content latents that no domain changes and style latents that every domain changes.

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
    >>> from unmix.baselines import IMSDA
    >>> from unmix import datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=600)
    >>> model = IMSDA(n_latents=2, n_style=1, n_restarts=2, max_epochs=2, verbose=0).fit(data.x, data.domains)
    >>> len(model.content_), len(model.style_)
    (1, 1)
    """

    checks: ClassVar[Mapping[str, Check]] = {**OF_VAE, "n_style": whole(1), "kl_weight": AT_LEAST_ZERO}
    assumption: ClassVar[str] = "some of the factors change between domains and the others do not"

    activation: str = "silu"
    noise_std: float | None = None
    n_style: int = 2
    kl_weight: float = 1.0

    @property
    def content_(self) -> NDArray[np.int64]:
        return np.flatnonzero(~self._is_style())

    @property
    def style_(self) -> NDArray[np.int64]:
        return np.flatnonzero(self._is_style())

    def _is_style(self) -> NDArray[np.bool_]:
        config: Any = self.model_.inner.config
        return self.model_.order.cpu().numpy() >= self.n_latents_ - config.n_style

    def _network(self, features: FeatureSchema, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        words = vae_words(self, features, domains, seed, n_starts)
        return IMSDANetwork(IMSDAConfig(**words, n_style=int(self.n_style), kl_weight=float(self.kl_weight)))

    def _check_settings(self) -> None:
        if self.n_style > int(self.n_latents):
            raise SettingError(
                f"n_style must be a whole number from 1 to n_latents = {self.n_latents}; got {self.n_style!r}. "
                "For no style at all use BetaVAE(kl_weight=1)."
            )
