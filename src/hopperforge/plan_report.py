"""A plan as people and programs read it: lines of text, and a JSON document with stable names.

Pure functions from values to values; printing is `report`'s, and nothing is decided here.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hopperforge.model.cell import Accepted, Build, Cell, Plan, Rejected
from hopperforge.model.front import Front, FrontKind
from hopperforge.model.keys import JsonValue
from hopperforge.model.machine import Limit, Machine, Sizing
from hopperforge.model.request import DASK
from hopperforge.model.toolkit import ToolkitFact, ToolkitOrigin
from hopperforge.model.versions import CudaVersion, PythonVersion, ToolkitVersion, TorchVersion
from hopperforge.planning import FETCHED
from hopperforge.sizing import gib

# Of a reason's cells; `--json` has them all.
_CELLS_SHOWN: Final = 4
_CLUSTER_LINE: Final = "executor dask: units go to workers, whose number nobody knows yet; times are this machine's own"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackStatus:
    """How far a build's kernel pack is, and what is left.

    `toolkit` says in words which toolkit compiles and where it comes from. `units` is None until source and toolkit
    are fetched, `expected_seconds` where a unit was never measured; `wheel` is the path of the finished
    wheel where there is one; `merged` has the sources of each merged unit by its path.
    """

    toolkit: str
    units: int | None
    cached: int
    sizing: Sizing
    expected_seconds: float | None
    wheel: str | None
    merged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def to_compile(self) -> int | None:
        """Units that are not in the object store; None if the number of units is unknown."""
        return None if self.units is None else self.units - self.cached


NO_TOOLKIT: Final = "none: nothing is compiled"


def toolkit_text(fact: ToolkitFact, where: str) -> str:
    """Say which toolkit compiles and where it comes from; `where` as in `Situation.toolkits_at_hand`."""
    named = f"CUDA {fact.version}, nvcc {fact.release}"
    if where not in FETCHED:
        return f"{named}: {where}"
    return f"{named}: not on this machine, to be fetched: {'; '.join(_to_fetch(fact, where))}"


def _to_fetch(fact: ToolkitFact, where: str) -> Iterator[str]:
    if where == ToolkitOrigin.REDIST and fact.redist is not None:
        yield f"{', '.join(fact.redist.components)} of {fact.redist.manifest}"
    else:
        yield f"{len(fact.wheels)} wheels from the package index"
        if fact.debian:
            yield f"{', '.join(package.filename for package in fact.debian)} from a Debian mirror"
    if fact.ptxas is not None:
        yield f"ptxas from {fact.ptxas.filename}"


def plan_lines(plan: Plan, machine: Machine, statuses: Mapping[str, PackStatus]) -> tuple[str, ...]:
    """Render a plan as lines of text; `statuses` has a PackStatus for each build under `str(build)`."""
    blocks = (
        _machine_lines(machine),
        _default_lines(plan),
        _store_lines(plan),
        *(_build_lines(build, statuses[str(build)]) for build in plan.builds),
        _rejected_lines(plan.rejected),
        [_total_line(plan, statuses)],
        [_CLUSTER_LINE] if plan.executor == DASK else [],
    )
    lines: list[str] = []
    for block in blocks:
        if block:
            lines += ["", *block] if lines else block
    return tuple(lines)


def plan_document(plan: Plan, machine: Machine, statuses: Mapping[str, PackStatus]) -> dict[str, JsonValue]:
    """Render a plan for `--json`; `statuses` as in `plan_lines`. Sizes are bytes, times seconds, versions strings.

    - machine: architecture; cores, memory and free, each a list of {value, source}; process_memory, one of
      these or null; notices, a list of sentences
    - engine, executor, toolkit: the words of that name
    - store: where machines share objects, or null
    - defaults: by word not given, {value, reason}
    - builds: a list of {name, version, recipe, profile, cuda, toolkit, torch, abi, platform, kernels, cells, pack,
      sizing, expected_seconds, wheel}; `toolkit` says in words where it comes from; `torch` is what the front binds
      against; it, and torch, python and runtime of a cell, are null where it binds to none, and `cuda` where nothing is
      compiled; `cells` a list of {recipe,
      profile, cuda, torch, python, platform, runtime}; `pack` {units, cached, to_compile, merged}, null where unknown,
      `merged` a list of {path, sources} of the units of several sources; `sizing` {max_jobs, nvcc_threads, memory,
      reasons}; `wheel` the path of the finished wheel or null
    - rejected: a list of {cell, reason}
    """
    return {
        "machine": {
            "architecture": machine.architecture,
            "cores": _limit_list(machine.cores),
            "memory": _limit_list(machine.memory),
            "free": _limit_list(machine.free),
            "process_memory": _limit_value(machine.process_memory) if machine.process_memory else None,
            "notices": list(machine.notices),
        },
        "engine": plan.engine,
        "executor": plan.executor,
        "toolkit": plan.toolkit.value,
        "store": None if plan.store is None else str(plan.store),
        "defaults": {
            word: {"value": default.value, "reason": default.reason} for word, default in plan.defaults.items()
        },
        "builds": [_build_document(build, statuses[str(build)]) for build in plan.builds],
        "rejected": [{"cell": _cell_document(found.cell), "reason": found.reason} for found in plan.rejected],
    }


# Text.


def _machine_lines(machine: Machine) -> list[str]:
    lines = [
        f"machine {machine.architecture}",
        f"  cores     {_listed(machine.cores, str)}",
        f"  memory    {_listed(machine.memory, gib)}",
    ]
    if machine.free:
        lines.append(f"  free      {_listed(machine.free, gib)}")
    if machine.process_memory is not None:
        lines.append(f"  process   {_listed([machine.process_memory], gib)}")
    return [*lines, *(f"  note      {notice}" for notice in machine.notices)]


def _listed(limits: Sequence[Limit], show: Callable[[int], str]) -> str:
    return ", ".join(f"{show(limit.value)} ({limit.source})" for limit in limits)


def _default_lines(plan: Plan) -> list[str]:
    if not plan.defaults:
        return []
    words = {f"{word}={default.value}": default.reason for word, default in plan.defaults.items()}
    width = max(len(word) for word in words)
    return ["words not given", *(f"  {word:<{width}}  {reason}" for word, reason in words.items())]


def _store_lines(plan: Plan) -> list[str]:
    return [] if plan.store is None else [f"objects are shared in {plan.store} (HOPPERFORGE_STORE)"]


def _build_lines(build: Build, status: PackStatus) -> list[str]:
    lines = [
        f"build {build}: {build.recipe.package.distribution} {build.version}, {build.platform}",
        f"  front     binds against {front_text(build)}, kernels={build.kernels}",
        f"  toolkit   {status.toolkit}",
        *(f"  serves    {text}" for text in pair_texts(build)),
        f"  pack      {_pack_text(status)}",
        *_merged_lines(status),
        *(f"  sizing    {reason}" for reason in status.sizing.reasons),
    ]
    if status.wheel is not None:
        return [*lines, f"  wheel     finished: {status.wheel}"]
    return [*lines, f"  expected  {expected_text(status.expected_seconds)}"]


def front_text(build: Build) -> str:
    """Say in words what the kernels are bound against."""
    match build.recipe.front.kind:
        case FrontKind.TORCH_UPSTREAM | FrontKind.TORCH:
            return f"torch {build.torch} ({build.abi} ABI)"
        case FrontKind.CPP:
            return "no framework: C++ and C"
        case FrontKind.JAX:
            return "no framework but XLA's FFI"
        case FrontKind.PYTHON:
            return "no framework: it is Python alone, and what it requires is installed beside it"


def pair_texts(build: Build) -> list[str]:
    """Say for each torch what it was paired with, and the Pythons of its cells."""
    if build.cuda is None:
        return ["every machine: nothing is compiled"]
    if build.torch is None:
        return [f"{_served_text(build.recipe.front)}: CUDA {build.cuda} compiles, and its runtime is inside"]
    served: dict[tuple[str, str], list[str]] = {}
    for found in build.cells:
        served.setdefault((str(found.cell.torch), str(found.runtime)), []).append(str(found.cell.python))
    compiles = f"CUDA {build.cuda} compiles"
    return [
        f"torch {torch}, python {', '.join(pythons)}: {compiles}, torch runs on CUDA {runtime}"
        for (torch, runtime), pythons in served.items()
    ]


def _served_text(front: Front) -> str:
    """Say whom a package serves that binds to no torch: by what its metadata requires."""
    if front.requires:
        return f"{', '.join(front.requires)} in Python {front.requires_python}"
    return "every torch, jax and Python, or none"


def _pack_text(status: PackStatus) -> str:
    if status.units == 0:
        return "none: there are no kernels"
    if status.units is None:
        return "number of units known once source, toolkit and image are here"
    return f"{status.units} units: {status.cached} cached, {status.to_compile} to compile"


def _merged_lines(status: PackStatus) -> list[str]:
    if not status.merged:
        return []
    sizes = Counter(len(sources) for sources in status.merged.values())
    each = ", ".join(f"{count} of {size} sources" for size, count in sorted(sizes.items()))
    return [f"  merged    {each}, compiled together; merge=off compiles each by itself, nox -s patch lists them"]


def expected_text(seconds: float | None) -> str:
    """Print an expected time the way it can be trusted: in whole minutes, rounded up."""
    if seconds is None:
        return "unknown until its units were measured once"
    if seconds <= 0:
        return "nothing to compile"
    minutes = math.ceil(seconds / 60)
    return f"about {minutes} {'minute' if minutes == 1 else 'minutes'}"


def _rejected_lines(rejected: Sequence[Rejected]) -> list[str]:
    """Say each reason once, with the first of the cells it is for."""
    if not rejected:
        return []
    by_reason: dict[str, list[Cell]] = {}
    for found in rejected:
        by_reason.setdefault(found.reason, []).append(found.cell)
    lines = ["cannot be built"]
    for reason, cells in by_reason.items():
        lines += [f"  {reason}", *(f"    {cell}" for cell in cells[:_CELLS_SHOWN])]
        if len(cells) > _CELLS_SHOWN:
            lines.append(f"    and {len(cells) - _CELLS_SHOWN} more cells")
    return lines


def _total_line(plan: Plan, statuses: Mapping[str, PackStatus]) -> str:
    cells = sum(len(build.cells) for build in plan.builds)
    finished = sum(statuses[str(build)].wheel is not None for build in plan.builds)
    builds = f"{len(plan.builds)} {'build' if len(plan.builds) == 1 else 'builds'}"
    return (
        f"{builds} for {cells} {'cell' if cells == 1 else 'cells'}, {finished} finished, {len(plan.rejected)} rejected"
    )


# JSON.


def _limit_list(limits: Iterable[Limit]) -> list[JsonValue]:
    return [_limit_value(limit) for limit in limits]


def _limit_value(limit: Limit) -> dict[str, JsonValue]:
    return {"value": limit.value, "source": limit.source}


def _build_document(build: Build, status: PackStatus) -> dict[str, JsonValue]:
    sizing = status.sizing
    return {
        "name": str(build),
        "version": build.version,
        "recipe": build.recipe.name,
        "profile": build.profile.name,
        "cuda": _optional(build.cuda),
        "toolkit": status.toolkit,
        "torch": _optional(build.torch),
        "abi": build.abi.value,
        "platform": build.platform,
        "kernels": build.kernels.value,
        "cells": [_served_document(found) for found in build.cells],
        "pack": {
            "units": status.units,
            "cached": status.cached,
            "to_compile": status.to_compile,
            "merged": [{"path": path, "sources": list(sources)} for path, sources in status.merged.items()],
        },
        "sizing": {
            "max_jobs": sizing.max_jobs,
            "nvcc_threads": sizing.nvcc_threads,
            "memory": sizing.memory,
            "reasons": list(sizing.reasons),
        },
        "expected_seconds": status.expected_seconds,
        "wheel": status.wheel,
    }


def _served_document(found: Accepted) -> dict[str, JsonValue]:
    return {**_cell_document(found.cell), "runtime": _optional(found.runtime)}


def _cell_document(cell: Cell) -> dict[str, JsonValue]:
    return {
        "recipe": cell.recipe,
        "profile": cell.profile,
        "cuda": _optional(cell.cuda),
        "torch": _optional(cell.torch),
        "python": _optional(cell.python),
        "platform": cell.platform,
    }


def _optional(version: CudaVersion | ToolkitVersion | TorchVersion | PythonVersion | None) -> str | None:
    return None if version is None else str(version)
