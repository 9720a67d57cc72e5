r"""Convolutional encoder and decoder with a start axis, and the decoder's exact Jacobian.

A flattened image is (height · width · channels), row by row. The decoder goes from z through a linear layer to a small
grid, and doubles the grid level by level:

.. math:: h_0 = φ(W z + b), \qquad h_l = φ(U_l * h_{l-1} + b_l), \qquad \hat x = U_L * h_{L-1} + b_L,

with U a 3 × 3 convolution to four times the channels, which are then laid out as 2 × 2 pixels: linear, like a
convolution, and without the checkerboard of a strided one. So tangents, one for each latent, go the same way without
the biases, and are multiplied by the slope of φ, as in ``jacobian.py``:

.. math:: T_0 = W \odot φ'(a_0), \qquad T_l = (U_l * T_{l-1}) \odot φ'(a_l), \qquad J = U_L * T_{L-1}.

**Cost.** The Jacobian on n rows for k latents is as much work as decoding n · k more images. With a batch of 64 images,
10 latents and 4 rows, that is 40 images more in the decoder and none in the encoder.

Starts are a loop: convolutions of a few starts take as long one by one as in one grouped call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unmix.nets.encoder import Encoder
from unmix.nets.jacobian import mlp_with_jacobian, with_slope
from unmix.nets.layers import Generators, StackedMLP, normal_parameter


class StackedConv(nn.Module):
    """One convolution for each start: (starts, batch, inputs, height, width) to (starts, batch, outputs, …)."""

    def __init__(
        self, sources: Generators, n_inputs: int, n_outputs: int, kernel: int, stride: int = 1, gain: float = 1.4
    ) -> None:
        super().__init__()
        scale = gain / math.sqrt(n_inputs * kernel**2)
        self.stride = stride
        self.weight = normal_parameter(sources, (n_outputs, n_inputs, kernel, kernel), scale)
        self.bias = nn.Parameter(torch.zeros(len(sources), n_outputs))

    def forward(self, x: Tensor, *, biased: bool = True) -> Tensor:
        """A batch (batch, inputs, height, width) without a start axis serves every start."""
        if x.dim() == 4:
            x = x.expand(len(self.weight), -1, -1, -1, -1)
        biases = self.bias if biased else [None] * len(self.weight)
        return torch.stack(
            [
                nn.functional.conv2d(own, weight, bias, stride=self.stride, padding=1)
                for own, weight, bias in zip(x, self.weight, biases, strict=True)
            ]
        )


class ConvolutionalEncoder(Encoder):
    """Flattened images (batch, n_features) to q(z | x): convolutions that halve the grid, then a linear layer.

    ``shape`` (height, width, channels) of an image; ``widths`` are the channels after each halving.
    """

    def __init__(self, sources: Generators, shape: tuple[int, int, int], widths: Sequence[int], n_latents: int) -> None:
        grid = math.prod(side // 2 ** len(widths) for side in shape[:2])
        super().__init__(sources, widths[-1] * grid, (), n_latents, False)
        self.shape = shape
        self.convolutions = nn.ModuleList(
            StackedConv(sources, a, b, 4, stride=2) for a, b in zip([shape[2], *widths], widths, strict=False)
        )

    def below_last(self, x: Tensor, observed: Tensor | None, design: Tensor | None = None) -> Tensor:
        x = x.view(-1, *self.shape).permute(0, 3, 1, 2)
        for layer in self.convolutions:
            x = nn.functional.silu(layer(x))
        return super().below_last(x.flatten(2), observed, design)


class ConvolutionalDecoder(nn.Module):
    """z (starts, batch, n_latents) to flattened images (starts, batch, n_features).

    ``shape`` (height, width, channels) of an image; ``widths`` are those of the encoder, gone through backwards.
    """

    def __init__(self, sources: Generators, n_latents: int, shape: tuple[int, int, int], widths: Sequence[int]) -> None:
        super().__init__()
        self.shape = shape
        self.grid = tuple(math.ceil(side / 2 ** len(widths)) for side in shape[:2])
        self.network = StackedMLP(sources, n_latents, (), widths[-1] * math.prod(self.grid), last_gain=1.4)
        steps = [*widths[::-1], shape[2]]
        gains = [1.4] * (len(widths) - 1) + [1.0]
        self.convolutions = nn.ModuleList(
            StackedConv(sources, a, 4 * b, 3, gain=gain) for a, b, gain in zip(steps, steps[1:], gains, strict=False)
        )

    def forward(self, z: Tensor) -> Tensor:
        h = self._laid_out(self.network(z))
        for layer in self.convolutions:
            h = self._finer(layer, nn.functional.silu(h))
        return self._flattened(h)

    def with_jacobian(self, z: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
        """Outputs, and the Jacobian (starts, n_rows, n_latents, n_features) on the first ``n_rows``."""
        flat, tangent = mlp_with_jacobian(self.network, z, n_rows)
        n_latents = z.shape[2]
        h, t = self._laid_out(flat), self._laid_out(tangent.flatten(1, 2))
        for layer in self.convolutions:
            h, slope = with_slope("silu", h, n_rows)
            t = t.unflatten(1, (n_rows, n_latents)) * slope.unsqueeze(2)
            h, t = self._finer(layer, h), self._finer(layer, t.flatten(1, 2), biased=False)
        return self._flattened(h), self._flattened(t).unflatten(1, (n_rows, n_latents))

    def latent_entries(self, kept: Tensor) -> dict[str, tuple[int, Tensor]]:
        """Dimension and index of the parameters that belong to the latents ``kept`` alone."""
        return {"network.layers.0.weight": (1, kept)}

    def _laid_out(self, flat: Tensor) -> Tensor:
        return flat.unflatten(2, (-1, *self.grid))

    def _finer(self, layer: nn.Module, h: Tensor, *, biased: bool = True) -> Tensor:
        return nn.functional.pixel_shuffle(layer(h, biased=biased), 2)

    def _flattened(self, h: Tensor) -> Tensor:
        """Cut to the size of the images, channels last."""
        height, width, _ = self.shape
        return h[..., :height, :width].permute(0, 1, 3, 4, 2).flatten(2)
