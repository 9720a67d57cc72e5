r"""Real data that lie in the package, each with its source, licence and citation in ``files/``.

Two-colour digits are made from those of scikit-learn: with :math:`a \in [0, 1]` the ink of a pixel, f and b the two
colours of the image's domain, the pixel is :math:`a f + (1 - a) b`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from unmix.datasets.images import ImageData, draw_domains
from unmix.errors import SettingError
from unmix.validation import RandomLike, random_seed, whole


@dataclass(frozen=True)
class RealData:
    """A real data set; the latents behind it are not known (``z`` is None).

    Attributes
    ----------
    x : float array (n_samples, n_features)
    domains : str array (n_samples,)
    feature_names : list of str
    targets : dict of domain → features that the intervention acts on (as its authors describe it), where there is one
    description, citation : str
    """

    x: NDArray[np.float64]
    domains: NDArray[np.str_]
    feature_names: list[str]
    targets: dict[str, tuple[str, ...]]
    description: str
    citation: str
    z: None = None


_SACHS_TARGETS = {
    "cd3cd28_aktinhib": ("Akt",),
    "cd3cd28_g0076": ("PKC",),
    "cd3cd28_psitect": ("PIP2",),
    "cd3cd28_u0126": ("Mek",),
    "cd3cd28_ly": ("Akt",),
    "pma": ("PKC",),
    "b2camp": ("PKA",),
}


def load_sachs(*, log: bool = True) -> RealData:
    """Protein signalling in single human T cells under nine conditions (Sachs et al. 2005).

    7,466 cells × 11 phosphorylated proteins and phospholipids, flow cytometry. ``domains`` are the nine
    stimulation or inhibition conditions; ``targets`` names the molecule each intervention acts on (LY294002 inhibits
    PI3K, which is not measured; Akt lies below it).

    Parameters
    ----------
    log : bool, default True
        ``log(1 + x)`` of the intensities, as is usual for flow cytometry.

    Examples
    --------
    >>> data = load_sachs()
    >>> data.x.shape, len(set(data.domains))
    ((7466, 11), 9)
    """
    with files("unmix.datasets").joinpath("files/sachs.npz").open("rb") as file, np.load(file) as content:
        x = content["x"].astype(float)
        names = [str(name) for name in content["feature_names"]]
        domains = content["domain_names"][content["domain"]]
    return RealData(
        x=np.log1p(x) if log else x,
        domains=domains,
        feature_names=names,
        targets=dict(_SACHS_TARGETS),
        description="Sachs et al. 2005: 11 phosphoproteins and phospholipids in 7,466 T cells, nine conditions",
        citation=(
            "K. Sachs, O. Perez, D. Pe'er, D. A. Lauffenburger, G. P. Nolan: Causal protein-signaling networks derived "
            "from multiparameter single-cell data. Science 308 (2005) 523-529."
        ),
    )


def load_emoji() -> ImageData:
    """The same 405 people drawn by three vendors, 1,215 emoji of 32 × 32 × 3 pixels on white.

    ``domains`` are the drawing styles, "noto", "twemoji" and "fluent". ``factors`` holds role (27), gender (3) and
    skin tone (5), every combination once in each domain, in the same order: row i, i + 405 and i + 810 are one person.
    The pairing is for scoring translations, not for training. In ten cases a vendor draws two of them the same.

    Drawings: Google (Apache-2.0), Twitter and contributors (CC BY 4.0), Microsoft (MIT); ``files/emoji.md`` has the
    attributions.

    Examples
    --------
    >>> data = load_emoji()
    >>> data.images.shape, sorted(set(data.domains.tolist()))
    ((1215, 32, 32, 3), ['fluent', 'noto', 'twemoji'])
    >>> data.factors.iloc[0].to_dict()
    {'role': 'artist', 'gender': 'person', 'tone': 'light'}
    """
    with files("unmix.datasets").joinpath("files/emoji.npz").open("rb") as file, np.load(file) as content:
        images = np.moveaxis(content["images"], 3, 1)
        codes = content["factors"].astype(int)
        levels = {"role": content["roles"], "gender": content["genders"], "tone": content["tones"]}
        domains = content["domain_names"][content["domain"]]
    factors = pd.DataFrame(
        {
            name: pd.Categorical.from_codes(codes[:, column], dtype=pd.CategoricalDtype(names.tolist()))
            for column, (name, names) in enumerate(levels.items())
        }
    )
    shape = (len(codes), *images.shape[2:])
    return ImageData(
        np.ascontiguousarray(images).reshape(shape), domains, factors, dict.fromkeys(levels, "discrete"), ()
    )


TWO_COLOURS = {
    "white on red": ((255, 255, 255), (190, 30, 45)),
    "yellow on blue": ((250, 220, 40), (25, 50, 150)),
    "black on green": ((10, 10, 10), (70, 180, 90)),
    "cyan on purple": ((60, 220, 230), (90, 20, 110)),
}
"""Domains of ``load_digits_two_colours``: colour of the ink and of the ground."""


def load_digits_two_colours(size: int = 16, *, random_state: RandomLike = 0) -> ImageData:
    """Handwritten digits in one of four pairs of colours, which is the domain: 1,797 images, size × size × 3.

    Made from scikit-learn's ``load_digits`` (8 × 8 pixels, scaled up smoothly). Every image appears once, in one of
    the pairs of ``TWO_COLOURS``, drawn at random; the pairs are equally frequent. ``factors["digit"]`` is the digit.

    Parameters
    ----------
    size : int, default 16
        Side in pixels, at least 8.
    random_state : int, RandomState or None, default 0
        Which image gets which pair.

    Raises
    ------
    SettingError
        ``size`` is no whole number or below 8, or ``random_state`` is none.

    Examples
    --------
    >>> data = load_digits_two_colours()
    >>> data.images.shape, sorted(set(data.domains.tolist()))[:2]
    ((1797, 16, 16, 3), ['black on green', 'cyan on purple'])
    """
    whole(0).need("size", size)
    if size < 8:
        raise SettingError(f"size must be at least 8, that of the original digits; got {size}.")
    digits = load_digits()
    ink = np.stack(
        [
            np.asarray(Image.fromarray(image.astype(np.float32) / 16).resize((size, size), Image.Resampling.BILINEAR))
            for image in digits.images
        ]
    )[..., None]
    names = np.array([*TWO_COLOURS])
    domain = draw_domains(np.random.default_rng(random_seed(random_state)), len(ink), len(names))
    colours = np.array([*TWO_COLOURS.values()], dtype=float)[domain][:, :, None, None, :]
    images = np.rint(ink * colours[:, 0] + (1 - ink) * colours[:, 1]).astype(np.uint8)
    factors = pd.DataFrame({"digit": pd.Categorical(digits.target)})
    return ImageData(images, names[domain], factors, {"digit": "discrete"}, ())
