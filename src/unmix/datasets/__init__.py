"""Data with a known answer, and real data that come with the package."""

from unmix.datasets.builtin import RealData, load_digits_two_colours, load_emoji, load_sachs
from unmix.datasets.images import ImageData
from unmix.datasets.injectivity import Injectivity, injectivity
from unmix.datasets.mixings import DenseMixing, RedundantMixing, SparseMixing
from unmix.datasets.published import read_dsprites, read_shapes3d
from unmix.datasets.sprites import draw_sprites, make_sprites
from unmix.datasets.synthetic import MixingData, make_sparse_mixing
from unmix.datasets.typefaces import make_typefaces

__all__ = [
    "DenseMixing",
    "ImageData",
    "Injectivity",
    "MixingData",
    "RealData",
    "RedundantMixing",
    "SparseMixing",
    "draw_sprites",
    "injectivity",
    "load_digits_two_colours",
    "load_emoji",
    "load_sachs",
    "make_sparse_mixing",
    "make_sprites",
    "make_typefaces",
    "read_dsprites",
    "read_shapes3d",
]
