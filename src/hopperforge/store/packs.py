"""Kernel packs as archives: the same objects give the same bytes, and nothing is taken out unchecked.

A pack is an uncompressed tar: `manifest.json`, then `objects/<unit name>.o` in order of name, every member with fixed
times, owner and mode. What an object cost to compile is not in it, since it differs from run to run; costs stand in
the note beside a stored pack. Single objects are in `store.objects`.
"""

import contextlib
import hashlib
import io
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from hopperforge.errors import CompileError, SourceError
from hopperforge.model.keys import JsonValue, canonical_json
from hopperforge.model.pack import PACK_FORMAT, KernelPack, PackedUnit, pack_key
from hopperforge.report import Reporter
from hopperforge.run.files import sha256_file, write_atomic, writing

MANIFEST: Final = "manifest.json"

_MODE: Final = 0o644


class _ManifestUnit(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    path: str
    sources: list[str]
    key: str
    sha256: str
    size: int


class _Manifest(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    format: int
    units: list[_ManifestUnit]


class _Note(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    sha256: str
    units: list[PackedUnit]


def object_member(path: str) -> str:
    """The name of a unit's object in a pack: objects/flash_fwd_hdim128_bf16_sm90.o."""
    return f"objects/{Path(path).stem}.o"


def require_distinct_names(paths: Sequence[str]) -> None:
    """Refuse units that would share an object name, with CompileError: a pack names objects by unit name."""
    for member, count in Counter(object_member(path) for path in paths).items():
        if count > 1:
            same = sorted(path for path in paths if object_member(path) == member)
            raise CompileError(f"{count} units would both be {member} of one kernel pack", detail=same)


def write_pack(units: Sequence[PackedUnit], read: Callable[[PackedUnit], bytes], archive: Path) -> str:
    """Write the pack of `units` and return its sha256; `read` gives the object of a unit.

    The bytes depend on the units' paths, keys and objects alone: not on their order, the clock, the user or the umask.
    Raises CompileError if two units share a name, SourceError if `read` gives bytes a unit's sha256 does not name.
    """
    require_distinct_names([unit.path for unit in units])
    ordered = sorted(units, key=lambda unit: object_member(unit.path))
    with writing(archive) as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, MANIFEST, _manifest(ordered))
        for unit in ordered:
            data = read(unit)
            if hashlib.sha256(data).hexdigest() != unit.sha256:
                raise SourceError(f"the object of {unit.path} does not match its sha256 {unit.sha256}")
            _add(tar, object_member(unit.path), data)
    return sha256_file(archive)


def _manifest(units: Sequence[PackedUnit]) -> bytes:
    entries: list[JsonValue] = [
        {
            "path": unit.path,
            "sources": unit.sources,
            "key": unit.key,
            "sha256": unit.sha256,
            "size": unit.size,
        }
        for unit in units
    ]
    return canonical_json({"format": PACK_FORMAT, "units": entries})


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # a new TarInfo has time, user and group zero and no owner's name
    member.size = len(data)
    member.mode = _MODE
    tar.addfile(member, io.BytesIO(data))


def read_pack(archive: Path, into: Path) -> tuple[Path, ...]:
    """Unpack the objects into the folder `into`, each checked before it is written; their paths, sorted.

    Raises SourceError if the archive is truncated, holds anything its manifest does not say, or lacks anything it
    says. `into` may then hold objects, each of them right.
    """
    unpacked = []
    for name, data in _checked_members(archive):
        target = into / Path(name).name
        write_atomic(target, data)
        unpacked.append(target)
    return tuple(sorted(unpacked))


def _checked_members(archive: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(archive, mode="r:") as tar:
            manifest = _read_manifest(archive, tar)
            for unit in manifest.units:
                yield object_member(unit.path), _next(archive, tar, unit)
            extra = tar.next()
            if extra is not None:
                raise _damaged(archive, f"{extra.name} is not in the manifest")
    except (tarfile.TarError, EOFError) as error:
        raise _damaged(archive, str(error)) from error
    except FileNotFoundError as error:
        raise SourceError(f"the kernel pack {archive} does not exist") from error


def _read_manifest(archive: Path, tar: tarfile.TarFile) -> _Manifest:
    member = tar.next()
    if member is None or member.name != MANIFEST:
        raise _damaged(archive, f"it does not begin with {MANIFEST}")
    try:
        manifest = _Manifest.model_validate_json(_content(tar, member))
    except ValidationError as error:
        raise _damaged(archive, f"{MANIFEST} is not one: {error.errors()[0]['msg']}") from error
    if manifest.format != PACK_FORMAT:
        raise _damaged(archive, f"its format is {manifest.format}, and this hopperforge reads {PACK_FORMAT}")
    return manifest


def _next(archive: Path, tar: tarfile.TarFile, unit: _ManifestUnit) -> bytes:
    member = tar.next()
    expected = object_member(unit.path)
    if member is None or member.name != expected:
        raise _damaged(archive, f"{expected} is missing")
    data = _content(tar, member)
    if len(data) != unit.size or hashlib.sha256(data).hexdigest() != unit.sha256:
        raise _damaged(archive, f"{expected} does not match its sha256")
    return data


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member) if member.isreg() else None
    if stream is None:
        message = f"{member.name} is not a file"
        raise tarfile.ReadError(message)
    return stream.read()


def _damaged(archive: Path, what: str) -> SourceError:
    return SourceError(f"the kernel pack {archive} is damaged: {what}", hint=f"rm {archive}   # then build again")


def store_pack(
    folder: Path, units: Sequence[PackedUnit], read: Callable[[PackedUnit], bytes], *, compiled: int
) -> KernelPack:
    """Write a pack and its note into `folder` under the pack's key; `compiled` is passed on."""
    key = pack_key({unit.path: unit.key for unit in units})
    archive = _archive(folder, key)
    sha256 = write_pack(units, read, archive)
    ordered = tuple(sorted(units, key=lambda unit: unit.path))
    note = _Note(sha256=sha256, units=list(ordered))
    write_atomic(_note_path(folder, key), note.model_dump_json().encode())
    return KernelPack(key=key, sha256=sha256, archive=archive, units=ordered, compiled=compiled)


def pack_sizes(folder: Path) -> Mapping[str, int]:
    """The bytes of each stored pack's archive, by key."""
    return {path.stem: path.stat().st_size for path in sorted(folder.glob("[!.]*.tar")) if path.is_file()}


def find_pack(folder: Path, key: str, reporter: Reporter) -> KernelPack | None:
    """The stored pack of `key`, its archive hashed just now, which counts as its use; a damaged one is removed."""
    pack = check_pack(folder, key, reporter)
    if pack is not None:
        with contextlib.suppress(OSError):  # as in `ObjectStore.load`
            os.utime(_note_path(folder, key))
    return pack


def check_pack(folder: Path, key: str, reporter: Reporter) -> KernelPack | None:
    """As `find_pack`, but for looking only: a damaged pack is reported, removed and None."""
    archive, note_path = _archive(folder, key), _note_path(folder, key)
    if not (archive.is_file() and note_path.is_file()):
        return None
    try:
        note = _Note.model_validate_json(note_path.read_bytes())
    except ValidationError:
        note = None
    if note is not None and sha256_file(archive) == note.sha256:
        return KernelPack(key=key, sha256=note.sha256, archive=archive, units=tuple(note.units), compiled=0)
    reporter.warn(f"the kernel pack {archive} does not match the sha256 noted beside it; it was removed")
    note_path.unlink(missing_ok=True)
    archive.unlink(missing_ok=True)
    return None


def _archive(folder: Path, key: str) -> Path:
    return folder / f"{key}.tar"


def _note_path(folder: Path, key: str) -> Path:
    return folder / f"{key}.json"
