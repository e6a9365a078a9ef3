"""CUDA toolkits and host compilers: what the matrix says of them and what was found on the machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from hopperforge.model.keys import content_key
from hopperforge.model.versions import ToolkitVersion

OLDEST_ARCHITECTURE: Final = "sm_50"
"""What every toolkit compiles for that says nothing else."""


class ToolkitOrigin(StrEnum):
    """Where a toolkit comes from.

    Installed on the machine; unpacked from wheels and Debian packages; unpacked from NVIDIA's redistributable
    archives; or standing in a container image.
    """

    SYSTEM = "system"
    REGISTRY = "registry"
    REDIST = "redist"
    IMAGE = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedFile:
    """One file of the package index, known by its sha256."""

    project: str
    filename: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianPackage:
    """A package in the pool of Debian's mirrors, known by its sha256.

    `pool` is its path on a mirror; `members` maps each file that is taken out of it to its place in the toolkit.
    """

    pool: str
    sha256: str
    members: Mapping[str, str]

    @property
    def filename(self) -> str:
        """The file's name without its folder."""
        return self.pool.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Redist:
    """NVIDIA's redistributable archives of one release.

    `manifest` is the address of the JSON file that names every archive with its sha256, and `sha256` that file's own;
    the archives' addresses are relative to it. `components` are those a toolkit is put together from.
    """

    manifest: str
    sha256: str
    components: tuple[str, ...]

    @property
    def name(self) -> str:
        """The manifest's file name."""
        return self.manifest.rpartition("/")[2]

    @property
    def base(self) -> str:
        """The address of the folder the manifest stands in."""
        return self.manifest.rpartition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolkitFact:
    """A toolkit as matrix.yaml declares it.

    `release` is nvcc's own number (13.0.88); `driver` the oldest NVIDIA driver that runs its code;
    `gcc_max` the newest gcc major nvcc accepts; `compress` the words by which nvcc compresses machine code so that
    `driver` can read it, empty for code as it is. `wheels` and `debian` are the origin registry, `redist` and `image`
    those of their names, empty or None where there is none. `ptxas` is the wheel whose assembler takes the place of
    the toolkit's own, None where the version names none. `oldest` is the least compute capability that it compiles for
    (75 of sm_75).
    """

    version: ToolkitVersion
    release: str
    driver: str
    gcc_max: int
    origins: tuple[ToolkitOrigin, ...]
    wheels: tuple[PinnedFile, ...]
    debian: tuple[DebianPackage, ...] = ()
    redist: Redist | None = None
    image: str | None = None
    ptxas: PinnedFile | None = None
    compress: tuple[str, ...] = ()
    oldest: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolkit:
    """A toolkit present on this machine; `fingerprint` maps each part that changes code to its sha256."""

    version: ToolkitVersion
    release: str
    origin: ToolkitOrigin
    root: Path
    fingerprint: Mapping[str, str]

    @property
    def key(self) -> str:
        """sha256 over the fingerprint: equal for the same compiler wherever it is installed."""
        return content_key("toolkit", dict(self.fingerprint))

    @property
    def nvcc(self) -> Path:
        """The compiler driver."""
        return self.root / "bin" / "nvcc"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCompiler:
    """The C++ compiler nvcc and the front use; `fingerprint` maps its parts (driver, cc1plus, as, ld) to sha256."""

    path: Path
    version: str
    fingerprint: Mapping[str, str]

    @property
    def key(self) -> str:
        """sha256 over the fingerprint."""
        return content_key("host-compiler", dict(self.fingerprint))
