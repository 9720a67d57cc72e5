"""Parts of every page: one style, templates, and figures and tables embedded in the file."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from unmix.data.tables import csv_text
from unmix.files import replacing

_MOST_FOUND = 20


@dataclass(frozen=True)
class Picture:
    """A figure as a data URL, with alternative text."""

    source: str
    alt: str
    caption: str = ""


def picture(svg: str, alt: str, caption: str = "") -> Picture:
    """A figure embedded in the page."""
    return Picture(_address("image/svg+xml", svg), alt, caption)


def table_html(table: pd.DataFrame) -> Markup:
    """The table as HTML, escaped by pandas."""
    return Markup(table.to_html(index=False, border=0, na_rep="", float_format=lambda value: f"{value:.4g}"))


def as_code(text: str) -> Markup:
    """A sentence with text between backticks as code; everything is escaped."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:
        return Markup.escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(own) if k % 2 else own for k, own in enumerate(parts))


def search(name: str, label: str, columns: Sequence[str], names: Sequence[str], values: NDArray[np.float64]) -> Markup:
    """A field to find rows of a long table by name; ``values`` (rows, columns) are shown to two digits.

    All rows travel in the page as JSON, the first 20 that fit are shown.
    """
    rows = [
        [row, *(None if not np.isfinite(value) else round(float(value), 3) for value in own)]
        for row, own in zip(names, values, strict=True)
    ]
    content = json.dumps({"columns": [*columns], "rows": rows}, ensure_ascii=True, separators=(",", ":"))
    # Escaped, so that no name can end the script element.
    safe = Markup(content.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
    return Markup(fill("unmix.report", "search.html", id=name, label=label, rows=safe, most=_MOST_FOUND))


def csv_address(table: pd.DataFrame) -> str:
    """The table as a download embedded in the page."""
    return _address("text/csv", csv_text(table))


def _address(kind: str, text: str) -> str:
    return f"data:{kind};base64," + base64.b64encode(text.encode(errors="backslashreplace")).decode()


def write_html(text: str, path: Path) -> None:
    """Replace the file ``path`` by a page; characters that UTF-8 cannot encode, as in some file names, are escaped."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")


def fill(package: str, template: str, **values: object) -> str:
    """Fill in a template of ``package``; everything is escaped, and a missing value is an error."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["code"] = as_code
    text = files(package).joinpath(template).read_text(encoding="utf-8")
    style = Markup(files("unmix.report").joinpath("style.css").read_text(encoding="utf-8"))
    page: str = environment.from_string(text).render(style=style, **values)
    return page
