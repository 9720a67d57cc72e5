"""The audit's checks on models whose truth is known: what each must call by its name, and what it must not say."""

import numpy as np
import pytest
import torch
from audit_stubs import DENSE, SPARSE, Folded, FoldedFarOut, Linear, Told, audit_of, problem, verdicts
from scipy.stats import rankdata

import unmix
from unmix.audit.input import stratify
from unmix.audit.routes import tied
from unmix.audit.rows import rows_needed
from unmix.data.batches import Rows
from unmix.data.domains import Encoded
from unmix.datasets import make_sparse_mixing


def test_structure_identifies_without_changes():
    audit = audit_of(*problem(SPARSE, 1))
    assert verdicts(audit) == ["identified"] * 3
    assert set(audit.pairs["route"]) == {"structure"}
    assert audit.finding("C4").verdict == "holds"
    assert audit.finding("C3").verdict == "fails"
    assert audit.finding("C3").sentence == (
        "There is one domain, so nothing changes. That does not matter here: the structure separates all pairs."
    )
    assert (audit.domains_needed, audit.domains_needed_without_sparsity, audit.domains_present) == (1, 7, 1)
    assert audit.latents["domains_needed"].tolist() == [1, 1, 1]


def test_changes_identify_a_dense_mixing_and_sparsity_is_denied():
    stub, z, labels = problem(DENSE, 8)
    audit = audit_of(stub, z, labels)
    assert verdicts(audit) == ["identified"] * 3
    assert set(audit.pairs["route"]) == {"changes"}
    assert audit.finding("C4").verdict == "fails"
    assert audit.finding("C3").verdict == "holds"
    assert "All 3 latents (z0, z1 and z2) differ" in audit.finding("C3").sentence
    assert "and need changes. The domains differ in enough" in audit.finding("C3").sentence
    assert audit.domains_needed == 7
    assert audit.pairs["directions_needed"].tolist() == audit.pairs["directions"].tolist() == [6] * 3
    location, scale = stub.location.numpy(), stub.log_scale.exp().numpy()
    spread = z.std(axis=0)
    curvature, slope = -(scale**-2.0), (location - z[:, None]) / scale**2
    # η'' = -1/s² does not depend on z, η' = (m - z)/s² does: the median over rows is that of the audit's rows, nearly.
    vectors = np.concatenate([np.broadcast_to(curvature * spread**2, slope.shape), slope * spread], axis=2)
    singular = np.linalg.svd(vectors - vectors.mean(axis=1, keepdims=True), compute_uv=False)
    assert audit.pairs["condition"][0] == pytest.approx(np.median(singular[:, 0] / singular[:, -1]), rel=0.2)


@pytest.mark.slow
def test_too_few_domains_leave_a_block_and_the_remedy_counts():
    audit = audit_of(*problem(DENSE, 5))
    assert verdicts(audit) == ["block"] * 3
    assert audit.latents["block"][0] == ["z0", "z1", "z2"]
    assert audit.finding("C3").verdict == "fails"
    said = audit.finding("C3").sentence
    assert said.endswith(
        "do not reliably differ in enough directions to separate z0 from z1, z0 from z2 and z1 from z2."
    )
    assert (audit.pairs["directions"] <= 4).all()
    assert audit.pairs["condition"].isna().all()
    assert "would take 7 domains" in audit.latents["reason"][0]
    assert not audit.separated()[0, 1]
    feature, domains = (remedy.sentence for remedy in audit.remedies[:2])
    assert domains.endswith(
        "more domains in which z0, z1 and z2 change in new ways would separate z0, z1 and z2 from all others."
    )
    # With a feature of its own for z0 the pairs share two latents at most, whose four directions are there.
    assert feature == "One more feature that depends on z0 alone would separate z0, z1 and z2 from all others."
    assert audit.latents["remedy"][0] == feature
    assert audit.pairs["directions"][0] == 4
    extra = int(domains.split()[0])
    assert extra == 6 - audit.pairs["directions"][0]
    # The sixth direction of just seven random domains is weak; one more domain makes it sure.
    assert verdicts(audit_of(*problem(DENSE, 5 + extra + 1))) == ["identified"] * 3


@pytest.mark.slow
def test_shuffled_labels_are_no_change():
    stub, z, labels = problem(DENSE, 8)
    for seed in range(2):
        audit = audit_of(stub, z, np.random.default_rng(seed).permutation(labels))
        assert audit.finding("C3").verdict == "fails"
        assert audit.finding("C3").could_fail
        assert "shuffled" in audit.finding("C3").sentence
        # Shuffled domains hold what differed between the true ones, and may show it as dependence within.
        assert "identified" not in verdicts(audit)
        assert audit.latents["reason"].str.contains("does not change between domains").any()
    sparse, z, labels = problem(SPARSE, 4)
    shuffled = audit_of(sparse, z, np.random.default_rng(0).permutation(labels))
    assert shuffled.finding("C3").verdict == "fails"
    assert "changes" not in set(shuffled.pairs["route"])


@pytest.mark.slow
def test_what_an_encoder_makes_of_the_label_is_no_change():
    """Latents that move with shuffled labels as much as with the true ones move by the label alone."""
    stub, z, labels = problem(DENSE, 8, "mean", kind=Told)
    nothing = np.random.default_rng(5).standard_normal(z.shape)
    for given in (labels, np.random.default_rng(6).permutation(labels)):
        told = nothing + stub.location.numpy()[given]
        found = audit_of(stub, told, given).finding("C3")
        assert found.verdict == "fails"
        assert found.evidence["encoder_knows_domains"]
        assert found.evidence["changing"] == []
        # The same latents from an encoder that sees features alone do change.
        assert audit_of(Linear(stub.mixing, stub.location, np.ones((8, 3))), told, given).finding("C3").evidence[
            "changing"
        ] == ["z0", "z1", "z2"]


@pytest.mark.slow
@pytest.mark.parametrize("n_domains", [2, 4, 9])
def test_shuffled_labels_seldom_look_like_a_change(n_domains):
    """5 % of the audits may name a changing latent; none may say that changes hold."""
    data = make_sparse_mixing(n_latents=4, n_features=9, n_domains=n_domains, n_samples=600, density=1.0)
    named = 0
    for seed in range(8):
        shuffled = np.random.default_rng(seed).permutation(data.domains)
        audit = unmix.audit_decoder(data.mixing, data.z, shuffled, jacobian=data.jacobian)
        assert audit.finding("C3").verdict == "fails"
        assert audit.finding("C4").verdict == "fails"
        assert not audit.latents["verdict"].eq("identified").any()
        named += bool(audit.finding("C3").evidence["changing"])
    assert named <= 2


@pytest.mark.slow
def test_the_rank_of_the_changes_has_its_level_and_some_power():
    """Means alone have rank n, also where 2n + 1 domains are there; means and scales all of 2n, most of the time."""
    full, beyond = 0, 0
    for seed in range(30):
        for change, rank in (("mean", 2), ("both", 4)):
            stub, z, labels = problem(np.ones((6, 2), dtype=int), 8, change, per_domain=100, seed=seed)
            found = unmix.audit_decoder(lambda z, stub=stub: z @ stub.mixing.numpy().T, z, labels)
            directions = int(found.pairs["directions"][0])
            full += directions == rank == 4
            beyond += directions > rank
    assert full >= 27
    assert beyond <= 4


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
    assert audit.remedies[0].sentence == "A model without z3 (3 latents) would lose little on these rows."
    assert audit.finding("C1").verdict == "fails"
    assert audit.finding("invertibility").verdict == "fails"


def test_a_bent_copy_is_a_duplicate_and_one_domain_has_nothing_to_overlap_with():
    stub, z, labels = problem(SPARSE, 1)
    assert "there is one domain" in audit_of(stub, z, labels).finding("C1").sentence
    z[:, 2] = z[:, 0] ** 5
    assert abs(np.corrcoef(z[:, 0], z[:, 2])[0, 1]) < 0.9
    audit = audit_of(stub, z, labels)
    assert audit.finding("C1").verdict == "fails"
    assert "duplicate of z2" in audit.latents["reason"][0]


def _wider(stub):
    location, scale = stub.location.numpy(), stub.log_scale.exp().numpy()
    return [np.column_stack([part, part[:, 1]]) for part in (location, scale)]


def test_a_collapsed_latent_is_called_so_and_left_out():
    stub, z, labels = problem(np.column_stack([SPARSE, np.zeros(9, dtype=int)]), 3)
    audit = audit_of(stub, z, labels)
    assert verdicts(audit) == ["identified"] * 3 + ["unsupported"]
    assert "no feature depends on it" in audit.latents["reason"][3]
    assert audit.latents["domains_needed"].isna().tolist() == [False, False, False, True]
    assert audit.remedies[0].sentence == "A model without z3 (3 latents) would lose little on these rows."
    wide = audit_of(*problem(SPARSE, 3), width=[0.05, 11.69, 0.97])
    # 11.69 / sqrt(1 + 11.69²) and 0.97 / sqrt(1 + 0.97²): the spread over all rows is that of means and posteriors.
    assert (
        wide.latents["reason"][1]
        == "It has collapsed: its posterior for a single row is 0.99 times as wide as its distribution over all rows."
    )
    assert "too imprecisely: its posterior for a single row is 0.69 times" in wide.latents["reason"][2]
    assert "z1" in wide.remedies[0].change
    assert "z2" not in wide.remedies[0].change
    stub, z, labels = problem(SPARSE, 3)
    z[:, 0] = 0.5
    assert "is constant on these rows" in audit_of(stub, z, labels).latents["reason"][0]
    stub, z, labels = problem(SPARSE, 3)
    z[:, 2] = np.sign(z[:, 2])
    assert "is discrete: it takes 2 values" in audit_of(stub, z, labels).latents["reason"][2]


def test_a_fold_does_not_come_back():
    stub, z, labels = problem(SPARSE, 3, kind=Folded)
    audit = audit_of(stub, z, labels)
    assert verdicts(audit) == ["unsupported", "identified", "identified"]
    assert "is not recovered" in audit.latents["reason"][0]
    assert audit.finding("invertibility").verdict == "fails"
    with pytest.raises(unmix.errors.SettingError, match=r"no condition 'C9'\. Pass the beginning of one of 'C1"):
        audit.finding("C9")


def test_no_remedy_promises_a_latent_that_has_another_fault():
    stub, z, labels = problem(DENSE, 5, kind=Folded)
    audit = audit_of(stub, z, labels)
    assert "is not recovered" in audit.latents["reason"][0]
    assert {name for remedy in audit.remedies for name in remedy.mends} == {"z1", "z2"}
    assert audit.latents["remedy"][0] == ""


def test_a_fold_far_out_comes_back_in_part_only():
    audit = audit_of(*problem(SPARSE, 3, "mean", kind=FoldedFarOut))
    assert verdicts(audit) == ["unsupported", "identified", "identified"]
    back = audit.finding("invertibility").evidence["round_trip_r2"]
    assert 0.7 < back["z0"] < 0.95 < back["z1"]


@pytest.mark.slow
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
    # Of latents that do not change, but that the structure separates, it is the dependence that makes a block.
    stub, alike, one = problem(SPARSE, 1)
    alike[:, 1] = 0.8 * alike[:, 0] + 0.6 * alike[:, 1]
    audit = audit_of(stub, alike, one)
    assert verdicts(audit) == ["block", "block", "identified"]
    assert "depends on z1 within domains" in audit.latents["reason"][0]
    stub, z, labels = problem(SPARSE, 4)
    spread = z.copy()
    spread[:, 2] = np.abs(z[:, 0]) * np.random.default_rng(3).standard_normal(len(z))
    assert audit_of(stub, spread, labels).finding("C2").evidence["dependent_pairs"][0][:2] == ["z0", "z2"]
    few = audit_of(*problem(SPARSE, 1, per_domain=22))
    assert few.finding("C2").verdict == "cannot tell"
    assert not few.finding("C2").could_fail
    assert "too few to detect" in few.finding("C2").sentence


@pytest.mark.slow
def test_changes_count_for_nothing_where_latents_depend_on_each_other():
    """T1 takes every shared latent to be independent of the others: z2, tied to neither, loses its separation too."""
    stub, z, labels = problem(DENSE, 12)
    free = audit_of(stub, z, labels)
    assert verdicts(free) == ["identified"] * 3
    z[:, 1] = 0.8 * z[:, 0] + 0.6 * z[:, 1]
    tied = audit_of(stub, z, labels)
    assert verdicts(tied) == ["block"] * 3
    assert "where latents are independent within domains, and z0 and z1 are not" in tied.latents["reason"][2]
    # No number of domains makes up for that, and C3 says why.
    assert not any("domain" in remedy.sentence for remedy in tied.remedies)
    said = tied.finding("C3").sentence
    assert said.endswith("changes do not count, because latents depend on each other within domains.")
    assert tied.finding("C3").evidence["pairs_that_dependence_bars"] == 3


@pytest.mark.slow
def test_dependence_across_free_sets_bars_changes_and_remedies_know_it():
    """z0 and z1 share their features; z0 depends on z2, which has features of its own."""
    support = np.array([[1, 1, 0], [1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    stub, z, labels = problem(support, 12)
    assert verdicts(audit_of(stub, z, labels)) == ["identified"] * 3
    z[:, 2] = 0.8 * z[:, 0] + 0.6 * z[:, 2]
    audit = audit_of(stub, z, labels)
    assert verdicts(audit) == ["block"] * 3
    # A feature that z0 alone drives would separate z1; z0 stays with z2, whatever is measured.
    for remedy in audit.remedies:
        assert remedy.change.startswith("A model without z") or not {"z0", "z2"} & set(remedy.mends)
    sets = [frozenset({0, 1}), frozenset({0, 1}), frozenset({2})]
    dependent = np.zeros((3, 3), dtype=bool)
    assert tied(sets, 0, 1, dependent) == set()
    dependent[0, 2] = dependent[2, 0] = True
    assert tied(sets, 0, 1, dependent) == {0}
    assert tied(sets, 1, 2, dependent) == {0, 2}


def test_scales_count_only_where_shapes_stay():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(8, 2)) + np.sign(rng.normal(size=(8, 2)))
    sizes, labels = np.array([[1, 1], [3, 1], [1, 3], [3, 3]]), np.repeat(np.arange(4), 400)
    for skewed in (False, True):
        own = rng.gamma(1.0, size=(1600, 2)) - 1 if skewed else rng.normal(size=(1600, 2))
        if skewed:
            own *= np.where((labels[:, None] + np.arange(2)) % 2, 1, -1)
        audit = unmix.audit_decoder(lambda z: z @ mixing.T, own * sizes[labels], labels)
        assert audit.pairs["route"].tolist() == ["none" if skewed else "scales"]


def test_one_of_several_domains_tells_nothing_of_changes():
    stub, z, labels = problem(DENSE, 5)
    only = audit_of(stub, z[labels == 1], labels[labels == 1])
    assert only.finding("C3").verdict == "cannot tell"
    assert "All rows are from u1, one of 5 domains, so changes are not tested." in only.finding("C3").sentence
    assert only.latents["reason"].str.startswith("Its changes between domains are not tested").all()
    assert not any("more domain" in remedy.sentence for remedy in only.remedies)
    assert verdicts(only) == ["not tested"] * 3
    assert "0 not supported by these data, 3 that these rows cannot test." in only.summary()
    said = f"About {rows_needed(2, 3)} audited rows of another domain than u1 would let changes be tested."
    assert (only.latents["remedy"] == said).all()
    assert only.to_dict()["remedies"][-1]["code"] == "more_rows"


def test_dependence_in_a_single_domain_is_seen():
    stub, z, labels = problem(SPARSE, 8)
    own = labels == 3
    z[own, 1] = z[own, 1].mean() + 0.6 * z[own, 0] + 0.8 * (z[own, 1] - z[own, 1].mean())
    found = audit_of(stub, z, labels).finding("C2")
    assert found.verdict == "fails"
    assert [pair[:2] for pair in found.evidence["dependent_pairs"]] == [["z0", "z1"]]
    assert found.evidence["largest_excess"] < 0.3 < found.evidence["largest_excess_in_one_domain"]


@pytest.mark.parametrize("dependence", [0.0, 0.6])
def test_dependence_of_true_latents_is_measured(dependence):
    """Gaussian scores with correlation r have the rank correlation 6/π asin(r/2)."""
    data = make_sparse_mixing(
        n_latents=4, n_features=12, n_domains=4, n_samples=2000, density=0.4, dependence=dependence
    )
    found = unmix.audit_decoder(data.mixing, data.z, data.domains).finding("C2")
    true = 6 / np.pi * np.arcsin(dependence / 2)
    if dependence:
        assert found.verdict == "fails"
        assert [size for *_, size in found.evidence["dependent_pairs"]] == pytest.approx([true] * 6, abs=0.06)
    else:
        assert found.verdict == "holds"
        assert found.could_fail


def test_no_dependence_is_put_beside_what_chance_gives():
    stub, z, labels = problem(SPARSE, 8, per_domain=80)
    found = unmix.audit_decoder(lambda z: z @ stub.mixing.numpy().T, z, labels).finding("C2")
    ranks = [rankdata(z[labels == domain], axis=0) for domain in range(8)]
    distances = [rankdata(np.abs(z[labels == d] - np.median(z[labels == d], axis=0)), axis=0) for d in range(8)]
    squares = [
        np.maximum(np.corrcoef(a.T) ** 2, np.corrcoef(b.T) ** 2)[np.triu_indices(3, 1)]
        for a, b in zip(ranks, distances, strict=True)
    ]
    largest = np.sqrt(np.mean(squares, axis=0)).max()
    # The two rows around a median are equally far from it, up to rounding.
    assert found.evidence["largest_correlation"] == pytest.approx(largest, rel=0.01)
    # Of 80 rows without dependence the larger of two squares has a mean near 1.6/80.
    assert found.evidence["the_same_shuffled"] == pytest.approx(np.sqrt(1.6 / 80), rel=0.1)
    assert f"root mean square is {found.evidence['largest_correlation']:.2f} at most" in found.sentence
    assert "0.14 for shuffled rows" in found.sentence


def test_starts_that_disagree_and_a_single_start():
    stub, z, labels = problem(SPARSE, 3)
    found = [(0.6, 0.99, 0.99), (0.7, 0.98, 0.5), (0.99, 0.999, 0.97)]
    audit = audit_of(stub, z, labels, agreement=found, worse_by=[0.0, 0.3, 0.0])
    assert verdicts(audit) == ["unsupported", "identified", "identified"]
    assert "median correlation 0.70 of 3 (required: 0.95)" in audit.latents["reason"][0]
    assert audit.latents["reason"][1].endswith("median correlation 0.99 of 3, 0.98 at least.")
    assert audit.latents["reason"][2].endswith("1 of 3, which fits worse, finds it less well (down to 0.50).")
    assert audit.finding("agreement").verdict == "fails"
    assert audit.finding("agreement").sentence == "Over 3 other starts the median correlation with z0 is below 0.95."
    single = audit_of(stub, z, labels, agreement=())
    assert single.finding("agreement").verdict == "cannot tell"
    assert "no other start to compare with" in single.finding("agreement").sentence
    assert "no other start to compare with" in single.latents["reason"][0]
    pair = audit_of(stub, z, labels, agreement=[(0.6, 0.99, 0.99)])
    assert pair.finding("agreement").sentence.startswith("The other start does not find z0 again")


def test_one_start_that_fits_as_well_contradicts_and_one_that_fits_worse_does_not():
    """0.79 < 2 · 0.95² - 1 = 0.805: two estimates this far apart are not both at 0.95 with the same true latent."""
    stub, z, labels = problem(SPARSE, 3)
    found = [(0.99, 0.99, 0.99)] * 4 + [(0.79, 0.82, 0.99)]
    as_well = audit_of(stub, z, labels, agreement=found, worse_by=[0.2] * 4 + [0.01])
    assert verdicts(as_well) == ["unsupported", "identified", "identified"]
    assert "found another latent in its place (correlation 0.79)" in as_well.latents["reason"][0]
    # Two starts may each hold another true factor.
    assert "or each is a factor and there are more factors than latents" in as_well.latents["reason"][0]
    assert as_well.finding("agreement").verdict == "fails"
    worse = audit_of(stub, z, labels, agreement=found, worse_by=[0.0] * 4 + [0.2])
    assert verdicts(worse) == ["identified"] * 3
    assert worse.finding("agreement").verdict == "holds"
    assert "z0 in 1 (down to 0.79) and z1 in 1 (down to 0.82), all in starts that fit worse" in str(worse)
    assert worse.finding("agreement").evidence["starts_that_differ"] == {"z0": 1, "z1": 1, "z2": 0}
    unknown = audit_of(stub, z, labels, agreement=found)
    assert verdicts(unknown)[0] == "unsupported"


def test_a_median_over_two_starts_is_not_called_most_of_them():
    stub, z, labels = problem(SPARSE, 3)
    agreed = audit_of(stub, z, labels, agreement=[(0.92, 0.99, 0.99), (0.99, 0.99, 0.99)])
    said = agreed.finding("agreement").sentence
    assert said.startswith(
        "Over 2 other starts the median correlation with every latent is 0.95 or more; below 0.95 are"
    )
    assert "Most" not in said


@pytest.mark.parametrize(("n_domains", "per_domain"), [(2, 20), (3, 25), (2, 40)])
def test_no_change_is_only_said_where_the_rows_could_have_shown_one(n_domains, per_domain):
    """A shift of half a standard deviation would often be missed here: that none is seen says nothing."""
    stub, _, labels = problem(DENSE, n_domains, per_domain=per_domain)
    nothing = np.random.default_rng(0).standard_normal((len(labels), 3))
    audit = audit_of(stub, nothing, labels)
    found = audit.finding("C3")
    assert (found.verdict, found.could_fail) == ("cannot tell", False)
    assert f"too few rows to tell: {per_domain} per domain reveal only changes" in found.sentence
    assert audit.latents["reason"].str.startswith("There are too few rows to tell whether it changes").all()
    assert not any("more domain" in remedy.sentence for remedy in audit.remedies)
    assert verdicts(audit) == ["not tested"] * 3
    assert set(audit.latents["code"]) == {"too_few_rows"}
    stub, _, labels = problem(DENSE, n_domains, per_domain=8 * per_domain)
    many = np.random.default_rng(0).standard_normal((len(labels), 3))
    audit = audit_of(stub, many, labels)
    assert audit.finding("C3").verdict == "fails"
    assert "not tested" not in verdicts(audit)


def test_what_few_rows_show_is_said_with_what_they_may_hide():
    stub, z, labels = problem(DENSE, 2, per_domain=20)
    found = audit_of(stub, z, labels).finding("C3")
    assert found.sentence.endswith("There are few rows; more rows may reveal more changes.")
    assert found.verdict == "cannot tell"


def test_domains_with_too_few_rows_are_not_counted_as_there():
    stub, z, labels = problem(DENSE, 5)
    kept = (labels < 3) | (np.arange(len(labels)) % 300 < 7)
    reason = audit_of(stub, z[kept], labels[kept]).latents["reason"][0]
    assert "that would take 7 domains that differ enough, and of 5 domains 3 have enough rows" in reason


@pytest.mark.slow
def test_a_verdict_is_only_given_where_the_data_could_have_failed_it():
    audits = [
        audit_of(*problem(support, n_domains, per_domain=rows), agreement=agreement)
        for support in (SPARSE, DENSE, np.ones((3, 1), dtype=int))
        for n_domains, rows in ((1, 12), (1, 100), (2, 15), (3, 100))
        for agreement in ((), (0.99, 0.99))
    ]
    findings = [finding for audit in audits for finding in audit.findings]
    assert all(finding.could_fail for finding in findings if finding.verdict != "cannot tell")
    assert not all(finding.could_fail for finding in findings)
    assert "cannot tell (these data could not have shown a failure). There is no other start" in str(audits[2])


def test_absent_and_small_domains_and_few_rows():
    stub, z, labels = problem(SPARSE, 4)
    kept = labels != 2
    absent = audit_of(stub, z[kept], labels[kept])
    assert absent.finding("C1").verdict == "cannot tell"
    assert "no rows of u2" in absent.finding("C1").sentence
    assert absent.domains_present == 3
    assert absent.summary().endswith("there are 3 domains.")
    few = (np.arange(len(labels)) % 300 < 15) & kept
    assert (
        audit_of(stub, z[few], labels[few])
        .summary()
        .endswith("there are 3 domains, 0 of them with enough rows to compare.")
    )
    kept = (labels != 2) | (np.arange(len(labels)) % 300 < 7)
    small = audit_of(stub, z[kept], labels[kept])
    assert small.finding("C1").evidence["small_domains"] == ["u2"]
    assert "fewer than 20 rows of the domain u2" in small.finding("C1").sentence
    tiny = audit_of(stub, z[::150], labels[::150])
    assert {finding.verdict for finding in tiny.findings} == {"cannot tell"}
    assert "There are 8 rows" in tiny.finding("C1").sentence
    assert verdicts(tiny) == ["not tested"] * 3
    assert "there are 8 rows, and the tests need 20" in tiny.latents["reason"][0]
    scattered = audit_of(stub, z[::20], labels[::20])
    assert scattered.finding("C3").verdict == "cannot tell"
    assert "Fewer than two domains have 20 rows" in scattered.finding("C3").sentence
    assert scattered.latents["change"].isna().all()
    assert not scattered.latents["effect"].str.contains("between domains").any()
    apart = z + 40.0 * labels[:, None]
    assert "of u0 (in z0, z1 and z2), u1 (in z0, z1 and z2)" in audit_of(stub, apart, labels).finding("C1").sentence


def test_zeros_that_few_rows_leave_open_are_no_failure_of_sparsity():
    """Four of 27 entries: more than chance, fewer than the six that rotation makes without independence."""
    support = DENSE.copy()
    support[[0, 1, 2, 3], [0, 1, 2, 0]] = 0
    stub, z, labels = problem(support, 4)
    few = audit_of(stub, z[::20], labels[::20]).finding("C4")
    assert (few.verdict, few.could_fail) == ("cannot tell", False)
    assert few.sentence.endswith("if the latents are independent within domains, which these rows cannot test.")
    assert audit_of(stub, z, labels).finding("C4").could_fail


def test_continuous_domains_become_parts():
    values = np.linspace(-1, 1, 120)[:, None]
    rows = Rows.build(np.zeros((120, 2)), Encoded(np.zeros((120, 0), np.int64), values), (), False)
    strata = stratify(rows, np.zeros(120, dtype=np.int64))
    assert np.bincount(strata.labels).tolist() == [20] * 6
    assert strata.names(["all"])[0] == "all (part 1 of 6)"
    assert (np.diff(strata.design[:, 0]) > 0).all()


def test_one_latent_leaves_nothing_to_test():
    audit = audit_of(*problem(np.ones((3, 1), dtype=int), 3))
    assert verdicts(audit) == ["identified"]
    assert "There is no other latent to separate it from" in audit.latents["reason"][0]
    assert [audit.finding(name).verdict for name in ("C2", "C4")] == ["cannot tell"] * 2
    assert "There is one latent" in audit.finding("C4").sentence
