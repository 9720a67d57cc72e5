"""Entry points of an audit: a fitted model with rows, or a user's decoder with its latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import narwhals as nw
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from unmix.audit.agreement import SAME_LATENTS, agreement, all_worse, comparable
from unmix.audit.describe import Description
from unmix.audit.input import AuditInput, Reconstruction, ResidualDependence, Strata, evenly, stratify, subject_of_model
from unmix.audit.result import Audit
from unmix.audit.verdicts import audit_subject
from unmix.data.batches import Rows
from unmix.data.domains import DomainSchema
from unmix.errors import DataError
from unmix.forms import LabelsLike, familiar
from unmix.labels import label_texts
from unmix.models.base import FittedModel
from unmix.nets.jacobian import jacobian_columns
from unmix.nets.state import in_own_state

Floats = NDArray[np.float64]

N_POINTS = 256
_STEP = 1e-4


def audit_model(
    model: FittedModel,
    found: Description,
    *,
    domains: Sequence[str],
    names: Sequence[str],
    feature_names: Sequence[str],
    objective: ArrayLike,
    objective_error: ArrayLike,
    rows: tuple[Floats, Floats, Strata, Reconstruction] | None = None,
    residual: ResidualDependence | None = None,
    simplified: bool = False,
) -> Audit:
    """Audit of a fitted model on new ``rows``, or on the rows of its description.

    ``rows`` are posterior means, their widths, strata, and the reconstruction of each feature. ``objective`` (starts,)
    is the objective of every start on held-out rows, in nats per row; lower is better. ``objective_error`` (starts,) is
    the standard error of its difference from that of the kept start, NaN if unknown. ``residual`` is the dependence
    between residuals, None if unknown; ``simplified``: whether the fit returned a linear model because of it.
    """
    if rows is None:
        own, latents = Strata(found.strata, found.strata_group, found.strata_design), found.latents
        if len(found.audited_latents):
            own = Strata(found.audited_strata, found.audited_group, found.audited_design)
            latents = found.audited_latents
        rows = latents, found.latents_std, own, Reconstruction(found.r2, found.r2_variance)
    latents, widths, strata, reconstruction = rows
    best = int(found.best[0])
    # A start that failed has no finite objective, and is no evidence on the latents.
    reached = np.asarray(objective, dtype=float)
    others = np.array([s for s in range(len(reached)) if s != best and np.isfinite(reached[s])], dtype=np.int64)
    # A start that found other latents is no evidence on the edges of these; it is counted as disagreement.
    alike = others[found.agreement_latents[others].mean(axis=1) >= SAME_LATENTS]
    subject = subject_of_model(
        model,
        latents,
        widths.mean(axis=0),
        strata,
        domains=domains,
        names=names,
        feature_names=feature_names,
        starts=found.mixing_starts[[best, *alike]],
        agreement=found.agreement_latents[others],
        worse_by=reached[others] - reached[best],
        comparable=comparable(reached, objective_error, best)[others],
        all_worse=all_worse(reached, objective_error, best),
        reconstruction=reconstruction,
        residual=residual,
        simplified=simplified,
        variance=found.explained_variance if len(found.explained_variance) else None,
    )
    return audit_subject(subject)


@in_own_state
def audit_decoder(
    decode: Callable[[Floats], ArrayLike] | nn.Module,
    z: ArrayLike,
    domains: LabelsLike = None,
    *,
    auxiliary: Mapping[str, str] | None = None,
    jacobian: ArrayLike | None = None,
    x: ArrayLike | None = None,
    other_latents: Sequence[ArrayLike] = (),
    latent_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
) -> Audit:
    """Audit of any decoder, a function or a torch module, with the latents of some rows.

    Without a prior and an encoder, changes are measured by moments of the latents in every domain, and encoding is not
    checked.

    Parameters
    ----------
    decode : callable or torch.nn.Module
        Latents (n_samples, n_latents) to features (n_samples, n_features): a function of numpy arrays, or a module,
        which gets tensors in its own precision on its own device, in evaluation mode.
    z : float array (n_samples, n_latents)
        Latents of rows of the data, preferably of held-out rows.
    domains : labels (n_samples,), or table of auxiliary columns (n_samples, n_columns), optional
        Domain of every row, as in ``fit``: a domain is a combination of the categorical columns, and continuous columns
        are cut at quantiles, into about six parts. None: one domain.
    auxiliary : mapping of column name to {"categorical", "continuous", "within <column>"}, optional
        Kinds of the columns of ``domains``, as in ``CGVAE``.
    jacobian : float array (n_samples, n_features, n_latents), optional
        ∂x/∂z at ``z``. Default: at 256 of the rows the exact one of a module, central differences of a function.
    x : float array (n_samples, n_features), optional
        The features from which ``z`` was inferred, to check how well the decoder reproduces them. Default: no check.
    other_latents : sequence of float arrays (n_samples, n_latents)
        Latents of the same rows from other fits that fit as well. A latent is unsupported if even one of these finds
        another in its place. Default: reproducibility is not checked.
    latent_names, feature_names : sequence of str, optional
        Default: z0, z1, … and x0, x1, …

    Raises
    ------
    DataError
        Shapes that do not fit each other, or values that are not finite.
    DomainError
        Domains that cannot be used, such as undeclared numbers of more than 50 values.

    Examples
    --------
    >>> import numpy as np
    >>> import unmix
    >>> data = unmix.datasets.make_sparse_mixing(n_latents=3, n_features=9, n_domains=7, density=0.3, random_state=2)
    >>> audit = unmix.audit_decoder(data.mixing, data.z, data.domains)
    >>> audit.latents["verdict"].tolist()
    ['identified', 'identified', 'identified']
    >>> audit.finding("agreement").verdict
    'cannot tell'
    """
    if not callable(decode):
        raise DataError(
            f"decode must be a torch module, or a function from latents to features; got {type(decode).__name__}."
        )
    latents = _matrix(z, "z")
    n_rows, n = latents.shape
    function = _of_module(decode) if isinstance(decode, nn.Module) else decode
    features = _decoded(function, latents)
    labels, level = _strata(domains, n_rows, auxiliary)
    points = evenly(n_rows, N_POINTS)
    if jacobian is None:
        exact = _exact(decode, latents[points]) if isinstance(decode, nn.Module) else None
        slopes = _differences(function, latents[points], _scales(latents)) if exact is None else exact
    else:
        slopes = np.asarray(jacobian, dtype=float)
        if slopes.shape != (n_rows, features.shape[1], n) or not np.isfinite(slopes).all():
            raise DataError(
                f"jacobian must be finite and of shape (n_samples, n_features, n_latents) = "
                f"{(n_rows, features.shape[1], n)}; got shape {slopes.shape}. Leave it out to use finite differences."
            )
        slopes = slopes[points]
    fits = np.stack([latents, *(_matrix(other, "other_latents", latents.shape) for other in other_latents)])
    return audit_latents(
        latents,
        features,
        slopes,
        strata=level,
        domains=labels,
        names=_names(latent_names, n, "z", "latent_names"),
        feature_names=_names(feature_names, features.shape[1], "x", "feature_names"),
        x=None if x is None else _matrix(x, "x", features.shape, "decode(z)"),
        others=fits,
    )


def audit_latents(
    latents: Floats,
    features: Floats,
    slopes: Floats,
    *,
    strata: NDArray[np.int64],
    domains: Sequence[str],
    absent: Sequence[str] = (),
    names: Sequence[str],
    feature_names: Sequence[str],
    x: Floats | None = None,
    others: Floats | None = None,
) -> Audit:
    """Audit of latents (rows, n_latents), their decoded features, and the decoder's derivatives at some rows.

    ``strata`` (rows,), ``domains`` and ``absent`` are as in ``AuditInput``. ``features``
    (rows, n_features) are the decoded ones, ``x`` those that were encoded; ``slopes`` is (points, n_features,
    n_latents); ``others`` (fits, rows, n_latents) are the latents of all fits, this one first.
    """
    spread, unit = _scales(latents), _scales(features)
    scaled = slopes * spread / unit[:, None]
    return audit_subject(
        AuditInput(
            latents=(latents - latents.mean(axis=0)) / spread,
            strata=strata,
            domains=tuple(domains),
            absent=tuple(absent),
            names=tuple(names),
            feature_names=tuple(feature_names),
            jacobian=scaled,
            starts=np.abs(scaled).mean(axis=0)[None],
            agreement=agreement(latents[None] if others is None else others).latents[0, 1:],
            reconstruction=None if x is None else _kept(x, features),
        )
    )


def _kept(x: Floats, decoded: Floats) -> Reconstruction:
    """Reconstruction of the features by ``decoded``; their unit is the larger of both spreads."""
    error, variance = ((x - decoded) ** 2).mean(axis=0), np.where(np.ptp(x, axis=0) > 0, x.var(axis=0), 0.0)
    r2 = np.where(variance > 0, 1.0 - error / np.where(variance > 0, variance, 1.0), np.nan)
    return Reconstruction(r2, variance / np.maximum(np.maximum(variance, decoded.var(axis=0)), 1e-300))


def _matrix(values: ArrayLike, what: str, shape: tuple[int, ...] | None = None, whose: str = "z") -> Floats:
    try:
        matrix = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} must be a matrix of numbers: {error}.") from error
    if matrix.ndim != 2 or 0 in matrix.shape or (shape is not None and matrix.shape != shape):
        expected = f"{shape}, the shape of {whose}" if shape is not None else "(n_samples ≥ 1, n_latents ≥ 1)"
        raise DataError(
            f"{what} must be a matrix of shape {expected}; got shape {matrix.shape}. Pass one row per sample."
        )
    if not np.isfinite(matrix).all():
        raise DataError(f"{what} must be finite; it holds NaN or infinite values. Drop those rows.")
    return matrix


def _of_module(module: nn.Module) -> Callable[[Floats], Floats]:
    """A module as a function of numpy arrays."""

    def decode(latents: Floats) -> Floats:
        with torch.no_grad(), _evaluated(module) as like:
            found: Floats = familiar(module(torch.as_tensor(latents).to(like)))
        return found

    return decode


def _exact(module: nn.Module, points: Floats) -> Floats | None:
    """Derivatives (points, n_features, n_latents) by forward differentiation; None where the module does not allow it.

    A row must not depend on the others, as of any decoder.
    """
    with torch.no_grad(), _evaluated(module) as like:
        z = torch.as_tensor(points).to(like)
        try:
            found = jacobian_columns(module, z, torch.arange(z.shape[1], device=z.device))
        except (RuntimeError, NotImplementedError):
            return None
    slopes = found.permute(1, 2, 0).cpu().double().numpy()
    return slopes if np.isfinite(slopes).all() else None


@contextmanager
def _evaluated(module: nn.Module) -> Iterator[torch.Tensor]:
    """A module in evaluation mode, and a tensor of its precision and device."""
    modes = {own: own.training for own in module.modules()}
    module.eval()
    try:
        floats = (own for own in module.parameters() if own.is_floating_point())
        yield next(floats, torch.zeros(())).detach()
    finally:
        for own, training in modes.items():
            own.training = training


def _decoded(decode: Callable[[Floats], ArrayLike], latents: Floats) -> Floats:
    try:
        features = np.asarray(familiar(decode(latents)), dtype=float)
    except Exception as error:
        text = " ".join(str(error).split())
        raise DataError(
            f"decode failed on latents, a numpy array of shape {latents.shape}: {type(error).__name__}: {text}. Pass a "
            "torch module itself, or a function of numpy arrays."
        ) from error
    if features.ndim != 2 or len(features) != len(latents) or not np.isfinite(features).all():
        raise DataError(
            f"decode must give finite features of shape (n_samples, n_features) for latents of shape {latents.shape}; "
            f"got shape {features.shape}. Wrap your decoder so that it takes and returns numpy matrices."
        )
    return features


def _differences(decode: Callable[[Floats], ArrayLike], points: Floats, spread: Floats) -> Floats:
    """Central differences (points, n_features, n_latents)."""
    slopes = []
    for i, size in enumerate(_STEP * spread):
        step = size * (np.arange(points.shape[1]) == i)
        slopes.append((_decoded(decode, points + step) - _decoded(decode, points - step)) / (2 * size))
    return np.stack(slopes, axis=2)


def _strata(
    domains: LabelsLike, n_rows: int, auxiliary: Mapping[str, str] | None
) -> tuple[Sequence[str], NDArray[np.int64]]:
    """Names of the strata, and which of them each row is in."""
    values: Any = familiar(domains)
    table = isinstance(values, Mapping) or nw.dependencies.is_into_dataframe(values)
    if auxiliary or table or (isinstance(values, np.ndarray) and values.ndim == 2 and values.shape[1] > 1):
        schema, encoded, groups = DomainSchema.learn(values, n_rows, auxiliary, 1)
        rows = Rows.build(np.zeros((n_rows, 0)), encoded, schema.sizes, False)
        found = stratify(rows, groups)
        return found.names(schema.domains), found.labels
    given = ["all"] * n_rows if domains is None else label_texts(domains, "domains", n_rows, of="rows of z")
    labels, level = np.unique(np.array(given), return_inverse=True)
    return labels.tolist(), level.astype(np.int64)


def _scales(values: Floats) -> Floats:
    """Standard deviation of every column; 1 for a constant column."""
    spread = values.std(axis=0)
    return np.where(spread > 0, spread, 1.0)


def _names(given: Sequence[str] | None, count: int, letter: str, what: str) -> tuple[str, ...]:
    names = [f"{letter}{k}" for k in range(count)] if given is None else [str(name) for name in given]
    if len(names) != count or len(set(names)) < count:
        raise DataError(f"{what} must be {count} different names; got {names[:10]}.")
    return tuple(names)
