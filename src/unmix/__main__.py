"""``python -m unmix``: the command line."""

from unmix.cli import main

main()
