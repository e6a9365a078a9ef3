"""The executor of a Dask cluster: tasks go to the workers that have room for them, longest first.

Dask's own scheduler places a task once, when it is submitted, by how many a worker has; here a task lasts from ten
seconds to a quarter of an hour. So each is handed over only when a worker can start it now, by the same rule as on one
machine (`executors.schedule.choose`), and Dask does what it is best at: carrying work and results, noticing who is
gone, and holding every worker to the memory it declared, whoever else uses the cluster.
"""

import contextlib
import functools
import itertools
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar

from distributed import Client
from distributed import Future as DaskFuture

from hopperforge.errors import CompileError, HopperforgeError, ToolError
from hopperforge.executors.base import Outcome, ResultT, Task, Work
from hopperforge.executors.dask_cluster import GONE, MEMORY, Recruit, Roster, Worker, connected, dashboard
from hopperforge.executors.dask_worker import WorkerLost, perform, quiet
from hopperforge.executors.ledger import Crew, Ledger
from hopperforge.executors.schedule import Flight, Waiting, choose, line_up
from hopperforge.report import Progress, Reporter, gigabytes
from hopperforge.run.process import Cancelled

ArgumentT = TypeVar("ArgumentT")
ReturnT = TypeVar("ReturnT")

_LOOK_SECONDS: Final = 0.5
_FETCH_SECONDS: Final = 60.0  # for what a task returns, once it has ended
_PATIENCE_SECONDS: Final = 60.0
_GRACE_SECONDS: Final = 5.0  # where those that came do not do, others may still be starting
_MOST_LOSSES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A task that runs, or is on its way to, on a worker; `lost` is set when the worker is gone."""

    flight: Flight
    worker: Worker
    lost: threading.Event = field(default_factory=threading.Event)


def steady(tasks: Sequence[Task]) -> list[Task]:
    """Have each task keep its peak to the end: Dask lends a worker's memory for as long as a task runs, never less."""
    return [replace(task, calm=None) for task in tasks]


def place(
    queue: Sequence[Waiting], workers: Iterable[Worker], seats: Iterable[Seat], *, now: float
) -> tuple[Waiting, Worker] | None:
    """Say which task starts now on which worker, if any: workers with the most free memory are asked first.

    What is larger than a worker is not in that worker's queue; within it, `executors.schedule.choose` decides.
    """
    running: dict[str, list[Flight]] = {}
    for seat in seats:
        running.setdefault(seat.worker.address, []).append(seat.flight)

    def free(worker: Worker) -> int:
        return worker.memory - sum(flight.task.cost.peak_rss for flight in running.get(worker.address, ()))

    for worker in sorted(workers, key=lambda worker: (-free(worker), worker.address)):
        fitting = [waiting for waiting in queue if waiting.task.cost.peak_rss <= worker.memory]
        beside = running.get(worker.address, ())
        chosen = choose(fitting, beside, jobs=worker.threads, memory=worker.memory, now=now)
        if chosen is not None:
            return chosen, worker
    return None


def seconds_left(queue: Sequence[Waiting], workers: Iterable[Worker], seats: Iterable[Seat], *, now: float) -> float:
    """Estimate when the last task ends: as if work could be spread evenly, but no task be cut."""
    costs = [waiting.task.cost for waiting in queue]
    flying = [max(0.0, seat.flight.end - now) for seat in seats]
    longest = max([*flying, *(cost.seconds for cost in costs)], default=0.0)
    if not costs:
        return longest
    usual = max(1, sum(cost.peak_rss for cost in costs) // len(costs))
    slots = sum(max(1, min(worker.threads, worker.memory // usual)) for worker in workers)
    return max(longest, (sum(flying) + sum(cost.seconds for cost in costs)) / max(1, slots))


class DaskExecutor:
    """Runs tasks on a cluster. What is done on a worker goes through `call`, from inside the work of a task."""

    def __init__(self, client: Client, roster: Roster, reporter: Reporter, *, remedy: str, patience: float) -> None:
        self.roster = roster
        self.reporter = reporter
        self.remedy = remedy
        self.patience = patience
        self.seats: dict[str, Seat] = {}
        self._client = client
        self._run = secrets.token_hex(4)
        self._count = itertools.count()

    def run(
        self, tasks: Sequence[Task], work: Work[ResultT], on_progress: Callable[[Progress], None]
    ) -> Outcome[ResultT]:
        """Run every task, longest first; see `Executor.run`.

        A task whose worker is lost is run elsewhere, and one that was killed once more, alone on a worker. A cluster
        that is gone, or where a task fits nowhere, is a failure among the others.
        """
        queue = line_up(steady(tasks), 1 << 62)
        crew = Crew(work)
        with ThreadPoolExecutor(max_workers=max(1, len(tasks)), thread_name_prefix="unit") as pool:
            ledger: Ledger[ResultT] = Ledger(total=len(tasks), queue=queue, reporter=self.reporter)
            turn = _Turn(executor=self, ledger=ledger)
            try:
                while ledger.queue or turn.flights:
                    turn.look()
                    turn.start_all(lambda task: pool.submit(crew.do, task))
                    if ledger.failures and not turn.flights:
                        break
                    on_progress(turn.progress())
                    turn.settle()
            except BaseException:  # an interrupt or a bug: either way nothing may go on anywhere
                crew.dismiss()
                self._wait_for_workers()
                raise
            on_progress(turn.progress())
        return Outcome(finished=ledger.finished, failures=ledger.failures)

    def call(
        self,
        task: Task,
        function: Callable[[ArgumentT, int, threading.Event], ReturnT],
        argument: ArgumentT,
        stop: threading.Event,
    ) -> ReturnT:
        """Run `function(argument, memory, stop)` on the worker `task` was given; `memory` is the worker's, in bytes.

        Raises what it raises, Cancelled when `stop` is set, WorkerLost if the worker is gone. Whatever ends the call,
        the worker is told to stop if it has not ended.
        """
        seat = self.seats[task.name]
        done = threading.Event()
        try:
            future = self._submit(seat, function, argument)
        except GONE as error:
            raise WorkerLost from error
        future.add_done_callback(lambda _: done.set())
        try:
            while not done.wait(_LOOK_SECONDS):
                if stop.is_set():
                    raise Cancelled
                if seat.lost.is_set():
                    raise WorkerLost
            result: ReturnT = future.result(timeout=_FETCH_SECONDS)
        except GONE as error:
            if future.status == "error" and isinstance(error, OSError):  # raised by the function
                raise
            raise WorkerLost from error
        finally:
            future.release()
        return result

    def worker_of(self, task: Task) -> Worker:
        """Give the worker a task under way was given."""
        return self.seats[task.name].worker

    def _submit(
        self, seat: Seat, function: Callable[[ArgumentT, int, threading.Event], ReturnT], argument: ArgumentT
    ) -> "DaskFuture[Any]":
        task, worker = seat.flight.task, seat.worker
        return self._client.submit(
            functools.partial(perform, function),
            argument,
            worker.memory,
            key=f"{task.name}-{self._run}-{next(self._count)}",
            workers=[worker.address],
            resources={MEMORY: worker.memory if seat.flight.alone else task.cost.peak_rss},
            pure=False,
        )

    def _wait_for_workers(self) -> None:
        """Wait until no worker does anything of this run any more."""
        if self.roster.ready:
            with contextlib.suppress(*GONE):
                self._client.run(quiet, self._run, workers=list(self.roster.ready), on_error="return")


@contextlib.contextmanager
def dask_executor(
    address: str, recruit: Recruit, reporter: Reporter, *, remedy: str, patience: float = _PATIENCE_SECONDS
) -> Iterator[DaskExecutor]:
    """Connect to the scheduler at `address`; ToolError if none answers.

    `recruit` makes each worker ready, or says why it cannot be used. `remedy` is the hint where workers are missing or
    have too little memory; `patience` for how many seconds a cluster without workers is waited for.
    """
    with connected(address) as client:
        link = dashboard(client)
        reporter.note(f"Dask cluster {address}" + (f", dashboard {link}" if link else ""))
        with Roster(client, address, recruit, reporter) as roster:
            yield DaskExecutor(client, roster, reporter, remedy=remedy, patience=patience)


@dataclass(slots=True, kw_only=True)
class _Turn(Generic[ResultT]):
    """The state of one run: its ledger, what flies where, and since when nothing moved."""

    executor: DaskExecutor
    ledger: Ledger[ResultT]
    flights: dict[Future[ResultT], Seat] = field(default_factory=dict)
    losses: Counter[str] = field(default_factory=Counter)
    moved: float = field(default_factory=time.monotonic)
    joined: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Take note of the cluster: who is gone, and whether there is hope for what waits."""
        roster = self.executor.roster
        try:
            roster.look()
        except ToolError as error:
            self.ledger.failures.setdefault(roster.scheduler, error)
            roster.ready.clear()
        for seat in self.flights.values():
            if roster.ready.get(seat.worker.address) != seat.worker:
                seat.lost.set()
        now = time.monotonic()
        self.joined = now if roster.joining else self.joined
        self.moved = now if roster.joining or self.flights else self.moved
        if not self.ledger.failures and (reason := self._hopeless(now)) is not None:
            self.ledger.failures[roster.scheduler] = reason

    def _hopeless(self, now: float) -> HopperforgeError | None:
        """Say why what waits will never run, if so.

        | what waits                     | is given up                                     |
        |--------------------------------|-------------------------------------------------|
        | is larger than any worker was  | when no worker joined for the grace period      |
        | has no worker, all are refused | when nothing moved for the grace period         |
        | has no worker, none is there   | when nothing moved for as long as patience goes |
        | fitted a worker that was lost  | when nothing moved for as long as patience goes |
        """
        roster, idle = self.executor.roster, now - self.moved
        if not self.ledger.queue:
            return None
        largest = max((waiting.task for waiting in self.ledger.queue), key=lambda task: task.cost.peak_rss)
        if roster.ready:
            too_large = largest.cost.peak_rss > roster.largest and now - self.joined > _GRACE_SECONDS
            return self._too_large(largest) if too_large or idle > self.executor.patience else None
        patience = min(_GRACE_SECONDS, self.executor.patience) if roster.refused else self.executor.patience
        return self._nobody(idle) if idle > patience else None

    def _nobody(self, waited: float) -> ToolError:
        roster = self.executor.roster
        if roster.refused:
            return ToolError(
                f"none of the {len(roster.refused)} workers of {roster.scheduler} can compile this",
                detail=[f"{worker}: {reason}" for worker, reason in roster.refused.items()],
                hint=self.executor.remedy,
            )
        return ToolError(
            f"the Dask cluster {roster.scheduler} has no workers, and none came within {waited:.0f} s",
            hint=self.executor.remedy,
        )

    def _too_large(self, task: Task) -> ToolError:
        return ToolError(
            f"{task.name} needs {gigabytes(task.cost.peak_rss)}, and no worker has as much",
            detail=[f"{worker}: {gigabytes(worker.memory)}" for worker in self.executor.roster.ready.values()],
            hint=self.executor.remedy,
        )

    def start_all(self, submit: Callable[[Task], "Future[ResultT]"]) -> None:
        """Start what may start now; nothing after a failure."""
        ready = self.executor.roster.ready
        while not self.ledger.failures:
            placed = place(self.ledger.queue, ready.values(), self.flights.values(), now=time.monotonic())
            if placed is None:
                return
            waiting, worker = placed
            seat = self.executor.seats[waiting.task.name] = Seat(flight=self.ledger.take_off(waiting), worker=worker)
            self.flights[submit(waiting.task)] = seat

    def settle(self) -> None:
        """Take what ended out of the air, or let a moment pass."""
        if not self.flights:
            wait(self.executor.roster.joining, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
            if not self.executor.roster.joining:
                time.sleep(_LOOK_SECONDS)
            return
        for future in wait(self.flights, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED).done:
            seat = self.flights.pop(future)
            if isinstance(future.exception(), WorkerLost):
                self._elsewhere(seat)
            else:
                flight = seat.flight
                again = None if flight.alone else Waiting(task=flight.task, alone=True)
                self.ledger.book(flight, future, again=again)

    def _elsewhere(self, seat: Seat) -> None:
        task = seat.flight.task
        self.losses[task.name] += 1
        if self.ledger.failures:
            return
        if self.losses[task.name] >= _MOST_LOSSES:
            self.ledger.failures[task.name] = CompileError(
                f"{_MOST_LOSSES} workers were lost while they compiled {task.name}",
                detail=[f"the last was {seat.worker}", "a machine that is short of memory may kill its worker"],
                hint=self.executor.remedy,
            )
            return
        self.executor.reporter.warn(f"{seat.worker} was lost while it compiled {task.name}, which is done elsewhere")
        self.ledger.queue.insert(0, Waiting(task=task, alone=seat.flight.alone))

    def progress(self) -> Progress:
        """The moment as the reporter shows it; what the workers have in use is not known."""
        seats = tuple(self.flights.values())
        left = seconds_left(self.ledger.queue, self.executor.roster.ready.values(), seats, now=time.monotonic())
        return self.ledger.progress([seat.flight for seat in seats], left=left, in_use=None)
