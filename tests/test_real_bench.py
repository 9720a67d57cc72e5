"""The bench of real tables: its measures against values known by other means, its cards, and rows of what fails."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score, roc_auc_score

from unmix.errors import DataError, SettingError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
N_ROWS = 300
CARD = """
title = "Tiny"
file = "tiny.csv"
source = "made here"
domain = "plant"
n_latents = 2
factors = ["cause", "kind == 'warm'", "kind"]
target = "kind"
left_out = ["c"]
"""


class Failing:
    """A method that cannot be fitted."""

    def __init__(self, n_components=2):
        self.n_components = n_components

    def fit(self, X, y=None):
        raise DataError("no fit today")

    def transform(self, X):
        return X


@pytest.fixture
def bench(monkeypatch):
    """Modules of the bench, as its script imports them."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield importlib.import_module
    for path in BENCHMARKS.glob("real*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def folder(tmp_path):
    """A table of three domains and two sparse factors, ``cause`` and a second one, with its card."""
    rng = np.random.default_rng(0)
    plant = np.repeat(["a", "b", "c"], N_ROWS // 3)
    z = rng.laplace(size=(N_ROWS, 2)) * np.select([plant == "a", plant == "b"], [1.0, 2.0], 0.5)[:, None]
    x = z @ np.array([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.5]]) + 0.05 * rng.standard_normal((N_ROWS, 4))
    frame = pd.DataFrame(x, columns=["x1", "x2", "x3", "x4"])
    frame = frame.assign(plant=plant, cause=z[:, 0], kind=np.where(z[:, 1] > 0, "warm", "cold"))
    frame.loc[0, "x1"], frame.loc[1, "cause"] = np.nan, np.nan
    data = tmp_path / "data"
    data.mkdir()
    frame.to_csv(data / "tiny.csv", index=False)
    (data / "tiny.toml").write_text(CARD, encoding="utf-8")
    return data


@pytest.fixture
def table(bench, folder):
    tables = bench("real_tables")
    return tables.load(tables.read_card(folder / "tiny.toml", folder))


def fitted(bench, table, name, seed=0):
    method = bench("real_methods").find_method(name)
    return bench("real_measures").fit(method, 2, seed, table, table.train)


def test_a_card_says_what_is_feature_factor_and_domain(table):
    assert table.names == ("x1", "x2", "x3", "x4")
    assert (len(table.x), table.n_dropped) == (N_ROWS - 1, 1)
    assert table.kinds == dict.fromkeys(["kind == 'warm'", "kind == 'cold'"], "boolean") | {"cause": "numeric"}
    assert np.isnan(table.factors["cause"]).sum() == 1
    np.testing.assert_array_equal(table.factors["kind == 'warm'"], 1 - table.factors["kind == 'cold'"])


def test_a_fifth_of_each_domain_is_held_out_the_same_way_each_time(bench, table):
    (one, other), (further, _) = table.halves(0), table.halves(1)
    for label in "abc":
        own = table.domains == label
        assert table.held_out[own].sum() == 20
        assert abs(one[own].sum() - (table.train & own).sum() / 2) <= 0.5
    np.testing.assert_array_equal(one ^ other, table.train)
    assert (one != further).any()
    np.testing.assert_array_equal(bench("real_tables").load(table.card).held_out, table.held_out)


def test_rows_are_capped_evenly_over_domains(bench, folder):
    tables = bench("real_tables")
    (folder / "tiny.toml").write_text(CARD + "max_rows = 150\n", encoding="utf-8")
    capped = tables.load(tables.read_card(folder / "tiny.toml", folder))
    assert [(capped.domains == label).sum() for label in "abc"] == [50, 50, 50]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ('colour = "red"', "unknown keys.*colour"),
        ("n_latents = 0", "whole numbers ≥ 1; got 0"),
        ('drop = "x1"', "drop must be a list"),
        ("left_out = []", "target and left_out belong together"),
        ('file = "other.csv"', "card of .*other.csv, which is not there"),
        ('domain = "nowhere"', "not there.*nowhere"),
        ('left_out = ["z"]', "does not have.*z"),
    ],
)
def test_a_wrong_card_is_refused(bench, folder, change, match):
    tables = bench("real_tables")
    key = change.partition(" ")[0]
    kept = [line for line in CARD.splitlines() if not line.startswith(f"{key} ")]
    (folder / "tiny.toml").write_text("\n".join([*kept, change]), encoding="utf-8")
    with pytest.raises((SettingError, DataError), match=match):
        tables.load(tables.read_card(folder / "tiny.toml", folder))


def test_variance_kept_is_that_of_sklearn(bench, table):
    measures, own = bench("real_measures"), fitted(bench, table, "PCA")
    x, rows = table.x[table.train], table.held_out
    held_out = (table.x[rows] - x.mean(axis=0)) / x.std(axis=0)
    pca = PCA(2).fit((x - x.mean(axis=0)) / x.std(axis=0))
    expected = r2_score(held_out, pca.inverse_transform(pca.transform(held_out)), multioutput="variance_weighted")
    found = measures.variance_kept(own.standardised(table.x[rows]), own.decode(own.encode(table, rows)))
    assert own.decoded_by == "own decoder"
    assert found == pytest.approx(expected, abs=1e-9)
    # Nobody decodes better than least squares on the rows where it was fitted; for PCA that is PCA.
    assert measures.variance_kept(own.standardised(x), own.linear.predict(own.latents)) == pytest.approx(
        measures.variance_kept(own.standardised(x), own.decode(own.latents)), abs=1e-9
    )


def test_a_method_without_decoder_is_decoded_by_least_squares(bench, table):
    own = fitted(bench, table, "FactorAnalysis")
    assert own.decoded_by == "least squares"
    assert own.decode(own.latents).shape == (table.train.sum(), 4)


def test_agreement_is_one_with_itself_and_blind_to_order_and_sign(bench):
    agreement = bench("real_measures").agreement
    z = np.random.default_rng(0).standard_normal((200, 3))
    assert agreement([z, z]) == pytest.approx((1.0, 1.0))
    assert agreement([z, -np.exp(z)[:, [2, 0, 1]], z]) == pytest.approx((1.0, 1.0))
    # Two latents of three are there: the third has no partner on one side, and counts once of five.
    mean, worst = agreement([z, z[:, :2]])
    assert mean == pytest.approx(4 / 5)
    assert worst == 0.0
    assert agreement([z, np.zeros_like(z)]) == (0.0, 0.0)


def test_a_planted_factor_is_found_by_one_latent(bench, table):
    measures, own = bench("real_measures"), fitted(bench, table, "PCA + varimax")
    scores = measures.factor_scores(own, table, own.encode(table, table.held_out))
    ceiling = measures.ceiling(table)
    assert 0.98 < scores["cause"]["value"] <= 1.0
    assert scores["kind == 'warm'"]["value"] > 0.98
    assert scores["cause"]["latent"] != scores["kind == 'warm'"]["latent"]
    assert 0.9 < ceiling["cause"]["value"] <= 1.0
    weights = measures.sparsity(measures.loadings(own))
    assert weights["small_loadings"] == pytest.approx(0.5)
    assert weights["empty"] == 0
    assert weights["hoyer"] > 0.5


def test_a_boolean_factor_is_scored_by_auroc(bench):
    association = bench("real_measures").association
    rng = np.random.default_rng(0)
    truth, z = rng.random(100) > 0.7, rng.integers(0, 9, (100, 2)).astype(float)
    areas = [roc_auc_score(truth, column) for column in z.T]
    np.testing.assert_allclose((association(z, truth.astype(float), "boolean") + 1) / 2, areas)


def test_loadings_of_a_linear_decoder_are_its_weights(bench, table):
    measures, own = bench("real_measures"), fitted(bench, table, "PCA + varimax")
    expected = np.abs(own.model.components_.T) * own.latents.std(axis=0)
    np.testing.assert_allclose(measures.loadings(own), expected, rtol=1e-9)


@pytest.mark.parametrize("angle", [0.6, np.pi / 4])
def test_varimax_undoes_a_rotation_of_simple_loadings(bench, angle):
    simple = np.zeros((8, 2))
    simple[:4, 0], simple[4:, 1] = 1.0, 0.7
    turned = simple @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    found = np.abs(turned @ bench("real_methods").varimax(turned))
    np.testing.assert_allclose(np.sort(found, axis=1), np.sort(simple, axis=1), atol=1e-5)


@pytest.mark.slow
def test_a_bench_goes_on_where_it_stopped_and_shows_what_failed(bench, folder, tmp_path, capsys):
    real, out = bench("real"), tmp_path / "out"
    call = ["--data", str(folder), "--seeds", "2", "--refits", "1", "--out", str(out), "--methods", "PCA", "NMF"]
    call += ["test_real_bench:Failing", "raw features"]
    assert real.main(call) == 1
    said = capsys.readouterr().out
    assert "tiny has numbers below 0: without NMF" in said
    assert said.count("test_real_bench:Failing, seed 0, fit: FAILED, DataError: no fit today") == 1
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    parts = [(row["method"], row["seed"], row["part"], bool(row["error"])) for row in rows]
    assert ("PCA", 1, "fit", False) in parts
    assert ("PCA", 0, "left out", False) in parts
    assert ("PCA", 1, "halves", False) not in parts
    assert ("test_real_bench:Failing", 1, "fit", True) in parts
    assert ("raw features", 0, "halves", False) not in parts
    between = next(row for row in rows if row["part"] == "seeds")
    assert (between["method"], between["agreement"], between["worst"]) == ("PCA", 1.0, 1.0)
    summary = (out / "summary.md").read_text(encoding="utf-8")
    assert "| PCA | 2 | 2 |" in summary
    assert "- test_real_bench:Failing, fit: DataError: no fit today" in summary
    assert "1 rows with missing numbers were dropped" in summary

    assert real.main(call) == 1
    assert "0 to do" in capsys.readouterr().out
    assert len((out / "rows.jsonl").read_text(encoding="utf-8").splitlines()) == len(rows)
    real.main([*call, "--retry-failed"])
    assert "4 to do" in capsys.readouterr().out
    (folder / "tiny.csv").write_text((folder / "tiny.csv").read_text().replace("warm", "hot"), encoding="utf-8")
    (folder / "tiny.toml").write_text(CARD.replace("warm", "hot"), encoding="utf-8")
    assert real.main([*call, "--seeds", "1", "--methods", "PCA"]) == 0
    assert "4 measurements, 4 to do" in capsys.readouterr().out
    summary = (out / "summary.md").read_text(encoding="utf-8")
    assert "| PCA | 1 | 2 |" in summary
    assert "kind == 'hot'" in summary


@pytest.mark.slow
def test_unmix_models_are_run_with_their_domains(bench, folder, tmp_path, monkeypatch, capsys):
    methods, method = bench("real_methods"), bench("unmix.bench.methods").Method
    for name in ("CGVAE", "IVAE"):
        short = method(name, name, {"max_epochs": 2, "n_restarts": 1})
        monkeypatch.setitem(methods.METHODS, name, short)
    call = ["--data", str(folder), "--seeds", "1", "--refits", "1", "--out", str(tmp_path / "out")]
    bench("real").main([*call, "--methods", "CGVAE", "IVAE"])
    said = capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    told = {row["method"]: row["told_domains"] for row in rows if row["part"] == "fit" and not row["error"]}
    assert told == {"CGVAE": False, "IVAE": True}, said


def test_committed_cards_can_be_read(bench, tmp_path):
    tables = bench("real_tables")
    for path in tables.CARDS.glob("*.toml"):
        name = tables._content(path)["file"]
        (tmp_path / name).touch()
        card = tables.read_card(path, tmp_path)
        assert card.title, path
        assert card.source, path
        assert card.licence, path
    assert len(tables.read_cards([tmp_path])) == len(list(tables.CARDS.glob("*.toml")))


def test_simulated_sensors_are_the_same_each_time_and_have_six_factors(bench):
    spec = importlib.util.spec_from_file_location("fetch", BENCHMARKS / "tables" / "fetch.py")
    fetch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fetch)
    frame = fetch.sensors_128()
    pd.testing.assert_frame_equal(frame, fetch.sensors_128())
    sensors = frame.filter(like="device_").to_numpy()
    assert sensors.shape == (6000, 128)
    values = np.linalg.eigvalsh(np.corrcoef(sensors.T))[::-1]
    assert values[5] > 20 * values[6]
