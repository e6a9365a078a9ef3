"""The one timer: events on the GPU's stream, a cold L2 cache where it is asked for, medians with quartiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable

L2_TIMES = 2  # so much more than the L2 cache is written to empty it
L2_BYTES = 64 << 20  # where torch does not tell the size of the cache
CYCLES_PER_SECOND = 2e9
LONGEST_HEAD_START = 0.05


@dataclass(frozen=True)
class Task:
    """What is timed is `call` alone; `prepare` makes its argument each time, and is not."""

    call: Callable[[Any], Any]
    prepare: Callable[[], Any] = lambda: None


@dataclass(frozen=True)
class Spread:
    """Median and quartiles, and of how many samples; in the unit of the samples."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Sum up one sample or more."""
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0], 1)
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, low, high, len(samples))


def bundle_ms(torch: Any, call: Callable[[], Any], calls: int = 1) -> float:
    """Milliseconds of a call, of so many one after another, with whatever the caches hold."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / calls


class Timer:
    """Times calls; a cold one empties the L2 cache before each, so that they find nothing of theirs in it.

    The samples of a turn are queued while the GPU still waits, for as long as this machine needs to queue them, so that
    what is timed is the GPU's work and not the launching of it.
    """

    def __init__(self, torch: Any, *, cold: bool) -> None:
        size = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 0) or L2_BYTES
        self._torch = torch
        self._flood = torch.empty(L2_TIMES * size, dtype=torch.uint8, device="cuda") if cold else None

    def warm_up(self, task: Task) -> tuple[float, float]:
        """Run a task twice; gives the milliseconds of the second, and the seconds it took at most to queue it."""
        self.turn(task, 1, 0.0)
        begun = time.perf_counter()
        (milliseconds,) = self.turn(task, 1, 0.0)
        return milliseconds, time.perf_counter() - begun

    def turn(
        self, task: Task, samples: int, queueing: float, meanwhile: Callable[[], Any] = lambda: None
    ) -> list[float]:
        """Milliseconds of each sample; `queueing` is how long one takes to queue, `meanwhile` runs while they do."""
        torch, pairs = self._torch, []
        torch.cuda._sleep(int(min(samples * queueing, LONGEST_HEAD_START) * CYCLES_PER_SECOND))  # noqa: SLF001
        for _ in range(samples):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            state = task.prepare()
            if self._flood is not None:
                self._flood.zero_()
            begin.record()
            task.call(state)
            end.record()
            pairs.append((begin, end))
        meanwhile()
        torch.cuda.synchronize()
        return [float(begin.elapsed_time(end)) for begin, end in pairs]
