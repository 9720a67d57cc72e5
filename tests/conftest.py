"""Small problems and models shared by the tests; every seed is fixed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import unmix
from unmix import CGVAE

QUICK = {"n_latents": 2, "n_restarts": 2, "max_epochs": 4, "verbose": 0}


@pytest.fixture(scope="session")
def problem():
    return unmix.datasets.make_sparse_mixing(n_latents=2, n_features=5, n_domains=3, n_samples=600, random_state=1)


@pytest.fixture(scope="session")
def frame(problem):
    return pd.DataFrame(problem.x, columns=problem.feature_names)


@pytest.fixture(scope="session")
def labels(problem):
    return np.array(["a", "b", "c"])[problem.domains]


@pytest.fixture(scope="session")
def fitted(frame, labels):
    """A short fit on named columns and text labels; tests must not change it."""
    return CGVAE(**QUICK).fit(frame, labels)


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors: a second thread only waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
