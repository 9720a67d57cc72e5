"""``unmix.CGVAEImages``: the estimator for images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from unmix.data.batches import Rows
from unmix.data.domains import DomainSchema
from unmix.errors import SchemaError, SettingError
from unmix.estimators.base import LatentEstimator
from unmix.estimators.prepare import Prepared, as_images, image_rows, labelled_images, prepare_images
from unmix.estimators.settings import are_numbers
from unmix.files import file_to_write
from unmix.labels import labels_frame
from unmix.models.base import LatentModel
from unmix.models.cgvae import PRIORS
from unmix.models.cgvae_images import CGVAEImageConfig, CGVAEImageNetwork
from unmix.numbers import is_whole
from unmix.objectives.sparsity import PENALTIES
from unmix.report.images import (
    REACH,
    SHOWN,
    ImageReportContent,
    ImageSection,
    domain_sections,
    latent_sections,
    left_out,
    render_images,
    some_of_each,
    translated_section,
)
from unmix.report.parts import write_html
from unmix.train.fit import TrainingSettings
from unmix.version import versions

_EVALUATION_ROWS = 256
_CHUNK = 256


@dataclass(eq=False, repr=False)
class CGVAEImages(LatentEstimator):
    r"""Latent factors of images from several domains: CG-VAE with convolutional encoder and decoder.

    The objective, the priors and the exact Jacobian penalty are those of ``CGVAE``, with pixels as features: all have
    one scale, and the observation noise is one number. Images go in as 8 bits and come out as 8 bits. Where ``CGVAE``
    takes ``X``, this takes a uint8 array (n_images, height, width, channels), what ``read_images`` returns, or a path
    that it reads; the latter two bring their domains along.

    Parameters
    ----------
    n_latents : int, default 8
    hidden : sequence of int, default (32, 64)
        Channels after each halving of the image in the encoder; the decoder goes back the same way.
    prior, sparsity, penalty, kl_weight, n_spare
        As in ``CGVAE``. An entry of the mixing is a pixel and channel, in units of the spread of all pixels.
    penalty_rows : int, default 4
        Images of each batch on which the Jacobian is computed. It costs as much as decoding ``penalty_rows`` ·
        (``n_latents`` + ``n_spare``) more images a batch.
    penalty_every : int, default 1
        As in ``CGVAE``.
    n_restarts : int, default 2
    batch_size : int, default 64
    learning_rate : float, default 0.002
    max_epochs : int, optional
        As in ``CGVAE``. Default: 350 steps a latent and at least 2,800.
    validation_fraction, early_stopping, auxiliary, min_domain_rows, device, random_state, verbose
        As in ``CGVAE``.
    missing : {"error"}
        Images have no missing entries.

    Attributes
    ----------
    mixing_ : float array (height · width · channels, n_latents)
        Mean over images of |∂x/∂z|; ``mixing_maps()`` gives it as maps.
    agreement_, restarts_, history_, best_restart_, domains_, stop_reason_, description_
        As in ``CGVAE``.

    Examples
    --------
    >>> from unmix import CGVAEImages, datasets
    >>> data = datasets.make_sprites(n_samples=60, size=16, n_domains=2)
    >>> model = CGVAEImages(n_latents=2, hidden=(4, 4), max_epochs=1, verbose=0).fit(data.images, data.domains)
    >>> model.transform(data.images).shape, model.sample(3, domain=1).shape
    ((60, 2), (3, 16, 16, 3))
    >>> model.counterfactual(data.images[:5], data.domains[:5], to=0).dtype
    dtype('uint8')
    """

    assumption: ClassVar[str] = "the factors change between domains and each moves few pixels"

    n_latents: int = 8
    hidden: Sequence[int] = (32, 64)
    n_restarts: int = 2
    batch_size: int = 64
    learning_rate: float = 2e-3
    prior: str = "gaussian"
    sparsity: float = 0.5
    penalty: str = "log"
    kl_weight: float = 1.0
    n_spare: int = 2
    penalty_rows: int = 4
    penalty_every: int = 1

    def transform(self, X: Any) -> NDArray[Any]:
        """Posterior means of the latents (n_images, n_latents); no domain is needed."""
        check_is_fitted(self)
        return self._encode(None, self._new_rows(X))

    def sample(self, n_samples: int = 1, domain: Any = None, random_state: int = 0) -> NDArray[Any]:
        """Images (n_samples, height, width, channels) of one domain, without observation noise.

        The same ``random_state`` gives the same noise ε in every domain: images that differ in their domain alone.
        """
        return self._decode(self._draw(n_samples, domain, random_state)[0])

    def counterfactual(self, X: Any, y: Any = None, *, to: Any, residual: bool = False) -> NDArray[Any]:
        """The same images as they would be in another domain, as in ``CGVAE``, but without the residual by default.

        What the latents leave of an image are details with a place, not noise. ``residual=True`` lays them over the
        result as they are: good where domains differ in colour or light, ghosts where they move what is seen.
        """
        return super().counterfactual(X, y, to=to, residual=residual)

    def traverse(self, image: Any, latent: int, values: Sequence[float] = (-2, -1, 0, 1, 2)) -> NDArray[Any]:
        """Images (len(values), …) of one image (height, width, channels) with one latent set to each of ``values``."""
        check_is_fitted(self)
        if not (is_whole(latent, 0) and latent < self.n_latents_):
            raise SettingError(f"latent must be a whole number from 0 to {self.n_latents_ - 1}; got {latent!r}.")
        if not are_numbers(values):
            raise SettingError(f"values must be one or more numbers, such as (-2, 0, 2); got {values!r}.")
        z = np.repeat(self.transform(np.asarray(image)[None]), len(values), axis=0)
        z[:, latent] = values
        return self.inverse_transform(z)

    def mixing_maps(self) -> NDArray[np.float64]:
        """``mixing_`` as maps (n_latents, height, width), mean over channels."""
        check_is_fitted(self)
        maps: NDArray[np.float64] = self.mixing_.T.reshape(self.n_latents_, *self.schema_.shape).mean(axis=3)
        return maps

    def report(self, path: str | Path, images: Any = None, domains: Any = None) -> Path:
        """Write the image page: samples, one noise in all domains, traversals, what each latent moves.

        With real ``images`` and their ``domains`` it also shows some of each domain translated to every domain.
        """
        check_is_fitted(self)
        path = file_to_write(path)
        sections, notes = self._sections()
        if images is not None:
            found, labels = labelled_images(images, domains)
            self._new_rows(found, labels, with_domain=True)
            if self.domain_schema_.one_column:
                groups = self.domain_schema_.groups(labels, len(found))
                chosen, words = some_of_each(groups, self.domains_)
                first, own = found.images[chosen], labels_frame(labels, len(found)).iloc[chosen]
                moved = [self.counterfactual(first, own, to=domain) for domain in self.domains_]
                sections.append(translated_section(first, moved, self.domains_, words))
        content = ImageReportContent(
            method=type(self).__name__,
            assumption=self.assumption,
            found=self._finding(),
            sections=sections,
            facts={**{name: str(value) for name, value in self.fitted_params_.items()}, "training": self.stop_reason_},
            versions=versions(),
            notes=notes,
        )
        write_html(render_images(content), path)
        return path

    def _finding(self) -> str:
        found = f"{self.n_latents_} latents in {len(self.domains_)} domains."
        if len(self.restarts_) < 2:
            return f"{found} One start: nothing says whether another would find the same latents."
        return f"{found} Latents of {len(self.restarts_)} starts agree at {self.agreement_:.2f}; 1 is the same latents."

    def _sections(self) -> tuple[list[ImageSection], list[str]]:
        names = [str(name) for name in self.get_feature_names_out()]
        middle = np.repeat(np.zeros((1, self.n_latents_)), SHOWN, axis=0)
        steps = [middle.copy() for _ in names]
        for latent, z in enumerate(steps):
            z[:, latent] = np.linspace(-REACH, REACH, SHOWN)
        moved = np.stack([self.inverse_transform(z) for z in steps])
        of_latents = latent_sections(moved, "at their mean", self.mixing_maps(), names)
        if not self.domain_schema_.one_column:
            return of_latents, [left_out([column.name for column in self.domain_schema_.columns])]
        own = np.stack([self.sample(SHOWN, domain=d, random_state=k) for k, d in enumerate(self.domains_)])
        same = np.stack([self.sample(SHOWN, domain=domain) for domain in self.domains_])
        return [*domain_sections(own, same, self.domains_), *of_latents], []

    def _network(self, features: Any, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        side = min(features.shape[:2])
        if side < 2 ** len(self.hidden):
            raise SettingError(
                f"hidden={tuple(self.hidden)} halves the images {len(self.hidden)} times, which {side} pixels do not "
                "allow. Pass fewer widths."
            )
        return CGVAEImageNetwork(
            CGVAEImageConfig(
                n_latents=int(self.n_latents),
                n_features=int(np.prod(features.shape)),
                n_design=domains.n_design,
                interactions=len(domains.columns) > 1 or domains.n_continuous > 0,
                hidden=tuple(int(width) for width in self.hidden),
                prior=self.prior,
                sparsity=float(self.sparsity),
                penalty=self.penalty,
                kl_weight=float(self.kl_weight),
                n_starts=n_starts,
                spare=int(self.n_spare),
                seed=seed,
                shape=features.shape,
            )
        )

    def _check_settings(self) -> None:
        for name, known in (("prior", PRIORS), ("penalty", PENALTIES), ("missing", ("error",))):
            self._need_one_of(name, known)
        self._need_at_least_zero("sparsity", "kl_weight")
        self._need_whole(n_spare=0, penalty_rows=1, penalty_every=1)

    def _training_settings(self, n_samples: int, seed: int, has_held_out: bool) -> TrainingSettings:
        return replace(
            super()._training_settings(n_samples, seed, has_held_out),
            penalty_rows=int(self.penalty_rows),
            penalty_every=int(self.penalty_every),
            evaluation_rows=_EVALUATION_ROWS,
            evaluation_penalty_rows=int(self.penalty_rows),
        )

    def _prepare(self, X: Any, y: Any, seed: int) -> Prepared:
        return prepare_images(
            X,
            y,
            auxiliary=self.auxiliary,
            min_domain_rows=self.min_domain_rows,
            validation_fraction=self.validation_fraction,
            seed=seed,
        )

    def _labelled_rows(self, X: Any, y: Any) -> Rows:
        return self._new_rows(X, y, with_domain=True)

    def _audited(self, X: Any, y: Any) -> tuple[Rows, Any]:
        table, y = labelled_images(X, y)
        return self._new_rows(table, y, with_domain=True), y

    def _new_rows(self, table: Any, y: Any = None, *, with_domain: bool = False, given: Any = None) -> Rows:
        found, y = as_images(table, y)
        if found.images.shape[1:] != self.schema_.shape:
            raise SchemaError(
                f"The model was fitted on images of shape {self.schema_.shape}; got {found.images.shape[1:]}. "
                "Read them with the same size= and mode=."
            )
        encoded = self.domain_schema_.encode(y, len(found)) if with_domain else None
        return image_rows(found.images, self.schema_, self.domain_schema_, encoded).to(self._device())

    def _decode(self, z: torch.Tensor) -> NDArray[Any]:
        with torch.no_grad():
            parts = [self.model_.decode(part).cpu().double().numpy() for part in z.split(_CHUNK)]
        return np.concatenate([self.schema_.restore(part) for part in parts])
