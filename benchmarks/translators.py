"""How good are translations of images? ImageTranslator beside doing nothing, simple methods, a CVAE, and paired truth.

    python benchmarks/translators.py --data typefaces-16 --seeds 700 701 702
    python benchmarks/translators.py --data emoji digits --seeds 700 701 702
    python benchmarks/translators.py --data typefaces-16 --methods "with mask" "with Jacobian" "spline flow" "no flow"

Data: eight typefaces at 16 and 32 pixels (``typefaces.py``), emoji of three vendors (a fifth of the people held out at
random; "emoji-dark": all of one skin tone, which training then lacks), digits in two colours. Held-out images are
carried to every other domain and compared with the same thing as it is there: the same character and jitter, the same
role, gender and tone, the same digit drawn in the other colours. ``rmse`` is in grey levels; ``content`` and
``style`` are what judges of real images read, ``real_content`` and ``real_style`` what they read of real held-out
ones. ``linear`` and ``nonlinear``: how often logistic regression and a network of 64 units, both cross-validated on
held-out real images, find the domain in their content; ``chance`` is one in the number of domains. ``samples_read``:
share of samples of the domain that both judges are sure of at .9; ``precision`` and ``recall`` of samples (Kynkäänniemi
et al. 2019, arXiv:1904.06991, 3 neighbours, features of the judge of content), and ``real_precision`` of other real
images. ``unseen_*``: characters that the source's or the target's training images lack. One row a fit in
``results/translators.csv``; rows already there are not computed again. ``--by-content`` also keeps the sums of every
character or role, from which ``translator_terms.py`` computes intervals. Judges are not quite the same on another
machine; ``judges`` names those that read the images by their hashes, and fits are compared only by the same ones, so
keep them with ``--judges``. ``--once``: the adversarial steps of the default follow the training of "not
sharpened", whose result is bitwise that of a fit of its own.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from typefaces import typefaces

from unmix import ImageTranslator, datasets
from unmix.bench.simple_translators import SIMPLE
from unmix.datasets.builtin import TWO_COLOURS
from unmix.images import ImageClassifier, image_grid
from unmix.models.alignment import as_padded, jittered
from unmix.models.cggan import as_images
from unmix.models.features import extract
from unmix.models.translator import TranslatorConfig, network_of

OUT = Path("benchmarks/results/translators.csv")
_SOFT: dict[str, Any] = {"sharpen_steps": 0}
TERMS: dict[str, dict[str, Any]] = {
    "ImageTranslator": {},
    "not sharpened": _SOFT,
    "sharpened": {"sharpen_steps": 480},
    "with mask": _SOFT | {"mask_weight": 0.04},
    "with Jacobian": _SOFT | {"sparsity": 0.3},
    "with orthogonality": _SOFT | {"orthogonality": 0.1},
    "spline flow": _SOFT | {"flow": "spline"},
    "no flow": _SOFT | {"flow": False},
    "all terms": _SOFT | {"mask_weight": 0.04, "sparsity": 0.3},
    "no pairs": _SOFT | {"pairing": 0.0},
    "with back-translation": _SOFT | {"back_translation": 1.0},
}
# As they were measured when back-translation was still the default.
TERMS |= {
    f"{name}, back-translation": TERMS[name] | {"back_translation": 1.0}
    for name in ("no flow", "with mask", "with Jacobian", "no pairs")
}
# The second: the best of four weights, on other jitters and other unseen characters of typefaces-16 (seed 900).
CVAES: dict[str, dict[str, Any]] = {
    "conditional VAE": {},
    "conditional VAE, tuned": {"encoder_told": True, "kl_weight": 1.0},
}
KEY = ("data", "method", "seed", "steps", "channels")
FOLDS = 5
SURE = 0.9
NEIGHBOURS = 3
SAMPLES = 500


@dataclass(frozen=True)
class Problem:
    """Training images with their domains; held-out ones with content, and the truth (n, n_domains, …) of each.

    ``unseen`` (n, n_domains): whether training lacks the content in the source or the target. ``judged`` are images,
    content and domains that the judges learn from; training images of one of ``kinds`` are true pairs.
    """

    images: np.ndarray
    domains: np.ndarray
    test: np.ndarray
    test_domains: np.ndarray
    content: np.ndarray
    names: tuple[str, ...]
    truth: np.ndarray
    unseen: np.ndarray
    judged: tuple[np.ndarray, np.ndarray, np.ndarray]
    epochs: int
    steps: int
    kinds: np.ndarray


def of_typefaces(side: int) -> Problem:
    faces = typefaces(side)
    names = tuple(dict.fromkeys(faces.test.domains.tolist()))
    by_font = faces.test.images.reshape(len(names), -1, *faces.test.images.shape[1:])
    truth = np.tile(by_font.swapaxes(0, 1), (len(names), 1, 1, 1, 1))
    content = faces.test.factors["character"].to_numpy().astype(str)
    lacks = np.array([[word in faces.unseen[name] for name in names] for word in content])
    own = np.array([names.index(name) for name in faces.test.domains])
    judged = (faces.judged.images, faces.judged.factors["character"].to_numpy().astype(str), faces.judged.domains)
    unseen = lacks | lacks[np.arange(len(own)), own][:, None]
    test = (faces.test.images, faces.test.domains)
    epochs = 20 if side == 16 else 8
    return Problem(
        faces.train.images, faces.train.domains, *test, content, names, truth, unseen, judged, epochs, 3000,
        faces.train.factors.astype(str).agg("/".join, axis=1).to_numpy(),
    )  # fmt: skip


def of_emoji(tone: str | None = None) -> Problem:
    """A fifth of role, gender and tone together is held out, the same in each domain: at random, or all of a tone."""
    data = datasets.load_emoji()
    kinds = data.factors.astype(str).agg("/".join, axis=1).to_numpy()
    every, which = np.unique(kinds, return_inverse=True)
    held = (np.random.default_rng(0).permutation(len(every)) % 5 == 0)[which]
    if tone is not None:
        held = (data.factors["tone"] == tone).to_numpy()
    names = tuple(sorted(set(data.domains.tolist())))
    place = {(kind, name): i for i, (kind, name) in enumerate(zip(kinds, data.domains, strict=True))}
    truth = np.stack([[data.images[place[kind, name]] for name in names] for kind in kinds[held]])
    roles = data.factors["role"].to_numpy().astype(str)
    return _split(data.images, data.domains, roles, held, names, truth, kinds)


def of_digits() -> Problem:
    data = datasets.load_digits_two_colours(16)
    held, names = np.arange(len(data.images)) % 5 == 0, tuple(sorted(TWO_COLOURS))
    pairs = np.array([TWO_COLOURS[name] for name in names], dtype=float)
    own = pairs[[names.index(name) for name in data.domains[held]]]
    span = (own[:, 0] - own[:, 1])[:, None, None]
    ink = ((data.images[held] - own[:, 1][:, None, None]) * span).sum(-1) / np.square(span).sum(-1)
    truth = (
        ink[:, None, ..., None] * pairs[:, 0][:, None, None]
        + (1 - ink)[:, None, ..., None] * pairs[:, 1][:, None, None]
    )
    content = data.factors["digit"].to_numpy().astype(str)
    return _split(
        data.images, data.domains, content, held, names, np.rint(truth).astype(np.uint8), np.arange(len(held))
    )


def _split(
    images: np.ndarray,
    domains: np.ndarray,
    content: np.ndarray,
    held: np.ndarray,
    names: tuple[str, ...],
    truth: np.ndarray,
    kinds: np.ndarray,
) -> Problem:
    train, unseen = ~held, np.zeros((int(held.sum()), len(names)), bool)
    judged = (images[train], content[train], domains[train])
    test = (images[held], domains[held], content[held])
    return Problem(images[train], domains[train], *test, names, truth, unseen, judged, 36, 3000, kinds[train])


DATA: dict[str, Callable[[], Problem]] = {
    "typefaces-16": lambda: of_typefaces(16),
    "typefaces-32": lambda: of_typefaces(32),
    "emoji": of_emoji,
    "emoji-dark": lambda: of_emoji("dark"),
    "digits": of_digits,
}


class ConditionalVAE(nn.Module):
    """The plain way: one vector of latents, and a decoder that is told the domain."""

    def __init__(
        self,
        steps: int,
        seed: int,
        *,
        n_latents: int = 32,
        width: int = 48,
        kl_weight: float = 0.5,
        encoder_told: bool = False,
    ) -> None:
        super().__init__()
        self.steps, self.seed, self.n_latents, self.width, self.kl_weight = steps, seed, n_latents, width, kl_weight
        self.encoder_told = encoder_told

    def fit(self, images: np.ndarray, domains: np.ndarray) -> ConditionalVAE:
        torch.manual_seed(self.seed)
        self.domains_ = tuple(sorted(set(domains.tolist())))
        self.shape, cells, width = images.shape[1:], (images.shape[1] // 4) ** 2, self.width
        told = len(self.domains_) if self.encoder_told else 0
        self.encoder = nn.Sequential(
            nn.Conv2d(self.shape[2] + told, width // 2, 3, padding=1), nn.SiLU(),
            nn.Conv2d(width // 2, width, 4, 2, 1), nn.SiLU(), nn.Conv2d(width, width, 4, 2, 1), nn.SiLU(),
            nn.Flatten(), nn.Linear(width * cells, 2 * self.n_latents),
        )  # fmt: skip
        side = self.shape[0] // 4
        self.decoder = nn.Sequential(
            nn.Linear(self.n_latents + len(self.domains_), width * cells), nn.Unflatten(1, (width, side, side)),
            nn.SiLU(), nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2),
            nn.SiLU(), nn.Conv2d(width, 2 * width, 3, padding=1), nn.PixelShuffle(2),
            nn.SiLU(), nn.Conv2d(width // 2, self.shape[2], 3, padding=1),
        )  # fmt: skip
        x, u = self._tensors(images, domains)
        optimizer, rng = torch.optim.Adam(self.parameters(), 2e-3), torch.Generator().manual_seed(self.seed)
        for step in range(self.steps):
            optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / self.steps)
            rows = torch.randint(len(x), (32,), generator=rng)
            seen = jittered(x[rows], rng)
            mean, log_sd = self._encoded(seen, u[rows]).chunk(2, dim=1)
            z = mean + log_sd.exp() * torch.randn(mean.shape, generator=rng)
            kl = (0.5 * (mean.square() + (2 * log_sd).exp() - 1) - log_sd).sum(1).mean() / seen[0].numel()
            misfit = 0.5 * (self.decoder(torch.cat([z, u[rows]], 1)) - seen).square().mean() / 0.3**2
            optimizer.zero_grad()
            (misfit + self.kl_weight * kl).backward()
            optimizer.step()
        return self

    @torch.no_grad()
    def translate(self, images: np.ndarray, domains: np.ndarray, *, to: str) -> np.ndarray:
        x, u = self._tensors(images, domains)
        _, there = self._tensors(images, np.repeat(to, len(images)))
        made = [
            self.decoder(torch.cat([self._encoded(a, own)[:, : self.n_latents], b], 1))
            for a, own, b in zip(x.split(256), u.split(256), there.split(256), strict=True)
        ]
        return as_images(torch.cat(made)).numpy()

    def _encoded(self, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        if self.encoder_told:
            x = torch.cat([x, u[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)
        found: torch.Tensor = self.encoder(x)
        return found

    def _tensors(self, images: np.ndarray, domains: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        places = torch.tensor([self.domains_.index(name) for name in domains])
        x = as_padded(torch.from_numpy(np.ascontiguousarray(images)), images.shape[1:3])
        return x, nn.functional.one_hot(places, len(self.domains_)).float()


class Oracle:
    """The networks of ImageTranslator trained on true pairs, which no user has: what they could do."""

    def __init__(self, steps: int, seed: int, kinds: np.ndarray) -> None:
        self.steps, self.seed, self.kinds = steps, seed, kinds

    def fit(self, images: np.ndarray, domains: np.ndarray) -> Oracle:
        self.domains_ = tuple(sorted(set(domains.tolist())))
        config = TranslatorConfig(images.shape[1:], len(self.domains_), seed=self.seed)
        x = torch.from_numpy(images)
        groups = torch.tensor([self.domains_.index(name) for name in domains])
        self.network = network_of(x, groups, config)
        networks, rng = self.network.networks, np.random.default_rng(self.seed)
        by_kind = [np.flatnonzero(self.kinds == kind) for kind in np.unique(self.kinds)]
        by_kind = [rows for rows in by_kind if len(rows) > 1]
        parameters = [value for value in networks.parameters() if value.requires_grad]
        optimizer = torch.optim.Adam(parameters, 2e-3, betas=(0.9, 0.99))
        sizes = np.array([len(rows) for rows in by_kind])
        source = torch.Generator().manual_seed(self.seed)
        for step in range(self.steps):
            optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / self.steps)
            chosen = rng.choice(len(by_kind), 32, p=sizes / sizes.sum())
            pairs = torch.tensor(np.array([rng.choice(by_kind[k], 2, replace=False) for k in chosen])).T
            both = torch.cat([as_padded(x[own], config.padded) for own in pairs], dim=1)
            first, second = jittered(both, source).chunk(2, dim=1)
            made = self._made(networks, first, groups[pairs[0]], groups[pairs[1]])
            optimizer.zero_grad()
            (made - second).square().mean().backward()
            optimizer.step()
            self.network.after("translator", step, 32)
        return self

    @torch.no_grad()
    def translate(self, images: np.ndarray, domains: np.ndarray, *, to: str) -> np.ndarray:
        config, parts = self.network.config, []
        for begin in range(0, len(images), 256):
            x = as_padded(torch.from_numpy(images[begin : begin + 256]), config.padded)
            own = torch.tensor([self.domains_.index(name) for name in domains[begin : begin + 256]])
            there = torch.full_like(own, self.domains_.index(to))
            parts.append(as_images(self._made(self.network.averaged, x, own, there)).numpy())
        return np.concatenate(parts)

    def _made(self, networks: Any, x: torch.Tensor, own: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        design = nn.functional.one_hot(there, len(self.domains_)).float()
        content, _ = networks.encode(self.network.align.common_of(x, own))
        style = networks.prior.from_noise(torch.zeros(len(x), self.network.config.n_style), design)
        made: torch.Tensor = networks.decode(content, style, design, self.network.align)
        return made


def judges_of(problem: Problem, folder: Path | None) -> tuple[ImageClassifier, ImageClassifier]:
    """Judges of content and of domain, read from ``folder`` where they are there."""
    images, content, domains = problem.judged
    found = []
    for name, labels in (("content", content), ("style", domains)):
        path = None if folder is None else folder / f"{name}.safetensors"
        if path is not None and path.exists():
            judge = ImageClassifier.load(path)
        else:
            judge = ImageClassifier(max_epochs=problem.epochs).fit(images, labels)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                judge.save(path)
        found.append(judge)
    return found[0], found[1]


def outcomes(model: Any, problem: Problem, judges: tuple[ImageClassifier, ImageClassifier]) -> pd.DataFrame:
    """Of all held-out images carried to all other domains: what is shown, squared error, what the judges read."""
    names = ("shown", "unseen", "error", "content", "style")
    kept: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for place, name in enumerate(problem.names):
        moved = problem.test_domains != name
        made = model.translate(problem.test[moved], problem.test_domains[moved], to=name)
        kept["error"].append(np.square(made.astype(float) - problem.truth[moved, place]).mean((1, 2, 3)))
        kept["content"].append(judges[0].predict(made) == problem.content[moved])
        kept["style"].append(judges[1].predict(made) == name)
        kept["unseen"].append(problem.unseen[moved, place])
        kept["shown"].append(problem.content[moved])
    return pd.DataFrame({name: np.concatenate(parts) for name, parts in kept.items()})


def scores(whole: pd.DataFrame) -> dict[str, float]:
    """Means of the outcomes."""
    found = {}
    for unseen, own in whole.groupby("unseen"):
        prefix = "unseen_" if unseen else ""
        found[f"{prefix}rmse"] = round(float(np.sqrt(own["error"].mean())), 2)
        found[f"{prefix}content"] = round(float(own["content"].mean()), 4)
        found[f"{prefix}style"] = round(float(own["style"].mean()), 4)
    return found


def sums(whole: pd.DataFrame) -> pd.DataFrame:
    """The outcomes, added up for everything that is shown."""
    parts = whole.groupby(["shown", "unseen"])
    return parts[["error", "content", "style"]].sum().round(4).assign(n=parts.size()).reset_index()


def readers(model: ImageTranslator, problem: Problem) -> dict[str, float]:
    """How well the domain is read from the content of held-out real images."""
    content = model.transform(problem.test, problem.test_domains)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    network = make_pipeline(StandardScaler(), MLPClassifier((64,), max_iter=200, random_state=0))
    words = {"cv": FOLDS, "error_score": "raise"}
    return {
        "linear": round(float(cross_val_score(linear, content, problem.test_domains, **words).mean()), 4),
        "nonlinear": round(float(cross_val_score(network, content, problem.test_domains, **words).mean()), 4),
        "chance": round(1 / len(problem.names), 4),
        "domain_found": round(float(np.mean(model.predict_domain(problem.test) == problem.test_domains)), 4),
    }


def of_samples(model: Any, problem: Problem, judges: tuple[ImageClassifier, ImageClassifier]) -> dict[str, float]:
    """Do samples read as characters of their domain, and do they cover what is real?"""
    each = SAMPLES // len(problem.names)
    made = np.concatenate([model.sample(each, domain=name, random_state=k) for k, name in enumerate(problem.names)])
    labels = np.repeat(problem.names, each)
    found = {
        "samples_read": _sure(made, labels, judges),
        "real_read": _sure(problem.test, problem.test_domains, judges),
    }
    rng = np.random.default_rng(0)
    some = rng.permutation(len(problem.images))[: len(made)]
    real, drawn, other = (judges[0].features(own) for own in (problem.images[some], made, problem.test))
    found["precision"], found["recall"] = _covered(drawn, real), _covered(real, drawn)
    found["real_precision"] = _covered(other, real)
    return found


def _sure(images: np.ndarray, labels: np.ndarray, judges: tuple[ImageClassifier, ImageClassifier]) -> float:
    logits = torch.from_numpy(extract(judges[0].network_, images))
    sure = logits.softmax(1).amax(1).numpy() >= SURE
    return round(float(np.mean(sure & (judges[1].predict(images) == labels))), 4)


def _covered(points: np.ndarray, by: np.ndarray) -> float:
    """Share of ``points`` that lie within the reach of the third neighbour of some row of ``by``."""
    tree = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(by)
    reach = tree.kneighbors(by)[0][:, -1]
    distance, place = NearestNeighbors(n_neighbors=min(50, len(by))).fit(by).kneighbors(points)
    return round(float((distance <= reach[place]).any(axis=1).mean()), 4)


def fitted(method: str, problem: Problem, seed: int, steps: int, channels: int) -> tuple[Any, float]:
    """A fitted model and the CPU seconds it took."""
    began = time.process_time()
    if method in SIMPLE:
        model: Any = SIMPLE[method]()
    elif method in CVAES:
        model = ConditionalVAE(steps, seed, **CVAES[method])
    elif method == "oracle":
        model = Oracle(steps, seed, problem.kinds)
    else:
        words = {"max_steps": steps, "channels": channels, "random_state": seed, "verbose": 0}
        model = ImageTranslator(**words, **TERMS[method])
    model.fit(problem.images, problem.domains)
    return model, time.process_time() - began


def fitted_twice(problem: Problem, seed: int, steps: int, channels: int) -> dict[str, tuple[Any, float]]:
    """The default and "not sharpened" from one training, whose first ``steps`` steps are the same in both.

    Adversarial steps change only the averaged decoder, which is kept as it is before them.
    """
    networks: list[Any] = []
    kept: dict[str, Any] = {}

    def network(*words: Any) -> Any:
        networks.append(network_of(*words))
        return networks[-1]

    def keep(block: Any) -> None:
        kept["end"] = time.process_time()
        if block.step == steps:
            kept["seconds"], kept["decoder"] = kept["end"] - began, copy.deepcopy(networks[0].averaged.decoder)

    words = {"max_steps": steps, "channels": channels, "random_state": seed, "verbose": 0}
    sharpened = ImageTranslator(**words, **TERMS["ImageTranslator"])
    began = time.process_time()
    with mock.patch("unmix.estimators.translator.network_of", network):
        sharpened.fit(problem.images, problem.domains, callbacks=[keep])
    ended = time.process_time()
    plain = copy.deepcopy(sharpened)
    plain.model_.networks.decoder.load_state_dict(kept["decoder"].state_dict())
    return {
        "not sharpened": (plain, kept["seconds"] + ended - kept["end"]),
        "ImageTranslator": (sharpened, ended - began),
    }


def draw(path: Path, models: dict[str, Any], problem: Problem, target: str) -> None:
    """Held-out images, what each method makes of them in ``target``, and the truth."""
    moved = np.flatnonzero(problem.test_domains != target)
    chosen = moved[np.linspace(0, len(moved) - 1, 24).astype(int)]
    images, domains = problem.test[chosen], problem.test_domains[chosen]
    rows = [model.translate(images, domains, to=target) for model in models.values()]
    truth = problem.truth[chosen, problem.names.index(target)]
    path.parent.mkdir(parents=True, exist_ok=True)
    image_grid([images, *rows, truth], path, zoom=3)


def _has(table: pd.DataFrame, key: list[Any]) -> bool:
    return bool(len(table)) and bool((table[[*KEY]] == key).all(axis=1).any())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["typefaces-16"], choices=list(DATA))
    every = [*SIMPLE, *CVAES, "oracle", *TERMS]
    parser.add_argument("--methods", nargs="+", default=[*SIMPLE, *CVAES, "oracle", "ImageTranslator"], choices=every)
    parser.add_argument("--seeds", type=int, nargs="+", default=[700, 701, 702])
    parser.add_argument("--channels", type=int, default=48, help="width of ImageTranslator")
    parser.add_argument("--steps", type=int, help="default: those of the data")
    parser.add_argument("--judges", type=Path, help="folder in which judges are kept from run to run")
    parser.add_argument("--once", action="store_true", help="ImageTranslator and not sharpened from one training")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--by-content", type=Path, help="file for sums; fits that it lacks are computed again")
    parser.add_argument("--pictures", type=Path, help="folder for grids: held-out images, translations, truth")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    by_content = arguments.by_content
    parts = pd.read_csv(by_content) if by_content is not None and by_content.exists() else pd.DataFrame()
    done = pd.read_csv(arguments.out) if arguments.out.exists() else pd.DataFrame()
    for name in arguments.data:
        problem = DATA[name]()
        steps = problem.steps if arguments.steps is None else arguments.steps
        judges = judges_of(problem, None if arguments.judges is None else arguments.judges / name)
        read_by = "/".join(judge.name_.split("-")[-1] for judge in judges)
        real = {
            f"real_{kind}": round(float(np.mean(judge.predict(problem.test) == labels)), 4)
            for kind, judge, labels in zip(
                ("content", "style"), judges, (problem.content, problem.test_domains), strict=True
            )
        }
        for seed in arguments.seeds:
            twice: dict[str, tuple[Any, float]] = {}
            for method in arguments.methods:
                sized = (0, 0, 0) if method in SIMPLE else (seed, steps, arguments.channels if method in TERMS else 48)
                key = [name, method, *sized]
                known = _has(done, key)
                read = parts[parts["judges"] == read_by] if len(parts) else parts
                if known and (by_content is None or _has(read, key)):
                    continue
                if method == "oracle" and len(np.unique(problem.kinds)) == len(problem.kinds):
                    continue
                if not twice and arguments.once and method in ("ImageTranslator", "not sharpened"):
                    twice = fitted_twice(problem, seed, steps, arguments.channels)
                model, seconds = twice.get(method) or fitted(method, problem, seed, steps, arguments.channels)
                whole = outcomes(model, problem, judges)
                row = dict(zip(KEY, key, strict=True)) | scores(whole) | real
                if by_content is not None:
                    own = sums(whole).assign(**dict(zip(KEY, key, strict=True)), judges=read_by)
                    parts = pd.concat([parts, own])
                    parts.to_csv(by_content, index=False)
                if method in ("ImageTranslator", "not sharpened"):
                    row |= readers(model, problem) | of_samples(model, problem, judges)
                row["cpu_seconds"] = round(seconds, 1)
                if not known:
                    done = pd.concat([done, pd.DataFrame([row])], ignore_index=True)
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                done.to_csv(arguments.out, index=False)
                print(pd.DataFrame([row]).T.to_string(header=False), flush=True)
                if arguments.pictures is not None and method not in SIMPLE:
                    word = method.replace(" ", "_")
                    draw(arguments.pictures / f"{name}-{word}-{seed}.png", {method: model}, problem, problem.names[-1])
                    if hasattr(model, "sample"):
                        grid = [model.sample(16, domain=own, random_state=0) for own in problem.names]
                        image_grid(grid, arguments.pictures / f"{name}-{word}-{seed}-samples.png", zoom=3)
                if method == "ImageTranslator" and arguments.pictures is not None:
                    model.save(arguments.pictures / f"{name}-{seed}", overwrite=True)


if __name__ == "__main__":
    main()
