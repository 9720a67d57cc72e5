"""Judges of translated images, against translations that are known to be right, half right, or wrong."""

import numpy as np
import pytest

from unmix import datasets
from unmix.bench.translation import judge_translations, train_judges
from unmix.datasets.builtin import TWO_COLOURS


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
    assert right.index.tolist() == [*TWO_COLOURS, "all"]
    assert right.loc["all", "n"] == 3 * held_out.sum()
    assert right.loc["all", "content"] == pytest.approx(judges.real_content, abs=0.03)
    assert judges.real_content > 0.8
    assert (right["style"] > 0.97).all()
    assert idle.loc["all", "content"] == pytest.approx(judges.real_content, abs=1e-9)
    assert idle.loc["all", "style"] < 0.02
    assert shuffled.loc["all", "content"] < 0.25
    assert (right["content_low"] <= right["content"]).all()
    assert (right["content"] <= right["content_high"]).all()
