"""cibuildwheel's test of a wheel in the image it was built in, where there is no torch.

The library must be content with the image's own system, the libraries of the framework apart; and the package must
say in one sentence that torch is missing. Python 3.9, standard library. Arguments: package, then those libraries.
"""

import importlib
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path


def main(package: str, *framework: str) -> int:
    """Print what is wrong, if anything; the status is how many things are."""
    problems = [*_system_problems(_library(package), framework), *_sentence_problems(package)]
    for problem in problems:
        print(f"{package}: {problem}")  # noqa: T201
    return len(problems)


def _library(package: str) -> Path:
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec is not None else None
    (library,) = [path for place in places or () for path in Path(place).glob("*.so")]
    return library


def _system_problems(library: Path, framework: "tuple[str, ...]") -> "list[str]":
    """List what the dynamic loader misses: libraries, and versions of symbols in those it found."""
    said = subprocess.run(["/usr/bin/ldd", str(library)], capture_output=True, text=True, check=False)  # noqa: S603
    lines = [*said.stdout.splitlines(), *said.stderr.splitlines()]
    missing = {line.split()[0] for line in lines if line.endswith("not found") and "=>" in line}
    versions = [line for line in lines if re.search(r"version `.*' not found", line)]
    return [f"{name} is missing" for name in sorted(missing - set(framework))] + versions


def _sentence_problems(package: str) -> "list[str]":
    try:
        importlib.import_module(package)
    except ImportError as error:
        sentence = str(error)
        return [] if "found no torch" in sentence else [f"without torch it says: {sentence}"]
    return ["it imports without torch"]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
