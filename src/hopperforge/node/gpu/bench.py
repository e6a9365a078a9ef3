"""Bench: every implementation over a grid of shapes, in turns, beside the GPU's own matmul."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Callable

from hopperforge.node.gpu.backends import FOREIGN, Absent, Backend, first_line, need_backends
from hopperforge.node.gpu.clocks import Clocks, Meter, Reading
from hopperforge.node.gpu.inputs import bound_of, error_of, make_inputs, task_of
from hopperforge.node.gpu.timing import Spread, Task, Timer
from hopperforge.node.gpu.words import BenchWords, Shape

MATMUL = 8192  # rows and columns of the matrices whose product is taken for the peak
MATMUL_SAMPLES = 20
LONGEST_TURN = 150.0  # ms: what is slower than its samples allow gets fewer of them
NO_MEMORY = "needs more memory than there is"


@dataclass(frozen=True)
class Row:
    """One implementation at one shape: its times in ms, its clocks under load, its error; or why it has none."""

    shape: Shape
    backend: str
    times: Spread | None
    tflops: float | None
    of_matmul: float | None
    error: float | None
    clocks: Clocks | None
    reason: str | None

    @property
    def wrong(self) -> bool:
        """Whether it computed something else than attention."""
        return self.error is not None and not self.error <= bound_of(self.shape)


@dataclass(frozen=True)
class Bench:
    """Everything that was measured; `matmul` is TFLOP/s of bf16 before and after, `before` and `after` idle looks."""

    matmul: tuple[float, float]
    backends: tuple[Backend, ...]
    absent: tuple[Absent, ...]
    highest_mhz: int | None
    before: Reading
    after: Reading
    rows: tuple[Row, ...]

    @property
    def peak(self) -> float:
        """The GPU's own matmul peak in TFLOP/s: the better of the two."""
        return max(self.matmul)

    @property
    def sound(self) -> bool:
        """Whether something was timed, and nothing computed something else than attention."""
        return any(row.times is not None for row in self.rows) and not any(row.wrong for row in self.rows)


def run_bench(torch: Any, asked: BenchWords, meter: Meter, on_rows: Callable[[Sequence[Row]], None]) -> Bench:
    """Measure everything; `on_rows` is told the rows of each shape as soon as it is done.

    NothingMeasuredError where there is no implementation to measure.
    """
    backends, absent = need_backends(torch, asked.backends)
    before = meter.read()
    contest = _Contest(torch, asked, meter)
    first = contest.matmul()
    rows: list[Row] = []
    for shape in asked.shapes():
        found = [_row(shape, one, first) for one in contest.held(shape, backends)]
        rows += found
        on_rows(found)
    last = contest.matmul()
    peak = max(first, last)
    return Bench(
        matmul=(first, last),
        backends=backends,
        absent=absent,
        highest_mhz=meter.highest(),
        before=before,
        after=meter.read(),
        rows=tuple(scaled(row, peak) for row in rows),
    )


def scaled(row: Row, peak: float) -> Row:
    """Take the share of another peak."""
    return row if row.tflops is None else replace(row, of_matmul=row.tflops / peak)


class _Contender:
    """An implementation at one shape, its samples so far, or the reason why it is out."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.error: float | None = None
        self.reason: str | None = None
        self.task: Task | None = None
        self.samples = 1
        self.queueing = 0.0
        self.times: list[float] = []
        self.readings: list[Reading] = []


class _Contest:
    """What all shapes have in common: the timer, and the error of each implementation, once for all lengths."""

    def __init__(self, torch: Any, asked: BenchWords, meter: Meter) -> None:
        self._torch = torch
        self._asked = asked
        self._meter = meter
        self._timer = Timer(torch, cold=True)
        self._errors: dict[tuple[str, int, str, bool, str], float] = {}

    def matmul(self) -> float:
        """Measure the TFLOP/s of a large bf16 product: what this GPU gives at its best, with its clocks as they are."""
        torch = self._torch
        one, other = (torch.randn(MATMUL, MATMUL, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        task = Task(lambda _: torch.matmul(one, other))
        _, queueing = self._timer.warm_up(task)
        spread = Spread.of(self._timer.turn(task, MATMUL_SAMPLES, queueing))
        return 2 * MATMUL**3 / spread.median / 1e9

    def held(self, shape: Shape, backends: Sequence[Backend]) -> Sequence[_Contender]:
        """Let implementations take turns, the order moving on by one each round, so that a drift meets all alike."""
        contenders = [_Contender(backend) for backend in backends]
        try:
            inputs = make_inputs(self._torch, shape)
        except self._torch.cuda.OutOfMemoryError:
            for one in contenders:
                one.reason = NO_MEMORY
            return contenders
        for one in contenders:
            self._guard(one, partial(self._enter, one, shape, inputs))
        for number in range(self._asked.rounds):
            turned = number % max(1, len(contenders))
            for one in (*contenders[turned:], *contenders[:turned]):
                self._guard(one, partial(self._take_turn, one))
        return contenders

    def _guard(self, one: _Contender, step: Callable[[], None]) -> None:
        """Take a step of an implementation that is still in; what it raises takes it out, with the reason."""
        if one.reason is not None:
            return
        try:
            step()
        except self._torch.cuda.OutOfMemoryError:
            one.reason, one.task = NO_MEMORY, None
            self._torch.cuda.empty_cache()
        except FOREIGN as error:
            one.reason, one.task = first_line(error), None

    def _enter(self, one: _Contender, shape: Shape, inputs: tuple[Any, Any, Any]) -> None:
        """See that it computes attention, and how many samples a turn of it may have."""
        one.reason = one.backend.lack(shape.dtype, shape.direction)
        if one.reason is not None:
            return
        one.error = self._error(one.backend, shape)
        bound = bound_of(shape)
        if not one.error <= bound:
            one.reason = f"is wrong: relative error {one.error:.1e}, and {bound:.0e} is the bound"
            return
        one.task = task_of(self._torch, one.backend, shape, inputs)
        once, one.queueing = self._timer.warm_up(one.task)
        one.samples = max(1, min(self._asked.samples, int(LONGEST_TURN / max(once, 1e-3))))

    def _error(self, backend: Backend, shape: Shape) -> float:
        key = (backend.name, shape.head_dim, shape.dtype, shape.causal, shape.direction)
        if key not in self._errors:
            self._errors[key] = error_of(self._torch, backend, replace(shape, batch=1))
        return self._errors[key]

    def _take_turn(self, one: _Contender) -> None:
        if one.task is not None:
            looks = one.readings
            one.times += self._timer.turn(one.task, one.samples, one.queueing, lambda: looks.append(self._meter.read()))


def _row(shape: Shape, one: _Contender, peak: float) -> Row:
    if one.reason is not None:
        return Row(shape, one.backend.name, None, None, None, one.error, None, one.reason)
    times = Spread.of(one.times)
    tflops = shape.operations / times.median / 1e9
    return Row(shape, one.backend.name, times, tflops, tflops / peak, one.error, Clocks.of(one.readings), None)
