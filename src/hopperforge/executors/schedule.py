"""Which task starts when: pure functions over expected costs. Executors only obey them.

Costs are expectations, in seconds and bytes; what a task does is not known here. At one pace what a task needs never
grows: its peak is set aside from the start, and where it is known to need less later (`model.pack.Calm`), less from
then on. So what fits now fits ever after beside those that run, and looking ahead is needed only for when others can
start.
Where the pace turns out to be slower, a peak that was taken to be over is set aside again, and starts wait for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Final

from hopperforge.executors.base import Task

LEAST_PACE: Final = 3.0
"""How many times as long as expected a task's peak is held to last at least: 2.2 to 3.6 was seen on busy machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A task not yet started; `alone` if nothing else may run beside it, and it may then have the whole budget."""

    task: Task
    alone: bool


@dataclass(slots=True, kw_only=True)
class Flight:
    """A task that runs: when it started and is expected to end, and whether anything ever ran beside it.

    `pace` is how many times as long as expected things take; it moves the end of the task's peak.
    """

    task: Task
    alone: bool
    start: float
    end: float
    company: bool = False
    pace: float = LEAST_PACE

    @property
    def calm_at(self) -> float:
        """When its peak is taken to be over."""
        return inf if self.task.calm is None else self.start + self.pace * self.task.calm.after

    def need(self, now: float) -> int:
        """Bytes set aside for the task at a moment from its start on, until it really ends."""
        if self.task.calm is None or now < self.calm_at:
            return self.task.cost.peak_rss
        return self.task.calm.rss

    def turn_after(self, moment: float) -> float:
        """When it is next expected to need less: its peak is over, or it ends; at once if that is overdue."""
        return self.calm_at if moment < self.calm_at < self.end else max(moment, self.end)


def line_up(tasks: Sequence[Task], memory: int) -> list[Waiting]:
    """Order tasks longest first; one that exceeds the budget by itself must run alone."""
    ordered = sorted(tasks, key=lambda task: (-task.cost.seconds, task.name))
    return [alone(task) if task.cost.peak_rss > memory else Waiting(task=task, alone=False) for task in ordered]


def alone(task: Task) -> Waiting:
    """Have a task wait for a turn with nothing beside it and everything to itself."""
    return Waiting(task=replace(task, room=None), alone=True)


def take_off(waiting: Waiting, now: float, pace: float = LEAST_PACE) -> Flight:
    """Have a task start now, and end when its cost says."""
    task = waiting.task
    return Flight(task=task, alone=waiting.alone, start=now, end=now + task.cost.seconds, pace=pace)


def needed(running: Sequence[Flight], now: float) -> int:
    """Bytes set aside at a moment for the tasks that run."""
    return sum(flight.need(now) for flight in running)


def overrun(running: Sequence[Flight], in_use: int, now: float) -> int:
    """Bytes in use beyond what is set aside for the running tasks; 0 while they keep to it."""
    return max(0, in_use - needed(running, now))


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
    free = memory - needed(running, now)
    if not first.alone and first.task.cost.peak_rss <= free:
        return first
    begin, spare = _reservation(first, running, jobs=jobs, memory=memory, now=now)
    pace = max(flight.pace for flight in running)  # theirs follows what has ended
    for waiting in later:
        flight = take_off(waiting, now, pace)
        out_of_the_way = flight.end <= begin or flight.need(begin) <= spare
        if not waiting.alone and waiting.task.cost.peak_rss <= free and out_of_the_way:
            return waiting
    return None


def _reservation(first: Waiting, running: Sequence[Flight], *, jobs: int, memory: int, now: float) -> tuple[float, int]:
    """When `first` can start if nothing else does, and the bytes that then stay free for a task started now.

    They are -1 where none may go on then, not even one that needs nothing.
    """
    left, begin = list(running), now
    while left:
        begin = min(flight.turn_after(begin) for flight in left)
        left = [flight for flight in left if flight.end > begin]
        spare = memory - needed(left, begin) - first.task.cost.peak_rss
        if not first.alone and spare >= 0:
            return begin, spare if len(left) + 2 <= jobs else -1
    return begin, -1


def play(
    queue: Sequence[Waiting], running: Sequence[Flight], *, jobs: int, memory: int, now: float
) -> tuple[Flight, ...]:
    """Play the schedule through on expected costs: every task of `queue`, by start, with its expected end."""
    queue, played, active, clock = list(queue), list[Flight](), list(running), now
    while queue:
        while waiting := choose(queue, active, jobs=jobs, memory=memory, now=clock):
            queue.remove(waiting)
            played.append(take_off(waiting, clock))
            active.append(played[-1])
        clock = min(flight.turn_after(clock) for flight in active)
        active = [flight for flight in active if flight.end > clock]
    return tuple(played)


def makespan(queue: Sequence[Waiting], running: Sequence[Flight], *, jobs: int, memory: int, now: float) -> float:
    """Seconds from `now` until the last task ends, of those that run and those that wait, on expected costs."""
    played = play(queue, running, jobs=jobs, memory=memory, now=now)
    return max([now, *(flight.end for flight in (*running, *played))]) - now
