"""Which hopperforge this is: its version and, where git knows it, the commit of the checkout it works in."""

from pathlib import Path

from hopperforge import __version__
from hopperforge.errors import ToolError
from hopperforge.model.record import ToolFacts
from hopperforge.run.process import run
from hopperforge.run.workspace import Workspace


def describe_checkout(workspace: Workspace) -> ToolFacts:
    """Say version and commit; the commit is None where the project is no checkout of its own, or there is no git."""
    top = _git(workspace, "rev-parse", "--show-toplevel")
    commit = _git(workspace, "rev-parse", "HEAD")
    if not top or not commit or Path(top[0]).resolve() != workspace.project.resolve():
        return ToolFacts(version=__version__, commit=None, clean=False)
    changes = _git(workspace, "status", "--porcelain", "--untracked-files=no")
    return ToolFacts(version=__version__, commit=commit[0], clean=changes == [])


def _git(workspace: Workspace, *words: str) -> list[str] | None:
    """Give what git prints; None if it cannot say."""
    lines: list[str] = []
    try:
        done = run(["git", *words], cwd=workspace.project, env=workspace.environ, on_line=lines.append)
    except ToolError:
        return None
    return lines if done.status == 0 else None
