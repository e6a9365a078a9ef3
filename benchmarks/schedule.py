"""How long a profile's units take on machines of several sizes, each by itself and merged, by expected costs.

    nox -s patch -- profile=fa3-fwd cuda=13.0 merge=off --json > units.json
    python benchmarks/schedule.py --units units.json
    python benchmarks/schedule.py --units units.json --machine 64:460 --machine 4:28 --without '*_sm80'

Nothing is compiled: it plays what the local executor would do, with the shipped cost table (--costs DIR: with what was
learned in a cache's `store` folder, too). `apart` are the sources by themselves; `merged` as the recipe says; `whole`
is that with each unit's peak set aside for its whole life, and as many at once as have room for the largest peak, which
is how it was before what units need later was known. `jobs` is MAX_JOBS, `busy` the share of cores x time at work until
the last unit starts, `tail` the seconds from then to the end, `CPU` the units' seconds together, `most` the most memory
set aside at any moment. Run from a checkout, with hopperforge's dependencies.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from hopperforge.config.project import load_project
from hopperforge.executors.base import Task
from hopperforge.executors.schedule import Flight, line_up, needed, play
from hopperforge.merging import merge_units
from hopperforge.model.machine import Need
from hopperforge.model.pack import Unit
from hopperforge.model.versions import ToolkitVersion
from hopperforge.report import Recorder
from hopperforge.sizing import most_together
from hopperforge.store.costs import CostTable, calm_of, load_costs

RECIPE = "fa3-fwd"
MACHINES = ("16:115", "16:121", "8:60", "2:21", "2:12")
COLUMNS = (
    f"{'cores':>5}{'GB':>5}  {'units':<9}{'number':>6}{'jobs':>6}{'wall s':>8}{'CPU s':>8}{'busy':>7}{'tail s':>8}"
    f"{'most GB':>9}"
)


def tasks_of(units: Sequence[Unit], costs: CostTable, toolkit: ToolkitVersion) -> list[Task]:
    """Make of units what the executor gets."""
    expected = [(unit, costs.expect(unit, toolkit)) for unit in units]
    return [Task(name=unit.name, cost=cost, calm=calm_of(unit, cost)) for unit, cost in expected]


def most_at_once(tasks: Sequence[Task], cores: int, memory: int) -> int:
    """Choose MAX_JOBS as `sizing` does."""
    peaks = [(task.cost.peak_rss, task.calm) for task in tasks]
    needs = [Need(peak=peak, later=peak if calm is None else calm.rss) for peak, calm in peaks]
    return max(1, min(cores, len(needs), most_together(needs, memory)))


def row(name: str, tasks: Sequence[Task], cores: int, jobs: int, memory: int) -> tuple[str, float]:
    """Play one schedule; the line of the table and the wall seconds."""
    played = play(line_up(tasks, memory), (), jobs=jobs, memory=memory, now=0.0)
    last = max(flight.start for flight in played)
    wall = max(flight.end for flight in played)
    busy = sum(min(flight.end, last) - flight.start for flight in played) / (cores * last) if last else 1.0
    most = max(needed(active(played, flight.start), flight.start) for flight in played)
    cpu = sum(flight.end - flight.start for flight in played)
    numbers = f"{len(tasks):>6}{jobs:>6}{wall:>8.0f}{cpu:>8.0f}{busy:>7.3f}{wall - last:>8.0f}{most / 1e9:>9.1f}"
    return f"{cores:>5}{memory / 1e9:>5.0f}  {name:<9}{numbers}", wall


def active(played: Sequence[Flight], moment: float) -> list[Flight]:
    """Say what runs at a moment; what is set aside is most when something starts."""
    return [flight for flight in played if flight.start <= moment < flight.end]


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Play the schedule of a profile's units.")
    parser.add_argument("--units", type=Path, required=True, help="what `patch ... merge=off --json` printed")
    parser.add_argument(
        "--machine", action="append", help=f"CORES:GB, may be repeated; {', '.join(MACHINES)} if none is given"
    )
    parser.add_argument("--without", default="", help="a pattern of the names of sources to leave out: *_sm80")
    parser.add_argument("--costs", type=Path, default=Path("/nonexistent"), help="a folder with learned costs")
    parser.add_argument("--cuda", default="13.0", help="whose learned costs count first")
    options = parser.parse_args(arguments)
    rules = load_project(Path(__file__).resolve().parents[1]).recipes[RECIPE].merge
    (listed,) = json.loads(options.units.read_text("utf-8"))
    every = [Unit(path=unit["path"], arguments=tuple(unit["arguments"])) for unit in listed["units"]]
    sources = [unit for unit in every if not fnmatchcase(unit.name, options.without)]
    costs = load_costs(options.costs, Recorder())
    toolkit = ToolkitVersion.parse(options.cuda)
    apart = tasks_of(sources, costs, toolkit)
    merged = tasks_of(merge_units(sources, rules), costs, toolkit)
    print(COLUMNS)
    for machine in options.machine or MACHINES:
        cores, memory = (int(number) for number in machine.split(":"))
        print_machine(apart, merged, cores, memory * 10**9)
    return 0


def print_machine(apart: Sequence[Task], merged: Sequence[Task], cores: int, memory: int) -> None:
    """Print a machine's three rows."""
    line, alone = row("apart", apart, cores, most_at_once(apart, cores, memory), memory)
    print(line)
    by_peak = max(1, min(cores, memory // max(task.cost.peak_rss for task in merged)))
    line, before = row("whole", [replace(task, calm=None) for task in merged], cores, by_peak, memory)
    print(f"{line}  wall {before / alone:.2f} of apart")
    line, after = row("merged", merged, cores, most_at_once(merged, cores, memory), memory)
    print(f"{line}  wall {after / alone:.2f} of apart, {after / before:.2f} of whole")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
