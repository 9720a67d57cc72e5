"""The estimator: one contract over priors and decoders, reproducibility, storage, scikit-learn's own checks."""

import json
import warnings

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from conftest import QUICK
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

import unmix
from unmix import CGVAE, DataWarning, metrics
from unmix.errors import DataError, DomainError, SettingError, StorageError

MODELS = [(decoder, prior) for decoder in ("dense", "feature", "invertible") for prior in ("gaussian", "spline")]


# Every exception to scikit-learn's checks, with its reason.
EXPECTED = {
    "check_methods_subset_invariance": "float32 products of other batch sizes round differently (1e-6; asked: 1e-7)",
}
NEEDS_DOMAINS = dict.fromkeys(
    [
        "check_dict_unchanged",
        "check_dtype_object",
        "check_estimators_dtypes",
        "check_estimators_pickle",
        "check_f_contiguous_array_estimator",
        "check_fit_idempotent",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_transformer_data_not_an_array",
        "check_transformer_general",
        "check_transformer_preserve_dtypes",
    ],
    "the encoder takes the domains: transform(X, y)",
)
SHORT = {"n_restarts": 1, "max_epochs": 1, "min_domain_rows": 1, "verbose": 0, "hidden": (4,)}


@pytest.mark.slow
@parametrize_with_checks(
    [
        CGVAE(n_latents=1, n_restarts=1, max_epochs=2, min_domain_rows=1, verbose=0),
        unmix.baselines.IVAE(1, **SHORT),
        unmix.baselines.IMSDA(1, n_style=1, **SHORT),
        unmix.baselines.BetaVAE(1, **SHORT),
        unmix.baselines.BetaTCVAE(1, **SHORT),
        unmix.baselines.HFVAE(1, group_sizes=(1,), **SHORT),
        unmix.baselines.FactorVAE(1, **SHORT),
        unmix.baselines.SparseVAE(1, **SHORT),
    ],
    expected_failed_checks=lambda estimator: NEEDS_DOMAINS if isinstance(estimator, unmix.baselines.IVAE) else EXPECTED,
)
def test_scikit_learn(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize(("decoder", "prior"), MODELS)
def test_contract(decoder, prior, frame, labels, tmp_path):
    model = CGVAE(**QUICK, decoder=decoder, prior=prior).fit(frame, labels)
    z = model.transform(frame)
    assert z.shape == (600, 2)
    assert model.mixing_.shape == model.support_.shape == (5, 2)
    assert (model.support_ == (model.mixing_ >= 0.1)).all()
    assert list(model.domains_) == ["a", "b", "c"]
    assert np.diff(model.mixing_.sum(axis=0))[0] <= 0
    train = np.setdiff1d(np.arange(600), [])
    np.testing.assert_allclose(z[train].std(axis=0), 1.0, atol=0.1)
    assert model.inverse_transform(z).shape == frame.shape
    assert np.isfinite(model.score(frame, labels))
    assert model.sample(7, domain="b").shape == (7, 5)
    np.testing.assert_array_equal(model.sample(3, domain="a"), model.sample(3, domain="a"))
    stay = model.counterfactual(frame, labels, to=pd.DataFrame({"domain": labels}))
    np.testing.assert_allclose(stay, frame, atol=2e-3)
    assert np.abs(model.counterfactual(frame, labels, to="c") - stay)[labels != "c"].max() > 1e-3
    assert set(model.history_["start"]) == {0, 1}
    assert model.restarts_["kept"].sum() == 1
    assert 0 <= model.agreement_ <= 1
    again = unmix.load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(again.transform(frame), z)
    assert again.score(frame, labels) == model.score(frame, labels)
    np.testing.assert_array_equal(again.sample(3, domain="a"), model.sample(3, domain="a"))
    np.testing.assert_array_equal(again.mixing_, model.mixing_)
    pd.testing.assert_frame_equal(again.restarts_, model.restarts_, check_dtype=False)
    pd.testing.assert_frame_equal(again.history_, model.history_, check_dtype=False)
    assert again.get_params() | {"hidden": None} == model.get_params() | {"hidden": None}
    assert not list((tmp_path / "model").rglob("*.pkl"))


def test_rows_do_not_depend_on_their_neighbours(fitted, frame):
    whole = fitted.transform(frame)
    np.testing.assert_allclose(fitted.transform(frame.iloc[::-1])[::-1], whole, atol=1e-5)
    np.testing.assert_allclose(fitted.transform(frame.iloc[3:4]), whole[3:4], atol=1e-5)


def test_counterfactual_carries_each_latent_through_the_priors_maps(fitted, frame, labels):
    carried = fitted.counterfactual(frame, labels, to="c", residual=False)
    counterfactual = pd.DataFrame(carried, columns=frame.columns)
    moved = fitted.transform(counterfactual)
    model, rows = fitted.model_, fitted._new_rows(frame, labels, with_domain=True)
    with torch.no_grad():
        own, target = model.prior(rows.design), model.prior(fitted._design("c", len(frame)))
        z = model.encode(rows.x)[0] @ model.expansion
        zero, one = own.from_noise(torch.zeros_like(z)), own.from_noise(torch.ones_like(z))
        noise = (z - zero) / (one - zero)
        expected = target.from_noise(noise)
        round_trip = model.encode(model.decode(expected))[0].numpy()
    np.testing.assert_allclose(moved, round_trip, atol=2e-2)


@pytest.mark.slow
def test_same_seed_same_bits_and_another_seed_another_model(fitted, frame, labels):
    again = CGVAE(**QUICK).fit(frame, labels)
    np.testing.assert_array_equal(again.transform(frame), fitted.transform(frame))
    pd.testing.assert_frame_equal(again.history_, fitted.history_)
    other = CGVAE(**QUICK, random_state=1).fit(frame, labels)
    assert not np.array_equal(other.transform(frame), fitted.transform(frame))


@pytest.mark.slow
def test_every_kind_of_table_gives_the_same_model(fitted, frame, labels, tmp_path):
    frame.assign(domain=labels).to_csv(tmp_path / "t.csv", index=False)
    frame.assign(domain=labels).to_csv(tmp_path / "t.tsv.gz", sep="\t", index=False)
    frame.assign(domain=labels).to_parquet(tmp_path / "t.parquet")
    expected = fitted.transform(frame)
    observed = pd.DataFrame({"domain": labels, "row": np.arange(600.0)}, index=frame.index.astype(str))
    cells = anndata.AnnData(frame.to_numpy(), obs=observed)
    cells.var_names = list(frame.columns)
    cells.write_h5ad(tmp_path / "t.h5ad")
    tables = [
        (pl.from_pandas(frame), pl.Series("domain", labels)),
        (pa.Table.from_pandas(frame), labels.tolist()),
        (tmp_path / "t.csv", "domain"),
        (tmp_path / "t.tsv.gz", "domain"),
        (str(tmp_path / "t.parquet"), "domain"),
        (cells, "domain"),
        (tmp_path / "t.h5ad", "domain"),
        (tmp_path / "t.h5ad", labels),
        (frame.assign(domain=labels), "domain"),
    ]
    for x, y in tables:
        model = CGVAE(**QUICK).fit(x, y)
        np.testing.assert_array_equal(model.transform(frame), expected, err_msg=str(type(x)))
        assert list(model.feature_names_in_) == list(frame.columns)
        assert model.score(x, y) == pytest.approx(fitted.score(frame, labels), abs=1e-6)
    with_domain = frame.assign(domain=labels)
    np.testing.assert_array_equal(fitted.transform(with_domain), expected)
    np.testing.assert_array_equal(fitted.transform(pl.from_pandas(frame)), expected)
    np.testing.assert_array_equal(fitted.transform(pa.Table.from_pandas(frame)), expected)
    np.testing.assert_array_equal(fitted.transform(tmp_path / "t.h5ad"), expected)


@pytest.mark.slow
def test_names_of_rows_in_a_file_are_no_feature(fitted, frame, labels, tmp_path):
    frame.assign(domain=labels).to_csv(tmp_path / "t.csv")
    with pytest.warns(DataWarning, match="first column of t.csv has no name"):
        model = CGVAE(**QUICK).fit(tmp_path / "t.csv", "domain")
    assert list(model.feature_names_in_) == list(frame.columns)
    np.testing.assert_array_equal(model.transform(frame), fitted.transform(frame))
    named = frame.rename(columns={frame.columns[0]: "row"})
    named.to_csv(tmp_path / "row.csv")
    with pytest.warns(DataWarning, match="first column of row.csv has no name"):
        assert list(CGVAE(**QUICK).fit(tmp_path / "row.csv", labels).feature_names_in_) == list(named.columns)


def test_labels_with_another_index_are_named(fitted, frame, labels):
    y = pd.Series(labels, index=frame.index)
    with pytest.warns(DataWarning, match=r"pass y.loc\[X.index\]"):
        fitted.score(frame, y.sample(frac=1.0, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fitted.score(frame, y) == fitted.score(frame, labels)


def test_names_of_two_kinds_are_refused_before_training(frame, labels):
    with pytest.raises(DataError, match="all text or all numbers; 0 stands beside"):
        CGVAE(**QUICK).fit(frame.rename(columns={frame.columns[1]: 0}), labels)


@pytest.mark.slow
def test_mixed_nested_and_continuous_domains(frame, labels, tmp_path):
    rng = np.random.default_rng(0)
    u = pd.DataFrame({"region": labels, "site": rng.integers(2, size=600), "dose": rng.uniform(0, 5, 600)})
    kinds = {"site": "within region", "dose": "continuous"}
    model = CGVAE(**QUICK, auxiliary=kinds).fit(frame, u)
    assert [column.kind for column in model.domain_schema_.columns] == ["categorical", "categorical", "continuous"]
    assert model.domain_schema_.columns[1].levels[:2] == ("a / 0", "a / 1")
    assert len(model.domains_) == 6
    low, high = (model.sample(4, domain={"region": "a", "site": 0, "dose": dose}) for dose in (0.0, 5.0))
    assert np.abs(low - high).max() > 1e-6
    assert model.counterfactual(frame, u, to={"region": "b", "site": 1, "dose": 2.5}).shape == frame.shape
    with pytest.raises(DomainError, match="pass a mapping such as"):
        model.sample(2, domain="a")
    only_dose = CGVAE(**QUICK, auxiliary={"dose": "continuous"}).fit(frame, u[["dose"]])
    assert only_dose.domains_ == ("all",)
    with pytest.warns(DataWarning, match=r"'dose' was .* at fit and is 90 to 90 now: what follows is an extrapolation"):
        only_dose.sample(2, domain=90.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        only_dose.sample(2, domain=5.2)
    with pytest.raises(DomainError, match=r"called 'doze'; the model was fitted with 'dose'"):
        only_dose.sample(2, domain={"doze": 1.0})
    named = frame.assign(region=labels, site=u["site"])
    both = CGVAE(**QUICK).fit(named, ["region", "site"])
    assert [column.name for column in both.domain_schema_.columns] == ["region", "site"]
    assert list(both.feature_names_in_) == list(frame.columns)
    with pytest.raises(DataError, match="There is no column 'sight'"):
        CGVAE(**QUICK).fit(named, ["region", "sight"])
    named.to_csv(tmp_path / "t.csv", index=False)
    again = CGVAE(**QUICK).fit(tmp_path / "t.csv", ["region", "site"])
    np.testing.assert_array_equal(again.mixing_, both.mixing_)
    frame.to_csv(tmp_path / "x.csv", index=False)
    by_label = CGVAE(**QUICK).fit(tmp_path / "x.csv", [str(label) for label in labels])
    assert by_label.domains_ == ("a", "b", "c")


def test_labels_that_read_the_same_are_refused(frame):
    u = pd.DataFrame(
        {"A": ["a · b"] * 200 + ["a"] * 200 + ["z"] * 200, "B": ["c"] * 200 + ["b · c"] * 200 + ["w"] * 200}
    )
    with pytest.raises(DomainError, match="have the same text"):
        CGVAE(**QUICK).fit(frame, u)


@pytest.mark.slow
def test_masked_entries_are_missing(frame, labels):
    hidden = np.random.default_rng(0).random(frame.shape) < 0.2
    masked = np.ma.masked_array(frame.to_numpy(), mask=hidden)
    model, other = (CGVAE(**QUICK, missing="mask").fit(x, labels) for x in (masked, masked.filled(np.nan)))
    np.testing.assert_array_equal(model.mixing_, other.mixing_)
    with pytest.raises(DomainError, match="missing values"):
        CGVAE(**QUICK).fit(frame, np.ma.masked_array(labels, mask=np.arange(600) < 5))


@pytest.mark.parametrize("factor", [1e-170, 1e160])
def test_numbers_without_room_for_their_squares_are_refused_before_training(frame, labels, factor):
    with pytest.raises(DataError, match=r"Columns .* hold numbers beyond 1e\+100, or less than 1e-100 apart"):
        CGVAE(**QUICK).fit(frame.assign(**{frame.columns[1]: frame.iloc[:, 1] * factor}), labels)


def test_anndata_without_x_and_on_disk(fitted, frame, labels, tmp_path):
    observed = pd.DataFrame({"domain": labels}, index=frame.index.astype(str))
    with pytest.raises(DataError, match="AnnData object has no X"):
        CGVAE(**QUICK).fit(anndata.AnnData(obs=observed), "domain")
    cells = anndata.AnnData(sparse.csr_matrix(frame.to_numpy()), obs=observed)
    cells.var_names = list(frame.columns)
    cells.write_h5ad(tmp_path / "t.h5ad")
    backed = anndata.read_h5ad(tmp_path / "t.h5ad", backed="r")
    np.testing.assert_array_equal(fitted.transform(backed), fitted.transform(frame))


def test_a_header_with_one_name_twice_is_refused(frame, labels, tmp_path):
    text = frame.assign(domain=labels).to_csv(index=False)
    (tmp_path / "t.csv").write_text(text.replace(frame.columns[1], frame.columns[0], 1))
    with pytest.raises(DataError, match="Column names must be unique"):
        CGVAE(**QUICK).fit(tmp_path / "t.csv", "domain")


@pytest.mark.slow
def test_missing_entries_leave_the_likelihood(frame, labels):
    holes = frame.to_numpy().copy()
    holes[::7, 1] = np.nan
    model = CGVAE(**QUICK, missing="mask").fit(holes, labels)
    assert np.isfinite(model.transform(holes)).all()
    rows = model._new_rows(holes, labels, with_domain=True)
    changed = rows.x.clone()
    changed[rows.observed == 0] = 5.0
    noise = torch.zeros(1, 600, 2)
    terms = model.model_.inner.terms(rows, noise, 600, 8, 1.0)
    with torch.no_grad():
        output = model.model_.inner.decode(model.model_.inner.encode(rows.x, rows.observed).mean)
        from unmix.objectives.elbo import gaussian_nll

        nll = gaussian_nll(changed, output, model.model_.likelihood.noise.log, rows.observed).mean()
    assert float(terms["reconstruction"].detach()) == pytest.approx(float(nll), rel=1e-5)


@pytest.mark.slow
def test_units_move_the_score_by_their_logarithm_once_for_each_entry_that_is_there(frame, labels):
    holes = frame.to_numpy().copy()
    holes[::2, 1] = np.nan
    units = np.array([1.0, 1000.0, *[1.0] * (holes.shape[1] - 2)])
    score, scaled = (CGVAE(**QUICK, missing="mask").fit(x, labels).score(x, labels) for x in (holes, holes * units))
    assert score - scaled == pytest.approx(np.log(1000.0) / 2, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("names", [("--1", "²", "x"), ("10", "-2", "9")])
def test_labels_may_look_like_numbers(frame, names):
    domains = np.array(names)[np.arange(len(frame)) % 3]
    found = CGVAE(**QUICK).fit(frame, domains).domains_
    assert found == (("-2", "9", "10") if "9" in names else tuple(sorted(names)))


@pytest.mark.slow
def test_it_finds_the_truth():
    """A short run on an easy problem: above 0.95, and far above PCA."""
    data = unmix.datasets.make_sparse_mixing(
        n_latents=2, n_features=6, n_domains=3, n_samples=3000, density=0.4, guaranteed=True, random_state=13
    )
    model = CGVAE(n_latents=2, n_restarts=4, max_epochs=80, verbose=0).fit(data.x, data.domains)
    score = metrics.mcc(data.z, model.transform(data.x))
    assert score > 0.95
    assert score.chance < 0.1
    assert score > metrics.mcc(data.z, PCA(2).fit_transform(data.x)) + 0.1


@pytest.mark.slow
def test_a_pipeline_a_clone_and_pandas_output(frame, labels):
    pipeline = make_pipeline(PowerTransformer(), CGVAE(**QUICK)).set_output(transform="pandas")
    z = pipeline.fit(frame, labels).transform(frame)
    assert list(z.columns) == ["z0", "z1"]
    assert clone(pipeline[-1]).get_params() == pipeline[-1].get_params()


@pytest.mark.slow
def test_no_domains_one_domain(frame):
    model = CGVAE(**QUICK).fit(frame)
    assert model.domains_ == ("all",)
    assert model.sample(3).shape == (3, 5)
    with pytest.raises(DomainError, match="without domains"):
        model.sample(3, domain="a")


@pytest.mark.slow
def test_an_unsuccessful_fit_leaves_nothing_and_a_refit_keeps_the_old_model(frame, labels):
    fresh = CGVAE(**QUICK)
    with pytest.raises(DataError, match="constant"):
        fresh.fit(frame.assign(x0=1.0), labels)
    assert not [name for name in vars(fresh) if name.endswith("_")]
    model = CGVAE(**QUICK).fit(frame, labels)
    before = model.transform(frame)
    with pytest.raises(DataError, match="NaN"):
        model.fit(frame.where(frame > -3), labels)
    np.testing.assert_array_equal(model.transform(frame), before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_latents": 0}, "n_latents must be a whole number ≥ 1.*got 0"),
        ({"max_epochs": 0}, "max_epochs must be None, or a whole number ≥ 1"),
        ({"prior": "cauchy"}, "prior must be one of"),
        ({"penalty": "l0"}, "penalty must be one of"),
        ({"decoder": "conv"}, "decoder must be one of"),
        ({"sparsity": -1.0}, "sparsity must be ≥ 0"),
        ({"sparsity": float("inf")}, 'sparsity must be ≥ 0 and finite, or "auto"; got inf'),
        ({"sparsity": "a"}, "sparsity must be ≥ 0 and finite, or"),
        ({"kl_weight": None}, "kl_weight must be ≥ 0 and finite; got None"),
        ({"learning_rate": "a"}, "learning_rate must be > 0 and finite; got 'a'"),
        ({"learning_rate": float("nan")}, "learning_rate must be > 0 and finite; got nan"),
        ({"validation_fraction": "a"}, r"validation_fraction must be in \[0, 1\); got 'a'"),
        ({"prior": []}, "prior must be one of"),
        ({"n_spare": True}, "n_spare must be a whole number ≥ 0; got True"),
        ({"penalty_rows": 0}, "penalty_rows must be a whole number ≥ 1; got 0"),
        ({"penalty_every": 0.5}, "penalty_every must be a whole number ≥ 1; got 0.5"),
        ({"random_state": -1}, "random_state must be a whole number from 0 to 2⁶³ - 1, a RandomState or None; got -1"),
        ({"random_state": 2**63}, "random_state must be a whole number from 0 to 2⁶³ - 1"),
        ({"random_state": "x"}, "random_state must be a whole number from 0 to .* or None; got 'x'"),
        ({"hidden": 128}, r"hidden must be one or more widths ≥ 1, such as \(64, 64\); got 128"),
        ({"hidden": ()}, "hidden must be one or more widths"),
        ({"validation_fraction": 1.0}, r"validation_fraction must be in \[0, 1\)"),
        ({"missing": "drop"}, "missing must be one of"),
        ({"device": "abacus"}, "cannot be used here"),
        ({"auxiliary": "categorical"}, "auxiliary must be None, or a mapping of columns to their kind; got 'cat"),
        ({"auxiliary": ["domain"]}, r"mapping of columns to their kind; got \['domain'\]"),
    ],
)
def test_settings_that_cannot_be(settings, message, frame, labels):
    with pytest.raises(SettingError, match=message):
        CGVAE(**{**QUICK, **settings}).fit(frame, labels)


def test_samples_that_cannot_be(fitted):
    domain = fitted.domains_[0]
    for words in ({"n_samples": 0}, {"n_samples": "a"}, {"random_state": -1}, {"random_state": 2**64}):
        with pytest.raises(SettingError, match=f"{next(iter(words))} must be a whole number"):
            fitted.sample(domain=domain, **words)


def test_storage_refuses(fitted, frame, tmp_path):
    fitted.save(tmp_path / "m")
    with pytest.raises(StorageError, match="not empty"):
        fitted.save(tmp_path / "m")
    fitted.save(tmp_path / "m", overwrite=True)
    with pytest.raises(StorageError, match="is not there"):
        unmix.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is a file"):
        fitted.save(tmp_path / "file")
    with pytest.raises(StorageError, match=r"could not be written.*space and permission"):
        fitted.save(tmp_path / "file" / "m")
    with pytest.raises(StorageError, match=r"could not be written.*space and permission"):
        fitted.report(tmp_path / "file" / "r.html")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "format": 99}))
    with pytest.raises(StorageError, match="format 99"):
        unmix.load(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    content = (tmp_path / "m" / "model.safetensors").read_bytes()
    (tmp_path / "m" / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(StorageError, match="damaged"):
        unmix.load(tmp_path / "m")
    (tmp_path / "m" / "done.json").unlink()
    with pytest.raises(StorageError, match="no complete model"):
        unmix.load(tmp_path / "m")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "m"]
