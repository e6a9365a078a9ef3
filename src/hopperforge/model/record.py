"""The record of a finished package: everything that went into it, and what was proven about it.

It is the JSON beside every wheel in a wheelhouse. Reading is strict: a field missing, unknown or of the wrong type
is an error, for a record that is half understood proves nothing.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import ConfigDict, PlainSerializer, PlainValidator, TypeAdapter, ValidationError, with_config

from hopperforge.errors import InputError
from hopperforge.model.cell import Accepted
from hopperforge.model.front import FrontKind
from hopperforge.model.request import Kernels
from hopperforge.model.toolkit import ToolkitOrigin
from hopperforge.model.versions import CudaVersion, PythonVersion, ToolkitVersion, TorchVersion
from hopperforge.model.wheel import GateResult

RECORD_FORMAT: Final = 5
"""Read as well: 1, from before units had several sources; 2, from before bills of materials; 3, of torch alone; 4, of
compiled packages alone."""

TORCH: Final = "torch"
"""The name of the framework that torch fronts are bound with."""

_FORMAT_WITH_BILL: Final = 3

REPRODUCTION: Final = "reproduction"
"""The field of the file that `reproduce` writes and `record` joins."""

_STRICT: Final = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, ser_json_inf_nan="constants")
_V = TypeVar("_V")


def _text(parse: Callable[[str], _V]) -> tuple[PlainValidator, PlainSerializer]:
    """Read and write a version as its own text."""

    def read(value: object) -> _V:
        if not isinstance(value, str):
            message = "a version is written as a string"
            raise ValueError(message)  # noqa: TRY004 - pydantic reports ValueError, not TypeError
        return parse(value)

    return PlainValidator(read), PlainSerializer(str, return_type=str)


_READ_CUDA, _WRITE_CUDA = _text(CudaVersion.parse)
_READ_TOOLKIT, _WRITE_TOOLKIT = _text(ToolkitVersion.parse)
_READ_TORCH, _WRITE_TORCH = _text(TorchVersion.parse)
_READ_PYTHON, _WRITE_PYTHON = _text(PythonVersion.parse)
_Cuda = Annotated[CudaVersion, _READ_CUDA, _WRITE_CUDA]
_Toolkit = Annotated[ToolkitVersion, _READ_TOOLKIT, _WRITE_TOOLKIT]
_Torch = Annotated[TorchVersion, _READ_TORCH, _WRITE_TORCH]
_Python = Annotated[PythonVersion, _READ_PYTHON, _WRITE_PYTHON]


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class WheelFacts:
    """The package's file; sizes in bytes, `library_size` that of the shared library inside, 0 without one."""

    file: str
    sha256: str
    size: int
    library_size: int
    platform_tags: tuple[str, ...]


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ServedCell:
    """A cell the package serves; `runtime` is the CUDA of the torch build it was paired with.

    Where the package binds to no framework `torch`, `python` and `runtime` are None; `cuda` is where none compiled it.
    """

    cuda: _Toolkit | None
    torch: _Torch | None
    python: _Python | None
    platform: str
    runtime: _Cuda | None

    @classmethod
    def of(cls, accepted: Accepted) -> "ServedCell":
        """Take what a record keeps of an accepted cell."""
        cell = accepted.cell
        return cls(
            cuda=cell.cuda, torch=cell.torch, python=cell.python, platform=cell.platform, runtime=accepted.runtime
        )


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """Upstream's source as it was compiled: the pin, the tree hashes that were checked, the patches by sha256.

    Where a recipe brings its kernels itself `commit` is empty, and `trees` has what it brings; of Python alone that is
    empty too, for `front_tree` is of all there is.
    """

    pin: str
    commit: str
    epoch: int
    trees: Mapping[str, str]
    origin: str
    patches: Mapping[str, str]
    kernel_tree: str
    front_tree: str


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class ToolkitFacts:
    """The CUDA toolkit that compiled."""

    version: _Toolkit
    release: str
    origin: ToolkitOrigin
    fingerprint: Mapping[str, str]


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class CompilerFacts:
    """The host compiler."""

    version: str
    fingerprint: Mapping[str, str]


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFacts:
    """A unit of the pack: wall seconds and peak resident bytes of its compile, None where they were never measured.

    `sources` are the files of upstream that were compiled in one: `path` alone, or several in a merged unit.
    """

    path: str
    sources: tuple[str, ...]
    key: str
    sha256: str
    size: int
    seconds: float | None
    peak_rss: int | None


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class PackFacts:
    """The kernel pack bound into the package."""

    key: str
    sha256: str
    units: tuple[UnitFacts, ...]


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class FrameworkFacts:
    """A framework by the wheel its headers were taken from."""

    name: str
    release: str
    wheel_sha256: str


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """A file that is handed on beside the wheel; its size in bytes."""

    file: str
    sha256: str
    size: int


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class FrontFacts:
    """The front: the framework whose headers it was bound with, its flags, and the tools that wrote the wheel.

    `framework` is None where it was bound with none; `sources` has the recipe's own sources by sha256.
    """

    kind: FrontKind
    framework: FrameworkFacts | None
    sources: Mapping[str, str]
    flags: tuple[str, ...]
    tools: Mapping[str, str]


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """The builder image: its id, the base it stands on, and the newest platform tag that base allows."""

    id: str
    base: str
    base_id: str
    floor: str


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFacts:
    """The hopperforge that built: its version, and the commit of its checkout, with no change to it if `clean`."""

    version: str
    commit: str | None
    clean: bool


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """A rebuild that gave the same bytes: when (UTC in text), on what kind of machine, in which engine, and by whom.

    `by` is what the person calls himself or the machine, None where nothing was said.
    """

    created: str
    machine: str
    engine: str
    by: str | None

    def __str__(self) -> str:
        """As the index shows it."""
        return f"{self.created[:10]}, {self.machine}, {self.engine}" + (f", by {self.by}" if self.by else "")


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything that went into a package and what was proven.

    `tarball` is the same package without pip, None where there is none; `image` is None for a build on the host; `pack`
    is None where upstream's own build compiled the kernels, and together with `toolkit` and `host_compiler` where
    nothing was compiled; `licences` are the files of dist-info/licenses by sha256
    and `sbom` is the sha256 of the bill of materials inside, empty and None in packages from before these were; `gpu`
    is None until the smoke tests passed on a GPU, then their gpu.json as it is; `reproduced` are the rebuilds that gave
    the same bytes; `made_by` is None in packages of format 2; `timings` are wall seconds by stage; `created` is a UTC
    time in text.
    """

    format: Literal[5]
    name: str
    version: str
    wheel: WheelFacts
    tarball: FileFacts | None
    build_key: str
    recipe: str
    profile: str
    switches: tuple[str, ...]
    architectures: tuple[str, ...]
    cells: tuple[ServedCell, ...]
    source: SourceFacts
    toolkit: ToolkitFacts | None
    host_compiler: CompilerFacts | None
    engine: str
    image: ImageFacts | None
    kernels: Kernels
    pack: PackFacts | None
    front: FrontFacts
    licences: Mapping[str, str]
    sbom: str | None
    gates: tuple[GateResult, ...]
    gpu: Mapping[str, Any] | None
    reproduced: tuple[Reproduction, ...]
    made_by: ToolFacts | None
    timings: Mapping[str, float]
    created: str

    def to_json(self) -> bytes:
        """Write the record as JSON for people and programs: fields in their order, two blanks of indentation."""
        return _RECORD.dump_json(self, indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, place: str) -> "Record":
        """Read a record; InputError names `place` and every field that is wrong."""
        try:
            return _RECORD.validate_json(_renewed(data))
        except ValidationError as error:
            raise InputError(
                f"{place} is not a record this hopperforge can read",
                detail=[f"{_field(item['loc'])}: {item['msg']}" for item in error.errors(include_url=False)],
                hint=f"rm {place}   # then build again: what is cached is not compiled twice",
            ) from error

    def with_gpu(self, gpu: Mapping[str, Any]) -> "Record":
        """Make the record that holds the smoke tests' results as well."""
        return dataclasses.replace(self, gpu=gpu)

    def with_reproduction(self, reproduction: Reproduction) -> "Record":
        """Make the record that names one more rebuild; the same one is named once."""
        return dataclasses.replace(self, reproduced=tuple(dict.fromkeys((*self.reproduced, reproduction))))

    def with_cells(self, cells: Sequence[ServedCell]) -> "Record":
        """Make the record that names further cells as served, each once and in order."""
        return dataclasses.replace(self, cells=tuple(sorted({*self.cells, *cells})))

    def with_gates(self, gates: Sequence[GateResult]) -> "Record":
        """Make the record that holds further gates' results; one of the same name is replaced."""
        names = {gate.name for gate in gates}
        return dataclasses.replace(self, gates=(*(gate for gate in self.gates if gate.name not in names), *gates))


def _renewed(data: bytes) -> bytes:
    """Make a record of an older format one of this: what it does not know was not there. Others stay as they are."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    match document:
        case {"format": 1 | 2 | 3 | 4 as before} if not isinstance(before, bool | float):
            if before == 1:
                _name_sources(document.get("pack"))
            _name_framework(document.get("front"))
            added: dict[str, Any] = {"tarball": None}
            if before < _FORMAT_WITH_BILL:
                added |= {"licences": {}, "sbom": None, "reproduced": [], "made_by": None}
            return json.dumps({**added, **document, "format": RECORD_FORMAT}).encode()
        case _:
            return data


def _name_sources(pack: object) -> None:
    """Name the one source that each unit of format 1 had."""
    match pack:
        case {"units": [*units]}:
            for unit in units:
                if isinstance(unit, dict):
                    unit["sources"] = [unit.get("path")]
        case _:
            pass


def _name_framework(front: object) -> None:
    """Say what went without saying until format 3: that the front is upstream's, bound to a torch."""
    match front:
        case {"torch_release": release, "torch_wheel_sha256": sha256} if isinstance(front, dict):
            del front["torch_release"], front["torch_wheel_sha256"]
            front["framework"] = {"name": TORCH, "release": release, "wheel_sha256": sha256}
            front["kind"], front["sources"] = FrontKind.TORCH_UPSTREAM.value, {}
        case _:
            pass


def _field(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "the file"


def read_reproduction(value: object, place: str) -> Reproduction:
    """Take a rebuild out of the file that `reproduce` writes; InputError names `place` and what is wrong."""
    try:
        return _REPRODUCTION.validate_json(json.dumps(value))
    except ValidationError as error:
        raise InputError(
            f"{place} is no result of a rebuild",
            detail=[f"{_field(item['loc'])}: {item['msg']}" for item in error.errors(include_url=False)],
            hint="nox -s reproduce -- wheel=URL   # writes one",
        ) from error


_RECORD: Final = TypeAdapter(Record)
_REPRODUCTION: Final = TypeAdapter(Reproduction)
