"""Tasks that need less when their peak is over: who may start beside them, and what is promised to those that wait."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopperforge.executors.base import Task
from hopperforge.executors.ledger import Ledger
from hopperforge.executors.local import LocalExecutor
from hopperforge.executors.schedule import LEAST_PACE, Flight, Waiting, choose, line_up, needed, overrun, play
from hopperforge.model.pack import Calm, Cost
from hopperforge.report import Progress, Recorder

BUDGET = 20


def task(
    name: str, *, seconds: float = 10, peak: int = 8, after: float = 4 / LEAST_PACE, later: int | None = 4
) -> Task:
    """Make a task whose peak is taken to be over at LEAST_PACE * `after`; `later=None` has it at any time."""
    calm = None if later is None else Calm(after=after, rss=later)
    return Task(name=name, cost=Cost(seconds=seconds, peak_rss=peak), calm=calm)


def flight(one: Task, *, start: float = 0, pace: float = LEAST_PACE) -> Flight:
    return Flight(task=one, alone=False, start=start, end=start + one.cost.seconds, pace=pace)


@pytest.mark.parametrize(("now", "need"), [(0, 8), (3.9, 8), (4, 4), (9, 4), (99, 4)])
def test_a_flight_needs_its_peak_until_that_is_over_and_the_rest_until_it_really_ends(now: float, need: int) -> None:
    assert flight(task("a")).need(now) == need
    assert flight(task("a", later=None)).need(now) == 8


def test_a_slower_pace_moves_the_end_of_the_peak() -> None:
    slow = flight(task("a"), pace=1.5 * LEAST_PACE)
    assert (slow.need(5.9), slow.need(6.1)) == (8, 4)


def test_a_task_starts_when_the_peaks_of_others_are_over() -> None:
    running = [flight(task("a")), flight(task("b"))]
    (waiting,) = line_up([task("c")], BUDGET)
    assert choose([waiting], running, jobs=4, memory=BUDGET, now=3.9) is None
    assert choose([waiting], running, jobs=4, memory=BUDGET, now=4) == waiting
    (played,) = play([waiting], running, jobs=4, memory=BUDGET, now=0)
    assert played.start == 4


def test_what_is_past_its_peak_and_holds_more_keeps_others_from_starting() -> None:
    running = [flight(task("a")), flight(task("b"))]
    waiting = line_up([task("c")], BUDGET)
    assert overrun(running, 16, 3.9) == 0
    assert overrun(running, 16, 4) == 8
    assert choose(waiting, running, jobs=4, memory=BUDGET - overrun(running, 16, 4), now=4) is None
    assert choose(waiting, running, jobs=4, memory=BUDGET - overrun(running, 12, 4), now=4) == waiting[0]


def test_a_later_task_that_is_calm_by_then_does_not_put_the_first_off() -> None:
    # the first can start at 20, beside what is left of r; c outlives that moment, and fits if it is calm by then
    running = [flight(task("r", seconds=30, peak=3, later=None)), flight(task("s", seconds=20, peak=9, later=None))]
    first = task("first", seconds=50, peak=13, later=None)
    calm = task("c", seconds=40, peak=8, after=18 / LEAST_PACE, later=4)
    restless = task("c", seconds=40, peak=8, after=22 / LEAST_PACE, later=4)
    for later, chosen in ((calm, True), (restless, False)):
        queue = line_up([first, later], BUDGET)
        found = choose(queue, running, jobs=4, memory=BUDGET, now=0)
        assert found == (queue[1] if chosen else None)


def test_a_later_task_is_expected_to_be_as_slow_as_those_that_run() -> None:
    running = [flight(task("r", seconds=30, peak=3, later=None)), flight(task("s", seconds=20, peak=9, later=None))]
    calm = task("c", seconds=40, peak=8, after=18 / LEAST_PACE, later=4)
    queue = line_up([task("first", seconds=50, peak=13, later=None), calm], BUDGET)
    assert choose(queue, running, jobs=4, memory=BUDGET, now=0) == queue[1]
    running = [replace(each, pace=2 * LEAST_PACE) for each in running]  # calm at 36, and the first can start at 20
    assert choose(queue, running, jobs=4, memory=BUDGET, now=0) is None


COSTS = st.tuples(st.integers(0, 9), st.integers(0, 24), st.integers(0, 6), st.none() | st.integers(0, 100))
TASKS = st.lists(COSTS, max_size=14)


def tasks_of(costs: Sequence[tuple[int, int, int, int | None]]) -> list[Task]:
    return [
        task(
            f"t{number:02}",
            seconds=seconds,
            peak=peak,
            after=after / 2,
            later=None if share is None else peak * share // 100,
        )
        for number, (seconds, peak, after, share) in enumerate(costs)
    ]


def moments(played: Sequence[Flight]) -> set[float]:
    return {moment for each in played for moment in (each.start, each.calm_at, each.end)}


@given(costs=TASKS, jobs=st.integers(1, 5))
def test_no_moment_of_a_played_schedule_is_above_the_budget(
    costs: list[tuple[int, int, int, int | None]], jobs: int
) -> None:
    tasks = tasks_of(costs)
    played = play(line_up(tasks, BUDGET), (), jobs=jobs, memory=BUDGET, now=0)
    assert sorted(each.task.name for each in played) == [each.name for each in tasks]
    for moment in moments(played):
        active = [each for each in played if each.start <= moment < each.end]
        assert len(active) <= jobs
        if any(each.alone for each in active):
            assert len(active) == 1
        else:
            assert needed(active, moment) <= BUDGET


@given(costs=TASKS.filter(bool), around=TASKS, jobs=st.integers(1, 5))
def test_whoever_is_first_starts_no_later_than_if_nobody_else_waited(
    costs: list[tuple[int, int, int, int | None]], around: list[tuple[int, int, int, int | None]], jobs: int
) -> None:
    """No starvation: each becomes the first in its turn, and from then on nothing puts it off."""
    running = play(line_up(tasks_of(around), BUDGET), (), jobs=jobs, memory=BUDGET, now=0)
    running = tuple(each for each in running if each.start == 0 < each.end)
    queue = line_up(tasks_of(costs), BUDGET)
    (by_itself,) = play(queue[:1], running, jobs=jobs, memory=BUDGET, now=0)
    together = play(queue, running, jobs=jobs, memory=BUDGET, now=0)
    assert next(each.start for each in together if each.task == queue[0].task) <= by_itself.start


@given(data=st.data(), costs=TASKS, jobs=st.integers(1, 5))
def test_the_order_in_which_tasks_are_named_changes_nothing(
    data: st.DataObject, costs: list[tuple[int, int, int, int | None]], jobs: int
) -> None:
    tasks = tasks_of(costs)
    shuffled = data.draw(st.permutations(tasks))
    one, other = (
        [(each.task.name, each.start) for each in play(line_up(order, BUDGET), (), jobs=jobs, memory=BUDGET, now=0)]
        for order in (tasks, shuffled)
    )
    assert one == other


def ledger(*, expected: float = 0, measured: float = 0) -> Ledger[str]:
    return Ledger(total=1, queue=[], reporter=Recorder(), expected=expected, measured=measured)


@pytest.mark.parametrize(
    ("expected", "measured", "pace"), [(0, 0, LEAST_PACE), (10, 5, LEAST_PACE), (10, 30, 3.0), (10, 35, 3.5)]
)
def test_what_finished_can_only_slow_the_pace(expected: float, measured: float, pace: float) -> None:
    kept = ledger(expected=expected, measured=measured)
    assert kept.pace == pace
    kept.queue.append(Waiting(task=task("a"), alone=False))
    assert kept.take_off(kept.queue[0]).pace == pace


def run(
    tasks: Sequence[Task], work: "dict[str, threading.Event]", *, jobs: int
) -> tuple[dict[str, float], list[Progress]]:
    """Run tasks that each end when their event is set; when they started, in seconds, and every moment told."""
    begun: dict[str, float] = {}
    told: list[Progress] = []
    start = time.monotonic()

    def do(each: Task, _: threading.Event) -> None:
        begun[each.name] = time.monotonic() - start
        if each.name == "next":
            for event in work.values():
                event.set()
        assert work[each.name].wait(20)

    executor = LocalExecutor(jobs=jobs, memory=BUDGET, reporter=Recorder(), in_use=lambda: 0)
    assert not executor.run(tasks, do, told.append).failures
    return begun, told


def test_the_executor_starts_a_task_while_those_past_their_peaks_go_on() -> None:
    """The first two end only once the third has begun, which their peaks leave no room for."""
    tasks = [task(name, seconds=seconds, after=0.1) for name, seconds in (("a", 9), ("b", 8), ("next", 7))]
    begun, told = run(tasks, {each.name: threading.Event() for each in tasks}, jobs=4)
    assert begun["next"] >= 0.2
    assert (told[0].running, told[0].memory) == (("a", "b"), 16)
    beside = next(each for each in told if "next" in each.running)
    assert (beside.running, beside.memory) == (("a", "b", "next"), 16)


def test_what_flies_is_held_to_be_as_slow_as_what_has_landed() -> None:
    """`slow` takes ten times its seconds; so the peak of `long` lasts longer than at the pace it started with."""
    tasks = [
        task("long", seconds=9, after=0.3),
        task("slow", seconds=0.02, peak=4),
        task("next", seconds=0.01, peak=13),
    ]
    events = {each.name: threading.Event() for each in tasks}
    threading.Timer(0.2, events["slow"].set).start()
    begun, _ = run(tasks, events, jobs=4)
    assert begun["next"] >= 0.3 * 0.2 / 0.02
