"""Judges of translated images, against translations that are known to be right, half right, or wrong."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.exceptions import NotFittedError

from unmix import CGGAN, CGVAE, datasets, metrics, read_images
from unmix.datasets.builtin import TWO_COLOURS
from unmix.errors import DataError, SettingError
from unmix.images import ImageClassifier, judge_translations, train_judges


@pytest.fixture(scope="module")
def digits():
    data = datasets.load_digits_two_colours(8)
    content, held_out = data.factors["digit"].astype(int).to_numpy(), np.arange(len(data.images)) % 5 == 0
    return data, content, held_out, train_judges(data.images, content, data.domains, held_out, width=16, max_epochs=20)


class Painter:
    """Paints the ink of an image in the colours of the target."""

    domains_ = tuple(TWO_COLOURS)

    def translate(self, images, domains, *, to):
        old = np.array([TWO_COLOURS[name] for name in domains], dtype=float)
        ink, ground = old[:, 0, None, None], old[:, 1, None, None]
        share = ((images - ground) * (ink - ground)).sum(-1) / ((ink - ground) ** 2).sum(-1)
        new = np.array(TWO_COLOURS[to], dtype=float)
        return np.rint(share[..., None] * new[0] + (1 - share[..., None]) * new[1]).clip(0, 255).astype(np.uint8)


class Idle(Painter):
    def translate(self, images, domains, *, to):
        return images


class Shuffler(Painter):
    def translate(self, images, domains, *, to):
        return np.roll(super().translate(images, domains, to=to), 1, axis=0)


def judged(model, digits):
    data, content, held_out, judges = digits
    return judge_translations(model, judges, data.images[held_out], content[held_out], data.domains[held_out])


def test_judges_tell_right_translations_from_wrong_ones(digits):
    judges, held_out = digits[3], digits[2]
    right, idle, shuffled = (judged(model(), digits).set_index("to") for model in (Painter, Idle, Shuffler))
    assert right.index.tolist() == [*sorted(TWO_COLOURS), "all"]
    assert right.loc["all", "n"] == 3 * held_out.sum()
    assert right.loc["all", "content"] == pytest.approx(judges.real_content, abs=0.03)
    assert judges.real_content > 0.8
    assert right.loc["all", "real_content"] == judges.real_content
    assert (right["style"] > 0.97).all()
    assert idle.loc["all", "content"] == pytest.approx(judges.real_content, abs=1e-9)
    assert idle.loc["all", "style"] < 0.02
    assert shuffled.loc["all", "content"] < 0.25
    assert (right["content_low"] <= right["content"]).all()
    assert (right["content"] <= right["content_high"]).all()


@pytest.mark.slow
def test_domains_that_are_numbers(digits):
    """Labels of domains are text in a fitted model, whatever they were."""
    data, content, held_out, judges = digits
    numbers = np.unique(data.domains, return_inverse=True)[1]
    names = np.unique(data.domains)

    class Numbered(Painter):
        domains_ = tuple(str(k) for k in range(len(names)))

        def translate(self, images, domains, *, to):
            return super().translate(images, names[domains], to=names[int(to)])

    judges = train_judges(data.images, content, numbers, held_out, width=16, max_epochs=20)
    assert judges.real_style > 0.97
    kept = slice(0, None, 5)
    found = judge_translations(Numbered(), judges, data.images[kept], content[kept], numbers[kept])
    assert (found["style"] > 0.97).all()


def test_one_domain_that_all_images_come_from_is_no_target(digits):
    data, content, held_out, judges = digits
    own = held_out & (data.domains == data.domains[0])
    found = judge_translations(Painter(), judges, data.images[own], content[own], data.domains[own])
    assert len(found) == 4
    assert data.domains[0] not in set(found["to"])


def test_content_that_the_judge_never_saw_is_refused(digits):
    data, content, _, judges = digits
    with pytest.raises(DataError, match="labels that the judge never saw, such as '10'"):
        judge_translations(Painter(), judges, data.images[:9], content[:9] + 10, data.domains[:9])


def test_accuracies_equal_a_loop():
    rng = np.random.default_rng(0)
    source = np.repeat(np.arange(40), 3)
    true, targets = rng.integers(3, size=40)[source], np.tile([9, 10, 11], 40)
    predicted = np.where(rng.random(120) < 0.7, true, rng.integers(3, size=120))
    score = metrics.content_accuracy(predicted.astype(float), true.astype(str), domains=targets, source=source)
    frame = score.to_frame()
    assert frame["domain"].tolist() == ["9", "10", "11"]
    assert frame["n"].tolist() == [40, 40, 40]
    for place, target in enumerate((9, 10, 11)):
        assert score.per_factor[place] == np.mean(predicted[targets == target] == true[targets == target])
    assert score == np.mean(predicted == true)
    shuffled = [np.mean(rng.permutation(predicted) == true) for _ in range(400)]
    assert score.chance == pytest.approx(np.mean(shuffled), abs=0.02)
    assert (frame["low"] < frame["score"]).all()
    assert (frame["score"] < frame["high"]).all()


def test_translations_of_one_image_are_resampled_together():
    rng = np.random.default_rng(1)
    hit = np.repeat(rng.random(60) < 0.5, 4)
    targets = np.tile(["a", "b", "c", "d"], 60)
    read = np.where(hit, targets, "x")
    widths = [
        np.diff(metrics.style_accuracy(read, targets, source=source, n_bootstrap=2000).interval)[0]
        for source in (np.repeat(np.arange(60), 4), None)
    ]
    assert widths[0] / widths[1] == pytest.approx(2.0, rel=0.1)
    draws = [np.mean(hit[::4][rng.integers(60, size=60)]) for _ in range(2000)]
    assert widths[0] == pytest.approx(2 * 1.96 * np.std(draws), rel=0.1)


def test_all_hits_or_none_leave_room_for_what_the_images_did_not_show():
    source = np.repeat(np.arange(30), 2)
    for read, hits in (("a", 30), ("b", 0)):
        own = metrics.content_accuracy([read] * 60, ["a"] * 60, domains=["u", "v"] * 30, source=source)
        exact = stats.binomtest(hits, 30).proportion_ci(0.95, method="exact")
        assert own.interval == pytest.approx((exact.low, exact.high))
        assert own.to_frame()[["low", "high"]].to_numpy() == pytest.approx(np.tile([exact.low, exact.high], (2, 1)))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("true must hold one label for each of 4 rows; got shape", {"true": [1, 2]}),
        ("predicted must hold one label per row; got shape", {"predicted": [[1, 2], [2, 1]]}),
        ("predicted must hold one label per row; got shape", {"predicted": []}),
        (r"domains has missing values \(NaN\), first in rows \[1\]", {"domains": ["a", None, "b", "a"]}),
        ("source must hold one label for each of 4 rows", {"source": [1]}),
    ],
)
def test_labels_that_cannot_be(message, words):
    given = {"predicted": [1, 2, 3, 4], "true": [1, 2, 3, 4], **words}
    with pytest.raises(DataError, match=message):
        metrics.content_accuracy(given.pop("predicted"), given.pop("true"), **given)


def test_what_is_held_out_must_be_a_mask(digits):
    data, content, held_out, _ = digits
    for wrong in (held_out[:3], np.flatnonzero(held_out), np.zeros_like(held_out), ~np.zeros_like(held_out)):
        with pytest.raises(DataError, match="held_out must be True for some and False for others of 1797 images"):
            train_judges(data.images, content, data.domains, wrong)
    with pytest.raises(DataError, match="content must hold one label for each of 1797 rows"):
        train_judges(data.images, content[:5], data.domains, held_out)


def test_what_read_images_returns_can_be_judged(digits):
    data, content, held_out, judges = digits
    few = np.flatnonzero(held_out)[:40]
    table = read_images(data.images[few], data.domains[few])
    found = judge_translations(Painter(), judges, table, content[few], None)
    expected = judge_translations(Painter(), judges, data.images[few], content[few], data.domains[few])
    pd.testing.assert_frame_equal(found, expected)
    half = np.arange(40) % 2 == 0
    trained = [
        train_judges(images, content[few], domains, half, width=2, max_epochs=1)
        for images, domains in ((table, None), (data.images[few], data.domains[few]))
    ]
    assert trained[0].style.name_ == trained[1].style.name_


def test_models_and_judges_that_are_none(digits):
    data, content, held_out, judges = digits
    given = data.images[held_out], content[held_out], data.domains[held_out]
    with pytest.raises(SettingError, match="judges must be what train_judges returned; got tuple"):
        judge_translations(Painter(), (judges.content, judges.style), *given)
    for wrong in (None, "model"):
        with pytest.raises(SettingError, match="model must be a fitted CGGAN, or have domains_ and translate"):
            judge_translations(wrong, judges, *given)
    with pytest.raises(NotFittedError):
        judge_translations(CGGAN(), judges, *given)
    with pytest.raises(NotFittedError):
        judge_translations(CGVAE(), judges, *given)
    with pytest.raises(DataError, match="There is nothing at photos"):
        judge_translations(Painter(), judges, "photos", *given[1:])
    with pytest.raises(DataError, match="There is nothing at photos"):
        train_judges("photos", content, data.domains, held_out)

    class Lonely(Painter):
        domains_ = (data.domains[0],)

    own = given[2] == data.domains[0]
    with pytest.raises(DataError, match="there is no other to translate them to"):
        judge_translations(Lonely(), judges, *(part[own] for part in given))


@pytest.mark.slow
def test_only_features_of_content_see_that_a_perfect_translation_keeps_it(digits, tmp_path):
    data, content, _, _ = digits
    moved = data.domains != "white on red"
    made = Painter().translate(data.images[moved], data.domains[moved], to="white on red")

    def distance(labels, **words):
        """As a share of the distance of unrelated pairs."""
        judge = ImageClassifier(width=16, max_epochs=10, **words).fit(data.images, labels)
        first, second = judge.features(data.images[moved]), judge.features(made)
        again = ImageClassifier.load(judge.save(tmp_path / "judge"))
        np.testing.assert_array_equal(again.features(made), second)
        assert ("instance-norm" in judge.name_) == ("instance_norm" in words)
        return metrics.dipd(first, second, extractor=judge.name_).details["relative"]

    assert distance(data.domains) > 0.95
    assert distance(content, instance_norm=True) < 0.65 < distance(content) < 0.8
