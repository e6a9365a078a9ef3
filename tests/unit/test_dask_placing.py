"""Which task goes to which worker of a cluster, and how long the rest takes: pure decisions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopperforge.executors.base import Task
from hopperforge.executors.dask import Seat, place, seconds_left, steady
from hopperforge.executors.dask_cluster import Worker, version_difference
from hopperforge.executors.schedule import Flight, Waiting, line_up
from hopperforge.model.pack import Calm, Cost


def worker(name: str, memory: int, threads: int = 4) -> Worker:
    return Worker(address=name, name=name, process="1", threads=threads, memory=memory)


def waiting(name: str, seconds: float, memory: int, *, alone: bool = False) -> Waiting:
    return Waiting(task=Task(name=name, cost=Cost(seconds=seconds, peak_rss=memory)), alone=alone)


def seat(one: Waiting, where: Worker) -> Seat:
    flight = Flight(task=one.task, alone=one.alone, start=0.0, end=one.task.cost.seconds)
    return Seat(flight=flight, worker=where)


def test_the_worker_with_most_free_memory_gets_the_longest_task() -> None:
    small, large = worker("small", 10), worker("large", 20)
    queue = [waiting("long", 9, 8), waiting("short", 1, 8)]
    assert place(queue, [small, large], [], now=0.0) == (queue[0], large)
    assert place(queue[1:], [small, large], [seat(queue[0], large)], now=0.0) == (queue[1], large)


def test_a_task_too_large_for_one_worker_does_not_hold_up_its_queue() -> None:
    small, large = worker("small", 10), worker("large", 20, threads=1)
    queue = [waiting("big", 9, 15), waiting("short", 100, 8)]
    busy = [seat(waiting("other", 50, 1), large)]
    assert place(queue, [small, large], busy, now=0.0) == (queue[1], small)


def test_nothing_is_placed_without_a_worker_or_room() -> None:
    queue = [waiting("a", 1, 8)]
    assert place(queue, [], [], now=0.0) is None
    only = worker("only", 10)
    assert place(queue, [only], [seat(waiting("b", 1, 8), only)], now=0.0) is None


def test_a_task_that_must_be_alone_waits_for_an_empty_worker() -> None:
    only = worker("only", 10)
    queue = [waiting("a", 1, 2, alone=True)]
    assert place(queue, [only], [seat(waiting("b", 1, 2), only)], now=0.0) is None
    assert place(queue, [only], [], now=0.0) == (queue[0], only)


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(1, 12)), max_size=12),
    st.lists(st.tuples(st.integers(4, 20), st.integers(1, 4)), min_size=1, max_size=3),
)
def test_no_worker_is_given_more_than_it_has(tasks: list[tuple[int, int]], sizes: list[tuple[int, int]]) -> None:
    workers = [worker(f"w{index}", memory, threads) for index, (memory, threads) in enumerate(sizes)]
    named = [waiting(f"t{index}", seconds, memory) for index, (seconds, memory) in enumerate(tasks)]
    queue = line_up([each.task for each in named], 1 << 62)
    seats: list[Seat] = []
    while (placed := place(queue, workers, seats, now=0.0)) is not None:
        queue.remove(placed[0])
        seats.append(seat(*placed))
    for each in workers:
        mine = [one.flight.task.cost.peak_rss for one in seats if one.worker == each]
        assert len(mine) <= each.threads
        assert sum(mine) <= each.memory
        if not mine:
            assert all(left.task.cost.peak_rss > each.memory for left in queue)


def test_a_worker_lends_a_task_its_peak_to_the_end() -> None:
    """Dask would not start the second before the first ends: to send it there would only keep it from others."""
    only = worker("only", 10)
    tasks = [
        Task(name=name, cost=Cost(seconds=seconds, peak_rss=6), calm=Calm(after=0, rss=1))
        for name, seconds in (("a", 9), ("b", 8))
    ]
    first, second = line_up(tasks, 1 << 62)
    assert place([second], [only], [seat(first, only)], now=1.0) == (second, only)
    first, second = line_up(steady(tasks), 1 << 62)
    assert place([second], [only], [seat(first, only)], now=1.0) is None


def test_time_left_is_bound_by_the_longest_task_and_by_the_work() -> None:
    workers = [worker("a", 10, threads=2), worker("b", 10, threads=2)]
    one = [waiting("t", 30, 5)]
    assert seconds_left([], workers, [], now=0.0) == 0.0
    assert seconds_left(one, workers, [], now=0.0) == 30
    assert seconds_left([waiting(f"t{n}", 30, 5) for n in range(8)], workers, [], now=0.0) == 60
    assert seconds_left([], workers, [seat(one[0], workers[0])], now=10.0) == 20


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        ({}, None),
        ({"python": "3.11.99"}, None),
        ({"python": "3.12.1"}, "it has python 3.12.1 where this machine has 3.11.7"),
        (
            {"hopperforge": "missing", "dask": "1"},
            "it has hopperforge missing where this machine has 0.1, dask 1 where this machine has 2",
        ),
    ],
)
def test_versions_are_compared(theirs: dict[str, str], reason: str | None) -> None:
    ours = {"python": "3.11.7", "hopperforge": "0.1", "distributed": "2", "dask": "2"}
    assert version_difference(ours, {**ours, **theirs}) == reason
