"""Good files become the values of hopperforge.model; missing ones are problems like any other."""

import shutil
from pathlib import Path

import pytest

from hopperforge.config.project import load_project
from hopperforge.errors import InputError
from hopperforge.model.image import DebianBase, ImageFacts, RegistryBase
from hopperforge.model.matrix import Exclusion, TorchFact
from hopperforge.model.profile import Budget, Profile
from hopperforge.model.recipe import Cudart, MergeRule, PackageNames, Promise
from hopperforge.model.toolkit import PinnedFile, ToolkitFact, ToolkitOrigin
from hopperforge.model.upstream import GitOrigin, SdistOrigin, UpstreamPin
from hopperforge.model.versions import CudaVersion, PythonVersion, ToolkitVersion, TorchVersion

GOOD = Path(__file__).parents[2] / "data" / "config" / "good"
SHA256 = "a" * 64
GIT_HASH = "b" * 40


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def problems(root: Path) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        load_project(root)
    return caught.value.detail


def test_the_toolkit(root: Path) -> None:
    assert load_project(root).matrix.toolkits == {
        ToolkitVersion.parse("13.0"): ToolkitFact(
            version=ToolkitVersion.parse("13.0"),
            release="13.0.88",
            driver="580.65.06",
            gcc_max=15,
            origins=(ToolkitOrigin.SYSTEM, ToolkitOrigin.REGISTRY),
            wheels=(
                PinnedFile(
                    project="nvidia-cuda-nvcc",
                    filename="nvidia_cuda_nvcc-13.0.88-py3-none-manylinux2014_x86_64.whl",
                    sha256=SHA256,
                ),
            ),
        )
    }


def test_the_torch_lines_ascend_by_version_not_by_text(root: Path) -> None:
    edit(root / "matrix.yaml", '  "2.10":', '  "2.8":')
    edit(root / "matrix.yaml", 'release: "2.10.0"', 'release: "2.8.0"')
    torches = load_project(root).matrix.torches
    assert list(torches) == [TorchVersion(2, 8), TorchVersion(2, 9)]
    assert torches[TorchVersion(2, 9)] == TorchFact(
        version=TorchVersion(2, 9),
        release="2.9.1",
        index_cuda=CudaVersion(12, 8),
        cuda=(CudaVersion(12, 8), CudaVersion(13, 0)),
        pythons=(PythonVersion(3, 9), PythonVersion(3, 10)),
        wheel=PinnedFile(project="torch", filename="torch-2.9.1-cp312-cp312-manylinux_2_28_x86_64.whl", sha256=SHA256),
        cxx11_abi=True,
        cxx_standard=17,
    )
    assert torches[TorchVersion(2, 8)].wheel is None


def test_the_rest_of_the_matrix(root: Path) -> None:
    matrix = load_project(root).matrix
    assert matrix.pythons == (PythonVersion(3, 9), PythonVersion(3, 10))
    assert matrix.stable_floor == TorchVersion(2, 9)
    assert matrix.exclusions == (
        Exclusion(cuda=None, torch=TorchVersion(2, 9), python=PythonVersion(3, 9), reason="an example"),
    )


def test_the_recipe(root: Path) -> None:
    recipe = load_project(root).recipes["small"]
    assert recipe.folder == root / "recipes" / "small"
    assert recipe.pin == "v1"
    assert recipe.package == PackageNames(
        distribution="small_kernels",
        package="small",
        module="small_interface",
        version="1.0",
        summary="an example",
    )
    assert recipe.promise == Promise(
        module="small_interface", operators=("small::fwd",), function="attend", guard="needs a GPU"
    )
    assert recipe.cudart is Cudart.STATIC
    assert recipe.needed == {"libc10.so"}
    assert recipe.default_profile == "tiny"
    assert list(recipe.profiles) == ["tiny", "whole-set"]
    assert recipe.profiles["tiny"] == Profile(
        name="tiny",
        summary="one unit",
        switches=frozenset({"DISABLE_BACKWARD", "DISABLE_SM80"}),
        architectures=frozenset({"sm_90a"}),
        budget=Budget(wheel=1_500_000, library=3_000_000),
    )


def test_decimals_of_a_budget_are_exact(root: Path) -> None:
    edit(root / "recipes/small/recipe.yaml", '"30 MB"', '"27.6 MB"')
    assert load_project(root).recipes["small"].profiles["whole-set"].budget.wheel == 27_600_000


def test_the_pin_and_the_switches(root: Path) -> None:
    project = load_project(root)
    assert project.pins == {
        "v1": UpstreamPin(
            name="v1",
            commit=GIT_HASH,
            epoch=1764874320,
            trees={"hopper": GIT_HASH, "csrc/cutlass/include": GIT_HASH},
            origins=(
                SdistOrigin(
                    project="xformers",
                    filename="xformers-0.0.33.post2.tar.gz",
                    sha256=SHA256,
                    folder="third_party/flash-attention",
                ),
                GitOrigin(url="https://example.org/flash-attention"),
            ),
        )
    }
    assert project.switches == {"DISABLE_BACKWARD", "DISABLE_PAGEDKV", "DISABLE_SM80"}


def test_missing_files_are_all_reported(tmp_path: Path) -> None:
    assert problems(tmp_path) == (
        "flash-attention/upstream.yaml:1:1: cannot be read: No such file or directory",
        "matrix.yaml:1:1: cannot be read: No such file or directory",
        "recipes:1:1: no folder here holds a recipe.yaml",
    )


def test_a_recipe_is_still_checked_when_upstream_cannot_be_read(root: Path) -> None:
    (root / "flash-attention/upstream.yaml").unlink()
    edit(root / "recipes/small/recipe.yaml", "cudart: static", "cudart: statik")
    assert problems(root) == (
        "flash-attention/upstream.yaml:1:1: cannot be read: No such file or directory",
        'recipes/small/recipe.yaml:9:9: "statik" is none of static, shared; perhaps you meant "static"',
    )


def test_one_problem_is_counted_as_one(root: Path) -> None:
    edit(root / "matrix.yaml", "gcc_max: 15", "gcc_max: -1")
    with pytest.raises(InputError, match=r"^1 problem in matrix\.yaml\n") as caught:
        load_project(root)
    assert caught.value.exit_code == 2
    assert caught.value.detail == ("matrix.yaml:5:14: -1 is too small; the least is 1",)


def test_every_recipe_folder_is_read(root: Path) -> None:
    shutil.copytree(root / "recipes/small", root / "recipes/other")
    assert problems(root) == ('recipes/other/recipe.yaml:1:7: a recipe is named like its folder, "other"',)
    edit(root / "recipes/other/recipe.yaml", "name: small", "name: other")
    assert list(load_project(root).recipes) == ["other", "small"]


def test_the_bases(root: Path) -> None:
    floor = "manylinux_2_28_x86_64"
    assert load_project(root).images == ImageFacts(
        bases={
            "old": DebianBase(name="old", suite="bullseye", packages=("g++",), floor=floor),
            "pulled": RegistryBase(name="pulled", image="registry.example/some/image", tag="2026.10.21-1", floor=floor),
        },
        default="old",
        tools=(PinnedFile(project="auditwheel", filename="auditwheel-6.4.2-py3-none-any.whl", sha256=SHA256),),
    )


def test_without_bases_there_are_no_images(root: Path) -> None:
    (root / "image" / "bases.yaml").unlink()
    assert load_project(root).images is None


def test_merge_rules_keep_their_order_and_a_recipe_without_has_none(root: Path) -> None:
    assert load_project(root).recipes["small"].merge == ()
    rules = (
        "merge:\n"
        "  wide: {units: 'flash_*_512_*', vary: [split], largest: 1}\n"
        "  all: {units: 'flash_*', vary: [split, softcap], largest: 6}\n"
        "profiles:\n"
    )
    edit(root / "recipes/small/recipe.yaml", "profiles:\n", rules)
    assert load_project(root).recipes["small"].merge == (
        MergeRule(name="wide", units="flash_*_512_*", vary=("split",), largest=1),
        MergeRule(name="all", units="flash_*", vary=("split", "softcap"), largest=6),
    )
