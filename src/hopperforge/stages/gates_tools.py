"""Gates that ask a program: auditwheel for the platform tag, abi3audit for the ABI, cuobjdump for device code."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from packaging.utils import parse_wheel_filename

from hopperforge.run.files import storage_guard, temporary_folder
from hopperforge.run.workspace import Workspace
from hopperforge.stages.audit_tools import (
    glibc_of,
    installed_program,
    module,
    platform_tags,
    run_tool,
    show,
)
from hopperforge.stages.elf import newest_versions, read_library
from hopperforge.stages.gates import Refused, gate, library_name, refuse_if
from hopperforge.stages.wheel_archive import WheelArchive

_LISTED: Final = re.compile(r"(ELF|PTX) file +\d+: .*\.((?:sm|compute)_\d+[a-z]?)\.(?:cubin|ptx)")
_NO_DEVICE_CODE: Final = "does not contain device code"


@gate("platform-tag")
def platform_tag_gate(wheel: WheelArchive, *, floor: str | None, workspace: Workspace) -> str:
    """Check that every platform tag of the file name is proven by the symbols, and none is above `floor`.

    `floor` is the newest tag allowed (manylinux_2_28_x86_64); None allows any proven one.
    """
    allowed = None if floor is None else glibc_of(floor)
    try:
        shown = show(wheel.path, workspace)
        tags = platform_tags(wheel.path)
        proven = glibc_of(shown.symbol_tag)
        claimed = {tag: glibc_of(tag) for tag in tags}
    except ValueError as error:
        raise Refused(str(error)) from error
    newest = _newest(wheel)
    refuse_if(
        [
            *(
                f"{tag} is claimed, the symbols prove {shown.symbol_tag}: {newest}"
                for tag in tags
                if claimed[tag] < proven
            ),
            *(
                f"{tag} is above the floor {floor}: {newest}"
                for tag in tags
                if allowed is not None and claimed[tag] > allowed
            ),
            *(f"{tag}: {text}" for tag in {*tags, shown.symbol_tag} for text in shown.blocked.get(tag, ())),
        ]
    )
    return f"{'.'.join(tags)} claimed, {shown.symbol_tag} proven: {newest}"


def _newest(wheel: WheelArchive) -> str:
    """Say what the library asks of the system, and where there are programs each of them too."""
    own = library_name(wheel)
    try:
        asked = {name: ", ".join(newest_versions(read_library(wheel.files[name]))) for name in {own, *wheel.binaries}}
    except ValueError as error:
        raise Refused(str(error)) from error
    return asked[own] if len(asked) == 1 else "; ".join(f"{name} asks for {asked[name]}" for name in sorted(asked))


@gate("abi3")
def abi3_gate(wheel: WheelArchive, *, workspace: Workspace) -> str:
    """Check with abi3audit that the library uses only the stable ABI of the Python its tag names."""
    tags = parse_wheel_filename(wheel.path.name)[3]
    if other := sorted({tag.abi for tag in tags} - {"abi3"}):
        raise Refused(f"the wheel is tagged for the ABI {', '.join(other)}, not abi3")
    with temporary_folder(workspace.work, "abi3audit") as folder:
        report = folder / "report.json"
        command = (*module("abi3audit"), "--strict", "--report", "--output", str(report), str(wheel.path))
        answer = run_tool(command, name=f"abi3audit-{wheel.path.name}", workspace=workspace)
        text = report.read_text("utf-8") if report.is_file() else ""
    try:
        results = read_abi3_report(text)
    except ValueError as error:
        raise Refused(f"abi3audit gave no report: {error}", *answer.lines[-3:], f"log: {answer.log}") from error
    refuse_if(f"{name}: {finding}" for name, findings in results for finding in findings)
    own = library_name(wheel).rsplit("/", maxsplit=1)[-1]
    if own not in (name for name, _ in results):
        raise Refused(f"abi3audit did not look at {own}")
    if answer.status != 0:
        raise Refused(f"abi3audit ended with status {answer.status}", f"log: {answer.log}")
    return f"{own} keeps to {', '.join(sorted({f'{tag.interpreter}-{tag.abi}' for tag in tags}))}"


def read_abi3_report(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Read abi3audit's JSON report: each library with its violations; ValueError if it cannot be read."""
    specs: dict[str, Any] = json.loads(text)["specs"] if text else {}
    if not specs:
        message = "nothing was audited"
        raise ValueError(message)
    return [(item["name"], _abi3_findings(item["result"])) for spec in specs.values() for item in spec["wheel"]]


def _abi3_findings(result: dict[str, Any]) -> tuple[str, ...]:
    baseline = result["baseline"]
    foreign = [f"{symbol} is outside the stable ABI" for symbol in sorted(result["non_abi3_symbols"])]
    future = [f"{name} came with Python {added}" for name, added in sorted(result["future_abi3_objects"].items())]
    clean = result["is_abi3"] and result["is_abi3_baseline_compatible"]
    silent = [f"not compatible with the stable ABI of Python {baseline}"] if not clean and not foreign + future else []
    return (*foreign, *future, *silent)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCode:
    """What cuobjdump lists of a library: the targets of its machine code and of its PTX."""

    machine: frozenset[str]
    ptx: frozenset[str]


def read_device_code(lines: Sequence[str]) -> DeviceCode:
    """Read the output of `cuobjdump -all --list-elf --list-ptx`; ValueError for a list entry of unknown form.

    PTX is for a virtual architecture, compute_90, and cuobjdump lists it by the name of the real one, sm_90.
    """
    found: dict[str, set[str]] = {"ELF": set(), "PTX": set()}
    for line in lines:
        if match := _LISTED.fullmatch(line.strip()):
            found[match[1]].add(match[2])
        elif line.startswith(("ELF file", "PTX file")):
            message = f"cuobjdump lists {line!r}, whose target cannot be told"
            raise ValueError(message)
    ptx = frozenset(name.replace("sm_", "compute_") for name in found["PTX"])
    return DeviceCode(machine=frozenset(found["ELF"]), ptx=ptx)


@gate("architectures")
def architectures_gate(
    wheel: WheelArchive, *, architectures: frozenset[str], workspace: Workspace, ptx: frozenset[str] = frozenset()
) -> str:
    """Check that the library holds machine code for exactly `architectures`, and PTX for exactly `ptx`."""
    own = library_name(wheel)
    code = _device_code(wheel.files[own], own, workspace)
    refuse_if(
        [
            *(f"machine code for {name} is missing" for name in sorted(architectures - code.machine)),
            *(f"machine code for {name} is inside, not expected" for name in sorted(code.machine - architectures)),
            *(f"PTX for {name} is missing" for name in sorted(ptx - code.ptx)),
            *(f"PTX for {name} is inside, not expected" for name in sorted(code.ptx - ptx)),
        ]
    )
    return f"{', '.join(sorted(code.machine))}; PTX: {', '.join(sorted(code.ptx)) or 'none'}"


def _device_code(library: bytes, name: str, workspace: Workspace) -> DeviceCode:
    cuobjdump = installed_program("nvidia-cuda-cuobjdump", "cuobjdump")
    with storage_guard(workspace.work), temporary_folder(workspace.work, "cuobjdump") as folder:
        file = folder / "library.so"
        file.write_bytes(library)
        answer = run_tool((cuobjdump, "-all", "--list-elf", "--list-ptx", file), name="cuobjdump", workspace=workspace)
    if answer.status != 0 and not any(_NO_DEVICE_CODE in line for line in answer.lines):
        raise Refused(f"cuobjdump cannot read {name}", *answer.lines[-3:])
    try:
        return read_device_code(answer.lines)
    except ValueError as error:
        raise Refused(str(error)) from error
