"""The kernels stage: units to objects to a kernel pack.

A unit is compiled once per key, whoever asks, and its object goes straight into the object store, so whatever ends a
run keeps what was finished. Which units there are is said by the patched source; where they run, by an executor.
"""

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from hopperforge.errors import CompileError, HopperforgeError, StorageError
from hopperforge.executors.base import Killed, Outcome, Task
from hopperforge.executors.local import LocalExecutor, line_up, makespan
from hopperforge.model.machine import Sizing
from hopperforge.model.pack import Cost, KernelPack, Unit, pack_key, unit_key
from hopperforge.model.toolkit import HostCompiler, Toolkit
from hopperforge.model.upstream import PatchedSource
from hopperforge.report import Progress
from hopperforge.run.engine import HOST, ON_HOST, Command, Engine, Mount
from hopperforge.run.files import Lock, make_folder, remove_folder, storage_guard
from hopperforge.run.process import Cancelled, Completed
from hopperforge.run.workspace import Workspace
from hopperforge.store.costs import CostTable, learn, load_costs
from hopperforge.store.objects import ObjectStore
from hopperforge.store.packs import find_pack, require_distinct_names, store_pack

_OBJECTS: Final = "objects"
_SOURCE: Final = "unit.cu"
_OBJECT: Final = "unit.o"
_LINKS: Final = ("hopper", "csrc")
_LOCK_POLL_SECONDS: Final = 0.2

# What nvcc 13.0 and gcc 12 print when a child of theirs gets SIGKILL; their own status is then not always 137.
_CHILD_KILLED: Final = re.compile(r"died due to signal 9\b|Killed signal terminated program|^Killed$")
_DISK_FULL: Final = "No space left on device"

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
    if not (workspace.store / _OBJECTS).is_dir():  # a plan writes nothing, and opening a store makes its folder
        return dict.fromkeys(keys, False)
    store = _object_store(workspace)
    return {path: store.holds(key) for path, key in keys.items()}


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
) -> KernelPack:
    """Compile what is missing of `units` in `engine` and return the pack of all of them.

    `toolkit` and `compiler` are where the engine's commands find them.

    Raises CompileError for the first unit that fails, StorageError if the cache cannot be written, ToolError if nvcc
    cannot be started. Objects finished until then stay in the store.
    """
    require_distinct_names([unit.path for unit in units])
    keys = unit_keys(units, source=source, toolkit=toolkit, compiler=compiler, ground=engine.ground)
    packs = workspace.store / "packs"
    pack = find_pack(packs, pack_key(keys), workspace.reporter)
    if pack is not None:
        return pack
    store = _object_store(workspace)
    missing = [unit for unit in units if store.find(keys[unit.path]) is None]
    bench = _Bench(
        keys=keys,
        source=source,
        toolkit=toolkit,
        compiler=compiler,
        sizing=sizing,
        workspace=workspace,
        store=store,
        engine=engine,
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


def _object_store(workspace: Workspace) -> ObjectStore:
    return ObjectStore.local(workspace.store / _OBJECTS, workspace.reporter)


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
    return Task(name=unit.name, cost=replace(cost, peak_rss=peak), room=room if held else None)


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
    return (*unit.arguments, *reproducible, "-c", _SOURCE, "-o", _OBJECT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """What every compile of one pack shares."""

    keys: Mapping[str, str]
    source: PatchedSource
    toolkit: Toolkit
    compiler: HostCompiler
    sizing: Sizing
    workspace: Workspace
    store: ObjectStore
    engine: Engine

    def compile_all(self, units: Sequence[Unit], *, cached: int) -> Outcome[bool]:
        """Compile units side by side; True for those compiled here, False for those another run finished first."""
        reporter = self.workspace.reporter
        costs = load_costs(self.workspace.store, reporter)
        by_name = {unit.name: unit for unit in units}

        def work(task: Task, stop: threading.Event) -> bool:
            return self._make(by_name[task.name], task, stop)

        def on_progress(progress: Progress) -> None:
            reporter.progress(replace(progress, done=progress.done + cached, total=progress.total + cached))

        executor = LocalExecutor(jobs=self.sizing.max_jobs, memory=self.sizing.memory, reporter=reporter)
        tasks = [_task(unit, costs, self.toolkit, self.sizing, self.engine) for unit in units]
        return executor.run(tasks, work, on_progress)

    def _make(self, unit: Unit, task: Task, stop: threading.Event) -> bool:
        key = self.keys[unit.path]
        reporter = self.workspace.reporter

        def on_wait() -> None:
            reporter.note(f"{unit.name} is being compiled by another run; waiting for it")

        with _owned(self.workspace.work / f"{key}.lock", stop, on_wait) as lock:
            if self.store.find(key) is not None:
                return False
            completed, data = self._compile(unit, key, lock, task, stop)
            cost = Cost(seconds=completed.seconds, peak_rss=completed.peak_rss)
            self.store.put(key, data, path=unit.path, cost=cost)
        learn(self.workspace.store, unit=unit, toolkit=self.toolkit.version, cost=cost, reporter=reporter)
        return True

    def _compile(self, unit: Unit, key: str, lock: Lock, task: Task, stop: threading.Event) -> tuple[Completed, bytes]:
        log = make_folder(self.workspace.logs / "kernels") / f"{unit.name}-{key[:12]}.log"
        source = Mount(outside=self.source.root.resolve(), inside="/src")
        place = self.workspace.work / key
        with (
            _work_folder(place, self.engine.place(source), keep=self.engine.keep) as folder,
            storage_guard(self.workspace.cache),
        ):
            (folder / _SOURCE).write_text(wrapper_text(unit), encoding="utf-8")
            out = Mount(outside=folder, inside="/out", writable=True)
            inside = self.engine.place(out)
            command = Command(
                name=key,
                argv=self._argv(unit),
                cwd=inside,
                env=self._environment(inside),
                mounts=(source, out),
                memory=task.room or self.sizing.memory,
            )
            # nvcc holds the lock too: if we are killed, the next run waits for it to end
            completed = self.engine.run(
                command,
                log=log,
                on_line=lambda line: self.workspace.reporter.output(unit.name, line),
                stop=stop,
                keep_open=(lock.fileno(),),
            )
            made = folder / _OBJECT
            if completed.status != 0 or not made.is_file():
                self._fail(unit, completed, task.cost, log)
            return completed, made.read_bytes()

    def _argv(self, unit: Unit) -> tuple[str, ...]:
        threads = ("--threads", str(self.sizing.nvcc_threads)) if self.sizing.nvcc_threads > 1 else ()
        return (str(self.toolkit.nvcc), *threads, "-ccbin", str(self.compiler.path), *_words(unit))

    def _environment(self, folder: Path) -> Mapping[str, str]:
        """All a compiler gets: what the user's shell holds besides changes objects behind the key's back.

        CPATH adds include folders, NVCC_APPEND_FLAGS and NVCC_PREPEND_FLAGS arguments, LANG the language of logs.
        """
        return {
            "PATH": self.workspace.environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "SOURCE_DATE_EPOCH": str(self.source.pin.epoch),
            "TMPDIR": str(folder),
        }

    def _fail(self, unit: Unit, completed: Completed, expected: Cost, log: Path) -> NoReturn:
        detail = [*completed.tail, f"log: {log}"]
        if completed.killed or any(_CHILD_KILLED.search(line) for line in completed.tail):
            budget = f"{_gb(expected.peak_rss)} were set aside for it, of {_gb(self.sizing.memory)} for all units"
            raise Killed(
                CompileError(
                    f"{unit.name} was killed while compiling (status {completed.status}), most likely out of memory",
                    detail=[budget, *detail],
                    hint="repeat the command with jobs=1, or with a smaller memory="
                    + (", or with merge=off, which compiles each source by itself" if unit.merged else ""),
                )
            )
        if any(_DISK_FULL in line for line in completed.tail):
            place = self.workspace.cache
            raise StorageError(f"the disk that holds {place} is full", detail=detail, hint=f"df -h {place}")
        what = f"with status {completed.status}" if completed.status != 0 else "without an object, though with status 0"
        raise CompileError(f"nvcc ended {what} on {unit.path}", detail=detail, hint=f"less {log}")


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


@contextlib.contextmanager
def _work_folder(folder: Path, source: Path, *, keep: bool) -> Iterator[Path]:
    """An empty folder with links to the source's trees, so that every path nvcc sees is relative; gone afterwards.

    `source` is where the compiler has them; with `keep` the folder of a failed compile stays until the next one.
    """
    make_folder(folder.parent)
    with storage_guard(folder):
        remove_folder(folder)  # what a killed run left
        folder.mkdir()
        try:
            for name in _LINKS:
                (folder / name).symlink_to(source / name)
            yield folder
        except CompileError:
            if not keep:
                remove_folder(folder)
            raise
        except BaseException:
            remove_folder(folder)
            raise
        remove_folder(folder)


class _Busy(Exception):  # noqa: N818 - a state: someone else holds the lock
    pass


def _raise_busy() -> None:
    raise _Busy


@contextlib.contextmanager
def _owned(path: Path, stop: threading.Event, on_wait: Callable[[], None]) -> Iterator[Lock]:
    """Hold the lock of a key; unlike flock, waiting for it sees `stop`, and then raises Cancelled."""
    with contextlib.ExitStack() as stack:
        lock = _try_lock(stack, path)
        if lock is None:
            on_wait()
        while lock is None:
            if stop.wait(_LOCK_POLL_SECONDS):
                raise Cancelled
            lock = _try_lock(stack, path)
        yield lock


def _try_lock(stack: contextlib.ExitStack, path: Path) -> Lock | None:
    try:
        return stack.enter_context(Lock(path, on_wait=_raise_busy))
    except _Busy:
        return None
