"""The bundle stage: packages with their index, hashes and doctor as one tar, for machines without a network.

Equal packages give equal bytes: times are those of the source, and owners and order are fixed.
"""

import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import IO, Final

from packaging.utils import parse_wheel_filename

from hopperforge.errors import ToolError
from hopperforge.index.bundle import (
    INSTALL_NAME,
    PYLOCK_NAME,
    README_NAME,
    REQUIREMENTS_NAME,
    SUMS_NAME,
    BundleCell,
    Locked,
    install_script,
    pylock,
    readme,
    requirements,
    sums,
)
from hopperforge.index.whole import DOCTOR_NAME
from hopperforge.run.files import make_folder, sha256_file, temporary_folder, writing
from hopperforge.run.workspace import Workspace
from hopperforge.stages.audit_tools import module, run_tool
from hopperforge.stages.framework import Target, unmet
from hopperforge.stages.publish import Parcel, publish
from hopperforge.store.targets import FolderTarget

WHEELS: Final = "wheels"
_PROGRAMS: Final = frozenset({INSTALL_NAME, DOCTOR_NAME})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A finished bundle: the tar, its sha256, and the wheels in it."""

    path: Path
    sha256: str
    wheels: tuple[Locked, ...]


def make_bundle(
    cell: BundleCell,
    parcels: Sequence[Parcel],
    final: Path,
    workspace: Workspace,
    *,
    target: Target | None,
    signed: bool = False,
) -> Bundle:
    """Write the tar of a cell at `final`, with torch for `target` and all that it requires, or without if None.

    `signed` says that every parcel's signature was found good; then the bundle installs with a public key alone.
    ToolError if the index does not give torch; StorageError if the disk does not do its part.
    """
    with temporary_folder(make_folder(workspace.work), "bundle") as scratch:
        root = make_folder(scratch / cell.name)
        publish(FolderTarget(root), parcels)
        if target is not None:
            _fetch(f"torch=={cell.torch}.*", target, make_folder(root / WHEELS), workspace)
        locked = tuple(sorted(_locked(path, root) for path in root.rglob("*.whl")))
        _write_texts(cell, locked, root, with_torch=target is not None, signed=signed)
        epoch = max(parcel.record.source.epoch for parcel in parcels)
        with writing(final) as stream:
            _write_tar(root, stream, epoch)
    return Bundle(path=final, sha256=sha256_file(final), wheels=locked)


def _locked(path: Path, root: Path) -> Locked:
    name, version, _, _ = parse_wheel_filename(path.name)
    return Locked(
        project=name,
        version=str(version),
        path=path.relative_to(root).as_posix(),
        sha256=sha256_file(path),
        size=path.stat().st_size,
    )


def _write_texts(cell: BundleCell, locked: Sequence[Locked], root: Path, *, with_torch: bool, signed: bool) -> None:
    python = f"=={cell.python}.*" if cell.python else None
    texts = {
        REQUIREMENTS_NAME: requirements(locked),
        PYLOCK_NAME: pylock(locked, python),
        INSTALL_NAME: install_script(locked, signed=signed),
        README_NAME: readme(cell, locked, with_torch=with_torch, signed=signed),
    }
    for name, text in texts.items():
        (root / name).write_bytes(text)
    paths = {path.relative_to(root).as_posix(): sha256_file(path) for path in _files(root)}
    (root / SUMS_NAME).write_bytes(sums(paths))


def _files(root: Path) -> list[Path]:
    """Everything that belongs into the bundle; not the lock of who published into it."""
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))


def _write_tar(root: Path, archive: IO[bytes], epoch: int) -> None:
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in _files(root):
            member = tarfile.TarInfo(path.relative_to(root.parent).as_posix())
            member.size = path.stat().st_size
            member.mtime = epoch
            member.mode = 0o755 if path.name in _PROGRAMS else 0o644
            with path.open("rb") as content:
                tar.addfile(member, content)


def _fetch(requirement: str, target: Target, folder: Path, workspace: Workspace) -> None:
    """Download wheels for a Python of elsewhere: pip judges markers by its own, so what they left out comes after."""
    wanted: tuple[str, ...] = (requirement,)
    missing: tuple[str, ...] = wanted
    while missing:
        workspace.reporter.note(f"fetching {', '.join(missing)} for {target}")
        _download(wanted, target, folder, workspace)
        missing = unmet(_required(folder.glob("*.whl")), target.environment)
        wanted += missing


def _download(wanted: Iterable[str], target: Target, folder: Path, workspace: Workspace) -> None:
    kind = ("--only-binary=:all:", "--implementation=cp", f"--python-version={target.release}")
    platforms = tuple(f"--platform={platform}" for platform in target.platforms)
    words = ("download", "--quiet", "--no-input", "--disable-pip-version-check", *kind, *platforms)
    ended = run_tool((*module("pip"), *words, "--dest", folder, *wanted), name="fetch-bundle", workspace=workspace)
    if ended.status != 0:
        raise ToolError(
            f"{', '.join(wanted)} cannot be fetched for {target}",
            detail=ended.tail,
            hint="python -m pip config list   # is the index reachable, and has it that torch?",
        )


def _required(wheels: Iterable[Path]) -> dict[str, tuple[str, ...]]:
    """Read what wheels require."""
    found = [one for path in wheels for one in distributions(path=[str(path)])]
    return {one.metadata["Name"]: tuple(one.requires or ()) for one in found}
