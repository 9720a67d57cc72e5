"""A decoder of the user's own: an ordinary module of torch, of which every start has its copy.

The module takes latents (batch, n_latents) and returns η (batch, n_features), row by row. Parameters of the copies are
stacked along a leading start axis, and ``torch.vmap`` runs them as one program.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from unmix.nets.jacobian import jacobian_columns
from unmix.nets.layers import Generators

MakeDecoder = Callable[[int, int], nn.Module]


class OwnDecoder(nn.Module):
    """``η = f(z P)`` for copies of ``make(n_inputs, n_features)``, one for each start.

    ``place`` P (starts, n_latents, n_inputs) is not trained. It is 1 on its diagonal until latents are rotated; of
    latents that are dropped its rows are.
    """

    def __init__(self, sources: Generators, make: MakeDecoder, n_latents: int, n_inputs: int, n_features: int) -> None:
        super().__init__()
        copies = []
        for source in sources:
            own = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=source)))
            with torch.random.fork_rng(devices=[]):
                torch.random.set_rng_state(own.get_state())
                copies.append(make(n_inputs, n_features))
        self.module = copies[0]
        self.place = nn.Parameter(torch.eye(n_latents, n_inputs).repeat(len(copies), 1, 1), requires_grad=False)
        self._stack(copies)

    def forward(self, z: Tensor) -> Tensor:
        output: Tensor = vmap(self._one)(self._state(), z @ self.place)
        return output

    def with_jacobian(self, z: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
        columns = torch.arange(self.place.shape[2], device=z.device)

        def one(state: dict[str, Tensor], rows: Tensor) -> Tensor:
            return jacobian_columns(lambda own: self._one(state, own), rows, columns)

        inner = vmap(one)(self._state(), (z @ self.place)[:, :n_rows])
        return self(z), torch.einsum("sij,sjrk->srik", self.place, inner)

    def latent_entries(self, kept: Tensor) -> dict[str, tuple[int, Tensor]]:
        """Dimension and index of the parameters that belong to the latents ``kept`` alone."""
        return {"place": (1, kept)}

    def _stack(self, copies: list[nn.Module]) -> None:
        """Put the parameters and buffers of all copies, stacked, into the first; what is shared stays so."""
        stacked: dict[int, Tensor] = {}
        parts = [
            {**dict(own.named_parameters(remove_duplicate=False)), **dict(own.named_buffers(remove_duplicate=False))}
            for own in copies
        ]
        for name, value in parts[0].items():
            if id(value) not in stacked:
                whole = torch.stack([own[name].detach() for own in parts])
                trained = value.requires_grad
                stacked[id(value)] = nn.Parameter(whole, trained) if isinstance(value, nn.Parameter) else whole
            path, _, last = name.rpartition(".")
            setattr(self.module.get_submodule(path), last, stacked[id(value)])

    def _state(self) -> dict[str, Tensor]:
        return {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}

    def _one(self, state: dict[str, Tensor], z: Tensor) -> Tensor:
        """The copy of one start on its rows."""
        output: Tensor = functional_call(self.module, state, (z,))
        return output
