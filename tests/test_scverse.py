"""AnnData in and out: layers, backed files, genes by name, latents written back."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import QUICK
from scipy import sparse
from sklearn.base import clone
from typer.testing import CliRunner

import unmix
from unmix import CGGAN, CGVAE, DataWarning, scverse
from unmix.baselines import IVAE
from unmix.cli import app
from unmix.errors import DataError, DomainError, SchemaError, SettingError, StorageError
from unmix.estimators.prepare import prepare

pytestmark = [
    pytest.mark.filterwarnings("ignore:(Variable|Observation) names are not unique:UserWarning"),
    pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning"),
]
SHORT = {**QUICK, "n_restarts": 1, "max_epochs": 1, "hidden": (4,)}
GENES = [f"gene{k}" for k in range(6)]
N = 90


def cells():
    rng = np.random.default_rng(0)
    batch = np.arange(N) % 3
    counts = rng.poisson(np.exp(0.5 * rng.normal(size=(N, 1)) + 0.4 * batch[:, None]), size=(N, 6)).astype(np.float32)
    obs = pd.DataFrame(
        {"batch": pd.Categorical([f"b{k}" for k in batch], categories=["b0", "b1", "b2", "unused"])},
        index=[f"cell{k}" for k in range(N)],
    )
    return anndata.AnnData(
        sparse.csr_matrix(np.log1p(counts)),
        obs=obs,
        var=pd.DataFrame(index=GENES),
        layers={"counts": sparse.csr_matrix(np.sqrt(counts)), "dense": np.sqrt(counts)},
    )


@pytest.fixture(scope="module")
def adata():
    return cells()


@pytest.fixture(scope="module")
def model(adata):
    return CGVAE(**SHORT).fit(adata, "batch", layer="counts")


def prepared(x, y="batch"):
    return prepare(x, y, n_latents=2, missing="error", auxiliary=None, min_domain_rows=10, validation_fraction=0.1)


@pytest.mark.slow
def test_a_layer_is_read_and_remembered(adata, model, tmp_path):
    counts = adata.layers["dense"]
    plain = CGVAE(**SHORT).fit(counts, list(adata.obs["batch"]))
    expected = plain.transform(counts)
    assert model.domains_ == ("b0", "b1", "b2")
    assert model.schema_.layer == "counts"
    assert expected.dtype == np.float32
    for own in (model, unmix.load(model.save(tmp_path / "model"))):
        np.testing.assert_array_equal(own.transform(adata), expected)
        assert own.score(adata, "batch") == plain.score(counts, list(adata.obs["batch"]))
        np.testing.assert_array_equal(
            own.counterfactual(adata, "batch", to="b1"), plain.counterfactual(counts, list(adata.obs["batch"]), to="b1")
        )
    dense = CGVAE(**SHORT).fit(adata, adata.obs["batch"], layer="dense")
    np.testing.assert_array_equal(dense.transform(adata), expected)
    assert not np.allclose(CGVAE(**SHORT).fit(adata, "batch").transform(adata), expected)
    other = cells()
    del other.layers["counts"]
    with pytest.raises(DataError, match=r"no layer 'counts'; the AnnData object has 'dense'"):
        model.transform(other)
    with pytest.raises(SettingError, match=r"layer='counts' names a layer of AnnData; X is a ndarray"):
        CGVAE(**SHORT).fit(counts, list(adata.obs["batch"]), layer="counts")


def test_obs_gives_the_domains(adata):
    for y in ("batch", ["batch"], adata.obs["batch"], adata.obs[["batch"]], adata.obs["batch"].to_numpy()):
        assert prepared(adata, y).domains.domains == ("b0", "b1", "b2")
    with pytest.raises(DataError, match=r"no column 'site' in \.obs; it has 'batch'"):
        prepared(adata, "site")
    with pytest.raises(DomainError, match="X has 90 rows, the domains have 5"):
        prepared(adata, ["a", "b", "a", "b", "c"])


@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "view", "backed", "backed dense", "h5ad", "zarr"])
def test_every_kind_of_store_gives_the_same_rows(adata, kind, tmp_path):
    expected = prepared(adata.X.toarray(), list(adata.obs["batch"])).rows.x
    own = cells()
    if kind == "csc":
        own.X = own.X.tocsc()
    if "dense" in kind:
        own.X = own.X.toarray()
    if kind == "view":
        own = anndata.concat([own, own])[:N]
        own.obs_names = adata.obs_names
    if "backed" in kind or kind == "h5ad":
        own.write_h5ad(tmp_path / "x.h5ad")
        own = tmp_path / "x.h5ad" if kind == "h5ad" else anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    if kind == "zarr":
        pytest.importorskip("zarr")
        own.write_zarr(tmp_path / "x.zarr")
        own = tmp_path / "x.zarr"
    found = prepared(own)
    np.testing.assert_array_equal(found.rows.x.numpy(), expected.numpy())
    assert found.features.names == tuple(GENES)
    assert found.features.dtype == "float32"
    if "backed" in kind:
        own.file.close()


def test_genes_are_found_by_their_names(adata, model):
    expected = model.transform(adata)
    rng = np.random.default_rng(1)
    for order in (rng.permutation(6), [*range(6), *range(6)]):
        more = adata[:, order].copy()
        if len(order) > 6:
            more.var_names = [*GENES, *(f"other{k}" for k in range(6))]
        more = more[:, rng.permutation(len(order))]
        np.testing.assert_array_equal(model.transform(more), expected)
        for form in ("csc", "dense"):
            changed = more.copy()
            own = changed.layers["counts"]
            changed.layers["counts"] = own.tocsc() if form == "csc" else own.toarray()
            np.testing.assert_array_equal(model.transform(changed), expected)
    fewer = adata[:, 3:].copy()
    with pytest.raises(SchemaError, match=r"3 of the 6 variables .* 'gene0', 'gene1', 'gene2'\. .*begins with 'gene3'"):
        model.transform(fewer)
    twice = adata[:, [0, 0, 1, 2, 3, 4, 5]].copy()
    with pytest.raises(DataError, match="must be unique, and these are not: 'gene0'"):
        model.transform(twice)
    with pytest.raises(DataError, match="must be unique, and these are not: 'gene0'"):
        CGVAE(**SHORT).fit(twice, "batch")


def test_other_models_find_genes_by_their_names(adata):
    moved = adata[:, ::-1].copy()
    gan = CGGAN(n_latents=2, hidden=(4,), max_steps=2, encoder_steps=2, verbose=0).fit(adata, "batch")
    np.testing.assert_array_equal(gan.transform(moved), gan.transform(adata))
    ivae = IVAE(**SHORT).fit(adata, "batch", layer="counts")
    np.testing.assert_array_equal(ivae.transform(moved, "batch"), ivae.transform(adata, "batch"))


def test_names_of_rows_come_back(adata, model):
    other = CGVAE(**SHORT).set_output(transform="pandas").fit(adata, "batch", layer="counts")
    found = other.transform(adata[::-1])
    assert found.index.tolist() == adata.obs_names[::-1].tolist()
    assert [*found.columns] == ["z0", "z1"]
    np.testing.assert_array_equal(found.to_numpy(), model.transform(adata)[::-1])
    assert isinstance(model.transform(adata), np.ndarray)


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_latents_survive_a_store(adata, model, ending, tmp_path):
    if ending == ".zarr":
        pytest.importorskip("zarr")
    own = anndata.concat([cells(), cells()[:, :2]], axis=1, merge="same")
    own.var_names = [*GENES, "other0", "other1"]
    own = own[:, ::-1].copy()
    scverse.add_latents(own, model)
    path = scverse.write(own, tmp_path / f"x{ending}")
    again = (anndata.read_h5ad if ending == ".h5ad" else anndata.read_zarr)(path)
    np.testing.assert_array_equal(again.obsm["X_unmix"], model.transform(adata))
    loadings = pd.DataFrame(again.varm["unmix"], index=again.var_names)
    expected = model.mixing_frame(signed=True)
    np.testing.assert_allclose(loadings.loc[GENES].to_numpy(), expected.to_numpy(), rtol=1e-6)
    assert loadings.loc[["other0", "other1"]].isna().all(axis=None)
    found = again.uns["unmix"]
    assert json.loads(found["settings"])["n_latents"] == 2
    assert (found["estimator"], found["layer"]) == ("CGVAE", "counts")
    assert found["verdicts"]["verdict"].tolist() == model.audit().latents["verdict"].tolist()
    assert found["top_features"]["feature"].tolist() == model.top_features(20)["feature"].tolist()
    assert [*found["domains"]] == ["b0", "b1", "b2"]
    with pytest.raises(StorageError, match=r"must end in .h5ad or .zarr"):
        scverse.write(own, tmp_path / "x.csv")


def test_only_anndata_and_fitted_tables_take_latents(adata, model):
    with pytest.raises(DataError, match="Expected an AnnData object; got a DataFrame"):
        scverse.add_latents(pd.DataFrame({"a": [1]}), model)
    with pytest.raises(SettingError, match="Expected a fitted estimator"):
        scverse.add_latents(adata, CGGAN())


def test_loadings_as_tables(model):
    signed, plain = model.mixing_frame(signed=True), model.mixing_frame()
    assert (signed.abs() <= plain + 1e-12).all(axis=None)
    np.testing.assert_array_equal(plain.to_numpy(), model.mixing_)
    top = model.top_features(2)
    assert top.groupby("latent").size().tolist() == [2, 2]
    for row in top.itertuples():
        assert plain[row.latent].rank(ascending=False)[row.feature] == row.rank
        assert (plain.loc[row.feature, row.latent], signed.loc[row.feature, row.latent]) == (row.mixing, row.loading)
    assert len(model.top_features(1000)) == 2 * 6
    with pytest.raises(SettingError, match="n must be a whole number"):
        model.top_features(0)
    explained = model.explained_variance_frame()
    assert [*explained.columns] == ["domain", "latent", "within", "shift"]
    counts = np.bincount(model.description_.groups)
    weighed = explained.set_index(["domain", "latent"]).sum(axis=1).unstack() * (counts / counts.sum())[:, None]
    variance = (model.description_.latents**2).mean(axis=0)
    np.testing.assert_allclose(weighed.sum(), variance * model.explained_variance_ratio_)


@pytest.mark.slow
def test_the_command_line_writes_the_store(tmp_path):
    cells().write_h5ad(tmp_path / "x.h5ad")
    words = ["fit", tmp_path / "x.h5ad", "--domain", "batch", "--layer", "counts", "--latents", 2, "--restarts", 1]
    words += ["--epochs", 1, "--drop", "gene5", "--out", tmp_path / "run", "--write", tmp_path / "out.h5ad"]
    words = [str(word) for word in [*words, "--verbose", 0]]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    again = anndata.read_h5ad(tmp_path / "out.h5ad")
    model = unmix.load(tmp_path / "run")
    assert model.schema_.names == tuple(GENES[:5])
    np.testing.assert_allclose(again.obsm["X_unmix"], model.transform(again), rtol=1e-6)
    latents = pd.read_csv(tmp_path / "run" / "latents.csv")
    assert latents["obs_names"].tolist() == again.obs_names.tolist()
    np.testing.assert_allclose(latents[["z0", "z1"]], again.obsm["X_unmix"], atol=1e-6)
    run = CliRunner().invoke(
        app, ["transform", *map(str, (tmp_path / "run", tmp_path / "x.h5ad", "--out", tmp_path / "z.csv"))]
    )
    assert run.exit_code == 0, run.output
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "z.csv"), latents)
    with pytest.raises(StorageError, match=r"out.h5ad exists"):
        CliRunner().invoke(app, [*words, "--out", str(tmp_path / "other")], catch_exceptions=False)
    cells().to_df().assign(batch="a").to_csv(tmp_path / "t.csv")
    with pytest.raises(SettingError, match=r"--layer is for .h5ad and .zarr; t.csv is neither"):
        CliRunner().invoke(
            app, ["fit", str(tmp_path / "t.csv"), *words[2:-6], "--out", str(tmp_path / "o2")], catch_exceptions=False
        )


@pytest.mark.slow
def test_the_command_line_adapts_and_audits_a_store_whose_rows_have_names(adata, model, tmp_path):
    model.save(tmp_path / "run")
    own = adata.copy()
    own.write_h5ad(tmp_path / "x.h5ad")
    with pytest.warns(DataWarning, match=r"The fit was trained on \d+ or more of these 90 rows") as said:
        told = CliRunner().invoke(app, ["audit", str(tmp_path / "run"), str(tmp_path / "x.h5ad")])
    assert not any("indices" in str(own.message) for own in said)
    assert told.exit_code == 0, repr(told.exception)
    own.obs["batch"] = "new"
    own.write_h5ad(tmp_path / "new.h5ad")
    words = ["adapt", str(tmp_path / "run"), str(tmp_path / "new.h5ad"), "--out", str(tmp_path / "wider")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, repr(done.exception)
    assert unmix.load(tmp_path / "wider").domains_ == (*model.domains_, "new")


@pytest.fixture
def with_layer():
    data = unmix.datasets.make_sparse_mixing(n_latents=2, n_features=5, n_domains=3, n_samples=150, random_state=1)
    adata = anndata.AnnData(
        np.zeros((150, 5), np.float32) + np.arange(150)[:, None] % 7,
        obs=pd.DataFrame({"batch": [f"b{k}" for k in data.domains]}, index=[f"c{k}" for k in range(150)]),
        var=pd.DataFrame(index=[f"g{k}" for k in range(5)]),
        layers={"logs": data.x},
    )
    return adata, data.x, adata.obs["batch"].to_numpy()


@pytest.mark.parametrize(
    "model",
    [
        unmix.CGVAE(**SHORT),
        unmix.baselines.IVAE(**SHORT),
        unmix.baselines.BetaVAE(**SHORT),
        unmix.CGGAN(n_latents=2, hidden=(5,), max_steps=2, encoder_steps=1, verbose=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_every_estimator_reads_a_layer(model, with_layer):
    adata, x, batch = with_layer
    words = {"y": "batch"} if isinstance(model, unmix.baselines.IVAE) else {}
    found = clone(model).fit(adata, "batch", layer="logs").transform(adata, **words)
    words = {"y": batch} if words else {}
    np.testing.assert_allclose(found, clone(model).fit(x, batch).transform(x, **words), atol=1e-5)


@pytest.mark.slow
def test_heads_and_select_read_a_layer(with_layer, tmp_path):
    adata, x, batch = with_layer
    label = x[:, 0]
    head = unmix.DomainRegressor(unmix.CGVAE(**SHORT), representation="latents").fit(
        adata, label, domains=batch, layer="logs"
    )
    plain = unmix.DomainRegressor(unmix.CGVAE(**SHORT), representation="latents").fit(x, label, domains=batch)
    np.testing.assert_allclose(head.predict(adata), plain.predict(x), atol=1e-4)
    words = {"n_latents": [1, 2], "estimator": unmix.CGVAE(**{**SHORT, "hidden": (64, 64)})}
    found = unmix.select(adata, "batch", layer="logs", **words).to_frame()
    np.testing.assert_allclose(found["bound"], unmix.select(x, batch, **words).to_frame()["bound"], atol=1e-3)
    adata.write_h5ad(tmp_path / "a.h5ad")
    command = ["select", str(tmp_path / "a.h5ad"), "--domain", "batch", "--layer", "logs", "--latents", "1,2"]
    done = CliRunner().invoke(
        app, [*command, "--epochs", "1", "--restarts", "1", "--out", str(tmp_path / "out")], catch_exceptions=False
    )
    assert done.exit_code == 0
    np.testing.assert_allclose(pd.read_csv(tmp_path / "out" / "selection.csv")["bound"], found["bound"], atol=1e-3)
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(SettingError, match=r"--layer is for \.h5ad and \.zarr; a\.csv is neither"):
        CliRunner().invoke(app, ["select", str(tmp_path / "a.csv"), "--layer", "logs"], catch_exceptions=False)
