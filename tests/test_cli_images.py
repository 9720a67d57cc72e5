"""The command line on images: fit, transform and translate a folder; nothing is overwritten, nothing half written."""

import functools
import os
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import unmix
from unmix.cli import app
from unmix.cli.options import in_options
from unmix.datasets import load_digits_two_colours
from unmix.errors import DataError, DomainError, SchemaError, SettingError, StorageError

FIT = [
    "fit",
    "photos",
    "--method",
    "CGGAN",
    "--out",
    "run",
    "--steps",
    "2",
    "--latents",
    "3",
    "--size",
    "16",
    "--verbose",
    "0",
]


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def everything(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """24 digits of 20 × 20 pixels in two domains, as .jpg in one of them, and a fitted run."""
    root = tmp_path_factory.mktemp("workshop")
    data = load_digits_two_colours(20)
    for place, name, ending in (("green", "black on green", "png"), ("red", "white on red", "jpg")):
        (root / "photos" / place).mkdir(parents=True)
        for number, image in enumerate(data.images[data.domains == name][:12]):
            Image.fromarray(image).save(root / "photos" / place / f"{number:02}.{ending}")
    before = os.getcwd()
    os.chdir(root)
    try:
        assert run(*FIT).exit_code == 0
    finally:
        os.chdir(before)
    return root


@pytest.fixture
def here(workshop, monkeypatch):
    monkeypatch.chdir(workshop)
    return workshop


def test_fit_a_folder_and_transform_it(here):
    model = unmix.load("run")
    assert type(model) is unmix.CGGAN
    assert (model.n_latents, model.max_steps, model.encoder_steps, model.domains_) == (3, 2, 1, ("green", "red"))
    table = unmix.read_images("photos", size=16)
    latents = pd.read_csv("run/latents.csv")
    assert list(latents) == ["path", "domain", "z0", "z1", "z2"]
    np.testing.assert_allclose(latents[["z0", "z1", "z2"]], model.transform(table), atol=1e-5)
    assert "Real images, translated" in (here / "run" / "report.html").read_text()
    # The run knows the size of its images.
    assert run("transform", "run", "photos", "--out", "z.csv").exit_code == 0
    pd.testing.assert_frame_equal(pd.read_csv("z.csv"), latents)
    (here / "z.csv").unlink()
    # A folder of one domain has its name.
    assert run("transform", "run", os.path.join("photos", "red"), "--out", "z.csv").exit_code == 0
    red = latents[latents["domain"] == "red"].drop(columns=["path", "domain"]).reset_index(drop=True)
    found = pd.read_csv("z.csv")
    assert set(found.pop("domain")) == {"red"}
    pd.testing.assert_frame_equal(found.drop(columns="path"), red)
    (here / "z.csv").unlink()


@pytest.mark.slow
def test_the_other_method(here):
    words = ["--method", "CGVAEImages", "--epochs", "1", "--restarts", "1", "--latents", "2", "--verbose", "0"]
    assert run("fit", "photos", "--size", "16", "--mode", "L", "--out", "vae", *words).exit_code == 0
    assert unmix.load("vae").schema_.shape == (16, 16, 1)
    assert run("translate", "vae", "photos", "--to", "red", "--out", "grey").exit_code == 0
    with Image.open("grey/green/00.png") as picture:
        assert (picture.size, picture.mode) == ((16, 16), "L")


def test_translate_writes_one_png_for_each_image(here):
    with zipfile.ZipFile("set.zip", "w") as archive:
        for path in sorted((here / "photos").rglob("*.*")):
            archive.write(path, path.relative_to(here / "photos").as_posix())
    expected = unmix.load("run").translate(unmix.read_images("photos", size=16), to="red")
    for source, out in (("photos", "new/red"), ("set.zip", "zipped")):
        done = run("translate", "run", source, "--to", "red", "--out", out)
        assert "24 images → " in done.output
        names = sorted(path.relative_to(here / out).as_posix() for path in (here / out).rglob("*.*"))
        assert names == [f"green/{k:02}.png" for k in range(12)] + [f"red/{k:02}.jpg.png" for k in range(12)]
        written = np.stack([np.asarray(Image.open(here / out / name)) for name in names])
        np.testing.assert_array_equal(written, expected)
    done = run("translate", "run", "photos/green", "--to", "red", "--out", "one")
    assert "12 images → one" in done.output
    np.testing.assert_array_equal(np.asarray(Image.open(here / "one" / "03.png")), expected[3])
    assert [name for name in os.listdir(here) if name.startswith(".")] == []


def test_translate_overwrites_nothing_and_leaves_nothing_half_done(here, monkeypatch):
    (here / "mine").mkdir()
    (here / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(StorageError, match=r"mine exists. Choose another --out: nothing is overwritten"):
        run("translate", "run", "photos", "--to", "red", "--out", "mine")
    before = everything(here)
    with pytest.raises(DomainError, match="not seen at fit"):
        run("translate", "run", "photos", "--to", "blue", "--out", "half")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unmix.cli.images.os.replace", full)
    with pytest.raises(StorageError, match=r"half could not be written: .*No space left.*Is there space"):
        run("translate", "run", "photos", "--to", "red", "--out", "half")
    assert everything(here) == before


def test_translate_stays_inside_its_folder(here):
    lists = {
        "twice.csv": (["green/00.png", "green/../green/00.png"], r"Several images would become 'green/00.png'"),
        "away.csv": ([str(here / "photos" / "green" / "00.png")], r"'/.*00.png' is outside the folder of the list"),
    }
    for name, (paths, message) in lists.items():
        (here / "photos" / name).write_text("path,domain\n" + "".join(f"{path},green\n" for path in paths))
        with pytest.raises(DataError, match=message):
            run("translate", "run", f"photos/{name}", "--to", "red", "--out", "inside")
        (here / "photos" / name).unlink()
    assert not (here / "inside").exists()


@pytest.mark.slow
def test_the_page_of_the_fit_is_not_replaced_by_a_poorer_one(here):
    page = (here / "run" / "report.html").read_text()
    with pytest.raises(StorageError, match=r"run/report.html exists.*A run keeps no images.*Pass --out"):
        run("report", "run")
    assert (here / "run" / "report.html").read_text() == page
    assert run("report", "run", "--out", "again.html").exit_code == 0
    assert "Real images, translated" not in (here / "again.html").read_text()
    unmix.load("run").save("bare")
    assert run("report", "bare").exit_code == 0
    assert (here / "bare" / "report.html").exists()


def test_the_readme_of_a_run_speaks_of_its_images(here):
    text = (here / "run" / "README.txt").read_text()
    assert "unmix transform run photos --out latents.csv" in text
    assert "unmix translate run photos --to DOMAIN --out translated" in text
    assert "size and channels of the images" in text
    assert "table.csv" not in text


@pytest.mark.slow
def test_new_images_that_cannot_be_read(here):
    (here / "spoilt" / "green").mkdir(parents=True)
    Image.open("photos/green/00.png").save("spoilt/green/00.png")
    (here / "spoilt" / "green" / "broken.png").write_bytes(b"no image")
    for words in (["transform", "run", "spoilt", "--out", "spoilt.csv"], ["translate", "run", "spoilt", "--to", "red"]):
        words = words if "--out" in words else [*words, "--out", "moved"]
        with pytest.raises(DataError, match=r"green/broken.png is not an image") as error:
            run(*words)
        assert in_options(str(error.value)).endswith("or pass --on-error skip to leave such files out.")
        with pytest.warns(unmix.errors.DataWarning, match="1 of 2 files left out"):
            done = run(*words, "--on-error", "skip")
        assert done.output.startswith("1 images")
    assert everything(here / "moved") == ["green", "green/00.png"]
    (here / "t.csv").write_text("a\n1\n")
    with pytest.raises(SettingError, match=r"--on-error cannot be used here: t.csv does not hold images"):
        run("transform", "run", "t.csv", "--out", "z.csv", "--on-error", "skip")


def test_messages_name_the_options(here):
    said = {
        ("fit", "photos", "--method", "CGGAN"): "Scale them: --size 64.",
        ("fit", "sizes"): "Pass --size with a number of pixels to scale them.",
        ("fit", "modes"): "Pass --mode RGB or --mode L to convert them.",
    }
    for place, size, mode in (("sizes", 32, "RGB"), ("modes", 16, "L")):
        (here / place / "a").mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(here / place / "a" / "0.png")
        Image.new(mode, (size, size)).save(here / place / "a" / "1.png")
    for words, message in said.items():
        with pytest.raises(DataError) as error:
            run(*words, "--out", "absent")
        assert in_options(str(error.value)).endswith(message)


@pytest.mark.slow
def test_the_demo_of_images_keeps_its_judges_and_refuses_what_has_no_effect(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, option in (
        (["--steps", "5"], "--steps cannot be used here: only the demo with --images uses it"),
        (["--images", "--latents", "4"], "--latents cannot be used here"),
        (["--images", "--epochs", "0"], "--epochs cannot be used here"),
    ):
        with pytest.raises(SettingError, match=option):
            run("demo", *words, "--out", "demo")
    assert not (tmp_path / "demo").exists()
    monkeypatch.setattr("unmix.cli.runs.ImageTranslator", functools.partial(unmix.ImageTranslator, channels=4))
    few = functools.partial(unmix.datasets.make_typefaces, characters="abcdef")
    monkeypatch.setattr("unmix.cli.runs.datasets.make_typefaces", few)

    def small(*arguments, max_epochs):
        return unmix.images.train_judges(*arguments, width=2, max_epochs=1)

    monkeypatch.setattr("unmix.cli.runs.train_judges", small)
    done = run("demo", "--images", "--steps", "1", "--out", "demo")
    page = (tmp_path / "demo" / "report.html").read_text()
    for kind, n_classes in (("content", 6), ("style", 6)):
        judge = unmix.images.ImageClassifier.load(tmp_path / "demo" / f"judge-{kind}.safetensors")
        assert len(judge.classes_) == n_classes
        assert f"demo/judge-{kind}.safetensors ({judge.name_})" in done.output
    assert all(f"<td>{method}</td>" in page for method in ("copy", "Gaussian transport", "ImageTranslator"))
    assert "grey levels from the truth" in page


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (
            ["fit", "photos", "--method", "CGVAE"],
            SettingError,
            r"--method must be one of \['CGGAN', .*ImageTr",
        ),
        (
            ["fit", "photos", "--domain", "site"],
            SettingError,
            "--domain cannot be used here: images take their domains",
        ),
        (
            ["fit", "photos", "--method", "CGGAN", "--decoder", "dense"],
            SettingError,
            "CGGAN has no setting decoder. Leave that option out",
        ),
        (
            ["fit", "photos", "--steps", "3", "--method", "CGVAEImages"],
            SettingError,
            "CGVAEImages has no setting max_st",
        ),
        (["fit", "photos", "--method", "CGGAN"], DataError, r"square with sides of .*; got 20 by 20.*size=64"),
        (["fit", "t.csv", "--size", "16"], SettingError, "--size cannot be used here: t.csv does not hold images"),
        (["fit", "fotos"], DataError, r"no file at fotos, and no folder of images. Check the path"),
        (["transform", "table", "photos"], SchemaError, "table was fitted on a table, not on images"),
        (["transform", "run", "t.csv"], SchemaError, "fitted on images, not on a table. Pass a folder or .zip"),
        (["translate", "table", "photos", "--to", "red"], SchemaError, "table was not fitted on images"),
        (
            ["translate", "run", "t.csv", "--to", "red"],
            DataError,
            r"no images at t.csv. Pass a folder, a .zip, or a list",
        ),
    ],
)
def test_what_cannot_be_is_said_and_nothing_written(here, frame, labels, words, error, message):
    frame.assign(site=labels).to_csv("t.csv", index=False)
    if not (here / "table").exists():
        unmix.CGVAE(n_latents=2, n_restarts=1, max_epochs=1, verbose=0).fit(frame, labels).save("table")
    before = everything(here)
    out = "absent.csv" if words[0] == "transform" else "absent"
    with pytest.raises(error, match=message):
        run(*words, "--out", out)
    assert everything(here) == before


def test_results_do_not_go_among_the_images(here):
    before = everything(here)
    for words in (["fit", "photos", "--size", "16"], ["translate", "run", "photos", "--to", "red"]):
        done = CliRunner().invoke(app, [*words, "--out", "photos/results"])
        assert isinstance(done.exception, StorageError)
        assert "photos/results is inside photos" in str(done.exception)
    assert everything(here) == before
