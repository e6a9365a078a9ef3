"""The bill of materials: the same bytes for the same contents, valid, and refused wherever it says something else."""

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit import proof_zoo
from tests.unit import wheel_zoo as zoo
from tests.unit.record_zoo import COMPILER, TOOLKIT, record

from hopperforge.model.toolkit import ToolkitOrigin
from hopperforge.provenance.contents import Contents
from hopperforge.provenance.sbom import make_sbom, sbom_problems
from hopperforge.stages.gates_contents import licences_gate, sbom_gate
from hopperforge.stages.wheel_archive import read_wheel

CONTENTS = proof_zoo.contents()
SBOM = make_sbom(CONTENTS)


def test_equal_contents_give_equal_bytes_whatever_the_order() -> None:
    turned = dataclasses.replace(
        TOOLKIT,
        fingerprint=dict(sorted(TOOLKIT.fingerprint.items(), reverse=True)),
        origin=ToolkitOrigin.SYSTEM,
    )
    assert make_sbom(dataclasses.replace(CONTENTS, toolkit=turned)) == SBOM


def test_it_holds_no_clock_and_no_chance() -> None:
    document = json.loads(SBOM)
    assert document["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f-]{21}", document["serialNumber"])
    other = json.loads(make_sbom(proof_zoo.contents(version="4.0")))
    assert other["serialNumber"] != document["serialNumber"]
    assert "BomRef." not in SBOM.decode()


def test_it_names_what_is_shipped_and_what_only_worked_on_it() -> None:
    scopes = {part["name"]: part["scope"] for part in json.loads(SBOM)["components"]}
    assert {name for name, scope in scopes.items() if scope == "required"} == {"flash-attention", "torch"}
    assert {"cuda-toolkit", "g++", "setuptools", "builder-image"} <= scopes.keys()


def _with_static_runtime() -> Contents:
    toolkit = dataclasses.replace(TOOLKIT, fingerprint={"nvcc": "03" * 32, "cudart_static": "0f" * 32})
    front = dataclasses.replace(record().front, flags=("-l:libcudart_static.a",))
    trees = {"hopper": "0a" * 20, "csrc/cutlass/include": "0b" * 20}
    source = dataclasses.replace(record().source, trees=trees)
    return proof_zoo.contents(toolkit=toolkit, front=front, source=source, image=None)


def test_cutlass_and_the_runtime_are_named_where_they_are_in_it() -> None:
    document = json.loads(make_sbom(_with_static_runtime()))
    parts = {part["name"]: part for part in document["components"]}
    assert parts["cuda-runtime"]["hashes"] == [{"alg": "SHA-256", "content": "0f" * 32}]
    assert parts["cutlass"]["components"][0]["properties"] == [{"name": "hopperforge:hash", "value": "0b" * 20}]
    assert "builder-image" not in parts
    (shipped,) = [entry for entry in document["dependencies"] if entry["ref"] == "package"]
    assert set(shipped["dependsOn"]) == {"source", "cutlass", "cuda-runtime", "torch"}


@pytest.mark.parametrize("contents", [CONTENTS, _with_static_runtime()])
def test_what_was_written_is_found_right(contents: Contents) -> None:
    assert sbom_problems(make_sbom(contents), contents) == []


CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "another name": (lambda d: d["metadata"]["component"].update(name="x"), "name is x, expected fa3-fwd"),
    "another version": (lambda d: d["metadata"]["component"].update(version="1"), "version is 1, expected 3.0.0+cu130"),
    "no component": (lambda d: d.pop("components"), "toolkit/nvcc is not listed"),
    "no root": (lambda d: d["metadata"].pop("component"), "name is None"),
    "one more": (
        lambda d: d["components"].append(
            {"type": "file", "name": "y", "bom-ref": "y", "hashes": [{"alg": "SHA-256", "content": "a" * 64}]}
        ),
        "expected not to be listed",
    ),
    "not CycloneDX": (lambda d: d.update(bomFormat="Other"), "it is not valid CycloneDX"),
    "a field of no schema": (lambda d: d.update(surprise=1), "it is not valid CycloneDX"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_each_change_is_named(change: Callable[[Any], object], said: str) -> None:
    document = copy.deepcopy(json.loads(SBOM))
    change(document)
    assert any(said in problem for problem in sbom_problems(json.dumps(document).encode(), CONTENTS))


@pytest.mark.parametrize("ref", CONTENTS.hashes())
def test_each_hash_that_differs_from_the_record_is_named(ref: str) -> None:
    digest = CONTENTS.hashes()[ref]
    changed = SBOM.replace(f'"{digest}"'.encode(), f'"{"f" * len(digest)}"'.encode())
    assert any(problem.startswith(f"{ref} is {'f' * len(digest)}") for problem in sbom_problems(changed, CONTENTS))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"7", b"null", b"\xff", b"{}", b"[" * 100_000, SBOM.decode().encode("utf-16")]
)
def test_what_is_no_bill_at_all_is_refused(data: bytes) -> None:
    (problem,) = sbom_problems(data, CONTENTS)
    assert problem.startswith(("it is no JSON", "it is not valid CycloneDX"))


def test_components_too_deep_in_each_other_are_refused() -> None:
    document = json.loads(SBOM)
    part: dict[str, Any] = {"type": "library", "name": "x"}
    for _ in range(250):
        part = {"type": "library", "name": "x", "components": [part]}
    document["components"].append(part)
    assert sbom_problems(json.dumps(document).encode(), CONTENTS) == [
        "it is not valid CycloneDX: its components lie too deep in each other"
    ]


def test_gates_pass_on_a_whole_package(tmp_path: Path) -> None:
    path, made = proof_zoo.package(tmp_path)
    wheel = read_wheel(path)
    contents = Contents.of(made)
    assert sbom_gate(wheel, contents=contents).passed
    found = licences_gate(wheel, licences=contents.licences)
    assert (found.passed, found.detail) == (True, "LICENSE, LICENSE.cuda.txt")


def test_gate_sbom_fails_on_a_missing_an_invalid_and_a_second_bill(tmp_path: Path) -> None:
    missing = sbom_gate(zoo.opened(tmp_path), contents=CONTENTS)
    assert (missing.passed, "holds 0 bills" in missing.detail) == (False, True)
    invalid = sbom_gate(zoo.opened(tmp_path, {proof_zoo.SBOM_MEMBER: b"{}"}), contents=CONTENTS)
    assert (invalid.passed, "not valid CycloneDX" in invalid.detail) == (False, True)
    twice = {proof_zoo.SBOM_MEMBER: SBOM, f"{zoo.INFO}/sboms/more.cdx.json": SBOM}
    assert "holds 2 bills" in sbom_gate(zoo.opened(tmp_path, twice), contents=CONTENTS).detail


def test_gate_sbom_fails_where_the_record_says_otherwise(tmp_path: Path) -> None:
    wheel = zoo.opened(tmp_path, {proof_zoo.SBOM_MEMBER: SBOM})
    host = dataclasses.replace(COMPILER, fingerprint={"cc1plus": "77" * 32})
    result = sbom_gate(wheel, contents=proof_zoo.contents(host_compiler=host))
    assert not result.passed
    assert f"host-compiler/cc1plus is {'04' * 32}, expected {'77' * 32}" in result.detail


LICENCE = f"{zoo.INFO}/licenses/LICENSE"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({LICENCE: None}, "licenses/LICENSE is missing"),
        ({LICENCE: b"Pay.\n"}, "licenses/LICENSE is not a licence that was collected"),
        ({f"{zoo.INFO}/licenses/MORE": b""}, "licenses/MORE is not a licence that was collected"),
        ({f"{zoo.INFO}/METADATA": zoo.metadata()}, "METADATA has no License-File LICENSE"),
    ],
)
def test_gate_licences_names_what_is_wrong(tmp_path: Path, changes: dict[str, bytes | None], said: str) -> None:
    wheel = zoo.opened(tmp_path, proof_zoo.licensed(changes))
    result = licences_gate(wheel, licences=CONTENTS.licences)
    assert (result.passed, said in result.detail) == (False, True)


def test_gate_licences_fails_where_none_is_handed_on(tmp_path: Path) -> None:
    result = licences_gate(zoo.opened(tmp_path), licences={})
    assert (result.passed, result.detail) == (False, "no licence is handed on")
