"""Upstream's own answer to which units a profile has, and that nothing stale is taken for it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.integration.command import MakeHome, hopperforge
from tests.unit.unit_zoo import forward_units

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def home(make_home: MakeHome) -> Path:
    return make_home("home")


def _patch(home: Path, profile: str, *words: str) -> dict[str, Any]:
    ended = hopperforge("patch", f"profile={profile}", "cuda=13.0", "toolkit=registry", "--json", *words, home=home)
    assert ended.status == 0, ended.err
    (answer,) = json.loads(ended.out)
    return dict(answer)


def _units(home: Path, profile: str) -> list[dict[str, Any]]:
    return list(_patch(home, profile, "merge=off")["units"])


@pytest.mark.parametrize(
    ("profile", "count"), [("hdim128-bf16", 2), ("fa3-fwd", 96), ("inference", 222), ("full", 292)]
)
def test_units_of_each_profile(home: Path, profile: str, count: int) -> None:
    """Upstream's setup.py lists one source more: its API file, which is no unit."""
    assert len(_units(home, profile)) == count


def test_the_units_that_unit_tests_take_for_fa3_fwd_are_these(home: Path) -> None:
    assert sorted(unit["path"] for unit in _units(home, "fa3-fwd")) == [unit.path for unit in forward_units()]


def _instantiations(tree: Path, source: str) -> list[str]:
    """Read a file of instantiations, and those it includes; nothing else than instantiations may be in it."""
    path = tree / source
    found: list[str] = []
    for line in re.sub(r"//[^\n]*", "", path.read_text(encoding="utf-8")).splitlines():
        if INSTANTIATION.fullmatch(line):
            found.append(line)
        elif (included := INCLUDE.fullmatch(line)) and included[1] != HEADER:
            found += _instantiations(tree, str((path.parent / included[1]).relative_to(tree)))
        else:
            assert not line.strip() or included or SWITCH.fullmatch(line), f"{source} holds more: {line}"
    return found


HEADER = "flash_fwd_launch_template.h"
INCLUDE = re.compile(r'#include "([a-z0-9_.]+)"')
SWITCH = re.compile(r"#ifndef FLASHATTENTION_DISABLE_[A-Z0-9]+|#endif")
INSTANTIATION = re.compile(
    r"template void run_mha_fwd_<[a-z0-9_:, ]+>\(Flash_fwd_params &params, cudaStream_t stream\);"
)


@pytest.mark.parametrize("profile", ["fa3-fwd", "inference", "full"])
def test_merged_sources_hold_explicit_instantiations_alone_and_none_twice(home: Path, profile: str) -> None:
    """Why merging is safe: no macro, no variable and no function of a file's own, so nothing that could clash."""
    answer = _patch(home, profile)
    merged = [unit for unit in answer["units"] if len(unit["sources"]) > 1]
    tree = Path(answer["tree"])
    assert merged
    for unit in merged:
        found = [line for source in unit["sources"] for line in _instantiations(tree, source)]
        assert len(found) >= len(unit["sources"])
        assert len(set(found)) == len(found), f"{unit['path']} instantiates something twice"
    assert re.search(r"^#pragma once$", (tree / "hopper" / HEADER).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("profile", ["fa3-fwd", "inference", "full"])
def test_merging_loses_no_source_and_changes_no_argument(home: Path, profile: str) -> None:
    apart = {unit["path"]: unit["arguments"] for unit in _units(home, profile)}
    units = _patch(home, profile)["units"]
    together = [(source, unit["arguments"]) for unit in units for source in unit["sources"]]
    assert len(together) == len(apart)
    assert dict(together) == apart
    assert len(units) < len(apart) / 2


def test_a_torn_or_changed_unit_list_is_asked_for_again(home: Path) -> None:
    before = _units(home, "hdim128-bf16")
    for kept in (home / "cache" / "units").iterdir():
        kept.write_text(kept.read_text().replace("-O3", "-O0"))
    assert _units(home, "hdim128-bf16") == before
    for kept in (home / "cache" / "units").iterdir():
        kept.write_text("")
    assert _units(home, "hdim128-bf16") == before
