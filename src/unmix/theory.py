r"""How many domains a sparse mixing needs before its latents are identified.

Notation: latents :math:`z \in R^n`, features :math:`x = g(z) \in R^d`, support :math:`M_{ki} = 1` iff
:math:`\partial x_k / \partial z_i` is not identically zero. For latent :math:`a`, the features that do not
depend on it are :math:`R_a = \{k : M_{ka} = 0\}`. Its *free set* is

.. math:: N_a = \{ i : \text{some vector of } \ker J_g[R_a, :] \text{ has a non-zero } i\text{-th entry} \}   \tag{T3}

that is, the true latents that an estimate of :math:`a` may still contain when only the support is matched.
Changes between domains have to do the rest:

.. math:: \text{domains that separate } a \text{ from } b = 2\,|N_a \cap N_b| + 1
          \quad (1 \text{ if the overlap is empty}) \tag{T4}

The model needs the maximum over all pairs (T5). Dense mixing: :math:`2n + 1`. Perfect structure: 1.
The count is sufficient, not necessary. The proofs are in ``docs/theory.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unmix.errors import SettingError

# With estimated values a kernel vector uses a column where its entry is this many times the tolerance.
_USED = 10.0


@dataclass(frozen=True)
class DomainCount:
    """What a support asks of the number of domains.

    Attributes
    ----------
    free_sets : list of frozenset of int
        ``N_a`` for every latent (T3).
    pairs : int array (n_latents, n_latents)
        Domains that separate latent a from latent b (T4); the diagonal is 1.
    needed : int
        Domains that separate every pair (T5).
    """

    free_sets: list[frozenset[int]]
    pairs: NDArray[np.int64]
    needed: int


def free_sets(
    support: ArrayLike, *, jacobian: ArrayLike | None = None, tolerance: float = 0.01, random_state: int = 0
) -> list[frozenset[int]]:
    """Free sets ``N_a`` (T3) of a support, for generic values of the Jacobian on it or for given ones.

    Parameters
    ----------
    support : bool array (n_features, n_latents)
    jacobian : float array (n_features, n_latents), optional
        Values at one point; entries outside the support count as 0. Default: generic values.
    tolerance : float, default 0.01
        With ``jacobian``: singular values below this share of the largest count as 0, since the values are estimates.
    random_state : int, default 0
        Seed of the generic values. Any seed gives the same sets with probability one.

    Raises
    ------
    SettingError
        The support is no 0/1 matrix, or ``jacobian`` has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> support = [[1, 0], [1, 1], [1, 1]]
    >>> [sorted(free) for free in free_sets(support)]
    [[0, 1], [1]]
    """
    mask = check_support(support)
    latents = range(mask.shape[1])
    if jacobian is None:
        values = _generic_values(mask, random_state)
        return [_kernel_columns(values[~mask[:, latent]]) for latent in latents]
    given = np.asarray(jacobian, dtype=float)
    if given.shape != mask.shape:
        raise SettingError(
            f"jacobian must have the support's shape {mask.shape}, for one point; got {given.shape}. Pass one row."
        )
    values = np.where(mask, given, 0.0)
    return [_kernel_columns(values[~mask[:, latent]], tolerance) for latent in latents]


def undetermined(support: ArrayLike, *, random_state: int = 0) -> frozenset[int]:
    """Latents that no choice of values on the support lets one read off the features: the kernel of J uses them.

    Examples
    --------
    >>> sorted(undetermined([[1, 1, 0], [0, 0, 1], [0, 0, 1]]))      # two latents behind one feature
    [0, 1]
    """
    return _kernel_columns(_generic_values(check_support(support), random_state))


def domains_needed(support: ArrayLike, *, random_state: int = 0) -> DomainCount:
    """Number of domains with which every pair of latents is separated (T4, T5).

    Examples
    --------
    >>> import numpy as np
    >>> domains_needed(np.ones((8, 4))).needed      # dense: changes must do everything, 2n + 1
    9
    >>> domains_needed(np.eye(4)).needed            # one feature a latent: structure does everything
    1
    """
    sets = free_sets(support, random_state=random_state)
    n_latents = len(sets)
    pairs = np.ones((n_latents, n_latents), dtype=np.int64)
    for a in range(n_latents):
        for b in range(a + 1, n_latents):
            pairs[a, b] = pairs[b, a] = 2 * len(sets[a] & sets[b]) + 1
    return DomainCount(sets, pairs, int(pairs.max()))


def needs_at_most(support: ArrayLike, limit: int, *, random_state: int = 0) -> bool:
    """Whether ``domains_needed(support).needed <= limit``, without counting on once a pair needs more.

    Examples
    --------
    >>> import numpy as np
    >>> needs_at_most(np.ones((8, 4)), 9), needs_at_most(np.ones((8, 4)), 8)
    (True, False)
    """
    mask = check_support(support)
    values = _generic_values(mask, random_state)
    seen: list[frozenset[int]] = []
    # The latents that most features depend on leave the fewest constraints: they exceed the limit first.
    for latent in np.argsort(-mask.sum(axis=0), kind="stable"):
        free = _kernel_columns(values[~mask[:, latent]])
        if any(2 * len(free & other) + 1 > limit for other in seen):
            return False
        seen.append(free)
    return limit >= 1


def check_support(support: ArrayLike) -> NDArray[np.bool_]:
    """The support as a boolean matrix (n_features, n_latents), or a ``SettingError``."""
    mask = np.asarray(support)
    if mask.ndim != 2 or 0 in mask.shape:
        raise SettingError(
            f"A support is a 0/1 matrix of shape (n_features, n_latents); got shape {mask.shape}. "
            "Pass one row for each feature and one column for each latent."
        )
    if not np.isin(mask, (0, 1)).all():
        raise SettingError(
            "A support holds 0 and 1 only; got other values. Threshold the mixing first, for example `mixing > 0.1`."
        )
    return mask.astype(bool)


def _generic_values(mask: NDArray[np.bool_], random_state: int) -> NDArray[np.float64]:
    return np.random.default_rng(random_state).uniform(0.5, 1.5, mask.shape) * mask


def _kernel_columns(jacobian: NDArray[np.float64], share: float | None = None) -> frozenset[int]:
    """Columns that some kernel vector of ``jacobian`` uses; singular values below ``share`` of the largest are 0."""
    n_latents = jacobian.shape[1]
    if jacobian.shape[0] == 0:
        return frozenset(range(n_latents))
    # R of a tall matrix has the same kernel and is small.
    square = np.linalg.qr(jacobian, mode="r") if jacobian.shape[0] > n_latents else jacobian
    _, singular, right = np.linalg.svd(square, full_matrices=True)
    tolerance = max(jacobian.shape) * np.finfo(float).eps * max(singular.max(initial=0.0), 1.0) * 8
    used = 1e-8
    if share is not None:
        tolerance, used = max(tolerance, share * singular.max(initial=0.0)), _USED * share
    kernel = right[int((singular > tolerance).sum()) :]
    return frozenset(np.flatnonzero(np.abs(kernel).max(axis=0, initial=0.0) > used).tolist())
