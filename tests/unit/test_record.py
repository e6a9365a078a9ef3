"""The record of a package: written and read without loss, and never half understood."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.record_zoo import PACK, REPRODUCTION, TOOLKIT, record

from hopperforge.errors import InputError
from hopperforge.model.cell import AbiClass, Accepted, Cell
from hopperforge.model.front import FrontKind
from hopperforge.model.record import FileFacts, Record, ServedCell
from hopperforge.model.request import Kernels
from hopperforge.model.versions import CudaVersion, PythonVersion, ToolkitVersion, TorchVersion

GPU = {"gpu": "NVIDIA H200", "driver": "580.1", "results": [{"test": "forward", "passed": True, "tflops": 601.5}]}


@pytest.mark.parametrize(
    "written", [record(), record(gpu=GPU), record(pack=None, kernels=Kernels.INLINE), record(cells=(), gates=())]
)
def test_round_trip_keeps_every_value_and_type(written: Record) -> None:
    read = Record.from_json(written.to_json(), "a.whl.json")
    assert read == written
    assert read.to_json() == written.to_json()


_texts = st.text(st.characters(codec="utf-8"), max_size=20)
_hashes = st.dictionaries(_texts, _texts, max_size=3)


@given(
    name=_texts,
    timings=st.dictionaries(_texts, st.floats(0, 1e9), max_size=3),
    patches=_hashes,
    fingerprint=_hashes,
    switches=st.lists(_texts).map(tuple),
    torch=st.builds(TorchVersion, st.integers(0, 99), st.integers(0, 99)),
)
def test_round_trip_of_any_values(
    *,
    name: str,
    timings: dict[str, float],
    patches: dict[str, str],
    fingerprint: dict[str, str],
    switches: tuple[str, ...],
    torch: TorchVersion,
) -> None:
    base = record()
    written = record(
        name=name,
        timings=timings,
        switches=switches,
        source=dataclasses.replace(base.source, patches=patches),
        toolkit=dataclasses.replace(TOOLKIT, fingerprint=fingerprint),
        cells=(dataclasses.replace(base.cells[0], torch=torch),),
    )
    assert Record.from_json(written.to_json(), "a.whl.json") == written


def test_json_is_written_for_people_with_versions_as_text() -> None:
    text = record().to_json().decode()
    assert text.startswith('{\n  "format": 5,\n  "name": "fa3-fwd",\n  "version": "3.0.0+cu130",\n')
    assert text.endswith("}\n")
    plain = json.loads(text)
    assert plain["cells"][0]["torch"] == "2.10"
    assert plain["toolkit"]["version"] == "13.0"
    assert plain["toolkit"]["origin"] == "registry"
    assert plain["front"]["flags"] == ["-O3", "-DX=\u201cy\u201d"]


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Find the path of every field that a record must have, the entries of free mappings left out."""
    if isinstance(value, list):
        return [found for index, item in enumerate(value) for found in _paths(item, (*path, index))]
    if not isinstance(value, dict) or path[-1:] in (
        ("trees",),
        ("patches",),
        ("fingerprint",),
        ("tools",),
        ("timings",),
        ("licences",),
    ):
        return []
    return [found for key, item in value.items() for found in ((*path, key), *_paths(item, (*path, key)))]


PLAIN = json.loads(record().to_json())


def _within(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _refused(plain: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        Record.from_json(json.dumps(plain).encode(), "wheelhouse/a.whl.json")
    assert caught.value.sentence == "wheelhouse/a.whl.json is not a record this hopperforge can read"
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("rm wheelhouse/a.whl.json ")
    return caught.value


@pytest.mark.parametrize("path", _paths(PLAIN), ids=lambda path: ".".join(map(str, path)))
def test_each_missing_field_is_named(path: tuple[str | int, ...]) -> None:
    plain = json.loads(record().to_json())
    del _within(plain, path[:-1])[path[-1]]
    assert any(line.startswith(f"{'.'.join(map(str, path))}: ") for line in _refused(plain).detail)


@pytest.mark.parametrize("path", _paths(PLAIN), ids=lambda path: ".".join(map(str, path)))
def test_each_value_of_another_type_is_named(path: tuple[str | int, ...]) -> None:
    plain = json.loads(record().to_json())
    value = _within(plain, path)
    _within(plain, path[:-1])[path[-1]] = "seven" if value is None or isinstance(value, int | float) else 7
    assert any(line.startswith(".".join(map(str, path))) for line in _refused(plain).detail)


@pytest.mark.parametrize(
    "where", [(), ("wheel",), ("cells", 0), ("source",), ("toolkit",), ("pack",), ("pack", "units", 0), ("gates", 0)]
)
def test_each_unknown_field_is_named(where: tuple[str | int, ...]) -> None:
    plain = json.loads(record().to_json())
    _within(plain, where)["surprise"] = 1
    name = ".".join(map(str, (*where, "surprise")))
    assert any(line.startswith(f"{name}: ") for line in _refused(plain).detail)


def test_record_of_another_format_is_refused() -> None:
    assert _refused(PLAIN | {"format": 6}).detail == ("format: Input should be 5",)


def test_record_of_format_4_is_read_as_it_is() -> None:
    assert Record.from_json(json.dumps(PLAIN | {"format": 4}).encode(), "a.whl.json") == record()


def _of_format_3(plain: Any) -> Any:
    """A record as it was when every front was bound to a torch."""
    front, framework = plain["front"], plain["front"]["framework"]
    old = {"torch_release": framework["release"], "torch_wheel_sha256": framework["wheel_sha256"]}
    kept = {key: front[key] for key in ("flags", "tools")}
    return {key: plain[key] for key in plain if key != "tarball"} | {"format": 3, "front": {**old, **kept}}


def test_record_of_format_3_is_read_as_one_of_upstreams_front() -> None:
    old = _of_format_3(json.loads(record().to_json()))
    assert Record.from_json(json.dumps(old).encode(), "a.whl.json") == record()


def test_record_without_a_framework_keeps_its_cells_in_order() -> None:
    free = ServedCell(cuda=TOOLKIT.version, torch=None, python=None, platform="linux_x86_64", runtime=None)
    front = dataclasses.replace(record().front, kind=FrontKind.CPP, framework=None, sources={"src/a.cpp": "0f" * 32})
    tarball = FileFacts(file="a.tar.zst", sha256="0f" * 32, size=7)
    written = record(cells=(free,), front=front, tarball=tarball)
    assert Record.from_json(written.to_json(), "a.whl.json").with_cells([free]) == written
    assert json.loads(written.to_json())["cells"][0]["torch"] is None


def _of_format_2() -> Any:
    plain = _of_format_3(json.loads(record().to_json()))
    for field in ("licences", "sbom", "reproduced", "made_by"):
        del plain[field]
    return plain | {"format": 2}


OLD: dict[str, Any] = {"licences": {}, "sbom": None, "reproduced": (), "made_by": None}


def test_record_of_format_2_is_read_as_one_without_a_bill_of_materials() -> None:
    assert Record.from_json(json.dumps(_of_format_2()).encode(), "a.whl.json") == record(**OLD)


@pytest.mark.parametrize("number", [True, 1.0, 2.0, "2", None])
def test_record_of_no_format_at_all_is_refused(number: Any) -> None:
    assert _refused(_of_format_2() | {"format": number}).detail[0].startswith("format: ")


def test_a_rebuild_is_named_once() -> None:
    once = record(reproduced=()).with_reproduction(REPRODUCTION)
    assert once == record()
    assert once.with_reproduction(REPRODUCTION) == once
    assert str(REPRODUCTION) == "2026-11-22, x86_64, 16 cores, podman, by ann"
    assert str(dataclasses.replace(REPRODUCTION, by=None)) == "2026-11-22, x86_64, 16 cores, podman"


def _of_format_1() -> Any:
    plain = _of_format_2()
    plain["format"] = 1
    for unit in plain["pack"]["units"]:
        del unit["sources"]
    return plain


def test_record_of_format_1_is_read_with_the_one_source_each_unit_had() -> None:
    units = [dataclasses.replace(unit, sources=(unit.path,)) for unit in PACK.units]
    expected = record(pack=dataclasses.replace(PACK, units=tuple(units)), **OLD)
    assert Record.from_json(json.dumps(_of_format_1()).encode(), "a.whl.json") == expected
    without = json.dumps(_of_format_1() | {"pack": None, "kernels": "inline"}).encode()
    assert Record.from_json(without, "a.whl.json") == record(pack=None, kernels=Kernels.INLINE, **OLD)


def test_record_of_format_1_is_held_to_the_rest_as_strictly() -> None:
    plain = _of_format_1()
    del plain["pack"]["units"][0]["path"]
    plain["pack"]["units"][1] = 7
    named = {line.partition(": ")[0] for line in _refused(plain).detail}
    assert {"pack.units.0.path", "pack.units.1"} <= named


def test_version_that_is_none_is_named_with_its_reason() -> None:
    plain = json.loads(record().to_json())
    plain["cells"][0]["torch"] = "2"
    assert "cells.0.torch: Value error, '2' is not a torch version; write it as 2.11" in _refused(plain).detail


@pytest.mark.parametrize("figure", ["NaN", "Infinity", "-Infinity"])
def test_seconds_are_finite(figure: str) -> None:
    plain = json.loads(record().to_json())
    plain["timings"]["front"] = plain["pack"]["units"][0]["seconds"] = float(figure.lower())
    assert {line.partition(": ")[0] for line in _refused(plain).detail} == {"timings.front", "pack.units.0.seconds"}


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_file_that_is_no_record_is_refused(text: bytes) -> None:
    with pytest.raises(InputError, match=r"a\.whl\.json is not a record") as caught:
        Record.from_json(text, "a.whl.json")
    assert caught.value.detail[0].startswith("the file: ")


def test_joining_a_gpu_result_changes_nothing_else() -> None:
    joined = record().with_gpu(GPU)
    assert joined.gpu == GPU
    assert dataclasses.replace(joined, gpu=None) == record()


def test_served_cell_is_taken_from_an_accepted_one() -> None:
    cell = Cell(
        recipe="fa3-fwd",
        profile="hdim128-bf16",
        cuda=ToolkitVersion.parse("13.0"),
        torch=TorchVersion.parse("2.10"),
        python=PythonVersion.parse("3.10"),
        platform="linux_x86_64",
    )
    accepted = Accepted(cell=cell, runtime=CudaVersion.parse("12.8"), abi=AbiClass.STABLE)
    assert ServedCell.of(accepted) == record().cells[0]
