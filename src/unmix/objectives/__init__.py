"""Terms of an objective, as functions of tensors; no network is seen here."""
