"""Distributions that a model is made of: p(z | u) of the latents, and p(x | z) of the features given a decoder."""
