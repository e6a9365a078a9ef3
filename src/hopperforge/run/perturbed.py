"""Starts hopperforge under another umask and on fewer cores: `python -m hopperforge.run.perturbed 077 1 build ...`.

Both belong to a process and are inherited by all it starts, so they are set in a process of its own, which then
becomes hopperforge. It is how a rebuild is shown not to depend on them.
"""

import os
import sys
from collections.abc import Sequence


def become(words: Sequence[str]) -> None:
    """Set umask (octal) and the number of cores (0: all), then become `python -m hopperforge` with the other words."""
    umask, cores, *rest = words
    os.umask(int(umask, 8))
    if int(cores):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    os.execv(sys.executable, [sys.executable, "-m", "hopperforge", *rest])  # noqa: S606 - it is us again


if __name__ == "__main__":
    become(sys.argv[1:])
