"""Small fits of every estimator and all that comes out of them, so that a change of structure shows as a number.

``python tests/frozen.py FILE`` writes the SHA-256 of every array of every fit as JSON, to compare two versions bit by
bit on one machine; ``python tests/frozen.py`` alone writes the test data of ``test_frozen.py`` anew.
"""

from __future__ import annotations

import json
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

import unmix
from unmix import CGGAN, CGVAE, CGVAEImages
from unmix.baselines import HFVAE, IMSDA, IVAE, BetaTCVAE, BetaVAE, FactorVAE, JointDiagonalization, SparseVAE
from unmix.errors import TrainingError
from unmix.train.checkpoint import read_state

DATA = Path(__file__).parent / "data"
ARRAYS = DATA / "frozen.npz"
_CPU = {"device": "cpu", "verbose": 0}
_VAE = {"n_latents": 2, "hidden": (6, 5), "max_epochs": 2, "n_restarts": 2, "batch_size": 64, **_CPU}
_GAN = {"hidden": (6,), "max_steps": 6, "encoder_steps": 4, "batch_size": 16, **_CPU}
TABLES = {
    "cgvae": CGVAE(**_VAE),
    "cgvae-feature": CGVAE(**_VAE, decoder="feature", sparsity=0.1),
    "cgvae-spline": CGVAE(**_VAE, prior="spline", penalty="l1"),
    "cgvae-mask": CGVAE(**_VAE, missing="mask"),
    "ivae": IVAE(**_VAE),
    "imsda": IMSDA(**_VAE),
    "beta-vae": BetaVAE(**_VAE),
    "beta-tcvae": BetaTCVAE(**_VAE),
    "hfvae": HFVAE(**_VAE, group_sizes=(1, 1)),
    "factor-vae": FactorVAE(**_VAE),
    "sparse-vae": SparseVAE(**_VAE),
    "cggan": CGGAN(n_latents=3, n_restarts=2, **_GAN),
    "cggan-spline": CGGAN(n_latents=3, flow="spline", mask=False, **_GAN),
    "cggan-plain": CGGAN(n_latents=3, flow=False, **_GAN),
}
IMAGES = {
    "cgvae-images": CGVAEImages(
        **{
            **_VAE,
            "widths": (2, 3),
            "n_codes": 4,
            "n_restarts": 1,
            "n_spare": 0,
            "max_epochs": 1,
        }
    ),
    "cggan-images": CGGAN(n_latents=4, channels=2, **{**_GAN, "batch_size": 8}),
}
# Of these a loss becomes infinite: what they go back to, and what they say at last.
DIVERGING = {
    "ivae-diverging": IVAE(**{**_VAE, "learning_rate": 1e30}),
    "cggan-diverging": CGGAN(n_latents=3, **_GAN, learning_rate=1e30),
}
LINEAR = "joint-diagonalization"
NAMES = (*TABLES, *IMAGES, *DIVERGING, LINEAR)
SAVED = ("cgvae", "cggan")
# What is held against another machine: what a user sees of the fit.
_SHOWN = ("transform", "sample", "moved", "mixing", "loss", "said")


def table():
    """Rows, and their domains as text."""
    data = unmix.datasets.make_sparse_mixing(n_latents=2, n_features=4, n_domains=3, n_samples=180, random_state=1)
    return data.x, np.array(["a", "b", "c"])[data.domains]


def pictures():
    """Images of 16 pixels, and their domains as text."""
    data = unmix.datasets.make_sprites(n_samples=24, size=16, n_domains=2, random_state=1)
    return data.images, np.array(["a", "b"])[data.domains]


def fitted(name):
    """Everything that comes out of the fit of this name: arrays of numbers and text by name, and the estimator."""
    model = unmix_of(name)
    x, y = pictures() if name in IMAGES else table()
    if name == "cgvae-mask":
        x = np.where(np.random.default_rng(0).random(x.shape) < 0.1, np.nan, x)
    if name == LINEAR:
        model.fit(x, y)
        return {"transform": model.transform(x[:8]), "mixing": model.mixing_}, model
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "run.safetensors"
        try:
            model.fit(x, y, checkpoint=checkpoint)
        except TrainingError as error:
            return {"said": np.array(str(error)), **columns("history", error.history)}, model
        tensors, header = read_state(checkpoint)
    found = {f"checkpoint/{key}": value.numpy() for key, value in tensors.items()}
    found["checkpoint"] = np.array(json.dumps(without_seconds(header), sort_keys=True))
    found |= {f"model/{key}": value.numpy() for key, value in model.model_.state_dict().items()}
    found |= columns("history", model.history_.to_dict("records"))
    if hasattr(model, "description_"):
        found |= columns("restarts", model.restarts_.to_dict("records"))
        found |= {f"description/{key}": value for key, value in model.description_.arrays().items()}
        if model.counterfactuals_ is not None:
            found |= {f"counterfactuals/{key}": value for key, value in model.counterfactuals_.arrays().items()}
        found["loss"] = model.restarts_["held_out_objective"].to_numpy()
    else:
        found["loss"] = model.start_errors_
    return found | shown(model, x[:8], y[:8]), model


def shown(model, x, y):
    """What a fitted model makes of some rows."""
    z = model.transform(x, y) if isinstance(model, IVAE) else model.transform(x)
    domain = "b" if getattr(model, "uses_domains", True) else None
    found = {"transform": z, "sample": model.sample(4, domain=domain), "mixing": model.mixing_}
    if domain:
        found["moved"] = model.translate(x, y, to="a")
    return found


def unmix_of(name):
    return {**TABLES, **IMAGES, **DIVERGING, LINEAR: JointDiagonalization(2)}[name]


def columns(name, rows):
    return {f"{name}/{key}": np.array([row[key] for row in rows]) for key in (rows[0] if rows else ())}


def without_seconds(content):
    if isinstance(content, dict):
        return {key: without_seconds(value) for key, value in content.items() if key != "seconds"}
    return content


def digest(value):
    value = np.ascontiguousarray(value)
    return sha256(f"{value.dtype} {value.shape} ".encode() + value.tobytes()).hexdigest()


def key_facts(name, found):
    """The arrays that are kept as test data, small."""
    return {
        f"{name}/{key}": np.asarray(found[key], dtype="U300" if key == "said" else np.float32)[:4]
        if found[key].ndim
        else found[key]
        for key in _SHOWN
        if key in found
    }


def of_folder(name, model):
    """What a folder gives that an earlier version wrote; ``model`` is saved there where there is none."""
    folder = DATA / f"saved-{name}"
    if not folder.exists():
        model.save(folder)
    x, y = table()
    given = shown(unmix.load(folder, device="cpu"), x[:8], y[:8])
    return {f"saved-{name}/{key}": value[:4] for key, value in given.items()}


def main(arguments):
    torch.set_num_threads(1)
    hashes, kept = {}, {}
    for name in NAMES:
        found, model = fitted(name)
        hashes |= {f"{name}/{key}": digest(value) for key, value in found.items()}
        kept |= key_facts(name, found)
        if not arguments and name in SAVED:
            kept |= of_folder(name, model)
    if arguments:
        Path(arguments[0]).write_text(json.dumps(hashes, indent=1, sort_keys=True))
    else:
        np.savez_compressed(ARRAYS, **kept)


if __name__ == "__main__":
    main(sys.argv[1:])
