"""Dispersion of counts by domain: held-out bound of CGVAE with dispersion="feature" and "domain".

python benchmarks/dispersion.py > benchmarks/results/dispersion.txt

Negative binomial counts of two latents and 12 features in two domains, 1,000 rows to fit (seed s) and 1,000 others to
score (seed 1000 + s); dispersions 0.1 and 1 by domain, and 0.3 in both as a control. One start, 15 epochs.
"""

import numpy as np
import torch

from unmix import CGVAE

N_ROWS, N_FEATURES, SEEDS = 1000, 12, (0, 1, 2)
PROBLEMS = {"0.1 and 1": (0.1, 1.0), "0.3 and 0.3": (0.3, 0.3)}


def table(seed, dispersions, weights):
    rng, u = np.random.default_rng(seed), np.arange(N_ROWS) % 2
    z = rng.standard_normal((N_ROWS, 2)) * np.where(u[:, None] == 1, [0.5, 1.2], [1.2, 0.5])
    phi, rate = np.array(dispersions)[u][:, None], np.exp(2 + z @ weights)
    return rng.poisson(rng.gamma(1 / phi, phi * rate)).astype(float), u


def main():
    print("dispersions    seed  nats per row: feature  domain   gain  found (mean over features, relative error)")
    for name, dispersions in PROBLEMS.items():
        for seed in SEEDS:
            size = np.random.default_rng(2000 + seed).uniform(0.4, 0.8, N_FEATURES)
            weights = np.kron(np.eye(2), np.ones(N_FEATURES // 2)) * size
            (x, u), (other, v) = (table(own, dispersions, weights) for own in (seed, 1000 + seed))
            scores = {}
            for dispersion in ("feature", "domain"):
                words = {"n_restarts": 1, "max_epochs": 15, "random_state": seed, "verbose": 0, "device": "cpu"}
                words |= {"likelihood": "negative_binomial", "size_factors": None, "dispersion": dispersion}
                model = CGVAE(2, **words).fit(x, u)
                scores[dispersion] = model.score(other, v)
            with torch.no_grad():
                found = model.model_.likelihood.dispersion(torch.eye(2)).numpy()
            error = np.abs(found / np.array(dispersions)[:, None] - 1).mean()
            gain = scores["domain"] - scores["feature"]
            means = " ".join(f"{own:.3f}" for own in found.mean(1))
            bounds = f"{scores['feature']:21.2f}  {scores['domain']:6.2f}"
            print(f"{name:14} {seed:4}  {bounds}  {gain:+.2f}  {means}, {error:.0%}")


if __name__ == "__main__":
    main()
