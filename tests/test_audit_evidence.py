"""What an audit may say of the rows that people have: too few latents, too few rows, noise, curves, ties, copies."""

from dataclasses import replace

import numpy as np
import pytest
from audit_stubs import DENSE, SPARSE, audit_of, problem, verdicts

import unmix
from unmix.audit.agreement import all_worse, comparable
from unmix.audit.check import Context
from unmix.audit.input import AuditInput, ResidualDependence, Simulated
from unmix.audit.invertibility import check_invertibility
from unmix.audit.residuals import AUDITED, AUDITED_SHARE, strongest_pairs, uneven_noise
from unmix.audit.rows import rows_needed


def left(correlation, share, copies=()):
    return ResidualDependence(correlation, 0.05, share, ("x0", "x3"), copies)


@pytest.mark.parametrize(("correlation", "share"), [(0.94, 0.2), (0.4, 0.002)])
def test_with_too_few_latents_nothing_is_identified_and_the_headline_says_so_first(correlation, share):
    audit = audit_of(*problem(SPARSE, 4), residual=left(correlation, share))
    assert audit.finding("number of latents").verdict == "fails"
    assert verdicts(audit) == ["unsupported"] * 3
    assert audit.summary().startswith("Too few latents, or a mixing")
    assert "x0 and x3 still depend on each other. Use more than 3 latents; `unmix select`" in audit.summary()
    assert [remedy.change for remedy in audit.remedies] == ["More than 3 latents (`unmix select` compares numbers)"]
    assert (audit.latents["remedy"] == audit.remedies[0].sentence).all()


@pytest.mark.parametrize(("correlation", "share"), [(0.2, 0.2), (0.9, 0.0005)])
def test_what_the_latents_leave_must_be_strong_and_of_some_size(correlation, share):
    audit = audit_of(*problem(SPARSE, 4), residual=left(correlation, share, (("x1", "x2"),)))
    found = audit.finding("number of latents")
    assert found.verdict == "holds"
    assert f"{AUDITED + left(0.0, 0.0).limit / 2:.2f} with {AUDITED_SHARE:.1%} counts" in found.sentence
    assert found.sentence.endswith("Features that repeat each other: x1 with x2.")
    assert verdicts(audit) == ["identified"] * 3


def test_between_the_limits_it_cannot_tell_whether_latents_are_missing():
    audit = audit_of(*problem(SPARSE, 4), residual=left(0.26, 0.0011))
    found = audit.finding("number of latents")
    assert found.verdict == "cannot tell"
    assert found.sentence.startswith(
        "There may be more factors than latents: given the latents, x0 and x3 still depend"
    )
    assert verdicts(audit) == ["identified"] * 3
    assert "There may be more factors than latents: compare a fit with one more." in audit.summary()


def test_noise_of_a_feature_that_differs_between_domains_is_a_missing_latent_too():
    residual = replace(left(0.1, 0.0), uneven=("x2", 0.03, 0.4))
    audit = audit_of(*problem(SPARSE, 4), residual=residual)
    found = audit.finding("number of latents")
    assert found.verdict == "fails"
    assert (
        "the noise of x2 differs between domains (its variance by 40%, 3.0% of the feature's variance" in found.sentence
    )
    assert verdicts(audit) == ["unsupported"] * 3
    assert "given the latents, the noise of x2 differs between domains. Use more than 3 latents" in audit.summary()
    for small in (("x2", 0.005, 0.4), ("x2", 0.03, 0.1)):
        audit = audit_of(*problem(SPARSE, 4), residual=replace(residual, uneven=small))
        assert audit.finding("number of latents").verdict == "holds"


@pytest.mark.parametrize("kind", ["normal", "heavy tails"])
def test_uneven_noise_is_seldom_seen_where_there_is_none(kind):
    rng, strata = np.random.default_rng(0), np.repeat(np.arange(10), 60)
    draw = rng.standard_normal if kind == "normal" else lambda size: rng.standard_t(5, size)
    found = [uneven_noise(draw((600, 8)), strata) for _ in range(200)]
    assert sum(own is not None for own in found) <= 8


def test_the_spread_of_the_noise_over_domains_is_measured():
    rng, strata = np.random.default_rng(0), np.repeat(np.arange(4), 2000)
    variances = np.array([1.0, 2.0, 1.0, 2.0])
    residuals = 0.3 * rng.standard_normal((8000, 3))
    residuals[:, 1] *= np.sqrt(variances)[strata]
    residuals[::7, 2] = np.nan
    residuals[strata == 1, 2] = np.nan
    feature, spread, change = uneven_noise(residuals, strata)
    assert feature == 1
    assert spread == pytest.approx(0.09 * 0.5, rel=0.1)
    assert change == pytest.approx(0.5 / 1.5, rel=0.1)
    assert uneven_noise(residuals, np.zeros(8000, dtype=int)) is None


def test_with_few_rows_the_correlation_must_be_large_by_more_than_its_error():
    few = replace(left(0.25, 0.2), limit=0.18)
    assert audit_of(*problem(SPARSE, 4), residual=few).finding("number of latents").verdict == "holds"
    few = replace(few, correlation=0.3)
    assert audit_of(*problem(SPARSE, 4), residual=few).finding("number of latents").verdict == "cannot tell"
    many = replace(few, limit=0.05)
    assert audit_of(*problem(SPARSE, 4), residual=many).finding("number of latents").verdict == "fails"


def test_copies_of_a_feature_are_named_and_do_not_hide_a_missing_latent():
    rng = np.random.default_rng(0)
    rows = 0.1 * rng.standard_normal((1000, 6))
    rows[:, 1] = rows[:, 0] / 2
    rows[:, :2] /= 2
    rows[:, 3:5] += 0.1 * rng.standard_normal((1000, 1))
    (found,) = strongest_pairs(rows, np.zeros(1000, dtype=int), [AUDITED_SHARE])
    assert found.copies == ((0, 1),)
    assert found.features == (3, 4)
    assert found.exceeds(AUDITED, AUDITED_SHARE)
    assert ResidualDependence.from_dict({**vars(found), "copies": [[0, 1]]}) == found
    found = replace(found, uneven=("x1", 0.02, 0.5))
    assert ResidualDependence.from_dict({**vars(found), "uneven": ["x1", 0.02, 0.5]}) == found


def test_too_few_rows_is_a_finding_with_what_it_takes():
    audit = audit_of(*problem(DENSE, 8, per_domain=12))
    found = audit.finding("rows")
    assert found.verdict == "fails"
    assert "12 per domain (median)" in found.sentence
    assert found.sentence.endswith(f"takes about {rows_needed(8, 3)} per domain.")
    assert audit.summary().startswith("Too few rows to tell: 96 rows in 8 domains")
    assert audit.remedies[-1].sentence.endswith(
        "audited rows per domain instead of 12 would give the tests enough power."
    )
    assert audit_of(*problem(DENSE, 8)).finding("rows").verdict == "holds"
    assert rows_needed(2, 4) > rows_needed(8, 4) >= rows_needed(42, 4) == 20


def test_too_few_latents_come_before_starts_that_disagree():
    audit = audit_of(*problem(SPARSE, 4), residual=left(0.9, 0.2), agreement=[(0.5, 0.99, 0.99)] * 3)
    assert set(audit.latents["code"]) == {"too_few_latents"}


def test_a_linear_model_has_too_few_latents():
    audit = audit_of(*problem(SPARSE, 4), residual=left(0.22, 0.006), simplified=True)
    found = audit.finding("number of latents")
    assert found.verdict == "fails"
    assert found.sentence.endswith("The fit therefore returned a linear model.")
    assert verdicts(audit) == ["unsupported"] * 3


def test_starts_in_a_clearly_worse_optimum_do_not_count():
    objective, error = [3.0, 3.3, np.inf, 3.02, 3.3, 3.04], [0.0, 0.1, 0.1, 0.001, 0.2, np.nan]
    assert comparable(objective, error, 0).tolist() == [False, False, False, True, True, True]
    # If all fit clearly worse, the best of them counts.
    assert comparable([3.0, 3.3, np.inf], [0.0, 0.1, 0.1], 0).tolist() == [False, True, False]
    assert comparable([3.0, 3.9, 3.3, np.inf], [0.0, 0.1, 0.1, 0.1], 0).tolist() == [False, False, True, False]
    assert not comparable([3.0, np.inf], [0.0, 0.1], 0).any()
    given, found = problem(SPARSE, 3), [(0.99, 0.98, 0.99), (0.5, 0.99, 0.99), (0.6, 0.99, 0.99)]
    worse = [0.0, 0.3, 0.4]
    audit = audit_of(*given, agreement=found, worse_by=worse, comparable=[True, False, False])
    assert verdicts(audit) == ["identified"] * 3
    assert "correlation 0.99 with the one of 3 that does not fit clearly worse" in audit.latents["reason"][0]
    said = "Over 1 of 3 other starts (the rest fit clearly worse) the median correlation with every latent is 0.98"
    assert audit.finding("agreement").sentence.startswith(said)
    assert audit.finding("agreement").evidence["starts_that_count"] == 1
    assert verdicts(audit_of(*given, agreement=found, worse_by=worse))[0] == "unsupported"
    assert not all_worse(objective, error, 0)
    assert all_worse([3.0, 3.9, 3.3, np.inf], [0.0, 0.1, 0.1, 0.1], 0)
    audit = audit_of(*given, agreement=found, worse_by=[0.2, 0.3, 0.4], comparable=[True, False, False], all_worse=True)
    assert verdicts(audit) == ["identified"] * 3
    assert "correlation 0.99 with the best of 3, which all fit clearly worse" in audit.latents["reason"][0]
    said = (
        "Over the best of 3 other starts, which all fit clearly worse, the median correlation with every latent is 0.98"
    )
    assert audit.finding("agreement").sentence.startswith(said)


@pytest.mark.parametrize("dependent", [True, False])
def test_latents_that_hide_dependence_by_mixing_are_contested(dependent):
    """Covariances [[1, r], [r, 1]] are those of independent latents, mixed: only the zeros show the mixing."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(5), 400)
    sparse = np.repeat(np.eye(2), 5, axis=0) * rng.uniform(0.5, 1.0, (10, 1))
    mixing = sparse @ np.array([[1, 1], [1, -1]]) / np.sqrt(2)
    if not dependent:
        # Entries of similar size: directions near 45° and 135°, but none in common.
        mixing = rng.uniform(0.5, 1.0, (10, 2)) * rng.choice([-1, 1], (10, 2))
    r = np.array([0.0, 0.2, 0.4, 0.6, 0.8])[labels]
    z = rng.standard_normal((2000, 2)) * np.sqrt(np.stack([1 + r, 1 - r], axis=1))
    audit = unmix.audit_decoder(lambda v: v @ mixing.T, z, labels)
    assert audit.finding("C2").verdict == "holds"
    assert audit.pairs["route"].tolist() == ["none" if dependent else "scales"]
    assert set(audit.latents["code"]) == {"sparser_combinations" if dependent else "separated"}
    found = audit.finding("C4")
    assert found.evidence["pairs_that_others_make_sparser"] == ([["z0", "z1", 10, 0]] if dependent else [])
    assert ("of z0 and z1 10 zeros instead of 0: sparsity and independence" in found.sentence) == dependent


def test_a_latent_that_the_noise_hides_is_not_identified():
    stub, z, labels = problem(SPARSE, 4)
    noise = stub.likelihood.noise.log.data[0, 0]
    noise[:2] = np.log(2.0)
    noise[6:] = np.log(2.0)
    audit = audit_of(stub, z, labels)
    ceiling = audit.finding("invertibility").evidence["noise_ceiling"]
    assert ceiling["z0"] < 0.95
    assert verdicts(audit)[0] == "unsupported"
    assert "(required: 0.95)" in audit.latents["reason"][0]


@pytest.mark.parametrize(("n_features", "required"), [(9, 0.975), (3, 0.95)])
def test_whether_a_latent_is_close_enough_is_in_doubt_where_noise_uses_most_of_the_error(n_features, required):
    z, noise = np.random.default_rng(0).standard_normal((2, 20_000, 3))
    labels = np.zeros(20_000, dtype=int)
    mixing = np.abs(np.eye(n_features, 3))
    subject = AuditInput(
        latents=z,
        strata=labels,
        domains=("u",),
        absent=(),
        names=("z0", "z1", "z2"),
        feature_names=tuple(f"x{k}" for k in range(n_features)),
        jacobian=mixing[None],
        starts=mixing[None],
        agreement=np.empty((0, 3)),
        simulated=Simulated(z, 0.96 * z + np.sqrt(1 - 0.96**2) * noise, labels, np.ones(3)),
    )
    found = check_invertibility(subject, Context(subject))
    assert found.finding.evidence["least_noise_ceiling_that_counts"] == required
    assert not found.faults
    # With as many latents as features the noise is not known.
    assert list(found.evidence) == ([0, 1, 2] if n_features > 3 else [])
    assert found.finding.verdict == ("cannot tell" if n_features > 3 else "holds")


def test_a_latent_in_doubt_is_not_identified_and_changes_no_other_verdict():
    stub, z, labels = problem(SPARSE, 4)
    stub.likelihood.noise.log.data[0, 0, [0, 1, 6, 7, 8]] = np.log(0.4)
    audit = audit_of(stub, z, labels)
    ceiling = audit.finding("invertibility").evidence["noise_ceiling"]
    assert 0.95 < ceiling["z0"] < 0.975 < min(ceiling["z1"], ceiling["z2"])
    assert verdicts(audit) == ["unsupported", "identified", "identified"]
    assert audit.latents["reason"][0].startswith("It may be estimated too imprecisely")
    assert audit.latents["remedy"][0] == ""
    assert audit.finding("invertibility").verdict == "cannot tell"


@pytest.mark.slow
@pytest.mark.parametrize("change", ["scale", "both"])
def test_monotone_curves_of_the_latents_change_no_verdict(change):
    stub, z, labels = problem(DENSE, 8, change)
    mixing, z = stub.mixing.numpy().T, z / z.std(axis=0)
    plain = unmix.audit_decoder(lambda v: v @ mixing, z, labels)
    assert verdicts(plain) == ["identified"] * 3
    for curve, back in ((np.sinh, np.arcsinh), (np.exp, np.log)):
        curved = unmix.audit_decoder(lambda v, back=back: back(v) @ mixing, curve(z), labels)
        assert verdicts(curved) == verdicts(plain)
        assert curved.pairs["route"].tolist() == plain.pairs["route"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("size", "verdict"), [(0.0, "holds"), (0.25, "fails")])
def test_a_dependence_of_one_sign_adds_up_over_many_small_domains(size, verdict):
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(42), 20)
    z = rng.standard_normal((840, 3))
    z[:, 1] = size * z[:, 0] + np.sqrt(1 - size**2) * z[:, 1]
    found = unmix.audit_decoder(lambda v: v @ SPARSE.T, z, labels).finding("C2")
    assert found.verdict == verdict
    assert [pair[:2] for pair in found.evidence["dependent_pairs"]] == ([["z0", "z1"]] if size else [])


@pytest.mark.slow
@pytest.mark.parametrize(("change", "tied"), [("mean", [["z0", "z1"]]), ("scale", [])])
def test_another_support_with_as_many_zeros_decides_nothing(change, tied):
    """Turned by 45 degrees these features have two zeros again; where scales change a turn would show."""
    mixing = np.tile([[1.0, 1.0], [1.0, -1.0], [1.0, 0.0], [0.0, 1.0]], (2, 1))
    _, z, labels = problem(np.ones((8, 2), dtype=int), 8, change)
    audit = unmix.audit_decoder(lambda v: v @ mixing.T, z, labels)
    found = audit.finding("C4")
    assert found.evidence["pairs_with_another_support"] == tied
    assert ("zeros do not separate them" in found.sentence) == bool(tied)
    assert set(audit.pairs["separated"]) == {not tied}


@pytest.mark.slow
def test_training_rows_count_where_a_domain_has_many(tmp_path):
    data = unmix.datasets.make_sparse_mixing(n_latents=2, n_features=5, n_domains=2, n_samples=300, random_state=1)
    labels = np.where(np.arange(300) < 240, "many", "few")
    model = unmix.CGVAE(2, n_restarts=1, max_epochs=1, verbose=0).fit(data.x, labels)
    found, audit = model.description_, model.audit()
    counts = dict(zip(audit.effects["domain"], audit.effects["rows"], strict=True))
    held_out = int((found.groups == model.domains_.index("few")).sum())
    assert counts == {"many": 240, "few": held_out}
    assert unmix.load(model.save(tmp_path / "run")).audit().to_dict() == audit.to_dict()


def test_effects_stand_beside_the_verdict():
    stub, z, labels = problem(SPARSE, 4)
    audit = audit_of(stub, z, labels)
    own = audit.effects[audit.effects["latent"] == "z1"]
    scaled = (z[:, 1] - z[:, 1].mean()) / z[:, 1].std()
    assert own["mean"].tolist() == pytest.approx([scaled[labels == u].mean() for u in range(4)])
    assert own["spread"].tolist() == pytest.approx([scaled[labels == u].std() for u in range(4)])
    between = np.mean(own["mean"] ** 2)
    assert audit.latents["change"][1] == pytest.approx(between)
    assert f"z1: identified ({between:.0%} of its own variance between domains, most in u" in str(audit)


def test_features_that_repeat_each_other_are_named_where_the_number_fails_too():
    audit = audit_of(*problem(SPARSE, 4), residual=left(0.5, 0.02, (("x1", "x2"),)))
    found = audit.finding("number of latents")
    assert found.verdict == "fails"
    assert "2.0% of a feature's variance; 0.28 with 0.1% counts" in found.sentence
    assert found.sentence.endswith("Features that repeat each other: x1 with x2.")
    assert audit.remedies[0].sentence.endswith("would have room for the dependence left in the residuals.")


def test_a_reason_names_all_of_the_block_that_nothing_separates():
    stub, z, labels = problem(DENSE, 8)
    z[:, 1] = 0.8 * z[:, 0] + 0.6 * z[:, 1]
    audit = audit_of(stub, z, labels)
    assert audit.latents["block"][0] == ["z0", "z1", "z2"]
    assert "It depends on z1 within domains, and nothing reliably separates it from z2." in audit.latents["reason"][0]


def test_small_shares_are_not_said_to_be_zero():
    stub, z, labels = problem(SPARSE, 4)
    z[:, 0] -= np.stack([z[labels == u, 0].mean() for u in range(4)])[labels]
    said = audit_of(stub, z, labels).latents["effect"][0]
    assert said == "under 1% of its own variance between domains"


def test_pairs_that_are_not_sure_need_changes_in_the_words_of_both_conditions():
    """C4 counts pairs on the most likely support, C3 those that nine tenths of the draws do not separate."""
    found = audit_of(*problem(DENSE, 8)).finding("C3")
    assert "3 pairs of latents are not reliably separated by the structure and need changes." in found.sentence


def test_a_latent_that_changes_separate_only_from_latents_without_effect_is_not_identified():
    stub, z, labels = problem(DENSE, 9)
    mixing = stub.mixing.numpy().copy()
    assert verdicts(unmix.audit_decoder(lambda v: v @ mixing.T, z, labels)) == ["identified"] * 3
    mixing[:, 2] = mixing[:, 1] + 0.03 * mixing[:, 2]
    audit = unmix.audit_decoder(lambda v: v @ mixing.T, z, labels)
    assert audit.latents["code"].tolist() == ["no_other_recovered", "no_effect_of_its_own", "no_effect_of_its_own"]
    assert "z1 and z2 by changes between domains alone" in audit.latents["reason"][0]
