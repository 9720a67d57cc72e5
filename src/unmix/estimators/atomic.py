"""A fit changes an estimator as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

Fit = TypeVar("Fit", bound=Callable[..., Any])


def atomic(fit: Fit) -> Fit:
    """``fit`` without what an earlier one learnt; whatever it raises, ctrl-C too, all attributes are as before.

    With ``warm_start`` the earlier ``fit_`` is kept for ``fit`` to continue.
    """

    @wraps(fit)
    def whole(self: Any, *arguments: Any, **words: object) -> Any:
        before = self.__dict__
        # As in scikit-learn what is learnt ends in an underscore.
        kept = ("fit_",) if getattr(self, "warm_start", False) else ()
        self.__dict__ = {name: own for name, own in before.items() if name in kept or not name.endswith("_")}
        try:
            return fit(self, *arguments, **words)
        except BaseException:
            self.__dict__ = before
            raise

    return cast(Fit, whole)
