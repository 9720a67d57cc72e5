"""What every estimator that is kept in a folder shares: one ``Fit``, the attributes that read it, save and load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, overload

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from unmix.errors import SettingError, StorageError
from unmix.files import as_path, names_in
from unmix.fits.fit import Fit, Kind, kinds
from unmix.fits.storage import holds_model
from unmix.nets.state import OwnState

Value = TypeVar("Value")
OwnFit = TypeVar("OwnFit", bound=Fit[Any, Any])


class Learnt(Generic[Value]):
    """An attribute that ``read`` takes from the fit: there is none before it, nor where that is None."""

    def __init__(self, read: Callable[[Any], Value | None]) -> None:
        self.read = read

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, estimator: None, owner: Any = None) -> Self: ...
    @overload
    def __get__(self, estimator: object, owner: Any = None) -> Value: ...
    def __get__(self, estimator: Any, owner: Any = None) -> Any:
        if estimator is None:
            return self
        check_is_fitted(estimator)
        found = self.read(estimator.fit_)
        if found is None:
            raise AttributeError(f"This {type(estimator).__name__} has no {self.name}: the fit found none.")
        return found

    def __set__(self, estimator: Any, value: Any) -> None:
        raise AttributeError(f"{self.name} is read from the fit and cannot be set.")


class FittedFace(OwnState, Kind, TransformerMixin, BaseEstimator, Generic[OwnFit]):
    """Abstract estimator whose learnt attributes are those of ``fit_``, a frozen ``Fit``."""

    fit_: OwnFit

    model_ = Learnt[Any](lambda fit: fit.model)
    schema_ = Learnt[Any](lambda fit: fit.schema)
    domain_schema_ = Learnt(lambda fit: fit.domains)
    domains_ = Learnt[tuple[str, ...]](lambda fit: fit.domains.domains)
    n_features_in_ = Learnt[int](lambda fit: fit.schema.n_features)
    feature_names_in_ = Learnt(lambda fit: np.array(fit.schema.names, dtype=object) if fit.schema.named else None)
    fitted_params_ = Learnt[dict[str, Any]](lambda fit: fit.parameters)
    history_ = Learnt[pd.DataFrame](lambda fit: fit.history)
    best_restart_ = Learnt[int](lambda fit: fit.best)
    mixing_ = Learnt[NDArray[np.float64]](lambda fit: fit.summary.mixing)
    seed_ = Learnt[int](lambda fit: fit.seed)
    fit_seconds_ = Learnt[float](lambda fit: fit.seconds)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write model, schema, history and tables into the folder ``path`` and return it; ``unmix.load`` reads it.

        An existing folder that is not empty is refused unless ``overwrite=True`` and a model is in it. A file there
        that unmix did not write, or that was changed since, is never replaced.
        """
        check_is_fitted(self)
        path, kind = as_path(path), type(self)
        if kinds().get(kind.__name__) is not kind:
            raise StorageError(
                f"{kind.__name__} is no estimator of unmix, so unmix.load could not read it. Fit and save one of "
                "unmix, such as CGVAE."
            )
        there = names_in(path, "a model")
        if there and not overwrite:
            raise StorageError(f"The folder {path} is not empty. Choose another folder, or pass overwrite=True.")
        if there and not holds_model(path):
            raise StorageError(
                f"{path} holds files but no model of unmix, so it is not replaced. Choose another folder."
            )
        return self.fit_.to_folder(path)

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> NDArray[np.object_]:
        """Names of the latents: z0, z1, …"""
        check_is_fitted(self)
        return np.array(self.fit_.latent_names, dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "fit_")

    def _device(self) -> torch.device:
        device: torch.device = self.model_.scale.device
        return device


def random_seed(random_state: Any) -> int:
    expected = f"random_state must be a whole number from 0 to 2⁶³ - 1, a RandomState or None; got {random_state!r}."
    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool):
        if not 0 <= random_state < 2**63:
            raise SettingError(expected)
        return int(random_state)
    try:
        return int(check_random_state(random_state).randint(2**31 - 1))
    except ValueError as error:
        raise SettingError(expected) from error
