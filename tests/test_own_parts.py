"""A decoder, a likelihood, a prior and an estimator of the user's own: what is asked of them, and storage."""

import re
import sys
import warnings
from functools import partial

import numpy as np
import own_parts
import pytest
import torch
from conftest import QUICK
from own_parts import Asinh, AsinhPrior, Laplace, Mine, Wide
from torch import nn
from torch.func import jacrev

import unmix
from unmix import CGVAE, DataWarning
from unmix.data.batches import Rows
from unmix.distributions.kinds import LIKELIHOODS
from unmix.distributions.likelihood import Likelihood, NoiseCourse
from unmix.distributions.prior import GaussianPrior, SplinePrior, StudentPrior
from unmix.errors import SettingError, StorageError
from unmix.models.contracts import check_decoder, check_likelihood, check_prior
from unmix.nets.layers import generators
from unmix.nets.own_decoder import OwnDecoder

OWN = {
    "decoder": {"decoder": Wide},
    "partial": {"decoder": partial(Wide, width=7)},
    "likelihood": {"likelihood": Laplace, "missing": "mask"},
    "prior": {"prior": AsinhPrior},
}


@pytest.fixture(scope="module", params=OWN)
def words(request):
    return OWN[request.param]


@pytest.fixture(scope="module")
def model(words, frame, labels):
    return CGVAE(**{**QUICK, **words}).fit(frame, labels)


@pytest.mark.slow
def test_everything_works_with_parts_of_ones_own(model, frame, labels):
    z = model.transform(frame)
    assert z.shape == (600, 2)
    assert np.isfinite(model.score(frame, labels))
    np.testing.assert_allclose(
        model.counterfactual(frame, labels, to="a")[labels == "a"], frame[labels == "a"], atol=1e-4
    )
    assert model.sample(5, domain="b").shape == (5, 5)
    assert model.audit().latents.shape[0] == 2
    assert model.novelty(frame[:100]).domains.shape[0] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        assert model.adapt(frame[:50], domain="new").adapted_ == ("new",)


@pytest.mark.slow
def test_parts_of_ones_own_are_saved_by_name_and_found_again(model, words, frame, labels, tmp_path):
    again = unmix.load(model.save(tmp_path / "m"))
    np.testing.assert_array_equal(again.transform(frame), model.transform(frame))
    assert again.score(frame, labels) == model.score(frame, labels)
    for name, value in words.items():
        found = again.get_params()[name]
        if isinstance(value, partial):
            found, value = (found.func, found.keywords), (value.func, value.keywords)
        assert found == value


@pytest.mark.slow
def test_a_folder_imports_nothing_and_says_what_to_import(model, words, tmp_path, monkeypatch):
    folder = model.save(tmp_path / "m")
    monkeypatch.delitem(sys.modules, "own_parts")
    with pytest.raises(StorageError, match=r"of the module 'own_parts'\. Import it \(import own_parts\), then read"):
        unmix.load(folder)
    assert "own_parts" not in sys.modules
    monkeypatch.setitem(sys.modules, "own_parts", type(sys)("own_parts"))
    with pytest.raises(StorageError, match="of the module 'own_parts', which does not define it"):
        unmix.load(folder)


def test_a_subclass_is_saved_by_name_and_found_again(frame, labels, tmp_path, monkeypatch):
    model = Mine(**QUICK, flavour="sweet").fit(frame, labels)
    again = unmix.load(model.save(tmp_path / "m"))
    assert type(again) is Mine
    assert again.flavour == "sweet"
    np.testing.assert_array_equal(again.transform(frame), model.transform(frame))
    monkeypatch.setattr(own_parts, "Mine", 3)
    with pytest.raises(StorageError, match="is of the estimator 'own_parts:Mine', which is now a 3"):
        unmix.load(tmp_path / "m")
    monkeypatch.delitem(sys.modules, "own_parts")
    with pytest.raises(StorageError, match=r"uses 'Mine' of the module 'own_parts'\. Import it"):
        unmix.load(tmp_path / "m")


def test_starts_of_a_decoder_of_ones_own_are_those_of_a_fit_with_fewer():
    z = torch.randn(1, 6, 2, generator=torch.Generator().manual_seed(0))
    several, one = (OwnDecoder(generators(3, n), Wide, 2, 2, 5) for n in (3, 1))
    torch.testing.assert_close(several(z.expand(3, -1, -1))[:1], one(z))
    assert not torch.allclose(several.module.net[0].weight[0], several.module.net[0].weight[1])


def test_the_jacobian_of_a_decoder_of_ones_own_is_that_of_autograd():
    z = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    decoder = OwnDecoder(generators(3, 2), Wide, 3, 4, 5)
    with torch.no_grad():
        decoder.place.copy_(torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1)))
    output, jacobian = decoder.with_jacobian(z, 4)
    torch.testing.assert_close(output, decoder(z))
    for row in range(4):
        expected = jacrev(lambda own: decoder(own[:, None])[:, 0])(z[:, row])
        for start in range(2):
            torch.testing.assert_close(jacobian[start, row], expected[start, :, start].T)


def test_tied_parameters_stay_tied():
    class Tied(nn.Module):
        def __init__(self, n_latents, n_features):
            super().__init__()
            self.first = nn.Linear(n_latents, n_features)
            self.second = self.first

        def forward(self, z):
            return self.first(z) + self.second(z)

    decoder = OwnDecoder(generators(0, 2), Tied, 2, 2, 3)
    assert decoder.module.first.weight is decoder.module.second.weight
    assert decoder.module.first.weight.shape == (2, 3, 2)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_likelihoods_of_unmix_keep_the_contract(name):
    reads = name if name in ("negative_binomial", "poisson", "bernoulli") else "gaussian"
    check_likelihood(lambda starts, features: LIKELIHOODS[name](starts, features, 0.3, NoiseCourse()), reads, 5)


@pytest.mark.parametrize("prior", [GaussianPrior, StudentPrior, SplinePrior])
@pytest.mark.parametrize(("n_design", "interactions"), [(0, 0.0), (3, 0.0), (5, 1.0)])
def test_the_priors_of_unmix_keep_the_contract(prior, n_design, interactions):
    check_prior(prior, 2, n_design, interactions)


class Decoders:
    """Modules that break one rule each."""

    class OtherArguments(Wide):
        def __init__(self, n_latents):
            super().__init__(n_latents, 5)

    class TooWide(Wide):
        def forward(self, z):
            return torch.cat([self.net(z), z], dim=-1)

    class Numpy(Wide):
        def forward(self, z):
            return self.net(z).detach().numpy()

    class Detached(Wide):
        def forward(self, z):
            return self.net(z.detach())

    class Unused(Wide):
        def __init__(self, n_latents, n_features):
            super().__init__(n_latents, n_features)
            self.spare = nn.Linear(2, 2)

    class Dropout(Wide):
        def forward(self, z):
            return nn.functional.dropout(self.net(z), 0.5)

    class Batch(Wide):
        def forward(self, z):
            return self.net(z - z.mean(0))

    class BatchNorm(Wide):
        def __init__(self, n_latents, n_features):
            super().__init__(n_latents, n_features)
            self.norm = nn.BatchNorm1d(n_features)

        def forward(self, z):
            return self.norm(self.net(z))

    class Infinite(Wide):
        def forward(self, z):
            return self.net(z) / 0.0

    class Fails(Wide):
        def forward(self, z):
            return self.nett(z)

    class Branches(Wide):
        def forward(self, z):
            return self.net(z) if float(z.detach().sum()) > 1e9 else 2 * self.net(z)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Decoders.OtherArguments, r"is called as .*\(n_latents, n_features\) = \(2, 5\); it raised TypeError"),
        (
            Decoders.TooWide,
            r"forward must return η .* = \(8, 5\) of latents \(8, 2\); got shape \(8, 7\)",
        ),
        (Decoders.Numpy, "forward must return η .*; got a ndarray"),
        (Decoders.Detached, "forward must depend on its inputs, which gets no gradient"),
        (Decoders.Unused, r"forward must depend on spare\.weight, which gets no gradient"),
        (Decoders.Dropout, "it draws. Leave dropout out"),
        (Decoders.Batch, "must compute each row from that row alone"),
        (Decoders.BatchNorm, "Leave batch normalisation out"),
        (Decoders.Infinite, "it holds NaN or infinite values"),
        (Decoders.Fails, "it raised AttributeError: 'Fails' object has no attribute 'nett'"),
        (Decoders.Branches, r"forward must run under torch\.vmap, which trains the starts together; it raised"),
    ],
)
def test_a_decoder_that_breaks_the_contract(kind, message):
    with pytest.raises(SettingError, match=message) as raised:
        check_decoder(kind, 2, 5)
    assert kind.__name__ in str(raised.value)


class Likelihoods:
    """Likelihoods that break one rule each."""

    class Unsummed(Laplace):
        def log_prob(self, rows, output, progress=1.0):
            return -(rows.x - output).abs() - self.log_scale

    class OneForAllStarts(Laplace):
        def __init__(self, n_starts, n_features):
            super().__init__(n_starts, n_features)
            self.log_scale = nn.Parameter(torch.zeros(n_features))

    class Unmasked(Laplace):
        def log_prob(self, rows, output, progress=1.0):
            return super().log_prob(rows.columns(torch.arange(rows.x.shape[1])), output) - 0.1 * rows.x.square().sum(-1)

    class Mixes(Laplace):
        def log_prob(self, rows, output, progress=1.0):
            return super().log_prob(rows, output + output.mean(0))

    class NoGradient(Laplace):
        def log_prob(self, rows, output, progress=1.0):
            return super().log_prob(rows, output.detach())

    class WideDraws(Laplace):
        def sample(self, output, generator, offset=None):
            return torch.randn(3, generator=generator)

    class OwnSeed(Laplace):
        def sample(self, output, generator, offset=None):
            return output + torch.randn(output.shape)

    class OutOfSupport(Laplace):
        def log_prob(self, rows, output, progress=1.0):
            return super().log_prob(rows, output) + torch.where(rows.x.abs().amax(-1) > 1e5, -torch.inf, 0.0)

        def sample(self, output, generator, offset=None):
            return super().sample(output, generator) + 1e6

    class Moves(Laplace):
        def carry(self, rows, output, moved, generator, offset=None):
            return rows.x + 1.0

    class MeanOfAll(Laplace):
        def mean(self, output, offset=None):
            return output + self.log_scale

    class Reads(Laplace):
        reads = "counts"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            Likelihoods.Unsummed,
            r"log_prob\(rows, output\) must return .* = \(2, 8\); got shape \(2, 8, 5\)",
        ),
        (Likelihoods.OneForAllStarts, r"an axis of starts first; log_scale made for n_starts = 2 has shape \(5,\)"),
        (Likelihoods.Unmasked, "log_prob must leave out entries for which rows.observed is 0"),
        (Likelihoods.Mixes, "log_prob of a start must depend on that start alone"),
        (Likelihoods.NoGradient, "log_prob must depend on its inputs, which gets no gradient"),
        (Likelihoods.WideDraws, r"sample\(output, generator, offset\) must return .* \(8, 5\).*got shape \(3,\)"),
        (Likelihoods.OwnSeed, "sample must draw from its generator alone"),
        (Likelihoods.OutOfSupport, "log_prob must be finite at what sample draws; it holds NaN or infinite"),
        (Likelihoods.Moves, "carry must return the rows as they are where η does not change; they are off by 1"),
        (Likelihoods.MeanOfAll, r"mean\(output, offset\) must return .*; got shape \(1, 8, 5\)"),
        (Likelihoods.Reads, "reads must be one of .*; got 'counts'"),
    ],
)
def test_a_likelihood_that_breaks_the_contract(kind, message):
    with pytest.raises(SettingError, match=message) as raised:
        check_likelihood(kind, kind.reads, 5)
    assert kind.__name__ in str(raised.value)


class Priors:
    """Priors that break one rule each."""

    class ReturnsTensor(AsinhPrior):
        def forward(self, design, importance=None):
            return self.parameters_of(design)[0]

    class WrongSlope(AsinhPrior):
        class Distribution(Asinh):
            def to_noise(self, z):
                return super().to_noise(z)[0], torch.zeros_like(z)

        def forward(self, design, importance=None):
            return self.Distribution(*self.parameters_of(design, importance))

    class WrongInverse(AsinhPrior):
        class Distribution(Asinh):
            def from_noise(self, noise):
                return noise

        def forward(self, design, importance=None):
            return self.Distribution(*self.parameters_of(design, importance))

    class OneShape(AsinhPrior):
        class Distribution(Asinh):
            def to_noise(self, z):
                return tuple(part.sum(-1) for part in super().to_noise(z))

        def forward(self, design, importance=None):
            return self.Distribution(*self.parameters_of(design, importance))

    class Unused(AsinhPrior):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.tail = nn.Parameter(torch.zeros(len(self.effects), 1))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Priors.ReturnsTensor, r"forward\(design\) must return an .*PriorDistribution; got a Tensor"),
        (Priors.WrongSlope, r"second result of to_noise\(z\) must be log \|dε/dz\|"),
        (Priors.WrongInverse, r"from_noise\(ε\) must be the inverse of to_noise.*; it is off by"),
        (Priors.OneShape, r"to_noise\(z\) must return ε and log \|dε/dz\|, each .* = \(2, 8, 3\)"),
        (Priors.Unused, "log_prob must depend on tail, which gets no gradient"),
    ],
)
def test_a_prior_that_breaks_the_contract(kind, message):
    with pytest.raises(SettingError, match=message) as raised:
        check_prior(kind, 3, 4, 0.0)
    assert kind.__name__ in str(raised.value)


@pytest.mark.parametrize("words", [{"decoder": nn.Linear(2, 5)}, {"likelihood": Wide}, {"prior": Wide}, {"decoder": 3}])
def test_what_is_no_class_of_its_kind_is_refused(words, frame, labels):
    name = next(iter(words))
    with pytest.raises(SettingError, match=rf"^{name} must be one of \[.*subclass of .* \(the class itself\)"):
        CGVAE(**QUICK, **words).fit(frame, labels)


def test_a_contract_is_checked_before_training(frame, labels):
    model = CGVAE(**{**QUICK, "n_latents": "auto"}, decoder=Decoders.TooWide)
    with pytest.raises(SettingError, match=re.escape("decoder=Decoders.TooWide: forward must return")):
        model.fit(frame, labels)


def test_a_class_without_a_name_to_import_is_refused_before_training(frame, labels, tmp_path):
    class Local(Wide):
        pass

    with pytest.raises(SettingError, match="a class or function that a module defines by name"):
        CGVAE(**QUICK, decoder=Local).fit(frame, labels)

    class LocalModel(CGVAE):
        pass

    model = LocalModel(**QUICK).fit(frame, labels)
    with pytest.raises(StorageError, match=r"LocalModel is defined inside a function.*Define it in a module"):
        model.save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_a_default_shift_gives_rows_their_mean():
    class Doubled(Laplace):
        def mean(self, output, offset=None):
            return 2.0 * output

    rows = rows_of(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)))
    found = Likelihood.shift(Doubled(1, 3), rows, torch.zeros(50, 3))
    torch.testing.assert_close(found, rows.x.mean(0) / 2, atol=1e-5, rtol=0)


def rows_of(x):
    empty = torch.zeros(len(x), 0)
    return Rows(x, None, empty.long(), empty, 0)
