"""Labels predicted across domains."""

import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import QUICK
from sklearn.base import clone
from sklearn.cluster import DBSCAN
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import unmix
from unmix import CGVAE, DomainClassifier, DomainRegressor
from unmix.errors import DataError, DomainError, SettingError

# What is checked here is the head; the models of unmix have these checks of their own.
CHEAP = StandardScaler()


@parametrize_with_checks(
    [
        DomainRegressor(CHEAP, LinearRegression(), representation="latents"),
        DomainClassifier(CHEAP, LogisticRegression(), representation="latents"),
    ]
)
def test_scikit_learn(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.fixture(scope="module")
def rows():
    """Four domains; the last is left out."""
    data = unmix.datasets.make_sparse_mixing(n_latents=2, n_features=5, n_domains=4, n_samples=1200, random_state=1)
    return data, data.domains < 3


@pytest.fixture(scope="module")
def model(rows):
    data, seen = rows
    return CGVAE(**QUICK | {"max_epochs": 10}).fit(data.x[seen], data.domains[seen])


def test_a_label_that_goes_by_the_latents_and_one_that_goes_by_the_place_in_the_domain(model, rows):
    data, seen = rows
    x, domains = data.x[seen], data.domains[seen]
    by_latent, by_noise = model.transform(x)[:, 0] ** 2, model.domain_noise(x, domains)[:, 1]
    head = DomainRegressor(model).fit(x, by_latent, domains=domains)
    assert head.representation_ == "latents"
    assert head.model_ is model
    assert set(head.choice_["left_out"]) == {"0", "1", "2"}
    assert head.score(data.x[~seen], model.transform(data.x[~seen])[:, 0] ** 2) > 0.9
    other = DomainRegressor(model).fit(x, by_noise, domains=domains)
    assert other.representation_ == "noise"
    with pytest.raises(DomainError, match="Pass domains to predict"):
        other.predict(data.x[~seen])
    with pytest.raises(DomainError, match="use adapt"):
        other.predict(data.x[~seen], data.domains[~seen])
    wider = other.adapt(data.x[~seen], domain=3)
    assert other.model_ is model
    truth = wider.model_.domain_noise(data.x[~seen], data.domains[~seen])[:, 1]
    assert wider.score(data.x[~seen], truth, domains=data.domains[~seen]) > 0.95


def test_features_are_taken_where_the_latents_lose_what_the_label_depends_on(rows):
    data, seen = rows
    domains, beside = data.domains[seen], np.random.default_rng(0).standard_normal((len(data.x), 1))
    x = np.hstack([data.x, beside])
    wider = CGVAE(**QUICK | {"max_epochs": 10}).fit(x[seen], domains)
    head = DomainRegressor(wider).fit(x[seen], beside[seen, 0], domains=domains)
    assert head.representation_ == "features"
    assert set(head.choice_["representation"]) >= {"latents", "noise", "features"}
    assert head.score(x[~seen], beside[~seen, 0]) > 0.95
    with pytest.raises(SettingError, match="takes a model of tables"):
        DomainRegressor(StandardScaler(), representation="features").fit(x, x[:, 0], domains=data.domains)


def test_noise_is_standard_normal_in_each_domain(model, rows):
    data, seen = rows
    noise = model.domain_noise(data.x[seen], data.domains[seen])
    for domain in range(3):
        own = noise[data.domains[seen] == domain]
        np.testing.assert_allclose(own.mean(axis=0), 0.0, atol=0.35)
        np.testing.assert_allclose(own.std(axis=0), 1.0, atol=0.35)


def test_content_latents_are_those_that_do_not_change(rows):
    data = unmix.datasets.make_sparse_mixing(
        n_latents=2, n_features=5, n_domains=4, n_samples=1200, n_unchanging=1, random_state=4
    )
    ideal = type("Ideal", (StandardScaler,), {})()
    z = np.sinh(data.z)
    head = DomainRegressor(ideal, representation="content").fit(z, z[:, 0], domains=data.domains)
    assert head.content_.tolist() == np.flatnonzero(data.unchanging).tolist()
    assert head.represent(z).shape == (1200, 1)
    changing = z[:, ~data.unchanging]
    both = np.hstack([changing, changing**3])
    with pytest.raises(DataError, match="0 of 2 do not"):
        DomainRegressor(ideal, representation="content").fit(both, z[:, 0], domains=data.domains)


def test_classifier_and_clones(model, rows):
    data, seen = rows
    x, domains = data.x[seen], data.domains[seen]
    label = np.where(model.transform(x)[:, 0] > 0, "high", "low")
    head = DomainClassifier(FrozenEstimator(model), LinearSVC()).fit(x, label, domains=domains)
    assert head.classes_.tolist() == ["high", "low"]
    assert head.score(x, label, domains=domains) > 0.9
    assert not hasattr(head, "predict_proba")
    again = clone(head).fit(x, label, domains=domains)
    assert again.model_ is model
    np.testing.assert_array_equal(again.predict(x, domains), head.predict(x, domains))
    named = pd.DataFrame(x, columns=list("abcde")).assign(site=domains)
    table = DomainClassifier(CGVAE(**QUICK | {"max_epochs": 1})).fit(
        named[list("abcde")], label, domains=named[["site"]]
    )
    assert table.feature_names_in_.tolist() == list("abcde")
    assert table.predict_proba(named[list("abcde")], domains).shape == (len(x), 2)


@pytest.mark.parametrize(
    ("head", "words", "error", "said"),
    [
        (DBSCAN(), {}, SettingError, "fit and predict; got DBSCAN"),
        (LogisticRegression(), {}, SettingError, "takes a regressor as head"),
        (None, {"representation": "all"}, SettingError, "representation must be one of"),
        (None, {"one": True}, DomainError, "All rows are of one domain"),
        (None, {"y": "nan"}, DataError, "1 of 60 labels are missing"),
        (None, {"y": "text"}, DataError, "use DomainClassifier"),
        (None, {"y": "short"}, DataError, "inconsistent numbers of samples"),
        (None, {"domains": "other"}, DomainError, "use adapt"),
    ],
)
def test_what_a_regressor_refuses(model, rows, head, words, error, said):
    x, domains = rows[0].x[rows[1]][:60], rows[0].domains[rows[1]][:60]
    y = np.arange(60.0)
    made = {"nan": np.where(y == 3, np.nan, y), "text": y.astype(str), "short": y[:-1]}
    y = np.char.add(made["text"], "a") if words.get("y") == "text" else made.get(words.get("y"), y)
    given = None if "one" in words else domains + 7 if "domains" in words else domains
    with pytest.raises(error, match=said):
        DomainRegressor(model, head, representation=words.get("representation", "auto")).fit(x, y, domains=given)


def test_a_class_of_one_domain_alone_is_named(model, rows):
    x, domains = rows[0].x[rows[1]], rows[0].domains[rows[1]]
    label = np.where(domains == 2, "rare", np.where(x[:, 0] > 0, "a", "b"))
    with pytest.raises(DataError, match="rare occurs in one domain only"):
        DomainClassifier(model).fit(x, label, domains=domains)
    stated = DomainClassifier(model, representation="latents").fit(x, label, domains=domains)
    assert "rare" in stated.classes_
    with pytest.raises(DataError, match="one class"):
        DomainClassifier(model).fit(x, np.ones(len(x), int), domains=domains)
    with pytest.raises(SettingError, match="with a prior of each domain"):
        DomainRegressor(StandardScaler(), representation="noise").fit(x, x[:, 0], domains=domains)
