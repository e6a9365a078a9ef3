"""Every gate that reads bytes, on a wheel that passes and on each wheel it must refuse; the libraries are real."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.unit import wheel_zoo as zoo

from hopperforge.model.profile import Budget
from hopperforge.model.wheel import GateResult
from hopperforge.stages import gates
from hopperforge.stages.wheel_archive import WheelArchive, read_wheel

NEEDED = frozenset({"libc10.so", "libtorch_cpu.so"})
ROOMY = Budget(wheel=1_000_000, library=1_000_000)


@dataclass(frozen=True)
class Case:
    """A wheel changed in one way and words of the detail that must tell it."""

    changes: Mapping[str, bytes | None]
    says: str
    name: str | None = None


def _judge(gate: Callable[..., GateResult], wheel: WheelArchive, **arguments: object) -> GateResult:
    result = gate(wheel, **arguments)
    assert result.detail
    return result


def _refused(result: GateResult, says: str) -> None:
    assert not result.passed
    assert says in result.detail


# metadata

ORDERED = {
    "distribution": zoo.DISTRIBUTION,
    "version": zoo.VERSION,
    "requires": zoo.REQUIRES,
    "requires_python": zoo.REQUIRES_PYTHON,
}


def for_python(line: bytes) -> bytes:
    """METADATA with another line in place of Requires-Python."""
    return zoo.metadata().replace(b"Requires-Python: >=3.9\n", line)


def test_metadata_that_agrees_passes(tmp_path: Path) -> None:
    result = _judge(gates.metadata_gate, zoo.opened(tmp_path), **ORDERED)
    assert result == GateResult(
        name="metadata", passed=True, detail="fa3-fwd 3.0.0+cu130, torch>=2.9, cp39-abi3-manylinux_2_17_x86_64"
    )


@pytest.mark.parametrize(
    "case",
    [
        Case({f"{zoo.INFO}/METADATA": zoo.metadata(name="flash-attn-3")}, "METADATA says name flash-attn-3"),
        Case({f"{zoo.INFO}/METADATA": zoo.metadata("3.0.0+cu124")}, "METADATA says version 3.0.0+cu124, expected"),
        Case({f"{zoo.INFO}/METADATA": None}, "METADATA says version nothing"),
        Case({f"{zoo.INFO}/METADATA": zoo.metadata(requires=())}, "Requires-Dist is [], expected ['torch>=2.9']"),
        Case({f"{zoo.INFO}/METADATA": zoo.metadata(requires=("torch",))}, "Requires-Dist is ['torch']"),
        Case({f"{zoo.INFO}/METADATA": zoo.metadata(requires=("torch>=2.9", "einops"))}, "'einops'"),
        Case({f"{zoo.INFO}/METADATA": for_python(b"")}, "Requires-Python is missing, expected >=3.9"),
        Case({f"{zoo.INFO}/METADATA": for_python(b"Requires-Python: >=3.8\n")}, "Requires-Python is >=3.8, expected"),
        Case({f"{zoo.INFO}/METADATA": for_python(b"Requires-Python: new\n")}, "Requires-Python is new, expected >=3.9"),
        Case({f"{zoo.INFO}/WHEEL": zoo.wheel_file(zoo.RAW_TAG)}, "WHEEL says tags ['cp39-abi3-linux_x86_64']"),
        Case({f"{zoo.INFO}/WHEEL": zoo.wheel_file(zoo.TAG, pure="true")}, "Root-Is-Purelib"),
        Case({}, "file name says version 3.0.0", name="fa3_fwd-3.0.0-cp39-abi3-manylinux_2_17_x86_64.whl"),
        Case({}, "file name says name other", name=f"other-{zoo.VERSION}-{zoo.TAG}.whl"),
        Case({}, "build tag 1", name=f"fa3_fwd-{zoo.VERSION}-1-{zoo.TAG}.whl"),
        Case({}, "Invalid wheel filename", name="fa3_fwd.whl"),
    ],
    ids=lambda case: case.says[:40],
)
def test_metadata_that_disagrees_is_refused(tmp_path: Path, case: Case) -> None:
    wheel = zoo.opened(tmp_path, case.changes, name=case.name)
    _refused(_judge(gates.metadata_gate, wheel, **ORDERED), case.says)


# record


def test_record_that_agrees_passes(tmp_path: Path) -> None:
    assert gates.record_gate(zoo.opened(tmp_path)) == GateResult(name="record", passed=True, detail="5 files")


RECORD = zoo.files(tag=zoo.TAG)[f"{zoo.INFO}/RECORD"]
RECORD_WITHOUT_INIT = b"".join(line for line in RECORD.splitlines(keepends=True) if b"__init__" not in line)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (RECORD_WITHOUT_INIT, "fa3_fwd/__init__.py is not in RECORD"),
        (RECORD + b"ghost.py,sha256=x,1\n", "ghost.py is in RECORD and not in the wheel"),
        (b"fa3_fwd/__init__.py,,\n" + RECORD_WITHOUT_INIT, "__init__.py does not match its line"),
        (RECORD.replace(b",17\n", b",18\n"), "__init__.py does not match its line"),
        (RECORD.replace(b"sha256=", b"md5="), "_C.abi3.so does not match its line"),
        (RECORD * 2, "fa3_fwd/__init__.py is 2 times in RECORD"),
        (b"", "fa3_fwd/_C.abi3.so is not in RECORD"),
    ],
)
def test_record_that_disagrees_is_refused(tmp_path: Path, record: bytes, says: str) -> None:
    _refused(gates.record_gate(zoo.opened(tmp_path, {f"{zoo.INFO}/RECORD": record})), says)


def test_file_changed_after_the_record_is_refused(tmp_path: Path) -> None:
    members = zoo.files(tag=zoo.TAG) | {"fa3_fwd/__init__.py": b'"""A  package"""\n'}
    wheel = read_wheel(zoo.write(tmp_path, members, tag=zoo.TAG))
    _refused(gates.record_gate(wheel), "fa3_fwd/__init__.py does not match its line in RECORD")


def test_member_that_is_twice_in_the_archive_is_refused(tmp_path: Path) -> None:
    wheel = zoo.opened(tmp_path)
    twice = replace(wheel, names=(*wheel.names, zoo.LIBRARY))
    _refused(gates.record_gate(twice), f"{zoo.LIBRARY} is 2 times in the archive")


# needed, exports, runpath


def test_exactly_the_needed_libraries_pass(tmp_path: Path) -> None:
    wheel = zoo.opened(tmp_path, {zoo.LIBRARY: zoo.library(needed=tuple(sorted(NEEDED)))})
    result = gates.needed_gate(wheel, needed=NEEDED)
    assert result == GateResult(name="needed", passed=True, detail="libc10.so, libtorch_cpu.so")


@pytest.mark.parametrize(
    ("needed", "says"),
    [
        ((*sorted(NEEDED), "libcudart.so.13"), "DT_NEEDED names libcudart.so.13"),
        (("libc10.so",), "DT_NEEDED lacks libtorch_cpu.so"),
        ((), "DT_NEEDED lacks libc10.so; DT_NEEDED lacks libtorch_cpu.so"),
    ],
)
def test_other_needed_libraries_are_refused(tmp_path: Path, needed: tuple[str, ...], says: str) -> None:
    wheel = zoo.opened(tmp_path, {zoo.LIBRARY: zoo.library(needed=needed)})
    _refused(gates.needed_gate(wheel, needed=NEEDED), says)


def test_library_that_shows_its_entry_point_only_passes(tmp_path: Path) -> None:
    result = gates.exports_gate(zoo.opened(tmp_path))
    assert result == GateResult(name="exports", passed=True, detail="PyInit__C")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (zoo.INIT + 'extern "C" int helper() { return 1; }', "helper is exported"),
        (zoo.INIT + 'extern "C" __attribute__((weak)) int faint() { return 1; }', "faint is exported"),
        (zoo.INIT + "template <class T> struct S { static int one; }; template <class T> int S<T>::one = 1;"
         "int* use() { return &S<int>::one; }", "_ZN1SIiE3oneE is exported"),
        (zoo.INIT + "int shared_counter = 3;", "shared_counter is exported"),
        ("static int nothing;", "no PyInit_* is exported"),
    ],
    ids=["function", "weak", "unique", "data", "none"],
)  # fmt: skip
def test_library_that_shows_more_or_nothing_is_refused(tmp_path: Path, source: str, says: str) -> None:
    library = zoo.library(source, "-DSHOW_ALL")
    _refused(gates.exports_gate(zoo.opened(tmp_path, {zoo.LIBRARY: library})), says)


def test_no_search_path_passes(tmp_path: Path) -> None:
    assert gates.runpath_gate(zoo.opened(tmp_path)).passed


@pytest.mark.parametrize("kind", ["--disable-new-dtags", "--enable-new-dtags"])
def test_search_path_of_either_kind_is_refused(tmp_path: Path, kind: str) -> None:
    library = zoo.library(zoo.INIT, f"-Wl,{kind},-rpath,/opt/cuda/lib64")
    _refused(gates.runpath_gate(zoo.opened(tmp_path, {zoo.LIBRARY: library})), "/opt/cuda/lib64")


# bundled


def test_one_library_and_python_files_pass(tmp_path: Path) -> None:
    result = gates.bundled_gate(zoo.opened(tmp_path))
    assert result == GateResult(name="bundled", passed=True, detail=f"{zoo.LIBRARY} is the only binary")


@pytest.mark.parametrize(
    "name",
    [
        "fa3_fwd.libs/libgomp-24e2ab19.so.1.0.0",
        "fa3_fwd/libcudart.so.13",
        "fa3_fwd/lib/libtorch_cpu.so",
        "fa3_fwd/libc10.so",
        "fa3_fwd/plugin.so",
        "fa3_fwd/tool",
        f"fa3_fwd-{zoo.VERSION}.data/scripts/tool",
    ],
)
def test_any_other_binary_is_refused(tmp_path: Path, name: str) -> None:
    result = gates.bundled_gate(zoo.opened(tmp_path, {name: zoo.library()}))
    assert result == GateResult(name="bundled", passed=False, detail=f"{name} is packed in")


def test_stand_in_for_a_library_of_torch_is_refused(tmp_path: Path) -> None:
    text = b"INPUT(libtorch_cpu.so.2)"  # a linker script, not an ELF file
    _refused(gates.bundled_gate(zoo.opened(tmp_path, {"fa3_fwd/libtorch_cpu.so": text})), "libtorch_cpu.so")


LIBRARY_GATES = [
    lambda wheel: gates.needed_gate(wheel, needed=NEEDED),
    gates.exports_gate,
    gates.runpath_gate,
    gates.bundled_gate,
    lambda wheel: gates.paths_gate(wheel, private={}),
    lambda wheel: gates.size_gate(wheel, budget=ROOMY),
]


@pytest.mark.parametrize("gate", LIBRARY_GATES)
@pytest.mark.parametrize(
    ("changes", "count"),
    [({zoo.LIBRARY: None}, 0), ({zoo.LIBRARY: b"#!/bin/sh\n"}, 0), ({"fa3_fwd/_D.abi3.so": zoo.library()}, 2)],
    ids=["none", "no ELF", "two"],
)
def test_not_exactly_one_library_is_refused_and_not_a_crash(
    tmp_path: Path, gate: Callable[[WheelArchive], GateResult], changes: Mapping[str, bytes | None], count: int
) -> None:
    _refused(gate(zoo.opened(tmp_path, changes)), f"the wheel holds {count} shared libraries")


@pytest.mark.parametrize("gate", LIBRARY_GATES[:3])
def test_damaged_library_is_refused_and_not_a_crash(tmp_path: Path, gate: Callable[[WheelArchive], GateResult]) -> None:
    _refused(gate(zoo.opened(tmp_path, {zoo.LIBRARY: zoo.library()[:4000]})), "no readable shared library")


# paths


def _with_text(text: str) -> bytes:
    return zoo.library(f'{zoo.INIT}extern "C" const char* where() {{ return "{text}"; }}', "-DSHOW_ALL")


PRIVATE = {"/home/ann/cache": "cache folder", "builder-17": "host name", "/tmp/": "folder of temporary files"}  # noqa: S108


def test_library_without_our_places_passes_and_says_what_was_looked_for(tmp_path: Path) -> None:
    result = gates.paths_gate(zoo.opened(tmp_path), private={**PRIVATE, "vm": "user name"})
    assert result.passed
    assert result.detail == (
        "looked for cache folder, folder of temporary files, host name, absolute source paths; "
        "too short to look for: user name"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/home/ann/cache/store/x", "the cache folder /home/ann/cache at offset"),
        ("made on builder-17", "the host name builder-17 at offset"),
        ("/tmp/tmpxft_00001/k.cudafe1.cpp", "the folder of temporary files /tmp/ at offset"),  # noqa: S108
        ("/opt/venv/lib/torch/include/torch/csrc/stable/ops.h", "the source path /opt/venv/lib/torch/include/torch"),
        ("at /build/hopper/flash_api.cpp:12", "the source path /build/hopper/flash_api.cpp at offset"),
    ],
)
def test_library_that_names_a_place_is_refused(tmp_path: Path, text: str, says: str) -> None:
    library = _with_text(text)
    result = gates.paths_gate(zoo.opened(tmp_path, {zoo.LIBRARY: library}), private=PRIVATE)
    _refused(result, says)
    found = says.removeprefix("the ").split()[-3] if "offset" in says else "/opt/venv/lib/torch/include/torch"
    assert f"at offset {library.index(found.encode())}" in result.detail


@pytest.mark.parametrize(
    "text",
    [
        "hopper/flash_api.cpp",  # relative: says nothing of the machine
        "/usr/include/c++/12/bits/stl_vector.h",  # the system's own
        "https://example.invalid/flash/api.cpp",
        "/home/ann/cached/x",  # another folder
        "builder-170",  # another host
        "/proc/self/exe",
    ],
)
def test_text_that_only_looks_like_a_place_passes(tmp_path: Path, text: str) -> None:
    result = gates.paths_gate(zoo.opened(tmp_path, {zoo.LIBRARY: _with_text(text)}), private=PRIVATE)
    assert result.passed, result.detail


def test_python_file_that_names_a_place_is_refused_too(tmp_path: Path) -> None:
    wheel = zoo.opened(tmp_path, {"fa3_fwd/_build.py": b'MADE_ON = "builder-17"\n'})
    _refused(gates.paths_gate(wheel, private=PRIVATE), "fa3_fwd/_build.py holds the host name builder-17 at offset 11")


# size


def test_size_within_the_budget_passes_and_one_byte_above_does_not(tmp_path: Path) -> None:
    wheel = zoo.opened(tmp_path)
    size, library = wheel.path.stat().st_size, len(zoo.library())
    exact = gates.size_gate(wheel, budget=Budget(wheel=size, library=library))
    assert exact.passed
    assert exact.detail == f"the wheel {size} of {size} bytes, the library {library} of {library} bytes"
    small_wheel = gates.size_gate(wheel, budget=Budget(wheel=size - 1, library=library))
    assert small_wheel.detail == f"the wheel has {size} bytes, allowed are {size - 1}"
    _refused(gates.size_gate(wheel, budget=Budget(wheel=size, library=library - 1)), "the library has")
