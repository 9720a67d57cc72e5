"""The command line, run as a user runs it."""

import json
import os
import signal
import stat
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import unmix
from unmix.cli import app
from unmix.errors import DataError, SettingError, StorageError
from unmix.files import replacing

QUICK = ["--latents", "2", "--restarts", "2", "--epochs", "3", "--verbose", "0"]


def run(*words, cwd):
    command = [sys.executable, "-m", "unmix", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def table(frame, labels, tmp_path):
    frame.assign(domain=labels, cell=[f"c{i}" for i in range(600)]).to_csv(tmp_path / "t.csv", index=False)
    return tmp_path


@pytest.mark.slow
def test_fit_transform_report(table, frame):
    done = run("fit", "t.csv", "--domain", "domain", "--drop", "cell", "--out", "runs/a", *QUICK, cwd=table)
    assert done.returncode == 0, done.stderr
    assert "report  runs/a/report.html" in done.stdout
    names = {path.name for path in (table / "runs/a").iterdir()}
    assert names == {
        "README.txt",
        "config.json",
        "schema.json",
        "model.safetensors",
        "history.jsonl",
        "restarts.csv",
        "mixing.csv",
        "effects.csv",
        "latents.csv",
        "report.html",
        "done.json",
    }
    text = (table / "runs/a/README.txt").read_text()
    assert all(name in text for name in names - {"README.txt"})
    assert "selection.csv" not in text
    assert json.loads((table / "runs/a/config.json").read_text())["settings"]["n_latents"] == 2
    done = run("transform", "runs/a", "t.csv", "--out", "z.csv", cwd=table)
    assert done.returncode == 0, done.stderr
    z = pd.read_csv(table / "z.csv")
    assert list(z.columns) == ["domain", "cell", "z0", "z1"]
    np.testing.assert_allclose(z[["z0", "z1"]], unmix.load(table / "runs/a").transform(frame), rtol=1e-6)
    own = pd.read_csv(table / "runs/a/latents.csv")
    pd.testing.assert_frame_equal(own, z)
    assert run("report", "runs/a", "--out", "again.html", cwd=table).returncode == 0
    assert (table / "again.html").stat().st_size > 50_000
    assert sorted(path.name for path in table.iterdir()) == ["again.html", "runs", "t.csv", "z.csv"]


@pytest.mark.slow
def test_columns_that_are_called_like_latents_keep_another_name(table):
    whole = pd.read_csv(table / "t.csv")
    assert run("fit", "t.csv", "--domain", "domain", "--drop", "cell", "--out", "a", *QUICK, cwd=table).returncode == 0
    whole.assign(z0=7.0).to_csv(table / "again.csv", index=False)
    done = run("transform", "a", "again.csv", "--out", "z.parquet", cwd=table)
    assert done.returncode == 0, done.stderr
    assert "they are written as ['z0 of the table']" in done.stderr
    z = pd.read_parquet(table / "z.parquet")
    assert list(z.columns) == ["domain", "cell", "z0 of the table", "z0", "z1"]
    np.testing.assert_allclose(z["z0"], pd.read_csv(table / "a/latents.csv")["z0"], rtol=1e-6)


@pytest.mark.slow
def test_a_model_of_an_array_takes_the_numbers_of_a_file(table, frame, labels):
    model = unmix.CGVAE(n_latents=2, n_restarts=1, max_epochs=2, verbose=0).fit(frame.to_numpy(), labels)
    model.save(table / "m")
    frame.assign(domain=labels, cell="c").to_csv(table / "rows.csv")
    done = run("transform", "m", "rows.csv", "--out", "z.csv", cwd=table)
    assert done.returncode == 0, done.stderr
    z = pd.read_csv(table / "z.csv")
    assert list(z.columns) == ["row", "domain", "cell", "z0", "z1"]
    np.testing.assert_allclose(z[["z0", "z1"]], model.transform(frame.to_numpy()), rtol=1e-5)
    assert run("audit", "m", "rows.csv", cwd=table).returncode == 0
    frame.assign(domain=labels, more=1.0).to_csv(table / "rows.csv", index=False)
    done = run("transform", "m", "rows.csv", "--out", "y.csv", cwd=table)
    assert f"{len(frame.columns) + 1} numeric columns beside the domains" in done.stderr


@pytest.mark.slow
def test_warnings_are_one_line(table, frame, labels):
    frame.assign(domain=labels).to_csv(table / "rows.csv")
    done = run("fit", "rows.csv", "--domain", "domain", "--out", "r", *QUICK, cwd=table)
    assert done.returncode == 0, done.stderr
    assert "DataWarning: The first column of rows.csv has no name" in done.stderr
    assert "warnings.warn" not in done.stderr
    assert list(pd.read_csv(table / "r/latents.csv").columns) == ["row", "domain", "z0", "z1"]


@pytest.mark.slow
def test_cells_keep_their_names(table, frame, labels):
    observed = pd.DataFrame({"domain": labels, "n_counts": 7.0}, index=[f"cell{k}" for k in range(600)])
    cells = anndata.AnnData(frame.to_numpy(), obs=observed)
    cells.var_names = list(frame.columns)
    cells.write_h5ad(table / "t.h5ad")
    done = run("fit", "t.h5ad", "--domain", "domain", "--out", "r", *QUICK, cwd=table)
    assert done.returncode == 0, done.stderr
    latents = pd.read_csv(table / "r/latents.csv")
    assert list(latents.columns) == ["obs_names", "domain", "n_counts", "z0", "z1"]
    assert latents["obs_names"].tolist() == list(observed.index)
    assert pd.read_csv(table / "r/mixing.csv").iloc[:, 0].tolist() == list(frame.columns)
    assert run("transform", "r", "t.h5ad", "--out", "z.csv", cwd=table).returncode == 0
    pd.testing.assert_frame_equal(pd.read_csv(table / "z.csv"), latents)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "t.csv", "--domain", "batch", "--out", "r"], "no column 'batch'"),
        (["fit", "none.csv", "--out", "r"], "no file at none.csv"),
        (["fit", "t.csv", "--domain", "domain", "--out", "r"], "'cell' are not numeric"),
        (["fit", "t.csv", "--domain", "domain", "--within", "cell", "--out", "r"], "COLUMN:PARENT"),
        (
            ["fit", "t.csv", "--domain", "domain", "--drop", "cell", "--prior", "x", "--out", "r"],
            "prior must be one of",
        ),
        (["fit", "t.csv", "--out", "r", "--resume"], "no interrupted run in r"),
        (["transform", "r", "t.csv", "--out", "z.csv"], "is not there"),
        (["transform", "r", "t.csv", "--out", "z.doc"], "must end in .csv or .parquet"),
        (["report", "r"], "is not there"),
    ],
)
def test_errors_are_one_message_and_leave_nothing(table, words, message):
    done = run(*words, cwd=table)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in table.iterdir()] == ["t.csv"]


@pytest.mark.slow
def test_an_existing_folder_is_refused_unless_told(table):
    words = ["fit", "t.csv", "--domain", "domain", "--drop", "cell", "--out", "r", *QUICK]
    assert run(*words, cwd=table).returncode == 0
    done = run(*words, cwd=table)
    assert done.returncode == 2
    assert "add --overwrite" in done.stderr
    assert run(*words, "--overwrite", cwd=table).returncode == 0
    (table / "mine").mkdir()
    (table / "mine" / "thesis.tex").write_text("x")
    elsewhere = ["mine" if word == "r" else word for word in words]
    done = run(*elsewhere, "--overwrite", cwd=table)
    assert done.returncode == 2
    assert "no run of unmix" in done.stderr
    assert (table / "mine" / "thesis.tex").read_text() == "x"


@pytest.mark.slow
def test_interrupt_and_resume(table):
    words = ["fit", "t.csv", "--domain", "domain", "--drop", "cell", "--out", "r", "--latents", "2", "--restarts", "2"]
    words += ["--epochs", "300", "--verbose", "2"]
    command = [sys.executable, "-m", "unmix", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=table, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    )
    for line in process.stderr:
        if line.startswith("epoch 30:"):
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert "Continue with" in rest
    assert "--resume" in rest
    assert sorted(path.name for path in (table / "r").iterdir()) == ["checkpoint.safetensors", "interrupted.txt"]
    refused = run(*words, cwd=table)
    assert refused.returncode == 2
    assert "add --resume" in refused.stderr
    done = run(*words, "--resume", cwd=table)
    assert done.returncode == 0, done.stderr
    assert (table / "r" / "done.json").exists()
    assert not (table / "r" / "checkpoint.safetensors").exists()
    epochs = pd.read_json(table / "r" / "history.jsonl", lines=True)["epoch"]
    assert epochs.min() == 1
    assert sorted(epochs.unique()) == list(range(1, epochs.max() + 1))


def test_help_has_examples(tmp_path):
    assert "unmix fit cells.csv --domain condition" in run("fit", "--help", cwd=tmp_path).stdout
    assert "Example" in run("transform", "--help", cwd=tmp_path).stdout
    assert run("--version", cwd=tmp_path).stdout.startswith("unmix 0.")


@pytest.mark.slow
def test_a_model_of_images_is_not_given_a_table(tmp_path):
    digits = unmix.datasets.load_digits_two_colours()
    model = unmix.CGVAEImages(n_latents=2, n_restarts=1, max_epochs=1, widths=(4,), n_codes=3, hidden=(4,), verbose=0)
    model.fit(digits.images[:80], digits.domains[:80]).save(tmp_path / "run")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    for words in (["transform", "run", "t.csv", "--out", "z.csv"], ["audit", "run", "t.csv"]):
        done = run(*words, cwd=tmp_path)
        assert done.returncode == 2
        assert "run was fitted on images, not on a table" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "z.csv").exists()


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["fit", "semi.csv", "--domain", "d", "--out", "r"], DataError, r"looks separated by ';'.*Save it with commas"),
        (["fit", "ok.csv", "--domain", "d", "--out", "ok.csv"], StorageError, "ok.csv is a file; a run needs a folder"),
        (["bench", "quick", "--out", "ok.csv"], StorageError, "ok.csv is a file; a study needs a folder"),
        (["bench", "quick", "--out", "b", "--jobs", "0"], SettingError, "--jobs must be a number of processes"),
        (
            ["fit", "ok.csv", "--domain", "d", "--latents", "1", "--sparsity", "inf", "--out", "r"],
            SettingError,
            "finite",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_computed(tmp_path, monkeypatch, words, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "semi.csv").write_text("a;b;d\n1;2;x\n")
    (tmp_path / "ok.csv").write_text("a,b,d\n1,2,x\n")
    with pytest.raises(error, match=message):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert sorted(os.listdir(tmp_path)) == ["ok.csv", "semi.csv"]


@pytest.mark.parametrize("words", [["fit", "t.csv", "--out", "r"], ["plan", "--density", "0.5"]])
def test_a_seed_below_zero_is_refused(words):
    done = CliRunner().invoke(app, [*words, "--seed", "-1"])
    assert done.exit_code == 2
    assert "Invalid value for '--seed'" in done.output


def test_only_a_regular_file_is_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, what in (("pipe", "no regular file"), ("folder", "a folder")):
        with pytest.raises(StorageError, match=f"{name} is {what}, so it is not replaced"), replacing(tmp_path / name):
            pass
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]
