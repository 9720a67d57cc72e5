r"""One affine map of colours for each domain: what domains that differ in colours and contrast alone need.

The colours of all pixels of a domain are a cloud with mean :math:`m_u` and covariance :math:`S_u`, of 3 × 3 numbers for
images in colour. The map

.. math:: T_u(x) = C^{1/2} Q_u C^{-1/2} A_u (x - m_u)

acts on every pixel alike; A_u is the Gaussian optimal transport to the barycentre, N(0, C) (``models/transport.py``).
The orthogonal Q_u, which means and covariances leave open, is one of the turns and reflections of the axes of C at
first, and follows images that are each other's nearest neighbours then, as in ``models/matching.py``: it finds inverted
contrast and exchanged channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from unmix.models.matching import gap, partners
from unmix.models.transport import barycentre, optimal_map

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

_FLOOR = 1e-4
_ROUNDS = 8
_SIDE, _ROWS = 8, 300
_STEADY = 0.03


class ColourTransport(nn.Module):
    """Carries images (n, colours, height, width) of a domain to the common colours, and from them to a domain."""

    means: Tensor
    inward: Tensor
    outward: Tensor

    def __init__(self, n_domains: int, n_colours: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(n_domains, n_colours))
        for name in ("inward", "outward"):
            self.register_buffer(name, torch.eye(n_colours).repeat(n_domains, 1, 1))

    @classmethod
    def fit(cls, images: Tensor, groups: Tensor, n_domains: int) -> Self:
        """Learn from ``images`` with their domains ``groups`` (n,), each of which occurs."""
        x, own = images.detach().cpu().double(), groups.cpu().numpy()
        pixels = [x[own == u].transpose(0, 1).flatten(1).numpy() for u in range(n_domains)]
        means = np.stack([colours.mean(1) for colours in pixels])
        covariances = [np.atleast_2d(np.cov(colours)) for colours in pixels]
        floor = _FLOOR * max(float(np.mean([np.trace(one) for one in covariances])), _FLOOR) * np.eye(x.shape[1])
        covariances = [one + floor for one in covariances]
        common = barycentre(covariances)
        inward = np.stack([optimal_map(one, common) for one in covariances])
        fitted = cls(n_domains, x.shape[1])
        fitted._keep(means, inward)
        fitted._keep(means, _turned(fitted.common(x.float(), torch.from_numpy(own)), own, common, n_domains) @ inward)
        return fitted.to(images.device)

    def common(self, images: Tensor, groups: Tensor) -> Tensor:
        """Images of the domains ``groups`` (n,) in the common colours, centred."""
        return self.linear(images - self.means[groups][:, :, None, None], groups)

    def linear(self, images: Tensor, groups: Tensor) -> Tensor:
        """The same for differences of images."""
        return torch.einsum("nij,njhw->nihw", self.inward[groups], images)

    def back(self, images: Tensor, groups: Tensor) -> Tensor:
        """The inverse of ``common`` for the domains ``groups``."""
        return self.linear_back(images, groups) + self.means[groups][:, :, None, None]

    def linear_back(self, images: Tensor, groups: Tensor) -> Tensor:
        """The same for differences of images."""
        return torch.einsum("nij,njhw->nihw", self.outward[groups], images)

    def _keep(self, means: Floats, inward: Floats) -> None:
        found = {"means": means, "inward": inward, "outward": np.linalg.inv(inward)}
        self.load_state_dict({name: torch.from_numpy(value).float() for name, value in found.items()})


def _turned(common: Tensor, groups: Places, covariance: Floats, n_domains: int) -> Floats:
    """C^½ Q_u C^-½ (n_domains, colours, colours) from images in common colours."""
    values, vectors = np.linalg.eigh(covariance)
    sds = np.sqrt(values)
    factor = max(1, min(common.shape[2:]) // _SIDE)
    small = functional.avg_pool2d(common, factor).flatten(2).double().numpy()
    white = [_some(np.einsum("ci,ncp->npi", vectors / sds, small[groups == u])) for u in range(n_domains)]
    turns = _starts(white, sds)
    for _ in range(_ROUNDS):
        for u in range(n_domains):
            cross = np.zeros((len(sds), len(sds)))
            for other in range(n_domains):
                if other == u:
                    continue
                there = white[other] @ turns[other] * sds
                first, second = partners(_rows(white[u] @ turns[u] * sds), _rows(there))
                cross += np.einsum("npi,npj->ij", white[u][first] * sds, there[second])
            cross += _STEADY * np.abs(cross).max() * turns[u]
            left, _, right = np.linalg.svd(cross)
            turns[u] = left @ right
    return np.stack([(vectors * sds) @ turn.T @ (vectors / sds).T for turn in turns])


def _starts(white: Sequence[Floats], sds: Floats) -> list[Floats]:
    """The signed exchange of axes that brings each domain nearest to those before it."""
    size = len(sds)
    every = [
        np.eye(size)[list(order)] * signs
        for order in itertools.permutations(range(size))
        for signs in itertools.product((1.0, -1.0), repeat=size)
    ]
    turns = [np.eye(size)]
    for u in range(1, len(white)):
        before = [_rows(white[a] @ turns[a] * sds) for a in range(u)]
        gaps = [sum(gap(_rows(white[u] @ turn * sds), rows) for rows in before) for turn in every]
        turns.append(every[int(np.argmin(gaps))])
    return turns


def _some(rows: Floats) -> Floats:
    return rows[:: max(1, -(-len(rows) // _ROWS))]


def _rows(colours: Floats) -> Floats:
    return colours.reshape(len(colours), -1)
