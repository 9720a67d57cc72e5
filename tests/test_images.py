"""Images: the embedded data, the convolutional networks, the estimator, the classifier, and pages."""

import contextlib
import hashlib
import json
import os

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError

import unmix
from unmix import CGVAEImages, DataWarning, read_images
from unmix.data.batches import Pixels
from unmix.datasets import load_digits_two_colours, load_emoji
from unmix.datasets.builtin import TWO_COLOURS
from unmix.errors import DataError, DomainError, SchemaError, SettingError, StorageError
from unmix.estimators.prepare import prepare_images
from unmix.images import ImageClassifier, image_features
from unmix.models.features import fingerprint
from unmix.models.image_autoencoder import ImageAutoencoder, ImageAutoencoderConfig, default_widths
from unmix.nets.convolution import ConvolutionalEncoder
from unmix.nets.layers import generators
from unmix.report.images import heat, some_of_each

QUICK = {
    "n_latents": 2,
    "hidden": (4, 4),
    "n_codes": 5,
    "widths": (3, 4),
    "n_restarts": 2,
    "max_epochs": 2,
    "verbose": 0,
}


def test_every_emoji_is_there_and_drawn():
    data = load_emoji()
    combinations = data.factors.assign(domain=data.domains).value_counts()
    assert len(combinations) == 3 * 27 * 3 * 5 == len(data.images)
    assert (data.images != 255).any(axis=3).mean(axis=(1, 2)).min() > 0.2
    assert len(np.unique(data.images.reshape(1215, -1), axis=0)) == 1205
    assert data.factors.iloc[:405].reset_index(drop=True).equals(data.factors.iloc[405:810].reset_index(drop=True))


def test_two_colour_digits_are_mixtures_of_their_colours():
    data = load_digits_two_colours(random_state=1)
    for name, (ink, ground) in TWO_COLOURS.items():
        pixels = data.images[data.domains == name].reshape(-1, 3).astype(float)
        direction = np.array(ink, float) - ground
        share = (pixels - ground) @ direction / (direction @ direction)
        assert np.abs(pixels - ground - share[:, None] * direction).max() < 1
        assert (share.min(), share.max()) == pytest.approx((0, 1), abs=0.01)
    assert data.factors["digit"].nunique() == 10
    with pytest.raises(SettingError, match="size must be at least 8"):
        load_digits_two_colours(4)


@pytest.mark.parametrize("shape", [(8, 8, 3), (9, 14, 1), (16, 23, 3)])
def test_convolutions_take_any_side(shape):
    x = torch.randn(3, int(np.prod(shape)), generator=torch.Generator().manual_seed(0))
    config = ImageAutoencoderConfig(5, shape, (2, 3), dense=4)
    network = ImageAutoencoder(config)
    z = network.encode(x, None).mean
    assert z.shape == (1, 3, 5)
    assert network.decode(z).shape == (1, 3, int(np.prod(shape)))
    # Every pixel is seen, those behind which the image is padded too.
    slope = torch.autograd.functional.jacobian(lambda row: network.encode(row[None], None).mean[0, 0], x[0])
    assert (slope.abs().sum(0) > 0).all()


def test_channels_go_down_to_a_small_grid():
    assert default_widths((16, 16, 3)) == (32, 64)
    assert default_widths((20, 32, 3)) == (16, 32, 64)
    assert default_widths((256, 256, 1)) == (16, 16, 16, 16, 32, 64)
    assert default_widths((8, 8, 1)) == (64,)


@pytest.mark.slow
def test_starts_of_convolutions_do_not_depend_on_their_number():
    x = torch.randn(3, 8 * 8 * 3, generator=torch.Generator().manual_seed(0))
    one, two = (ConvolutionalEncoder(generators(5, n), (8, 8, 3), (4,), 6, 2)(x, None).mean for n in (1, 2))
    torch.testing.assert_close(one[0], two[0])


def test_pixels_are_standardised_when_asked_for(pictures):
    labels = np.repeat(["a", "b"], 6)
    data = prepare_images(pictures, labels, auxiliary=None, min_domain_rows=2, validation_fraction=0.2, seed=0)
    assert isinstance(data.rows.source, Pixels)
    assert "x" not in vars(data.rows)
    expected = (pictures.reshape(12, -1) / 255 - data.features.mean) / data.features.std
    taken = data.rows.take(torch.tensor([3, 1])).x
    np.testing.assert_allclose(taken, expected[data.order[[3, 1]]], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(data.features.restore(expected), pictures)


@pytest.fixture(scope="module")
def sprites():
    return unmix.datasets.make_sprites(n_samples=90, size=16, n_domains=2, random_state=0)


@pytest.fixture(scope="module")
def fitted(sprites):
    return CGVAEImages(**QUICK).fit(sprites.images, sprites.domains)


def test_estimator_speaks_in_images(fitted, sprites, tmp_path):
    first = sprites.images[:4]
    moved = fitted.counterfactual(first, sprites.domains[:4], to=1)
    back = fitted.inverse_transform(fitted.transform(first))
    traversed = fitted.traverse(first[:2], latent=1, values=(-1, 0, 1))
    for images in (moved, back, fitted.sample(4, domain=0)):
        assert images.shape == first.shape
        assert images.dtype == np.uint8
    assert traversed.shape == (3, 2, 16, 16, 3)
    z = fitted.transform(first[:2])
    z[:, 1] = -1
    np.testing.assert_array_equal(traversed[0], fitted.inverse_transform(z))
    np.testing.assert_array_equal(moved, fitted.translate(first, sprites.domains[:4], to=1))
    assert fitted.mixing_.shape == (fitted.n_features_in_, 2)
    assert fitted.mixing_maps().shape == (2, 16, 16)
    here = fitted.counterfactual(first, sprites.domains[:4], to=sprites.domains[:4])
    np.testing.assert_array_equal(here, back)
    kept = fitted.counterfactual(first, sprites.domains[:4], to=sprites.domains[:4], residual=True)
    assert np.abs(kept.astype(int) - first).max() <= 1
    again = unmix.load(fitted.save(tmp_path / "model"))
    np.testing.assert_array_equal(again.transform(sprites.images), fitted.transform(sprites.images))
    np.testing.assert_array_equal(again.sample(3, domain=1), fitted.sample(3, domain=1))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The fit was trained on:unmix.DataWarning")
def test_what_read_images_returns_can_be_fitted(fitted, sprites):
    table = read_images(sprites.images, sprites.domains)
    np.testing.assert_array_equal(CGVAEImages(**QUICK).fit(table).transform(table), fitted.transform(sprites.images))
    assert np.isfinite(fitted.score(table))
    given, brought = fitted.audit(sprites.images, sprites.domains), fitted.audit(table)
    pd.testing.assert_frame_equal(given.latents, brought.latents)


@pytest.mark.slow
def test_the_model_is_the_composition_of_two_stages(fitted, sprites):
    """Components of the codes, their factors, and back, by the public parts."""
    encode, decode = fitted.autoencoder_
    codes = encode(sprites.images)
    assert codes.shape == (90, 5)
    frame = fitted.model_.coder
    components = pd.DataFrame(frame.components(codes), columns=fitted.feature_names_in_)
    np.testing.assert_allclose(np.cov(components.T), np.diag(components.var()), atol=0.05)
    again = CGVAEImages(**{**QUICK, "autoencoder": fitted.autoencoder_}).fit(sprites.images, sprites.domains)
    np.testing.assert_allclose(again.transform(sprites.images), fitted.transform(sprites.images), atol=1e-4)
    table = unmix.CGVAE(n_latents=2, hidden=(4, 4), n_restarts=2, max_epochs=2, sparsity=0.0, verbose=0)
    table.fit(components, sprites.domains)
    np.testing.assert_allclose(table.transform(components), fitted.transform(sprites.images), atol=1e-4)
    np.testing.assert_array_equal(
        fitted.inverse_transform([[0, 1]]), decode(frame.codes(table.inverse_transform([[0, 1]])))
    )
    assert fitted.score(sprites.images, sprites.domains) == pytest.approx(table.score(components, sprites.domains))
    assert fitted.check_counterfactuals().to_frame()["feature"].str.startswith("c").all()


def test_images_of_a_new_domain(fitted, sprites):
    wider = fitted.adapt(sprites.images[:30], domain="new")
    assert wider.domains_ == ("0", "1", "new")
    assert wider.sample(2, domain="new").shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(wider.transform(sprites.images), fitted.transform(sprites.images))
    assert len(fitted.novelty(255 - sprites.images[:20]).rows) == 20


@pytest.mark.slow
def test_an_interrupted_fit_goes_on_in_either_stage(fitted, sprites, tmp_path, monkeypatch):
    expected, place = fitted.transform(sprites.images), tmp_path / "run.safetensors"
    for stop in (1, 2, 3):
        calls = []

        def interrupted(verbose, epochs, calls=calls, stop=stop):
            def on_epoch(*_):
                calls.append(epochs)
                if len(calls) == stop:
                    raise KeyboardInterrupt

            return contextlib.nullcontext(on_epoch)

        with monkeypatch.context() as patch:
            for module in ("images", "base"):
                patch.setattr(f"unmix.estimators.{module}.epoch_bar", interrupted)
            with pytest.raises(KeyboardInterrupt):
                CGVAEImages(**QUICK).fit(sprites.images, sprites.domains, checkpoint=place)
        assert (tmp_path / "run-factors.safetensors").exists() == (stop == 3)
        model = CGVAEImages(**QUICK).fit(sprites.images, sprites.domains, checkpoint=place, resume=True)
        np.testing.assert_array_equal(model.transform(sprites.images), expected)
        assert os.listdir(tmp_path) == ["run.safetensors"]
    (tmp_path / "run-factors.safetensors").write_text("mine")
    with pytest.raises(
        StorageError, match=r"run-factors\.safetensors is where the checkpoint of the second stage belongs"
    ):
        CGVAEImages(**QUICK).fit(sprites.images, sprites.domains, checkpoint=place)


@pytest.mark.slow
def test_an_autoencoder_of_ones_own(sprites, tmp_path):
    images, domains = sprites.images, sprites.domains
    axes = np.linalg.svd(images.reshape(90, -1) - 20.0, full_matrices=False)[2][:6]

    def encode(own):
        return (own.reshape(len(own), -1) - 20.0) @ axes.T

    def decode(codes):
        return (codes @ axes + 20.0).reshape(-1, 16, 16, 3)

    class Encoder(torch.nn.Module):
        def forward(self, x):
            flat = 255 * x.permute(0, 2, 3, 1).flatten(1) - 20
            return flat @ torch.from_numpy(axes.T).float()

    class Decoder(torch.nn.Module):
        def forward(self, z):
            return ((z @ torch.from_numpy(axes).float() + 20) / 255).view(-1, 16, 16, 3).permute(0, 3, 1, 2)

    words = {**QUICK, "autoencoder": (encode, decode)}
    model = CGVAEImages(**words).fit(images, domains)
    assert model.n_features_in_ == 6
    modules = CGVAEImages(**{**words, "autoencoder": (Encoder(), Decoder())}).fit(images, domains)
    np.testing.assert_allclose(modules.transform(images), model.transform(images), atol=1e-3)
    again = unmix.load(model.save(tmp_path / "model"))
    for call in (again.transform, lambda own: again.sample(1, domain=0)):
        with pytest.raises(SettingError, match=r"not saved with it. Pass it again: model.set_params\(autoencoder="):
            call(images)
    with pytest.raises(SettingError, match="Pass it again"):
        again.fit(images, domains)
    again.set_params(autoencoder=(encode, decode))
    np.testing.assert_array_equal(again.transform(images), model.transform(images))
    np.testing.assert_array_equal(again.sample(3, domain=1), model.sample(3, domain=1))
    draws = np.random.default_rng(0)
    for pair, message in (
        ("vae", r"must be None or a pair \(encode, decode\).*got 'vae'"),
        ((encode,), "a pair"),
        ((lambda own: own, decode), r"must give finite codes \(4, n_codes\) of 4 images; got shape \(4, 16, 16, 3\)"),
        ((lambda own: encode(own) * np.nan, decode), "must give finite codes"),
        ((lambda own: encode(own) + draws.normal(size=(len(own), 6)), decode), "differ from call to call"),
        ((lambda own: own.nothing, decode), "The encoder of autoencoder= failed .*AttributeError"),
        ((encode, lambda codes: decode(codes)[:, 1:]), r"must give images \(4, 16, 16, 3\) of their codes; got"),
        ((encode, lambda codes: decode(codes) * np.nan), "images as numbers from 0 to 255"),
    ):
        with pytest.raises(SettingError, match=message):
            CGVAEImages(**{**QUICK, "autoencoder": pair}).fit(images, domains)

    def widened(codes):
        return decode(np.pad(codes, ((0, 0), (0, 5))))

    with pytest.raises(DataError, match=r"have 1 components?, fewer than n_latents = 2"):
        CGVAEImages(**{**QUICK, "autoencoder": (lambda own: encode(own)[:, :1], widened)}).fit(images, domains)


@pytest.mark.slow
def test_a_long_training_is_announced(sprites, monkeypatch, capsys):
    monkeypatch.setattr("unmix.estimators.images.seconds_a_step", lambda *_: 9_000.0)
    with pytest.warns(DataWarning, match=r"about 5 hours on cpu.*read_images\(…, size=32\).*max_epochs"):
        CGVAEImages(**{**QUICK, "verbose": 1}).fit(sprites.images, sprites.domains)
    assert "about 5 hours" in capsys.readouterr().err


def test_a_folder_of_the_model_with_one_stage_is_refused(fitted, tmp_path):
    folder = fitted.save(tmp_path / "model")
    schema = json.loads((folder / "schema.json").read_text())
    schema["features"] = schema["features"]["images"]
    (folder / "schema.json").write_text(json.dumps(schema))
    (folder / "done.json").write_text("{}")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format": 2}))
    with pytest.raises(
        StorageError, match=r"saved by an earlier version, whose model had one stage and is gone. Fit again"
    ):
        unmix.load(folder)


def test_images_that_no_model_can_learn_from(fitted, sprites):
    def refuse(error, message, images, domains, **words):
        with pytest.raises(error, match=message):
            CGVAEImages(**{**QUICK, **words}).fit(images, domains)

    images, domains = sprites.images, sprites.domains
    refuse(DataError, "at least 10 images to learn from; got 9", images[:9], domains[:9])
    refuse(DomainError, "All 90 images belong to one domain", images, np.zeros(90, int))
    refuse(DomainError, "All 90 images belong to one domain", images, None)
    refuse(DataError, "at least 8 × 8 pixels; got 4 × 16", images[:, :4], domains)
    refuse(DataError, "All images are the same", np.zeros_like(images), domains)
    refuse(SettingError, "halves the images 5 times, which 16 pixels", images, domains, widths=(2,) * 5)
    refuse(SettingError, "widths must be None, or one or more widths", images, domains, widths=4)
    refuse(SettingError, "n_codes must be a whole number ≥ 1", images, domains, n_codes=0)
    refuse(SettingError, "missing must be one of", images, domains, missing="mask")
    refuse(SettingError, "penalty_rows must be a whole number ≥ 1", images, domains, penalty_rows=0)
    with pytest.raises(SchemaError, match=r"images of shape \(16, 16, 3\); got \(16, 16, 1\)"):
        fitted.transform(images[..., :1])
    for latent in (2, -1, "a", 1.5, True):
        with pytest.raises(SettingError, match="latent must be a whole number from 0 to 1"):
            fitted.traverse(images, latent=latent)
    for values in ("ab", [], [0.0, float("nan")], 1.0, None):
        with pytest.raises(SettingError, match="values must be one or more numbers"):
            fitted.traverse(images, latent=0, values=values)
    for name, wrong in (("sparsity", "a"), ("learning_rate", "a"), ("validation_fraction", "a"), ("kl_weight", None)):
        refuse(SettingError, f"{name} must be", images, domains, **{name: wrong})
    for words in ({"n_samples": 0}, {"n_samples": 1.5}, {"random_state": "a"}, {"random_state": -1}):
        with pytest.raises(SettingError, match=f"{next(iter(words))} must be a whole number"):
            fitted.sample(domain=0, **words)


@pytest.fixture(scope="module")
def judge():
    data = load_digits_two_colours(8)
    return ImageClassifier(width=8, max_epochs=6, batch_size=32).fit(data.images, data.domains)


def test_classifier_and_its_named_features(judge, tmp_path):
    data = load_digits_two_colours(8)
    assert judge.score(data.images, data.domains) > 0.95
    assert judge.score(data) == judge.score(data.images, data.domains)
    features, name = image_features(judge, data.images[:30])
    assert features.shape == (30, 16)
    again = ImageClassifier.load(judge.save(tmp_path / "judge.safetensors"))
    np.testing.assert_array_equal(again.features(data.images[:30]), features)
    assert again.name_ == name
    other = ImageClassifier(width=8, max_epochs=1, random_state=1).fit(data.images, data.domains)
    assert other.name_ != name
    weight = judge.network_.last.weight.detach().double().numpy()
    logits = features @ weight.T + judge.network_.last.bias.detach().double().numpy()
    assert (judge.classes_[logits.argmax(axis=1)] == judge.predict(data.images[:30])).all()


def test_any_module_extracts_features(pictures):
    features, name = image_features(torch.nn.AvgPool2d((9, 10)), pictures)
    np.testing.assert_allclose(features, pictures.mean(axis=(1, 2)) / 255, rtol=1e-5)
    assert name.startswith("AvgPool2d-")
    assert name == image_features(torch.nn.AvgPool2d((9, 10)), pictures)[1]
    assert name != image_features(torch.nn.AvgPool2d((3, 10)), pictures)[1]


def test_a_network_keeps_the_name_that_it_had():
    network = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(network.weight, 0.5)
    torch.nn.init.zeros_(network.bias)
    digest = hashlib.sha256()
    for word, values in (("weight", [0.5, 0.5]), ("bias", [0.0])):
        digest.update(word.encode() + np.array(values, np.float32).tobytes())
    assert fingerprint(network) == digest.hexdigest()[:8]


def test_extractors_that_are_none(pictures):
    class Pair(torch.nn.Module):
        def forward(self, x):
            return x, x

    for wrong in ("inception", None, ImageClassifier):
        with pytest.raises(SettingError, match=r"extractor must be a fitted ImageClassifier or a torch.nn.Module"):
            image_features(wrong, pictures)
    with pytest.raises(NotFittedError):
        image_features(ImageClassifier(), pictures)
    grey = torch.nn.Conv2d(1, 2, 3)
    grey.train()
    with pytest.raises(
        DataError, match=r"extractor Conv2d failed on images .* of shape \(12, 3, 9, 10\): RuntimeError"
    ):
        image_features(grey, pictures)
    assert grey.training
    with pytest.raises(DataError, match=r"extractor Pair must make one tensor \(12, n_features\).*got a tuple"):
        image_features(Pair(), pictures)
    with pytest.raises(DataError, match=r"extractor Flatten must make one tensor .*got shape \(3240,\)"):
        image_features(torch.nn.Flatten(0), pictures)


def test_the_classifier_takes_what_read_images_returns(pictures):
    table = read_images(pictures, np.arange(12) % 2)
    first = ImageClassifier(width=2, max_epochs=1).fit(table)
    assert first.classes_.tolist() == ["0", "1"]
    assert first.name_ == ImageClassifier(width=2, max_epochs=1).fit(pictures, np.arange(12) % 2).name_
    np.testing.assert_array_equal(first.predict(table), first.predict(pictures))
    for extractor in (first, torch.nn.AvgPool2d((9, 10))):
        np.testing.assert_array_equal(image_features(extractor, table)[0], image_features(extractor, pictures)[0])
    data = load_digits_two_colours(8)
    assert ImageClassifier(width=2, max_epochs=1).fit(data).classes_.tolist() == sorted(TWO_COLOURS)
    numbers = ImageClassifier(width=2, max_epochs=1).fit(pictures, np.arange(12) % 2)
    assert numbers.score(pictures, (np.arange(12) % 2).astype(str)) == numbers.score(pictures, np.arange(12) % 2)


def test_classifier_messages(judge, pictures):
    with pytest.raises(DataError, match=r"one label for each of 12 images; got none"):
        ImageClassifier().fit(pictures)
    with pytest.raises(DataError, match=r"one label for each of 12 images; got shape \(2,\)"):
        ImageClassifier().fit(pictures, [0, 1])
    with pytest.raises(DataError, match="two classes or more"):
        ImageClassifier().fit(pictures, np.zeros(12))
    for labels, message in (
        ([None, "b"] * 6, r"y has missing values \(NaN\), first in rows \[0, "),
        (["a", float("nan")] * 6, r"y has missing values \(NaN\), first in rows \[1, "),
        (np.array([0.0, np.nan] * 6), r"y has missing values \(NaN\), first in rows \[1, "),
        ([0, "a"] * 6, "all text or all numbers; got int, str"),
        (np.array(["a", 0] * 6, dtype=object), "all text or all numbers; got int, str"),
        ([[0, 1], [0]] * 6, "neither labels nor a table: rows differ in length"),
    ):
        with pytest.raises(DataError, match=message):
            ImageClassifier().fit(pictures, labels)
    with pytest.raises(SchemaError, match="fitted on 3 channels; got 1"):
        judge.predict(pictures[..., :1])
    for call in ("predict", "features"):
        with pytest.raises(NotFittedError):
            getattr(ImageClassifier(), call)(pictures)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("width", (0, 1.5, "a", True)),
        ("max_epochs", (0, 1.5, None)),
        ("batch_size", ("a", 2.5, 0)),
        ("learning_rate", (-1, 0, "a", float("nan"), None)),
        ("instance_norm", ("x", 1)),
        ("random_state", (0.5, "a", -1, 2**64)),
    ],
)
def test_settings_of_the_classifier_that_cannot_be(name, values, pictures):
    for value in values:
        with pytest.raises(SettingError, match=f"^{name} must be .*; got "):
            ImageClassifier(**{name: value}).fit(pictures, np.arange(12) % 2)


def test_numbers_of_numpy_are_settings_and_labels(pictures, tmp_path):
    settings = {"width": np.int64(2), "max_epochs": np.int32(1), "instance_norm": np.bool(True)}
    labels = np.arange(12) % 2
    judge = ImageClassifier(**settings).fit(pictures, labels.astype(object))
    again = ImageClassifier.load(judge.save(tmp_path / "judge"))
    np.testing.assert_array_equal(again.predict(pictures), judge.predict(pictures))
    assert judge.classes_.dtype.kind == "i"
    assert ImageClassifier(width=2, max_epochs=1).fit(pictures, pd.Series(list("ab") * 6)).classes_.tolist() == [
        "a",
        "b",
    ]


def test_grids(pictures, tmp_path):
    sheet = unmix.images.image_grid(pictures.reshape(3, 4, 9, 10, 3))
    assert sheet.shape == (3 * 10 - 1, 4 * 11 - 1, 3)
    np.testing.assert_array_equal(sheet[10:19, 22:32], pictures[6])
    np.testing.assert_array_equal(unmix.images.image_grid(list(pictures.reshape(3, 4, 9, 10, 3))), sheet)
    grey = unmix.images.image_grid(pictures[..., :1], tmp_path / "new" / "grid.png", zoom=2)
    with Image.open(tmp_path / "new" / "grid.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), grey[..., 0])
    np.testing.assert_array_equal(grey[::2, ::2][:, :10], pictures[0, :, :, :1])
    np.testing.assert_array_equal(heat(np.array([[[0.0, 2.0]]])), [[[[255], [0]]]])


def test_grids_that_cannot_be(pictures, tmp_path):
    for wrong in (pictures / 255, pictures[..., 0], pictures[:0], pictures[..., :2]):
        with pytest.raises(DataError, match=r"Expected images as uint8 \(rows, columns, height, width, channels\)"):
            unmix.images.image_grid(wrong, tmp_path / "grid.png")
    with pytest.raises(DataError, match=r"All rows of a grid must have one shape; got \[\(12, 9"):
        unmix.images.image_grid([pictures, pictures[:3]])
    with pytest.raises(SettingError, match=r"path must end in .png; got 'grid.jpg'"):
        unmix.images.image_grid(pictures, tmp_path / "grid.jpg")
    for zoom in (0, 1.5, True):
        with pytest.raises(SettingError, match="zoom must be a whole number ≥ 1"):
            unmix.images.image_grid(pictures, zoom=zoom)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(StorageError, match="is a folder, so it is not replaced"):
        unmix.images.image_grid(pictures, tmp_path / "folder.png")


def test_some_images_of_each_domain_are_shown_and_named():
    chosen, words = some_of_each(np.array([1, 1, 1, 1, 1, -1, 0, 0, 0, 2]), ("a", "b", "c"))
    assert chosen.tolist() == [6, 7, 0, 3, 9]
    assert words == "2 of a, 2 of b, 1 of c"
    chosen, words = some_of_each(np.arange(20), [str(k) for k in range(20)])
    assert chosen.tolist() == list(range(8))


def test_image_page(fitted, sprites, tmp_path):
    text = fitted.report(tmp_path / "page.html", sprites.images, sprites.domains).read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 2 + 2 + 2 + 2 + 3
    assert "2 latents in 2 domains. Latents of 2 starts agree at" in text
    assert "<th>torch version</th>" in text
    assert "the others at their mean" in text
    assert "from left to right: 4 of 0, 4 of 1 (real images)." in text
    for heading in ("Samples", "One noise, every domain", "Traversals", "Real images, translated"):
        assert f"<h2>{heading}</h2>" in text
    with pytest.raises(DomainError, match=r"the domain of each of 90 images; got none. Pass them as second argument"):
        fitted.report(tmp_path / "page.html", sprites.images)


def test_image_page_of_several_domain_columns_says_what_it_leaves_out(sprites, tmp_path):
    site = pd.DataFrame({"site": sprites.domains, "dose": np.arange(90) % 2})
    model = CGVAEImages(**{**QUICK, "n_restarts": 1}).fit(sprites.images, site)
    text = model.report(tmp_path / "page.html", sprites.images, site).read_text(encoding="utf-8")
    assert "drawn where the domains are one column of labels; this model has site, dose." in text
    assert "<h2>Traversals</h2>" in text
    assert "<h2>Samples</h2>" not in text
    assert "One start: nothing says whether another would find the same latents" in text


def test_a_latent_that_takes_two_values_is_seen_to_move_pixels(sprites, fitted, monkeypatch):
    def inverted(z):
        light = (z[:, :1] > 0)[:, :, None, None] * np.ones((1, 16, 16, 3))
        return (255 * light).astype(np.uint8)

    monkeypatch.setattr(fitted, "inverse_transform", inverted)
    maps = fitted.mixing_maps()
    np.testing.assert_allclose(maps, [np.full((16, 16), 255 / 4), np.zeros((16, 16))])
