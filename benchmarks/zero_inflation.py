"""Whether counts ask for zero inflation: held-out likelihood with and without it, given the latents of one fit.

    python benchmarks/zero_inflation.py --kang kang_pbmc.h5ad > benchmarks/results/counts/zero_inflation.txt

A ``CGVAE`` with negative binomial counts is fitted to four fifths of the rows. Given draws of the latents of these
rows, each feature then gets a level, a dispersion and, in a second fit, also a probability of zeros beside it, of the
largest likelihood; both are compared on the other rows, given draws of theirs. Networks and latents are those of the
negative binomial fit in both, so the difference is that of the bounds on log p(x), in nats per held-out row. Problems:
simulated negative binomial counts, the same with a tenth of the entries set to 0 as a control, and, with ``--kang``,
the 500 most variable genes of real cells (an .h5ad with ``layers["counts"]`` and ``obs["batch"]``).
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from counts_data import splatter_programmes
from torch import Tensor

from unmix import CGVAE

N_CELLS, N_GENES, N_LATENTS, DROPPED, DRAWS, STEPS, MOST_LOG_DISPERSION = 2000, 500, 6, 0.1, 4, 200, 5.0


def problems(kang: Path | None) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """Name, seed, counts (rows, features) and batches."""
    for seed in (0, 1):
        data = splatter_programmes(N_CELLS, N_GENES, N_LATENTS, 3, seed, depth=1000.0)
        yield "simulated", seed, data.counts, data.batch
        kept = np.random.default_rng(1000 + seed).random(data.counts.shape) >= DROPPED
        dropped = data.counts * kept
        enough = (dropped > 0).sum(axis=0) >= 10
        yield "simulated, 10 % dropped", seed, dropped[:, enough], data.batch
    if kang is not None:
        import anndata

        cells = anndata.read_h5ad(kang)
        counts = np.asarray(cells.layers["counts"].todense())
        scaled = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
        chosen = np.sort(np.argsort(-scaled.var(axis=0))[:N_GENES])
        yield "Kang, 500 genes", 0, counts[:, chosen], cells.obs["batch"].to_numpy()


def log_likelihood(x: Tensor, log_mean: Tensor, level: Tensor, log_dispersion: Tensor, odds: Tensor | None) -> Tensor:
    """Entries (rows, features) of log p; with ``odds`` zeros have a share σ(odds) of their own."""
    theta = (-log_dispersion).exp()
    logits = log_mean + level + log_dispersion
    found = x * logits - (x + theta) * torch.nn.functional.softplus(logits)
    found = found + torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1.0)
    if odds is None:
        return found
    own, other = torch.nn.functional.logsigmoid(odds), torch.nn.functional.logsigmoid(-odds)
    return torch.where(x == 0, torch.logaddexp(own.expand_as(found), other + found), other + found)


class Total:
    """Log-likelihood of all rows, feature by feature; gamma functions of each feature's different counts alone."""

    def __init__(self, x: Tensor, log_mean: Tensor) -> None:
        self.x, self.log_mean, self.zero = x, log_mean, x == 0
        row, column = torch.nonzero(x, as_tuple=True)
        pairs = torch.stack([column, x[row, column].long()], 1)
        different, self.times = torch.unique(pairs, dim=0, return_counts=True)
        self.column, self.count = different.unbind(1)

    def __call__(self, level: Tensor, log_dispersion: Tensor, odds: Tensor | None) -> Tensor:
        theta = (-log_dispersion).exp()
        logits = self.log_mean + level + log_dispersion
        entries = self.x * logits - (self.x + theta) * torch.nn.functional.softplus(logits)
        if odds is not None:
            own, other = torch.nn.functional.logsigmoid(odds), torch.nn.functional.logsigmoid(-odds)
            entries = other + torch.where(self.zero, torch.logaddexp(own - other, entries), entries)
        above = theta[self.column]
        gammas = torch.lgamma(above + self.count) - torch.lgamma(above)
        return entries.sum(0).index_add(0, self.column, gammas * self.times)


def fitted(x: Tensor, log_mean: Tensor, *, inflated: bool) -> list[Tensor]:
    """Level, log dispersion and log-odds of zeros beside it (features,) of the largest likelihood."""
    start, total = (0.0, -1.0, -4.0)[: 2 + inflated], Total(x, log_mean)
    own = [torch.full((x.shape[1],), value, dtype=torch.float64, requires_grad=True) for value in start]
    optimizer = torch.optim.Adam(own, lr=0.2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (-total(*_parts(own)).sum() / len(x)).backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            own[1].clamp_(-9.0, MOST_LOG_DISPERSION)
    return [part.detach() for part in own]


def _parts(own: list[Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
    return own[0], own[1], own[2] if len(own) == 3 else None


def drawn(model: CGVAE, counts: np.ndarray, batch: np.ndarray, seed: int, draws: int) -> tuple[Tensor, Tensor]:
    """Counts and log means of draws of the latents (draws · rows, features)."""
    rows = model._labelled_rows(counts.astype(float), batch.astype(str))
    source, parts = torch.Generator().manual_seed(seed), []
    with torch.no_grad():
        for _ in range(draws):
            noise = torch.randn(len(rows), model.n_latents_, generator=source)
            z = model.model_.sample_posterior(rows.x, rows.observed, noise, rows.design)[0]
            parts.append(model.model_.likelihood.predictor(model.model_.decode(z), rows.offset))
    return rows.features.repeat(draws, 1).double(), torch.cat(parts).double()


def compare(counts: np.ndarray, batch: np.ndarray, seed: int) -> dict[str, float]:
    """Gain of zero inflation in nats per held-out row, and what it found."""
    order = np.random.default_rng(seed).permutation(len(counts))
    test, train = np.split(order, [len(order) // 5])
    words = {"likelihood": "negative_binomial", "n_restarts": 1, "random_state": seed, "verbose": 0, "device": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = CGVAE(N_LATENTS, **words).fit(counts[train].astype(float), batch[train].astype(str))
    seen, held_out = (drawn(model, counts[own], batch[own], k, (1, DRAWS)[k]) for k, own in enumerate((train, test)))
    plain, inflated = (fitted(*seen, inflated=own) for own in (False, True))
    with torch.no_grad():
        gain = log_likelihood(*held_out, *_parts(inflated)) - log_likelihood(*held_out, *_parts(plain))
    rows = gain.sum(1).reshape(DRAWS, -1).mean(0)
    own = torch.sigmoid(inflated[2])
    return {
        "zeros": float((counts == 0).mean()),
        "bound": float(model.score(counts[test].astype(float), batch[test].astype(str))),
        "gain": float(rows.mean()),
        "error": float(rows.std() / len(rows) ** 0.5),
        "better": float((gain.mean(0) > 0.001).double().mean()),
        "worse": float((gain.mean(0) < -0.001).double().mean()),
        "probability": float(own.median()),
        "beyond": float((own > 0.05).double().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kang", type=Path)
    print("problem                  seed  zeros    bound  gain of inflation (± error)  features better, worse", end="")
    print("  median π  π > .05   CPU s")
    for name, seed, counts, batch in problems(parser.parse_args().kang):
        begun = time.process_time()
        found = compare(counts, batch, seed)
        gain = f"{found['gain']:+8.2f} ± {found['error']:.2f}"
        print(
            f"{name:24} {seed:4}   {found['zeros']:4.0%}  {found['bound']:7.1f}  {gain:>27}  "
            f"{found['better']:15.0%}  {found['worse']:5.0%}  {found['probability']:8.3f}  {found['beyond']:7.0%}  "
            f"{time.process_time() - begun:6.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
