"""CG-GAN, the estimator: its contract on tables and on images, ablations, report, messages."""

import copy
import json
import re
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import unmix
from unmix import CGGAN, cli
from unmix.datasets import ImageData
from unmix.errors import DataError, DomainError, SchemaError, SettingError
from unmix.estimators.gan_report import drawn, traversed
from unmix.report.figures import BLUE, term_curves

TINY = {"n_latents": 3, "hidden": (6, 5), "max_steps": 8, "encoder_steps": 4, "batch_size": 32, "verbose": 0}
SMALL = {
    "n_latents": 3,
    "hidden": (6,),
    "channels": 2,
    "max_steps": 3,
    "encoder_steps": 2,
    "batch_size": 8,
    "verbose": 0,
}
ABLATIONS = {
    "plain": {"flow": False},
    "no mask": {"mask": False},
    "no sparsity": {"sparsity": 0},
    "spline": {"flow": "spline"},
}


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def fitted(frame, labels):
    return CGGAN(**TINY).fit(frame, labels)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8), np.repeat(["a", "b"], 12)


@pytest.fixture(scope="module")
def fitted_images(images):
    return CGGAN(**SMALL).fit(*images)


# The estimator


def test_tables_and_images_have_weights_and_schedules_of_their_own(fitted, fitted_images):
    names = ("sharpened", "sparsity_left", "sparsity", "penalty", "n_penalised")
    of_table, of_images = ([getattr(model.model_.config, name) for name in names] for model in (fitted, fitted_images))
    assert of_table == [0.03, 1.0, 0.03, "log", fitted.n_latents]
    assert of_images == [1.0, 0.1, 0.02, "l1", fitted_images.model_.config.n_style]


def test_what_is_asked_of_the_jacobian_term_holds_for_both(frame, labels, images):
    asked = {"sparsity": 0.5, "penalty": "l2"}
    for x, y in ((frame, labels), images):
        found = CGGAN(**{**SMALL, **asked}).fit(x, y).model_.config
        assert {"sparsity": found.sparsity, "penalty": found.penalty} == asked


def test_contract_on_a_table(fitted, frame, labels, tmp_path):
    z = fitted.transform(frame)
    assert z.shape == (600, 3)
    assert fitted.mixing_.shape == fitted.support_.shape == (5, 3)
    np.testing.assert_array_equal(np.sort(np.concatenate([fitted.content_, fitted.style_])), np.arange(3))
    assert fitted.importance_.shape == (3,)
    assert fitted.domains_ == ("a", "b", "c")
    assert list(fitted.get_feature_names_out()) == ["z0", "z1", "z2"]
    np.testing.assert_array_equal(CGGAN(**TINY).fit(frame, labels).transform(frame), z)
    again = unmix.load(fitted.save(tmp_path / "model"))
    assert type(again) is CGGAN
    assert again.get_params() == {**fitted.get_params(), "hidden": [6, 5]}
    np.testing.assert_array_equal(again.transform(frame), z)
    np.testing.assert_array_equal(again.sample(4, domain="b"), fitted.sample(4, domain="b"))
    np.testing.assert_array_equal(again.mixing_, fitted.mixing_)
    np.testing.assert_array_equal(again.style_, fitted.style_)
    pd.testing.assert_frame_equal(again.history_, fitted.history_, check_dtype=False)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["fitted"]["n_steps"] == 12


def test_words_changed_after_the_fit_change_nothing(fitted, frame, tmp_path):
    model = copy.deepcopy(fitted).set_params(n_latents=5, hidden=(3,))
    np.testing.assert_array_equal(model.sample(3, domain="a"), fitted.sample(3, domain="a"))
    assert len(model.get_feature_names_out()) == 3
    again = unmix.load(model.save(tmp_path / "model"))
    assert again.n_latents == 3
    np.testing.assert_array_equal(again.transform(frame), fitted.transform(frame))
    with pytest.raises(SettingError, match="latent must be a whole number from 0 to 2; got 4"):
        model.traverse(frame, np.repeat("a", len(frame)), latent=4)


def test_the_page_of_rows_takes_no_rows(fitted, frame, labels, tmp_path):
    with pytest.raises(SettingError, match="shows no rows"):
        fitted.report(tmp_path / "r.html", frame, labels)


def test_content_has_no_importance(fitted):
    assert (fitted.importance_[fitted.content_] == 0).all()
    assert (fitted.importance_[fitted.style_] >= 0.1).all()


def test_latents_are_standard_over_what_is_generated(fitted):
    design = torch.eye(3)[torch.arange(6000) % 3]
    with torch.no_grad():
        z = fitted.model_.from_noise(noise(6000, 3, seed=9), design)
    np.testing.assert_allclose(z.mean(0), 0.0, atol=0.1)
    np.testing.assert_allclose(z.std(0), 1.0, atol=0.1)


def test_translation_keeps_the_noise_and_changes_the_domain(fitted, frame, labels):
    stay = fitted.translate(frame, labels, to=pd.DataFrame({"domain": labels}))
    same = fitted.traverse(frame, labels, latent=0, values=(0.0,)).shape
    assert same == (1, 600, 5)
    z = torch.from_numpy(fitted.transform(frame))
    design = torch.eye(3)[pd.factorize(labels, sort=True)[0]]
    with torch.no_grad():
        expected = fitted.schema_.restore(fitted.model_.decode(z, design).double().numpy())
    np.testing.assert_allclose(stay, expected, atol=1e-4)
    assert np.abs(fitted.translate(frame, labels, to="c") - stay)[labels != "c"].max() > 1e-3


def test_traversal_sets_one_latent(fitted, frame, labels):
    part = frame.iloc[:7]
    found = fitted.traverse(part, labels[:7], latent=1, values=(-1.0, 2.0))
    z = fitted.transform(part)
    z[:, 1] = 2.0
    with torch.no_grad():
        expected = fitted.model_.decode(torch.from_numpy(z), torch.zeros(7, 3)).double().numpy()
    np.testing.assert_allclose(found[1], fitted.schema_.restore(expected), atol=1e-5)


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations(name, frame, labels):
    model = CGGAN(**{**TINY, **ABLATIONS[name]}).fit(frame, labels)
    terms = {column.removeprefix("generator_") for column in model.history_ if column.startswith("generator_")}
    expected = {
        "plain": {"sparsity"},
        "no mask": {"sparsity"},
        "no sparsity": {"mask"},
    }
    assert terms == {"logistic", "latents", "reconstruction"} | expected.get(name, {"mask", "sparsity"})
    if name == "no mask":
        assert model.style_.tolist() == [0, 1, 2]
    if name == "plain":
        assert len(model.style_) == 0
        same = [model.sample(3, domain=domain) for domain in ("a", "b")]
        assert np.abs(same[0] - same[1]).max() > 1e-6


def test_contract_on_images(fitted_images, images, tmp_path):
    x, y = images
    assert fitted_images.transform(x).shape == (24, 3)
    assert fitted_images.mixing_.shape == (16, 16, 3, 3)
    outputs = {
        "sample": fitted_images.sample(2, domain="b"),
        "translate": fitted_images.translate(x, y, to="b"),
        "traverse": fitted_images.traverse(x, y, latent=0, values=(-1, 1)),
    }
    assert {name: value.shape for name, value in outputs.items()} == {
        "sample": (2, 16, 16, 3),
        "translate": (24, 16, 16, 3),
        "traverse": (2, 24, 16, 16, 3),
    }
    assert {value.dtype for value in outputs.values()} == {np.dtype(np.uint8)}
    again = unmix.load(fitted_images.save(tmp_path / "m"))
    np.testing.assert_array_equal(again.translate(x, y, to="b"), outputs["translate"])
    assert again.image_shape_ == (16, 16, 3)


@pytest.mark.slow
def test_the_report_shows_images_mask_and_curves(fitted_images, images, tmp_path):
    x, y = images
    page = fitted_images.report(tmp_path / "r.html", x, y).read_text()
    for title in ("Samples", "One noise, every domain", "Traversals", "Real images, translated", "What each latent"):
        assert f"<h2>{title}" in page
    for title in ("Content and style", "Training"):
        assert f"<h2>{title}</h2>" in page
    assert page.count("data:image/png") == 2 + 2 + 3 + 3 + 3
    assert page.count("data:image/svg") == 2
    style = len(fitted_images.style_)
    assert f'<p class="verdict">{style} of 3 latents are style, {3 - style} content.</p>' in page
    for kind, latents in (("content", fitted_images.content_), ("style", fitted_images.style_)):
        # Named above its traversal and above its map.
        assert all(page.count(f"<figcaption>z{latent} · {kind}</figcaption>") == 2 for latent in latents)
    assert "from left to right: 4 of a, 4 of b (real images)." in page
    assert "the others as in the first sample of a" in page
    assert "<th>torch version</th>" in page
    assert "FID and KID need 20 real images of a domain; there are fewer of each." in page
    assert "Real images, translated" not in fitted_images.report(tmp_path / "s.html").read_text()


def test_a_traversal_in_the_report_starts_from_a_drawn_image(fitted_images):
    moved = traversed(fitted_images)
    assert moved.shape == (3, 8, 16, 16, 3)
    model, noise = fitted_images.model_, noise_of_first_sample()
    with torch.no_grad():
        z = model.from_noise(noise, torch.eye(2)[:1])
        np.testing.assert_array_equal(
            fitted_images._decode(z, torch.eye(2)[:1]), fitted_images.sample(8, domain="a")[:1]
        )
        z[:, 1] = 2.5
    np.testing.assert_array_equal(moved[1, -1:], fitted_images._decode(z, torch.eye(2)[:1]))


def noise_of_first_sample():
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(0))[:1]


@pytest.mark.slow
def test_the_report_compares_by_domain_and_shows_what_was_judged(fitted_images, images, tmp_path):
    x, y = np.tile(images[0], (3, 1, 1, 1)), np.tile(images[1], 3)
    content = np.arange(72) % 2
    judges = unmix.images.train_judges(x, content, y, np.arange(72) % 3 == 0, width=2, max_epochs=1)
    judged = unmix.images.judge_translations(fitted_images, judges, x, content, y)
    page = fitted_images.report(tmp_path / "r.html", x, y, judged=judged, extractor=judges.content).read_text()
    assert judges.content.name_ in page
    assert f"features of {judges.content.name_}, as passed." in page
    rows = re.findall(r"<td>(a|b|mean|all)</td><td>(\d*)</td><td>([^<]*)</td><td>([^<]*)</td>", page)
    assert [row[:2] for row in rows] == [
        ("a", "36"),
        ("b", "36"),
        ("all", "72"),
        ("a", "36"),
        ("b", "36"),
        ("mean", ""),
    ]
    assert rows[2][2].startswith(f"{judged['content'].iloc[-1]:.2f} (")
    made = [fitted_images.sample(36, domain=domain, random_state=k) for k, domain in enumerate("ab")]
    order = np.argsort(y, kind="stable")
    words = {"extractor": "judge", "domains_real": y[order], "domains_generated": y[order]}
    expected = unmix.metrics.fid(
        judges.content.features(x[order]), judges.content.features(np.concatenate(made)), **words
    )
    assert [row[2].split(" ")[0] for row in rows[3:]] == [f"{value:.3g}" for value in (*expected.per_factor, expected)]
    with pytest.raises(
        DataError, match=r"judged lacks the columns \['to', .*Pass the table that unmix.images.judge_translations"
    ):
        fitted_images.report(tmp_path / "t.html", judged=pd.DataFrame())
    with pytest.raises(
        DataError, match=r"judged has no rows. Pass the table that unmix.images.judge_translations returned"
    ):
        fitted_images.report(tmp_path / "t.html", judged=judged.iloc[:0])
    with pytest.raises(DataError, match=r"judged must be a table; got 0.5"):
        fitted_images.report(tmp_path / "t.html", judged=0.5)


@pytest.mark.slow
def test_by_default_the_report_trains_its_features_on_the_domains(fitted_images, images, tmp_path):
    x, y = np.tile(images[0], (3, 1, 1, 1)), np.tile(images[1], 3)
    pages = [fitted_images.report(tmp_path / f"{k}.html", x, y).read_text() for k in range(2)]
    assert pages[0] == pages[1]
    order = np.argsort(y, kind="stable")
    judge = unmix.images.ImageClassifier(max_epochs=10, batch_size=32).fit(x[order], y[order])
    words = f"features of {judge.name_}, a small network trained for this report to classify the domains of"
    assert words in pages[0]
    one = fitted_images.report(tmp_path / "one.html", x[y == "a"], y[y == "a"]).read_text()
    assert re.search(r"features of cnn-32-untrained-\w{8}, a network that was never trained\.", one)


def test_an_extractor_that_makes_no_features_is_refused(fitted, fitted_images, images, tmp_path):
    cases = [
        (r"extractor must be a fitted ImageClassifier, or a torch.nn.Module .*; got 'inception'", "inception", images),
        ("got an ImageClassifier that was not fitted", unmix.images.ImageClassifier(), images),
        (r"Linear cannot take images of shape \(16, 16, 3\)", torch.nn.Linear(5, 2), images),
        ("pass the images as X, y too", torch.nn.Flatten(), ()),
    ]
    for message, extractor, shown in cases:
        with pytest.raises(SettingError, match=message):
            fitted_images.report(tmp_path / "r.html", *shown, extractor=extractor)
    with pytest.raises(SettingError, match=r"this model was fitted on a table. Leave it out"):
        fitted.report(tmp_path / "r.html", extractor=torch.nn.Flatten())
    assert not list(tmp_path.iterdir())


def test_the_samples_are_not_those_of_the_one_noise(fitted_images):
    own, same = (section.images for section in drawn(fitted_images, ["z0", "z1", "z2"])[:2])
    np.testing.assert_array_equal(own[0], fitted_images.sample(8, domain="a"))
    assert all((first != second).any() for first, second in zip(own, same, strict=True))


@pytest.mark.slow
def test_a_folder_from_before_start_errors_is_read(fitted, tmp_path):
    folder = fitted.save(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    del config["fitted"]["start_errors"]
    (folder / "config.json").write_text(json.dumps({**config, "format": 2}))
    (folder / "done.json").write_text(json.dumps({"finished": "then"}))
    old = unmix.load(folder)
    assert np.isnan(old.start_errors_).tolist() == [True]
    again = unmix.load(old.save(tmp_path / "n"))
    assert (again.start_errors_.dtype, again.start_errors_.shape) == (np.dtype(float), (1,))
    assert "Content and style" in again.report(tmp_path / "r.html").read_text()


@pytest.mark.slow
def test_the_report_compares_several_starts(fitted, frame, labels, tmp_path):
    title = "Which start reconstructs the data best?"
    model = CGGAN(**TINY, n_restarts=2).fit(frame, labels)
    page = model.report(tmp_path / "r.html").read_text()
    rows = re.findall(r"<tr><td>(\d)</td><td>([\d.e-]+)</td><td>(kept|)</td></tr>", page.split(title)[1])
    assert [row[1] for row in rows] == [f"{error:.4g}" for error in model.start_errors_]
    assert [row[2] for row in rows].index("kept") == model.best_restart_
    assert title not in fitted.report(tmp_path / "s.html").read_text()


@pytest.mark.slow
def test_the_report_of_several_domain_columns_says_what_it_leaves_out(images, tmp_path):
    x, y = images
    model = CGGAN(**{**SMALL, "min_domain_rows": 2}).fit(x, pd.DataFrame({"site": y, "dose": np.arange(24) % 2}))
    page = model.report(tmp_path / "r.html", x, pd.DataFrame({"site": y, "dose": np.arange(24) % 2})).read_text()
    assert "drawn where the domains are one column of labels; this model has site, dose." in page
    assert "<h2>What each latent moves</h2>" in page


def test_one_row_of_history_is_drawn_as_a_point():
    one, two = (term_curves(pd.DataFrame({"step": range(n), "a_b": [1.0] * n})) for n in (1, 2))
    point = f"fill: {BLUE.lower()}"
    assert point in one
    assert point not in two


def test_what_read_images_returns_brings_its_domains_along(fitted_images, images):
    x, y = images
    model = CGGAN(**SMALL).fit(unmix.read_images(x, y))
    np.testing.assert_array_equal(model.transform(x), fitted_images.transform(unmix.read_images(x, y)))


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for place, (image, label) in enumerate(zip(*images, strict=True)):
        (root / label).mkdir(exist_ok=True)
        Image.fromarray(image).save(root / label / f"{place:02}.png")
    return root


@pytest.mark.slow
def test_every_form_of_images_that_read_images_knows(fitted_images, images, folder, tmp_path):
    x, y = images
    expected = fitted_images.transform(x)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder).as_posix())
    for source in (folder, str(folder), tmp_path / "set.zip"):
        model = CGGAN(**SMALL).fit(source)
        np.testing.assert_array_equal(model.transform(source), expected)
        np.testing.assert_array_equal(model.translate(source, to="b"), fitted_images.translate(x, y, to="b"))
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    (folder / "list.tsv").write_text("path\tdomain\n" + "".join(f"{name}\t{name[0]}\n" for name in names))
    np.testing.assert_array_equal(CGGAN(**SMALL).fit(folder / "list.tsv").transform(list(x)), expected)
    (folder / "list.tsv").unlink()
    grey = CGGAN(**SMALL).fit(x[..., 0], y)
    assert grey.translate(x[..., 0], y, to="a").shape == (24, 16, 16, 1)


@pytest.mark.slow
def test_images_that_carry_domains_need_no_y(fitted_images, images, tmp_path):
    x, y = images
    table = unmix.read_images(x, y)
    data = ImageData(x, y, pd.DataFrame(index=range(24)), {}, ())
    for carried in (table, data):
        moved = fitted_images.translate(carried, to="b")
        np.testing.assert_array_equal(moved, fitted_images.translate(x, y, to="b"))
        found = fitted_images.traverse(carried, latent=1)
        np.testing.assert_array_equal(found, fitted_images.traverse(x, y, latent=1))
        assert "Real images" in fitted_images.report(tmp_path / "r.html", carried).read_text()
    calls = [
        lambda: fitted_images.translate(x, to="b"),
        lambda: fitted_images.traverse(list(x), latent=1),
        lambda: fitted_images.report(tmp_path / "s.html", x),
    ]
    for call in calls:
        with pytest.raises(DomainError, match=r"the domain of each of 24 images; got none. Pass them as second"):
            call()
    assert not (tmp_path / "s.html").exists()


# Messages


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        (r"n_latents must be a whole number ≥ 1; got 0", {"n_latents": 0}),
        (r"max_steps must be a whole number ≥ 1; got 1.5", {"max_steps": 1.5}),
        (r"n_style must be None or from 0 to n_latents; got 4", {"n_style": 4}),
        (r"hidden must be one or more widths", {"hidden": ()}),
        (r"flow must be one of \['gaussian', 'spline'\], or False; got 'planar'", {"flow": "planar"}),
        (r"flow must be one of .*; got True", {"flow": True}),
        (r"penalty must be None, or one of", {"penalty": "l0"}),
        (r"hidden must be one or more widths ≥ 1, such as \(64, 64\); got 128", {"hidden": 128}),
        (r"hidden must be one or more widths ≥ 1.*; got \(6.5,\)", {"hidden": (6.5,)}),
        (r"flow must be one of .*; got \['gaussian'\]", {"flow": ["gaussian"]}),
        (r"sparsity must be None, or ≥ 0 and finite; got -1", {"sparsity": -1}),
        (r"sparsity must be None, or ≥ 0 and finite; got 'x'", {"sparsity": "x"}),
        (r"mask_weight must be ≥ 0 and finite; got None", {"mask_weight": None}),
        (r"gradient_weight must be ≥ 0 and finite; got nan", {"gradient_weight": float("nan")}),
        (r"learning_rate must be > 0 and finite; got 0", {"learning_rate": 0}),
        (r"learning_rate must be > 0 and finite; got '1e-3'", {"learning_rate": "1e-3"}),
        (r"mask must be True or False; got 'no'", {"mask": "no"}),
        (r"n_style must be ≥ 1, or domains change nothing", {"n_style": 0}),
        (r"n_restarts must be a whole number ≥ 1; got 0", {"n_restarts": 0}),
        (r"auxiliary must be None, or a mapping", {"auxiliary": "x"}),
        (r"verbose must be 0, 1 or 2; got None", {"verbose": None}),
        (r"device=None cannot be used here", {"device": None}),
        (r"random_state must be a whole number from 0 to .*, a RandomState or None; got 'x'", {"random_state": "x"}),
    ],
)
def test_settings_that_cannot_be(message, settings, frame, labels):
    with pytest.raises(SettingError, match=message):
        CGGAN(**{**TINY, **settings}).fit(frame, labels)


def test_data_that_cannot_be_used(fitted, fitted_images, frame, labels, images):
    x, y = images

    def refuse(error, message, *data):
        with pytest.raises(error, match=message):
            CGGAN(**SMALL).fit(*data)

    refuse(DomainError, "at least two domains; got 1", frame, ["a"] * 600)
    refuse(DomainError, "at least two domains; got 1", x, ["a"] * 24)
    refuse(DomainError, "at least two domains", x, None)
    refuse(DomainError, "X has 24 rows, the domains have 3", x, ["a", "b", "a"])
    refuse(DataError, "at least 10 images to learn from; got 9", x[:9], y[:9])
    refuse(DataError, "All images are the same", np.zeros_like(x), y)
    refuse(
        DataError,
        r"square with sides of \[16, 32, 64, 128\] pixels; got 16 by 12.*read_images\(..., size=64\)",
        x[:, :, :12],
        y,
    )
    refuse(DataError, "uint8, 0 to 255; got an array of float64", x.astype(float), y)
    refuse(
        DataError, r"got shape \(24, 3, 16, 16\). Move the channels to the end: .*2, 3, 1", x.transpose(0, 3, 1, 2), y
    )
    refuse(DataError, r"one size and mode; got shapes", [x[0], x[1, :, :, :1], *x[2:]], y)
    with pytest.raises(SchemaError, match=r"fitted on images of shape \(16, 16, 3\); got \(16, 16, 1\)"):
        fitted_images.transform(x[..., :1])
    with pytest.raises(SchemaError, match=r"fitted on the columns \['x0'.*Select them"):
        fitted.transform(frame[frame.columns[::-1]])
    with pytest.raises(SchemaError, match=r"got 4 columns\. Select them"):
        fitted.transform(frame.to_numpy()[:, :4])
    with pytest.raises(DataError, match=r"Say which domain: one of \['a', 'b', 'c'\]"):
        fitted.sample(2)
    with pytest.raises(DomainError, match="not seen at fit"):
        fitted.translate(frame, labels, to="z")


def test_arguments_that_cannot_be(fitted, fitted_images, frame, labels, images):
    for n_samples in (0, -1, 2.5, "3", True):
        with pytest.raises(SettingError, match=f"n_samples must be a whole number ≥ 1; got {n_samples!r}"):
            fitted.sample(n_samples, domain="a")
    with pytest.raises(
        SettingError, match=r"random_state must be a whole number from 0 to .*, a RandomState or None; got 'x'"
    ):
        fitted.sample(2, domain="a", random_state="x")
    for latent in (3, -1, 1.5, "0"):
        with pytest.raises(SettingError, match=f"latent must be a whole number from 0 to 2; got {latent!r}"):
            fitted.traverse(frame, labels, latent=latent)
    for values in ((), 1.0, "12", ((1, 2), 3), (None,)):
        with pytest.raises(SettingError, match=r"values must be one or more numbers, such as \(-2, 0, 2\); got"):
            fitted.traverse(frame, labels, latent=0, values=values)
    for model, x, y in ((fitted, frame, labels), (fitted_images, *images)):
        for use in (model.transform, lambda none, m=model, y=y: m.translate(none, y[:0], to="a")):
            with pytest.raises(DataError, match=r"The table is empty|The array of images is empty"):
                use(x[:0])


@pytest.mark.slow
def test_the_command_line_reads_tables_and_refuses_the_rest(fitted, fitted_images, frame, tmp_path):
    table, image = fitted.save(tmp_path / "table"), fitted_images.save(tmp_path / "image")
    frame.to_csv(tmp_path / "t.csv", index=False)
    cli.transform(table, tmp_path / "t.csv", tmp_path / "z.csv", "cpu")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "z.csv")[["z0", "z1", "z2"]], fitted.transform(frame), atol=1e-4)
    with pytest.raises(SchemaError, match="fitted on images, not on a table"):
        cli.transform(image, tmp_path / "t.csv", tmp_path / "y.csv", "cpu")
    cli.report(table)
    assert "Content and style" in (table / "report.html").read_text()


def test_latents_are_decoded_and_the_mixing_is_a_table(fitted, fitted_images, frame, labels, images):
    z = fitted.transform(frame)
    back = fitted.inverse_transform(z)
    np.testing.assert_allclose(back, fitted.translate(frame, labels, to=labels), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(back, fitted.inverse_transform(z, domain="a"))
    np.testing.assert_array_equal(fitted.counterfactual(frame, labels, to="a"), fitted.translate(frame, labels, to="a"))
    table = fitted.mixing_frame()
    assert list(table.index) == list(frame.columns)
    np.testing.assert_array_equal(table.to_numpy(), fitted.mixing_)
    x, _ = images
    assert fitted_images.inverse_transform(fitted_images.transform(x)).dtype == np.uint8
    maps = fitted_images.mixing_frame()
    np.testing.assert_array_equal(maps.loc["2.3.0"].to_numpy(), fitted_images.mixing_[2, 3, 0])
    with pytest.raises(SchemaError, match=r"inverse_transform takes latents of shape \(n_samples, 3\)"):
        fitted.inverse_transform(z[:, :2])
    plain = CGGAN(n_latents=2, flow=False, hidden=(4,), max_steps=2, encoder_steps=1, verbose=0).fit(frame, labels)
    with pytest.raises(DomainError, match="With flow=False rows depend on their domain: pass domain="):
        plain.inverse_transform(plain.transform(frame))
    assert plain.inverse_transform(plain.transform(frame), domain="a").shape == frame.shape
