"""What decides a build before anything is compiled: its inputs, units, keys and settings, and how far it is.

`prepare` fetches and identifies everything that decides a package's bytes; `status` says what would be, and fetches
nothing. Turning a prepared build into a package is `pipeline`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hopperforge.config.project import Project
from hopperforge.errors import InputError, ToolError
from hopperforge.merging import merge_units
from hopperforge.model.cell import Build
from hopperforge.model.front import FrontKind
from hopperforge.model.keys import content_key
from hopperforge.model.machine import Machine, Need, Sizing
from hopperforge.model.matrix import JaxFact
from hopperforge.model.pack import Unit, pack_key
from hopperforge.model.recipe import MergeRule, Recipe
from hopperforge.model.request import Kernels, Merge, Request
from hopperforge.model.toolkit import ToolkitFact
from hopperforge.model.upstream import PatchedSource
from hopperforge.model.versions import ToolkitVersion
from hopperforge.plan_report import NO_TOOLKIT, PackStatus, toolkit_text
from hopperforge.planning import FETCHED
from hopperforge.provenance.sbom import make_sbom
from hopperforge.run.workspace import Workspace
from hopperforge.sizing import size, tightest
from hopperforge.stages.builder import Containers, found_image_builder, host_builder, image_builder
from hopperforge.stages.front_inputs import FrontInputs
from hopperforge.stages.front_python import PythonInputs
from hopperforge.stages.fronts import build_key
from hopperforge.stages.kernels import cached_units, expected_seconds, unit_keys
from hopperforge.stages.licences import collect_licences, licences_at_hand
from hopperforge.stages.record import contents_of
from hopperforge.stages.source import find_source
from hopperforge.stages.sources import kernel_source, kernel_units
from hopperforge.stages.toolkit import obtain_toolkit
from hopperforge.store.costs import LATER_SHARE, CostTable, load_costs
from hopperforge.store.wheelhouse import Wheelhouse

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

    def _source(self, recipe: Recipe) -> PatchedSource:
        """Give the source of a recipe's kernels, once for all builds of the job."""
        pin = self.project.pin_of(recipe)
        if pin.name not in self.patched:
            self.patched[pin.name] = kernel_source(recipe, pin, self.workspace)
        return self.patched[pin.name]

    def fetch_inputs(self, build: Build) -> FrontInputs:
        """Fetch and identify what decides a build's bytes: source, patches, toolkit, host compiler, torch."""
        report = self.workspace.reporter
        matrix = self.project.matrix
        fact = self._toolkit_fact(build)
        patched = self._source(build.recipe)
        report.stage("toolkit", f"CUDA {build.cuda}")
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
            torch_fact=None if build.torch is None else matrix.torches[build.torch],
            jax_fact=self._jax(build),
            licences=collect_licences(patched, toolkit, fact, self.workspace),
            engine=builder.engine,
            image=builder.image,
            archivers=builder.archivers(self.workspace) if build.recipe.front.archive else {},
        )

    def read_python(self, build: Build) -> PythonInputs:
        """Read what decides the bytes of a package of Python alone; nothing is fetched."""
        return PythonInputs.read(build, self.project.pin_of(build.recipe), self.workspace)

    def _toolkit_fact(self, build: Build) -> ToolkitFact:
        if build.cuda is None:
            raise InputError(f"recipe {build.recipe.name} is of Python alone: no toolkit compiles it")
        return self.project.matrix.toolkits[build.cuda]

    def _jax(self, build: Build) -> JaxFact | None:
        """Give the headers that a jax front takes; InputError where the matrix pins none."""
        if build.recipe.front.kind is not FrontKind.JAX:
            return None
        if self.project.matrix.jax is None:
            raise InputError("matrix.yaml pins no jaxlib, whose headers a jax front takes", hint="add `jax:` to it")
        return self.project.matrix.jax

    def _image_at_hand(self, build: Build) -> bool:
        """Whether a build's image is there; on the host none is needed."""
        if self.containers is None:
            return True
        fact = self._toolkit_fact(build)
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
            key=package_key(inputs, kernels_key),
            cached=len(units) - len(missing),
            sizing=sizing,
            expected_seconds=expected_seconds(missing, toolkit=inputs.toolkit, sizing=sizing, workspace=self.workspace),
        )

    def _units(self, inputs: FrontInputs) -> tuple[Unit, ...]:
        """List a build's units, merged as its recipe says; upstream's own build compiles each source by itself."""
        units = kernel_units(inputs.source, inputs.build, inputs.toolkit_fact, self.project.matrix, self.workspace)
        return merge_units(units, self._merge_rules(inputs.build))

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
            needs=needs_of(units, costs, inputs.toolkit.version, inputs.build.kernels),
        )

    def _size_unseen(self, build: Build) -> Sizing:
        """Choose settings before the units are known, as if they were of the largest kind measured."""
        merged = bool(self._merge_rules(build))
        needs = [Need(peak=_LARGE_MERGED_UNIT, later=round(LATER_SHARE * _LARGE_MERGED_UNIT))]
        return size(
            self.machine,
            jobs=self.request.jobs,
            memory=self.request.memory,
            gencodes=1,
            unit_peak=_LARGE_MERGED_UNIT if merged else _LARGE_UNIT,
            units=None,
            merged=merged,
            needs=needs * tightest(self.machine.cores).value if merged else None,
        )

    def status(self, build: Build, toolkits_at_hand: Mapping[ToolkitVersion, str]) -> PackStatus:
        """Say how far a build is without fetching anything; `toolkits_at_hand` as in planning's Situation."""
        if build.cuda is None:
            return self._python_status(build)
        pin, where = self.project.pin_of(build.recipe), toolkits_at_hand[build.cuda]
        toolkit = toolkit_text(self.project.matrix.toolkits[build.cuda], where)
        unseen = PackStatus(
            toolkit=toolkit, units=None, cached=0, sizing=self._size_unseen(build), expected_seconds=None, wheel=None
        )
        sourced = not pin.origins or pin.name in self.patched or find_source(pin, self.workspace) is not None
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

    def _python_status(self, build: Build) -> PackStatus:
        """Say whether a package of Python alone is finished; there is nothing to compile."""
        finished = self.wheelhouse.find(self.read_python(build).key)
        return PackStatus(
            toolkit=NO_TOOLKIT,
            units=0,
            cached=0,
            sizing=Sizing(max_jobs=1, nvcc_threads=1, memory=0, reasons=()),
            expected_seconds=0.0,
            wheel=str(finished.path) if finished else None,
        )

    @property
    def wheelhouse(self) -> Wheelhouse:
        """The wheelhouse that packages of this job go to."""
        return Wheelhouse(self.workspace.wheelhouse, self.workspace.reporter)


def package_key(inputs: FrontInputs, kernels_key: str) -> str:
    """Key a package by everything that decides its bytes, the recipe's files as they are now."""
    return build_key(inputs, kernels_key, make_sbom(contents_of(inputs)))


def require_unchanged(prepared: Prepared) -> None:
    """Refuse what was made of other files of the recipe than its key says; InputError."""
    if package_key(prepared.inputs, prepared.kernels_key) != prepared.key:
        raise changed(prepared.inputs.build)


def changed(build: Build) -> InputError:
    """Say that a package is of other files than its key."""
    return InputError(
        f"files of recipe {build.recipe.name} changed while it was built, so nothing was put in",
        hint="run the same command again: what was compiled is kept",
    )


def needs_of(units: Sequence[Unit], costs: CostTable, toolkit: ToolkitVersion, kernels: Kernels) -> list[Need] | None:
    """Say what units need where our executors start them; upstream's ninja starts MAX_JOBS whatever those need."""
    match kernels:
        case Kernels.PACK:
            return [costs.need(unit, toolkit) for unit in units]
        case Kernels.INLINE:
            return None


def _kernels_key(inputs: FrontInputs, keys: Mapping[str, str]) -> str:
    match inputs.build.kernels:
        case Kernels.PACK:
            return pack_key(keys)
        case Kernels.INLINE:
            return content_key("inline", {"kernel_tree": inputs.source.kernel_tree})
