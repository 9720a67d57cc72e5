"""Output of a running fit: one line before it starts, one progress bar, and a summary of the result.

A study of many fits has one bar over its runs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any, cast

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from sklearn.base import BaseEstimator

from unmix.audit.agreement import REPEATS
from unmix.data.kinds import announced
from unmix.errors import warn
from unmix.estimators.prepare import Prepared
from unmix.fits.latent import LINEAR_MODEL, LatentFit, kept_as_begun
from unmix.numbers import counted
from unmix.terminal import duration, printable

LONG = 3600.0

OnEpoch = Callable[[int, list[float]], None]
OnBlock = Callable[[int, dict[str, float]], None]
OnRow = Callable[[Mapping[str, object]], None]


class _Patient:
    """Standard error that ends no training: what it cannot show is escaped, and once it is gone nothing is said."""

    def __getattr__(self, name: str) -> Any:
        if name == "rich_proxied_file":
            raise AttributeError("rich would write past this")
        return getattr(self._stream, name)

    @property
    def _stream(self) -> Any:
        """The stream behind those of the command line and of rich: what is said is printable, bars move the cursor."""
        stream: Any = sys.stderr
        while hasattr(stream, "rich_proxied_file") and stream.rich_proxied_file is not stream:
            stream = stream.rich_proxied_file
        return stream

    def write(self, text: str) -> int:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        with suppress(OSError, ValueError, AttributeError):
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            self._stream.flush()


def _console(**words: Any) -> Console:
    return Console(file=cast(IO[str], _Patient()), **words)


def say(verbose: int, text: str, level: int = 1) -> None:
    """Print to standard error when ``verbose`` is at least ``level``."""
    if verbose >= level:
        _console(highlight=False, soft_wrap=True).print(printable(text), markup=False)


def warn_if_long(seconds: float, device: torch.device, advice: str) -> None:
    """A warning before a training of an hour or more; ``advice`` is what makes it shorter."""
    if seconds >= LONG:
        warn(
            f"The training will take about {duration(seconds)} on {device}. {advice}, or pass a GPU as device; with "
            "checkpoint= it can be interrupted."
        )


def announce(estimator: BaseEstimator, data: Prepared, device: torch.device, n_starts: int) -> None:
    """What a fit is about to do: rows, features, starts, and the kind of every domain column."""
    columns = [column.describe() for column in data.domains.columns] or ["none: one domain, only sparsity identifies"]
    if data.domains.columns and len(data.domains.domains) == 1:
        columns.append("one only: nothing changes, and only sparsity identifies")
    n_held_out = len(data.held_out)
    # Where all features are Gaussian there is nothing to say.
    kinds = announced(data.features.kinds, data.features.names) if getattr(data.features, "kinds", ()) else []
    if (own := getattr(estimator, "_own_likelihood", None)) is not None:
        kinds = [f"likelihood {own.__name__} (all features)"]
    say(
        estimator.verbose,
        f"unmix {type(estimator).__name__}: {len(data.rows)} rows ({n_held_out} held out) × "
        f"{len(data.features.names)} features, {estimator.n_latents} latents, "
        f"{counted(n_starts, 'start')}, on {device}\n" + "\n".join([*(f"domain {line}" for line in columns), *kinds]),
    )
    if n_held_out == 0 and estimator.validation_fraction > 0:
        say(
            estimator.verbose,
            f"No domain has the {math.ceil(1 / estimator.validation_fraction)} rows it takes to hold one out: "
            "everything below is measured on training rows, and training does not stop early.",
        )


def conclude(verbose: int, fit: LatentFit) -> None:
    """What a fit has found: the start that is kept, latents that do not repeat or drive one feature alone."""
    summary, n_starts = fit.summary, len(fit.starts)
    agreed = f"; agreement of the starts {summary.agreement:.3f}" if n_starts > 1 else ""
    say(verbose, f"{summary.stop_reason}; kept start {fit.best} of {n_starts}{agreed}; {fit.seconds:.0f} s")
    if kept_as_begun(fit):
        say(verbose, f"the model is start {fit.best} as it was before the first epoch: no epoch lowered its objective")
    if summary.why_linear is not None:
        say(verbose, f"in place of start {fit.best} the model is {LINEAR_MODEL}: {summary.why_linear}")
    repeats = zip(fit.latent_names, summary.latents_agreement(fit.starts, fit.best), strict=True)
    loose = [f"{name} ({value:.2f})" for name, value in repeats if value < REPEATS]
    if loose and not summary.linear:
        say(verbose, f"latents that other starts do not find again (correlation): {', '.join(loose)}")
    if fit.schema.n_features < 2:
        return
    driven = zip(fit.latent_names, summary.support.T, strict=True)
    alone = [f"{name} ({fit.schema.names[int(own.argmax())]})" for name, own in driven if own.sum() == 1]
    if alone:
        say(verbose, f"latents that drive one feature only: {', '.join(alone)}")


def say_precision(verbose: int, mixed: bool, device: torch.device) -> None:
    """Print that ``mixed_precision`` was asked for in vain."""
    if mixed and device.type != "cuda":
        say(verbose, f"mixed_precision needs CUDA; on {device} everything is computed in float32.")


@contextmanager
def epoch_bar(verbose: int, max_epochs: int) -> Iterator[OnEpoch]:
    """A function to call after every epoch; it draws one bar, and with ``verbose=2`` a line every tenth of the run."""
    every = max(1, max_epochs // 10)
    columns = (
        TextColumn("training"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} epochs"),
        TimeRemainingColumn(),
    )
    note = TextColumn("held-out objective {task.fields[best]}")
    with Progress(*columns, note, console=_console(), disable=verbose < 1) as bar:
        task = bar.add_task("training", total=max_epochs, best="…")

        def on_epoch(epoch: int, objective: list[float]) -> None:
            best = f"{min(objective):.3f}"
            bar.update(task, completed=epoch, best=best)
            if epoch % every == 0:
                say(verbose, f"epoch {epoch}: held-out objective {best} (best start), nats per row", level=2)

        yield on_epoch


@contextmanager
def block_bar(verbose: int, n_steps: int) -> Iterator[OnBlock]:
    """A function to call after every block of steps of an adversarial run; ``verbose=2`` adds a line per tenth."""
    columns = (TextColumn("training"), BarColumn(), TextColumn("{task.completed}/{task.total} steps"))
    with Progress(*columns, TimeRemainingColumn(), console=_console(), disable=verbose < 1) as bar:
        task = bar.add_task("training", total=n_steps)
        shown = 0

        def on_block(step: int, row: dict[str, float]) -> None:
            nonlocal shown
            bar.update(task, completed=step)
            if step * 10 // n_steps > shown:
                shown = step * 10 // n_steps
                terms = ", ".join(f"{name} {value:.3g}" for name, value in row.items() if name != "step")
                say(verbose, f"step {step}: {terms}", level=2)

        yield on_block


@contextmanager
def run_bar(n_runs: int, n_done: int) -> Iterator[OnRow]:
    """A function to call with the row of every finished run; it draws one bar."""
    columns = (TextColumn("runs"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[last]}", markup=False), console=_console()) as bar:
        task = bar.add_task("runs", total=n_runs, completed=n_done, last="")

        def on_row(row: Mapping[str, object]) -> None:
            found = row["error"] or f"MCC {row['mcc']:.3f}"
            bar.update(task, advance=1, last=printable(f"{row['method']}: {found}"[:60].replace("\n", " ")))

        yield on_row
