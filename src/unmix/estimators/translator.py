"""``unmix.ImageTranslator``: the estimator."""

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
from torch import Tensor

from unmix.data.domains import DomainSchema
from unmix.data.images import ImageSchema, ImageTable, check_images
from unmix.errors import DataError, DomainError, SchemaError, SettingError, warn
from unmix.estimators.atomic import atomic
from unmix.estimators.face import FittedFace, Learnt
from unmix.estimators.features import ImageClassifier
from unmix.estimators.gan_data import gan_image_rows
from unmix.estimators.prepare import as_images
from unmix.estimators.progress import block_bar, say, say_precision, warn_if_long
from unmix.estimators.settings import CALLBACKS
from unmix.estimators.translator_report import write_translator_report
from unmix.files import as_path, file_to_write
from unmix.fits.adversarial import AdversarialSummary, TranslatorFit, errors_table
from unmix.fits.fit import Fit, Summary
from unmix.fits.words import plain_settings
from unmix.forms import DataLike, LabelsLike
from unmix.models.alignment import LEAST_REPEATED
from unmix.models.cggan import FLOWS
from unmix.models.cggan import as_images as as_pixels
from unmix.models.features import FeatureNetwork
from unmix.models.fitted_translator import FittedTranslator
from unmix.models.translator import TranslatorConfig, continued, network_of
from unmix.terminal import duration
from unmix.train.adversarial import AdversarialSettings, expected_seconds, fit_adversarial
from unmix.train.callbacks import BlockCallback
from unmix.train.classify import fit_classifier
from unmix.train.devices import pick_device
from unmix.train.threads import sensible_threads
from unmix.validation import (
    AT_LEAST_ZERO,
    FLAG,
    NUMBERS,
    POSITIVE,
    VERBOSE,
    Check,
    RandomLike,
    need_all,
    one_of,
    random_seed,
    whole,
)

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]

LEAST_SIDE, MOST_SIDE = 16, 256
_READER_STEPS, _READER_BATCH = 1500, 64
_BETAS = (0.9, 0.99)
_EFFECT_ROWS = 32
_SHARPENED = 0.16
_SIZES = ("channels", "n_content", "n_style", "flow")


@dataclass(eq=False, repr=False)
class ImageTranslator(FittedFace[TranslatorFit]):
    r"""Translates images between domains: content is a spatial map, style is a small vector that domains change.

    .. math:: x = G(c, z_s), \qquad z_s = f_u(\epsilon_s), \qquad c \sim q(c \mid T_u(x))

    First the means and covariances of the domains are made equal, in closed form: T_u is the Gaussian optimal transport
    of domain u to the barycentre of all. This determines T_u up to a rotation, which is chosen so that images that are
    each other's nearest neighbours in two domains come together; such images are treated as pairs. From the result an
    encoder computes content, a map of Gaussian latents. The decoder draws it in the style z_s, whose distribution in
    each domain is the flow f of CG-GAN (Li et al., ICLR 2025, arXiv:2503.00639). Encoder and decoder start at linear
    maps. Training uses reconstruction and translation of an image to its partner; the last steps, of the decoder
    alone, are adversarial. Labels of the content are not needed, and neither are true pairs.

    Transport acts on all pixels together or, where that brings held-out images at least as near to other domains, on
    the colours of each pixel alike. Then shapes stay as they are: ``translate`` also carries what content leaves of an
    image. ``alignment_`` says which. Where pairs found by one half of the images are not found by the other, it is not
    clear what belongs together: then no pairs are used, and images are changed as little as it takes for a classifier
    of the domains to read them as of their target.

    Parameters
    ----------
    n_style : int, default 8
        Style latents.
    n_content : int, default 8
        Content latents at each place of a grid, a quarter of the image's side and 8 × 8 at most.
    channels : int, default 48
        Width of the convolutions; half of it at the full side.
    flow : {"gaussian", "spline", False}, default "gaussian"
        f: location-scale, or a monotone spline. False: style is N(0, I) in every domain, and the decoder is told the
        domain.
    mask_weight : float, default 0
        Weight of the mask term of the paper, which reduces the number of style latents that domains change.
    sparsity : float, default 0
        Weight of the mean of |∂x/∂z_s| over pixels.
    orthogonality : float, default 0
        Weight of the squared cosine between the changes of an image along random directions of content and of style
        (Timilsina, Nguyen, Shrestha, Fu: Content-Style Identification via Differential Independence, ICML 2026,
        arXiv:2605.17827).
    back_translation : float, default 0
        Weight of back-translation: images translated to another domain and back.
    pairing : float, default 2
        Weight of translating an image to its partner: two images of different domains that are each other's nearest
        neighbours after the transport.
    max_steps : int, default 3000
    sharpen_steps : int or None, default None
        Adversarial steps of the decoder after the others, where there are pairs of whole images (``alignment_`` is
        "pixels"): they make images less soft. A quarter of them train the critic alone. None: 16 % of ``max_steps``.
    batch_size : int, default 32
    learning_rate : float, default 0.002
        Of Adam, falling linearly to 0.
    warm_start : bool, default False
        Whether ``fit`` of a fitted model continues it for ``max_steps`` more steps instead of starting anew: from its
        networks, with its alignment. The images may be others; their shape and domains must be the same.
    min_domain_rows : int, default 10
    mixed_precision : bool, default False
        bfloat16 where possible, on CUDA only.
    device : {"auto", "cpu", "cuda", "mps"} or torch.device, default "auto"
    random_state : int, RandomState or None, default 0
        An integer gives bitwise identical results on the same CPU.
    verbose : {0, 1, 2}, default 1

    Attributes
    ----------
    domains_ : tuple of str
    image_shape_ : (height, width, channels)
    alignment_ : {"pixels", "colours", "unmatched pixels"}
        What the transport acts on; unmatched where pairs are not to be trusted.
    importance_ : float array (n_style,)
        Share of each style latent's spread that domains account for, as a standard deviation; 0 without a flow.
    history_ : DataFrame
        One row per hundred steps: mean of every term.
    n_features_in_, n_steps_ : int
    fit_seconds_ : float

    Examples
    --------
    >>> from unmix import ImageTranslator, datasets
    >>> data = datasets.make_typefaces(2, characters="abcdefgh")
    >>> model = ImageTranslator(channels=8, max_steps=2, verbose=0).fit(data.images, data.domains)
    >>> model.translate(data.images[:3], data.domains[:3], to="italic").shape
    (3, 16, 16, 1)
    >>> model.transform(data.images[:3], data.domains[:3]).shape
    (3, 128)
    """

    checks: ClassVar[Mapping[str, Check]] = {
        **dict.fromkeys(("n_style", "n_content", "max_steps", "batch_size", "min_domain_rows"), whole(1)),
        "channels": whole(4),
        "sharpen_steps": whole(0).or_else(None, "None"),
        "flow": one_of(FLOWS).or_else(False, "False"),
        **dict.fromkeys(("mask_weight", "sparsity", "orthogonality", "back_translation", "pairing"), AT_LEAST_ZERO),
        "learning_rate": POSITIVE,
        **dict.fromkeys(("mixed_precision", "warm_start"), FLAG),
        "verbose": VERBOSE,
    }
    assumption: ClassVar[str] = (
        "what domains share lies in the content, of which they have the same distribution, and what they change in the "
        "style of the whole image"
    )

    _: KW_ONLY
    n_style: int = 8
    n_content: int = 8
    channels: int = 48
    flow: str | bool = "gaussian"
    mask_weight: float = 0.0
    sparsity: float = 0.0
    orthogonality: float = 0.0
    back_translation: float = 0.0
    pairing: float = 2.0
    max_steps: int = 3000
    sharpen_steps: int | None = None
    batch_size: int = 32
    learning_rate: float = 2e-3
    warm_start: bool = False
    min_domain_rows: int = 10
    mixed_precision: bool = False
    device: str | torch.device = "auto"
    random_state: RandomLike = 0
    verbose: int = 1

    summary_type: ClassVar[type[Summary]] = AdversarialSummary

    image_shape_ = Learnt[tuple[int, int, int]](lambda fit: fit.schema.shape)
    alignment_ = Learnt[str](lambda fit: fit.model.alignment)
    importance_ = Learnt(lambda fit: fit.model.importance().cpu().numpy())
    n_latents_ = Learnt[int](lambda fit: fit.model.n_latents)
    n_steps_ = Learnt[int](lambda fit: fit.summary.n_steps)

    @atomic
    def fit(
        self,
        X: DataLike,
        y: LabelsLike = None,
        *,
        callbacks: Sequence[BlockCallback] = (),
        checkpoint: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Learn from images of two or more domains; no image needs a partner in another domain.

        Parameters
        ----------
        X : images in any form that ``read_images`` knows
            uint8 (n_images, height, width, channels), sides of 16 to 256 pixels, grey or in colour.
        y : labels (n_images,)
            The domain of each image; not needed for a path or the result of ``read_images``.
        callbacks : sequence of callables, optional
            Each is called after every hundred steps with a frozen record: ``step``, ``n_steps``, ``start`` (0),
            ``terms`` (a mapping with the names of ``history_``), ``seconds``. The training stops if one returns True;
            before ``sharpen_steps``, these follow.
        checkpoint, resume
            As in ``CGVAE.fit``, which raises the same errors.

        Warns
        -----
        DataWarning
            The training will take more than an hour, by the time of its first steps; or fewer than two in five of the
            pairs that one half of the images finds are found by the other half.
        """
        self._check_words()
        CALLBACKS.need("callbacks", callbacks)
        seed = random_seed(self.random_state)
        words = plain_settings(self, seed)
        table, y = as_images(X, y)
        check_images(table.images)
        _check_sides(table.images)
        domains, encoded, _ = DomainSchema.learn(y, len(table), None, int(self.min_domain_rows))
        if not domains.one_column or len(domains.domains) < 2:
            raise DomainError(
                "ImageTranslator needs one label of the domain for each image, and two or more domains; got "
                f"{len(domains.domains)} in {len(domains.columns)} columns. Pass their labels as y."
            )
        device = pick_device(self.device)
        say_precision(self.verbose, bool(self.mixed_precision), device)
        rows = gan_image_rows(table.images, domains, encoded).to(device)
        config = self._config(table.images.shape[1:], len(domains.domains), seed)
        before: TranslatorFit | None = getattr(self, "fit_", None)
        if before is not None:
            self._check_continued(before, config, domains)
        reader = FeatureNetwork(config.shape[2], config.n_domains, seed=seed)
        with sensible_threads(config.shape, int(self.batch_size)):
            reader.to(device)
            _learn_to_read(reader, table.images, encoded.codes[:, 0], min(_READER_STEPS, config.steps), seed)
            x, groups = rows.x, rows.design.argmax(1)
            if before is None:
                network = network_of(x, groups, config, lambda own: reader((own + 1) / 2).argmax(1))
            else:
                network = continued(x, groups, config, before.model.align, before.model.networks)
            if network.align.repeated < 1.0:
                warn(
                    "Of the pairs that one half of the images finds, the other half finds "
                    f"{network.align.repeated:.0%}; {LEAST_REPEATED:.0%} are needed. No pairs are used, and "
                    "translations change images as little as their domain asks for. More images would help, or images "
                    "that show things at one place and size."
                )
            settings = AdversarialSettings(
                batch_size=min(int(self.batch_size), len(rows)),
                learning_rate=float(self.learning_rate),
                mixed_precision=bool(self.mixed_precision),
                betas=_BETAS,
                seed=seed,
            )
            n_steps = max(phase.end for phase in network.phases)
            expected = expected_seconds(network, rows, settings, shared=(network.pairs,))
            what = f"{len(rows)} images of shape {config.shape}, {n_steps} steps on {device}"
            columns = "\n".join(f"domain {column.describe()}" for column in domains.columns)
            say(self.verbose, f"unmix ImageTranslator: {what}, about {duration(expected)}\n{columns}")
            warn_if_long(expected, device, "Scale the images down, lower max_steps or channels")
            with block_bar(self.verbose, n_steps) as on_block:
                result = fit_adversarial(
                    network,
                    rows,
                    settings,
                    on_block=on_block,
                    callbacks=callbacks,
                    checkpoint=None if checkpoint is None else as_path(checkpoint),
                    resume=resume,
                    schema=domains if before is None else ("continued", domains),
                )
        model = FittedTranslator.of(network, rows)
        model.reader.load_state_dict(reader.state_dict())
        some = rows.take(slice(None, None, -(-len(rows) // _EFFECT_ROWS)))
        effects = model.mean_effects(some.x, some.design.argmax(1)).permute(2, 3, 1, 0).cpu().double().numpy()
        self.fit_ = Fit(
            kind=type(self),
            parameters=words,
            model=model,
            schema=ImageSchema.of_range(config.shape),
            domains=domains,
            history=pd.DataFrame(result.history).astype({"step": int}),
            starts=errors_table([np.nan], 0),
            best=0,
            summary=AdversarialSummary(effects, result.n_steps),
            seed=seed,
            seconds=result.seconds,
        )
        say(self.verbose, f"{result.seconds:.0f} s")
        return self

    def transform(self, X: DataLike, y: LabelsLike = None) -> Floats:
        """Content (n_images, n_content · cells of the grid), carried to what all domains have in common.

        Without ``y`` the domain of each image is that of ``predict_domain``.
        """
        x, groups, _ = self._source(X, y)
        content: Floats = self.model_.content(x, groups).cpu().numpy()
        return content

    def style(self, X: DataLike) -> Floats:
        """Style ε (n_images, n_style): what each image's style has of its own within its domain; N(0, I) in each."""
        check_is_fitted(self)
        found: Floats = self.model_.noise(self._pixels(X)).cpu().numpy()
        return found

    def predict_domain(self, X: DataLike) -> NDArray[np.str_]:
        """The domain (n_images,) that a small classifier, trained beside the model, finds in each image."""
        check_is_fitted(self)
        return np.array(self.domains_)[self.model_.found(self._pixels(X)).cpu().numpy()]

    def translate(
        self,
        X: DataLike,
        y: LabelsLike = None,
        *,
        to: LabelsLike = None,
        style_of: DataLike | tuple[DataLike, LabelsLike] | None = None,
    ) -> Images:
        """The same images as they would be in another domain, or in the style of other images.

        Parameters
        ----------
        X, y : images and their domains, as in ``fit``
            Without ``y``, the domains are those of ``predict_domain``.
        to : label, or labels (n_images,)
            The domain to move to, drawn in its middle style.
        style_of : images, one or as many as ``X``
            Images whose style and domain are taken instead; a pair (images, labels) states their domains.
        """
        check_is_fitted(self)
        if (to is None) == (style_of is None):
            raise SettingError("Pass either to=, the domain to move to, or style_of=, images whose style is taken.")
        x, groups, _ = self._source(X, y)
        if style_of is None:
            target = self._places(to, len(x))
            noise = self._middle(target)
        else:
            given: Any = style_of if isinstance(style_of, tuple) and len(style_of) == 2 else (style_of, None)
            other, target, _ = self._source(*given)
            noise = self.model_.noise(other)
            if len(other) not in (1, len(x)):
                raise DataError(f"style_of must be one image or {len(x)}, as many as are translated; got {len(other)}.")
            noise, target = noise.expand(len(x), -1), target.expand(len(x))
        return _as_images(self.model_.translate(x, groups, noise, target))

    def decode(self, content: ArrayLike, domain: LabelsLike, style: ArrayLike | None = None) -> Images:
        """Images of content as ``transform`` gives it, in a domain (or one for each row).

        ``style`` ε (n_images, n_style), as ``style`` gives it; default: 0, the middle of the domain.
        """
        check_is_fitted(self)
        z = self._latents(content, self.n_latents_, "content")
        groups = self._places(domain, len(z))
        own = self._middle(groups) if style is None else self._latents(style, int(self.n_style), "style")
        if len(own) != len(z):
            raise DataError(f"There are {len(z)} rows of content and {len(own)} of style. Pass as many of both.")
        return self._drawn(z, own, groups)

    def sample(self, n_samples: int = 1, domain: LabelsLike = None, random_state: RandomLike = 0) -> Images:
        """Draw images of one domain; the same ``random_state`` gives the same content and ε in every domain.

        Content comes from a mixture of Gaussians fitted to that of the training images.
        """
        check_is_fitted(self)
        whole(1).need("n_samples", n_samples)
        if domain is None:
            raise DataError(f"Say which domain to sample: one of {list(self.domains_)}.")
        source = torch.Generator().manual_seed(random_seed(random_state))
        groups = self._places(domain, n_samples)
        content = self.model_.draw(n_samples, source)
        noise = torch.randn(n_samples, int(self.n_style), generator=source).to(content)
        return self._drawn(content, noise, groups)

    def traverse(
        self, X: DataLike, y: LabelsLike = None, *, latent: int, values: Sequence[float] = (-2, -1, 0, 1, 2)
    ) -> Images:
        """Images (n_values, n_images, …) of ``X`` with one style latent ε set to each of ``values``, others 0."""
        check_is_fitted(self)
        whole(0, int(self.n_style) - 1).need("latent", latent)
        NUMBERS.need("values", values)
        noise, decode = self._traversed(X, y)
        column = torch.arange(noise.shape[1], device=noise.device) == latent
        return np.stack([decode(torch.where(column, float(value), noise)) for value in values])

    def _traversed(self, X: DataLike, y: LabelsLike) -> tuple[Tensor, Callable[[Tensor], Images]]:
        x, groups, _ = self._source(X, y)
        content = self.model_.content(x, groups)
        return self._middle(groups), lambda noise: self._drawn(content, noise, groups)

    def report(
        self,
        path: str | Path,
        X: DataLike | None = None,
        y: LabelsLike = None,
        *,
        judged: pd.DataFrame | None = None,
    ) -> Path:
        """Write the page of this fit, one self-contained HTML file, and return its path.

        Parameters
        ----------
        path : file to write
        X, y : images, best held-out ones, and their domains, optional
            Some of each domain are shown translated.
        judged : DataFrame, optional
            What ``judge_translations`` returned, or several such tables under each other with a column ``method``.
        """
        check_is_fitted(self)
        path = file_to_write(path)
        shown: tuple[ImageTable, NDArray[np.int64]] | None = None
        if X is not None:
            _, groups, table = self._source(X, y)
            shown = (table, groups.cpu().numpy())
        return write_translator_report(self, path, shown, judged)

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> NDArray[np.object_]:
        """Names of the content latents: c0, c1, …"""
        check_is_fitted(self)
        return np.array([f"c{i}" for i in range(self.n_latents_)], dtype=object)

    def _check_words(self) -> None:
        need_all(self, self.checks)

    def _config(self, shape: Sequence[int], n_domains: int, seed: int) -> TranslatorConfig:
        height, width, colours = (int(side) for side in shape)
        steps = int(self.max_steps)
        return TranslatorConfig(
            shape=(height, width, colours),
            n_domains=n_domains,
            n_content=int(self.n_content),
            n_style=int(self.n_style),
            channels=int(self.channels),
            flow=None if self.flow is False else str(self.flow),
            mask_weight=float(self.mask_weight),
            sparsity=float(self.sparsity),
            orthogonality=float(self.orthogonality),
            back_weight=float(self.back_translation),
            pair_weight=float(self.pairing),
            steps=steps,
            sharpening=round(_SHARPENED * steps) if self.sharpen_steps is None else int(self.sharpen_steps),
            seed=seed,
        )

    def _check_continued(self, before: TranslatorFit, config: TranslatorConfig, domains: DomainSchema) -> None:
        """Refuse images and settings with which the fitted model cannot go on."""
        model, names = before.model, before.domains.domains
        if (model.config.shape, names) != (config.shape, domains.domains):
            raise SettingError(
                f"warm_start=True continues the fitted model, whose images have the shape {model.config.shape} and the "
                f"domains {list(names)}; these have {config.shape} and {list(domains.domains)}. Pass images like those "
                "of the fit, or set warm_start=False."
            )
        changed = [name for name in _SIZES if getattr(model.config, name) != getattr(config, name)]
        if changed:
            raise SettingError(
                f"warm_start=True continues the fitted model, but {' and '.join(changed)} changed since. Set it as it "
                "was, or set warm_start=False."
            )
        if model.networks.linear is None:
            raise SettingError(
                "warm_start=True cannot continue this model: an earlier version of unmix saved it. Set "
                "warm_start=False to fit anew."
            )

    def _untrained(self, features: Any, domains: DomainSchema, fitted: Mapping[str, Any]) -> FittedTranslator:
        config = self._config(features.shape, len(domains.domains), fitted["seed"])
        sizes = {name: tuple(own) for name, own in fitted["sizes"].items()}
        # Folders from before the linear path name none.
        words = {"linear": sizes.get("linear", (0,))[0], "colours": bool(sizes.get("colours", (0,))[0])}
        words["keep_rest"] = bool(sizes.get("keep_rest", sizes.get("colours", (0,)))[0])
        return FittedTranslator(replace(config, **words), sizes)

    def _source(self, X: DataLike, y: LabelsLike) -> tuple[Tensor, Tensor, ImageTable]:
        """Pixels and places of the domains, found where none are given, and the images."""
        check_is_fitted(self)
        table, y = as_images(X, y)
        x = self._pixels(table)
        groups = self.model_.found(x) if y is None else self._places(y, len(x))
        return x, groups, table

    def _pixels(self, X: DataLike) -> Tensor:
        images = as_images(X)[0].images
        if images.shape[1:] != self.image_shape_:
            raise SchemaError(
                f"The model was fitted on images of shape {self.image_shape_}; got {images.shape[1:]}. "
                "Read them with the same size= and mode=."
            )
        return torch.from_numpy(np.require(images, requirements=["C", "W"])).to(self.model_.means.device)

    def _places(self, labels: LabelsLike, n_rows: int) -> Tensor:
        schema = self.domain_schema_
        codes = schema.encode(schema.rows_of(labels, n_rows), n_rows).codes[:, 0]
        return torch.from_numpy(codes).to(self.model_.means.device)

    def _middle(self, groups: Tensor) -> Tensor:
        return torch.zeros(len(groups), int(self.n_style), device=groups.device)

    def _latents(self, values: ArrayLike, width: int, name: str) -> Tensor:
        array = np.asarray(values, dtype=np.float32)
        if array.ndim != 2 or array.shape[1] != width or not np.isfinite(array).all():
            raise DataError(f"{name} must be finite numbers of shape (n_images, {width}); got shape {array.shape}.")
        return torch.from_numpy(array).to(self.model_.means.device)

    def _drawn(self, content: Tensor, noise: Tensor, groups: Tensor) -> Images:
        return _as_images(self.model_.decode(content, noise, groups))


def _as_images(x: Tensor) -> Images:
    made: Images = as_pixels(x).cpu().numpy()
    return made


def _learn_to_read(reader: FeatureNetwork, images: Images, codes: NDArray[np.int64], steps: int, seed: int) -> None:
    """Train what finds the domain of an image whose label is not given."""
    fit_classifier(
        reader,
        images,
        codes,
        max_epochs=max(1, round(steps * _READER_BATCH / len(images))),
        batch_size=_READER_BATCH,
        learning_rate=ImageClassifier.learning_rate,
        seed=seed,
    )
    reader.eval().requires_grad_(False)


def _check_sides(images: Images) -> None:
    height, width = images.shape[1:3]
    if min(height, width) < LEAST_SIDE or max(height, width) > MOST_SIDE:
        raise DataError(
            f"Images must have sides of {LEAST_SIDE} to {MOST_SIDE} pixels; got {height} by {width}. Scale them: "
            "unmix.read_images(..., size=64)."
        )
