"""A wheel with its bill of materials and licences, and the record that agrees with it."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.unit import wheel_zoo as zoo
from tests.unit.record_zoo import record

from hopperforge.model.record import Record
from hopperforge.provenance.contents import Contents
from hopperforge.provenance.sbom import make_sbom, sbom_member
from hopperforge.run.files import sha256_file
from hopperforge.stages.repair import finish
from hopperforge.stages.wheel_archive import read_wheel

LICENCES = {"LICENSE": b"Do as you like.\n", "LICENSE.cuda.txt": b"Do as we like.\n"}
SBOM_MEMBER = sbom_member(zoo.INFO, "fa3_fwd")


def contents(**changes: Any) -> Contents:
    """The contents of the zoo's record, with the licences above."""
    hashes = {name: hashlib.sha256(text).hexdigest() for name, text in LICENCES.items()}
    return replace(Contents.of(record(licences=hashes)), **changes)


def licensed(changes: Mapping[str, bytes | None] | None = None) -> dict[str, bytes | None]:
    """The members that make a wheel of the zoo one with licences, with `changes` made."""
    lines = "".join(f"License-File: {name}\n" for name in LICENCES)
    members: dict[str, bytes | None] = {f"{zoo.INFO}/licenses/{name}": text for name, text in LICENCES.items()}
    members[f"{zoo.INFO}/METADATA"] = zoo.metadata().replace(b"\n\n", f"\n{lines}\n".encode(), 1)
    return {**members, **(changes or {})}


def package(folder: Path, changes: Mapping[str, bytes | None] | None = None) -> tuple[Path, Record]:
    """A whole wheel in `folder`, as `repair` leaves it, and its record, which is true."""
    made = zoo.write(folder / "made", zoo.files(licensed(changes), tag=zoo.TAG), tag=zoo.TAG)
    sbom = make_sbom(contents())
    path = finish(made, epoch=zoo.EPOCH, sbom=sbom, work=folder, workspace=zoo.workspace(folder)).path
    facts = replace(
        record().wheel,
        file=path.name,
        sha256=sha256_file(path),
        size=path.stat().st_size,
        library_size=len(read_wheel(path).files[zoo.LIBRARY]),
    )
    return path, record(wheel=facts, licences=contents().licences, sbom=hashlib.sha256(sbom).hexdigest())
