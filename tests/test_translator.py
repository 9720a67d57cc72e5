"""The image translator: its transports are exact, its contract as an estimator, messages, its simple peers."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

import unmix
from unmix import DataWarning, ImageTranslator, datasets
from unmix.bench.simple_translators import SIMPLE
from unmix.errors import DataError, DomainError, SchemaError, SettingError, StorageError
from unmix.estimators import progress
from unmix.models.alignment import Alignment, as_padded, colours_suffice, jittered
from unmix.models.colours import ColourTransport
from unmix.models.matching import all_partners, partners, repeated, turn
from unmix.models.translator import TranslatorConfig, TranslatorNetwork, continued, network_of
from unmix.models.transport import GaussianTransport, barycentre, optimal_map
from unmix.nets.translator import Critic

TINY = {"channels": 8, "max_steps": 3, "batch_size": 8, "verbose": 0}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def faces():
    return datasets.make_typefaces(2, characters="abcdefgh")


@pytest.fixture(scope="module")
def model(faces):
    return ImageTranslator(**TINY).fit(faces.images, faces.domains)


# Transport


@pytest.mark.slow
def test_transport_makes_means_and_covariances_of_the_domains_equal_and_inverts():
    mixes = noise(3, 5, 5) + 2 * torch.eye(5)
    rows = torch.cat([noise(400, 5, seed=k) @ mix + k for k, mix in enumerate(mixes)])
    groups = torch.arange(3).repeat_interleave(400)
    found = GaussianTransport.fit(rows, groups, 3, n_components=5, shrink=0.0)
    common = found.common(rows, groups)
    first, *others = [common[groups == u] for u in range(3)]
    for other in others:
        torch.testing.assert_close(other.mean(0), first.mean(0), atol=1e-4, rtol=0)
        torch.testing.assert_close(other.T.cov(), first.T.cov(), atol=2e-3, rtol=0)
    torch.testing.assert_close(found.back(common, groups), rows, atol=1e-3, rtol=0)


def test_what_components_leave_stays_or_is_dropped():
    rows, groups = noise(60, 8), torch.arange(60) % 2
    kept, dropped = (GaussianTransport.fit(rows, groups, 2, n_components=2, keep_rest=keep) for keep in (True, False))
    torch.testing.assert_close(kept.back(kept.common(rows, groups), groups), rows, atol=1e-4, rtol=0)
    assert torch.linalg.matrix_rank(dropped.common(rows, groups), atol=1e-4) == 2


def test_optimal_map_and_barycentre_of_commuting_covariances_are_known():
    a, b = np.diag([1.0, 4.0]), np.diag([9.0, 1.0])
    np.testing.assert_allclose(optimal_map(a, b), np.diag([3.0, 0.5]), atol=1e-6)
    np.testing.assert_allclose(barycentre([a, b]), np.diag([4.0, 2.25]), atol=1e-6)


def clusters(n=30, each=8, size=6):
    """Rows (n · each, size) around centres, in an order of their own."""
    centres = noise(n, size).exp().repeat_interleave(each, 0)
    return centres + 0.05 * noise(n * each, size, seed=1)


def test_a_turn_that_second_order_leaves_open_is_found_and_covariances_stay_equal():
    rows = clusters()
    # About 40 degrees in each plane: transport of least distance does not undo it.
    skew = noise(6, 6, seed=2)
    turned = torch.linalg.matrix_exp(0.3 * (skew - skew.T))
    both, groups = torch.cat([rows, rows @ turned + 1.0]), torch.arange(2).repeat_interleave(len(rows))
    transport = GaussianTransport.fit(both, groups, 2, n_components=6, shrink=0.0)
    apart = [(lambda z: (z[: len(rows)] - z[len(rows) :]).square().mean())(transport.common(both, groups))]
    assert turn(transport, [both], groups)
    common = transport.common(both, groups)
    apart.append((common[: len(rows)] - common[len(rows) :]).square().mean())
    assert apart[1] < 0.05 * apart[0]
    torch.testing.assert_close(common[: len(rows)].T.cov(), common[len(rows) :].T.cov(), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(transport.back(common, groups), both, atol=1e-3, rtol=0)


def test_inverted_contrast_is_seen():
    rows = clusters()
    both, groups = torch.cat([rows, 3.0 - rows]), torch.arange(2).repeat_interleave(len(rows))
    transport = GaussianTransport.fit(both, groups, 2, n_components=6, shrink=0.0)
    assert turn(transport, [both], groups)
    common = transport.common(both, groups)
    torch.testing.assert_close(common[: len(rows)], common[len(rows) :], atol=0.05, rtol=0)


def test_where_nothing_beyond_second_order_speaks_nothing_is_turned():
    both, groups = noise(400, 20), torch.arange(400) % 2
    transport = GaussianTransport.fit(both, groups, 2, n_components=20)
    before = transport.inward.clone()
    assert not turn(transport, [both], groups)
    torch.testing.assert_close(transport.inward, before, atol=0, rtol=0)


def test_pairs_repeat_only_where_domains_show_the_same_things():
    rows, groups = clusters(), torch.arange(2).repeat_interleave(240)
    shares = []
    for other in (rows + 0.05 * noise(240, 6, seed=3), noise(240, 6, seed=3)):
        both = torch.cat([rows, other])
        transport = GaussianTransport.fit(both, groups, 2, n_components=6)
        shares.append(repeated(transport, [both], groups, 0))
    assert shares[0] > 0.6
    assert shares[1] < 0.3


def unalike(n=40):
    """Images of two domains that show other things, those of the second on a lighter ground."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 100, (2 * n, 16, 16, 3), dtype=np.uint8)
    images[n:] = np.roll(images[n:], 3, axis=2) // 2 + 120
    return images, np.repeat(["dark", "light"], n)


@pytest.mark.slow
@pytest.mark.parametrize(("strict", "shrink"), [(False, 0.9), (True, 0.1)])
def test_without_pairs_images_change_as_little_as_a_reader_asks_for(strict, shrink):
    x, groups = as_padded(torch.from_numpy(unalike()[0]), (16, 16)), torch.arange(2).repeat_interleave(40)

    def reader(moved):
        return ((moved.mean((1, 2, 3)) > 0) & (moved.std((1, 2, 3)) < (0.08 if strict else 1.0))).long()

    own = Alignment.learn(x, groups, 2, n_components=60, shrink=0.1, seed=0, reader=reader)
    assert own.repeated < 0.4
    assert own.keep_rest
    expected = GaussianTransport.fit(x.flatten(1), groups, 2, n_components=60, shrink=shrink)
    torch.testing.assert_close(own.inward, expected.inward)
    made = own.carried(x, groups, 1 - groups)
    torch.testing.assert_close(own.carried(made, 1 - groups, groups), x, atol=1e-3, rtol=0)
    half = own.rest(0.5 * x, groups, 1 - groups)
    torch.testing.assert_close(own.rest(x, groups, 1 - groups), 2 * half, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_fit_without_pairs_warns_and_starts_at_the_transport(tmp_path):
    images, labels = unalike()
    with pytest.warns(DataWarning, match=r"the other half finds \d+%; 40% are needed.*More images"):
        own = ImageTranslator(**{**TINY, "max_steps": 1, "learning_rate": 1e-9}).fit(images, labels)
    assert own.alignment_ == "unmatched pixels"
    x, groups = as_padded(torch.from_numpy(images), (16, 16)), torch.arange(2).repeat_interleave(40)
    made = own.translate(images[:40], labels[:40], to="light").astype(float)
    closed = own.model_.align.carried(x[:40], groups[:40], 1 - groups[:40])
    closed = (127.5 * (closed.clamp(-1, 1) + 1)).permute(0, 2, 3, 1).numpy()
    assert np.abs(made - closed).mean() < 0.1 * np.abs(closed - images[:40]).mean()
    again = unmix.load(own.save(tmp_path / "m"))
    np.testing.assert_array_equal(again.translate(images[:40], labels[:40], to="light"), made)


def test_partners_are_each_others_nearest():
    a = np.array([[0.0], [1.0], [5.0]])
    first, second = partners(a, a[::-1] + 0.1)
    assert second[first == 2] == 0
    assert [*zip(*all_partners(np.array([[0.0], [9.0], [9.2], [0.1]]), np.array([0, 0, 1, 1]), 2), strict=True)] == [
        (0, 3), (1, 2), (3, 0), (2, 1),
    ]  # fmt: skip


def colour_domains(n=24):
    """Images of two domains with other images each, the second with channels exchanged and contrast inverted."""
    rng = np.random.default_rng(0)
    kinds = rng.random((4, 8, 8, 3)) ** 3
    images = np.clip(kinds[rng.integers(4, size=2 * n)] + 0.03 * rng.standard_normal((2 * n, 8, 8, 3)), 0, 1)
    plain = torch.from_numpy(images).float().permute(0, 3, 1, 2)
    groups = torch.arange(2).repeat_interleave(n)
    turned = 0.9 - 0.6 * plain[:, [2, 0, 1]]
    return torch.where((groups == 1)[:, None, None, None], turned, plain), plain, turned, groups


@pytest.mark.parametrize("n_colours", [1, 3])
def test_exchanged_channels_and_inverted_contrast_are_found(n_colours):
    images, plain, turned, groups = colour_domains()
    if n_colours == 1:
        images, plain, turned = (own.mean(1, keepdim=True) for own in (images, plain, turned))
    found = ColourTransport.fit(images, groups, 2)
    own = groups == 0
    made = found.back(found.common(plain[own], groups[own]), groups[own] + 1)
    assert (made - turned[own]).square().mean().sqrt() < 0.03
    torch.testing.assert_close(found.back(found.common(images, groups), groups), images, atol=1e-4, rtol=0)


def test_a_domain_of_one_colour_is_no_fault():
    images, groups = torch.zeros(8, 3, 8, 8), torch.arange(2).repeat(4)
    images[groups == 1] = 1.0
    found = ColourTransport.fit(images, groups, 2)
    torch.testing.assert_close(found.back(found.common(images, groups), 1 - groups), 1 - images)


def test_colours_suffice_only_where_they_explain_the_domains(faces):
    images, *_, groups = colour_domains()
    assert colours_suffice(images, groups, 2, 60)
    assert not colours_suffice(images[::6], groups[::6], 2, 60)
    x = as_padded(torch.from_numpy(faces.images), (16, 16))
    assert not colours_suffice(x, torch.from_numpy(np.unique(faces.domains, return_inverse=True)[1]), 6, 60)


def test_domains_of_colours_keep_every_detail(tmp_path):
    digits = datasets.load_digits_two_colours(16)
    images, domains = digits.images[:400], digits.domains[:400]
    own = ImageTranslator(**TINY).fit(images, domains)
    ink, ground = (np.array(datasets.builtin.TWO_COLOURS["black on green"][k], float) for k in (0, 1))
    x, y = digits.images[400:420], digits.domains[400:420]
    made = own.translate(x, y, to="black on green").astype(float)
    share = (made - ground) @ (ink - ground) / np.square(ink - ground).sum()
    for name in own.domains_:
        there = own.translate(made.round().astype(np.uint8), ["black on green"] * 20, to=name)
        assert np.abs(there[y == name].astype(float) - x[y == name]).mean() < 2.5
    assert np.abs(share[:, 0, 0]).max() < 0.1
    again = unmix.load(own.save(tmp_path / "m"))
    np.testing.assert_array_equal(again.translate(x, y, to="black on green"), made.astype(np.uint8))


# Data and peers


def test_typefaces_share_their_jitters(faces):
    assert faces.images.shape == (96, 16, 16, 1)
    assert faces.images.max() > 200
    twice = datasets.make_typefaces(2, characters="abcdefgh")
    np.testing.assert_array_equal(faces.images, twice.images)
    middles = [
        (own.mean((1, 3)) * np.arange(16)).sum(1) / own.mean((1, 3)).sum(1)
        for own in (faces.images[faces.domains == name].astype(float) for name in ("sans", "serif bold"))
    ]
    assert np.corrcoef(*middles)[0, 1] > 0.8


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"side": 8}, "side must be a whole number ≥ 16"),
        ({"fonts": {"a": "x.ttf"}}, "two or more fonts"),
        ({"characters": "aa"}, "different"),
    ],
)
def test_impossible_typefaces_are_refused(words, match):
    with pytest.raises(SettingError, match=match):
        datasets.make_typefaces(1, **words)


def test_a_font_that_is_none_is_named(tmp_path):
    (tmp_path / "a.ttf").write_text("no font")
    with pytest.raises(DataError, match="cannot be read"):
        datasets.make_typefaces(1, fonts={"a": tmp_path / "a.ttf", "b": tmp_path / "a.ttf"})


def test_simple_translators_do_what_they_say(faces):
    target = faces.images[faces.domains == "italic"]
    images, domains = faces.images[:16], faces.domains[:16]
    made = {
        name: kind().fit(faces.images, faces.domains).translate(images, domains, to="italic")
        for name, kind in SIMPLE.items()
    }
    truth = target.astype(float)
    errors = {name: np.square(own - truth).mean() for name, own in made.items()}
    np.testing.assert_array_equal(made["copy"], images)
    assert all((target == own).all((1, 2, 3)).any() for own in made["nearest in target"])
    assert errors["mean and spread"] < errors["copy"]
    assert errors["Gaussian transport"] < errors["copy"]
    with pytest.raises(DomainError, match="roman gothic"):
        SIMPLE["copy"]().fit(faces.images, faces.domains).translate(images, domains, to="roman gothic")


# The estimator


def test_contract(model, faces, tmp_path):
    x, y = faces.images[:5], faces.domains[:5]
    content = model.transform(x, y)
    assert content.shape == (5, model.n_latents_) == (5, len(model.get_feature_names_out()))
    made = model.translate(x, y, to="italic")
    assert made.shape == x.shape
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, model.decode(content, "italic"))
    np.testing.assert_array_equal(
        model.translate(x, to="italic"), model.translate(x, model.predict_domain(x), to="italic")
    )
    one, other = model.translate(x, y, style_of=faces.images[-1:]), model.translate(x, y, style_of=(x[::-1], y[::-1]))
    assert one.shape == other.shape == x.shape
    np.testing.assert_array_equal(model.sample(3, domain="sans"), model.sample(3, domain="sans"))
    assert model.traverse(x, y, latent=1, values=(-1, 1)).shape == (2, *x.shape)
    assert model.style(x).shape == (5, model.n_style)
    assert model.importance_.shape == (model.n_style,)
    again = unmix.load(model.save(tmp_path / "m"))
    np.testing.assert_array_equal(again.translate(x, y, to="italic"), made)
    np.testing.assert_array_equal(again.sample(3, domain="sans"), model.sample(3, domain="sans"))
    assert again.get_params() == {**model.get_params(), "random_state": 0}


def test_training_starts_at_the_closed_form(model, faces):
    source, truth = (faces.images[faces.domains == name] for name in ("sans", "italic"))
    made = model.translate(source, ["sans"] * len(source), to="italic")
    error, copied = (np.square(own.astype(float) - truth).mean() for own in (made, source))
    assert error < 0.7 * copied


def test_folders_from_before_the_linear_path_are_read(model):
    fitted = {"seed": 0, "sizes": {name: own for name, own in model.model_.sizes.items() if name != "linear"}}
    older = model._untrained(model.fit_.schema, model.fit_.domains, fitted)
    assert older.networks.linear is None
    assert not any("linear" in name for name in older.state_dict())
    images = older.decode(torch.zeros(2, older.n_latents), torch.zeros(2, 8), torch.tensor([0, 1]))
    assert images.shape == (2, 1, 16, 16)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Of the pairs that")
@pytest.mark.parametrize("shape", [(16, 17, 3), (33, 20, 1), (64, 64, 3)])
def test_any_side_and_any_colours(shape):
    images = np.random.default_rng(0).integers(0, 256, (20, *shape), dtype=np.uint8)
    labels = np.repeat(["a", "b"], 10)
    own = ImageTranslator(**TINY, n_content=2).fit(images, labels)
    assert own.translate(images[:3], labels[:3], to="b").shape == (3, *shape)
    assert own.transform(images[:3], labels[:3]).shape[1] <= 2 * 64


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [{"flow": False}, {"flow": "spline", "mask_weight": 0.1, "sparsity": 0.3, "orthogonality": 1.0}]
)
def test_terms_of_the_papers(faces, words):
    own = ImageTranslator(**TINY, **words).fit(faces.images, faces.domains)
    for term in ("sparsity", "mask", "orthogonality"):
        assert (f"translator_{term}" in own.history_) == ("sparsity" in words)
    assert np.isfinite(own.history_.to_numpy()).all()
    assert (own.importance_ == 0).all() == (own.flow is False)
    assert own.mixing_.shape == (16, 16, 1, own.n_style)


def untrained(faces, **words):
    """A network whose penalties look at two rows, and content, style and domains of four."""
    x = torch.from_numpy(faces.images[::7])
    groups = torch.arange(len(x)) % 6
    network = network_of(x, groups, TranslatorConfig((16, 16, 1), 6, channels=8, penalty_rows=2, **words))
    return network, noise(4, 8, 4, 4), noise(4, 8, seed=1), torch.eye(6)[groups[:4]]


@pytest.mark.slow
def test_the_jacobian_term_is_the_derivative_by_style(faces):
    network, content, style, design = untrained(faces, directions=8, sparsity=1.0)
    found = network._sparsity(content, style, design, torch.Generator().manual_seed(0))
    own = style[:2]
    jacobian = torch.autograd.functional.jacobian(
        lambda z: network.networks.decode(content[:2], z, design[:2], network.align), own
    )
    slopes = torch.stack([jacobian[row, ..., row, :] for row in range(2)]).abs().mean((0, 1, 2, 3))
    torch.testing.assert_close(found, (slopes * style.std(0, correction=0)).sum())


@pytest.mark.slow
def test_orthogonality_is_the_cosine_of_changes_by_content_and_by_style(faces):
    network, content, style, design = untrained(faces, orthogonality=1.0)
    found = network._orthogonality(content, style, design, torch.Generator().manual_seed(0))

    source = torch.Generator().manual_seed(0)
    by_content = torch.randn(2, 8, 4, 4, generator=source)
    by_style = torch.randn(2, 8, generator=source) * style.std(0, correction=0)
    squares = []
    for row in range(2):
        one = slice(row, row + 1)
        by_c, by_s = torch.autograd.functional.jacobian(
            lambda c, z, one=one: network.networks.decode(c, z, design[one], network.align).flatten(),
            (content[one], style[one]),
        )
        along_content, along_style = by_c.flatten(1) @ by_content[row].flatten(), by_s.flatten(1) @ by_style[row]
        squares.append((along_content @ along_style / (along_content.norm() * along_style.norm())) ** 2)
    torch.testing.assert_close(found, torch.stack(squares).mean())
    found.backward()
    assert all(own.grad is not None for own in network.networks.decoder.parameters() if own.dim() == 4)


@pytest.mark.slow
def test_same_seed_same_bits_and_resume_equals_uninterrupted(faces, tmp_path, monkeypatch):
    whole = ImageTranslator(**TINY).fit(faces.images, faces.domains)
    steps = TranslatorNetwork.after

    def stopped(self, phase, step, batch_size):
        steps(self, phase, step, batch_size)
        if step == 1:
            raise KeyboardInterrupt

    path = tmp_path / "c"
    with monkeypatch.context() as patch:
        patch.setattr(TranslatorNetwork, "after", stopped)
        with pytest.raises(KeyboardInterrupt):
            ImageTranslator(**TINY).fit(faces.images, faces.domains, checkpoint=path)
    if path.exists():
        again = ImageTranslator(**TINY).fit(faces.images, faces.domains, checkpoint=path, resume=True)
    else:
        again = ImageTranslator(**TINY).fit(faces.images, faces.domains)
    np.testing.assert_array_equal(
        whole.transform(faces.images, faces.domains), again.transform(faces.images, faces.domains)
    )


@pytest.mark.slow
def test_a_training_of_hours_is_announced(faces, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LONG", 0.0)
    with pytest.warns(DataWarning, match=r"will take about .* on cpu.*max_steps"):
        ImageTranslator(**{**TINY, "verbose": 1}).fit(faces.images, faces.domains)
    assert "3 steps on cpu, about" in capsys.readouterr().err


@pytest.mark.slow
def test_report(model, faces, tmp_path):
    judged = pd.DataFrame(
        {
            "method": ["copy", "ImageTranslator"],
            "to": ["all", "all"],
            "n": [3, 3],
            "rmse": [40.0, 20.0],
            "content": [1.0, 0.9],
            "style": [0.0, 0.8],
        }
    )
    text = model.report(tmp_path / "p.html", faces.images, faces.domains, judged=judged).read_text()
    assert "content in 90% and the target domain in 80%; 20.0 grey levels" in text
    assert "style 0: domains make" in text or "style 1: domains make" in text
    with pytest.raises(DataError, match="judged must be a table"):
        model.report(tmp_path / "q.html", judged=[1])
    assert not (tmp_path / "q.html").exists()


def test_jitter_keeps_the_edges_and_padding_repeats_them():
    x = torch.full((2, 5, 6, 1), 255, dtype=torch.uint8)
    padded = as_padded(x, (8, 8))
    assert padded.shape == (2, 1, 8, 8)
    assert (padded == 1).all()
    assert (jittered(padded, torch.Generator().manual_seed(0)) == 1).all()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"channels": 2}, "channels must be a whole number ≥ 4"),
        ({"flow": "planar"}, "flow must be one of"),
        ({"sparsity": -1}, "sparsity must be ≥ 0"),
        ({"orthogonality": -1}, "orthogonality must be ≥ 0"),
        ({"max_steps": 0.5}, "max_steps must be a whole number"),
    ],
)
def test_impossible_words_are_refused(faces, words, match):
    with pytest.raises(SettingError, match=match):
        ImageTranslator(**{**TINY, **words}).fit(faces.images, faces.domains)


def test_messages(model, faces):
    x, y = faces.images[:3], faces.domains[:3]
    for words in ({}, {"to": "sans", "style_of": x}):
        with pytest.raises(SettingError, match=r"either to=.*or style_of="):
            model.translate(x, y, **words)
    with pytest.raises(DomainError, match="not seen at fit"):
        model.translate(x, y, to="gothic")
    with pytest.raises(SchemaError, match="fitted on images of shape"):
        model.transform(np.zeros((2, 32, 32, 1), np.uint8))
    with pytest.raises(DataError, match="style_of must be one image or 3"):
        model.translate(x, y, style_of=faces.images[:2])
    with pytest.raises(DataError, match="content must be finite numbers of shape"):
        model.decode(np.zeros((2, 3)), "sans")
    with pytest.raises(DataError, match="which domain to sample"):
        model.sample(2)
    with pytest.raises(DataError, match="sides of 16 to 256"):
        ImageTranslator(**TINY).fit(np.random.default_rng(0).integers(0, 9, (20, 9, 9, 1), np.uint8), ["a", "b"] * 10)
    with pytest.raises(DomainError, match="two or more domains"):
        ImageTranslator(**TINY).fit(x.repeat(9, axis=0), ["a"] * 27)


# Going on


def as_its_domains(kind):
    """Images whose transport acts on pixels, on colours, or on pixels without pairs."""
    if kind == "pixels":
        own = datasets.make_typefaces(4, characters="abcdefghijkl")
        return own.images, own.domains
    if kind == "colours":
        own = datasets.load_digits_two_colours(16)
        return own.images[::4], own.domains[::4]
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), dtype=np.uint8)
    return images, np.repeat(["a", "b"], 20)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Of the pairs that")
@pytest.mark.parametrize("kind", ["pixels", "colours", "unmatched pixels"])
@pytest.mark.parametrize("flow", ["gaussian", False])
def test_a_fitted_translator_goes_on_from_where_it_was(kind, flow, tmp_path):
    images, domains = as_its_domains(kind)
    words = {**TINY, "sharpen_steps": 0, "flow": flow, "mask_weight": 0.1}
    model = ImageTranslator(**words).fit(images, domains)
    assert model.alignment_ == kind
    before = [model.transform(images, domains), model.translate(images, domains, to=str(domains[0])).astype(int)]
    model = unmix.load(model.save(tmp_path / "m"))
    model.set_params(warm_start=True, learning_rate=1e-9, max_steps=2)
    some = slice(0, None, 2)
    for rows in (slice(None), some):
        model.fit(images[rows], domains[rows])
        assert model.alignment_ == kind
        assert model.n_steps_ == 2
        if rows is not some:
            np.testing.assert_allclose(model.transform(images, domains), before[0], atol=5e-3)
            moved = model.translate(images, domains, to=str(domains[0])).astype(int)
            assert np.abs(moved - before[1]).max() <= 1


@pytest.mark.slow
def test_two_halves_of_a_training_bring_images_nearer_than_one(paired):
    model = ImageTranslator(**{**TINY, "max_steps": 100}, sharpen_steps=0, warm_start=True)
    errors = []
    for _ in range(2):
        model.fit(paired.images, paired.domains)
        errors.append(model.history_["translator_reconstruction"].iloc[-1])
    assert errors[1] < 0.97 * errors[0]


def test_what_goes_on_has_its_own_tensors_and_every_style_latent(faces, model):
    """The mask of a fitted model says which style latents are left; training needs all."""
    before = copy.deepcopy(model.model_)
    before.networks.prior.mask[0] = 0.0
    kept = copy.deepcopy(before.state_dict())
    groups = torch.from_numpy(np.unique(faces.domains, return_inverse=True)[1])
    network = continued(torch.from_numpy(faces.images), groups, before.config, before.align, before.networks)
    for own in (network.networks, network.averaged):
        assert (own.prior.mask == 1).all()
        for name, value in before.networks.named_parameters():
            assert torch.equal(own.get_parameter(name), value), name
    with torch.no_grad():
        for value in network.state_dict().values():
            value.zero_()
    for name, value in before.state_dict().items():
        assert torch.equal(value, kept[name]), name


def test_a_training_that_goes_on_resumes_only_its_own_checkpoint(faces, tmp_path):
    path = tmp_path / "c"
    model = ImageTranslator(**TINY, sharpen_steps=0).fit(faces.images, faces.domains, checkpoint=path)
    model.set_params(warm_start=True)
    with pytest.raises(StorageError, match="other settings or data"):
        model.fit(faces.images, faces.domains, checkpoint=path, resume=True)


def test_what_cannot_go_on_is_refused_and_the_model_stays(faces):
    model = ImageTranslator(**TINY, sharpen_steps=0, warm_start=True).fit(faces.images, faces.domains)
    kept = model.translate(faces.images[:3], faces.domains[:3], to="italic")
    wide = np.pad(faces.images, ((0, 0), (0, 0), (0, 4), (0, 0)))
    other = np.where(faces.domains == "italic", "slanted", faces.domains)
    for images, domains in ((wide, faces.domains), (faces.images, other)):
        with pytest.raises(SettingError, match=r"continues the fitted model, whose images have.*warm_start=False"):
            model.fit(images, domains)
    for words in ({"channels": 12}, {"flow": False}, {"n_content": 4}, {"n_style": 4, "flow": "spline"}):
        before = {name: getattr(model, name) for name in words}
        with pytest.raises(SettingError, match=rf"but {' and '.join(words)} changed since"):
            model.set_params(**words).fit(faces.images, faces.domains)
        model.set_params(**before)
    np.testing.assert_array_equal(model.translate(faces.images[:3], faces.domains[:3], to="italic"), kept)


# Sharpening


@pytest.fixture(scope="module")
def paired():
    """Typefaces with enough characters for their pairs to be trusted."""
    return datasets.make_typefaces(4, characters="abcdefghijkl")


def test_sharpening_changes_only_what_is_drawn(paired):
    soft, sharp = (ImageTranslator(**TINY, sharpen_steps=steps).fit(paired.images, paired.domains) for steps in (0, 4))
    assert sharp.alignment_ == "pixels"
    assert (soft.n_steps_, sharp.n_steps_) == (3, 7)
    x, y = paired.images[:6], paired.domains[:6]
    np.testing.assert_array_equal(sharp.transform(x, y), soft.transform(x, y))
    np.testing.assert_array_equal(sharp.style(x), soft.style(x))
    decoders = [own.model_.networks.decoder.state_dict() for own in (soft, sharp)]
    assert any(not torch.equal(decoders[0][name], own) for name, own in decoders[1].items())
    assert {"critic_logistic", "critic_gradient", "sharpening_pairs"} <= set(sharp.history_.columns)


def test_a_training_that_is_stopped_is_sharpened_from_where_it_stopped(paired):
    def decoder(steps):
        words = {**TINY, "max_steps": 300, "sharpen_steps": steps}
        model = ImageTranslator(**words).fit(paired.images, paired.domains, callbacks=[lambda block: block.step == 100])
        assert model.n_steps_ == 100 + steps
        return torch.cat([own.flatten() for own in model.model_.networks.decoder.parameters()])

    soft = decoder(0)
    assert 0 < (decoder(4) - soft).norm() < 1e-3 * soft.norm()


def test_a_sixth_as_many_steps_sharpen_by_default(paired):
    model = ImageTranslator(**{**TINY, "max_steps": 25}).fit(paired.images, paired.domains)
    assert model.n_steps_ == 25 + 4


def test_nothing_is_sharpened_without_pairs(faces):
    model = ImageTranslator(**TINY, pairing=0.0, sharpen_steps=4).fit(faces.images, faces.domains)
    assert model.n_steps_ == 3


def test_the_critic_of_images_that_are_not_square_sees_every_pixel():
    critic = Critic(3, 2, 8, (16, 32))
    x = noise(2, 3, 16, 32).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x, torch.tensor([0, 1])).sum(), x)
    assert gradient.shape == x.shape
    assert (gradient != 0).all()
