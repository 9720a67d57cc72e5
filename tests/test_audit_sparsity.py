"""C4 of the audit: edges with their uncertainty, free sets, and zeros that say nothing."""

import numpy as np
import pytest
import torch
from audit_stubs import SPARSE, audit_of, problem, verdicts

import unmix
from unmix.audit.sparsity import small_by_chance


def test_an_edge_on_which_starts_disagree_is_uncertain():
    stub, z, labels = problem(SPARSE, 2)
    other = np.abs(stub.mixing.numpy().astype(float))
    other[:, 0] = np.maximum(other[:, 0], 0.5)
    audit = audit_of(stub, z, labels, starts=[other], agreement=(0.96,))
    assert audit.edge_probability[2, 0] == pytest.approx(0.5, abs=0.05)
    assert audit.edge_probability[0, 1] == 0.0
    assert verdicts(audit)[0] == "block"
    assert "depends on uncertain edges" in audit.latents["reason"][0]


def test_values_on_the_support_can_free_what_the_support_does_not():
    """Two proportional rows: the support separates z0, the decoder's own Jacobian does not."""
    support = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 1, 1], [1, 0, 1], [1, 0, 1], [1, 0, 1]])
    stub, z, labels = problem(support, 1)
    assert verdicts(audit_of(stub, z, labels)) == ["identified"] * 3
    stub.mixing[3] = -stub.mixing[2]
    stub.inverse = torch.linalg.pinv(stub.mixing)
    special = audit_of(stub, z, labels)
    assert special.finding("C4").evidence["free_sets"]["z0"] == ["z0"]
    assert special.pairs["probability"].tolist() == [0.0, 0.0, 1.0]
    assert verdicts(special)[0] == "unsupported"
    assert "the structure does not separate it from z1 and z2" in special.latents["reason"][0]


@pytest.mark.slow
@pytest.mark.parametrize(("n_latents", "n_features"), [(3, 9), (3, 60), (6, 60), (12, 60)])
@pytest.mark.parametrize("entries", ["normal", "logistic"])
def test_small_entries_of_a_dense_mixing_are_no_sparsity(n_latents, n_features, entries):
    """Entries of all sizes: with 60 features more are near zero than any turn of the latents makes."""
    beyond = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        mixing = getattr(rng, entries)(size=(n_features, n_latents))
        jacobian = np.broadcast_to(mixing, (400, n_features, n_latents))
        z = rng.standard_normal((400, n_latents))
        audit = unmix.audit_decoder(lambda z, mixing=mixing: z @ mixing.T, z, jacobian=jacobian)
        found = audit.finding("C4")
        assert found.verdict == "fails"
        assert not audit.latents["verdict"].eq("identified").any()
        assert found.evidence["zeros_of_a_turned_dense_mixing"] == n_latents * (n_latents - 1) // 2
        beyond += found.evidence["zeros"] > n_latents * (n_latents - 1) // 2
    assert beyond == (0 if n_features == 9 else 3)


def test_what_chance_makes_small_is_what_a_dense_mixing_has():
    rng = np.random.default_rng(0)
    for spread in (0.15, 0.4, 1.0):
        for zero in (0.05, 0.1):
            limits, small = [], []
            for _ in range(100):
                sizes = np.abs(spread * rng.standard_normal(600))
                limits.append(small_by_chance(sizes, zero))
                small.append(int((sizes < zero).sum()))
            assert np.mean(np.array(small) > limits) <= 0.15
            assert np.median(limits) < 1.4 * np.median(small) + 10
    # Of none just above, one below would still be no surprise; of one, two.
    assert small_by_chance(np.array([0.0, 0.04, 0.5, 1.0]), 0.05) == 1
    assert small_by_chance(np.array([0.0, 0.1, 0.5, 1.0]), 0.05) == 2
    assert small_by_chance(np.array([0.0, 0.01]), 0.05) == 0


@pytest.mark.slow
def test_a_dense_mixing_is_seldom_called_sparse_and_a_poorer_fit_still_can_be():
    """Scales that change differently leave no zeros to turning: only chance is left, at about 5 %."""
    rng, called = np.random.default_rng(0), 0
    labels = np.repeat(np.arange(3), 100)
    z = np.array([[1.0, 0.3, 1.0], [0.3, 1.0, 1.0], [1.0, 1.0, 0.3]])[labels] * rng.standard_normal((300, 3))
    for _ in range(60):
        dense = rng.standard_normal((9, 3))
        jacobian = np.broadcast_to(dense, (300, 9, 3))
        found = unmix.audit_decoder(lambda z, dense=dense: z @ dense.T, z, labels, jacobian=jacobian).finding("C4")
        assert found.evidence["zeros_of_a_turned_dense_mixing"] == 0
        called += found.verdict != "fails"
    assert called <= 7
    for noise in (0.02, 0.08):
        poor = np.where(SPARSE, 1.0, noise * rng.uniform(0.5, 1.0, SPARSE.shape))
        assert unmix.audit_decoder(lambda z, poor=poor: z @ poor.T, z, labels).finding("C4").verdict == "holds"


def test_free_sets_are_given_generically_and_at_rows():
    support = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 1, 1], [1, 0, 1], [1, 0, 1], [1, 0, 1]])
    stub, z, labels = problem(support, 1)
    generic = audit_of(stub, z, labels).finding("C4").evidence
    assert generic["free_sets_at_rows"] == generic["free_sets"] == {name: [name] for name in ("z0", "z1", "z2")}
    stub.mixing[3] = -stub.mixing[2]
    at_rows = audit_of(stub, z, labels).finding("C4").evidence
    assert at_rows["free_sets"] == generic["free_sets"]
    assert at_rows["free_sets_at_rows"] == {"z0": ["z0", "z1", "z2"], "z1": ["z1"], "z2": ["z2"]}


def test_few_features_can_show_no_sparsity():
    found = audit_of(*problem(np.eye(2, dtype=int), 1)).finding("C4")
    assert found.verdict == "fails"
    assert found.sentence.endswith("With only 2 features no sign is possible; add features.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "n_domains", "per_domain", "free"),
    [("both", 1, 400, 3), ("mean", 4, 400, 3), ("scale", 4, 400, 0), ("both", 1, 22, 6)],
)
def test_zeros_that_turning_could_make_are_those_that_leave_no_trace(change, n_domains, per_domain, free):
    """A turn of two latents hides where they change alike, in one domain or in means alone, and from too few rows."""
    stub, z, labels = problem(SPARSE, n_domains, change, per_domain=per_domain)
    evidence = audit_of(stub, z, labels).finding("C4").evidence
    assert evidence["zeros_of_a_turned_dense_mixing"] == free
    shuffled = audit_of(stub, z, np.random.default_rng(0).permutation(labels)).finding("C4").evidence
    assert shuffled["zeros_of_a_turned_dense_mixing"] >= 3


def test_latents_that_depend_on_each_other_may_have_been_turned_by_any_map():
    stub, z, labels = problem(SPARSE, 1)
    z[:, 1] = 0.8 * z[:, 0] + 0.6 * z[:, 1]
    assert audit_of(stub, z, labels).finding("C4").evidence["zeros_of_a_turned_dense_mixing"] == 2 + 1 + 1


def turned_to_zeros(seed, n_features):
    """A dense linear mixing, and the rotation of two latents under which one entry of it is zero."""
    rng = np.random.default_rng(seed)
    mixing = rng.uniform(0.5, 1.0, (n_features, 2)) * rng.choice([-1, 1], (n_features, 2))
    direction = mixing[0] / np.linalg.norm(mixing[0])
    return mixing @ np.array([[direction[0], -direction[1]], [direction[1], direction[0]]])


def test_a_turned_dense_mixing_is_not_sparse():
    rng = np.random.default_rng(0)
    for seed in range(5):
        mixing = turned_to_zeros(seed, 6)
        assert (np.abs(mixing) < 1e-9).sum() == 1
        found = unmix.audit_decoder(lambda z, mixing=mixing: z @ mixing.T, rng.standard_normal((800, 2)))
        assert found.finding("C4").verdict == "fails"
        assert not found.latents["verdict"].eq("identified").any()
