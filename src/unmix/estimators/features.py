"""Image features with a name, for ``metrics.fid``, ``kid`` and ``dipd``, and classifiers that judge translations."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted
from torch import nn

from unmix.errors import DataError, SchemaError, SettingError, StorageError
from unmix.estimators.atomic import atomic
from unmix.estimators.prepare import as_images
from unmix.files import as_path
from unmix.fits.words import plain_settings, restored
from unmix.forms import DataLike, LabelsLike
from unmix.labels import label_column, label_text
from unmix.models.features import FeatureNetwork, extract, fingerprint
from unmix.nets.state import in_own_state, methods_in_own_state
from unmix.train.checkpoint import read_state, write_state
from unmix.train.classify import fit_classifier
from unmix.train.threads import sensible_threads
from unmix.validation import FLAG, POSITIVE, RandomLike, need_all, random_seed, whole


@methods_in_own_state
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
    >>> from unmix.images import ImageClassifier
    >>> from unmix import datasets, metrics
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
    random_state: RandomLike = 0

    @atomic
    def fit(self, X: DataLike, y: ArrayLike | None = None) -> Self:
        """Learn labels ``y`` (n_images,) of images ``X``, in any form that ``read_images`` knows or that it returns.

        Without ``y``: the domains that come with ``X``, as text.

        Raises
        ------
        DataError
            The labels do not fit the images, some are missing, text and numbers are mixed, or there is one class only.
        SettingError
            A setting is impossible.
        """
        self._check_settings()
        table, own = as_images(X, y)
        images, labels = table.images, _labels(own, len(table))
        classes, codes = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise DataError(f"A classifier needs two classes or more; all labels are {classes[0]!r}.")
        seed = random_seed(self.random_state)
        words = plain_settings(self, seed)
        network = FeatureNetwork(images.shape[3], len(classes), int(self.width), seed, bool(self.instance_norm))
        with sensible_threads(images.shape[1:], int(self.batch_size)):
            fit_classifier(
                network,
                images,
                codes,
                max_epochs=int(self.max_epochs),
                batch_size=int(self.batch_size),
                learning_rate=float(self.learning_rate),
                seed=seed,
            )
        self.network_, self.classes_, self.fitted_params_ = network, classes, words
        kind = "-instance-norm" if self.instance_norm else ""
        self.name_ = f"cnn-{self.width}{kind}-of-{len(classes)}-classes-{fingerprint(network)}"
        return self

    def predict(self, X: DataLike) -> NDArray[np.generic]:
        """The most probable label of every image."""
        images = self._images(X)
        labels: NDArray[np.generic] = self.classes_[extract(self.network_, images).argmax(axis=1)]
        return labels

    def score(self, X: DataLike, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy on labels ``y`` (n_images,) or the domains that come with ``X``; 1 and "1" are one label."""
        check_is_fitted(self)
        table, own = as_images(X, y)
        true, read = ([label_text(label) for label in part] for part in (_labels(own, len(table)), self.predict(table)))
        return float(accuracy_score(true, read, sample_weight=sample_weight))

    def features(self, X: DataLike) -> NDArray[np.float64]:
        """Last hidden layer (n_images, 2 · width)."""
        images = self._images(X)
        return extract(_Features(self.network_), images)

    def save(self, path: str | Path) -> Path:
        """Write one .safetensors file, from which ``ImageClassifier.load`` reads the same extractor."""
        check_is_fitted(self)
        header = {"settings": self.fitted_params_, "classes": self.classes_.tolist(), "name": self.name_}
        channels = self.network_.convolutions[0].in_channels
        path = as_path(path)
        write_state(path, self.network_.state_dict(), {**header, "channels": channels})
        return path

    @classmethod
    def load(cls, path: str | Path) -> ImageClassifier:
        """Read what ``save`` wrote; StorageError where that is something else or the parameters do not fit the name."""
        tensors, header = read_state(as_path(path), "Fit and save the classifier again.")
        try:
            judge = restored(cls, dict(header["settings"]), cls._check_settings, path)
            judge.fitted_params_ = plain_settings(judge, random_seed(judge.random_state))
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

    def _check_settings(self) -> None:
        counts = dict.fromkeys(("width", "max_epochs", "batch_size"), whole(1))
        need_all(self, {**counts, "learning_rate": POSITIVE, "instance_norm": FLAG})

    def _images(self, X: DataLike) -> NDArray[np.uint8]:
        check_is_fitted(self)
        images = as_images(X)[0].images
        channels = self.network_.convolutions[0].in_channels
        if images.shape[3] != channels:
            raise SchemaError(f"The classifier was fitted on {channels} channels; got {images.shape[3]}.")
        return images


def _labels(y: LabelsLike, n_images: int) -> NDArray[np.generic]:
    """Labels (n_images,), all text or all numbers."""
    labels = label_column(y, "y", n_images, of="images", mixed=False)
    return labels.astype(str) if labels.dtype == object else labels


Extractor: TypeAlias = ImageClassifier | nn.Module
"""What makes features of images: a fitted classifier, or a module from images in 0 … 1."""


class _Features(nn.Module):
    def __init__(self, network: FeatureNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network.features(x)


@in_own_state
def image_features(extractor: Extractor, images: DataLike) -> tuple[NDArray[np.float64], str]:
    """Features (n_images, n_features) and the name of what made them, as ``metrics.fid`` and the others take them.

    ``extractor`` is a fitted ``ImageClassifier``, or any module from images (batch, channels, height, width) in
    0 … 1 to features; its name is its class and a hash of its parameters, or of its text where it has none.

    Raises
    ------
    SettingError
        ``extractor`` is neither.
    DataError
        The images cannot be used, or the module fails on them or gives no features.
    """
    if isinstance(extractor, ImageClassifier):
        return extractor.features(images), extractor.name_
    if not isinstance(extractor, nn.Module):
        raise SettingError(
            "extractor must be a fitted ImageClassifier or a torch.nn.Module from images to features; got "
            f"{extractor!r}. Pass one of them."
        )
    return extract(extractor, as_images(images)[0].images), f"{type(extractor).__name__}-{fingerprint(extractor)}"


def untrained_features(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], str]:
    """As ``image_features``, of a network that was never trained: it favours no label, and is always the same."""
    network = FeatureNetwork(images.shape[3], n_classes=2)
    return extract(_Features(network), images), f"cnn-32-untrained-{fingerprint(network)}"
