"""The kernels stage: units to objects to a kernel pack.

A unit is compiled once per key, whoever asks, and its object goes straight into the object store, so whatever ends a
run keeps what was finished. Which units there are is said by the patched source; where they run, by an executor.
"""

import contextlib
import importlib.util
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from hopperforge.errors import HopperforgeError, StorageError, ToolError
from hopperforge.executors.base import Executor, Outcome, Task
from hopperforge.executors.local import LocalExecutor
from hopperforge.executors.schedule import line_up, makespan
from hopperforge.model.machine import Sizing
from hopperforge.model.pack import KernelPack, Unit, pack_key, unit_key
from hopperforge.model.request import Cluster
from hopperforge.model.toolkit import HostCompiler, Toolkit
from hopperforge.model.upstream import PatchedSource
from hopperforge.report import Progress
from hopperforge.run.engine import HOST, ON_HOST, Engine
from hopperforge.run.files import Lock
from hopperforge.run.machine import MemoryMeter
from hopperforge.run.workspace import Workspace
from hopperforge.stages.remote_units import Kit
from hopperforge.stages.unit_job import OBJECT, SOURCE, Bench, CompiledUnit, CompileUnit, UnitJob, owned
from hopperforge.store.costs import CostTable, calm_of, learn, load_costs
from hopperforge.store.packs import find_pack, require_distinct_names, store_pack
from hopperforge.store.shared import SharedObjects, held
from hopperforge.store.trimming import PACKS

_INSTALL_DASK: Final = "pip install 'hopperforge[dask]'"

# Beside its largest process a compile holds nvcc, a shell and pages of files it writes: a container's limit counts all.
_LEAST_ROOM: Final = 2 * 2**30


def unit_keys(
    units: Sequence[Unit],
    *,
    source: PatchedSource,
    toolkit: Toolkit,
    compiler: HostCompiler,
    ground: str = ON_HOST.ground,
) -> Mapping[str, str]:
    """The key of every unit, by unit path; `ground` is the engine's.

    The key's arguments are what the compile really gets: our own words, the wrapper's text and the epoch included.
    Left out is what moves no byte: where compilers stand (their fingerprints are in) and nvcc's threads.
    """
    return {
        unit.path: unit_key(
            replace(unit, arguments=(*_words(unit), wrapper_text(unit), str(source.pin.epoch))),
            kernel_tree=source.kernel_tree,
            toolkit_key=toolkit.key,
            compiler_key=compiler.key,
            image=ground,
        )
        for unit in units
    }


def cached_units(keys: Mapping[str, str], workspace: Workspace) -> Mapping[str, bool]:
    """Whether each unit's object is at hand, by unit path, without reading objects: for plans.

    `keys` are those of `unit_keys`.
    """
    at_hand = held(keys.values(), workspace)
    return {path: key in at_hand for path, key in keys.items()}


def expected_seconds(units: Sequence[Unit], *, toolkit: Toolkit, sizing: Sizing, workspace: Workspace) -> float:
    """How long compiling `units` on this machine is expected to take, in seconds of wall time."""
    costs = load_costs(workspace.store, workspace.reporter)
    queue = line_up([_task(unit, costs, toolkit, sizing) for unit in units], sizing.memory)
    return makespan(queue, (), jobs=sizing.max_jobs, memory=sizing.memory, now=0.0)


def compile_pack(
    units: Sequence[Unit],
    *,
    source: PatchedSource,
    toolkit: Toolkit,
    compiler: HostCompiler,
    sizing: Sizing,
    workspace: Workspace,
    engine: Engine = ON_HOST,
    cluster: Cluster | None = None,
    in_use: Callable[[], int] | None = None,
) -> KernelPack:
    """Compile what is missing of `units` in `engine`, or on the hosts of `cluster`, and return the pack of all of them.

    `toolkit` and `compiler` are where the engine's commands find them. `in_use` says how many bytes compiles here have
    taken, in place of how much less the machine has free: for who has a share of a machine, and others beside him.

    Raises CompileError for the first unit that fails, StorageError if the cache cannot be written, ToolError if nvcc
    cannot be started or the cluster cannot be used. Objects finished until then stay in the store.
    """
    require_distinct_names([unit.path for unit in units])
    keys = unit_keys(units, source=source, toolkit=toolkit, compiler=compiler, ground=engine.ground)
    packs = workspace.store / PACKS
    pack = find_pack(packs, pack_key(keys), workspace.reporter)
    if pack is not None:
        return pack
    store = SharedObjects(workspace)
    found = store.find_all(keys.values())
    missing = [unit for unit in units if keys[unit.path] not in found]
    bench = _Bench(
        keys=keys,
        source=source,
        toolkit=toolkit,
        compiler=compiler,
        sizing=sizing,
        workspace=workspace,
        store=store,
        engine=engine,
        cluster=cluster,
        in_use=in_use,
    )
    outcome = bench.compile_all(missing, cached=len(units) - len(missing))
    if outcome.failures:
        raise _with_what_was_kept(outcome, total=len(units), cached=len(units) - len(missing))
    entries = [
        replace(_at_hand(unit.path, store.find(keys[unit.path])), path=unit.path, merged=unit.merged) for unit in units
    ]
    compiled = sum(outcome.finished.values())
    return store_pack(packs, entries, lambda entry: _at_hand(entry.path, store.read(entry.key)), compiled=compiled)


_T = TypeVar("_T")


def _at_hand(path: str, found: _T | None) -> _T:
    if found is None:
        raise StorageError(
            f"the object of {path} was damaged or removed while its kernel pack was put together",
            hint="run the same command again: what is missing is compiled again",
        )
    return found


def _with_what_was_kept(outcome: Outcome[bool], *, total: int, cached: int) -> HopperforgeError:
    """The first failure, with what else failed and how much of the work a rerun finds done."""
    (_, first), *others = outcome.failures.items()
    detail = [*first.detail, *(f"also: {error.sentence}" for _, error in others)]
    detail.append(
        f"kept: {cached + len(outcome.finished)} of {total} units are in the cache; the next run goes on there"
    )
    return type(first)(first.sentence, detail=detail, hint=first.hint)


def _task(unit: Unit, costs: CostTable, toolkit: Toolkit, sizing: Sizing, engine: Engine = ON_HOST) -> Task:
    """The unit as the executor sees it; a learned peak is of one process, and nvcc's threads run one a target.

    In a container it may take half as much again, and 2 GiB more at least: a unit that runs wild is killed by itself,
    before it takes the others with it. On the host nothing can hold it to that.
    """
    cost = costs.expect(unit, toolkit.version)
    peak = cost.peak_rss * max(1, min(sizing.nvcc_threads, unit.gencodes))
    room = peak + max(peak // 2, _LEAST_ROOM)
    held = engine.name != HOST and room < sizing.memory
    cost = replace(cost, peak_rss=peak)
    return Task(name=unit.name, cost=cost, room=room if held else None, calm=calm_of(unit, cost))


def wrapper_text(unit: Unit) -> str:
    """The text of the `unit.cu` that is compiled in place of the unit's sources, and includes each.

    The order of includes is the unit's, and so part of its key; the constant, the path cudafe++ is told (see `_words`)
    and gcc's seed come from its name, which no other unit of the pack has. So a merged unit is as reproducible as one
    of a single source, and their internal symbols differ.

    cudafe++ names a translation unit's internal symbols after an external entity of it that is no template, and takes
    its process id where there is none, as in the template-only units of FA3. The constant gives it one, so the object
    is the same whatever the process; for the folder see `_words`.
    """
    marker = "hopperforge_unit_" + re.sub(r"\W", "_", unit.name)
    lines = (
        "// made by hopperforge",
        f'extern "C" __attribute__((visibility("hidden"))) const int {marker} = 1;',
        *(f'#include "{source}"' for source in unit.sources),
    )
    return "".join(f"{line}\n" for line in lines)


def _words(unit: Unit) -> tuple[str, ...]:
    """Words of nvcc after the host compiler's: those that change bytes.

    cudafe++ names internal symbols after a CRC of the source's absolute path too, which nvcc hands it. Told again, and
    the last word counts, it takes a path that is the same wherever the cache lies. -objtemp does as much for the names
    of nvcc's intermediate files, -frandom-seed for gcc.
    """
    path = f"--orig_src_path_name=/hopperforge/{unit.path}"
    seed = f"-frandom-seed={unit.name}"
    reproducible = ("-objtemp", "-Xcudafe", path, "-Xcompiler", seed)
    return (*unit.arguments, *reproducible, "-c", SOURCE, "-o", OBJECT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """What every compile of one pack shares."""

    keys: Mapping[str, str]
    source: PatchedSource
    toolkit: Toolkit
    compiler: HostCompiler
    sizing: Sizing
    workspace: Workspace
    store: SharedObjects
    engine: Engine
    cluster: Cluster | None
    in_use: Callable[[], int] | None

    def compile_all(self, units: Sequence[Unit], *, cached: int) -> Outcome[bool]:
        """Compile units side by side; True for those compiled here, False for those another run finished first."""
        reporter = self.workspace.reporter
        costs = load_costs(self.workspace.store, reporter)
        by_name = {unit.name: unit for unit in units}

        def on_progress(progress: Progress) -> None:
            reporter.progress(replace(progress, done=progress.done + cached, total=progress.total + cached))

        tasks = [_task(unit, costs, self.toolkit, self.sizing, self.engine) for unit in units]
        with self._place(tasks) as (executor, compile_unit):
            return executor.run(
                tasks, lambda task, stop: self._make(by_name[task.name], task, stop, compile_unit), on_progress
            )

    def _make(self, unit: Unit, task: Task, stop: threading.Event, compile_unit: CompileUnit) -> bool:
        key = self.keys[unit.path]
        reporter = self.workspace.reporter

        def on_wait() -> None:
            reporter.note(f"{unit.name} is being compiled by another run; waiting for it")

        with owned(self.workspace.work / f"{key}.lock", stop, on_wait) as lock:
            if self.store.find(key) is not None:
                return False
            made = compile_unit(self._job(unit, task), task, lock, stop)
            self.store.put(key, made.data, path=unit.path, cost=made.cost)
        learn(self.workspace.store, unit=unit, toolkit=self.toolkit.version, cost=made.cost, reporter=reporter)
        return True

    def _job(self, unit: Unit, task: Task) -> UnitJob:
        return UnitJob(
            name=unit.name,
            path=unit.path,
            key=self.keys[unit.path],
            text=wrapper_text(unit),
            words=_words(unit),
            epoch=self.source.pin.epoch,
            expected_rss=task.cost.peak_rss,
            room=task.room,
            merged=bool(unit.merged),
        )

    @contextlib.contextmanager
    def _place(self, tasks: Sequence[Task]) -> Iterator[tuple[Executor, CompileUnit]]:
        """Say who runs the compiles, and how each is done; a cluster is not bothered with nothing."""
        if self.cluster is not None and tasks:
            with _cluster_place(self.cluster, self._kit(), self.sizing, self.workspace) as place:
                yield place
            return
        reporter = self.workspace.reporter
        in_use = self.in_use or MemoryMeter.start()
        local = LocalExecutor(jobs=self.sizing.max_jobs, memory=self.sizing.memory, reporter=reporter, in_use=in_use)
        yield local, self._compile_here

    def _kit(self) -> Kit:
        return Kit(
            source=self.source.root,
            kernel_tree=self.source.kernel_tree,
            toolkit=self.toolkit,
            compiler=self.compiler,
            threads=self.sizing.nvcc_threads,
        )

    def _compile_here(self, job: UnitJob, _task: Task, lock: Lock, stop: threading.Event) -> CompiledUnit:
        bench = Bench(
            source=self.source.root,
            nvcc=self.toolkit.nvcc,
            compiler=self.compiler.path,
            threads=self.sizing.nvcc_threads,
            memory=self.sizing.memory,
            remedy="repeat the command with jobs=1, or with a smaller memory=",
            workspace=self.workspace,
            engine=self.engine,
        )
        return bench.compile(job, lock, stop)


def _cluster_place(
    cluster: Cluster, kit: Kit, sizing: Sizing, workspace: Workspace
) -> contextlib.AbstractContextManager[tuple[Executor, CompileUnit]]:
    """Reach a cluster; ToolError if what that takes is not installed."""
    if importlib.util.find_spec("distributed") is None:
        raise ToolError("executor=dask needs dask.distributed, which is not installed", hint=_INSTALL_DASK)
    from hopperforge.stages.cluster import cluster_place  # noqa: PLC0415 - most builds go without

    return cluster_place(cluster, kit, sizing, workspace)
