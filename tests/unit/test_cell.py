"""Names of builds: what a version says, and that it is a version."""

from pathlib import Path

import pytest
from packaging.version import Version
from tests.unit.wheel_zoo import PROMISE

from hopperforge.model.cell import AbiClass, Build
from hopperforge.model.profile import Budget, Profile
from hopperforge.model.recipe import Cudart, PackageNames, Recipe
from hopperforge.model.request import Kernels
from hopperforge.model.versions import ToolkitVersion, TorchVersion

NAMES = PackageNames(distribution="d", package="p", module="m", version="3.0.0", summary="s")


def _build(*, profile: str = "default", abi: AbiClass = AbiClass.STABLE, kernels: Kernels = Kernels.PACK) -> Build:
    chosen = Profile(
        name=profile,
        summary="",
        switches=frozenset(),
        architectures=frozenset(),
        budget=Budget(wheel=1, library=1),
    )
    recipe = Recipe(
        name="r",
        folder=Path(),
        pin="pin",
        package=NAMES,
        promise=PROMISE,
        cudart=Cudart.STATIC,
        needed=frozenset(),
        default_profile="default",
        profiles={profile: chosen},
    )
    return Build(
        recipe=recipe,
        profile=chosen,
        cuda=ToolkitVersion.parse("12.4"),
        torch=TorchVersion(2, 9),
        abi=abi,
        platform="linux_x86_64",
        kernels=kernels,
        cells=(),
    )


@pytest.mark.parametrize(
    ("build", "version"),
    [
        (_build(), "3.0.0+cu124"),
        (_build(profile="hdim128-bf16"), "3.0.0+cu124.hdim128.bf16"),
        (_build(kernels=Kernels.INLINE), "3.0.0+cu124.inline"),
    ],
)
def test_version_says_what_must_match(build: Build, version: str) -> None:
    assert build.version == version
    assert str(Version(version)) == version
