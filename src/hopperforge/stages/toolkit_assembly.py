"""Toolkits put together in the cache: from wheels and Debian packages, or from NVIDIA's redistributable archives.

All origins end in one layout: bin/, nvvm/, include/, lib/ and lib64 -> lib. Whether such a folder is a usable toolkit
is `stages.toolkit`'s to say.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, assert_never

from pydantic import BaseModel, Field

from hopperforge.errors import SourceError
from hopperforge.model.keys import JsonValue, content_key
from hopperforge.model.toolkit import DebianPackage, PinnedFile, Redist, ToolkitFact, ToolkitOrigin
from hopperforge.model.versions import ToolkitVersion
from hopperforge.run.archives import unpack_deb, unpack_tar, unpack_zip
from hopperforge.run.debian import fetch_debian
from hopperforge.run.download import fetch, fetch_address, fetch_all
from hopperforge.run.files import remove_folder
from hopperforge.run.workspace import Workspace
from hopperforge.stages.unpacked import receipt_path, unpack_once

FETCHED: Final = (ToolkitOrigin.REGISTRY, ToolkitOrigin.REDIST)
"""The origins a toolkit can be put together from, in the order they are tried."""

_PLATFORM: Final = "linux-x86_64"  # as NVIDIA's manifests name it
_PTXAS: Final = "bin/ptxas"
_PROFILE_PLACE: Final = "bin/nvcc.profile"
# nvcc reads it beside itself. In a profile += puts words in front, and a later =+ behind.
_PROFILE: Final = """\
TOP = $(_HERE_)/..
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
LD_LIBRARY_PATH += $(TOP)/lib:
PATH += $(TOP)/nvvm/bin:$(_HERE_):
INCLUDES += "-I$(TOP)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/lib"
"""


def origin_is_declared(fact: ToolkitFact, origin: ToolkitOrigin) -> bool:
    """Whether matrix.yaml says what to fetch for a toolkit from an origin."""
    match origin:
        case ToolkitOrigin.REGISTRY:
            return origin in fact.origins and bool(fact.wheels)
        case ToolkitOrigin.REDIST:
            return origin in fact.origins and fact.redist is not None
        case ToolkitOrigin.SYSTEM | ToolkitOrigin.IMAGE:
            return False
        case _:
            assert_never(origin)


def is_assembled(fact: ToolkitFact, origin: ToolkitOrigin, workspace: Workspace) -> bool:
    """Whether a toolkit was put together from an origin before; its bytes are not looked at."""
    return receipt_path(_folder(fact, origin, workspace)).is_file()


def assemble_toolkit(
    fact: ToolkitFact, origin: ToolkitOrigin, identify: Callable[[Path], Mapping[str, str]], workspace: Workspace
) -> Path:
    """Give the root of a toolkit put together from an origin that `origin_is_declared`, fetching what is missing.

    `identify` fingerprints a root: one that was put together before is checked by it. A toolkit with another ptxas is
    a copy of the plain one with that file replaced. ToolError if something cannot be fetched, SourceError if it is
    not what is pinned.
    """
    folder = _folder(fact, origin, workspace)

    def fill(root: Path) -> None:
        if fact.ptxas is not None:
            plain = assemble_toolkit(_plain(fact), origin, identify, workspace)
            shutil.copytree(plain, root, symlinks=True, dirs_exist_ok=True)
            _replace_ptxas(root, fact.ptxas, workspace)
            return
        if origin is ToolkitOrigin.REDIST and fact.redist is not None:
            _unpack_redist(fact.redist, root, workspace)
        else:
            _unpack_registry(fact, root, workspace)
        _complete(root)

    unpack_once(folder, what=f"CUDA {fact.version}", fill=fill, identify=identify, workspace=workspace)
    return folder


def _folder(fact: ToolkitFact, origin: ToolkitOrigin, workspace: Workspace) -> Path:
    return workspace.toolkits / content_key("toolkit-folder", _contents(fact, origin))


def _contents(fact: ToolkitFact, origin: ToolkitOrigin) -> dict[str, JsonValue]:
    """Everything that decides what lies in the folder."""
    contents: dict[str, JsonValue] = {"ptxas": fact.ptxas.sha256 if fact.ptxas else None, "profile": _PROFILE}
    if origin is ToolkitOrigin.REDIST and fact.redist is not None:
        return contents | {"manifest": fact.redist.sha256, "components": sorted(fact.redist.components)}
    return contents | {
        "wheels": sorted(wheel.sha256 for wheel in fact.wheels),
        "debian": {package.sha256: dict(package.members) for package in fact.debian},
    }


def _plain(fact: ToolkitFact) -> ToolkitFact:
    return replace(fact, version=ToolkitVersion.of(fact.version.cuda), ptxas=None)


def _replace_ptxas(root: Path, wheel: PinnedFile, workspace: Workspace) -> None:
    (root / _PTXAS).unlink()
    unpack_zip(fetch(wheel, workspace), root, lambda member: place if str(place := _place(member)) == _PTXAS else None)


def _unpack_registry(fact: ToolkitFact, root: Path, workspace: Workspace) -> None:
    for wheel in fetch_all(fact.wheels, workspace):
        unpack_zip(wheel, root, _place)
    for package in fact.debian:
        _unpack_debian(package, root, workspace)
    parts = (f"{len(fact.wheels)} wheels", *(package.filename for package in fact.debian))
    workspace.reporter.note(f"unpacked CUDA {fact.version} from {', '.join(parts)}")


def _place(member: PurePosixPath) -> PurePosixPath | None:
    """Where a wheel's member goes: nvidia/cu13/bin/nvcc and nvidia/cuda_nvcc/bin/ptxas are both bin/...

    The rest is each wheel's metadata, and what makes its folders Python packages.
    """
    top, *below = member.parts
    if top != "nvidia" or len(below) < 3 or member.name == "__init__.py" or below[1].startswith("."):  # noqa: PLR2004
        return None
    return PurePosixPath(*below[1:])


def _unpack_debian(package: DebianPackage, root: Path, workspace: Workspace) -> None:
    packages = root / ".packages"  # swept with the folder if we are killed
    unpack_deb(fetch_debian(package, packages, workspace), root, package.members)
    remove_folder(packages)


def _complete(root: Path) -> None:
    """Add what nvcc and linkers expect, and not every origin holds."""
    if not (root / "lib64").exists():
        (root / "lib64").symlink_to("lib")
    if not (root / "lib" / "libcudart.so").exists():
        for library in sorted(root.glob("lib/libcudart.so.*"))[:1]:
            library.with_name("libcudart.so").symlink_to(library.name)
    if not (root / _PROFILE_PLACE).exists() and (root / "bin").is_dir():
        (root / _PROFILE_PLACE).write_text(_PROFILE, encoding="utf-8")


# NVIDIA's archives.


class _Archive(BaseModel):
    """An archive as a manifest names it: more is said there of each, and none of it is needed."""

    relative_path: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _unpack_redist(redist: Redist, root: Path, workspace: Workspace) -> None:
    manifest = fetch_address(redist.manifest, redist.sha256, workspace)
    for address, sha256 in redist_archives(redist, manifest, redist.components):
        unpack_tar(fetch_address(address, sha256, workspace), root, _redist_place)
    workspace.reporter.note(f"unpacked {', '.join(redist.components)} of {redist.name}")


def _redist_place(member: PurePosixPath) -> PurePosixPath | None:
    """Take bin/, include/, lib/ and nvvm/ from below an archive's one folder: the rest is licences and the like."""
    below = member.parts[1:]
    return PurePosixPath(*below) if below and below[0] in ("bin", "include", "lib", "nvvm") else None


def redist_archives(redist: Redist, manifest: Path, components: Sequence[str]) -> list[tuple[str, str]]:
    """Find address and sha256 of components' archives for our platform; SourceError for a manifest of another form."""
    try:
        content = json.loads(manifest.read_bytes())
        archives = [_Archive.model_validate(content[component][_PLATFORM]) for component in components]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise SourceError(
            f"{redist.name} is no manifest of NVIDIA's archives with what is wanted of it",
            detail=[f"wanted: {', '.join(components)} for {_PLATFORM}", f"{error!r}", f"at {manifest}"],
        ) from error
    return [(f"{redist.base}/{archive.relative_path}", archive.sha256) for archive in archives]
