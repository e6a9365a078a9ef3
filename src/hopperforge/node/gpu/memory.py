"""Memory: the peak that each implementation takes beyond its inputs, over the length of the sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hopperforge.node.gpu.backends import FOREIGN, Absent, Backend, first_line, need_backends
from hopperforge.node.gpu.inputs import make_inputs, task_of
from hopperforge.node.gpu.words import MemoryWords, Shape

NO_MEMORY = "more than there is"


@dataclass(frozen=True)
class Peak:
    """Bytes beyond q, k and v at one shape, or why there is no figure; `backward` counts both passes."""

    shape: Shape
    backend: str
    bytes: int | None
    reason: str | None


@dataclass(frozen=True)
class Memory:
    """Everything that was measured."""

    backends: tuple[Backend, ...]
    absent: tuple[Absent, ...]
    peaks: tuple[Peak, ...]


def run_memory(torch: Any, asked: MemoryWords) -> Memory:
    """Measure everything; NothingMeasuredError where there is no implementation to measure."""
    backends, absent = need_backends(torch, asked.backends)
    peaks = [_peak(torch, backend, shape) for shape in asked.shapes() for backend in backends]
    return Memory(backends, absent, tuple(peaks))


def _peak(torch: Any, backend: Backend, shape: Shape) -> Peak:
    lack = backend.lack(shape.dtype, shape.direction)
    if lack is not None:
        return Peak(shape, backend.name, None, lack)
    try:
        return Peak(shape, backend.name, _bytes(torch, backend, shape), None)
    except torch.cuda.OutOfMemoryError:
        return Peak(shape, backend.name, None, NO_MEMORY)
    except FOREIGN as error:
        return Peak(shape, backend.name, None, first_line(error))
    finally:
        torch.cuda.empty_cache()


def _bytes(torch: Any, backend: Backend, shape: Shape) -> int:
    """Count what torch's allocator had at most, less what it had before; the second run, for the first sets up."""
    task = task_of(torch, backend, shape, make_inputs(torch, shape))
    task.call(task.prepare())
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    task.call(task.prepare())
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)


def growth(peaks: Mapping[int, int]) -> float | None:
    """Give the power of the length that the memory grows with, from the two longest lengths; None for fewer."""
    known = sorted((seqlen, size) for seqlen, size in peaks.items() if size > 0)
    if len(known) <= 1:
        return None
    (short, small), (long, large) = known[-2:]
    return math.log(large / small) / math.log(long / short)
