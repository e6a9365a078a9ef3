"""`python -m hopperforge` is `hopperforge`."""

from hopperforge.cli import main

if __name__ == "__main__":  # a process that multiprocessing starts imports this module under another name
    main()
