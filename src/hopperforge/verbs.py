"""What each verb of the command line does: gather facts, call the pipeline or a stage, say what came of it."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hopperforge.config.project import Project, load_project
from hopperforge.config.request import parse_keyed, parse_words
from hopperforge.errors import GateError, InputError, ToolError
from hopperforge.model.cell import Build, Default, Plan
from hopperforge.model.keys import JsonValue
from hopperforge.model.recipe import Recipe
from hopperforge.model.request import Kernels, Request
from hopperforge.model.versions import PythonVersion, TorchVersion
from hopperforge.pipeline import BuildResult, Job
from hopperforge.plan_report import plan_document, plan_lines
from hopperforge.planning import Situation, for_engine, make_plan
from hopperforge.run.engine import HOST, Client
from hopperforge.run.engines import choose_engine, diagnose, look
from hopperforge.run.files import remove_folder, sha256_file, write_atomic
from hopperforge.run.machine import read_machine
from hopperforge.run.workspace import Workspace
from hopperforge.stages.builder import Containers, image_builder
from hopperforge.stages.import_gate import Promise, prove_import
from hopperforge.stages.patch import find_patches, list_units, patch_source
from hopperforge.stages.smoke import run_smoke
from hopperforge.stages.source import fetch_source
from hopperforge.stages.toolkit import obtain_toolkit, toolkits_at_hand
from hopperforge.store.wheelhouse import Shelved, Wheelhouse

_CLEANABLE: Final = ("work", "cache", "wheelhouse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A verb's words and flags, and the world it runs in; `answer` prints to standard output.

    `glibc` is this machine's version, `root` whether we are root, `keep` the flag --keep.
    """

    words: tuple[str, ...]
    as_json: bool
    workspace: Workspace
    python: PythonVersion
    platform: str
    now: Callable[[], str]
    answer: Callable[[str], None]
    glibc: str = ""
    root: bool = False
    keep: bool = False

    def project(self) -> Project:
        """Read the project's facts; every problem of every file is one error."""
        return load_project(self.workspace.project)

    def settle(self, project: Project) -> tuple[Request, Situation]:
        """Read the words, choose the engine, and look at what planning must know of this machine."""
        asked = parse_words(self.words, project)
        engine = self.engine(project, asked)
        request = for_engine(asked, engine.value)
        at_hand = toolkits_at_hand(project.matrix, request.toolkit, self.workspace)
        return request, Situation(toolkits_at_hand=at_hand, python=self.python, platform=self.platform, engine=engine)

    def engine(self, project: Project, request: Request) -> Default:
        """Choose the engine; a build by upstream's own ninja file is for comparing on the host."""
        if request.kernels is Kernels.INLINE:
            if request.engine not in (None, HOST):
                raise InputError("kernels=inline compiles on the host alone", hint="kernels=inline engine=host")
            return Default(value=HOST, reason="kernels=inline compiles on the host alone")
        if project.images is None:
            return Default(value=HOST, reason="the project declares no base images")
        states = () if request.engine == HOST else look(self.workspace.environ)
        return choose_engine(request.engine, states, self.glibc)

    def containers(self, project: Project, engine: str, base: str | None) -> Containers | None:
        """Say how containers are used; None on the host."""
        if engine == HOST or project.images is None:
            return None
        return Containers(
            client=Client(program=engine, environ=self.workspace.environ),
            facts=project.images,
            base=project.images.bases[base or project.images.default],
            keep=self.keep,
        )

    def job(self, project: Project, request: Request, engine: str) -> Job:
        """Bind a request to this machine and an engine."""
        return Job(
            project=project,
            request=request,
            machine=read_machine(self.workspace.environ),
            workspace=self.workspace,
            now=self.now,
            containers=self.containers(project, engine, request.base),
        )

    def wheelhouse(self) -> Wheelhouse:
        """Open the wheelhouse."""
        return Wheelhouse(self.workspace.wheelhouse, self.workspace.reporter)


def plan(call: Call) -> None:
    """Show what the words come to, without fetching or building anything."""
    project = call.project()
    request, situation = call.settle(project)
    made = make_plan(project, request, situation)
    job = call.job(project, request, made.engine)
    statuses = {str(build): job.status(build, situation.toolkits_at_hand[build.cuda]) for build in made.builds}
    if call.as_json:
        call.answer(json.dumps(plan_document(made, job.machine, statuses), indent=2))
    else:
        call.answer("\n".join(plan_lines(made, job.machine, statuses)))


def fetch(call: Call) -> None:
    """Fetch and verify the source of every pin that a recipe uses."""
    parse_keyed(call.words, frozenset())
    project = call.project()
    for name in sorted({recipe.pin for recipe in project.recipes.values()}):
        call.workspace.reporter.stage("source", name)
        source = fetch_source(project.pins[name], call.workspace)
        call.answer(f"{name}: {source.root} (from {source.origin})")


def patch(call: Call) -> None:
    """Apply the series and list the units of the builds asked for."""
    project = call.project()
    request, situation = call.settle(project)
    made = make_plan(project, request, situation)
    answers = [_patched(call, project, build) for build in made.builds]
    if call.as_json:
        call.answer(json.dumps(answers, indent=2))


def _patched(call: Call, project: Project, build: Build) -> JsonValue:
    pin = project.pins[build.recipe.pin]
    call.workspace.reporter.stage("source", pin.name)
    source = fetch_source(pin, call.workspace)
    call.workspace.reporter.stage("patch", f"{len(find_patches(call.workspace.project, pin.name))} patches")
    patched = patch_source(source, call.workspace)
    torch = project.matrix.torches[build.torch]
    units = list_units(patched, build.profile, build.cuda, torch.release, call.workspace)
    if not call.as_json:
        call.answer(f"{build}: {len(units)} units of {patched.root}")
        for unit in units:
            call.answer(f"  {unit.path}")
    return {
        "build": str(build),
        "tree": str(patched.root),
        "patches": dict(patched.patches),
        "units": [{"path": unit.path, "arguments": unit.arguments} for unit in units],
    }


def build(call: Call) -> None:
    """Build everything the words come to; the first error's code is the command's."""
    project = call.project()
    request, situation = call.settle(project)
    made = make_plan(project, request, situation)
    engine = made.defaults.get("engine")
    if engine is not None and made.engine == HOST:
        call.workspace.reporter.warn(f"engine=host: {engine.reason}")
    results = call.job(project, request, made.engine).run_plan(made)
    _report(call, made, results)
    failed = [result for result in results if result.error is not None]
    for result in failed[1:]:
        call.workspace.reporter.warn(f"{result.build}: {result.error}")
    if failed and failed[0].error is not None:
        raise failed[0].error


def image(call: Call) -> None:
    """Make the builder image of a toolkit, or find it made before."""
    project = call.project()
    request, situation = call.settle(project)
    containers = call.containers(project, situation.engine.value, request.base)
    if containers is None:
        raise ToolError(f"an image needs docker or podman: {situation.engine.reason}", hint="nox -s doctor -- engine")
    for version in request.cuda or (max(situation.toolkits_at_hand),):
        fact = project.matrix.toolkits[version]
        call.workspace.reporter.stage("toolkit", f"CUDA {version}")
        toolkit = obtain_toolkit(fact, request.toolkit, call.workspace)
        call.workspace.reporter.stage("image", f"{containers.client.program}, base {containers.base.name}")
        builder = image_builder(toolkit, fact, containers, call.workspace)
        if builder.image is not None:
            call.answer(
                f"CUDA {version}: image {builder.image.id[:16]} on {builder.image.base.name}, "
                f"g++ {builder.compiler.version}, {containers.client.program} has it as {builder.image.reference}"
            )


def doctor(call: Call) -> None:
    """Say what is missing on this machine and how to install it; starts nothing."""
    if call.words not in ((), ("engine",)):
        raise InputError(f"doctor looks at the engines, not at {' '.join(call.words)}", hint="nox -s doctor -- engine")
    call.answer("\n".join(diagnose(look(call.workspace.environ), root=call.root)))


def _report(call: Call, made: Plan, results: Sequence[BuildResult]) -> None:
    for rejected in made.rejected:
        call.workspace.reporter.warn(f"left out {rejected.cell}: {rejected.reason}")
    columns = ("build", "cells served", "wheel", "size", "sha256", "seconds")
    call.workspace.reporter.table("Builds", columns, [_row(result) for result in results])
    document = {"builds": [_document(result) for result in results]}
    text = json.dumps(document, indent=2) + "\n"
    write_atomic(call.workspace.wheelhouse / "report.json", text.encode())
    if call.as_json:
        call.answer(text)


def _row(result: BuildResult) -> tuple[str, ...]:
    cells = ", ".join(f"torch {found.cell.torch} py {found.cell.python}" for found in result.build.cells)
    if result.package is None:
        return (str(result.build), cells, "FAILED", "", "", f"{result.seconds:.1f}")
    wheel = result.package.record.wheel
    state = "cached, " if result.cached else ""
    return (
        str(result.build),
        cells,
        wheel.file,
        f"{wheel.size / 1e6:.2f} MB",
        wheel.sha256[:16],
        f"{state}{result.seconds:.1f}",
    )


def _document(result: BuildResult) -> dict[str, JsonValue]:
    package = result.package
    return {
        "build": str(result.build),
        "cells": [str(found.cell) for found in result.build.cells],
        "cached": result.cached,
        "units_compiled": result.compiled,
        "seconds": round(result.seconds, 3),
        "wheel": str(package.path) if package else None,
        "size": package.record.wheel.size if package else None,
        "library_size": package.record.wheel.library_size if package else None,
        "sha256": package.record.wheel.sha256 if package else None,
        "error": str(result.error) if result.error else None,
    }


def verify(call: Call) -> None:
    """Import a wheel of the wheelhouse beside real torches and join the results to its record."""
    words = parse_keyed(call.words, frozenset({"wheel", "torch", "interpreter"}))
    package = _package(call, words)
    torches = _torches(words.get("torch"), package)
    recipe = call.project().recipes[package.record.recipe]
    interpreter = words.get("interpreter", sys.executable)
    results = tuple(
        prove_import(package.path, promise=_promise(recipe), torch=torch, python=interpreter, workspace=call.workspace)
        for torch in torches
    )
    for result in results:
        call.answer(f"{result.name}: {'passed' if result.passed else 'FAILED'}: {result.detail}")
    failed = [result for result in results if not result.passed]
    if failed:
        raise GateError(
            f"{package.path.name} failed {len(failed)} of {len(results)} import gates",
            detail=[f"{result.name}: {result.detail}" for result in failed],
        )
    call.wheelhouse().join_gates(package.record.wheel.sha256, results)


def _promise(recipe: Recipe) -> Promise:
    names = recipe.package
    operators = ("fwd", "bwd", "fwd_combine", "get_scheduler_metadata")
    return Promise(
        module=names.module,
        operators=tuple(f"{names.package}::{operator}" for operator in operators),
        function="flash_attn_func",
        guard="needs a GPU of compute capability 9.0",
    )


def _torches(text: str | None, package: Shelved) -> list[TorchVersion]:
    if text is None:
        return sorted({cell.torch for cell in package.record.cells})
    try:
        return [TorchVersion.parse(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(str(error), hint="torch=2.9,2.11") from error


def _package(call: Call, words: Mapping[str, str]) -> Shelved:
    """Find the package that `wheel=` names, by its bytes."""
    if "wheel" not in words:
        raise InputError("which wheel? the word wheel= is missing", hint="wheel=wheelhouse/NAME.whl")
    path = Path(words["wheel"])
    if not path.is_file():
        raise InputError(f"there is no file {path}", hint=f"ls {call.workspace.wheelhouse}")
    digest = sha256_file(path)
    for package in call.wheelhouse().packages():
        if package.record.wheel.sha256 == digest:
            return package
    raise InputError(
        f"{path} is no package of {call.workspace.wheelhouse}: no record there names its sha256 {digest}",
        hint="build it here, or copy its record beside it",
    )


def smoke(call: Call) -> None:
    """Run the recipe's smoke tests on the GPU of this machine; a pass joins the record."""
    words = parse_keyed(call.words, frozenset({"wheel", "interpreter"}))
    package = _package(call, words)
    recipe = call.project().recipes[package.record.recipe]
    interpreter = words.get("interpreter", sys.executable)
    gpu = run_smoke(package.path, recipe=recipe, interpreter=interpreter, workspace=call.workspace)
    call.wheelhouse().join_gpu(gpu, package.record.wheel.sha256)
    call.answer(f"{package.path.name}: smoke tests passed on {gpu.get('gpu')}; the record has the result")


def record(call: Call) -> None:
    """Join the result file of a smoke run, made elsewhere, to the record of the wheel it was made with."""
    if len(call.words) != 1 or "=" in call.words[0]:
        raise InputError("record takes one file, written by the smoke tests", hint="nox -s record -- gpu.json")
    joined = call.wheelhouse().join_gpu(*_read_gpu(Path(call.words[0])))
    call.answer(f"{joined.wheel.file}: the record has the result")


def _read_gpu(path: Path) -> tuple[Mapping[str, Any], str]:
    try:
        gpu = json.loads(path.read_bytes())
        return gpu, str(gpu["sha256"])
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a result of the smoke tests: it has no sha256", hint="pytest ... --gpu-json gpu.json"
        ) from error


def clean(call: Call) -> None:
    """Remove one kind of things that can be made again."""
    words = parse_keyed(call.words, frozenset({"what"}))
    what = words.get("what", "work")
    if what not in _CLEANABLE:
        raise InputError(f"what={what}: there is {', '.join(_CLEANABLE)}", hint="nox -s clean -- what=work")
    folder: Path = getattr(call.workspace, what)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    remove_folder(folder)
    call.answer(f"removed {folder} ({size / 1e6:.1f} MB)")
