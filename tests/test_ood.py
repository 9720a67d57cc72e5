"""The study of labels in new domains, and what it compares with."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from unmix import CGVAE
from unmix.baselines import IMSDA
from unmix.bench import ood
from unmix.bench.alignments import alignments, coral, gaussian_transport
from unmix.bench.ood import run_ood, table_of
from unmix.cli import app


def test_alignments_give_the_target_its_moments():
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((4000, 2)), rng.standard_normal((4000, 2)) @ [[2.0, 0.5], [0.0, 0.7]] + 3.0
    moved = gaussian_transport(source, target, ridge=0.0)
    np.testing.assert_allclose(moved.mean(axis=0), target.mean(axis=0), atol=1e-8)
    np.testing.assert_allclose(np.cov(moved.T), np.cov(target.T), atol=1e-6)
    # Of one dimension the map between Gaussians is the line through their means and spreads.
    line = gaussian_transport(source[:, :1], target[:, :1], ridge=0.0)
    expected = target[:, 0].mean() + (source[:, 0] - source[:, 0].mean()) * target[:, 0].std() / source[:, 0].std()
    np.testing.assert_allclose(line[:, 0], expected, rtol=1e-6)
    whole = coral(source, target)
    np.testing.assert_allclose(np.cov(whole.T) + np.eye(2), np.cov(target.T) + np.eye(2), rtol=0.6)


def test_far_moves_the_causes_that_do_not_matter_alone():
    problem = ood._problem(3, 300, 6)
    near, far = problem.target["inside"], problem.target["far"]
    np.testing.assert_array_equal(near[1], far[1])
    moved, drawn = (np.abs(own[0].mean(axis=0) - problem.x.mean(axis=0)) / problem.x.std(axis=0) for own in (far, near))
    # Two features depend on nothing but the cause of the label.
    assert (moved < 0.03).tolist() == (drawn < 0.03).tolist() == [k in (3, 8) for k in range(10)]
    assert np.median(moved) > np.median(drawn)
    assert len(problem.labelled["far"][0]) == len(problem.labelled["inside"][0]) == 300
    assert set(ood._problem(3, 300, 4).target) == {"few domains", "few domains, far"}


def fake(key, seed, n_rows, n_domains=6):
    kinds = ood._kinds(n_rows, n_domains)
    scores = {ood.OWN: 0.8, "raw features": 0.5 + 0.01 * (seed % 2), ood.ORACLE: 0.82}
    results = [{"kind": kind, "method": m, "score": s, "note": ""} for kind in kinds for m, s in scores.items()]
    return {"key": key, "seed": seed, "rows": n_rows, "results": results, "cpu_seconds": 0.0, "error": None}


def test_rows_are_kept_and_the_table_has_paired_intervals(tmp_path, monkeypatch):
    monkeypatch.setattr(ood, "measure_ood", fake)
    found = run_ood(tmp_path, 4, n_jobs=1)
    assert len(found) == 7 * 4 * 3
    table = table_of(found).set_index(["kind", "method"])
    assert table.loc[("inside", "raw features"), "better_by"] == pytest.approx(0.295)
    assert table.loc[("inside", "raw features"), "better_low"] > 0.28
    assert table.loc[("few", ood.ORACLE), "better_high"] == pytest.approx(-0.02)
    assert table["won"].loc["inside"].to_dict() == {ood.OWN: 0, "raw features": 4, ood.ORACLE: 0}
    assert table["boot_low"].isna().all()
    more = pd.DataFrame({"kind": "few", "seed": range(12), "method": ood.OWN, "score": 0.9})
    other = more.assign(method="raw features", score=[0.88] * 11 + [-1.0])
    skewed = table_of(pd.concat([more, other])).set_index("method").loc["raw features"]
    assert skewed["better_low"] < 0 < skewed["boot_low"] < skewed["better_by"] < skewed["boot_high"]
    monkeypatch.setattr(ood, "measure_ood", None)
    pd.testing.assert_frame_equal(run_ood(tmp_path, 4, n_jobs=1), found)


def test_unmix_bench_ood(tmp_path, monkeypatch):
    monkeypatch.setattr(ood, "measure_ood", fake)
    words = ["bench", "ood", "--out", str(tmp_path / "out"), "--seeds", "2", "--jobs", "1"]
    said = CliRunner().invoke(app, words, catch_exceptions=False)
    assert said.exit_code == 0
    assert set(pd.read_csv(tmp_path / "out" / "ood.csv")["kind"]) == set(ood.KINDS)
    assert "raw features" in said.output


@pytest.mark.slow
def test_one_small_problem_from_end_to_end(monkeypatch):
    monkeypatch.setattr(ood, "TARGET_ROWS", 40)
    monkeypatch.setattr(ood, "FEATURES", 6)
    monkeypatch.setattr(ood, "LATENTS", 2)
    short = {"n_restarts": 1, "max_epochs": 1}
    monkeypatch.setattr(ood, "CGVAE", lambda **words: CGVAE(**words | short))
    monkeypatch.setattr(ood, "IMSDA", lambda **words: IMSDA(**words | short))
    monkeypatch.setattr(ood, "ROWS", 40)
    row = ood.measure_ood("k", 3, 40)
    kinds = {own["kind"] for own in row["results"]}
    assert kinds == {"inside", "mixing", "label", "far"}
    assert len(row["results"]) == 4 * (8 + len(alignments()))
    assert all(-1.0 <= own["score"] <= 1.0 for own in row["results"])
