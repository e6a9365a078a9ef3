"""What an executor is: tasks with expected costs go in, what finished and what failed comes out.

An executor places work; it does not know what the work is. How a unit is compiled is in `stages.kernels`.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from hopperforge.errors import HopperforgeError
from hopperforge.model.pack import Calm, Cost
from hopperforge.report import Progress

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work: a name unique among its run, and what it is expected to cost.

    `room` is the most bytes it may take where that can be enforced; None is whatever the run has. `calm` says what it
    needs when its peak is over; None is its peak to the end.
    """

    name: str
    cost: Cost
    room: int | None = None
    calm: Calm | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[ResultT]):
    """What a run came to, by task name: every result that was reached, and every deliberate error."""

    finished: Mapping[str, ResultT]
    failures: Mapping[str, HopperforgeError]


class Killed(Exception):  # noqa: N818 - a state the executor acts on, not the failure itself
    """The task's process was killed from outside; `error` is what to report if running it alone is no help."""

    def __init__(self, error: HopperforgeError) -> None:
        super().__init__(str(error))
        self.error = error


Work: TypeAlias = Callable[[Task, threading.Event], ResultT]
"""Does one task and returns its result; called from any thread.

Raises a HopperforgeError for a failure and Killed for a process killed from outside. When the event is set,
it ends what it started and raises `run.process.Cancelled` within a second or so.
"""


class Executor(Protocol):
    """Runs tasks side by side."""

    def run(
        self, tasks: Sequence[Task], work: Work[ResultT], on_progress: Callable[[Progress], None]
    ) -> Outcome[ResultT]:
        """Run every task once, and tell `on_progress` of each start, each end and every half minute.

        The first failure stops new starts, and what is running ends in its own time. KeyboardInterrupt, and an
        exception of `work` that is no HopperforgeError, stop what is running and are raised when it has ended.
        """
