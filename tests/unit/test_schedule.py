"""How well the profile fa3-fwd fills machines, by the shipped costs; benchmarks/schedule.py prints the same figures."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.unit.unit_zoo import forward_units, recipe_rules

from hopperforge.executors.base import Task
from hopperforge.executors.schedule import Flight, line_up, play
from hopperforge.merging import merge_units
from hopperforge.model.pack import Unit
from hopperforge.model.versions import ToolkitVersion
from hopperforge.report import Recorder
from hopperforge.store.costs import load_costs

GB = 1_000_000_000
APART = forward_units()
MERGED = merge_units(APART, recipe_rules())
COSTS = load_costs(Path("/nonexistent"), Recorder())


def flights(units: Sequence[Unit], jobs: int, memory: int) -> tuple[Flight, ...]:
    tasks = [Task(name=unit.name, cost=COSTS.expect(unit, ToolkitVersion.parse("13.0"))) for unit in units]
    return play(line_up(tasks, memory), (), jobs=jobs, memory=memory, now=0.0)


def wall(played: Sequence[Flight]) -> float:
    return max(flight.end for flight in played)


def work(played: Sequence[Flight], until: float) -> float:
    return sum(min(flight.end, until) - flight.start for flight in played)


@pytest.mark.parametrize("units", [APART, MERGED], ids=["apart", "merged"])
@pytest.mark.parametrize(("jobs", "memory"), [(16, 115 * GB), (2, 21 * GB)])
def test_cores_are_busy_until_the_last_unit_starts(units: Sequence[Unit], jobs: int, memory: int) -> None:
    played = flights(units, jobs, memory)
    last = max(flight.start for flight in played)
    assert len(played) == len(units)
    assert work(played, last) >= 0.90 * jobs * last
    assert not any(flight.alone for flight in played)


@pytest.mark.parametrize(("jobs", "memory", "ratio"), [(16, 115 * GB, 0.65), (8, 60 * GB, 0.65), (2, 21 * GB, 0.61)])
def test_merging_pays_in_wall_time(jobs: int, memory: int, ratio: float) -> None:
    assert wall(flights(MERGED, jobs, memory)) <= ratio * wall(flights(APART, jobs, memory))


def test_merging_pays_in_processor_time_and_two_units_fit_21_gb() -> None:
    apart, merged = flights(APART, 1, 21 * GB), flights(MERGED, 1, 21 * GB)
    assert wall(merged) <= 0.61 * wall(apart)
    assert max(flight.task.cost.peak_rss for flight in merged) <= 9 * GB
