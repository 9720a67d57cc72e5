"""What a fitted model with latents says of itself: audit, checks of new rows, tables of its effects, the report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd
from sklearn.utils.validation import check_is_fitted

from unmix.audit.counterfactuals import CounterfactualCheck, check_counterfactuals
from unmix.audit.notes import Note
from unmix.audit.novelty import Novelty
from unmix.audit.result import Audit
from unmix.data.batches import Rows
from unmix.errors import DataError, DomainError, warn
from unmix.estimators import loadings, novel_rows
from unmix.estimators.left_out import left_out_finding
from unmix.files import file_to_write
from unmix.fits.audited import NewRows, audit_fit, new_rows
from unmix.fits.latent import LatentFit
from unmix.forms import DataLike, LabelsLike
from unmix.nets.state import methods_in_own_state
from unmix.report.html import write_report


@methods_in_own_state
class Diagnostics(ABC):
    """Mixin of estimators with a ``LatentFit``: methods that examine the fit, alone or with new rows."""

    fit_: LatentFit

    @property
    def counterfactuals_(self) -> CounterfactualCheck | None:
        """Result of ``check_counterfactuals`` at fit; None if the model ignores domains or no row was held out."""
        check_is_fitted(self)
        return self.fit_.summary.counterfactuals

    def check_counterfactuals(self, X: DataLike | None = None, y: LabelsLike = None) -> CounterfactualCheck:
        """Test whether rows that are translated to a domain look like rows of that domain, feature by feature.

        For every domain, the rows of all other domains are translated to it, as by ``translate``, and compared with
        its own rows by two-sample Kolmogorov-Smirnov tests. If the model is right, 95 of 100 such tables reject
        nothing.

        Parameters
        ----------
        X, y : rows and their domains, as in ``fit``; optional
            Default: the rows that were held out at fit. With more new rows smaller differences can be detected.

        Returns
        -------
        CounterfactualCheck
            ``to_frame()``: one row per domain and feature, with the distance after and before translation, difference
            of means, ratio of spreads, and p-values; printing it gives a short summary.

        Raises
        ------
        SchemaError, DomainError, DataError
            The rows have other columns than the model, or unknown domains; or no rows are given and the fit held none
            out.
        """
        self._needs_domain_prior()
        if X is not None:
            new = self._audited_rows(X, y)
            _warn(new.notes)
            return check_counterfactuals(
                self.fit_.model, new.rows, new.groups, self.fit_.domains.domains, self.fit_.schema.names
            )
        if y is not None:
            raise DataError("y was passed without X. Pass both X and y, or neither.")
        found = self.fit_.summary.counterfactuals
        if found is None:
            raise DataError("The fit held no rows out. Pass new rows and their domains as X and y.")
        return found

    def novelty(self, X: DataLike, y: LabelsLike = None) -> Novelty:
        """Test how far rows and whole new domains lie outside the data of the fit, and whether that matters.

        There are two parts: latents beyond those of the known domains, which is normal for new domains, and features
        that the mixing of the fit does not explain, in which case the latents mean nothing (``docs/new_domains.md``).
        Both are calibrated on the rows that were held out at fit.

        Parameters
        ----------
        X : rows, as in ``transform``
        y : labels (n_samples,) or table of them, optional
            The domain of each row, known or not; each domain is tested. None: all rows are of one domain.

        Returns
        -------
        Novelty
            ``domains`` and ``rows``, two tables with p-values; ``new_mixing``, ``new_latents``; printing it gives a
            sentence or two on each domain.

        Raises
        ------
        DataError
            The fit held no rows out, or the model was saved by an older version.
        DomainError
            The encoder takes the domain (``IVAE``).
        SchemaError
            The rows do not fit the model.

        Examples
        --------
        >>> from unmix import CGVAE, datasets
        >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=5, n_domains=3, n_samples=900)
        >>> model = CGVAE(n_latents=2, n_restarts=2, max_epochs=2, verbose=0).fit(data.x, data.domains)
        >>> model.novelty(data.x[:300]).new_mixing, model.novelty(data.x[:300, ::-1]).new_mixing
        (False, True)
        """
        check_is_fitted(self)
        return novel_rows.novelty_of(self, X, y)

    def audit(self, X: DataLike | None = None, y: LabelsLike = None, *, leave_one_out: bool = False) -> Audit:
        """Test which latents the data identify, and why: a verdict for every latent and every condition of the theory.

        Parameters
        ----------
        X, y : rows and their domains, as in ``fit``; optional
            Default: the rows that were held out at fit, and also the training rows of domains that have at least 90
            of them, where training does not bias the tests.
        leave_one_out : bool, default False
            Also fit again without each domain of ``X`` in turn, and report in a further finding, "left-out domains",
            which latents are not found again. Pass all rows of the fit; it takes as many fits as there are domains.

        Warns
        -----
        DataWarning
            The rows were used in training, are unlike those of the fit, have features that do not vary, or have new
            combinations of domain levels; ``notes`` of the result say the same.

        Returns
        -------
        Audit
            ``latents`` (one row per latent: verdict, block, domains needed, reason), ``findings`` (one for each
            condition), ``to_frame()``, ``to_dict()``; printing it gives a page of text. ``docs/audit.md`` explains how
            to read it.

        Raises
        ------
        SchemaError, DomainError, DataError
            The rows have other columns than the model, an unknown domain, or no known domain.

        Examples
        --------
        >>> from unmix import CGVAE, datasets
        >>> data = datasets.make_sparse_mixing(n_latents=2, n_features=6, n_domains=3, n_samples=600)
        >>> model = CGVAE(n_latents=2, n_restarts=2, max_epochs=2, verbose=0).fit(data.x, data.domains)
        >>> audit = model.audit()                           # far too short a training: nothing to believe
        >>> audit.latents["verdict"].isin(["identified", "block", "unsupported", "not tested"]).all()
        np.True_
        """
        check_is_fitted(self)
        if X is None and y is not None:
            raise DataError("y was passed without X. Use audit(X, y), or audit().")
        if leave_one_out and X is None:
            raise DataError("leave_one_out needs the rows of the fit: audit(X, y, leave_one_out=True).")
        new = None if X is None else self._audited_rows(X, y)
        found = audit_fit(self.fit_, new)
        if new is not None:
            _warn(new.notes)
        if leave_one_out and X is not None:
            found = replace(found, findings=[*found.findings, left_out_finding(self, X, y)])
        return found

    def report(self, path: str | Path) -> Path:
        """Write the report of this fit, one self-contained HTML file, and return its path."""
        check_is_fitted(self)
        return write_report(self.fit_, self.audit(), file_to_write(path))

    def mixing_frame(self, *, signed: bool = False) -> pd.DataFrame:
        """``mixing_`` with feature names as rows and latent names as columns.

        ``signed=True``: loadings, the mean over rows of ∂x/∂z with its sign, in standard deviations of the feature per
        standard deviation of the latent. They are smaller than ``mixing_`` if a feature rises with a latent in some
        rows and falls in others.
        """
        check_is_fitted(self)
        return loadings.mixing_frame(self.fit_, signed=signed)

    def top_features(self, n: int = 10) -> pd.DataFrame:
        """The ``n`` features that each latent drives most, one row per latent and feature.

        Columns: ``latent``, ``rank`` from 1, ``feature``, ``mixing``, and ``loading``, which is signed.
        """
        check_is_fitted(self)
        return loadings.top_features(self.fit_, n)

    def explained_variance_frame(self) -> pd.DataFrame:
        """Share of the features' variance that each latent accounts for in each domain, one row per pair.

        ``within``: ``explained_variance_ratio_`` times the variance of the latent in the domain; ``shift``: times the
        squared difference of its mean from the mean over all rows. Weighted by the rows of the domains, the sum of
        both is about ``explained_variance_ratio_``.
        """
        check_is_fitted(self)
        return loadings.explained_variance_frame(self.fit_)

    def effects_frame(self) -> pd.DataFrame:
        """How each domain moves each latent, one row per pair, with 95 % intervals; in units of the latent's spread."""
        check_is_fitted(self)
        return self.fit_.summary.effects_frame(self.fit_.domains.domains, self.fit_.latent_names)

    def _needs_domain_prior(self) -> None:
        check_is_fitted(self)
        if not self.fit_.kind.uses_domains:
            raise DomainError(
                f"{type(self).__name__} has one prior for all domains, so it has no counterfactuals. "
                "Use CGVAE, IVAE or IMSDA."
            )

    @abstractmethod
    def _audited(self, X: DataLike, y: LabelsLike) -> tuple[Rows, LabelsLike]:
        """New rows, and their domains as given."""

    def _audited_rows(self, X: DataLike, y: LabelsLike) -> NewRows:
        """Rows for an audit, their domains, and what is to be said of them."""
        rows, y = self._audited(X, y)
        return new_rows(self.fit_, rows, self.fit_.domains.groups(y, len(rows)))


def _warn(notes: Iterable[Note]) -> None:
    """A warning for each note, where the user called the method that calls this."""
    for note in notes:
        warn(note.sentence)
