"""Networks with a leading start axis: encoder, decoders with exact Jacobians, domain-encoding priors."""
