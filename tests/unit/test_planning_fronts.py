"""What planning says of recipes whose front binds to no torch, and of kernels that not every toolkit compiles."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.test_planning import PROJECT, TOOLKIT_130, cuda, profile, recipe, situation, torch

from hopperforge.config.project import Project
from hopperforge.errors import InputError, NothingToBuildError
from hopperforge.model.cell import AbiClass
from hopperforge.model.front import Front, FrontKind
from hopperforge.model.machine import Limit, Machine, Sizing
from hopperforge.model.matrix import Exclusion
from hopperforge.model.recipe import Cudart, Recipe
from hopperforge.model.request import Request
from hopperforge.model.versions import ToolkitVersion, TorchVersion
from hopperforge.plan_report import PackStatus, pair_texts, plan_document, plan_lines
from hopperforge.planning import make_plan, select
from hopperforge.support import make_support, support_document, text_rows

OLD, NEW = ToolkitVersion.parse("12.8"), TOOLKIT_130
BOTH = situation({OLD: "system /opt/cuda", NEW: "registry"})


def free(kind: FrontKind = FrontKind.CPP) -> Recipe:
    return replace(recipe("free", Cudart.STATIC), needed=frozenset(), front=Front(kind=kind))


def project(*recipes: Recipe) -> Project:
    return replace(PROJECT, recipes={**PROJECT.recipes, **{one.name: one for one in recipes}})


FREE = project(free())
EVERYTHING = Request(recipe="free", cuda=(OLD, NEW), everything=True)


@pytest.mark.parametrize("kind", [FrontKind.CPP, FrontKind.JAX])
def test_a_cell_is_a_cuda_and_a_platform_alone(kind: FrontKind) -> None:
    accepted, rejected = select(project(free(kind)), Request(recipe="free", cuda=(NEW,)), BOTH)
    assert rejected == ()
    (found,) = accepted
    assert (found.cell.torch, found.cell.python, found.runtime, found.abi) == (None, None, None, AbiClass.NONE)
    assert str(found.cell) == "free/fa3-fwd cuda 13.0 linux_x86_64"


def test_each_cuda_is_a_build_whose_label_names_no_torch() -> None:
    plan = make_plan(FREE, EVERYTHING, BOTH)
    assert [(build.torch, build.version, len(build.cells)) for build in plan.builds] == [
        (None, "3.0.0+cu128", 1),
        (None, "3.0.0+cu130", 1),
    ]
    assert {build.needed for build in plan.builds} == {frozenset()}
    assert "torch" not in plan.defaults
    assert "python" not in plan.defaults


def test_a_profile_of_another_recipe_is_refused_with_whose_it_is() -> None:
    mine = replace(free(), profiles={"mine": profile("mine")})
    with pytest.raises(InputError) as caught:
        make_plan(project(mine), Request(profiles=("mine",), cuda=(NEW,)), BOTH)
    assert str(caught.value).startswith("profile=mine: recipe fa3-fwd has fa3-fwd, hdim128-bf16")
    assert caught.value.detail == ("recipe=free has it",)


def test_the_same_request_of_a_torch_recipe_still_names_both() -> None:
    plan = make_plan(FREE, Request(cuda=(NEW,)), BOTH)
    assert {"torch", "python"} <= plan.defaults.keys()


def test_a_front_of_our_own_binds_the_stable_abi_alone() -> None:
    ours = replace(recipe("ours", Cudart.STATIC), front=Front(kind=FrontKind.TORCH))
    plan = make_plan(project(ours), Request(recipe="ours", cuda=(NEW,), torch=torch("2.9", "2.11")), BOTH)
    assert [(build.abi, str(build.torch), len(build.cells)) for build in plan.builds] == [(AbiClass.STABLE, "2.9", 2)]
    accepted, rejected = select(project(ours), Request(recipe="ours", cuda=(OLD,), torch=torch("2.6")), BOTH)
    assert accepted == ()
    assert rejected[0].reason.endswith("which recipe ours does not make (needed_per_torch)")


def test_an_exclusion_of_a_torch_leaves_what_has_none() -> None:
    said = "it was taken back"
    matrix = replace(
        PROJECT.matrix,
        exclusions=(
            Exclusion(cuda=NEW, torch=TorchVersion(2, 11), python=None, reason="another"),
            Exclusion(cuda=OLD, torch=None, python=None, reason=said),
        ),
    )
    accepted, rejected = select(replace(FREE, matrix=matrix), replace(EVERYTHING, everything=False), BOTH)
    assert [found.cell.cuda for found in accepted] == [NEW]
    assert [(found.cell.cuda, found.reason) for found in rejected] == [(OLD, said)]


def test_the_nearest_cell_and_its_command_name_no_torch() -> None:
    with pytest.raises(NothingToBuildError) as caught:
        make_plan(FREE, Request(recipe="free", cuda=cuda("12.4")), situation({NEW: "registry"}))
    assert caught.value.detail[-1] == "the nearest cell that can be built: free/fa3-fwd cuda 13.0 linux_x86_64"
    assert caught.value.hint == "nox -s build -- recipe=free profile=fa3-fwd cuda=13.0"


def machine() -> Machine:
    limit = Limit(value=4, source="test")
    return Machine(architecture="x86_64", cores=(limit,), memory=(limit,), free=(), process_memory=None, notices=())


def test_the_plan_prints_neither_word() -> None:
    plan = make_plan(FREE, Request(recipe="free", cuda=(NEW,)), BOTH)
    (build,) = plan.builds
    assert pair_texts(build) == ["every torch, jax and Python, or none: CUDA 13.0 compiles, and its runtime is inside"]
    assert str(build) == "free/fa3-fwd cu130"
    sizing = Sizing(max_jobs=1, nvcc_threads=1, memory=1, reasons=())
    done = PackStatus(toolkit="T", units=2, cached=2, sizing=sizing, expected_seconds=0.0, wheel=None)
    lines = plan_lines(plan, machine(), {str(build): done})
    assert "  front     binds against no framework: C++ and C, kernels=pack" in lines
    assert not [line for line in lines if "None" in line or "torch=" in line]
    document: Any = plan_document(plan, machine(), {str(build): done})
    assert (document["builds"][0]["torch"], document["builds"][0]["abi"]) == (None, "none")
    assert document["builds"][0]["cells"] == [
        {
            "recipe": "free",
            "profile": "fa3-fwd",
            "cuda": "13.0",
            "torch": None,
            "python": None,
            "platform": "linux_x86_64",
            "runtime": None,
        }
    ]


def test_the_support_table_has_a_row_for_each_cuda_and_no_gap() -> None:
    request = Request(recipe="free", cuda=(OLD, NEW), torch=torch("2.9"), python=(BOTH.python,), everything=True)
    support = make_support(FREE, request, BOTH, ())
    assert [(row.cuda, row.torch, row.pythons) for row in support.rows] == [(OLD, None, ()), (NEW, None, ())]
    assert support.gaps == ()
    assert [row[1:4] for row in text_rows(support)] == [("12.8", "any", "any"), ("13.0", "any", "any")]
    rows = support_document(support)["rows"]
    assert isinstance(rows, list)
    assert rows[0]["torch"] is None


# Architectures.

AGED = replace(
    PROJECT.matrix,
    toolkits={
        version: replace(fact, oldest=75 if version.cuda.major > 12 else 50)
        for version, fact in PROJECT.matrix.toolkits.items()
    },
)
FAT = replace(profile("fa3-fwd"), architectures=frozenset({"sm_70", "sm_75", "sm_90"}), ptx=frozenset({"compute_90"}))
LONE = replace(profile("hdim128-bf16"), architectures=frozenset({"sm_70"}))
FAT_RECIPE = replace(free(), profiles={one.name: one for one in (FAT, LONE)})
AGED_PROJECT = replace(project(FAT_RECIPE), matrix=AGED)


def test_a_build_has_the_architectures_that_its_toolkit_knows() -> None:
    plan = make_plan(AGED_PROJECT, EVERYTHING, BOTH)
    assert {str(build.cuda): sorted(build.profile.architectures) for build in plan.builds} == {
        "12.8": ["sm_70", "sm_75", "sm_90"],
        "13.0": ["sm_75", "sm_90"],
    }
    assert {build.profile.ptx for build in plan.builds} == {frozenset({"compute_90"})}


def test_ptx_that_a_toolkit_no_longer_makes_is_a_reason() -> None:
    aged = replace(FAT, ptx=frozenset({"compute_70", "compute_90"}))
    old = replace(project(replace(free(), profiles={aged.name: aged})), matrix=AGED)
    accepted, rejected = select(old, EVERYTHING, BOTH)
    assert [str(found.cell.cuda) for found in accepted] == ["12.8"]
    assert [found.reason for found in rejected] == [
        "the CUDA 13.0 toolkit starts at sm_75, and profile fa3-fwd has PTX for compute_70"
    ]


def test_a_toolkit_that_knows_none_of_them_cannot_build_it() -> None:
    accepted, rejected = select(AGED_PROJECT, replace(EVERYTHING, profiles=("hdim128-bf16",)), BOTH)
    assert [found.cell.cuda for found in accepted] == [OLD]
    assert [found.reason for found in rejected] == [
        "the CUDA 13.0 toolkit starts at sm_75, and profile hdim128-bf16 is for sm_70"
    ]
