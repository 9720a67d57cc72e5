"""Saved models that somebody, or a disk, has changed: one error that names the folder."""

import json
from hashlib import sha256

import numpy as np
import pytest
import torch
from conftest import QUICK
from safetensors.torch import load_file, save_file

import unmix
from unmix import CGGAN, CGVAE
from unmix.datasets import load_digits_two_colours
from unmix.errors import StorageError
from unmix.fits.storage import DONE, READ_BACK, sum_of
from unmix.images import ImageClassifier
from unmix.train.checkpoint import read_state, write_state

MODELS = {
    "CGVAE": CGVAE(**{**QUICK, "max_epochs": 1}),
    "CGGAN": CGGAN(n_latents=2, hidden=(5,), max_steps=2, encoder_steps=1, verbose=0),
}


@pytest.fixture(scope="module", params=MODELS)
def saved(request, frame, labels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    return MODELS[request.param].fit(frame, labels).save(folder)


def sealed(folder):
    """The folder as if its files had been saved as they are now."""
    done = json.loads((folder / DONE).read_text())
    files = {name: sha256((folder / name).read_bytes()).hexdigest() for name in done["files"]}
    own = {"finished": done["finished"], "files": files}
    (folder / DONE).write_text(json.dumps(own | {"sha256": sum_of(own)}))
    return folder


def changed(saved, tmp_path, name, change):
    """A copy of the folder whose JSON file ``name`` went through ``change``."""
    copy = tmp_path / "m"
    copy.mkdir()
    for file in saved.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    content = json.loads((copy / name).read_text())
    (copy / name).write_text(json.dumps(change(content)))
    return copy if name == DONE else sealed(copy)


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
        ("config.json", having(["a"], "settings")),
        ("config.json", having(3, "settings", "n_latents")),
        ("config.json", lambda content: [content]),
        ("schema.json", lambda content: [content]),
        ("schema.json", without("domains")),
        ("schema.json", without("features")),
        ("schema.json", having("x", "features", "names")),
        ("schema.json", having([], "domains", "columns")),
        ("done.json", lambda content: [content]),
        ("done.json", having("0" * 64, "sha256")),
        ("done.json", having("now", "finished")),
        ("done.json", without("sha256")),
        ("done.json", without("files")),
        ("done.json", without("files", "schema.json")),
    ],
)
def test_a_changed_file_is_damage(saved, name, change, tmp_path):
    with pytest.raises(StorageError, match=r"m is damaged: .*Fit and save the model again"):
        unmix.load(changed(saved, tmp_path, name, change))


def flips(content, n, seed):
    """The file with one bit flipped at n places, and with 4 KB of zeros at two."""
    rng = np.random.default_rng(seed)
    for place in {0, 9, len(content) - 1, *rng.integers(len(content), size=n).tolist()}:
        yield content[:place] + bytes([content[place] ^ 1 << int(rng.integers(8))]) + content[place + 1 :]
    for place in (0, len(content) // 2):
        size = len(content[place : place + 4096])
        yield content[:place] + bytes(size) + content[place + size :]


def test_a_flipped_bit_in_any_file_that_is_read_is_seen(saved, tmp_path):
    folder = changed(saved, tmp_path, DONE, lambda content: content)
    for path in (folder / name for name in (*READ_BACK, DONE) if (folder / name).exists()):
        whole = path.read_bytes()
        for content in flips(whole, 8, seed=1):
            path.write_bytes(content)
            with pytest.raises(StorageError, match=r"m is damaged: .*Fit and save the model again"):
                unmix.load(folder)
        path.write_bytes(whole)
    unmix.load(folder)


@pytest.mark.slow
def test_a_flipped_bit_in_a_checkpoint_is_seen(tmp_path, frame, labels):
    path = tmp_path / "c"
    model = MODELS["CGVAE"]
    model.fit(frame, labels, checkpoint=path)
    whole = path.read_bytes()
    for content in flips(whole, 40, seed=2):
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"c is damaged.*Start anew without resuming"):
            read_state(path, "Start anew without resuming.")
    with pytest.raises(StorageError, match="Start anew without resuming"):
        model.fit(frame, labels, checkpoint=path, resume=True)
    path.write_bytes(whole)
    model.fit(frame, labels, checkpoint=path, resume=True)


def test_the_sum_of_a_state_has_its_own_place(tmp_path):
    words = {"name": "0" * 64, "said": '"sha256":"' + "0" * 64 + '"'}
    write_state(tmp_path / "s", {"x": torch.arange(3)}, words)
    tensors, header = read_state(tmp_path / "s", "")
    assert tensors["x"].tolist() == [0, 1, 2]
    assert header == {"format": 2, **words}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (having(3, "settings", "n_atents"), "there is no n_atents"),
        (having("x", "settings", "n_latents"), "n_latents must be a whole number"),
        (having("planar", "settings", "flow"), "flow"),
        (having("planar", "settings", "prior"), "prior"),
    ],
)
def test_a_setting_of_another_version_is_no_damage(saved, change, said, tmp_path):
    with pytest.raises(
        StorageError, match=rf"m has a setting that CG\w+ of unmix .* does not take: .*{said}"
    ) as caught:
        unmix.load(changed(saved, tmp_path, "config.json", change))
    assert "damaged" not in str(caught.value)
    assert "Another version wrote it" in str(caught.value)


def test_what_a_newer_version_wrote_is_no_damage(saved, tmp_path):
    def newer(content):
        content["versions"]["unmix"] = "99.1.2rc1"
        return content

    folder = changed(saved, tmp_path, "config.json", newer)
    unmix.load(folder)
    (folder / "schema.json").write_text("{}")
    with pytest.raises(StorageError, match=r"was written by unmix 99\.1\.2rc1, and unmix .* Install the newer"):
        unmix.load(folder)


def test_a_lost_file_is_damage(saved, tmp_path):
    folder = changed(saved, tmp_path, DONE, lambda content: content)
    (folder / "history.jsonl").unlink()
    with pytest.raises(StorageError, match=r"m is damaged"):
        unmix.load(folder)


@pytest.mark.parametrize("summed", [True, False])
def test_a_folder_of_format_2_is_read(saved, frame, summed, tmp_path):
    folder = changed(saved, tmp_path, "config.json", having(2, "format"))
    digest = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / DONE).write_text(json.dumps({"finished": "then"} | ({"sha256": digest} if summed else {})))
    np.testing.assert_array_equal(unmix.load(folder).transform(frame), unmix.load(saved).transform(frame))
    (folder / DONE).write_text(json.dumps({"finished": "then", "sha256": "0" * 64}))
    with pytest.raises(StorageError, match=r"model\.safetensors is not the file that was saved"):
        unmix.load(folder)


@pytest.mark.slow
def test_a_checkpoint_of_format_1_is_not_resumed(tmp_path, frame, labels):
    path = tmp_path / "c"
    MODELS["CGVAE"].fit(frame, labels, checkpoint=path)
    tensors, header = read_state(path, "")
    save_file(tensors, path, metadata={"unmix": json.dumps({**header, "format": 1})})
    with pytest.raises(StorageError, match=r"written by another version of unmix.*or start anew without resuming"):
        MODELS["CGVAE"].fit(frame, labels, checkpoint=path, resume=True)


def test_a_device_that_is_not_there_is_no_damage(saved):
    with pytest.raises(unmix.errors.SettingError, match="cannot be used here"):
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
