"""What is known of a machine, of the wheels of an index, and of how they go together: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hopperforge.node.versions import Numbers, numbers

INSTALLED, FITS, WRONG, NOTHING, UNREADABLE = "installed", "fits", "wrong", "nothing fits", "index unreadable"
EXIT_CODES = {INSTALLED: 0, FITS: 20, WRONG: 21, NOTHING: 22, UNREADABLE: 23}

DEFAULT_PROJECT = "fa3-fwd"


@dataclass(frozen=True)
class Gpu:
    """A GPU; `mig` says that it is split into slices."""

    name: str
    capability: Numbers | None
    mig: bool = False


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver: its version and the CUDA it serves, as far as known; `trouble` is what keeps it from work."""

    version: str | None
    cuda: Numbers | None
    trouble: str | None = None


@dataclass(frozen=True)
class Torch:
    """The torch of this Python; `cuda` None where it is built without; `trouble` is why its import fails."""

    version: str
    cuda: Numbers | None
    cxx11_abi: bool | None
    trouble: str | None = None


@dataclass(frozen=True)
class Package:
    """An installed package of the FlashAttention family, and what is wrong with its files."""

    project: str
    version: str
    place: str
    troubles: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Node:
    """Everything that was found; `libc` is a name and a version, ("musl", ()) where that is not glibc."""

    python: Numbers
    implementation: str
    free_threaded: bool
    executable: str
    system: str
    machine: str
    libc: tuple[str, Numbers]
    gpus: tuple[Gpu, ...]
    driver: Driver | None
    torch: Torch | None
    packages: tuple[Package, ...] = ()


@dataclass(frozen=True)
class Entry:
    """What the catalog says of one wheel, as far as choosing needs it; see hopperforge.index.catalog."""

    project: str
    version: str
    file: str
    sha256: str
    requires_python: str | None
    platform_tags: tuple[str, ...]
    profile: str
    default: bool
    switches: tuple[str, ...]
    architectures: tuple[str, ...]
    toolkit: str
    driver: str
    abi: str
    torch: str | None
    cells: tuple[Mapping[str, Any], ...]
    gpu: Mapping[str, Any] | None
    yanked: str | None
    unproven: bool

    @property
    def path(self) -> str:
        """Where the file is, from the root of the index."""
        return f"pool/{self.project}/{self.file}"

    @property
    def cuda(self) -> Numbers:
        """The CUDA of the toolkit, whatever its assembler; empty where nothing was compiled."""
        return numbers(self.toolkit) if self.toolkit else ()

    @property
    def torch_line(self) -> str:
        """The one torch line a per-torch wheel is for."""
        return str(self.cells[0]["torch"])

    @property
    def free(self) -> bool:
        """Whether it binds to no torch and no Python."""
        return self.abi == "none"


@dataclass(frozen=True)
class Wanted:
    """What was asked for: the project, and a profile or None for the best that fits."""

    project: str = DEFAULT_PROJECT
    profile: str | None = None


@dataclass(frozen=True)
class Finding:
    """Something to know: a `problem` is to be mended before the kernels run, a `note` is not."""

    level: str
    what: str
    mend: str | None = None


@dataclass(frozen=True)
class Rejected:
    """A wheel that does not fit, and every reason."""

    file: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """The answer; `why` are the reasons for the chosen wheel, `nearest` what would fit with the least change."""

    status: str
    index: str
    chosen: str | None = None
    why: tuple[str, ...] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    rejected: tuple[Rejected, ...] = ()
    nearest: Rejected | None = None
    findings: tuple[Finding, ...] = ()
    node: Node | None = None


def problem(what: str, mend: str) -> Finding:
    """Make a finding that must be mended."""
    return Finding("problem", what, mend)


def gpu_text(gpu: Gpu) -> str:
    """Name a GPU in a sentence."""
    capability = "unknown" if gpu.capability is None else ".".join(map(str, gpu.capability))
    return f"{gpu.name}, compute capability {capability}"


class UnreadableError(Exception):
    """The index cannot be read; the text says why, without credentials."""


class MissingError(UnreadableError):
    """The index has no such file."""
