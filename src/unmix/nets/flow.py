r"""An invertible network between features and as many numbers: linear maps and affine couplings in turn.

A coupling leaves the first half a of its inputs as it is and moves the others, b ↦ b exp(s(a)) + t(a) (Dinh,
Sohl-Dickstein, Bengio 2017, arXiv:1605.08803); before each stands a linear map of all (Kingma, Dhariwal 2018,
arXiv:1807.03039). The first outputs are latents, the others what the mixing has beside them (Sorrenson, Rother, Köthe
2020, arXiv:2001.04872). Forward it is the encoder and its inverse is the decoder, both exact, with exact derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unmix.nets.encoder import GaussianPosterior, placement_below
from unmix.nets.jacobian import mlp_with_jacobian
from unmix.nets.layers import Generators, StackedMLP

N_COUPLINGS = 8
_MOST_LOG_SCALE = 2.0


class InvertibleEncoder(nn.Module):
    """Features (starts, batch, features) to latents and the rest; the features have noise of deviation ``std``."""

    weight: Tensor
    placement: Tensor

    def __init__(self, sources: Generators, n_features: int, hidden: Sequence[int], n_latents: int, std: float) -> None:
        super().__init__()
        self.n_features, self.n_latents, self.noise_std = n_features, n_latents, std
        self.n_kept = n_features // 2
        draws = [torch.randn(N_COUPLINGS + 1, n_features, n_features, generator=source) for source in sources]
        # Orthogonal, so that each coupling moves other combinations of the features.
        self.weight = nn.Parameter(torch.linalg.qr(torch.stack(draws))[0])
        self.bias = nn.Parameter(torch.zeros(len(sources), 1, n_features))
        n_moved = n_features - self.n_kept
        self.couplings = nn.ModuleList(
            StackedMLP(sources, self.n_kept, hidden, 2 * n_moved, last_gain=0.0) for _ in range(N_COUPLINGS)
        )
        self.register_buffer("placement", placement_below(n_latents), persistent=False)

    @torch.no_grad()
    def begin(self, start: int, whitening: Tensor, turn: Tensor) -> None:
        """Make one start the linear map ``x @ whitening @ turn``, (features, features) each, ``turn`` orthogonal.

        The couplings then see whitened features.
        """
        inner = self.weight[start].cpu().double()
        last = torch.linalg.solve(torch.linalg.multi_dot([*inner[:-1]]), turn.cpu().double())
        self.weight[start, 0] = (whitening.cpu().double() @ inner[0]).to(self.weight)
        self.weight[start, -1] = last.to(self.weight)

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and the rest (starts, batch, features), and ``log |det|`` of the derivative (starts, batch)."""
        h = x.expand(len(self.weight), -1, -1) if x.dim() == 2 else x
        # A few small matrices: not every Apple GPU can decompose them.
        log_det = torch.linalg.slogdet(self.weight.cpu())[1].sum(1).to(x).unsqueeze(1)
        for place, network in enumerate(self.couplings):
            kept, moved = self._halves(torch.bmm(h, self.weight[:, place]))
            log_scale, shift = self._coupling(network(kept))
            h = torch.cat([kept, moved * log_scale.exp() + shift], dim=-1)
            log_det = log_det + log_scale.sum(-1)
        return torch.baddbmm(self.bias, h, self.weight[:, -1]), log_det

    def with_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and the rest, and their derivatives (starts, batch, features, features) by x."""
        h = x.expand(len(self.weight), -1, -1) if x.dim() == 2 else x
        jacobian = torch.eye(self.n_features).to(h).expand(*h.shape[:2], -1, -1)
        for place, network in enumerate(self.couplings):
            weight = self.weight[:, place]
            kept, moved = self._halves(torch.bmm(h, weight))
            kept_by, moved_by = self._halves(jacobian @ weight.unsqueeze(1))
            output, slope = mlp_with_jacobian(network, kept, kept.shape[1])  # type: ignore[arg-type]
            log_scale, shift = self._coupling(output)
            raw_by, shift_by = (kept_by @ slope).split(moved.shape[-1], dim=-1)
            log_scale_by = raw_by * (1.0 - (log_scale / _MOST_LOG_SCALE).square()).unsqueeze(2)
            scaled = moved * log_scale.exp()
            moved_by = moved_by * log_scale.exp().unsqueeze(2) + scaled.unsqueeze(2) * log_scale_by + shift_by
            h, jacobian = torch.cat([kept, scaled + shift], dim=-1), torch.cat([kept_by, moved_by], dim=-1)
        return torch.baddbmm(self.bias, h, self.weight[:, -1]), jacobian @ self.weight[:, -1].unsqueeze(1)

    def inverse(self, outputs: Tensor) -> Tensor:
        """x (starts, batch, features) of latents and the rest."""
        inverses = torch.linalg.inv(self.weight.cpu()).to(outputs)
        h = torch.bmm(outputs - self.bias, inverses[:, -1])
        for place in reversed(range(N_COUPLINGS)):
            kept, moved = self._halves(h)
            log_scale, shift = self._coupling(self.couplings[place](kept))
            h = torch.bmm(torch.cat([kept, (moved - shift) * (-log_scale).exp()], dim=-1), inverses[:, place])
        return h

    def forward(self, x: Tensor, observed: Tensor | None = None, design: Tensor | None = None) -> GaussianPosterior:
        """q(z | x): what noise of the features makes of the latents, with the derivatives at x."""
        outputs, jacobian = self.with_jacobian(x)
        latent = jacobian[..., : self.n_latents]
        # The covariance is std² JᵀJ = std² RᵀR, so its factor is std Rᵀ but for the signs.
        upper = torch.linalg.qr(latent.cpu(), mode="r")[1].to(latent)
        diagonal = upper.diagonal(dim1=-2, dim2=-1)
        lower = (upper.transpose(-1, -2) * diagonal.sign().unsqueeze(-2)) * self.noise_std
        diagonal = (diagonal.abs() * self.noise_std).clamp_min(1e-12)
        entries = (lower / diagonal.unsqueeze(-1)).flatten(2) @ self.placement.T
        return GaussianPosterior(outputs[..., : self.n_latents], diagonal.log(), entries, self.placement)

    def latent_entries(self, kept: Tensor) -> dict[str, tuple[int, Tensor]]:
        """Nothing: no parameter belongs to single latents."""
        return {}

    def below_last(self, x: Tensor, observed: Tensor | None) -> Tensor:
        """Nothing: the covariance of the posterior is that of the map."""
        return x.new_zeros(len(self.weight), 1, 1)

    @torch.no_grad()
    def turn(self, start: int, turn: Tensor, below: Tensor, factor: Tensor) -> None:
        """Make the latents of one start ``z' = B z``, for ``turn`` B (latents, latents)."""
        n = self.n_latents
        self.weight[start, -1, :, :n] = self.weight[start, -1, :, :n] @ turn.T
        self.bias[start, :, :n] = self.bias[start, :, :n] @ turn.T

    def _halves(self, h: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = h.split([self.n_kept, self.n_features - self.n_kept], dim=-1)
        return kept, moved

    def _coupling(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """log-scale, at most 2 in size, and shift."""
        raw, shift = output.chunk(2, dim=-1)
        return _MOST_LOG_SCALE * (raw / _MOST_LOG_SCALE).tanh(), shift


class InverseDecoder(nn.Module):
    """The inverse of an encoder, at 0 beside the latents; it has no parameters of its own."""

    def __init__(self, encoder: InvertibleEncoder) -> None:
        super().__init__()
        # In a tuple, so that the encoder's state is not listed twice.
        self._of: tuple[Any, ...] = (encoder,)

    def forward(self, z: Tensor) -> Tensor:
        (encoder,) = self._of
        rest = z.new_zeros(*z.shape[:-1], encoder.n_features - encoder.n_latents)
        x: Tensor = encoder.inverse(torch.cat([z, rest], dim=-1))
        return x

    def with_jacobian(self, z: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
        (encoder,) = self._of
        x = self(z)
        forward = encoder.with_jacobian(x[:, :n_rows])[1]
        return x, torch.linalg.inv(forward.cpu()).to(x)[..., : encoder.n_latents, :]

    def latent_entries(self, kept: Tensor) -> dict[str, tuple[int, Tensor]]:
        """Nothing: all parameters are the encoder's."""
        return {}
