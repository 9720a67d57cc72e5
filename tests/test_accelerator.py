"""On a GPU everything runs, in float32, and comes out as on the CPU. Left out where there is no GPU."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import unmix
from unmix import CGGAN, CGVAE, CGVAEImages, ImageTranslator, datasets, metrics
from unmix.distributions import discrete

DEVICE = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
pytestmark = pytest.mark.skipif(DEVICE is None, reason="no GPU here")

SHORT = {"n_restarts": 2, "max_epochs": 40, "verbose": 0}
GAN = {"n_latents": 4, "hidden": (16,), "max_steps": 40, "encoder_steps": 20, "verbose": 0}
TRANSLATOR = {"channels": 16, "max_steps": 40, "verbose": 0}


class Single(TorchDispatchMode):
    """Refuses float64 on a GPU, of which Apple's know none."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for part in tree_leaves(found):
            if isinstance(part, torch.Tensor) and part.device.type in ("cuda", "mps"):
                assert part.dtype != torch.float64, func
        return found


@pytest.fixture(autouse=True)
def single(monkeypatch):
    monkeypatch.setattr(discrete, "_wide", lambda x: x.dtype if x.device.type != "cpu" else torch.float64)
    with Single():
        yield


@pytest.fixture(scope="module")
def table():
    return datasets.make_sparse_mixing(n_latents=3, n_features=8, n_domains=4, n_samples=2000, random_state=0)


@pytest.fixture(scope="module")
def faces():
    return datasets.make_typefaces(2, characters="abcdefghij")


@pytest.mark.parametrize(
    "words", [{}, {"prior": "spline"}, {"prior": "student"}, {"decoder": "feature"}, {"decoder": "invertible"}]
)
def test_a_table_is_unmixed_as_on_the_cpu(table, tmp_path, words):
    own, cpu = (CGVAE(3, device=name, **SHORT, **words).fit(table.x, table.domains) for name in (DEVICE, "cpu"))
    assert float(metrics.mcc(cpu.transform(table.x), own.transform(table.x))) > 0.97
    assert own.score(table.x, table.domains) == pytest.approx(cpu.score(table.x, table.domains), abs=0.3)
    own.save(tmp_path / "model")
    loaded = unmix.load(tmp_path / "model", device="cpu")
    np.testing.assert_allclose(loaded.transform(table.x), own.transform(table.x), atol=1e-3)
    assert own.model_.scale.device.type == DEVICE
    own.audit()
    own.counterfactual(table.x[:5], table.domains[:5], to=table.domains[-1])
    own.adapt(table.x[table.domains == 0], domain=9)
    own.report(tmp_path / "page.html")


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial", "bernoulli", "student"])
def test_every_likelihood(likelihood):
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(size=(400, 2)) @ rng.normal(0, 0.7, (2, 6)) + 1)
    x = rng.poisson(rate).astype(float)
    x = (x > np.median(x, axis=0)).astype(float) if likelihood == "bernoulli" else x
    domains = np.arange(400) % 4
    fits = [CGVAE(2, likelihood=likelihood, device=name, **SHORT).fit(x, domains) for name in (DEVICE, "cpu")]
    scores = [fit.score(x, domains) for fit in fits]
    assert scores[0] == pytest.approx(scores[1], rel=0.05)
    explained = [fit.explained_variance_ratio_ for fit in fits]
    np.testing.assert_allclose(explained[0], explained[1], atol=0.1)
    fits[0].audit()


def test_baselines_run(table):
    for name in ("BetaVAE", "FactorVAE", "SparseVAE", "IVAE", "IMSDA"):
        own = getattr(unmix.baselines, name)(3, device=DEVICE, max_epochs=2, verbose=0).fit(table.x, table.domains)
        assert np.isfinite(own.transform(table.x, *((table.domains,) if name == "IVAE" else ()))).all()


@pytest.mark.parametrize("further", [False, True])
def test_factors_of_images(tmp_path, monkeypatch, further):
    monkeypatch.setattr("unmix.estimators.cgvae.long_training", lambda *_: further)
    data = datasets.make_sprites(n_samples=300, size=16, n_domains=3, random_state=0)
    model = CGVAEImages(3, n_codes=6, widths=(8, 8), max_epochs=40, device=DEVICE, verbose=0)
    model.fit(data.images, data.domains)
    assert (model.prior_ == "spline") is further
    model.save(tmp_path / "model")
    loaded = unmix.load(tmp_path / "model", device="cpu")
    np.testing.assert_allclose(loaded.transform(data.images), model.transform(data.images), atol=1e-2)
    assert model.translate(data.images[:3], data.domains[:3], to=1).dtype == np.uint8
    model.report(tmp_path / "page.html", data.images, data.domains)


@pytest.mark.parametrize("precise", [True, False])
def test_a_gan_of_tables_and_of_images(table, precise, tmp_path):
    words = GAN | {"device": DEVICE, "mixed_precision": not precise}
    model = CGGAN(**words).fit(table.x, table.domains)
    assert np.isfinite(model.translate(table.x[:5], table.domains[:5], to=table.domains[-1])).all()
    digits = datasets.load_digits_two_colours(16)
    model = CGGAN(**words, channels=8, batch_size=16).fit(digits.images, digits.domains)
    assert model.translate(digits.images[:5], digits.domains[:5], to="cyan on purple").shape == (5, 16, 16, 3)
    model.report(tmp_path / "page.html", digits.images, digits.domains)


@pytest.mark.filterwarnings("ignore:Of the pairs")
@pytest.mark.parametrize("precise", [True, False])
@pytest.mark.parametrize("what", ["pixels", "colours", "unmatched"])
def test_translation(faces, what, precise, tmp_path):
    if what == "pixels":
        images, domains = faces.images, faces.domains
    elif what == "colours":
        digits = datasets.load_digits_two_colours(16)
        images, domains = digits.images[::4], digits.domains[::4]
    else:
        images = np.random.default_rng(0).integers(0, 255, (60, 16, 16, 3), dtype=np.uint8)
        domains = np.arange(60) % 3
    words = TRANSLATOR | {"sparsity": 0.1, "mask_weight": 0.01, "mixed_precision": not precise}
    own, cpu = (ImageTranslator(device=name, **words).fit(images, domains) for name in (DEVICE, "cpu"))
    assert own.alignment_ == cpu.alignment_
    here, there = (m.translate(images, domains, to=domains[0]).astype(float) for m in (own, cpu))
    assert np.sqrt(np.square(here - there).mean()) < (6 if precise else 12)
    errors = [fit.history_["translator_reconstruction"] for fit in (own, cpu)]
    np.testing.assert_allclose(*errors, rtol=0.1 if precise else 0.2)
    own.save(tmp_path / "model")
    again = unmix.load(tmp_path / "model", device="cpu").translate(images, domains, to=domains[0])
    assert np.abs(again.astype(float) - here).max() <= 2
    own.sample(3, domain=domains[0])
    own.report(tmp_path / "page.html", images, domains)


@pytest.mark.filterwarnings("ignore:Of the pairs")
def test_a_long_edge_on_the_gpu(faces):
    images = np.repeat(np.repeat(faces.images[::2], 4, axis=1), 4, axis=2)
    model = ImageTranslator(device=DEVICE, **TRANSLATOR).fit(images, faces.domains[::2])
    assert model.translate(images[:2], faces.domains[:2], to="italic").shape == (2, 64, 64, 1)
