"""Cells of the matrix, the builds that serve them, and the plan that holds both."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from hopperforge.model.place import StorePlace
from hopperforge.model.profile import Profile
from hopperforge.model.recipe import Recipe
from hopperforge.model.request import Kernels, ToolkitChoice
from hopperforge.model.versions import CudaVersion, PythonVersion, ToolkitVersion, TorchVersion

ANY_PLATFORM: Final = "any"
"""The platform of what holds no machine code, as wheels are tagged."""


class AbiClass(StrEnum):
    """How tightly a build is tied to torch: by the stable ABI (any torch >= the floor), to one line, or not at all."""

    STABLE = "stable"
    PER_TORCH = "per-torch"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cell:
    """One point of the matrix; `torch` and `python` are None where the recipe binds to no framework.

    `cuda` is None where nothing is compiled, and `platform` then is `ANY_PLATFORM`.
    """

    recipe: str
    profile: str
    cuda: ToolkitVersion | None
    torch: TorchVersion | None
    python: PythonVersion | None
    platform: str

    def __str__(self) -> str:
        toolkit = "" if self.cuda is None else f"cuda {self.cuda} "
        framework = "" if self.torch is None else f"torch {self.torch} python {self.python} "
        return f"{self.recipe}/{self.profile} {toolkit}{framework}{self.platform}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A cell that can be built; `runtime` is the CUDA of the torch build it was paired with, None without a torch."""

    cell: Cell
    runtime: CudaVersion | None
    abi: AbiClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A cell that cannot be built, and why, in one sentence."""

    cell: Cell
    reason: str


def one_per_name(
    verdicts: Iterable[Accepted | Rejected], preferred: ToolkitVersion | None = None
) -> list[Accepted | Rejected]:
    """Reject accepted cells whose package another's would take the place of, for both have the same name.

    Packages are named by their toolkit's label, which 12.4 and 12.4+ptxas12.9 share: of these the `preferred` toolkit
    stays, else the one with the newest ptxas.
    """
    found = list(verdicts)
    kept: dict[tuple[str, ...], ToolkitVersion] = {}
    for cell in (verdict.cell for verdict in found if isinstance(verdict, Accepted)):
        if cell.cuda is not None:
            rivals = (cell.cuda, kept.get(_name(cell), cell.cuda))
            kept[_name(cell)] = max(rivals, key=lambda cuda: (cuda == preferred, cuda))
    return [verdict if isinstance(verdict, Rejected) else _unless_hidden(verdict, kept) for verdict in found]


def _name(cell: Cell) -> tuple[str, ...]:
    return cell.recipe, cell.profile, cell.cuda.label if cell.cuda else "", cell.platform


def _unless_hidden(verdict: Accepted, kept: Mapping[tuple[str, ...], ToolkitVersion]) -> Accepted | Rejected:
    cuda = kept.get(_name(verdict.cell))
    if verdict.cell.cuda == cuda:
        return verdict
    reason = (
        f"its package has the same name as that of cuda={cuda}; build it by itself, into a wheelhouse of its own "
        "(HOPPERFORGE_WHEELHOUSE)"
    )
    return Rejected(cell=verdict.cell, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """The thing that serves one or more cells with the same bytes.

    `cuda` is None where nothing is compiled; `torch` is what the front binds against, None if it binds to no framework;
    `profile` has the architectures that the toolkit knows.
    """

    recipe: Recipe
    profile: Profile
    cuda: ToolkitVersion | None
    torch: TorchVersion | None
    abi: AbiClass
    platform: str
    kernels: Kernels
    cells: tuple[Accepted, ...]

    @property
    def local_label(self) -> str:
        """What the user must match: the CUDA, the torch where it matters, the profile unless it is the default.

        Empty where nothing is compiled and the profile is the default.
        A build by upstream's own means says so: it is there to be compared with, never to be taken for the other.
        """
        parts = [self.cuda.label] if self.cuda else []
        if self.abi is AbiClass.PER_TORCH and self.torch is not None:
            parts[0] += f"torch{self.torch.major}"
            parts.append(str(self.torch.minor))
        if self.profile.name != self.recipe.default_profile:
            parts += self.profile.name.split("-")
        if self.kernels is Kernels.INLINE:
            parts.append("inline")
        return ".".join(parts)

    @property
    def needed(self) -> frozenset[str]:
        """The exact set of non-system libraries in DT_NEEDED of this ABI class."""
        match self.abi:
            case AbiClass.STABLE | AbiClass.NONE:
                return self.recipe.needed
            case AbiClass.PER_TORCH:
                return self.recipe.needed_per_torch or frozenset()
            case _:
                assert_never(self.abi)

    @property
    def version(self) -> str:
        """The wheel's full version: 3.0.0+cu130, or 3.0.0 without a label."""
        return "+".join(filter(None, (self.recipe.package.version, self.local_label)))

    def __str__(self) -> str:
        return f"{self.recipe.name}/{self.profile.name} {self.local_label}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Default:
    """A word that was not given: the value taken, and why."""

    value: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a request comes to, complete before the first process starts; `store` is where machines share objects."""

    builds: tuple[Build, ...]
    rejected: tuple[Rejected, ...]
    defaults: Mapping[str, Default]
    engine: str
    executor: str
    toolkit: ToolkitChoice
    store: StorePlace | None = None
