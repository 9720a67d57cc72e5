"""Likelihoods of features that are not continuous: their own mathematics, and fits of tables that have them."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from typer.testing import CliRunner

import unmix
from unmix import CGVAE
from unmix.cli import app
from unmix.data.batches import Rows
from unmix.data.kinds import kinds_of
from unmix.distributions.discrete import Bernoulli, Counts, negative_binomial
from unmix.distributions.kinds import LIKELIHOODS, likelihood_of
from unmix.distributions.likelihood import NoiseCourse
from unmix.distributions.student import Student
from unmix.errors import DataError, SettingError

SHORT = {"n_latents": 2, "n_restarts": 1, "max_epochs": 2, "batch_size": 64, "verbose": 0, "device": "cpu"}
NONE = NoiseCourse()


def count_table(n=240, n_features=8, seed=0, depth=0.3):
    """Counts of two latents, which change between two domains, with rows of different sizes."""
    rng = np.random.default_rng(seed)
    u = np.arange(n) % 2
    z = rng.standard_normal((n, 2)) * np.where(u[:, None] == 1, [0.5, 1.5], [1.5, 0.5])
    weights = np.kron(np.eye(2), np.ones(n_features // 2)) * rng.uniform(0.4, 0.8, n_features)
    rate = np.exp(1.5 + z @ weights + depth * rng.standard_normal((n, 1)))
    return rng.poisson(rng.gamma(5.0, rate / 5.0)).astype(float), u, z


def rows_of(x, log_size=None, observed=None):
    x = torch.as_tensor(x, dtype=torch.float32)
    size = None if log_size is None else torch.as_tensor(log_size, dtype=torch.float32)[:, None]
    empty = torch.zeros(len(x), 0)
    return Rows(x.log1p(), observed, empty.long(), empty, 0, x, size)


@pytest.mark.parametrize("dispersed", [True, False])
def test_counts_have_the_log_likelihood_that_scipy_gives(dispersed):
    rng = np.random.default_rng(0)
    x, eta, size = rng.poisson(3.0, (6, 4)), rng.standard_normal((1, 6, 4)), rng.standard_normal(6)
    likelihood = Counts(1, 4, dispersed=dispersed)
    mean = np.exp(eta[0] + size[:, None])
    phi = 0.3**2
    expected = stats.nbinom(1 / phi, 1 / (1 + phi * mean)) if dispersed else stats.poisson(mean)
    found = likelihood.log_prob(rows_of(x, size), torch.as_tensor(eta, dtype=torch.float32))
    np.testing.assert_allclose(found.detach()[0], expected.logpmf(x).sum(1), rtol=1e-4)


def test_the_gradient_of_the_negative_binomial_is_that_of_differences():
    generator = torch.Generator().manual_seed(0)
    x = torch.poisson(3 * torch.rand(5, 4, generator=generator).double(), generator=generator)
    eta = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    observed = (torch.rand(5, 4, generator=generator) > 0.3).double()
    for mask in (None, observed):
        log_dispersion = torch.randn(2, 1, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda eta, log, mask=mask: negative_binomial(x, eta, log, mask), (eta, log_dispersion)
        )


def test_students_log_likelihood_is_that_of_scipy():
    rng = np.random.default_rng(0)
    x, eta = rng.standard_normal((6, 4)), rng.standard_normal((1, 6, 4))
    empty = torch.zeros(6, 0)
    rows = Rows(torch.as_tensor(x, dtype=torch.float32), None, empty.long(), empty, 0)
    found = Student(1, 4, 0.5).log_prob(rows, torch.as_tensor(eta, dtype=torch.float32))
    np.testing.assert_allclose(found.detach()[0], stats.t(10.0, eta[0], 0.5).logpdf(x).sum(1), rtol=1e-4)


@pytest.mark.parametrize("kind", sorted(LIKELIHOODS))
def test_a_likelihood_counts_observed_entries_alone_and_draws_what_it_says(kind):
    generator = torch.Generator().manual_seed(0)
    likelihood = likelihood_of((kind,), 1, 3, 0.2, NONE)
    eta = torch.tensor([[0.3, 1.0, -1.0]]).expand(4000, 3)
    with torch.no_grad():
        drawn = likelihood.sample(eta, generator, torch.zeros(len(eta), 1))
        np.testing.assert_allclose(drawn.mean(0), likelihood.mean(eta)[0], atol=0.1)
        empty, observed = torch.zeros(len(eta), 0), torch.tensor([1.0, 0.0, 1.0]).expand(4000, 3)
        rows = Rows(drawn, observed, empty.long(), empty, 0, drawn)
        wild = Rows(drawn.where(observed > 0, 7.0), observed, empty.long(), empty, 0, drawn.where(observed > 0, 7.0))
        torch.testing.assert_close(likelihood.log_prob(rows, eta[None]), likelihood.log_prob(wild, eta[None]))
        # Nothing is more likely than the truth.
        best = likelihood.log_prob(rows, eta[None]).mean()
        assert all(likelihood.log_prob(rows, eta[None] + step).mean() < best for step in (-0.3, 0.3))


@pytest.mark.parametrize("kind", sorted(LIKELIHOODS))
def test_a_row_keeps_what_the_latents_left_of_it_and_has_the_law_of_where_it_goes(kind):
    generator = torch.Generator().manual_seed(0)
    likelihood = likelihood_of((kind,), 1, 2, 0.2, NONE)
    eta, moved = torch.tensor([[0.0, 1.2]]).expand(3000, 2), torch.tensor([[0.9, 1.2]]).expand(3000, 2)
    with torch.no_grad():
        x, real = likelihood.sample(eta, generator), likelihood.sample(moved, generator)
        empty = torch.zeros(len(eta), 0)
        rows = Rows(x, None, empty.long(), empty, 0, x)
        carried = likelihood.carry(rows, eta, moved, generator)
        residual = likelihood.residual(rows, eta, generator)
    torch.testing.assert_close(carried[:, 1], x[:, 1])
    np.testing.assert_allclose(
        [carried[:, 0].mean(), carried[:, 0].std()], [real[:, 0].mean(), real[:, 0].std()], rtol=0.1
    )
    assert stats.spearmanr(carried[:, 0], x[:, 0])[0] > 0.2
    assert abs(stats.spearmanr(residual[:, 0], residual[:, 1])[0]) < 0.06


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["negative_binomial", "poisson"])
def test_counts_are_fitted_sampled_carried_and_scored_as_counts(likelihood, tmp_path):
    x, u, _ = count_table()
    model = CGVAE(**SHORT, likelihood=likelihood).fit(x, u)
    drawn = model.sample(50, domain=0)
    moved, mean = (model.counterfactual(x, u, to=1, residual=residual) for residual in (True, False))
    for counts in (drawn, moved):
        assert (counts >= 0).all()
        assert (counts == np.floor(counts)).all()
    assert (mean > 0).all()
    np.testing.assert_array_equal(moved[u == 1], x[u == 1])
    assert model.inverse_transform(model.transform(x)).min() > 0
    assert np.isfinite(model.score(x, u))
    assert model.score(x, u) < 0
    loaded = unmix.load(model.save(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(loaded.transform(x), model.transform(x), atol=1e-5)
    assert loaded.score(x, u) == pytest.approx(model.score(x, u), rel=1e-5)
    np.testing.assert_array_equal(loaded.sample(20, domain=1), model.sample(20, domain=1))
    assert str(loaded.audit()) == str(model.audit())


@pytest.mark.slow
def test_the_score_of_counts_is_a_bound_on_their_log_likelihood():
    """Of one feature without any latent to speak of it nearly is that of the negative binomial."""
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.gamma(5.0, 4.0 / 5.0, (900, 3))).astype(float)
    model = CGVAE(1, n_restarts=1, max_epochs=40, verbose=0, likelihood="negative_binomial", size_factors=None)
    model.fit(x, np.arange(900) % 2)
    truth = stats.nbinom(5.0, 5.0 / 9.0).logpmf(x).sum(1).mean()
    assert truth - 0.15 < model.score(x, np.arange(900) % 2) < truth + 0.02


def test_depth_of_a_row_changes_no_latent_and_scales_what_is_expected_of_it():
    x, u, _ = count_table(depth=0.0)
    model = CGVAE(**SHORT, likelihood="negative_binomial").fit(x, u)
    np.testing.assert_allclose(model.transform(3 * x), model.transform(x), atol=0.05)
    own, deep = (model.counterfactual(part, u, to=1, residual=False) for part in (x, 3 * x))
    np.testing.assert_allclose(deep, 3 * own, rtol=0.1)


@pytest.mark.slow
def test_sizes_from_a_column():
    x, u, _ = count_table()
    frame = pd.DataFrame(x, columns=[f"g{k}" for k in range(8)]).assign(depth=x.sum(axis=1), site=u)
    total = CGVAE(**SHORT, likelihood="negative_binomial").fit(frame.drop(columns="depth"), "site")
    column = CGVAE(**SHORT, likelihood="negative_binomial", size_factors="depth").fit(frame, "site")
    assert column.n_features_in_ == 8
    np.testing.assert_allclose(column.transform(frame), total.transform(frame.drop(columns="depth")), atol=1e-4)
    with pytest.raises(DataError, match=r"no finite size > 0 in the column 'depth'"):
        column.transform(frame.assign(depth=0.0))
    with pytest.raises(DataError, match="size_factors='depth' names a column"):
        column.transform(frame.drop(columns="depth"))


def test_missing_counts_are_left_out_of_the_likelihood_and_of_the_total():
    x, u, _ = count_table()
    holes = np.where(np.random.default_rng(1).random(x.shape) < 0.1, np.nan, x)
    model = CGVAE(**SHORT, likelihood="negative_binomial", missing="mask").fit(holes, u)
    assert np.isfinite(model.transform(holes)).all()
    assert np.isfinite(model.counterfactual(holes, u, to=0)).all()
    assert np.isfinite(model.score(holes, u))


def test_a_table_of_several_kinds():
    x, u, z = count_table()
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(x, columns=[f"g{k}" for k in range(8)])
    frame["sick"] = (rng.random(len(z)) < 1 / (1 + np.exp(-2 * z[:, 0]))).astype(float)
    frame["wild"] = z[:, 1] + 0.2 * rng.standard_t(2, len(z))
    frame["length"] = 170 + 10 * z[:, 0] + rng.standard_normal(len(z))
    kinds = {**dict.fromkeys(frame.columns[:8], "negative_binomial"), "sick": "bernoulli", "wild": "student"}
    model = CGVAE(**SHORT, likelihood=kinds).fit(frame, u)
    assert model.schema_.kinds[-3:] == ("bernoulli", "student", "gaussian")
    drawn, moved = model.sample(300, domain=1), model.counterfactual(frame, u, to=0)
    assert set(np.unique(drawn[:, 8])) <= {0.0, 1.0}
    assert (moved[:, :8] == np.floor(moved[:, :8])).all()
    np.testing.assert_allclose(moved[u == 0], frame.to_numpy()[u == 0], rtol=1e-4, atol=1e-4)
    assert drawn[:, 10].mean() == pytest.approx(170, abs=8)
    assert np.isfinite(model.score(frame, u))


def test_entries_that_a_kind_cannot_have_are_named_at_fit_and_later():
    x, u, _ = count_table()
    fraction, negative, empty = x.copy(), x.copy(), x.copy()
    fraction[0, 0], negative[0, 0], empty[5] = 0.5, -1.0, 0.0
    with pytest.raises(DataError, match=r"whole numbers ≥ 0; row 0 column 'x0' has -1"):
        CGVAE(**SHORT, likelihood="negative_binomial").fit(negative, u)
    model = CGVAE(**{**SHORT, "max_epochs": 1}, likelihood="negative_binomial").fit(x, u)
    with pytest.raises(DataError, match=r"'negative_binomial' takes whole numbers ≥ 0; row 0 column 'x0' has 0\.5"):
        model.transform(fraction)
    with pytest.raises(DataError, match=r"Row 5 has no counts"):
        model.transform(empty)


@pytest.mark.parametrize("value", ["nb", {"x0": "counts"}, 3, {"x0": "auto"}])
def test_a_likelihood_that_is_none_is_refused_before_training(value):
    with pytest.raises(SettingError, match="likelihood must be one of"):
        CGVAE(likelihood=value).fit(*count_table()[:2])


def test_sizes_as_an_array_are_refused_in_a_short_message():
    with pytest.raises(
        SettingError, match=r"size_factors must be .* \(put sizes of your own into one\).*got array"
    ) as said:
        CGVAE(**SHORT, likelihood="poisson", size_factors=np.ones(500)).fit(*count_table()[:2])
    assert len(str(said.value)) < 250
    assert "\n" not in str(said.value)


def test_a_mapping_of_features_that_are_not_there_is_refused():
    with pytest.raises(DataError, match="likelihood names the features 'y9'"):
        CGVAE(**SHORT, likelihood={"y9": "poisson"}).fit(*count_table()[:2])


def test_what_auto_takes_columns_for_and_that_it_says_so(capsys):
    x, u, _ = count_table(600, 8)
    rng = np.random.default_rng(0)
    names = [f"g{k}" for k in range(8)]
    assert kinds_of(x, names, "auto") == ("negative_binomial",) * 8
    people = np.column_stack(
        [rng.integers(18, 90, 600), rng.integers(1, 6, 600), rng.normal(size=600), rng.integers(0, 2, 600)]
    )
    assert kinds_of(people, names[:4], "auto") == ("gaussian", "gaussian", "gaussian", "bernoulli")
    CGVAE(**{**SHORT, "verbose": 1}, likelihood="auto").fit(x, u)
    assert "likelihood negative_binomial (all features)" in capsys.readouterr().err


@pytest.mark.slow
def test_without_a_word_continuous_features_are_fitted_as_before_by_auto():
    data = unmix.datasets.make_sparse_mixing(2, 4, 3, 300)
    plain, auto = (CGVAE(**SHORT, likelihood=kind).fit(data.x, data.domains) for kind in ("gaussian", "auto"))
    np.testing.assert_array_equal(plain.transform(data.x), auto.transform(data.x))


def test_bernoulli_features_have_levels_and_weights_of_their_own():
    likelihood = Bernoulli(1, 2)
    likelihood.begin(rows_of([[1, 0], [1, 0], [0, 0], [1, 1]]))
    assert likelihood.base[0, 0, 0] > 0 > likelihood.base[0, 0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["gaussian", "mixed"])
def test_what_a_batch_does_to_every_feature_is_no_latent(likelihood, tmp_path):
    kind = "gaussian" if likelihood == "gaussian" else "negative_binomial"
    data = unmix.datasets.make_sparse_mixing(
        2, 30, 2, 600, likelihood="student" if kind == "gaussian" else kind, n_batches=3, batch_effect=1.0, density=0.3
    )
    names = [f"g{k}" for k in range(30)]
    frame = pd.DataFrame(data.x, columns=names).assign(lane=data.batches.astype(str), site=data.domains)
    words = {**SHORT, "likelihood": kind if likelihood != "mixed" else dict.fromkeys(names[:29], kind)}
    words["max_epochs"] = 6
    with_batch = CGVAE(**words, nuisance="lane").fit(frame, "site")
    plain = CGVAE(**words).fit(frame.drop(columns="lane"), "site")

    def between(z):
        means = np.stack([z[data.batches == own].mean(axis=0) for own in range(3)])
        return (means.std(axis=0) / z.std(axis=0)).max()

    assert with_batch.n_features_in_ == 30
    assert between(with_batch.transform(frame)) < 0.3
    assert between(plain.transform(frame.drop(columns="lane"))) > 0.6
    held = frame.iloc[:100]
    assert with_batch.score(frame, "site") > plain.score(frame.drop(columns="lane"), "site")
    own = with_batch.counterfactual(held, "site", to=1)
    stays = (held["site"] == 1).to_numpy()
    np.testing.assert_allclose(own[stays], held[names].to_numpy()[stays], rtol=1e-3, atol=1e-3)
    loaded = unmix.load(with_batch.save(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(loaded.transform(frame), with_batch.transform(frame), atol=1e-5)
    with pytest.raises(DataError, match=r"The batch '9' in the column 'lane' was not there at fit"):
        loaded.transform(held.assign(lane="9"))
    with pytest.raises(DataError, match=r"nuisance='lane' names a column"):
        loaded.transform(held.drop(columns="lane"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "negative_binomial", "mixed"])
def test_corrected_rows_lose_the_effect_of_their_batch_and_keep_all_else(kind):
    rng, lane = np.random.default_rng(0), np.arange(600) % 3
    z, effect = rng.standard_normal((600, 2)), rng.normal(0, 0.7, (3, 30))
    eta = z @ (rng.standard_normal((2, 30)) * (rng.random((2, 30)) < 0.4)) * 0.5
    noise = rng.standard_normal((600, 30))
    names = [f"g{k}" for k in range(30)]
    clean = eta + 0.3 * noise
    if kind != "gaussian":
        quantile = stats.norm.cdf(noise)
        moved = stats.nbinom(5, 1 / (1 + 0.2 * np.exp(2 + eta + effect[lane]))).ppf(quantile)
    given = clean + effect[lane] if kind == "gaussian" else moved
    likelihood = kind
    if kind == "mixed":
        given[:, 0], likelihood = clean[:, 0] + effect[lane, 0], dict.fromkeys(names[1:], "negative_binomial")
    frame = pd.DataFrame(given, columns=names).assign(lane=lane.astype(str))
    words = {**SHORT, "max_epochs": 6, "likelihood": likelihood, "nuisance": "lane", "size_factors": None}
    model = CGVAE(**words).fit(frame, np.arange(600) % 2)
    found = model.corrected(frame)
    assert found.shape == (600, 30)

    def between(x):
        x = np.log1p(x) if kind != "gaussian" and (x >= 0).all() else x
        return np.mean(np.stack([x[lane == own].mean(0) for own in range(3)]).std(0) / x.std(0))

    columns = slice(1, None) if kind == "mixed" else slice(None)
    assert between(found[:, columns]) < 0.3 * between(given[:, columns])
    kept = [np.corrcoef(found[lane == own, k], given[lane == own, k])[0, 1] for own in range(3) for k in range(30)]
    assert np.mean(kept) > 0.97
    if kind != "gaussian":
        assert (found[:, 1:] == np.floor(found[:, 1:])).all()
    shift = (given - found)[:, 0]
    if kind != "negative_binomial":
        assert max(np.ptp(shift[lane == own]) for own in range(3)) < 1e-4
    with pytest.raises(SettingError, match=r"effects of batches off.*Fit it with nuisance="):
        CGVAE(**SHORT).fit(clean, lane).corrected(clean)


def test_a_batch_may_be_the_domain():
    x, u, _ = count_table()
    frame = pd.DataFrame(x, columns=[f"g{k}" for k in range(8)]).assign(lane=u.astype(str))
    model = CGVAE(**SHORT, likelihood="negative_binomial", nuisance="lane").fit(frame, "lane")
    assert np.isfinite(model.score(frame, "lane"))
    assert len(model.audit().latents) == 2


@pytest.mark.parametrize("likelihood", ["student", "poisson", "negative_binomial", "bernoulli"])
def test_generated_features_are_what_their_likelihood_says(likelihood):
    data, plain = (
        unmix.datasets.make_sparse_mixing(2, 6, 3, 4000, likelihood=kind, n_batches=2, batch_effect=0.1)
        for kind in (likelihood, "gaussian")
    )
    np.testing.assert_array_equal(data.z, plain.z)
    assert plain.sizes is None
    assert plain.batches is None
    assert set(np.unique(data.batches)) == {0, 1}
    if likelihood in ("poisson", "negative_binomial"):
        assert np.corrcoef(np.log(data.x.sum(axis=1) + 1), np.log(data.sizes))[0, 1] > 0.3
        assert kinds_of(data.x, data.feature_names, "auto") == ("negative_binomial",) * 6
    with pytest.raises(SettingError, match="likelihood must be one of"):
        unmix.datasets.make_sparse_mixing(likelihood="nb")


@pytest.mark.slow
def test_the_command_line_takes_counts_with_sizes_and_batches(tmp_path):
    x, u, _ = count_table()
    frame = pd.DataFrame(x, columns=list("abcdefgh")).assign(site=u, lane=np.arange(len(x)) % 3, depth=x.sum(axis=1))
    frame.to_csv(tmp_path / "t.csv", index=False)
    words = [
        "--likelihood",
        "auto",
        "--nuisance",
        "lane",
        "--dispersion",
        "domain",
        "--size-factors",
        "depth",
        "--restarts",
        "1",
        "--epochs",
        "1",
    ]
    run, table = str(tmp_path / "run"), str(tmp_path / "t.csv")
    found = CliRunner().invoke(app, ["fit", table, "--domain", "site", "--latents", "2", "--out", run, *words])
    assert found.exit_code == 0, found.output
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "log fold change of a feature" in page
    assert "in log fold changes" in (tmp_path / "run" / "README.txt").read_text(encoding="utf-8")
    found = CliRunner().invoke(app, ["transform", run, table, "--out", str(tmp_path / "z.csv")])
    assert found.exit_code == 0, found.output
    assert len(pd.read_csv(tmp_path / "z.csv")) == len(x)
