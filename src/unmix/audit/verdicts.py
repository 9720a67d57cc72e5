r"""All checks of one model, joined into a verdict for every latent.

A pair of latents is *separated* if some route of ``docs/theory.md`` separates it in nine tenths of the draws of the
support, and the two do not depend on each other within domains. Pairs that are not separated form a graph over the
latents; its components are the blocks.

- unsupported: the latent has collapsed, is discrete or a duplicate, cannot be recovered from the features, differs from
  start to start (``agreement``), or is in a block without changing between domains;
- not tested: the same as far as tested, but these rows cannot show whether it changes between domains;
- block: it is separated from everything but the others of its block;
- identified: it is separated from every other latent.

The conditions are sufficient, not necessary: a latent that is not called identified may still be right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmix.audit import agreement, changes, independence, invertibility, positivity, residuals, rows, sparsity
from unmix.audit.agreement import Repeats
from unmix.audit.changes import Changes
from unmix.audit.check import Check, Context
from unmix.audit.finding import Finding, Said, left_by_latents, listed, there
from unmix.audit.input import LEAST_ROWS, AuditInput
from unmix.audit.remedies import Remedy, blocks, find_remedies
from unmix.audit.result import NOT_TESTED, Audit
from unmix.audit.routes import ROUTES, STRUCTURE, route_shares, tied
from unmix.audit.rows import rows_needed
from unmix.audit.sparsity import SURE, Support
from unmix.numbers import counted

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

# All checks, in the order in which they are shown.
CHECKS: tuple[Check[Any], ...] = (
    positivity.CHECK,
    independence.CHECK,
    changes.CHECK,
    sparsity.CHECK,
    invertibility.CHECK,
    agreement.CHECK,
    residuals.CHECK,
    rows.CHECK,
)
_UNKNOWN = Said("unknown", "")
_SMALL = 0.01
_PAIR_COLUMNS = ["a", "b", "separated", "probability", "route", "domains_needed"]
_PAIR_COLUMNS += ["directions_needed", "directions", "condition"]


@dataclass(frozen=True)
class _Evidence:
    """The basis of the verdicts; all fields refer to the latents that are not superfluous."""

    subject: AuditInput
    support: Support
    changes: Changes
    faults: dict[int, Said]
    doubts: dict[int, Said]
    repeats: Repeats | None
    separated: Bools
    probability: Floats
    route: Ints
    dependent: Bools
    number: Finding
    rows: Finding


def audit_subject(subject: AuditInput) -> Audit:
    """Every check and every verdict."""
    context = Context(subject)
    context.superfluous = superfluous = context.result(positivity.CHECK).evidence
    active = context.active
    if not active or len(subject.latents) < LEAST_ROWS:
        return _nothing(context)
    part, faulty = context.part, context.faults(CHECKS)
    support, found = context.result(sparsity.CHECK).evidence, context.result(changes.CHECK).evidence
    dependent, repeats = context.result(independence.CHECK).evidence, context.result(agreement.CHECK).evidence
    number, enough = context.result(residuals.CHECK).finding, context.result(rows.CHECK).finding
    unsure = context.result(invertibility.CHECK).evidence
    own, doubts = ({place: said[i] for place, i in enumerate(active) if i in said} for said in (faulty, unsure))
    shares = route_shares(support, found, dependent)
    probability, mixed = 1.0 - shares[0], dependent.copy()
    for a, b in support.contested:
        mixed[a, b] = mixed[b, a] = True
    separated = (probability >= SURE) & ~mixed
    np.fill_diagonal(separated, True)
    route = np.where(separated, shares[1:].argmax(axis=0) + 1, 0)
    evidence = _Evidence(
        part, support, found, own, doubts, repeats, separated, probability, route, dependent, number, enough
    )
    # If the zeros are not credible, changes must separate every pair, and the count is that of a dense mixing.
    counted_on = support.edges if support.credible else np.ones_like(support.edges)
    mended = find_remedies(
        counted_on,
        found,
        list(part.names),
        mixed,
        domains_tested=len(part.domains) + len(part.absent) == 1 or not found.blind,
        drops_latents=False,
    )
    unsteady = [] if repeats is None else [i for i in range(len(active)) if repeats.fault(i)]
    faulty_names = {part.names[i] for i in [*own, *doubts, *unsteady]}
    mended = [own for own in (remedy.without(faulty_names) for remedy in mended) if own.mends]
    if number.verdict == "fails":
        # The count assumes a model that describes the rows; here it guarantees nothing.
        mended = [_more_latents(part)]
    elif subject.untested_domains or (enough.verdict == "fails" and not separated.all()):
        mended.append(_more_rows(part, enough))
    judged = [_row(name, "unsupported", faulty.get(i, _UNKNOWN)) for i, name in enumerate(subject.names)]
    for place, row in zip(active, _verdicts(evidence, mended), strict=True):
        judged[place] = row
    effects = domain_effects(subject)
    judged = [row | words for row, words in zip(judged, _effect_words(subject, effects), strict=True)]
    edges = np.zeros((len(subject.feature_names), subject.n_latents))
    edges[:, active] = support.probability
    return Audit(
        latents=_table(judged),
        findings=[context.result(check).finding for check in CHECKS],
        pairs=_pairs(evidence),
        effects=effects,
        remedies=_with_fewer(subject, sorted(superfluous)) + mended,
        domains_present=len(subject.domains),
        domains_needed=int(support.needed().max()),
        domains_needed_without_sparsity=2 * len(active) + 1,
        edge_probability=edges,
        feature_names=subject.feature_names,
    )


def _verdicts(found: _Evidence, mended: list[Remedy]) -> list[dict[str, object]]:
    names, needed = found.subject.names, found.support.needed().max(axis=1)
    rows: dict[int, dict[str, object]] = {}
    for block in blocks(found.separated):
        for i in block:
            verdict, reason = _judge(found, i, block)
            own = [names[j] for j in block] if verdict == "block" else None
            stuck = verdict != "identified" and (
                found.number.verdict == "fails" or i not in found.faults | found.doubts
            )
            # What cannot be tested needs rows first.
            order = sorted(mended, key=lambda r: r.code != "more_rows") if verdict == NOT_TESTED else mended
            helps = next((r.sentence for r in order if names[i] in r.mends or (stuck and r.effect)), "")
            rows[i] = _row(names[i], verdict, reason, own, int(needed[i]), helps)
    return [rows[i] for i in range(len(names))]


def _judge(found: _Evidence, i: int, block: list[int]) -> tuple[str, Said]:
    """Verdict and reason."""
    names, others = found.subject.names, [j for j in block if j != i]
    if i in found.faults:
        return "unsupported", Said(found.faults[i].code, f"It {found.faults[i]}.")
    if found.number.verdict == "fails":
        return "unsupported", Said(
            "too_few_latents",
            f"The latents do not account for the features ({left_by_latents(found.number)}), so it may be a "
            "mixture of factors; the theory guarantees nothing with too few latents.",
        )
    if found.repeats is not None and found.repeats.fault(i):
        return "unsupported", found.repeats.fault(i)
    said = "" if found.repeats is None else f" {found.repeats.said(i)}"
    if not others and i in found.doubts:
        return "unsupported", Said(found.doubts[i].code, f"It {found.doubts[i]}.")
    mixed = [j for j in range(len(names)) if j != i and found.route[i, j] != STRUCTURE]
    if not others and mixed and all(_without_effect(found, j) for j in mixed):
        return "unsupported", Said(
            "no_other_recovered",
            f"It is separated from {listed([names[j] for j in mixed])} by changes between domains alone, and of these "
            "latents none has an effect of its own: whatever belongs to them may be mixed into it.",
        )
    if not others:
        alone = " There is no other start to compare with, so it is not known whether it is reproducible."
        return "identified", Said("separated", f"{_routes(found, i)}{said or alone}")
    direct = [j for j in others if not found.separated[i, j]]
    bound = [names[j] for j in direct if found.dependent[i, j]]
    unsure = [names[j] for j in direct if not found.dependent[i, j] and found.probability[i, j] >= 1 - SURE]
    open_ = [j for j in direct if not found.dependent[i, j]]
    if not found.changes.changing[i] and open_:
        still = Said("unchanging", "It does not change between domains by more than with shuffled labels")
        if found.subject.untested_domains:
            still = Said("changes_untested", "Its changes between domains are not tested")
        elif found.changes.blind and len(found.subject.large) > 1:
            still = Said("too_few_rows", "There are too few rows to tell whether it changes between domains")
        verdict = "unsupported" if still.code == "unchanging" else NOT_TESTED
        surely = "does not reliably separate" if unsure else "does not separate"
        rest = f"the structure {surely} it from {listed([names[j] for j in open_])}"
        return verdict, Said(still.code, f"{still}, and {rest}.")
    if bound:
        rest = f", and nothing reliably separates it from {listed([names[j] for j in open_])}" if open_ else ""
        return "block", Said("dependent", f"It depends on {listed(bound)} within domains{rest}.{said}")
    contested = [names[j] for j in direct if tuple(sorted((i, j))) in found.support.contested]
    if contested:
        return "block", Said(
            "sparser_combinations",
            f"Other combinations of it and {listed(contested)} would make the mixing sparser: sparsity and "
            f"independence within domains contradict each other.{said}",
        )
    if unsure:
        why = f"Whether it is separated from {listed(unsure)} depends on uncertain edges.{said}"
        return "block", Said("uncertain_edges", why)
    sets = found.support.likely()
    bars = sorted(set().union(*(tied(sets, i, j, found.dependent) for j in direct)))
    together = listed([names[j] for j in direct])
    if bars:
        return "block", Said(
            "changes_barred",
            f"Nothing separates it from {together}: changes count only where latents are independent within domains, "
            f"and {listed([names[k] for k in bars])} are not.{said}",
        )
    return "block", Said(
        "not_enough_changes",
        f"Nothing separates it from {together}: that would take {int(found.support.needed()[i, direct].max())} domains "
        f"that differ enough, and {_domains(found)}.{said}",
    )


def _without_effect(found: _Evidence, i: int) -> bool:
    return i in found.faults and found.faults[i].code == "no_effect_of_its_own"


def _domains(found: _Evidence) -> str:
    """How many domains there are to compare."""
    enough, present = found.changes.present, len(found.subject.domains)
    if len(found.subject.large) < present:
        return f"of {counted(present, 'domain')} {len(found.subject.large)} have enough rows to compare"
    return f"there {there(enough, 'domain')}"


def _routes(found: _Evidence, i: int) -> str:
    """By which routes a latent is separated from the others."""
    names = found.subject.names
    words = {1: "the structure", 2: "changes between domains", 3: "changes of scale between domains"}
    parts = []
    for route, by in words.items():
        others = [names[j] for j in range(len(names)) if j != i and found.route[i, j] == route]
        if others:
            parts.append(f"from {listed(others)} by {by}")
    if not parts:
        return "There is no other latent to separate it from."
    return f"Separated {', '.join(parts)}."


def _pairs(found: _Evidence) -> pd.DataFrame:
    names, needed = found.subject.names, found.support.needed()
    first, second = np.triu_indices(len(names), 1)
    sets = found.support.likely()
    shared = [sets[a] & sets[b] for a, b in zip(first, second, strict=True)]
    return pd.DataFrame(
        {
            "a": [names[a] for a in first],
            "b": [names[b] for b in second],
            "separated": found.separated[first, second],
            "probability": found.probability[first, second],
            "route": [ROUTES[route] for route in found.route[first, second]],
            "domains_needed": needed[first, second],
            "directions_needed": [2 * len(s) for s in shared],
            "directions": [found.changes.ranks(s)[0] for s in shared],
            "condition": [found.changes.condition(s) for s in shared],
        }
    )


def _row(
    name: str, verdict: str, reason: Said, block: list[str] | None = None, needed: int | None = None, remedy: str = ""
) -> dict[str, object]:
    if needed is None:
        reason = Said(reason.code, f"It {reason}." if reason else "Nothing can be said about it.")
    return {
        "name": name,
        "verdict": verdict,
        "block": block,
        "domains_needed": needed,
        "code": reason.code,
        "reason": str(reason),
        "remedy": remedy,
    }


def _table(rows: list[dict[str, object]]) -> pd.DataFrame:
    table = pd.DataFrame(rows).astype({"domains_needed": "Int64"})
    table["block"] = pd.Series([row["block"] for row in rows], dtype=object)
    return table


def domain_effects(subject: AuditInput) -> pd.DataFrame:
    """Mean and spread of every latent in every domain, in units of the latent's own spread over all rows."""
    z = subject.latents
    z = (z - z.mean(axis=0)) / np.maximum(z.std(axis=0), 1e-12)
    parts = []
    for stratum, domain in enumerate(subject.domains):
        own = z[subject.strata == stratum]
        if len(own):
            numbers = {"rows": len(own), "mean": own.mean(axis=0), "spread": own.std(axis=0)}
            parts.append(pd.DataFrame({"domain": domain, "latent": list(subject.names), **numbers}))
    columns = ["domain", "latent", "rows", "mean", "spread"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _effect_words(subject: AuditInput, effects: pd.DataFrame) -> list[dict[str, object]]:
    """The variance that every latent explains and its differences between domains, in numbers and in words."""
    found = []
    for i, name in enumerate(subject.names):
        explained = float("nan") if subject.variance is None else float(subject.variance[i])
        own = effects[effects["latent"] == name]
        words = [] if np.isnan(explained) else [f"{_share(explained)} of the features' variance"]
        change = float("nan")
        if len(own) > 1 and not subject.untested_domains:
            change = float((own["rows"] * own["mean"].astype(float) ** 2).sum() / own["rows"].sum())
            most = own.to_dict("records")[int(np.abs(own["mean"].to_numpy(dtype=float)).argmax())]
            where = f", most in {most['domain']}: mean {most['mean']:+.1f}, spread {most['spread']:.1f}"
            words.append(f"{_share(change)} of its own variance between domains{where if change >= _SMALL else ''}")
        found.append({"explained_variance": explained, "change": change, "effect": ", ".join(words)})
    return found


def _share(share: float) -> str:
    """A share in per cent; a share that would round to 0 % is "under 1%"."""
    return f"{share:.0%}" if share >= _SMALL else f"under {_SMALL:.0%}"


def _with_fewer(subject: AuditInput, superfluous: list[int]) -> list[Remedy]:
    """Superfluous latents were left out of the audit of all others."""
    if not superfluous:
        return []
    n = counted(subject.n_latents - len(superfluous), "latent")
    lost = listed([subject.names[i] for i in superfluous])
    change = f"A model without {lost} ({n})"
    return [Remedy("fewer_latents", change, (), len(superfluous), "lose little on these rows")]


def _more_latents(subject: AuditInput) -> Remedy:
    change = f"More than {counted(subject.n_latents, 'latent')} (`unmix select` compares numbers)"
    return Remedy("more_latents", change, (), 1, "have room for the dependence left in the residuals")


def _more_rows(subject: AuditInput, rows: Finding) -> Remedy:
    if subject.untested_domains and len(subject.large):
        needed = rows_needed(2, subject.n_latents)
        change = f"About {needed} audited rows of another domain than {subject.domains[subject.large[0]]}"
        return Remedy("more_rows", change, (), needed, "let changes be tested")
    needed, typical = rows.evidence["rows_of_a_domain_needed"], rows.evidence["median_rows_of_a_domain"]
    change = f"About {needed} audited rows per domain instead of {typical}"
    return Remedy("more_rows", change, (), needed - typical, "give the tests enough power")


def _nothing(context: Context) -> Audit:
    """The audit of data that are insufficient for any test."""
    subject, first = context.whole, context.result(positivity.CHECK)
    enough = len(subject.latents) >= LEAST_ROWS
    why = "No latent is left to test." if enough else first.finding.sentence
    said = f"cannot be tested: there {there(len(subject.latents), 'row')}, and the tests need {LEAST_ROWS}"
    few = Said("too_few_rows", said)
    rest = [
        context.result(check).finding
        if check.of_all and enough
        else Finding(check.condition, "cannot tell", False, why)
        for check in CHECKS[1:]
    ]
    n, effects = subject.n_latents, domain_effects(subject)
    words = _effect_words(subject, effects)
    change = f"{LEAST_ROWS} audited rows or more instead of {len(subject.latents)}"
    more = Remedy("more_rows", change, (), LEAST_ROWS - len(subject.latents), "let the latents be tested")
    judged = [
        _row(name, "unsupported", first.faults[i]) if enough else _row(name, NOT_TESTED, few, remedy=more.sentence)
        for i, name in enumerate(subject.names)
    ]
    return Audit(
        latents=_table([row | effect for row, effect in zip(judged, words, strict=True)]),
        findings=[first.finding, *rest],
        pairs=pd.DataFrame(columns=_PAIR_COLUMNS),
        effects=effects,
        remedies=[] if enough else [more],
        domains_present=len(subject.domains),
        domains_needed=2 * n + 1,
        domains_needed_without_sparsity=2 * n + 1,
        edge_probability=np.zeros((len(subject.feature_names), n)),
        feature_names=subject.feature_names,
    )
