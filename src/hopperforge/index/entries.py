"""Catalog entries made from records: what of a package its index shows."""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from packaging.metadata import RawMetadata, parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from hopperforge.index.catalog import Entry, EntryCell, EntryGate
from hopperforge.index.proof import gpu_proof, unproven_reasons
from hopperforge.model.cell import AbiClass
from hopperforge.model.record import Record, ServedCell

_PER_TORCH: Final = re.compile(r"cu\d+torch\d+(\..*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What neither record nor wheel says of a package, and its entry does.

    `driver` is the oldest for its toolkit, empty without one; `default` whether its profile is the recipe's default,
    `uploaded` a UTC time in text; the others are as in Entry.
    """

    driver: str
    default: bool
    uploaded: str
    yanked: str | None = None
    attested: bool = False
    sbom: bool = False
    reproduced: tuple[str, ...] = ()


def make_entry(record: Record, metadata: bytes, publication: Publication) -> Entry:
    """Make the entry of a package from its record and its core metadata, the bytes beside the file.

    It is marked as unproven where the record lacks a proof. ValueError if a version in the record is none.
    """
    core, _ = parse_email(metadata)
    return Entry(
        project=canonicalize_name(record.name),
        version=record.version,
        file=record.wheel.file,
        sha256=record.wheel.sha256,
        size=record.wheel.size,
        library_size=record.wheel.library_size,
        metadata_sha256=hashlib.sha256(metadata).hexdigest(),
        requires_python=core.get("requires_python"),
        platform_tags=record.wheel.platform_tags,
        recipe=record.recipe,
        profile=record.profile,
        default=publication.default,
        switches=record.switches,
        architectures=record.architectures,
        toolkit="" if record.toolkit is None else str(record.toolkit.version),
        driver=publication.driver,
        abi=abi_of(record.version) if record.front.kind.binds_torch else AbiClass.NONE,
        torch=next((text for name, text in _requirements(core) if name == "torch"), None),
        requires=tuple(text for name, text in _requirements(core) if name != "torch"),
        tarball=record.tarball.file if record.tarball is not None else None,
        cells=tuple(map(_entry_cell, sorted(record.cells))),
        gates=tuple(EntryGate(name=gate.name, passed=gate.passed) for gate in record.gates),
        gpu=gpu_proof(record),
        commit=record.source.commit,
        created=record.created,
        uploaded=publication.uploaded,
        yanked=publication.yanked,
        unproven=bool(unproven_reasons(record)),
        attested=publication.attested,
        sbom=publication.sbom or record.sbom is not None,
        reproduced=tuple(sorted({*publication.reproduced, *map(str, record.reproduced)})),
    )


def abi_of(version: str) -> AbiClass:
    """Read from the version of a package of torch how tightly it is tied to it: its local label names the torch."""
    local = Version(version).local or ""
    return AbiClass.PER_TORCH if _PER_TORCH.fullmatch(local) else AbiClass.STABLE


def _entry_cell(cell: ServedCell) -> EntryCell:
    torch, python, runtime = (None if one is None else str(one) for one in (cell.torch, cell.python, cell.runtime))
    return EntryCell(torch=torch, python=python, platform=cell.platform, runtime=runtime)


def _requirements(core: RawMetadata) -> list[tuple[str, str]]:
    """List what the metadata requires: each name, and the name with the versions that do."""
    found = []
    for text in core.get("requires_dist", []):
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue  # the metadata gate judges these
        name = canonicalize_name(requirement.name)
        found.append((str(name), f"{name}{requirement.specifier}"))
    return found
