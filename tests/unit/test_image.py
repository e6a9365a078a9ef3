"""Images and bases by their content: what changes an id, what a registry's answer says, what is refused."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopperforge.errors import SourceError, ToolError
from hopperforge.model.image import Base, RegistryBase, debian_base_id, digest_of, image_id, layers_of, tool_versions
from hopperforge.model.toolkit import PinnedFile
from hopperforge.report import Recorder
from hopperforge.run.engine import Client
from hopperforge.run.workspace import Workspace
from hopperforge.stages.base import LOCK, check_lock, debian_sources, find_base, obtain_base

IMAGE = "registry.example/some/image"
FIRST, SECOND = "sha256:" + "1" * 64, "sha256:" + "2" * 64
BASE = RegistryBase(name="pulled", image=IMAGE, tag="2026.10.21-1", floor="manylinux_2_28_x86_64")
TOOL = PinnedFile(project="auditwheel", filename="auditwheel-6.4.2-py3-none-any.whl", sha256="a" * 64)

# An engine of two files: `content` is the digest its registry serves, `here` what was pulled.
DOCKER = """#!/bin/sh
echo "$@" >> {folder}/calls
case "$1" in
  pull) case "$2" in *@*) echo ${{2#*@}} > {folder}/here;; *) cp {folder}/content {folder}/here;; esac;;
  image) if [ -e {folder}/here ]; then
      echo "["; echo '{{"Id": "sha256:0", "RepoDigests": ["registry.example/some/image@'$(cat {folder}/here)'"]}}]'
    else echo "Error: no such image"; exit 1; fi;;
  tag) exit 0;;
  *) exit 1;;
esac
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(DOCKER.format(folder=tmp_path))
    program.chmod(0o755)
    return Workspace(
        project=tmp_path / "project",
        cache=tmp_path / "cache",
        wheelhouse=tmp_path / "wheelhouse",
        environ={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"},
        reporter=Recorder(),
    )


def client(workspace: Workspace) -> Client:
    # A client's program is found on hopperforge's own PATH, so it is named by its path here.
    return Client(program=str(workspace.cache.parent / "bin" / "docker"), environ=workspace.environ)


def serve(workspace: Workspace, digest: str) -> None:
    (workspace.cache.parent / "content").write_text(digest)
    (workspace.cache.parent / "here").unlink(missing_ok=True)


def test_a_first_pull_writes_the_digest_down_and_later_ones_pull_by_it(workspace: Workspace) -> None:
    serve(workspace, FIRST)
    base = obtain_base(BASE, client(workspace), workspace)
    assert base.id == "1" * 64
    assert json.loads((workspace.project / LOCK).read_text()) == {"pulled": FIRST}
    serve(workspace, SECOND)
    assert find_base(BASE, client(workspace), workspace) is None
    assert obtain_base(BASE, client(workspace), workspace) == base
    assert f"pull {IMAGE}@{FIRST}" in (workspace.cache.parent / "calls").read_text()
    assert find_base(BASE, client(workspace), workspace) == base


def test_a_base_whose_content_changed_under_its_name_is_refused(workspace: Workspace) -> None:
    serve(workspace, FIRST)
    obtain_base(BASE, client(workspace), workspace)
    (workspace.cache.parent / "here").write_text(SECOND)  # as `docker tag` would
    with pytest.raises(SourceError, match="base pulled is not what it was") as caught:
        obtain_base(BASE, client(workspace), workspace)
    assert f"written down: {FIRST}" in caught.value.detail
    assert f"found now:    {SECOND}" in caught.value.detail
    assert caught.value.hint is not None


def test_an_unreachable_registry_is_a_tool_error(workspace: Workspace) -> None:
    with pytest.raises(ToolError, match=r"cannot pull registry.example/some/image:2026.10.21-1, which base pulled is"):
        obtain_base(BASE, client(workspace), workspace)


def test_the_lock_keeps_what_it_has(workspace: Workspace) -> None:
    path = workspace.project / LOCK
    for name in ("b", "a"):
        check_lock(path, name, name * 3, workspace)
        check_lock(path, name, name * 3, workspace)
    assert json.loads(path.read_text()) == {"a": "aaa", "b": "bbb"}


@pytest.mark.parametrize(
    ("inspected", "problem"),
    [
        ({}, "it has none at all"),
        ({"RepoDigests": None}, "it has none at all"),
        ({"RepoDigests": [f"other/image@{FIRST}"]}, "it has other/image"),
        ({"RepoDigests": [f"{IMAGE}@sha256:12"]}, "it has registry"),
    ],
)
def test_an_image_without_our_digest_has_none(inspected: Mapping[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        digest_of(inspected, IMAGE)


def test_the_digest_of_our_repository_is_taken() -> None:
    assert digest_of({"RepoDigests": [f"other/image@{SECOND}", f"{IMAGE}@{FIRST}"]}, IMAGE) == FIRST


def test_debians_own_mirrors_are_taken_and_no_others() -> None:
    targets = [
        "Debian|http://mirror.example/debian/|bookworm",
        "Debian|http://mirror.example/debian/|bookworm-updates",
        "Debian|http://mirror.example/debian-security/|bookworm-security",
        "Some|http://other.example/|stable",
        "Debian|http://mirror.example/debian/|bookworm",
    ]
    assert debian_sources(targets, "bullseye") == ["deb http://mirror.example/debian/ bullseye main"]
    assert debian_sources([], "bullseye") == []


STANDS_ON = Base(name="b", id="b", tag="t", floor="manylinux_2_28_x86_64")
FIELDS: dict[str, Any] = {"base": STANDS_ON, "files": {"Dockerfile.build": "f"}, "toolkit": "t", "tools": (TOOL,)}


@pytest.mark.parametrize(
    "change",
    [
        {"base": replace(STANDS_ON, id="c")},
        {"base": replace(STANDS_ON, search="/opt/newer/bin:/usr/bin")},
        {"files": {"Dockerfile.build": "g"}},
        {"files": {"Dockerfile.build": "f", "image/more.sh": "x"}},
        {"toolkit": "u"},
        {"tools": ()},
        {"tools": (replace(TOOL, sha256="b" * 64),)},
    ],
)
def test_whatever_goes_in_changes_the_id(change: dict[str, Any]) -> None:
    assert image_id(**FIELDS) != image_id(**{**FIELDS, **change})
    assert image_id(**FIELDS) == image_id(**FIELDS)


@given(packages=st.lists(st.text(), unique=True), content=st.text())
def test_the_order_of_packages_does_not_name_a_base(packages: list[str], content: str) -> None:
    assert debian_base_id(packages, content) == debian_base_id(packages[::-1], content)
    assert debian_base_id(packages, content) != debian_base_id([*packages, "one=1"], content)


def test_tools_are_known_by_their_wheels() -> None:
    assert tool_versions([TOOL]) == {"auditwheel": "6.4.2"}


def test_layers_are_known_by_their_hashes() -> None:
    assert layers_of({"RootFS": {"Type": "layers", "Layers": [FIRST, SECOND]}}) == (FIRST, SECOND)
    assert layers_of({}) == layers_of({"RootFS": {"Layers": None}}) == ()
