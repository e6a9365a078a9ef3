"""Frameworks for a Python of elsewhere: what its pip would accept, and what our pip leaves out."""

import pytest
from packaging.markers import Marker

from hopperforge.model.versions import PythonVersion
from hopperforge.stages.framework import Target, unmet

TRIXIE = Target(release="3.13.5", glibc=(2, 41), machine="x86_64")
BULLSEYE = Target(release="3.9.2", glibc=(2, 31), machine="x86_64")


def test_the_platforms_begin_at_the_glibc_and_end_with_the_oldest_and_the_plain_one() -> None:
    assert TRIXIE.platforms[:2] == ("manylinux_2_41_x86_64", "manylinux_2_40_x86_64")
    assert TRIXIE.platforms[-4:] == (
        "manylinux_2_6_x86_64",
        "manylinux_2_5_x86_64",
        "manylinux1_x86_64",
        "linux_x86_64",
    )
    assert "manylinux_2_36_x86_64" not in BULLSEYE.platforms


def test_the_old_names_of_platforms_stand_beside_the_new_ones() -> None:
    tags = BULLSEYE.platforms
    for name, minor in (("manylinux2014", 17), ("manylinux2010", 12), ("manylinux1", 5)):
        assert tags.index(f"{name}_x86_64") == tags.index(f"manylinux_2_{minor}_x86_64") + 1


def test_other_machines_have_no_platform_before_glibc_2_17() -> None:
    arm = Target(release="3.11.2", glibc=(2, 18), machine="aarch64")
    assert arm.platforms == (
        "manylinux_2_18_aarch64",
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
        "linux_aarch64",
    )


def test_a_target_says_its_version() -> None:
    assert TRIXIE.python == PythonVersion(3, 13)
    assert str(TRIXIE) == "Python 3.13.5 with glibc 2.41"


@pytest.mark.parametrize(
    ("marker", "trixie", "bullseye"),
    [
        ("python_version >= '3.12'", True, False),
        ("python_version < '3.10'", False, True),
        ("python_full_version == '3.9.2'", False, True),
        ("platform_machine == 'x86_64' and sys_platform == 'linux'", True, True),
        ("extra == 'optree'", False, False),
    ],
)
def test_markers_are_judged_by_the_target(marker: str, *, trixie: bool, bullseye: bool) -> None:
    judged = Marker(marker)
    assert (judged.evaluate(TRIXIE.environment), judged.evaluate(BULLSEYE.environment)) == (trixie, bullseye)


def test_what_the_target_needs_and_nobody_installed_is_unmet() -> None:
    installed = {
        "torch": [
            'setuptools<82; python_version >= "3.12"',
            'importlib-metadata; python_version < "3.10"',
            'opt-einsum>=3.3; extra == "opt-einsum"',
            "typing-extensions>=4.10",
        ],
        "Typing_Extensions": [],
    }
    assert unmet(installed, TRIXIE.environment) == ("setuptools<82",)
    assert unmet(installed, BULLSEYE.environment) == ("importlib-metadata",)
    assert unmet({**installed, "setuptools": []}, TRIXIE.environment) == ()
