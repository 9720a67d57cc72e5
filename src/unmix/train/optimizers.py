"""Optimisers and schedules of the user's own, as torch has them.

``optimizer(groups)`` makes a ``torch.optim.Optimizer`` of parameter groups with their learning rates, and
``scheduler(optimizer)`` an ``LRScheduler``, which takes a step after every epoch. Parameters have a leading start axis:
an optimiser should treat their entries one by one, or starts depend on each other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from unmix.errors import SettingError
from unmix.own import plain_import

MakeOptimizer: TypeAlias = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
MakeScheduler: TypeAlias = Callable[[torch.optim.Optimizer], LRScheduler]


def check_optimizer(optimizer: MakeOptimizer | None, scheduler: MakeScheduler | None) -> None:
    """Raise ``SettingError`` unless they make an optimiser, and a schedule for it, that take a step."""
    if optimizer is None and scheduler is None:
        return
    value = torch.zeros(1, 2).requires_grad_()
    value.grad = torch.ones_like(value)
    own = made_optimizer(optimizer, [{"params": [value], "lr": 1e-3}])
    made = made_scheduler(scheduler, own)
    for what, step in (("optimizer", own.step), ("scheduler", None if made is None else made.step)):
        try:
            if step is not None:
                step()
        except Exception as error:
            raise SettingError(
                f"{what}: step() must take no argument; it raised {type(error).__name__}: {error}"
            ) from error


def made_optimizer(make: MakeOptimizer | None, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser of ``groups``, Adam where ``make`` is None; each group has a learning rate."""
    if make is None:
        return torch.optim.Adam(groups, fused=True)
    try:
        found = make(groups)
    except Exception as error:
        raise SettingError(
            f"optimizer is called with parameter groups and must return a torch.optim.Optimizer; it raised "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, torch.optim.Optimizer):
        raise SettingError(
            f"optimizer must return a torch.optim.Optimizer of the parameter groups; got a {type(found).__name__}. "
            "Pass for instance functools.partial(torch.optim.AdamW, weight_decay=1e-4)."
        )
    return found


def made_scheduler(make: MakeScheduler | None, optimizer: torch.optim.Optimizer) -> LRScheduler | None:
    """The schedule of ``optimizer``, None where ``make`` is."""
    if make is None:
        return None
    try:
        found = make(optimizer)
    except Exception as error:
        raise SettingError(
            "scheduler is called with the optimiser and must return a torch.optim.lr_scheduler.LRScheduler; it raised "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, LRScheduler):
        raise SettingError(
            f"scheduler must return a torch.optim.lr_scheduler.LRScheduler; got a {type(found).__name__}. Pass for "
            "instance functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.97)."
        )
    return found


def advance(scheduler: LRScheduler, n_epochs: int) -> None:
    """Take the steps of ``n_epochs``."""
    with warnings.catch_warnings():
        # Of a resumed training, and where no step could be taken, no step of the optimiser came before.
        warnings.filterwarnings(
            "ignore", message="Detected call of `lr_scheduler.step\\(\\)` before", category=UserWarning
        )
        for _ in range(n_epochs):
            scheduler.step()


def said(optimizer: MakeOptimizer | None, scheduler: MakeScheduler | None) -> str:
    """Text that is the same for the same optimiser and schedule; empty without them."""
    return " ".join(repr(plain_import(own)) for own in (optimizer, scheduler) if own is not None)


def state_of(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What an optimiser keeps of each parameter by now, by names that ``put_state`` reads."""
    return {
        f"optimizer/{name}/{key}": value
        for name, own in parameters.items()
        for key, value in optimizer.state.get(own, {}).items()
        if isinstance(value, Tensor)
    }


def put_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    """Give a new optimiser the state of ``state_of``."""
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            own, _, key = name.removeprefix("optimizer/").rpartition("/")
            like = parameters[own]
            optimizer.state[like][key] = value.clone().to(like.device if value.dim() else "cpu")
