r"""Do translations keep their content and reach their domain? Shares of labels that a judge reads as they should be.

The judge, a classifier trained on real images, gives ``predicted``; rows are translated images. With hit
:math:`h_n = [\hat c_n = c_n]`, the accuracy is the mean of h over all rows, and of a domain the mean over the rows that
were translated to it. Several translations of one image are not independent: with ``source`` images are resampled, each
with all its rows. Where every row is a hit, or none is, resamples show no spread: there the interval ends where 1 in 40
samples of so many images would come out like that, :math:`1 - 0.025^{1/n}` away (Clopper and Pearson 1934). Compare
with what the same judge reads on real images that it did not see.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from unmix.labels import natural_order
from unmix.metrics.inputs import Floats, generator, labels
from unmix.metrics.score import Score, domain_details, interval, row_counts


def content_accuracy(
    predicted: ArrayLike,
    true: ArrayLike,
    *,
    domains: ArrayLike | None = None,
    source: ArrayLike | None = None,
    n_bootstrap: int = 200,
    random_state: int = 0,
) -> Score:
    """Share of translated images whose content a judge still reads.

    Parameters
    ----------
    predicted : labels (n_samples,), what the judge reads on the translations
    true : labels (n_samples,), the content of the images that were translated
        Labels are compared as text: 1, 1.0 and "1" are one label.
    domains : labels (n_samples,), optional
        The domain that each row was translated to.
    source : labels (n_samples,), optional
        The image that each row is a translation of. Default: every row is of its own image.
    n_bootstrap : int, default 200
        Resamples of the images behind the intervals.
    random_state : int, default 0

    Returns
    -------
    Score
        ``per_factor`` has one value for each of ``domains``, or the one value. ``details`` holds, for each,
        ``domain`` (its name), ``low`` and ``high`` (95 %) and ``n`` (rows); ``to_frame()`` shows them. ``chance`` is
        the mean over all ways to shuffle the predictions.

    Raises
    ------
    DataError
        The labels do not have the same rows, or some are missing.

    Examples
    --------
    >>> score = content_accuracy([3, 3, 7, 7], [3, 3, 7, 1], domains=["red", "blue", "red", "blue"])
    >>> float(score), score.details["domain"], score.per_factor.tolist()
    (0.75, ['blue', 'red'], [0.5, 1.0])
    """
    return _accuracy(predicted, "true", true, domains, source, n_bootstrap, random_state)


def style_accuracy(
    predicted: ArrayLike,
    target: ArrayLike,
    *,
    source: ArrayLike | None = None,
    n_bootstrap: int = 200,
    random_state: int = 0,
) -> Score:
    """Share of translated images that a judge of domains assigns to the domain they were translated to.

    Parameters
    ----------
    predicted : labels (n_samples,), the domain that the judge reads on the translations
    target : labels (n_samples,), the domain that each row was translated to
    source, n_bootstrap, random_state
        As in ``content_accuracy``.

    Returns
    -------
    Score
        As of ``content_accuracy``, with one value for each domain of ``target``.

    Raises
    ------
    DataError
        The labels do not have the same rows, or some are missing.

    Examples
    --------
    >>> style_accuracy([0, 1, 1, 1], ["0", "0", "1", "1"]).to_frame()[["domain", "score", "n"]]
      domain  score  n
    0      0    0.5  2
    1      1    1.0  2
    """
    return _accuracy(predicted, "target", target, target, source, n_bootstrap, random_state)


def _accuracy(
    predicted: ArrayLike,
    name: str,
    expected: ArrayLike,
    domains: ArrayLike | None,
    source: ArrayLike | None,
    n_bootstrap: int,
    random_state: int,
) -> Score:
    rng = generator(random_state, n_bootstrap)
    read = labels("predicted", predicted)
    right = labels(name, expected, len(read))
    hits = np.array([float(a == b) for a, b in zip(read, right, strict=True)])
    words = ["all"] * len(read) if domains is None else labels("domains", domains, len(read))
    origins = [str(row) for row in range(len(read))] if source is None else labels("source", source, len(read))
    images, targets = (pd.factorize(pd.Series(kind))[0] for kind in (origins, words))
    shown = natural_order(words)
    place = images, np.array([shown.index(word) for word in dict.fromkeys(words)])[targets]
    right_of, rows_of = np.zeros((2, images.max() + 1, len(shown)))
    np.add.at(right_of, place, hits)
    np.add.at(rows_of, place, 1.0)
    value, by_domain = float(hits.mean()), right_of.sum(axis=0) / rows_of.sum(axis=0)
    counts = row_counts(rng, n_bootstrap, len(rows_of))
    with np.errstate(invalid="ignore"):
        # A resample may lack a domain.
        boots = (counts @ right_of) / (counts @ rows_of)
    whole = counts @ right_of.sum(axis=1) / (counts @ rows_of.sum(axis=1))
    images_of = (rows_of > 0).sum(axis=0)
    ends = [_interval(share, boots[:, k], images_of[k]) for k, share in enumerate(by_domain)]
    details = {} if domains is None else domain_details(shown, ends, rows_of.sum(axis=0))
    shares = [pd.Series(kind).value_counts(normalize=True) for kind in (read, right)]
    settings = {
        "n_samples": len(read),
        "n_images": len(rows_of),
        "n_bootstrap": n_bootstrap,
        "random_state": random_state,
    }
    spread = _interval(value, whole, len(rows_of))
    return Score(value, by_domain, spread, float((shares[0] * shares[1]).sum()), details, settings)


def _interval(share: float, replicates: Floats, n_images: int) -> tuple[float, float]:
    low, high = interval(share, replicates, 0.0, 1.0)
    if np.isnan(low) or 0.0 < share < 1.0:
        return low, high
    reach = 1.0 - 0.025 ** (1.0 / n_images)
    return max(0.0, share - reach), min(1.0, share + reach)
