"""What reaches a terminal is text: a label, a file's name or a message cannot move the cursor or change the screen."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO, cast

# C0 without tab and newline, DEL, C1, line and paragraph separators, directional embeddings, overrides and isolates,
# and lone surrogates: what is left of bytes in a file's name that are not UTF-8.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with control characters as ``\u001b`` and the like, which JSON reads back; other Unicode stays.

    Examples
    --------
    >>> printable("a\x1b[31m é\n")
    'a\\u001b[31m é\n'
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


@contextmanager
def printable_output() -> Iterator[None]:
    """Whatever is printed in the block is ``printable``; only the bars of rich keep their own control sequences."""
    before = {"stdout": sys.stdout, "stderr": sys.stderr}
    ours = {name: _Printable(stream) for name, stream in before.items()}
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in ours.values())
    try:
        yield
    finally:
        for name, stream in before.items():
            # Left alone where the block has put another in place, as typer does for a pipe that was closed.
            if getattr(sys, name) is ours[name]:
                setattr(sys, name, stream)


class _Printable:
    """A stream of text before another; rich knows the attribute by this name and writes to the stream behind."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file: TextIO = getattr(stream, "rich_proxied_file", stream)

    def write(self, text: str) -> int:
        # A console may lack other characters too.
        encoding = getattr(self.rich_proxied_file, "encoding", None) or "utf-8"
        return self.rich_proxied_file.write(printable(text).encode(encoding, "backslashreplace").decode(encoding))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        if name == "buffer":
            raise AttributeError("bytes would go past the escapes")
        return getattr(self.rich_proxied_file, name)


def duration(seconds: float) -> str:
    """About how long something takes, in words."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{round(seconds / 3600, 1):g} hours"
