"""The pinned upstream source: which commit, which trees of it, and where it can be fetched."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hopperforge.model.toolkit import PinnedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class GitOrigin:
    """A repository that holds the commit; submodules are fetched for the trees that need them."""

    url: str

    def __str__(self) -> str:
        return f"git {self.url}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SdistOrigin:
    """A source distribution on the package index that carries the source in `folder`."""

    project: str
    filename: str
    sha256: str
    folder: str

    def __str__(self) -> str:
        return f"sdist {self.filename}"


Origin = GitOrigin | SdistOrigin


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """A file that must be handed on with what is built: its path in upstream's repository and its sha256.

    `archive` is a source distribution that has it too, for not every origin of the source does; None where all do.
    """

    path: str
    sha256: str
    archive: PinnedFile | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamPin:
    """A commit and the git tree hash of every folder we use, all files taken as mode 644.

    `trees` maps a folder ("hopper", "csrc/cutlass/include") to its hash; `epoch` is the SOURCE_DATE_EPOCH
    of everything built from the pin, in seconds; `licences` go into every package. The pin of a recipe that brings its
    kernels itself has no commit, no trees and no origins.
    """

    name: str
    commit: str
    epoch: int
    trees: Mapping[str, str]
    origins: tuple[Origin, ...]
    licences: tuple[Licence, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSource:
    """Upstream's files in a folder, checked against the pin's tree hashes."""

    pin: UpstreamPin
    root: Path
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchedSource:
    """Upstream's files with the patch series applied.

    `patches` maps each patch file name to its sha256; `kernel_tree` is the hash over the files a kernel
    can include (CUDA sources and headers), `front_tree` over those the binding can (C++ API, Python, setup.py).
    """

    pin: UpstreamPin
    root: Path
    origin: str
    patches: Mapping[str, str]
    kernel_tree: str
    front_tree: str
