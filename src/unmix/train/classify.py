"""Training of a small classifier of images; a function of its seed."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unmix.models.features import as_input


def fit_classifier(
    network: nn.Module,
    images: NDArray[np.uint8],
    codes: NDArray[np.int64],
    *,
    max_epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Minimise the cross-entropy of ``codes`` (n,) in place, with Adam and a rate that falls along a cosine to 0."""
    device = next(network.parameters()).device
    labels = torch.from_numpy(codes).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    source = torch.Generator().manual_seed(seed)
    n_batches = max(1, round(len(images) / batch_size))
    for epoch in range(max_epochs):
        for place, rows in enumerate(torch.randperm(len(images), generator=source).tensor_split(n_batches)):
            done = (epoch + place / n_batches) / max_epochs
            optimizer.param_groups[0]["lr"] = 0.5 * learning_rate * (1 + math.cos(math.pi * done))
            loss = nn.functional.cross_entropy(
                network(as_input(images[rows.numpy()]).to(device)), labels[rows.to(device)]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
