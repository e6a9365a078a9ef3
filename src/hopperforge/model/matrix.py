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
    against, given only where a front does.
    """

    version: TorchVersion
    release: str
    index_cuda: CudaVersion
    cuda: tuple[CudaVersion, ...]
    pythons: tuple[PythonVersion, ...]
    wheel: PinnedFile | None


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

    `stable_floor` is the oldest torch with the stable ABI that upstream's flash_api_stable.cpp needs:
    a front bound against its headers serves every later torch.
    """

    toolkits: Mapping[ToolkitVersion, ToolkitFact]
    torches: Mapping[TorchVersion, TorchFact]
    pythons: tuple[PythonVersion, ...]
    stable_floor: TorchVersion
    exclusions: tuple[Exclusion, ...]
