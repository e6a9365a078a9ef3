"""Repair: auditwheel gives a wheel the platform tag its symbols prove, and its bytes are made reproducible.

The bill of materials is put in here. Nothing is bundled: the framework's libraries are left to the framework. Whether
the result is good is `verify`'s.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final

from hopperforge.errors import RepairError
from hopperforge.model.keys import JsonValue
from hopperforge.model.wheel import RawWheel, RepairedWheel
from hopperforge.provenance.sbom import sbom_member
from hopperforge.run.files import storage_guard, temporary_folder
from hopperforge.run.workspace import Workspace
from hopperforge.stages.audit_tools import Answer, module, platform_tags, run_tool
from hopperforge.stages.elf import newest_versions, read_library
from hopperforge.stages.wheel_archive import read_wheel, write_wheel
from hopperforge.stages.zip_writer import DEFLATE_LEVEL

# The framework and the driver bring these; a copy in the wheel would be a second torch in one process.
EXCLUDED: Final = ("libtorch*.so", "libc10*.so", "libcuda.so.*", "libcudart.so.*")


def repair_settings(needed: frozenset[str]) -> dict[str, JsonValue]:
    """List what of the repair shapes a wheel's bytes, for its key."""
    return {"platform": "auto", "excluded": (*EXCLUDED, *sorted(needed)), "deflate": DEFLATE_LEVEL}


def repair(
    raw: RawWheel, *, needed: frozenset[str], epoch: int, sbom: bytes, workspace: Workspace, work: Path
) -> RepairedWheel:
    """Tag `raw` by its symbols and write it to `work` with bytes that depend on its content and `epoch` alone.

    `needed` are the library names the recipe leaves to the framework; `sbom` is put in. RepairError names the log and
    the newest symbols the library asks of the system.
    """
    with storage_guard(work), temporary_folder(work, "auditwheel") as folder:
        answer = _auditwheel(raw.path, needed, epoch, folder, workspace)
        made = sorted(folder.glob("*.whl"))
        if answer.status != 0 or len(made) != 1:
            raise RepairError(
                f"auditwheel can give {raw.path.name} no platform tag",
                detail=[*_newest(raw.path), *answer.tail],
                hint=f"python -m auditwheel show {raw.path}",
            )
        return finish(made[0], epoch=epoch, sbom=sbom, work=work, workspace=workspace)


def finish(made: Path, *, epoch: int, sbom: bytes, work: Path, workspace: Workspace) -> RepairedWheel:
    """Write a wheel that auditwheel made to `work`, with bytes that depend on its content, `sbom` and `epoch` alone."""
    final = work / made.name
    wheel = read_wheel(made)
    listed = {**wheel.files, sbom_member(wheel.info, wheel.info.partition("-")[0]): sbom}
    write_wheel(final, replace(wheel, files=listed), epoch=epoch)
    tags = platform_tags(final)
    because = "; ".join(_newest(final))
    workspace.reporter.note(f"platform tag {'.'.join(tags)}: {because}")
    return RepairedWheel(path=final, platform_tags=tags)


def _auditwheel(wheel: Path, needed: frozenset[str], epoch: int, folder: Path, workspace: Workspace) -> Answer:
    excludes = [f"--exclude={name}" for name in (*EXCLUDED, *sorted(needed))]
    return run_tool(
        (*module("auditwheel"), "repair", "--plat", "auto", *excludes, "--wheel-dir", folder, wheel),
        name=f"repair-{wheel.name}",
        workspace=workspace,
        extra={"SOURCE_DATE_EPOCH": str(epoch)},
    )


def _newest(wheel: Path) -> list[str]:
    """One line for each ELF file of the wheel: the newest symbol versions it asks of the system."""
    archive = read_wheel(wheel)
    lines = []
    for name in archive.binaries:
        try:
            lines.append(f"{name} asks for {', '.join(newest_versions(read_library(archive.files[name])))}")
        except ValueError as error:
            lines.append(f"{name}: {error}")
    return lines
