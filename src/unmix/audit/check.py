"""The interface of a check: it takes the input of an audit, may use results of other checks, and returns a finding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

from unmix.audit.finding import Finding, Said, code_of
from unmix.audit.input import AuditInput

Evidence = TypeVar("Evidence")


@dataclass(frozen=True)
class CheckResult(Generic[Evidence]):
    """A finding, ``evidence`` for other checks and the verdicts, and ``faults``: reasons against single latents."""

    finding: Finding
    evidence: Evidence
    faults: Mapping[int, Said] = field(default_factory=dict)


@dataclass(frozen=True)
class Check(Generic[Evidence]):
    """A condition and its check ``run(input, context)``.

    The input has the latents that are not superfluous, or all of them if ``of_all``; such a check uses no other check.
    """

    condition: str
    run: Callable[[AuditInput, Context], CheckResult[Evidence]]
    of_all: bool = False

    @property
    def code(self) -> str:
        return code_of(self.condition)


class Context:
    """Results of the checks on one input, each computed on first use."""

    def __init__(self, whole: AuditInput) -> None:
        self.whole = whole
        self.superfluous: frozenset[int] = frozenset()
        self._results: dict[str, CheckResult[Any]] = {}

    @property
    def active(self) -> list[int]:
        """Latents that are not superfluous."""
        return [i for i in range(self.whole.n_latents) if i not in self.superfluous]

    @cached_property
    def part(self) -> AuditInput:
        """The input with only the ``active`` latents."""
        return self.whole.only(self.active)

    def result(self, check: Check[Evidence]) -> CheckResult[Evidence]:
        """Result of ``check``."""
        if check.condition not in self._results:
            self._results[check.condition] = check.run(self.whole if check.of_all else self.part, self)
        return cast("CheckResult[Evidence]", self._results[check.condition])

    def faults(self, checks: Sequence[Check[object]]) -> dict[int, Said]:
        """Reason against each faulty latent; of several checks the first one counts."""
        found: dict[int, Said] = {}
        for check in reversed(checks):
            own = self.result(check).faults
            found |= own if check.of_all else {self.active[place]: words for place, words in own.items()}
        return found
