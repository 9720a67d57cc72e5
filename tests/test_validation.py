"""Settings that cannot be: the same refusal, by the same table, wherever a setting of that kind is taken."""

import numpy as np
import pytest

import unmix
from unmix import CGGAN
from unmix.baselines import JointDiagonalization
from unmix.errors import SettingError
from unmix.estimators.loading import ESTIMATORS
from unmix.estimators.settings import COMMON
from unmix.images import ImageClassifier
from unmix.validation import FLAG, NUMBERS, SEED, WIDTHS, one_of, random_seed, whole

KINDS = {**ESTIMATORS, "CGGAN": CGGAN}
CHECKS = {name: (COMMON if name != "CGGAN" else {}) | dict(kind.checks) for name, kind in KINDS.items()}
NOT_FINITE = (float("nan"), float("inf"), -float("inf"))


@pytest.mark.parametrize("name", KINDS)
def test_every_setting_of_an_estimator_is_in_its_table(name):
    own = set(KINDS[name]().get_params()) - {"device", "random_state"}
    # Of these what holds depends on another setting.
    assert own - set(CHECKS[name]) <= {"group_sizes"}
    KINDS[name]()._check_words()


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_value_of_a_setting_is_refused_with_the_value(name, frame, labels):
    for setting in CHECKS[name]:
        for value in (object(), b"1", *NOT_FINITE, np.array([[1.0]])):
            with pytest.raises(SettingError, match=rf"^{setting} must be .*; got "):
                KINDS[name](**{setting: value}).fit(frame, labels)


def test_numbers_are_numbers_in_any_form_and_flags_are_none():
    for value in (1, np.int8(1), np.uint64(1)):
        whole(1).need("n", value)
    for value in (True, np.True_, 1.0, "1", None, np.nan):
        with pytest.raises(SettingError, match=r"n must be a whole number ≥ 1; got "):
            whole(1).need("n", value)
    with pytest.raises(SettingError, match=r"n must be a whole number from 0 to 2; got 3"):
        whole(0, 2).need("n", 3)
    with pytest.raises(SettingError, match=r"n must be a whole number from 1 to n_latents = 2; got 3"):
        whole(1, 2, "n_latents").need("n", 3)
    for value in (True, np.False_):
        FLAG.need("flag", value)
    for value in (0, 1, "yes", None):
        with pytest.raises(SettingError, match="flag must be True or False; got "):
            FLAG.need("flag", value)
    for value in ((1, 2), [3], np.array([1, 2])):
        WIDTHS.need("hidden", value)
        NUMBERS.need("values", value)
    for value in ((), (0,), 3, "12", [[1]], (1.5,)):
        with pytest.raises(SettingError, match="hidden must be one or more widths"):
            WIDTHS.need("hidden", value)
    either = one_of({"a": 1}).or_else(None)
    either.need("word", None)
    with pytest.raises(SettingError, match=r"word must be None, or one of \['a'\]; got 'b'"):
        either.need("word", "b")


def seeded(what, random_state):
    """What a function draws with this ``random_state``."""
    if what == "generator":
        return unmix.datasets.make_sparse_mixing(n_samples=60, random_state=random_state).x
    if what == "sprites":
        return unmix.datasets.make_sprites(n_samples=4, size=16, n_domains=2, random_state=random_state).images
    if what == "digits":
        return unmix.datasets.load_digits_two_colours(8, random_state=random_state).images
    if what == "linear":
        rng = np.random.default_rng(0)
        return JointDiagonalization(random_state=random_state).fit_transform(
            rng.standard_normal((99, 3)), np.arange(99) % 3
        )
    return random_seed(random_state)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["seed", "generator", "sprites", "digits", "linear"])
def test_a_random_state_is_taken_in_the_same_forms_everywhere(what):
    np.testing.assert_array_equal(seeded(what, 3), seeded(what, np.int64(3)))
    drawn = [seeded(what, np.random.RandomState(7)) for _ in range(2)]
    np.testing.assert_array_equal(*drawn)
    np.random.seed(5)  # noqa: NPY002 - what None stands for in scikit-learn
    first = seeded(what, None)
    np.random.seed(5)  # noqa: NPY002
    np.testing.assert_array_equal(first, seeded(what, None))
    for value in (-1, 2**63, "x", 1.0, True):
        with pytest.raises(
            SettingError, match="random_state must be a whole number from 0 to 2⁶³ - 1, a RandomState or"
        ):
            seeded(what, value)
    assert SEED.holds(2**63 - 1)


def test_a_classifier_takes_a_random_state_too():
    x = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    words = {"width": 2, "max_epochs": 1}
    names = {
        ImageClassifier(**words, random_state=np.random.RandomState(1)).fit(x, np.arange(12) % 2).name_ for _ in "ab"
    }
    assert len(names) == 1
