"""Models with a given decoder and prior and their audits: the truth is known, and nothing is trained."""

import numpy as np
import torch

from unmix.audit.input import Strata, subject_of_model
from unmix.audit.verdicts import audit_subject
from unmix.distributions.likelihood import Gaussian
from unmix.distributions.prior import LocationScale

SPARSE = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]])
DENSE = np.ones((9, 3), dtype=int)


class Linear:
    """x = A z, with Gaussian latents of known location and scale in every domain."""

    masked = False

    def __init__(self, mixing, location, scale):
        self.mixing = torch.as_tensor(mixing, dtype=torch.float32)
        self.inverse = torch.linalg.pinv(self.mixing)
        self.location = torch.as_tensor(location, dtype=torch.float32)
        self.log_scale = torch.as_tensor(scale, dtype=torch.float32).log()
        self.n_latents = self.mixing.shape[1]
        self.scale = torch.ones(self.n_latents)
        self.likelihood = Gaussian(1, len(self.mixing), 1e-12)

    def encode(self, x, observed=None, design=None):
        mean = x @ self.inverse.T
        return mean, torch.full_like(mean, 0.05)

    def decode(self, z):
        return z @ self.mixing.T

    def jacobian(self, z):
        return self.mixing.expand(len(z), -1, -1)

    def prior(self, design):
        return LocationScale(design @ self.location, design @ self.log_scale)


class Folded(Linear):
    """The first latent folds: z and -z give the same features."""

    def decode(self, z):
        return super().decode(torch.cat([z[:, :1].abs(), z[:, 1:]], 1))

    def jacobian(self, z):
        signs = torch.cat([z[:, :1].sign(), torch.ones_like(z[:, 1:])], 1)
        return super().jacobian(z) * signs[:, None]


class FoldedFarOut(Linear):
    """The first latent folds at 1.6 only."""

    def decode(self, z):
        return super().decode(torch.cat([torch.minimum(z[:, :1], 3.2 - z[:, :1]), z[:, 1:]], 1))


class Told(Linear):
    """The encoder moves every latent by the domain that it is told, whatever the features are."""

    def encode(self, x, observed=None, design=None):
        mean, std = super().encode(x)
        return mean + design @ self.location, std


def problem(support, n_domains, change="both", kind=Linear, per_domain=300, seed=0):
    """A stub, latents and labels."""
    rng = np.random.default_rng(seed)
    n = support.shape[1]
    location = rng.uniform(-1.2, 1.2, (n_domains, n)) if change in ("both", "mean") else np.zeros((n_domains, n))
    scale = np.exp(rng.uniform(-1.0, 0.6, (n_domains, n))) if change in ("both", "scale") else np.ones((n_domains, n))
    labels = np.repeat(np.arange(n_domains), per_domain)
    z = location[labels] + scale[labels] * rng.standard_normal((len(labels), n))
    mixing = support * rng.uniform(0.5, 1.0, support.shape) * rng.choice([-1, 1], support.shape)
    return kind(mixing, location, scale), z, labels


def audit_of(
    stub,
    z,
    labels,
    *,
    names=None,
    width=None,
    agreement=(0.99, 0.99),
    starts=None,
    worse_by=None,
    comparable=None,
    all_worse=False,
    residual=None,
    simplified=False,
):
    n_domains = len(stub.location)
    present = np.unique(labels)
    names = names or [f"u{k}" for k in range(n_domains)]
    strata = Strata(np.searchsorted(present, labels), present, np.eye(n_domains)[present])
    own = np.abs(stub.mixing.numpy().astype(float))
    subject = subject_of_model(
        stub,
        z,
        np.full(stub.n_latents, 0.05) if width is None else np.asarray(width),
        strata,
        domains=names,
        names=[f"z{i}" for i in range(stub.n_latents)],
        feature_names=[f"x{k}" for k in range(len(own))],
        starts=own[None] if starts is None else np.stack([own, *starts]),
        agreement=np.array([np.broadcast_to(value, stub.n_latents) for value in agreement]).reshape(-1, stub.n_latents),
        worse_by=None if worse_by is None else np.array(worse_by),
        comparable=None if comparable is None else np.array(comparable),
        all_worse=all_worse,
        residual=residual,
        simplified=simplified,
    )
    return audit_subject(subject)


def verdicts(audit):
    return audit.latents["verdict"].tolist()
