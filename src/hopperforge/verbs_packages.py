"""Verbs about finished packages: proving a wheel beside real frameworks and on a GPU, and joining what came of it."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hopperforge.config.project import Project
from hopperforge.config.request import parse_keyed, parse_words
from hopperforge.errors import GateError, InputError, ToolError
from hopperforge.model.record import REPRODUCTION, read_reproduction
from hopperforge.model.request import Request
from hopperforge.model.versions import TorchVersion
from hopperforge.model.wheel import GateResult
from hopperforge.run.engine import HOST
from hopperforge.run.files import sha256_file
from hopperforge.stages.import_container import BasePython, open_base, prove_import_in
from hopperforge.stages.import_gate import prove_import
from hopperforge.stages.smoke import run_smoke
from hopperforge.store.wheelhouse import Shelved
from hopperforge.verbs import Call
from hopperforge.verbs_proof import check


def verify(call: Call) -> None:
    """Import a wheel beside real torches and join the results to its record; with key=, judge its signature instead."""
    words = parse_keyed(call.words, frozenset({"wheel", "torch", "interpreter", "base", "engine", "key"}))
    if "key" in words:
        check(call, words)
        return
    package = _package(call, words)
    torches = _torches(words.get("torch"), package)
    prove = _prover(call, words, package)
    failed = []
    for torch in torches:
        result = prove(torch)
        call.answer(f"{result.name}: {'passed' if result.passed else 'FAILED'}: {result.detail}")
        call.wheelhouse().join_gates(package.record.wheel.sha256, [result])
        failed += [] if result.passed else [result]
    if failed:
        raise GateError(
            f"{package.path.name} failed {len(failed)} of {len(torches)} import gates",
            detail=[f"{result.name}: {result.detail}" for result in failed],
            hint="the record now says so; a wheel with a failed gate is not to be published",
        )


def _prover(call: Call, words: Mapping[str, str], package: Shelved) -> Callable[[TorchVersion], GateResult]:
    """Choose where imports are proven: in a container of the base asked for, else in a Python of this machine."""
    project = call.project()
    promise = project.recipes[package.record.recipe].promised
    if promise is None:
        raise InputError(
            f"{package.path.name} binds to no torch, so there is nothing to import beside one",
            hint=f"nox -s smoke -- wheel={package.path} interpreter=python3   # its own tests, on a GPU",
        )
    wheel, workspace = package.path, call.workspace
    asked = parse_words([f"{key}={words[key]}" for key in ("engine", "base") if key in words], project)
    if asked.base is not None:
        if "interpreter" in words:
            raise InputError(
                f"base={asked.base} has its own Python, so interpreter= and base= do not go together",
                hint=f"base={asked.base}",
            )
        place = _base_python(call, project, asked)
        return lambda torch: prove_import_in(wheel, promise=promise, torch=torch, place=place, workspace=workspace)
    if asked.engine not in (None, HOST):
        bases = ", ".join(project.images.bases) if project.images else "none"
        raise InputError(
            f"engine={asked.engine} imports in a container of a base, and the word base= is missing",
            detail=[f"the bases are: {bases}"],
            hint=f"base=trixie engine={asked.engine}",
        )
    python = find_interpreter(words.get("interpreter", sys.executable), workspace.environ)
    return lambda torch: prove_import(wheel, promise=promise, torch=torch, python=python, workspace=workspace)


def _base_python(call: Call, project: Project, asked: Request) -> BasePython:
    if asked.engine == HOST:
        raise InputError(
            f"base={asked.base} is for containers, and engine=host runs none",
            hint="engine=docker, or interpreter=python3 for a Python of this machine",
        )
    engine = call.engine(project, asked)
    containers = call.containers(project, engine.value, asked.base)
    if containers is None:
        raise ToolError(f"base={asked.base} needs docker or podman: {engine.reason}", hint="nox -s doctor -- engine")
    return open_base(containers, call.workspace)


def find_interpreter(word: str, environ: Mapping[str, str]) -> str:
    """Find the Python that a word names: the user's, never that of the environment hopperforge itself runs in."""
    own = Path(sys.prefix) / "bin"
    places = [place for place in environ.get("PATH", "").split(os.pathsep) if Path(place) != own]
    found = shutil.which(word, path=os.pathsep.join(places))
    if found is None:
        raise InputError(f"interpreter={word}: there is no such program", hint="interpreter=/path/to/python3")
    return str(Path(found).absolute())  # it is run elsewhere; where a link leads says nothing of its environment


def _torches(text: str | None, package: Shelved) -> list[TorchVersion]:
    served = sorted({cell.torch for cell in package.record.cells if cell.torch is not None})
    if text is None and not package.record.front.kind.compiled:
        raise InputError(f"{package.path.name} names no torch: say beside which to import it", hint="torch=2.11")
    if text is None:
        return served
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
            hint="interpreter=python3, if that has pytest, and the framework that the recipe binds to",
        )
    interpreter = find_interpreter(words["interpreter"], call.workspace.environ)
    gpu = run_smoke(package.path, recipe=recipe, interpreter=interpreter, workspace=call.workspace)
    call.wheelhouse().join_gpu(gpu, package.record.wheel.sha256)
    call.answer(f"{package.path.name}: smoke tests passed on {gpu.get('gpu')}; the record has the result")


def record(call: Call) -> None:
    """Join the result file of a smoke run or of a rebuild, made elsewhere, to the record of the wheel it is of."""
    if len(call.words) != 1 or "=" in call.words[0]:
        raise InputError("record takes one file, written by the smoke tests", hint="nox -s record -- gpu.json")
    result, sha256 = _read_result(Path(call.words[0]))
    if REPRODUCTION in result:
        entry = read_reproduction(result[REPRODUCTION], call.words[0])
        joined = call.wheelhouse().join_reproduction(sha256, entry)
    else:
        joined = call.wheelhouse().join_gpu(result, sha256)
    call.answer(f"{joined.wheel.file}: the record has the result")


def _read_result(path: Path) -> tuple[Mapping[str, Any], str]:
    try:
        result = json.loads(path.read_bytes())
        return result, str(result["sha256"])
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a result of the smoke tests: it has no sha256", hint="pytest ... --gpu-json gpu.json"
        ) from error
