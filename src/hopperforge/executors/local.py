"""The executor of one machine: a thread a task, never more than `jobs`, never above the memory budget.

Costs are expectations. Where tasks take more, nothing new starts until what is in use leaves room for it; what is
killed all the same is tried again alone, and what is finished stays.

Which task starts when is decided by pure functions over expected costs (`choose`, `makespan`); `LocalExecutor`
only obeys them. What a task does is not known here.
"""

import heapq
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Final, Generic

from hopperforge.errors import HopperforgeError
from hopperforge.executors.base import Killed, Outcome, ResultT, Task, Work
from hopperforge.report import Progress, Reporter
from hopperforge.run.machine import MemoryMeter
from hopperforge.run.process import Cancelled

_LOOK_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A task not yet started; `alone` if nothing else may run beside it, and it may then have the whole budget."""

    task: Task
    alone: bool


@dataclass(slots=True, kw_only=True)
class Flight:
    """A task that runs: when it started and is expected to end, and whether anything ever ran beside it."""

    task: Task
    alone: bool
    start: float
    end: float
    company: bool = False


def line_up(tasks: Sequence[Task], memory: int) -> list[Waiting]:
    """Order tasks longest first; one that exceeds the budget by itself must run alone."""
    ordered = sorted(tasks, key=lambda task: (-task.cost.seconds, task.name))
    return [_alone(task) if task.cost.peak_rss > memory else Waiting(task=task, alone=False) for task in ordered]


def _alone(task: Task) -> Waiting:
    return Waiting(task=replace(task, room=None), alone=True)


def overrun(running: Sequence[Flight], in_use: int) -> int:
    """Bytes in use beyond what the running tasks are expected to need at their peaks; 0 while they keep to it."""
    return max(0, in_use - sum(flight.task.cost.peak_rss for flight in running))


def choose(
    queue: Sequence[Waiting], running: Sequence[Flight], *, jobs: int, memory: int, now: float
) -> Waiting | None:
    """Say which task of `queue` starts now, if any; `memory` is the budget less what it is overrun by.

    | running                     | answer                                                          |
    |-----------------------------|-----------------------------------------------------------------|
    | nothing                     | the first of the queue, however large                           |
    | `jobs` tasks, or a lone one | none                                                            |
    | the first fits beside them  | the first                                                       |
    | it does not fit             | the first later one that fits and does not put the first off    |

    The last row is EASY backfilling (Lifka 1995): without it a large unit keeps memory idle, with plain "whatever
    fits" it starves until the end and then runs by itself.
    """
    if not queue or not running:
        return next(iter(queue), None)
    if len(running) >= jobs or any(flight.alone for flight in running):
        return None
    first, *later = queue
    free = memory - sum(flight.task.cost.peak_rss for flight in running)
    if not first.alone and first.task.cost.peak_rss <= free:
        return first
    begin, spare = _reservation(first, running, jobs=jobs, memory=memory, now=now)
    for waiting in later:
        cost = waiting.task.cost
        if not waiting.alone and cost.peak_rss <= free and (now + cost.seconds <= begin or cost.peak_rss <= spare):
            return waiting
    return None


def _reservation(first: Waiting, running: Sequence[Flight], *, jobs: int, memory: int, now: float) -> tuple[float, int]:
    """When `first` can start if nothing else does, and the bytes that then stay free for a task started now."""
    left = sorted(running, key=lambda flight: flight.end, reverse=True)
    begin = now
    while left:
        begin = max(now, left.pop().end)
        spare = memory - sum(flight.task.cost.peak_rss for flight in left) - first.task.cost.peak_rss
        if not first.alone and spare >= 0:
            return begin, spare if len(left) + 2 <= jobs else 0
    return begin, 0


def play(
    queue: Sequence[Waiting], running: Sequence[Flight], *, jobs: int, memory: int, now: float
) -> tuple[Flight, ...]:
    """Play the schedule through on expected costs: every task of `queue`, by start, with its expected end."""
    queue, played = list(queue), []
    flights = [(max(now, flight.end), index, flight) for index, flight in enumerate(running)]
    heapq.heapify(flights)
    clock, count = now, len(flights)
    while queue:
        active = [flight for _, _, flight in flights]
        while waiting := choose(queue, active, jobs=jobs, memory=memory, now=clock):
            queue.remove(waiting)
            flight = Flight(task=waiting.task, alone=waiting.alone, start=clock, end=clock + waiting.task.cost.seconds)
            active.append(flight)
            played.append(flight)
            count += 1
            heapq.heappush(flights, (flight.end, count, flight))
        clock = heapq.heappop(flights)[0]
    return tuple(played)


def makespan(queue: Sequence[Waiting], running: Sequence[Flight], *, jobs: int, memory: int, now: float) -> float:
    """Seconds from `now` until the last task ends, of those that run and those that wait, on expected costs."""
    played = play(queue, running, jobs=jobs, memory=memory, now=now)
    return max([now, *(flight.end for flight in (*running, *played))]) - now


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalExecutor:
    """Runs tasks on this machine: at most `jobs` at once (>= 1), expected peaks within `memory` bytes together.

    `in_use` says how many bytes the run has taken; it is asked before tasks start, every two seconds at least.
    """

    jobs: int
    memory: int
    reporter: Reporter
    in_use: Callable[[], int] = field(default_factory=MemoryMeter.start)

    def run(
        self, tasks: Sequence[Task], work: Work[ResultT], on_progress: Callable[[Progress], None]
    ) -> Outcome[ResultT]:
        """Run every task, longest first; see `Executor.run`.

        A task killed while others ran beside it, or that had less than the whole budget, is run once more, alone and
        with all of it: it was most likely short of memory.
        """
        crew = Crew(work)
        with ThreadPoolExecutor(max_workers=self.jobs, thread_name_prefix="unit") as pool:
            turn: _Turn[ResultT] = _Turn(executor=self, total=len(tasks), queue=line_up(tasks, self.memory))
            try:
                while turn.queue or turn.flights:
                    turn.look()
                    turn.start_all(lambda task: pool.submit(crew.do, task))
                    if not turn.flights:
                        break
                    on_progress(turn.progress())
                    turn.settle(wait(turn.flights, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED).done)
            except BaseException:  # an interrupt or a bug: either way no worker may go on
                crew.dismiss()
                raise
            on_progress(turn.progress())
        return Outcome(finished=turn.finished, failures=turn.failures)


class Crew(Generic[ResultT]):
    """Does the work, and can be told to stop.

    The pool does not know its own threads when an interrupt falls into `submit`, so its shutdown may not wait for
    them. Here a worker counts from its first step to its last, and none begins after the stop.
    """

    def __init__(self, work: Work[ResultT]) -> None:
        self._work = work
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._busy = 0

    def do(self, task: Task) -> ResultT:
        """Do the work of a task; Cancelled if the stop came first."""
        with self._changed:
            if self._stop.is_set():
                raise Cancelled
            self._busy += 1
        try:
            return self._work(task, self._stop)
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def dismiss(self) -> None:
        """Set the stop event and wait until no work is being done."""
        self._stop.set()
        with self._changed:
            self._changed.wait_for(lambda: self._busy == 0)


@dataclass(slots=True, kw_only=True)
class _Turn(Generic[ResultT]):
    """The state of one run: what waits, flies, finished and failed."""

    executor: LocalExecutor
    total: int
    queue: list[Waiting]
    flights: dict[Future[ResultT], Flight] = field(default_factory=dict)
    finished: dict[str, ResultT] = field(default_factory=dict)
    failures: dict[str, HopperforgeError] = field(default_factory=dict)
    expected: float = 0.0
    measured: float = 0.0
    in_use: int = 0
    overrun: int = 0
    told: bool = False

    def look(self) -> None:
        """Measure what is in use, and say so the first time that it keeps a task from starting."""
        running = tuple(self.flights.values())
        self.in_use = self.executor.in_use() if running else 0
        self.overrun = overrun(running, self.in_use)
        if self.overrun and not self.told and not self.failures and self._held_back(running):
            self.told = True
            room = self.executor.memory - self.in_use
            self.executor.reporter.note(
                f"{_gb(self.in_use)} are in use, {_gb(self.overrun)} more than expected, and {_gb(max(0, room))} left: "
                "no unit starts until there is room for it"
            )

    def _held_back(self, running: Sequence[Flight]) -> bool:
        """Whether a task would start now if those that run kept to what is expected."""
        jobs, memory, now = self.executor.jobs, self.executor.memory, time.monotonic()
        return self._choose() is None and choose(self.queue, running, jobs=jobs, memory=memory, now=now) is not None

    def start_all(self, submit: Callable[[Task], "Future[ResultT]"]) -> None:
        """Start what may start now; nothing after a failure."""
        while not self.failures and (waiting := self._choose()):
            self.queue.remove(waiting)
            now = time.monotonic()
            flight = Flight(task=waiting.task, alone=waiting.alone, start=now, end=now + waiting.task.cost.seconds)
            self.flights[submit(waiting.task)] = flight
            if len(self.flights) > 1:
                for beside in self.flights.values():
                    beside.company = True

    def _choose(self) -> Waiting | None:
        running = tuple(self.flights.values())
        memory = self.executor.memory - self.overrun
        return choose(self.queue, running, jobs=self.executor.jobs, memory=memory, now=time.monotonic())

    def settle(self, done: "set[Future[ResultT]]") -> None:
        """Take what ended out of the air."""
        for future in done:
            flight = self.flights.pop(future)
            match future.exception():
                case None:
                    self._finish(flight, future.result())
                case Killed() as killed if not self.failures and (flight.company or flight.task.room is not None):
                    self._retry(flight, killed)
                case Killed() as killed:
                    self.failures[flight.task.name] = killed.error
                case HopperforgeError() as error:
                    self.failures[flight.task.name] = error
                case error:
                    raise error

    def _finish(self, flight: Flight, result: ResultT) -> None:
        self.finished[flight.task.name] = result
        self.expected += flight.task.cost.seconds
        self.measured += time.monotonic() - flight.start

    def _retry(self, flight: Flight, killed: Killed) -> None:
        self.executor.reporter.warn(f"{killed.error.sentence}; it is tried once more, alone")
        self.queue.insert(0, _alone(flight.task))

    def progress(self) -> Progress:
        """The moment as the reporter shows it; seconds left are scaled by how wrong the finished tasks' costs were."""
        running = tuple(self.flights.values())
        left = makespan(self.queue, running, jobs=self.executor.jobs, memory=self.executor.memory, now=time.monotonic())
        scale = self.measured / self.expected if self.expected > 0 else 1.0
        return Progress(
            done=len(self.finished),
            total=self.total,
            running=tuple(flight.task.name for flight in running),
            memory=sum(flight.task.cost.peak_rss for flight in running),
            in_use=self.in_use if running else 0,
            seconds_left=left * scale,
        )


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
