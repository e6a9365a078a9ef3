"""A wheelhouse of tiny wheels that are named and recorded like real ones, proven and all, for tests of publishing."""

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.unit import record_zoo
from tests.unit import wheel_zoo as zoo

from hopperforge.model.record import Record, ServedCell, WheelFacts
from hopperforge.model.versions import CudaVersion, PythonVersion, ToolkitVersion, TorchVersion
from hopperforge.model.wheel import GateResult
from hopperforge.report import Recorder
from hopperforge.stages.wheel_archive import make_record
from hopperforge.store.wheelhouse import Shelved, Wheelhouse

TAG = "cp39-abi3-manylinux_2_17_x86_64"


def tiny_wheel(folder: Path, version: str, *, requires: str = "torch>=2.9", extra: str = "") -> Path:
    """Write a wheel of fa3-fwd for x86-64 whose module says which it is; `extra` makes other bytes."""
    info = f"fa3_fwd-{version}.dist-info"
    members = {
        "fa3_fwd_interface.py": f"which = {version!r}\n{extra}".encode(),
        f"{info}/METADATA": zoo.metadata(version, requires=(requires,)),
        f"{info}/WHEEL": zoo.wheel_file(TAG),
    }
    members[f"{info}/RECORD"] = make_record(members, f"{info}/RECORD")
    return _written(folder / f"fa3_fwd-{version}-{TAG}.whl", members)


def stand_in_torch(folder: Path, version: str) -> Path:
    """Write a torch that is nothing but its version."""
    info = f"torch-{version}.dist-info"
    members = {
        "torch/__init__.py": f"__version__ = {version!r}\n".encode(),
        f"{info}/METADATA": zoo.metadata(version, "torch", ()),
        f"{info}/WHEEL": zoo.wheel_file("py3-none-any", pure="true"),
    }
    members[f"{info}/RECORD"] = make_record(members, f"{info}/RECORD")
    return _written(folder / f"torch-{version}-py3-none-any.whl", members)


def _written(path: Path, members: dict[str, bytes]) -> Path:
    """Write an archive with a fixed time in it, so that the same members give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return path


def shelve(house: Path, version: str, *torches: str, extra: str = "", **changes: Any) -> Shelved:
    """Put a tiny wheel and its record into a wheelhouse; it serves `torches` and is proven."""
    bound = "torch" in version
    requires = f"torch=={torches[0]}.*" if bound else "torch>=2.9"
    path = tiny_wheel(house, version, requires=requires, extra=extra)
    data = path.read_bytes()
    digits = version.partition("+cu")[2][:3]
    toolkit = ToolkitVersion.parse(f"{digits[:2]}.{digits[2]}")
    digest = hashlib.sha256(data).hexdigest()
    plain = record_zoo.record()
    gates = (
        *plain.gates,
        GateResult(name=f"import with torch {torches[0]} in python 3.12", passed=True, detail="it did"),
    )
    made = replace(
        plain,
        version=version,
        wheel=WheelFacts(file=path.name, sha256=digest, size=len(data), library_size=17, platform_tags=(TAG[10:],)),
        build_key=digest,
        toolkit=replace(plain.toolkit, version=toolkit),
        profile="hdim128-bf16" if "hdim128" in version else "fa3-fwd",
        cells=tuple(_cell(toolkit, torch) for torch in torches),
        gates=gates,
        gpu=proof(digest),
    )
    made = replace(made, **changes)
    path.with_name(path.name + ".json").write_bytes(made.to_json())
    return Shelved(path=path, record=made)


def proof(sha256: str) -> dict[str, Any]:
    """A result of the smoke tests as a passed run gives it."""
    return {
        "gpu": "NVIDIA H200",
        "driver": "580.95.05",
        "torch": "2.11.0+cu130",
        "passed": 89,
        "failed": 0,
        "complete": True,
        "sha256": sha256,
        "tflops": [],
    }


def _cell(toolkit: ToolkitVersion, torch: str) -> ServedCell:
    runtime = {"2.6": "12.4", "2.9": "12.8"}.get(torch, "13.0")
    return ServedCell(
        cuda=toolkit,
        torch=TorchVersion.parse(torch),
        python=PythonVersion.parse("3.12"),
        platform="linux_x86_64",
        runtime=CudaVersion.parse(runtime),
    )


def read_records(house: Path) -> tuple[Record, ...]:
    """The records of a wheelhouse."""
    return Wheelhouse(house, Recorder()).records()
