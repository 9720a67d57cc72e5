"""One family of errors: every message says what was expected, what came, and what to do next.

``UnmixError`` is the root. Errors about the user's input are also ``ValueError``, so that code written for
scikit-learn catches them.
"""

import inspect
import warnings

_WITHIN = ("unmix", "sklearn")


class UnmixError(Exception):
    """Root of every error that unmix raises on purpose."""


class DataError(UnmixError, ValueError):
    """The table, image or array cannot be used as it is."""


class DomainError(DataError):
    """The domain (auxiliary) columns cannot be used as they are."""


class SchemaError(DataError):
    """New data do not fit what the model learnt at fit."""


class SettingError(UnmixError, ValueError):
    """A setting has a value that it cannot have."""


class TrainingError(UnmixError, RuntimeError):
    """Training could not continue. ``history`` holds the rows recorded until then."""

    def __init__(self, message: str, history: list[dict[str, float]] | None = None) -> None:
        super().__init__(message)
        self.history = history or []


class StorageError(UnmixError, OSError):
    """A model or run folder cannot be read or written."""


class DataWarning(UserWarning):
    """Some data were left out, look suspicious, or need other settings."""


class MetricWarning(UserWarning):
    """A metric left out a factor, a latent or a class that it is not defined for, or has too few rows to mean much."""


def warn(message: str, category: type[Warning] = DataWarning) -> None:
    """Warn at the line outside this package, and scikit-learn, that called it."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _WITHIN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
