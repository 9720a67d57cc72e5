"""Generated data against their own truth: each option is measured, and the defaults never move."""

import hashlib

import numpy as np
import pytest

from unmix.datasets import make_sparse_mixing

# Published tables rest on these draws: `digest` of what version 0.1 gave for the settings.
GOLDEN = [
    ({"random_state": 0}, "30c55ae39a5e0b20"),
    ({"change": "mean", "random_state": 1, "n_latents": 3, "n_features": 5, "n_domains": 2}, "d5ce733aa9c755bb"),
    ({"change": "scale", "random_state": 2, "noise": 0.3, "density": 0.3, "n_features": 12}, "d2751e77b39c8d87"),
    ({"change": "shape", "random_state": 3, "nonlinearity": 1.7, "n_samples": 1001}, "d7b910e852846125"),
    ({"random_state": 4, "guaranteed": True, "n_domains": 3}, "ab6041d0e53831bc"),
    (
        {"random_state": 5, "n_latents": 10, "n_features": 30, "n_domains": 5, "density": 0.3, "guaranteed": True},
        "8bd0e5c5b7aee6d8",
    ),
]


def digest(data):
    """Hash of everything drawn, to eight digits: other processors may round the last bits differently."""
    parts = [data.support, data.domains, *(np.round(values, 8) + 0.0 for values in (data.z, data.x))]
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()[:16]


@pytest.mark.parametrize(("settings", "expected"), GOLDEN, ids=range(len(GOLDEN)))
def test_the_defaults_draw_what_they_always_drew(settings, expected):
    assert digest(make_sparse_mixing(**{"n_samples": 1000, **settings})) == expected
