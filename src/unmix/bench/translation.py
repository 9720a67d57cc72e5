r"""Do translated images keep their content and reach their domain? Classifiers trained on real images are the judges.

Every held-out image is translated to every other domain. Content accuracy is the share whose content (a digit, a role)
a classifier still reads; style accuracy the share that another classifier assigns to the target domain. Both are to be
read beside what the same judges reach on real held-out images. Intervals resample held-out images, each with all its
translations.

One judge of content serves all targets: it was trained on the real images of every domain, those of the target among
them. A judge for each target would have fewer images to learn from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from unmix.errors import DataError, SettingError
from unmix.estimators.features import ImageClassifier
from unmix.estimators.prepare import as_images
from unmix.forms import DataLike, LabelsLike
from unmix.labels import label_column, label_text
from unmix.metrics import content_accuracy, style_accuracy
from unmix.metrics.inputs import labels

DIGIT_SETTINGS: dict[str, object] = {
    "n_latents": 20,
    "n_style": 4,
    "hidden": (64, 64),
    "channels": 16,
    "modulation": "colours",
    "mask_weight": 0.1,
    "sparsity": 0.3,
    "gradient_weight": 0.3,
    "learning_rate": 3e-3,
    "batch_size": 32,
    "max_steps": 2400,
    "encoder_steps": 300,
}
"""Settings of ``CGGAN`` for images of 16 × 16 pixels in two colours, in minutes on two cores."""

EMOJI_SETTINGS: dict[str, object] = {
    "n_latents": 40,
    "n_style": 8,
    "hidden": (128, 128),
    "channels": 16,
    "mask_weight": 0.1,
    "sparsity": 0.3,
    "gradient_weight": 0.3,
    "learning_rate": 2e-3,
    "batch_size": 32,
    "max_steps": 1500,
    "encoder_steps": 200,
}
"""Settings of ``CGGAN`` for the emoji, 32 × 32 pixels in three drawing styles."""


@dataclass(frozen=True)
class Judges:
    """Classifiers of the content and of the domain, with their accuracies on real images that they did not see."""

    content: ImageClassifier
    style: ImageClassifier
    real_content: float
    real_style: float


def train_judges(
    images: DataLike,
    content: ArrayLike,
    domains: LabelsLike,
    held_out: ArrayLike,
    *,
    width: int = 32,
    max_epochs: int = 20,
) -> Judges:
    """Judges trained on the real images of all domains that are not ``held_out``.

    Parameters
    ----------
    images : uint8 array (n_images, height, width, channels), or any form that ``read_images`` knows or returns
    content, domains : labels (n_images,)
        ``domains=None``: those that come with ``images``.
    held_out : bool array (n_images,)
        The images on which the judges are judged, and which are to be translated.
    width, max_epochs : as of ``ImageClassifier``

    Raises
    ------
    DataError
        The images cannot be used, labels or ``held_out`` do not fit them, or all images are on one side.
    SettingError
        ``width`` or ``max_epochs`` is impossible.
    """
    table, own = as_images(images, domains)
    pixels = table.images
    try:
        held = np.asarray(held_out)
    except ValueError:
        held = np.array(None)
    if held.dtype != bool or held.shape != (len(pixels),) or held.all() or not held.any():
        raise DataError(
            f"held_out must be True for some and False for others of {len(pixels)} images; got {held.dtype} of shape "
            f"{held.shape} with {np.count_nonzero(held)} True. Pass a mask such as np.arange(n) % 5 == 0."
        )
    fitted, real = [], []
    for name, values in (("content", content), ("domains", own)):
        words = np.array(labels(name, values, len(pixels)))
        judge = ImageClassifier(width=width, max_epochs=max_epochs).fit(pixels[~held], words[~held])
        fitted.append(judge)
        real.append(float(np.mean(judge.predict(pixels[held]) == words[held])))
    return Judges(*fitted, *real)


def compare_translations(
    models: Mapping[str, BaseEstimator],
    judges: Judges,
    images: DataLike,
    content: ArrayLike,
    domains: LabelsLike,
    truth: Mapping[str, NDArray[np.uint8]],
) -> pd.DataFrame:
    """``judge_translations`` of several models by name, beside the distance to what is true.

    Parameters
    ----------
    models, judges, images, content, domains : as in ``judge_translations``
    truth : mapping of domain to uint8 array (n_images, height, width, channels)
        What each image really is in each domain.

    Returns
    -------
    DataFrame
        The rows of ``judge_translations``, with the columns ``method`` and ``rmse``, in grey levels.
    """
    table, own = as_images(images, domains)
    words, found = np.array(labels("domains", own, len(table))), []
    for name, model in models.items():
        judged, errors = judge_translations(model, judges, table, content, own), {}
        for target in map(str, model.domains_):
            moved = words != target
            made = model.translate(table.images[moved], words[moved], to=target).astype(float)
            errors[target] = np.square(made - truth[target][moved]).mean(axis=(1, 2, 3))
        errors["all"] = np.concatenate([*errors.values()])
        judged.insert(1, "rmse", [float(np.sqrt(errors[target].mean())) for target in judged["to"]])
        judged.insert(0, "method", name)
        found.append(judged)
    return pd.concat(found, ignore_index=True)


def judge_translations(
    model: BaseEstimator, judges: Judges, images: DataLike, content: ArrayLike, domains: LabelsLike
) -> pd.DataFrame:
    """Translate every image to every other domain, and let the judges read what comes out.

    Parameters
    ----------
    model : a fitted ``CGGAN``, or anything with ``domains_`` and ``translate(images, domains, to=...)``
    judges : what ``train_judges`` returned
    images, content, domains : images that the judges did not see, and their labels, as in ``train_judges``

    Returns
    -------
    DataFrame
        One row per target domain and one for all: shares with 95 % intervals. Columns: ``to``, ``n`` (translated
        images), ``content``, ``content_low``, ``content_high``, the same of ``style``, and ``real_content``,
        ``real_style``: what the judges reach on real images.

    Raises
    ------
    SettingError
        ``model`` cannot translate, or ``judges`` are none.
    DataError
        The images or labels cannot be used, or there is no other domain to translate them to.
    """
    if not isinstance(judges, Judges):
        raise SettingError(f"judges must be what train_judges returned; got {type(judges).__name__}.")
    if isinstance(model, BaseEstimator) and callable(getattr(model, "translate", None)):
        check_is_fitted(model)
    if not (callable(getattr(model, "translate", None)) and hasattr(model, "domains_")):
        raise SettingError(
            "model must be a fitted CGGAN, or have domains_ and translate(images, domains, to=...); got "
            f"{type(model).__name__}."
        )
    table, labelled = as_images(images, domains)
    pixels = table.images
    words, own = (
        np.array(labels(name, part, len(pixels))) for name, part in (("content", content), ("domains", labelled))
    )
    given = label_column(labelled, "domains", len(pixels))
    known = set(map(label_text, judges.content.classes_))
    unknown = sorted(set(map(str, words)) - known)
    if unknown:
        raise DataError(
            f"content has labels that the judge never saw, such as {unknown[0]!r}; it knows {sorted(known)[:10]}. Pass "
            "labels of the kind that train_judges was given."
        )
    places, targets, kept, reached = [], [], [], []
    for target in map(str, model.domains_):
        moved = np.flatnonzero(own != target)
        if not len(moved):
            continue
        made = model.translate(pixels[moved], given[moved], to=target)
        places.append(moved)
        targets += [target] * len(moved)
        kept.append(judges.content.predict(made))
        reached.append(judges.style.predict(made))
    if not places:
        raise DataError(
            f"The model knows the domains {[*map(str, model.domains_)]}, and all images belong to one of them: there "
            "is no other to translate them to."
        )
    source = np.concatenate(places)
    scores = {
        "content": content_accuracy(np.concatenate(kept), words[source], domains=targets, source=source),
        "style": style_accuracy(np.concatenate(reached), targets, source=source),
    }
    rows = pd.DataFrame({"to": [*scores["style"].details["domain"], "all"]})
    rows["n"] = [*scores["style"].details["n"], len(source)]
    for name, score in scores.items():
        rows[name] = [*score.per_factor, float(score)]
        rows[f"{name}_low"] = [*score.details["low"], score.interval[0]]
        rows[f"{name}_high"] = [*score.details["high"], score.interval[1]]
    return rows.assign(real_content=judges.real_content, real_style=judges.real_style)
