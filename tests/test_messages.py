"""Bad data: each has its own message, before training starts."""

import numpy as np
import pandas as pd
import pytest
from conftest import QUICK

from unmix import CGVAE
from unmix.errors import DataError, DomainError, SchemaError


def refuse(error, message, x, y=None, **settings):
    with pytest.raises(error, match=message):
        CGVAE(**{**QUICK, **settings}).fit(x, y)


def test_tables_that_cannot_be_learnt_from(frame, labels, tmp_path):
    spoilt = frame.copy()
    spoilt.loc[4, "x1"] = np.nan
    refuse(DataError, r"1 missing value \(NaN\).*row 4 column 'x1'.*missing=\"mask\"", spoilt, labels)
    spoilt.loc[4, "x1"] = np.inf
    refuse(DataError, r"1 infinite value \(inf\) in 1 column: row 4 column 'x1'", spoilt, labels)
    refuse(DataError, "infinite value", spoilt, labels, missing="mask")
    refuse(DataError, "'x2' are constant", frame.assign(x2=3.0), labels)
    refuse(DataError, "'x2' hold no value", frame.assign(x2=np.nan), labels, missing="mask")
    repeated = frame.set_axis(["x0", "x0", "b", "c", "d"], axis=1)
    refuse(DataError, "must be unique, and these are not: 'x0'", repeated, labels)
    refuse(DataError, "'name' are not numeric", frame.assign(name="cell"), labels)
    refuse(DataError, r"0 sample\(s\)", frame.iloc[:0], labels[:0])
    refuse(DataError, r"0 feature\(s\)", frame[[]].to_numpy(), labels)
    refuse(DataError, "1 sample", frame.iloc[:1], labels[:1])
    refuse(DataError, "2D array", frame["x0"].to_numpy(), labels)
    refuse(DataError, "n_latents = 6 is more than n_features = 5", frame, labels, n_latents=6)
    refuse(DataError, "no file at", tmp_path / "none.csv")
    (tmp_path / "a.txt").write_text("x")
    refuse(DataError, r"ending '.txt'", tmp_path / "a.txt")
    (tmp_path / "a.csv").write_text("x,y\n")
    refuse(DataError, "no rows", tmp_path / "a.csv")
    (tmp_path / "a.parquet").write_text("not parquet")
    refuse(DataError, "could not be read", tmp_path / "a.parquet")
    refuse(DataError, "no column 'site'", frame, "site")
    refuse(DataError, "an array without column names", frame.to_numpy(), "site")


def test_domains_that_cannot_be_used(frame, labels):
    refuse(DomainError, "X has 600 rows, the domains have 10", frame, labels[:10])
    rare = labels.astype(object)
    rare[:3] = "d"
    refuse(DomainError, r"fewer than 10 rows: 'd' \(3\).*min_domain_rows", frame, rare)
    holes = labels.astype(object)
    holes[5] = None
    refuse(DomainError, r"missing values \(NaN\), first in rows \[5\]", frame, holes)
    quantity = np.linspace(0, 1, 600)
    refuse(DomainError, "600 different numbers: labels or a quantity", frame, quantity)
    refuse(DomainError, "different numbers", frame, np.arange(600))
    table = pd.DataFrame({"site": labels, "dose": quantity})
    refuse(DomainError, r"auxiliary declares \['age'\]", frame, table, auxiliary={"age": "continuous"})
    refuse(DomainError, 'expected "categorical"', frame, table, auxiliary={"dose": "real"})
    refuse(DomainError, "not a categorical domain column", frame, table, auxiliary={"dose": "within region"})
    refuse(
        DomainError,
        "declared continuous but holds text",
        frame,
        table,
        auxiliary={"site": "continuous", "dose": "continuous"},
    )
    constant = table.assign(dose=1.5)
    refuse(DomainError, "is constant", frame, constant, auxiliary={"dose": "continuous"})
    infinite = table.assign(dose=np.inf)
    refuse(DomainError, "infinite", frame, infinite, auxiliary={"dose": "continuous"})


def test_new_data_that_do_not_fit(fitted, frame, labels):
    with pytest.raises(SchemaError, match=r"same order as they were in fit(.|\n)*fitted on the columns \['x0'"):
        fitted.transform(frame[frame.columns[::-1]])
    with pytest.raises(SchemaError, match=r"x4(.|\n)*select them from the table first"):
        fitted.transform(frame.drop(columns="x4"))
    with pytest.raises(SchemaError, match="unseen at fit time"):
        fitted.transform(frame.rename(columns={"x0": "y0"}))
    with pytest.raises(SchemaError, match=r"latents of shape \(n_samples, 2\)"):
        fitted.inverse_transform(np.zeros((3, 5)))
    with pytest.raises(DomainError, match=r"Labels \['z'\] of 'domain' were not seen at fit. Known: 'a', 'b', 'c'"):
        fitted.score(frame, np.where(labels == "a", "z", labels))
    with pytest.raises(DomainError, match="not seen at fit"):
        fitted.sample(2, domain="z")
    with pytest.raises(DomainError, match="pass them as y"):
        fitted.score(frame)
    with pytest.raises(DataError, match=r"Say which domain: one of \['a', 'b', 'c'\]"):
        fitted.sample(2)
    with pytest.raises(DataError, match="missing values"):
        fitted.transform(frame.where(frame > -1))
