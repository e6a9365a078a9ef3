"""A wheelhouse of tiny wheels that are named, recorded and proven like real ones, for tests of publishing them.

Each has a module that says which wheel it is of.
"""

from pathlib import Path
from typing import Any

from tests.unit import publish_zoo, wheel_zoo

from hopperforge.model.record import ServedCell
from hopperforge.model.versions import CudaVersion, PythonVersion, ToolkitVersion, TorchVersion
from hopperforge.report import Recorder
from hopperforge.stages.wheel_archive import make_record
from hopperforge.store.wheelhouse import Shelved, Wheelhouse

MODULE = "fa3_fwd_interface"
RUNTIMES = {"2.6": "12.4", "2.9": "12.8", "2.11": "13.0"}


def shelve(house: Path, version: str, *torches: str, extra: str = "", **changes: Any) -> Shelved:
    """Put a tiny wheel that serves `torches` and its record into a wheelhouse; `extra` makes other bytes."""
    requires = f"torch=={torches[0]}.*" if "torch" in version else "torch>=2.9"
    members = tiny_members(version, requires, extra)
    digits = version.partition("+cu")[2]
    cells = tuple(_cell(ToolkitVersion.parse(f"{digits[:2]}.{digits[2]}"), torch) for torch in torches)
    path = publish_zoo.shelve(house, version, files=members, **({"cells": cells} | changes))
    return next(found for found in Wheelhouse(house, Recorder()).packages() if found.path == path)


def tiny_members(version: str, requires: str, extra: str = "") -> dict[str, bytes]:
    """The files of a wheel of fa3-fwd that has no library."""
    info = f"fa3_fwd-{version}.dist-info"
    members = {
        f"{MODULE}.py": f"which = {version!r}\n{extra}".encode(),
        f"{info}/METADATA": wheel_zoo.metadata(version, requires=(requires,)),
        f"{info}/WHEEL": wheel_zoo.wheel_file(wheel_zoo.TAG),
    }
    return {**members, f"{info}/RECORD": make_record(members, f"{info}/RECORD")}


def stand_in_torch(folder: Path, version: str) -> Path:
    """Write a torch that is nothing but its version."""
    info = f"torch-{version}.dist-info"
    members = {
        "torch/__init__.py": f"__version__ = {version!r}\n".encode(),
        f"{info}/METADATA": wheel_zoo.metadata(version, "torch", ()),
        f"{info}/WHEEL": wheel_zoo.wheel_file("py3-none-any", pure="true"),
    }
    members[f"{info}/RECORD"] = make_record(members, f"{info}/RECORD")
    return wheel_zoo.write(folder, members, name=f"torch-{version}-py3-none-any.whl")


def _cell(toolkit: ToolkitVersion, torch: str) -> ServedCell:
    return ServedCell(
        cuda=toolkit,
        torch=TorchVersion.parse(torch),
        python=PythonVersion.parse("3.12"),
        platform="linux_x86_64",
        runtime=CudaVersion.parse(RUNTIMES[torch]),
    )
