"""Data with a known answer, and real data that come with the package."""

from unmix.datasets.builtin import RealData, load_sachs
from unmix.datasets.injectivity import Injectivity, injectivity
from unmix.datasets.mixings import DenseMixing, RedundantMixing, SparseMixing
from unmix.datasets.synthetic import MixingData, make_sparse_mixing

__all__ = [
    "DenseMixing",
    "Injectivity",
    "MixingData",
    "RealData",
    "RedundantMixing",
    "SparseMixing",
    "injectivity",
    "load_sachs",
    "make_sparse_mixing",
]
