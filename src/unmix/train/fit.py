"""The training loop: a function that minimises the terms of any model.

All starts advance together on the same batches; every tensor has a leading start axis, so their gradients do not mix.
After every epoch the held-out rows are scored with the final weights; once those are in force each start keeps its best
state, and training stops early when no start has improved for ``patience`` epochs. At the end the kept states are
scored anew, by more draws of the latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmix.data.batches import Rows
from unmix.errors import TrainingError
from unmix.models.base import LatentModel
from unmix.train.callbacks import Callback, Epoch
from unmix.train.checkpoint import Checkpoint, checkpoint_of
from unmix.train.optimizers import (
    MakeOptimizer,
    MakeScheduler,
    advance,
    made_optimizer,
    made_scheduler,
    put_state,
    said,
    state_of,
)
from unmix.train.run import REMEDY, Progress, Run, moments, source_of
from unmix.train.scoring import Scoring, weighted

_LEAST_GAIN = 1e-3
_LEAST_SCORED = 256
# Of starts × rows × features: 16 MB for each intermediate result of a scoring.
_NUMBERS_SCORED = 2**22
OnEpoch = Callable[[int, list[float]], None]


@dataclass(frozen=True)
class TrainingSettings:
    """``patience`` in epochs (None: never stop early); ``warmup`` is the share of training in which the rate rises.

    Penalties look at ``penalty_rows`` rows of a batch and ``evaluation_penalty_rows`` of a scoring. In training they
    are due in every ``penalty_every``-th step and weigh that many times as much there.
    An epoch takes ``epoch_part`` of the training rows, and the next one others, until all had their turn. At most
    ``evaluation_rows`` held-out rows, evenly spaced, are scored after it; fewer where they are very wide.
    The learning rate rises linearly to ``learning_rate`` and falls along a cosine to 0 at ``max_epochs``, unless there
    is another ``scheduler``; ``optimizer`` is another than Adam (``train/optimizers.py``).
    """

    max_epochs: int
    epoch_part: float = 1.0
    batch_size: int = 256
    learning_rate: float = 1e-2
    patience: int | None = None
    warmup: float = 0.1
    penalty_rows: int = 32
    penalty_every: int = 1
    evaluation_rows: int = 4096
    evaluation_penalty_rows: int = 256
    max_rewinds: int = 5
    seed: int = 0
    optimizer: MakeOptimizer | None = field(default=None, repr=False)
    scheduler: MakeScheduler | None = field(default=None, repr=False)


@dataclass
class TrainingResult:
    """``history``: one row per epoch and start; the rest per start. ``failed`` starts hold the best state they had.

    ``objective`` and its unweighted ``terms`` are those of the kept states on held-out rows, mean of 16 draws.
    ``blocks`` (blocks, starts): the objective without penalties on parts of the held-out rows, for its standard error.
    Of a start that failed before its state could be kept the first one is held, with an infinite ``objective``.
    ``stopped``: a callback ended the training.
    """

    history: list[dict[str, float]]
    objective: list[float]
    terms: list[dict[str, float]]
    best_epoch: list[int]
    failed: list[bool]
    blocks: NDArray[np.float64]
    stop_reason: str
    n_epochs: int
    seconds: float
    stopped: bool = False


@dataclass
class _Progress(Progress):
    """``lost`` are the last epochs that no start got beyond; ``stopped``: a callback asked to stop."""

    epoch: int = 0
    steps: int = 0
    lost: int = 0
    last_gain: int = 0
    stopped: bool = False
    objective: list[float] = field(default_factory=list)
    best_epoch: list[int] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)


def fit(
    model: LatentModel,
    train: Rows,
    held_out: Rows,
    settings: TrainingSettings,
    *,
    on_epoch: OnEpoch | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
    resume: bool = False,
    schema: object = None,
) -> TrainingResult:
    """Train ``model`` in place; at the end every start holds its best state on the held-out rows.

    Parameters
    ----------
    model : LatentModel
    train, held_out : Rows on the model's device
    settings : TrainingSettings
    on_epoch : called with (epoch, held-out objective of every start)
    callbacks : called with an ``Epoch`` after every epoch; the training stops where one returns True
    checkpoint : file for the state of the run, written every few seconds, when the run is interrupted, and at its end
    resume : continue from ``checkpoint``
    schema : what names columns and domains, so that a checkpoint of others is refused

    Raises
    ------
    SettingError, StorageError
        ``resume`` without a checkpoint; the checkpoint cannot be written, or belongs to another run.
    TrainingError
        Every start became non-finite again and again, or was so at the end; the message names starts, epoch and term,
        ``history`` holds the record.
    KeyboardInterrupt
        Passed on after the last completed epoch has been written to ``checkpoint``.
    """
    own = said(settings.optimizer, settings.scheduler)
    kept = checkpoint_of(
        checkpoint, model, (settings, own) if own else settings, schema, (train, held_out), resume=resume
    )
    run = Training(model, train, held_out, settings, kept, on_epoch=on_epoch, callbacks=callbacks, resume=resume)
    run.walk(resume=resume)
    return run.finish()


def rescored(
    result: TrainingResult, model: LatentModel, start: int, n_train: int, held_out: Rows, seed: int
) -> TrainingResult:
    """The result after one start has been given another state, which no epoch has trained."""
    settings = TrainingSettings(max_epochs=0, seed=seed)
    rows = held_out.take(slice(None, None, -(-len(held_out) // settings.evaluation_rows)))
    with torch.no_grad():
        scoring = Scoring(model, rows, n_train, settings.evaluation_penalty_rows, seed)
        objective, terms = scoring.final(result.objective)

    def replaced(own: list[Any], other: Any) -> list[Any]:
        return [other if place == start else value for place, value in enumerate(own)]

    return replace(
        result,
        objective=replaced(result.objective, objective[start]),
        terms=replaced(result.terms, terms[start]),
        best_epoch=replaced(result.best_epoch, 0),
    )


class Training(Run[_Progress]):
    """One call of ``fit``; a turn is an epoch."""

    def __init__(
        self,
        model: LatentModel,
        train: Rows,
        held_out: Rows,
        settings: TrainingSettings,
        checkpoint: Checkpoint | None,
        *,
        on_epoch: OnEpoch | None = None,
        callbacks: Sequence[Callback] = (),
        resume: bool = False,
    ) -> None:
        self.model, self.train, self.settings, self.on_epoch = model, train, settings, on_epoch
        self.callbacks = callbacks
        n_scored = max(_LEAST_SCORED, _NUMBERS_SCORED // (model.n_starts * model.config.n_features))
        n_scored = min(settings.evaluation_rows, n_scored)
        some_held_out = held_out.take(slice(None, None, -(-len(held_out) // n_scored)))
        self.scoring = Scoring(model, some_held_out, len(train), settings.evaluation_penalty_rows, settings.seed)
        self.some_train = train.take(slice(None, None, -(-len(train) // n_scored)))
        self.device = train.codes.device
        begun = model.begin(train, self.some_train)
        self.parameters = dict(model.named_parameters())
        self.buffers = {name: value for name, value in model.state_dict().items() if name not in self.parameters}
        # The optimiser makes one call a group: few groups, of parameters with the same share of the rate.
        groups: dict[float, list[Any]] = {}
        for name, value in self.parameters.items():
            groups.setdefault(model.rates().get(name, 1.0), []).append(value)
        self.rates = [*groups]
        rates = [{"params": own, "lr": settings.learning_rate * share} for share, own in groups.items()]
        self.optimizer = made_optimizer(settings.optimizer, rates)
        self.scheduler = made_scheduler(settings.scheduler, self.optimizer)
        self.batches_of_a_pass = max(1, round(len(train) / settings.batch_size))
        self.n_batches = max(1, round(settings.epoch_part * self.batches_of_a_pass))
        starts = model.n_starts
        self.latest, self.sick = [math.inf] * starts, set[tuple[int, str]]()
        self.best = {name: value.detach().clone() for name, value in self.parameters.items()}
        progress = _Progress(objective=[math.inf] * starts, best_epoch=[0] * starts, failures=[0] * starts)
        super().__init__(progress, checkpoint)
        if begun and not resume:
            with torch.no_grad():
                self._keep(weighted(model, self.scoring.now(), 1.0).tolist(), 0.0)
            self.remember()

    @property
    def done(self) -> bool:
        progress = self.progress
        ended, stale = progress.epoch >= self.settings.max_epochs, progress.epoch - progress.last_gain >= self._patience
        return ended or stale or progress.stopped

    def advance(self) -> None:
        self.epoch()
        self.progress.seconds = self.seconds()
        self.remember()
        if self.on_epoch is not None:
            self.on_epoch(self.progress.epoch, self.latest)
        if self.callbacks:
            self._call_back()

    def _call_back(self) -> None:
        """Tell the callbacks of the epoch; where one asks to stop, bring the starts into their final form."""
        progress, n_epochs, n_starts = self.progress, self.settings.max_epochs, self.model.n_starts
        objective = tuple(row["train_objective"] for row in progress.history[-n_starts:])
        record = Epoch(progress.epoch, n_epochs, objective, tuple(self.latest), progress.seconds)
        answers = [callback(record) for callback in self.callbacks]
        if not any(answers):
            return
        progress.stopped = True
        if not self.model.settled(before := progress.epoch / n_epochs):
            self.model.rearrange(self.some_train, len(self.train), before, 1.0)
            with torch.no_grad():
                self._keep(weighted(self.model, self.scoring.now(), 1.0).tolist(), 1.0)
        self.remember()

    def epoch(self) -> None:
        """Training rows in an order that depends on the seed and the epoch alone; then score."""
        batches, generator = self._batches()
        sums, n_summed = torch.zeros(self.model.n_starts, device=self.device), 0
        for position, index in enumerate(batches):
            done = (self.progress.epoch * self.n_batches + position) / (self.settings.max_epochs * self.n_batches)
            losses = self.step(index, generator, done)
            if losses is not None:
                sums, n_summed = sums + losses, n_summed + 1
        before = self.progress.epoch / self.settings.max_epochs
        self.progress.epoch += 1
        after = self.progress.epoch / self.settings.max_epochs
        self.model.rearrange(self.some_train, len(self.train), before, after)
        self._score(sums / n_summed if n_summed else torch.full_like(sums, math.inf))
        if self.scheduler is not None:
            advance(self.scheduler, 1)

    def _batches(self) -> tuple[list[Tensor], torch.Generator]:
        """Rows of every batch of this epoch, and the generator of its noise.

        All epochs of a pass take their turn from the one order of that pass; batches that fill no epoch are left out.
        """
        turn, place = divmod(self.progress.epoch, self.batches_of_a_pass // self.n_batches)
        generator = source_of(self.settings.seed, turn + 1)
        order = torch.randperm(len(self.train), generator=generator).to(self.device)
        if place:
            generator = source_of(self.settings.seed, self.settings.max_epochs + self.progress.epoch + 1)
        batches = order.tensor_split(self.batches_of_a_pass)
        return list(batches[place * self.n_batches : (place + 1) * self.n_batches]), generator

    def step(self, index: Tensor, generator: torch.Generator, done: float) -> Tensor | None:
        """One step on the training rows ``index``; the losses (starts,), or None where one of them was not finite."""
        settings, model = self.settings, self.model
        # Drawn on the CPU, so that every device sees the same numbers.
        noise = torch.randn(model.n_starts, len(index), model.n_noise, generator=generator).to(self.device)
        penalty_rows = settings.penalty_rows if self.progress.steps % settings.penalty_every == 0 else 0
        terms = model.terms(self.train.take(index), noise, len(self.train), penalty_rows, done)
        losses = weighted(model, terms, done, settings.penalty_every)
        if self._sick(losses):
            self._rewind(terms, losses)
            return None
        self._update(losses, done)
        return losses.detach()

    @property
    def _patience(self) -> float:
        patience = self.settings.patience
        return math.inf if patience is None else min(patience, self.model.most_patience)

    def finish(self) -> TrainingResult:
        progress, patience = self.progress, self._patience
        reason = f"reached max_epochs = {self.settings.max_epochs}"
        if progress.stopped:
            reason = f"a callback stopped the training at epoch {progress.epoch} of at most {self.settings.max_epochs}"
        elif progress.epoch < self.settings.max_epochs:
            reason = (
                f"no start improved on held-out rows for {patience} epochs "
                f"(stopped at epoch {progress.epoch} of at most {self.settings.max_epochs})"
            )
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(self.best[name])
            self.model.conclude(self.train)
            objective, terms = self.scoring.final(progress.objective)
            blocks = self.scoring.by_blocks()
        self._refuse_lost(objective, terms)
        return TrainingResult(
            history=progress.history,
            objective=objective,
            terms=terms,
            best_epoch=progress.best_epoch,
            failed=[self._failed(start) or not math.isfinite(value) for start, value in enumerate(objective)],
            blocks=blocks,
            stop_reason=reason,
            n_epochs=progress.epoch,
            seconds=progress.seconds,
            stopped=progress.stopped,
        )

    def _refuse_lost(self, objective: list[float], terms: list[dict[str, float]]) -> None:
        """Raise where no start has an objective at the end, or none could take a step in the last two epochs."""
        progress = self.progress
        if progress.lost < min(2, progress.epoch) and any(map(math.isfinite, objective)):
            return
        ends = {(start, name) for start, own in enumerate(terms) for name in own if not math.isfinite(own[name])}
        starts, names = (sorted({pair[part] for pair in self.sick | ends}) for part in (0, 1))
        of = f"epoch {progress.epoch - progress.lost} of {self.settings.max_epochs}"
        said = f"No start got beyond {of}:" if progress.lost else f"After {of} no start can be used:"
        raise TrainingError(
            f"{said} the objective is not finite in the term {', '.join(map(str, names))} (start "
            f"{', '.join(map(str, starts))}). {REMEDY}",
            progress.history,
        )

    def save(self) -> None:
        """The last remembered state. Best states may be of the epoch after it, which will find the same ones again."""
        if self.checkpoint is not None:
            self.remember_whole()
            self.checkpoint.write({**self.good, **self._best_states()}, asdict(self.good_progress))

    def load(self) -> None:
        assert self.checkpoint is not None
        tensors, progress = self.checkpoint.read()
        put_state(self.optimizer, self.parameters, tensors)
        self.restore(tensors)
        for name, best in self._best_states().items():
            best.copy_(tensors[name])
        self.progress = _Progress(**progress)
        if self.settings.optimizer is None:
            for parameter in self.parameters.values():
                self.optimizer.state[parameter]["step"].fill_(self.progress.steps)
        if self.scheduler is not None:
            advance(self.scheduler, self.progress.epoch)
        self.remember()

    def _update(self, losses: Tensor, done: float) -> None:
        if self.scheduler is None:
            rate = self.settings.learning_rate * self._rate() * _schedule(done, self.settings.warmup)
            for group, share in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * share
        failed = [start for start in range(len(losses)) if self._failed(start)]
        alive = [start for start in range(len(losses)) if start not in failed]
        (losses[alive] if failed else losses).sum().backward()
        for parameter in self.parameters.values():
            if failed and parameter.grad is not None:
                parameter.grad[failed] = 0.0
        self._step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.steps += 1

    def _step(self) -> None:
        """A step of the optimiser; after failures at a lower rate than its own schedule says."""
        share = 1.0 if self.scheduler is None else self._rate()
        own = [group["lr"] for group in self.optimizer.param_groups]
        if share < 1.0:
            for group in self.optimizer.param_groups:
                group["lr"] = group["lr"] * share
        self.optimizer.step()
        if share < 1.0:
            for group, rate in zip(self.optimizer.param_groups, own, strict=True):
                group["lr"] = rate

    @torch.no_grad()
    def _score(self, train_objective: Tensor) -> None:
        """Held-out objective with the final weights; each start keeps its best state.

        ``train_objective`` (starts,) is infinite where the epoch took no step.
        """
        progress, settings = self.progress, self.settings
        terms = self.scoring.now()
        objective = weighted(self.model, terms, 1.0)
        sick = self._sick(objective)
        alive = [start for start in range(self.model.n_starts) if not self._failed(start)]
        stepped = bool(torch.isfinite(train_objective).any())
        progress.lost = 0 if stepped and sick != alive else progress.lost + 1
        if sick:
            self._rewind(terms, objective)
        objective, train_objective = (
            torch.where(torch.isfinite(values), values, math.inf) for values in (objective, train_objective)
        )
        self.latest = objective.tolist()
        for start in range(self.model.n_starts):
            row = {"epoch": progress.epoch, "start": start, "held_out_objective": self.latest[start]}
            row |= {f"held_out_{name}": float(values[start]) for name, values in terms.items()}
            progress.history.append({**row, "train_objective": float(train_objective[start])})
        self._keep(self.latest, progress.epoch / settings.max_epochs)

    @torch.no_grad()
    def _keep(self, objectives: list[float], done: float) -> None:
        """Every start that has settled and is better than ever keeps its state."""
        progress = self.progress
        if not self.model.settled(done):
            progress.last_gain = progress.epoch
        for start, value in enumerate(objectives):
            comparable = self.model.settled(done, start)
            if self._failed(start) or not comparable or not value < progress.objective[start]:
                continue
            if value < progress.objective[start] - _LEAST_GAIN:
                progress.last_gain = progress.epoch
            progress.objective[start], progress.best_epoch[start] = value, progress.epoch
            for name, tensor in self.parameters.items():
                self.best[name][start] = tensor[start]

    def _rewind(self, terms: dict[str, Tensor], losses: Tensor) -> None:
        """Reset starts that became non-finite to their last good state, and continue with a lower learning rate."""
        progress = self.progress
        progress.rewinds += 1
        culprits = [name for name, values in terms.items() if not bool(torch.isfinite(values).all())]
        for start in self._sick(losses):
            self.sick.update((start, name) for name in culprits)
            progress.failures[start] += 1
            self.restore(self.good, start)
        if all(self._failed(start) for start in range(self.model.n_starts)):
            starts = ", ".join(map(str, range(self.model.n_starts)))
            raise self.diverged(
                f"in epoch {progress.epoch + 1} in the term {', '.join(culprits)}, in every start ({starts})",
                self._rate(),
            )

    def _sick(self, losses: Tensor) -> list[int]:
        """Starts with a loss that is not finite, without those that are given up already."""
        # Of a few numbers: quicker one by one than by an operation on the tensor.
        values = losses.tolist()
        return [k for k, value in enumerate(values) if not math.isfinite(value) and not self._failed(k)]

    def _rate(self) -> float:
        """Share of the learning rate: a half for each failure of the start with most that is not given up."""
        failures = self.progress.failures
        return 0.5 ** max([own for own in failures if own <= self.settings.max_rewinds] or failures)

    def _failed(self, start: int) -> bool:
        return self.progress.failures[start] > self.settings.max_rewinds

    def tensors(self) -> dict[str, Tensor]:
        """Parameters, both moments of the optimiser and buffers, each with a leading start axis."""
        tensors = {f"parameter/{name}": value.data for name, value in self.parameters.items()}
        if self.settings.optimizer is not None:
            tensors |= state_of(self.optimizer, self.parameters)
            return tensors | {f"buffer/{name}": value for name, value in self.buffers.items()}
        for name, value in self.parameters.items():
            state = moments(self.optimizer, value)
            tensors |= {f"moment1/{name}": state["exp_avg"], f"moment2/{name}": state["exp_avg_sq"]}
        return tensors | {f"buffer/{name}": value for name, value in self.buffers.items()}

    def _best_states(self) -> dict[str, Tensor]:
        return {f"best/{name}": value for name, value in self.best.items()}


def _schedule(done: float, warmup: float) -> float:
    """Share of the learning rate: a linear rise from 5 %, then a cosine to 0."""
    if done < warmup:
        return 0.05 + 0.95 * done / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
