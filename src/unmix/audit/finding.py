"""One condition of the theory tested on data: verdict, whether the data could have shown a failure, evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from unmix.files import json_ready
from unmix.numbers import counted

Verdict = Literal["holds", "fails", "cannot tell"]


def code_of(condition: str) -> str:
    """Stable code of a condition: C1 for "C1 positivity", number_of_latents for "number of latents"."""
    first = condition.split()[0]
    numbered = len(first) == 2 and first[0] == "C" and first[1].isdigit()
    return first if numbered else condition.replace(" ", "_").replace("-", "_")


class Said(str):
    """Text with a code that is stable when the text changes."""

    __slots__ = ("code",)
    code: str

    def __new__(cls, code: str, words: str) -> Said:
        said = super().__new__(cls, words)
        said.code = code
        return said

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return self.code, str(self)


@dataclass(frozen=True)
class Finding:
    """What the data say about one condition.

    Attributes
    ----------
    condition : str
        Such as "C3 changes".
    verdict : {"holds", "fails", "cannot tell"}
        "fails" means that the theory guarantees nothing through this condition, not that the latents are wrong.
    could_fail : bool
        Whether these data could have shown a failure; if not, "holds" would be no evidence, and the verdict is
        "cannot tell".
    evidence : mapping of str to numbers, names and lists
    sentence : str
    """

    condition: str
    verdict: Verdict
    could_fail: bool
    sentence: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """Code of the condition: C1 to C4, invertibility, agreement, number_of_latents, rows or left_out_domains."""
        return code_of(self.condition)

    def to_dict(self) -> dict[str, object]:
        """The finding, ready for strict JSON."""
        result: dict[str, object] = json_ready({"code": self.code, **asdict(self)})
        return result


def there(number: int, thing: str) -> str:
    """Continuation of "there": "is 1 domain", "are 3 domains"."""
    return f"{'is' if number == 1 else 'are'} {counted(number, thing)}"


def listed(names: list[str], most: int = 5) -> str:
    """Names in a sentence: "z0, z1 and z2"."""
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def floored(value: float) -> str:
    """Two decimals, rounded down so that no value looks better than it is: 0.999 is "0.99"."""
    return f"{math.floor(100 * value + 1e-9) / 100:.2f}"


def left_by_latents(number: Finding) -> str:
    """What shows that there are too few latents, in words, where the "number of latents" fails."""
    features = listed([str(name) for name in number.evidence["features"]])
    one = len(number.evidence["features"]) == 1
    return f"the noise of {features} differs between domains" if one else f"{features} still depend on each other"
