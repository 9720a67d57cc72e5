r"""CG-VAE of an invertible mixing without noise: the likelihood itself instead of a bound.

With as many latents as features, and no noise, :math:`x = g(z)` has the density

.. math:: \log p(x \mid u) = \sum_i \log p(f_i(x) \mid u) + \log \left| \det \frac{\partial f}{\partial x} \right|,
          \qquad f = g^{-1},

which an invertible network (``nets/flow.py``) gives exactly. A variational autoencoder comes near such data only as its
noise falls, and its networks have to fit ever more closely. Of fewer latents than features, the other outputs of f are
noise, the same in every domain (Sorrenson, Rother, Köthe 2020, arXiv:2001.04872).

The features have noise of 0.003 standard deviations added, in every step anew: without it the density of
values that occur more than once has no bound. The posterior is what this noise makes of the latents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from unmix.data.batches import Rows
from unmix.distributions.likelihood import Gaussian
from unmix.models.cgvae import FINAL, CGVAEConfig, CGVAENetwork
from unmix.models.rotation import fit_priors, rotate_latents
from unmix.nets.flow import InverseDecoder, InvertibleEncoder
from unmix.nets.layers import generators, normal_parameter

LEAST_FEATURES = 2
_NOISE = 0.003
_NETWORK_RATE = 0.5
_START_SEED = 0


class InvertibleNetwork(CGVAENetwork):
    """Invertible encoder and prior p(z | u), for ``config.n_starts`` starts at once.

    The first start begins at principal components rotated to fit the domains, the others at principal components
    rotated at random. There is no penalty on the mixing, no spare latents, no floor under the noise and no rotation
    later on. The networks of the couplings have half of the widths of ``config.hidden``.
    """

    penalties: ClassVar[tuple[str, ...]] = ()

    shrinks: ClassVar[bool] = False

    def __init__(self, config: CGVAEConfig) -> None:
        super().__init__(replace(config, spare=0, sparsity=0.0, by_evidence=False, schedules=(FINAL,), turned=()))
        self.rest = normal_parameter(
            generators(config.seed, config.n_starts), (1, config.n_features - config.n_latents), 0.0
        )

    def _networks(self, sources: Any, n_latents: int, config: Any) -> tuple[Any, Any]:
        hidden = [max(1, width // 2) for width in config.hidden]
        encoder = InvertibleEncoder(sources, config.n_features, hidden, n_latents, _NOISE)
        return encoder, InverseDecoder(encoder)

    def _likelihood(self, config: Any) -> Gaussian:
        whole = config.n_latents == config.n_features
        return Gaussian(config.n_starts, config.n_features, _NOISE, learnt=False, refits=not whole)

    @property
    def flow(self) -> InvertibleEncoder:
        own: Any = self.encoder
        return own

    @property
    def n_noise(self) -> int:
        return int(self.config.n_features)

    def rates(self) -> Mapping[str, float]:
        return {name: _NETWORK_RATE for name, _ in self.named_parameters() if name.startswith("encoder.")}

    @property
    def most_patience(self) -> float:
        return math.inf

    @property
    def chosen(self) -> Mapping[str, object]:
        return {**super().chosen, "decoder": "invertible"}

    @torch.no_grad()
    def begin(self, train: Rows, some: Rows) -> bool:
        if self._kind(0) == "fitted":
            return True
        x = train.x.cpu().double()
        values, vectors = torch.linalg.eigh(x.T @ x / len(x))
        order = values.argsort(descending=True)
        components = (vectors / (values.clamp_min(0.0) + _NOISE**2).sqrt())[:, order]
        n = self.n_latents
        for start in range(self.n_starts):
            turn = torch.eye(len(components), dtype=components.dtype)
            if start > 0:
                source = torch.Generator().manual_seed(self.config.seed * 1_000 + start)
                turn[:n, :n] = torch.linalg.qr(torch.randn(n, n, generator=source, dtype=turn.dtype))[0]
            self.flow.begin(start, components, turn)
        fit_priors(self, some)
        rotate_latents(self, some, self.alive[:, 0], 0.0, _START_SEED, linear=[0])
        return True

    def seedless(self, start: int) -> bool:
        return False

    def terms(self, rows: Rows, noise: Tensor, n_train: int, penalty_rows: int, progress: float) -> dict[str, Tensor]:
        x = rows.x + _NOISE * noise
        density = self._density(x, rows.design)
        return {"density": -density.mean(1), "shrinkage": self.domain_prior.shrinkage() / n_train}

    def log_density(self, rows: Rows) -> Tensor:
        return self._density(rows.x, rows.design)

    def _density(self, x: Tensor, design: Tensor) -> Tensor:
        """log p(x | u) (starts, batch)."""
        outputs, log_det = self.flow.outputs(x)
        z, rest = outputs[..., : self.n_latents], outputs[..., self.n_latents :]
        beside = 0.5 * ((rest * (-self.rest).exp()).square() + math.log(2.0 * math.pi)) + self.rest
        return self.prior(design).log_prob(z).sum(-1) + log_det - beside.sum(-1)

    def weights(self, progress: float) -> Mapping[str, float | Tensor]:
        return {"density": 1.0, "shrinkage": 1.0}
