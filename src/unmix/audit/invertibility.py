r"""Is the decoder invertible where the data lie, latent by latent?

With the scale-free Jacobian :math:`J` at a row, the *own effect* of latent i is the part of its column that the other
columns cannot reproduce,

.. math:: e_i = \min_c \lVert J_{\cdot i} - J_{\cdot, -i}\, c \rVert = 1 / \sqrt{[(J^\top J)^{-1}]_{ii}},

in standard deviations of the features. A collapsed or duplicated latent has none. The smallest singular value of J is
at most the smallest own effect. If there is an encoder, latents drawn from the prior are decoded and encoded again: a
latent that folds (z and -z give the same features) is not recovered, and one that folds only far out is recovered in
part. The squared correlation must be 0.95; an encoder that shrinks a latent does not lower it. With the model's noise
added to the features, the correlation is the *ceiling* c: no estimate of the latent is closer to it, if the model is
right. Below 0.95 the latent cannot have that correlation with a true one.

A correlation of 0.95 allows an error of :math:`1 - 0.95^2` of the variance; noise alone makes :math:`1 - c^2`. On fits
whose truth is known the whole error is up to 1.8 times that, because the model takes some noise for a part of a
latent, curves it, or mixes a little of another one into it. So from 0.95 to 0.975, where noise uses more than half of
what is allowed, it is in *doubt* whether the latent is close enough: that is no fault, but it is not identified. With
as many latents as features, noise cannot be told from latents at all, the ceiling says little in either direction, and
there are no such doubts.

Finally, the rows themselves are encoded and decoded: if that is no better than the features' means,
:math:`R^2 \le 0` in the mean over the features that vary there (``Reconstruction.kept``), the model does not describe
these rows, and no latent is recovered from them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmix.audit.check import Check, CheckResult, Context
from unmix.audit.finding import Finding, Said, floored
from unmix.audit.input import AuditInput, Simulated
from unmix.numbers import counted

Floats = NDArray[np.float64]
Doubts = dict[int, Said]

CONDITION = "invertibility"
_OWN_EFFECT = 0.1
_SHARE_OF_ROWS = 0.1
_ROUND_TRIP = 0.95
_CEILING = 0.95
# 1 - 0.975² is about half of 1 - 0.95².
_CEILING_WITH_MARGIN = 0.975
_SHIFT = 1e-9


def own_effects(jacobian: Floats) -> tuple[Floats, Floats]:
    """Own effect of every latent (points, n_latents) and smallest singular value (points,) at every point."""
    n_latents = jacobian.shape[2]
    if jacobian.shape[1] < n_latents:
        return np.zeros((len(jacobian), n_latents)), np.zeros(len(jacobian))
    # JᵀJ = RᵀR, so R has the singular values of J and (JᵀJ)⁻¹ = R⁻¹ R⁻ᵀ; the shift keeps an exact zero from dividing.
    upper = np.linalg.qr(jacobian, mode="r")
    inverse = np.linalg.inv(upper + _SHIFT * np.eye(n_latents))
    return 1.0 / np.linalg.norm(inverse, axis=2), np.linalg.svd(upper, compute_uv=False)[:, -1]


def check_invertibility(subject: AuditInput, context: Context) -> CheckResult[Doubts]:
    """Whether every latent can be recovered from the features; faults, and doubts about latents without one."""
    effects, smallest = own_effects(subject.jacobian)
    low = np.quantile(effects, _SHARE_OF_ROWS, axis=0)
    made, names, back = subject.simulated, subject.names, subject.reconstruction
    kept, still = (None, 0) if back is None else (back.kept, back.still)
    required = _CEILING_WITH_MARGIN if subject.n_latents < len(subject.feature_names) else _CEILING
    evidence = {
        "own_effect_at_a_tenth_of_the_rows": dict(zip(names, low.tolist(), strict=True)),
        "smallest_singular_value": {"median": float(np.median(smallest)), "least": float(smallest.min())},
        "round_trip_r2": None if made is None else dict(zip(names, made.round_trip.tolist(), strict=True)),
        "noise_ceiling": None if made is None else dict(zip(names, made.ceiling.tolist(), strict=True)),
        "least_noise_ceiling_that_counts": required,
        "encode_decode_r2": kept,
        "features_that_do_not_vary": still,
        "points": len(effects),
    }
    undescribed = kept is not None and kept <= 0
    if undescribed:
        said = f"cannot be recovered from these rows: encoding and decoding is no better than the means (R² {kept:.2f})"
        faults, doubts = dict.fromkeys(range(subject.n_latents), Said("undescribed_rows", said)), {}
        sentence = (
            f"Encoding and decoding these rows is no better than the features' means (R² {kept:.2f}). The model does "
            "not describe them."
        )
    else:
        faults = _faults(low, made)
        doubts = {} if made is None else _doubts(made.ceiling, required, faults)
        sentence = " ".join(f"{names[i]} {words}." for i, words in (faults | doubts).items())
    if faults or undescribed:
        return CheckResult(Finding(CONDITION, "fails", True, sentence, evidence), doubts, faults)
    if doubts:
        return CheckResult(Finding(CONDITION, "cannot tell", True, sentence, evidence), doubts)
    sentence = f"Every latent has an effect of its own on the features (at least {low.min():.2f} {subject.unit})"
    sentence += "." if made is None else " and is recovered when decoded and encoded again."
    if kept is not None and kept > 0:
        apart = f", without {counted(still, 'feature')} that {'does' if still == 1 else 'do'} not vary here"
        sentence += f" Encoding and decoding reproduces {floored(kept)} of the features' {subject.kept}"
        sentence += f"{apart if still else ''}."
    elif kept is not None:
        sentence += " No feature varies on these rows, so the quality of the reconstruction is not known."
    return CheckResult(Finding(CONDITION, "holds", True, sentence, evidence), {})


def _faults(low: Floats, made: Simulated | None) -> dict[int, Said]:
    """Latents that cannot be recovered, with the reason; ``low`` (n_latents,) are their own effects."""
    faults = {}
    for i, effect in enumerate(low):
        back, ceiling = (1.0, 1.0) if made is None else (float(made.round_trip[i]), float(made.ceiling[i]))
        if effect < _OWN_EFFECT:
            faults[i] = Said(
                "no_effect_of_its_own",
                f"has an effect of its own of at most {effect:.2f} on the features at a tenth of the rows",
            )
        elif back < _ROUND_TRIP:
            faults[i] = Said(
                "round_trip",
                f"is not recovered closely enough when decoded and encoded again (squared correlation {floored(back)}; "
                f"required: {_ROUND_TRIP})",
            )
        elif ceiling < _CEILING:
            faults[i] = Said(
                "noise_ceiling",
                f"is estimated too imprecisely: decoded, with the model's noise, and encoded again, it has a "
                f"correlation of {floored(ceiling)} with itself (required: {_CEILING})",
            )
    return faults


def _doubts(ceiling: Floats, required: float, faults: dict[int, Said]) -> Doubts:
    """Latents without a fault whose ``ceiling`` (n_latents,) leaves too little room for errors beside the noise."""
    return {
        i: Said(
            "noise_ceiling",
            f"may be estimated too imprecisely: decoded, with the model's noise, and encoded again, it has a "
            f"correlation of {floored(value)} with itself (required: {required}, because noise is not the only error)",
        )
        for i, value in enumerate(ceiling.tolist())
        if value < required and i not in faults
    }


CHECK = Check(CONDITION, check_invertibility, of_all=True)
