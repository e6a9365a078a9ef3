"""What proves an installed package: the wheel's own list of files, its record, and its signature."""

from __future__ import annotations

import csv
import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from hopperforge.node.gpu.chain import FAILED, FREE, MISSING, OK, TROUBLE, UNCHECKED, UNTRUSTED, Link
from hopperforge.node.installed import files_of, look_at_packages
from hopperforge.node.looking import name_of
from hopperforge.node.signatures import Signed, TrustedKey, UntrustedError, check_signature
from hopperforge.node.versions import normal

_FETCH = "fetch it again from where it came from; never install it without a signature instead"


@dataclass(frozen=True)
class WheelFile:
    """A wheel by its file; it is what a signature names."""

    path: Path
    sha256: str

    @property
    def file(self) -> str:
        """Its name."""
        return self.path.name

    @property
    def project(self) -> str:
        """The project that the name says."""
        return normal(self.file.split("-")[0])

    @classmethod
    def of(cls, path: Path) -> WheelFile:
        """Hash a file; OSError if it cannot be read."""
        return cls(path, hashlib.sha256(path.read_bytes()).hexdigest())

    def beside(self, suffix: str) -> Path:
        """The file of that suffix beside it."""
        return self.path.with_name(self.file + suffix)


def installed_link(
    project: str, own: Sequence[Distribution], paths: Sequence[str], wheel: WheelFile | None
) -> tuple[Link, Distribution | None]:
    """Find the installed package, and compare its files with its own list and with the wheel's."""
    one = next((one for one in own if name_of(one) == project), None)
    if one is None:
        what = f"pip install --no-deps {wheel.path}" if wheel else "hopperforge doctor prints the line that installs it"
        return Link("wheel", FAILED, f"{project} is not installed in this Python", what, MISSING), None
    troubles = [
        trouble
        for package in look_at_packages(own, paths, [project], imports=False)
        if package.project == project
        for trouble in package.troubles
    ]
    if troubles:
        return Link("wheel", FAILED, troubles[0].what, troubles[0].mend, TROUBLE), one
    where = f"{project} {one.version} in {one.locate_file('')}"
    return (_as_shipped(one, wheel, where) if wheel else Link("wheel", OK, f"{where}; every file as listed")), one


def _as_shipped(one: Distribution, wheel: WheelFile, where: str) -> Link:
    """See that every file that the wheel brings was installed from these bytes."""
    try:
        shipped = wheel_files(wheel.path)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        return Link("wheel", FAILED, f"{wheel.file} is no whole wheel: {error}", "fetch it again", TROUBLE)
    have = {str(file): digest for file, digest in files_of(one)}
    other = sorted(file for file, digest in shipped.items() if digest and have.get(file) != digest)
    if other:
        what = f"{where} was not installed from {wheel.file}: {other[0]} differs"
        return Link("wheel", FAILED, what, f"pip install --no-deps --force-reinstall {wheel.path}", TROUBLE)
    return Link("wheel", OK, f"{where}; its {len(shipped)} files are those of {wheel.file}")


def wheel_files(path: Path) -> dict[str, str]:
    """Read the files of a wheel and their sha256, as its RECORD has them; BadZipFile where that has no hash."""
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith(".dist-info/RECORD")), "RECORD")
        rows = csv.reader(archive.read(name).decode().splitlines())
        found = {row[0]: row[1].partition("sha256=")[2] for row in rows if len(row) > 1}
    if not any(found.values()):
        raise zipfile.BadZipFile("its RECORD proves no file")
    return found


def record_link(
    record: Path | None, one: Distribution | None, wheel: WheelFile | None
) -> tuple[Link, Mapping[str, Any] | None]:
    """Read the record, and hold it to what is installed and to the wheel."""
    if record is None:
        return Link(
            "record", FREE, "none at hand: it lies beside the wheel; name the wheel's file, or record=FILE"
        ), None
    try:
        found = json.loads(record.read_bytes())
        problems = _of_another(found, one, wheel)
        gates = found["gates"]
        failed = [gate["name"] for gate in gates if gate["passed"] is not True]
        proof = found["gpu"]
        smoke = "never smoke-tested" if proof is None else f"smoke tests passed on {proof['gpu']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Link("record", FAILED, f"{record} is no record: {error!r}", "fetch it beside the wheel", TROUBLE), None
    if failed or not gates:
        problems.append(f"gates that failed: {', '.join(failed) or 'none was run'}")
    if problems:
        return Link("record", FAILED, f"{record}: {'; '.join(problems)}", "fetch wheel and record anew", TROUBLE), None
    what = f"profile {found['profile']}, CUDA {found['toolkit']['version']}; {len(gates)} gates passed; {smoke}"
    return Link("record", OK, what), found


def _of_another(record: Mapping[str, Any], one: Distribution | None, wheel: WheelFile | None) -> list[str]:
    problems = []
    if one is not None and (normal(record["name"]), record["version"]) != (name_of(one), one.version):
        problems.append(f"it is of {record['name']} {record['version']}, and installed is {name_of(one)} {one.version}")
    if wheel is not None and record["wheel"]["sha256"] != wheel.sha256:
        problems.append(
            f"it is of a wheel with the sha256 {record['wheel']['sha256']}, and the file has {wheel.sha256}"
        )
    return problems


def signature_link(wheel: WheelFile | None, keys: Sequence[TrustedKey], now: datetime) -> Link:
    """Judge the signature beside the wheel, if keys are trusted."""
    if not keys:
        return Link("signature", FREE, "no key was named: key=PUBLIC.pem has it judged")
    if wheel is None:
        what = "the signature lies beside the wheel: name the wheel's file, not the package"
        return Link("signature", UNCHECKED, what, None, UNTRUSTED)
    envelope = wheel.beside(".dsse.json")
    try:
        signed = Signed(
            wheel_sha256=wheel.sha256,
            record=wheel.beside(".json").read_bytes(),
            envelope=envelope.read_bytes() if envelope.is_file() else None,
        )
        key = check_signature(wheel, signed, keys, now)
    except OSError as error:
        return Link("signature", FAILED, f"the record cannot be read: {error}", "fetch it beside the wheel", UNTRUSTED)
    except UntrustedError as error:
        return Link("signature", FAILED, f"{wheel.file}: {error}", _FETCH, UNTRUSTED)
    return Link("signature", OK, f"by the key {key.name}, which holds until {key.valid_until.isoformat()}")
