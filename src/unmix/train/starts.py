"""Adversarial training from several starts, one after another, of which one is kept."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from unmix.data.batches import Rows
from unmix.errors import StorageError, TrainingError
from unmix.models.adversarial import AdversarialModel
from unmix.train.adversarial import AdversarialResult, AdversarialSettings, OnBlock, fit_adversarial
from unmix.train.callbacks import BlockCallback
from unmix.train.checkpoint import is_checkpoint

_AS_GOOD = 1.1
Model = TypeVar("Model", bound=AdversarialModel)


def fit_starts(
    model_of: Callable[[int], Model],
    n_starts: int,
    rows: Rows,
    settings: AdversarialSettings,
    *,
    judged_by: str,
    on_block: OnBlock | None = None,
    callbacks: Sequence[BlockCallback] = (),
    checkpoint: Path | None = None,
    resume: bool = False,
    schema: object = None,
) -> tuple[Model, AdversarialResult, int, list[float]]:
    """``fit_adversarial`` from several starts, one after another: the simplest of the models that end with least error.

    ``model_of`` makes the model of a seed; seeds of the starts are 1,000 apart. ``judged_by`` is that column of
    the history; which start is kept and the last value of every start come back as well. Of models within a tenth of
    the least error the one of least ``complexity`` is kept, then the one of least error. Further starts have
    checkpoints of their own beside ``checkpoint`` until all are done; a file of another origin that has the name of one
    is refused before anything is trained. A start whose training fails has an infinite error; only where all fail,
    that is raised. The other arguments and what is raised are those of ``fit_adversarial``; ``on_block`` is called with
    the steps done in all starts.
    """
    paths = [checkpoint, *(_beside(checkpoint, start) for start in range(1, n_starts))]
    if checkpoint is not None:
        _refuse_foreign(checkpoint, [path for path in paths[1:] if path is not None], resume=resume)
        if not resume:
            _forget_starts(checkpoint)
    trained: dict[int, tuple[Model, AdversarialResult]] = {}
    failures: list[TrainingError] = []
    errors: list[float] = []
    seconds = 0.0
    for start, path in enumerate(paths):
        model = model_of(settings.seed + 1000 * start)
        before = start * max(phase.end for phase in model.phases)
        try:
            result = fit_adversarial(
                model,
                rows,
                replace(settings, seed=settings.seed + 1000 * start),
                on_block=None if on_block is None else _after(on_block, before),
                callbacks=callbacks,
                start=start,
                checkpoint=path,
                resume=resume and (start == 0 or (path is not None and path.exists())),
                schema=schema,
                beside=None if checkpoint is None or start == 0 else checkpoint.name,
            )
        except TrainingError as error:
            failures.append(error)
            errors.append(math.inf)
            continue
        seconds += result.seconds
        errors.append(result.history[-1][judged_by])
        trained[start] = model, result
    if checkpoint is not None:
        _forget_starts(checkpoint)
    if not trained:
        if n_starts == 1:
            raise failures[0]
        said = " ".join(f"Start {start}: {failure}" for start, failure in enumerate(failures))
        raise TrainingError(f"All {n_starts} starts failed. {said}", failures[-1].history) from failures[-1]
    as_good = [start for start in trained if errors[start] <= _AS_GOOD * min(errors)]
    kept = min(as_good, key=lambda start: (trained[start][0].complexity(), errors[start]))
    model, result = trained[kept]
    return model, replace(result, seconds=seconds), kept, errors


def _after(on_block: OnBlock, before: int) -> OnBlock:
    return lambda step, row: on_block(before + step, row)


def _beside(checkpoint: Path | None, start: int) -> Path | None:
    """The checkpoint of a further start."""
    return None if checkpoint is None else checkpoint.with_name(f"{checkpoint.stem}-start{start}{checkpoint.suffix}")


def _refuse_foreign(checkpoint: Path, paths: list[Path], *, resume: bool) -> None:
    """Raise ``StorageError`` where what stands at the ``paths`` of further starts was not written for them."""
    for path in paths:
        if os.path.lexists(path) and not is_checkpoint(path, None if resume else checkpoint.name):
            raise StorageError(
                f"{path} is where the checkpoint of a further start belongs, but is not one of {checkpoint.name}. "
                "Move it away, or choose another checkpoint=."
            )


def _forget_starts(checkpoint: Path) -> None:
    """Remove the checkpoints of further starts, of this run or of an earlier one in the same place."""
    name = re.compile(rf"{re.escape(checkpoint.stem)}-start[1-9][0-9]*{re.escape(checkpoint.suffix)}")
    for path in checkpoint.parent.iterdir() if checkpoint.parent.is_dir() else ():
        if name.fullmatch(path.name) and is_checkpoint(path, checkpoint.name):
            path.unlink(missing_ok=True)
