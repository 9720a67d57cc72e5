"""What a check is: it looks at the input of an audit, may ask other checks, and says what it found."""

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
    """A finding, ``evidence`` that other checks and verdicts take, and ``faults``: what is wrong with which latents."""

    finding: Finding
    evidence: Evidence
    faults: Mapping[int, Said] = field(default_factory=dict)


@dataclass(frozen=True)
class Check(Generic[Evidence]):
    """A condition and its check ``run(input, context)``.

    The input has the latents that are not superfluous, or ``of_all`` of them; such a check takes no context but that.
    """

    condition: str
    run: Callable[[AuditInput, Context], CheckResult[Evidence]]
    of_all: bool = False

    @property
    def code(self) -> str:
        return code_of(self.condition)


class Context:
    """Results of the checks on one input, each made when it is first asked for."""

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
        """The input with these alone."""
        return self.whole.only(self.active)

    def result(self, check: Check[Evidence]) -> CheckResult[Evidence]:
        """What ``check`` found."""
        if check.condition not in self._results:
            self._results[check.condition] = check.run(self.whole if check.of_all else self.part, self)
        return cast("CheckResult[Evidence]", self._results[check.condition])

    def faults(self, checks: Sequence[Check[Any]]) -> dict[int, Said]:
        """What is wrong with which of all latents; of two checks the first one says it."""
        found: dict[int, Said] = {}
        for check in reversed(checks):
            own = self.result(check).faults
            found |= own if check.of_all else {self.active[place]: words for place, words in own.items()}
        return found
