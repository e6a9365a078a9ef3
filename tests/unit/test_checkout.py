"""Which hopperforge this is, as git knows it; and starting one under another umask and on fewer cores."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit import wheel_zoo as zoo

from hopperforge import __version__
from hopperforge.model.record import ToolFacts
from hopperforge.run.workspace import Workspace
from hopperforge.stages.checkout import describe_checkout

NAMED = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = zoo.workspace(tmp_path)
    workspace.project.mkdir()
    (workspace.project / "a").write_text("a")
    return workspace


def _git(folder: Path, *words: str) -> str:
    environ = {**os.environ, **NAMED}
    done = subprocess.run(["git", *words], cwd=folder, env=environ, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _committed(folder: Path) -> str:
    _git(folder, "init", "--quiet")
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", "a")
    return _git(folder, "rev-parse", "HEAD")


UNKNOWN = ToolFacts(version=__version__, commit=None, clean=False)


def test_a_checkout_is_known_by_its_commit_and_whether_it_was_changed(workspace: Workspace) -> None:
    commit = _committed(workspace.project)
    assert describe_checkout(workspace) == ToolFacts(version=__version__, commit=commit, clean=True)
    (workspace.project / "a").write_text("b")
    assert describe_checkout(workspace) == ToolFacts(version=__version__, commit=commit, clean=False)


def test_a_copy_inside_somebody_elses_checkout_is_not_that(workspace: Workspace, tmp_path: Path) -> None:
    _committed(tmp_path)
    assert describe_checkout(workspace) == UNKNOWN


def test_no_checkout_and_no_git_are_unknown(workspace: Workspace) -> None:
    assert (
        describe_checkout(replace(workspace, environ={"GIT_CEILING_DIRECTORIES": "/", "PATH": "/usr/bin"})) == UNKNOWN
    )
    assert describe_checkout(replace(workspace, environ={"PATH": "/nonexistent"})) == UNKNOWN


def test_umask_and_cores_are_those_asked_for(tmp_path: Path) -> None:
    # what Python reads before it starts hopperforge says under what it was started
    (tmp_path / "sitecustomize.py").write_text(
        "import os, json, sys\n"
        "if sys.orig_argv[1:3] == ['-m', 'hopperforge']:\n"
        "    mask = os.umask(0)\n"
        "    print(json.dumps([mask, len(os.sched_getaffinity(0)), sys.orig_argv[3:]]), flush=True)\n"
        "    os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "hopperforge.run.perturbed", "077", "1", "build", "a=b"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout) == [0o077, 1, ["build", "a=b"]]
