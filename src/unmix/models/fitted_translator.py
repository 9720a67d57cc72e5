"""A trained translator as it is kept: averaged networks, both transports, a prior of content to sample from.

``reader`` tells the domains of images apart; it is trained by itself and serves images whose domain is not known.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.nn import functional

from unmix.data.batches import Rows
from unmix.models.alignment import Alignment, as_padded
from unmix.models.cggan import MASK_THRESHOLD
from unmix.models.features import FeatureNetwork
from unmix.models.frame import Framed
from unmix.models.translator import Networks, TranslatorConfig, TranslatorNetwork
from unmix.models.transport import GaussianTransport
from unmix.nets.jacobian import jacobian_columns

_AT_ONCE = 2**22
_NOISES = 256
_MIXTURE, _MIXTURE_DIRECTIONS, _ROWS_A_PART = 64, 32, 40


class FittedTranslator(Framed):
    """Content in the common Gaussian, style as noise ε, and images of any domain from both.

    Images are uint8 (rows, height, width, channels), content (rows, n_content), the flattened map, domains their
    places (rows,).
    """

    weights: Tensor
    means: Tensor
    factors: Tensor
    directions: Tensor

    def __init__(self, config: TranslatorConfig, sizes: dict[str, tuple[int, ...]]) -> None:
        super().__init__(sizes["spread"][0])
        self.config = config
        self.networks = Networks(config).requires_grad_(False)
        self.reader = FeatureNetwork(config.shape[2], config.n_domains, seed=config.seed)
        n_colours = config.shape[2] if config.colours else 0
        self.align = Alignment(config.n_domains, *sizes["align"], keep_rest=config.keep_rest, n_colours=n_colours)
        self.spread = GaussianTransport(config.n_domains, *sizes["spread"])
        n_parts, n_directions = sizes["mixture"]
        self.register_buffer("weights", torch.full((n_parts,), 1.0 / n_parts))
        self.register_buffer("means", torch.zeros(n_parts, n_directions))
        self.register_buffer("factors", torch.eye(n_directions).repeat(n_parts, 1, 1))
        self.register_buffer("directions", torch.zeros(n_directions, sizes["spread"][0]))

    @classmethod
    def of(cls, network: TranslatorNetwork, rows: Rows) -> FittedTranslator:
        """The trained model, with the transport of content and its prior learnt from the training rows."""
        config, groups = network.config, rows.design.argmax(1)
        raw = torch.cat(
            [
                network.averaged.encode(network.align.common_of(as_padded(x, config.padded), own))[0].flatten(1)
                for x, own in zip(rows.x.split(256), groups.split(256), strict=True)
            ]
        ).detach()
        if config.colours:
            # Nothing is left to carry: to estimate it would add its error to every image.
            spread = GaussianTransport.plain(raw, config.n_domains, raw.shape[1])
        else:
            # Covariances differ by more than is to be carried where those of the images were not made equal.
            shrink = 1.0 if config.keep_rest else config.content_shrink
            spread = GaussianTransport.fit(raw, groups, config.n_domains, n_components=raw.shape[1], shrink=shrink)
        common = spread.common(raw, groups).cpu().numpy()
        mixture, directions = _mixture(common, config.seed)
        fitted = cls(
            config,
            {
                "align": tuple(network.align.basis.shape[::-1]),
                "spread": tuple(spread.basis.shape[::-1]),
                "mixture": mixture.means_.shape,
            },
        ).to(rows.x.device)
        fitted.networks.load_state_dict(network.averaged.state_dict())
        if config.mask_weight > 0 and config.flow is not None:
            fitted.networks.prior.mask.copy_((fitted.importance() >= MASK_THRESHOLD).float())
        fitted.align.load_state_dict(network.align.state_dict())
        fitted.spread.load_state_dict(spread.state_dict())
        found = {
            "weights": mixture.weights_,
            "means": mixture.means_,
            "factors": np.linalg.cholesky(mixture.covariances_),
            "directions": directions,
        }
        for name, value in found.items():
            getattr(fitted, name).copy_(torch.from_numpy(np.asarray(value)))
        return fitted

    @property
    def alignment(self) -> str:
        """What the transport acts on."""
        if self.config.colours:
            return "colours"
        return "unmatched pixels" if self.config.keep_rest else "pixels"

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """What ``__init__`` takes beside the configuration."""
        return {
            "align": tuple(self.align.basis.shape[::-1]),
            "spread": tuple(self.spread.basis.shape[::-1]),
            "mixture": tuple(self.means.shape),
            "linear": (self.config.linear,),
            "colours": (int(self.config.colours),),
            "keep_rest": (int(self.config.keep_rest),),
        }

    @torch.no_grad()
    def content(self, x: Tensor, groups: Tensor) -> Tensor:
        """Content in the common Gaussian (rows, n_content): no linear reader finds the domain if pixels are matched."""
        parts = []
        for own, places in self._parts(x, groups):
            mean, _ = self.networks.encode(self.align.common_of(as_padded(own, self.config.padded), places))
            parts.append(self.spread.common(mean.flatten(1), places))
        return torch.cat(parts)

    @torch.no_grad()
    def noise(self, x: Tensor) -> Tensor:
        """Noise ε of style (rows, n_style) of images: what their style has of its own within the domain."""
        return torch.cat([self.networks.style(as_padded(own, self.config.padded))[0] for (own,) in self._parts(x)])

    @torch.no_grad()
    def decode(self, content: Tensor, noise: Tensor, groups: Tensor) -> Tensor:
        """Images (rows, channels, height, width), about -1 to 1, in the style f_u(ε) of ``noise`` ε (rows, n_style)."""
        height, width, _ = self.config.shape
        parts = []
        for own, noises, places in self._parts(content, noise, groups):
            maps = self.spread.back(own, places).unflatten(1, (self.config.n_content, *self.config.grid))
            images = self.networks.decode(maps, self.style_of(noises, places), self.design(places), self.align)
            parts.append(images[:, :, :height, :width])
        return torch.cat(parts)

    @torch.no_grad()
    def translate(self, x: Tensor, groups: Tensor, noise: Tensor, target: Tensor) -> Tensor:
        """Images ``x`` (uint8) of the domains ``groups`` as they would be in ``target``, in the style of ``noise`` ε.

        Where the rest of an image is kept, what content leaves of it is carried in closed form.
        """
        content = self.content(x, groups)
        made = self.decode(content, noise, target)
        if not self.align.keep_rest:
            return made
        drawn = self.decode(content, torch.zeros_like(noise), groups)
        height, width, _ = self.config.shape
        left = as_padded(x, (height, width)) - drawn
        left = functional.pad(left, (0, self.config.padded[1] - width, 0, self.config.padded[0] - height))
        return made + self.align.rest(left, groups, target)[:, :, :height, :width]

    @torch.no_grad()
    def style_of(self, noise: Tensor, groups: Tensor) -> Tensor:
        """z_s of ``noise`` ε (rows, n_style) in the domains ``groups``."""
        return self.networks.prior.from_noise(noise, self.design(groups))

    @torch.no_grad()
    def found(self, x: Tensor) -> Tensor:
        """The domain (rows,) that the reader finds in each image."""
        images = x.permute(0, 3, 1, 2).float() / 255
        return torch.cat([self.reader(own).argmax(1) for (own,) in self._parts(images)])

    @torch.no_grad()
    def importance(self) -> Tensor:
        """Share of the spread of each style latent (n_style,) that domains make, as a standard deviation."""
        config = self.config
        if self.networks.prior.flow is None:
            return torch.zeros(config.n_style)
        every = torch.arange(config.n_domains, device=self.means.device)
        noise = torch.randn(_NOISES, 1, config.n_style, generator=torch.Generator().manual_seed(0))
        z = torch.stack([self.style_of(own.to(self.means).expand(len(every), -1), every) for own in noise])
        share: Tensor = z.mean(0).std(0, correction=0) / z.flatten(0, 1).std(0, correction=0)
        return share

    @torch.no_grad()
    def mean_effects(self, x: Tensor, groups: Tensor) -> Tensor:
        """Mean over images of |∂x/∂ε| (n_style, channels, height, width), in grey levels, at ε = 0."""
        height, width, _ = self.config.shape
        maps = self.spread.back(self.content(x, groups), groups).unflatten(1, (-1, *self.config.grid))
        design, found = self.design(groups), []
        for column in torch.arange(self.config.n_style, device=x.device):
            slopes = jacobian_columns(
                lambda noise: self.networks.decode(
                    maps, self.networks.prior.from_noise(noise, design), design, self.align
                ),
                torch.zeros(len(x), self.config.n_style, device=x.device),
                column[None],
            )[0]
            found.append(127.5 * slopes[:, :, :height, :width].abs().mean(0))
        return torch.stack(found)

    def draw(self, n_rows: int, source: torch.Generator) -> Tensor:
        """Content (n_rows, n_content) from its prior."""
        part = torch.multinomial(self.weights.cpu(), n_rows, replacement=True, generator=source).to(self.means.device)
        noise = torch.randn(n_rows, self.means.shape[1], generator=source).to(self.means)
        drawn = self.means[part] + torch.bmm(self.factors[part], noise[:, :, None])[:, :, 0]
        return drawn @ self.directions

    def design(self, groups: Tensor) -> Tensor:
        return functional.one_hot(groups, self.config.n_domains).float()

    def _parts(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The rows, as many at once as memory easily holds."""
        step = max(1, _AT_ONCE // (self.config.padded[0] * self.config.padded[1] * self.config.channels))
        return zip(*(own.split(step) for own in tensors), strict=True)


def _mixture(common: NDArray[np.float64], seed: int) -> tuple[GaussianMixture, NDArray[np.float64]]:
    """A mixture of Gaussians on the leading directions of content (rows, n_content), and these directions."""
    n_directions = min(_MIXTURE_DIRECTIONS, common.shape[1], len(common) - 1)
    reduced = PCA(n_directions, random_state=seed).fit(common)
    scores = common @ reduced.components_.T
    n_parts = max(1, min(_MIXTURE, len(common) // _ROWS_A_PART))
    mixture = GaussianMixture(n_parts, reg_covar=1e-3, random_state=seed)
    with warnings.catch_warnings():
        # Not quite the best mixture is good enough to sample from.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(scores.astype(np.float64)), reduced.components_
