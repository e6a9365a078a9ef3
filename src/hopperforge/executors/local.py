"""The executor of one machine: a thread a task, never more than `jobs`, never above the memory budget.

Costs are expectations, and so is when a peak is over. Where tasks take more, nothing new starts until what is in use
leaves room for it; what is killed all the same is tried again alone, and what is finished stays.

Which task starts when is decided in `executors.schedule`. What a task does is not known here.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final, Generic

from hopperforge.executors.base import Outcome, ResultT, Task, Work
from hopperforge.executors.ledger import Crew, Ledger
from hopperforge.executors.schedule import Flight, Waiting, alone, choose, line_up, makespan, overrun
from hopperforge.report import Progress, Reporter, gigabytes
from hopperforge.run.machine import MemoryMeter

_LOOK_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalExecutor:
    """Runs tasks on this machine: at most `jobs` at once (>= 1), what they are expected to need within `memory` bytes.

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
            ledger: Ledger[ResultT] = Ledger(
                total=len(tasks), queue=line_up(tasks, self.memory), reporter=self.reporter
            )
            turn = _Turn(executor=self, ledger=ledger)
            try:
                while ledger.queue or turn.flights:
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
        return Outcome(finished=ledger.finished, failures=ledger.failures)


@dataclass(slots=True, kw_only=True)
class _Turn(Generic[ResultT]):
    """The state of one run: its ledger, what flies, and the memory that takes."""

    executor: LocalExecutor
    ledger: Ledger[ResultT]
    flights: dict[Future[ResultT], Flight] = field(default_factory=dict)
    in_use: int = 0
    overrun: int = 0
    told: bool = False

    @property
    def running(self) -> tuple[Flight, ...]:
        """What flies."""
        return tuple(self.flights.values())

    def look(self) -> None:
        """Measure what is in use, and say so the first time that it keeps a task from starting."""
        self.in_use = self.executor.in_use() if self.flights else 0
        self.overrun = overrun(self.running, self.in_use, time.monotonic())
        if self.overrun and not self.told and not self.ledger.failures and self._held_back():
            self.told = True
            room = max(0, self.executor.memory - self.in_use)
            self.executor.reporter.note(
                f"{gigabytes(self.in_use)} are in use, {gigabytes(self.overrun)} more than expected, and "
                f"{gigabytes(room)} left: no unit starts until there is room for it"
            )

    def _held_back(self) -> bool:
        """Whether a task would start now if those that run kept to what is expected."""
        return (
            self._choose(self.executor.memory - self.overrun) is None and self._choose(self.executor.memory) is not None
        )

    def start_all(self, submit: Callable[[Task], "Future[ResultT]"]) -> None:
        """Start what may start now; nothing after a failure."""
        while not self.ledger.failures and (waiting := self._choose(self.executor.memory - self.overrun)):
            flight = self.ledger.take_off(waiting)
            self.flights[submit(waiting.task)] = flight
            if len(self.flights) > 1:
                for beside in self.flights.values():
                    beside.company = True

    def _choose(self, memory: int) -> Waiting | None:
        jobs, now = self.executor.jobs, time.monotonic()
        return choose(self.ledger.queue, self.running, jobs=jobs, memory=memory, now=now)

    def settle(self, done: "set[Future[ResultT]]") -> None:
        """Take what ended out of the air."""
        for future in done:
            flight = self.flights.pop(future)
            short = flight.company or flight.task.room is not None
            self.ledger.book(flight, future, again=alone(flight.task) if short else None)
        for flight in self.flights.values():
            flight.pace = self.ledger.pace

    def progress(self) -> Progress:
        """The moment as the reporter shows it."""
        jobs, memory, now = self.executor.jobs, self.executor.memory, time.monotonic()
        left = makespan(self.ledger.queue, self.running, jobs=jobs, memory=memory, now=now)
        return self.ledger.progress(self.running, left=left, in_use=self.in_use if self.flights else 0)
