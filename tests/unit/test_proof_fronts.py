"""Packages that bind to no torch, on an index and on a node: what proves them, which pages list them, whom they fit."""

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.record_zoo import GATES, record

from hopperforge.index.catalog import Catalog, Entry
from hopperforge.index.entries import Publication, make_entry
from hopperforge.index.pages import shelves
from hopperforge.index.proof import unproven_reasons
from hopperforge.index.served import Choices, served_by
from hopperforge.index.site import site_pages
from hopperforge.model.cell import AbiClass
from hopperforge.model.front import FrontKind
from hopperforge.model.record import FileFacts, Record, ServedCell
from hopperforge.model.versions import ToolkitVersion
from hopperforge.model.wheel import GateResult
from hopperforge.node.answer import examine
from hopperforge.node.choosing import choose, page_of
from hopperforge.node.reading import read_entries
from hopperforge.node.values import NOTHING, Driver, Gpu, Node, Torch, Wanted
from hopperforge.node.versions import numbers

METADATA = b"Metadata-Version: 2.4\nName: tiny-lib\nVersion: 1.0+cu130\nRequires-Python: >=3.10\n\n"
CELL = ServedCell(cuda=ToolkitVersion.parse("13.0"), torch=None, python=None, platform="linux_x86_64", runtime=None)
GPU = {"gpu": "NVIDIA H200", "driver": "580.1", "passed": 9, "failed": 0, "complete": True}


def free_record(**changes: Any) -> Record:
    kept = tuple(gate for gate in GATES if gate.name != "abi3")
    front = replace(record().front, kind=FrontKind.CPP, framework=None, sources={"src/a.cpp": "0f" * 32})
    fields = {
        "name": "tiny-lib",
        "version": "1.0+cu130",
        "front": front,
        "cells": (CELL,),
        "gates": (*kept, GateResult(name="python-free", passed=True, detail="")),
        "gpu": GPU,
    }
    return record(**(fields | changes))


def entry(**changes: Any) -> Entry:
    publication = Publication(driver="580.65.06", default=True, uploaded="2026-11-27T00:00:00Z")
    return make_entry(free_record(**changes), METADATA, publication)


def test_such_a_package_is_proven_without_an_import_beside_torch() -> None:
    assert unproven_reasons(free_record()) == ()
    assert entry().unproven is False


def test_its_own_gates_take_the_place_of_abi3() -> None:
    assert unproven_reasons(free_record(gates=GATES)) == ("gate python-free is missing",)
    tarball = FileFacts(file="a.tar.zst", sha256="0f" * 32, size=1)
    assert unproven_reasons(free_record(tarball=tarball)) == ("gate tarball is missing",)


def test_a_torch_package_still_needs_abi3_and_torch() -> None:
    gates = tuple(gate for gate in GATES if gate.name != "abi3")
    reasons = unproven_reasons(record(gates=gates, gpu=GPU))
    assert "gate abi3 is missing" in reasons
    assert "the smoke tests on a GPU do not name their torch" in reasons


def test_it_is_on_the_page_of_every_cuda_from_its_own_on() -> None:
    torch = make_entry(
        record(cells=(replace(record().cells[0], runtime=ToolkitVersion.parse("13.2").cuda),)),
        METADATA.replace(b"tiny-lib", b"fa3-fwd"),
        Publication(driver="580", default=True, uploaded=""),
    )
    catalog = Catalog.of([entry(), torch])
    listing = {shelf for shelf, entries in shelves(catalog).items() if entry() in entries}
    assert listing == {"all", "cu130", "cu132"}


def test_it_serves_every_torch_and_the_pythons_of_its_metadata() -> None:
    choices = Choices.of(Catalog.of([entry()]))
    served = served_by(entry(), choices)
    assert served.torches == choices.torches
    assert served.pythons[0] == "3.10"
    assert entry().abi is AbiClass.NONE
    page = site_pages(Catalog.of([entry()]))["index.html"].decode()
    assert "any torch and Python, or none" in page
    assert "None" not in page.partition("<script")[0].partition("<style")[0]


NODE = Node(
    python=(3, 12),
    implementation="cpython",
    free_threaded=True,
    executable="python3",
    system="Linux",
    machine="x86_64",
    libc=("glibc", (2, 36)),
    gpus=(Gpu("NVIDIA H200", (9, 0)),),
    driver=Driver("580.65.06", (13, 0)),
    torch=Torch("2.8.0", (12, 8), cxx11_abi=True),
)


def known(*entries: Entry) -> Any:
    return read_entries(json.loads(Catalog.of(entries).to_json()), "packages.json")


def test_a_node_takes_it_whatever_its_torch() -> None:
    chosen, rejected = choose(known(entry()), NODE, Wanted(project="tiny-lib"))
    assert rejected == ()
    assert chosen is not None
    assert page_of(chosen, known(entry()), (13, 0)) == "cu130/simple"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"python": (3, 9)}, "needs Python >=3.10, this is 3.9"),
        ({"driver": Driver("550.1", (12, 4))}, "holds the CUDA 13.0 runtime"),
        ({"gpus": (Gpu("NVIDIA A100", (8, 0)),)}, "holds code for sm_90a"),
    ],
)
def test_a_node_refuses_it_for_what_it_does_need(change: dict[str, Any], said: str) -> None:
    chosen, rejected = choose(known(entry()), replace(NODE, **change), Wanted(project="tiny-lib"))
    assert chosen is None
    assert rejected[0].reasons[0].startswith(said)


def test_ptx_serves_every_newer_gpu() -> None:
    fat = entry(architectures=("compute_90", "sm_75"))
    newer = replace(NODE, gpus=(Gpu("NVIDIA B200", (10, 0)),))
    older = replace(NODE, gpus=(Gpu("NVIDIA A100", (8, 0)),))
    assert choose(known(fat), newer, Wanted(project="tiny-lib"))[0] is not None
    assert choose(known(fat), older, Wanted(project="tiny-lib"))[0] is None


@pytest.mark.parametrize(("driver", "fits"), [("12.9", True), ("12.8", False)])
def test_ptx_needs_a_driver_of_its_own_toolkit_and_machine_code_does_not(driver: str, fits: bool) -> None:
    fat = replace(entry(architectures=("compute_90", "sm_90")), toolkit="12.9", driver="525.60.13")
    there = Driver("570.124", numbers(driver))
    newer = replace(NODE, gpus=(Gpu("NVIDIA B200", (10, 0)),), driver=there)
    chosen, rejected = choose(known(fat), newer, Wanted(project="tiny-lib"))
    assert (chosen is not None) == fits
    assert fits or "PTX of CUDA 12.9, and the driver here compiles that of CUDA 12.8" in rejected[0].reasons[0]
    hopper = replace(newer, gpus=(Gpu("NVIDIA H100", (9, 0)),))
    assert choose(known(fat), hopper, Wanted(project="tiny-lib"))[0] is not None


def test_a_page_names_no_virtual_architecture_as_a_gpu() -> None:
    page = site_pages(Catalog.of([entry(architectures=("compute_90", "sm_90"))]))["index.html"].decode()
    assert "<span>H100, H200, newer than H200</span>" in page
    assert ">compute_90<" not in page


def test_no_torch_is_missed_by_packages_that_bind_to_none_and_do_not_fit() -> None:
    old = replace(NODE, driver=Driver("550.54.15", (12, 4)), torch=None)
    report = examine(old, known(entry()), Wanted(project="tiny-lib"), "https://index")
    assert report.status == NOTHING
    assert not [one for one in report.findings if "torch" in one.what]


def test_a_page_says_whose_kernels_they_are() -> None:
    own = free_record(profile="own-fat", source=replace(record().source, commit="", trees={"kernels": "0f" * 32}))
    publication = Publication(driver="580.65.06", default=True, uploaded="2026-11-27T00:00:00Z")
    page = site_pages(Catalog.of([make_entry(own, METADATA, publication)]))["index.html"].decode()
    assert "kernels of the recipe itself" in page
    table = page.partition('<section id="profiles"')[2].partition("</section>")[0]
    assert "own-fat" not in table
    upstream = site_pages(Catalog.of([entry()]))["index.html"].decode()
    assert f"upstream commit <code>{record().source.commit}</code>" in upstream
