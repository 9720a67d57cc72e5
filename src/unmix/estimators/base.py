"""The scikit-learn interface of all models with a posterior: fit, transform, sample, translate, audit, report."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from unmix.audit.describe import Description, blocks, chunks, mean_latents
from unmix.audit.input import ResidualDependence
from unmix.data.batches import Rows
from unmix.data.columns import check_columns, column_names, listed
from unmix.data.domains import Column, DomainSchema
from unmix.data.matrix import check_values, read_cells
from unmix.data.schema import FeatureSchema
from unmix.data.tables import as_table
from unmix.errors import DataError, SchemaError, SettingError
from unmix.estimators.adapting import adapted
from unmix.estimators.atomic import atomic
from unmix.estimators.diagnostics import Diagnostics
from unmix.estimators.face import FittedFace, Learnt
from unmix.estimators.prepare import (
    KindWords,
    Prepared,
    as_fitted,
    beside_features,
    header,
    in_layer,
    latent_matrix,
    output_dtype,
    prepare,
    rows_for,
    separate,
    with_row_names,
)
from unmix.estimators.progress import announce, conclude, epoch_bar
from unmix.estimators.settings import CALLBACKS, COMMON, planned_epochs, training_settings
from unmix.files import as_path
from unmix.fits.fit import Summary
from unmix.fits.further import Further
from unmix.fits.latent import LatentFit, LatentSummary, finish_fit
from unmix.fits.words import plain_settings
from unmix.forms import DataLike, LabelsLike
from unmix.models.base import FittedModel, LatentModel
from unmix.train.callbacks import Callback
from unmix.train.devices import pick_device
from unmix.train.fit import TrainingResult, TrainingSettings
from unmix.train.fit import fit as train_model
from unmix.train.optimizers import MakeOptimizer, MakeScheduler, check_optimizer
from unmix.train.threads import sensible_threads
from unmix.validation import FLAG, Check, RandomLike, need_all, random_seed

Floats = NDArray[np.float64]

SCORE_DRAWS = 8
_RESIDUAL = FLAG.or_else("domain", '"domain"')


@dataclass(eq=False, repr=False)
class LatentEstimator(Diagnostics, FittedFace[LatentFit]):
    """Abstract estimator with the common constructor parameters; a subclass adds its own parameters and its network.

    A subclass is a dataclass too (``eq=False, repr=False``), so that its fields are its constructor parameters.
    """

    checks: ClassVar[Mapping[str, Check]] = {}
    reads_domains: ClassVar[bool] = False
    examines_residuals: ClassVar[bool] = False
    steps_per_latent = 350
    least_steps = 2_800
    # Codes of images lie on curved surfaces: there neither noise that differs between domains nor starts that find
    # other latents are a sign of a wrong optimum or of too few rows.
    on_codes = False
    assumption: ClassVar[str] = "the factors change between domains"
    summary_type: ClassVar[type[Summary]] = LatentSummary

    model_ = Learnt[FittedModel](lambda fit: fit.model)
    support_ = Learnt[NDArray[np.bool_]](lambda fit: fit.summary.support)
    explained_variance_ratio_ = Learnt[Floats](lambda fit: fit.summary.explained_variance_ratio)
    agreement_ = Learnt[float](lambda fit: fit.summary.agreement)
    latents_agreement_ = Learnt[Floats](lambda fit: fit.summary.latents_agreement(fit.starts, fit.best))
    description_ = Learnt[Description](lambda fit: fit.summary.description)
    linear_reason_ = Learnt[str](lambda fit: fit.summary.why_linear or "")
    stop_reason_ = Learnt[str](lambda fit: fit.summary.stop_reason)
    n_epochs_ = Learnt[int](lambda fit: fit.summary.n_epochs)
    settings_ = Learnt[dict[str, int]](lambda fit: fit.summary.sizes)
    training_rows_ = Learnt[NDArray[np.int64]](lambda fit: fit.summary.training_rows)
    residual_dependence_ = Learnt[ResidualDependence](lambda fit: fit.summary.residual)
    residual_audited_ = Learnt[ResidualDependence](lambda fit: fit.summary.residual_audited)
    adapted_ = Learnt[tuple[str, ...]](lambda fit: fit.summary.adapted)
    selection_ = Learnt[pd.DataFrame](lambda fit: fit.summary.selection)

    n_latents: int | str = 4
    _: KW_ONLY
    hidden: Sequence[int] = (64, 64)
    n_restarts: int = 4
    max_epochs: int | None = None
    batch_size: int = 128
    learning_rate: float = 1e-2
    optimizer: MakeOptimizer | None = None
    scheduler: MakeScheduler | None = None
    warm_start: bool = False
    validation_fraction: float = 0.1
    early_stopping: bool = True
    auxiliary: Mapping[str, str] | None = None
    missing: str = "error"
    min_domain_rows: int = 10
    device: str | torch.device = "auto"
    random_state: RandomLike = 0
    verbose: int = 1

    @abstractmethod
    def _network(self, features: Any, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        """The network to train, on the CPU; ``features`` is the schema of the features."""

    def _network_for(self, data: Prepared, seed: int) -> LatentModel:
        """The network to train on ``data``, with all starts."""
        return self._network(data.features, data.domains, seed, self.n_restarts)

    def _continued(self, before: LatentFit, data: Prepared, seed: int) -> LatentModel:
        """The network of an earlier fit, of the one start that was kept."""
        known, given = ((*map(_said, own.columns), own.domains) for own in (before.domains, data.domains))
        features = [(own.names, getattr(own, "kinds", ())) for own in (before.schema, data.features)]
        same = features[0] == features[1]
        if known != given or not same:
            what = "domains" if same else "features"
            raise SettingError(
                f"warm_start=True continues the fitted model, which has other {what} than these rows. Pass rows with "
                "the same features and domains (model.adapt adds domains), or set warm_start=False."
            )
        network = self._untrained(
            data.features,
            data.domains,
            {"n_latents": before.model.n_latents, "seed": seed, **before.model.inner.chosen},
        ).inner
        try:
            network.load_state_dict(before.model.inner.state_dict())
        except RuntimeError as error:
            raise SettingError(
                "warm_start=True continues the fitted model, but n_latents, hidden or another setting of the networks "
                "has changed since. Set them as they were, or set warm_start=False."
            ) from error
        network.go_on()
        return network

    def _check_settings(self) -> None:
        """Raise ``SettingError`` for settings of the subclass that exclude each other; ``checks`` is for each alone."""

    @atomic
    def fit(
        self,
        X: DataLike,
        y: LabelsLike = None,
        *,
        layer: str | None = None,
        callbacks: Sequence[Callback] = (),
        checkpoint: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Learn the latents behind ``X`` from rows that come from several domains.

        Parameters
        ----------
        X : array or table (n_samples, n_features)
            numpy, scipy.sparse, pandas, polars, Arrow, torch, AnnData, or the path of a .csv, .tsv (either may end in
            .gz), .parquet (a file or a folder of them), .h5ad or .zarr. All columns except ``y`` are features; for
            AnnData, features are the variables, and ``y`` names a column of ``.obs``. A nameless first column of a
            .csv or .tsv, and a saved index, hold names of the rows. ``docs/reading.md`` has the rules.
        y : labels (n_samples,), table of auxiliary columns (n_samples, n_columns), or names of columns; optional
            The domain of each row, paired by position; one name, or a list of names. None: a single domain, so that
            only sparsity can identify latents. A model that ignores domains uses ``y`` only for the held-out split and
            the tables of effects.
        layer : str, optional
            For AnnData: the layer to read instead of ``.X``. The model reads the same layer from AnnData that it is
            given later, and finds the variables of the fit by name.
        callbacks : sequence of callables, optional
            Each is called after every epoch of the training with a frozen record: ``epoch``, ``n_epochs``,
            ``objective`` and ``held_out_objective`` of every start in nats per row, ``seconds``. The training stops if
            one returns True.
        checkpoint : path, optional
            File for the state of the training, written every few seconds and on interruption.
        resume : bool, default False
            Continue from ``checkpoint``; the result equals that of an uninterrupted fit.

        Raises
        ------
        DataError, DomainError, SettingError
            Before training starts; the message says what was expected, what came and what to do.
        StorageError
            ``checkpoint`` cannot be written, or belongs to other data or settings.
        TrainingError
            The objective became non-finite and stayed so.

        Warns
        -----
        DataWarning
            Suspicious values or columns, such as codes for missing values; ``docs/reading.md`` has the rules.
        """
        self._check_words()
        CALLBACKS.need("callbacks", callbacks)
        seed = random_seed(self.random_state)
        words = plain_settings(self, seed)
        data = self._prepare(in_layer(X, layer), y, seed)
        device = pick_device(self.device)
        before = getattr(self, "fit_", None)
        announce(self, data, device, self.n_restarts if before is None else 1)
        with sensible_threads((data.features.n_features,), int(self.batch_size) * int(self.n_restarts)):
            network = self._network_for(data, seed) if before is None else self._continued(before, data, seed)
            network = network.to(device)
            rows, has_held_out = data.rows.to(device), bool(len(data.held_out))
            train = rows.take(slice(0, data.n_train))
            held_out = rows.take(slice(data.n_train, None)) if has_held_out else train
            settings = self._training_settings(len(rows), seed, has_held_out)

            def trained(own: LatentModel, place: Path | None = None, again: bool = False) -> TrainingResult:
                with epoch_bar(self.verbose, settings.max_epochs) as on_epoch:
                    return train_model(
                        own,
                        train,
                        held_out,
                        settings,
                        on_epoch=on_epoch,
                        callbacks=callbacks,
                        checkpoint=place,
                        resume=again,
                        schema=(data.features, data.domains),
                    )

            result = trained(network, None if checkpoint is None else as_path(checkpoint), resume)
            result = self._trained_further(data, network, result, train, held_out, trained)
            self._finish(data, network, rows, result, words)
        return self

    def transform(self, X: DataLike) -> NDArray[np.floating]:
        """Posterior means of the latents (n_samples, n_latents); needs no domain."""
        check_is_fitted(self)
        table = as_table(X, self._layer())
        return with_row_names(self, self._encode(table, self._new_rows(table, given=X)), table)

    def inverse_transform(self, X: ArrayLike) -> NDArray[np.number]:
        """Features (n_samples, n_features), in the data's units, of latents ``X`` (n_samples, n_latents).

        Posterior means are shrunk toward the mean because of noise. This shrinkage is undone first, so that
        ``inverse_transform(transform(X))`` reconstructs ``X``, as with PCA. A table must have the columns that
        ``transform`` returns, z0, z1, …, in this order.
        """
        check_is_fitted(self)
        z = latent_matrix(X, [str(name) for name in self.get_feature_names_out()])
        return self._decode(torch.from_numpy(z.astype(np.float32)).to(self._device()) @ self.model_.expansion)

    def domain_noise(self, X: DataLike, y: LabelsLike = None) -> Floats:
        """ε = F(z; u) of rows and their domains (n_samples, n_latents): latents mapped to N(0, 1) within each domain.

        ε is the position of a row relative to its domain, without the effect of the domain itself. ``translate`` moves
        rows to another domain at the same ε.
        """
        self._needs_domain_prior()
        rows = self._labelled_rows(X, y)
        parts = []
        with torch.no_grad():
            for own in chunks(rows):
                z = self.model_.mean(own.x, own.observed, own.design) @ self.model_.expansion
                parts.append(self.model_.prior(own.design).to_noise(z)[0].cpu().double().numpy())
        return np.concatenate(parts)

    def score(self, X: DataLike, y: LabelsLike = None) -> float:
        """Bound on the log-likelihood of ``X`` given its domains: mean per row, in nats, in the data's units.

        Pass rows that were not used in ``fit``. The expectation under the posterior uses eight fixed draws. Missing
        entries are left out.
        """
        check_is_fitted(self)
        rows = self._labelled_rows(X, y)
        total, generator = 0.0, torch.Generator().manual_seed(0)
        log_scale = self.schema_.log_scale
        with torch.no_grad():
            for chunk in chunks(rows):
                total += float(self.model_.bound(chunk, generator, SCORE_DRAWS).cpu().double().sum())
                observed = len(chunk) if chunk.observed is None else chunk.observed.cpu().double().sum(0).numpy()
                total -= float((observed * log_scale).sum())
        return total / len(rows)

    def sample(self, n_samples: int = 1, domain: LabelsLike = None, random_state: RandomLike = 0) -> NDArray[np.number]:
        """Draw rows (n_samples, n_features) of one domain from the model, observation noise included.

        ``domain``: a label, or a mapping column → value if the model has several domain columns; None for a model
        that ignores domains.
        """
        z, generator = self._draw(n_samples, domain, random_state)
        with torch.no_grad():
            output = torch.cat([self.model_.decode(z[place]) for place in blocks(len(z), self.n_features_in_)])
            likelihood = self.model_.likelihood.within(self._design(domain, n_samples))
            sizes = likelihood.sizes(len(z), generator)
            drawn = likelihood.sample(output, generator, sizes).cpu().double().numpy()
        return self.schema_.restore(drawn).astype(self.schema_.dtype, copy=False)

    def _draw(
        self, n_samples: int, domain: LabelsLike, random_state: RandomLike
    ) -> tuple[torch.Tensor, torch.Generator]:
        """Latents of one domain, and the generator that drew them."""
        noise, design, generator = self._noise(n_samples, domain, random_state)
        with torch.no_grad():
            return self.model_.prior(design).from_noise(noise), generator

    def translate(
        self, X: DataLike, y: LabelsLike = None, *, to: LabelsLike, residual: bool | str = True
    ) -> NDArray[np.number]:
        """The same rows as they would be in another domain (n_samples, n_features).

        The prior's maps transport each latent, ε = F(z; u), z' = F⁻¹(ε; u'), and each feature changes by the effect on
        the mixing: x' = ĝ(z') + (x - ĝ(z)). The residual x - ĝ(z) is observation noise, whose spread is the same in
        every domain, so it is kept. A row that is translated to its own domain is returned unchanged, and so is a
        feature that depends on no latent that changes.

        Parameters
        ----------
        X, y : rows and their domains, as in ``fit``
        to : target domain: a label, a mapping column → value, or a table with one row for each row of X
            With several domain columns it may be a combination that no row of the fit had (``docs/new_domains.md``).
        residual : bool or "domain", default True
            False: return ĝ(z'), the mean of such rows, which varies less than rows do. "domain": the residual moves by
            the difference of its means in the two domains; effects of several columns add up. That predicts features
            better where there are fewer latents than causes, and changes features that no latent drives. Missing
            entries (``missing="mask"``) have no residual: they are ĝ(z') in all cases.

        See Also
        --------
        check_counterfactuals : whether rows that are translated to a domain look like rows of that domain.
        """
        self._needs_domain_prior()
        _RESIDUAL.need("residual", residual)
        rows = self._labelled_rows(X, y)
        target = self._design(to, len(rows))
        shift = self._left_over() if residual == "domain" else None
        parts, generator = [], torch.Generator().manual_seed(0)
        with torch.no_grad():
            for place in blocks(len(rows), self.n_features_in_):
                own = rows.take(place)
                extra = None if shift is None else (target[place] - own.design) @ shift
                moved = self.model_.counterfactual(own, target[place], generator, bool(residual), shift=extra)
                parts.append(moved.cpu().double().numpy())
        carried = np.concatenate(parts)
        if isinstance(self.schema_, FeatureSchema) and self.schema_.nuisance is not None:
            carried = carried + np.where(self.schema_.continuous, self._offsets(X), 0.0)
        return self.schema_.restore(carried).astype(self.schema_.dtype, copy=False)

    def corrected(self, X: DataLike) -> NDArray[np.number]:
        """The same rows as they would be in the average batch (n_samples, n_features); needs no domain.

        For models with ``nuisance``. Only the effect of the batch on each feature is removed: latents, size and what
        the latents leave of a row stay. Continuous features are shifted, counts and binary features keep their quantile
        (``docs/likelihoods.md``).

        Raises
        ------
        SettingError
            The model was fitted without ``nuisance``.
        """
        check_is_fitted(self)
        if not isinstance(self.schema_, FeatureSchema) or self.schema_.nuisance is None:
            raise SettingError(
                "corrected takes the effects of batches off, which this model has not learnt. Fit it with nuisance=, "
                "the name of the column of batches."
            )
        rows, effects = self._new_rows(as_table(X, self._layer()), given=X), self._offsets(X)
        parts, generator = [], torch.Generator().manual_seed(0)
        with torch.no_grad():
            for place in blocks(len(rows), self.n_features_in_):
                own = rows.take(place)
                without = None
                if own.offset is not None:
                    without = own.offset - torch.from_numpy(effects[place]).to(own.offset)
                output = self.model_.reconstruct(self.model_.mean(own.x, own.observed, own.design))
                kept = self.model_.likelihood.carry(own, output, output, generator, without)
                parts.append(kept.cpu().double().numpy())
        return self.schema_.restore(np.concatenate(parts)).astype(self.schema_.dtype, copy=False)

    def _left_over(self) -> torch.Tensor:
        """Mean residual of each domain (n_design, n_features)."""
        found = self.description_.left_over
        if not len(found):
            raise DataError(
                'residual="domain" needs the mean residual of each domain, which this model does not have: it was '
                "saved by an earlier version, or is a model of images. Fit again, or leave residual out."
            )
        return torch.from_numpy(found).to(self._device())

    def _offsets(self, X: DataLike) -> Floats:
        """What the batch of every row of ``X`` adds to η (rows, features)."""
        nuisance = self.schema_.nuisance
        table = as_table(X) if not hasattr(X, "obs") else X
        batches: Any = beside_features(table, table, None, nuisance.source)[1].batches
        offsets: Floats = nuisance.offsets(batches, len(batches))
        return offsets

    def adapt(self, X: DataLike | None = None, *, domain: LabelsLike) -> Self:
        """Return a fitted estimator with a further domain; this estimator is not changed.

        Only the prior of the new domain is learnt: encoder, decoder and all other domains are copied exactly, so
        ``transform`` gives the same latents as before. The effects are shrunk toward the mean domain, more strongly the
        more alike the known domains are (``docs/new_domains.md``).

        Parameters
        ----------
        X : array or table (n_samples, n_features), optional
            Rows of the new domain, at least 10. None if there is nothing to learn: for a new combination of known
            levels, whose effects add up, or for a value of a continuous column beyond its range.
        domain : label, mapping of column name to value, or table
            The new domain: one for all rows, or one label (or row of a table) per row. Nested columns need their
            parents. If ``X`` is a table with domain columns, the name of such a column can be passed instead.

        Returns
        -------
        estimator
            Of the same kind. ``adapted_`` names the domains that were added; ``effects_frame()`` has their means and
            spreads with 95 % intervals, which are those of the prior.

        Raises
        ------
        DomainError
            The model knows the domain, or has no prior of single domains (``IVAE``, and models that ignore domains).
        DataError, SchemaError
            Fewer than 10 rows of a new level, or rows that do not fit the model.

        Warns
        -----
        DataWarning
            A continuous column is outside its range, so that the prior is extrapolated; or the rows of a new level do
            not follow the mixing of the fit (``novelty``), so that what is learnt from them means little.

        Examples
        --------
        >>> from unmix import CGVAE, datasets
        >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=6, n_domains=4, n_samples=2000, random_state=2)
        >>> seen = data.domains < 3
        >>> model = CGVAE(n_latents=2, n_restarts=2, max_epochs=4, verbose=0).fit(data.x[seen], data.domains[seen])
        >>> wider = model.adapt(data.x[~seen], domain=3)
        >>> wider.domains_, wider.adapted_, model.domains_
        (('0', '1', '2', '3'), ('3',), ('0', '1', '2'))
        """
        check_is_fitted(self)
        result: Self = adapted(self, X, domain)
        return result

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self.missing == "mask"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def planned_epochs(self, n_samples: int) -> float:
        """Passes over so many rows that ``fit`` plans: ``max_epochs``, or its default number of steps.

        With ``n_latents="auto"`` those of the fit that follows the choice, or before it of the shortest.
        """
        epochs, part = planned_epochs(self, n_samples)
        return epochs * part

    def _check_words(self) -> None:
        need_all(self, {**COMMON, **self.checks})
        check_optimizer(self.optimizer, self.scheduler)
        self._check_settings()

    def _untrained(self, features: Any, domains: DomainSchema, fitted: Mapping[str, object]) -> FittedModel:
        names = [name for name in ("n_latents", "prior", "decoder") if self._chooses(name) and name in fitted]
        chosen = {name: fitted[name] for name in names}
        decided = clone(self).set_params(**chosen)
        return FittedModel(decided._network(features, domains, fitted["seed"], 1).single(0))

    def _chooses(self, name: str) -> bool:
        """Whether a setting is left to the data."""
        return getattr(self, name, None) == "auto"

    def _training_settings(self, n_samples: int, seed: int, has_held_out: bool) -> TrainingSettings:
        return training_settings(self, n_samples, seed, has_held_out)

    def _trained_further(
        self, data: Prepared, network: LatentModel, result: TrainingResult, train: Rows, held_out: Rows, fit: Further
    ) -> TrainingResult:
        """The result, after ``fit`` has trained copies of ``network`` where a subclass sees a reason."""
        return result

    def _finish(
        self,
        data: Prepared,
        network: LatentModel,
        rows: Rows,
        result: TrainingResult,
        words: dict[str, object],
    ) -> None:
        """Take what the training on ``rows`` found; ``words`` are the settings that it had."""
        self.fit_ = finish_fit(
            type(self),
            words,
            network,
            result,
            schema=data.features,
            domains=data.domains,
            rows=rows,
            train=rows.take(slice(0, data.n_train)),
            held_out=rows.take(slice(data.n_train, None)) if len(data.held_out) else None,
            groups=(data.groups[data.train], data.groups[data.held_out]),
            residuals=self.examines_residuals,
        )
        conclude(self.verbose, self.fit_)

    def _prepare(self, X: DataLike, y: LabelsLike, seed: int) -> Prepared:
        """Checked data of a fit."""
        return prepare(
            X,
            y,
            n_latents=int(self.n_latents),
            missing=self.missing,
            auxiliary=self.auxiliary,
            min_domain_rows=self.min_domain_rows,
            validation_fraction=self.validation_fraction,
            **self._kinds(),
        )

    def _kinds(self) -> KindWords:
        """What a subclass says of the features' likelihoods, as ``prepare`` takes it."""
        return {}

    def _traversed(
        self, X: DataLike, y: LabelsLike
    ) -> tuple[torch.Tensor, Callable[[torch.Tensor], NDArray[np.number]]]:
        rows = self._labelled_rows(X, y) if self.reads_domains else self._new_rows(as_table(X))
        z = torch.from_numpy(mean_latents(self.model_, rows)).float().to(self._device())
        return z, lambda other: self._decode(other @ self.model_.expansion)

    def _labelled_rows(self, X: DataLike, y: LabelsLike) -> Rows:
        """New rows with their domains, where the model uses them."""
        return self._new_rows(*separate(X, y, self._layer()), with_domain=self.uses_domains, given=X)

    def _audited(self, X: DataLike, y: LabelsLike) -> tuple[Rows, LabelsLike]:
        """New rows, and their domains as given."""
        table, y = separate(X, y, self._layer())
        return self._new_rows(table, y, with_domain=True, given=X), y

    def _new_rows(
        self, table: DataLike, y: LabelsLike = None, *, with_domain: bool = False, given: DataLike | None = None
    ) -> Rows:
        """Rows of new data, after the schema has been enforced; the model's own domain columns may be among them.

        ``given`` is what the user passed, which may have more than the ``table`` of features.
        """
        table = as_fitted(table, self.schema_, self.domain_schema_)
        sizes, nuisance = self.schema_.sizes, self.schema_.nuisance
        table, beside = beside_features(given, table, sizes and sizes.source, nuisance and nuisance.source)
        cells = read_cells(table)
        if cells.shape[1] == self.n_features_in_ and (not self.schema_.named or column_names(table) is None):
            check_columns(cells, table, self.schema_)
        try:
            validate_data(self, header(table), reset=False, skip_check_array=True)
        except ValueError as error:
            raise SchemaError(
                f"{str(error).rstrip()}\nThe model was fitted on the columns [{listed(self.schema_.names)}], in "
                "this order; select them from the table first."
            ) from error
        masked = self.model_.masked
        check_values(cells, self.schema_.names, "mask" if masked else "error")
        encoded = self.domain_schema_.encode(y, len(cells)) if with_domain else None
        return rows_for(cells, self.schema_, self.domain_schema_, encoded, masked, beside).to(self._device())

    def _encode(self, table: DataLike, rows: Rows) -> NDArray[np.floating]:
        """Posterior means of ``rows``, in the type that ``table`` asks for."""
        return mean_latents(self.model_, rows).astype(output_dtype(table), copy=False)

    def _decode(self, z: torch.Tensor) -> NDArray[np.number]:
        result = np.empty((len(z), self.n_features_in_), dtype=self.schema_.dtype)
        with torch.no_grad():
            for place in blocks(len(z), self.n_features_in_):
                mean = self.model_.likelihood.mean(self.model_.decode(z[place])).cpu().double().numpy()
                result[place] = self.schema_.restore(mean)
        return result


def _said(column: Column) -> tuple[object, ...]:
    """What a column of domains must share with that of the fit which is continued."""
    return column.name, column.kind, column.levels, column.parent
