"""How long a profile's units take on machines of several sizes, each by itself and merged, by expected costs.

    nox -s patch -- profile=fa3-fwd cuda=13.0 merge=off --json > units.json
    python benchmarks/schedule.py --units units.json
    python benchmarks/schedule.py --units units.json --machine 64:460 --machine 4:28

Nothing is compiled: it plays what the local executor would do, with the shipped cost table (--costs DIR: with what was
learned in a cache's `store` folder, too). `busy` is the share of cores x time at work until the last unit starts,
`tail` the seconds from then to the end, `CPU` the units' seconds together. Run from a checkout, with hopperforge's
dependencies.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hopperforge.config.project import load_project
from hopperforge.executors.base import Task
from hopperforge.executors.schedule import line_up, play
from hopperforge.merging import merge_units
from hopperforge.model.pack import Unit
from hopperforge.model.versions import ToolkitVersion
from hopperforge.report import Recorder
from hopperforge.store.costs import CostTable, load_costs

RECIPE = "fa3-fwd"
MACHINES = ("16:115", "2:21")
COLUMNS = (
    f"{'cores':>5}{'GB':>5}  {'units':<9}{'number':>6}{'wall s':>8}{'CPU s':>8}{'busy':>7}{'tail s':>8}{'most GB':>9}"
)


def row(name: str, units: Sequence[Unit], costs: CostTable, toolkit: ToolkitVersion, machine: str) -> tuple[str, float]:
    """Play one schedule; the line of the table and the wall seconds."""
    cores, gigabytes = (int(number) for number in machine.split(":"))
    memory = gigabytes * 10**9
    tasks = [Task(name=unit.name, cost=costs.expect(unit, toolkit)) for unit in units]
    played = play(line_up(tasks, memory), (), jobs=cores, memory=memory, now=0.0)
    last = max(flight.start for flight in played)
    wall = max(flight.end for flight in played)
    busy = sum(min(flight.end, last) - flight.start for flight in played) / (cores * last) if last else 1.0
    most = max(
        sum(other.task.cost.peak_rss for other in played if other.start <= flight.start < other.end)
        for flight in played
    )
    cpu = sum(flight.end - flight.start for flight in played)
    numbers = f"{len(units):>6}{wall:>8.0f}{cpu:>8.0f}{busy:>7.3f}{wall - last:>8.0f}{most / 1e9:>9.1f}"
    return f"{cores:>5}{gigabytes:>5}  {name:<9}{numbers}", wall


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Play the schedule of a profile's units.")
    parser.add_argument("--units", type=Path, required=True, help="what `patch ... merge=off --json` printed")
    parser.add_argument(
        "--machine", action="append", help="CORES:GB, may be repeated; 16:115 and 2:21 if none is given"
    )
    parser.add_argument("--costs", type=Path, default=Path("/nonexistent"), help="a folder with learned costs")
    parser.add_argument("--cuda", default="13.0", help="whose learned costs count first")
    options = parser.parse_args(arguments)
    rules = load_project(Path(__file__).resolve().parents[1]).recipes[RECIPE].merge
    (listed,) = json.loads(options.units.read_text("utf-8"))
    apart = [Unit(path=unit["path"], arguments=tuple(unit["arguments"])) for unit in listed["units"]]
    costs = load_costs(options.costs, Recorder())
    toolkit = ToolkitVersion.parse(options.cuda)
    print(COLUMNS)
    for machine in options.machine or MACHINES:
        line, before = row("apart", apart, costs, toolkit, machine)
        print(line)
        line, after = row("merged", merge_units(apart, rules), costs, toolkit, machine)
        print(f"{line}  wall {after / before:.2f} of apart")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
