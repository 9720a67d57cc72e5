"""Counts with known programmes, drawn as Splatter and scVI's authors describe, and not by unmix's own generator.

Splatter (Zappia, Phipson & Oshlack 2017, doi:10.1186/s13059-017-1305-0): gene means from a gamma distribution with
outliers, log-normal library sizes, a mean-dependent biological coefficient of variation with inverse chi-square noise,
gamma-Poisson counts, and log-normal batch factors of every gene. Programmes take the place of its groups: the log of a
gene's differential-expression factor is multiplied by a cell's usage of the programme, as in LDVAE's linear log-rates
(Svensson et al. 2020, doi:10.1093/bioinformatics/btaa169). Usages are gamma variables, hence skewed, whose mean and
spread differ between batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Programmes:
    """Counts and the truth behind them.

    ``counts`` (cells, genes), ``batch`` (cells,), ``usage`` (cells, programmes), ``loadings`` (genes, programmes).
    """

    counts: NDArray[np.int64]
    batch: NDArray[np.int64]
    usage: Floats
    loadings: Floats

    @property
    def support(self) -> NDArray[np.bool_]:
        return np.asarray(self.loadings != 0)


def splatter_programmes(
    n_cells: int = 3000,
    n_genes: int = 1000,
    n_programmes: int = 6,
    n_batches: int = 3,
    seed: int = 0,
    *,
    depth: float = 2000.0,
    share: float = 0.1,
    batch_scale: float = 0.0,
) -> Programmes:
    """``depth``: counts of a median cell; ``share`` of genes in a programme; log-sd of gene-wise batch factors."""
    rng = np.random.default_rng(seed)
    means = rng.gamma(0.6, 1 / 0.3, n_genes) + 0.02
    outliers = rng.random(n_genes) < 0.05
    means[outliers] = np.median(means) * rng.lognormal(4.0, 0.5, outliers.sum())
    log_factors = rng.lognormal(-0.7, 0.4, (n_genes, n_programmes)) * rng.choice(
        [1.0, 1.0, -1.0], (n_genes, n_programmes)
    )
    loadings = np.where(rng.random((n_genes, n_programmes)) < share, log_factors, 0.0)
    batch = np.arange(n_cells) % n_batches
    shape = rng.uniform(1.0, 4.0, (n_batches, n_programmes))
    scale = rng.uniform(0.4, 1.2, (n_batches, n_programmes))
    usage = rng.gamma(shape[batch], scale[batch] / np.sqrt(shape[batch]))
    usage = (usage - usage.mean(axis=0)) / usage.std(axis=0)
    of_batch = np.exp(batch_scale * rng.standard_normal((n_batches, n_genes)))
    rate = means * of_batch[batch] * np.exp(usage @ loadings.T)
    library = depth * rng.lognormal(0.0, 0.3, n_cells) * np.exp(rng.normal(0, 0.3, n_batches))[batch]
    rate *= (library / rate.sum(axis=1))[:, None]
    variation = (
        (0.1 + 1 / np.sqrt(np.maximum(rate.mean(axis=0), 0.05))) * 0.5 * np.sqrt(60 / rng.chisquare(60, n_genes))
    )
    variation = np.minimum(variation, 1.5)
    counts = rng.poisson(rng.gamma(1 / variation**2, rate * variation**2))
    # Of constant genes nothing can be learnt; all methods get the others.
    kept = (counts > 0).sum(axis=0) >= 10
    order = rng.permutation(n_cells)
    return Programmes(counts[order][:, kept], batch[order], usage[order], loadings[kept])


def log_counts(data: Programmes) -> Floats:
    """log(1 + counts of a cell, made 10,000 in all)."""
    counts = data.counts.astype(float)
    return np.asarray(np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)))
