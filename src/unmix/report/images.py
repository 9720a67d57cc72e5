"""The image page of a report: grids of images as PNG in one HTML file that opens without a network.

Every function takes arrays: uint8 images (…, height, width, channels), so that the page serves any model.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unmix.report.parts import Picture, fill

Images = NDArray[np.uint8]
Floats = NDArray[np.float64]

_CELL = 64
_GAP = 1


@dataclass(frozen=True)
class ImageSection:
    """One grid with its words: ``images`` (rows, columns, height, width, channels), a name for each row."""

    title: str
    text: str
    images: Images
    rows: Sequence[str]


@dataclass(frozen=True)
class ImageReportContent:
    """Everything the page is made from; ``facts`` are lines such as settings, ``figures`` carry their captions.

    ``subject`` is what the rows are: a model of both kinds has this page for its tables too, without grids.
    """

    method: str
    assumption: str
    sections: Sequence[ImageSection]
    facts: dict[str, str] = field(default_factory=dict)
    figures: Sequence[Picture] = ()
    subject: str = "images"


def model_sections(
    samples: Images,
    one_noise: Images,
    traversals: Images,
    mixing: Floats,
    domains: Sequence[str],
    latents: Sequence[str],
) -> list[ImageSection]:
    """What every model of images shows without any data.

    ``samples`` and ``one_noise`` (domains, columns, …) were drawn, the latter with the same ε in each column;
    ``traversals`` (latents, columns, …) move one latent; ``mixing`` (latents, height, width).
    """
    return [
        ImageSection("Samples", "Drawn from the model, without observation noise.", samples, domains),
        ImageSection("One noise, every domain", "Columns share the noise ε.", one_noise, domains),
        ImageSection("Traversals", "One latent from -2.5 to 2.5, the others at their mean.", traversals, latents),
        ImageSection(
            "What each latent moves", "Mean |∂x/∂z|, white for none.", heat(mixing)[None], [", ".join(latents)]
        ),
    ]


def translated_section(real: Images, moved: Sequence[Images], domains: Sequence[str]) -> ImageSection:
    """``real`` images (columns, …) above what becomes of them in each domain."""
    text = "The same images carried to each domain, from their latents; the first row is real."
    return ImageSection("Real images, translated", text, np.stack([real, *moved]), ["real", *domains])


def render_images(content: ImageReportContent) -> str:
    """The whole page as text."""
    grids = [
        {
            "title": section.title,
            "text": section.text,
            "rows": list(zip(section.rows, [row_address(row) for row in section.images], strict=True)),
        }
        for section in content.sections
    ]
    return fill("unmix.report", "images.html", content=content, grids=grids)


def grid(images: Images, *, gap: int = _GAP) -> Images:
    """Images (rows, columns, height, width, channels) as one, with white lines between them."""
    rows, columns, height, width, channels = images.shape
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 255, np.uint8)
    for row, column in np.ndindex(rows, columns):
        top, left = row * (height + gap), column * (width + gap)
        sheet[top : top + height, left : left + width] = images[row, column]
    return sheet


def grid_png(images: Images, *, zoom: int = 1) -> bytes:
    """``grid`` as a PNG file; each pixel becomes ``zoom`` × ``zoom``."""
    sheet = grid(images).repeat(zoom, axis=0).repeat(zoom, axis=1)
    stream = io.BytesIO()
    Image.fromarray(sheet.squeeze(-1) if sheet.shape[-1] == 1 else sheet).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def row_address(images: Images) -> str:
    """One row of images (columns, height, width, channels) as a data address, small images enlarged."""
    zoom = max(1, _CELL // images.shape[1])
    return "data:image/png;base64," + base64.b64encode(grid_png(images[None], zoom=zoom)).decode()


def heat(maps: Floats) -> Images:
    """Maps (n, height, width) as grey images (n, height, width, 1): white is 0, black the largest of all maps."""
    top = max(float(maps.max()), 1e-12)
    shade: Images = np.rint(255 * (1 - np.clip(maps / top, 0, 1))).astype(np.uint8)[..., None]
    return shade
