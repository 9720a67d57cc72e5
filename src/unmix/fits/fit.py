"""A finished fit as one value, and the folder that explains it: safetensors, JSON and CSV; no pickle anywhere.

An estimator is a ``Kind``, known by its name from the moment it is defined. What a fit says of its rows is a
``Summary``, one for models with a posterior (``latent.py``) and one for adversarial ones (``adversarial.py``).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmix.data.domains import DomainSchema
from unmix.data.images import CodeSchema, ImageSchema, of_images
from unmix.data.schema import FeatureSchema
from unmix.errors import StorageError
from unmix.files import as_path
from unmix.fits.storage import AGAIN, FORMAT, MODEL, need_model, read_config, reading, write_folder, write_json
from unmix.fits.words import plain_settings, restored
from unmix.models.frame import Framed
from unmix.own import import_name, loaded
from unmix.train.checkpoint import read_state, write_state
from unmix.train.devices import pick_device
from unmix.version import __version__, versions

Floats = NDArray[np.float64]

_README = """This folder holds a model fitted by unmix {version}.

config.json        what was asked: estimator, settings, seed, versions
{schema}
{files}
done.json          written last: the folder is complete; the SHA-256 of every file that unmix wrote
The command line adds latents.csv (the latents of the rows) and report.html (the page).

{use}
"""
_OF_TABLES = {
    "schema": "schema.json        feature columns (names, order, scaling) and domain columns (kinds, levels)",
    "use": """Python:        model = unmix.load("{name}"); model.transform(table)
Command line:  unmix transform {name} table.csv --out latents.csv""",
}
_OF_IMAGES = {
    "schema": "schema.json        size and channels of the images, and domain columns (kinds, levels)",
    "use": """Python:        model = unmix.load("{name}"); model.transform(images)
Command line:  unmix transform {name} photos --out latents.csv
               unmix translate {name} photos --to DOMAIN --out translated
               where photos is a folder with one folder for each domain, a .zip of it, or a list""",
}


@dataclass(frozen=True)
class Parts:
    """What a summary keeps in the folder of its fit: arrays, scalars, and a line on each of its files."""

    arrays: Mapping[str, NDArray[Any]]
    scalars: Mapping[str, object]
    files: str


@dataclass(frozen=True)
class Saved:
    """What is read of a folder before its summary is; ``scalars`` and ``arrays`` are those of its ``Parts``."""

    folder: Path
    scalars: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    features: tuple[str, ...]
    domains: tuple[str, ...]
    n_starts: int


class Summary(ABC):
    """What a fit says of its rows."""

    @property
    @abstractmethod
    def mixing(self) -> Floats:
        """Mean of |∂x/∂z|, (n_features, n_latents) on tables."""

    @abstractmethod
    def write(self, fit: Fit[Any, Any], folder: Path) -> Parts:
        """What is to be saved; tables are written into ``folder`` at once."""

    @classmethod
    @abstractmethod
    def read(cls, saved: Saved) -> tuple[Self, pd.DataFrame, int]:
        """The inverse of ``write``, with the table of starts and the one that is kept."""


class Kind(Protocol):
    """What a fit can be of: an estimator, which knows how to build a network for saved parameters."""

    assumption: ClassVar[str]
    uses_domains: ClassVar[bool]
    summary_type: ClassVar[type[Summary]]

    def _check_words(self) -> None: ...

    def _untrained(self, features: Any, domains: DomainSchema, fitted: Mapping[str, Any]) -> Framed: ...


_KINDS: dict[str, type[Kind]] = {}


def register(kind: type[Kind]) -> None:
    """Make an estimator of unmix known by its name."""
    if kind.__module__.partition(".")[0] == __name__.partition(".")[0]:
        _KINDS[kind.__name__] = kind


def kinds() -> dict[str, type[Kind]]:
    """The estimators of unmix that have been imported, by name."""
    return {name: kind for name, kind in _KINDS.items() if not inspect.isabstract(kind)}


def kind_name(kind: type[Kind]) -> str:
    """The name of an estimator in a folder: of a user's own, that under which Python imports it.

    Raises
    ------
    StorageError
        It cannot be imported by its name.
    """
    if kinds().get(kind.__name__) is kind:
        return kind.__name__
    try:
        return import_name(kind)
    except TypeError as error:
        raise StorageError(
            f"{kind.__qualname__} is defined inside a function, so unmix.load could not find it. Define it in a module."
        ) from error


def _kind_of(name: str) -> type[Kind]:
    """The inverse of ``kind_name``."""
    kind = kinds().get(name) or loaded(name)
    if not hasattr(kind, "summary_type"):
        raise StorageError(f"The model is of the estimator {name!r}, which is now a {kind!r}. Define it as it was.")
    return kind


Model = TypeVar("Model", bound=Framed, covariant=True)
OwnSummary = TypeVar("OwnSummary", bound=Summary, covariant=True)


@dataclass(frozen=True, eq=False)
class Fit(Generic[Model, OwnSummary]):
    """What an estimator has learnt.

    Attributes
    ----------
    kind : the estimator's class
    parameters : constructor parameters as JSON holds them, ``random_state`` as the seed that it gave
    model : the kept start, its latents in a fixed frame
    schema : FeatureSchema or ImageSchema
    domains : DomainSchema
    history : DataFrame, the course of training
    starts : DataFrame, one row per start
    best : int, the start that is kept
    summary : Summary, what the fit says of its rows
    seed : int
    seconds : float, how long the training took
    """

    kind: type[Kind]
    parameters: Mapping[str, object]
    model: Model
    schema: FeatureSchema | ImageSchema
    domains: DomainSchema
    history: pd.DataFrame
    starts: pd.DataFrame
    best: int
    summary: OwnSummary
    seed: int
    seconds: float

    @property
    def latent_names(self) -> list[str]:
        """z0, z1, …"""
        return [f"z{i}" for i in range(self.model.n_latents)]

    def mixing_frame(self) -> pd.DataFrame:
        """The mixing, with features (or pixels and colours) as rows and latents as columns."""
        flat = self.summary.mixing.reshape(-1, self.model.n_latents)
        return pd.DataFrame(flat, index=list(self.schema.names), columns=self.latent_names)

    def to_folder(self, path: str | Path) -> Path:
        """Write the fit into a folder; other files in it stay, and are refused where they are in the way."""
        folder = as_path(path)
        write_folder(folder, lambda beside: self._write(beside, folder.absolute().name))
        return folder

    @classmethod
    def from_folder(cls, path: str | Path, device: str | torch.device = "auto") -> AnyFit:
        """The fit that ``to_folder`` wrote, its model on ``device``.

        Raises
        ------
        StorageError
            There is no complete model there, it is damaged, or it was written by a version with another format.
        """
        folder = as_path(path)
        need_model(folder)
        place = pick_device(device)
        with reading(folder):
            found = cls._read(folder)
        found.model.to(place)
        return found

    def _write(self, folder: Path, name: str) -> None:
        parts = self.summary.write(self, folder)
        state = {f"model/{key}": value for key, value in self.model.state_dict().items()}
        tensors = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in parts.arrays.items()}
        write_state(folder / MODEL, {**state, **tensors}, {})
        fitted = {"best_restart": self.best, "seed": self.seed, "fit_seconds": self.seconds, **parts.scalars}
        config = {"format": FORMAT, "estimator": kind_name(self.kind), "settings": self.parameters, "fitted": fitted}
        write_json(folder / "config.json", {**config, "versions": versions()})
        schema = {"features": self.schema.to_dict(), "domains": self.domains.to_dict()}
        write_json(folder / "schema.json", schema)
        self.history.to_json(folder / "history.jsonl", orient="records", lines=True, double_precision=15)
        words = _OF_IMAGES if of_images(self.schema) else _OF_TABLES
        text = _README.format(
            version=__version__, schema=words["schema"], files=parts.files, use=words["use"].format(name=name)
        )
        (folder / "README.txt").write_text(text, encoding="utf-8", errors="surrogateescape")

    @classmethod
    def _read(cls, folder: Path) -> AnyFit:
        """The fit on the CPU; a file of another shape raises whatever comes of that."""
        config, schemas = read_config(folder, kinds())
        tensors, _ = read_state(folder / MODEL, AGAIN)
        kind, fitted = _kind_of(config["estimator"]), config["fitted"]
        estimator = restored(kind, dict(config["settings"]), kind._check_words, folder)
        with (folder / "history.jsonl").open(encoding="utf-8") as stream:
            history = pd.read_json(stream, orient="records", lines=True)
        schema, domains = _schema_of(schemas["features"]), DomainSchema.from_dict(schemas["domains"])
        model = estimator._untrained(schema, domains, fitted)
        state, arrays = _parted(tensors)
        model.load_state_dict(state)
        n_starts = int(getattr(estimator, "n_restarts", 1))
        saved = Saved(folder, fitted, arrays, schema.names, domains.domains, n_starts)
        summary, starts, best = kind.summary_type.read(saved)
        parameters = plain_settings(estimator, config["settings"]["random_state"])
        seed, seconds = fitted["seed"], fitted["fit_seconds"]
        return Fit(kind, parameters, model, schema, domains, history, starts, best, summary, seed, seconds)


AnyFit = Fit[Framed, Summary]


def _schema_of(raw: dict[str, Any]) -> FeatureSchema | ImageSchema:
    if "image_shape" in raw:
        # Folders of CG-GAN had the shape alone: it sees pixels from -1 to 1.
        return ImageSchema.of_range(tuple(raw["image_shape"]))
    if "n_codes" in raw:
        return CodeSchema.from_dict(raw)
    return FeatureSchema.from_dict(raw) if "names" in raw else ImageSchema.from_dict(raw)


def _parted(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, NDArray[Any]]]:
    """The state of the model, and the arrays of the summary."""
    state = {key.removeprefix("model/"): value for key, value in tensors.items() if key.startswith("model/")}
    return state, {key: value.numpy() for key, value in tensors.items() if not key.startswith("model/")}
