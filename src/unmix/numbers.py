"""What counts as a number: where a setting asks for one, which True and False do not, and as text; with its noun."""

from __future__ import annotations

import math
import re
from numbers import Real

import numpy as np

_NUMBER = re.compile(r"\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity|nan)\s*", re.ASCII | re.IGNORECASE)


def is_whole(value: object, least: int) -> bool:
    """Whether ``value`` is a whole number of at least ``least``."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def reads_as_number(text: str) -> bool:
    """Whether ``text`` is a number as files write it, such as -1, 2.5, .5, 1e-3, inf or nan."""
    return _NUMBER.fullmatch(text) is not None


def counted(number: int, thing: str) -> str:
    """A number with its noun: "1 domain", "3 domains"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
