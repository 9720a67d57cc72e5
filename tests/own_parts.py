"""A decoder, a likelihood, a prior and an estimator of a user's own."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from unmix import CGVAE
from unmix.distributions.likelihood import Likelihood
from unmix.distributions.prior import DomainPrior, PriorDistribution


class Wide(nn.Module):
    def __init__(self, n_latents, n_features, width=24):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n_latents, width), nn.Tanh(), nn.Linear(width, n_features))

    def forward(self, z):
        return self.net(z)


class Laplace(Likelihood):
    def __init__(self, n_starts, n_features):
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((n_starts, 1, n_features), -1.0))

    def log_prob(self, rows, output, progress=1.0):
        entries = -(rows.x - output).abs() * (-self.log_scale).exp() - self.log_scale - math.log(2)
        return (entries if rows.observed is None else entries * rows.observed).sum(-1)

    def mean(self, output, offset=None):
        return output

    def sample(self, output, generator, offset=None):
        u = torch.rand(output.shape, generator=generator).to(output) - 0.5
        return output - self.log_scale[0, 0].exp() * u.sign() * (1 - 2 * u.abs()).clamp_min(1e-7).log()


class AsinhPrior(DomainPrior):
    n_parameters = 2

    def forward(self, design, importance=None):
        shift, log_scale = self.parameters_of(design, importance)
        return Asinh(shift, log_scale)


class Asinh(PriorDistribution):
    def __init__(self, shift, log_scale):
        self.shift, self.log_scale = shift, log_scale

    def to_noise(self, z):
        u = (z - self.shift) * (-self.log_scale).exp()
        return torch.asinh(u), -self.log_scale - 0.5 * (1 + u.square()).log()

    def from_noise(self, noise):
        return self.shift + self.log_scale.exp() * torch.sinh(noise)


@dataclass(eq=False, repr=False)
class Mine(CGVAE):
    """CGVAE with a parameter more."""

    flavour: str = "plain"
