"""Write ``docs/results.md`` from the tables in ``benchmarks/results/``.

python benchmarks/summarise.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results"
PROBLEM = ["n_latents", "n_features", "n_domains", "density"]
FIRST = "both"


def main() -> None:
    recovery = pd.read_csv(RESULTS / "recovery.csv")
    parts = [
        "# Results\n\nWritten by `python benchmarks/summarise.py` from the tables in `benchmarks/results/`.\n",
        "## Generated problems\n\n"
        "`python benchmarks/recovery.py`: 8,000 rows, changes of mean and scale, supports that need no more "
        "domains than there are, default settings, chosen start. MCC against the true latents, mean over data seeds.\n",
        _summary(recovery),
        "\nEvery fit:\n",
        _table(recovery.drop(columns=["n_latents", "n_features", "density"])),
    ]
    sachs = RESULTS / "sachs.csv"
    if sachs.exists():
        parts += [
            "\n## Sachs protein signalling\n\n"
            "`python benchmarks/sachs.py`: four latents, nine conditions. `agreement`: mean over all pairs of starts, "
            "held out; `targets_hit`: interventions that move the latent which drives their target most, of seven "
            "(chance: 1 in 4 each).\n",
            _table(pd.read_csv(sachs)),
        ]
    (ROOT / "docs/results.md").write_text("\n".join(parts) + "\n", encoding="utf-8")


def _summary(recovery: pd.DataFrame) -> str:
    rows = []
    for problem, own in recovery.groupby(PROBLEM):
        reference = own[own["method"] == FIRST].set_index("seed")["mcc"]
        for method, fits in own.groupby("method"):
            margin = (reference - fits.set_index("seed")["mcc"]).dropna()
            error = margin.std(ddof=1) / np.sqrt(len(margin)) if len(margin) > 1 else np.nan
            rows.append(
                {
                    **dict(zip(PROBLEM, problem, strict=True)),
                    "method": method,
                    "seeds": len(fits),
                    "MCC": round(fits["mcc"].mean(), 4),
                    "worst MCC": fits["mcc"].min(),
                    "both minus this": "" if method == FIRST else f"{margin.mean():.4f} ± {error:.4f} (s.e.)",
                    "support F1": round(fits["support_f1"].mean(), 3),
                    "seconds": round(fits["seconds"].mean()),
                    "threads": int(fits["threads"].max()),
                }
            )
    return _table(pd.DataFrame(rows))


def _table(frame: pd.DataFrame) -> str:
    head = ["| " + " | ".join(map(str, frame.columns)) + " |", "|" + "---|" * frame.shape[1]]
    return "\n".join(head + ["| " + " | ".join(map(str, row)) + " |" for row in frame.astype(object).to_numpy()])


if __name__ == "__main__":
    main()
