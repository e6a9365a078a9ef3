"""Switches that a unit is compiled without change nothing in it: the preprocessor says so of the real source."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.integration.command import PROJECT, MakeHome, hopperforge

from hopperforge.config.project import load_project

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PROFILES = ("hdim128-bf16", "fa3-fwd", "inference", "full")
MACRO = "-DFLASHATTENTION_"

Listed = dict[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def listed(make_home: MakeHome) -> dict[str, tuple[Path, Listed]]:
    """By profile: the patched source, and each unit's arguments by its path."""
    home = make_home("home")
    found = {}
    for profile in PROFILES:
        words = (f"profile={profile}", "cuda=13.0", "toolkit=registry", "merge=off")
        ended = hopperforge("patch", *words, "--json", home=home)
        assert ended.status == 0, ended.err
        (answer,) = json.loads(ended.out)
        units = {unit["path"]: tuple(unit["arguments"]) for unit in answer["units"]}
        found[profile] = (Path(answer["tree"]), units)
    return found


def switches(profile: str) -> list[str]:
    """Every switch of a profile, as upstream's setup.py writes it."""
    recipe = load_project(PROJECT).recipes["fa3-fwd"]
    return [f"{MACRO}{switch.replace('SM80', 'SM8x')}" for switch in sorted(recipe.profiles[profile].switches)]


@pytest.fixture(scope="module")
def bare(listed: dict[str, tuple[Path, Listed]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source without what is not upstream's own: no unit's text depends on a switch there."""
    root = tmp_path_factory.mktemp("bare")
    tree = listed["full"][0]
    shutil.copytree(tree / "hopper", root / "hopper")
    for path in root.rglob("*"):
        if path.suffix in {".h", ".hpp", ".cu"}:
            lines = path.read_text().splitlines()
            path.write_text("\n".join(line for line in lines if not _is_foreign(line, path, root)) + "\n")
    return root


def _is_foreign(line: str, path: Path, root: Path) -> bool:
    target = re.match(r'\s*#\s*include\s*["<]([^">]+)[">]', line)
    return target is not None and not any((place / target[1]).is_file() for place in (path.parent, root / "hopper"))


def text(root: Path, path: str, arguments: Sequence[str]) -> str:
    macros = [argument for argument in arguments if argument.startswith("-D")]
    argv = ["g++", "-E", "-P", "-nostdinc", "-x", "c++", "-D__CUDA_ARCH__=900", "-Ihopper", *macros, path]
    return subprocess.run(argv, cwd=root, capture_output=True, check=True, text=True).stdout


@pytest.mark.parametrize(("profile", "every"), [("hdim128-bf16", 1), ("fa3-fwd", 4), ("inference", 16), ("full", 24)])
def test_a_unit_is_the_same_text_with_all_switches_of_its_profile(
    listed: dict[str, tuple[Path, Listed]], bare: Path, profile: str, every: int
) -> None:
    units = sorted(listed[profile][1].items())
    chosen = [(path, words) for number, (path, words) in enumerate(units) if number % every == 0 or "inst" not in path]

    def same(unit: tuple[str, tuple[str, ...]]) -> bool:
        path, words = unit
        return text(bare, path, words) == text(bare, path, (*words, *set(switches(profile)).difference(words)))

    with ThreadPoolExecutor(2) as pool:
        assert [path for (path, _), equal in zip(chosen, pool.map(same, chosen), strict=True) if not equal] == []
    left_out = [switch for path, words in chosen for switch in switches(profile) if switch not in words]
    assert bool(left_out) == bool(switches(profile))


def test_a_switch_that_is_kept_changes_the_text(listed: dict[str, tuple[Path, Listed]], bare: Path) -> None:
    path = "hopper/instantiations/flash_fwd_hdim128_bf16_sm90.cu"
    words = listed["hdim128-bf16"][1][path]
    kept = [word for word in words if word.startswith(MACRO)]
    assert kept == [f"{MACRO}DISABLE_APPENDKV", f"{MACRO}DISABLE_LOCAL"]
    for switch in kept:
        assert text(bare, path, words) != text(bare, path, [word for word in words if word != switch])


def test_profiles_share_the_units_that_their_switches_leave_alike(
    listed: dict[str, tuple[Path, Listed]],
) -> None:
    """The table of docs/explanation/keys.md."""
    of = {profile: set(units.items()) for profile, (_, units) in listed.items()}
    shared = {(one, other): len(of[one] & of[other]) for one in PROFILES for other in PROFILES if one < other}
    assert shared == {
        ("fa3-fwd", "full"): 2,
        ("fa3-fwd", "hdim128-bf16"): 0,
        ("fa3-fwd", "inference"): 0,
        ("full", "hdim128-bf16"): 0,
        ("full", "inference"): 220,
        ("hdim128-bf16", "inference"): 1,
    }
