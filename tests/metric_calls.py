"""Every metric of (z_true, z_hat), with settings that keep the tests short."""

import inspect

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
TAKES_CLASSES = [name for name in QUICK if "discrete" in inspect.signature(getattr(metrics, name)).parameters]


def quick(name, z, w, **settings):
    return getattr(metrics, name)(z, w, **{**QUICK[name], **settings})
