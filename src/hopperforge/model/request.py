"""What the user asked for, after the words were read and before anything was decided."""

from dataclasses import dataclass
from enum import StrEnum

from hopperforge.model.versions import PythonVersion, ToolkitVersion, TorchVersion


class Kernels(StrEnum):
    """How kernels are compiled: once into a pack, or by upstream's own ninja build for comparison."""

    PACK = "pack"
    INLINE = "inline"


class ToolkitChoice(StrEnum):
    """Which origin of a toolkit may be used: the machine's own first, any that is fetched, or just one."""

    AUTO = "auto"
    SYSTEM = "system"
    FETCHED = "fetched"
    REGISTRY = "registry"
    REDIST = "redist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The words of a command; None or an empty tuple means the word was not given.

    `everything` is the word `all`: cuda, torch and python name all of the matrix where they were not given, and what
    goes together on no machine was not meant.
    `memory` is in bytes; `jobs` a number of units compiled at once.
    """

    recipe: str | None = None
    profiles: tuple[str, ...] = ()
    cuda: tuple[ToolkitVersion, ...] = ()
    torch: tuple[TorchVersion, ...] = ()
    python: tuple[PythonVersion, ...] = ()
    engine: str | None = None
    base: str | None = None
    executor: str | None = None
    jobs: int | None = None
    memory: int | None = None
    kernels: Kernels = Kernels.PACK
    toolkit: ToolkitChoice = ToolkitChoice.AUTO
    everything: bool = False
