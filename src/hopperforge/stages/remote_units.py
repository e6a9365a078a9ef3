"""What a worker of a cluster does for the kernels stage: show what it has, take what it lacks, compile units.

A worker needs hopperforge installed and a host compiler like ours; no checkout, no toolkit, no network. The source's
kernel files and the toolkit come as archives. One that stands at the same path as ours with the same bytes, on a
shared disk or on this very machine, is used where it stands. Nothing is used whose fingerprint is not the plan's.
"""

import asyncio
import hashlib
import os
import platform
import tarfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import Final, assert_never

from hopperforge.errors import HopperforgeError, SourceError, ToolError
from hopperforge.executors.base import Killed
from hopperforge.model.toolkit import HostCompiler, Toolkit
from hopperforge.report import Recorder
from hopperforge.run.archives import unpack_tar
from hopperforge.run.files import make_folder, temporary_folder
from hopperforge.run.process import run
from hopperforge.run.remote import Home, worker_home
from hopperforge.run.workspace import Workspace
from hopperforge.stages.fingerprint import files_below
from hopperforge.stages.host_compiler import find_host_compiler
from hopperforge.stages.patch import kernel_files, kernel_tree_hash
from hopperforge.stages.toolkit import PARTS, other_headers, toolkit_fingerprint
from hopperforge.stages.unit_job import Bench, CompiledUnit, UnitJob, owned, sweep_work
from hopperforge.stages.unpacked import unpack_once

_ANY_GCC: Final = 999  # which g++ it has to be is said by its fingerprint
_REMEDY: Final = "give workers less to do at once: start them with a smaller MEM, or with fewer --nthreads"


class Input(StrEnum):
    """What travels to workers."""

    SOURCE = "source"
    TOOLKIT = "toolkit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What the units of a pack are compiled with, as the plan has it; paths are those of the machine that planned."""

    source: Path
    kernel_tree: str
    toolkit: Toolkit
    compiler: HostCompiler
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a worker has of a kit: where its inputs stand, its host compiler, and why it cannot be used, if so."""

    inputs: Mapping[Input, Path]
    compiler: Path | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteJob:
    """A unit for a worker to compile, and with what: paths are those of the worker."""

    job: UnitJob
    source: Path
    toolkit: Path
    compiler: Path
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """An object as a worker sends it; `sha256` is of its bytes when they were made."""

    compiled: CompiledUnit
    sha256: str


async def look(kit: Kit) -> Found:
    """Say what this worker has of a kit."""
    return await asyncio.to_thread(find_kit, kit, worker_home())


def find_kit(kit: Kit, home: Home) -> Found:
    """Say what a machine has of a kit, and remove what workers that were killed left half made there."""
    workspace = home.workspace(Recorder())
    sweep_work(workspace.work)
    places = {thing: _find_input(kit, thing, workspace) for thing in Input}
    inputs = {thing: place for thing, place in places.items() if place is not None}
    try:
        compiler = find_host_compiler(_with_our_compiler(home.environ, kit), _ANY_GCC)
        reason = compiler_difference(kit.compiler, compiler)
        if reason is None and Input.TOOLKIT in inputs:
            _start_nvcc(inputs[Input.TOOLKIT], home)
    except ToolError as error:
        return Found(inputs=inputs, compiler=None, reason=error.sentence)
    return Found(inputs=inputs, compiler=compiler.path, reason=reason)


def _find_input(kit: Kit, thing: Input, workspace: Workspace) -> Path | None:
    candidates = (_planned_place(kit, thing), _own_place(kit, thing, workspace))
    return next((place for place in candidates if _is_right(kit, thing, place, workspace)), None)


def _planned_place(kit: Kit, thing: Input) -> Path:
    match thing:
        case Input.SOURCE:
            return kit.source
        case Input.TOOLKIT:
            return kit.toolkit.root
        case _:
            assert_never(thing)


def _own_place(kit: Kit, thing: Input, workspace: Workspace) -> Path:
    match thing:
        case Input.SOURCE:
            return workspace.sources / kit.kernel_tree
        case Input.TOOLKIT:
            return workspace.toolkits / kit.toolkit.key
        case _:
            assert_never(thing)


def _identity(kit: Kit, thing: Input) -> Mapping[str, str]:
    match thing:
        case Input.SOURCE:
            return {"kernel_tree": kit.kernel_tree}
        case Input.TOOLKIT:
            return kit.toolkit.fingerprint
        case _:
            assert_never(thing)


def _identify(thing: Input, place: Path, workspace: Workspace) -> Mapping[str, str]:
    match thing:
        case Input.SOURCE:
            return {"kernel_tree": kernel_tree_hash(place)}
        case Input.TOOLKIT:
            return toolkit_fingerprint(place, workspace)
        case _:
            assert_never(thing)


def _is_right(kit: Kit, thing: Input, place: Path, workspace: Workspace) -> bool:
    try:
        return place.is_dir() and _identify(thing, place, workspace) == _identity(kit, thing)
    except OSError:
        return False


def _with_our_compiler(environ: Mapping[str, str], kit: Kit) -> Mapping[str, str]:
    """Look for the compiler at the planned path first, unless the worker's own CXX names one."""
    if "CXX" in environ or not os.access(kit.compiler.path, os.X_OK):
        return environ
    return {**environ, "CXX": str(kit.compiler.path)}


def compiler_difference(ours: HostCompiler, theirs: HostCompiler) -> str | None:
    """Say in what a worker's host compiler differs from the plan's; None if in nothing."""
    parts = sorted(
        name
        for name in ours.fingerprint.keys() | theirs.fingerprint.keys()
        if ours.fingerprint.get(name) != theirs.fingerprint.get(name)
    )
    if not parts:
        return None
    return (
        f"its host compiler {theirs.path} (g++ {theirs.version}) is not the plan's g++ {ours.version}: "
        f"other {', '.join(parts)}"
    )


def _start_nvcc(root: Path, home: Home) -> None:
    """Make sure that the toolkit runs here; ToolError otherwise."""
    nvcc = root / PARTS["nvcc"]
    done = run([nvcc, "--version"], cwd=Path("/"), env={"PATH": home.environ.get("PATH", os.defpath)})
    if done.status != 0:
        last = done.tail[-1] if done.tail else "it prints nothing"
        raise ToolError(f"the toolkit does not run on it: {nvcc} ended with status {done.status} ({last})")


def pack_input(kit: Kit, thing: Input) -> bytes:
    """Pack what a worker needs of a kit's source or toolkit: the files its fingerprint counts, and no others."""
    root = _planned_place(kit, thing)
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT, dereference=True) as tar:
        for name in kernel_files(root) if thing is Input.SOURCE else _toolkit_files(root):
            tar.add(root / name, arcname=name, recursive=False)
        if thing is Input.TOOLKIT:
            _add_second_names(tar, root)
    return content.getvalue()


def _toolkit_files(root: Path) -> Iterator[str]:
    yield from PARTS.values()
    for folder in (root / "include", *other_headers(root)):
        yield from (path.relative_to(root).as_posix() for path in files_below(folder))


def _add_second_names(tar: tarfile.TarFile, root: Path) -> None:
    """Give include/ its other names: the nvcc.profile of an installed toolkit may read headers by those."""
    for target in {*root.glob("targets/*/include")} - {*other_headers(root)}:
        link = tarfile.TarInfo(target.relative_to(root).as_posix())
        link.type, link.linkname = tarfile.SYMTYPE, "../../include"
        tar.addfile(link)


def receive(data: bytes, sha256: str, kit: Kit, thing: Input) -> None:
    """Take an archive of `pack_input` on this worker; SourceError if it is not what was sent, or not what was meant."""
    keep_input(data, sha256, kit, thing, worker_home().workspace(Recorder()))


def keep_input(data: bytes, sha256: str, kit: Kit, thing: Input, workspace: Workspace) -> None:
    """Check an archive, unpack it in a cache, and check what came out."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SourceError(f"the {thing} arrived damaged")

    def fill(folder: Path) -> None:
        with temporary_folder(make_folder(workspace.work), "arrived") as arrived:
            archive = arrived / f"{thing}.tar"
            archive.write_bytes(data)
            unpack_tar(archive, folder)

    place = _own_place(kit, thing, workspace)
    found = unpack_once(
        make_folder(place.parent) / place.name,
        what=f"the {thing} of this build",
        fill=fill,
        identify=lambda folder: _identify(thing, folder, workspace),
        workspace=workspace,
    )
    if found != _identity(kit, thing):
        raise SourceError(f"the {thing} that arrived is not the plan's")


def compile_remotely(remote: RemoteJob, memory: int, stop: threading.Event) -> Arrived:
    """Compile a unit on this worker; errors are those of `Bench.compile` and say where they happened."""
    try:
        compiled = _compile(remote, memory, stop)
    except Killed as killed:
        raise Killed(_told_from_here(killed.error, hint=_REMEDY)) from killed
    except HopperforgeError as error:
        hint = None if error.hint is None else f"ssh {platform.node()} {error.hint}"
        raise _told_from_here(error, hint=hint) from error
    return Arrived(compiled=compiled, sha256=hashlib.sha256(compiled.data).hexdigest())


def _compile(remote: RemoteJob, memory: int, stop: threading.Event) -> CompiledUnit:
    workspace = worker_home().workspace(Recorder())
    bench = Bench(
        source=remote.source,
        nvcc=remote.toolkit / PARTS["nvcc"],
        compiler=remote.compiler,
        threads=remote.threads,
        memory=memory,
        remedy=_REMEDY,
        workspace=workspace,
    )
    with owned(workspace.work / f"{remote.job.key}.lock", stop, lambda: None) as lock:
        return bench.compile(remote.job, lock, stop)


def _told_from_here(error: HopperforgeError, *, hint: str | None) -> HopperforgeError:
    detail = [*error.detail, f"on the worker machine {platform.node()}"]
    return type(error)(error.sentence, detail=detail, hint=hint)
