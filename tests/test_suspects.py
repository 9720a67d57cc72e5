"""What is probably not what it seems is named before training, and only that."""

import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import QUICK
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

import unmix
from unmix import CGVAE, DataWarning
from unmix.data.cells import Cells
from unmix.data.schema import FeatureSchema
from unmix.data.suspects import note_codes, note_empty, without_suspects
from unmix.errors import SchemaError

N = 900


def said_of(table):
    """What is said of a table, one text a warning."""
    frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame(table).rename(columns="x{}".format)
    matrix = frame.to_numpy(float)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        without_suspects(Cells(matrix), FeatureSchema.learn(matrix, tuple(frame.columns), "float64"))
    assert all(issubclass(warning.category, DataWarning) for warning in caught)
    return [str(warning.message) for warning in caught]


def draws(kind, n_rows, rng):
    kinds = {
        "normal": lambda: rng.standard_normal(n_rows),
        "t, 3 degrees": lambda: rng.standard_t(3, n_rows),
        "t, 2 degrees": lambda: rng.standard_t(2, n_rows),
        "Cauchy": lambda: rng.standard_cauchy(n_rows),
        "log-normal": lambda: rng.lognormal(0, 1, n_rows),
        "wide log-normal": lambda: rng.lognormal(0, 3, n_rows),
        "gamma": lambda: rng.gamma(0.1, size=n_rows),
        "clusters": lambda: rng.choice([0, 0, 0, 30, 100], n_rows) + rng.standard_normal(n_rows),
        "zeros and tails": lambda: np.where(rng.random(n_rows) < 0.9, 0.0, rng.standard_t(2, n_rows)),
        "log of zeros": lambda: np.where(rng.random(n_rows) < 0.3, np.log(1e-10), rng.standard_normal(n_rows)),
        "yes and no": lambda: (rng.random(n_rows) < 0.02).astype(float),
        "rare": lambda: np.where(np.arange(n_rows) == 7, 3.2, 0.0),
        "uniform": lambda: rng.random(n_rows),
        "ages": lambda: rng.integers(0, 100, n_rows).astype(float),
    }
    return kinds[kind]()


KINDS = ("normal", "t, 3 degrees", "t, 2 degrees", "Cauchy", "log-normal", "wide log-normal", "gamma", "clusters")
KINDS += ("zeros and tails", "log of zeros", "yes and no", "rare", "uniform", "ages")


@pytest.mark.parametrize("kind", KINDS)
def test_heavy_tails_clusters_and_rare_values_are_no_alarm(kind):
    rng = np.random.default_rng(0)
    for n_rows in (30, 200, N, 4000):
        table = np.stack([draws(kind, n_rows, rng) for _ in range(50)], axis=1)
        assert said_of(table[:, table.std(axis=0) > 0]) == []


def test_real_tables_are_no_alarm():
    for data in (load_iris(), load_wine(), load_breast_cancer(), load_digits()):
        matrix = data.data[:, data.data.std(axis=0) > 0]
        assert said_of(matrix) == []
    assert said_of(unmix.datasets.load_sachs().x) == []
    assert said_of(unmix.datasets.load_sachs(log=False).x) == []


@pytest.mark.parametrize("value", [-99999, 99999, -9999, -999, 9999, -999.25, 1e20, -1e30, 1e6, -3.4028234663852886e38])
@pytest.mark.parametrize("kind", ["normal", "t, 3 degrees", "log-normal", "uniform"])
def test_one_code_for_a_missing_value_is_named_by_row_column_and_value(value, kind):
    rng = np.random.default_rng(1)
    table = np.stack([draws(kind, N, rng) for _ in range(3)], axis=1)
    table[417, 1] = value
    (said,) = said_of(table)
    assert f"row 417 column 'x1': {value:.10g}. If they are codes for missing values" in said


@pytest.mark.parametrize("value", [-9999, 999, 99, 888, -32768, 9.969209968386869e36])
@pytest.mark.parametrize("share", [0.005, 0.1, 0.6])
def test_a_code_in_many_rows_is_named_once(value, share):
    rng = np.random.default_rng(2)
    table = rng.standard_normal((N, 2))
    rows = np.flatnonzero(rng.random(N) < share)
    table[rows, 1] = value
    (said,) = said_of(table)
    assert f"row {rows[0]} column 'x1': {value:.10g} (in {len(rows)} rows)." in said


def test_wild_rows_are_listed_and_counted():
    table = np.random.default_rng(3).standard_normal((N, 9))
    table[5] = -99999
    table[6] *= 1e4
    (said,) = said_of(table)
    assert said.count("row ") == 5
    assert "; and " in said
    table = np.random.default_rng(3).standard_normal((N, 2))
    table[[3, 8], 0] = 5e3, -6e3
    assert "row 8 column 'x0': -6000; row 3 column 'x0': 5000" in said_of(table)[0]
    table[3, 0] = np.nan
    assert "row 8 column 'x0': -6000." in said_of(table)[0]


@pytest.mark.parametrize("unit", [1.0, -1.8, 1e-9, 1e7])
@pytest.mark.parametrize("offset", [0.0, 32.0, -273.15])
@pytest.mark.parametrize("kind", ["normal", "t, 2 degrees", "log-normal", "ages", "clusters"])
def test_columns_that_are_the_same_but_for_their_unit_are_named(unit, offset, kind):
    rng = np.random.default_rng(6)
    table = np.stack([draws(kind, N, rng) for _ in range(4)], axis=1)
    table[:, 3] = unit * table[:, 1] + offset * unit
    (said,) = said_of(table)
    assert "the same but for unit and offset: 'x1', 'x3'." in said
    table[:, 3] += 1e-3 * abs(unit) * rng.standard_normal(N)
    assert said_of(table) == []


def test_columns_that_differ_in_a_few_rows_only_are_no_copies():
    rare = np.zeros((N, 3))
    rare[[7, 8, 9]] = [[1, 2, 3], [2, 4, 6], [1, 2, 3]]
    assert said_of(np.column_stack([rare, np.random.default_rng(7).standard_normal((N, 2))])) == []
    table = np.random.default_rng(8).standard_normal((N, 3))
    table[5] = 1e6
    (said,) = said_of(table)
    assert "far from all others" in said


def test_a_survey_code_stands_out_of_a_scale():
    table = np.random.default_rng(4).integers(1, 6, (N, 4)).astype(float)
    assert said_of(table) == []
    table[::9, 2] = 99
    assert "row 0 column 'x2': 99 (in 100 rows)" in said_of(table)[0]


@pytest.mark.parametrize(
    "column",
    [
        np.arange(N),
        np.arange(1, N + 1),
        np.random.default_rng(0).permutation(N),
        np.random.default_rng(0).choice(5000, N, replace=False),
        np.sort(np.random.default_rng(0).choice(2000, N, replace=False)),
        np.arange(1900, 1900 + N),
        -np.arange(N),
    ],
)
def test_numbers_of_the_rows_are_named(column):
    table = pd.DataFrame(np.random.default_rng(5).standard_normal((N, 3)), columns=list("abc")).assign(cell=column)
    (said,) = said_of(table)
    assert "Columns 'cell' look like ids, times or a saved index" in said


def test_a_saved_index_is_named_by_its_name():
    table = pd.DataFrame(np.random.default_rng(5).standard_normal((N, 2)), columns=["Unnamed: 0", "a"])
    assert "Columns 'Unnamed: 0' look like" in said_of(table)[0]


@pytest.mark.parametrize(
    "column",
    [
        np.random.default_rng(0).integers(0, 900, N),
        np.random.default_rng(0).choice(10**6, N, replace=False),
        np.arange(N) // 2,
        np.linspace(0, 1, N),
        np.append(np.arange(N - 1.0), 0.0),
        np.random.default_rng(0).poisson(30, N),
    ],
)
def test_other_whole_numbers_are_not(column):
    table = np.c_[np.random.default_rng(5).standard_normal((N, 3)), column]
    assert said_of(table) == []


def counts(kind, rng):
    kinds = {
        "reads": lambda: rng.negative_binomial(2, 0.02, (300, 30)),
        "cells": lambda: rng.negative_binomial(0.1, 0.05, (600, 200)),
        "depths": lambda: rng.poisson(np.outer(rng.lognormal(0, 0.5, 300), rng.lognormal(2, 1, 20))),
        "factors": lambda: rng.poisson(np.exp(rng.standard_normal((300, 3)) @ rng.standard_normal((3, 20)) + 2)),
        "Poisson": lambda: rng.poisson(5, (600, 20)),
        "large Poisson": lambda: rng.poisson(300, (600, 20)),
    }
    return kinds[kind]()


@pytest.mark.parametrize("kind", ["reads", "cells", "depths", "factors", "Poisson", "large Poisson"])
def test_counts_are_named_with_what_to_do(kind):
    rng = np.random.default_rng(0)
    table = counts(kind, rng).astype(float)
    table = table[:, table.std(axis=0) > 0]
    said = said_of(table)
    assert any("look like counts: whole numbers ≥ 0" in text and "np.log1p(1e4 * X / X.sum(" in text for text in said)
    assert said_of(np.log1p(1e4 * table / (1 + table.sum(axis=1, keepdims=True)))) == []
    with_id = np.c_[np.arange(len(table)), table]
    assert any("look like counts" in text for text in said_of(with_id))


@pytest.mark.parametrize(
    "table",
    [
        np.random.default_rng(0).integers(0, 256, (300, 64)),
        np.random.default_rng(0).integers(1, 8, (300, 20)),
        np.random.default_rng(0).binomial(4, 0.5, (300, 20)),
        np.random.default_rng(0).integers(0, 101, (300, 20)),
        np.random.default_rng(0).random((300, 20)) < 0.1,
        np.random.default_rng(0).normal(5000, 300, (300, 9)).round(),
        np.random.default_rng(0).normal(0, 300, (300, 9)).round(),
        np.random.default_rng(0).poisson(5, (300, 20)) * 0.5,
        np.c_[np.random.default_rng(0).poisson(5, (300, 4)), np.random.default_rng(0).random((300, 4))],
    ],
)
def test_scales_pixels_readings_and_mixed_tables_are_no_counts(table):
    assert not any("counts" in text for text in said_of(table.astype(float)))


@pytest.mark.slow
def test_every_estimator_says_it_at_fit_and_only_then(frame, labels):
    wild = frame.copy()
    wild.iloc[7, 2] = -99999
    settings = {"n_latents": 1, "min_domain_rows": 1, "verbose": 0}
    models = [
        CGVAE(**settings, n_restarts=1, max_epochs=1, hidden=(4,)),
        unmix.CGGAN(**settings, hidden=(4,), max_steps=1, encoder_steps=1),
    ]
    for model in models:
        with pytest.warns(DataWarning, match="row 7 column 'x2': -99999"):
            model.fit(wild, labels)
        model.transform(frame)


def test_an_entry_that_no_model_can_encode_is_refused_before_training(frame, labels):
    wild = frame.copy()
    wild.iloc[7, 2] = 1e20
    with (
        pytest.warns(DataWarning, match=r"row 7 column 'x2': 1e\+20"),
        pytest.raises(SchemaError, match=r"Row 7 has 1e\+20 in column 'x2'.*Correct the number or drop the row"),
    ):
        CGVAE(**QUICK).fit(wild, labels)


@pytest.mark.slow
def test_new_rows_far_from_those_of_the_fit(fitted, frame, labels):
    far = frame[:20].copy()
    for factor in (1e13, 1e30, 1e60, 1e300):
        far.iloc[3, 1] = -factor
        for call in (fitted.transform, lambda x: fitted.score(x, labels[:20])):
            with pytest.raises(SchemaError, match=r"Row 3 has -1e\+.* in column 'x1'.*No model can compute with that"):
                call(far)
    far.iloc[3, 1] = -99999
    with pytest.warns(DataWarning, match="Row 3 has -99999 in column 'x1': at the fit .* Its latents are an extrapol"):
        assert np.isfinite(fitted.transform(far)).all()
    far.iloc[3, 1] = 100.0
    assert np.isfinite(fitted.score(far, labels[:20]))
    tiny = CGVAE(**QUICK).fit(frame * 1e-60, labels)
    assert np.isfinite(tiny.transform(frame * 1e-60)).all()
    with pytest.raises(SchemaError, match="Is the unit the same"):
        tiny.transform(frame)


@pytest.mark.parametrize("wild", [-99999.0, 1e12])
def test_a_wild_entry_counts_as_the_nearest_other_value(wild):
    matrix = np.random.default_rng(0).standard_normal((N, 3))
    wrong = matrix.copy()
    wrong[17, 1] = wild
    with pytest.warns(DataWarning, match="row 17 column 'b'"):
        found = without_suspects(Cells(wrong), FeatureSchema.learn(wrong, ("a", "b", "c"), "float64")).rows(slice(None))
    others = np.delete(matrix[:, 1], 17)
    assert found[17, 1] == (others.min() if wild < 0 else others.max())
    same = np.ones_like(matrix, dtype=bool)
    same[17, 1] = False
    np.testing.assert_array_equal(found[same], matrix[same])


CODES = (-99.0, -999.0, 999.0, 9999.0, -99999.0, 99.99, 777.0, 88888.0, 32767.0, -2147483648.0)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_codes_in_new_rows_are_named_where_they_are_far_from_the_fit(code, scale):
    rng = np.random.default_rng(0)
    known = scale * rng.standard_normal((N, 3))
    schema = FeatureSchema.learn(known, ("a", "b", "c"), "float64")
    new = scale * rng.standard_normal((40, 3))
    new[7, 1], new[9, 2] = code, code * 1.001
    far = 10 * schema.scale[1] < abs(code - schema.center[1]) <= 1e4 * schema.scale[1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        note_codes(Cells(new), schema)
    said = [str(warning.message) for warning in caught]
    assert len(said) == far
    if far:
        assert said[0].startswith("Numbers that often stand for missing values")
        assert f"row 7 column 'b': {code:.10g}. If" in said[0]
    new[7, 1] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        note_codes(Cells(new), schema)


def test_codes_and_rows_without_values_are_named_wherever_new_rows_come(frame, labels):
    model = CGVAE(**{**QUICK, "max_epochs": 1, "missing": "mask"}).fit(frame, labels)
    wrong = frame.iloc[:30].reset_index(drop=True)
    wrong.iloc[4, 2] = -99.0
    wrong.iloc[6] = np.nan
    for read in (model.transform, lambda rows: model.translate(rows, labels[:30], to=labels[0])):
        with pytest.warns(DataWarning) as caught:
            read(wrong)
        said = [str(warning.message) for warning in caught]
        assert any(f"row 4 column {frame.columns[2]!r}: -99." in text for text in said)
        assert any(text.startswith("Rows without any value: 6. ") for text in said)
    with pytest.warns(DataWarning, match="Rows without any value: 0, 3."):
        note_empty(Cells(np.array([[np.nan, np.nan], [1.0, np.nan], [0.0, 0.0], [np.nan, np.nan]])))
