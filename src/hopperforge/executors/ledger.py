"""What every executor keeps of a run, wherever its tasks are done: who works, what waits, and what came of the rest."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic

from hopperforge.errors import HopperforgeError
from hopperforge.executors.base import Killed, ResultT, Task, Work
from hopperforge.executors.schedule import LEAST_PACE, Flight, Waiting, needed, take_off
from hopperforge.report import Progress, Reporter
from hopperforge.run.process import Cancelled


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
class Ledger(Generic[ResultT]):
    """What waits, what finished and what failed of `total` tasks, and how far costs were off: seconds, of the finished.

    What runs is the executor's to know.
    """

    total: int
    queue: list[Waiting]
    reporter: Reporter
    finished: dict[str, ResultT] = field(default_factory=dict)
    failures: dict[str, HopperforgeError] = field(default_factory=dict)
    expected: float = 0.0
    measured: float = 0.0

    @property
    def pace(self) -> float:
        """How many times as long as expected a peak is taken to last: as what finished did, and `LEAST_PACE` at least.

        What ends first is the short and the quick, so it says that a machine is slow, and never that it is not.
        """
        return max(LEAST_PACE, self.measured / self.expected) if self.expected > 0 else LEAST_PACE

    def take_off(self, waiting: Waiting) -> Flight:
        """Take a task from the queue: it starts now, and is expected to end when its cost says."""
        self.queue.remove(waiting)
        return take_off(waiting, time.monotonic(), self.pace)

    def book(self, flight: Flight, future: Future[ResultT], *, again: Waiting | None) -> None:
        """Write down how a task ended. One that was killed waits `again`, unless that is None or something failed.

        An exception of its work that is no HopperforgeError is raised.
        """
        match future.exception():
            case None:
                self.finished[flight.task.name] = future.result()
                self.expected += flight.task.cost.seconds
                self.measured += time.monotonic() - flight.start
            case Killed() as killed if again is not None and not self.failures:
                self.reporter.warn(f"{killed.error.sentence}; it is tried once more, alone")
                self.queue.insert(0, again)
            case Killed() as killed:
                self.failures[flight.task.name] = killed.error
            case HopperforgeError() as error:
                self.failures[flight.task.name] = error
            case error:
                raise error

    def progress(self, running: Sequence[Flight], *, left: float, in_use: int | None) -> Progress:
        """The moment as the reporter shows it; `left`, in seconds, is scaled by how wrong the finished costs were."""
        scale = self.measured / self.expected if self.expected > 0 else 1.0
        return Progress(
            done=len(self.finished),
            total=self.total,
            running=tuple(flight.task.name for flight in running),
            memory=needed(running, time.monotonic()),
            in_use=in_use,
            seconds_left=left * scale,
        )
