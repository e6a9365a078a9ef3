"""The torch kit: headers and link libraries of one torch build, unpacked from its wheel. Nothing of it is imported.

Installing a CUDA torch takes 3 GB; binding a front takes the headers and five libraries to name in DT_NEEDED.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from hopperforge.errors import InputError, SourceError
from hopperforge.model.matrix import TorchFact
from hopperforge.model.toolkit import PinnedFile
from hopperforge.model.versions import TorchVersion
from hopperforge.run.archives import unpack_zip
from hopperforge.run.download import cached_path, fetch
from hopperforge.run.files import storage_guard
from hopperforge.run.workspace import Workspace
from hopperforge.stages.fingerprint import fingerprint
from hopperforge.stages.unpacked import unpack_once

LIBRARIES: Final = ("libtorch.so", "libtorch_cpu.so", "libtorch_cuda.so", "libc10.so", "libc10_cuda.so")

_HEADERS: Final = "torch/include"
_FILES: Final = ("torch/version.py", *(f"torch/lib/{name}" for name in LIBRARIES))


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchKit:
    """One torch build to bind against; `root` holds torch/include, torch/lib and torch/version.py."""

    version: TorchVersion
    release: str
    root: Path
    wheel_sha256: str


def obtain_torch_kit(fact: TorchFact, workspace: Workspace) -> TorchKit:
    """Give the kit of the wheel that `fact` pins, fetched and unpacked if it is not in the cache.

    The wheel itself, up to 900 MB, is not kept. InputError if no wheel is pinned, ToolError if the index does not
    answer, SourceError if the wheel is not the pinned one or lacks a part.
    """
    wheel = fact.wheel
    if wheel is None:
        message = f"matrix.yaml pins no wheel for torch {fact.version}, so no front can be bound against it"
        raise InputError(message, hint=f"add `wheel:` to torch {fact.version} in matrix.yaml")
    root = workspace.torches / wheel.sha256
    unpack_once(
        root,
        what=f"torch {fact.release}",
        fill=lambda folder: _unpack(wheel, folder, workspace),
        identify=lambda folder: _identify(folder, workspace),
        workspace=workspace,
    )
    drop_wheel(wheel, workspace)
    return TorchKit(version=fact.version, release=fact.release, root=root, wheel_sha256=wheel.sha256)


def _unpack(wheel: PinnedFile, folder: Path, workspace: Workspace) -> None:
    unpack_zip(fetch(wheel, workspace), folder, _member)
    missing = [place for place in _FILES if not (folder / place).is_file()]
    if not (folder / _HEADERS).is_dir():
        missing.append(_HEADERS)
    if missing:
        message = f"{wheel.filename} lacks {', '.join(missing)}: a front cannot be bound against it"
        raise SourceError(message, hint="pin a CUDA build of torch in matrix.yaml")


def _member(member: PurePosixPath) -> PurePosixPath | None:
    return member if str(member) in _FILES or member.is_relative_to(_HEADERS) else None


def _identify(root: Path, workspace: Workspace) -> dict[str, str]:
    parts = {place: root / place for place in _FILES}
    return dict(fingerprint(parts, {_HEADERS: root / _HEADERS}, workspace.cache))


def drop_wheel(wheel: PinnedFile, workspace: Workspace) -> None:
    """Remove a wheel that was unpacked from the cache, and say so."""
    path = cached_path(wheel, workspace)
    if path.is_file():
        size = path.stat().st_size
        with storage_guard(path.parent):
            path.unlink()
        workspace.reporter.note(f"unpacked {wheel.filename} and removed it from the cache ({size / 1e6:.0f} MB)")
