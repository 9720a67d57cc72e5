"""Do pairs that halves of the images agree on show the same thing?

    python benchmarks/pairs.py

Images of two domains that are each other's nearest after the matched transport are pairs. ``repeated``: share of the
pairs found by the transport of one half of the images that the other half finds too; ``same``: share of all pairs that
show the same character (typefaces), digit, or role, gender and tone (emoji). Typefaces: 62 characters in eight fonts
(``typefaces.py``), each drawn with 1, 2 or 8 jitters, which are the same in all fonts or not. One row a data set in
``results/pairs.csv``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from typefaces import fonts

from unmix import datasets
from unmix.models.alignment import LEAST_REPEATED, as_padded, pixel_views
from unmix.models.matching import all_partners, repeated, turn
from unmix.models.transport import GaussianTransport

OUT = Path("benchmarks/results/pairs.csv")
COMPONENTS, SEEDS = 60, (0, 1)


def problems() -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Name, images, domains, and what each image shows."""
    found = fonts()
    for count in (1, 2, 8):
        drawn = [datasets.make_typefaces(count, 16, fonts=found, random_state=900 + k) for k in range(len(found))]
        for jitters, parts in (("same", drawn[:1] * len(found)), ("other", drawn)):
            kept = [own.domains == name for own, name in zip(parts, found, strict=True)]
            yield (
                f"typefaces, {jitters} jitters",
                np.concatenate([own.images[rows] for own, rows in zip(parts, kept, strict=True)]),
                np.concatenate([own.domains[rows] for own, rows in zip(parts, kept, strict=True)]),
                np.concatenate([own.factors["character"][rows] for own, rows in zip(parts, kept, strict=True)]),
            )
    emoji, digits = datasets.load_emoji(), datasets.load_digits_two_colours(16)
    yield "emoji", emoji.images, emoji.domains, emoji.factors.astype(str).agg("/".join, axis=1).to_numpy()
    yield "digits", digits.images, digits.domains, digits.factors["digit"].to_numpy()


def measure(images: np.ndarray, domains: np.ndarray, kinds: np.ndarray) -> dict[str, float]:
    names, places = np.unique(domains, return_inverse=True)
    groups = torch.from_numpy(places)
    views = pixel_views(as_padded(torch.from_numpy(images), images.shape[1:3]), 0)
    transport = GaussianTransport.fit(
        torch.cat(views), groups.repeat(len(views)), len(names), n_components=COMPONENTS, keep_rest=False
    )
    shares = [repeated(transport, views, groups, seed) for seed in SEEDS]
    turn(transport, views, groups)
    common = (transport.common(views[0], groups) @ transport.basis.T).double().numpy()
    first, second = all_partners(common, places, len(names))
    return {
        "images_per_domain": len(images) // len(names),
        "pairs": len(first) // 2,
        "repeated": round(float(np.mean(shares)), 3),
        "same": round(float(np.mean(kinds[first] == kinds[second])), 3),
        "used": bool(np.mean(shares) >= LEAST_REPEATED),
    }


def main() -> None:
    torch.set_num_threads(1)
    table = pd.DataFrame([{"data": name, **measure(*problem)} for name, *problem in problems()])
    OUT.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(OUT, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
