"""A study is a table: problems of a generator × methods × seeds; a run is one row of it.

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

Above the tables may stand ``generator = "my_package:make"``, whose options ``problem`` and ``grid`` then are (default:
``make_sparse_mixing``), and among them ``[metric]`` with ``name = "my_package:metric"`` (``bench/problems.py``).
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from unmix.bench.methods import METHODS, Method
from unmix.bench.problems import Function, function_of, name_of, options_of
from unmix.errors import SettingError
from unmix.files import as_path, json_ready
from unmix.version import __version__

_STUDY_KEYS = ("name", "seeds", "generator", "problem", "block", "method", "metric")
_BLOCK_KEYS = ("methods", "grid", "seeds")
_METHOD_KEYS = ("estimator", "settings", "domains")
_COLUMNS = (
    *("key", "method", "seed", "unmix", "error", "domains_needed", "injective", "mcc", "low", "high", "chance"),
    *("worst_latent", "r2", "mcc_within_domains", "support_f1", "support_auroc", "agreement", "n_epochs", "seconds"),
)


Row: TypeAlias = dict[str, Any]
"""What a run measured, one line of a file of results."""


@dataclass(frozen=True)
class Run:
    """One row of a study: options of its ``generator`` (None: ``make_sparse_mixing``), the data's seed, and a method.

    ``metrics`` by name are measured beside those of every study.
    """

    problem: Mapping[str, object]
    seed: int
    method: Method
    generator: Function | None = None
    metrics: Mapping[str, Function] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The same for the same run in any study: a digest of problem, seed, method with its defaults, and version."""
        content = {
            "unmix": __version__,
            "problem": self.whole_problem(),
            "seed": self.seed,
            "method": self.method.fixed_by,
        }
        if self.generator is not None:
            content["generator"] = name_of(self.generator)
        if self.metrics:
            content["metrics"] = {name: name_of(own) for name, own in self.metrics.items()}
        text = json.dumps(json_ready(content), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def whole_problem(self) -> dict[str, Any]:
        """Every option of the generator, defaults filled in."""
        return {**options_of(self.generator), **self.problem}


@dataclass(frozen=True)
class Block:
    """A grid of problem options (each a list of values) × methods; ``seeds`` where they differ from the study's."""

    methods: Sequence[Method]
    grid: Mapping[str, Sequence[object]] = field(default_factory=dict)
    seeds: Sequence[int] | None = None


@dataclass(frozen=True)
class Study:
    """Blocks that share ``problem`` options, ``seeds``, the ``generator`` (None: ``make_sparse_mixing``) and
    ``metrics`` by name, functions or where they are: ``"package.module:name"``.
    """

    name: str
    blocks: Sequence[Block]
    seeds: Sequence[int]
    problem: Mapping[str, object] = field(default_factory=dict)
    generator: Function | None = None
    metrics: Mapping[str, Function] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _whole_numbers(self.seeds):
            raise SettingError(f"seeds must be a list of whole numbers from 0 on; got {self.seeds!r}.")
        if not any(block.methods for block in self.blocks):
            raise SettingError(f"The study {self.name!r} has no block with methods. Add one.")
        options = options_of(self.generator)
        taken = sorted({*self.metrics} & {*_COLUMNS, *options})
        if taken:
            raise SettingError(f"A metric is named {taken[0]!r}, like a column that every row has. Name it otherwise.")
        for name, metric in self.metrics.items():
            function_of(metric, f"metric {name}:")
        for block in self.blocks:
            _check_known("problem option", {**self.problem, **block.grid}, options)
            lacking = [
                name
                for name, value in options.items()
                if value is inspect.Parameter.empty and name not in {*self.problem, *block.grid}
            ]
            if lacking:
                raise SettingError(f"The generator needs the options {lacking}. Set them under [problem] or in a grid.")
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
                        run = Run(problem, int(seeds[position]), method, self.generator, self.metrics)
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
            runs = replace(self, blocks=[block]).runs()
            if axis in _varying(runs):
                found |= {run.key for run in runs}
        return found


def read_study(path: str | Path, *, allow_import: bool = False) -> Study:
    """A study from a TOML file.

    Parameters
    ----------
    path : of the file
    allow_import : bool, default False
        Whether the file may name estimators, a generator and metrics as ``"package.module:name"``, of installed modules
        or of the current folder. To import a module runs its code: allow it for files that you trust.

    Raises
    ------
    SettingError
        The file cannot be read, has a key, option or method that is not known (the message lists the known ones), or
        names something to import that is not allowed, or is not what it should be.
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
    generator, measures = content.get("generator"), _table(content, "metric")
    named = {f"method {name!r}": known[name].estimator for name in own if known[name].estimator not in shipped}
    named |= {f"metric {name!r}": function for name, function in measures.items()}
    named |= {} if generator is None else {"generator": generator}
    for what, function in named.items():
        _check_name(what, function, path, allowed=allow_import)
    blocks = []
    for entry in _list(content, "block"):
        if not isinstance(entry, Mapping):
            raise SettingError(f"block must be a list of tables, each under [[block]]; got {entry!r} in it.")
        _check_known("key of a block", entry, _BLOCK_KEYS)
        names = _list(entry, "methods")
        _check_known("method", names, known)
        blocks.append(Block([known[name] for name in names], _table(entry, "grid"), entry.get("seeds")))
    return Study(
        str(content.get("name", path.stem)), blocks, content.get("seeds", [0]), problem, generator, dict(measures)
    )


def _check_name(what: str, name: object, path: Path, *, allowed: bool) -> None:
    """Raise ``SettingError`` for what is no name of an import, or one that is not allowed."""
    if not isinstance(name, str) or (":" not in name and not what.startswith("method")):
        raise SettingError(f'The {what} of {path} must be named as "package.module:name"; got {name!r}.')
    if ":" in name and not allowed and not name.startswith("unmix."):
        raise SettingError(
            f"The {what} of {path} imports {name!r}, which runs code. If you trust it, add --allow-import, in Python "
            "read_study(path, allow_import=True)."
        )


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
