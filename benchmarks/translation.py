"""Does CG-GAN translate images: does the content stay, is the target's style reached?

    python benchmarks/translation.py --data digits --seeds 500 501 502
    python benchmarks/translation.py --data digits-all-layers
    python benchmarks/translation.py --data emoji --methods all

Trains on four fifths of ``load_digits_two_colours(16)`` or ``load_emoji()`` (of the people, drawn at random),
translates every image of the last fifth to the other domains, and lets classifiers judge that were trained on the real
images of the four fifths: of the digit, or of the role (one of 27), and of the domain. One row a fit in
``results/<data>.csv``: seed, method, content and style accuracy with 95 % intervals, what the judges reach on real
held-out images, reconstruction error of held-out images, style latents found, seconds. Methods are settings of
``CGGAN``: a plain conditional generator; flow without mask; flow and mask; all terms. With ``digits-all-layers`` style
acts on every layer, as by default, and not on colours alone, so that nothing but the objective keeps it from the
shapes. ``--pictures FOLDER`` writes a grid of each fit: real above its translations. Rows already in the file are not
computed again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from unmix import CGGAN, datasets
from unmix.bench.translation import DIGIT_SETTINGS, EMOJI_SETTINGS, Judges
from unmix.datasets import ImageData
from unmix.images import image_grid, judge_translations, train_judges

METHODS: dict[str, dict[str, Any]] = {
    "all": {},
    "flow and mask": {"sparsity": 0.0},
    "flow without mask": {"mask": False, "sparsity": 0.0},
    "no flow": {"flow": False, "sparsity": 0.0},
}
_digits = partial(datasets.load_digits_two_colours, 16)
DATA: dict[str, tuple[Callable[[], ImageData], str, dict[str, Any]]] = {
    "digits": (_digits, "digit", DIGIT_SETTINGS),
    "digits-all-layers": (_digits, "digit", {**DIGIT_SETTINGS, "modulation": "all"}),
    "emoji": (datasets.load_emoji, "role", EMOJI_SETTINGS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[500, 501, 502])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--data", default="digits", choices=list(DATA))
    parser.add_argument("--steps", type=int, help="adversarial steps; default: those of the settings")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/<data>.csv")
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    load, factor, settings = DATA[arguments.data]
    name = arguments.data.replace("-", "_")
    out, steps = arguments.out or Path(f"benchmarks/results/{name}.csv"), arguments.steps
    steps = settings["max_steps"] if steps is None else steps
    done, data = pd.read_csv(out) if out.exists() else pd.DataFrame(), load()
    content, held_out = data.factors[factor].to_numpy(), np.arange(len(data.images)) % 5 == 0
    if arguments.data == "emoji":
        # Every fifth of them has the same tone.
        people = data.factors.groupby(list(data.factors), observed=True).ngroup().to_numpy()
        held_out = (np.random.default_rng(0).permutation(people.max() + 1) % 5 == 0)[people]
    judges = train_judges(data.images, content, data.domains, held_out)
    for seed in arguments.seeds:
        for method in arguments.methods:
            if len(done) and ((done[["seed", "method", "steps"]] == [seed, method, steps]).all(axis=1)).any():
                continue
            model = CGGAN(**{**settings, "max_steps": steps, "random_state": seed, "verbose": 0, **METHODS[method]})
            row = {"seed": seed, "method": method, "steps": steps, **measure(model, data, content, held_out, judges)}
            done = pd.concat([done, pd.DataFrame([row])], ignore_index=True)
            out.parent.mkdir(parents=True, exist_ok=True)
            done.to_csv(out, index=False)
            print(pd.DataFrame([row]).T.to_string(header=False), flush=True)
            if arguments.pictures is not None:
                arguments.pictures.mkdir(parents=True, exist_ok=True)
                path = arguments.pictures / f"{method.replace(' ', '_')}-{seed}.png"
                draw(path, model, data, held_out)
    print(done.groupby(["steps", "method"])[["content", "style", "seconds"]].mean().round(3).to_string())


def measure(model: CGGAN, data: ImageData, content: np.ndarray, held_out: np.ndarray, judges: Judges) -> dict[str, Any]:
    started = time.monotonic()
    model.fit(data.images[~held_out], data.domains[~held_out])
    seconds = time.monotonic() - started
    images, domains = data.images[held_out], data.domains[held_out]
    whole = judge_translations(model, judges, images, content[held_out], domains).iloc[-1]
    same = model.translate(images, domains, to=pd.DataFrame({"domain": domains}))
    return {
        **{name: round(float(whole[name]), 4) for name in whole.index if name not in ("to", "n")},
        "n_translated": int(whole["n"]),
        "rmse": round(float(np.sqrt(np.mean((same.astype(float) - images) ** 2))), 2),
        "n_style": len(model.style_),
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
    }


def draw(path: Path, model: CGGAN, data: ImageData, held_out: np.ndarray) -> None:
    """Twelve held-out images above their translations, then samples with one noise in every domain."""
    images, domains = data.images[held_out][:12], data.domains[held_out][:12]
    moved = [model.translate(images, domains, to=target) for target in model.domains_]
    drawn = [model.sample(12, domain=target) for target in model.domains_]
    image_grid([images, *moved, *drawn], path, zoom=3)


if __name__ == "__main__":
    main()
