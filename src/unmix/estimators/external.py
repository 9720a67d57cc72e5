"""Methods whose code lives in packages of their own, behind the same fit and transform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from unmix.data.annotated import Annotated
from unmix.data.columns import check_columns
from unmix.data.matrix import check_values, numeric_matrix
from unmix.data.tables import as_table
from unmix.errors import DomainError, SettingError
from unmix.estimators.atomic import atomic
from unmix.estimators.prepare import in_layer, output_dtype, prepare
from unmix.forms import DataLike, LabelsLike
from unmix.nets.state import methods_in_own_state
from unmix.validation import RandomLike, random_seed


@methods_in_own_state
@dataclass(eq=False, repr=False)
class CEBRA(TransformerMixin, BaseEstimator):
    """Contrastive embedding of rows by their domains, by the package ``cebra``, which must be installed.

    Schneider, Lee, Mathis: Learnable latent embeddings for joint behavioural and neural analysis, Nature 2023,
    arXiv:2204.00673. There is no decoder, so there is neither mixing nor score. Features are standardised inside;
    categorical columns of y become one discrete label, continuous ones (see ``auxiliary`` of ``unmix.CGVAE``) an index
    of behaviour.

    Parameters
    ----------
    n_latents : int, default 4
    max_iterations, batch_size, learning_rate : int, int, float, default 5000, 512 and 3e-4
    distance : {"cosine", "euclidean"}, default "cosine"
        "cosine" puts the latents on a sphere.
    auxiliary, min_domain_rows, random_state : as in ``unmix.CGVAE``
    device : {"cuda_if_available", "cpu", "cuda", "mps"}, default "cuda_if_available"
    options : mapping, optional
        Further words for ``cebra.CEBRA``.

    Examples
    --------
    >>> from unmix.baselines import CEBRA
    >>> z = CEBRA(n_latents=3).fit(x, domains).transform(x)     # doctest: +SKIP
    """

    n_latents: int = 4
    _: KW_ONLY
    max_iterations: int = 5_000
    batch_size: int = 512
    learning_rate: float = 3e-4
    distance: str = "cosine"
    auxiliary: Mapping[str, str] | None = None
    min_domain_rows: int = 10
    device: str = "cuda_if_available"
    random_state: RandomLike = 0
    options: Mapping[str, object] | None = None

    @atomic
    def fit(self, X: DataLike, y: LabelsLike = None, *, layer: str | None = None) -> Self:
        """Learn an embedding in which rows of the same domain lie close together; ``layer`` as in ``CGVAE.fit``.

        Raises
        ------
        SettingError
            The package ``cebra`` is not installed.
        DomainError
            ``y`` is missing.
        """
        method = _cebra()
        if y is None:
            raise DomainError("CEBRA contrasts rows by their domains; pass one label per row, or a table, as y.")
        data = prepare(
            in_layer(X, layer),
            y,
            n_latents=self.n_latents,
            missing="refuse",
            auxiliary=self.auxiliary,
            min_domain_rows=self.min_domain_rows,
            validation_fraction=0.0,
        )
        seed = random_seed(self.random_state)
        model = method(
            output_dimension=self.n_latents,
            max_iterations=self.max_iterations,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            distance=self.distance,
            device=self.device,
            **(self.options or {}),
        )
        labels = [data.rows.values.numpy()] if data.domains.n_continuous else []
        labels += [data.groups] if data.domains.categorical else []
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model.fit(data.rows.x.numpy(), *labels)
        self.model_, self.schema_, self.domains_ = model, data.features, data.domains.domains
        self.n_features_in_ = len(data.features.names)
        return self

    def transform(self, X: DataLike) -> NDArray[np.floating]:
        """Embedding (n_samples, n_latents)."""
        check_is_fitted(self)
        table = as_table(X, self.schema_.layer)
        if isinstance(table, Annotated):
            table = table.aligned(self.schema_.names)
        matrix = numeric_matrix(table)
        check_columns(matrix, table, self.schema_)
        check_values(matrix, self.schema_.names, "refuse")
        latents = self.model_.transform(self.schema_.standardise(matrix))
        return np.asarray(latents).astype(output_dtype(table), copy=False)


def _cebra() -> Any:
    try:
        from cebra import CEBRA as method  # noqa: N811 - a class of the same name
    except ImportError as error:
        raise SettingError(
            "CEBRA needs the package cebra, which is not installed here. Install it with: pip install cebra"
        ) from error
    return method
