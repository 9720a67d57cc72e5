"""Choice of the number of latents: fits with several numbers, the dependence they leave, and the rule of choice.

The rule takes the smallest number whose residuals no longer depend on each other (``audit/residuals.py``) and for which
one more latent does not raise the held-out bound. ``CGVAE(n_latents="auto")`` tries numbers with short fits;
``unmix.select`` compares full fits.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.base import clone

from unmix.audit.describe import chunks, mean_latents
from unmix.audit.input import LEAST_SHARED, ResidualDependence, evenly, stratify
from unmix.audit.residuals import AUDITED_SHARE, WEAK, residual_dependence
from unmix.errors import DataWarning
from unmix.estimators.base import SCORE_DRAWS, LatentEstimator
from unmix.estimators.prepare import Prepared, prepare
from unmix.estimators.settings import planned_epochs
from unmix.fits.choice import finish_starts
from unmix.forms import DataLike, LabelsLike
from unmix.train.devices import pick_device
from unmix.train.fit import fit as train_model
from unmix.train.threads import sensible_threads

Floats = NDArray[np.float64]
Estimator = TypeVar("Estimator", bound=LatentEstimator)

COLUMNS = (
    *("n_latents", "bound", "bound_se", "gain", "gain_se", "r2"),
    *("residual", "limit", "share", "agreement", "vanished"),
)
_LEAST_GAIN = 0.3
_LEAST_ERRORS = 3.0
_PROBE_SHARE = 3
_ENOUGH_KEPT = 0.95
_MOST_LATENTS = 30
_TRIED_IN_VAIN = 3
_WIDE = 256
_MOST_ROWS = 5_000
_SHUFFLES = 3
_FIXED_SEED = 0
_EXPLAINED = 0.005
HEAVY = 0.07
_LEAST_TAIL_ROWS, _LEAST_DOMAIN_ROWS = 200, 10
_DEGREES, _SCALES = (2.5, 3.0, 4.0, 6.0, 10.0, 20.0, 50.0), (0.8, 0.9, 1.0, 1.1, 1.25)


@dataclass(frozen=True)
class Candidate:
    """One number of latents, and what a fit with it reached.

    ``bounds`` (rows,): bound on the log-likelihood of every held-out row, in nats of standardised features; empty where
    no row was held out. ``r2``: mean share of a feature's variance that is kept there. ``vanished`` counts latents
    whose posterior is wider than their values are spread. ``agreement`` of the starts, NaN with one. ``tails``:
    ``heavy_tails`` of the latents of the training rows.
    """

    n_latents: int
    bounds: Floats
    residual: ResidualDependence
    r2: float
    vanished: int
    agreement: float
    tails: float = 0.0

    @property
    def independent(self) -> bool:
        """Whether the residuals look like noise that is independent between features."""
        return not self.residual.exceeds(WEAK)


@dataclass(frozen=True)
class Choice:
    """The chosen number of latents, the reason, whether the data decided it, and one row for each number tried."""

    n_latents: int
    reason: str
    decided: bool
    table: pd.DataFrame


@dataclass(frozen=True)
class Tried:
    """A model trained on some rows, its result, and its latents (rows, n_latents) of the held-out rows."""

    candidate: Candidate
    latents: Floats


def fit_rows(
    estimator: LatentEstimator,
    data: Prepared,
    seed: int,
    *,
    part: NDArray[np.int64] | None = None,
    share: float = 1.0,
    turned: bool = True,
    least_share: float = LEAST_SHARED,
) -> Tried:
    """Fit ``estimator`` on the training rows, or a ``part`` of them, with a ``share`` of its passes.

    Without ``turned`` there is no rotation of the latents in training, which would dominate the time of a short fit.
    Of residuals that depend on each other, those that share ``least_share`` of a feature's variance come first.
    """
    device = pick_device(estimator.device)
    rows, place = data.rows.to(device), data.train if part is None else part
    train, has_held_out = rows.take(torch.from_numpy(place).to(device)), bool(len(data.held_out))
    held_out = rows.take(torch.from_numpy(data.held_out).to(device)) if has_held_out else train
    groups = data.groups[data.held_out if has_held_out else place]
    settings = estimator._training_settings(len(rows), seed, has_held_out)
    settings = replace(settings, max_epochs=math.ceil(settings.max_epochs * share))
    network = estimator._network(data.features, data.domains, seed, estimator.n_restarts).to(device)
    if not turned:
        network.config = replace(network.config, turned=())
    with sensible_threads((data.features.n_features,), int(estimator.batch_size) * int(estimator.n_restarts)):
        result = train_model(network, train, held_out, settings)
        found = finish_starts(network, train, held_out, result, groups, len(data.domains.domains), has_held_out)
    bounds, generator = [np.empty(0)], torch.Generator().manual_seed(0)
    with torch.no_grad():
        parts = [found.model.bound(own, generator, SCORE_DRAWS) for own in chunks(held_out) if has_held_out]
    bounds += [own.cpu().double().numpy() for own in parts]
    strata = stratify(train, data.groups[place]).labels
    return Tried(
        Candidate(
            found.model.n_latents,
            np.concatenate(bounds),
            residual_dependence(found.model, train, strata, data.features.names, least_shares=[least_share])[0],
            float(found.description.r2.mean()),
            int((found.description.posterior_width > 1.0).sum()),
            found.agreed.mean,
            heavy_tails(mean_latents(found.model, train), data.groups[place]),
        ),
        found.description.latents,
    )


def gain(candidate: Candidate, other: Candidate) -> tuple[float, float]:
    """By how many nats per row ``other`` is better, and the standard error of that, paired over the held-out rows."""
    difference = other.bounds - candidate.bounds
    if len(difference) < 2:
        return float("nan"), float("nan")
    return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))


def gains(candidate: Candidate, other: Candidate) -> bool:
    """Whether the bound of ``other`` is better by more than chance and by enough to count as a latent."""
    mean, error = gain(candidate, other)
    return bool(mean > max(_LEAST_GAIN, _LEAST_ERRORS * error))


def decide(candidates: Sequence[Candidate]) -> Choice:
    """The rule, on candidates of which no two have the same number of latents."""
    ordered = sorted(candidates, key=lambda own: own.n_latents)
    following = dict(zip([own.n_latents for own in ordered], [*ordered[1:], None], strict=True))
    for own in ordered:
        more = following[own.n_latents]
        if own.independent and not (more is not None and gains(own, more)):
            found = own.residual
            reason = (
                f"the smallest number at which no residuals of two features have a rank correlation above {WEAK} and "
                f"above chance ({found.limit:.2f}) and share {LEAST_SHARED:.0%} of a feature's variance (strongest: "
                f"{found.correlation:.2f}, {found.share:.1%})"
            )
            if more is not None:
                reason += f" and {more.n_latents} latents do not raise the held-out bound"
            return Choice(own.n_latents, reason, True, table_of(ordered))
    best = max(ordered, key=lambda own: own.bounds.mean() if len(own.bounds) else own.n_latents)
    kept = next(own for own in ordered if _as_good(own, best) or own.r2 >= _ENOUGH_KEPT)
    why = (
        "whose held-out bound is within one standard error of the best"
        if _as_good(kept, best)
        else f"that keeps {_ENOUGH_KEPT:.0%} of the held-out variance"
    )
    reason = (
        f"undecided, since with {ordered[0].n_latents} to {ordered[-1].n_latents} latents some features still depend "
        f"on each other (rank correlation of residuals {min(own.residual.correlation for own in ordered):.2f} or "
        f"more): the smallest number {why}"
    )
    return Choice(kept.n_latents, reason, False, table_of(ordered))


def _as_good(own: Candidate, best: Candidate) -> bool:
    """The rule of one standard error, with that of the paired difference."""
    mean, error = gain(own, best)
    return own is best or bool(mean <= error)


def table_of(candidates: Sequence[Candidate]) -> pd.DataFrame:
    """One row a number of latents; ``gain`` is that over the row before."""
    rows, before = [], None
    for own in candidates:
        better, error = (float("nan"), float("nan")) if before is None else gain(before, own)
        count = len(own.bounds)
        rows.append(
            {
                "n_latents": own.n_latents,
                "bound": own.bounds.mean() if count else float("nan"),
                "bound_se": own.bounds.std(ddof=1) / math.sqrt(count) if count > 1 else float("nan"),
                "gain": better,
                "gain_se": error,
                "r2": own.r2,
                "residual": own.residual.correlation,
                "limit": own.residual.limit,
                "share": own.residual.share,
                "agreement": own.agreement,
                "vanished": own.vanished,
            }
        )
        before = own
    return pd.DataFrame(rows, columns=list(COLUMNS))


def choose_latents(estimator: LatentEstimator, X: DataLike, y: LabelsLike, seed: int) -> Choice:
    """The number of latents of ``CGVAE(n_latents="auto")``, by short fits with the estimator's other settings.

    The first has as many latents as principal components stand out of shuffled data. From there the number falls as
    long as residuals are independent, or rises until they are. Where the number before that was no better than the one
    before it, its single start has missed the optimum, and a whole fit takes its place. Tables of more than 256
    features, where fits take minutes, keep the first number.
    """
    with warnings.catch_warnings():
        # The fit that follows reads the same data and says the same.
        warnings.simplefilter("ignore", DataWarning)
        data = prepared(estimator, X, y)
    most = min(len(data.features.names), _MOST_LATENTS)
    first = min(max(components_of(data), 1), most)
    if len(data.features.names) > _WIDE:
        reason = (
            f"as many principal components stand out of shuffled data (tables of more than {_WIDE} features are not "
            "probed further)"
        )
        return Choice(first, reason, True, pd.DataFrame([{"n_latents": first}], columns=list(COLUMNS)))
    found: dict[int, Candidate] = {}

    def probe(number: int) -> Candidate:
        if number not in found:
            found[number] = _probe(unfitted(estimator, n_latents=number), data, seed)
        return found[number]

    number = first
    while number > 1 and probe(number).independent and probe(number - 1).independent:
        number -= 1
    while number < most and not (probe(number).independent and not gains(probe(number), probe(number + 1))):
        if not probe(number).independent and _in_vain(found, number):
            break
        number += 1
    less, before = found.get(number - 1), found.get(number - 2)
    if less and before and probe(number).independent and not (less.independent or gains(before, less)):
        found[number - 1] = fit_rows(unfitted(estimator, n_latents=number - 1), data, seed).candidate
    return decide(list(found.values()))


def _in_vain(found: Mapping[int, Candidate], number: int) -> bool:
    """Whether the latents that were added last have not raised the bound by more than chance."""
    before = found.get(number - _TRIED_IN_VAIN)
    return before is not None and not gains(before, found[number])


def _probe(estimator: LatentEstimator, data: Prepared, seed: int) -> Candidate:
    """A short fit: one start, a third of the training, and neither penalty nor spare latents."""
    return fit_rows(_alone(estimator), data, seed, share=1 / _PROBE_SHARE, turned=False).candidate


def _alone(estimator: LatentEstimator) -> LatentEstimator:
    """A copy that trains one start, with neither penalty nor spare latents."""
    return unfitted(estimator, n_restarts=1, n_spare=0, sparsity=0.0, early_stopping=False)


def unfitted(estimator: Estimator, **words: object) -> Estimator:
    """A copy with other settings, not fitted, of the same kind of features, whose training is as long by default."""
    copied: Estimator = clone(estimator).set_params(**words)
    copied.steps_per_latent, copied.least_steps = estimator.steps_per_latent, estimator.least_steps
    copied.on_codes = estimator.on_codes
    return copied


def probed(estimator: LatentEstimator, data: Prepared) -> Candidate | None:
    """A short fit with this number of latents, the same for every ``random_state``; None where it is not tried.

    That is in tables of more than 256 features, and where a training is asked for that is as short.
    """
    epochs, part = planned_epochs(estimator, len(data.rows))
    if len(data.features.names) > _WIDE or not long_training(estimator, len(data.rows), epochs * part):
        return None
    return _probe(unfitted(estimator, max_epochs=None), data, _FIXED_SEED)


def falls_short(estimator: LatentEstimator, data: Prepared, probe: Candidate) -> bool:
    """Whether the latents are clearly too few, the same for every ``random_state``.

    After ``probe``, the short fit, one residual explains much of another (the square of their correlation, as a share
    of a feature's variance), and they still depend on each other after one start of full length.
    """
    if probe.independent or probe.residual.correlation * probe.residual.share < _EXPLAINED:
        return False
    found = fit_rows(_alone(estimator), data, _FIXED_SEED, turned=False, least_share=AUDITED_SHARE).candidate
    return found.residual.exceeds(WEAK, AUDITED_SHARE)


def long_enough(model: LatentEstimator) -> bool:
    """Whether a fit took at least a third of the default training; before that, residuals are not informative."""
    n_rows = model.settings_["n_train"] + model.settings_["n_held_out"]
    part = planned_epochs(model, n_rows)[1]
    return long_training(unfitted(model, n_latents=model.n_latents_), n_rows, model.n_epochs_ * part)


def long_training(estimator: LatentEstimator, n_rows: int, passes: float) -> bool:
    """Whether so many passes over the rows are at least a third of the default training."""
    epochs, part = planned_epochs(unfitted(estimator, max_epochs=None), n_rows)
    return bool(passes * _PROBE_SHARE >= epochs * part)


def components_of(data: Prepared) -> int:
    """``principal_components`` of the rows of a fit, in the order of its table."""
    places = np.argsort(data.order)
    return principal_components(data.rows.x.numpy()[_some(places)])


def principal_components(x: Floats) -> int:
    """How many eigenvalues of the correlation matrix are above the largest of shuffled columns (rows, features)."""
    rows = _some(x).astype(np.float64)
    rows = (rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-12)
    rng = np.random.default_rng(0)
    edge = max(_eigenvalues(rng.permuted(rows, axis=0)).max() for _ in range(_SHUFFLES))
    return int((_eigenvalues(rows) > edge).sum())


def heavy_tails(latents: Floats, groups: NDArray[np.int64]) -> float:
    """By how many nats per row and latent Student's t fits the latents of a domain better than a normal distribution.

    Latents (rows, n_latents) are standardised within each domain of ``groups`` (rows,) that has ten rows or more; 0
    where these are fewer than 200 rows in all. Degrees and scale of the t are the best of a grid.
    """
    place = evenly(len(latents), _MOST_ROWS)
    parts = [latents[place[groups[place] == group]] for group in np.unique(groups)]
    parts = [(own - own.mean(0)) / np.maximum(own.std(0), 1e-9) for own in parts if len(own) >= _LEAST_DOMAIN_ROWS]
    if sum(map(len, parts)) < _LEAST_TAIL_ROWS:
        return 0.0
    z = np.concatenate(parts)
    middle = np.maximum(np.median(np.abs(z), axis=0), 1e-9)
    tried = [
        stats.t.logpdf(z, degrees, scale=share * middle / stats.t.ppf(0.75, degrees)).mean(0)
        for degrees in _DEGREES
        for share in _SCALES
    ]
    normal = stats.norm.logpdf(z, scale=np.maximum(z.std(0), 1e-9)).mean(0)
    return float(np.maximum(np.max(tried, axis=0) - normal, 0.0).mean())


def _some(rows: NDArray[Any]) -> NDArray[Any]:
    """At most 5,000 rows, evenly spaced."""
    return rows[:: max(1, len(rows) // _MOST_ROWS)][:_MOST_ROWS]


def _eigenvalues(rows: Floats) -> Floats:
    """Those of the covariance of centred ``rows`` that are not 0."""
    square = rows.T @ rows if rows.shape[1] <= len(rows) else rows @ rows.T
    result: Floats = np.linalg.eigvalsh(square) / len(rows)
    return result


def prepared(estimator: LatentEstimator, X: DataLike, y: LabelsLike) -> Prepared:
    """The checked data of a fit, whatever the number of latents."""
    return prepare(
        X,
        y,
        n_latents=1,
        missing=estimator.missing,
        auxiliary=estimator.auxiliary,
        min_domain_rows=estimator.min_domain_rows,
        validation_fraction=estimator.validation_fraction,
        **estimator._kinds(),
    )
