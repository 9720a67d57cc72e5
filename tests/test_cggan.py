"""CG-GAN, the estimator: its contract on tables and on images, ablations, report, messages."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import unmix
from unmix import CGGAN, DataError, DomainError, SchemaError, SettingError, cli

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


def test_the_report_shows_images_mask_and_curves(fitted_images, images, tmp_path):
    x, y = images
    page = fitted_images.report(tmp_path / "r.html", x, y).read_text()
    for title in ("Samples", "One noise, every domain", "Traversals", "Real images, translated", "What each latent"):
        assert f"<h2>{title}" in page
    for title in ("Content and style", "Training"):
        assert f"<h2>{title}</h2>" in page
    assert page.count("data:image/png") == 2 + 2 + 3 + 3 + 1
    assert page.count("data:image/svg") == 2
    assert "Real images, translated" not in fitted_images.report(tmp_path / "s.html").read_text()


def test_what_read_images_returns_brings_its_domains_along(fitted_images, images):
    x, y = images
    model = CGGAN(**SMALL).fit(unmix.read_images(x, y))
    np.testing.assert_array_equal(model.transform(x), fitted_images.transform(unmix.read_images(x, y)))


# Messages


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        (r"n_latents must be a whole number ≥ 1; got 0", {"n_latents": 0}),
        (r"max_steps must be a whole number ≥ 1; got 1.5", {"max_steps": 1.5}),
        (r"n_style must be None or from 0 to n_latents; got 4", {"n_style": 4}),
        (r"hidden must be one or more widths", {"hidden": ()}),
        (r"flow must be one of \['gaussian', 'spline'\] or False; got 'planar'", {"flow": "planar"}),
        (r"flow must be one of .*; got True", {"flow": True}),
        (r"penalty must be one of", {"penalty": "l0"}),
        (r"hidden must be one or more widths ≥ 1, such as \(128, 128\); got 128", {"hidden": 128}),
        (r"hidden must be one or more widths ≥ 1.*; got \(6.5,\)", {"hidden": (6.5,)}),
        (r"flow must be one of .*; got \['gaussian'\]", {"flow": ["gaussian"]}),
        (r"sparsity must be ≥ 0 and finite; got -1", {"sparsity": -1}),
        (r"sparsity must be ≥ 0 and finite; got 'x'", {"sparsity": "x"}),
        (r"mask_weight must be ≥ 0 and finite; got None", {"mask_weight": None}),
        (r"gradient_weight must be ≥ 0 and finite; got nan", {"gradient_weight": float("nan")}),
        (r"learning_rate must be > 0; got 0", {"learning_rate": 0}),
        (r"learning_rate must be > 0; got '1e-3'", {"learning_rate": "1e-3"}),
        (r"mask must be True or False; got 'no'", {"mask": "no"}),
        (r"random_state must be a whole number ≥ 0, a RandomState or None; got 'x'", {"random_state": "x"}),
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
    refuse(DataError, "There are 9 images; CGGAN needs at least 10", x[:9], y[:9])
    refuse(DataError, r"square with sides of \[16, 32, 64, 128\] pixels; got 16 by 12", x[:, :, :12], y)
    refuse(DataError, r"uint8 array .*; got float64", x.astype(float), y)
    refuse(DataError, r"uint8 array .*; got uint8 of shape \(24, 16, 16\)", x[..., 0], y)
    refuse(DataError, r"one size and mode; got shapes", [x[0], x[1, :, :, :1], *x[2:]], y)
    with pytest.raises(SchemaError, match=r"fitted on images of shape \(16, 16, 3\); got \(16, 16, 1\)"):
        fitted_images.transform(x[..., :1])
    with pytest.raises(SchemaError, match=r"fitted on the columns \['x0'.*Select them"):
        fitted.transform(frame[frame.columns[::-1]])
    with pytest.raises(SchemaError, match=r"got 4\. Select them"):
        fitted.transform(frame.to_numpy()[:, :4])
    with pytest.raises(DataError, match=r"Say which domain to sample: one of \['a', 'b', 'c'\]"):
        fitted.sample(2)
    with pytest.raises(DomainError, match="not seen at fit"):
        fitted.translate(frame, labels, to="z")


def test_arguments_that_cannot_be(fitted, fitted_images, frame, labels, images):
    for n_samples in (0, -1, 2.5, "3", True):
        with pytest.raises(SettingError, match=f"n_samples must be a whole number ≥ 1; got {n_samples!r}"):
            fitted.sample(n_samples, domain="a")
    with pytest.raises(SettingError, match="random_state must be a whole number ≥ 0, a RandomState or None; got 'x'"):
        fitted.sample(2, domain="a", random_state="x")
    for latent in (3, -1, 1.5, "0"):
        with pytest.raises(SettingError, match=f"latent must be a whole number from 0 to 2; got {latent!r}"):
            fitted.traverse(frame, labels, latent=latent)
    for values in ((), 1.0, "12", ((1, 2), 3), (None,)):
        with pytest.raises(SettingError, match=r"values must be one or more numbers, such as \(-2, 0, 2\); got"):
            fitted.traverse(frame, labels, latent=0, values=values)
    for model, x, y in ((fitted, frame, labels), (fitted_images, *images)):
        for use in (model.transform, lambda none, m=model, y=y: m.translate(none, y[:0], to="a")):
            with pytest.raises(DataError, match=r"The table is empty|There are no images; pass at least one"):
                use(x[:0])


def test_the_command_line_reads_tables_and_refuses_the_rest(fitted, fitted_images, frame, tmp_path):
    table, image = fitted.save(tmp_path / "table"), fitted_images.save(tmp_path / "image")
    frame.to_csv(tmp_path / "t.csv", index=False)
    cli.transform(table, tmp_path / "t.csv", tmp_path / "z.csv", "cpu")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "z.csv")[["z0", "z1", "z2"]], fitted.transform(frame), atol=1e-4)
    with pytest.raises(SchemaError, match="fitted on images, not on a table"):
        cli.transform(image, tmp_path / "t.csv", tmp_path / "y.csv", "cpu")
    cli.report(table)
    assert "Content and style" in (table / "report.html").read_text()
