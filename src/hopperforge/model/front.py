"""Fronts: how a recipe binds its kernels, and what the package of it holds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

_VERSIONED: Final = re.compile(r"lib[^/]+\.so\.[0-9]+")


class FrontKind(StrEnum):
    """What binds the kernels, and to what.

    | kind           | sources                        | binds to                        | wheel       |
    |----------------|--------------------------------|---------------------------------|-------------|
    | torch-upstream | upstream's API file            | torch, stable ABI or one torch  | cp39-abi3   |
    | torch          | the recipe's own               | torch, stable ABI               | cp39-abi3   |
    | cpp            | the recipe's own               | nothing                         | py3-none    |
    | jax            | the recipe's own               | nothing; XLA's FFI headers      | py3-none    |
    | python         | the recipe's own, Python alone | nothing                         | py3-none    |
    """

    TORCH_UPSTREAM = "torch-upstream"
    TORCH = "torch"
    CPP = "cpp"
    JAX = "jax"
    PYTHON = "python"

    @property
    def compiled(self) -> bool:
        """Whether there are kernels and a library: all that a toolkit and a host compiler are for."""
        return self is not FrontKind.PYTHON

    @property
    def binds_torch(self) -> bool:
        """Whether cells of it have a torch and a Python."""
        return self in (FrontKind.TORCH_UPSTREAM, FrontKind.TORCH)

    @property
    def own(self) -> bool:
        """Whether the recipe brings the sources, and not upstream."""
        return self is not FrontKind.TORCH_UPSTREAM

    @property
    def tag(self) -> str:
        """The interpreter and ABI of the wheel's name."""
        return "cp39-abi3" if self.binds_torch else "py3-none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The sources a recipe brings, and what they become. Of `torch-upstream` all but `kind` is empty.

    Of `python` all but `kind` and what it requires is empty, and `epoch` is the SOURCE_DATE_EPOCH of its
    wheel, in seconds; None of every other kind.

    Patterns are of paths in the recipe's folder, places are paths in the package's. `sources` are compiled together
    with those of the recipe in the folder `shares`, and linked with the kernels into `library`, by the version script
    `exports`; every symbol it shows must match one of `symbols`. Whoever asks for a symbol of `wrap` is given the
    sources' own __wrap_NAME. `archive` is the place of the same as a static library. `programs` maps a place to the
    sources of an executable that is linked with the library. `files` maps a pattern to the folder that the matching
    files are shipped in; those that end in `.in` have their placeholders filled in. `requires` is Requires-Dist without
    the torch that the matrix knows. With `tarball` the package's folder is handed on as a `.tar.zst` as well.
    """

    kind: FrontKind = FrontKind.TORCH_UPSTREAM
    sources: tuple[str, ...] = ()
    shares: Path | None = None
    library: str = ""
    exports: str = ""
    symbols: tuple[str, ...] = ("PyInit_*",)
    wrap: tuple[str, ...] = ()
    archive: str | None = None
    programs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    requires_python: str = ">=3.9"
    tarball: bool = False
    epoch: int | None = None

    @property
    def soname(self) -> str | None:
        """The name by which programs that were linked with the library look for it; None where nothing is."""
        name = self.library.rpartition("/")[2]
        return name if _VERSIONED.fullmatch(name) else None

    @property
    def linker_name(self) -> str | None:
        """The name by which a linker looks for the library: its name without the version, None where it has none."""
        return None if self.soname is None else self.soname.rpartition(".so.")[0] + ".so"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnKernels:
    """Kernels that a recipe brings itself, with no upstream.

    `units` is a pattern of `.cu` files in the recipe's folder `kernels`, `flags` are nvcc's words beside ours, `epoch`
    is the SOURCE_DATE_EPOCH of all that is built from them, in seconds.
    """

    units: str
    flags: tuple[str, ...]
    epoch: int
