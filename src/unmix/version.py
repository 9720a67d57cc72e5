"""The installed version."""

import platform
from importlib.metadata import version

__version__ = version("unmix")


def versions() -> dict[str, str]:
    """Of unmix, Python and what computes, as folders and reports name them."""
    packages = ("torch", "numpy", "scikit-learn", "pandas")
    return {"unmix": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}
