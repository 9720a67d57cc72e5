r"""What the checks look at, from any model: latents of rows, their domains, derivatives of decoder and prior.

Latents are in the model's own frame (standard deviation near 1), features in units of their standard deviation. With
:math:`\eta_i(z_i, u) = \log p(z_i \mid u)` the prior enters through its derivatives :math:`\eta'_i` and
:math:`\eta''_i` at some of the rows' latents, for every domain.

Domains are *strata* here: the combinations of categorical levels and, where a domain column is continuous, parts of its
range between quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unmix.data.batches import Rows
from unmix.models.base import FittedModel
from unmix.nets.jacobian import rows_at_once

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST_ROWS = 20
LEAST_TRAINING_ROWS = 90
LEAST_SHARED = 0.01
_POINTS = 256
_LEAST_POINTS = 32
_PRIOR_POINTS = 32
_MOST_ROWS = 5000
_ROWS_A_STRATUM = 100
_SIMULATED = 20_000
_SIMULATED_A_STRATUM = (50, 2000)
_SIMULATED_ENTRIES = 20_000_000
_PARTS = 6
_RELABELLINGS = 5


@dataclass(frozen=True)
class Strata:
    """``labels`` (rows,) index into the strata, -1 for none; ``group`` (strata,) the domain; ``design`` (strata, ·)."""

    labels: Ints
    group: Ints
    design: Floats

    def names(self, domains: Sequence[str]) -> tuple[str, ...]:
        """A name for every stratum: its domain's, with the part of the range where a domain was divided."""
        parts = np.bincount(self.group, minlength=len(domains))
        seen = np.zeros_like(parts)
        names = []
        for group in self.group:
            seen[group] += 1
            part = f" (part {seen[group]} of {parts[group]})" if parts[group] > 1 else ""
            names.append(f"{domains[group]}{part}")
        return tuple(names)


def stratify(rows: Rows, groups: Ints) -> Strata:
    """Strata of rows whose domain is ``groups``; continuous columns are cut at quantiles, into about six parts."""
    return strata_of(rows.design.cpu().double().numpy(), rows.values.cpu().double().numpy(), groups)


def strata_of(design: Floats, values: Floats, groups: Ints) -> Strata:
    """As ``stratify``, from the design matrix (rows, ·) and the continuous columns (rows, ·)."""
    keys = groups[:, None]
    if values.shape[1]:
        parts = max(2, round(_PARTS ** (1.0 / values.shape[1])))
        inner = np.quantile(values, np.arange(1, parts) / parts, axis=0)
        keys = np.column_stack([groups, (values[:, None, :] > inner).sum(axis=1)])
    found, labels = np.unique(keys[groups >= 0], axis=0, return_inverse=True)
    placed = np.full(len(groups), -1, dtype=np.int64)
    placed[groups >= 0] = labels.reshape(-1)
    means = [design[placed == stratum].mean(axis=0) for stratum in range(len(found))]
    return Strata(placed, found[:, 0].astype(np.int64), np.array(means).reshape(len(found), design.shape[1]))


@dataclass(frozen=True)
class Simulated:
    """Rows that the fitted model makes, encoded again: what its latents look like where the model is right.

    ``z``, ``read`` (rows, n_latents): latents drawn from the prior, and the posterior means of what they decode to with
    noise; ``strata`` (rows,), the same number of rows in each. ``round_trip`` (n_latents,): squared correlation of the
    latents with the posterior means of what they decode to without noise.
    """

    z: Floats
    read: Floats
    strata: Ints
    round_trip: Floats

    @cached_property
    def ceiling(self) -> Floats:
        """Correlation (n_latents,) of the latents with what is read off: noise alone keeps any reading below it."""
        return paired_correlation(self.z, self.read)

    def only(self, kept: Sequence[int]) -> Simulated:
        own = list(kept)
        return Simulated(self.z[:, own], self.read[:, own], self.strata, self.round_trip[own])


def paired_correlation(first: Floats, second: Floats) -> Floats:
    """Absolute correlation of every column of one matrix with the same column of the other; 0 for a constant one."""
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    size = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    result: Floats = np.abs((a * b).sum(axis=0)) / np.maximum(size, 1e-300)
    return result


@dataclass(frozen=True)
class Reconstruction:
    """What encoding and decoding keeps of every feature on some rows.

    Attributes
    ----------
    r2 : (n_features,), R²; NaN where the feature does not vary on these rows
    variance : (n_features,), of the feature on these rows, in units of that in the fit; 0 where it does not vary
    """

    r2: Floats
    variance: Floats

    @property
    def still(self) -> int:
        """Features that do not vary on these rows; they have no R²."""
        return int((self.variance == 0).sum())

    @property
    def kept(self) -> float:
        """Mean R² (each from -1) of the features; NaN where none varies.

        A feature counts by its variance, and never for more than in the fit: neither one that hardly varies on these
        rows, whose R² has no lower limit, nor one with a far row can speak for all.
        """
        weight = np.minimum(self.variance, 1.0)
        if not weight.any():
            return float("nan")
        return float(np.average(np.maximum(np.where(weight > 0, self.r2, 0.0), -1.0), weights=weight))


@dataclass(frozen=True)
class ResidualDependence:
    """The two features whose residuals depend on each other most, first of those that share enough to matter.

    Attributes
    ----------
    correlation : float
        Largest absolute rank correlation of two features' residuals within domains; 0 with a single feature.
    limit : float
        What it exceeds in 1 % of permutations within domains, over all pairs; infinite with too few rows.
    share : float
        What the two residuals have in common, as a share of a feature's variance.
    features : tuple
        The two features, by name or index; empty with a single one.
    copies : tuple of pairs of features
        Of which the latents leave nearly the same (correlation 0.95 or more), and little; five at most.
    """

    correlation: float
    limit: float
    share: float
    features: tuple[Any, ...]
    copies: tuple[tuple[Any, Any], ...] = ()

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> ResidualDependence:
        """Of its fields; JSON has null for an infinite limit."""
        limit = np.inf if raw["limit"] is None else raw["limit"]
        copies = tuple((first, second) for first, second in raw.get("copies", ()))
        return cls(raw["correlation"], limit, raw["share"], tuple(raw["features"]), copies)

    def exceeds(self, size: float, share: float = LEAST_SHARED) -> bool:
        """Whether the correlation is beyond chance and larger than ``size``, of residuals that share enough."""
        return self.share >= share and self.correlation > max(self.limit, size)


@dataclass(frozen=True)
class AuditInput:
    """Everything the checks take.

    Attributes
    ----------
    latents : (rows, n_latents)
    strata : (rows,) int, index into ``domains``; -1: none of them
    domains : names of the strata
    absent : names of domains that the model knows and the rows lack
    names, feature_names : of latents and features
    jacobian : (points, n_features, n_latents), ∂x/∂z of the decoder, scale-free
    starts : (starts, n_features, n_latents), mean |∂x/∂z| of each start, the audited one first, latents matched to its
    agreement : (starts - 1, n_latents), correlation of each latent with its partner in every other start
    worse_by : (starts - 1,), by how many nats a row every other start fits worse than the audited one, or None
    width : (n_latents,), mean posterior standard deviation, or None
    slopes, curvatures : (points, strata, n_latents), η' and η'' of a prior that knows domains, or None
    simulated : rows that the model makes, encoded again, or None
    reconstruction : what encoding and decoding keeps of the rows, or None
    relabelled, relabelled_strata : (shuffles, rows, n_latents) and (shuffles, rows), latents of decoded rows encoded
        with shuffled domain labels, and those; None where the encoder takes no domains
    residual : the two features that depend on each other most, given the latents, or None where that is not known
    variance : (n_latents,), share of the features' variance that each latent accounts for, or None
    unit, kept : what the Jacobian is in, and what encoding and decoding keeps of a feature, as in ``Likelihood``
    """

    latents: Floats
    strata: Ints
    domains: tuple[str, ...]
    absent: tuple[str, ...]
    names: tuple[str, ...]
    feature_names: tuple[str, ...]
    jacobian: Floats
    starts: Floats
    agreement: Floats
    worse_by: Floats | None = None
    width: Floats | None = None
    slopes: Floats | None = None
    curvatures: Floats | None = None
    simulated: Simulated | None = None
    reconstruction: Reconstruction | None = None
    relabelled: Floats | None = None
    relabelled_strata: Ints | None = None
    residual: ResidualDependence | None = None
    variance: Floats | None = None
    unit: str = "standard deviations"
    kept: str = "variance"

    @property
    def n_latents(self) -> int:
        return self.latents.shape[1]

    def only(self, kept: Sequence[int]) -> AuditInput:
        """The same with these latents alone."""
        own = list(kept)

        def cut(values: Floats | None) -> Floats | None:
            return None if values is None else values[..., own]

        return replace(
            self,
            latents=self.latents[:, own],
            names=tuple(self.names[i] for i in own),
            jacobian=self.jacobian[..., own],
            starts=self.starts[..., own],
            agreement=self.agreement[..., own],
            width=cut(self.width),
            slopes=cut(self.slopes),
            curvatures=cut(self.curvatures),
            simulated=None if self.simulated is None else self.simulated.only(own),
            variance=cut(self.variance),
            relabelled=cut(self.relabelled),
        )

    @cached_property
    def counts(self) -> Ints:
        """Rows of every stratum."""
        return np.bincount(self.strata[self.strata >= 0], minlength=len(self.domains)).astype(np.int64)

    @cached_property
    def large(self) -> Ints:
        """Strata with enough rows for a test."""
        return np.flatnonzero(self.counts >= LEAST_ROWS)

    @property
    def untested_domains(self) -> bool:
        """Whether there are several domains, but no two with rows enough to compare them."""
        return len(self.large) < 2 and len(self.domains) + len(self.absent) > 1

    @cached_property
    def tested(self) -> tuple[Floats, Ints]:
        """Latents and labels 0 … of the rows of the large strata, at most 5,000 of them or 100 a stratum."""
        label = np.full(len(self.domains) + 1, -1, dtype=np.int64)
        label[self.large] = np.arange(len(self.large))
        placed = label[self.strata]
        rows = np.flatnonzero(placed >= 0)
        rows = rows[evenly(len(rows), max(_MOST_ROWS, _ROWS_A_STRATUM * len(self.large)))]
        return self.latents[rows], placed[rows]


def evenly(n_rows: int, most: int) -> Ints:
    """At most ``most`` row numbers, evenly spaced."""
    return np.unique(np.linspace(0, n_rows - 1, min(n_rows, most)).round().astype(np.int64)) if n_rows else np.arange(0)


def subject_of_model(
    model: FittedModel,
    latents: Floats,
    width: Floats,
    strata: Strata,
    *,
    domains: Sequence[str],
    names: Sequence[str],
    feature_names: Sequence[str],
    starts: Floats,
    agreement: Floats,
    worse_by: Floats | None = None,
    reconstruction: Reconstruction | None = None,
    residual: ResidualDependence | None = None,
    variance: Floats | None = None,
) -> AuditInput:
    """A fitted model and the posterior means of some rows; no features are needed."""
    n_points = max(_LEAST_POINTS, rows_at_once(1, model.n_latents, len(feature_names)))
    spread = latents[evenly(len(latents), min(_POINTS, n_points))]
    present = {int(group) for group in strata.group}
    slopes, curvatures = prior_derivatives(model, spread[evenly(len(spread), _PRIOR_POINTS)], strata.design)
    again, labels = relabel(model, latents, strata)
    return AuditInput(
        latents=latents,
        strata=strata.labels,
        domains=strata.names(domains),
        absent=tuple(name for index, name in enumerate(domains) if index not in present),
        names=tuple(names),
        feature_names=tuple(feature_names),
        jacobian=_jacobian(model, spread),
        starts=starts,
        agreement=agreement,
        worse_by=worse_by,
        width=width,
        slopes=slopes,
        curvatures=curvatures,
        simulated=simulate(model, strata, len(feature_names)),
        reconstruction=reconstruction,
        relabelled=again,
        relabelled_strata=labels,
        residual=residual,
        variance=variance,
        unit=model.likelihood.unit,
        kept=model.likelihood.kept,
    )


def prior_derivatives(model: FittedModel, points: Floats, design: Floats) -> tuple[Floats | None, Floats | None]:
    """η' and η'' (points, strata, n_latents) of the fitted prior; None if it is the same in every stratum."""
    n_strata = len(design)
    z = _tensor(model, np.repeat(points, n_strata, axis=0)).requires_grad_()
    u = _tensor(model, np.tile(design, (len(points), 1)))
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(model.prior(u).log_prob(z).sum(), z, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), z, allow_unused=True)
    shape = (len(points), n_strata, points.shape[1])
    first = slope.detach().cpu().double().numpy().reshape(shape)
    if np.ptp(first, axis=1).max(initial=0.0) < 1e-6:
        return None, None
    second = np.zeros(shape) if curvature is None else curvature.detach().cpu().double().numpy().reshape(shape)
    return first, second


@torch.no_grad()
def simulate(model: FittedModel, strata: Strata, n_features: int) -> Simulated | None:
    """Latents drawn from the prior of every stratum, decoded with the model's noise and encoded again."""
    n_strata = len(strata.design)
    if not n_strata:
        return None
    total = min(_SIMULATED, _SIMULATED_ENTRIES // n_features)
    each = int(np.clip(total // n_strata, *_SIMULATED_A_STRATUM))
    labels = np.tile(np.arange(n_strata), each)
    generator, parts, size = torch.Generator().manual_seed(0), [], max(1, _SIMULATED_ENTRIES // 4 // n_features)
    for begin in range(0, len(labels), size):
        design = _tensor(model, strata.design[labels[begin : begin + size]])
        z = model.prior(design).from_noise(torch.randn(len(design), model.n_latents, generator=generator).to(design))
        likelihood, output = model.likelihood, model.decode(z)
        sizes = likelihood.sizes(len(z), generator)
        noisy = likelihood.inputs(likelihood.sample(output, generator, sizes), sizes)
        x = likelihood.inputs(likelihood.mean(output))
        parts.append([z, _encoded(model, noisy, design), _encoded(model, x, design)])
    drawn, read, back = (torch.cat(own).cpu().double().numpy() for own in zip(*parts, strict=True))
    return Simulated(drawn, read, labels, paired_correlation(drawn, back) ** 2)


@torch.no_grad()
def relabel(model: FittedModel, latents: Floats, strata: Strata) -> tuple[Floats | None, Ints | None]:
    """Latents of decoded rows, encoded with shuffled domain labels, and those: what the encoder makes of a label alone.

    An encoder q(z | x, u) can move latents with any label that it is given; no encoder that sees x alone can.
    """
    rows = np.flatnonzero(strata.labels >= 0)
    rows = rows[evenly(len(rows), _MOST_ROWS)]
    if len(strata.design) < 2:
        return None, None
    own, rng = strata.labels[rows], np.random.default_rng(0)
    mean = model.likelihood.mean(model.decode(_tensor(model, latents[rows])))
    x, designs = model.likelihood.inputs(mean), _tensor(model, strata.design)
    few = x[:_PRIOR_POINTS]
    if torch.equal(*(_encoded(model, few, designs[[stratum] * len(few)]) for stratum in (0, -1))):
        return None, None
    labels = np.stack([rng.permutation(own) for _ in range(_RELABELLINGS)])
    again = [_encoded(model, x, designs[torch.from_numpy(shuffled).to(x.device)]) for shuffled in labels]
    return torch.stack(again).cpu().double().numpy(), labels


def _encoded(model: FittedModel, x: torch.Tensor, design: torch.Tensor) -> torch.Tensor:
    """Posterior means of decoded, hence complete, rows."""
    return model.encode(x, torch.ones_like(x) if model.masked else None, design)[0]


@torch.no_grad()
def _jacobian(model: FittedModel, points: Floats) -> Floats:
    result: Floats = model.jacobian(_tensor(model, points)).cpu().double().numpy()
    return result


def _tensor(model: FittedModel, values: Floats) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(model.scale.device)
