"""The import gate: a wheel is installed beside the real framework in the Python it promises to serve, and imported.

No GPU is needed and none is shown: the package must import and say in one sentence what is missing. Here that happens
in a Python of this machine, in `import_container` in one of a base; what the answer means is the same.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path
from typing import Final

from packaging.specifiers import SpecifierSet

from hopperforge.errors import ToolError
from hopperforge.model.keys import content_key
from hopperforge.model.recipe import Promise
from hopperforge.model.versions import PythonVersion, TorchVersion
from hopperforge.model.wheel import GateResult, ImportProof
from hopperforge.run.files import Lock, remove_folder, replace_folder, storage_guard, sweep, temporary_folder
from hopperforge.run.workspace import Workspace
from hopperforge.stages import import_probe
from hopperforge.stages.audit_tools import Answer, module, run_tool
from hopperforge.stages.pip_run import pip_install, refuse_full_disk, require_framework

_ASK_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
NO_HELP: Final[Mapping[str, str]] = {"CUDA_VISIBLE_DEVICES": "", "LD_LIBRARY_PATH": "", "LD_PRELOAD": ""}
"""The environment of an import, together with the interpreter's -I: neither a GPU nor the user's paths may help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the probe found: every promise broken, and what the package was imported beside, in words."""

    problems: tuple[str, ...]
    beside: str


def prove_import(
    wheel: Path,
    *,
    promise: Promise,
    torch: TorchVersion,
    python: str,
    workspace: Workspace,
    requirement: str | None = None,
) -> GateResult:
    """Install `wheel` beside the index's torch in a venv of the interpreter `python`, and import it without a GPU.

    The venv is made once for each interpreter and torch. `requirement` takes the place of torch's own. A wheel that
    breaks its promise is a failed result; a framework or an interpreter that cannot be had is a ToolError, a full disk
    a StorageError.
    """
    wanted = requirement or f"torch=={torch}.*"
    interpreter = framework_venv(python, wanted, workspace)
    name = str(ImportProof(torch=torch, python=_version(interpreter, workspace)))
    with temporary_folder(workspace.work, "import") as folder:
        pip, target = _pip(interpreter, workspace), folder / "site"
        words = ("--no-deps", "--no-index", "--target", target, wheel)
        install = pip_install(pip, *words, folder=folder, name=f"install-{wheel.name}", workspace=workspace)
        if install.status != 0:
            return GateResult(name=name, passed=False, detail=last_words("pip refuses the wheel", install))
        answer = _probe(interpreter, target, promise, wheel.name, workspace)
    return judge(name, answer, promise)


def judge(name: str, answer: Answer, promise: Promise) -> GateResult:
    """Make the gate's result of what the probe answered."""
    found = read_probe(answer.lines)
    if found is None or answer.status != 0:
        return GateResult(name=name, passed=False, detail=last_words(f"status {answer.status}", answer))
    kept = f", has {', '.join(promise.operators)}, and says what is missing without a GPU" if promise.operators else ""
    detail = "; ".join(found.problems) or f"{promise.module} imports beside {found.beside}{kept}"
    return GateResult(name=name, passed=not found.problems, detail=detail)


def _pip(interpreter: str | Path, workspace: Workspace) -> tuple[str | Path, ...]:
    """Choose the pip that installs for an interpreter: ours, else its own where ours does not go back so far."""
    if _ours_serves(_version(interpreter, workspace)):
        return (*module("pip"), "--python", interpreter)
    return (interpreter, "-m", "pip")


def _ours_serves(python: PythonVersion) -> bool:
    return SpecifierSet(metadata("pip")["Requires-Python"] or "").contains(f"{python}.99")


def _version(interpreter: str | Path, workspace: Workspace) -> PythonVersion:
    """Ask an interpreter for its version: where it lies says nothing about it elsewhere."""
    answer = run_tool((interpreter, "-I", "-c", _ASK_VERSION), name="python-version", workspace=workspace)
    try:
        return PythonVersion.parse(answer.lines[-1] if answer.lines else "")
    except ValueError as error:
        raise ToolError(f"{interpreter} does not say its version", detail=answer.tail) from error


def _probe(interpreter: Path, target: Path, promise: Promise, name: str, workspace: Workspace) -> Answer:
    order = probe_order(promise, str(target))
    command = (interpreter, "-I", "-B", str(import_probe.__file__), order)
    return run_tool(command, name=f"import-{name}", workspace=workspace, extra=NO_HELP)


def probe_order(promise: Promise, *paths: str) -> str:
    """Write what the probe is to look for, with `paths` as the first that modules are looked for in."""
    return json.dumps(
        {
            "paths": paths,
            "module": promise.module,
            "operators": promise.operators,
            "function": promise.function,
            "guard": promise.guard,
        }
    )


def read_probe(lines: Sequence[str]) -> Found | None:
    """Take the probe's findings from its output; None if it did not come to print them."""
    for line in reversed(lines):
        if line.startswith(import_probe.MARK):
            said = json.loads(line.removeprefix(import_probe.MARK))
            return Found(problems=tuple(map(str, said["problems"])), beside=str(said["beside"]))
    return None


def last_words(what: str, answer: Answer) -> str:
    """Make a detail of what happened, the last lines said about it, and the log."""
    return "; ".join([what, *answer.lines[-3:], f"log: {answer.log}"])


def framework_venv(python: str, requirement: str, workspace: Workspace) -> Path:
    """Make a venv of `python` with `requirement` installed, or find it made before; returns its interpreter.

    ToolError if the interpreter does not start or the index does not give the requirement, StorageError if the disk is
    full.
    """
    venvs = workspace.cache / "venvs"
    key = content_key("venv", {"python": str(Path(python).resolve()), "requirement": requirement})
    name = f"{re.sub(r'[^A-Za-z0-9.]+', '-', requirement.rsplit('/', maxsplit=1)[-1])}-{key[:16]}"
    final = venvs / name
    interpreter = final / "bin" / "python"
    with Lock(venvs / f"{name}.lock"):
        if not interpreter.exists():  # a venv whose Python was removed is made anew
            sweep(venvs, name)
            remove_folder(final)
            with storage_guard(venvs), temporary_folder(venvs, name) as folder:
                _make_venv(python, requirement, folder, workspace)
                replace_folder(folder, final)
    return interpreter


def _make_venv(python: str, requirement: str, folder: Path, workspace: Workspace) -> None:
    without = ("--without-pip",) if _ours_serves(_version(python, workspace)) else ()
    command = (python, "-m", "venv", *without, folder)
    made = run_tool(command, name="venv", workspace=workspace, extra={"TMPDIR": str(folder)})
    refuse_full_disk(made, folder.parent)
    if made.status != 0:
        raise ToolError(f"{python} cannot make a virtual environment", detail=made.tail)
    workspace.reporter.note(f"installing {requirement} for {python} to import the package beside it")
    pip = _pip(folder / "bin" / "python", workspace)
    install = pip_install(pip, requirement, folder=folder, name="install-framework", workspace=workspace)
    require_framework(install, wanted=(requirement,), where=python)
