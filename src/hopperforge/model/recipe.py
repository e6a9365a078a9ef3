"""Recipes: what to build, as recipes/<name>/recipe.yaml declares it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

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
class Promise:
    """What a package promises to anyone who imports it, GPU or none.

    `operators` are torch operators by full name ("fa3_fwd::fwd"); `function` is one of `module` that takes q, k, v;
    `guard` is part of what its error says where there is no GPU.
    """

    module: str
    operators: tuple[str, ...]
    function: str
    guard: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One product over the kernels.

    `needed` is the exact set of non-system libraries in DT_NEEDED; `needed_per_torch` is that set for builds tied to
    one torch, None where the recipe makes no such builds.
    """

    name: str
    folder: Path
    pin: str
    package: PackageNames
    promise: Promise
    cudart: Cudart
    needed: frozenset[str]
    default_profile: str
    profiles: Mapping[str, Profile]
    needed_per_torch: frozenset[str] | None = None
