"""The image report: grids of images as PNG in one HTML file that opens without a network.

Functions take uint8 images (…, height, width, channels), or a function that makes them: any model can use the page.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from unmix.errors import DataError, SettingError
from unmix.files import as_path, replacing
from unmix.report.parts import Picture, fill
from unmix.validation import whole

Images = NDArray[np.uint8]
Floats = NDArray[np.float64]

SHOWN = 8
REACH = 2.5
_CELL = 64
_JUDGED = ("to", "n", "content", "style")
_GAP = 1


@dataclass(frozen=True)
class ImageSection:
    """Grids with a title and text: ``images`` (rows, columns, height, width, channels), a name for each row.

    With ``wraps`` the rows stand side by side as far as the page is wide.
    """

    title: str
    text: str
    images: Images
    rows: Sequence[str]
    wraps: bool = False


@dataclass(frozen=True)
class PageTable:
    """A small table with a title and text."""

    title: str
    text: str
    frame: pd.DataFrame


@dataclass(frozen=True)
class ImageReportContent:
    """Content of the page; ``facts`` are lines such as settings, ``figures`` have captions.

    ``found`` is the headline, ``notes`` say what the page leaves out. ``subject`` is what the rows are: a model of both
    kinds has this page for its tables too, without grids.
    """

    method: str
    assumption: str
    found: str
    sections: Sequence[ImageSection]
    facts: dict[str, str]
    versions: dict[str, str]
    figures: Sequence[Picture] = ()
    tables: Sequence[PageTable] = ()
    notes: Sequence[str] = field(default_factory=list)
    subject: str = "images"
    question: str = ""


def domain_sections(draw: Callable[[str, int], Images], domains: Sequence[str]) -> list[ImageSection]:
    """Grids of samples; ``draw`` returns ``SHOWN`` images of a domain, with the same ε for the same seed."""
    samples = np.stack([draw(domain, seed) for seed, domain in enumerate(domains)])
    one_noise = np.stack([draw(domain, len(domains)) for domain in domains])
    return [
        ImageSection("Samples", "Drawn from the model.", samples, domains),
        ImageSection("One noise, every domain", "Columns share the noise ε.", one_noise, domains),
    ]


def latent_sections(traversals: Images, others: str, mixing: Floats, latents: Sequence[str]) -> list[ImageSection]:
    """``traversals`` (latents, columns, …) move one latent, ``others`` describes the values of the others.

    ``mixing`` (latents, height, width).
    """
    text = f"One latent from -{REACH} to {REACH} standard deviations, the others {others}."
    return [
        ImageSection("Traversals", text, traversals, latents),
        moves_section(mixing, latents),
    ]


def moves_section(mixing: Floats, latents: Sequence[str]) -> ImageSection:
    """One map per latent; ``mixing`` (latents, height, width)."""
    text = "Mean |∂x/∂z| along the latent: white for 0, black for the largest value of all latents."
    return ImageSection("What each latent moves", text, heat(mixing)[:, None], latents, wraps=True)


def some_of_each(groups: NDArray[np.int64], domains: Sequence[str]) -> tuple[NDArray[np.int64], str]:
    """Indices of a few images of every domain, and a text; ``groups`` (images,) index ``domains``, -1 for none."""
    present = [group for group in range(len(domains)) if (groups == group).any()][:SHOWN]
    each = SHOWN // max(len(present), 1)
    # Evenly spread, and at different positions in each domain: images are often sorted, in all alike.
    chosen = []
    for place, group in enumerate(present):
        own = np.flatnonzero(groups == group)
        count = min(each, len(own))
        chosen.append(own[(np.arange(count) * len(present) + place) * len(own) // (count * len(present))])
    words = ", ".join(f"{len(own)} of {domains[group]}" for group, own in zip(present, chosen, strict=True))
    return np.concatenate([*chosen, np.zeros(0, np.int64)]), words


def translated_section(
    images: Images,
    labels: pd.DataFrame,
    groups: NDArray[np.int64],
    domains: Sequence[str],
    translate: Callable[..., Images],
) -> ImageSection:
    """Some images of each domain, above their translations; ``groups`` are indices of ``domains``, -1 for none."""
    chosen, words = some_of_each(groups, domains)
    real, own = images[chosen], labels.iloc[chosen]
    moved = [translate(real, own, to=domain) for domain in domains]
    text = f"First row, from left to right: {words} (real images). Below: the same images, translated to each domain."
    rows = ["real", *(f"to {domain}" for domain in domains)]
    return ImageSection("Real images, translated", text, np.stack([real, *moved]), rows)


def judged_table(judged: pd.DataFrame) -> PageTable:
    """Accuracies of translations, as ``judge_translations`` returns them, of one method or of several."""
    expected = "Pass the table that unmix.images.judge_translations returned"
    if not isinstance(judged, pd.DataFrame):
        raise DataError(f"judged must be a table; got {judged!r}. {expected}.")
    lacking = [name for name in _JUDGED if name not in judged]
    if lacking or judged.empty:
        what = f"lacks the columns {lacking}" if lacking else "has no rows"
        raise DataError(f"judged {what}. {expected}.")
    frame = judged[[name for name in ("method", "to") if name in judged]].copy()
    frame["images"] = judged["n"]
    text = "Share of translated images whose content, and whose target domain, a classifier of real images recognises"
    if "rmse" in judged:
        frame["rmse"] = [f"{value:.1f}" for value in judged["rmse"]]
        text += "; rmse, difference in grey levels from the true image in the target domain"
    for name in ("content", "style"):
        frame[name] = [f"{value:.2f}" for value in judged[name]]
        if f"{name}_low" in judged:
            ends = zip(judged[f"{name}_low"], judged[f"{name}_high"], strict=True)
            frame[name] += [f" ({low:.2f} to {high:.2f})" for low, high in ends]
    if "content_low" in judged:
        text += "; 95 % intervals in brackets"
    if "real_content" in judged:
        real = judged.iloc[-1]
        text += f". On real images: content {real['real_content']:.2f}, style {real['real_style']:.2f}"
    return PageTable("Do translations keep their content and reach their domain?", f"{text}.", frame)


def left_out(columns: Sequence[str]) -> str:
    """The reason why there are no grids by domain."""
    return (
        f"Grids by domain are drawn where the domains are one column of labels; this model has {', '.join(columns)}. "
        "Draw them with model.sample(n, domain={column: value, …}) and unmix.images.image_grid."
    )


def render_images(content: ImageReportContent) -> str:
    """The whole page as text."""
    grids = [
        {
            "title": section.title,
            "text": section.text,
            "wraps": section.wraps,
            "rows": list(zip(section.rows, [row_address(row) for row in section.images], strict=True)),
        }
        for section in content.sections
    ]
    return fill("unmix.report", "images.html", content=content, grids=grids)


def image_grid(images: Images | Sequence[Images], path: str | Path | None = None, *, zoom: int = 1) -> Images:
    """Many images as one, with white lines between them; with ``path`` also as a PNG file.

    Parameters
    ----------
    images : uint8 array (rows, columns, height, width, channels), or (columns, height, width, channels) for one row
        What ``sample``, ``translate`` and ``traverse`` return, or several of them as a list of rows.
    path : path ending in .png, optional
        File to write; one that is there is replaced as a whole.
    zoom : int, default 1
        Each pixel becomes ``zoom`` × ``zoom``.

    Returns
    -------
    uint8 array (height, width, channels)

    Raises
    ------
    DataError
        The images are no uint8 array of one size.
    SettingError
        ``path`` is no .png, or ``zoom`` no whole number ≥ 1.
    StorageError
        The file cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> image_grid(np.zeros((2, 5, 16, 16, 3), np.uint8)).shape
    (33, 84, 3)
    """
    whole(1).need("zoom", zoom)
    path = None if path is None else as_path(path)
    if path is not None and path.suffix.lower() != ".png":
        raise SettingError(f"path must end in .png; got {path.name!r}.")
    try:
        array = np.asarray(images)
    except ValueError as error:
        shapes = [np.shape(row) for row in images]
        raise DataError(f"All rows of a grid must have one shape; got {shapes[:4]}. Make them equal.") from error
    array = array[None] if array.ndim == 4 else array
    if array.dtype != np.uint8 or array.ndim != 5 or array.shape[-1] not in (1, 3) or 0 in array.shape:
        raise DataError(
            "Expected images as uint8 (rows, columns, height, width, channels), or (columns, height, width, channels), "
            f"with 1 or 3 channels; got {array.dtype} of shape {array.shape}. Convert or reshape them."
        )
    rows, columns, height, width, channels = array.shape
    sheet = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, channels), 255, np.uint8)
    for row, column in np.ndindex(rows, columns):
        top, left = row * (height + _GAP), column * (width + _GAP)
        sheet[top : top + height, left : left + width] = array[row, column]
    sheet = sheet.repeat(zoom, axis=0).repeat(zoom, axis=1)
    if path is not None:
        with replacing(path) as beside:
            beside.write_bytes(png(sheet))
    return sheet


def png(image: Images) -> bytes:
    """One image (height, width, channels) as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def row_address(images: Images) -> str:
    """One row of images (columns, height, width, channels) as a data URL, small images enlarged."""
    zoom = max(1, _CELL // images.shape[1])
    return "data:image/png;base64," + base64.b64encode(png(image_grid(images, zoom=zoom))).decode()


def heat(maps: Floats) -> Images:
    """Maps (n, height, width) as grey images (n, height, width, 1): white is 0, black the largest of all maps."""
    top = max(float(maps.max()), 1e-12)
    shade: Images = np.rint(255 * (1 - np.clip(maps / top, 0, 1))).astype(np.uint8)[..., None]
    return shade
