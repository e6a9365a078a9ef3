"""One compile: the text of a unit to the bytes of its object, in a folder of its own.

What is compiled is a value that can travel (`UnitJob`); with what, where and under which limits is the `Bench`'s, one
for each machine. Keys, stores and who compiles when are none of its business.
"""

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

from hopperforge.errors import CompileError
from hopperforge.executors.base import Killed, Task
from hopperforge.model.pack import Cost
from hopperforge.report import gigabytes
from hopperforge.run.engine import ON_HOST, Command, Engine, Mount
from hopperforge.run.files import Lock, disk_full, make_folder, remove_folder, says_disk_full, storage_guard
from hopperforge.run.process import Cancelled, Completed
from hopperforge.run.workspace import Workspace

SOURCE: Final = "unit.cu"
OBJECT: Final = "unit.o"
LINKS: Final = ("hopper", "csrc", "kernels")
"""The trees of a source that a unit includes files of: upstream's, or a recipe's own; one leads nowhere then."""

_LOCK_POLL_SECONDS: Final = 0.2

# What nvcc 13.0 and gcc 12 print when a child of theirs gets SIGKILL; their own status is then not always 137.
_CHILD_KILLED: Final = re.compile(r"died due to signal 9\b|Killed signal terminated program|^Killed$")
# Kernels part the registers of a block between warps that load and warps that multiply. ptxas may leave that out, tells
# so as an information, and makes a kernel that is right and slow.
_REGISTERS_NOT_PARTED: Final = re.compile(r"setmaxnreg\W+ignored")
_ONE_BY_ONE: Final = ", or with merge=off, which compiles each source by itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitJob:
    """All that is said of one compile.

    `text` is what `SOURCE` holds and `words` what nvcc is told after where the host compiler is; `expected_rss` is
    what was set aside for it, in bytes; `epoch` the SOURCE_DATE_EPOCH; `room` what a container may take at most, None
    for all there is; `merged` whether it has several sources.
    """

    name: str
    path: str
    key: str
    text: str
    words: tuple[str, ...]
    epoch: int
    expected_rss: int
    room: int | None = None
    merged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledUnit:
    """An object, and what it took."""

    data: bytes
    cost: Cost


CompileUnit: TypeAlias = Callable[[UnitJob, Task, Lock, threading.Event], CompiledUnit]
"""Compiles a unit, here or elsewhere, while the lock of its key is held; raises what `Bench.compile` does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What one machine compiles with: the tree of the patched source, compilers as the engine's commands find them.

    `threads` are nvcc's, `memory` the bytes for all units together, `remedy` the hint for a unit that was killed.
    """

    source: Path
    nvcc: Path
    compiler: Path
    threads: int
    memory: int
    remedy: str
    workspace: Workspace
    engine: Engine = ON_HOST

    def compile(self, job: UnitJob, lock: Lock, stop: threading.Event) -> CompiledUnit:
        """Compile a unit whose key's `lock` is held; the compiler inherits it, and so keeps it if we are killed.

        Raises CompileError, StorageError for a full disk, ToolError if nvcc cannot be started, Killed, or, when
        `stop` is set, Cancelled. Nothing stays of it but a log.
        """
        log = make_folder(self.workspace.logs / "kernels") / f"{job.name}-{job.key[:12]}.log"
        source = Mount(outside=self.source.resolve(), inside="/src")
        place = self.workspace.work / job.key
        with (
            _work_folder(place, self.engine.place(source), keep=self.engine.keep) as folder,
            storage_guard(self.workspace.cache),
        ):
            (folder / SOURCE).write_text(job.text, encoding="utf-8")
            out = Mount(outside=folder, inside="/out", writable=True)
            inside = self.engine.place(out)
            command = Command(
                name=job.key,
                argv=self._argv(job),
                cwd=inside,
                env=self._environment(job, inside),
                mounts=(source, out),
                memory=job.room or self.memory,
            )
            # nvcc holds the lock too: if we are killed, the next run waits for it to end
            completed = self.engine.run(
                command,
                log=log,
                on_line=lambda line: self.workspace.reporter.output(job.name, line),
                stop=stop,
                keep_open=(lock.fileno(),),
            )
            made = folder / OBJECT
            if completed.status != 0 or not made.is_file():
                self._fail(job, completed, log)
            _refuse_slow_code(job, log)
            cost = Cost(seconds=completed.seconds, peak_rss=completed.peak_rss)
            return CompiledUnit(data=made.read_bytes(), cost=cost)

    def _argv(self, job: UnitJob) -> tuple[str, ...]:
        threads = ("--threads", str(self.threads)) if self.threads > 1 else ()
        return (str(self.nvcc), *threads, "-ccbin", str(self.compiler), *job.words)

    def _environment(self, job: UnitJob, folder: Path) -> Mapping[str, str]:
        """All a compiler gets: what the user's shell holds besides changes objects behind the key's back.

        CPATH adds include folders, NVCC_APPEND_FLAGS and NVCC_PREPEND_FLAGS arguments, LANG the language of logs.
        """
        return {
            "PATH": self.workspace.environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "SOURCE_DATE_EPOCH": str(job.epoch),
            "TMPDIR": str(folder),
        }

    def _fail(self, job: UnitJob, completed: Completed, log: Path) -> NoReturn:
        detail = [*completed.tail, f"log: {log}"]
        if completed.killed or any(_CHILD_KILLED.search(line) for line in completed.tail):
            budget = f"{gigabytes(job.expected_rss)} were set aside for it, of {gigabytes(self.memory)} for all units"
            raise Killed(
                CompileError(
                    f"{job.name} was killed while compiling (status {completed.status}), most likely out of memory",
                    detail=[budget, *detail],
                    hint=self.remedy + (_ONE_BY_ONE if job.merged else ""),
                )
            )
        if any(says_disk_full(line) for line in completed.tail):
            raise disk_full(self.workspace.cache, detail=detail)
        what = f"with status {completed.status}" if completed.status != 0 else "without an object, though with status 0"
        raise CompileError(f"nvcc ended {what} on {job.path}", detail=detail, hint=f"less {log}")


def _refuse_slow_code(job: UnitJob, log: Path) -> None:
    """Raise CompileError if the assembler said that it left `setmaxnreg` out of a kernel."""
    said = [
        line for line in log.read_text("utf-8", errors="replace").splitlines() if _REGISTERS_NOT_PARTED.search(line)
    ]
    if said:
        raise CompileError(
            f"the kernels of {job.name} would be slow: ptxas left out setmaxnreg, which parts registers between warps",
            detail=[*said[:10], f"log: {log}"],
            hint="compile with another toolkit: nox -s build -- cuda=13.0",
        )


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
            for name in LINKS:
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
def owned(path: Path, stop: threading.Event, on_wait: Callable[[], None]) -> Iterator[Lock]:
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


def sweep_work(work: Path) -> None:
    """Remove what killed runs left half made in a work folder; what a compiler still works on stays."""
    for lock in work.glob("*.lock"):
        with contextlib.suppress(_Busy), Lock(lock, on_wait=_raise_busy):
            remove_folder(lock.with_suffix(""))


def _try_lock(stack: contextlib.ExitStack, path: Path) -> Lock | None:
    try:
        return stack.enter_context(Lock(path, on_wait=_raise_busy))
    except _Busy:
        return None
