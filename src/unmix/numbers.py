"""What counts as a number where a setting asks for one; True and False do not."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np


def is_whole(value: Any, least: int) -> bool:
    """Whether ``value`` is a whole number of at least ``least``."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
