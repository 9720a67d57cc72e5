"""Translations without training, to compare with those of a model: each has ``fit``, ``domains_`` and ``translate``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from unmix.errors import DomainError
from unmix.forms import LabelsLike
from unmix.labels import label_text, label_texts, natural_order
from unmix.models.colours import ColourTransport
from unmix.models.matching import turn
from unmix.models.transport import GaussianTransport

Images = NDArray[np.uint8]
Floats = NDArray[np.float64]

_COMPONENTS = 60
_LEAST_SD = 1.0
_AT_ONCE = 256


class SimpleTranslator(ABC):
    """Images are uint8 (n, height, width, channels); ``domains`` are labels (n,)."""

    domains_: tuple[str, ...]
    shape: tuple[int, ...]

    def fit(self, images: Images, domains: LabelsLike) -> Self:
        labels = np.array(label_texts(domains, "domains", len(images), of="images"))
        self.domains_ = natural_order(labels.tolist())
        self.shape = images.shape[1:]
        places = np.array([self.domains_.index(label) for label in labels])
        self._learn(_flat(images), places)
        return self

    def translate(self, images: Images, domains: LabelsLike, *, to: LabelsLike) -> Images:
        labels = label_texts(domains, "domains", len(images), of="images")
        unknown = sorted({*labels, label_text(to)} - {*self.domains_})
        if unknown:
            raise DomainError(f"Labels {unknown[:5]} were not seen at fit. Known: {list(self.domains_)}.")
        source = np.array([self.domains_.index(label) for label in labels])
        moved = self._moved(_flat(images), source, self.domains_.index(label_text(to)))
        return np.rint(moved).clip(0, 255).astype(np.uint8).reshape(images.shape)

    @abstractmethod
    def _learn(self, x: Floats, places: NDArray[np.int64]) -> None:
        """From flattened images (n, pixels)."""

    @abstractmethod
    def _moved(self, x: Floats, source: NDArray[np.int64], target: int) -> Floats:
        """Flattened images of the domains ``source`` (n,) in one ``target``."""


class Copy(SimpleTranslator):
    """Nothing is done."""

    def _learn(self, x: Floats, places: NDArray[np.int64]) -> None:
        pass

    def _moved(self, x: Floats, source: NDArray[np.int64], target: int) -> Floats:
        return x


class MeanAndSpread(SimpleTranslator):
    """Mean and standard deviation of every pixel become those of the target."""

    def _learn(self, x: Floats, places: NDArray[np.int64]) -> None:
        groups = [x[places == place] for place in range(len(self.domains_))]
        self.means = np.stack([own.mean(axis=0) for own in groups])
        self.sds = np.stack([own.std(axis=0) for own in groups]) + _LEAST_SD

    def _moved(self, x: Floats, source: NDArray[np.int64], target: int) -> Floats:
        moved: Floats = (x - self.means[source]) / self.sds[source] * self.sds[target] + self.means[target]
        return moved


class Colours(SimpleTranslator):
    """One affine map of colours for each domain, turned so that images which are each other's nearest come together."""

    def _learn(self, x: Floats, places: NDArray[np.int64]) -> None:
        self.transport = ColourTransport.fit(self._images(x), torch.from_numpy(places), len(self.domains_))

    def _moved(self, x: Floats, source: NDArray[np.int64], target: int) -> Floats:
        common = self.transport.common(self._images(x), torch.from_numpy(source))
        made = self.transport.back(common, torch.full((len(x),), target))
        moved: Floats = made.permute(0, 2, 3, 1).flatten(1).double().numpy()
        return moved

    def _images(self, x: Floats) -> torch.Tensor:
        return torch.from_numpy(x).float().unflatten(1, self.shape).permute(0, 3, 1, 2)


class NearestInTarget(SimpleTranslator):
    """The training image of the target with the least squared difference."""

    def _learn(self, x: Floats, places: NDArray[np.int64]) -> None:
        self.known = [x[places == place] for place in range(len(self.domains_))]

    def _moved(self, x: Floats, source: NDArray[np.int64], target: int) -> Floats:
        known = self.known[target]
        sizes = np.square(known).sum(axis=1)
        nearest = [(sizes - 2 * own @ known.T).argmin(axis=1) for own in np.array_split(x, -(-len(x) // _AT_ONCE))]
        return known[np.concatenate(nearest)]


class PixelTransport(SimpleTranslator):
    """Gaussian optimal transport of the pixels, on 60 principal components, through the barycentre of the domains.

    Where ``matched``, it is turned so that images which are each other's nearest in two domains come together.
    """

    def __init__(self, matched: bool = False) -> None:
        self.matched = matched

    def _learn(self, x: Floats, places: NDArray[np.int64]) -> None:
        rows, groups = torch.from_numpy(x), torch.from_numpy(places)
        self.transport = GaussianTransport.fit(
            rows, groups, len(self.domains_), n_components=_COMPONENTS, keep_rest=False
        )
        if self.matched:
            turn(self.transport, [rows.float()], groups)

    def _moved(self, x: Floats, source: NDArray[np.int64], target: int) -> Floats:
        common = self.transport.common(torch.from_numpy(x).float(), torch.from_numpy(source))
        moved: Floats = self.transport.back(common, torch.full((len(x),), target)).double().numpy()
        return moved


SIMPLE: dict[str, Callable[[], SimpleTranslator]] = {
    "copy": Copy,
    "mean and spread": MeanAndSpread,
    "map of colours": Colours,
    "nearest in target": NearestInTarget,
    "Gaussian transport": PixelTransport,
    "matched transport": partial(PixelTransport, matched=True),
}


def _flat(images: Images) -> Floats:
    return images.reshape(len(images), -1).astype(np.float64)
