"""Rows that an audit cannot take as they are: the reason is said, whatever else the verdicts are."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import QUICK
from typer.testing import CliRunner

import unmix
from unmix import CGVAE, DataWarning
from unmix.audit import notes as codes
from unmix.cli import app
from unmix.errors import DomainError


def noted(model, x, y):
    """Codes of the notes of an audit; each is a warning too, in the same words."""
    with pytest.warns(DataWarning) as warned:
        audit = model.audit(x, y)
    assert [str(warning.message) for warning in warned] == [note.sentence for note in audit.notes]
    assert all(note.sentence in str(audit) for note in audit.notes)
    assert [note["code"] for note in json.loads(audit.to_json())["notes"]] == [note.code for note in audit.notes]
    return {note.code: note for note in audit.notes}


@pytest.fixture(scope="module")
def fresh(frame):
    """Rows near those of the fit, and none of them."""
    return frame + 0.01


def test_rows_that_the_fit_has_not_seen_need_no_note(fitted, fresh, labels):
    assert fitted.audit(fresh, labels).notes == fitted.audit().notes == ()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["all", "some", "shuffled", "array of names", "read from a file"])
def test_training_rows_are_known_again(fitted, frame, fresh, labels, tmp_path, how):
    x, y, expected = frame, labels, 540
    if how == "some":
        x, expected = pd.concat([frame.iloc[:60], fresh.iloc[60:]]), None
    if how == "shuffled":
        order = np.random.default_rng(0).permutation(600)
        x, y = frame.iloc[order], labels[order]
    if how == "read from a file":
        frame.to_csv(tmp_path / "t.csv", index=False)
        x = pd.read_csv(tmp_path / "t.csv")
    if how == "array of names":
        x = frame.astype(np.float32)
    note = noted(fitted, x, y)[codes.TRAINING_ROWS]
    assert note.evidence["rows"] == 600
    if expected:
        assert note.evidence["training_rows"] == pytest.approx(expected, abs=10)
    else:
        assert 40 <= note.evidence["training_rows"] <= 60


def test_training_rows_are_known_again_by_a_loaded_model_and_on_the_command_line(fitted, frame, labels, tmp_path):
    folder = fitted.save(tmp_path / "m")
    assert codes.TRAINING_ROWS in noted(unmix.load(folder), frame, labels)
    frame.assign(domain=labels).to_csv(tmp_path / "t.csv", index=False)
    with pytest.warns(DataWarning, match="The fit was trained on 540 or more of these 600 rows"):
        shown = CliRunner().invoke(app, ["audit", str(folder), str(tmp_path / "t.csv"), "--json"])
    assert [note["code"] for note in json.loads(shown.stdout)["notes"]] == [codes.TRAINING_ROWS]


@pytest.mark.slow
def test_equal_rows_of_a_coarse_table_are_no_training_rows(labels):
    """Two columns of four values each: every fresh row equals some training row."""
    x, other = np.random.default_rng(0).integers(4, size=(2, 600, 2)).astype(float)
    model = CGVAE(**{**QUICK, "max_epochs": 1}).fit(x, labels)
    assert model.audit(other, labels).notes == ()


@pytest.mark.slow
def test_a_fit_that_held_nothing_out_says_so(frame, labels, tmp_path):
    model = CGVAE(**{**QUICK, "max_epochs": 1, "validation_fraction": 0.0}).fit(frame, labels)
    assert [note.code for note in model.audit().notes] == [codes.TRAINING_ROWS]
    assert "No rows were held out" in model.report(tmp_path / "r.html").read_text()


@pytest.mark.parametrize(("n_rows", "few"), [(150, True), (260, False)])
def test_a_fit_of_few_rows_says_how_to_audit_more(frame, labels, n_rows, few):
    """A tenth of the rows is held out; below 90 rows in a domain the others do not count."""
    model = CGVAE(**{**QUICK, "max_epochs": 1}).fit(frame[:n_rows], np.resize(["a", "b", "c"], n_rows))
    assert [note.code for note in model.audit().notes] == [codes.FEW_HELD_OUT] * few
    if few:
        assert "unmix audit RUN TABLE" in model.audit().notes[0].sentence
        with pytest.warns(DataWarning, match="was trained on 135 or more of these 150 rows"):
            assert model.audit(frame[:n_rows], np.resize(["a", "b", "c"], n_rows)).findings[0].verdict != "cannot tell"


@pytest.mark.parametrize("n_still", [1, 5])
def test_features_that_do_not_vary_are_named(fitted, fresh, labels, n_still):
    still = list(fresh.columns[:n_still])
    note = noted(fitted, fresh.assign(**dict.fromkeys(still, 0.5)), labels)[codes.CONSTANT_FEATURES]
    assert note.evidence["features"] == still
    assert ("No feature varies" in note.sentence) == (n_still == 5)


@pytest.fixture(scope="module")
def longer(problem, labels):
    return CGVAE(**{**QUICK, "max_epochs": 20}).fit(problem.x, labels)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["unit", "offset", "other columns", "one column"])
def test_rows_of_other_columns_or_units_are_named(longer, problem, labels, how):
    x = problem.x + 0.01
    if how == "unit":
        x = 1000 * x
    if how == "offset":
        x = x + 40.0
    if how == "other columns":
        x = np.random.default_rng(0).standard_normal(x.shape)
    if how == "one column":
        x[:, 2] *= 100
    note = noted(longer, x, labels)[codes.ROWS_UNLIKE_FIT]
    assert "Are they the same columns" in note.sentence
    assert note.evidence["left"] > note.evidence["left_at_fit"] + 0.1
    assert note.evidence["features"] == {"one column": ["x2"], "other columns": []}.get(how, note.evidence["features"])


@pytest.mark.slow
def test_combinations_of_levels_that_were_not_there_are_counted_or_refused(frame, fresh, labels):
    u = pd.DataFrame({"a": np.where(labels == "a", "a", "b"), "s": np.where(labels == "c", 1, 0)})
    model = CGVAE(**{**QUICK, "max_epochs": 1}).fit(frame, u)
    assert model.domains_ == ("a · 0", "b · 0", "b · 1")
    other = u.assign(s=np.where(np.arange(600) < 90, 1, u["s"]))
    lost = int(((other["a"] == "a") & (other["s"] == 1)).sum())
    assert noted(model, fresh, other)[codes.ROWS_WITHOUT_DOMAIN].evidence["left_out"] == lost
    with pytest.raises(DomainError, match="No row is of a combination of domain levels that was there at fit"):
        model.audit(fresh, pd.DataFrame({"a": ["a"] * 600, "s": [1] * 600}))


@pytest.mark.slow
def test_one_domain_and_absent_domains_are_reasons(fitted, frame, fresh, labels):
    one = labels == "a"
    alone = fitted.audit(fresh[one], labels[one])
    assert alone.finding("C1").evidence["absent_domains"] == ["b", "c"]
    assert alone.finding("C3").verdict == "cannot tell"
    assert not alone.finding("C3").could_fail
    single = CGVAE(**{**QUICK, "max_epochs": 1}).fit(frame)
    assert single.audit(fresh).finding("C3").verdict == "fails"
    assert single.audit(fresh).domains_present == 1
