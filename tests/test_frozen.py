"""Every estimator gives what it gave before, and folders saved before are read: what a change of structure must keep.

Where results are meant to change, ``python tests/frozen.py`` writes the data of this test anew.
"""

import json

import frozen
import numpy as np
import pytest

import unmix

# Of the largest number of an array. Changes of the data by 1e-6 move it by at most 0.5 %, as other rounding would.
_TOLERANCE = 0.02


@pytest.fixture(scope="module")
def before():
    with np.load(frozen.ARRAYS) as arrays:
        return dict(arrays)


def assert_same(found, expected, tolerance=_TOLERANCE):
    if expected.dtype.kind == "U":
        assert str(found) == str(expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", frozen.NAMES)
def test_a_small_fit_gives_what_it_gave_before(name, before):
    found = frozen.key_facts(name, frozen.fitted(name)[0])
    assert set(found) == {key for key in before if key.split("/")[0] == name}
    for key, value in found.items():
        assert_same(value, before[key])


@pytest.mark.parametrize("name", frozen.SAVED)
def test_a_folder_saved_before_is_read_and_saved_again(name, before, tmp_path):
    folder = frozen.DATA / f"saved-{name}"
    model = unmix.load(folder, device="cpu")
    x, y = frozen.table()
    for key, value in frozen.shown(model, x[:8], y[:8]).items():
        assert_same(value[:4], before[f"saved-{name}/{key}"], 1e-4)
    again = model.save(tmp_path / "again")
    assert sorted(file.name for file in again.iterdir()) == sorted(file.name for file in folder.iterdir())
    for file in ("schema.json", "history.jsonl"):
        assert (again / file).read_text() == (folder / file).read_text()
    own, old = (json.loads((place / "config.json").read_text()) for place in (again, folder))
    # Settings that came later stand there with their defaults.
    later = {name: value for name, value in own["settings"].items() if name not in old["settings"]}
    assert later.items() <= type(model)().get_params().items()
    assert {**own, "versions": {}} == {**old, "versions": {}, "settings": old["settings"] | later}
