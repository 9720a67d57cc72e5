"""Studies: what they run, that they resume, that nothing is lost, and that their summaries are right."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from unmix import CGVAE
from unmix import own as imports
from unmix.bench import run as running
from unmix.bench import summary
from unmix.bench.methods import METHODS, Method
from unmix.bench.page import write_page
from unmix.bench.presets import PRESETS
from unmix.bench.run import ROWS, append_row, estimate_seconds, measure, missing_runs, read_rows, run_study
from unmix.bench.study import Block, Run, Study, read_study
from unmix.cli import app
from unmix.datasets import make_sparse_mixing
from unmix.errors import DataError, SettingError, StorageError

SMALL = {"n_samples": 300, "n_latents": 2, "n_features": 4}
OWN = Method("own", "study_methods:Truncated", domains=False)
BROKEN = Method("broken", "study_methods:Truncated", {"broken": True}, domains=False)
STUDY = Study("small", [Block([OWN, METHODS["PCA"]], {"n_domains": [2, 3]})], [0, 1], SMALL)
TEXT = """
name = "mine"
seeds = [3, 4]
[problem]
n_samples = 300
n_latents = 2
n_features = 4
[[block]]
methods = ["PCA", "mine"]
grid = { density = [0.5, 1.0] }
[method.mine]
estimator = "study_methods:Truncated"
domains = false
"""


def test_a_study_file_says_what_runs(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(TEXT)
    study = read_study(path, allow_import=True)
    runs = study.runs()
    assert [(run.seed, run.problem["density"], run.method.name) for run in runs] == [
        (seed, density, method) for seed in (3, 4) for density in (0.5, 1.0) for method in ("PCA", "mine")
    ]
    assert study.axes == ["density"]
    assert len({run.key for run in runs}) == 8


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n_samples", "n_sample", r"Unknown problem option in the study: \['n_sample'\]. Known: .*n_samples"),
        ('"PCA"', '"PCAA"', r"Unknown method in the study: \['PCAA'\]. Known: "),
        ("seeds", "sedes", r"Unknown key in the study: \['sedes'\]"),
        ("grid", "grids", r"Unknown key of a block in the study"),
        ("domains = false", "domain = false", r"Unknown key of method 'mine'"),
        ("[0.5, 1.0]", "0.5", r"grid.density must be a list of values; got 0.5"),
        ("study_methods:Truncated", "study_methods:Missing", r"cannot be imported: .*Missing.*Is it installed"),
        ("study_methods:Truncated", "Nothing", r"There is no estimator 'Nothing'. Known: .*CGVAE"),
        (
            "domains = false",
            "settings = { rate = 1 }",
            r"settings that .*Truncated does not take: \['rate'\]",
        ),
        ('methods = ["PCA", "mine"]', "methods = []", r"has no block with methods"),
        ("[problem]", "[problem", r"cannot be read"),
        ("seeds = [3, 4]", "seeds = 3", r"seeds must be a list of whole numbers from 0 on; got 3"),
        ("seeds = [3, 4]", "seeds = [-1]", r"seeds must be a list of whole numbers from 0 on; got \[-1\]"),
        ("domains = false", 'domains = "no"', r"domains true or false; got .* and 'no'"),
        ('"study_methods:Truncated"', "3", r"estimator must be a name .* got 3"),
        ('methods = ["PCA", "mine"]', 'methods = "PCA"', r"methods must be a list; got 'PCA'"),
        ("[[block]]", "[block]", r"block must be a list"),
        ("[method.mine]", "[method.PCA]\nsettings = { rate = 1 }\n[method.mine]", r"settings that PCA does not take"),
        ("grid = { density = [0.5, 1.0] }", "grid = 3", r"grid must be a table of names and values; got 3"),
    ],
)
def test_a_study_file_that_cannot_be(tmp_path, old, new, message):
    path = tmp_path / "study.toml"
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(SettingError, match=message):
        read_study(path, allow_import=True)


@pytest.mark.parametrize("estimator", ["os:system", "subprocess:Popen", "study_methods:Truncated", "never_seen:Class"])
def test_a_file_imports_only_what_is_allowed(tmp_path, estimator, monkeypatch):
    def imported(name):
        pytest.fail(f"{name} was imported")

    monkeypatch.setattr(imports, "importlib", SimpleNamespace(import_module=imported))
    path = tmp_path / "study.toml"
    for text in (TEXT, TEXT.replace('"PCA", "mine"', '"PCA"')):
        path.write_text(text.replace("study_methods:Truncated", estimator))
        with pytest.raises(SettingError, match=rf"'mine' of .* imports '{estimator}', which runs code.*--allow-import"):
            read_study(path)
        with pytest.raises(SettingError, match="--allow-import"):
            CliRunner().invoke(app, ["bench", str(path), "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert not (tmp_path / "out").exists()


def test_a_file_may_set_what_the_package_imports(tmp_path):
    path = tmp_path / "study.toml"
    text = TEXT.replace('estimator = "study_methods:Truncated"', "settings = { whiten = true }")
    path.write_text(text.replace("mine", "PCA") + "[method.CEBRA]\nsettings = { max_iterations = 9 }\n")
    assert {run.method.estimator for run in read_study(path).runs()} == {"PCA"}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("os:system", "a builtin_function_or_method"),
        ("os:environ", "a _Environ"),
        ("os:path", "a module"),
        ("subprocess:Popen", "a class without fit and transform"),
        ("subprocess:run", "a function"),
        ("sklearn.linear_model:Lasso", "a class without transform"),
        ("study_methods:armed", "a Truncated"),
        ("study_methods:Explosive", "a class without transform"),
    ],
)
def test_what_is_no_estimator_class_is_never_called(tmp_path, name, what):
    path = tmp_path / "study.toml"
    path.write_text(TEXT.replace("study_methods:Truncated", name))
    said = rf"The estimator '{name}' is {what}\. Name a class with fit\(X, y\) and transform\(X\)"
    with pytest.raises(SettingError, match=said):
        read_study(path, allow_import=True)
    with pytest.raises(SettingError, match=said):
        Study("s", [Block([Method("m", name)])], [0])


@pytest.mark.parametrize("content", ["raise ValueError('no')", "import sys; sys.exit(3)", "def broken(:", "1 / 0"])
def test_a_module_that_cannot_be_imported_is_named(tmp_path, content, monkeypatch):
    (tmp_path / "own_methods.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingError, match=r"'own_methods:A' cannot be imported: \w+: .*Is it installed"):
        Method("m", "own_methods:A").build(2, 0)


MODULE = """
from types import SimpleNamespace

import numpy as np


class First:
    def __init__(self, n_components=2):
        self.n_components = n_components

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.asarray(X)[:, : self.n_components]


def make(n_samples=200, shift=1.0, random_state=0):
    rng = np.random.default_rng(random_state)
    domains = rng.integers(0, 3, n_samples)
    z = rng.normal(size=(n_samples, 2)) + shift * domains[:, None]
    return SimpleNamespace(x=np.column_stack([z, z.sum(axis=1)]), z=z, domains=domains)


def farthest(z, latents, model, domains):
    assert len(domains) == len(z) and model.n_components == 2
    return np.abs(z - latents).max()


def text(z, latents):
    return "none"


def short(n_samples=200, random_state=0):
    return make(n_samples - 1)


def lacking(n_samples=200, random_state=0):
    return SimpleNamespace(x=np.zeros((n_samples, 2)))


def seedless(n_samples=200):
    return make(n_samples)


def demanding(n_samples, strength, random_state=0):
    return make(n_samples)
"""
OWN_TEXT = """
name = "own"
generator = "mine_of_study:make"
seeds = [0, 1]
[problem]
n_samples = 150
[metric]
farthest = "mine_of_study:farthest"
dci = "unmix.metrics:dci"
[[block]]
methods = ["first"]
grid = { shift = [0.0, 2.0] }
[method.first]
estimator = "mine_of_study:First"
domains = false
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a module that is not installed, as the current one."""
    (tmp_path / "mine_of_study.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("mine_of_study", None)


def test_a_study_of_a_generator_methods_and_metrics_of_the_current_folder(folder):
    path = folder / "study.toml"
    path.write_text(OWN_TEXT)
    with pytest.raises(SettingError, match=r"The method 'first' of .* imports 'mine_of_study:First', which runs code"):
        read_study(path)
    before = list(sys.path)
    done = CliRunner().invoke(
        app, ["bench", str(path), "--out", "out", "--allow-import", "--jobs", "1"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    assert sys.path == before
    rows = pd.DataFrame(read_rows(folder / "out" / ROWS).values())
    assert rows["error"].isna().all()
    assert rows["shift"].tolist() == [0.0, 2.0, 0.0, 2.0]
    assert (rows["farthest"] == 0).all()
    assert (rows["mcc"] == 1).all()
    assert rows["dci"].between(0.9, 1).all()
    settings = pd.read_csv(folder / "out" / "settings.csv")
    assert {"farthest", "dci"} <= {*settings.columns}
    assert settings["seeds"].tolist() == [2, 2]
    assert (folder / "out" / "study.html").exists()


def test_functions_are_a_generator_and_metrics_in_python(folder):
    study = read_study(_written(folder, OWN_TEXT), allow_import=True)
    module = sys.modules["mine_of_study"]
    own = Study("own", study.blocks, [0, 1], {"n_samples": 150}, module.make, {"farthest": module.farthest})
    assert own.runs()[0].generator is module.make
    named = Study("own", study.blocks, [0, 1], {"n_samples": 150}, "mine_of_study:make", {"farthest": module.farthest})
    assert [run.key for run in own.runs()] == [run.key for run in named.runs()]
    assert {run.key for run in own.runs()}.isdisjoint(run.key for run in study.runs())
    assert all(row["error"] is None for row in run_study(own, folder / "out", n_jobs=1))


def _written(folder, text):
    path = folder / "study.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "mine_of_study:make",
            "mine_of_study:missing",
            "The generator .* cannot be imported: AttributeError.*or in the current",
        ),
        (
            "mine_of_study:make",
            "mine_of_study:seedless",
            "must take n_samples and random_state; it takes .*Add random_state",
        ),
        ("mine_of_study:make", "make", "The generator of .* must be named as \"package.module:name\"; got 'make'"),
        ("mine_of_study:make", "mine_of_study:demanding", r"The generator needs the options \['strength'\]"),
        (
            "grid = { shift",
            "grid = { shifts",
            r"Unknown problem option in the study: \['shifts'\]. Known: \['n_samples', 'shift'\]",
        ),
        ("farthest = ", "mcc = ", "A metric is named 'mcc', like a column that every row has"),
        ("farthest = ", "shift = ", "A metric is named 'shift'"),
        ("unmix.metrics:dci", "unmix.metrics:none", "The metric dci: 'unmix.metrics:none' cannot be imported"),
        ("[metric]", "[metrics]", r"Unknown key in the study: \['metrics'\]"),
    ],
)
def test_a_generator_or_metric_that_cannot_be(folder, old, new, message):
    text = OWN_TEXT.replace(old, new)
    if "demanding" in new:
        text = text.replace("grid = { shift = [0.0, 2.0] }", "")
    with pytest.raises(SettingError, match=message):
        read_study(_written(folder, text), allow_import=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short", r"of n_samples = 2150 rows each.*got x \(2149, 3\), z \(2149, 2\) and 2149 domains"),
        ("lacking", "must return an object with x, z and domains; a SimpleNamespace without z and domains came"),
    ],
)
def test_what_a_generator_returns_is_checked_before_the_study_starts(folder, name, message):
    text = OWN_TEXT.replace("mine_of_study:make", f"mine_of_study:{name}").replace("grid = { shift = [0.0, 2.0] }", "")
    study = read_study(_written(folder, text), allow_import=True)
    with pytest.raises(DataError, match=message):
        run_study(study, folder / "out", n_jobs=1)


def test_a_metric_that_returns_no_number_is_a_failed_run(folder):
    text = OWN_TEXT.replace("mine_of_study:farthest", "mine_of_study:text")
    rows = run_study(read_study(_written(folder, text), allow_import=True), folder / "out", n_jobs=1)
    assert {row["error"] for row in rows} == {
        "DataError: The metric 'farthest' must return a finite number; got 'none'."
    }


def test_every_preset_builds_and_its_seeds_are_not_those_of_tuning():
    for name, preset in PRESETS.items():
        study = preset()
        assert study.name == name
        assert min(study.seeds) >= 400
        assert max(study.seeds) < 1000
        assert len(preset(1).runs()) * len(study.seeds) == len(study.runs())


@pytest.mark.slow
def test_finished_runs_are_not_computed_again(tmp_path):
    seen = []
    half = Study("small", STUDY.blocks, [0], SMALL)
    run_study(half, tmp_path, n_jobs=1, on_row=lambda row: seen.append(row["key"]))
    rows = run_study(STUDY, tmp_path, n_jobs=1, on_row=lambda row: seen.append(row["key"]))
    assert sorted(seen) == sorted(run.key for run in STUDY.runs())
    assert [row["key"] for row in rows] == [run.key for run in STUDY.runs()]
    assert run_study(STUDY, tmp_path, n_jobs=1, on_row=seen.append) == rows


@pytest.mark.slow
def test_processes_give_the_same_rows(tmp_path):
    study = Study("two", [Block([METHODS["PCA"], METHODS["FastICA"]])], [5], SMALL)
    alone, together = (run_study(study, tmp_path / str(n), n_jobs=n) for n in (1, 2))
    for one, two in zip(alone, together, strict=True):
        assert {**one, "seconds": 0} == {**two, "seconds": 0}


def test_an_option_at_its_default_is_the_same_run():
    plain, said = Run(SMALL, 0, OWN), Run({**SMALL, "noise": 0.05, "n_domains": 4}, 0, OWN)
    assert plain.key == said.key
    assert plain.key != Run({**SMALL, "noise": 0.06}, 0, OWN).key
    assert Run(SMALL, 0, METHODS["both"]).key == Run(SMALL, 0, Method("said", settings={"sparsity": "auto"})).key


def test_a_run_with_other_defaults_is_another_run(monkeypatch):
    runs = [Run(SMALL, 0, METHODS[name]) for name in ("both", "IVAE", "FastICA")]
    before = [run.key for run in runs]
    monkeypatch.setattr(CGVAE, "least_steps", 1_999)
    shorter = [run.key for run in runs]
    assert [a == b for a, b in zip(before, shorter, strict=True)] == [False, True, True]
    monkeypatch.setattr("unmix.bench.study.__version__", "0.0.0")
    assert not set(shorter) & {run.key for run in runs}


def test_the_axes_of_a_study():
    study = Study("axes", [Block([OWN], {"noise": [0.05, 0.5]}), Block([OWN], {"violation": [0.0, 0.5]})], [0], SMALL)
    assert len(study.runs()) == 3
    assert study.axes == ["noise", "violation"]
    noises = [run.problem.get("noise", 0.05) for run in study.runs() if run.key in study.along("violation")]
    assert noises == [0.05, 0.05]


@pytest.mark.slow
def test_a_page_of_blocks_of_different_sizes(tmp_path):
    blocks = [Block([METHODS["PCA"]], {"n_latents": [n], "n_domains": [2, 3]}) for n in (2, 3)]
    study = Study("sizes", blocks, [0], {"n_samples": 300, "n_features": 4})
    assert study.axes == ["n_latents", "n_domains"]
    assert study.along("n_latents") == set()
    assert len(study.along("n_domains")) == 4
    write_page(study, run_study(study, tmp_path, n_jobs=1), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "MCC of every method along n_domains" in text
    assert "MCC of every method along n_latents" not in text


def test_a_failed_run_is_a_row_and_can_be_tried_again(tmp_path):
    study = Study("fails", [Block([BROKEN, OWN])], [0], SMALL)
    rows = run_study(study, tmp_path, n_jobs=1)
    assert rows[0]["error"] == "RuntimeError: no convergence"
    assert rows[1]["error"] is None
    seen = []
    assert [run.method.name for run in missing_runs(study, read_rows(tmp_path / ROWS), retry_failed=True)] == ["broken"]
    run_study(study, tmp_path, n_jobs=1, retry_failed=True, on_row=lambda row: seen.append(row["method"]))
    assert seen == ["broken"]
    tables = write_page(study, rows, tmp_path / "page.html")
    assert "no convergence" in (tmp_path / "page.html").read_text()
    assert tables["settings"].set_index("method")["failed"].to_dict() == {"broken": 1, "own": 0}


def test_a_study_whose_runs_all_fail_has_a_page_that_says_why(tmp_path):
    (tmp_path / "s.toml").write_text(
        "seeds = [0]\n[problem]\nn_latents = 5\nn_features = 3\n"
        '[[block]]\nmethods = ["PCA", "FastICA"]\ngrid = { density = [0.3, 0.5] }\n'
    )
    done = CliRunner().invoke(app, ["bench", str(tmp_path / "s.toml"), "--out", str(tmp_path / "out"), "--jobs", "1"])
    assert done.exit_code == 0, done.output
    assert "4 of 4 runs ended in an error" in done.output
    assert "The first: SettingError: make_sparse_mixing needs" in done.output
    text = (tmp_path / "out" / "study.html").read_text()
    assert "every run failed" in text
    assert "make_sparse_mixing needs" in text
    settings = pd.read_csv(tmp_path / "out" / "settings.csv")
    assert settings["failed"].tolist() == [1] * 4
    assert settings["mcc"].isna().all()


def test_supports_as_an_axis(tmp_path):
    supports = [[[1, 0], [0, 1]], [[1, 1], [0, 1]]]
    problem = {"n_samples": 400, "n_latents": 2, "n_features": 2}
    study = Study("s", [Block([METHODS["PCA"]], {"support": supports})], [0], problem)
    found = write_page(study, run_study(study, tmp_path, n_jobs=1), tmp_path / "page.html")["settings"]
    assert found["support"].tolist() == ["[[1, 0], [0, 1]]", "[[1, 1], [0, 1]]"]
    assert found["domains_needed"].tolist() == [1, 3]


@pytest.mark.slow
def test_an_unfinished_line_is_dropped_and_a_damaged_one_is_named(tmp_path):
    rows = run_study(STUDY, tmp_path, n_jobs=1)
    path = tmp_path / ROWS
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert len(read_rows(path)) == len(rows) - 1
    seen = []
    run_study(STUDY, tmp_path, n_jobs=1, on_row=seen.append)
    assert len(seen) == 1
    assert len(path.read_text().splitlines()) == len(rows)
    path.write_bytes(b'{"key": \n' + whole)
    with pytest.raises(StorageError, match=r"Line 1 of .* is damaged: .* Remove that line"):
        read_rows(path)


@pytest.fixture
def instant(monkeypatch):
    """Rows that cost no fit."""
    monkeypatch.setattr(running, "measure", lambda run, threads=1: {"key": run.key, "error": None})


@pytest.mark.parametrize("ending", [b"", b"\r", b" "])
def test_a_last_line_without_a_newline_keeps_its_row(tmp_path, instant, ending):
    half = Study("small", STUDY.blocks, [0], SMALL)
    rows = run_study(half, tmp_path, n_jobs=1)
    path = tmp_path / ROWS
    path.write_bytes(path.read_bytes().rstrip() + ending)
    seen = []
    run_study(STUDY, tmp_path, n_jobs=1, on_row=seen.append)
    assert len(seen) == len(rows)
    assert list(read_rows(path)) == [run.key for run in STUDY.runs()]
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == [run.key for run in STUDY.runs()]


@pytest.mark.parametrize("size", [10, 70_000, 300_000])
@pytest.mark.parametrize("whole", [True, False])
def test_a_long_last_line_is_taken_or_cut_as_a_whole(tmp_path, size, whole):
    path = tmp_path / ROWS
    lines = [json.dumps({"key": str(k), "error": "x" * size}).encode() for k in range(3)]
    path.write_bytes(b"\n".join(lines) if whole else b"\n".join(lines)[:-5])
    append_row(path, {"key": "new", "error": None})
    assert list(read_rows(path)) == ["0", "1", *(["2"] if whole else []), "new"]


def test_a_second_study_in_the_folder_is_refused(tmp_path, instant):
    refused = []

    def again(row):
        for study in (STUDY, Study("other", [Block([OWN])], [7], SMALL)):
            with pytest.raises(
                StorageError, match=r"Another study is running in .*Wait until it ends, or choose another"
            ):
                run_study(study, tmp_path, n_jobs=1)
        with pytest.raises(StorageError, match="Another study is running"):
            running.claim_rows(tmp_path / ROWS)
        refused.append(row["key"])

    rows = run_study(STUDY, tmp_path, n_jobs=1, on_row=again)
    assert len(refused) == len(rows) == len((tmp_path / ROWS).read_text().splitlines())
    assert run_study(STUDY, tmp_path, n_jobs=1) == rows


def test_a_process_that_was_killed_leaves_no_lock(tmp_path, instant):
    pytest.importorskip("fcntl")
    lock = "import fcntl, sys, time; file = open(sys.argv[1], 'ab'); fcntl.flock(file, fcntl.LOCK_EX)"
    code = f"{lock}; print(flush=True); time.sleep(60)"
    words = [sys.executable, "-c", code, str(tmp_path / ROWS)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(StorageError, match="Another study is running"):
            run_study(STUDY, tmp_path, n_jobs=1)
        process.kill()
        process.wait()
    assert len(run_study(STUDY, tmp_path, n_jobs=1)) == 8


def test_disks_without_locks_are_used_without(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def unknown(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    running.claim_rows(tmp_path / ROWS)


def test_the_rows_of_another_study_are_left_alone(tmp_path, instant):
    run_study(STUDY, tmp_path, n_jobs=1)
    before = (tmp_path / ROWS).read_bytes()
    other = Study("other", STUDY.blocks, [5], SMALL)
    with pytest.raises(StorageError, match=r"holds 8 rows, and none is of a run of the study 'other'.*another folder"):
        run_study(other, tmp_path, n_jobs=1)
    assert (tmp_path / ROWS).read_bytes() == before
    wider = Study("wider", STUDY.blocks, [0, 1, 5], SMALL)
    assert len(run_study(wider, tmp_path, n_jobs=1)) == 12


def test_a_full_disk_keeps_what_is_finished(tmp_path, monkeypatch):
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space left.*Finished rows are kept; make space and start"):
        run_study(STUDY, tmp_path, n_jobs=1)
    assert len(read_rows(tmp_path / ROWS)) >= 2


def test_a_row_holds_the_scores_of_fresh_rows():
    row = measure(Run({**SMALL, "noise": 0.0, "density": 0.5}, 0, OWN))
    data = make_sparse_mixing(**{**SMALL, "noise": 0.0, "n_samples": 300 + running.TEST_ROWS}, random_state=0)
    fresh = slice(300, None)
    correlations = np.abs(np.corrcoef(data.z[fresh].T, data.x[fresh, :2].T)[:2, 2:])
    best = max(correlations.trace(), correlations[0, 1] + correlations[1, 0]) / 2
    assert row["mcc"] == pytest.approx(best, abs=0.03)
    assert row["domains_needed"] == data.domains_needed
    assert row["n_samples"] == 300
    json.dumps(row)


@pytest.mark.slow
def test_the_estimate_counts_what_is_missing():
    quick = Method("quick", settings={"n_restarts": 1})
    study = Study("time", [Block([quick])], [0, 1], {**SMALL, "n_samples": 600})
    runs = missing_runs(study, {})
    whole = estimate_seconds(runs, 1)
    assert whole > 0
    assert estimate_seconds(missing_runs(study, {run.key: {"error": None} for run in runs}), 1) == 0
    assert estimate_seconds(Study("none", [Block([METHODS["PCA"]])], [0], SMALL).runs(), 1) == 0


def test_intervals_and_margins():
    values = pd.Series([0.9, 0.95, 0.99, 0.97])
    low, high = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    assert summary.interval(values) == pytest.approx((values.mean(), low, high))
    problem = {"n_latents": 2, "error": None}
    rows = pd.DataFrame(
        {"method": method, "seed": seed, "n_domains": given, "domains_needed": needed, "mcc": mcc, **problem}
        for method, shift in (("both", 0.0), ("other", 0.2))
        for seed, given, needed, base in ((0, 2, 1, 0.9), (1, 3, 3, 0.8), (2, 3, 3, 0.7), (3, 5, 5, 0.95))
        for mcc in [base - shift * (1 + seed)]
    )
    found = summary.margins(rows, ["n_domains"]).set_index("problems")
    assert found.loc["all", "pairs"] == 4
    assert found.loc["all", "margin"] == pytest.approx(0.2 * 2.5)
    assert found.loc["promised to both alone", "pairs"] == 2
    assert found.loc["promised to both alone", "margin"] == pytest.approx(0.5)


def test_time_to_reach_counts_the_runs_that_failed_to():
    rows = pd.DataFrame({"method": "a", "mcc": [0.99, 0.5, 0.98], "seconds": [10.0, 20.0, 30.0], "error": None})
    found = summary.time_to_reach(rows).iloc[0]
    assert found[["runs", "reached", "seconds per run", "seconds to reach"]].tolist() == [3, 2, 20.0, 30.0]
    assert np.isnan(summary.time_to_reach(rows.assign(mcc=0.1)).iloc[0]["seconds to reach"])


@pytest.mark.slow
def test_bench_on_the_command_line(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(TEXT)
    words = ["bench", str(path), "--out", str(tmp_path / "out"), "--jobs", "1", "--allow-import"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    assert "8 runs, 8 to do" in first.output
    assert {"rows.jsonl", "study.html", "settings.csv", "margins.csv"} <= set(os.listdir(tmp_path / "out"))
    assert "8 runs, 0 to do" in CliRunner().invoke(app, words).output
    for study, more, message in (("nothing", [], "There is no study"), (str(path), ["--seeds", "2"], "its own seeds")):
        with pytest.raises(SettingError, match=message):
            CliRunner().invoke(app, ["bench", study, "--out", str(tmp_path / "x"), *more], catch_exceptions=False)


@pytest.mark.slow
def test_the_page_in_a_browser(browser, tmp_path):
    whole = Method("both", OWN.estimator, domains=False)
    study = Study("page", [Block([METHODS["PCA"], whole], {"n_domains": [2, 3], "density": [0.5, 1.0]})], [0, 1], SMALL)
    write_page(study, run_study(study, tmp_path, n_jobs=1), tmp_path / "page.html")
    for width in (360, 1440):
        page = browser.new_page(viewport={"width": width, "height": 900})
        complaints = []
        page.on("pageerror", lambda error, found=complaints: found.append(str(error)))
        page.on("console", lambda message, found=complaints: found.append(message.text))
        page.goto((tmp_path / "page.html").as_uri())
        assert complaints == []
        assert len(page.evaluate("[...document.images].filter(i => i.naturalWidth > 100)")) == 2 + 2 + 1
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.close()


@pytest.mark.slow
def test_an_interrupted_study_keeps_its_rows_and_goes_on(tmp_path):
    seen = []

    def stop(row):
        seen.append(row["key"])
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(STUDY, tmp_path, n_jobs=1, on_row=stop)
    assert list(read_rows(tmp_path / ROWS)) == seen
    run_study(STUDY, tmp_path, n_jobs=1, on_row=lambda row: seen.append(row["key"]))
    assert sorted(seen) == sorted(run.key for run in STUDY.runs())


def wait_for(what, seconds=300):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("number", "code", "group"), [(signal.SIGTERM, 143, False), (signal.SIGINT, 130, True)])
def test_a_stopped_study_ends_its_workers(tmp_path, number, code, group):
    pids = tmp_path / "pids"
    pids.mkdir()
    text = TEXT.replace('methods = ["PCA", "mine"]', 'methods = ["mine", "endless"]')
    text += (
        f'[method.endless]\nestimator = "study_methods:Endless"\nsettings = {{ pids = "{pids}" }}\ndomains = false\n'
    )
    (tmp_path / "study.toml").write_text(text)
    words = ["bench", "study.toml", "--out", "out", "--jobs", "2", "--no-estimate", "--allow-import"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    process = subprocess.Popen(
        [sys.executable, "-m", "unmix", *words],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    rows = tmp_path / "out" / ROWS
    try:
        wait_for(lambda: len(list(pids.iterdir())) == 2 and rows.exists())
        # Ctrl-C in a terminal reaches the workers too, SIGTERM this process alone.
        os.killpg(process.pid, number) if group else process.send_signal(number)
        _, said = process.communicate(timeout=100)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == code
    assert f"Finished runs are in out/{ROWS}. Continue with:\n\n  unmix {' '.join(words)}" in said
    assert "Traceback" not in said
    wait_for(lambda: not any(alive(path.name) for path in pids.iterdir()), 60)
    assert {row["method"] for row in read_rows(rows).values()} == {"mine"}
