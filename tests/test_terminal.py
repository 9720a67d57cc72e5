"""Nothing that a label, a file's name or a message holds acts on the terminal."""

import io
import json
import os
import sys
import unicodedata
import warnings

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from unmix.bench.methods import Method
from unmix.bench.page import write_page
from unmix.bench.run import run_study
from unmix.bench.study import Block, Study
from unmix.cli import app, main
from unmix.data.tables import write_table
from unmix.estimators.progress import run_bar, say
from unmix.terminal import printable, printable_output

HOSTILE = "a\x1b]0;owned\x07\x1b[31m\x9b2J\r\x7f\u202e\u2066\u2028z"
SHOWN = r"a\u001b]0;owned\u0007\u001b[31m\u009b2J\u000d\u007f\u202e\u2066\u2028z"
SAFE = "tab\tline\n é 中 עברית \u200f 👩\u200d🔬 ²"


def acts(text):
    """Characters that a terminal obeys or that hide the order of others."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") and c not in "\n\t"} | {
        c for c in text if c in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    }


def test_every_character_that_acts_is_shown_and_no_other():
    every = "".join(map(chr, range(0x3000))) + "\ud800\udfff" + SAFE
    assert acts(printable(every)) == set()
    assert {c for c in every if printable(c) != c} == acts(every)
    assert printable(HOSTILE) == SHOWN
    assert json.loads(printable(json.dumps({HOSTILE: HOSTILE}, ensure_ascii=False))) == {HOSTILE: HOSTILE}


def test_output_in_the_block_is_escaped_and_the_streams_come_back(capsys):
    before = sys.stdout, sys.stderr
    with printable_output(), printable_output():
        print(HOSTILE, SAFE)
        sys.stderr.writelines([HOSTILE, "\n"])
        assert not hasattr(sys.stdout, "buffer")
    assert (sys.stdout, sys.stderr) == before
    said = capsys.readouterr()
    assert said.out == f"{SHOWN} {SAFE}\n"
    assert said.err == f"{SHOWN}\n"


def test_a_console_without_a_character_shows_its_number(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    with printable_output():
        print("→", HOSTILE)
    console.flush()
    assert console.buffer.getvalue().decode("ascii") == rf"\u2192 {SHOWN}" + os.linesep


def on_the_command_line(monkeypatch, capfd, *words):
    """Exit code and all that ``unmix words`` prints."""
    monkeypatch.setattr(sys, "argv", ["unmix", *map(str, words)])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as ended:
        main()
    said = capfd.readouterr()
    return ended.value.code, said.out + said.err


@pytest.mark.parametrize(
    "words",
    [
        ("fit", HOSTILE, "--out", "x"),
        ("transform", HOSTILE, "t.csv", "--out", f"{HOSTILE}.csv"),
        ("report", HOSTILE),
        ("bench", HOSTILE, "--out", "x"),
        ("bench", f"{HOSTILE}.toml", "--out", "x"),
        (f"--{HOSTILE}",),
        (HOSTILE,),
        ("fit", f"--{HOSTILE}"),
        ("demo", "--latents", HOSTILE),
        ("plan", "--density", "0.3", HOSTILE),
    ],
)
def test_words_that_the_command_line_refuses(words, monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, said = on_the_command_line(monkeypatch, capfd, *words)
    assert code == 2
    assert acts(said) == set()


def test_names_of_columns_files_and_folders(fitted, frame, monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    model, table, out = (f"{name}{HOSTILE}" for name in ("m", "t", "z"))
    fitted.save(model)
    write_table(frame.assign(**{HOSTILE: HOSTILE}), tmp_path / f"{table}.parquet")
    code, said = on_the_command_line(monkeypatch, capfd, "transform", model, f"{table}.parquet", "--out", f"{out}.csv")
    assert code == 0, said
    assert said == f"600 rows × 2 latents → z{SHOWN}.csv\n"
    again = CliRunner().invoke(
        app, ["transform", model, f"{table}.parquet", "--out", f"{out}.csv", "--overwrite"], catch_exceptions=False
    )
    assert again.output == said
    write_table(frame.iloc[:, 1:].assign(**{HOSTILE: 1.0}), tmp_path / f"{table}.parquet")
    code, said = on_the_command_line(monkeypatch, capfd, "transform", model, f"{table}.parquet", "--out", "y.csv")
    assert code == 2
    assert f"t{SHOWN}.parquet lacks 1 feature column(s)" in said
    assert acts(said) == set()
    code, said = on_the_command_line(monkeypatch, capfd, "audit", model, "--json")
    assert json.loads(said)["latents"]


def test_warnings_and_progress(capfd, monkeypatch):
    def warn(*_, **__):
        warnings.warn(HOSTILE, UserWarning, stacklevel=2)
        raise SystemExit(0)

    with monkeypatch.context() as patch:
        patch.setattr("unmix.cli.app", warn)
        patch.setattr("warnings.filters", [("always", None, Warning, None, 0)])
        _, said = on_the_command_line(patch, capfd)
    assert said == f"UserWarning: {SHOWN}\n"
    say(1, HOSTILE)
    assert SHOWN in capfd.readouterr().err
    with run_bar(1, 0) as on_row:
        on_row({"method": "[/red]\x1b[2J", "error": f"first\nsecond {HOSTILE}"})
    said = capfd.readouterr().err
    assert r"[/red]\u001b[2J: first second" in said
    assert acts(said) == set()


def test_a_page_shows_markup_as_text(tmp_path):
    markup = "<script>alert(1)</script>\"'&"
    method = Method(markup, "study_methods:Truncated", {"broken": True}, domains=False)
    study = Study(markup, [Block([method])], [0], {"n_samples": 50, "n_latents": 2, "n_features": 4})
    rows = [row | {"error": markup} for row in run_study(study, tmp_path, n_jobs=1)]
    write_page(study, rows, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "alert(1)" in text
    assert "<script" not in text


def test_a_table_in_a_terminal_keeps_its_rows(capfd):
    with printable_output():
        print(pd.DataFrame({"label": [HOSTILE, "b"], "x": np.arange(2)}).to_string(index=False))
    said = capfd.readouterr().out
    assert len(said.splitlines()) == 3
    assert acts(said) == set()
