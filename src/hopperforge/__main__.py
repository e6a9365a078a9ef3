"""`python -m hopperforge` is `hopperforge`."""

from hopperforge.cli import main

main()
