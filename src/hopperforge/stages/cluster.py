"""Units on a Dask cluster, seen from the machine that plans: workers are given what they lack, objects are taken back.

Inputs travel from here instead of each worker fetching them by the pinned recipes, since nodes of clusters often have
no network, and since the patched source exists here only. It is 150 to 220 MB of toolkit and 30 MB of source, once a
worker: they stay in its cache by content. What is done on the worker is in `stages.remote_units`.
"""

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from typing import Final

from distributed import Client

from hopperforge.errors import CompileError
from hopperforge.executors.base import Task
from hopperforge.executors.dask import DaskExecutor, dask_executor
from hopperforge.executors.dask_cluster import MEMORY, Worker, ask, is_there, local_cluster
from hopperforge.executors.dask_worker import WorkerLost
from hopperforge.model.machine import Sizing
from hopperforge.model.request import Cluster
from hopperforge.report import Reporter
from hopperforge.run.files import Lock
from hopperforge.run.workspace import Workspace
from hopperforge.stages.remote_units import Found, Input, Kit, RemoteJob, compile_remotely, look, pack_input, receive
from hopperforge.stages.unit_job import CompiledUnit, CompileUnit, UnitJob

_POLL_SECONDS: Final = 0.5
_FETCH_SECONDS: Final = 60.0
_MORE_MEMORY: Final = "repeat the command with a larger memory=, as in memory=16GB"
_MORE_WORKERS: Final = f'dask worker {{}} --nthreads 16 --resources "{MEMORY}=64e9"   # on each machine'


@contextlib.contextmanager
def cluster_place(
    cluster: Cluster, kit: Kit, sizing: Sizing, workspace: Workspace
) -> Iterator[tuple[DaskExecutor, CompileUnit]]:
    """Reach the cluster, or start one on this machine within `sizing`; gives what runs tasks there and compiles one.

    ToolError if no scheduler answers.
    """
    outfit = Outfit(kit, workspace.reporter)
    with contextlib.ExitStack() as stack:
        address = cluster.scheduler or stack.enter_context(
            local_cluster(threads=sizing.max_jobs, memory=sizing.memory, cache=workspace.cache)
        )
        remedy = _MORE_MEMORY if cluster.scheduler is None else _MORE_WORKERS.format(address)
        executor = stack.enter_context(dask_executor(address, outfit.equip, workspace.reporter, remedy=remedy))

        def compile_there(job: UnitJob, task: Task, _lock: Lock, stop: threading.Event) -> CompiledUnit:
            found = outfit.of(executor.worker_of(task))
            arrived = executor.call(task, compile_remotely, remote_job(job, kit, found), stop)
            if hashlib.sha256(arrived.compiled.data).hexdigest() != arrived.sha256:
                raise CompileError(f"the object of {job.path} was damaged on its way from {executor.worker_of(task)}")
            return arrived.compiled

        yield executor, compile_there


class Outfit:
    """A kit, and which workers have it; may be used from many threads."""

    def __init__(self, kit: Kit, reporter: Reporter) -> None:
        self._kit = kit
        self._reporter = reporter
        self._found: dict[Worker, Found] = {}
        self._packing = threading.Lock()
        self._packed: dict[Input, bytes] = {}

    def of(self, worker: Worker) -> Found:
        """What a worker that was equipped has."""
        return self._found[worker]

    def equip(self, client: Client, worker: Worker, stop: threading.Event) -> str | None:
        """Send a worker what it lacks of the kit; gives the reason if it cannot be used."""
        found: Found = ask(client, worker, look, self._kit)
        lacking = [thing for thing in Input if thing not in found.inputs]
        if found.reason is None and lacking:
            for thing in lacking:
                self._send(client, worker, thing, stop)
            found = ask(client, worker, look, self._kit)
            gone = [str(thing) for thing in Input if thing not in found.inputs]
            if gone:
                return f"its cache does not keep what is sent to it: {' and '.join(gone)}"
        if found.reason is None:
            self._found[worker] = found
        return found.reason

    def _send(self, client: Client, worker: Worker, thing: Input, stop: threading.Event) -> None:
        data = self._pack(thing)
        self._reporter.note(f"sending the {thing} ({len(data) / 1e6:.0f} MB) to {worker}")
        sha256 = hashlib.sha256(data).hexdigest()
        (carried,) = client.scatter([data], workers=[worker.address], hash=False)
        future = client.submit(receive, carried, sha256, self._kit, thing, workers=[worker.address], pure=False)
        while not future.done():
            time.sleep(_POLL_SECONDS)
            if stop.is_set() or not is_there(client, worker):
                raise WorkerLost
        future.result(timeout=_FETCH_SECONDS)

    def _pack(self, thing: Input) -> bytes:
        with self._packing:
            if thing not in self._packed:
                self._packed[thing] = pack_input(self._kit, thing)
            return self._packed[thing]


def remote_job(job: UnitJob, kit: Kit, found: Found) -> RemoteJob:
    """Tell a worker to compile a unit with what was found on it; only for one that can be used."""
    return RemoteJob(
        job=job,
        source=found.inputs[Input.SOURCE],
        toolkit=found.inputs[Input.TOOLKIT],
        compiler=found.compiler or kit.compiler.path,
        threads=kit.threads,
    )
