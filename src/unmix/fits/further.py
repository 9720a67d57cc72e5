r"""A further round of training, from what the domains tell beyond the latents that other starts find.

Images lie on curved surfaces. There a factor that bends them much, such as the shape of what is shown, is missed by all
starts, though the domains tell of it: the latents in its place are mixtures, which other starts do not find again. What
is missed can be read off

.. math:: D_u(z) = \log p(u \mid z) - \log p(u \mid z_R),

with R all latents but the two that other starts find least. If factors are independent within each domain and
:math:`z_R` are some of them, D depends on the others alone, and where one of these changes with the domains, so does
the first principal component of D over the domains. Both probabilities are those of classifiers, on rows that they were
not trained on.

A copy of each start is taught this component in place of one of its two latents, and in place of the other what the
remaining latents and the component leave of the two. It is then trained on, with the final objective and splines in its
prior: shapes, colours and places are seldom Gaussian in a domain. A start gives way to its copy if that fits the
held-out rows better.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from unmix.audit.agreement import REPEATS, agreement
from unmix.audit.describe import mean_latents
from unmix.audit.input import stratify
from unmix.data.batches import Rows
from unmix.errors import TrainingError
from unmix.fits.choice import finish_start, latents_agreement, restarts_table
from unmix.models.base import FittedModel, LatentModel
from unmix.models.cgvae import CGVAENetwork
from unmix.train.fit import TrainingResult

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Further = Callable[[LatentModel], TrainingResult]

_MOST_ROUNDS = 3
_LEAST_LATENTS, _LEAST_ROWS = 3, 20
_FOLDS, _REPEATS, _HIDDEN, _STEPS, _BATCH, _RATE = 5, 2, (64, 64), 700, 128, 2e-3
_MOST_EPOCHS, _LEAST_SHARE = 200, 0.2
_TAUGHT_STEPS, _TAUGHT_BATCH, _TAUGHT_RATE = 2_000, 256, 3e-3


def train_further(
    network: CGVAENetwork,
    result: TrainingResult,
    train: Rows,
    held_out: Rows,
    groups: Ints,
    seed: int,
    fit: Further,
    *,
    splines: bool,
) -> TrainingResult:
    """Train copies of the starts of a trained ``network`` further, and let it have those that are better.

    ``groups`` are the domains of ``train``; ``fit`` trains a copy; with ``splines`` the copies have them in place of a
    Gaussian prior. There is nothing to do where other starts find every latent of the best one, and where there are
    less than three latents, two starts or two domains.
    """
    labels = stratify(train, groups).labels
    started = time.monotonic()
    possible = network.config.n_latents >= _LEAST_LATENTS and network.n_starts > 1 and len(_usable(labels)) > 1
    for _ in range(_MOST_ROUNDS if possible else 0):
        models = [FittedModel(network.single(start)) for start in range(network.n_starts)]
        for model in models:
            finish_start(model, train)
        repeats = _repeats(models, result, held_out)
        best = int(np.argmin(result.objective))
        if not repeats[best].min() < REPEATS:
            break
        wanted = []
        for model, own in zip(models, repeats, strict=True):
            latents, missed = mean_latents(model, train), np.argsort(own, kind="stable")[:2]
            wanted.append(replaced(latents, missed, told_beyond(latents, missed, labels, seed), seed))
        other = copy.deepcopy(network)
        other.go_on()
        if splines:
            other.free_shapes()
        teach(other, models, wanted, train, seed)
        try:
            trained = fit(other)
        except TrainingError:
            break
        before, result = result.objective[best], _better(network, result, other, trained)
        if trained.stopped or not result.objective[best] < before:
            break
    return replace(result, seconds=result.seconds + time.monotonic() - started)


def _usable(labels: Ints) -> Ints:
    """The domains with rows enough."""
    return np.flatnonzero(np.bincount(labels[labels >= 0]) >= _LEAST_ROWS)


def _repeats(models: Sequence[FittedModel], result: TrainingResult, held_out: Rows) -> Floats:
    """How well other starts find each latent (starts, n_latents)."""
    agreed = agreement(np.stack([mean_latents(model, held_out) for model in models]))
    tables = [restarts_table(result, agreed, start) for start in range(len(models))]
    return np.stack([latents_agreement(agreed.latents[start], own, start) for start, own in enumerate(tables)])


def told_beyond(latents: Floats, missed: Ints, labels: Ints, seed: int) -> Floats:
    """What the domains tell (rows,) of ``latents`` (rows, n_latents) beyond those that are not ``missed``.

    ``labels`` (rows,) are the domains. The result has mean 0 and standard deviation 1.
    """
    others, beyond = np.delete(latents, missed, axis=1), np.zeros(())
    for own in np.random.SeedSequence(seed).generate_state(_REPEATS):
        beyond = beyond + _log_probabilities(latents, labels, int(own)) - _log_probabilities(others, labels, int(own))
    score = PCA(1, random_state=seed).fit_transform(beyond)[:, 0]
    # Of rows whose domain is certain the score is large, how large hardly matters.
    return _standardised(np.tanh(score / score.std()))


def _log_probabilities(inputs: Floats, labels: Ints, seed: int) -> Floats:
    """Log p(u | inputs) (rows, domains) of the usable domains, each row by a classifier that has not seen it.

    Of what is improbable the logarithm is mostly error, so that a fifth of chance is added to all probabilities.
    """
    domains = _usable(labels)
    known, found = np.isin(labels, domains), np.empty((len(inputs), len(domains)))
    for learnt, new in KFold(_FOLDS, shuffle=True, random_state=seed).split(inputs):
        learnt = learnt[known[learnt]]
        epochs = min(max(1, round(_STEPS * _BATCH / len(learnt))), _MOST_EPOCHS)
        words: dict[str, Any] = {"early_stopping": True, "n_iter_no_change": epochs, "random_state": seed}
        words |= {"batch_size": min(_BATCH, len(learnt) * 4 // 5), "learning_rate_init": _RATE, "max_iter": epochs}
        model = MLPClassifier(_HIDDEN, **words)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(inputs[learnt], labels[learnt])
        found[new] = np.log(model.predict_proba(inputs[new]) + _LEAST_SHARE / len(domains))
    return found


def replaced(latents: Floats, missed: Ints, told: Floats, seed: int) -> Floats:
    """``latents`` with ``told`` in place of the first ``missed``, and what the others leave of both in the second."""
    given = np.column_stack([np.delete(latents, missed, axis=1), told])
    left = np.empty((len(latents), 2))
    for place, column in enumerate(latents[:, missed].T):
        model = HistGradientBoostingRegressor(early_stopping=True, random_state=seed)
        left[:, place] = column - model.fit(given, column).predict(given)
    result = latents.copy()
    result[:, missed] = np.column_stack([told, _standardised(PCA(1, random_state=seed).fit_transform(left)[:, 0])])
    return result


def teach(
    network: CGVAENetwork, models: Sequence[FittedModel], wanted: Sequence[Floats], train: Rows, seed: int
) -> None:
    """Let every start have the latents ``wanted`` (rows, n_latents), in the frames of the ``models`` it is a copy of.

    Encoder, decoder and prior are three regressions on the same rows.
    """
    z = network.alive.new_zeros(network.n_starts, len(train), network.n_latents)
    for start, (model, own) in enumerate(zip(models, wanted, strict=True)):
        kept = torch.nonzero(network.alive[start, 0]).flatten()
        z[start].index_copy_(1, kept, model.inward(torch.from_numpy(own).float().to(z.device)))
    parts: list[Any] = [network.encoder, network.decoder, network.domain_prior]
    optimizer = torch.optim.Adam([own for part in parts for own in part.parameters()], lr=_TAUGHT_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _TAUGHT_STEPS)
    source = torch.Generator().manual_seed(seed)
    for _ in range(_TAUGHT_STEPS):
        place = torch.randint(len(train), (min(_TAUGHT_BATCH, len(train)),), generator=source).to(z.device)
        loss = _distance(network, train.take(place), z[:, place])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _distance(network: CGVAENetwork, rows: Rows, z: Tensor) -> Tensor:
    """How far encoder, decoder and prior are from latents ``z`` (starts, batch, latents), sum over the starts."""
    encoded = (network.encode(rows.x, rows.observed).mean - z).square().mean(1).sum()
    likely = (network.prior(rows.design).log_prob(z) * network.alive).sum(-1).mean(1).sum()
    return encoded + network.reconstruction(rows, z).sum() - likely


@torch.no_grad()
def _better(
    network: CGVAENetwork, result: TrainingResult, other: CGVAENetwork, further: TrainingResult
) -> TrainingResult:
    """Copy every start of ``other`` that is better into ``network``, and its part of ``further`` into the result."""
    better = np.array(further.objective) < np.array(result.objective)
    taken = np.flatnonzero(better & ~np.array(further.failed) & ~np.array(result.failed))
    if not len(taken):
        return result
    if other.config.prior != network.config.prior:
        network.free_shapes()
    state = network.state_dict()
    for name, value in other.state_dict().items():
        state[name][taken] = value[taken]

    def of_either(own: list[Any], new: list[Any]) -> list[Any]:
        return [new[start] if start in taken else value for start, value in enumerate(own)]

    later = [{**row, "epoch": row["epoch"] + result.n_epochs} for row in further.history if row["start"] in taken]
    blocks = result.blocks.copy()
    blocks[:, taken] = further.blocks[:, taken]
    return replace(
        result,
        history=[*result.history, *later],
        objective=of_either(result.objective, further.objective),
        terms=of_either(result.terms, further.terms),
        best_epoch=of_either(result.best_epoch, [epoch + result.n_epochs for epoch in further.best_epoch]),
        blocks=blocks,
        stop_reason=f"{result.stop_reason}; then {further.n_epochs} epochs more",
        n_epochs=result.n_epochs + further.n_epochs,
    )


def _standardised(values: Floats) -> Floats:
    result: Floats = (values - values.mean()) / (values.std() or 1.0)
    return result
