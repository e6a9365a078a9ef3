"""Every gate that asks a program, on a wheel that passes and on each wheel it must refuse; the programs are real."""

from pathlib import Path

import pytest
from tests.unit import wheel_zoo as zoo

from hopperforge.model.wheel import GateResult
from hopperforge.stages import gates_tools
from hopperforge.stages.audit_tools import glibc_of, read_shown
from hopperforge.stages.gates_tools import DeviceCode, read_abi3_report, read_device_code
from hopperforge.stages.wheel_archive import WheelArchive


def _refused(result: GateResult, says: str) -> None:
    assert not result.passed
    assert says in result.detail


# platform-tag


def _floored(wheel: WheelArchive, folder: Path, floor: str | None = None) -> GateResult:
    return gates_tools.platform_tag_gate(wheel, floor=floor, workspace=zoo.workspace(folder))


def test_proven_tag_passes_and_names_the_newest_symbols(tmp_path: Path) -> None:
    result = _floored(zoo.opened(tmp_path, {zoo.LIBRARY: zoo.library(zoo.NEWER)}), tmp_path, "manylinux_2_28_x86_64")
    assert result.passed, result.detail
    assert "manylinux_2_17_x86_64 proven" in result.detail
    assert "GLIBC_2.16 (timespec_get)" in result.detail


def test_tag_older_than_the_symbols_is_refused(tmp_path: Path) -> None:
    tag = "cp39-abi3-manylinux_2_12_x86_64.manylinux2010_x86_64"
    wheel = zoo.opened(tmp_path, {zoo.LIBRARY: zoo.library(zoo.NEWER)}, tag=tag)
    result = _floored(wheel, tmp_path)
    _refused(result, "manylinux_2_12_x86_64 is claimed, the symbols prove manylinux_2_17_x86_64")
    _refused(result, "manylinux2010_x86_64 is claimed")
    _refused(result, "GLIBC_2.16 (timespec_get)")


def test_tag_above_the_floor_is_refused(tmp_path: Path) -> None:
    wheel = zoo.opened(tmp_path, tag="cp39-abi3-manylinux_2_31_x86_64")
    assert _floored(wheel, tmp_path, "manylinux_2_31_x86_64").passed
    _refused(_floored(wheel, tmp_path, "manylinux_2_28_x86_64"), "manylinux_2_31_x86_64 is above the floor")


@pytest.mark.parametrize("tag", [zoo.RAW_TAG, "cp39-abi3-musllinux_1_2_x86_64"])
def test_tag_that_promises_no_glibc_is_refused(tmp_path: Path, tag: str) -> None:
    assert not _floored(zoo.opened(tmp_path, tag=tag), tmp_path).passed


def test_wheel_auditwheel_cannot_judge_is_refused(tmp_path: Path) -> None:
    _refused(_floored(zoo.opened(tmp_path, {zoo.LIBRARY: None}), tmp_path), "auditwheel has no answer")


def test_blacklisted_symbols_and_extensions_are_read_from_the_answer() -> None:
    lines = [
        "WARNING: a line of the log",
        '{"version": 1, "sym_tag": "manylinux_2_17_x86_64", "unsupported_isa": true, "policy_upgrades":',
        ' {"manylinux_2_17_x86_64": {"blacklisted_symbols": {"libz.so.1": ["_zlib_x"]}, "libs_to_eliminate": ["l"]},',
        '  "manylinux_2_12_x86_64": {"libs_to_eliminate": ["l"]}}}',
        "INFO: another",
    ]
    shown = read_shown([*lines[:1], lines[1].replace("true", "false"), *lines[2:]])
    assert shown.blocked == {"manylinux_2_17_x86_64": ("libz.so.1: _zlib_x",)}
    assert read_shown(lines).blocked["manylinux_2_17_x86_64"] == ("it needs processor extensions beyond the baseline",)


@pytest.mark.parametrize("lines", [[], ["no answer"], ['{"version": 2, "sym_tag": "x"}'], ['{"version": 1}'], ["{"]])
def test_unknown_answers_of_auditwheel_are_errors(lines: list[str]) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting"):
        read_shown(lines)


@pytest.mark.parametrize(
    ("tag", "glibc"),
    [
        ("manylinux_2_28_x86_64", (2, 28)),
        ("manylinux2014_aarch64", (2, 17)),
        ("manylinux2010_x86_64", (2, 12)),
        ("manylinux1_x86_64", (2, 5)),
    ],
)
def test_glibc_of_a_tag(tag: str, glibc: tuple[int, int]) -> None:
    assert glibc_of(tag) == glibc


# abi3


def test_library_within_the_stable_abi_passes(tmp_path: Path) -> None:
    result = gates_tools.abi3_gate(zoo.opened(tmp_path), workspace=zoo.workspace(tmp_path))
    assert result == GateResult(name="abi3", passed=True, detail="_C.abi3.so keeps to cp39-abi3")


@pytest.mark.parametrize(
    ("symbol", "says"),
    [
        ("PyUnicode_AsUTF8", "PyUnicode_AsUTF8 is outside the stable ABI"),
        ("_PyObject_GetDictPtr", "_PyObject_GetDictPtr is outside the stable ABI"),
        ("PyModule_AddObjectRef", "PyModule_AddObjectRef came with Python 3.10"),
    ],
)
def test_library_beyond_the_stable_abi_is_refused(tmp_path: Path, symbol: str, says: str) -> None:
    library = zoo.library(f'extern "C" void* {symbol}(); extern "C" void* PyInit__C() {{ return {symbol}(); }}')
    result = gates_tools.abi3_gate(zoo.opened(tmp_path, {zoo.LIBRARY: library}), workspace=zoo.workspace(tmp_path))
    _refused(result, says)


def test_wheel_for_one_python_is_refused(tmp_path: Path) -> None:
    wheel = zoo.opened(tmp_path, tag="cp312-cp312-manylinux_2_17_x86_64")
    _refused(gates_tools.abi3_gate(wheel, workspace=zoo.workspace(tmp_path)), "tagged for the ABI cp312")


def test_wheel_in_which_nothing_is_audited_is_refused(tmp_path: Path) -> None:
    wheel = zoo.opened(tmp_path, {zoo.LIBRARY: None})
    _refused(gates_tools.abi3_gate(wheel, workspace=zoo.workspace(tmp_path)), "the wheel holds 0 shared libraries")


@pytest.mark.parametrize("text", ["", "{", '{"specs": {}}'])
def test_report_without_results_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"nothing was audited|Expecting"):
        read_abi3_report(text)


def test_incompatible_result_without_a_named_symbol_is_a_finding() -> None:
    result = '{"baseline": "3.9", "is_abi3": true, "is_abi3_baseline_compatible": false, "non_abi3_symbols": [], '
    text = '{"specs": {"w": {"kind": "wheel", "wheel": [{"name": "a.so", "result": ' + result
    assert read_abi3_report(text + '"future_abi3_objects": {}}}]}}}') == [
        ("a.so", ("not compatible with the stable ABI of Python 3.9",))
    ]


# architectures


def _targets(folder: Path, library: bytes, expected: set[str], ptx: set[str] | None = None) -> GateResult:
    wheel = zoo.opened(folder, {zoo.LIBRARY: library})
    return gates_tools.architectures_gate(
        wheel, architectures=frozenset(expected), ptx=frozenset(ptx or ()), workspace=zoo.workspace(folder)
    )


@pytest.mark.parametrize(
    ("device_code", "expected", "detail"),
    [
        ("sm_90a.fatbin", {"sm_90a"}, "sm_90a; PTX: none"),
        ("sm_80_sm_90a.fatbin", {"sm_80", "sm_90a"}, "sm_80, sm_90a; PTX: none"),
    ],
)
def test_device_code_as_ordered_passes(tmp_path: Path, device_code: str, expected: set[str], detail: str) -> None:
    result = _targets(tmp_path, zoo.library(device_code=device_code), expected)
    assert result == GateResult(name="architectures", passed=True, detail=detail)


def test_ptx_passes_only_where_it_was_ordered(tmp_path: Path) -> None:
    library = zoo.library(device_code="sm_90a_ptx.fatbin")
    _refused(_targets(tmp_path, library, {"sm_90a"}), "PTX for compute_90a is inside, not expected")
    assert _targets(tmp_path, library, {"sm_90a"}, {"compute_90a"}).passed


@pytest.mark.parametrize(
    ("device_code", "expected", "says"),
    [
        ("sm_80_sm_90a.fatbin", {"sm_90a"}, "machine code for sm_80 is inside, not expected"),
        ("sm_90a.fatbin", {"sm_80", "sm_90a"}, "machine code for sm_80 is missing"),
        ("sm_90a.fatbin", {"sm_90"}, "machine code for sm_90 is missing; machine code for sm_90a is inside"),
        ("", {"sm_90a"}, "machine code for sm_90a is missing"),
    ],
)
def test_other_device_code_is_refused(tmp_path: Path, device_code: str, expected: set[str], says: str) -> None:
    _refused(_targets(tmp_path, zoo.library(device_code=device_code), expected), says)


def test_library_cuobjdump_cannot_read_is_refused(tmp_path: Path) -> None:
    magic = bytes.fromhex("50ed55ba")
    library = zoo.library(device_code="sm_90a.fatbin")
    assert magic in library
    _refused(
        _targets(tmp_path, library.replace(magic, bytes(4)), {"sm_90a"}), "cuobjdump cannot read fa3_fwd/_C.abi3.so"
    )


def test_listing_is_read_whatever_the_file_is_called() -> None:
    lines = [
        "ELF file    1: _C.abi3.1.sm_90a.cubin",
        "ELF file   12: tmp.sm_70.name.12.sm_80.cubin",
        "PTX file    1: x.1.sm_90.ptx",
        "cuobjdump info    : No PTX file found to extract from 'x'. You may try with -all option.",
    ]
    assert read_device_code(lines) == DeviceCode(machine=frozenset({"sm_90a", "sm_80"}), ptx=frozenset({"compute_90"}))


def test_list_entry_of_unknown_form_is_an_error() -> None:
    with pytest.raises(ValueError, match="target cannot be told"):
        read_device_code(["ELF file    1: something.cubin"])
