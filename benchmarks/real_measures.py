"""What ``real.py`` measures of a fitted method, on rows that it has not seen."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from real_methods import TableMethod
from real_tables import Bools, Floats, Table
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from unmix.bench.methods import Method
from unmix.errors import DataError
from unmix.metrics.recovery import correlation, match

SMALL = 0.1
_LOADING_ROWS = 200
_LOADING_STEP = 0.1
_FOLDS = 5


@dataclass
class Fitted:
    """A method fitted on some rows of a table, with features standardised on those rows.

    ``varies`` marks the features that vary there; the others are left out. ``mean``, ``spread`` are of those. Where the
    method has no ``inverse_transform``, ``linear`` maps latents to features by least squares on the same rows.
    """

    model: Any
    varies: Bools
    mean: Floats
    spread: Floats
    positive: bool
    linear: Any
    seconds: float
    latents: Floats

    @property
    def decoded_by(self) -> str:
        return "own decoder" if hasattr(self.model, "inverse_transform") else "least squares"

    def standardised(self, x: Floats) -> Floats:
        return (x[:, self.varies] - self.mean) / self.spread

    @property
    def told_domains(self) -> bool:
        """Whether the method is told the domains of the rows that it encodes."""
        return _told_domains(self.model)

    def encode(self, table: Table, rows: Bools) -> Floats:
        """Latents (rows, latents) of rows of ``table``."""
        inputs = _inputs(table.x[rows][:, self.varies], self.mean, self.spread, self.positive)
        return _latents(self.model, inputs, table.domains[rows])

    def decode(self, z: Floats) -> Floats:
        """Standardised features (rows, varying features)."""
        if not hasattr(self.model, "inverse_transform"):
            return self.linear.predict(z)
        shift = self.mean / self.spread if self.positive else 0.0
        return np.asarray(self.model.inverse_transform(z), dtype=np.float64) - shift


def fit(method: Method, n_latents: int, seed: int, table: Table, rows: Bools) -> Fitted:
    """``method`` on ``rows`` of ``table``.

    Raises
    ------
    DataError
        The method takes positive features, and there are numbers below 0.
    """
    x = table.x[rows]
    positive = isinstance(method, TableMethod) and method.positive
    if positive and (table.x < 0).any():
        raise DataError(f"{method.name} takes features ≥ 0; this table has numbers below 0.")
    varies = np.ptp(x, axis=0) > 0
    mean, spread = x[:, varies].mean(axis=0), x[:, varies].std(axis=0)
    inputs = _inputs(x[:, varies], mean, spread, positive)
    model = method.build(n_latents, seed)
    started = time.perf_counter()
    model.fit(inputs, table.domains[rows] if method.domains else None)
    seconds = time.perf_counter() - started
    latents = _latents(model, inputs, table.domains[rows])
    linear = LinearRegression().fit(latents, (x[:, varies] - mean) / spread)
    return Fitted(model, varies, mean, spread, positive, linear, seconds, latents)


def _inputs(x: Floats, mean: Floats, spread: Floats, positive: bool) -> Floats:
    return x / spread if positive else (x - mean) / spread


def _told_domains(model: Any) -> bool:
    return "y" in inspect.signature(model.transform).parameters


def _latents(model: Any, inputs: Floats, domains: NDArray[np.str_]) -> Floats:
    found = model.transform(inputs, domains) if _told_domains(model) else model.transform(inputs)
    return np.asarray(found, dtype=np.float64)


def variance_kept(x: Floats, decoded: Floats) -> float:
    """1 - SSE / SST, pooled over the features; SST around the mean of each feature of ``x`` (rows, features)."""
    return float(1 - ((x - decoded) ** 2).sum() / ((x - x.mean(axis=0)) ** 2).sum())


def agreement(runs: Sequence[Floats]) -> tuple[float, float]:
    """Mean and worst latent of the one-to-one |Spearman| between runs on the same rows, (rows, latents) each.

    Partners maximise the sum. A latent's value is its mean over the other runs; one without a partner counts 0.
    """
    strengths = [[np.zeros((0, 0))] * len(runs) for _ in runs]
    per_latent = []
    for r, one in enumerate(runs):
        values = []
        for s, other in enumerate(runs):
            if r < s:
                strengths[r][s] = np.abs(correlation(one, other, "spearman"))
                strengths[s][r] = strengths[r][s].T
            if r != s:
                partner = match(strengths[r][s])
                values.append(np.where(partner >= 0, strengths[r][s][np.arange(len(partner)), partner], 0.0))
        per_latent.append(np.mean(values, axis=0))
    found = np.minimum(np.concatenate(per_latent), 1.0)
    return float(found.mean()), float(found.min())


def loadings(fitted: Fitted) -> Floats:
    """Mean |change| of each standardised feature for a change of one standard deviation of each latent.

    (varying features, latents); by central differences at up to 200 of the fitted rows, so the same for all methods.
    """
    z = fitted.latents[np.linspace(0, len(fitted.latents) - 1, min(_LOADING_ROWS, len(fitted.latents))).astype(int)]
    found = np.zeros((int(fitted.varies.sum()), z.shape[1]))
    for i, spread in enumerate(fitted.latents.std(axis=0)):
        step = np.zeros(z.shape[1])
        step[i] = _LOADING_STEP * spread
        if spread > 0:
            found[:, i] = np.abs(fitted.decode(z + step) - fitted.decode(z - step)).mean(axis=0) / (2 * _LOADING_STEP)
    return found


def sparsity(weights: Floats) -> dict[str, float | int]:
    """Of ``weights`` (features, latents): share below .1, mean Hoyer of the latents, latents without a weight ≥ .1."""
    n = len(weights)
    lengths = np.linalg.norm(weights, axis=0)
    used = lengths > 0
    ratio = weights[:, used].sum(axis=0) / lengths[used]
    hoyer = (np.sqrt(n) - ratio) / (np.sqrt(n) - 1) if n > 1 else np.ones_like(ratio)
    return {
        "small_loadings": float((weights < SMALL).mean()),
        "hoyer": float(hoyer.mean()) if used.any() else 0.0,
        "empty": int((weights.max(axis=0) < SMALL).sum()),
    }


def factor_scores(fitted: Fitted, table: Table, encoded: Floats) -> dict[str, dict[str, Any]]:
    """Of each known factor the value of its best latent on held-out rows, chosen on the training rows."""
    return {
        name: _best_latent(factor, table.kinds[name], fitted.latents, encoded, table)
        for name, factor in table.factors.items()
    }


def _best_latent(factor: Floats, kind: str, before: Floats, encoded: Floats, table: Table) -> dict[str, Any]:
    chosen_on, scored_on = factor[table.train], factor[table.held_out]
    signed = association(before, chosen_on, kind)
    best = int(np.abs(signed).argmax())
    sign = 1.0 if signed[best] >= 0 else -1.0
    value = sign * association(encoded[:, [best]], scored_on, kind)[0]
    return {"value": _shown(value, kind), "latent": best}


def association(latents: Floats, factor: Floats, kind: str) -> Floats:
    """(latents,) in [-1, 1]: Spearman's rho with a numeric factor, 2 AUROC - 1 with a boolean one; 0 if undefined."""
    known = ~np.isnan(factor)
    latents, factor = latents[known], factor[known]
    if kind == "numeric":
        return correlation(latents, factor[:, None], "spearman")[:, 0]
    positive = factor > 0.5
    n, m = int(positive.sum()), int((~positive).sum())
    if n == 0 or m == 0:
        return np.zeros(latents.shape[1])
    area = (rankdata(latents, axis=0)[positive].sum(axis=0) - n * (n + 1) / 2) / (n * m)
    return 2 * area - 1


def _shown(value: float, kind: str) -> float:
    """|Spearman|, or AUROC; a sign that turned on held-out rows stays visible, as a value below 0 or below .5."""
    return float((value + 1) / 2 if kind == "boolean" else value)


def ceiling(table: Table) -> dict[str, dict[str, Any]]:
    """What gradient boosting from all features reaches on the held-out rows of each known factor, cross-fitted."""
    found = {}
    for name, factor in table.factors.items():
        known, kind = ~np.isnan(factor), table.kinds[name]
        x, y = table.x[known], factor[known]
        predicted = np.full(len(factor), np.nan)
        words: dict[str, Any] = {"early_stopping": True, "max_iter": 300, "random_state": 0}
        if kind == "numeric":
            folds = KFold(_FOLDS, shuffle=True, random_state=0)
            predicted[known] = cross_val_predict(HistGradientBoostingRegressor(**words), x, y, cv=folds)
        else:
            folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
            model = HistGradientBoostingClassifier(**words)
            predicted[known] = cross_val_predict(model, x, y > 0.5, cv=folds, method="predict_proba")[:, 1]
        scored = table.held_out & known
        found[name] = {"value": _shown(association(predicted[scored][:, None], factor[scored], kind)[0], kind)}
    return found


def left_out_score(fitted: Fitted, table: Table, fitted_on: Bools, left_out: Bools) -> dict[str, Any]:
    """The target in the domains left out, by logistic or ridge regression on latents of the fitted rows."""
    if table.target is None:
        raise DataError("The card names no target.")
    known = _known(table.target)
    fitted_on, left_out = fitted_on & known, left_out & known
    numeric = np.issubdtype(np.asarray(table.target[known].tolist()).dtype, np.floating)
    predictor = make_pipeline(StandardScaler(), Ridge() if numeric else LogisticRegression(max_iter=5_000))
    targets = table.target if numeric else table.target.astype(str)
    predictor.fit(fitted.encode(table, fitted_on), targets[fitted_on])
    value = float(predictor.score(fitted.encode(table, left_out), targets[left_out]))
    return {"left_out": value, "left_out_measure": "R²" if numeric else "accuracy"}


def _known(target: NDArray[Any]) -> Bools:
    return np.array([own is not None and own == own for own in target])
