"""The jax kit: the headers of XLA's FFI, unpacked from a wheel of jaxlib. Nothing of it is linked or imported."""

from pathlib import Path, PurePosixPath
from typing import Final

from hopperforge.errors import SourceError
from hopperforge.model.matrix import JaxFact
from hopperforge.model.toolkit import PinnedFile
from hopperforge.run.archives import unpack_zip
from hopperforge.run.download import fetch
from hopperforge.run.workspace import Workspace
from hopperforge.stages.fingerprint import fingerprint
from hopperforge.stages.torch_kit import drop_wheel
from hopperforge.stages.unpacked import unpack_once

HEADERS: Final = "jaxlib/include"
_MAIN: Final = f"{HEADERS}/xla/ffi/api/ffi.h"


def obtain_jax_kit(fact: JaxFact, workspace: Workspace) -> Path:
    """Give the folder with `jaxlib/include`, fetched and unpacked if it is not in the cache; the wheel is not kept.

    ToolError if the index does not answer, SourceError if the wheel is not the pinned one or lacks the headers.
    """
    root = workspace.torches / fact.wheel.sha256
    unpack_once(
        root,
        what=f"jaxlib {fact.release}",
        fill=lambda folder: _unpack(fact.wheel, folder, workspace),
        identify=lambda folder: dict(fingerprint({}, {HEADERS: folder / HEADERS}, workspace.cache)),
        workspace=workspace,
    )
    drop_wheel(fact.wheel, workspace)
    return root


def _unpack(wheel: PinnedFile, folder: Path, workspace: Workspace) -> None:
    unpack_zip(fetch(wheel, workspace), folder, _member)
    if not (folder / _MAIN).is_file():
        raise SourceError(f"{wheel.filename} lacks {_MAIN}", hint="pin another jaxlib in matrix.yaml")


def _member(member: PurePosixPath) -> PurePosixPath | None:
    return member if member.is_relative_to(HEADERS) else None
