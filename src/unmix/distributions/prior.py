r"""Domain-encoding prior p(z | u): for every latent an invertible map to a standard normal that depends on u.

.. math:: p(z \mid u) = \prod_i p(z_i \mid u), \qquad \epsilon_i = F_i(z_i; u) \sim N(0, 1)

Three forms of F: location-scale, ``ε = (z - m(u)) / s(u)`` (Gaussian domains); location-scale followed by a monotone
rational-quadratic spline (Durkan et al. 2019, arXiv:1906.04032) whose knots depend on u (any shape); and location-scale
followed by the map of Student's t to a normal distribution, ``t = (z - m(u)) / s(u)``,

.. math:: \epsilon = \mathrm{sign}(t)\, c \sqrt{\nu \log(1 + t^2 / \nu)}, \qquad c = \frac{8 \nu + 1}{8 \nu + 3}

(Wallace 1959, Annals of Mathematical Statistics 30: within 0.03 of the exact map for |t| < 5 and ν ≥ 3), whose degrees
of freedom ν are learnt for each latent, the same in all domains (heavy tails).

u enters as a design matrix: indicator columns for the levels of every categorical or nested column, and the
standardised continuous columns. Its effect is additive, plus a small network for interactions where u has more
than one column. Effects are deviations from a mean domain and carry a Gaussian penalty, worth one row each, so the
parameters of a rare domain shrink toward the mean domain and those of a common one are free. Between categorical
columns the network is small beforehand: where it is not, it takes a part of what adds up, and what it then says of a
combination without rows is arbitrary.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from unmix.nets.layers import Generators, normal_parameter
from unmix.objectives.elbo import SMALL, gaussian_kl, gaussian_negentropy, student_kl, student_slope, wallace

_LOG_SCALE_LIMIT = 5.0
_INTERACTION_WIDTH = 16
_FIRST_DEGREES, _LEAST_DEGREES, _MOST_DEGREES = 20.0, 2.5, 5_000.0


class PriorDistribution(ABC):
    """p(z | u) for a batch of u; tensors are (starts, batch, n_latents)."""

    @abstractmethod
    def to_noise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``ε = F(z; u)`` and ``log |dε/dz|``."""

    @abstractmethod
    def from_noise(self, noise: Tensor) -> Tensor:
        """``z = F⁻¹(ε; u)``."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of every latent, in nats."""
        noise, log_slope = self.to_noise(z)
        return -0.5 * (noise.square() + math.log(2 * math.pi)) + log_slope

    def kl(self, mean: Tensor, log_diagonal: Tensor, lower: Tensor, z: Tensor) -> Tensor:
        """Each latent's part of KL(q ‖ p) for q of ``gaussian_kl``: from a draw ``z`` of q, unless it is closed."""
        return gaussian_negentropy(log_diagonal) - self.log_prob(z)

    @property
    def untailed(self) -> PriorDistribution:
        """The distribution without the shape of heavy tails: of Student's t the location and scale, as if Gaussian."""
        return self


class LocationScale(PriorDistribution):
    """``ε = (z - m) / s``: Gaussian in every domain."""

    def __init__(self, location: Tensor, log_scale: Tensor) -> None:
        self.location, self.log_scale = location, log_scale

    def to_noise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return (z - self.location) * (-self.log_scale).exp(), (-self.log_scale).expand_as(z)

    def from_noise(self, noise: Tensor) -> Tensor:
        return self.location + self.log_scale.exp() * noise

    def kl(self, mean: Tensor, log_diagonal: Tensor, lower: Tensor, z: Tensor) -> Tensor:
        return gaussian_kl(mean, log_diagonal, lower, self.location, self.log_scale)


class StudentScale(PriorDistribution):
    """Location-scale, then the map of Student's t to a normal distribution; ``inverse_degrees`` is 1/ν."""

    def __init__(self, base: LocationScale, inverse_degrees: Tensor) -> None:
        self.base, self.inverse_degrees = base, inverse_degrees

    def to_noise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        t, log_scale = self.base.to_noise(z)
        ratio, log_slope = student_slope(t.square(), self.inverse_degrees)
        return t * ratio, log_slope + log_scale

    def from_noise(self, noise: Tensor) -> Tensor:
        scaled = noise / wallace(self.inverse_degrees)
        grown = scaled.square() * self.inverse_degrees
        ratio = torch.where(grown > SMALL, grown.expm1() / grown.clamp_min(SMALL), 1.0 + grown / 2.0)
        return self.base.from_noise(scaled * ratio.sqrt())

    def kl(self, mean: Tensor, log_diagonal: Tensor, lower: Tensor, z: Tensor) -> Tensor:
        location, log_scale = self.base.location, self.base.log_scale
        return student_kl(mean, log_diagonal, lower, location, log_scale, self.inverse_degrees)

    @property
    def untailed(self) -> PriorDistribution:
        return self.base


class LocationScaleSpline(PriorDistribution):
    """Location-scale, then a monotone rational-quadratic spline on [-bound, bound], identity outside."""

    def __init__(self, base: LocationScale, widths: Tensor, heights: Tensor, slopes: Tensor, bound: float) -> None:
        self.base = base
        self.x, self.y, self.slopes = _knots(widths, bound), _knots(heights, bound), _slopes(slopes)
        self.bound = bound

    def to_noise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        inner, log_scale = self.base.to_noise(z)
        noise, log_slope = rational_quadratic(inner, self.x, self.y, self.slopes, inverse=False)
        return noise, log_slope + log_scale

    def from_noise(self, noise: Tensor) -> Tensor:
        inner, _ = rational_quadratic(noise, self.x, self.y, self.slopes, inverse=True)
        return self.base.from_noise(inner)


def rational_quadratic(value: Tensor, x: Tensor, y: Tensor, slopes: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """Monotone rational-quadratic spline through the knots (x, y), identity outside them (Durkan et al., eq. 4-8).

    Parameters
    ----------
    value : (...)
    x, y, slopes : (..., n_bins + 1), increasing knots with their derivatives; the outer derivatives are 1
    inverse : whether ``value`` is an output

    Returns
    -------
    result, log_slope : (...), the image and the log-derivative of the map that was applied
    """
    knots = y if inverse else x
    inside = (value > knots[..., 0]) & (value < knots[..., -1])
    safe = torch.where(inside, value, (knots[..., 0] + knots[..., -1]) / 2)
    index = (torch.searchsorted(knots.detach().contiguous(), safe.detach().unsqueeze(-1).contiguous()) - 1).clamp(
        0, knots.shape[-1] - 2
    )

    def pick(table: Tensor, shift: int = 0) -> Tensor:
        return table.gather(-1, index + shift).squeeze(-1)

    x0, y0, d0, d1 = pick(x), pick(y), pick(slopes), pick(slopes, 1)
    width, height = pick(x, 1) - x0, pick(y, 1) - y0
    mean_slope = height / width
    curve = d0 + d1 - 2 * mean_slope
    if inverse:
        rise = safe - y0
        a = height * (mean_slope - d0) + rise * curve
        b = height * d0 - rise * curve
        c = -mean_slope * rise
        t = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())
        result = x0 + t * width
    else:
        t = (safe - x0) / width
    mixed = t * (1 - t)
    denominator = mean_slope + curve * mixed
    if not inverse:
        result = y0 + height * (mean_slope * t.square() + d0 * mixed) / denominator
    numerator = d1 * t.square() + 2 * mean_slope * mixed + d0 * (1 - t).square()
    log_slope = 2 * mean_slope.log() + numerator.log() - 2 * denominator.log()
    log_slope = -log_slope if inverse else log_slope
    return torch.where(inside, result, value), torch.where(inside, log_slope, torch.zeros_like(log_slope))


class DomainPrior(nn.Module, ABC):
    """Parameters of p(z | u) from the design matrix of u: mean domain + additive effects + interactions.

    Arguments: ``n_design`` columns of the design matrix (0: one domain); ``interactions`` adds the network, unless it
    is 0: the standard deviation of its last weights beforehand.
    """

    n_parameters: int

    def __init__(self, sources: Generators, n_latents: int, n_design: int, interactions: float) -> None:
        super().__init__()
        starts, self.n_latents = len(sources), n_latents
        self.mean_domain = nn.Parameter(torch.zeros(starts, 1, self.n_parameters * n_latents))
        self.effects = normal_parameter(sources, (n_design, self.n_parameters * n_latents), 0.1)
        with torch.no_grad():
            self.effects[..., n_latents:] = 0.0
        self.inner = self.outer = None
        self.interactions = interactions
        if interactions:
            self.inner = normal_parameter(sources, (n_design, _INTERACTION_WIDTH), 1.0)
            self.outer = nn.Parameter(torch.zeros(starts, _INTERACTION_WIDTH, self.n_parameters * n_latents))

    def parameters_of(self, design: Tensor, importance: Tensor | None = None) -> tuple[Tensor, ...]:
        """Tensors (starts, batch, n_latents, ...) from ``design`` (batch, n_design).

        ``importance`` (starts, 1, n_latents) multiplies what u changes: at 0 a latent is as in the mean domain.
        """
        design = design.expand(self.mean_domain.shape[0], -1, -1)
        values = torch.baddbmm(self.mean_domain, design, self.effects)
        if self.inner is not None and self.outer is not None:
            values = torch.baddbmm(values, torch.tanh(torch.bmm(design, self.inner)), self.outer)
        # Matrix products may come in half precision; the domains' effects stay in full.
        values = values.to(self.mean_domain.dtype)
        if importance is not None:
            values = torch.lerp(self.mean_domain, values, importance.repeat(1, 1, self.n_parameters))
        return values.chunk(self.n_parameters, dim=-1)

    def latent_entries(self, kept: Tensor) -> dict[str, tuple[int, Tensor]]:
        """Dimension and index of the parameters that belong to the latents ``kept`` alone."""
        index = torch.cat([kept + block * self.n_latents for block in range(self.n_parameters)])
        names = ["mean_domain", "effects"] + (["outer"] if self.outer is not None else [])
        return dict.fromkeys(names, (2, index))

    def shrinkage(self) -> Tensor:
        """Negative log of the normal prior of all effects, up to a constant (starts,)."""
        total = self.effects.square().sum((1, 2))
        if self.outer is not None:
            total = total + (self.outer / self.interactions).square().sum((1, 2))
        return 0.5 * total

    @torch.no_grad()
    def set_moments(self, start: int, design: Tensor, counts: Tensor, mean: Tensor, std: Tensor) -> None:
        """Give one start the Gaussian prior that fits means and standard deviations (groups, n_latents) best.

        ``design`` (groups, n_design), ``counts`` (groups,) rows of each; least squares with one row's shrinkage.
        """
        n = self.n_latents
        log_scale = _LOG_SCALE_LIMIT * torch.atanh((std.log() / _LOG_SCALE_LIMIT).clamp(-0.99, 0.99))
        columns = torch.cat([design.new_ones(len(design), 1), design], dim=1)
        ridge = torch.eye(columns.shape[1], device=design.device)
        ridge[0, 0] = 0.0
        weighted = columns.T * counts

        def fitted(target: Tensor) -> Tensor:
            return torch.linalg.solve(weighted @ columns + ridge, weighted @ target)

        scales = fitted(log_scale)
        shifts = fitted(mean * (-scales[0]).exp())
        for parameter, rows in ((self.mean_domain, slice(0, 1)), (self.effects, slice(1, None))):
            parameter[start] = 0.0
            parameter[start, :, :n], parameter[start, :, n : 2 * n] = shifts[rows], scales[rows]
        if self.outer is not None:
            self.outer[start] = 0.0

    @abstractmethod
    def forward(self, design: Tensor, importance: Tensor | None = None) -> PriorDistribution: ...


def _location_scale(mean: Tensor, shift: Tensor, log_scale: Tensor) -> LocationScale:
    """The location moves in units of the mean domain's scale, so that effects do not depend on the scale of z."""
    return LocationScale(shift * mean.exp(), bounded(log_scale))


def bounded(log_scale: Tensor) -> Tensor:
    """A log-scale kept smoothly within ±5."""
    return _LOG_SCALE_LIMIT * torch.tanh(log_scale / _LOG_SCALE_LIMIT)


class GaussianPrior(DomainPrior):
    """Location-scale form: a mean and a standard deviation for each latent and domain."""

    n_parameters = 2

    def forward(self, design: Tensor, importance: Tensor | None = None) -> PriorDistribution:
        shift, log_scale = self.parameters_of(design, importance)
        return _location_scale(self.mean_domain[..., self.n_latents :], shift, log_scale)


class StudentPrior(DomainPrior):
    """Student's t: a location and a scale for each latent and domain, degrees of freedom for each latent."""

    n_parameters = 2

    def __init__(self, sources: Generators, n_latents: int, n_design: int, interactions: float) -> None:
        super().__init__(sources, n_latents, n_design, interactions)
        self.log_degrees = nn.Parameter(torch.full((len(sources), 1, n_latents), math.log(_FIRST_DEGREES)))

    @property
    def inverse_degrees(self) -> Tensor:
        """1/ν (starts, 1, n_latents)."""
        return (-self.log_degrees.clamp(math.log(_LEAST_DEGREES), math.log(_MOST_DEGREES))).exp()

    def latent_entries(self, kept: Tensor) -> dict[str, tuple[int, Tensor]]:
        return {**super().latent_entries(kept), "log_degrees": (2, kept)}

    @torch.no_grad()
    def set_moments(self, start: int, design: Tensor, counts: Tensor, mean: Tensor, std: Tensor) -> None:
        """As if Gaussian, with the scale that has this standard deviation; other latents may have these tails now."""
        own = self.log_degrees[start].clamp(math.log(_LEAST_DEGREES), math.log(_MOST_DEGREES))
        self.log_degrees[start] = own.mean()
        super().set_moments(start, design, counts, mean, std * (1.0 - 2.0 * (-own.mean()).exp()).sqrt())

    def forward(self, design: Tensor, importance: Tensor | None = None) -> PriorDistribution:
        shift, log_scale = self.parameters_of(design, importance)
        base = _location_scale(self.mean_domain[..., self.n_latents :], shift, log_scale)
        return StudentScale(base, self.inverse_degrees)


class SplinePrior(DomainPrior):
    """Spline form: any smooth shape for each latent and domain."""

    n_bins = 8
    bound = 4.0
    n_parameters = 2 + 3 * n_bins - 1

    @torch.no_grad()
    def begin_at(self, gaussian: GaussianPrior) -> None:
        """Become equal to a Gaussian prior of the same sizes: its locations and scales, and straight lines."""
        known = gaussian.state_dict()
        for name, value in self.state_dict().items():
            value.zero_()[..., : known[name].shape[-1]] = known[name]

    def forward(self, design: Tensor, importance: Tensor | None = None) -> PriorDistribution:
        shift, log_scale, *rest = self.parameters_of(design, importance)
        base = _location_scale(self.mean_domain[..., self.n_latents : 2 * self.n_latents], shift, log_scale)
        shape = torch.stack(rest, dim=-1)
        widths, heights, slopes = shape.split([self.n_bins, self.n_bins, self.n_bins - 1], dim=-1)
        return LocationScaleSpline(base, widths, heights, slopes, self.bound)


def _knots(raw: Tensor, bound: float, least: float = 1e-3) -> Tensor:
    n_bins = raw.shape[-1]
    shares = least + (1 - least * n_bins) * raw.softmax(-1)
    inner = 2 * bound * shares.cumsum(-1)[..., :-1] - bound
    edge = torch.full_like(raw[..., :1], bound)
    return torch.cat([-edge, inner, edge], dim=-1)


def _slopes(raw: Tensor, least: float = 1e-3) -> Tensor:
    inner = least + nn.functional.softplus(raw + math.log(math.expm1(1 - least)))
    edge = torch.ones_like(raw[..., :1])
    return torch.cat([edge, inner, edge], dim=-1)
