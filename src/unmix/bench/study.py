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
    estimator = "my_package:MyEstimator"
    settings = { rate = 0.01 }
    domains = true
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unmix.bench.methods import METHODS, Method
from unmix.datasets import make_sparse_mixing
from unmix.errors import SettingError

_OPTIONS = {
    name: parameter.default
    for name, parameter in inspect.signature(make_sparse_mixing).parameters.items()
    if name != "random_state"
}
_STUDY_KEYS = ("name", "seeds", "problem", "block", "method")
_BLOCK_KEYS = ("methods", "grid", "seeds")
_METHOD_KEYS = ("estimator", "settings", "domains")


@dataclass(frozen=True)
class Run:
    """One row of a study: options of ``make_sparse_mixing``, the data's seed, and a method."""

    problem: Mapping[str, Any]
    seed: int
    method: Method

    @property
    def key(self) -> str:
        """The same for the same run in any study: a digest of everything that fixes it."""
        method = {"estimator": self.method.estimator, "settings": self.method.settings, "domains": self.method.domains}
        content = {"problem": self.problem, "seed": self.seed, "method": method}
        text = json.dumps(content, sort_keys=True, default=list)
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
    problem: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.blocks or not any(block.methods for block in self.blocks):
            raise SettingError(f"The study {self.name!r} has no block with methods. Add one.")
        for block in self.blocks:
            _check_known("problem option", {**self.problem, **block.grid}, _OPTIONS)
            for name, values in block.grid.items():
                if isinstance(values, str) or not isinstance(values, Sequence) or not values:
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
        values: dict[str, set[str]] = {}
        for run in self.runs():
            for name, value in run.whole_problem().items():
                values.setdefault(name, set()).add(repr(value))
        return [name for name, seen in values.items() if len(seen) > 1]


def read_study(path: Path) -> Study:
    """A study from a TOML file.

    Raises
    ------
    SettingError
        The file cannot be read, or has a key, option or method that is not known; the message lists the known ones.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"The study file {path} cannot be read: {error}.") from error
    _check_known("key", content, _STUDY_KEYS)
    known = METHODS | {name: _method(name, entry) for name, entry in content.get("method", {}).items()}
    blocks = []
    for entry in content.get("block", []):
        _check_known("key of a block", entry, _BLOCK_KEYS)
        names = entry.get("methods", [])
        _check_known("method", names, known)
        blocks.append(Block([known[name] for name in names], entry.get("grid", {}), entry.get("seeds")))
    return Study(content.get("name", path.stem), blocks, content.get("seeds", [0]), content.get("problem", {}))


def _method(name: str, entry: Mapping[str, Any]) -> Method:
    _check_known(f"key of method {name!r}", entry, _METHOD_KEYS)
    base = METHODS.get(name, Method(name))
    return Method(
        name,
        entry.get("estimator", base.estimator),
        {**base.settings, **entry.get("settings", {})},
        entry.get("domains", base.domains),
    )


def _check_known(what: str, given: Any, known: Any) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise SettingError(f"Unknown {what} in the study: {unknown}. Known: {sorted(known)}.")
