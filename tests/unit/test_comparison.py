"""Two records compared: the first stage that differs is the guilty one."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.record_zoo import PACK, TOOLKIT, record

from hopperforge.model.record import FileFacts, FrameworkFacts, Record
from hopperforge.model.request import Kernels
from hopperforge.model.toolkit import ToolkitOrigin
from hopperforge.model.versions import PythonVersion, TorchVersion
from hopperforge.provenance.comparison import compare_records, rebuild_words

BEFORE = record()
PATH = PACK.units[0].path
OTHER_TORCH = FrameworkFacts(name="torch", release="2.9.1", wheel_sha256="ff" * 32)
TARBALL = FileFacts(file="small.tar.zst", sha256="ff" * 32, size=9)


def _with(field: str, **changes: Any) -> Record:
    return dataclasses.replace(BEFORE, **{field: dataclasses.replace(getattr(BEFORE, field), **changes)})


def _with_unit(**changes: Any) -> Record:
    units = (dataclasses.replace(PACK.units[0], **changes), PACK.units[1])
    return _with("pack", units=units)


CASES: dict[str, tuple[Callable[[], Record], str, str]] = {
    "profile": (lambda: record(profile="full"), "request", "the profile"),
    "switch": (lambda: record(switches=("DISABLE_SM80",)), "request", "the switches"),
    "commit": (lambda: _with("source", commit="ff" * 20), "source", "the commit"),
    "tree": (lambda: _with("source", trees={"hopper": "ff" * 20}), "source", "hopper"),
    "patch": (lambda: _with("source", patches={}), "patch", "0001-no-downloads.patch"),
    "toolkit": (lambda: _with("toolkit", fingerprint={"nvcc": "ff" * 32}), "toolkit", "nvcc"),
    "compiler": (lambda: _with("host_compiler", fingerprint={"cc1plus": "ff" * 32}), "host compiler", "cc1plus"),
    "image": (lambda: _with("image", id="f" * 64), "image", "the image"),
    "host": (lambda: record(image=None), "image", "the base"),
    "unit's inputs": (lambda: _with_unit(key="ff" * 32), f"unit {PATH}", "the key"),
    "unit's object": (lambda: _with_unit(sha256="ff" * 32), f"unit {PATH}", "the object"),
    "unit gone": (lambda: _with("pack", units=PACK.units[1:]), f"unit {PATH}", "it"),
    "pack": (lambda: _with("pack", sha256="ff" * 32), "pack", "the pack"),
    "no pack": (lambda: record(pack=None, kernels=Kernels.INLINE), f"unit {PATH}", "it"),
    "torch": (lambda: _with("front", framework=OTHER_TORCH), "front", "the framework's wheel"),
    "front's own source": (lambda: _with("front", sources={"src/a.cpp": "ff" * 32}), "front", "src/a.cpp"),
    "tarball": (lambda: record(tarball=TARBALL), "repair", "the tarball"),
    "tool": (lambda: _with("front", tools={"setuptools": "1"}), "front", "setuptools"),
    "licence": (lambda: record(licences={}), "front", "LICENSE"),
    "library": (lambda: _with("wheel", library_size=18), "front", "the library's size"),
    "tag": (lambda: _with("wheel", file="other.whl"), "repair", "the file's name"),
    "sbom": (lambda: record(sbom=None), "repair", "the bill of materials"),
    "wheel": (lambda: _with("wheel", sha256="ff" * 32), "wheel", "the wheel"),
}


@pytest.mark.parametrize(("change", "stage", "what"), CASES.values(), ids=CASES)
def test_each_difference_is_laid_at_its_stage(change: Callable[[], Record], stage: str, what: str) -> None:
    first = compare_records(BEFORE, change())[0]
    assert (first.stage, first.what) == (stage, what)
    assert first.before != first.after


def test_equal_packages_differ_in_nothing_whatever_was_proven_and_when() -> None:
    assert compare_records(BEFORE, record(gates=(), gpu={"passed": 1}, created="later", timings={}, cells=())) == ()


def test_the_cause_comes_before_its_consequences() -> None:
    after = dataclasses.replace(_with_unit(sha256="ff" * 32), wheel=dataclasses.replace(BEFORE.wheel, sha256="ee" * 32))
    assert [difference.stage for difference in compare_records(BEFORE, after)] == [f"unit {PATH}", "wheel"]


def test_the_words_are_those_the_package_came_of() -> None:
    cell = BEFORE.cells[0]
    cells = (
        cell,
        dataclasses.replace(cell, torch=TorchVersion(2, 9)),
        dataclasses.replace(cell, python=PythonVersion(3, 14)),
    )
    assert rebuild_words(record(cells=cells)) == (
        "recipe=fa3-fwd",
        "profile=hdim128-bf16",
        "cuda=13.0",
        "torch=2.9,2.10",
        "python=3.10,3.14",
        "kernels=pack",
        "merge=on",
        "toolkit=registry",
        "engine=docker",
        "base=bullseye",
    )


def test_on_the_host_the_machines_own_toolkit_may_come_from_elsewhere() -> None:
    toolkit = dataclasses.replace(TOOLKIT, origin=ToolkitOrigin.SYSTEM)
    single = dataclasses.replace(PACK, units=PACK.units[:1])
    words = rebuild_words(record(image=None, engine="host", toolkit=toolkit, pack=single))
    assert words[-2:] == ("merge=off", "engine=host")
