"""What generators are asked for: whole numbers and finite ones, refused by name where they are neither."""

from __future__ import annotations

from typing import Any

from unmix.errors import SettingError
from unmix.numbers import is_number, is_whole


def check_whole(**given: Any) -> None:
    """Every setting is a whole number, 0 or more."""
    for name, value in given.items():
        if not is_whole(value, 0):
            raise SettingError(f"{name} must be a whole number of 0 or more; got {value!r}.")


def check_numbers(**given: Any) -> None:
    """Every setting is a finite number."""
    for name, value in given.items():
        if not is_number(value):
            raise SettingError(f"{name} must be a finite number; got {value!r}.")
