"""The repository's own facts: they load, hang together, and point at what exists."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hopperforge.config.project import MATRIX, UPSTREAM, Project, load_project
from hopperforge.index import features, served
from hopperforge.model.image import DebianBase
from hopperforge.model.profile import Profile
from hopperforge.model.toolkit import PinnedFile, ToolkitOrigin
from hopperforge.model.upstream import SdistOrigin
from hopperforge.model.versions import ToolkitVersion, TorchVersion
from hopperforge.pairing import reason_of_facts
from hopperforge.planning import DEFAULT_RECIPE

ROOT = Path(__file__).parents[2]
SHA256 = re.compile(r"[0-9a-f]{64}")


@pytest.fixture(scope="module")
def project() -> Project:
    return load_project(ROOT)


def pinned_files(project: Project) -> Iterator[PinnedFile]:
    for toolkit in project.matrix.toolkits.values():
        if toolkit.ptxas is not None:  # the rest is that of the plain toolkit
            yield toolkit.ptxas
        else:
            yield from toolkit.wheels
    if project.images is not None:
        yield from project.images.tools
    for torch in project.matrix.torches.values():
        if torch.wheel is not None:
            yield torch.wheel


def profiles(project: Project) -> list[Profile]:
    return [profile for recipe in project.recipes.values() for profile in recipe.profiles.values()]


def test_the_facts_load(project: Project) -> None:
    assert {ToolkitVersion.parse("12.4+ptxas12.9"), ToolkitVersion.parse("13.0")} <= set(project.matrix.toolkits)
    assert list(project.matrix.torches) == [TorchVersion(2, minor) for minor in range(5, 16)]
    assert project.matrix.stable_floor == TorchVersion(2, 9)
    assert {"hdim128-bf16", "fa3-fwd", "inference", "full"} <= set(project.recipes["fa3-fwd"].profiles)


def test_every_torch_below_the_floor_is_bound_against_its_own_wheel(project: Project) -> None:
    below = {v: fact for v, fact in project.matrix.torches.items() if v < project.matrix.stable_floor}
    assert [str(version) for version, fact in below.items() if fact.wheel is None] == []
    # https://github.com/pytorch/pytorch/issues/51039: the package index got the C++11 ABI with 2.7
    assert {str(version): fact.cxx11_abi for version, fact in below.items()} == {
        "2.5": False,
        "2.6": False,
        "2.7": True,
        "2.8": True,
    }


def test_what_ci_proves_can_be_built(project: Project) -> None:
    recipe = project.recipes[DEFAULT_RECIPE]
    for cell in project.matrix.ci:
        pythons = project.matrix.torches[cell.torch].pythons
        assert reason_of_facts(cell.cuda, cell.torch, pythons[-1], project.matrix, recipe) is None
    assert project.matrix.ci


def test_every_exclusion_has_a_reason(project: Project) -> None:
    assert [exclusion for exclusion in project.matrix.exclusions if not exclusion.reason.strip()] == []


def test_every_switch_of_a_profile_is_known(project: Project) -> None:
    assert len(project.switches) == 20
    assert {switch for profile in profiles(project) for switch in profile.switches} <= project.switches


def test_every_profile_keeps_a_head_dimension(project: Project) -> None:
    assert [profile.name for profile in profiles(project) if not profile.head_dims] == []


def test_every_pinned_file_has_a_sha256(project: Project) -> None:
    sdists = [origin for pin in project.pins.values() for origin in pin.origins if isinstance(origin, SdistOrigin)]
    plain = [toolkit for toolkit in project.matrix.toolkits.values() if toolkit.ptxas is None]
    hashes = [file.sha256 for file in pinned_files(project)] + [origin.sha256 for origin in sdists]
    hashes += [package.sha256 for toolkit in plain for package in toolkit.debian]
    hashes += [toolkit.redist.sha256 for toolkit in plain if toolkit.redist is not None]
    assert len(hashes) > len(sdists) > 0
    assert [sha256 for sha256 in hashes if not SHA256.fullmatch(sha256)] == []
    assert len(set(hashes)) == len(hashes)


def test_every_toolkit_has_compiler_runtime_and_headers(project: Project) -> None:
    for toolkit in project.matrix.toolkits.values():
        projects = {wheel.project for wheel in toolkit.wheels}
        if ToolkitOrigin.REGISTRY not in toolkit.origins:
            assert toolkit.redist is not None
            assert set(toolkit.redist.components) >= {"cuda_nvcc", "cuda_cudart", "cuda_cccl"}
        elif toolkit.version.cuda.major == 12:
            assert projects == {"nvidia-cuda-nvcc-cu12", "nvidia-cuda-runtime-cu12", "nvidia-cuda-cccl-cu12"}
            taken = {place for package in toolkit.debian for place in package.members.values()}
            assert taken >= {"bin/nvcc", "bin/cudafe++", "bin/fatbinary", "nvvm/bin/cicc", "lib/libcudart_static.a"}
        else:
            assert projects == {
                "nvidia-cuda-nvcc",
                "nvidia-cuda-crt",
                "nvidia-nvvm",
                "nvidia-cuda-runtime",
                "nvidia-cuda-cccl",
            }


def test_a_toolkit_runs_on_every_driver_of_its_cuda_major(project: Project) -> None:
    """A static runtime in machine code for named GPUs: minor version compatibility holds."""
    floors = {(toolkit.version.cuda.major, toolkit.driver) for toolkit in project.matrix.toolkits.values()}
    assert floors == {(12, "525.60.13"), (13, "580.65.06")}


def test_every_pin_of_a_recipe_has_a_patch_series(project: Project) -> None:
    for recipe in project.recipes.values():
        assert recipe.pin is None or list((ROOT / "patches" / recipe.pin).glob("*.patch")) != []


@pytest.mark.parametrize("path", [MATRIX, UPSTREAM, "recipes/fa3-fwd/recipe.yaml"])
def test_editors_find_the_schema(path: str) -> None:
    first = (ROOT / path).read_text(encoding="utf-8").partition("\n")[0]
    found = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert found is not None
    assert ((ROOT / path).parent / found[1]).is_file()


def test_bases_of_debians_packages_are_known_by_their_content(project: Project) -> None:
    assert project.images is not None
    locked = json.loads((ROOT / "image" / "bases.lock.json").read_text(encoding="utf-8"))
    debian = {name: base for name, base in project.images.bases.items() if isinstance(base, DebianBase)}
    assert {name: not base.moves for name, base in debian.items()} == {name: name in locked for name in debian}
    assert set(locked) <= set(project.images.bases)
    assert project.images.default in locked


def test_bases_that_wheels_are_imported_in_bring_a_python(project: Project) -> None:
    assert project.images is not None
    bases = [base for base in project.images.bases.values() if isinstance(base, DebianBase)]
    assert [base.name for base in bases if "python3-venv" not in base.packages] == []


def test_the_dockerfile_decides_and_fetches_nothing_and_tests_itself_last() -> None:
    text = (ROOT / "Dockerfile.build").read_text(encoding="utf-8")
    words = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    assert {line[0] for line in words} == {"ARG", "FROM", "COPY", "RUN", "ENV"}
    assert {line[1] for line in words if line[0] == "FROM"} == {"${BASE}"}
    assert words[-1] == ["RUN", '["/bin/sh",', '"/opt/hopperforge/self-test.sh"]']
    assert {path.name for path in (ROOT / "image").glob("*.sh")} == {"pythons.sh", "self-test.sh"}


def test_the_page_for_people_knows_every_switch_torch_and_python(project: Project) -> None:
    assert {feature.switch for feature in features.FEATURES} == project.switches
    assert tuple(map(str, sorted(project.matrix.torches))) == served.TORCHES
    assert tuple(map(str, sorted(project.matrix.pythons))) == served.PYTHONS
    codes = {
        code
        for recipe in project.recipes.values()
        for profile in recipe.profiles.values()
        for code in profile.architectures | profile.ptx
    }
    assert codes <= set(served.GPUS)


def test_every_toolkit_compresses_what_it_makes(project: Project) -> None:
    words = {(fact.version.cuda.major, fact.compress) for fact in project.matrix.toolkits.values()}
    assert words == {(12, ("-Xfatbin", "-compress-all")), (13, ("--compress-mode=size",))}
