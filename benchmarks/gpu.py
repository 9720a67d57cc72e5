"""What a GPU is worth: seconds and memory of fits on it, beside the same on the processors of the same machine.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --quick          # tiny sizes; nothing is written

Tables: ``CGVAE`` with its defaults. ``agrees`` is the mean correlation of its latents with those of the fit on the CPU.
Images: steps of ``ImageTranslator`` at the middle of the training, in float32 and in bfloat16 (``mixed_precision``),
and short fits of ``CGVAEImages``. ``ratio`` is seconds on the CPU, with as many threads as unmix takes, over seconds on
the GPU. ``memory`` is the most that the GPU held, in MiB.

"fit" rows are whole fits at 64 and 128 pixels with the default length: characters in six typefaces, four fifths of the
jitters for training. ``rmse`` (grey levels) is that of held-out translations to the truth, ``copy`` that of doing
nothing. One row each in ``results/speed/gpu.csv``.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from speed.measure import Options, run

from unmix import CGVAE, CGVAEImages, ImageTranslator, datasets, metrics
from unmix.train.devices import pick_device, wait_for

TABLES = {"8 features, 4 latents": (4, 8, 4000), "1,000 features, 10 latents": (10, 1000, 2000)}
SIDES = {32: (300, 20), 64: (300, 10), 128: (200, 6), 256: (60, 2)}
FITTED = {64: 8, 128: 5}


def rows_of(options: Options) -> list[dict[str, Any]]:
    device = pick_device("auto")
    if device.type == "cpu":
        sys.exit("There is no GPU here.")
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    found = []
    for row in itertools.chain(*(part(device, options.quick) for part in (tables, images, fits))):
        found.append({**row, "device": name})
        print(pd.DataFrame([row]).T.to_string(header=False), flush=True)
    return found


def tables(device: torch.device, quick: bool) -> Iterator[dict[str, Any]]:
    for name, (n_latents, n_features, n_rows) in TABLES.items():
        words = {"n_latents": n_latents, "n_features": n_features, "n_samples": n_rows, "n_domains": 4}
        data = datasets.make_sparse_mixing(**words, random_state=0)
        more = {"max_epochs": 3} if quick else {}
        _forget(device)
        own, cpu = (CGVAE(n_latents, device=d, verbose=0, **more).fit(data.x, data.domains) for d in (device, "cpu"))
        yield {
            "what": f"CGVAE, {name}",
            "precision": "float32",
            "seconds": own.fit_seconds_,
            "seconds_cpu": cpu.fit_seconds_,
            "ratio": cpu.fit_seconds_ / own.fit_seconds_,
            "memory": _most(device),
            "agrees": round(float(metrics.mcc(cpu.transform(data.x), own.transform(data.x))), 4),
        }


def images(device: torch.device, quick: bool) -> Iterator[dict[str, Any]]:
    for side, (steps, steps_cpu) in SIDES.items():
        data = datasets.make_typefaces(1 if quick else 3, side)
        steps, steps_cpu = (20, 1) if quick else (steps, steps_cpu)
        a_step = _step(ImageTranslator(device="cpu", verbose=0), data, steps_cpu, torch.device("cpu"))
        for precision in ("float32", "bfloat16"):
            _forget(device)
            model = ImageTranslator(device=device, mixed_precision=precision == "bfloat16", verbose=0)
            own = _step(model, data, steps, device)
            yield {
                "what": f"ImageTranslator, {side} px, a step",
                "precision": precision,
                "seconds": own,
                "seconds_cpu": a_step,
                "ratio": a_step / own,
                "memory": _most(device),
            }
    data = datasets.make_sprites(n_samples=640, size=64, n_domains=4, random_state=0)
    epochs = 1 if quick else 20
    seconds = []
    for place in (device, torch.device("cpu")):
        _forget(device)
        model = CGVAEImages(4, max_epochs=epochs, device=place, verbose=0)
        seconds.append(model.fit(data.images, data.domains).fit_seconds_)
        if place is device:
            memory = _most(device)
    yield {
        "what": f"CGVAEImages, 64 px, {epochs} epochs",
        "precision": "float32",
        "seconds": seconds[0],
        "seconds_cpu": seconds[1],
        "ratio": seconds[1] / seconds[0],
        "memory": memory,
    }


def fits(device: torch.device, quick: bool) -> Iterator[dict[str, Any]]:
    for side, n_jitters in FITTED.items():
        data = datasets.make_typefaces(2 if quick else n_jitters, side)
        held = (data.factors["jitter"].astype(int) == 0).to_numpy()
        names = list(dict.fromkeys(data.domains.tolist()))
        for precision in ("float32", "bfloat16"):
            _forget(device)
            words = {"max_steps": 20} if quick else {}
            model = ImageTranslator(device=device, mixed_precision=precision == "bfloat16", verbose=0, **words)
            began = time.monotonic()
            model.fit(data.images[~held], data.domains[~held])
            seconds = time.monotonic() - began
            truth = {own: data.images[held & (data.domains == own)].astype(float) for own in names}
            errors, copies = [], []
            for source in names:
                for target in names:
                    if source == target:
                        continue
                    shown = data.images[held & (data.domains == source)]
                    moved = model.translate(shown, [source] * len(shown), to=target)
                    errors.append(np.square(moved - truth[target]).mean())
                    copies.append(np.square(truth[source] - truth[target]).mean())
            yield {
                "what": f"ImageTranslator, {side} px, fit of {int((~held).sum()):,} images",
                "precision": precision,
                "seconds": seconds,
                "memory": _most(device),
                "rmse": float(np.sqrt(np.mean(errors))),
                "copy": float(np.sqrt(np.mean(copies))),
            }


def _step(model: ImageTranslator, data: datasets.ImageData, steps: int, device: torch.device) -> float:
    """Seconds a step: the difference of two fits, the second with as many steps more."""
    seconds = []
    for count in (4, 4 + steps):
        model.set_params(max_steps=count, sharpen_steps=0).fit(data.images, data.domains)
        wait_for(device)
        seconds.append(model.fit_seconds_)
    return (seconds[1] - seconds[0]) / steps


def _forget(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _most(device: torch.device) -> float:
    return round(torch.cuda.max_memory_allocated(device) / 2**20) if device.type == "cuda" else float("nan")


if __name__ == "__main__":
    run("gpu", __doc__, rows_of)
