"""Saved models that somebody, or a disk, has changed: one error that names the folder."""

import json

import numpy as np
import pytest
import torch
from conftest import QUICK
from safetensors.torch import load_file, save_file

import unmix
from unmix import CGGAN, CGVAE, ImageClassifier, StorageError
from unmix.datasets import load_digits_two_colours

MODELS = {
    "CGVAE": CGVAE(**{**QUICK, "max_epochs": 1}),
    "CGGAN": CGGAN(n_latents=2, hidden=(5,), max_steps=2, encoder_steps=1, verbose=0),
}


@pytest.fixture(scope="module", params=MODELS)
def saved(request, frame, labels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    return MODELS[request.param].fit(frame, labels).save(folder)


def changed(saved, tmp_path, name, change):
    """A copy of the folder whose JSON file ``name`` went through ``change``."""
    copy = tmp_path / "m"
    copy.mkdir()
    for file in saved.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    content = json.loads((copy / name).read_text())
    (copy / name).write_text(json.dumps(change(content)))
    return copy


def without(*path):
    def change(content):
        *parents, last = path
        own = content
        for key in parents:
            own = own[key]
        del own[last]
        return content

    return change


def having(value, *path):
    def change(content):
        *parents, last = path
        own = content
        for key in parents:
            own = own[key]
        own[last] = value
        return content

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", without("settings")),
        ("config.json", without("fitted")),
        ("config.json", without("fitted", "seed")),
        ("config.json", having(3, "settings", "n_atents")),
        ("config.json", having(["a"], "settings")),
        ("config.json", having(3, "settings", "n_latents")),
        ("config.json", having("x", "settings", "n_latents")),
        ("config.json", having("planar", "settings", "flow")),
        ("config.json", having("planar", "settings", "prior")),
        ("config.json", lambda content: [content]),
        ("schema.json", lambda content: [content]),
        ("schema.json", without("domains")),
        ("schema.json", without("features")),
        ("schema.json", having("x", "features", "names")),
        ("schema.json", having([], "domains", "columns")),
        ("done.json", lambda content: [content]),
        ("done.json", having("0" * 64, "sha256")),
    ],
)
def test_a_changed_file_is_damage(saved, name, change, tmp_path):
    with pytest.raises(StorageError, match=r"m is damaged: .*Fit and save the model again"):
        unmix.load(changed(saved, tmp_path, name, change))


def test_a_flipped_byte_among_the_tensors_is_seen(saved, tmp_path):
    folder = changed(saved, tmp_path, "done.json", lambda content: content)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(StorageError, match=r"model\.safetensors is not the file that was saved"):
        unmix.load(folder)


def test_a_lost_file_is_damage(saved, tmp_path):
    folder = changed(saved, tmp_path, "done.json", lambda content: content)
    (folder / "history.jsonl").unlink()
    with pytest.raises(StorageError, match=r"m is damaged"):
        unmix.load(folder)


def test_a_folder_from_before_the_sum_is_read(saved, frame, tmp_path):
    folder = changed(saved, tmp_path, "done.json", without("sha256"))
    np.testing.assert_array_equal(unmix.load(folder).transform(frame), unmix.load(saved).transform(frame))


def test_a_device_that_is_not_there_is_no_damage(saved):
    with pytest.raises(unmix.SettingError, match="cannot be used here"):
        unmix.load(saved, device="abacus")


def test_a_classifier_is_what_its_name_says(saved, tmp_path):
    data = load_digits_two_colours(8)
    judge = ImageClassifier(width=4, max_epochs=1).fit(data.images[:60], data.domains[:60])
    path = judge.save(tmp_path / "judge.safetensors")
    assert ImageClassifier.load(path).name_ == judge.name_
    with pytest.raises(StorageError, match=r"holds no ImageClassifier, or a damaged one: KeyError.*Pass a file"):
        ImageClassifier.load(saved / "model.safetensors")
    with torch.no_grad():
        judge.network_.last.bias[0] += 1.0
    judge.save(path)
    with pytest.raises(StorageError, match=rf"its classifier is {judge.name_}, its parameters have the hash"):
        ImageClassifier.load(path)
    content = load_file(path)
    content["last.bias"] = torch.zeros(9)
    header = {"settings": judge.get_params(), "classes": [0, 1], "name": judge.name_, "channels": 3, "format": 1}
    save_file(content, path, metadata={"unmix": json.dumps(header)})
    with pytest.raises(StorageError, match="holds no ImageClassifier, or a damaged one: RuntimeError"):
        ImageClassifier.load(path)
