"""What each verb of the command line does: gather facts, call the pipeline or a stage, say what came of it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hopperforge.config.project import Project, load_project
from hopperforge.config.request import ALL, parse_keyed, parse_words
from hopperforge.console import grid
from hopperforge.errors import InputError, StorageError, ToolError
from hopperforge.merging import merge_units
from hopperforge.model.cell import Build, Default, Plan
from hopperforge.model.image import ImageFacts
from hopperforge.model.keys import JsonValue
from hopperforge.model.request import Kernels, Merge, Request
from hopperforge.model.versions import PythonVersion
from hopperforge.pipeline import BuildResult, run_plan
from hopperforge.plan_report import plan_document, plan_lines
from hopperforge.planning import Situation, find_recipe, for_engine, make_plan, why_host
from hopperforge.preparing import Job
from hopperforge.report import WarningsOnly
from hopperforge.run.engine import HOST, Client
from hopperforge.run.engines import EngineState, choose_engine, look
from hopperforge.run.files import remove_folder, storage_guard, write_atomic
from hopperforge.run.machine import read_machine
from hopperforge.run.workspace import OWN_NAMES, Workspace
from hopperforge.stages.base import what_a_base_lacks
from hopperforge.stages.builder import Containers, image_builder
from hopperforge.stages.source import fetch_source
from hopperforge.stages.sources import kernel_source, kernel_units
from hopperforge.stages.toolkit import obtain_toolkit, toolkits_at_hand
from hopperforge.store.wheelhouse import Wheelhouse
from hopperforge.support import COLUMNS, make_support, support_document, text_reasons, text_rows

_CLEANABLE: Final = ("work", "cache", "wheelhouse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A verb's words and flags, and the world it runs in; `answer` prints to standard output.

    `glibc` is this machine's version, `root` whether we are root, `keep`, `dry_run` and
    `allow_unproven` the flags --keep, --dry-run and --allow-unproven.
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
    dry_run: bool = False
    allow_unproven: bool = False

    def project(self) -> Project:
        """Read the project's facts; every problem of every file is one error."""
        return load_project(self.workspace.project)

    def settle(self, project: Project, *more: str) -> tuple[Request, Situation]:
        """Read the words and `more`, choose the engine, and look at what planning must know of this machine."""
        asked = parse_words((*self.words, *more), project)
        engine = self.engine(project, asked)
        request = for_engine(asked, engine.value)
        at_hand = toolkits_at_hand(project.matrix, request.toolkit, self.workspace)
        return request, Situation(
            toolkits_at_hand=at_hand,
            python=self.python,
            platform=self.platform,
            engine=engine,
            store=self.workspace.shared,
        )

    def engine(self, project: Project, request: Request) -> Default:
        """Choose the engine: the one asked for, the host where only that will do, else by what works here."""
        host_alone = (
            "the project declares no base images"
            if project.images is None
            else why_host(request, find_recipe(project, request))
        )
        if project.images is None or host_alone is not None:
            if request.engine not in (None, HOST):
                raise InputError(f"engine={request.engine}, but {host_alone}", hint="engine=host")
            return Default(value=HOST, reason=str(host_alone))
        if request.engine == HOST:
            return choose_engine(HOST, (), glibc=self.glibc, lack=None)
        return choose_engine(request.engine, self.engines(), glibc=self.glibc, lack=self.lack(project.images, request))

    def engines(self) -> tuple[EngineState, ...]:
        """Look at the container engines of this machine."""
        return look(self.workspace.environ, self.workspace.work)

    def lack(self, images: ImageFacts, request: Request) -> str | None:
        """Say what keeps the request's base from being had here."""
        return what_a_base_lacks(images.bases[request.base or images.default], self.workspace)

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
    quiet = replace(call.workspace, reporter=WarningsOnly(call.workspace.reporter))
    job = replace(call.job(project, request, made.engine), workspace=quiet)
    statuses = {str(build): job.status(build, situation.toolkits_at_hand) for build in made.builds}
    if call.as_json:
        call.answer(json.dumps(plan_document(made, job.machine, statuses), indent=2))
    else:
        call.answer("\n".join(plan_lines(made, job.machine, statuses)))


def matrix(call: Call) -> None:
    """Show, for every point of the matrix or those the words leave, whether a wheel was built and proven."""
    project = call.project()
    request, situation = call.settle(project, ALL)
    records = [package.record for package in call.wheelhouse().packages()]
    support = make_support(project, request, situation, records)
    if call.as_json:
        call.answer(json.dumps(support_document(support), indent=2))
    else:
        call.answer("\n".join([*grid(COLUMNS, text_rows(support)), *text_reasons(support)]))


def fetch(call: Call) -> None:
    """Fetch and verify the source of every pin that a recipe uses."""
    parse_keyed(call.words, frozenset())
    project = call.project()
    for name in sorted({recipe.pin for recipe in project.recipes.values() if recipe.pin is not None}):
        call.workspace.reporter.stage("source", name)
        source = fetch_source(project.pins[name], call.workspace)
        call.answer(f"{name}: {source.root} (from {source.origin})")


def patch(call: Call) -> None:
    """Apply the series and list the units of the builds asked for."""
    project = call.project()
    request, situation = call.settle(project)
    made = make_plan(project, request, situation)
    answers = [_patched(call, project, build, request.merge) for build in made.builds]
    if call.as_json:
        call.answer(json.dumps(answers, indent=2))


def _patched(call: Call, project: Project, build: Build, merge: Merge) -> JsonValue:
    if build.cuda is None:
        raise InputError(f"recipe {build.recipe.name} is of Python alone: there is no source to patch")
    patched = kernel_source(build.recipe, project.pin_of(build.recipe), call.workspace)
    fact = project.matrix.toolkits[build.cuda]
    units = kernel_units(patched, build, fact, project.matrix, call.workspace)
    if merge is Merge.ON and build.kernels is not Kernels.INLINE:
        units = merge_units(units, build.recipe.merge)
    if not call.as_json:
        call.answer(f"{build}: {len(units)} units of {patched.root}")
        for unit in units:
            call.answer("\n".join([f"  {unit.path}", *(f"    {source}" for source in unit.merged)]))
    return {
        "build": str(build),
        "tree": str(patched.root),
        "kernel_tree": patched.kernel_tree,
        "patches": dict(patched.patches),
        "units": [
            {"path": unit.path, "sources": unit.sources, "arguments": unit.arguments, "sees": unit.sees}
            for unit in units
        ],
    }


def build(call: Call) -> None:
    """Build everything the words come to; the first error's code is the command's."""
    project = call.project()
    request, situation = call.settle(project)
    made = make_plan(project, request, situation)
    engine = made.defaults.get("engine")
    compiled = any(build.cuda is not None for build in made.builds)
    if engine is not None and made.engine == HOST and compiled:
        call.workspace.reporter.warn(f"engine=host: {engine.reason}")
    results = run_plan(call.job(project, request, made.engine), made)
    _report(call, made, results)
    failed = [(result.build, result.error) for result in results if result.error is not None]
    if len(failed) > 1:
        rows = [(str(build), str(error.exit_code), error.sentence) for build, error in failed]
        title = f"{len(failed)} of {len(results)} builds failed; the first error in full is below, all in report.json"
        call.workspace.reporter.table(title, ("build", "exit code", "error"), rows)
    if failed:
        raise failed[0][1]


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


def _report(call: Call, made: Plan, results: Sequence[BuildResult]) -> None:
    left_out: dict[str, list[str]] = {}
    for rejected in made.rejected:
        left_out.setdefault(rejected.reason, []).append(str(rejected.cell))
    for reason, cells in left_out.items():
        more = f" and {len(cells) - 1} more cells" if len(cells) > 1 else ""
        call.workspace.reporter.warn(f"left out {cells[0]}{more}: {reason}")
    columns = ("build", "cells served", "wheel", "size", "sha256", "seconds")
    call.workspace.reporter.table("Builds", columns, [_row(result) for result in results])
    document = {"builds": [_document(result) for result in results]}
    text = json.dumps(document, indent=2) + "\n"
    try:
        write_atomic(call.workspace.wheelhouse / "report.json", text.encode())
    except StorageError as error:  # what happened to the builds matters more
        call.workspace.reporter.warn(f"no report.json: {error.sentence}")
    if call.as_json:
        call.answer(text)


def _row(result: BuildResult) -> tuple[str, ...]:
    cells = _served(result.build)
    if result.package is None:
        return (str(result.build), cells, "FAILED", "", "", f"{result.seconds:.1f}")
    wheel = result.package.record.wheel
    state = "cached, " if result.cached else ""
    return (
        str(result.build),
        cells,
        wheel.file,
        f"{wheel.size / 1e6:.2f} MB, library {wheel.library_size / 1e6:.2f} MB",
        wheel.sha256[:16],
        f"{state}{result.seconds:.1f}",
    )


def _served(build: Build) -> str:
    if build.torch is None:
        return f"cuda {build.cuda}" if build.cuda else "every machine"
    torches = dict.fromkeys(str(found.cell.torch) for found in build.cells)
    pythons = sorted({found.cell.python for found in build.cells if found.cell.python is not None})
    return f"torch {', '.join(torches)} py {', '.join(map(str, pythons))}"


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
        "tarball": package.record.tarball.file if package and package.record.tarball else None,
        "error": str(result.error) if result.error else None,
    }


def _is_ours(path: Path, what: str) -> bool:
    match what:
        case "cache":
            return path.name in OWN_NAMES
        case "wheelhouse":
            return path.name in {"report.json", ".lock"} or ".whl" in path.suffixes or path.name.endswith(".tar.zst")
        case _:
            return True


def clean(call: Call) -> None:
    """Remove one kind of hopperforge's things; a folder that holds anything else is left alone."""
    words = parse_keyed(call.words, frozenset({"what"}))
    what = words.get("what", "work")
    if what not in _CLEANABLE:
        raise InputError(f"what={what}: there is {', '.join(_CLEANABLE)}", hint="nox -s clean -- what=work")
    folder: Path = getattr(call.workspace, what)
    strange = sorted(path.name for path in folder.glob("*") if not _is_ours(path, what))
    if strange:
        raise InputError(
            f"{folder} holds things that are not hopperforge's: nothing was removed",
            detail=strange[:10],
            hint=f"ls {folder}   # is HOPPERFORGE_CACHE or HOPPERFORGE_WHEELHOUSE what it should be?",
        )
    with storage_guard(folder):
        size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
        remove_folder(folder)
    call.answer(f"removed {folder} ({size / 1e6:.1f} MB)")
