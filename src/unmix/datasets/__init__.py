"""Data with a known answer, and real data that come with the package."""

from unmix.datasets.builtin import RealData, load_sachs
from unmix.datasets.images import ImageData
from unmix.datasets.published import read_dsprites, read_shapes3d
from unmix.datasets.sprites import draw_sprites, make_sprites
from unmix.datasets.synthetic import MixingData, SparseMixing, make_sparse_mixing

__all__ = [
    "ImageData",
    "MixingData",
    "RealData",
    "SparseMixing",
    "draw_sprites",
    "load_sachs",
    "make_sparse_mixing",
    "make_sprites",
    "read_dsprites",
    "read_shapes3d",
]
