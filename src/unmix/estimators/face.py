"""What every estimator that is kept in a folder shares: one ``Fit``, the attributes that read it, save and load."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, overload

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from unmix.data.batches import Rows
from unmix.data.domains import DomainSchema
from unmix.errors import DataError, DomainError, StorageError
from unmix.files import as_path, names_in
from unmix.fits.fit import AnyFit, Summary, kind_name, register
from unmix.fits.storage import holds_model
from unmix.forms import DataLike, LabelsLike
from unmix.models.frame import Framed
from unmix.nets.state import methods_in_own_state
from unmix.validation import NUMBERS, RandomLike, random_seed, whole

Value = TypeVar("Value")
OwnFit = TypeVar("OwnFit", bound=AnyFit)


class Learnt(Generic[Value]):
    """An attribute that ``read`` takes from the fit: there is none before it, nor where that is None."""

    def __init__(self, read: Callable[[Any], Value | None]) -> None:
        self.read = read

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, estimator: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, estimator: object, owner: type | None = None) -> Value: ...
    def __get__(self, estimator: Any, owner: type | None = None) -> Any:
        if estimator is None:
            return self
        check_is_fitted(estimator)
        found = self.read(estimator.fit_)
        if found is None:
            raise AttributeError(f"This {type(estimator).__name__} has no {self.name}: the fit found none.")
        return found

    def __set__(self, estimator: object, value: object) -> None:
        raise AttributeError(f"{self.name} is read from the fit and cannot be set.")


@methods_in_own_state
class FittedFace(TransformerMixin, BaseEstimator, ABC, Generic[OwnFit]):
    """Abstract estimator whose learnt attributes are those of ``fit_``, a frozen ``Fit``."""

    assumption: ClassVar[str]
    uses_domains: ClassVar[bool] = True
    summary_type: ClassVar[type[Summary]]
    fit_: OwnFit

    model_ = Learnt[Any](lambda fit: fit.model)
    schema_ = Learnt[Any](lambda fit: fit.schema)
    domain_schema_ = Learnt[DomainSchema](lambda fit: fit.domains)
    domains_ = Learnt[tuple[str, ...]](lambda fit: fit.domains.domains)
    n_features_in_ = Learnt[int](lambda fit: fit.schema.n_features)
    feature_names_in_ = Learnt(lambda fit: np.array(fit.schema.names, dtype=object) if fit.schema.named else None)
    fitted_params_ = Learnt[dict[str, object]](lambda fit: fit.parameters)
    n_latents_ = Learnt[int](lambda fit: fit.model.n_latents)
    restarts_ = Learnt[pd.DataFrame](lambda fit: fit.starts)
    history_ = Learnt[pd.DataFrame](lambda fit: fit.history)
    best_restart_ = Learnt[int](lambda fit: fit.best)
    mixing_ = Learnt[NDArray[np.float64]](lambda fit: fit.summary.mixing)
    seed_ = Learnt[int](lambda fit: fit.seed)
    fit_seconds_ = Learnt[float](lambda fit: fit.seconds)

    def __init_subclass__(cls, **words: object) -> None:
        super().__init_subclass__(**words)
        register(methods_in_own_state(cls))

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write model, schema, history and tables into the folder ``path`` and return it; ``unmix.load`` reads it.

        An existing folder that is not empty is refused unless ``overwrite=True`` and a model is in it. A file there
        that unmix did not write, or that was changed since, is never replaced. Of a class of your own its name is
        written: ``unmix.load`` finds it where its module has been imported.
        """
        check_is_fitted(self)
        path = as_path(path)
        kind_name(type(self))
        there = names_in(path, "a model")
        if there and not overwrite:
            raise StorageError(f"The folder {path} is not empty. Choose another folder, or pass overwrite=True.")
        if there and not holds_model(path):
            raise StorageError(
                f"{path} holds files but no model of unmix, so it is not replaced. Choose another folder."
            )
        return self.fit_.to_folder(path)

    @abstractmethod
    def _check_words(self) -> None:
        """Raise ``SettingError`` for a constructor parameter that cannot be."""

    @abstractmethod
    def _untrained(self, features: Any, domains: DomainSchema, fitted: Mapping[str, Any]) -> Framed:
        """A model that takes the state of a saved one; ``fitted`` are the scalars that were saved with it."""

    @abstractmethod
    def translate(self, X: DataLike, y: LabelsLike = None, *, to: LabelsLike) -> NDArray[np.number]:
        """The same rows or images as they would be in another domain."""

    def counterfactual(
        self, X: DataLike, y: LabelsLike = None, *, to: LabelsLike, **words: object
    ) -> NDArray[np.number]:
        """``translate``, by another name."""
        return self.translate(X, y, to=to, **words)

    def traverse(
        self, X: DataLike, y: LabelsLike = None, *, latent: int, values: Sequence[float] = (-2, -1, 0, 1, 2)
    ) -> NDArray[np.number]:
        """Rows or images (n_values, n_samples, …) of ``X`` with one latent set to each of ``values``.

        ``values`` are in standard deviations of the latent; ``y`` are the domains of ``X``, as in ``translate``, which
        a model needs that reads or generates rows by their domain (``IVAE``, ``CGGAN``).
        """
        check_is_fitted(self)
        whole(0, self.n_latents_ - 1).need("latent", latent)
        NUMBERS.need("values", values)
        z, decode = self._traversed(X, y)
        column = torch.arange(self.n_latents_, device=z.device) == latent
        return np.stack([decode(torch.where(column, float(value), z)) for value in values])

    @abstractmethod
    def _traversed(
        self, X: DataLike, y: LabelsLike
    ) -> tuple[torch.Tensor, Callable[[torch.Tensor], NDArray[np.number]]]:
        """Latents of rows, and what decodes others of the same rows."""

    def mixing_frame(self) -> pd.DataFrame:
        """``mixing_`` with feature names as rows and latent names as columns."""
        check_is_fitted(self)
        return self.fit_.mixing_frame()

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> NDArray[np.object_]:
        """Names of the latents: z0, z1, …"""
        check_is_fitted(self)
        return np.array(self.fit_.latent_names, dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "fit_")

    def _noise(
        self, n_samples: int, domain: LabelsLike, random_state: RandomLike
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
        """ε and the design matrix for rows of one domain, and the generator that drew ε."""
        check_is_fitted(self)
        whole(1).need("n_samples", n_samples)
        generator = torch.Generator().manual_seed(random_seed(random_state))
        if not self.uses_domains and domain is not None:
            raise DomainError(f"{type(self).__name__} has one prior for all domains; leave domain={domain!r} out.")
        design = self._design(domain, n_samples)
        return torch.randn(n_samples, self.n_latents_, generator=generator).to(self._device()), design, generator

    def _design(self, domain: LabelsLike, n_rows: int) -> torch.Tensor:
        """Design matrix of ``n_rows`` rows in one stated domain; without columns where the model ignores domains."""
        schema = self.domain_schema_ if self.uses_domains else DomainSchema()
        if domain is None and schema.columns:
            raise DataError(f"Say which domain: one of {list(self.domains_)}.")
        frame = None if domain is None and not schema.columns else schema.rows_of(domain, n_rows)
        rows = Rows.build(np.zeros((n_rows, 0)), schema.encode(frame, n_rows), schema.sizes, False)
        return rows.to(self._device()).design

    def _layer(self) -> str | None:
        """The layer of AnnData that the model was fitted on."""
        return getattr(self.schema_, "layer", None)

    def _device(self) -> torch.device:
        device: torch.device = self.model_.scale.device
        return device
