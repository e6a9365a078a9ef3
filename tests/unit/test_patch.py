"""Applying a series to a small tree: exact, kept, and refused with the hunk's name when it drifts."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hopperforge.errors import SourceError
from hopperforge.model.upstream import UpstreamPin, VerifiedSource
from hopperforge.report import Recorder
from hopperforge.run.workspace import Workspace
from hopperforge.stages.patch import find_patches, patch_source

SETUP = "zero\none\ntwo\nthree\nfour\n"
PATCH = """Why: a test.

diff --git a/hopper/setup.py b/hopper/setup.py
--- a/hopper/setup.py
+++ b/hopper/setup.py
@@ -2,3 +2,3 @@
 one
-two
+2
 three
"""
PIN = UpstreamPin(name="pin", commit="0" * 40, epoch=0, trees={"hopper": "1" * 40}, origins=())


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    project = tmp_path / "project"
    (project / "patches" / "pin").mkdir(parents=True)
    (project / "patches" / "pin" / "0001-two.patch").write_text(PATCH)
    return Workspace(
        project=project,
        cache=tmp_path / "cache",
        wheelhouse=tmp_path / "wheelhouse",
        environ=dict(os.environ),
        reporter=Recorder(),
    )


@pytest.fixture
def source(tmp_path: Path) -> VerifiedSource:
    root = tmp_path / "source"
    (root / "hopper").mkdir(parents=True)
    (root / "csrc" / "cutlass" / "include").mkdir(parents=True)
    (root / "hopper" / "setup.py").write_text(SETUP)
    (root / "hopper" / "kernel.cu").write_text("kernel\n")
    (root / "csrc" / "cutlass" / "include" / "header").write_text("header\n")
    return VerifiedSource(pin=PIN, root=root, origin="test")


def test_series_is_applied_in_order_of_name(workspace: Workspace) -> None:
    folder = workspace.project / "patches" / "pin"
    (folder / "0003-c.patch").write_text("")
    (folder / "0002-b.patch").write_text("")
    names = [path.name for path in find_patches(workspace.project, "pin")]
    assert names == ["0001-two.patch", "0002-b.patch", "0003-c.patch"]


def test_patched_tree_differs_where_the_patch_says_and_the_source_stays(
    source: VerifiedSource, workspace: Workspace
) -> None:
    patched = patch_source(source, workspace)
    assert (patched.root / "hopper" / "setup.py").read_text() == "zero\none\n2\nthree\nfour\n"
    assert (source.root / "hopper" / "setup.py").read_text() == SETUP
    assert list(patched.patches) == ["0001-two.patch"]


def test_kernels_keep_their_hash_when_a_patch_touches_setup_only(source: VerifiedSource, workspace: Workspace) -> None:
    before = patch_source(source, workspace)
    patch = workspace.project / "patches" / "pin" / "0001-two.patch"
    patch.write_text(PATCH.replace("+2\n", "+II\n"))
    after = patch_source(source, workspace)
    assert after.kernel_tree == before.kernel_tree
    assert after.front_tree != before.front_tree


def test_a_changed_byte_in_the_kept_tree_is_noticed(source: VerifiedSource, workspace: Workspace) -> None:
    patched = patch_source(source, workspace)
    (patched.root / "hopper" / "kernel.cu").write_text("changed\n")
    again = patch_source(source, workspace)
    assert (again.root / "hopper" / "kernel.cu").read_text() == "kernel\n"
    assert again == patched


@pytest.mark.parametrize(
    ("setup", "named"),
    [
        ("zero\none\nzwei\nthree\nfour\n", "hopper/setup.py:2"),
        ("new first line\nzero\none\ntwo\nthree\nfour\n", "offset 1 line"),
    ],
)
def test_drift_names_patch_and_hunk_and_leaves_nothing(
    source: VerifiedSource, workspace: Workspace, setup: str, named: str
) -> None:
    (source.root / "hopper" / "setup.py").write_text(setup)
    with pytest.raises(SourceError, match=r"patch 0001-two\.patch does not apply") as caught:
        patch_source(source, workspace)
    assert named in str(caught.value)
    assert "patches/pin/0001-two.patch" in str(caught.value)
    assert [path for path in workspace.patched.iterdir() if path.suffix != ".lock"] == []


def test_a_checkout_around_the_cache_changes_nothing(
    source: VerifiedSource, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    patched = patch_source(source, workspace)
    assert (patched.root / "hopper" / "setup.py").read_text().startswith("zero\none\n2\n")


def test_two_runs_at_once_patch_once_and_keep_the_tree(source: VerifiedSource, workspace: Workspace) -> None:
    with ThreadPoolExecutor(4) as pool:
        trees = [future.result().root for future in [pool.submit(patch_source, source, workspace) for _ in range(4)]]
    assert len(set(trees)) == 1
    inode = trees[0].stat().st_ino
    patch_source(source, workspace)
    assert trees[0].stat().st_ino == inode


def test_a_torn_manifest_and_a_killed_runs_leftovers_are_made_good(
    source: VerifiedSource, workspace: Workspace
) -> None:
    patched = patch_source(source, workspace)
    (patched.root.parent / "manifest.json").write_text("")
    left = workspace.patched / f".{patched.root.parent.name}.0123abcd"
    (left / "tree").mkdir(parents=True)
    assert patch_source(source, workspace) == patched
    assert not left.exists()
