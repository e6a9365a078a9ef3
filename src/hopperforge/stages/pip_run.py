"""Running `pip install`, and telling why it failed: a full disk is no fault of the index, nor of the package."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hopperforge.errors import ToolError
from hopperforge.run.files import disk_full, says_disk_full
from hopperforge.run.workspace import Workspace
from hopperforge.stages.audit_tools import Answer, run_tool

INSTALL: Final = ("install", "--quiet", "--no-input", "--disable-pip-version-check")
"""How every pip is told to install."""


def pip_install(pip: Sequence[str | Path], *words: str | Path, folder: Path, name: str, workspace: Workspace) -> Answer:
    """Run `pip install WORDS`, which unpacks in `folder`, a temporary one; the caller judges the answer.

    StorageError if the disk is full that holds the folder.
    """
    answer = run_tool((*pip, *INSTALL, *words), name=name, workspace=workspace, extra={"TMPDIR": str(folder)})
    refuse_full_disk(answer, folder.parent)
    return answer


def refuse_full_disk(answer: Answer, place: Path) -> None:
    """Raise StorageError if a tool failed and said that the disk that holds `place` is full."""
    if answer.status != 0 and any(says_disk_full(line) for line in answer.lines):
        raise disk_full(place, detail=answer.tail)


def require_framework(answer: Answer, *, wanted: Sequence[str], where: str) -> None:
    """Raise ToolError if pip could not install what the index should have."""
    if answer.status != 0:
        raise ToolError(
            f"{', '.join(wanted)} cannot be installed for {where}",
            detail=answer.tail,
            hint=f"{sys.executable} -m pip download --no-deps '{wanted[0]}'   # is the index reachable?",
        )
