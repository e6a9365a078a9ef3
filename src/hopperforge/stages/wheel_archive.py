"""Wheel files as archives: reading every member, and writing them so that equal content gives equal bytes.

What a member means is decided elsewhere: `stages.gates` judges, `stages.repair` renames.
"""

import base64
import csv
import hashlib
import io
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hopperforge.errors import RepairError
from hopperforge.run.archives import READER_ERRORS
from hopperforge.run.files import writing
from hopperforge.stages.zip_writer import Member, write_zip

ELF_MAGIC: Final = b"\x7fELF"
SIGNATURES: Final = (".jws", ".p7s")

_READABLE: Final = stat.S_IFREG | 0o644
_RUNNABLE: Final = stat.S_IFREG | 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelArchive:
    """All members of a wheel.

    `names` are the file members in the order of the archive, repeated ones repeated; `files` maps each to its
    bytes; `runnable` are those with an executable bit; `info` is the .dist-info folder's name; `library` is the member
    that is its shared library, empty where that is known by its suffix alone.
    """

    path: Path
    names: tuple[str, ...]
    files: Mapping[str, bytes]
    runnable: frozenset[str]
    info: str
    library: str = ""

    @property
    def binaries(self) -> tuple[str, ...]:
        """The members that are ELF files, by content and not by name."""
        return tuple(name for name, data in self.files.items() if data.startswith(ELF_MAGIC))

    def text(self, name: str) -> str:
        """A file of the .dist-info folder as text: "METADATA", "WHEEL"; empty if it is not there."""
        return self.files.get(f"{self.info}/{name}", b"").decode("utf-8", errors="replace")


def read_wheel(path: Path) -> WheelArchive:
    """Read a wheel whole; RepairError if it is no readable archive or lacks its one .dist-info folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            files = {member.filename: archive.read(member) for member in members}
    except (OSError, *READER_ERRORS) as error:
        raise RepairError(f"{path} cannot be read as a wheel: {error}", hint="build it again") from error
    folders = {name.split("/")[0] for name in files}
    infos = sorted(folder for folder in folders if folder.endswith(".dist-info"))
    if len(infos) != 1:
        raise RepairError(f"{path} holds {len(infos)} .dist-info folders instead of one", detail=infos)
    return WheelArchive(
        path=path,
        names=tuple(member.filename for member in members),
        files=files,
        runnable=frozenset(member.filename for member in members if (member.external_attr >> 16) & 0o111),
        info=infos[0],
    )


def write_wheel(final: Path, wheel: WheelArchive, *, epoch: int) -> None:
    """Write the members of `wheel` to `final` in one fixed way, with a RECORD made anew.

    Sorted with the metadata last, all times `epoch` (UTC), modes 644 or 755, no folders: the bytes depend on the
    content, the epoch and the pinned library that compresses. RepairError for more than a plain zip can hold.
    """
    record = f"{wheel.info}/RECORD"
    content = {name: data for name, data in wheel.files.items() if name != record}
    content[record] = make_record(content, record)
    members = (
        Member(name=name, data=content[name], mode=_RUNNABLE if name in wheel.runnable else _READABLE)
        for name in sorted(content, key=lambda name: (name.startswith(f"{wheel.info}/"), name == record, name))
    )
    with writing(final) as stream:
        write_zip(stream, members, epoch=epoch)


def record_hash(data: bytes) -> str:
    """The hash of a file as RECORD writes it: sha256=, urlsafe base64 without padding."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
    return "sha256=" + digest.rstrip(b"=").decode("ascii")


def make_record(files: Mapping[str, bytes], record: str) -> bytes:
    """The content of RECORD for `files`, sorted by name; signatures of RECORD and itself carry no hash."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    unhashed = {record + suffix for suffix in SIGNATURES}
    for name in sorted(files):
        writer.writerow((name, "", "") if name in unhashed else (name, record_hash(files[name]), len(files[name])))
    writer.writerow((record, "", ""))
    return out.getvalue().encode()
