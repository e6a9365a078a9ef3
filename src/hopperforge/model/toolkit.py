"""CUDA toolkits and host compilers: what the matrix says of them and what was found on the machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hopperforge.model.keys import content_key
from hopperforge.model.versions import CudaVersion


class ToolkitOrigin(StrEnum):
    """Where a toolkit comes from: installed on the machine, or unpacked from package-index wheels."""

    SYSTEM = "system"
    REGISTRY = "registry"


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedFile:
    """One file of the package index, known by its sha256."""

    project: str
    filename: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolkitFact:
    """A toolkit as matrix.yaml declares it.

    `release` is nvcc's own number (13.0.88); `driver` the oldest NVIDIA driver that runs its code;
    `gcc_max` the newest gcc major nvcc accepts; `wheels` the registry origin, empty where there is none.
    """

    version: CudaVersion
    release: str
    driver: str
    gcc_max: int
    origins: tuple[ToolkitOrigin, ...]
    wheels: tuple[PinnedFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolkit:
    """A toolkit present on this machine; `fingerprint` maps each part that changes code to its sha256."""

    version: CudaVersion
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
