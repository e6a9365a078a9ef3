"""What a torch front is compiled and linked with, by how its build is tied to torch."""

from dataclasses import replace
from pathlib import Path

import pytest

from hopperforge.config.project import load_project
from hopperforge.model.cell import AbiClass, Build
from hopperforge.model.request import Kernels
from hopperforge.model.versions import ToolkitVersion, TorchVersion
from hopperforge.stages.front_image import import_test, repair_command
from hopperforge.stages.front_inputs import requirements
from hopperforge.stages.front_torch import compile_arguments, placeless_link

PROJECT = load_project(Path(__file__).parents[2])
RECIPE = PROJECT.recipes["fa3-fwd"]


def build(torch: str, abi: AbiClass) -> Build:
    return Build(
        recipe=RECIPE,
        profile=RECIPE.profiles["hdim128-bf16"],
        cuda=ToolkitVersion.parse("12.4"),
        torch=TorchVersion.parse(torch),
        abi=abi,
        platform="linux_x86_64",
        kernels=Kernels.PACK,
        cells=(),
    )


ONE_WHEEL = build("2.9", AbiClass.STABLE)
OWN_WHEEL = build("2.6", AbiClass.PER_TORCH)


@pytest.mark.parametrize(
    ("torch", "arguments"),
    [
        ("2.6", ("-std=c++17", "-D_GLIBCXX_USE_CXX11_ABI=0")),
        ("2.8", ("-std=c++17", "-D_GLIBCXX_USE_CXX11_ABI=1")),
        ("2.14", ("-std=c++20", "-D_GLIBCXX_USE_CXX11_ABI=1")),
    ],
)
def test_the_api_file_is_compiled_as_its_torch_was(torch: str, arguments: tuple[str, ...]) -> None:
    assert compile_arguments(PROJECT.matrix.torches[TorchVersion.parse(torch)]) == arguments


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (ONE_WHEEL, ["-l:libc10.so", "-l:libtorch_cpu.so", "-l:libtorch_cuda.so"]),
        (OWN_WHEEL, ["-l:libc10.so", "-l:libc10_cuda.so", "-l:libtorch_cpu.so", "-l:libtorch_cuda.so"]),
    ],
    ids=["stable", "per torch"],
)
def test_the_libraries_named_are_those_of_the_abi_class(made: Build, named: list[str]) -> None:
    link = placeless_link(made)
    start, end = link.index("-Wl,--no-as-needed"), link.index("-Wl,--as-needed")
    assert [word for word in link[start:end] if word.startswith("-l")] == named
    assert {f"-l:{name}" for name in made.needed} == set(named)


@pytest.mark.parametrize("made", [ONE_WHEEL, OWN_WHEEL], ids=["stable", "per torch"])
def test_in_an_image_the_libraries_of_the_abi_class_may_be_missing(made: Build) -> None:
    assert import_test(made)[2:] == ("fa3_fwd", *sorted(made.needed))
    assert {f"--exclude={name}" for name in made.needed} <= set(repair_command(made).split())


def test_a_wheel_of_its_own_requires_its_torch_alone() -> None:
    assert requirements(ONE_WHEEL) == ("torch>=2.9",)
    assert requirements(OWN_WHEEL) == ("torch==2.6.*",)


def test_a_recipe_without_builds_per_torch_needs_nothing_for_them() -> None:
    bare = replace(OWN_WHEEL, recipe=replace(RECIPE, needed_per_torch=None))
    assert bare.needed == frozenset()
