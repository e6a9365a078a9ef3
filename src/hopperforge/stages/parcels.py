"""What may be published, and from where: packages of the wheelhouse, or those of another index, each checked whole."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.metadata import parse_email
from packaging.utils import canonicalize_name

from hopperforge.config.project import Project
from hopperforge.errors import InputError, PublishError, RepairError
from hopperforge.index.catalog import Entry
from hopperforge.index.entries import Publication
from hopperforge.index.pages import METADATA_SUFFIX, RECORD_SUFFIX, SIGNATURE_SUFFIX
from hopperforge.index.proof import unproven_reasons
from hopperforge.model.record import Record
from hopperforge.model.request import Kernels
from hopperforge.stages.gates import metadata_gate, record_gate
from hopperforge.stages.publish import Parcel
from hopperforge.stages.wheel_archive import WheelArchive, read_wheel
from hopperforge.store.targets import Target
from hopperforge.store.wheelhouse import Shelved

_PROJECT: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*\.whl")
_TARBALL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*\.tar\.zst")
_PROFILE: Final = re.compile(r"(?!simple$|torch)[a-z0-9][a-z0-9._-]*")
_SBOMS: Final = "/sboms/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A package that was looked at: the parcel, None if it is not what its record says; `wrong` and `unproven` say why.

    Nothing that is wrong is ever published; what is unproven only on demand.
    """

    file: str
    parcel: Parcel | None
    wrong: tuple[str, ...]
    unproven: tuple[str, ...]


def from_wheelhouse(package: Shelved, project: Project, moment: str) -> Candidate:
    """Check a package of the wheelhouse; `moment` is the time it gets as uploaded."""
    record, path = package.record, package.path
    wrong = [*_record_reasons(record, project), *_file_reasons(path, record)]
    wheel = None
    try:
        wheel = read_wheel(path)
    except RepairError as error:
        wrong.append(error.sentence)
    if wheel is not None:
        wrong += _wheel_reasons(wheel, record)
    parcel = None if wrong or wheel is None else _parcel(package, wheel, project, moment)
    return Candidate(file=record.wheel.file, parcel=parcel, wrong=tuple(wrong), unproven=unproven_reasons(record))


def _parcel(package: Shelved, wheel: WheelArchive, project: Project, moment: str) -> Parcel:
    record, path = package.record, package.path
    signature = path.with_name(path.name + SIGNATURE_SUFFIX)
    return Parcel(
        record=record,
        metadata=wheel.files[f"{wheel.info}/METADATA"],
        publication=Publication(
            driver=project.matrix.toolkits[record.toolkit.version].driver if record.toolkit else "",
            default=project.recipes[record.recipe].default_profile == record.profile,
            uploaded=moment,
            sbom=any(name.startswith(f"{wheel.info}{_SBOMS}") for name in wheel.files),
        ),
        signature=signature.read_bytes() if signature.is_file() else None,
        load=lambda: _checked(path.read_bytes(), record.wheel.sha256, str(path)),
        load_tarball=_tarball_of(record, lambda file: path.with_name(file).read_bytes(), str(path.parent)),
    )


def _tarball_of(record: Record, read: Callable[[str], bytes], place: str) -> Callable[[], bytes] | None:
    """Read the tarball that a record names, by its name, and check it; None where it names none."""
    facts = record.tarball
    return None if facts is None else lambda: _checked(read(facts.file), facts.sha256, f"{place}/{facts.file}")


def _record_reasons(record: Record, project: Project) -> Iterable[str]:
    """Say what of a record an index cannot take."""
    yield from _name_reasons(record)
    if record.recipe not in project.recipes:
        yield f'its record says recipe "{record.recipe}", which is not in this checkout: its default profile is unknown'
    if record.toolkit is not None and record.toolkit.version not in project.matrix.toolkits:
        yield f"its record says CUDA {record.toolkit.version}, which matrix.yaml does not: its oldest driver is unknown"


def _name_reasons(record: Record) -> Iterable[str]:
    """Say what of a record's names would lead out of its place in an index, and what is not for indexes."""
    if _PROJECT.fullmatch(canonicalize_name(record.name)) is None:
        yield f'its record says "{record.name}", which is no name of a project'
    if _PROFILE.fullmatch(record.profile) is None:
        yield f'its record says profile "{record.profile}", which is no name of a folder of an index'
    if _FILE.fullmatch(record.wheel.file) is None:
        yield f'its record says file "{record.wheel.file}", which is no plain name of a wheel'
    if record.tarball is not None and _TARBALL.fullmatch(record.tarball.file) is None:
        yield f'its record says tarball "{record.tarball.file}", which is no plain name of one'
    if record.kernels is Kernels.INLINE:
        yield "its kernels are of upstream's own build, which is made to be compared with and not to be used"


def _file_reasons(path: Path, record: Record) -> Iterable[str]:
    if path.name != record.wheel.file:
        yield f"its record says file {record.wheel.file}"
    size = path.stat().st_size
    if size != record.wheel.size:
        yield f"it has {size} bytes, its record says {record.wheel.size}"


def _wheel_reasons(wheel: WheelArchive, record: Record) -> Iterable[str]:
    """Say what of a wheel's content does not agree with its record, its name, or itself."""
    core, _ = parse_email(wheel.text("METADATA"))
    requires = tuple(core.get("requires_dist", []))  # the gate at the build compared these with the recipe
    for result in (
        metadata_gate(wheel, distribution=record.name, version=record.version, requires=requires),
        record_gate(wheel),
    ):
        if not result.passed:
            yield result.detail
    outside = [name for name in wheel.files if name.startswith("/") or ".." in name.split("/") or "\\" in name]
    yield from (f'it holds "{name}", which would be unpacked elsewhere' for name in outside)


def from_index(source: Target, entry: Entry, moment: str) -> Candidate:
    """Check a package of another index: every file beside it is what the catalog there says."""
    path = entry.path
    held = source.fetch(path + RECORD_SUFFIX)
    metadata = source.fetch(path + METADATA_SUFFIX)
    signature = source.fetch(path + SIGNATURE_SUFFIX) if entry.attested else None
    missing = [
        *([f"{path}{RECORD_SUFFIX} is missing"] if held is None else []),
        *([f"{path}{METADATA_SUFFIX} is missing"] if metadata is None else []),
        *([f"{path}{SIGNATURE_SUFFIX} is missing"] if entry.attested and signature is None else []),
    ]
    if held is None or metadata is None or missing:
        return Candidate(file=entry.file, parcel=None, wrong=tuple(missing), unproven=())
    record = Record.from_json(held.data, f"{source.place}/{path}{RECORD_SUFFIX}")
    folder = path.rpartition("/")[0]
    wrong = (*_name_reasons(record), *_copy_reasons(entry, record, metadata.data))
    parcel = Parcel(
        record=record,
        metadata=metadata.data,
        publication=Publication(
            driver=entry.driver,
            default=entry.default,
            uploaded=moment,
            sbom=entry.sbom,
            reproduced=entry.reproduced,
        ),
        signature=None if signature is None else signature.data,
        load=lambda: _fetched(source, entry),
        load_tarball=_tarball_of(record, lambda file: _held(source, f"{folder}/{file}"), f"{source.place}/{folder}"),
    )
    return Candidate(file=entry.file, parcel=None if wrong else parcel, wrong=wrong, unproven=unproven_reasons(record))


def _copy_reasons(entry: Entry, record: Record, metadata: bytes) -> tuple[str, ...]:
    facts = record.wheel
    said = (facts.file, facts.sha256, facts.size, canonicalize_name(record.name), record.version, record.profile)
    listed = (entry.file, entry.sha256, entry.size, entry.project, entry.version, entry.profile)
    core = hashlib.sha256(metadata).hexdigest()
    return (
        *(
            f"its record says {ours}, the catalog {theirs}"
            for ours, theirs in zip(said, listed, strict=True)
            if ours != theirs
        ),
        *(
            [f"its metadata has sha256 {core}, the catalog says {entry.metadata_sha256}"]
            if core != entry.metadata_sha256
            else []
        ),
    )


def _fetched(source: Target, entry: Entry) -> bytes:
    return _checked(_held(source, entry.path), entry.sha256, f"{source.place}/{entry.path}")


def _held(source: Target, path: str) -> bytes:
    held = source.fetch(path)
    return b"" if held is None else held.data


def _checked(data: bytes, sha256: str, place: str) -> bytes:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise PublishError(
            f"{place} is not the file its record names",
            detail=[f"it has sha256 {found}, the record says {sha256}"],
            hint="it was cut off or changed since; nothing of it is listed",
        )
    return data


def named(packages: Sequence[Shelved], names: Collection[str]) -> tuple[Shelved, ...]:
    """The packages that files are, by path or by name in the wheelhouse; InputError for those that are none."""
    by_name = {package.path.name: package for package in packages}
    by_path = {package.path.resolve(): package for package in packages}
    found = {name: by_path.get(Path(name).resolve()) or by_name.get(name) for name in names}
    lacking = [name for name, package in found.items() if package is None]
    if lacking:
        raise InputError(
            "the wheelhouse has no such package",
            detail=[f"{name}: {_why_not(name)}" for name in lacking],
            hint="wheel=NAME.whl, as in the wheelhouse; without wheel= all that are proven",
        )
    return tuple(package for package in found.values() if package is not None)


def _why_not(name: str) -> str:
    return "no record there names its bytes" if Path(name).is_file() else "there is no such file"


def sort_out(candidates: Sequence[Candidate], *, asked: bool, allow_unproven: bool) -> tuple[list[Parcel], list[str]]:
    """Choose what is published, and say what is left out and why.

    | a package is              | asked for by name | among all            | with --allow-unproven |
    |---------------------------|-------------------|----------------------|-----------------------|
    | not what its record says  | PublishError      | PublishError         | PublishError          |
    | unproven                  | PublishError      | left out, and said   | published, and marked |
    | proven                    | published         | published            | published             |

    PublishError lists every reason, of every package.
    """
    refused = [f"{found.file}: {reason}" for found in candidates for reason in found.wrong]
    unproven = [] if allow_unproven else [found for found in candidates if found.unproven and not found.wrong]
    reasons = [f"{found.file}: {reason}" for found in unproven for reason in found.unproven]
    kept = [found.parcel for found in candidates if found.parcel is not None and found not in unproven]
    if asked or not kept:
        refused += reasons
    if refused:
        raise PublishError(
            "nothing was published, for not every package may be",
            detail=refused,
            hint="--allow-unproven publishes what lacks a proof, and the index says so of it" if reasons else None,
        )
    return kept, reasons
