"""One reading rule: the same numbers and labels are the same model, in whatever form they come."""

import contextlib
import dataclasses
import decimal
import json
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from conftest import QUICK
from scipy import sparse

import unmix
from unmix import CGGAN, CGVAE, CGVAEImages, DataWarning, metrics
from unmix.baselines import IVAE, FactorVAE
from unmix.data.cells import Cells
from unmix.data.matrix import check_values, numeric_matrix, read_cells
from unmix.data.schema import FeatureSchema
from unmix.data.tables import as_table, read_columns
from unmix.errors import DataError, DomainError, StorageError
from unmix.estimators.prepare import prepare
from unmix.forms import familiar
from unmix.images import ImageClassifier
from unmix.labels import label_texts, labels_frame

SHORT = {**QUICK, "n_restarts": 1, "max_epochs": 1, "hidden": (4,), "min_domain_rows": 1}
RNG = np.random.default_rng(0)
# Halves are the same in any type of number, bfloat16 too.
X = RNG.integers(-8, 9, size=(60, 4)) / 2
SITES = [f"s{k % 3}" for k in range(60)]
NAMES = list("abcd")


def structured(x):
    return np.array([tuple(row) for row in x], dtype=[(name, "f8") for name in NAMES])


def as_matrix(x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix(x)


class Tensorlike(torch.Tensor):
    """A subclass of a tensor, as libraries on top of torch have them."""


FORMS = {
    "list": lambda x: x.tolist(),
    "tuples": lambda x: tuple(map(tuple, x)),
    "list of arrays": list,
    "objects": lambda x: x.astype(object),
    "decimals": lambda x: np.array([[decimal.Decimal(str(cell)) for cell in row] for row in x]),
    "float32": lambda x: x.astype(np.float32),
    "float16": lambda x: x.astype(np.float16),
    "columns first": np.asfortranarray,
    "matrix": as_matrix,
    "masked array": np.ma.MaskedArray,
    "structured": structured,
    "records": lambda x: structured(x).view(np.recarray),
    "tensor": torch.from_numpy,
    "tensor with gradient": lambda x: torch.tensor(x, requires_grad=True),
    "result of a graph": lambda x: torch.tensor(x, requires_grad=True) * 1.0,
    "bfloat16": lambda x: torch.tensor(x, dtype=torch.bfloat16),
    "sparse tensor": lambda x: torch.tensor(x).to_sparse(),
    "subclass of a tensor": lambda x: torch.tensor(x).as_subclass(Tensorlike),
    "rows of tensors": lambda x: [torch.tensor(row, requires_grad=True) for row in x],
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_array,
    "coo": sparse.coo_matrix,
    "lil": sparse.lil_array,
    "pandas": lambda x: pd.DataFrame(x, columns=NAMES),
    "pandas nullable": lambda x: pd.DataFrame(x, columns=NAMES).astype("Float64"),
    "pandas sparse": lambda x: pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(x), columns=NAMES),
    "pandas partly sparse": lambda x: pd.DataFrame(x, columns=NAMES).astype({"b": pd.SparseDtype(float, 0.0)}),
    "pandas sparse from NaN": lambda x: pd.DataFrame(x, columns=NAMES).astype(pd.SparseDtype(float, np.nan)),
    "pandas decimals": lambda x: pd.DataFrame(x, columns=NAMES).map(lambda cell: decimal.Decimal(str(cell))),
    "polars": lambda x: pl.DataFrame(x, schema=NAMES),
    "polars lazy": lambda x: pl.DataFrame(x, schema=NAMES).lazy(),
    "Arrow": lambda x: pa.table(dict(zip(NAMES, x.T, strict=True))),
}


@pytest.mark.parametrize("form", FORMS)
def test_numbers_are_the_same_in_any_form(form):
    table = as_table(FORMS[form](X))
    np.testing.assert_array_equal(numeric_matrix(table), X)
    assert read_cells(table).is_sparse == (form in ("csr", "csc", "coo", "lil", "pandas sparse"))


LABELS = {
    "frame of one column": lambda y: pd.DataFrame({"site": y}),
    "frame without names": pd.DataFrame,
    "frame with another index": lambda y: pd.DataFrame({"site": y}, index=range(5, 65)),
    "matrix": lambda y: as_matrix(y).T,
    "structured": lambda y: np.array([(label,) for label in y], dtype=[("site", "U4")]),
    "records": lambda y: pd.DataFrame({"site": y}).to_records(index=False),
    "categories, some unused": lambda y: pd.Series(pd.Categorical(y, categories=["s9", "s2", "s1", "s0"])),
    "polars lazy": lambda y: pl.DataFrame({"site": y}).lazy(),
    "Arrow": lambda y: pa.table({"site": y}),
    "column of an array": lambda y: np.array(y)[:, None],
}


@pytest.mark.parametrize("form", LABELS)
def test_labels_are_the_same_in_any_form(form):
    y = LABELS[form](SITES)
    frame = labels_frame(y, 60)
    assert frame.iloc[:, 0].tolist() == SITES
    assert metrics.mcc(X, X, domains=y, n_bootstrap=0).details["within_domain"].min() > 0.99


def test_labels_that_are_numbers_of_other_libraries():
    codes = [k % 3 for k in range(60)]
    forms = (
        torch.tensor(codes),
        torch.tensor(codes, dtype=torch.bfloat16),
        torch.tensor([float(k) for k in codes], requires_grad=True),
        [torch.tensor(k) for k in codes],
        pd.arrays.SparseArray(codes),
        pd.Series(codes).astype(pd.SparseDtype(int)),
        as_matrix(codes).T,
    )
    for form in forms:
        assert label_texts(form, "labels") == [str(k) for k in codes]


def test_duplicate_columns_of_labels_are_refused():
    twice = pd.concat([pd.Series(SITES, name="a"), pd.Series(SITES, name="a")], axis=1)
    for error, x, y in (
        (DomainError, X, twice),
        (DataError, pd.DataFrame(np.c_[X, X[:, 0]], columns=[*NAMES, "a"]), "a"),
        (DomainError, pd.DataFrame(X, columns=NAMES).assign(site=SITES), ["site", "site"]),
    ):
        with pytest.raises(error, match=r"these (have|are) not: \[?'(a|site)'"):
            CGVAE(**SHORT).fit(x, y)
    with pytest.raises(DomainError, match=r"different names, and these have not: \['a'\]"):
        metrics.mcc(X, X, domains=twice)


@pytest.mark.slow
def test_a_named_domain_leaves_the_other_columns_as_they_are(tmp_path):
    plain = pd.DataFrame(X, columns=NAMES)
    mixed = plain.assign(
        a=pd.array((2 * X[:, 0]).astype(int), dtype="Int64"),
        b=pd.array(X[:, 1] > 0, dtype="boolean"),
        c=[decimal.Decimal(str(cell)) for cell in X[:, 2]],
        d=pd.arrays.SparseArray(X[:, 3], fill_value=0.0),
    )
    expected = np.c_[2 * X[:, 0], X[:, 1] > 0, X[:, 2:]]
    words = {"n_latents": 1, "missing": "error", "auxiliary": None, "min_domain_rows": 1, "validation_fraction": 0.1}
    separate = prepare(expected, SITES, **words)
    indexed = mixed.set_index(pd.Index(SITES, name="site"))
    mixed["site"] = SITES
    plain.set_index(pd.Index(SITES, name="site")).to_parquet(tmp_path / "t.parquet")
    for table in (mixed, indexed, mixed.assign(site=pd.Categorical(SITES, categories=["s0", "s1", "s2", "s3"]))):
        found = prepare(table, "site", **words)
        torch.testing.assert_close(found.rows.x, separate.rows.x, rtol=0, atol=0)
        assert found.domains.domains == ("s0", "s1", "s2")
    mixed.loc[3, ["a", "b"]] = pd.NA
    found = prepare(mixed, "site", **{**words, "missing": "mask"})
    assert found.rows.observed[3].tolist() == [0, 0, 1, 1]
    stored = prepare(tmp_path / "t.parquet", "site", **words)
    assert stored.features.names == tuple(NAMES)
    assert stored.domains.domains == ("s0", "s1", "s2")


def test_missing_words_are_domains_in_a_text_file(tmp_path):
    words = ["NA", "None", "null", "nan"] * 15
    pd.DataFrame(X, columns=NAMES).assign(site=words).to_csv(tmp_path / "t.csv", index=False)
    assert read_columns(tmp_path / "t.csv", ["site"])[1]["site"].tolist() == words


def test_objects_with_missing_entries():
    table = X.astype(object)
    table[3, 1], table[4, 2], table[5, 0] = pd.NA, None, float("nan")
    found = numeric_matrix(table)
    assert np.argwhere(np.isnan(found)).tolist() == [[3, 1], [4, 2], [5, 0]]


@pytest.mark.parametrize("offset", [1e8, 1e12, 1e14])
def test_large_numbers_are_not_constant(offset):
    """At 1e14 numbers are 1/64 apart: halves lose nothing."""
    words = {"n_latents": 1, "missing": "error", "auxiliary": None, "min_domain_rows": 1, "validation_fraction": 0.1}
    near, far = prepare(X, SITES, **words), prepare(X + offset, SITES, **words)
    spread = near.rows.x.numpy()
    np.testing.assert_allclose(far.rows.x.numpy() - far.rows.x.numpy().mean(0), spread, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([[1.0, 2.0], [3.0, "1,5"]], r"text \('1,5'\) in row 1, column 1"),
        (np.array([["1", "2"], ["3", "x"]]), r"text \('x'\) in row 1, column 1"),
        ([[1.0, 2.0], [3.0, {}]], r"dict \('\{\}'\) in row 1, column 1"),
        ([[1.0, 2.0], [3.0]], "row 0 has 2 cells, row 1 has 1"),
        (pd.DataFrame({"a": [1, 2], "b": [1.0, "1,5"]}), r"'b' holds text \('1,5'\) in row 1"),
        (object(), "X is a object, which is not a table"),
        (sparse.csr_matrix(np.eye(3) * 1j), "Complex"),
    ],
)
def test_one_cell_that_is_no_number_is_named(table, said):
    with pytest.raises(DataError, match=said):
        numeric_matrix(table)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        *(("latin-1", "Latin-1"), ("cp1252", "Windows-1252"), ("utf-16", "UTF-16")),
        *(("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16"), ("utf-32", "UTF-32"), ("utf-32-le", "UTF-32")),
    ],
)
def test_encodings_are_named(encoding, name, tmp_path):
    (tmp_path / "t.csv").write_bytes("größe,site\n1,a\n2,b\n".encode(encoding))
    with pytest.raises(DataError, match=rf"t.csv is not UTF-8; it may be .*{name}.*Save it as UTF-8"):
        unmix.data.tables.read_table(tmp_path / "t.csv")


def test_folders_of_parquet_are_one_table(tmp_path):
    frame = pd.DataFrame(X, columns=NAMES)
    sites = np.array(["001", "1", "NA"])[np.arange(60) % 3]
    frame.assign(site=sites).to_parquet(tmp_path / "by site", partition_cols=["site"])
    (tmp_path / "plain").mkdir()
    frame[:40].to_parquet(tmp_path / "plain" / "part-0.parquet")
    frame[40:].astype({"a": "float32"}).to_parquet(tmp_path / "plain" / "part-1.parquet")
    (tmp_path / "plain" / "_SUCCESS").touch()
    x, y, _ = read_columns(tmp_path / "by site", ["site"])
    order = np.argsort(sites, kind="stable")
    np.testing.assert_array_equal(x.to_numpy(), X[order])
    assert y["site"].tolist() == sites[order].tolist()
    np.testing.assert_array_equal(as_table(tmp_path / "plain").to_numpy(), X)
    frame.assign(site="b").to_parquet(tmp_path / "by site" / "site=001" / "twice.parquet")
    with pytest.raises(DataError, match=r"'site' .* is a column of its files and a folder too"):
        read_columns(tmp_path / "by site", ["site"])


class MuData:
    """Stands in for ``mudata.MuData``, which numpy tries to read entry by entry without end."""

    __module__ = "mudata._core.mudata"
    mod = property(lambda self: {"rna": None, "atac": None})

    def __getitem__(self, key):
        return self

    def __len__(self):
        return 60


@pytest.mark.parametrize("y", ["site", SITES, None])
def test_several_tables_in_one_are_refused(y):
    with pytest.raises(DataError, match=r"MuData of 2 tables \('rna', 'atac'\).*such as X\['rna'\]"):
        CGVAE(**SHORT).fit(MuData(), y)


def test_a_mismatch_names_five():
    wide = pd.DataFrame(RNG.normal(size=(20, 300)), columns=[f"g{k}" for k in range(300)])
    model = CGVAE(**{**SHORT, "n_latents": 1}).fit(wide, np.arange(20) % 2)
    for other in (wide.iloc[:, ::-1], wide.add_prefix("h"), wide.iloc[:, :10], wide.to_numpy()[:, :5]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            with pytest.raises(DataError, match="'g4' and 295 more") as raised:
                model.transform(other)
        assert len(str(raised.value)) < 500


def test_a_setting_of_a_newer_version_is_newer(tmp_path, monkeypatch):
    model = CGVAE(**SHORT).fit(X, SITES)
    model.fit_ = dataclasses.replace(model.fit_, parameters={**model.fit_.parameters, "brandnew": 1})
    model.save(tmp_path / "own")
    with pytest.raises(StorageError, match=r"setting that CGVAE .* does not take: there is no brandnew"):
        unmix.load(tmp_path / "own")
    monkeypatch.setattr("unmix.fits.fit.versions", lambda: {"unmix": "99.1"})
    model.save(tmp_path / "newer")
    assert json.loads((tmp_path / "newer" / "config.json").read_text())["versions"]["unmix"] == "99.1"
    with pytest.raises(StorageError, match=r"written by unmix 99.1.*there is no brandnew.*Install the newer") as raised:
        unmix.load(tmp_path / "newer")
    assert "damaged" not in str(raised.value)


@contextlib.contextmanager
def float64():
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def plain():
    return CGVAE(**SHORT).fit(X, SITES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "around",
    [float64, torch.no_grad, torch.inference_mode, lambda: torch.device("meta"), lambda: torch.autocast("cpu")],
    ids=["float64", "no_grad", "inference_mode", "meta", "autocast"],
)
def test_the_state_of_torch_changes_nothing(around, plain, tmp_path):
    expected = plain.transform(X)
    score, features = plain.score(X, SITES), plain.inverse_transform(expected)
    with around():
        model = CGVAE(**SHORT).fit(X, SITES)
        for own in (model, plain):
            np.testing.assert_array_equal(own.transform(X), expected)
            np.testing.assert_array_equal(own.inverse_transform(expected), features)
            assert own.score(X, SITES) == score
            assert own.sample(3, "s1").shape == (3, 4)
            assert own.counterfactual(X, SITES, to="s1").shape == X.shape
        model.save(tmp_path / "model")
        loaded = unmix.load(tmp_path / "model")
    # What was made inside works outside, where gradients are recorded.
    np.testing.assert_array_equal(loaded.transform(X), expected)
    loaded.audit()


@pytest.mark.slow
def test_the_state_of_torch_changes_no_other_model(plain, tmp_path):
    with float64(), torch.inference_mode():
        plain.audit()
        plain.report(tmp_path / "report.html")
        IVAE(**SHORT).fit(X, SITES).transform(X, SITES)
        FactorVAE(**SHORT).fit(X).score(X)
        gan = CGGAN(n_latents=2, hidden=(4,), max_steps=2, encoder_steps=2, min_domain_rows=1, verbose=0).fit(X, SITES)
        gan.sample(2, "s0")
        images = RNG.integers(0, 256, size=(20, 8, 8)).astype(np.uint8)
        ImageClassifier(width=2, max_epochs=1).fit(images, np.arange(20) % 2).features(images)
        CGVAEImages(n_latents=1, hidden=(2, 2), max_epochs=1, n_restarts=1, verbose=0).fit(images, np.arange(20) % 2)
    gan.transform(X)


@pytest.mark.parametrize("rows", [1, 7, 60])
def test_cells_are_the_same_by_rows_and_by_columns(rows):
    """Sparse, dense or with entries moved: any block of ``Cells`` is that block of the matrix."""
    moved = {1: (np.array([3, 50]), np.array([9.0, -9.0]))}
    expected = X.copy()
    expected[[3, 50], 1] = 9.0, -9.0
    for form in (X, X.astype(np.float32), np.asfortranarray(X), sparse.csr_array(X), sparse.coo_matrix(X)):
        cells = Cells(form).moving(moved)
        parts = [part for _, part in cells.row_blocks(4 * rows)]
        assert all(len(part) <= rows for part in parts)
        np.testing.assert_array_equal(np.concatenate(parts), expected)
        np.testing.assert_array_equal(np.hstack([part for _, part in cells.column_blocks()]), expected)
        np.testing.assert_array_equal(cells.columns(slice(1, 3)), expected[:, 1:3])
        np.testing.assert_array_equal(cells.rows(slice(None, None, 7)), expected[::7])
        assert cells.rows(slice(0, 1)).dtype == np.float64
        schema, dense = FeatureSchema.learn(cells, None, "float64"), FeatureSchema.learn(expected, None, "float64")
        assert schema == dense
        np.testing.assert_array_equal(schema.standardise(cells), dense.standardise(expected))
    np.testing.assert_array_equal(Cells(X).rows(slice(None)), X)


def test_values_of_sparse_tables_are_named_by_their_place():
    dense = np.where(np.abs(X) > 2, X, 0.0)
    dense[7, 2] = np.nan
    for form in (dense, sparse.csr_matrix(dense), sparse.csc_matrix(dense)):
        with pytest.raises(DataError, match=r"1 missing value.*row 7 column 'c'"):
            check_values(read_cells(form), NAMES, "error")


@pytest.mark.slow
def test_float32_comes_back_as_float32():
    for form in ("float32", "csr", "tensor", "pandas"):
        table = FORMS[form](X.astype(np.float32))
        model = CGVAE(**SHORT).fit(table, SITES)
        assert model.transform(table).dtype == np.float32
        assert model.counterfactual(table, SITES, to="s1").dtype == np.float32


def test_mcc_on_all_rows_is_the_published_number():
    """The matching of all correlations, as published code computes it."""
    noisy = X @ RNG.normal(size=(4, 4)) + RNG.normal(size=X.shape)
    found = metrics.mcc(X, noisy, split=False)
    table = np.abs(np.corrcoef(X.T, noisy.T)[:4, 4:])
    rows, columns = unmix.metrics.recovery.linear_sum_assignment(-table)
    assert found == pytest.approx(table[rows, columns].mean(), abs=1e-12)
    assert found.settings["split"] is False
    assert metrics.mcc(X, noisy) != found
    with pytest.raises(unmix.errors.SettingError, match="split must be True or False"):
        metrics.mcc(X, noisy, split=1)


def test_nothing_is_lost_on_what_is_known_already():
    for known in (X, pd.DataFrame(X), "path.csv", None, [1, 2], pl.DataFrame(X)):
        assert familiar(known) is known


def test_warnings_point_to_the_line_that_called(plain):
    with pytest.warns(DataWarning, match="was trained on") as caught:
        plain.audit(X, SITES)
    with pytest.warns(DataWarning, match="an extrapolation") as also:
        plain.transform(1e6 * X)
    assert {found.filename for found in [*caught, *also]} == {__file__}
