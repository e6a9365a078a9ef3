"""Gates that read a wheel's bytes: each looks at one property and says what it found.

A gate never raises for a bad wheel: it returns a failed result, so that a report can name every failure at once.
Gates that run a program are in `stages.gates_tools`.
"""

import csv
import email
import fnmatch
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, ParamSpec

from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from hopperforge.model.profile import Budget
from hopperforge.model.wheel import GateResult
from hopperforge.stages.elf import Library, read_library
from hopperforge.stages.wheel_archive import SIGNATURES, WheelArchive, record_hash

# What every Linux that keeps the platform tag's promise has.
SYSTEM_LIBRARIES: Final = frozenset(
    {
        "libstdc++.so.6",
        "libm.so.6",
        "libgcc_s.so.1",
        "libc.so.6",
        "libpthread.so.0",
        "libdl.so.2",
        "librt.so.1",
        "ld-linux-x86-64.so.2",
    }
)
PURE_TAG: Final = "py3-none-any"
"""The tag of a wheel without machine code."""
LIBRARY_SUFFIX: Final = ".abi3.so"

_FOREIGN: Final = re.compile(r"(^|/)lib(torch|c10|cu|nv)[^/]*\.so[^/]*$|(^|/)[^/]*\.libs/")
_SHORTEST_PRIVATE: Final = 5  # a shorter text is found in a large library by chance
_SOURCE_PATH: Final = re.compile(
    rb"(?<![\w./:>~-])/(?:[\w.+~-]+/)+[\w.+~-]+\.(?:hpp|cuh|hh|h|cu|cpp|cxx|cc|c|inl|ipp|py)(?![\w.])"
)
_NAME_START: Final = re.compile(rb"[A-Za-z0-9]")
_NAME_PART: Final = re.compile(rb"[A-Za-z0-9._-]")
_SYSTEM_SOURCES: Final = (b"/usr/include/", b"/usr/lib/gcc/")
_SHOWN: Final = 10

P = ParamSpec("P")


class Refused(Exception):  # noqa: N818 - it is a finding, not an error of the program
    """A gate's reasons to refuse a wheel, raised inside a gate only."""

    def __init__(self, *reasons: str) -> None:
        more = len(reasons) - _SHOWN
        shown = [*reasons[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        super().__init__("; ".join(shown))


def gate(name: str) -> Callable[[Callable[P, str]], Callable[P, GateResult]]:
    """Make a gate of a check that returns what it looked at, or raises Refused with its reasons."""

    def make(check: Callable[P, str]) -> Callable[P, GateResult]:
        @functools.wraps(check)
        def judged(*args: P.args, **kwargs: P.kwargs) -> GateResult:
            try:
                return GateResult(name=name, passed=True, detail=check(*args, **kwargs))
            except Refused as refusal:
                return GateResult(name=name, passed=False, detail=str(refusal))

        return judged

    return make


def refuse_if(reasons: Iterable[str]) -> None:
    """Raise Refused if there is any reason."""
    found = list(reasons)
    if found:
        raise Refused(*found)


def library_name(wheel: WheelArchive) -> str:
    """The member that is the wheel's shared library; Refused unless there is exactly one."""
    if wheel.library:
        if wheel.library not in wheel.binaries:
            raise Refused(f"the wheel holds no shared library {wheel.library}")
        return wheel.library
    names = [name for name in wheel.binaries if name.endswith(LIBRARY_SUFFIX)]
    if len(names) != 1:
        raise Refused(f"the wheel holds {len(names)} shared libraries *{LIBRARY_SUFFIX} instead of one")
    return names[0]


def _library(wheel: WheelArchive) -> Library:
    name = library_name(wheel)
    try:
        return read_library(wheel.files[name])
    except ValueError as error:
        raise Refused(f"{name}: {error}") from error


@gate("metadata")
def metadata_gate(
    wheel: WheelArchive,
    *,
    distribution: str,
    version: str,
    requires: tuple[str, ...],
    requires_python: str | None = None,
) -> str:
    """Check that file name, METADATA and WHEEL agree with each other and with what was ordered.

    `requires_python` is what the recipe says, None where there is no recipe to ask.
    """
    try:
        name, number, build, tags = parse_wheel_filename(wheel.path.name)
    except InvalidWheelFilename as error:
        raise Refused(str(error)) from error
    if build:
        raise Refused(f"the file name carries the build tag {build[0]}{build[1]}")
    metadata, _ = parse_email(wheel.text("METADATA"))
    refuse_if(
        [
            *_named("file name", name, str(number), distribution, version),
            *_named("METADATA", metadata.get("name", ""), metadata.get("version", ""), distribution, version),
            *_required(metadata.get("requires_dist", []), requires),
            *(_for_python(metadata.get("requires_python", ""), requires_python) if requires_python else ()),
            *_tagged(wheel.text("WHEEL"), frozenset(map(str, tags))),
        ]
    )
    return ", ".join([f"{name} {number}", *requires, *sorted(map(str, tags))])


def _named(place: str, name: str, version: str, distribution: str, expected: str) -> Iterable[str]:
    if canonicalize_name(name) != canonicalize_name(distribution):
        yield f"{place} says name {name or 'nothing'}, expected {distribution}"
    try:
        same = Version(version) == Version(expected)
    except InvalidVersion:
        same = False
    if not same:
        yield f"{place} says version {version or 'nothing'}, expected {expected}"


def _required(found: Iterable[str], expected: Iterable[str]) -> Iterable[str]:
    try:
        same = {str(Requirement(text)) for text in found} == {str(Requirement(text)) for text in expected}
    except InvalidRequirement:
        same = False
    if not same:
        yield f"Requires-Dist is {sorted(found)}, expected {sorted(expected)}"


def _for_python(found: str, expected: str) -> Iterable[str]:
    try:
        same = SpecifierSet(found) == SpecifierSet(expected)
    except InvalidSpecifier:
        same = False
    if not same:
        yield f"Requires-Python is {found or 'missing'}, expected {expected}"


def _tagged(wheel_file: str, expected: frozenset[str]) -> Iterable[str]:
    fields = email.message_from_string(wheel_file)
    tags = frozenset(fields.get_all("Tag") or [])
    if tags != expected:
        yield f"WHEEL says tags {sorted(tags)}, the file name {sorted(expected)}"
    pure = str(expected == {PURE_TAG}).lower()
    if fields.get("Root-Is-Purelib", "").lower() != pure:
        yield f"WHEEL does not say Root-Is-Purelib: {pure}"


@gate("record")
def record_gate(wheel: WheelArchive) -> str:
    """Check that RECORD lists every file once, with its true hash and size, and nothing else."""
    record = f"{wheel.info}/RECORD"
    rows = [(*row, "", "", "")[:3] for row in csv.reader(wheel.text("RECORD").splitlines()) if row]
    listed = {name: (digest, size) for name, digest, size in rows}
    unhashed = {record, *(record + suffix for suffix in SIGNATURES)}
    refuse_if(
        [
            *(f"{name} is {count} times in the archive" for name, count in _repeated(wheel.names)),
            *(f"{name} is {count} times in RECORD" for name, count in _repeated(name for name, _, _ in rows)),
            *(f"{name} is not in RECORD" for name in sorted(wheel.files.keys() - listed.keys())),
            *(f"{name} is in RECORD and not in the wheel" for name in sorted(listed.keys() - wheel.files.keys())),
            *(
                f"{name} does not match its line in RECORD"
                for name, data in wheel.files.items()
                if name in listed and name not in unhashed and listed[name] != (record_hash(data), str(len(data)))
            ),
        ]
    )
    return f"{len(rows)} files"


def _repeated(names: Iterable[str]) -> list[tuple[str, int]]:
    return [(name, count) for name, count in Counter(names).items() if count > 1]


@gate("needed")
def needed_gate(wheel: WheelArchive, *, needed: frozenset[str]) -> str:
    """Check that DT_NEEDED without the system's libraries is exactly `needed`."""
    found = frozenset(_library(wheel).needed) - SYSTEM_LIBRARIES
    refuse_if(
        [
            *(f"DT_NEEDED names {name}, which the recipe does not allow" for name in sorted(found - needed)),
            *(f"DT_NEEDED lacks {name}" for name in sorted(needed - found)),
        ]
    )
    return ", ".join(sorted(found)) or "system libraries only"


@gate("bundled")
def bundled_gate(wheel: WheelArchive, *, programs: frozenset[str] = frozenset()) -> str:
    """Check that the library and `programs` are the only binaries, and nothing of torch or CUDA is packed in."""
    own = library_name(wheel)
    others = {*wheel.binaries, *(name for name in wheel.files if _FOREIGN.search(name))} - {own, *programs}
    refuse_if(f"{name} is packed in" for name in sorted(others))
    return f"{own} is the only binary" if not programs else f"{own} and {', '.join(sorted(programs))}: no other binary"


@gate("paths")
def paths_gate(wheel: WheelArchive, *, private: Mapping[str, str], library: bool = True) -> str:
    """Check that no file names this machine and the library, where there is one, no source by absolute path.

    `private` maps each text to look for (a folder, the host name) to what it is. Texts shorter than five
    characters are left out and the detail says so.
    """
    searched = {text: what for text, what in private.items() if len(text) >= _SHORTEST_PRIVATE}
    own = [library_name(wheel)] if library else []
    refuse_if(
        [
            *(hit for text, what in searched.items() for hit in _private_hits(wheel, text, what)),
            *(hit for name in own for hit in _source_hits(name, wheel.files[name])),
        ]
    )
    left_out = sorted(what for text, what in private.items() if text not in searched)
    detail = f"looked for {', '.join(sorted(searched.values()))}" + (", absolute source paths" if library else "")
    return detail + (f"; too short to look for: {', '.join(left_out)}" if left_out else "")


def _private_hits(wheel: WheelArchive, text: str, what: str) -> Iterable[str]:
    for name, data in wheel.files.items():
        offset = _find_word(data, text.encode())
        if offset is not None:
            yield f"{name} holds the {what} {text} at offset {offset}"


def _find_word(data: bytes, text: bytes) -> int | None:
    """Find `text` where it is no part of a longer name: /home/ann is not in /home/anna. None if it is nowhere."""
    # find() first: it is many times faster than a pattern over a library of 100 MB
    offset = data.find(text)
    while offset >= 0:
        end = offset + len(text)
        joined = _NAME_START.fullmatch(data[max(offset - 1, 0) : offset]) or (
            text[-1:].isalnum() and _NAME_PART.fullmatch(data[end : end + 1])
        )
        if not joined:
            return offset
        offset = data.find(text, offset + 1)
    return None


def _source_hits(name: str, data: bytes) -> Iterable[str]:
    seen: dict[bytes, int] = {}
    for found in _SOURCE_PATH.finditer(data):
        if not found[0].startswith(_SYSTEM_SOURCES):
            seen.setdefault(found[0], found.start())
    for path, offset in seen.items():
        yield f"{name} holds the source path {path.decode(errors='replace')} at offset {offset}"


@gate("exports")
def exports_gate(wheel: WheelArchive, *, symbols: tuple[str, ...] = ("PyInit_*",)) -> str:
    """Check that the library shows to the dynamic linker what matches `symbols`, some of each, and nothing else."""
    exports = _library(wheel).exports
    refuse_if(
        [
            *(
                f"{name} is exported"
                for name in exports
                if not any(fnmatch.fnmatchcase(name, pattern) for pattern in symbols)
            ),
            *(f"no {pattern} is exported" for pattern in symbols if not fnmatch.filter(exports, pattern)),
        ]
    )
    if not exports:
        return "nothing, as the recipe says"
    return ", ".join(exports[:_SHOWN]) + (f" and {len(exports) - _SHOWN} more" if len(exports) > _SHOWN else "")


@gate("runpath")
def runpath_gate(wheel: WheelArchive) -> str:
    """Check that the library adds no folder to the search of the dynamic linker."""
    refuse_if(f"DT_RPATH or DT_RUNPATH is {path}" for path in _library(wheel).search_paths)
    return "no DT_RPATH, no DT_RUNPATH"


@gate("size")
def size_gate(wheel: WheelArchive, *, budget: Budget, library: bool = True) -> str:
    """Check that the wheel and the library in it, where there is one, keep within the profile's budget, in bytes."""
    sizes = {"the wheel": (wheel.path.stat().st_size, budget.wheel)}
    if library:
        sizes["the library"] = (len(wheel.files[library_name(wheel)]), budget.library)
    refuse_if(f"{what} has {size} bytes, allowed are {most}" for what, (size, most) in sizes.items() if size > most)
    return ", ".join(f"{what} {size} of {most} bytes" for what, (size, most) in sizes.items())
