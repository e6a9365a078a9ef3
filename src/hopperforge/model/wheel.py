"""A wheel on its way to the wheelhouse: one immutable type for each stage it has passed."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import ConfigDict, with_config

from hopperforge.model.versions import PythonVersion, TorchVersion

_IMPORT = re.compile(r"import with torch (\d+\.\d+) in python (\d+\.\d+)(?: .*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawWheel:
    """A wheel as the front made it, with the tag of this machine (linux_x86_64)."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairedWheel:
    """A wheel with normalised bytes and the platform tags auditwheel gave it, in the file name's order."""

    path: Path
    platform_tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tarball:
    """The folder of a package as a `.tar.zst`, for those who have no pip; its size in bytes."""

    path: Path
    sha256: str
    size: int


@with_config(ConfigDict(extra="forbid", strict=True))  # it is read back from records
@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What one gate found: `detail` says what was looked at, or every reason to refuse."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportProof:
    """What an import gate proves, which is also the gate's name: this torch in this Python."""

    torch: TorchVersion
    python: PythonVersion

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read the name of a gate; None if it is another gate's. What follows the Python says where it was run."""
        match = _IMPORT.fullmatch(name)
        return match and cls(torch=TorchVersion.parse(match[1]), python=PythonVersion.parse(match[2]))

    def __str__(self) -> str:
        return f"import with torch {self.torch} in python {self.python}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedWheel:
    """A wheel that passed every gate; sizes in bytes, `library_size` that of the one shared library inside.

    `tarball` is the same package without pip, None where there is none.
    """

    path: Path
    platform_tags: tuple[str, ...]
    sha256: str
    size: int
    library_size: int
    gates: tuple[GateResult, ...]
    tarball: Tarball | None = None
