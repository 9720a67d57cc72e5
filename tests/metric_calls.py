"""Every metric, with settings that keep the tests short."""

import inspect

import numpy as np

from unmix import metrics

QUICK = {
    "mcc": {"n_bootstrap": 20},
    "nonlinear_mcc": {"n_bootstrap": 20},
    "r2": {"n_bootstrap": 20},
    "dci": {"n_bootstrap": 2, "max_samples": 600, "regressor": "forest"},
    "mig": {"n_bootstrap": 20},
    "sap": {"n_bootstrap": 20},
    "modularity": {"n_bootstrap": 20},
    "explicitness": {"n_bootstrap": 20, "max_samples": 1000},
    "factor_vae_score": {"n_bootstrap": 3, "n_votes": 200},
    "beta_vae_score": {"n_bootstrap": 3, "n_votes": 200},
    "irs": {"n_bootstrap": 3},
}
"""Those of (z_true, z_hat)."""

TAKES_CLASSES = [name for name in QUICK if "discrete" in inspect.signature(getattr(metrics, name)).parameters]

LONE = {
    "fid": lambda z, **settings: metrics.fid(z, z, extractor="pixels", **settings),
    "kid": lambda z, **settings: metrics.kid(z, z, extractor="pixels", n_blocks=2, **settings),
    "dipd": lambda z, **settings: metrics.dipd(z, z, extractor="pixels", **settings),
    "content_accuracy": lambda z, **settings: metrics.content_accuracy(z[:, 0], z[:, 1], **settings),
    "style_accuracy": lambda z, **settings: metrics.style_accuracy(z[:, 0], z[:, 1], **settings),
    "udr": lambda z, **settings: metrics.udr([z, z], **settings),
    "support_recovery": lambda z, **settings: metrics.support_recovery(z > 0, z, **settings),
}
"""The others, of one matrix."""


def quick(name, z, w, **settings):
    return getattr(metrics, name)(z, w, **{**QUICK[name], **settings})


def arguments(name, z):
    """Words with which ``getattr(metrics, name)`` can be called, arrays for every argument that takes one."""
    words = np.array(["a", "b"])[np.arange(len(z)) % 2]
    matrices = {"z_true": z, "z_hat": z + 0.1, "support_true": z > 0, "mixing_hat": z, "runs": [z, -z]}
    features = dict.fromkeys(("features_real", "features_generated", "features_first", "features_second"), z)
    labels = dict.fromkeys(
        ("predicted", "true", "target", "domains", "source", "domains_real", "domains_generated"), words
    )
    own = {
        "kl": [np.ones(z.shape[1])] * 2,
        "assignment": np.arange(z.shape[1]),
        "discrete": np.zeros(z.shape[1], dtype=bool),
        "extractor": "pixels",
        "n_blocks": 2,
        "n_bootstrap": 2,
        "n_votes": 20,
        "regressor": "lasso",
    }
    known = inspect.signature(getattr(metrics, name)).parameters
    every = matrices | features | labels | own
    return {word: every[word] for word in known if word in every}
