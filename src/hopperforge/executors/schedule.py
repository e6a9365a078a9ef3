"""Which task starts when: pure functions over expected costs. Executors only obey them.

Costs are expectations, in seconds and bytes; what a task does is not known here.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hopperforge.executors.base import Task


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
    return [alone(task) if task.cost.peak_rss > memory else Waiting(task=task, alone=False) for task in ordered]


def alone(task: Task) -> Waiting:
    """Have a task wait for a turn with nothing beside it and everything to itself."""
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
