"""MAX_JOBS, NVCC_THREADS and the memory budget, and the sentences that explain them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopperforge.model.machine import Limit, Machine, Need, Sizing
from hopperforge.sizing import GIBIBYTE, most_together, size

PEAK = int(5.3 * GIBIBYTE)


def machine(*, cores: int = 2, memory: float = 23.0, free: float | None = None, affinity: int | None = None) -> Machine:
    """A machine by cores and GiB."""
    narrower = () if affinity is None else (Limit(value=affinity, source="affinity"),)
    return Machine(
        cores=(Limit(value=cores, source="whole machine"), *narrower),
        memory=(Limit(value=int(memory * GIBIBYTE), source="whole machine"),),
        free=() if free is None else (Limit(value=int(free * GIBIBYTE), source="MemAvailable"),),
        architecture="x86_64",
    )


def sized(
    found: Machine,
    *,
    jobs: int | None = None,
    memory: int | None = None,
    gencodes: int = 1,
    unit_peak: int = PEAK,
    units: int | None = 97,
) -> Sizing:
    return size(found, jobs=jobs, memory=memory, gencodes=gencodes, unit_peak=unit_peak, units=units)


def numbers(sizing: Sizing) -> tuple[int, int, float]:
    return sizing.max_jobs, sizing.nvcc_threads, round(sizing.memory / GIBIBYTE, 3)


@pytest.mark.parametrize(
    ("found", "units", "gencodes", "expected"),
    [
        (machine(cores=2, memory=23), 97, 1, (2, 1, 20.7)),  # cores decide
        (machine(cores=16, memory=23), 97, 1, (3, 1, 20.7)),  # memory decides: 20.7 / 5.3
        (machine(cores=16, memory=128), 2, 1, (2, 1, 115.2)),  # units decide
        (machine(cores=16, memory=128), 0, 1, (1, 1, 115.2)),  # nothing to compile
        (machine(cores=16, memory=128), None, 1, (16, 1, 115.2)),  # not known how much there is to compile
        (machine(cores=16, memory=128, affinity=3), 97, 1, (3, 1, 115.2)),
        (machine(cores=16, memory=8), 97, 1, (1, 1, 7.0)),  # 1 GiB is more than a tenth
        (machine(cores=16, memory=128, free=12), 97, 1, (2, 1, 12.0)),  # less is free than granted
        (machine(cores=16, memory=0.5), 97, 1, (1, 1, 0.0)),
        (machine(cores=16, memory=23), 97, 2, (3, 2, 20.7)),  # spare cores: 16 // 3 = 5, two targets
        (machine(cores=16, memory=128), 3, 8, (3, 5, 115.2)),  # 16 // 3 = 5, eight targets
        (machine(cores=2, memory=23), 97, 4, (2, 1, 20.7)),  # no spare core
    ],
)
def test_the_tightest_limit_decides(
    found: Machine, units: int | None, gencodes: int, expected: tuple[int, int, float]
) -> None:
    assert numbers(sized(found, units=units, gencodes=gencodes)) == expected


def test_each_number_has_one_sentence_that_names_the_deciding_limit() -> None:
    assert sized(machine(cores=16, affinity=2)).reasons == (
        "memory 20.7 GiB: 23.0 GiB (whole machine) less 2.3 GiB of headroom",
        "MAX_JOBS 2: 2 cores (affinity), 20.7 GiB / 5.3 GiB per unit = 3",
        "NVCC_THREADS 1: a unit has one GPU target, so nvcc has nothing to do side by side",
    )


def test_what_is_free_now_and_few_units_are_explained() -> None:
    assert sized(machine(cores=9, memory=128, free=60), gencodes=3, units=2).reasons == (
        "memory 60.0 GiB: what is free now (MemAvailable), below 128.0 GiB (whole machine) less 12.8 GiB of headroom",
        "MAX_JOBS 2: 9 cores (whole machine), 60.0 GiB / 5.3 GiB per unit = 11, for 2 units",
        "NVCC_THREADS 3: 3 GPU targets per unit, 9 cores (whole machine) / MAX_JOBS 2 = 4",
    )


def test_the_words_override_and_say_so() -> None:
    found = sized(machine(cores=4), jobs=3, memory=20 * GIBIBYTE)

    assert numbers(found) == (3, 1, 20.0)
    assert found.reasons[:2] == ("memory 20.0 GiB: the word memory=", "MAX_JOBS 3: the word jobs=")


def test_more_than_the_machine_allows_is_kept_and_said() -> None:
    found = sized(machine(cores=2), jobs=8, memory=32 * GIBIBYTE)

    assert numbers(found) == (8, 1, 32.0)
    assert found.reasons[:2] == (
        "memory 32.0 GiB: the word memory=, more than 23.0 GiB (whole machine)",
        (
            "MAX_JOBS 8: the word jobs=, more than 2 cores (whole machine); 32.0 GiB / 5.3 GiB per unit = 6, "
            "so fewer run at once while units are that large"
        ),
    )


def test_a_budget_below_one_unit_is_warned_of() -> None:
    found = sized(machine(cores=8, memory=4))

    assert numbers(found) == (1, 1, 3.0)
    assert found.reasons[3:] == (
        (
            "a unit may be killed for want of memory: it needs up to 5.3 GiB and the budget is 3.0 GiB; "
            "free some, or raise the budget with the word memory="
        ),
    )


def test_a_limit_on_each_process_warns_but_does_not_reduce_jobs() -> None:
    limited = replace(
        machine(cores=8, memory=128), process_memory=Limit(value=4 * GIBIBYTE, source="RLIMIT_AS of each process")
    )

    found = sized(limited)

    assert found.max_jobs == 8
    assert found.reasons[3:] == (
        (
            "a unit may fail for want of memory: it needs up to 5.3 GiB and RLIMIT_AS of each process is 4.0 GiB; "
            "raise it with ulimit -v"
        ),
    )


sizes = st.integers(min_value=0, max_value=2**44)
limits = st.lists(st.builds(Limit, value=st.integers(min_value=1, max_value=512), source=st.just("a")), min_size=1)
machines = st.builds(
    Machine,
    cores=limits.map(tuple),
    memory=st.lists(st.builds(Limit, value=sizes, source=st.just("b")), min_size=1).map(tuple),
    free=st.lists(st.builds(Limit, value=sizes, source=st.just("c"))).map(tuple),
    architecture=st.just("x86_64"),
)
peaks = st.integers(min_value=1, max_value=2**36)


@given(machines, peaks, st.integers(min_value=0, max_value=400), st.integers(min_value=1, max_value=9))
def test_jobs_stay_between_one_and_every_limit(found: Machine, peak: int, units: int, gencodes: int) -> None:
    sizing = sized(found, unit_peak=peak, units=units, gencodes=gencodes)

    cores = min(limit.value for limit in found.cores)
    assert 1 <= sizing.max_jobs <= max(1, min(cores, units))
    assert 0 <= sizing.memory <= min(limit.value for limit in (*found.memory, *found.free))
    assert sizing.max_jobs == 1 or sizing.max_jobs * peak <= sizing.memory
    assert 1 <= sizing.nvcc_threads <= gencodes
    assert sizing.max_jobs * sizing.nvcc_threads <= cores
    assert [reason.split()[0] for reason in sizing.reasons[:3]] == ["memory", "MAX_JOBS", "NVCC_THREADS"]


@given(machines, peaks, sizes)
def test_more_memory_never_means_fewer_jobs(found: Machine, peak: int, more: int) -> None:
    richer = replace(
        found,
        memory=tuple(replace(limit, value=limit.value + more) for limit in found.memory),
        free=tuple(replace(limit, value=limit.value + more) for limit in found.free),
    )

    assert sized(richer, unit_peak=peak).max_jobs >= sized(found, unit_peak=peak).max_jobs


@given(machines, peaks, st.integers(min_value=1, max_value=600), sizes)
def test_words_are_kept_as_given(found: Machine, peak: int, jobs: int, memory: int) -> None:
    sizing = sized(found, jobs=jobs, memory=memory, unit_peak=peak)

    assert (sizing.max_jobs, sizing.memory) == (jobs, memory)


LARGE, SMALL = Need(peak=8 * GIBIBYTE, later=5 * GIBIBYTE), Need(peak=GIBIBYTE, later=GIBIBYTE)


@pytest.mark.parametrize(
    ("needs", "gibibytes", "most"),
    [
        ([], 99, 0),
        ([LARGE] * 9, 7.9, 0),
        ([LARGE] * 9, 8, 1),
        ([LARGE] * 9, 12.9, 1),
        ([LARGE] * 9, 13, 2),  # 8 + 5
        ([LARGE] * 9, 99, 9),
        ([LARGE, SMALL, LARGE, SMALL], 8, 3),  # 1 + 1 + 5, whatever is at its peak
        ([SMALL] * 3, 2.5, 2),
    ],
)
def test_most_together(needs: list[Need], gibibytes: float, most: int) -> None:
    assert most_together(needs, int(gibibytes * GIBIBYTE)) == most


def needing(found: Machine, needs: list[Need], jobs: int | None = None) -> Sizing:
    peak = max(need.peak for need in needs)
    return size(found, jobs=jobs, memory=None, gencodes=1, unit_peak=peak, units=len(needs), needs=needs)


def test_units_that_are_started_when_there_is_room_are_not_all_counted_by_the_largest_peak() -> None:
    found = needing(machine(cores=16, memory=128), [LARGE] * 30 + [SMALL] * 2)
    assert found.max_jobs == 16
    assert found.reasons[1] == (
        "MAX_JOBS 16: 16 cores (whole machine), "
        "115.2 GiB / 8.0 GiB per unit at its peak = 14, up to 24 with some small or past it"
    )
    assert needing(machine(cores=32, memory=128), [LARGE] * 40).max_jobs == 22  # 8 + 21 * 5 = 113
    assert needing(machine(cores=4, memory=12), [LARGE] * 30).reasons[1] == (
        "MAX_JOBS 1: 4 cores (whole machine), 10.8 GiB / 8.0 GiB per unit = 1"
    )
    assert needing(machine(cores=4, memory=12), [LARGE] * 30 + [SMALL] * 2).max_jobs == 3


def test_the_word_jobs_is_compared_with_what_units_need_over_time() -> None:
    assert needing(machine(cores=32, memory=128), [LARGE] * 40, jobs=22).reasons[1] == "MAX_JOBS 22: the word jobs="
    assert needing(machine(cores=32, memory=128), [LARGE] * 40, jobs=23).reasons[1] == (
        "MAX_JOBS 23: the word jobs=; "
        "115.2 GiB / 8.0 GiB per unit at its peak = 14, up to 22 with some small or past it, "
        "so fewer run at once while units are that large"
    )


any_needs = st.lists(
    st.builds(lambda peak, share: Need(peak=peak, later=peak * share // 100), peaks, st.integers(0, 100)), min_size=1
)


@given(machines, any_needs)
def test_no_more_jobs_than_fit_and_no_fewer_than_by_the_largest_peak(found: Machine, needs: list[Need]) -> None:
    sizing = needing(found, needs)
    cores = min(limit.value for limit in found.cores)
    smallest = sorted(need.later for need in needs)[: sizing.max_jobs]
    assert 1 <= sizing.max_jobs <= min(cores, len(needs))
    assert sizing.max_jobs == 1 or sum(smallest) <= sizing.memory
    by_peak = sized(found, unit_peak=max(need.peak for need in needs), units=len(needs))
    assert sizing.max_jobs >= by_peak.max_jobs


@given(any_needs, sizes)
def test_more_memory_never_means_that_fewer_fit(needs: list[Need], more: int) -> None:
    assert most_together(needs, more) <= most_together(needs, more + 1)
    assert most_together(needs, more) <= most_together([*needs, needs[0]], more)
