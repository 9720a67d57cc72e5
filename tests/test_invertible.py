"""The invertible network: inverse, derivatives and density against automatic differentiation, scipy and integrals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

import unmix
from unmix import CGVAE, datasets, metrics
from unmix.data.batches import Rows
from unmix.errors import SettingError
from unmix.estimators import cgvae
from unmix.fits import choice
from unmix.models.base import FittedModel
from unmix.models.cgvae import CGVAEConfig, CGVAENetwork
from unmix.models.invertible import InvertibleNetwork
from unmix.nets.flow import InverseDecoder, InvertibleEncoder
from unmix.nets.layers import generators

SHORT = {"n_restarts": 2, "max_epochs": 3, "min_domain_rows": 1, "verbose": 0, "hidden": (8,)}


def encoder(n_features=4, n_latents=3, starts=2, std=0.1):
    """With couplings that do something, as after a training."""
    found = InvertibleEncoder(generators(1, starts), n_features, (6, 5), n_latents, std).double()
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=source, dtype=parameter.dtype))
    return found


def rows_of(x, codes):
    codes = torch.as_tensor(codes)
    return Rows(torch.as_tensor(x), None, codes[:, None], torch.zeros(len(x), 0, dtype=torch.float64), 2)


@pytest.mark.parametrize(("n_features", "n_latents"), [(2, 2), (2, 1), (3, 3), (5, 2), (6, 6)])
def test_the_map_is_undone_and_its_derivatives_are_those_of_autograd(n_features, n_latents):
    flow = encoder(n_features, n_latents)
    decoder = InverseDecoder(flow)
    x = torch.randn(7, n_features, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    outputs, log_det = flow.outputs(x)
    torch.testing.assert_close(flow.inverse(outputs), x.expand(2, -1, -1))
    same, jacobian = flow.with_jacobian(x)
    torch.testing.assert_close(same, outputs)
    z = outputs[..., :n_latents]
    decoded, slopes = decoder.with_jacobian(z, 4)
    assert slopes.shape == (2, 4, n_latents, n_features)
    for start in range(2):
        for row in range(7):
            exact = torch.autograd.functional.jacobian(
                lambda own, start=start: flow.outputs(own[None])[0][start, 0], x[row]
            ).T
            torch.testing.assert_close(jacobian[start, row], exact)
            torch.testing.assert_close(log_det[start, row], torch.linalg.slogdet(exact)[1])
        for row in range(4):
            exact = torch.autograd.functional.jacobian(
                lambda own, start=start: decoder(own.expand(2, 1, -1))[start, 0], z[start, row]
            )
            torch.testing.assert_close(slopes[start, row], exact.T)
    if n_latents == n_features:
        torch.testing.assert_close(decoded, x.expand(2, -1, -1))


def test_the_posterior_is_what_noise_of_the_features_makes_of_the_latents():
    flow = encoder(std=1e-3)
    x = torch.randn(1, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    noise = torch.randn(100_000, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    posterior = flow(x)
    for start in range(2):
        drawn = flow.outputs(x + 1e-3 * noise)[0][start, :, :3]
        factor = posterior.factor[start, 0]
        assert (factor.diagonal() > 0).all()
        assert not factor.triu(1).any()
        factor = factor.detach()
        np.testing.assert_allclose(factor @ factor.T, np.cov(drawn.detach().T), rtol=0.03, atol=1e-8)
        np.testing.assert_allclose(posterior.mean[start, 0].detach(), drawn.detach().mean(0), atol=1e-4)


def test_it_begins_at_a_linear_map_and_a_turn_is_exact():
    flow = InvertibleEncoder(generators(1, 2), 4, (6,), 3, 0.1).double()
    source = torch.Generator().manual_seed(0)
    x, whitening, b = (torch.randn(*shape, generator=source, dtype=torch.float64) for shape in [(9, 4), (4, 4), (3, 3)])
    turn = torch.linalg.qr(torch.randn(4, 4, generator=source, dtype=torch.float64))[0]
    flow.begin(1, whitening, turn)
    torch.testing.assert_close(flow.outputs(x)[0][1], x @ whitening @ turn)
    before = flow.outputs(x)[0]
    flow.turn(1, b, torch.empty(0), torch.empty(0))
    after = flow.outputs(x)[0]
    torch.testing.assert_close(after[1], torch.cat([before[1, :, :3] @ b.T, before[1, :, 3:]], dim=1))
    torch.testing.assert_close(after[0], before[0])


def network(n_latents, n_features, prior="gaussian", n_starts=2):
    return InvertibleNetwork(CGVAEConfig(n_latents, n_features, 2, n_starts=n_starts, hidden=(8, 8), prior=prior))


def in_single(rows):
    return replace(rows, source=rows.source.float(), values=rows.values.float())


def test_the_density_of_a_linear_start_is_that_of_normal_distributions():
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1], 3000)
    x = rng.normal(size=(6000, 3)) * np.where(codes[:, None] == 0, [0.5, 1.0, 2.0], [2.0, 1.0, 0.5])
    x = (x + codes[:, None]) @ rng.normal(size=(3, 3))
    x = (x - x.mean(0)) / x.std(0)
    own, rows = network(3, 3), rows_of(x, codes)
    assert own.begin(in_single(rows), in_single(rows))
    own.double()
    found = own.log_density(rows)
    for start in range(2):
        for code in (0, 1):
            inside = codes == code
            z = own.flow.outputs(rows.x)[0][start, inside].detach().numpy()
            # Independent normal latents with the prior's moments: those of the rows, but for one row.
            jacobian = np.linalg.lstsq(x[inside] - x[inside].mean(0), z - z.mean(0), rcond=None)[0]
            latent = stats.multivariate_normal(z.mean(0), np.diag(z.var(0))).logpdf(z)
            expected = latent + np.linalg.slogdet(jacobian)[1]
            np.testing.assert_allclose(found[start, inside].detach(), expected, atol=0.02)
    # The start that is rotated to the domains has independent latents in both: there it is the density of the rows.
    truth = np.concatenate(
        [
            stats.multivariate_normal(x[codes == k].mean(0), np.cov(x[codes == k].T)).logpdf(x[codes == k])
            for k in (0, 1)
        ]
    )
    np.testing.assert_allclose(found[0].detach().mean(), truth.mean(), atol=0.02)


@pytest.mark.parametrize("n_latents", [1, 2])
@pytest.mark.parametrize("prior", ["gaussian", "student", "spline"])
def test_the_density_integrates_to_one(n_latents, prior):
    own = network(n_latents, 2, prior).double()
    source = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=source, dtype=parameter.dtype))
    side = torch.linspace(-25, 25, 501, dtype=torch.float64)
    x = torch.cartesian_prod(side, side)
    with torch.no_grad():
        mass = own.log_density(rows_of(x, np.r_[1, np.zeros(len(x) - 1, dtype=int)])).exp().sum(1)
    np.testing.assert_allclose(mass * float(side[1] - side[0]) ** 2, 1.0, atol=0.01)


def test_the_terms_are_the_density_with_noise():
    own = network(2, 2, n_starts=1)
    x = np.random.default_rng(0).normal(size=(50, 2))
    rows = rows_of(x, np.arange(50) % 2)
    own.begin(in_single(rows), in_single(rows))
    own.double()
    noise = torch.randn(1, 50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    terms = own.terms(rows, noise, 50, 0, 1.0)
    moved = replace(rows, source=rows.x + 0.003 * noise[0])
    torch.testing.assert_close(terms["density"], -own.log_density(moved).mean(1))
    assert set(own.weights(0.5)) == set(terms)


def leaky(rng, n_latents=3, n_domains=20, rows=200):
    """Latents whose spreads change with the domain, through leaky ReLU and orthogonal matrices, without noise."""
    labels = np.repeat(np.arange(n_domains), rows)
    z = rng.normal(size=(len(labels), n_latents)) * rng.uniform(0.1, 3.0, (n_domains, n_latents))[labels]
    x = z
    for _ in range(4):
        x = x @ stats.ortho_group.rvs(n_latents, random_state=rng)
        x = np.where(x > 0, x, 0.2 * x)
    return x @ stats.ortho_group.rvs(n_latents, random_state=rng), labels, z


@pytest.fixture(scope="module")
def square():
    return leaky(np.random.default_rng(6))


@pytest.fixture(scope="module")
def chosen(square):
    x, labels, _ = square
    return CGVAE(n_latents=3, verbose=0).fit(x, labels)


@pytest.mark.slow
def test_it_is_kept_where_the_mixing_is_invertible_and_finds_more(square, chosen, tmp_path):
    x, labels, z = square
    assert chosen.decoder_ == "invertible"
    assert chosen.get_params()["decoder"] == "auto"
    dense = CGVAE(n_latents=3, verbose=0, decoder="dense").fit(x, labels)
    assert dense.decoder_ == "dense"
    kept, other = (own.restarts_.held_out_objective[own.best_restart_] for own in (chosen, dense))
    assert kept < other - 0.3
    found = metrics.mcc(z, chosen.transform(x))
    assert found > 0.9
    assert found > metrics.mcc(z, dense.transform(x)) + 0.02
    latents = chosen.transform(x)
    np.testing.assert_allclose(chosen.inverse_transform(latents), x, atol=1e-4)
    np.testing.assert_allclose(chosen.translate(x[:9], labels[:9], to=labels[:9].tolist()), x[:9], atol=1e-4)
    loaded = unmix.load(chosen.save(tmp_path / "model"))
    assert loaded.decoder_ == "invertible"
    assert loaded.get_params()["decoder"] == "auto"
    np.testing.assert_array_equal(loaded.transform(x), latents)
    page = chosen.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The mixing is an invertible network without noise" in page
    assert "depends on few of them" not in page
    assert loaded.score(x, labels) == chosen.score(x, labels) > dense.score(x, labels)
    wider = chosen.adapt(x[labels == 3], domain="new")
    np.testing.assert_array_equal(wider.transform(x), latents)
    assert wider.score(x[labels == 3], ["new"] * 200) == pytest.approx(chosen.score(x[labels == 3], [3] * 200), abs=0.1)
    again = chosen.__class__(**chosen.get_params())
    again.fit_ = chosen.fit_
    again.set_params(warm_start=True, max_epochs=2).fit(x, labels)
    assert again.decoder_ == "invertible"
    assert again.restarts_.held_out_objective[0] <= kept + 1e-3


@pytest.mark.slow
def test_it_is_tried_only_where_it_can_be_the_mixing(square, chosen, monkeypatch):
    x, labels, _ = square
    fit = CGVAE(n_latents=3, verbose=0, decoder="dense").fit(x, labels).fit_

    def tried(summary=None, **words):
        own = CGVAE(**{"n_latents": 3, **words})
        own.fit_ = replace(fit, summary=replace(fit.summary, **(summary or {})))
        return own._may_be_invertible

    assert tried({"agreement": 0.9})
    assert not tried({"agreement": float("nan")})
    assert not tried({"agreement": 0.996})
    assert not tried({"agreement": 0.9, "simplified": True})
    assert not tried({"agreement": 0.9, "n_epochs": 1})
    assert not tried({"agreement": 0.9}, nuisance="batch")
    assert not tried({"agreement": 0.9}, sparsity=0.5)
    assert choice.curvature(fit.model) > 0.05
    monkeypatch.setattr(cgvae, "curvature", lambda model: 0.009)
    assert not tried({"agreement": 0.9})
    monkeypatch.undo()
    calls = []
    monkeypatch.setattr(CGVAE, "_try", lambda *args, **words: calls.append(words))
    noisy = datasets.make_sparse_mixing(
        n_latents=2, n_features=4, n_domains=4, n_samples=1200, noise=0.1, random_state=1
    )
    CGVAE(n_latents=2, verbose=0).fit(noisy.x, noisy.domains)
    CGVAE(n_latents=3, verbose=0, missing="mask").fit(x, labels)
    CGVAE(n_latents=3, verbose=0).fit(x)
    CGVAE(n_latents=3, verbose=0).fit(x.round(1), labels)
    assert not [words for words in calls if "decoder" in words]


def test_it_is_kept_only_where_its_starts_agree(square):
    x, labels, _ = square
    first = CGVAE(3, **SHORT).fit(x, labels)
    before, kept = first.fit_, []
    for least in (None, 0.0, 1.1):
        first.fit_ = before
        first._try(x, labels, (), -1e6, least, decoder="invertible")
        kept.append(first.decoder_)
    assert kept == ["invertible", "invertible", "dense"]


def test_curvature_is_the_part_of_the_derivatives_that_varies():
    config = CGVAEConfig(2, 3, 2, beginnings=("linear",), spare=0)
    own = CGVAENetwork(config)
    rows = in_single(rows_of(np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2))
    own.begin(rows, rows)
    model = FittedModel(own.single(0))
    assert choice.curvature(model) < 1e-10
    with torch.no_grad():
        own.decoder.network.layers[-1].weight.normal_(generator=torch.Generator().manual_seed(0))
    model = FittedModel(own.single(0))
    slopes = model.jacobian(torch.randn(200_000, 2, generator=torch.Generator().manual_seed(9))).detach()
    expected = (slopes.var(0).sum() / slopes.square().mean(0).sum()).item()
    assert choice.curvature(model) == pytest.approx(expected, rel=0.2)


def test_the_same_seed_gives_the_same_bits(square):
    x, labels, _ = square
    first, second = (CGVAE(3, decoder="invertible", **SHORT).fit(x, labels) for _ in range(2))
    np.testing.assert_array_equal(first.transform(x), second.transform(x))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"missing": "mask"}, "missing='mask'"),
        ({"kl_weight": 2.0}, "kl_weight=2.0"),
        ({"sparsity": 0.5}, "sparsity=0.5"),
        ({"likelihood": "student"}, "likelihood='student'"),
        ({"n_latents": 1, "columns": 1}, "1 feature"),
    ],
)
def test_what_it_cannot_fit_is_refused(square, words, says):
    x, labels, _ = square
    x = x[:, : words.pop("columns", 3)]
    with pytest.raises(SettingError, match="continuous, none missing") as caught:
        CGVAE(**{"n_latents": 2, "decoder": "invertible", **SHORT, **words}).fit(x, labels)
    assert says in str(caught.value)
    assert 'decoder="dense"' in str(caught.value)
