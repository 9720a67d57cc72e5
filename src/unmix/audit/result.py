"""An audit's result: a verdict for every latent and for every condition, as tables, JSON and text."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmix.audit.finding import Finding, left_by_latents, there
from unmix.audit.notes import Note
from unmix.audit.remedies import Remedy
from unmix.errors import SettingError
from unmix.files import json_ready
from unmix.numbers import counted

NOT_TESTED = "not tested"
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def verdict_line(row: Mapping[Hashable, Any]) -> str:
    """One row of a table of latents as a line of text."""
    verdict = row["verdict"] if row["block"] is None else f"block {{{', '.join(row['block'])}}}"
    effect = f" ({row['effect']})" if row.get("effect") else ""
    return f"{row['name']}: {verdict}{effect}. {row['reason']}"


@dataclass(frozen=True, repr=False)
class Audit:
    """Which latents the data identify, and why.

    Attributes
    ----------
    latents : DataFrame, one row a latent
        ``name``; ``verdict``: "identified" (by itself), "block" (only together with the others of ``block``),
        "unsupported", or "not tested" (the rows could not show whether it changes between domains, which would decide);
        ``block``: names, or None; ``domains_needed``: domains that separate it from all others with this
        mixing, NA if it is superfluous; ``reason``, and its ``code``, which is stable when the wording changes;
        ``remedy``: the cheapest change that would identify it, or test it, or "";
        ``explained_variance``: share of the features' variance, NaN if unknown; ``change``: share of its variance
        between domains, NaN if no two domains have enough rows; ``effect``: both in words, with the domain that
        differs most.
    findings : list of Finding, one for each condition of the theory
    pairs : DataFrame, one row a pair of latents
        ``a``, ``b``, ``separated``, ``probability`` (share of the draws of the support that separate it), ``route``
        ("structure", "changes", "scales", "none"), ``domains_needed``; for the latents that the pair shares on the most
        likely support, ``directions_needed``, ``directions`` (in how many they reliably change) and ``condition``, the
        condition number of their difference vectors (missing if there are too few domains)
    effects : DataFrame, one row a domain and latent
        ``domain``, ``latent``, ``rows``, ``mean`` and ``spread`` of the audited rows, in units of the latent's spread
        over all of them.
    remedies : list of Remedy
        First the latents that are superfluous, then changes that would identify more latents, cheapest first.
    domains_present, domains_needed, domains_needed_without_sparsity : int
        ``domains_present`` counts domains with audited rows, however few.
    edge_probability : float array (n_features, n_latents)
    feature_names : tuple of str
    notes : tuple of Note
        Caveats about the audited rows: training rows among them, features that do not vary, rows unlike those of the
        fit, rows of a domain that the fit does not know.
    """

    latents: pd.DataFrame
    findings: list[Finding]
    pairs: pd.DataFrame
    effects: pd.DataFrame
    remedies: list[Remedy]
    domains_present: int
    domains_needed: int
    domains_needed_without_sparsity: int
    edge_probability: Floats
    feature_names: tuple[str, ...]
    notes: tuple[Note, ...] = ()

    def finding(self, condition: str) -> Finding:
        """The finding whose condition begins with this text, such as "C3"."""
        for finding in self.findings:
            if finding.condition.startswith(condition):
                return finding
        known = ", ".join(repr(finding.condition) for finding in self.findings)
        raise SettingError(f"There is no condition {condition!r}. Pass the beginning of one of {known}.")

    def separated(self) -> Bools:
        """Whether each pair of latents (n_latents, n_latents) is separated; the diagonal is True.

        Superfluous latents and latents that could not be tested are separated from no other.
        """
        names = list(self.latents["name"])
        result = np.eye(len(names), dtype=bool)
        for pair in self.pairs.to_dict("records"):
            a, b = names.index(pair["a"]), names.index(pair["b"])
            result[a, b] = result[b, a] = pair["separated"]
        return result

    def to_frame(self) -> pd.DataFrame:
        """The findings as a table: condition, verdict, could_fail, sentence."""
        columns = ["condition", "verdict", "could_fail", "sentence"]
        return pd.DataFrame([{name: getattr(finding, name) for name in columns} for finding in self.findings])

    def to_dict(self) -> dict[str, object]:
        """Everything but the edges, ready for strict JSON.

        Verdicts ("identified", "block", "unsupported", "not tested"; "holds", "fails", "cannot tell") and every
        ``code`` are stable when sentences change; ``docs/audit.md`` lists them.
        """
        latents = self.latents.astype({"domains_needed": object}).to_dict("records")
        rows = [{k: None if v is pd.NA else v for k, v in row.items()} for row in latents]
        result: dict[str, object] = json_ready(
            {
                "domains_needed": self.domains_needed,
                "domains_needed_without_sparsity": self.domains_needed_without_sparsity,
                "domains_present": self.domains_present,
                "latents": rows,
                "findings": [finding.to_dict() for finding in self.findings],
                "pairs": self.pairs.astype(object).where(self.pairs.notna(), None).to_dict("records"),
                "effects": self.effects.to_dict("records"),
                "notes": [asdict(note) for note in self.notes],
                "remedies": [
                    {"code": r.code, "change": r.change, "mends": r.mends, "cost": r.cost} for r in self.remedies
                ],
            }
        )
        return result

    def to_json(self) -> str:
        """``to_dict`` as text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False, ensure_ascii=False)

    def summary(self) -> str:
        """The main result, in a sentence or two."""
        verdicts = self.latents["verdict"].value_counts()
        said = [
            f"{verdicts.get(verdict, 0)} {words}"
            for verdict, words in (
                ("identified", "identified"),
                ("block", "identified only within a block"),
                ("unsupported", "not supported by these data"),
                (NOT_TESTED, "that these rows cannot test"),
            )
            if verdict in verdicts or verdict != NOT_TESTED
        ]
        found = f"Of {counted(len(self.latents), 'latent')}: {', '.join(said)}."
        number, rows = self.finding("number of latents"), self.finding("rows")
        if number.verdict == "fails":
            return (
                f"Too few latents, or a mixing or noise unlike the model's: given the latents, "
                f"{left_by_latents(number)}. Use more "
                f"than {counted(len(self.latents), 'latent')}; `unmix select` compares numbers. {found}"
            )
        if number.evidence.get("may_be_too_few"):
            found = f"{found} There may be more factors than latents: compare a fit with one more."
        if rows.verdict == "fails":
            found = f"{rows.sentence} {found}"
        if not len(self.pairs):
            return found
        compared = self.finding("C3").evidence["domains_compared"]
        enough = f", {compared} of them with enough rows to compare" if compared < self.domains_present else ""
        return (
            f"{found} With latents independent within domains, the most likely support needs "
            f"{counted(self.domains_needed, 'domain')} that differ enough to separate all latents (without sparsity "
            f"{self.domains_needed_without_sparsity}); there {there(self.domains_present, 'domain')}{enough}."
        )

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        lines = [self.summary(), *(note.sentence for note in self.notes), ""]
        lines += [verdict_line(row) for row in self.latents.to_dict("records")]
        lines += [*(f"→ {remedy.sentence}" for remedy in self.remedies), ""]
        for finding in self.findings:
            open_ = "" if finding.could_fail else " (these data could not have shown a failure)"
            lines.append(f"{finding.condition}: {finding.verdict}{open_}. {finding.sentence}")
        return "\n".join(lines)
