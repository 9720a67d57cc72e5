"""How well estimated latents match true ones. Takes arrays, imports no torch, serves any model."""

from unmix.metrics.recovery import Score, mcc

__all__ = ["Score", "mcc"]
