"""The page of a fitted ``CGGAN``: grids of images or the mixing of a table, the mask, the course of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmix.files import replacing
from unmix.models.cggan import MASK_THRESHOLD
from unmix.report import figures
from unmix.report.images import (
    ImageReportContent,
    ImageSection,
    model_sections,
    render_images,
    translated_section,
)
from unmix.report.parts import Picture, picture

_SHOWN = 8
_REACH = 2.5


def write_gan_report(model: Any, path: Path, images: NDArray[np.uint8] | None, labels: Any) -> Path:
    """Write the page of ``model``; ``images`` (n, side, side, colours) with their ``labels`` are shown translated."""
    names = [str(name) for name in model.get_feature_names_out()]
    sections: list[ImageSection] = []
    pictures: list[Picture] = []
    if model.schema_ is None:
        single = len(model.domain_schema_.columns) == len(model.domain_schema_.categorical) == 1
        sections = _drawn(model, names) if single else []
        if images is not None and single:
            first, own = images[:_SHOWN], labels[:_SHOWN]
            moved = [model.translate(first, own, to=domain) for domain in model.domains_]
            sections.insert(0, translated_section(first, moved, model.domains_))
    else:
        svg = figures.mixing_map(model.mixing_, np.zeros_like(model.mixing_), model.schema_.names, names)
        pictures.append(picture(svg, "Features in rows, latents in columns: mean |∂x/∂z|", "What each latent drives"))
    bars = figures.importance_bars(model.importance_, names, MASK_THRESHOLD)
    pictures += [
        picture(bars, "One bar a latent: the share of its spread that domains make", "Content and style"),
        picture(figures.term_curves(model.history_), "Terms of the players by step, one panel each", "Training"),
    ]
    found = f"{len(model.style_)} of {len(names)} latents are style"
    facts = {
        "found": found,
        "domains": ", ".join(model.domains_),
        "seconds": f"{model.fit_seconds_:.0f}",
        **{name: str(value) for name, value in model.get_params().items()},
    }
    subject = "images" if model.schema_ is None else "data"
    text = render_images(ImageReportContent("CGGAN", model.assumption, sections, facts, pictures, subject))
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return path


def _drawn(model: Any, names: list[str]) -> list[ImageSection]:
    own = np.stack([model.sample(_SHOWN, domain=domain, random_state=k) for k, domain in enumerate(model.domains_)])
    same = np.stack([model.sample(_SHOWN, domain=domain) for domain in model.domains_])
    steps = np.linspace(-_REACH, _REACH, _SHOWN)
    start = model.sample(1, domain=model.domains_[0])
    moved = [model.traverse(start, [model.domains_[0]], latent=i, values=steps)[:, 0] for i in range(len(names))]
    maps = model.mixing_.mean(axis=2).transpose(2, 0, 1)
    return model_sections(own, same, np.stack(moved), maps, model.domains_, names)
