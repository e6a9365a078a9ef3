"""Upstream's own answer to which units a profile has, and that nothing stale is taken for it."""

import json
from pathlib import Path

import pytest
from tests.integration.command import hopperforge

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def _units(home: Path, profile: str) -> list[dict[str, list[str]]]:
    ended = hopperforge("patch", f"profile={profile}", "cuda=13.0", "toolkit=registry", "--json", home=home)
    assert ended.status == 0, ended.err
    (answer,) = json.loads(ended.out)
    return list(answer["units"])


@pytest.mark.parametrize(
    ("profile", "count"), [("hdim128-bf16", 2), ("fa3-fwd", 96), ("inference", 222), ("full", 292)]
)
def test_units_of_each_profile(home: Path, profile: str, count: int) -> None:
    """Upstream's setup.py lists one source more: its API file, which is no unit."""
    assert len(_units(home, profile)) == count


def test_a_torn_or_changed_unit_list_is_asked_for_again(home: Path) -> None:
    before = _units(home, "hdim128-bf16")
    for kept in (home / "cache" / "units").iterdir():
        kept.write_text(kept.read_text().replace("-O3", "-O0"))
    assert _units(home, "hdim128-bf16") == before
    for kept in (home / "cache" / "units").iterdir():
        kept.write_text("")
    assert _units(home, "hdim128-bf16") == before
