"""The adversarial loop: in every step each phase that is due updates its own parameters.

Where a loss becomes non-finite, the run goes back to the end of the last block of steps and halves the learning rates.
Checkpoints are written by the clock, so one within a block holds both states.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from unmix.data.batches import Rows
from unmix.models.adversarial import AdversarialModel, Phase
from unmix.train.callbacks import Block, BlockCallback
from unmix.train.checkpoint import Checkpoint, checkpoint_of
from unmix.train.devices import wait_for
from unmix.train.run import Progress, Run, copied, moments, source_of

_TIMED = 4

OnBlock = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class AdversarialSettings:
    """``learning_rate`` falls linearly to 0 over each phase; ``block`` steps are one row of the history.

    ``betas`` are those of Adam. ``mixed_precision``: bfloat16 where possible; on CUDA only.
    """

    batch_size: int = 256
    learning_rate: float = 1e-3
    block: int = 100
    max_rewinds: int = 5
    mixed_precision: bool = False
    seed: int = 0
    betas: tuple[float, float] = (0.0, 0.99)


@dataclass
class AdversarialResult:
    """``history``: one row a block, with the mean of every term as "<phase>_<term>"; ``n_steps`` that were taken."""

    history: list[dict[str, float]]
    n_steps: int
    seconds: float


@dataclass
class _Progress(Progress):
    """``skipped`` are the steps that a callback has saved."""

    step: int = 0
    skipped: int = 0
    rate: float = 1.0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def fit_adversarial(
    model: AdversarialModel,
    rows: Rows,
    settings: AdversarialSettings,
    *,
    on_block: OnBlock | None = None,
    callbacks: Sequence[BlockCallback] = (),
    start: int = 0,
    checkpoint: Path | None = None,
    resume: bool = False,
    schema: object = None,
    beside: str | None = None,
) -> AdversarialResult:
    """Train ``model`` in place, until the last of its phases has ended.

    Parameters
    ----------
    model : AdversarialModel
    rows : Rows on the model's device
    settings : AdversarialSettings
    on_block : called with (steps done, the new row of the history)
    callbacks : called with a ``Block`` after every block; if one returns True the phases that took its last step end
    start : number of the start, for the callbacks
    checkpoint : file for the state of the run, written every few seconds, at the end and when the run is interrupted
    resume : continue from ``checkpoint``
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
    kept = checkpoint_of(checkpoint, model, settings, schema, (rows,), resume=resume, beside=beside)
    run = AdversarialRun(model, rows, settings, kept, on_block=on_block, callbacks=callbacks, start=start)
    run.walk(resume=resume)
    progress = run.progress
    return AdversarialResult(progress.history, progress.step - progress.skipped, progress.seconds)


def expected_seconds(
    model: AdversarialModel, rows: Rows, settings: AdversarialSettings, *, shared: Sequence[object] = ()
) -> float:
    """Seconds of the training, from a few steps in the middle of each phase on a copy; ``shared`` is not copied."""
    trial = copy.deepcopy(model, {id(own): own for own in shared})
    source, total = torch.Generator().manual_seed(0), 0.0
    for phase in trial.phases:
        parameters = list(_parameters(trial, phase).values())
        middle, began = (phase.begin + phase.end) // 2, 0.0
        for step in range(middle, middle + _TIMED + 1):
            # The first warms up.
            if step == middle + 1:
                wait_for(rows.x.device)
                began = time.monotonic()
            index = torch.randint(len(rows), (settings.batch_size,), generator=source).to(rows.x.device)
            with precision(settings, rows.x.device):
                terms = trial.terms(phase.name, rows.take(index), source, step)
            torch.autograd.grad(torch.stack([*terms.values()]).sum(), parameters, allow_unused=True)
        wait_for(rows.x.device)
        total += (time.monotonic() - began) / _TIMED * (phase.end - phase.begin)
    return total


class AdversarialRun(Run[_Progress]):
    """One call of ``fit_adversarial``; a turn is a step, and the end of a block what a rewind goes back to."""

    def __init__(
        self,
        model: AdversarialModel,
        rows: Rows,
        settings: AdversarialSettings,
        checkpoint: Checkpoint | None,
        *,
        on_block: OnBlock | None = None,
        callbacks: Sequence[BlockCallback] = (),
        start: int = 0,
    ) -> None:
        self.model, self.rows, self.settings, self.on_block = model, rows, settings, on_block
        self.callbacks, self.start = callbacks, start
        self.device = rows.x.device
        self.n_steps = max(phase.end for phase in model.phases)
        self.owned = {phase.name: _parameters(model, phase) for phase in model.phases}
        self.optimizers = {
            phase.name: torch.optim.Adam(
                self.owned[phase.name].values(),
                lr=settings.learning_rate,
                betas=phase.betas or settings.betas,
                fused=True,
            )
            for phase in model.phases
        }
        self.written = -1
        self.waiting: list[dict[str, Tensor]] = []
        super().__init__(_Progress(), checkpoint)

    @property
    def done(self) -> bool:
        return self.progress.step >= self.n_steps

    def advance(self) -> None:
        self.step()
        step = self.progress.step
        ends = step % self.settings.block == 0 or self.done
        if not ends and not any(phase.begin == step for phase in self.model.phases):
            return
        if self.settle() and ends and self.end_block():
            self._call_back()
            if self.on_block:
                self.on_block(self.progress.step, self.progress.history[-1])

    def _call_back(self) -> None:
        """Tell the callbacks of the block; where one asks to stop, go on with the phases that follow."""
        if not self.callbacks:
            return
        progress = self.progress
        terms = {name: value for name, value in progress.history[-1].items() if name != "step"}
        record = Block(progress.step, self.n_steps, self.start, MappingProxyType(terms), progress.seconds)
        answers = [callback(record) for callback in self.callbacks]
        if any(answers):
            end = min(phase.end for phase in self.model.phases if phase.end >= progress.step)
            progress.skipped, progress.step = progress.skipped + end - progress.step, end
            self.remember()

    def step(self) -> None:
        """The turn of every phase that is due. Its terms stay where they are: a GPU would have to wait for each."""
        progress, step = self.progress, self.progress.step
        source = source_of(self.settings.seed, step)
        for phase in self.model.phases:
            if phase.begin <= step < phase.end:
                terms = self._turn(phase, step, source)
                self.waiting.append({f"{phase.name}_{name}": value.detach() for name, value in terms.items()})
        progress.step += 1

    def settle(self) -> bool:
        """Add what the last steps have found to the sums; False where a term was not finite and the run went back."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return True
        values = iter(torch.stack([value.float() for terms in waiting for value in terms.values()]).tolist())
        progress = self.progress
        progress.seconds = self.seconds()
        for terms in waiting:
            found = {name: next(values) for name in terms}
            sick = [name for name, value in found.items() if not math.isfinite(value)]
            if sick:
                self._rewind(f"the terms {', '.join(sick)}")
                return False
            for name, value in found.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value
                progress.counts[name] = progress.counts.get(name, 0) + 1
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
        self.remember()
        return True

    def save(self) -> None:
        """Write the current state, and beside it the one that a rewind goes back to."""
        self.settle()
        within = self.progress.step != self.good_progress.step
        now = {f"now/{name}": value for name, value in self.tensors().items()} if within else {}
        self._write({**self.good, **now}, self.progress)

    def save_interrupted(self) -> None:
        """Write the end of the last block if the file is older: within a step, the current state is incomplete."""
        self.remember_whole()
        if self.good_progress.step > self.written:
            self._write(self.good, self.good_progress)

    def load(self) -> None:
        assert self.checkpoint is not None
        tensors, progress = self.checkpoint.read()
        self.restore(tensors)
        self.progress = _Progress(**progress["good"])
        self.remember()
        now = {name.removeprefix("now/"): tensor for name, tensor in tensors.items() if name.startswith("now/")}
        if now:
            self.restore(now)
        self.progress = _Progress(**progress["now"])
        self.written = self.progress.step

    def _write(self, tensors: dict[str, Tensor], now: _Progress) -> None:
        if self.checkpoint is not None:
            self.checkpoint.write(tensors, {"good": asdict(self.good_progress), "now": asdict(now)})
            self.written = now.step

    def _turn(self, phase: Phase, step: int, source: torch.Generator) -> dict[str, Tensor]:
        index = torch.randint(len(self.rows), (self.settings.batch_size,), generator=source).to(self.device)
        owned, optimizer = self.owned[phase.name], self.optimizers[phase.name]
        with precision(self.settings, self.device):
            terms = self.model.terms(phase.name, self.rows.take(index), source, step)
        weights = self.model.weights(phase.name, step)
        loss = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        left = 1.0 - (step - phase.begin) / (phase.end - phase.begin)
        for group in optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * phase.rate * self.progress.rate * left
        gradients = torch.autograd.grad(loss, list(owned.values()), allow_unused=True)
        for parameter, gradient in zip(owned.values(), gradients, strict=True):
            parameter.grad = torch.zeros_like(parameter) if gradient is None else _laid_out(gradient, parameter)
        optimizer.step()
        self.model.after(phase.name, step, self.settings.batch_size)
        return terms

    def _rewind(self, where: str) -> None:
        self.restore(self.good)
        now = self.progress
        self.progress = replace(
            copied(self.good_progress), rewinds=now.rewinds + 1, rate=0.5 * now.rate, seconds=now.seconds
        )
        if self.progress.rewinds > self.settings.max_rewinds:
            raise self.diverged(f"after step {self.progress.step} in {where}", self.progress.rate)

    def tensors(self) -> dict[str, Tensor]:
        """The model's state, and both moments and the step count of every optimiser."""
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        for phase, owned in self.owned.items():
            for name, parameter in owned.items():
                state = moments(self.optimizers[phase], parameter)
                tensors |= {f"{phase}/{key}/{name}": state[key] for key in ("step", "exp_avg", "exp_avg_sq")}
        return tensors


def precision(settings: AdversarialSettings, device: torch.device) -> AbstractContextManager[object]:
    """In which terms are computed; derivatives follow it."""
    if settings.mixed_precision and device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def _laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """With the strides of ``parameter``, which Adam in one kernel asks for."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _parameters(model: AdversarialModel, phase: Phase) -> dict[str, torch.nn.Parameter]:
    return {
        name: value
        for name, value in model.named_parameters()
        if value.requires_grad and name.split(".")[0] in phase.modules
    }
