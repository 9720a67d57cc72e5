"""Running a study: in parallel, one line of ``rows.jsonl`` per finished run, nothing computed twice, nothing lost.

Workers measure and return; this process alone writes, each row whole and at once on the disk; a second study in the
folder is refused. A run that fails is a row with its error. A study stopped by an error, a full disk, ctrl-C or SIGTERM
ends its workers at once, and resumes when it is started again.
"""

from __future__ import annotations

import errno
import inspect
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import BinaryIO

import joblib
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from unmix import metrics
from unmix.bench.problems import Drawn, draw, measured
from unmix.bench.study import Row, Run, Study
from unmix.errors import SettingError, StorageError
from unmix.files import as_path, json_ready
from unmix.numbers import is_whole
from unmix.version import __version__

ROWS = "rows.jsonl"
TEST_ROWS = 2_000
_PROBE_EPOCHS = 3


def run_study(
    study: Study,
    folder: str | Path,
    *,
    n_jobs: int = -1,
    threads: int = 1,
    retry_failed: bool = False,
    on_row: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Run what is missing of ``study`` and return its rows, in the order of ``study.runs()``.

    Parameters
    ----------
    study : Study
    folder : where ``rows.jsonl`` lies or will lie
    n_jobs : processes; joblib's active back end decides where they run (``joblib.parallel_config``)
    threads : of torch in each run
    retry_failed : compute runs again whose row holds an error
    on_row : called with each row as it is finished

    Raises
    ------
    StorageError
        The rows cannot be read or written, or are those of another study, or another study is running in the folder;
        rows finished so far are kept.
    KeyboardInterrupt, SystemExit
        Ctrl-C, and SIGTERM (exit code 143) unless the program has a handler of its own for it. The workers have ended.
    """
    path = as_path(folder) / ROWS
    with holding(path):
        done = read_rows(path)
        missing = missing_runs(study, done, retry_failed=retry_failed)
        if missing and study.generator is not None:
            # What the generator returns is checked before the workers start.
            _draw(missing[0])
        tasks = (joblib.delayed(measure)(run, threads) for run in missing)
        for row in rows_of(tasks, n_jobs, path):
            done[row["key"]] = row
            if on_row is not None:
                on_row(row)
        return [done[run.key] for run in study.runs()]


def rows_of(tasks: Iterable[object], n_jobs: int, path: Path | None) -> Iterator[Row]:
    """What joblib's ``tasks`` return, as they finish, each on the disk at ``path`` before it is handed on."""
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered", pre_dispatch="2*n_jobs", batch_size=1)
    with _sigterm_raises(), _ending(parallel(tasks)) as measured:
        for row in measured:
            if path is not None:
                append_row(path, row)
            yield row


@contextmanager
def _ending(rows: Generator[Row]) -> Iterator[Generator[Row]]:
    """Rows of joblib's workers; however the block is left, what the workers still hold is ended, not waited for."""
    try:
        yield rows
    finally:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"\d+ tasks (have been|which were)")
            rows.close()


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM raises ``SystemExit`` inside the block: by default it would end this process and leave the workers."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, _exit_of_sigterm)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit_of_sigterm(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def missing_runs(study: Study, rows: Mapping[str, Mapping[str, object]], *, retry_failed: bool = False) -> list[Run]:
    """Runs of ``study`` that have no row yet, or with ``retry_failed`` one that holds an error.

    Raises
    ------
    StorageError
        There are rows, and none is of a run of ``study``: it has another definition, or another version ran it.
    """
    runs = study.runs()
    if rows and not any(run.key in rows for run in runs):
        raise StorageError(
            f"The folder holds {len(rows)} rows, and none is of a run of the study {study.name!r}: they are of another "
            "study, or of another version of unmix. Choose another folder."
        )
    return [run for run in runs if run.key not in rows or (retry_failed and rows[run.key]["error"])]


def measure(run: Run, threads: int = 1) -> Row:
    """One run: draw the problem, fit on its rows, score on 2,000 fresh ones; a failure is a row with ``error``."""
    row: Row = {
        "key": run.key,
        "method": run.method.name,
        "seed": run.seed,
        **{name: _cell(value) for name, value in run.whole_problem().items()},
        "unmix": __version__,
        "error": None,
    }
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row |= _fit_and_score(run)
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {error}"
    finally:
        torch.set_num_threads(before)
    return row


def _cell(value: object) -> object:
    """What stands in a row: a list, such as a support, as text."""
    return json.dumps(value) if isinstance(value, list) else value


def read_rows(path: Path) -> dict[str, Row]:
    """Rows by key; a last line that a crash has cut short is dropped, and a later row replaces an earlier one.

    Raises
    ------
    StorageError
        The file cannot be read, or a line before the last is damaged.
    """
    if not path.exists():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{path} cannot be read: {error}.") from error
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = _row(line)
            rows[row["key"]] = row
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                continue
            raise StorageError(
                f"Line {number} of {path} is damaged: {error}. Remove that line; its run will be computed again."
            ) from error
    return rows


def estimate_seconds(runs: Iterable[Run], n_jobs: int, threads: int = 1) -> float:
    """About how long ``runs`` will take: a short probe of each method and size, scaled to a whole fit."""
    total = 0.0
    known: dict[tuple[object, ...], float] = {}
    for run in runs:
        problem = run.whole_problem()
        kind = (run.method.name, *(problem.get(name) for name in ("n_latents", "n_features", "n_samples")))
        if kind not in known:
            known[kind] = _probe(run, threads)
        total += known[kind]
    return total / max(1, joblib.effective_n_jobs(n_jobs))


def _probe(run: Run, threads: int) -> float:
    """Seconds of a whole fit, from a short one; 0 for a method that takes no ``max_epochs`` or fails."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        data = _draw(run)
        model = _build(run, data)
        if not hasattr(model, "planned_epochs"):
            return 0.0
        planned = model.planned_epochs(len(data.x) - TEST_ROWS)
        started = time.perf_counter()
        model.set_params(max_epochs=_PROBE_EPOCHS).fit(data.x[:-TEST_ROWS], _domains(data, run, slice(0, -TEST_ROWS)))
        around = time.perf_counter() - started - model.fit_seconds_
        return float(around + model.fit_seconds_ * planned / _PROBE_EPOCHS)
    except Exception:
        return 0.0
    finally:
        torch.set_num_threads(before)


def _draw(run: Run) -> Drawn:
    """The problem with ``TEST_ROWS`` rows more than asked; rows are in random order, so the last ones are fresh."""
    n_samples = run.whole_problem()["n_samples"]
    if not is_whole(n_samples, 1):
        raise SettingError(f"n_samples must be a whole number ≥ 1; got {n_samples!r}. Set it under [problem].")
    return draw(run.generator, run.problem, n_samples + TEST_ROWS, run.seed)


def _build(run: Run, data: Drawn) -> BaseEstimator:
    """The method's estimator, told the kinds of the domain columns where it asks for them."""
    model = run.method.build(data.z.shape[1], run.seed)
    if run.method.domains and data.auxiliary and hasattr(model, "auxiliary"):
        model.set_params(auxiliary=data.auxiliary)
    return model


def _domains(data: Drawn, run: Run, rows: slice) -> pd.DataFrame | NDArray[np.generic] | None:
    if not run.method.domains:
        return None
    return data.domains.iloc[rows] if isinstance(data.domains, pd.DataFrame) else data.domains[rows]


def _fit_and_score(run: Run) -> Row:
    data = _draw(run)
    train, test = slice(0, -TEST_ROWS), slice(-TEST_ROWS, None)
    model = _build(run, data)
    started = time.perf_counter()
    model.fit(data.x[train], _domains(data, run, train))
    seconds = time.perf_counter() - started
    needs_domains = "y" in inspect.signature(model.transform).parameters
    latents = np.asarray(
        model.transform(data.x[test], _domains(data, run, test)) if needs_domains else model.transform(data.x[test])
    )
    labels = data.domains.iloc[test] if isinstance(data.domains, pd.DataFrame) else data.domains[test]
    beside = {"domains": labels, "data": data.source, "model": model}
    return {
        "domains_needed": data.domains_needed,
        "injective": data.injective,
        **scores(data, latents, test, model),
        **{name: measured(own, name, data.z[test], latents, beside) for name, own in run.metrics.items()},
        "seconds": round(seconds, 1),
    }


def _labels(data: Drawn) -> NDArray[np.generic] | None:
    """One label per row: the finest categorical column, or None where u is continuous."""
    if "continuous" in data.auxiliary.values():
        return None
    return data.domains.iloc[:, -1].to_numpy() if isinstance(data.domains, pd.DataFrame) else data.domains


def scores(data: Drawn, latents: NDArray[np.floating], test: slice, model: BaseEstimator) -> Row:
    """What is measured on the fresh rows: MCC, linear R², support where the method has a mixing, agreement."""
    labels = _labels(data)
    found = metrics.mcc(data.z[test], latents, domains=None if labels is None else labels[test])
    row: Row = {
        "mcc": float(found),
        "low": found.interval[0],
        "high": found.interval[1],
        "chance": found.chance,
        "worst_latent": float(found.per_factor.min()),
        "r2": float(metrics.r2(data.z[test], latents, n_bootstrap=0)),
    }
    if labels is not None:
        row["mcc_within_domains"] = float(found.details["within_domain"].mean())
    mixing = getattr(model, "mixing_", None)
    if mixing is not None and data.support is not None and (found.details["assignment"] >= 0).all():
        support = metrics.support_recovery(data.support, mixing, assignment=found.details["assignment"])
        row |= {"support_f1": float(support), "support_auroc": float(support.details["auroc"])}
    for name in ("agreement_", "n_epochs_"):
        if hasattr(model, name):
            row[name.rstrip("_")] = getattr(model, name)
    return {name: round(float(value), 4) if isinstance(value, float) else value for name, value in row.items()}


def claim_rows(path: Path) -> None:
    """Make folder and file, so that what cannot be written, or is in use, is known before anything is computed."""
    with holding(path):
        pass


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """The rows for this study alone; the system lets go of them when the process ends, however it ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}. Choose another folder for the study.") from error
    with file:
        try:
            _lock(file.fileno())
        except BlockingIOError as error:
            raise StorageError(
                f"Another study is running in {path.parent}. Wait until it ends, or choose another folder."
            ) from error
        yield


def _lock(descriptor: int) -> None:
    """Lock a file without waiting; nothing on disks that know no locks."""
    if sys.platform == "win32":
        import msvcrt

        # Beyond the end of any file: on Windows what is locked cannot be written.
        os.lseek(descriptor, 2**40, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error
    else:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise


def append_row(path: Path, row: Row) -> None:
    """Add one line, on the disk when this returns; what a crash left of an unfinished row is cut off first."""
    line = json.dumps(json_ready(row), allow_nan=False)
    try:
        with path.open("ab+") as file:
            size, end = _whole_rows(file)
            file.truncate(size)
            file.write(end + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(
            f"{path} could not be written: {error}. Finished rows are kept; make space and start the same study again."
        ) from error


def _whole_rows(file: BinaryIO) -> tuple[int, bytes]:
    """Bytes up to the end of the last complete row, and the newline that it may lack, after an editor or a crash."""
    end, tail = file.seek(0, os.SEEK_END), b""
    while len(tail) < end and b"\n" not in tail:
        length = min(end, 2 * len(tail) + 65_536)
        file.seek(end - length)
        tail = file.read(length)
    last = tail[tail.rfind(b"\n") + 1 :]
    if not last:
        return end, b""
    try:
        _row(last.decode())
    except (ValueError, KeyError, TypeError):
        return end - len(last), b""
    return end, b"\n"


def _row(line: str) -> Row:
    """The row of a line; ValueError, KeyError or TypeError where it is none."""
    row: Row = json.loads(line)
    if not isinstance(row["key"], str):
        raise TypeError(f"its key is {row['key']!r}")
    return row
