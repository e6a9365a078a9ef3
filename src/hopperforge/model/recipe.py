"""Recipes: what to build, as recipes/<name>/recipe.yaml declares it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from hopperforge.model.front import Front, OwnKernels
from hopperforge.model.profile import Profile


class Cudart(StrEnum):
    """How the CUDA runtime is linked: into the library, or named in DT_NEEDED."""

    STATIC = "static"
    SHARED = "shared"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageNames:
    """The names users meet: on the index, in `import`, and the interface module."""

    distribution: str
    package: str
    module: str
    version: str
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRule:
    """Which sources are compiled together.

    It is for units whose name matches the pattern `units` (as a shell matches file names). Those whose names differ in
    words of `vary` alone, words being what underscores part, go into one unit, up to `largest` of them; 1 keeps each by
    itself.
    """

    name: str
    units: str
    vary: tuple[str, ...]
    largest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a package promises to anyone who imports it, GPU or none.

    `operators` are torch operators by full name ("fa3_fwd::fwd"); `function` is one of `module` that takes q, k, v;
    `guard` is part of what its error says where there is no GPU. Without any of them the import itself is the promise.
    """

    module: str
    operators: tuple[str, ...] = ()
    function: str = ""
    guard: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One product over the kernels.

    `needed` is the exact set of non-system libraries in DT_NEEDED; `needed_per_torch` is that set for builds tied to
    one torch, None where the recipe makes no such builds. Of the rules of `merge` the first that matches a unit counts.
    `pin` is None where the recipe brings its kernels itself, which `kernels` then tells of; `promise` is None where
    nothing of the package is imported.
    """

    name: str
    folder: Path
    pin: str | None
    package: PackageNames
    promise: Promise | None
    cudart: Cudart
    needed: frozenset[str]
    default_profile: str
    profiles: Mapping[str, Profile]
    needed_per_torch: frozenset[str] | None = None
    merge: tuple[MergeRule, ...] = ()
    front: Front = field(default_factory=Front)
    kernels: OwnKernels | None = None

    @property
    def promised(self) -> Promise | None:
        """The promise; of Python alone that it imports, None where nothing is imported beside a torch."""
        return self.promise if self.front.kind.compiled else Promise(module=self.package.module)
