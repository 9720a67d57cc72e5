"""``unmix.CGGAN``: the estimator, for tables and for images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from unmix.audit.result import Audit
from unmix.audit.sparsity import SUPPORT_THRESHOLD
from unmix.data.batches import Rows
from unmix.data.columns import check_columns
from unmix.data.domains import DomainSchema
from unmix.data.images import ImageSchema
from unmix.data.matrix import check_values, numeric_matrix
from unmix.data.tables import as_table
from unmix.errors import DataError, DomainError, SettingError
from unmix.estimators.atomic import atomic
from unmix.estimators.face import FittedFace, Learnt
from unmix.estimators.features import Extractor
from unmix.estimators.gan_data import gan_image_rows, gan_images, prepare_gan
from unmix.estimators.gan_report import write_gan_report
from unmix.estimators.prepare import as_fitted, in_layer, labelled_images, latent_matrix, rows_for, separate
from unmix.estimators.progress import block_bar, say, say_precision, warn_if_long
from unmix.estimators.settings import CALLBACKS
from unmix.files import as_path, file_to_write
from unmix.fits.adversarial import AdversarialSummary, GANFit, errors_table
from unmix.fits.audited import audit_generator
from unmix.fits.fit import Fit, Summary
from unmix.fits.words import plain_settings
from unmix.forms import DataLike, LabelsLike
from unmix.models.cggan import FLOWS, MODULATIONS, CGGANConfig, CGGANNetwork
from unmix.models.fitted_gan import FittedGAN
from unmix.objectives.sparsity import PENALTIES
from unmix.terminal import duration
from unmix.train.adversarial import AdversarialSettings, expected_seconds
from unmix.train.callbacks import BlockCallback
from unmix.train.devices import pick_device
from unmix.train.starts import fit_starts
from unmix.train.threads import sensible_threads
from unmix.validation import (
    AT_LEAST_ZERO,
    AUXILIARY,
    FLAG,
    POSITIVE,
    VERBOSE,
    WIDTHS,
    Check,
    RandomLike,
    need_all,
    one_of,
    random_seed,
    whole,
)

Ints = NDArray[np.int64]

_OF_IMAGES: dict[str, object] = {
    "sparsity": 0.02,
    "penalty": "l1",
    "penalty_rows": 8,
    "sparsity_every": 4,
    "reconstruction_weight": 50.0,
    "joining": 0.25,
    "translated": 0.5,
    "pace": 5.0,
    "sharpened": 1.0,
    "sparsity_left": 0.1,
}


@dataclass(eq=False, repr=False)
class CGGAN(FittedFace[GANFit]):
    r"""GAN with content and style latents for rows or images: generates, encodes and translates them (CG-GAN).

    .. math:: z_c = \epsilon_c, \quad z_s = f_u(\epsilon_s; m), \quad x = G(z_c, z_s)

    Li, Fan, Zheng, Ng, Xie, Chen, Dong, Cai, Zhang: Synergy Between Sufficient Changes and Sparse Mixing Procedure
    for Disentangled Representation Learning, ICLR 2025, arXiv:2503.00639. f is monotone in every latent, the mask m
    finds how many latents domains change (style), and the Jacobian term keeps the mixing sparse (for images the mixing
    of style).

    Parameters
    ----------
    n_latents : int, default 4
        Content and style together. Use 16 or more for images.
    n_style : int, optional
        Number of latents that may be style; the others are content. Default: all; for images a quarter.
    hidden : sequence of int, default (128, 128)
        Widths of the dense networks; for images the last is the width of the modulation.
    channels : int, default 32
        Channels at full resolution, twice as many at lower resolutions.
    modulation : {"all", "colours"}, default "all"
        Effect of style on an image. "all": it modulates every layer. "colours": content draws one grey picture, and
        style gives it two colours; no domain changes a shape.
    flow : {"gaussian", "spline", False}, default "gaussian"
        f: location-scale, or a monotone spline. False: a plain conditional generator G(ε, u), as an ablation.
    mask : bool, default True
        Whether the mask is learnt. False: every candidate is style.
    mask_weight : float, default 0.04
    sparsity : float, optional
        α, weight of the Jacobian term: of ∂x/∂z on tables, of ∂x/∂z_s per pixel and colour on images. By default 0.03
        on tables and 0.02 on images. 0: only flow and mask.
    penalty : {"log", "l1", "l2"}, optional
        Form of that term, as in ``CGVAE``; by default "log" on tables and "l1" on images.
    gradient_weight : float, default 0.2
        γ of the discriminator's gradient penalty (R1). On tables it falls to 0.03 of this over the second half of the
        adversarial steps.
    augment : bool, default True
        Adaptive augmentation of the discriminator's input; images only.
    max_steps : int, default 8000
        Adversarial steps.
    n_restarts : int, default 1
        Starts, trained one after another. The start with the smallest reconstruction error is kept or, among those
        within a tenth of it, the one with the fewest style latents. On rows of features some starts end in a local
        optimum, with content folded or taken for style.
    encoder_steps : int, default 1000
        Steps in which the encoder is finally trained on the averaged generator.
    batch_size : int, default 256
    learning_rate : float, default 0.001
        Of Adam with betas (0, 0.99), falling linearly to 0.
    auxiliary : mapping of column name to {"categorical", "continuous", "within <column>"}, optional
    min_domain_rows : int, default 10
    mixed_precision : bool, default False
        bfloat16 where possible, on CUDA only.
    device : {"auto", "cpu", "cuda", "mps"} or torch.device, default "auto"
    random_state : int, RandomState or None, default 0
        An integer gives bitwise identical results on the same CPU.
    verbose : {0, 1, 2}, default 1

    Attributes
    ----------
    content_, style_ : int arrays
        Indices of the latents that no domain changes, and of the others: domains account for at least a tenth of their
        spread. With ``mask=False`` all candidates are style.
    importance_ : float array (n_latents,)
        Share of each latent's spread that domains account for.
    mixing_ : float array (n_features, n_latents) or (side, side, colours, n_latents)
        Mean of |∂x/∂z|, in standard deviations of a feature, or in grey levels of a pixel, per standard deviation of
        the latent.
    support_ : bool array (n_features, n_latents), tables only
        ``mixing_ >= 0.1``.
    history_ : DataFrame
        One row per hundred steps of the start that is kept: mean of every term of discriminator, generator and encoder.
    start_errors_ : float array (n_restarts,)
        Reconstruction error of each start: mean squared difference between the data and the output of the averaged
        generator for their latents, over the last block of steps; for rows in variances of a feature. Infinite if the
        training of a start failed.
    best_restart_ : int
        The start that is kept.
    domains_ : tuple of str
    n_features_in_, n_steps_ : int
    fit_seconds_ : float

    Latents have mean 0 and standard deviation 1 over generated rows. Content comes before style, each sorted by total
    effect. The sign of a latent is such that the feature it drives most increases with it.

    Examples
    --------
    >>> from unmix import CGGAN, datasets
    >>> data = datasets.make_sparse_mixing(n_latents=2, n_unchanging=1, n_features=4, n_domains=3, n_samples=600)
    >>> model = CGGAN(n_latents=2, hidden=(8, 8), max_steps=20, encoder_steps=10, verbose=0).fit(data.x, data.domains)
    >>> model.transform(data.x).shape, model.translate(data.x, data.domains, to=2).shape
    ((600, 2), (600, 4))
    >>> model.sample(5, domain=1).shape, len(model.content_) + len(model.style_)
    ((5, 4), 2)
    """

    checks: ClassVar[Mapping[str, Check]] = {
        **dict.fromkeys(("n_latents", "channels", "max_steps", "n_restarts", "encoder_steps"), whole(1)),
        **dict.fromkeys(("batch_size", "min_domain_rows"), whole(1)),
        **dict.fromkeys(("mask", "augment", "mixed_precision"), FLAG),
        "n_style": whole(0).or_else(None),
        "hidden": WIDTHS,
        "modulation": one_of(MODULATIONS),
        "flow": one_of(FLOWS).or_else(False, "False"),
        "mask_weight": AT_LEAST_ZERO,
        "sparsity": AT_LEAST_ZERO.or_else(None),
        "penalty": one_of(PENALTIES).or_else(None),
        "gradient_weight": AT_LEAST_ZERO,
        "learning_rate": POSITIVE,
        "auxiliary": AUXILIARY,
        "verbose": VERBOSE,
    }
    summary_type: ClassVar[type[Summary]] = AdversarialSummary
    assumption: ClassVar[str] = "domains act through few latents, the style, and each of those moves few features"
    model_ = Learnt[FittedGAN](lambda fit: fit.model)
    content_ = Learnt[Ints](lambda fit: np.arange(fit.model.n_content))
    style_ = Learnt[Ints](lambda fit: np.arange(fit.model.n_content, fit.model.n_latents))
    importance_ = Learnt[NDArray[np.float64]](lambda fit: fit.model.importance.cpu().numpy())
    support_ = Learnt(lambda fit: None if _of_images(fit) else fit.summary.mixing >= SUPPORT_THRESHOLD)
    image_shape_ = Learnt[tuple[int, int, int]](lambda fit: fit.schema.shape if _of_images(fit) else None)
    start_errors_ = Learnt[NDArray[np.float64]](lambda fit: fit.starts["error"].to_numpy())
    n_steps_ = Learnt[int](lambda fit: fit.summary.n_steps)

    n_latents: int = 4
    _: KW_ONLY
    n_style: int | None = None
    hidden: Sequence[int] = (128, 128)
    channels: int = 32
    modulation: str = "all"
    flow: str | bool = "gaussian"
    mask: bool = True
    mask_weight: float = 0.04
    sparsity: float | None = None
    penalty: str | None = None
    gradient_weight: float = 0.2
    augment: bool = True
    max_steps: int = 8000
    n_restarts: int = 1
    encoder_steps: int = 1000
    batch_size: int = 256
    learning_rate: float = 1e-3
    auxiliary: Mapping[str, str] | None = None
    min_domain_rows: int = 10
    mixed_precision: bool = False
    device: str | torch.device = "auto"
    random_state: RandomLike = 0
    verbose: int = 1

    @atomic
    def fit(
        self,
        X: DataLike,
        y: LabelsLike = None,
        *,
        layer: str | None = None,
        callbacks: Sequence[BlockCallback] = (),
        checkpoint: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Learn generator, discriminator and encoder from rows of several domains.

        Parameters
        ----------
        X : table (n_samples, n_features) as in ``CGVAE``, or images in any form that ``read_images`` knows
            Images are uint8 (n_samples, side, side, colours) with sides of 16, 32, 64 or 128 pixels. A folder, a .zip
            and the result of ``read_images`` include their domains.
        y : labels (n_samples,), table of auxiliary columns, or name of a column
            The domain of each row; at least two domains.
        layer, checkpoint, resume
            As in ``CGVAE.fit``, which raises the same errors.
        callbacks : sequence of callables, optional
            Each is called after every hundred steps with a frozen record: ``step``, ``n_steps`` and ``start`` (its
            number), ``terms`` (a mapping with the names of ``history_``), ``seconds``. If one returns True, this start
            ends its adversarial steps, and the encoder's follow; if it returns True in those, this start ends.
        """
        self._check_words()
        CALLBACKS.need("callbacks", callbacks)
        seed = random_seed(self.random_state)
        words = plain_settings(self, seed)
        features, domains, rows = prepare_gan(
            in_layer(X, layer),
            y,
            n_latents=self.n_latents,
            auxiliary=self.auxiliary,
            min_domain_rows=self.min_domain_rows,
            seed=seed,
        )
        device = pick_device(self.device)
        config = self._config(tuple(rows.x.shape[1:]), domains, seed)
        rows = rows.to(device)
        say_precision(self.verbose, bool(self.mixed_precision), device)
        settings = AdversarialSettings(
            batch_size=min(int(self.batch_size), len(rows)),
            learning_rate=float(self.learning_rate),
            mixed_precision=self.mixed_precision,
            seed=seed,
        )
        n_starts = int(self.n_restarts)
        with sensible_threads(config.shape, int(self.batch_size)):
            expected = n_starts * expected_seconds(CGGANNetwork(config).to(device), rows, settings)
            what = f"{len(rows)} rows of shape {config.shape}, {self.n_latents} latents, on {device}"
            columns = "\n".join(f"domain {column.describe()}" for column in domains.columns)
            say(self.verbose, f"unmix CGGAN: {what}, about {duration(expected)}\n{columns}")
            warn_if_long(expected, device, "Take smaller images, or lower max_steps, channels or n_restarts")
            with block_bar(self.verbose, (config.steps + config.encoder_steps) * n_starts) as on_block:
                network, result, kept, errors = fit_starts(
                    lambda own: CGGANNetwork(replace(config, seed=own)).to(device),
                    n_starts,
                    rows,
                    settings,
                    judged_by="encoder_real",
                    on_block=on_block,
                    callbacks=callbacks,
                    checkpoint=None if checkpoint is None else as_path(checkpoint),
                    resume=resume,
                    schema=(features, domains),
                )
        model = FittedGAN.of(network, rows)
        self.fit_ = Fit(
            kind=type(self),
            parameters=words,
            model=model,
            schema=features,
            domains=domains,
            history=pd.DataFrame(result.history).astype({"step": int}),
            starts=errors_table(errors, kept),
            best=kept,
            summary=AdversarialSummary(model.mean_effects(rows), result.n_steps),
            seed=seed,
            seconds=result.seconds,
        )
        say(self.verbose, f"{len(self.style_)} of {self.n_latents} latents are style; {result.seconds:.0f} s")
        return self

    def transform(self, X: DataLike) -> NDArray[np.floating]:
        """Latents (n_samples, n_latents), content before style; needs no domain."""
        check_is_fitted(self)
        return self._read(self._new_rows(X)).cpu().numpy()

    def sample(self, n_samples: int = 1, domain: LabelsLike = None, random_state: RandomLike = 0) -> NDArray[np.number]:
        """Draw rows or images of one domain; the same ``random_state`` gives the same ε in every domain.

        The generator draws complete rows, so no observation noise is added.

        ``domain``: a label, or a mapping column → value if the model has several domain columns.
        """
        noise, design, _ = self._noise(n_samples, domain, random_state)
        with torch.no_grad():
            z = self.model_.from_noise(noise, design)
        return self._decode(z, design)

    def translate(self, X: DataLike, y: LabelsLike = None, *, to: LabelsLike) -> NDArray[np.number]:
        """The same rows or images as they would be in another domain: the same ε, another u.

        Parameters
        ----------
        X, y : rows or images and their domains, as in ``fit``
            The domains are needed, because ε depends on them; the result of ``read_images`` includes them.
        to : target domain: a label, a mapping column → value, or a table with one row for each row of X
        """
        check_is_fitted(self)
        rows = self._labelled_rows(X, y)
        target = self._design(to, len(rows))
        with torch.no_grad():
            z = self.model_.from_noise(self.model_.to_noise(self._read(rows), rows.design), target)
        return self._decode(z, target)

    def inverse_transform(self, X: ArrayLike, domain: LabelsLike = None) -> NDArray[np.number]:
        """Rows (n_samples, n_features) or images of latents ``X`` (n_samples, n_latents), as ``transform`` gives them.

        ``domain`` is needed only with ``flow=False``, where it is an input of the generator, and is ignored otherwise.
        """
        check_is_fitted(self)
        z = latent_matrix(X, self.fit_.latent_names)
        if domain is None and self.model_.config.flow is None:
            raise DomainError(
                f"With flow=False rows depend on their domain: pass domain=, one of {list(self.domains_)}."
            )
        design = self._no_domain(len(z)) if domain is None else self._design(domain, len(z))
        return self._decode(torch.from_numpy(z.astype(np.float32)).to(self._device()), design)

    def _traversed(
        self, X: DataLike, y: LabelsLike
    ) -> tuple[torch.Tensor, Callable[[torch.Tensor], NDArray[np.number]]]:
        rows = self._labelled_rows(X, y)
        return self._read(rows), lambda z: self._decode(z, rows.design)

    def audit(self, X: DataLike, y: LabelsLike = None) -> Audit:
        """Test which latents the data identify, and why, as for the other models; only for tables.

        There is neither a posterior nor a density of the prior: changes are measured by moments of the latents in
        every domain. Only one start is kept, so the agreement of starts is unknown.

        Parameters
        ----------
        X, y : rows and their domains, as in ``fit``
            The fit holds out no rows and keeps none; pass rows that it has not seen.

        Raises
        ------
        DataError
            The model was fitted on images, or with ``flow=False``, which has no latents that domains change.
        DomainError
            No row is of a domain of the fit.
        """
        check_is_fitted(self)
        if self._of_images() or self.model_.config.flow is None:
            what = "images" if self._of_images() else "rows with flow=False"
            raise DataError(f"CGGAN can only be audited on tables, with a flow; this one was fitted on {what}.")
        table, y = separate(X, y, self._layer())
        rows = self._new_rows(table, y, with_domain=True)
        return audit_generator(self.fit_, rows, self.domain_schema_.groups(y, len(rows)))

    def report(
        self,
        path: str | Path,
        X: DataLike | None = None,
        y: LabelsLike = None,
        *,
        extractor: Extractor | None = None,
        judged: pd.DataFrame | None = None,
    ) -> Path:
        """Write the report of this fit, one self-contained HTML file, and return its path.

        For images: samples by domain, the same noise in every domain, traversals, and the effect of each latent.

        Parameters
        ----------
        path : file to write
        X, y : images and their domains, as in ``translate``, optional
            Some of each domain are shown translated, and FID and KID compare them with generated ones.
        extractor : optional
            Feature extractor of FID and KID, as in ``image_features``. Default: an ``ImageClassifier`` trained for the
            report on the domains of ``X``, or an untrained one if only one domain is compared.
        judged : DataFrame, optional
            Result of ``judge_translations``, to be shown.
        """
        check_is_fitted(self)
        path = file_to_write(path)
        if X is not None and not self._of_images():
            raise SettingError("The report of a model of tables shows no rows: leave out X and y.")
        shown = None if X is None else labelled_images(X, y)
        if shown is not None:
            self._new_rows(*shown, with_domain=True)
        return write_gan_report(self, path, shown, extractor, judged)

    def _check_words(self) -> None:
        need_all(self, self.checks)
        if self.n_style is not None and self.n_style > self.n_latents:
            raise SettingError(f"n_style must be None or from 0 to n_latents; got {self.n_style!r}.")
        if self.n_style == 0 and self.flow is not False:
            raise SettingError("n_style must be ≥ 1, or domains change nothing (0 takes flow=False); got 0.")

    def _untrained(self, features: Any, domains: DomainSchema, fitted: Mapping[str, Any]) -> FittedGAN:
        shape = features.shape if isinstance(features, ImageSchema) else (features.n_features,)
        return FittedGAN(self._config(shape, domains, fitted["seed"]))

    def _config(self, shape: tuple[int, ...], domains: DomainSchema, seed: int) -> CGGANConfig:
        asked: dict[str, Any] = {} if self.penalty is None else {"penalty": self.penalty}
        if self.sparsity is not None:
            asked["sparsity"] = float(self.sparsity)
        return CGGANConfig(
            n_latents=int(self.n_latents),
            n_style=self._most_style(images=len(shape) > 1),
            shape=shape,
            n_design=domains.n_design,
            interactions=domains.interactions,
            hidden=tuple(int(width) for width in self.hidden),
            channels=int(self.channels),
            flow=None if self.flow is False else str(self.flow),
            mask=bool(self.mask),
            mask_weight=float(self.mask_weight),
            gradient_weight=float(self.gradient_weight),
            augment=bool(self.augment),
            steps=int(self.max_steps),
            encoder_steps=int(self.encoder_steps),
            seed=seed,
            modulation=self.modulation,
            **{**(_OF_IMAGES if len(shape) > 1 else {}), **asked},
        )

    def _most_style(self, *, images: bool) -> int:
        if self.n_style is not None:
            return int(self.n_style)
        return max(1, int(self.n_latents) // 4) if images else int(self.n_latents)

    def _new_rows(self, X: DataLike, y: LabelsLike = None, *, with_domain: bool = False) -> Rows:
        schema, domains = self.schema_, self.domain_schema_
        if isinstance(schema, ImageSchema):
            images = gan_images(X, schema.shape)
            encoded = domains.encode(y, len(images)) if with_domain else None
            return gan_image_rows(images, domains, encoded).to(self._device())
        table, y = separate(X, y, self._layer()) if with_domain else (as_table(X, self._layer()), None)
        table = as_fitted(table, schema, domains)
        matrix = numeric_matrix(table)
        check_columns(matrix, table, schema)
        check_values(matrix, schema.names, "refuse")
        encoded = domains.encode(y, len(matrix)) if with_domain else None
        return rows_for(matrix, schema, domains, encoded, False).to(self._device())

    def _labelled_rows(self, X: DataLike, y: LabelsLike) -> Rows:
        """New rows or images with their domains."""
        X, y = labelled_images(X, y) if self._of_images() else (X, y)
        return self._new_rows(X, y, with_domain=True)

    def _no_domain(self, n_rows: int) -> torch.Tensor:
        """A design matrix for a generator that does not look at it."""
        return torch.zeros(n_rows, self.domain_schema_.n_design, device=self._device())

    def _decode(self, z: torch.Tensor, design: torch.Tensor) -> NDArray[np.number]:
        """Rows in the data's units, or uint8 images."""
        whole, schema = self.model_.generated(z, design).numpy(), self.schema_
        return whole if isinstance(schema, ImageSchema) else schema.restore(whole.astype(float)).astype(schema.dtype)

    def _read(self, rows: Rows) -> torch.Tensor:
        """Latents of ``rows``."""
        if not len(rows):
            raise DataError("There are no images; pass at least one.")
        return self.model_.read(rows)

    def _of_images(self) -> bool:
        return _of_images(self.fit_)


def _of_images(fit: GANFit) -> bool:
    return isinstance(fit.schema, ImageSchema)
