"""Zip archives whose bytes depend on what is put in and on one pinned library, and on nothing of the running Python.

Python's zipfile compresses with the zlib that this Python was linked to, and takes no data that is compressed already,
so the few headers are written here. What compresses is libdeflate, of the wheel that pyproject.toml pins: it is a part
of that wheel, so every machine has the same one, and it asks the processor for nothing that would change its output.
"""

import struct
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import IO, Final

from deflate import deflate_compress

from hopperforge.errors import RepairError

DEFLATE_LEVEL: Final = 12

_ZIP_EPOCH: Final = 315_532_800  # 1980-01-01: zip cannot name an earlier time
_NEEDED: Final = 20  # version 2.0 of the format: deflate
_MADE_ON_UNIX: Final = 3 << 8 | _NEEDED
_DEFLATED: Final = 8
_UTF8: Final = 0x800
_LARGEST: Final = 2**32 - 2  # more needs the extension for large files, which no wheel of ours comes near
_MOST_MEMBERS: Final = 2**16 - 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file for an archive: its name there, its content, and its mode with the kind of file (0o100644)."""

    name: str
    data: bytes
    mode: int


def writer_versions() -> dict[str, str]:
    """Name what compresses, with its version, for keys and records."""
    return {"deflate": version("deflate")}


def write_zip(stream: IO[bytes], members: Iterable[Member], *, epoch: int) -> None:
    """Write `members` in their order, all with the time `epoch` (UTC); RepairError for more than a plain zip holds."""
    moment = _moment(epoch)
    directory, offset = [], 0
    for member in members:
        if len(member.data) > _LARGEST:
            raise _too_large(member)
        local, central = _headers(member, packed := bytes(deflate_compress(member.data, DEFLATE_LEVEL)), moment, offset)
        stream.write(local + packed)
        directory.append(central)
        offset += len(local) + len(packed)
        if offset > _LARGEST or len(directory) > _MOST_MEMBERS:
            raise _too_large(member)
    listing = b"".join(directory)
    stream.write(listing)
    count = len(directory)
    stream.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(listing), offset, 0))


def _too_large(member: Member) -> RepairError:
    return RepairError(f"{member.name} is more than a zip without extensions can hold")


def _headers(member: Member, packed: bytes, moment: tuple[int, int], offset: int) -> tuple[bytes, bytes]:
    """Make what stands before a member, and its line in the directory; APPNOTE 4.3.7 and 4.3.12."""
    name = member.name.encode()
    flags = 0 if name.isascii() else _UTF8
    sizes = (zlib.crc32(member.data), len(packed), len(member.data), len(name), 0)
    local = struct.pack("<4s5H3I2H", b"PK\3\4", _NEEDED, flags, _DEFLATED, *moment, *sizes)
    made = struct.pack("<4s6H", b"PK\1\2", _MADE_ON_UNIX, _NEEDED, flags, _DEFLATED, *moment)
    central = made + struct.pack("<3I5H2I", *sizes, 0, 0, 0, member.mode << 16, offset)
    return local + name, central + name


def _moment(epoch: int) -> tuple[int, int]:
    """Write a time as zip does: the time of day in two seconds, and the date from 1980 on."""
    when = time.gmtime(max(epoch, _ZIP_EPOCH))
    clock = when.tm_hour << 11 | when.tm_min << 5 | when.tm_sec // 2
    return clock, (when.tm_year - 1980) << 9 | when.tm_mon << 5 | when.tm_mday
