"""Options that several commands share, and what the texts of options mean."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from unmix.errors import DataError, SettingError


def file_path(text: str) -> Path:
    """A path of the command line, with ``~`` expanded, as a shell does not in ``--out=~/runs``."""
    from unmix.files import as_path

    return as_path(text)


path_argument = partial(typer.Argument, parser=file_path)
path_option = partial(typer.Option, parser=file_path)

Domain = Annotated[list[str] | None, typer.Option(help="Categorical domain column; may be repeated.")]
Within = Annotated[list[str] | None, typer.Option(help="Nested domain column, as COLUMN:PARENT.")]
Continuous = Annotated[list[str] | None, typer.Option(help="Continuous auxiliary column; may be repeated.")]
Feature = Annotated[list[str] | None, typer.Option(help="Feature column; may be repeated. Default: all others.")]
Drop = Annotated[list[str] | None, typer.Option(help="Column to leave out; may be repeated.")]
Run = Annotated[Path, path_argument(help="Run folder of unmix fit, or of model.save.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same result.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
Json = Annotated[bool, typer.Option("--json", help="Print only JSON.")]
Jobs = Annotated[int, typer.Option(help="Processes. -1: one for each core.")]
OnError = Annotated[
    str | None, typer.Option(help="Images: raise an error for files that cannot be read, or skip them.")
]
Missing = Annotated[str | None, typer.Option(help="error, or mask: leave missing entries out of the likelihood.")]

_IN_OPTIONS = (
    (r"(?:unmix\.)?read_images\((?:\.\.\.|…), size=(\d+)\)", r"--size \1"),
    (r"\bsize=\(height, width\)", "--size with a number of pixels"),
    (r'\bmode="(\w+)"', r"--mode \1"),
    (r'\bon_error="(\w+)"', r"--on-error \1"),
    ("pass a smaller size=, or raise max_memory", "or take a smaller --size"),
)


def in_options(message: str) -> str:
    """Replace arguments of ``read_images`` in a message by the options of the command line."""
    for words, options in _IN_OPTIONS:
        message = re.sub(words, options, message)
    return message


def given(**options: object) -> dict[str, object]:
    """The options that the user set: those that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def refuse(reason: str, **options: object) -> None:
    """Raise an error for options that would have no effect."""
    useless = [f"--{name.replace('_', '-')}" for name, value in options.items() if value not in (None, [], {})]
    if useless:
        raise SettingError(f"{', '.join(useless)} cannot be used here: {reason}. Leave the option out.")


def kinds_of(domain: list[str] | None, within: list[str] | None, continuous: list[str] | None) -> dict[str, str]:
    """Kinds of the domain columns, as ``CGVAE(auxiliary=...)`` takes them."""
    return {
        **dict.fromkeys(domain or [], "categorical"),
        **{column: f"within {parent}" for column, parent in map(_nested, within or [])},
        **dict.fromkeys(continuous or [], "continuous"),
    }


def number_of_latents(text: str) -> int | str:
    """``--latents`` of a fit: a whole number, or auto."""
    if text == "auto":
        return text
    if not text.isdecimal():
        raise SettingError(f"--latents takes a whole number ≥ 1, or auto; got {text!r}.")
    return int(text)


def numbers_of_latents(text: str) -> list[int]:
    """``--latents`` of a selection: 2-8, 2,3,5, or both."""
    found: list[int] = []
    for part in text.split(","):
        low, separator, high = part.strip().partition("-")
        if not low.isdecimal() or (separator and not high.isdecimal()):
            raise SettingError(f"--latents takes numbers such as 2-8 or 2,3,5; got {text!r}.")
        found += range(int(low), int(high if separator else low) + 1)
    return found


def _nested(item: str) -> tuple[str, str]:
    column, separator, parent = item.partition(":")
    if not (column and separator and parent):
        raise DataError(f"--within takes COLUMN:PARENT, such as site:region; got {item!r}.")
    return column, parent
