"""Wheel files as archives: reading every member, and writing them so that equal content gives equal bytes.

What a member means is decided elsewhere: `stages.gates` judges, `stages.repair` renames.
"""

import base64
import csv
import hashlib
import io
import stat
import time
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hopperforge.errors import RepairError
from hopperforge.run.files import writing

ELF_MAGIC: Final = b"\x7fELF"
DEFLATE_LEVEL: Final = 9
SIGNATURES: Final = (".jws", ".p7s")

_ZIP_EPOCH: Final = 315_532_800  # 1980-01-01: zip cannot name an earlier time
_UNIX: Final = 3
_READABLE: Final = 0o644
_RUNNABLE: Final = 0o755


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
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
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

    Sorted with the metadata last, all times `epoch` (UTC), modes 644 or 755, no folders, deflate level 9: the
    bytes depend on the content, the epoch and the zlib of this Python alone.
    """
    record = f"{wheel.info}/RECORD"
    content = {name: data for name, data in wheel.files.items() if name != record}
    content[record] = make_record(content, record)
    with writing(final) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(content, key=lambda name: (name.startswith(f"{wheel.info}/"), name == record, name)):
            member = _member(name, runnable=name in wheel.runnable, epoch=epoch)
            archive.writestr(member, content[name], compresslevel=DEFLATE_LEVEL)


def _member(name: str, *, runnable: bool, epoch: int) -> zipfile.ZipInfo:
    moment = time.gmtime(max(epoch, _ZIP_EPOCH))
    member = zipfile.ZipInfo(name, moment[:6])
    member.create_system = _UNIX
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = (stat.S_IFREG | (_RUNNABLE if runnable else _READABLE)) << 16
    return member


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
