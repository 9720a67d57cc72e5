"""Latents that a fit without one domain does not find again."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import QUICK
from typer.testing import CliRunner

from unmix import CGVAE
from unmix.audit.left_out import check_left_out
from unmix.baselines import IVAE
from unmix.cli import app
from unmix.errors import DataError, DomainError, SettingError


def test_what_is_not_found_again_is_named():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((500, 2))
    turned = np.column_stack([z[:, 0] + z[:, 1], z[:, 0] - z[:, 1]])
    again = z[:, ::-1] * [-2.0, 1.0] + 0.05 * rng.standard_normal((500, 2))
    fine = check_left_out(z, {"a": again, "b": again, "c": z}, ["z0", "z1"], {})
    assert fine.verdict == "holds"
    assert fine.could_fail
    one = np.column_stack([z[:, 0], turned[:, 0]])
    bad = check_left_out(z, {"a": again, "b": one, "c": z}, ["z0", "z1"], {"d": "too few rows"})
    assert bad.verdict == "fails"
    assert "z1 without b (0.7" in bad.sentence
    assert "z0" not in bad.sentence
    assert bad.sentence.endswith("Without d no model could be fitted.")
    assert check_left_out(z, {"a": z, "b": z}, ["z0", "z1"], {}).verdict == "cannot tell"
    json.dumps(bad.to_dict(), allow_nan=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::unmix.DataWarning")
def test_the_audit_has_a_row_of_it_on_request(frame, labels):
    words = QUICK | {"max_epochs": 1}
    frame, labels = frame[:150], labels[:150]
    model = CGVAE(**words | {"n_restarts": 1}).fit(frame, labels)
    found = model.audit(frame, pd.DataFrame({"domain": labels}), leave_one_out=True)
    row = found.finding("left-out")
    assert row.evidence["left_out"] == ["a", "b", "c"]
    assert found.to_dict()["findings"][-1]["code"] == "left_out_domains"
    assert len(found.findings) == len(model.audit().findings) + 1
    with pytest.raises(DataError, match=r"needs the rows of the fit: audit\(X, y, leave_one_out=True\)"):
        model.audit(leave_one_out=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::unmix.DataWarning")
def test_what_cannot_leave_domains_out(frame, labels, tmp_path):
    words = QUICK | {"max_epochs": 1, "n_restarts": 1}
    frame, labels = frame[:150], labels[:150]
    alone = CGVAE(**words).fit(frame)
    with pytest.raises(DomainError, match="needs a label for each row"):
        alone.audit(frame, leave_one_out=True)
    words_of_cli = ["audit", str(alone.save(tmp_path / "run")), "--leave-one-out"]
    with pytest.raises(SettingError, match="pass the file that the run was fitted on"):
        CliRunner().invoke(app, words_of_cli, catch_exceptions=False)
    takes = IVAE(**words).fit(frame, labels)
    with pytest.raises(DataError, match="The encoder of IVAE needs the domain"):
        takes.audit(frame, labels, leave_one_out=True)
