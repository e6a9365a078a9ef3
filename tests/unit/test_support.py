"""The support table: what counts as built and proven, what this machine can build, and what is only declared."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.record_zoo import GATES, TOOLKIT, record
from tests.unit.wheel_zoo import PROMISE

from hopperforge.config.project import Project
from hopperforge.model.matrix import Exclusion, Matrix, TorchFact
from hopperforge.model.profile import Budget, Profile
from hopperforge.model.recipe import Cudart, PackageNames, Recipe
from hopperforge.model.record import Record, ServedCell
from hopperforge.model.request import Request
from hopperforge.model.toolkit import PinnedFile, ToolkitFact, ToolkitOrigin
from hopperforge.model.versions import CudaVersion, PythonVersion, ToolkitVersion, TorchVersion
from hopperforge.model.wheel import GateResult, ImportProof
from hopperforge.planning import Situation
from hopperforge.support import State, Support, make_support, runs, support_document, text_reasons, text_rows

EXCLUDED = "torch 2.11 does not start there: https://example.org/1"


def torch_fact(version: str, cudas: Sequence[str], pythons: Sequence[str], *, bound: bool = False) -> TorchFact:
    name = f"torch-{version}.0-cp312-cp312-manylinux_2_28_x86_64.whl"
    return TorchFact(
        version=TorchVersion.parse(version),
        release=f"{version}.0",
        index_cuda=CudaVersion.parse(cudas[0]),
        cuda=tuple(map(CudaVersion.parse, cudas)),
        pythons=tuple(map(PythonVersion.parse, pythons)),
        wheel=PinnedFile(project="torch", filename=name, sha256="a" * 64) if bound else None,
        cxx11_abi=True,
        cxx_standard=17,
    )


def toolkit_fact(version: str) -> ToolkitFact:
    return ToolkitFact(
        version=ToolkitVersion.parse(version),
        release=f"{version}.1",
        driver="580",
        gcc_max=15,
        origins=(ToolkitOrigin.REGISTRY,),
        wheels=(),
    )


def profile(name: str) -> Profile:
    return Profile(
        name=name,
        summary="",
        switches=frozenset(),
        architectures=frozenset({"sm_90a"}),
        budget=Budget(wheel=1, library=1),
    )


TORCHES = (
    torch_fact("2.8", ["12.8", "12.6"], ["3.9", "3.10"], bound=True),
    torch_fact("2.9", ["12.8", "13.0"], ["3.10", "3.11"], bound=True),
    torch_fact("2.10", ["12.8", "13.0"], ["3.10", "3.11"]),
    torch_fact("2.11", ["13.0"], ["3.10", "3.11"]),
)
PROJECT = Project(
    matrix=Matrix(
        toolkits={fact.version: fact for fact in map(toolkit_fact, ("12.4", "13.0"))},
        torches={fact.version: fact for fact in TORCHES},
        pythons=tuple(map(PythonVersion.parse, ("3.9", "3.10", "3.11"))),
        stable_floor=TorchVersion(2, 9),
        platforms={"linux_x86_64": None, "linux_aarch64": "no machine has it"},
        exclusions=(
            Exclusion(cuda=ToolkitVersion.parse("12.4"), torch=TorchVersion(2, 11), python=None, reason=EXCLUDED),
        ),
        ci=(),
    ),
    recipes={
        "fa3-fwd": Recipe(
            name="fa3-fwd",
            folder=Path("recipes/fa3-fwd"),
            pin="v1",
            package=PackageNames(distribution="fa3_fwd", package="fa3_fwd", module="m", version="3.0.0", summary=""),
            promise=PROMISE,
            cudart=Cudart.STATIC,
            needed=frozenset(),
            needed_per_torch=frozenset({"libc10.so"}),
            default_profile="fa3-fwd",
            profiles={name: profile(name) for name in ("fa3-fwd", "full")},
        )
    },
    pins={},
    switches=frozenset(),
)
EVERYTHING = Request(
    cuda=tuple(PROJECT.matrix.toolkits), torch=tuple(PROJECT.matrix.torches), python=PROJECT.matrix.pythons
)
HERE = Situation(
    toolkits_at_hand={ToolkitVersion.parse("13.0"): "registry"}, python=PythonVersion(3, 11), platform="linux_x86_64"
)


def built(version: str, cuda: str, *gates: GateResult, **changes: object) -> Record:
    """A record of the default profile."""
    toolkit = ToolkitVersion.parse(cuda)
    cell = ServedCell(
        cuda=toolkit,
        torch=TorchVersion(2, 9),
        python=PythonVersion(3, 10),
        platform="linux_x86_64",
        runtime=CudaVersion(13, 0),
    )
    fields: dict[str, object] = {
        "version": version,
        "profile": "fa3-fwd",
        "cells": (cell,),
        "toolkit": replace(TOOLKIT, version=toolkit),
        "gates": (*GATES, *gates),
    }
    return record(**(fields | changes))


def imported(torch: str, python: str, *, passed: bool = True) -> GateResult:
    proof = ImportProof(torch=TorchVersion.parse(torch), python=PythonVersion.parse(python))
    return GateResult(name=str(proof), passed=passed, detail="it imports")


def table(*records: Record, here: Situation = HERE, request: Request = EVERYTHING) -> Support:
    return make_support(PROJECT, request, here, records)


def states(support: Support) -> dict[tuple[str, str], State]:
    return {(str(row.cuda), str(row.torch)): row.state for row in support.rows}


def test_what_was_never_built_is_buildable_here_or_declared() -> None:
    assert states(table()) == {
        ("12.4", "2.8"): State.DECLARED,
        ("12.4", "2.9"): State.DECLARED,
        ("12.4", "2.10"): State.DECLARED,
        ("13.0", "2.9"): State.HERE,
        ("13.0", "2.10"): State.HERE,
        ("13.0", "2.11"): State.HERE,
    }


def test_a_record_makes_every_torch_of_its_wheel_built_and_the_imported_one_proven() -> None:
    found = table(built("3.0.0+cu130", "13.0", imported("2.10", "3.11")))

    assert [(str(row.torch), row.state, row.proofs) for row in found.rows if str(row.cuda) == "13.0"] == [
        ("2.9", State.BUILT, ()),
        ("2.10", State.PROVEN, ("imports in python 3.11",)),
        ("2.11", State.BUILT, ()),
    ]


@pytest.mark.parametrize(
    "other",
    [
        built("3.0.0+cu124", "12.4"),  # another toolkit
        built("3.0.0+cu130.full", "13.0", profile="full"),
        built("2.9.0+cu130", "13.0"),  # an older version of the package
        built("3.0.0+cu130", "13.0", recipe="fa3-jax"),
    ],
    ids=["toolkit", "profile", "version", "recipe"],
)
def test_a_record_of_another_wheel_proves_nothing(other: Record) -> None:
    rows = [row for row in table(other).rows if (row.profile, str(row.cuda)) == ("fa3-fwd", "13.0")]

    assert {row.state for row in rows} == {State.HERE}


def test_a_wheel_of_a_toolkit_with_another_ptxas_is_another_wheel() -> None:
    other = built("3.0.0+cu124", "12.4+ptxas12.9", imported("2.9", "3.10"))

    assert states(table(other))["12.4", "2.9"] is State.DECLARED


def test_imports_of_all_records_are_one_proof_in_the_order_of_pythons() -> None:
    older = built("3.0.0+cu130", "13.0", imported("2.10", "3.11"))
    newer = built("3.0.0+cu130", "13.0", imported("2.10", "3.9"), imported("2.10", "3.11"), imported("2.9", "3.12"))

    assert [row.proofs for row in table(older, newer).rows if row.torch == TorchVersion(2, 10)] == [
        (),
        ("imports in python 3.9, 3.11",),
    ]


def test_a_failed_import_proves_nothing() -> None:
    assert states(table(built("3.0.0+cu130", "13.0", imported("2.10", "3.11", passed=False))))["13.0", "2.10"] is (
        State.BUILT
    )


@pytest.mark.parametrize(
    ("gpu", "proofs"),
    [
        (
            {"gpu": "NVIDIA H200", "torch": "2.11.0+cu130", "passed": 57, "failed": 0},
            ("57 smoke tests on NVIDIA H200",),
        ),
        ({"gpu": "NVIDIA H200", "torch": "2.11.0+cu130", "passed": 56, "failed": 1}, ()),
        ({"gpu": "NVIDIA H200", "torch": "2.11.0+cu130", "passed": 0, "failed": 0}, ()),
        ({"gpu": "NVIDIA H200", "torch": "2.1.0+cu121", "passed": 57, "failed": 0}, ()),
    ],
    ids=["passed", "one failed", "none ran", "another torch"],
)
def test_smoke_tests_on_a_gpu_prove_their_torch(gpu: dict[str, object], proofs: tuple[str, ...]) -> None:
    (row,) = [row for row in table(built("3.0.0+cu130", "13.0", gpu=gpu)).rows if row.torch == TorchVersion(2, 11)]

    assert row.proofs == proofs


def test_a_profile_that_was_built_is_shown_beside_the_default() -> None:
    assert {row.profile for row in table().rows} == {"fa3-fwd"}
    assert {row.profile for row in table(built("3.0.0+cu130.full", "13.0", profile="full")).rows} == {"fa3-fwd", "full"}


def test_gaps_have_the_reason_that_weighs_most() -> None:
    assert [(str(gap.cuda), str(gap.torch), gap.reason) for gap in table().gaps] == [
        ("12.4", "2.11", EXCLUDED),
        (
            "13.0",
            "2.8",
            (
                "code of the CUDA 13.0 toolkit needs CUDA 13.x (torch's own structures change with the major), "
                "and torch 2.8 runs on 12.6, 12.8"
            ),
        ),
    ]


def test_another_machine_can_build_nothing_for_this_platform() -> None:
    arm = replace(HERE, platform="linux_aarch64")

    found = table(here=arm)

    assert set(states(found).values()) == {State.DECLARED}
    assert len(states(found)) == len(states(table()))
    assert {row.reason for row in found.rows if str(row.cuda) == "13.0"} == {"this machine is linux_aarch64"}


def test_the_text_joins_neighbours_and_says_every_reason_once() -> None:
    found = table(built("3.0.0+cu130", "13.0", imported("2.11", "3.11")))

    assert text_rows(found) == [
        ("fa3-fwd", "12.4", "2.8", "3.9 - 3.10", "linux_x86_64", "3.0.0+cu124torch2.8", "declared, never built"),
        ("fa3-fwd", "12.4", "2.9 - 2.10", "3.10 - 3.11", "linux_x86_64", "3.0.0+cu124", "declared, never built"),
        ("fa3-fwd", "13.0", "2.9 - 2.10", "3.10 - 3.11", "linux_x86_64", "3.0.0+cu130", "built"),
        (
            *("fa3-fwd", "13.0", "2.11", "3.10 - 3.11", "linux_x86_64", "3.0.0+cu130"),
            "built and proven: imports in python 3.11",
        ),
    ]
    assert text_reasons(found) == [
        "",
        "cannot be built here",
        "  the CUDA 12.4 toolkit is not at hand; at hand: 13.0; its origins: registry",
        "",
        "do not go together",
        f"  torch 2.11 with cuda 12.4: {EXCLUDED}",
        (
            "  torch 2.8 with cuda 13.0: code of these toolkits needs CUDA 13.x (torch's own structures change with "
            "the major), and torch 2.8 runs on 12.6, 12.8"
        ),
        "",
        "declared, never built",
        "  linux_aarch64: no machine has it",
    ]


def test_the_text_says_where_a_toolkit_would_come_from() -> None:
    assert text_rows(table())[-1][-1] == "buildable here if its toolkit can be fetched: registry"


def test_the_document_survives_json() -> None:
    document = support_document(table(built("3.0.0+cu130", "13.0", imported("2.11", "3.11"))))

    assert json.loads(json.dumps(document)) == document
    assert json.loads(json.dumps(document))["rows"][-1] == {
        "profile": "fa3-fwd",
        "cuda": "13.0",
        "torch": "2.11",
        "platform": "linux_x86_64",
        "pythons": ["3.10", "3.11"],
        "version": "3.0.0+cu130",
        "state": "built and proven",
        "proofs": ["imports in python 3.11"],
        "reason": None,
        "origin": "registry",
    }


@pytest.mark.parametrize(
    ("kept", "text"),
    [
        (["2.8"], "2.8"),
        (["2.8", "2.9", "2.10"], "2.8 - 2.10"),
        (["2.8", "2.10", "2.11"], "2.8, 2.10 - 2.11"),
        ([], ""),
    ],
)
def test_runs_name_only_what_follows_each_other(kept: list[str], text: str) -> None:
    assert runs([TorchVersion.parse(version) for version in kept], PROJECT.matrix.torches) == text


@pytest.mark.parametrize("name", ["metadata", "import with torch 2.9", "import with torch 2.9 on /usr/bin/python3"])
def test_other_gates_are_no_import_proofs(name: str) -> None:
    assert ImportProof.parse(name) is None


def test_an_import_proof_survives_its_name_wherever_it_was_run() -> None:
    proof = ImportProof(torch=TorchVersion(2, 11), python=PythonVersion(3, 9))

    assert ImportProof.parse(str(proof)) == proof
    assert ImportProof.parse(f"{proof} (bullseye)") == proof
