"""Classes and functions of the user's own, by the name under which Python imports them: ``"package.module:Name"``."""

from __future__ import annotations

import importlib
import inspect
import sys
from functools import partial, reduce
from pathlib import Path
from typing import Any

from unmix.errors import SettingError, StorageError

_KEY = "$import"


def import_name(thing: object) -> str:
    """``"module:Name"`` of a class or function.

    Raises
    ------
    TypeError
        It is none, or cannot be imported by its name: a lambda, or one that was defined inside a function.
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not (inspect.isclass(thing) or inspect.isroutine(thing)) or not module or not name or "<" in name:
        raise TypeError
    return f"{module}:{name}"


def plain_import(thing: object) -> dict[str, object]:
    """A class, a function, or a ``functools.partial`` of one as a dict that JSON can hold; ``imported_from`` reads it.

    Raises
    ------
    TypeError
        As ``import_name``.
    """
    if isinstance(thing, partial):
        return {_KEY: import_name(thing.func), "args": list(thing.args), "kwargs": dict(thing.keywords)}
    return {_KEY: import_name(thing)}


def imported_from(plain: object) -> Any:
    """The class, function or partial that ``plain_import`` wrote; anything else is returned as it is.

    Raises
    ------
    StorageError
        As ``loaded``.
    """
    if not (isinstance(plain, dict) and isinstance(plain.get(_KEY), str)):
        return plain
    found = loaded(plain[_KEY])
    return partial(found, *plain["args"], **plain["kwargs"]) if "args" in plain else found


def loaded(name: str) -> Any:
    """The class or function ``"module:Name"`` of a module that has been imported before.

    Nothing is imported here: reading a saved model must not run code that its folder names.

    Raises
    ------
    StorageError
        The module has not been imported, or has no such name.
    """
    module, _, path = name.partition(":")
    again = "then read the model again"
    if module not in sys.modules:
        raise StorageError(f"The model uses {path!r} of the module {module!r}. Import it (import {module}), {again}.")
    try:
        return reduce(getattr, path.split("."), sys.modules[module])
    except AttributeError as error:
        raise StorageError(
            f"The model uses {path!r} of the module {module!r}, which does not define it. Define it there under this "
            f"name, {again}."
        ) from error


def found(name: str, what: str) -> Any:
    """The class or function ``"package.module:Name"``, imported from the current folder too; ``what`` it is to be.

    Raises
    ------
    SettingError
        It cannot be imported.
    """
    module, _, path = name.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        return reduce(getattr, path.split("."), importlib.import_module(module))
    except (Exception, SystemExit) as error:
        raise SettingError(
            f"The {what} {name!r} cannot be imported: {type(error).__name__}: {error}. Is it installed, or in the "
            "current folder?"
        ) from error
    finally:
        if added:
            sys.path.remove(here)
