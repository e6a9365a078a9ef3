"""A Dask cluster as the executor sees it: reaching it, and keeping a roster of the workers that fit.

A worker fits if it runs the same versions as we do, declares its memory, and passes what the caller asks of it. Workers
may join and go at any time; one that does not fit is left out with the reason.
"""

import contextlib
import importlib.metadata
import logging
import platform
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

from distributed import Client, LocalCluster
from distributed.client import ClosedClientError
from distributed.scheduler import KilledWorker
from distributed.versions import VersionMismatchWarning

from hopperforge.errors import HopperforgeError, ToolError
from hopperforge.executors.dask_worker import WorkerLost, install
from hopperforge.report import Reporter

MEMORY: Final = "MEM"
"""The resource by which workers declare their memory, in bytes."""

GONE: Final = (OSError, TimeoutError, CancelledError, KilledWorker, ClosedClientError, WorkerLost)
"""What it may look like when a worker or a scheduler goes away while something is asked of it."""


_PACKAGES: Final = ("hopperforge", "distributed", "dask")
_CONNECT_SECONDS: Final = 10
_RECONNECT_SECONDS: Final = 3.0  # workers give up at once when their scheduler is gone
_LOOK_SECONDS: Final = 1.0
_AT_ONCE: Final = 2  # a worker made ready may be sent hundreds of megabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker: `memory` is what it declares, in bytes (0: nothing); `process` tells two at one address apart."""

    address: str
    name: str
    process: str
    threads: int
    memory: int

    def __str__(self) -> str:
        """The name given to it, and where it is."""
        return f"worker {self.address}" if self.name == self.address else f"worker {self.name} at {self.address}"


Recruit: TypeAlias = Callable[[Client, Worker, threading.Event], str | None]
"""Makes a worker ready, or gives the reason why it cannot be used.

May take minutes, in a thread of its own; raises `GONE`, when the event is set as well.
"""


@contextlib.contextmanager
def connected(address: str) -> Iterator[Client]:
    """Connect to a scheduler; ToolError if none answers."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what it has to say, we say
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # we refuse what matters, worker by worker
            client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False, name="hopperforge")
    except (*GONE, ImportError) as error:  # ImportError: the scheduler speaks another version
        raise ToolError(
            f"no Dask scheduler answers at {address}",
            detail=[str(error).partition("\n")[0]],
            hint="dask scheduler --host HOST --port 8786   # then scheduler=tcp://HOST:8786",
        ) from error
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def local_cluster(*, threads: int, memory: int, cache: Path) -> Iterator[str]:
    """Start a scheduler and one worker process on this machine, and end them; gives the scheduler's address."""
    with _no_terminal_signals():
        cluster = LocalCluster(
            n_workers=1,
            threads_per_worker=threads,
            processes=True,
            memory_limit=0,  # Dask would weigh its own process alone, which is not where the memory goes
            resources={MEMORY: memory},
            dashboard_address="127.0.0.1:0",
            local_directory=str(cache / "worker" / "dask"),
            silence_logs=logging.CRITICAL,
            env={"HOPPERFORGE_CACHE": str(cache)},
        )
    with cluster:
        yield cluster.scheduler_address


@contextlib.contextmanager
def _no_terminal_signals() -> Iterator[None]:
    """Start threads and processes that do not hear the terminal's Ctrl-C: how they end is for us to say."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Roster:
    """The workers of the cluster of `scheduler`: those ready, being made ready, and refused, with the reason.

    For one thread; a context manager that ends what it started to make workers ready.
    """

    def __init__(self, client: Client, scheduler: str, recruit: Recruit, reporter: Reporter) -> None:
        self.ready: dict[str, Worker] = {}
        self.refused: dict[Worker, str] = {}
        self.joining: dict[Future[str | None], Worker] = {}
        self.largest = 0
        self.scheduler = scheduler
        self._client = client
        self._recruit = recruit
        self._reporter = reporter
        self._looked = 0.0
        self._closing = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="recruit")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def look(self) -> None:
        """Take note of who joined, became ready and went; asks the scheduler once a second at most.

        ToolError if the scheduler is gone.
        """
        for future in [future for future in self.joining if future.done()]:
            self._join(self.joining.pop(future), future)
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        present = self._ask()
        self._looked = time.monotonic()
        self.ready = {address: worker for address, worker in self.ready.items() if worker in present}
        self.refused = {worker: reason for worker, reason in self.refused.items() if worker in present}
        known = {*self.ready.values(), *self.refused, *self.joining.values()}
        for worker in present - known:
            self.joining[self._pool.submit(self._judge, worker)] = worker

    def _ask(self) -> set[Worker]:
        deadline = time.monotonic() + _RECONNECT_SECONDS
        while self._client.status == "connecting" and time.monotonic() < deadline:
            time.sleep(0.1)
        try:
            return present(self._client)
        except GONE as error:
            raise ToolError(
                "the Dask scheduler went away while units were compiled",
                detail=[f"it was {self.scheduler}"],
                hint="start a scheduler and workers again, then repeat the command",
            ) from error

    def _judge(self, worker: Worker) -> str | None:
        reason = _difference(self._client, worker) or _undeclared(worker)
        if reason is not None:
            return reason
        try:
            ask(self._client, worker, install)
            return self._recruit(self._client, worker, self._closing)
        except HopperforgeError as error:
            return error.sentence

    def _join(self, worker: Worker, future: "Future[str | None]") -> None:
        try:
            reason = future.result()
        except GONE as error:
            reason = f"it could not be made ready ({str(error) or type(error).__name__})"
        if reason is None:
            self.ready[worker.address] = worker
            self.largest = max(self.largest, worker.memory)
        else:
            self.refused[worker] = reason
            self._reporter.warn(f"{worker} is left out: {reason}")


def ask(client: Client, worker: Worker, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function beside a worker's tasks and give its answer; what it raised is raised here, `GONE` included.

    ToolError if the worker does not know the function.
    """
    answers = client.run(function, *arguments, workers=[worker.address], on_error="return")
    answer = answers.get(worker.address, WorkerLost())
    if type(answer) is Exception:  # what Dask makes of a function, pickled by name, that it does not find
        raise ToolError(f"its hopperforge is not this one, though it says the same version: {answer}")
    if isinstance(answer, Exception):
        raise answer
    return answer


def is_there(client: Client, worker: Worker) -> bool:
    """Whether a worker is still the same process in the same cluster."""
    try:
        return worker in present(client)
    except GONE:
        return False


def dashboard(client: Client) -> str | None:
    """Give the address of the cluster's dashboard; None if its scheduler has none."""
    return str(client.dashboard_link) if "dashboard" in _identity(client, 0)["services"] else None


def present(client: Client) -> set[Worker]:
    """List the workers of the cluster, as the scheduler has it now."""
    listed: Mapping[str, Any] = _identity(client, -1)["workers"]
    return {_worker(address, said) for address, said in listed.items()}


def _identity(client: Client, workers: int) -> Mapping[str, Any]:
    """Ask the scheduler itself: `Client.scheduler_info` may answer what another thread, or its own timer, asked for."""
    if client.status != "running" or client.scheduler is None:
        raise WorkerLost
    said: Mapping[str, Any] = client.sync(client.scheduler.identity, n_workers=workers)
    return said


def _worker(address: str, said: Mapping[str, Any]) -> Worker:
    return Worker(
        address=address,
        name=str(said["name"]),
        process=str(said["local_directory"]),
        threads=int(said["nthreads"]),
        memory=int(said["resources"].get(MEMORY, 0)),
    )


def _difference(client: Client, worker: Worker) -> str | None:
    """Compare versions; only what every Python has is asked for, so that a worker without our code can answer."""
    theirs = {"python": ask(client, worker, platform.python_version)}
    for package in _PACKAGES:
        try:
            theirs[package] = ask(client, worker, importlib.metadata.version, package)
        except importlib.metadata.PackageNotFoundError:
            theirs[package] = "missing"
    return version_difference(_versions_here(), theirs)


def _versions_here() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES}


def version_difference(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str | None:
    """Say what differs, None if nothing; of Python only the minor version counts."""

    def counted(versions: Mapping[str, str]) -> dict[str, str]:
        return {**versions, "python": ".".join(versions["python"].split(".")[:2])}

    here, there = counted(ours), counted(theirs)
    wrong = [name for name in here if here[name] != there[name]]
    if not wrong:
        return None
    said = ", ".join(f"{name} {theirs[name]} where this machine has {ours[name]}" for name in wrong)
    return f"it has {said}"


def _undeclared(worker: Worker) -> str | None:
    if worker.memory > 0:
        return None
    return f'it declares no memory; start it with --resources "{MEMORY}=64e9", in bytes'
