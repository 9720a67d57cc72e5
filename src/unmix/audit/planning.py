"""Before any data exist: which latents would a proposed support and a number of domains identify?

The count of ``unmix.theory``: a pair of latents is separated if there are :math:`2 |N_a \\cap N_b| + 1` domains, or if
the overlap is empty. It assumes that the latents change generically: domains that differ in few latents, or only in
their means, achieve less. Pairs that are not separated form blocks.

The count ignores the number of rows. The result of an audit is simulated: a linear mixing with random weights on the
support, in every domain means :math:`N(0, \\text{shift}^2)` and standard deviations
:math:`\\exp N(0, \\text{scale}^2)` of the latents, rows with noise, and the latents' posterior means under the true
mixing. The audit of these (``verdicts.audit_subject``) is that of a fit that found the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from unmix.audit.finding import listed
from unmix.audit.input import AuditInput, Simulated, evenly, paired_correlation
from unmix.audit.remedies import Remedy, blocks, find_remedies
from unmix.audit.result import verdict_line
from unmix.audit.routes import Shared, pair_routes
from unmix.audit.rows import rows_needed
from unmix.audit.verdicts import audit_subject
from unmix.datasets.supports import Plan as Design
from unmix.datasets.supports import draw_support
from unmix.errors import SettingError
from unmix.files import json_ready
from unmix.numbers import counted
from unmix.theory import check_support, domains_needed, free_sets, undetermined
from unmix.validation import AT_LEAST_ZERO, RandomLike, random_seed, whole

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EXPECTED = 0.8
_TYPICAL_DRAWS = 100
_COLUMNS = ["name", "verdict", "block", "domains_needed", "identified_in", "change_seen_in", "expected"]
_MOST_ROWS = 20_000
_LEAST_NOISE = 1e-3
_WEIGHTS = (0.5, 1.5)
_POINTS = 8
_SIMULATED = (50, 2000)


@dataclass(frozen=True)
class _Generic:
    """``n_domains`` domains in which every latent changes, each in a new direction."""

    n_domains: int

    def separates(self, shared: Shared) -> bool:
        return 2 * len(shared) < self.n_domains

    def by_scales(self, shared: Shared) -> bool:
        return False

    def lacking(self, shared: Shared) -> int:
        return max(0, 2 * len(shared) + 1 - self.n_domains)


@dataclass(frozen=True)
class Experiment:
    """Properties of the experiment beside support and domains; values that are not given are assumed.

    Attributes
    ----------
    rows : int, default 100
        Rows of every domain that the audit sees.
    noise : float, default 0.3
        Standard deviation of a feature's noise, in units of the standard deviation that the latents give the feature.
    shift : float, default 0.5
        Standard deviation, over domains, of a latent's mean, in units of its typical spread within a domain.
    scale : float, default 0.25
        Standard deviation, over domains, of the logarithm of a latent's spread within a domain.
    given : tuple of str
        Which of these were given.
    """

    rows: int = 100
    noise: float = 0.3
    shift: float = 0.5
    scale: float = 0.25
    given: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: int | None, noise: float | None, shift: float | None, scale: float | None) -> Experiment:
        """Checked values; None for those that are not given."""
        named: dict[str, Any] = {"rows": rows, "noise": noise, "shift": shift, "scale": scale}
        words = {name: value for name, value in named.items() if value is not None}
        for name, value in words.items():
            (whole(1) if name == "rows" else AT_LEAST_ZERO).need(name, value)
        return cls(**words, given=tuple(words))

    def sentence(self) -> str:
        """The values that were given and those that are assumed."""
        said = {
            "rows": f"{counted(self.rows, 'row')} per domain",
            "noise": f"noise {self.noise:g} times the standard deviation that the latents give a feature",
            "shift": f"means that vary between domains by {self.shift:g} spreads of a latent",
            "scale": f"log spreads that vary by {self.scale:g}",
        }
        parts = [("Given", True), ("Assumed", False)]
        return " ".join(
            f"{word}: {'; '.join(own)}."
            for word, known in parts
            if (own := [text for name, text in said.items() if (name in self.given) is known])
        )


@dataclass(frozen=True, repr=False)
class Plan:
    """The latents that a design would identify.

    Attributes
    ----------
    latents : DataFrame, one row per latent: name; by the count of domains verdict ("identified", "block",
        "unsupported"), block (names of the latents from which it is not separated, including itself; None unless in a
        block), domains_needed, reason; from the simulated experiments identified_in and change_seen_in (share in which
        an audit calls it identified, and sees it change), expected (whether identified_in is 0.8 or more; None without
        simulations)
    experiment : Experiment, rows, noise and size of changes, given or assumed
    simulations : int, number of simulated experiments
    rows_needed : int, rows per domain that the audit's tests of changes and of dependence need
    n_domains, domains_needed_without_sparsity : int
    domains_needed : int or None, domains that separate every latent that the features determine from all others; None
        if there is no such latent
    remedies : list of Remedy, changes that would identify more latents, cheapest first
    """

    latents: pd.DataFrame
    n_domains: int
    domains_needed: int | None
    domains_needed_without_sparsity: int
    remedies: list[Remedy]
    experiment: Experiment
    simulations: int
    rows_needed: int

    def to_dict(self) -> dict[str, object]:
        """As the command line prints it with ``--json``."""
        result: dict[str, object] = json_ready(
            {
                "domains_needed": self.domains_needed,
                "domains_needed_without_sparsity": self.domains_needed_without_sparsity,
                "latents": self.latents[_COLUMNS].to_dict("records"),
                "experiment": asdict(self.experiment),
                "simulations": self.simulations,
                "rows_needed": self.rows_needed,
            }
        )
        return result

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        lines = [self._summary(), *self._expected(), ""]
        for row in self.latents.to_dict("records"):
            seen = f" Simulated: identified in {row['identified_in']:.0%}." if self.simulations else ""
            lines.append(f"{verdict_line(row)}{seen}")
        return "\n".join(lines + [f"→ {remedy.sentence}" for remedy in self.remedies])

    def _expected(self) -> list[str]:
        """Result of the simulated experiments, and their settings."""
        if not self.simulations:
            return ["This is only a count; whether the rows suffice to detect the changes was not simulated."]
        table = self.latents
        names = table["name"][table["expected"].astype(bool)].tolist()
        often = f"in {EXPECTED:.0%} or more of {counted(self.simulations, 'simulated experiment')}"
        found = f"Expected to be identified ({often}): {listed(names) if names else 'none'}."
        if set(names) < set(table["name"][table["verdict"] == "identified"]):
            found += " The count alone promises more than so many rows can show."
        if self.experiment.rows < self.rows_needed:
            found += f" The audit's tests need about {self.rows_needed} rows per domain."
        return [
            f"{found} These audits are of the true mixing, which a fit has to find first.",
            self.experiment.sentence(),
        ]

    def _summary(self) -> str:
        lost = self.latents["name"][self.latents["verdict"] == "unsupported"].tolist()
        if self.domains_needed is None:
            return "No number of domains separates any latent: the features determine none of them."
        which = "all latents"
        never = ""
        if lost:
            rest = [name for name in self.latents["name"] if name not in lost]
            which = f"{listed(rest)} from all others"
            never = f" No number of domains separates {listed(lost)}."
        return (
            f"{counted(self.domains_needed, 'domain')} would separate {which} (without sparsity "
            f"{self.domains_needed_without_sparsity}); there {'is' if self.n_domains == 1 else 'are'} "
            f"{self.n_domains}.{never}"
        )


def plan(
    support: ArrayLike,
    n_domains: int,
    names: Sequence[str] | None = None,
    *,
    rows: int | None = None,
    noise: float | None = None,
    shift: float | None = None,
    scale: float | None = None,
    simulations: int = 20,
) -> Plan:
    """Which latents a support and a number of domains identify, by the count of ``docs/theory.md`` and in simulation.

    Parameters
    ----------
    support : 0/1 array or DataFrame (n_features, n_latents)
    n_domains : int
        Domains in which all latents change.
    names : sequence of str, optional
        Names of the latents. Default: the columns of a DataFrame, else z0, z1, …
    rows : int, optional
        Rows of every domain that the audit sees. Assumed if not given: 100.
    noise : float, optional
        Standard deviation of a feature's noise, in units of the standard deviation that the latents give the feature.
        Assumed: 0.3.
    shift : float, optional
        Standard deviation of a latent's mean between domains, in units of its spread within one. Assumed: 0.5.
    scale : float, optional
        Standard deviation of the logarithm of that spread between domains. Assumed: 0.25.
    simulations : int, default 20
        Number of experiments to simulate and audit, always with the same seeds; 0: the count alone.

    Raises
    ------
    SettingError
        ``support`` is no 0/1 matrix, ``n_domains`` is below 1, ``names`` do not fit, or a number is out of range.

    Examples
    --------
    >>> import unmix
    >>> design = unmix.plan([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 1, 1]], n_domains=1,
    ...     simulations=0)
    >>> design.domains_needed, design.domains_needed_without_sparsity
    (1, 7)
    >>> unmix.plan([[1, 1, 0], [1, 1, 0], [0, 0, 1]], n_domains=2, simulations=0).latents["verdict"].tolist()
    ['block', 'block', 'identified']
    >>> unmix.plan([[1, 0], [1, 0], [0, 1], [0, 1]], n_domains=1, rows=15).latents["expected"].tolist()
    [False, False]
    """
    experiment = Experiment.of(rows, noise, shift, scale)
    whole(0).need("simulations", simulations)
    if names is None and nw.dependencies.is_into_dataframe(support):
        names = [str(name) for name in nw.from_native(support).columns]
    mask = check_support(support)
    n = mask.shape[1]
    words = [f"z{i}" for i in range(n)] if names is None else [str(name) for name in names]
    if len(words) != n or len(set(words)) < n:
        raise SettingError(f"names must be {n} different names, one for each column of the support; got {words}.")
    whole(1).need("n_domains", n_domains)
    used = np.flatnonzero(mask.any(axis=0)).tolist()
    counts = [_unused(name) for name in words]
    remedies: list[Remedy] = []
    needed: int | None = None
    if used:
        part, own_names = mask[:, used], [words[i] for i in used]
        count, routes = domains_needed(part), _Generic(int(n_domains))
        lost = undetermined(part)
        needed = max((int(count.pairs[i].max()) for i in range(len(used)) if i not in lost), default=None)
        independent = np.zeros((len(used), len(used)), dtype=bool)
        for block in blocks(pair_routes(free_sets(part), routes, independent) > 0):
            for i in block:
                counts[used[i]] = _row(own_names, i, block, int(count.pairs[i].max()), i in lost, int(n_domains))
        remedies = find_remedies(part, routes, own_names, independent)
    table = pd.DataFrame(counts).assign(**_simulate(mask, int(n_domains), experiment, int(simulations)))
    rows_for_tests = rows_needed(int(n_domains), n)
    return Plan(table, int(n_domains), needed, 2 * n + 1, remedies, experiment, int(simulations), rows_for_tests)


def _simulate(mask: Bools, n_domains: int, experiment: Experiment, simulations: int) -> dict[str, Any]:
    """Columns of ``Plan.latents`` from simulated experiments."""
    n = mask.shape[1]
    if not simulations:
        return dict.fromkeys(("identified_in", "change_seen_in", "expected"), [None] * n)
    identified, changing = np.zeros(n), np.zeros(n)
    for seed in range(simulations):
        audit = audit_subject(simulated_subject(mask, n_domains, experiment, np.random.default_rng(seed)))
        identified += (audit.latents["verdict"] == "identified").to_numpy()
        seen = audit.finding("C3").evidence.get("changing", [])
        changing += audit.latents["name"].isin(seen).to_numpy()
    share = identified / simulations
    return {"identified_in": share, "change_seen_in": changing / simulations, "expected": share >= EXPECTED}


def simulated_subject(mask: Bools, n_domains: int, experiment: Experiment, rng: np.random.Generator) -> AuditInput:
    """Input of the audit of one simulated experiment: posterior means of its rows under the true linear mixing."""
    d, n = mask.shape
    location = experiment.shift * rng.standard_normal((n_domains, n))
    spread = np.exp(experiment.scale * rng.standard_normal((n_domains, n)))
    weight = mask * rng.choice([-1.0, 1.0], mask.shape) * rng.uniform(*_WEIGHTS, mask.shape)
    variance = (spread**2).mean(axis=0) + location.var(axis=0)
    made = np.sqrt(weight**2 @ variance)
    weight /= np.where(made > 0, made, 1.0)[:, None]
    noise = max(experiment.noise, _LEAST_NOISE)
    # Posterior means under N(middle, variance), as of an encoder without domains, and posterior standard deviations.
    middle, ahead = location.mean(axis=0), variance[:, None] * weight.T
    gain = ahead @ np.linalg.inv(weight @ ahead + noise**2 * np.eye(d))
    left = np.sqrt(np.maximum(variance - (gain * ahead).sum(axis=1), 0.0))

    def draw(size: int) -> tuple[Floats, Floats, Floats, Ints]:
        """Latents, their posterior means with noise and without, and the domain of each row."""
        domain = np.repeat(np.arange(n_domains), size)
        z = location[domain] + spread[domain] * rng.standard_normal((len(domain), n))
        clean = (z - middle) @ weight.T
        noisy = clean + noise * rng.standard_normal(clean.shape)
        return z, middle + noisy @ gain.T, middle + clean @ gain.T, domain

    _, means, _, domain = draw(min(experiment.rows, max(1, _MOST_ROWS // n_domains)))
    z, read, back, strata = draw(int(np.clip(_MOST_ROWS // n_domains, *_SIMULATED)))
    center, unit = means.mean(axis=0), np.maximum(means.std(axis=0), 1e-12)
    latents = (means - center) / unit
    points = latents[evenly(len(latents), _POINTS), None, :]
    precision = (unit / spread) ** 2
    slopes = weight * np.sqrt(variance) / np.sqrt(1.0 + noise**2)
    return AuditInput(
        latents=latents,
        strata=domain,
        domains=tuple(f"domain {u}" for u in range(n_domains)),
        absent=(),
        names=tuple(f"z{i}" for i in range(n)),
        feature_names=tuple(f"x{k}" for k in range(d)),
        jacobian=np.repeat(slopes[None], _POINTS, axis=0),
        starts=np.abs(slopes)[None],
        agreement=np.empty((0, n)),
        width=left / unit,
        slopes=None if n_domains == 1 else ((location - center) / unit - points) * precision,
        curvatures=None if n_domains == 1 else -np.repeat(precision[None], len(points), axis=0),
        simulated=Simulated(z, read, strata, paired_correlation(z, back) ** 2),
    )


def plan_typical(
    density: float, n_latents: int, n_features: int, n_domains: int, *, random_state: RandomLike = 0, **experiment: Any
) -> tuple[Plan, NDArray[np.int64]]:
    """The plan of a typical random support, and the number of domains that each of 100 draws needs (100,).

    ``experiment``: further arguments of ``plan``.

    Every entry is 1 with probability ``density``; every feature depends on a latent, and the features determine the
    latents. Typical is the draw with the median number of domains.

    Raises
    ------
    SettingError
        Sizes, density or seed are out of range, or no drawn support of this density determines the latents.
    """
    sizes = (n_latents, n_features, n_domains)
    if min(sizes) < 1 or n_features < n_latents or not 0 < density <= 1:
        raise SettingError(
            "A plan needs 0 < density ≤ 1, n_latents ≥ 1, n_features ≥ n_latents and n_domains ≥ 1; got density="
            f"{density}, n_latents={n_latents}, n_features={n_features}, n_domains={n_domains}."
        )
    rng = np.random.default_rng(random_seed(random_state))
    design = Design(n_latents, n_features, density=density)
    draws = [draw_support(rng, design, None) for _ in range(_TYPICAL_DRAWS)]
    needs = np.array([needed for _, needed in draws], dtype=np.int64)
    typical = int(np.argsort(needs, kind="stable")[(len(needs) - 1) // 2])
    return plan(draws[typical][0], n_domains, **experiment), needs


def _unused(name: str) -> dict[str, object]:
    reason = "No feature depends on it."
    return {"name": name, "verdict": "unsupported", "block": None, "domains_needed": None, "reason": reason}


def _row(names: list[str], latent: int, block: list[int], needed: int, lost: bool, n_domains: int) -> dict[str, object]:
    others = [names[i] for i in block if i != latent]
    if lost:
        verdict, own, reason = "unsupported", None, "The features do not determine it, whatever the mixing's values."
    elif others:
        verdict, own = "block", [names[i] for i in block]
        reason = f"Not separated from {listed(others)} with {counted(n_domains, 'domain')}."
    else:
        verdict, own, reason = (
            "identified",
            None,
            f"Separated from every other latent; that takes {counted(needed, 'domain')}.",
        )
    return {"name": names[latent], "verdict": verdict, "block": own, "domains_needed": needed, "reason": reason}
