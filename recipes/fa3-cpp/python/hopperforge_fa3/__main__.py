"""Prints where things lie, for build scripts: python -m hopperforge_fa3 --cmake-dir."""

from __future__ import annotations

import argparse

from . import cmake_dir, executable, get_include, get_library_dir, pkgconfig_dir

_PLACES = {
    "--include-dir": get_include,
    "--library-dir": get_library_dir,
    "--cmake-dir": cmake_dir,
    "--pkgconfig-dir": pkgconfig_dir,
    "--executable": executable,
}


def main() -> None:
    """Print the place that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m hopperforge_fa3", description=__doc__)
    asked = parser.add_mutually_exclusive_group(required=True)
    for option, place in _PLACES.items():
        what = (place.__doc__ or "").partition(";")[0].rstrip(".")
        asked.add_argument(option, action="store_const", const=place, dest="place", help=what)
    print(parser.parse_args().place())  # noqa: T201 - the program's answer


if __name__ == "__main__":
    main()
