"""The local executor keeps its promises about jobs, memory, order, failures and interrupts, with real threads."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hopperforge.errors import CompileError, HopperforgeError
from hopperforge.executors.base import Executor, Killed, Outcome, Task
from hopperforge.executors.local import LocalExecutor
from hopperforge.executors.schedule import Flight, Waiting, choose, line_up, makespan, overrun, play
from hopperforge.model.pack import Cost
from hopperforge.report import Progress, Recorder
from hopperforge.run.process import Cancelled

TICK = 0.02


def task(name: str, seconds: float, memory: int) -> Task:
    return Task(name=name, cost=Cost(seconds=seconds, peak_rss=memory))


@dataclass
class Gauge:
    """A work function that records what ran beside what."""

    tasks: dict[str, Task]
    naps: float = TICK
    lock: threading.Lock = field(default_factory=threading.Lock)
    running: set[str] = field(default_factory=set)
    started: list[str] = field(default_factory=list)
    most_jobs: int = 0
    most_memory: int = 0
    beside: dict[str, set[str]] = field(default_factory=dict)

    def __call__(self, work: Task, stop: threading.Event) -> str:
        """Take a nap in place of work."""
        with self.lock:
            self.running.add(work.name)
            self.started.append(work.name)
            self.most_jobs = max(self.most_jobs, len(self.running))
            self.most_memory = max(self.most_memory, sum(self.tasks[name].cost.peak_rss for name in self.running))
            for name in self.running:
                self.beside.setdefault(name, set()).update(self.running)
        stop.wait(self.naps)
        with self.lock:
            self.running.discard(work.name)
        return work.name.upper()


def execute(
    tasks: Sequence[Task],
    work: Callable[[Task, threading.Event], str],
    *,
    jobs: int,
    memory: int,
    reporter: Recorder | None = None,
    moments: list[Progress] | None = None,
    in_use: Callable[[], int] | None = None,
) -> Outcome[str]:
    executor: Executor = LocalExecutor(
        jobs=jobs, memory=memory, reporter=reporter or Recorder(), in_use=in_use or (lambda: 0)
    )
    return executor.run(tasks, work, (moments if moments is not None else []).append)


def gauge(tasks: Sequence[Task]) -> Gauge:
    return Gauge(tasks={each.name: each for each in tasks})


def test_every_result_is_returned_by_name() -> None:
    tasks = [task("a", 1, 1), task("b", 2, 1)]
    outcome = execute(tasks, gauge(tasks), jobs=2, memory=10)
    assert outcome.finished == {"a": "A", "b": "B"}
    assert outcome.failures == {}


def test_no_tasks_end_at_once_with_one_last_moment() -> None:
    moments: list[Progress] = []
    assert execute([], gauge([]), jobs=2, memory=10, moments=moments).finished == {}
    assert moments == [Progress(done=0, total=0, running=(), memory=0, in_use=0, seconds_left=0.0)]


def test_never_more_than_jobs_and_all_jobs_used() -> None:
    tasks = [task(f"t{number}", number, 1) for number in range(9)]
    seen = gauge(tasks)
    execute(tasks, seen, jobs=3, memory=1000)
    assert seen.most_jobs == 3


def test_never_above_the_memory_budget_and_the_budget_is_used() -> None:
    tasks = [task(f"t{number}", number, 4) for number in range(6)]
    seen = gauge(tasks)
    execute(tasks, seen, jobs=6, memory=9)
    assert (seen.most_jobs, seen.most_memory) == (2, 8)


def test_longest_first_and_ties_by_name() -> None:
    tasks = [task("short", 1, 1), task("b", 5, 1), task("long", 9, 1), task("a", 5, 1)]
    seen = gauge(tasks)
    execute(tasks, seen, jobs=1, memory=10)
    assert seen.started == ["long", "a", "b", "short"]


def test_a_task_above_the_budget_runs_alone() -> None:
    tasks = [task("huge", 2, 99), task("a", 3, 1), task("b", 1, 1)]
    seen = gauge(tasks)
    outcome = execute(tasks, seen, jobs=3, memory=10)
    assert set(outcome.finished) == {"a", "b", "huge"}
    assert seen.beside["huge"] == {"huge"}


def test_a_failure_stops_new_starts_and_keeps_what_was_running() -> None:
    def work(each: Task, stop: threading.Event) -> str:
        if each.name == "bad":
            raise CompileError("no good")
        stop.wait(4 * TICK)
        assert not stop.is_set()
        return each.name

    outcome = execute([task("bad", 9, 1), task("good", 8, 1), task("late", 1, 1)], work, jobs=2, memory=10)
    assert outcome.finished == {"good": "good"}
    assert [str(error) for error in outcome.failures.values()] == ["no good"]


def test_every_failure_is_kept() -> None:
    together = threading.Barrier(2)

    def work(each: Task, _: threading.Event) -> str:
        together.wait(5)
        raise CompileError(each.name)

    outcome = execute([task("a", 1, 1), task("b", 1, 1)], work, jobs=2, memory=10)
    assert set(outcome.failures) == {"a", "b"}


def test_a_bug_in_the_work_stops_the_others_and_is_raised() -> None:
    stopped = threading.Event()

    def work(each: Task, stop: threading.Event) -> str:
        if each.name == "bug":
            raise ZeroDivisionError
        assert stop.wait(5)
        stopped.set()
        raise Cancelled

    with pytest.raises(ZeroDivisionError):
        execute([task("other", 9, 1), task("bug", 1, 1)], work, jobs=2, memory=10)
    assert stopped.is_set()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt: a shell that starts us in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_stops_the_workers_at_once_and_is_raised() -> None:
    ended: list[str] = []
    together = threading.Barrier(2)

    def work(each: Task, stop: threading.Event) -> str:
        if together.wait(5) == 0:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert stop.wait(10)
        ended.append(each.name)
        raise Cancelled

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        execute([task("a", 1, 1), task("b", 1, 1), task("never", 0.5, 1)], work, jobs=2, memory=10)
    assert time.monotonic() - begin < 5  # the workers themselves would wait for ten
    assert sorted(ended) == ["a", "b"]


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_in_the_middle_of_a_start_waits_for_the_worker_too() -> None:
    ended: list[str] = []

    def work(each: Task, stop: threading.Event) -> str:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert stop.wait(10)
        time.sleep(TICK)
        ended.append(each.name)
        raise Cancelled

    with pytest.raises(KeyboardInterrupt):
        execute([task("a", 1, 1)], work, jobs=1, memory=10)
    assert ended == ["a"]


@dataclass
class Deadly:
    """Work in which one task is killed its first `deaths` times."""

    victim: str
    deaths: int
    seen: Gauge
    alone: list[bool] = field(default_factory=list)

    def __call__(self, work: Task, stop: threading.Event) -> str:
        """Die or take a nap."""
        if work.name == self.victim:
            # the others are started by the same loop turn; wait until they run
            time.sleep(TICK)
            self.alone.append(not self.seen.running)
            if len(self.alone) <= self.deaths:
                raise Killed(CompileError(f"{work.name} was killed"))
        return self.seen(work, stop)


def deadly(tasks: Sequence[Task], *, victim: str, deaths: int) -> Deadly:
    return Deadly(victim=victim, deaths=deaths, seen=Gauge(tasks={each.name: each for each in tasks}, naps=5 * TICK))


def test_a_task_killed_in_company_is_tried_once_more_alone() -> None:
    tasks = [task("victim", 9, 1), task("a", 8, 1), task("b", 7, 1), task("c", 1, 1)]
    work, reporter = deadly(tasks, victim="victim", deaths=1), Recorder()
    outcome = execute(tasks, work, jobs=3, memory=10, reporter=reporter)
    assert set(outcome.finished) == {"victim", "a", "b", "c"}
    assert work.alone == [False, True]
    assert work.seen.beside["victim"] == {"victim"}
    assert reporter.warnings == ["victim was killed; it is tried once more, alone"]


def test_a_task_killed_again_alone_fails() -> None:
    tasks = [task("victim", 9, 1), task("a", 8, 1)]
    work = deadly(tasks, victim="victim", deaths=2)
    outcome = execute(tasks, work, jobs=2, memory=10)
    assert work.alone == [False, True]
    assert isinstance(outcome.failures["victim"], HopperforgeError)


def test_a_task_killed_when_alone_is_not_tried_again() -> None:
    tasks = [task("victim", 9, 1)]
    work, reporter = deadly(tasks, victim="victim", deaths=1), Recorder()
    outcome = execute(tasks, work, jobs=2, memory=10, reporter=reporter)
    assert str(outcome.failures["victim"]) == "victim was killed"
    assert reporter.warnings == []


def test_progress_counts_names_and_reserves() -> None:
    moments: list[Progress] = []
    tasks = [task("a", 4, 3), task("b", 2, 2), task("c", 1, 1)]
    execute(tasks, gauge(tasks), jobs=2, memory=10, moments=moments)
    first, last = moments[0], moments[-1]
    assert (first.done, first.total, first.running, first.memory) == (0, 3, ("a", "b"), 5)
    assert first.seconds_left == pytest.approx(4, abs=0.5)
    assert last == Progress(done=3, total=3, running=(), memory=0, in_use=0, seconds_left=0.0)


def flight(name: str, *, memory: int, end: float, alone: bool = False) -> Flight:
    return Flight(task=task(name, end, memory), alone=alone, start=0, end=end)


def chosen(queue: Sequence[Task], running: Sequence[Flight], *, jobs: int = 4, memory: int = 10) -> str | None:
    waiting = choose(line_up(queue, memory), running, jobs=jobs, memory=memory, now=0)
    return None if waiting is None else waiting.task.name


@pytest.mark.parametrize(
    ("queue", "running", "answer"),
    [
        ([], [], None),
        ([task("huge", 1, 99)], [], "huge"),
        ([task("huge", 1, 99)], [flight("r", memory=1, end=5)], None),
        ([task("a", 9, 2)], [flight("huge", memory=99, end=5, alone=True)], None),
        ([task("a", 9, 2), task("b", 1, 1)], [flight("r", memory=8, end=5)], "a"),
        # a does not fit until 5; b ends before that, c does not
        ([task("a", 9, 6), task("c", 8, 2), task("b", 4, 2)], [flight("r", memory=8, end=5)], "c"),
        ([task("a", 9, 9), task("c", 8, 2), task("b", 4, 2)], [flight("r", memory=8, end=5)], "b"),
        ([task("a", 9, 9), task("c", 8, 2)], [flight("r", memory=8, end=5)], None),
        # once a runs, 1 byte is spare: d may go on beside it
        ([task("a", 9, 9), task("d", 8, 1)], [flight("r", memory=8, end=5)], "d"),
    ],
)
def test_choose(queue: Sequence[Task], running: Sequence[Flight], answer: str | None) -> None:
    assert chosen(queue, running) == answer


def test_a_full_machine_starts_nothing() -> None:
    running = [flight("r", memory=1, end=5), flight("s", memory=1, end=5)]
    assert chosen([task("a", 1, 1)], running, jobs=2) is None


def test_backfilling_leaves_the_first_a_job_of_its_own() -> None:
    # at 5 r ends and a starts; s and d would hold both jobs
    running = [flight("r", memory=6, end=5), flight("s", memory=1, end=9)]
    queue = [task("a", 9, 5), task("d", 8, 1)]
    assert chosen(queue, running, jobs=3) == "d"
    assert chosen([task("a", 9, 5), task("d", 8, 1)], [*running, flight("t", memory=1, end=9)], jobs=4) == "d"
    assert chosen([task("a", 9, 9), task("d", 8, 1)], running, jobs=3) is None


def test_makespan_of_known_schedules() -> None:
    def seconds(tasks: Sequence[Task], jobs: int, memory: int = 10) -> float:
        return makespan(line_up(tasks, memory), (), jobs=jobs, memory=memory, now=0)

    four = [task(name, 3, 4) for name in "abcd"]
    assert seconds(four, 4) == 6  # memory for two
    assert seconds(four, 4, 16) == 3
    assert seconds(four, 1) == 12
    assert seconds([], 1) == 0
    assert seconds([task("huge", 5, 99), *four], 4) == 11


def test_makespan_counts_what_already_runs() -> None:
    queue = [Waiting(task=task("a", 3, 1), alone=False)]
    assert makespan(queue, [flight("r", memory=1, end=7)], jobs=1, memory=10, now=5) == 5
    assert makespan(queue, [flight("overdue", memory=1, end=2)], jobs=1, memory=10, now=5) == 3


TASKS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 12)), max_size=12)


@given(costs=TASKS, jobs=st.integers(1, 4))
def test_a_played_schedule_keeps_between_its_bounds(costs: list[tuple[int, int]], jobs: int) -> None:
    tasks = [task(f"t{number}", seconds, memory) for number, (seconds, memory) in enumerate(costs)]
    total = sum(seconds for seconds, _ in costs)
    played = makespan(line_up(tasks, 10), (), jobs=jobs, memory=10, now=0)
    assert max([total / jobs, *(seconds for seconds, _ in costs)]) <= played + 1e-9
    assert played <= total


@settings(max_examples=25, deadline=None)
@given(costs=TASKS, jobs=st.integers(1, 4))
def test_limits_hold_for_any_tasks(costs: list[tuple[int, int]], jobs: int) -> None:
    tasks = [task(f"t{number}", seconds, memory) for number, (seconds, memory) in enumerate(costs)]
    seen = Gauge(tasks={each.name: each for each in tasks}, naps=0.001)
    outcome = execute(tasks, seen, jobs=jobs, memory=10)
    assert len(outcome.finished) == len(tasks)
    assert seen.most_jobs <= jobs
    assert seen.most_memory <= max([10, *(each.cost.peak_rss for each in tasks)])
    for each in tasks:
        if each.cost.peak_rss > 10:
            assert seen.beside[each.name] == {each.name}


def test_a_task_that_had_less_than_the_budget_is_tried_again_with_all_of_it() -> None:
    """A container's limit may kill a task that nothing ran beside."""
    rooms: list[int | None] = []

    def work(each: Task, _: threading.Event) -> str:
        rooms.append(each.room)
        if each.room is not None:
            raise Killed(CompileError(f"{each.name} was killed"))
        return each.name

    reporter = Recorder()
    alone = Task(name="a", cost=Cost(seconds=1, peak_rss=4), room=6)
    assert execute([alone], work, jobs=2, memory=10, reporter=reporter).finished == {"a": "a"}
    assert rooms == [6, None]
    assert reporter.warnings == ["a was killed; it is tried once more, alone"]


def test_a_task_above_the_budget_may_have_all_of_it() -> None:
    (waiting,) = line_up([Task(name="huge", cost=Cost(seconds=1, peak_rss=99), room=120)], 10)
    assert (waiting.alone, waiting.task.room) == (True, None)


def test_nothing_starts_beside_tasks_that_leave_no_room_and_it_is_said_once() -> None:
    """Two of four fit by what is expected; one of the first two ends early, and the other holds the whole budget."""
    tasks = [task(f"t{number}", 9 - number, 3_000_000_000) for number in range(4)]
    seen, reporter = gauge(tasks), Recorder()
    longer = Gauge(tasks=seen.tasks, naps=10 * TICK, lock=seen.lock, running=seen.running, beside=seen.beside)
    begun, over = threading.Event(), threading.Event()

    def work(each: Task, stop: threading.Event) -> str:
        if each.name != "t1":
            assert begun.wait(10)
            return seen(each, stop)
        begun.set()
        done = longer(each, stop)
        over.set()
        return done

    def in_use() -> int:
        return 9_000_000_000 if begun.is_set() and not over.is_set() else 0

    outcome = execute(tasks, work, jobs=2, memory=9_000_000_000, reporter=reporter, in_use=in_use)
    assert len(outcome.finished) == 4
    assert seen.beside["t2"] <= {"t2", "t3"}
    assert reporter.notes == [
        "9.0 GB are in use, 6.0 GB more than expected, and 0.0 GB left: no unit starts until there is room for it"
    ]


@pytest.mark.parametrize(("in_use", "expected"), [(0, 0), (7, 0), (9, 2)])
def test_overrun_is_what_goes_beyond_the_expected_peaks(in_use: int, expected: int) -> None:
    assert overrun([flight("r", memory=3, end=1), flight("s", memory=4, end=1)], in_use, 0) == expected


RUNNING = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 6)), max_size=4)


@given(queue=TASKS, running=RUNNING, jobs=st.integers(1, 6), in_use=st.integers(0, 40))
def test_what_starts_fits_beside_what_is_expected_and_beside_what_is_in_use(
    queue: list[tuple[int, int]], running: list[tuple[int, int]], jobs: int, in_use: int
) -> None:
    """The pause rule: nothing starts that expected peaks, or memory in use, leave no room for; alone anything does."""
    waiting = line_up([task(f"t{number}", seconds, memory) for number, (seconds, memory) in enumerate(queue)], 20)
    flights = [flight(f"r{number}", memory=memory, end=end) for number, (end, memory) in enumerate(running)]
    expected = sum(each.task.cost.peak_rss for each in flights)
    found = choose(waiting, flights, jobs=jobs, memory=20 - overrun(flights, in_use, 0), now=0)
    if not flights:
        assert found == next(iter(waiting), None)
    elif found is not None:
        assert len(flights) < jobs
        assert max(expected, in_use) + found.task.cost.peak_rss <= 20


@given(costs=TASKS, jobs=st.integers(1, 5))
def test_a_played_schedule_never_exceeds_jobs_or_the_budget(costs: list[tuple[int, int]], jobs: int) -> None:
    tasks = [task(f"t{number}", seconds, memory) for number, (seconds, memory) in enumerate(costs)]
    played = play(line_up(tasks, 10), (), jobs=jobs, memory=10, now=0)
    assert sorted(each.task.name for each in played) == sorted(each.name for each in tasks)
    for moment in {each.start for each in played}:
        active = [each for each in played if each.start <= moment < each.end]
        assert len(active) <= jobs
        assert sum(each.task.cost.peak_rss for each in active) <= 10 or len(active) == 1
