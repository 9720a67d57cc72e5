"""Tables and domains in, checked; rows out, as tensors."""
