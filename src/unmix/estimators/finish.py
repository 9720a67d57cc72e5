"""What happens to the starts after training: their frames, the choice of one, a table of what each reached."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unmix.audit.agreement import Agreement, agreement, choose_start
from unmix.audit.describe import Description, describe, mean_jacobian, mean_latents
from unmix.data.batches import Rows
from unmix.models.base import FittedModel, LatentModel
from unmix.train.fit import TrainingResult


@dataclass(frozen=True)
class Finished:
    """The start that is kept, its number, how far the starts agree, and the description of the fit."""

    model: FittedModel
    best: int
    agreed: Agreement
    description: Description


def finish_starts(
    network: LatentModel,
    train: Rows,
    held_out: Rows,
    result: TrainingResult,
    groups: NDArray[np.int64],
    n_domains: int,
    has_held_out: bool,
) -> Finished:
    """Fix the frame of every start, choose one and describe it; ``groups`` are the domains of ``held_out``."""
    candidates = [FittedModel(network.single(start)) for start in range(network.n_starts)]
    for candidate in candidates:
        finish_start(candidate, train)
    latents = np.stack([mean_latents(candidate, held_out) for candidate in candidates])
    agreed = agreement(latents)
    best = choose_start(result.objective, result.failed, agreed)
    found = describe(candidates, train, held_out, groups, latents, agreed, best, n_domains, has_held_out)
    return Finished(candidates[best], best, agreed, found)


@torch.no_grad()
def finish_start(model: FittedModel, train: Rows) -> None:
    """Settle zeros; order latents by their total effect, centre and scale them, let the strongest feature rise."""
    latents = mean_latents(model, train)
    device = model.scale.device
    model.inner.settle(torch.from_numpy(latents.std(axis=0)).float().to(device)[None])
    center, scale = latents.mean(axis=0), np.maximum(latents.std(axis=0), 1e-6)
    absolute, signed = mean_jacobian(model, train)
    order = np.argsort(-(absolute * scale).sum(axis=0), kind="stable")
    strongest = absolute.argmax(axis=0)
    signs = np.where(signed[strongest, np.arange(len(strongest))] < 0, -1.0, 1.0)
    model.set_frame(
        torch.from_numpy(order),
        torch.from_numpy(center[order]).float(),
        torch.from_numpy((scale * signs)[order]).float(),
    )


def restarts_table(result: TrainingResult, agreed: Agreement, best: int) -> pd.DataFrame:
    """One row a start: what it reached, and whether it was kept."""
    rows = []
    for start, objective in enumerate(result.objective):
        terms = {f"held_out_{name}": value for name, value in result.terms[start].items()}
        rows.append(
            {
                "start": start,
                "held_out_objective": objective,
                **terms,
                "agreement": agreed.of_start(start),
                "best_epoch": result.best_epoch[start],
                "failed": result.failed[start],
                "kept": start == best,
            }
        )
    return pd.DataFrame(rows)
