"""The loop of several players: in every step each phase that is due updates its own parameters.

Randomness is a function of (seed, step), and the state is kept at the end of every block of steps, so a resumed run
takes the same steps as one that never stopped. Where a loss becomes non-finite, the run goes back to the last kept
state and halves the learning rates.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmix.data.batches import Rows
from unmix.errors import StorageError, TrainingError
from unmix.models.players import AdversarialModel, Phase
from unmix.train.checkpoint import read_state, write_state

_SECONDS_BETWEEN_CHECKPOINTS = 10.0
_BETAS = (0.0, 0.99)


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


def fit_adversarial(
    model: AdversarialModel,
    rows: Rows,
    settings: AdversarialSettings,
    *,
    on_block: Callable[[int, dict[str, float]], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> AdversarialResult:
    """Train ``model`` in place, until the last of its phases has ended.

    Parameters
    ----------
    model : AdversarialModel
    rows : Rows on the model's device
    settings : AdversarialSettings
    on_block : called with (steps done, the new row of the history)
    checkpoint : file for the state of the run, written every few seconds and when the run is interrupted
    resume : go on from ``checkpoint``

    Raises
    ------
    TrainingError
        A loss became non-finite again and again; the message names phase and term, ``history`` holds the record.
    KeyboardInterrupt
        Passed on after the last completed block has been written to ``checkpoint``.
    """
    run = _Run(model, rows, settings, checkpoint)
    if resume:
        run.load()
    started, last_written = time.monotonic() - run.progress.seconds, time.monotonic()
    try:
        while run.progress.step < run.n_steps:
            done = run.block()
            run.progress.seconds = time.monotonic() - started
            if not done:
                continue
            run.remember()
            if on_block is not None:
                on_block(run.progress.step, run.progress.history[-1])
            if checkpoint is not None and time.monotonic() - last_written > _SECONDS_BETWEEN_CHECKPOINTS:
                run.save()
                last_written = time.monotonic()
    except KeyboardInterrupt:
        if checkpoint is not None:
            run.save()
        raise
    return AdversarialResult(run.progress.history, run.progress.step, run.progress.seconds)


class _Run:
    """The state of one call of ``fit_adversarial``."""

    def __init__(
        self, model: AdversarialModel, rows: Rows, settings: AdversarialSettings, checkpoint: Path | None
    ) -> None:
        self.model, self.rows, self.settings, self.checkpoint = model, rows, settings, checkpoint
        self.device = rows.x.device
        self.n_steps = max(phase.end for phase in model.phases)
        self.owned = {phase.name: _parameters(model, phase) for phase in model.phases}
        self.optimizers = {
            name: torch.optim.Adam(owned.values(), lr=settings.learning_rate, betas=_BETAS, fused=True)
            for name, owned in self.owned.items()
        }
        self.progress = _Progress()
        self.remember()

    def block(self) -> bool:
        """Steps up to the end of the block; False where a loss became non-finite and the run went back."""
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        end = min(self.progress.step + self.settings.block, self.n_steps)
        for step in range(self.progress.step, end):
            source = torch.Generator().manual_seed((self.settings.seed * 1_000_003 + step) % 2**63)
            for phase in self.model.phases:
                if not phase.begin <= step < phase.end:
                    continue
                terms = {f"{phase.name}_{name}": value for name, value in self._turn(phase, step, source).items()}
                sick = [name for name, value in terms.items() if not bool(torch.isfinite(value))]
                if sick:
                    self._rewind(sick)
                    return False
                for name, value in terms.items():
                    sums[name] = value.detach() + sums.get(name, 0.0)
                    counts[name] = counts.get(name, 0) + 1
        self.progress.step = end
        self.progress.history.append({"step": end, **{name: float(sums[name]) / counts[name] for name in sums}})
        return True

    def remember(self) -> None:
        """The last state known to be finite: what a rewind and an interrupted run go back to."""
        self.good = {name: value.clone() for name, value in self._tensors().items()}
        self.good_progress = replace(self.progress, history=list(self.progress.history))

    def save(self) -> None:
        assert self.checkpoint is not None
        write_state(
            self.checkpoint, self.good, {"progress": asdict(self.good_progress), "settings": asdict(self.settings)}
        )

    def load(self) -> None:
        assert self.checkpoint is not None
        tensors, header = read_state(self.checkpoint)
        own = {name: value.shape for name, value in self._tensors().items()}
        if header["settings"] != asdict(self.settings) or own != {n: t.shape for n, t in tensors.items()}:
            raise StorageError(
                f"{self.checkpoint} belongs to a run with other settings or data; it can be resumed only with "
                "the same. Start anew without resuming."
            )
        self._restore(tensors)
        self.progress = _Progress(**header["progress"])
        self.remember()

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

    def _rewind(self, sick: list[str]) -> None:
        progress = self.progress
        progress.rewinds += 1
        progress.rate *= 0.5
        self._restore(self.good)
        if progress.rewinds > self.settings.max_rewinds:
            raise TrainingError(
                f"The objective became non-finite after step {progress.step} in the terms {', '.join(sick)}, "
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
