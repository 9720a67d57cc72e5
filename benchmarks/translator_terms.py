"""What do the terms of ImageTranslator contribute? Fits with and without each, with intervals.

    python benchmarks/translators.py --methods "not sharpened" "no flow" "with Jacobian" \\
        --by-content benchmarks/results/translators_by_content.csv
    python benchmarks/translator_terms.py

The second command fits nothing: it prints each method, and its difference to "not sharpened" of the same seed, with
95 % intervals that resample the characters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SUMS = Path("benchmarks/results/translators_by_content.csv")
DRAWS = 2000


def compared(rows: pd.DataFrame, unseen: bool = False) -> pd.DataFrame:
    """Each method, and its difference to its base with the same seed, with 95 % intervals that resample what is shown.

    The base is "not sharpened", and of methods with back-translation beside something else "with back-translation".
    Only fits that the same judges read are compared; without such a fit of the base a method is left out.
    Of several seeds the means: a resample takes the same characters in each.
    """
    rows = rows[rows["unseen"] == unseen]
    found = []
    names = ["data", "method", "steps", "channels", "judges"]
    for key, own in rows.groupby(names, sort=False):
        data, method, *sizes, judges = key
        base = "with back-translation" if method.endswith(", back-translation") else "not sharpened"
        other = rows[(rows[names] == [data, base, *sizes, judges]).all(axis=1)]
        seeds = sorted(set(own["seed"]) & set(other["seed"]) if method != base else set(own["seed"]))
        if not seeds:
            continue
        for seed in seeds if len(seeds) == 1 else [*seeds, "mean"]:
            chosen = seeds if seed == "mean" else [seed]
            drawn = _resampled(own[own["seed"].isin(chosen)])
            row: dict[str, Any] = {"data": data, "judges": judges, "method": method, "seed": seed}
            row |= {name: _said(values) for name, values in drawn.items()}
            if method != base and chosen:
                against = _resampled(other[other["seed"].isin(chosen)])
                row |= {f"{name}_difference": _said(drawn[name] - against[name]) for name in drawn}
            found.append(row)
    return pd.DataFrame(found)


def _resampled(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """The measures, first of all that is shown, then of resamples; means over seeds."""
    shown = sorted(set(rows["shown"]))
    rng = np.random.default_rng(0)
    counts = [np.ones(len(shown)), *rng.multinomial(len(shown), np.full(len(shown), 1 / len(shown)), DRAWS)]
    measures: dict[str, list[np.ndarray]] = {"rmse": [], "content": [], "style": []}
    for _, own in rows.groupby("seed"):
        table = own.set_index("shown").reindex(shown)
        n = np.array(counts) @ table["n"].to_numpy()
        for name, parts in measures.items():
            mean = np.array(counts) @ table["error" if name == "rmse" else name].to_numpy() / n
            parts.append(np.sqrt(mean) if name == "rmse" else mean)
    return {name: np.mean(parts, axis=0) for name, parts in measures.items()}


def _said(values: np.ndarray) -> str:
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return f"{values[0]:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    rows = pd.read_csv(SUMS)
    for unseen in (False, True):
        print("characters that training lacks" if unseen else "characters in training")
        print(compared(rows, unseen).to_string(index=False))


if __name__ == "__main__":
    main()
