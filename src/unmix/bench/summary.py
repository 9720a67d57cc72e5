"""From rows to tables: means with intervals over seeds, and paired margins of the full method over every other.

Intervals are Student's t over data seeds, 95 %. A margin is paired: the same problem and seed under both methods.
The theory says that neither fact alone is enough where the support needs more than one domain (sparsity alone is given
none) and there are fewer domains than the 2n + 1 that changes alone need; the full method is promised where there are
at least as many as the support needs. Those problems are summarised apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import t as student

FULL = "both"
ABLATIONS = ("both", "changes only", "sparsity only")
REACHED = 0.97
_OF_GOOD = ("domains_needed", "mcc", "low", "high", "worst_mcc")
_SCORES = ("mcc", "mcc_within_domains", "r2", "support_f1", "agreement", "seconds")


def finished(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without an error."""
    return rows[rows["error"].isna()]


def by_setting(rows: pd.DataFrame, axes: Sequence[str], metrics: Iterable[str] = ()) -> pd.DataFrame:
    """One row for each grid point and method: seeds, failures, mean MCC with its interval, other means.

    ``metrics`` are columns of the study's own.
    """
    found = []
    keys = [*axes, "method"]
    for values, own in rows.groupby(keys, sort=False, dropna=False):
        good = finished(own)
        entry = dict(zip(keys, values if isinstance(values, tuple) else (values,), strict=True))
        entry |= {"seeds": len(own), "failed": len(own) - len(good)} | dict.fromkeys(_OF_GOOD, np.nan)
        if len(good):
            if (needed := pd.to_numeric(good["domains_needed"])).notna().any():
                entry["domains_needed"] = needed.median()
            mean, low, high = interval(good["mcc"])
            entry |= {"mcc": mean, "low": max(low, 0.0), "high": min(high, 1.0)}
            entry["worst_mcc"] = good["mcc"].min()
            entry |= {name: pd.to_numeric(good[name]).mean() for name in (*_SCORES[1:], *metrics) if name in good}
        found.append(entry)
    return pd.DataFrame(found).round(4)


def margins(rows: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """MCC of the full method minus that of every other, paired over problems and seeds, over all and where promised."""
    good = finished(rows)
    if good.empty:
        return pd.DataFrame()
    keys = [*axes, "seed"]
    full = good.loc[good["method"] == FULL, [*keys, "mcc"]]
    found = []
    for method, own in good[good["method"] != FULL].groupby("method", sort=False):
        pairs = own.merge(full, on=keys, suffixes=("", "_full"))
        difference = pairs["mcc_full"] - pairs["mcc"]
        for where, values in (("all", difference), ("promised to both alone", difference[promised(pairs)])):
            if len(values):
                mean, low, high = interval(values)
                found.append(
                    {"against": method, "problems": where, "pairs": len(values), "margin": mean, "low": low}
                    | {"high": high, "wins": int((values > 0).sum())}
                )
    return pd.DataFrame(found).round(4)


def time_to_reach(rows: pd.DataFrame, level: float = REACHED) -> pd.DataFrame:
    """For each method the share of runs with an MCC of ``level`` or more, and the seconds that one such run costs.

    Seconds to reach: all seconds spent, divided by the runs that reached it; empty where none did.
    """
    found = []
    for method, own in finished(rows).groupby("method", sort=False):
        reached = int((own["mcc"] >= level).sum())
        entry = {"method": method, "runs": len(own), "reached": reached, "seconds per run": own["seconds"].median()}
        found.append(entry | {"seconds to reach": own["seconds"].sum() / reached if reached else np.nan})
    return pd.DataFrame(found).round(1)


def promised(rows: pd.DataFrame) -> pd.Series:
    """Whether the support needs more than one domain, no more than there are, and there are fewer than 2n + 1.

    Of none where the generator does not say how many domains and latents there are.
    """
    if not {"n_domains", "n_latents"} <= {*rows.columns}:
        return pd.Series(False, index=rows.index)
    rows = rows.assign(domains_needed=pd.to_numeric(rows["domains_needed"]))
    needed, given = rows["domains_needed"], rows["n_domains"]
    return (needed > 1) & (needed <= given) & (given < 2 * rows["n_latents"] + 1)


def interval(values: pd.Series) -> tuple[float, float, float]:
    """Mean and its 95 % interval; NaN bounds for a single value."""
    array = values.to_numpy(dtype=float)
    mean = float(array.mean())
    if len(array) < 2:
        return mean, float("nan"), float("nan")
    half = float(student.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return mean, mean - half, mean + half
