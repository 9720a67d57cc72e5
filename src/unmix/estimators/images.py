"""``unmix.CGVAEImages``: the estimator for images, an autoencoder and then ``CGVAE`` on its codes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from unmix.audit.describe import mean_latents
from unmix.data.batches import Rows
from unmix.data.domains import DomainSchema
from unmix.data.images import CodeSchema
from unmix.data.pictures import Images
from unmix.errors import DataError, SchemaError, SettingError, StorageError
from unmix.estimators.atomic import atomic
from unmix.estimators.base import LatentEstimator
from unmix.estimators.cgvae import CGVAE
from unmix.estimators.prepare import Prepared, as_images, labelled_images, prepare_images
from unmix.estimators.progress import epoch_bar, say, warn_if_long
from unmix.estimators.settings import CALLBACKS
from unmix.files import as_path, file_to_write
from unmix.fits.words import plain_settings
from unmix.forms import DataLike, LabelsLike
from unmix.labels import labels_frame
from unmix.models.base import FittedModel, LatentModel
from unmix.models.cgvae import MakeLikelihood, MakePrior
from unmix.models.image_autoencoder import (
    Autoencoder,
    CodeFrame,
    ImageAutoencoder,
    ImageAutoencoderConfig,
    TrainedAutoencoder,
    default_widths,
)
from unmix.models.own_autoencoder import OwnAutoencoder, Part
from unmix.nets.own_decoder import MakeDecoder
from unmix.report.images import (
    REACH,
    SHOWN,
    ImageReportContent,
    ImageSection,
    domain_sections,
    latent_sections,
    left_out,
    render_images,
    translated_section,
)
from unmix.report.parts import write_html
from unmix.terminal import duration
from unmix.train.callbacks import Callback
from unmix.train.checkpoint import is_checkpoint
from unmix.train.devices import pick_device, wait_for
from unmix.train.fit import TrainingSettings
from unmix.train.fit import fit as train_model
from unmix.train.threads import sensible_threads
from unmix.validation import WIDTHS, Check, RandomLike, one_of, random_seed, whole
from unmix.version import versions

# What stands for a pair of the user's own in saved words.
OWN = "own"
# The split of tables too: what the autoencoder has not seen is what the second stage holds out.
_SPLIT_SEED = 0
_STEPS, _BATCH, _RATE = 4_000, 64, 2e-3
_EVALUATION_ROWS = 512
_MAPPED = 64
_ALONG = np.linspace(-2.0, 2.0, 9)
PAIR = Check(
    "None or a pair (encode, decode) of functions or torch modules",
    lambda value: (
        value is None
        or (isinstance(value, str) and value == OWN)
        or (isinstance(value, list | tuple) and len(value) == 2 and all(map(callable, value)))
    ),
)


@dataclass(eq=False, repr=False)
class CGVAEImages(LatentEstimator):
    r"""Latent factors of images from several domains: an autoencoder, and CG-VAE on its codes.

    A convolutional VAE, which ignores the domains, encodes the images; ``CGVAE`` finds the factors in the principal
    components of the codes. The model is the composition of both: latents are decoded to components, codes, and images.
    Mixing, audit, score and counterfactual checks refer to a table whose features are the components ``c0``, ``c1``, …

    ``X`` is a uint8 array (n_images, height, width, channels), a list of PIL images, the result of ``read_images``, or
    a path that it reads; the last two include their domains. Output images are uint8 too. Sides must have 8 to 256
    pixels; images are padded internally.

    Parameters
    ----------
    n_latents : int or "auto", default 8
    autoencoder : pair (encode, decode), optional
        Your own first stage. Two functions: from images (n, height, width, channels) uint8 to codes (n, n_codes), and
        from codes to images with numbers from 0 to 255. Or two ``torch.nn.Module``, for images (n, channels, height,
        width) from 0 to 1. It is not saved with the model: ``unmix.load(path).set_params(autoencoder=pair)``.
    n_codes : int, default 16
        Codes of the first stage. Use more than there are factors: a cyclic factor, such as a hue, needs two.
    widths : sequence of int, optional
        Channels after each halving of the image. Default: 64 on a grid of at most 4 × 4, half of them at twice the
        side, 16 or more.
    max_epochs : int, optional
        Passes of each stage over the training images. Default: 4,000 steps of 64 images for the autoencoder, then
        1,400 steps per latent.
    hidden, n_restarts, batch_size, learning_rate, optimizer, scheduler, decoder, prior, sparsity, penalty, \
penalty_rows, penalty_every, kl_weight, n_spare, likelihood
        Of the second stage, as in ``CGVAE``. Rows of the mixing are components of the codes, each of which depends on
        many factors: ``sparsity`` is 0 by default. Where starts find different latents they are trained further, from
        what the domains tell beyond the latents that all find; ``prior="auto"`` is Gaussian at first, and then has
        splines (``docs/images.md``).
    validation_fraction, early_stopping, auxiliary, min_domain_rows, device, random_state, verbose
        As in ``CGVAE``; both stages hold out the same images.
    missing : {"error"}
        Images have no missing entries. ``size_factors`` is not used, since components are not counts, and there is no
        ``warm_start``.

    Attributes
    ----------
    mixing_ : float array (n_components, n_latents)
        Of the second stage; ``mixing_maps()`` gives the effect of a latent on the pixels.
    autoencoder_ : pair (encode, decode)
        The first stage, for further fits on the same images, since its training takes most of the time.
    agreement_, restarts_, history_, best_restart_, prior_, domains_, stop_reason_, description_, …
        As in ``CGVAE``, of the second stage. ``fit_seconds_`` is that of both.

    Raises
    ------
    DataError
        ``fit``: the codes have fewer components than ``n_latents``.

    Examples
    --------
    >>> from unmix import CGVAEImages, datasets
    >>> data = datasets.make_sprites(n_samples=60, size=16, n_domains=2)
    >>> model = CGVAEImages(n_latents=2, n_codes=4, widths=(4, 4), max_epochs=1, verbose=0)
    >>> model = model.fit(data.images, data.domains)
    >>> model.transform(data.images).shape, model.sample(3, domain=1).shape
    ((60, 2), (3, 16, 16, 3))
    >>> model.counterfactual(data.images[:5], data.domains[:5], to=0).dtype
    dtype('uint8')
    """

    checks: ClassVar[Mapping[str, Check]] = {
        **CGVAE.checks,
        "autoencoder": PAIR,
        "n_codes": whole(1),
        "widths": WIDTHS.or_else(None),
        "missing": one_of(("error",)),
        "warm_start": Check("False: images are fitted in two stages, anew", lambda value: value is False),
    }
    assumption: ClassVar[str] = "the factors change between domains"
    steps_per_latent = 1_400

    prior_ = CGVAE.prior_

    n_latents: int | str = 8
    decoder: str | MakeDecoder = "dense"
    prior: str | MakePrior = "auto"
    sparsity: float | str = 0.0
    penalty: str = "log"
    penalty_rows: int = 32
    penalty_every: int = 2
    kl_weight: float = 1.0
    n_spare: int = 2
    likelihood: str | Mapping[str, str] | MakeLikelihood = "gaussian"
    size_factors: str | None = "total"
    nuisance: str | None = None
    dispersion: str = "feature"
    autoencoder: tuple[Part, Part] | str | None = None
    n_codes: int = 16
    widths: Sequence[int] | None = None

    @atomic
    def fit(  # type: ignore[override]  # images have no layers
        self,
        X: DataLike,
        y: LabelsLike = None,
        *,
        callbacks: Sequence[Callback] = (),
        checkpoint: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        self._check_words()
        CALLBACKS.need("callbacks", callbacks)
        if self.autoencoder == OWN:
            raise self._lacks_pair()
        seed = random_seed(self.random_state)
        table, y = as_images(X, y)
        data = prepare_images(
            table,
            y,
            auxiliary=self.auxiliary,
            min_domain_rows=self.min_domain_rows,
            validation_fraction=self.validation_fraction,
            seed=_SPLIT_SEED,
        )
        own = None if self.autoencoder is None else OWN
        parameters = plain_settings(type(self)(**{**self.get_params(deep=False), "autoencoder": own}), seed)
        factors = self._factors().set_params(random_state=seed)
        place, seconds, network = None if checkpoint is None else as_path(checkpoint), 0.0, None
        if self.autoencoder is None:
            network, seconds = self._trained(data, seed, place, resume)
            first: Autoencoder = TrainedAutoencoder(network, data.features)
            place = None if place is None else _second(place)
            resume = resume and place is not None and place.exists()
        else:
            first = OwnAutoencoder(*self.autoencoder)
            first.check(table.images)
        codes = first.encode(table.images)
        least = 1 if self.n_latents == "auto" else int(self.n_latents)
        frame = CodeFrame.of(codes[data.order[: data.n_train]], least, network)
        n_components = frame.axes.shape[1]
        if n_components < least:
            raise DataError(
                f"The codes of these images have {n_components} components, fewer than n_latents = {least}. Ask for at "
                "most as many latents, or pass a larger n_codes."
            )
        table_of_codes = _named(frame.components(codes))
        fit = factors.fit(table_of_codes, y, callbacks=callbacks, checkpoint=place, resume=resume).fit_
        if network is not None and place is not None:
            place.unlink(missing_ok=True)
        fit.model.add_module("coder", frame)
        columns: Any = fit.schema
        schema = CodeSchema.of(columns, data.features, codes.shape[1])
        seconds += fit.seconds
        self.fit_ = replace(fit, kind=type(self), parameters=parameters, schema=schema, seconds=seconds)
        return self

    def _factors(self) -> CGVAE:
        """The second stage, with the settings of this estimator."""
        factors = CGVAE(**{own.name: getattr(self, own.name) for own in fields(CGVAE)})
        factors.steps_per_latent, factors.least_steps = self.steps_per_latent, self.least_steps
        factors.on_codes = True
        return factors

    def _network(self, features: Any, domains: DomainSchema, seed: int, n_starts: int) -> LatentModel:
        return self._factors()._network(features, domains, seed, n_starts)

    def _trained(
        self, data: Prepared, seed: int, checkpoint: Path | None, resume: bool
    ) -> tuple[ImageAutoencoder, float]:
        """The first stage, and the seconds that it took."""
        device = pick_device(self.device)
        network = self._autoencoder_network(data.features.shape, seed).to(device)
        rows = data.rows.to(device)
        train = rows.take(slice(0, data.n_train))
        held_out = rows.take(slice(data.n_train, None)) if len(data.held_out) else train
        with sensible_threads(data.features.shape, _BATCH):
            steps_a_pass = max(1, round(len(train) / _BATCH))
            epochs = max(1, round(_STEPS / steps_a_pass)) if self.max_epochs is None else int(self.max_epochs)
            seconds = epochs * steps_a_pass * seconds_a_step(network, train.take(slice(0, _BATCH)))
            said = f"autoencoder: {epochs * steps_a_pass} steps on {len(train)} images, about {duration(seconds)}"
            say(self.verbose, f"unmix {type(self).__name__}, {said}")
            warn_if_long(seconds, device, "Scale the images down (read_images(…, size=32)) or lower max_epochs")
            if checkpoint is not None:
                _refuse_foreign(_second(checkpoint))
            settings = TrainingSettings(
                max_epochs=epochs,
                batch_size=_BATCH,
                learning_rate=_RATE,
                evaluation_rows=_EVALUATION_ROWS,
                seed=seed,
            )
            with epoch_bar(self.verbose, epochs) as on_epoch:
                result = train_model(
                    network,
                    train,
                    held_out,
                    settings,
                    on_epoch=on_epoch,
                    checkpoint=checkpoint,
                    resume=resume,
                    schema=(data.features, data.domains),
                )
        return network, result.seconds

    def _autoencoder_network(self, shape: tuple[int, int, int], seed: int) -> ImageAutoencoder:
        widths = default_widths(shape) if self.widths is None else tuple(int(width) for width in self.widths)
        if min(shape[:2]) < 2 ** len(widths):
            raise SettingError(
                f"widths={widths} halves the images {len(widths)} times, which {min(shape[:2])} pixels do not allow. "
                "Pass fewer widths."
            )
        config = ImageAutoencoderConfig(int(self.n_codes), shape, widths, seed=seed)
        return ImageAutoencoder(config)

    def _untrained(self, features: Any, domains: DomainSchema, fitted: Mapping[str, Any]) -> FittedModel:
        if not isinstance(features, CodeSchema):
            raise StorageError(
                "This CGVAEImages was saved by an earlier version, whose model had one stage and is gone. Fit again, "
                "or read it with the version that wrote it (versions in config.json)."
            )
        model = super()._untrained(features, domains, fitted)
        network = None if self.autoencoder == OWN else self._autoencoder_network(features.shape, fitted["seed"])
        model.add_module("coder", CodeFrame(features.n_codes, features.n_features, network))
        return model

    def _first(self) -> tuple[CodeFrame, Autoencoder]:
        """The frame of the codes, and the first stage of the fit."""
        frame: Any = self.model_.coder
        if frame.network is not None:
            return frame, TrainedAutoencoder(frame.network, self.schema_.images)
        if self.autoencoder is None or self.autoencoder == OWN:
            raise self._lacks_pair()
        PAIR.need("autoencoder", self.autoencoder)
        return frame, OwnAutoencoder(*self.autoencoder)

    @property
    def autoencoder_(self) -> tuple[Callable[[Images], NDArray[np.float64]], Callable[[NDArray[np.float64]], Images]]:
        """Encoder and decoder of the first stage; pass them as ``autoencoder`` of another fit on the same images."""
        check_is_fitted(self)
        first = self._first()[1]
        return first.encode, first.decode

    def _lacks_pair(self) -> SettingError:
        return SettingError(
            "This model was fitted on the codes of an autoencoder of your own, which is not saved with it. Pass it "
            "again: model.set_params(autoencoder=(encode, decode))."
        )

    def transform(self, X: DataLike) -> NDArray[np.floating]:
        """Posterior means of the latents (n_images, n_latents); no domain is needed."""
        check_is_fitted(self)
        return mean_latents(self.model_, self._new_rows(X))

    def sample(self, n_samples: int = 1, domain: LabelsLike = None, random_state: RandomLike = 0) -> Images:
        """Images (n_samples, height, width, channels) of one domain, without observation noise.

        The same ``random_state`` gives the same noise ε in every domain: images that differ in their domain alone.
        """
        return self._decode(self._draw(n_samples, domain, random_state)[0])

    def translate(self, X: DataLike, y: LabelsLike = None, *, to: LabelsLike, residual: bool | str = False) -> Images:
        """The same images as they would be in another domain, as in ``CGVAE``, but without the residual by default.

        ``residual=True`` keeps the residuals of the codes and adds those of the image to the result. This works well if
        domains differ in colour or light, but leaves ghosts if they move objects. An image that is translated to its
        own domain is then returned unchanged. "domain" moves the residuals of the codes, as in ``CGVAE``.
        """
        moved = self._pictures(super().translate(X, y, to=to, residual=residual))
        if not residual:
            return moved
        images, (_, first) = as_images(X)[0].images, self._first()
        left = images.astype(np.int16) - first.decode(first.encode(images))
        result: Images = (moved + left).clip(0, 255).astype(np.uint8)
        return result

    def score(self, X: DataLike, y: LabelsLike = None) -> float:
        """Bound on the log-likelihood of the components of the codes given the domains: mean per image, in nats.

        Values compare between fits on the same codes only, such as those of one ``autoencoder``.
        """
        return super().score(X, y)

    def mixing_maps(self) -> NDArray[np.float64]:
        """Effect of each latent on each pixel (n_latents, height, width), mean over channels and some images.

        In grey levels (0 … 255) per standard deviation of the latent, which goes from -2 to 2 standard deviations in
        images that were held out at fit: what changes between the values that occur counts too.
        """
        check_is_fitted(self)
        found = self.description_.latents
        z = found[:: max(1, len(found) // _MAPPED)][:_MAPPED]
        maps = np.zeros((self.n_latents_, *self.schema_.shape[:2]))
        for latent in range(self.n_latents_):
            moved, before = z.copy(), None
            for value in _ALONG:
                moved[:, latent] = value
                images = self.inverse_transform(moved).astype(float)
                if before is not None:
                    maps[latent] += np.abs(images - before).mean((0, 3)) / (_ALONG[-1] - _ALONG[0])
                before = images
        return maps

    def report(self, path: str | Path, X: DataLike | None = None, y: LabelsLike = None) -> Path:
        """Write the image report: samples, the same noise in all domains, traversals, and the effect of each latent.

        With real images ``X`` and their domains ``y`` it also shows some of each domain translated to every domain.
        """
        check_is_fitted(self)
        path = file_to_write(path)
        sections, notes = self._sections()
        if X is not None:
            found, labels = labelled_images(X, y)
            self._new_rows(found, labels, with_domain=True)
            if self.domain_schema_.one_column:
                groups = self.domain_schema_.groups(labels, len(found))
                own = labels_frame(labels, len(found))
                sections.append(translated_section(found.images, own, groups, self.domains_, self.translate))
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
        drawn = domain_sections(lambda domain, k: self.sample(SHOWN, domain=domain, random_state=k), self.domains_)
        return [*drawn, *of_latents], []

    def _traversed(self, X: DataLike, y: LabelsLike) -> tuple[torch.Tensor, Callable[[torch.Tensor], Images]]:
        z = torch.from_numpy(self.transform(X).astype(np.float32)).to(self._device())
        return z, lambda other: np.asarray(self.inverse_transform(other.cpu().double().numpy()), dtype=np.uint8)

    def _labelled_rows(self, X: DataLike, y: LabelsLike) -> Rows:
        return self._new_rows(X, y, with_domain=True)

    def _audited(self, X: DataLike, y: LabelsLike) -> tuple[Rows, LabelsLike]:
        table, y = labelled_images(X, y)
        return self._new_rows(table, y, with_domain=True), y

    def _new_rows(
        self, table: DataLike, y: LabelsLike = None, *, with_domain: bool = False, given: DataLike | None = None
    ) -> Rows:
        found, y = as_images(table, y)
        if found.images.shape[1:] != self.schema_.shape:
            raise SchemaError(
                f"The model was fitted on images of shape {self.schema_.shape}; got {found.images.shape[1:]}. "
                "Read them with the same size= and mode=."
            )
        frame, first = self._first()
        table = _named(frame.components(first.encode(found.images)))
        return super()._new_rows(table, y, with_domain=with_domain, given=table)

    def _decode(self, z: torch.Tensor) -> Images:
        return self._pictures(super()._decode(z))

    def _pictures(self, components: NDArray[Any]) -> Images:
        frame, first = self._first()
        return first.decode(frame.codes(components))


def _named(components: NDArray[np.float64]) -> pd.DataFrame:
    return pd.DataFrame(components, columns=[f"c{k}" for k in range(components.shape[1])])


def _second(checkpoint: Path) -> Path:
    """The checkpoint of the second stage, beside that of the first."""
    return checkpoint.with_name(f"{checkpoint.stem}-factors{checkpoint.suffix}")


def _refuse_foreign(path: Path) -> None:
    if path.exists() and not is_checkpoint(path):
        raise StorageError(
            f"{path} is where the checkpoint of the second stage belongs, but is not one. Move it away, or choose "
            "another checkpoint=."
        )


def seconds_a_step(network: ImageAutoencoder, rows: Rows) -> float:
    """Seconds of one step of the training, tried on a copy."""
    tried, noise = copy.deepcopy(network), torch.zeros(1, len(rows), network.n_noise, device=rows.x.device)
    began = 0.0
    for turn in range(3):
        if turn == 1:
            # The first warms up.
            wait_for(rows.x.device)
            began = time.monotonic()
        sum(term.sum() for term in tried.terms(rows, noise, len(rows), 0, 0.0).values()).backward()  # type: ignore[union-attr]
    wait_for(rows.x.device)
    return (time.monotonic() - began) / 2
