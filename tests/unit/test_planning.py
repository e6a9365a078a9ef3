"""Which cells are accepted, how they collapse into builds, and what is said when none is."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version
from tests.unit.wheel_zoo import PROMISE

from hopperforge.config.project import Project
from hopperforge.errors import InputError, NothingToBuildError
from hopperforge.model.cell import AbiClass, Cell, Default, Plan
from hopperforge.model.matrix import Exclusion, Matrix, TorchFact
from hopperforge.model.profile import Budget, Profile
from hopperforge.model.recipe import Cudart, PackageNames, Recipe
from hopperforge.model.request import Kernels, Request, ToolkitChoice
from hopperforge.model.toolkit import PinnedFile, ToolkitFact, ToolkitOrigin
from hopperforge.model.versions import CudaVersion, PythonVersion, ToolkitVersion, TorchVersion
from hopperforge.pairing import pair_runtime
from hopperforge.planning import Situation, for_engine, make_plan, select, why_host

EXCLUDED = "torch 2.13 of CUDA 13.2 lacks a header the front needs"
OWN_BUILD = "torch 2.6 is older than 2.9, the first with the stable ABI, and needs its own build"
OTHER_MAJOR = (
    "code of the CUDA 13.0 toolkit needs CUDA 13.x (torch's own structures change with the major), "
    "and torch 2.6 runs on 11.8, 12.4, 12.6"
)


TOOLKIT_130 = ToolkitVersion.parse("13.0")
TOOLKIT_132 = ToolkitVersion.parse("13.2")


def cuda(*texts: str) -> tuple[ToolkitVersion, ...]:
    return tuple(ToolkitVersion.parse(text) for text in texts)


def torch(*texts: str) -> tuple[TorchVersion, ...]:
    return tuple(TorchVersion.parse(text) for text in texts)


def python(*texts: str) -> tuple[PythonVersion, ...]:
    return tuple(PythonVersion.parse(text) for text in texts)


def torch_fact(
    version: str, index_cuda: str, cudas: Sequence[str], pythons: Sequence[str], wheel: PinnedFile | None = None
) -> TorchFact:
    return TorchFact(
        version=TorchVersion.parse(version),
        release=f"{version}.0",
        index_cuda=CudaVersion.parse(index_cuda),
        cuda=tuple(CudaVersion.parse(text) for text in cudas),
        pythons=python(*pythons),
        wheel=wheel,
        cxx11_abi=True,
        cxx_standard=17,
    )


def toolkit_fact(version: str, *origins: ToolkitOrigin) -> ToolkitFact:
    return ToolkitFact(
        version=ToolkitVersion.parse(version),
        release=f"{version}.1",
        driver="580",
        gcc_max=15,
        origins=origins,
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


def recipe(name: str, cudart: Cudart, needed_per_torch: frozenset[str] | None = None) -> Recipe:
    return Recipe(
        name=name,
        folder=Path("recipes") / name,
        pin="v2.8",
        package=PackageNames(distribution=name, package="fa3", module="fa3_interface", version="3.0.0", summary=""),
        promise=PROMISE,
        cudart=cudart,
        needed=frozenset({"libc10.so"}),
        needed_per_torch=needed_per_torch,
        default_profile="fa3-fwd",
        profiles={profile.name: profile for profile in (profile("fa3-fwd"), profile("hdim128-bf16"))},
    )


NEEDED_PER_TORCH = frozenset({"libc10.so", "libc10_cuda.so"})
TORCHES = (
    torch_fact("2.5", "12.4", ["11.8", "12.1", "12.4"], ["3.9", "3.10", "3.11", "3.12"]),  # no wheel to bind against
    torch_fact(
        "2.6",
        "12.4",
        ["11.8", "12.4", "12.6"],
        ["3.9", "3.10", "3.11", "3.12", "3.13"],
        PinnedFile(project="torch", filename="torch-2.6.0-cp312-cp312-manylinux1_x86_64.whl", sha256="a" * 64),
    ),
    torch_fact("2.9", "12.8", ["12.6", "12.8", "13.0"], ["3.10", "3.11", "3.12", "3.13", "3.14"]),
    torch_fact("2.11", "13.0", ["12.6", "12.8", "13.0"], ["3.10", "3.11", "3.12", "3.13", "3.14"]),
    torch_fact("2.12", "12.8", ["12.6", "12.8"], ["3.10", "3.11", "3.12", "3.13", "3.14"]),
    torch_fact("2.13", "13.2", ["12.8", "13.0", "13.2"], ["3.11", "3.12", "3.13", "3.14", "3.15"]),
)
TOOLKITS = (
    toolkit_fact("12.4", ToolkitOrigin.SYSTEM),
    toolkit_fact("12.4+ptxas12.9", ToolkitOrigin.REGISTRY),
    toolkit_fact("12.8", ToolkitOrigin.SYSTEM, ToolkitOrigin.REDIST),
    toolkit_fact("13.0", ToolkitOrigin.SYSTEM, ToolkitOrigin.REGISTRY),
    toolkit_fact("13.2", ToolkitOrigin.SYSTEM, ToolkitOrigin.REGISTRY),
)
PROJECT = Project(
    matrix=Matrix(
        toolkits={fact.version: fact for fact in TOOLKITS},
        torches={fact.version: fact for fact in TORCHES},
        pythons=python("3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15"),
        stable_floor=TorchVersion(2, 9),
        platforms={"linux_x86_64": None, "linux_aarch64": "no machine has it"},
        exclusions=(Exclusion(cuda=TOOLKIT_132, torch=TorchVersion(2, 13), python=None, reason=EXCLUDED),),
        ci=(),
    ),
    recipes={
        "fa3-fwd": recipe("fa3-fwd", Cudart.STATIC, NEEDED_PER_TORCH),
        "fa3-shared": recipe("fa3-shared", Cudart.SHARED),
    },
    pins={},
    switches=frozenset(),
)
ON_THE_MACHINE = {ToolkitVersion.parse("12.4"): "system /opt/cuda"}
REGISTRY_ONLY = {TOOLKIT_130: "registry", TOOLKIT_132: "registry"}


def situation(at_hand: dict[ToolkitVersion, str] | None = None, running: str = "3.11") -> Situation:
    return Situation(
        toolkits_at_hand=REGISTRY_ONLY if at_hand is None else at_hand,
        python=PythonVersion.parse(running),
        platform="linux_x86_64",
    )


def reason_of(request: Request, here: Situation | None = None) -> str:
    accepted, rejected = select(PROJECT, request, here or situation())
    assert accepted == ()
    (found,) = {verdict.reason for verdict in rejected}
    return found


# The pair rule.


@pytest.mark.parametrize(
    ("toolkit", "torch_version", "cudart", "abi", "runtime"),
    [
        ("12.4", "2.9", Cudart.STATIC, AbiClass.STABLE, "12.8"),
        ("12.4", "2.11", Cudart.STATIC, AbiClass.STABLE, "13.0"),
        ("13.2", "2.11", Cudart.STATIC, AbiClass.STABLE, "13.0"),  # static: the minor does not matter
        # the index's 12.8 does not qualify, the lowest that does is taken
        ("13.0", "2.9", Cudart.STATIC, AbiClass.STABLE, "13.0"),
        ("13.0", "2.12", Cudart.STATIC, AbiClass.STABLE, None),
        ("12.4", "2.9", Cudart.SHARED, AbiClass.STABLE, "12.8"),
        ("12.4", "2.11", Cudart.SHARED, AbiClass.STABLE, "12.6"),
        ("12.8", "2.6", Cudart.SHARED, AbiClass.PER_TORCH, None),
        ("13.2", "2.11", Cudart.SHARED, AbiClass.STABLE, None),
        ("13.0", "2.13", Cudart.SHARED, AbiClass.STABLE, "13.2"),
        ("12.8", "2.6", Cudart.STATIC, AbiClass.PER_TORCH, "12.4"),  # the minor does not matter here either
        ("13.0", "2.6", Cudart.STATIC, AbiClass.PER_TORCH, None),
        ("12.4", "2.11", Cudart.STATIC, AbiClass.PER_TORCH, "12.6"),  # never the index's 13.0: another major
    ],
)
def test_a_toolkit_is_paired_with_a_runtime_of_torch(
    toolkit: str, torch_version: str, cudart: Cudart, abi: AbiClass, runtime: str | None
) -> None:
    fact = PROJECT.matrix.torches[TorchVersion.parse(torch_version)]

    found = pair_runtime(CudaVersion.parse(toolkit), fact, cudart, abi)

    assert found == (None if runtime is None else CudaVersion.parse(runtime))


# Defaults.


def test_words_not_given_take_defaults_that_say_why() -> None:
    here = situation({TOOLKIT_130: "system /opt/cuda", TOOLKIT_132: "registry"})

    plan = make_plan(PROJECT, Request(), here)

    assert {word: (default.value, default.reason) for word, default in plan.defaults.items()} == {
        "recipe": ("fa3-fwd", "the default recipe"),
        "profile": ("fa3-fwd", "the default profile of fa3-fwd"),
        "cuda": ("13.0", "the newest toolkit on this machine: system /opt/cuda"),
        "torch": ("2.13", "the newest torch that cuda 13.0 serves"),
        "python": ("3.11", "the running Python: one wheel serves every Python"),
        "engine": ("host", "the word engine="),
        "executor": ("local", "the default executor"),
    }
    assert (plan.engine, plan.executor, plan.toolkit) == ("host", "local", ToolkitChoice.AUTO)


def test_words_given_have_no_default() -> None:
    request = Request(
        recipe="fa3-fwd",
        profiles=("fa3-fwd",),
        cuda=cuda("13.0"),
        torch=torch("2.9"),
        python=python("3.12"),
        engine="host",
        executor="local",
    )

    assert make_plan(PROJECT, request, situation()).defaults == {}


@pytest.mark.parametrize(
    ("at_hand", "choice", "value", "reason"),
    [
        (
            {"12.8": "cached", "13.2": "registry"},
            ToolkitChoice.AUTO,
            "12.8",
            "the newest toolkit on this machine: cached",
        ),
        (
            {"13.0": "registry", "13.2": "registry"},
            ToolkitChoice.AUTO,
            "13.2",
            "the newest toolkit of the registry, as none is on this machine",
        ),
        (
            {"12.4": "system /a", "12.8": "cached"},
            ToolkitChoice.SYSTEM,
            "12.4",
            "the newest toolkit on this machine: system /a",
        ),
        (
            {"12.8": "system /a", "13.0": "system /b"},
            ToolkitChoice.REGISTRY,
            "13.0",
            "the newest toolkit of the registry, as none is on this machine",
        ),
        (
            {"11.8": "system /a", "12.4": "system /b"},
            ToolkitChoice.AUTO,
            "12.4",
            "the newest toolkit on this machine: system /b",
        ),
    ],
)
def test_the_default_toolkit_is_the_newest_on_the_machine_before_the_registry(
    at_hand: dict[str, str], choice: ToolkitChoice, value: str, reason: str
) -> None:
    here = situation({ToolkitVersion.parse(version): where for version, where in at_hand.items()})

    default = make_plan(PROJECT, Request(toolkit=choice), here).defaults["cuda"]

    assert (default.value, default.reason) == (value, reason)


def test_the_default_torch_is_the_newest_that_each_toolkit_serves() -> None:
    here = situation(dict.fromkeys(cuda("13.0", "13.2"), "cached"))

    plan = make_plan(PROJECT, Request(cuda=cuda("13.2", "13.0")), here)

    assert plan.defaults["torch"].value == "2.13 (cuda 13.0), 2.11 (cuda 13.2)"
    assert [(str(b.cuda), [str(c.cell.torch) for c in b.cells]) for b in plan.builds] == [
        ("13.0", ["2.13"]),
        ("13.2", ["2.11"]),
    ]


def test_the_default_torch_supports_a_python_that_was_asked_for() -> None:
    plan = make_plan(PROJECT, Request(cuda=cuda("13.0"), python=python("3.10")), situation())

    assert plan.defaults["torch"].value == "2.11"


def test_the_default_python_is_the_newest_of_torch_where_the_running_one_is_too_old() -> None:
    plan = make_plan(PROJECT, Request(cuda=cuda("13.0"), torch=torch("2.13", "2.11")), situation(running="3.10"))

    assert plan.defaults["python"].value == "3.10 (torch 2.11), 3.15 (torch 2.13)"
    assert plan.defaults["python"].reason == (
        "the newest Python of a torch that does not support the running 3.10: one wheel serves every Python"
    )


def test_a_project_without_the_default_recipe_says_what_it_has() -> None:
    bare = Project(matrix=PROJECT.matrix, recipes={"other": PROJECT.recipes["fa3-fwd"]}, pins={}, switches=frozenset())

    with pytest.raises(InputError, match="there is no recipe fa3-fwd; recipes/ has other"):
        make_plan(bare, Request(), situation())


# Builds.


def test_cells_of_several_torches_and_pythons_share_one_build() -> None:
    request = Request(
        profiles=("hdim128-bf16",), cuda=cuda("13.0"), torch=torch("2.13", "2.9", "2.11"), python=python("3.12", "3.11")
    )

    (build,) = make_plan(PROJECT, request, situation()).builds

    assert str(build) == "fa3-fwd/hdim128-bf16 cu130.hdim128.bf16"
    assert (build.torch, build.abi, build.platform) == (TorchVersion(2, 9), AbiClass.STABLE, "linux_x86_64")
    assert [(str(c.cell.torch), str(c.cell.python), str(c.runtime)) for c in build.cells] == [
        ("2.9", "3.11", "13.0"),
        ("2.9", "3.12", "13.0"),
        ("2.11", "3.11", "13.0"),
        ("2.11", "3.12", "13.0"),
        ("2.13", "3.11", "13.2"),
        ("2.13", "3.12", "13.2"),
    ]


def test_each_profile_and_toolkit_is_a_build_of_its_own_in_ascending_order() -> None:
    request = Request(
        profiles=("hdim128-bf16", "fa3-fwd"), cuda=cuda("13.2", "13.0"), torch=torch("2.11"), kernels=Kernels.INLINE
    )

    builds = make_plan(PROJECT, request, situation()).builds

    assert [(b.profile.name, str(b.cuda), b.kernels) for b in builds] == [
        ("fa3-fwd", "13.0", Kernels.INLINE),
        ("fa3-fwd", "13.2", Kernels.INLINE),
        ("hdim128-bf16", "13.0", Kernels.INLINE),
        ("hdim128-bf16", "13.2", Kernels.INLINE),
    ]


def test_a_torch_below_the_floor_has_a_build_of_its_own_beside_the_one_wheel() -> None:
    request = Request(cuda=cuda("12.4"), torch=torch("2.11", "2.6", "2.9"), python=python("3.11", "3.12"))

    older, one_wheel = make_plan(PROJECT, request, situation(ON_THE_MACHINE)).builds

    assert (older.version, older.abi, older.torch) == ("3.0.0+cu124torch2.6", AbiClass.PER_TORCH, TorchVersion(2, 6))
    assert [(str(c.cell.torch), str(c.cell.python), str(c.runtime)) for c in older.cells] == [
        ("2.6", "3.11", "12.4"),
        ("2.6", "3.12", "12.4"),
    ]
    assert older.needed == NEEDED_PER_TORCH
    assert (one_wheel.version, one_wheel.abi, one_wheel.torch) == ("3.0.0+cu124", AbiClass.STABLE, TorchVersion(2, 9))
    assert len(one_wheel.cells) == 4
    assert one_wheel.needed == {"libc10.so"}


def test_the_label_of_a_build_per_torch_names_the_profile_last() -> None:
    request = Request(profiles=("hdim128-bf16",), cuda=cuda("12.4"), torch=torch("2.6"))

    (build,) = make_plan(PROJECT, request, situation(ON_THE_MACHINE)).builds

    assert build.version == str(Version(build.version)) == "3.0.0+cu124torch2.6.hdim128.bf16"


def test_a_plan_keeps_the_cells_it_cannot_build() -> None:
    plan = make_plan(PROJECT, Request(cuda=cuda("13.0"), torch=torch("2.6", "2.9")), situation())

    assert [str(verdict.cell.torch) for verdict in plan.rejected] == ["2.6"]
    assert [str(found.cell.torch) for found in plan.builds[0].cells] == ["2.9"]


def test_everything_means_what_goes_together_on_some_machine() -> None:
    matrix = PROJECT.matrix
    request = Request(cuda=tuple(matrix.toolkits), torch=tuple(matrix.torches), python=matrix.pythons, everything=True)

    accepted, rejected = select(PROJECT, request, situation())
    plain, _ = select(PROJECT, replace(request, everything=False), situation())

    assert accepted == plain
    assert {verdict.reason.partition(";")[0] for verdict in rejected} == {
        f"the CUDA {toolkit} toolkit is not at hand" for toolkit in matrix.toolkits if toolkit not in REGISTRY_ONLY
    }


def test_everything_of_what_goes_together_nowhere_gives_the_reasons() -> None:
    request = Request(cuda=cuda("13.0"), torch=torch("2.12"), python=PROJECT.matrix.pythons, everything=True)

    with pytest.raises(NothingToBuildError) as caught:
        make_plan(PROJECT, request, situation())

    assert (
        "code of the CUDA 13.0 toolkit needs CUDA 13.0 or newer, and torch 2.12 runs on 12.6, 12.8"
        in caught.value.detail
    )


# Rejections.


def test_a_torch_before_the_stable_abi_is_rejected_where_no_build_of_its_own_can_be_made() -> None:
    here = situation(ON_THE_MACHINE)
    assert reason_of(Request(recipe="fa3-shared", cuda=cuda("12.4"), torch=torch("2.6")), here) == (
        f"{OWN_BUILD}, which recipe fa3-shared does not make (needed_per_torch)"
    )
    assert reason_of(Request(cuda=cuda("12.4"), torch=torch("2.5")), here) == (
        f"{OWN_BUILD.replace('2.6', '2.5')}, but matrix.yaml pins no wheel of it to bind against"
    )


def test_a_build_per_torch_needs_torchs_own_cuda_major() -> None:
    assert reason_of(Request(cuda=cuda("13.0"), torch=torch("2.6"))) == OTHER_MAJOR


def test_a_python_torch_was_not_published_for_is_rejected() -> None:
    assert reason_of(Request(cuda=cuda("13.0"), torch=torch("2.9"), python=python("3.15"))) == (
        "torch 2.9 was not published for Python 3.15, only for 3.10, 3.11, 3.12, 3.13, 3.14"
    )


def test_an_excluded_cell_is_rejected_with_the_reason_of_the_exclusion() -> None:
    assert reason_of(Request(cuda=cuda("13.2"), torch=torch("2.13"))) == EXCLUDED


def test_a_toolkit_that_is_not_at_hand_is_rejected() -> None:
    assert reason_of(Request(cuda=cuda("12.4"), torch=torch("2.9"))) == (
        "the CUDA 12.4 toolkit is not at hand; at hand: 13.0, 13.2; its origins: system"
    )


def test_a_toolkit_of_the_wrong_origin_is_rejected() -> None:
    request = Request(cuda=cuda("13.0"), torch=torch("2.9"), toolkit=ToolkitChoice.SYSTEM)

    assert reason_of(request) == (
        "the CUDA 13.0 toolkit is not at hand with toolkit=system; at hand: none; its origins: system, registry"
    )


def test_of_two_toolkits_with_one_label_the_newer_ptxas_stays_and_the_other_says_why() -> None:
    here = situation(dict.fromkeys(cuda("12.4", "12.4+ptxas12.9"), "cached"))

    plan = make_plan(PROJECT, Request(cuda=cuda("12.4", "12.4+ptxas12.9"), torch=torch("2.9")), here)

    assert [(str(build.cuda), build.local_label) for build in plan.builds] == [("12.4+ptxas12.9", "cu124")]
    assert [(str(found.cell.cuda), found.reason) for found in plan.rejected] == [
        (
            "12.4",
            (
                "its package has the same name as that of cuda=12.4+ptxas12.9; build it by itself, into a wheelhouse "
                "of its own (HOPPERFORGE_WHEELHOUSE)"
            ),
        )
    ]
    alone = make_plan(PROJECT, Request(cuda=cuda("12.4"), torch=torch("2.9")), here)
    assert [(str(build.cuda), build.local_label) for build in alone.builds] == [("12.4", "cu124")]


def test_of_two_toolkits_with_one_label_the_default_stays() -> None:
    (default,) = cuda("12.4")
    project = replace(PROJECT, matrix=replace(PROJECT.matrix, default_toolkit=default))
    here = situation(dict.fromkeys(cuda("12.4", "12.4+ptxas12.9"), "cached"))
    plan = make_plan(project, Request(cuda=cuda("12.4", "12.4+ptxas12.9"), torch=torch("2.9")), here)
    assert [build.cuda for build in plan.builds] == [default]


def test_a_toolkit_with_another_ptxas_serves_the_torches_of_the_plain_one() -> None:
    here = situation(dict.fromkeys(cuda("12.4+ptxas12.9"), "registry"))

    plan = make_plan(PROJECT, Request(cuda=cuda("12.4+ptxas12.9"), torch=torch("2.9", "2.11")), here)

    assert [(str(found.cell.torch), str(found.runtime)) for found in plan.builds[0].cells] == [
        ("2.9", "12.8"),
        ("2.11", "13.0"),
    ]


def test_what_is_only_in_nvidias_archives_is_left_for_last() -> None:
    here = situation({TOOLKIT_130: "registry", **dict.fromkeys(cuda("12.8"), "redist")})

    assert make_plan(PROJECT, Request(), here).defaults["cuda"].value == "13.0"
    only = make_plan(PROJECT, Request(toolkit=ToolkitChoice.REDIST), here).defaults["cuda"]
    assert (only.value, only.reason) == (
        "12.8",
        "the newest toolkit of NVIDIA's archives, as no other is at hand",
    )


def test_an_unpaired_toolkit_is_rejected_with_the_numbers() -> None:
    assert reason_of(Request(cuda=cuda("13.0"), torch=torch("2.12"))) == (
        "code of the CUDA 13.0 toolkit needs CUDA 13.0 or newer, and torch 2.12 runs on 12.6, 12.8"
    )
    assert reason_of(Request(recipe="fa3-shared", cuda=cuda("13.2"), torch=torch("2.11"))) == (
        "code of the CUDA 13.2 toolkit needs CUDA 13.2 to 13.x (the runtime is shared), "
        "and torch 2.11 runs on 12.6, 12.8, 13.0"
    )


def test_another_platform_is_rejected_and_has_no_nearest_cell() -> None:
    arm = Situation(toolkits_at_hand=REGISTRY_ONLY, python=PythonVersion(3, 11), platform="linux_aarch64")

    with pytest.raises(NothingToBuildError) as caught:
        make_plan(PROJECT, Request(), arm)

    assert caught.value.detail == (
        "this machine is linux_aarch64, and hopperforge builds for linux_x86_64 only: no machine has it",
        "no other cell of the matrix can be built here either",
    )
    assert caught.value.hint is None


# Nothing to build.


def test_nothing_to_build_names_each_reason_once_and_the_nearest_cell() -> None:
    request = Request(
        profiles=("hdim128-bf16", "fa3-fwd"), cuda=cuda("13.0"), torch=torch("2.6", "2.12"), kernels=Kernels.INLINE
    )

    with pytest.raises(NothingToBuildError) as caught:
        make_plan(PROJECT, request, situation())

    assert caught.value.sentence == "nothing to build: no candidate cell can be built, of 4 asked for"
    assert caught.value.detail == (
        OTHER_MAJOR,
        "code of the CUDA 13.0 toolkit needs CUDA 13.0 or newer, and torch 2.12 runs on 12.6, 12.8",
        "the nearest cell that can be built: fa3-fwd/fa3-fwd cuda 13.0 torch 2.13 python 3.11 linux_x86_64",
    )
    assert caught.value.hint == ("nox -s build -- recipe=fa3-fwd profile=fa3-fwd cuda=13.0 torch=2.13 kernels=inline")


def test_the_nearest_cell_changes_as_few_words_as_it_can() -> None:
    request = Request(cuda=cuda("12.8"), torch=torch("2.11"), python=python("3.10"))

    with pytest.raises(NothingToBuildError) as caught:
        make_plan(PROJECT, request, situation())

    assert caught.value.hint == ("nox -s build -- recipe=fa3-fwd profile=fa3-fwd cuda=13.2 torch=2.11 python=3.10")


def test_no_toolkit_at_hand_is_an_error_that_says_so() -> None:
    with pytest.raises(NothingToBuildError) as caught:
        make_plan(PROJECT, Request(), situation({}))

    assert caught.value.detail[0] == (
        "the CUDA 13.2 toolkit is not at hand; at hand: none; its origins: system, registry"
    )


# The whole matrix.


def some_of(values: Sequence[object]) -> st.SearchStrategy[list[object]]:
    return st.lists(st.sampled_from(values), unique=True, max_size=len(values))


requests = st.builds(
    Request,
    recipe=st.sampled_from([None, "fa3-fwd", "fa3-shared"]),
    profiles=some_of(["fa3-fwd", "hdim128-bf16"]).map(tuple),
    cuda=some_of(list(PROJECT.matrix.toolkits)).map(tuple),
    torch=some_of(list(PROJECT.matrix.torches)).map(tuple),
    python=some_of(PROJECT.matrix.pythons).map(tuple),
    kernels=st.sampled_from(Kernels),
    toolkit=st.sampled_from(ToolkitChoice),
)
situations = st.builds(
    Situation,
    toolkits_at_hand=st.dictionaries(
        st.sampled_from(list(PROJECT.matrix.toolkits)), st.sampled_from(["system /opt/cuda", "cached", "registry"])
    ),
    python=st.sampled_from(PROJECT.matrix.pythons),
    platform=st.sampled_from(["linux_x86_64", "linux_x86_64", "linux_aarch64"]),
)


def asked_for(request: Request, here: Situation) -> set[Cell]:
    """The product of words that were all given."""
    return {
        Cell(
            recipe=request.recipe or "fa3-fwd",
            profile=profile_name,
            cuda=toolkit,
            torch=release,
            python=interpreter,
            platform=here.platform,
        )
        for profile_name, toolkit, release, interpreter in product(
            request.profiles, request.cuda, request.torch, request.python
        )
    }


def test_every_cell_of_the_matrix_is_judged_exactly_once() -> None:
    here = situation(dict.fromkeys(PROJECT.matrix.toolkits, "cached"))
    matrix = PROJECT.matrix
    request = Request(
        profiles=("fa3-fwd", "hdim128-bf16"),
        cuda=tuple(matrix.toolkits),
        torch=tuple(matrix.torches),
        python=matrix.pythons,
    )

    accepted, rejected = select(PROJECT, request, here)

    judged = [*(found.cell for found in accepted), *(found.cell for found in rejected)]
    assert len(judged) == 2 * 5 * 6 * 7
    assert set(judged) == asked_for(request, here)
    # By hand, per profile: 2.9, 2.11 and 2.13 with 5 Pythons for each of four toolkits, 2.6 and 2.12 with two of 12.x;
    # less 13.2 with 2.13. Plain 12.4 has none, for 12.4+ptxas12.9 has its packages' names.
    assert len(accepted) == 2 * 5 * (3 * 4 + 2 * 2 - 1)


@given(requests, situations)
def test_a_candidate_is_accepted_or_rejected_and_an_accepted_pair_keeps_the_rule(
    request: Request, here: Situation
) -> None:
    accepted, rejected = select(PROJECT, request, here)

    judged = [*(found.cell for found in accepted), *(found.cell for found in rejected)]
    assert len(judged) == len(set(judged)) > 0
    if request.profiles and request.cuda and request.torch and request.python:
        assert set(judged) == asked_for(request, here)
    cudart = PROJECT.recipes[request.recipe or "fa3-fwd"].cudart
    for found in accepted:
        assert found.cell.cuda is not None
        assert found.cell.torch is not None
        assert found.runtime is not None
        fact = PROJECT.matrix.torches[found.cell.torch]
        assert found.runtime in fact.cuda
        assert found.runtime.major >= found.cell.cuda.cuda.major
        assert cudart is Cudart.STATIC or (
            found.runtime.major == found.cell.cuda.cuda.major and found.runtime.minor >= found.cell.cuda.cuda.minor
        )
        assert found.cell.python in fact.pythons
        assert found.cell.cuda in here.toolkits_at_hand
        stable = found.cell.torch >= PROJECT.matrix.stable_floor
        assert found.abi is (AbiClass.STABLE if stable else AbiClass.PER_TORCH)
        assert stable or (found.runtime.major == found.cell.cuda.cuda.major and fact.wheel is not None)


@given(requests, situations)
def test_an_accepted_cell_is_in_exactly_one_build(request: Request, here: Situation) -> None:
    accepted, rejected = select(PROJECT, request, here)
    if not accepted:
        with pytest.raises(NothingToBuildError):
            make_plan(PROJECT, request, here)
        return

    plan = make_plan(PROJECT, request, here)

    assert sorted(found.cell for build in plan.builds for found in build.cells) == [found.cell for found in accepted]
    assert plan.rejected == rejected
    assert len({str(build) for build in plan.builds}) == len(plan.builds)
    for build in plan.builds:
        assert {(found.cell.profile, found.cell.cuda) for found in build.cells} == {(build.profile.name, build.cuda)}
        torches = {found.cell.torch for found in build.cells if found.cell.torch is not None}
        assert {min(torch, PROJECT.matrix.stable_floor) for torch in torches} == {build.torch}
        assert str(Version(build.version)) == build.version


@given(requests, situations, st.randoms())
def test_the_order_of_values_does_not_change_the_plan(request: Request, here: Situation, random: Random) -> None:
    shuffled = replace(
        request,
        profiles=tuple(random.sample(request.profiles, len(request.profiles))),
        cuda=tuple(random.sample(request.cuda, len(request.cuda))),
        torch=tuple(random.sample(request.torch, len(request.torch))),
        python=tuple(random.sample(request.python, len(request.python))),
    )

    assert str(outcome(request, here)) == str(outcome(shuffled, here))


def outcome(request: Request, here: Situation) -> Plan | NothingToBuildError:
    """The plan, or the refusal."""
    try:
        return make_plan(PROJECT, request, here)
    except NothingToBuildError as error:
        return error


def test_the_command_of_every_hint_builds() -> None:
    here = situation({ToolkitVersion.parse("12.4"): "system /opt/cuda", **REGISTRY_ONLY})
    matrix = PROJECT.matrix
    hints = set()
    for choice, name, toolkit, release, interpreter in product(
        ToolkitChoice, PROJECT.recipes, matrix.toolkits, matrix.torches, (None, *matrix.pythons)
    ):
        pythons = () if interpreter is None else (interpreter,)
        request = Request(recipe=name, cuda=(toolkit,), torch=(release,), python=pythons, toolkit=choice)
        found = outcome(request, here)
        if isinstance(found, NothingToBuildError) and found.hint is not None:
            hints.add(found.hint)

    assert len(hints) > 20
    for hint in hints:
        assert make_plan(PROJECT, read_command(hint), here).rejected == ()


def read_command(command: str) -> Request:
    """The request of a printed command."""
    words = dict(word.split("=") for word in command.removeprefix("nox -s build -- ").split())
    return Request(
        recipe=words["recipe"],
        profiles=(words["profile"],),
        cuda=cuda(words["cuda"]),
        torch=torch(words["torch"]),
        python=python(words["python"]) if "python" in words else (),
        toolkit=ToolkitChoice(words.get("toolkit", "auto")),
        kernels=Kernels(words.get("kernels", "pack")),
    )


@pytest.mark.parametrize(
    ("engine", "asked", "taken"),
    [
        ("host", ToolkitChoice.AUTO, ToolkitChoice.AUTO),
        ("host", ToolkitChoice.SYSTEM, ToolkitChoice.SYSTEM),
        ("docker", ToolkitChoice.AUTO, ToolkitChoice.FETCHED),
        ("podman", ToolkitChoice.REGISTRY, ToolkitChoice.REGISTRY),
    ],
)
def test_a_container_gets_a_toolkit_that_was_fetched(engine: str, asked: ToolkitChoice, taken: ToolkitChoice) -> None:
    assert for_engine(Request(toolkit=asked), engine) == Request(toolkit=taken)


def test_a_base_is_for_containers() -> None:
    with pytest.raises(InputError, match="base=bullseye is for containers"):
        for_engine(Request(base="bullseye"), "host")
    assert for_engine(Request(base="bullseye", toolkit=ToolkitChoice.REDIST), "docker").base == "bullseye"


def test_what_only_the_host_can_build() -> None:
    assert why_host(Request(toolkit=ToolkitChoice.SYSTEM)) is not None
    assert why_host(Request(kernels=Kernels.INLINE)) is not None
    assert why_host(Request()) is None


def test_the_default_toolkit_is_taken_where_it_is_at_hand() -> None:
    (default,) = cuda("12.4+ptxas12.9")
    project = replace(PROJECT, matrix=replace(PROJECT.matrix, default_toolkit=default))
    plan = make_plan(project, Request(), situation({**REGISTRY_ONLY, **ON_THE_MACHINE, default: "registry"}))
    assert plan.defaults["cuda"] == Default(value=str(default), reason="the default toolkit of matrix.yaml, registry")
    assert make_plan(project, Request(), situation()).defaults["cuda"].value == "13.2"
