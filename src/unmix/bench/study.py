"""A study is a table: problems of ``make_sparse_mixing`` × methods × seeds; a run is one row of it.

A study file is TOML:

.. code-block:: toml

    name = "mine"
    seeds = [0, 1, 2]

    [problem]                       # options of make_sparse_mixing, the same in every run
    n_samples = 4000

    [[block]]                       # one or more grids
    methods = ["both", "FastICA", "mine"]
    grid = { n_domains = [2, 4], density = [0.3, 0.6] }

    [method."mine"]                 # a method of one's own, or other settings of a known one
    estimator = "my_package:MyEstimator"    # imported where that is allowed: --allow-import, read_study(allow_import=)
    settings = { rate = 0.01 }
    domains = true
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from unmix.bench.methods import METHODS, Method
from unmix.datasets import make_sparse_mixing
from unmix.errors import SettingError
from unmix.files import as_path, json_ready
from unmix.version import __version__

_OPTIONS = {
    name: parameter.default
    for name, parameter in inspect.signature(make_sparse_mixing).parameters.items()
    if name != "random_state"
}
_STUDY_KEYS = ("name", "seeds", "problem", "block", "method")
_BLOCK_KEYS = ("methods", "grid", "seeds")
_METHOD_KEYS = ("estimator", "settings", "domains")


Row: TypeAlias = dict[str, Any]
"""What a run measured, one line of a file of results."""


@dataclass(frozen=True)
class Run:
    """One row of a study: options of ``make_sparse_mixing``, the data's seed, and a method."""

    problem: Mapping[str, Any]
    seed: int
    method: Method

    @property
    def key(self) -> str:
        """The same for the same run in any study: a digest of problem, seed, method with its defaults, and version."""
        content = {
            "unmix": __version__,
            "problem": self.whole_problem(),
            "seed": self.seed,
            "method": self.method.fixed_by,
        }
        text = json.dumps(json_ready(content), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def whole_problem(self) -> dict[str, Any]:
        """Every option of ``make_sparse_mixing``, defaults filled in."""
        return {**_OPTIONS, **self.problem}


@dataclass(frozen=True)
class Block:
    """A grid of problem options (each a list of values) × methods; ``seeds`` where they differ from the study's."""

    methods: Sequence[Method]
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    seeds: Sequence[int] | None = None


@dataclass(frozen=True)
class Study:
    """Blocks that share ``problem`` options and ``seeds``."""

    name: str
    blocks: Sequence[Block]
    seeds: Sequence[int]
    problem: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _whole_numbers(self.seeds):
            raise SettingError(f"seeds must be a list of whole numbers from 0 on; got {self.seeds!r}.")
        if not any(block.methods for block in self.blocks):
            raise SettingError(f"The study {self.name!r} has no block with methods. Add one.")
        for block in self.blocks:
            _check_known("problem option", {**self.problem, **block.grid}, _OPTIONS)
            if block.seeds is not None and not _whole_numbers(block.seeds):
                raise SettingError(f"seeds of a block must be a list of whole numbers from 0 on; got {block.seeds!r}.")
            for name, values in block.grid.items():
                if not _is_list(values) or not values:
                    raise SettingError(f"grid.{name} must be a list of values; got {values!r}.")
            for method in block.methods:
                method.build(2, 0)

    def runs(self) -> list[Run]:
        """Every run once, seeds outermost, so that a study cut short covers the grid evenly."""
        found: dict[str, Run] = {}
        last = max((len(block.seeds or self.seeds) for block in self.blocks), default=0)
        for position in range(last):
            for block in self.blocks:
                seeds = block.seeds or self.seeds
                if position >= len(seeds):
                    continue
                for values in itertools.product(*block.grid.values()):
                    problem = {**self.problem, **dict(zip(block.grid, values, strict=True))}
                    for method in block.methods:
                        run = Run(problem, int(seeds[position]), method)
                        found.setdefault(run.key, run)
        return list(found.values())

    @property
    def axes(self) -> list[str]:
        """Problem options that take more than one value."""
        return _varying(self.runs())

    def along(self, axis: str) -> set[str]:
        """Keys of the runs of the blocks in which ``axis`` varies; none where it varies only from block to block."""
        found: set[str] = set()
        for block in self.blocks:
            runs = Study(self.name, [block], self.seeds, self.problem).runs()
            if axis in _varying(runs):
                found |= {run.key for run in runs}
        return found


def read_study(path: str | Path, *, allow_import: bool = False) -> Study:
    """A study from a TOML file.

    Parameters
    ----------
    path : of the file
    allow_import : bool, default False
        Whether the file may name estimators as ``"package.module:Class"``. To import a module runs its code: allow it
        for files that you trust.

    Raises
    ------
    SettingError
        The file cannot be read, has a key, option or method that is not known (the message lists the known ones), or
        names an estimator to import that is not allowed or no estimator.
    """
    path = as_path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"The study file {path} cannot be read: {error}.") from error
    _check_known("key", content, _STUDY_KEYS)
    own, problem = _table(content, "method"), _table(content, "problem")
    known = METHODS | {name: _method(name, _table(own, name)) for name in own}
    shipped = {method.estimator for method in METHODS.values()}
    foreign = [known[name] for name in own if ":" in known[name].estimator and known[name].estimator not in shipped]
    if foreign and not allow_import:
        raise SettingError(
            f"The method {foreign[0].name!r} of {path} imports {foreign[0].estimator!r}, which runs code. If you trust "
            "it, add --allow-import, in Python read_study(path, allow_import=True)."
        )
    blocks = []
    for entry in _list(content, "block"):
        if not isinstance(entry, Mapping):
            raise SettingError(f"block must be a list of tables, each under [[block]]; got {entry!r} in it.")
        _check_known("key of a block", entry, _BLOCK_KEYS)
        names = _list(entry, "methods")
        _check_known("method", names, known)
        blocks.append(Block([known[name] for name in names], _table(entry, "grid"), entry.get("seeds")))
    return Study(str(content.get("name", path.stem)), blocks, content.get("seeds", [0]), problem)


def _table(content: Mapping[str, object], key: str) -> Mapping[str, Any]:
    found = content.get(key, {})
    if not isinstance(found, Mapping):
        raise SettingError(f"{key} must be a table of names and values; got {found!r}.")
    return found


def _list(content: Mapping[str, Any], key: str) -> Sequence[Any]:
    found = content.get(key, [])
    if not _is_list(found):
        raise SettingError(f"{key} must be a list; got {found!r}.")
    return found


def _is_list(found: object) -> bool:
    return isinstance(found, Sequence) and not isinstance(found, str)


def _whole_numbers(found: Sequence[object]) -> bool:
    return (
        _is_list(found)
        and bool(found)
        and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in found)
    )


def _varying(runs: Sequence[Run]) -> list[str]:
    """Problem options that take more than one value in ``runs``."""
    values: dict[str, set[str]] = {}
    for run in runs:
        for name, value in run.whole_problem().items():
            values.setdefault(name, set()).add(repr(value))
    return [name for name, seen in values.items() if len(seen) > 1]


def _method(name: str, entry: Mapping[str, object]) -> Method:
    _check_known(f"key of method {name!r}", entry, _METHOD_KEYS)
    base = METHODS.get(name, Method(name))
    estimator, domains = entry.get("estimator", base.estimator), entry.get("domains", base.domains)
    if not isinstance(estimator, str) or not isinstance(domains, bool):
        raise SettingError(
            f"method.{name}: estimator must be a name and domains true or false; got {estimator!r} and {domains!r}."
        )
    return Method(name, estimator, {**base.settings, **_table(entry, "settings")}, domains)


def _check_known(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise SettingError(f"Unknown {what} in the study: {unknown}. Known: {sorted(known)}.")
