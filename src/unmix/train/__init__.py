"""The training loop, checkpoints and devices."""
