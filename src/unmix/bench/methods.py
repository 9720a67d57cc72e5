"""Methods of a study by name: an estimator, its settings, and whether it is given the domains.

A method of one's own is any class with ``fit(X, y)`` and ``transform(X)``, named as ``"package.module:Class"``. It is
given ``n_latents`` or ``n_components``, ``random_state`` and ``verbose=0`` where its constructor takes them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field

from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA, FastICA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from unmix.errors import SettingError
from unmix.estimators.linear import JointDiagonalization
from unmix.estimators.loading import ESTIMATORS
from unmix.own import found

_PLAIN = (str, int, float, list, tuple, type(None))
_LINEAR: dict[str, tuple[type, dict[str, object]]] = {
    # With a tolerance of 1e-3 it can stop at a saddle, after one step.
    "FastICA": (FastICA, {"max_iter": 5000, "tol": 1e-6}),
    "JointDiagonalization": (JointDiagonalization, {}),
    "PCA": (PCA, {}),
}


@dataclass(frozen=True)
class Method:
    """``estimator``: a name of unmix, "FastICA", "PCA" or "package.module:Class"; ``domains``: whether it sees them.

    The value "n_latents" of a setting stands for the number of latents of the problem.
    """

    name: str
    estimator: str = "CGVAE"
    settings: Mapping[str, object] = field(default_factory=dict)
    domains: bool = True

    @property
    def _kind(self) -> tuple[type[BaseEstimator], dict[str, object]]:
        """Class, and settings of it that are others here than its own defaults."""
        return _LINEAR.get(self.estimator) or (_find(self.estimator), {})

    @property
    def fixed_by(self) -> dict[str, object]:
        """All that fixes what the method does: estimator, its settings with its defaults, length of its training."""
        kind, own = self._kind
        defaults = {name: word.default for name, word in inspect.signature(kind).parameters.items()}
        known = {name: value for name, value in defaults.items() if isinstance(value, _PLAIN)}
        length = {name: getattr(kind, name) for name in ("steps_per_latent", "least_steps") if hasattr(kind, name)}
        settings = {**known, **own, **self.settings, **length}
        return {"estimator": self.estimator, "settings": settings, "domains": self.domains}

    def build(self, n_latents: int, seed: int) -> BaseEstimator:
        """An estimator that is not fitted yet, for one seed.

        Raises
        ------
        SettingError
            No such estimator, or one that does not take a setting.
        """
        kind, defaults = self._kind
        given = {"n_latents": n_latents, "n_components": n_latents, "random_state": seed, "verbose": 0}
        known = inspect.signature(kind).parameters
        own = {name: n_latents if value == "n_latents" else value for name, value in self.settings.items()}
        settings = {name: value for name, value in given.items() if name in known} | defaults | own
        unknown = sorted(set(settings) - set(known))
        if unknown and not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
            raise SettingError(
                f"The method {self.name!r} has settings that {self.estimator} does not take: {unknown}. "
                f"It takes {sorted(known)}."
            )
        estimator = kind(**settings)
        return make_pipeline(StandardScaler(), estimator) if self.estimator in _LINEAR else estimator


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("both"),
        Method("changes only", settings={"sparsity": 0.0}),
        Method("sparsity only", domains=False),
        Method("both, L1", settings={"penalty": "l1", "sparsity": 0.2}),
        Method("both, squared", settings={"penalty": "l2", "sparsity": 0.2}),
        Method("both, feature decoder", settings={"decoder": "feature"}),
        Method("both, spline prior", settings={"prior": "spline"}),
        Method("both, 8 rows", settings={"penalty_rows": 8}),
        Method("both, all rows", settings={"penalty_rows": 128}),
        Method("both, every step", settings={"penalty_every": 1}),
        Method("both, every 4th step", settings={"penalty_every": 4}),
        Method("FastICA", "FastICA", domains=False),
        Method("joint diagonalization", "JointDiagonalization"),
        Method("PCA", "PCA", domains=False),
        *(Method(name, name) for name in ("BetaVAE", "BetaTCVAE", "FactorVAE", "SparseVAE")),
        Method("IMSDA, all style", "IMSDA", {"n_style": "n_latents"}),
        Method("IVAE", "IVAE", {"max_epochs": 100}),
        Method("IVAE, learned mean", "IVAE", {"max_epochs": 100, "prior_mean": "learned", "noise_std": None}),
        Method("CEBRA", "unmix.estimators.external:CEBRA"),
    )
}


def _find(name: str) -> type[BaseEstimator]:
    if name in ESTIMATORS:
        return ESTIMATORS[name]
    if ":" not in name:
        raise SettingError(
            f"There is no estimator {name!r}. Known: {sorted([*ESTIMATORS, *_LINEAR])}; or name a class of your own as "
            '"package.module:Class".'
        )
    kind = found(name, "estimator")
    # Looked at before anything of it is called: a study calls it as a class and its objects as estimators.
    lacking = [word for word in ("fit", "transform") if not callable(getattr(kind, word, None))]
    if not inspect.isclass(kind) or lacking:
        what = f"a class without {' and '.join(lacking)}" if inspect.isclass(kind) else f"a {type(kind).__name__}"
        raise SettingError(f"The estimator {name!r} is {what}. Name a class with fit(X, y) and transform(X).")
    return kind
