"""From a plan to packages: the stages in order, one result for each build.

`prepare` fetches and identifies everything that decides a package's bytes; `make_package` turns it into one. Errors
become results in `run_plan`, so that one failed build does not take the others with it.
"""

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from hopperforge.config.project import Project
from hopperforge.errors import HopperforgeError, ToolError
from hopperforge.merging import merge_units
from hopperforge.model.cell import Build, Plan
from hopperforge.model.keys import content_key
from hopperforge.model.machine import Machine, Sizing
from hopperforge.model.pack import KernelPack, Unit, pack_key
from hopperforge.model.recipe import MergeRule
from hopperforge.model.record import ServedCell
from hopperforge.model.request import Kernels, Merge, Request
from hopperforge.model.upstream import PatchedSource, UpstreamPin
from hopperforge.model.wheel import RepairedWheel
from hopperforge.plan_report import PackStatus, pair_texts, toolkit_text
from hopperforge.planning import FETCHED
from hopperforge.provenance.sbom import make_sbom
from hopperforge.run.engine import ContainerEngine
from hopperforge.run.files import make_folder, temporary_folder
from hopperforge.run.workspace import Workspace
from hopperforge.sizing import size
from hopperforge.stages.builder import Containers, found_image_builder, host_builder, image_builder
from hopperforge.stages.checkout import describe_checkout
from hopperforge.stages.front_image import bind_in_image
from hopperforge.stages.front_torch import FrontInputs, bind, build_key, torch_requirement
from hopperforge.stages.kernels import cached_units, compile_pack, expected_seconds, unit_keys
from hopperforge.stages.licences import collect_licences, licences_at_hand
from hopperforge.stages.patch import list_units, patch_source
from hopperforge.stages.record import contents_of, make_record
from hopperforge.stages.repair import repair
from hopperforge.stages.source import fetch_source, find_source
from hopperforge.stages.toolkit import obtain_toolkit
from hopperforge.stages.torch_kit import TorchKit, obtain_torch_kit
from hopperforge.stages.verify import verify
from hopperforge.store.costs import load_costs
from hopperforge.store.trimming import in_use
from hopperforge.store.wheelhouse import Shelved, Wheelhouse

_T = TypeVar("_T")

# The largest peaks of units of the profile fa3-fwd, merged and not, nvcc 13.0 on 16 cores; see store/costs.py for each.
_LARGE_UNIT: Final = 7_000_000_000
_LARGE_MERGED_UNIT: Final = 8_200_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A build with everything that decides its bytes; `key` is its build key, `kernels_key` that of its pack.

    `objects` are the keys of its units.
    """

    inputs: FrontInputs
    units: tuple[Unit, ...]
    kernels_key: str
    objects: frozenset[str]
    key: str
    cached: int
    sizing: Sizing
    expected_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """How one build ended: a package, found finished or made now, or an error."""

    build: Build
    package: Shelved | None
    cached: bool
    compiled: int
    seconds: float
    error: HopperforgeError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request with the facts it is judged by and the machine it runs on.

    `now` gives UTC in text, for records; `containers` says how containers are used, None that the host is the engine;
    `patched` keeps the sources made ready, by pin.
    """

    project: Project
    request: Request
    machine: Machine
    workspace: Workspace
    now: Callable[[], str]
    containers: Containers | None = None
    patched: dict[str, PatchedSource] = field(default_factory=dict)

    def _patched_source(self, pin: UpstreamPin) -> PatchedSource:
        """Fetch, verify and patch a pin's source, once for all builds of the job."""
        if pin.name not in self.patched:
            self.workspace.reporter.stage("source", pin.name)
            source = fetch_source(pin, self.workspace)
            self.workspace.reporter.stage("patch", f"patches/{pin.name}")
            self.patched[pin.name] = patch_source(source, self.workspace)
        return self.patched[pin.name]

    def fetch_inputs(self, build: Build) -> FrontInputs:
        """Fetch and identify what decides a build's bytes: source, patches, toolkit, host compiler, torch."""
        report = self.workspace.reporter
        matrix = self.project.matrix
        patched = self._patched_source(self.project.pins[build.recipe.pin])
        report.stage("toolkit", f"CUDA {build.cuda}")
        fact = matrix.toolkits[build.cuda]
        toolkit = obtain_toolkit(fact, self.request.toolkit, self.workspace)
        report.stage("engine", "host" if self.containers is None else self.containers.client.program)
        builder = (
            host_builder(toolkit, fact, self.workspace)
            if self.containers is None
            else image_builder(toolkit, fact, self.containers, self.workspace)
        )
        where = "" if builder.image is None else f", image {builder.image.id[:16]} on {builder.image.base.name}"
        report.note(f"nvcc {toolkit.release} ({toolkit.origin}), g++ {builder.compiler.version}{where}")
        return FrontInputs(
            build=build,
            source=patched,
            toolkit=builder.toolkit,
            toolkit_fact=fact,
            compiler=builder.compiler,
            torch_fact=matrix.torches[build.torch],
            licences=collect_licences(patched, toolkit, fact, self.workspace),
            engine=builder.engine,
            image=builder.image,
        )

    def _image_at_hand(self, build: Build) -> bool:
        """Whether a build's image is there; on the host none is needed."""
        if self.containers is None:
            return True
        fact = self.project.matrix.toolkits[build.cuda]
        toolkit = obtain_toolkit(fact, self.request.toolkit, self.workspace)
        return found_image_builder(toolkit, fact, self.containers, self.workspace) is not None

    def prepare(self, build: Build) -> Prepared:
        """Give a build its units, its keys and its compile settings."""
        inputs = self.fetch_inputs(build)
        units = self._units(inputs)
        keys = unit_keys(
            units,
            source=inputs.source,
            toolkit=inputs.toolkit,
            compiler=inputs.compiler,
            ground=inputs.engine.ground,
        )
        kernels_key = _kernels_key(inputs, keys)
        at_hand = cached_units(keys, self.workspace)
        inline = build.kernels is Kernels.INLINE  # upstream's own build knows no store
        missing = [unit for unit in units if inline or not at_hand[unit.path]]
        sizing = self._size(missing or list(units), inputs)
        return Prepared(
            inputs=inputs,
            units=units,
            kernels_key=kernels_key,
            objects=frozenset(keys.values()),
            key=build_key(inputs, kernels_key, make_sbom(contents_of(inputs))),
            cached=len(units) - len(missing),
            sizing=sizing,
            expected_seconds=expected_seconds(missing, toolkit=inputs.toolkit, sizing=sizing, workspace=self.workspace),
        )

    def _units(self, inputs: FrontInputs) -> tuple[Unit, ...]:
        """List a build's units, merged as its recipe says; upstream's own build compiles each source by itself."""
        build = inputs.build
        torch = inputs.torch_fact.release
        units = list_units(inputs.source, build.profile, inputs.toolkit_fact, torch, self.workspace)
        return merge_units(units, self._merge_rules(build))

    def _merge_rules(self, build: Build) -> tuple[MergeRule, ...]:
        alone = build.kernels is Kernels.INLINE or self.request.merge is Merge.OFF
        return () if alone else build.recipe.merge

    def _size(self, units: list[Unit], inputs: FrontInputs) -> Sizing:
        costs = load_costs(self.workspace.store, self.workspace.reporter)
        largest = max(units, key=lambda unit: costs.expect(unit, inputs.toolkit.version).peak_rss)
        return size(
            self.machine,
            jobs=self.request.jobs,
            memory=self.request.memory,
            gencodes=max(unit.gencodes for unit in units),
            unit_peak=costs.expect(largest, inputs.toolkit.version).peak_rss,
            units=len(units),
            merged=bool(largest.merged),
        )

    def _size_unseen(self, build: Build) -> Sizing:
        """Choose settings before the units are known, as if they were of the largest kind measured."""
        return size(
            self.machine,
            jobs=self.request.jobs,
            memory=self.request.memory,
            gencodes=1,
            unit_peak=_LARGE_MERGED_UNIT if self._merge_rules(build) else _LARGE_UNIT,
            units=None,
            merged=bool(self._merge_rules(build)),
        )

    def status(self, build: Build, where: str) -> PackStatus:
        """Say how far a build is without fetching anything; `where` is where its toolkit would come from."""
        pin = self.project.pins[build.recipe.pin]
        toolkit = toolkit_text(self.project.matrix.toolkits[build.cuda], where)
        unseen = PackStatus(
            toolkit=toolkit, units=None, cached=0, sizing=self._size_unseen(build), expected_seconds=None, wheel=None
        )
        sourced = pin.name in self.patched or find_source(pin, self.workspace) is not None
        sourced = sourced and licences_at_hand(pin, self.project.matrix.toolkits[build.cuda], self.workspace)
        if where in FETCHED or not sourced or not self._image_at_hand(build):
            return unseen
        try:
            prepared = self.prepare(build)
        except ToolError as error:
            self.workspace.reporter.warn(f"{build} cannot be built as things are: {error}")
            return unseen
        finished = self.wheelhouse.find(prepared.key)
        return PackStatus(
            toolkit=toolkit,
            units=len(prepared.units),
            cached=prepared.cached,
            merged={unit.path: unit.merged for unit in prepared.units if unit.merged},
            sizing=prepared.sizing,
            expected_seconds=prepared.expected_seconds,
            wheel=str(finished.path) if finished else None,
        )

    @property
    def wheelhouse(self) -> Wheelhouse:
        """The wheelhouse that packages of this job go to."""
        return Wheelhouse(self.workspace.wheelhouse, self.workspace.reporter)

    def run_plan(self, plan: Plan) -> tuple[BuildResult, ...]:
        """Make every package of a plan; a build that fails does not stop the others."""
        return tuple(self._run_build(build) for build in plan.builds)

    def _run_build(self, build: Build) -> BuildResult:
        started = time.monotonic()
        self.workspace.reporter.stage("build", str(build))
        for text in pair_texts(build):
            self.workspace.reporter.note(f"serves {text}")
        try:
            prepared = self.prepare(build)
            found = self.wheelhouse.find(prepared.key)
            package, compiled = (self._serve(found, build), 0) if found else self._make_untrimmed(prepared)
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

    def _serve(self, found: Shelved, build: Build) -> Shelved:
        """Let the record of a finished package name the cells it now serves as well."""
        cells = [ServedCell.of(accepted) for accepted in build.cells]
        if set(cells) <= set(found.record.cells):
            return found
        return replace(found, record=self.wheelhouse.join_cells(found.record.wheel.sha256, cells))

    def _make_untrimmed(self, prepared: Prepared) -> tuple[Shelved, int]:
        """Make a package while nobody trims what it is made of."""
        with in_use(self.workspace.store, {*prepared.objects, prepared.kernels_key}, self.workspace.reporter):
            return self.make_package(prepared)

    def make_package(self, prepared: Prepared) -> tuple[Shelved, int]:
        """Compile, bind, repair, verify and record; returns the package and how many units were compiled."""
        clock = _Clock()
        report = self.workspace.reporter
        inputs, build = prepared.inputs, prepared.inputs.build
        pack = clock.time("kernels", lambda: self._compile(prepared))
        report.stage("front", f"torch {build.torch} ({build.abi} ABI)")
        torch = clock.time("torch", lambda: obtain_torch_kit(inputs.torch_fact, self.workspace))
        with temporary_folder(make_folder(self.workspace.work), "package-") as folder:
            repaired = self._bind(prepared, pack, torch, folder, clock)
            report.stage("verify", repaired.path.name)
            verified = clock.time(
                "verify",
                lambda: verify(
                    repaired,
                    build=build,
                    driver=inputs.toolkit_fact.driver,
                    requires=[torch_requirement(build)],
                    workspace=self.workspace,
                    host=platform.node(),
                    folders={"toolkit": inputs.toolkit.root},
                    contents=contents_of(inputs),
                    floor=inputs.image.floor if inputs.image is not None else None,
                ),
            )
            record = make_record(
                inputs,
                prepared.key,
                pack=pack,
                verified=verified,
                engine=inputs.engine.name,
                made_by=describe_checkout(self.workspace),
                timings=clock.seconds,
                created=self.now(),
            )
            report.stage("record", f"{verified.path.name}.json")
            return self.wheelhouse.add(verified, record), pack.compiled if pack else len(prepared.units)

    def _bind(
        self, prepared: Prepared, pack: KernelPack | None, torch: TorchKit, folder: Path, clock: "_Clock"
    ) -> RepairedWheel:
        """Bind and repair: in one container by cibuildwheel, or step by step on the host."""
        inputs = prepared.inputs
        sbom = make_sbom(contents_of(inputs))
        out = make_folder(folder / "raw")
        if isinstance(inputs.engine, ContainerEngine) and pack is not None:
            engine = inputs.engine
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
                    workspace=self.workspace,
                ),
            )
        raw = clock.time(
            "front", lambda: bind(inputs, pack, torch, sizing=prepared.sizing, out=out, workspace=self.workspace)
        )
        self.workspace.reporter.stage("repair", raw.path.name)
        return clock.time(
            "repair",
            lambda: repair(
                raw,
                needed=inputs.build.needed,
                epoch=inputs.source.pin.epoch,
                sbom=sbom,
                workspace=self.workspace,
                work=make_folder(folder / "repaired"),
            ),
        )

    def _compile(self, prepared: Prepared) -> KernelPack | None:
        inputs = prepared.inputs
        if inputs.build.kernels is Kernels.INLINE:
            self.workspace.reporter.stage("kernels", f"{len(prepared.units)} units, by upstream's own build")
            return None
        sources = sum(len(unit.sources) for unit in prepared.units)
        of = f" of {sources} sources" if sources > len(prepared.units) else ""
        self.workspace.reporter.stage("kernels", f"{len(prepared.units)} units{of}, {prepared.cached} cached")
        cluster = self.request.cluster
        elsewhere = cluster is not None and cluster.scheduler is not None  # where this machine's size does not count
        for reason in () if elsewhere else prepared.sizing.reasons:
            self.workspace.reporter.note(reason)
        return compile_pack(
            prepared.units,
            source=inputs.source,
            toolkit=inputs.toolkit,
            compiler=inputs.compiler,
            sizing=replace(prepared.sizing, nvcc_threads=1) if elsewhere else prepared.sizing,
            workspace=self.workspace,
            engine=inputs.engine,
            cluster=cluster,
        )


def _kernels_key(inputs: FrontInputs, keys: Mapping[str, str]) -> str:
    match inputs.build.kernels:
        case Kernels.PACK:
            return pack_key(keys)
        case Kernels.INLINE:
            return content_key("inline", {"kernel_tree": inputs.source.kernel_tree})


class _Clock:
    """Wall seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, stage: str, work: Callable[[], _T]) -> _T:
        started = time.monotonic()
        result = work()
        self.seconds[stage] = round(time.monotonic() - started, 3)
        return result
