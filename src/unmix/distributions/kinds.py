"""The likelihoods by name, and one for features of several kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from unmix.data.batches import Rows
from unmix.distributions.discrete import Bernoulli, Counts
from unmix.distributions.likelihood import Gaussian, Likelihood, NoiseCourse
from unmix.distributions.student import Student

LIKELIHOODS: dict[str, Callable[[int, int, float, NoiseCourse], Likelihood]] = {
    "gaussian": lambda starts, features, std, course: Gaussian(starts, features, std, course, refits=True),
    "student": Student,
    "poisson": lambda starts, features, std, course: Counts(starts, features, course, dispersed=False),
    "negative_binomial": lambda starts, features, std, course: Counts(starts, features, course),
    "bernoulli": lambda starts, features, std, course: Bernoulli(starts, features),
}


def likelihood_of(
    kinds: Sequence[str],
    n_starts: int,
    n_features: int,
    std: float,
    course: NoiseCourse,
    levels: tuple[int, ...] = (),
) -> Likelihood:
    """The likelihood of features of ``kinds``, names of ``LIKELIHOODS``, one for each or one for all.

    ``levels`` are those of ``Counts`` that have a dispersion.
    """

    def of(name: str, n_own: int) -> Likelihood:
        if name == "negative_binomial":
            return Counts(n_starts, n_own, course, levels=levels)
        return LIKELIHOODS[name](n_starts, n_own, std, course)

    names = [*dict.fromkeys(kinds)]
    if len(names) == 1:
        return of(names[0], n_features)
    places = {name: torch.tensor([k for k, kind in enumerate(kinds) if kind == name]) for name in names}
    return Mixed({name: of(name, len(place)) for name, place in places.items()}, places)


class Mixed(Likelihood):
    """Features of several kinds: ``parts`` by name, each of the features of its ``places``."""

    link, kept = "by feature", "variance or deviance"
    unit = "standard deviations, log fold changes of counts or log-odds, by the kind of the feature"
    entry = (
        "Mean size of ∂η/∂z for one standard deviation of the latent, by the kind of the feature: in standard "
        "deviations of a continuous feature, log fold change of an expected count, change of log-odds of yes and no."
    )

    def __init__(self, parts: dict[str, Likelihood], places: dict[str, Tensor]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.n_features = sum(map(len, places.values()))
        self.n_parameters = max(part.n_parameters for part in parts.values())
        for name, place in places.items():
            self.register_buffer(f"place_{name}", place, persistent=False)

    def _own(self) -> Iterator[tuple[Likelihood, Tensor]]:
        for name, part in self.parts.items():
            assert isinstance(part, Likelihood)
            yield part, self.get_buffer(f"place_{name}")

    def _gathered(self, of: Callable[[Likelihood, Tensor], Tensor], like: Tensor) -> Tensor:
        result = torch.empty_like(like)
        for part, place in self._own():
            result[..., place] = of(part, place)
        return result

    def log_prob(self, rows: Rows, output: Tensor, progress: float = 1.0) -> Tensor:
        found = [part.log_prob(_rows(part, rows, own), output[..., own], progress) for part, own in self._own()]
        return torch.stack(found).sum(0)

    def mean(self, output: Tensor, offset: Tensor | None = None) -> Tensor:
        return self._gathered(lambda part, own: part.mean(output[..., own], _offset(part, offset, own)), output)

    def sample(self, output: Tensor, generator: torch.Generator, offset: Tensor | None = None) -> Tensor:
        return self._gathered(
            lambda part, own: part.sample(output[..., own], generator, _offset(part, offset, own)), output
        )

    def within(self, design: Tensor) -> Mixed:
        parts = {name: part.within(design) for name, part in self.parts.items() if isinstance(part, Likelihood)}
        return Mixed(parts, {name: self.get_buffer(f"place_{name}") for name in parts})

    def carry(
        self, rows: Rows, output: Tensor, moved: Tensor, generator: torch.Generator, offset: Tensor | None = None
    ) -> Tensor:
        def of(part: Likelihood, own: Tensor) -> Tensor:
            return part.carry(
                _rows(part, rows, own), output[..., own], moved[..., own], generator, _offset(part, offset, own)
            )

        return self._gathered(of, output)

    def residual(self, rows: Rows, output: Tensor, generator: torch.Generator) -> Tensor:
        return self._gathered(
            lambda part, own: part.residual(_rows(part, rows, own), output[..., own], generator), output
        )

    def shift(self, rows: Rows, output: Tensor) -> Tensor:
        return self._gathered(lambda part, own: part.shift(_rows(part, rows, own), output[..., own]), output[0])

    def pivot(self, rows: Rows, output: Tensor, generator: torch.Generator) -> Tensor:
        return self._gathered(lambda part, own: part.pivot(_rows(part, rows, own), output[..., own], generator), output)

    def inputs(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        return self._gathered(lambda part, own: part.inputs(x[..., own], _offset(part, offset, own)), x)

    def slope(self, output: Tensor) -> Tensor:
        return self._gathered(lambda part, own: part.slope(output[..., own]), output)

    def deviance_explained(self, rows: Rows, parts: Iterator[tuple[Rows, Tensor]]) -> Tensor | None:
        all_parts, found = [*parts], torch.full((self.n_features,), torch.nan, dtype=torch.float64)
        for part, own in self._own():
            of_part = ((_rows(part, some, own), output[..., own]) for some, output in all_parts)
            explained = part.deviance_explained(_rows(part, rows, own), of_part)
            if explained is not None:
                found[own.cpu()] = explained
        return found

    def sizes(self, n_rows: int, generator: torch.Generator) -> Tensor | None:
        drawn = (part.sizes(n_rows, generator) for part, _ in self._own())
        return next((found for found in drawn if found is not None), None)

    def learn_inputs(self, center: Tensor, scale: Tensor) -> None:
        for part, own in self._own():
            part.learn_inputs(center[own], scale[own])

    def begin(self, train: Rows) -> None:
        for part, own in self._own():
            part.begin(_rows(part, train, own))

    def begin_linear(self, start: int, train: Rows, z: Tensor, weight: Tensor, noise: float) -> Tensor:
        return self._gathered(
            lambda part, own: part.begin_linear(start, _rows(part, train, own), z, weight[:, own], noise), weight
        )

    def release(self) -> None:
        for part, _ in self._own():
            part.release()

    def lower_floor(self, most: float) -> None:
        for part, _ in self._own():
            part.lower_floor(most)

    def refit(self, drawn: Iterable[tuple[Rows, Tensor]]) -> None:
        parts = [*drawn]
        for part, own in self._own():
            part.refit((_rows(part, rows, own), output[..., own]) for rows, output in parts)

    def of_start(self, start: int) -> dict[str, Tensor]:
        return {
            f"parts.{name}.{key}": value
            for name, part in self.parts.items()
            if isinstance(part, Likelihood)
            for key, value in part.of_start(start).items()
        }


def _offset(part: Likelihood, offset: Tensor | None, own: Tensor) -> Tensor | None:
    """The offset of the features of one part; the size of a row is for those that count."""
    if offset is None or (offset.shape[1] == 1 and not part.sized):
        return None
    return offset if offset.shape[1] == 1 else offset[:, own]


def _rows(part: Likelihood, rows: Rows, own: Tensor) -> Rows:
    return replace(rows.columns(own), offset=_offset(part, rows.offset, own))
