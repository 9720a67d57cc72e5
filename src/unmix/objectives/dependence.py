r"""How dependent latents are under the aggregate posterior, by densities or by a classifier.

With q(z) the average of q(z | x) over the data, and latents in groups g, the KL of the ELBO splits into

.. math:: E\,\mathrm{KL}(q(z \mid x) \| p(z)) = I_q(x; z) + \mathrm{KL}\Big(q(z) \Big\| \prod_g q(z_g)\Big)
          + \sum_g \mathrm{KL}\Big(q(z_g) \Big\| \prod_{i \in g} q(z_i)\Big) + \sum_i \mathrm{KL}(q(z_i) \| p(z_i)),

the total correlation between and within groups (Esmaeili et al. 2019, arXiv:1804.02086); with one group for
each latent it is that of β-TCVAE (Chen et al. 2018, arXiv:1802.04942, eq. 2). p is N(0, I).

q(z) of a row of a batch of M rows from N is estimated by stratified sampling (Chen et al., appendix C.2), averaged over
the order of the rows in the batch, which leaves 1/N for the row's own posterior and (N - 1) / (N (M - 1)) for each of
the others; it is exact where the batch is the whole data.

A classifier with logit D that tells draws of q(z) from draws of ∏ q(z_i) estimates the same total correlation as the
mean of D over q(z) (Kim & Mnih 2018, arXiv:1802.05983, eq. 3); the draws of ∏ q(z_i) are permutations of each latent
over the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unmix.objectives.elbo import LOG_TWO_PI


@dataclass(frozen=True)
class KLDecomposition:
    """Parts of the mean KL(q(z | x) ‖ N(0, I)), each (starts,) in nats; they add up to it."""

    mutual_information: Tensor
    between_groups: Tensor
    within_groups: Tensor
    dimensions: Tensor


def decompose_kl(z: Tensor, mean: Tensor, std: Tensor, n_data: int, groups: Sequence[int]) -> KLDecomposition:
    """Split the KL of a batch, from the draws ``z`` of its posteriors.

    Parameters
    ----------
    z, mean, std : (starts, batch, latents), a draw, mean and standard deviation of the diagonal Gaussian q(z | x)
    n_data : rows of the data that the batch stands for
    groups : sizes of consecutive groups of latents
    """
    own = _log_normal(z, mean, std).sum(-1)
    pairs = _log_normal(z.unsqueeze(2), mean.unsqueeze(1), std.unsqueeze(1))
    weights = log_weights(z.shape[1], n_data, z.device)
    joint = (pairs.sum(-1) + weights).logsumexp(2)
    grouped = torch.stack([part.sum(-1) for part in pairs.split(list(groups), dim=-1)], dim=-1)
    by_group = (grouped + weights.unsqueeze(-1)).logsumexp(2).sum(-1)
    by_latent = (pairs + weights.unsqueeze(-1)).logsumexp(2).sum(-1)
    prior = _log_normal(z, torch.zeros_like(z), torch.ones_like(z)).sum(-1)
    return KLDecomposition(
        mutual_information=(own - joint).mean(1),
        between_groups=(joint - by_group).mean(1),
        within_groups=(by_group - by_latent).mean(1),
        dimensions=(by_latent - prior).mean(1),
    )


def permute_latents(z: Tensor, noise: Tensor) -> Tensor:
    """Every latent of ``z`` (starts, batch, latents) in an order of its own, that of ``noise`` of the same shape.

    The noise must be independent of z; the rows are then draws of ∏ q(z_i).
    """
    return z.gather(1, noise.argsort(dim=1))


def density_ratio_loss(joint: Tensor, permuted: Tensor) -> Tensor:
    """Cross-entropy (starts,) of a classifier with logits (starts, batch) on draws of q(z) and of ∏ q(z_i).

    At its minimum the logit is log q(z) - log ∏ q(z_i).
    """
    return 0.5 * (nn.functional.softplus(-joint).mean(1) + nn.functional.softplus(permuted).mean(1))


def _log_normal(z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return -0.5 * (((z - mean) / std).square() + LOG_TWO_PI) - std.log()


def log_weights(n_rows: int, n_data: int, device: torch.device) -> Tensor:
    """Log-weights (batch, batch) of the posteriors j in the estimate of q(z_i)."""
    if n_rows == 1:
        return torch.zeros(1, 1, device=device)
    n_data = max(n_data, n_rows)
    others = math.log((n_data - 1) / (n_data * (n_rows - 1)))
    weights = torch.full((n_rows, n_rows), others, device=device)
    return weights.fill_diagonal_(-math.log(n_data))
