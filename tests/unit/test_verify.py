"""All gates on one wheel: a good one passes, a bad one has every failure named at once."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit import wheel_zoo as zoo
from tests.unit.proof_zoo import contents, licensed

from hopperforge.errors import GateError
from hopperforge.index.proof import REQUIRED_GATES
from hopperforge.model.cell import AbiClass, Build
from hopperforge.model.profile import Budget, Profile
from hopperforge.model.recipe import Cudart, PackageNames, Recipe
from hopperforge.model.request import Kernels
from hopperforge.model.versions import ToolkitVersion, TorchVersion
from hopperforge.model.wheel import GateResult, RawWheel, RepairedWheel
from hopperforge.provenance.sbom import make_sbom
from hopperforge.stages.repair import repair
from hopperforge.stages.verify import private_texts, verify

NEEDED = frozenset({"libc10.so", "libtorch_cpu.so"})


def _build() -> Build:
    profile = Profile(
        name="fa3-fwd",
        summary="one",
        switches=frozenset({"DISABLE_BACKWARD"}),
        architectures=frozenset({"sm_90a"}),
        budget=Budget(wheel=1_000_000, library=1_000_000),
    )
    package = PackageNames(
        distribution=zoo.DISTRIBUTION, package="fa3_fwd", module="fa3_fwd_interface", version="3.0.0", summary="one"
    )
    recipe = Recipe(
        name="fa3-fwd",
        folder=Path("recipes/fa3-fwd"),
        pin="p",
        package=package,
        promise=zoo.PROMISE,
        cudart=Cudart.STATIC,
        needed=NEEDED,
        default_profile="fa3-fwd",
        profiles={"fa3-fwd": profile},
    )
    return Build(
        recipe=recipe,
        profile=profile,
        cuda=ToolkitVersion.parse("13.0"),
        torch=TorchVersion.parse("2.9"),
        abi=AbiClass.STABLE,
        platform="linux_x86_64",
        kernels=Kernels.PACK,
        cells=(),
    )


def _repaired(folder: Path, changes: Mapping[str, bytes | None] | None = None) -> RepairedWheel:
    library = zoo.library(zoo.NEWER, needed=tuple(sorted(NEEDED)), device_code="sm_90a.fatbin")
    raw = zoo.write(folder / "raw", zoo.files(licensed({zoo.LIBRARY: library, **(changes or {})})))
    return repair(
        RawWheel(path=raw),
        needed=NEEDED,
        epoch=zoo.EPOCH,
        sbom=make_sbom(contents()),
        workspace=zoo.workspace(folder),
        work=folder / "work",
    )


def test_good_wheel_passes_every_gate(tmp_path: Path) -> None:
    repaired = _repaired(tmp_path)
    proof = GateResult(name="import with torch 2.9", passed=True, detail="it imports")
    verified = verify(
        repaired,
        build=_build(),
        driver="580.65.06",
        requires=zoo.REQUIRES,
        contents=contents(),
        workspace=zoo.workspace(tmp_path),
        proofs=(proof,),
    )
    assert [result.name for result in verified.gates] == [
        "metadata",
        "record",
        "sbom",
        "licences",
        "bundled",
        "needed",
        "exports",
        "runpath",
        "paths",
        "size",
        "compression",
        "platform-tag",
        "abi3",
        "architectures",
        "import with torch 2.9",
    ]
    assert {result.name for result in verified.gates} - {proof.name} == REQUIRED_GATES
    assert all(result.passed for result in verified.gates)
    assert verified.size == repaired.path.stat().st_size
    assert verified.library_size == len(
        zoo.library(zoo.NEWER, needed=tuple(sorted(NEEDED)), device_code="sm_90a.fatbin")
    )
    assert verified.platform_tags == repaired.platform_tags


def test_every_failed_gate_is_named_at_once_and_the_wheel_kept(tmp_path: Path) -> None:
    library = zoo.library(
        f'{zoo.INIT}extern "C" const char* where() {{ return "/tmp/x"; }}', "-DSHOW_ALL", needed=("libc10.so",)
    )
    repaired = _repaired(tmp_path, {zoo.LIBRARY: library})
    proof = GateResult(name="import", passed=False, detail="undefined symbol: x")
    with pytest.raises(GateError) as caught:
        verify(
            repaired,
            build=_build(),
            driver="580.65.06",
            requires=("torch==2.8.*",),
            contents=contents(version="3.0.0"),
            workspace=zoo.workspace(tmp_path),
            floor="manylinux_2_5_x86_64",
            proofs=(proof,),
        )
    assert (
        "failed 7 of 15 gates: metadata, sbom, needed, exports, paths, architectures, import" in caught.value.sentence
    )
    assert caught.value.detail[2] == "needed: DT_NEEDED lacks libtorch_cpu.so"
    kept = tmp_path / "cache" / "refused" / repaired.path.name
    assert caught.value.detail[-1] == f"the wheel is kept: {kept}"
    assert kept.read_bytes() == repaired.path.read_bytes()


def test_private_texts_are_our_folders_the_home_and_the_host(tmp_path: Path) -> None:
    workspace = replace(zoo.workspace(tmp_path), environ={"HOME": "/home/ann"})
    assert private_texts(workspace, "builder-17") == {
        str(tmp_path / "cache"): "cache folder",
        str(tmp_path / "project"): "project folder",
        "/home/ann": "home folder",
        "builder-17": "host name",
        "/tmp/": "folder of temporary files",  # noqa: S108
    }
    assert "" not in private_texts(replace(workspace, environ={}), "")
