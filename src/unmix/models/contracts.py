"""What a decoder, a likelihood or a prior of the user's own must keep, tried on a few rows before training starts.

Shapes, finite values, gradients of every parameter, starts and rows that do not depend on each other, and that draws,
densities and inverses belong together. Each error names the method, what it should return and what came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unmix.data.batches import Rows
from unmix.data.sizes import COUNTS, DISCRETE
from unmix.distributions.kinds import LIKELIHOODS
from unmix.distributions.likelihood import Likelihood
from unmix.distributions.prior import DomainPrior, PriorDistribution
from unmix.errors import SettingError
from unmix.nets.layers import generators
from unmix.nets.own_decoder import MakeDecoder, OwnDecoder

_STARTS, _ROWS = 2, 8
_TOLERANCE = 1e-3


def name_of(own: object) -> str:
    """The name of a class, or of that in a ``functools.partial``."""
    kind = own.func if isinstance(own, partial) else own
    return str(getattr(kind, "__qualname__", kind))


def check_decoder(make: MakeDecoder, n_latents: int, n_features: int) -> None:
    """Raise ``SettingError`` unless ``make(n_latents, n_features)`` is a module that maps latents to η row by row."""
    name, z = f"decoder={name_of(make)}", _normal(_ROWS, n_latents)
    with _tried(f"{name} is called as {name_of(make)}(n_latents, n_features) = ({n_latents}, {n_features})"):
        module = make(n_latents, n_features)
    if not isinstance(module, nn.Module):
        raise SettingError(f"{name} must make a torch.nn.Module; got a {type(module).__name__}.")
    said = f"{name}: forward must return η (batch, n_features) = {(_ROWS, n_features)} of latents {(_ROWS, n_latents)}"
    z.requires_grad_()
    with _tried(said):
        output = module(z)
    _need_tensor(output, (_ROWS, n_features), said)
    with torch.no_grad():
        again = module(z)
        alone = torch.cat([module(row) for row in z.split(1)]) if _takes_one(module, z) else output
    if not _close(output, again):
        raise SettingError(f"{name}: forward must give the same η of the same latents; it draws. Leave dropout out.")
    if not _close(output, alone):
        raise SettingError(
            f"{name}: forward must compute each row from that row alone; a row changes with the others. Leave batch "
            "normalisation out."
        )
    _need_gradients(module, output, z, f"{name}: forward")
    said = f"{name}: forward must run under torch.vmap, which trains the starts together"
    with _tried(said):
        decoder = OwnDecoder(generators(0, _STARTS), make, n_latents, n_latents, n_features)
        stacked, jacobian = decoder.with_jacobian(_normal(_STARTS, _ROWS, n_latents), _ROWS)
    _need_tensor(stacked, (_STARTS, _ROWS, n_features), said)
    _need_tensor(jacobian, (_STARTS, _ROWS, n_latents, n_features), f"{name}: forward must have finite derivatives")


def check_likelihood(make: Callable[[int, int], Likelihood], reads: str, n_features: int) -> None:
    """Raise ``SettingError`` unless ``make(n_starts, n_features)`` is a likelihood of features read as ``reads``."""
    name = f"likelihood={name_of(make)}"
    if reads not in LIKELIHOODS:
        raise SettingError(f"{name}: reads must be one of {[*LIKELIHOODS]}, how the features are read; got {reads!r}.")
    found = []
    for n_starts in (_STARTS, 1):
        with _tried(f"{name} is called as {name_of(make)}(n_starts, n_features) = ({n_starts}, {n_features})"):
            found.append(make(n_starts, n_features))
    several, one = found
    if not isinstance(several, Likelihood):
        raise SettingError(f"{name} must make an unmix.distributions.likelihood.Likelihood; got {type(several)}.")
    _need_starts(several, name)
    rows, output = _rows(reads, n_features), 0.1 * _normal(_STARTS, _ROWS, n_features).requires_grad_()
    with _tried(f"{name}: begin(train)"), torch.no_grad():
        for own in found:
            own.begin(rows)
    _check_density(several, rows, output, name)
    _check_one_start(one, rows, output[0].detach(), name)


def check_prior(make: Callable[..., DomainPrior], n_latents: int, n_design: int, interactions: float) -> None:
    """Raise ``SettingError`` unless ``make`` is a ``DomainPrior`` whose maps are monotone, smooth and invertible."""
    name, words = f"prior={name_of(make)}", "sources, n_latents, n_design, interactions"
    with _tried(f"{name} is called as {name_of(make)}({words}) = (…, {n_latents}, {n_design}, {interactions:g})"):
        prior = make(generators(0, _STARTS), n_latents, n_design, interactions)
    if not isinstance(prior, DomainPrior):
        raise SettingError(f"{name} must make an unmix.distributions.prior.DomainPrior; got {type(prior)}.")
    _need_starts(prior, name)
    with _tried(f"{name}: forward(design) with a design matrix of shape {(_ROWS, n_design)}"):
        distribution = prior(_normal(_ROWS, n_design))
    if not isinstance(distribution, PriorDistribution):
        raise SettingError(
            f"{name}: forward(design) must return an unmix.distributions.prior.PriorDistribution; got a "
            f"{type(distribution).__name__}."
        )
    z, shape = _normal(_STARTS, _ROWS, n_latents).requires_grad_(), (_STARTS, _ROWS, n_latents)
    said = f"{name}: to_noise(z) must return ε and log |dε/dz|, each (n_starts, batch, n_latents) = {shape}"
    with _tried(said):
        noise, log_slope = distribution.to_noise(z)
        log_slope = log_slope.expand(shape)
    _need_tensor(noise, shape, said)
    _need_tensor(log_slope, shape, said)
    said = f"{name}: from_noise(ε) must be the inverse of to_noise, (n_starts, batch, n_latents) = {shape}"
    with _tried(said):
        back = distribution.from_noise(noise.detach())
    _need_tensor(back, shape, said)
    if not _close(back, z):
        raise SettingError(f"{said}; it is off by {_off(back, z):.3g}.")
    slope = torch.autograd.grad(noise.sum(), z, retain_graph=True)[0]
    if not _close(log_slope.exp(), slope.abs()):
        raise SettingError(
            f"{name}: the second result of to_noise(z) must be log |dε/dz| of each latent, which depends on no other "
            f"latent; |dε/dz| is off by {_off(log_slope.exp(), slope.abs()):.3g}."
        )
    density = distribution.log_prob(z)
    _need_tensor(density, shape, f"{name}: log_prob(z) must be finite")
    _need_gradients(prior, density, z, f"{name}: log_prob", optional=("inner", "outer") if n_design else ("effects",))
    _need_own_start(lambda own: prior(_normal(_ROWS, n_design)).log_prob(own), z.detach(), f"{name}: log_prob")


def _check_density(likelihood: Likelihood, rows: Rows, output: Tensor, name: str) -> None:
    shape = (_STARTS, _ROWS)
    said = f"{name}: log_prob(rows, output) must return log p(x | η) of every row, (n_starts, batch) = {shape}"
    with _tried(said):
        density = likelihood.log_prob(rows, output)
    _need_tensor(density, shape, said)
    _need_gradients(likelihood, density, output, f"{name}: log_prob")
    _need_own_start(lambda own: likelihood.log_prob(rows, own), output.detach(), f"{name}: log_prob")
    with torch.no_grad():
        seen = torch.ones_like(rows.x)
        seen[:, 0] = 0.0
        hidden = Rows(rows.x, seen, rows.codes, rows.values, rows.n_design, rows.given, rows.offset)
        parts = [None if own is None else own.clone() for own in (rows.x, rows.given)]
        for own in parts:
            if own is not None:
                own[:, 0] = 0.0
        x, given = parts
        assert x is not None
        other = Rows(x, seen, rows.codes, rows.values, rows.n_design, given, rows.offset)
        if not _close(likelihood.log_prob(hidden, output), likelihood.log_prob(other, output)):
            raise SettingError(
                f"{name}: log_prob must leave out entries for which rows.observed is 0 (missing values); it counts "
                "them. Multiply the log-densities of the entries by rows.observed unless that is None."
            )


@torch.no_grad()
def _check_one_start(likelihood: Likelihood, rows: Rows, output: Tensor, name: str) -> None:
    """The methods of a fitted model, whose η has no start axis."""
    shape, offset = tuple(output.shape), rows.offset

    def draw() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    calls: dict[str, Callable[[], Tensor]] = {
        "mean(output, offset)": lambda: likelihood.mean(output, offset),
        "sample(output, generator, offset)": lambda: likelihood.sample(output, draw(), offset),
        "carry(rows, output, moved, generator, offset)": lambda: likelihood.carry(
            rows, output, output + 0.1, draw(), offset
        ),
        "residual(rows, output, generator)": lambda: likelihood.residual(rows, output, draw()),
        "inputs(x, offset)": lambda: likelihood.inputs(rows.features, offset),
    }
    made: dict[str, Tensor] = {}
    for method, call in calls.items():
        said = f"{name}: {method} must return (batch, n_features) = {shape} for η of this shape"
        with _tried(said):
            made[method] = call()
        _need_tensor(made[method], shape, said)
    said = f"{name}: shift(rows, output) must return (n_features,) = {shape[1:]}"
    with _tried(said):
        moved = likelihood.shift(rows, output)
    _need_tensor(moved, shape[1:], said)
    drawn = made["sample(output, generator, offset)"]
    if not _close(drawn, calls["sample(output, generator, offset)"]()):
        raise SettingError(f"{name}: sample must draw from its generator alone, so that the same seed gives the same.")
    own = Rows(drawn, None, rows.codes, rows.values, rows.n_design, None if rows.given is None else drawn, offset)
    said = f"{name}: log_prob must be finite at what sample draws"
    with _tried(said):
        density = likelihood.log_prob(own, output[None])
    _need_tensor(density, (1, len(rows)), said)
    same = likelihood.carry(rows, output, output, draw(), offset)
    if not _close(same, rows.features):
        raise SettingError(
            f"{name}: carry must return the rows as they are where η does not change; they are off by "
            f"{_off(same, rows.features):.3g}."
        )


def _rows(reads: str, n_features: int) -> Rows:
    """Made-up rows: standard normal, counts with sizes, or 0 and 1."""
    x, source = _normal(_ROWS, n_features), torch.Generator().manual_seed(1)
    given = offset = None
    if reads in COUNTS:
        given = torch.poisson(torch.full_like(x, 3.0), generator=source)
        offset = 0.1 * _normal(_ROWS, 1)
    elif reads in DISCRETE:
        given = (x > 0).to(x)
    return Rows(x, None, torch.zeros(_ROWS, 0, dtype=torch.int64), torch.zeros(_ROWS, 0), 0, given, offset)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@contextmanager
def _tried(said: str) -> Iterator[None]:
    """Whatever the user's code raises is one ``SettingError`` that begins with what was asked of it."""
    try:
        yield
    except SettingError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise SettingError(f"{said}; it raised {type(error).__name__}: {text}") from error


def _takes_one(module: nn.Module, z: Tensor) -> bool:
    """Whether a batch may have one row, which a module with batch normalisation refuses."""
    try:
        module(z[:1])
    except Exception:
        raise SettingError(
            f"{type(module).__qualname__}: forward must take a batch of one row as well. Leave batch normalisation out."
        ) from None
    return True


def _need_tensor(value: object, shape: tuple[int, ...], said: str) -> None:
    if not isinstance(value, Tensor):
        raise SettingError(f"{said}; got a {type(value).__name__}.")
    if tuple(value.shape) != shape:
        raise SettingError(f"{said}; got shape {tuple(value.shape)}.")
    if not bool(torch.isfinite(value).all()):
        raise SettingError(f"{said}; it holds NaN or infinite values.")


def _need_starts(module: nn.Module, name: str) -> None:
    """Every tensor of the state has the start axis first."""
    for key, value in module.state_dict().items():
        if value.dim() == 0 or len(value) != _STARTS:
            raise SettingError(
                f"{name}: every parameter and buffer has an axis of starts first; {key} made for n_starts = {_STARTS} "
                f"has shape {tuple(value.shape)}."
            )


def _need_gradients(module: nn.Module, output: Tensor, inputs: Tensor, said: str, optional: Any = ()) -> None:
    """Every trained parameter, and the inputs, have a finite gradient."""
    named = {name: own for name, own in module.named_parameters() if own.requires_grad and name not in optional}
    wanted = [inputs, *named.values()]
    try:
        found = torch.autograd.grad(output.sum(), wanted, allow_unused=True, retain_graph=True)
    except RuntimeError as error:
        raise SettingError(f"{said} must be differentiable; it raised RuntimeError: {error}") from error
    for name, gradient in zip(["its inputs", *named], found, strict=True):
        if gradient is None:
            raise SettingError(f"{said} must depend on {name}, which gets no gradient. Is it detached, or not used?")
        if not bool(torch.isfinite(gradient).all()):
            raise SettingError(f"{said} must have finite gradients; that of {name} is not.")


@torch.no_grad()
def _need_own_start(of: Callable[[Tensor], Tensor], inputs: Tensor, said: str) -> None:
    """Another start's inputs change nothing."""
    changed = inputs.clone()
    changed[1:] += 0.5
    if not _close(of(inputs)[0], of(changed)[0]):
        raise SettingError(f"{said} of a start must depend on that start alone; it changes with the others.")


def _close(value: Tensor, other: Tensor) -> bool:
    return bool(torch.allclose(value, other, rtol=_TOLERANCE, atol=_TOLERANCE))


def _off(value: Tensor, other: Tensor) -> float:
    return float((value - other).detach().abs().max())
