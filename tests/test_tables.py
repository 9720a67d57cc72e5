"""Tables in and out: row k stays row k, a column stays its own, a cell means what was written."""

import datetime
import decimal
import gzip
import io

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import QUICK
from typer.testing import CliRunner

import unmix
from unmix import CGGAN, CGVAE, DataWarning
from unmix.cli import app
from unmix.data.batches import split_rows
from unmix.data.delimited import read_delimited
from unmix.data.matrix import check_trainable, numeric_matrix
from unmix.data.tables import candidates, csv_text, read_columns, read_table, with_latents, write_table
from unmix.errors import DataError, SchemaError
from unmix.estimators.prepare import prepare
from unmix.labels import labels_frame

N = 60
INDICES = {
    "counted": pd.RangeIndex(N),
    "shuffled": pd.Index(np.random.default_rng(0).permutation(N)),
    "from 1": pd.RangeIndex(1, N + 1),
    "backwards": pd.RangeIndex(N - 1, -1, -1),
    "texts": pd.Index([f"cell {k}" for k in range(N)]),
    "repeated": pd.Index([7] * N),
    "halves": pd.Index(np.arange(N) / 2),
    "dates": pd.date_range("2020-01-01", periods=N, name="day"),
    "named": pd.Index([f"00{k}" for k in range(N)], name="cell"),
    "two levels": pd.MultiIndex.from_product([range(6), list("abcdefghij")], names=["plate", "well"]),
    "no names": pd.MultiIndex.from_product([range(6), list("abcdefghij")]),
}
SHORT = {**QUICK, "n_restarts": 1, "max_epochs": 1, "hidden": (4,), "min_domain_rows": 1}
FORMATS = ("parquet", "csv", "csv.gz", "tsv", "tsv.gz")


def cli(*words):
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def write(table, path):
    if path.suffix == ".parquet":
        return table.to_parquet(path)
    return table.to_csv(path, sep="\t" if ".tsv" in path.name else ",")


@pytest.fixture(scope="module")
def run(fitted, tmp_path_factory):
    return fitted.save(tmp_path_factory.mktemp("run") / "model")


@pytest.fixture
def rows(frame, labels):
    return frame[:N].assign(domain=labels[:N], place=[f"row {k}" for k in range(N)])


@pytest.fixture
def no_report(monkeypatch):
    monkeypatch.setattr(CGVAE, "report", lambda self, path: path.write_text(""))


@pytest.mark.filterwarnings("ignore:The first column of:unmix.DataWarning")
@pytest.mark.parametrize(
    ("index", "kind"),
    [(index, kind) for index in INDICES for kind in FORMATS[:2]] + [("repeated", kind) for kind in FORMATS[2:]],
)
def test_transform_writes_every_row_in_its_place(index, kind, run, rows, fitted, tmp_path):
    expected = fitted.transform(rows[list(fitted.schema_.names)])
    write(rows.set_index(INDICES[index]), tmp_path / f"t.{kind}")
    cli("transform", run, tmp_path / f"t.{kind}", "--out", tmp_path / "z.csv")
    cli("transform", run, tmp_path / f"t.{kind}", "--out", tmp_path / "z.parquet")
    for z in (pd.read_csv(tmp_path / "z.csv"), pd.read_parquet(tmp_path / "z.parquet")):
        assert z["place"].tolist() == rows["place"].tolist()
        np.testing.assert_allclose(z[["z0", "z1"]], expected, rtol=1e-4, atol=1e-5)
        names = [name for name in z.columns if name not in ("domain", "place", "z0", "z1")]
        assert len(names) == INDICES[index].nlevels - (index == "counted" and kind == "parquet")
        assert all(name in names for name in INDICES[index].names if name is not None)
    if index in ("named", "texts"):
        assert pd.read_csv(tmp_path / "z.csv", dtype=str)[names[0]].tolist() == INDICES[index].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("index", ["shuffled", "from 1", "texts", "repeated", "two levels", "named"])
def test_fit_writes_every_row_in_its_place(index, rows, no_report, tmp_path):
    write(rows.set_index(INDICES[index]), tmp_path / "t.parquet")
    words = ["--domain", "domain", "--drop", "place", "--latents", 2, "--restarts", 1, "--epochs", 1, "--verbose", 0]
    cli("fit", tmp_path / "t.parquet", *words, "--min-domain-rows", 1, "--out", tmp_path / "r")
    z = pd.read_csv(tmp_path / "r" / "latents.csv")
    assert z["place"].tolist() == rows["place"].tolist()
    model = unmix.load(tmp_path / "r")
    assert list(model.feature_names_in_) == list(rows.columns[:5])
    np.testing.assert_allclose(z[["z0", "z1"]], model.transform(rows[[*model.feature_names_in_]]), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_index_may_be_the_domain(rows, no_report, tmp_path):
    rows.drop(columns="place").set_index("domain").to_parquet(tmp_path / "t.parquet")
    words = ["--latents", 2, "--restarts", 1, "--epochs", 1, "--verbose", 0, "--min-domain-rows", 1]
    cli("fit", tmp_path / "t.parquet", "--domain", "domain", *words, "--out", tmp_path / "r")
    assert unmix.load(tmp_path / "r").domains_ == ("a", "b", "c")
    found = CGVAE(**SHORT).fit(tmp_path / "t.parquet", "domain")
    assert found.domains_ == ("a", "b", "c")


@pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning")
def test_observations_keep_their_rows(run, rows, fitted, tmp_path):
    cells = anndata.AnnData(
        rows[list(fitted.schema_.names)].to_numpy(), obs=rows[["domain", "place"]].set_axis(["c"] * N)
    )
    cells.var_names = list(fitted.schema_.names)
    cells.write_h5ad(tmp_path / "t.h5ad")
    cli("transform", run, tmp_path / "t.h5ad", "--out", tmp_path / "z.csv")
    z = pd.read_csv(tmp_path / "z.csv")
    assert z["place"].tolist() == rows["place"].tolist()
    np.testing.assert_allclose(
        z[["z0", "z1"]], fitted.transform(rows[list(fitted.schema_.names)]), rtol=1e-4, atol=1e-5
    )


def test_latents_stand_beside_any_table():
    z = np.arange(6.0).reshape(3, 2)
    for index in ([5, 5, 5], [2, 0, 1], list("abc"), pd.MultiIndex.from_tuples([(0, 1), (0, 1), (1, 1)])):
        found = with_latents(pd.DataFrame({"a": [1, 2, 3]}, index=index), z, ["z0", "z1"])
        assert found.to_dict("list") == {"a": [1, 2, 3], "z0": [0.0, 2.0, 4.0], "z1": [1.0, 3.0, 5.0]}


def test_columns_that_come_along_stay_as_they_were_written(run, rows, tmp_path):
    words = {
        "zip": ["01234", "1234", "1e3", "", "NA"],
        "price": ["1.10", "2.00", "3", "", "None"],
        "count": ["1", "22", "333", "", "-4"],
        "value": ["1.5", "-2.25", "1e-07", "", "0.1"],
        "quoted": ["a,b", 'say "hi"', "two\nlines", "", " x "],
    }
    table = rows[:5].drop(columns="place").assign(**words)
    table.to_csv(tmp_path / "t.csv", index=False)
    cli("transform", run, tmp_path / "t.csv", "--out", tmp_path / "z.csv")
    found = pd.read_csv(tmp_path / "z.csv", dtype=str, keep_default_na=False)
    assert {name: found[name].tolist() for name in words} == words
    cli("transform", run, tmp_path / "t.csv", "--out", tmp_path / "z.parquet")
    typed = pd.read_parquet(tmp_path / "z.parquet")
    assert typed["zip"].tolist() == ["01234", "1234", "1e3", None, "NA"]
    assert typed["count"].dtype == "Int64"
    assert typed["value"].dtype == float


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS[1:])
def test_labels_of_a_file_are_read_as_written(kind, frame, tmp_path):
    words = ["001", "01", "1E2", "100", "1", "1.0", "NA", "None", "null", "nan", "True", "a,b", " x", "é", "-"]
    table = frame.assign(domain=np.array(words)[np.arange(600) % len(words)])
    table.to_csv(tmp_path / f"t.{kind}", sep="\t" if "tsv" in kind else ",", index=False)
    assert set(CGVAE(**SHORT).fit(tmp_path / f"t.{kind}", "domain").domains_) == set(words)
    holes = table.assign(domain=table["domain"].where(np.arange(600) != 7, ""))
    holes.to_csv(tmp_path / f"h.{kind}", sep="\t" if "tsv" in kind else ",", index=False)
    with pytest.raises(DataError, match=r"'domain' has missing values \(NaN\), first in rows \[7\]"):
        CGVAE(**SHORT).fit(tmp_path / f"h.{kind}", "domain")


def test_a_file_in_its_three_parts(tmp_path):
    (tmp_path / "t.csv").write_text("id,a,b,site\n01,1,2,001\n02,3,4,01\n03,5,6,1\n")
    x, y, others = read_columns(tmp_path / "t.csv", ["site"], drop=["id"])
    assert x.to_dict("list") == {"a": [1.0, 3.0, 5.0], "b": [2.0, 4.0, 6.0]}
    assert y.to_dict("list") == {"site": ["001", "01", "1"]}
    assert others.to_dict("list") == {"id": ["01", "02", "03"], "site": ["001", "01", "1"]}
    x, y, others = read_columns(tmp_path / "t.csv", [], ["b"])
    assert (list(x), y, others["a"].tolist()) == (["b"], None, [1, 3, 5])
    with pytest.raises(DataError, match=r"There is no column 'c'. The table has: 'id', 'a', 'b', 'site'"):
        read_columns(tmp_path / "t.csv", ["c"])
    with pytest.raises(DataError, match="No feature column is left"):
        read_columns(tmp_path / "t.csv", ["site"], drop=["id", "a", "b"])


def read(content, tmp_path, name="t.csv", **words):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(tmp_path / name, **words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2,x\n3,4,y\n", "Line 2 of .* has 3 cells; the header has 2 names. Every line has one cell more"),
        ("a,b,c\n1,2\n3,4\n", "Line 2 of .* has 2 cells; the header has 3 names. So has every line: a column lacks"),
        ("a,b\n1,2\n3,4,5\n", "Line 3 of .* has 3 cells; the header has 2 names. Correct these lines; a text with"),
        ("a,b\n1,2,9\n3,4\n", "Line 2 of .* has 3 cells"),
        ("a,b\n1,2\n\n3\n", "Line 4 of .* has 1 cells"),
        ("a,b\n1,2,\n3,4,\n", "Every line but the header ends in a separator"),
        ("a,,b\n1,2,3\n", "Column 2 of .*, counted from 1, has no name"),
        ("a,b, \n1,2,3\n", "Column 3 of .*, counted from 1, has no name"),
        ("a,a\n1,2\n", "Column names must be unique, and these are not: 'a'"),
        ("\ufeffa,b,a\n1,2,3\n", "Column names must be unique, and these are not: 'a'"),
        ("1.5,2.5,0.5\n1,2,3\n", r"There is no header: the first line is '1.5', '2.5', '0.5'"),
        ("5,3,5\n1,2,3\n", "There is no header"),
        ("a;b\n1,5;2\n", "looks separated by ';', which t.csv should not be"),
        ("a\tb\n1\t2\n", r"looks separated by '\\t'"),
        ("", "t.csv is empty. Expected a header and rows"),
        ("\n\n", "t.csv is empty"),
        ("a,b\n", "has a header but no rows"),
        ("a,b\né,2\n".encode("latin-1"), "t.csv is not UTF-8; it may be Latin-1"),
        ("é,b\n1,2\n".encode("latin-1"), "t.csv is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "t.csv is not UTF-8; it may be UTF-16"),
    ],
)
def test_files_that_cannot_be_what_was_meant(text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read(text, tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2\n3,4\n", {"a": [1.0, 3.0], "b": [2.0, 4.0]}),
        ("\ufeffa,b\r\n1,2\r\n3,4", {"a": [1.0, 3.0], "b": [2.0, 4.0]}),
        ('"a","b"\n"1","2"\n3,4\n', {"a": [1.0, 3.0], "b": [2.0, 4.0]}),
        ("\na,b\n\n1,2\n\n3,4\n\n", {"a": [1.0, 3.0], "b": [2.0, 4.0]}),
        ("a,b\n 1, +2\n3 ,.4e1\n", {"a": [1.0, 3.0], "b": [2.0, 4.0]}),
        ("0,1\n1,2\n3,4\n", {"0": [1.0, 3.0], "1": [2.0, 4.0]}),
        ("1,0\n1,2\n3,4\n", {"1": [1.0, 3.0], "0": [2.0, 4.0]}),
        ("400.5,401,402,410\n1,2,3,4\n", {"400.5": [1.0], "401": [2.0], "402": [3.0], "410": [4.0]}),
        ("a,b\n0.1,1e400\n123456789.123456789,-inf\n", {"a": [0.1, 123456789.123456789], "b": [np.inf, -np.inf]}),
        ("a,b\nTrue,x\nfalse,001\n", {"a": [True, False], "b": ["x", "001"]}),
        ("a,b\n1_0,2\n20,3\n", {"a": ["1_0", "20"], "b": [2.0, 3.0]}),
    ],
)
def test_cells_of_a_file(text, expected, tmp_path):
    found = read(text, tmp_path)
    assert {name: found[name].tolist() for name in found} == expected
    packed = gzip.compress(text.encode())
    assert {name: column.tolist() for name, column in read(packed, tmp_path, "t.csv.gz").items()} == expected
    tabbed = text.replace(",", "\t")
    assert {name: column.tolist() for name, column in read(tabbed, tmp_path, "t.tsv").items()} == expected


def test_missing_numbers_of_a_file(tmp_path):
    found = read("a,b\nNA,1\n,2\nnull,3\n4,NaN\n", tmp_path)
    np.testing.assert_array_equal(found["a"], [np.nan, np.nan, np.nan, 4.0])
    np.testing.assert_array_equal(found["b"], [1.0, 2.0, 3.0, np.nan])
    assert read("a,b\nNA,1\n,2\n", tmp_path, text=["a"])["a"].tolist() == ["NA", None]


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (",a,b\n0,1,2\n1,3,4\n", "row", "The first column of t.csv has no name"),
        ("Unnamed: 0,a,b\n0,1,2\n1,3,4\n", "row", "Column 'Unnamed: 0' of t.csv is a saved index"),
        (",Unnamed: 0,a,b\n0,0,1,2\n1,1,3,4\n", "row", "The first column of t.csv has no name"),
        (",,a,b\n0,x,1,2\n1,y,3,4\n", "row0", "The first column of t.csv has no name"),
        ("a,b,__index_level_0__\n1,2,0\n3,4,1\n", "__index_level_0__", "'__index_level_0__' of t.csv is a saved index"),
        (",row,a,b\n0,9,1,2\n1,9,3,4\n", "Unnamed: 0", "The first column of t.csv has no name"),
    ],
)
def test_a_saved_index_is_no_feature(text, name, said, tmp_path):
    found = read(text, tmp_path)
    with pytest.warns(DataWarning, match=said):
        assert [column for column in candidates(found) if column != "row"] == ["a", "b"]
    assert found[name].tolist() == [0, 1]
    assert found[["a", "b"]].to_numpy().tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_columns_without_name_and_value_are_left_out(tmp_path):
    found = read("a,b,,\n1,2,,\n3,4,,\n", tmp_path)
    assert list(found) == ["a", "b"]
    with pytest.warns(DataWarning, match=r"without a name and without a value \(2\); they are left out"):
        assert candidates(found) == ["a", "b"]


def test_a_saved_index_in_parquet(tmp_path):
    table = pd.DataFrame({"__index_level_0__": [3, 4], "a": [1.0, 2.0]})
    table.to_parquet(tmp_path / "t.parquet")
    with pytest.warns(DataWarning, match="'__index_level_0__' of t.parquet is a saved index"):
        assert candidates(read_table(tmp_path / "t.parquet")) == ["a"]
    table[:0].to_parquet(tmp_path / "e.parquet")
    with pytest.raises(DataError, match="has a header but no rows"):
        read_table(tmp_path / "e.parquet")


def test_a_text_that_would_run_is_quoted_and_a_number_is_not(tmp_path):
    risky = ["=1+1", "+cmd", "-x", "@sum", "\tx", "\rx", "-1 day", "+49 30", "-", "=5", "-1,5"]
    plain = ["-1", "+1", "-.5e-3", "-inf", "1-1", "a=b", "'=x", " =1", "", None, "x"]
    table = pd.DataFrame({"=name": risky, "plain": plain, "number": -np.arange(11.0), "@obj": [-1, 2.5, *risky[:9]]})
    table["kind"] = pd.Categorical(risky)
    table["gap"] = pd.to_timedelta(-np.arange(1, 12), unit="h")
    write_table(table, tmp_path / "t.csv")
    for file in (tmp_path / "t.csv", io.StringIO(csv_text(table), newline="")):
        found = pd.read_csv(file, dtype=str, keep_default_na=False)
        assert list(found) == ["'=name", "plain", "number", "'@obj", "kind", "gap"]
        assert found["'=name"].tolist() == found["kind"].tolist() == [f"'{word}" for word in risky]
        assert found["plain"].tolist() == [word or "" for word in plain]
        assert found["number"].astype(float).tolist() == table["number"].tolist()
        assert found["'@obj"].tolist() == ["-1", "2.5", *(f"'{word}" for word in risky[:9])]
        assert all(word.startswith("'-1 days") for word in found["gap"])
    write_table(table.drop(columns=["gap", "@obj"]), tmp_path / "t.parquet")
    assert pd.read_parquet(tmp_path / "t.parquet")["=name"].tolist() == risky


def test_tables_of_a_run_run_nothing(frame, labels, tmp_path):
    names = dict(zip(frame.columns, ["=cmd()", "@x", "-y", "plain", "+1"], strict=True))
    domains = np.array(["=HYPERLINK()", "-1", "b"])[np.unique(labels, return_inverse=True)[1]]
    model = CGVAE(**SHORT).fit(frame.rename(columns=names), domains)
    model.save(tmp_path / "m")
    again = unmix.load(tmp_path / "m")
    assert list(again.feature_names_in_) == list(names.values())
    assert pd.read_csv(tmp_path / "m" / "mixing.csv")["feature"].tolist() == ["'=cmd()", "'@x", "'-y", "plain", "+1"]
    assert set(pd.read_csv(tmp_path / "m" / "effects.csv")["domain"]) == {"'=HYPERLINK()", "-1", "b"}


NAMES = {
    "texts": list("abcde"),
    "counted": list(range(5)),
    "numbers": [5, 7, 9, 11, 13],
    "counted, moved": [2, 0, 1, 4, 3],
    "pairs": [("g", k) for k in range(5)],
    "dates": list(pd.date_range("2020", periods=5)),
}


@pytest.mark.slow
@pytest.mark.parametrize("names", NAMES)
def test_columns_in_another_order_are_refused(names, frame, labels, tmp_path):
    table = frame[:N].set_axis(pd.Index(NAMES[names]), axis=1)
    gan = CGGAN(n_latents=2, hidden=(4,), max_steps=1, encoder_steps=1, min_domain_rows=1, verbose=0)
    for model in (CGVAE(**SHORT), gan):
        z = model.fit(table, labels[:N]).transform(table)
        for own in (model, unmix.load(model.save(tmp_path / type(model).__name__))):
            np.testing.assert_array_equal(own.transform(table), z)
            for moved in ([3, 1, 4, 0, 2], [1, 0, 2, 3, 4], [4, 3, 2, 1, 0]):
                with pytest.raises(SchemaError, match="fitted on the columns"):
                    own.transform(table.iloc[:, moved])
            with pytest.raises(SchemaError, match="fitted on the columns"):
                own.transform(table.iloc[:, :4])


def test_an_array_has_the_columns_of_a_frame_that_counts_them(frame, labels):
    frame, labels = frame[:N], labels[:N]
    model = CGVAE(**SHORT).fit(frame.to_numpy(), labels)
    np.testing.assert_array_equal(model.transform(frame.set_axis(range(5), axis=1)), model.transform(frame.to_numpy()))
    with pytest.raises(SchemaError, match="got '4', '3', '2', '1', '0'"):
        model.transform(frame.set_axis(range(5), axis=1).iloc[:, ::-1])
    moved = CGVAE(**SHORT).fit(frame.set_axis([2, 0, 1, 3, 4], axis=1), labels)
    with pytest.raises(SchemaError, match=r"fitted on the columns \['2', '0', '1', '3', '4'\], in this order"):
        moved.transform(frame.set_axis(range(5), axis=1))


def test_latents_are_taken_by_their_names(fitted, frame):
    z = fitted.transform(frame[:6])
    x = fitted.inverse_transform(z)
    names = ["z0", "z1"]
    for table in (pd.DataFrame(z, columns=names), pl.DataFrame(z, schema=names), pd.DataFrame(z), z.tolist()):
        np.testing.assert_array_equal(fitted.inverse_transform(table), x)
    moved = z[:, ::-1]
    tables = [pd.DataFrame(moved, columns=names[::-1]), pl.DataFrame(moved, schema=names[::-1])]
    for table in (*tables, pd.DataFrame(moved, columns=[1, 0]), pd.DataFrame(z, columns=["a", "b"])):
        with pytest.raises(SchemaError, match=r"in a table the columns \['z0', 'z1'\] in this order; got '"):
            fitted.inverse_transform(table)
    for bad, message in ((np.nan, "missing value"), (np.inf, "infinite"), (1e30, r"beyond 1e\+12 cannot be decoded")):
        with pytest.raises(DataError, match=message):
            fitted.inverse_transform([[0.0, bad]])


X = np.arange(12.0).reshape(4, 3) ** 2


@pytest.mark.parametrize(
    "table",
    [
        X.astype(int).astype("M8[D]"),
        X.astype(int).astype("m8[s]"),
        np.where(X > 3, np.datetime64("NaT"), np.datetime64("2020-01-01")),
        np.array([[np.timedelta64(int(v), "s") for v in row] for row in X], dtype=object),
        np.array([[pd.Timestamp("2020-01-01")] * 3] * 4, dtype=object),
        np.array([[pd.NaT, 1.0, 2.0]] * 4, dtype=object),
        [[datetime.date(2020, 1, 1)] * 3] * 4,
        np.ma.masked_array(X.astype(int).astype("M8[D]"), mask=X > 3),
        X * 1j,
        (X * 1j).astype(object),
        X.astype(str),
        X.astype(str).astype(object),
        X.astype("S"),
        [["a", 1.0, 2.0]] * 4,
        [["1", 1.0, 2.0]] * 4,
        *(
            pd.DataFrame(X, columns=list("abc")).assign(q=column)
            for column in (
                pd.date_range("2020", periods=4),
                pd.to_timedelta([1, 2, 3, 4], unit="s"),
                pd.period_range("2020", periods=4),
                pd.Series([None, pd.NaT, None, pd.NaT]),
                X[:, 0] * 1j,
                pd.Categorical([1, 2, 3, 4]),
                ["1", "2", "3", "4"],
                [1.0, 2.0, "x", 3.0],
                pd.arrays.IntervalArray.from_breaks(range(5)),
                [datetime.timedelta(k) for k in range(4)],
            )
        ),
        *(
            pl.DataFrame({"a": [1.0] * 4, "q": column})
            for column in (
                [datetime.date(2020, 1, 1)] * 4,
                [datetime.timedelta(1)] * 4,
                ["1", "2", "3", "4"],
                [[1], [2], [3], [4]],
            )
        ),
        pa.table({"a": [1.0] * 4, "q": pa.array([datetime.datetime(2020, 1, 1)] * 4)}),
    ],
)
def test_what_is_no_number_is_no_feature(table):
    with pytest.raises(DataError, match=r"not numbers|not numeric|Input X holds|not compatible|Complex data not supp"):
        numeric_matrix(table)


@pytest.mark.parametrize(
    "column",
    [
        [1, 2, None, 4],
        [decimal.Decimal(1), decimal.Decimal(2), None, decimal.Decimal(4)],
        np.array([1, 2, pd.NA, 4.0], dtype=object),
        pd.array([1, 2, None, 4], dtype="Int64"),
        pd.array([1, 2, None, 4], dtype="float64[pyarrow]"),
        pd.array(
            [decimal.Decimal(k) if k != 3 else None for k in (1, 2, 3, 4)], dtype=pd.ArrowDtype(pa.decimal128(9, 2))
        ),
        pd.arrays.SparseArray([1, 2, np.nan, 4]),
    ],
)
def test_numbers_of_every_type_are_numbers(column):
    expected = [[1.0, 0.0], [2.0, 1.0], [np.nan, 0.0], [4.0, 1.0]]
    flags = [False, True, False, True]
    np.testing.assert_array_equal(numeric_matrix(pd.DataFrame({"a": column, "b": flags})), expected)
    np.testing.assert_array_equal(numeric_matrix(pd.DataFrame({"a": column, "b": flags}).astype(object)), expected)
    cells = np.array(pd.DataFrame({"a": column, "b": flags}).astype(object))
    for array in (cells, cells.tolist()):
        np.testing.assert_array_equal(numeric_matrix(array), expected)
    plain = [1.0, 2.0, None, 4.0]
    for table in (
        pl.DataFrame,
        pl.LazyFrame,
        pa.table,
        lambda own: pa.table({**own, "a": pa.array(plain, pa.float32())}),
    ):
        matrix = numeric_matrix(unmix.data.tables.as_table(table({"a": plain, "b": flags})))
        np.testing.assert_array_equal(matrix, expected)


def test_a_cell_that_is_no_number_is_named(tmp_path, frame, labels):
    table = frame.assign(domain=labels).astype({"x3": object})
    table.loc[17, "x3"] = "abc"
    for kind in ("csv", "tsv.gz"):
        table.to_csv(tmp_path / f"t.{kind}", sep="\t" if "tsv" in kind else ",", index=False)
        with pytest.raises(DataError, match=r"Columns 'x3' are not numeric: 'x3' holds text \('abc'\) in row 17"):
            CGVAE(**QUICK).fit(tmp_path / f"t.{kind}", "domain")
    with pytest.raises(DataError, match=r"'x3' holds text \('abc'\) in row 17"):
        CGVAE(**QUICK).fit(table, "domain")


@pytest.mark.slow
def test_y_keeps_the_types_of_the_other_columns(frame, labels):
    frame, labels = frame[:N], labels[:N]
    table = frame.assign(domain=labels, n=pd.array(np.arange(N) % 7, dtype="Int64"), d=decimal.Decimal("0.5"))
    table.loc[:9, "d"] = decimal.Decimal(2)
    expected = CGVAE(**SHORT).fit(table.drop(columns="domain").astype(float), labels).mixing_
    for own in (table, pl.from_pandas(table), pa.Table.from_pandas(table)):
        np.testing.assert_allclose(CGVAE(**SHORT).fit(own, ["domain"]).mixing_, expected, rtol=1e-6)


@pytest.mark.slow
def test_columns_are_constant_only_where_they_are(frame, labels):
    far = frame.to_numpy() + 1e14
    near = far - 1e14
    z, expected = (CGVAE(**SHORT).fit(x, labels).transform(x) for x in (far, near))
    np.testing.assert_allclose(z, expected, atol=0.05)
    np.testing.assert_allclose(CGVAE(**SHORT).fit(far, labels).schema_.scale, near.std(axis=0), rtol=1e-9)
    for second, message in (
        (
            1e16 + np.array([0, 2, 4, 0]),
            r"'b' vary by no more than rounding: numbers of the size of 1e\+16 are kept in st",
        ),
        ([0.1 + 0.2, 0.3, 0.3, 0.3], "'b' vary by no more than rounding"),
        ([1e14, 1e14, 1e14, 1e14], "'b' are constant"),
    ):
        with pytest.raises(DataError, match=message):
            check_trainable(np.c_[np.arange(4.0), second], ["a", "b"])


@pytest.mark.parametrize("way", ["column", "columns", "labels", "array", "label like a column"])
def test_a_file_and_its_domains_are_read_once(way, tmp_path, monkeypatch):
    x = pd.DataFrame(np.random.default_rng(0).standard_normal((30, 3)), columns=["a", "b", "c"])
    labels, path = np.tile(["a" if way == "label like a column" else "u", "v"], 15), tmp_path / "t.csv"
    y, own = {
        "column": ("own", {"own": labels}),
        "columns": (["own", "one"], {"own": labels, "one": "p"}),
        "array": (labels, {}),
    }.get(way, (labels.tolist(), {}))
    x.assign(**own).to_csv(path, index=False)
    read = []
    for name, original in (("tables.read_delimited", read_delimited), ("domains.labels_frame", labels_frame)):
        monkeypatch.setattr(f"unmix.data.{name}", lambda *words, f=original: read.append(f.__name__) or f(*words))
    found = prepare(path, y, n_latents=1, missing="error", auxiliary=None, min_domain_rows=1, validation_fraction=0.0)
    np.testing.assert_allclose(found.features.restore(found.rows.x.numpy()), x, atol=1e-6)
    assert found.groups.tolist() == np.unique(labels, return_inverse=True)[1].tolist()
    # Such a column has been taken for a domain, as text; that it is none is known only after the file was read.
    assert read.count("read_delimited") == (2 if way == "label like a column" else 1)
    assert read.count("labels_frame") == 1


def test_rows_stand_in_the_order_of_the_split_and_a_fit_writes_into_none(frame, labels, monkeypatch):
    words = {"missing": "error", "auxiliary": None, "min_domain_rows": 10, "validation_fraction": 0.1}
    data = prepare(frame, labels, n_latents=2, **words)
    train, held_out = split_rows(np.searchsorted(["a", "b", "c"], labels), 0.1, 0)
    np.testing.assert_array_equal(data.order, np.concatenate([train, held_out]))
    expected = data.features.standardise(frame.to_numpy())[data.order]
    np.testing.assert_array_equal(data.rows.x, expected)
    np.testing.assert_array_equal(np.array(["a", "b", "c"])[data.rows.codes[:, 0]], labels[data.order])
    assert data.rows.take(slice(0, data.n_train)).x.data_ptr() == data.rows.x.data_ptr()
    monkeypatch.setattr(CGVAE, "_prepare", lambda *_: data)
    before = [values.clone() for values in (data.rows.x, data.rows.codes, data.rows.values)]
    CGVAE(**{**QUICK, "max_epochs": 1}).fit(frame, labels)
    for own, old in zip((data.rows.x, data.rows.codes, data.rows.values), before, strict=True):
        assert (own == old).all()
