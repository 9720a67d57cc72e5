"""What would lose work or somebody's files: paths, overwriting, failed fits, consoles and figures of another kind."""

import io
import json
import os
import re
import sys
import typing
import warnings
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK
from typer.testing import CliRunner

import unmix
from unmix import CGGAN, CGVAE, CGVAEImages
from unmix.baselines import CEBRA, IVAE, BetaVAE
from unmix.cli import app, main, options
from unmix.cli.studies import run_select
from unmix.data.tables import read_table, write_table
from unmix.errors import DataError, SettingError, StorageError, TrainingError
from unmix.files import as_path, check_replaceable
from unmix.fits.fit import Fit
from unmix.images import ImageClassifier
from unmix.report import figures

TINY_GAN = {"n_latents": 2, "hidden": (5,), "max_steps": 2, "encoder_steps": 1, "verbose": 0}
FIT = ["fit", "t.csv", "--domain", "domain", "--latents", "2", "--restarts", "1", "--epochs", "1", "--verbose", "0"]


@pytest.fixture(scope="module", autouse=True)
def unturned():
    """Fits without the longest part of so short ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unmix.models.cgvae.rotate_latents", lambda *_, **__: None)
        yield


def command(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def place(tmp_path, monkeypatch, frame, labels):
    """A working folder with a table, and a home folder beside it."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    frame.assign(domain=labels).iloc[:120].to_csv("t.csv", index=False)
    return tmp_path


# Paths


@pytest.mark.slow
def test_the_home_folder_is_meant_by_a_tilde_wherever_a_path_is_taken(place, fitted, frame, labels, pictures):
    home = place / "home"
    data = unmix.datasets.load_digits_two_colours(8)
    judge = ImageClassifier(width=4, max_epochs=1).fit(data.images[:40], data.domains[:40])
    assert fitted.save("~/m") == home / "m"
    assert fitted.save(Path("~/n")) == home / "n"
    assert fitted.report("~/deep/r.html") == home / "deep/r.html"
    assert judge.save("~/judge.safetensors") == home / "judge.safetensors"
    unmix.images.image_grid(pictures, "~/grid.png")
    CGVAE(**QUICK).fit(frame, labels, checkpoint="~/c.safetensors")
    CGGAN(**TINY_GAN).fit(frame, labels, checkpoint="~/g.safetensors")
    write_table(frame, as_path("~/t.csv"))
    assert {file.name for file in home.iterdir()} >= {"grid.png", "c.safetensors", "g.safetensors", "t.csv"}
    unmix.load("~/m")
    ImageClassifier.load("~/judge.safetensors")
    assert len(read_table("~/t.csv")) == len(fitted.transform("~/t.csv")) == 600
    with pytest.raises(DataError, match=rf"nothing at {home}/none"):
        unmix.read_images("~/none")
    with pytest.raises(DataError, match=rf"no file at {home}/none"):
        unmix.datasets.read_dsprites("~/none")
    assert sorted(os.listdir()) == ["t.csv"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The fit was trained on:unmix.DataWarning")
def test_the_home_folder_is_meant_by_a_tilde_in_every_command(place):
    home = place / "home"
    Path("t.csv").rename(home / "t.csv")
    (home / "support.csv").write_text("a,b\n1,0\n0,1\n1,1\n")
    (home / "study.toml").write_text("[[block]]\nmethods = ['none']\n")
    table = ["fit", "~/t.csv", *FIT[2:]]
    assert command(*table, "--out=~/run").exit_code == 0
    assert command("transform", "~/run", "~/t.csv", "--out=~/z.csv").exit_code == 0
    assert command("report", "~/run", "--out=~/r.html").exit_code == 0
    assert command("audit", "~/run", "~/t.csv").exit_code == 0
    assert command("plan", "~/support.csv").exit_code == 0
    with pytest.raises(SettingError, match="method"):
        command("bench", "~/study.toml", "--out=~/study")
    assert {"run", "z.csv", "r.html"} <= set(os.listdir(home))
    assert os.listdir() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("~nobody-here/x", StorageError, "no home folder for ~nobody-here"),
        ("a\0b", StorageError, "null character"),
        (7, SettingError, "Expected a path.*got 7"),
        (None, SettingError, "Expected a path.*got None"),
    ],
)
def test_what_is_no_path(path, error, message, fitted):
    for use in (fitted.save, fitted.report, unmix.load):
        with pytest.raises(error, match=message):
            use(path)


def test_a_tilde_elsewhere_is_part_of_a_name(place):
    assert [as_path(name) for name in ("~draft.csv", "a/~b", "x~")] == [Path("~draft.csv"), Path("a/~b"), Path("x~")]
    assert as_path(b"~/x") == place / "home/x"
    Path("~team").mkdir()
    assert as_path("~team/x") == Path("~team/x")


# Writing


def test_temporary_files_take_no_name_of_anybody(place, frame):
    theirs = ["x.csv.part", ".x.csv", "x.csv~", "x.csv.tmp"]
    for name in theirs:
        Path(name).write_text("mine")
    write_table(frame, Path("x.csv"))
    check_replaceable(Path("x.csv"))
    assert sorted(os.listdir()) == sorted([*theirs, "x.csv", "t.csv"])
    assert {Path(name).read_text() for name in theirs} == {"mine"}
    assert len(pd.read_csv("x.csv")) == 600
    usual = Path("usual")
    usual.write_text("")
    assert Path("x.csv").stat().st_mode == usual.stat().st_mode


def test_a_check_leaves_no_trace(place):
    check_replaceable(Path("a/b/c.csv"))
    for path in ("t.csv/x", "t.csv/a/b", "n" * 300):
        with pytest.raises(StorageError, match="could not be written"):
            check_replaceable(Path(path))
    assert os.listdir() == ["t.csv"]


def untrained(*_, **__):
    raise AssertionError("it was computed before it was known that nothing can be written")


@pytest.mark.slow
@pytest.mark.parametrize("out", ["t.csv", "t.csv/r", "t.csv/deep/r"])
def test_what_cannot_be_written_is_known_before_anything_is_computed(place, out, fitted, monkeypatch):
    fitted.save("m")
    monkeypatch.setattr(CGVAE, "fit", untrained)
    monkeypatch.setattr(CGVAE, "transform", untrained)
    monkeypatch.setattr(unmix.report.html, "render", untrained)
    for words in (
        [*FIT, "--out", out],
        ["demo", "--out", out],
        ["transform", "m", "t.csv", "--overwrite", "--out", f"{out}/z.csv"],
        ["report", "m", "--out", f"{out}/r.html"],
        ["bench", "quick", "--out", out],
    ):
        with pytest.raises(StorageError, match=r"is a file|could not be written|cannot be written"):
            command(*words)
    with pytest.raises(StorageError, match="could not be written"):
        fitted.report(f"{out}/r.html")
    assert sorted(os.listdir()) == ["m", "t.csv"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "abacus"}, "device='abacus' cannot be used here"),
        ({"device": "cuda:99"}, "device='cuda:99' cannot be used here"),
        ({"device": torch.device("meta")}, "cannot be used here"),
        ({"device": None}, "device=None cannot be used here"),
        ({"device": {1}}, "device must be made of numbers, text"),
        ({"verbose": open}, "verbose must be"),
    ],
)
@pytest.mark.parametrize(
    "model", [CGVAE(**QUICK), IVAE(**QUICK), CGGAN(**TINY_GAN)], ids=lambda model: type(model).__name__
)
def test_what_cannot_be_used_or_saved_is_known_before_training(model, settings, message, frame, labels, monkeypatch):
    monkeypatch.setattr("unmix.train.fit.Training.__init__", untrained)
    monkeypatch.setattr("unmix.train.adversarial.AdversarialRun.__init__", untrained)
    with pytest.raises(SettingError, match=message):
        type(model)(**{**model.get_params(), **settings}).fit(frame, labels)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (CGVAE, {**QUICK, "max_epochs": 1}),
        (CGGAN, TINY_GAN),
    ],
)
def test_settings_of_any_library_are_saved_as_plain_ones(kind, settings, frame, labels, tmp_path):
    given = {**settings, "device": torch.device("cpu"), "hidden": np.array([5]), "learning_rate": np.float32(0.01)}
    given |= {"n_latents": np.int64(2), "verbose": np.int64(0), "random_state": np.random.RandomState(3)}
    model = kind(**given).fit(frame, labels)
    again = unmix.load(model.save(tmp_path / "m"))
    assert again.get_params()["device"] == "cpu"
    assert again.get_params()["hidden"] == [5]
    assert again.seed_ == model.seed_ == again.get_params()["random_state"]
    np.testing.assert_array_equal(again.transform(frame), model.transform(frame))


# Files of others


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "files",
    [
        {"README.txt": "mine"},
        {"done.json": "{}"},
        {"done.json": '{"finished": "yes"}', "config.yaml": ""},
        {"checkpoint.safetensors": "weights of another program"},
        {"thesis.tex": "x", "latents.csv": "a,b"},
        {".hidden": ""},
    ],
)
def test_a_folder_without_a_model_is_not_replaced(files, fitted, place):
    folder = place / "mine"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    before = contents(place)
    with pytest.raises(StorageError, match="holds files but no model of unmix"):
        fitted.save(folder, overwrite=True)
    with pytest.raises(StorageError, match="holds files but no run of unmix"):
        command(*FIT, "--out", folder, "--overwrite")
    with pytest.raises(StorageError, match="not empty"):
        fitted.save(folder)
    assert contents(place) == before


@pytest.mark.slow
def test_in_the_folder_of_a_run_only_its_own_files_are_replaced(fitted, place):
    """A file that somebody else put there, or changed, stays, and is named; others are no concern."""
    run = Path("run")
    assert command(*FIT, "--out", run).exit_code == 0
    (run / "notes.txt").write_text("mine")
    (run / "figures").mkdir()
    for name in ("README.txt", "mixing.csv", "config.json", "latents.csv", "report.html"):
        own = (run / name).read_bytes()
        (run / name).write_text("mine")
        before = contents(run)
        said = rf"{re.escape(name)} in run would be replaced.*did not write it, or it was changed"
        with pytest.raises(StorageError, match=said):
            command(*FIT, "--out", run, "--overwrite")
        if name == "report.html":
            with pytest.raises(StorageError, match=said):
                command("report", run)
        elif name != "latents.csv":
            with pytest.raises(StorageError, match=said):
                fitted.save(run, overwrite=True)
        assert contents(run) == before
        (run / name).write_bytes(own)
    assert command("report", run).exit_code == 0
    (run / "interrupted.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"run/interrupted\.txt would be replaced"):
        command(*FIT, "--out", run, "--overwrite")
    (run / "interrupted.txt").unlink()
    assert command(*FIT, "--out", run, "--overwrite").exit_code == 0
    (run / "latents.csv").unlink()
    (run / "latents.csv").write_text("mine")
    fitted.save(run, overwrite=True)
    # What is left of the other model would be taken for this one's; what somebody wrote is not removed.
    assert not (run / "report.html").exists()
    assert [(run / name).read_text() for name in ("latents.csv", "notes.txt")] == ["mine"] * 2
    unmix.load(run)


def test_what_another_model_left_is_removed_and_a_crash_forgets_nothing(fitted, frame, labels, tmp_path, monkeypatch):
    folder = fitted.save(tmp_path / "m")
    CGGAN(**TINY_GAN).fit(frame, labels).save(folder, overwrite=True)
    assert not (folder / "mixing.csv").exists()
    done = json.loads((folder / "done.json").read_text())
    assert {*done["files"], *done["written"], "done.json"} == {file.name for file in folder.iterdir()}
    move, moved = unmix.fits.storage.shutil.move, []

    def failing(source, target):
        moved.append(target)
        if len(moved) == 4:
            raise OSError(28, "No space left on device")
        return move(source, target)

    monkeypatch.setattr(unmix.fits.storage.shutil, "move", failing)
    with pytest.raises(StorageError, match="No space left"):
        fitted.save(folder, overwrite=True)
    with pytest.raises(StorageError, match="no complete model"):
        unmix.load(folder)
    fitted.save(folder, overwrite=True)
    np.testing.assert_array_equal(unmix.load(folder).transform(frame), fitted.transform(frame))
    assert not (folder / "pending.json").exists()


@pytest.mark.parametrize("kept", [["finished"], ["finished", "sha256"], ["finished", "files", "sha256"]])
def test_a_folder_of_an_older_version_is_replaced_as_before(kept, fitted, tmp_path):
    folder = fitted.save(tmp_path / "m")
    done = json.loads((folder / "done.json").read_text())
    (folder / "done.json").write_text(json.dumps({name: done[name] for name in kept}))
    (folder / "notes.txt").write_text("mine")
    fitted.save(folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert "written" in json.loads((folder / "done.json").read_text())


def test_a_record_names_no_file_outside_its_folder(fitted, tmp_path):
    folder = fitted.save(tmp_path / "m")
    (tmp_path / "outside.txt").write_text("mine")
    done = json.loads((folder / "done.json").read_text())
    done["written"]["../outside.txt"] = unmix.fits.storage.file_sha256(tmp_path / "outside.txt")
    (folder / "done.json").write_text(json.dumps(done))
    fitted.save(folder, overwrite=True)
    assert (tmp_path / "outside.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_run_that_cannot_be_written_at_the_end_is_not_lost(place, monkeypatch):
    def full(*_):
        raise StorageError("no space")

    whole = Fit.to_folder
    monkeypatch.setattr(Fit, "to_folder", full)
    done = CliRunner().invoke(app, [*FIT, "--out", "run"])
    assert isinstance(done.exception, StorageError)
    assert "The fit so far is kept in run/checkpoint.safetensors; --resume continues" in done.output
    monkeypatch.setattr(Fit, "to_folder", whole)
    Path("run/README.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"README\.txt in run would be replaced"):
        command(*FIT, "--out", "run", "--resume")
    Path("run/README.txt").unlink()
    monkeypatch.setattr("unmix.train.fit.Training.epoch", untrained)
    assert command(*FIT, "--out", "run", "--resume").exit_code == 0
    assert sorted(unmix.load("run").domains_) == ["a", "b", "c"]


def test_tables_of_others_are_no_study(place):
    Path("settings.csv").write_text("mine")
    with pytest.raises(StorageError, match=r"settings\.csv would be replaced, but there is no study"):
        command("bench", "quick", "--out", ".")
    assert Path("settings.csv").read_text() == "mine"
    assert not Path("rows.jsonl").exists()


# Failed fits


class Failing:
    """Fails in its ``at``-th use."""

    def __init__(self, function, at, error):
        self.function, self.left, self.error = function, at, error

    def __call__(self, *arguments, **words):
        self.left -= 1
        if not self.left:
            raise self.error
        return self.function(*arguments, **words)


@pytest.fixture(scope="module")
def digits():
    data = unmix.datasets.load_digits_two_colours(16)
    return data.images[:60], data.domains[:60]


class Contrast:
    """Stands in for the estimator of the package cebra."""

    def __init__(self, **_):
        pass

    def fit(self, x, *_):
        self.mean_ = x.mean()

    def transform(self, x):
        return x[:, :2] + self.mean_


CASES = {
    "CGVAE": (CGVAE(**{**QUICK, "max_epochs": 1}), True),
    "IVAE": (IVAE(**{**QUICK, "max_epochs": 1}), True),
    "BetaVAE": (BetaVAE(**{**QUICK, "max_epochs": 1}), True),
    "CGGAN": (CGGAN(**TINY_GAN), True),
    "CGGAN of images": (CGGAN(**{**TINY_GAN, "channels": 2}), False),
    "CGVAEImages": (
        CGVAEImages(**{**QUICK, "n_latents": 1, "widths": (2,), "n_codes": 2, "n_spare": 0, "max_epochs": 1}),
        False,
    ),
    "ImageClassifier": (ImageClassifier(width=4, max_epochs=1), False),
    "CEBRA": (CEBRA(n_latents=2), True),
}


def assert_same(before, after):
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_failed_fit_changes_nothing(case, frame, labels, digits, monkeypatch):
    """However late it fails: attribute by attribute, and in what the model computes."""
    monkeypatch.setitem(sys.modules, "cebra", SimpleNamespace(CEBRA=Contrast))
    model, tables = CASES[case]
    x, y = (frame.iloc[:120], labels[:120]) if tables else digits
    # Of other columns, of none with names, of images the other way round.
    other = (2.0 * x.iloc[:, ::-1].to_numpy() if tables else x[:, ::-1]), y
    model.fit(x, y)
    before, values = dict(vars(model)), computed(model, x, y)
    kind, left, late = type(model), 0, False

    def noticed(self, name, value):
        nonlocal left
        if self is model and name.endswith("_") and name != "__dict__":
            left -= 1
            if late:
                object.__setattr__(self, name, value)
            if not left:
                raise KeyboardInterrupt
        object.__setattr__(self, name, value)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "__setattr__", noticed)
        for late in (False, True) if case in ("IVAE", "CGGAN") else (True,):  # noqa: B007 - read above
            left = 1
            with pytest.raises(KeyboardInterrupt):
                model.fit(*other)
            assert_same(before, dict(vars(model)))
    with pytest.raises(DataError):
        model.fit(x, y[:7])
    assert_same(before, dict(vars(model)))
    np.testing.assert_array_equal(computed(model, x, y), values)


def computed(model, x, y):
    if isinstance(model, ImageClassifier):
        return model.features(x)
    return model.transform(x, y) if isinstance(model, IVAE) else model.transform(x)


def test_a_fit_forgets_what_another_kind_of_data_taught(frame, labels, digits):
    model = CGGAN(**{**TINY_GAN, "channels": 2}).fit(frame, labels)
    model.fit(*digits)
    assert not hasattr(model, "feature_names_in_")
    assert not hasattr(model, "support_")
    model.fit(frame.to_numpy(), labels)
    assert not hasattr(model, "image_shape_")
    assert not hasattr(model, "feature_names_in_")


def test_a_setting_of_a_failed_fit_is_none_of_the_model(frame, labels):
    model = CGVAE(**QUICK).fit(frame, labels)
    values = model.transform(frame)
    with pytest.raises(DataError):
        model.set_params(missing="mask").fit(frame, labels[:3])
    np.testing.assert_array_equal(model.transform(frame), values)
    assert model.fitted_params_["missing"] == "error"
    with pytest.raises(DataError, match="missing values"):
        model.transform(frame.where(frame > -1))


# Consoles


@pytest.fixture(scope="module")
def odd_run(frame, labels, tmp_path_factory):
    """A run whose labels and folder have characters that few consoles know."""
    folder = tmp_path_factory.mktemp("odd")
    CGVAE(**{**QUICK, "max_epochs": 1}).fit(frame, np.char.add("ß→", labels)).save(folder / "run→")
    frame.assign(domain=np.char.add("ß→", labels)).to_csv(folder / "t.csv", index=False)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The fit was trained on:unmix.DataWarning")
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "utf-8"])
def test_no_console_ends_a_command(encoding, odd_run, monkeypatch, tmp_path):
    """Labels, file names and our own signs that a console lacks are escaped; JSON stays JSON."""
    monkeypatch.chdir(odd_run)
    shown = []
    for words in (
        ["transform", "run→", "t.csv", "--out", tmp_path / "z.csv"],
        ["audit", "run→", "t.csv"],
        ["plan", "--density", "0.5"],
        ["audit", "none→"],
        ["audit", "run→", "--json"],
    ):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            patch.setattr(sys, "argv", ["unmix", *map(str, words)])
            patch.setattr(warnings, "showwarning", warnings.showwarning)
            with pytest.raises(SystemExit) as stopped:
                main()
        assert stopped.value.code == (2 if "none→" in words else 0)
        for stream in streams:
            stream.flush()
        shown.append(b"".join(stream.buffer.getvalue() for stream in streams).decode(encoding))
    arrow = "→" if encoding == "utf-8" else "\\u2192"
    assert arrow in shown[0]
    assert f"none{arrow} is not there" in shown[3]
    assert json.loads(shown[4]) == unmix.load("run→").audit().to_dict()


class Gone(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("stream", ["ascii", "gone", "closed", "none"])
@pytest.mark.parametrize("model", [CGVAE(**{**QUICK, "verbose": 2}), CGGAN(**{**TINY_GAN, "verbose": 2})])
def test_no_standard_error_ends_a_fit(stream, model, frame, labels, monkeypatch):
    streams = {"ascii": io.TextIOWrapper(io.BytesIO(), encoding="ascii"), "gone": Gone(), "none": None}
    closed = streams["closed"] = io.StringIO()
    closed.close()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", streams[stream])
        model.fit(frame, np.char.add("ß→", labels))
    assert model.domains_[0] == "ß→a"
    if stream == "ascii":
        streams["ascii"].flush()
        assert b"\\xdf\\u2192" in streams["ascii"].buffer.getvalue()


# Figures


@pytest.mark.slow
def test_figures_are_those_of_the_defaults_whatever_matplotlib_is_set_to(fitted):
    found, content = fitted.description_, fitted.schema_.names
    latents = ["z0", "z1"]

    def drawn():
        return [
            figures.mixing_map(found.mixing, found.mixing_signed, content, latents),
            figures.domain_effects(found, 0, fitted.domains_),
        ]

    plain = drawn()
    for settings in (
        {"text.usetex": True},
        {"font.family": "No Such Font", "mathtext.fontset": "stix"},
        {"figure.autolayout": True, "savefig.bbox": "tight", "figure.dpi": 300, "savefig.transparent": False},
        {"svg.fonttype": "none", "path.sketch": (1, 100, 2), "axes.formatter.use_locale": True},
        {"axes.grid": True, "axes.facecolor": "black", "lines.linewidth": 9.0, "xtick.labelsize": 30, "font.size": 40},
    ):
        with matplotlib.rc_context(settings):
            before = dict(matplotlib.rcParams)
            assert drawn() == plain
            assert dict(matplotlib.rcParams) == before


def test_a_figure_that_fails_leaves_the_settings_as_they_were():
    before = dict(matplotlib.rcParams)

    def draw(figure):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        figures.draw_svg(draw, 3, 3)
    assert dict(matplotlib.rcParams) == before


def test_a_start_that_is_never_finite_is_named(frame, labels, monkeypatch):
    def nowhere(self, *_):
        return {name: value * float("nan") for name, value in terms(self, *_).items()}

    terms = unmix.models.cgvae.CGVAENetwork.terms
    monkeypatch.setattr(unmix.models.cgvae.CGVAENetwork, "terms", nowhere)
    for epochs in (1, 3, 9):
        with pytest.raises(TrainingError, match=r"(?s)kl.*0, 1.*Look for extreme values"):
            CGVAE(**{**QUICK, "max_epochs": epochs, "batch_size": 200}).fit(frame.iloc[:120], labels[:120])


def test_every_path_of_every_command_is_read_as_a_path_of_the_user():
    seen = 0
    for command in app.registered_commands:
        for name, hint in typing.get_type_hints(command.callback, include_extras=True).items():
            kind, *words = typing.get_args(hint) or (hint,)
            if Path in (kind, *typing.get_args(kind)):
                assert words[0].parser is options.file_path, (command.callback.__name__, name)
                seen += 1
    assert seen >= 15


def test_a_selection_writes_where_the_user_says_and_replaces_no_foreign_page(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    data = unmix.datasets.make_sparse_mixing(n_latents=1, n_features=3, n_domains=2, n_samples=60)
    short = CGVAE(n_restarts=1, max_epochs=1)
    found = unmix.select(data.x, data.domains, n_latents=[1], estimator=short, folder="~/kept")
    assert (tmp_path / "kept" / "selection.jsonl").is_file()
    assert found.report("~/page.html") == tmp_path / "page.html"
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "select.html").write_text("mine")
    with pytest.raises(StorageError, match=r"select\.html would be replaced"):
        run_select(tmp_path / "t.csv", [], None, [], [1], ["auto"], {}, tmp_path / "own", 1)
    assert (tmp_path / "own" / "select.html").read_text() == "mine"
