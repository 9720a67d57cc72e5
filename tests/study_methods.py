"""Methods of one's own, as a study names them."""

import os
import time
from pathlib import Path

import numpy as np


class Truncated:
    """Keeps the first features; ``broken=True`` fails as a method may."""

    def __init__(self, n_components=2, broken=False):
        self.n_components, self.broken = n_components, broken

    def get_params(self):
        return {"n_components": self.n_components, "broken": self.broken}

    def fit(self, X, y=None):
        if self.broken:
            raise RuntimeError("no convergence")
        return self

    def transform(self, X):
        return np.asarray(X)[:, : self.n_components]


class Endless(Truncated):
    """Leaves the number of its process in the folder ``pids`` and never finishes."""

    def __init__(self, pids):
        super().__init__()
        self.pids = pids

    def get_params(self):
        return {"pids": self.pids}

    def fit(self, X, y=None):
        Path(self.pids, str(os.getpid())).touch()
        time.sleep(600)


class Explosive:
    """No estimator: to make one is a mistake."""

    def __init__(self, *args, **kwargs):
        raise AssertionError("called")

    def fit(self, X, y=None):
        raise AssertionError("called")


armed = Truncated()
