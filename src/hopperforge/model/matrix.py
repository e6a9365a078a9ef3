"""The matrix of facts: toolkits, torch releases and Pythons that matrix.yaml declares."""

from collections.abc import Mapping
from dataclasses import dataclass

from hopperforge.model.toolkit import PinnedFile, ToolkitFact
from hopperforge.model.versions import CudaVersion, PythonVersion, ToolkitVersion, TorchVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchFact:
    """A torch release line.

    `release` is the full number the facts were read at; `index_cuda` the CUDA of the package index's build,
    `cuda` every CUDA runtime it was published for; `wheel` the build whose headers and libraries a front binds
    against, given only where a front does. `cxx11_abi` and `cxx_standard` are of that build: whether its C++ symbols
    follow the C++11 ABI of libstdc++, and the oldest C++ its headers compile as (17, 20).
    """

    version: TorchVersion
    release: str
    index_cuda: CudaVersion
    cuda: tuple[CudaVersion, ...]
    pythons: tuple[PythonVersion, ...]
    wheel: PinnedFile | None
    cxx11_abi: bool
    cxx_standard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JaxFact:
    """The jaxlib that jax fronts take the headers of XLA's FFI from: its full number, and a build of it."""

    release: str
    wheel: PinnedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class CiCell:
    """A cell that the tests build and import on every change; `engine` is where."""

    cuda: ToolkitVersion
    torch: TorchVersion
    engine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """A point of the matrix that must not be built, and why; None matches everything."""

    cuda: ToolkitVersion | None
    torch: TorchVersion | None
    python: PythonVersion | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Everything matrix.yaml declares; mappings are in ascending order of version.

    `default_toolkit` compiles when none is asked for; None means the newest at hand.
    `stable_floor` is the oldest torch with the stable ABI that upstream's flash_api_stable.cpp needs:
    a front bound against its headers serves every later torch, an older torch takes a front of its own. `platforms`
    says of each why it is declared only, or None where it can be built; `jax` is what jax fronts are bound with. `ci`
    are the cells that the tests prove.
    """

    toolkits: Mapping[ToolkitVersion, ToolkitFact]
    torches: Mapping[TorchVersion, TorchFact]
    pythons: tuple[PythonVersion, ...]
    stable_floor: TorchVersion
    platforms: Mapping[str, str | None]
    exclusions: tuple[Exclusion, ...]
    ci: tuple[CiCell, ...]
    default_toolkit: ToolkitVersion | None = None
    jax: JaxFact | None = None
