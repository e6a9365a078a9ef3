"""Gates of fronts that a recipe brings itself: what they leave out, by what name they are found, and their programs."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from hopperforge.model.front import Front
from hopperforge.stages.elf import Library, read_library, section_of, shown_symbols
from hopperforge.stages.gates import SYSTEM_LIBRARIES, Refused, gate, library_name, refuse_if
from hopperforge.stages.wheel_archive import WheelArchive

_ARCHIVE: Final = b"!<arch>\n"
_MEMBER: Final = re.compile(rb"(?P<name>[!-~ ]{16})[0-9 ]{32}(?P<size>[0-9]{1,9}) *`\n")
_HEADER_BYTES: Final = 60
_LISTS: Final = (b"/", b"//")
_DEVICE_CODE: Final = ".nv_fatbin"
_PYTHON: Final = re.compile(r"_?Py[A-Z_]\w*")


def _read(wheel: WheelArchive, name: str) -> Library:
    if name not in wheel.files:
        raise Refused(f"{name} is not in the wheel")
    try:
        return read_library(wheel.files[name])
    except ValueError as error:
        raise Refused(f"{name}: {error}") from error


@gate("python-free")
def python_free_gate(wheel: WheelArchive) -> str:
    """Check that a library for any Python or none wants nothing of Python, and is tagged so."""
    name = library_name(wheel)
    tags = wheel.path.stem.split("-")[-3:-1]
    refuse_if(
        [
            *(f"{name} wants {symbol} of Python" for symbol in _read(wheel, name).imports if _PYTHON.fullmatch(symbol)),
            *([f"the wheel is tagged {'-'.join(tags)}, not py3-none"] if tags != ["py3", "none"] else []),
        ]
    )
    return f"{name} wants no symbol of Python"


@gate("soname")
def soname_gate(wheel: WheelArchive, *, soname: str) -> str:
    """Check that programs linked with the library will look for it by the versioned name that its file has."""
    name = library_name(wheel)
    found = _read(wheel, name).soname
    if found != soname or name.rpartition("/")[2] != soname:
        raise Refused(f"DT_SONAME of {name} is {found}, expected {soname}")
    return soname


@gate("archive")
def archive_gate(wheel: WheelArchive, *, place: str, symbols: tuple[str, ...]) -> str:
    """Check that the static library is one object that shows what matches `symbols`, with the library's machine code.

    A pattern of `symbols` may be of the shared library alone, as the name of a version is.
    """
    data = _only_member(wheel.files.get(place, b""), place)
    try:
        shown = shown_symbols(data)
        same = section_of(data, _DEVICE_CODE) == section_of(wheel.files[library_name(wheel)], _DEVICE_CODE)
    except ValueError as error:
        raise Refused(f"{place}: {error}") from error
    known = [symbol for symbol in shown if any(fnmatchcase(symbol, pattern) for pattern in symbols)]
    refuse_if(
        [
            *(f"{symbol} is shown" for symbol in shown if symbol not in known),
            *([] if known else [f"no {' or '.join(symbols)} is shown"]),
            *([] if same else ["its machine code is not the library's"]),
        ]
    )
    return f"one object shows {len(shown)} symbols, and has the library's machine code"


def _only_member(archive: bytes, place: str) -> bytes:
    """Give the one object of an archive; before it are the archive's own lists of symbols and of long names alone."""
    found, start = [], len(_ARCHIVE)
    while archive.startswith(_ARCHIVE) and start < len(archive):
        header = _MEMBER.fullmatch(archive[start : start + _HEADER_BYTES])
        if header is None:
            raise Refused(f"{place}: it is no archive of one object")
        begin, size = start + _HEADER_BYTES, int(header["size"])
        if header["name"].rstrip() not in _LISTS:
            found.append(archive[begin : begin + size])
        start = begin + size + size % 2
    if len(found) != 1:
        raise Refused(f"{place}: it is no archive of one object")
    return found[0]


@gate("programs")
def programs_gate(wheel: WheelArchive, *, front: Front, package: str) -> str:
    """Check that each program can be run, needs the system's libraries and ours alone, and finds ours beside it."""
    refuse_if(reason for place in front.programs for reason in _program(wheel, front, f"{package}/{place}"))
    return ", ".join(sorted(front.programs))


def _program(wheel: WheelArchive, front: Front, name: str) -> Iterable[str]:
    program = _read(wheel, name)
    ours = front.library.rpartition("/")[2]
    if name not in wheel.runnable:
        yield f"{name} has no executable bit"
    for needed in sorted({*program.needed} - SYSTEM_LIBRARIES - {ours}):
        yield f"{name} needs {needed}"
    if ours not in program.needed:
        yield f"{name} does not need {ours}"
    for path in program.search_paths:
        if not path.startswith("$ORIGIN"):
            yield f"{name} looks for libraries in {path}"
    if not program.search_paths:
        yield f"{name} looks for {ours} where the system looks alone"
