"""``unmix.DomainRegressor`` and ``unmix.DomainClassifier``: predict labels in domains that were not in the training."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, RegressorMixin, clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from unmix.audit.finding import listed
from unmix.data.domains import DomainSchema
from unmix.data.images import ImageSchema
from unmix.data.tables import as_table
from unmix.errors import DataError, DomainError, SettingError
from unmix.estimators.base import LatentEstimator
from unmix.estimators.cgvae import CGVAE
from unmix.estimators.prepare import in_layer
from unmix.forms import DataLike, LabelsLike
from unmix.labels import labels_frame
from unmix.validation import one_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REPRESENTATIONS = ("latents", "content", "noise", "features")
_MOST_FOLDS = 10
_MOST_FEATURES = 200
_CHANGE = 0.2
_LOSS = 0.05
_ALPHAS = np.logspace(-3, 3, 13)


class _DomainHead(MetaEstimatorMixin, BaseEstimator, ABC):
    """What regressor and classifier share: the representation, its choice, and rows of new domains."""

    def __init__(
        self, model: BaseEstimator | None = None, head: BaseEstimator | None = None, *, representation: str = "auto"
    ) -> None:
        self.model = model
        self.head = head
        self.representation = representation

    def fit(self, X: DataLike, y: ArrayLike, *, domains: LabelsLike = None, layer: str | None = None) -> Self:
        """Learn the latents of ``X`` unless the model is fitted, and a head from them to the label ``y``.

        Parameters
        ----------
        X : rows, as ``CGVAE.fit`` takes them, without the label among the features
        y : array (n_samples,)
            The label of each row.
        domains : labels (n_samples,) or table of them
            The domain of each row. None: all rows are of one domain; only allowed with ``representation="latents"``.
        layer : str, optional
            For AnnData: the layer to fit the model on, as in ``CGVAE.fit``; of a fitted model it is that of its fit.

        Raises
        ------
        DomainError
            Only one domain, or a domain that a fitted model does not know.
        DataError
            The labels do not match the rows, some are missing, or a class occurs in only one domain.
        SettingError
            The head has no ``fit`` and ``predict``, or is a classifier instead of a regressor (or vice versa); or the
            representation is unknown.
        """
        head = self._checked_head()
        model = self._fitted_model(X, domains, layer)
        labels = self._labels(y)
        latents = _latents(model, X, domains)
        if len(labels) != len(latents):
            raise DataError(f"X has {len(latents)} rows, y has {len(labels)} (inconsistent numbers of samples).")
        groups = _groups(model, domains, len(latents))
        self._check_groups(labels, groups)
        content = _content(model, latents, groups)
        known = {"latents": latents}
        if 0 < len(content) < latents.shape[1]:
            known["content"] = latents[:, content]
        if self.representation == "noise" or (self.representation == "auto" and _has_noise(model)):
            known["noise"] = _noise(model, X, domains)
        if self.representation == "features" or (self.representation == "auto" and _has_few_features(model)):
            known["features"] = _features(model, X)
        if self.representation != "auto" and self.representation not in known:
            raise DataError(
                f'representation="content" needs some latents that do not change between domains and some that do; '
                f'{len(content)} of {latents.shape[1]} do not. Use "latents".'
            )
        if self.representation == "auto":
            self.choice_ = self._compare(head, known, labels, groups)
            self.representation_ = _best(self.choice_)
        else:
            self.representation_ = self.representation
        self.model_, self.content_ = model, content
        self.head_ = clone(head).fit(known[self.representation_], labels)
        self.n_features_in_ = model.n_features_in_
        if hasattr(model, "feature_names_in_"):
            self.feature_names_in_ = model.feature_names_in_
        return self

    def represent(self, X: DataLike, domains: LabelsLike = None) -> Floats:
        """Input of the head for rows (n_samples, n_columns); see ``representation``."""
        check_is_fitted(self)
        if self.representation_ == "noise":
            if domains is None:
                raise DomainError(
                    'The head was fitted on representation="noise", which depends on the domain of each row. Pass '
                    "domains to predict; those of new domains after head.adapt(rows, domain=...)."
                )
            return _noise(self.model_, X, domains)
        if self.representation_ == "features":
            return _features(self.model_, X)
        latents = _latents(self.model_, X, domains)
        return latents[:, self.content_] if self.representation_ == "content" else latents

    def predict(self, X: DataLike, domains: LabelsLike = None) -> NDArray[np.generic]:
        """Predict the label of every row (n_samples,).

        ``domains`` is needed only if ``representation_`` is "noise"; a domain that the model does not know must then be
        added first: ``head.adapt(rows, domain=...)``.
        """
        return self._head_at(X, domains, "predict")

    def _head_at(self, X: DataLike, domains: LabelsLike, method: str) -> NDArray[Any]:
        """Call a method of the head on the representation of rows."""
        seen = self.represent(X, domains)
        return getattr(self.head_, method)(seen)

    def adapt(self, X: DataLike, *, domain: LabelsLike) -> Self:
        """The same head on ``model.adapt(X, domain=domain)``; only needed with ``representation_ = "noise"``."""
        check_is_fitted(self)
        result = copy.copy(self)
        result.model_ = self.model_.adapt(X, domain=domain)
        return result

    def _has(self, method: str) -> bool:
        """Whether the head, or the one that is to be fitted, has a method."""
        given = self._default_head() if self.head is None else self.head
        return hasattr(getattr(self, "head_", given), method)

    def _more_labels(self, y: NDArray[np.generic]) -> NDArray[np.generic]:
        return y

    def _labels(self, y: LabelsLike) -> NDArray[np.generic]:
        if y is None:
            raise DataError(f"{type(self).__name__} requires y to be passed, but the target y is None: pass the label.")
        values = column_or_1d(y, warn=True)
        if not len(values):
            raise DataError("y holds no labels (0 samples). Pass one label per row.")
        if pd.isna(values).any():
            raise DataError(
                f"Input y contains NaN: {int(pd.isna(values).sum())} of {len(values)} labels are missing. Fit on the "
                "rows that have one."
            )
        return self._more_labels(values)

    def _checked_head(self) -> BaseEstimator:
        one_of(("auto", *REPRESENTATIONS)).need("representation", self.representation)
        head = self._default_head() if self.head is None else self.head
        if not (hasattr(head, "fit") and hasattr(head, "predict")):
            raise SettingError(
                f"head must be an estimator with fit and predict; got {type(head).__name__}. Pass a scikit-learn "
                "estimator, such as HistGradientBoostingRegressor()."
            )
        if is_classifier(head) != is_classifier(self):
            kind = "classifier" if is_classifier(self) else "regressor"
            raise SettingError(f"{type(self).__name__} takes a {kind} as head; got {type(head).__name__}.")
        return head

    def _fitted_model(self, X: DataLike, domains: LabelsLike, layer: str | None) -> BaseEstimator:
        model = CGVAE(n_latents="auto", verbose=0) if self.model is None else self.model
        frozen = isinstance(model, FrozenEstimator)
        model = model.estimator if frozen else model
        if not (hasattr(model, "fit") and hasattr(model, "transform")):
            raise SettingError(f"model must be an estimator with fit and transform; got {type(model).__name__}.")
        fitted = frozen or _is_fitted(model)
        return model if fitted else clone(model).fit(in_layer(X, layer), domains)

    def _check_groups(self, labels: NDArray[np.generic], groups: Ints) -> None:
        if self.representation == "auto" and len(np.unique(groups)) < 2:
            raise DomainError(
                "All rows are of one domain, but the representation is chosen by leaving domains out. Pass domains, or "
                'representation="latents".'
            )

    def _folds(self, groups: Ints) -> Iterator[tuple[Ints, Ints]]:
        n_domains = len(np.unique(groups))
        yield from GroupKFold(min(n_domains, _MOST_FOLDS)).split(groups, groups=groups)

    def _compare(
        self, head: BaseEstimator, known: dict[str, Floats], labels: NDArray[np.generic], groups: Ints
    ) -> pd.DataFrame:
        """One row per representation and left-out domain (or tenth of the domains): the head's score there."""
        rows = []
        for train, left_out in self._folds(groups):
            where = " ".join(str(group) for group in np.unique(groups[left_out]))
            for name, values in known.items():
                found = clone(head).fit(values[train], labels[train]).predict(values[left_out])
                score = self._score(labels[left_out], found)
                rows.append({"representation": name, "left_out": where, "rows": len(left_out), "score": score})
        return pd.DataFrame(rows)

    @abstractmethod
    def _default_head(self) -> BaseEstimator:
        """What takes the representation where no head is given."""

    @abstractmethod
    def _score(self, y: NDArray[np.generic], found: NDArray[np.generic]) -> float:
        """How well ``found`` agrees with ``y``: higher is better."""

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "head_")


class DomainRegressor(RegressorMixin, _DomainHead):
    """Predict a number from latents, so that the prediction also holds in new domains.

    Parameters
    ----------
    model : estimator of unmix, optional
        Fitted or not; a fitted model is used as it is. ``clone`` discards fits: wrap the model in scikit-learn's
        ``FrozenEstimator`` to keep it in a search or cross-validation. Default: ``CGVAE(n_latents="auto")``.
    head : regressor of scikit-learn, optional
        Default: a ridge regression on cubic splines of each latent, which extrapolates linearly.
    representation : {"auto", "latents", "content", "noise", "features"}, default "auto"
        Input of the head: all latents; those whose mean and spread do not change between domains by more than 0.2;
        domain-normalised noise ε = F(z; u), for labels that are relative to the domain; or the features as the encoder
        takes them, standardised. "auto": the best of these in training domains that are left out in turn (tenths of
        them, if there are more than ten). The model has seen the features of the domains left out, but not their
        labels. "auto" takes the features only if the latents lose what the label depends on: if they are better by
        more than 0.05 in every domain left out. It does not look at more than 200 features.

    Attributes
    ----------
    representation_ : str
    choice_ : DataFrame, where ``representation="auto"``
        One row per representation and left-out domain, numbered as in ``model_.domains_``: R², or accuracy, there.
    model_, head_ : the fitted model and head
    content_ : int array, indices of the latents that do not change

    Examples
    --------
    >>> from unmix import CGVAE, DomainRegressor, datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=6, n_domains=4, n_samples=1200, random_state=2)
    >>> seen = data.domains < 3
    >>> model = CGVAE(n_latents=2, n_restarts=2, max_epochs=12, verbose=0)
    >>> head = DomainRegressor(model).fit(data.x[seen], data.z[seen, 0], domains=data.domains[seen])
    >>> head.representation_ in ("latents", "content", "noise", "features"), head.choice_["left_out"].nunique()
    (True, 3)
    >>> wider = head.adapt(data.x[~seen], domain=3)
    >>> wider.predict(data.x[~seen], data.domains[~seen]).shape
    (300,)
    """

    def score(
        self, X: DataLike, y: ArrayLike, sample_weight: ArrayLike | None = None, *, domains: LabelsLike = None
    ) -> float:
        """R² of ``predict(X, domains)``."""
        return float(r2_score(y, self.predict(X, domains), sample_weight=sample_weight))

    def _default_head(self) -> BaseEstimator:
        return make_pipeline(StandardScaler(), _splines(), RidgeCV(_ALPHAS))

    def _more_labels(self, y: NDArray[np.generic]) -> NDArray[np.generic]:
        try:
            values = np.asarray(y, dtype=float)
        except (TypeError, ValueError) as error:
            raise DataError(f"y must hold numbers: {error}. For classes use DomainClassifier.") from error
        if not np.isfinite(values).all():
            raise DataError("Input y contains infinity. Correct or drop those rows.")
        return values

    def _score(self, y: NDArray[np.generic], found: NDArray[np.generic]) -> float:
        return float(max(r2_score(y, found), -1.0)) if len(y) > 1 else float("nan")


class DomainClassifier(ClassifierMixin, _DomainHead):
    """Predict a class from latents, so that the prediction also holds in new domains.

    Parameters, attributes and methods are those of ``DomainRegressor``, with a classifier as head (default: a logistic
    regression on cubic splines of each latent), accuracy as score, and ``classes_``. With ``representation="auto"``
    each class must occur in at least two domains.

    Examples
    --------
    >>> from unmix import CGVAE, DomainClassifier, datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=5, n_domains=3, n_samples=600)
    >>> model = CGVAE(n_latents=2, n_restarts=2, max_epochs=4, verbose=0)
    >>> head = DomainClassifier(model).fit(data.x, data.z[:, 0] > 0, domains=data.domains)
    >>> head.predict_proba(data.x, data.domains).shape, head.classes_
    ((600, 2), array([False,  True]))
    """

    def score(
        self, X: DataLike, y: ArrayLike, sample_weight: ArrayLike | None = None, *, domains: LabelsLike = None
    ) -> float:
        """Accuracy of ``predict(X, domains)``."""
        return float(accuracy_score(y, self.predict(X, domains), sample_weight=sample_weight))

    @property
    def classes_(self) -> NDArray[np.generic]:
        classes: NDArray[np.generic] = self.head_.classes_
        return classes

    @available_if(lambda self: self._has("predict_proba"))  # type: ignore[untyped-decorator]
    def predict_proba(self, X: DataLike, domains: LabelsLike = None) -> Floats:
        """Probability of each class (n_samples, n_classes), if the head has ``predict_proba``."""
        return self._head_at(X, domains, "predict_proba")

    @available_if(lambda self: self._has("decision_function"))  # type: ignore[untyped-decorator]
    def decision_function(self, X: DataLike, domains: LabelsLike = None) -> Floats:
        """Decision function of the head, if it has one."""
        return self._head_at(X, domains, "decision_function")

    def _default_head(self) -> BaseEstimator:
        return make_pipeline(StandardScaler(), _splines(), LogisticRegression(max_iter=1_000))

    def _more_labels(self, y: NDArray[np.generic]) -> NDArray[np.generic]:
        check_classification_targets(y)
        if len(np.unique(y)) < 2:
            raise DataError(f"A classifier takes two classes or more; y has one class only: {y[0]!r}.")
        return y

    def _check_groups(self, labels: NDArray[np.generic], groups: Ints) -> None:
        super()._check_groups(labels, groups)
        if self.representation != "auto":
            return
        for train, left_out in self._folds(groups):
            lacking = np.setdiff1d(np.unique(labels[left_out]), np.unique(labels[train]))
            if len(lacking) or len(np.unique(labels[train])) < 2:
                shown = listed([str(own) for own in lacking]) or "every class but one"
                raise DataError(
                    f"{shown} occurs in one domain only, so no head can learn it when that domain is left out. "
                    'Pass rows of it in other domains, or representation="latents".'
                )

    def _score(self, y: NDArray[np.generic], found: NDArray[np.generic]) -> float:
        return float(accuracy_score(y, found))


def _splines() -> SplineTransformer:
    return SplineTransformer(n_knots=6, knots="quantile", extrapolation="linear", include_bias=False)


def _best(compared: pd.DataFrame) -> str:
    """The representation with the best mean score; features only if they are much better in every domain."""
    scores = compared.pivot(index="left_out", columns="representation", values="score")
    latents = scores.drop(columns="features", errors="ignore")
    best = str(latents.mean().idxmax())
    if "features" in scores and (scores["features"] > latents[best] + _LOSS).all():
        return "features"
    return best


def _is_fitted(model: BaseEstimator) -> bool:
    try:
        check_is_fitted(model)
    except Exception:
        return False
    return True


def _takes_domains(model: BaseEstimator) -> bool:
    return "y" in inspect.signature(model.transform).parameters


def _has_noise(model: BaseEstimator) -> bool:
    """Whether ε = F(z; u) is there, and a new domain can be adapted to."""
    images = isinstance(getattr(model, "schema_", None), ImageSchema)
    return isinstance(model, LatentEstimator) and model.uses_domains and not images and not _takes_domains(model)


def _latents(model: BaseEstimator, X: DataLike, domains: LabelsLike) -> Floats:
    found = model.transform(X, domains) if _takes_domains(model) else model.transform(X)
    return np.asarray(found, dtype=float)


def _has_few_features(model: BaseEstimator) -> bool:
    images = isinstance(getattr(model, "schema_", None), ImageSchema)
    return isinstance(model, LatentEstimator) and not images and model.n_features_in_ <= _MOST_FEATURES


def _features(model: BaseEstimator, X: DataLike) -> Floats:
    """What the encoder takes: standardised features, 0 where missing."""
    if not isinstance(model, LatentEstimator) or isinstance(model.schema_, ImageSchema):
        raise SettingError(
            f'representation="features" takes a model of tables, such as CGVAE; got {type(model).__name__}. Fit the '
            "head on the features themselves."
        )
    table = as_table(X, model._layer())
    found: Floats = model._new_rows(table, given=X).x.cpu().double().numpy()
    return found


def _noise(model: BaseEstimator, X: DataLike, domains: LabelsLike) -> Floats:
    if not isinstance(model, LatentEstimator):
        raise SettingError(
            f'representation="noise" takes a model with a prior of each domain, such as CGVAE; got '
            f"{type(model).__name__}."
        )
    return model.domain_noise(X, domains)


def _groups(model: BaseEstimator, domains: LabelsLike, n_rows: int) -> Ints:
    """A number for each domain, that of ``model.domains_`` where the model has them."""
    schema = getattr(model, "domain_schema_", None)
    if domains is None:
        return np.zeros(n_rows, np.int64)
    if isinstance(schema, DomainSchema) and schema.columns:
        groups = schema.groups(domains, n_rows)
        if (groups < 0).any():
            raise DomainError(
                f"{int((groups < 0).sum())} rows are of combinations of domain levels that the model does not know; "
                "use adapt: model.adapt(rows, domain=...)."
            )
        return groups
    labels = labels_frame(domains, n_rows).astype(str).agg(" · ".join, axis=1)
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _content(model: BaseEstimator, latents: Floats, groups: Ints) -> Ints:
    """Latents whose mean and log-spread vary between domains by no more than 0.2, chance aside."""
    if hasattr(model, "content_"):
        return np.asarray(model.content_, dtype=np.int64)
    own = [latents[groups == group] for group in np.unique(groups)]
    own = [rows for rows in own if len(rows) > 2]
    if len(own) < 2:
        return np.arange(latents.shape[1])
    unit = np.maximum(latents.std(axis=0), 1e-12)
    means = np.stack([rows.mean(axis=0) / unit for rows in own])
    spreads = np.stack([rows.std(axis=0) / unit for rows in own])
    counts = np.array([len(rows) for rows in own])[:, None]
    moved = means.var(axis=0, ddof=1) - (spreads**2 / counts).mean(axis=0)
    scaled = np.log(np.maximum(spreads, 1e-12)).var(axis=0, ddof=1) - (0.5 / counts).mean()
    return np.flatnonzero((moved <= _CHANGE**2) & (scaled <= _CHANGE**2))
