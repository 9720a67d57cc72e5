"""What every metric shares: what a score carries, which inputs are taken, which are refused and with what words."""

import inspect
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from metric_calls import LONE, QUICK, TAKES_CLASSES, quick

from unmix import metrics
from unmix.errors import DataError, DomainError, SettingError


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_every_score_has_chance_interval_settings(name, normal):
    noisy = normal[:2000] + np.random.default_rng(18).standard_normal((2000, 3))
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again = quick(name, normal[:2000], noisy), quick(name, normal[:2000], noisy)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert isinstance(first, metrics.Score)
    assert first == again
    assert first.interval == again.interval
    assert first.interval[0] < first < first.interval[1]
    # Modularity of noise is well above 0: the largest of three equal amounts of bias.
    assert first.chance < first - 0.1
    assert first.settings["n_samples"] <= 2000
    assert {"n_bootstrap", "random_state"} <= set(first.settings)
    assert first.to_frame()["score"].tolist() == first.per_factor.tolist()
    copy = pickle.loads(pickle.dumps(first))
    assert copy == first
    assert copy.settings == first.settings
    assert quick(name, normal[:2000], noisy, random_state=1).interval != first.interval


@pytest.mark.parametrize("name", TAKES_CLASSES)
def test_classes_are_known_by_number_mask_or_all(name, normal, classes):
    z = np.column_stack([normal[:, 0], 10.0 * classes[:, 0] ** 2])[:2000]
    w = z + 0.01 * normal[:2000, 1:]
    numbers = quick(name, z, w, discrete=[1])
    assert numbers == quick(name, z, w, discrete=[False, True])
    assert numbers.settings["discrete"] == [1]
    assert (numbers.per_factor > 0.8).all()
    assert quick(name, z[:, 1:], w, discrete=True).settings["discrete"] == [0] if name == "mig" else True
    for wrong in ([2], [-1], [0.5], [True], "b"):
        with pytest.raises(SettingError, match=r"discrete must be True, False, column numbers from 0 to 1, or a mask"):
            quick(name, z, w, discrete=wrong)


@pytest.mark.parametrize("name", QUICK)
def test_every_metric_checks_its_arrays(name, normal):
    with pytest.raises(DataError, match="same rows, at least 4; got 4000 and 10"):
        quick(name, normal, normal[:10])
    with pytest.raises(DataError, match="z_hat holds values that are not finite"):
        quick(name, normal, normal * np.nan)
    with pytest.raises(DataError, match="z_true must hold numbers only; give classes as numbers"):
        quick(name, np.where(normal > 0, "yes", "no"), normal)
    with pytest.raises(DataError, match="z_true must be a matrix"):
        quick(name, normal[None], normal)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (SettingError, "kind must be 'linear' or 'nonlinear'; got 'cubic'", lambda z: metrics.r2(z, z, kind="cubic")),
        (
            SettingError,
            "max_samples must be a whole number ≥ 4; got 3",
            lambda z: metrics.r2(z, z, max_samples=3),
        ),
        (
            SettingError,
            "regressor must be one or several of .*'forest'",
            lambda z: metrics.dci(z, z, regressor="ridge"),
        ),
        (SettingError, r"regressor must be one or several of .*got \(\)", lambda z: metrics.dci(z, z, regressor=())),
        (SettingError, "n_bins must be a whole number ≥ 2; got 1", lambda z: metrics.mig(z, z, n_bins=1)),
        (
            SettingError,
            "n_permutations must be a whole number ≥ 0; got -1",
            lambda z: metrics.mig(z, z, n_permutations=-1),
        ),
        (
            SettingError,
            "n_votes must be a whole number ≥ 2",
            lambda z: metrics.factor_vae_score(z, z, n_votes=1),
        ),
        (
            SettingError,
            "group_size must be a whole number ≥ 2",
            lambda z: metrics.beta_vae_score(z, z, group_size=1),
        ),
        (SettingError, "method must be 'pearson' or 'spearman'", lambda z: metrics.udr([z, z], method="kendall")),
        (SettingError, "method must be 'pearson' or 'spearman'", lambda z: metrics.mcc(z, z, method=None)),
        (SettingError, "threshold must be a number, 0 or more", lambda z: metrics.udr([z, z], threshold="x")),
        (DataError, "two or more arrays with the same rows; got NoneType", lambda z: metrics.udr(None)),
        (DataError, "kl must hold one number per latent", lambda z: metrics.udr([z, z], kl=["a", "b"])),
        (SettingError, "regressor must be one or several of .*got 3", lambda z: metrics.dci(z, z, regressor=3)),
        (SettingError, "discrete must be True, False", lambda z: metrics.mig(z, z, discrete=[[1], [2, 3]])),
        (
            DataError,
            "assignment must hold a column number of mixing_hat for each of 2 factors",
            lambda z: fixed([[1], [2, 3]]),
        ),
        (
            DataError,
            r"two or more arrays with the same rows, at least 4; got shapes \[\(40",
            lambda z: metrics.udr([z]),
        ),
        (DataError, "two or more arrays with the same rows", lambda z: metrics.udr([z, z[:9]])),
        (DataError, r"runs\[1\] holds values that are not finite", lambda z: metrics.udr([z, z / 0])),
        (DataError, "kl must hold one number per latent for every", lambda z: metrics.udr([z, z], kl=[[1.0], [1.0]])),
        (DataError, "0 and 1 only", lambda z: metrics.support_recovery(z, z)),
        (DataError, "same features as rows; got 2 and 3", lambda z: metrics.support_recovery(np.eye(2), np.eye(3))),
        (SettingError, "share of the largest entry", lambda z: metrics.support_recovery(np.eye(2), z[:2], threshold=1)),
        (DataError, r"a different column of mixing_hat from 0 to 1, or -1; got \[0, 0\]", lambda z: fixed([0, 0])),
        (DataError, "assignment must name, for each of 2 factors", lambda z: fixed([0])),
        (DataError, "assignment must name", lambda z: fixed([0, 2])),
        (DataError, "assignment must name", lambda z: fixed([0.0, 1.0])),
        (SettingError, "extractor must name what made the features", lambda z: metrics.fid(z, z, extractor=" ")),
        (SettingError, "extractor must name", lambda z: metrics.kid(z, z, extractor=None)),
        (DataError, "same features and at least two rows", lambda z: metrics.fid(z, z[:, :1], extractor="x")),
        (DataError, "same features and at least two rows", lambda z: metrics.dipd(z[:1], z[:1], extractor="x")),
        (DataError, "first array of features must be a matrix", lambda z: metrics.fid(z[None], z, extractor="x")),
        (DataError, "Row n of both arrays must be one pair", lambda z: metrics.dipd(z, z[:9], extractor="x")),
        (DataError, r"Each of 21 blocks needs two images.*40", lambda z: metrics.kid(z, z, extractor="x", n_blocks=21)),
        (
            SettingError,
            "n_blocks must be a whole number ≥ 1",
            lambda z: metrics.kid(z, z, extractor="x", n_blocks=0),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_refusals(error, message, call, normal):
    with pytest.raises(error, match=message):
        call(normal[:40])


def fixed(assignment):
    return metrics.support_recovery(np.eye(2), np.eye(2), assignment=assignment)


def test_domains_in_any_form_that_fit_takes(normal):
    w = normal + np.random.default_rng(3).standard_normal(normal.shape)
    numbers = np.arange(len(normal)) % 3
    words = np.array(["a", "b", "c"])[numbers]
    expected = metrics.mcc(normal, w, domains=numbers, n_bootstrap=0).details["within_domain"]
    tables = [{"site": words}, pd.DataFrame({"site": words}), pl.DataFrame({"site": words}), pa.table({"site": words})]
    columns = [words, list(words), pd.Series(words, index=numbers), pl.Series(words), numbers[:, None]]
    for domains in (*tables, *columns):
        found = metrics.mcc(normal, w, domains=domains, n_bootstrap=0).details["within_domain"]
        np.testing.assert_allclose(found, expected)
    # Two columns make one domain of each pair.
    two = pd.DataFrame({"site": words, "batch": np.arange(len(normal)) % 2})
    found = metrics.mcc(normal, w, domains=two, n_bootstrap=0).details["within_domain"]
    expected = metrics.mcc(normal, w, domains=np.arange(len(normal)) % 6, n_bootstrap=0).details["within_domain"]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        (pd.DataFrame({"a": [0, 1, 0]}), "z_true has 40 rows, the domains have 3"),
        (["a", None] * 20, "'domain' has missing values"),
        (np.arange(40) / 3, "domains has 40 different values in 40 rows.*not a quantity"),
        ([[1], [2, 3]], "neither labels nor a table"),
        (pd.DataFrame(index=range(40)), "z_true has 40 rows, the domains have 0"),
    ],
)
def test_domains_that_cannot_be(domains, message, normal):
    with pytest.raises(DomainError, match=message):
        metrics.mcc(normal[:40], normal[:40], domains=domains)


class Attached:
    """What a tensor that still needs a gradient does."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")


UNUSABLE = [
    ([[1], [2, 3]], "must hold numbers only"),
    (1j * np.ones((40, 2)), "must hold numbers only.*complex"),
    (np.zeros((40, 2), dtype="datetime64[s]"), "must hold numbers only.*datetime64"),
    (Attached(), "must hold numbers only.*requires grad"),
]


@pytest.mark.parametrize(("values", "message"), UNUSABLE)
@pytest.mark.parametrize("name", QUICK)
def test_every_metric_refuses_what_holds_no_numbers(name, values, message, normal):
    for pair in ((values, normal[:40]), (normal[:40], values)):
        with pytest.raises(DataError, match=message):
            quick(name, *pair)


COUNTS = ("n_bootstrap", "random_state", "max_samples", "n_bins", "n_permutations", "n_votes", "group_size", "n_blocks")


@pytest.mark.parametrize("name", [*QUICK, *LONE])
def test_every_count_is_a_whole_number(name, normal):
    z = normal[:40]
    known = inspect.signature(getattr(metrics, name)).parameters
    for count in set(COUNTS) & set(known):
        for wrong in (-1, 1.5, "x", True):
            with pytest.raises((SettingError, TypeError), match=f"{count} must be|multiple values.*{count}"):
                quick(name, z, z, **{count: wrong}) if name in QUICK else LONE[name](z, **{count: wrong})
