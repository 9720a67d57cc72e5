"""The sections of ``docs/results.md`` on real tables, from the rows of ``real.py``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from unmix.bench.run import ROWS, read_rows

LINEAR = (
    "PCA",
    "PCA + varimax",
    "FactorAnalysis",
    "FactorAnalysis + varimax",
    "FastICA",
    "joint diagonalization",
    "NMF",
)
ON_ALL_TABLES = tuple(method for method in LINEAR if method != "NMF")
BY_METHOD_WORDS = (
    "All tables of the four sections above, each weighing the same (two numbers of latents of the light "
    "tunnel are averaged). “Better, worse”: on how many tables unmix is more than 0.02 above or below the method. “As "
    "good as the best”: on how many of the tables with known factors a method is at most 0.02 below the best of the "
    "six linear ones, which is another one on each table, and nothing in a table says which. NMF takes only some of "
    "the tables."
)
REAL_WORDS = (
    "`python benchmarks/real.py`: default settings, the same held-out fifth of every domain for all methods. Variance: "
    "share explained on held-out rows. Seeds and halves: rank correlation of matched latents between several seeds, "
    "and between fits to halves of the rows. Factors: known factors, each by its best single latent (rank correlation, "
    "or AUROC), mean over factors, beside the best linear method on that table. All numbers are in "
    "`benchmarks/results/real/summary.md`. The training schedule was chosen on kang pbmc, light tunnel and parkinson "
    "voice, the choice of the start also on olive and weather, and when to return the linear model on all of them "
    "(`docs/select.md`). Sensors 128 and light tunnel model are simulated. Three seeds of unmix, five of the others; "
    "halves: mean of three pairs."
)
FURTHER_WORDS = (
    "`python benchmarks/real.py` on twelve tables that packages of R carry, chosen for sizes and domains; as many "
    "latents as the correlation matrix has eigenvalues above 1. Three seeds; halves: mean of three pairs (methods that "
    "are not in the table below: two seeds, one pair). All numbers are in "
    "`benchmarks/results/real_further/summary.md`. These tables had some influence: on cirrhosis the first fits of two "
    "seeds differed in whether they returned the linear model, so that the data alone decide that now; what short "
    "fits leave on these tables was in view when the limit for that was set; and fast food and mail showed that rows "
    "far out counted for too much. Two more tables, of 49 and 56 features, were left out because of the time they "
    "take."
)
FRESH_WORDS = (
    "`python benchmarks/real.py` on sixteen more tables from packages of R, chosen in the same way before any of them "
    "was fitted. They had influence too: halves of bodies, crime and moss showed that networks whose starts find other "
    "latents should give way to the linear model, and its penalty was chosen on these and the tables above. Three "
    "seeds; halves: mean of three pairs. All numbers are in `benchmarks/results/real_fresh/summary.md`."
)
UNSEEN_WORDS = (
    "`python benchmarks/real.py` on six tables from packages of R, chosen in the same way and fitted after all choices "
    "had been made but one: the linear model is fitted to all rows since one of nine tenths of them kept less variance "
    "of roads than PCA (0.823 instead of 0.842), as of colleges and midwest. Three seeds; halves: mean of three pairs. "
    "All numbers are in `benchmarks/results/real_unseen/summary.md`."
)
SECTIONS = {
    "real": ("Real tables", REAL_WORDS),
    "real_further": ("Further real tables", FURTHER_WORDS),
    "real_fresh": ("Fresh real tables", FRESH_WORDS),
    "real_unseen": ("Unseen real tables", UNSEEN_WORDS),
}


def real_sections(results: Path) -> list[tuple[str, str, pd.DataFrame]]:
    """Title, words and table of each section; ``results`` has the folders of rows."""
    found = [(title, words, _tables(results / name)) for name, (title, words) in SECTIONS.items()]
    return [
        *found,
        ("Real tables, method by method", BY_METHOD_WORDS, _by_method([results / name for name in SECTIONS])),
    ]


def _measured(folder: Path) -> pd.DataFrame:
    """Rows of ``real.py`` without errors; of what was measured again the last. ``known``: mean over known factors."""
    rows = pd.DataFrame(list(read_rows(folder / ROWS).values()))
    rows = rows.drop_duplicates(["table", "n_latents", "method", "seed", "part"], keep="last")
    rows = rows[rows["error"].isna() & (rows["n_latents"] > 0)]
    found = rows["factors"].map(lambda own: [one["value"] for one in own.values()] if isinstance(own, dict) else [])
    known = found.map(lambda values: np.mean(values) if values else np.nan)
    fitted = rows[rows["method"] == "CGVAE"]["table"].unique()
    return rows.assign(known=known)[rows["table"].isin(fitted)]


def _tables(folder: Path) -> pd.DataFrame:
    """One row a table and number of latents: CG-VAE beside linear methods."""
    found = []
    for (name, n_latents), own in _measured(folder).groupby(["table", "n_latents"]):

        def mean(part: str, column: str, method: str, own: pd.DataFrame = own) -> float:
            return float(own[(own["part"] == part) & (own["method"] == method)][column].mean())

        scores = {method: mean("fit", "known", method) for method in ("CGVAE", *LINEAR)}
        best = max(LINEAR, key=lambda method: scores[method] if scores[method] == scores[method] else -1.0)
        found.append(
            {
                "table": name.replace("_", " "),
                "latents": n_latents,
                "variance: PCA / unmix": _pair(mean("fit", "variance", "PCA"), mean("fit", "variance", "CGVAE")),
                "seeds: FastICA / unmix": _pair(*(mean("seeds", "agreement", m) for m in ("FastICA", "CGVAE"))),
                "halves: FastICA / unmix": _pair(*(mean("halves", "agreement", m) for m in ("FastICA", "CGVAE"))),
                "factors: best linear / unmix": "none known"
                if np.isnan(scores["CGVAE"])
                else f"{_pair(scores[best], scores['CGVAE'])} ({best})",
            }
        )
    return pd.DataFrame(found)


def _by_method(folders: Sequence[Path]) -> pd.DataFrame:
    """Means over all tables, and CG-VAE minus each linear method, paired over tables, with 95 % intervals."""
    rows = pd.concat([_measured(folder) for folder in folders])
    means = {
        "known factors": rows[rows["part"] == "fit"].pivot_table(index="table", columns="method", values="known"),
        "halves": rows[rows["part"] == "halves"].pivot_table(index="table", columns="method", values="agreement"),
    }
    known = means["known factors"][["CGVAE", *ON_ALL_TABLES]].dropna()
    best = known[[*ON_ALL_TABLES]].max(axis=1)
    found = []
    for method in ("CGVAE", *ON_ALL_TABLES):
        row: dict[str, object] = {"method": method}
        for name, table in means.items():
            table = table[["CGVAE", *ON_ALL_TABLES]].dropna()
            gain = table["CGVAE"] - table[method]
            half = stats.t.ppf(0.975, len(gain) - 1) * gain.sem()
            interval = f"{gain.mean():+.3f} [{gain.mean() - half:+.3f}, {gain.mean() + half:+.3f}]"
            counts = f"{(gain > 0.02).sum()}, {(gain < -0.02).sum()}"
            row[f"{name}, {len(table)} tables"] = f"{table[method].mean():.3f}"
            row[f"{name}: unmix minus method"], row[f"{name}: better, worse"] = (
                ("", "") if method == "CGVAE" else (interval, counts)
            )
        row["known factors: as good as the best"] = (known[method] >= best - 0.02).sum()
        found.append(row)
    return pd.DataFrame(found)


def _pair(first: float, second: float) -> str:
    return f"{first:.3f} / {second:.3f}"
