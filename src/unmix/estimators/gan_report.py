"""The report of a fitted ``CGGAN``: grids of images or the mixing of a table, the mask, the losses of the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unmix.data.images import ImageTable
from unmix.data.pictures import Images
from unmix.errors import SettingError
from unmix.estimators.features import Extractor, ImageClassifier, image_features, untrained_features
from unmix.forms import LabelsLike
from unmix.labels import labels_frame
from unmix.metrics import Score, fid, kid
from unmix.models.cggan import MASK_THRESHOLD
from unmix.report import figures
from unmix.report.images import (
    REACH,
    SHOWN,
    ImageReportContent,
    ImageSection,
    PageTable,
    domain_sections,
    judged_table,
    latent_sections,
    left_out,
    moves_section,
    render_images,
    translated_section,
)
from unmix.report.parts import Picture, picture, write_html
from unmix.version import versions

_LEAST_COMPARED, _MOST_COMPARED = 20, 500
_KID_SCALE, _LEAST_SPREAD = 1000.0, 1e-6
_EXTRACTOR: dict[str, Any] = {"max_epochs": 10, "batch_size": 32, "random_state": 0}


def write_gan_report(
    model: Any,
    path: Path,
    shown: tuple[ImageTable, LabelsLike] | None,
    extractor: Extractor | None,
    judged: pd.DataFrame | None,
) -> Path:
    """Write the page of ``model``; the images of ``shown``, with their domains, are translated and compared."""
    if extractor is not None:
        _check_extractor(model, shown, extractor)
    names = [f"{name} · {'content' if i in model.content_ else 'style'}" for i, name in _latents(model)]
    sections: list[ImageSection] = []
    pictures: list[Picture] = []
    tables = [] if judged is None else [judged_table(judged)]
    notes: list[str] = []
    if not model._of_images():
        plain = [name for _, name in _latents(model)]
        svg = figures.mixing_map(model.mixing_, np.zeros_like(model.mixing_), model.schema_.names, plain)
        pictures.append(picture(svg, "Features in rows, latents in columns: mean |∂x/∂z|", "What each latent drives"))
    elif model.domain_schema_.one_column:
        if shown is not None:
            groups = model.domain_schema_.groups(shown[1], len(shown[0]))
            labels = labels_frame(shown[1], len(groups))
            sections.append(translated_section(shown[0].images, labels, groups, model.domains_, model.translate))
            table = _distances(model, shown[0], groups, extractor)
            tables += [table] if isinstance(table, PageTable) else []
            notes += [table] if isinstance(table, str) else []
        sections += drawn(model, names)
    else:
        sections.append(moves_section(_maps(model), names))
        notes.append(left_out([column.name for column in model.domain_schema_.columns]))
    bars = figures.importance_bars(model.importance_, names, MASK_THRESHOLD)
    tables += _starts(model)
    pictures += [
        picture(bars, "One bar per latent: the share of its spread that domains account for", "Content and style"),
        picture(
            figures.term_curves(model.history_),
            "Losses of generator and discriminator by step",
            "Training",
        ),
    ]
    facts = {
        "domains": ", ".join(model.domains_),
        "seconds": f"{model.fit_seconds_:.0f}",
        **{name: str(value) for name, value in model.fitted_params_.items()},
    }
    content = ImageReportContent(
        method="CGGAN",
        assumption=model.assumption,
        found=f"{len(model.style_)} of {model.n_latents} latents are style, {len(model.content_)} content.",
        sections=sections,
        facts=facts,
        versions=versions(),
        figures=pictures,
        tables=tables,
        notes=notes,
        subject="images" if model._of_images() else "data",
    )
    write_html(render_images(content), path)
    return path


def _check_extractor(model: Any, shown: tuple[ImageTable, LabelsLike] | None, extractor: Extractor | None) -> None:
    """Refuse what makes no features, before the page is begun."""
    if not model._of_images():
        raise SettingError("extractor makes features of images; this model was fitted on a table. Leave it out.")
    expected = "a fitted ImageClassifier, or a torch.nn.Module from images to features"
    fitted = not isinstance(extractor, ImageClassifier) or hasattr(extractor, "network_")
    if not (isinstance(extractor, ImageClassifier | torch.nn.Module) and fitted):
        came = repr(extractor) if fitted else "an ImageClassifier that was not fitted"
        raise SettingError(
            f"extractor must be {expected}; got {came}. Without it, a small one is trained on the domains."
        )
    if shown is None:
        raise SettingError("extractor compares real images with generated ones: pass the images as X, y too.")
    try:
        image_features(extractor, shown[0].images[:2])
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise SettingError(
            f"extractor must be {expected}; {type(extractor).__name__} cannot take images of shape "
            f"{model.image_shape_}: {error}"
        ) from error


def _latents(model: Any) -> list[tuple[int, str]]:
    return list(enumerate(map(str, model.get_feature_names_out())))


def _maps(model: Any) -> NDArray[np.float64]:
    return model.mixing_.mean(axis=2).transpose(2, 0, 1)


def drawn(model: Any, names: list[str]) -> list[ImageSection]:
    others = f"as in the first sample of {model.domains_[0]}"
    return [
        *domain_sections(lambda domain, k: model.sample(SHOWN, domain=domain, random_state=k), model.domains_),
        *latent_sections(traversed(model), others, _maps(model), names),
    ]


def traversed(model: Any) -> Images:
    """One drawn image per latent, with that latent set to one value after the other; without the encoder."""
    design = model._design(model.domains_[0], SHOWN)
    noise = torch.randn(SHOWN, model.n_latents, generator=torch.Generator().manual_seed(0))[:1].repeat(SHOWN, 1)
    with torch.no_grad():
        z = model.model_.from_noise(noise.to(design.device), design)
    steps = torch.linspace(-REACH, REACH, SHOWN, device=z.device)[:, None]
    columns = torch.eye(model.n_latents, dtype=torch.bool, device=z.device)
    return np.stack([model._decode(torch.where(column, steps, z), design) for column in columns])


def _distances(
    model: Any, table: ImageTable, groups: NDArray[np.int64], extractor: Extractor | None
) -> PageTable | str:
    """FID and KID of as many generated images as there are real ones, domain by domain; or why there are none."""
    found = [np.flatnonzero(groups == group) for group in range(len(model.domains_))]
    compared = [group for group, rows in enumerate(found) if len(rows) >= _LEAST_COMPARED]
    if not compared:
        return f"FID and KID need {_LEAST_COMPARED} real images of a domain; there are fewer of each."
    chosen = [found[group][:: -(-len(found[group]) // _MOST_COMPARED)] for group in compared]
    labels = np.repeat([model.domains_[group] for group in compared], [len(rows) for rows in chosen])
    made = np.concatenate(
        [
            model.sample(len(rows), domain=model.domains_[k], random_state=k)
            for k, rows in zip(compared, chosen, strict=True)
        ]
    )
    both = np.concatenate([table.images[np.concatenate(chosen)], made])
    features, name, origin = _features(both, labels, extractor)
    halves = (features[: len(labels)], features[len(labels) :])
    words: dict[str, Any] = {"extractor": name, "domains_real": labels, "domains_generated": labels}
    # The cubic kernel of raw features says more of their size than of the images.
    center, spread = halves[0].mean(axis=0), halves[0].std(axis=0) + _LEAST_SPREAD
    standardised = [(own - center) / spread for own in halves]
    scores = {
        "FID": fid(*halves, **words),
        "KID": kid(*standardised, n_blocks=min(20, min(map(len, chosen)) // 10), **words),
    }
    frame = pd.DataFrame({"domain": [*scores["FID"].details["domain"], "mean"]})
    frame["images"] = [*map(str, scores["FID"].details["n"]), ""]
    frame["FID"], frame["1000 · KID"] = _with_mean(scores["FID"]), _with_mean(scores["KID"], _KID_SCALE)
    text = (
        f"Real images against as many generated ones, features of {name}{origin}. 95 % intervals in brackets; smaller "
        f"is better. Real and generated images, shuffled, have FID {scores['FID'].chance:.2g}, 1000 · KID "
        f"{_KID_SCALE * scores['KID'].chance:.2g}. For KID, features are in standard deviations of real images. "
        "Compare numbers only for the same extractor and the same number of images."
    )
    return PageTable("Are generated images like real ones?", text, frame)


def _features(
    both: Images, labels: NDArray[np.str_], extractor: Extractor | None
) -> tuple[NDArray[np.float64], str, str]:
    """Features of real images, which ``labels`` name, and then of generated ones; who made them, and how it came."""
    if extractor is not None:
        return *image_features(extractor, both), ", as passed"
    if len(np.unique(labels)) < 2:
        return *untrained_features(both), ", a network that was never trained"
    trained = ImageClassifier(**_EXTRACTOR).fit(both[: len(labels)], labels)
    words = f", a small network trained for this report to classify the domains of these {len(labels)} real images"
    return *image_features(trained, both), words


def _starts(model: Any) -> list[PageTable]:
    """The errors of several starts; a folder of an older version may lack them."""
    errors = model.start_errors_
    if len(errors) < 2 or np.isnan(errors).all():
        return []
    frame = pd.DataFrame({"start": range(len(errors)), "error": [f"{error:.4g}" for error in errors]})
    frame[""] = np.where(np.arange(len(errors)) == model.best_restart_, "kept", "")
    text = (
        "Mean squared difference between the data and their reconstruction, over the last steps. Among the starts "
        "within a tenth of the best, the one with the fewest style latents is kept."
    )
    return [PageTable("Which start reconstructs the data best?", text, frame)]


def _with_mean(score: Score, scale: float = 1.0) -> list[str]:
    ends = [*zip(score.details["low"], score.details["high"], strict=True), score.interval]
    return [
        f"{_short(scale * value)} ({_short(scale * low)} to {_short(scale * high)})"
        for value, (low, high) in zip([*score.per_factor, score], ends, strict=True)
    ]


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
