"""Codes of an audit: every one that the source gives is listed in the docs, and words can change beside them."""

import copy
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from audit_stubs import DENSE, SPARSE, audit_of, problem

import unmix
from unmix.audit import finding, sparsity, verdicts
from unmix.audit.check import Check, CheckResult
from unmix.audit.finding import Finding, Said
from unmix.audit.verdicts import CHECKS

SOURCE = Path(finding.__file__).parent
DOCS = Path(__file__).parents[1] / "docs" / "audit.md"


def listed_codes():
    part = DOCS.read_text(encoding="utf-8").split("## Codes")[1].split("\n## ")[0]
    return set(re.findall(r"\b[a-zC][a-z_0-9]*\b", part))


def test_every_code_of_the_source_is_in_the_docs():
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCE.glob("*.py"))
    given = set(re.findall(r"(?:Said|Remedy)\(\s*\"(\w+)\"", text)) | {check.code for check in CHECKS}
    given |= {"more_features", "fewer_latents"}
    assert len(given) > 25
    assert given <= listed_codes()


def test_words_carry_their_code_and_copies_keep_it():
    said = Said("constant", "is constant")
    for other in (said, copy.deepcopy(said), pickle.loads(pickle.dumps(said))):
        assert (other, other.code) == ("is constant", "constant")
    assert json.dumps(said) == '"is constant"'


@pytest.mark.parametrize(
    ("support", "n_domains", "words", "codes"),
    [
        (SPARSE, 3, {}, ["separated"] * 3),
        (DENSE, 5, {}, ["not_enough_changes"] * 3),
        (SPARSE, 3, {"width": [0.05, 9.7, 0.05]}, ["separated", "collapsed", "separated"]),
    ],
)
def test_an_audit_gives_codes(support, n_domains, words, codes):
    content = json.loads(audit_of(*problem(support, n_domains), **words).to_json())
    assert [row["code"] for row in content["latents"]] == codes
    assert [row["code"] for row in content["findings"]] == [check.code for check in CHECKS]
    assert all(row["code"] in listed_codes() for kind in ("latents", "findings", "remedies") for row in content[kind])
    assert all(type(row["code"]) is str for row in content["latents"])


def test_faults_have_codes_where_nothing_can_be_tested():
    z = np.random.default_rng(0).standard_normal((12, 2))
    few = unmix.audit_decoder(lambda values: values @ np.ones((2, 4)), z)
    assert few.latents[["verdict", "code"]].values.tolist() == [["not tested", "too_few_rows"]] * 2
    assert [remedy.code for remedy in few.remedies] == ["more_rows"]
    assert (few.latents["remedy"] == "20 audited rows or more instead of 12 would let the latents be tested.").all()
    still = unmix.audit_decoder(lambda values: values @ np.eye(2, 4), np.ones((60, 2)))
    assert still.latents["code"].tolist() == ["constant"] * 2
    assert still.finding("C1").evidence["fault_codes"] == {"z0": "constant", "z1": "constant"}


def test_another_check_is_its_own_and_a_place_in_the_list(monkeypatch):
    def bright(subject, context):
        assert context.result(sparsity.CHECK).evidence.edges.shape[1] == subject.n_latents
        said = {0: Said("too_bright", "is too bright")}
        return CheckResult(Finding("C9 brightness", "fails", True, "z0 is too bright."), None, said)

    given = problem(SPARSE, 6)
    before = audit_of(*given)
    monkeypatch.setattr(verdicts, "CHECKS", (*CHECKS, Check("C9 brightness", bright)))
    audit = audit_of(*given)
    assert [found.code for found in audit.findings] == [*(check.code for check in CHECKS), "C9"]
    assert audit.finding("C9").sentence == "z0 is too bright."
    row = audit.latents.iloc[0]
    assert (row["verdict"], row["code"], row["reason"]) == ("unsupported", "too_bright", "It is too bright.")
    assert audit.latents[1:].equals(before.latents[1:])
