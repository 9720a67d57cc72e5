"""The report of a fitted ``ImageTranslator``: quality of translations, then pictures, then settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmix.data.images import ImageTable
from unmix.report import figures
from unmix.report.images import (
    SHOWN,
    ImageReportContent,
    ImageSection,
    domain_sections,
    judged_table,
    render_images,
    some_of_each,
    translated_section,
)
from unmix.report.parts import picture, write_html
from unmix.version import versions

_REACH = 2.0


def write_translator_report(
    model: Any, path: Path, shown: tuple[ImageTable, NDArray[np.int64]] | None, judged: pd.DataFrame | None
) -> Path:
    """Write the page of ``model``; the images of ``shown``, with the places of their domains, are translated."""
    tables = [] if judged is None else [judged_table(judged)]
    sections: list[ImageSection] = []
    if shown is not None:
        sections += _of_images(model, *shown)
    sections += domain_sections(lambda name, k: model.sample(SHOWN, domain=name, random_state=k), model.domains_)
    facts = {
        "domains": ", ".join(model.domains_),
        "seconds": f"{model.fit_seconds_:.0f}",
        **{name: str(value) for name, value in model.fitted_params_.items()},
    }
    content = ImageReportContent(
        method="ImageTranslator",
        assumption=model.assumption,
        found=_found(model, judged),
        sections=sections,
        facts=facts,
        versions=versions(),
        figures=[picture(figures.term_curves(model.history_), "Terms of the objective by step", "Training")],
        tables=tables,
        question="What would these images be in another domain?",
    )
    write_html(render_images(content), path)
    return path


def _found(model: Any, judged: pd.DataFrame | None) -> str:
    learnt = f"{len(model.domains_)} domains: content of {model.n_latents_} latents, style of {model.n_style}."
    if judged is None:
        return learnt
    rows = judged[judged["to"] == "all"]
    own = rows[rows["method"] == "ImageTranslator"].iloc[0] if "method" in rows else rows.iloc[0]
    said = (
        f"Of held-out images translated to other domains, classifiers recognise the content in {own['content']:.0%} "
        f"and the target domain in {own['style']:.0%}"
    )
    if "rmse" in rows and "method" in rows:
        others = rows[rows["method"] != "ImageTranslator"].sort_values("rmse")
        best, name = others["rmse"].iloc[0], others["method"].iloc[0]
        said += f"; {own['rmse']:.1f} grey levels from the truth, where the best simple method is {best:.1f} ({name})"
    return f"{said}. {learnt}"


def _of_images(model: Any, table: ImageTable, groups: NDArray[np.int64]) -> list[ImageSection]:
    labels = pd.DataFrame({"domain": np.array(model.domains_)[groups]})
    translated = translated_section(table.images, labels, groups, model.domains_, model.translate)
    first = int(some_of_each(groups, model.domains_)[0][0])
    one, own = table.images[first : first + 1], labels["domain"].iloc[first]
    order = np.argsort(-model.importance_)[:SHOWN]
    values = np.linspace(-_REACH, _REACH, SHOWN)
    lines = np.stack([model.traverse(one, [own], latent=int(k), values=values)[:, 0] for k in order])
    text = f"An image of {own}, with one style latent ε from {-_REACH:g} to {_REACH:g}, the others 0."
    names = [f"style {k}: domains make {model.importance_[k]:.0%} of its spread" for k in order]
    return [translated, ImageSection("What each style latent does", text, lines, names)]
