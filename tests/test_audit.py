"""The audit on models whose truth is known: stubs with a given decoder and prior, so that nothing is trained."""

import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import unmix
from unmix import DataError, DomainError, SchemaError, SettingError
from unmix.audit.sources import audit_decoder
from unmix.audit.subject import Strata, stratify, subject_of_model
from unmix.audit.verdicts import audit_subject
from unmix.cli import app
from unmix.data.batches import Rows
from unmix.data.domains import Encoded
from unmix.nets.prior import LocationScale
from unmix.theory import domains_needed, free_sets, undetermined

PRIME = 2_147_483_647
SPARSE = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]])
DENSE = np.ones((9, 3), dtype=int)


class Linear:
    """x = A z, with Gaussian latents of known location and scale in every domain."""

    masked = False

    def __init__(self, mixing, location, scale):
        self.mixing = torch.as_tensor(mixing, dtype=torch.float32)
        self.inverse = torch.linalg.pinv(self.mixing)
        self.location = torch.as_tensor(location, dtype=torch.float32)
        self.log_scale = torch.as_tensor(scale, dtype=torch.float32).log()
        self.n_latents = self.mixing.shape[1]
        self.scale = torch.ones(self.n_latents)

    def encode(self, x, observed=None, design=None):
        mean = x @ self.inverse.T
        return mean, torch.full_like(mean, 0.05)

    def decode(self, z):
        return z @ self.mixing.T

    def jacobian(self, z):
        return self.mixing.expand(len(z), -1, -1)

    def prior(self, design):
        return LocationScale(design @ self.location, design @ self.log_scale)


class Folded(Linear):
    """The first latent folds: z and -z give the same features."""

    def decode(self, z):
        return super().decode(torch.cat([z[:, :1].abs(), z[:, 1:]], 1))

    def jacobian(self, z):
        signs = torch.cat([z[:, :1].sign(), torch.ones_like(z[:, 1:])], 1)
        return super().jacobian(z) * signs[:, None]


def problem(support, n_domains, change="both", kind=Linear, per_domain=300, seed=0):
    """A stub, latents and labels."""
    rng = np.random.default_rng(seed)
    n = support.shape[1]
    location = rng.uniform(-1.2, 1.2, (n_domains, n)) if change in ("both", "mean") else np.zeros((n_domains, n))
    scale = np.exp(rng.uniform(-1.0, 0.6, (n_domains, n))) if change in ("both", "scale") else np.ones((n_domains, n))
    labels = np.repeat(np.arange(n_domains), per_domain)
    z = location[labels] + scale[labels] * rng.standard_normal((len(labels), n))
    mixing = support * rng.uniform(0.5, 1.0, support.shape) * rng.choice([-1, 1], support.shape)
    return kind(mixing, location, scale), z, labels


def audit_of(stub, z, labels, *, names=None, width=None, agreement=(0.99, 0.99), starts=None):
    n_domains = len(stub.location)
    present = np.unique(labels)
    names = names or [f"u{k}" for k in range(n_domains)]
    strata = Strata(np.searchsorted(present, labels), present, np.eye(n_domains)[present])
    own = np.abs(stub.mixing.numpy().astype(float))
    subject = subject_of_model(
        stub,
        z,
        np.full(stub.n_latents, 0.05) if width is None else np.asarray(width),
        strata,
        domains=names,
        names=[f"z{i}" for i in range(stub.n_latents)],
        feature_names=[f"x{k}" for k in range(len(own))],
        starts=own[None] if starts is None else np.stack([own, *starts]),
        agreement=np.array([np.broadcast_to(value, stub.n_latents) for value in agreement]).reshape(-1, stub.n_latents),
    )
    return audit_subject(subject)


def verdicts(audit):
    return audit.latents["verdict"].tolist()


def rank_modulo(rows):
    """Rank over the integers modulo a prime, by elimination: exact, and shares nothing with floating point."""
    rows, rank = [list(row) for row in rows], 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = next((r for r in range(rank, len(rows)) if rows[r][column] % PRIME), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        inverse = pow(rows[rank][column], PRIME - 2, PRIME)
        for r in range(rank + 1, len(rows)):
            factor = rows[r][column] * inverse % PRIME
            rows[r] = [(x - factor * y) % PRIME for x, y in zip(rows[r], rows[rank], strict=True)]
        rank += 1
    return rank


def brute_force(support, seed):
    """Free sets by deleting every column in turn, and the count of every pair."""
    rng = np.random.default_rng(seed)
    values = [[int(rng.integers(1, PRIME)) if entry else 0 for entry in row] for row in support]
    n = len(support[0])
    sets = []
    for a in range(n):
        rows = [row for row, entries in zip(values, support, strict=True) if not entries[a]]
        whole = rank_modulo(rows)
        sets.append({i for i in range(n) if rank_modulo([row[:i] + row[i + 1 :] for row in rows]) == whole})
    pairs = {(a, b): 1 + 2 * len(sets[a] & sets[b]) for a, b in combinations(range(n), 2)}
    return sets, pairs


def test_free_sets_and_counts_equal_brute_force():
    rng = np.random.default_rng(7)
    for seed in range(60):
        n = int(rng.integers(1, 7))
        support = (rng.random((int(rng.integers(1, 3 * n + 1)), n)) < rng.uniform(0.2, 0.9)).astype(int)
        sets, pairs = brute_force(support.tolist(), seed)
        count = domains_needed(support)
        assert [set(free) for free in count.free_sets] == sets
        assert all(count.pairs[pair] == needed for pair, needed in pairs.items())
        assert count.needed == max(pairs.values(), default=1)


def test_free_sets_of_given_values():
    support = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 1, 1], [1, 0, 1], [1, 0, 1]])
    assert free_sets(support) == [frozenset({i}) for i in range(3)]
    special = support.astype(float)
    special[2:4, 1:] = [[1.0, 2.0], [2.0, 4.0]]
    assert free_sets(support, jacobian=special)[0] == {0, 1, 2}
    special[3, 2] = 4.001
    assert free_sets(support, jacobian=special)[0] == {0, 1, 2}
    assert free_sets(support, jacobian=special, tolerance=1e-6)[0] == {0}
    with pytest.raises(SettingError, match=r"support's shape \(6, 3\), for one point; got \(2, 6, 3\)"):
        free_sets(support, jacobian=np.ones((2, 6, 3)))
    assert undetermined(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])) == set()
    assert undetermined(np.array([[1, 1, 0], [0, 0, 1], [0, 0, 1]])) == {0, 1}


def test_a_large_count_takes_one_decomposition_a_latent(monkeypatch):
    support = np.random.default_rng(0).random((1000, 50)) < 0.3
    sizes, whole = [], np.linalg.svd

    def counting(matrix, *words, **more):
        sizes.append(matrix.shape)
        return whole(matrix, *words, **more)

    monkeypatch.setattr(np.linalg, "svd", counting)
    assert domains_needed(support).needed == 1
    assert len(sizes) == 50
    assert max(max(size) for size in sizes) <= 50


def test_structure_identifies_without_changes():
    audit = audit_of(*problem(SPARSE, 1))
    assert verdicts(audit) == ["identified"] * 3
    assert set(audit.pairs["route"]) == {"structure"}
    assert audit.finding("C4").verdict == "holds"
    assert audit.finding("C3").verdict == "fails"
    assert not audit.finding("C3").could_fail
    assert (audit.domains_needed, audit.domains_needed_without_sparsity, audit.domains_present) == (1, 7, 1)
    assert audit.latents["domains_needed"].tolist() == [1, 1, 1]


def test_changes_identify_a_dense_mixing_and_sparsity_is_denied():
    audit = audit_of(*problem(DENSE, 8))
    assert verdicts(audit) == ["identified"] * 3
    assert set(audit.pairs["route"]) == {"changes"}
    assert audit.finding("C4").verdict == "fails"
    assert audit.finding("C3").verdict == "holds"
    assert "z0, z1 and z2" in audit.finding("C3").sentence
    assert audit.domains_needed == 7


def test_too_few_domains_leave_a_block_and_the_remedy_counts():
    audit = audit_of(*problem(DENSE, 5))
    assert verdicts(audit) == ["block"] * 3
    assert audit.latents["block"][0] == ["z0", "z1", "z2"]
    assert audit.finding("C3").verdict == "fails"
    assert "would take 7 domains" in audit.latents["reason"][0]
    assert not audit.separated()[0, 1]


def test_shuffled_labels_are_no_change():
    stub, z, labels = problem(DENSE, 8)
    for seed in range(2):
        audit = audit_of(stub, z, np.random.default_rng(seed).permutation(labels))
        assert audit.finding("C3").verdict == "fails"
        assert audit.finding("C3").could_fail
        assert "shuffled" in audit.finding("C3").sentence
        assert verdicts(audit) == ["unsupported"] * 3
        assert "does not change between domains" in audit.latents["reason"][0]
    sparse, z, labels = problem(SPARSE, 4)
    shuffled = audit_of(sparse, z, np.random.default_rng(0).permutation(labels))
    assert shuffled.finding("C3").verdict == "fails"
    assert "changes" not in set(shuffled.pairs["route"])


def test_scales_take_fewer_domains_and_means_none():
    scales = audit_of(*problem(DENSE, 5, "scale"))
    assert verdicts(scales) == ["identified"] * 3
    assert set(scales.pairs["route"]) == {"scales"}
    means = audit_of(*problem(DENSE, 9, "mean"))
    assert verdicts(means) == ["block"] * 3
    assert means.finding("C3").verdict == "fails"
    assert means.finding("C3").evidence["changing_location"] == ["z0", "z1", "z2"]


def test_a_prior_that_says_nothing_is_not_believed_alone():
    stub, z, labels = problem(DENSE, 8)
    stub.location, stub.log_scale = torch.zeros_like(stub.location), torch.zeros_like(stub.log_scale)
    by_moments = audit_of(stub, z, labels)
    assert not by_moments.finding("C3").evidence["prior_knows_domains"]
    assert verdicts(by_moments) == ["identified"] * 3
    stub.location[0] = 1.0
    weak = audit_of(stub, z, labels)
    assert weak.finding("C3").evidence["prior_knows_domains"]
    assert verdicts(weak) == ["block"] * 3


def test_a_duplicated_latent_is_called_so():
    stub, z, labels = problem(SPARSE, 4)
    z = np.column_stack([z, z[:, 1] + 0.02 * np.random.default_rng(1).standard_normal(len(z))])
    copy = Linear(np.column_stack([stub.mixing, stub.mixing[:, 1]]), *_wider(stub))
    audit = audit_of(copy, z, labels)
    assert verdicts(audit) == ["identified", "unsupported", "identified", "unsupported"]
    assert "duplicate of z3" in audit.latents["reason"][1]
    assert "duplicate of z1" in audit.latents["reason"][3]
    assert audit.remedies[0].sentence == "Ask for 3 latents: a model without z3 would lose nothing."
    assert audit.finding("C1").verdict == "fails"
    assert audit.finding("invertibility").verdict == "fails"


def _wider(stub):
    location, scale = stub.location.numpy(), stub.log_scale.exp().numpy()
    return [np.column_stack([part, part[:, 1]]) for part in (location, scale)]


def test_a_collapsed_latent_is_called_so_and_left_out():
    stub, z, labels = problem(np.column_stack([SPARSE, np.zeros(9, dtype=int)]), 3)
    audit = audit_of(stub, z, labels)
    assert verdicts(audit) == ["identified"] * 3 + ["unsupported"]
    assert "drives no feature" in audit.latents["reason"][3]
    assert audit.latents["domains_needed"].isna().tolist() == [False, False, False, True]
    assert audit.remedies[0].sentence == "Ask for 3 latents: a model without z3 would lose nothing."
    wide = audit_of(*problem(SPARSE, 3), width=[0.05, 0.97, 0.05])
    assert "its posterior has 0.97" in wide.latents["reason"][1]
    stub, z, labels = problem(SPARSE, 3)
    z[:, 0] = 0.5
    assert "is constant" in audit_of(stub, z, labels).latents["reason"][0]
    stub, z, labels = problem(SPARSE, 3)
    z[:, 2] = np.sign(z[:, 2])
    assert "is discrete: it takes 2 values" in audit_of(stub, z, labels).latents["reason"][2]


def test_a_fold_does_not_come_back():
    stub, z, labels = problem(SPARSE, 3, kind=Folded)
    audit = audit_of(stub, z, labels)
    assert verdicts(audit) == ["unsupported", "identified", "identified"]
    assert "does not come back" in audit.latents["reason"][0]
    assert audit.finding("invertibility").verdict == "fails"


def test_dependence_within_domains():
    stub, z, labels = problem(SPARSE, 4)
    audit = audit_of(stub, z, labels)
    assert audit.finding("C2").verdict == "holds"
    tied = z.copy()
    tied[:, 1] = 0.8 * z[:, 0] + 0.6 * z[:, 1]
    audit = audit_of(stub, tied, labels)
    assert audit.finding("C2").verdict == "fails"
    assert verdicts(audit) == ["block", "block", "identified"]
    assert "depends on z1 within domains" in audit.latents["reason"][0]
    spread = z.copy()
    spread[:, 2] = np.abs(z[:, 0]) * np.random.default_rng(3).standard_normal(len(z))
    assert audit_of(stub, spread, labels).finding("C2").evidence["dependent_pairs"][0][:2] == ["z0", "z2"]
    few = audit_of(*problem(SPARSE, 1, per_domain=22))
    assert few.finding("C2").verdict == "cannot tell"
    assert "too few to see" in few.finding("C2").sentence


def test_starts_that_disagree_and_a_single_start():
    stub, z, labels = problem(SPARSE, 3)
    audit = audit_of(stub, z, labels, agreement=[(0.6, 0.99, 0.99), (0.7, 0.98, 0.5), (0.99, 0.99, 0.97)])
    assert verdicts(audit) == ["unsupported", "identified", "identified"]
    assert "median correlation 0.70" in audit.latents["reason"][0]
    assert audit.finding("agreement").verdict == "fails"
    single = audit_of(stub, z, labels, agreement=())
    assert single.finding("agreement").verdict == "cannot tell"
    assert "single start" in single.finding("agreement").sentence
    assert "One start only" in single.latents["reason"][0]


def test_an_edge_on_which_starts_disagree_is_uncertain():
    stub, z, labels = problem(SPARSE, 2)
    other = np.abs(stub.mixing.numpy().astype(float))
    other[:, 0] = np.maximum(other[:, 0], 0.5)
    audit = audit_of(stub, z, labels, starts=[other], agreement=(0.96,))
    assert audit.edge_probability[2, 0] == pytest.approx(0.5, abs=0.05)
    assert audit.edge_probability[0, 1] == 0.0
    assert verdicts(audit)[0] == "block"
    assert "hangs on uncertain edges" in audit.latents["reason"][0]


def test_absent_and_small_domains_and_few_rows():
    stub, z, labels = problem(SPARSE, 4)
    kept = labels != 2
    absent = audit_of(stub, z[kept], labels[kept])
    assert absent.finding("C1").verdict == "cannot tell"
    assert "no rows of u2" in absent.finding("C1").sentence
    assert absent.domains_present == 3
    kept = (labels != 2) | (np.arange(len(labels)) % 300 < 7)
    small = audit_of(stub, z[kept], labels[kept])
    assert small.finding("C1").evidence["small_domains"] == ["u2"]
    assert "fewer than 20 rows of u2" in small.finding("C1").sentence
    tiny = audit_of(stub, z[::150], labels[::150])
    assert {finding.verdict for finding in tiny.findings} == {"cannot tell"}
    assert "There are 8 rows" in tiny.finding("C1").sentence
    assert verdicts(tiny) == ["unsupported"] * 3
    assert "only 8 rows" in tiny.latents["reason"][0]
    scattered = audit_of(stub, z[::20], labels[::20])
    assert scattered.finding("C3").verdict == "cannot tell"
    assert "Fewer than two domains have 20 rows" in scattered.finding("C3").sentence
    apart = z + 40.0 * labels[:, None]
    assert "do not overlap" in audit_of(stub, apart, labels).finding("C1").sentence


def test_continuous_domains_become_parts():
    values = np.linspace(-1, 1, 120)[:, None]
    rows = Rows.build(np.zeros((120, 2)), Encoded(np.zeros((120, 0), np.int64), values), (), False)
    strata = stratify(rows, np.zeros(120, dtype=np.int64))
    assert np.bincount(strata.labels).tolist() == [20] * 6
    assert strata.names(["all"])[0] == "all, part 1 of 6"
    assert (np.diff(strata.design[:, 0]) > 0).all()


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
        ({"domains": [1, 2]}, r"one label a row, shape \(1200,\)"),
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
    assert len(audit.to_frame()) == len(audit.findings) == 6
    content = json.loads(audit.to_json())
    assert content["latents"][0]["block"] == ["z0", "z1", "z2"]
    assert set(content["latents"][0]) == {"name", "verdict", "block", "domains_needed", "reason", "remedy"}
    assert {finding["verdict"] for finding in content["findings"]} <= {"holds", "fails", "cannot tell"}
    assert "z0: block {z0, z1, z2}" in str(audit)
    assert "Of 3 latents: 0 identified, 3 identified only within a block" in audit.summary()
    collapsed = audit_of(*problem(SPARSE, 3), width=[0.05, 0.97, 0.05])
    assert json.loads(collapsed.to_json())["latents"][1]["domains_needed"] is None


def test_one_latent_leaves_nothing_to_test():
    audit = audit_of(*problem(np.ones((3, 1), dtype=int), 3))
    assert verdicts(audit) == ["identified"]
    assert "It is the only latent" in audit.latents["reason"][0]
    assert [audit.finding(name).verdict for name in ("C2", "C4")] == ["cannot tell"] * 2
    assert "There is one latent" in audit.finding("C4").sentence


def test_remedies_are_true():
    """Every remedy, carried out, does what it says."""
    support = np.array([[1, 1, 0, 0]] * 3 + [[0, 1, 1, 0]] * 2 + [[1, 1, 1, 1]] * 2 + [[0, 0, 1, 1]])
    design = unmix.plan(support, n_domains=2)
    before = set(design.latents["name"][design.latents["verdict"] == "identified"])
    kinds = set()
    for remedy in design.remedies:
        first = remedy.change.split()
        if remedy.change.startswith("One more feature"):
            i = int(first[4][1:])
            after, names = unmix.plan(np.vstack([support, np.arange(4) == i]), 2), ["z0", "z1", "z2", "z3"]
            kinds.add("feature")
        elif remedy.change.startswith("A model without"):
            i = int(first[3].strip(",")[1:])
            names = [f"z{j}" for j in range(4) if j != i]
            after = unmix.plan(np.delete(support, i, axis=1), 2, names)
            kinds.add("fewer")
        else:
            after, names = unmix.plan(support, 2 + int(first[0])), ["z0", "z1", "z2", "z3"]
            kinds.add("domains")
        verdict = dict(zip(names, after.latents["verdict"], strict=True))
        assert remedy.mends
        assert all(verdict[name] == "identified" and name not in before for name in remedy.mends)
    assert "domains" in kinds
    assert len(kinds) >= 2


def test_plan_counts_and_refuses():
    dense = unmix.plan(np.ones((8, 4)), 4)
    assert dense.to_dict()["domains_needed"] == 9
    assert dense.latents["verdict"].tolist() == ["block"] * 4
    assert unmix.plan(np.ones((8, 4)), 9).latents["verdict"].tolist() == ["identified"] * 4
    assert unmix.plan(np.eye(4), 1).latents["domains_needed"].tolist() == [1] * 4
    empty = unmix.plan([[1, 0], [1, 0]], 1)
    assert empty.latents["verdict"].tolist() == ["identified", "unsupported"]
    assert "No feature depends on it" in empty.latents["reason"][1]
    lost = unmix.plan([[1, 1, 0], [0, 0, 1]], 9)
    assert lost.latents["verdict"].tolist() == ["unsupported", "unsupported", "identified"]
    named = unmix.plan(pd.DataFrame({"a": [1, 0], "b": [0, 1]}), 1)
    assert named.latents["name"].tolist() == ["a", "b"]
    with pytest.raises(SettingError, match="0 and 1 only"):
        unmix.plan([[0.5, 1.0]], 2)
    with pytest.raises(SettingError, match=r"n_domains must be a whole number ≥ 1; got 0"):
        unmix.plan(np.eye(2), 0)
    with pytest.raises(SettingError, match="names must be 2 different names"):
        unmix.plan(np.eye(2), 2, ["a", "a"])


def command(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_plan_on_the_command_line(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("feature,calcium,stress,growth\na,1,1,0\nb,1,1,0\nc,0,0,1\n")
    content = json.loads(command("plan", path, "--domains", 2, "--json").stdout)
    assert set(content) == {"domains_needed", "domains_needed_without_sparsity", "latents"}
    assert content["latents"][0] == {
        "name": "calcium",
        "verdict": "block",
        "block": ["calcium", "stress"],
        "domains_needed": 5,
    }
    assert content["latents"][2]["block"] is None
    assert "calcium: block {calcium, stress}" in command("plan", path, "--domains", 2).stdout
    drawn = command("plan", "--density", 0.3, "--latents", 3, "--features", 9, "--domains", 3, "--json")
    assert [latent["name"] for latent in json.loads(drawn.stdout)["latents"]] == ["z0", "z1", "z2"]
    assert "100 random supports of density 0.3" in command("plan", "--density", 0.3, "--domains", 3).stdout
    for words, error, message in [
        ((path, "--density", 0.3), SettingError, "either the file of a support or --density"),
        ((), SettingError, "either the file of a support or --density"),
        (("--density", 1.5), SettingError, "needs 0 < density ≤ 1"),
        (("--density", 0.5, "--latents", 9), SettingError, "n_features ≥ n_latents"),
        ((tmp_path / "none.csv",), DataError, "no file at"),
    ]:
        result = command("plan", *words)
        assert isinstance(result.exception, error)
        assert message in str(result.exception)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="must hold 0 and 1, one row for each feature"):
        raise command("plan", path).exception


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
    with pytest.raises(SchemaError, match=r"lacks the feature columns \['x1'\]"):
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


@pytest.mark.parametrize("estimator", [unmix.IVAE, unmix.IMSDA, unmix.BetaVAE, unmix.SparseVAE])
def test_baselines_can_be_audited(estimator, frame, labels):
    quick = {"n_restarts": 1, "max_epochs": 1, "verbose": 0, "hidden": (8,)}
    model = estimator(2, **quick).fit(frame.iloc[:200], labels[:200])
    audit = model.audit(frame, labels)
    assert set(verdicts(audit)) <= {"identified", "block", "unsupported"}
    assert audit.domains_present == 3
