"""The calibration study's own count of what truly holds, and its table, on cases whose answer is known."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from unmix.errors import SettingError

SOURCE = Path(__file__).parents[1] / "benchmarks" / "audit_calibration.py"
DENSE, SPLIT = np.ones((8, 3), dtype=int), np.array([[1, 1, 0]] * 3 + [[0, 0, 1]] * 2)


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("audit_calibration", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def holds(study, support, n_domains, *, injective=True, unchanging=(), **words):
    n = support.shape[1]
    data = SimpleNamespace(
        z=np.zeros((1, n)),
        full_support=support,
        unchanging=np.isin(np.arange(n), unchanging),
        check_injective=lambda: SimpleNamespace(injective=injective),
    )
    words = {"n_domains": n_domains, "change": "both", "source": "gaussian", "dependence": 0.0} | words
    return study.conditions_hold(data, words).tolist()


def test_what_truly_holds_is_counted_from_support_and_changes(study):
    assert holds(study, np.eye(3, dtype=int), 1) == [True] * 3
    assert holds(study, DENSE, 6) == [False] * 3
    assert holds(study, DENSE, 7) == [True] * 3
    assert holds(study, DENSE, 4, change="scale") == [True] * 3
    assert holds(study, DENSE, 4, change="scale", source="skewed") == [False] * 3
    assert holds(study, DENSE, 7, change="scale", source="skewed") == [True] * 3
    assert holds(study, DENSE, 12, change="mean") == [False] * 3
    assert holds(study, DENSE, 12, source="laplace") == [False] * 3
    assert holds(study, DENSE, 12, unchanging=[1]) == [False] * 3
    assert holds(study, DENSE, 12, dependence=0.3) == [False] * 3
    assert holds(study, DENSE, 12, injective=False) == [False] * 3
    assert holds(study, SPLIT, 4) == [False, False, True]
    assert holds(study, SPLIT, 5, unchanging=[2]) == [True] * 3


def test_the_table_counts_latents_problems_and_failures(study):
    def problem(key, verdicts, correlations):
        latents = [
            {"verdict": verdict, "correlation": correlation, "conditions_hold": correlation > 0.9}
            for verdict, correlation in zip(verdicts, correlations, strict=True)
        ]
        return {"key": key, "error": None, "n_domains": 3, "density": 0.5, "agreement": 0.99, "latents": latents}

    problems = [
        problem("1", ["identified", "identified"], [0.99, 0.5]),
        problem("2", ["block", "identified"], [0.97, 0.96]),
        {"key": "3", "error": "ValueError: none"},
    ]
    table = study.reliability(problems)
    whole = table.iloc[0]
    assert (whole["problems"], whole["latents"], whole["failed"]) == (2, 4, 1)
    assert (whole["called_identified"], whole["of_these_right"]) == (3, 0.667)
    assert (whole["right_and_conditions_hold"], whole["of_these_called"]) == (3, 0.667)
    assert (whole["of_these_right_low"], whole["of_these_right_high"]) == (0.5, 1.0)
    only = table[(table["kind"] == "verdict") & (table["value"] == "block")].iloc[0]
    assert (only["latents"], only["called_identified"]) == (1, 0)
    perfect = study.reliability([problem(str(k), ["identified"], [0.99]) for k in range(20)]).iloc[0]
    assert perfect["of_these_right_low"] == pytest.approx(0.025 ** (1 / 20), abs=1e-3)
    assert study.reliability(problems[2:]).iloc[0]["failed"] == 1


def test_a_flow_without_room_for_extra_edges_goes_without_them(study):
    words = study.draw_problem(1028)
    assert (words["mixing"], words["violation"]) == ("flow", 0.3)
    drawn, data = study.draw_data(words, 60)
    assert drawn == words | {"violation": 0.0}
    assert (data.full_support == data.support).all()
    with pytest.raises(SettingError):
        study.draw_data(words | {"violation": 0.0, "n_domains": 0}, 60)


def test_a_problem_that_fails_is_a_row_with_its_error(study, monkeypatch):
    monkeypatch.setattr(study.datasets, "make_sparse_mixing", lambda **words: 1 / 0)
    row = study.audit_problem(1000, {"samples": 100, "restarts": 1, "epochs": 1})
    assert row["error"] == "ZeroDivisionError: division by zero"
    assert row["key"] == "1000"
