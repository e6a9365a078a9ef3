"""Gates on what a wheel says of its own contents: the bill of materials and the licences."""

import hashlib
from collections.abc import Iterable, Mapping

from hopperforge.provenance.contents import Contents
from hopperforge.provenance.sbom import sbom_problems
from hopperforge.stages.gates import Refused, gate, refuse_if
from hopperforge.stages.wheel_archive import WheelArchive


@gate("sbom")
def sbom_gate(wheel: WheelArchive, *, contents: Contents) -> str:
    """Check that there is one bill of materials, that it is valid CycloneDX, and names `contents` and nothing else."""
    folder = f"{wheel.info}/sboms/"
    names = sorted(name for name in wheel.files if name.startswith(folder))
    if len(names) != 1:
        raise Refused(f"{folder} holds {len(names)} bills of materials instead of one")
    refuse_if(f"{names[0]}: {problem}" for problem in sbom_problems(wheel.files[names[0]], contents))
    return f"{names[0].removeprefix(folder)} names the {len(contents.hashes())} hashes of what went in"


@gate("licences")
def licences_gate(wheel: WheelArchive, *, licences: Mapping[str, str]) -> str:
    """Check that the licences handed on are those collected, each unchanged and named in METADATA."""
    refuse_if([*_changed(wheel, licences), *_unnamed(wheel, licences)])
    if not licences:
        raise Refused("no licence is handed on")
    return ", ".join(sorted(licences))


def _changed(wheel: WheelArchive, licences: Mapping[str, str]) -> Iterable[str]:
    folder = f"{wheel.info}/licenses/"
    found = {
        name.removeprefix(folder): hashlib.sha256(data).hexdigest()
        for name, data in wheel.files.items()
        if name.startswith(folder)
    }
    for name in sorted(found.keys() | licences.keys()):
        if name not in found:
            yield f"{folder}{name} is missing"
        elif found[name] != licences.get(name):
            yield f"{folder}{name} is not a licence that was collected"


def _unnamed(wheel: WheelArchive, licences: Mapping[str, str]) -> Iterable[str]:
    lines = wheel.text("METADATA").partition("\n\n")[0].splitlines()
    yield from (f"METADATA has no License-File {name}" for name in licences if f"License-File: {name}" not in lines)
