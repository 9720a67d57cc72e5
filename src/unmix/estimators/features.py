"""Image features with a name, for ``metrics.fid``, ``kid`` and ``dipd``, and classifiers that judge translations."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from unmix.errors import DataError, SchemaError, SettingError, StorageError
from unmix.estimators.prepare import as_images
from unmix.models.features import FeatureNetwork, extract, fingerprint
from unmix.train.checkpoint import read_state, write_state
from unmix.train.classify import fit_classifier


@dataclass(eq=False, repr=False)
class ImageClassifier(ClassifierMixin, BaseEstimator):
    """A small convolutional classifier: judge of translated images, and feature extractor with a name.

    Parameters
    ----------
    width : int, default 32
        Channels after the first of three halvings; there are ``2 * width`` features.
    max_epochs : int, default 20
    batch_size : int, default 64
    learning_rate : float, default 0.002
        Adam, falling along a cosine.
    instance_norm : bool, default False
        Normalise the maps of the first two layers image by image, which takes out much of colour and contrast: for the
        features of ``metrics.dipd``.
    random_state : int, default 0

    Attributes
    ----------
    classes_ : array, the labels
    name_ : str
        Such as ``"cnn-32-of-4-classes-1f0c9a2b"``; the last part is a hash of the parameters.

    Examples
    --------
    >>> from unmix import ImageClassifier, datasets, metrics
    >>> data = datasets.load_digits_two_colours(8)
    >>> judge = ImageClassifier(width=8, max_epochs=6, batch_size=32).fit(data.images, data.domains)
    >>> judge.score(data.images, data.domains) > 0.9
    True
    >>> features = judge.features(data.images)
    >>> score = metrics.fid(features[:900], features[900:], extractor=judge.name_)
    """

    _: KW_ONLY
    width: int = 32
    max_epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 2e-3
    instance_norm: bool = False
    random_state: int = 0

    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Learn labels ``y`` (n_images,) of images ``X``, in any form that ``read_images`` knows or that it returns.

        Without ``y``: the domains that ``X`` brings along, as text.

        Raises
        ------
        DataError
            The labels do not fit the images, or there is one class only.
        """
        table, y = as_images(X, y)
        images, labels = table.images, np.asarray(y)
        if labels.shape != (len(images),):
            came = "none" if y is None else f"shape {labels.shape}"
            raise DataError(f"Expected one label for each of {len(images)} images; got {came}. Pass them as y.")
        classes, codes = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise DataError(f"A classifier needs two classes or more; all labels are {classes[0]!r}.")
        for name in ("width", "max_epochs", "batch_size"):
            if not getattr(self, name) >= 1:
                raise SettingError(f"{name} must be a whole number ≥ 1; got {getattr(self, name)!r}.")
        network = FeatureNetwork(images.shape[3], len(classes), self.width, self.random_state, self.instance_norm)
        fit_classifier(
            network,
            images,
            codes,
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.random_state,
        )
        self.network_, self.classes_ = network, classes
        kind = "-instance-norm" if self.instance_norm else ""
        self.name_ = f"cnn-{self.width}{kind}-of-{len(classes)}-classes-{fingerprint(network)}"
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable label of every image."""
        labels: NDArray[Any] = self.classes_[extract(self.network_, self._images(X)).argmax(axis=1)]
        return labels

    def features(self, X: Any) -> NDArray[np.float64]:
        """Last hidden layer (n_images, 2 · width)."""
        images = self._images(X)
        return extract(_Features(self.network_), images)

    def save(self, path: str | Path) -> Path:
        """Write one .safetensors file, from which ``ImageClassifier.load`` reads the same extractor."""
        check_is_fitted(self)
        header = {"settings": self.get_params(), "classes": self.classes_.tolist(), "name": self.name_}
        channels = self.network_.convolutions[0].in_channels
        write_state(Path(path), self.network_.state_dict(), {**header, "channels": channels})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> ImageClassifier:
        """Read what ``save`` wrote; StorageError where that is something else or the parameters do not fit the name."""
        tensors, header = read_state(Path(path))
        try:
            judge = cls(**header["settings"])
            judge.network_ = FeatureNetwork(
                header["channels"], len(header["classes"]), judge.width, instance_norm=judge.instance_norm
            )
            judge.network_.load_state_dict(tensors)
            judge.classes_, judge.name_ = np.array(header["classes"]), str(header["name"])
        except (ValueError, TypeError, LookupError, RuntimeError) as error:
            raise StorageError(
                f"{path} holds no ImageClassifier, or a damaged one: {type(error).__name__}: {error}. "
                "Pass a file that ImageClassifier.save wrote."
            ) from error
        if not judge.name_.endswith(found := fingerprint(judge.network_)):
            raise StorageError(
                f"{path} is damaged: its classifier is {judge.name_}, its parameters have the hash {found}. "
                "Fit and save it again."
            )
        return judge

    def _images(self, X: Any) -> NDArray[np.uint8]:
        check_is_fitted(self)
        images = as_images(X)[0].images
        channels = self.network_.convolutions[0].in_channels
        if images.shape[3] != channels:
            raise SchemaError(f"The classifier was fitted on {channels} channels; got {images.shape[3]}.")
        return images


class _Features(nn.Module):
    def __init__(self, network: FeatureNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network.features(x)


def image_features(extractor: ImageClassifier | nn.Module, images: Any) -> tuple[NDArray[np.float64], str]:
    """Features (n_images, n_features) and the name of what made them, as ``metrics.fid`` and the others take them.

    ``extractor`` is a fitted ``ImageClassifier``, or any module from images (batch, channels, height, width) in
    0 … 1 to features; its name is its class and a hash of its parameters.
    """
    if isinstance(extractor, ImageClassifier):
        return extractor.features(images), extractor.name_
    return extract(extractor, as_images(images)[0].images), f"{type(extractor).__name__}-{fingerprint(extractor)}"


def untrained_features(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], str]:
    """As ``image_features``, of a network that was never trained: it favours no label, and is always the same."""
    network = FeatureNetwork(images.shape[3], n_classes=2)
    return extract(_Features(network), images), f"cnn-32-untrained-{fingerprint(network)}"
