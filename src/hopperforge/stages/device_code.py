"""How the machine code in a library is compressed, and the gate that asks whether the oldest driver reads it.

The format is NVIDIA's and has no description; the header fields are those that https://github.com/n-eiling/cuda-fatbin-
decompression reads. Compression by algorithm was told by having fatbinary 12.4 and 13.5 write each.
"""

import io
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from hopperforge.stages.gates import Refused, gate, library_name, refuse_if
from hopperforge.stages.wheel_archive import WheelArchive

_SECTION: Final = ".nv_fatbin"
_HEADER: Final = struct.Struct("<IHHQ")
_IMAGE: Final = struct.Struct("<HHIQ")
_TARGET: Final = struct.Struct("<28xI8xQ")
_MAGIC: Final = 0xBA55ED50
_ALGORITHMS: Final = 0xF000
_SPECIFIC: Final = 0x100000  # code for one architecture alone, such as sm_90a

_NONE, _LZ4, _ZSTD = 0x0000, 0x2000, 0x8000
# The oldest driver that is known to read each. LZ4: all machine code of torch 2.6.0+cu124 and 2.8.0+cu128 is in it, and
# these run wherever CUDA 12 does. zstd: nvcc's manual says of compress-mode that it is "not compatible with drivers
# released before" that of CUDA 12.4.
_READERS: Final = {_NONE: "525.60.13", _LZ4: "525.60.13", _ZSTD: "550.54.14"}
_NAMES: Final = {_NONE: "as it is", _LZ4: "LZ4", _ZSTD: "zstd"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image of device code: where in the library, what for (90a), and the bit of the algorithm that packed it."""

    start: int
    size: int
    target: str
    algorithm: int


def read_images(library: bytes) -> tuple[Image, ...]:
    """List the images of device code in a library; ValueError if they cannot be read."""
    try:
        section = ELFFile(io.BytesIO(library)).get_section_by_name(_SECTION)
        return () if section is None else tuple(_images(section.data(), section["sh_offset"]))
    except (ELFError, struct.error) as error:
        message = f"its device code cannot be read: {error}"
        raise ValueError(message) from error


def _images(data: bytes, offset: int) -> Iterator[Image]:
    """Walk containers, which the linker aligns with zeros between them."""
    place, last = 0, len(data.rstrip(b"\0"))
    while place < last:
        magic, _, header, size = _HEADER.unpack_from(data, place)
        if magic == 0:
            place += 8
            continue
        if magic != _MAGIC:
            message = f"no container of device code at byte {place} of {_SECTION}"
            raise ValueError(message)
        place, end = place + header, place + header + size
        while place < end:
            _, _, inner, length = _IMAGE.unpack_from(data, place)
            sm, flags = _TARGET.unpack_from(data, place)
            target = f"{sm}{'a' if flags & _SPECIFIC else ''}"
            yield Image(start=offset + place + inner, size=length, target=target, algorithm=flags & _ALGORITHMS)
            place += inner + length


@gate("compression")
def compression_gate(wheel: WheelArchive, *, driver: str) -> str:
    """Check that the driver of this version, and so every newer one, reads all machine code of the library."""
    own = library_name(wheel)
    try:
        images = read_images(wheel.files[own])
    except ValueError as error:
        raise Refused(str(error)) from error
    found = Counter(image.algorithm for image in images)
    unread = {algorithm: count for algorithm, count in found.items() if not _reads(driver, algorithm)}
    refuse_if(_complaint(algorithm, count, driver) for algorithm, count in sorted(unread.items()))
    kinds = ", ".join(f"{count} {_NAMES[algorithm]}" for algorithm, count in sorted(found.items()))
    return f"machine code: {kinds or 'none'}; driver {driver} reads it"


def _reads(driver: str, algorithm: int) -> bool:
    return algorithm in _READERS and _number(driver) >= _number(_READERS[algorithm])


def _complaint(algorithm: int, count: int, driver: str) -> str:
    if algorithm not in _READERS:
        return f"{count} images are compressed in a way ({algorithm:#06x}) of which no driver is known"
    oldest = _READERS[algorithm]
    return f"{count} images are {_NAMES[algorithm]}, which {oldest} and newer read and driver {driver} does not"


def _number(driver: str) -> tuple[int, ...]:
    return tuple(int(part) for part in driver.split("."))
