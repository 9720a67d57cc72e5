"""Generators of other groups draw what they say, and the comparison on them keeps every row."""

import importlib
import json
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from unmix.bench.methods import METHODS
from unmix.errors import SettingError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    generators, others = importlib.import_module("generators"), importlib.import_module("others")
finally:
    sys.path.remove(str(BENCHMARKS))

NAMES = list(generators.PROBLEMS)
NOISY = {"clusters", "sparse-vae", "sparse-vae-correlated"}
ONE_DOMAIN = {"sparse-vae", "sparse-gaussian"}


@cache
def draw(name, seed=0):
    return generators.PROBLEMS[name](seed)


def ks(data, domain, latent):
    """p-value for one distribution of the latent in this domain and in the first."""
    return stats.ks_2samp(*(data.z[data.domains == which, latent] for which in (0, domain))).pvalue


def differ(data, latent):
    """p-value for one position, or one spread, of the latent in all domains."""
    values = data.z[:, latent]
    parts = [[kind[data.domains == which] for which in range(len(data.changing))] for kind in (values, np.abs(values))]
    return min(stats.kruskal(*part).pvalue for part in parts)


def jacobian(mixing, z, step=1e-6):
    moves = step * np.eye(z.shape[1])
    return np.stack([(mixing(z + move) - mixing(z - move)) / (2 * step) for move in moves], axis=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_seeds(name):
    data, again, other = draw(name), generators.PROBLEMS[name](0), draw(name, 1)
    n, labels = len(data.x), np.unique(data.domains)
    assert data.name == name
    assert data.notes
    assert 3_000 <= n <= 8_000
    assert data.domains.shape == (n,)
    assert data.z.shape == (n, data.changing.shape[1])
    assert data.x.shape[1] >= data.z.shape[1]
    assert labels.tolist() == list(range(len(data.changing)))
    assert (len(labels) == 1) == (name in ONE_DOMAIN)
    assert (np.diff(data.domains) >= 0).all()
    assert np.isfinite(data.x).all()
    np.testing.assert_array_equal(data.x, again.x)
    np.testing.assert_array_equal(data.z, again.z)
    assert not np.array_equal(data.x[:100], other.x[:100])
    assert data.noiseless == np.allclose(data.mixing(data.z), data.x, atol=1e-12) == (name not in NOISY)


@pytest.mark.parametrize("name", NAMES)
def test_the_latents_that_should_change_do(name):
    data = draw(name)
    assert not data.changing[0].any()
    for latent in np.flatnonzero(data.changing.any(axis=0)):
        assert differ(data, latent) < 1e-6
        if name.startswith("interventions"):
            assert max(ks(data, domain, latent) for domain in np.flatnonzero(data.changing[:, latent])) < 1e-3
    if name in {"content-style", "content-style-deep", "invariant-linear", "sparse-vae-correlated", "interventions"}:
        stays = np.argwhere(~data.changing[1:])
        assert min(ks(data, domain + 1, latent) for domain, latent in stays) > 1e-4


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("sparse-vae")])
def test_mixings_can_be_undone(name):
    data = draw(name)
    rows = np.random.default_rng(0).permutation(len(data.z))[:60]
    derivatives = jacobian(data.mixing, data.z[rows])
    sizes = np.linalg.svd(derivatives, compute_uv=False)
    assert (sizes[:, -1] > 1e-6 * sizes[:, 0]).all()
    if derivatives.shape[1] == derivatives.shape[2]:
        assert len(set(np.linalg.slogdet(derivatives).sign)) == 1


def test_settings_are_the_published_ones():
    style = draw("content-style")
    moments = [(z.mean(axis=0), z.std(axis=0)) for z in np.split(style.z, 9)]
    assert all((np.abs(mean[2:]) < 4.1).all() and (scale[2:] > 0.005).all() for mean, scale in moments)
    assert all((scale[2:] < 1.1).all() and (np.abs(scale[:2] - 1) < 0.15).all() for _, scale in moments)
    shifted = draw("interventions")
    assert all(abs(shifted.z[shifted.domains == i + 1, i].mean() - 2) < 0.15 for i in range(4))
    linear = draw("interventions-linear")
    still = [linear.z[linear.domains == i + 1, i].var() for i in range(5)]
    assert 1 / 64 * 0.8 < min(still) < max(still) < 1 / 36 * 1.2
    scales = np.array([z.std(axis=0) for z in np.split(draw("tcl-lrelu").z, 40)])
    assert 0.4 < scales.min() < 1.0 < 2.5 < scales.max() < 3.5
    tails = draw("heavy-tails")
    own = tails.z[tails.domains == 0] / np.median(np.abs(tails.z[tails.domains == 0]), axis=0)
    median = stats.t(3).ppf(0.75)
    assert all(stats.kstest(column * median, stats.t(3).cdf).pvalue > 0.001 for column in own.T)
    support = jacobian(draw("sparse-gaussian").mixing, np.zeros((1, 3)))[0]
    np.testing.assert_array_equal(np.abs(support) > 1e-6, np.array([[0, 1, 1], [0, 1, 0], [1, 1, 0]]) > 0)
    correlated = draw("sparse-vae-correlated")
    found = [np.corrcoef(z.T)[0, 1] for z in np.split(correlated.z, 5)]
    np.testing.assert_allclose(found, [0.0, 0.2, 0.4, 0.6, 0.8], atol=0.08)


def run(monkeypatch, folder, *words):
    monkeypatch.setattr(sys, "argv", ["others.py", "--out", str(folder), *words])
    others.main()


@pytest.mark.slow
def test_a_failure_is_a_row_and_a_second_run_computes_nothing(monkeypatch, tmp_path, capsys):
    words = ["--methods", "PCA", "sklearn.decomposition:NMF", "--problems", "sparse-gaussian", "--seeds", "2"]
    run(monkeypatch, tmp_path, *words)
    printed, text = capsys.readouterr().out, (tmp_path / "rows.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["method"] for row in rows] == ["PCA", "sklearn.decomposition:NMF"] * 2
    assert "sparse-gaussian, sklearn.decomposition:NMF, seed 1: ValueError: Negative" in printed
    assert rows[0]["error"] is None
    assert 0 < rows[0]["mcc"] <= 1
    table = (tmp_path / "summary.md").read_text()
    mean, worst = np.mean([rows[0]["mcc"], rows[2]["mcc"]]), min(rows[0]["mcc"], rows[2]["mcc"])
    assert f"| sparse-gaussian | 8000 | 3 | 3 | 1 | {mean:.3f} ({worst:.3f}) |" in table
    assert "- sparse-gaussian, sklearn.decomposition:NMF, seed 0: ValueError" in table
    run(monkeypatch, tmp_path, *words)
    assert (tmp_path / "rows.jsonl").read_text() == text
    assert "seed 0: MCC" not in capsys.readouterr().out
    run(monkeypatch, tmp_path, *words, "--retry-failed")
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_scores_of_the_latents_that_change(monkeypatch):
    row = others.measure("invariant-linear", METHODS["PCA"], 0, {})
    assert row["error"] is None
    assert row["domains"] == 4
    assert 0 < row["mcc_changing"] != row["mcc"]
    assert others.measure("invariant-linear", METHODS["PCA"], 0, {row["key"]: row}) is row
    assert others.measure("imca", METHODS["PCA"], 0, {})["mcc_changing"] is None


def test_methods_by_name(monkeypatch, tmp_path, capsys):
    assert others.shortened(METHODS["both"], 2).build(3, 0).max_epochs == 2
    assert others.shortened(METHODS["PCA"], 2) is METHODS["PCA"]
    assert others.find_method("sklearn.decomposition:NMF").build(3, 0).n_components == 3
    with pytest.raises(SettingError, match=r"no method 'neither'.*Known: .*FastICA"):
        others.find_method("neither")
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, "--methods", "neither")
    assert "no method 'neither'" in capsys.readouterr().err
