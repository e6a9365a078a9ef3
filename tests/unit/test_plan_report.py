"""A plan as text and as JSON."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.wheel_zoo import PROMISE

from hopperforge.model.cell import AbiClass, Accepted, Build, Cell, Default, Plan, Rejected
from hopperforge.model.machine import Limit, Machine, Sizing
from hopperforge.model.place import StorePlace
from hopperforge.model.profile import Budget, Profile
from hopperforge.model.recipe import Cudart, PackageNames, Recipe
from hopperforge.model.request import Kernels, ToolkitChoice
from hopperforge.model.toolkit import DebianPackage, PinnedFile, Redist, ToolkitFact, ToolkitOrigin
from hopperforge.model.versions import CudaVersion, PythonVersion, ToolkitVersion, TorchVersion
from hopperforge.plan_report import PackStatus, expected_text, plan_document, plan_lines, toolkit_text

GIBIBYTE = 2**30

PROFILE = Profile(
    name="hdim128-bf16",
    summary="",
    switches=frozenset(),
    architectures=frozenset({"sm_90a"}),
    budget=Budget(wheel=1, library=1),
)
RECIPE = Recipe(
    name="fa3-fwd",
    folder=Path("recipes/fa3-fwd"),
    pin="v2.8",
    package=PackageNames(distribution="fa3-fwd", package="fa3", module="fa3_interface", version="3.0.0", summary=""),
    promise=PROMISE,
    cudart=Cudart.STATIC,
    needed=frozenset(),
    default_profile="fa3-fwd",
    profiles={"hdim128-bf16": PROFILE},
)
MACHINE = Machine(
    cores=(Limit(value=16, source="whole machine"), Limit(value=2, source="affinity")),
    memory=(Limit(value=23 * GIBIBYTE, source="whole machine"),),
    free=(Limit(value=22 * GIBIBYTE, source="MemAvailable"),),
    architecture="x86_64",
)
SIZING = Sizing(
    max_jobs=2,
    nvcc_threads=1,
    memory=20 * GIBIBYTE,
    reasons=("memory 20.0 GiB: because", "MAX_JOBS 2: because", "NVCC_THREADS 1: because"),
)


def cell(cuda: str, torch: str, python: str) -> Cell:
    return Cell(
        recipe="fa3-fwd",
        profile="hdim128-bf16",
        cuda=ToolkitVersion.parse(cuda),
        torch=TorchVersion.parse(torch),
        python=PythonVersion.parse(python),
        platform="linux_x86_64",
    )


def build(cuda: str, *served: tuple[str, str, str]) -> Build:
    """A build by toolkit and (torch, python, runtime) of its cells."""
    return Build(
        recipe=RECIPE,
        profile=PROFILE,
        cuda=ToolkitVersion.parse(cuda),
        torch=TorchVersion(2, 9),
        abi=AbiClass.STABLE,
        platform="linux_x86_64",
        kernels=Kernels.PACK,
        cells=tuple(
            Accepted(cell=cell(cuda, torch, python), runtime=CudaVersion.parse(runtime), abi=AbiClass.STABLE)
            for torch, python, runtime in served
        ),
    )


OLD = build("12.4", ("2.9", "3.12", "12.8"))
NEW = build("13.0", ("2.9", "3.11", "13.0"), ("2.9", "3.12", "13.0"), ("2.13", "3.12", "13.2"))
PLAN = Plan(
    builds=(OLD, NEW),
    rejected=(
        Rejected(cell=cell("13.0", "2.6", "3.11"), reason="torch 2.6 is too old"),
        Rejected(cell=cell("13.0", "2.13", "3.10"), reason="torch 2.13 has no Python 3.10"),
        Rejected(cell=cell("13.0", "2.6", "3.12"), reason="torch 2.6 is too old"),
    ),
    defaults={
        "recipe": Default(value="fa3-fwd", reason="the default recipe"),
        "engine": Default(value="host", reason="the default engine"),
    },
    engine="host",
    executor="local",
    toolkit=ToolkitChoice.AUTO,
)
STATUSES = {
    str(OLD): PackStatus(
        toolkit="CUDA 12.4: cached", units=2, cached=2, sizing=SIZING, expected_seconds=0.0, wheel="wheelhouse/old.whl"
    ),
    str(NEW): PackStatus(
        toolkit="CUDA 13.0: system /opt/cuda", units=97, cached=60, sizing=SIZING, expected_seconds=1234.0, wheel=None
    ),
}
MERGED = {
    "merged/a-x2-01234567.cu": ("a.cu", "a_softcap.cu"),
    "merged/b-x3-89abcdef.cu": ("b.cu", "b_softcap.cu", "b_packgqa.cu"),
    "merged/c-x2-cafe0123.cu": ("c.cu", "c_softcap.cu"),
}


def test_a_plan_reads_from_the_machine_to_what_cannot_be_built() -> None:
    assert plan_lines(PLAN, MACHINE, STATUSES) == tuple(
        """\
machine x86_64
  cores     16 (whole machine), 2 (affinity)
  memory    23.0 GiB (whole machine)
  free      22.0 GiB (MemAvailable)

words not given
  recipe=fa3-fwd  the default recipe
  engine=host     the default engine

build fa3-fwd/hdim128-bf16 cu124.hdim128.bf16: fa3-fwd 3.0.0+cu124.hdim128.bf16, linux_x86_64
  front     binds against torch 2.9 (stable ABI), kernels=pack
  toolkit   CUDA 12.4: cached
  serves    torch 2.9, python 3.12: CUDA 12.4 compiles, torch runs on CUDA 12.8
  pack      2 units: 2 cached, 0 to compile
  sizing    memory 20.0 GiB: because
  sizing    MAX_JOBS 2: because
  sizing    NVCC_THREADS 1: because
  wheel     finished: wheelhouse/old.whl

build fa3-fwd/hdim128-bf16 cu130.hdim128.bf16: fa3-fwd 3.0.0+cu130.hdim128.bf16, linux_x86_64
  front     binds against torch 2.9 (stable ABI), kernels=pack
  toolkit   CUDA 13.0: system /opt/cuda
  serves    torch 2.9, python 3.11, 3.12: CUDA 13.0 compiles, torch runs on CUDA 13.0
  serves    torch 2.13, python 3.12: CUDA 13.0 compiles, torch runs on CUDA 13.2
  pack      97 units: 60 cached, 37 to compile
  sizing    memory 20.0 GiB: because
  sizing    MAX_JOBS 2: because
  sizing    NVCC_THREADS 1: because
  expected  about 21 minutes

cannot be built
  torch 2.6 is too old
    fa3-fwd/hdim128-bf16 cuda 13.0 torch 2.6 python 3.11 linux_x86_64
    fa3-fwd/hdim128-bf16 cuda 13.0 torch 2.6 python 3.12 linux_x86_64
  torch 2.13 has no Python 3.10
    fa3-fwd/hdim128-bf16 cuda 13.0 torch 2.13 python 3.10 linux_x86_64

2 builds for 4 cells, 1 finished, 3 rejected""".splitlines()
    )


def test_a_plan_for_a_cluster_says_whose_times_these_are() -> None:
    plan = Plan(builds=(), rejected=(), defaults={}, engine="host", executor="dask", toolkit=ToolkitChoice.AUTO)
    *_, last = plan_lines(plan, MACHINE, {})
    assert last == "executor dask: units go to workers, whose number nobody knows yet; times are this machine's own"


def test_nothing_is_said_of_what_is_not_there() -> None:
    plan = Plan(
        builds=(OLD,), rejected=(), defaults={}, engine="host", executor="local", toolkit=ToolkitChoice.REGISTRY
    )
    bare = Machine(
        cores=(Limit(value=4, source="whole machine"),),
        memory=(Limit(value=8 * GIBIBYTE, source="whole machine"),),
        architecture="x86_64",
        process_memory=Limit(value=4 * GIBIBYTE, source="RLIMIT_AS of each process"),
        notices=("the limit of /job cannot be read",),
    )
    unknown = PackStatus(toolkit="CUDA 12.4", units=None, cached=0, sizing=SIZING, expected_seconds=None, wheel=None)

    lines = plan_lines(plan, bare, {str(OLD): unknown})

    assert lines[:7] == (
        "machine x86_64",
        "  cores     4 (whole machine)",
        "  memory    8.0 GiB (whole machine)",
        "  process   4.0 GiB (RLIMIT_AS of each process)",
        "  note      the limit of /job cannot be read",
        "",
        "build fa3-fwd/hdim128-bf16 cu124.hdim128.bf16: fa3-fwd 3.0.0+cu124.hdim128.bf16, linux_x86_64",
    )
    assert lines[10] == "  pack      number of units known once source, toolkit and image are here"
    assert lines[14:] == (
        "  expected  unknown until its units were measured once",
        "",
        "1 build for 1 cell, 0 finished, 0 rejected",
    )


WHEEL = PinnedFile(project="nvcc", filename="nvcc-12.9.86.whl", sha256="ab" * 32)
TOOLKIT = ToolkitFact(
    version=ToolkitVersion.parse("12.4+ptxas12.9"),
    release="12.4.131",
    driver="525.60.13",
    gcc_max=13,
    origins=(ToolkitOrigin.REGISTRY, ToolkitOrigin.REDIST),
    wheels=(WHEEL, WHEEL),
    debian=(DebianPackage(pool="pool/n/nvcc_12.4.deb", sha256="cd" * 32, members={"usr/bin/nvcc": "bin/nvcc"}),),
    redist=Redist(manifest="https://example.org/redist/redistrib_12.4.1.json", sha256="ef" * 32, components=("a", "b")),
    ptxas=WHEEL,
)


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("cached", "cached"),
        (
            "registry",
            (
                "not on this machine, to be fetched: 2 wheels from the package index; nvcc_12.4.deb from a "
                "Debian mirror; ptxas from nvcc-12.9.86.whl"
            ),
        ),
        (
            "redist",
            (
                "not on this machine, to be fetched: a, b of https://example.org/redist/redistrib_12.4.1.json; "
                "ptxas from nvcc-12.9.86.whl"
            ),
        ),
    ],
)
def test_a_toolkit_is_said_to_be_here_or_what_would_be_fetched(where: str, text: str) -> None:
    assert toolkit_text(TOOLKIT, where) == f"CUDA 12.4+ptxas12.9, nvcc 12.4.131: {text}"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "unknown until its units were measured once"),
        (0.0, "nothing to compile"),
        (0.5, "about 1 minute"),
        (60.0, "about 1 minute"),
        (61.0, "about 2 minutes"),
        (7200.0, "about 120 minutes"),
    ],
)
def test_an_expected_time_is_whole_minutes_rounded_up(seconds: float | None, text: str) -> None:
    assert expected_text(seconds) == text


def test_units_of_several_sources_are_counted_in_lines_and_listed_in_the_document() -> None:
    statuses = {name: dataclasses.replace(status, merged=MERGED) for name, status in STATUSES.items()}

    lines = plan_lines(PLAN, MACHINE, statuses)
    pack = lines.index("  pack      97 units: 60 cached, 37 to compile")
    assert lines[pack + 1] == (
        "  merged    2 of 2 sources, 1 of 3 sources, compiled together; merge=off compiles each by itself, "
        "nox -s patch lists them"
    )
    document = json.loads(json.dumps(plan_document(PLAN, MACHINE, statuses)))
    assert document["builds"][0]["pack"]["merged"][1] == {
        "path": "merged/b-x3-89abcdef.cu",
        "sources": ["b.cu", "b_softcap.cu", "b_packgqa.cu"],
    }


def test_the_document_survives_json_and_has_stable_names() -> None:
    document = json.loads(json.dumps(plan_document(PLAN, MACHINE, STATUSES)))

    names = {"machine", "engine", "executor", "toolkit", "store", "defaults", "builds", "rejected"}
    assert document.keys() == names
    assert document["machine"] == {
        "architecture": "x86_64",
        "cores": [{"value": 16, "source": "whole machine"}, {"value": 2, "source": "affinity"}],
        "memory": [{"value": 23 * GIBIBYTE, "source": "whole machine"}],
        "free": [{"value": 22 * GIBIBYTE, "source": "MemAvailable"}],
        "process_memory": None,
        "notices": [],
    }
    assert (document["engine"], document["executor"], document["toolkit"]) == ("host", "local", "auto")
    assert document["defaults"]["engine"] == {"value": "host", "reason": "the default engine"}
    assert document["builds"][0] == {
        "name": "fa3-fwd/hdim128-bf16 cu124.hdim128.bf16",
        "version": "3.0.0+cu124.hdim128.bf16",
        "recipe": "fa3-fwd",
        "profile": "hdim128-bf16",
        "cuda": "12.4",
        "toolkit": "CUDA 12.4: cached",
        "torch": "2.9",
        "abi": "stable",
        "platform": "linux_x86_64",
        "kernels": "pack",
        "cells": [
            {
                "recipe": "fa3-fwd",
                "profile": "hdim128-bf16",
                "cuda": "12.4",
                "torch": "2.9",
                "python": "3.12",
                "platform": "linux_x86_64",
                "runtime": "12.8",
            }
        ],
        "pack": {"units": 2, "cached": 2, "to_compile": 0, "merged": []},
        "sizing": {
            "max_jobs": 2,
            "nvcc_threads": 1,
            "memory": 20 * GIBIBYTE,
            "reasons": ["memory 20.0 GiB: because", "MAX_JOBS 2: because", "NVCC_THREADS 1: because"],
        },
        "expected_seconds": 0.0,
        "wheel": "wheelhouse/old.whl",
    }
    assert [(found["cell"]["torch"], found["reason"]) for found in document["rejected"]] == [
        ("2.6", "torch 2.6 is too old"),
        ("2.13", "torch 2.13 has no Python 3.10"),
        ("2.6", "torch 2.6 is too old"),
    ]


def test_the_documented_names_are_those_of_the_document() -> None:
    documented = plan_document.__doc__ or ""
    statuses = {name: dataclasses.replace(status, merged=MERGED) for name, status in STATUSES.items()}
    document = plan_document(PLAN, MACHINE, statuses)

    for name in (*document, *keys_of(document["machine"]), *keys_of(document["builds"])):
        assert name in documented


def keys_of(value: object) -> set[str]:
    """Every key of a document, except values that are keyed by data."""
    if isinstance(value, dict):
        return set(value) | {key for inner in value.values() for key in keys_of(inner)}
    if isinstance(value, list):
        return {key for inner in value for key in keys_of(inner)}
    return set()


def test_a_pack_of_unknown_size_is_null_in_the_document() -> None:
    statuses = {
        str(found): PackStatus(
            toolkit="CUDA 12.4", units=None, cached=0, sizing=SIZING, expected_seconds=None, wheel=None
        )
        for found in PLAN.builds
    }

    documents = json.loads(json.dumps(plan_document(PLAN, MACHINE, statuses)))["builds"]

    assert documents[0]["pack"] == {"units": None, "cached": 0, "to_compile": None, "merged": []}
    assert (documents[0]["expected_seconds"], documents[0]["wheel"]) == (None, None)


def test_where_objects_are_shared_is_said_if_they_are() -> None:
    assert not [line for line in plan_lines(PLAN, MACHINE, STATUSES) if "shared" in line]
    assert plan_document(PLAN, MACHINE, STATUSES)["store"] is None
    sharing = replace(PLAN, store=StorePlace.parse("s3://kernels/a"))
    assert "objects are shared in s3://kernels/a (HOPPERFORGE_STORE)" in plan_lines(sharing, MACHINE, STATUSES)
    assert plan_document(sharing, MACHINE, STATUSES)["store"] == "s3://kernels/a"
