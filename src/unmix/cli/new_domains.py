"""The command ``unmix adapt``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import typer

from unmix.cli.runs import beside_features, claim, read_for_model, write_results
from unmix.errors import SchemaError, SettingError, StorageError
from unmix.estimators.base import LatentEstimator
from unmix.estimators.loading import load


def adapt_run(run: Path, table: Path, domain: Sequence[str], out: Path, *, overwrite: bool, device: str) -> None:
    """Adapt the model of a run to the domains of a file's rows, and write it as a new run."""
    if out.resolve() == run.resolve():
        raise StorageError(f"{out} holds the run to adapt, which is not changed. Choose another --out.")
    claim(out, overwrite=overwrite, resume=False)
    model = load(run, device=device)
    if not isinstance(model, LatentEstimator):
        raise StorageError(
            f"{run} holds a {type(model).__name__}, which has no prior for each domain. Fit CGVAE on a table."
        )
    frame, x = read_for_model(model, run, table)
    names = [column.name for column in model.domain_schema_.columns]
    labels = _labels(frame, domain or names, names, table)
    rows = x if model.schema_.named else x.to_numpy()
    wider = model.adapt(rows, domain=labels)
    write_results(wider, rows, out, beside=beside_features(frame, x))
    found = wider.effects_frame()
    known = {*model.domains_}
    typer.echo(f"\nnew     {', '.join(wider.domains_[len(known) :]) or 'none; a range was widened'}")
    # No start but the kept one is adapted, so that new domains have no range over starts.
    typer.echo(found[~found["domain"].isin(known)].dropna(axis=1, how="all").round(3).to_string(index=False))


def _labels(frame: pd.DataFrame, given: Sequence[str], names: Sequence[str], table: Path) -> pd.DataFrame:
    """The model's domain columns for every row: those of the file, or COLUMN=VALUE for all rows."""
    found: dict[str, object] = {}
    for item in given:
        column, separator, value = item.partition("=")
        if item in frame.columns:
            found[item] = frame[item].to_numpy()
        elif separator:
            found[column] = [value] * len(frame)
        else:
            raise SchemaError(
                f"{table} has no column {item!r}. Name the columns that hold the domain, or give a value: {item}=VALUE."
            )
    if unknown := sorted(set(found) - set(names)):
        raise SettingError(f"--domain names {unknown}; the model was fitted with {list(names)}. Correct the names.")
    lacking = [name for name in names if name not in found]
    for name in [name for name in lacking if name in frame.columns]:
        found[name] = frame[name].to_numpy()
    if lacking := [name for name in names if name not in found]:
        raise SettingError(f"The model was fitted with the domain columns {lacking} too. Add --domain {lacking[0]}.")
    return pd.DataFrame({name: found[name] for name in names})
