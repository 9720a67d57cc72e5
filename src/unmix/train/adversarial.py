"""The loop of several players: in every step each phase that is due updates its own parameters.

Randomness is a function of (seed, step), and a checkpoint holds the state after some step, so a resumed run takes the
same steps as one that never stopped. Where a loss becomes non-finite, the run goes back to the end of the last block of
steps and halves the learning rates. Checkpoints are written by the clock, so one within a block holds both states.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from unmix.data.batches import Rows
from unmix.errors import StorageError, TrainingError
from unmix.models.players import AdversarialModel, Phase
from unmix.train.checkpoint import Checkpoint, checkpoint_of, is_checkpoint

_SECONDS_BETWEEN_CHECKPOINTS = 10.0
_AS_GOOD = 1.1
_BETAS = (0.0, 0.99)
Model = TypeVar("Model", bound=AdversarialModel)
OnBlock = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class AdversarialSettings:
    """``learning_rate`` falls linearly to 0 over each phase; ``block`` steps are one row of the history.

    ``mixed_precision``: bfloat16 where possible; on CUDA only.
    """

    batch_size: int = 256
    learning_rate: float = 1e-3
    block: int = 100
    max_rewinds: int = 5
    mixed_precision: bool = False
    seed: int = 0


@dataclass
class AdversarialResult:
    """``history``: one row a block, with the mean of every term as "<phase>_<term>"."""

    history: list[dict[str, float]]
    n_steps: int
    seconds: float


@dataclass
class _Progress:
    step: int = 0
    rate: float = 1.0
    rewinds: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def copy(self) -> _Progress:
        return replace(self, history=list(self.history), sums=dict(self.sums), counts=dict(self.counts))


def fit_adversarial(
    model: AdversarialModel,
    rows: Rows,
    settings: AdversarialSettings,
    *,
    on_block: OnBlock | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    schema: Any = None,
    beside: str | None = None,
) -> AdversarialResult:
    """Train ``model`` in place, until the last of its phases has ended.

    Parameters
    ----------
    model : AdversarialModel
    rows : Rows on the model's device
    settings : AdversarialSettings
    on_block : called with (steps done, the new row of the history)
    checkpoint : file for the state of the run, written every few seconds, at the end and when the run is interrupted
    resume : go on from ``checkpoint``
    schema : what names columns and domains, so that a checkpoint of others is refused
    beside : of a further start the name of the checkpoint of the first

    Raises
    ------
    SettingError, StorageError
        ``resume`` without a checkpoint; the checkpoint cannot be written, or belongs to another run.
    TrainingError
        A loss became non-finite again and again; the message names phase and term, ``history`` holds the record.
    KeyboardInterrupt
        Passed on; ``checkpoint`` holds a state at most ten seconds, or a step, older.
    """
    run = AdversarialRun(
        model, rows, settings, checkpoint_of(checkpoint, model, settings, schema, (rows,), resume=resume, beside=beside)
    )
    if resume:
        run.load()
    started, last_written = time.monotonic() - run.progress.seconds, time.monotonic()
    try:
        while run.progress.step < run.n_steps:
            if not run.step():
                continue
            run.progress.seconds = time.monotonic() - started
            if run.progress.step % settings.block == 0 or run.progress.step == run.n_steps:
                if not run.end_block():
                    continue
                if on_block is not None:
                    on_block(run.progress.step, run.progress.history[-1])
            if time.monotonic() - last_written > _SECONDS_BETWEEN_CHECKPOINTS:
                run.save()
                last_written = time.monotonic()
    except KeyboardInterrupt:
        run.save_interrupted()
        raise
    run.save()
    return AdversarialResult(run.progress.history, run.progress.step, run.progress.seconds)


def fit_starts(
    model_of: Callable[[int], Model],
    n_starts: int,
    rows: Rows,
    settings: AdversarialSettings,
    *,
    judged_by: str,
    on_block: OnBlock | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    schema: Any = None,
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
                f"{path} is where the checkpoint of a further start belongs, and is no such file of {checkpoint.name}. "
                "Move it away, or choose another checkpoint=."
            )


def _forget_starts(checkpoint: Path) -> None:
    """Remove the checkpoints of further starts, of this run or of an earlier one in the same place."""
    name = re.compile(rf"{re.escape(checkpoint.stem)}-start[1-9][0-9]*{re.escape(checkpoint.suffix)}")
    for path in checkpoint.parent.iterdir() if checkpoint.parent.is_dir() else ():
        if name.fullmatch(path.name) and is_checkpoint(path, checkpoint.name):
            path.unlink(missing_ok=True)


class AdversarialRun:
    """The state of one call of ``fit_adversarial``; ``good`` is what a rewind goes back to."""

    def __init__(
        self, model: AdversarialModel, rows: Rows, settings: AdversarialSettings, checkpoint: Checkpoint | None
    ) -> None:
        self.model, self.rows, self.settings, self.checkpoint = model, rows, settings, checkpoint
        self.device = rows.x.device
        self.n_steps = max(phase.end for phase in model.phases)
        self.owned = {phase.name: _parameters(model, phase) for phase in model.phases}
        self.optimizers = {
            name: torch.optim.Adam(owned.values(), lr=settings.learning_rate, betas=_BETAS, fused=True)
            for name, owned in self.owned.items()
        }
        self.progress, self.written = _Progress(), -1
        self._remember()

    def step(self) -> bool:
        """The turn of every phase that is due; False where a loss became non-finite and the run went back."""
        progress, step = self.progress, self.progress.step
        source = torch.Generator().manual_seed((self.settings.seed * 1_000_003 + step) % 2**63)
        for phase in self.model.phases:
            if not phase.begin <= step < phase.end:
                continue
            terms = {f"{phase.name}_{name}": value.item() for name, value in self._turn(phase, step, source).items()}
            sick = [name for name, value in terms.items() if not math.isfinite(value)]
            if sick:
                self._rewind(f"the terms {', '.join(sick)}")
                return False
            for name, value in terms.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value
                progress.counts[name] = progress.counts.get(name, 0) + 1
        progress.step += 1
        return True

    def end_block(self) -> bool:
        """Means of the block as a row of the history; a rewind does not go back beyond it.

        False where a step left a parameter that is not finite, which the loss of the next would have shown, and the run
        went back.
        """
        progress = self.progress
        sick = [name for name, value in self.model.named_parameters() if not bool(torch.isfinite(value).all())]
        if sick:
            self._rewind(f"the parameter {sick[0]}")
            return False
        means = {name: value / progress.counts[name] for name, value in progress.sums.items()}
        progress.history.append({"step": progress.step, **means})
        progress.sums, progress.counts = {}, {}
        self._remember()
        return True

    def save(self) -> None:
        """Write the state of now, and beside it the one that a rewind goes back to."""
        tensors, good = self.good
        now = {} if self.progress.step == good.step else {f"now/{name}": t for name, t in self._tensors().items()}
        self._write({**tensors, **now}, good, self.progress)

    def save_interrupted(self) -> None:
        """Write the end of the last block if the file is older: within a step, the state of now is half of one."""
        tensors, good = self.good
        if good.step > self.written:
            self._write(tensors, good, good)

    def load(self) -> None:
        assert self.checkpoint is not None
        tensors, progress = self.checkpoint.read()
        self._restore(tensors)
        self.progress = _Progress(**progress["good"])
        self._remember()
        now = {name.removeprefix("now/"): tensor for name, tensor in tensors.items() if name.startswith("now/")}
        if now:
            self._restore(now)
        self.progress = _Progress(**progress["now"])
        self.written = self.progress.step

    def _remember(self) -> None:
        self.good = {name: value.clone() for name, value in self._tensors().items()}, self.progress.copy()

    def _write(self, tensors: dict[str, Tensor], good: _Progress, now: _Progress) -> None:
        if self.checkpoint is not None:
            self.checkpoint.write(tensors, {"good": asdict(good), "now": asdict(now)})
            self.written = now.step

    def _turn(self, phase: Phase, step: int, source: torch.Generator) -> dict[str, Tensor]:
        index = torch.randint(len(self.rows), (self.settings.batch_size,), generator=source).to(self.device)
        owned, optimizer = self.owned[phase.name], self.optimizers[phase.name]
        with self._precision():
            terms = self.model.terms(phase.name, self.rows.take(index), source, step)
        weights = self.model.weights(phase.name, step)
        loss = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        left = 1.0 - (step - phase.begin) / (phase.end - phase.begin)
        for group in optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self.progress.rate * left
        gradients = torch.autograd.grad(loss, list(owned.values()), allow_unused=True)
        for parameter, gradient in zip(owned.values(), gradients, strict=True):
            parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
        optimizer.step()
        self.model.after(phase.name, step, self.settings.batch_size)
        return terms

    def _precision(self) -> AbstractContextManager[Any]:
        if self.settings.mixed_precision and self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    def _rewind(self, where: str) -> None:
        (tensors, good), now = self.good, self.progress
        self._restore(tensors)
        progress = replace(good.copy(), rewinds=now.rewinds + 1, rate=0.5 * now.rate, seconds=now.seconds)
        self.progress = progress
        if progress.rewinds > self.settings.max_rewinds:
            raise TrainingError(
                f"The objective became non-finite after step {progress.step} in {where}, "
                f"after {progress.rewinds} rewinds at a lower learning rate ({progress.rate:.3g} of the asked). "
                "Look for extreme values in the data, or lower learning_rate.",
                progress.history,
            )

    def _tensors(self) -> dict[str, Tensor]:
        """The model's state, and both moments and the step count of every optimiser."""
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        for phase, owned in self.owned.items():
            for name, parameter in owned.items():
                state = self._moments(phase, parameter)
                tensors |= {f"{phase}/{key}/{name}": state[key] for key in ("step", "exp_avg", "exp_avg_sq")}
        return tensors

    def _moments(self, phase: str, parameter: Tensor) -> dict[str, Any]:
        """The optimiser's state, made beforehand so that it can be kept and restored from the first step on."""
        state: dict[str, Any] = self.optimizers[phase].state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=self.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state

    @torch.no_grad()
    def _restore(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(tensors[name])


def _parameters(model: AdversarialModel, phase: Phase) -> dict[str, torch.nn.Parameter]:
    return {
        name: value
        for name, value in model.named_parameters()
        if value.requires_grad and name.split(".")[0] in phase.modules
    }
