"""The catalog of an index: one entry for each published package, with all that its pages show.

It is small beside the records it is made of, for it is read and written whole at every publication: what went into a
package in full, unit by unit, is in its record, which lies beside the file in the pool.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from packaging.utils import canonicalize_name
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from hopperforge.errors import InputError
from hopperforge.model.cell import AbiClass
from hopperforge.model.versions import CudaVersion, ToolkitVersion

CATALOG_FORMAT: Final = 1

_STRICT: Final = ConfigDict(extra="forbid", strict=True)


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class EntryCell:
    """A cell that a package serves, in the words of a request; `runtime` is the CUDA of that torch build.

    `torch`, `python` and `runtime` are None where the package binds to no framework.
    """

    torch: str | None
    python: str | None
    platform: str
    runtime: str | None


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class EntryGate:
    """A gate and whether it passed; what it looked at is in the record."""

    name: str
    passed: bool


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What one shape of the smoke tests ran at, in TFLOP/s; `shape` is in the words of gpu.json."""

    shape: str
    tflops: float


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProof:
    """The smoke tests on a GPU: how many passed, on what, and how fast the kernels ran.

    `torch` is None where they ran without one.
    """

    gpu: str
    driver: str
    torch: str | None
    passed: int
    speeds: tuple[Speed, ...]


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One published package.

    `requires` is what the metadata requires beside torch; `tarball` the file of the same package without pip, None
    where there is none.

    `project` is the normalised name; `toolkit` what compiled it ("12.4+ptxas12.8") and `driver` the oldest NVIDIA
    driver for it, both empty where nothing was compiled; `torch` what the metadata requires of torch ("torch>=2.9"),
    None where the package needs none; sizes are in bytes, `metadata_sha256` is that of the core metadata beside the
    file; `default` says whether its profile is the recipe's default; times are UTC in text; `yanked` is the reason,
    None if it stands; `unproven` that it was published although its record lacks a proof; `attested` and `sbom` that a
    signature lies beside the file, and a bill of materials in it; `reproduced` names who else made the same bytes.
    """

    project: str
    version: str
    file: str
    sha256: str
    size: int
    library_size: int
    metadata_sha256: str
    requires_python: str | None
    platform_tags: tuple[str, ...]
    recipe: str
    profile: str
    default: bool
    switches: tuple[str, ...]
    architectures: tuple[str, ...]
    toolkit: str
    driver: str
    abi: AbiClass
    torch: str | None
    cells: tuple[EntryCell, ...]
    gates: tuple[EntryGate, ...]
    gpu: GpuProof | None
    commit: str
    created: str
    uploaded: str
    yanked: str | None = None
    unproven: bool = False
    attested: bool = False
    sbom: bool = False
    reproduced: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    tarball: str | None = None

    @property
    def cuda(self) -> CudaVersion | None:
        """The CUDA of the toolkit, whatever its assembler; None where nothing was compiled."""
        return _cuda(self.toolkit) if self.toolkit else None

    @property
    def torch_free(self) -> bool:
        """Whether it has nothing to do with a torch: it binds to none and requires none."""
        return self.abi is AbiClass.NONE and self.torch is None

    @property
    def path(self) -> str:
        """Where the file is, from the root of the index."""
        return f"pool/{self.project}/{self.file}"

    @property
    def order(self) -> tuple[str, str]:
        """What entries are sorted by."""
        return canonicalize_name(self.project), self.file


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Every package of an index, in the order of their names."""

    format: Literal[1]
    packages: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "Catalog":
        """Put entries in order."""
        return cls(format=CATALOG_FORMAT, packages=tuple(sorted(entries, key=lambda entry: entry.order)))

    def to_json(self) -> bytes:
        """Write the catalog; equal catalogs give equal bytes."""
        return _CATALOG.dump_json(self, indent=1) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, place: str) -> "Catalog":
        """Read a catalog; InputError names `place` and every field that is wrong."""
        try:
            return _CATALOG.validate_json(data)
        except ValidationError as error:
            raise InputError(
                f"{place} is not a catalog this hopperforge can read",
                detail=[f"{_field(item['loc'])}: {item['msg']}" for item in error.errors(include_url=False)],
            ) from error


@functools.cache
def _cuda(toolkit: str) -> CudaVersion:
    """Thousands of packages share a few."""
    return ToolkitVersion.parse(toolkit).cuda


def _field(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "the file"


_CATALOG: Final = TypeAdapter(Catalog)
