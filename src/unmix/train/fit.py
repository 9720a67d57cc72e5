"""The training loop: a function that walks a model's terms and knows no model by name.

All starts advance together on the same batches; every tensor has a leading start axis, so their gradients do not
mix. Randomness is a function of (seed, epoch), so a resumed run takes the same steps as one that never stopped.
After every epoch the held-out rows are scored with the final weights, by one draw of the latents; once those are in
force each start keeps its best state, and training stops early when no start has improved for ``patience`` epochs. At
the end the kept states are scored anew, by many draws: one draw blurs by more than good starts differ.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmix.data.batches import Rows
from unmix.errors import TrainingError
from unmix.models.base import LatentModel
from unmix.train.checkpoint import Checkpoint, checkpoint_of

_LEAST_GAIN = 1e-3
_SECONDS_BETWEEN_CHECKPOINTS = 10.0
_FINAL_DRAWS = 16
_BLOCKS, _BLOCK_DRAWS = 16, 4
_LEAST_SCORED = 256
# Of starts × rows × features: 16 MB for each intermediate result of a scoring.
_NUMBERS_SCORED = 2**22


@dataclass(frozen=True)
class TrainingSettings:
    """``patience`` in epochs (None: never stop early); ``warmup`` is the share of training in which the rate rises.

    Penalties look at ``penalty_rows`` rows of a batch and ``evaluation_penalty_rows`` of a scoring. In training they
    are due in every ``penalty_every``-th step and weigh that many times as much there.
    An epoch takes ``epoch_part`` of the training rows, and the next one others, until all had their turn. At most
    ``evaluation_rows`` held-out rows, evenly spaced, are scored after it; fewer where they are very wide.
    The learning rate rises linearly to ``learning_rate`` and falls along a cosine to 0 at ``max_epochs``.
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


@dataclass
class TrainingResult:
    """``history``: one row an epoch and start; the rest per start. ``failed`` starts hold the best state they had.

    ``objective`` and its unweighted ``terms`` are those of the kept states on held-out rows, mean of 16 draws.
    ``blocks`` (blocks, starts): the objective without penalties on parts of the held-out rows, for its standard error.
    Of a start that failed before its state could be kept the first one is held, with an infinite ``objective``.
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


@dataclass
class _Progress:
    """Everything of a run that is not a tensor of the model; ``lost`` are the last epochs that no start got beyond."""

    epoch: int = 0
    steps: int = 0
    rewinds: int = 0
    lost: int = 0
    last_gain: int = 0
    objective: list[float] = field(default_factory=list)
    best_epoch: list[int] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def fit(
    model: LatentModel,
    train: Rows,
    held_out: Rows,
    settings: TrainingSettings,
    *,
    on_epoch: Callable[[int, list[float]], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    schema: Any = None,
) -> TrainingResult:
    """Train ``model`` in place; at the end every start holds its best state on the held-out rows.

    Parameters
    ----------
    model : LatentModel
    train, held_out : Rows on the model's device
    settings : TrainingSettings
    on_epoch : called with (epoch, held-out objective of every start)
    checkpoint : file for the state of the run, written every few seconds, when the run is interrupted, and at its end
    resume : go on from ``checkpoint``
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
    kept = checkpoint_of(checkpoint, model, settings, schema, (train, held_out), resume=resume)
    run = Training(model, train, held_out, settings, kept, resume=resume)
    if resume:
        run.load()
    started = time.monotonic() - run.progress.seconds
    last_written = time.monotonic()
    try:
        while run.progress.epoch < settings.max_epochs and not run.stale():
            run.epoch()
            run.progress.seconds = time.monotonic() - started
            run.remember()
            if on_epoch is not None:
                on_epoch(run.progress.epoch, run.latest)
            if checkpoint is not None and time.monotonic() - last_written > _SECONDS_BETWEEN_CHECKPOINTS:
                run.save()
                last_written = time.monotonic()
        if checkpoint is not None:
            run.save()
        return run.finish()
    except KeyboardInterrupt:
        if checkpoint is not None:
            run.save()
        raise


class Training:
    """The state of one call of ``fit``."""

    def __init__(
        self,
        model: LatentModel,
        train: Rows,
        held_out: Rows,
        settings: TrainingSettings,
        checkpoint: Checkpoint | None,
        *,
        resume: bool = False,
    ) -> None:
        self.model, self.train, self.settings, self.checkpoint = model, train, settings, checkpoint
        n_scored = max(_LEAST_SCORED, _NUMBERS_SCORED // (model.n_starts * model.config.n_features))
        n_scored = min(settings.evaluation_rows, n_scored)
        self.held_out = held_out.take(slice(None, None, -(-len(held_out) // n_scored)))
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
        parameters = [{"params": own} for own in groups.values()]
        self.optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, fused=True)
        self.batches_of_a_pass = max(1, round(len(train) / settings.batch_size))
        self.n_batches = max(1, round(settings.epoch_part * self.batches_of_a_pass))
        starts = model.n_starts
        self.progress = _Progress(objective=[math.inf] * starts, best_epoch=[0] * starts, failures=[0] * starts)
        self.latest, self.sick = [math.inf] * starts, set[tuple[int, str]]()
        self.best = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.evaluation_noise = self._noise(self._generator(-1), len(self.held_out), 1).expand(starts, -1, -1)
        self.good = {name: value.clone() for name, value in self._tensors().items()}
        if begun and not resume:
            self._keep(self._weighted(self._scored(self.evaluation_noise), 1.0).tolist(), 0.0)
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

    def _batches(self) -> tuple[list[Tensor], torch.Generator]:
        """Rows of every batch of this epoch, and the generator of its noise.

        All epochs of a pass take their turn from the one order of that pass; batches that fill no epoch are left out.
        """
        turn, place = divmod(self.progress.epoch, self.batches_of_a_pass // self.n_batches)
        generator = self._generator(turn)
        order = torch.randperm(len(self.train), generator=generator).to(self.device)
        if place:
            generator = self._generator(self.settings.max_epochs + self.progress.epoch)
        batches = order.tensor_split(self.batches_of_a_pass)
        return list(batches[place * self.n_batches : (place + 1) * self.n_batches]), generator

    def step(self, index: Tensor, generator: torch.Generator, done: float) -> Tensor | None:
        """One step on the training rows ``index``; the losses (starts,), or None where one of them was not finite."""
        settings, noise = self.settings, self._noise(generator, len(index), self.model.n_starts)
        penalty_rows = settings.penalty_rows if self.progress.steps % settings.penalty_every == 0 else 0
        terms = self.model.terms(self.train.take(index), noise, len(self.train), penalty_rows, done)
        losses = self._weighted(terms, done, settings.penalty_every)
        if self._sick(losses):
            self._rewind(terms, losses)
            return None
        self._update(losses, done)
        return losses.detach()

    def stale(self) -> bool:
        return self.progress.epoch - self.progress.last_gain >= self._patience

    @property
    def _patience(self) -> float:
        patience = self.settings.patience
        return math.inf if patience is None else min(patience, self.model.most_patience)

    def finish(self) -> TrainingResult:
        progress, patience = self.progress, self._patience
        reason = f"reached max_epochs = {self.settings.max_epochs}"
        if progress.epoch < self.settings.max_epochs:
            reason = (
                f"no start improved on held-out rows for {patience} epochs "
                f"(stopped at epoch {progress.epoch} of at most {self.settings.max_epochs})"
            )
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(self.best[name])
            objective, terms = self._final_score()
            blocks = self._by_blocks()
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
            f"{', '.join(map(str, starts))}). Look for extreme values in the data, or lower learning_rate.",
            progress.history,
        )

    def remember(self) -> None:
        """The last state known to be finite: what a rewind and an interrupted run go back to."""
        self.remembered = False
        for name, value in self._tensors().items():
            self.good[name].copy_(value)
        now = self.progress
        self.good_progress = replace(
            now,
            objective=list(now.objective),
            best_epoch=list(now.best_epoch),
            failures=list(now.failures),
            history=list(now.history),
        )
        self.remembered = True

    def save(self) -> None:
        """The last remembered state. Best states may be of the epoch after it, which will find the same ones again."""
        assert self.checkpoint is not None
        if not self.remembered:
            self.remember()
        self.checkpoint.write({**self.good, **self._best_states()}, asdict(self.good_progress))

    def load(self) -> None:
        assert self.checkpoint is not None
        tensors, progress = self.checkpoint.read()
        with torch.no_grad():
            for name, tensor in {**self._tensors(), **self._best_states()}.items():
                tensor.copy_(tensors[name])
        self.progress = _Progress(**progress)
        for parameter in self.parameters.values():
            self.optimizer.state[parameter]["step"].fill_(self.progress.steps)
        self.remember()

    def _update(self, losses: Tensor, done: float) -> None:
        rate = self.settings.learning_rate * self._rate() * _schedule(done, self.settings.warmup)
        for group, share in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share
        failed = [start for start in range(len(losses)) if self._failed(start)]
        alive = [start for start in range(len(losses)) if start not in failed]
        (losses[alive] if failed else losses).sum().backward()
        for parameter in self.parameters.values():
            if failed and parameter.grad is not None:
                parameter.grad[failed] = 0.0
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.steps += 1

    @torch.no_grad()
    def _score(self, train_objective: Tensor) -> None:
        """Held-out objective with the final weights; each start keeps its best state.

        ``train_objective`` (starts,) is infinite where the epoch took no step.
        """
        progress, settings = self.progress, self.settings
        terms = self._scored(self.evaluation_noise)
        objective = self._weighted(terms, 1.0)
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

    def _scored(self, noise: Tensor) -> dict[str, Tensor]:
        """Final terms of the held-out rows."""
        return self.model.terms(self.held_out, noise, len(self.train), self.settings.evaluation_penalty_rows, 1.0)

    def _final_score(self) -> tuple[list[float], list[dict[str, float]]]:
        """Objective and terms of every start; infinite where a start never reached a final state."""
        generator = self._generator(-2)
        sums: dict[str, Tensor] = {}
        for _ in range(_FINAL_DRAWS):
            noise = self._noise(generator, len(self.held_out), 1).expand(self.model.n_starts, -1, -1)
            terms = self._scored(noise)
            sums = {name: value + sums.get(name, torch.zeros_like(value)) for name, value in terms.items()}
        means = {name: value / _FINAL_DRAWS for name, value in sums.items()}
        reached = torch.tensor(self.progress.objective, device=self.device)
        objective = torch.where(torch.isfinite(reached), self._weighted(means, 1.0), reached)
        objective = torch.where(torch.isfinite(objective), objective, math.inf)
        named = [{name: float(value[start]) for name, value in means.items()} for start in range(self.model.n_starts)]
        return objective.tolist(), named

    def _by_blocks(self) -> NDArray[np.float64]:
        """Objective without its penalties (blocks, starts); the rows of a block are evenly spaced."""
        generator, n_blocks = self._generator(-3), min(_BLOCKS, len(self.held_out))
        weights = dict(self.model.weights(1.0))
        found = []
        for block in range(n_blocks):
            rows = self.held_out.take(slice(block, None, n_blocks))
            values = torch.zeros(self.model.n_starts, device=self.device)
            for _ in range(_BLOCK_DRAWS):
                noise = self._noise(generator, len(rows), 1).expand(self.model.n_starts, -1, -1)
                terms = self.model.terms(rows, noise, len(self.train), 0, 1.0)
                values = values + sum(_times(weights[name], value) for name, value in terms.items()) / _BLOCK_DRAWS
            found.append(values.cpu().double().numpy())
        return np.stack(found)

    @torch.no_grad()
    def _rewind(self, terms: dict[str, Tensor], losses: Tensor) -> None:
        """Put the starts that became non-finite back to their last good state, and go on with a lower learning rate."""
        progress = self.progress
        progress.rewinds += 1
        culprits = [name for name, values in terms.items() if not bool(torch.isfinite(values).all())]
        for start in self._sick(losses):
            self.sick.update((start, name) for name in culprits)
            progress.failures[start] += 1
            for name, tensor in self._tensors().items():
                tensor[start] = self.good[name][start]
        if all(self._failed(start) for start in range(self.model.n_starts)):
            starts = ", ".join(map(str, range(self.model.n_starts)))
            raise TrainingError(
                f"The objective became non-finite in epoch {progress.epoch + 1} in the term {', '.join(culprits)}, in "
                f"every start ({starts}), after {progress.rewinds} rewinds at a lower learning rate "
                f"({self._rate():.3g} of the asked). Look for extreme values in the data, or lower learning_rate.",
                progress.history,
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

    def _weighted(self, terms: dict[str, Tensor], done: float, penalties: int = 1) -> Tensor:
        """Sum of the weighted terms (starts,), in which the model's penalties count ``penalties`` times."""
        weights = dict(self.model.weights(done))
        if penalties > 1:
            weights |= {name: weights[name] * penalties for name in self.model.penalties}
        return reduce(operator.add, [_times(weights[name], value) for name, value in terms.items()])

    def _generator(self, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.settings.seed * 1_000_003 + epoch + 1) % 2**63)

    def _noise(self, generator: torch.Generator, n_rows: int, n_starts: int) -> Tensor:
        """Drawn on the CPU, so that every device sees the same numbers."""
        return torch.randn(n_starts, n_rows, self.model.n_noise, generator=generator).to(self.device)

    def _tensors(self) -> dict[str, Tensor]:
        """Parameters, both moments of the optimiser and buffers, each with a leading start axis."""
        tensors = {f"parameter/{name}": value.data for name, value in self.parameters.items()}
        for name, value in self.parameters.items():
            state = self._moments(value)
            tensors |= {f"moment1/{name}": state["exp_avg"], f"moment2/{name}": state["exp_avg_sq"]}
        return tensors | {f"buffer/{name}": value for name, value in self.buffers.items()}

    def _best_states(self) -> dict[str, Tensor]:
        return {f"best/{name}": value for name, value in self.best.items()}

    def _moments(self, parameter: Tensor) -> dict[str, Any]:
        """The optimiser's state, made beforehand so that it can be kept and restored from the first step on."""
        state: dict[str, Any] = self.optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=self.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state


def _times(weight: float | Tensor, value: Tensor) -> Tensor:
    return value if isinstance(weight, float) and weight == 1.0 else weight * value


def _schedule(done: float, warmup: float) -> float:
    """Share of the learning rate: a linear rise from 5 %, then a cosine to 0."""
    if done < warmup:
        return 0.05 + 0.95 * done / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
