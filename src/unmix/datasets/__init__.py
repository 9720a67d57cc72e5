"""Data with a known answer, and real data that come with the package."""

from unmix.datasets.builtin import RealData, load_sachs
from unmix.datasets.synthetic import MixingData, SparseMixing, make_sparse_mixing

__all__ = ["MixingData", "RealData", "SparseMixing", "load_sachs", "make_sparse_mixing"]
