"""From a plan to packages: the stages in order, one result for each build.

Errors become results in `run_plan`, so that one failed build does not take the others with it. What decides a build
before its first compile is `preparing`'s.
"""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from hopperforge.errors import HopperforgeError
from hopperforge.model.cell import Build, Plan
from hopperforge.model.pack import KernelPack
from hopperforge.model.record import ServedCell
from hopperforge.model.request import Kernels
from hopperforge.model.wheel import RepairedWheel
from hopperforge.plan_report import front_text, pair_texts
from hopperforge.preparing import Job, Prepared, changed, require_unchanged
from hopperforge.provenance.sbom import make_sbom
from hopperforge.run.engine import HOST, ContainerEngine
from hopperforge.run.files import make_folder, temporary_folder
from hopperforge.stages.checkout import describe_checkout
from hopperforge.stages.front_image import bind_in_image
from hopperforge.stages.front_inputs import requirements
from hopperforge.stages.front_own import excluded
from hopperforge.stages.front_python import PythonInputs, make_python_wheel
from hopperforge.stages.fronts import Kit, bind, obtain_kit
from hopperforge.stages.kernels import compile_pack
from hopperforge.stages.record import contents_of, make_record
from hopperforge.stages.repair import repair
from hopperforge.stages.tarball import make_tarball
from hopperforge.stages.verify import verify, verify_python
from hopperforge.store.trimming import in_use
from hopperforge.store.wheelhouse import Shelved

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """How one build ended: a package, found finished or made now, or an error."""

    build: Build
    package: Shelved | None
    cached: bool
    compiled: int
    seconds: float
    error: HopperforgeError | None


def run_plan(job: Job, plan: Plan) -> tuple[BuildResult, ...]:
    """Make every package of a plan; a build that fails does not stop the others."""
    return tuple(_run_build(job, build) for build in plan.builds)


def _run_build(job: Job, build: Build) -> BuildResult:
    started = time.monotonic()
    job.workspace.reporter.stage("build", str(build))
    for text in pair_texts(build):
        job.workspace.reporter.note(f"serves {text}")
    try:
        found, make = _find_or_make(job, build)
        package, compiled = (_serve(job, found, build), 0) if found else make()
    except HopperforgeError as error:
        seconds = time.monotonic() - started
        return BuildResult(build=build, package=None, cached=False, compiled=0, seconds=seconds, error=error)
    return BuildResult(
        build=build,
        package=package,
        cached=found is not None,
        compiled=compiled,
        seconds=time.monotonic() - started,
        error=None,
    )


def _find_or_make(job: Job, build: Build) -> tuple[Shelved | None, Callable[[], tuple[Shelved, int]]]:
    """Give the finished package if there is one, and what makes it."""
    if not build.recipe.front.kind.compiled:
        inputs = job.read_python(build)
        return job.wheelhouse.find(inputs.key), lambda: (make_python_package(job, inputs), 0)
    prepared = job.prepare(build)
    return job.wheelhouse.find(prepared.key), lambda: _make_untrimmed(job, prepared)


def _serve(job: Job, found: Shelved, build: Build) -> Shelved:
    """Let the record of a finished package name the cells it now serves as well."""
    cells = [ServedCell.of(accepted) for accepted in build.cells]
    if set(cells) <= set(found.record.cells):
        return found
    return replace(found, record=job.wheelhouse.join_cells(found.record.wheel.sha256, cells))


def _make_untrimmed(job: Job, prepared: Prepared) -> tuple[Shelved, int]:
    """Make a package while nobody trims what it is made of."""
    with in_use(job.workspace.store, {*prepared.objects, prepared.kernels_key}, job.workspace.reporter):
        return make_package(job, prepared)


def make_package(job: Job, prepared: Prepared) -> tuple[Shelved, int]:
    """Compile, bind, repair, verify and record; returns the package and how many units were compiled."""
    clock = _Clock()
    report = job.workspace.reporter
    inputs, build = prepared.inputs, prepared.inputs.build
    pack = clock.time("kernels", lambda: _compile(job, prepared))
    report.stage("front", front_text(build))
    kit = clock.time("framework", lambda: obtain_kit(inputs, job.workspace))
    with temporary_folder(make_folder(job.workspace.work), "package-") as folder:
        repaired = _bind(job, prepared, pack, kit=kit, folder=folder, clock=clock)
        require_unchanged(prepared)
        tarball = clock.time("tarball", lambda: make_tarball(repaired, inputs, folder, job.workspace))
        report.stage("verify", repaired.path.name)
        verified = clock.time(
            "verify",
            lambda: verify(
                repaired,
                build=build,
                driver=inputs.toolkit_fact.driver,
                requires=requirements(build),
                workspace=job.workspace,
                host=platform.node(),
                folders={"toolkit": inputs.toolkit.root},
                contents=contents_of(inputs),
                floor=inputs.image.floor if inputs.image is not None else None,
                tarball=tarball,
            ),
        )
        record = make_record(
            build,
            contents_of(inputs),
            prepared.key,
            pack=pack,
            verified=verified,
            engine=inputs.engine.name,
            made_by=describe_checkout(job.workspace),
            timings=clock.seconds,
            created=job.now(),
        )
        report.stage("record", f"{verified.path.name}.json")
        return job.wheelhouse.add(verified, record), pack.compiled if pack else len(prepared.units)


def make_python_package(job: Job, inputs: PythonInputs) -> Shelved:
    """Write, verify and record a package of Python alone; the engine is this machine, for nothing is run in one."""
    clock, report, build = _Clock(), job.workspace.reporter, inputs.build
    report.stage("front", front_text(build))
    with temporary_folder(make_folder(job.workspace.work), "package-") as folder:
        wheel = clock.time("front", lambda: make_python_wheel(inputs, folder))
        if job.read_python(build).key != inputs.key:
            raise changed(build)
        report.stage("verify", wheel.path.name)
        verified = clock.time(
            "verify",
            lambda: verify_python(
                wheel, build=build, contents=inputs.contents, workspace=job.workspace, host=platform.node()
            ),
        )
        record = make_record(
            build,
            inputs.contents,
            inputs.key,
            pack=None,
            verified=verified,
            engine=HOST,
            made_by=describe_checkout(job.workspace),
            timings=clock.seconds,
            created=job.now(),
        )
        report.stage("record", f"{verified.path.name}.json")
        return job.wheelhouse.add(verified, record)


def _bind(
    job: Job, prepared: Prepared, pack: KernelPack | None, *, kit: Kit, folder: Path, clock: "_Clock"
) -> RepairedWheel:
    """Bind and repair: upstream's front in one container by cibuildwheel, all else step by step."""
    inputs = prepared.inputs
    sbom = make_sbom(contents_of(inputs))
    out = make_folder(folder / "raw")
    engine = inputs.engine
    if isinstance(engine, ContainerEngine) and kit.torch is not None and pack is not None and not _own(prepared):
        torch = kit.torch
        return clock.time(
            "front",
            lambda: bind_in_image(
                inputs,
                pack,
                torch,
                engine=engine,
                sizing=prepared.sizing,
                sbom=sbom,
                out=out,
                workspace=job.workspace,
            ),
        )
    raw = clock.time("front", lambda: bind(inputs, pack, kit, sizing=prepared.sizing, out=out, workspace=job.workspace))
    job.workspace.reporter.stage("repair", raw.path.name)
    return clock.time(
        "repair",
        lambda: repair(
            raw,
            needed=excluded(inputs.build),
            epoch=inputs.source.pin.epoch,
            sbom=sbom,
            workspace=job.workspace,
            work=make_folder(folder / "repaired"),
        ),
    )


def _own(prepared: Prepared) -> bool:
    return prepared.inputs.build.recipe.front.kind.own


def _compile(job: Job, prepared: Prepared) -> KernelPack | None:
    inputs = prepared.inputs
    if inputs.build.kernels is Kernels.INLINE:
        job.workspace.reporter.stage("kernels", f"{len(prepared.units)} units, by upstream's own build")
        return None
    sources = sum(len(unit.sources) for unit in prepared.units)
    of = f" of {sources} sources" if sources > len(prepared.units) else ""
    job.workspace.reporter.stage("kernels", f"{len(prepared.units)} units{of}, {prepared.cached} cached")
    cluster = job.request.cluster
    elsewhere = cluster is not None and cluster.scheduler is not None  # where this machine's size does not count
    for reason in () if elsewhere else prepared.sizing.reasons:
        job.workspace.reporter.note(reason)
    return compile_pack(
        prepared.units,
        source=inputs.source,
        toolkit=inputs.toolkit,
        compiler=inputs.compiler,
        sizing=replace(prepared.sizing, nvcc_threads=1) if elsewhere else prepared.sizing,
        workspace=job.workspace,
        engine=inputs.engine,
        cluster=cluster,
    )


class _Clock:
    """Wall seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, stage: str, work: Callable[[], _T]) -> _T:
        started = time.monotonic()
        result = work()
        self.seconds[stage] = round(time.monotonic() - started, 3)
        return result
