"""A finished fit as one value: what it holds, its folder, the choice of its start, its audit."""
