"""Models: networks and the terms of their objective."""
