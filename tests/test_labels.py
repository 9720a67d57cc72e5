"""Labels of rows: one rule for what a label is and when two are one, whatever they come in."""

import datetime
import decimal
import fractions

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import unmix
from unmix import CGVAE, metrics
from unmix.data.domains import DomainSchema
from unmix.errors import DomainError
from unmix.images import ImageClassifier
from unmix.labels import label_texts, labels_frame

NAN = float("nan")
MISSING = {
    "None": None,
    "nan": NAN,
    "numpy's nan": np.float32("nan"),
    "NA": pd.NA,
    "NaT": pd.NaT,
    "numpy's NaT": np.datetime64("NaT"),
    "Decimal": decimal.Decimal("nan"),
    "empty text": "",
    "blank": " ",
}
CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "objects": lambda cells: np.array([*cells, None], dtype=object)[:-1],
    "array": np.array,
    "Series": lambda cells: pd.Series(cells, index=range(len(cells), 0, -1)),
    "Index": pd.Index,
    "Categorical": pd.Categorical,
    "mapping": lambda cells: {"site": cells},
    "mapping of Series": lambda cells: {"site": pd.Series(cells, index=range(1, len(cells) + 1))},
    "frame": lambda cells: pd.DataFrame({"site": cells}, index=[0] * len(cells)),
    "frame without names": lambda cells: pd.DataFrame({0: cells}),
    "column": lambda cells: [[cell] for cell in cells],
}
OTHERS = {
    "polars": pl.Series,
    "polars frame": lambda cells: pl.DataFrame({"site": cells}),
    "lazy": lambda cells: pl.LazyFrame({"site": cells}),
    "Arrow": pa.array,
    "Arrow chunks": lambda cells: pa.chunked_array([cells]),
    "Arrow table": lambda cells: pa.table({"site": cells}),
    "Arrow batch": lambda cells: pa.RecordBatch.from_pydict({"site": cells}),
    "Arrow dictionary": lambda cells: pa.array(cells).dictionary_encode(),
    "masked": lambda cells: np.ma.masked_array(cells, mask=False),
}


def texts(y):
    """Labels of all rows as a model names them."""
    n_rows = 4 if isinstance(y, pl.LazyFrame) else len(y["site"]) if isinstance(y, dict) else len(y)
    schema, encoded, groups = DomainSchema.learn(y, n_rows, None, 1)
    assert groups.tolist() == schema.groups(y, n_rows).tolist()
    again = schema.encode(y, n_rows)
    assert encoded.codes.tolist() == again.codes.tolist()
    assert encoded.values.tolist() == again.values.tolist()
    return [schema.domains[group] for group in groups]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("missing", MISSING)
def test_a_missing_label_is_no_domain(missing, container):
    for cells in (["a", MISSING[missing], "b", "a"], [MISSING[missing], *["a"] * 3]):
        with pytest.raises(DomainError, match=r"missing values \(NaN\), first in rows \[[01]\]"):
            texts(CONTAINERS[container](cells))


@pytest.mark.parametrize("container", OTHERS)
def test_a_missing_label_is_no_domain_in_other_libraries(container):
    cells = ["a", None, "b", "a"]
    y = (
        np.ma.masked_array(["a", "b", "b", "a"], mask=[0, 1, 0, 0])
        if container == "masked"
        else OTHERS[container](cells)
    )
    with pytest.raises(DomainError, match=r"missing values \(NaN\), first in rows \[1\]"):
        texts(y)


@pytest.mark.parametrize("container", [*CONTAINERS, *OTHERS])
@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["b", "a", "nan ", "a"], ["b", "a", "nan ", "a"]),
        (["01", "1", "1.0", "1e0"], ["01", "1", "1.0", "1e0"]),
        ([2, 10, 2, 1], ["2", "10", "2", "1"]),
        ([2.0, 10.0, 2.0, -0.0], ["2", "10", "2", "0"]),
        ([True, False, False, True], ["True", "False", "False", "True"]),
        ([datetime.date(2020, 1, 2)] * 3 + [datetime.date(2020, 1, 1)], ["2020-01-02"] * 3 + ["2020-01-01"]),
    ],
)
def test_labels_do_not_depend_on_what_they_come_in(container, cells, expected):
    assert texts({**CONTAINERS, **OTHERS}[container](cells)) == expected


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([1.0, "a", "1", 1], ["1", "a", "1", "1"]),
        ([1, 1.0, np.float32(1), np.int8(1)], ["1"] * 4),
        ([True, 1, "True", "1"], ["True", "1", "True", "1"]),
        ([b"a", "a", np.bytes_(b"b"), np.str_("b")], ["a", "a", "b", "b"]),
        ([decimal.Decimal("1.0"), fractions.Fraction(2, 2), decimal.Decimal("1.50"), "x"], ["1", "1", "1.5", "x"]),
        ([np.float32(0.1), 0.1, "0.1", "x"], ["0.1"] * 3 + ["x"]),
        ([2**53, 2**53 + 1, 2**70, 2**70 + 1], [str(2**53), str(2**53 + 1), str(2**70), str(2**70 + 1)]),
        ([pd.Timestamp("2020-01-01"), np.datetime64("2020-01-01"), "2020-01-01", "x"], ["2020-01-01"] * 3 + ["x"]),
        ([datetime.datetime(2020, 1, 1), datetime.date(2020, 1, 1), "x", "y"], ["2020-01-01"] * 2 + ["x", "y"]),
        ([pd.Timestamp("2020-01-01 05:00"), datetime.time(5), "x", "y"], ["2020-01-01 05:00:00", "05:00:00", "x", "y"]),
        ([pd.Timedelta("1h"), pd.Period("2020-01", "M"), "x", "y"], ["0 days 01:00:00", "2020-01", "x", "y"]),
        (["nan", "NA", "None", "null"], ["nan", "NA", "None", "null"]),
        ([torch.tensor(1), np.array(1), np.array("a"), 1], ["1", "1", "a", "1"]),
    ],
)
def test_two_labels_are_one_where_they_read_the_same(cells, expected):
    for make in (list, tuple, CONTAINERS["objects"], pd.Series, CONTAINERS["mapping"]):
        assert texts(make(cells)) == expected


def test_labels_of_pandas_types():
    intervals = pd.cut([1, 2, 9, 10], 2)
    assert texts(intervals) == [str(interval) for interval in intervals]
    assert texts(pd.Categorical(["b", "a", "b", "a"], categories=["z", "b", "a"])) == ["b", "a", "b", "a"]
    assert texts(pd.array([1, 2, 1, 2], dtype="Int64")) == ["1", "2", "1", "2"]
    assert texts(pd.Series([True, False] * 2, dtype="boolean")) == ["True", "False"] * 2
    assert texts(pd.Series(np.array([0.1, 0.2] * 2, dtype="f4")).astype(str)) == ["0.1", "0.2"] * 2
    assert texts(pd.MultiIndex.from_arrays([list("abab"), [1, 2, 1, 2]])) == ["a · 1", "b · 2"] * 2
    assert texts(np.array([("a", 1), ("b", 2)] * 2, dtype=[("s", "U1"), ("k", int)])) == ["a · 1", "b · 2"] * 2
    assert list(labels_frame(pd.DataFrame(np.c_[list("abab"), list("cdcd")]), 4)) == ["u0", "u1"]
    assert list(labels_frame(pd.DataFrame({("a", "b"): [1], ("a", 2): [1]}), 1)) == ["a / b", "a / 2"]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1.0, float("inf")] * 2, "holds an infinite number in row 1"),
        ([1j, 2j] * 2, r"holds a complex \(1j\) in row 0"),
        (np.array([1j, 2j] * 2), "holds a complex"),
        ([{"a": 1}] * 4, r"holds a dict \(\{'a': 1\}\) in row 0"),
        (["a", {1}, "b", "c"], r"holds a set \(\{1\}\) in row 1"),
        ([b"\xff"] * 4, "holds bytes that are not UTF-8"),
        ([["a"], ["a", "b"]] * 2, "neither labels nor a table: rows differ in length"),
        ({"site": "a"}, "Expected one domain per row.*got str 'a'"),
        ({"a", "b"}, "Expected one domain per row.*got set"),
        (3, "Expected one domain per row.*got int '3'"),
        (np.zeros((4, 1, 1)), r"got an array of shape \(4, 1, 1\)"),
        (pd.DataFrame(np.zeros((4, 2)), columns=["a", "a"]), r"different names, and these have not: \['a'\]"),
        (pd.DataFrame(index=range(4)), "the domains have 0 columns"),
        ({"a": [1, 2], "b": [1, 2, 3, 4]}, "X has 4 rows, the domains have 2"),
    ],
)
def test_what_is_no_label_is_refused(y, message):
    with pytest.raises(DomainError, match=message):
        labels_frame(y, 4)


def test_every_door_takes_the_same_labels(frame, problem):
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    mixed, holes = [1.0, "a", "1"] * 4, ["a", NAN, "b"] * 4
    assert unmix.read_images(images, mixed).domains.tolist() == ["1", "a", "1"] * 4
    assert float(metrics.content_accuracy(["1", "a", 1] * 4, mixed)) == 1.0
    z = np.random.default_rng(0).standard_normal((12, 2))
    doors = {
        "fit": lambda y: CGVAE(n_latents=1, min_domain_rows=1, verbose=0).fit(frame[:12], y),
        "mcc": lambda y: metrics.mcc(z, z, domains=y),
        "accuracy": lambda y: metrics.content_accuracy(y, mixed),
        "images": lambda y: unmix.read_images(images, y),
        "classifier": lambda y: ImageClassifier().fit(images, y),
        "audit": lambda y: unmix.audit_decoder(problem.mixing, z, y),
    }
    for door in doors.values():
        for y in (holes, tuple(holes), np.array(holes), pd.Series(holes)):
            with pytest.raises(DomainError, match=r"missing values \(NaN\), first in rows \[1, 4"):
                door(y)
    with pytest.raises(DomainError, match="all text or all numbers; got float, str"):
        doors["classifier"](mixed)


def test_numbers_as_text_may_be_a_quantity():
    doses = [f"{0.1 * k:.1f}" for k in range(60)]
    with pytest.raises(DomainError, match="60 different numbers: labels or a quantity"):
        DomainSchema.learn(doses * 12, 720, None, 10)
    assert len(DomainSchema.learn([f"{k:03}" for k in range(60)] * 12, 720, None, 10)[0].domains) == 60
    with pytest.raises(DomainError, match=r'fewer than 10 rows.*A quantity is declared: auxiliary=.*"continuous"'):
        DomainSchema.learn(doses[:20], 20, None, 10)
    quantity, *_ = DomainSchema.learn({"dose": doses}, 60, {"dose": "continuous"}, 10)
    np.testing.assert_allclose(quantity.columns[0].center, np.mean([float(dose) for dose in doses]))
    with pytest.raises(DomainError, match="declared continuous but holds text: 'NA' in row 1"):
        DomainSchema.learn({"dose": ["1", "NA", "2"]}, 3, {"dose": "continuous"}, 1)


def test_label_texts_counts_labels():
    assert label_texts(pd.DataFrame({"a": [1, 2]}), "y") == ["1", "2"]
    for values, message in (
        (None, "y must hold one label per row; got none"),
        ([], r"one label per row; got shape \(0,\)"),
        ([[1, 2], [2, 1]], r"got shape \(2, 2\)"),
    ):
        with pytest.raises(DomainError, match=message):
            label_texts(values, "y")
    with pytest.raises(DomainError, match=r"y must hold one label for each of 3 images; got shape \(2,\)"):
        label_texts([1, 2], "y", 3, of="images")
