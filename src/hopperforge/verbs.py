"""What each verb of the command line does: gather facts, call the pipeline or a stage, say what came of it."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from hopperforge.config.project import Project, load_project
from hopperforge.config.request import ALL, parse_keyed, parse_words
from hopperforge.console import grid
from hopperforge.errors import GateError, InputError, StorageError
from hopperforge.model.cell import Accepted, Build, Plan
from hopperforge.model.keys import JsonValue
from hopperforge.model.recipe import Recipe
from hopperforge.model.request import Request
from hopperforge.model.versions import PythonVersion, TorchVersion
from hopperforge.pipeline import BuildResult, Job
from hopperforge.plan_report import plan_document, plan_lines
from hopperforge.planning import Situation, make_plan
from hopperforge.report import WarningsOnly
from hopperforge.run.files import remove_folder, sha256_file, storage_guard, write_atomic
from hopperforge.run.machine import read_machine
from hopperforge.run.workspace import OWN_NAMES, Workspace
from hopperforge.stages.import_gate import Promise, prove_import
from hopperforge.stages.patch import find_patches, list_units, patch_source
from hopperforge.stages.smoke import run_smoke
from hopperforge.stages.source import fetch_source
from hopperforge.stages.toolkit import toolkits_at_hand
from hopperforge.store.wheelhouse import Shelved, Wheelhouse
from hopperforge.support import COLUMNS, make_support, support_document, text_reasons, text_rows

_CLEANABLE: Final = ("work", "cache", "wheelhouse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A verb's words and flags, and the world it runs in; `answer` prints to standard output."""

    words: tuple[str, ...]
    as_json: bool
    workspace: Workspace
    python: PythonVersion
    platform: str
    now: Callable[[], str]
    answer: Callable[[str], None]

    def project(self) -> Project:
        """Read the project's facts; every problem of every file is one error."""
        return load_project(self.workspace.project)

    def situation(self, project: Project, request: Request) -> Situation:
        """Look at what planning must know of this machine."""
        at_hand = toolkits_at_hand(project.matrix, request.toolkit, self.workspace)
        return Situation(toolkits_at_hand=at_hand, python=self.python, platform=self.platform)

    def job(self, project: Project, request: Request) -> Job:
        """Bind a request to this machine."""
        machine = read_machine(self.workspace.environ)
        return Job(project=project, request=request, machine=machine, workspace=self.workspace, now=self.now)

    def wheelhouse(self) -> Wheelhouse:
        """Open the wheelhouse."""
        return Wheelhouse(self.workspace.wheelhouse, self.workspace.reporter)


def plan(call: Call) -> None:
    """Show what the words come to, without fetching or building anything."""
    project = call.project()
    request = parse_words(call.words, project)
    situation = call.situation(project, request)
    made = make_plan(project, request, situation)
    quiet = replace(call.workspace, reporter=WarningsOnly(call.workspace.reporter))
    job = replace(call.job(project, request), workspace=quiet)
    statuses = {str(build): job.status(build, situation.toolkits_at_hand[build.cuda]) for build in made.builds}
    if call.as_json:
        call.answer(json.dumps(plan_document(made, job.machine, statuses), indent=2))
    else:
        call.answer("\n".join(plan_lines(made, job.machine, statuses)))


def matrix(call: Call) -> None:
    """Show, for every point of the matrix or those the words leave, whether a wheel was built and proven."""
    project = call.project()
    request = parse_words((*call.words, ALL), project)
    records = [package.record for package in call.wheelhouse().packages()]
    support = make_support(project, request, call.situation(project, request), records)
    if call.as_json:
        call.answer(json.dumps(support_document(support), indent=2))
    else:
        call.answer("\n".join([*grid(COLUMNS, text_rows(support)), *text_reasons(support)]))


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
    request = parse_words(call.words, project)
    made = make_plan(project, request, call.situation(project, request))
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
    units = list_units(patched, build.profile, build.cuda.cuda, torch.release, call.workspace)
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
    request = parse_words(call.words, project)
    made = make_plan(project, request, call.situation(project, request))
    results = call.job(project, request).run_plan(made)
    _report(call, made, results)
    failed = [(result.build, result.error) for result in results if result.error is not None]
    if len(failed) > 1:
        rows = [(str(build), str(error.exit_code), error.sentence) for build, error in failed]
        title = f"{len(failed)} of {len(results)} builds failed; the first error in full is below, all in report.json"
        call.workspace.reporter.table(title, ("build", "exit code", "error"), rows)
    if failed:
        raise failed[0][1]


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
    torches = dict.fromkeys(str(found.cell.torch) for found in result.build.cells)
    pythons = dict.fromkeys(str(found.cell.python) for found in sorted(result.build.cells, key=_python))
    cells = f"torch {', '.join(torches)} py {', '.join(pythons)}"
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


def _python(found: Accepted) -> PythonVersion:
    return found.cell.python


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
    interpreter = _interpreter(words.get("interpreter", sys.executable), call.workspace.environ)
    results = tuple(
        prove_import(package.path, promise=_promise(recipe), torch=torch, python=interpreter, workspace=call.workspace)
        for torch in torches
    )
    for result in results:
        call.answer(f"{result.name}: {'passed' if result.passed else 'FAILED'}: {result.detail}")
    call.wheelhouse().join_gates(package.record.wheel.sha256, results)
    failed = [result for result in results if not result.passed]
    if failed:
        raise GateError(
            f"{package.path.name} failed {len(failed)} of {len(results)} import gates",
            detail=[f"{result.name}: {result.detail}" for result in failed],
            hint="the record now says so; a wheel with a failed gate is not to be published",
        )


def _interpreter(word: str, environ: Mapping[str, str]) -> str:
    """Find the Python that a word names: the user's, never that of the environment hopperforge itself runs in."""
    own = Path(sys.prefix) / "bin"
    places = [place for place in environ.get("PATH", "").split(os.pathsep) if Path(place) != own]
    found = shutil.which(word, path=os.pathsep.join(places))
    if found is None:
        raise InputError(f"interpreter={word}: there is no such program", hint="interpreter=/path/to/python3")
    return found


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
    if "interpreter" not in words:
        raise InputError(
            "which Python runs the smoke tests? the word interpreter= is missing",
            hint="interpreter=python3, if that has a CUDA torch and pytest",
        )
    interpreter = _interpreter(words["interpreter"], call.workspace.environ)
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


def _is_ours(path: Path, what: str) -> bool:
    match what:
        case "cache":
            return path.name in OWN_NAMES
        case "wheelhouse":
            return path.name in {"report.json", ".lock"} or ".whl" in path.suffixes
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
