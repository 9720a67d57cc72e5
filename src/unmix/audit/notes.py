"""What has to be said of the rows of an audit before anything is tested on them.

Rows that the fit was trained on are known again by a 64-bit hash of their standardised features, kept with the model.
A hash that several training rows share, or a row that was held out, says nothing and is not kept: tables of few numbers
have equal rows by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from unmix.audit.describe import chunks
from unmix.audit.finding import counted, listed
from unmix.audit.input import LEAST_TRAINING_ROWS, Reconstruction, evenly
from unmix.data.batches import Rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Codes of notes; they stay when words change.
TRAINING_ROWS = "training_rows"
CONSTANT_FEATURES = "constant_features"
ROWS_UNLIKE_FIT = "rows_unlike_fit"
ROWS_WITHOUT_DOMAIN = "rows_without_domain"

_MOST_KEPT = 2**17
_STEP = 1e-3
_FEW = 0.01
_FAR = 5.0
_TIMES, _MORE = 3.0, 0.1


@dataclass(frozen=True)
class Note:
    """Something about the rows of an audit that its verdicts have to be read with.

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
    """Hashes of at most 131,072 training rows, evenly spaced, that tell a training row from any other."""
    place = torch.from_numpy(evenly(len(train), _MOST_KEPT))
    found, counts = np.unique(fingerprints(train.take(place.to(train.codes.device))), return_counts=True)
    others = np.empty(0, dtype=np.int64) if held_out is None else fingerprints(held_out)
    return np.setdiff1d(found[counts == 1], others)


def note_training(rows: Rows, known: Ints) -> list[Note]:
    """Whether rows are those of ``training_fingerprints``; by chance one in a hundred may be."""
    seen, n = int(np.isin(fingerprints(rows), known).sum()), len(rows)
    if seen <= _FEW * n:
        return []
    return [
        Note(
            TRAINING_ROWS,
            f"The fit was trained on {seen} or more of {'these' if n > 1 else 'this'} {counted(n, 'row')}, which "
            f"flatters it where a domain has fewer than {LEAST_TRAINING_ROWS} of them. Pass other rows, or none: then "
            "rows held out at fit are taken, and training rows only where they do no harm.",
            {"rows": n, "training_rows": seen},
        )
    ]


def note_constant(variance: Floats, features: Sequence[str]) -> list[Note]:
    """Features without ``variance`` (n_features,) on the audited rows."""
    still = [name for name, own in zip(features, variance.tolist(), strict=True) if own == 0]
    if not still:
        return []
    said = "No feature varies on the audited rows, so that no latent can be read off them."
    if len(still) < len(features):
        said = (
            f"On the audited rows {counted(len(still), 'feature')} {'does' if len(still) == 1 else 'do'} not vary "
            f"({listed(still)}): what latents make of such features is not seen there."
        )
    return [Note(CONSTANT_FEATURES, said, {"features": still})]


def note_unlike(rows: Rows, features: Sequence[str], now: Reconstruction, at_fit: Reconstruction) -> list[Note]:
    """Whether a feature is five standard deviations of the fit off, or the model leaves far more than it did there.

    ``now`` is what encoding and decoding keeps of these rows, ``at_fit`` of those of the fit.
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
            f"{counted(len(names), 'feature')} ({listed(names)}) {has} a mean or spread of {_FAR:g} or more standard "
            f"deviations of the fit, up to {far.max():.3g}."
        )
    elif left > max(_TIMES * left_at_fit, left_at_fit + _MORE):
        said = (
            f"Encoding and decoding leaves {left:.2f} of a feature's variance at the fit on these rows, and left "
            f"{left_at_fit:.2f} there."
        )
    more = "The model does not describe such rows. Are they the same columns, in the same order and units?"
    return [Note(ROWS_UNLIKE_FIT, f"{said} {more}", evidence)] if said else []


def _left(kept: Reconstruction) -> float:
    """Mean squared error over the features, in units of their variance at the fit; those that do not vary count 0."""
    return float(np.where(kept.variance > 0, (1.0 - kept.r2) * kept.variance, 0.0).mean())


def _seen(rows: Rows) -> torch.Tensor:
    return torch.ones_like(rows.x) if rows.observed is None else rows.observed


def note_without_domain(groups: Ints) -> list[Note]:
    """Rows of a combination of levels that was not there at fit, -1 in ``groups``."""
    lost = int((groups < 0).sum())
    if not lost:
        return []
    return [
        Note(
            ROWS_WITHOUT_DOMAIN,
            f"{lost} of {counted(len(groups), 'row')} {'is' if lost == 1 else 'are'} of a combination of domain levels "
            "that was not there at fit; within-domain tests leave them out.",
            {"rows": len(groups), "left_out": lost},
        )
    ]
