"""One table of what a setting may be. Every refusal is a ``SettingError`` that says what was expected and what came."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unmix.errors import SettingError
from unmix.numbers import is_number, is_whole

_MOST_SEED = 2**63 - 1
_MOST_SHOWN = 100
# What a ``random_state`` may be.
RandomLike = int | np.random.RandomState | None


@dataclass(frozen=True)
class Check:
    """Whether a value ``holds``, and how what is ``expected`` is called."""

    expected: str
    holds: Callable[[Any], bool]

    def need(self, name: str, value: object) -> None:
        """Raise ``SettingError`` where ``value`` of the setting ``name`` does not hold."""
        if not self.holds(value):
            shown = " ".join(repr(value).split())
            shown = shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]} …"
            raise SettingError(f"{name} must be {self.expected}; got {shown}.")

    def or_else(self, value: object, shown: str = "") -> Check:
        """The same with one value more, such as None."""

        def holds(own: object) -> bool:
            # An array equals a value in no single way.
            return own is value or (isinstance(own, str) and own == value) or self.holds(own)

        return Check(
            f"{shown or value}, or {self.expected}" if value is None else f"{self.expected}, or {shown}", holds
        )


def whole(least: int, most: int | None = None, of: str = "") -> Check:
    """A whole number, which True and False are not; ``of`` names ``most`` in words."""
    if most is None:
        return Check(f"a whole number ≥ {least}", lambda value: is_whole(value, least))
    words = f"a whole number from {least} to {f'{of} = ' if of else ''}{most}"
    return Check(words, lambda value: is_whole(value, least) and value <= most)


def one_of(known: Iterable[object]) -> Check:
    """One of some words; ``known`` may be a table of them."""
    words = list(known)
    return Check(f"one of {words}", lambda value: isinstance(value, str) and value in words)


NUMBER = Check("a finite number", is_number)
POSITIVE = Check("> 0 and finite", lambda value: is_number(value) and value > 0)
AT_LEAST_ZERO = Check("≥ 0 and finite", lambda value: is_number(value) and value >= 0)
SHARE = Check("in [0, 1)", lambda value: is_number(value) and 0 <= value < 1)
FLAG = Check("True or False", lambda value: isinstance(value, bool | np.bool_))
VERBOSE = Check("0, 1 or 2", lambda value: is_whole(value, 0) or isinstance(value, bool))
SEED = Check("a whole number from 0 to 2⁶³ - 1", lambda value: is_whole(value, 0) and value <= _MOST_SEED)
AUXILIARY = Check(
    "None, or a mapping of columns to their kind", lambda value: value is None or isinstance(value, Mapping)
)
NUMBERS = Check("one or more numbers, such as (-2, 0, 2)", lambda value: _are(value, is_number))
WIDTHS = Check("one or more widths ≥ 1, such as (64, 64)", lambda value: _are(value, lambda own: is_whole(own, 1)))


def _are(value: Any, holds: Callable[[Any], bool]) -> bool:
    """Whether ``value`` is a sequence of one or more that ``holds``."""
    listed = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes | bytearray)
    return listed and getattr(value, "ndim", 1) == 1 and len(value) > 0 and all(map(holds, value))


def need_all(owner: object, checks: Mapping[str, Check]) -> None:
    """``need`` of attributes of ``owner``, by name."""
    for name, check in checks.items():
        check.need(name, getattr(owner, name))


def random_seed(random_state: RandomLike) -> int:
    """The seed that a ``random_state`` gives: an integer itself; a RandomState, or None for numpy's own, draws one.

    Raises
    ------
    SettingError
        ``random_state`` is something else, or out of range.
    """
    if random_state is None:
        return int(np.random.randint(2**31 - 1))  # noqa: NPY002 - numpy's own state, as in scikit-learn
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if SEED.holds(random_state):
        return int(random_state)
    raise SettingError(f"random_state must be {SEED.expected}, a RandomState or None; got {random_state!r}.")
