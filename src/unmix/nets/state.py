"""The state of torch in which unmix computes, whatever the caller has set around a call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)


@contextmanager
def own_state() -> Iterator[None]:
    """float32 by default, gradients recorded, no inference mode, no autocast, new tensors on the CPU.

    The caller's settings come back afterwards. Gradients are switched off where unmix needs none, by itself.
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    with ExitStack() as stack:
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype)
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        if device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in {"cpu", "cuda" if torch.cuda.is_available() else "cpu"}:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def in_own_state(function: Function) -> Function:
    """``function`` within ``own_state``."""

    @wraps(function)
    def inside(*arguments: Any, **words: object) -> Any:
        with own_state():
            return function(*arguments, **words)

    return cast(Function, inside)


def methods_in_own_state(cls: Class) -> Class:
    """``cls``, of which all public methods run within ``own_state``."""
    for name, own in list(vars(cls).items()):
        if name.startswith("_"):
            continue
        if inspect.isfunction(own):
            setattr(cls, name, in_own_state(own))
        elif isinstance(own, classmethod):
            setattr(cls, name, classmethod(in_own_state(own.__func__)))
    return cls
