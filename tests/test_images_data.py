"""Images with known factors: the image tells the factors, the domains shift what they should, files are checked."""

import colorsys
import itertools
import sys
import zipfile

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import chi2_contingency, chisquare, ks_2samp, truncnorm
from sklearn.linear_model import LinearRegression

from unmix.datasets import draw_sprites, make_sprites, read_dsprites, read_shapes3d
from unmix.datasets.images import Classes, draw_classes, draw_positions
from unmix.errors import DataError, SettingError

SHAPES = ("square", "ellipse", "heart", "triangle")
SPRITE = {"shape": "heart", "x": 0.5, "y": 0.5, "scale": 0.3, "angle": 0.0, "hue": 0.0}


@pytest.fixture(scope="module")
def sprites():
    return make_sprites(5000, random_state=3)


def moments(images):
    """Square root of the mass, and centroid, of the brightest channel."""
    cover = images.max(axis=3) / 255
    pixels = (np.arange(cover.shape[1]) + 0.5) / cover.shape[1]
    mass = cover.sum(axis=(1, 2))
    x, y = (cover.sum(axis=1) @ pixels / mass, cover.sum(axis=2) @ pixels / mass)
    return np.column_stack([np.sqrt(mass) / cover.shape[1], x, y])


def sprite(**factors):
    return draw_sprites(pd.DataFrame([{**SPRITE, **factors}]), 64).astype(int)


def test_moments_are_scale_and_position(sprites):
    truth = sprites.factors[["scale", "x", "y"]].to_numpy()
    np.testing.assert_allclose(moments(sprites.images), truth, atol=0.006)
    fitted = LinearRegression().fit(moments(sprites.images[:2500]), truth[:2500])
    assert fitted.score(moments(sprites.images[2500:]), truth[2500:]) > 0.999


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_the_area_and_centroid_it_claims(shape):
    fine = draw_sprites(pd.DataFrame([{**SPRITE, "shape": shape, "angle": 20.0, "x": 0.4}]), 256)
    np.testing.assert_allclose(moments(fine)[0], [0.3, 0.4, 0.5], atol=4e-4)


def test_colour_is_the_hue(sprites):
    brightest = sprites.images.reshape(len(sprites.images), -1, 3).max(axis=1) / 255
    expected = [colorsys.hsv_to_rgb(hue, 1, 1) for hue in sprites.factors["hue"]]
    np.testing.assert_allclose(brightest, expected, atol=0.003)


@pytest.mark.slow
def test_no_two_sprites_look_the_same(sprites):
    assert len(np.unique(sprites.images.reshape(len(sprites.images), -1), axis=0)) == len(sprites.images)
    ends = {
        "shape": SHAPES,
        "x": (0.3, 0.7),
        "y": (0.3, 0.7),
        "scale": (0.18, 0.34),
        "angle": (-36, 36),
        "hue": (0, 0.8),
    }
    corners = pd.DataFrame(itertools.product(*ends.values()), columns=list(ends))
    images = draw_sprites(corners).reshape(len(corners), -1) / 255
    assert pdist(images).min() > 1


@pytest.mark.parametrize(("shape", "period"), [("square", 90), ("ellipse", 180), ("heart", 360), ("triangle", 120)])
def test_angles_stay_where_the_image_determines_them(shape, period):
    assert np.abs(sprite(shape=shape, angle=7.0) - sprite(shape=shape, angle=7.0 + period)).max() <= 1
    angles = make_sprites(2000, shapes=(shape,)).factors["angle"]
    assert 0.39 * period < angles.abs().max() <= 0.4 * period
    steps = pd.DataFrame([{**SPRITE, "shape": shape, "angle": a} for a in np.linspace(-0.4, 0.4, 17) * period])
    images = draw_sprites(steps).reshape(17, -1) / 255
    assert pdist(images).min() > 0.5


def test_angles_turn_counter_clockwise_and_heart_points_down():
    upright, turned = sprite()[0, ..., 0], sprite(angle=90.0)[0, ..., 0]
    np.testing.assert_allclose(turned, np.rot90(upright), atol=1)
    assert np.flatnonzero(upright.any(axis=1))[-1] - 31.5 > 31.5 - np.flatnonzero(upright.any(axis=1))[0]
    np.testing.assert_array_equal(upright, upright[:, ::-1])


def test_domains_shift_what_they_should_and_nothing_else():
    data = make_sprites(6000, n_domains=3, change=("x", "shape"), channels=1, size=16, random_state=1)
    assert data.changing == ("shape", "x")
    assert list(data.factors) == ["shape", "x", "y", "scale", "angle"]
    assert data.factor_kinds == dict.fromkeys(data.factors, "continuous") | {"shape": "discrete"}
    groups = [data.factors[data.domains == u] for u in range(3)]
    assert [len(group) for group in groups] == [2000] * 3
    for first, second in itertools.combinations(groups, 2):
        assert ks_2samp(first["x"], second["x"]).pvalue < 1e-20
        assert (
            np.abs(np.subtract(*(g["shape"].value_counts(normalize=True).sort_index() for g in (first, second)))).max()
            > 0.1
        )
        for name in ("y", "scale", "angle"):
            assert ks_2samp(first[name], second[name]).pvalue > 0.001
    for group in groups:
        correlation = group.drop(columns="shape").corr().to_numpy()[~np.eye(4, dtype=bool)]
        assert np.abs(correlation).max() < 0.08


def test_draws_follow_the_stated_densities():
    rng = np.random.default_rng(0)
    position = draw_positions(rng, 4)
    np.testing.assert_allclose(np.sort(position.means), [0.2, 0.4, 0.6, 0.8])
    drawn = position.draw(rng, np.full(4000, 2))
    mean, scale = position.means[2], position.scales[2]
    density = truncnorm(-mean / scale, (1 - mean) / scale, mean, scale).pdf(grid := np.linspace(0, 1, 50))
    ratio = density / position.weight(2, grid)
    np.testing.assert_allclose(ratio, ratio[0])
    counts = np.histogram(drawn, 10, (0, 1))[0] / 4000
    centres = np.linspace(0.05, 0.95, 10)
    weights = position.weight(2, centres)
    np.testing.assert_allclose(counts, weights / weights.sum(), atol=0.03)
    classes = draw_classes(rng, 5, 3)
    np.testing.assert_allclose(classes.probabilities.sum(axis=1), 1)
    shares = np.bincount(classes.draw(rng, np.full(20000, 1)), minlength=3) / 20000
    np.testing.assert_allclose(shares, classes.weight(1, np.arange(3)), atol=0.015)
    assert set(Classes(np.array([[0.0, 1.0, 0.0]])).draw(rng, np.zeros(50, dtype=int))) == {1}


def test_sprites_repeat_and_are_redrawn_from_their_factors(sprites):
    again, other = make_sprites(5000, random_state=3), make_sprites(5000, random_state=4)
    np.testing.assert_array_equal(sprites.images, again.images)
    assert not np.array_equal(sprites.images, other.images)
    np.testing.assert_array_equal(draw_sprites(sprites.factors[40:60]), sprites.images[40:60])
    grey = draw_sprites(sprites.factors[:20].drop(columns="hue"), channels=1)
    np.testing.assert_allclose(grey[..., 0], sprites.images[:20].max(axis=3), atol=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 8}, "size ≥ 16 pixels and channels 1 or 3; got size=8"),
        ({"channels": 2}, "channels=2"),
        ({"size": 16.5}, "size must be a whole number ≥ 0; got 16.5"),
        ({"n_domains": 2.5}, "n_domains must be a whole number ≥ 0; got 2.5"),
        (
            {"channels": 1, "change": ("hue", "scale")},
            r"change names \['hue'\].*Choose from \['shape', 'x', 'y', 'scale', 'angle'\]",
        ),
        ({"change": "colour"}, r"change names \['colour'\]"),
        ({"n_samples": 2}, "n_samples ≥ n_domains; got n_domains=3, n_samples=2"),
        ({"n_domains": 1}, r"at least 2 domains; got n_domains=1.*change=\(\)"),
        ({"shapes": ("heart",), "change": "shape"}, "only one class to draw"),
        ({"shapes": ("star",)}, "distinct names out of"),
        ({"shapes": ()}, "distinct names out of"),
        ({"shapes": ("heart", "heart")}, "distinct names out of"),
    ],
)
def test_sprites_that_cannot_be_made(wrong, message):
    with pytest.raises(SettingError, match=message):
        make_sprites(**{"n_samples": 30, **wrong})


def test_one_domain_without_changes():
    assert set(make_sprites(20, n_domains=1, change=()).domains) == {0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shape": "star"}, r"Unknown shapes \['star'\]"),
        ({"x": np.nan}, r"finite numbers and scale positive; look at \['x'\]"),
        ({"scale": 0.0}, r"look at \['scale'\]"),
    ],
)
def test_factors_that_cannot_be_drawn(wrong, message):
    with pytest.raises(DataError, match=message):
        sprite(**wrong)
    with pytest.raises(DataError, match=r"need the factors .*\['hue'\] are missing"):
        draw_sprites(pd.DataFrame([SPRITE]).drop(columns="hue"))


def explode():
    raise AssertionError("the metadata were unpickled")


class Bomb:
    """Unpickling it fails the test."""

    def __reduce__(self):
        return explode, ()


def stamped(n_rows, *channels):
    """Images of 0 and 1 whose first pixels spell the row number, so that the row can be read off its image."""
    images = np.zeros((n_rows, 64, 64, *channels), dtype=np.uint8)
    bits = (np.arange(n_rows)[:, None] >> np.arange(16)) & 1
    images[:, 0, :16] = bits.reshape(n_rows, 16, *(1 for _ in channels))
    return images


def row_numbers(images):
    return (images[:, 0, :16, 0] > 0).astype(int) @ (1 << np.arange(16))


@pytest.fixture(scope="module")
def dsprites():
    """A small grid in dSprites' format: 3 shapes × 3 scales × 40 angles × 3 x × 3 y."""
    turn = np.linspace(0, 2 * np.pi, 40)
    grid = (1.0,), (1.0, 2.0, 3.0), (0.5, 0.75, 1.0), turn, np.linspace(0, 1, 3), np.linspace(0, 1, 3)
    values = np.array(list(itertools.product(*grid)))
    return {
        "metadata": np.array({"title": Bomb()}, dtype=object),
        "imgs": stamped(len(values)),
        "latents_classes": np.zeros(values.shape, dtype=np.int64),
        "latents_values": values,
    }


@pytest.fixture(scope="module")
def dsprites_path(dsprites, tmp_path_factory):
    path = tmp_path_factory.mktemp("dsprites") / "dsprites.npz"
    np.savez_compressed(path, **dsprites)
    return path


@pytest.fixture(scope="module")
def shapes3d():
    """A small grid in 3DShapes' format: 3 hues each × 3 scales × 4 shapes × 3 angles."""
    hues = (0.0, 0.1, 0.9)
    grid = hues, hues, hues, (0.75, 1.0, 1.25), (0.0, 1.0, 2.0, 3.0), (-30.0, 0.0, 30.0)
    labels = np.array(list(itertools.product(*grid)))
    return {"images": stamped(len(labels), 3), "labels": labels}


def write_h5(path, content):
    with h5py.File(path, "w") as file:
        for name, array in content.items():
            file.create_dataset(name, data=array, compression="gzip")
    return path


@pytest.fixture(scope="module")
def shapes3d_path(shapes3d, tmp_path_factory):
    return write_h5(tmp_path_factory.mktemp("shapes3d") / "3dshapes.h5", shapes3d)


@pytest.mark.parametrize(("block", "n_samples"), [(4096, 3000), (100, 3000), (7, 40)])
def test_dsprites_keeps_image_and_factors_together(dsprites, dsprites_path, block, n_samples, monkeypatch):
    monkeypatch.setattr("unmix.datasets.published.BLOCK", block)
    data = read_dsprites(dsprites_path, n_samples, all_angles=True, random_state=2)
    assert data.images.shape == (n_samples, 64, 64, 1)
    assert set(np.unique(data.images)) == {0, 255}
    truth = dsprites["latents_values"][row_numbers(data.images)]
    np.testing.assert_array_equal(data.factors["shape"], np.array(SHAPES)[truth[:, 1].astype(int) - 1])
    np.testing.assert_allclose(data.factors["angle"], truth[:, 3] * 180 / np.pi)
    np.testing.assert_array_equal(data.factors[["scale", "x", "y"]], truth[:, [2, 4, 5]])
    assert data.factors["angle"].max() > 350
    again = read_dsprites(dsprites_path, n_samples, all_angles=True, random_state=2)
    np.testing.assert_array_equal(data.images, again.images)


def test_dsprites_never_opens_the_pickle(dsprites_path):
    with np.load(dsprites_path, allow_pickle=True) as content, pytest.raises(AssertionError, match="unpickled"):
        content["metadata"]
    read_dsprites(dsprites_path, 30)


@pytest.mark.parametrize(("shapes", "limit"), [(SHAPES[:3], 72), (("heart", "ellipse"), 144), (("heart",), 288)])
def test_dsprites_angles_stay_where_the_image_determines_them(dsprites_path, shapes, limit):
    data = read_dsprites(dsprites_path, 1500, shapes=shapes)
    assert limit - 10 < data.factors["angle"].max() < limit
    assert set(data.factors["shape"]) == set(shapes) == set(data.factors["shape"].cat.categories)


@pytest.mark.parametrize("block", [4096, 100])
def test_shapes3d_keeps_image_and_factors_together(shapes3d, shapes3d_path, block, monkeypatch):
    monkeypatch.setattr("unmix.datasets.published.BLOCK", block)
    data = read_shapes3d(shapes3d_path, 1000)
    assert data.images.shape == (1000, 64, 64, 3)
    np.testing.assert_array_equal(data.images, shapes3d["images"][row_numbers(data.images)])
    truth = shapes3d["labels"][row_numbers(data.images)]
    np.testing.assert_array_equal(data.factors.assign(shape=data.factors["shape"].cat.codes), truth)
    assert data.changing == ("object_hue", "scale")
    assert data.factor_kinds["shape"] == "discrete"


@pytest.mark.parametrize("change", [("scale", "shape"), ("angle",)])
def test_published_domains_shift_what_they_should(dsprites_path, shapes3d_path, change):
    for data in (read_dsprites(dsprites_path, 4000, change=change), read_shapes3d(shapes3d_path, 4000, change=change)):
        assert set(data.changing) == set(change)
        for name in data.factors:
            table = pd.crosstab(data.domains, data.factors[name])
            assert (chi2_contingency(table).pvalue < 1e-12) == (name in change), name
            if name not in change:
                assert chisquare(table.sum()).pvalue > 0.001
        inside = data.factors[data.domains == 0].drop(columns="shape").corr().to_numpy()
        assert np.abs(inside[~np.eye(len(inside), dtype=bool)]).max() < 0.1


def test_dsprites_files_that_are_none(dsprites, tmp_path):
    def refuse(message, **content):
        np.savez(tmp_path / "a.npz", **content)
        with pytest.raises(DataError, match=message):
            read_dsprites(tmp_path / "a.npz", 30)

    imgs, values = dsprites["imgs"], dsprites["latents_values"]
    with pytest.raises(DataError, match=r"no file at .*none.npz. Download dsprites_ndarray.* and pass its path"):
        read_dsprites(tmp_path / "none.npz")
    refuse(r"a.npz has no \['imgs'\]; it holds \['latents_values', 'x'\]", latents_values=values, x=values)
    refuse(r"latents_values has shape \(3240, 5\), not \(n, 6\)", imgs=imgs, latents_values=values[:, :5])
    refuse("shape in latents_values is not 1, 2 or 3", imgs=imgs, latents_values=values - 1)
    refuse(r"imgs is uint8 of shape \(7, 64, 64\), not uint8 of \(3240, 64, 64\)", imgs=imgs[:7], latents_values=values)
    refuse("imgs is float16", imgs=imgs.astype("f2"), latents_values=values)
    refuse("no rows to draw from in domain 0. Download the complete", imgs=imgs[:0], latents_values=values[:0])
    refuse("could not be read: Object arrays", imgs=imgs, latents_values=np.array([[Bomb()]], dtype=object))
    with pytest.raises(SettingError, match=r"distinct names out of .*got \('triangle',\)"):
        read_dsprites(tmp_path / "a.npz", shapes=("triangle",))
    with pytest.raises(SettingError, match=r"change names \['hue'\]"):
        read_dsprites(tmp_path / "a.npz", change=("hue",))


def test_dsprites_files_that_are_damaged(dsprites_path, tmp_path):
    whole = dsprites_path.read_bytes()
    cut = tmp_path / "cut.npz"
    for content in (whole[: len(whole) // 2], b"", b"text"):
        cut.write_bytes(content)
        with pytest.raises(DataError, match=r"could not be read: .*its end is missing. .*complete\? Download dsprites"):
            read_dsprites(cut, 30)
    with zipfile.ZipFile(dsprites_path) as archive, zipfile.ZipFile(cut, "w") as shorter:
        for name in ("latents_values.npy", "imgs.npy"):
            shorter.writestr(name, archive.read(name)[: 2_000_000 if name == "imgs.npy" else None])
    with pytest.raises(DataError, match=r"could not be read: .*Is the file complete\?"):
        read_dsprites(cut, 3000)
    start = whole.index(b"imgs.npy") + 2000
    cut.write_bytes(whole[:start] + bytes(3000) + whole[start + 3000 :])
    with pytest.raises(DataError, match=r"could not be read: .*Is the file complete\?"):
        read_dsprites(cut, 3000, all_angles=True)


def test_shapes3d_files_that_are_none(shapes3d, shapes3d_path, tmp_path, monkeypatch):
    def refuse(message, **content):
        with pytest.raises(DataError, match=message):
            read_shapes3d(write_h5(tmp_path / "a.h5", content), 30)

    images, labels = shapes3d["images"], shapes3d["labels"]
    with pytest.raises(DataError, match=r"no file at .*none.h5. Download 3dshapes.h5 from"):
        read_shapes3d(tmp_path / "none.h5")
    refuse(r"a.h5 has no \['labels'\]; it holds \['images'\]", images=images[:5])
    refuse(
        r"images are uint8 of shape \(5, 64, 64, 3\) and labels have shape \(4, 6\)",
        images=images[:5],
        labels=labels[:4],
    )
    refuse(r"not uint8 of \(n, 64, 64, 3\)", images=images[:5, ..., 0], labels=labels[:5])
    refuse("images are float16", images=images[:5].astype("f2"), labels=labels[:5])
    refuse("shape in labels is not 0, 1, 2 or 3", images=images[:5], labels=labels[:5] + 5)
    whole = shapes3d_path.read_bytes()
    for content in (whole[: len(whole) // 2], b"text"):
        (tmp_path / "cut.h5").write_bytes(content)
        with pytest.raises(DataError, match=r"could not be read: .*Is the file complete\? Download 3dshapes.h5"):
            read_shapes3d(tmp_path / "cut.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r'needs h5py. Install it with: pip install "unmix\[images\]"'):
        read_shapes3d(shapes3d_path)


def test_grey_sprites_change_in_scale_by_default():
    data = make_sprites(n_samples=30, channels=1)
    assert data.images.shape == (30, 32, 32, 1)
    assert data.changing == ("scale",)
