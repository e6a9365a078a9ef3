"""From a machine's limits to compile settings: MAX_JOBS, NVCC_THREADS, the memory budget, and a reason for each.

Pure arithmetic. Reading the machine is `run.machine`'s; holding to the budget while compiling is the executor's.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from hopperforge.model.machine import Limit, Machine, Need, Sizing

GIBIBYTE: Final = 2**30

_LEAST_HEADROOM: Final = GIBIBYTE
_HEADROOM_SHARE: Final = 10


def gib(size: int) -> str:
    """Print bytes as people compare them: 5.3 GiB."""
    return f"{size / GIBIBYTE:.1f} GiB"


def size(
    machine: Machine,
    *,
    jobs: int | None,
    memory: int | None,
    gencodes: int,
    unit_peak: int,
    units: int | None,
    merged: bool = False,
    needs: Sequence[Need] | None = None,
) -> Sizing:
    """Choose the settings of a compile of `units` units (None: not known yet) of up to `unit_peak` bytes each.

    `jobs` and `memory` (bytes) are the words of that name, None where not given; `gencodes` is the number of
    GPU targets of one unit; `merged` says that the unit of that peak has several sources. `needs` are those of the
    units where each is started only when there is room for it, as our executors do; None where MAX_JOBS of them run
    whatever they need, as with upstream's ninja. cores is the smallest core
    limit; headroom is 1 GiB or a tenth of the smallest memory limit, whichever is more; free is what is not in use now.

    | number       | word given | otherwise                                                             |
    |--------------|------------|-----------------------------------------------------------------------|
    | memory       | memory=    | min(smallest limit - headroom, free), never below 0                   |
    | MAX_JOBS     | jobs=      | min(cores, memory // unit_peak, units), never below 1; with `needs`   |
    |              |            | `most_together` in place of the quotient                              |
    | NVCC_THREADS |            | 1 with one gencode, else min(gencodes, cores // MAX_JOBS), at least 1 |

    `reasons` has one sentence for memory, MAX_JOBS and NVCC_THREADS each, in that order; warnings follow.
    """
    cores = tightest(machine.cores)
    budget, memory_reason = _memory_budget(machine, memory)
    max_jobs, jobs_reason = _max_jobs(cores, jobs=jobs, budget=budget, peak=unit_peak, units=units, needs=needs)
    threads, threads_reason = _nvcc_threads(cores, gencodes=gencodes, max_jobs=max_jobs)
    warnings = _warnings(machine, budget=budget, unit_peak=unit_peak, merged=merged)
    return Sizing(
        max_jobs=max_jobs,
        nvcc_threads=threads,
        memory=budget,
        reasons=(memory_reason, jobs_reason, threads_reason, *warnings),
    )


def tightest(limits: tuple[Limit, ...]) -> Limit:
    """Return the smallest of at least one limit; of equals the first, which is the widest in scope."""
    return min(limits, key=lambda limit: limit.value)


def _memory_budget(machine: Machine, word: int | None) -> tuple[int, str]:
    limit = tightest(machine.memory)
    if word is not None:
        above = f", more than {gib(limit.value)} ({limit.source})" if word > limit.value else ""
        return word, f"memory {gib(word)}: the word memory={above}"
    headroom = max(_LEAST_HEADROOM, limit.value // _HEADROOM_SHARE)
    budget = max(0, limit.value - headroom)
    held_back = f"{gib(limit.value)} ({limit.source}) less {gib(headroom)} of headroom"
    free = tightest(machine.free) if machine.free else None
    if free is not None and free.value < budget:
        return free.value, f"memory {gib(free.value)}: what is free now ({free.source}), below {held_back}"
    return budget, f"memory {gib(budget)}: {held_back}"


def most_together(needs: Sequence[Need], budget: int) -> int:
    """Count the units that could ever run at once: one at its peak, the rest past theirs, the smallest of all."""
    if not needs:
        return 0
    at_peak = min(need.peak - need.later for need in needs)
    held = accumulate(sorted(need.later for need in needs), initial=at_peak)
    return sum(total <= budget for total in held) - 1 if at_peak <= budget else 0


def _max_jobs(
    cores: Limit, *, jobs: int | None, budget: int, peak: int, units: int | None, needs: Sequence[Need] | None
) -> tuple[int, str]:
    fit = budget // max(1, peak)
    by_memory = f"{gib(budget)} / {gib(peak)} per unit = {fit}"
    if needs is not None and (most := most_together(needs, budget)) > fit:
        by_memory = f"{gib(budget)} / {gib(peak)} per unit at its peak = {fit}, up to {most} with some small or past it"
        fit = most
    by_cores = f"{_count(cores.value, 'core')} ({cores.source})"
    if jobs is not None:
        above = f", more than {by_cores}" if jobs > cores.value else ""
        fewer = f"; {by_memory}, so fewer run at once while units are that large" if jobs > fit else ""
        return jobs, f"MAX_JOBS {jobs}: the word jobs={above}{fewer}"
    allowed = min(cores.value, fit)
    if units is not None and units < allowed:
        chosen, few = max(1, units), f", for {_count(units, 'unit')}"
    else:
        chosen, few = max(1, allowed), ""
    return chosen, f"MAX_JOBS {chosen}: {by_cores}, {by_memory}{few}"


def _nvcc_threads(cores: Limit, *, gencodes: int, max_jobs: int) -> tuple[int, str]:
    if gencodes <= 1:
        return 1, "NVCC_THREADS 1: a unit has one GPU target, so nvcc has nothing to do side by side"
    spare = cores.value // max_jobs
    threads = max(1, min(gencodes, spare))
    quotient = f"{_count(cores.value, 'core')} ({cores.source}) / MAX_JOBS {max_jobs} = {spare}"
    return threads, f"NVCC_THREADS {threads}: {gencodes} GPU targets per unit, {quotient}"


def _warnings(machine: Machine, *, budget: int, unit_peak: int, merged: bool) -> tuple[str, ...]:
    found = []
    smaller = "; smaller units, of one source each, come with the word merge=off" if merged else ""
    if budget < unit_peak:
        found.append(
            f"a unit may be killed for want of memory: it needs up to {gib(unit_peak)} and the budget is "
            f"{gib(budget)}; free some, or raise the budget with the word memory={smaller}"
        )
    process = machine.process_memory
    if process is not None and process.value < unit_peak:
        found.append(
            f"a unit may fail for want of memory: it needs up to {gib(unit_peak)} and {process.source} is "
            f"{gib(process.value)}; raise it with ulimit -v{smaller}"
        )
    return tuple(found)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
