"""The texts of a bundle: what it holds, locked by hashes, and how to install it. Pure functions."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

import tomli_w
from packaging.pylock import Package, PackageWheel, Pylock
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from hopperforge.index.constraints import constraint_lines
from hopperforge.index.whole import DOCTOR_NAME
from hopperforge.model.versions import CudaVersion, PythonVersion, TorchVersion

REQUIREMENTS_NAME: Final = "requirements.txt"
PYLOCK_NAME: Final = "pylock.toml"
INSTALL_NAME: Final = "install.sh"
README_NAME: Final = "README.txt"
SUMS_NAME: Final = "SHA256SUMS"

_CREATED_BY: Final = "hopperforge"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleCell:
    """What a bundle is for; `python` is None where it holds nothing that depends on it."""

    project: str
    cuda: CudaVersion
    torch: TorchVersion
    profile: str
    python: PythonVersion | None

    @property
    def name(self) -> str:
        """The name of the bundle's folder: fa3-fwd-cu128-torch2.9."""
        python = "" if self.python is None else f"-py{self.python}"
        return f"{self.project}-{self.cuda.label}-torch{self.torch}{python}"

    def __str__(self) -> str:
        python = "any Python from 3.9 on" if self.python is None else f"Python {self.python}"
        return f"{self.project}, profile {self.profile}, for torch {self.torch} of CUDA {self.cuda} and {python}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Locked:
    """A wheel of a bundle: `path` is from the bundle's root, `size` in bytes."""

    project: str
    version: str
    path: str
    sha256: str
    size: int

    @property
    def folder(self) -> str:
        """Where it lies."""
        return str(PurePosixPath(self.path).parent)


def requirements(locked: Iterable[Locked]) -> bytes:
    """Write requirements.txt, which is a constraints file as well."""
    return constraint_lines((one.project, one.version, one.sha256) for one in locked).encode()


def pylock(locked: Iterable[Locked], requires_python: str | None) -> bytes:
    """Write pylock.toml (PEP 751): every wheel by its path beside the file, its size and its hash."""
    groups: dict[tuple[str, str], list[Locked]] = {}
    for one in sorted(locked):
        groups.setdefault((one.project, one.version), []).append(one)
    packages = [
        Package(
            name=canonicalize_name(project),
            version=Version(version),
            wheels=[PackageWheel(path=one.path, size=one.size, hashes={"sha256": one.sha256}) for one in files],
        )
        for (project, version), files in groups.items()
    ]
    python = None if requires_python is None else SpecifierSet(requires_python)
    lock = Pylock(lock_version=Version("1.0"), created_by=_CREATED_BY, packages=packages, requires_python=python)
    lock.validate()
    return tomli_w.dumps(lock.to_dict()).encode()


def install_script(locked: Iterable[Locked], *, signed: bool = False) -> bytes:
    """Write install.sh: it checks every file, then installs by pip, or by uv where that Python has no pip.

    Where KEY names a public key, every wheel of ours must be signed by it; a `signed` bundle installs in no other way.
    """
    places = "".join(f' --find-links "$here/{folder}"' for folder in sorted({one.folder for one in locked}))
    asked = f'--no-deps --no-index --require-hashes -r "$here/{REQUIREMENTS_NAME}"{places} "$@"'
    lacking = "this bundle is signed: name a public key that did not come with it, KEY=/path/to/NAME.public.pem"
    demand = f': "${{KEY:?{lacking}}}"\n' if signed else ""
    return f"""\
#!/bin/sh
# Installs this bundle without network: [KEY=public.pem] [PYTHON=/path/to/python3] ./install.sh [options of pip or uv]
set -eu
{demand}here=$(cd -- "$(dirname -- "$0")" && pwd)
(cd -- "$here" && sha256sum --check --quiet {SUMS_NAME})
python=${{PYTHON:-python3}}
if [ -n "${{KEY:-}}" ]; then
    "$python" "$here/{DOCTOR_NAME}" --index "$here" --require-signature "$KEY" --signatures-only
fi
if "$python" -m pip --version >/dev/null 2>&1; then
    exec "$python" -m pip install {asked}
fi
exec uv pip install --offline --python "$python" {asked}
""".encode()


def readme(cell: BundleCell, locked: Sequence[Locked], *, with_torch: bool, signed: bool = False) -> bytes:
    """Write README.txt: what is in the bundle and the exact commands."""
    script = "KEY=/path/to/NAME.public.pem ./install.sh" if signed else "./install.sh                              "
    links = shlex.join(word for folder in sorted({one.folder for one in locked}) for word in ("--find-links", folder))
    held = f"--no-deps --no-index {links} --require-hashes -r {REQUIREMENTS_NAME}"
    torch = "Torch and all it requires are here too." if with_torch else f"Torch {cell.torch} must be there already."
    wheels = "".join(f"  {one.path}  {one.size} bytes\n" for one in locked)
    return f"""\
{cell}.
{torch} Nothing here reaches for a network.

Check and install, in this folder:

  {script}   # by pip, or by uv; PYTHON=/path/to/python3 chooses the Python
  sha256sum --check --quiet {SUMS_NAME}        # the same by hand, with one of:
  python3 -m pip install {held}
  uv pip install --offline {held}
  uv pip install --offline --no-deps -r {PYLOCK_NAME}
  python3 -m pip install --no-index --no-deps -r {PYLOCK_NAME}   # pip 26.1 or newer

What does this node need, and is it installed right?

  python3 doctor.py --index .

This folder is an index as well: serve it, or name its pages. all/simple/ lists our wheels.

{wheels}""".encode()


def sums(hashes: Mapping[str, str]) -> bytes:
    """Write SHA256SUMS for sha256sum --check, from sha256 by path."""
    return "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(hashes.items())).encode()
