"""The count before any data: free sets against brute force, plans, and remedies that do what they say."""

import json
from itertools import combinations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from typer.testing import CliRunner

import unmix
from unmix.audit.planning import plan_typical
from unmix.cli import app
from unmix.errors import DataError, SettingError
from unmix.theory import domains_needed, free_sets, undetermined

PRIME = 2_147_483_647


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


def count(support, n_domains, names=None):
    """A plan by the count alone."""
    return unmix.plan(support, n_domains, names, simulations=0)


@pytest.mark.parametrize(
    ("support", "expected"),
    [
        ([[1, 1, 0, 0]] * 3 + [[0, 1, 1, 0]] * 2 + [[1, 1, 1, 1]] * 2 + [[0, 0, 1, 1]], {"domains"}),
        # Two latents behind one feature: no number of domains makes up for the feature that is missing.
        ([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1]], {"feature", "fewer"}),
        (np.ones((8, 4), dtype=int).tolist(), {"domains"}),
    ],
)
def test_remedies_are_true(support, expected):
    """Every remedy, carried out, does what it says."""
    support = np.array(support)
    design = count(support, 2)
    before = set(design.latents["name"][design.latents["verdict"] == "identified"])
    kinds = set()
    for remedy in design.remedies:
        first = remedy.change.split()
        if remedy.change.startswith("One more feature"):
            i = int(first[6][1:])
            after, names = count(np.vstack([support, np.arange(4) == i]), 2), ["z0", "z1", "z2", "z3"]
            kinds.add("feature")
        elif remedy.change.startswith("A model without"):
            i = int(first[3].strip(",")[1:])
            names = [f"z{j}" for j in range(4) if j != i]
            after = count(np.delete(support, i, axis=1), 2, names)
            kinds.add("fewer")
        else:
            after, names = count(support, 2 + int(first[0])), ["z0", "z1", "z2", "z3"]
            kinds.add("domains")
        verdict = dict(zip(names, after.latents["verdict"], strict=True))
        assert remedy.mends
        assert all(verdict[name] == "identified" and name not in before for name in remedy.mends)
    assert expected <= kinds


def test_plan_counts_and_refuses():
    dense = count(np.ones((8, 4)), 4)
    assert dense.to_dict()["domains_needed"] == 9
    assert dense.latents["verdict"].tolist() == ["block"] * 4
    assert count(np.ones((8, 4)), 9).latents["verdict"].tolist() == ["identified"] * 4
    assert count(np.eye(4), 1).latents["domains_needed"].tolist() == [1] * 4
    empty = count([[1, 0], [1, 0]], 1)
    assert empty.latents["verdict"].tolist() == ["identified", "unsupported"]
    assert "No feature depends on it" in empty.latents["reason"][1]
    lost = count([[1, 1, 0], [0, 0, 1]], 9)
    assert lost.latents["verdict"].tolist() == ["unsupported", "unsupported", "identified"]
    assert str(empty).startswith("1 domain would separate z0 from all others (without sparsity 5); there is 1.")
    assert "No number of domains separates z1." in str(empty)
    assert str(lost).startswith("5 domains would separate z2 from all others (without sparsity 7); there are 9.")
    assert "No number of domains separates z0 and z1." in str(lost)
    for support in ([[0, 0], [0, 0]], [[1, 1]]):
        nothing = count(support, 3)
        assert nothing.domains_needed is None
        assert json.loads(json.dumps(nothing.to_dict()))["domains_needed"] is None
        assert nothing.latents["verdict"].tolist() == ["unsupported"] * 2
        assert str(nothing).startswith(
            "No number of domains separates any latent: the features determine none of them."
        )
        assert "more domain" not in str(nothing)
    named = count(pd.DataFrame({"a": [1, 0], "b": [0, 1]}), 1)
    assert named.latents["name"].tolist() == ["a", "b"]
    with pytest.raises(SettingError, match="0 and 1 only"):
        count([[0.5, 1.0]], 2)
    with pytest.raises(SettingError, match=r"n_domains must be a whole number ≥ 1; got 0"):
        count(np.eye(2), 0)
    with pytest.raises(SettingError, match="names must be 2 different names"):
        count(np.eye(2), 2, ["a", "a"])


def test_typical_plans_refuse_a_seed_that_is_none():
    for seed in (-1, 0.5, True):
        with pytest.raises(SettingError, match=rf"random_state must be a whole number from 0 .*; got {seed}"):
            plan_typical(0.5, 3, 9, 2, random_state=seed)


def test_free_sets_of_given_values_equal_brute_force():
    """Small whole numbers, many of them proportional: ranks by exact elimination, and often not the generic ones."""
    rng, special = np.random.default_rng(3), 0
    for _ in range(80):
        n = int(rng.integers(2, 7))
        support = rng.random((int(rng.integers(2, 3 * n)), n)) < 0.6
        values = support * rng.choice([-1, 1], support.shape)
        expected = []
        for a in range(n):
            rows = values[~support[:, a]].tolist()
            whole = rank_modulo(rows)
            expected.append({i for i in range(n) if rank_modulo([row[:i] + row[i + 1 :] for row in rows]) == whole})
        assert [set(free) for free in free_sets(support, jacobian=values, tolerance=1e-6)] == expected
        special += expected != [set(free) for free in free_sets(support)]
    assert special >= 5


def command(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.slow
def test_a_plan_says_what_rows_noise_and_changes_show():
    """Promised by the count, and seen only with rows enough, changes large enough and noise small enough."""
    support = [[1, 1], [1, 0], [1, 0], [1, 1], [0, 1], [1, 1]]
    dense = np.ones((8, 2))
    assert count(dense, 9).latents["verdict"].tolist() == ["identified"] * 2

    def seen(**words):
        found = unmix.plan(
            dense, 9, **{"rows": 200, "noise": 0.1, "shift": 1.0, "scale": 0.5, "simulations": 10, **words}
        )
        assert found.latents["expected"].tolist() == (found.latents["identified_in"] >= 0.8).tolist()
        return found.latents["identified_in"].min()

    assert seen() >= 0.8
    assert seen(shift=0.02, scale=0.01) == 0.0
    assert seen(rows=10) == 0.0
    assert seen(noise=4.0) < 0.8
    few = unmix.plan(support, 1, ["a", "b"], rows=12, simulations=2)
    assert "Expected to be identified (in 80% or more of 2 simulated experiments): none." in str(few)
    assert "Given: 12 rows per domain. Assumed: noise 0.3" in str(few)
    assert few.experiment.given == ("rows",)
    assert few.to_dict()["experiment"] == {"rows": 12, "noise": 0.3, "shift": 0.5, "scale": 0.25, "given": ["rows"]}
    assert str(few) == str(unmix.plan(support, 1, ["a", "b"], rows=12, simulations=2))
    assert f"tests need about {few.rows_needed} rows per domain" in str(few)
    assert few.rows_needed > 12
    assert "was not simulated" in str(count(support, 1))


@pytest.mark.slow
def test_a_plan_promises_no_more_than_rows_show():
    """Three lamps behind the same sensors, each moved by a third of its spread between domains of 45 rows."""
    sensors = [[1, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1], *[[1, 1, 1, 0, 0]] * 4, *[[1, 1, 1, 1, 1]] * 2]
    found = unmix.plan(sensors, 11, rows=45, noise=0.2, shift=0.3, scale=0.1, simulations=5)
    assert found.latents["verdict"].tolist() == ["identified"] * 5
    assert not found.latents["expected"][:3].any()
    assert found.latents["identified_in"][:3].max() < found.latents["identified_in"][3:].min()
    assert "promises more than so many rows can show" in str(found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"rows": 0}, "rows must be a whole number ≥ 1; got 0"),
        ({"rows": 2.5}, "rows must be a whole number ≥ 1"),
        ({"noise": -0.1}, "noise must be ≥ 0 and finite; got -0.1"),
        ({"shift": float("nan")}, "shift must be ≥ 0 and finite; got nan"),
        ({"scale": "large"}, "scale must be ≥ 0 and finite; got 'large'"),
        ({"simulations": -1}, "simulations must be a whole number ≥ 0; got -1"),
    ],
)
def test_a_plan_refuses_numbers_that_cannot_be(words, message):
    with pytest.raises(SettingError, match=message):
        unmix.plan(np.eye(2), 2, **words)


@pytest.mark.parametrize("words", [{"noise": 0.0}, {"shift": 0.0, "scale": 0.0}, {"rows": 1}, {"noise": 1e6}])
def test_extreme_experiments_are_simulated_too(words):
    for support in (np.eye(3), [[1, 1, 0], [0, 0, 1], [0, 0, 0]]):
        found = unmix.plan(support, 2, **words, simulations=1)
        assert found.latents["identified_in"].isin([0.0, 1.0]).all()


@pytest.mark.slow
def test_plan_on_the_command_line(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("feature,calcium,stress,growth\na,1,1,0\nb,1,1,0\nc,0,0,1\n")
    content = json.loads(command("plan", path, "--domains", 2, "--json", "--simulations", 0).stdout)
    assert set(content) == {
        *("domains_needed", "domains_needed_without_sparsity", "latents", "experiment", "simulations", "rows_needed"),
    }
    assert content["latents"][0] == {
        "name": "calcium",
        "verdict": "block",
        "block": ["calcium", "stress"],
        "domains_needed": 5,
        "identified_in": None,
        "change_seen_in": None,
        "expected": None,
    }
    assert content["latents"][2]["block"] is None
    assert "calcium: block {calcium, stress}" in command("plan", path, "--domains", 2, "--simulations", 0).stdout
    drawn = command(
        "plan", "--density", 0.3, "--latents", 3, "--features", 9, "--domains", 3, "--json", "--simulations", 0
    )
    assert [latent["name"] for latent in json.loads(drawn.stdout)["latents"]] == ["z0", "z1", "z2"]
    assert (
        "100 random supports, each entry 1 with probability 0.3"
        in command("plan", "--density", 0.3, "--domains", 3, "--simulations", 0).stdout
    )
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
    path.write_text("a,b\n0,0\n0,0\n")
    nothing = command("plan", path, "--simulations", 1, "--rows", 30).stdout
    assert nothing.startswith("No number of domains separates any latent")
    assert "a: unsupported. No feature depends on it. Simulated: identified in 0%." in nothing
    assert "Given: 30 rows per domain. Assumed: noise" in nothing
    assert json.loads(command("plan", path, "--json", "--simulations", 0).stdout)["domains_needed"] is None
    for text, message in (
        ("a,b\n1,2\n", "must hold 0 and 1, one row for each feature"),
        ("1,0\n0,1\n", "has no header: its first line is 1, 0"),
        ("a,a\n0,1\n", "Column names must be unique, and these are not: 'a'"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            raise command("plan", path).exception
    # As pandas writes it, with an index that has no name; and a name that only looks like a repeated one.
    pd.DataFrame([[1, 0], [1, 1], [0, 1]], columns=["IL", "IL.2"]).to_csv(path)
    found = json.loads(command("plan", path, "--domains", 3, "--json", "--simulations", 0).stdout)["latents"]
    assert [latent["name"] for latent in found] == ["IL", "IL.2"]
    assert list(count(pl.DataFrame({"u": [1, 0], "v": [0, 1]}), 2).latents["name"]) == ["u", "v"]
