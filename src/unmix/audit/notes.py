"""Caveats about the rows of an audit, noted before any test.

Rows that the fit was trained on are recognised by a 64-bit hash of their standardised features, kept with the model. A
hash that several training rows share, or that a held-out row has too, is not kept: in tables with few distinct values,
equal rows occur by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from unmix.audit.describe import chunks
from unmix.audit.finding import listed
from unmix.audit.input import LEAST_TRAINING_ROWS, Reconstruction, evenly
from unmix.data.batches import Rows
from unmix.numbers import counted

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Codes of notes; stable when the wording changes.
TRAINING_ROWS = "training_rows"
CONSTANT_FEATURES = "constant_features"
FEW_HELD_OUT = "few_held_out"
ROWS_UNLIKE_FIT = "rows_unlike_fit"
ROWS_WITHOUT_DOMAIN = "rows_without_domain"

_MOST_KEPT = 2**17
_STEP = 1e-3
_FEW = 0.01
_FAR = 5.0
_TIMES, _MORE = 3.0, 0.1


@dataclass(frozen=True)
class Note:
    """A caveat about the rows of an audit.

    Attributes
    ----------
    code : {"training_rows", "constant_features", "rows_unlike_fit", "rows_without_domain"}
    sentence : str
    evidence : mapping of str to numbers and names
    """

    code: str
    sentence: str
    evidence: Mapping[str, object] = field(default_factory=dict)


def fingerprints(rows: Rows) -> Ints:
    """A 64-bit hash (rows,) of every row's features, rounded to a thousandth of a standard deviation."""
    parts = [np.empty(0, dtype=np.int64)]
    for chunk in chunks(rows):
        x = np.rint(chunk.x.cpu().double().numpy() / _STEP).astype(np.int64)
        factors = np.random.default_rng(0).integers(2**63, size=x.shape[1], dtype=np.int64)
        # Sums wrap around: a random linear map modulo 2⁶⁴.
        parts.append(x @ factors)
    return np.concatenate(parts)


def training_fingerprints(train: Rows, held_out: Rows | None) -> Ints:
    """Hashes of at most 131,072 training rows, evenly spaced; only hashes that identify a training row."""
    place = torch.from_numpy(evenly(len(train), _MOST_KEPT))
    found, counts = np.unique(fingerprints(train.take(place.to(train.codes.device))), return_counts=True)
    others = np.empty(0, dtype=np.int64) if held_out is None else fingerprints(held_out)
    return np.setdiff1d(found[counts == 1], others)


def note_training(rows: Rows, known: Ints) -> list[Note]:
    """Note rows that are in ``training_fingerprints``, if they are more than 1 in 100, as chance may give."""
    seen, n = int(np.isin(fingerprints(rows), known).sum()), len(rows)
    if seen <= _FEW * n:
        return []
    return [
        Note(
            TRAINING_ROWS,
            f"The fit was trained on {seen} or more of {'these' if n > 1 else 'this'} {counted(n, 'row')}, which makes "
            f"the audit too favourable for domains with fewer than {LEAST_TRAINING_ROWS} of them. Better pass other "
            "rows. Without any, rows held out at fit are used, and training rows only of domains with enough of them.",
            {"rows": n, "training_rows": seen},
        )
    ]


def note_constant(variance: Floats, features: Sequence[str]) -> list[Note]:
    """Features without ``variance`` (n_features,) on the audited rows."""
    still = [name for name, own in zip(features, variance.tolist(), strict=True) if own == 0]
    if not still:
        return []
    said = "No feature varies on the audited rows, so no latent can be recovered from them."
    if len(still) < len(features):
        said = (
            f"On the audited rows {counted(len(still), 'feature')} {'does' if len(still) == 1 else 'do'} not vary "
            f"({listed(still)}): these rows do not show how such features depend on the latents."
        )
    return [Note(CONSTANT_FEATURES, said, {"features": still})]


def note_unlike(rows: Rows, features: Sequence[str], now: Reconstruction, at_fit: Reconstruction) -> list[Note]:
    """Whether a feature is off by 5 standard deviations of the fit, or the reconstruction is far worse than in the fit.

    ``now`` is the reconstruction of these rows, ``at_fit`` that of the rows of the fit.
    """
    sums = squares = counts = np.zeros(len(features))
    for chunk in chunks(rows):
        x, seen = (t.cpu().double().numpy() for t in (chunk.x, _seen(chunk)))
        sums, squares, counts = sums + (seen * x).sum(0), squares + (seen * x**2).sum(0), counts + seen.sum(0)
    mean = sums / np.maximum(counts, 1.0)
    spread = np.sqrt(np.maximum(squares / np.maximum(counts, 1.0) - mean**2, 0.0))
    far = np.maximum(np.abs(mean), spread)
    names = [features[k] for k in np.argsort(-far, kind="stable") if far[k] >= _FAR]
    left, left_at_fit = _left(now), _left(at_fit)
    evidence = {"features": names, "largest": float(far.max()), "left": left, "left_at_fit": left_at_fit}
    said = ""
    if names:
        has = "has" if len(names) == 1 else "have"
        said = (
            f"{counted(len(names), 'feature')} ({listed(names)}) {has} a mean or spread of {_FAR:g} or more of "
            f"{'its' if len(names) == 1 else 'their'} standard deviations in the fit, up to {far.max():.3g}."
        )
    elif left > max(_TIMES * left_at_fit, left_at_fit + _MORE):
        said = (
            f"The error of encoding and decoding these rows is {left:.2f} of a feature's variance in the fit; there it "
            f"was {left_at_fit:.2f}."
        )
    more = "The model does not describe such rows. Are they the same columns, in the same order and units?"
    return [Note(ROWS_UNLIKE_FIT, f"{said} {more}", evidence)] if said else []


def _left(kept: Reconstruction) -> float:
    """Mean squared error over the features, in units of their variance in the fit; constant features count as 0."""
    return float(np.where(kept.variance > 0, (1.0 - kept.r2) * kept.variance, 0.0).mean())


def _seen(rows: Rows) -> torch.Tensor:
    return torch.ones_like(rows.x) if rows.observed is None else rows.observed


def note_without_domain(groups: Ints) -> list[Note]:
    """Note rows with a combination of levels that the fit did not have, -1 in ``groups``."""
    lost = int((groups < 0).sum())
    if not lost:
        return []
    return [
        Note(
            ROWS_WITHOUT_DOMAIN,
            f"{lost} of {counted(len(groups), 'row')} {'has' if lost == 1 else 'have'} a combination of domain levels "
            "that the fit did not have; tests within domains leave them out.",
            {"rows": len(groups), "left_out": lost},
        )
    ]
