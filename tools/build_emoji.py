"""Build ``src/unmix/datasets/files/emoji.npz`` from the packages that carry the drawings.

    pip install resvg-py
    python tools/build_emoji.py

Downloads three icon packages with npm into a temporary folder, draws the same people from each at 32 × 32 pixels on
white, and writes the array. A person is named by Unicode: role, gender and skin tone are code points of its sequence.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from PIL import Image

PACKAGES = {
    "noto": "@iconify-json/noto@1.2.9",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "fluent": "@iconify-json/fluent-emoji-flat@1.2.6",
}
TARGET = Path(__file__).parent.parent / "src/unmix/datasets/files/emoji.npz"
SIZE, FINER = 32, 4

TONES = {"light": "1f3fb", "medium-light": "1f3fc", "medium": "1f3fd", "medium-dark": "1f3fe", "dark": "1f3ff"}
# An object joined to a person, a man or a woman …
OBJECTS = {
    "artist": "1f3a8",
    "astronaut": "1f680",
    "cook": "1f373",
    "factory worker": "1f3ed",
    "farmer": "1f33e",
    "firefighter": "1f692",
    "health worker": "2695",
    "judge": "2696",
    "mechanic": "1f527",
    "office worker": "1f4bc",
    "pilot": "2708",
    "scientist": "1f52c",
    "singer": "1f3a4",
    "student": "1f393",
    "teacher": "1f3eb",
    "technologist": "1f4bb",
}
PEOPLE = {"person": "1f9d1", "man": "1f468", "woman": "1f469"}
# … or a role of its own, joined to a sign.
ROLES = {
    "construction worker": "1f477",
    "detective": "1f575",
    "elf": "1f9dd",
    "fairy": "1f9da",
    "guard": "1f482",
    "mage": "1f9d9",
    "police officer": "1f46e",
    "superhero": "1f9b8",
    "supervillain": "1f9b9",
    "turban": "1f473",
    "vampire": "1f9db",
}
SIGNS = {"person": "", "man": "-200d-2642", "woman": "-200d-2640"}
GENDERS = tuple(PEOPLE)


def sequence(role: str, gender: str, tone: str) -> str:
    if role in OBJECTS:
        return f"{PEOPLE[gender]}-{TONES[tone]}-200d-{OBJECTS[role]}"
    return f"{ROLES[role]}-{TONES[tone]}{SIGNS[gender]}"


class Vendor:
    """The drawings of one package."""

    def __init__(self, package: str, folder: Path) -> None:
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder), package]
        name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        with tarfile.open(folder / name) as archive:
            self.set, names = (json.load(archive.extractfile(f"package/{file}.json")) for file in ("icons", "chars"))  # type: ignore[arg-type]
        self.names = {code.replace("-fe0f", ""): name for code, name in names.items()}

    def draw(self, code: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        name = self.names[code]
        icon = self.set["icons"].get(name) or self.set["icons"][self.set["aliases"][name]["parent"]]
        width, height = icon.get("width", self.set.get("width", 16)), icon.get("height", self.set.get("height", 16))
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        side = SIZE * FINER
        with Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg, width=side, height=side)))) as drawn:
            if drawn.size != (side, side):
                raise SystemExit(f"{name} was drawn at {drawn.size}")
            white = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn.convert("RGBA"))
        return np.asarray(white.convert("RGB").reduce(FINER))


def write(images: np.ndarray[Any, np.dtype[np.uint8]], people: list[tuple[int, int, int]], roles: list[str]) -> None:
    """Pixel by pixel the five skin tones lie side by side: they mostly agree, which saves a fifth of the file."""
    groups = images.reshape(-1, len(TONES), SIZE, SIZE, 3)
    np.savez_compressed(
        TARGET,
        images=np.moveaxis(groups, 1, 3),
        factors=np.array(people * len(PACKAGES), np.int8),
        domain=np.repeat(np.arange(len(PACKAGES)), len(people)).astype(np.int8),
        roles=np.array(roles),
        genders=np.array(GENDERS),
        tones=np.array([*TONES]),
        domain_names=np.array([*PACKAGES]),
    )


def main() -> None:
    roles = sorted([*OBJECTS, *ROLES])
    people = [(role, gender, tone) for role in range(len(roles)) for gender in range(3) for tone in range(len(TONES))]
    with tempfile.TemporaryDirectory() as folder:
        vendors = [Vendor(package, Path(folder)) for package in PACKAGES.values()]
        images = np.stack(
            [
                vendor.draw(sequence(roles[role], GENDERS[gender], [*TONES][tone]))
                for vendor in vendors
                for role, gender, tone in people
            ]
        )
    write(images, people, roles)
    print(f"{TARGET}: {images.shape[0]} images, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
