"""The audit as its users meet it: fitted models, decoders of their own, tables, JSON, the command line."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from audit_stubs import DENSE, SPARSE, audit_of, problem, verdicts
from typer.testing import CliRunner

import unmix
from unmix.audit.sources import audit_decoder
from unmix.cli import app
from unmix.errors import DataError, DomainError, SchemaError, SettingError

# The tests are about rows that the short fits of the fixtures were trained on.
TRAINED = pytest.mark.filterwarnings("ignore:The fit was trained on:unmix.DataWarning")


def command(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_decoder_of_ones_own_and_what_it_refuses():
    data = unmix.datasets.make_sparse_mixing(n_latents=3, n_features=9, n_domains=4, n_samples=1200, density=0.3)
    audit = audit_decoder(data.mixing, data.z, data.domains, other_latents=[-data.z[:, ::-1]])
    exact = audit_decoder(data.mixing, data.z, data.domains, jacobian=data.jacobian)
    np.testing.assert_array_equal(audit.edge_probability, exact.edge_probability)
    assert ((audit.edge_probability > 0) <= data.support).all()
    assert audit.finding("agreement").verdict == "holds"
    z = data.z
    for words, message in [
        ({"z": z[:, 0]}, r"z must be a matrix of shape \(n_samples ≥ 1, n_latents ≥ 1\); got shape \(1200,\)"),
        ({"z": z * np.nan}, "z must be finite"),
        ({"domains": [1, 2]}, r"one label for each of 1200 rows of z; got shape \(2,\)"),
        ({"domains": [None, *["a"] * 1199]}, r"domains has missing values \(NaN\), first in rows \[0\]"),
        ({"domains": ["a", float("nan")] * 600}, r"domains has missing values \(NaN\), first in rows \[1, 3"),
        ({"x": z}, r"x must be a matrix of shape \(1200, 9\), the shape of decode\(z\); got shape \(1200, 3\)"),
        ({"jacobian": z}, "jacobian must be finite and of shape"),
        ({"other_latents": [z[:5]]}, r"other_latents must be a matrix of shape \(1200, 3\), the shape of z"),
        ({"decode": lambda values: values[:, 0]}, "decode must give finite features"),
        ({"latent_names": ["a"]}, "latent_names must be 3 different names"),
        ({"feature_names": ["a"] * 9}, "feature_names must be 9 different names"),
    ]:
        with pytest.raises(DataError, match=message):
            audit_decoder(**{"decode": data.mixing, "z": z, "domains": data.domains, **words})


def test_as_tables_json_and_text():
    audit = audit_of(*problem(DENSE, 5))
    assert list(audit.to_frame().columns) == ["condition", "verdict", "could_fail", "sentence"]
    assert len(audit.to_frame()) == len(audit.findings) == 8
    content = json.loads(audit.to_json())
    assert content["latents"][0]["block"] == ["z0", "z1", "z2"]
    planned = unmix.plan(DENSE, 5, simulations=0).to_dict()
    same = "domains_needed", "domains_needed_without_sparsity"
    assert {key: content[key] for key in same} == {key: planned[key] for key in same}
    words = "name", "verdict", "block", "domains_needed"
    assert [[row[key] for key in words] for row in content["latents"]] == [
        [row[key] for key in words] for row in planned["latents"]
    ]
    added = {"domains_present", "effects", "findings", "notes", "pairs", "remedies"}
    assert set(content) - set(planned) == added
    assert set(content["latents"][0]) == {
        *("name", "verdict", "block", "domains_needed", "code", "reason", "remedy"),
        *("explained_variance", "change", "effect"),
    }
    assert {finding["verdict"] for finding in content["findings"]} <= {"holds", "fails", "cannot tell"}
    assert "z0: block {z0, z1, z2}" in str(audit)
    assert "Of 3 latents: 0 identified, 3 identified only within a block" in audit.summary()
    collapsed = audit_of(*problem(SPARSE, 3), width=[0.05, 9.7, 0.05])
    assert json.loads(collapsed.to_json())["latents"][1]["domains_needed"] is None


@pytest.mark.slow
@TRAINED
def test_a_fitted_model_audits_itself_again_and_what_it_refuses(fitted, frame, labels, tmp_path):
    audit = fitted.audit()
    assert list(audit.latents["name"]) == ["z0", "z1"]
    folder = fitted.save(tmp_path / "m")
    assert unmix.load(folder).audit().to_dict() == audit.to_dict()
    shown = command("audit", folder, "--json")
    assert json.loads(shown.stdout) == json.loads(audit.to_json())
    frame.assign(domain=labels).to_csv(tmp_path / "t.csv", index=False)
    new = json.loads(command("audit", folder, tmp_path / "t.csv", "--json").stdout)
    assert {latent["name"] for latent in new["latents"]} == {"z0", "z1"}
    assert "C3 changes:" in command("audit", folder, tmp_path / "t.csv").stdout
    frame.to_csv(tmp_path / "u.csv", index=False)
    with pytest.raises(SchemaError, match=r"lacks the domain columns \['domain'\]"):
        raise command("audit", folder, tmp_path / "u.csv").exception
    frame.drop(columns="x1").assign(domain=labels).to_csv(tmp_path / "v.csv", index=False)
    with pytest.raises(SchemaError, match=r"lacks 1 feature column.*'x1'"):
        raise command("audit", folder, tmp_path / "v.csv").exception
    with pytest.raises(SchemaError, match="select them from the table first"):
        fitted.audit(frame.drop(columns="x4"), labels)
    with pytest.raises(DomainError, match="pass them as y"):
        fitted.audit(frame)
    with pytest.raises(DomainError, match=r"Labels \['z'\] of 'domain' were not seen"):
        fitted.audit(frame, np.where(labels == "a", "z", labels))
    kept = labels != "c"
    assert fitted.audit(frame[kept], labels[kept]).finding("C1").evidence["absent_domains"] == ["c"]
    few = fitted.audit(frame.iloc[:9], labels[:9])
    assert {finding.verdict for finding in few.findings} == {"cannot tell"}


@pytest.mark.slow
def test_an_exact_zero_of_a_group_penalty_is_in_no_draw():
    data = unmix.datasets.make_sparse_mixing(n_latents=2, n_features=6, n_domains=2, n_samples=600, density=0.5)
    quick = {"decoder": "feature", "n_restarts": 1, "max_epochs": 20, "verbose": 0, "hidden": (8,)}
    model = unmix.CGVAE(2, **quick).fit(data.x, data.domains)
    z = model.transform(data.x)
    before = audit_decoder(model.inverse_transform, z, data.domains).edge_probability
    inner = model.model_.inner.decoder
    feature, latent = np.unravel_index(model.mixing_.argmax(), model.mixing_.shape)
    entry = torch.zeros(1, 2, 6, dtype=torch.bool)
    entry[0, model.model_.order[latent], feature] = True
    inner.drop(entry)
    after = audit_decoder(model.inverse_transform, z, data.domains).edge_probability
    changed = np.argwhere(before != after)
    assert set(changed[:, 0]) == {feature}
    assert before[feature, latent] > 0.9
    assert after[feature, latent] == 0.0


@pytest.mark.slow
@TRAINED
@pytest.mark.filterwarnings(
    "ignore:On the audited rows 1 feature:unmix.DataWarning", "ignore:5 features:unmix.DataWarning"
)
def test_rows_that_the_model_does_not_describe(fitted, frame, labels):
    data = unmix.datasets.make_sparse_mixing(n_latents=3, n_features=9, n_domains=4, n_samples=1200, density=0.3)
    noise = np.random.default_rng(0).standard_normal(data.x.shape)
    clean = data.mixing(data.z)
    good = audit_decoder(data.mixing, data.z, data.domains, x=clean + 0.5 * clean.std(axis=0) * noise)
    assert good.finding("invertibility").evidence["encode_decode_r2"] == pytest.approx(0.8, abs=0.02)
    assert "reproduces 0." in good.finding("invertibility").sentence
    bad = audit_decoder(data.mixing, data.z, data.domains, x=np.random.default_rng(1).permutation(clean))
    assert bad.finding("invertibility").verdict == "fails"
    assert bad.finding("invertibility").sentence.endswith("The model does not describe them.")
    assert verdicts(bad) == ["unsupported"] * 3
    assert "It cannot be recovered from these rows" in bad.latents["reason"][0]
    own = fitted.audit(frame, labels).finding("invertibility").evidence["encode_decode_r2"]
    decoded = fitted.inverse_transform(fitted.transform(frame))
    features = frame.to_numpy()
    assert own == pytest.approx(np.mean(1 - ((features - decoded) ** 2).mean(0) / features.var(0)), abs=1e-3)
    still = fitted.audit(frame.assign(x1=frame["x1"].mean()), labels).finding("invertibility").evidence
    assert still["features_that_do_not_vary"] == 1
    assert -0.2 < still["encode_decode_r2"] < 1
    elsewhere = fitted.audit(frame + 20.0 * frame.std(), labels)
    assert elsewhere.finding("invertibility").verdict == "fails"
    assert verdicts(elsewhere) == ["unsupported"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("wobble", [0.0, 1e-9, 1e-3])
@pytest.mark.parametrize("n_still", [1, 8])
def test_features_that_do_not_vary_do_not_speak_for_the_others(wobble, n_still):
    """R² has no lower limit where a feature hardly varies: what is kept is that of the features that do."""
    data = unmix.datasets.make_sparse_mixing(n_latents=3, n_features=9, n_domains=4, n_samples=1200, density=0.3)
    clean, rng = data.mixing(data.z), np.random.default_rng(0)
    x = clean + 0.5 * clean.std(axis=0) * rng.standard_normal(clean.shape)
    x[:, :n_still] = 3.0 + wobble * rng.standard_normal((1200, n_still))
    audit = audit_decoder(data.mixing, data.z, data.domains, x=x)
    found = audit.finding("invertibility")
    assert found.evidence["encode_decode_r2"] == pytest.approx(0.8, abs=0.05)
    assert found.evidence["features_that_do_not_vary"] == (0 if wobble else n_still)
    assert ("not vary here" in found.sentence) == (wobble == 0.0)
    assert found.verdict == "holds"


def test_a_far_row_does_not_speak_for_all():
    data = unmix.datasets.make_sparse_mixing(n_latents=3, n_features=9, n_domains=4, n_samples=1200, density=0.3)
    clean = data.mixing(data.z)
    x = clean.copy()
    x[7, 4] = -99999.0
    found = audit_decoder(data.mixing, data.z, data.domains, x=x).finding("invertibility")
    assert found.verdict == "holds"
    assert found.evidence["encode_decode_r2"] == pytest.approx(8 / 9, abs=0.02)


@TRAINED
@pytest.mark.filterwarnings("ignore:No feature varies:unmix.DataWarning")
def test_where_nothing_varies_nothing_is_said_of_it(fitted, frame, labels):
    same = frame.iloc[[0] * 60].reset_index(drop=True)
    audit = fitted.audit(same, labels[:60])
    assert np.isnan(audit.finding("invertibility").evidence["encode_decode_r2"])
    assert audit.latents["reason"].str.contains("is constant on these rows").all()
    json.loads(audit.to_json())


QUICK_BASELINES = [
    unmix.baselines.IVAE,
    unmix.baselines.IMSDA,
    unmix.baselines.BetaVAE,
    unmix.baselines.BetaTCVAE,
    unmix.baselines.HFVAE,
    unmix.baselines.FactorVAE,
    unmix.baselines.SparseVAE,
]


@pytest.mark.slow
@TRAINED
@pytest.mark.parametrize("estimator", QUICK_BASELINES)
def test_baselines_can_be_audited(estimator, frame, labels):
    quick = {"n_restarts": 1, "max_epochs": 1, "verbose": 0, "hidden": (8,)}
    groups = {"group_sizes": (1, 1)} if estimator is unmix.baselines.HFVAE else {}
    model = estimator(2, **quick, **groups).fit(frame.iloc[:200], labels[:200])
    audit = model.audit(frame, labels)
    assert set(verdicts(audit)) <= {"identified", "block", "unsupported", "not tested"}
    assert audit.domains_present == 3
    told = audit.finding("C3").evidence.get("encoder_knows_domains", False)
    assert told == (estimator is unmix.baselines.IVAE)
    shuffled = model.audit(frame, np.random.default_rng(0).permutation(labels))
    assert shuffled.finding("C3").verdict != "holds"


@pytest.mark.slow
def test_an_adversarial_model_is_audited_on_rows_that_are_given(frame, labels, tmp_path):
    quick = {"hidden": (8, 8), "max_steps": 2, "encoder_steps": 2, "verbose": 0}
    y = pd.DataFrame({"domain": labels})
    model = unmix.CGGAN(2, **quick).fit(frame, y)
    found = model.audit(frame, y)
    assert list(found.latents["name"]) == ["z0", "z1"]
    assert found.finding("agreement").verdict == "cannot tell"
    assert found.domains_present == 3
    part = model.audit(frame[labels != "c"], y[labels != "c"])
    assert part.domains_present == 2
    run = model.save(tmp_path / "gan")
    frame.assign(domain=labels).to_csv(tmp_path / "t.csv", index=False)
    done = command("audit", run, tmp_path / "t.csv", "--json")
    assert done.exit_code == 0, repr(done.exception)
    shown = json.loads(done.stdout)
    assert [own["verdict"] for own in shown["findings"]] == [own.verdict for own in found.findings]
    with pytest.raises(SettingError, match=r"holds a CGGAN, which keeps no rows\. Pass a file of rows"):
        raise command("audit", run).exception
    with pytest.raises(DomainError, match=r"Labels \['z'\] of 'domain' were not seen at fit"):
        model.audit(frame, np.repeat("z", len(frame)))
    plain = unmix.CGGAN(2, flow=False, **quick).fit(frame, labels)
    with pytest.raises(DataError, match="this one was fitted on rows with flow=False"):
        plain.audit(frame, labels)


def test_the_jacobian_of_an_adversarial_model_is_that_of_its_decoder(frame, labels):
    quick = {"hidden": (8, 8), "max_steps": 2, "encoder_steps": 2, "verbose": 0}
    model = unmix.CGGAN(2, **quick).fit(frame, labels).model_.double()
    z, design = torch.randn(5, 2, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0, 1]]
    found = model.jacobian(z, design)
    expected = [
        torch.autograd.functional.jacobian(lambda one, u=u: model.decode(one[None], u[None])[0], own)
        for own, u in zip(z, design, strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.slow
def test_a_model_of_images_is_audited_on_its_held_out_rows_and_given_no_table(tmp_path):
    data = unmix.datasets.make_sprites(n_samples=60, size=16, n_domains=2)
    model = unmix.CGVAEImages(n_latents=2, n_codes=3, widths=(4, 4), hidden=(4,), max_epochs=1, verbose=0).fit(
        data.images, data.domains
    )
    folder = model.save(tmp_path / "run")
    found = json.loads(command("audit", folder, "--json").stdout)
    assert [finding["verdict"] for finding in found["findings"]] == ["cannot tell"] * 8
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SchemaError, match="was fitted on images, not on a table"):
        raise command("audit", folder, tmp_path / "t.csv").exception


@pytest.fixture(scope="module")
def linear():
    data = unmix.datasets.make_sparse_mixing(
        n_latents=3, n_features=9, n_domains=6, n_samples=1200, density=0.3, nonlinearity=0.0, random_state=2
    )
    module = torch.nn.Linear(3, 9, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(data.jacobian[0]))
    return data, module


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_torch_module_is_audited_with_its_exact_derivatives(linear, dtype):
    data, module = linear
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = audit_decoder(torch.nn.Sequential(module, torch.nn.Dropout()).to(dtype), data.z, data.domains)
    expected = audit_decoder(lambda z: z @ data.jacobian[0].T, data.z, data.domains, jacobian=data.jacobian)
    pd.testing.assert_frame_equal(found.latents, expected.latents, atol=1e-4)
    np.testing.assert_allclose(found.edge_probability, expected.edge_probability, atol=1e-4)


@pytest.mark.slow
def test_a_module_stays_in_its_mode_and_one_without_forward_differentiation_is_audited(linear):
    data, module = linear

    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module.double()

        def forward(self, z):
            assert not self.training
            return Rounded.apply(self.inner(z))

    own = Own().train()
    own.inner.eval()
    audit = audit_decoder(own, data.z, data.domains)
    assert (own.training, own.inner.training) == (True, False)
    assert audit.latents["verdict"].tolist() == audit_decoder(module, data.z, data.domains).latents["verdict"].tolist()


@pytest.mark.slow
def test_a_function_may_return_a_tensor_and_one_that_fails_is_named(linear):
    data, module = linear
    module = module.float()
    audit = audit_decoder(lambda z: module(torch.from_numpy(z).float()), data.z, data.domains)
    assert len(audit.latents) == 3
    with pytest.raises(
        DataError, match=r"decode failed on latents, a numpy array of shape \(1200, 3\): TypeError.*Pass a"
    ):
        audit_decoder(lambda z: module(z), data.z, data.domains)


@pytest.mark.slow
def test_domains_of_a_decoder_may_be_a_table(linear):
    data, module = linear
    plain = audit_decoder(module, data.z, data.domains)
    labels = np.array([f"s{k}" for k in data.domains])
    one = audit_decoder(module, data.z, pd.DataFrame({"site": labels}))
    assert one.latents["verdict"].tolist() == plain.latents["verdict"].tolist()
    table = pd.DataFrame({"site": [f"s{k % 2}" for k in data.domains], "batch": [f"b{k // 2}" for k in data.domains]})
    two = audit_decoder(module, data.z, table)
    assert two.finding("C3").evidence["domains_compared"] == 6
    assert two.latents["verdict"].tolist() == plain.latents["verdict"].tolist()
    age = np.random.default_rng(0).normal(size=1200)
    found = audit_decoder(module, data.z, pd.DataFrame({"age": age}), auxiliary={"age": "continuous"})
    assert found.finding("C3").evidence["domains_compared"] == 6
    with pytest.raises(DomainError, match="age"):
        audit_decoder(module, data.z, pd.DataFrame({"age": age}))
    with pytest.raises(DomainError, match=r"z has 1200 rows|1200 rows"):
        audit_decoder(module, data.z, table[:5])
