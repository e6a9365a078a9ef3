"""Kernels that a recipe brings itself: the tree that compiles see, the units in it, and what their keys hold."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit import front_zoo as zoo

from hopperforge.errors import InputError
from hopperforge.model.front import OwnKernels
from hopperforge.model.pack import Unit
from hopperforge.model.profile import Budget, Profile
from hopperforge.model.recipe import Recipe
from hopperforge.model.toolkit import ToolkitFact, ToolkitOrigin
from hopperforge.model.upstream import PatchedSource, UpstreamPin
from hopperforge.stages.own_kernels import gencodes, own_source, own_units
from hopperforge.stages.patch import kernel_tree_hash

PIN = UpstreamPin(name="recipes-tiny", commit="", epoch=zoo.EPOCH, trees={}, origins=())
FACT = ToolkitFact(
    version=zoo.CUDA,
    release="13.0.88",
    driver="580",
    gcc_max=15,
    origins=(ToolkitOrigin.SYSTEM,),
    wheels=(),
    compress=("--compress-mode=size",),
    oldest=75,
)
PROFILE = Profile(
    name="fat",
    summary="",
    switches=frozenset({"DISABLE_DROPOUT"}),
    architectures=frozenset({"sm_90", "sm_75", "sm_100"}),
    ptx=frozenset({"compute_90"}),
    budget=Budget(wheel=1, library=1),
)


def recipe(folder: Path) -> Recipe:
    kernels = folder / "recipe" / "kernels"
    kernels.mkdir(parents=True)
    (kernels / "forward.cu").write_text('#include "tile.cuh"\n')
    (kernels / "tile.cuh").write_text("// tiles\n")
    made = zoo.recipe(folder / "recipe")
    return replace(made, pin=None, kernels=OwnKernels(units="kernels/*.cu", flags=("-lineinfo",), epoch=zoo.EPOCH))


def source(folder: Path, made: Recipe) -> PatchedSource:
    return own_source(made, PIN, zoo.workspace(folder / "work"))


def unit(folder: Path, made: Recipe) -> Unit:
    (found,) = own_units(made, source(folder, made), PROFILE, FACT)
    return found


def test_compiles_see_the_kernels_and_nothing_else(tmp_path: Path) -> None:
    found = source(tmp_path, recipe(tmp_path))
    files = sorted(path.relative_to(found.root).as_posix() for path in found.root.rglob("*") if path.is_file())
    assert files == ["kernels/forward.cu", "kernels/tile.cuh"]
    assert found.pin.trees == {"kernels": found.front_tree}
    assert found.kernel_tree == kernel_tree_hash(found.root)  # as a worker of a cluster would have it
    assert (found.pin.commit, found.pin.epoch, found.origin) == ("", zoo.EPOCH, "the recipe")


@pytest.mark.parametrize("name", ["kernels/forward.cu", "kernels/more.cu"])
def test_a_copy_that_is_no_longer_the_recipes_is_made_again(name: str, tmp_path: Path) -> None:
    made = recipe(tmp_path)
    before = source(tmp_path, made)
    (before.root / name).write_text("// of somebody else\n")
    again = source(tmp_path, made)
    assert again == before
    assert kernel_tree_hash(again.root) == before.kernel_tree


def test_a_unit_is_compiled_for_every_target(tmp_path: Path) -> None:
    found = unit(tmp_path, recipe(tmp_path))
    assert found.path == "kernels/forward.cu"
    assert found.gencodes == 4
    assert found.arguments[:3] == ("-std=c++17", "-O1", "-Ikernels")
    assert found.arguments[-2:] == ("-lineinfo", "--compress-mode=size")
    assert "-DHOPPERFORGE_DISABLE_DROPOUT" in found.arguments


def test_targets_ascend_with_ptx_at_the_end() -> None:
    assert gencodes(PROFILE)[1::2] == (
        "arch=compute_75,code=sm_75",
        "arch=compute_90,code=sm_90",
        "arch=compute_100,code=sm_100",
        "arch=compute_90,code=compute_90",
    )
    assert set(gencodes(PROFILE)[::2]) == {"-gencode"}


@pytest.mark.parametrize(("name", "moves"), [("kernels/tile.cuh", True), ("src/api.cpp", False), ("README.md", False)])
def test_a_unit_sees_all_of_its_folder_and_nothing_beyond(name: str, moves: bool, tmp_path: Path) -> None:
    made = recipe(tmp_path)
    before = unit(tmp_path, made).sees
    (made.folder / name).write_text("// another\n")
    assert (unit(tmp_path, made).sees != before) is moves


def test_a_recipe_without_its_kernels_is_refused(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    lost = replace(made, kernels=OwnKernels(units="kernels/*.cpp", flags=(), epoch=1))
    with pytest.raises(InputError, match="recipe tiny: no file of kernels/ is a unit"):
        unit(tmp_path, lost)
    for path in (made.folder / "kernels").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="it brings kernels, and has no folder kernels"):
        source(tmp_path, made)
