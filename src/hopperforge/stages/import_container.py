"""The import gate in a container: a base's own Python and pip judge the wheel, with no network and nothing of ours.

Its pip refuses a wheel whose platform tag asks for a newer glibc, and its loader a library that needs one. The
framework is the index's, installed from outside for that Python.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hopperforge.errors import ToolError
from hopperforge.model.image import Base
from hopperforge.model.recipe import Promise
from hopperforge.model.versions import TorchVersion
from hopperforge.model.wheel import GateResult, ImportProof
from hopperforge.run.engine import MEASURE, Command, ContainerEngine, Mount, split_usage
from hopperforge.run.files import make_folder, temporary_folder
from hopperforge.run.workspace import Workspace
from hopperforge.stages import import_probe
from hopperforge.stages.audit_tools import Answer, glibc_of, platform_tags
from hopperforge.stages.base import obtain_base
from hopperforge.stages.builder import Containers
from hopperforge.stages.framework import Target, framework_folder
from hopperforge.stages.import_gate import NO_HELP, judge, last_words, probe_order
from hopperforge.stages.pip_run import INSTALL, refuse_full_disk

_PYTHON: Final = "python3"
_SCRATCH: Final = "/work"
_VENV: Final = f"{_SCRATCH}/venv"
_PACKAGE: Final = f"{_SCRATCH}/package"
_FRAMEWORK: Final = "/framework"
_PROBE: Final = "/opt/hopperforge/import_probe.py"
_ASK: Final = """import json, os, platform
print(json.dumps([platform.python_version(), os.confstr("CS_GNU_LIBC_VERSION"), platform.machine()]))"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BasePython:
    """The Python of a base at hand, and the engine that runs it."""

    base: Base
    engine: ContainerEngine
    target: Target

    def proof(self, torch: TorchVersion) -> str:
        """Name the gate."""
        return f"{ImportProof(torch=torch, python=self.target.python)} on {self.base.name}"


def open_base(containers: Containers, workspace: Workspace) -> BasePython:
    """Give the Python of the base, made or pulled if it is not at hand; ToolError if it has none that answers."""
    base = obtain_base(containers.base, containers.client, workspace)
    inspected = containers.client.inspect(base.tag)
    if inspected is None:
        raise ToolError(
            f"{containers.client.program} got {base.tag} and has it no more", hint="nox -s doctor -- engine"
        )
    engine = ContainerEngine(
        client=containers.client,
        image=str(inspected["Id"]),
        ground=base.id,
        reporter=workspace.reporter,
        keep=containers.keep,
        python=_PYTHON,
    )
    with temporary_folder(make_folder(workspace.work), "ask") as scratch:
        try:
            answer = _run(engine, (_PYTHON, "-I", "-c", _ASK), scratch, (), name=f"python-of-{base.name}", of=workspace)
        except ToolError as error:
            raise ToolError(
                f"{engine.name} cannot run {_PYTHON} in base {base.name}", detail=error.detail, hint=error.hint
            ) from error
    return BasePython(base=base, engine=engine, target=read_target(answer.lines, base.name))


def read_target(lines: Sequence[str], base: str) -> Target:
    """Read what a base's Python says of itself; ToolError if it is no Python that manylinux wheels are for."""
    try:
        release, libc, machine = json.loads(lines[-1])
        major, minor = libc.removeprefix("glibc ").split(".")[:2]
        return Target(release=release, glibc=(int(major), int(minor)), machine=machine)
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        raise ToolError(f"the Python of base {base} does not say its version and its glibc", detail=lines) from error


def prove_import_in(
    wheel: Path,
    *,
    promise: Promise,
    torch: TorchVersion,
    place: BasePython,
    workspace: Workspace,
    requirement: str | None = None,
) -> GateResult:
    """Install `wheel` by the base's own pip in a container, and import it there beside the index's torch.

    `requirement` takes the place of torch's own. A wheel that breaks its promise, or that pip refuses, is a failed
    result; a framework that cannot be had, or a base without venv, is a ToolError.
    """
    name, log = place.proof(torch), f"{place.base.name}-{wheel.name}"
    inside = f"/wheel/{wheel.name}"
    mounts = [Mount(outside=wheel.resolve(), inside=inside)]
    with temporary_folder(make_folder(workspace.work), "import") as scratch:
        made = _run(place.engine, (_PYTHON, "-I", "-m", "venv", _VENV), scratch, (), name=f"venv-{log}", of=workspace)
        refuse_full_disk(made, workspace.work)
        if made.status != 0:
            raise ToolError(f"{_PYTHON} of base {place.base.name} cannot make a virtual environment", detail=made.tail)
        pip = (f"{_VENV}/bin/python", "-I", "-m", "pip", *INSTALL, "--no-deps", "--no-index", "--target", _PACKAGE)
        installed = _run(place.engine, (*pip, inside), scratch, mounts, name=f"install-{log}", of=workspace)
        refuse_full_disk(installed, workspace.work)
        if installed.status != 0:
            why = refusal(platform_tags(wheel), place.base.name, place.target)
            return GateResult(name=name, passed=False, detail=last_words(why, installed))
        folder = framework_folder(place.target, requirement or f"torch=={torch}.*", workspace)
        mounts = [
            Mount(outside=folder.resolve(), inside=_FRAMEWORK),
            Mount(outside=Path(import_probe.__file__).resolve(), inside=_PROBE),
        ]
        order = probe_order(promise, _PACKAGE, _FRAMEWORK)
        probe = (f"{_VENV}/bin/python", "-I", "-B", _PROBE, order)
        answer = _run(place.engine, probe, scratch, mounts, name=f"import-{log}", of=workspace)
    return judge(name, answer, promise)


def refusal(tags: Sequence[str], base: str, target: Target) -> str:
    """Say why the pip of a base refuses a wheel with these platform tags, as far as they show it."""
    floors = {glibc_of(tag): tag for tag in tags if tag.startswith("manylinux")}
    if floors and min(floors) > target.glibc:
        oldest = min(floors)
        return (
            f"the tag {floors[oldest]} is for glibc {oldest[0]}.{oldest[1]} or newer, "
            f"and {base} has {target.glibc[0]}.{target.glibc[1]}"
        )
    return f"the pip of {base} ({target}) refuses the wheel"


def _run(
    engine: ContainerEngine,
    argv: tuple[str, ...],
    scratch: Path,
    mounts: Sequence[Mount],
    *,
    name: str,
    of: Workspace,
) -> Answer:
    """Run a command in a container that writes to `scratch` alone; the log is logs/audit/<name>.log."""
    log = make_folder(of.logs / "audit") / f"{name}.log"
    lines: list[str] = []
    done = engine.run(
        Command(
            name=name,
            argv=argv,
            cwd=Path(_SCRATCH),
            env={"HOME": _SCRATCH, "TMPDIR": _SCRATCH, "LC_ALL": "C.UTF-8", **NO_HELP},
            mounts=(
                Mount(outside=scratch.resolve(), inside=_SCRATCH, writable=True),
                Mount(outside=(of.project / "image" / "measure.py").resolve(), inside=MEASURE),
                *mounts,
            ),
            memory=None,
        ),
        log=log,
        on_line=lines.append,
        on_heartbeat=lambda seconds: of.reporter.output(name, f"still at it after {seconds:.0f} s"),
    )
    return Answer(status=done.status, lines=split_usage(lines)[1], log=log)
