"""Small problems and models shared by the tests; every seed is fixed."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import unmix
from unmix import CGVAE
from unmix.data.batches import Rows

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUICK = {"n_latents": 2, "n_restarts": 2, "max_epochs": 4, "verbose": 0}


def pytest_collection_modifyitems(items):
    """Examples of the docs fit models: they are slow."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker("slow")


def one_hot_rows(n=60, n_features=4, n_domains=3, seed=0):
    """Random rows that come from the domains in turn, as a network takes them."""
    x = torch.randn(n, n_features, generator=torch.Generator().manual_seed(seed))
    codes = torch.arange(n).remainder(n_domains)[:, None]
    return Rows(x, None, codes, torch.zeros(n, 0), n_domains)


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (12, 9, 10, 3), dtype=np.uint8)


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


@pytest.fixture(scope="session")
def normal():
    """Independent normal factors, for metrics."""
    return np.random.default_rng(0).standard_normal((4000, 3))


@pytest.fixture(scope="session")
def classes():
    """Independent factors of four classes, for metrics."""
    return np.random.default_rng(1).integers(4, size=(4000, 3)).astype(float)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors: a second thread only waits, and another number of threads rounds differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def browser():
    path = next((found for found in map(shutil.which, BROWSERS) if found), None)
    if path is None:
        if os.environ.get("UNMIX_REQUIRE_BROWSER"):
            pytest.fail("a browser is required here and none was found")
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()
